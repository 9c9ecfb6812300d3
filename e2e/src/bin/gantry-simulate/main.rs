//! Runs seeds of the simulation, each in a process of its own, and makes what fails short.
//!
//! `gantry-simulate --seeds 0..1000` runs many and prints those that fail with the shortest scenario that still does;
//! `gantry-simulate --seeds 17 --verbose` shows everything that happens in one.

mod randomness;
mod runner;

use std::collections::BTreeSet;
use std::process::ExitCode;
use std::str::FromStr;
use std::time::Duration;

use clap::Parser;
use gantry_e2e::simulation::{self, Options};

use self::runner::Runner;

/// Runs the real controllers and agents in simulated worlds, one for each seed.
#[derive(Debug, Parser)]
struct Arguments {
    /// One seed, or `FIRST..LAST` without the last.
    #[arg(long, default_value = "0..1000")]
    seeds: Seeds,
    /// Show what happens, as it does.
    #[arg(long, short)]
    verbose: bool,
    /// The logs of controllers and agents too, as RUST_LOG says.
    #[arg(long)]
    log: bool,
    /// Seeds that run at the same time; the number of processors by default.
    #[arg(long)]
    jobs: Option<usize>,
    /// Stop after so many failures.
    #[arg(long, default_value_t = 10)]
    failures: usize,
    /// Do not look for a shorter scenario that fails too.
    #[arg(long)]
    as_it_is: bool,
    /// Run every seed twice and compare.
    #[arg(long)]
    twice: bool,
    /// Leave out these faults.
    #[arg(long, value_delimiter = ',')]
    without_faults: Vec<usize>,
    /// Leave out these Operations.
    #[arg(long, value_delimiter = ',')]
    without_operations: Vec<usize>,
    /// This process is the world of its one seed; its standard output is read by the one that started it.
    #[arg(long, hide = true)]
    world: bool,
}

/// A range of seeds.
#[derive(Clone, Copy, Debug)]
struct Seeds {
    first: u64,
    end: u64,
}

impl FromStr for Seeds {
    type Err = std::num::ParseIntError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.split_once("..") {
            Some((first, end)) => Ok(Self { first: first.parse()?, end: end.parse()? }),
            None => text.parse().map(|first| Self { first, end: first + 1 }),
        }
    }
}

fn main() -> anyhow::Result<ExitCode> {
    let arguments = Arguments::parse();
    let left_out = |numbers: &[usize]| numbers.iter().copied().collect::<BTreeSet<_>>();
    let options = Options {
        without_faults: left_out(&arguments.without_faults),
        without_wishes: left_out(&arguments.without_operations),
        is_shown: arguments.verbose,
    };
    if arguments.world {
        return world(arguments.seeds.first, &options, arguments.log);
    }
    randomness::addresses_stay();
    let runner = Runner {
        jobs: arguments
            .jobs
            .or_else(|| std::thread::available_parallelism().ok().map(Into::into))
            .unwrap_or(1),
        most_failures: arguments.failures,
        is_shortening: !arguments.as_it_is,
        is_twice: arguments.twice,
        is_verbose: arguments.verbose,
        is_logging: arguments.log,
        patience: Duration::from_secs(120),
    };
    let failed = runner.run(arguments.seeds.first..arguments.seeds.end, &options)?;
    Ok(if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Runs one world in this process and tells what came of it.
fn world(seed: u64, options: &Options, is_logging: bool) -> anyhow::Result<ExitCode> {
    if is_logging {
        let filter = tracing_subscriber::EnvFilter::from_default_env();
        tracing_subscriber::fmt().with_env_filter(filter).without_time().init();
    }
    // On a thread that drew nothing yet, so that all it draws comes from the seed.
    let (options, is_shown) = (options.clone(), options.is_shown);
    let report = std::thread::Builder::new()
        .stack_size(64 << 20)
        .spawn(move || {
            randomness::follows(seed);
            simulation::run(seed, &options)
        })?
        .join()
        .map_err(|_| anyhow::anyhow!("the world of seed {seed} panicked"))??;
    for violation in &report.violations {
        println!(
            "violation\t{}\t{}\t{}",
            violation.invariant,
            violation.operation.as_deref().unwrap_or("-"),
            violation.what.replace(['\t', '\n'], " ")
        );
    }
    for line in report.lines.iter().filter(|_| !is_shown) {
        println!("line\t{}", line.replace('\n', " "));
    }
    for (what, count) in &report.tally {
        println!("count\t{what}\t{count}");
    }
    println!("end\t{:016x}", report.fingerprint);
    Ok(ExitCode::SUCCESS)
}
