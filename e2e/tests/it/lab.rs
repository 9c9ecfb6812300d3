//! The lab itself: if one of these fails, the machine lacks something and no other test means anything.

use gantry_e2e::engine::Engine;
use gantry_e2e::postgres::Postgres;
use gantry_e2e::registry::Registry;

#[tokio::test]
async fn an_engine_runs_containers_survives_a_restart_and_counts_its_events() -> anyhow::Result<()> {
    let dir = tempfile::tempdir()?;
    let mut engine = Engine::start(&dir.path().join("host"), None).await?;

    engine.runs("web").await?;
    assert_eq!(engine.state("web").await, "running");
    engine.docker(["stop", "web"]).await?;
    assert_eq!(engine.events("stop").await?, ["web"]);
    engine.stop().await?;
    engine.resume().await?;

    assert_eq!(engine.state("web").await, "exited");
    assert_eq!(engine.state("nothing").await, "gone");
    Ok(())
}

#[tokio::test]
async fn a_registry_takes_and_gives_images() -> anyhow::Result<()> {
    let dir = tempfile::tempdir()?;
    let registry = Registry::start(&dir.path().join("registry")).await?;
    let engine = Engine::start(&dir.path().join("host"), Some(registry.name())).await?;
    let reference = format!("{}/demo:1", registry.name());

    engine.docker(["tag", "demo:1", &reference]).await?;
    engine.docker(["push", &reference]).await?;
    engine.docker(["rmi", &reference]).await?;

    engine.docker(["pull", &reference]).await.map(drop)
}

#[tokio::test]
async fn a_crashed_postgres_comes_back_with_what_it_acknowledged() -> anyhow::Result<()> {
    let dir = tempfile::tempdir()?;
    std::fs::set_permissions(dir.path(), std::os::unix::fs::PermissionsExt::from_mode(0o711))?;
    let mut postgres = Postgres::start(&dir.path().join("pg")).await?;

    postgres.query("create table t as select 7 as n").await?;
    postgres.crash().await?;
    postgres.resume().await?;

    assert_eq!(postgres.query("select n from t").await?.trim(), "7");
    Ok(())
}
