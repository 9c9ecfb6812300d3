//! `make bench`: how fast the whole HTTPS API is on this machine, beside raw Postgres in the same run. `make bench-fleet`: what ten
//! thousand simulated hosts cost. `make bench-audit`: how fast a long audit log is read.
//!
//! One Postgres with fsync on, one controller, all clients in this process. Prints a Markdown table.

mod audit;
mod client;
mod figures;
mod fleet;
mod lists;
mod live;
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
    /// Agents of the fleet.
    #[arg(long, default_value_t = 10_000)]
    agents: u32,
    /// Containers of each agent of the fleet.
    #[arg(long, default_value_t = 20)]
    containers: u32,
    /// Events of the audit log.
    #[arg(long, default_value_t = 10_000_000)]
    events: u64,
    /// Only the parts of these names: rates, lists, watches, memory, agent. Only by their names: audit, fleet, checks, live (of which
    /// lines, echoes, calls, logs and transfers are parts).
    only: Vec<String>,
}

/// Parts that start what they need themselves.
const OWN_PLACES: [&str; 9] =
    ["audit", "fleet", "checks", "live", "lines", "echoes", "calls", "logs", "transfers"];

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
    let is_named = |part: &str| args.only.iter().any(|only| only == part);
    if is_named("fleet") {
        fleet::fleet(&dir.path().join("fleet"), args.agents, args.containers).await?;
    }
    if is_named("checks") {
        fleet::checks(&dir.path().join("checks")).await?;
    }
    if is_named("audit") {
        audit::audit(&dir.path().join("audit"), args.events).await?;
    }
    if is_named("live") {
        live::live(&args.only).await?;
    }
    if !args.only.is_empty() && args.only.iter().all(|part| OWN_PLACES.contains(&part.as_str())) {
        return Ok(());
    }
    let postgres = Postgres::start(&dir.path().join("pg")).await?;
    let mut controller = Controller::start(&dir.path().join("controller"), &postgres.url(), &[]).await?;
    let bench = Bench {
        target: Target::of(&controller).await?,
        clients: args.clients,
        time: Duration::from_secs(args.seconds),
    };
    let is_wanted = |part: &str| args.only.is_empty() || is_named(part);

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
