//! One simulated host's agent: what the agent's own wiring makes, without its files, its metrics' page and its Docker.

use std::path::Path;
use std::sync::Arc;

use anyhow::{Context as _, anyhow};
use clap::Parser as _;
use gantry_agent::clock::{Entropy as _, SharedClock, SharedEntropy, SystemEntropy};
use gantry_agent::config::Flags;
use gantry_agent::enrollment::Enrollment;
use gantry_agent::enrollment::certificate::Enrolled;
use gantry_agent::enrollment::key::AgentKey;
use gantry_agent::inventory::Inventory;
use gantry_agent::journal::{Journal, MemoryDisk};
use gantry_agent::operations::{self, Operations, Pace};
use gantry_agent::session::dial::Dialer;
use gantry_agent::session::readiness::Gate;
use gantry_agent::session::{Link, Parts};
use gantry_agent::state_dir::StateDir;
use gantry_agent::streams::{self, Streaming};
use gantry_agent::telemetry::metrics::Metrics;
use tokio_util::sync::CancellationToken;

use super::Settings;
use super::host::Host;

/// What is known of one.
pub(super) struct SimulatedAgent {
    metrics: Metrics,
}

/// What it runs on.
pub(super) struct Links {
    link: Link,
    operations: Operations,
}

impl Links {
    /// Keeps the link as long as this is awaited.
    pub async fn run(self) {
        self.link.run(&CancellationToken::new()).await;
        drop(self.operations);
    }
}

impl SimulatedAgent {
    pub fn is_connected(&self) -> bool {
        self.metrics.connected.get() == 1
    }

    pub fn reconnects(&self) -> u64 {
        self.metrics.reconnects.get()
    }

    /// Enrols it on that road, unless it is, and makes all that its link needs.
    pub async fn enroll(
        settings: &Settings,
        name: &str,
        road: &str,
        dir: &Path,
        host: &Arc<Host>,
        clock: &SharedClock,
    ) -> anyhow::Result<(Self, Links)> {
        let mut flags = vec!["agent", "--controller", &settings.controller, "--instance", name];
        flags.extend(settings.token.iter().flat_map(|token| ["--token", token]));
        flags.extend(settings.ca_hash.iter().flat_map(|hash| ["--ca-hash", hash]));
        let config = Flags::try_parse_from(flags)?.resolve().map_err(|error| {
            let hint = error.hint();
            anyhow::Error::from(error).context(hint)
        })?;
        let entropy: SharedEntropy = Arc::new(SystemEntropy);
        let state = Arc::new(StateDir::open(dir)?);
        let journal = Journal::open(Arc::new(MemoryDisk::default()), &entropy).await?;
        let gate = Arc::new(Gate::new(clock.clone(), entropy.clone()));
        let dialer = Arc::new(Dialer::new(config.controller.clone(), config.transport)?);
        let key = Arc::new(AgentKey::open(&state)?);
        let enrolled = if let Some(enrolled) = Enrolled::open(state.clone(), key.clone())? {
            enrolled
        } else {
            let dialer = Dialer::new(road.parse()?, config.transport)?;
            let enrollment = Enrollment { config: &config, dialer: &dialer, state: &state, key: &key };
            enrollment.until_decided(entropy.clone()).await.map_err(|error| {
                let hint = error.hint();
                anyhow!("{hint}").context(error).context(format!("{name} was not enrolled"))
            })?
        };
        let operations = Operations::start(operations::Parts {
            engine: host.clone(),
            journal,
            clock: clock.clone(),
            readiness: gate.clone(),
            policy: config.policy.into(),
            pace: Pace::default(),
        });
        let metrics = Metrics::new().context("metrics cannot be set up")?;
        let limits = streams::Limits::default();
        let parts = Parts {
            streams: Streaming::new(host.clone(), clock.clone(), config.policy.into(), limits),
            inventory: Inventory::keep(host.clone(), clock.clone(), entropy.clone()),
            engine: host.clone(),
            operations: operations.clone(),
            enrolled: Arc::new(enrolled),
            gate,
            policy: config.policy.into(),
            boot_nonce: SystemEntropy.uuid().to_string(),
            clock: clock.clone(),
            metrics: metrics.clone(),
        };
        Ok((Self { metrics }, Links { link: Link::new(dialer, parts, entropy), operations }))
    }
}
