//! Answers: one object or many, in the form that was asked for, from the stored bytes where that is possible.

mod whole;

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::response::Response;
use bytes::Bytes;
use http::header::{AGE, CONTENT_TYPE, WARNING};
use http::{HeaderValue, StatusCode};
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ListMeta;
use serde::Serialize;
use serde_json::{Value, json};

use self::whole::WholeList;
use super::failure::{Failure, Outcome};
use super::partial::partial_text;
use super::request::{Call, Format};
use super::table::{Rows, table};
use crate::storage::{Key, Object, Version};

/// A page of a collection.
#[derive(Debug)]
pub(crate) struct Page {
    pub objects: Vec<Arc<Object>>,
    pub version: Version,
    /// Where the next page begins.
    pub resume: Option<String>,
    pub remaining: Option<i64>,
    /// Objects that cannot be read and are not among them.
    pub damaged: Vec<Key>,
    /// How old it may be, where the database did not answer.
    pub age: Option<Duration>,
}

/// One object.
pub(crate) fn object(call: &Call, now: Timestamp, code: StatusCode, json: Bytes) -> Outcome<Response> {
    let body = match call.format {
        Format::Whole => match call.kind.shown(&json).map_err(broken)? {
            Cow::Borrowed(_) => json,
            Cow::Owned(shown) => shown.into(),
        },
        Format::Metadata => partial_text(&json).map_err(broken)?.into(),
        Format::Table(include) => {
            let rows = Rows::new(call.kind, include, now);
            let value: Value = serde_json::from_slice(&json).map_err(broken)?;
            let metadata = json!({"resourceVersion": value.pointer("/metadata/resourceVersion")});
            text(&table(&metadata, Some(rows.definitions()), vec![rows.row(&value)]))?
        }
    };
    Ok(respond(code, body))
}

/// Many objects.
pub(crate) fn list(call: &Call, now: Timestamp, page: Page) -> Outcome<Response> {
    let age = page.age;
    let left_out: Vec<String> =
        page.damaged.iter().map(|key| format!("{key} cannot be read and is left out")).collect();
    let metadata = serde_json::to_value(ListMeta {
        resource_version: Some(page.version.to_string()),
        continue_: page.resume,
        remaining_item_count: page.remaining,
        self_link: None,
    })
    .map_err(broken)?;
    let body = match call.format {
        Format::Whole => {
            let head = format!(
                "{{\"kind\":\"{}List\",\"apiVersion\":\"{}\",\"metadata\":{metadata},\"items\":[",
                call.kind.kind,
                call.kind.api_version()
            );
            if call.kind.view.is_some() {
                let items: Result<Vec<_>, _> =
                    page.objects.iter().map(|object| call.kind.shown(&object.json)).collect();
                joined(head, &items.map_err(broken)?).into()
            } else {
                Body::new(WholeList::new(head, page.objects))
            }
        }
        Format::Metadata => {
            let head = format!(
                "{{\"kind\":\"PartialObjectMetadataList\",\"apiVersion\":\"meta.k8s.io/v1\",\
                 \"metadata\":{metadata},\"items\":["
            );
            let items: Result<Vec<_>, _> =
                page.objects.iter().map(|object| partial_text(&object.json)).collect();
            joined(head, &items.map_err(broken)?).into()
        }
        Format::Table(include) => {
            let rows = Rows::new(call.kind, include, now);
            let all: Result<Vec<_>, _> = page
                .objects
                .iter()
                .map(|object| Ok(rows.row(&serde_json::from_slice(&object.json)?)))
                .collect();
            text(&table(&metadata, Some(rows.definitions()), all.map_err(broken)?))?.into()
        }
    };
    Ok(aged(warn(respond(StatusCode::OK, body), &left_out), age))
}

fn joined<T: AsRef<[u8]>>(head: String, items: &[T]) -> Vec<u8> {
    let mut body = head.into_bytes();
    for (number, item) in items.iter().enumerate() {
        if number > 0 {
            body.push(b',');
        }
        body.extend_from_slice(item.as_ref());
    }
    body.extend_from_slice(b"]}");
    body
}

/// Any value as JSON.
pub(crate) fn json(code: StatusCode, value: &impl Serialize) -> Outcome<Response> {
    Ok(respond(code, text(value)?))
}

/// Adds a `Warning` header for each, as kubectl prints them. Bounded, because headers are.
pub(crate) fn warn(mut response: Response, warnings: &[String]) -> Response {
    const MOST: usize = 20;
    for warning in warnings.iter().take(MOST) {
        let quoted: String = warning
            .chars()
            .take(512)
            .filter(|character| !character.is_control())
            .flat_map(|character| {
                matches!(character, '"' | '\\').then_some('\\').into_iter().chain(std::iter::once(character))
            })
            .collect();
        if let Ok(value) = HeaderValue::from_str(&format!("299 - \"{quoted}\"")) {
            response.headers_mut().append(WARNING, value);
        }
    }
    response
}

/// Says of an answer from memory how old it may be, to caches and to people.
pub(super) fn aged(response: Response, age: Option<Duration>) -> Response {
    let Some(age) = age else { return response };
    let seconds = age.as_secs();
    let warning = format!("the database does not answer: this is what was known {seconds} s ago");
    let mut response = warn(response, &[warning]);
    response.headers_mut().insert(AGE, HeaderValue::from(seconds));
    response
}

fn text(value: &impl Serialize) -> Outcome<Bytes> {
    serde_json::to_vec(value).map(Bytes::from).map_err(broken)
}

fn respond(code: StatusCode, body: impl Into<Body>) -> Response {
    let mut response = Response::new(body.into());
    *response.status_mut() = code;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

/// Stored bytes that are no JSON.
pub(crate) fn broken(error: serde_json::Error) -> Failure {
    tracing::error!(error = %error, "a stored object cannot be read");
    Failure::internal("a stored object cannot be read")
}
