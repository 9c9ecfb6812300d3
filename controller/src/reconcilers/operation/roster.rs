//! Which Operations wait for what: by host and by target, so that a pass need not look at all of them.
//!
//! Fed by the watch, and by passes that are about to dispatch. Rebuilt by the first list; only speed and order depend on it,
//! and how many are with an agent.

use std::collections::hash_map::Entry as Slot;
use std::collections::{BTreeSet, HashMap, HashSet};

use gantry_api::names::OPERATION_FINALIZER;
use gantry_api::v1alpha1::{Action, Operation, Phase, TargetReference};
use jiff::Timestamp;
use kube::ResourceExt as _;
use kube::runtime::reflector::ObjectRef;
use uuid::Uuid;

/// Operations that may be with one agent at a time.
pub(super) const SLOTS: usize = 20;

type Place = ObjectRef<Operation>;
/// Namespace and name of an instance.
type Host = (String, String);
/// Who comes first: the older one.
type Turn = (Option<Timestamp>, Uuid);

/// What two Operations may share.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Target {
    Named(TargetReference),
    Id(String),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Standing {
    /// Not with the agent: not yet, or until its next attempt.
    Waiting,
    WithAgent,
    /// Over; if it removed its target, since then.
    Ended {
        removed_at: Option<Timestamp>,
    },
}

struct Entry {
    host: Host,
    place: Place,
    turn: Turn,
    targets: Vec<Target>,
    standing: Standing,
    needs_its_agent: bool,
}

/// What is known of one host's Operations.
#[derive(Default)]
struct Queue {
    targets: HashMap<Target, Crowd>,
    with_agent: HashSet<Uuid>,
    /// About to be dispatched.
    reserved: HashSet<Uuid>,
    /// Found no slot.
    wants_slot: BTreeSet<Turn>,
    /// Not over, or still to be forgotten by the agent.
    unsettled: BTreeSet<Turn>,
}

/// Those that share a target.
#[derive(Default)]
struct Crowd {
    waiting: BTreeSet<Turn>,
    with_agent: BTreeSet<Turn>,
    removals: BTreeSet<(Timestamp, Uuid)>,
}

/// Names of others that matter to an Operation.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Neighbours {
    /// An unfinished one on the same target whose turn it is.
    pub goes_first: Option<String>,
    /// The newest Remove of the same name that succeeded since this one was created.
    pub removed_by: Option<String>,
}

#[derive(Default)]
pub(super) struct Roster {
    known: HashMap<Uuid, Entry>,
    queues: HashMap<Host, Queue>,
}

impl Entry {
    fn of(operation: &Operation, uid: Uuid) -> Self {
        let status = operation.status.as_ref();
        let standing = match status {
            Some(status) if status.phase.is_final() => {
                let has_removed = operation.spec.action == Action::Remove && status.phase == Phase::Succeeded;
                let ended = status.completion_time.as_ref().map(|time| time.0);
                Standing::Ended { removed_at: ended.filter(|_| has_removed) }
            }
            Some(status) if status.dispatch.is_some() && status.next_attempt_time.is_none() => {
                Standing::WithAgent
            }
            _ => Standing::Waiting,
        };
        let id = status.and_then(|status| status.target.as_ref()).map(|target| target.id.clone());
        let mut targets = vec![Target::Named(operation.spec.target.clone())];
        targets.extend(id.filter(|id| !id.is_empty()).map(Target::Id));
        Self {
            host: host(operation),
            place: ObjectRef::from_obj(operation),
            turn: (operation.metadata.creation_timestamp.as_ref().map(|time| time.0), uid),
            targets,
            standing,
            needs_its_agent: !matches!(standing, Standing::Ended { .. })
                || operation.finalizers().iter().any(|held| held == OPERATION_FINALIZER),
        }
    }
}

fn host(operation: &Operation) -> Host {
    (operation.namespace().unwrap_or_default(), operation.spec.instance_ref.name.clone())
}

impl Queue {
    fn put_in(&mut self, entry: &Entry) {
        let uid = entry.turn.1;
        for target in &entry.targets {
            let crowd = self.targets.entry(target.clone()).or_default();
            match entry.standing {
                Standing::Waiting => {
                    crowd.waiting.insert(entry.turn);
                }
                Standing::WithAgent => {
                    crowd.with_agent.insert(entry.turn);
                }
                Standing::Ended { removed_at } => {
                    crowd.removals.extend(removed_at.map(|removed| (removed, uid)));
                }
            }
            if crowd.is_empty() {
                self.targets.remove(target);
            }
        }
        if entry.standing == Standing::WithAgent {
            self.with_agent.insert(uid);
        }
        if entry.standing != Standing::Waiting {
            self.reserved.remove(&uid);
            self.wants_slot.remove(&entry.turn);
        }
        if entry.needs_its_agent {
            self.unsettled.insert(entry.turn);
        }
    }

    fn take_out(&mut self, entry: &Entry) {
        let uid = entry.turn.1;
        for target in &entry.targets {
            let Slot::Occupied(mut crowd) = self.targets.entry(target.clone()) else { continue };
            crowd.get_mut().waiting.remove(&entry.turn);
            crowd.get_mut().with_agent.remove(&entry.turn);
            if let Standing::Ended { removed_at: Some(removed) } = entry.standing {
                crowd.get_mut().removals.remove(&(removed, uid));
            }
            if crowd.get().is_empty() {
                crowd.remove();
            }
        }
        self.with_agent.remove(&uid);
        self.unsettled.remove(&entry.turn);
    }

    fn free(&self) -> usize {
        SLOTS.saturating_sub(self.with_agent.union(&self.reserved).count())
    }

    /// Those that a free slot has come for.
    fn next_for_slots(&mut self) -> Vec<Uuid> {
        let free = self.free();
        let next: Vec<Turn> = self.wants_slot.iter().take(free).copied().collect();
        self.wants_slot.retain(|turn| !next.contains(turn));
        next.into_iter().map(|turn| turn.1).collect()
    }

    fn is_empty(&self) -> bool {
        self.targets.is_empty() && self.unsettled.is_empty() && self.reserved.is_empty()
    }
}

impl Crowd {
    fn is_empty(&self) -> bool {
        self.waiting.is_empty() && self.with_agent.is_empty() && self.removals.is_empty()
    }
}

impl Roster {
    /// Takes in how an Operation is now. Returns those that may go on because of it.
    pub(super) fn update(&mut self, operation: &Operation, uid: Uuid) -> Vec<Place> {
        let entry = Entry::of(operation, uid);
        let before = self.take_out(uid);
        self.queues.entry(entry.host.clone()).or_default().put_in(&entry);
        let is_as_before = before.as_ref().is_some_and(|before| before.standing == entry.standing);
        let is_with_agent = entry.standing == Standing::WithAgent;
        self.known.insert(uid, entry);
        match before {
            Some(before) if !is_as_before && !is_with_agent => self.freed_by(&before),
            _ => Vec::new(),
        }
    }

    /// Takes out an Operation that is gone. Returns those that may go on because of it.
    pub(super) fn remove(&mut self, uid: Uuid) -> Vec<Place> {
        let Some(before) = self.take_out(uid) else { return Vec::new() };
        if let Some(queue) = self.queues.get_mut(&before.host) {
            queue.reserved.remove(&uid);
            queue.wants_slot.remove(&before.turn);
        }
        let freed = self.freed_by(&before);
        if self.queues.get(&before.host).is_some_and(Queue::is_empty) {
            self.queues.remove(&before.host);
        }
        freed
    }

    fn take_out(&mut self, uid: Uuid) -> Option<Entry> {
        let entry = self.known.remove(&uid)?;
        if let Some(queue) = self.queues.get_mut(&entry.host) {
            queue.take_out(&entry);
        }
        Some(entry)
    }

    /// The first in line for what that one held: its target and its slot.
    fn freed_by(&mut self, before: &Entry) -> Vec<Place> {
        let Some(queue) = self.queues.get_mut(&before.host) else { return Vec::new() };
        let crowds = before.targets.iter().filter_map(|target| queue.targets.get(target));
        let mut next: Vec<Uuid> =
            crowds.filter_map(|crowd| crowd.waiting.first()).map(|turn| turn.1).collect();
        next.extend(queue.next_for_slots());
        self.places(next)
    }

    fn places(&self, uids: impl IntoIterator<Item = Uuid>) -> Vec<Place> {
        uids.into_iter().filter_map(|uid| self.place(uid)).collect()
    }

    /// Where an Operation stands.
    pub(super) fn place(&self, uid: Uuid) -> Option<Place> {
        self.known.get(&uid).map(|entry| entry.place.clone())
    }

    /// Those of an instance that are not over, or that its agent has to forget; the oldest first.
    pub(super) fn unsettled(&self, namespace: &str, instance: &str) -> Vec<Place> {
        let queue = self.queues.get(&(namespace.to_owned(), instance.to_owned()));
        self.places(queue.into_iter().flat_map(|queue| &queue.unsettled).map(|turn| turn.1))
    }

    /// Those of all instances.
    pub(super) fn all_unsettled(&self) -> Vec<Place> {
        self.places(self.queues.values().flat_map(|queue| &queue.unsettled).map(|turn| turn.1))
    }

    /// Who shares the target with an Operation, by name or by the id that it means.
    pub(super) fn neighbours(&self, operation: &Operation, uid: Uuid, id: Option<&str>) -> Neighbours {
        let Some(queue) = self.queues.get(&host(operation)) else { return Neighbours::default() };
        let mine: Turn = (operation.metadata.creation_timestamp.as_ref().map(|time| time.0), uid);
        let named = queue.targets.get(&Target::Named(operation.spec.target.clone()));
        let same_id = id.and_then(|id| queue.targets.get(&Target::Id(id.to_owned())));
        let first = named.into_iter().chain(same_id).find_map(|crowd| {
            let with_agent = crowd.with_agent.iter().find(|turn| turn.1 != uid);
            with_agent.or_else(|| crowd.waiting.first().filter(|turn| **turn < mine))
        });
        let removal = named.and_then(|crowd| crowd.removals.last()).filter(|last| Some(last.0) >= mine.0);
        let name = |uid: Uuid| self.known.get(&uid).map(|entry| entry.place.name.clone());
        Neighbours {
            goes_first: first.and_then(|turn| name(turn.1)),
            removed_by: removal.and_then(|(_, uid)| name(*uid)),
        }
    }

    /// Takes a slot for an Operation that is about to be dispatched; without one it is told when one is free.
    ///
    /// The slot is held until the watch shows the dispatch, or [`Roster::release`].
    pub(super) fn reserve(&mut self, uid: Uuid) -> bool {
        let Some(entry) = self.known.get(&uid) else { return false };
        let Some(queue) = self.queues.get_mut(&entry.host) else { return false };
        if !queue.with_agent.contains(&uid) && !queue.reserved.contains(&uid) && queue.free() == 0 {
            queue.wants_slot.insert(entry.turn);
            return false;
        }
        queue.wants_slot.remove(&entry.turn);
        queue.reserved.insert(uid);
        true
    }

    /// Gives back the slot of an Operation that was not dispatched. Returns those that may go on because of it.
    pub(super) fn release(&mut self, uid: Uuid) -> Vec<Place> {
        let queue = self.known.get(&uid).and_then(|entry| self.queues.get_mut(&entry.host));
        let Some(queue) = queue else { return Vec::new() };
        queue.reserved.remove(&uid);
        let next = queue.next_for_slots();
        self.places(next)
    }
}

#[cfg(test)]
mod tests;
