//! The call itself: made once, and what Docker's answer to it means.

use std::time::Duration;

use gantry_api::agent_v1::{Layer, Outcome, PullProgress, SubmitRequest};
use tokio::time::Instant;
use uuid::Uuid;

use super::action::Action;
use super::evidence::{Verdict, is_already_so, weigh};
use super::look::look;
use super::report::Ending;
use super::settle::Settled;
use super::{Inner, Live};
use crate::docker::{Answer, Call, DockerError, LayerUpdate, Pull};
use crate::journal::{Phase, PreImage};

const MOST_LAYERS: usize = 200;
const MOST_TRIES: u32 = 3;
const CALL_WITHIN: Duration = Duration::from_secs(600);
const PULL_WITHIN: Duration = Duration::from_secs(3600);

/// What became of a call.
pub(super) enum Asked {
    /// Docker's answer says how it ended.
    Ended(Box<Ending>),
    /// It may or may not have been done.
    Unanswered(DockerError),
}

/// One operation under way.
pub(super) struct Run<'a> {
    pub(super) uid: Uuid,
    pub(super) action: &'a Action,
    pub(super) before: &'a PreImage,
    pub(super) live: &'a Live,
    pub(super) limit: Instant,
    /// How often Docker was asked by this process.
    pub(super) tries: u32,
    /// Somebody may have asked Docker before: a process of ours that died, or an earlier try.
    pub(super) is_repeat: bool,
}

impl Inner {
    /// From `Started` to a result.
    pub(super) async fn perform(
        &self,
        uid: Uuid,
        action: &Action,
        request: &SubmitRequest,
        before: &PreImage,
        live: &Live,
    ) {
        let mut run = Run {
            uid,
            action,
            before,
            live,
            limit: self.limit(action, request, before),
            tries: 0,
            is_repeat: false,
        };
        let ending = if self.readiness.is_ready() {
            let asked = self.ask(&mut run).await;
            self.follow(&mut run, asked).await
        } else {
            Ending::new(Outcome::DockerError, "the session ended before Docker was asked; nothing was done")
                .retryable()
        };
        self.finish(&run, ending).await;
    }

    /// From a `Started` that another process of ours recorded, to a result.
    pub(super) async fn take_up_started(
        &self,
        uid: Uuid,
        action: &Action,
        request: &SubmitRequest,
        before: &PreImage,
        live: &Live,
    ) {
        let limit = self.limit(action, request, before);
        let mut run = Run { uid, action, before, live, limit, tries: 0, is_repeat: true };
        let asked = Asked::Unanswered(DockerError::Lost("the agent was restarted".to_owned()));
        let ending = self.follow(&mut run, asked).await;
        self.finish(&run, ending).await;
    }

    async fn follow(&self, run: &mut Run<'_>, mut asked: Asked) -> Ending {
        loop {
            let error = match asked {
                Asked::Ended(ending) => return *ending,
                Asked::Unanswered(error) => error,
            };
            tracing::info!(uid = %run.uid, %error, "no answer from Docker: looking for evidence");
            match self.settle(run, &error).await {
                Settled::Ended(ending) => return *ending,
                Settled::Again => {
                    run.is_repeat = true;
                    asked = self.ask(run).await;
                }
            }
        }
    }

    async fn finish(&self, run: &Run<'_>, mut ending: Ending) {
        if ending.after.is_none() {
            // Without it the report merely lacks the target's last state.
            ending.after = look(self.engine.as_ref(), run.action)
                .await
                .ok()
                .and_then(|look| look.sight.target(run.action));
        }
        if matches!(run.action, Action::Call(Call::RemoveContainer { .. }))
            && ending.outcome == Outcome::Succeeded
        {
            ending.message.push_str(&self.left_behind(run.before).await);
        }
        if matches!(run.action, Action::Pull(_)) {
            ending.pull = self.live.lock().get(&run.uid).and_then(|live| live.progress.clone());
        }
        self.conclude(run.uid, Phase::Started, ending).await;
    }

    /// What a removed container's anonymous volumes give to say.
    async fn left_behind(&self, before: &PreImage) -> String {
        let volumes = before.container.as_ref().map(|container| container.anonymous_volumes.as_slice());
        let volumes = volumes.filter(|volumes| !volumes.is_empty());
        let Some(volumes) = volumes else { return String::new() };
        match self.engine.volumes(volumes).await {
            Ok(left) if left.is_empty() => String::new(),
            Ok(left) => format!(
                "; anonymous volumes are left behind (parameters.removeVolumes takes them along): {}",
                left.join(", ")
            ),
            Err(error) => format!("; whether its anonymous volumes are left behind is not known: {error}"),
        }
    }

    /// When to give up. What Docker cannot be made to stop is given the time it takes by its own rules.
    fn limit(&self, action: &Action, request: &SubmitRequest, before: &PreImage) -> Instant {
        let asked = Duration::from_millis(request.run_within_ms);
        let within = match action {
            Action::Pull(_) if asked.is_zero() => PULL_WITHIN,
            Action::Pull(_) => asked,
            Action::Call(_) => {
                let asked = if asked.is_zero() { CALL_WITHIN } else { asked };
                let patience = patience(action, before);
                if patience.is_zero() { asked } else { asked.max(patience + self.pace.grace) }
            }
        };
        Instant::now() + within
    }

    async fn ask(&self, run: &mut Run<'_>) -> Asked {
        run.tries += 1;
        match run.action {
            Action::Call(call) => {
                let within = run.limit.saturating_duration_since(Instant::now());
                match self.engine.call(call, within).await {
                    Ok(answer) => ended(answered(run, answer)),
                    Err(error) => self.failed(run, call, error).await,
                }
            }
            Action::Pull(pull) => self.pull(run, pull).await,
        }
    }

    /// What an error means, if Docker gave one; a look tells apart what Docker's words do not.
    async fn failed(&self, run: &Run<'_>, call: &Call, error: DockerError) -> Asked {
        let (status, message) = match error {
            error if error.is_before_send() && !run.is_repeat => {
                let ending = Ending::new(Outcome::DockerError, "Docker could not be asked; nothing was done");
                return ended(ending.because(super::Refusal::from(error).message).retryable());
            }
            DockerError::Refused { status, message } => (status, message),
            error => return Asked::Unanswered(error),
        };
        let refused =
            |outcome, text: &str| Ending::new(outcome, text).because(&*message).status(u32::from(status));
        let is_being_removed = status == 409
            && matches!(call, Call::RemoveContainer { .. })
            && message.contains("already in progress");
        if status >= 500 || is_being_removed {
            return Asked::Unanswered(DockerError::Refused { status, message });
        }
        let Ok(looked) = look(self.engine.as_ref(), run.action).await else {
            return ended(refused(Outcome::DockerError, "Docker refused"));
        };
        let sight = looked.since(run.before);
        let ending = if run.is_repeat && matches!(weigh(run.action, run.before, &sight), Verdict::Done(_)) {
            refused(Outcome::Succeeded, "done, though Docker's first answer was lost")
        } else if status == 404 && sight.is_gone(run.action) {
            refused(Outcome::TargetNotFound, "the target was already removed")
        } else if status == 409 && is_already_so(run.action, &sight) {
            refused(Outcome::AlreadyInState, "it was so already; nothing was done")
        } else {
            refused(Outcome::DockerError, "Docker refused")
        };
        ended(ending)
    }

    async fn pull(&self, run: &mut Run<'_>, pull: &Pull) -> Asked {
        let layers = parking_lot::Mutex::new(Layers::default());
        let mut update = |news: LayerUpdate| layers.lock().take(news);
        let answer = {
            let pulling = self.engine.pull(pull, &mut update);
            tokio::pin!(pulling);
            loop {
                tokio::select! {
                    answer = &mut pulling => break Some(answer),
                    () = run.live.withdrawn.cancelled() => break None,
                    () = tokio::time::sleep_until(run.limit) => break None,
                    () = tokio::time::sleep(self.pace.progress) => self.show(run.uid, &layers),
                }
            }
        };
        self.show(run.uid, &layers);
        match answer {
            Some(Ok(())) => ended(Ending::new(Outcome::Succeeded, run.action.done())),
            Some(Err(error)) => pull_failed(run, pull, error),
            None => ended(self.stopped(run).await),
        }
    }

    /// How a pull ended that was stopped: it may have been done by then.
    pub(super) async fn stopped(&self, run: &Run<'_>) -> Ending {
        if let Ok(looked) = look(self.engine.as_ref(), run.action).await
            && let Verdict::Done(why) = weigh(run.action, run.before, &looked.since(run.before))
        {
            return Ending::new(Outcome::Succeeded, format!("it was done before it could be stopped: {why}"));
        }
        if run.live.withdrawn.is_cancelled() {
            Ending::new(Outcome::Cancelled, "the pull was stopped on request")
        } else {
            Ending::new(Outcome::DeadlineExceeded, "the pull took too long and was stopped")
        }
    }

    /// Tells watchers how far a pull is, if there is news.
    fn show(&self, uid: Uuid, layers: &parking_lot::Mutex<Layers>) {
        let progress = {
            let mut layers = layers.lock();
            if !std::mem::take(&mut layers.has_news) {
                return;
            }
            PullProgress { layers: layers.layers.clone() }
        };
        if let Some(live) = self.live.lock().get_mut(&uid) {
            live.progress = Some(progress);
        }
        self.changed(uid);
    }
}

fn ended(ending: Ending) -> Asked {
    Asked::Ended(Box::new(ending))
}

/// Seconds Docker itself waits before it kills, for actions that stop something.
pub(super) fn patience(action: &Action, before: &PreImage) -> Duration {
    let own = before.container.as_ref().and_then(|container| container.stop_timeout);
    Duration::from_secs(u64::from(action.patience_seconds(own)))
}

fn answered(run: &Run<'_>, answer: Answer) -> Ending {
    match answer {
        Answer::NotModified if run.is_repeat => {
            Ending::new(Outcome::Succeeded, "done, though Docker's first answer was lost").status(304)
        }
        Answer::NotModified => {
            Ending::new(Outcome::AlreadyInState, "it was so already; nothing was done").status(304)
        }
        Answer::Done => Ending::new(Outcome::Succeeded, run.action.done()),
    }
}

fn pull_failed(run: &Run<'_>, pull: &Pull, error: DockerError) -> Asked {
    let status = error.status();
    let text = match error {
        DockerError::Refused { message, .. } | DockerError::PullFailed(message) => message,
        error if error.is_before_send() && !run.is_repeat => {
            let ending = Ending::new(Outcome::DockerError, "Docker could not be asked; nothing was done");
            return ended(ending.because(super::Refusal::from(error).message).retryable());
        }
        error if run.tries < MOST_TRIES => return Asked::Unanswered(error),
        error => {
            let ending = Ending::new(Outcome::DockerError, format!("pulling {} was cut off", pull.reference));
            return ended(ending.because(error.to_string()).retryable());
        }
    };
    let lower = text.to_ascii_lowercase();
    let says = |words: &[&str]| words.iter().any(|word| lower.contains(word));
    let message = format!("{} cannot be pulled", pull.reference);
    let is_unauthorized = matches!(status, 401 | 403)
        || says(&["unauthorized", "access denied", "denied:", "authentication required", "no basic auth"]);
    let is_final = (400..500).contains(&status)
        || says(&[
            "not found",
            "manifest unknown",
            "no matching manifest",
            "invalid reference",
            "no space left",
        ]);
    let ending = match (is_unauthorized, is_final) {
        (true, _) => Ending::new(Outcome::PullUnauthorized, message),
        (false, true) => Ending::new(Outcome::DockerError, message),
        // An image that was not fetched has no effect.
        (false, false) => Ending::new(Outcome::DockerError, message).retryable(),
    };
    ended(ending.because(text).status(status))
}

/// Layers in the order Docker first named them.
#[derive(Default)]
struct Layers {
    layers: Vec<Layer>,
    has_news: bool,
}

impl Layers {
    fn take(&mut self, news: LayerUpdate) {
        if news.status.starts_with("Pulling from") {
            return;
        }
        let at = self.layers.iter().position(|layer| layer.id == news.id).unwrap_or(self.layers.len());
        if at == self.layers.len() && at < MOST_LAYERS {
            self.layers.push(Layer { id: news.id, ..Layer::default() });
        }
        let Some(layer) = self.layers.get_mut(at) else { return };
        layer.status = news.status;
        if let Some((current, total)) = news.bytes {
            layer.current_bytes = current;
            layer.total_bytes = total.max(layer.total_bytes);
        }
        self.has_news = true;
    }
}
