//! Storing a new object.

use axum::response::Response;
use bytes::Bytes;
use http::StatusCode;
use serde_json::{Value, json};

use super::write::{
    self, ATTEMPTS, Ownership, Place, Written, metadata, own, place, take_managed_fields, text_of,
};
use crate::apiserver::admission::{self, Admitted, Create};
use crate::apiserver::decode::decode;
use crate::apiserver::failure::{Failure, Outcome};
use crate::apiserver::request::Call;
use crate::apiserver::{ApiServer, grants, policies};
use crate::clock::Entropy;
use crate::storage::{Expects, Key, Version};

/// Stores one object and answers before any reconciler has seen it; follow `status.conditions` for the outcome.
pub(crate) async fn create(server: &ApiServer, call: &Call, body: &[u8]) -> Outcome<Response> {
    let decoded = decode(body, call.content_type.as_deref())?;
    let mut object = decoded.value;
    place(call, &mut object)?;
    let is_generated = text_of(&object, "name")?.is_none();
    let prefix = text_of(&object, "generateName")?.unwrap_or_default().to_owned();
    if is_generated && prefix.is_empty() {
        return Err(Failure::name_required(&call.kind.group, &call.kind.kind));
    }
    let attempts = if is_generated { ATTEMPTS } else { 1 };
    for attempt in 1..=attempts {
        let mut object = object.clone();
        if is_generated {
            metadata(&mut object)?.insert("name".to_owned(), generate(&prefix, &*server.entropy).into());
        }
        match store(server, call, object, &decoded.duplicates, Ownership::Tracked).await {
            Err(failure) if failure.is_already_exists() && attempt < attempts => {}
            outcome => return outcome?.answer(server, call, StatusCode::CREATED),
        }
    }
    Err(Failure::internal("no name was left to try"))
}

/// Admits and stores an object that is named.
pub(super) async fn store(
    server: &ApiServer,
    call: &Call,
    mut object: Value,
    duplicates: &[String],
    ownership: Ownership,
) -> Outcome<Written> {
    let given = take_managed_fields(&mut object);
    let Admitted { mut object, mut warnings } = admission::admit_create(
        &Create { kind: call.kind, validation: write::validation(call), duplicates },
        object,
    )?;
    call.ticket.saw(None, &object);
    grants::check(&server.rights, call, None, &object)?;
    warnings.extend(policies::judge(server, call, &object).await?);
    let key = call.key(text_of(&object, "name")?.unwrap_or_default());
    let fields = metadata(&mut object)?;
    for foreign in ["resourceVersion", "deletionTimestamp", "deletionGracePeriodSeconds", "selfLink"] {
        fields.remove(foreign);
    }
    let now = server.clock.now();
    fields.insert("uid".to_owned(), server.uids.next(now, &*server.entropy).to_string().into());
    // Whole seconds, as Kubernetes writes them.
    let created = now.strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
    fields.insert("creationTimestamp".to_owned(), created.into());
    own(server, call, None, &mut object, given.as_ref(), ownership)?;
    if &*key.resource.0 == "namespaces" {
        begin_namespace(&mut object);
    }
    if call.is_dry_run {
        // What stores nothing is not compared by the store.
        server.caught_up().await?;
        if server.store.cache().get(&key).is_some() {
            return Err(Failure::already_exists(&key.resource, &key.name));
        }
    }
    for _ in 1..ATTEMPTS {
        match enter(server, call, &key, object.clone()).await {
            // Our cache may not have seen yet what became of the namespace.
            Err(failure) if failure.is_conflict() => {
                server.caught_up().await?;
            }
            outcome => return Ok(Written { json: outcome?, warnings }),
        }
        if server.store.cache().get(&key).is_some() {
            return Err(Failure::already_exists(&key.resource, &key.name));
        }
    }
    Ok(Written { json: enter(server, call, &key, object).await?, warnings })
}

/// Stores it, in its namespace as we know that.
async fn enter(server: &ApiServer, call: &Call, key: &Key, object: Value) -> Outcome<Bytes> {
    let expects = match call.namespace.as_deref() {
        None => Expects::Absent,
        Some(namespace) => Expects::AbsentIn(takes_objects(server, namespace, key).await?),
    };
    write::store(server, call, Place { key, expects, old: None }, object, false).await
}

/// A Namespace is born active, and held until its contents are gone.
fn begin_namespace(object: &mut Value) {
    if let Some(object) = object.as_object_mut() {
        object.insert("spec".to_owned(), json!({"finalizers": ["kubernetes"]}));
        object.insert("status".to_owned(), json!({"phase": "Active"}));
    }
}

/// The version of the namespace; fails unless it lives and does not go away.
async fn takes_objects(server: &ApiServer, namespace: &str, key: &Key) -> Outcome<Version> {
    let place = Key::namespace(namespace);
    let mut found = server.store.cache().get(&place);
    if found.is_none() {
        server.caught_up().await?;
        found = server.store.cache().get(&place);
    }
    match found {
        None => Err(Failure::not_found(&place.resource, namespace)),
        Some(found) if found.fields.get("status.phase") == Some("Terminating") => {
            Err(Failure::namespace_terminating(&key.resource, &key.name, namespace))
        }
        Some(found) => Ok(found.version),
    }
}

/// The prefix, shortened so that the name is a label whatever the kind, and five letters that make no words.
fn generate(prefix: &str, entropy: &dyn Entropy) -> String {
    const LETTERS: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";
    const ROOM: usize = 63 - 5;
    let mut name: String = prefix.chars().take(ROOM).collect();
    for _ in 0..5 {
        let chosen = usize::try_from(entropy.below(LETTERS.len() as u64)).unwrap_or(0);
        name.push(LETTERS.get(chosen).copied().map_or('b', char::from));
    }
    name
}
