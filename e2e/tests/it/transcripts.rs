//! The pages of `docs/cli` say what `gantry` says.

use std::path::Path;
use std::time::Duration;

use anyhow::Context as _;
use gantry_e2e::engine::Engine;
use gantry_e2e::eventually;
use gantry_e2e::process::workspace_binary;
use gantry_e2e::registry::Registry;
use gantry_e2e::rest::INSTANCES;
use gantry_e2e::transcript::{self, Shell};
use gantry_e2e::world::World;

/// Two hosts: on nuc-01 `web` runs and `job` has ended with 3, on nuc-02 `db` runs.
async fn fleet() -> anyhow::Result<World> {
    let world = World::with_hosts(["nuc-01", "nuc-02"]).await?;
    let (first, second) = (&world.host("nuc-01")?.engine, &world.host("nuc-02")?.engine);
    let script = "trap 'exit 0' TERM; echo hello from $0; while true; do sleep 0.1; done";
    let run = ["run", "-d", "--network=none", "--name"];
    let [a, b, c, d] = run;
    first.docker([a, b, c, d, "web", "-l", "tier=front", "demo:1", "sh", "-c", script, "web"]).await?;
    second.docker([a, b, c, d, "db", "-l", "tier=back", "demo:1", "sh", "-c", script, "db"]).await?;
    // It ends with 3, and that is no failure of ours.
    first.docker([a, b, c, d, "job", "demo:1", "sh", "-c", "exit 3"]).await?;
    first.docker(["wait", "job"]).await?;
    Ok(world)
}

async fn page(name: &str) -> anyhow::Result<()> {
    run(name, &fleet().await?).await
}

async fn run(name: &str, world: &World) -> anyhow::Result<()> {
    let gantry = workspace_binary("gantry")?;
    let programs = gantry.parent().context("it lies in a directory")?.to_owned();
    let path = std::env::var_os("PATH").unwrap_or_default();
    let path = std::env::join_paths([programs].into_iter().chain(std::env::split_paths(&path)))?;
    // Of a host that has just come it is not known yet what there is, and lists say so.
    for name in world.hosts.keys() {
        let containers = format!("{INSTANCES}/{name}/containers");
        eventually("its containers to be known", Duration::from_secs(30), async || {
            world.kubectl().run(["get", "--raw", &containers]).await
        })
        .await?;
    }
    let home = world.path("home");
    std::fs::create_dir_all(&home)?;
    let hosts = world
        .hosts
        .iter()
        .map(|(name, host)| format!("{name}) DOCKER_HOST={} \"$@\";;\n", host.engine.host()));
    let shell = Shell {
        prelude: format!("on() {{ host=$1; shift; case $host in\n{}esac; }}", hosts.collect::<String>()),
        environment: [
            ("PATH", path.to_string_lossy().into_owned()),
            ("HOME", home.display().to_string()),
            ("KUBECONFIG", world.controller.kubeconfig().display().to_string()),
            ("GANTRY_DATABASE_URL", world.postgres.url()),
            ("LC_ALL", "C.UTF-8".to_owned()),
        ]
        .map(|(name, value)| (name.to_owned(), value))
        .to_vec(),
        dir: home,
    };
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/cli").join(name);
    transcript::run(&page, &shell).await
}

#[tokio::test]
async fn what_the_index_says_is_so() -> anyhow::Result<()> {
    page("README.md").await
}

#[tokio::test]
async fn what_is_said_of_seeing_is_so() -> anyhow::Result<()> {
    page("seeing.md").await
}

#[tokio::test]
async fn what_is_said_of_looking_in_is_so() -> anyhow::Result<()> {
    page("looking-in.md").await
}

#[tokio::test]
async fn what_is_said_of_docker_is_so() -> anyhow::Result<()> {
    page("docker.md").await
}

#[tokio::test]
async fn what_is_said_of_the_audit_log_is_so() -> anyhow::Result<()> {
    page("audit.md").await
}

#[tokio::test]
async fn what_is_said_of_signing_in_is_so() -> anyhow::Result<()> {
    page("login.md").await
}

#[tokio::test]
async fn what_is_said_of_exit_codes_is_so() -> anyhow::Result<()> {
    page("exit-codes.md").await
}

#[tokio::test]
async fn what_is_said_of_objects_is_so() -> anyhow::Result<()> {
    page("objects.md").await
}

/// One host whose engine takes what registry.example has for one of ours.
#[tokio::test]
async fn what_is_said_of_acting_is_so() -> anyhow::Result<()> {
    let mut world = fleet().await?;
    let registry = Registry::start(&world.path("registry")).await?;
    let engine =
        Engine::start_behind(&world.path("nuc-03"), Some("registry.example"), Some(registry.name())).await?;
    let settings = world.agent_settings("nuc-03", &engine.host()).await?;
    world.start_agent("nuc-03", engine, settings)?;
    world.becomes_healthy("nuc-03", "Online").await?;
    run("acting.md", &world).await
}
