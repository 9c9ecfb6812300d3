//! One control plane and its fleet.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, ensure};
use tempfile::TempDir;

use crate::agent::{Agent, AgentSettings};
use crate::controller::Controller;
use crate::engine::Engine;
use crate::eventually;
use crate::kubectl::Kubectl;
use crate::postgres::Postgres;
use crate::proxy::Proxy;

/// A Postgres, a controller and hosts. Ends in the order agents, controller, engines, Postgres.
#[derive(Debug)]
pub struct World {
    /// The hosts by instance name.
    pub hosts: BTreeMap<String, Host>,
    /// The control plane.
    pub controller: Controller,
    /// Its store.
    pub postgres: Postgres,
    dir: WorldDir,
}

/// One Docker host with its agent.
#[derive(Debug)]
pub struct Host {
    /// The agent beside the engine.
    pub agent: Agent,
    /// The engine.
    pub engine: Engine,
}

/// A short-lived directory; its path is printed and it is kept when the test fails, for the logs in it.
#[derive(Debug)]
struct WorldDir(Option<TempDir>);

impl Drop for WorldDir {
    fn drop(&mut self) {
        if std::thread::panicking()
            && let Some(dir) = self.0.take()
        {
            eprintln!("logs are kept in {}", dir.keep().display());
        }
    }
}

impl World {
    /// A control plane without hosts.
    pub async fn new() -> anyhow::Result<Self> {
        Self::with_flags(&[]).await
    }

    /// A control plane without hosts, with further flags for the controller.
    pub async fn with_flags(flags: &[&str]) -> anyhow::Result<Self> {
        ensure!(nix::unistd::geteuid().is_root(), "these tests start Docker Engines: run them as root");
        let dir = tempfile::Builder::new().prefix("gantry-e2e-").tempdir()?;
        // Postgres runs as another user and must be able to walk to its data.
        std::fs::set_permissions(dir.path(), std::os::unix::fs::PermissionsExt::from_mode(0o711))?;
        let postgres = Postgres::start(&dir.path().join("pg")).await?;
        let controller = Controller::start(&dir.path().join("controller"), &postgres.url(), flags).await?;
        Ok(Self { hosts: BTreeMap::new(), controller, postgres, dir: WorldDir(Some(dir)) })
    }

    /// A control plane and these hosts, each with a real engine, enrolled and Online.
    pub async fn with_hosts<const N: usize>(names: [&str; N]) -> anyhow::Result<Self> {
        let mut world = Self::new().await?;
        for name in names {
            world.enroll(name, None).await?;
        }
        for name in names {
            world.becomes_healthy(name, "Online").await?;
        }
        Ok(world)
    }

    /// A place for what a test needs.
    pub fn path(&self, name: &str) -> anyhow::Result<PathBuf> {
        Ok(self.root()?.join(name))
    }

    /// Starts an engine and an agent that enrols under that name.
    pub async fn enroll(&mut self, name: &str, insecure_registry: Option<&str>) -> anyhow::Result<()> {
        let engine = Engine::start(&self.root()?.join(name), insecure_registry).await?;
        let settings = self.agent_settings(name, &engine.host()).await?;
        self.start_agent(name, engine, settings)
    }

    /// As [`World::enroll`], with that proxy between agent and controller.
    pub async fn enroll_through(&mut self, name: &str, proxy: &Proxy) -> anyhow::Result<()> {
        let engine = Engine::start(&self.root()?.join(name), None).await?;
        let mut settings = self.agent_settings(name, &engine.host()).await?;
        settings.controller = format!("https://{}", proxy.address());
        self.start_agent(name, engine, settings)
    }

    /// Starts the agent beside an engine.
    pub fn start_agent(&mut self, name: &str, engine: Engine, settings: AgentSettings) -> anyhow::Result<()> {
        let agent = Agent::start(&self.root()?.join(format!("{name}-agent")), settings)?;
        self.hosts.insert(name.to_owned(), Host { agent, engine });
        Ok(())
    }

    /// Flags of an agent with a fresh token.
    pub async fn agent_settings(&self, instance: &str, docker_host: &str) -> anyhow::Result<AgentSettings> {
        Ok(AgentSettings {
            controller: format!("https://{}", self.controller.address()),
            token: self.controller.token(&[]).await?,
            ca_hash: self.controller.ca_hash().await?,
            instance: instance.to_owned(),
            docker_host: docker_host.to_owned(),
            extra: Vec::new(),
        })
    }

    /// The host of that name.
    pub fn host(&self, name: &str) -> anyhow::Result<&Host> {
        self.hosts.get(name).with_context(|| format!("no host {name}"))
    }

    /// The host of that name, to do something to it.
    pub fn host_mut(&mut self, name: &str) -> anyhow::Result<&mut Host> {
        self.hosts.get_mut(name).with_context(|| format!("no host {name}"))
    }

    /// kubectl as the admin.
    pub fn kubectl(&self) -> Kubectl {
        self.controller.kubectl()
    }

    /// Waits until an instance's health is that word.
    pub async fn becomes_healthy(&self, name: &str, health: &str) -> anyhow::Result<()> {
        eventually(&format!("{name} to be {health}"), Duration::from_secs(100), async || {
            let object = self.kubectl().get("dockerinstance", name).await?;
            let is = object.pointer("/status/health").and_then(|health| health.as_str()).unwrap_or("absent");
            ensure!(is == health, "it is {is}: {:#}", object.pointer("/status").unwrap_or_default());
            Ok(())
        })
        .await
        .map_err(|error| match self.hosts.get(name) {
            Some(host) => error.context(format!("its agent said:\n{}", tail(&host.agent.log()))),
            None => error,
        })
    }

    fn root(&self) -> anyhow::Result<&Path> {
        Ok(self.dir.0.as_ref().context("the world has ended")?.path())
    }
}

fn tail(log: &str) -> String {
    let lines: Vec<_> = log.lines().collect();
    lines.get(lines.len().saturating_sub(15)..).unwrap_or_default().join("\n")
}
