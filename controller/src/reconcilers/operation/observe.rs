//! Facts for the plan. An agent that does not answer is a fact too.

use gantry_api::condition::InstanceCondition;
use gantry_api::v1alpha1::{DockerInstance, Operation, find_condition};
use kube::runtime::reflector::ObjectRef;
use kube::{Api, ResourceExt as _};
use tokio::sync::OwnedSemaphorePermit;
use uuid::Uuid;

use super::plan::{InstanceFacts, Observed, is_over};
use super::roster::Neighbours;
use super::{CALLS_PER_AGENT, Context, MOST_REMEMBERED, wire};
use crate::gateway::link::{InstanceUid, LinkError};
use crate::gateway::reports::order;
use crate::reconcilers::machine::ReconcileError;

/// Looks at everything near; asks no agent. Fails only where the instance cannot be read.
pub(super) async fn observe(
    operation: &Operation,
    uid: Uuid,
    context: &Context,
) -> Result<Observed, ReconcileError> {
    let instance = instance(operation, context).await?;
    let session = instance.as_ref().and_then(|instance| context.link.session(instance.uid));
    let report = newest_report(operation, uid, instance.as_ref(), context);
    let status = operation.status.clone().unwrap_or_default();
    let target_id = status.target.as_ref().map(|target| target.id.as_str()).filter(|id| !id.is_empty());
    let mut observed = Observed {
        session,
        report,
        neighbours: Neighbours::default(),
        found: None,
        remembered: None,
        digest: wire::digest(operation, &status),
        instance,
    };
    if !status.phase.is_final() && (status.dispatch.is_none() || status.next_attempt_time.is_some()) {
        observed.neighbours = context.roster.lock().neighbours(operation, uid, target_id);
    }
    Ok(observed)
}

/// Asks the agent what a name or id means now.
pub(super) async fn look(
    operation: &Operation,
    uid: Uuid,
    reference: &str,
    observed: &mut Observed,
    context: &Context,
) {
    let Some(instance) = observed.instance.as_ref().map(|instance| instance.uid) else {
        return;
    };
    let found = match permit(instance, context) {
        Some(_permit) => {
            context.link.resolve(instance, wire::kind(operation.spec.target.kind), reference).await
        }
        None => Err(too_many_calls()),
    };
    let id = found.as_ref().ok().map(|target| target.id.clone());
    observed.found = Some(found);
    if let Some(id) = id {
        observed.neighbours = context.roster.lock().neighbours(operation, uid, Some(&id));
    }
}

/// Asks the agent what it remembers of an Operation whose report it did not send.
pub(super) async fn remember(uid: Uuid, observed: &mut Observed, context: &Context) {
    let Some(instance) = observed.instance.as_ref().map(|instance| instance.uid) else {
        return;
    };
    let remembered = match permit(instance, context) {
        Some(_permit) => context.link.query(instance, uid).await,
        None => Err(too_many_calls()),
    };
    observed.remembers(remembered);
}

/// What is said while enough calls wait for one agent.
pub(super) fn too_many_calls() -> LinkError {
    LinkError::Silent("too many calls wait for its agent".to_owned())
}

/// Leave to call an agent; `None` while too many calls wait for it.
pub(super) fn permit(instance: InstanceUid, context: &Context) -> Option<OwnedSemaphorePermit> {
    let mut memory = context.memory.lock();
    if memory.calls.len() >= MOST_REMEMBERED {
        memory.calls.retain(|_, calls| calls.available_permits() < CALLS_PER_AGENT);
    }
    let calls = memory
        .calls
        .entry(instance)
        .or_insert_with(|| std::sync::Arc::new(tokio::sync::Semaphore::new(CALLS_PER_AGENT)))
        .clone();
    drop(memory);
    calls.try_acquire_owned().ok()
}

/// The instance, asked of the API itself where our copy has none: absence ends Operations. One that cannot be read is no absence.
async fn instance(operation: &Operation, context: &Context) -> Result<Option<InstanceFacts>, ReconcileError> {
    let namespace = operation.namespace().unwrap_or_default();
    let name = &operation.spec.instance_ref.name;
    if let Some(known) = context.instances.get(&ObjectRef::new(name).within(&namespace)) {
        return Ok(facts(&known));
    }
    let api: Api<DockerInstance> = Api::namespaced(context.client.clone(), &namespace);
    Ok(api.get_opt(name).await?.as_ref().and_then(facts))
}

fn facts(instance: &DockerInstance) -> Option<InstanceFacts> {
    let status = instance.status.clone().unwrap_or_default();
    let unreachable = find_condition(&status.conditions, InstanceCondition::EngineReachable.as_str())
        .is_some_and(|condition| condition.status == "False");
    Some(InstanceFacts {
        uid: InstanceUid(instance.metadata.uid.as_deref()?.parse().ok()?),
        is_archived: instance.spec.archived,
        is_paused: instance.spec.paused,
        is_engine_unreachable: unreachable,
        health: status.health,
    })
}

/// The newer of what the agent reported and what it answered us in the present session; while it is away only how it ended.
fn newest_report(
    operation: &Operation,
    uid: Uuid,
    instance: Option<&InstanceFacts>,
    context: &Context,
) -> Option<gantry_api::agent_v1::OperationReport> {
    let instance = instance?;
    let sent_to = operation.status.as_ref()?.dispatch.as_ref().map(|dispatch| dispatch.instance_uid.clone());
    if sent_to.is_some_and(|sent_to| !sent_to.is_empty() && sent_to != instance.uid.to_string()) {
        return None;
    }
    let answered = context.memory.lock().answers.get(&uid).cloned();
    let Some(session) = context.link.session(instance.uid) else {
        return answered.filter(is_over);
    };
    let reported = context.link.report(instance.uid, uid);
    match (reported, answered.filter(|answered| answered.journal_id == session.journal_id)) {
        (Some(reported), Some(answered)) if order(&answered) > order(&reported) => Some(answered),
        (reported, answered) => reported.or(answered),
    }
}
