//! F16: clocks on the wall that are ten minutes wrong, or become so.

use std::time::Duration;

use anyhow::ensure;
use gantry_e2e::agent::Agent;
use gantry_e2e::eventually;
use gantry_e2e::fake_engine::FakeEngine;
use gantry_e2e::faketime::WallClock;
use gantry_e2e::figures::tell;
use gantry_e2e::manifest::operation;
use gantry_e2e::world::World;

const TEN_MINUTES: i32 = 600;
/// Longer than any lease.
const A_WHILE: Duration = Duration::from_secs(20);

/// An agent beside an engine of ours, with a clock of its own.
async fn with_clock(world: &World, name: &str, ahead: i32) -> anyhow::Result<(FakeEngine, Agent, WallClock)> {
    let clock = WallClock::new(&world.path(&format!("{name}.clock")))?;
    clock.set(ahead)?;
    let engine = FakeEngine::start(&world.path(&format!("{name}.sock")), "1.41")?;
    engine.runs("web");
    let mut agent = Agent::prepare(&world.path(name), world.agent_settings(name, &engine.host()).await?)?;
    for (variable, value) in clock.variables() {
        agent.set_variable(variable, Some(&value));
    }
    agent.resume()?;
    Ok((engine, agent, clock))
}

async fn works(world: &World, instance: &str, action: &str) -> anyhow::Result<()> {
    let name = format!("{instance}-{}", action.to_lowercase());
    world.kubectl().apply(&operation(&name, instance, action, "web", "")).await?;
    world.kubectl().wait(&format!("operation/{name}"), "condition=Complete").await?;
    Ok(())
}

async fn offline(world: &World) -> anyhow::Result<usize> {
    let events = world.kubectl().list("events").await?;
    Ok(events.iter().filter(|event| event["reason"] == "Offline").count())
}

#[tokio::test]
async fn t35_f16_agents_whose_clocks_are_ten_minutes_wrong_enrol_work_and_stay() -> anyhow::Result<()> {
    let world = World::new().await?;
    let (_ahead_engine, ahead, _ahead_clock) = with_clock(&world, "ahead", TEN_MINUTES).await?;
    let (_behind_engine, behind, _behind_clock) = with_clock(&world, "behind", -TEN_MINUTES).await?;

    for name in ["ahead", "behind"] {
        world.becomes_healthy(name, "Online").await?;
        works(&world, name, "Pause").await?;
    }

    let refused = [&ahead, &behind].iter().filter(|agent| agent.log().contains("certificate")).count();
    let mut sessions = 0;
    for agent in [&ahead, &behind] {
        sessions += agent.log().matches("session is ready").count();
    }
    tell("F16", "fresh certificates refused, agents 10 min ahead and behind", "0", refused)?;
    tell("F16", "sessions of two agents", "2", sessions)?;
    ensure!(refused == 0 && sessions == 2, "{}\n{}", ahead.log(), behind.log());
    ensure!(ahead.log().lines().next() > behind.log().lines().next(), "their clocks are the same");
    Ok(())
}

#[tokio::test]
#[ignore = "long: make chaos"]
async fn t35_f16_clocks_that_jump_by_ten_minutes_cost_no_session_and_make_no_host_offline()
-> anyhow::Result<()> {
    let mut world = World::new().await?;
    let clocks = [WallClock::new(&world.path("controller.clock"))?, WallClock::new(&world.path("pg.clock"))?];
    let [controller, postgres] = &clocks;
    // Postgres runs as another user.
    world.controller.kill().await?;
    world.postgres.crash().await?;
    for (variable, value) in controller.variables() {
        world.controller.set_variable(variable, &value);
    }
    for (variable, value) in postgres.variables() {
        world.postgres.set_variable(variable, &value);
    }
    world.postgres.resume().await?;
    world.controller.resume().await?;
    let (_engine, agent, own) = with_clock(&world, "nuc-01", 0).await?;
    world.becomes_healthy("nuc-01", "Online").await?;
    let terms = |world: &World| world.controller.log().matches("this replica leads").count();
    let before = terms(&world);

    let mut early = 0;
    for (number, ahead) in [1, -1, 1].into_iter().enumerate() {
        // It waits for the instance while the clocks jump; five minutes are enough for it.
        world.kubectl().merge("di", "nuc-01", r#"{"spec":{"paused":true}}"#).await?;
        let action = if number % 2 == 0 { "Pause" } else { "Unpause" };
        let name = format!("o-{number}");
        world.kubectl().apply(&operation(&name, "nuc-01", action, "web", "")).await?;
        own.set(ahead * TEN_MINUTES)?;
        controller.set(-ahead * TEN_MINUTES)?;
        postgres.set(ahead * TEN_MINUTES)?;
        tokio::time::sleep(A_WHILE).await;
        world.kubectl().merge("di", "nuc-01", r#"{"spec":{"paused":false}}"#).await?;
        let ended = eventually("it to end", Duration::from_secs(60), async || {
            let status = world.kubectl().get("op", &name).await?["status"].clone();
            ensure!(status["completionTime"].is_string(), "{status}");
            Ok(status)
        })
        .await?;
        early += usize::from(ended["result"] == "StartDeadlineExceeded");
    }
    // And the other way round, so that each meets each.
    controller.set(TEN_MINUTES)?;
    tokio::time::sleep(A_WHILE).await;
    works(&world, "nuc-01", "Kill").await?;

    let (offline, sessions) = (offline(&world).await?, agent.log().matches("session is ready").count());
    let lost = terms(&world) - before;
    tell("F16", "jumps of 10 min of all three clocks: false Offline", "0", offline)?;
    tell("F16", "sessions", "1", sessions)?;
    tell("F16", "leases lost", "0", lost)?;
    tell("F16", "operations whose deadline came early, of 3", "0", early)?;
    ensure!(offline == 0, "the host was seen Offline");
    ensure!(sessions == 1, "{}", agent.log());
    ensure!(early == 0, "{early} operations were given up early");
    ensure!(lost == 0, "{}", world.controller.log());
    eventually("the instance to be Online", Duration::from_secs(5), async || {
        let health = world.kubectl().get("di", "nuc-01").await?["status"]["health"].clone();
        ensure!(health == "Online", "it is {health}");
        Ok(())
    })
    .await
}
