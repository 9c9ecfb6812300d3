//! What the next step of an Operation is, from facts alone. The tables of the states and conditions are the tests below.

mod ending;

use std::time::Duration;

use gantry_api::agent_v1::{OperationReport, OperationState, Outcome, Policy, Target};
use gantry_api::condition::OperationReason as Reason;
use gantry_api::v1alpha1::{Action, Health, Operation, OperationStatus, Phase, TargetKind};
use jiff::{SignedDuration, Timestamp};

pub use super::roster::Neighbours;
use crate::gateway::link::{InstanceUid, LinkError, SessionFacts};
use ending::{Why, by_evidence, end_for, ended, why_end, withdrawn};

pub(super) use ending::is_over;

/// A slow timer behind every wake.
const SLOW: Duration = Duration::from_secs(30);
/// How soon something that has no wake is looked at again.
const SOON: Duration = Duration::from_secs(1);
/// How soon an engine or an agent that did not answer is asked again.
const LATER: Duration = Duration::from_secs(5);

/// What is so.
#[derive(Clone, Debug, Default)]
pub struct Observed {
    /// The instance that `spec.instanceRef` names now.
    pub instance: Option<InstanceFacts>,
    /// The open session of that instance.
    pub session: Option<SessionFacts>,
    /// The agent's newest word on this Operation.
    pub report: Option<OperationReport>,
    /// Others on the same target.
    pub neighbours: Neighbours,
    /// What the agent said the target is; absent until it was asked in this pass.
    pub found: Option<Result<Target, LinkError>>,
    /// What the agent remembers of an Operation it sent no report on; absent until it was asked in this pass.
    pub remembered: Option<Result<Option<OperationReport>, LinkError>>,
    /// The digest of what would be submitted.
    pub digest: Option<String>,
}

impl Observed {
    /// Takes in what the agent said it remembers. What it has under way is its newest word: the report itself may be on its way yet,
    /// as from another replica.
    pub(super) fn remembers(&mut self, answer: Result<Option<OperationReport>, LinkError>) {
        if let Ok(Some(report)) = &answer
            && matches!(report.state(), OperationState::Accepted | OperationState::Started)
        {
            self.report = Some(report.clone());
        }
        self.remembered = Some(answer);
    }
}

/// What is known of an instance.
#[derive(Clone, Debug)]
pub struct InstanceFacts {
    /// Its identity.
    pub uid: InstanceUid,
    /// `spec.archived`.
    pub is_archived: bool,
    /// `spec.paused`.
    pub is_paused: bool,
    /// Its agent says so.
    pub is_engine_unreachable: bool,
    /// As its status has it.
    pub health: Health,
}

/// What to do next.
#[derive(Clone, Debug, PartialEq)]
pub enum Step {
    /// Ask the agent what this means, then plan again.
    Look(String),
    /// Ask the agent whether it remembers this Operation, then plan again.
    Remember,
    /// Nothing can be done; say why.
    Wait { reason: Reason, message: String, again: Duration },
    /// End it here: no agent has it.
    End(Ending),
    /// Record the dispatch of this attempt to this target, then submit it.
    Dispatch { attempt: u32, target: Target, journal_id: String, instance: InstanceUid },
    /// Submit the recorded attempt once more; the agent answers from its journal if it has it.
    Submit(InstanceUid),
    /// Ask the agent never to start it.
    Withdraw(InstanceUid),
    /// The agent has it; show how far it is.
    Follow { again: Duration },
    /// This attempt had no effect; the next is due then.
    BackOff { until: Timestamp },
    /// It has ended: clean up behind it.
    Settle,
}

/// How an Operation ends.
#[derive(Clone, Debug, PartialEq)]
pub struct Ending {
    /// A final one.
    pub phase: Phase,
    /// For machines.
    pub reason: Reason,
    /// For people.
    pub message: String,
}

fn failed(reason: Reason, message: impl Into<String>) -> Step {
    Step::End(Ending { phase: Phase::Failed, reason, message: message.into() })
}

fn cancelled(message: impl Into<String>) -> Step {
    Step::End(Ending { phase: Phase::Cancelled, reason: Reason::Cancelled, message: message.into() })
}

fn wait(reason: Reason, message: impl Into<String>, again: Duration) -> Step {
    Step::Wait { reason, message: message.into(), again }
}

/// Decides the next step.
///
/// Before the first dispatch, and between a proven failure and the next one, the controller decides alone. In between only the
/// agent does: cancel, deletion, deadline and archive become a withdrawal that it has to answer.
pub fn plan(operation: &Operation, observed: &Observed, now: Timestamp) -> Step {
    let status = operation.status.clone().unwrap_or_default();
    if status.phase.is_final() {
        return Step::Settle;
    }
    if let Some(report) = current_report(&status, observed) {
        if let (Some(ours), false) = (&observed.digest, report.digest.is_empty())
            && *ours != report.digest
        {
            return failed(
                Reason::OutcomeUnknown,
                "the agent holds this Operation with other contents; look at the host before you repeat it",
            );
        }
        return follow(operation, &status, observed, report, now);
    }
    let is_with_the_agent = status.dispatch.is_some() && status.next_attempt_time.is_none();
    if is_with_the_agent {
        without_report(operation, &status, observed, now)
    } else {
        queued(operation, &status, observed, now)
    }
}

/// The agent's word, unless it speaks of an attempt that is over.
fn current_report<'a>(status: &OperationStatus, observed: &'a Observed) -> Option<&'a OperationReport> {
    let report = observed.report.as_ref()?;
    let dispatched = status.dispatch.as_ref().map_or(0, |dispatch| dispatch.attempt);
    let is_over = report.attempt < dispatched
        || (report.attempt == dispatched && status.next_attempt_time.is_some())
        || report.state() == OperationState::Unspecified;
    // A withdrawal ends every attempt, also one that was never made; so does an end after which none can have been made.
    let is_last = match report.state() {
        OperationState::Withdrawn => true,
        OperationState::Finished | OperationState::Tombstone => !report.retryable,
        _ => false,
    };
    (!is_over || is_last).then_some(report)
}

/// S0: nothing is with the agent.
fn queued(operation: &Operation, status: &OperationStatus, observed: &Observed, now: Timestamp) -> Step {
    let spec = &operation.spec;
    let instance_name = &spec.instance_ref.name;
    if spec.cancel {
        return cancelled("cancelled before it started");
    }
    if operation.metadata.deletion_timestamp.is_some() {
        return cancelled("deleted before it started");
    }
    if spec.abandon {
        return cancelled("abandoned before it started");
    }
    let Some(instance) = &observed.instance else {
        return failed(
            Reason::InstanceNotFound,
            format!("dockerinstances.gantry.dev \"{instance_name}\" does not exist in this namespace"),
        );
    };
    if instance.is_archived {
        return failed(Reason::InstanceArchived, format!("instance \"{instance_name}\" is archived"));
    }
    if is_too_late(operation, now) {
        return end_for(Why::TooLate, operation, status);
    }
    if !is_allowed_kind(spec.action, spec.target.kind) {
        return failed(
            Reason::ActionNotAllowed,
            format!("{} does not exist for this kind of target", spec.action.as_str()),
        );
    }
    if instance.health == Health::Incompatible {
        return failed(
            Reason::EngineIncompatible,
            format!(
                "the engine of instance \"{instance_name}\" is older than API 1.41 and is not operated on"
            ),
        );
    }
    let paused = || {
        wait(
            Reason::Paused,
            format!("instance \"{instance_name}\" is paused"),
            until_deadline(operation, now),
        )
    };
    let Some(session) = &observed.session else {
        if instance.is_paused {
            return paused();
        }
        return wait(
            Reason::InstanceOffline,
            format!("the agent of instance \"{instance_name}\" is away"),
            until_deadline(operation, now),
        );
    };
    if !is_permitted(session.policy, spec.action) {
        return failed(
            Reason::PolicyDenied,
            format!("the owner of the host does not allow {}", spec.action.as_str()),
        );
    }
    if let Some(due) = status.next_attempt_time.as_ref()
        && now < due.0
    {
        let again = remaining(now, due.0);
        return Step::Wait {
            reason: Reason::BackOff,
            message: status.message.clone().unwrap_or_default(),
            again,
        };
    }
    let first = observed.neighbours.goes_first.as_ref().map(|other| {
        wait(Reason::WaitingForOther, format!("operation \"{other}\" on the same target goes first"), SOON)
    });
    // What a container's name means is fixed before it waits for anything: by then it may be another container's. An image's
    // reference is meant to move, as by a pull that goes first.
    let (target, first) = match (spec.target.kind, first) {
        (TargetKind::Image, Some(first)) => return first,
        (_, first) => (target(operation, status, observed), first),
    };
    let target = match (target, first) {
        (Err(step), first) => match (*step, first) {
            (Step::End(_), Some(first)) => return first,
            (step, _) => return step,
        },
        (Ok(_), _) if instance.is_paused => return paused(),
        (Ok(_), Some(first)) => return first,
        (Ok(target), None) => target,
    };
    if let Some(wanted) = spec.precondition.as_ref().and_then(|precondition| precondition.id.as_ref())
        && *wanted != target.id
    {
        return failed(
            Reason::TargetChanged,
            format!("\"{}\" has id {}, the precondition wants {wanted}", spec.target.name, target.id),
        );
    }
    let attempt = status.dispatch.as_ref().map_or(0, |dispatch| dispatch.attempt).saturating_add(1);
    Step::Dispatch { attempt, target, journal_id: session.journal_id.clone(), instance: instance.uid }
}

/// What the action goes to: fixed once it was found, a pull's reference as it is.
fn target(operation: &Operation, status: &OperationStatus, observed: &Observed) -> Result<Target, Box<Step>> {
    let spec = &operation.spec;
    if let Some(known) = &status.target {
        return Ok(super::wire::target(spec.target.kind, known));
    }
    let is_engine_unreachable =
        observed.instance.as_ref().is_some_and(|instance| instance.is_engine_unreachable);
    if spec.action == Action::Pull {
        if is_engine_unreachable {
            return Err(Box::new(wait(
                Reason::EngineUnreachable,
                "the Docker Engine does not answer its agent",
                LATER,
            )));
        }
        return Ok(Target {
            kind: gantry_api::agent_v1::TargetKind::Image.into(),
            name: spec.target.name.clone(),
            ..Target::default()
        });
    }
    let step = match &observed.found {
        None => Step::Look(spec.target.name.clone()),
        Some(Ok(target)) => return Ok(target.clone()),
        Some(Err(LinkError::Away)) => wait(Reason::InstanceOffline, "the agent is away", LATER),
        // An agent that waits for its engine may take longer than its answer is waited for.
        Some(Err(LinkError::Silent(_))) if is_engine_unreachable => {
            wait(Reason::EngineUnreachable, "the Docker Engine does not answer its agent", LATER)
        }
        Some(Err(LinkError::Silent(why))) => {
            wait(Reason::InstanceOffline, format!("the agent did not answer: {why}"), LATER)
        }
        Some(Err(LinkError::Refused { code, message })) => match code {
            tonic::Code::NotFound => failed(Reason::TargetNotFound, not_found(operation, observed)),
            tonic::Code::InvalidArgument => {
                failed(Reason::TargetNotFound, format!("\"{}\": {message}", spec.target.name))
            }
            tonic::Code::PermissionDenied => failed(Reason::PolicyDenied, message.clone()),
            _ => wait(Reason::EngineUnreachable, message.clone(), LATER),
        },
    };
    Err(Box::new(step))
}

fn not_found(operation: &Operation, observed: &Observed) -> String {
    let spec = &operation.spec;
    let kind = kind_word(spec.target.kind);
    match &observed.neighbours.removed_by {
        Some(other) if spec.action == Action::Remove => {
            format!(
                "{kind} \"{}\" is gone: its removal by operation \"{other}\" is already done",
                spec.target.name
            )
        }
        _ => format!(
            "{kind} \"{}\" does not exist on instance \"{}\"",
            spec.target.name, spec.instance_ref.name
        ),
    }
}

fn kind_word(kind: TargetKind) -> &'static str {
    match kind {
        TargetKind::Container => "container",
        TargetKind::Image => "image",
    }
}

/// S1 and later without the agent's word.
fn without_report(
    operation: &Operation,
    status: &OperationStatus,
    observed: &Observed,
    now: Timestamp,
) -> Step {
    let spec = &operation.spec;
    if spec.abandon {
        return failed(
            Reason::OutcomeUnknown,
            "given up by spec.abandon: it may or may not have happened on the host",
        );
    }
    let Some(dispatch) = &status.dispatch else {
        return Step::Settle;
    };
    let Some(instance) = observed.instance.as_ref().filter(|instance| {
        dispatch.instance_uid.is_empty() || dispatch.instance_uid == instance.uid.to_string()
    }) else {
        return failed(
            Reason::OutcomeUnknown,
            format!(
                "instance \"{}\" was deleted while its agent had this: it may or may not have happened",
                spec.instance_ref.name
            ),
        );
    };
    let Some(session) = &observed.session else {
        let message = if why_end(operation, observed, now).is_some() {
            "it cannot be withdrawn before the agent is back: it may have started"
        } else {
            "the agent is away; what it did will be recorded when it is back"
        };
        return wait(Reason::InstanceOffline, message, SLOW);
    };
    let is_acknowledged = status.phase == Phase::Running;
    if session.journal_id != dispatch.journal_id || is_acknowledged {
        return match &observed.remembered {
            None => Step::Remember,
            Some(Err(error)) => wait(Reason::Submitting, error.to_string(), LATER),
            Some(Ok(Some(report))) if report.outcome() != Outcome::Unknown && is_over(report) => {
                ended(operation, status, observed, report, now)
            }
            Some(Ok(_)) => by_evidence(operation, status, observed),
        };
    }
    if why_end(operation, observed, now).is_some() {
        return Step::Withdraw(instance.uid);
    }
    Step::Submit(instance.uid)
}

/// The agent said something about the present attempt.
fn follow(
    operation: &Operation,
    status: &OperationStatus,
    observed: &Observed,
    report: &OperationReport,
    now: Timestamp,
) -> Step {
    let spec = &operation.spec;
    match report.state() {
        OperationState::Accepted | OperationState::Started | OperationState::Unspecified => {
            if spec.abandon {
                return failed(
                    Reason::OutcomeUnknown,
                    "given up by spec.abandon: it may or may not have happened on the host",
                );
            }
            let may_still_be_stopped =
                report.state() == OperationState::Accepted || spec.action == Action::Pull;
            match &observed.instance {
                Some(instance)
                    if observed.session.is_some()
                        && may_still_be_stopped
                        && why_end(operation, observed, now).is_some_and(|why| {
                            report.state() == OperationState::Accepted || why != Why::TooLate
                        }) =>
                {
                    Step::Withdraw(instance.uid)
                }
                // They were in the memory of a process that is gone.
                Some(instance) if observed.session.is_some() && report.awaits_registry_auth => {
                    Step::Submit(instance.uid)
                }
                _ => Step::Follow { again: SLOW },
            }
        }
        OperationState::Withdrawn => withdrawn(operation, status, observed, now),
        OperationState::Finished | OperationState::Tombstone => {
            ended(operation, status, observed, report, now)
        }
    }
}

fn is_too_late(operation: &Operation, now: Timestamp) -> bool {
    operation.must_start_by().is_some_and(|deadline| deadline <= now)
}

pub(super) fn until_deadline(operation: &Operation, now: Timestamp) -> Duration {
    operation.must_start_by().map_or(SLOW, |deadline| remaining(now, deadline).min(SLOW))
}

fn remaining(now: Timestamp, then: Timestamp) -> Duration {
    Duration::try_from(then.duration_since(now)).unwrap_or_default() + Duration::from_millis(5)
}

/// The delay after a failed attempt: 1 s, doubled each time, at most 5 minutes.
fn backoff(attempt: u32) -> SignedDuration {
    SignedDuration::from_secs((1_i64 << attempt.saturating_sub(1).min(9)).min(300))
}

fn is_allowed_kind(action: Action, kind: TargetKind) -> bool {
    match action {
        Action::Pull | Action::Tag => kind == TargetKind::Image,
        Action::Remove => true,
        _ => kind == TargetKind::Container,
    }
}

fn is_permitted(policy: Policy, action: Action) -> bool {
    match policy {
        Policy::Full => true,
        Policy::Operate => !matches!(action, Action::Remove | Action::Rename | Action::Tag),
        Policy::Observe | Policy::Unspecified => false,
    }
}

#[cfg(test)]
mod tests;
