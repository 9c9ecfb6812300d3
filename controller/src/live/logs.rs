//! Logs of containers, as text or as events.
//!
//! The agent is read at once and held up by nobody: where a client does not read, the call to the agent is given up and made anew once the
//! client reads again, from the byte at which it was left.

mod form;
mod query;

use std::pin::pin;
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
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::task::AbortOnDropHandle;

use self::form::Form;
use super::Ask;
use super::visit::{Ended, Kind, Visit};
use crate::apiserver::ApiServer;
use crate::apiserver::failure::{Failure, Outcome};
use crate::gateway::link::{AgentLink, InstanceUid, LinkError};
use crate::gateway::streams::FromAgent;

/// How long an agent is kept waiting for a client.
const STALL: Duration = Duration::from_secs(2);
/// How long a client may leave what it asked for unread.
const UNREAD_PATIENCE: Duration = Duration::from_secs(60);
/// Between two signs that an event stream is open.
const HEARTBEAT: Duration = Duration::from_secs(15);
pub(super) const EVENT_STREAM: &str = "text/event-stream";

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
                () = standing.ended() => Err(Stop::RightLost),
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

/// Why a log is not told to its end.
enum Stop {
    ClientLeft,
    Unread,
    RightLost,
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

impl Pump {
    async fn run(
        &mut self,
        mut chunks: FromAgent<LogsChunk>,
        sender: mpsc::Sender<Bytes>,
    ) -> Result<(), Stop> {
        let mut heartbeat = interval(HEARTBEAT);
        heartbeat.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let chunk = tokio::select! {
                biased;
                chunk = chunks.next() => chunk,
                () = sender.closed() => return Err(Stop::ClientLeft),
                _ = heartbeat.tick(), if self.is_events => {
                    let sent = sender.send_timeout(Bytes::from_static(b": open\n\n"), UNREAD_PATIENCE).await;
                    sent.map_err(|_| Stop::Unread)?;
                    continue;
                }
            };
            let Some(chunk) = chunk else { return Ok(()) };
            let entries = chunk.map_err(Stop::Agent)?.entries;
            let mut text = Vec::new();
            let is_full = self.form.write(&entries, &self.visit.passage, &mut text);
            if !text.is_empty() && !self.send(text.into(), &mut chunks, &sender).await? {
                // It was given up meanwhile.
                chunks = self.read_on().await.map_err(Stop::Agent)?;
            }
            if is_full {
                return Ok(());
            }
        }
    }

    /// False if the agent was let go of, since the client took its time.
    async fn send(
        &self,
        text: Bytes,
        chunks: &mut FromAgent<LogsChunk>,
        sender: &mpsc::Sender<Bytes>,
    ) -> Result<bool, Stop> {
        let mut reserved = pin!(sender.reserve());
        if let Ok(permit) = tokio::time::timeout(STALL, reserved.as_mut()).await {
            permit.map_err(|_| Stop::ClientLeft)?.send(text);
            return Ok(true);
        }
        let can_read_on = self.form.position().is_some();
        if can_read_on {
            *chunks = futures::stream::empty().boxed();
        }
        let patience = UNREAD_PATIENCE.saturating_sub(STALL);
        let permit = tokio::time::timeout(patience, reserved).await.map_err(|_| Stop::Unread)?;
        permit.map_err(|_| Stop::ClientLeft)?.send(text);
        Ok(!can_read_on)
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
            Err(Stop::RightLost) => {
                let words = "the right to this, or the token it was opened with, has ended";
                (Ended::RightLost, Some(Failure::forbidden(words)))
            }
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
            Ended::RightLost => Err("the right to this has ended"),
            Ended::Stopping => Err("the server is stopping"),
            Ended::AgentFailed => Err("the agent is gone"),
            _ => Err("the client does not read"),
        }
    }
}
