//! Whether the promise is kept: what engines, journals and the database see is told here, and weighed against the invariants.

mod ends;
mod journals;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use gantry_agent::docker::ImageReference;
use gantry_agent::journal::{Entry, Journal, Phase as Recorded};
use gantry_api::agent_v1::action::Action as Wire;
use gantry_api::condition::OperationReason as Reason;
use gantry_api::v1alpha1::{Action, DockerInstance, Operation, Phase};
use gantry_controller::storage::{ChangeKind, LoggedChange, Snapshot, Stored, Version};
use kube::ResourceExt as _;
use parking_lot::Mutex;
use tokio::time::Instant;
use uuid::Uuid;

use super::engine::Errand;
use super::trace::Trace;

pub use journals::Lineage;

const OPERATIONS: &str = "operations.gantry.dev";
const INSTANCES: &str = "dockerinstances.gantry.dev";

/// A broken promise.
#[derive(Clone, Debug)]
pub struct Violation {
    /// `I1`.
    pub invariant: &'static str,
    /// Whose.
    pub operation: Option<String>,
    /// What is so and must not be.
    pub what: String,
}

/// An effect that gives no reference to what it fetches.
pub(super) const PULL_BY_DIGEST: &str = "pull by digest";

/// Something an engine did for an Operation.
#[derive(Clone, Debug)]
pub(super) struct Effect {
    pub(super) what: String,
    pub(super) at: Duration,
}

/// What is known of an Operation.
#[derive(Clone, Debug)]
pub(super) struct Known {
    pub(super) operation: Operation,
    /// Its resource is gone.
    pub(super) is_gone: bool,
    pub(super) ended_at: Option<Duration>,
    /// A rewind took back some of what was known of it.
    pub(super) was_rewound: bool,
}

#[derive(Debug, Default)]
pub(super) struct State {
    pub(super) known: BTreeMap<Uuid, Known>,
    pub(super) names: BTreeMap<Uuid, String>,
    pub(super) effects: BTreeMap<Uuid, Vec<Effect>>,
    pub(super) violations: Vec<Violation>,
    /// Operations that a lost or copied journal may make run twice, and why.
    pub(super) excused: BTreeMap<Uuid, &'static str>,
    /// Containers that went when they ended, as they were made to.
    pub(super) removed_themselves: BTreeSet<String>,
    /// What no journal knows any more.
    pub(super) forgotten: BTreeSet<Uuid>,
    /// Journals that lost something, or of which there are two.
    pub(super) damaged_hosts: BTreeSet<String>,
    pub(super) instances: BTreeMap<String, DockerInstance>,
    pub(super) lost_instances: BTreeSet<String>,
    pub(super) lineages: BTreeMap<String, Lineage>,
    pub(super) rewinds: u32,
    /// Operations that were created, cancelled or abandoned, and the API said so.
    pub(super) acknowledged: BTreeMap<Uuid, Acknowledged>,
}

/// What a user was told.
#[derive(Clone, Copy, Debug, Default)]
pub struct Acknowledged {
    /// `spec.cancel`.
    pub cancel: bool,
    /// `spec.abandon`.
    pub abandon: bool,
    /// Deletion.
    pub delete: bool,
    /// Deletion was asked for, whatever became of the answer.
    pub may_be_deleted: bool,
}

/// What spoils evidence in a world, so that less can be demanded.
#[derive(Clone, Copy, Debug, Default)]
pub struct Spoiled {
    /// Somebody acts on containers past every Operation.
    pub by_outsiders: bool,
    /// Engines fail, lose answers, are restarted.
    pub by_engines: bool,
}

/// Weighs what it is told.
pub struct Checker {
    begun: Instant,
    trace: Arc<Trace>,
    state: Mutex<State>,
    /// Of every process there was.
    journals: Mutex<Vec<Journal>>,
    spoiled: Spoiled,
}

impl Checker {
    /// Knows nothing.
    pub fn new(trace: Arc<Trace>, spoiled: Spoiled) -> Arc<Self> {
        let (state, journals) = (Mutex::default(), Mutex::default());
        Arc::new(Self { begun: Instant::now(), trace, state, journals, spoiled })
    }

    /// There is one more journal.
    pub fn reads(&self, journal: Journal) {
        self.journals.lock().push(journal);
    }

    /// Everything that was found.
    pub fn violations(&self) -> Vec<Violation> {
        self.state.lock().violations.clone()
    }

    /// An Operation's name, for people.
    pub fn name(&self, uid: Uuid) -> String {
        self.state.lock().names.get(&uid).cloned().unwrap_or_else(|| uid.to_string())
    }

    /// What the user was told.
    pub fn is_acknowledged(&self, uid: Uuid, what: impl FnOnce(&mut Acknowledged)) {
        what(self.state.lock().acknowledged.entry(uid).or_default());
    }

    fn violated(
        &self,
        state: &mut State,
        invariant: &'static str,
        uid: Option<Uuid>,
        what: impl Into<String>,
    ) {
        let what = what.into();
        let operation = uid.map(|uid| state.names.get(&uid).cloned().unwrap_or_else(|| uid.to_string()));
        self.trace
            .tell(format!("VIOLATION {invariant} {}: {what}", operation.as_deref().unwrap_or_default()));
        state.violations.push(Violation { invariant, operation, what });
    }

    /// An engine is about to be asked: for which Operation, by the journal of the process that asks. `None` if for none.
    pub fn is_called(
        &self,
        process: &str,
        host: &str,
        journal: &Journal,
        named: &str,
        is_pull: bool,
    ) -> Option<Errand> {
        let started: Vec<(Uuid, Entry)> = journal.read(|ledger| {
            let started = ledger.entries().filter(|(_, entry)| entry.phase == Recorded::Started);
            started.map(|(uid, entry)| (*uid, entry.clone())).collect()
        });
        let about = |is_about: fn(&Entry, &str, bool) -> bool| -> Vec<(Uuid, Entry)> {
            started.iter().filter(|(_, entry)| is_about(entry, named, is_pull)).cloned().collect()
        };
        let mut started = about(is_about);
        if started.is_empty() {
            started = about(is_of_pull);
            started.truncate(1);
        }
        let mut state = self.state.lock();
        let state = &mut *state;
        let Some((uid, entry)) = started.first() else {
            self.violated(
                state,
                "I16",
                None,
                format!("{process} asks for a change of {named}, which no Operation in its journal names"),
            );
            return None;
        };
        if started.len() > 1 {
            let names: Vec<_> = started.iter().filter_map(|(uid, _)| state.names.get(uid).cloned()).collect();
            self.violated(
                state,
                "I4",
                Some(*uid),
                format!("{} are started on {named} at the same time", names.join(" and ")),
            );
        }
        self.may_be_called(state, *uid, entry, host);
        Some(Errand { uid: *uid, attempt: entry.request.attempt })
    }

    fn may_be_called(&self, state: &mut State, uid: Uuid, entry: &Entry, host: &str) {
        let Some(known) = state.known.get(&uid).cloned() else {
            if state.rewinds == 0 {
                self.violated(state, "I16", Some(uid), "it is called for and was never committed");
            }
            return;
        };
        let status = known.operation.status.clone().unwrap_or_default();
        let asked = entry.request.target.as_ref().map(|target| target.id.clone()).unwrap_or_default();
        let meant = status.target.as_ref().map(|target| target.id.clone()).unwrap_or_default();
        if !known.was_rewound && asked != meant {
            self.violated(state, "I12", Some(uid), format!("{asked} is asked for, {meant} was accepted"));
        }
        let was_given_up = known.operation.spec.abandon || state.lost_instances.contains(host);
        let is_excused = known.was_rewound || was_given_up || state.excused.contains_key(&uid);
        // What had started is settled, and for that may be asked for again.
        let may_have_started = status.phase == Phase::Failed
            && status.result.as_deref() == Some(Reason::OutcomeUnknown.as_str());
        if status.phase.is_final() && !is_excused && !may_have_started {
            self.violated(
                state,
                "I5",
                Some(uid),
                format!("it is called for after it ended {}", status.phase.as_str()),
            );
        } else if known.is_gone && !is_excused && !may_have_started {
            self.violated(state, "I5", Some(uid), "it is called for after it was deleted");
        }
    }

    /// A container went when it ended, and took with it what could be seen of it.
    pub fn removed_itself(&self, container: &str) {
        self.state.lock().removed_themselves.insert(container.to_owned());
    }

    /// An engine did something for an Operation.
    pub fn has_effect(&self, errand: Errand, on: &str, what: &str) {
        let mut state = self.state.lock();
        let state = &mut *state;
        let at = self.begun.elapsed();
        let name = state.names.get(&errand.uid).cloned().unwrap_or_default();
        self.trace.tell(format!("effect: {what} for {name} (attempt {}) on {}", errand.attempt, short(on)));
        let effects = state.effects.entry(errand.uid).or_default();
        effects.push(Effect { what: what.to_owned(), at });
        let is_twice = effects.len() > 1;
        let action = state.known.get(&errand.uid).map(|known| known.operation.spec.action);
        let is_once_only = matches!(action, Some(Action::Start | Action::Restart | Action::Kill));
        if is_twice && is_once_only && !state.excused.contains_key(&errand.uid) {
            let times: Vec<_> = state
                .effects
                .get(&errand.uid)
                .into_iter()
                .flatten()
                .map(|effect| format!("{} at {:.3}s", effect.what, effect.at.as_secs_f64()))
                .collect();
            self.violated(state, "I1", Some(errand.uid), times.join(", "));
        }
    }

    /// Something was committed.
    pub fn is_committed(&self, change: &LoggedChange, by: &str) {
        let mut state = self.state.lock();
        let state = &mut *state;
        match &*change.stored.key.resource.0 {
            OPERATIONS => {
                if let Some(operation) = read::<Operation>(&change.stored) {
                    let uid = change.stored.uid;
                    state.names.entry(uid).or_insert_with(|| operation.name_any());
                    self.operation_is_committed(state, uid, operation, change.kind, by);
                }
            }
            INSTANCES => {
                if let Some(instance) = read::<DockerInstance>(&change.stored) {
                    if change.kind == ChangeKind::Deleted {
                        state.lost_instances.insert(instance.name_any());
                    }
                    state.instances.insert(instance.name_any(), instance);
                }
            }
            _ => {}
        }
    }

    fn operation_is_committed(
        &self,
        state: &mut State,
        uid: Uuid,
        operation: Operation,
        kind: ChangeKind,
        by: &str,
    ) {
        let now = operation.status.clone().unwrap_or_default();
        let before = state.known.get(&uid).cloned();
        let then = before.as_ref().and_then(|known| known.operation.status.clone()).unwrap_or_default();
        if now.phase != then.phase
            || before.is_none()
            || kind == ChangeKind::Deleted
            || now.attempts != then.attempts
        {
            let name = state.names.get(&uid).cloned().unwrap_or_default();
            let what = match kind {
                ChangeKind::Deleted => "is gone".to_owned(),
                _ => format!(
                    "is {} {}, attempt {}: {}",
                    now.phase.as_str(),
                    now.result.clone().unwrap_or_default(),
                    now.attempts,
                    now.message.clone().unwrap_or_default()
                ),
            };
            self.trace.tell(format!("{by}: {name} {what}"));
        }
        if then.phase.is_final() && now.phase != then.phase {
            self.violated(
                state,
                "I3",
                Some(uid),
                format!("{} became {}", then.phase.as_str(), now.phase.as_str()),
            );
        }
        if now.attempts < then.attempts || now.observed_generation < then.observed_generation {
            self.violated(state, "I3", Some(uid), "attempts or observedGeneration fell");
        }
        let ends = now.phase.is_final() && !then.phase.is_final();
        if ends {
            self.may_end(state, uid, &operation, &then);
        }
        let ended_at =
            before.as_ref().and_then(|known| known.ended_at).or_else(|| ends.then(|| self.begun.elapsed()));
        let was_rewound = before.is_some_and(|known| known.was_rewound);
        let known = Known { operation, is_gone: kind == ChangeKind::Deleted, ended_at, was_rewound };
        state.known.insert(uid, known);
    }

    /// The database became what it was at `version`.
    pub fn is_rewound(&self, now: &Snapshot, version: Version) {
        let mut state = self.state.lock();
        let state = &mut *state;
        state.rewinds += 1;
        self.trace.tell(format!("the database is as it was at version {version}"));
        let present: BTreeMap<Uuid, Operation> = now
            .objects
            .iter()
            .filter(|stored| &*stored.key.resource.0 == OPERATIONS)
            .filter_map(|stored| Some((stored.uid, read(stored)?)))
            .collect();
        for (uid, known) in &mut state.known {
            match present.get(uid) {
                Some(operation)
                    if !known.is_gone
                        && operation.status == known.operation.status
                        && operation.spec == known.operation.spec => {}
                Some(operation) => {
                    known.operation = operation.clone();
                    known.is_gone = false;
                    known.was_rewound = true;
                    known.ended_at = None;
                }
                None => {
                    known.is_gone = true;
                    known.was_rewound = true;
                }
            }
        }
        state.excuse_what_nobody_knows();
        for told in state.acknowledged.values_mut() {
            *told = Acknowledged { may_be_deleted: told.may_be_deleted, ..Acknowledged::default() };
        }
    }
}

fn read<K: serde::de::DeserializeOwned>(stored: &Stored) -> Option<K> {
    serde_json::from_str(stored.text.as_deref().ok()?).ok()
}

fn short(id: &str) -> &str {
    id.get(..12).unwrap_or(id)
}

/// True if what was started may ask for a change of that.
fn is_about(entry: &Entry, named: &str, is_pull: bool) -> bool {
    let request = &entry.request;
    let Some(target) = &request.target else { return false };
    let is_of_pull =
        matches!(request.action.as_ref().and_then(|action| action.action.as_ref()), Some(Wire::ImagePull(_)));
    match (is_of_pull, is_pull) {
        (true, true) => ImageReference::parse(&target.name).is_ok_and(|asked| asked.to_string() == named),
        (true, false) | (false, true) => false,
        (false, false) => target.id == named,
    }
}

/// True if what was started is a pull that may, when it is repeated, fetch that by its digest, and tag what it fetched.
fn is_of_pull(entry: &Entry, named: &str, is_pull: bool) -> bool {
    let action = entry.request.action.as_ref().and_then(|action| action.action.as_ref());
    let is_exact = if is_pull { named.contains("@sha256:") } else { named.starts_with("sha256:") };
    is_exact && matches!(action, Some(Wire::ImagePull(_)))
}
