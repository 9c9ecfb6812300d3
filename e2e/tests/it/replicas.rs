//! Three replicas of the controller on one Postgres.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use gantry_e2e::agent::{Agent, AgentSettings};
use gantry_e2e::balancer::Balancer;
use gantry_e2e::controller::Controller;
use gantry_e2e::engine::Engine;
use gantry_e2e::eventually;
use gantry_e2e::manifest::operation;
use gantry_e2e::postgres::Postgres;
use gantry_e2e::process::run;
use nix::sys::signal::Signal;
use serde_json::Value;
use tokio::process::Command;

const HOSTS: [&str; 3] = ["nuc-01", "nuc-02", "nuc-03"];

/// Three controllers behind a balancer, and three hosts that dial it.
struct Fleet {
    controllers: Vec<Controller>,
    hosts: Vec<(Engine, Agent)>,
    postgres: Postgres,
    balancer: Balancer,
    dir: tempfile::TempDir,
}

impl Fleet {
    async fn start() -> anyhow::Result<Self> {
        let dir = tempfile::Builder::new().prefix("gantry-e2e-").tempdir()?;
        // Postgres runs as another user and must be able to walk to its data.
        std::fs::set_permissions(dir.path(), std::os::unix::fs::PermissionsExt::from_mode(0o711))?;
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
        let mut fleet = Self { controllers, hosts: Vec::new(), postgres, balancer, dir };
        for name in HOSTS {
            fleet.enroll(name).await?;
        }
        Ok(fleet)
    }

    async fn enroll(&mut self, name: &str) -> anyhow::Result<()> {
        let place = self.dir.path().join(name);
        let engine = Engine::start(&place, None).await?;
        let settings = AgentSettings {
            controller: format!("https://{}", self.balancer.address()),
            token: self.controllers[0].token(&[]).await?,
            ca_hash: self.controllers[0].ca_hash().await?,
            instance: name.to_owned(),
            docker_host: engine.host(),
            extra: Vec::new(),
        };
        let agent = Agent::start(&self.dir.path().join(format!("{name}-agent")), settings)?;
        self.hosts.push((engine, agent));
        Ok(())
    }

    /// Waits until that replica shows every host Online.
    async fn all_online(&self, controller: &Controller) -> anyhow::Result<()> {
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
    async fn operate(&self, by: &Controller, round: usize) -> anyhow::Result<()> {
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
    fn leader(&self) -> anyhow::Result<usize> {
        let leads = |controller: &Controller| {
            let log = controller.log();
            let (won, lost) = (log.rfind("this replica leads "), log.rfind("this replica leads no longer"));
            won.is_some() && won > lost
        };
        self.controllers.iter().position(leads).context("nobody leads")
    }

    async fn replicas_with_sessions(&self) -> anyhow::Result<usize> {
        let count = self.postgres.query("SELECT count(DISTINCT replica) FROM sessions").await?;
        Ok(count.trim().parse()?)
    }

    /// Events that say a host was Offline.
    async fn offline_events(&self, by: &Controller) -> anyhow::Result<Vec<String>> {
        let events = by.kubectl().list("events").await?;
        let offline = events.iter().filter(|event| event["reason"] == "Offline");
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

#[tokio::test]
async fn three_replicas_serve_every_host_and_a_killed_leader_is_no_outage() -> anyhow::Result<()> {
    let mut fleet = Fleet::start().await?;
    for controller in &fleet.controllers {
        fleet.all_online(controller).await?;
    }
    ensure!(fleet.replicas_with_sessions().await? > 1, "one replica holds every agent");
    for (round, controller) in fleet.controllers.iter().enumerate() {
        fleet.operate(controller, round).await?;
    }

    let leader = fleet.leader()?;
    fleet.controllers[leader].kill().await?;
    let dead = fleet.controllers.remove(leader);

    for (round, controller) in fleet.controllers.iter().enumerate() {
        fleet.operate(controller, 10 + round).await?;
    }
    fleet.all_online(&fleet.controllers[0]).await?;
    ensure!(fleet.offline_events(&fleet.controllers[0]).await?.is_empty(), "a host was seen Offline");
    drop(dead);
    Ok(())
}

#[tokio::test]
async fn f02_a_leader_that_slept_while_another_led_does_nothing_more() -> anyhow::Result<()> {
    let fleet = Fleet::start().await?;
    fleet.all_online(&fleet.controllers[0]).await?;
    let sleeper = fleet.leader()?;
    let awake = (sleeper + 1) % 3;

    fleet.controllers[sleeper].process()?.signal(Signal::SIGSTOP)?;
    eventually("another to lead", Duration::from_secs(40), async || {
        let leads = |number: &usize| fleet.controllers[*number].log().contains("this replica leads ");
        ensure!((0..3).filter(|number| *number != sleeper).any(|number| leads(&number)), "nobody does");
        Ok(())
    })
    .await?;
    fleet.operate(&fleet.controllers[awake], 1).await?;
    fleet.controllers[sleeper].process()?.signal(Signal::SIGCONT)?;

    eventually("the sleeper to notice", Duration::from_secs(30), async || {
        ensure!(fleet.controllers[sleeper].log().contains("this replica leads no longer"), "not yet");
        Ok(())
    })
    .await?;
    fleet.operate(&fleet.controllers[sleeper], 2).await?;
    fleet.operate(&fleet.controllers[awake], 3).await?;
    for (engine, _) in &fleet.hosts {
        ensure!(engine.events("stop").await?.len() == 3, "something was done twice");
    }
    Ok(())
}
