//! The controller's real binary.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use kube::config::{Config, KubeConfigOptions, Kubeconfig};
use rustls::RootCertStore;
use tokio::process::Command;
use tokio_rustls::TlsConnector;

use crate::kubectl::Kubectl;
use crate::process::{Process, run, workspace_binary};

/// One controller process and what is needed to start it again.
#[derive(Debug)]
pub struct Controller {
    dir: PathBuf,
    listen: SocketAddr,
    address: SocketAddr,
    environment: Vec<(String, String)>,
    database_url: String,
    flags: Vec<String>,
    process: Option<Process>,
}

impl Controller {
    /// Starts it with further flags and waits until it is ready.
    pub async fn start(dir: &Path, database_url: &str, flags: &[&str]) -> anyhow::Result<Self> {
        std::fs::create_dir_all(dir)?;
        let address = SocketAddr::from(([127, 0, 0, 1], crate::free_port()?));
        Self::start_at(dir, address, database_url, flags).await
    }

    /// As [`Controller::start`], listening there. Where that is every address, it is asked on loopback.
    pub async fn start_at(
        dir: &Path,
        listen: SocketAddr,
        database_url: &str,
        flags: &[&str],
    ) -> anyhow::Result<Self> {
        std::fs::create_dir_all(dir)?;
        let is_everywhere = listen.ip().is_unspecified();
        let local = if is_everywhere { Ipv4Addr::LOCALHOST.into() } else { listen.ip() };
        let mut controller = Self {
            dir: dir.to_owned(),
            listen,
            address: SocketAddr::new(local, listen.port()),
            environment: Vec::new(),
            database_url: database_url.to_owned(),
            flags: flags.iter().map(|flag| (*flag).to_owned()).collect(),
            process: None,
        };
        controller.resume().await?;
        Ok(controller)
    }

    fn command(&self) -> anyhow::Result<Command> {
        let mut command = Command::new(workspace_binary("gantry-controller")?);
        command
            .args(["--listen", &self.listen.to_string(), "--database-url", &self.database_url])
            .arg("--data-dir")
            .arg(self.dir.join("data"))
            .arg("--kubeconfig-out")
            .arg(self.kubeconfig())
            .args(["--log-format", "text"])
            .args(&self.flags)
            .env("RUST_LOG", std::env::var("RUST_LOG").unwrap_or_else(|_| "info".to_owned()))
            .envs(self.environment.iter().map(|(name, value)| (name, value)));
        Ok(command)
    }

    /// Starts it again where it was, and waits until it is ready.
    pub async fn resume(&mut self) -> anyhow::Result<()> {
        let log = self.dir.join("controller.log");
        let mut process = Process::spawn("gantry-controller", self.command()?, &log)?;
        crate::eventually("the controller", Duration::from_secs(60), async || {
            process.check_alive()?;
            self.kubectl().get_raw("/readyz").await
        })
        .await?;
        self.process = Some(process);
        Ok(())
    }

    /// Starts it where it must not serve; why it does not.
    pub async fn refuses(&self) -> anyhow::Result<String> {
        match tokio::time::timeout(Duration::from_secs(30), run(self.command()?)).await {
            Ok(Err(refusal)) => Ok(format!("{refusal:#}")),
            Ok(Ok(_)) | Err(_) => anyhow::bail!("it does not refuse to serve"),
        }
    }

    /// Sets a variable of its environment from its next start on.
    pub fn set_variable(&mut self, name: &str, value: &str) {
        self.environment.push((name.to_owned(), value.to_owned()));
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// TLS of a client that trusts this controller's authority and no other.
    pub async fn tls(&self) -> anyhow::Result<TlsConnector> {
        let kubeconfig = Kubeconfig::read_from(self.kubeconfig())?;
        let config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await?;
        let mut trusted = RootCertStore::empty();
        for certificate in config.root_cert.unwrap_or_default() {
            trusted.add(certificate.into())?;
        }
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_root_certificates(trusted)
            .with_no_client_auth();
        Ok(Arc::new(config).into())
    }

    /// The admin's kubeconfig.
    pub fn kubeconfig(&self) -> PathBuf {
        self.dir.join("kubeconfig")
    }

    /// kubectl as the admin, in the default version.
    pub fn kubectl(&self) -> Kubectl {
        Kubectl::new(&self.kubeconfig())
    }

    /// What it said.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.dir.join("controller.log")).unwrap_or_default()
    }

    /// Its process.
    pub fn process(&self) -> anyhow::Result<&Process> {
        self.process.as_ref().context("it is not running")
    }

    /// An error with the end of its log if it has ended.
    pub fn check_alive(&mut self) -> anyhow::Result<()> {
        self.process.as_mut().context("it is not running")?.check_alive()
    }

    /// Clean stop.
    pub async fn stop(&mut self) -> anyhow::Result<std::process::ExitStatus> {
        self.process.take().context("it is not running")?.stop().await
    }

    /// `kill -9`.
    pub async fn kill(&mut self) -> anyhow::Result<()> {
        self.process.take().context("it is not running")?.kill().await
    }

    /// `gantry-controller restore` on its database; what it says.
    pub async fn declare_restored(&self) -> anyhow::Result<String> {
        let mut command = Command::new(workspace_binary("gantry-controller")?);
        command.args(["restore", "--database-url", &self.database_url]);
        run(command).await
    }

    /// `gantry-controller keys rotate` on its database and key ring; what it says.
    pub async fn rotate_keys(&self, flags: &[&str]) -> anyhow::Result<String> {
        let mut command = Command::new(workspace_binary("gantry-controller")?);
        command.args(["keys", "rotate", "--database-url", &self.database_url]);
        command.arg("--data-dir").arg(self.dir.join("data")).args(flags);
        run(command).await
    }

    /// The file that Secrets are sealed with the keys of.
    pub fn key_ring(&self) -> PathBuf {
        self.dir.join("data/pki/encryption-keys")
    }

    /// Uses another database from its next start on.
    pub fn set_database(&mut self, url: &str) {
        url.clone_into(&mut self.database_url);
    }

    /// The bearer token of the built-in admin.
    pub fn admin_token(&self) -> anyhow::Result<String> {
        Ok(std::fs::read_to_string(self.dir.join("data/admin-token"))?.trim().to_owned())
    }

    /// A join token, as a person makes one.
    pub async fn token(&self, extra: &[&str]) -> anyhow::Result<String> {
        let mut command = Command::new(workspace_binary("gantry")?);
        command.env("KUBECONFIG", self.kubeconfig()).args(["token", "create"]).args(extra);
        Ok(run(command).await?.trim().to_owned())
    }

    /// What `gantry audit ls` prints.
    pub async fn audit(&self, flags: &[&str]) -> anyhow::Result<String> {
        let mut command = Command::new(workspace_binary("gantry")?);
        command.env("KUBECONFIG", self.kubeconfig()).args(["audit", "ls"]).args(flags);
        run(command).await
    }

    /// The pin of its CA, as `gantry agent install-command` prints it.
    pub async fn ca_hash(&self) -> anyhow::Result<String> {
        let mut command = Command::new(workspace_binary("gantry")?);
        command.env("KUBECONFIG", self.kubeconfig()).args(["agent", "install-command"]);
        let text = run(command).await?;
        let start = text.find("sha256:").context("install-command prints no CA hash")?;
        Ok(text[start..].chars().take_while(|c| c.is_ascii_alphanumeric() || *c == ':').collect())
    }
}
