//! The agent's own end and faults: what is under way is concluded if Docker answers soon, and nobody waits for ever.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use futures::stream::BoxStream;
use gantry_agent::docker::bollard::BollardEngine;
use gantry_agent::docker::{
    Answer, Call, ContainerFacts, DockerError, Engine, ImageFacts, ImageReference, Incarnation, LayerUpdate,
    Pull,
};
use gantry_api::agent_v1::{InfoResponse, OperationState, Outcome, RegistryAuth, Target, TargetKind};
use tonic::Code;

use crate::daemon::{DIGEST, Fault};
use crate::world::{World, kill, pause, pull, start, stop};

#[tokio::test]
async fn an_answer_that_comes_soon_after_the_stop_is_recorded() {
    let mut world = World::with_container("running").await;
    world.daemon.state.lock().pull_is_held = true;
    let request = pull();
    world.submit(&request).await.unwrap();
    world.until(&request, |report| report.state() == OperationState::Started).await;
    let daemon = world.daemon.state.clone();
    let later = async {
        tokio::time::sleep(Duration::from_millis(100)).await;
        daemon.lock().pull_is_held = false;
    };

    tokio::join!(world.agent_is_stopped(), later);

    world.agent_starts().await;
    let report = world.known(&request).unwrap();
    assert_eq!((report.state(), report.outcome()), (OperationState::Finished, Outcome::Succeeded));
    assert_eq!(world.daemon.state.lock().images["app:2"], DIGEST);
}

#[tokio::test]
async fn a_call_that_is_not_answered_does_not_hold_up_the_stop_for_long() {
    let mut world = World::with_container("running").await;
    world.daemon.next_call(Fault::HangAfter);
    let request = stop();
    world.submit(&request).await.unwrap();
    world.until(&request, |report| report.state() == OperationState::Started).await;

    let asked = tokio::time::Instant::now();
    world.agent_is_stopped().await;

    assert!(asked.elapsed() < Duration::from_secs(2), "{:?}", asked.elapsed());
    world.agent_starts().await;
    assert_eq!(world.ended(&request).await.outcome(), Outcome::Succeeded);
    assert_eq!(world.daemon.calls().len(), 1);
}

#[tokio::test]
async fn nothing_starts_once_the_agent_stops() {
    let mut world = World::with_container("running").await;
    world.daemon.next_call(Fault::HangAfter);
    let (first, second) = (stop(), start());
    world.submit(&first).await.unwrap();
    world.until(&first, |report| report.state() == OperationState::Started).await;
    world.submit(&second).await.unwrap();

    let (refusal, ()) = {
        let operations = world.operations.clone();
        let late = async {
            tokio::time::sleep(Duration::from_millis(50)).await;
            operations.submit(pause()).await.unwrap_err()
        };
        tokio::join!(late, world.agent_is_stopped())
    };

    assert_eq!(refusal.code, Code::Unavailable);
    assert_eq!(world.daemon.effects(), ["stop"]);
    world.agent_starts().await;
    assert_eq!(world.known(&second).unwrap().state(), OperationState::Accepted);
}

#[tokio::test(flavor = "multi_thread")]
async fn another_attempt_right_after_the_last_is_run() {
    for _ in 0..3 {
        let world = World::with_container("exited").await;
        world.daemon.next_call(Fault::Refuse(500, "port is already allocated"));
        let mut request = start();
        world.submit(&request).await.unwrap();
        let reports = world.operations.watch();
        futures::pin_mut!(reports);
        while let Some(report) = futures::StreamExt::next(&mut reports).await {
            if report.state() == OperationState::Finished {
                break;
            }
        }

        request.attempt = 2;

        assert_eq!(world.run(&request).await.outcome(), Outcome::Succeeded);
    }
}

/// An engine at which the agent fails once, when it is asked for something.
struct Trap {
    engine: BollardEngine,
    is_set: AtomicBool,
    before_start: bool,
}

impl Trap {
    fn spring(&self, at: bool) {
        assert!(!(at == self.before_start && self.is_set.swap(false, Ordering::SeqCst)), "the trap");
    }
}

#[async_trait]
impl Engine for Trap {
    async fn info(&self) -> Result<InfoResponse, DockerError> {
        self.engine.info().await
    }

    fn known_id(&self) -> String {
        self.engine.known_id()
    }

    async fn id(&self) -> Result<String, DockerError> {
        self.engine.id().await
    }

    async fn resolve(&self, kind: TargetKind, reference: &str) -> Result<Target, DockerError> {
        self.engine.resolve(kind, reference).await
    }

    async fn incarnation(&self) -> Result<Option<Incarnation>, DockerError> {
        self.engine.incarnation().await
    }

    async fn container(&self, id: &str) -> Result<Option<ContainerFacts>, DockerError> {
        self.spring(true);
        self.engine.container(id).await
    }

    async fn image(&self, reference: &str) -> Result<Option<ImageFacts>, DockerError> {
        self.engine.image(reference).await
    }

    async fn volumes(&self, names: &[String]) -> Result<Vec<String>, DockerError> {
        self.engine.volumes(names).await
    }

    async fn registry_digest(
        &self,
        reference: &ImageReference,
        credentials: Option<&RegistryAuth>,
    ) -> Result<String, DockerError> {
        self.engine.registry_digest(reference, credentials).await
    }

    async fn call(&self, call: &Call, within: Duration) -> Result<Answer, DockerError> {
        self.spring(false);
        self.engine.call(call, within).await
    }

    async fn pull(
        &self,
        pull: &Pull,
        credentials: Option<&RegistryAuth>,
        progress: &mut (dyn FnMut(LayerUpdate) + Send),
    ) -> Result<(), DockerError> {
        self.engine.pull(pull, credentials, progress).await
    }

    fn changes(&self) -> BoxStream<'static, ()> {
        self.engine.changes()
    }
}

#[tokio::test]
async fn an_operation_at_which_the_agent_fails_ends_and_the_next_one_runs() {
    for (before_start, expected) in [(true, (Outcome::DockerError, true)), (false, (Outcome::Unknown, false))]
    {
        let mut world = World::with_container("running").await;
        let engine = BollardEngine::new(&world.daemon.host()).unwrap();
        world.operations.cut().await;
        world.agent_starts_with(Arc::new(Trap { engine, is_set: AtomicBool::new(true), before_start })).await;
        let (first, second) = (kill("HUP"), stop());

        let report = world.run(&first).await;

        assert_eq!((report.outcome(), report.retryable), expected, "{report:?}");
        assert_eq!(world.run(&second).await.outcome(), Outcome::Succeeded);
        assert_eq!(world.operations.open(), 0);
    }
}
