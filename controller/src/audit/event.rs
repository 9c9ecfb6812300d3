//! From a request to its record, and from a record to what is read.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::net::IpAddr;
use std::sync::Arc;

use gantry_api::names::{AUDIT_GROUP, GROUP, VERSION};
use gantry_api::v1alpha1::{AuditEvent, AuditUser, OperationStatus, Phase};
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use parking_lot::Mutex;
use serde::Deserialize as _;
use serde_json::{Value, json};
use tokio::time::Instant;
use uuid::Uuid;

use super::policy::{Outcome, Subject, action, is_recorded};
use crate::auth::Caller;
use crate::storage::Key;
use crate::storage::audit::{Record, Recorded};
use crate::telemetry::traces;

/// Groups that are told of one user.
const MOST_GROUPS: usize = 64;

/// A request as it is known before anything is done.
#[derive(Debug, Default)]
pub struct Asked {
    /// As roles have it.
    pub verb: &'static str,
    /// Empty for core kinds.
    pub group: &'static str,
    /// Empty for paths that are no resource.
    pub plural: &'static str,
    /// `status`.
    pub subresource: String,
    /// Empty for what is in none.
    pub namespace: String,
    /// Empty for collections.
    pub name: String,
    /// Without the query.
    pub path: String,
    /// Where the client is.
    pub source: Option<IpAddr>,
    /// What the client calls itself.
    pub user_agent: String,
    /// The client's trace.
    pub traceparent: String,
    /// True if a part of this controller asks.
    pub is_ours: bool,
    /// True if what is posted is answered and kept nowhere.
    pub is_question: bool,
    /// True if nothing is to be stored.
    pub is_dry_run: bool,
}

/// How a request was answered.
#[derive(Debug)]
pub struct Answered<'a> {
    /// HTTP status.
    pub code: u16,
    /// In one word; empty for a success.
    pub reason: &'a str,
    /// A sentence.
    pub message: &'a str,
    /// Requests of nobody before this one that were not recorded.
    pub unrecorded: u64,
}

/// An agent that asked to be enrolled, and what it was told.
#[derive(Debug)]
pub struct Enrollment<'a> {
    /// Of its record.
    pub id: Uuid,
    /// When it was told.
    pub at: Timestamp,
    /// Where it is.
    pub source: IpAddr,
    /// Namespace and name of the instance it wants to be.
    pub namespace: &'a str,
    /// See `namespace`.
    pub name: &'a str,
    /// Public part of the join token it showed.
    pub token_id: &'a str,
    /// What came of it.
    pub outcome: Outcome,
    /// In one word; empty for a success.
    pub reason: &'a str,
    /// A sentence.
    pub message: &'a str,
}

impl Enrollment<'_> {
    /// As it is stored.
    pub fn record(&self) -> Record {
        let event = AuditEvent {
            action: "agent_enroll".to_owned(),
            verb: "create".to_owned(),
            api_group: GROUP.to_owned(),
            resource_type: "dockerinstances".to_owned(),
            name: self.name.to_owned(),
            instance: self.name.to_owned(),
            source_ip: self.source.to_canonical().to_string(),
            parameters: [("joinToken".to_owned(), Record::column(self.token_id).into())].into(),
            outcome: self.outcome.as_str().to_owned(),
            reason: self.reason.to_owned(),
            message: Record::column(self.message),
            request_time: self.at.to_string(),
            ..AuditEvent::default()
        };
        record(self.id, self.namespace, event)
    }
}

/// What becomes the record of one request.
#[derive(Debug)]
pub struct Ticket {
    id: Uuid,
    at: Timestamp,
    started: Instant,
    asked: Asked,
    seen: Mutex<Seen>,
}

/// What is learnt on the way.
#[derive(Debug, Default)]
struct Seen {
    caller: Option<Caller>,
    subject: Subject,
    is_dry_run: bool,
    /// A change of this request was stored, and its record with it.
    is_stored: bool,
}

impl Ticket {
    /// For a request that has just come.
    pub fn new(id: Uuid, at: Timestamp, asked: Asked, caller: Option<Caller>) -> Self {
        let seen = Seen { caller, is_dry_run: asked.is_dry_run, ..Seen::default() };
        Self { id, at, started: Instant::now(), asked, seen: Mutex::new(seen) }
    }

    /// Who really asks, or is acted as.
    pub fn is_of(&self, caller: &Caller) {
        self.seen.lock().caller = Some(caller.clone());
    }

    /// Nothing is to be stored.
    pub fn is_dry(&self) {
        self.seen.lock().is_dry_run = true;
    }

    /// What is to be written, admitted but not yet allowed: told of what is refused.
    pub fn saw(&self, old: Option<&Value>, new: &Value) {
        if !self.asked.is_ours {
            self.seen.lock().subject = Subject::of(self.asked.group, self.asked.plural, old, new);
        }
    }

    /// What policies found in what is to be written.
    pub fn was_judged(&self, findings: Value) {
        self.seen.lock().subject.parameters.insert("policies".to_owned(), findings);
    }

    /// The change was stored, and its record with it.
    pub fn is_stored(&self) {
        self.seen.lock().is_stored = true;
    }

    /// The record of a change, for its transaction; `None` where none is wanted: of what our own parts write, the ends of Operations
    /// are recorded alone.
    pub fn of_change(&self, key: &Key, old: Option<&Value>, new: &Value) -> Option<Record> {
        let is_ours = self.asked.is_ours;
        let ended = if is_ours {
            Some(ended(old?, new).filter(|_| self.asked.plural == "operations")?)
        } else {
            None
        };
        let subject = match self.asked.verb {
            // What was seen is what is stored. Deletions go without a look, of a collection many at once.
            "create" | "update" | "patch" if !is_ours => self.seen.lock().subject.clone(),
            _ => Subject::of(self.asked.group, self.asked.plural, old, new),
        };
        let namespace = if self.asked.plural == "namespaces" { &key.name } else { &key.namespace };
        let mut event = AuditEvent {
            action: action(&self.asked, &subject, old.is_none()),
            name: key.name.to_string(),
            uid: new.pointer("/metadata/uid").and_then(Value::as_str).unwrap_or_default().to_owned(),
            outcome: Outcome::Success.as_str().to_owned(),
            code: Some(if old.is_none() { 201 } else { 200 }),
            ..self.event(&subject)
        };
        if let Some(ended) = &ended {
            end(&mut event, ended);
        }
        Some(record(self.id, namespace, event))
    }

    /// The record of a request as it was answered; `None` where it has one already, or none is wanted.
    pub fn of_answer(&self, answered: &Answered<'_>) -> Option<Record> {
        let outcome = Outcome::of(answered.code);
        let (subject, is_stored, is_dry_run) = {
            let seen = self.seen.lock();
            (seen.subject.clone(), seen.is_stored, seen.is_dry_run)
        };
        // Of a collection a part may be gone when the rest fails.
        let is_told = is_stored && (outcome == Outcome::Success || self.asked.verb != "deletecollection");
        if is_told || !is_recorded(&self.asked, outcome) {
            return None;
        }
        let mut event = AuditEvent {
            action: action(&self.asked, &subject, false),
            name: if self.asked.name.is_empty() { subject.name.clone() } else { self.asked.name.clone() },
            path: if self.asked.plural.is_empty() { self.asked.path.clone() } else { String::new() },
            dry_run: is_dry_run,
            outcome: outcome.as_str().to_owned(),
            code: Some(answered.code),
            reason: answered.reason.to_owned(),
            // Other messages repeat what was sent.
            message: match answered.code {
                401 | 403 | 404 | 503 => Record::column(answered.message),
                _ => String::new(),
            },
            ..self.event(&subject)
        };
        if answered.unrecorded > 0 {
            event.parameters.insert("unrecorded".to_owned(), answered.unrecorded.into());
        }
        Some(record(self.id, &self.asked.namespace, event))
    }

    /// Which container of an instance it is about, as the path calls it.
    pub fn is_in(&self, container: &str) {
        let container = Record::column(container).into();
        self.seen.lock().subject.parameters.insert("container".to_owned(), container);
    }

    /// Which instance it is about, where the path does not say.
    pub fn is_about(&self, instance: &str) {
        instance.clone_into(&mut self.seen.lock().subject.instance);
    }

    /// What is asked of an engine by Docker's own API: told of whatever becomes of it.
    pub fn asks_engine(&self, action: String, parameters: BTreeMap<String, Value>) {
        self.seen.lock().subject = Subject { action: Some(action), parameters, ..Subject::default() };
    }

    /// The record of the beginning of what is asked of an engine, or with a status of its end; of a stream both are without one.
    pub fn of_engine(
        &self,
        more: BTreeMap<String, Value>,
        code: Option<u16>,
        outcome: Outcome,
        reason: &str,
    ) -> Record {
        let subject = self.seen.lock().subject.clone();
        let mut event = AuditEvent {
            action: action(&self.asked, &subject, false),
            name: self.asked.name.clone(),
            outcome: outcome.as_str().to_owned(),
            code,
            reason: reason.to_owned(),
            ..self.event(&subject)
        };
        event.parameters.extend(more);
        record(self.id, &self.asked.namespace, event)
    }

    /// Where the client is.
    pub fn source(&self) -> Option<IpAddr> {
        self.asked.source
    }

    /// True if the answer must wait for the record, so that who floods us is slowed. Where we are what fails nobody waits longer for it.
    pub fn must_wait(code: u16) -> bool {
        code < 500
    }

    /// True if the answer hands out a credential, which nobody gets without a record.
    pub fn gives_credential(&self, code: u16) -> bool {
        code < 400 && self.asked.subresource == "token" && !self.seen.lock().is_dry_run
    }

    /// What is the same whatever becomes of the request.
    fn event(&self, subject: &Subject) -> AuditEvent {
        let Asked { verb, group, plural, subresource, source, user_agent, .. } = &self.asked;
        let seen = self.seen.lock();
        let caller = seen.caller.as_ref();
        AuditEvent {
            user: caller.map(|caller| caller.user.to_string()).unwrap_or_default(),
            groups: caller.map(groups).unwrap_or_default(),
            impersonator: caller
                .and_then(|caller| caller.impersonator.as_deref())
                .map(|real| AuditUser { user: Record::column(&real.user), groups: groups(real) }),
            source_ip: source.map(|source| source.to_canonical().to_string()).unwrap_or_default(),
            user_agent: Record::column(user_agent),
            verb: (*verb).to_owned(),
            api_group: (*group).to_owned(),
            resource_type: (*plural).to_owned(),
            subresource: Record::column(subresource),
            instance: match *plural {
                "dockerinstances" => self.asked.name.clone(),
                _ => subject.instance.clone(),
            },
            parameters: subject.parameters.clone(),
            request_time: self.at.to_string(),
            duration_ms: u64::try_from(self.started.elapsed().as_millis()).ok(),
            trace_id: trace_id(&traces::traceparent())
                .or_else(|| trace_id(&self.asked.traceparent))
                .unwrap_or_default(),
            ..AuditEvent::default()
        }
    }
}

fn groups(caller: &Caller) -> Vec<String> {
    caller.groups.iter().take(MOST_GROUPS).map(|group| Record::column(group)).collect()
}

/// Of a W3C `traceparent`.
fn trace_id(traceparent: &str) -> Option<String> {
    let id = traceparent.split('-').nth(1)?;
    let is_id = id.len() == 32
        && id.bytes().all(|digit| digit.is_ascii_hexdigit())
        && !id.bytes().all(|digit| digit == b'0');
    is_id.then(|| id.to_ascii_lowercase())
}

/// The status with which an Operation ends in this write.
fn ended(old: &Value, new: &Value) -> Option<OperationStatus> {
    let phase =
        |object: &Value| object.pointer("/status/phase").and_then(|phase| Phase::deserialize(phase).ok());
    let is_end = phase(new).is_some_and(Phase::is_final) && !phase(old).is_some_and(Phase::is_final);
    is_end.then(|| new.get("status").and_then(|status| OperationStatus::deserialize(status).ok()))?
}

/// Tells of an Operation's end instead of the write that recorded it.
fn end(event: &mut AuditEvent, status: &OperationStatus) {
    let outcome = if status.phase == Phase::Succeeded { Outcome::Success } else { Outcome::Failure };
    outcome.as_str().clone_into(&mut event.outcome);
    event.code = None;
    event.reason = status.result.clone().unwrap_or_else(|| status.phase.as_str().to_owned());
    event.before.clone_from(&status.before);
    event.after.clone_from(&status.after);
    event.parameters.insert("phase".to_owned(), json!(status.phase));
    let took = status.start_time.as_ref().zip(status.completion_time.as_ref());
    event.duration_ms =
        took.and_then(|(start, end)| u64::try_from(end.0.duration_since(start.0).as_millis()).ok());
}

/// An event as it is stored: what is asked for in columns, the rest as text.
pub(super) fn record(id: Uuid, namespace: &str, mut event: AuditEvent) -> Record {
    let take = |text: &mut String| Record::column(&std::mem::take(text));
    Record {
        id,
        user: take(&mut event.user),
        action: take(&mut event.action),
        resource: take(&mut event.resource_type),
        namespace: Record::column(namespace),
        name: take(&mut event.name),
        instance: take(&mut event.instance),
        outcome: take(&mut event.outcome),
        content: serde_json::to_string(&AuditEvent { path: Record::column(&event.path), ..event })
            .unwrap_or_default(),
    }
}

/// A record as the API and the log show it; one that was not recorded by us shows its columns.
pub fn shown(record: &Record) -> Value {
    let event: AuditEvent = serde_json::from_str(&record.content).unwrap_or_default();
    let mut event = AuditEvent {
        user: record.user.clone(),
        action: record.action.clone(),
        resource_type: record.resource.clone(),
        name: record.name.clone(),
        instance: record.instance.clone(),
        outcome: record.outcome.clone(),
        audit_id: record.id.to_string(),
        ..event
    };
    event.metadata.namespace = Some(record.namespace.clone()).filter(|namespace| !namespace.is_empty());
    let mut shown = json!(event);
    if let Some(fields) = shown.as_object_mut() {
        fields.insert("kind".to_owned(), "AuditEvent".into());
        fields.insert("apiVersion".to_owned(), format!("{AUDIT_GROUP}/{VERSION}").into());
    }
    shown
}

/// Records as lines of JSON.
pub(super) fn lines(records: &[Arc<Record>]) -> String {
    records.iter().fold(String::new(), |mut text, record| {
        // Writing to a String cannot fail.
        let _ = writeln!(text, "{}", shown(record));
        text
    })
}

impl Recorded {
    /// As the API shows it: named after its number.
    pub fn shown(&self) -> Value {
        let mut shown = shown(&self.record);
        if let Some(metadata) = shown.get_mut("metadata").and_then(Value::as_object_mut) {
            metadata.insert("name".to_owned(), self.number.to_string().into());
            metadata.insert("uid".to_owned(), format!("{}-{}", self.record.id, self.number).into());
            metadata.insert("creationTimestamp".to_owned(), json!(Time(self.at)));
            metadata.insert("resourceVersion".to_owned(), self.number.to_string().into());
        }
        shown
    }
}
