//! What is known of an operation only in this process.

use std::collections::HashMap;
use std::time::Duration;

use gantry_api::agent_v1::PullProgress;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

/// One attempt that waits or runs.
#[derive(Clone)]
pub(super) struct Live {
    pub(super) attempt: u32,
    /// Cancelled once the controller vouches for it: it was submitted to this process, or named in Resume.
    pub(super) permitted: CancellationToken,
    /// When it must have started, in time since boot; `None` for no limit.
    pub(super) start_by: Option<Duration>,
    /// Cancelled when somebody withdraws it.
    pub(super) withdrawn: CancellationToken,
    /// Cancelled when the journal gave it up: whatever is done for it ends there.
    pub(super) dropped: CancellationToken,
    pub(super) progress: Option<PullProgress>,
}

impl Live {
    /// Nobody vouches for it yet.
    pub(super) fn new(attempt: u32) -> Self {
        Self {
            attempt,
            permitted: CancellationToken::new(),
            start_by: None,
            withdrawn: CancellationToken::new(),
            dropped: CancellationToken::new(),
            progress: None,
        }
    }

    /// It may start, until `start_by` if that is given.
    pub(super) fn permit(&mut self, start_by: Option<Duration>) {
        self.start_by = start_by;
        self.permitted.cancel();
    }
}

/// Forgets an attempt that ran. Another one may have been submitted as soon as this one had its result; it stays.
pub(super) fn end(all: &mut HashMap<Uuid, Live>, uid: Uuid, attempt: u32) {
    if all.get(&uid).is_some_and(|live| live.attempt == attempt) {
        all.remove(&uid);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_an_attempt_takes_no_newer_one_along() {
        let uid = Uuid::from_bytes([1; 16]);
        let mut all = HashMap::from([(uid, Live::new(2))]);

        end(&mut all, uid, 1);
        assert_eq!(all.len(), 1);

        end(&mut all, uid, 2);
        assert_eq!(all.len(), 0);
    }
}
