//! What happens to the replicas and the database while clients write and watch.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use gantry_controller::storage::Retention;
use gantry_controller::storage::audit::Record;
use gantry_controller::storage::postgres::Postgres;
use tokio::time::Instant;

use super::{Dice, REPLICAS, World};
use crate::world::storage::Database;

/// What of the log compaction leaves.
const KEPT: Retention = Retention { versions: 10, age: Duration::ZERO };

/// Versions that a replica misses at least, if they come in time.
const BEHIND: i64 = 120;
const FALLING: Duration = Duration::from_secs(3);

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fault {
    /// Postgres ends at once and recovers.
    Crash,
    /// A replica ends at once, and another takes its place.
    Kill,
    /// Old changes are dropped from the log.
    Compact,
    /// A replica cannot read the log until what it has not read is dropped.
    FallBehind,
    /// An earlier state of the disk comes back while the replicas run.
    Rewind,
    /// An earlier state comes back as the manual says: no replica runs, and a new history is begun.
    Restore,
}

impl Fault {
    pub const ALL: [Self; 6] =
        [Self::Crash, Self::Kill, Self::Compact, Self::FallBehind, Self::Rewind, Self::Restore];
}

/// The faults of one run.
pub struct Faults {
    world: Arc<World>,
    database: Database,
    dice: Dice,
    /// Between two faults, on average.
    peace: Duration,
    /// Kinds that come before any comes again.
    left: Vec<Fault>,
    done: BTreeMap<Fault, usize>,
    /// How often a replica could not but start anew, since what it had not read was gone.
    pub fallen_behind: usize,
}

impl Faults {
    pub fn new(world: &Arc<World>, database: Database, dice: Dice, peace: Duration) -> Self {
        Self {
            world: Arc::clone(world),
            database,
            dice,
            peace,
            left: Vec::new(),
            done: BTreeMap::new(),
            fallen_behind: 0,
        }
    }

    pub fn count(&self, fault: Fault) -> usize {
        self.done.get(&fault).copied().unwrap_or_default()
    }

    /// The fewest times that any kind happened.
    pub fn rounds(&self) -> usize {
        Fault::ALL.iter().map(|fault| self.count(*fault)).min().unwrap_or_default()
    }

    /// How many times another history began.
    pub fn rewinds(&self) -> usize {
        self.count(Fault::Rewind) + self.count(Fault::Restore)
    }

    /// Some peace, and then one that did not happen since all others did.
    pub async fn next(&mut self) {
        if self.left.is_empty() {
            self.left = Fault::ALL.to_vec();
        }
        let next = *self.dice.pick(&self.left);
        self.left.retain(|fault| *fault != next);
        self.peace().await;
        self.happen(next).await;
        *self.done.entry(next).or_default() += 1;
    }

    /// A time without faults.
    pub async fn peace(&mut self) {
        let percent = 50 + u32::try_from(self.dice.below(100)).expect("a number");
        tokio::time::sleep(self.peace * percent / 100).await;
    }

    async fn happen(&mut self, fault: Fault) {
        match fault {
            Fault::Crash => self.crash().await,
            Fault::Kill => self.kill().await,
            Fault::Compact => drop(self.compact().await),
            Fault::FallBehind => self.fall_behind().await,
            Fault::Rewind => self.rewind().await,
            Fault::Restore => self.restore().await,
        }
    }

    async fn crash(&mut self) {
        self.database.server.crash().await.expect("it dies");
        self.database.server.resume().await.expect("it recovers");
    }

    fn replica(&mut self) -> usize {
        usize::try_from(self.dice.below(REPLICAS as u64)).expect("a number")
    }

    async fn kill(&mut self) {
        let number = self.replica();
        self.world.replicas.kill(number);
        tokio::time::sleep(Duration::from_millis(200)).await;
        self.world.replicas.start_anew(number).await;
    }

    /// Drops what the recorder has read; the newest version that is gone.
    async fn compact(&mut self) -> i64 {
        let number = self.replica();
        let world = Arc::clone(&self.world);
        let _quiet = world.writing.write().await;
        world.recorder.read_all().await;
        let replica = world.replicas.get(number).expect("it serves");
        // A reader of the log makes it give up, until the next time.
        replica.backend.compact(KEPT).await.map_or(0, |floor| floor.0)
    }

    async fn fall_behind(&mut self) {
        let number = self.replica();
        let replica = self.world.replicas.get(number).expect("it serves");
        replica.cut_off(true);
        let reached = self.world.recorder.read_all().await;
        let deadline = Instant::now() + FALLING;
        while self.world.recorder.read_all().await < reached + BEHIND && Instant::now() < deadline {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        // What the replica has not read begins after `reached` at the latest.
        if self.compact().await > reached {
            self.fallen_behind += 1;
        }
        replica.cut_off(false);
    }

    /// Waits until nobody writes, keeps that state, lets writers go on for a while, and waits again; the state's version.
    async fn save_and_go_on(&mut self) -> i64 {
        let world = Arc::clone(&self.world);
        let quiet = world.writing.write().await;
        let saved = world.recorder.read_all().await;
        self.database.save().await;
        drop(quiet);
        tokio::time::sleep(Duration::from_millis(700 + self.dice.below(700))).await;
        saved
    }

    async fn rewind(&mut self) {
        let saved = self.save_and_go_on().await;
        let world = Arc::clone(&self.world);
        let quiet = world.writing.write().await;
        world.recorder.read_all().await;
        world.recorder.set_back(saved).await;
        self.database.server.crash().await.expect("it dies");
        self.database.put_saved_back().await;
        drop(quiet);
        self.database.server.resume().await.expect("it recovers");
    }

    async fn restore(&mut self) {
        let saved = self.save_and_go_on().await;
        let world = Arc::clone(&self.world);
        let quiet = world.writing.write().await;
        world.recorder.read_all().await;
        world.recorder.set_back(saved).await;
        for number in 0..REPLICAS {
            world.replicas.kill(number);
        }
        self.database.server.crash().await.expect("it dies");
        self.database.put_saved_back().await;
        self.database.server.resume().await.expect("it recovers");
        let options = self.database.server.url().parse().expect("a URL");
        Postgres::begin_history(options, |_| restored()).await.expect("it is there");
        for number in 0..REPLICAS {
            world.replicas.start_anew(number).await;
        }
        drop(quiet);
    }
}

fn restored() -> Record {
    Record {
        id: uuid::Uuid::nil(),
        user: String::new(),
        action: "store_restore".to_owned(),
        resource: String::new(),
        namespace: String::new(),
        name: String::new(),
        instance: String::new(),
        outcome: "success".to_owned(),
        content: "{}".to_owned(),
    }
}
