//! A simulated host's engine: it has contents that change, tells of that, and does what its containers can do.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use futures::stream::{BoxStream, StreamExt as _};
use gantry_agent::clock::SharedClock;
use gantry_agent::docker::streams::Streams;
use gantry_agent::docker::{
    Answer, Call, ContainerFacts, DockerError, Engine, Happened, ImageFacts, ImageReference, Incarnation,
    LayerUpdate, Listing, Pull,
};
use gantry_api::agent_v1::{
    Container, Image, InfoResponse, Network, RegistryAuth, Target, TargetKind, Volume,
};
use parking_lot::Mutex;
use tokio::sync::{broadcast, watch};
use tokio::time::{Instant, sleep, sleep_until, timeout_at};

use super::contents::{Contents, State};

/// As a real agent does: see `happenings` and `changes` there.
const HAPPENINGS_PACE: Duration = Duration::from_millis(200);
const CHANGES_PACE: Duration = Duration::from_secs(1);
/// Events that a slow reader may be behind.
const EVENTS_BUFFERED: usize = 64;

/// One host.
pub struct Host {
    contents: Contents,
    /// How long it takes to tell its facts, in milliseconds.
    answers_after: Arc<AtomicU64>,
    clock: SharedClock,
    /// What each container does, and since when.
    states: Mutex<Vec<(State, i64)>>,
    happened: broadcast::Sender<String>,
    changed: watch::Sender<()>,
    checks: AtomicU64,
}

impl Host {
    pub(super) fn new(contents: Contents, answers_after: Arc<AtomicU64>, clock: SharedClock) -> Arc<Self> {
        let states =
            (0..contents.containers).map(|number| (contents.state(number), contents.created_at(number)));
        Arc::new(Self {
            contents,
            answers_after,
            clock,
            states: Mutex::new(states.collect()),
            happened: broadcast::channel(EVENTS_BUFFERED).0,
            changed: watch::Sender::new(()),
            checks: AtomicU64::new(0),
        })
    }

    /// How often it was asked for its facts.
    pub fn checks(&self) -> u64 {
        self.checks.load(Ordering::Relaxed)
    }

    /// Containers on it.
    pub fn containers(&self) -> usize {
        self.contents.containers
    }

    /// The name of a container.
    pub fn name(&self, number: usize) -> String {
        self.contents.name(number)
    }

    /// What a container does.
    pub fn state(&self, number: usize) -> Option<State> {
        self.at(number).map(|(state, _)| state)
    }

    /// Stops a container that runs and starts one that does not; what it does then. `None` of one there is not.
    pub fn toggle(&self, number: usize) -> Option<State> {
        let present = self.states.lock().get(number)?.0;
        let next = if present == State::Running { State::Exited } else { State::Running };
        self.set(number, next);
        Some(next)
    }

    /// Puts a container into a state; false if it is in it already.
    fn set(&self, number: usize, state: State) -> bool {
        let now = self.clock.now().as_second();
        match self.states.lock().get_mut(number) {
            Some(present) if present.0 != state => *present = (state, now),
            _ => return false,
        }
        // Nobody may be listening.
        self.happened.send(self.contents.id(number)).ok();
        self.changed.send_replace(());
        true
    }

    fn count(&self, state: State) -> u32 {
        let states = self.states.lock();
        u32::try_from(states.iter().filter(|(present, _)| *present == state).count()).unwrap_or(u32::MAX)
    }

    fn at(&self, number: usize) -> Option<(State, i64)> {
        self.states.lock().get(number).copied()
    }

    fn facts(&self, number: usize) -> Option<ContainerFacts> {
        let (state, since) = self.at(number)?;
        let told = self.contents.container(number, state, since);
        let running = state != State::Exited;
        Some(ContainerFacts {
            id: told.id,
            name: told.name,
            image: told.image,
            state: told.state,
            running,
            paused: state == State::Paused,
            pid: if running { since } else { 0 },
            started_at: format!("start-{since}"),
            finished_at: format!("finish-{since}"),
            ..ContainerFacts::default()
        })
    }
}

fn impossible(what: &str) -> DockerError {
    DockerError::Refused { status: 501, message: format!("a simulated host does not {what}") }
}

/// Nothing runs in its containers.
impl Streams for Host {}

#[async_trait]
impl Listing for Host {
    async fn containers(
        &self,
        ids: Option<&BTreeSet<String>>,
        _now: i64,
    ) -> Result<Vec<Container>, DockerError> {
        let states = self.states.lock().clone();
        let listed = states.into_iter().enumerate();
        let listed =
            listed.filter(|(number, _)| ids.is_none_or(|ids| ids.contains(&self.contents.id(*number))));
        Ok(listed.map(|(number, (state, since))| self.contents.container(number, state, since)).collect())
    }

    async fn images(&self) -> Result<Vec<Image>, DockerError> {
        Ok(self.contents.images())
    }

    async fn networks(&self) -> Result<Vec<Network>, DockerError> {
        Ok(self.contents.networks())
    }

    async fn volumes(&self) -> Result<Vec<Volume>, DockerError> {
        Ok(self.contents.volumes())
    }

    fn happenings(&self) -> BoxStream<'static, Happened> {
        let first = futures::stream::once(async { Happened::everything() });
        let events = (self.happened.subscribe(), Instant::now());
        let later = futures::stream::unfold(events, |(mut events, next)| async move {
            let mut happened = Happened::default();
            if !add(&mut happened, events.recv().await) {
                return None;
            }
            // What else comes within the pace is of the same burst.
            let rest = async { while add(&mut happened, events.recv().await) {} };
            timeout_at(next, rest).await.ok();
            Some((happened, (events, Instant::now() + HAPPENINGS_PACE)))
        });
        first.chain(later).boxed()
    }
}

/// False if nothing will come any more.
fn add(happened: &mut Happened, event: Result<String, broadcast::error::RecvError>) -> bool {
    match event {
        Ok(id) => happened.containers.insert(id),
        Err(broadcast::error::RecvError::Lagged(_)) => {
            happened.everything = true;
            true
        }
        Err(broadcast::error::RecvError::Closed) => return false,
    };
    true
}

#[async_trait]
impl Engine for Host {
    async fn info(&self) -> Result<InfoResponse, DockerError> {
        self.checks.fetch_add(1, Ordering::Relaxed);
        sleep(Duration::from_millis(self.answers_after.load(Ordering::Relaxed))).await;
        Ok(InfoResponse {
            engine_id: self.known_id(),
            engine_version: "27.3.1".to_owned(),
            api_version: "1.47".to_owned(),
            operating_system: "Debian GNU/Linux 12 (bookworm)".to_owned(),
            os_type: "linux".to_owned(),
            architecture: "x86_64".to_owned(),
            kernel_version: "6.1.0".to_owned(),
            storage_driver: "overlay2".to_owned(),
            cgroup_version: "2".to_owned(),
            cpus: 4,
            memory_bytes: 8 << 30,
            containers_running: self.count(State::Running),
            containers_paused: self.count(State::Paused),
            containers_stopped: self.count(State::Exited),
            images: u32::try_from(self.contents.images().len()).unwrap_or(u32::MAX),
            host_name: format!("simulated-{}", self.contents.host),
            compatible: true,
        })
    }

    fn known_id(&self) -> String {
        format!("SIMULATED:{}:{}", self.contents.seed, self.contents.host)
    }

    async fn id(&self) -> Result<String, DockerError> {
        Ok(self.known_id())
    }

    async fn resolve(&self, kind: TargetKind, reference: &str) -> Result<Target, DockerError> {
        let found = self.contents.find(reference).filter(|_| kind == TargetKind::Container);
        let facts = found.and_then(|number| self.facts(number));
        let facts =
            facts.ok_or_else(|| DockerError::NoSuchTarget(format!("`{reference}` does not exist")))?;
        Ok(Target {
            kind: kind.into(),
            id: facts.id,
            name: facts.name,
            image: facts.image,
            state: facts.state,
            ..Target::default()
        })
    }

    async fn incarnation(&self) -> Result<Option<Incarnation>, DockerError> {
        Ok(Some(Incarnation("the only one".to_owned())))
    }

    async fn container(&self, id: &str) -> Result<Option<ContainerFacts>, DockerError> {
        Ok(self.contents.find(id).and_then(|number| self.facts(number)))
    }

    async fn image(&self, _: &str) -> Result<Option<ImageFacts>, DockerError> {
        Ok(None)
    }

    async fn volumes(&self, _: &[String]) -> Result<Vec<String>, DockerError> {
        Ok(Vec::new())
    }

    async fn registry_digest(
        &self,
        _: &ImageReference,
        _: Option<&RegistryAuth>,
    ) -> Result<String, DockerError> {
        Err(impossible("know registries"))
    }

    async fn call(&self, call: &Call, _within: Duration) -> Result<Answer, DockerError> {
        let (id, state) = match call {
            Call::Start { id } | Call::Unpause { id } => (id, State::Running),
            Call::Stop { id, .. } | Call::Kill { id, .. } => (id, State::Exited),
            Call::Pause { id } => (id, State::Paused),
            Call::Restart { id, .. } => {
                let number = self.contents.find(id).unwrap_or(usize::MAX);
                self.set(number, State::Exited);
                (id, State::Running)
            }
            Call::RemoveContainer { .. }
            | Call::Rename { .. }
            | Call::RemoveImage { .. }
            | Call::Tag { .. } => {
                return Err(impossible("make or remove anything"));
            }
        };
        let number = self.contents.find(id);
        let number = number.ok_or_else(|| DockerError::Refused {
            status: 404,
            message: format!("No such container: {id}"),
        })?;
        Ok(if self.set(number, state) { Answer::Done } else { Answer::NotModified })
    }

    async fn pull(
        &self,
        _: &Pull,
        _: Option<&RegistryAuth>,
        _: &mut (dyn FnMut(LayerUpdate) + Send),
    ) -> Result<(), DockerError> {
        Err(impossible("pull images"))
    }

    fn changes(&self) -> BoxStream<'static, ()> {
        let first = futures::stream::once(async {});
        let changes = (self.changed.subscribe(), Instant::now());
        let later = futures::stream::unfold(changes, |(mut changed, next)| async move {
            changed.changed().await.ok()?;
            sleep_until(next).await;
            changed.borrow_and_update();
            Some(((), (changed, Instant::now() + CHANGES_PACE)))
        });
        first.chain(later).boxed()
    }
}
