//! An operation as it is told to the controller.

use gantry_api::agent_v1::{OperationReport, OperationState, Outcome, PullProgress, Target};
use uuid::Uuid;

use crate::journal::{Entry, Ledger, Phase, Tombstone};

/// Longer texts are cut: a report must fit a status.
const LONGEST_TEXT: usize = 4096;

/// How an operation ended.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Ending {
    pub(super) outcome: Outcome,
    pub(super) retryable: bool,
    pub(super) error: String,
    pub(super) docker_status: u32,
    pub(super) message: String,
    /// The target when nothing was done to it; else the journal knows.
    pub(super) before: Option<Target>,
    pub(super) after: Option<Target>,
    pub(super) pull: Option<PullProgress>,
}

impl Ending {
    pub(super) fn new(outcome: Outcome, message: impl Into<String>) -> Self {
        Self {
            outcome,
            retryable: false,
            error: String::new(),
            docker_status: 0,
            message: message.into(),
            before: None,
            after: None,
            pull: None,
        }
    }

    pub(super) fn because(mut self, error: impl Into<String>) -> Self {
        self.error = error.into();
        self
    }

    pub(super) fn status(mut self, status: u32) -> Self {
        self.docker_status = status;
        self
    }

    pub(super) fn retryable(mut self) -> Self {
        self.retryable = true;
        self
    }

    /// The part of the report that the journal keeps.
    pub(super) fn record(self, uid: Uuid, entry: &Entry, now_ms: i64) -> OperationReport {
        let started = entry.started.as_ref();
        OperationReport {
            uid: uid.to_string(),
            outcome: self.outcome.into(),
            retryable: self.retryable,
            error: cut(self.error),
            docker_status: self.docker_status,
            before: self.before.or_else(|| started?.before.as_ref()?.target.clone()),
            after: self.after,
            message: cut(self.message),
            started_at_ms: started.map(|started| started.at_ms).unwrap_or_default(),
            finished_at_ms: now_ms,
            pull: self.pull,
            ..OperationReport::default()
        }
    }
}

fn cut(mut text: String) -> String {
    if text.len() > LONGEST_TEXT {
        let end = (0..=LONGEST_TEXT).rev().find(|at| text.is_char_boundary(*at)).unwrap_or_default();
        text.truncate(end);
    }
    text
}

/// What is known of an operation; `None` if it was never heard of.
pub(super) fn report(ledger: &Ledger, uid: Uuid, progress: Option<PullProgress>) -> Option<OperationReport> {
    match (ledger.entry(&uid), ledger.tombstone(&uid)) {
        (Some(entry), _) => Some(of_entry(ledger, uid, entry, progress)),
        (None, Some(stone)) => Some(of_tombstone(ledger, uid, *stone)),
        (None, None) => None,
    }
}

fn of_entry(ledger: &Ledger, uid: Uuid, entry: &Entry, progress: Option<PullProgress>) -> OperationReport {
    let base = match (entry.phase, &entry.result) {
        (Phase::Finished, Some(result)) => result.clone(),
        (Phase::Withdrawn, Some(result)) => OperationReport {
            outcome: Outcome::Withdrawn.into(),
            retryable: false,
            message: cut(format!("withdrawn after an attempt without effect: {}", result.message)),
            ..result.clone()
        },
        (Phase::Withdrawn, None) => OperationReport {
            outcome: Outcome::Withdrawn.into(),
            message: "withdrawn before it started".to_owned(),
            ..OperationReport::default()
        },
        _ => OperationReport {
            before: entry.started.as_ref().and_then(|started| started.before.as_ref()?.target.clone()),
            started_at_ms: entry.started.as_ref().map(|started| started.at_ms).unwrap_or_default(),
            pull: progress,
            ..OperationReport::default()
        },
    };
    OperationReport {
        uid: uid.to_string(),
        attempt: entry.request.attempt,
        digest: entry.request.digest.clone(),
        state: entry.state().into(),
        journal_id: ledger.journal_id().to_owned(),
        journal_sequence: entry.sequence,
        ..base
    }
}

fn of_tombstone(ledger: &Ledger, uid: Uuid, stone: Tombstone) -> OperationReport {
    let state = if stone.outcome == Outcome::Withdrawn {
        OperationState::Withdrawn
    } else {
        OperationState::Tombstone
    };
    OperationReport {
        uid: uid.to_string(),
        attempt: stone.attempt,
        state: state.into(),
        outcome: stone.outcome.into(),
        retryable: stone.retryable,
        forgotten: true,
        journal_id: ledger.journal_id().to_owned(),
        journal_sequence: ledger.sequence(),
        ..OperationReport::default()
    }
}

/// The answer to an attempt at an operation that was withdrawn before.
pub(super) fn withdrawn(ledger: &Ledger, uid: Uuid, attempt: u32, digest: &str) -> OperationReport {
    OperationReport {
        uid: uid.to_string(),
        attempt,
        digest: digest.to_owned(),
        state: OperationState::Withdrawn.into(),
        outcome: Outcome::Withdrawn.into(),
        message: "withdrawn before it started".to_owned(),
        journal_id: ledger.journal_id().to_owned(),
        journal_sequence: ledger.sequence(),
        ..OperationReport::default()
    }
}
