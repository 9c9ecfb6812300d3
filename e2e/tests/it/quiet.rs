//! What an agent asks of an engine when nobody wants anything.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::ensure;
use gantry_e2e::agent::Agent;
use gantry_e2e::eventually;
use gantry_e2e::fake_engine::FakeEngine;
use gantry_e2e::world::World;

#[tokio::test]
async fn an_idle_agent_asks_docker_for_its_events_once_and_for_its_facts_at_each_health_check()
-> anyhow::Result<()> {
    let world = World::new().await?;
    let engine = FakeEngine::start(&world.path("docker.sock"), "1.41")?;
    world
        .kubectl()
        .apply(
            "apiVersion: gantry.dev/v1alpha1\nkind: DockerInstance\nmetadata: {name: idle}\n\
             spec: {healthCheck: {intervalSeconds: 5, timeoutSeconds: 3}}\n",
        )
        .await?;
    let settings = world.agent_settings("idle", &engine.host()).await?;
    let _agent = Agent::start(&world.path("agent"), settings)?;
    world.becomes_healthy("idle", "Online").await?;

    let checks = async || world.metric("docker_health_check_duration_seconds_count").await;
    let first = checks().await?;
    let checked = eventually("more health checks", Duration::from_secs(60), async || {
        let now = checks().await?;
        ensure!(now >= first + 3, "{now}");
        Ok(now)
    })
    .await?;

    let mut asked: BTreeMap<String, u64> = BTreeMap::new();
    for request in engine.requests() {
        *asked.entry(request).or_default() += 1;
    }
    let of = |request: &str| asked.get(request).copied().unwrap_or_default();
    let lists = ["GET /containers/json", "GET /images/json", "GET /networks", "GET /volumes"];
    let known = ["GET /_ping", "GET /version", "GET /info", "GET /events"];
    ensure!(
        asked.keys().all(|request| known.iter().chain(&lists).any(|known| known == request)),
        "{asked:?}"
    );
    // One for who only wants to know that something changed, one for the inventory.
    assert_eq!(of("GET /events"), 2, "{asked:?}");
    for list in lists {
        assert_eq!(of(list), 1, "{asked:?}");
    }
    // Once for each check, one of which may be under way, and once for the engine's id at the start.
    let most = checked + 2;
    for request in ["GET /info", "GET /version", "GET /_ping"] {
        ensure!(of(request) <= most, "{asked:?} in {checked} checks");
    }
    ensure!(of("GET /info") >= checked, "{asked:?} in {checked} checks");
    Ok(())
}
