//! The only source of time, randomness and ids. Passed in, so that tests and the simulation can move them.

use std::sync::Arc;

use jiff::Timestamp;
use rand::RngExt as _;
use uuid::Uuid;

/// Wall-clock time. Deadlines use tokio's monotonic clock instead.
pub trait Clock: Send + Sync + 'static {
    /// The time of day.
    fn now(&self) -> Timestamp;
}

/// New ids and chance.
pub trait Entropy: Send + Sync + 'static {
    /// A new random (version 4) id.
    fn uuid(&self) -> Uuid;
    /// A number below `bound`, evenly; 0 if `bound` is 0.
    fn below(&self, bound: u64) -> u64;
    /// Fills the buffer with bytes fit for secrets.
    fn fill(&self, bytes: &mut [u8]);
}

/// Shared clock.
pub type SharedClock = Arc<dyn Clock>;
/// Shared entropy.
pub type SharedEntropy = Arc<dyn Entropy>;

/// The machine's clock.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    #[expect(clippy::disallowed_methods, reason = "this is the source the ban points to")]
    fn now(&self) -> Timestamp {
        Timestamp::now()
    }
}

/// The machine's randomness.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemEntropy;

#[expect(clippy::disallowed_methods, reason = "this is the source the ban points to")]
impl Entropy for SystemEntropy {
    fn uuid(&self) -> Uuid {
        let mut bytes = [0; 16];
        self.fill(&mut bytes);
        uuid::Builder::from_random_bytes(bytes).into_uuid()
    }

    fn below(&self, bound: u64) -> u64 {
        if bound == 0 { 0 } else { rand::rng().random_range(0..bound) }
    }

    fn fill(&self, bytes: &mut [u8]) {
        rand::rng().fill(bytes);
    }
}
