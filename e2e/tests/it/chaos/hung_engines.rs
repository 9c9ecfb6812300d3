//! F15 and F20: engines whose events are lost, and one engine of many that hangs.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use futures::future::try_join_all;
use gantry_e2e::agent::Agent;
use gantry_e2e::client::Api;
use gantry_e2e::eventually;
use gantry_e2e::fake_engine::FakeEngine;
use gantry_e2e::figures::tell;
use gantry_e2e::manifest::operation;
use gantry_e2e::process::run;
use gantry_e2e::world::World;
use hdrhistogram::Histogram;
use nix::sys::signal::Signal;
use serde_json::{Value, json};
use tokio::process::Command;
use tokio::time::Instant;

/// Waits until the instance shows so many containers; how long that took.
async fn counts(world: &World, name: &str, containers: usize) -> anyhow::Result<Duration> {
    let start = Instant::now();
    eventually(&format!("{containers} containers to be counted"), Duration::from_secs(100), async || {
        let instance = world.kubectl().get("di", name).await?;
        let total = &instance["status"]["containers"]["total"];
        ensure!(*total == containers, "there are {total}");
        Ok(())
    })
    .await?;
    Ok(start.elapsed())
}

fn seconds(time: Duration) -> String {
    format!("{:.1} s", time.as_secs_f64())
}

/// Gives an image another name so many times, each of which is an event.
async fn burst(socket: &Path, events: usize) -> anyhow::Result<()> {
    let mut curl = Command::new("curl");
    curl.args(["-sf", "-o", "/dev/null", "-X", "POST", "--unix-socket"]).arg(socket);
    curl.arg(format!("http://docker/images/demo:1/tag?repo=burst&tag=1&number=[1-{events}]"));
    run(curl).await.map(drop)
}

#[tokio::test]
async fn f15_a_removal_behind_5000_events_of_which_most_were_dropped_is_found() -> anyhow::Result<()> {
    let world = World::new().await?;
    let (engine, mut agent) = with_fake(&world, "busy").await?;
    engine.runs("web");
    world.becomes_healthy("busy", "Online").await?;
    counts(&world, "busy", 1).await?;

    agent.process()?.signal(Signal::SIGSTOP)?;
    for _ in 0..2_500 {
        engine.runs("burst");
        engine.removes("burst");
    }
    engine.removes("web");
    // The engine notices that nobody reads, and drops what does not fit.
    tokio::time::sleep(Duration::from_secs(2)).await;
    agent.process()?.signal(Signal::SIGCONT)?;
    let found = counts(&world, "busy", 0).await?;

    tell("F15", "a removal behind 5,000 dropped events is found in", "<= 60 s", seconds(found))?;
    tell("F15", "events that the engine dropped", "some", engine.dropped_events())?;
    ensure!(engine.dropped_events() > 0, "the engine told of every event");
    ensure!(found <= Duration::from_secs(60), "it was found after {found:?}");
    Ok(())
}

#[tokio::test]
#[ignore = "long: make chaos"]
async fn f15_a_removal_among_events_of_a_real_engine_that_an_agent_slept_through_is_found()
-> anyhow::Result<()> {
    let mut world = World::with_hosts(["nuc-01"]).await?;
    let engine = &world.host("nuc-01")?.engine;
    engine.runs("web").await?;
    counts(&world, "nuc-01", 1).await?;

    world.host_mut("nuc-01")?.agent.process()?.signal(Signal::SIGSTOP)?;
    let engine = &world.host("nuc-01")?.engine;
    let asleep = Instant::now();
    // Each costs the engine a write to its disk, so there are fewer than a fake one can tell of.
    burst(&engine.socket(), 400).await?;
    engine.docker(["rm", "-f", "web"]).await?;
    let slept = asleep.elapsed();
    world.host_mut("nuc-01")?.agent.process()?.signal(Signal::SIGCONT)?;
    let found = counts(&world, "nuc-01", 0).await?;

    tell("F15", "a removal after 400 unread events of a real engine is found in", "<= 60 s", seconds(found))?;
    tell("F15", "the agent had slept meanwhile for", "told", seconds(slept))?;
    ensure!(found <= Duration::from_secs(60), "it was found after {found:?}");
    world.becomes_healthy("nuc-01", "Online").await
}

#[tokio::test]
#[ignore = "long: make chaos"]
async fn f15_changes_that_an_engine_does_not_tell_of_are_found_within_a_minute() -> anyhow::Result<()> {
    let world = World::new().await?;
    let (engine, _agent) = with_fake(&world, "quiet").await?;
    world.becomes_healthy("quiet", "Online").await?;

    let mut slowest = Duration::ZERO;
    engine.drop_events(true);
    for count in 1..=3 {
        engine.runs(&format!("c{count}"));
        slowest = slowest.max(counts(&world, "quiet", count).await?);
    }

    tell("F15", "changes without any event are found in", "<= 60 s", seconds(slowest))?;
    // A second for the check itself and for the test's look.
    ensure!(slowest <= Duration::from_secs(61), "the slowest was found after {slowest:?}");
    Ok(())
}

/// A host with an engine of ours.
async fn with_fake(world: &World, name: &str) -> anyhow::Result<(FakeEngine, Agent)> {
    let engine = FakeEngine::start(&world.path(&format!("{name}.sock")), "1.41")?;
    let settings = world.agent_settings(name, &engine.host()).await?;
    let agent = Agent::start(&world.path(name), settings)?;
    Ok((engine, agent))
}

const OPERATIONS: &str = "/apis/gantry.dev/v1alpha1/namespaces/default/operations";

/// Pauses and unpauses a container of each of these hosts so many times; how long each took, in microseconds.
async fn works(api: &Api, hosts: &[String], round: &str, times: usize) -> anyhow::Result<Histogram<u64>> {
    let workers = hosts.iter().map(|host| async move {
        let mut histogram = Histogram::<u64>::new(3)?;
        let mut connection = api.connect(None).await?;
        for number in 0..times {
            let action = if number % 2 == 0 { "Pause" } else { "Unpause" };
            let name = format!("{round}-{host}-{number}");
            let wish = json!({
                "apiVersion": "gantry.dev/v1alpha1", "kind": "Operation", "metadata": {"name": name},
                "spec": {"instanceRef": {"name": host}, "action": action, "target": {"kind": "Container", "name": "web"}},
            });
            let begin = Instant::now();
            let (status, said) = connection.call("POST", OPERATIONS, &wish).await?;
            ensure!(status == 201, "{status}: {said}");
            loop {
                let path = format!("{OPERATIONS}/{name}");
                let (_, now) = connection.call("GET", &path, &Value::Null).await?;
                match now["status"]["phase"].as_str() {
                    Some("Succeeded") => break,
                    Some("Failed") => anyhow::bail!("{name} failed: {now}"),
                    _ => tokio::time::sleep(Duration::from_millis(5)).await,
                }
                ensure!(begin.elapsed() < Duration::from_secs(30), "{name} does not end: {now}");
            }
            histogram.record(begin.elapsed().as_micros() as u64)?;
        }
        anyhow::Ok(histogram)
    });
    let mut all = Histogram::new(3)?;
    for one in try_join_all(workers).await? {
        all.add(one)?;
    }
    Ok(all)
}

fn milliseconds(histogram: &Histogram<u64>, quantile: f64) -> f64 {
    histogram.value_at_quantile(quantile) as f64 / 1_000.0
}

/// Of so many hosts one hangs, of which much is wished.
async fn one_hangs(hosts: usize, times: usize) -> anyhow::Result<()> {
    let world = World::new().await?;
    let api = Api::of(&world.controller).await?;
    let mut all = Vec::new();
    for number in 0..hosts {
        let (engine, agent) = with_fake(&world, &format!("n{number}")).await?;
        engine.runs("web");
        all.push((engine, agent));
    }
    for number in 0..hosts {
        world.becomes_healthy(&format!("n{number}"), "Online").await?;
    }
    let others: Vec<_> = (1..hosts).map(|number| format!("n{number}")).collect();
    let hung = &all.first().context("there is no host")?.0;
    works(&api, &others, "warm", 4).await?;
    let before = works(&api, &others, "before", times).await?;

    hung.hang(true);
    let wishes: String =
        (0..100).map(|number| operation(&format!("hung-{number}"), "n0", "Stop", "web", "")).collect();
    world.kubectl().apply(&wishes).await?;
    let told = eventually("those that cannot be asked to say so", Duration::from_secs(20), async || {
        let list = world.kubectl().list("op").await?;
        let mut messages = list.iter().map(|one| one["status"]["conditions"].to_string());
        ensure!(messages.any(|one| one.contains("too many calls wait")), "none does");
        Ok(())
    })
    .await
    .is_ok();
    let during = works(&api, &others, "during", times).await?;
    let most = hung.most_waiting();
    hung.hang(false);

    tell("F20", "calls that wait for the hung engine, but its health check and its one list", "<= 10", most)?;
    tell("F20", "further ones are told so at once", "yes", if told { "yes" } else { "no" })?;
    let figures = |histogram| {
        format!("p50 {:.0} ms, p99 {:.0} ms", milliseconds(histogram, 0.5), milliseconds(histogram, 0.99))
    };
    tell("F20", &format!("operations on {} others, all well", hosts - 1), "told", figures(&before))?;
    tell("F20", "operations on the others beside the hung one", "+-10 % (told)", figures(&during))?;
    ensure!(most <= 10, "{most} calls waited for the hung engine");
    ensure!(told, "nobody was told that too many calls wait");
    for (engine, _) in all.iter().skip(1) {
        ensure!(engine.effects().len() == 4 + 2 * times, "something was done twice or not at all");
    }
    // What was wished of the hung one goes on: the first stops its container, the others find it so.
    eventually("the hung one's operations to end", Duration::from_secs(90), async || {
        let list = world.kubectl().list("op").await?;
        let open = list.iter().filter(|one| one["status"]["phase"] != "Succeeded").count();
        ensure!(open == 0, "{open} are open");
        Ok(())
    })
    .await?;
    ensure!(hung.effects() == ["stop web"], "{:?}", hung.effects());
    Ok(())
}

#[tokio::test]
async fn f20_an_engine_that_hangs_keeps_at_most_ten_calls_and_no_other_host_waiting() -> anyhow::Result<()> {
    one_hangs(4, 10).await
}

#[tokio::test]
#[ignore = "long: make chaos"]
async fn f20_an_engine_of_twenty_that_hangs_keeps_no_other_host_waiting() -> anyhow::Result<()> {
    one_hangs(20, 60).await
}
