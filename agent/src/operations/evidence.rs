//! What a look at the target proves about a call whose answer is not known. Plain functions from facts to a verdict.
//!
//! Facts are compared with the pre-image, never with a clock.

use super::action::{Action, signal_name};
use crate::docker::{Call, ContainerFacts, ImageFacts};
use crate::journal::{Observed, PreImage};

const NO_TRACE: &str = "a signal leaves no trace";
const ANOTHER_RUN: &str = "the Docker daemon was restarted meanwhile";
const HAD_NO_PROCESS: &str = "it did not run before either";

/// A look at the target after the call.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Sight {
    /// The container, for actions on containers; `None` if it is gone.
    pub(crate) container: Option<ContainerFacts>,
    /// What the target id of an image action means now.
    pub(crate) image: Option<ImageFacts>,
    /// What the reference that is pulled, tagged or removed means now.
    pub(crate) named: Option<ImageFacts>,
    /// True only if this is surely the run of the engine that was asked.
    pub(crate) is_same_run: bool,
    /// True if this is surely another engine than the one that was asked.
    pub(crate) is_other_engine: bool,
}

/// What a look proves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// It was done; how one can tell.
    Done(&'static str),
    /// Everything is as it was, and doing it (again) can do no harm once Docker had time to begin.
    Untouched,
    /// It is not so. It may have been and was undone by something else; doing it (again) can do no harm all the same.
    Undone,
    /// It may still be under way.
    Open,
    /// The target is not what it was.
    Changed(String),
    /// Nothing that could be seen later would prove anything.
    Unknowable(&'static str),
}

/// Weighs a look at the target against the pre-image.
pub(crate) fn weigh(action: &Action, before: &PreImage, now: &Sight) -> Verdict {
    if now.is_other_engine {
        return Verdict::Unknowable("this is another Docker Engine than the one that was asked");
    }
    match action {
        Action::Pull(_) => weigh_pull(before, now),
        Action::Call(Call::Tag { id, .. }) => match &now.named {
            Some(image) if image.id == *id => Verdict::Done("the reference means the image"),
            _ if now.image.is_none() => Verdict::Unknowable("the image is gone"),
            _ => Verdict::Untouched,
        },
        Action::Call(Call::RemoveImage { id, reference: Some(_), .. }) => match &now.named {
            None => Verdict::Done("nothing is called so any more"),
            Some(image) if image.id == *id => Verdict::Untouched,
            Some(_) => Verdict::Unknowable("another image is called so by now"),
        },
        Action::Call(Call::RemoveImage { reference: None, .. }) => match now.image {
            None => Verdict::Done("the image is gone"),
            Some(_) => Verdict::Untouched,
        },
        Action::Call(call) => {
            let nothing = Observed::default();
            let then = before.container.as_ref().unwrap_or(&nothing);
            match (&now.container, call) {
                (None, Call::RemoveContainer { .. }) => Verdict::Done("the container is gone"),
                (None, Call::Stop { .. }) if then.auto_remove => {
                    Verdict::Done("the container ended and removed itself")
                }
                (None, Call::Kill { signal, .. }) => weigh_kill_of_gone(signal, then, now.is_same_run),
                (None, _) => Verdict::Unknowable("the container is gone"),
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
        // Another process than the one that was to be paused, as after an engine that crashed.
        Call::Pause { .. } if now.running && was_started_since => Verdict::Undone,
        Call::Unpause { .. } if now.running && !now.paused => Verdict::Done("it is not paused"),
        Call::Pause { .. } | Call::Unpause { .. } if !now.running && !is_unchanged => {
            Verdict::Unknowable("the container does not run any more")
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
            (false, ..) => Verdict::Unknowable(ANOTHER_RUN),
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
    if !ends_a_process(signal, then) {
        return Verdict::Unknowable(NO_TRACE);
    }
    if !is_same_run {
        return Verdict::Unknowable(ANOTHER_RUN);
    }
    let has_ended = !now.running || now.started_at != then.started_at;
    match (then.running, has_ended) {
        (true, true) => Verdict::Done("its process has ended"),
        (_, false) | (false, true) if signal_name(signal) == "KILL" && is_unchanged => Verdict::Untouched,
        (true, false) => Verdict::Open,
        (false, _) => Verdict::Unknowable(HAD_NO_PROCESS),
    }
}

/// What kills a container that removes itself leaves nothing else behind.
fn weigh_kill_of_gone(signal: &str, then: &Observed, is_same_run: bool) -> Verdict {
    if !ends_a_process(signal, then) {
        return Verdict::Unknowable(NO_TRACE);
    }
    match (then.auto_remove, then.running, is_same_run) {
        (false, ..) => Verdict::Unknowable("the container is gone"),
        (true, false, _) => Verdict::Unknowable(HAD_NO_PROCESS),
        (true, true, false) => Verdict::Unknowable(ANOTHER_RUN),
        (true, true, true) => Verdict::Done("the container ended and removed itself"),
    }
}

/// True for KILL and for the signal that stop sends; what any other does cannot be seen.
fn ends_a_process(signal: &str, then: &Observed) -> bool {
    let signal = signal_name(signal);
    let stop_signal =
        if then.stop_signal.is_empty() { "TERM".to_owned() } else { signal_name(&then.stop_signal) };
    signal == "KILL" || signal == stop_signal
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

/// True if the reference that is pulled means what it meant before, or still nothing.
pub(crate) fn means_the_same(before: &PreImage, now: &Sight) -> bool {
    let id = now.named.as_ref().map_or("", |image| image.id.as_str());
    !now.is_other_engine && id == before.image_id
}

pub(crate) fn has_digest(image: &ImageFacts, digest: &str) -> bool {
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::docker::ImageReference;

    fn before(running: bool, auto_remove: bool) -> PreImage {
        let container = Observed {
            name: "web".to_owned(),
            running,
            pid: if running { 7 } else { 0 },
            started_at: "then".to_owned(),
            auto_remove,
            ..Observed::default()
        };
        PreImage { container: Some(container), engine_id: "A".to_owned(), ..PreImage::default() }
    }

    fn kill(signal: &str) -> Action {
        Action::Call(Call::Kill { id: "1".to_owned(), signal: signal.to_owned() })
    }

    fn gone(is_same_run: bool) -> Sight {
        Sight { is_same_run, ..Sight::default() }
    }

    fn there(running: bool, started_at: &str) -> Sight {
        let container = ContainerFacts {
            name: "web".to_owned(),
            running,
            pid: if running { 7 } else { 0 },
            started_at: started_at.to_owned(),
            ..ContainerFacts::default()
        };
        Sight { container: Some(container), is_same_run: true, ..Sight::default() }
    }

    fn is_done(verdict: &Verdict) -> bool {
        matches!(verdict, Verdict::Done(_))
    }

    fn is_unknowable(verdict: &Verdict) -> bool {
        matches!(verdict, Verdict::Unknowable(_))
    }

    #[test]
    fn what_did_not_run_before_was_neither_paused_nor_unpaused() {
        for call in [Call::Pause { id: "1".to_owned() }, Call::Unpause { id: "1".to_owned() }] {
            let action = Action::Call(call);

            assert!(matches!(
                weigh(&action, &before(false, false), &there(false, "then")),
                Verdict::Untouched
            ));
            assert!(is_unknowable(&weigh(&action, &before(true, false), &there(false, "then"))));
        }
    }

    #[test]
    fn a_pause_may_have_been_undone_by_a_new_start() {
        let pause = Action::Call(Call::Pause { id: "1".to_owned() });
        let before = before(true, false);

        assert_eq!(weigh(&pause, &before, &there(true, "then")), Verdict::Untouched);
        assert_eq!(weigh(&pause, &before, &there(true, "since")), Verdict::Undone);
    }

    #[test]
    fn a_vanished_container_proves_a_signal_only_if_it_ran_removed_itself_and_the_engine_stayed() {
        for signal in ["SIGKILL", "SIGTERM"] {
            assert!(is_done(&weigh(&kill(signal), &before(true, true), &gone(true))), "{signal}");
            assert!(is_unknowable(&weigh(&kill(signal), &before(true, true), &gone(false))), "{signal}");
            assert!(is_unknowable(&weigh(&kill(signal), &before(true, false), &gone(true))), "{signal}");
            assert!(is_unknowable(&weigh(&kill(signal), &before(false, true), &gone(true))), "{signal}");
        }
        assert!(is_unknowable(&weigh(&kill("SIGHUP"), &before(true, true), &gone(true))));
    }

    #[test]
    fn a_container_that_did_not_run_before_proves_no_signal_by_not_running() {
        assert!(is_done(&weigh(&kill("SIGKILL"), &before(true, false), &there(false, "then"))));
        assert_eq!(weigh(&kill("SIGKILL"), &before(false, false), &there(false, "then")), Verdict::Untouched);
        assert!(is_unknowable(&weigh(&kill("SIGTERM"), &before(false, false), &there(false, "then"))));
        assert!(is_unknowable(&weigh(&kill("SIGKILL"), &before(false, false), &there(false, "later"))));
    }

    #[test]
    fn what_is_gone_may_have_been_acted_on_before() {
        let id = || "1".to_owned();
        let rename = Call::Rename { id: id(), new_name: "api".to_owned() };
        let stop = Call::Stop { id: id(), timeout_seconds: None };
        for call in
            [stop, Call::Start { id: id() }, Call::Pause { id: id() }, Call::Unpause { id: id() }, rename]
        {
            let verdict = weigh(&Action::Call(call.clone()), &before(true, false), &gone(true));
            assert!(is_unknowable(&verdict), "{call:?}: {verdict:?}");
        }
        let pause = Action::Call(Call::Pause { id: id() });
        assert!(is_unknowable(&weigh(&pause, &before(true, false), &there(false, "then"))));
    }

    #[test]
    fn a_reference_is_removed_once_it_means_nothing_whatever_else_the_image_is_called() {
        let by = |reference: Option<&str>| {
            let reference = reference.map(|text| ImageReference::parse(text).unwrap());
            Action::Call(Call::RemoveImage { id: "1".to_owned(), reference, force: false })
        };
        let image = |id: &str| Some(ImageFacts { id: id.to_owned(), ..ImageFacts::default() });
        let sight = |image, named| Sight { image, named, is_same_run: true, ..Sight::default() };
        let before = PreImage::default();

        assert!(is_done(&weigh(&by(Some("app:1")), &before, &sight(image("1"), None))));
        assert_eq!(weigh(&by(Some("app:1")), &before, &sight(image("1"), image("1"))), Verdict::Untouched);
        let moved = sight(image("1"), image("2"));
        assert!(is_unknowable(&weigh(&by(Some("app:1")), &before, &moved)));
        assert_eq!(moved.other_image(&by(Some("app:1"))), Some("2"));
        assert_eq!(weigh(&by(None), &before, &sight(image("1"), None)), Verdict::Untouched);
        assert!(is_done(&weigh(&by(None), &before, &sight(None, None))));
    }

    #[test]
    fn nothing_seen_on_another_engine_proves_anything() {
        let stop = Action::Call(Call::Stop { id: "1".to_owned(), timeout_seconds: None });
        let sight = there(false, "then");
        assert!(is_done(&weigh(&stop, &before(true, false), &sight)));

        let elsewhere = Sight { is_other_engine: true, ..sight };

        assert!(is_unknowable(&weigh(&stop, &before(true, false), &elsewhere)));
        assert!(!before(true, false).is_other_engine("") && before(true, false).is_other_engine("B"));
    }
}
