//! The only source of randomness and time of a simulated world.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use parking_lot::Mutex;
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use tokio::time::Instant;
use uuid::Uuid;

/// What is drawn for one part of a world. Parts draw from streams of their own, so that a fault that is left out does not change
/// what the others draw.
#[derive(Debug)]
pub struct Chance(Mutex<StdRng>);

impl Chance {
    /// The stream of that part in the world of that seed.
    pub fn of(seed: u64, part: &str) -> Arc<Self> {
        // FNV: the same in every build.
        let part = part.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
        });
        Arc::new(Self(Mutex::new(StdRng::seed_from_u64(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ part))))
    }

    /// A number below `bound`; 0 if that is 0.
    pub fn below(&self, bound: u64) -> u64 {
        if bound == 0 { 0 } else { self.0.lock().random_range(0..bound) }
    }

    /// True so often in a hundred.
    pub fn percent(&self, often: u64) -> bool {
        self.below(100) < often
    }

    /// A time from `least` to `most`, in milliseconds.
    pub fn between(&self, least: Duration, most: Duration) -> Duration {
        let (least, most) = (least.as_millis() as u64, most.as_millis() as u64);
        Duration::from_millis(least + self.below(most.saturating_sub(least) + 1))
    }

    /// So many seconds, from `least` to `most`.
    pub fn seconds(&self, least: u64, most: u64) -> Duration {
        self.between(Duration::from_secs(least), Duration::from_secs(most))
    }

    /// So many milliseconds, from `least` to `most`.
    pub fn millis(&self, least: u64, most: u64) -> Duration {
        self.between(Duration::from_millis(least), Duration::from_millis(most))
    }

    /// One of these; `None` of none.
    pub fn pick<'a, T>(&self, of: &'a [T]) -> Option<&'a T> {
        of.get(self.below(of.len() as u64) as usize)
    }

    /// 64 hexadecimal digits.
    pub fn hex(&self) -> String {
        let mut random = self.0.lock();
        let parts: Vec<String> = (0..4).map(|_| format!("{:016x}", random.random::<u64>())).collect();
        parts.concat()
    }

    fn uuid(&self) -> Uuid {
        uuid::Builder::from_random_bytes(self.0.lock().random()).into_uuid()
    }
}

impl gantry_agent::clock::Entropy for Chance {
    fn uuid(&self) -> Uuid {
        Self::uuid(self)
    }

    fn below(&self, bound: u64) -> u64 {
        Self::below(self, bound)
    }

    fn fill(&self, bytes: &mut [u8]) {
        self.0.lock().fill(bytes);
    }
}

impl gantry_controller::clock::Entropy for Chance {
    fn uuid(&self) -> Uuid {
        Self::uuid(self)
    }

    fn below(&self, bound: u64) -> u64 {
        Self::below(self, bound)
    }

    fn fill(&self, bytes: &mut [u8]) {
        self.0.lock().fill(bytes);
    }
}

/// One machine's clocks. All of them follow the runtime's paused time; the time of day can be moved besides.
#[derive(Debug)]
pub struct MachineClock {
    begun: Instant,
    skew_ms: AtomicI64,
    boot: String,
}

impl MachineClock {
    /// Starts now.
    pub fn new(machine: &str) -> Arc<Self> {
        Arc::new(Self {
            begun: Instant::now(),
            skew_ms: AtomicI64::default(),
            boot: format!("boot-of-{machine}"),
        })
    }

    /// Moves the time of day, and nothing else.
    pub fn jump(&self, by: SignedDuration) {
        self.skew_ms.fetch_add(by.as_millis() as i64, Ordering::Relaxed);
    }

    /// Time since the world began.
    pub fn elapsed(&self) -> Duration {
        self.begun.elapsed()
    }

    fn time_of_day(&self) -> Timestamp {
        // 2026-06-01T12:00:00Z.
        let begun = 1_780_315_200_000_i64;
        let now = begun + self.skew_ms.load(Ordering::Relaxed) + self.begun.elapsed().as_millis() as i64;
        Timestamp::from_millisecond(now).unwrap_or_default()
    }
}

impl gantry_agent::clock::Clock for MachineClock {
    fn now(&self) -> Timestamp {
        self.time_of_day()
    }

    fn since_boot(&self) -> Duration {
        Duration::from_secs(1_000) + self.begun.elapsed()
    }

    fn boot(&self) -> String {
        self.boot.clone()
    }
}

impl gantry_controller::clock::Clock for MachineClock {
    fn now(&self) -> Timestamp {
        self.time_of_day()
    }
}
