//! Recorded terminals: listed, the newest first, page by page, described one by one, and played. Read from the database itself.

use std::sync::Arc;

use axum::body::Body;
use axum::response::{IntoResponse as _, Response};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use gantry_api::v1alpha1::{TerminalPhase, TerminalSession};
use http::{HeaderValue, StatusCode, header};
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use uuid::Uuid;

use super::audit_events::time;
use crate::apiserver::ApiServer;
use crate::apiserver::answer::{self, Page};
use crate::apiserver::authorize::Standing;
use crate::apiserver::failure::{Failure, Outcome};
use crate::apiserver::request::Call;
use crate::audit;
use crate::live::recording;
use crate::pki::hex;
use crate::storage::recordings::{Recording, Wanted};
use crate::storage::{Object, StorageError, Texts, Version};

/// Sessions of a page where nobody says, and the most there are.
const PAGE: usize = 500;
const LARGEST_PAGE: usize = 1_000;

/// Answers those that the field selector and the times mean, of one namespace or of all.
pub(crate) async fn sessions(server: &ApiServer, call: &Call) -> Outcome<Response> {
    let now = server.clock.now();
    let limit = call.params.limit()?.unwrap_or(PAGE).min(LARGEST_PAGE);
    // One more tells whether there is a next page.
    let wanted = Wanted { limit: limit + 1, ..wanted(call, now)? };
    let mut recordings = server.store.tapes().list(&wanted).await.map_err(unreadable)?;
    let is_more = recordings.len() > limit;
    recordings.truncate(limit);
    let resume = recordings.last().filter(|_| is_more).map(resume_after);
    let version = Version(recordings.first().map_or(0, |newest| newest.started_at.as_microsecond()));
    let objects = recordings.iter().map(|recording| object(call, recording).map(Arc::new));
    let objects = objects.collect::<Outcome<_>>()?;
    answer::list(
        call,
        now,
        Page { objects, version, resume, remaining: None, damaged: Vec::new(), age: None },
    )
}

/// Answers what is known of one.
pub(crate) async fn session(server: &ApiServer, call: &Call) -> Outcome<Response> {
    let recording = find(server, call).await?;
    let object = object(call, &recording)?;
    answer::object(call, server.clock.now(), StatusCode::OK, object.json)
}

/// Answers what was shown, as far as it is stored, for as long as its reader may read it. Nobody does without a record of that.
pub(crate) async fn play(server: &ApiServer, call: &Call, standing: Standing) -> Outcome<Response> {
    let recording = find(server, call).await?;
    let record = call.ticket.of_engine([].into(), None, audit::Outcome::Success, "");
    if !server.audit.settle(record, true).await {
        return Err(Failure::unavailable(
            "the audit log cannot be written now, so nobody reads recordings; try again",
        ));
    }
    call.ticket.is_stored();
    let pieces = server.store.tapes().play(&recording.opening).await.map_err(unreadable)?;
    let mut response = Body::from_stream(standing.guards(recording::played(pieces))).into_response();
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/x-asciicast"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    Ok(response)
}

async fn find(server: &ApiServer, call: &Call) -> Outcome<Recording> {
    let key = call.target()?;
    let unknown = || Failure::not_found(&key.resource, &key.name);
    let id = key.name.parse::<Uuid>().map_err(|_| unknown())?;
    let wanted =
        Wanted { id: Some(id), namespace: Some(key.namespace.to_string()), limit: 1, ..Wanted::default() };
    let mut found = server.store.tapes().list(&wanted).await.map_err(unreadable)?;
    found.pop().ok_or_else(unknown)
}

fn unreadable(error: StorageError) -> Failure {
    tracing::warn!(error = %error.chain(), "recordings cannot be read");
    match error {
        StorageError::Damaged(_) => Failure::internal(
            "the recording cannot be opened: its key is not in the key ring, or it was changed in the database",
        ),
        _ => Failure::unavailable(
            "the database does not answer, and nothing of recordings is in memory; try again",
        ),
    }
}

fn wanted(call: &Call, now: Timestamp) -> Outcome<Wanted> {
    let mut wanted = Wanted { namespace: call.namespace.as_deref().map(str::to_owned), ..Wanted::default() };
    for (field, value) in call.selector()?.equalities()? {
        let asked = match field {
            "user" => &mut wanted.user,
            "instance" => &mut wanted.instance,
            "metadata.namespace" => &mut wanted.namespace,
            _ => return Err(Failure::bad_request(format!("field label not supported: {field}"))),
        };
        if asked.as_deref().is_some_and(|asked| asked != value) {
            // What would have to be two things at once is nothing, and no name has such a character.
            *asked = Some("\u{fffd}".to_owned());
        } else {
            *asked = Some(value.to_owned());
        }
    }
    wanted.since = time(call, "since", now)?;
    wanted.until = time(call, "until", now)?;
    wanted.after = call.params.get("continue").map(read_resume).transpose()?;
    Ok(wanted)
}

fn resume_after(last: &Recording) -> String {
    URL_SAFE_NO_PAD.encode(format!("{}/{}", last.started_at.as_microsecond(), last.opening.id))
}

fn read_resume(token: &str) -> Outcome<(Timestamp, Uuid)> {
    let read = || {
        let text = String::from_utf8(URL_SAFE_NO_PAD.decode(token).ok()?).ok()?;
        let (at, id) = text.split_once('/')?;
        Some((Timestamp::from_microsecond(at.parse().ok()?).ok()?, id.parse().ok()?))
    };
    read().ok_or_else(|| Failure::bad_request("continue key is not valid: it is none that this server gave"))
}

fn object(call: &Call, recording: &Recording) -> Outcome<Object> {
    let name = recording.opening.id.to_string();
    let mut value = serde_json::to_value(shown(recording)).map_err(answer::broken)?;
    if let Some(fields) = value.as_object_mut() {
        fields.insert("apiVersion".to_owned(), call.kind.api_version().into());
        fields.insert("kind".to_owned(), call.kind.kind.as_str().into());
    }
    let mut key = call.key(&name);
    key.namespace = recording.opening.namespace.as_str().into();
    Ok(Object {
        key,
        uid: recording.opening.id,
        version: Version(recording.started_at.as_microsecond()),
        labels: Texts::default(),
        fields: Texts::default(),
        json: value.to_string().into(),
    })
}

fn shown(recording: &Recording) -> TerminalSession {
    let Recording { opening, started_at, heard_at, ended_at, now, reason, bytes, digest } = recording;
    let mut session = serde_json::from_str::<TerminalSession>(&opening.content).unwrap_or_default();
    let is_lost = recording::is_lost(*heard_at, *now);
    let (phase, until) = match ended_at {
        Some(at) if reason == recording::INTERRUPTED => (TerminalPhase::Interrupted, *at),
        Some(at) => (TerminalPhase::Complete, *at),
        None if is_lost => (TerminalPhase::Interrupted, *heard_at),
        None => (TerminalPhase::Recording, *now),
    };
    session.metadata.name = Some(opening.id.to_string());
    session.metadata.namespace = Some(opening.namespace.clone());
    session.metadata.uid = Some(opening.id.to_string());
    session.metadata.creation_timestamp = Some(Time(*started_at));
    session.user.clone_from(&opening.user);
    session.instance.clone_from(&opening.instance);
    session.phase = phase;
    session.end_time = (phase != TerminalPhase::Recording).then(|| until.to_string());
    session.reason.clone_from(reason);
    session.duration_seconds = u64::try_from(until.duration_since(*started_at).as_secs()).unwrap_or_default();
    session.bytes = u64::try_from(*bytes).unwrap_or_default();
    session.sha256 = digest.as_deref().map(hex).unwrap_or_default();
    session
}
