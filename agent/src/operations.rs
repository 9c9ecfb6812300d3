//! Runs operations on the engine, at most once each.

mod readiness;
mod refusal;

pub use readiness::Readiness;
pub use refusal::Refusal;
