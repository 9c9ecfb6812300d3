//! The inventory over lists that are counted.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures::StreamExt as _;
use futures::stream::BoxStream;
use gantry_agent::clock::{SystemClock, SystemEntropy};
use gantry_agent::docker::{DockerError, Happened, Listing};
use gantry_agent::inventory::Inventory;
use gantry_api::agent_v1::{
    Container, FollowInventoryRequest, Image, InfoResponse, InventoryUpdate, Network, Volume,
};
use parking_lot::Mutex;
use tokio::sync::mpsc;
use tokio_stream::wrappers::UnboundedReceiverStream;

/// What a follower has after all it was told.
#[derive(Debug, Default)]
struct Held {
    containers: BTreeMap<String, Container>,
    engine_answers: bool,
    last: InventoryUpdate,
}

struct Follower {
    updates: BoxStream<'static, InventoryUpdate>,
    held: Held,
}

impl Follower {
    fn of(inventory: &Inventory) -> Self {
        Self { updates: inventory.follow(FollowInventoryRequest::default()), held: Held::default() }
    }

    /// Reads until what is held is as wanted.
    async fn until(&mut self, wanted: impl Fn(&Held) -> bool) -> &Held {
        while !wanted(&self.held) {
            let update = tokio::time::timeout(Duration::from_secs(900), self.updates.next()).await;
            let update = update.expect("told in time").expect("does not end");
            if update.begins {
                self.held.containers.clear();
            }
            for container in &update.containers {
                self.held.containers.insert(container.id.clone(), container.clone());
            }
            for id in &update.containers_gone {
                self.held.containers.remove(id);
            }
            self.held.engine_answers = update.engine_answers;
            self.held.last = update;
        }
        &self.held
    }
}

/// An engine of which only lists are asked.
#[derive(Default)]
struct Lists {
    containers: Mutex<BTreeMap<String, Container>>,
    /// `all`, or how many ids.
    asked: Mutex<Vec<String>>,
    is_away: Mutex<bool>,
    happened: Mutex<Option<UnboundedReceiverStream<Happened>>>,
}

#[async_trait]
impl Listing for Lists {
    async fn containers(
        &self,
        ids: Option<&BTreeSet<String>>,
        _now: i64,
    ) -> Result<Vec<Container>, DockerError> {
        self.asked.lock().push(ids.map_or_else(|| "all".to_owned(), |ids| ids.len().to_string()));
        if *self.is_away.lock() {
            return Err(DockerError::Silent(Duration::ZERO));
        }
        let containers = self.containers.lock();
        let is_asked = |one: &&Container| ids.is_none_or(|ids| ids.contains(&one.id));
        Ok(containers.values().filter(is_asked).cloned().collect())
    }

    async fn images(&self) -> Result<Vec<Image>, DockerError> {
        Ok(Vec::new())
    }

    async fn networks(&self) -> Result<Vec<Network>, DockerError> {
        Ok(Vec::new())
    }

    async fn volumes(&self) -> Result<Vec<Volume>, DockerError> {
        Ok(Vec::new())
    }

    fn happenings(&self) -> BoxStream<'static, Happened> {
        self.happened.lock().take().expect("followed once").boxed()
    }
}

struct World {
    lists: Arc<Lists>,
    happen: mpsc::UnboundedSender<Happened>,
    inventory: Inventory,
}

impl World {
    fn with(number: u32) -> Self {
        let (happen, happened) = mpsc::unbounded_channel();
        let lists = Arc::new(Lists::default());
        *lists.happened.lock() = Some(UnboundedReceiverStream::new(happened));
        for number in 0..number {
            lists.put(&number.to_string(), "running");
        }
        let inventory = Inventory::keep(lists.clone(), Arc::new(SystemClock), Arc::new(SystemEntropy));
        Self { lists, happen, inventory }
    }

    fn tell(&self, ids: &[&str]) {
        let containers = ids.iter().map(|id| (*id).to_owned()).collect();
        self.happen.send(Happened { containers, ..Happened::default() }).expect("somebody follows");
    }
}

impl Lists {
    fn put(&self, id: &str, state: &str) {
        let container = Container { id: id.to_owned(), state: state.to_owned(), ..Container::default() };
        self.containers.lock().insert(id.to_owned(), container);
    }
}

#[tokio::test(start_paused = true)]
async fn a_thousand_containers_cost_one_list_and_an_event_one_look_at_what_it_names() {
    let world = World::with(1_000);
    let mut follower = Follower::of(&world.inventory);
    follower.until(|held| held.last.is_complete && held.containers.len() == 1_000).await;

    world.lists.put("7", "exited");
    world.lists.containers.lock().remove("8");
    world.tell(&["7", "8"]);
    let held = follower.until(|held| held.containers.len() == 999).await;

    assert_eq!(held.containers["7"].state, "exited");
    assert_eq!(*world.lists.asked.lock(), ["all", "2"]);
}

#[tokio::test(start_paused = true)]
async fn what_no_event_told_of_is_found_by_the_next_list_or_by_the_engines_own_count() {
    let world = World::with(1);
    let mut follower = Follower::of(&world.inventory);
    follower.until(|held| held.last.is_complete).await;

    world.lists.put("secret", "exited");
    world.inventory.compare(&InfoResponse {
        containers_running: 1,
        containers_stopped: 1,
        ..InfoResponse::default()
    });
    follower.until(|held| held.containers.contains_key("secret")).await;

    world.lists.put("0", "exited");
    let before = tokio::time::Instant::now();
    follower.until(|held| held.containers["0"].state == "exited").await;
    assert!(before.elapsed() > Duration::from_secs(60), "by nothing but the clock");
}

#[tokio::test(start_paused = true)]
async fn an_engine_that_is_away_leaves_what_is_known_and_says_so() {
    let world = World::with(2);
    let mut follower = Follower::of(&world.inventory);
    follower.until(|held| held.engine_answers).await;

    *world.lists.is_away.lock() = true;
    world.happen.send(Happened::everything()).expect("somebody follows");
    let held = follower.until(|held| !held.engine_answers).await;
    assert_eq!(held.containers.len(), 2);

    world.lists.put("new", "running");
    *world.lists.is_away.lock() = false;
    follower.until(|held| held.engine_answers && held.containers.len() == 3).await;
}

#[tokio::test(start_paused = true)]
async fn a_follower_that_reads_nothing_for_a_thousand_changes_begins_anew_and_ends_with_the_truth() {
    let world = World::with(3);
    let (mut slow, mut quick) = (Follower::of(&world.inventory), Follower::of(&world.inventory));
    slow.until(|held| held.last.is_complete).await;
    quick.until(|held| held.last.is_complete).await;

    for number in 0..1_000 {
        let state = format!("state-{number}");
        world.lists.put("1", &state);
        world.tell(&["1"]);
        quick.until(|held| held.containers["1"].state == state).await;
    }

    let updates = std::sync::atomic::AtomicU32::new(0);
    let held = slow
        .until(|held| {
            updates.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            held.containers.get("1").is_some_and(|one| one.state == "state-999")
        })
        .await;
    assert_eq!(held.containers.len(), 3);
    assert!(updates.into_inner() < 300, "it was not told of each");
}
