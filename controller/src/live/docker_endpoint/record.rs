//! What the audit log is told: of all but reading, a beginning before the engine is asked, and an end.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use gantry_api::engine_api::facts::Facts;
use gantry_api::engine_api::{Parsed, Request};
use parking_lot::Mutex;
use serde_json::{Value, json};

use super::ends::End;
use super::execs::Made;
use super::resize;
use crate::apiserver::ApiServer;
use crate::apiserver::failure::{Failure, Outcome};
use crate::audit::{Outcome as Ended, Sink, Ticket};
use crate::live::Instance;
use crate::live::recording::frames::Frames;
use crate::live::recording::windows::Entered;
use crate::live::recording::{self, Extent, Recorder};
use crate::storage::audit::Record;

/// Things of one kind that are told of a new container.
const MOST_TOLD: usize = 16;

/// Keys of a query that say what is done to what; none of them is ever secret.
const KEYS: [&str; 9] = ["name", "fromImage", "tag", "repo", "container", "force", "v", "signal", "path"];

/// What is told of a request: what it is about, and by what a new container reaches its host.
pub(super) fn parameters(request: &Request, facts: Option<&Facts>) -> BTreeMap<String, Value> {
    let mut told = BTreeMap::new();
    let mut tell = |name: &str, value: Value| told.insert(name.to_owned(), value);
    let kind = request.route.path.split('/').nth(1).unwrap_or_default();
    if !request.object().is_empty() {
        let kind = match kind {
            "containers" => "Container",
            "images" | "distribution" => "Image",
            "networks" => "Network",
            "volumes" => "Volume",
            _ => "Exec",
        };
        tell("target", json!({"kind": kind, "name": Record::column(request.object())}));
    }
    for (key, value) in request.query.iter().filter(|(key, _)| KEYS.contains(key)) {
        tell(key, Record::column(value).into());
    }
    let Some(facts) = facts else { return told };
    let mut tell_all = |name: &str, values: Vec<&str>| {
        if !values.is_empty() {
            let values: Vec<String> = values.into_iter().take(MOST_TOLD).map(Record::column).collect();
            told.insert(name.to_owned(), json!(values));
        }
    };
    tell_all("hostPaths", facts.host_paths().collect());
    tell_all("capabilitiesAdd", facts.capabilities_add.iter().map(String::as_str).collect());
    let picked = facts.device_requests.iter();
    let picked = picked
        .flat_map(|request| [&request.driver].into_iter().chain(&request.ids).chain(&request.capabilities));
    let devices = facts.devices.iter().chain(picked).filter(|word| !word.is_empty());
    tell_all("devices", devices.map(String::as_str).collect());
    tell_all("securityOptions", facts.security_options.iter().map(String::as_str).collect());
    tell_all("volumesFrom", facts.volumes_from.iter().map(String::as_str).collect());
    let spaces = [("network", &facts.network_mode), ("pid", &facts.pid_mode), ("ipc", &facts.ipc_mode)];
    let shared = spaces.iter().filter(|(_, mode)| *mode == "host" || mode.starts_with("container:"));
    tell_all("namespacesShared", shared.map(|(name, _)| *name).collect());
    if !facts.image.is_empty() {
        told.insert("image".to_owned(), Record::column(&facts.image).into());
    }
    if facts.privileged {
        told.insert("privileged".to_owned(), true.into());
    }
    told
}

/// Which command in which container, as of an exec by another door.
pub(super) fn tell_command(told: &mut BTreeMap<String, Value>, made: Option<&Made>) {
    let Some(Made { container, command, .. }) = made else { return };
    told.insert("container".to_owned(), Record::column(container).into());
    told.insert("command".to_owned(), command.clone().into());
}

/// Bytes that flowed.
#[derive(Default)]
pub(super) struct Counts {
    /// To the engine.
    pub sent: AtomicU64,
    /// From it.
    pub received: AtomicU64,
}

/// One call, from its record to the record of its end. Reading has neither.
pub(super) struct Visit {
    ticket: Option<Arc<Ticket>>,
    audit: Sink,
    pub counts: Arc<Counts>,
    recorder: Option<Recorder>,
    window: Option<Entered>,
    is_terminal: bool,
    frames: Mutex<Frames>,
}

impl Visit {
    /// Records the beginning; 503 where that cannot be, so that nothing is done without a record.
    pub async fn open(
        server: &ApiServer,
        instance: &Instance,
        request: &Request,
        ticket: Arc<Ticket>,
        extent: Extent,
    ) -> Outcome<Self> {
        let audit = server.audit().clone();
        let mut visit = Self {
            ticket: None,
            audit,
            counts: Arc::default(),
            recorder: None,
            window: None,
            is_terminal: request.route.shows_terminal(),
            frames: Mutex::default(),
        };
        if request.route.is_read() {
            return Ok(visit);
        }
        let mut told = BTreeMap::from([("phase".to_owned(), Value::from("open"))]);
        let id = server.entropy().uuid();
        if extent > Extent::None {
            told.insert("recording".to_owned(), id.to_string().into());
        }
        let record = ticket.of_engine(told, None, Ended::Success, "");
        if extent > Extent::None {
            let recorder = Recorder::open(server, id, &record, extent).await?;
            let window = resize::window(server, instance.uid, request);
            visit.window = window.map(|window| server.live().windows().enter(window, recorder.sizes()));
            visit.recorder = Some(recorder);
        }
        if !visit.audit.settle(record, true).await {
            return Err(Failure::unavailable(
                "the audit log cannot be written now, so nothing is asked of the engine; try again",
            ));
        }
        ticket.is_stored();
        visit.ticket = Some(ticket);
        Ok(visit)
    }

    /// What the engine says, before its client sees it.
    pub async fn shown(&self, bytes: &[u8]) {
        self.counts.received.fetch_add(bytes.len() as u64, Ordering::Relaxed);
        if let Some(recorder) = &self.recorder {
            let output = self.frames.lock().output(bytes);
            recorder.shown(&output.into()).await;
        } else if self.is_terminal {
            self.frames.lock().pass(bytes, |_| {});
        }
    }

    /// Words of ours in the form of what was shown, where there is a place for them now.
    pub fn words(&self, words: &str) -> Option<Vec<u8>> {
        self.frames.lock().words(words)
    }

    /// What is typed, before it is passed on.
    pub async fn typed(&self, bytes: &Bytes) {
        self.counts.sent.fetch_add(bytes.len() as u64, Ordering::Relaxed);
        if let Some(recorder) = &self.recorder {
            recorder.typed(bytes).await;
        }
    }

    /// The client's window, where the request tells of it.
    pub async fn sized(&self, parsed: Option<&Parsed>) {
        if let (Some(recorder), Some(Parsed::ExecStart(start))) = (&self.recorder, parsed)
            && let Some([rows, columns]) = start.console_size.as_deref()
        {
            recorder.sized(*columns, *rows).await;
        }
    }

    /// Once nothing more can be recorded of what is; never where nothing is.
    pub async fn is_unrecorded(&self) {
        recording::broken(self.recorder.as_ref()).await;
    }

    /// Records the end: how the engine answered, and why it was over where not by itself.
    pub async fn close(self, code: u16, end: &End) {
        drop(self.window);
        let Some(ticket) = self.ticket else { return };
        let count = |count: &AtomicU64| Value::from(count.load(Ordering::Relaxed));
        let mut told = BTreeMap::from([
            ("phase".to_owned(), Value::from("close")),
            ("bytesSent".to_owned(), count(&self.counts.sent)),
            ("bytesReceived".to_owned(), count(&self.counts.received)),
        ]);
        if let Some(recorder) = self.recorder {
            let reason = if end.reason().is_empty() { "Complete" } else { end.reason() };
            recording::tell(&mut told, recorder.finish(reason).await);
        }
        let record = ticket.of_engine(told, Some(code), end.outcome(code), end.reason());
        self.audit.settle(record, true).await;
    }
}
