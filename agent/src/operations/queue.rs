//! One operation at a time for each target, in order of arrival.

use std::collections::{HashMap, VecDeque};

use uuid::Uuid;

/// Operations that wait or run, by the target they exclude others from.
#[derive(Debug, Default)]
pub(super) struct Queues {
    by_target: HashMap<String, VecDeque<Uuid>>,
}

impl Queues {
    /// Puts an operation behind the others. True if there were none, so that somebody must begin to run this target's.
    pub(super) fn push(&mut self, target: &str, uid: Uuid) -> bool {
        let queue = self.by_target.entry(target.to_owned()).or_default();
        queue.push_back(uid);
        queue.len() == 1
    }

    /// The operation whose turn it is.
    pub(super) fn first(&self, target: &str) -> Option<Uuid> {
        self.by_target.get(target).and_then(|queue| queue.front().copied())
    }

    /// Takes the first one away and says whose turn it is now.
    pub(super) fn pop(&mut self, target: &str) -> Option<Uuid> {
        let queue = self.by_target.get_mut(target)?;
        queue.pop_front();
        let next = queue.front().copied();
        if next.is_none() {
            self.by_target.remove(target);
        }
        next
    }
}
