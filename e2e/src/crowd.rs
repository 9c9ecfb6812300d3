//! Many agents: their code and their links, on engines that have nothing to do.
//!
//! Open files are limited process by process, so a crowd lives in several: each runs `gantry-crowd`, which is [`Part`].

use std::net::{Ipv4Addr, SocketAddr};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use clap::Parser as _;
use futures::{StreamExt as _, TryStreamExt as _};
use gantry_agent::clock::{Entropy as _, SharedClock, SharedEntropy, SystemClock, SystemEntropy};
use gantry_agent::config::Flags;
use gantry_agent::docker::bollard::BollardEngine;
use gantry_agent::enrollment::Enrollment;
use gantry_agent::enrollment::key::AgentKey;
use gantry_agent::inventory::Inventory;
use gantry_agent::journal::{Journal, MemoryDisk};
use gantry_agent::operations::{self, Operations, Pace};
use gantry_agent::session::dial::Dialer;
use gantry_agent::session::readiness::Gate;
use gantry_agent::session::{Link, Parts};
use gantry_agent::state_dir::StateDir;
use gantry_agent::streams::{self, Streaming};
use gantry_agent::telemetry::metrics::Metrics;
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpSocket};
use tokio::process::Command;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::controller::Controller;
use crate::fake_engine::FakeEngine;
use crate::process::{Process, workspace_binary};

/// Agents that enrol at the same time, in one process.
const AT_ONCE: usize = 8;

/// Agents that come from one address: a controller takes so many enrolments from one in a minute, and no more.
const OF_AN_ADDRESS: usize = 40;

/// Agents of one process. Each has seven files: its own connection, both ends of the road's second one, its state's lock, and its
/// connections to the engine, which lives in the same process and has their other ends.
const OF_A_PROCESS: usize = 2_000;

/// How long enrolling ten thousand may take on a machine with other things to do.
const PATIENCE: Duration = Duration::from_secs(900);

/// What a process says once all its agents have their certificates.
const ENROLLED: &str = "enrolled";

/// The processes of a crowd; they end when this is dropped.
#[derive(Debug)]
pub struct Crowd {
    _processes: Vec<Process>,
}

impl Crowd {
    /// Enrols that many, `crowd-0` and on, and keeps their links.
    pub async fn enroll(dir: &Path, count: usize, controller: &Controller) -> anyhow::Result<Self> {
        std::fs::create_dir_all(dir)?;
        let (address, ca_hash) = (controller.address().to_string(), controller.ca_hash().await?);
        let mut processes = Vec::new();
        for first in (0..count).step_by(OF_A_PROCESS) {
            let end = count.min(first + OF_A_PROCESS);
            // Uses are counted one after the other: of one token they would all wait for each other.
            let token = controller.token(&["--uses", &(end - first).to_string()]).await?;
            let mut command = Command::new(workspace_binary("gantry-crowd")?);
            command.args(["--controller", &address, "--token", &token, "--ca-hash", &ca_hash]);
            command.args(["--first", &first.to_string(), "--end", &end.to_string(), "--dir"]).arg(dir);
            let log = dir.join(format!("from-{first}.log"));
            processes.push(Process::spawn("gantry-crowd", command, &log)?);
        }
        let enrolled = async {
            for process in &mut processes {
                while !process.log().lines().any(|line| line == ENROLLED) {
                    process.check_alive()?;
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            }
            anyhow::Ok(())
        };
        tokio::time::timeout(PATIENCE, enrolled).await.context("the crowd was not enrolled in time")??;
        Ok(Self { _processes: processes })
    }
}

/// The agents of one process.
#[derive(Clone, Debug, clap::Args)]
pub struct Part {
    /// Where their states, and their engine's socket, are kept.
    #[arg(long)]
    dir: PathBuf,
    /// The first one's number.
    #[arg(long)]
    first: usize,
    /// The number after the last one's.
    #[arg(long)]
    end: usize,
    /// Where the controller listens.
    #[arg(long)]
    controller: SocketAddr,
    /// A join token that can be used so often.
    #[arg(long)]
    token: String,
    /// The hash of the controller's CA.
    #[arg(long)]
    ca_hash: String,
}

impl Part {
    /// Enrols them, says so, and keeps their links for as long as this is awaited.
    pub async fn run(self) -> anyhow::Result<()> {
        let engine = FakeEngine::start(&self.dir.join(format!("from-{}.sock", self.first)), "1.41")?;
        let (mut roads, mut gates) = (JoinSet::new(), Vec::new());
        // Numbers of different processes never share an address.
        for number in addresses(self.first..self.end) {
            let from = Ipv4Addr::new(127, 1, 0, u8::try_from(number + 1)?);
            let gate = TcpListener::bind("127.0.0.1:0").await?;
            gates.push(format!("https://{}", gate.local_addr()?));
            roads.spawn(road(gate, from, self.controller));
        }
        let agents = (self.first..self.end).zip(gates.iter().cycle()).map(|(number, gate)| {
            let (part, docker_host) = (&self, engine.host());
            async move { part.agent(number, gate, &docker_host).await }
        });
        let agents: Vec<(Link, Operations)> =
            futures::stream::iter(agents).buffer_unordered(AT_ONCE).try_collect().await?;
        let mut links = JoinSet::new();
        for (link, operations) in agents {
            links.spawn(async move {
                link.run(&CancellationToken::new()).await;
                drop(operations);
            });
        }
        println!("{ENROLLED}");
        while links.join_next().await.is_some() {}
        anyhow::bail!("every link has ended")
    }

    async fn agent(
        &self,
        number: usize,
        gate: &str,
        docker_host: &str,
    ) -> anyhow::Result<(Link, Operations)> {
        let name = format!("crowd-{number}");
        let (token, ca_hash) = (self.token.as_str(), self.ca_hash.as_str());
        let flags =
            ["agent", "--controller", gate, "--token", token, "--ca-hash", ca_hash, "--instance", &name];
        let config = Flags::try_parse_from(flags)?.resolve()?;
        let clock: SharedClock = Arc::new(SystemClock);
        let entropy: SharedEntropy = Arc::new(SystemEntropy);
        let engine = Arc::new(BollardEngine::new(docker_host)?);
        let state = Arc::new(StateDir::open(&self.dir.join(&name))?);
        let journal = Journal::open(Arc::new(MemoryDisk::default()), &entropy).await?;
        let gate = Arc::new(Gate::new(clock.clone(), entropy.clone()));
        let dialer = Arc::new(Dialer::new(config.controller.clone(), config.transport)?);
        let key = Arc::new(AgentKey::open(&state)?);
        let enrollment = Enrollment { config: &config, dialer: &dialer, state: &state, key: &key };
        let enrolled = enrollment
            .until_decided(entropy.clone())
            .await
            .with_context(|| format!("{name} was not enrolled"))?;
        let operations = Operations::start(operations::Parts {
            engine: engine.clone(),
            journal,
            clock: clock.clone(),
            readiness: gate.clone(),
            policy: config.policy.into(),
            pace: Pace::default(),
        });
        let parts = Parts {
            streams: Streaming::new(
                engine.clone(),
                clock.clone(),
                config.policy.into(),
                streams::Limits::default(),
            ),
            engine,
            inventory: Inventory::unknown(),
            operations: operations.clone(),
            enrolled: Arc::new(enrolled),
            gate,
            policy: config.policy.into(),
            boot_nonce: SystemEntropy.uuid().to_string(),
            clock,
            metrics: Metrics::new()?,
        };
        Ok((Link::new(dialer, parts, entropy), operations))
    }
}

/// The numbers of the addresses that a part's agents come from.
fn addresses(numbers: Range<usize>) -> Range<usize> {
    numbers.start / OF_AN_ADDRESS..numbers.end.div_ceil(OF_AN_ADDRESS)
}

/// Passes connections on, as if they came from that address.
async fn road(gate: TcpListener, from: Ipv4Addr, to: SocketAddr) {
    let mut connections = JoinSet::new();
    while let Ok((mut inbound, _)) = gate.accept().await {
        connections.spawn(async move {
            let connect = async {
                let socket = TcpSocket::new_v4()?;
                socket.bind((from, 0).into())?;
                socket.connect(to).await
            };
            if let Ok(mut outbound) = connect.await {
                // Either end may go; so then does the other.
                copy_bidirectional(&mut inbound, &mut outbound).await.ok();
            }
        });
    }
}
