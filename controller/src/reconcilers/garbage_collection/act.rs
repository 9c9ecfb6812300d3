//! Removes what the graph named, after asking the API whether it is still so.

use k8s_openapi::api::core::v1::{Namespace, ObjectReference};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::api::{
    Api, ApiResource, DeleteParams, DynamicObject, ListParams, Patch, PatchParams, Preconditions,
    PropagationPolicy,
};
use kube::{Client, ResourceExt as _};
use serde_json::json;

use super::graph::{Record, Removal};
use super::{Context, KINDS, can_own, kind_of, report, resource};
use crate::reconcilers::events::Recorder;

pub(super) async fn act(context: &Context, removal: &Removal) -> Result<(), kube::Error> {
    let client = &context.client;
    let done = match removal {
        Removal::Delete(record) => delete(client, record, Some(PropagationPolicy::Background)).await,
        Removal::DeleteOwnerless(record, waits) => {
            if has_owner(client, record).await? {
                Ok(())
            } else {
                // Otherwise what its finalizers say holds.
                delete(client, record, waits.then_some(PropagationPolicy::Foreground)).await
            }
        }
        Removal::Disown { dependent, owner } => disown(client, dependent, owner).await,
        Removal::Forget { dependent, owner } => {
            if lives(client, dependent, owner).await? {
                Ok(())
            } else {
                disown(client, dependent, &owner.uid).await
            }
        }
        Removal::Misplaced { dependent, owner } => {
            tell_misplaced(&context.recorder, dependent, owner);
            Ok(())
        }
        Removal::Release { record, finalizer } => release(client, record, finalizer).await,
        Removal::Finalize(record) => finalize(client, record).await,
        Removal::Report { namespace, remains } => {
            report::report(client, context.clock.now(), namespace, remains).await
        }
    };
    match done {
        // It is gone or somebody wrote first: the watch will tell.
        Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) => Ok(()),
        done => done,
    }
}

fn api(client: &Client, record: &Record) -> Option<Api<DynamicObject>> {
    Some(of(client, &resource(record.kind)?, &record.namespace))
}

fn of(client: &Client, resource: &ApiResource, namespace: &str) -> Api<DynamicObject> {
    if namespace.is_empty() {
        Api::all_with(client.clone(), resource)
    } else {
        Api::namespaced_with(client.clone(), namespace, resource)
    }
}

async fn delete(
    client: &Client,
    record: &Record,
    policy: Option<PropagationPolicy>,
) -> Result<(), kube::Error> {
    let Some(api) = api(client, record) else { return Ok(()) };
    let exactly = DeleteParams {
        preconditions: Some(Preconditions { uid: Some(record.uid.clone()), resource_version: None }),
        propagation_policy: policy,
        ..DeleteParams::default()
    };
    api.delete(&record.name, &exactly).await.map(|_| ())
}

async fn has_owner(client: &Client, record: &Record) -> Result<bool, kube::Error> {
    for owner in &record.owners {
        if lives(client, record, owner).await? {
            return Ok(true);
        }
    }
    Ok(false)
}

/// True if the owner lives and does not itself wait for this one to go; owners that cannot be looked for are believed to.
async fn lives(client: &Client, record: &Record, owner: &OwnerReference) -> Result<bool, kube::Error> {
    let Some(kind) = kind_of(owner).filter(|kind| can_own(*kind, record)) else { return Ok(true) };
    let Some(resource) = resource(kind) else { return Ok(true) };
    let is_in_a_namespace = KINDS.get(kind).is_some_and(|kind| kind.namespaced);
    let namespace = if is_in_a_namespace { record.namespace.as_str() } else { "" };
    let found = of(client, &resource, namespace).get_opt(&owner.name).await?;
    Ok(found.is_some_and(|found| {
        let waits = found.metadata.deletion_timestamp.is_some()
            && found.finalizers().iter().any(|finalizer| finalizer == "foregroundDeletion");
        found.metadata.uid.as_deref() == Some(owner.uid.as_str()) && !waits
    }))
}

fn tell_misplaced(recorder: &Recorder, dependent: &Record, owner: &OwnerReference) {
    let Some(resource) = resource(dependent.kind) else { return };
    let about = ObjectReference {
        api_version: Some(resource.api_version),
        kind: Some(resource.kind),
        namespace: Some(dependent.namespace.clone()),
        name: Some(dependent.name.clone()),
        uid: Some(dependent.uid.clone()),
        ..ObjectReference::default()
    };
    let message = format!(
        "its owner {} {:?} of uid {} does not exist in namespace {:?}; an owner in another namespace is none",
        owner.kind, owner.name, owner.uid, dependent.namespace
    );
    recorder.warn(about, "OwnerRefInvalidNamespace", &message);
}

async fn disown(client: &Client, dependent: &Record, owner: &str) -> Result<(), kube::Error> {
    let Some(api) = api(client, dependent) else { return Ok(()) };
    let Some(found) = api.get_opt(&dependent.name).await? else { return Ok(()) };
    let rest: Vec<_> = found.owner_references().iter().filter(|held| held.uid != owner).collect();
    let patch = json!({"metadata": {
        "uid": dependent.uid, "resourceVersion": found.resource_version(), "ownerReferences": rest,
    }});
    api.patch(&dependent.name, &PatchParams::default(), &Patch::Merge(patch)).await.map(|_| ())
}

async fn release(client: &Client, record: &Record, finalizer: &str) -> Result<(), kube::Error> {
    let Some(api) = api(client, record) else { return Ok(()) };
    let Some(found) = api.get_opt(&record.name).await? else { return Ok(()) };
    let rest: Vec<_> = found.finalizers().iter().filter(|held| *held != finalizer).collect();
    let patch = json!({"metadata": {
        "uid": record.uid, "resourceVersion": found.resource_version(), "finalizers": rest,
    }});
    api.patch(&record.name, &PatchParams::default(), &Patch::Merge(patch)).await.map(|_| ())
}

/// Takes `kubernetes` from the finalizers in the Namespace's spec, the only one that is ours, if the API shows nothing in it.
///
/// Nothing enters a Namespace from the commit on that made it go, and these lists are as new as the newest commit.
async fn finalize(client: &Client, record: &Record) -> Result<(), kube::Error> {
    let namespaces: Api<Namespace> = Api::all(client.clone());
    let Some(mut found) = namespaces.get_opt(&record.name).await? else { return Ok(()) };
    if found.metadata.uid.as_deref() != Some(record.uid.as_str())
        || found.metadata.deletion_timestamp.is_none()
    {
        return Ok(());
    }
    for (number, _) in KINDS.iter().enumerate().filter(|(_, kind)| kind.namespaced) {
        let Some(resource) = resource(number) else { continue };
        let inside = of(client, &resource, &record.name).list(&ListParams::default().limit(1)).await?;
        if !inside.items.is_empty() {
            return Ok(());
        }
    }
    let finalizers = found.spec.get_or_insert_default().finalizers.get_or_insert_default();
    if !finalizers.iter().any(|held| held == "kubernetes") {
        return Ok(());
    }
    finalizers.retain(|held| held != "kubernetes");
    let body = serde_json::to_vec(&found).map_err(kube::Error::SerdeError)?;
    let request = http::Request::put(format!("/api/v1/namespaces/{}/finalize", record.name))
        .header(http::header::CONTENT_TYPE, "application/json")
        .body(body)
        .map_err(kube::Error::HttpError)?;
    client.request_text(request).await.map(|_| ())
}
