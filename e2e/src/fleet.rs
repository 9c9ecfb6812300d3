//! Three replicas of the controller on one Postgres, behind a balancer.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, ensure};
use serde_json::Value;
use tokio::process::Command;

use crate::agent::{Agent, AgentSettings};
use crate::balancer::Balancer;
use crate::controller::Controller;
use crate::engine::Engine;
use crate::eventually;
use crate::manifest::operation;
use crate::postgres::Postgres;
use crate::process::run;
use crate::proxy::Proxy;
use crate::scratch::Scratch;

/// The hosts of a fleet.
pub const HOSTS: [&str; 3] = ["nuc-01", "nuc-02", "nuc-03"];

/// Three controllers behind a balancer, and three hosts that dial it.
#[derive(Debug)]
pub struct Fleet {
    /// The replicas.
    pub controllers: Vec<Controller>,
    /// The hosts, in the order of [`HOSTS`].
    pub hosts: Vec<(Engine, Agent)>,
    /// Their store.
    pub postgres: Postgres,
    /// Before the controllers.
    pub balancer: Balancer,
    /// Each host's way to the balancer.
    pub links: Vec<Proxy>,
    dir: Scratch,
}

/// What a replica's log says when it wins the election, followed by the incarnation and the epoch.
const WON: &str = "this replica leads incarnation=";

impl Fleet {
    /// Starts them all and enrols the hosts.
    pub async fn start() -> anyhow::Result<Self> {
        let mut fleet = Self::without_hosts().await?;
        for name in HOSTS {
            fleet.enroll(name).await?;
        }
        Ok(fleet)
    }

    /// The replicas alone.
    pub async fn without_hosts() -> anyhow::Result<Self> {
        let dir = Scratch::new()?;
        let postgres = Postgres::start(&dir.path().join("pg")).await?;
        let mut controllers = Vec::new();
        for number in 0..3 {
            let place = dir.path().join(format!("controller-{number}"));
            if number > 0 {
                share_keys(&dir.path().join("controller-0/data"), &place.join("data")).await?;
            }
            controllers.push(Controller::start(&place, &postgres.url(), &[]).await?);
        }
        let balancer = Balancer::start(controllers.iter().map(Controller::address).collect()).await?;
        Ok(Self { controllers, hosts: Vec::new(), postgres, balancer, links: Vec::new(), dir })
    }

    async fn enroll(&mut self, name: &str) -> anyhow::Result<()> {
        let place = self.dir.path().join(name);
        let engine = Engine::start(&place, None).await?;
        let link = Proxy::start(self.balancer.address()).await?;
        let first = self.controllers.first().context("there is no controller")?;
        let settings = AgentSettings {
            controller: format!("https://{}", link.address()),
            token: first.token(&[]).await?,
            ca_hash: first.ca_hash().await?,
            instance: name.to_owned(),
            docker_host: engine.host(),
            extra: Vec::new(),
        };
        let agent = Agent::start(&self.dir.path().join(format!("{name}-agent")), settings)?;
        self.hosts.push((engine, agent));
        self.links.push(link);
        Ok(())
    }

    /// A place for what a test needs.
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Waits until that replica shows every host Online.
    pub async fn all_online(&self, controller: &Controller) -> anyhow::Result<()> {
        eventually("every host to be Online", Duration::from_secs(60), async || {
            for name in HOSTS {
                let host = controller.kubectl().get("dockerinstance", name).await?;
                let health = host.pointer("/status/health").and_then(Value::as_str);
                ensure!(health == Some("Online"), "{name} is {health:?}");
            }
            Ok(())
        })
        .await
    }

    /// A container on each host, stopped by an Operation that the given replica takes.
    pub async fn operate(&self, by: &Controller, round: usize) -> anyhow::Result<()> {
        let container = format!("c{round}");
        for ((engine, _), name) in self.hosts.iter().zip(HOSTS) {
            engine.runs(&container).await?;
            by.kubectl()
                .apply(&operation(&format!("stop-{round}-{name}"), name, "Stop", &container, ""))
                .await?;
        }
        for ((engine, _), name) in self.hosts.iter().zip(HOSTS) {
            by.kubectl().wait(&format!("operation/stop-{round}-{name}"), "condition=Complete").await?;
            ensure!(engine.state(&container).await == "exited", "{name} was not operated on");
        }
        Ok(())
    }

    /// Which controller leads, by the newest word of each.
    pub fn leader(&self) -> anyhow::Result<usize> {
        // One that was killed has said nothing of it, and its log goes on when it is back: the highest epoch tells.
        let term = |(place, controller): (usize, &Controller)| {
            let log = controller.log();
            let (won, lost) = (log.rfind(WON)?, log.rfind("this replica leads no longer"));
            let epoch: u64 =
                log.get(won..)?.split("epoch=").nth(1)?.split_whitespace().next()?.parse().ok()?;
            Some((epoch, place, lost.is_none_or(|lost| lost < won)))
        };
        let newest = self.controllers.iter().enumerate().filter_map(term).max();
        newest.filter(|(_, _, leads)| *leads).map(|(_, place, _)| place).context("nobody leads")
    }

    /// How many replicas hold agents.
    pub async fn replicas_with_sessions(&self) -> anyhow::Result<usize> {
        let count = self.postgres.query("SELECT count(DISTINCT replica) FROM sessions").await?;
        Ok(count.trim().parse()?)
    }

    /// Events that say a host was Offline.
    pub async fn offline_events(&self, by: &Controller) -> anyhow::Result<Vec<String>> {
        let events = by.kubectl().list("events").await?;
        let offline =
            events.iter().filter(|event| event.get("reason").is_some_and(|reason| reason == "Offline"));
        Ok(offline.map(ToString::to_string).collect())
    }
}

/// Gives a further replica the first one's authorities.
async fn share_keys(from: &Path, to: &Path) -> anyhow::Result<()> {
    std::fs::create_dir_all(to)?;
    let mut command = Command::new("cp");
    command.arg("-a").arg(from.join("pki")).arg(from.join("admin-token")).arg(to);
    run(command).await.map(drop)
}
