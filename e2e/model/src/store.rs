//! What Postgres remembers, and the newest reports of one session. A store can be rewound to an earlier prefix.

use crate::settings::Mistake;
use crate::words::{INSTANCES, OPS, Phase, Reason, Report, Service, Stage, Token};

/// An Operation as it is stored.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Operation {
    /// It was created and is not gone.
    pub exists: bool,
    /// Our finalizer holds it.
    pub held: bool,
    /// `spec.cancel`.
    pub cancel: bool,
    /// It has a deletion timestamp.
    pub deleted: bool,
    /// `spec.abandon`.
    pub abandon: bool,
    /// `status.phase`.
    pub phase: Phase,
    /// The reason of its end.
    pub reason: Reason,
    /// `status.dispatch` is there, of that attempt; 0 if it is not.
    pub attempt: u8,
    /// `status.dispatch.journalId`.
    pub journal: u8,
    /// `status.dispatch.journalSequence`.
    pub sequence: u8,
    /// `status.nextAttemptTime` is there: the last attempt had no effect.
    pub between: bool,
    /// `status.target.id`; 0 while the name was not looked up.
    pub target: u8,
    /// `status.error` is there.
    pub tried: bool,
    /// `status.lateReport` is there.
    pub late_report: bool,
}

/// The database.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Store {
    /// By operation.
    pub operations: [Operation; OPS],
    /// By instance.
    pub service: [Service; INSTANCES],
    /// By instance: its engine is too old.
    pub incompatible: [bool; INSTANCES],
    /// Of the store and the Lease.
    pub token: Token,
    /// Who holds the Lease.
    pub holder: Option<u8>,
}

impl Store {
    /// An empty one.
    pub fn new() -> Self {
        Self {
            operations: [Operation::default(); OPS],
            service: [Service::In; INSTANCES],
            incompatible: [false; INSTANCES],
            token: Token { incarnation: 1, epoch: 0 },
            holder: None,
        }
    }

    /// Writes against what was read; false if that has changed.
    pub fn write(&mut self, op: usize, read: &Operation, written: Operation, mistake: Mistake) -> bool {
        let is_current = self.operations[op] == *read || mistake == Mistake::Unfenced;
        if is_current {
            self.operations[op] = written;
        }
        is_current
    }
}

impl Default for Store {
    fn default() -> Self {
        Self::new()
    }
}

/// The connection that holds an instance, as the gateway sees it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Session {
    /// Which one; 0 if there is none.
    pub connection: u8,
    /// The agent's place.
    pub agent: u8,
    /// Resume was answered.
    pub is_open: bool,
    /// The agent's journal.
    pub journal: u8,
    /// The owner of the host allows operations.
    pub permits: bool,
    /// The newest report on each operation, which only moves forward.
    pub reports: [Report; OPS],
}

impl Session {
    /// Takes a report in, if it says something new.
    pub fn take(&mut self, op: usize, report: Report) {
        if !report.is_none() && (self.reports[op].is_none() || report.order() >= self.reports[op].order()) {
            self.reports[op] = report;
        }
    }

    /// What is known of an operation: while the agent is away only how it ended.
    pub fn report(&self, op: usize) -> Option<Report> {
        let report = self.reports[op];
        (report.stage != Stage::Unheard && (self.is_open || report.stage.is_over())).then_some(report)
    }

    /// It ends; what was over stays known.
    pub fn close(&mut self) {
        for report in &mut self.reports {
            if !report.stage.is_over() {
                *report = Report::default();
            }
        }
        (self.connection, self.agent, self.is_open) = (0, 0, false);
    }
}
