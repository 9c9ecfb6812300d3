//! From `Accepted` to `Started`, or to an end without Docker ever being asked to change anything.

use std::time::Duration;

use gantry_api::agent_v1::{OperationReport, Outcome};
use tokio::sync::SemaphorePermit;
use tracing::Instrument as _;
use uuid::Uuid;

use super::Inner;
use super::action::Action;
use super::evidence::is_already_so;
use super::live::Live;
use super::look::{Look, look};
use super::report::Ending;
use super::submit::policy_word;
use crate::docker::DockerError;
use crate::journal::{Body, Entry, Finished, Phase, PreImage, Spent, Started, is_other_engine};
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
    pub(super) async fn run(&self, uid: Uuid, live: &Live) {
        let Some(entry) = self.journal.read(|ledger| ledger.entry(&uid).cloned()) else { return };
        let request = &entry.request;
        let Ok(action) = Action::of(request) else { return };
        let span = tracing::info_span!(
            "operation.run",
            object.kind = "Operation",
            operation.uid = request.uid,
            operation.attempt = request.attempt
        );
        traces::continue_from(&span, &request.traceparent);
        self.run_from(uid, &entry, &action, live).instrument(span).await;
    }

    async fn run_from(&self, uid: Uuid, entry: &Entry, action: &Action, live: &Live) {
        match entry.phase {
            Phase::Accepted => {
                if let Some((before, _slot)) = self.begin(uid, entry, action, live).await {
                    self.perform(uid, action, &entry.request, &before, live).await;
                }
            }
            Phase::Started => {
                let Ok(_slot) = self.slots.acquire().await else { return };
                let started = entry.started.clone().unwrap_or_default();
                self.take_up_started(uid, action, &entry.request, started, live).await;
            }
            Phase::Withdrawn | Phase::Finished => {}
        }
    }

    /// Waits until it may start, looks, and records that Docker is about to be called. `None` if it ended instead.
    async fn begin(
        &self,
        uid: Uuid,
        entry: &Entry,
        action: &Action,
        live: &Live,
    ) -> Option<(PreImage, SemaphorePermit<'_>)> {
        let mut pause = self.pace.poll;
        loop {
            match self.until_ready(uid, live).await {
                Wait::Over => return None,
                Wait::Go => {}
            }
            if !action.is_allowed_by(self.policy) {
                let policy = policy_word(self.policy);
                let message =
                    format!("the policy of this host ({policy}) does not allow it; nothing was done");
                self.conclude(uid, Phase::Accepted, Ending::new(Outcome::PolicyDenied, message)).await;
                return None;
            }
            let decided = async {
                // Never closed, so this cannot fail; without a permit nothing starts.
                let slot = self.slots.acquire().await.ok()?;
                let decided = match look(self.engine.as_ref(), action).await {
                    Ok(looked) => Ok(self.decide(action, entry, looked, live).await),
                    Err(error) => Err(error),
                };
                Some((slot, decided))
            };
            let (slot, decided) = self.closing.run_until_cancelled(decided).await.flatten()?;
            let ending = match decided {
                Ok(Ok(before)) => {
                    if self.record_started(uid, &before).await {
                        return Some((before, slot));
                    }
                    drop(slot);
                    self.rest(self.pace.disk, live).await;
                    continue;
                }
                Ok(Err(ending)) => *ending,
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
            if live.withdrawn.is_cancelled() || self.closing.is_cancelled() {
                return Wait::Over;
            }
            if self.is_expired(uid) {
                let ending = Ending::new(Outcome::StartDeadlineExceeded, "it was not started in time");
                self.conclude(uid, Phase::Accepted, ending).await;
                return Wait::Over;
            }
            if live.permitted.is_cancelled() && self.readiness.is_ready() {
                return Wait::Go;
            }
            let may_start = async {
                live.permitted.cancelled().await;
                self.readiness.ready().await;
            };
            tokio::select! {
                () = may_start => {}
                () = self.closing.cancelled() => {}
                () = live.withdrawn.cancelled() => {}
                () = self.until_expired(uid) => {}
            }
        }
    }

    /// The pre-image of a call that is to be made, or the end of an operation that needs none.
    async fn decide(
        &self,
        action: &Action,
        entry: &Entry,
        looked: Look,
        live: &Live,
    ) -> Result<PreImage, Box<Ending>> {
        let request = &entry.request;
        let sight = &looked.sight;
        let target = sight.target(action);
        let end = |outcome, message: String| {
            let mut ending = Ending::new(outcome, message);
            ending.before.clone_from(&target);
            ending.after.clone_from(&target);
            Err(Box::new(ending))
        };
        if is_other_engine(&entry.engine_id, &looked.engine_id) {
            return end(
                Outcome::TargetChanged,
                format!(
                    "it was accepted for another Docker Engine: for {}, and this is {}",
                    entry.engine_id, looked.engine_id
                ),
            );
        }
        if sight.is_gone(action) {
            let id = request.target.as_ref().map_or("", |target| target.id.as_str());
            let name = request.target.as_ref().map_or("", |target| target.name.as_str());
            return end(
                Outcome::TargetNotFound,
                format!("`{name}` ({id}) does not exist: it was already removed"),
            );
        }
        if let (Some(now), Some(asked)) = (sight.other_image(action), &request.target) {
            return end(Outcome::TargetChanged, format!("`{}` is {now} and not {}", asked.name, asked.id));
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
            Action::Pull(pull) => {
                let credentials = live.credentials();
                match self.engine.registry_digest(&pull.reference, credentials.as_ref()).await {
                    Ok(digest) => digest,
                    Err(error) => {
                        tracing::debug!(%error, "registry did not tell a digest beforehand");
                        String::new()
                    }
                }
            }
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
        if !is_waiting || self.is_expired(uid) || !self.may_start() {
            return false;
        }
        let started = Started {
            uid: uid.as_bytes().to_vec(),
            before: Some(before.clone()),
            at_ms: self.clock.now().as_millisecond(),
            spent: Some(Spent::nothing(&self.clock.boot(), self.clock.since_boot())),
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

    /// A pause that a withdrawal ends, and the agent's stop.
    pub(super) async fn rest(&self, pause: Duration, live: &Live) {
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            () = live.withdrawn.cancelled() => {}
            () = self.closing.cancelled() => {}
        }
    }
}
