//! What all writes share: the body's place, what the server sets, and the write itself.

use std::sync::Arc;

use axum::response::Response;
use bytes::Bytes;
use http::StatusCode;
use serde_json::{Map, Value, json};

use super::get::find;
use crate::apiserver::admission::{self, Admitted, Update};
use crate::apiserver::decode::BODY_LIMIT;
use crate::apiserver::failure::{Failure, Outcome};
use crate::apiserver::request::Call;
use crate::apiserver::weight::size;
use crate::apiserver::{ApiServer, answer, grants};
use crate::apply::{self, Applied, Writer};
use crate::storage::{Body, Effect, Expects, Key, Object, Write};

/// How often a write is repeated on a newer state before the client is told of the conflict.
pub(super) const ATTEMPTS: usize = 5;

/// A write that happened, or would have.
#[derive(Debug)]
pub(super) struct Written {
    pub json: Bytes,
    pub warnings: Vec<String>,
}

impl Written {
    pub fn answer(self, server: &ApiServer, call: &Call, code: StatusCode) -> Outcome<Response> {
        Ok(answer::warn(answer::object(call, server.clock.now(), code, self.json)?, &self.warnings))
    }
}

/// The object before a write: from memory the first time, from the newest state when that was too old.
pub(super) async fn current(server: &ApiServer, key: &Key, is_retry: bool) -> Outcome<Arc<Object>> {
    if !is_retry && let Some(object) = server.store.cache().get(key) {
        return Ok(object);
    }
    server.caught_up().await?;
    find(server, key)
}

/// True if the object has a newer state than this one from memory, or is gone.
pub(super) async fn is_stale(server: &ApiServer, object: &Object) -> Outcome<bool> {
    server.caught_up().await?;
    Ok(server.store.cache().get(&object.key).is_none_or(|newest| newest.version != object.version))
}

/// The stored object as a tree, in the form of the request's kind.
pub(super) fn parse(call: &Call, object: &Object) -> Outcome<Value> {
    let mut tree = serde_json::from_slice(&object.json).map_err(answer::broken)?;
    if let Some(view) = call.kind.view {
        view.show(&call.kind.api_version(), &mut tree);
    }
    Ok(tree)
}

/// `metadata` of an object that has one; made where it is missing.
pub(super) fn metadata(object: &mut Value) -> Outcome<&mut Map<String, Value>> {
    object
        .as_object_mut()
        .map(|object| object.entry("metadata").or_insert_with(|| json!({})))
        .and_then(Value::as_object_mut)
        .ok_or_else(|| Failure::bad_request("metadata: Invalid value: must be an object"))
}

/// A text of `metadata`, `None` where absent or empty; 400 where it is no text.
pub(super) fn text_of<'a>(object: &'a Value, field: &str) -> Outcome<Option<&'a str>> {
    match object.get("metadata").and_then(|metadata| metadata.get(field)) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) => Ok(Some(text.as_str()).filter(|text| !text.is_empty())),
        Some(_) => Err(Failure::bad_request(format!("metadata.{field}: Invalid value: must be a string"))),
    }
}

/// The body must be of the kind, namespace and name that the path says; what it leaves out is filled in.
pub(super) fn place(call: &Call, object: &mut Value) -> Outcome<()> {
    let (kind, api_version) = (&call.kind.kind, call.kind.api_version());
    if let Some(map) = object.as_object_mut() {
        for (field, expected) in [("kind", kind), ("apiVersion", &api_version)] {
            match map.get(field) {
                Some(Value::String(given)) if given == expected => {}
                None | Some(Value::Null) => {
                    map.insert(field.to_owned(), expected.as_str().into());
                }
                Some(given) => {
                    return Err(Failure::bad_request(format!(
                        "the {field} in the data ({}) does not match the expected {field} ({expected})",
                        given.as_str().unwrap_or("no text")
                    )));
                }
            }
        }
    }
    metadata(object)?;
    let namespace = call.namespace.as_deref().unwrap_or_default();
    if let Some(given) = text_of(object, "namespace")?
        && given != namespace
    {
        return Err(Failure::bad_request(format!(
            "the namespace of the provided object does not match the namespace sent on the request: the object is in \
             {given:?}, the request in {namespace:?}"
        )));
    }
    if !namespace.is_empty() {
        metadata(object)?.insert("namespace".to_owned(), namespace.into());
    }
    if let Some(name) = call.name.as_deref() {
        match text_of(object, "name")? {
            Some(given) if given != name => {
                return Err(Failure::bad_request(format!(
                    "the name of the object ({given}) does not match the name on the URL ({name})"
                )));
            }
            _ => metadata(object)?.insert("name".to_owned(), name.into()),
        };
    }
    Ok(())
}

/// Finalizers that hold the object, those of a Namespace's spec among them.
pub(super) fn is_held(object: &Value) -> bool {
    ["/metadata/finalizers", "/spec/finalizers"].iter().enumerate().any(|(number, path)| {
        let is_of_namespace = object.get("kind").is_some_and(|kind| kind == "Namespace");
        (number == 0 || is_of_namespace)
            && object.pointer(path).and_then(Value::as_array).is_some_and(|list| !list.is_empty())
    })
}

/// How a write decides who owns what afterwards.
#[derive(Debug)]
pub(super) enum Ownership {
    /// What it changes is its manager's.
    Tracked,
    /// As the apply says.
    Applied(Applied),
}

/// Who writes, for the rules of ownership.
pub(super) fn writer<'a>(server: &ApiServer, call: &'a Call, api_version: &'a str) -> Writer<'a> {
    Writer {
        manager: &call.manager,
        api_version,
        schema: call.kind.schema.document(),
        subresource: call.subresource,
        has_status: call.kind.has_status,
        now: server.clock.now(),
    }
}

/// Takes out what a client says of who owns what.
pub(super) fn take_managed_fields(object: &mut Value) -> Option<Value> {
    object.get_mut("metadata")?.as_object_mut()?.remove(MANAGED_FIELDS)
}

const MANAGED_FIELDS: &str = "managedFields";

/// Writes down who owns what in an admitted object.
pub(super) fn own(
    server: &ApiServer,
    call: &Call,
    old: Option<&Value>,
    new: &mut Value,
    given: Option<&Value>,
    ownership: Ownership,
) -> Outcome<()> {
    let api_version = call.kind.api_version();
    let put = |new: &mut Value, list: Option<Value>| -> Outcome<()> {
        if let Some(list) = list {
            metadata(new)?.insert(MANAGED_FIELDS.to_owned(), list);
        }
        Ok(())
    };
    let list = match ownership {
        Ownership::Tracked => apply::track(&writer(server, call, &api_version), old, new, given),
        Ownership::Applied(applied) => {
            let stored = old.and_then(|old| old.get("metadata")?.get(MANAGED_FIELDS));
            put(new, stored.cloned())?;
            let is_same = old == Some(&*new);
            take_managed_fields(new);
            applied.managed_fields(stored, is_same)
        }
    };
    put(new, list)
}

/// Puts `new` in the place of `current`: admits it, stores it unless it is the same, and lets a dying object go with its last finalizer.
pub(super) async fn replace(
    server: &ApiServer,
    call: &Call,
    current: &Object,
    old: &Value,
    mut new: Value,
    duplicates: &[String],
    ownership: Ownership,
) -> Outcome<Written> {
    let given = take_managed_fields(&mut new);
    let Admitted { object: mut new, warnings } = admission::admit_update(
        &Update {
            kind: call.kind,
            old,
            subresource: call.subresource,
            validation: validation(call),
            duplicates,
        },
        new,
    )?;
    call.ticket.saw(Some(old), &new);
    grants::check(&server.rights, call, Some(old), &new)?;
    metadata(&mut new)?.insert("resourceVersion".to_owned(), current.version.to_string().into());
    own(server, call, Some(old), &mut new, given.as_ref(), ownership)?;
    let is_gone = new.pointer("/metadata/deletionTimestamp").is_some() && !is_held(&new);
    let is_same = new == *old && !is_gone;
    // What stores nothing is not compared by the store, so the state it stands on is compared here.
    if (is_same || call.is_dry_run) && is_stale(server, current).await? {
        return Err(Failure::conflict(&current.key.resource, &current.key.name));
    }
    if is_same {
        return Ok(Written { json: current.json.clone(), warnings });
    }
    let place = Place { key: &current.key, expects: Expects::Version(current.version), old: Some(old) };
    let json = store(server, call, place, new, is_gone).await?;
    Ok(Written { json, warnings })
}

/// Where an object goes, and what it takes the place of.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place<'a> {
    pub key: &'a Key,
    pub expects: Expects,
    /// In the form of the request's kind.
    pub old: Option<&'a Value>,
}

/// Writes an admitted object and the record of it, or under `dryRun=All` answers as if; the answer is as it is kept.
pub(super) async fn store(
    server: &ApiServer,
    call: &Call,
    Place { key, expects, old }: Place<'_>,
    mut object: Value,
    is_gone: bool,
) -> Outcome<Bytes> {
    let record = call.ticket.of_change(key, old, &object);
    if let Some(view) = call.kind.view {
        view.keep(&mut object);
    }
    if size(&object) > BODY_LIMIT {
        return Err(Failure::too_large(BODY_LIMIT));
    }
    if call.is_dry_run {
        call.ticket.is_dry();
        return serde_json::to_vec(&object).map(Bytes::from).map_err(answer::broken);
    }
    let body = Body::new(object).ok_or_else(|| Failure::internal("an admitted object has no uid"))?;
    let effect = if is_gone { Effect::Delete(body) } else { Effect::Put(body) };
    let write = Write { key: key.clone(), expects, effect, record: record.clone().map(Box::new) };
    let stored = server.store.write(write).await?;
    if let Some(record) = &record {
        call.ticket.is_stored();
        server.audit.copy(record);
    }
    Ok(stored.json.clone())
}

/// `fieldValidation`, which was checked; Warn where absent.
pub(super) fn validation(call: &Call) -> admission::FieldValidation {
    match call.params.get("fieldValidation") {
        Some("Strict") => admission::FieldValidation::Strict,
        Some("Ignore") => admission::FieldValidation::Ignore,
        _ => admission::FieldValidation::Warn,
    }
}
