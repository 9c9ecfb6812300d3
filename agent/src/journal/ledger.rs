//! What the journal's records add up to.

use std::collections::{BTreeMap, HashMap, VecDeque};

use gantry_api::agent_v1::{OperationReport, OperationState, Outcome, Rewind, SubmitRequest, Token};
use uuid::Uuid;

use super::Accepted;
use super::record::{Body, Finished, Identity, Record, Started, TombstoneRecord, Withdrawn, fingerprint};

/// Tombstones beyond this number push out the oldest. None ends by age: no clock can make the agent forget.
pub(super) const MOST_TOMBSTONES: usize = 100_000;

/// How far an operation has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Waiting to start.
    Accepted,
    /// Never ran and never will, or its attempt had no effect and there will be no other.
    Withdrawn,
    /// Docker may have been called.
    Started,
    /// It has a result.
    Finished,
}

/// An operation that the controller has not let go of.
#[derive(Clone, Debug, PartialEq)]
pub struct Entry {
    /// As it was asked, without the token.
    pub request: SubmitRequest,
    /// Time of day it was accepted, milliseconds since 1970.
    pub accepted_at_ms: i64,
    /// The engine it was accepted for, by its own id; empty if that was not known.
    pub engine_id: String,
    /// How far it has come.
    pub phase: Phase,
    /// Somebody asked that it not run, whether or not that came in time.
    pub is_withdrawn: bool,
    /// Present once Docker may have been called.
    pub started: Option<Started>,
    /// Present once finished; also if it was withdrawn after that.
    pub result: Option<OperationReport>,
    /// Sequence of the record that accepted it: its place in the order of arrival.
    pub arrival: u64,
    /// Sequence of its newest record.
    pub sequence: u64,
}

/// What is kept of an operation that the controller let go of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tombstone {
    /// The last attempt; 0 if none was ever seen.
    pub attempt: u32,
    /// What is kept of its digest.
    pub digest: [u8; 16],
    /// How it ended.
    pub outcome: Outcome,
    /// Another attempt is safe.
    pub retryable: bool,
    /// Incarnation of the store that holds the result.
    pub incarnation: u64,
    /// Version of the store that holds it; 0 if nobody shall be told again.
    pub recorded_at: u64,
}

impl Tombstone {
    const NEVER_SEEN: Self = Self {
        attempt: 0,
        digest: [0; 16],
        outcome: Outcome::Withdrawn,
        retryable: false,
        incarnation: 0,
        recorded_at: 0,
    };

    fn record(&self, uid: Uuid) -> TombstoneRecord {
        TombstoneRecord {
            uid: uid.as_bytes().to_vec(),
            attempt: self.attempt,
            digest: self.digest.to_vec(),
            outcome: self.outcome.into(),
            retryable: self.retryable,
            incarnation: self.incarnation,
            recorded_at: self.recorded_at,
        }
    }

    /// True if the store that held the result was set back to before it, and there is something to tell of it.
    fn is_lost(&self, rewinds: &[Rewind]) -> bool {
        let is_later =
            |rewind: &Rewind| rewind.incarnation > self.incarnation && rewind.kept < self.recorded_at;
        self.outcome != Outcome::Withdrawn && rewinds.iter().any(is_later)
    }
}

/// Everything the journal says, in memory.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Ledger {
    journal_id: String,
    sequence: u64,
    token: Option<Token>,
    entries: BTreeMap<Uuid, Entry>,
    tombstones: HashMap<Uuid, Tombstone>,
    /// Tombstones by age.
    order: VecDeque<Uuid>,
}

impl Ledger {
    pub(super) fn new(journal_id: String) -> Self {
        Self { journal_id, ..Self::default() }
    }

    /// Made with the journal.
    pub fn journal_id(&self) -> &str {
        &self.journal_id
    }

    /// Sequence of the newest durable record.
    pub fn sequence(&self) -> u64 {
        self.sequence
    }

    /// The highest token seen.
    pub fn token(&self) -> Option<Token> {
        self.token
    }

    /// An operation that is not forgotten.
    pub fn entry(&self, uid: &Uuid) -> Option<&Entry> {
        self.entries.get(uid)
    }

    /// Every operation that is not forgotten.
    pub fn entries(&self) -> impl ExactSizeIterator<Item = (&Uuid, &Entry)> {
        self.entries.iter()
    }

    /// An operation that is.
    pub fn tombstone(&self, uid: &Uuid) -> Option<&Tombstone> {
        self.tombstones.get(uid)
    }

    /// Operations whose results were recorded in a state of the store that is lost, oldest first.
    pub fn lost(&self, rewinds: &[Rewind]) -> impl Iterator<Item = Uuid> {
        let is_lost = |uid: &&Uuid| self.tombstone(uid).is_some_and(|stone| stone.is_lost(rewinds));
        self.order.iter().filter(is_lost).copied()
    }

    /// The record that lets go of an operation, whose result that version of the store holds; `None` if there is nothing to let go
    /// of or it has not ended. What is forgotten already is told no more once it is let go of at version 0.
    pub fn bury(&self, uid: &Uuid, recorded_at: u64) -> Option<Body> {
        if let Some(stone) = self.tombstones.get(uid) {
            let told = Tombstone { recorded_at, ..*stone };
            return (recorded_at == 0 && stone.recorded_at != 0).then(|| Body::Tombstone(told.record(*uid)));
        }
        let entry = self.entries.get(uid)?;
        let (outcome, retryable) = match (entry.phase, &entry.result) {
            (Phase::Withdrawn, _) => (Outcome::Withdrawn, false),
            (Phase::Finished, Some(result)) => (result.outcome(), result.retryable),
            _ => return None,
        };
        let incarnation = self.token.map_or(0, |token| token.incarnation);
        let stone = Tombstone { incarnation, recorded_at, ..tombstone(entry, outcome, retryable) };
        Some(Body::Tombstone(stone.record(*uid)))
    }

    /// Takes one durable record in.
    pub(super) fn apply(&mut self, record: Record) {
        self.sequence = self.sequence.max(record.sequence);
        match record.body {
            Some(Body::Identity(identity)) => self.journal_id = identity.journal_id,
            Some(Body::Token(token)) => self.token = Some(token),
            Some(Body::Accepted(accepted)) => self.accept(accepted, record.sequence),
            Some(Body::Withdrawn(withdrawn)) => {
                for uid in withdrawn.uids.as_chunks::<16>().0 {
                    self.withdraw(Uuid::from_bytes(*uid), record.sequence);
                }
            }
            Some(Body::Started(started)) => {
                if let Some(entry) = uid(&started.uid).and_then(|uid| self.entries.get_mut(&uid)) {
                    entry.phase = Phase::Started;
                    entry.started = Some(started);
                    entry.sequence = record.sequence;
                }
            }
            Some(Body::Finished(Finished { report: Some(report) })) => {
                let uid = report.uid.parse::<Uuid>().ok();
                if let Some(entry) = uid.and_then(|uid| self.entries.get_mut(&uid)) {
                    entry.phase = Phase::Finished;
                    entry.result = Some(report);
                    if entry.is_withdrawn {
                        entry.withdraw();
                    }
                    entry.sequence = record.sequence;
                }
            }
            Some(Body::Tombstone(stone)) => {
                if let Some(uid) = uid(&stone.uid) {
                    let mut digest = [0; 16];
                    digest.iter_mut().zip(&stone.digest).for_each(|(byte, kept)| *byte = *kept);
                    self.entries.remove(&uid);
                    let outcome = Outcome::try_from(stone.outcome).unwrap_or(Outcome::Unknown);
                    let TombstoneRecord { attempt, retryable, incarnation, recorded_at, .. } = stone;
                    self.keep(
                        uid,
                        Tombstone { attempt, digest, outcome, retryable, incarnation, recorded_at },
                    );
                }
            }
            Some(Body::Finished(_)) | None => {}
        }
    }

    fn accept(&mut self, accepted: Accepted, sequence: u64) {
        let Some(request) = accepted.request else { return };
        let Ok(uid) = request.uid.parse() else { return };
        if self.tombstones.remove(&uid).is_some() {
            self.order.retain(|known| *known != uid);
        }
        self.entries.insert(
            uid,
            Entry {
                request,
                accepted_at_ms: accepted.at_ms,
                engine_id: accepted.engine_id,
                phase: Phase::Accepted,
                is_withdrawn: false,
                started: None,
                result: None,
                arrival: sequence,
                sequence,
            },
        );
    }

    fn withdraw(&mut self, uid: Uuid, sequence: u64) {
        if let Some(entry) = self.entries.get_mut(&uid) {
            entry.withdraw();
            entry.sequence = sequence;
        } else if let Some(stone) = self.tombstones.get_mut(&uid) {
            if stone.retryable {
                stone.outcome = Outcome::Withdrawn;
            }
            stone.retryable = false;
        } else {
            self.keep(uid, Tombstone::NEVER_SEEN);
        }
    }

    fn keep(&mut self, uid: Uuid, stone: Tombstone) {
        if self.tombstones.insert(uid, stone).is_none() {
            self.order.push_back(uid);
        }
        while self.order.len() > MOST_TOMBSTONES {
            if let Some(oldest) = self.order.pop_front() {
                self.tombstones.remove(&oldest);
            }
        }
    }

    /// The same contents under another id: what a journal that lost records can still name is known, but not how it went,
    /// nor whether there was another attempt.
    pub(super) fn salvage(mut self, journal_id: String) -> Self {
        for stone in self.tombstones.values_mut() {
            stone.retryable = false;
        }
        for (uid, entry) in std::mem::take(&mut self.entries) {
            let outcome = match entry.phase {
                Phase::Withdrawn => Outcome::Withdrawn,
                _ => entry.result.as_ref().map_or(Outcome::Unknown, OperationReport::outcome),
            };
            self.keep(uid, tombstone(&entry, outcome, false));
        }
        self.journal_id = journal_id;
        self
    }

    /// Records from which the same ledger can be read, oldest knowledge first.
    pub(super) fn snapshot(&self, frames: u64) -> impl Iterator<Item = Record> {
        let identity = Body::Identity(Identity { journal_id: self.journal_id.clone(), frames });
        let first = Record { sequence: self.sequence, body: Some(identity) };
        let token = self.token.map(|token| Record { sequence: 0, body: Some(Body::Token(token)) });
        let stones = self.order.iter().filter_map(|uid| {
            let stone = self.tombstones.get(uid)?;
            Some(Record { sequence: 0, body: Some(Body::Tombstone(stone.record(*uid))) })
        });
        let entries = self.entries.iter().flat_map(|(uid, entry)| {
            let accepted = Body::Accepted(Accepted {
                request: Some(entry.request.clone()),
                at_ms: entry.accepted_at_ms,
                engine_id: entry.engine_id.clone(),
            });
            let started = entry.started.clone().map(Body::Started);
            let finished =
                entry.result.clone().map(|report| Body::Finished(Finished { report: Some(report) }));
            let withdrawn =
                entry.is_withdrawn.then(|| Body::Withdrawn(Withdrawn { uids: uid.as_bytes().to_vec() }));
            let arrival = Record { sequence: entry.arrival, body: Some(accepted) };
            let later = [started, finished, withdrawn].into_iter().flatten();
            let sequence = entry.sequence;
            std::iter::once(arrival).chain(later.map(move |body| Record { sequence, body: Some(body) }))
        });
        std::iter::once(first).chain(token).chain(stones).chain(entries)
    }
}

impl Entry {
    /// No attempt starts any more; one that did may still end in its own way.
    fn withdraw(&mut self) {
        self.is_withdrawn = true;
        let had_no_effect = self.result.as_ref().is_some_and(|result| result.retryable);
        if self.phase == Phase::Accepted || (self.phase == Phase::Finished && had_no_effect) {
            self.phase = Phase::Withdrawn;
        }
    }

    /// The state as the protocol names it.
    pub fn state(&self) -> OperationState {
        match self.phase {
            Phase::Accepted => OperationState::Accepted,
            Phase::Withdrawn => OperationState::Withdrawn,
            Phase::Started => OperationState::Started,
            Phase::Finished => OperationState::Finished,
        }
    }
}

fn tombstone(entry: &Entry, outcome: Outcome, retryable: bool) -> Tombstone {
    Tombstone {
        attempt: entry.request.attempt,
        digest: fingerprint(&entry.request.digest),
        outcome,
        retryable,
        ..Tombstone::NEVER_SEEN
    }
}

fn uid(bytes: &[u8]) -> Option<Uuid> {
    Uuid::from_slice(bytes).ok()
}
