//! How long the agent waits for what.

use std::time::Duration;

use super::action::Action;
use crate::docker::Call;

/// Waits, all on the monotonic clock. The defaults are the product's; tests shorten them.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    /// Between two looks at a target, at first; doubled up to `poll_at_most`.
    pub poll: Duration,
    /// Between two looks at a target, at most.
    pub poll_at_most: Duration,
    /// How long a target must be untouched before an action that can do no harm twice is asked for again.
    pub settle: Duration,
    /// The same for an action that can.
    pub settle_once: Duration,
    /// How long Docker may take beyond its own rules before an answer counts as lost.
    pub grace: Duration,
    /// Between two attempts to write a result to a disk that does not take it.
    pub disk: Duration,
    /// Between two reports of progress.
    pub progress: Duration,
    /// How long calls under way may take to be answered when the agent is stopped.
    pub farewell: Duration,
}

impl Default for Pace {
    fn default() -> Self {
        Self {
            poll: Duration::from_millis(250),
            poll_at_most: Duration::from_secs(5),
            settle: Duration::from_secs(2),
            settle_once: Duration::from_secs(5),
            grace: Duration::from_secs(30),
            disk: Duration::from_secs(1),
            progress: Duration::from_millis(500),
            farewell: Duration::from_secs(5),
        }
    }
}

/// A second stop is harmless, so nobody waits longer than this for the first to show.
const LONGEST_STOP_WAIT: Duration = Duration::from_secs(7);

impl Pace {
    /// How long a target must be untouched before a call that may be under way is taken not to be.
    pub(crate) fn settle(&self, action: &Action, patience: Duration) -> Duration {
        match action {
            Action::Call(Call::Restart { .. }) => self.settle_once + patience,
            Action::Call(Call::Start { .. } | Call::Kill { .. }) => self.settle_once,
            Action::Call(Call::Stop { .. }) => self.settle + patience.min(LONGEST_STOP_WAIT),
            Action::Call(_) | Action::Pull(_) => self.settle,
        }
    }
}
