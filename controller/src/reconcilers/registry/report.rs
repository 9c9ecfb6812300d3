//! Writes a Registry's status, if it changed.

use gantry_api::v1alpha1::{Registry, RegistryStatus};
use kube::ResourceExt as _;
use kube::api::{Api, Patch, PatchParams};
use serde_json::json;

use super::Context;
use crate::reconcilers::conditions::difference;
use crate::reconcilers::machine::ReconcileError;

pub(super) async fn report(
    registry: &Registry,
    after: &RegistryStatus,
    context: &Context,
) -> Result<(), ReconcileError> {
    let before = serde_json::to_value(registry.status.clone().unwrap_or_default()).unwrap_or_default();
    let Some(changes) = difference(&before, &serde_json::to_value(after).unwrap_or_default()) else {
        return Ok(());
    };
    let api: Api<Registry> =
        Api::namespaced(context.client.clone(), &registry.namespace().unwrap_or_default());
    // Against the version that was planned from, and never another object of this name.
    let metadata = json!({"uid": registry.uid(), "resourceVersion": registry.resource_version()});
    let patch = json!({"metadata": metadata, "status": changes});
    api.patch_status(&registry.name_any(), &PatchParams::default(), &Patch::Merge(patch)).await?;
    Ok(())
}
