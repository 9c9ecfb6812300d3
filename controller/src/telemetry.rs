//! Metrics, traces, logs: set up once, at the edge.

pub(crate) mod collector;
pub mod metrics;
pub mod traces;
