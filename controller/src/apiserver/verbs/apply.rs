//! Applying a configuration: the caller says what it wants of an object, and owns that.

use axum::response::Response;
use http::StatusCode;
use serde_json::Value;

use super::create;
use super::write::{
    ATTEMPTS, Ownership, Written, current, is_stale, parse, place, replace, text_of, validation, writer,
};
use crate::apiserver::ApiServer;
use crate::apiserver::admission::{self, Admitted};
use crate::apiserver::authorize::{Attributes, require};
use crate::apiserver::decode::{Decoded, decode_json, decode_yaml};
use crate::apiserver::failure::{Cause, CauseReason, Failure, Outcome};
use crate::apiserver::request::Call;
use crate::apply::{self, BadList, Refusal};
use crate::storage::{Key, Object};

/// Makes the object, or changes what the configuration says and its manager no longer says; again on a newer state after a conflict
/// with another write. Fails with 409 if another manager's field would get another value and `force` is not set.
pub(crate) async fn apply(server: &ApiServer, call: &Call, body: &[u8]) -> Outcome<Response> {
    let Decoded { value: mut config, duplicates } = read(call, body)?;
    place(call, &mut config)?;
    let Admitted { object: config, warnings } =
        admission::admit_config(call.kind, config, validation(call), &duplicates)?;
    let key = call.target()?;
    let names_version = text_of(&config, "resourceVersion")?.is_some();
    for attempt in 1..=ATTEMPTS {
        let live = match current(server, &key, attempt > 1).await {
            Ok(object) => Some(object),
            Err(failure) if failure.is_not_found() && call.subresource.is_none() => None,
            Err(failure) => return Err(failure),
        };
        let (outcome, code) = match &live {
            Some(live) => (change(server, call, live, config.clone()).await, StatusCode::OK),
            None => (make(server, call, &key, config.clone()).await, StatusCode::CREATED),
        };
        let is_last = attempt == ATTEMPTS;
        match (outcome, &live) {
            (Err(failure), None) if failure.is_already_exists() && !is_last => {}
            (Err(failure), _) if failure.is_conflict() && !names_version && !is_last => {}
            // What failed on an old state may hold on the newest.
            (Err(_), Some(live)) if attempt == 1 && is_stale(server, live).await? => {}
            (outcome, _) => {
                let mut written = outcome?;
                written.warnings.splice(0..0, warnings);
                return written.answer(server, call, code);
            }
        }
    }
    Err(Failure::conflict(&key.resource, &key.name))
}

/// YAML or JSON, of exactly the kind that the path serves.
fn read(call: &Call, body: &[u8]) -> Outcome<Decoded> {
    let text = std::str::from_utf8(body)
        .map_err(|error| Failure::bad_request(format!("the body is not UTF-8: {error}")))?;
    let json = Some(text).filter(|text| text.trim_start().starts_with('{')).map(decode_json);
    let decoded = match json {
        Some(Ok(decoded)) => decoded,
        // A map in YAML may begin like one in JSON.
        Some(Err(_)) | None => decode_yaml(text)?,
    };
    let text_at = |name: &str| decoded.value.get(name).and_then(Value::as_str).unwrap_or_default();
    let (api_version, kind) = (text_at("apiVersion"), text_at("kind"));
    if kind != call.kind.kind || api_version != call.kind.api_version() {
        return Err(Failure::bad_request(format!("invalid object type: {api_version}, Kind={kind}")));
    }
    if decoded.value.pointer("/metadata/managedFields").is_some_and(|list| !list.is_null()) {
        return Err(Failure::bad_request("metadata.managedFields must be nil"));
    }
    Ok(decoded)
}

async fn change(server: &ApiServer, call: &Call, live: &Object, config: Value) -> Outcome<Written> {
    if text_of(&config, "resourceVersion")?.is_some_and(|version| version != live.version.to_string()) {
        return Err(Failure::conflict(&live.key.resource, &live.key.name));
    }
    let old = parse(call, live)?;
    let (new, ownership) = merge(server, call, Some(&old), config)?;
    replace(server, call, live, &old, new, &[], ownership).await
}

async fn make(server: &ApiServer, call: &Call, key: &Key, config: Value) -> Outcome<Written> {
    for precondition in ["uid", "resourceVersion"] {
        if let Some(given) = text_of(&config, precondition)? {
            let why = format!(
                "{precondition} mismatch: the provided object specified {precondition} {given}, and no existing object was found"
            );
            return Err(Failure::conflict_because(&key.resource, &key.name, &why));
        }
    }
    let namespace = call.namespace.as_deref().unwrap_or_default();
    require(&server.rights, &call.caller, &Attributes::of_object("create", call.kind, namespace, ""))?;
    let (new, ownership) = merge(server, call, None, config)?;
    create::store(server, call, new, &[], ownership).await
}

fn merge(
    server: &ApiServer,
    call: &Call,
    live: Option<&Value>,
    config: Value,
) -> Outcome<(Value, Ownership)> {
    let api_version = call.kind.api_version();
    let writer = writer(server, call, &api_version);
    let name = call.name.as_deref().unwrap_or_default();
    let mut applied = apply::apply(&writer, live, config, call.params.is_set("force")).map_err(
        |refusal| match refusal {
            Refusal::Conflicts(conflicts) => Failure::apply_conflict(&conflicts),
            Refusal::BadList(bad) => {
                let cause = cause(&bad);
                Failure::invalid(&call.kind.group, &call.kind.kind, name, vec![cause])
            }
        },
    )?;
    let object = std::mem::take(&mut applied.object);
    Ok((object, Ownership::Applied(applied)))
}

fn cause(bad: &BadList) -> Cause {
    let (path, reason, message) = match bad {
        BadList::Duplicate(path) => (path, CauseReason::Duplicate, "Duplicate value: it is applied twice"),
        BadList::Unkeyed(path) => {
            (path, CauseReason::Invalid, "Invalid value: an item has none of the key fields, or is null")
        }
    };
    Cause { field: path.to_string().trim_start_matches('.').to_owned(), reason, message: message.to_owned() }
}
