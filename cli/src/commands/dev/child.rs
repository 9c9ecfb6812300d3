//! One program of ours that `gantry dev` keeps running.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::Context as _;
use nix::sys::prctl;
use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, getppid};
use tokio::process::{Child as Process, Command};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until, timeout};

use crate::output::failure::hinted;
use crate::output::log::{Log, Source};

/// A child that ran this long has recovered: its next restart is quick again.
const RECOVERED: Duration = Duration::from_secs(60);
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
/// What a dead child wrote last is waited for this long.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// A program, its present process if it runs, and when it is due again if not.
#[derive(Debug)]
pub(super) struct Child {
    source: Source,
    log: Log,
    running: Option<Running>,
    pause: Duration,
    due: Instant,
}

/// See [`Child::next`].
#[derive(Debug)]
pub(super) enum Next {
    /// The process ended, and how.
    Ended(String),
    /// It is time to start it.
    Due,
}

#[derive(Debug)]
struct Running {
    process: Process,
    since: Instant,
    copies: JoinSet<()>,
}

impl Child {
    /// Nothing runs yet; it is due at once.
    pub(super) fn new(source: Source, log: Log) -> Self {
        Self { source, log, running: None, pause: FIRST_PAUSE, due: Instant::now() }
    }

    /// Runs the program. It gets its own process group, so that Ctrl-C reaches us alone and we choose the order.
    pub(super) fn start(&mut self, mut command: Command) -> anyhow::Result<()> {
        command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0)
            .kill_on_drop(true);
        end_with_us(&mut command);
        let mut process = command
            .spawn()
            .with_context(|| format!("cannot run {}", Path::new(command.as_std().get_program()).display()))?;
        let mut copies = JoinSet::new();
        if let Some(stdout) = process.stdout.take() {
            copies.spawn(self.log.copy(self.source, stdout));
        }
        if let Some(stderr) = process.stderr.take() {
            copies.spawn(self.log.copy(self.source, stderr));
        }
        self.running = Some(Running { process, since: Instant::now(), copies });
        Ok(())
    }

    /// What comes next: the end of the process, or, where none runs, the time to start it. Safe to drop and call again.
    pub(super) async fn next(&mut self) -> Next {
        let Some(running) = &mut self.running else {
            sleep_until(self.due).await;
            return Next::Due;
        };
        Next::Ended(match running.process.wait().await {
            Ok(status) => status.to_string(),
            Err(error) => error.to_string(),
        })
    }

    /// Notes that the process ended by itself and when to start the next.
    pub(super) async fn died(&mut self, how: &str) {
        let ran_long = match self.running.take() {
            Some(running) => {
                let ran = running.since.elapsed();
                running.last_words().await;
                ran >= RECOVERED
            }
            None => false,
        };
        if ran_long {
            self.pause = FIRST_PAUSE;
        }
        self.due = Instant::now() + self.pause;
        let text = format!("the {} ended ({how}); starting it again in {:?}", self.source.name(), self.pause);
        self.log.line(Source::Dev, &text);
        self.pause = (self.pause * 2).min(LONGEST_PAUSE);
    }

    /// Asks the process to end, waits, and kills it when patience or `hurry` ends. Does nothing if none runs.
    pub(super) async fn stop(&mut self, patience: Duration, hurry: impl Future<Output = ()>) {
        let Some(mut running) = self.running.take() else { return };
        if let Some(pid) = running.process.id().and_then(|id| i32::try_from(id).ok())
            && let Err(error) = kill(Pid::from_raw(pid), Signal::SIGTERM)
        {
            self.log.line(Source::Dev, &format!("cannot stop the {}: {error}", self.source.name()));
        }
        let in_time = tokio::select! {
            ended = timeout(patience, running.process.wait()) => ended.is_ok(),
            () = hurry => false,
        };
        if !in_time {
            self.log.line(Source::Dev, &format!("the {} does not stop and is killed", self.source.name()));
            if let Err(error) = running.process.kill().await {
                self.log.line(Source::Dev, &format!("cannot kill the {}: {error}", self.source.name()));
            }
        }
        running.last_words().await;
    }
}

impl Running {
    /// Lets the rest of its log through; a grandchild that holds the pipe does not hold us.
    async fn last_words(mut self) {
        let all = async { while self.copies.join_next().await.is_some() {} };
        // What is not through by now stays unsaid.
        let _ = timeout(LAST_WORDS, all).await;
    }
}

/// Makes the kernel end the child when we die in a way that lets us do nothing any more.
#[expect(
    unsafe_code,
    reason = "the only way to run prctl between fork and exec; both calls are async-signal-safe"
)]
fn end_with_us(command: &mut Command) {
    let us = Pid::this();
    // SAFETY: prctl and getppid are async-signal-safe, and nothing is allocated or locked.
    unsafe {
        command.pre_exec(move || {
            prctl::set_pdeathsig(Signal::SIGTERM)?;
            // We may have died before the line above; the child has another parent then.
            if getppid() == us { Ok(()) } else { Err(std::io::ErrorKind::BrokenPipe.into()) }
        });
    }
}

/// A program of ours: beside this one, else on the PATH.
pub(crate) fn find(name: &str) -> anyhow::Result<PathBuf> {
    let beside = std::env::current_exe().ok().and_then(|us| Some(us.parent()?.to_owned()));
    let path = std::env::var_os("PATH").unwrap_or_default();
    find_in(beside, &path, name).ok_or_else(|| {
        hinted(
            format!("`{name}` is neither beside this program nor on the PATH"),
            "build or install all three: gantry, gantry-controller, gantry-agent",
        )
    })
}

/// An empty or relative element of the PATH would mean whatever lies where we happen to be started.
fn find_in(beside: Option<PathBuf>, path: &OsStr, name: &str) -> Option<PathBuf> {
    beside
        .into_iter()
        .chain(std::env::split_paths(path))
        .filter(|dir| dir.is_absolute())
        .map(|dir| dir.join(name))
        .find(|file| file.is_file())
}

#[cfg(test)]
mod tests {
    use std::ffi::OsString;

    use super::*;

    #[test]
    fn nothing_is_run_from_where_we_happen_to_be_started() {
        let dir = tempfile::tempdir().expect("a directory");
        std::fs::write(dir.path().join("Cargo.toml"), "").expect("written");
        let good = OsString::from(dir.path());
        // Tests are started where this package's own Cargo.toml is.
        assert!(Path::new("Cargo.toml").is_file());

        for odd in ["", ":", ".:", "./:../cli"] {
            assert_eq!(find_in(None, OsStr::new(odd), "Cargo.toml"), None, "{odd:?}");
            let mut path = OsString::from(format!("{odd}:"));
            path.push(&good);
            assert_eq!(find_in(None, &path, "Cargo.toml"), Some(dir.path().join("Cargo.toml")), "{odd:?}");
        }
    }
}
