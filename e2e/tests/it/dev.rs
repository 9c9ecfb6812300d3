//! The way a newcomer meets it: `gantry dev`, and `make quickstart` around it.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, ensure};
use gantry_e2e::engine::Engine;
use gantry_e2e::eventually;
use gantry_e2e::kubectl::Kubectl;
use gantry_e2e::manifest::operation;
use gantry_e2e::process::{Process, children, run, workspace_binary};
use gantry_e2e::scratch::Scratch;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::process::Command;

const PATIENCE: Duration = Duration::from_secs(120);

fn data(scratch: &Scratch) -> PathBuf {
    scratch.path().join("data")
}

/// On an address that a restart does not change: the agent goes on with the one it was given.
fn command(scratch: &Scratch, engine: &Engine, port: u16) -> anyhow::Result<Command> {
    let mut command = Command::new(workspace_binary("gantry")?);
    command
        .arg("dev")
        .arg("--data-dir")
        .arg(data(scratch))
        .args(["--docker-host", &engine.host(), "--instance", "quickstart"])
        .args(["--listen", &format!("127.0.0.1:{port}"), "--agent-metrics-listen", "127.0.0.1:0"]);
    Ok(command)
}

/// `gantry dev`, once it has said its three lines.
async fn dev(scratch: &Scratch, engine: &Engine, port: u16, log: &str) -> anyhow::Result<Process> {
    let log = scratch.path().join(log);
    let mut process = Process::spawn("gantry dev", command(scratch, engine, port)?, &log)?;
    eventually("gantry dev to be ready", PATIENCE, async || {
        process.check_alive()?;
        ensure!(process.log().lines().any(|line| line.starts_with("stop:")), "not yet");
        Ok(())
    })
    .await?;
    Ok(process)
}

async fn completes(kubectl: &Kubectl, name: &str, action: &str) -> anyhow::Result<()> {
    let more = "  startDeadlineSeconds: 3600\n  parameters: {timeoutSeconds: 2}";
    kubectl.apply(&operation(name, "quickstart", action, "web", more)).await?;
    kubectl.run(["wait", "--for=condition=Complete", &format!("op/{name}"), "--timeout=90s"]).await.map(drop)
}

#[tokio::test]
async fn dev_restarts_what_is_killed_goes_on_with_its_data_and_is_alone_with_it() -> anyhow::Result<()> {
    let scratch = Scratch::new()?;
    let engine = Engine::start(&scratch.path().join("docker"), None).await?;
    engine.runs("web").await?;
    let kubectl = Kubectl::new(&data(&scratch).join("kubeconfig"));
    let port = gantry_e2e::free_port()?;

    let first = dev(&scratch, &engine, port, "first.log").await?;
    let log = first.log();
    let told: Vec<_> = ["kubectl:", "metrics:", "stop:"]
        .iter()
        .filter(|word| log.lines().filter(|line| line.starts_with(**word)).count() == 1)
        .collect();
    assert_eq!(told.len(), 3, "{log}");
    ensure!(
        log.contains(&format!("export KUBECONFIG='{}'", data(&scratch).join("kubeconfig").display())),
        "{log}"
    );
    eventually("the agent to register", PATIENCE, async || kubectl.get("di", "quickstart").await).await?;
    kubectl.wait("dockerinstance/quickstart", "condition=Ready").await?;
    completes(&kubectl, "stop", "Stop").await?;
    assert_eq!(engine.state("web").await, "exited");

    for (number, name) in ["gantry-agent", "gantry-controller"].into_iter().enumerate() {
        let old = child(&first, name)?;
        kill(old, Signal::SIGKILL)?;
        eventually("another child", PATIENCE, async || {
            ensure!(child(&first, name)? != old, "{name} is still the old one");
            Ok(())
        })
        .await?;
        eventually("the API to answer", PATIENCE, async || kubectl.get_raw("/readyz").await).await?;
        completes(&kubectl, &format!("restart-{number}"), "Restart").await?;
    }
    assert_eq!(engine.events("restart").await?, ["web", "web"]);

    let refused = tokio::time::timeout(PATIENCE, run(command(&scratch, &engine, port)?)).await?;
    let why = format!("{:#}", refused.err().context("a second one runs beside the first")?);
    let dev_pid = first.pid();
    ensure!(why.contains(&format!("another `gantry dev` (process {dev_pid}) is using")), "{why}");
    ensure!(why.contains("hint: stop that one, or choose another directory with --data-dir"), "{why}");
    let left_behind = children(first.pid())?;
    ensure!(first.stop().await?.success());
    for (pid, name) in left_behind {
        ensure!(kill(pid, None).is_err(), "{name} ({pid}) was left behind");
    }

    let second = dev(&scratch, &engine, port, "second.log").await?;
    assert_eq!(kubectl.get("op", "stop").await?["status"]["phase"], "Succeeded");
    completes(&kubectl, "stop-again", "Stop").await?;
    assert_eq!(engine.state("web").await, "exited");
    assert_eq!(kubectl.list("di").await?.len(), 1);
    ensure!(second.stop().await?.success());
    Ok(())
}

fn child(dev: &Process, name: &str) -> anyhow::Result<Pid> {
    let all = children(dev.pid())?;
    // The kernel keeps the first 15 letters of a name.
    let found = all.iter().find(|(_, kept)| *kept == name.chars().take(15).collect::<String>());
    found.map(|(pid, _)| *pid).with_context(|| format!("no {name} among {all:?}"))
}

/// `make quickstart` and `make quickstart-down`, on what is built already, beside whatever else this machine runs.
struct Quickstart {
    // Ends first, while its directory is there.
    engine: Engine,
    scratch: Scratch,
}

impl Quickstart {
    fn dir(&self) -> PathBuf {
        self.scratch.path().join("quickstart")
    }

    async fn script(&self, name: &str) -> anyhow::Result<String> {
        let mut command =
            Command::new(Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/quickstart").join(name));
        command
            .env("GANTRY_QUICKSTART_DIR", self.dir())
            .env("GANTRY_QUICKSTART_LISTEN", format!("127.0.0.1:{}", gantry_e2e::free_port()?))
            .env("GANTRY_QUICKSTART_METRICS", "127.0.0.1:0")
            .env("DOCKER_HOST", self.engine.host());
        if let Some(built) = workspace_binary("gantry")?.parent() {
            command.env("GANTRY_QUICKSTART_BIN", built);
        }
        run(command).await
    }

    /// Every example operation had its effect.
    async fn is_done(&self) -> anyhow::Result<()> {
        let states = [
            ("quickstart-web", "running"),
            ("quickstart-worker", "exited"),
            ("quickstart-cache", "running"),
            ("quickstart-batch", "paused"),
            ("quickstart-old", "gone"),
            ("quickstart-staging", "gone"),
            ("quickstart-production", "created"),
        ];
        for (name, state) in states {
            assert_eq!(self.engine.state(name).await, state, "{name}");
        }
        self.engine.docker(["image", "inspect", "gantry-quickstart:stable"]).await.map(drop)
    }
}

impl Drop for Quickstart {
    fn drop(&mut self) {
        // What it starts outlives it by design.
        if let Ok(pid) = std::fs::read_to_string(self.dir().join("gantry.pid"))
            && let Ok(pid) = pid.trim().parse()
        {
            kill(Pid::from_raw(pid), Signal::SIGKILL).ok();
        }
    }
}

#[tokio::test]
async fn quickstart_works_twice_in_a_row_and_can_be_undone() -> anyhow::Result<()> {
    let scratch = Scratch::new()?;
    let engine = Engine::start(&scratch.path().join("docker"), None).await?;
    engine.runs("of-somebody-else").await?;
    let quickstart = Quickstart { engine, scratch };

    for _ in 0..2 {
        let said = quickstart.script("up.sh").await?;
        assert_eq!(said.matches(" condition met").count(), 8, "{said}");
        ensure!(said.contains("make quickstart-down"), "{said}");
        quickstart.is_done().await?;
    }

    let pid = std::fs::read_to_string(quickstart.dir().join("gantry.pid"))?;
    quickstart.script("down.sh").await?;
    ensure!(!quickstart.dir().exists(), "its directory is still there");
    let process = Path::new("/proc").join(pid.trim()).join("status");
    let status = std::fs::read_to_string(process).unwrap_or_default();
    ensure!(status.is_empty() || status.contains("State:\tZ"), "it still runs:\n{status}");
    let left = quickstart.engine.docker(["ps", "-a", "--format", "{{.Names}}"]).await?;
    assert_eq!(left, "of-somebody-else");
    assert_eq!(quickstart.engine.docker(["images", "-q", "gantry-quickstart"]).await?, "");
    quickstart.script("down.sh").await.map(drop)
}

#[tokio::test]
async fn quickstart_takes_no_directory_that_has_something_else_in_it() -> anyhow::Result<()> {
    let scratch = Scratch::new()?;
    let engine = Engine::start(&scratch.path().join("docker"), None).await?;
    let quickstart = Quickstart { engine, scratch };
    std::fs::create_dir(quickstart.dir())?;
    std::fs::write(quickstart.dir().join("letter"), "dear")?;

    let refused = quickstart.script("up.sh").await.err().context("it was taken")?.to_string();
    quickstart.script("down.sh").await?;

    ensure!(refused.contains("is not empty and quickstart did not make it"), "{refused}");
    assert_eq!(std::fs::read_to_string(quickstart.dir().join("letter"))?, "dear");
    assert_eq!(std::fs::read_dir(quickstart.dir())?.count(), 1);
    Ok(())
}
