//! Commands that were made in containers and are started by their id alone: so that what is recorded of a start says what starts where.
//!
//! Known on the replica that they were made through. Elsewhere the record of the start has the id, and that of the making the rest.

use std::collections::VecDeque;

use gantry_api::engine_api::body::Words;
use gantry_api::engine_api::facts::Facts;
use gantry_api::engine_api::{Parsed, Request};
use parking_lot::Mutex;
use serde::Deserialize;

use crate::gateway::link::InstanceUid;
use crate::storage::audit::Record;

/// Commands that are remembered.
const MOST: usize = 1_000;
/// Words of a command that are told.
const MOST_WORDS: usize = 64;
/// Longest answer to the making of one.
pub(super) const MOST_ANSWER: usize = 64 << 10;

/// A command, where it is to run, and what it may do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Made {
    /// As whoever made it called it.
    pub container: String,
    /// As much of it as is told.
    pub command: Vec<String>,
    pub user: String,
    pub privileged: bool,
    /// It can be typed to.
    pub has_input: bool,
}

impl Made {
    /// What a request makes.
    pub fn of(request: &Request, parsed: Option<&Parsed>) -> Option<Self> {
        let Some(Parsed::ExecCreate(body)) = parsed else { return None };
        let words = body.cmd.as_ref().map(Words::list).unwrap_or_default();
        let facts = Facts::of_exec(body);
        Some(Self {
            container: request.object().to_owned(),
            command: words.iter().take(MOST_WORDS).map(|word| Record::column(word)).collect(),
            user: Record::column(&facts.user),
            privileged: facts.privileged,
            has_input: body.attach_stdin.unwrap_or_default(),
        })
    }

    /// What a policy judges of it.
    pub fn facts(&self) -> Facts {
        Facts { user: self.user.clone(), privileged: self.privileged, ..Facts::default() }
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
