//! Events for `kubectl describe`: best effort, bounded, never in the way of a pass.

use k8s_openapi::api::core::v1::{Event, EventSource, ObjectReference};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::api::{Api, ObjectMeta, Patch, PatchParams, PostParams};
use serde_json::json;
use sha2::{Digest as _, Sha256};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::conditions::shorten;
use crate::clock::SharedClock;

const LONGEST_MESSAGE: usize = 1024;
const WAITING: usize = 1024;

/// Hands Events to the task that stores them. When too many wait, further ones are dropped.
#[derive(Clone)]
pub(super) struct Recorder(mpsc::Sender<Note>);

struct Note {
    about: ObjectReference,
    is_warning: bool,
    reason: String,
    message: String,
}

/// The task that stores Events.
pub(super) struct Recording {
    notes: mpsc::Receiver<Note>,
    client: kube::Client,
    clock: SharedClock,
}

impl Recorder {
    pub(super) fn new(client: kube::Client, clock: SharedClock) -> (Self, Recording) {
        let (sender, notes) = mpsc::channel(WAITING);
        (Self(sender), Recording { notes, client, clock })
    }

    /// Tells that all is as it should be.
    pub(super) fn normal(&self, about: ObjectReference, reason: &str, message: &str) {
        self.record(about, false, reason, message);
    }

    /// Tells of something a person may want to look at.
    pub(super) fn warn(&self, about: ObjectReference, reason: &str, message: &str) {
        self.record(about, true, reason, message);
    }

    fn record(&self, about: ObjectReference, is_warning: bool, reason: &str, message: &str) {
        let note =
            Note { about, is_warning, reason: reason.to_owned(), message: shorten(message, LONGEST_MESSAGE) };
        if self.0.try_send(note).is_err() {
            tracing::debug!(reason, "an Event was dropped, too many wait");
        }
    }
}

impl Recording {
    /// Stores Events until `stop`; those still waiting then are dropped.
    pub(super) async fn run(mut self, stop: CancellationToken) {
        loop {
            let note = tokio::select! {
                () = stop.cancelled() => return,
                note = self.notes.recv() => note,
            };
            let Some(note) = note else { return };
            let stored = tokio::select! {
                () = stop.cancelled() => return,
                stored = self.store(&note) => stored,
            };
            if let Err(error) = stored {
                tracing::debug!(%error, reason = note.reason, "an Event was not stored");
            }
        }
    }

    async fn store(&self, note: &Note) -> Result<(), kube::Error> {
        let namespace = note.about.namespace.clone().unwrap_or_default();
        let events: Api<Event> = Api::namespaced(self.client.clone(), &namespace);
        let name = name_of(note);
        let now = Time(self.clock.now());
        if let Some(present) = events.get_opt(&name).await? {
            let again = json!({"count": present.count.unwrap_or(1).saturating_add(1), "lastTimestamp": now});
            events.patch(&name, &PatchParams::default(), &Patch::Merge(again)).await?;
            return Ok(());
        }
        let event = Event {
            metadata: ObjectMeta { name: Some(name), namespace: Some(namespace), ..ObjectMeta::default() },
            involved_object: note.about.clone(),
            type_: Some(if note.is_warning { "Warning" } else { "Normal" }.to_owned()),
            reason: Some(note.reason.clone()),
            message: Some(note.message.clone()),
            count: Some(1),
            first_timestamp: Some(now.clone()),
            last_timestamp: Some(now),
            reporting_component: Some(gantry_api::names::CONTROLLER_MANAGER.to_owned()),
            source: Some(EventSource {
                component: Some(gantry_api::names::CONTROLLER_MANAGER.to_owned()),
                host: None,
            }),
            ..Event::default()
        };
        events.create(&PostParams::default(), &event).await?;
        Ok(())
    }
}

/// The same thing said about the same object has the same name, so that it counts up.
fn name_of(note: &Note) -> String {
    let mut digest = Sha256::new();
    for part in [note.about.uid.as_deref().unwrap_or_default(), &note.reason, &note.message] {
        digest.update(part.as_bytes());
        digest.update([0]);
    }
    let hex: String = digest.finalize().iter().take(8).fold(String::new(), |mut text, byte| {
        use std::fmt::Write as _;
        let _ = write!(text, "{byte:02x}");
        text
    });
    let object = note.about.name.as_deref().unwrap_or("object");
    let object = object.get(..object.len().min(230)).unwrap_or("object").trim_end_matches(['.', '-']);
    format!("{object}.{hex}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn note(uid: &str, reason: &str, message: &str) -> Note {
        let about = ObjectReference {
            name: Some("nuc-03".to_owned()),
            uid: Some(uid.to_owned()),
            ..ObjectReference::default()
        };
        Note { about, is_warning: false, reason: reason.to_owned(), message: message.to_owned() }
    }

    #[test]
    fn the_same_thing_said_twice_has_one_name_and_another_thing_another() {
        assert_eq!(name_of(&note("u", "Offline", "silent")), name_of(&note("u", "Offline", "silent")));
        assert_ne!(name_of(&note("u", "Offline", "silent")), name_of(&note("u", "Offline", "gone")));
        assert_ne!(name_of(&note("u", "Offline", "silent")), name_of(&note("v", "Offline", "silent")));
    }
}
