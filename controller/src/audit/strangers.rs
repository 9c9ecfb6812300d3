//! How many requests of nobody are recorded: of each source only so many, so that whoever floods us fills no disk.

use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::sources::Sources;

/// What sources without a credential have asked.
#[derive(Debug)]
pub(super) struct Strangers {
    sources: Sources,
    unrecorded: AtomicU64,
}

impl Strangers {
    /// Nobody has asked yet.
    pub(super) fn new() -> Self {
        Self { sources: Sources::new(), unrecorded: AtomicU64::new(0) }
    }

    /// How many requests before this one were not recorded, of whichever source; `None` if this one is not to be either.
    pub(super) fn admit(&self, source: IpAddr) -> Option<u64> {
        if self.sources.admit(source) {
            return Some(self.unrecorded.swap(0, Ordering::Relaxed));
        }
        self.unrecorded.fetch_add(1, Ordering::Relaxed);
        None
    }
}
