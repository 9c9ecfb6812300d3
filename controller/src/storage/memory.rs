//! A database in memory: for tests, and for the simulation, which cuts it off, compacts and rewinds it at will.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use gantry_api::agent_v1::Rewind;
use jiff::Timestamp;
use parking_lot::Mutex;
use tokio::sync::watch;

use super::audit::{Question, Record, Recorded};
use super::recordings::Tapes;
use super::{
    Backend, Batch, ChangeKind, Effect, Expects, Identity, Key, LoggedChange, Position, Snapshot,
    StorageError, Stored, Tail, Version,
};
use crate::clock::SharedClock;

mod tapes;

use tapes::Kept;

/// How far the counter jumps when a history ends, so that no version is ever used for two states.
pub(super) const REWIND_JUMP: i64 = 1_000_000_000;

/// The database. Clones are connections to the same one.
#[derive(Clone)]
pub struct MemoryBackend {
    state: Arc<Mutex<State>>,
    notices: watch::Sender<u64>,
    clock: SharedClock,
}

#[derive(Clone)]
struct State {
    position: Position,
    objects: BTreeMap<Key, Stored>,
    log: VecDeque<LoggedChange>,
    /// The newest version that was compacted away.
    floor: Version,
    rewinds: Vec<Rewind>,
    events: Vec<Recorded>,
    recordings: Vec<Kept>,
    is_away: bool,
    cannot_record: bool,
}

/// A moment to go back to.
#[derive(Clone)]
pub struct Moment(State);

impl MemoryBackend {
    /// An empty database.
    pub fn new(clock: SharedClock) -> Self {
        let position = Position { identity: Identity { incarnation: 1 }, version: Version(0) };
        Self {
            state: Arc::new(Mutex::new(State {
                position,
                objects: BTreeMap::new(),
                log: VecDeque::new(),
                floor: Version(0),
                rewinds: Vec::new(),
                events: Vec::new(),
                recordings: Vec::new(),
                is_away: false,
                cannot_record: false,
            })),
            notices: watch::Sender::new(0),
            clock,
        }
    }

    /// Forgets changes up to and including that version.
    pub fn compact(&self, through: Version) {
        let mut state = self.state.lock();
        let through = through.min(state.position.version);
        state.log.retain(|change| change.stored.version > through);
        state.floor = state.floor.max(through);
    }

    /// Makes every call fail, or answers again.
    pub fn set_away(&self, is_away: bool) {
        self.state.lock().is_away = is_away;
        self.notify();
    }

    /// Makes it refuse every event, and what has one with it, or takes them again.
    pub fn set_recording(&self, is_recording: bool) {
        self.state.lock().cannot_record = !is_recording;
    }

    /// What [`MemoryBackend::rewind`] can go back to.
    pub fn moment(&self) -> Moment {
        Moment(self.state.lock().clone())
    }

    /// Becomes what it was, as a restored backup does: without telling anybody.
    pub fn rewind(&self, moment: Moment) {
        *self.state.lock() = moment.0;
    }

    /// When it was noticed that it was set back.
    pub fn rewinds(&self) -> Vec<Rewind> {
        self.state.lock().rewinds.clone()
    }

    fn notify(&self) {
        self.notices.send_modify(|count| *count = count.wrapping_add(1));
    }

    fn ask<T>(&self, question: impl FnOnce(&mut State) -> T) -> Result<T, StorageError> {
        let mut state = self.state.lock();
        if state.is_away { Err(StorageError::Away) } else { Ok(question(&mut state)) }
    }
}

impl State {
    fn takes_records(&self) -> Result<(), StorageError> {
        if self.cannot_record { Err(StorageError::Away) } else { Ok(()) }
    }

    fn record(&mut self, record: &Record, at: Timestamp) {
        let last = self.events.last();
        let (number, at) = last.map_or((1, at), |last| (last.number + 1, at.max(last.at)));
        self.events.push(Recorded { number, at, record: record.clone() });
    }

    fn holds(&self, key: &Key, uid: uuid::Uuid, expects: Expects) -> bool {
        match (expects, self.objects.get(key)) {
            (Expects::Absent, present) => present.is_none(),
            (Expects::AbsentIn(version), present) => {
                let place = Key::namespace(&key.namespace);
                present.is_none() && self.objects.get(&place).is_some_and(|place| place.version == version)
            }
            (Expects::Version(version), Some(present)) => present.version == version && present.uid == uid,
            (Expects::Version(_), None) => false,
        }
    }
}

#[async_trait]
impl Backend for MemoryBackend {
    async fn commit(&self, batch: &Batch) -> Result<Vec<Option<Version>>, StorageError> {
        let committed_at = self.clock.now();
        if batch.writes.iter().any(|write| write.record.is_some()) {
            self.ask(|state| state.takes_records())??;
        }
        let versions = self.ask(|state| {
            let mut next = state.position.version;
            let mut versions = Vec::with_capacity(batch.writes.len());
            for write in &batch.writes {
                let (kind, body) = match (&write.effect, write.expects) {
                    (Effect::Delete(body), _) => (ChangeKind::Deleted, body),
                    (Effect::Put(body), Expects::Absent | Expects::AbsentIn(_)) => (ChangeKind::Added, body),
                    (Effect::Put(body), Expects::Version(_)) => (ChangeKind::Modified, body),
                };
                if !state.holds(&write.key, body.uid, write.expects) {
                    versions.push(None);
                    continue;
                }
                next = Version(next.0 + 1);
                let stored = Stored {
                    key: write.key.clone(),
                    uid: body.uid,
                    version: next,
                    labels: body.labels.clone(),
                    text: Ok(body.text.clone()),
                };
                if kind == ChangeKind::Deleted {
                    state.objects.remove(&write.key);
                } else {
                    state.objects.insert(write.key.clone(), stored.clone());
                }
                state.log.push_back(LoggedChange { kind, stored, committed_at });
                if let Some(record) = &write.record {
                    state.record(record, committed_at);
                }
                versions.push(Some(next));
            }
            state.position.version = next;
            versions
        })?;
        self.notify();
        Ok(versions)
    }

    async fn newest(&self) -> Result<Position, StorageError> {
        self.ask(|state| state.position)
    }

    async fn snapshot(&self) -> Result<Snapshot, StorageError> {
        self.ask(|state| Snapshot {
            position: state.position,
            objects: state.objects.values().cloned().collect(),
        })
    }

    async fn changes(&self, after: Version, limit: usize) -> Result<Tail, StorageError> {
        self.ask(|state| {
            if after < state.floor {
                return Tail::Compacted;
            }
            let first = state.log.partition_point(|change| change.stored.version <= after);
            let changes: Vec<_> = state.log.range(first..).take(limit).cloned().collect();
            Tail::page(state.position, changes, limit)
        })
    }

    async fn rewound(&self, seen: Position) -> Result<(), StorageError> {
        self.ask(|state| {
            if state.position.identity <= seen.identity {
                state.position.identity.incarnation = seen.identity.incarnation + 1;
                let unsigned = |number: i64| u64::try_from(number).unwrap_or_default();
                let incarnation = unsigned(state.position.identity.incarnation);
                state.rewinds.push(Rewind { incarnation, kept: unsigned(state.position.version.0) });
                let newest = state.position.version.max(seen.version);
                state.position.version = Version(newest.0 + REWIND_JUMP);
            }
        })?;
        self.notify();
        Ok(())
    }

    async fn record(&self, records: &[Record]) -> Result<(), StorageError> {
        let at = self.clock.now();
        self.ask(|state| {
            state.takes_records()?;
            for record in records {
                state.record(record, at);
            }
            Ok(())
        })?
    }

    async fn recorded(&self, question: &Question) -> Result<Vec<Recorded>, StorageError> {
        self.ask(|state| {
            let newest_first = state.events.iter().rev();
            newest_first.filter(|event| question.wants(event)).take(question.limit).cloned().collect()
        })
    }

    async fn trim_records(&self, keep: Duration) -> Result<u64, StorageError> {
        let horizon = self.clock.now() - jiff::SignedDuration::try_from(keep).unwrap_or_default();
        self.ask(|state| state.events.retain(|event| event.at >= horizon)).map(|()| 0)
    }

    fn tapes(&self) -> &dyn Tapes {
        self
    }

    fn notices(&self) -> watch::Receiver<u64> {
        self.notices.subscribe()
    }
}
