//! A refused request as a Kubernetes `Status`: made by constructors named after the reasons, rendered in one place.

use axum::response::{IntoResponse, Response};
use http::header::{CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE};
use http::{HeaderValue, StatusCode};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ListMeta, Status, StatusCause, StatusDetails};

use crate::apply::Conflicts;
use crate::storage::{Damaged, Resource, Version, WriteError};

/// Why a request was refused, in the words kubectl prints.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{message}")]
pub struct Failure {
    reason: Reason,
    message: String,
    details: Box<StatusDetails>,
    resume: Option<String>,
}

/// Wrong fields that are told at once; the rest comes when these are mended.
pub(super) const MOST_CAUSES: usize = 20;

/// Longest path or text of a cause, in characters: both may repeat what the client sent.
const LONGEST_CAUSE: usize = 1_024;

/// What a refused request was told, for its record; an extension of the answer.
#[derive(Clone, Debug, Default)]
pub(super) struct Told {
    pub reason: String,
    pub message: String,
}

/// What a `Result` of this folder fails with.
pub type Outcome<T> = Result<T, Failure>;

/// Machine-readable reasons and the HTTP status of each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reason {
    BadRequest,
    Unauthorized,
    Forbidden,
    NotFound,
    MethodNotAllowed,
    NotAcceptable,
    AlreadyExists,
    Conflict,
    Expired,
    RequestEntityTooLarge,
    UnsupportedMediaType,
    Invalid,
    InternalError,
    ServiceUnavailable,
    Timeout,
    TooManyRequests,
}

impl Reason {
    fn code(self) -> StatusCode {
        match self {
            Self::BadRequest => StatusCode::BAD_REQUEST,
            Self::Unauthorized => StatusCode::UNAUTHORIZED,
            Self::Forbidden => StatusCode::FORBIDDEN,
            Self::NotFound => StatusCode::NOT_FOUND,
            Self::MethodNotAllowed => StatusCode::METHOD_NOT_ALLOWED,
            Self::NotAcceptable => StatusCode::NOT_ACCEPTABLE,
            Self::AlreadyExists | Self::Conflict => StatusCode::CONFLICT,
            Self::Expired => StatusCode::GONE,
            Self::RequestEntityTooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Self::UnsupportedMediaType => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            Self::Invalid => StatusCode::UNPROCESSABLE_ENTITY,
            Self::InternalError => StatusCode::INTERNAL_SERVER_ERROR,
            Self::ServiceUnavailable => StatusCode::SERVICE_UNAVAILABLE,
            Self::Timeout => StatusCode::GATEWAY_TIMEOUT,
            Self::TooManyRequests => StatusCode::TOO_MANY_REQUESTS,
        }
    }
}

/// One thing wrong with one field of an object, for [`Failure::invalid`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cause {
    /// Path as in `spec.target.name` or `metadata.finalizers[0]`.
    pub field: String,
    /// What is wrong with it.
    pub reason: CauseReason,
    /// As kubectl prints it after the field, `Unsupported value: "x": supported values: "Start", "Stop"`.
    pub message: String,
}

impl Cause {
    fn shortened(self) -> Self {
        Self { field: shortened(self.field), message: shortened(self.message), ..self }
    }
}

/// The text, cut with an ellipsis where it is longer than an answer should repeat.
pub(super) fn shortened(mut text: String) -> String {
    if let Some((end, _)) = text.char_indices().nth(LONGEST_CAUSE) {
        text.truncate(end);
        text.push('…');
    }
    text
}

/// Machine-readable reasons of a [`Cause`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CauseReason {
    /// The value is not allowed.
    Invalid,
    /// The value is missing.
    Required,
    /// The value is none of the list.
    NotSupported,
    /// The value has another type.
    TypeInvalid,
    /// The field may not be set now.
    Forbidden,
    /// The value stands there already.
    Duplicate,
    /// The text is too long.
    TooLong,
    /// The list has too many items.
    TooMany,
}

impl CauseReason {
    fn as_str(self) -> &'static str {
        match self {
            Self::Invalid => "FieldValueInvalid",
            Self::Required => "FieldValueRequired",
            Self::NotSupported => "FieldValueNotSupported",
            Self::TypeInvalid => "FieldValueTypeInvalid",
            Self::Forbidden => "FieldValueForbidden",
            Self::Duplicate => "FieldValueDuplicate",
            Self::TooLong => "FieldValueTooLong",
            Self::TooMany => "FieldValueTooMany",
        }
    }
}

impl Failure {
    fn new(reason: Reason, message: impl Into<String>) -> Self {
        Self { reason, message: message.into(), details: Box::default(), resume: None }
    }

    /// With the object's name, group and resource in the details.
    #[must_use]
    pub fn about(mut self, resource: &Resource, name: &str) -> Self {
        let (plural, group) = split(resource);
        self.details.kind = some(plural);
        self.details.group = some(group);
        self.details.name = some(name);
        self
    }

    fn because(mut self, field: &str, reason: &str, message: impl Into<String>) -> Self {
        self.details.causes.get_or_insert_default().push(StatusCause {
            field: some(field),
            reason: some(reason),
            message: Some(message.into()),
        });
        self
    }

    /// 400: the request itself cannot be understood.
    pub fn bad_request(message: impl Into<String>) -> Self {
        Self::new(Reason::BadRequest, message)
    }

    /// 401: nobody, or nobody we know.
    pub fn unauthorized() -> Self {
        Self::new(Reason::Unauthorized, "Unauthorized")
    }

    /// 403: `message` says who may not do what.
    pub fn forbidden(message: impl Into<String>) -> Self {
        Self::new(Reason::Forbidden, message)
    }

    /// 403: nothing may be created in a namespace that goes away.
    pub fn namespace_terminating(resource: &Resource, name: &str, namespace: &str) -> Self {
        Self::new(
            Reason::Forbidden,
            format!(
                "{resource} \"{name}\" is forbidden: unable to create new content in namespace {namespace} because it is being \
                 terminated"
            ),
        )
        .about(resource, name)
        .because("metadata.namespace", "NamespaceTerminating", format!("namespace {namespace} is being terminated"))
    }

    /// 403: this object may not be deleted by anybody.
    pub fn may_not_be_deleted(resource: &Resource, name: &str) -> Self {
        let plural = split(resource).0;
        let singular = plural.strip_suffix('s').unwrap_or(plural);
        Self::new(
            Reason::Forbidden,
            format!("{resource} \"{name}\" is forbidden: this {singular} may not be deleted"),
        )
        .about(resource, name)
    }

    /// 404: no such object.
    pub fn not_found(resource: &Resource, name: &str) -> Self {
        Self::new(Reason::NotFound, format!("{resource} \"{name}\" not found")).about(resource, name)
    }

    /// 404: no such path.
    pub fn no_such_path() -> Self {
        Self::new(Reason::NotFound, "the server could not find the requested resource")
    }

    /// 404: the host has no such thing; `message` says which.
    pub fn not_found_on_host(message: impl Into<String>) -> Self {
        Self::new(Reason::NotFound, message)
    }

    /// 409: the host cannot do it as things are there; `message` says why.
    pub fn refused_by_host(message: impl Into<String>) -> Self {
        Self::new(Reason::Conflict, message)
    }

    /// 405: the path exists, not with this method.
    pub fn method_not_allowed() -> Self {
        Self::new(Reason::MethodNotAllowed, "the server does not allow this method on the requested resource")
    }

    /// 406: `served` are the media types there are.
    pub fn not_acceptable(served: &str) -> Self {
        Self::new(Reason::NotAcceptable, format!("only the following media types are accepted: {served}"))
    }

    /// 409: the name is taken.
    pub fn already_exists(resource: &Resource, name: &str) -> Self {
        Self::new(Reason::AlreadyExists, format!("{resource} \"{name}\" already exists"))
            .about(resource, name)
    }

    /// 409: the object has another version than the writer knows.
    pub fn conflict(resource: &Resource, name: &str) -> Self {
        Self::conflict_because(
            resource,
            name,
            "the object has been modified; please apply your changes to the latest version and try again",
        )
    }

    /// 409: a precondition does not hold.
    pub fn conflict_because(resource: &Resource, name: &str, why: &str) -> Self {
        Self::new(Reason::Conflict, format!("Operation cannot be fulfilled on {resource} \"{name}\": {why}"))
            .about(resource, name)
    }

    /// 409: an applied configuration would change fields of other managers.
    pub fn apply_conflict(conflicts: &Conflicts) -> Self {
        let failure = Self::new(Reason::Conflict, conflicts.to_string());
        conflicts.told().fold(failure, |failure, (field, manager)| {
            let message = shortened(format!("conflict with {manager}"));
            failure.because(&shortened(field.to_string()), "FieldManagerConflict", message)
        })
    }

    /// 410: the asked version is compacted away; `resume` is a continue token for going on inconsistently.
    pub fn expired(message: impl Into<String>, resume: Option<String>) -> Self {
        Self { resume, ..Self::new(Reason::Expired, message) }
    }

    /// 413: the body is above `limit` bytes.
    pub fn too_large(limit: usize) -> Self {
        Self::new(Reason::RequestEntityTooLarge, format!("Request entity too large: limit is {limit}"))
    }

    /// 413: a JSON patch of too many operations.
    pub fn too_many_operations(found: usize, limit: usize) -> Self {
        Self::new(
            Reason::RequestEntityTooLarge,
            format!("The allowed maximum operations in a JSON patch is {limit}, got {found}"),
        )
    }

    /// 415: `served` are the media types this verb takes.
    pub fn unsupported_media_type(served: &str) -> Self {
        Self::new(
            Reason::UnsupportedMediaType,
            format!(
                "the body of the request was in an unknown format - accepted media types include: {served}"
            ),
        )
    }

    /// 422: the object breaks its kind's rules, field by field. `group` is empty for core kinds.
    ///
    /// Tells at most [`MOST_CAUSES`], each shortened: the answer to a large object of mistakes is small.
    pub fn invalid(group: &str, kind: &str, name: &str, causes: Vec<Cause>) -> Self {
        let whole = if group.is_empty() { kind.to_owned() } else { format!("{kind}.{group}") };
        let mut lines: Vec<String> = Vec::new();
        let causes: Vec<Cause> = causes.into_iter().take(MOST_CAUSES).map(Cause::shortened).collect();
        for cause in &causes {
            let line = if cause.field.is_empty() {
                cause.message.clone()
            } else {
                format!("{}: {}", cause.field, cause.message)
            };
            if !lines.contains(&line) {
                lines.push(line);
            }
        }
        let said = match lines.as_slice() {
            [one] => one.clone(),
            many => format!("[{}]", many.join(", ")),
        };
        let mut failure = Self::new(Reason::Invalid, format!("{whole} \"{name}\" is invalid: {said}"));
        failure.details.kind = some(kind);
        failure.details.group = some(group);
        failure.details.name = some(name);
        causes.into_iter().fold(failure, |failure, cause| {
            failure.because(&cause.field, cause.reason.as_str(), cause.message)
        })
    }

    /// 422: a parameter of a list or watch that does not go with the others.
    pub fn forbidden_option(option: &str, why: &str) -> Self {
        Self::invalid_option("ListOptions", option, CauseReason::Forbidden, format!("Forbidden: {why}"))
    }

    /// 422: one of `ListOptions`, `DeleteOptions`, `PatchOptions` … that cannot be.
    pub fn invalid_option(options: &str, option: &str, reason: CauseReason, message: String) -> Self {
        Self::invalid("meta.k8s.io", options, "", vec![Cause { field: option.to_owned(), reason, message }])
    }

    /// 422: neither a name nor the beginning of one.
    pub fn name_required(group: &str, kind: &str) -> Self {
        let message = "Required value: name or generateName is required".to_owned();
        let cause = Cause { field: "metadata.name".to_owned(), reason: CauseReason::Required, message };
        Self::invalid(group, kind, "", vec![cause])
    }

    /// 422: a patch that can be read but not applied.
    pub fn unprocessable(message: impl Into<String>) -> Self {
        let message = message.into();
        // kubectl shows the causes of what is invalid, and not the message where it knows of which object.
        Self::new(Reason::Invalid, message.clone()).because("patch", CauseReason::Invalid.as_str(), message)
    }

    /// 429 with `Retry-After`: nothing was done.
    pub fn too_many_requests() -> Self {
        Self::new(Reason::TooManyRequests, "too many requests are being served, please try again later")
            .retry_after(1)
    }

    /// 500: a mistake of ours; `message` holds nothing secret.
    pub fn internal(message: impl std::fmt::Display) -> Self {
        Self::new(Reason::InternalError, format!("Internal error occurred: {message}"))
    }

    /// 500: what is stored under this name cannot be read.
    pub fn damaged(damaged: &Damaged) -> Self {
        let Damaged { key, why, .. } = damaged;
        let message = format!(
            "{key} cannot be read: {why}; mend its row in the database, or delete it with \
             ignoreStoreReadErrorWithClusterBreakingPotential=true"
        );
        Self::new(Reason::InternalError, message).about(&key.resource, &key.name)
    }

    /// 503 with `Retry-After`.
    pub fn unavailable(message: impl Into<String>) -> Self {
        Self::new(Reason::ServiceUnavailable, message).retry_after(1)
    }

    /// 410: a version of what is in memory only, and not in this one.
    pub fn of_another_history(version: Version) -> Self {
        Self::expired(
            format!(
                "version {version} was given by another replica, or before this one was started: list again"
            ),
            None,
        )
    }

    /// 504: the request took longer than its timeout.
    pub fn timeout(message: impl Into<String>) -> Self {
        Self::new(Reason::Timeout, message)
    }

    /// 504: the client has seen a version that this replica has not.
    pub fn version_too_large(asked: i64, newest: i64) -> Self {
        Self::new(Reason::Timeout, format!("Too large resource version: {asked}, current: {newest}"))
            .because("", "ResourceVersionTooLarge", "Too large resource version")
            .retry_after(1)
    }

    fn retry_after(mut self, seconds: i32) -> Self {
        self.details.retry_after_seconds = Some(seconds);
        self
    }

    /// The HTTP status.
    pub fn code(&self) -> StatusCode {
        self.reason.code()
    }

    /// True for [`Failure::conflict`] and its like, which a server-side retry may heal.
    pub fn is_conflict(&self) -> bool {
        self.reason == Reason::Conflict && self.details.causes.is_none()
    }

    /// True for [`Failure::already_exists`].
    pub fn is_already_exists(&self) -> bool {
        self.reason == Reason::AlreadyExists
    }

    /// True for [`Failure::unavailable`].
    pub fn is_unavailable(&self) -> bool {
        self.reason == Reason::ServiceUnavailable
    }

    /// True for [`Failure::not_found`].
    pub fn is_not_found(&self) -> bool {
        self.reason == Reason::NotFound
    }

    /// The wire form, also the object of a watch's ERROR event.
    pub fn status(&self) -> Status {
        let details = (*self.details != StatusDetails::default()).then(|| (*self.details).clone());
        Status {
            status: some("Failure"),
            message: Some(self.message.clone()),
            reason: Some(format!("{:?}", self.reason)),
            code: Some(i32::from(self.code().as_u16())),
            metadata: ListMeta { continue_: self.resume.clone(), ..ListMeta::default() },
            details,
        }
    }
}

impl From<WriteError> for Failure {
    fn from(error: WriteError) -> Self {
        match &error {
            WriteError::AlreadyExists(key) => Self::already_exists(&key.resource, &key.name),
            WriteError::Conflict(key) | WriteError::NotPlaced(key) => {
                Self::conflict(&key.resource, &key.name)
            }
            WriteError::Unavailable(_) => {
                tracing::warn!(%error, "a write was refused");
                Self::unavailable("the database does not take writes now; nothing was stored, try again")
            }
            WriteError::FateUnknown => {
                tracing::warn!(%error, "the fate of a write is not known");
                Self::timeout(error.to_string())
            }
        }
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        let code = self.code();
        let mut response = match serde_json::to_vec(&self.status()) {
            Ok(body) => (code, body).into_response(),
            Err(_) => code.into_response(),
        };
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        if let Some(seconds) = self.details.retry_after_seconds {
            headers.insert(RETRY_AFTER, HeaderValue::from(seconds));
        }
        if self.reason == Reason::Unauthorized {
            headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        response
            .extensions_mut()
            .insert(Told { reason: format!("{:?}", self.reason), message: self.message });
        response
    }
}

fn some(text: &str) -> Option<String> {
    (!text.is_empty()).then(|| text.to_owned())
}

/// `operations.gantry.dev` is `operations` of `gantry.dev`; core resources have no group.
fn split(resource: &Resource) -> (&str, &str) {
    resource.0.split_once('.').unwrap_or((&resource.0, ""))
}

#[cfg(test)]
mod tests;
