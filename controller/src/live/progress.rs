//! How far an Operation has come, as it comes: a line of JSON or an event for each change, layer by layer for a pull, until it has ended.
//!
//! What the agent said last is in memory and newer than the Operation's status, which is written once a second at most. Each line is the whole
//! state, so whoever comes late or reads slowly has missed nothing that still counts.

use std::sync::Arc;
use std::time::Duration;

use axum::response::Response;
use gantry_api::v1alpha1::{OperationError, OperationStatus, Phase, Progress};
use http::request::Parts;
use serde::{Deserialize, Serialize};
use serde_json::json;
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::mpsc;
use tokio::time::{MissedTickBehavior, interval, timeout};
use uuid::Uuid;

use super::events::Counted;
use super::logs::{EVENT_STREAM, respond, wants_events};
use crate::apiserver::ApiServer;
use crate::apiserver::authorize::Standing;
use crate::apiserver::failure::{Failure, Outcome};
use crate::apiserver::request::{Call, Freshness};
use crate::gateway::link::{AgentLink, InstanceUid, LinkEvent};
use crate::gateway::reports;
use crate::storage::Key;
use crate::watch_cache::{Next, Subscription, WatchCache};

/// How long a client may leave what it asked for unread.
const UNREAD_PATIENCE: Duration = Duration::from_secs(60);
/// Between two signs that an event stream is open.
const HEARTBEAT: Duration = Duration::from_secs(15);

/// Of an Operation that has ended, how it did.
pub(super) async fn progress(
    server: &Arc<ApiServer>,
    call: Call,
    parts: &Parts,
    standing: Standing,
) -> Outcome<Response> {
    let key = call.target()?;
    let cache = server.store().cache();
    if cache.get(&key).is_none() {
        server.reach(call.kind, Freshness::Newest).await?;
    }
    let uid = cache.get(&key).ok_or_else(|| Failure::not_found(&key.resource, &key.name))?.uid;
    let held = (server.limits().of_watch()?, Counted::of(server, "progress"));
    let following = Following { cache: cache.clone(), link: Arc::clone(server.live().link()?), key, uid };
    let wants_events = wants_events(&parts.headers);
    let (sender, receiver) = mpsc::channel(1);
    let stopping = server.stopping().clone();
    let work = async move {
        let _held = held;
        tokio::select! {
            end = following.tell(&sender, wants_events) => end,
            _ = standing.ended() => Err("the right to this has ended"),
            () = stopping.cancelled() => Err("the server is stopping"),
        }
    };
    Ok(respond(if wants_events { EVENT_STREAM } else { "application/json" }, receiver, work))
}

/// One Operation, and where news of it come from.
struct Following {
    cache: WatchCache,
    link: Arc<dyn AgentLink>,
    key: Key,
    uid: Uuid,
}

/// What is told of it.
#[derive(Clone, Debug, PartialEq, Serialize)]
struct Seen {
    phase: Phase,
    attempts: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    message: Option<String>,
    #[serde(flatten)]
    progress: Progress,
    /// Once it has ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    result: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<OperationError>,
}

impl Following {
    /// To the end of the Operation, or of its client.
    async fn tell(
        &self,
        sender: &mpsc::Sender<bytes::Bytes>,
        wants_events: bool,
    ) -> Result<(), &'static str> {
        // Heard before anything is looked at, so that nothing falls between.
        let (mut events, mut changes) = (self.link.events(), self.changes()?);
        let mut heartbeat = interval(HEARTBEAT);
        heartbeat.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let (mut told, mut has_news) = (None, true);
        loop {
            if has_news {
                let room = timeout(UNREAD_PATIENCE, sender.reserve()).await;
                let room =
                    room.map_err(|_| "the client does not read")?.map_err(|_| "the client has left")?;
                // Looked at now, so that of what came while the client did not read the newest alone is told.
                let seen = self.look().ok_or("the operation is gone")?;
                if told.as_ref() != Some(&seen) {
                    room.send(line(&seen, wants_events).into());
                }
                if seen.phase.is_final() {
                    return Ok(());
                }
                told = Some(seen);
            }
            has_news = tokio::select! {
                event = events.recv() => match event {
                    Ok(LinkEvent::Reported(_, operation)) => operation == self.uid,
                    Ok(_) => false,
                    Err(RecvError::Lagged(_)) => true,
                    Err(RecvError::Closed) => return Err("the server is stopping"),
                },
                next = changes.next() => match next {
                    Next::Changes(_) => true,
                    Next::Progress(_) => false,
                    Next::TooSlow => {
                        changes = self.changes()?;
                        true
                    }
                    Next::Closed => return Err("the server is stopping"),
                },
                () = sender.closed() => return Err("the client has left"),
                _ = heartbeat.tick(), if wants_events => {
                    sender.try_send(": open\n\n".into()).ok();
                    false
                }
            };
        }
    }

    fn changes(&self) -> Result<Subscription, &'static str> {
        let Key { resource, namespace, name } = &self.key;
        let changes = self.cache.watch(resource, Some(namespace), Some(name), self.cache.version());
        changes.map_err(|_| "the operation cannot be followed now")
    }

    /// `None` if there is no such Operation any more.
    fn look(&self) -> Option<Seen> {
        #[derive(Deserialize)]
        struct Stored {
            #[serde(default)]
            status: OperationStatus,
        }
        let object = self.cache.get(&self.key).filter(|object| object.uid == self.uid)?;
        let Stored { status } = serde_json::from_slice(&object.json).ok()?;
        let is_over = status.phase.is_final();
        let heard = if is_over { None } else { self.heard(&status) };
        Some(Seen {
            phase: status.phase,
            attempts: status.attempts,
            message: status.message,
            progress: heard.or(status.progress).unwrap_or_default(),
            result: status.result.filter(|_| is_over),
            error: status.error.filter(|_| is_over),
        })
    }

    /// What its agent said last of this attempt.
    fn heard(&self, status: &OperationStatus) -> Option<Progress> {
        let instance = status.dispatch.as_ref()?.instance_uid.parse().ok()?;
        let report = self.link.report(InstanceUid(instance), self.uid)?;
        let pull = report.pull.filter(|_| report.attempt >= status.attempts)?;
        Some(reports::progress(&pull))
    }
}

fn line(seen: &Seen, wants_events: bool) -> String {
    let text = json!(seen);
    let event = if seen.phase.is_final() { "end" } else { "progress" };
    if wants_events { format!("event: {event}\ndata: {text}\n\n") } else { format!("{text}\n") }
}
