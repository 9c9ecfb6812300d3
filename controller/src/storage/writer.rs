//! Group commit: gathers concurrent writes into one statement, each with its own condition and its own answer.
//!
//! No timer is needed: a batch grows while the commit before it runs.

use std::collections::HashSet;
use std::sync::Arc;

use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;
use tracing::warn;

use super::types::object;
use super::{
    Backend, Batch, Effect, Expects, FieldPaths, Key, Object, StorageError, Version, Write, WriteError,
};
use crate::telemetry::metrics::Metrics;

/// A write and whoever waits for it.
pub(super) struct Pending {
    pub(super) write: Write,
    pub(super) answer: oneshot::Sender<Result<Arc<Object>, WriteError>>,
}

/// The one who writes, for this replica.
pub(super) struct Writer {
    backend: Arc<dyn Backend>,
    fields: Arc<FieldPaths>,
    metrics: Metrics,
}

impl Writer {
    pub(super) fn new(backend: Arc<dyn Backend>, fields: Arc<FieldPaths>, metrics: Metrics) -> Self {
        Self { backend, fields, metrics }
    }

    /// Commits what comes until told to stop, then what had come before.
    pub(super) async fn run(self, mut pending: mpsc::Receiver<Pending>, stop: CancellationToken) {
        let mut waiting: Vec<Pending> = Vec::new();
        loop {
            if waiting.is_empty() {
                let came = tokio::select! {
                    biased;
                    came = pending.recv_many(&mut waiting, Batch::LIMIT) => came,
                    () = stop.cancelled(), if !pending.is_closed() => {
                        pending.close();
                        continue;
                    }
                };
                if came == 0 {
                    return;
                }
            }
            while waiting.len() < Batch::LIMIT {
                match pending.try_recv() {
                    Ok(next) => waiting.push(next),
                    Err(_) => break,
                }
            }
            let (now, later) = batch(waiting);
            let outcome = self.commit(now).await;
            waiting = later;
            if let Err(error) = outcome
                && error.is_without_connection()
            {
                // Who came while a connection was waited for would only wait as long again.
                while let Ok(next) = pending.try_recv() {
                    waiting.push(next);
                }
                refuse(waiting.drain(..).map(|pending| pending.answer).collect(), &error);
            }
        }
    }

    /// Commits these and answers them; the error is that of the whole batch, for the caller to know.
    async fn commit(&self, pending: Vec<Pending>) -> Result<(), StorageError> {
        self.metrics.commit_size.observe(pending.len() as f64);
        let timer = self.metrics.commit_duration.start_timer();
        let (writes, answers): (Vec<_>, Vec<_>) =
            pending.into_iter().map(|pending| (pending.write, pending.answer)).unzip();
        let batch = Batch { writes };
        let outcome = self.backend.commit(&batch).await;
        timer.observe_duration();
        match outcome {
            Ok(versions) => self.answer(batch, answers, versions),
            Err(error) if batch.writes.len() > 1 && is_about_one_write(&error) => {
                for (write, answer) in batch.writes.into_iter().zip(answers) {
                    let batch = Batch { writes: vec![write] };
                    match self.backend.commit(&batch).await {
                        Ok(versions) => self.answer(batch, vec![answer], versions),
                        Err(error) => refuse(vec![answer], &error),
                    }
                }
            }
            Err(error) => {
                refuse(answers, &error);
                return Err(error);
            }
        }
        Ok(())
    }

    fn answer(
        &self,
        batch: Batch,
        answers: Vec<oneshot::Sender<Result<Arc<Object>, WriteError>>>,
        versions: Vec<Option<Version>>,
    ) {
        for ((write, answer), version) in batch.writes.into_iter().zip(answers).zip(versions) {
            let outcome = match version {
                Some(version) => self.stored(write, version),
                None => Err(match write.expects {
                    Expects::Absent => WriteError::AlreadyExists(write.key),
                    Expects::AbsentIn(_) => WriteError::NotPlaced(write.key),
                    Expects::Version(_) => WriteError::Conflict(write.key),
                }),
            };
            // A caller that has gone away did not take its write along.
            let _ = answer.send(outcome);
        }
    }

    fn stored(&self, write: Write, version: Version) -> Result<Arc<Object>, WriteError> {
        let (Effect::Put(body) | Effect::Delete(body)) = write.effect;
        object(write.key, body.uid, version, &body.labels, &body.text, &self.fields)
            .map(Arc::new)
            .map_err(|error| WriteError::Unavailable(error.chain().into()))
    }
}

/// True where the statement was refused for its contents, so that one write must not fail its neighbours.
fn is_about_one_write(error: &StorageError) -> bool {
    let StorageError::Unavailable(error) = error else { return false };
    // Data exceptions, integrity violations, exceeded limits of one row.
    error
        .as_database_error()
        .and_then(sqlx::error::DatabaseError::code)
        .is_some_and(|code| ["22", "23", "54"].iter().any(|class| code.starts_with(class)))
}

fn refuse(answers: Vec<oneshot::Sender<Result<Arc<Object>, WriteError>>>, error: &StorageError) {
    if answers.is_empty() {
        return;
    }
    let why: Arc<str> = error.chain().into();
    warn!(writes = answers.len(), error = %why, "writes were not committed");
    let refusal = match error {
        StorageError::FateUnknown => WriteError::FateUnknown,
        _ => WriteError::Unavailable(why),
    };
    for answer in answers {
        let _ = answer.send(Err(refusal.clone()));
    }
}

/// Splits off what does not go into one statement: it may touch a row only once, and holds no more than [`Batch::BYTES`] unless
/// one write alone does.
fn batch(pending: Vec<Pending>) -> (Vec<Pending>, Vec<Pending>) {
    let mut keys: HashSet<Key> = HashSet::with_capacity(pending.len());
    let mut bytes = 0;
    pending.into_iter().partition(|pending| {
        let (Effect::Put(body) | Effect::Delete(body)) = &pending.write.effect;
        // Every key is remembered, so that the writes of one keep their order.
        let is_first = keys.insert(pending.write.key.clone());
        let fits = bytes == 0 || bytes + body.text.len() <= Batch::BYTES;
        if is_first && fits {
            bytes += body.text.len();
        }
        is_first && fits
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::storage::{Body, Resource};

    fn pending(name: &str, size: usize) -> Pending {
        let metadata =
            json!({"name": name, "uid": uuid::Uuid::nil(), "annotations": {"a": "x".repeat(size)}});
        let body = Body::new(json!({"metadata": metadata})).expect("has metadata");
        let key = Key { resource: Resource("things".into()), namespace: "".into(), name: name.into() };
        Pending {
            write: Write { key, expects: Expects::Absent, effect: Effect::Put(body), record: None },
            answer: oneshot::channel().0,
        }
    }

    fn names(pending: &[Pending]) -> Vec<&str> {
        pending.iter().map(|pending| &*pending.write.key.name).collect()
    }

    #[test]
    fn a_second_write_of_a_key_waits_for_the_next_statement_and_so_does_what_comes_after_it() {
        let (now, later) = batch(vec![pending("a", 1), pending("b", 1), pending("a", 2), pending("a", 3)]);

        assert_eq!(names(&now), ["a", "b"]);
        assert_eq!(names(&later), ["a", "a"]);
    }

    #[test]
    fn a_statement_is_bounded_in_bytes_and_one_large_write_still_goes() {
        let large = Batch::BYTES + 1;
        let (now, later) = batch(vec![pending("a", large), pending("b", 1), pending("b", large)]);

        assert_eq!(names(&now), ["a"]);
        assert_eq!(names(&later), ["b", "b"]);
    }
}
