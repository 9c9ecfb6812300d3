//! What tests stand on.

pub mod api;
