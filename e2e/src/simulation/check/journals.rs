//! What journals must never take back, and what a lost or copied one excuses.

use std::collections::BTreeMap;

use gantry_agent::journal::{Entry, Ledger, Phase as Recorded};
use uuid::Uuid;

use super::{Checker, State};

/// What was seen in one host's journal, over the processes that had it.
#[derive(Clone, Debug, Default)]
pub struct Lineage {
    token: (u64, u64),
    /// Attempt, and how far it was.
    ranks: BTreeMap<Uuid, (u32, u8)>,
}

impl Checker {
    /// Looks at a journal: what it said once it must say still.
    pub fn looks_at(&self, host: &str, ledger: &Ledger) {
        let mut state = self.state.lock();
        let state = &mut *state;
        let mut lineage = state.lineages.remove(host).unwrap_or_default();
        let token = ledger.token().map_or((0, 0), |token| (token.incarnation, token.epoch));
        if token < lineage.token {
            self.violated(
                state,
                "I10",
                None,
                format!("{host}'s token fell from {:?} to {token:?}", lineage.token),
            );
        }
        lineage.token = token;
        for (uid, rank) in &mut lineage.ranks {
            if rank.1 >= 2 && ledger.entry(uid).is_none() && ledger.tombstone(uid).is_none() {
                self.violated(state, "I9", Some(*uid), format!("{host} has forgotten that it ended"));
                *rank = (0, 0);
            }
        }
        for (uid, entry) in ledger.entries() {
            let is_ended = matches!(entry.phase, Recorded::Finished | Recorded::Withdrawn);
            let now = (
                entry.request.attempt,
                if is_ended { 2 } else { u8::from(entry.phase == Recorded::Started) },
            );
            let then = lineage.ranks.insert(*uid, now).unwrap_or_default();
            if now < then {
                self.violated(
                    state,
                    "I9",
                    Some(*uid),
                    format!("{host}'s journal went back from {then:?} to {now:?}"),
                );
            }
        }
        state.lineages.insert(host.to_owned(), lineage);
    }

    /// A host's journal becomes what it was. What it had started since, and nobody was told of, may start again.
    pub fn is_rolled_back(&self, host: &str, now: &Ledger, sequence: u64) {
        let mut state = self.state.lock();
        let state = &mut *state;
        state.lineages.remove(host);
        state.damaged_hosts.insert(host.to_owned());
        state.forget(now, |entry| entry.sequence > sequence);
        let told = told_of(state, now.journal_id());
        if told > sequence {
            return;
        }
        let lost: Vec<Uuid> =
            now.entries().filter(|(_, entry)| entry.sequence > sequence).map(|(uid, _)| *uid).collect();
        for uid in lost {
            state.excused.insert(uid, "its record was lost before anybody was told of it");
        }
    }

    /// A host's journal is copied to another. The two cannot know of each other.
    pub fn is_cloned(&self, host: &str, now: &Ledger) {
        let mut state = self.state.lock();
        state.damaged_hosts.insert(host.to_owned());
        for (uid, _) in now.entries() {
            state.excused.insert(*uid, "its journal was copied");
        }
    }

    /// A copy is gone, and with it what it alone knew.
    pub fn copy_is_gone(&self, now: &Ledger) {
        self.state.lock().forget(now, |_| true);
    }

    /// Two agents take turns at that host from now on.
    pub fn takes_turns(&self, host: &str) {
        self.state.lock().lineages.remove(host);
    }
}

impl State {
    /// What a journal has of these entries, and what it had let go of, nobody's journal knows any more.
    fn forget(&mut self, now: &Ledger, is_lost: impl Fn(&Entry) -> bool) {
        let is_forgotten = |uid: &&Uuid| match now.entry(uid) {
            Some(entry) => is_lost(entry),
            None => now.tombstone(uid).is_some(),
        };
        self.forgotten.extend(self.known.keys().filter(is_forgotten));
        self.excuse_what_nobody_knows();
    }

    /// Two memories hold what was done: the agent's journal and the store. What both have lost can be done twice.
    pub(super) fn excuse_what_nobody_knows(&mut self) {
        for uid in &self.forgotten {
            if self.known.get(uid).is_some_and(|known| known.was_rewound) {
                self.excused.insert(*uid, "the journal and the store have both lost it");
            }
        }
    }
}

/// The newest record of a journal that an Operation tells of.
fn told_of(state: &State, journal_id: &str) -> u64 {
    let present = state.known.values().filter(|known| !known.is_gone);
    let dispatches = present.filter_map(|known| known.operation.status.as_ref()?.dispatch.as_ref());
    dispatches
        .filter(|dispatch| dispatch.journal_id == journal_id)
        .filter_map(|dispatch| dispatch.journal_sequence)
        .max()
        .unwrap_or_default()
}
