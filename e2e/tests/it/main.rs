//! The promises, on the real thing.

#![allow(clippy::indexing_slicing, reason = "a missing field fails the test, as it should")]

mod api;
mod apply;
mod archives;
mod bad_input;
mod chaos;
mod dev;
mod docker_bytes;
mod docker_cli;
mod docker_clients;
mod enroll;
mod examples;
mod inventory;
mod issuer;
mod lab;
mod link;
mod live;
mod operate;
mod outage;
mod planted;
mod podman;
mod pods;
mod quiet;
mod recordings;
mod registries;
mod replicas;
mod restore;
mod rights;
mod secrets;
mod settings;
mod simulate;
mod simulated;
mod telemetry;
mod terminal;
mod tool;
mod transcripts;
mod waiting;
mod writes;
