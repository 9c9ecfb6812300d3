//! One resource in the cache: its present objects, and its recent changes by namespace.

use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::ops::Bound;
use std::sync::Arc;

use tokio::sync::Notify;

use crate::storage::{Change, ChangeKind, Object, Version};

/// Namespace and name.
type Place = (Arc<str>, Arc<str>);

/// One resource.
pub(super) struct Shelf {
    objects: BTreeMap<Place, Arc<Object>>,
    everywhere: Lane,
    namespaces: HashMap<Arc<str>, Lane>,
    /// Of the last change.
    newest: Version,
}

/// The recent changes that one group of watchers sees.
pub(super) struct Lane {
    changes: VecDeque<Change>,
    /// The newest change that has left the lane; every later one is here.
    floor: Version,
    wake: Arc<Notify>,
}

impl Lane {
    fn new(floor: Version) -> Self {
        Self { changes: VecDeque::new(), floor, wake: Arc::default() }
    }

    fn push(&mut self, change: Change) {
        self.changes.push_back(change);
        self.wake.notify_waiters();
    }

    fn evict(&mut self) -> Option<Change> {
        let change = self.changes.pop_front()?;
        self.floor = change.object.version;
        Some(change)
    }

    /// True if nothing would be lost with the lane.
    fn is_unused(&self) -> bool {
        self.changes.is_empty() && Arc::strong_count(&self.wake) == 1
    }

    pub(super) fn floor(&self) -> Version {
        self.floor
    }

    /// The changes after a version.
    pub(super) fn after(&self, version: Version) -> impl Iterator<Item = &Change> {
        let first = self.changes.partition_point(|change| change.object.version <= version);
        self.changes.range(first..)
    }
}

impl Shelf {
    /// An empty shelf; no change at or before `began` is known.
    pub(super) fn new(began: Version) -> Self {
        Self {
            objects: BTreeMap::new(),
            everywhere: Lane::new(began),
            namespaces: HashMap::new(),
            newest: began,
        }
    }

    pub(super) fn get(&self, namespace: &Arc<str>, name: &Arc<str>) -> Option<Arc<Object>> {
        self.objects.get(&(Arc::clone(namespace), Arc::clone(name))).cloned()
    }

    /// Puts an object of a snapshot in.
    pub(super) fn put(&mut self, object: Arc<Object>) {
        self.objects.insert(place(&object), object);
    }

    /// Takes a change in and wakes who waits for it.
    pub(super) fn extend(&mut self, change: Change) {
        let place = place(&change.object);
        let before = match change.kind {
            ChangeKind::Deleted => self.objects.remove(&place),
            ChangeKind::Added | ChangeKind::Modified => {
                self.objects.insert(place.clone(), Arc::clone(&change.object))
            }
        };
        let change = Change { before, ..change };
        self.newest = change.object.version;
        let floor = self.everywhere.floor;
        self.namespaces.entry(place.0).or_insert_with(|| Lane::new(floor)).push(change.clone());
        self.everywhere.push(change);
    }

    /// Forgets the oldest change.
    pub(super) fn evict(&mut self) {
        let Some(change) = self.everywhere.evict() else { return };
        let Entry::Occupied(mut lane) = self.namespaces.entry(Arc::clone(&change.object.key.namespace))
        else {
            return;
        };
        lane.get_mut().evict();
        if lane.get().is_unused() {
            lane.remove();
        }
    }

    /// The version of the last change; where there was none, that at which the shelf began.
    pub(super) fn newest(&self) -> Version {
        self.newest
    }

    pub(super) fn list(&self, namespace: Option<&str>) -> Vec<Arc<Object>> {
        match namespace {
            None => self.objects.values().cloned().collect(),
            Some(namespace) => self.within(namespace).map(|(_, object)| Arc::clone(object)).collect(),
        }
    }

    /// The objects as they were at a version that is not below [`Shelf::oldest`].
    pub(super) fn list_at(&self, namespace: Option<&str>, version: Version) -> Vec<Arc<Object>> {
        let mut then: BTreeMap<Place, Option<Arc<Object>>> = BTreeMap::new();
        if let Some(lane) = self.lane(namespace) {
            for change in lane.after(version) {
                then.entry(place(&change.object)).or_insert_with(|| change.before.clone());
            }
        }
        if then.is_empty() {
            return self.list(namespace);
        }
        // Both are sorted, so that one walk puts what was then in the place of what is now.
        let mut then = then.into_iter().peekable();
        let mut objects = Vec::new();
        for object in self.list(namespace) {
            let here = (&object.key.namespace, &object.key.name);
            while let Some((_, before)) = then.next_if(|((namespace, name), _)| (namespace, name) < here) {
                objects.extend(before);
            }
            match then.next_if(|((namespace, name), _)| (namespace, name) == here) {
                Some((_, before)) => objects.extend(before),
                None => objects.push(object),
            }
        }
        objects.extend(then.filter_map(|(_, before)| before));
        objects
    }

    /// The oldest version whose every later change is known.
    pub(super) fn oldest(&self, namespace: Option<&str>) -> Version {
        self.lane(namespace).map_or(self.everywhere.floor, |lane| lane.floor)
    }

    /// What to wait on for the next change.
    pub(super) fn wake(&mut self, namespace: Option<&str>) -> Arc<Notify> {
        let floor = self.everywhere.floor;
        let lane = match namespace {
            None => &mut self.everywhere,
            Some(namespace) => self.namespaces.entry(namespace.into()).or_insert_with(|| Lane::new(floor)),
        };
        Arc::clone(&lane.wake)
    }

    /// Drops a namespace's lane if a watcher that has just gone was all that kept it.
    pub(super) fn tidy(&mut self, namespace: &str) {
        if self.namespaces.get(namespace).is_some_and(Lane::is_unused) {
            self.namespaces.remove(namespace);
        }
    }

    pub(super) fn lane(&self, namespace: Option<&str>) -> Option<&Lane> {
        match namespace {
            None => Some(&self.everywhere),
            Some(namespace) => self.namespaces.get(namespace),
        }
    }

    pub(super) fn wake_all(&self) {
        self.everywhere.wake.notify_waiters();
        for lane in self.namespaces.values() {
            lane.wake.notify_waiters();
        }
    }

    fn range(&self, namespace: &str) -> std::collections::btree_map::Range<'_, Place, Arc<Object>> {
        let first: Place = (namespace.into(), "".into());
        self.objects.range((Bound::Included(first), Bound::Unbounded))
    }

    fn within<'a>(&'a self, namespace: &'a str) -> impl Iterator<Item = (&'a Place, &'a Arc<Object>)> {
        self.range(namespace).take_while(move |(place, _)| *place.0 == *namespace)
    }
}

fn place(object: &Object) -> Place {
    (Arc::clone(&object.key.namespace), Arc::clone(&object.key.name))
}
