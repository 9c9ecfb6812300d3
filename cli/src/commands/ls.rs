//! `gantry ls`: the hosts, and how they are.

use anyhow::Context as _;
use gantry_api::names::GROUP;
use gantry_api::v1alpha1::DockerInstance;
use jiff::Timestamp;
use serde_json::Value;

use super::fleet;
use crate::args::{LsArgs, Reach};
use crate::client::Controller;
use crate::clock;
use crate::kinds::Kind;
use crate::output::age::{age, size};
use crate::output::form::{self, Form};
use crate::output::out;
use crate::output::table::table;

/// Prints the hosts of the namespace.
pub(crate) async fn run(reach: &Reach, options: &LsArgs) -> anyhow::Result<()> {
    let controller = Controller::reach(reach).await?;
    let found = fleet::instances(&controller, options.all_namespaces, options.selector.as_deref()).await?;
    if let Some(form) = options.output.output.as_ref().filter(|form| **form != Form::Wide) {
        let kind = Kind::ours(GROUP, "DockerInstance");
        let found = found.into_iter().map(|object| (&kind, object)).collect();
        return out::write(&form::objects(form, found, false, options.output.no_headers)?);
    }
    if found.is_empty() {
        eprintln!("No hosts here. `gantry agent install-command` prints how to bring one in.");
        return Ok(());
    }
    out::write(&rows(options, found, clock::now())?)
}

fn rows(options: &LsArgs, found: Vec<Value>, now: Timestamp) -> anyhow::Result<String> {
    let is_wide = options.output.output.is_some();
    let mut heading =
        vec!["NAME", "HEALTH", "ENGINE", "AGENT", "RUNNING", "CONTAINERS", "IMAGES", "LAST SEEN", "AGE"];
    if options.all_namespaces {
        heading.insert(0, "NAMESPACE");
    }
    if is_wide {
        heading.extend(["OS", "ARCH", "CPUS", "MEMORY", "POLICY"]);
    }
    let mut rows = Vec::new();
    for instance in found {
        let instance: DockerInstance =
            serde_json::from_value(instance).context("the controller answers something else than a host")?;
        let status = instance.status.unwrap_or_default();
        let engine = status.engine.unwrap_or_default();
        let agent = status.agent.unwrap_or_default();
        let counts = status.containers.unwrap_or_default();
        let metadata = instance.metadata;
        let mut row = vec![
            metadata.name.unwrap_or_default(),
            status.health.as_str().to_owned(),
            engine.version,
            agent.version.unwrap_or_default(),
            counts.running.to_string(),
            counts.total.to_string(),
            status.images.map(|images| images.to_string()).unwrap_or_default(),
            age(status.last_connected_time.map(|time| time.0), now),
            age(metadata.creation_timestamp.map(|time| time.0), now),
        ];
        if options.all_namespaces {
            row.insert(0, metadata.namespace.unwrap_or_default());
        }
        if is_wide {
            let policy = agent.policy.and_then(|policy| serde_json::to_value(policy).ok());
            let policy = policy.as_ref().and_then(Value::as_str).unwrap_or_default();
            row.extend([
                engine.operating_system,
                engine.architecture,
                engine.cpus.to_string(),
                size(engine.memory_bytes),
                policy.to_owned(),
            ]);
        }
        rows.push(row);
    }
    Ok(table(&heading, &rows, options.output.no_headers))
}
