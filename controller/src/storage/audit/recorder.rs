//! Stores the events that no change of ours belongs to: what was refused, and what failed.

use std::sync::Arc;

use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;
use tracing::warn;

use super::Record;
use crate::storage::{Backend, Batch, StorageError};
use crate::telemetry::metrics::Metrics;

/// An event and whoever waits for it to be stored.
#[derive(Debug)]
pub(in crate::storage) struct Waiting {
    pub record: Record,
    pub answer: oneshot::Sender<Result<(), StorageError>>,
}

/// The one who records, for this replica.
pub(in crate::storage) struct Recorder {
    backend: Arc<dyn Backend>,
    metrics: Metrics,
}

impl Recorder {
    pub(in crate::storage) fn new(backend: Arc<dyn Backend>, metrics: Metrics) -> Self {
        Self { backend, metrics }
    }

    /// Stores what comes until told to stop, then what had come before. What cannot be stored is counted and given up: it may have
    /// been stored and the answer lost, and an event that stands twice is a lie too.
    pub(in crate::storage) async fn run(self, mut waiting: mpsc::Receiver<Waiting>, stop: CancellationToken) {
        let mut batch: Vec<Waiting> = Vec::new();
        loop {
            let came = tokio::select! {
                biased;
                came = waiting.recv_many(&mut batch, Batch::LIMIT) => came,
                () = stop.cancelled(), if !waiting.is_closed() => {
                    waiting.close();
                    continue;
                }
            };
            if came == 0 {
                return;
            }
            let (records, answers): (Vec<_>, Vec<_>) =
                batch.drain(..).map(|waiting| (waiting.record, waiting.answer)).unzip();
            let outcome = self.backend.record(&records).await;
            if let Err(error) = &outcome {
                warn!(events = records.len(), error = %error.chain(), "audit events were not recorded");
                self.metrics.audit_dropped.with_label_values(&["unavailable"]).inc_by(records.len() as u64);
            }
            for answer in answers {
                // Who has gone away does not need to know.
                let _ = answer.send(outcome.clone());
            }
        }
    }
}
