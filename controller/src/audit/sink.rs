//! Where records go that no change takes along, and the copies of all of them.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use super::copies::Outlet;
use super::source::Network;
use super::strangers::Strangers;
use crate::storage::Store;
use crate::storage::audit::Record;
use crate::telemetry::metrics::Metrics;

/// Longest a request waits for its record to be stored, and longest it waits in line before that.
const PATIENCE: Duration = Duration::from_secs(2);

/// What an administrator says of the audit log.
#[derive(Clone, Debug, Default)]
pub struct Settings {
    /// Proxies that are believed when they say whom they speak for.
    pub trusted_proxies: Vec<Network>,
    /// Where each event is written to as well.
    pub outlets: Vec<Outlet>,
}

/// Takes records. Cheap to clone.
#[derive(Clone)]
pub struct Sink {
    store: Store,
    metrics: Metrics,
    settings: Settings,
    strangers: Arc<Strangers>,
}

impl Sink {
    /// Into the store.
    pub fn new(store: Store, metrics: Metrics, settings: Settings) -> Self {
        Self { store, metrics, settings, strangers: Arc::new(Strangers::new()) }
    }

    /// Proxies that are believed.
    pub fn trusted_proxies(&self) -> &[Network] {
        &self.settings.trusted_proxies
    }

    /// How many requests of nobody were not recorded before this one; `None` if this one is not to be either, and is counted instead.
    pub fn admit_stranger(&self, source: IpAddr) -> Option<u64> {
        let unrecorded = self.strangers.admit(source);
        if unrecorded.is_none() {
            self.metrics.audit_dropped.with_label_values(&["repeated"]).inc();
        }
        unrecorded
    }

    /// Stores the record of a request without a change. With `waits` returns once that is so, within a few seconds; the answer is whether
    /// it is known to be stored. What finds no room is counted.
    pub async fn settle(&self, record: Record, waits: bool) -> bool {
        self.copy(&record);
        let room = if waits { PATIENCE } else { Duration::ZERO };
        let Ok(Ok(stored)) = tokio::time::timeout(room, self.store.record(record)).await else {
            self.metrics.audit_dropped.with_label_values(&["overflow"]).inc();
            return false;
        };
        waits && matches!(tokio::time::timeout(PATIENCE, stored).await, Ok(Ok(Ok(()))))
    }

    /// Hands a record to whoever gets a copy, and waits for nobody.
    pub fn copy(&self, record: &Record) {
        if self.settings.outlets.is_empty() {
            return;
        }
        let record = Arc::new(record.clone());
        for outlet in &self.settings.outlets {
            if !outlet.take(&record) {
                self.metrics.audit_dropped.with_label_values(&[outlet.name()]).inc();
            }
        }
    }
}
