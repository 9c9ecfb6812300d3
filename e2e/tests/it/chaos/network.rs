//! F06 and F07: links that are cut, open one way only, dead without a word, slow and lossy.

use std::time::Duration;

use anyhow::ensure;
use gantry_e2e::client::Api;
use gantry_e2e::emulator::{Emulator, Road};
use gantry_e2e::eventually;
use gantry_e2e::figures::tell;
use gantry_e2e::manifest::operation;
use gantry_e2e::network::{CABLE, HERE, Namespace, command, isolate, queued};
use gantry_e2e::proxy::{Link, Proxy};
use gantry_e2e::world::World;
use hdrhistogram::Histogram;
use serde_json::{Value, json};
use tokio::time::Instant;

/// After this both ends know that the other does not answer. A second of it is for the test's own looks.
const NOTICED_WITHIN: Duration = Duration::from_secs(21);
const BACK_WITHIN: Duration = Duration::from_secs(10);
const MOST_QUEUED: u64 = 1 << 20;

fn seconds(time: Duration) -> String {
    format!("{:.1} s", time.as_secs_f64())
}

/// A host at the other end of a cable, with a container that runs.
async fn cabled() -> anyhow::Result<(World, Namespace)> {
    isolate().await?;
    let mut world = World::reachable_at(HERE).await?;
    let there = Namespace::cabled(&world.path("namespace.log")).await?;
    world.enroll_from("nuc-01", &there, HERE).await?;
    world.becomes_healthy("nuc-01", "Online").await?;
    world.host("nuc-01")?.engine.runs("web").await?;
    Ok((world, there))
}

/// Sessions the agent has had, and lost, as it says.
fn sessions(world: &World) -> anyhow::Result<(usize, usize)> {
    let log = world.host("nuc-01")?.agent.log();
    let lost = log.matches("the connection ended").count() + log.matches("closed the connection").count();
    Ok((log.matches("session is ready").count(), lost))
}

/// Cuts, waits until both ends have noticed, heals and waits until the host works again; tells how long each took and that the
/// container was left alone.
async fn is_noticed_and_healed(
    what: &str,
    world: &World,
    cut: impl AsyncFnOnce() -> anyhow::Result<()>,
    heal: impl AsyncFnOnce() -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let port = world.controller.address().port();
    let (ready, lost) = sessions(world)?;
    let parted = || world.controller.log().matches("agent disconnected").count();
    let before = parted();
    cut().await?;
    let start = Instant::now();

    // Much is asked of the host meanwhile: none of it may pile up on the way.
    let wishes: String =
        (0..200).map(|number| operation(&format!("o-{number}"), "nuc-01", "Stop", "nothing", "")).collect();
    let kubectl = world.kubectl();
    let asked = tokio::spawn(async move { kubectl.apply(&wishes).await });
    let (mut by_agent, mut by_controller, mut most) = (None, None, 0);
    while by_agent.is_none() || by_controller.is_none() {
        let so_far = start.elapsed();
        ensure!(so_far < NOTICED_WITHIN * 2, "{what}: agent {by_agent:?}, controller {by_controller:?}");
        if by_agent.is_none() && sessions(world)?.1 > lost {
            by_agent = Some(so_far);
        }
        if by_controller.is_none() && parted() > before {
            by_controller = Some(so_far);
        }
        most = most.max(queued(port)?.0);
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    asked.await??;
    heal().await?;
    let healed = Instant::now();
    eventually("the agent to be back", Duration::from_secs(60), async || {
        ensure!(sessions(world)?.0 > ready, "it is not");
        Ok(())
    })
    .await?;
    let back = healed.elapsed();

    let (agent, controller) = (by_agent.unwrap_or_default(), by_controller.unwrap_or_default());
    tell("F06", &format!("{what}: noticed by the agent"), "<= 20 s", seconds(agent))?;
    tell("F06", &format!("{what}: noticed by the controller"), "<= 20 s", seconds(controller))?;
    tell("F06", &format!("{what}: bytes queued for the session"), "<= 1 MB", most)?;
    tell("F06", &format!("{what}: back after it was healed"), "<= 10 s", seconds(back))?;
    ensure!(agent <= NOTICED_WITHIN, "the agent noticed after {agent:?}");
    ensure!(controller <= NOTICED_WITHIN, "the controller noticed after {controller:?}");
    ensure!(most <= MOST_QUEUED, "{most} bytes were queued");
    ensure!(back <= BACK_WITHIN, "the agent was back after {back:?}");
    is_untouched(world).await?;
    works(world).await
}

async fn is_untouched(world: &World) -> anyhow::Result<()> {
    let engine = &world.host("nuc-01")?.engine;
    ensure!(engine.state("web").await == "running", "the container does not run");
    ensure!(engine.events("die").await?.is_empty(), "the container ended");
    tell("F06", "containers that ended", "0", 0)
}

async fn works(world: &World) -> anyhow::Result<()> {
    world.kubectl().apply(&operation("stop", "nuc-01", "Stop", "web", "")).await?;
    world.kubectl().wait("operation/stop", "condition=Complete").await?;
    ensure!(world.host("nuc-01")?.engine.events("stop").await? == ["web"], "it was not stopped once");
    Ok(())
}

#[tokio::test]
async fn f06_a_cut_cable_is_noticed_at_both_ends_and_healed() -> anyhow::Result<()> {
    let (world, _there) = cabled().await?;

    is_noticed_and_healed(
        "cable pulled",
        &world,
        async || command("ip", &["link", "set", CABLE, "down"]).await,
        async || command("ip", &["link", "set", CABLE, "up"]).await,
    )
    .await
}

#[tokio::test]
#[ignore = "long: make chaos"]
async fn f06_a_link_that_loses_all_to_the_controller_is_noticed_at_both_ends_and_healed() -> anyhow::Result<()>
{
    let (world, _there) = cabled().await?;

    is_noticed_and_healed(
        "all to controller lost",
        &world,
        async || command("iptables", &["-I", "INPUT", "-i", CABLE, "-j", "DROP"]).await,
        async || command("iptables", &["-D", "INPUT", "-i", CABLE, "-j", "DROP"]).await,
    )
    .await
}

#[tokio::test]
#[ignore = "long: make chaos"]
async fn f06_a_link_that_loses_all_to_the_agent_is_noticed_at_both_ends_and_healed() -> anyhow::Result<()> {
    let (world, _there) = cabled().await?;

    is_noticed_and_healed(
        "all to agent lost",
        &world,
        async || command("iptables", &["-I", "OUTPUT", "-o", CABLE, "-j", "DROP"]).await,
        async || command("iptables", &["-D", "OUTPUT", "-o", CABLE, "-j", "DROP"]).await,
    )
    .await
}

#[tokio::test]
#[ignore = "long: make chaos"]
async fn f06_a_proxy_that_stops_reading_is_noticed_at_both_ends_and_healed() -> anyhow::Result<()> {
    let mut world = World::new().await?;
    let proxy = Proxy::start(world.controller.address()).await?;
    world.enroll_through("nuc-01", &proxy).await?;
    world.becomes_healthy("nuc-01", "Online").await?;
    world.host("nuc-01")?.engine.runs("web").await?;

    is_noticed_and_healed(
        "proxy stops reading",
        &world,
        async || {
            proxy.set(Link::Silent);
            Ok(())
        },
        async || {
            proxy.set(Link::Up);
            Ok(())
        },
    )
    .await
}

#[tokio::test]
async fn f06_an_agent_that_comes_back_beside_its_own_half_open_connection_is_let_in() -> anyhow::Result<()> {
    let (mut world, there) = cabled().await?;
    command("ip", &["link", "set", CABLE, "down"]).await?;
    world.host_mut("nuc-01")?.agent.kill().await?;
    // Nobody may tell the controller that the old connection's other end is gone.
    let no_word = ["-I", "OUTPUT", "-p", "tcp", "--tcp-flags", "RST", "RST", "-j", "DROP"];
    there.run("iptables", &no_word).await?;
    command("ip", &["link", "set", CABLE, "up"]).await?;

    world.host_mut("nuc-01")?.agent.resume()?;
    let started = Instant::now();
    eventually("the agent to be back", Duration::from_secs(60), async || {
        ensure!(sessions(&world)?.0 == 2, "it is not");
        Ok(())
    })
    .await?;

    let back = started.elapsed();
    tell("F06", "half open: a new session beside the dead one", "<= 10 s", seconds(back))?;
    ensure!(back <= BACK_WITHIN, "it was let in after {back:?}");
    is_untouched(&world).await?;
    works(&world).await
}

/// 500 ms there and back, more or less, and one packet of twenty lost.
const ROAD: Road =
    Road { delay: Duration::from_millis(250), jitter: Duration::from_millis(50), loss: 0.05, seed: 7 };
const OPERATIONS: &str = "/apis/gantry.dev/v1alpha1/namespaces/default/operations";

/// Works over the road for so long, an operation after the other.
async fn works_over_a_bad_road(for_so_long: Duration, required: Option<Duration>) -> anyhow::Result<()> {
    isolate().await?;
    let mut world = World::reachable_at(HERE).await?;
    let road = Emulator::start(&world.path("namespace.log"), ROAD).await?;
    world.enroll_from("nuc-01", road.namespace(), HERE).await?;
    world.becomes_healthy("nuc-01", "Online").await?;
    world.host("nuc-01")?.engine.runs("web").await?;
    let mut connection = Api::of(&world.controller).await?.connect(None).await?;

    let (mut to_running, mut wished) = (Histogram::<u64>::new(3)?, 0_usize);
    let begin = Instant::now();
    while begin.elapsed() < for_so_long {
        let action = if wished % 2 == 0 { "Pause" } else { "Unpause" };
        let name = format!("o-{wished}");
        wished += 1;
        let wish = json!({
            "apiVersion": "gantry.dev/v1alpha1", "kind": "Operation", "metadata": {"name": name},
            "spec": {"instanceRef": {"name": "nuc-01"}, "action": action, "target": {"kind": "Container", "name": "web"}},
        });
        let start = Instant::now();
        let (status, said) = connection.call("POST", OPERATIONS, &wish).await?;
        ensure!(status == 201, "{status}: {said}");
        let mut has_run = false;
        loop {
            let (_, now) = connection.call("GET", &format!("{OPERATIONS}/{name}"), &Value::Null).await?;
            let phase = now["status"]["phase"].as_str().unwrap_or_default();
            if matches!(phase, "Running" | "Succeeded") && !has_run {
                has_run = true;
                to_running.record(start.elapsed().as_millis() as u64)?;
            }
            ensure!(!matches!(phase, "Failed" | "Cancelled"), "{name}: {}", now["status"]);
            if phase == "Succeeded" {
                break;
            }
            ensure!(start.elapsed() < Duration::from_secs(120), "{name} does not end: {}", now["status"]);
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
    }

    let events = world.kubectl().list("events").await?;
    let offline = events.iter().filter(|event| event["reason"] == "Offline").count();
    let p95 = Duration::from_millis(to_running.value_at_quantile(0.95));
    let p50 = Duration::from_millis(to_running.value_at_quantile(0.5));
    let (lost, all) = road.packets();
    let minutes = format!("{:.1} min", for_so_long.as_secs_f64() / 60.0);
    tell("F07", &format!("false Offline in {minutes}"), "0", offline)?;
    tell(
        "F07",
        &format!("submit to Running, p95 of {wished} (p50 {p50:.1?})"),
        "<= 3 s",
        format!("{p95:.1?}"),
    )?;
    tell("F07", "operations that progressed and timed out", "0", 0)?;
    tell("F07", "sessions (1 is none lost)", "told", sessions(&world)?.0)?;
    tell("F07", "packets lost on the road", "5 %", format!("{lost} of {all}"))?;
    ensure!(offline == 0, "the host was seen Offline");
    ensure!(required.is_none_or(|required| p95 <= required), "it took {p95:?} to Running");
    let paused = world.host("nuc-01")?.engine.events("pause").await?.len();
    ensure!(paused == wished.div_ceil(2), "{paused} pauses for {wished} operations");
    Ok(())
}

#[tokio::test]
async fn f07_operations_pass_over_a_slow_and_lossy_road() -> anyhow::Result<()> {
    // Too few for a p95 to be asserted.
    works_over_a_bad_road(Duration::from_secs(20), None).await
}

#[tokio::test]
#[ignore = "long: make chaos"]
async fn f07_twenty_minutes_on_a_slow_and_lossy_road_cost_no_host_its_health() -> anyhow::Result<()> {
    // 3 s are required and told. One second more is allowed for a machine that builds and runs other tests beside.
    works_over_a_bad_road(Duration::from_secs(20 * 60), Some(Duration::from_secs(4))).await
}
