//! What there is on the host, kept up to date by the engine's events and told to whoever follows.
//!
//! A list at the start, when events may have been missed, and every few minutes in case none came; otherwise only what an event names is
//! looked at again. What is told is bounded: a follower that is too slow begins anew.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures::StreamExt as _;
use futures::stream::BoxStream;
use gantry_api::agent_v1::{FollowInventoryRequest, InfoResponse, InventoryUpdate, RefreshInventoryResponse};
use parking_lot::Mutex;
use tokio::sync::{Notify, broadcast, watch};
use tokio::time::{Instant, sleep, timeout_at};
use tokio_util::task::AbortOnDropHandle;

use crate::clock::{SharedClock, SharedEntropy};
use crate::docker::{DockerError, Happened, Listing};

mod state;

use state::{Listed, State};

/// Everything is listed anew this often, and up to a minute later.
const LIST_EVERY: Duration = Duration::from_secs(300);
const JITTER_MS: u64 = 60_000;
/// After events may have been missed, the list is taken within this time.
const SOON_MS: u64 = 500;
/// The first list, of an engine whose events cannot be heard.
const FIRST_WITHIN: Duration = Duration::from_secs(3);
/// Between two tries of a list that failed.
const RETRY: Duration = Duration::from_secs(5);
/// Updates that a slow follower may be behind.
const MOST_BEHIND: usize = 256;

/// The inventory. Clones share it.
#[derive(Clone)]
pub struct Inventory(Arc<Shared>);

struct Shared {
    state: Mutex<State>,
    updates: broadcast::Sender<Arc<InventoryUpdate>>,
    /// Somebody has reason to believe that it is not true any more.
    doubted: Notify,
    /// How many full lists were begun, and which of them was taken in last.
    begun: AtomicU64,
    taken: watch::Sender<u64>,
    keeper: Mutex<Option<AbortOnDropHandle<()>>>,
}

impl Inventory {
    /// Keeps it as long as a clone lives.
    pub fn keep(lists: Arc<dyn Listing>, clock: SharedClock, entropy: SharedEntropy) -> Self {
        let inventory = Self::of_epoch(entropy.below(u64::MAX - 1) + 1);
        let keeper = Keeper { shared: Arc::downgrade(&inventory.0), lists, clock, entropy };
        *inventory.0.keeper.lock() = Some(AbortOnDropHandle::new(tokio::spawn(keeper.run())));
        inventory
    }

    /// Of an engine that is never asked: nothing is ever known.
    pub fn unknown() -> Self {
        Self::of_epoch(1)
    }

    fn of_epoch(epoch: u64) -> Self {
        Self(Arc::new(Shared {
            state: Mutex::new(State::new(epoch)),
            updates: broadcast::channel(MOST_BEHIND).0,
            doubted: Notify::new(),
            begun: AtomicU64::new(0),
            taken: watch::Sender::new(0),
            keeper: Mutex::default(),
        }))
    }

    /// Compares with what the engine counts, so that what no event told of is found.
    pub fn compare(&self, info: &InfoResponse) {
        let is_so = self.0.state.lock().agrees_with(info);
        if !is_so {
            self.0.doubted.notify_one();
        }
    }

    /// Lists everything anew, and waits for it as long as it takes.
    pub async fn refresh(&self) -> RefreshInventoryResponse {
        let mut taken = self.0.taken.subscribe();
        let before = self.0.begun.load(Ordering::Acquire);
        self.0.doubted.notify_one();
        // The sender lives as long as `self`.
        taken.wait_for(|taken| *taken > before).await.ok();
        let (epoch, version) = self.0.state.lock().at();
        RefreshInventoryResponse { epoch, version }
    }

    /// The whole, or that the follower has it already; then every change.
    pub fn follow(&self, from: FollowInventoryRequest) -> BoxStream<'static, InventoryUpdate> {
        let (first, updates) = self.begin(Some(from));
        let follower = Follower { inventory: self.clone(), pending: first.into_iter(), updates };
        futures::stream::unfold(follower, |mut follower| async move {
            let next = follower.next().await?;
            Some((next, follower))
        })
        .boxed()
    }

    /// The present, and what comes after it.
    fn begin(
        &self,
        from: Option<FollowInventoryRequest>,
    ) -> (Vec<InventoryUpdate>, broadcast::Receiver<Arc<InventoryUpdate>>) {
        let state = self.0.state.lock();
        // Subscribed under the lock that updates are sent under, so that nothing falls between the two.
        (state.whole(from), self.0.updates.subscribe())
    }
}

struct Follower {
    inventory: Inventory,
    pending: std::vec::IntoIter<InventoryUpdate>,
    updates: broadcast::Receiver<Arc<InventoryUpdate>>,
}

impl Follower {
    async fn next(&mut self) -> Option<InventoryUpdate> {
        loop {
            if let Some(next) = self.pending.next() {
                return Some(next);
            }
            match self.updates.recv().await {
                Ok(update) => self.pending = state::parts(&update).into_iter(),
                Err(broadcast::error::RecvError::Lagged(_)) => {
                    let (first, updates) = self.inventory.begin(None);
                    (self.pending, self.updates) = (first.into_iter(), updates);
                }
                Err(broadcast::error::RecvError::Closed) => return None,
            }
        }
    }
}

struct Keeper {
    shared: std::sync::Weak<Shared>,
    lists: Arc<dyn Listing>,
    clock: SharedClock,
    entropy: SharedEntropy,
}

impl Keeper {
    async fn run(self) {
        let mut happenings = self.lists.happenings();
        // Sooner where its events can be heard, which is told.
        let mut next_list = Instant::now() + FIRST_WITHIN;
        loop {
            let Some(shared) = self.shared.upgrade() else { return };
            let mut asked = false;
            let happened = tokio::select! {
                happened = timeout_at(next_list, happenings.next()) => match happened {
                    Ok(Some(happened)) => happened,
                    Ok(None) => return,
                    Err(_) => Happened::everything(),
                },
                () = shared.doubted.notified() => {
                    asked = true;
                    Happened::everything()
                }
            };
            if happened.everything && !asked {
                sleep(Duration::from_millis(self.entropy.below(SOON_MS))).await;
            }
            let number =
                if happened.everything { shared.begun.fetch_add(1, Ordering::AcqRel) + 1 } else { 0 };
            match self.look(&happened).await {
                Ok(listed) => {
                    shared.tell(|state| state.take(listed, self.clock.now().as_second()));
                    if happened.everything {
                        shared.taken.send_replace(number);
                        next_list = Instant::now()
                            + LIST_EVERY
                            + Duration::from_millis(self.entropy.below(JITTER_MS));
                    }
                }
                Err(error) => {
                    tracing::debug!(%error, "the engine's lists are not to be had");
                    shared.tell(State::lose);
                    next_list = Instant::now() + RETRY;
                }
            }
        }
    }

    async fn look(&self, happened: &Happened) -> Result<Listed, DockerError> {
        let all = happened.everything;
        let now = self.clock.now().as_second();
        let mut listed = Listed::default();
        if all {
            listed.containers = Some(by(self.lists.containers(None, now).await?, |one| &one.id));
        } else if !happened.containers.is_empty() {
            let found = self.lists.containers(Some(&happened.containers), now).await?;
            let mut found = by(found, |one| &one.id);
            listed.some_containers =
                happened.containers.iter().map(|id| (id.clone(), found.remove(id))).collect();
        }
        if all || happened.images {
            listed.images = Some(by(self.lists.images().await?, |one| &one.id));
        }
        if all || happened.networks {
            listed.networks = Some(by(self.lists.networks().await?, |one| &one.id));
        }
        if all || happened.volumes {
            listed.volumes = Some(by(self.lists.volumes().await?, |one| &one.name));
        }
        Ok(listed)
    }
}

impl Shared {
    /// Changes the state and tells of it what changed.
    fn tell(&self, change: impl FnOnce(&mut State) -> Option<InventoryUpdate>) {
        let mut state = self.state.lock();
        if let Some(update) = change(&mut state) {
            // Nobody may be listening.
            self.updates.send(Arc::new(update)).ok();
        }
    }
}

fn by<T>(listed: Vec<T>, id: impl Fn(&T) -> &String) -> BTreeMap<String, T> {
    listed.into_iter().map(|one| (id(&one).clone(), one)).collect()
}
