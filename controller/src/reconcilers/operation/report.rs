//! Writes status: once a pass, only what changed, against the version that was planned from.

use std::time::Duration;

use gantry_api::agent_v1::{OperationReport, OperationState, Outcome as Ended, Token};
use gantry_api::condition::{OperationCondition as Condition, OperationReason as Reason};
use gantry_api::v1alpha1::{Dispatch, Operation, OperationError, OperationStatus, Phase, PullCredentials};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::ResourceExt as _;
use kube::api::{Api, Patch, PatchParams};
use kube::runtime::controller::Action;
use serde_json::json;
use tokio::time::Instant;
use uuid::Uuid;

use super::act::{Acted, Outcome};
use super::plan::{Ending, Observed, Step, until_deadline};
use super::roster::SLOTS;
use super::{Context, reference, wire};
use crate::gateway::link::LinkError;
use crate::gateway::reports;
use crate::reconcilers::conditions::{Conditions, difference};
use crate::reconcilers::machine::ReconcileError;

/// At most one write of progress in this time.
const PROGRESS_PACE: Duration = Duration::from_secs(1);
const SLOW: Duration = Duration::from_secs(30);
const AGAIN: Duration = Duration::from_secs(2);
/// How soon a Secret that was missing is looked for again.
const MENDED: Duration = Duration::from_secs(5);

/// Records what came of a pass and says when the next is due.
pub(super) async fn report(
    uid: Uuid,
    step: &Step,
    observed: &Observed,
    acted: Acted,
    context: &Context,
) -> Result<Action, ReconcileError> {
    let now = context.now(uid);
    let operation = acted.operation;
    let before = operation.status.clone().unwrap_or_default();
    let after = status_after(&operation, step, observed, &acted.outcome, now);
    if let Some(pause) = too_soon(&before, &after, uid, context) {
        return Ok(Action::requeue(pause));
    }
    if before != after {
        write(&operation, uid, &after, context).await?;
        announce(&operation, &before, &after, context);
        if after.phase.is_final() && !before.phase.is_final() {
            count(&operation, &after, context);
        }
    }
    if after.phase.is_final() && !before.phase.is_final() {
        context.memory.lock().progress.remove(&uid);
    }
    Ok(next(&operation, step, &acted.outcome, now))
}

fn next(operation: &Operation, step: &Step, outcome: &Outcome, now: Timestamp) -> Action {
    match (step, outcome) {
        (_, Outcome::Answered(_) | Outcome::Unrecorded) => Action::requeue(Duration::ZERO),
        (_, Outcome::NoSlot) => Action::requeue(until_deadline(operation, now)),
        (_, Outcome::NoCredentials(_)) => {
            Action::requeue(until_deadline(operation, now).clamp(Duration::from_secs(1), MENDED))
        }
        (_, Outcome::StillOwed) => Action::requeue(SLOW),
        (_, Outcome::Settled) => match time_to_live(operation, now) {
            Some(left) if left > Duration::ZERO => Action::requeue(left.min(Duration::from_hours(1))),
            _ => Action::requeue(SLOW),
        },
        (_, Outcome::NotAnswered(_)) => Action::requeue(AGAIN),
        (Step::Wait { again, .. } | Step::Follow { again }, _) => Action::requeue(*again),
        (Step::BackOff { until }, _) => {
            Action::requeue(Duration::try_from(until.duration_since(now)).unwrap_or_default())
        }
        (Step::End(_), _) => Action::requeue(Duration::from_millis(100)),
        _ => Action::requeue(AGAIN),
    }
}

/// Time left until an ended Operation is deleted; `None` if it has not ended.
pub(super) fn time_to_live(operation: &Operation, now: Timestamp) -> Option<Duration> {
    let ended = operation.status.as_ref()?.completion_time.as_ref()?.0;
    let dies = ended
        .checked_add(SignedDuration::from_secs(operation.spec.ttl_seconds_after_finished.into()))
        .ok()?;
    Some(Duration::try_from(dies.duration_since(now)).unwrap_or_default())
}

/// Progress alone may wait; anything else is written at once.
fn too_soon(
    before: &OperationStatus,
    after: &OperationStatus,
    uid: Uuid,
    context: &Context,
) -> Option<Duration> {
    if before.progress == after.progress || after.phase.is_final() || before.phase != after.phase {
        return None;
    }
    let mut memory = context.memory.lock();
    let now = Instant::now();
    if let Some(last) = memory.progress.get(&uid)
        && let Some(left) =
            PROGRESS_PACE.checked_sub(now.duration_since(*last)).filter(|left| !left.is_zero())
    {
        return Some(left);
    }
    memory.progress.insert(uid, now);
    None
}

/// Stores a status against the version it was made from.
pub(super) async fn write(
    operation: &Operation,
    uid: Uuid,
    status: &OperationStatus,
    context: &Context,
) -> Result<Operation, ReconcileError> {
    let before = serde_json::to_value(operation.status.clone()).unwrap_or_default();
    let after = serde_json::to_value(status).unwrap_or_default();
    let before = if before.is_null() { json!({}) } else { before };
    let Some(changes) = difference(&before, &after) else {
        return Ok(operation.clone());
    };
    let api: Api<Operation> =
        Api::namespaced(context.client.clone(), &operation.namespace().unwrap_or_default());
    let patch = json!({
        "metadata": {"uid": operation.uid(), "resourceVersion": operation.resource_version()},
        "status": changes,
    });
    let written =
        api.patch_status(&operation.name_any(), &PatchParams::default(), &Patch::Merge(patch)).await?;
    context.memory.lock().written.insert(uid, super::version(&written));
    Ok(written)
}

/// The status that records a dispatch, made before anything is sent.
pub(super) fn dispatched(
    operation: &Operation,
    step: &Step,
    used: Option<PullCredentials>,
    token: Token,
    now: Timestamp,
) -> OperationStatus {
    let mut status = operation.status.clone().unwrap_or_default();
    let Step::Dispatch { attempt, target, journal_id, instance } = step else {
        return status;
    };
    status.observed_generation = operation.metadata.generation;
    status.phase = Phase::Pending;
    status.attempts = *attempt;
    status.next_attempt_time = None;
    status.pull_credentials = used;
    status.target.get_or_insert_with(|| wire::snapshot(target));
    status.dispatch = Some(Dispatch {
        incarnation: token.incarnation,
        epoch: token.epoch,
        attempt: *attempt,
        journal_id: journal_id.clone(),
        journal_sequence: None,
        instance_uid: instance.to_string(),
        sent_at: Some(Time(now)),
    });
    status.message = Some("submitted, not yet acknowledged".to_owned());
    let mut conditions = conditions(operation, &mut status.conditions, now);
    conditions.set(Condition::Accepted.as_str(), true, Reason::AsExpected.as_str(), "");
    conditions.set(
        Condition::Dispatched.as_str(),
        false,
        Reason::Submitting.as_str(),
        "submitted, not yet acknowledged",
    );
    conditions.set(Condition::Complete.as_str(), false, Reason::InProgress.as_str(), "");
    status
}

fn conditions<'a>(
    operation: &Operation,
    list: &'a mut Vec<k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition>,
    now: Timestamp,
) -> Conditions<'a> {
    Conditions { list, generation: operation.metadata.generation, now }
}

/// The status after a pass.
pub(super) fn status_after(
    operation: &Operation,
    step: &Step,
    observed: &Observed,
    outcome: &Outcome,
    now: Timestamp,
) -> OperationStatus {
    let mut status = operation.status.clone().unwrap_or_default();
    if status.phase.is_final() {
        note_late_report(&mut status, observed);
        return status;
    }
    status.observed_generation = operation.metadata.generation;
    if let Some(report) = &observed.report
        && matches!(step, Step::End(_) | Step::BackOff { .. } | Step::Follow { .. })
    {
        take_facts(&mut status, report);
    }
    match (step, outcome) {
        (_, Outcome::NoSlot) => {
            if let Step::Dispatch { target, .. } = step {
                status.target.get_or_insert_with(|| wire::snapshot(target));
            }
            let message = format!("{SLOTS} operations run on this instance already");
            waiting(operation, &mut status, Reason::WaitingForSlot, &message, now);
        }
        (_, Outcome::NoCredentials(why)) => {
            waiting(operation, &mut status, Reason::CredentialsUnavailable, why, now);
        }
        (_, Outcome::Denied(reason, why)) => {
            let ending = Ending { phase: Phase::Failed, reason: *reason, message: why.clone() };
            end(operation, &mut status, &ending, now);
        }
        (_, Outcome::Answered(report)) => {
            if matches!(report.state(), OperationState::Accepted | OperationState::Started) {
                running(operation, &mut status, report, now);
            }
        }
        (_, Outcome::NotAnswered(error)) => not_answered(operation, &mut status, error, now),
        (Step::Wait { reason, message, .. }, _) => {
            if let (Some(Ok(found)), None) = (&observed.found, &status.target)
                && status.dispatch.is_none()
            {
                status.target = Some(wire::snapshot(found));
            }
            waiting(operation, &mut status, *reason, message, now);
        }
        (Step::End(ending), _) => end(operation, &mut status, ending, now),
        (Step::BackOff { until }, _) => back_off(operation, &mut status, observed, *until, now),
        (Step::Follow { .. }, _) => {
            if let Some(report) = &observed.report {
                running(operation, &mut status, report, now);
            }
        }
        _ => {}
    }
    status
}

fn take_facts(status: &mut OperationStatus, report: &OperationReport) {
    let time = |milliseconds: i64| {
        (milliseconds != 0).then(|| Timestamp::from_millisecond(milliseconds).ok()).flatten().map(Time)
    };
    status.attempts = status.attempts.max(report.attempt);
    if let Some(dispatch) = &mut status.dispatch {
        dispatch.journal_id.clone_from(&report.journal_id);
        dispatch.journal_sequence = Some(report.journal_sequence);
    }
    if let Some(before) = &report.before {
        status.before = Some(wire::snapshot(before));
    }
    if let Some(after) = &report.after {
        status.after = Some(wire::snapshot(after));
    }
    if let Some(started) = time(report.started_at_ms) {
        status.start_time = Some(started);
    }
    if let Some(pull) = &report.pull {
        status.progress = Some(reports::progress(pull));
    }
    if report.error.is_empty() {
        if report.state() == OperationState::Finished {
            status.error = None;
        }
    } else {
        status.error = Some(OperationError {
            message: crate::reconcilers::conditions::shorten(&report.error, 8192),
            docker_status: (report.docker_status != 0).then_some(report.docker_status),
        });
    }
}

/// S2 and S3: the agent has it.
fn running(operation: &Operation, status: &mut OperationStatus, report: &OperationReport, now: Timestamp) {
    take_facts(status, report);
    status.phase = Phase::Running;
    let message = match &status.progress {
        Some(progress) => format!("Downloading {}/{} layers", progress.layers_done, progress.layers_total),
        None if report.state() == OperationState::Accepted => {
            "the agent has it, it has not started".to_owned()
        }
        None if !report.message.is_empty() => report.message.clone(),
        None if operation.spec.cancel => {
            "it had started and cannot be stopped: waiting for its end".to_owned()
        }
        None => "the host is at work".to_owned(),
    };
    status.message = Some(message.clone());
    let mut conditions = conditions(operation, &mut status.conditions, now);
    conditions.set(Condition::Accepted.as_str(), true, Reason::AsExpected.as_str(), "");
    conditions.set(Condition::Dispatched.as_str(), true, Reason::AsExpected.as_str(), "");
    conditions.set(Condition::Progressing.as_str(), true, Reason::InProgress.as_str(), &message);
    conditions.set(Condition::Complete.as_str(), false, Reason::InProgress.as_str(), "");
}

/// S0, or S1 and later without word from the agent.
fn waiting(
    operation: &Operation,
    status: &mut OperationStatus,
    reason: Reason,
    message: &str,
    now: Timestamp,
) {
    status.message = Some(message.to_owned());
    let is_running = status.phase == Phase::Running;
    let mut conditions = conditions(operation, &mut status.conditions, now);
    conditions.set(Condition::Accepted.as_str(), true, Reason::AsExpected.as_str(), "");
    if is_running {
        conditions.set(Condition::Progressing.as_str(), false, Reason::Stalled.as_str(), message);
    } else {
        conditions.set(Condition::Dispatched.as_str(), false, reason.as_str(), message);
    }
    conditions.set(Condition::Complete.as_str(), false, Reason::InProgress.as_str(), "");
}

fn not_answered(operation: &Operation, status: &mut OperationStatus, error: &LinkError, now: Timestamp) {
    match error {
        LinkError::Refused { code: tonic::Code::AlreadyExists, message } => {
            let ending = Ending {
                phase: Phase::Failed,
                reason: Reason::OutcomeUnknown,
                message: format!("the agent holds this Operation with other contents: {message}"),
            };
            end(operation, status, &ending, now);
        }
        LinkError::Refused { code: tonic::Code::DataLoss, message } => {
            waiting(operation, status, Reason::JournalUnavailable, message, now);
        }
        LinkError::Refused { code: tonic::Code::ResourceExhausted, message } => {
            waiting(operation, status, Reason::WaitingForSlot, message, now);
        }
        LinkError::Away => {
            waiting(
                operation,
                status,
                Reason::InstanceOffline,
                "the agent went away before it answered",
                now,
            );
        }
        LinkError::Silent(_) | LinkError::Refused { .. } => {
            waiting(operation, status, Reason::Submitting, &error.to_string(), now);
        }
    }
}

fn back_off(
    operation: &Operation,
    status: &mut OperationStatus,
    observed: &Observed,
    until: Timestamp,
    now: Timestamp,
) {
    let words = observed.report.as_ref().map(|report| report.error.clone()).unwrap_or_default();
    let message =
        format!("attempt {} failed and had no effect, next attempt at {until}: {words}", status.attempts);
    status.phase = Phase::Pending;
    status.next_attempt_time = Some(Time(until));
    status.message = Some(message.clone());
    let mut conditions = conditions(operation, &mut status.conditions, now);
    conditions.set(Condition::Dispatched.as_str(), false, Reason::BackOff.as_str(), &message);
    conditions.set(Condition::Progressing.as_str(), false, Reason::BackOff.as_str(), &message);
}

fn end(operation: &Operation, status: &mut OperationStatus, ending: &Ending, now: Timestamp) {
    let Ending { phase, reason, message } = ending;
    status.phase = *phase;
    status.message = Some(crate::reconcilers::conditions::shorten(message, 4096));
    status.result = Some(reason.as_str().to_owned());
    status.completion_time = Some(Time(now));
    status.next_attempt_time = None;
    if *phase != Phase::Failed {
        status.error = None;
    }
    let was_dispatched = status.dispatch.is_some();
    let word = reason.as_str();
    let mut conditions = conditions(operation, &mut status.conditions, now);
    let is_refused = matches!(
        reason,
        Reason::InstanceNotFound | Reason::InstanceArchived | Reason::ActionNotAllowed | Reason::PolicyDenied
    );
    if is_refused {
        conditions.set(Condition::Accepted.as_str(), false, word, message);
    } else {
        conditions.set(Condition::Accepted.as_str(), true, Reason::AsExpected.as_str(), "");
    }
    if !was_dispatched {
        conditions.set(Condition::Dispatched.as_str(), false, word, message);
    } else if *phase == Phase::Succeeded {
        conditions.set(Condition::Dispatched.as_str(), true, Reason::AsExpected.as_str(), "");
    }
    conditions.set(Condition::Progressing.as_str(), false, word, message);
    conditions.set(Condition::Complete.as_str(), *phase == Phase::Succeeded, word, message);
    if *phase == Phase::Failed {
        conditions.set(Condition::Failed.as_str(), true, word, message);
    }
}

/// True if the agent says something of an ended Operation that its status does not tell yet.
pub(super) fn has_late_news(operation: &Operation, observed: &Observed) -> bool {
    let before = operation.status.clone().unwrap_or_default();
    let mut after = before.clone();
    note_late_report(&mut after, observed);
    before != after
}

/// A final phase never changes: what the agent says otherwise is kept beside it.
fn note_late_report(status: &mut OperationStatus, observed: &Observed) {
    let Some(report) = &observed.report else { return };
    if status.late_report.is_some()
        || !matches!(report.state(), OperationState::Finished | OperationState::Tombstone)
    {
        return;
    }
    let has_succeeded = matches!(report.outcome(), Ended::Succeeded | Ended::AlreadyInState);
    let is_unknown = status.conditions.iter().any(|condition| {
        condition.type_ == Condition::Failed.as_str() && condition.reason == Reason::OutcomeUnknown.as_str()
    }) && report.outcome() != Ended::Unknown;
    let never_ran = report.outcome() == Ended::Withdrawn;
    if has_succeeded != (status.phase == Phase::Succeeded) && !never_ran || is_unknown {
        let words = [&report.error, &report.message].into_iter().find(|words| !words.is_empty());
        status.late_report = Some(format!(
            "the agent says {}{}",
            report.outcome().as_str_name().trim_start_matches("OUTCOME_"),
            words.map(|words| format!(": {words}")).unwrap_or_default()
        ));
    }
}

fn announce(operation: &Operation, before: &OperationStatus, after: &OperationStatus, context: &Context) {
    let message = after.message.as_deref().unwrap_or_default();
    if before.late_report.is_none()
        && let Some(late) = &after.late_report
    {
        context.recorder.warn(reference(operation), "LateReport", late);
    }
    if before.phase != after.phase {
        match after.phase {
            Phase::Failed => context.recorder.warn(reference(operation), "Failed", message),
            Phase::Pending => context.recorder.warn(reference(operation), "BackOff", message),
            phase => context.recorder.normal(reference(operation), phase.as_str(), message),
        }
    } else if after.phase == Phase::Pending && before.message != after.message && after.dispatch.is_none() {
        context.recorder.normal(reference(operation), "Waiting", message);
    }
}

/// Once per Operation: when its end is committed.
fn count(operation: &Operation, status: &OperationStatus, context: &Context) {
    let action = operation.spec.action.as_str();
    context.metrics.operations.with_label_values(&[action, status.phase.as_str()]).inc();
    let created = operation.metadata.creation_timestamp.as_ref().map(|time| time.0);
    if let (Some(created), Some(ended)) = (created, status.completion_time.as_ref()) {
        context
            .metrics
            .operation_duration
            .with_label_values(&[action])
            .observe(ended.0.duration_since(created).as_secs_f64().max(0.0));
    }
}
