//! Sits beside one Docker Engine: reports it, and runs operations on it at most once each.

pub mod app;
pub mod clock;
pub mod config;
pub mod docker;
pub mod docker_proxy;
pub mod enrollment;
mod failpoint;
mod hex;
pub mod inventory;
pub mod journal;
pub mod operations;
pub mod policy;
pub mod session;
pub mod state_dir;
pub mod streams;
pub mod telemetry;
