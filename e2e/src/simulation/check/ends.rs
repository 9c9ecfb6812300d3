//! How an Operation may end, and that it does.

use std::collections::BTreeMap;
use std::time::Duration;

use gantry_api::condition::OperationReason as Reason;
use gantry_api::v1alpha1::{Action, Operation, OperationStatus, Phase};
use kube::ResourceExt as _;
use uuid::Uuid;

use super::{Checker, Effect, Known, PULL_BY_DIGEST, State};

impl Checker {
    /// I8: from the first dispatch on only the agent's word ends it, or a person's.
    pub(super) fn may_end(
        &self,
        state: &mut State,
        uid: Uuid,
        operation: &Operation,
        before: &OperationStatus,
    ) {
        let now = operation.status.clone().unwrap_or_default();
        let is_with_agent = before.dispatch.is_some() && before.next_attempt_time.is_none();
        let result = now.result.clone().unwrap_or_default();
        let host = &operation.spec.instance_ref.name;
        if !is_with_agent || result == Reason::OutcomeUnknown.as_str() {
            return;
        }
        let is_excused = operation.spec.abandon
            || state.lost_instances.contains(host)
            || state.damaged_hosts.contains(host)
            || state.rewinds > 0;
        let has_agents_word = self.recorded_end(uid);
        if !is_excused && !has_agents_word {
            self.violated(
                state,
                "I8",
                Some(uid),
                format!("it ended {} {result} without a word of its agent", now.phase.as_str()),
            );
        }
    }

    /// True if a journal says that it ended.
    fn recorded_end(&self, uid: Uuid) -> bool {
        self.journals.lock().iter().any(|journal| {
            journal.read(|ledger| {
                use gantry_agent::journal::Phase as Recorded;
                ledger.tombstone(&uid).is_some()
                    || ledger
                        .entry(&uid)
                        .is_some_and(|entry| matches!(entry.phase, Recorded::Finished | Recorded::Withdrawn))
            })
        })
    }

    /// Operations that have not ended.
    pub fn open(&self) -> Vec<String> {
        let state = self.state.lock();
        let open = state.known.values().filter(|known| !known.is_gone && !is_final(known));
        open.map(|known| known.operation.name_any()).collect()
    }

    /// How often what came of Operations, and how many effects they had.
    pub fn tally(&self) -> BTreeMap<String, usize> {
        let state = self.state.lock();
        let mut tally = BTreeMap::new();
        for known in state.known.values() {
            let status = known.operation.status.clone().unwrap_or_default();
            let mut what = format!("{} {}", status.phase.as_str(), status.result.unwrap_or_default());
            if known.is_gone && !status.phase.is_final() {
                // Deleted before it was sent, or never there in a history that was restored.
                what = format!("gone while {}", status.phase.as_str());
            }
            *tally.entry(what.trim().to_owned()).or_default() += 1;
        }
        tally.insert("effects".to_owned(), state.effects.values().map(Vec::len).sum());
        tally
    }

    /// Weighs everything that is known when a world is over.
    pub fn is_over(&self, patience: Duration) {
        let mut state = self.state.lock();
        let state = &mut *state;
        let known: Vec<(Uuid, Known)> =
            state.known.iter().map(|(uid, known)| (*uid, known.clone())).collect();
        for (uid, known) in &known {
            if !known.is_gone && !is_final(known) {
                let status = known.operation.status.clone().unwrap_or_default();
                let message = status.message.unwrap_or_default();
                self.violated(
                    state,
                    "I2",
                    Some(*uid),
                    format!("it is still {} {patience:?} after all faults: {message}", status.phase.as_str()),
                );
            } else if !known.was_rewound {
                self.result_is_kept(state, *uid, known);
            }
        }
        self.writes_survived(state);
    }

    /// I6: what the API acknowledged is there.
    fn writes_survived(&self, state: &mut State) {
        let acknowledged = state.acknowledged.clone();
        for (uid, told) in acknowledged {
            let Some(known) = state.known.get(&uid) else {
                self.violated(state, "I6", Some(uid), "its creation was acknowledged and it never was");
                continue;
            };
            if known.was_rewound {
                continue;
            }
            let (spec, is_gone) = (known.operation.spec.clone(), known.is_gone);
            let is_being_deleted = known.operation.metadata.deletion_timestamp.is_some();
            // Its time to be kept may be over.
            let is_kept = spec.ttl_seconds_after_finished > 10_000;
            if (told.cancel && !spec.cancel) || (told.abandon && !spec.abandon) {
                self.violated(state, "I6", Some(uid), "what was acknowledged is not in its spec");
            }
            if is_gone && is_kept && !told.may_be_deleted && !is_being_deleted {
                self.violated(state, "I6", Some(uid), "it is gone and nobody deleted it");
            }
            if told.delete && !is_gone && !is_being_deleted {
                self.violated(state, "I6", Some(uid), "its deletion was acknowledged and is not known");
            }
        }
    }

    /// Promise 2: what was done is not told as not done, and the outcome is unknown only where it cannot be known.
    fn result_is_kept(&self, state: &mut State, uid: Uuid, known: &Known) {
        let status = known.operation.status.clone().unwrap_or_default();
        let host = &known.operation.spec.instance_ref.name;
        let spec = &known.operation.spec;
        let result = status.result.clone().unwrap_or_default();
        // Layers that are here, and that no reference means, are not yet the image that was asked for.
        let asks_for_digest = spec.target.name.contains('@');
        let is_one = |effect: &&Effect| asks_for_digest || effect.what != PULL_BY_DIGEST;
        let effects = state.effects.get(&uid).into_iter().flatten().filter(is_one).count();
        let is_lost =
            state.damaged_hosts.contains(host) || state.lost_instances.contains(host) || spec.abandon;
        if is_lost || self.spoiled.by_outsiders || state.excused.contains_key(&uid) || !is_final(known) {
            return;
        }
        let is_unknown = result == Reason::OutcomeUnknown.as_str();
        let leaves_no_trace = spec.action == Action::Kill;
        // Docker's own error is a result, where nothing that can be seen contradicts it.
        let is_dockers_word = leaves_no_trace && result == Reason::DockerError.as_str();
        if effects > 0 && status.phase != Phase::Succeeded && !is_unknown && !is_dockers_word {
            self.violated(
                state,
                "result kept",
                Some(uid),
                format!(
                    "it was done, and ended {} {result}: {}",
                    status.phase.as_str(),
                    status.message.clone().unwrap_or_default()
                ),
            );
        }
        let target = status.target.as_ref().map(|target| target.id.as_str()).unwrap_or_default();
        let is_traceless = leaves_no_trace || state.removed_themselves.contains(target);
        if is_unknown && !is_traceless && !self.spoiled.by_engines {
            self.violated(
                state,
                "result kept",
                Some(uid),
                format!("its outcome could be known: {}", status.message.clone().unwrap_or_default()),
            );
        }
        let needs_a_call = matches!(spec.action, Action::Pause | Action::Rename | Action::Tag);
        if needs_a_call
            && status.phase == Phase::Succeeded
            && effects == 0
            && result == Reason::Succeeded.as_str()
        {
            self.violated(
                state,
                "result kept",
                Some(uid),
                format!("it was not done, and ended Succeeded: {}", status.message.unwrap_or_default()),
            );
        }
    }
}

fn is_final(known: &Known) -> bool {
    known.operation.status.as_ref().is_some_and(|status| status.phase.is_final())
}
