//! Many agents in this process: their code and their links, on an engine that has nothing to do.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::Arc;

use anyhow::Context as _;
use clap::Parser as _;
use futures::{StreamExt as _, TryStreamExt as _};
use gantry_agent::clock::{Entropy as _, SharedClock, SharedEntropy, SystemClock, SystemEntropy};
use gantry_agent::config::Flags;
use gantry_agent::docker::bollard::BollardEngine;
use gantry_agent::enrollment::Enrollment;
use gantry_agent::enrollment::key::AgentKey;
use gantry_agent::journal::{Journal, MemoryDisk};
use gantry_agent::operations::{self, Operations, Pace};
use gantry_agent::session::dial::Dialer;
use gantry_agent::session::readiness::Gate;
use gantry_agent::session::{Link, Parts};
use gantry_agent::state_dir::StateDir;
use gantry_agent::telemetry::metrics::Metrics;
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpSocket};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// Agents that enrol at the same time.
const AT_ONCE: usize = 24;

/// Agents that come from one address: a controller takes so many enrolments from one in a minute, and no more.
const OF_AN_ADDRESS: usize = 40;

/// Running agents; they end when this is dropped.
#[derive(Debug)]
pub struct Crowd {
    _links: JoinSet<()>,
    _roads: JoinSet<()>,
}

impl Crowd {
    /// Enrols that many, `crowd-0` and on, with a token that can be used so often, and keeps their links.
    pub async fn enroll(
        dir: &Path,
        count: usize,
        controller: SocketAddr,
        token: &str,
        ca_hash: &str,
        docker_host: &str,
    ) -> anyhow::Result<Self> {
        let (mut roads, mut gates) = (JoinSet::new(), Vec::new());
        for number in 0..count.div_ceil(OF_AN_ADDRESS) {
            let from = Ipv4Addr::new(127, 1, 0, u8::try_from(number + 1)?);
            let gate = TcpListener::bind("127.0.0.1:0").await?;
            gates.push(format!("https://{}", gate.local_addr()?));
            roads.spawn(road(gate, from, controller));
        }
        let agents = (0..count).zip(gates.iter().cycle()).map(|(number, controller)| {
            let dir = dir.join(format!("crowd-{number}"));
            async move { agent(&dir, number, controller, token, ca_hash, docker_host).await }
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
        Ok(Self { _links: links, _roads: roads })
    }
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

async fn agent(
    dir: &Path,
    number: usize,
    controller: &str,
    token: &str,
    ca_hash: &str,
    docker_host: &str,
) -> anyhow::Result<(Link, Operations)> {
    let name = format!("crowd-{number}");
    let flags =
        ["agent", "--controller", controller, "--token", token, "--ca-hash", ca_hash, "--instance", &name];
    let config = Flags::try_parse_from(flags)?.resolve()?;
    let clock: SharedClock = Arc::new(SystemClock);
    let entropy: SharedEntropy = Arc::new(SystemEntropy);
    let engine = Arc::new(BollardEngine::new(docker_host)?);
    let state = Arc::new(StateDir::open(dir)?);
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
        engine,
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
