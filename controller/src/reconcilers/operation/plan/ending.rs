//! How an Operation ends: by the agent's word, by what can be seen on its host, or because it should not start any more.

use gantry_api::agent_v1::{OperationReport, OperationState, Outcome};
use gantry_api::condition::OperationReason as Reason;
use gantry_api::v1alpha1::{Action, Operation, OperationStatus, Phase};
use jiff::Timestamp;

use super::{Ending, LATER, Observed, Step, backoff, cancelled, failed, is_too_late, kind_word, wait};
use crate::gateway::link::LinkError;

pub(super) fn ended(
    operation: &Operation,
    status: &OperationStatus,
    observed: &Observed,
    report: &OperationReport,
    now: Timestamp,
) -> Step {
    let spec = &operation.spec;
    let words = if report.error.is_empty() { report.message.clone() } else { report.error.clone() };
    // One that took too long would do so again.
    let is_retryable = report.retryable && report.outcome() != Outcome::DeadlineExceeded;
    if is_retryable && report.state() == OperationState::Finished {
        match why_end(operation, observed, now) {
            Some(Why::TooLate) => {
                return failed(Reason::DockerError, format!("{words}; {}", no_time_left(operation)));
            }
            Some(why) => return end_for(why, operation, status),
            None => {}
        }
        if report.attempt > spec.backoff_limit {
            return failed(
                Reason::BackoffLimitExceeded,
                format!("{} attempts failed, the last one with: {words}", report.attempt),
            );
        }
        return Step::BackOff { until: now + backoff(report.attempt) };
    }
    let done = |reason, otherwise: &str| {
        let message = if words.is_empty() { otherwise.to_owned() } else { words.clone() };
        Step::End(Ending { phase: Phase::Succeeded, reason, message })
    };
    let or = |otherwise: &str| if words.is_empty() { otherwise.to_owned() } else { words.clone() };
    match report.outcome() {
        Outcome::Succeeded => done(Reason::Succeeded, "done"),
        Outcome::AlreadyInState => done(Reason::AlreadyInState, "nothing had to be done"),
        Outcome::DockerError => failed(Reason::DockerError, or("Docker refused")),
        Outcome::TargetNotFound if spec.action == Action::Remove => failed(
            Reason::TargetNotFound,
            format!(
                "{} \"{}\" is gone: another removal is in progress or already done",
                kind_word(spec.target.kind),
                spec.target.name
            ),
        ),
        Outcome::TargetNotFound => failed(
            Reason::TargetNotFound,
            format!("\"{}\": {}", spec.target.name, or("it does not exist any more")),
        ),
        Outcome::TargetChanged => {
            failed(Reason::TargetChanged, or("the target is not the one that was meant"))
        }
        Outcome::DeadlineExceeded => {
            failed(Reason::DeadlineExceeded, or(&format!("it took longer than {} s", spec.active_deadline())))
        }
        Outcome::StartDeadlineExceeded => end_for(Why::TooLate, operation, status),
        Outcome::PullUnauthorized => {
            failed(Reason::ImagePullUnauthorized, or("the registry wants other credentials"))
        }
        Outcome::Withdrawn => withdrawn(operation, status, observed, now),
        Outcome::Cancelled => cancelled(or("stopped on request")),
        Outcome::PolicyDenied => failed(Reason::PolicyDenied, or("the host's owner does not allow it")),
        Outcome::Unknown | Outcome::Unspecified => {
            failed(Reason::OutcomeUnknown, or("it may or may not have happened; look at the host"))
        }
    }
}

/// Why an Operation should not start any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Why {
    Cancelled,
    Deleted,
    Archived,
    TooLate,
}

pub(super) fn why_end(operation: &Operation, observed: &Observed, now: Timestamp) -> Option<Why> {
    if operation.spec.cancel {
        Some(Why::Cancelled)
    } else if operation.metadata.deletion_timestamp.is_some() {
        Some(Why::Deleted)
    } else if observed.instance.as_ref().is_some_and(|instance| instance.is_archived) {
        Some(Why::Archived)
    } else if is_too_late(operation, now) {
        Some(Why::TooLate)
    } else {
        None
    }
}

pub(super) fn end_for(why: Why, operation: &Operation, status: &OperationStatus) -> Step {
    match why {
        Why::Cancelled => cancelled("cancelled; it had no effect"),
        Why::Deleted => cancelled("deleted; it had no effect"),
        Why::Archived => failed(
            Reason::InstanceArchived,
            format!("instance \"{}\" was archived before it started", operation.spec.instance_ref.name),
        ),
        // It was tried, so what went wrong is not the time.
        Why::TooLate => match &status.error {
            Some(error) => {
                failed(Reason::DockerError, format!("{}; {}", error.message, no_time_left(operation)))
            }
            None => failed(
                Reason::StartDeadlineExceeded,
                format!("it did not start within {} s", operation.spec.start_deadline_seconds),
            ),
        },
    }
}

fn no_time_left(operation: &Operation) -> String {
    format!("it may be tried again only within {} s", operation.spec.start_deadline_seconds)
}

/// True for a word that nothing can follow.
pub(in super::super) fn is_over(report: &OperationReport) -> bool {
    matches!(report.state(), OperationState::Finished | OperationState::Tombstone | OperationState::Withdrawn)
}

pub(super) fn withdrawn(
    operation: &Operation,
    status: &OperationStatus,
    observed: &Observed,
    now: Timestamp,
) -> Step {
    match why_end(operation, observed, now) {
        Some(why) => end_for(why, operation, status),
        None => cancelled("withdrawn; it never ran"),
    }
}

/// The agent's journal no longer has it: what can be seen on the host decides, and nothing is run again.
pub(super) fn by_evidence(operation: &Operation, status: &OperationStatus, observed: &Observed) -> Step {
    let spec = &operation.spec;
    let unknown = || {
        failed(
            Reason::OutcomeUnknown,
            "the agent lost its journal: it may or may not have happened; look at the host before you repeat it",
        )
    };
    let succeeded = |message: &str| {
        Step::End(Ending { phase: Phase::Succeeded, reason: Reason::Succeeded, message: message.to_owned() })
    };
    let leaves_a_trace = matches!(
        spec.action,
        Action::Remove | Action::Stop | Action::Pause | Action::Unpause | Action::Rename | Action::Tag
    );
    let tag = spec.parameters.as_ref().and_then(|parameters| parameters.reference.as_ref());
    let Some(known) = status.target.as_ref().filter(|target| leaves_a_trace && !target.id.is_empty()) else {
        return unknown();
    };
    let found = match &observed.found {
        None => return Step::Look(tag.unwrap_or(&known.id).clone()),
        Some(Ok(found)) => Some(found),
        Some(Err(LinkError::Refused { code: tonic::Code::NotFound, .. })) => None,
        Some(Err(error)) => return wait(Reason::EngineUnreachable, error.to_string(), LATER),
    };
    match (spec.action, found) {
        (Action::Remove, None) => succeeded("it is gone; the agent's own record was lost"),
        (Action::Stop, Some(found)) if matches!(found.state.as_str(), "exited" | "dead" | "created") => {
            succeeded("it is stopped; the agent's own record was lost")
        }
        (Action::Pause, Some(found)) if found.state == "paused" => {
            succeeded("it is paused; the agent's own record was lost")
        }
        (Action::Unpause, Some(found)) if found.state == "running" => {
            succeeded("it runs; the agent's own record was lost")
        }
        (Action::Rename, Some(found))
            if spec.parameters.as_ref().and_then(|parameters| parameters.new_name.as_deref())
                == Some(found.name.as_str()) =>
        {
            succeeded("it has the new name; the agent's own record was lost")
        }
        (Action::Tag, Some(found)) if found.id == known.id => {
            succeeded("the reference means the image; the agent's own record was lost")
        }
        _ => unknown(),
    }
}
