//! Seeded simulation: the real controllers and agents in one process, on a network, a database, disks and engines in memory, in
//! time that leaps from one event to the next.
//!
//! What is real: reconcilers, gateway, API server and store of the controller; operations, journal, session and link of the agent;
//! HTTP/2 between them. What is not: TLS, Postgres, Docker, the disk. A seed draws a [`Scenario`](scenario::Scenario) and everything
//! that is left to chance in it; a [`Checker`](check::Checker) weighs what engines, journals and the database see.
//!
//! How far a seed reproduces: times, ids, faults and their fates come from the seed alone. Which of several ready branches a
//! `select!` takes and in which order a `HashMap` is walked come from the operating system's randomness; `gantry-simulate` answers
//! that from the seed too, in a process of its own for each seed.

pub mod chance;
pub mod check;
pub mod database;
pub mod disk;
pub mod engine;
mod faults;
mod holders;
pub mod host;
pub mod link;
pub mod process;
pub mod replica;
pub mod scenario;
pub mod trace;
mod wishes;
pub mod world;

use std::collections::{BTreeMap, BTreeSet};

use self::check::Violation;
use self::scenario::Scenario;
use self::world::World;

/// What is left out of a seed's scenario, and whether it is shown while it runs.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Numbers of faults.
    pub without_faults: BTreeSet<usize>,
    /// Numbers of Operations.
    pub without_wishes: BTreeSet<usize>,
    /// Print each event at once.
    pub is_shown: bool,
}

/// What came of a seed.
#[derive(Clone, Debug)]
pub struct Report {
    /// Broken promises.
    pub violations: Vec<Violation>,
    /// Everything that happened.
    pub lines: Vec<String>,
    /// What came of Operations, and how often.
    pub tally: BTreeMap<String, usize>,
    /// Equal for equal runs.
    pub fingerprint: u64,
}

/// The scenario of a seed, less what is left out.
pub fn scenario(seed: u64, options: &Options) -> Scenario {
    let mut scenario = Scenario::of(seed);
    scenario.faults.retain(|fault| !options.without_faults.contains(&fault.number));
    scenario.wishes.retain(|wish| !options.without_wishes.contains(&wish.number));
    scenario
}

/// Runs the world of a seed on this thread, from its first moment to its last.
pub fn run(seed: u64, options: &Options) -> anyhow::Result<Report> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build()?;
    let report = runtime.block_on(async {
        let world = World::begin(seed, scenario(seed, options), options.is_shown).await?;
        world.run().await;
        anyhow::Ok(Report {
            violations: world.checker.violations(),
            lines: world.trace.lines(),
            tally: world.checker.tally(),
            fingerprint: world.trace.fingerprint(),
        })
    });
    runtime.shutdown_background();
    report
}

/// A directory in memory that goes when it is dropped.
fn scratch() -> anyhow::Result<tempfile::TempDir> {
    let memory = std::path::Path::new("/dev/shm");
    let builder = || {
        let mut builder = tempfile::Builder::new();
        builder.prefix("gantry-simulate-");
        builder
    };
    Ok(if memory.is_dir() { builder().tempdir_in(memory)? } else { builder().tempdir()? })
}
