//! Faults: what each does to the world, and how it ends.

use std::sync::Arc;
use std::time::Duration;

use gantry_agent::journal::{Failure, Ledger, MemoryDisk};
use gantry_api::v1alpha1::DockerInstance;
use jiff::SignedDuration;
use kube::Api;
use kube::api::{Patch, PatchParams};
use serde_json::{Value, json};
use tokio::time::{Instant, sleep, timeout};

use super::chance::MachineClock;
use super::database::Backup;
use super::disk::JOURNAL;
use super::engine::Weather;
use super::host::{Agent, Machine, NAMESPACE};
use super::link::Way;
use super::scenario::Fault;
use super::world::{Host, World, host_name};

impl World {
    /// Makes a fault happen, and ends it.
    pub(super) async fn happens(self: Arc<Self>, fault: Fault) {
        match fault {
            Fault::AgentDies { host, down, kept } => self.agent_dies(host, down, kept, None).await,
            Fault::JournalRolledBack { host, back, down } => {
                self.agent_dies(host, down, 100, Some(back)).await;
            }
            Fault::AgentStops { host, down } => self.agent_stops(host, down).await,
            Fault::AgentFreezes { host, lasts } => {
                let process = self.hosts.get(host).and_then(|host| host.slot.lock().process.clone());
                if let Some(process) = process {
                    process.freeze();
                    sleep(lasts).await;
                    process.thaw();
                }
            }
            Fault::AgentCloned { host, lasts } => self.agent_is_cloned(host, lasts).await,
            Fault::ClockJumps { host, seconds } => {
                if let Some(host) = self.hosts.get(host) {
                    host.machine.clock.jump(SignedDuration::from_secs(seconds));
                }
            }
            Fault::DiskFull { host, lasts } => {
                if let Some(host) = self.hosts.get(host) {
                    host.machine.disk.fail(Some((Failure::Writes, std::io::ErrorKind::StorageFull)));
                    sleep(lasts).await;
                    host.machine.disk.fail(None);
                }
            }
            Fault::ControllerDies { replica, down } => {
                self.replica_dies(replica);
                sleep(down).await;
                self.replica_comes_back(replica).await;
            }
            Fault::ControllerFreezes { replica, lasts } => {
                let held = self.switchboard.replicas.lock().get(replica).cloned().flatten();
                if let Some(replica) = held {
                    replica.process().freeze();
                    sleep(lasts).await;
                    replica.process().thaw();
                }
            }
            Fault::LeaderMoves { clings } => {
                if let Some(leader) = self.switchboard.leader() {
                    leader.clings(clings);
                }
                self.database.ends_lease();
            }
            Fault::DatabaseAway { lasts } => {
                self.database_goes(true);
                sleep(lasts).await;
                self.database_goes(false);
            }
            Fault::DatabaseFailsOver { back, lasts } => {
                if let Some(backup) = self.backup_of(back) {
                    self.database_goes(true);
                    sleep(lasts).await;
                    self.database.rewind(&backup, true).await;
                    self.database_goes(false);
                }
            }
            Fault::DatabaseRestored { back, lasts } => self.database_is_restored(back, lasts).await,
            other => self.link_or_engine(other).await,
        }
    }

    async fn link_or_engine(self: Arc<Self>, fault: Fault) {
        match fault {
            Fault::LinkCut { host, end } => self.lines_of(Some(host)).for_each(|line| line.cut(end)),
            Fault::LinkHeld { host, way, lasts } => {
                let lines: Vec<_> = self.lines_of(Some(host)).collect();
                for line in &lines {
                    line.hold(way, true);
                }
                sleep(lasts).await;
                for line in &lines {
                    line.hold(way, false);
                }
            }
            Fault::Partition { host, lasts } => {
                *self.switchboard.partitions.lock().entry(host).or_default() += 1;
                let lines: Vec<_> = self.lines_of(Some(host)).collect();
                for line in &lines {
                    line.hold(Way::Both, true);
                }
                sleep(lasts).await;
                for line in &lines {
                    line.hold(Way::Both, false);
                }
                *self.switchboard.partitions.lock().entry(host).or_default() -= 1;
            }
            Fault::PeersCut { end } => self.lines_of(None).for_each(|line| line.cut(end)),
            Fault::PeersApart { way, lasts } => {
                *self.switchboard.apart.lock() += 1;
                let lines: Vec<_> = self.lines_of(None).collect();
                for line in &lines {
                    line.hold(way, true);
                }
                sleep(lasts).await;
                for line in &lines {
                    line.hold(way, false);
                }
                *self.switchboard.apart.lock() -= 1;
            }
            Fault::EngineDies { host, down } => {
                if let Some(host) = self.hosts.get(host) {
                    host.machine.engine.dies();
                    sleep(down).await;
                    host.machine.engine.comes_up();
                }
            }
            Fault::EngineFreezes { host, lasts } => {
                if let Some(host) = self.hosts.get(host) {
                    host.machine.engine.freeze();
                    sleep(lasts).await;
                    host.machine.engine.thaw();
                }
            }
            Fault::EngineWeather { host, weather, lasts } => {
                if let Some(host) = self.hosts.get(host) {
                    host.machine.engine.set_weather(weather);
                    sleep(lasts).await;
                    host.machine.engine.set_weather(Weather::Fair);
                }
            }
            Fault::Outsider { host, name } => {
                if let Some(host) = self.hosts.get(host) {
                    host.machine.engine.outsider_acts(&name);
                }
            }
            Fault::InstanceArchived { host, lasts } => {
                self.sets_instance(host, &json!({"archived": true})).await;
                sleep(lasts).await;
                self.sets_instance(host, &json!({"archived": false})).await;
            }
            Fault::InstancePaused { host, lasts } => {
                self.sets_instance(host, &json!({"paused": true})).await;
                sleep(lasts).await;
                self.sets_instance(host, &json!({"paused": false})).await;
            }
            _ => {}
        }
    }

    fn lines_of(&self, host: Option<usize>) -> impl Iterator<Item = Arc<super::link::Line>> {
        self.network.lines().into_iter().filter(move |line| line.host() == host)
    }

    /// Kills an agent with what its disk had not synced, and starts it later; with an older journal if so wished.
    async fn agent_dies(self: Arc<Self>, number: usize, down: Duration, kept: u64, back: Option<Duration>) {
        let Some(host) = self.hosts.get(number) else { return };
        {
            let mut slot = host.slot.lock();
            slot.down += 1;
            let had_process = slot.process.take().inspect(|process| process.kill()).is_some();
            if let Some(agent) = slot.agent.take() {
                agent.kill();
            }
            if had_process {
                host.machine.disk.crash(|unsynced| unsynced * kept as usize / 100);
            }
            if let (Some(back), Some(journal)) = (back, &slot.journal) {
                journal.read(|ledger| self.journal_rolls_back(number, host, back, ledger));
            }
        }
        sleep(down).await;
        host.slot.lock().down -= 1;
        self.start_agent(number).await;
    }

    fn journal_rolls_back(&self, number: usize, host: &Host, back: Duration, ledger: &Ledger) {
        let then = Instant::now().checked_sub(back);
        let mut copies = host.copies.lock();
        let copy =
            copies.iter().rev().find(|(at, ..)| then.is_some_and(|then| *at <= then)).or(copies.front());
        if let Some((_, bytes, sequence)) = copy {
            self.trace.tell(format!(
                "the journal of {} ends with record {sequence} again, it had {}",
                host_name(number),
                ledger.sequence()
            ));
            self.checker.is_rolled_back(&host_name(number), ledger, *sequence);
            host.machine.disk.put(JOURNAL, bytes.clone());
        }
        copies.clear();
    }

    async fn agent_stops(self: Arc<Self>, number: usize, down: Duration) {
        let Some(host) = self.hosts.get(number) else { return };
        let agent = {
            let mut slot = host.slot.lock();
            slot.down += 1;
            slot.agent.take()
        };
        if let Some(agent) = agent {
            agent.stop().await;
            let mut slot = host.slot.lock();
            if slot.process.as_ref().is_some_and(|process| Arc::ptr_eq(process, agent.process())) {
                slot.process = None;
            }
        }
        sleep(down).await;
        host.slot.lock().down -= 1;
        self.start_agent(number).await;
    }

    async fn agent_is_cloned(self: Arc<Self>, number: usize, lasts: Duration) {
        let Some(host) = self.hosts.get(number) else { return };
        let (Some(journal), Some(bytes)) =
            (host.slot.lock().journal.clone(), host.machine.disk.bytes(JOURNAL))
        else {
            return;
        };
        let name = host_name(number);
        journal.read(|ledger| self.checker.is_cloned(&name, ledger));
        let process = self.born(&format!("clone-of-agent-{number}"));
        let disk = MemoryDisk::default();
        disk.put(JOURNAL, bytes);
        let engine = self.make_engine(&format!("{name} (clone)"), self.ground.seed);
        let clock = MachineClock::new(process.name());
        let machine = Machine { engine, disk, clock, ..host.machine.clone() };
        if let Ok(clone) = Agent::start(&machine, process).await {
            self.checker.reads(clone.journal().clone());
            sleep(lasts).await;
            clone.journal().read(|ledger| self.checker.copy_is_gone(ledger));
            clone.kill();
        }
    }

    fn replica_dies(&self, replica: usize) {
        *self.replicas_down.lock().entry(replica).or_default() += 1;
        if let Some(replica) = self.switchboard.replicas.lock().get_mut(replica).and_then(Option::take) {
            replica.kill();
        }
    }

    async fn replica_comes_back(&self, replica: usize) {
        let is_wanted = {
            let mut down = self.replicas_down.lock();
            let count = down.entry(replica).or_default();
            *count = count.saturating_sub(1);
            *count == 0
        };
        if is_wanted && let Err(error) = self.start_replica(replica).await {
            self.trace.tell(format!("controller-{replica} does not start: {error:#}"));
        }
    }

    fn database_goes(&self, is_away: bool) {
        let mut away = self.database_away.lock();
        *away = if is_away { *away + 1 } else { away.saturating_sub(1) };
        self.database.set_away(*away > 0);
    }

    fn backup_of(&self, back: Duration) -> Option<Arc<Backup>> {
        let then = Instant::now().checked_sub(back)?;
        let mut backups = self.backups.lock();
        let found = backups.iter().rev().find(|(at, _)| *at <= then).or(backups.front());
        let found = found.map(|(_, backup)| backup.clone());
        backups.clear();
        found
    }

    async fn database_is_restored(self: Arc<Self>, back: Duration, lasts: Duration) {
        let Some(backup) = self.backup_of(back) else { return };
        for replica in 0..self.scenario.replicas {
            self.replica_dies(replica);
        }
        sleep(lasts).await;
        self.database.rewind(&backup, false).await;
        for replica in 0..self.scenario.replicas {
            self.replica_comes_back(replica).await;
        }
    }

    /// Until it is done: whoever archives an instance by mistake does not give up bringing it back.
    /// A database that was set back may say of a host again what its user took back since.
    pub(super) async fn takes_hosts_back(&self) {
        for planned in &self.scenario.faults {
            match planned.fault {
                Fault::InstanceArchived { host, .. } => {
                    self.sets_instance(host, &json!({"archived": false})).await;
                }
                Fault::InstancePaused { host, .. } => {
                    self.sets_instance(host, &json!({"paused": false})).await;
                }
                _ => {}
            }
        }
    }

    async fn sets_instance(&self, host: usize, spec: &Value) {
        loop {
            if let Some(replica) = self.switchboard.any() {
                let instances: Api<DockerInstance> = Api::namespaced(replica.client("user"), NAMESPACE);
                let patch = Patch::Merge(json!({"spec": spec}));
                let done = async {
                    match instances.patch(&host_name(host), &PatchParams::default(), &patch).await {
                        // An instance that a rewind has taken away stays away.
                        Err(kube::Error::Api(status)) => status.is_not_found(),
                        patched => patched.is_ok(),
                    }
                };
                if timeout(Duration::from_secs(5), done).await.unwrap_or(false) {
                    self.trace.tell(format!("user: {} {spec}", host_name(host)));
                    return;
                }
            }
            sleep(Duration::from_secs(1)).await;
        }
    }
}
