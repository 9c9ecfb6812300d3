//! What the replica knows without asking the database: current objects, and a window of recent changes.
//!
//! Fed by the follower of the change log, read by everyone. A read takes a short lock and no I/O; a watch is a cursor over the
//! shared window, so a thousand watchers keep one copy, and each is woken only for its own resource and namespace.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::{Mutex, RwLock};
use tokio::sync::watch;
use tokio::time::Instant;

use crate::storage::{Change, Damaged, Key, Object, Resource, Version};

mod shelf;
mod subscription;
mod window;

use shelf::Shelf;
pub use subscription::{Next, Subscription};
use window::Window;
pub use window::WindowLimits;

/// The version asked for is older than the window: list again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("too old resource version: {asked} ({oldest})")]
pub struct Expired {
    /// What was asked for.
    pub asked: Version,
    /// The oldest version that can be answered.
    pub oldest: Version,
}

/// Objects at one version, sorted by namespace and name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listing {
    /// The objects.
    pub objects: Vec<Arc<Object>>,
    /// Objects that should be among them and cannot be read now.
    pub damaged: Vec<Key>,
    /// The version they are the state at.
    pub version: Version,
}

/// The watch cache. Cheap to clone; clones share everything.
#[derive(Clone)]
pub struct WatchCache(Arc<Shared>);

struct Shared {
    state: RwLock<State>,
    reached: watch::Sender<Version>,
    /// When the database last said that there is no more than this.
    confirmed: Mutex<Instant>,
}

struct State {
    version: Version,
    /// Where this history of the cache began; no change at or before it is known.
    began: Version,
    /// Counts resets; a subscription of an earlier one is over.
    reset: u64,
    closed: bool,
    shelves: HashMap<Resource, Shelf>,
    window: Window,
    /// What cannot be read, and is shown to nobody.
    damaged: BTreeMap<Key, Damaged>,
    /// Counts how often something was hidden.
    hidings: u64,
}

/// Equal as long as nothing of some resources has changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Revision {
    reset: u64,
    newest: Version,
    hidings: u64,
}

impl WatchCache {
    /// An empty cache, at version 0.
    pub fn new(limits: WindowLimits) -> Self {
        Self(Arc::new(Shared {
            state: RwLock::new(State {
                version: Version::default(),
                began: Version::default(),
                reset: 0,
                closed: false,
                shelves: HashMap::new(),
                window: Window::new(limits),
                damaged: BTreeMap::new(),
                hidings: 0,
            }),
            reached: watch::Sender::new(Version::default()),
            confirmed: Mutex::new(Instant::now()),
        }))
    }

    /// How far the log was read.
    pub fn version(&self) -> Version {
        self.0.state.read().version
    }

    /// How long ago the database last confirmed what is here.
    pub fn age(&self) -> Duration {
        self.0.confirmed.lock().elapsed()
    }

    /// The present state of an object.
    pub fn get(&self, key: &Key) -> Option<Arc<Object>> {
        let state = self.0.state.read();
        if state.damaged.contains_key(key) {
            return None;
        }
        state.shelves.get(&key.resource)?.get(&key.namespace, &key.name)
    }

    /// What is wrong with an object that cannot be read.
    pub fn damage_of(&self, key: &Key) -> Option<Damaged> {
        self.0.state.read().damaged.get(key).cloned()
    }

    /// The present objects of a resource, of one namespace or of all.
    pub fn list(&self, resource: &Resource, namespace: Option<&str>) -> Listing {
        let state = self.0.state.read();
        let objects = state.shelves.get(resource).map(|shelf| shelf.list(namespace)).unwrap_or_default();
        state.listing(resource, namespace, objects, state.version)
    }

    /// What there is of these resources now, for who keeps what it made of them: read it before the objects.
    pub(crate) fn revision(&self, resources: &[Resource]) -> Revision {
        let state = self.0.state.read();
        let shelves = resources.iter().filter_map(|resource| state.shelves.get(resource));
        let newest = shelves.map(Shelf::newest).max().unwrap_or(state.began);
        Revision { reset: state.reset, newest, hidings: state.hidings }
    }

    /// The objects as they were at an earlier version within the window.
    ///
    /// A version the cache has not reached is answered with the present state: await [`WatchCache::reached`] first.
    pub fn list_at(
        &self,
        resource: &Resource,
        namespace: Option<&str>,
        version: Version,
    ) -> Result<Listing, Expired> {
        let state = self.0.state.read();
        let oldest = state.oldest(resource, namespace);
        if version < oldest {
            return Err(Expired { asked: version, oldest });
        }
        let objects =
            state.shelves.get(resource).map(|shelf| shelf.list_at(namespace, version)).unwrap_or_default();
        Ok(state.listing(resource, namespace, objects, version.min(state.version)))
    }

    /// Waits until the cache holds that version; false if it did not within the time.
    pub async fn reached(&self, version: Version, timeout: Duration) -> bool {
        let mut reached = self.0.reached.subscribe();
        tokio::time::timeout(timeout, reached.wait_for(|at| *at >= version)).await.is_ok_and(|at| at.is_ok())
    }

    /// Every change after `from` of a resource, of one namespace or all, of one name or all.
    pub fn watch(
        &self,
        resource: &Resource,
        namespace: Option<&str>,
        name: Option<&str>,
        from: Version,
    ) -> Result<Subscription, Expired> {
        let mut state = self.0.state.write();
        let oldest = state.oldest(resource, namespace);
        if from < oldest {
            return Err(Expired { asked: from, oldest });
        }
        let reset = state.reset;
        let wake = state.shelf(resource).wake(namespace);
        drop(state);
        Ok(Subscription::new(self.clone(), resource.clone(), namespace, name, from, reset, wake))
    }

    /// The resource's name as the cache holds it, so that objects share it.
    pub(crate) fn known(&self, resource: &Resource) -> Option<Resource> {
        self.0.state.read().shelves.get_key_value(resource).map(|(known, _)| known.clone())
    }

    /// Replaces everything; every subscription ends as too slow, because what it missed is not known.
    pub(crate) fn reset(&self, objects: Vec<Arc<Object>>, damaged: Vec<Damaged>, version: Version) {
        *self.0.confirmed.lock() = Instant::now();
        let mut state = self.0.state.write();
        state.wake_all();
        let limits = state.window.limits();
        let reset = state.reset + 1;
        let closed = state.closed;
        *state = State {
            version,
            began: version,
            reset,
            closed,
            shelves: HashMap::new(),
            window: Window::new(limits),
            damaged: damaged.into_iter().map(|damaged| (damaged.key.clone(), damaged)).collect(),
            hidings: 0,
        };
        for object in objects {
            state.shelf(&object.key.resource).put(object);
        }
        drop(state);
        self.0.reached.send_replace(version);
    }

    /// Hides objects whose newest state cannot be read, until they get one that can.
    pub(crate) fn damage(&self, damaged: Vec<Damaged>) {
        if !damaged.is_empty() {
            let damaged = damaged.into_iter().map(|damaged| (damaged.key.clone(), damaged));
            let mut state = self.0.state.write();
            state.damaged.extend(damaged);
            state.hidings += 1;
        }
    }

    /// Takes changes in, in order, and declares that all up to `version` are there.
    pub(crate) fn extend(&self, changes: Vec<Change>, version: Version) {
        *self.0.confirmed.lock() = Instant::now();
        if changes.is_empty() && version == self.version() {
            return;
        }
        let mut state = self.0.state.write();
        for change in changes {
            let resource = change.object.key.resource.clone();
            if state
                .damaged
                .get(&change.object.key)
                .is_some_and(|damaged| damaged.version < change.object.version)
            {
                state.damaged.remove(&change.object.key);
            }
            let bytes = change.object.json.len();
            state.shelf(&resource).extend(change);
            state.window.entered(resource, bytes);
        }
        while let Some(resource) = state.window.leaves() {
            if let Some(shelf) = state.shelves.get_mut(&resource) {
                shelf.evict();
            }
        }
        state.version = version;
        drop(state);
        self.0.reached.send_replace(version);
    }

    /// Ends every subscription: the replica stops.
    pub(crate) fn close(&self) {
        let mut state = self.0.state.write();
        state.closed = true;
        state.wake_all();
    }
}

impl State {
    fn shelf(&mut self, resource: &Resource) -> &mut Shelf {
        let began = self.began;
        self.shelves.entry(resource.clone()).or_insert_with(|| Shelf::new(began))
    }

    /// The oldest version whose every later change is in the window.
    fn oldest(&self, resource: &Resource, namespace: Option<&str>) -> Version {
        self.shelves.get(resource).map_or(self.began, |shelf| shelf.oldest(namespace))
    }

    fn listing(
        &self,
        resource: &Resource,
        namespace: Option<&str>,
        mut objects: Vec<Arc<Object>>,
        version: Version,
    ) -> Listing {
        let is_here = |key: &&Key| {
            key.resource == *resource && namespace.is_none_or(|namespace| *key.namespace == *namespace)
        };
        let damaged: Vec<Key> = self.damaged.keys().filter(is_here).cloned().collect();
        if !damaged.is_empty() {
            objects.retain(|object| !damaged.contains(&object.key));
        }
        Listing { objects, damaged, version }
    }

    fn wake_all(&self) {
        for shelf in self.shelves.values() {
            shelf.wake_all();
        }
    }
}

#[cfg(test)]
mod tests;
