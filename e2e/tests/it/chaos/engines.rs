//! Docker Engines that stop, hang or lose events.

use std::time::Duration;

use anyhow::ensure;
use gantry_e2e::eventually;
use gantry_e2e::figures::tell;
use gantry_e2e::manifest::operation;
use gantry_e2e::rest::{INSTANCES, OPERATIONS, Rest};
use gantry_e2e::world::World;
use nix::sys::signal::Signal;
use serde_json::Value;
use tokio::time::Instant;

/// The status of a condition of the one instance.
fn condition<'a>(instance: &'a Value, kind: &str) -> &'a str {
    let conditions = instance["status"]["conditions"].as_array();
    let found = conditions.into_iter().flatten().find(|one| one["type"] == kind);
    found.and_then(|one| one["status"].as_str()).unwrap_or("absent")
}

async fn instance(rest: &Rest) -> anyhow::Result<Value> {
    Ok(rest.get(&format!("{INSTANCES}/nuc-01")).await?.body)
}

/// How long it takes until the engine counts as reachable, or not.
async fn until_reachable_is(rest: &Rest, is_reachable: &str) -> anyhow::Result<Duration> {
    let since = Instant::now();
    eventually("EngineReachable to tell", Duration::from_secs(150), async || {
        let is = instance(rest).await?;
        ensure!(condition(&is, "EngineReachable") == is_reachable, "{}", is["status"]);
        Ok(())
    })
    .await?;
    Ok(since.elapsed())
}

/// While the engine is away: what is known of the host is kept, and an operation waits and says why.
async fn is_told_of(rest: &Rest, known: &Value) -> anyhow::Result<()> {
    let is = instance(rest).await?;
    let status = &is["status"];
    ensure!(status["health"] == "Offline", "{status}");
    ensure!(condition(&is, "AgentConnected") == "True", "the agent is here: {status}");
    for field in ["images", "containers", "engine"] {
        ensure!(
            status[field] == known["status"][field],
            "{field} was {}, is {}",
            known["status"][field],
            status[field]
        );
    }
    let waiting = operation_of("waiting", "pause-me", "Pause");
    ensure!(rest.post(OPERATIONS, &waiting).await?.is_done(), "an operation was not taken");
    eventually("the operation to say what it waits for", Duration::from_secs(20), async || {
        let waiting = rest.get(&format!("{OPERATIONS}/waiting")).await?.body;
        let mut conditions = waiting["status"]["conditions"].as_array().into_iter().flatten();
        let says = conditions.any(|one| one["type"] == "Dispatched" && one["reason"] == "EngineUnreachable");
        ensure!(says && waiting["status"]["phase"] == "Pending", "{}", waiting["status"]);
        Ok(())
    })
    .await
}

fn operation_of(name: &str, container: &str, action: &str) -> Value {
    serde_json::json!({"apiVersion": "gantry.dev/v1alpha1", "kind": "Operation", "metadata": {"name": name}, "spec": {
        "instanceRef": {"name": "nuc-01"}, "action": action, "target": {"kind": "Container", "name": container},
        "startDeadlineSeconds": 3600}})
}

async fn ended(rest: &Rest, name: &str) -> anyhow::Result<Value> {
    eventually(&format!("{name} to be over"), Duration::from_secs(120), async || {
        let one = rest.get(&format!("{OPERATIONS}/{name}")).await?.body;
        ensure!(one["status"]["completionTime"].is_string(), "{}", one["status"]);
        Ok(one)
    })
    .await
}

/// `Succeeded`, or the reason of a failure.
fn end(operation: &Value) -> &str {
    let conditions = operation["status"]["conditions"].as_array();
    let failed = conditions.into_iter().flatten().find(|one| one["type"] == "Failed");
    failed
        .and_then(|one| one["reason"].as_str())
        .or(operation["status"]["phase"].as_str())
        .unwrap_or("absent")
}

fn tell_times(how: &str, gone: Duration, back: Duration) -> anyhow::Result<()> {
    tell(
        "F14",
        &format!("{how}: EngineReachable=False after"),
        "<= 35 s",
        format!("{:.1} s", gone.as_secs_f64()),
    )?;
    tell("F14", &format!("{how}: known, and what waits, are kept"), "stale, never empty", "yes")?;
    tell("F14", &format!("{how}: True again after its return"), "-", format!("{:.1} s", back.as_secs_f64()))
}

const REACHABLE_WITHIN: Duration = Duration::from_secs(35);

#[tokio::test]
async fn f14_a_stopped_engine_is_told_of_and_what_was_known_stays() -> anyhow::Result<()> {
    let mut world = World::with_hosts(["nuc-01"]).await?;
    let rest = Rest::new(&world.controller.kubeconfig()).await?;
    world.host("nuc-01")?.engine.runs("pause-me").await?;
    let known = settled(&rest).await?;

    world.host_mut("nuc-01")?.engine.stop().await?;
    let gone = until_reachable_is(&rest, "False").await?;
    is_told_of(&rest, &known).await?;
    world.host_mut("nuc-01")?.engine.resume().await?;
    world.host("nuc-01")?.engine.docker(["start", "pause-me"]).await?;
    let back = until_reachable_is(&rest, "True").await?;

    ended(&rest, "waiting").await?;
    tell_times("dockerd stopped", gone, back)?;
    assert!(gone <= REACHABLE_WITHIN, "it took {gone:?}");
    Ok(())
}

#[tokio::test]
async fn f14_a_killed_engine_is_told_of_and_a_restart_it_was_at_is_not_repeated() -> anyhow::Result<()> {
    let mut world = World::with_hosts(["nuc-01"]).await?;
    let rest = Rest::new(&world.controller.kubeconfig()).await?;
    world.host("nuc-01")?.engine.runs("pause-me").await?;
    // It takes the whole timeout to restart: time to die in.
    world.host("nuc-01")?.engine.runs_stubbornly("slow").await?;
    let known = settled(&rest).await?;
    let restart = operation("restart", "nuc-01", "Restart", "slow", "  parameters: {timeoutSeconds: 20}");
    world.kubectl().apply(&restart).await?;
    world.kubectl().reaches("restart", "Running").await?;
    tokio::time::sleep(Duration::from_secs(2)).await;

    world.host_mut("nuc-01")?.engine.kill().await?;
    let gone = until_reachable_is(&rest, "False").await?;
    is_told_of(&rest, &known).await?;
    world.host_mut("nuc-01")?.engine.resume().await?;
    world.host("nuc-01")?.engine.docker(["start", "pause-me"]).await?;
    let back = until_reachable_is(&rest, "True").await?;

    let restart = ended(&rest, "restart").await?;
    ended(&rest, "waiting").await?;
    let restarts = world.host("nuc-01")?.engine.events("restart").await?.len();
    tell_times("dockerd killed", gone, back)?;
    tell(
        "F14",
        "dockerd killed: a restart it was at",
        "OutcomeUnknown, not repeated",
        format!("{}, {restarts} done", end(&restart)),
    )?;
    assert_eq!(end(&restart), "OutcomeUnknown", "{}", restart["status"]);
    assert_eq!(restarts, 0, "it was done again");
    assert!(gone <= REACHABLE_WITHIN, "it took {gone:?}");
    Ok(())
}

async fn hang(time: Duration) -> anyhow::Result<()> {
    let mut world = World::with_hosts(["nuc-01"]).await?;
    let rest = Rest::new(&world.controller.kubeconfig()).await?;
    world.host("nuc-01")?.engine.runs("pause-me").await?;
    world.host("nuc-01")?.engine.runs_stubbornly("slow").await?;
    let known = settled(&rest).await?;
    let stop = operation("stop", "nuc-01", "Stop", "slow", "  parameters: {timeoutSeconds: 5}");
    world.kubectl().apply(&stop).await?;
    world.kubectl().reaches("stop", "Running").await?;

    world.host("nuc-01")?.engine.daemon()?.signal(Signal::SIGSTOP)?;
    let since = Instant::now();
    let gone = until_reachable_is(&rest, "False").await?;
    is_told_of(&rest, &known).await?;
    tokio::time::sleep_until(since + time).await;
    let running = rest.get(&format!("{OPERATIONS}/stop")).await?.body;
    world.host("nuc-01")?.engine.daemon()?.signal(Signal::SIGCONT)?;
    let back = until_reachable_is(&rest, "True").await?;

    let (stop, waiting) = (ended(&rest, "stop").await?, ended(&rest, "waiting").await?);
    world.host_mut("nuc-01")?.agent.process()?.check_alive()?;
    let stops = world.host("nuc-01")?.engine.events("stop").await?;
    let how = format!("dockerd hangs {} s", time.as_secs());
    tell_times(&how, gone, back)?;
    tell(
        "F14",
        &format!("{how}: a stop it was at, and one that waited"),
        "their result, once",
        format!("{}, {}", end(&stop), end(&waiting)),
    )?;
    assert!(running["status"]["completionTime"].is_null(), "it was given up: {}", running["status"]);
    assert_eq!((end(&stop), end(&waiting)), ("Succeeded", "Succeeded"));
    assert_eq!(stops, ["slow"]);
    assert!(gone <= REACHABLE_WITHIN, "it took {gone:?}");
    Ok(())
}

#[tokio::test]
#[ignore = "long: make chaos"]
async fn f14_an_engine_that_hangs_for_a_minute_is_told_of_and_ends_what_it_was_at() -> anyhow::Result<()> {
    hang(Duration::from_secs(60)).await
}

#[tokio::test]
#[ignore = "long: make chaos"]
async fn f14_an_engine_that_hangs_for_five_minutes_is_told_of_and_ends_what_it_was_at() -> anyhow::Result<()>
{
    hang(Duration::from_secs(300)).await
}

/// The instance once its inventory has what runs there.
async fn settled(rest: &Rest) -> anyhow::Result<Value> {
    eventually("the inventory", Duration::from_secs(90), async || {
        let is = instance(rest).await?;
        let running = is["status"]["containers"]["running"].as_u64().unwrap_or_default();
        ensure!(running > 0 && is["status"]["health"] == "Online", "{}", is["status"]);
        Ok(is)
    })
    .await
}
