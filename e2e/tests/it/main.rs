//! The promises, on the real thing.

#![allow(clippy::indexing_slicing, reason = "a missing field fails the test, as it should")]

mod api;
mod bad_input;
mod enroll;
mod examples;
mod lab;
mod link;
mod operate;
mod outage;
mod podman;
mod replicas;
mod restore;
mod telemetry;
mod writes;
