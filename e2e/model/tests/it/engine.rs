//! An engine for the real agent that is what the model's engine is, and answers when the test says so.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures::stream::{self, BoxStream, StreamExt as _};
use gantry_agent::docker::{
    Answer, Call, ContainerFacts, DockerError, Engine, ImageFacts, ImageReference, Incarnation, LayerUpdate,
    Pull,
};
use gantry_api::agent_v1::{InfoResponse, RegistryAuth, Target, TargetKind};
use gantry_model::Sight;
use parking_lot::Mutex;
use tokio::sync::oneshot;

/// What pulls are known by.
pub(crate) const PULL: &str = "pull";
pub(crate) const REFERENCE: &str = "registry.example/app:1";
const DIGEST: &str = "sha256:dddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddd";
const IMAGE: &str = "sha256:eeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeee";

type Parked = oneshot::Sender<Result<Answer, DockerError>>;

#[derive(Default)]
struct State {
    web: Sight,
    /// Calls that wait for their answers, by what they act on: one each, since the agent has a queue for each.
    calls: HashMap<String, Parked>,
    asked: usize,
}

/// The engine.
#[derive(Clone, Default)]
pub(crate) struct TestEngine(Arc<Mutex<State>>);

/// A container's full id.
pub(crate) fn full_id(id: u8) -> String {
    format!("{id:064x}")
}

impl TestEngine {
    /// What can be seen there from now on.
    pub(crate) fn shows(&self, web: Sight) {
        self.0.lock().web = web;
    }

    /// How often it was asked to change something.
    pub(crate) fn asked(&self) -> usize {
        self.0.lock().asked
    }

    /// True while a call waits for its answer.
    pub(crate) fn is_asked(&self, target: &str) -> bool {
        self.0.lock().calls.get(target).is_some_and(|parked| !parked.is_closed())
    }

    /// Answers the call that waits.
    pub(crate) fn answer(&self, target: &str, answer: Result<Answer, DockerError>) {
        if let Some(parked) = self.0.lock().calls.remove(target) {
            // An agent that has died hears nothing.
            drop(parked.send(answer));
        }
    }

    async fn ask(&self, target: &str) -> Result<Answer, DockerError> {
        let (answer, answered) = oneshot::channel();
        {
            let mut state = self.0.lock();
            state.asked += 1;
            let before = state.calls.insert(target.to_owned(), answer);
            assert!(before.is_none_or(|before| before.is_closed()), "two calls on {target} at the same time");
        }
        answered.await.unwrap_or_else(|_| Err(DockerError::Lost("the connection broke".to_owned())))
    }

    fn web(&self) -> Sight {
        self.0.lock().web
    }
}

#[async_trait]
impl Engine for TestEngine {
    async fn info(&self) -> Result<InfoResponse, DockerError> {
        Ok(InfoResponse::default())
    }

    fn known_id(&self) -> String {
        format!("engine-{}", self.web().engine)
    }

    async fn id(&self) -> Result<String, DockerError> {
        Ok(self.known_id())
    }

    async fn resolve(&self, _: TargetKind, reference: &str) -> Result<Target, DockerError> {
        Err(DockerError::NoSuchTarget(reference.to_owned()))
    }

    async fn incarnation(&self) -> Result<Option<Incarnation>, DockerError> {
        Ok(Some(Incarnation(format!("run-{}", self.web().run))))
    }

    async fn container(&self, id: &str) -> Result<Option<ContainerFacts>, DockerError> {
        let web = self.web();
        let is_there = web.id != 0 && full_id(web.id) == id;
        Ok(is_there.then(|| ContainerFacts {
            id: id.to_owned(),
            name: "web".to_owned(),
            state: if web.running { "running" } else { "exited" }.to_owned(),
            running: web.running,
            pid: if web.running { i64::from(web.started_at) } else { 0 },
            started_at: format!("start {}", web.started_at),
            ..ContainerFacts::default()
        }))
    }

    async fn image(&self, _: &str) -> Result<Option<ImageFacts>, DockerError> {
        Ok((self.web().image == 1).then(|| ImageFacts {
            id: IMAGE.to_owned(),
            references: vec![REFERENCE.to_owned()],
            digests: vec![format!("registry.example/app@{DIGEST}")],
        }))
    }

    async fn volumes(&self, _: &[String]) -> Result<Vec<String>, DockerError> {
        Ok(Vec::new())
    }

    async fn registry_digest(
        &self,
        _: &ImageReference,
        _: Option<&RegistryAuth>,
    ) -> Result<String, DockerError> {
        Ok(DIGEST.to_owned())
    }

    async fn call(&self, call: &Call, _: Duration) -> Result<Answer, DockerError> {
        match call {
            // How a repeated pull ends; it is part of the pull.
            Call::Tag { .. } => Ok(Answer::Done),
            Call::Stop { id, .. } | Call::Restart { id, .. } | Call::Kill { id, .. } => self.ask(id).await,
            _ => panic!("{call:?} is not in any trace"),
        }
    }

    async fn pull(
        &self,
        _: &Pull,
        _: Option<&RegistryAuth>,
        _: &mut (dyn FnMut(LayerUpdate) + Send),
    ) -> Result<(), DockerError> {
        self.ask(PULL).await.map(drop)
    }

    fn changes(&self) -> BoxStream<'static, ()> {
        stream::pending().boxed()
    }
}
