//! How an instance's Operations stand when its agent comes back: which may start, which must not, what its journal must hold.

use std::collections::HashSet;

use gantry_api::agent_v1::Permit;
use gantry_api::v1alpha1::Operation;
use jiff::Timestamp;
use kube::ResourceExt as _;
use uuid::Uuid;

/// Facts from one list of the instance's Operations.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Standing {
    /// Those that have a resource.
    pub known: HashSet<Uuid>,
    /// Those the agent may have and must not start.
    pub withdrawn: Vec<String>,
    /// The only ones that may still start from the agent's journal.
    pub permits: Vec<Permit>,
    /// The newest record of that journal anybody was told of.
    newest_record: u64,
}

impl Standing {
    /// Weighs Operations that name the instance with that uid, whose agent has that journal.
    pub fn of(operations: &[Operation], instance: Uuid, journal_id: &str, now: Timestamp) -> Self {
        let mut standing = Self::default();
        for operation in operations {
            let Some(uid) = operation.uid().and_then(|uid| uid.parse().ok()) else { continue };
            standing.known.insert(uid);
            let status = operation.status.as_ref();
            let Some(dispatch) = status.and_then(|status| status.dispatch.as_ref()) else { continue };
            if dispatch.journal_id == journal_id {
                standing.newest_record =
                    standing.newest_record.max(dispatch.journal_sequence.unwrap_or_default());
            }
            let was_sent_here =
                dispatch.instance_uid.is_empty() || dispatch.instance_uid == instance.to_string();
            let is_with_the_agent = status.is_some_and(|status| status.next_attempt_time.is_none());
            if is_final(operation) {
                continue;
            }
            if must_not_start(operation, now) {
                standing.withdrawn.push(uid.to_string());
            } else if was_sent_here && is_with_the_agent {
                standing.permits.push(Permit { uid: uid.to_string(), start_within_ms: left(operation, now) });
            }
        }
        standing
    }

    /// True if a journal that ends there has lost records that the agent once told of.
    pub fn is_ahead_of(&self, journal_sequence: u64) -> bool {
        self.newest_record > journal_sequence
    }
}

fn is_final(operation: &Operation) -> bool {
    operation.status.as_ref().is_some_and(|status| status.phase.is_final())
}

/// Cancelled, deleted, given up or too late before its end.
fn must_not_start(operation: &Operation, now: Timestamp) -> bool {
    operation.spec.cancel
        || operation.spec.abandon
        || operation.metadata.deletion_timestamp.is_some()
        || operation.must_start_by().is_some_and(|deadline| deadline <= now)
}

fn left(operation: &Operation, now: Timestamp) -> Option<u64> {
    let left = operation.must_start_by()?.duration_since(now).as_millis();
    Some(u64::try_from(left).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use gantry_api::v1alpha1::{
        Action, Dispatch, OperationSpec, OperationStatus, Phase, TargetKind, TargetReference,
    };
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

    use super::*;

    const HERE: Uuid = Uuid::from_u128(77);

    fn now() -> Timestamp {
        Timestamp::from_second(1_000).expect("in range")
    }

    fn operation(number: u128) -> Operation {
        let target = TargetReference { kind: TargetKind::Container, name: "web".to_owned() };
        let mut operation = Operation::new("o", OperationSpec::new("nuc-03", Action::Stop, target));
        operation.metadata.uid = Some(Uuid::from_u128(number).to_string());
        operation.metadata.creation_timestamp = Some(Time(Timestamp::from_second(900).expect("in range")));
        operation.status = Some(OperationStatus {
            dispatch: Some(Dispatch {
                journal_id: "j".to_owned(),
                journal_sequence: Some(40),
                instance_uid: HERE.to_string(),
                ..Dispatch::default()
            }),
            ..OperationStatus::default()
        });
        operation
    }

    fn permitted(operation: Operation) -> bool {
        let standing = Standing::of(&[operation], HERE, "j", now());
        assert_eq!(standing.known.len(), 1);
        !standing.permits.is_empty()
    }

    #[test]
    fn what_was_sent_here_and_is_still_wanted_may_start_in_the_time_that_is_left() {
        let standing = Standing::of(&[operation(1)], HERE, "j", now());

        let uid = Uuid::from_u128(1).to_string();
        assert_eq!(standing.permits, [Permit { uid, start_within_ms: Some(200_000) }]);
        assert_eq!(standing.withdrawn, Vec::<String>::new());
    }

    #[test]
    fn nothing_else_may_start() {
        let mut queued = operation(1);
        queued.status = None;
        let mut elsewhere = operation(1);
        elsewhere.status.as_mut().unwrap().dispatch.as_mut().unwrap().instance_uid = "another".to_owned();
        let mut between_attempts = operation(1);
        between_attempts.status.as_mut().unwrap().next_attempt_time = Some(Time(now()));
        let mut ended = operation(1);
        ended.status.as_mut().unwrap().phase = Phase::Succeeded;
        let mut cancelled = operation(1);
        cancelled.spec.cancel = true;
        let mut abandoned = operation(1);
        abandoned.spec.abandon = true;
        let mut deleted = operation(1);
        deleted.metadata.deletion_timestamp = Some(Time(now()));
        let mut late = operation(1);
        late.spec.start_deadline_seconds = 100;

        for operation in [queued, elsewhere, between_attempts, ended, cancelled, abandoned, deleted, late] {
            assert!(!permitted(operation.clone()), "{operation:?}");
        }
    }

    #[test]
    fn a_journal_that_ends_before_what_it_told_was_rolled_back() {
        let standing = Standing::of(&[operation(1)], HERE, "j", now());
        assert!(standing.is_ahead_of(39));
        assert!(!standing.is_ahead_of(40));

        let other = Standing::of(&[operation(1)], HERE, "another journal", now());
        assert!(!other.is_ahead_of(0));
    }
}
