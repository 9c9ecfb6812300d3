//! Sits beside one Docker Engine: reports it, and runs operations on it at most once each.

pub mod clock;
pub mod docker;
pub mod journal;
pub mod operations;
