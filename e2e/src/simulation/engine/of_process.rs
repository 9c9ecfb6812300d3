//! An engine as one agent's process has it. What a dead process asks is not asked.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use async_trait::async_trait;
use futures::stream::{BoxStream, StreamExt as _};
use gantry_agent::docker::streams::Streams;
use gantry_agent::docker::{
    Answer, Call, ContainerFacts, DockerError, Engine, ImageFacts, ImageReference, Incarnation, LayerUpdate,
    Pull,
};
use gantry_agent::journal::Journal;
use gantry_api::agent_v1::{InfoResponse, RegistryAuth, Target, TargetKind};
use parking_lot::Mutex;

use super::{FakeEngine, target};
use crate::simulation::process::{Dead, Process};

/// The agent's client of an engine.
pub struct EngineOfProcess {
    engine: Arc<FakeEngine>,
    process: Arc<Process>,
    known_id: Mutex<String>,
    journal: OnceLock<Journal>,
}

impl EngineOfProcess {
    /// The engine as that process has it.
    pub fn new(engine: Arc<FakeEngine>, process: Arc<Process>) -> Arc<Self> {
        Arc::new(Self { engine, process, known_id: Mutex::default(), journal: OnceLock::new() })
    }

    /// Where it is looked up for which Operation something is asked.
    pub fn believes(&self, journal: Journal) {
        // There is one journal in a process.
        let _ = self.journal.set(journal);
    }

    async fn runs(&self) -> Result<(), DockerError> {
        self.process.runs().await.map_err(|Dead| self.engine.unreachable())
    }

    /// Asks when the process runs, and hears the answer when it does.
    async fn through<T>(
        &self,
        asked: impl Future<Output = Result<T, DockerError>>,
    ) -> Result<T, DockerError> {
        self.runs().await?;
        let answer = asked.await;
        self.runs().await?;
        answer
    }

    fn errand(&self, named: &str, is_pull: bool) -> Option<super::Errand> {
        let journal = self.journal.get()?;
        self.engine.checker.is_called(self.process.name(), self.engine.name(), journal, named, is_pull)
    }
}

/// Nobody looks at what runs there.
impl Streams for EngineOfProcess {}

#[async_trait]
impl Engine for EngineOfProcess {
    async fn info(&self) -> Result<InfoResponse, DockerError> {
        self.through(self.engine.info()).await
    }

    fn known_id(&self) -> String {
        self.known_id.lock().clone()
    }

    async fn id(&self) -> Result<String, DockerError> {
        let id = self.through(self.engine.id()).await?;
        self.known_id.lock().clone_from(&id);
        Ok(id)
    }

    async fn resolve(&self, kind: TargetKind, reference: &str) -> Result<Target, DockerError> {
        self.through(self.engine.resolve(kind, reference)).await
    }

    async fn incarnation(&self) -> Result<Option<Incarnation>, DockerError> {
        Ok(Some(Incarnation(self.through(self.engine.run()).await?)))
    }

    async fn container(&self, id: &str) -> Result<Option<ContainerFacts>, DockerError> {
        self.through(self.engine.inspect(id)).await
    }

    async fn image(&self, reference: &str) -> Result<Option<ImageFacts>, DockerError> {
        self.through(self.engine.inspect_image(reference)).await
    }

    async fn volumes(&self, _names: &[String]) -> Result<Vec<String>, DockerError> {
        Ok(Vec::new())
    }

    async fn registry_digest(
        &self,
        reference: &ImageReference,
        _: Option<&RegistryAuth>,
    ) -> Result<String, DockerError> {
        let pull = Pull { reference: reference.clone(), platform: None };
        self.through(self.engine.asks_registry(&pull)).await
    }

    async fn call(&self, call: &Call, within: Duration) -> Result<Answer, DockerError> {
        self.runs().await?;
        let Some(errand) = self.errand(target(call), false) else {
            return Err(self.engine.unreachable());
        };
        self.through(self.engine.request(errand, call, within)).await
    }

    async fn pull(
        &self,
        pull: &Pull,
        _: Option<&RegistryAuth>,
        progress: &mut (dyn FnMut(LayerUpdate) + Send),
    ) -> Result<(), DockerError> {
        self.runs().await?;
        let Some(errand) = self.errand(&pull.reference.to_string(), true) else {
            return Err(self.engine.unreachable());
        };
        self.through(self.engine.request_pull(errand, pull, progress)).await
    }

    fn changes(&self) -> BoxStream<'static, ()> {
        let (engine, process) = (self.engine.clone(), self.process.clone());
        let first = futures::stream::once(async {});
        let later = futures::stream::unfold(0, move |seen| {
            let (engine, process) = (engine.clone(), process.clone());
            async move {
                let seen = engine.until_changed(seen).await;
                tokio::time::sleep(Duration::from_secs(1)).await;
                process.runs().await.ok()?;
                Some(((), seen))
            }
        });
        first.chain(later).boxed()
    }
}
