//! Whether the session allows work to start.

use async_trait::async_trait;

/// Nothing starts while this says no. The session implements it: Resume has answered and the last round trip is less than
/// 20 s of boot time old.
#[async_trait]
pub trait Readiness: Send + Sync + 'static {
    /// True if work may start at this moment.
    fn is_ready(&self) -> bool;

    /// Returns once it may. It may be over again by then: ask `is_ready` just before acting.
    async fn ready(&self);
}
