//! The newest report on each operation of one session.

use std::collections::HashMap;

use gantry_api::agent_v1::{OperationReport, OperationState, PullProgress};
use gantry_api::v1alpha1::{LayerProgress, Progress};
use prost::Message;
use uuid::Uuid;

/// Operations an agent may have open; more is a broken agent, and its further reports are dropped.
const MOST_REPORTS: usize = 20_000;
/// Bytes of one report. An agent cuts its texts far below; a larger one is dropped.
const LARGEST: usize = 96 << 10;
/// Bytes of all of them; what does not fit is dropped until others are forgotten.
const MOST_BYTES: usize = 32 << 20;

/// Reports by operation. Only ever moves forward.
#[derive(Debug, Default)]
pub(super) struct Reports {
    known: HashMap<Uuid, OperationReport>,
    bytes: usize,
}

impl Reports {
    /// The newest report on an operation.
    pub(super) fn get(&self, uid: Uuid) -> Option<OperationReport> {
        self.known.get(&uid).cloned()
    }

    /// Every report.
    pub(super) fn all(&self) -> Vec<OperationReport> {
        self.known.values().cloned().collect()
    }

    /// Takes a report in; its operation, if it says something new.
    pub(super) fn take(&mut self, report: OperationReport) -> Option<Uuid> {
        let uid = report.uid.parse().ok()?;
        let known = self.known.get(&uid);
        if known.is_some_and(|known| order(&report) < order(known) || report == *known)
            || (known.is_none() && self.known.len() >= MOST_REPORTS)
        {
            return None;
        }
        let size = report.encoded_len();
        let others = self.bytes - known.map_or(0, Message::encoded_len);
        if size > LARGEST || others + size > MOST_BYTES {
            return None;
        }
        self.bytes = others + size;
        self.known.insert(uid, report);
        Some(uid)
    }

    /// How many were not yet forgotten.
    pub(super) fn unsettled(&self) -> usize {
        self.known.len()
    }

    /// Drops what was recorded and forgotten.
    pub(super) fn forget(&mut self, uids: &[Uuid]) {
        for uid in uids {
            self.bytes -= self.known.remove(uid).map_or(0, |report| report.encoded_len());
        }
    }
}

/// Attempts before states before journal records: progress of a state already known has its sequence.
pub(crate) fn order(report: &OperationReport) -> (u32, u8, u64) {
    let state = match report.state() {
        OperationState::Unspecified => 0,
        OperationState::Accepted => 1,
        OperationState::Started => 2,
        OperationState::Withdrawn | OperationState::Finished => 3,
        OperationState::Tombstone => 4,
    };
    (report.attempt, state, report.journal_sequence)
}

/// What an agent tells of a pull, as statuses have it.
pub(crate) fn progress(pull: &PullProgress) -> Progress {
    let is_done = |status: &str| matches!(status, "Pull complete" | "Already exists");
    Progress {
        layers_done: pull.layers.iter().filter(|layer| is_done(&layer.status)).count() as u32,
        layers_total: pull.layers.len() as u32,
        layers: pull
            .layers
            .iter()
            .map(|layer| LayerProgress {
                id: layer.id.clone(),
                status: layer.status.clone(),
                current_bytes: layer.current_bytes,
                total_bytes: layer.total_bytes,
            })
            .collect(),
    }
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

        assert_eq!(reports.known.len(), MOST_REPORTS);
    }

    #[test]
    fn huge_reports_fill_a_bounded_memory_which_is_free_again_when_they_are_forgotten() {
        let mut reports = Reports::default();
        let large = |number: u128, size: usize| OperationReport {
            uid: Uuid::from_u128(number).to_string(),
            message: "x".repeat(size),
            ..OperationReport::default()
        };
        assert_eq!(reports.take(large(0, LARGEST)), None);

        let mut taken = Vec::new();
        for number in 1..1_000 {
            taken.extend(reports.take(large(number, 64 << 10)));
        }

        assert!(reports.bytes <= MOST_BYTES && taken.len() > 400, "{} in {}", taken.len(), reports.bytes);
        reports.forget(&taken);
        assert_eq!(reports.bytes, 0);
    }
}
