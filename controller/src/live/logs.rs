//! Logs of containers, as text or as events.
//!
//! The agent is read at once, as far as there is room, and held up by nobody: where a client does not read, the call to the agent is given up and
//! made anew once the client reads again, from the byte at which it was left.

mod form;
pub(super) mod query;

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::response::Response;
use bytes::Bytes;
use futures::StreamExt as _;
use gantry_api::agent_v1::{LogsChunk, LogsRequest};
use http::header::{ACCEPT, CONTENT_TYPE};
use http::{HeaderMap, HeaderName, HeaderValue};
use tokio::sync::mpsc;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until};
use tokio_util::task::AbortOnDropHandle;

use self::form::Form;
use super::Ask;
use super::visit::{Ended, Kind, Visit};
use crate::apiserver::ApiServer;
use crate::apiserver::failure::{Failure, Outcome};
use crate::gateway::link::{AgentLink, InstanceUid, LinkError};
use crate::gateway::streams::FromAgent;

/// Bytes that are held for a client before its agent is kept waiting.
const AHEAD: usize = 256 << 10;
/// How long an agent is kept waiting for a client.
const STALL: Duration = Duration::from_secs(2);
/// How long a client may leave what it asked for unread.
const UNREAD_PATIENCE: Duration = Duration::from_secs(60);
/// Between two signs that an event stream is open.
const HEARTBEAT: Duration = Duration::from_secs(15);
pub(super) const EVENT_STREAM: &str = "text/event-stream";
const RIGHT_LOST: &str = "the right to this has ended";

/// `follow`, `tailLines`, `sinceSeconds`, … as Kubernetes has it, or `tail`, `since`, … as Docker does.
pub(crate) async fn logs(server: &Arc<ApiServer>, ask: Ask) -> Outcome<Response> {
    let wants_events = wants_events(&ask.parts.headers);
    let query = query::read(&ask, server.clock().now(), wants_events)?;
    let link = Arc::clone(server.live().link()?);
    let uid = ask.instance.uid;
    // What is certain to fail is no visit.
    if link.session(uid).is_none() {
        return Err(ask.instance.away());
    }
    let visit = Visit::open(server, &ask, Kind::Logs, &[]).await?;
    let opened = link.logs(uid, query.request.clone()).await;
    let (begin, chunks) = opened.map_err(|error| {
        visit.ends(Ended::AgentFailed, None);
        ask.instance.failed(error)
    })?;
    visit.is_in(&begin.container_id, &begin.container_name, &[]);

    let pump = Pump {
        link,
        uid,
        request: LogsRequest { container: begin.container_id, ..query.request },
        form: Form::new(wants_events, query.timestamps, query.limit_bytes),
        is_events: wants_events,
        visit,
    };
    let (sender, receiver) = mpsc::channel(1);
    let (standing, stopping) = (ask.standing, server.stopping().clone());
    let instance = ask.instance;
    let work = async move {
        let mut pump = pump;
        let mut told = sender.clone();
        let end = {
            let pumped = pump.run(chunks, sender);
            tokio::select! {
                end = pumped => end,
                lost = standing.ended() => Err(Stop::RightLost(lost)),
                () = stopping.cancelled() => Err(Stop::Stopping),
            }
        };
        pump.finish(end, &mut told, |error| instance.failed(error)).await
    };
    Ok(respond(if wants_events { EVENT_STREAM } else { "text/plain" }, receiver, work))
}

/// True if the client asks for events by name.
pub(super) fn wants_events(headers: &HeaderMap) -> bool {
    headers.get_all(ACCEPT).iter().any(|value| value.to_str().is_ok_and(|text| text.contains(EVENT_STREAM)))
}

/// The answer that streams what the work sends; it breaks off where the work fails. The body owns the work.
pub(super) fn respond(
    media_type: &'static str,
    receiver: mpsc::Receiver<Bytes>,
    work: impl Future<Output = Result<(), &'static str>> + Send + 'static,
) -> Response {
    let task = AbortOnDropHandle::new(tokio::spawn(work));
    let chunks = futures::stream::unfold(Some((receiver, task)), async |state| {
        let (mut receiver, task) = state?;
        if let Some(chunk) = receiver.recv().await {
            return Some((Ok(chunk), Some((receiver, task))));
        }
        // A client that takes a part for the whole would be deceived.
        let why = task.await.unwrap_or(Err("the server met a bug")).err()?;
        Some((Err(std::io::Error::other(why)), None))
    });
    let mut response = Response::new(Body::from_stream(chunks));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(media_type));
    // Proxies that gather answers would hold a log back.
    response
        .headers_mut()
        .insert(HeaderName::from_static("x-accel-buffering"), HeaderValue::from_static("no"));
    response
}

/// Ends what `respond` streams since a right to it is lost: events have a place to say which, anything else breaks off.
pub(super) async fn lose(
    lost: &Failure,
    wants_events: bool,
    sender: &mpsc::Sender<Bytes>,
) -> Result<(), &'static str> {
    if wants_events {
        return sender
            .send_timeout(form::last_event(Some(lost)), STALL)
            .await
            .map_err(|_| "the client does not read");
    }
    Err(RIGHT_LOST)
}

/// Why a log is not told to its end.
enum Stop {
    ClientLeft,
    Unread,
    RightLost(Failure),
    Stopping,
    Agent(LinkError),
}

struct Pump {
    link: Arc<dyn AgentLink>,
    uid: InstanceUid,
    request: LogsRequest,
    form: Form,
    is_events: bool,
    visit: Visit,
}

/// How it stands with the agent.
enum Reading {
    Open,
    /// Until the client has taken what is held.
    GivenUp,
    Over(Result<(), Stop>),
}

impl Pump {
    async fn run(
        &mut self,
        mut chunks: FromAgent<LogsChunk>,
        sender: mpsc::Sender<Bytes>,
    ) -> Result<(), Stop> {
        let mut heartbeat = interval(HEARTBEAT);
        heartbeat.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut held = Vec::new();
        // When the client last took something, or had nothing to take.
        let mut taken = Instant::now();
        let mut reading = Reading::Open;
        loop {
            let (is_open, is_full) = (matches!(reading, Reading::Open), held.len() >= AHEAD);
            tokio::select! {
                biased;
                permit = sender.reserve(), if !held.is_empty() => {
                    permit.map_err(|_| Stop::ClientLeft)?.send(std::mem::take(&mut held).into());
                    taken = Instant::now();
                }
                chunk = chunks.next(), if is_open && !is_full => {
                    if held.is_empty() {
                        taken = Instant::now();
                    }
                    match chunk {
                        Some(Ok(chunk)) => if self.form.write(&chunk.entries, &self.visit.passage, &mut held) {
                            reading = Reading::Over(Ok(()));
                        },
                        Some(Err(error)) => reading = Reading::Over(Err(Stop::Agent(error))),
                        None => reading = Reading::Over(Ok(())),
                    }
                }
                () = sleep_until(taken + STALL), if is_open && is_full && self.form.position().is_some() => {
                    chunks = futures::stream::empty().boxed();
                    reading = Reading::GivenUp;
                }
                () = sleep_until(taken + UNREAD_PATIENCE), if !held.is_empty() => return Err(Stop::Unread),
                () = sender.closed() => return Err(Stop::ClientLeft),
                _ = heartbeat.tick(), if self.is_events && held.is_empty() => {
                    held.extend_from_slice(b": open\n\n");
                    taken = Instant::now();
                }
            }
            if held.is_empty() {
                match reading {
                    Reading::Open => {}
                    Reading::GivenUp => {
                        chunks = self.read_on().await.map_err(Stop::Agent)?;
                        reading = Reading::Open;
                    }
                    Reading::Over(end) => return end,
                }
            }
        }
    }

    async fn read_on(&mut self) -> Result<FromAgent<LogsChunk>, LinkError> {
        if let Some((unix_nano, bytes)) = self.form.position() {
            self.request.tail = None;
            self.request.since_unix_nano = Some(unix_nano);
            self.request.skip_bytes = bytes;
        }
        Ok(self.link.logs(self.uid, self.request.clone()).await?.1)
    }

    /// Says how it ended, where anybody can hear it.
    async fn finish(
        self,
        end: Result<(), Stop>,
        sender: &mut mpsc::Sender<Bytes>,
        words: impl Fn(LinkError) -> Failure,
    ) -> Result<(), &'static str> {
        let (ended, failure) = match end {
            Ok(()) => (Ended::Complete, None),
            Err(Stop::ClientLeft) => (Ended::ClientLeft, None),
            Err(Stop::Unread) => (Ended::Unread, None),
            Err(Stop::RightLost(lost)) => (Ended::RightLost, Some(lost)),
            Err(Stop::Stopping) => {
                (Ended::Stopping, Some(Failure::unavailable("this server is stopping: open it again")))
            }
            Err(Stop::Agent(error)) => (Ended::AgentFailed, Some(words(error))),
        };
        self.visit.ends(ended, None);
        if self.is_events && (failure.is_some() || ended == Ended::Complete) {
            let last = form::last_event(failure.as_ref());
            return sender.send_timeout(last, STALL).await.map_err(|_| "the client does not read");
        }
        match ended {
            Ended::Complete => Ok(()),
            Ended::RightLost => Err(RIGHT_LOST),
            Ended::Stopping => Err("the server is stopping"),
            Ended::AgentFailed => Err("the agent is gone"),
            _ => Err("the client does not read"),
        }
    }
}
