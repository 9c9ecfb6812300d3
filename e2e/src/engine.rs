//! A real Docker Engine with its own socket, data and runtime directory: one host of the fleet.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context as _;
use nix::sys::signal::Signal;
use tokio::process::Command;

use crate::process::{Process, run};

/// Image that every engine of a test has: busybox, as `demo:1`.
pub const IMAGE: &str = "demo:1";

/// One dockerd.
#[derive(Debug)]
pub struct Engine {
    dir: PathBuf,
    insecure_registry: Option<String>,
    daemon: Option<Process>,
}

impl Engine {
    /// Starts a dockerd in that directory and gives it [`IMAGE`].
    pub async fn start(dir: &Path, insecure_registry: Option<&str>) -> anyhow::Result<Self> {
        std::fs::create_dir_all(dir)?;
        std::fs::write(dir.join("daemon.json"), "{}")?;
        let mut engine = Self {
            dir: dir.to_owned(),
            insecure_registry: insecure_registry.map(str::to_owned),
            daemon: None,
        };
        engine.resume().await?;
        engine.import_image().await?;
        Ok(engine)
    }

    /// The path of its socket.
    pub fn socket(&self) -> PathBuf {
        self.dir.join("docker.sock")
    }

    /// What `--docker-host` takes.
    pub fn host(&self) -> String {
        format!("unix://{}", self.socket().display())
    }

    /// Starts a stopped daemon again on the same data. After `kill -9` the first start can fail on a stale
    /// containerd pid, so it is tried twice.
    pub async fn resume(&mut self) -> anyhow::Result<()> {
        if self.resume_once().await.is_err() {
            self.resume_once().await?;
        }
        Ok(())
    }

    async fn resume_once(&mut self) -> anyhow::Result<()> {
        let mut command = Command::new("dockerd");
        command
            .arg("--data-root")
            .arg(self.dir.join("data"))
            .arg("--exec-root")
            .arg(self.dir.join("exec"))
            .arg("--pidfile")
            .arg(self.dir.join("docker.pid"))
            .arg("--config-file")
            .arg(self.dir.join("daemon.json"))
            .args(["-H", &self.host(), "--bridge=none", "--iptables=false", "--ip-masq=false"]);
        if let Some(registry) = &self.insecure_registry {
            command.args(["--insecure-registry", registry]);
        }
        let mut daemon = Process::spawn("dockerd", command, &self.dir.join("dockerd.log"))?;
        crate::eventually("dockerd", Duration::from_secs(30), async || {
            daemon.check_alive()?;
            self.docker(["version"]).await
        })
        .await?;
        self.daemon = Some(daemon);
        Ok(())
    }

    /// Stops the daemon; its containers stop with it.
    pub async fn stop(&mut self) -> anyhow::Result<()> {
        self.daemon.take().context("it is not running")?.stop().await.map(drop)
    }

    /// The daemon's process.
    pub fn daemon(&self) -> anyhow::Result<&Process> {
        self.daemon.as_ref().context("it is not running")
    }

    /// Runs the docker CLI against this engine.
    pub async fn docker<const N: usize>(&self, args: [&str; N]) -> anyhow::Result<String> {
        let mut command = Command::new("docker");
        command.env("DOCKER_HOST", self.host()).args(args);
        run(command).await.map(|output| output.trim().to_owned())
    }

    /// Starts a container of that name that sleeps, and ends at once when asked to.
    pub async fn runs(&self, name: &str) -> anyhow::Result<String> {
        self.docker([
            "run",
            "-d",
            "--network=none",
            "--name",
            name,
            IMAGE,
            "sh",
            "-c",
            "trap 'exit 0' TERM; while true; do sleep 0.1; done",
        ])
        .await
    }

    /// `running`, `exited`, …, or `gone`.
    pub async fn state(&self, name: &str) -> String {
        self.docker(["inspect", "--format", "{{.State.Status}}", name])
            .await
            .unwrap_or_else(|_| "gone".to_owned())
    }

    /// How often Docker says this happened to containers since it started: `stop`, `die`, `destroy`, …
    pub async fn events(&self, action: &str) -> anyhow::Result<Vec<String>> {
        let filter = format!("event={action}");
        let until = self.docker(["info", "--format", "{{.SystemTime}}"]).await?;
        let lines = self
            .docker([
                "events",
                "--since",
                "2020-01-01T00:00:00Z",
                "--until",
                &until,
                "--filter",
                &filter,
                "--format",
                "{{.Actor.Attributes.name}}",
            ])
            .await?;
        Ok(lines.lines().map(str::to_owned).collect())
    }

    async fn import_image(&self) -> anyhow::Result<()> {
        let root = self.dir.join("image");
        std::fs::create_dir_all(root.join("bin"))?;
        std::fs::copy("/bin/busybox", root.join("bin/busybox")).context("is busybox-static installed?")?;
        for tool in ["sh", "sleep", "true", "echo", "cat"] {
            std::os::unix::fs::symlink("busybox", root.join("bin").join(tool))?;
        }
        let mut command = Command::new("sh");
        command.env("DOCKER_HOST", self.host()).current_dir(&root);
        command.args(["-c", &format!("tar c . | docker import - {IMAGE}")]);
        run(command).await.map(drop)
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        let host = self.host();
        let Some(daemon) = &mut self.daemon else { return };
        // The containers' shims are no children of the daemon: take the containers away before it goes.
        daemon.signal(Signal::SIGCONT).ok();
        std::process::Command::new("timeout")
            .args(["20", "sh", "-c", "docker ps -aq | xargs -r docker rm -f"])
            .env("DOCKER_HOST", host)
            .output()
            .ok();
        daemon.stop_now(Duration::from_secs(10));
    }
}
