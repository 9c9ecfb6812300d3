//! What the store needs of a database. Implemented by Postgres and, for tests and the simulation, by memory.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use jiff::Timestamp;
use tokio::sync::watch;
use uuid::Uuid;

use super::audit::{Question, Record, Recorded};
use super::recordings::Tapes;
use super::{ChangeKind, Key, Version, Write};

/// Why the database could not be asked. Cheap to clone, so that callers who shared a question share the answer.
#[derive(Clone, Debug, thiserror::Error)]
pub enum StorageError {
    /// It does not answer, or refuses; for a commit: nothing was stored.
    #[error("the database cannot be used now")]
    Unavailable(#[source] Arc<sqlx::Error>),
    /// A commit was sent and its fate could not be learnt in time.
    #[error("the database went away in the middle of a commit")]
    FateUnknown,
    /// It is not the database it was, or an earlier state of it.
    #[error("the database was rewound")]
    Rewound,
    /// The schema could not be brought up to date.
    #[error("the database's schema cannot be migrated")]
    Migration(#[source] Arc<sqlx::migrate::MigrateError>),
    /// A stored row is not what this program writes.
    #[error("the stored {0} is damaged")]
    Damaged(Key),
    /// The cache did not reach the newest version in time.
    #[error("the watch cache is behind the database")]
    Behind,
    /// The database was told to be away, by a test.
    #[error("the database is away")]
    Away,
    /// The store is stopping.
    #[error("the store is stopping")]
    Stopped,
}

impl From<sqlx::Error> for StorageError {
    fn from(error: sqlx::Error) -> Self {
        Self::Unavailable(Arc::new(error))
    }
}

impl From<sqlx::migrate::MigrateError> for StorageError {
    fn from(error: sqlx::migrate::MigrateError) -> Self {
        Self::Migration(Arc::new(error))
    }
}

impl StorageError {
    /// True if waiting may mend it: nobody answers, or the server is starting, stopping or full.
    pub(crate) fn is_passing(&self) -> bool {
        let Self::Unavailable(error) = self else { return false };
        match &**error {
            sqlx::Error::Io(_) | sqlx::Error::PoolTimedOut => true,
            sqlx::Error::Database(error) => error
                .code()
                .is_some_and(|code| ["08", "53", "57P"].iter().any(|class| code.starts_with(class))),
            _ => false,
        }
    }

    /// True if no connection was to be had.
    pub(super) fn is_without_connection(&self) -> bool {
        matches!(self, Self::Unavailable(error) if matches!(**error, sqlx::Error::PoolTimedOut))
    }

    /// This error and what caused it, as one line.
    pub(crate) fn chain(&self) -> String {
        let mut text = self.to_string();
        let mut source = std::error::Error::source(self);
        while let Some(cause) = source {
            text.push_str(": ");
            text.push_str(&cause.to_string());
            source = cause.source();
        }
        text
    }
}

/// Which history of which database. Versions compare only within one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Identity {
    /// Counts how often the history was found rewound; the first half of a fencing token.
    pub incarnation: i64,
}

/// A point of a history; a later history is later.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Position {
    /// Which history.
    pub identity: Identity,
    /// How far.
    pub version: Version,
}

/// A stored row, before the cache makes an [`super::Object`] of it.
#[derive(Clone, Debug)]
pub struct Stored {
    /// Where it stands.
    pub key: Key,
    /// Its identity for ever.
    pub uid: Uuid,
    /// The commit that made this state.
    pub version: Version,
    /// `metadata.labels`.
    pub labels: BTreeMap<String, String>,
    /// Its JSON as [`super::Body`] made it; where it is sealed and cannot be opened, the reason.
    pub text: Result<String, String>,
}

/// A row of the change log.
#[derive(Clone, Debug)]
pub struct LoggedChange {
    /// What happened.
    pub kind: ChangeKind,
    /// The state after it, or the last one.
    pub stored: Stored,
    /// When, by the database's clock.
    pub committed_at: Timestamp,
}

/// All objects at one position.
#[derive(Clone, Debug)]
pub struct Snapshot {
    /// The position.
    pub position: Position,
    /// The objects, in any order.
    pub objects: Vec<Stored>,
}

/// What the log holds after a version.
#[derive(Clone, Debug)]
pub enum Tail {
    /// Every change after the version asked for up to `position`, in order; versions follow one another without a gap.
    Changes {
        /// How far the log was read; everything up to it is in `changes` or was there before.
        position: Position,
        /// The changes.
        changes: Vec<LoggedChange>,
        /// True if there is more to read now.
        more: bool,
    },
    /// Changes after that version have been compacted away: take a snapshot.
    Compacted,
    /// What could not be opened before can be now: take a snapshot.
    Unsealed,
}

impl Tail {
    /// A page of at most `limit` changes read at `newest`: a full one ends with its last change, another reaches all the way.
    pub(super) fn page(newest: Position, changes: Vec<LoggedChange>, limit: usize) -> Self {
        let more = changes.len() >= limit;
        let version = match changes.last() {
            Some(last) if more => last.stored.version,
            _ => newest.version,
        };
        Self::Changes { position: Position { version, ..newest }, changes, more }
    }
}

/// Writes to commit together. Their keys differ.
#[derive(Clone, Debug, Default)]
pub struct Batch {
    /// The writes; at most [`Batch::LIMIT`].
    pub writes: Vec<Write>,
}

impl Batch {
    /// Most writes in one commit.
    pub const LIMIT: usize = 256;
    /// Most bytes of objects in one commit of several writes, so that a few large ones do not keep everybody else waiting.
    pub const BYTES: usize = 8 << 20;
}

/// A database that keeps objects and an ordered log of their changes.
#[async_trait]
pub trait Backend: Send + Sync + 'static {
    /// Commits the writes whose expectation holds, with the record of each, all at once. Answers each in order: its version, or `None` if it was refused.
    ///
    /// Called by one writer at a time. An error means that nothing was stored, except [`StorageError::FateUnknown`].
    async fn commit(&self, batch: &Batch) -> Result<Vec<Option<Version>>, StorageError>;

    /// The newest position. Every commit acknowledged before this call is at or below it.
    async fn newest(&self) -> Result<Position, StorageError>;

    /// All objects, at one position.
    async fn snapshot(&self) -> Result<Snapshot, StorageError>;

    /// At most `limit` changes after a version.
    async fn changes(&self, after: Version, limit: usize) -> Result<Tail, StorageError>;

    /// Declares that the database is behind `seen`, which a replica had read from it: the incarnation rises, and the counter
    /// jumps far past `seen`. Nothing happens if another replica already did.
    async fn rewound(&self, seen: Position) -> Result<(), StorageError>;

    /// Adds events that no change belongs to, in this order and all at once. An error may mean that only the answer was lost.
    async fn record(&self, records: &[Record]) -> Result<(), StorageError>;

    /// A page of events, the newest first.
    async fn recorded(&self, question: &Question) -> Result<Vec<Recorded>, StorageError>;

    /// Drops whole days of events that are older; how many.
    async fn trim_records(&self, keep: Duration) -> Result<u64, StorageError>;

    /// Where terminals are recorded.
    fn tapes(&self) -> &dyn Tapes;

    /// Changes when there may be something new in the log. Never the only way to learn of it.
    fn notices(&self) -> watch::Receiver<u64>;
}
