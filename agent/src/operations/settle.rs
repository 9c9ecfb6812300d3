//! After a call whose answer is missing: look until the target proves what happened.

use gantry_api::agent_v1::Outcome;
use tokio::time::Instant;

use super::Inner;
use super::action::Action;
use super::evidence::{Verdict, weigh};
use super::look::look;
use super::perform::{Run, patience};
use super::report::Ending;
use crate::docker::{Call, DockerError};

const MOST_TRIES: u32 = 3;
/// Looks at a target that Docker said it could not change, before that is believed.
const LOOKS_AFTER_REFUSAL: u32 = 3;

/// What the evidence allows.
pub(super) enum Settled {
    /// A result.
    Ended(Box<Ending>),
    /// Asking again can do no harm.
    Again,
}

impl Inner {
    /// Looks at the target until it proves something or time is up. Docker is asked to change nothing here.
    pub(super) async fn settle(&self, run: &Run<'_>, error: &DockerError) -> Settled {
        let settle = self.pace.settle(run.action, patience(run.action, run.before));
        // Its time may have run out before this process began: a target that can prove something is still given the time to.
        let looks_until = if may_still_be_done(run) {
            run.limit
        } else {
            run.limit.max(Instant::now() + settle + self.pace.grace)
        };
        let mut pause = self.pace.poll;
        let mut untouched: Option<(Instant, u32)> = None;
        let mut open: Option<Instant> = None;
        loop {
            let is_time_up = Instant::now() >= run.limit;
            if matches!(run.action, Action::Pull(_)) && (is_time_up || run.live.withdrawn.is_cancelled()) {
                return ended(self.stopped(run).await);
            }
            let verdict = match look(self.engine.as_ref(), run.action).await {
                Ok(looked) => {
                    let sight = looked.since(run.before);
                    let after = sight.target(run.action);
                    match weigh(run.action, run.before, &sight) {
                        Verdict::Done(why) => {
                            let mut ending = done(run, error, why);
                            ending.after = after;
                            return ended(ending);
                        }
                        verdict => Some(verdict),
                    }
                }
                Err(look_error) => {
                    tracing::debug!(uid = %run.uid, %look_error, "the target cannot be looked at");
                    None
                }
            };
            let is_over = match verdict {
                Some(Verdict::Untouched | Verdict::Undone) | None => Instant::now() >= looks_until,
                Some(_) => is_time_up,
            };
            let is_undone = verdict == Some(Verdict::Undone);
            match verdict {
                Some(Verdict::Changed(what)) => {
                    return ended(told(Ending::new(Outcome::TargetChanged, what), error));
                }
                Some(Verdict::Unknowable(why)) => return ended(unknown(run, why, error)),
                Some(Verdict::Untouched | Verdict::Undone) => {
                    let (since, looks) = untouched.unwrap_or((Instant::now(), 0));
                    untouched = Some((since, looks + 1));
                    if let Some(settled) = self.untouched(run, error, since.elapsed() >= settle, looks + 1) {
                        return settled;
                    }
                }
                Some(Verdict::Open) => {
                    untouched = None;
                    let since = *open.get_or_insert_with(Instant::now);
                    if error.status() >= 500 && since.elapsed() >= settle {
                        let ending = Ending::new(Outcome::DockerError, "Docker gave up half-way");
                        return ended(told(ending, error));
                    }
                }
                Some(Verdict::Done(_)) | None => untouched = None,
            }
            let is_untouched = untouched.is_some_and(|(since, _)| since.elapsed() >= settle);
            if is_over || (is_time_up && is_untouched) {
                return ended(out_of_time(run, error, is_untouched && !is_undone));
            }
            let left = looks_until.saturating_duration_since(Instant::now());
            // The look that settles it is not put off by pauses that have grown.
            let unsettled = untouched.map(|(since, _)| settle.saturating_sub(since.elapsed()));
            let unsettled = unsettled.filter(|left| !left.is_zero()).unwrap_or(pause);
            self.rest_or_withdrawn(run, pause.min(left).min(unsettled)).await;
            pause = (pause * 2).min(self.pace.poll_at_most);
        }
    }

    /// What follows from a target that is as it was.
    fn untouched(
        &self,
        run: &Run<'_>,
        error: &DockerError,
        has_settled: bool,
        looks: u32,
    ) -> Option<Settled> {
        if let DockerError::Refused { status, .. } = error
            && *status >= 500
        {
            let ending =
                Ending::new(Outcome::DockerError, "Docker failed and the target is as it was").retryable();
            // Docker may still be at it: a container it gave up waiting for can end seconds later.
            return (has_settled && looks >= LOOKS_AFTER_REFUSAL).then(|| ended(told(ending, error)));
        }
        if !has_settled {
            return None;
        }
        if !run.action.is_allowed_by(self.policy) {
            return Some(ended(unknown(run, "the policy of this host does not allow asking again", error)));
        }
        if let Action::Pull(pull) = run.action
            && run.tries >= MOST_TRIES
        {
            // Docker stops a pull whose connection ends.
            let ending = Ending::new(Outcome::DockerError, format!("pulling {} was cut off", pull.reference));
            return Some(ended(told(ending, error).retryable()));
        }
        // A journal that was put back can hold as started what has long ended and been deleted: without a word for it nothing is asked.
        let may_ask = self.may_start()
            && run.live.permitted.is_cancelled()
            && !run.live.withdrawn.is_cancelled()
            && run.tries < MOST_TRIES
            && Instant::now() < run.limit;
        may_ask.then_some(Settled::Again)
    }

    async fn rest_or_withdrawn(&self, run: &Run<'_>, pause: std::time::Duration) {
        if matches!(run.action, Action::Pull(_)) {
            self.rest(pause, run.live).await;
        } else {
            tokio::time::sleep(pause).await;
        }
    }
}

/// What Docker did although its answer does not say so.
fn done(run: &Run<'_>, error: &DockerError, why: &str) -> Ending {
    let is_removal = matches!(run.action, Action::Call(Call::RemoveContainer { .. }));
    match error {
        DockerError::Refused { status: 409, .. } if is_removal && !run.is_repeat => {
            let message = "another removal of it was in progress already, and it is gone now";
            told(Ending::new(Outcome::TargetNotFound, message), error)
        }
        DockerError::Refused { .. } => {
            let message = format!("Docker answered with an error, but {why}");
            told(Ending::new(Outcome::Succeeded, message), error)
        }
        _ => Ending::new(Outcome::Succeeded, format!("Docker's answer was lost, but {why}")),
    }
}

/// True if Docker was asked by this very process for what must not be done twice, and may be at it still.
fn may_still_be_done(run: &Run<'_>) -> bool {
    let is_once_only =
        matches!(run.action, Action::Call(Call::Start { .. } | Call::Restart { .. } | Call::Kill { .. }));
    run.tries > 0 && is_once_only
}

fn told(ending: Ending, error: &DockerError) -> Ending {
    ending.because(error.to_string()).status(error.status())
}

fn unknown(run: &Run<'_>, why: &str, error: &DockerError) -> Ending {
    let state = run.before.container.as_ref().map_or("not a container", |container| container.state.as_str());
    let message = format!(
        "whether it was done cannot be known: {why}. It was {state} before; look at the target, and decide"
    );
    told(Ending::new(Outcome::Unknown, message), error)
}

fn out_of_time(run: &Run<'_>, error: &DockerError, is_untouched: bool) -> Ending {
    if is_untouched {
        let ending =
            Ending::new(Outcome::DeadlineExceeded, "Docker did not do it in time; the target is as it was");
        return told(ending, error).retryable();
    }
    unknown(run, "time is up", error)
}

fn ended(ending: Ending) -> Settled {
    Settled::Ended(Box::new(ending))
}
