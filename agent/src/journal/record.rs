//! The records: what may be said of an operation, and in which words it lies on disk.

use std::time::Duration;

use gantry_api::agent_v1::{OperationReport, SubmitRequest, Target, Token};
use prost::Message;
use sha2::{Digest as _, Sha256};

use crate::docker::{ContainerFacts, Incarnation};

/// One record of the file.
#[derive(Clone, PartialEq, Message)]
pub(super) struct Record {
    /// Grows by one with each record, and never falls while the journal keeps its id.
    #[prost(uint64, tag = "1")]
    pub(super) sequence: u64,
    #[prost(oneof = "Body", tags = "2, 3, 4, 5, 6, 7, 8")]
    pub(super) body: Option<Body>,
}

/// What a record says.
#[derive(Clone, PartialEq, prost::Oneof)]
pub enum Body {
    /// First in every file.
    #[prost(message, tag = "2")]
    Identity(Identity),
    /// The highest token seen.
    #[prost(message, tag = "3")]
    Token(Token),
    /// Responsibility taken.
    #[prost(message, tag = "4")]
    Accepted(Accepted),
    /// Never to start.
    #[prost(message, tag = "5")]
    Withdrawn(Withdrawn),
    /// Docker is about to be called.
    #[prost(message, tag = "6")]
    Started(Started),
    /// A result.
    #[prost(message, tag = "7")]
    Finished(Finished),
    /// Recorded by the controller, payload dropped.
    #[prost(message, tag = "8")]
    Tombstone(TombstoneRecord),
}

impl Body {
    /// What it is called where a test names it.
    pub(super) fn kind(&self) -> &'static str {
        match self {
            Self::Identity(_) => "identity",
            Self::Token(_) => "token",
            Self::Accepted(_) => "accepted",
            Self::Withdrawn(_) => "withdrawn",
            Self::Started(_) => "started",
            Self::Finished(_) => "finished",
            Self::Tombstone(_) => "tombstone",
        }
    }
}

/// Whose journal this is.
#[derive(Clone, PartialEq, Message)]
pub struct Identity {
    /// Made once.
    #[prost(string, tag = "1")]
    pub(super) journal_id: String,
    /// Frames of this file, this one included, that were durable before the file got its name.
    #[prost(uint64, tag = "2")]
    pub(super) frames: u64,
}

/// Responsibility for one attempt was taken.
#[derive(Clone, PartialEq, Message)]
pub struct Accepted {
    /// As it was asked, without the token.
    #[prost(message, optional, tag = "1")]
    pub request: Option<SubmitRequest>,
    /// Time of day, milliseconds since 1970.
    #[prost(int64, tag = "2")]
    pub at_ms: i64,
    /// The engine beside the agent then, by its own id; empty if that was not known.
    #[prost(string, tag = "3")]
    pub engine_id: String,
}

/// Operations that shall not start.
#[derive(Clone, PartialEq, Message)]
pub struct Withdrawn {
    /// Uids, 16 bytes each.
    #[prost(bytes = "vec", tag = "1")]
    pub uids: Vec<u8>,
}

/// Docker is about to be called for an operation.
#[derive(Clone, PartialEq, Message)]
pub struct Started {
    /// Of the Operation, 16 bytes.
    #[prost(bytes = "vec", tag = "1")]
    pub uid: Vec<u8>,
    /// What evidence will be compared with.
    #[prost(message, optional, tag = "2")]
    pub before: Option<PreImage>,
    /// Time of day, milliseconds since 1970.
    #[prost(int64, tag = "3")]
    pub at_ms: i64,
    /// How much of its time to run is used up.
    #[prost(message, optional, tag = "4")]
    pub spent: Option<Spent>,
}

/// How much of its time to run an operation had used up at a moment that any later process can find again.
///
/// Only time since boot is counted: it neither jumps nor stands still while the agent is away. The time of day does both, so
/// across a start of the machine no more is known than that all of the time since that start has passed. An agent takes
/// that much into account and records it, so neither an agent nor a machine that starts over and over gives an operation
/// all of its time again.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct Spent {
    /// Which start of the machine.
    #[prost(string, tag = "1")]
    pub boot: String,
    /// The moment, in time since that start.
    #[prost(uint64, tag = "2")]
    pub at_ms: u64,
    /// Used up by then.
    #[prost(uint64, tag = "3")]
    pub spent_ms: u64,
}

impl Spent {
    /// What is used up at `now`, a moment of a start of the machine.
    #[must_use]
    pub fn at(&self, boot: &str, now: Duration) -> Self {
        let now_ms = u64::try_from(now.as_millis()).unwrap_or(u64::MAX);
        let since = if self.boot == boot { now_ms.saturating_sub(self.at_ms) } else { now_ms };
        Self { boot: boot.to_owned(), at_ms: now_ms, spent_ms: self.spent_ms.saturating_add(since) }
    }

    /// Nothing is used up at `now`.
    pub fn nothing(boot: &str, now: Duration) -> Self {
        let at_ms = u64::try_from(now.as_millis()).unwrap_or(u64::MAX);
        Self { boot: boot.to_owned(), at_ms, spent_ms: 0 }
    }
}

/// What was so just before the call.
#[derive(Clone, PartialEq, Message)]
pub struct PreImage {
    /// The container, for actions on containers.
    #[prost(message, optional, tag = "1")]
    pub container: Option<Observed>,
    /// Id of the image that the reference to be pulled or tagged meant; empty for none.
    #[prost(string, tag = "2")]
    pub image_id: String,
    /// Digest a registry gave for the reference to be pulled; empty if it did not.
    #[prost(string, tag = "3")]
    pub digest: String,
    /// Which run of the engine; empty if its runs cannot be told apart.
    #[prost(string, tag = "4")]
    pub incarnation: String,
    /// The target as the protocol shows it.
    #[prost(message, optional, tag = "5")]
    pub target: Option<Target>,
    /// Which engine, by its own id; empty if it gives none.
    #[prost(string, tag = "6")]
    pub engine_id: String,
}

impl PreImage {
    /// True only if this is surely the run of the engine that was asked.
    pub fn is_same_run(&self, now: Option<&Incarnation>) -> bool {
        !self.incarnation.is_empty() && now.is_some_and(|now| now.0 == self.incarnation)
    }

    /// True if this is surely another engine than the one that was asked.
    pub fn is_other_engine(&self, now: &str) -> bool {
        is_other_engine(&self.engine_id, now)
    }
}

/// True if both are known and differ.
pub(crate) fn is_other_engine(then: &str, now: &str) -> bool {
    !then.is_empty() && !now.is_empty() && then != now
}

/// The part of a container that is evidence.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct Observed {
    /// Without the slash.
    #[prost(string, tag = "1")]
    pub name: String,
    /// In Docker's word.
    #[prost(string, tag = "2")]
    pub state: String,
    /// Has a process.
    #[prost(bool, tag = "3")]
    pub running: bool,
    /// Frozen.
    #[prost(bool, tag = "4")]
    pub paused: bool,
    /// Of its first process.
    #[prost(int64, tag = "5")]
    pub pid: i64,
    /// As Docker wrote it.
    #[prost(string, tag = "6")]
    pub started_at: String,
    /// As Docker wrote it.
    #[prost(string, tag = "7")]
    pub finished_at: String,
    /// How often its restart policy started it.
    #[prost(int64, tag = "8")]
    pub restart_count: i64,
    /// Docker removes it when it ends.
    #[prost(bool, tag = "9")]
    pub auto_remove: bool,
    /// What stop sends; empty for SIGTERM.
    #[prost(string, tag = "10")]
    pub stop_signal: String,
    /// Seconds stop waits.
    #[prost(uint32, optional, tag = "11")]
    pub stop_timeout: Option<u32>,
    /// Volumes that nobody gave a name.
    #[prost(string, repeated, tag = "12")]
    pub anonymous_volumes: Vec<String>,
}

impl From<&ContainerFacts> for Observed {
    fn from(facts: &ContainerFacts) -> Self {
        Self {
            name: facts.name.clone(),
            state: facts.state.clone(),
            running: facts.running,
            paused: facts.paused,
            pid: facts.pid,
            started_at: facts.started_at.clone(),
            finished_at: facts.finished_at.clone(),
            restart_count: facts.restart_count,
            auto_remove: facts.auto_remove,
            stop_signal: facts.stop_signal.clone(),
            stop_timeout: facts.stop_timeout,
            anonymous_volumes: facts.anonymous_volumes.clone(),
        }
    }
}

/// An operation has its result.
#[derive(Clone, PartialEq, Message)]
pub struct Finished {
    /// As it is told to the controller, less what the ledger adds.
    #[prost(message, optional, tag = "1")]
    pub report: Option<OperationReport>,
}

/// What is kept of an operation for ever.
#[derive(Clone, PartialEq, Message)]
pub struct TombstoneRecord {
    #[prost(bytes = "vec", tag = "1")]
    pub(super) uid: Vec<u8>,
    #[prost(uint32, tag = "2")]
    pub(super) attempt: u32,
    /// First 16 bytes of the SHA-256 of the digest's text.
    #[prost(bytes = "vec", tag = "3")]
    pub(super) digest: Vec<u8>,
    #[prost(int32, tag = "4")]
    pub(super) outcome: i32,
    #[prost(bool, tag = "5")]
    pub(super) retryable: bool,
    /// Incarnation of the store that holds the result.
    #[prost(uint64, tag = "6")]
    pub(super) incarnation: u64,
    /// Version of the store that holds it; 0 if nobody shall be told again.
    #[prost(uint64, tag = "7")]
    pub(super) recorded_at: u64,
}

/// What a tombstone keeps of a digest.
pub(crate) fn fingerprint(digest: &str) -> [u8; 16] {
    let mut short = [0; 16];
    short.iter_mut().zip(Sha256::digest(digest)).for_each(|(short, byte)| *short = byte);
    short
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn time_counts_through_restarts_of_the_agent_and_never_falls_through_those_of_the_machine() {
        let spent = Spent::nothing("a", 100 * SECOND);

        assert_eq!(spent.at("a", 130 * SECOND).spent_ms, 30_000);
        let rebooted = spent.at("a", 130 * SECOND).at("b", 20 * SECOND);
        assert_eq!(rebooted.spent_ms, 50_000, "all of the time since the machine's start");
        assert_eq!(rebooted.at("b", 25 * SECOND).spent_ms, 55_000);
        assert_eq!(spent.at("a", SECOND).spent_ms, 0, "a clock that fell gives nothing back");
    }
}
