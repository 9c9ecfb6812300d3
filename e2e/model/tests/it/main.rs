//! The model holds, its mistakes are found, and it does what the code does.

#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::trivially_copy_pass_by_ref,
    reason = "a test that meets the unexpected shall stop there"
)]

mod drift_agent;
mod drift_control;
mod drift_journal;
mod engine;
mod explored;
mod mistakes;
mod pair;
mod translated;
