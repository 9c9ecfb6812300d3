//! What happened in a world, in order, for people.

use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash as _, Hasher as _};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

/// Lines with their time.
#[derive(Debug)]
pub struct Trace {
    begun: Instant,
    lines: Mutex<Vec<(Duration, String)>>,
    is_shown: bool,
}

impl Trace {
    /// Empty; shown while it grows if so wished.
    pub fn new(is_shown: bool) -> Arc<Self> {
        Arc::new(Self { begun: Instant::now(), lines: Mutex::default(), is_shown })
    }

    /// Adds a line.
    pub fn tell(&self, what: impl Into<String>) {
        let (at, what) = (self.begun.elapsed(), what.into());
        if self.is_shown {
            println!("{}", line(at, &what));
        }
        self.lines.lock().push((at, what));
    }

    /// Every line.
    pub fn lines(&self) -> Vec<String> {
        self.lines.lock().iter().map(|(at, what)| line(*at, what)).collect()
    }

    /// Equal for two runs in which the same happened at the same times.
    pub fn fingerprint(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        self.lines.lock().hash(&mut hasher);
        hasher.finish()
    }
}

fn line(at: Duration, what: &str) -> String {
    format!("{:>9.3} {what}", at.as_secs_f64())
}
