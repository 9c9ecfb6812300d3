//! A database between a replica and its log.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use gantry_controller::storage::audit::{Question, Record, Recorded};
use gantry_controller::storage::recordings::Tapes;
use gantry_controller::storage::{Backend, Batch, Position, Snapshot, StorageError, Tail, Version};
use tokio::sync::watch;

/// A database whose log cannot be read while it is closed, and is read with a gap once.
pub struct Gate {
    backend: Arc<dyn Backend>,
    pub is_closed: AtomicBool,
    /// Left out of the first answer that has it.
    pub hidden: AtomicI64,
}

impl Gate {
    pub fn around(backend: Arc<dyn Backend>) -> Arc<Self> {
        Arc::new(Self { backend, is_closed: AtomicBool::new(false), hidden: AtomicI64::new(0) })
    }
}

#[async_trait]
impl Backend for Gate {
    async fn commit(&self, batch: &Batch) -> Result<Vec<Option<Version>>, StorageError> {
        self.backend.commit(batch).await
    }

    async fn newest(&self) -> Result<Position, StorageError> {
        self.backend.newest().await
    }

    async fn snapshot(&self) -> Result<Snapshot, StorageError> {
        self.backend.snapshot().await
    }

    async fn changes(&self, after: Version, limit: usize) -> Result<Tail, StorageError> {
        if self.is_closed.load(Ordering::Relaxed) {
            return Err(StorageError::Away);
        }
        let mut tail = self.backend.changes(after, limit).await?;
        if let Tail::Changes { changes, .. } = &mut tail {
            let hidden = Version(self.hidden.load(Ordering::Relaxed));
            if let Some(place) = changes.iter().position(|change| change.stored.version == hidden) {
                changes.remove(place);
                self.hidden.store(0, Ordering::Relaxed);
            }
        }
        Ok(tail)
    }

    async fn rewound(&self, seen: Position) -> Result<(), StorageError> {
        self.backend.rewound(seen).await
    }

    async fn record(&self, records: &[Record]) -> Result<(), StorageError> {
        self.backend.record(records).await
    }

    async fn recorded(&self, question: &Question) -> Result<Vec<Recorded>, StorageError> {
        self.backend.recorded(question).await
    }

    async fn trim_records(&self, keep: Duration) -> Result<u64, StorageError> {
        self.backend.trim_records(keep).await
    }

    fn tapes(&self) -> &dyn Tapes {
        self.backend.tapes()
    }

    fn notices(&self) -> watch::Receiver<u64> {
        self.backend.notices()
    }
}
