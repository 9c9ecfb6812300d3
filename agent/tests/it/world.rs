//! One agent with a fake daemon, a disk that forgets what was not synced, and a session the test opens and closes.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use gantry_agent::clock::{Clock, SharedEntropy, SystemClock, SystemEntropy};
use gantry_agent::docker::Engine;
use gantry_agent::docker::bollard::BollardEngine;
use gantry_agent::journal::{Journal, MemoryDisk};
use gantry_agent::operations::{Operations, Pace, Parts, Readiness, Refusal, Resumed};
use gantry_api::agent_v1::action::Action as Kind;
use gantry_api::agent_v1::{
    Action, ContainerKill, ContainerPause, ContainerRemove, ContainerRename, ContainerRestart,
    ContainerStart, ContainerStop, ContainerUnpause, ImagePull, ImageRemove, ImageTag, OperationReport,
    OperationState, Permit, Policy, ResumeRequest, SubmitRequest, Target, TargetKind, Token,
};
use parking_lot::Mutex;
use tokio::sync::watch;

use crate::daemon::{C1, Daemon, IMAGE};

pub(crate) const TOKEN: Token = Token { incarnation: 1, epoch: 1 };
const PATIENCE: Duration = Duration::from_secs(20);

pub(crate) struct Session(watch::Sender<bool>);

impl Session {
    pub(crate) fn set(&self, is_ready: bool) {
        self.0.send_replace(is_ready);
    }
}

#[async_trait]
impl Readiness for Session {
    fn is_ready(&self) -> bool {
        *self.0.borrow()
    }

    async fn ready(&self) {
        drop(self.0.subscribe().wait_for(|is_ready| *is_ready).await);
    }
}

pub(crate) struct World {
    pub(crate) daemon: Daemon,
    pub(crate) disk: MemoryDisk,
    pub(crate) session: Arc<Session>,
    pub(crate) operations: Operations,
    pub(crate) policy: Policy,
    pub(crate) machine: Arc<Machine>,
}

pub(crate) fn entropy() -> SharedEntropy {
    Arc::new(SystemEntropy)
}

/// Short enough for tests, and in the proportions of the real ones.
fn pace() -> Pace {
    Pace {
        poll: Duration::from_millis(5),
        poll_at_most: Duration::from_millis(20),
        settle: Duration::from_millis(60),
        settle_once: Duration::from_millis(100),
        grace: Duration::from_millis(300),
        disk: Duration::from_millis(10),
        progress: Duration::from_millis(10),
        farewell: Duration::from_millis(500),
    }
}

/// The machine's clock, which a test can move on and start over.
pub(crate) struct Machine {
    ahead: Mutex<Duration>,
    boot: Mutex<String>,
}

impl Machine {
    pub(crate) fn pass(&self, time: Duration) {
        *self.ahead.lock() += time;
    }

    /// Starts over; nothing has passed since.
    pub(crate) fn restarts(&self) {
        self.boot.lock().push('+');
        *self.ahead.lock() = Duration::ZERO;
    }
}

impl Clock for Machine {
    fn now(&self) -> jiff::Timestamp {
        SystemClock.now()
    }

    fn since_boot(&self) -> Duration {
        *self.ahead.lock()
    }

    fn boot(&self) -> String {
        self.boot.lock().clone()
    }
}

impl Default for Machine {
    fn default() -> Self {
        Self { ahead: Mutex::new(Duration::from_secs(1000)), boot: Mutex::new("boot".to_owned()) }
    }
}

async fn start_agent(
    engine: Arc<dyn Engine>,
    disk: &MemoryDisk,
    session: &Arc<Session>,
    policy: Policy,
    machine: &Arc<Machine>,
) -> Operations {
    Operations::start(Parts {
        engine,
        journal: Journal::open(Arc::new(disk.clone()), &entropy()).await.unwrap(),
        clock: machine.clone(),
        readiness: session.clone(),
        policy,
        pace: pace(),
    })
}

impl World {
    pub(crate) async fn with_container(state: &str) -> Self {
        Self::new(Daemon::with_container(state), Policy::Full).await
    }

    pub(crate) async fn new(daemon: Daemon, policy: Policy) -> Self {
        let disk = MemoryDisk::default();
        let session = Arc::new(Session(watch::Sender::new(true)));
        let machine = Arc::new(Machine::default());
        let engine = Arc::new(BollardEngine::new(&daemon.host()).unwrap());
        let operations = start_agent(engine, &disk, &session, policy, &machine).await;
        Self { daemon, disk, session, operations, policy, machine }
    }

    /// Kills the agent, loses what it had not synced, and starts it anew.
    pub(crate) async fn agent_is_killed_and_restarted(&mut self) {
        self.operations.cut().await;
        self.disk.crash(|_| 0);
        self.agent_starts().await;
    }

    /// Stops the agent as a service manager does.
    pub(crate) async fn agent_is_stopped(&self) {
        self.operations.stop().await;
        self.disk.crash(|_| 0);
    }

    pub(crate) async fn agent_starts(&mut self) {
        let engine = Arc::new(BollardEngine::new(&self.daemon.host()).unwrap());
        self.agent_starts_with(engine).await;
    }

    /// Starts an agent whose engine is not just the daemon.
    pub(crate) async fn agent_starts_with(&mut self, engine: Arc<dyn Engine>) {
        self.operations = start_agent(engine, &self.disk, &self.session, self.policy, &self.machine).await;
    }

    /// Resumes with the controller's word on these operations, and on no other.
    pub(crate) async fn resume(&self, withdrawn: &[&SubmitRequest], permitted: &[&SubmitRequest]) -> Resumed {
        self.try_resume(TOKEN, withdrawn, permitted).await.unwrap()
    }

    pub(crate) async fn try_resume(
        &self,
        token: Token,
        withdrawn: &[&SubmitRequest],
        permitted: &[&SubmitRequest],
    ) -> Result<Resumed, Refusal> {
        let permit = |request: &&SubmitRequest| Permit {
            uid: request.uid.clone(),
            start_within_ms: request.start_within_ms,
        };
        let request = ResumeRequest {
            token: Some(token),
            withdrawn_uids: withdrawn.iter().map(|request| request.uid.clone()).collect(),
            permits: permitted.iter().map(permit).collect(),
            ..ResumeRequest::default()
        };
        self.operations.resume(request).await
    }

    /// What is known of an operation; `None` if it was never heard of.
    pub(crate) fn known(&self, request: &SubmitRequest) -> Option<OperationReport> {
        self.operations.query(std::slice::from_ref(&request.uid)).unwrap().pop()
    }

    pub(crate) async fn submit(&self, request: &SubmitRequest) -> Result<OperationReport, Refusal> {
        self.operations.submit(request.clone()).await
    }

    /// Submits and waits for the end.
    pub(crate) async fn run(&self, request: &SubmitRequest) -> OperationReport {
        self.submit(request).await.unwrap();
        self.ended(request).await
    }

    pub(crate) async fn ended(&self, request: &SubmitRequest) -> OperationReport {
        self.until(request, |report| {
            matches!(report.state(), OperationState::Finished | OperationState::Withdrawn)
        })
        .await
    }

    /// Waits until a report is as asked.
    pub(crate) async fn until(
        &self,
        request: &SubmitRequest,
        is_so: impl Fn(&OperationReport) -> bool,
    ) -> OperationReport {
        use futures::StreamExt as _;
        let reports = self.operations.watch();
        futures::pin_mut!(reports);
        let found = async {
            while let Some(report) = reports.next().await {
                if report.uid == request.uid && report.attempt == request.attempt && is_so(&report) {
                    return report;
                }
            }
            panic!("the watch ended");
        };
        tokio::time::timeout(PATIENCE, found).await.expect("it should have ended by now")
    }
}

pub(crate) fn container(kind: Kind) -> SubmitRequest {
    let target = Target {
        kind: TargetKind::Container.into(),
        id: C1.to_owned(),
        name: "web".to_owned(),
        ..Target::default()
    };
    request(kind, target)
}

pub(crate) fn image(kind: Kind) -> SubmitRequest {
    let (id, name) = match kind {
        Kind::ImagePull(_) => ("", "app:2"),
        _ => (IMAGE, "app:1"),
    };
    let target = Target {
        kind: TargetKind::Image.into(),
        id: id.to_owned(),
        name: name.to_owned(),
        ..Target::default()
    };
    request(kind, target)
}

fn request(kind: Kind, target: Target) -> SubmitRequest {
    SubmitRequest {
        token: Some(TOKEN),
        uid: entropy().uuid().to_string(),
        attempt: 1,
        digest: "d1".to_owned(),
        action: Some(Action { action: Some(kind) }),
        target: Some(target),
        required_state: String::new(),
        start_within_ms: Some(60_000),
        run_within_ms: 3_000,
        traceparent: String::new(),
        registry_auth: None,
    }
}

pub(crate) fn start() -> SubmitRequest {
    container(Kind::ContainerStart(ContainerStart {}))
}

pub(crate) fn stop() -> SubmitRequest {
    stop_within(0)
}

pub(crate) fn stop_within(seconds: u32) -> SubmitRequest {
    container(Kind::ContainerStop(ContainerStop { timeout_seconds: Some(seconds) }))
}

pub(crate) fn restart() -> SubmitRequest {
    container(Kind::ContainerRestart(ContainerRestart { timeout_seconds: Some(0) }))
}

pub(crate) fn pause() -> SubmitRequest {
    container(Kind::ContainerPause(ContainerPause {}))
}

pub(crate) fn unpause() -> SubmitRequest {
    container(Kind::ContainerUnpause(ContainerUnpause {}))
}

pub(crate) fn kill(signal: &str) -> SubmitRequest {
    container(Kind::ContainerKill(ContainerKill { signal: signal.to_owned() }))
}

pub(crate) fn remove(force: bool) -> SubmitRequest {
    container(Kind::ContainerRemove(ContainerRemove { force, remove_volumes: false }))
}

pub(crate) fn rename(new_name: &str) -> SubmitRequest {
    container(Kind::ContainerRename(ContainerRename { new_name: new_name.to_owned() }))
}

pub(crate) fn pull() -> SubmitRequest {
    image(Kind::ImagePull(ImagePull { platform: String::new() }))
}

pub(crate) fn remove_image() -> SubmitRequest {
    image(Kind::ImageRemove(ImageRemove { force: false }))
}

pub(crate) fn tag() -> SubmitRequest {
    image(Kind::ImageTag(ImageTag { reference: "team/app:9".to_owned() }))
}

/// Every action, with a state its container can be in before it, and the effect it has.
pub(crate) fn every_action() -> Vec<(&'static str, SubmitRequest, &'static str)> {
    vec![
        ("exited", start(), "start"),
        ("running", stop(), "stop"),
        ("running", restart(), "restart"),
        ("running", pause(), "pause"),
        ("paused", unpause(), "unpause"),
        ("running", kill(""), "kill SIGKILL"),
        ("running", kill("15"), "kill SIGTERM"),
        ("running", kill("HUP"), "kill SIGHUP"),
        ("running", remove(true), "remove"),
        ("running", rename("api"), "rename"),
        ("running", pull(), "pull"),
        ("running", remove_image(), "remove-image"),
        ("running", tag(), "tag"),
    ]
}
