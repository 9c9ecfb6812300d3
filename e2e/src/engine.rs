//! A real Docker Engine with its own socket, data and runtime directory: one host of the fleet.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context as _;
use nix::sys::signal::Signal;
use tokio::process::Command;

use crate::process::{Process, run};

/// Image that every engine of a test has: busybox, as `demo:1`.
pub const IMAGE: &str = "demo:1";

/// Directory with the programs of the Docker Engine to test; the installed ones where absent.
const PROGRAMS: &str = "GANTRY_E2E_DOCKER_PROGRAMS";

/// One dockerd.
#[derive(Debug)]
pub struct Engine {
    dir: PathBuf,
    insecure_registry: Option<String>,
    http_proxy: Option<String>,
    daemon: Option<Process>,
    recorder: Option<Process>,
}

impl Engine {
    /// Starts a dockerd in that directory and gives it [`IMAGE`].
    pub async fn start(dir: &Path, insecure_registry: Option<&str>) -> anyhow::Result<Self> {
        Self::start_behind(dir, insecure_registry, None).await
    }

    /// As [`Engine::start`]; what it asks of registries by HTTP goes to the server at that address, whatever they are called.
    pub async fn start_behind(
        dir: &Path,
        insecure_registry: Option<&str>,
        http_proxy: Option<&str>,
    ) -> anyhow::Result<Self> {
        std::fs::create_dir_all(dir)?;
        std::fs::write(dir.join("daemon.json"), "{}")?;
        let mut engine = Self {
            dir: dir.to_owned(),
            insecure_registry: insecure_registry.map(str::to_owned),
            http_proxy: http_proxy.map(|address| format!("http://{address}")),
            daemon: None,
            recorder: None,
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
        // Another version than the installed one: its programs go before those of the same name.
        if let Some(programs) = std::env::var_os(PROGRAMS) {
            let path = std::env::var_os("PATH").unwrap_or_default();
            let path =
                std::env::join_paths([programs.into()].into_iter().chain(std::env::split_paths(&path)))?;
            command.env("PATH", path);
        }
        if let Some(registry) = &self.insecure_registry {
            command.args(["--insecure-registry", registry]);
        }
        if let Some(proxy) = &self.http_proxy {
            command.env("HTTP_PROXY", proxy);
        }
        let mut daemon = Process::spawn("dockerd", command, &self.dir.join("dockerd.log"))?;
        crate::eventually("dockerd", Duration::from_secs(30), async || {
            daemon.check_alive()?;
            self.docker(["version"]).await
        })
        .await?;
        self.daemon = Some(daemon);
        self.recorder = Some(self.record()?);
        Ok(())
    }

    /// Writes down what Docker tells of containers: it remembers 256 events itself, and none over a restart.
    fn record(&self) -> anyhow::Result<Process> {
        let mut command = Command::new("docker");
        command
            .env("DOCKER_HOST", self.host())
            .args(["events", "--since", "2020-01-01T00:00:00Z", "--filter", "type=container"])
            .args(["--format", "{{.Action}} {{.Actor.Attributes.name}}"]);
        Process::spawn("docker events", command, &self.dir.join("events.log"))
    }

    /// Stops the daemon; its containers stop with it.
    pub async fn stop(&mut self) -> anyhow::Result<()> {
        self.daemon.take().context("it is not running")?.stop().await.map(drop)
    }

    /// `kill -9` of the daemon; its containers go on until the next start.
    pub async fn kill(&mut self) -> anyhow::Result<()> {
        self.daemon.take().context("it is not running")?.kill().await
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
        self.runs_script(name, "trap 'exit 0' TERM; while true; do sleep 0.1; done").await
    }

    /// Starts a container of that name that sleeps, and has to be killed.
    pub async fn runs_stubbornly(&self, name: &str) -> anyhow::Result<String> {
        self.runs_script(name, "trap '' TERM; while true; do sleep 1; done").await
    }

    /// Starts a container of that name with that shell script.
    pub async fn runs_script(&self, name: &str, script: &str) -> anyhow::Result<String> {
        self.docker(["run", "-d", "--network=none", "--name", name, IMAGE, "sh", "-c", script]).await
    }

    /// `running`, `exited`, …, or `gone`.
    pub async fn state(&self, name: &str) -> String {
        self.docker(["inspect", "--format", "{{.State.Status}}", name])
            .await
            .unwrap_or_else(|_| "gone".to_owned())
    }

    /// The containers that Docker said this happened to, each as often as it was said: `stop`, `die`, `destroy`, …
    pub async fn events(&self, action: &str) -> anyhow::Result<Vec<String>> {
        // Docker tells in order: what came before the marker is written when the marker is.
        let log = self.dir.join("events.log");
        let marker = format!("marker-{}", std::fs::metadata(&log)?.len());
        self.docker(["create", "--name", &marker, "--network=none", IMAGE, "true"]).await?;
        self.docker(["rm", &marker]).await?;
        let said =
            crate::eventually("the marker among Docker's events", Duration::from_secs(10), async || {
                let said = std::fs::read_to_string(&log)?;
                anyhow::ensure!(said.contains(&format!("destroy {marker}\n")), "it is not there yet");
                Ok(said)
            })
            .await?;
        let of_action =
            said.lines().filter_map(|line| line.split_once(' ')).filter(|(one, _)| *one == action);
        Ok(of_action.map(|(_, name)| name.to_owned()).filter(|name| !name.starts_with("marker-")).collect())
    }

    /// Makes an image of that many random bytes, pushes it and forgets it here.
    pub async fn publish(&self, reference: &str, bytes: u64) -> anyhow::Result<()> {
        let mut command = Command::new("sh");
        command.env("DOCKER_HOST", self.host()).args([
            "-c",
            "d=$(mktemp -d) && head -c $1 /dev/urandom > $d/blob && tar -C $d -c blob | docker import - \"$0\" \
             && rm -r $d && docker push \"$0\" && docker rmi \"$0\"",
            reference,
            &bytes.to_string(),
        ]);
        run(command).await.map(drop)
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
