//! Metrics, traces, logs: set up once, at the edge.

pub mod metrics;
pub mod server;
pub mod traces;
