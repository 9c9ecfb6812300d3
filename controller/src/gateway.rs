//! Agents dial in here; calls go out to them. Nothing here knows HTTP resources or SQL.

pub mod door;
pub mod link;
