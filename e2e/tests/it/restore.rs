//! A store that was set back: what hosts did since then is not done again, and what they know is recorded.

use std::time::Duration;

use anyhow::ensure;
use gantry_e2e::eventually;
use gantry_e2e::figures::tell;
use gantry_e2e::manifest::operation;
use gantry_e2e::postgres::Postgres;
use gantry_e2e::world::World;
use tokio::time::Instant;

/// A HUP was asked of a host that was away, and the backup is from before the host came back and sent it. A Pause was asked for after
/// the backup.
async fn backed_up_before_a_kill(world: &mut World) -> anyhow::Result<std::path::PathBuf> {
    world.host("nuc-01")?.engine.runs("web").await?;
    world.host_mut("nuc-01")?.agent.stop().await?;
    let hup = operation(
        "hup",
        "nuc-01",
        "Kill",
        "web",
        "  parameters: {signal: HUP}\n  startDeadlineSeconds: 3600",
    );
    world.kubectl().apply(&hup).await?;
    world.kubectl().wait("operation/hup", "jsonpath={.status.phase}=Pending").await?;
    let backup = world.path("backup.sql");
    world.postgres.back_up(&backup).await?;

    world.host_mut("nuc-01")?.agent.resume()?;
    world.kubectl().wait("operation/hup", "condition=Complete").await?;
    world.kubectl().apply(&operation("lost", "nuc-01", "Pause", "web", "")).await?;
    world.kubectl().wait("operation/lost", "condition=Complete").await?;
    for name in ["hup", "lost"] {
        eventually("the agent to be let forget", Duration::from_secs(20), async || {
            let operation = world.kubectl().get("operation", name).await?;
            ensure!(operation["metadata"]["finalizers"].is_null(), "{name} is held yet");
            Ok(())
        })
        .await?;
    }
    ensure!(hups(world).await? == 1, "it was done once");
    world.controller.stop().await?;
    Ok(backup)
}

async fn hups(world: &World) -> anyhow::Result<usize> {
    Ok(world.host("nuc-01")?.engine.events("kill").await?.len())
}

/// The Operation ends as its agent remembers it, the container is left alone, and the host can be worked with.
async fn goes_on(world: &World, row: &str) -> anyhow::Result<()> {
    let since = Instant::now();
    world.kubectl().wait("operation/hup", "condition=Complete").await?;
    world.becomes_healthy("nuc-01", "Online").await?;
    eventually("the agent to tell of the Pause that was lost", Duration::from_secs(20), async || {
        let told = world.kubectl().run(["events", "--for", "dockerinstance/nuc-01"]).await?;
        let times = told.lines().filter(|line| line.contains("OrphanedResult")).count();
        ensure!(times == 1, "{times} in {told}");
        Ok(())
    })
    .await?;
    tell(row, "results of Operations that were lost, told of by an Event", "1", 1)?;
    world.kubectl().apply(&operation("unpause", "nuc-01", "Unpause", "web", "")).await?;
    world.kubectl().wait("operation/unpause", "condition=Complete").await?;
    let repeated = hups(world).await?.saturating_sub(1);
    tell(row, "effects of before that were repeated", "0", repeated)?;
    tell(
        row,
        "the result is known and the host works, after",
        "-",
        format!("{:.1} s", since.elapsed().as_secs_f64()),
    )?;
    ensure!(repeated == 0, "the HUP was sent again");
    Ok(())
}

#[tokio::test]
async fn f23_a_restored_backup_repeats_nothing_that_hosts_have_done_since() -> anyhow::Result<()> {
    let mut world = World::with_hosts(["nuc-01"]).await?;
    let backup = backed_up_before_a_kill(&mut world).await?;

    world.postgres.put_back(&backup).await?;
    let said = world.controller.declare_restored().await?;
    ensure!(said.contains("history 2 begins"), "it says: {said}");
    world.host_mut("nuc-01")?.agent.kill().await?;
    world.controller.resume().await?;
    let reason = r#"jsonpath={.status.conditions[?(@.type=="AgentConnected")].reason}=AwaitingReconnect"#;
    world.kubectl().wait("dockerinstance/nuc-01", reason).await?;
    assert_eq!(world.kubectl().get("di", "nuc-01").await?["status"]["health"], "Unknown");
    world.host_mut("nuc-01")?.agent.resume()?;

    goes_on(&world, "F23").await
}

#[tokio::test]
async fn f11_another_cluster_with_an_earlier_state_is_noticed_and_repeats_nothing() -> anyhow::Result<()> {
    let mut world = World::with_hosts(["nuc-01"]).await?;
    let backup = backed_up_before_a_kill(&mut world).await?;

    let other = Postgres::start(&world.path("other-pg")).await?;
    other.put_back(&backup).await?;
    world.controller.set_database(&other.url());
    world.controller.resume().await?;

    goes_on(&world, "F11").await?;
    let incarnation = other.query("SELECT incarnation FROM counter").await?;
    ensure!(incarnation.trim() == "2", "incarnation {incarnation}");
    Ok(())
}
