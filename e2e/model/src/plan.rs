//! What the next step of an Operation is, from facts alone: the controller's `operation::plan` in the model's words.

use crate::settings::Mistake;
use crate::store::Operation;
use crate::words::{Action, Outcome, Phase, REFERENCE, Reason, Report, Service, Stage};

/// What the controller sees.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Facts {
    /// As this controller knows it.
    pub operation: Operation,
    /// What it does.
    pub action: Action,
    /// Attempts after the first, at most.
    pub backoff_limit: u8,
    /// Its time to start is over.
    pub is_late: bool,
    /// The action exists for this kind of target.
    pub fits: bool,
    /// Its instance.
    pub service: Service,
    /// The engine of that is too old.
    pub is_incompatible: bool,
    /// The journal of the open session.
    pub session: Option<u8>,
    /// The owner of the host allows it, as the session says.
    pub is_permitted: bool,
    /// The agent's newest word.
    pub report: Option<Report>,
    /// Another one on the same target goes first.
    pub goes_first: bool,
    /// What the name, or the id, means now; absent until the agent was asked.
    pub found: Option<Found>,
    /// What the agent remembers; absent until it was asked.
    pub remembered: Option<Option<Report>>,
}

/// What the agent found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Found {
    /// That container.
    Container {
        /// Its id.
        id: u8,
        /// Has a process.
        running: bool,
    },
    /// None.
    Nothing,
}

/// What to do next.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Step {
    /// Ask what the name means.
    LookName,
    /// Ask what the known id means.
    LookId,
    /// Ask what the agent remembers.
    Remember,
    /// Nothing can be done.
    Wait,
    /// End it.
    End(Phase, Reason),
    /// Record the dispatch, then submit.
    Dispatch {
        /// Which attempt.
        attempt: u8,
        /// To which id.
        target: u8,
        /// To which journal.
        journal: u8,
    },
    /// Submit the recorded attempt once more.
    Submit,
    /// Ask the agent never to start it.
    Withdraw,
    /// Show how far it is.
    Follow,
    /// The attempt had no effect; the next is due later.
    BackOff,
    /// Clean up behind it.
    Settle,
}

fn failed(reason: Reason) -> Step {
    Step::End(Phase::Failed, reason)
}

const UNKNOWN: Step = Step::End(Phase::Failed, Reason::OutcomeUnknown);

/// Why an Operation should not start any more.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Why {
    Unwanted,
    Archived,
    TooLate,
}

/// Decides the next step.
pub fn plan(facts: &Facts, mistake: Mistake) -> Step {
    let operation = &facts.operation;
    if operation.phase.is_final() {
        return Step::Settle;
    }
    if mistake == Mistake::LocalCancel && operation.cancel {
        return Step::End(Phase::Cancelled, Reason::Cancelled);
    }
    if let Some(report) = current_report(facts) {
        if report.target != 0 && operation.target != 0 && report.target != operation.target {
            return UNKNOWN;
        }
        return follow(facts, &report);
    }
    if operation.attempt != 0 && !operation.between { without_report(facts) } else { queued(facts) }
}

/// The agent's word, unless it speaks of an attempt that is over.
fn current_report(facts: &Facts) -> Option<Report> {
    let (report, operation) = (facts.report?, &facts.operation);
    let is_over = report.attempt < operation.attempt
        || (report.attempt == operation.attempt && operation.between)
        || report.stage == Stage::Unheard;
    let is_last = match report.stage {
        Stage::Withdrawn => true,
        Stage::Finished | Stage::Tombstone => !report.retryable,
        _ => false,
    };
    (!is_over || is_last).then_some(report)
}

/// S0: nothing is with the agent.
fn queued(facts: &Facts) -> Step {
    let operation = &facts.operation;
    if operation.cancel || operation.deleted || operation.abandon {
        return Step::End(Phase::Cancelled, Reason::Cancelled);
    }
    match facts.service {
        Service::In => {}
        Service::Archived => return failed(Reason::InstanceArchived),
        Service::Gone => return failed(Reason::InstanceNotFound),
    }
    if facts.is_late {
        return end_for(Why::TooLate, operation);
    }
    if !facts.fits {
        return failed(Reason::ActionNotAllowed);
    }
    if facts.is_incompatible {
        return failed(Reason::EngineIncompatible);
    }
    let Some(journal) = facts.session else { return Step::Wait };
    if !facts.is_permitted {
        return failed(Reason::PolicyDenied);
    }
    let target = match (operation.target, facts.found) {
        (0, _) if facts.action == Action::Pull => REFERENCE,
        (0, None) => return Step::LookName,
        (0, Some(Found::Nothing)) if facts.goes_first => return Step::Wait,
        (0, Some(Found::Nothing)) => return failed(Reason::TargetNotFound),
        (0, Some(Found::Container { id, .. })) => id,
        (known, _) => known,
    };
    if facts.goes_first {
        return Step::Wait;
    }
    Step::Dispatch { attempt: operation.attempt + 1, target, journal }
}

/// S1 and later without the agent's word.
fn without_report(facts: &Facts) -> Step {
    let operation = &facts.operation;
    if operation.abandon || facts.service == Service::Gone {
        return UNKNOWN;
    }
    let Some(journal) = facts.session else { return Step::Wait };
    if journal != operation.journal || operation.phase == Phase::Running {
        return match facts.remembered {
            None => Step::Remember,
            Some(Some(report)) if report.outcome != Outcome::Unknown && report.stage.is_over() => {
                ended(facts, &report)
            }
            Some(_) => by_evidence(facts),
        };
    }
    if why_end(facts).is_some() { Step::Withdraw } else { Step::Submit }
}

/// The agent's journal no longer has it: what can be seen on the host decides, and nothing is run again.
fn by_evidence(facts: &Facts) -> Step {
    if facts.action != Action::Stop || facts.operation.target == 0 {
        return UNKNOWN;
    }
    match facts.found {
        None => Step::LookId,
        Some(Found::Container { running: false, .. }) => Step::End(Phase::Succeeded, Reason::Succeeded),
        Some(_) => UNKNOWN,
    }
}

/// The agent said something about the present attempt.
fn follow(facts: &Facts, report: &Report) -> Step {
    match report.stage {
        Stage::Unheard | Stage::Accepted | Stage::Started => {
            if facts.operation.abandon {
                return UNKNOWN;
            }
            let is_waiting = report.stage == Stage::Accepted;
            let may_still_be_stopped = is_waiting || facts.action == Action::Pull;
            let should_be = why_end(facts).is_some_and(|why| is_waiting || why != Why::TooLate);
            let has_instance = facts.service != Service::Gone;
            if has_instance && facts.session.is_some() && may_still_be_stopped && should_be {
                Step::Withdraw
            } else {
                Step::Follow
            }
        }
        Stage::Withdrawn => withdrawn(facts),
        Stage::Finished | Stage::Tombstone => ended(facts, report),
    }
}

fn ended(facts: &Facts, report: &Report) -> Step {
    let is_retryable = report.retryable && report.outcome != Outcome::DeadlineExceeded;
    if is_retryable && report.stage == Stage::Finished {
        return match why_end(facts) {
            Some(Why::TooLate) => failed(Reason::DockerError),
            Some(why) => end_for(why, &facts.operation),
            None if report.attempt > facts.backoff_limit => failed(Reason::BackoffLimitExceeded),
            None => Step::BackOff,
        };
    }
    let reason = match report.outcome {
        Outcome::Succeeded => return Step::End(Phase::Succeeded, Reason::Succeeded),
        Outcome::AlreadyInState => return Step::End(Phase::Succeeded, Reason::AlreadyInState),
        Outcome::StartDeadlineExceeded => return end_for(Why::TooLate, &facts.operation),
        Outcome::Withdrawn => return withdrawn(facts),
        Outcome::Cancelled => return Step::End(Phase::Cancelled, Reason::Cancelled),
        Outcome::PolicyDenied => Reason::PolicyDenied,
        Outcome::PullUnauthorized => Reason::ImagePullUnauthorized,
        Outcome::DockerError => Reason::DockerError,
        Outcome::TargetNotFound => Reason::TargetNotFound,
        Outcome::TargetChanged => Reason::TargetChanged,
        Outcome::DeadlineExceeded => Reason::DeadlineExceeded,
        Outcome::Unknown | Outcome::Unspecified => Reason::OutcomeUnknown,
    };
    failed(reason)
}

fn why_end(facts: &Facts) -> Option<Why> {
    if facts.operation.cancel || facts.operation.deleted {
        Some(Why::Unwanted)
    } else if facts.service == Service::Archived {
        Some(Why::Archived)
    } else {
        facts.is_late.then_some(Why::TooLate)
    }
}

fn end_for(why: Why, operation: &Operation) -> Step {
    match why {
        Why::Unwanted => Step::End(Phase::Cancelled, Reason::Cancelled),
        Why::Archived => failed(Reason::InstanceArchived),
        Why::TooLate if operation.tried => failed(Reason::DockerError),
        Why::TooLate => failed(Reason::StartDeadlineExceeded),
    }
}

fn withdrawn(facts: &Facts) -> Step {
    match why_end(facts) {
        Some(why) => end_for(why, &facts.operation),
        None => Step::End(Phase::Cancelled, Reason::Cancelled),
    }
}

/// The status after a step for which no agent has to be asked, or before it is.
pub fn status_after(facts: &Facts, step: Step) -> Operation {
    let mut written = facts.operation;
    if written.phase.is_final() {
        written.late_report |= facts.report.is_some_and(|report| is_late_news(&written, &report));
        return written;
    }
    if let (Some(report), Step::End(..) | Step::BackOff | Step::Follow) = (&facts.report, step) {
        take_facts(&mut written, report);
    }
    match step {
        Step::End(phase, reason) => {
            (written.phase, written.reason, written.between) = (phase, reason, false);
            written.tried &= phase == Phase::Failed;
        }
        Step::BackOff => (written.phase, written.between) = (Phase::Pending, true),
        Step::Follow => written.phase = Phase::Running,
        Step::Wait => written.target = pinned(facts).unwrap_or(written.target),
        Step::Dispatch { attempt, target, journal } => {
            (written.phase, written.attempt, written.between) = (Phase::Pending, attempt, false);
            (written.journal, written.sequence) = (journal, 0);
            written.target = if written.target == 0 { target } else { written.target };
        }
        Step::LookName | Step::LookId | Step::Remember | Step::Submit | Step::Withdraw | Step::Settle => {}
    }
    written
}

fn take_facts(operation: &mut Operation, report: &Report) {
    if operation.attempt != 0 {
        (operation.journal, operation.sequence) = (report.journal, report.sequence);
    }
    operation.tried = match report.stage {
        Stage::Finished => report.retryable || report.outcome == Outcome::DockerError,
        _ => operation.tried,
    };
}

/// What the name was found to mean while it waits for others, if that is news.
fn pinned(facts: &Facts) -> Option<u8> {
    let is_new = facts.operation.target == 0 && facts.operation.attempt == 0;
    match facts.found {
        Some(Found::Container { id, .. }) if is_new => Some(id),
        _ => None,
    }
}

/// True if the agent says something of an ended Operation that its status does not tell yet.
pub fn is_late_news(operation: &Operation, report: &Report) -> bool {
    let says = matches!(report.stage, Stage::Finished | Stage::Tombstone) && !operation.late_report;
    let has_succeeded = matches!(report.outcome, Outcome::Succeeded | Outcome::AlreadyInState);
    let is_unknown = operation.reason == Reason::OutcomeUnknown && report.outcome != Outcome::Unknown;
    let never_ran = report.outcome == Outcome::Withdrawn;
    says && (has_succeeded != (operation.phase == Phase::Succeeded) && !never_ran || is_unknown)
}
