//! What there is on every host, as its agent told it last: in memory, never stored.
//!
//! Containers and images are objects of a watch cache of their own, so that lists, watches, selectors and pages of them are those of every
//! kind. Its versions mean nothing to another replica, nor after a restart: whoever shows one is told to list again. Of a host that cannot
//! be heard the last that is known stays, and says since when; of one that was never heard there is nothing, and lists say that.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use gantry_api::agent_v1::{FollowInventoryRequest, InventoryUpdate, RefreshInventoryResponse};
use jiff::Timestamp;
use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::clock::Entropy;
use crate::gateway::link::InstanceUid;
use crate::storage::{Change, ChangeKind, Key, Object, Version, at_version};
use crate::watch_cache::{WatchCache, WindowLimits};

pub mod following;
mod objects;

pub use objects::Sort;
use objects::{Made, Place};

/// Bits of a version that count; those above tell whose it is.
const COUNTING_BITS: u32 = 42;
/// Ways to tell.
const HISTORIES: u64 = 1 << 20;
/// Objects of one kind on one host. A host with more is not told of, and said not to be.
const MOST_OBJECTS: usize = 20_000;
/// Bytes of the containers and images of one host.
const MOST_BYTES: usize = 64 << 20;

/// What there is on every host. Clones share it.
#[derive(Clone)]
pub struct Inventories(Arc<Shared>);

struct Shared {
    cache: WatchCache,
    state: Mutex<State>,
    /// Something was told.
    taken: Notify,
}

struct State {
    version: Version,
    hosts: HashMap<InstanceUid, Host>,
}

/// One host.
struct Host {
    place: Place,
    /// Where its agent's own history is.
    epoch: u64,
    told: u64,
    /// Everything was told once.
    is_known: bool,
    stale_since: Option<Timestamp>,
    /// Names of the objects by Docker's ids, of each sort.
    names: HashMap<Sort, HashMap<String, Arc<str>>>,
    bytes: usize,
    /// What of a whole was told so far.
    seen: Option<BTreeSet<(Sort, String)>>,
}

/// Why an update was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "there is more on the host than can be followed: {MOST_OBJECTS} objects of a kind, {MOST_BYTES} bytes"
)]
pub struct TooMuch;

/// What is known of one sort of things on one host.
#[derive(Clone, Debug, Default)]
pub struct Known {
    /// The objects, by name.
    pub objects: Vec<Arc<Object>>,
    /// Since when the host cannot be heard.
    pub stale_since: Option<Timestamp>,
    /// The version they are the state at.
    pub version: Version,
}

impl Inventories {
    /// Knows nothing yet.
    pub fn new(entropy: &dyn Entropy) -> Self {
        let history = i64::try_from(entropy.below(HISTORIES - 1) + 1).unwrap_or(1);
        let version = Version(history << COUNTING_BITS);
        let cache = WatchCache::new(WindowLimits::default());
        cache.reset(Vec::new(), Vec::new(), version);
        let state = Mutex::new(State { version, hosts: HashMap::new() });
        Self(Arc::new(Shared { cache, state, taken: Notify::new() }))
    }

    /// What lists and watches are answered from.
    pub fn cache(&self) -> &WatchCache {
        &self.0.cache
    }

    /// True of versions of this history.
    pub fn has_given(&self, version: Version) -> bool {
        let newest = self.0.cache.version();
        version <= newest && version.0 >> COUNTING_BITS == newest.0 >> COUNTING_BITS
    }

    /// What there is of a sort on one host; `None` if it was never told.
    pub fn of(&self, instance: InstanceUid, sort: Sort) -> Option<Known> {
        let state = self.0.state.lock();
        let host = state.hosts.get(&instance).filter(|host| host.is_known)?;
        let names: BTreeSet<&Arc<str>> =
            host.names.get(&sort).into_iter().flat_map(HashMap::values).collect();
        let objects = names.into_iter().filter_map(|name| self.0.cache.get(&host.place.key(sort, name)));
        Some(Known { objects: objects.collect(), stale_since: host.stale_since, version: state.version })
    }

    /// The id of a container, which may be called by that, by its name, or by the beginning of an id that no other has.
    pub fn container(&self, instance: InstanceUid, called: &str) -> Option<String> {
        let state = self.0.state.lock();
        let host = state.hosts.get(&instance)?;
        let ids = host.names.get(&Sort::Containers)?;
        let name = host.place.name_of(called);
        let by_name = || ids.iter().find(|(_, known)| ***known == *name).map(|(id, _)| id);
        let by_beginning = || {
            let mut found = ids.keys().filter(|id| !called.is_empty() && id.starts_with(called));
            found.next().filter(|_| found.next().is_none())
        };
        let by_id = ids.get_key_value(called).map(|(id, _)| id);
        by_id.or_else(by_name).or_else(by_beginning).cloned()
    }

    /// True if everything of that host was told once.
    pub fn knows(&self, instance: InstanceUid) -> bool {
        self.0.state.lock().hosts.get(&instance).is_some_and(|host| host.is_known)
    }

    /// Those there are.
    fn instances(&self) -> Vec<InstanceUid> {
        self.0.state.lock().hosts.keys().copied().collect()
    }

    /// Waits until what an agent had at that point is here; false if it has not come in time.
    pub async fn reached(
        &self,
        instance: InstanceUid,
        at: &RefreshInventoryResponse,
        within: Duration,
    ) -> bool {
        let is_here = || {
            let state = self.0.state.lock();
            state.hosts.get(&instance).is_some_and(|host| {
                host.is_known && host.seen.is_none() && host.epoch == at.epoch && host.told >= at.version
            })
        };
        let wait = async {
            loop {
                let taken = self.0.taken.notified();
                let mut taken = std::pin::pin!(taken);
                taken.as_mut().enable();
                if is_here() {
                    return;
                }
                taken.await;
            }
        };
        tokio::time::timeout(within, wait).await.is_ok()
    }

    /// From where its agent should go on.
    fn from(&self, instance: InstanceUid) -> FollowInventoryRequest {
        let state = self.0.state.lock();
        let host = state.hosts.get(&instance).filter(|host| host.seen.is_none());
        host.map_or_else(FollowInventoryRequest::default, |host| FollowInventoryRequest {
            epoch: host.epoch,
            version: host.told,
        })
    }

    /// There is such an instance.
    fn add(&self, instance: InstanceUid, namespace: &Arc<str>, name: &Arc<str>) {
        let place = Place { instance, namespace: Arc::clone(namespace), name: Arc::clone(name) };
        self.0.state.lock().hosts.entry(instance).or_insert_with(|| Host::at(place));
    }

    /// Shows an instance as the Node that it is now.
    fn show_node(&self, instance: InstanceUid, object: &Object) {
        let mut state = self.0.state.lock();
        let version = state.version;
        let Some(host) = state.hosts.get(&instance) else { return };
        let mut changes = Changes::new(&self.0.cache, version);
        changes.put(objects::node_key(&host.place), objects::node(&host.place, object));
        state.version = changes.make();
    }

    /// There is no such instance any more.
    fn remove(&self, instance: InstanceUid) {
        let mut state = self.0.state.lock();
        let Some(host) = state.hosts.remove(&instance) else { return };
        let mut changes = Changes::new(&self.0.cache, state.version);
        for key in host.keys() {
            changes.delete(&key, None);
        }
        changes.delete(&objects::node_key(&host.place), Some(instance.0));
        state.version = changes.make();
    }

    /// Its agent cannot be asked any more; what is known stays.
    fn lose(&self, instance: InstanceUid, now: Timestamp) {
        let mut state = self.0.state.lock();
        let version = state.version;
        let Some(host) = state.hosts.get_mut(&instance) else { return };
        // What was told of an unfinished whole is known, and what it did not come to is the last that is.
        host.seen = None;
        let mut changes = Changes::new(&self.0.cache, version);
        host.mark(Some(now), &mut changes);
        state.version = changes.make();
    }

    /// Takes in what an agent told. Nothing is taken of an instance that there is not.
    fn take(&self, instance: InstanceUid, update: InventoryUpdate, now: Timestamp) -> Result<(), TooMuch> {
        let mut state = self.0.state.lock();
        let version = state.version;
        let Some(host) = state.hosts.get_mut(&instance) else { return Ok(()) };
        let mut changes = Changes::new(&self.0.cache, version);
        let taken = host.take(update, now, &mut changes);
        state.version = changes.make();
        drop(state);
        self.0.taken.notify_waiters();
        taken
    }
}

impl Host {
    fn at(place: Place) -> Self {
        Self {
            place,
            epoch: 0,
            told: 0,
            is_known: false,
            stale_since: None,
            names: HashMap::new(),
            bytes: 0,
            seen: None,
        }
    }

    fn take(
        &mut self,
        update: InventoryUpdate,
        now: Timestamp,
        changes: &mut Changes<'_>,
    ) -> Result<(), TooMuch> {
        if update.begins {
            self.seen = Some(BTreeSet::new());
        }
        let stale = (!update.engine_answers).then(|| self.stale_since.unwrap_or(now));
        self.mark(stale, changes);
        (self.epoch, self.told) = (update.epoch, update.version);
        // What is gone first: another may have its name already.
        let gone = [
            (Sort::Containers, update.containers_gone),
            (Sort::Images, update.images_gone),
            (Sort::Networks, update.networks_gone),
            (Sort::Volumes, update.volumes_gone),
        ];
        for (sort, ids) in gone {
            for id in ids {
                self.drop_one(sort, &id, changes);
            }
        }
        for told in update.containers {
            self.put(
                Sort::Containers,
                told.id.clone(),
                objects::container(&self.place, told, stale),
                changes,
            );
        }
        for told in update.images {
            self.put(Sort::Images, told.id.clone(), objects::image(&self.place, told, stale), changes);
        }
        for told in update.networks {
            self.put(Sort::Networks, told.id.clone(), objects::network(&self.place, told, stale), changes);
        }
        for told in update.volumes {
            self.put(Sort::Volumes, told.name.clone(), objects::volume(&self.place, told, stale), changes);
        }
        if update.is_complete {
            self.is_known = true;
            self.finish(changes);
        }
        let is_too_many = self.names.values().any(|names| names.len() > MOST_OBJECTS);
        if is_too_many || self.bytes > MOST_BYTES { Err(TooMuch) } else { Ok(()) }
    }

    fn keys(&self) -> impl Iterator<Item = Key> {
        self.names.iter().flat_map(|(sort, names)| names.values().map(|name| self.place.key(*sort, name)))
    }

    /// A whole has been told: what was not in it is gone.
    fn finish(&mut self, changes: &mut Changes<'_>) {
        let Some(seen) = self.seen.take() else { return };
        let known = self.names.iter().flat_map(|(sort, names)| names.keys().map(|id| (*sort, id.clone())));
        let missing: Vec<(Sort, String)> = known.filter(|known| !seen.contains(known)).collect();
        for (sort, id) in missing {
            self.drop_one(sort, &id, changes);
        }
    }

    fn put(&mut self, sort: Sort, id: String, made: Made, changes: &mut Changes<'_>) {
        if let Some(seen) = &mut self.seen {
            seen.insert((sort, id.clone()));
        }
        let names = self.names.entry(sort).or_default();
        if names.get(&id).is_some_and(|name| *name != made.name) {
            self.drop_one(sort, &id, changes);
        }
        let key = self.place.key(sort, &made.name);
        self.names.entry(sort).or_default().insert(id, Arc::clone(&made.name));
        let (before, after) = changes.put(key, made);
        self.bytes = self.bytes.saturating_sub(before) + after;
    }

    fn drop_one(&mut self, sort: Sort, id: &str, changes: &mut Changes<'_>) {
        let Some(name) = self.names.get_mut(&sort).and_then(|names| names.remove(id)) else { return };
        let uid = objects::uid(self.place.instance, sort, id);
        let freed = changes.delete(&self.place.key(sort, &name), Some(uid));
        self.bytes = self.bytes.saturating_sub(freed);
    }

    /// Says of all that is known whether it can be trusted still.
    fn mark(&mut self, stale: Option<Timestamp>, changes: &mut Changes<'_>) {
        if self.stale_since.is_some() == stale.is_some() {
            return;
        }
        self.stale_since = stale;
        for key in self.keys() {
            changes.mark(&key, stale);
        }
    }
}

/// Changes that are being gathered, and the objects as they are after them.
struct Changes<'a> {
    cache: &'a WatchCache,
    version: Version,
    made: Vec<Change>,
    /// The newest state of what was changed already.
    fresh: HashMap<Key, Option<Arc<Object>>>,
}

impl<'a> Changes<'a> {
    fn new(cache: &'a WatchCache, version: Version) -> Self {
        Self { cache, version, made: Vec::new(), fresh: HashMap::new() }
    }

    fn present(&self, key: &Key) -> Option<Arc<Object>> {
        self.fresh.get(key).cloned().unwrap_or_else(|| self.cache.get(key))
    }

    fn push(&mut self, kind: ChangeKind, object: Object) {
        let object = Arc::new(object);
        let is_there = kind != ChangeKind::Deleted;
        self.fresh.insert(object.key.clone(), is_there.then(|| Arc::clone(&object)));
        self.made.push(Change { kind, object, before: None });
    }

    fn next(&mut self) -> Version {
        self.version = Version(self.version.0 + 1);
        self.version
    }

    /// Bytes before and after.
    fn put(&mut self, key: Key, made: Made) -> (usize, usize) {
        let present = self.present(&key);
        let freed = present.as_ref().map_or(0, |object| object.json.len());
        let is_same = present.as_ref().is_some_and(|object| object.uid == made.uid);
        if is_same && present.as_ref().is_some_and(|present| made.is(present)) {
            return (freed, freed);
        }
        // Another of the same name is not this one in another state.
        if present.is_some() && !is_same {
            self.delete(&key, None);
        }
        let version = self.next();
        let Some(object) = made.at(key, version) else { return (freed, 0) };
        let bytes = object.json.len();
        self.push(if is_same { ChangeKind::Modified } else { ChangeKind::Added }, object);
        (freed, bytes)
    }

    /// Deletes an object, if it is that one; the bytes of it.
    fn delete(&mut self, key: &Key, uid: Option<uuid::Uuid>) -> usize {
        let present = self.present(key).filter(|object| uid.is_none_or(|uid| object.uid == uid));
        let Some(present) = present else { return 0 };
        let version = self.next();
        let json = at_version(&present.json, version).map_or_else(|| present.json.clone(), Into::into);
        self.push(ChangeKind::Deleted, Object { version, json, ..(*present).clone() });
        present.json.len()
    }

    fn mark(&mut self, key: &Key, stale: Option<Timestamp>) {
        let Some(present) = self.present(key) else { return };
        let Some(marked) = objects::marked(&present.json, stale) else { return };
        let version = self.next();
        let Some(json) = at_version(&marked, version).map(Into::into) else { return };
        self.push(ChangeKind::Modified, Object { version, json, ..(*present).clone() });
    }

    /// Lets everybody see them; the version they lead to.
    fn make(self) -> Version {
        if !self.made.is_empty() {
            self.cache.extend(self.made, self.version);
        }
        self.version
    }
}

#[cfg(test)]
mod tests;
