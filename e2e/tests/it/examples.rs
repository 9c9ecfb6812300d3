//! The manifests of `examples/`, and the way a newcomer meets them: `gantry dev`.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::ensure;
use gantry_e2e::engine::{Engine, IMAGE};
use gantry_e2e::eventually;
use gantry_e2e::kubectl::Kubectl;
use gantry_e2e::process::{Process, workspace_binary};
use gantry_e2e::world::World;
use tokio::process::Command;

const PATIENCE: Duration = Duration::from_secs(120);

#[tokio::test]
async fn every_example_is_taken_as_it_stands() -> anyhow::Result<()> {
    let world = World::new().await?;
    let examples = examples();

    let said = world.kubectl().run(["apply", "--recursive", "-f", &examples.display().to_string()]).await?;

    let documents = manifests(&examples)?;
    ensure!(documents > 10, "the examples are not where they should be");
    ensure!(said.lines().filter(|line| line.ends_with(" created")).count() == documents, "{said}");
    ensure!(!said.contains("Warning"), "{said}");
    Ok(())
}

#[tokio::test]
async fn dev_runs_the_quickstart_and_goes_on_with_its_data() -> anyhow::Result<()> {
    let dir = tempfile::Builder::new().prefix("gantry-dev-").tempdir()?;
    std::fs::set_permissions(dir.path(), std::os::unix::fs::PermissionsExt::from_mode(0o711))?;
    let engine = Engine::start(&dir.path().join("docker"), None).await?;
    engine.docker(["tag", IMAGE, "gantry-quickstart:1"]).await?;
    for name in ["quickstart-worker", "quickstart-cache", "quickstart-batch"] {
        engine.runs(name).await?;
    }
    for name in ["quickstart-web", "quickstart-old", "quickstart-staging"] {
        engine.docker(["create", "--network=none", "--name", name, IMAGE, "sleep", "1000"]).await?;
    }
    let kubectl = Kubectl::new(&dir.path().join("data/kubeconfig"));

    let first = dev(dir.path(), &engine).await?;
    eventually("this host to be enrolled", PATIENCE, async || kubectl.get("di", "quickstart").await).await?;
    let quickstart = examples().join("quickstart").display().to_string();
    kubectl.run(["apply", "-f", &quickstart]).await?;
    kubectl.run(["wait", "--for=condition=Complete", "-f", &quickstart, "--timeout=90s"]).await?;
    ensure!(engine.state("quickstart-web").await == "running");
    ensure!(engine.state("quickstart-worker").await == "exited");
    ensure!(engine.state("quickstart-batch").await == "paused");
    ensure!(engine.state("quickstart-old").await == "gone");
    ensure!(engine.state("quickstart-production").await == "created");
    ensure!(first.stop().await?.success());

    let second = dev(dir.path(), &engine).await?;
    let phase = kubectl.get("op", "start-web").await?["status"]["phase"].clone();
    ensure!(phase == "Succeeded", "{phase}");
    kubectl.run(["wait", "--for=condition=Ready", "di/quickstart", "--timeout=90s"]).await?;
    ensure!(second.stop().await?.success());
    Ok(())
}

/// `gantry dev`, once it has said its three lines.
async fn dev(dir: &Path, engine: &Engine) -> anyhow::Result<Process> {
    let mut command = Command::new(workspace_binary("gantry")?);
    command
        .arg("dev")
        .arg("--data-dir")
        .arg(dir.join("data"))
        .args(["--docker-host", &engine.host(), "--instance", "quickstart"])
        .args(["--listen", "127.0.0.1:0", "--agent-metrics-listen", "127.0.0.1:0"]);
    let log = dir.join("dev.log");
    std::fs::write(&log, "")?;
    let mut process = Process::spawn("gantry dev", command, &log)?;
    eventually("gantry dev to be ready", PATIENCE, async || {
        process.check_alive()?;
        ensure!(process.log().lines().any(|line| line.starts_with("stop:")), "not yet");
        Ok(())
    })
    .await?;
    Ok(process)
}

fn examples() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples")
}

/// How many objects are in the YAML files below.
fn manifests(dir: &Path) -> anyhow::Result<usize> {
    let mut count = 0;
    for entry in std::fs::read_dir(dir)? {
        let path = entry?.path();
        if path.is_dir() {
            count += manifests(&path)?;
        } else if path.extension().is_some_and(|extension| extension == "yaml") {
            count +=
                std::fs::read_to_string(&path)?.lines().filter(|line| line.starts_with("kind: ")).count();
        }
    }
    Ok(count)
}
