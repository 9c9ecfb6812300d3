//! The stream of a watch: one JSON object a line, made from the stored bytes, bounded in memory.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::response::Response;
use bytes::Bytes;
use http::HeaderValue;
use http::header::CONTENT_TYPE;
use prometheus::IntGauge;
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use super::ApiServer;
use super::authorize::Standing;
use super::failure::{Failure, Outcome};
use super::kinds::Kind;
use super::limits::Share;
use super::partial::partial_text;
use super::request::{Call, Format};
use super::selectors::Selector;
use super::table::{Rows, table};
use crate::clock::SharedClock;
use crate::storage::{Change, ChangeKind, Object, Version, at_version};
use crate::watch_cache::{Expired, Next, Subscription};

/// Time between two bookmarks.
const BOOKMARK_EVERY: Duration = Duration::from_secs(60);
/// Shortest life of a watch that names none; up to twice that, so that they do not all end at once.
const SHORTEST_LIFE: u64 = 30 * 60;
/// Bytes after which lines are sent on, so that a watch of large objects is not built in memory.
const CHUNK: usize = 256 << 10;
/// How long a client may leave lines unread. Its watch is closed then, as that of a slow one is: it lists again.
const UNREAD_PATIENCE: Duration = Duration::from_secs(60);
/// How long a client has to take the event that says why its watch ends.
const FAREWELL: Duration = Duration::from_secs(2);

/// Where a watch begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Begin {
    /// With changes after this version.
    After(Version),
    /// With the present state as ADDED events, and a bookmark after them where the client asked for it.
    State { marks_end: bool },
}

/// One open watch.
pub(super) struct Watch {
    subscription: Subscription,
    selector: Selector,
    encoder: Encoder,
    first: std::vec::IntoIter<Arc<Object>>,
    /// Changes that did not go into the last lines.
    rest: std::vec::IntoIter<Change>,
    marks_end: bool,
    bookmarks: bool,
    seen: Version,
    next_bookmark: Instant,
    ends: Instant,
    stopping: CancellationToken,
    is_over: bool,
    _counted: Counted,
}

/// Counts an open watch for as long as it lives.
#[derive(Debug)]
struct Counted(IntGauge);

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.dec();
    }
}

impl Watch {
    /// Opens a watch; fails if changes after the asked version are no longer known.
    pub fn open(
        server: &ApiServer,
        call: &Call,
        selector: Selector,
        name: Option<&str>,
        begin: Begin,
        lifetime: Option<u64>,
    ) -> Result<Self, Expired> {
        let (cache, resource, namespace) =
            (server.cache(call.kind), call.resource(), call.namespace.as_deref());
        let (from, mut first) = match begin {
            Begin::After(version) => (version, Vec::new()),
            Begin::State { .. } => {
                let listing = cache.list(&resource, namespace);
                (listing.version, listing.objects)
            }
        };
        let subscription = cache.watch(&resource, namespace, name, from)?;
        first.retain(|object| name.is_none_or(|name| *object.key.name == *name) && selector.matches(object));
        let bookmarks = call.params.is_set("allowWatchBookmarks");
        let lifetime = lifetime
            .filter(|seconds| *seconds > 0)
            .unwrap_or_else(|| SHORTEST_LIFE + server.entropy.below(SHORTEST_LIFE));
        let now = Instant::now();
        let gauge = server.metrics.watchers.with_label_values(&[call.kind.plural.as_str()]);
        gauge.inc();
        Ok(Self {
            subscription,
            selector,
            encoder: Encoder {
                kind: call.kind,
                format: call.format,
                clock: server.clock.clone(),
                has_sent_columns: false,
            },
            first: first.into_iter(),
            rest: Vec::new().into_iter(),
            marks_end: begin == Begin::State { marks_end: true } && bookmarks,
            bookmarks,
            seen: from,
            next_bookmark: now + BOOKMARK_EVERY,
            ends: now + Duration::from_secs(lifetime.min(24 * 3_600)),
            stopping: server.stopping.clone(),
            is_over: false,
            _counted: Counted(gauge),
        })
    }

    /// The response that streams it, and holds the share until it is over; that is also when the client has lost its right, which is the last
    /// event then.
    pub fn answer(self, call: &Call, share: Option<Share>, standing: Standing) -> Response {
        let (sender, receiver) = mpsc::channel(1);
        // The body owns the task: what it holds is let go when the client goes, or does not read.
        let task = AbortOnDropHandle::new(tokio::spawn(async move {
            let _share = share;
            let told = sender.clone();
            tokio::select! {
                () = self.run(sender) => {}
                lost = standing.ended() => drop(told.send_timeout(error_event(&lost).into(), FAREWELL).await),
            }
        }));
        let events = futures::stream::unfold((receiver, task), async |(mut receiver, task)| {
            let chunk: Bytes = receiver.recv().await?;
            Some((Ok::<_, Infallible>(chunk), (receiver, task)))
        });
        stream(call, Body::from_stream(events))
    }

    async fn run(mut self, sender: mpsc::Sender<Bytes>) {
        while let Some(chunk) = self.next().await {
            if sender.send_timeout(chunk, UNREAD_PATIENCE).await.is_err() {
                return;
            }
        }
    }

    /// The next lines; `None` when the watch is over.
    async fn next(&mut self) -> Option<Bytes> {
        loop {
            if self.is_over {
                return None;
            }
            let mut lines = Vec::new();
            let step = if self.first.as_slice().is_empty() && !self.marks_end {
                match self.rest.next() {
                    Some(change) => self.changes(change, &mut lines),
                    None => self.wait(&mut lines).await,
                }
            } else {
                self.begin(&mut lines)
            };
            if let Err(failure) = step {
                lines.extend(error_event(&failure));
                self.is_over = true;
            }
            if !lines.is_empty() {
                return Some(lines.into());
            }
        }
    }

    /// A part of the first state, or the mark after it.
    fn begin(&mut self, lines: &mut Vec<u8>) -> Outcome<()> {
        while lines.len() < CHUNK
            && let Some(object) = self.first.next()
        {
            self.encoder.event("ADDED", &object.json, lines)?;
        }
        if self.first.as_slice().is_empty() && self.marks_end {
            self.marks_end = false;
            self.encoder.bookmark(self.seen, true, lines);
        }
        Ok(())
    }

    async fn wait(&mut self, lines: &mut Vec<u8>) -> Outcome<()> {
        tokio::select! {
            biased;
            () = self.stopping.cancelled() => {
                self.end(lines);
                Ok(())
            }
            () = sleep_until(self.ends) => {
                self.end(lines);
                Ok(())
            }
            next = self.subscription.next() => match next {
                Next::Changes(changes) => {
                    self.rest = changes.into_iter();
                    match self.rest.next() {
                        Some(first) => self.changes(first, lines),
                        None => Ok(()),
                    }
                }
                Next::Progress(version) => {
                    self.seen = self.seen.max(version);
                    Ok(())
                }
                Next::TooSlow => {
                    self.is_over = true;
                    Ok(())
                }
                Next::Closed => {
                self.end(lines);
                Ok(())
            }
            },
            () = sleep_until(self.next_bookmark), if self.bookmarks => {
                self.next_bookmark = Instant::now() + BOOKMARK_EVERY;
                self.seen = self.seen.max(self.subscription.progress());
                self.encoder.bookmark(self.seen, false, lines);
                Ok(())
            }
        }
    }

    /// Ends the stream in order, telling the client how far it got.
    fn end(&mut self, lines: &mut Vec<u8>) {
        self.is_over = true;
        if self.bookmarks {
            self.seen = self.seen.max(self.subscription.progress());
            self.encoder.bookmark(self.seen, false, lines);
        }
    }

    /// That change and those after it, as many as go into one write.
    fn changes(&mut self, first: Change, lines: &mut Vec<u8>) -> Outcome<()> {
        let mut next = Some(first);
        while let Some(change) = next {
            self.change(&change, lines)?;
            next = if lines.len() < CHUNK { self.rest.next() } else { None };
        }
        Ok(())
    }

    /// What a change means to this selector: an object that stops matching is gone, one that starts is new.
    fn change(&mut self, change: &Change, lines: &mut Vec<u8>) -> Outcome<()> {
        let object = &change.object;
        self.seen = self.seen.max(object.version);
        let is_meant = self.selector.matches(object);
        // Unknown is taken as "was": a DELETED for what a client never had does no harm, a missing one does.
        let was_meant = change.before.as_ref().is_none_or(|before| self.selector.matches(before));
        match change.kind {
            ChangeKind::Modified if is_meant && was_meant => {
                self.encoder.event("MODIFIED", &object.json, lines)
            }
            ChangeKind::Added | ChangeKind::Modified if is_meant => {
                self.encoder.event("ADDED", &object.json, lines)
            }
            ChangeKind::Modified if was_meant => {
                let last =
                    change.before.as_deref().and_then(|before| at_version(&before.json, object.version));
                self.encoder.event("DELETED", last.as_deref().unwrap_or(&object.json), lines)
            }
            ChangeKind::Deleted if is_meant || (change.before.is_some() && was_meant) => {
                self.encoder.event("DELETED", &object.json, lines)
            }
            _ => Ok(()),
        }
    }
}

/// Writes events in the form the client asked for.
struct Encoder {
    kind: &'static Kind,
    format: Format,
    clock: SharedClock,
    has_sent_columns: bool,
}

impl Encoder {
    fn event(&mut self, kind: &str, json: &[u8], lines: &mut Vec<u8>) -> Outcome<()> {
        match self.format {
            Format::Whole => {
                line(kind, &self.kind.shown(json).map_err(super::answer::broken)?, lines);
            }
            Format::Metadata => {
                let text = partial_text(json).map_err(super::answer::broken)?;
                line(kind, text.as_bytes(), lines);
            }
            Format::Table(include) => {
                let object: Value = serde_json::from_slice(json).map_err(super::answer::broken)?;
                let rows = Rows::new(self.kind, include, self.clock.now());
                let metadata = json!({"resourceVersion": object.pointer("/metadata/resourceVersion")});
                let row = rows.row(&object);
                self.table(kind, &metadata, &rows, vec![row], lines);
            }
        }
        Ok(())
    }

    fn bookmark(&mut self, version: Version, is_end_of_state: bool, lines: &mut Vec<u8>) {
        let mut metadata = json!({"resourceVersion": version.to_string()});
        if is_end_of_state && let Some(metadata) = metadata.as_object_mut() {
            metadata.insert("annotations".to_owned(), json!({"k8s.io/initial-events-end": "true"}));
        }
        let (kind, api_version) = match self.format {
            Format::Whole => (self.kind.kind.clone(), self.kind.api_version()),
            Format::Metadata => ("PartialObjectMetadata".to_owned(), "meta.k8s.io/v1".to_owned()),
            Format::Table(include) => {
                let rows = Rows::new(self.kind, include, self.clock.now());
                // The mark is on the row's object, where clients of tables look for it.
                let object = json!({"kind": self.kind.kind, "apiVersion": self.kind.api_version(), "metadata": metadata});
                let row = if is_end_of_state { vec![rows.row(&object)] } else { Vec::new() };
                let metadata = json!({"resourceVersion": version.to_string()});
                self.table("BOOKMARK", &metadata, &rows, row, lines);
                return;
            }
        };
        let object = json!({"kind": kind, "apiVersion": api_version, "metadata": metadata});
        line("BOOKMARK", object.to_string().as_bytes(), lines);
    }

    fn table(&mut self, kind: &str, metadata: &Value, rows: &Rows, row: Vec<Value>, lines: &mut Vec<u8>) {
        let definitions = (!self.has_sent_columns).then(|| rows.definitions());
        self.has_sent_columns = true;
        line(kind, table(metadata, definitions, row).to_string().as_bytes(), lines);
    }
}

fn line(kind: &str, object: &[u8], lines: &mut Vec<u8>) {
    lines.extend_from_slice(b"{\"type\":\"");
    lines.extend_from_slice(kind.as_bytes());
    lines.extend_from_slice(b"\",\"object\":");
    lines.extend_from_slice(object);
    lines.extend_from_slice(b"}\n");
}

fn error_event(failure: &Failure) -> Vec<u8> {
    let mut lines = Vec::new();
    line("ERROR", json!(failure.status()).to_string().as_bytes(), &mut lines);
    lines
}

/// A watch that cannot begin: 200 and one ERROR event.
pub(super) fn refused(call: &Call, expired: &Expired) -> Response {
    let failure = Failure::expired(expired.to_string(), None);
    stream(call, Body::from(error_event(&failure)))
}

fn stream(call: &Call, body: Body) -> Response {
    let mut response = Response::new(body);
    let media_type = if call.wants_stream { "application/json;stream=watch" } else { "application/json" };
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(media_type));
    response
}
