//! Recordings in memory.

use std::time::Duration;

use async_trait::async_trait;
use futures::StreamExt as _;
use jiff::Timestamp;
use uuid::Uuid;

use super::{MemoryBackend, State};
use crate::storage::StorageError;
use crate::storage::recordings::{Opening, Pieces, Recording, Tape, Tapes, Wanted};

/// A recording and its pieces.
#[derive(Clone)]
pub(super) struct Kept {
    recording: Recording,
    pieces: Vec<Vec<u8>>,
}

impl Kept {
    fn new(opening: Opening, now: Timestamp) -> Self {
        let recording = Recording {
            opening,
            started_at: now,
            heard_at: now,
            ended_at: None,
            now,
            reason: String::new(),
            bytes: 0,
            digest: None,
        };
        Self { recording, pieces: Vec::new() }
    }
}

struct MemoryTape {
    backend: MemoryBackend,
    id: Uuid,
}

impl MemoryTape {
    fn change(&self, change: impl FnOnce(&mut Kept, Timestamp)) -> Result<(), StorageError> {
        let now = self.backend.clock.now();
        self.backend.ask(|state: &mut State| {
            state.takes_records()?;
            let kept = state.recordings.iter_mut().find(|kept| kept.recording.opening.id == self.id);
            let kept = kept.filter(|kept| kept.recording.ended_at.is_none()).ok_or(StorageError::Rewound)?;
            kept.recording.heard_at = now;
            change(kept, now);
            Ok(())
        })?
    }
}

#[async_trait]
impl Tape for MemoryTape {
    async fn append(&mut self, piece: &[u8]) -> Result<(), StorageError> {
        self.change(|kept, _| {
            if !piece.is_empty() {
                kept.recording.bytes += i64::try_from(piece.len()).unwrap_or_default();
                kept.pieces.push(piece.to_vec());
            }
        })
    }

    async fn close(&mut self, reason: &str, digest: [u8; 32]) -> Result<(), StorageError> {
        self.change(|kept, now| {
            kept.recording.ended_at = Some(now);
            reason.clone_into(&mut kept.recording.reason);
            kept.recording.digest = Some(digest.to_vec());
        })
    }
}

#[async_trait]
impl Tapes for MemoryBackend {
    async fn open(&self, opening: &Opening) -> Result<Box<dyn Tape>, StorageError> {
        let kept = Kept::new(opening.clone(), self.clock.now());
        self.ask(|state| {
            state.takes_records()?;
            state.recordings.push(kept);
            Ok::<_, StorageError>(())
        })??;
        Ok(Box::new(MemoryTape { backend: self.clone(), id: opening.id }))
    }

    async fn list(&self, wanted: &Wanted) -> Result<Vec<Recording>, StorageError> {
        let now = self.clock.now();
        self.ask(|state| {
            let newest_first = state.recordings.iter().rev().map(|kept| &kept.recording);
            let found = newest_first.filter(|recording| wanted.wants(recording)).take(wanted.limit);
            found.map(|recording| Recording { now, ..recording.clone() }).collect()
        })
    }

    async fn play(&self, of: &Opening) -> Result<Pieces, StorageError> {
        let found = self.ask(|state| {
            let kept = state.recordings.iter().find(|kept| kept.recording.opening.id == of.id);
            kept.map(|kept| kept.pieces.clone())
        })?;
        let pieces = found.ok_or(StorageError::Rewound)?;
        Ok(futures::stream::iter(pieces.into_iter().map(Ok)).boxed())
    }

    async fn trim(&self, keep: Duration) -> Result<u64, StorageError> {
        let horizon = self.clock.now() - jiff::SignedDuration::try_from(keep).unwrap_or_default();
        self.ask(|state| {
            let before = state.recordings.len();
            state.recordings.retain(|kept| kept.recording.heard_at >= horizon);
            (before - state.recordings.len()) as u64
        })
    }
}
