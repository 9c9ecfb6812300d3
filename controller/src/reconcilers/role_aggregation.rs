//! Keeps the rules of roles that gather others': whatever is written into them, and whatever roles come, change and go.

use std::sync::Arc;

use futures::StreamExt as _;
use k8s_openapi::api::rbac::v1::ClusterRole;
use kube::api::{Patch, PatchParams};
use kube::runtime::controller::Action;
use kube::runtime::reflector::{ObjectRef, Store, store::Writer};
use kube::{Api, ResourceExt as _};
use serde_json::json;
use tokio::sync::watch;
use tokio_stream::wrappers::WatchStream;
use tokio_util::sync::CancellationToken;

use super::Parts;
use super::machine::{Machine, ReconcileError};
use crate::auth::rbac::gathered;

struct Context {
    api: Api<ClusterRole>,
    roles: Store<ClusterRole>,
    /// Sent to whenever any role has changed.
    changed: watch::Sender<()>,
}

/// Runs until `stop`.
pub(super) async fn run(parts: &Parts, stop: CancellationToken) {
    let writer = Writer::<ClusterRole>::default();
    let (changed, changes) = watch::channel(());
    let context =
        Arc::new(Context { api: Api::all(parts.client.clone()), roles: writer.as_reader(), changed });
    let roles = writer.as_reader();
    let wakes = WatchStream::new(changes).flat_map(move |()| {
        let gatherers = roles.state().into_iter().filter(|role| role.aggregation_rule.is_some());
        futures::stream::iter(gatherers.map(|role| ObjectRef::from_obj(&*role)).collect::<Vec<_>>())
    });
    let machine = Machine {
        kind: "ClusterRole",
        client: parts.client.clone(),
        writer,
        concurrency: 1,
        metrics: parts.metrics.clone(),
    };
    let notice = |context: &Context, _: super::machine::Notice<'_, ClusterRole>| {
        context.changed.send_replace(());
    };
    machine.run(context, wakes, notice, reconcile, stop).await;
}

async fn reconcile(role: Arc<ClusterRole>, context: Arc<Context>) -> Result<Action, ReconcileError> {
    if role.aggregation_rule.is_none() {
        return Ok(Action::await_change());
    }
    let all: Vec<ClusterRole> = context.roles.state().iter().map(|role| ClusterRole::clone(role)).collect();
    let rules = gathered(&role, &all);
    if role.rules.as_ref() != Some(&rules) {
        let version = role.resource_version();
        let patch = json!({"metadata": {"resourceVersion": version}, "rules": rules});
        context.api.patch(&role.name_any(), &PatchParams::default(), &Patch::Merge(patch)).await?;
    }
    Ok(Action::await_change())
}
