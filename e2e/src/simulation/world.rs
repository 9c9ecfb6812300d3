//! One world: a database, controllers, hosts and the network between them, from its first moment to its last.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use gantry_agent::journal::{Journal, MemoryDisk};
use gantry_api::v1alpha1::{DockerInstance, DockerInstanceSpec};
use gantry_controller::gateway::link::InstanceUid;
use k8s_openapi::api::core::v1::Namespace;
use kube::api::{ObjectMeta, Patch, PatchParams, PostParams};
use kube::{Api, ResourceExt as _};
use parking_lot::Mutex;
use serde_json::json;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

use super::chance::{Chance, MachineClock};
use super::check::{Checker, Spoiled};
use super::database::{Backup, Database};
use super::disk::JOURNAL;
use super::engine::FakeEngine;
use super::host::{Agent, Directs, Identity, Machine, NAMESPACE};
use super::link::Network;
use super::process::Process;
use super::replica::{FindsPeers, Ground, Replica};
use super::scenario::{Fault, Scenario};
use super::trace::Trace;

/// How long everything may take to end once nothing goes wrong any more: the longest start deadline, the longest run with Docker's
/// own patience, and the back-off of an agent that was turned away.
const PATIENCE: Duration = Duration::from_secs(900);
/// Backups that are kept to go back to, one every two seconds.
const BACKUPS: usize = 30;

/// A running world.
pub struct World {
    pub(super) scenario: Scenario,
    pub(super) trace: Arc<Trace>,
    pub(super) checker: Arc<Checker>,
    pub(super) database: Arc<Database>,
    pub(super) network: Arc<Network>,
    pub(super) ground: Ground,
    pub(super) switchboard: Arc<Switchboard>,
    pub(super) hosts: Vec<Host>,
    /// With their time.
    pub(super) backups: Mutex<VecDeque<(Instant, Arc<Backup>)>>,
    /// How many faults keep each controller down.
    pub(super) replicas_down: Mutex<BTreeMap<usize, u32>>,
    pub(super) database_away: Mutex<u32>,
    /// Counts processes.
    pub(super) born: Mutex<BTreeMap<String, u32>>,
}

/// One host and whoever runs there.
pub struct Host {
    pub(super) machine: Machine,
    pub(super) slot: Mutex<Slot>,
    /// Copies of the journal, with their time and the sequence they end with.
    pub(super) copies: Mutex<VecDeque<(Instant, Vec<u8>, u64)>>,
}

/// The agent of a host.
#[derive(Default)]
pub struct Slot {
    /// Also while it only starts.
    pub(super) process: Option<Arc<Process>>,
    pub(super) agent: Option<Arc<Agent>>,
    /// Also of one that is dead.
    pub(super) journal: Option<Journal>,
    /// How many faults keep it down.
    pub(super) down: u32,
}

/// Where agents are led.
pub struct Switchboard {
    pub(super) replicas: Mutex<Vec<Option<Arc<Replica>>>>,
    pub(super) partitions: Mutex<BTreeMap<usize, u32>>,
    /// How many faults keep controllers from each other.
    pub(super) apart: Mutex<u32>,
    database: Arc<Database>,
    chance: Arc<Chance>,
}

impl Switchboard {
    /// A controller that runs, for users.
    pub(super) fn any(&self) -> Option<Arc<Replica>> {
        let replicas: Vec<_> = self.replicas.lock().iter().flatten().cloned().collect();
        self.chance.pick(&replicas).cloned()
    }

    pub(super) fn leader(&self) -> Option<Arc<Replica>> {
        let leader = self.database.leader()?;
        self.replicas.lock().iter().flatten().find(|replica| replica.process().name() == leader).cloned()
    }
}

impl Directs for Switchboard {
    fn replica(&self) -> Option<Arc<Replica>> {
        self.any()
    }

    fn is_connected(&self, host: usize) -> bool {
        self.partitions.lock().get(&host).is_none_or(|count| *count == 0)
    }
}

impl FindsPeers for Switchboard {
    fn peer(&self, process: &str) -> Option<Arc<Replica>> {
        if *self.apart.lock() > 0 {
            return None;
        }
        self.replicas.lock().iter().flatten().find(|replica| replica.process().name() == process).cloned()
    }
}

impl World {
    /// Everything is there, runs, and is connected.
    pub async fn begin(seed: u64, scenario: Scenario, is_shown: bool) -> anyhow::Result<Arc<Self>> {
        let trace = Trace::new(is_shown);
        let spoiled = Spoiled {
            by_outsiders: scenario
                .faults
                .iter()
                .any(|planned| matches!(planned.fault, Fault::Outsider { .. })),
            by_engines: scenario.faults.iter().any(|planned| {
                matches!(
                    planned.fault,
                    Fault::EngineDies { .. } | Fault::EngineFreezes { .. } | Fault::EngineWeather { .. }
                )
            }),
        };
        let checker = Checker::new(trace.clone(), spoiled);
        let clock = MachineClock::new("controllers");
        let database = Database::new(seed, clock.clone(), checker.clone());
        let network = Network::new(seed);
        let switchboard = Arc::new(Switchboard {
            replicas: Mutex::new(vec![None; scenario.replicas]),
            partitions: Mutex::default(),
            apart: Mutex::default(),
            database: database.clone(),
            chance: Chance::of(seed, "switchboard"),
        });
        let ground = Ground {
            seed,
            database: database.clone(),
            clock,
            network: network.clone(),
            peers: switchboard.clone(),
        };
        let mut world = Self {
            trace,
            checker,
            database,
            network,
            ground,
            switchboard,
            hosts: Vec::new(),
            backups: Mutex::default(),
            replicas_down: Mutex::default(),
            database_away: Mutex::default(),
            born: Mutex::default(),
            scenario,
        };
        for replica in 0..world.scenario.replicas {
            world.start_replica(replica).await?;
        }
        let client = world.switchboard.any().context("a controller was just started")?.client("setup");
        let metadata = ObjectMeta { name: Some(NAMESPACE.to_owned()), ..ObjectMeta::default() };
        let namespace = Namespace { metadata, ..Namespace::default() };
        Api::<Namespace>::all(client.clone()).create(&PostParams::default(), &namespace).await?;
        for host in 0..world.scenario.hosts {
            let host = world.make_host(seed, host, &client).await?;
            world.hosts.push(host);
        }
        let world = Arc::new(world);
        for host in 0..world.hosts.len() {
            world.start_agent(host).await;
        }
        sleep(Duration::from_secs(10)).await;
        Ok(world)
    }

    async fn make_host(&self, seed: u64, host: usize, client: &kube::Client) -> anyhow::Result<Host> {
        let name = host_name(host);
        let instances: Api<DockerInstance> = Api::namespaced(client.clone(), NAMESPACE);
        let made = instances
            .create(&PostParams::default(), &DockerInstance::new(&name, DockerInstanceSpec::default()))
            .await?;
        let uid = InstanceUid(made.uid().context("it has a uid")?.parse()?);
        let identity = Identity::enroll(&name, uid)?;
        let bound = json!({"status": {"agent": {"keyFingerprint": identity.proven.key_fingerprint}}});
        instances.patch_status(&name, &PatchParams::default(), &Patch::Merge(bound)).await?;
        let machine = Machine {
            seed,
            host,
            engine: self.make_engine(&name, seed),
            disk: MemoryDisk::default(),
            clock: MachineClock::new(&name),
            identity,
            network: self.network.clone(),
            directs: self.switchboard.clone(),
            trace: self.trace.clone(),
        };
        Ok(Host { machine, slot: Mutex::default(), copies: Mutex::default() })
    }

    /// An engine with the scenario's containers and images.
    pub(super) fn make_engine(&self, name: &str, seed: u64) -> Arc<FakeEngine> {
        let engine = FakeEngine::new(name, seed, self.checker.clone(), self.trace.clone());
        for (name, habits, runs) in &self.scenario.containers {
            engine.has_container(name, *habits, *runs);
        }
        for (reference, is_here) in [("app:1", true), ("app:2", false), ("tool:1", true)] {
            engine.has_image(reference, is_here);
        }
        engine
    }

    /// A process name that was never used.
    pub(super) fn born(&self, of: &str) -> Arc<Process> {
        let mut born = self.born.lock();
        let count = born.entry(of.to_owned()).or_default();
        *count += 1;
        Process::new(format!("{of}.{count}"))
    }

    pub(super) async fn start_replica(&self, replica: usize) -> anyhow::Result<()> {
        let process = self.born(&format!("controller-{replica}"));
        let started = Replica::start(&self.ground, process).await?;
        self.trace.tell(format!("{} runs", started.process().name()));
        let is_wanted = self.replicas_down.lock().get(&replica).is_none_or(|count| *count == 0);
        if !is_wanted {
            started.kill();
        } else if let Some(slot) = self.switchboard.replicas.lock().get_mut(replica) {
            *slot = Some(started);
        }
        Ok(())
    }

    /// Starts a host's agent, again if it fails, until it runs or is not wanted any more.
    pub(super) async fn start_agent(&self, number: usize) {
        let Some(host) = self.hosts.get(number) else { return };
        loop {
            let process = {
                let mut slot = host.slot.lock();
                if slot.down > 0 || slot.process.is_some() {
                    return;
                }
                let process = self.born(&format!("agent-{number}"));
                slot.process = Some(process.clone());
                process
            };
            match Agent::start(&host.machine, process.clone()).await {
                Ok(agent) => {
                    let mut slot = host.slot.lock();
                    if !process.is_alive() {
                        agent.kill();
                        return;
                    }
                    self.trace.tell(format!("{} runs", process.name()));
                    self.checker.reads(agent.journal().clone());
                    agent.journal().read(|ledger| self.checker.looks_at(&host_name(number), ledger));
                    slot.journal = Some(agent.journal().clone());
                    slot.agent = Some(agent);
                    return;
                }
                Err(error) => {
                    process.kill();
                    let mut slot = host.slot.lock();
                    if slot.process.as_ref().is_some_and(|held| Arc::ptr_eq(held, &process)) {
                        slot.process = None;
                        self.trace.tell(format!("{} does not start: {error:#}", process.name()));
                    } else {
                        return;
                    }
                }
            }
            sleep(Duration::from_secs(1)).await;
        }
    }

    /// Lets everything happen, then waits until everything has ended.
    pub async fn run(self: &Arc<Self>) {
        let begun = Instant::now();
        let watching = tokio::spawn(self.clone().watch());
        let mut plans = JoinSet::new();
        for wish in self.scenario.wishes.clone() {
            plans.spawn(self.clone().wish(wish));
        }
        for planned in self.scenario.faults.clone() {
            let world = self.clone();
            plans.spawn(async move {
                sleep(planned.at).await;
                world.trace.tell(planned.to_string());
                world.happens(planned.fault).await;
            });
        }
        while plans.join_next().await.is_some() {}
        self.takes_hosts_back().await;
        self.heal();
        self.trace.tell("nothing goes wrong any more");
        let calm = Instant::now();
        while !self.checker.open().is_empty() && calm.elapsed() < PATIENCE {
            sleep(Duration::from_secs(1)).await;
        }
        // What must not happen any more would happen now.
        sleep(Duration::from_secs(30)).await;
        watching.abort();
        self.checker.is_over(PATIENCE);
        self.trace.tell(format!("it is over after {:?}", begun.elapsed()));
    }

    /// Whatever a fault left behind is mended.
    fn heal(self: &Arc<Self>) {
        self.database.set_away(false);
        for host in &self.hosts {
            host.machine.disk.fail(None);
            host.machine.engine.comes_up();
            host.machine.engine.set_weather(super::engine::Weather::Fair);
        }
        for line in self.network.lines() {
            line.hold(super::link::Way::Both, false);
        }
    }

    /// Looks once a second: at journals, and for backups.
    async fn watch(self: Arc<Self>) {
        let mut seconds = 0_u64;
        loop {
            sleep(Duration::from_secs(1)).await;
            seconds += 1;
            for (number, host) in self.hosts.iter().enumerate() {
                let journal = host.slot.lock().agent.as_ref().map(|agent| agent.journal().clone());
                let Some(journal) = journal else { continue };
                journal.read(|ledger| self.checker.looks_at(&host_name(number), ledger));
                if let Some(bytes) = host.machine.disk.bytes(JOURNAL) {
                    let mut copies = host.copies.lock();
                    copies.push_back((
                        Instant::now(),
                        bytes,
                        journal.read(gantry_agent::journal::Ledger::sequence),
                    ));
                    if copies.len() > 2 * BACKUPS {
                        copies.pop_front();
                    }
                }
            }
            if seconds.is_multiple_of(2)
                && let Some(backup) = self.database.backup().await
            {
                let mut backups = self.backups.lock();
                backups.push_back((Instant::now(), Arc::new(backup)));
                if backups.len() > BACKUPS {
                    backups.pop_front();
                }
            }
        }
    }
}

/// Name of a host's instance.
pub fn host_name(host: usize) -> String {
    format!("host-{host}")
}
