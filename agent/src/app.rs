//! The wiring: what is built, spawned, joined, and stopped in which order.

use std::collections::HashSet;
use std::net::SocketAddr;
use std::sync::Arc;

use futures::StreamExt as _;
use gantry_api::agent_v1::action::Action;
use gantry_api::agent_v1::{OperationReport, OperationState};
use tokio::net::TcpListener;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;
use uuid::Uuid;

use crate::clock::{Entropy as _, SharedClock, SharedEntropy, SystemClock, SystemEntropy};
use crate::config::{Config, ConfigError};
use crate::docker::bollard::BollardEngine;
use crate::docker::host_credentials::HostCredentials;
use crate::docker::{DockerError, Engine};
use crate::enrollment::certificate::{CertificateError, Enrolled};
use crate::enrollment::key::{AgentKey, KeyError};
use crate::enrollment::token::JoinToken;
use crate::enrollment::{EnrollError, Enrollment};
use crate::inventory::Inventory;
use crate::journal::{DirectoryDisk, Journal, JournalError, Ledger, Phase};
use crate::operations::{Operations, Pace};
use crate::session::backoff::Backoff;
use crate::session::dial::{DialError, Dialer, one_line};
use crate::session::readiness::Gate;
use crate::session::{Link, Parts};
use crate::state_dir::{StateDir, StateError};
use crate::streams::{self, Streaming};
use crate::telemetry::metrics::Metrics;
use crate::telemetry::server::{self, Pages};
use crate::telemetry::traces::{self, TelemetryError};

/// Counted operations that may be remembered before those the journal let go of are dropped.
const MOST_COUNTED: usize = 20_000;

/// Why the agent cannot run.
#[derive(Debug, thiserror::Error)]
pub enum AppError {
    /// The configuration.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The state directory.
    #[error(transparent)]
    State(#[from] StateError),
    /// The key in it.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// The certificate in it.
    #[error(transparent)]
    Certificate(#[from] CertificateError),
    /// Enrolment.
    #[error(transparent)]
    Enroll(#[from] EnrollError),
    /// TLS.
    #[error(transparent)]
    Dial(#[from] DialError),
    /// Log and traces.
    #[error(transparent)]
    Telemetry(#[from] TelemetryError),
    /// Metrics.
    #[error("metrics cannot be set up")]
    Metrics(#[from] prometheus::Error),
    /// The journal's directory.
    #[error("journal cannot be opened")]
    JournalDirectory(#[source] std::io::Error),
    /// The journal.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// The engine's address.
    #[error("`{0}` cannot be a Docker host")]
    DockerHost(String, #[source] DockerError),
    /// The address for metrics.
    #[error("cannot listen on {0}")]
    Listen(SocketAddr, #[source] std::io::Error),
    /// Another instance's state.
    #[error("the state directory belongs to instance `{0}`, not to `{1}`")]
    OtherInstance(String, String),
}

impl AppError {
    /// What to do about it, where that can be said.
    pub fn hint(&self) -> Option<&'static str> {
        Some(match self {
            Self::Config(error) => error.hint(),
            Self::State(error)
            | Self::Key(KeyError::State(error))
            | Self::Certificate(CertificateError::State(error)) => error.hint(),
            Self::Enroll(error) => error.hint(),
            Self::Telemetry(error) => return error.hint(),
            Self::DockerHost(..) => "a Docker host looks like unix:///var/run/docker.sock or tcp://HOST:2375",
            Self::Listen(..) => "stop what listens there, or choose another address with `--metrics-listen`",
            Self::JournalDirectory(_) => "the state directory must be writable and the agent's own",
            Self::OtherInstance(..) => {
                "give each instance its own `--state-dir`, or the same names as before"
            }
            _ => return None,
        })
    }
}

/// Runs until `stop`, then stops cleanly: first the link, then operations and journal, then the traces.
pub async fn run(config: Config, stop: CancellationToken) -> Result<(), AppError> {
    let (endpoint, ca_file) = (config.otlp_endpoint.as_deref(), config.otlp_ca_file.as_deref());
    let traces = traces::install(config.log_format, endpoint, ca_file)?;
    let outcome = stop.run_until_cancelled(Box::pin(prepare(&config))).await;
    let outcome = match outcome {
        None => Ok(()),
        Some(Err(error)) => Err(error),
        Some(Ok(mut agent)) => {
            agent.keep_link(&config, &stop).await;
            agent.operations.stop().await;
            tracing::info!("stopped");
            Ok(())
        }
    };
    traces.flush().await;
    outcome
}

struct Agent {
    link: Link,
    operations: Operations,
    dialer: Arc<Dialer>,
    state: Arc<StateDir>,
    enrolled: Arc<Enrolled>,
    entropy: SharedEntropy,
    _tasks: Vec<AbortOnDropHandle<()>>,
}

impl Agent {
    /// Keeps the link until `stop`. When the instance was deleted and a join token is given, this host enrols anew with it, under
    /// the same name; a token that was refused is not tried twice.
    async fn keep_link(&mut self, config: &Config, stop: &CancellationToken) {
        let mut backoff = Backoff::new(self.entropy.clone());
        let mut refused = None;
        while let Some(mut asked) = self.link.run_until_gone(stop).await {
            match stop.run_until_cancelled(self.enroll_anew(config, refused.as_ref())).await {
                None => return,
                Some(Ok(Some(fresh))) => {
                    self.enrolled = Arc::new(fresh);
                    self.link = self.link.with_identity(self.enrolled.clone());
                    backoff.reset();
                    continue;
                }
                Some(Ok(None)) => {}
                Some(Err((token, error))) => {
                    tracing::warn!(
                        error = one_line(&error),
                        "the instance is gone and this host is not enrolled anew"
                    );
                    asked = error.retry_after().or(asked);
                    refused = error.is_token_refused().then_some(token).or(refused);
                }
            }
            if stop.run_until_cancelled(sleep(backoff.wait(asked))).await.is_none() {
                return;
            }
        }
    }

    /// `None` without a token that was not refused yet.
    async fn enroll_anew(
        &self,
        config: &Config,
        refused: Option<&JoinToken>,
    ) -> Result<Option<Enrolled>, (JoinToken, EnrollError)> {
        let (Ok(Some(token)), Some(ca)) = (config.token.read().await, config.ca_hash) else {
            return Ok(None);
        };
        if refused == Some(&token) {
            return Ok(None);
        }
        let config = named_as(config, &self.enrolled);
        let (state, key) = (&self.state, self.enrolled.key());
        let enrollment = Enrollment { config: &config, dialer: &self.dialer, state, key };
        enrollment.once(&token, ca).await.map(Some).map_err(|error| (token, error))
    }
}

/// An instance keeps its name, also where the host it was taken from has another one by now.
fn named_as(config: &Config, enrolled: &Enrolled) -> Config {
    Config { instance: enrolled.identity().instance.clone(), ..config.clone() }
}

async fn prepare(config: &Config) -> Result<Agent, AppError> {
    let clock: SharedClock = Arc::new(SystemClock);
    let entropy: SharedEntropy = Arc::new(SystemEntropy);
    let metrics = Metrics::new()?;
    let engine = BollardEngine::new(&config.docker_host)
        .map_err(|cause| AppError::DockerHost(config.docker_host.clone(), cause))?;
    let host_credentials = config.host_registry_credentials.then(HostCredentials::of_this_user).flatten();
    let engine = Arc::new(engine.with_host_credentials(host_credentials));
    let inventory = Inventory::keep(engine.clone(), clock.clone(), entropy.clone());
    let listener = match config.metrics_listen {
        Some(address) => {
            Some(TcpListener::bind(address).await.map_err(|cause| AppError::Listen(address, cause))?)
        }
        None => None,
    };
    let state = Arc::new(StateDir::open(&config.state_dir)?);
    let disk = DirectoryDisk::open(state.journal()).await.map_err(AppError::JournalDirectory)?;
    let journal = Journal::open(disk, &entropy).await?;
    let gate = Arc::new(Gate::new(clock.clone(), entropy.clone()));
    let mut tasks = Vec::new();
    if let Some(listener) = listener {
        let pages = Pages { metrics: metrics.clone(), readiness: gate.clone(), journal: journal.clone() };
        tasks.push(AbortOnDropHandle::new(tokio::spawn(server::serve(listener, Arc::new(pages)))));
    }
    tracing::info!(version = env!("CARGO_PKG_VERSION"), instance = config.instance, "started");
    let dialer = Arc::new(Dialer::new(config.controller.clone(), config.transport)?);
    let enrolled = Arc::new(enrolled(config, &state, &dialer, &clock, &entropy).await?);
    let ended = ended(&journal);
    let streams =
        Streaming::new(engine.clone(), clock.clone(), config.policy.into(), streams::Limits::default());
    let engine: Arc<dyn Engine> = engine;
    let operations = Operations::start(crate::operations::Parts {
        engine: engine.clone(),
        journal: journal.clone(),
        clock: clock.clone(),
        readiness: gate.clone(),
        policy: config.policy.into(),
        pace: Pace::default(),
    });
    let asked = engine.clone();
    // So that even the first Hello can say it. Where the engine is away, whoever needs it asks again.
    let ask = async move { drop(asked.id().await) };
    tasks.push(AbortOnDropHandle::new(tokio::spawn(ask)));
    let counting = count(operations.clone(), journal, metrics.clone(), ended);
    tasks.push(AbortOnDropHandle::new(tokio::spawn(counting)));
    let parts = Parts {
        engine,
        inventory,
        operations: operations.clone(),
        streams,
        enrolled: enrolled.clone(),
        gate,
        policy: config.policy.into(),
        boot_nonce: SystemEntropy.uuid().to_string(),
        clock,
        metrics,
    };
    let link = Link::new(dialer.clone(), parts, entropy.clone());
    Ok(Agent { link, operations, dialer, state, enrolled, entropy, _tasks: tasks })
}

/// The identity in the state directory, else a new one. One whose certificate ran out is renewed with a token, if there is
/// one; without, it is still tried, since our clock may be wrong.
async fn enrolled(
    config: &Config,
    state: &Arc<StateDir>,
    dialer: &Dialer,
    clock: &SharedClock,
    entropy: &SharedEntropy,
) -> Result<Enrolled, AppError> {
    let key = Arc::new(AgentKey::open(state)?);
    let enrollment = Enrollment { config, dialer, state, key: &key };
    let Some(present) = Enrolled::open(state.clone(), key.clone())? else {
        return Ok(enrollment.until_decided(entropy.clone()).await?);
    };
    let identity = present.identity();
    let is_other_name = config.is_instance_given && identity.instance != config.instance;
    if is_other_name || identity.namespace != config.namespace {
        let kept = format!("{}/{}", identity.namespace, identity.instance);
        return Err(AppError::OtherInstance(kept, format!("{}/{}", config.namespace, config.instance)));
    }
    if present.credentials().expires_at > clock.now().as_second() {
        return Ok(present);
    }
    let (Ok(Some(token)), Some(ca)) = (config.token.read().await, config.ca_hash) else {
        return Ok(present);
    };
    let config = named_as(config, &present);
    match (Enrollment { config: &config, ..enrollment }).once(&token, ca).await {
        Ok(fresh) => Ok(fresh),
        Err(error) => {
            tracing::error!(error = one_line(&error), "the certificate has expired and no new one was given");
            Ok(present)
        }
    }
}

/// Operations that ended in an earlier run and were counted there.
fn ended(journal: &Journal) -> HashSet<Uuid> {
    let has_ended = |phase| matches!(phase, Phase::Finished | Phase::Withdrawn);
    journal.read(|ledger| {
        ledger.entries().filter(|(_, entry)| has_ended(entry.phase)).map(|(uid, _)| *uid).collect()
    })
}

async fn count(operations: Operations, journal: Journal, metrics: Metrics, mut counted: HashSet<Uuid>) {
    let mut reports = std::pin::pin!(operations.watch());
    while let Some(report) = reports.next().await {
        let has_ended = matches!(report.state(), OperationState::Finished | OperationState::Withdrawn);
        let Ok(uid) = report.uid.parse() else { continue };
        if !has_ended {
            // Another attempt of one that was counted.
            counted.remove(&uid);
        } else if counted.insert(uid) {
            let action = journal.read(|ledger| action(ledger, &uid));
            metrics.operations.with_label_values(&[action, outcome(&report)]).inc();
        }
        if counted.len() > MOST_COUNTED {
            journal.read(|ledger| counted.retain(|uid| ledger.entry(uid).is_some()));
        }
    }
}

fn outcome(report: &OperationReport) -> &'static str {
    report.outcome().as_str_name().trim_start_matches("OUTCOME_")
}

fn action(ledger: &Ledger, uid: &Uuid) -> &'static str {
    let request = ledger.entry(uid).map(|entry| &entry.request);
    match request.and_then(|request| request.action.as_ref()?.action.as_ref()) {
        Some(Action::ContainerStart(_)) => "Start",
        Some(Action::ContainerStop(_)) => "Stop",
        Some(Action::ContainerRestart(_)) => "Restart",
        Some(Action::ContainerPause(_)) => "Pause",
        Some(Action::ContainerUnpause(_)) => "Unpause",
        Some(Action::ContainerKill(_)) => "Kill",
        Some(Action::ContainerRemove(_)) => "Remove",
        Some(Action::ContainerRename(_)) => "Rename",
        Some(Action::ImagePull(_)) => "Pull",
        Some(Action::ImageRemove(_)) => "RemoveImage",
        Some(Action::ImageTag(_)) => "Tag",
        None => "Unknown",
    }
}
