//! A history of writes and watches, recorded on three replicas and a real Postgres under faults, is held against the nine
//! properties of watches: ordered, unique, atomic, reliable, resumable, bookmarkable, filtered, no future, initial state.

mod checker;
mod clients;
mod faults;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicUsize, Ordering};
use std::time::Duration;

use gantry_controller::clock::{Entropy as _, SystemEntropy};
use gantry_controller::watch_cache::WindowLimits;
use http::Method;
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::world::history::check::violations;
use crate::world::history::recorder::Recorder;
use crate::world::history::{Event, History, Told, What};
use crate::world::replicas::Replicas;
use crate::world::storage::Database;

use clients::{Watcher, Writer};
use faults::{Fault, Faults};

const REPLICAS: usize = 3;
const NAMESPACES: [&str; 3] = ["red", "green", "blue"];
/// So few that a watcher who sleeps a second or two falls out of it.
const WINDOW: WindowLimits = WindowLimits { changes: 80, bytes: usize::MAX };

/// What clients and faults share.
pub struct World {
    pub replicas: Replicas,
    pub recorder: Recorder,
    /// Held for each write, so that a rewind can wait until none is under way.
    pub writing: tokio::sync::RwLock<()>,
    /// The newest version that any client was told of.
    pub known: AtomicI64,
    pub stop: AtomicBool,
    /// The newest version when the writers had stopped; 0 until then.
    pub last: AtomicI64,
    /// Writes and watch events so far.
    pub counted: AtomicUsize,
    /// Paths of the objects that the writers believe are there.
    pub living: parking_lot::Mutex<BTreeSet<String>>,
}

impl World {
    pub fn learn(&self, version: i64) {
        self.known.fetch_max(version, Ordering::SeqCst);
    }

    pub fn known(&self) -> i64 {
        self.known.load(Ordering::SeqCst)
    }

    pub fn is_stopping(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    pub fn count(&self) {
        self.counted.fetch_add(1, Ordering::Relaxed);
    }

    pub fn last(&self) -> Option<i64> {
        Some(self.last.load(Ordering::SeqCst)).filter(|last| *last > 0)
    }
}

/// Chance that a seed repeats. The schedule of threads it does not.
#[derive(Clone, Debug)]
pub struct Dice(u64);

impl Dice {
    pub fn new(seed: u64, who: u64) -> Self {
        let mut dice = Self(seed ^ who.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        dice.next();
        dice
    }

    fn next(&mut self) -> u64 {
        // SplitMix64.
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    pub fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    pub fn one_in(&mut self, bound: u64) -> bool {
        self.below(bound) == 0
    }

    pub fn pick<'a, T>(&mut self, from: &'a [T]) -> &'a T {
        &from[usize::try_from(self.below(from.len() as u64)).expect("an index")]
    }
}

/// How large a run is, at least.
struct Size {
    writers: u64,
    watchers: u64,
    /// How often each fault happens.
    rounds: usize,
    /// Between two faults, on average.
    peace: Duration,
    /// Writes and watch events.
    operations: usize,
}

/// Records a run under faults and checks it.
async fn record_and_check(size: Size) {
    let seed = std::env::var("GANTRY_SEED").ok().and_then(|seed| seed.parse().ok());
    let seed = seed.unwrap_or_else(|| SystemEntropy.below(1_000_000));
    println!("seed {seed}: GANTRY_SEED={seed} rolls the same dice");
    let started = Instant::now();
    let database = Database::start().await;
    let world = Arc::new(prepare(&database).await);

    let mut writers = JoinSet::new();
    let mut watchers = JoinSet::new();
    for number in 0..size.writers {
        writers.spawn(Writer::new(&world, Dice::new(seed, 100 + number), number).run());
    }
    for number in 0..size.watchers {
        watchers.spawn(Watcher::new(&world, Dice::new(seed, 1_000 + number), number).run());
    }
    let recording = tokio::spawn(record(Arc::clone(&world)));
    let mut faults = Faults::new(&world, database, Dice::new(seed, 7), size.peace);
    while faults.rounds() < size.rounds || world.counted.load(Ordering::Relaxed) < size.operations {
        faults.next().await;
    }
    faults.peace().await;
    world.stop.store(true, Ordering::SeqCst);

    let mut history = History::default();
    while let Some(writes) = writers.join_next().await {
        history.writes.extend(writes.expect("a writer ends"));
    }
    world.last.store(world.recorder.read_all().await, Ordering::SeqCst);
    while let Some(watcher) = watchers.join_next().await {
        let (streams, lists) = watcher.expect("a watcher ends");
        history.watchers.push(streams);
        history.lists.extend(lists);
    }
    recording.abort();
    history.lines = world.recorder.lines().await;
    report(&history, &faults, started.elapsed(), seed);

    let recorded = Instant::now();
    let violations = violations(&history);
    println!("checked in {:.1} s", recorded.elapsed().as_secs_f64());
    for violation in violations.iter().take(20) {
        println!("{:?}: {}", violation.property, violation.what);
    }
    assert!(violations.is_empty(), "seed {seed}: {} violations", violations.len());
    let count = history.writes.len() + history.events();
    assert!(count >= size.operations, "seed {seed}: only {count} operations");
    assert_eq!(history.lines.len(), 1 + faults.rewinds(), "every rewind begins a history");
}

/// Three replicas on the database, and the namespaces.
async fn prepare(database: &Database) -> World {
    let url = database.server.url();
    database.connect().await;
    database.partition_every(50).await;
    let world = World {
        replicas: Replicas::start(url.clone(), REPLICAS, WINDOW).await,
        recorder: Recorder::new(url, "configmaps"),
        writing: tokio::sync::RwLock::default(),
        known: AtomicI64::new(0),
        stop: AtomicBool::new(false),
        last: AtomicI64::new(0),
        counted: AtomicUsize::new(0),
        living: parking_lot::Mutex::default(),
    };
    for namespace in NAMESPACES {
        let object = format!(r#"{{"metadata":{{"name":"{namespace}"}}}}"#);
        let replica = world.replicas.get(0).expect("it serves");
        let made = replica.call(Method::POST, "/api/v1/namespaces", "application/json", object).await;
        assert_eq!(made.expect("an answer").0, 201);
    }
    world
}

/// Keeps the recorder near the log's end.
async fn record(world: Arc<World>) {
    loop {
        // A database that is away is asked again.
        let _ = world.recorder.read().await;
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Tells what was recorded.
fn report(history: &History, faults: &Faults, took: Duration, seed: u64) {
    let told = |wanted: fn(&Told) -> bool| history.writes.iter().filter(|write| wanted(&write.told)).count();
    let events = |wanted: fn(&Event) -> bool| {
        history
            .watchers
            .iter()
            .flatten()
            .flat_map(|stream| &stream.events)
            .filter(|event| wanted(event))
            .count()
    };
    println!(
        "{} writes: {} acknowledged, {} refused, {} unknown",
        history.writes.len(),
        told(|told| matches!(told, Told::Stored(_) | Told::Deleted(_))),
        told(|told| matches!(told, Told::Refused)),
        told(|told| matches!(told, Told::Unknown)),
    );
    println!(
        "{} watch events: {} changes, {} bookmarks, {} times 410",
        history.events(),
        events(|event| matches!(event.what, What::Change(..))),
        events(|event| matches!(event.what, What::Bookmark { .. })),
        events(|event| matches!(event.what, What::Expired)),
    );
    let streams: Vec<_> = history.watchers.iter().flatten().collect();
    let resumed = streams.iter().filter(|stream| stream.continues).count();
    println!("{} watches, {resumed} of them resumed; {} lists", streams.len(), history.lists.len());
    let kinds: Vec<_> =
        Fault::ALL.iter().map(|fault| format!("{fault:?} {}", faults.count(*fault))).collect();
    println!("faults: {}; {} histories", kinds.join(", "), history.lines.len());
    println!("{} times a replica was behind what was compacted", faults.fallen_behind);
    println!("seed {seed}: {:.1} s", took.as_secs_f64());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_watchers_on_three_replicas_saw_under_faults_is_what_was_committed() {
    record_and_check(Size {
        writers: 8,
        watchers: 24,
        rounds: 1,
        peace: Duration::from_millis(600),
        operations: 5_000,
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "long: make chaos"]
async fn two_hundred_thousand_operations_under_faults_keep_the_nine_properties() {
    record_and_check(Size {
        writers: 12,
        watchers: 36,
        rounds: 3,
        peace: Duration::from_secs(4),
        operations: 200_000,
    })
    .await;
}
