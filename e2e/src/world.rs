//! One control plane and its fleet.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, ensure};

use crate::agent::{Agent, AgentSettings};
use crate::controller::Controller;
use crate::engine::Engine;
use crate::eventually;
use crate::kubectl::Kubectl;
use crate::network::Namespace;
use crate::postgres::Postgres;
use crate::proxy::Proxy;
use crate::scratch::{Scratch, tail};

/// A Postgres, a controller and hosts. Ends in the order agents, controller, engines, Postgres.
#[derive(Debug)]
pub struct World {
    /// The hosts by instance name.
    pub hosts: BTreeMap<String, Host>,
    /// The control plane.
    pub controller: Controller,
    /// Its store.
    pub postgres: Postgres,
    dir: Scratch,
}

/// One Docker host with its agent.
#[derive(Debug)]
pub struct Host {
    /// The agent beside the engine.
    pub agent: Agent,
    /// The engine.
    pub engine: Engine,
}

impl World {
    /// A control plane without hosts.
    pub async fn new() -> anyhow::Result<Self> {
        Self::with_flags(&[]).await
    }

    /// A control plane without hosts, with further flags for the controller.
    pub async fn with_flags(flags: &[&str]) -> anyhow::Result<Self> {
        ensure!(nix::unistd::geteuid().is_root(), "these tests start Docker Engines: run them as root");
        let dir = Scratch::new()?;
        let postgres = Postgres::start(&dir.path().join("pg")).await?;
        Self::over(dir, postgres, flags).await
    }

    /// A control plane without hosts on that Postgres.
    pub async fn over(dir: Scratch, postgres: Postgres, flags: &[&str]) -> anyhow::Result<Self> {
        let controller = Controller::start(&dir.path().join("controller"), &postgres.url(), flags).await?;
        Ok(Self { hosts: BTreeMap::new(), controller, postgres, dir })
    }

    /// A control plane without hosts that can also be reached at that address of this machine.
    pub async fn reachable_at(address: IpAddr) -> anyhow::Result<Self> {
        let dir = Scratch::new()?;
        let postgres = Postgres::start(&dir.path().join("pg")).await?;
        let listen = SocketAddr::from(([0, 0, 0, 0], crate::free_port()?));
        let san = format!("--tls-san={address}");
        let place = dir.path().join("controller");
        let controller = Controller::start_at(&place, listen, &postgres.url(), &[&san]).await?;
        Ok(Self { hosts: BTreeMap::new(), controller, postgres, dir })
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
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Starts an engine and an agent that enrols under that name.
    pub async fn enroll(&mut self, name: &str, insecure_registry: Option<&str>) -> anyhow::Result<()> {
        let engine = Engine::start(&self.dir.path().join(name), insecure_registry).await?;
        let settings = self.agent_settings(name, &engine.host()).await?;
        self.start_agent(name, engine, settings)
    }

    /// As [`World::enroll`], with that proxy between agent and controller.
    pub async fn enroll_through(&mut self, name: &str, proxy: &Proxy) -> anyhow::Result<()> {
        let engine = Engine::start(&self.dir.path().join(name), None).await?;
        let mut settings = self.agent_settings(name, &engine.host()).await?;
        settings.controller = format!("https://{}", proxy.address());
        self.start_agent(name, engine, settings)
    }

    /// As [`World::enroll`], from another network namespace, in which the controller has that address.
    pub async fn enroll_from(
        &mut self,
        name: &str,
        namespace: &Namespace,
        controller: IpAddr,
    ) -> anyhow::Result<()> {
        let engine = Engine::start(&self.dir.path().join(name), None).await?;
        let mut settings = self.agent_settings(name, &engine.host()).await?;
        settings.controller = format!("https://{controller}:{}", self.controller.address().port());
        let mut agent = Agent::prepare(&self.dir.path().join(format!("{name}-agent")), settings)?;
        agent.set_launcher(namespace.launcher());
        agent.resume()?;
        self.hosts.insert(name.to_owned(), Host { agent, engine });
        Ok(())
    }

    /// Starts the agent beside an engine.
    pub fn start_agent(&mut self, name: &str, engine: Engine, settings: AgentSettings) -> anyhow::Result<()> {
        let agent = Agent::start(&self.dir.path().join(format!("{name}-agent")), settings)?;
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

    /// Reads one metric of the controller that counts something, named with its labels.
    pub async fn metric(&self, series: &str) -> anyhow::Result<u64> {
        let said = self.kubectl().get_raw("/metrics").await?;
        let value = said.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
        value.with_context(|| format!("no {series} in:\n{said}"))?.parse().context("it is no whole number")
    }

    /// A kubeconfig of the admin that reaches the controller by that proxy.
    pub fn kubeconfig_through(&self, proxy: &Proxy) -> anyhow::Result<PathBuf> {
        let direct = std::fs::read_to_string(self.controller.kubeconfig())?;
        let (here, there) = (self.controller.address().to_string(), proxy.address().to_string());
        ensure!(direct.contains(&here), "no {here} in the kubeconfig");
        let path = self.path("kubeconfig-through");
        std::fs::write(&path, direct.replace(&here, &there))?;
        Ok(path)
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
            Some(host) => error.context(format!("its agent said:\n{}", tail(&host.agent.log(), 15))),
            None => error,
        })
    }
}
