//! Follows the change log into the watch cache: woken by notices, by readers in a hurry, and once a second at least.

use std::sync::Arc;
use std::time::Duration;

use serde::de::IgnoredAny;
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::types::object;
use super::{
    Backend, Change, Damaged, FieldPaths, LoggedChange, Position, Resource, StorageError, Stored, Tail,
};
use crate::clock::SharedClock;
use crate::telemetry::metrics::Metrics;
use crate::watch_cache::WatchCache;

/// How long a lost notice can delay a change.
const POLL: Duration = Duration::from_secs(1);
/// Pause after the database could not be asked.
const RETRY: Duration = Duration::from_millis(200);
/// Changes read at once.
const PAGE: usize = 256;

/// Feeds one cache.
pub(super) struct Follower {
    backend: Arc<dyn Backend>,
    cache: WatchCache,
    fields: Arc<FieldPaths>,
    kick: Arc<Notify>,
    clock: SharedClock,
    metrics: Metrics,
    notices: watch::Receiver<u64>,
    reached: Position,
}

enum Step {
    /// Look again now.
    Again,
    /// Everything is read.
    Idle,
}

impl Follower {
    pub(super) fn new(
        backend: Arc<dyn Backend>,
        cache: WatchCache,
        fields: Arc<FieldPaths>,
        kick: Arc<Notify>,
        clock: SharedClock,
        metrics: Metrics,
    ) -> Self {
        let notices = backend.notices();
        Self { backend, cache, fields, kick, clock, metrics, notices, reached: Position::default() }
    }

    /// Drops what the cache has and fills it from a snapshot; ends every watch.
    pub(super) async fn load(&mut self) -> Result<(), StorageError> {
        let snapshot = self.backend.snapshot().await?;
        let mut objects = Vec::with_capacity(snapshot.objects.len());
        let mut damaged = Vec::new();
        for stored in snapshot.objects {
            match self.object(stored) {
                Ok(object) => objects.push(Arc::new(object)),
                // One damaged row must not hide the others.
                Err(damage) => damaged.push(damage),
            }
        }
        self.cache.reset(objects, damaged, snapshot.position.version);
        self.reached = snapshot.position;
        self.metrics.watch_cache_version.set(self.reached.version.0);
        Ok(())
    }

    /// Follows until told to stop.
    pub(super) async fn run(mut self, stop: CancellationToken) {
        let mut failing = false;
        loop {
            let step = tokio::select! {
                step = self.step() => step,
                () = stop.cancelled() => return,
            };
            let pause = match step {
                Ok(Step::Again) => continue,
                Ok(Step::Idle) => {
                    if std::mem::take(&mut failing) {
                        info!(version = %self.reached.version, "the watch cache follows the database again");
                    }
                    POLL
                }
                Err(error) => {
                    if !std::mem::replace(&mut failing, true) {
                        warn!(error = %error.chain(), "the watch cache cannot follow the database");
                    }
                    tokio::select! {
                        () = tokio::time::sleep(RETRY) => continue,
                        () = stop.cancelled() => return,
                    }
                }
            };
            tokio::select! {
                changed = self.notices.changed() => if changed.is_err() {
                    tokio::time::sleep(RETRY).await;
                },
                () = self.kick.notified() => {}
                () = tokio::time::sleep(pause) => {}
                () = stop.cancelled() => return,
            }
        }
    }

    async fn step(&mut self) -> Result<Step, StorageError> {
        let (position, changes, more) = match self.backend.changes(self.reached.version, PAGE).await? {
            Tail::Changes { position, changes, more } => (position, changes, more),
            Tail::Compacted => {
                warn!(version = %self.reached.version, "the watch cache fell behind compaction and starts anew");
                self.load().await?;
                return Ok(Step::Again);
            }
            Tail::Unsealed => {
                info!("the key ring has keys that were missing; the watch cache starts anew");
                self.load().await?;
                return Ok(Step::Again);
            }
        };
        if position < self.reached {
            warn!(seen = ?self.reached, found = ?position, "the database was rewound");
            self.backend.rewound(self.reached).await?;
            self.load().await?;
            return Ok(Step::Again);
        }
        if position.identity != self.reached.identity {
            warn!(incarnation = position.identity.incarnation, "the database has another history now");
            self.load().await?;
            return Ok(Step::Again);
        }
        let wanted = self.reached.version.0 + 1..=position.version.0;
        if !changes.iter().map(|change| change.stored.version.0).eq(wanted) {
            warn!(version = %self.reached.version, "the change log was read with a gap; the watch cache starts anew");
            self.load().await?;
            return Ok(Step::Again);
        }
        self.take(position, changes);
        Ok(if more { Step::Again } else { Step::Idle })
    }

    fn take(&mut self, position: Position, logged: Vec<LoggedChange>) {
        if let Some(last) = logged.last() {
            let lag = self.clock.now().duration_since(last.committed_at);
            self.metrics.watch_cache_lag.observe(lag.as_secs_f64().max(0.0));
        }
        let mut changes = Vec::with_capacity(logged.len());
        let mut damaged = Vec::new();
        for LoggedChange { kind, stored, .. } in logged {
            match self.object(stored) {
                Ok(object) => changes.push(Change { kind, object: Arc::new(object), before: None }),
                Err(damage) => damaged.push(damage),
            }
        }
        self.cache.damage(damaged);
        self.cache.extend(changes, position.version);
        self.reached = position;
        self.metrics.watch_cache_version.set(position.version.0);
    }

    fn object(&self, mut stored: Stored) -> Result<super::Object, Damaged> {
        self.share_resource(&mut stored.key.resource);
        let Stored { key, uid, version, labels, text } = stored;
        let damaged = |why: String| {
            warn!(object = %key, %version, why, "a stored object cannot be read");
            Damaged { key: key.clone(), uid, version, why }
        };
        let text = text.map_err(&damaged)?;
        if let Err(error) = serde_json::from_str::<IgnoredAny>(&text) {
            return Err(damaged(error.to_string()));
        }
        object(key.clone(), uid, version, &labels, &text, &self.fields)
            .map_err(|_| damaged("it does not begin with its metadata".to_owned()))
    }

    /// One allocation for each resource's name, not one for each object.
    fn share_resource(&self, resource: &mut Resource) {
        if let Some(known) = self.cache.known(resource) {
            *resource = known;
        }
    }
}
