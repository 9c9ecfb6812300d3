//! Containers: what they are, and what a call does to one.

use std::sync::Arc;
use std::time::Duration;

use gantry_agent::docker::{Answer, Call, ContainerFacts, DockerError};

use super::{BRIEF, Errand, FakeEngine, lost, refused, target};
use crate::simulation::chance::Chance;

/// What a container does by itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Habits {
    /// It ends so long after it was started.
    pub runs_for: Option<Duration>,
    /// SIGTERM does not end it.
    pub ignores_term: bool,
    /// Docker removes it when it ends.
    pub auto_remove: bool,
}

/// A container on the engine.
#[derive(Clone, Debug)]
pub struct Container {
    pub(super) facts: ContainerFacts,
    pub(super) habits: Habits,
}

impl Container {
    pub(super) fn new(id: String, name: &str, habits: Habits) -> Self {
        let facts = ContainerFacts {
            id,
            name: name.to_owned(),
            image: "app:1".to_owned(),
            state: "created".to_owned(),
            started_at: "0001-01-01T00:00:00Z".to_owned(),
            finished_at: "0001-01-01T00:00:00Z".to_owned(),
            auto_remove: habits.auto_remove,
            ..ContainerFacts::default()
        };
        Self { facts, habits }
    }

    pub(super) fn starts(&mut self, now: Duration, tick: i64) {
        self.facts.running = true;
        self.facts.paused = false;
        "running".clone_into(&mut self.facts.state);
        self.facts.pid = 1_000 + tick;
        self.facts.started_at = format!("{:.3}s, the {tick}th", now.as_secs_f64());
    }

    pub(super) fn ends(&mut self, now: Duration, tick: i64) {
        if self.facts.running {
            self.facts.running = false;
            self.facts.paused = false;
            "exited".clone_into(&mut self.facts.state);
            self.facts.pid = 0;
            self.facts.finished_at = format!("{:.3}s, the {tick}th", now.as_secs_f64());
        }
    }
}

type Performed = Result<Answer, DockerError>;

impl FakeEngine {
    /// Looks at or changes a container; `lost` once this is another run of the engine.
    fn with<T>(
        &self,
        run: u64,
        id: &str,
        change: impl FnOnce(&mut Container, Duration, i64) -> Result<T, DockerError>,
    ) -> Result<T, DockerError> {
        let now = self.begun.elapsed();
        let mut state = self.state.lock();
        if state.run != run {
            return Err(lost());
        }
        let tick = state.tick();
        let container = state.containers.get_mut(id);
        let done =
            change(container.ok_or_else(|| refused(404, format!("No such container: {id}")))?, now, tick);
        drop(state);
        if done.is_ok() {
            self.changed();
        }
        done
    }

    /// A container that ended removes itself if it is such a one.
    fn after_end(&self, id: &str) {
        let mut state = self.state.lock();
        let removes_itself =
            |container: &mut Container| container.habits.auto_remove && !container.facts.running;
        if state.containers.get_mut(id).is_some_and(removes_itself) {
            state.containers.remove(id);
            self.checker.removed_itself(id);
        }
        drop(state);
        self.changed();
    }

    pub(super) async fn perform_on_container(
        self: Arc<Self>,
        run: u64,
        errand: Errand,
        call: Call,
        chance: &Chance,
    ) -> Performed {
        let id = target(&call).to_owned();
        match call {
            Call::Start { .. } => self.start(run, errand, &id),
            Call::Stop { timeout_seconds, .. } => {
                self.stop(run, errand, &id, (timeout_seconds, true), chance).await
            }
            Call::Restart { timeout_seconds, .. } => {
                match self.stop(run, errand, &id, (timeout_seconds, false), chance).await {
                    Ok(_) => {}
                    Err(error) => return Err(error),
                }
                tokio::time::sleep(BRIEF).await;
                self.with(run, &id, |container, now, tick| {
                    container.starts(now, tick);
                    self.checker.has_effect(errand, &id, "restart");
                    Ok(Answer::Done)
                })
                .inspect(|_| self.ends_later(run, &id))
            }
            Call::Pause { .. } => self.with(run, &id, |container, _, _| {
                if !container.facts.running {
                    return Err(refused(409, format!("Container {id} is not running")));
                }
                if container.facts.paused {
                    return Err(refused(409, format!("Container {id} is already paused")));
                }
                container.facts.paused = true;
                "paused".clone_into(&mut container.facts.state);
                self.checker.has_effect(errand, &id, "pause");
                Ok(Answer::Done)
            }),
            Call::Unpause { .. } => self.with(run, &id, |container, _, _| {
                if !container.facts.paused {
                    return Err(refused(409, format!("Container {id} is not paused")));
                }
                container.facts.paused = false;
                "running".clone_into(&mut container.facts.state);
                self.checker.has_effect(errand, &id, "unpause");
                Ok(Answer::Done)
            }),
            Call::Kill { signal, .. } => self.signal(run, errand, &id, &signal, chance).await,
            Call::RemoveContainer { force, .. } => self.remove(run, errand, &id, force, chance).await,
            Call::Rename { new_name, .. } => self.rename(run, errand, &id, &new_name),
            Call::RemoveImage { .. } | Call::Tag { .. } => Err(refused(400, "this is about an image")),
        }
    }

    fn start(self: &Arc<Self>, run: u64, errand: Errand, id: &str) -> Performed {
        let started = self.with(run, id, |container, now, tick| {
            if container.facts.paused {
                return Err(refused(409, "cannot start a paused container, try unpause instead"));
            }
            if container.facts.running {
                return Ok(Answer::NotModified);
            }
            container.starts(now, tick);
            self.checker.has_effect(errand, id, "start");
            Ok(Answer::Done)
        })?;
        if started == Answer::Done {
            self.ends_later(run, id);
        }
        Ok(started)
    }

    /// Some containers end by themselves.
    fn ends_later(self: &Arc<Self>, run: u64, id: &str) {
        let facts = self.state.lock().containers.get(id).cloned();
        let Some((after, started)) =
            facts.and_then(|container| Some((container.habits.runs_for?, container.facts.started_at)))
        else {
            return;
        };
        let (engine, id) = (self.clone(), id.to_owned());
        tokio::spawn(async move {
            tokio::time::sleep(after).await;
            let ended = engine.with(run, &id, |container, now, tick| {
                if container.facts.started_at == started {
                    container.ends(now, tick);
                }
                Ok(())
            });
            if ended.is_ok() {
                engine.after_end(&id);
            }
        });
    }

    async fn stop(
        &self,
        run: u64,
        errand: Errand,
        id: &str,
        (timeout_seconds, is_all): (Option<u32>, bool),
        chance: &Chance,
    ) -> Performed {
        let (is_running, ignores_term) = self.with(run, id, |container, _, _| {
            Ok((container.facts.running, container.habits.ignores_term || container.facts.paused))
        })?;
        if !is_running {
            return Ok(Answer::NotModified);
        }
        let timeout = Duration::from_secs(timeout_seconds.unwrap_or(10).into());
        let takes = if ignores_term { timeout } else { timeout.min(chance.millis(5, 1_500)) };
        tokio::time::sleep(takes.max(BRIEF)).await;
        let ended = self.with(run, id, |container, now, tick| {
            let ends = container.facts.running;
            container.ends(now, tick);
            if ends && is_all {
                self.checker.has_effect(errand, id, "stop");
            }
            Ok(Answer::Done)
        });
        if is_all && ended.is_ok() {
            self.after_end(id);
        }
        ended
    }

    async fn signal(&self, run: u64, errand: Errand, id: &str, signal: &str, chance: &Chance) -> Performed {
        let ends = self.with(run, id, |container, _, _| {
            if !container.facts.running {
                return Err(refused(409, format!("Container {id} is not running")));
            }
            self.checker.has_effect(errand, id, signal);
            let is_deaf = container.habits.ignores_term || container.facts.paused;
            Ok(signal == "SIGKILL" || (signal == "SIGTERM" && !is_deaf))
        })?;
        if ends {
            tokio::time::sleep(if signal == "SIGKILL" { BRIEF } else { chance.millis(20, 800) }).await;
            self.with(run, id, |container, now, tick| {
                container.ends(now, tick);
                Ok(())
            })
            .ok();
            self.after_end(id);
        }
        Ok(Answer::Done)
    }

    async fn remove(&self, run: u64, errand: Errand, id: &str, force: bool, chance: &Chance) -> Performed {
        self.with(run, id, |container, now, tick| {
            if container.facts.state == "removing" {
                return Err(refused(409, format!("removal of container {id} is already in progress")));
            }
            if container.facts.running && !force {
                return Err(refused(409, format!("cannot remove a running container {id}")));
            }
            container.ends(now, tick);
            "removing".clone_into(&mut container.facts.state);
            self.checker.has_effect(errand, id, "remove");
            Ok(())
        })?;
        tokio::time::sleep(chance.millis(5, 900)).await;
        let mut state = self.state.lock();
        // A removal that was cut off by the engine's end is taken up by its next start.
        state.containers.remove(id);
        let is_same_run = state.run == run;
        drop(state);
        self.changed();
        if is_same_run { Ok(Answer::Done) } else { Err(lost()) }
    }

    fn rename(&self, run: u64, errand: Errand, id: &str, new_name: &str) -> Performed {
        let taken = self.state.lock().id_of(new_name).is_some_and(|other| other != id);
        self.with(run, id, |container, _, _| {
            if taken {
                return Err(refused(409, format!("the container name {new_name} is already in use")));
            }
            if container.facts.name == new_name {
                return Err(refused(400, "Renaming a container with the same name as its current name"));
            }
            new_name.clone_into(&mut container.facts.name);
            self.checker.has_effect(errand, id, "rename");
            Ok(Answer::Done)
        })
    }
}
