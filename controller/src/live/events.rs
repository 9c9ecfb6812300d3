//! What happens on a host, as its engine tells it: a line of JSON each, or server-sent events.

use std::sync::Arc;
use std::time::Duration;

use axum::response::Response;
use bytes::Bytes;
use futures::StreamExt as _;
use futures::stream::BoxStream;
use http::HeaderName;
use prometheus::IntGauge;
use serde_json::Value;
use tokio::sync::mpsc;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until};

use super::Ask;
use super::engine::{PATIENCE, Question, open};
use super::logs::query::time;
use super::logs::{EVENT_STREAM, lose, respond, wants_events};
use crate::apiserver::ApiServer;
use crate::apiserver::failure::{Failure, Outcome};
use crate::gateway::link::LinkError;

/// Longest event, in bytes: an engine tells all labels of what it is about.
const LONGEST: usize = 1 << 20;
/// Bytes that are held for a client before its engine is kept waiting.
const AHEAD: usize = 256 << 10;
/// How long an engine is kept waiting for a client, before the client is given up.
const STALL: Duration = Duration::from_secs(5);
/// Between two signs that an event stream is open.
const HEARTBEAT: Duration = Duration::from_secs(15);

/// `since` and `until` as of logs, `filters` as Docker has them. Without `until` it goes on until somebody ends it.
pub(super) async fn events(server: &Arc<ApiServer>, ask: Ask) -> Outcome<Response> {
    let wants_events = wants_events(&ask.parts.headers);
    let last = ask.parts.headers.get(HeaderName::from_static("last-event-id"));
    let last = last.filter(|_| wants_events).map(|id| {
        let id = id.to_str().ok().and_then(|id| id.parse::<u64>().ok());
        id.ok_or_else(|| Failure::bad_request("Last-Event-ID: Invalid value: must be an id of these events"))
    });
    let last = last.transpose()?;
    let (params, now) = (&ask.call.params, server.now());
    let last_time = last.and_then(|nanos| i64::try_from(nanos).ok());
    let since = last_time.map_or_else(|| time(params, "since", now), |last| Ok(Some(last)))?;
    let question = Question::of("SystemEvents", "")
        .with("since", since.map(seconds))
        .with("until", time(params, "until", now)?.map(seconds))
        .with("filters", params.get("filters").map(str::to_owned));
    let share = server.limits().of_watch()?;
    let opened = tokio::time::timeout(PATIENCE, open(server, &ask.instance, question)).await;
    let opened = opened.map_err(|_| Failure::timeout("the engine did not answer in time"))??;
    let counted = Counted::of(server, "events");
    let form = Form { wants_events, last: last.unwrap_or_default(), ..Form::default() };
    let (sender, receiver) = mpsc::channel(1);
    let (standing, stopping) = (ask.standing, server.stopping().clone());
    let work = async move {
        let _held = (share, counted);
        let told = sender.clone();
        tokio::select! {
            end = pass(opened.bytes, form, sender) => end,
            lost = standing.ended() => lose(&lost, wants_events, &told).await,
            () = stopping.cancelled() => Err("the server is stopping"),
        }
    };
    Ok(respond(if wants_events { EVENT_STREAM } else { "application/json" }, receiver, work))
}

/// As an engine takes a time.
fn seconds(nanos: i64) -> String {
    format!("{}.{:09}", nanos.div_euclid(1_000_000_000), nanos.rem_euclid(1_000_000_000))
}

/// Counted as open as long as it is held.
pub(super) struct Counted(IntGauge);

impl Counted {
    pub(super) fn of(server: &ApiServer, kind: &str) -> Self {
        let gauge = server.metrics().live_streams.with_label_values(&[kind]);
        gauge.inc();
        Self(gauge)
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.dec();
    }
}

async fn pass(
    mut pieces: BoxStream<'static, Result<Bytes, LinkError>>,
    mut form: Form,
    sender: mpsc::Sender<Bytes>,
) -> Result<(), &'static str> {
    let mut heartbeat = interval(HEARTBEAT);
    heartbeat.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let (mut held, mut is_over, mut taken) = (Vec::new(), false, Instant::now());
    while !(is_over && held.is_empty()) {
        tokio::select! {
            biased;
            permit = sender.reserve(), if !held.is_empty() => {
                permit.map_err(|_| "the client has left")?.send(std::mem::take(&mut held).into());
                taken = Instant::now();
            }
            piece = pieces.next(), if !is_over && held.len() < AHEAD => {
                if held.is_empty() {
                    taken = Instant::now();
                }
                match piece {
                    Some(Ok(piece)) => form.write(&piece, &mut held)?,
                    Some(Err(_)) => return Err("the agent is gone"),
                    None => is_over = true,
                }
            }
            () = sleep_until(taken + STALL), if held.len() >= AHEAD => return Err("the client does not read"),
            () = sender.closed() => return Err("the client has left"),
            _ = heartbeat.tick(), if form.wants_events && held.is_empty() => {
                held.extend_from_slice(b": open\n\n");
                taken = Instant::now();
            }
        }
    }
    Ok(())
}

/// Events as they are shown. An engine puts nothing certain between two of them, so their ends are looked for.
#[derive(Default)]
struct Form {
    wants_events: bool,
    /// Up to here, in nanoseconds, the client has them.
    last: u64,
    /// The beginning of an event.
    unread: Vec<u8>,
    depth: usize,
    is_in_text: bool,
    is_escaped: bool,
}

impl Form {
    fn write(&mut self, piece: &[u8], text: &mut Vec<u8>) -> Result<(), &'static str> {
        for byte in piece {
            if !self.takes(*byte) {
                continue;
            }
            let event =
                serde_json::from_slice(&self.unread).map_err(|_| "the engine tells what is no event")?;
            self.unread.clear();
            show(&event, self.wants_events, self.last, text);
        }
        if self.unread.len() > LONGEST { Err("the engine tells an event without end") } else { Ok(()) }
    }

    /// True if an event ends with this byte, or nothing that began like this is one.
    fn takes(&mut self, byte: u8) -> bool {
        self.unread.push(byte);
        match byte {
            _ if self.is_escaped => self.is_escaped = false,
            b'\\' if self.is_in_text => self.is_escaped = true,
            b'"' => self.is_in_text = !self.is_in_text,
            _ if self.is_in_text => {}
            b'{' => self.depth += 1,
            b'}' => {
                self.depth = self.depth.saturating_sub(1);
                return self.depth == 0;
            }
            _ => {}
        }
        self.depth == 0 && !byte.is_ascii_whitespace()
    }
}

fn show(event: &Value, wants_events: bool, last: u64, text: &mut Vec<u8>) {
    if !wants_events {
        text.extend_from_slice(format!("{event}\n").as_bytes());
        return;
    }
    let id = event.get("timeNano").and_then(Value::as_u64).unwrap_or_default();
    if id == 0 || id > last {
        text.extend_from_slice(format!("id: {id}\nevent: event\ndata: {event}\n\n").as_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(form: &mut Form, pieces: &[&str]) -> Result<String, &'static str> {
        let mut text = Vec::new();
        for piece in pieces {
            form.write(piece.as_bytes(), &mut text)?;
        }
        Ok(String::from_utf8(text).expect("text"))
    }

    fn form(wants_events: bool, last: u64) -> Form {
        Form { wants_events, last, ..Form::default() }
    }

    #[test]
    fn an_event_is_a_line_however_an_engine_cuts_and_parts_them() {
        for pieces in [
            &["{\"a\":1}\n{\"b\":\"\\n\"}\n"][..],
            &["{\"a\"", ":1}{\"b\":", "\"\\n\"}"],
            &["\n{\"a\":1}\r\n", "", "{\"b\":\"\\n\"}"],
        ] {
            assert_eq!(written(&mut form(false, 0), pieces).expect("events"), "{\"a\":1}\n{\"b\":\"\\n\"}\n");
        }
        assert!(written(&mut form(false, 0), &["{\"a\":1}<html>"]).is_err());
        assert!(written(&mut form(false, 0), &["[\"", &"a".repeat(LONGEST)]).is_err());
    }

    #[test]
    fn a_client_that_comes_back_is_told_what_it_does_not_have() {
        let events = r#"{"timeNano":7,"Action":"a"} {"timeNano":8,"Action":"b"}"#;

        assert_eq!(
            written(&mut form(true, 7), &[events]).expect("events"),
            "id: 8\nevent: event\ndata: {\"Action\":\"b\",\"timeNano\":8}\n\n"
        );
    }
}
