//! F05, F08 and F17: agents that sleep, that cannot write, and that are there twice.

use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use gantry_e2e::agent::Agent;
use gantry_e2e::engine::Engine;
use gantry_e2e::eventually;
use gantry_e2e::figures::tell;
use gantry_e2e::manifest::operation;
use gantry_e2e::network::{command, queued};
use gantry_e2e::proxy::{Link, Proxy};
use gantry_e2e::world::{Host, World};
use nix::sys::signal::Signal;
use serde_json::Value;
use tokio::time::Instant;

fn seconds(time: Duration) -> String {
    format!("{:.1} s", time.as_secs_f64())
}

fn reason(status: &Value, condition: &str) -> String {
    let mut all = status["conditions"].as_array().into_iter().flatten();
    let found = all.find(|one| one["type"] == condition);
    found.and_then(|one| one["reason"].as_str()).unwrap_or("absent").to_owned()
}

async fn status_is(
    world: &World,
    name: &str,
    what: &str,
    is_so: impl Fn(&Value) -> bool,
) -> anyhow::Result<Value> {
    eventually(what, Duration::from_secs(60), async || {
        let status = world.kubectl().get("op", name).await?["status"].clone();
        ensure!(is_so(&status), "{status:#}");
        Ok(status)
    })
    .await
}

/// An agent that sleeps for so long with two Submits unread; one of the two is cancelled meanwhile.
async fn an_agent_sleeps(for_so_long: Duration) -> anyhow::Result<()> {
    let mut world = World::new().await?;
    let proxy = Proxy::start(world.controller.address()).await?;
    world.enroll_through("nuc-01", &proxy).await?;
    world.becomes_healthy("nuc-01", "Online").await?;
    for name in ["web", "db"] {
        world.host("nuc-01")?.engine.runs(name).await?;
    }
    // While the instance is paused the names become ids, for which the agent must answer; nothing is sent yet.
    world.kubectl().merge("di", "nuc-01", r#"{"spec":{"paused":true}}"#).await?;
    for name in ["web", "db"] {
        let more = "  startDeadlineSeconds: 3600";
        world.kubectl().apply(&operation(&format!("stop-{name}"), "nuc-01", "Stop", name, more)).await?;
        let is_known = |status: &Value| status["target"]["id"].is_string();
        status_is(&world, &format!("stop-{name}"), "its target to be known", is_known).await?;
    }

    world.host_mut("nuc-01")?.agent.process()?.signal(Signal::SIGSTOP)?;
    let asleep = Instant::now();
    world.kubectl().merge("di", "nuc-01", r#"{"spec":{"paused":false}}"#).await?;
    for name in ["stop-web", "stop-db"] {
        status_is(&world, name, "it to be sent", |status| status["dispatch"]["sentAt"].is_string()).await?;
    }
    eventually("the Submits to be in the socket's buffer", Duration::from_secs(5), async || {
        let (_, unread) = queued(proxy.address().port())?;
        ensure!(unread > 400, "{unread} bytes are");
        Ok(())
    })
    .await?;
    world.kubectl().merge("op", "stop-db", r#"{"spec":{"cancel":true}}"#).await?;
    if for_so_long > Duration::from_secs(60) {
        world.becomes_healthy("nuc-01", "Offline").await?;
        let offline = asleep.elapsed();
        tell("F05", "Offline after the agent fell asleep", "<= 50 s", seconds(offline))?;
        ensure!(offline <= Duration::from_secs(50), "it was Offline after {offline:?}");
    }
    tokio::time::sleep_until(asleep + for_so_long).await;
    let still = world.kubectl().get("op", "stop-db").await?["status"]["phase"].clone();
    ensure!(still != "Cancelled", "nobody but the agent may say that it never ran");
    // It can read what lies in its buffers, and cannot be greeted anew.
    proxy.set(Link::Silent);
    world.host_mut("nuc-01")?.agent.process()?.signal(Signal::SIGCONT)?;
    tokio::time::sleep(Duration::from_secs(5)).await;
    let early = world.host("nuc-01")?.engine.events("die").await?;
    proxy.set(Link::Up);

    tell("F05", "effects before a fresh Hello", "0", early.len())?;
    ensure!(early.is_empty(), "it acted on what lay in its buffers: {early:?}");
    world.kubectl().wait("operation/stop-web", "condition=Complete").await?;
    let cancelled = world.kubectl().reaches("stop-db", "Cancelled").await?;
    let stopped = world.host("nuc-01")?.engine.events("stop").await?;
    let withdrawn = stopped.iter().filter(|name| *name == "db").count();
    tell("F05", "withdrawn operations that started", "0", withdrawn)?;
    ensure!(stopped == ["web"], "stopped: {stopped:?}; {cancelled:#}");
    ensure!(world.host("nuc-01")?.engine.state("db").await == "running", "what was cancelled happened");
    world.becomes_healthy("nuc-01", "Online").await
}

#[tokio::test]
async fn f05_an_agent_that_slept_starts_nothing_of_what_lay_in_its_buffers() -> anyhow::Result<()> {
    an_agent_sleeps(Duration::from_secs(21)).await
}

#[tokio::test]
#[ignore = "long: make chaos"]
async fn f05_an_agent_that_slept_for_15_minutes_starts_nothing_of_what_lay_in_its_buffers()
-> anyhow::Result<()> {
    an_agent_sleeps(Duration::from_secs(15 * 60)).await
}

/// A file system in memory at an agent's state directory; unmounted when dropped.
struct SmallDisk {
    at: String,
}

impl SmallDisk {
    async fn mount(agent: &Agent) -> anyhow::Result<Self> {
        std::fs::create_dir_all(agent.state_dir())?;
        let at = agent.state_dir().display().to_string();
        command("mount", &["-t", "tmpfs", "-o", "size=1m,mode=0700", "gantry-e2e", &at]).await?;
        Ok(Self { at })
    }

    fn ballast(&self) -> String {
        format!("{}/ballast", self.at)
    }

    /// Leaves no byte free.
    fn fill(&self) -> anyhow::Result<()> {
        use std::io::Write as _;
        let mut file = std::fs::File::create(self.ballast())?;
        while file.write_all(&[1; 4096]).is_ok() {}
        ensure!(file.write_all(&[1]).is_err(), "the disk is not full");
        Ok(())
    }

    async fn remount(&self, how: &str) -> anyhow::Result<()> {
        command("mount", &["-o", &format!("remount,{how}"), &self.at]).await
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        std::process::Command::new("umount").args(["--lazy", &self.at]).status().ok();
    }
}

/// A host whose agent keeps its state on a small disk, which `fault` then makes unwritable and `repair` writable again.
async fn a_disk_is_unwritable(
    what: &str,
    fault: impl AsyncFnOnce(&mut World, &SmallDisk) -> anyhow::Result<()>,
    repair: impl AsyncFnOnce(&SmallDisk) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let mut world = World::new().await?;
    let engine = Engine::start(&world.path("nuc-01"), None).await?;
    let settings = world.agent_settings("nuc-01", &engine.host()).await?;
    let mut agent = Agent::prepare(&world.path("nuc-01-agent"), settings)?;
    let disk = SmallDisk::mount(&agent).await?;
    agent.resume()?;
    world.hosts.insert("nuc-01".to_owned(), Host { agent, engine });
    world.becomes_healthy("nuc-01", "Online").await?;

    fault(&mut world, &disk).await?;
    let (name, waiting) = first_without_journal(&world).await?;
    let engine = &world.host("nuc-01")?.engine;
    let early = engine.events("start").await?;
    // Reads go on: a container that comes is counted, and the host stays Online.
    engine.runs("another").await?;
    let all = engine.docker(["ps", "-aq"]).await?.lines().count();
    eventually("the new container to be counted", Duration::from_secs(20), async || {
        let nuc = world.kubectl().get("di", "nuc-01").await?;
        ensure!(nuc["status"]["containers"]["total"] == all, "{}", nuc["status"]);
        ensure!(nuc["status"]["health"] == "Online", "{}", nuc["status"]);
        Ok(())
    })
    .await?;
    let state = engine.state(&name).await;
    repair(&disk).await?;
    let repaired = Instant::now();
    world.kubectl().wait(&format!("operation/{name}"), "condition=Complete").await?;
    let resumed = repaired.elapsed();

    let unjournaled = early.iter().filter(|started| **started == name).count();
    tell("F08", &format!("{what}: phase of a new operation"), "Pending", &waiting["phase"])?;
    tell("F08", &format!("{what}: started without a journal"), "0", unjournaled)?;
    tell("F08", &format!("{what}: resumed after the repair"), "<= 10 s", seconds(resumed))?;
    ensure!(waiting["phase"] == "Pending", "{waiting:#}");
    ensure!(unjournaled == 0 && state == "created", "it was started unjournaled: {state}");
    ensure!(resumed <= Duration::from_secs(10), "it resumed after {resumed:?}");
    for operation in world.kubectl().list("op").await? {
        let name = operation["metadata"]["name"].as_str().context("it has no name")?;
        world.kubectl().wait(&format!("operation/{name}"), "condition=Complete").await?;
    }
    let started = world.host("nuc-01")?.engine.events("start").await?;
    ensure!(started.iter().filter(|started| **started == name).count() == 1, "started: {started:?}");
    // The disk goes when nobody uses it.
    world.hosts.clear();
    Ok(())
}

/// Starts one container after another until an operation waits for the journal: a full disk still has room in the last block of
/// every file.
async fn first_without_journal(world: &World) -> anyhow::Result<(String, Value)> {
    for number in 0..12 {
        let name = format!("c{number}");
        let engine = &world.host("nuc-01")?.engine;
        engine.docker(["create", "--network=none", "--name", &name, "demo:1", "true"]).await?;
        world.kubectl().apply(&operation(&name, "nuc-01", "Start", &name, "")).await?;
        let since = Instant::now();
        while since.elapsed() < Duration::from_secs(4) {
            let status = world.kubectl().get("op", &name).await?["status"].clone();
            if reason(&status, "Dispatched") == "JournalUnavailable" {
                return Ok((name, status));
            }
            if status["phase"] == "Succeeded" {
                break;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }
    bail!("no operation waits for the journal")
}

#[tokio::test]
async fn f08_an_agent_whose_disk_is_full_starts_nothing_and_works_on_when_there_is_room() -> anyhow::Result<()>
{
    a_disk_is_unwritable(
        "disk full",
        async |_, disk| disk.fill(),
        async |disk| Ok(std::fs::remove_file(disk.ballast())?),
    )
    .await
}

#[tokio::test]
async fn f08_an_agent_whose_disk_is_read_only_starts_nothing_and_works_on_when_it_is_not()
-> anyhow::Result<()> {
    a_disk_is_unwritable(
        "disk read-only",
        // While the journal is open no disk is made read-only; the agent finds it so at its next start.
        async |world, disk| {
            world.host_mut("nuc-01")?.agent.kill().await?;
            disk.remount("ro").await?;
            world.host_mut("nuc-01")?.agent.resume()?;
            eventually("the agent to be back", Duration::from_secs(30), async || {
                let sessions = world.host("nuc-01")?.agent.log().matches("session is ready").count();
                ensure!(sessions == 2, "it is not");
                Ok(())
            })
            .await
        },
        async |disk| disk.remount("rw").await,
    )
    .await
}

/// Two containers of one name on two engines, and a second agent that was turned away: the first works on, alone.
async fn a_second_is_refused(
    what: &str,
    world: &World,
    second: &Agent,
    other: &Engine,
) -> anyhow::Result<()> {
    let started = Instant::now();
    eventually("the second to be turned away", Duration::from_secs(30), async || {
        ensure!(second.log().contains("DuplicateAgent"), "{}", second.log());
        Ok(())
    })
    .await?;
    let polled = started.elapsed();
    let (asked, refused) = (said_at(&second.log(), " started ")?, said_at(&second.log(), "DuplicateAgent")?);
    let within = Duration::try_from(refused.duration_since(asked))?.min(polled);
    let wait = eventually("it to wait", Duration::from_secs(5), async || {
        let log = second.log();
        let wait =
            log.lines().find_map(|line| line.split_once("retry_in_ms=")?.1.split(' ').next()?.parse().ok());
        wait.map(Duration::from_millis).context("it says no time")
    })
    .await?;

    tell("F17", &format!("{what}: the second is refused after"), "<= 1 s", format!("{within:.2?}"))?;
    tell("F17", &format!("{what}: it waits before it asks again"), ">= 60 s", seconds(wait))?;
    ensure!(within <= Duration::from_secs(1), "it was refused after {within:?}");
    ensure!(wait >= Duration::from_secs(60), "it comes back after {wait:?}");
    let first = world.host("nuc-01")?;
    eventually("the Event", Duration::from_secs(30), async || {
        let events = world.kubectl().list("events").await?;
        ensure!(events.iter().any(|event| event["reason"] == "DuplicateAgent"), "{events:?}");
        Ok(())
    })
    .await?;
    first.engine.runs("web").await?;
    other.runs("web").await?;
    world.kubectl().apply(&operation("stop", "nuc-01", "Stop", "web", "")).await?;
    world.kubectl().wait("operation/stop", "condition=Complete").await?;
    let (here, there) = (first.engine.events("stop").await?, other.events("stop").await?);
    let sessions = first.agent.log().matches("session is ready").count();
    tell(
        "F17",
        &format!("{what}: effects on first and second engine"),
        "1 and 0",
        format!("{} and {}", here.len(), there.len()),
    )?;
    tell("F17", &format!("{what}: sessions of the first"), "1", sessions)?;
    ensure!(here == ["web"] && there.is_empty(), "{here:?} and {there:?}");
    ensure!(sessions == 1, "the first lost its session");
    Ok(())
}

/// When the first line that has these words was logged.
fn said_at(log: &str, words: &str) -> anyhow::Result<jiff::Timestamp> {
    let line =
        log.lines().find(|line| line.contains(words)).with_context(|| format!("no {words} in {log}"))?;
    let time = line.split_whitespace().next().context("the line is empty")?;
    time.parse().with_context(|| format!("no time in {line}"))
}

#[tokio::test]
async fn f17_a_second_agent_with_the_name_of_the_first_is_refused_at_once() -> anyhow::Result<()> {
    let world = World::with_hosts(["nuc-01"]).await?;
    let other = Engine::start(&world.path("other"), None).await?;
    let settings = world.agent_settings("nuc-01", &other.host()).await?;

    let second = Agent::start(&world.path("impostor"), settings)?;

    a_second_is_refused("same name", &world, &second, &other).await
}

#[tokio::test]
async fn f17_a_second_agent_with_the_key_of_the_first_is_refused_at_once() -> anyhow::Result<()> {
    let world = World::with_hosts(["nuc-01"]).await?;
    let copy = world.path("clone");
    world.host("nuc-01")?.agent.copy_state(&copy).await?;
    let other = Engine::start(&world.path("other"), None).await?;
    let mut settings = world.agent_settings("nuc-01", &other.host()).await?;
    settings.token = String::new();

    let second = Agent::start(&copy, settings)?;

    a_second_is_refused("same key", &world, &second, &other).await
}
