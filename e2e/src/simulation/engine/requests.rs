//! A request on its way: whether it arrives, is performed, and answered.

use std::sync::Arc;
use std::time::Duration;

use gantry_agent::docker::{Answer, Call, ContainerFacts, DockerError, ImageFacts, LayerUpdate, Pull};
use gantry_api::agent_v1::{InfoResponse, Target, TargetKind};
use tokio::sync::oneshot;

use super::{Errand, FakeEngine, Weather, lost, refused, word};
use crate::simulation::chance::Chance;

/// What becomes of one request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    Answered,
    /// Lost on its way there.
    NeverRead,
    /// Performed, and the answer is lost.
    AnswerLost,
    /// 5xx, and nothing is done.
    FailsBefore,
    /// 5xx, and it is done all the same.
    FailsAfter,
    /// 5xx at once, and it is done a moment later.
    FailsEarly,
}

impl FakeEngine {
    fn fate(&self, chance: &Chance) -> Fate {
        let weather = self.state.lock().weather;
        match (weather, chance.below(4)) {
            (Weather::Lossy, 0) => Fate::NeverRead,
            (Weather::Lossy, 1 | 2) => Fate::AnswerLost,
            (Weather::Failing, 0) => Fate::FailsBefore,
            (Weather::Failing, 1) => Fate::FailsAfter,
            (Weather::Failing, 2) => Fate::FailsEarly,
            _ => Fate::Answered,
        }
    }

    /// How long a request that was read waits for its turn. An agent takes one that shows nothing for five seconds for not begun.
    fn begins_after(&self, chance: &Chance) -> Duration {
        match self.state.lock().weather {
            Weather::Slow => chance.millis(0, 1_500),
            _ => chance.millis(0, 50),
        }
    }

    fn answers_after(&self, chance: &Chance) -> Duration {
        match self.state.lock().weather {
            Weather::Slow => chance.millis(0, 20_000),
            _ => chance.millis(0, 20),
        }
    }

    pub(super) async fn request(
        self: &Arc<Self>,
        errand: Errand,
        call: &Call,
        within: Duration,
    ) -> Result<Answer, DockerError> {
        let chance = self.chance_of(errand);
        let asked = async {
            let run = self.reached().await?;
            let fate = self.fate(&chance);
            self.told(
                errand,
                &format!(
                    "is asked to {}{}",
                    word(call),
                    match fate {
                        Fate::Answered => String::new(),
                        other => format!(" ({other:?})"),
                    }
                ),
            );
            match fate {
                Fate::NeverRead => return Err(lost()),
                Fate::FailsBefore => return Err(refused(500, "internal error, before anything was done")),
                _ => {}
            }
            let performed = self.performs(run, errand, call.clone(), chance.clone());
            if fate == Fate::FailsEarly {
                tokio::time::sleep(chance.millis(0, 300)).await;
                return Err(refused(500, "internal error, at first"));
            }
            let answer = performed.await.unwrap_or_else(|_| Err(lost()));
            tokio::time::sleep(self.answers_after(&chance)).await;
            // It is never killed for good.
            let _ = self.process.runs().await;
            match (fate, answer) {
                (Fate::AnswerLost, _) => Err(lost()),
                (Fate::FailsAfter, Ok(_)) => Err(refused(500, "internal error, after it was done")),
                (_, answer) if self.state.lock().run == run => answer,
                _ => Err(lost()),
            }
        };
        let answer = tokio::time::timeout(within, asked).await;
        let answer = answer.unwrap_or(Err(DockerError::Silent(within)));
        self.told(
            errand,
            &match &answer {
                Ok(Answer::Done) => format!("{} is answered", word(call)),
                Ok(Answer::NotModified) => format!("{} is answered 304", word(call)),
                Err(error) => format!("{} fails: {error}", word(call)),
            },
        );
        answer
    }

    /// Performs what was read, whether or not its client is still there.
    fn performs(
        self: &Arc<Self>,
        run: u64,
        errand: Errand,
        call: Call,
        chance: Arc<Chance>,
    ) -> oneshot::Receiver<Result<Answer, DockerError>> {
        let (answer, answered) = oneshot::channel();
        let engine = self.clone();
        tokio::spawn(async move {
            tokio::time::sleep(engine.begins_after(&chance)).await;
            // It is never killed for good.
            let _ = engine.process.runs().await;
            let performed = match call {
                Call::RemoveImage { .. } | Call::Tag { .. } => engine.perform_on_image(run, errand, &call),
                call => engine.clone().perform_on_container(run, errand, call, &chance).await,
            };
            // Nobody may be waiting.
            let _ = answer.send(performed);
        });
        answered
    }

    pub(super) async fn request_pull(
        self: &Arc<Self>,
        errand: Errand,
        pull: &Pull,
        progress: &mut (dyn FnMut(LayerUpdate) + Send),
    ) -> Result<(), DockerError> {
        let run = self.reached().await?;
        let chance = self.chance_of(errand);
        let fate = self.fate(&chance);
        self.told(errand, &format!("is asked to pull {} ({fate:?})", pull.reference));
        match fate {
            Fate::NeverRead => return Err(lost()),
            Fate::FailsBefore | Fate::FailsEarly => {
                return Err(refused(500, "internal error, before anything was done"));
            }
            _ => {}
        }
        self.fetch(run, errand, pull, progress, &chance).await?;
        if matches!(fate, Fate::AnswerLost | Fate::FailsAfter) { Err(lost()) } else { Ok(()) }
    }

    /// Reads something, if the engine answers.
    async fn reads<T>(
        &self,
        within: Duration,
        read: impl FnOnce(&super::State) -> T,
    ) -> Result<T, DockerError> {
        let asked = async {
            let run = self.reached().await?;
            let is_in_trouble = match self.state.lock().weather {
                Weather::Lossy | Weather::Failing => self.chance.percent(20),
                Weather::Slow | Weather::Fair => false,
            };
            if is_in_trouble {
                return Err(refused(500, "internal error"));
            }
            let state = self.state.lock();
            if state.run == run { Ok(read(&state)) } else { Err(lost()) }
        };
        tokio::time::timeout(within, asked).await.unwrap_or(Err(DockerError::Silent(within)))
    }

    pub(super) async fn info(&self) -> Result<InfoResponse, DockerError> {
        let info = |state: &super::State| InfoResponse {
            engine_version: "20.10.24".to_owned(),
            api_version: "1.41".to_owned(),
            host_name: self.name.clone(),
            engine_id: state.id.clone(),
            compatible: true,
            ..InfoResponse::default()
        };
        self.reads(READ_WITHIN, info).await
    }

    pub(super) async fn id(&self) -> Result<String, DockerError> {
        self.reads(READ_WITHIN, |state| state.id.clone()).await
    }

    pub(super) async fn run(&self) -> Result<String, DockerError> {
        self.reads(READ_WITHIN, super::State::incarnation).await
    }

    pub(super) async fn inspect(&self, name: &str) -> Result<Option<ContainerFacts>, DockerError> {
        let facts = |state: &super::State| Some(state.containers.get(&state.id_of(name)?)?.facts.clone());
        self.reads(READ_WITHIN, facts).await
    }

    pub(super) async fn inspect_image(&self, name: &str) -> Result<Option<ImageFacts>, DockerError> {
        self.reads(READ_WITHIN, |state| state.image(name).cloned()).await
    }

    pub(super) async fn asks_registry(&self, pull: &Pull) -> Result<String, DockerError> {
        self.reads(READ_WITHIN, |_| ()).await?;
        self.registry_digest(pull).ok_or_else(|| refused(404, "manifest unknown"))
    }

    pub(super) async fn resolve(&self, kind: TargetKind, reference: &str) -> Result<Target, DockerError> {
        let missing = || DockerError::NoSuchTarget(format!("`{reference}` does not exist"));
        if kind == TargetKind::Image {
            let image = self.inspect_image(reference).await?.ok_or_else(missing)?;
            return Ok(Target {
                kind: kind.into(),
                id: image.id,
                name: reference.to_owned(),
                repo_digest: image.digests.first().cloned().unwrap_or_default(),
                ..Target::default()
            });
        }
        let facts = self.inspect(reference).await?.ok_or_else(missing)?;
        Ok(Target {
            kind: kind.into(),
            id: facts.id,
            name: facts.name,
            image: facts.image,
            state: facts.state,
            ..Target::default()
        })
    }

    pub(super) async fn until_changed(&self, seen: u64) -> u64 {
        let mut changes = self.changes.subscribe();
        let now = changes.wait_for(|count| *count != seen).await.map(|count| *count);
        now.unwrap_or(seen)
    }
}

const READ_WITHIN: Duration = Duration::from_secs(30);
