//! Metrics, traces, logs: set up once, at the edge.

mod collector;
pub mod metrics;
pub mod server;
pub mod traces;
