//! Connections that are cut after any byte, sliced, late, reset and closed by half, over a whole short session.

use std::time::Duration;

use anyhow::{Context as _, ensure};
use futures::future::try_join_all;
use gantry_e2e::agent::Agent;
use gantry_e2e::eventually;
use gantry_e2e::fake_engine::FakeEngine;
use gantry_e2e::figures::tell;
use gantry_e2e::manifest::operation;
use gantry_e2e::proxy::{Link, Proxy};
use gantry_e2e::world::World;
use tokio::time::Instant;

/// A host that enrols through a proxy and does one operation; how many bytes had passed then, and how long it took.
async fn a_session(
    world: &World,
    name: &str,
    prepare: impl FnOnce(&Proxy),
) -> anyhow::Result<(u64, Duration)> {
    let engine = FakeEngine::start(&world.path(&format!("{name}.sock")), "1.41")?;
    engine.runs("web");
    let proxy = Proxy::start(world.controller.address()).await?;
    prepare(&proxy);
    let mut settings = world.agent_settings(name, &engine.host()).await?;
    settings.controller = format!("https://{}", proxy.address());
    let begin = Instant::now();
    let agent = Agent::start(&world.path(name), settings)?;
    // The first byte that is lost may be of the enrolment, so the instance may take a while to be there.
    eventually(&format!("{name} to be Online"), Duration::from_secs(60), async || {
        let instance = world.kubectl().get("di", name).await?;
        ensure!(instance["status"]["health"] == "Online", "{}\n{}", instance["status"], agent.log());
        Ok(())
    })
    .await?;
    world.kubectl().apply(&operation(&format!("o-{name}"), name, "Restart", "web", "")).await?;
    let operation = world.kubectl().reaches(&format!("o-{name}"), "Succeeded").await.context(agent.log())?;
    let (passed, took) = (proxy.passed(), begin.elapsed());
    ensure!(engine.effects() == ["restart web"], "{name}: {:?}; {operation:#}", engine.effects());
    Ok((passed, took))
}

/// Cuts the session of one host after the first, of the next after the second of that many bytes.
async fn cuts(world: &World, first: u64, places: &[u64]) -> anyhow::Result<Duration> {
    let sessions = places.iter().enumerate().map(|(number, place)| {
        let name = format!("h{}-{place}", first + number as u64);
        async move { a_session(world, &name, |proxy| proxy.break_after(*place)).await }
    });
    Ok(try_join_all(sessions).await?.into_iter().map(|(_, took)| took).max().unwrap_or_default())
}

async fn every_cut(steps: u64) -> anyhow::Result<()> {
    let world = World::new().await?;
    let (bytes, _) = a_session(&world, "whole", |_| {}).await?;
    let places: Vec<u64> = (0..steps).map(|step| 1 + step * bytes / steps).collect();

    let mut slowest = Duration::ZERO;
    for (round, some) in places.chunks(6).enumerate() {
        slowest = slowest.max(cuts(&world, 6 * round as u64, some).await?);
    }

    tell("F06", &format!("cut after {steps} places in {bytes} bytes: right endings"), "all", steps)?;
    tell("F06", "cuts: effects that came twice or not", "0", 0)?;
    tell("F06", "cuts: slowest enrolment and operation", "told", format!("{:.1} s", slowest.as_secs_f64()))
}

#[tokio::test]
async fn f06_a_session_that_is_cut_after_any_of_its_bytes_ends_well() -> anyhow::Result<()> {
    every_cut(6).await
}

#[tokio::test]
#[ignore = "long: make chaos"]
async fn f06_a_session_that_is_cut_after_each_of_sixty_bytes_ends_well() -> anyhow::Result<()> {
    every_cut(60).await
}

#[tokio::test]
async fn f06_a_session_that_is_sliced_late_reset_or_half_closed_ends_well() -> anyhow::Result<()> {
    let world = World::new().await?;

    a_session(&world, "sliced", |proxy| proxy.set(Link::Sliced(7))).await?;
    a_session(&world, "late", |proxy| proxy.set(Link::Late(Duration::from_millis(200)))).await?;

    let engine = FakeEngine::start(&world.path("cut.sock"), "1.41")?;
    engine.runs("web");
    let proxy = Proxy::start(world.controller.address()).await?;
    let mut settings = world.agent_settings("cut", &engine.host()).await?;
    settings.controller = format!("https://{}", proxy.address());
    let agent = Agent::start(&world.path("cut"), settings)?;
    world.becomes_healthy("cut", "Online").await?;
    for (number, cut) in [Proxy::reset, Proxy::half_close].into_iter().enumerate() {
        cut(&proxy);
        let cut_at = Instant::now();
        eventually("another session", Duration::from_secs(30), async || {
            let sessions = agent.log().matches("session is ready").count();
            ensure!(sessions == number + 2, "there were {sessions}");
            Ok(())
        })
        .await?;
        let what = ["reset", "client's half closed"][number];
        let back = cut_at.elapsed();
        tell("F06", &format!("{what}: back"), "<= 10 s", format!("{:.1} s", back.as_secs_f64()))?;
        ensure!(back <= Duration::from_secs(10), "{what}: back after {back:?}");
    }
    ensure!(engine.effects().is_empty(), "{:?}", engine.effects());
    Ok(())
}
