//! Issuing a token of a ServiceAccount.

use axum::response::Response;
use http::StatusCode;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::authentication::v1::{BoundObjectReference, TokenRequest, TokenRequestSpec};
use serde_json::{Map, Value, json};

use super::get::find;
use super::write::{metadata, text_of, validation};
use crate::apiserver::admission::{self, Admitted};
use crate::apiserver::decode::decode;
use crate::apiserver::failure::{Cause, CauseReason, Failure, Outcome};
use crate::apiserver::request::Call;
use crate::apiserver::{ApiServer, answer, kinds};
use crate::auth::tokens::{Bound, Reference};
use crate::storage::{Key, Object, Resource};

const DEFAULT_LIFETIME: i64 = 60 * 60;
const SHORTEST_LIFETIME: i64 = 10 * 60;
const LONGEST_LIFETIME: i64 = 1 << 32;

/// Answers the request with a token in its status; nothing is stored. A dry run answers without one.
pub(crate) async fn token(server: &ApiServer, call: &Call, body: &[u8]) -> Outcome<Response> {
    let decoded = decode(body, call.content_type.as_deref())?;
    let mut object = decoded.value;
    let account = call.target()?;
    check_place(&object, &account)?;
    server.caught_up().await?;
    let bearer = find(server, &account)?;

    complete(&mut object, server.tokens.audiences());
    let Admitted { mut object, warnings } =
        admission::admit_posted(kinds::token_request(), object, validation(call), &decoded.duplicates)?;
    let request: TokenRequest = serde_json::from_value(object.clone()).map_err(Failure::internal)?;
    let lifetime = lifetime(&request.spec)?;
    let reference = request.spec.bound_object_ref.as_ref();
    let secret = reference.map(|reference| secret(server, &account, reference)).transpose()?;

    let expires = server.tokens.expiry(lifetime).ok_or_else(|| Failure::internal("the clock is wrong"))?;
    let token = if call.is_dry_run {
        String::new()
    } else {
        let bound = Bound {
            namespace: account.namespace.to_string(),
            serviceaccount: reference_to(&bearer),
            secret: secret.as_deref().map(reference_to),
        };
        let issued = server.tokens.issue(bound, &request.spec.audiences, expires);
        issued.ok_or_else(|| Failure::internal("the key of tokens cannot sign"))?.token
    };
    let fields = metadata(&mut object)?;
    fields.insert("name".to_owned(), (*account.name).into());
    fields.insert("namespace".to_owned(), (*account.namespace).into());
    fields.insert("creationTimestamp".to_owned(), time(server.clock.now()));
    if let Some(object) = object.as_object_mut() {
        let status = json!({"token": token, "expirationTimestamp": time(expires)});
        object.insert("status".to_owned(), status);
    }
    Ok(answer::warn(answer::json(StatusCode::CREATED, &object)?, &warnings))
}

/// What the body says of the account must be what the path says.
fn check_place(object: &Value, account: &Key) -> Outcome<()> {
    for (field, is) in [("name", &account.name), ("namespace", &account.namespace)] {
        if let Some(given) = text_of(object, field)?
            && *given != **is
        {
            let message =
                format!("Invalid value: {given:?}: must match the service account {field} if specified");
            return Err(invalid(&account.name, &format!("metadata.{field}"), CauseReason::Invalid, message));
        }
    }
    Ok(())
}

/// Fills in what was left out, and takes out a status: that is ours to say.
fn complete(object: &mut Value, audiences: &[String]) {
    let Some(fields) = object.as_object_mut() else { return };
    fields.remove("status");
    let spec = fields.entry("spec").or_insert(Value::Null);
    if spec.is_null() {
        *spec = Value::Object(Map::new());
    }
    let Some(spec) = spec.as_object_mut() else { return };
    let is_empty = |value: &Value| value.is_null() || value.as_array().is_some_and(Vec::is_empty);
    for (field, default) in [("expirationSeconds", json!(DEFAULT_LIFETIME)), ("audiences", json!(audiences))]
    {
        if spec.get(field).is_none_or(is_empty) {
            spec.insert(field.to_owned(), default);
        }
    }
}

fn lifetime(spec: &TokenRequestSpec) -> Outcome<SignedDuration> {
    let seconds = spec.expiration_seconds.unwrap_or(DEFAULT_LIFETIME);
    let why = match seconds {
        ..SHORTEST_LIFETIME => "may not specify a duration less than 10 minutes",
        SHORTEST_LIFETIME..=LONGEST_LIFETIME => return Ok(SignedDuration::from_secs(seconds)),
        _ => "may not specify a duration larger than 2^32 seconds",
    };
    let message = format!("Invalid value: {seconds}: {why}");
    Err(invalid("", "spec.expirationSeconds", CauseReason::Invalid, message))
}

/// The Secret that a token is to end with.
fn secret(
    server: &ApiServer,
    account: &Key,
    reference: &BoundObjectReference,
) -> Outcome<std::sync::Arc<Object>> {
    let BoundObjectReference { api_version, kind, name, uid } = reference;
    for (field, given, known) in [("kind", kind, "Secret"), ("apiVersion", api_version, "v1")] {
        let given = given.as_deref().unwrap_or_default();
        // As in Kubernetes, the core group needs no saying.
        if given != known && !(given.is_empty() && field == "apiVersion") {
            let message = format!("Unsupported value: {given:?}: supported values: {known:?}");
            let field = format!("spec.boundObjectRef.{field}");
            return Err(invalid("", &field, CauseReason::NotSupported, message));
        }
    }
    let name = name.as_deref().unwrap_or_default();
    if name.is_empty() {
        let message = "Required value".to_owned();
        return Err(invalid("", "spec.boundObjectRef.name", CauseReason::Required, message));
    }
    let key =
        Key { resource: Resource("secrets".into()), namespace: account.namespace.clone(), name: name.into() };
    let secret = find(server, &key)?;
    match uid.as_deref().filter(|uid| !uid.is_empty()) {
        Some(uid) if uid.parse() != Ok(secret.uid) => {
            let why = format!(
                "the UID in the bound object reference ({uid}) does not match the UID in record. The object might have been deleted \
                 and then recreated"
            );
            Err(Failure::conflict_because(&Resource("Secret".into()), name, &why))
        }
        _ => Ok(secret),
    }
}

fn reference_to(object: &Object) -> Reference {
    Reference { name: object.key.name.to_string(), uid: object.uid.to_string() }
}

fn invalid(name: &str, field: &str, reason: CauseReason, message: String) -> Failure {
    let kind = kinds::token_request();
    Failure::invalid(&kind.group, &kind.kind, name, vec![Cause { field: field.to_owned(), reason, message }])
}

/// Whole seconds, as Kubernetes writes them.
fn time(at: Timestamp) -> Value {
    at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string().into()
}
