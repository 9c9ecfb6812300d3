//! The whole system against real Docker Engines, real Postgres and the real kubectl.
//!
//! A [`World`](world::World) is one control plane with its own Postgres and any number of hosts, each a real dockerd with its own
//! socket, data and agent. Everything it starts ends with it, by pid. Needs root, like dockerd.

pub mod agent;
pub mod balancer;
pub mod client;
pub mod collector;
pub mod conformance;
pub mod controller;
#[cfg(feature = "simulation")]
pub mod crowd;
pub mod docker;
pub mod emulator;
pub mod engine;
pub mod fake_engine;
pub mod faketime;
pub mod figures;
pub mod fleet;
pub mod kubectl;
pub mod ledger;
pub mod manifest;
pub mod network;
pub mod pgbouncer;
pub mod places;
pub mod postgres;
pub mod process;
pub mod proxy;
pub mod registry;
pub mod rest;
pub mod scratch;
#[cfg(feature = "simulation")]
pub mod simulation;
#[cfg(feature = "simulation")]
pub mod simulator;
pub mod small_disk;
pub mod transcript;
pub mod world;

use std::time::Duration;

use anyhow::Context as _;
use tokio::time::Instant;

/// Waits until `probe` yields something; the error says what was awaited and what the last probe said.
pub async fn eventually<T, F>(what: &str, patience: Duration, mut probe: F) -> anyhow::Result<T>
where
    F: AsyncFnMut() -> anyhow::Result<T>,
{
    let end = Instant::now() + patience;
    loop {
        match probe().await {
            Ok(found) => return Ok(found),
            Err(error) if Instant::now() >= end => {
                return Err(error).with_context(|| format!("waited {patience:?} for {what}"));
            }
            Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
        }
    }
}

/// A free port on loopback. Another process may take it before it is used; the window is small.
pub fn free_port() -> anyhow::Result<u16> {
    Ok(std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}
