//! Copies of every event outside the store: in a file, at a webhook, at a collector of OTLP. The store is what counts: a copy is made after
//! it, no request waits for one, and what an outlet cannot take in time is counted and left out.

mod file;
mod otlp;
#[cfg(test)]
mod tests;
mod webhook;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

pub use self::otlp::OtlpError;
pub use self::webhook::{Webhook, WebhookError, WebhookUrl};
use crate::clock::SharedEntropy;
use crate::storage::audit::Record;
use crate::telemetry::metrics::Metrics;

/// Events that may wait for one outlet.
const QUEUE: usize = 4_096;
/// Events that are handed on together.
const BATCH: usize = 256;
/// Pause after the first failure; each one after that is twice as long, up to the longest. Between half of it and all of it are waited.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(60);
/// What is left when the controller stops has this long.
const LAST_PATIENCE: Duration = Duration::from_secs(5);

/// Hands events on to one place.
#[async_trait]
trait Exporter: Send {
    /// Hands on all of these, in this order. After a failure nobody knows which have come through.
    async fn export(&mut self, events: &[Arc<Record>]) -> Result<(), ExportError>;
}

/// Why events were not handed on.
#[derive(Debug, thiserror::Error)]
#[error("{why}")]
struct ExportError {
    /// Without a secret.
    why: String,
    /// True if the same events may be taken later.
    is_passing: bool,
}

/// The way to one place, which takes events without ever waiting. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Outlet {
    name: &'static str,
    queue: mpsc::Sender<Arc<Record>>,
}

/// Carries what an outlet took to its place.
pub struct Carrier {
    name: &'static str,
    queue: mpsc::Receiver<Arc<Record>>,
    /// Under way.
    batch: Vec<Arc<Record>>,
    exporter: Box<dyn Exporter>,
}

impl Outlet {
    /// Appends lines of JSON to a file, or writes them to standard output for `-`.
    pub async fn file(path: &Path) -> std::io::Result<(Self, Carrier)> {
        Ok(Self::to("log", Box::new(file::File::open(path).await?)))
    }

    /// Posts lines of JSON.
    pub fn webhook(webhook: Webhook) -> (Self, Carrier) {
        Self::to("webhook", Box::new(webhook))
    }

    /// Sends log records to an OTLP endpoint, over gRPC; under TLS to one of the authorities in `ca_file`, or of those that this machine
    /// trusts. Must be made inside the runtime.
    pub fn otlp(endpoint: &str, ca_file: Option<&Path>) -> Result<(Self, Carrier), OtlpError> {
        Ok(Self::to("otlp", Box::new(otlp::Otlp::new(endpoint, ca_file)?)))
    }

    fn to(name: &'static str, exporter: Box<dyn Exporter>) -> (Self, Carrier) {
        let (sender, queue) = mpsc::channel(QUEUE);
        (Self { name, queue: sender }, Carrier { name, queue, batch: Vec::new(), exporter })
    }

    /// What metrics call it.
    pub(super) fn name(&self) -> &'static str {
        self.name
    }

    /// False if there is no room for the event.
    pub(super) fn take(&self, event: &Arc<Record>) -> bool {
        self.queue.try_send(Arc::clone(event)).is_ok()
    }
}

impl Carrier {
    /// Carries until told to stop, then for a few seconds what had come before. What cannot be handed on for now is tried again, and what
    /// comes meanwhile waits in the queue as long as there is room.
    pub async fn run(mut self, metrics: Metrics, entropy: SharedEntropy, stop: CancellationToken) {
        let is_over = async {
            stop.cancelled().await;
            tokio::time::sleep(LAST_PATIENCE).await;
        };
        tokio::select! {
            () = self.carry(&metrics, &entropy, &stop) => return,
            () = is_over => {}
        }
        self.lose(self.batch.len() + self.queue.len(), &metrics, "the controller stops");
    }

    async fn carry(&mut self, metrics: &Metrics, entropy: &SharedEntropy, stop: &CancellationToken) {
        loop {
            let came = tokio::select! {
                biased;
                came = self.queue.recv_many(&mut self.batch, BATCH) => came,
                () = stop.cancelled(), if !self.queue.is_closed() => {
                    self.queue.close();
                    continue;
                }
            };
            if came == 0 {
                return;
            }
            self.deliver(metrics, entropy, stop).await;
            self.batch.clear();
        }
    }

    /// Hands the batch on, or gives it up.
    async fn deliver(&mut self, metrics: &Metrics, entropy: &SharedEntropy, stop: &CancellationToken) {
        let mut pause = FIRST_PAUSE;
        while let Err(error) = self.exporter.export(&self.batch).await {
            if !error.is_passing || stop.is_cancelled() {
                return self.lose(self.batch.len(), metrics, &error.why);
            }
            tracing::warn!(copy = self.name, %error, "audit events cannot be copied now and will be tried again");
            let half = pause / 2;
            let more = entropy.below(u64::try_from(half.as_millis()).unwrap_or_default());
            tokio::select! {
                () = tokio::time::sleep(half + Duration::from_millis(more)) => {}
                () = stop.cancelled() => {}
            }
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    fn lose(&self, events: usize, metrics: &Metrics, why: &str) {
        tracing::warn!(copy = self.name, events, error = why, "audit events are missing in a copy");
        metrics.audit_dropped.with_label_values(&[self.name]).inc_by(events as u64);
    }
}
