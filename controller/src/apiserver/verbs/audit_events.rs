//! Reading the audit log: the newest events first, page by page, from the database itself.

use std::sync::Arc;

use axum::response::Response;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jiff::{SignedDuration, Timestamp};

use crate::apiserver::ApiServer;
use crate::apiserver::answer::{self, Page};
use crate::apiserver::failure::{Failure, Outcome};
use crate::apiserver::request::Call;
use crate::storage::audit::{Question, Recorded};
use crate::storage::{Object, Texts, Version};

/// Events of a page where nobody says, and the most there are.
const PAGE: usize = 500;
const LARGEST_PAGE: usize = 1_000;

/// Answers the events that the field selector and the times mean, of one namespace or of all.
pub(crate) async fn audit_events(server: &ApiServer, call: &Call) -> Outcome<Response> {
    let now = server.clock.now();
    let limit = call.params.limit()?.unwrap_or(PAGE).min(LARGEST_PAGE);
    // One more tells whether there is a next page.
    let question = Question { limit: limit + 1, ..question(call, now)? };
    let mut events = server.store.recorded(&question).await.map_err(|error| {
        tracing::warn!(error = %error.chain(), "the audit log cannot be read");
        Failure::unavailable(
            "the database does not answer, and nothing of the audit log is in memory; try again",
        )
    })?;
    let is_more = events.len() > limit;
    events.truncate(limit);
    let resume = events.last().filter(|_| is_more).map(resume_after);
    let version = Version(events.first().map_or(0, |newest| newest.number));
    let objects = events.into_iter().map(|event| Arc::new(object(call, &event))).collect();
    answer::list(
        call,
        now,
        Page { objects, version, resume, remaining: None, damaged: Vec::new(), age: None },
    )
}

fn question(call: &Call, now: Timestamp) -> Outcome<Question> {
    let mut question =
        Question { namespace: call.namespace.as_deref().map(str::to_owned), ..Question::default() };
    for (field, value) in call.selector()?.equalities()? {
        let wanted = match field {
            "user" => &mut question.user,
            "action" => &mut question.action,
            "resourceType" => &mut question.resource,
            "name" => &mut question.name,
            "instance" => &mut question.instance,
            "outcome" => &mut question.outcome,
            "metadata.namespace" => &mut question.namespace,
            _ => return Err(Failure::bad_request(format!("field label not supported: {field}"))),
        };
        if wanted.as_deref().is_some_and(|wanted| wanted != value) {
            // What would have to be two things at once is nothing, and no name has such a character.
            *wanted = Some("\u{fffd}".to_owned());
        } else {
            *wanted = Some(value.to_owned());
        }
    }
    question.since = time(call, "since", now)?;
    question.until = time(call, "until", now)?;
    question.after = call.params.get("continue").map(read_resume).transpose()?;
    Ok(question)
}

/// A point in time, or a duration back from now.
pub(super) fn time(call: &Call, name: &str, now: Timestamp) -> Outcome<Option<Timestamp>> {
    let Some(text) = call.params.get(name) else { return Ok(None) };
    let back = || now.checked_sub(text.parse::<SignedDuration>().ok()?).ok();
    let time = text.parse().ok().or_else(back);
    let refuse = || {
        let text: String = text.chars().take(64).collect();
        let why = "must be a time as 2026-06-01T12:00:00Z, or a duration back from now as 36h";
        Failure::bad_request(format!("{name}: Invalid value: {text:?}: {why}"))
    };
    time.map(Some).ok_or_else(refuse)
}

fn resume_after(last: &Recorded) -> String {
    URL_SAFE_NO_PAD.encode(format!("{}/{}", last.at.as_microsecond(), last.number))
}

fn read_resume(token: &str) -> Outcome<(Timestamp, i64)> {
    let read = || {
        let text = String::from_utf8(URL_SAFE_NO_PAD.decode(token).ok()?).ok()?;
        let (at, number) = text.split_once('/')?;
        Some((Timestamp::from_microsecond(at.parse().ok()?).ok()?, number.parse().ok()?))
    };
    read().ok_or_else(|| Failure::bad_request("continue key is not valid: it is none that this server gave"))
}

fn object(call: &Call, event: &Recorded) -> Object {
    Object {
        key: call.key(&event.number.to_string()),
        uid: event.record.id,
        version: Version(event.number),
        labels: Texts::default(),
        fields: Texts::default(),
        json: event.shown().to_string().into(),
    }
}
