//! Hosts that do not exist, with real agents, for a controller that does.

use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context as _, ensure};
use clap::Parser as _;
use gantry_e2e::crowd::ENROLLED;
use gantry_e2e::simulator::{Settings, Simulator};
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until};

/// Enrols many simulated Docker hosts at a controller and keeps their agents connected until it is ended.
///
/// Every agent is an instance of its own: make a join token that can be used so often, with `gantry token create --uses N`. The
/// controller takes 60 enrolments a minute from one address; one on this machine is reached from many.
#[derive(Debug, clap::Parser)]
#[command(name = "gantry-simulator", version)]
struct Arguments {
    #[command(flatten)]
    settings: Settings,
    /// Containers that start or stop in a second, on all hosts together.
    #[arg(long, value_name = "N", default_value_t = 0.0)]
    events_per_second: f64,
    /// Seconds between two lines of figures.
    #[arg(long, value_name = "SECONDS", default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..))]
    report_every: u64,
}

#[tokio::main]
async fn main() -> ExitCode {
    let arguments = Arguments::parse();
    tokio::select! {
        ended = run(&arguments) => match ended {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                eprintln!("error: {error:#}");
                ExitCode::FAILURE
            }
        },
        _ = tokio::signal::ctrl_c() => ExitCode::SUCCESS,
    }
}

async fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let Arguments { settings, events_per_second, .. } = arguments;
    let pace = *events_per_second;
    ensure!((0.0..=100_000.0).contains(&pace), "--events-per-second is between 0 and 100000");
    ensure!(pace == 0.0 || settings.containers > 0, "there are no containers that could start or stop");
    let begun = Instant::now();
    let simulator = Simulator::start(settings).await?;
    println!("{ENROLLED} {} agents in {:.1} s", settings.agents, begun.elapsed().as_secs_f64());
    let made = AtomicU64::new(0);
    let make = async {
        let mut chance = StdRng::seed_from_u64(settings.seed);
        let start = Instant::now();
        if pace == 0.0 {
            return std::future::pending().await;
        }
        for number in 1_u64.. {
            sleep_until(start + Duration::from_secs_f64(number as f64 / pace)).await;
            let host = simulator.hosts().get(chance.random_range(0..simulator.hosts().len()));
            host.context("there are no hosts")?
                .toggle(chance.random_range(0..usize::try_from(settings.containers)?));
            made.store(number, Ordering::Relaxed);
        }
        Ok(())
    };
    let report = async {
        let mut ticks = interval(Duration::from_secs(arguments.report_every));
        ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
        loop {
            ticks.tick().await;
            println!(
                "{:.0} s: {} of {} agents connected, {} connected anew, {} health checks, {} events",
                begun.elapsed().as_secs_f64(),
                simulator.connected(),
                settings.agents,
                simulator.reconnects(),
                simulator.checks(),
                made.load(Ordering::Relaxed),
            );
        }
    };
    tokio::select! {
        ended = make => ended,
        () = report => Ok(()),
    }
}
