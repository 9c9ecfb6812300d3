//! One process of ours, ended by pid.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context as _, bail};
use nix::sys::signal::{Signal, kill, killpg};
use nix::unistd::Pid;
use tokio::process::{Child, Command};

use crate::scratch::tail;

/// A running process in a group of its own, which is killed when this is dropped.
#[derive(Debug)]
pub struct Process {
    name: String,
    child: Child,
    pid: Pid,
    log: PathBuf,
}

impl Process {
    /// Starts it; both output streams go to the end of `log`.
    pub fn spawn(name: &str, mut command: Command, log: &Path) -> anyhow::Result<Self> {
        let file = File::options().create(true).append(true).open(log)?;
        let child = command
            .stdin(Stdio::null())
            .stdout(file.try_clone()?)
            .stderr(file)
            .process_group(0)
            .spawn()
            .with_context(|| format!("cannot start {name}"))?;
        let pid = Pid::from_raw(i32::try_from(child.id().context("it has ended already")?)?);
        Ok(Self { name: name.to_owned(), child, pid, log: log.to_owned() })
    }

    /// Its process id.
    pub fn pid(&self) -> Pid {
        self.pid
    }

    /// Everything it said so far.
    pub fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// An error with the end of its log if it has ended.
    pub fn check_alive(&mut self) -> anyhow::Result<()> {
        if let Some(status) = self.child.try_wait()? {
            bail!("{} ended ({status}):\n{}", self.name, tail(&self.log(), 15));
        }
        Ok(())
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: Signal) -> anyhow::Result<()> {
        kill(self.pid, signal).with_context(|| format!("cannot signal {}", self.name))
    }

    /// Waits for its end.
    pub async fn ended(&mut self, patience: Duration) -> anyhow::Result<std::process::ExitStatus> {
        tokio::time::timeout(patience, self.child.wait())
            .await
            .with_context(|| format!("{} did not end within {patience:?}", self.name))?
            .with_context(|| format!("cannot wait for {}", self.name))
    }

    /// Asks it to stop and waits.
    pub async fn stop(mut self) -> anyhow::Result<std::process::ExitStatus> {
        self.signal(Signal::SIGTERM)?;
        self.ended(Duration::from_secs(30)).await
    }

    /// Asks it to stop and waits, from where nothing can be awaited: a `drop`.
    pub fn stop_now(&mut self, patience: Duration) {
        self.signal(Signal::SIGCONT).ok();
        self.signal(Signal::SIGTERM).ok();
        let mut left = patience;
        while matches!(self.child.try_wait(), Ok(None)) && !left.is_zero() {
            let step = Duration::from_millis(20);
            #[expect(clippy::disallowed_methods, reason = "a drop has no runtime to sleep on")]
            std::thread::sleep(step);
            left = left.saturating_sub(step);
        }
    }

    /// `kill -9`, and waits until the kernel is done with it.
    pub async fn kill(mut self) -> anyhow::Result<()> {
        self.signal(Signal::SIGKILL)?;
        self.ended(Duration::from_secs(10)).await.map(drop)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) {
            let _ = killpg(self.pid, Signal::SIGKILL);
        }
    }
}

/// The processes that one has started and that run, with their programs' names as the kernel keeps them: 15 letters at most.
pub fn children(parent: Pid) -> anyhow::Result<Vec<(Pid, String)>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc")?.flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
        // It may end at any moment.
        let Ok(status) = std::fs::read_to_string(entry.path().join("status")) else { continue };
        let field =
            |name: &str| status.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default().trim();
        let has_ended = field("State:").starts_with('Z');
        if field("PPid:") == parent.to_string() && !has_ended {
            found.push((Pid::from_raw(pid), field("Name:").to_owned()));
        }
    }
    Ok(found)
}

/// A binary of this workspace, beside the one that runs now.
pub fn workspace_binary(name: &str) -> anyhow::Result<PathBuf> {
    let here = std::env::current_exe()?;
    here.ancestors()
        .skip(1)
        .take(3)
        .map(|dir| dir.join(name))
        .find(|path| path.is_file())
        .with_context(|| format!("{name} is not built: run `cargo build --workspace --bins` first"))
}

/// Runs a command to its end and gives its output; a failure carries both streams.
pub async fn run(mut command: Command) -> anyhow::Result<String> {
    let shown = format!("{:?}", command.as_std());
    let output = command
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output()
        .await
        .with_context(|| format!("cannot run {shown}"))?;
    let stdout = String::from_utf8_lossy(&output.stdout).into_owned();
    if output.status.success() {
        return Ok(stdout);
    }
    bail!("{shown} ended with {}\n{stdout}{}", output.status, String::from_utf8_lossy(&output.stderr))
}
