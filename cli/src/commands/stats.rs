//! `gantry stats`: what containers use.

use std::collections::BTreeMap;
use std::io::IsTerminal as _;
use std::time::Duration;

use futures::{StreamExt as _, stream};
use gantry_api::names::GROUP;
use gantry_api::v1alpha1::Container;
use http::Request;
use serde::Deserialize;

use super::fleet;
use super::targets::{self, Target};
use crate::args::{FleetArgs, Reach, StatsArgs, TargetArgs};
use crate::client::{self, Controller, encoded};
use crate::kinds::Kind;
use crate::output::age::size;
use crate::output::failure::render;
use crate::output::out;
use crate::output::table::table;

/// Hosts asked at once.
const AT_ONCE: usize = 8;
/// Containers asked for at once.
const MOST: usize = 50;

#[derive(Debug, Deserialize)]
struct Answer {
    #[serde(default)]
    items: Vec<Sample>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[derive(Default)]
struct Sample {
    name: String,
    cpu_percent: f64,
    memory_bytes: u64,
    memory_limit_bytes: u64,
    network_received_bytes: u64,
    network_sent_bytes: u64,
    block_read_bytes: u64,
    block_written_bytes: u64,
    pids: u64,
}

/// Prints a table, once or until Ctrl-C.
pub(crate) async fn run(reach: &Reach, options: &StatsArgs) -> anyhow::Result<()> {
    let controller = Controller::reach(reach).await?;
    loop {
        let targets = meant(&controller, options).await?;
        let text = rows(&controller, &targets).await?;
        // The screen is painted anew, as a terminal understands it.
        let clear = if std::io::stdout().is_terminal() && !options.no_stream { "\x1b[H\x1b[J" } else { "" };
        out::write(&format!("{clear}{text}"))?;
        if options.no_stream {
            return Ok(());
        }
        if targets.is_empty() {
            tokio::time::sleep(Duration::from_secs(2)).await;
        }
    }
}

/// Asked anew each time, since containers come and go.
async fn meant(controller: &Controller, options: &StatsArgs) -> anyhow::Result<Vec<Target>> {
    if !options.targets.is_empty() {
        let meant = TargetArgs {
            targets: options.targets.clone(),
            instances: options.instances.clone(),
            ..TargetArgs::default()
        };
        return targets::containers(controller, &meant).await;
    }
    let fleet = FleetArgs {
        instances: options.instances.clone(),
        selector: options.selector.clone(),
        ..FleetArgs::default()
    };
    let found = fleet::objects(controller, "Container", &fleet, false).await?;
    let found = found.into_iter().filter_map(|item| serde_json::from_value::<Container>(item).ok());
    Ok(found.map(|one| Target::named(&one.instance, &one.container_name)).collect())
}

async fn rows(controller: &Controller, targets: &[Target]) -> anyhow::Result<String> {
    let mut hosts: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for target in targets {
        hosts.entry(&target.instance).or_default().push(&target.name);
    }
    let asks =
        hosts.iter().flat_map(|(host, names)| names.chunks(MOST).map(move |names| (*host, names.to_vec())));
    let ask = async |(host, names): (&str, Vec<&str>)| {
        let instances = Kind::ours(GROUP, "DockerInstance").path(Some(&controller.namespace));
        let query = client::query(names.iter().map(|name| ("container", *name)));
        let path = format!("{instances}/{}/stats?{}", encoded(host), query.trim_start_matches('&'));
        let request = Request::get(path).body(Vec::new())?;
        let answer: Answer = controller.read(request, host).await?;
        anyhow::Ok((host.to_owned(), answer.items))
    };
    let mut answers = stream::iter(asks).map(ask).buffered(AT_ONCE);
    let mut rows = Vec::new();
    let only_one = hosts.len() == 1;
    while let Some(answer) = answers.next().await {
        match answer {
            Ok((host, samples)) => rows.extend(samples.into_iter().map(|sample| row(&host, sample))),
            Err(error) if only_one => return Err(error),
            // The others are shown.
            Err(error) => eprint!("{}", render(&error).replacen("error: ", "warning: ", 1)),
        }
    }
    let heading =
        ["INSTANCE", "NAME", "CPU", "MEMORY", "LIMIT", "RECEIVED", "SENT", "READ", "WRITTEN", "PIDS"];
    Ok(table(&heading, &rows, false))
}

fn row(host: &str, sample: Sample) -> Vec<String> {
    vec![
        host.to_owned(),
        sample.name,
        format!("{:.2}%", sample.cpu_percent),
        size(sample.memory_bytes),
        size(sample.memory_limit_bytes),
        size(sample.network_received_bytes),
        size(sample.network_sent_bytes),
        size(sample.block_read_bytes),
        size(sample.block_written_bytes),
        sample.pids.to_string(),
    ]
}
