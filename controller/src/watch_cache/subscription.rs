//! A watch: a cursor over the shared window.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;

use super::WatchCache;
use crate::storage::{Change, Resource, Version};

/// Most changes handed out at once, and most bytes of their objects, so that a watcher that does not read holds little that has
/// left the window.
const BATCH: usize = 256;
pub(super) const BATCH_BYTES: usize = 256 << 10;
/// How often a watch without changes is told how far it is.
const PROGRESS: Duration = Duration::from_secs(30);

/// What a watcher is told next.
#[derive(Clone, Debug)]
pub enum Next {
    /// Changes in order, at least one.
    Changes(Vec<Change>),
    /// Nothing happened for a while; everything up to this version has been handed out.
    Progress(Version),
    /// Changes were forgotten before this watcher read them, or the database has another history: list again.
    TooSlow,
    /// The replica stops.
    Closed,
}

/// Every change after a version, each once, in order, or an end that says so.
pub struct Subscription {
    cache: WatchCache,
    resource: Resource,
    namespace: Option<Arc<str>>,
    name: Option<Arc<str>>,
    cursor: Version,
    reset: u64,
    wake: Option<Arc<Notify>>,
}

impl Subscription {
    pub(super) fn new(
        cache: WatchCache,
        resource: Resource,
        namespace: Option<&str>,
        name: Option<&str>,
        cursor: Version,
        reset: u64,
        wake: Arc<Notify>,
    ) -> Self {
        Self {
            cache,
            resource,
            namespace: namespace.map(Into::into),
            name: name.map(Into::into),
            cursor,
            reset,
            wake: Some(wake),
        }
    }

    /// Waits for the next thing to tell. Dropping the future loses nothing.
    pub async fn next(&mut self) -> Next {
        let deadline = tokio::time::Instant::now() + PROGRESS;
        loop {
            let Some(wake) = self.wake.clone() else { return Next::Closed };
            let mut woken = std::pin::pin!(wake.notified());
            // Registered before looking, so that a change between looking and waiting wakes.
            woken.as_mut().enable();
            if let Some(next) = self.look() {
                return next;
            }
            tokio::select! {
                () = woken => {}
                () = tokio::time::sleep_until(deadline) => {
                    return self.look().unwrap_or(Next::Progress(self.cursor));
                }
            }
        }
    }

    /// Everything up to this version has been handed out.
    pub fn progress(&self) -> Version {
        let state = self.cache.0.state.read();
        let is_waiting = state.reset == self.reset
            && state
                .shelves
                .get(&self.resource)
                .and_then(|shelf| shelf.lane(self.namespace.as_deref()))
                .is_some_and(|lane| {
                    lane.floor() <= self.cursor
                        && lane.after(self.cursor).all(|change| !self.concerns(change))
                });
        if is_waiting { self.cursor.max(state.version) } else { self.cursor }
    }

    /// What there is to tell now. Moves the cursor over everything it has looked at.
    fn look(&mut self) -> Option<Next> {
        let state = self.cache.0.state.read();
        if state.closed {
            return Some(Next::Closed);
        }
        let lane = state
            .shelves
            .get(&self.resource)
            .and_then(|shelf| shelf.lane(self.namespace.as_deref()))
            .filter(|lane| state.reset == self.reset && lane.floor() <= self.cursor);
        // The lane lives as long as its subscriptions, so its absence means a reset.
        let Some(lane) = lane else { return Some(Next::TooSlow) };
        let mut cursor = self.cursor.max(state.version);
        let (mut changes, mut bytes) = (Vec::new(), 0);
        for change in lane.after(self.cursor).filter(|change| self.concerns(change)) {
            bytes += change.object.json.len();
            changes.push(change.clone());
            if changes.len() == BATCH || bytes >= BATCH_BYTES {
                cursor = change.object.version;
                break;
            }
        }
        drop(state);
        self.cursor = cursor;
        (!changes.is_empty()).then_some(Next::Changes(changes))
    }

    fn concerns(&self, change: &Change) -> bool {
        self.name.as_ref().is_none_or(|name| *name == change.object.key.name)
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        self.wake = None;
        let Some(namespace) = &self.namespace else { return };
        if let Some(shelf) = self.cache.0.state.write().shelves.get_mut(&self.resource) {
            shelf.tidy(namespace);
        }
    }
}
