//! The agent's memory of what it promised and what it did, on disk before anything depends on it.
//!
//! One append-only file of framed, checksummed records. [`Journal::append`] returns when the records are durable; only
//! then does the [`Ledger`], which everybody reads, know them. A tail torn by a crash is cut off. Damage to records that were
//! durable is never guessed around: a new journal with a new id takes over, in which every operation the old one can still
//! name is a tombstone that says its outcome is not known. Knows nothing of Docker nor of sessions.

mod frame;
mod ledger;
mod memory;
mod record;
mod replay;
mod storage;
mod writer;

use std::sync::Arc;

use parking_lot::RwLock;
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::clock::SharedEntropy;

pub use ledger::{Entry, Ledger, Phase, Tombstone};
pub use memory::{Failure, MemoryDisk};
pub use record::{Accepted, Body, Finished, Observed, PreImage, Spent, Started, Withdrawn};
pub(crate) use record::{fingerprint, is_other_engine};
pub use storage::{DirectoryDisk, FileSystem, JournalFile};

/// Why the journal did not take a record.
#[derive(Clone, Debug, thiserror::Error)]
pub enum JournalError {
    /// The disk did not take it. It may take the next one.
    #[error("journal cannot be written")]
    Unwritable(#[source] Arc<std::io::Error>),
    /// The file could not be read or its directory not be used.
    #[error("journal cannot be opened")]
    Unusable(#[source] Arc<std::io::Error>),
    /// The agent is stopping.
    #[error("journal is closed")]
    Closed,
}

/// A handle to the journal. Cheap to clone.
#[derive(Clone)]
pub struct Journal {
    ledger: Arc<RwLock<Ledger>>,
    queue: mpsc::Sender<Write>,
    entropy: SharedEntropy,
    tasks: TaskTracker,
    stop: CancellationToken,
}

/// A wish to the writer, and who waits for it.
struct Write {
    what: What,
    done: oneshot::Sender<Result<(), JournalError>>,
}

enum What {
    Append(Vec<Body>),
    /// Begin another journal with this id.
    BeginAnew(String),
}

const WAITING_WRITES: usize = 1024;

impl Journal {
    /// Reads what is there, mends its tail, and starts the task that writes.
    pub async fn open(files: Arc<dyn FileSystem>, entropy: &SharedEntropy) -> Result<Self, JournalError> {
        let (ledger, file) = replay::open(files.as_ref(), entropy).await?;
        let ledger = Arc::new(RwLock::new(ledger));
        let (queue, writes) = mpsc::channel(WAITING_WRITES);
        let (tasks, stop) = (TaskTracker::new(), CancellationToken::new());
        let writer = writer::Writer::new(files, ledger.clone(), file);
        tasks.spawn(writer.run(writes, stop.clone()));
        tasks.close();
        Ok(Self { ledger, queue, entropy: entropy.clone(), tasks, stop })
    }

    /// Makes records durable, all or none, and returns when they are and the ledger shows them.
    pub async fn append(&self, bodies: Vec<Body>) -> Result<(), JournalError> {
        self.write(What::Append(bodies)).await
    }

    /// Gives up on a journal that lost records: another one with a new id takes over durably, in which every operation this
    /// one can name is a tombstone that allows no other attempt.
    pub async fn begin_anew(&self) -> Result<(), JournalError> {
        self.write(What::BeginAnew(self.entropy.uuid().to_string())).await
    }

    async fn write(&self, what: What) -> Result<(), JournalError> {
        let (done, answer) = oneshot::channel();
        self.queue.send(Write { what, done }).await.map_err(|_| JournalError::Closed)?;
        answer.await.map_err(|_| JournalError::Closed)?
    }

    /// Looks at what is durable. The closure must not block.
    pub fn read<T>(&self, look: impl FnOnce(&Ledger) -> T) -> T {
        look(&self.ledger.read())
    }

    /// Ends the writing task. What was not yet answered is not in the journal.
    pub async fn close(&self) {
        self.stop.cancel();
        self.tasks.wait().await;
    }
}
