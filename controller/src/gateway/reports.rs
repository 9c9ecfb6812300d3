//! The newest report on each operation of one session.

use std::collections::HashMap;

use gantry_api::agent_v1::{OperationReport, OperationState};
use uuid::Uuid;

/// Operations an agent may have open; more is a broken agent, and its further reports are dropped.
const MOST_REPORTS: usize = 20_000;

/// Reports by operation. Only ever moves forward.
#[derive(Debug, Default)]
pub(super) struct Reports(HashMap<Uuid, OperationReport>);

impl Reports {
    /// The newest report on an operation.
    pub(super) fn get(&self, uid: Uuid) -> Option<OperationReport> {
        self.0.get(&uid).cloned()
    }

    /// Takes a report in; its operation, if it says something new.
    pub(super) fn take(&mut self, report: OperationReport) -> Option<Uuid> {
        let uid = report.uid.parse().ok()?;
        let is_full = self.0.len() >= MOST_REPORTS;
        match self.0.get_mut(&uid) {
            Some(known) if order(&report) < order(known) || report == *known => return None,
            Some(known) => *known = report,
            None if is_full => return None,
            None => {
                self.0.insert(uid, report);
            }
        }
        Some(uid)
    }

    /// Drops what was recorded and forgotten.
    pub(super) fn forget(&mut self, uids: &[Uuid]) {
        for uid in uids {
            self.0.remove(uid);
        }
    }
}

/// Attempts before states before journal records: progress of a state already known has its sequence.
fn order(report: &OperationReport) -> (u32, u8, u64) {
    let state = match report.state() {
        OperationState::Unspecified => 0,
        OperationState::Accepted => 1,
        OperationState::Started => 2,
        OperationState::Withdrawn | OperationState::Finished => 3,
        OperationState::Tombstone => 4,
    };
    (report.attempt, state, report.journal_sequence)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(attempt: u32, state: OperationState, journal_sequence: u64) -> OperationReport {
        OperationReport {
            uid: Uuid::nil().to_string(),
            attempt,
            state: state.into(),
            journal_sequence,
            ..OperationReport::default()
        }
    }

    #[test]
    fn a_report_that_arrives_late_does_not_take_back_a_newer_one() {
        let mut reports = Reports::default();
        let finished = report(1, OperationState::Finished, 3);

        assert_eq!(reports.take(finished.clone()), Some(Uuid::nil()));
        assert_eq!(reports.take(report(1, OperationState::Started, 2)), None);
        assert_eq!(reports.take(finished.clone()), None, "nothing new");
        assert_eq!(reports.get(Uuid::nil()), Some(finished));
        assert_eq!(reports.take(report(2, OperationState::Accepted, 4)), Some(Uuid::nil()));
    }

    #[test]
    fn a_broken_agent_fills_a_bounded_memory() {
        let mut reports = Reports::default();
        for number in 0..(MOST_REPORTS as u128 + 10) {
            let uid = Uuid::from_u128(number).to_string();
            reports.take(OperationReport { uid, ..OperationReport::default() });
        }

        assert_eq!(reports.0.len(), MOST_REPORTS);
    }
}
