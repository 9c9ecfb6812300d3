//! Removes what the graph named, after asking the API whether it is still so.

use k8s_openapi::api::core::v1::Namespace;
use kube::api::{
    Api, ApiResource, DeleteParams, DynamicObject, ListParams, Patch, PatchParams, Preconditions,
    PropagationPolicy,
};
use kube::{Client, ResourceExt as _};
use serde_json::json;

use super::graph::{Record, Removal};
use super::{KINDS, kind_of, resource};

pub(super) async fn act(client: &Client, removal: &Removal) -> Result<(), kube::Error> {
    let done = match removal {
        Removal::Delete(record) => delete(client, record, PropagationPolicy::Background).await,
        Removal::DeleteOwnerless(record, waits) => {
            if has_owner(client, record).await? {
                Ok(())
            } else if *waits {
                delete(client, record, PropagationPolicy::Foreground).await
            } else {
                delete(client, record, PropagationPolicy::Background).await
            }
        }
        Removal::Disown { dependent, owner } => disown(client, dependent, owner).await,
        Removal::Release { record, finalizer } => release(client, record, finalizer).await,
        Removal::Finalize(record) => finalize(client, record).await,
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

async fn delete(client: &Client, record: &Record, policy: PropagationPolicy) -> Result<(), kube::Error> {
    let Some(api) = api(client, record) else { return Ok(()) };
    let exactly = DeleteParams {
        preconditions: Some(Preconditions { uid: Some(record.uid.clone()), resource_version: None }),
        propagation_policy: Some(policy),
        ..DeleteParams::default()
    };
    api.delete(&record.name, &exactly).await.map(|_| ())
}

/// True if an owner lives that does not itself wait for this one to go; owners of kinds we do not serve are believed to.
async fn has_owner(client: &Client, record: &Record) -> Result<bool, kube::Error> {
    for owner in &record.owners {
        let Some(resource) = kind_of(owner).and_then(resource) else { return Ok(true) };
        let namespace = if resource.kind == "Namespace" { "" } else { record.namespace.as_str() };
        let found = of(client, &resource, namespace).get_opt(&owner.name).await?;
        let lives = found.is_some_and(|found| {
            let waits = found.metadata.deletion_timestamp.is_some()
                && found.finalizers().iter().any(|finalizer| finalizer == "foregroundDeletion");
            found.metadata.uid.as_deref() == Some(owner.uid.as_str()) && !waits
        });
        if lives {
            return Ok(true);
        }
    }
    Ok(false)
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
    for kind in 0..KINDS.len() {
        let Some(resource) = resource(kind).filter(|resource| resource.kind != "Namespace") else { continue };
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
