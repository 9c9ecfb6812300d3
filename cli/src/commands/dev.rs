//! `gantry dev`: a controller with its database, and an agent for this host, as children of one program.
//!
//! Started in order controller, agent; stopped in order agent, controller. A child that dies is started again.

mod child;
mod data_dir;

use std::ffi::OsStr;
use std::io::Write as _;
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context as _;
use gantry_api::v1alpha1::DockerInstance;
use jiff::{SignedDuration, Timestamp};
use kube::Api;
use kube::config::Kubeconfig;
use tokio::process::Command;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::{sleep, timeout};
use x509_parser::extensions::GeneralName;
use x509_parser::pem::Pem;

use crate::args::DevArgs;
use crate::client::Controller;
use crate::clock::now;
use crate::commands::token;
use crate::context::default_data_dir;
use crate::output::failure::{hinted, hinted_by};
use crate::output::log::{Log, Source};
pub(crate) use child::find;
use child::{Child, Next};
use data_dir::DataDir;

/// A new database, its migrations and a self-made authority fit in easily.
const START_PATIENCE: Duration = Duration::from_secs(120);
const POLL: Duration = Duration::from_millis(200);
const TOKEN_PATIENCE: Duration = Duration::from_secs(10);
const TOKEN_LIFE: SignedDuration = SignedDuration::from_mins(10);
const AGENT_STOP_PATIENCE: Duration = Duration::from_secs(10);
const CONTROLLER_STOP_PATIENCE: Duration = Duration::from_secs(30);
/// Namespace of this host's DockerInstance.
const NAMESPACE: &str = "default";
/// The agent keeps its certificate under this name once it is enrolled.
const AGENT_CERTIFICATE: &str = "certificate.pem";

/// What is run, and with what.
struct Setup {
    options: DevArgs,
    dir: DataDir,
    controller: PathBuf,
    agent: PathBuf,
    instance: String,
}

/// Runs until a signal; then both children have ended too.
pub(crate) async fn run(options: DevArgs) -> anyhow::Result<()> {
    let path = options.data_dir.clone().map_or_else(default_data_dir, Ok)?;
    let (controller, agent) = (find("gantry-controller")?, find("gantry-agent")?);
    let instance = instance_name(options.instance.as_deref())?;
    let dir = DataDir::take(&path)?;
    check_free(options.listen, "--listen")?;
    check_free(options.agent_metrics_listen, "--agent-metrics-listen")?;
    let setup = Setup { options, dir, controller, agent, instance };
    let log = Log::new();
    let mut stop = StopSignals::new()?;
    let mut controller = Child::new(Source::Controller, log);
    let mut agent = Child::new(Source::Agent, log);

    let outcome = tokio::select! {
        outcome = keep_running(&setup, log, &mut controller, &mut agent) => outcome,
        () = stop.arrived() => {
            log.line(Source::Dev, "stopping; once more to kill");
            Ok(())
        }
    };
    agent.stop(AGENT_STOP_PATIENCE, stop.arrived()).await;
    controller.stop(CONTROLLER_STOP_PATIENCE, stop.arrived()).await;
    if outcome.is_ok() {
        log.line(Source::Dev, "stopped");
    }
    outcome
}

/// Starts both and starts again what dies. Ends only with an error, of the first start.
async fn keep_running(
    setup: &Setup,
    log: Log,
    controller: &mut Child,
    agent: &mut Child,
) -> anyhow::Result<()> {
    controller.start(setup.controller_command()?)?;
    let kubeconfig = setup.dir.kubeconfig();
    tokio::select! {
        ready = ready(&kubeconfig) => ready?,
        next = controller.next() => {
            let how = if let Next::Ended(how) = next { how } else { "it was not started".to_owned() };
            return Err(hinted(
                format!("the controller ended before it was ready: {how}"),
                "its reason is in the log above",
            ));
        }
    }
    let mut is_announced = false;
    loop {
        tokio::select! {
            next = controller.next() => match next {
                Next::Ended(how) => controller.died(&how).await,
                Next::Due => {
                    if let Err(error) = setup.controller_command().and_then(|command| controller.start(command)) {
                        controller.died(&format!("{error:#}")).await;
                    }
                }
            },
            next = agent.next() => match next {
                Next::Ended(how) => agent.died(&how).await,
                Next::Due => match setup.agent_command().await.and_then(|command| agent.start(command)) {
                    Ok(()) if !is_announced => {
                        is_announced = true;
                        announce(setup, log);
                    }
                    Ok(()) => {}
                    Err(error) => agent.died(&format!("{error:#}")).await,
                },
            },
        }
    }
}

impl Setup {
    fn controller_command(&self) -> anyhow::Result<Command> {
        let mut command = program(&self.controller);
        command
            .arg("--data-dir")
            .arg(self.dir.controller())
            .arg("--kubernetes-view")
            .arg("--kubeconfig-out")
            .arg(self.dir.kubeconfig())
            .arg("--listen")
            .arg(self.options.listen.to_string());
        for name in &self.options.tls_sans {
            command.arg("--tls-san").arg(name);
        }
        command.env_remove("GANTRY_EMBEDDED_POSTGRES").env_remove("GANTRY_DATABASE_URL");
        match &self.options.database_url {
            // By environment: arguments can be read by every user of the machine.
            Some(url) => command.env("GANTRY_DATABASE_URL", url),
            None => command.arg("--embedded-postgres").arg(self.dir.postgres()?),
        };
        Ok(command)
    }

    /// With a new token where this host is not enrolled, was away for longer than its certificate was valid, or has lost its
    /// instance.
    async fn agent_command(&self) -> anyhow::Result<Command> {
        let controller = controller(&self.dir.kubeconfig()).await?;
        let mut command = program(&self.agent);
        command
            .arg("--state-dir")
            .arg(self.dir.agent())
            .arg("--controller")
            .arg(&controller.agents_url)
            .arg("--ca-hash")
            .arg(controller.pinned()?)
            .args(["--namespace", NAMESPACE, "--instance", &self.instance])
            .arg("--metrics-listen")
            .arg(self.options.agent_metrics_listen.to_string());
        if let Some(docker_host) = &self.options.docker_host {
            command.arg("--docker-host").arg(docker_host);
        }
        command.env_remove("GANTRY_TOKEN").env_remove("GANTRY_TOKEN_FILE");
        let certificate = self.dir.agent().join(AGENT_CERTIFICATE);
        if !is_valid(&certificate, now()) || !self.is_instance_of(&controller, &certificate).await? {
            let token = timeout(TOKEN_PATIENCE, token::create(&controller, NAMESPACE, TOKEN_LIFE, 1))
                .await
                .map_err(|_| {
                    anyhow::anyhow!("the controller made no join token within {TOKEN_PATIENCE:?}")
                })??;
            command.env("GANTRY_TOKEN", token.text);
        }
        Ok(command)
    }
}

impl Setup {
    /// True if this host's instance is there and the one that the certificate names, not one that was deleted.
    async fn is_instance_of(&self, controller: &Controller, certificate: &Path) -> anyhow::Result<bool> {
        let instances: Api<DockerInstance> = Api::namespaced(controller.client.clone(), NAMESPACE);
        let found = timeout(TOKEN_PATIENCE, instances.get_opt(&self.instance))
            .await
            .map_err(|_| anyhow::anyhow!("the controller did not answer within {TOKEN_PATIENCE:?}"))?
            .map_err(|error| controller.explain(error, "this host's instance cannot be looked up"))?;
        let metadata = found.map(|instance| instance.metadata).unwrap_or_default();
        Ok(metadata.deletion_timestamp.is_none()
            && metadata.uid.is_some()
            && metadata.uid == instance_uid(certificate))
    }
}

/// The uid of the instance that a certificate is for.
fn instance_uid(certificate: &Path) -> Option<String> {
    let bytes = std::fs::read(certificate).ok()?;
    let pem = Pem::iter_from_buffer(&bytes).flatten().next()?;
    let parsed = pem.parse_x509().ok()?;
    let names = parsed.subject_alternative_name().ok()??;
    names.value.general_names.iter().find_map(|name| match name {
        GeneralName::URI(uri) => uri.strip_prefix("gantry://instance/").map(str::to_owned),
        _ => None,
    })
}

/// True if there is a certificate that has not ended.
fn is_valid(certificate: &Path, now: Timestamp) -> bool {
    let Ok(bytes) = std::fs::read(certificate) else { return false };
    Pem::iter_from_buffer(&bytes)
        .flatten()
        .next()
        .and_then(|pem| pem.parse_x509().map(|found| found.validity().not_after.timestamp()).ok())
        .is_some_and(|ends| now.as_second() < ends)
}

/// Our log is for a person even where it goes to a file, so the children's is too, unless told otherwise.
fn program(path: &Path) -> Command {
    let mut command = Command::new(path);
    if std::env::var_os("GANTRY_LOG_FORMAT").is_none() {
        command.env("GANTRY_LOG_FORMAT", OsStr::new("text"));
    }
    command
}

async fn controller(kubeconfig: &Path) -> anyhow::Result<Controller> {
    Controller::of(Kubeconfig::read_from(kubeconfig).context("the controller's kubeconfig cannot be used")?)
        .await
}

/// Resolves when the controller says so. An earlier run's kubeconfig may lie there until the new one is written.
async fn ready(kubeconfig: &Path) -> anyhow::Result<()> {
    let attempts = async {
        loop {
            if let Ok(controller) = controller(kubeconfig).await
                && controller.is_ready().await
            {
                return;
            }
            sleep(POLL).await;
        }
    };
    timeout(START_PATIENCE, attempts).await.map_err(|_| {
        hinted(
            format!("the controller was not ready within {START_PATIENCE:?}"),
            "its log above says what it waits for",
        )
    })
}

fn check_free(address: SocketAddr, flag: &str) -> anyhow::Result<()> {
    TcpListener::bind(address).map(drop).map_err(|cause| {
        hinted_by(
            cause,
            format!("cannot listen on {address}"),
            format!("stop what listens there, or choose another address with {flag}"),
        )
    })
}

/// The given name, else the host's.
fn instance_name(given: Option<&str>) -> anyhow::Result<String> {
    if let Some(name) = given {
        return Ok(name.to_owned());
    }
    let host = nix::unistd::gethostname().context("this host has no name: give one with --instance")?;
    object_name(&host.to_string_lossy())
        .ok_or_else(|| hinted("this host's name cannot name an object", "give one with --instance"))
}

/// A host name made fit for an object's name: lower case, each label beginning and ending with a letter or digit.
fn object_name(host: &str) -> Option<String> {
    let host = host.to_lowercase();
    let labels: Vec<String> = host
        .split('.')
        .map(|label| {
            let label: String =
                label.chars().map(|it| if it.is_ascii_alphanumeric() { it } else { '-' }).collect();
            label.trim_matches('-').to_owned()
        })
        .filter(|label| !label.is_empty())
        .collect();
    let name = labels.join(".");
    (!name.is_empty()).then_some(name)
}

/// The three lines, on standard output so that the log can go elsewhere.
fn announce(setup: &Setup, log: Log) {
    log.line(Source::Dev, "ready");
    let lines = format!(
        "kubectl:  export KUBECONFIG='{}'; kubectl get gantry
metrics:  kubectl get --raw /metrics (controller), http://{}/metrics (agent)
stop:     Ctrl-C, or `kill {}`; everything is kept for the next start
",
        setup.dir.kubeconfig().display(),
        setup.options.agent_metrics_listen,
        std::process::id(),
    );
    // Where nobody reads there is nobody to tell.
    let _ = std::io::stdout().lock().write_all(lines.as_bytes());
}

/// The signals that mean: stop.
struct StopSignals {
    interrupt: Signal,
    terminate: Signal,
    hang_up: Signal,
}

impl StopSignals {
    fn new() -> anyhow::Result<Self> {
        let listen = |kind| signal(kind).context("cannot listen for signals");
        Ok(Self {
            interrupt: listen(SignalKind::interrupt())?,
            terminate: listen(SignalKind::terminate())?,
            hang_up: listen(SignalKind::hangup())?,
        })
    }

    async fn arrived(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
            _ = self.hang_up.recv() => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_certificate_that_is_missing_ended_or_broken_is_not_valid() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join(AGENT_CERTIFICATE);
        let at = |second| Timestamp::from_second(second).expect("in range");
        assert!(!is_valid(&path, at(0)));

        let mut params = rcgen::CertificateParams::default();
        params.not_after = rcgen::date_time_ymd(2026, 6, 1);
        let key = rcgen::KeyPair::generate().expect("a key");
        std::fs::write(&path, params.self_signed(&key).expect("signed").pem()).expect("ours");
        let ends = "2026-06-01T00:00:00Z".parse::<Timestamp>().expect("a time").as_second();
        assert!(is_valid(&path, at(ends - 1)));
        assert!(!is_valid(&path, at(ends)));

        std::fs::write(&path, "-----BEGIN CERTIFICATE-----\n").expect("ours");
        assert!(!is_valid(&path, at(0)));
    }

    #[test]
    fn a_host_name_becomes_an_object_name() {
        assert_eq!(object_name("Nuc_03.Shop.example").as_deref(), Some("nuc-03.shop.example"));
        assert_eq!(object_name("-a-.-b").as_deref(), Some("a.b"));
        assert_eq!(object_name("_._"), None);
        assert_eq!(object_name(""), None);
    }
}
