//! How long to wait before the next attempt.

use std::time::Duration;

use crate::clock::SharedEntropy;

/// A whole fleet that lost its controller at once comes back spread over this.
const FIRST_WITHIN: Duration = Duration::from_secs(5);
const SHORTEST: Duration = Duration::from_secs(1);
const LONGEST: Duration = Duration::from_secs(60);

/// Waits that grow by half from 1 s to 60 s, each between half of itself and itself; the first is up to 5 s.
pub struct Backoff {
    entropy: SharedEntropy,
    next: Option<Duration>,
}

impl Backoff {
    /// Nothing failed yet.
    pub fn new(entropy: SharedEntropy) -> Self {
        Self { entropy, next: None }
    }

    /// It went well: the next failure is a first one.
    pub fn reset(&mut self) {
        self.next = None;
    }

    /// The wait after one more failure, at least what the other side asked for.
    pub fn wait(&mut self, asked: Option<Duration>) -> Duration {
        let wait = match self.next {
            None => {
                self.next = Some(SHORTEST);
                self.chance(FIRST_WITHIN)
            }
            Some(wait) => {
                self.next = Some((wait * 3 / 2).min(LONGEST));
                wait / 2 + self.chance(wait / 2)
            }
        };
        match asked {
            // Nobody asked for all of them at the same moment.
            Some(asked) if asked > wait => asked + self.chance(asked / 10),
            _ => wait,
        }
    }

    fn chance(&self, below: Duration) -> Duration {
        let milliseconds = u64::try_from(below.as_millis()).unwrap_or(u64::MAX);
        Duration::from_millis(self.entropy.below(milliseconds))
    }
}
