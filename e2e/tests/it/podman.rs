//! Podman's socket in Docker's place.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::ensure;
use gantry_e2e::agent::Agent;
use gantry_e2e::docker::{Beside, Docker};
use gantry_e2e::eventually;
use gantry_e2e::manifest::operation;
use gantry_e2e::process::{Process, run};
use gantry_e2e::world::World;
use tokio::process::Command;

/// A service of Podman with a socket like Docker's, and the image that every engine of a test has.
struct Podman {
    dir: PathBuf,
    _service: Process,
}

impl Podman {
    async fn start(dir: PathBuf) -> anyhow::Result<Self> {
        std::fs::create_dir_all(&dir)?;
        // Its own default is above what a sandbox may allow.
        std::fs::write(
            dir.join("containers.conf"),
            "[containers]\ndefault_ulimits = [\"nofile=1024:1024\", \"nproc=1024:1024\"]\n",
        )?;
        let socket = format!("unix://{}", dir.join("podman.sock").display());
        let service = command(&dir, &["system", "service", "--time=0", &socket]);
        let service = Process::spawn("podman", service, &dir.join("podman.log"))?;
        let root = dir.join("image");
        std::fs::create_dir_all(root.join("bin"))?;
        std::fs::copy("/bin/busybox", root.join("bin/busybox"))?;
        for tool in ["sh", "sleep", "true", "echo", "cat"] {
            std::os::unix::fs::symlink("busybox", root.join("bin").join(tool))?;
        }
        let mut tar = Command::new("tar");
        tar.arg("-C").arg(&root).arg("-cf").arg(dir.join("image.tar")).arg(".");
        run(tar).await?;
        let podman = Self { dir, _service: service };
        podman.says(&["import", &podman.dir.join("image.tar").display().to_string(), "demo:1"]).await?;
        Ok(podman)
    }

    /// What `--docker-host` takes.
    fn host(&self) -> String {
        format!("unix://{}", self.dir.join("podman.sock").display())
    }

    async fn says(&self, args: &[&str]) -> anyhow::Result<String> {
        run(command(&self.dir, args)).await
    }
}

fn command(dir: &Path, args: &[&str]) -> Command {
    let mut command = Command::new("podman");
    command.env("CONTAINERS_CONF", dir.join("containers.conf"));
    command.arg("--root").arg(dir.join("root")).arg("--runroot").arg(dir.join("run"));
    command
        .args([
            "--runtime=runc",
            "--storage-driver=vfs",
            "--cgroup-manager=cgroupfs",
            "--events-backend=file",
        ])
        .arg("--tmpdir")
        .arg(dir.join("tmp"));
    command.args(args);
    command
}

#[tokio::test]
async fn docker_says_through_the_endpoint_what_it_says_at_the_socket_of_podman() -> anyhow::Result<()> {
    let world = World::new().await?;
    let podman = Podman::start(world.path("podman")).await?;
    let settings = world.agent_settings("nuc-01", &podman.host()).await?;
    let _agent = Agent::start(&world.path("agent"), settings)?;
    world.becomes_healthy("nuc-01", "Online").await?;
    let socket = Docker::at(&podman.host(), &world.path("socket"))?;
    let endpoint = Docker::through(&world.controller, "nuc-01", &world.path("endpoint"))?;

    let commands = include_str!("../../docker-clients/podman.txt");
    let beside = Beside::run(commands, &socket, &endpoint).await?;

    let third = beside.lines / 3;
    beside.is_same(third)
}

#[tokio::test]
async fn a_host_with_podman_is_online_and_its_containers_are_operated_on() -> anyhow::Result<()> {
    let world = World::new().await?;
    let podman = Podman::start(world.path("podman")).await?;
    let sleep = ["/bin/busybox", "sleep", "1000"];
    podman
        .says(&[&["run", "-d", "--network=none", "--name", "web", "localhost/demo:1"][..], &sleep].concat())
        .await?;

    let settings = world.agent_settings("nuc-01", &podman.host()).await?;
    let _agent = Agent::start(&world.path("agent"), settings)?;

    world.becomes_healthy("nuc-01", "Online").await?;
    // Podman tells another id whenever it is asked, and an operation is for one engine.
    let instance = world.kubectl().get("dockerinstance", "nuc-01").await?;
    ensure!(instance["status"]["engine"]["id"] == "", "{instance}");
    let state = async || {
        podman
            .says(&["inspect", "--format", "{{.State.Status}}", "web"])
            .await
            .map(|said| said.trim().to_owned())
    };
    for (action, wanted) in [("Restart", "running"), ("Stop", "exited"), ("Start", "running")] {
        let name = action.to_lowercase();
        let more = if action == "Start" { "" } else { "  parameters: {timeoutSeconds: 1}" };
        world.kubectl().apply(&operation(&name, "nuc-01", action, "web", more)).await?;
        world.kubectl().wait(&format!("operation/{name}"), "condition=Complete").await?;
        assert_eq!(state().await?, wanted, "after {action}");
    }
    world
        .kubectl()
        .apply(&operation("remove", "nuc-01", "Remove", "web", "  parameters: {force: true}"))
        .await?;
    world.kubectl().wait("operation/remove", "condition=Complete").await?;
    eventually("the container to go", Duration::from_secs(10), async || {
        ensure!(state().await.is_err(), "it is still there");
        Ok(())
    })
    .await
}
