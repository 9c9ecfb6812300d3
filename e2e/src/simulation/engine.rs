//! A Docker Engine in memory, with Docker's semantics for what an Operation can ask of one.
//!
//! A request that was read is performed whether or not its client is still there. Everything that changes is told to the
//! [`Checker`], with the Operation it was done for.

mod containers;
mod images;
mod of_process;
mod requests;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use gantry_agent::docker::{Call, DockerError, ImageFacts};
use parking_lot::Mutex;
use tokio::sync::watch;
use tokio::time::Instant;
use uuid::Uuid;

use super::chance::Chance;
use super::check::Checker;
use super::process::Process;
use super::trace::Trace;

pub use containers::{Container, Habits};
pub use of_process::EngineOfProcess;

/// How an engine treats what it is asked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Weather {
    /// As it should.
    #[default]
    Fair,
    /// It takes its time to begin, and to answer.
    Slow,
    /// Answers get lost, whether or not it did what it was asked.
    Lossy,
    /// It fails with 5xx, whether or not it did what it was asked.
    Failing,
}

/// For whom an engine does something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Errand {
    /// The Operation.
    pub uid: Uuid,
    /// Which attempt.
    pub attempt: u32,
}

/// One engine. It outlives its agents, and its own restarts.
pub struct FakeEngine {
    name: String,
    state: Mutex<State>,
    changes: watch::Sender<u64>,
    /// Frozen while it is paused.
    process: Arc<Process>,
    seed: u64,
    chance: Arc<Chance>,
    checker: Arc<Checker>,
    trace: Arc<Trace>,
    begun: Instant,
}

#[derive(Debug)]
struct State {
    id: String,
    is_up: bool,
    /// Counts runs of the engine.
    run: u64,
    weather: Weather,
    /// Counts everything that has to be different each time.
    ticks: i64,
    containers: BTreeMap<String, Container>,
    images: BTreeMap<String, ImageFacts>,
    /// How often something was asked for each attempt.
    asked: BTreeMap<(Uuid, u32), u32>,
    /// What references mean in the registry: id, and digest.
    registry: BTreeMap<String, (String, String)>,
}

impl FakeEngine {
    /// An engine without anything on it.
    pub fn new(name: &str, seed: u64, checker: Arc<Checker>, trace: Arc<Trace>) -> Arc<Self> {
        let chance = Chance::of(seed, &format!("engine of {name}"));
        let state = State {
            id: chance.hex().chars().take(16).collect(),
            is_up: true,
            run: 1,
            weather: Weather::Fair,
            ticks: 0,
            containers: BTreeMap::new(),
            images: BTreeMap::new(),
            asked: BTreeMap::new(),
            registry: BTreeMap::new(),
        };
        Arc::new(Self {
            name: name.to_owned(),
            state: Mutex::new(state),
            changes: watch::Sender::new(0),
            process: Process::new(format!("dockerd of {name}")),
            seed,
            chance,
            checker,
            trace,
            begun: Instant::now(),
        })
    }

    /// For the trace.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// SIGSTOP.
    pub fn freeze(&self) {
        self.process.freeze();
    }

    /// SIGCONT.
    pub fn thaw(&self) {
        self.process.thaw();
    }

    /// How it treats requests from now on.
    pub fn set_weather(&self, weather: Weather) {
        self.state.lock().weather = weather;
    }

    /// Dies as after kill -9: requests under way are lost, and containers keep running, end, or are started anew by their
    /// restart policy. It does not listen until [`FakeEngine::comes_up`].
    pub fn dies(&self) {
        let mut state = self.state.lock();
        state.is_up = false;
        state.run += 1;
        let now = self.begun.elapsed();
        let ids: Vec<String> = state.containers.keys().cloned().collect();
        for id in ids {
            let fate = self.chance.below(3);
            let tick = state.tick();
            let Some(container) = state.containers.get_mut(&id).filter(|container| container.facts.running)
            else {
                continue;
            };
            match fate {
                0 => {}
                1 => container.ends(now, tick),
                _ => {
                    container.ends(now, tick);
                    container.starts(now, tick);
                    container.facts.restart_count += 1;
                }
            }
        }
        drop(state);
        self.changed();
    }

    /// Listens again.
    pub fn comes_up(&self) {
        self.state.lock().is_up = true;
        self.process.thaw();
        self.changed();
    }

    /// Puts a container there.
    pub fn has_container(&self, name: &str, habits: Habits, runs: bool) {
        let mut state = self.state.lock();
        let (id, tick) = (self.chance.hex(), state.tick());
        let mut container = Container::new(id.clone(), name, habits);
        if runs {
            container.starts(self.begun.elapsed(), tick);
        }
        state.containers.insert(id, container);
    }

    /// Puts an image into the registry, and here if so wished.
    pub fn has_image(&self, reference: &str, is_here: bool) {
        let (id, digest) = (format!("sha256:{}", self.chance.hex()), format!("sha256:{}", self.chance.hex()));
        let mut state = self.state.lock();
        if is_here {
            state.put_image(reference, &id, &digest);
        }
        state.registry.insert(reference.to_owned(), (id, digest));
    }

    /// Somebody on the host does something to a container, past every Operation.
    pub fn outsider_acts(&self, name: &str) {
        let choice = self.chance.below(4);
        let new_id = self.chance.hex();
        let now = self.begun.elapsed();
        let mut state = self.state.lock();
        let tick = state.tick();
        let Some(id) = state.id_of(name) else { return };
        let Some(container) = state.containers.get_mut(&id) else { return };
        let what = match choice {
            0 if container.facts.running => {
                container.ends(now, tick);
                "stops"
            }
            0 | 1 => {
                container.ends(now, tick);
                container.starts(now, tick);
                "starts"
            }
            2 => {
                let habits = container.habits;
                state.containers.remove(&id);
                state.containers.insert(new_id.clone(), Container::new(new_id, name, habits));
                "removes and makes anew"
            }
            _ => {
                container.facts.name = format!("{name}-old");
                let habits = container.habits;
                state.containers.insert(new_id.clone(), Container::new(new_id, name, habits));
                "renames and makes another"
            }
        };
        drop(state);
        self.trace.tell(format!("{}: somebody {what} {name}", self.name));
        self.changed();
    }

    /// Containers by name, for the workload.
    pub fn names(&self) -> Vec<String> {
        self.state.lock().containers.values().map(|container| container.facts.name.clone()).collect()
    }

    fn changed(&self) {
        self.changes.send_modify(|count| *count += 1);
    }

    fn unreachable(&self) -> DockerError {
        DockerError::Unreachable {
            address: format!("the socket of {}", self.name),
            cause: std::io::ErrorKind::ConnectionRefused.into(),
        }
    }

    /// Connects: fails while nobody listens, waits while the engine is frozen.
    async fn reached(&self) -> Result<u64, DockerError> {
        let run = {
            let state = self.state.lock();
            if !state.is_up {
                return Err(self.unreachable());
            }
            state.run
        };
        tokio::time::sleep(self.chance.millis(0, 3)).await;
        // It is never killed for good.
        let _ = self.process.runs().await;
        if self.state.lock().run == run { Ok(run) } else { Err(lost()) }
    }

    /// What is left to chance in one request: the same whatever else is asked of the engine.
    fn chance_of(&self, errand: Errand) -> Arc<Chance> {
        let asked = {
            let mut state = self.state.lock();
            let asked = state.asked.entry((errand.uid, errand.attempt)).or_default();
            *asked += 1;
            *asked
        };
        let name = self.checker.name(errand.uid);
        Chance::of(self.seed, &format!("{}: {name}, attempt {}, request {asked}", self.name, errand.attempt))
    }

    fn told(&self, errand: Errand, what: &str) {
        self.trace.tell(format!("{}: {} {what}", self.name, self.checker.name(errand.uid)));
    }
}

fn lost() -> DockerError {
    DockerError::Lost("connection reset".to_owned())
}

fn refused(status: u16, message: impl Into<String>) -> DockerError {
    DockerError::Refused { status, message: message.into() }
}

impl State {
    fn tick(&mut self) -> i64 {
        self.ticks += 1;
        self.ticks
    }

    /// The container with that name, id or prefix of an id.
    fn id_of(&self, name: &str) -> Option<String> {
        if self.containers.contains_key(name) {
            return Some(name.to_owned());
        }
        let named = self.containers.iter().find(|(_, container)| container.facts.name == name);
        named.map(|(id, _)| id.clone())
    }

    fn incarnation(&self) -> String {
        format!("run {}", self.run)
    }
}

/// The id a call is about.
pub(super) fn target(call: &Call) -> &str {
    match call {
        Call::Start { id }
        | Call::Stop { id, .. }
        | Call::Restart { id, .. }
        | Call::Pause { id }
        | Call::Unpause { id }
        | Call::Kill { id, .. }
        | Call::RemoveContainer { id, .. }
        | Call::Rename { id, .. }
        | Call::RemoveImage { id, .. }
        | Call::Tag { id, .. } => id,
    }
}

/// What a call is called in the trace.
fn word(call: &Call) -> String {
    match call {
        Call::Start { .. } => "start".to_owned(),
        Call::Stop { .. } => "stop".to_owned(),
        Call::Restart { .. } => "restart".to_owned(),
        Call::Pause { .. } => "pause".to_owned(),
        Call::Unpause { .. } => "unpause".to_owned(),
        Call::Kill { signal, .. } => format!("kill {signal}"),
        Call::RemoveContainer { .. } => "remove".to_owned(),
        Call::Rename { new_name, .. } => format!("rename to {new_name}"),
        Call::RemoveImage { .. } => "remove image".to_owned(),
        Call::Tag { reference, .. } => format!("tag {reference}"),
    }
}

/// How long performing anything takes at least.
const BRIEF: Duration = Duration::from_millis(20);
