//! What an agent has done that no resource speaks of: it was deleted by force, or lost with a store that was set back.

use gantry_api::agent_v1::{OperationReport, OperationState};
use gantry_api::v1alpha1::DockerInstance;
use kube::Resource as _;
use uuid::Uuid;

use super::Context;
use crate::gateway::link::InstanceUid;

/// Results that wait to be told at one instance; its session brings the others when these were.
const MOST_WAITING: usize = 1_000;

/// Keeps a result for the next pass.
pub(super) fn note(context: &Context, instance: InstanceUid, report: OperationReport) {
    let Ok(operation) = report.uid.parse() else { return };
    let mut all = context.orphans.lock();
    let orphans = all.entry(instance).or_default();
    if orphans.len() < MOST_WAITING {
        orphans.insert(operation, report);
    }
}

/// Tells each result by an Event, and lets the agent forget it for good. One that cannot be forgotten now comes again.
pub(super) async fn tell(instance: &DockerInstance, uid: InstanceUid, context: &Context) {
    let Some(token) = *context.leadership.borrow() else { return };
    let Some(orphans) = context.orphans.lock().remove(&uid) else { return };
    // Those that were let go of since they were noted are told already.
    let orphans: Vec<(Uuid, OperationReport)> =
        orphans.into_iter().filter(|(operation, _)| context.link.report(uid, *operation).is_some()).collect();
    if orphans.is_empty() {
        return;
    }
    for (_, report) in &orphans {
        context.metrics.orphaned_results.inc();
        context.recorder.warn(instance.object_ref(&()), "OrphanedResult", &describe(report));
    }
    let operations: Vec<Uuid> = orphans.into_iter().map(|(operation, _)| operation).collect();
    if let Err(error) = context.link.forget(uid, token, &operations, 0).await {
        tracing::debug!(%error, "the agent does not forget what nobody knows");
    }
}

fn describe(report: &OperationReport) -> String {
    let uid = &report.uid;
    let outcome = report.outcome().as_str_name().trim_start_matches("OUTCOME_");
    if report.state() == OperationState::Tombstone {
        return format!(
            "the host ended operation {uid} as {outcome}, which was recorded and is lost with the database's last state; \
             the host keeps no more of it"
        );
    }
    let target = report.before.as_ref().or(report.after.as_ref()).map_or("", |target| target.name.as_str());
    let detail = if report.error.is_empty() { &report.message } else { &report.error };
    format!(
        "the host ended operation {uid} on \"{target}\" as {outcome}, and its resource does not exist any more: {detail}"
    )
}
