//! Does what was planned; every durable write comes before the effect it allows.

use std::sync::Arc;

use gantry_api::agent_v1::{OperationReport, OperationState, RegistryAuth};
use gantry_api::condition::OperationReason as Reason;
use gantry_api::names::OPERATION_FINALIZER;
use gantry_api::v1alpha1::{Operation, PullCredentials};
use kube::ResourceExt as _;
use kube::api::{Api, DeleteParams, Patch, PatchParams, Preconditions};
use serde_json::json;
use uuid::Uuid;

use super::observe::{permit, too_many_calls};
use super::plan::{Observed, Step, is_over};
use super::{Context, credentials, report, wire};
use crate::gateway::link::{InstanceUid, LinkError};
use crate::reconcilers::machine::ReconcileError;

/// What came of it.
#[derive(Debug)]
pub(super) enum Outcome {
    /// Nothing had to be asked.
    Nothing,
    /// The agent's word.
    Answered(Box<OperationReport>),
    /// No word, or a refusal.
    NotAnswered(LinkError),
    /// Enough others are with the agent; it is woken when its turn comes.
    NoSlot,
    /// The credentials for its registry are not to be had; why.
    NoCredentials(String),
    /// The host's policy refuses it or its agent cannot do it, and has promised never to start it.
    Denied(Reason, String),
    /// The agent has said something that is to be recorded before it may forget.
    Unrecorded,
    /// Cleaned up; look again when its time to be deleted comes.
    Settled,
    /// Its agent is still owed an answer.
    StillOwed,
}

/// The Operation as it is after our writes, and what came of the step.
#[derive(Debug)]
pub(super) struct Acted {
    pub(super) operation: Arc<Operation>,
    pub(super) outcome: Outcome,
}

pub(super) async fn act(
    operation: &Arc<Operation>,
    uid: Uuid,
    step: &Step,
    observed: &Observed,
    context: &Context,
) -> Result<Acted, ReconcileError> {
    let unchanged = |outcome| Acted { operation: operation.clone(), outcome };
    match step {
        Step::Look(_)
        | Step::Remember
        | Step::Wait { .. }
        | Step::Follow { .. }
        | Step::End(_)
        | Step::BackOff { .. } => Ok(unchanged(Outcome::Nothing)),
        Step::Dispatch { instance, .. } => {
            let resolved = match credentials::resolve(operation, context).await? {
                Ok(resolved) => resolved,
                Err(problem) => return Ok(unchanged(Outcome::NoCredentials(problem))),
            };
            let (auth, used) = resolved.map(|resolved| (resolved.auth, resolved.used)).unzip();
            if !context.roster.lock().reserve(uid) {
                return Ok(unchanged(Outcome::NoSlot));
            }
            let dispatched = match dispatch(operation, uid, step, used, context).await {
                Ok(dispatched) => Arc::new(dispatched),
                Err(error) => {
                    let freed = context.roster.lock().release(uid);
                    context.wake(freed);
                    return Err(error);
                }
            };
            let outcome = submit(&dispatched, uid, *instance, auth, context).await;
            Ok(Acted { operation: dispatched, outcome })
        }
        Step::Submit(instance) => match credentials::again(operation, context).await? {
            Ok(auth) => Ok(unchanged(submit(operation, uid, *instance, auth, context).await)),
            Err(problem) => Ok(unchanged(Outcome::NoCredentials(problem))),
        },
        Step::Withdraw(instance) => Ok(unchanged(withdraw(uid, *instance, context).await)),
        Step::Settle => settle(operation, uid, observed, context).await,
    }
}

/// Commits the finalizer, then the dispatch, each against the version that was planned from.
async fn dispatch(
    operation: &Operation,
    uid: Uuid,
    step: &Step,
    used: Option<PullCredentials>,
    context: &Context,
) -> Result<Operation, ReconcileError> {
    let held = if operation.finalizers().iter().any(|held| held == OPERATION_FINALIZER) {
        operation.clone()
    } else {
        let mut finalizers = operation.finalizers().to_vec();
        finalizers.push(OPERATION_FINALIZER.to_owned());
        patch_finalizers(operation, uid, &finalizers, context).await?
    };
    let status = report::dispatched(&held, step, used, context.token, context.now(uid));
    report::write(&held, uid, &status, context).await
}

async fn patch_finalizers(
    operation: &Operation,
    uid: Uuid,
    finalizers: &[String],
    context: &Context,
) -> Result<Operation, ReconcileError> {
    let api: Api<Operation> =
        Api::namespaced(context.client.clone(), &operation.namespace().unwrap_or_default());
    let patch = json!({"metadata": {
        "uid": operation.uid(), "resourceVersion": operation.resource_version(),
        "finalizers": if finalizers.is_empty() { None } else { Some(finalizers) },
    }});
    let patched = api.patch(&operation.name_any(), &PatchParams::default(), &Patch::Merge(patch)).await?;
    context.memory.lock().written.insert(uid, super::version(&patched));
    Ok(patched)
}

async fn submit(
    operation: &Operation,
    uid: Uuid,
    instance: InstanceUid,
    auth: Option<RegistryAuth>,
    context: &Context,
) -> Outcome {
    let Some(request) = wire::request(operation, auth, context.token, context.now(uid)) else {
        return Outcome::Nothing;
    };
    let Some(_permit) = permit(instance, context) else {
        return Outcome::NotAnswered(too_many_calls());
    };
    match context.link.submit(instance, request).await {
        Ok(report) => answered(uid, report, context),
        Err(LinkError::Refused { code, message })
            if matches!(code, tonic::Code::PermissionDenied | tonic::Code::InvalidArgument) =>
        {
            let reason = match code {
                tonic::Code::PermissionDenied => Reason::PolicyDenied,
                _ => Reason::ActionNotAllowed,
            };
            // An earlier submission may have passed before the policy changed: only a withdrawal proves that it did not.
            match context.link.withdraw(instance, context.token, uid).await {
                Ok(report) if is_withdrawn(&report) => Outcome::Denied(reason, message),
                Ok(report) => answered(uid, report, context),
                Err(error) => Outcome::NotAnswered(error),
            }
        }
        Err(error) => {
            if matches!(&error, LinkError::Refused { code: tonic::Code::AlreadyExists, .. }) {
                context.metrics.digest_conflicts.inc();
            }
            Outcome::NotAnswered(error)
        }
    }
}

fn is_withdrawn(report: &OperationReport) -> bool {
    use gantry_api::agent_v1::Outcome;
    report.state() == OperationState::Withdrawn
        || (report.state() == OperationState::Tombstone && report.outcome() == Outcome::Withdrawn)
}

async fn withdraw(uid: Uuid, instance: InstanceUid, context: &Context) -> Outcome {
    let Some(_permit) = permit(instance, context) else {
        return Outcome::NotAnswered(too_many_calls());
    };
    match context.link.withdraw(instance, context.token, uid).await {
        Ok(report) => answered(uid, report, context),
        Err(error) => Outcome::NotAnswered(error),
    }
}

fn answered(uid: Uuid, report: OperationReport, context: &Context) -> Outcome {
    context.memory.lock().answers.insert(uid, report.clone());
    Outcome::Answered(Box::new(report))
}

/// After the end is committed: the agent may forget, the object may go, and in time it is deleted.
async fn settle(
    operation: &Arc<Operation>,
    uid: Uuid,
    observed: &Observed,
    context: &Context,
) -> Result<Acted, ReconcileError> {
    if report::has_late_news(operation, observed) {
        // Recorded first: what the agent has forgotten cannot be asked again.
        return Ok(Acted { operation: operation.clone(), outcome: Outcome::Unrecorded });
    }
    context.memory.lock().answers.remove(&uid);
    let is_released = is_released(operation, uid, observed, context).await;
    if operation.finalizers().iter().any(|held| held == OPERATION_FINALIZER) {
        if !is_released {
            return Ok(Acted { operation: operation.clone(), outcome: Outcome::StillOwed });
        }
        let rest: Vec<String> =
            operation.finalizers().iter().filter(|held| *held != OPERATION_FINALIZER).cloned().collect();
        let released = patch_finalizers(operation, uid, &rest, context).await?;
        return Ok(Acted { operation: Arc::new(released), outcome: Outcome::Settled });
    }
    if report::time_to_live(operation, context.now(uid)).is_some_and(|left| left.is_zero())
        && operation.metadata.deletion_timestamp.is_none()
    {
        let api: Api<Operation> =
            Api::namespaced(context.client.clone(), &operation.namespace().unwrap_or_default());
        let exactly = DeleteParams {
            preconditions: Some(Preconditions { uid: operation.uid(), resource_version: None }),
            ..DeleteParams::default()
        };
        api.delete(&operation.name_any(), &exactly).await?;
    }
    Ok(Acted { operation: operation.clone(), outcome: Outcome::Settled })
}

/// True once the agent said how it ended or that it never will start it, and has forgotten it.
///
/// One that is away is not waited for: when it is back, Resume withdraws whatever is not permitted to start.
async fn is_released(operation: &Operation, uid: Uuid, observed: &Observed, context: &Context) -> bool {
    let Some(dispatch) = operation.status.as_ref().and_then(|status| status.dispatch.as_ref()) else {
        return true;
    };
    let Some(instance) = &observed.instance else {
        return true;
    };
    if !dispatch.instance_uid.is_empty() && dispatch.instance_uid != instance.uid.to_string() {
        return true;
    }
    if observed.session.is_none() {
        return true;
    }
    let is_held = operation.finalizers().iter().any(|held| held == OPERATION_FINALIZER);
    let has_ended = match &observed.report {
        None if !is_held => return true,
        Some(report) if is_over(report) => true,
        // Given up here, but the agent may still hold it.
        _ => match withdraw(uid, instance.uid, context).await {
            Outcome::Answered(report) => is_over(&report),
            _ => false,
        },
    };
    let version = operation.resource_version().and_then(|version| version.parse().ok()).unwrap_or_default();
    has_ended && context.link.forget(instance.uid, context.token, &[uid], version).await.is_ok()
}
