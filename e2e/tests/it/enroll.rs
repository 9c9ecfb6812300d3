//! How hosts come in, and who does not.

use std::time::Duration;

use anyhow::ensure;
use gantry_e2e::agent::{Agent, AgentSettings};
use gantry_e2e::engine::Engine;
use gantry_e2e::eventually;
use gantry_e2e::fake_engine::FakeEngine;
use gantry_e2e::manifest::operation;
use gantry_e2e::world::World;
use serde_json::Value;

#[tokio::test]
async fn three_hosts_register_themselves_and_are_online() -> anyhow::Result<()> {
    let world = World::with_hosts(["nuc-01", "nuc-02", "nuc-03"]).await?;

    let table = world.kubectl().run(["get", "dockerinstances"]).await?;
    for name in ["nuc-01", "nuc-02", "nuc-03"] {
        ensure!(table.lines().any(|line| line.starts_with(name) && line.contains("Online")), "{table}");
    }
    let nuc = world.kubectl().get("di", "nuc-01").await?;
    let version = world.host("nuc-01")?.engine.docker(["version", "--format", "{{.Server.Version}}"]).await?;
    assert_eq!(nuc["status"]["engine"]["version"], version.as_str());
    assert_eq!(nuc["status"]["containers"]["total"], 0);
    assert_eq!(nuc["status"]["images"], 1);
    Ok(())
}

#[tokio::test]
async fn an_instance_declared_in_advance_is_bound_to_the_agent_that_enrols_under_its_name()
-> anyhow::Result<()> {
    let mut world = World::new().await?;
    world
        .kubectl()
        .apply(
            "apiVersion: gantry.dev/v1alpha1\nkind: DockerInstance\nmetadata: {name: shop-7, labels: {site: shop}}\n\
             spec: {displayName: The till, healthCheck: {intervalSeconds: 5, timeoutSeconds: 2}}\n",
        )
        .await?;
    assert_eq!(world.kubectl().get("di", "shop-7").await?["status"]["health"], "Unknown");

    world.enroll("shop-7", None).await?;

    world.becomes_healthy("shop-7", "Online").await?;
    let bound = world.kubectl().get("di", "shop-7").await?;
    assert_eq!(bound["spec"]["displayName"], "The till");
    assert_eq!(bound["metadata"]["labels"]["site"], "shop");
    Ok(())
}

/// Two containers of one name on two engines: an operation that is to stop the first host's stops that one only, and the first
/// host's agent has had one session all the time.
async fn only_the_first_is_operated_on(world: &World, other: &Engine) -> anyhow::Result<()> {
    let first = world.host("nuc-01")?;
    first.engine.runs("web").await?;
    other.runs("web").await?;

    world.kubectl().apply(&operation("stop-web", "nuc-01", "Stop", "web", "")).await?;
    world.kubectl().wait("operation/stop-web", "condition=Complete").await?;

    assert_eq!(first.engine.state("web").await, "exited");
    assert_eq!(other.state("web").await, "running");
    assert_eq!(first.engine.events("stop").await?, ["web"]);
    assert_eq!(other.events("stop").await?, Vec::<String>::new());
    let id = first.engine.docker(["info", "--format", "{{.ID}}"]).await?;
    let nuc = world.kubectl().get("di", "nuc-01").await?;
    assert_eq!(nuc["status"]["engine"]["id"], id.as_str());
    assert_eq!(nuc["status"]["health"], "Online");
    assert_eq!(first.agent.log().matches("session is ready").count(), 1, "{}", first.agent.log());
    assert_eq!(world.metric("docker_grpc_connections_total").await?, 1);
    Ok(())
}

async fn is_told_of_the_duplicate(world: &World, newcomer: &Agent) -> anyhow::Result<()> {
    eventually("the condition and the Event", Duration::from_secs(30), async || {
        let nuc = world.kubectl().get("di", "nuc-01").await?;
        let conditions = nuc["status"]["conditions"].as_array();
        let condition = conditions.and_then(|all| all.iter().find(|one| one["type"] == "DuplicateAgent"));
        ensure!(condition.is_some_and(|one| one["status"] == "True"), "{nuc}\n{}", newcomer.log());
        let events = world.kubectl().list("events").await?;
        let warned = |event: &Value| event["reason"] == "DuplicateAgent" && event["type"] == "Warning";
        ensure!(events.iter().any(warned), "{events:?}");
        ensure!(newcomer.log().contains("DuplicateAgent"), "{}", newcomer.log());
        Ok(())
    })
    .await
}

#[tokio::test]
async fn t20_a_second_host_of_the_same_name_is_refused_and_the_first_keeps_working() -> anyhow::Result<()> {
    let world = World::with_hosts(["nuc-01"]).await?;
    let other = Engine::start(&world.path("other"), None).await?;
    let settings = world.agent_settings("nuc-01", &other.host()).await?;

    let second = Agent::start(&world.path("impostor"), settings)?;

    is_told_of_the_duplicate(&world, &second).await?;
    only_the_first_is_operated_on(&world, &other).await
}

#[tokio::test]
async fn t20_a_host_cloned_with_its_key_is_refused_and_the_first_keeps_working() -> anyhow::Result<()> {
    let world = World::with_hosts(["nuc-01"]).await?;
    let copy = world.path("clone");
    world.host("nuc-01")?.agent.copy_state(&copy).await?;
    let other = Engine::start(&world.path("other"), None).await?;
    let mut settings = world.agent_settings("nuc-01", &other.host()).await?;
    settings.token = String::new();

    let clone = Agent::start(&copy, settings)?;

    is_told_of_the_duplicate(&world, &clone).await?;
    only_the_first_is_operated_on(&world, &other).await
}

#[tokio::test]
async fn t17_a_wrong_token_one_that_is_over_used_up_or_of_another_namespace_and_a_wrong_ca_are_refused()
-> anyhow::Result<()> {
    let world = World::new().await?;
    let engine = FakeEngine::start(&world.path("docker.sock"), "1.41")?;
    world.kubectl().run(["create", "namespace", "shops"]).await?;
    let settings = world.agent_settings("here", &engine.host()).await?;
    let good = settings.token.clone();
    let (id, secret) = good.split_once('.').expect("a token has two parts");
    let reversed: String = secret.chars().rev().collect();
    let start = |instance: &str, token: &str| {
        let (instance, token) = (instance.to_owned(), token.to_owned());
        Agent::start(&world.path(&instance), AgentSettings { instance, token, ..settings.clone() })
    };
    let over = world.controller.token(&["--ttl", "1s"]).await?;
    tokio::time::sleep(Duration::from_secs(2)).await;

    let mut others = settings.clone();
    others.instance = "wrong-ca".into();
    others.ca_hash = format!("sha256:{}", "0".repeat(64));
    let refused = [
        (start("wrong", &format!("{id}.{reversed}"))?, "token"),
        (start("over", &over)?, "token"),
        (start("elsewhere", &world.controller.token(&["--namespace", "shops"]).await?)?, "token"),
        (Agent::start(&world.path("wrong-ca"), others)?, "CA"),
    ];
    for (agent, word) in &refused {
        says_why(agent, word).await?;
    }
    assert_eq!(world.kubectl().list("di").await?, Vec::<Value>::new());
    // None of these has used it up.
    let _here = start("here", &good)?;
    world.becomes_healthy("here", "Online").await?;
    let again = start("again", &good)?;
    says_why(&again, "token").await?;

    let instances = world.kubectl().run(["get", "di", "-A", "-o", "name"]).await?;
    assert_eq!(instances.trim(), "dockerinstance.gantry.dev/here");
    let log = world.controller.log();
    for said in refused.iter().map(|(agent, _)| agent.log()).chain([again.log(), log]) {
        ensure!(!said.contains(secret) && !said.contains(&reversed), "a token is in a log:\n{said}");
    }
    Ok(())
}

async fn says_why(agent: &Agent, word: &str) -> anyhow::Result<()> {
    eventually("the agent to say why it is not in", Duration::from_secs(30), async || {
        let log = agent.log();
        ensure!(log.contains(word), "{log}");
        Ok(())
    })
    .await
}

#[tokio::test]
async fn t17_of_agents_that_race_with_one_token_no_more_come_in_than_it_has_uses() -> anyhow::Result<()> {
    let world = World::new().await?;
    let engine = FakeEngine::start(&world.path("docker.sock"), "1.41")?;
    let mut settings = world.agent_settings("racer", &engine.host()).await?;
    settings.token = world.controller.token(&["--uses", "2"]).await?;

    let mut racers = Vec::new();
    for number in 0..6 {
        let settings = AgentSettings { instance: format!("racer-{number}"), ..settings.clone() };
        racers.push(Agent::start(&world.path(&settings.instance), settings)?);
    }

    let is_in = |agent: &&Agent| agent.log().contains("session is ready");
    let is_out = |agent: &&Agent| agent.log().contains("used up");
    eventually("all to be in or out", Duration::from_secs(60), async || {
        let (inside, outside) = (racers.iter().filter(is_in).count(), racers.iter().filter(is_out).count());
        ensure!((inside, outside) == (2, 4), "{inside} are in, {outside} are out");
        Ok(())
    })
    .await
}

#[tokio::test]
async fn an_engine_older_than_docker_20_10_is_incompatible_and_not_operated_on() -> anyhow::Result<()> {
    let world = World::new().await?;
    let engine = FakeEngine::start(&world.path("old.sock"), "1.40")?;
    let settings = world.agent_settings("old", &engine.host()).await?;
    let _agent = Agent::start(&world.path("old"), settings)?;

    world.becomes_healthy("old", "Incompatible").await?;
    world.kubectl().apply(&operation("start-x", "old", "Start", "x", "")).await?;
    world.kubectl().wait("operation/start-x", "condition=Failed").await?;

    let old = world.kubectl().get("di", "old").await?;
    let condition = old["status"]["conditions"]
        .as_array()
        .and_then(|all| all.iter().find(|condition| condition["type"] == "EngineCompatible"))
        .expect("the condition is there");
    assert_eq!(condition["status"], "False");
    ensure!(condition["message"].as_str().is_some_and(|text| text.contains("1.40")), "{condition}");
    let operation = world.kubectl().get("op", "start-x").await?;
    ensure!(operation["status"].to_string().contains("EngineIncompatible"), "{operation}");
    Ok(())
}

#[tokio::test]
async fn a_certificate_is_renewed_in_time_and_outlives_the_first_one() -> anyhow::Result<()> {
    let mut world = World::with_flags(&["--agent-certificate-lifetime", "30s"]).await?;
    world.enroll("nuc-01", None).await?;
    let first_is_over = tokio::time::Instant::now() + Duration::from_secs(31);
    world.becomes_healthy("nuc-01", "Online").await?;

    let log = async |wanted: &str| {
        let log = world.host("nuc-01")?.agent.log();
        ensure!(log.contains(wanted), "it said:\n{log}");
        Ok(())
    };
    eventually("a new certificate", Duration::from_secs(30), async || log("certificate renewed").await)
        .await?;
    tokio::time::sleep_until(first_is_over).await;
    // Its token is used up: only a valid certificate opens the door now.
    let host = world.host_mut("nuc-01")?;
    host.agent.kill().await?;
    host.agent.resume()?;

    eventually("a second session", Duration::from_secs(20), async || {
        let sessions = world.host("nuc-01")?.agent.log().matches("session is ready").count();
        ensure!(sessions == 2, "there were {sessions}");
        Ok(())
    })
    .await
}

#[tokio::test]
async fn an_archived_host_is_refused_and_comes_back_when_unarchived() -> anyhow::Result<()> {
    let world = World::with_hosts(["nuc-01"]).await?;
    world.host("nuc-01")?.engine.runs("web").await?;

    world
        .kubectl()
        .run(["patch", "di", "nuc-01", "--type=merge", "-p", r#"{"spec":{"archived":true}}"#])
        .await?;
    world.becomes_healthy("nuc-01", "Archived").await?;
    world.kubectl().apply(&operation("stop-web", "nuc-01", "Stop", "web", "")).await?;
    world.kubectl().wait("operation/stop-web", "condition=Failed").await?;
    assert_eq!(world.host("nuc-01")?.engine.state("web").await, "running");

    world
        .kubectl()
        .run(["patch", "di", "nuc-01", "--type=merge", "-p", r#"{"spec":{"archived":false}}"#])
        .await?;
    world.becomes_healthy("nuc-01", "Online").await
}
