//! How much of the past is kept: the changes of all resources in one order, bounded by count and by bytes.

use std::collections::VecDeque;

use crate::storage::Resource;

/// Bounds of the window of recent changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WindowLimits {
    /// Most changes.
    pub changes: usize,
    /// Most bytes of their objects' JSON.
    pub bytes: usize,
}

impl Default for WindowLimits {
    fn default() -> Self {
        Self { changes: 100_000, bytes: 64 << 20 }
    }
}

/// Which resource each change in the window belongs to, oldest first.
#[derive(Debug)]
pub(super) struct Window {
    limits: WindowLimits,
    bytes: usize,
    order: VecDeque<(Resource, usize)>,
}

impl Window {
    pub(super) fn new(limits: WindowLimits) -> Self {
        Self { limits, bytes: 0, order: VecDeque::new() }
    }

    pub(super) fn limits(&self) -> WindowLimits {
        self.limits
    }

    /// Notes a change as the newest.
    pub(super) fn entered(&mut self, resource: Resource, bytes: usize) {
        self.bytes += bytes;
        self.order.push_back((resource, bytes));
    }

    /// Whose oldest change has to go now; `None` once the bounds hold.
    pub(super) fn leaves(&mut self) -> Option<Resource> {
        if self.order.len() <= self.limits.changes && self.bytes <= self.limits.bytes {
            return None;
        }
        let (resource, bytes) = self.order.pop_front()?;
        self.bytes -= bytes;
        Some(resource)
    }
}
