//! Facts for the plan.

use gantry_api::docker_config::canonical;
use gantry_api::v1alpha1::Registry;
use k8s_openapi::api::core::v1::Secret;
use kube::ResourceExt as _;
use kube::api::Api;

use super::Context;
use super::plan::Observed;
use super::secret::{self, Binding};
use crate::reconcilers::machine::ReconcileError;

/// Looks at the Secret and at what pulls have told. Fails only where the API does not answer.
pub(super) async fn observe(registry: &Registry, context: &Context) -> Result<Observed, ReconcileError> {
    let namespace = registry.namespace().unwrap_or_default();
    let name = &registry.spec.secret_ref.name;
    let api: Api<Secret> = Api::namespaced(context.client.clone(), &namespace);
    let found = api.get_opt(name).await?;
    let login = secret::login(name, found.as_ref(), &canonical(&registry.spec.server), Binding::Registry);
    let secret = login.map(|_| found.and_then(|found| found.resource_version()).unwrap_or_default());
    let results = context.results.lock().get(&(namespace, registry.name_any())).cloned().unwrap_or_default();
    Ok(Observed { secret, results })
}
