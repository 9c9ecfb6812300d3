//! What tests stand on.

pub mod agents;
pub mod api;
pub mod containers;
pub mod engines;
pub mod fake_agent;
pub mod gate;
pub mod history;
pub mod people;
pub mod replicas;
pub mod storage;
