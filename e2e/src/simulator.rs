//! Many hosts in one process: the agents' real code, protocol, TLS and enrolment, on engines that only say what they have.
//!
//! What is measured with them is the controller. Nothing runs in their containers, so logs, terminals and the Docker endpoint are not
//! simulated; containers start and stop, and their inventories tell of it.

mod agent;
mod contents;
mod host;
mod roads;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context as _, ensure};
use futures::{StreamExt as _, TryStreamExt as _};
use gantry_agent::clock::{SharedClock, SystemClock};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use tokio::task::JoinSet;

use self::agent::SimulatedAgent;
use self::contents::Contents;
pub use self::contents::State;
pub use self::host::Host;
use self::roads::Roads;
use crate::controller::Controller;

/// Agents that enrol at the same time.
const AT_ONCE: usize = 8;
/// Open files of each agent: its connection, and its state's lock.
const FILES_OF_AN_AGENT: usize = 2;
/// Open files of the process besides.
const OTHER_FILES: usize = 300;

/// Which hosts there are, and where their agents go.
#[derive(Clone, Debug, clap::Args)]
pub struct Settings {
    /// The controller: https://HOST:PORT.
    #[arg(long, value_name = "URL", env = "GANTRY_CONTROLLER")]
    pub controller: String,
    /// A join token with at least as many uses as there are agents: `gantry token create --uses N`. Not needed for agents whose
    /// identities are in `--dir`.
    #[arg(long, env = "GANTRY_TOKEN", hide_env_values = true)]
    pub token: Option<String>,
    /// The hash of the controller's CA, as `gantry agent install-command` prints it.
    #[arg(long, value_name = "HASH", env = "GANTRY_CA_HASH")]
    pub ca_hash: Option<String>,
    /// How many agents.
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=60_000))]
    pub agents: u32,
    /// The number of the first: several processes can share one fleet.
    #[arg(long, default_value_t = 0, value_parser = clap::value_parser!(u32).range(..1_000_000))]
    pub first: u32,
    /// What instances are called, before their number.
    #[arg(long, value_name = "NAME", default_value = "sim-")]
    pub prefix: String,
    /// Containers on each host.
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u32).range(..=10_000))]
    pub containers: u32,
    /// How long an engine takes to answer a health check, in milliseconds.
    #[arg(long, value_name = "MS", default_value_t = 0)]
    pub answers_after_ms: u64,
    /// What the hosts' contents follow from.
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// Where the agents' identities are kept for the next time; thrown away at the end where absent.
    #[arg(long)]
    pub dir: Option<PathBuf>,
}

impl Settings {
    /// The first hosts of a controller of ours, whose identities are kept in `dir`.
    pub async fn of(
        controller: &Controller,
        agents: u32,
        containers: u32,
        dir: PathBuf,
    ) -> anyhow::Result<Self> {
        Ok(Self {
            controller: format!("https://{}", controller.address()),
            token: Some(controller.token(&["--uses", &agents.to_string()]).await?),
            ca_hash: Some(controller.ca_hash().await?),
            agents,
            first: 0,
            prefix: "sim-".to_owned(),
            containers,
            answers_after_ms: 0,
            seed: 1,
            dir: Some(dir),
        })
    }
}

/// Hosts whose agents are enrolled and keep their links. They vanish when this is dropped, as by a power cut.
pub struct Simulator {
    hosts: Vec<Arc<Host>>,
    agents: Vec<SimulatedAgent>,
    answers_after: Arc<AtomicU64>,
    _links: JoinSet<()>,
    _scratch: Option<tempfile::TempDir>,
}

impl Simulator {
    /// Enrols every agent and opens its link.
    pub async fn start(settings: &Settings) -> anyhow::Result<Self> {
        let count = usize::try_from(settings.agents)?;
        allow_files(count * FILES_OF_AN_AGENT + OTHER_FILES)?;
        let scratch = match &settings.dir {
            Some(_) => None,
            None => Some(tempfile::Builder::new().prefix("gantry-simulator-").tempdir()?),
        };
        let dir = settings.dir.clone().or_else(|| scratch.as_ref().map(|dir| dir.path().to_owned()));
        let dir = dir.unwrap_or_default();
        std::fs::create_dir_all(&dir).with_context(|| format!("{} cannot be made", dir.display()))?;
        let clock: SharedClock = Arc::new(SystemClock);
        let answers_after = Arc::new(AtomicU64::new(settings.answers_after_ms));
        let first = usize::try_from(settings.first)?;
        let numbers = first..first + count;
        let roads = Roads::build(&settings.controller, numbers.clone()).await?;
        let hosts: Vec<Arc<Host>> = numbers
            .clone()
            .map(|host| {
                let containers = usize::try_from(settings.containers).unwrap_or_default();
                let contents = Contents { seed: settings.seed, host, containers };
                Host::new(contents, Arc::clone(&answers_after), clock.clone())
            })
            .collect();
        let (clock, dir, roads_of) = (&clock, &dir, &roads);
        let starts = numbers.zip(&hosts).map(|(number, host)| async move {
            let name = format!("{}{number}", settings.prefix);
            let controller = roads_of.to(number);
            SimulatedAgent::enroll(settings, &name, controller, &dir.join(&name), host, clock).await
        });
        let started: Vec<(SimulatedAgent, agent::Links)> =
            futures::stream::iter(starts).buffered(AT_ONCE).try_collect().await?;
        let (mut links, mut agents) = (JoinSet::new(), Vec::with_capacity(count));
        for (agent, link) in started {
            agents.push(agent);
            links.spawn(link.run());
        }
        Ok(Self { hosts, agents, answers_after, _links: links, _scratch: scratch })
    }

    /// The hosts, in the order of their numbers.
    pub fn hosts(&self) -> &[Arc<Host>] {
        &self.hosts
    }

    /// Agents with a session.
    pub fn connected(&self) -> usize {
        self.agents.iter().filter(|agent| agent.is_connected()).count()
    }

    /// How often agents have tried to connect again.
    pub fn reconnects(&self) -> u64 {
        self.agents.iter().map(SimulatedAgent::reconnects).sum()
    }

    /// How often engines were asked for their facts.
    pub fn checks(&self) -> u64 {
        self.hosts.iter().map(|host| host.checks()).sum()
    }

    /// How long engines take to answer a health check from now on.
    pub fn answer_after(&self, delay: Duration) {
        self.answers_after.store(u64::try_from(delay.as_millis()).unwrap_or(u64::MAX), Ordering::Relaxed);
    }
}

/// Raises this process' limit of open files, which what it starts inherits, to what is needed.
pub fn allow_files(needed: usize) -> anyhow::Result<()> {
    let needed = u64::try_from(needed)?;
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    if soft >= needed {
        return Ok(());
    }
    let raised = setrlimit(Resource::RLIMIT_NOFILE, needed, hard.max(needed));
    ensure!(
        raised.is_ok(),
        "so many agents need {needed} open files, of which {hard} are allowed: say `ulimit -n {needed}` first, or \
         start several simulators with `--first`"
    );
    Ok(())
}
