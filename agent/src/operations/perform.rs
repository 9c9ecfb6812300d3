//! The call itself: made once, and what Docker's answer to it means.

use std::time::Duration;

use gantry_api::agent_v1::{Layer, Outcome, PullProgress, SubmitRequest};
use tokio::time::{Instant, timeout};
use uuid::Uuid;

use super::Inner;
use super::action::Action;
use super::evidence::{Verdict, is_already_so, means_the_same, weigh};
use super::live::Live;
use super::look::look;
use super::report::Ending;
use super::settle::Settled;
use crate::docker::{Answer, Call, DockerError, ImageReference, LayerUpdate, Pull};
use crate::failpoint::reached;
use crate::journal::{Body, Phase, PreImage, Spent, Started};

const MOST_LAYERS: usize = 200;
const CALL_WITHIN: Duration = Duration::from_secs(600);
/// For the look at a target whose call was answered while the agent stops.
const LAST_LOOK: Duration = Duration::from_secs(1);
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
        let limit = self.limit(action, request, before, Duration::ZERO);
        let mut run = Run { uid, action, before, live, limit, tries: 0, is_repeat: false };
        let ending = if self.may_start() {
            let asked = self.ask(&mut run).await;
            self.follow(&mut run, asked).await
        } else {
            let message = "the session ended before Docker was asked; nothing was done";
            Some(Ending::new(Outcome::DockerError, message).retryable())
        };
        if let Some(ending) = ending {
            self.finish(&run, ending).await;
        }
    }

    /// From a `Started` that another process of ours recorded, to a result.
    pub(super) async fn take_up_started(
        &self,
        uid: Uuid,
        action: &Action,
        request: &SubmitRequest,
        started: Started,
        live: &Live,
    ) {
        let spent = self.spent(uid, &started).await;
        let before = &started.before.unwrap_or_default();
        let limit = self.limit(action, request, before, spent);
        let mut run = Run { uid, action, before, live, limit, tries: 0, is_repeat: true };
        let asked = Asked::Unanswered(DockerError::Lost("the agent was restarted".to_owned()));
        if let Some(ending) = self.follow(&mut run, asked).await {
            self.finish(&run, ending).await;
        }
    }

    /// How much of its time to run an operation has used up. After a start of the machine that is recorded anew.
    async fn spent(&self, uid: Uuid, started: &Started) -> Duration {
        let (boot, now) = (self.clock.boot(), self.clock.since_boot());
        let then = started.spent.clone().unwrap_or_else(|| Spent::nothing(&boot, now));
        let spent = then.at(&boot, now);
        if then.boot != boot {
            let _stripe = self.stripe(uid).await;
            let is_started = |phase| phase == Phase::Started;
            if self.journal.read(|ledger| ledger.entry(&uid).is_some_and(|entry| is_started(entry.phase))) {
                let news = Started { spent: Some(spent.clone()), ..started.clone() };
                // Where the disk does not take it, the next start of the machine gives back what this one counted.
                drop(self.journal.append(vec![Body::Started(news)]).await);
            }
        }
        Duration::from_millis(spent.spent_ms)
    }

    /// To a result; `None` if the agent stops first. The next start looks for evidence then.
    async fn follow(&self, run: &mut Run<'_>, mut asked: Asked) -> Option<Ending> {
        loop {
            let error = match asked {
                Asked::Ended(ending) => return Some(*ending),
                Asked::Unanswered(error) => error,
            };
            tracing::info!(uid = %run.uid, %error, "no answer from Docker: looking for evidence");
            match self.closing.run_until_cancelled(self.settle(run, &error)).await? {
                Settled::Ended(ending) => return Some(*ending),
                Settled::Again => {
                    run.is_repeat = true;
                    asked = self.ask(run).await;
                }
            }
        }
    }

    async fn finish(&self, run: &Run<'_>, mut ending: Ending) {
        if ending.after.is_none() {
            // Without it the report merely lacks the target's last state, and an agent that stops has little time.
            let within = if self.closing.is_cancelled() { LAST_LOOK } else { Duration::MAX };
            let looked = timeout(within, look(self.engine.as_ref(), run.action)).await.ok();
            ending.after = looked.and_then(Result::ok).and_then(|look| look.sight.target(run.action));
        }
        if matches!(run.action, Action::Call(Call::RemoveContainer { .. }))
            && ending.outcome == Outcome::Succeeded
            && !self.closing.is_cancelled()
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

    /// When to give up, of an operation that has used up this much of its time. What Docker cannot be made to stop is given
    /// the time it takes by its own rules.
    fn limit(&self, action: &Action, request: &SubmitRequest, before: &PreImage, spent: Duration) -> Instant {
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
        Instant::now() + within.saturating_sub(spent)
    }

    async fn ask(&self, run: &mut Run<'_>) -> Asked {
        run.tries += 1;
        match run.action {
            Action::Call(call) => {
                let within = run.limit.saturating_duration_since(Instant::now());
                reached("call", "before").await;
                let answer = self.engine.call(call, within).await;
                reached("call", "answered").await;
                match answer {
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
        let looked = match look(self.engine.as_ref(), run.action).await {
            Ok(looked) => looked,
            // It may be refused because the first call did it.
            Err(_) if run.is_repeat => return Asked::Unanswered(DockerError::Refused { status, message }),
            Err(_) => return ended(refused(Outcome::DockerError, "Docker refused")),
        };
        let sight = looked.since(run.before);
        let verdict = run.is_repeat.then(|| weigh(run.action, run.before, &sight));
        let ending = if let Some(Verdict::Done(_)) = verdict {
            refused(Outcome::Succeeded, "done, though Docker's first answer was lost")
        } else if let Some(Verdict::Unknowable(_) | Verdict::Open) = verdict {
            return Asked::Unanswered(DockerError::Refused { status, message });
        } else if status == 404 && sight.is_gone(run.action) {
            refused(Outcome::TargetNotFound, "the target was already removed")
        } else if status == 409 && is_already_so(run.action, &sight) {
            refused(Outcome::AlreadyInState, "it was so already; nothing was done")
        } else {
            refused(Outcome::DockerError, "Docker refused")
        };
        ended(ending)
    }

    /// The first time what the reference means in the registry; later what it meant the first time, which is then given the
    /// reference here.
    async fn pull(&self, run: &mut Run<'_>, pull: &Pull) -> Asked {
        let exact = pull.reference.at(&run.before.digest).filter(|_| run.is_repeat);
        let wanted = match &exact {
            Some(exact) => &Pull { reference: exact.clone(), platform: pull.platform.clone() },
            None => pull,
        };
        let layers = parking_lot::Mutex::new(Layers::default());
        let mut update = |news: LayerUpdate| layers.lock().take(news);
        let answer = {
            let credentials = run.live.credentials();
            let pulling = self.engine.pull(wanted, credentials.as_ref(), &mut update);
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
            Some(Ok(())) => match exact {
                Some(exact) => self.give_reference(run, pull, &exact).await,
                None => ended(Ending::new(Outcome::Succeeded, run.action.done())),
            },
            Some(Err(error)) => pull_failed(run, pull, error),
            None => ended(self.stopped(run).await),
        }
    }

    /// Gives an image that was pulled by its digest the reference that was asked for.
    async fn give_reference(&self, run: &Run<'_>, pull: &Pull, exact: &ImageReference) -> Asked {
        let image = match self.engine.image(&exact.to_string()).await {
            Ok(Some(image)) => image,
            Ok(None) => {
                return Asked::Unanswered(DockerError::Lost(format!("{exact} was pulled and is gone")));
            }
            Err(error) => return Asked::Unanswered(error),
        };
        let tag = Call::Tag { id: image.id, reference: pull.reference.clone() };
        let within = run.limit.saturating_duration_since(Instant::now());
        let answer = self.engine.call(&tag, within).await;
        let verdict = match look(self.engine.as_ref(), run.action).await {
            Ok(looked) => weigh(run.action, run.before, &looked.since(run.before)),
            Err(error) => return Asked::Unanswered(error),
        };
        match (verdict, answer) {
            (Verdict::Done(_), _) => ended(Ending::new(Outcome::Succeeded, run.action.done())),
            (_, Err(error)) => Asked::Unanswered(error),
            (_, Ok(_)) => Asked::Unanswered(DockerError::Lost(format!(
                "{} does not mean {exact} after it was tagged so",
                pull.reference
            ))),
        }
    }

    /// How a pull ended that was stopped: Docker may have done it by then, or be about to.
    pub(super) async fn stopped(&self, run: &Run<'_>) -> Ending {
        let give_up = Instant::now() + self.pace.settle + self.pace.grace;
        let mut unchanged: Option<Instant> = None;
        loop {
            let sight = look(self.engine.as_ref(), run.action).await.ok().map(|look| look.since(run.before));
            match sight.as_ref().map(|sight| (weigh(run.action, run.before, sight), sight)) {
                Some((Verdict::Done(why), _)) => {
                    let message = format!("it was done before it could be stopped: {why}");
                    return Ending::new(Outcome::Succeeded, message);
                }
                Some((_, sight)) if means_the_same(run.before, sight) => {
                    let since = *unchanged.get_or_insert_with(Instant::now);
                    if since.elapsed() >= self.pace.settle {
                        break;
                    }
                }
                _ => unchanged = None,
            }
            if Instant::now() >= give_up {
                return Ending::new(
                    Outcome::Unknown,
                    "the pull was stopped, and whether it had been done by then cannot be known: look at the image",
                );
            }
            tokio::time::sleep(self.pace.settle / 4).await;
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
        error => return Asked::Unanswered(error),
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
