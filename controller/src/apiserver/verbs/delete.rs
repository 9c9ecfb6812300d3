//! Removing one object or many; who is held by finalizers only begins to go.

use axum::response::Response;
use futures::stream::{self, StreamExt as _, TryStreamExt as _};
use http::StatusCode;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{DeleteOptions, Status, StatusDetails};
use serde_json::{Value, json};

use super::list::page;
use super::write::{ATTEMPTS, Place, current, is_held, is_stale, metadata, parse, store};
use crate::apiserver::decode::decode;
use crate::apiserver::failure::{CauseReason, Failure, Outcome};
use crate::apiserver::request::{Call, check_dry_run};
use crate::apiserver::{ApiServer, answer};
use crate::storage::{Damaged, Expects, Key, Object};

/// Deletions of one `deletecollection` at the same time.
const AT_ONCE: usize = 32;

const ORPHAN: &str = "orphan";
const FOREGROUND: &str = "foregroundDeletion";

/// Removes the object, or marks it while finalizers hold it: then the answer is the object.
pub(crate) async fn delete(server: &ApiServer, call: &Call, body: &[u8]) -> Outcome<Response> {
    let options = Options::read(call, body)?;
    let call = &options.applied_to(call);
    match remove(server, call, &call.target()?, &options).await? {
        Removed::Marked(json) => answer::object(call, server.clock.now(), StatusCode::OK, json),
        Removed::Gone(object) => {
            let details = StatusDetails {
                name: Some(object.key.name.to_string()),
                group: Some(call.kind.group.clone()).filter(|group| !group.is_empty()),
                kind: Some(call.kind.plural.clone()),
                uid: Some(object.uid.to_string()),
                ..StatusDetails::default()
            };
            let status =
                Status { status: Some("Success".to_owned()), details: Some(details), ..Status::default() };
            answer::json(StatusCode::OK, &status)
        }
    }
}

/// Removes what the selectors mean; answers the objects as they were.
pub(crate) async fn delete_collection(server: &ApiServer, call: &Call, body: &[u8]) -> Outcome<Response> {
    let options = Options::read(call, body)?;
    let call = &options.applied_to(call);
    let selector = call.selector()?;
    let found = page(server, call, &selector).await?;
    let keys: Vec<Key> = found.objects.iter().map(|object| object.key.clone()).collect();
    let options = &options;
    stream::iter(keys)
        .map(async |key| match remove(server, call, &key, options).await {
            Err(failure) if failure.is_not_found() => Ok(()),
            outcome => outcome.map(|_| ()),
        })
        .buffer_unordered(AT_ONCE)
        .try_collect::<()>()
        .await?;
    answer::list(call, server.clock.now(), found)
}

#[derive(Debug)]
enum Removed {
    /// Its new state.
    Marked(bytes::Bytes),
    /// What it was.
    Gone(std::sync::Arc<Object>),
}

async fn remove(server: &ApiServer, call: &Call, key: &Key, options: &Options) -> Outcome<Removed> {
    if options.ignores_damage
        && let Some(damaged) = server.store.cache().damage_of(key)
    {
        return remove_damaged(server, call, &damaged, options).await;
    }
    for attempt in 1..=ATTEMPTS {
        let object = current(server, key, attempt > 1).await?;
        match try_remove(server, call, &object, options).await {
            Err(failure) if failure.is_conflict() && attempt < ATTEMPTS => {
                // A precondition that fails on the newest state fails for good.
                if options.has_preconditions() && !is_stale(server, &object).await? {
                    return Err(failure);
                }
            }
            outcome => return outcome,
        }
    }
    Err(Failure::conflict(&key.resource, &key.name))
}

/// Removes a row that cannot be read. Nobody can tell who holds it, so nobody does.
async fn remove_damaged(
    server: &ApiServer,
    call: &Call,
    damaged: &Damaged,
    options: &Options,
) -> Outcome<Removed> {
    let Damaged { key, uid, version, why } = damaged;
    let namespace = Some(&key.namespace).filter(|namespace| !namespace.is_empty());
    let metadata = json!({"name": key.name, "namespace": namespace, "uid": uid});
    let rest = json!({"apiVersion": call.kind.api_version(), "kind": call.kind.kind, "metadata": metadata});
    let object = Object {
        key: key.clone(),
        uid: *uid,
        version: *version,
        labels: crate::storage::Texts::default(),
        fields: crate::storage::Texts::default(),
        json: bytes::Bytes::new(),
    };
    options.check(&object)?;
    tracing::warn!(object = %key, why, "an object that cannot be read is deleted without regard to its finalizers");
    let place = Place { key, expects: Expects::Version(*version), old: Some(&rest) };
    store(server, call, place, rest.clone(), true).await?;
    Ok(Removed::Gone(std::sync::Arc::new(object)))
}

async fn try_remove(
    server: &ApiServer,
    call: &Call,
    object: &std::sync::Arc<Object>,
    options: &Options,
) -> Outcome<Removed> {
    options.check(object)?;
    if &*object.key.resource.0 == "namespaces" && &*object.key.name == "default" {
        return Err(Failure::may_not_be_deleted(&object.key.resource, &object.key.name));
    }
    let mut dying = parse(call, object)?;
    let is_dying = dying.pointer("/metadata/deletionTimestamp").is_some();
    let before = dying.clone();
    options.propagation.apply(&mut dying)?;
    // Those who hold an object that cannot be read as its kind cannot let go of it either.
    let is_lost = options.ignores_damage && (call.kind.reads)(&dying).is_err();
    if is_lost {
        tracing::warn!(object = %object.key, "an object that cannot be read as its kind is deleted without regard to its finalizers");
    }
    let place = Place { key: &object.key, expects: Expects::Version(object.version), old: Some(&before) };
    if is_lost || !is_held(&dying) {
        store(server, call, place, dying, true).await?;
        return Ok(Removed::Gone(object.clone()));
    }
    if !is_dying {
        mark(server, &mut dying)?;
    }
    if dying == before {
        return Ok(Removed::Marked(object.json.clone()));
    }
    store(server, call, place, dying, false).await.map(Removed::Marked)
}

/// Begins the deletion: from here on only finalizers hold the object.
fn mark(server: &ApiServer, object: &mut Value) -> Outcome<()> {
    let is_namespace = object.get("kind").is_some_and(|kind| kind == "Namespace");
    let fields = metadata(object)?;
    let now = server.clock.now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
    fields.insert("deletionTimestamp".to_owned(), now.into());
    fields.insert("deletionGracePeriodSeconds".to_owned(), 0.into());
    if let Some(generation) = fields.get("generation").and_then(Value::as_i64) {
        fields.insert("generation".to_owned(), (generation + 1).into());
    }
    if is_namespace && let Some(object) = object.as_object_mut() {
        let status = object.entry("status").or_insert_with(|| json!({}));
        if let Some(status) = status.as_object_mut() {
            status.insert("phase".to_owned(), "Terminating".into());
        }
    }
    Ok(())
}

/// What becomes of the dependants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Propagation {
    Background,
    Foreground,
    Orphan,
    /// As the object's finalizers say, else Background.
    Unsaid,
}

impl Propagation {
    /// Says it by finalizers, for garbage collection to read.
    fn apply(self, object: &mut Value) -> Outcome<()> {
        let wanted = match self {
            Self::Unsaid => return Ok(()),
            Self::Background => None,
            Self::Foreground => Some(FOREGROUND),
            Self::Orphan => Some(ORPHAN),
        };
        let fields = metadata(object)?;
        let mut list: Vec<Value> =
            fields.get("finalizers").and_then(Value::as_array).cloned().unwrap_or_default();
        list.retain(|finalizer| finalizer != ORPHAN && finalizer != FOREGROUND);
        list.extend(wanted.map(Value::from));
        if list.is_empty() {
            fields.remove("finalizers");
        } else {
            fields.insert("finalizers".to_owned(), list.into());
        }
        Ok(())
    }
}

/// `DeleteOptions` from body and query.
#[derive(Debug)]
struct Options {
    uid: Option<String>,
    version: Option<String>,
    propagation: Propagation,
    /// What cannot be read is deleted all the same, held or not.
    ignores_damage: bool,
    is_dry_run: bool,
}

impl Options {
    fn read(call: &Call, body: &[u8]) -> Outcome<Self> {
        let given = if body.is_empty() {
            DeleteOptions::default()
        } else {
            let decoded = decode(body, call.content_type.as_deref())?;
            let kind = decoded.value.get("kind").and_then(Value::as_str).unwrap_or_default();
            if !matches!(kind, "" | "DeleteOptions") {
                return Err(Failure::bad_request(format!("the body is a {kind:?}, not DeleteOptions")));
            }
            serde_json::from_value(decoded.value)
                .map_err(|error| Failure::bad_request(format!("the body is not DeleteOptions: {error}")))?
        };
        check_dry_run("DeleteOptions", given.dry_run.iter().flatten().map(String::as_str))?;
        // Nothing here stops first, so it has no effect; but it must be a number.
        if let Some(text) = call.params.get("gracePeriodSeconds")
            && text.parse::<i64>().is_err()
        {
            let why = format!("gracePeriodSeconds: Invalid value: {text:?}: must be a number");
            return Err(Failure::bad_request(why));
        }
        let is_dry_run = given.dry_run.iter().flatten().next().is_some();
        let policy = given.propagation_policy.as_deref().or(call.params.get("propagationPolicy"));
        let orphans = given
            .orphan_dependents
            .or_else(|| call.params.get("orphanDependents").map(|_| call.params.is_set("orphanDependents")));
        let propagation = match (policy, orphans) {
            (Some("Background"), None) | (None, Some(false)) => Propagation::Background,
            (Some("Foreground"), None) => Propagation::Foreground,
            (Some("Orphan"), None) | (None, Some(true)) => Propagation::Orphan,
            (None, None) => Propagation::Unsaid,
            (Some(_), Some(_)) => {
                let why = "Invalid value: orphanDependents and propagationPolicy cannot be both set";
                return Err(Failure::invalid_option(
                    "DeleteOptions",
                    "propagationPolicy",
                    CauseReason::Invalid,
                    why.to_owned(),
                ));
            }
            (Some(other), None) => {
                return Err(Failure::invalid_option(
                    "DeleteOptions",
                    "propagationPolicy",
                    CauseReason::NotSupported,
                    format!(
                        "Unsupported value: {other:?}: supported values: \"Foreground\", \"Background\", \"Orphan\", \"nil\""
                    ),
                ));
            }
        };
        let ignores_damage = given
            .ignore_store_read_error_with_cluster_breaking_potential
            .unwrap_or_else(|| call.params.is_set("ignoreStoreReadErrorWithClusterBreakingPotential"));
        let preconditions = given.preconditions.unwrap_or_default();
        Ok(Self {
            uid: preconditions.uid,
            version: preconditions.resource_version,
            propagation,
            ignores_damage,
            is_dry_run,
        })
    }

    /// The call, dry if the body says so.
    fn applied_to(&self, call: &Call) -> Call {
        Call { is_dry_run: call.is_dry_run || self.is_dry_run, ..call.clone() }
    }

    fn has_preconditions(&self) -> bool {
        self.uid.is_some() || self.version.is_some()
    }

    fn check(&self, object: &Object) -> Outcome<()> {
        let differs = |what: &str, wanted: &Option<String>, found: String| {
            wanted.as_ref().filter(|wanted| **wanted != found).map(|wanted| {
                Failure::conflict_because(
                    &object.key.resource,
                    &object.key.name,
                    &format!("Precondition failed: {what} in precondition: {wanted}, {what} in object meta: {found}"),
                )
            })
        };
        match differs("UID", &self.uid, object.uid.to_string())
            .or_else(|| differs("ResourceVersion", &self.version, object.version.to_string()))
        {
            Some(failure) => Err(failure),
            None => Ok(()),
        }
    }
}
