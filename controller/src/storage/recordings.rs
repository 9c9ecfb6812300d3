//! Recorded terminals: written piece by piece while they are open, read as a whole, forgotten after a time.
//!
//! What is known of a recording is readable in the database, what was shown in the terminal is not. Nothing here knows what a piece
//! means.

use std::time::Duration;

use async_trait::async_trait;
use futures::stream::BoxStream;
use jiff::Timestamp;
use uuid::Uuid;

use super::{Key, Resource, StorageError};

mod rows;

/// Resource under which keys of recordings are sealed.
pub(super) const RECORDINGS: &str = "recordings";

/// A recording that begins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Opening {
    /// Of the recording, for ever.
    pub id: Uuid,
    /// Of the instance.
    pub namespace: String,
    /// The DockerInstance.
    pub instance: String,
    /// Who is recorded.
    pub user: String,
    /// The rest, as JSON.
    pub content: String,
}

impl Opening {
    /// What its key is bound to.
    fn key(&self) -> Key {
        key(&self.namespace, self.id)
    }
}

pub(super) fn key(namespace: &str, id: Uuid) -> Key {
    Key { resource: Resource(RECORDINGS.into()), namespace: namespace.into(), name: id.to_string().into() }
}

/// A recording as it is known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recording {
    /// What it began with.
    pub opening: Opening,
    /// By the database's clock, as all times here.
    pub started_at: Timestamp,
    /// When its controller was heard of last.
    pub heard_at: Timestamp,
    /// Absent while it goes on, and where its controller died.
    pub ended_at: Option<Timestamp>,
    /// The database's time now.
    pub now: Timestamp,
    /// Why it ended, in one word.
    pub reason: String,
    /// Bytes of it.
    pub bytes: i64,
    /// SHA-256 of it, once it has ended.
    pub digest: Option<Vec<u8>>,
}

/// Which recordings are wanted; what is `None` does not matter.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wanted {
    /// This one alone.
    pub id: Option<Uuid>,
    /// Of this namespace.
    pub namespace: Option<String>,
    /// On this DockerInstance.
    pub instance: Option<String>,
    /// Of this user.
    pub user: Option<String>,
    /// Begun then or later.
    pub since: Option<Timestamp>,
    /// Begun earlier.
    pub until: Option<Timestamp>,
    /// Time and id of the last one of the page before.
    pub after: Option<(Timestamp, Uuid)>,
    /// Most recordings.
    pub limit: usize,
}

impl Wanted {
    /// True if it is wanted. For backends without an index.
    pub(super) fn wants(&self, recording: &Recording) -> bool {
        let Opening { id, namespace, instance, user, .. } = &recording.opening;
        let at = recording.started_at;
        self.id.is_none_or(|wanted| wanted == *id)
            && self.namespace.as_ref().is_none_or(|wanted| wanted == namespace)
            && self.instance.as_ref().is_none_or(|wanted| wanted == instance)
            && self.user.as_ref().is_none_or(|wanted| wanted == user)
            && self.since.is_none_or(|since| at >= since)
            && self.until.is_none_or(|until| at < until)
            && self.after.is_none_or(|last| (at, *id) < last)
    }
}

/// Where recordings are kept.
#[async_trait]
pub trait Tapes: Send + Sync {
    /// Begins a recording.
    async fn open(&self, opening: &Opening) -> Result<Box<dyn Tape>, StorageError>;

    /// A page of recordings, the newest first.
    async fn list(&self, wanted: &Wanted) -> Result<Vec<Recording>, StorageError>;

    /// What was recorded, up to now.
    async fn play(&self, of: &Opening) -> Result<Pieces, StorageError>;

    /// Forgets recordings that nothing was heard of for so long; how many.
    async fn trim(&self, keep: Duration) -> Result<u64, StorageError>;
}

/// What is written to while a terminal is open. A call that was cut off may be repeated with the same bytes.
#[async_trait]
pub trait Tape: Send {
    /// Stores the next piece; an empty one says that the recording goes on.
    async fn append(&mut self, piece: &[u8]) -> Result<(), StorageError>;

    /// Ends it.
    async fn close(&mut self, reason: &str, digest: [u8; 32]) -> Result<(), StorageError>;
}

/// The pieces of a recording, in order.
pub type Pieces = BoxStream<'static, Result<Vec<u8>, StorageError>>;

/// Longest that recordings may be kept from being written before their terminals end.
pub const PATIENCE: Duration = Duration::from_secs(10);
