//! Commands that were made in containers and are started by their id alone: so that what is recorded of a start says what starts where.
//!
//! Known on the replica that they were made through. Elsewhere the record of the start has the id, and that of the making the rest.

use std::collections::VecDeque;

use gantry_api::engine_api::{Parsed, Request};
use parking_lot::Mutex;
use serde::Deserialize;

use crate::gateway::link::InstanceUid;

/// Commands that are remembered.
const MOST: usize = 1_000;
/// Longest answer to the making of one.
pub(super) const MOST_ANSWER: usize = 64 << 10;

/// A command, and where it is to run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Made {
    pub container: String,
    pub command: Vec<String>,
}

impl Made {
    /// What a request makes.
    pub fn of(request: &Request, parsed: Option<&Parsed>) -> Option<Self> {
        let Some(Parsed::ExecCreate(body)) = parsed else { return None };
        let command = body.cmd.as_ref().map(|words| words.list().to_vec()).unwrap_or_default();
        Some(Self { container: request.object().to_owned(), command })
    }
}

/// The newest of them.
#[derive(Debug, Default)]
pub(in crate::live) struct Execs(Mutex<VecDeque<(InstanceUid, String, Made)>>);

impl Execs {
    /// The engine's answer names it.
    pub(super) fn made(&self, uid: InstanceUid, answer: &[u8], made: Made) {
        #[derive(Deserialize)]
        struct Answer {
            #[serde(rename = "Id")]
            id: String,
        }
        let Ok(Answer { id }) = serde_json::from_slice(answer) else { return };
        let mut all = self.0.lock();
        if all.len() >= MOST {
            all.pop_front();
        }
        all.push_back((uid, id, made));
    }

    pub(super) fn find(&self, uid: InstanceUid, id: &str) -> Option<Made> {
        let all = self.0.lock();
        all.iter().rev().find(|(of, known, _)| *of == uid && known == id).map(|(_, _, made)| made.clone())
    }
}
