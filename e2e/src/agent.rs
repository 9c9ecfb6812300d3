//! The agent's real binary.

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use tokio::process::Command;

use crate::process::{Process, run, workspace_binary};

/// One agent process and what is needed to start it again.
#[derive(Debug)]
pub struct Agent {
    dir: PathBuf,
    settings: AgentSettings,
    /// What starts it, and with which further variables.
    launcher: Vec<String>,
    environment: Vec<(String, String)>,
    process: Option<Process>,
}

/// How an agent is started.
#[derive(Clone, Debug)]
pub struct AgentSettings {
    /// `--controller`
    pub controller: String,
    /// `--token`; none where empty.
    pub token: String,
    /// `--ca-hash`
    pub ca_hash: String,
    /// `--instance`
    pub instance: String,
    /// `--docker-host`
    pub docker_host: String,
    /// Further flags.
    pub extra: Vec<String>,
}

impl Agent {
    /// Starts it; its state is kept in that directory.
    pub fn start(dir: &Path, settings: AgentSettings) -> anyhow::Result<Self> {
        let mut agent = Self::prepare(dir, settings)?;
        agent.resume()?;
        Ok(agent)
    }

    /// One that is not started yet; [`Agent::resume`] does.
    pub fn prepare(dir: &Path, settings: AgentSettings) -> anyhow::Result<Self> {
        std::fs::create_dir_all(dir)?;
        let (launcher, environment) = (Vec::new(), Vec::new());
        Ok(Self { dir: dir.to_owned(), settings, launcher, environment, process: None })
    }

    /// Starts it again on the same state.
    pub fn resume(&mut self) -> anyhow::Result<()> {
        let binary = workspace_binary("gantry-agent")?;
        let mut command = match self.launcher.split_first() {
            None => Command::new(binary),
            Some((launcher, arguments)) => {
                let mut command = Command::new(launcher);
                command.args(arguments).arg(binary);
                command
            }
        };
        let settings = &self.settings;
        command
            .env("RUST_LOG", std::env::var("RUST_LOG").unwrap_or_else(|_| "info".to_owned()))
            .envs(self.environment.iter().map(|(name, value)| (name, value)))
            .args(["--controller", &settings.controller, "--ca-hash", &settings.ca_hash])
            .args(["--instance", &settings.instance, "--docker-host", &settings.docker_host])
            .arg("--state-dir")
            .arg(self.state_dir())
            .args(["--log-format", "text"])
            .args(&settings.extra);
        if !settings.token.is_empty() {
            command.env("GANTRY_TOKEN", &settings.token);
        }
        self.process = Some(Process::spawn("gantry-agent", command, &self.dir.join("agent.log"))?);
        Ok(())
    }

    /// Changes how it is started next time.
    pub fn settings_mut(&mut self) -> &mut AgentSettings {
        &mut self.settings
    }

    /// A program and its arguments that become the agent from its next start on, as `nsenter` does.
    pub fn set_launcher(&mut self, launcher: Vec<String>) {
        self.launcher = launcher;
    }

    /// Sets a variable of its environment, or unsets it, from its next start on.
    pub fn set_variable(&mut self, name: &str, value: Option<&str>) {
        self.environment.retain(|(known, _)| known != name);
        self.environment.extend(value.map(|value| (name.to_owned(), value.to_owned())));
    }

    /// Where it keeps its key and journal.
    pub fn state_dir(&self) -> PathBuf {
        self.dir.join("state")
    }

    /// Puts a copy of its state where an agent started in `dir` looks for its own.
    pub async fn copy_state(&self, dir: &Path) -> anyhow::Result<()> {
        let copy = dir.join("state");
        if copy.exists() {
            std::fs::remove_dir_all(&copy)?;
        }
        std::fs::create_dir_all(dir)?;
        let mut cp = Command::new("cp");
        cp.arg("-a").arg(self.state_dir()).arg(copy);
        run(cp).await.map(drop)
    }

    /// Where its state and log are.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// What it said.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.dir.join("agent.log")).unwrap_or_default()
    }

    /// Its process.
    pub fn process(&mut self) -> anyhow::Result<&mut Process> {
        self.process.as_mut().context("it is not running")
    }

    /// `kill -9`.
    pub async fn kill(&mut self) -> anyhow::Result<()> {
        self.process.take().context("it is not running")?.kill().await
    }

    /// Clean stop.
    pub async fn stop(&mut self) -> anyhow::Result<std::process::ExitStatus> {
        self.process.take().context("it is not running")?.stop().await
    }
}
