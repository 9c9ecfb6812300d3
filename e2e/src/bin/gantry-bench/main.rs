//! `make bench`: how fast the whole HTTPS API is on this machine, beside raw Postgres in the same run.
//!
//! One Postgres with fsync on, one controller, all clients in this process. Prints a Markdown table.

mod client;
mod figures;
mod lists;
mod memory;
mod objects;
mod rates;
mod watches;

use std::time::Duration;

use clap::Parser;
use gantry_e2e::controller::Controller;
use gantry_e2e::postgres::Postgres;

use crate::client::Target;

/// Measures the control plane.
#[derive(Debug, Parser)]
struct Args {
    /// Clients at the same time.
    #[arg(long, default_value_t = 64)]
    clients: usize,
    /// Seconds per figure.
    #[arg(long, default_value_t = 8)]
    seconds: u64,
    /// Seconds that an agent is idle before its memory is looked at.
    #[arg(long, default_value_t = 60)]
    idle_seconds: u64,
    /// Only the parts of these names: rates, lists, watches, memory, agent.
    only: Vec<String>,
}

struct Bench {
    target: Target,
    clients: usize,
    time: Duration,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    let dir = tempfile::Builder::new().prefix("gantry-bench-").tempdir()?;
    std::fs::set_permissions(dir.path(), std::os::unix::fs::PermissionsExt::from_mode(0o711))?;
    let postgres = Postgres::start(&dir.path().join("pg")).await?;
    let mut controller = Controller::start(&dir.path().join("controller"), &postgres.url(), &[]).await?;
    let bench = Bench {
        target: Target::of(&controller).await?,
        clients: args.clients,
        time: Duration::from_secs(args.seconds),
    };
    let is_wanted = |part: &str| args.only.is_empty() || args.only.iter().any(|only| only == part);

    println!("| what | rate or time | p50 | p99 |\n| --- | --- | --- | --- |");
    bench.raw_postgres(&postgres).await?;
    if is_wanted("rates") {
        bench.rates().await?;
    }
    if is_wanted("lists") {
        bench.lists().await?;
    }
    if is_wanted("watches") {
        for (watchers, writes) in [(1, 1_000), (100, 1_000), (1_000, 200)] {
            bench.watch(watchers, writes).await?;
        }
    }
    if is_wanted("memory") {
        bench.memory_of_objects(&mut controller).await?;
    }
    if is_wanted("agent") {
        memory::idle_agent(&controller, dir.path(), Duration::from_secs(args.idle_seconds)).await?;
    }
    Ok(())
}
