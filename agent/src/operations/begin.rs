//! From `Accepted` to `Started`, or to an end without Docker ever being asked to change anything.

use std::time::Duration;

use gantry_api::agent_v1::{OperationReport, Outcome, SubmitRequest};
use tokio::sync::SemaphorePermit;
use tracing::Instrument as _;
use uuid::Uuid;

use super::action::Action;
use super::evidence::is_already_so;
use super::look::{Look, look};
use super::report::Ending;
use super::{Inner, Live};
use crate::docker::DockerError;
use crate::journal::{Body, Finished, Phase, PreImage, Started};
use crate::telemetry::traces;

/// Why an operation is not started now.
enum Wait {
    /// Its state is final.
    Over,
    /// It may start now.
    Go,
}

impl Inner {
    /// Runs one operation to its end, from wherever the journal says it is.
    pub(super) async fn run(&self, uid: Uuid) {
        let Some(live) = self.live(uid) else { return };
        let Some((request, phase, started)) = self.journal.read(|ledger| {
            let entry = ledger.entry(&uid)?;
            Some((entry.request.clone(), entry.phase, entry.started.clone()))
        }) else {
            return;
        };
        let Ok(action) = Action::of(&request) else { return };
        let span = tracing::info_span!(
            "operation.run",
            object.kind = "Operation",
            operation.uid = request.uid,
            operation.attempt = request.attempt
        );
        traces::continue_from(&span, &request.traceparent);
        self.run_from(uid, phase, started, &action, &request, &live).instrument(span).await;
    }

    async fn run_from(
        &self,
        uid: Uuid,
        phase: Phase,
        started: Option<Started>,
        action: &Action,
        request: &SubmitRequest,
        live: &Live,
    ) {
        match phase {
            Phase::Accepted => {
                if let Some((before, _slot)) = self.begin(uid, action, request, live).await {
                    self.perform(uid, action, request, &before, live).await;
                }
            }
            Phase::Started => {
                let before = started.and_then(|started| started.before).unwrap_or_default();
                let Ok(_slot) = self.slots.acquire().await else { return };
                self.take_up_started(uid, action, request, &before, live).await;
            }
            Phase::Withdrawn | Phase::Finished => {}
        }
    }

    /// Waits until it may start, looks, and records that Docker is about to be called. `None` if it ended instead.
    async fn begin(
        &self,
        uid: Uuid,
        action: &Action,
        request: &SubmitRequest,
        live: &Live,
    ) -> Option<(PreImage, SemaphorePermit<'_>)> {
        let mut pause = self.pace.poll;
        loop {
            match self.until_ready(uid, live).await {
                Wait::Over => return None,
                Wait::Go => {}
            }
            // Never closed, so this cannot fail; without a permit nothing starts.
            let slot = self.slots.acquire().await.ok()?;
            let looked = look(self.engine.as_ref(), action).await;
            let ending = match looked {
                Ok(looked) => match self.decide(action, request, looked).await {
                    Ok(before) => {
                        if self.record_started(uid, &before).await {
                            return Some((before, slot));
                        }
                        drop(slot);
                        self.rest(self.pace.disk, live).await;
                        continue;
                    }
                    Err(ending) => *ending,
                },
                Err(DockerError::Refused { status, message }) if status < 500 => {
                    Ending::new(Outcome::DockerError, "Docker refused to show the target")
                        .because(message)
                        .status(u32::from(status))
                }
                Err(error @ DockerError::InvalidReference(_)) => {
                    Ending::new(Outcome::DockerError, "the target cannot be named").because(error.to_string())
                }
                Err(error) => {
                    tracing::debug!(%uid, %error, "operation waits for the engine");
                    drop(slot);
                    self.rest(pause, live).await;
                    pause = (pause * 2).min(self.pace.poll_at_most);
                    continue;
                }
            };
            drop(slot);
            self.conclude(uid, Phase::Accepted, ending).await;
            return None;
        }
    }

    /// Returns when the session is ready and the operation still may start.
    async fn until_ready(&self, uid: Uuid, live: &Live) -> Wait {
        loop {
            if live.withdrawn.is_cancelled() {
                return Wait::Over;
            }
            if self.is_expired(uid) {
                let ending = Ending::new(Outcome::StartDeadlineExceeded, "it was not started in time");
                self.conclude(uid, Phase::Accepted, ending).await;
                return Wait::Over;
            }
            if self.readiness.is_ready() {
                return Wait::Go;
            }
            tokio::select! {
                () = self.readiness.ready() => {}
                () = live.withdrawn.cancelled() => {}
                () = self.until_expired(uid) => {}
            }
        }
    }

    /// The pre-image of a call that is to be made, or the end of an operation that needs none.
    async fn decide(
        &self,
        action: &Action,
        request: &SubmitRequest,
        looked: Look,
    ) -> Result<PreImage, Box<Ending>> {
        let sight = &looked.sight;
        let target = sight.target(action);
        let end = |outcome, message: String| {
            let mut ending = Ending::new(outcome, message);
            ending.before.clone_from(&target);
            ending.after.clone_from(&target);
            Err(Box::new(ending))
        };
        if sight.is_gone(action) {
            let id = request.target.as_ref().map_or("", |target| target.id.as_str());
            let name = request.target.as_ref().map_or("", |target| target.name.as_str());
            return end(
                Outcome::TargetNotFound,
                format!("`{name}` ({id}) does not exist: it was already removed"),
            );
        }
        if let (Some(container), Some(asked)) = (&sight.container, &request.target) {
            if container.id != asked.id {
                return end(
                    Outcome::TargetChanged,
                    format!("`{}` is {} and not {}", asked.name, container.id, asked.id),
                );
            }
            if !request.required_state.is_empty() && container.state != request.required_state {
                return end(
                    Outcome::TargetChanged,
                    format!("`{}` is {}, not {}", container.name, container.state, request.required_state),
                );
            }
        }
        if is_already_so(action, sight) {
            return end(Outcome::AlreadyInState, "it was so already; nothing was done".to_owned());
        }
        let digest = match action {
            Action::Pull(pull) => match self.engine.registry_digest(&pull.reference).await {
                Ok(digest) => digest,
                Err(error) => {
                    tracing::debug!(%error, "registry did not tell a digest beforehand");
                    String::new()
                }
            },
            Action::Call(_) => String::new(),
        };
        Ok(looked.pre_image(action, digest))
    }

    /// Records that Docker is about to be called, if that may still be. False if the caller has to think again.
    async fn record_started(&self, uid: Uuid, before: &PreImage) -> bool {
        let _stripe = self.stripe(uid).await;
        let is_waiting = self
            .journal
            .read(|ledger| ledger.entry(&uid).is_some_and(|entry| entry.phase == Phase::Accepted));
        if !is_waiting || self.is_expired(uid) || !self.readiness.is_ready() {
            return false;
        }
        let started = Started {
            uid: uid.as_bytes().to_vec(),
            before: Some(before.clone()),
            at_ms: self.clock.now().as_millisecond(),
        };
        // The journal logs why.
        let is_recorded = self.journal.append(vec![Body::Started(started)]).await.is_ok();
        if is_recorded {
            self.changed(uid);
        }
        is_recorded
    }

    /// Records a result, however long the disk takes to accept it. Nothing if the operation is in another phase by now.
    pub(super) async fn conclude(&self, uid: Uuid, from: Phase, ending: Ending) {
        let now_ms = self.clock.now().as_millisecond();
        loop {
            let stripe = self.stripe(uid).await;
            let report: Option<OperationReport> = self.journal.read(|ledger| {
                let entry = ledger.entry(&uid).filter(|entry| entry.phase == from)?;
                Some(ending.clone().record(uid, entry, now_ms))
            });
            let Some(report) = report else { return };
            let finished = Body::Finished(Finished { report: Some(report) });
            if self.journal.append(vec![finished]).await.is_ok() {
                self.changed(uid);
                return;
            }
            drop(stripe);
            tokio::time::sleep(self.pace.disk).await;
        }
    }

    fn start_by(&self, uid: Uuid) -> Option<Duration> {
        self.live.lock().get(&uid).and_then(|live| live.start_by)
    }

    fn is_expired(&self, uid: Uuid) -> bool {
        self.start_by(uid).is_some_and(|by| self.clock.since_boot() >= by)
    }

    async fn until_expired(&self, uid: Uuid) {
        match self.start_by(uid) {
            Some(by) => {
                // A machine that slept wakes with this timer late, never early; and the deadline may have been moved.
                let left = by.saturating_sub(self.clock.since_boot());
                tokio::time::sleep(left.clamp(Duration::from_millis(1), Duration::from_secs(5))).await;
            }
            None => tokio::time::sleep(Duration::from_secs(5)).await,
        }
    }

    /// A pause that a withdrawal ends.
    pub(super) async fn rest(&self, pause: Duration, live: &Live) {
        drop(tokio::time::timeout(pause, live.withdrawn.cancelled()).await);
    }
}
