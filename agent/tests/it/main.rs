//! The agent against a fake Docker daemon on a Unix socket.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::assigning_clones,
    reason = "a test that meets the unexpected shall stop there"
)]

mod config;
mod controller;
mod daemon;
mod docker_answers;
mod docker_proxy;
mod engine_facts;
mod enroll;
mod figures;
mod forwards;
mod inventory;
mod journal;
mod link;
mod live_daemon;
mod logs;
mod operations;
mod processes;
mod pulls;
mod readiness;
mod recovery;
mod registry_credentials;
mod resume;
mod state_dir;
mod stopping;
mod world;
