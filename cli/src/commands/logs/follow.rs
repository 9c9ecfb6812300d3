//! A log that is followed, over as many connections as it takes: each goes on at the very byte at which the one before broke.

use std::io;
use std::time::Duration;

use anyhow::Context as _;
use bytes::Bytes;
use futures::Stream;
use http::Request;
use http::header::ACCEPT;
use k8s_openapi::ByteString;
use kube::core::Status;
use serde::Deserialize;
use tokio::io::{AsyncBufRead, AsyncBufReadExt as _, AsyncReadExt as _, BufReader};
use tokio::time::{Instant, sleep, timeout};
use tokio_util::io::StreamReader;

use super::body;
use crate::client::{self, Controller};
use crate::output::failure::{Ends, Hinted, code};
use crate::output::plain::plain;

/// How long a log that broke off is tried to be gone on with, and the pause before each attempt.
const PATIENCE: Duration = Duration::from_secs(60);
const PAUSE: Duration = Duration::from_secs(1);
/// The controller gives a sign every fifteen seconds.
const SILENCE: Duration = Duration::from_secs(45);
/// Longest line of an event: 64 KiB of a log, each byte written as six.
const LONGEST: u64 = 512 << 10;

/// Why there is no more.
#[derive(Debug, thiserror::Error)]
#[error("{0:#}")]
pub(super) struct Ended(pub(super) anyhow::Error);

/// What is followed.
pub(super) struct Followed {
    pub(super) controller: Controller,
    pub(super) shown: String,
    /// Without a query.
    pub(super) path: String,
    /// Of the first connection.
    pub(super) query: String,
    /// True if the person said from when.
    pub(super) has_since: bool,
    pub(super) timestamps: bool,
}

/// What it writes. Nothing is sent before that is asked for.
pub(super) fn written(followed: Followed) -> impl Stream<Item = io::Result<Bytes>> + Send {
    let reading = Reading {
        followed,
        events: None,
        begun: Instant::now(),
        last: None,
        broken: None,
        lines: Lines::default(),
    };
    futures::stream::try_unfold(reading, async |mut reading| {
        let bytes = reading.next().await.map_err(|error| io::Error::other(Ended(error)))?;
        Ok(bytes.map(|bytes| (bytes, reading)))
    })
}

type Events = Box<dyn AsyncBufRead + Send + Unpin>;

struct Reading {
    followed: Followed,
    events: Option<Events>,
    begun: Instant,
    /// Of the newest event.
    last: Option<String>,
    /// Since when nothing is heard.
    broken: Option<Instant>,
    lines: Lines,
}

impl Reading {
    async fn next(&mut self) -> anyhow::Result<Option<Bytes>> {
        loop {
            let heard = match self.hears().await {
                Ok(heard) => heard,
                Err(error) if self.goes_on(&error).await => continue,
                Err(error) => return Err(error),
            };
            match heard {
                Heard::Entry { id, stream, entry } => {
                    self.last = id.or(self.last.take());
                    self.broken = None;
                    return Ok(Some(self.lines.written(stream, entry, self.followed.timestamps)));
                }
                Heard::Sign => self.broken = None,
                Heard::End => return Ok(None),
            }
        }
    }

    /// Waits for another attempt; false where it is too late, or none will do better.
    async fn goes_on(&mut self, error: &anyhow::Error) -> bool {
        // What was refused at first is told as ever.
        let has_begun = self.events.take().is_some() || self.broken.is_some();
        if !has_begun || code(error) != Ends::Unreachable as u8 {
            return false;
        }
        let since = *self.broken.get_or_insert_with(|| {
            eprintln!("{}: the log broke off; trying for a minute to go on", self.followed.shown);
            Instant::now()
        });
        sleep(PAUSE).await;
        since.elapsed() < PATIENCE
    }

    async fn hears(&mut self) -> anyhow::Result<Heard> {
        let events = if let Some(events) = &mut self.events {
            events
        } else {
            let begun = self.broken.map(|_| self.begun.elapsed());
            let opened = self.followed.open(self.last.as_deref(), begun).await?;
            self.events.insert(opened)
        };
        let shown = &self.followed.shown;
        let event = timeout(SILENCE, event(events)).await;
        let event = event.ok().and_then(Result::ok).flatten().ok_or_else(|| broken(shown))?;
        let read = |data: &str| {
            serde_json::from_str(data).with_context(|| format!("{shown}: an event cannot be read"))
        };
        Ok(match &*event.name {
            "stdout" | "stderr" => {
                let stream = usize::from(event.name == "stderr");
                Heard::Entry { id: event.id, stream, entry: read(&event.data)? }
            }
            "end" => Heard::End,
            "error" => {
                let status = serde_json::from_str::<Status>(&event.data).unwrap_or_default();
                return Err(self.followed.controller.explain(kube::Error::Api(status.boxed()), shown));
            }
            _ => Heard::Sign,
        })
    }
}

impl Followed {
    /// Goes on behind the last event; or where none was heard, from so long ago.
    async fn open(&self, last: Option<&str>, begun: Option<Duration>) -> anyhow::Result<Events> {
        let Self { controller, shown, path, query, has_since, .. } = self;
        let request = match (last, begun) {
            (Some(id), _) => Request::get(format!("{path}?{query}")).header("last-event-id", id),
            // Whatever was written meanwhile was not seen, and is more than the history that was asked for.
            (None, Some(begun)) if !has_since => {
                let since = format!("{}s", begun.as_secs().max(1));
                Request::get(format!("{path}?follow=true{}", client::query([("since", &*since)])))
            }
            (None, _) => Request::get(format!("{path}?{query}")),
        };
        let request = request.header(ACCEPT, "text/event-stream").body(Vec::new())?;
        // Through a connection of its own: the one before may lie open and be dead.
        let response = controller.patient()?.open(request, shown).await?;
        Ok(Box::new(BufReader::new(StreamReader::new(Box::pin(body(response))))))
    }
}

fn broken(shown: &str) -> anyhow::Error {
    Hinted::new(Ends::Unreachable, format!("{}: the log broke off", plain(shown)))
        .hint("`gantry ls` says how the hosts are")
        .into()
}

enum Heard {
    Entry {
        id: Option<String>,
        stream: usize,
        entry: Entry,
    },
    /// That it is open.
    Sign,
    End,
}

#[derive(Deserialize)]
struct Entry {
    log: Option<String>,
    base64: Option<ByteString>,
    time: Option<String>,
}

#[derive(Debug, Default, PartialEq, Eq)]
struct Event {
    id: Option<String>,
    name: String,
    data: String,
}

/// The next event, a comment being one without a name; `None` at the end.
async fn event(from: &mut (impl AsyncBufRead + Unpin)) -> io::Result<Option<Event>> {
    let mut event = Event::default();
    let mut line = Vec::new();
    loop {
        line.clear();
        from.take(LONGEST).read_until(b'\n', &mut line).await?;
        // A line that is cut is the end, or none of ours.
        let Some(text) = line.strip_suffix(b"\n") else { return Ok(None) };
        let text = String::from_utf8_lossy(text);
        match text.split_once(": ") {
            Some(("id", id)) => event.id = Some(id.to_owned()),
            Some(("event", name)) => name.clone_into(&mut event.name),
            Some(("data", data)) => data.clone_into(&mut event.data),
            _ if text.is_empty() => return Ok(Some(event)),
            _ => {}
        }
    }
}

/// Whether a line was begun on each stream, so that its time stands before it and nowhere else.
#[derive(Default)]
struct Lines {
    is_open: [bool; 2],
}

impl Lines {
    fn written(&mut self, stream: usize, entry: Entry, timestamps: bool) -> Bytes {
        let Entry { log, base64, time } = entry;
        let data = log.map(String::into_bytes).or(base64.map(|bytes| bytes.0)).unwrap_or_default();
        let Some(is_open) = self.is_open.get_mut(stream) else { return data.into() };
        let begins = !std::mem::replace(is_open, !data.ends_with(b"\n"));
        match time.filter(|_| timestamps && begins) {
            Some(time) => [time.as_bytes(), b" ", &data].concat().into(),
            None => data.into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn events_are_read_as_the_controller_writes_them_and_one_that_is_cut_is_none() {
        let mut text: &[u8] = b": open\n\nid: 1.500000000-4\nevent: stdout\ndata: {\"log\":\"a: b\"}\n\nevent: end\ndata: {}\n\nid: 2";

        let mut all = Vec::new();
        while let Some(event) = event(&mut text).await.expect("it is read") {
            all.push((event.id, event.name, event.data));
        }

        let of = |id: Option<&str>, name: &str, data: &str| {
            (id.map(str::to_owned), name.to_owned(), data.to_owned())
        };
        assert_eq!(
            all,
            [
                of(None, "", ""),
                of(Some("1.500000000-4"), "stdout", "{\"log\":\"a: b\"}"),
                of(None, "end", "{}")
            ]
        );
    }

    #[test]
    fn a_log_is_written_byte_for_byte_with_times_where_lines_begin() {
        let entry = |json: &str| serde_json::from_str::<Entry>(json).expect("an entry");
        let some = [
            (0, r#"{"log":"one ","time":"T1"}"#),
            (1, r#"{"base64":"/wo=","time":"T2"}"#),
            (0, r#"{"log":"line\n","time":"T3"}"#),
            (0, r#"{"log":"no end","time":"T4"}"#),
        ];
        let all = |timestamps| {
            let mut lines = Lines::default();
            some.iter()
                .flat_map(|(stream, json)| lines.written(*stream, entry(json), timestamps))
                .collect::<Vec<u8>>()
        };

        assert_eq!(all(false), b"one \xff\nline\nno end");
        assert_eq!(all(true), b"T1 one T2 \xff\nline\nT4 no end");
    }
}
