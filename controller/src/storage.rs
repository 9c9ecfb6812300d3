//! Resources on Postgres: every object in one table, every change in one ordered log. All SQL of the controller lives here.
//!
//! Versions are claimed in commit order from one locked counter row, so a reader of the log never meets a gap that fills up later.
//! Writes go through the group-commit writer; reads through the watch cache that follows the log.

mod types;

pub use types::*;
