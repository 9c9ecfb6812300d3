//! Makes the world follow what the resources say, and the resources' status follow the world.
//!
//! Ordinary kube-runtime loops over a `kube::Client`: they read and write the API only, and reach hosts through
//! [`AgentLink`] only. Each is observe, plan (a plain function), act, report. They run while this replica leads.

mod conditions;
mod events;
mod garbage_collection;
mod instance;
mod machine;
pub mod operation;
mod registry;
mod role_aggregation;

use std::sync::Arc;

use gantry_api::agent_v1::Token;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::clock::{SharedClock, SharedEntropy};
use crate::gateway::link::AgentLink;
use crate::telemetry::metrics::Metrics;

/// What the operator may choose.
#[derive(Clone, Copy, Debug)]
pub struct Config {
    /// How many instances are checked at the same time.
    pub health_check_concurrency: usize,
}

impl Default for Config {
    fn default() -> Self {
        Self { health_check_concurrency: 10 }
    }
}

/// Everything reconcilers need.
#[derive(Clone)]
pub struct Parts {
    /// The API, as the reconcilers' own caller.
    pub client: kube::Client,
    /// The agents.
    pub link: Arc<dyn AgentLink>,
    /// The token while this replica leads.
    pub leadership: watch::Receiver<Option<Token>>,
    /// The time of day.
    pub clock: SharedClock,
    /// Chance, for jitter.
    pub entropy: SharedEntropy,
    /// Where passes and results are counted.
    pub metrics: Metrics,
    /// What the operator chose.
    pub config: Config,
}

/// Runs every reconciler whenever this replica leads, until `stop`; returns when all of them have ended.
pub async fn run(parts: Parts, stop: CancellationToken) {
    let mut leadership = parts.leadership.clone();
    loop {
        let token = *leadership.borrow_and_update();
        if let Some(token) = token {
            let term = stop.child_token();
            let work = lead(&parts, token, term.clone());
            tokio::pin!(work);
            loop {
                tokio::select! {
                    () = &mut work => return,
                    changed = leadership.changed() => {
                        if changed.is_ok() && *leadership.borrow() == Some(token) {
                            continue;
                        }
                        term.cancel();
                        work.as_mut().await;
                        break;
                    }
                }
            }
        } else {
            tokio::select! {
                () = stop.cancelled() => return,
                changed = leadership.changed() => if changed.is_err() { return },
            }
        }
        if stop.is_cancelled() {
            return;
        }
    }
}

async fn lead(parts: &Parts, token: Token, term: CancellationToken) {
    tracing::info!(epoch = token.epoch, "reconciling");
    let (recorder, recording) = events::Recorder::new(parts.client.clone(), parts.clock.clone());
    let instances = instance::run(parts, &recorder, term.clone());
    let operations = operation::run(parts, token, &recorder, term.clone());
    let garbage = garbage_collection::run(parts.client.clone(), parts.clock.clone(), &recorder, term.clone());
    let registries = registry::run(parts, term.clone());
    let roles = role_aggregation::run(parts, term.clone());
    let recording = recording.run(term.clone());
    tokio::join!(instances, operations, garbage, registries, roles, recording);
    tracing::info!(epoch = token.epoch, "no longer reconciling");
}
