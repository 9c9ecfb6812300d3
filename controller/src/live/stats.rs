//! Figures of containers, as `docker stats` shows them.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use axum::response::Response;
use bytes::Bytes;
use futures::StreamExt as _;
use gantry_api::agent_v1::{StatsRequest, StatsSample};
use jiff::Timestamp;
use serde_json::{Value, json};
use tokio::sync::mpsc;

use super::Ask;
use super::logs::{EVENT_STREAM, lose, respond, wants_events};
use super::visit::{Kind, Visit};
use crate::apiserver::failure::{Failure, Outcome};
use crate::apiserver::{ApiServer, answer};
use crate::gateway::link::LinkError;
use crate::gateway::streams::FromAgent;

/// Containers in one answer.
const MOST_CONTAINERS: usize = 256;
/// How long a client may leave figures unread, of which only the newest are kept.
const UNREAD_PATIENCE: Duration = Duration::from_secs(60);

/// One sample of a container, or with `stream=true` one about every second: a line each, or an event. Several containers are named by
/// `container=…`, each.
pub(crate) async fn stats(server: &Arc<ApiServer>, ask: Ask) -> Outcome<Response> {
    let params = &ask.call.params;
    let containers: Vec<String> = if ask.object.is_empty() {
        params.all("container").map(str::to_owned).collect()
    } else {
        vec![ask.object.to_string()]
    };
    if containers.is_empty() || containers.len() > MOST_CONTAINERS {
        let words =
            format!("container: Invalid value: name 1 to {MOST_CONTAINERS} containers, each with container=");
        return Err(Failure::bad_request(words));
    }
    let streams = params.is_set("stream") || params.is_set("follow");
    let is_one = !ask.object.is_empty();
    let visit = Visit::open(server, &ask, Kind::Figures, &[]).await?;
    let request = StatsRequest { containers, once: !streams, present_only: false };
    let link = server.live().link()?;
    let samples = link.stats(ask.instance.uid, request).await.map_err(|error| ask.instance.failed(error))?;
    if !streams {
        let all: Vec<Result<StatsSample, LinkError>> = samples.take(MOST_CONTAINERS).collect().await;
        let all: Result<Vec<Value>, LinkError> =
            all.into_iter().map(|sample| sample.map(|sample| shown(&sample))).collect();
        let mut all = all.map_err(|error| ask.instance.failed(error))?;
        return match (is_one, all.pop()) {
            (true, Some(one)) => answer::json(http::StatusCode::OK, &one),
            (true, None) => {
                Err(Failure::not_found_on_host(format!("container `{}` was removed meanwhile", ask.object)))
            }
            (false, last) => {
                all.extend(last);
                answer::json(http::StatusCode::OK, &json!({"items": all}))
            }
        };
    }
    let wants_events = wants_events(&ask.parts.headers);
    let (sender, receiver) = mpsc::channel(1);
    let (standing, stopping) = (ask.standing, server.stopping().clone());
    let work = async move {
        let _visit = visit;
        let told = sender.clone();
        tokio::select! {
            end = pass(samples, sender, wants_events) => end,
            lost = standing.ended() => lose(&lost, wants_events, &told).await,
            () = stopping.cancelled() => Err("the server is stopping"),
        }
    };
    Ok(respond(if wants_events { EVENT_STREAM } else { "application/json" }, receiver, work))
}

/// Reads the agent at once, and keeps of each container what is newest until the client takes it.
async fn pass(
    mut samples: FromAgent<StatsSample>,
    sender: mpsc::Sender<Bytes>,
    wants_events: bool,
) -> Result<(), &'static str> {
    let mut newest: BTreeMap<String, StatsSample> = BTreeMap::new();
    let mut is_over = false;
    while !(is_over && newest.is_empty()) {
        let send = tokio::time::timeout(UNREAD_PATIENCE, sender.reserve());
        tokio::select! {
            sample = samples.next(), if !is_over => match sample {
                Some(Ok(sample)) => {
                    newest.insert(sample.container.clone(), sample);
                }
                Some(Err(_)) => return Err("the agent is gone"),
                None => is_over = true,
            },
            permit = send, if !newest.is_empty() => match permit {
                Ok(Ok(permit)) => {
                    let all = std::mem::take(&mut newest);
                    permit.send(all.values().map(|sample| line(sample, wants_events)).collect::<String>().into());
                }
                Ok(Err(_)) | Err(_) => return Err("the client does not read"),
            },
            () = sender.closed() => return Err("the client has left"),
        }
    }
    Ok(())
}

fn line(sample: &StatsSample, wants_events: bool) -> String {
    let text = shown(sample);
    if wants_events { format!("event: sample\ndata: {text}\n\n") } else { format!("{text}\n") }
}

/// Counters are bytes, but for CPU time in nanoseconds.
fn shown(sample: &StatsSample) -> Value {
    let time = (sample.unix_nano != 0).then(|| Timestamp::from_nanosecond(sample.unix_nano.into()).ok());
    json!({
        "container": sample.container,
        "id": sample.container_id,
        "name": sample.container_name,
        "time": time.flatten().map(|time| time.to_string()),
        "cpuPercent": sample.cpu_percent,
        "cpuTotalNano": sample.cpu_total_nano,
        "cpus": sample.cpus,
        "memoryBytes": sample.memory_bytes,
        "memoryLimitBytes": sample.memory_limit_bytes,
        "networkReceivedBytes": sample.network_received_bytes,
        "networkSentBytes": sample.network_sent_bytes,
        "blockReadBytes": sample.block_read_bytes,
        "blockWrittenBytes": sample.block_written_bytes,
        "pids": sample.pids,
    })
}
