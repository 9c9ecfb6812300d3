//! Resources on Postgres: every object in one table, every change in one ordered log. All SQL of the controller lives here.
//!
//! Versions are claimed in commit order from one locked counter row, without gaps, so a reader of the log can tell that it has them all.
//! Writes go through the group-commit writer; reads through the watch cache that follows the log. Nothing here knows HTTP,
//! kinds or rights; the one kind that is told apart is Secret, whose text is sealed before Postgres has it.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::{Notify, mpsc, oneshot};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::clock::SharedClock;
use crate::telemetry::metrics::Metrics;
use crate::watch_cache::{WatchCache, WindowLimits};

pub mod audit;
mod backend;
mod change_log;
mod compaction;
mod fields;
mod follower;
pub mod lease;
pub mod memory;
mod newest;
mod notify;
pub mod postgres;
pub mod recordings;
pub mod replicas;
mod reseal;
mod resources;
pub mod sealing;
mod texts;
mod types;
mod writer;

pub use backend::{Backend, Batch, Identity, LoggedChange, Position, Snapshot, StorageError, Stored, Tail};
pub use compaction::Retention;
pub use fields::FieldPaths;
pub use reseal::{Resealed, SETTLED};
pub use texts::{Mark, Texts};
pub use types::*;

use audit::{Question, Record, Recorded, Recorder, Waiting};
use follower::Follower;
use recordings::Tapes;
use writer::{Pending, Writer};

/// Writers that may wait before a caller has to.
const WRITE_QUEUE: usize = 1_024;
/// Events of no change that may wait to be recorded before a caller has to.
const RECORD_QUEUE: usize = 1_024;
/// Readers that may wait for one answer of [`Store::caught_up`] before a caller has to.
const NEWEST_QUEUE: usize = 1_024;
/// How long the cache may take to reach a version the database has.
const CATCH_UP_PATIENCE: Duration = Duration::from_secs(5);

/// The store of one replica: its backend, its writer, and the cache that follows the log. Cheap to clone.
#[derive(Clone)]
pub struct Store(Arc<Inner>);

struct Inner {
    cache: WatchCache,
    backend: Arc<dyn Backend>,
    writes: mpsc::Sender<Pending>,
    records: mpsc::Sender<Waiting>,
    questions: mpsc::Sender<newest::Waiter>,
    /// Makes the follower look at once.
    kick: Arc<Notify>,
    /// Ends the follower and refuses new questions.
    stop: CancellationToken,
    /// Ends the writer and the recorder, after what they were given is committed.
    stop_writes: CancellationToken,
    tasks: Mutex<Option<JoinSet<()>>>,
}

impl Store {
    /// Loads everything into the cache and starts the writer and the follower of the log.
    pub async fn start(
        backend: Arc<dyn Backend>,
        fields: FieldPaths,
        clock: SharedClock,
        metrics: Metrics,
    ) -> Result<Self, StorageError> {
        Self::start_with(backend, fields, clock, metrics, WindowLimits::default()).await
    }

    /// As [`Store::start`], with a window of another size.
    pub async fn start_with(
        backend: Arc<dyn Backend>,
        fields: FieldPaths,
        clock: SharedClock,
        metrics: Metrics,
        limits: WindowLimits,
    ) -> Result<Self, StorageError> {
        let fields = Arc::new(fields);
        let cache = WatchCache::new(limits);
        let kick = Arc::new(Notify::new());
        let stop = CancellationToken::new();
        let stop_writes = CancellationToken::new();
        let (writes, pending) = mpsc::channel(WRITE_QUEUE);
        let (records, waiting) = mpsc::channel(RECORD_QUEUE);
        let (questions, waiters) = mpsc::channel(NEWEST_QUEUE);

        let mut follower = Follower::new(
            Arc::clone(&backend),
            cache.clone(),
            Arc::clone(&fields),
            Arc::clone(&kick),
            clock,
            metrics.clone(),
        );
        follower.load().await?;
        let mut tasks = JoinSet::new();
        tasks.spawn(follower.run(stop.clone()));
        let recorder = Recorder::new(Arc::clone(&backend), metrics.clone());
        tasks.spawn(recorder.run(waiting, stop_writes.clone()));
        tasks.spawn(Writer::new(Arc::clone(&backend), fields, metrics).run(pending, stop_writes.clone()));
        tasks.spawn(newest::answer(Arc::clone(&backend), waiters, stop.clone()));
        Ok(Self(Arc::new(Inner {
            cache,
            backend,
            writes,
            records,
            questions,
            kick,
            stop,
            stop_writes,
            tasks: Mutex::new(Some(tasks)),
        })))
    }

    /// Writes one object, if what it expects is so, and returns the state that was stored.
    ///
    /// Once this future has been polled to its first wait behind the queue, dropping it does not undo the write.
    pub async fn write(&self, write: Write) -> Result<Arc<Object>, WriteError> {
        let (answer, answered) = oneshot::channel();
        self.0.writes.send(Pending { write, answer }).await.map_err(|_| WriteError::stopping())?;
        answered.await.unwrap_or_else(|_| Err(WriteError::stopping()))
    }

    /// Hands over an event that no change belongs to; what is returned tells when it is stored, or that it is not. Waits while too many
    /// do already, and fails only when the store is stopping.
    pub async fn record(
        &self,
        record: Record,
    ) -> Result<oneshot::Receiver<Result<(), StorageError>>, StorageError> {
        let (answer, answered) = oneshot::channel();
        self.0.records.send(Waiting { record, answer }).await.map_err(|_| StorageError::Stopped)?;
        Ok(answered)
    }

    /// A page of events, the newest first.
    pub async fn recorded(&self, question: &Question) -> Result<Vec<Recorded>, StorageError> {
        self.0.backend.recorded(question).await
    }

    /// Drops the days of events that are older; how many. Safe to run on many replicas at once, and to repeat where it fails.
    pub async fn trim_records(&self, keep: Duration) -> Result<u64, StorageError> {
        self.0.backend.trim_records(keep).await
    }

    /// Where terminals are recorded.
    pub fn tapes(&self) -> &dyn Tapes {
        self.0.backend.tapes()
    }

    /// What reads are answered from.
    pub fn cache(&self) -> &WatchCache {
        &self.0.cache
    }

    /// Waits until the cache holds everything that was committed before this call, by any replica.
    ///
    /// Concurrent callers share one query, which began after the last of them asked.
    pub async fn caught_up(&self) -> Result<Version, StorageError> {
        let (answer, answered) = oneshot::channel();
        self.0.questions.send(answer).await.map_err(|_| StorageError::Stopped)?;
        let newest = answered.await.unwrap_or(Err(StorageError::Stopped))?;
        if self.0.cache.version() < newest {
            self.0.kick.notify_one();
            if !self.0.cache.reached(newest, CATCH_UP_PATIENCE).await {
                return Err(StorageError::Behind);
            }
        }
        Ok(newest)
    }

    /// Commits what was handed over, ends every watch and every task. Writes that come later are refused.
    pub async fn stop(&self) {
        self.0.stop_writes.cancel();
        self.0.stop.cancel();
        self.0.cache.close();
        let tasks = self.0.tasks.lock().take();
        if let Some(mut tasks) = tasks {
            while tasks.join_next().await.is_some() {}
        }
    }
}
