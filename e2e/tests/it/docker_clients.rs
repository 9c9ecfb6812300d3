//! Clients of the Docker Engine API that have never heard of Gantry, each beside the same at the engine's own socket.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, ensure};
use gantry_e2e::docker::{Beside, Docker};
use gantry_e2e::process::{run, workspace_binary};
use gantry_e2e::registry::Registry;
use gantry_e2e::world::World;
use tokio::process::Command;

/// For a whole script.
const PATIENCE: Duration = Duration::from_secs(400);

/// Where they are installed.
async fn installed() -> anyhow::Result<PathBuf> {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/docker-clients.sh");
    Ok(run(Command::new(script)).await?.trim().into())
}

/// Scripts and projects for them.
fn ours(name: &str) -> String {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("docker-clients").join(name).display().to_string()
}

/// A host, a private registry, and docker both ways.
struct Place {
    world: World,
    registry: Registry,
    socket: Docker,
    endpoint: Docker,
}

impl Place {
    async fn new() -> anyhow::Result<Self> {
        let world = World::with_hosts(["nuc-01"]).await?;
        let mut registry = Registry::start(&world.path("registry")).await?;
        registry.require("robot", "right").await?;
        let socket = Docker::at(&world.host("nuc-01")?.engine.host(), &world.path("socket"))?;
        let endpoint = Docker::through(&world.controller, "nuc-01", &world.path("endpoint"))?;
        Ok(Self { world, registry, socket, endpoint })
    }

    /// Both with a variable more.
    fn set(&mut self, name: &str, value: &str) {
        self.socket = self.socket.clone().with(name, value);
        self.endpoint = self.endpoint.clone().with(name, value);
    }

    /// A Python script both ways.
    async fn python(&mut self, script: &str) -> anyhow::Result<Beside> {
        let registry = self.registry.name().to_owned();
        self.set("REGISTRY", &registry);
        let python = installed().await?.join("python/bin/python");
        let line = format!("{} {}", python.display(), ours(script));
        Beside::of_script(&line, &self.socket, &self.endpoint, PATIENCE).await
    }
}

#[tokio::test]
async fn what_docker_py_finds_at_the_socket_it_finds_through_the_endpoint() -> anyhow::Result<()> {
    let mut place = Place::new().await?;

    let beside = place.python("docker_py.py").await?;

    ensure!(beside.lines >= 80, "{beside:?}");
    beside.is_same(0)
}

#[tokio::test]
async fn testcontainers_start_and_end_what_a_test_needs_through_the_endpoint() -> anyhow::Result<()> {
    let mut place = Place::new().await?;
    // It would fetch a program of its own to clean up with.
    place.set("TESTCONTAINERS_RYUK_DISABLED", "true");

    let beside = place.python("containers_for_tests.py").await?;

    ensure!(beside.lines >= 4, "{beside:?}");
    beside.is_same(0)
}

#[tokio::test]
async fn compose_brings_a_project_up_and_down_through_the_endpoint() -> anyhow::Result<()> {
    let mut place = Place::new().await?;
    let plugins = installed().await?.join("cli-plugins");
    for name in ["socket", "endpoint"] {
        let config = place.world.path(name).join("config");
        std::fs::create_dir_all(&config)?;
        std::os::unix::fs::symlink(&plugins, config.join("cli-plugins"))?;
    }
    place.set("CLIENTS", &ours(""));

    let beside =
        Beside::run(include_str!("../../docker-clients/compose.txt"), &place.socket, &place.endpoint).await?;

    // Three are mistakes, one is followed until time is up, and a service may take too long to be healthy.
    beside.is_same(6)
}

/// A docker that builds with BuildKit by itself: later ones want a plugin, which speaks to BuildKit past the endpoint's grammar.
async fn builder() -> anyhow::Result<String> {
    for dir in std::env::split_paths(&std::env::var_os("PATH").unwrap_or_default()) {
        let docker = dir.join("docker");
        let mut command = Command::new(&docker);
        command.arg("--version");
        let said = run(command).await.unwrap_or_default();
        let major = said.strip_prefix("Docker version ").and_then(|version| version.split('.').next());
        if major.and_then(|major| major.parse().ok()).is_some_and(|major: u32| (18..23).contains(&major)) {
            return Ok(docker.display().to_string());
        }
    }
    Err(anyhow::Error::msg("none of 18 to 22 is on the PATH")).context("docker with BuildKit")
}

#[tokio::test]
async fn buildkit_builds_through_the_endpoint_what_it_builds_at_the_socket() -> anyhow::Result<()> {
    let mut place = Place::new().await?;
    let builder = builder().await?;
    let programs = place.world.path("programs");
    std::fs::create_dir_all(&programs)?;
    std::os::unix::fs::symlink(&builder, programs.join("docker"))?;
    let path = std::env::var("PATH").unwrap_or_default();
    place.set("PATH", &format!("{}:{path}", programs.display()));
    place.set("DOCKER_BUILDKIT", "1");
    // A session is asked for without the path that DOCKER_HOST has, so docker needs a socket of its own for it.
    let gantry = workspace_binary("gantry")?;
    let kubeconfig = place.world.controller.kubeconfig().display().to_string();
    place.socket = place.socket.with("BUILDER", &builder);
    place.endpoint = place
        .endpoint
        .with("KUBECONFIG", &kubeconfig)
        .with("BUILDER", &format!("{} docker nuc-01 --", gantry.display()));

    let beside =
        Beside::run(include_str!("../../docker-clients/buildkit.txt"), &place.socket, &place.endpoint)
            .await?;

    beside.is_same(1)?;
    // From an address the host would fetch it.
    let said = place.endpoint.says("$BUILDER build https://127.0.0.1:1/a.git").await?;
    ensure!(
        said.code != Some(0) && said.stderr.contains("query `remote`: this value is not served"),
        "{said:?}"
    );
    Ok(())
}
