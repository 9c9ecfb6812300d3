//! What the audit log is told: of all but reading, a beginning before the engine is asked, and an end.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use gantry_api::engine_api::Request;
use gantry_api::engine_api::facts::Facts;
use serde_json::{Value, json};

use super::ends::End;
use crate::apiserver::ApiServer;
use crate::apiserver::failure::{Failure, Outcome};
use crate::audit::{Outcome as Ended, Sink, Ticket};
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
    tell_all("devices", facts.devices.iter().map(String::as_str).collect());
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
}

impl Visit {
    /// Records the beginning; 503 where that cannot be, so that nothing is done without a record.
    pub async fn open(server: &ApiServer, request: &Request, ticket: Arc<Ticket>) -> Outcome<Self> {
        let audit = server.audit().clone();
        if request.route.is_read() {
            return Ok(Self { ticket: None, audit, counts: Arc::default() });
        }
        let record = ticket.of_engine([("phase".to_owned(), "open".into())].into(), None, Ended::Success, "");
        if !audit.settle(record, true).await {
            return Err(Failure::unavailable(
                "the audit log cannot be written now, so nothing is asked of the engine; try again",
            ));
        }
        ticket.is_stored();
        Ok(Self { ticket: Some(ticket), audit, counts: Arc::default() })
    }

    /// Records the end: how the engine answered, and why it was over where not by itself.
    pub async fn close(self, code: u16, end: &End) {
        let Some(ticket) = self.ticket else { return };
        let count = |count: &AtomicU64| Value::from(count.load(Ordering::Relaxed));
        let told = [
            ("phase".to_owned(), "close".into()),
            ("bytesSent".to_owned(), count(&self.counts.sent)),
            ("bytesReceived".to_owned(), count(&self.counts.received)),
        ];
        let record = ticket.of_engine(told.into(), Some(code), end.outcome(code), end.reason());
        self.audit.settle(record, true).await;
    }
}
