//! What the registry of a pull is shown: the Secret the Operation names, else that of the namespace's Registry for its server, else
//! nothing, and then the host uses its own.
//!
//! Everything is looked for in the Operation's namespace alone, and asked of the API anew, so that a changed Secret counts at once.

use gantry_api::agent_v1::RegistryAuth;
use gantry_api::docker_config::{canonical, server_of};
use gantry_api::v1alpha1::{Action, Operation, PullCredentials, Registry, RegistryReference};
use k8s_openapi::api::core::v1::Secret;
use kube::api::{Api, ListParams};
use kube::core::DeserializeGuard;
use kube::{Resource as _, ResourceExt as _};

use super::Context;
use crate::reconcilers::machine::ReconcileError;
use crate::reconcilers::registry::secret::{self, Binding};

/// What a pull is dispatched with.
pub(super) struct Resolved {
    pub(super) auth: RegistryAuth,
    pub(super) used: PullCredentials,
}

/// What this attempt is to be made with; the text says why it cannot be made.
pub(super) async fn resolve(
    operation: &Operation,
    context: &Context,
) -> Result<Result<Option<Resolved>, String>, ReconcileError> {
    let spec = &operation.spec;
    if spec.action != Action::Pull {
        return Ok(Ok(None));
    }
    let server = server_of(&spec.target.name);
    let own = spec.parameters.as_ref().and_then(|parameters| parameters.pull_secret_ref.clone());
    let (registry_ref, secret_ref) = match own {
        Some(own) => (None, own),
        None => match registry_for(&server, operation, context).await? {
            None => return Ok(Ok(None)),
            Some(registry) => {
                let reference = RegistryReference { name: registry.name_any() };
                (Some(reference), registry.spec.secret_ref)
            }
        },
    };
    let used = PullCredentials { server, registry_ref, secret_ref, secret_version: String::new() };
    Ok(read(operation, used, context).await?.map(Some))
}

/// What an attempt that was dispatched before is submitted with once more: what the same Secret holds now.
pub(super) async fn again(
    operation: &Operation,
    context: &Context,
) -> Result<Result<Option<RegistryAuth>, String>, ReconcileError> {
    match operation.status.as_ref().and_then(|status| status.pull_credentials.clone()) {
        None => Ok(Ok(None)),
        Some(used) => Ok(read(operation, used, context).await?.map(|resolved| Some(resolved.auth))),
    }
}

async fn read(
    operation: &Operation,
    mut used: PullCredentials,
    context: &Context,
) -> Result<Result<Resolved, String>, ReconcileError> {
    let api: Api<Secret> =
        Api::namespaced(context.client.clone(), &operation.namespace().unwrap_or_default());
    let name = used.secret_ref.name.as_str();
    let found = api.get_opt(name).await?;
    let binding = if used.registry_ref.is_some() { Binding::Registry } else { Binding::Secret };
    Ok(match secret::login(name, found.as_ref(), &used.server, binding) {
        Ok(auth) => {
            used.secret_version = found.as_ref().and_then(Secret::resource_version).unwrap_or_default();
            Ok(Resolved { auth, used })
        }
        Err(problem) => Err(match &used.registry_ref {
            Some(registry) => format!("registry \"{}\": {problem}", registry.name),
            None => problem.to_string(),
        }),
    })
}

/// The Registry for a server; of several the oldest, and of those made at once the first by name.
async fn registry_for(
    server: &str,
    operation: &Operation,
    context: &Context,
) -> Result<Option<Registry>, ReconcileError> {
    let api: Api<DeserializeGuard<Registry>> =
        Api::namespaced(context.client.clone(), &operation.namespace().unwrap_or_default());
    let all = api.list(&ListParams::default()).await?.items;
    let matching = all.into_iter().filter_map(|registry| registry.0.ok()).filter(|registry| {
        canonical(&registry.spec.server) == server && registry.meta().deletion_timestamp.is_none()
    });
    Ok(matching.min_by_key(|registry| {
        let created = registry.meta().creation_timestamp.as_ref().map(|time| time.0);
        (created, registry.name_any())
    }))
}
