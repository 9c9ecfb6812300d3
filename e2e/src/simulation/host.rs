//! A host: its engine, its disk, and the agents' processes on it, with the agent's real code.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use gantry_agent::clock::{SharedClock, SharedEntropy};
use gantry_agent::docker::Engine as _;
use gantry_agent::enrollment::certificate::Enrolled;
use gantry_agent::enrollment::key::AgentKey;
use gantry_agent::inventory::Inventory;
use gantry_agent::journal::{Journal, MemoryDisk};
use gantry_agent::operations::{self, Operations, Pace};
use gantry_agent::session::dial::{Connection, DialError};
use gantry_agent::session::readiness::Gate;
use gantry_agent::session::{Dial, Link, Parts};
use gantry_agent::state_dir::StateDir;
use gantry_agent::streams::{self, Streaming};
use gantry_agent::telemetry::metrics::Metrics;
use gantry_api::agent_v1::Policy;
use gantry_api::enrollment::EnrollResponse;
use gantry_controller::gateway::link::InstanceUid;
use gantry_controller::pki::AgentIdentity;
use jiff::SignedDuration;
use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use super::chance::{Chance, MachineClock};
use super::disk::DiskOfProcess;
use super::engine::{EngineOfProcess, FakeEngine};
use super::link::Network;
use super::process::Process;
use super::replica::{Replica, pki};
use super::trace::Trace;

/// Namespace of everything.
pub const NAMESPACE: &str = "default";

/// Finds a controller for an agent.
#[async_trait]
pub trait Directs: Send + Sync + 'static {
    /// One that listens; `None` if none does.
    fn replica(&self) -> Option<Arc<Replica>>;

    /// False while nothing passes from that host.
    fn is_connected(&self, host: usize) -> bool;
}

/// Who an agent is. A clone is the same.
#[derive(Clone)]
pub struct Identity {
    /// The agent's own proof.
    pub enrolled: Arc<Enrolled>,
    /// As the controller's TLS reads it.
    pub proven: AgentIdentity,
}

impl Identity {
    /// A new key with a certificate for that instance.
    pub fn enroll(instance: &str, uid: InstanceUid) -> anyhow::Result<Self> {
        let directory = super::scratch()?;
        let state = Arc::new(StateDir::open(directory.path())?);
        let key = Arc::new(AgentKey::open(&state)?);
        let signed = pki()?.sign_agent(
            &key.request()?,
            NAMESPACE,
            instance,
            uid,
            SignedDuration::from_hours(24 * 365),
        )?;
        let answer = EnrollResponse {
            certificate_pem: signed.certificate_pem,
            ca_bundle_pem: pki()?.ca_bundle(),
            instance_uid: uid.to_string(),
        };
        let proven = AgentIdentity {
            namespace: NAMESPACE.to_owned(),
            name: instance.to_owned(),
            uid,
            key_fingerprint: key.fingerprint(),
            expires_at: i64::from(u32::MAX),
        };
        let enrolled = Arc::new(Enrolled::keep(state, key, (NAMESPACE, instance), &answer)?);
        Ok(Self { enrolled, proven })
    }
}

/// What an agent runs on.
#[derive(Clone)]
pub struct Machine {
    /// Of the world.
    pub seed: u64,
    /// Which host.
    pub host: usize,
    /// The engine beside the agent.
    pub engine: Arc<FakeEngine>,
    /// The state directory.
    pub disk: MemoryDisk,
    /// Its clocks.
    pub clock: Arc<MachineClock>,
    /// Who the agent is.
    pub identity: Identity,
    /// The way to the controllers.
    pub network: Arc<Network>,
    /// The controllers.
    pub directs: Arc<dyn Directs>,
    /// What happens.
    pub trace: Arc<Trace>,
}

/// One agent's process.
pub struct Agent {
    process: Arc<Process>,
    journal: Journal,
    operations: Operations,
    stop: CancellationToken,
    link: Mutex<Option<AbortOnDropHandle<()>>>,
}

impl Agent {
    /// Starts on that machine. Fails if it is killed meanwhile, or if the disk does not take a journal.
    pub async fn start(machine: &Machine, process: Arc<Process>) -> anyhow::Result<Arc<Self>> {
        let chance = Chance::of(machine.seed, process.name());
        let entropy: SharedEntropy = chance.clone();
        let clock: SharedClock = machine.clock.clone();
        let engine = EngineOfProcess::new(machine.engine.clone(), process.clone());
        let disk = DiskOfProcess::new(machine.disk.clone(), process.clone(), chance.clone());
        let journal = Journal::open(disk, &entropy).await?;
        engine.believes(journal.clone());
        let gate = Arc::new(Gate::new(clock.clone(), entropy.clone()));
        let operations = Operations::start(operations::Parts {
            engine: engine.clone(),
            journal: journal.clone(),
            clock: clock.clone(),
            readiness: gate.clone(),
            policy: Policy::Full,
            pace: Pace::default(),
        });
        let asked = engine.clone();
        let ask = tokio::spawn(async move { drop(asked.id().await) });
        let parts = Parts {
            streams: Streaming::new(engine.clone(), clock.clone(), Policy::Full, streams::Limits::default()),
            engine,
            inventory: Inventory::unknown(),
            operations: operations.clone(),
            enrolled: machine.identity.enrolled.clone(),
            gate,
            policy: Policy::Full,
            boot_nonce: entropy.uuid().to_string(),
            clock,
            metrics: Metrics::new()?,
        };
        let dialer = Dialer { machine: machine.clone(), process: process.clone(), chance };
        let stop = CancellationToken::new();
        let link = Link::new(Arc::new(dialer), parts, entropy);
        let stopping = stop.clone();
        let kept = tokio::spawn(async move {
            link.run(&stopping).await;
            ask.abort();
        });
        Ok(Arc::new(Self {
            process,
            journal,
            operations,
            stop,
            link: Mutex::new(Some(AbortOnDropHandle::new(kept))),
        }))
    }

    /// The process.
    pub fn process(&self) -> &Arc<Process> {
        &self.process
    }

    /// Its journal.
    pub fn journal(&self) -> &Journal {
        &self.journal
    }

    /// Dies where it is. What it had not synced is lost by whoever crashes its disk.
    pub fn kill(&self) {
        self.process.kill();
        drop(self.link.lock().take());
        let operations = self.operations.clone();
        tokio::spawn(async move { operations.cut().await });
    }

    /// Stops as a service manager stops it.
    pub async fn stop(&self) {
        self.stop.cancel();
        let link = self.link.lock().take();
        if let Some(link) = link {
            let _ = tokio::time::timeout(Duration::from_secs(10), link).await;
        }
        let _ = tokio::time::timeout(Duration::from_secs(30), self.operations.stop()).await;
        self.process.kill();
    }
}

/// The way to the controllers.
struct Dialer {
    machine: Machine,
    process: Arc<Process>,
    chance: Arc<Chance>,
}

impl Dialer {
    fn failed(kind: std::io::ErrorKind) -> DialError {
        DialError::Connect("a controller".to_owned(), kind.into())
    }
}

#[async_trait]
impl Dial for Dialer {
    async fn connect(&self, _: &Enrolled) -> Result<Box<dyn Connection>, DialError> {
        tokio::time::sleep(self.chance.millis(1, 30)).await;
        if self.process.runs().await.is_err() {
            return Err(Self::failed(std::io::ErrorKind::Other));
        }
        let machine = &self.machine;
        if !machine.directs.is_connected(machine.host) {
            tokio::time::sleep(Duration::from_secs(5)).await;
            return Err(Self::failed(std::io::ErrorKind::TimedOut));
        }
        let Some(replica) = machine.directs.replica() else {
            return Err(Self::failed(std::io::ErrorKind::ConnectionRefused));
        };
        let from = SocketAddr::from((Ipv4Addr::new(192, 0, 2, machine.host as u8 + 1), 4_000));
        let dial = || {
            let (ours, theirs, line) =
                machine.network.connect(Some(machine.host), self.process.clone(), replica.process().clone());
            replica.takes(theirs, machine.identity.proven.clone(), from);
            (ours, line)
        };
        machine.trace.tell(format!("{} dials {}", self.process.name(), replica.process().name()));
        if self.chance.percent(3) {
            // A connection of which only the controller knows.
            let (ours, line) = dial();
            machine.trace.tell(format!("{} dialled twice", self.process.name()));
            line.hold(super::link::Way::Both, true);
            drop(ours);
        }
        Ok(Box::new(dial().0))
    }
}
