//! What Pods and Nodes use now, as `kubectl top` asks for it: each host is asked for a sample of each container that runs there.
//!
//! What no host told is absent, never zero: containers that do not run, and all of a host that does not answer, which a warning names.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use axum::response::Response;
use futures::StreamExt as _;
use gantry_api::agent_v1::{StatsRequest, StatsSample};
use http::StatusCode;
use serde_json::{Value, json};
use tokio::time::{Instant, timeout_at};

use super::Live;
use super::inventory::Sort;
use crate::apiserver::ApiServer;
use crate::apiserver::answer::{self, Page};
use crate::apiserver::failure::{Failure, Outcome};
use crate::apiserver::kinds::{self, Kind};
use crate::apiserver::request::Call;
use crate::gateway::link::{AgentLink, InstanceUid};
use crate::storage::{Key, Object, Resource, Texts, Version};

/// Containers that are looked at for one answer.
const MOST_CONTAINERS: usize = 5_000;
/// Containers that one call to an agent is for.
const MOST_AT_ONCE: usize = 256;
/// Hosts that are asked at once.
const MOST_HOSTS: usize = 256;
/// Docker looks twice, a second apart.
const PATIENCE: Duration = Duration::from_secs(10);
/// With as many hosts as there may be, for all of them.
const PATIENCE_WITH_ALL: Duration = Duration::from_secs(40);
/// Hosts that are named of those that did not answer.
const MOST_NAMED: usize = 5;
/// Between the two looks.
const WINDOW: &str = "1s";
const NANOS_PER_PERCENT: f64 = 10_000_000.0;

/// Hosts by the names of their Nodes.
type Hosts = BTreeMap<Arc<str>, Host>;
/// What each of them told, by the ids of containers; `None` of one that did not answer.
type Told = HashMap<Arc<str>, Option<HashMap<String, StatsSample>>>;

/// One that is to be asked.
struct Host {
    uid: InstanceUid,
    containers: Vec<String>,
}

/// What the inventory has of a container.
struct Container {
    id: String,
    name: String,
}

/// PodMetrics or NodeMetrics, one or all that the selectors mean.
pub(crate) async fn usage(server: &ApiServer, call: &Call) -> Outcome<Response> {
    let shown = kinds::live(&call.kind.plural).ok_or_else(Failure::no_such_path)?;
    let wanted = wanted(server, call, shown)?;
    let (metrics, silent) = if call.kind.namespaced {
        of_pods(server, call.kind, &wanted).await?
    } else {
        of_nodes(server, call.kind, &wanted).await?
    };
    let Some(name) = &call.name else {
        let version = server.live().inventories().cache().version();
        let page =
            Page { objects: metrics, version, resume: None, remaining: None, damaged: Vec::new(), age: None };
        return Ok(answer::warn(answer::list(call, server.now(), page)?, &warning(&silent)));
    };
    match (metrics.first(), silent.first()) {
        (Some(one), _) => answer::object(call, server.now(), StatusCode::OK, one.json.clone()),
        (None, None) => Err(Failure::not_found(&call.resource(), name)),
        (None, Some(node)) => Err(Failure::not_found_on_host(format!(
            "{} \"{name}\" not found: node \"{node}\" does not tell what is used there now",
            call.resource()
        ))),
    }
}

/// The Pods or Nodes that are asked for.
fn wanted(server: &ApiServer, call: &Call, shown: &'static Kind) -> Outcome<Vec<Arc<Object>>> {
    let of_shown = Call { kind: shown, ..call.clone() };
    let selector = of_shown.selector()?;
    let cache = server.live().inventories().cache();
    let mut wanted = match &call.name {
        Some(name) => {
            let found = cache.get(&of_shown.target()?);
            vec![found.ok_or_else(|| Failure::not_found(&call.resource(), name))?]
        }
        None => cache.list(&shown.resource(), call.namespace.as_deref()).objects,
    };
    wanted.retain(|object| selector.matches(object));
    Ok(wanted)
}

async fn of_pods(
    server: &ApiServer,
    kind: &Kind,
    wanted: &[Arc<Object>],
) -> Outcome<(Vec<Arc<Object>>, Vec<Arc<str>>)> {
    let (mut hosts, mut pods) = (Hosts::new(), Vec::new());
    for pod in wanted {
        let Some(container) = running(pod) else { continue };
        let Some(node) = pod.fields.get("node").and_then(|name| node(server.live(), name)) else { continue };
        let host = hosts.entry(Arc::clone(&node.key.name));
        let host = host.or_insert_with(|| Host { uid: InstanceUid(node.uid), containers: Vec::new() });
        host.containers.push(container.id.clone());
        pods.push((pod, Arc::clone(&node.key.name), container));
    }
    let (told, silent) = ask(server, hosts).await?;

    let now = server.now().to_string();
    let metrics = pods.into_iter().filter_map(|(pod, node, Container { id, name })| {
        let sample = told.get(&node)?.as_ref()?.get(&id)?;
        let usage = amounts(sample.cpu_percent, sample.memory_bytes);
        Some(made(kind, pod, &now, ("containers", json!([{"name": name, "usage": usage}]))))
    });
    Ok((metrics.collect(), silent))
}

/// The sum of their containers: an engine tells nothing of what else runs on its machine. One that answers and runs none uses nothing.
async fn of_nodes(
    server: &ApiServer,
    kind: &Kind,
    wanted: &[Arc<Object>],
) -> Outcome<(Vec<Arc<Object>>, Vec<Arc<str>>)> {
    let (mut hosts, mut unheard) = (Hosts::new(), Vec::new());
    for node in wanted {
        let uid = InstanceUid(node.uid);
        match server
            .live()
            .inventories()
            .of(uid, Sort::Containers)
            .filter(|known| known.stale_since.is_none())
        {
            Some(known) => {
                let containers =
                    known.objects.iter().filter_map(|object| Some(running(object)?.id)).collect();
                hosts.insert(Arc::clone(&node.key.name), Host { uid, containers });
            }
            None => unheard.push(Arc::clone(&node.key.name)),
        }
    }
    let (told, mut silent) = ask(server, hosts).await?;
    silent.append(&mut unheard);
    silent.sort();

    let now = server.now().to_string();
    let metrics = wanted.iter().filter_map(|node| {
        let samples = told.get(&node.key.name)?.as_ref()?;
        let cpu: f64 = samples.values().map(|sample| sample.cpu_percent).sum();
        let memory: u64 = samples.values().map(|sample| sample.memory_bytes).sum();
        Some(made(kind, node, &now, ("usage", amounts(cpu, memory))))
    });
    Ok((metrics.collect(), silent))
}

fn node(live: &Live, name: &str) -> Option<Arc<Object>> {
    let key = Key { resource: Resource("nodes".into()), namespace: "".into(), name: name.into() };
    live.inventories().cache().get(&key)
}

/// What uses something. A paused container has its memory still.
fn running(object: &Object) -> Option<Container> {
    let container: Value = serde_json::from_slice(&object.json).ok()?;
    let text = |field: &str| container.get(field).and_then(Value::as_str).unwrap_or_default().to_owned();
    matches!(&*text("state"), "running" | "paused")
        .then(|| Container { id: text("id"), name: text("containerName") })
}

/// Asks all of them, and names those that did not answer.
async fn ask(server: &ApiServer, hosts: Hosts) -> Outcome<(Told, Vec<Arc<str>>)> {
    let containers: usize = hosts.values().map(|host| host.containers.len()).sum();
    if containers > MOST_CONTAINERS {
        return Err(Failure::bad_request(format!(
            "{containers} containers run there, and at most {MOST_CONTAINERS} are looked at for one answer: ask for one namespace, or with a \
             selector"
        )));
    }
    let link = server.live().link()?;
    let give_up = Instant::now() + PATIENCE_WITH_ALL;
    let asking = hosts.into_iter().map(|(node, host)| {
        let link = Arc::clone(link);
        async move {
            let until = give_up.min(Instant::now() + PATIENCE);
            let told = timeout_at(until, of_host(link.as_ref(), host)).await.ok().flatten();
            (node, told)
        }
    });
    let told: Told = futures::stream::iter(asking).buffer_unordered(MOST_HOSTS).collect().await;
    let mut silent: Vec<Arc<str>> =
        told.iter().filter(|(_, told)| told.is_none()).map(|(node, _)| Arc::clone(node)).collect();
    silent.sort();
    Ok((told, silent))
}

/// A sample of each that runs; `None` where that is not all of them.
async fn of_host(link: &dyn AgentLink, host: Host) -> Option<HashMap<String, StatsSample>> {
    link.session(host.uid)?;
    let mut all = HashMap::new();
    for containers in host.containers.chunks(MOST_AT_ONCE) {
        // One that has just gone must not cost the figures of the others.
        let request = StatsRequest { containers: containers.to_vec(), once: true, present_only: true };
        let mut told = link.stats(host.uid, request).await.ok()?.take(MOST_AT_ONCE);
        while let Some(sample) = told.next().await {
            let sample = sample.ok()?;
            // Without a time it has stopped meanwhile.
            if sample.unix_nano != 0 {
                all.insert(sample.container.clone(), sample);
            }
        }
    }
    Some(all)
}

/// The figures of a Pod or Node, by its name and labels.
fn made(kind: &Kind, of: &Object, now: &str, (field, figures): (&str, Value)) -> Arc<Object> {
    let labels: BTreeMap<&str, &str> = of.labels.iter().collect();
    let mut metadata = json!({"name": &*of.key.name, "creationTimestamp": now, "labels": labels});
    if let Some(metadata) = metadata.as_object_mut().filter(|_| kind.namespaced) {
        metadata.insert("namespace".to_owned(), (&*of.key.namespace).into());
    }
    let object = json!({
        "kind": kind.kind, "apiVersion": kind.api_version(), "metadata": metadata, "timestamp": now, "window": WINDOW, field: figures,
    });
    let key = Key { resource: kind.resource(), ..of.key.clone() };
    let (labels, fields) = (of.labels.clone(), Texts::default());
    Arc::new(Object {
        key,
        uid: of.uid,
        version: Version::default(),
        labels,
        fields,
        json: object.to_string().into(),
    })
}

/// In billionths of a processor, and bytes.
fn amounts(cpu_percent: f64, memory_bytes: u64) -> Value {
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a share of some processors")]
    let nanos = (cpu_percent.max(0.0) * NANOS_PER_PERCENT).round() as u64;
    json!({"cpu": format!("{nanos}n"), "memory": memory_bytes.to_string()})
}

fn warning(silent: &[Arc<str>]) -> Vec<String> {
    if silent.is_empty() {
        return Vec::new();
    }
    let named = silent.iter().take(MOST_NAMED).map(AsRef::as_ref).collect::<Vec<_>>().join(", ");
    let more = if silent.len() > MOST_NAMED { ", …" } else { "" };
    vec![format!(
        "{} nodes do not tell what is used there now, so it is not listed: {named}{more}",
        silent.len()
    )]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_of_a_processor_is_told_in_billionths_of_one() {
        assert_eq!(amounts(150.0, 1024), json!({"cpu": "1500000000n", "memory": "1024"}));
        assert_eq!(amounts(0.0, 0), json!({"cpu": "0n", "memory": "0"}));
        assert_eq!(amounts(-1.0, 0)["cpu"], "0n");
    }
}
