//! Starts a process for each seed, reads what came of it, and looks for the shortest scenario that still fails.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Read as _;
use std::ops::Range;
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::Context as _;
use gantry_e2e::simulation::{self, Options};

/// How seeds are run.
pub struct Runner {
    pub jobs: usize,
    pub most_failures: usize,
    pub is_shortening: bool,
    pub is_twice: bool,
    pub is_verbose: bool,
    pub is_logging: bool,
    /// For one world, in real time.
    pub patience: Duration,
}

/// What a world's process told.
#[derive(Clone, Debug, Default)]
struct Told {
    violations: Vec<(String, String, String)>,
    lines: Vec<String>,
    tally: BTreeMap<String, usize>,
    fingerprint: String,
}

/// Where a scenario is not shortened any further.
const MOST_RUNS: usize = 150;

impl Runner {
    /// Runs them all; how many failed.
    pub fn run(&self, seeds: Range<u64>, options: &Options) -> anyhow::Result<usize> {
        let (next, failed, done) = (AtomicU64::new(seeds.start), AtomicUsize::new(0), AtomicUsize::new(0));
        let differing = Mutex::new(Vec::new());
        let tally: Mutex<BTreeMap<String, usize>> = Mutex::default();
        std::thread::scope(|scope| {
            let workers: Vec<_> = (0..self.jobs.max(1))
                .map(|_| {
                    scope.spawn(|| -> anyhow::Result<()> {
                        while failed.load(Ordering::SeqCst) < self.most_failures {
                            let seed = next.fetch_add(1, Ordering::SeqCst);
                            if seed >= seeds.end {
                                break;
                            }
                            let told = self.world(seed, options)?;
                            done.fetch_add(1, Ordering::SeqCst);
                            let mut all = tally.lock().map_err(|_| anyhow::anyhow!("a worker panicked"))?;
                            for (what, count) in &told.tally {
                                *all.entry(what.clone()).or_default() += count;
                            }
                            drop(all);
                            if self.is_twice && self.world(seed, options)?.fingerprint != told.fingerprint {
                                differing
                                    .lock()
                                    .map_err(|_| anyhow::anyhow!("a worker panicked"))?
                                    .push(seed);
                            }
                            if !told.violations.is_empty() {
                                failed.fetch_add(1, Ordering::SeqCst);
                                self.tell(seed, options, told)?;
                            }
                        }
                        Ok(())
                    })
                })
                .collect();
            for worker in workers {
                worker.join().map_err(|_| anyhow::anyhow!("a worker panicked"))??;
            }
            anyhow::Ok(())
        })?;
        let failed = failed.into_inner();
        for (what, count) in tally.into_inner().map_err(|_| anyhow::anyhow!("a worker panicked"))? {
            println!("{count:>8} {what}");
        }
        println!("{} seeds ran, {failed} failed", done.into_inner());
        if self.is_twice {
            let mut differing = differing.into_inner().map_err(|_| anyhow::anyhow!("a worker panicked"))?;
            differing.sort_unstable();
            println!("{} did not do the same twice: {differing:?}", differing.len());
        }
        Ok(failed)
    }

    /// Runs one world in a process of its own.
    fn world(&self, seed: u64, options: &Options) -> anyhow::Result<Told> {
        let program = std::env::current_exe()?;
        let list =
            |numbers: &BTreeSet<usize>| numbers.iter().map(ToString::to_string).collect::<Vec<_>>().join(",");
        let mut command = Command::new(program);
        command.args(["--world", "--seeds", &seed.to_string()]);
        for (flag, numbers) in
            [("--without-faults", &options.without_faults), ("--without-operations", &options.without_wishes)]
        {
            if !numbers.is_empty() {
                command.arg(flag).arg(list(numbers));
            }
        }
        if self.is_verbose {
            command.arg("--verbose");
        }
        if self.is_logging {
            command.arg("--log");
        }
        let mut child =
            command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().context("a world does not start")?;
        let mut output = child.stdout.take().context("its output is read")?;
        let (ended, end) = std::sync::mpsc::channel::<()>();
        let pid = child.id();
        let patience = self.patience;
        let watchdog = std::thread::spawn(move || {
            if end.recv_timeout(patience) == Err(std::sync::mpsc::RecvTimeoutError::Timeout) {
                let pid = nix::unistd::Pid::from_raw(i32::try_from(pid).unwrap_or(i32::MAX));
                // It may have ended by itself.
                let _ = nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL);
            }
        });
        let mut text = String::new();
        output.read_to_string(&mut text)?;
        let status = child.wait()?;
        drop(ended);
        watchdog.join().map_err(|_| anyhow::anyhow!("the watchdog panicked"))?;
        let mut told = Told::default();
        for line in text.lines() {
            let mut words = line.splitn(4, '\t');
            match (words.next(), words.next(), words.next(), words.next()) {
                (Some("violation"), Some(invariant), Some(operation), Some(what)) => {
                    told.violations.push((invariant.to_owned(), operation.to_owned(), what.to_owned()));
                }
                (Some("count"), Some(what), Some(count), _) => {
                    told.tally.insert(what.to_owned(), count.parse().unwrap_or(0));
                }
                (Some("line"), Some(line), ..) => told.lines.push(line.to_owned()),
                (Some("end"), Some(fingerprint), ..) => fingerprint.clone_into(&mut told.fingerprint),
                _ if self.is_verbose || self.is_logging => println!("{line}"),
                _ => {}
            }
        }
        if !status.success() || told.fingerprint.is_empty() {
            let what = format!("the world ended by itself: {status}");
            told.violations.push(("no end".to_owned(), "-".to_owned(), what));
        }
        Ok(told)
    }

    /// Prints a failing seed, with as little around it as still fails in the same way.
    fn tell(&self, seed: u64, options: &Options, told: Told) -> anyhow::Result<()> {
        let Some(first) = told.violations.first().cloned() else { return Ok(()) };
        let (options, told) = if self.is_shortening {
            self.shorten(seed, options, told, &first.0)?
        } else {
            (options.clone(), told)
        };
        let list =
            |numbers: &BTreeSet<usize>| numbers.iter().map(ToString::to_string).collect::<Vec<_>>().join(",");
        let mut text = format!("\nseed {seed} fails; again with: gantry-simulate --seeds {seed}");
        for (flag, numbers) in
            [("--without-faults", &options.without_faults), ("--without-operations", &options.without_wishes)]
        {
            if !numbers.is_empty() {
                text.extend([format!(" {flag} {}", list(numbers))]);
            }
        }
        for (invariant, operation, what) in &told.violations {
            text.extend([format!("\n  {invariant} {operation}: {what}")]);
        }
        for line in told.lines {
            text.extend([format!("\n    {line}")]);
        }
        println!("{text}");
        Ok(())
    }

    /// Leaves out faults and Operations, halves first, as long as the same invariant is broken.
    fn shorten(
        &self,
        seed: u64,
        options: &Options,
        told: Told,
        invariant: &str,
    ) -> anyhow::Result<(Options, Told)> {
        let (mut best, mut shortest, mut runs) = (options.clone(), told, 0);
        for is_fault in [true, false, true] {
            let scenario = simulation::scenario(seed, &best);
            let mut present: Vec<usize> = if is_fault {
                scenario.faults.iter().map(|fault| fault.number).collect()
            } else {
                scenario.wishes.iter().map(|wish| wish.number).collect()
            };
            let mut size = present.len();
            while size > 0 && runs < MOST_RUNS {
                let mut start = 0;
                while start < present.len() && runs < MOST_RUNS {
                    let some: BTreeSet<usize> = present.iter().skip(start).take(size).copied().collect();
                    let mut fewer = best.clone();
                    if is_fault { &mut fewer.without_faults } else { &mut fewer.without_wishes }
                        .extend(&some);
                    runs += 1;
                    let told = self.world(seed, &fewer)?;
                    if told.violations.iter().any(|(broken, ..)| broken == invariant) {
                        (best, shortest) = (fewer, told);
                        present.retain(|number| !some.contains(number));
                    } else {
                        start += size;
                    }
                }
                size /= 2;
            }
        }
        Ok((best, shortest))
    }
}
