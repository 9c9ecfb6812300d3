//! The Kubernetes API over the store: what kubectl, kube-rs and our own reconcilers speak to.
//!
//! Knows HTTP, verbs and kinds. Does not know Postgres (that is [`crate::storage`]), TLS and who the caller is (the server puts a
//! [`crate::auth::Caller`] into the request's extensions), nor what a kind's spec means (the reconcilers).

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use tokio_util::sync::CancellationToken;

use crate::audit;
use crate::auth::tokens::Tokens;
use crate::auth::{Authenticator, Rights};
use crate::clock::{SharedClock, SharedEntropy};
use crate::gateway::link::InstanceUid;
use crate::live::Live;
use crate::live::inventory::following::INSTANCES;
use crate::live::recording::Extent;
use crate::policy::Policies;
use crate::storage::{Object, Resource, Store, Version};
use crate::telemetry::metrics::Metrics;
use crate::watch_cache::WatchCache;

pub mod admission;
pub(crate) mod answer;
mod audited;
pub mod authorize;
mod client;
pub mod decode;
pub mod discovery;
pub mod failure;
mod grants;
mod health;
mod impersonate;
pub mod kinds;
pub(crate) mod limits;
pub mod openapi;
pub(crate) mod origin;
mod partial;
mod patch;
mod policies;
mod protobuf;
pub(crate) mod request;
mod router;
pub mod schema;
mod selectors;
mod table;
mod uids;
mod verbs;
pub(crate) mod view;
mod watch;
mod websocket;
mod weight;

pub use client::client;
pub use health::{Check, ReadyChecks};
pub use router::{OTHER_ROUTES, Route, Verb, router, routes};

use failure::{Failure, Outcome};
use kinds::Kind;
use limits::Limits;
use origin::Origin;
use request::{Call, Freshness};
use uids::Uids;

/// Longest a consistent read waits for the database.
const PATIENCE: Duration = Duration::from_secs(2);

/// What the verbs work with.
#[derive(Clone)]
pub struct ApiServer {
    store: Store,
    clock: SharedClock,
    entropy: SharedEntropy,
    metrics: Metrics,
    checks: ReadyChecks,
    stopping: CancellationToken,
    authenticator: Authenticator,
    tokens: Arc<Tokens>,
    rights: Rights,
    policies: Policies,
    limits: Limits,
    uids: Arc<Uids>,
    audit: audit::Sink,
    live: Live,
    origins: Arc<[Origin]>,
}

impl ApiServer {
    /// Serves the store, tokens of its ServiceAccounts, and what the authenticator says of tokens; watches end in order when `stopping` is cancelled.
    pub fn new(
        store: Store,
        clock: SharedClock,
        entropy: SharedEntropy,
        metrics: Metrics,
        checks: ReadyChecks,
        stopping: CancellationToken,
        authenticator: Authenticator,
    ) -> Arc<Self> {
        Arc::new(Self {
            live: Live::new(entropy.as_ref()),
            rights: authenticator.rights().clone(),
            policies: Policies::new(store.clone()),
            tokens: Arc::clone(authenticator.tokens()),
            authenticator,
            audit: audit::Sink::new(store.clone(), metrics.clone(), audit::Settings::default()),
            store,
            clock,
            entropy,
            metrics,
            checks,
            stopping,
            limits: Limits::new(),
            uids: Arc::default(),
            origins: Arc::default(),
        })
    }

    /// The same with an audit log as the administrator wants it.
    #[must_use]
    pub fn with_audit(self: Arc<Self>, settings: audit::Settings) -> Arc<Self> {
        let server = Arc::unwrap_or_clone(self);
        let audit = audit::Sink::new(server.store.clone(), server.metrics.clone(), settings);
        Arc::new(Self { audit, ..server })
    }

    /// The same with terminals recorded at least so in every namespace.
    #[must_use]
    pub fn with_recording(self: Arc<Self>, least: Extent) -> Arc<Self> {
        let server = Arc::unwrap_or_clone(self);
        Arc::new(Self { live: server.live.clone().recording(least), ..server })
    }

    /// The same with archives of at most so many bytes, out of containers and into them.
    #[must_use]
    pub fn with_archives_up_to(self: Arc<Self>, limit: u64) -> Arc<Self> {
        let server = Arc::unwrap_or_clone(self);
        Arc::new(Self { live: server.live.clone().limiting_archives(limit), ..server })
    }

    /// The same for pages of these origins as well.
    #[must_use]
    pub fn with_origins(self: Arc<Self>, origins: &[Origin]) -> Arc<Self> {
        Arc::new(Self { origins: origins.into(), ..Arc::unwrap_or_clone(self) })
    }

    /// The way to the agents.
    pub fn live(&self) -> &Live {
        &self.live
    }

    /// The time of day.
    pub(crate) fn now(&self) -> Timestamp {
        self.clock.now()
    }

    /// What is stored.
    pub(crate) fn store(&self) -> &Store {
        &self.store
    }

    /// Cancelled when what is open is to end.
    pub(crate) fn stopping(&self) -> &CancellationToken {
        &self.stopping
    }

    /// Time.
    pub(crate) fn clock(&self) -> &SharedClock {
        &self.clock
    }

    /// Ids and chance.
    pub(crate) fn entropy(&self) -> &SharedEntropy {
        &self.entropy
    }

    /// Metrics.
    pub(crate) fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    /// How much is taken on at once.
    pub(crate) fn limits(&self) -> &Limits {
        &self.limits
    }

    /// Where records go.
    pub fn audit(&self) -> &audit::Sink {
        &self.audit
    }

    /// A sentence on the hosts of which nothing is known, so that a list without them is not taken for one of everything.
    fn unknown_hosts(&self, namespace: Option<&str>) -> Vec<String> {
        const MOST_NAMED: usize = 5;
        let instances = self.store.cache().list(&Resource(INSTANCES.into()), namespace).objects;
        let is_unknown = |object: &&Arc<Object>| !self.live.inventories().knows(InstanceUid(object.uid));
        let unknown: Vec<_> = instances.iter().filter(is_unknown).collect();
        if unknown.is_empty() {
            return Vec::new();
        }
        let named = unknown
            .iter()
            .take(MOST_NAMED)
            .map(|object| format!("{}/{}", object.key.namespace, object.key.name));
        let named = named.collect::<Vec<_>>().join(", ");
        let more = if unknown.len() > MOST_NAMED { ", …" } else { "" };
        vec![format!(
            "what there is on {} hosts is not known, so it is not listed: {named}{more}",
            unknown.len()
        )]
    }

    /// What reads of a kind are answered from.
    fn cache(&self, kind: &Kind) -> &WatchCache {
        if kind.is_live { self.live.inventories().cache() } else { self.store.cache() }
    }

    /// What may be asked of hosts.
    pub fn policies(&self) -> &Policies {
        &self.policies
    }

    /// Waits until memory has everything that was acknowledged before; 503 when the database does not answer in time.
    pub(crate) async fn caught_up(&self) -> Outcome<Version> {
        match tokio::time::timeout(PATIENCE, self.store.caught_up()).await {
            Ok(Ok(version)) => Ok(version),
            Ok(Err(error)) => {
                tracing::warn!(%error, "a consistent read is impossible");
                Err(unreadable())
            }
            Err(_) => Err(unreadable()),
        }
    }

    /// As [`ApiServer::reach`], for a read that is better answered from memory than not at all; how old that may be, where the
    /// database does not answer. Our own parts want to know instead.
    async fn reach_or_age(&self, call: &Call, freshness: Freshness) -> Outcome<Option<Duration>> {
        match self.reach(call.kind, freshness).await {
            Err(failure) if failure.is_unavailable() && !call.is_ours => Ok(Some(self.store.cache().age())),
            outcome => outcome.map(|()| None),
        }
    }

    /// Waits until memory is as new as a read asks for.
    pub(crate) async fn reach(&self, kind: &Kind, freshness: Freshness) -> Outcome<()> {
        match freshness {
            Freshness::NotOlderThan(version) | Freshness::Exact(version) if kind.is_live => {
                if self.live.inventories().has_given(version) {
                    Ok(())
                } else {
                    Err(Failure::of_another_history(version))
                }
            }
            Freshness::Newest if kind.is_live => Ok(()),
            Freshness::Any => Ok(()),
            Freshness::Newest => self.caught_up().await.map(|_| ()),
            Freshness::NotOlderThan(version) | Freshness::Exact(version) => {
                if self.store.cache().reached(version, PATIENCE).await {
                    Ok(())
                } else {
                    Err(Failure::version_too_large(version.0, self.store.cache().version().0))
                }
            }
        }
    }
}

fn unreadable() -> Failure {
    Failure::unavailable(
        "the database does not answer, so the newest state is unknown; try again, or read what is in memory with resourceVersion=0",
    )
}
