//! What a look at the target proves about a call whose answer is not known. Plain functions from facts to a verdict.
//!
//! Facts are compared with the pre-image, never with a clock.

use super::action::{Action, signal_name};
use crate::docker::{Call, ContainerFacts, ImageFacts};
use crate::journal::{Observed, PreImage};

/// A look at the target after the call.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Sight {
    /// The container, for actions on containers; `None` if it is gone.
    pub(crate) container: Option<ContainerFacts>,
    /// What the target id of an image action means now.
    pub(crate) image: Option<ImageFacts>,
    /// What the reference that is pulled or tagged means now.
    pub(crate) named: Option<ImageFacts>,
    /// True only if this is surely the run of the engine that was asked.
    pub(crate) is_same_run: bool,
}

/// What a look proves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// It was done; how one can tell.
    Done(&'static str),
    /// Everything is as it was, and doing it (again) can do no harm once Docker had time to begin.
    Untouched,
    /// It may still be under way.
    Open,
    /// The target is not what it was.
    Changed(String),
    /// Nothing that could be seen later would prove anything.
    Unknowable(&'static str),
}

/// Weighs a look at the target against the pre-image.
pub(crate) fn weigh(action: &Action, before: &PreImage, now: &Sight) -> Verdict {
    match action {
        Action::Pull(_) => weigh_pull(before, now),
        Action::Call(Call::Tag { id, .. }) => match &now.named {
            Some(image) if image.id == *id => Verdict::Done("the reference means the image"),
            _ if now.image.is_none() => Verdict::Changed("the image is gone".to_owned()),
            _ => Verdict::Untouched,
        },
        Action::Call(Call::RemoveImage { .. }) => match now.image {
            None => Verdict::Done("the image is gone"),
            Some(_) => Verdict::Untouched,
        },
        Action::Call(call) => {
            let nothing = Observed::default();
            let then = before.container.as_ref().unwrap_or(&nothing);
            match (&now.container, call) {
                (None, Call::RemoveContainer { .. }) => Verdict::Done("the container is gone"),
                (None, Call::Stop { .. } | Call::Kill { .. }) if then.auto_remove => {
                    Verdict::Done("the container ended and removed itself")
                }
                (None, Call::Start { .. } | Call::Restart { .. } | Call::Kill { .. }) => {
                    Verdict::Unknowable("the container is gone")
                }
                (None, _) => Verdict::Changed("the container is gone".to_owned()),
                (Some(container), _) => weigh_container(call, then, container, now.is_same_run),
            }
        }
    }
}

fn weigh_container(call: &Call, then: &Observed, now: &ContainerFacts, is_same_run: bool) -> Verdict {
    let was_started_since = now.started_at != then.started_at;
    let is_unchanged = !was_started_since
        && now.finished_at == then.finished_at
        && now.pid == then.pid
        && now.running == then.running
        && now.restart_count == then.restart_count;
    match call {
        Call::Start { .. } => match (was_started_since, now.running, is_same_run) {
            (true, true, _) => Verdict::Done("it runs"),
            (true, false, true) => Verdict::Done("it was started and has ended since"),
            (true, false, false) => Verdict::Unknowable(
                "it was started and has ended, but the Docker daemon was restarted meanwhile",
            ),
            (false, ..) => Verdict::Untouched,
        },
        Call::Stop { .. } if !now.running => Verdict::Done("it does not run"),
        Call::Stop { .. } if was_started_since => {
            Verdict::Done("it was stopped and somebody started it since")
        }
        Call::Pause { .. } if now.paused => Verdict::Done("it is paused"),
        Call::Unpause { .. } if now.running && !now.paused => Verdict::Done("it is not paused"),
        Call::Pause { .. } | Call::Unpause { .. } if !now.running => {
            Verdict::Changed(format!("the container is {}", now.state))
        }
        Call::RemoveContainer { .. } if now.state == "removing" => Verdict::Open,
        Call::Stop { .. } | Call::Pause { .. } | Call::Unpause { .. } | Call::RemoveContainer { .. } => {
            Verdict::Untouched
        }
        Call::Rename { new_name, .. } if now.name == *new_name => Verdict::Done("it has the new name"),
        Call::Rename { .. } if now.name == then.name => Verdict::Untouched,
        Call::Rename { .. } => Verdict::Changed(format!("the container is called `{}` by now", now.name)),
        Call::Restart { .. } => match (is_same_run, was_started_since, is_unchanged) {
            (true, true, _) => Verdict::Done("it was started anew"),
            (true, false, true) => Verdict::Untouched,
            // Stopped and not yet started, or stopped for good.
            (true, false, false) => Verdict::Open,
            (false, ..) => Verdict::Unknowable("the Docker daemon was restarted meanwhile"),
        },
        Call::Kill { signal, .. } => weigh_kill(signal, then, now, is_same_run, is_unchanged),
        Call::RemoveImage { .. } | Call::Tag { .. } => Verdict::Unknowable("this call is about an image"),
    }
}

/// A process may ignore any signal but KILL, so only for KILL does a process that still runs prove anything.
fn weigh_kill(
    signal: &str,
    then: &Observed,
    now: &ContainerFacts,
    is_same_run: bool,
    is_unchanged: bool,
) -> Verdict {
    let signal = signal_name(signal);
    let stop_signal =
        if then.stop_signal.is_empty() { "TERM".to_owned() } else { signal_name(&then.stop_signal) };
    let is_kill = signal == "KILL";
    if !is_kill && signal != stop_signal {
        return Verdict::Unknowable("a signal leaves no trace");
    }
    let has_ended = !now.running || now.started_at != then.started_at;
    match (has_ended, is_same_run) {
        (true, true) => Verdict::Done("its process has ended"),
        (_, false) => Verdict::Unknowable("the Docker daemon was restarted meanwhile"),
        (false, true) if is_kill && is_unchanged => Verdict::Untouched,
        (false, true) => Verdict::Open,
    }
}

fn weigh_pull(before: &PreImage, now: &Sight) -> Verdict {
    match &now.named {
        Some(image) if !before.digest.is_empty() && has_digest(image, &before.digest) => {
            Verdict::Done("the reference means the image the registry has")
        }
        Some(image) if before.digest.is_empty() && image.id != before.image_id => {
            Verdict::Done("the reference means another image than before")
        }
        _ => Verdict::Untouched,
    }
}

fn has_digest(image: &ImageFacts, digest: &str) -> bool {
    image.id == digest
        || image.digests.iter().filter_map(|known| known.split_once('@')).any(|(_, known)| known == digest)
}

/// True if the target is already as wanted, so that nothing needs to be done.
pub(crate) fn is_already_so(action: &Action, now: &Sight) -> bool {
    let container = now.container.as_ref();
    match action {
        Action::Call(Call::Start { .. }) => container.is_some_and(|container| {
            container.running && container.state != "restarting" && !container.paused
        }),
        Action::Call(Call::Stop { .. }) => container.is_some_and(|container| {
            !container.running
                && matches!(
                    container.state.as_str(),
                    "created" | "exited" | "dead" | "stopped" | "configured"
                )
        }),
        Action::Call(Call::Pause { .. }) => container.is_some_and(|container| container.paused),
        Action::Call(Call::Unpause { .. }) => {
            container.is_some_and(|container| container.state == "running" && !container.paused)
        }
        Action::Call(Call::Rename { new_name, .. }) => {
            container.is_some_and(|container| container.name == *new_name)
        }
        Action::Call(Call::Tag { id, .. }) => now.named.as_ref().is_some_and(|image| image.id == *id),
        Action::Call(
            Call::Restart { .. }
            | Call::Kill { .. }
            | Call::RemoveContainer { .. }
            | Call::RemoveImage { .. },
        )
        | Action::Pull(_) => false,
    }
}
