//! How hosts come in, and who does not.

use std::time::Duration;

use anyhow::ensure;
use gantry_e2e::agent::Agent;
use gantry_e2e::eventually;
use gantry_e2e::fake_engine::FakeEngine;
use gantry_e2e::manifest::operation;
use gantry_e2e::world::World;

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

#[tokio::test]
async fn a_second_host_of_the_same_name_is_refused_and_the_first_keeps_working() -> anyhow::Result<()> {
    let world = World::with_hosts(["nuc-01"]).await?;
    let engine = world.host("nuc-01")?.engine.host();
    let settings = world.agent_settings("nuc-01", &engine).await?;

    let second = Agent::start(&world.path("impostor")?, settings)?;

    eventually("the condition and the Event", Duration::from_secs(30), async || {
        let described = world.kubectl().run(["describe", "di", "nuc-01"]).await?;
        ensure!(described.contains("DuplicateAgent"), "{described}\n{}", second.log());
        ensure!(described.contains("Warning"), "{described}");
        Ok(())
    })
    .await?;
    world.host("nuc-01")?.engine.runs("web").await?;
    world.kubectl().apply(&operation("stop-web", "nuc-01", "Stop", "web", "")).await?;
    world.kubectl().wait("operation/stop-web", "condition=Complete").await?;
    world.becomes_healthy("nuc-01", "Online").await
}

#[tokio::test]
async fn a_cloned_state_directory_is_refused_and_the_first_keeps_working() -> anyhow::Result<()> {
    let world = World::with_hosts(["nuc-01"]).await?;
    let first = &world.host("nuc-01")?.agent;
    let copy = world.path("clone")?;
    let mut cp = tokio::process::Command::new("cp");
    std::fs::create_dir_all(&copy)?;
    cp.arg("-a").arg(first.state_dir()).arg(copy.join("state"));
    gantry_e2e::process::run(cp).await?;
    let settings = world.agent_settings("nuc-01", &world.host("nuc-01")?.engine.host()).await?;

    let clone = Agent::start(&copy, settings)?;

    eventually("the refusal", Duration::from_secs(30), async || {
        let described = world.kubectl().run(["describe", "di", "nuc-01"]).await?;
        ensure!(described.contains("DuplicateAgent"), "{described}\n{}", clone.log());
        Ok(())
    })
    .await?;
    world.host("nuc-01")?.engine.runs("web").await?;
    world.kubectl().apply(&operation("stop-web", "nuc-01", "Stop", "web", "")).await?;
    world.kubectl().wait("operation/stop-web", "condition=Complete").await.map(drop)
}

#[tokio::test]
async fn a_wrong_token_an_expired_token_a_used_token_and_a_wrong_ca_are_refused() -> anyhow::Result<()> {
    let world = World::new().await?;
    let engine = "unix:///nowhere/docker.sock";
    let mut settings = world.agent_settings("wrong-token", engine).await?;
    let good = settings.token.clone();
    let (id, secret) = good.split_once('.').expect("a token has two parts");

    let reversed: String = secret.chars().rev().collect();
    settings.token = format!("{id}.{reversed}");
    let mut wrong = Agent::start(&world.path("wrong-token")?, settings.clone())?;
    settings.token = world.controller.token(&["--ttl", "1s"]).await?;
    settings.instance = "expired".into();
    tokio::time::sleep(Duration::from_secs(2)).await;
    let mut expired = Agent::start(&world.path("expired")?, settings.clone())?;
    settings.token = good.clone();
    settings.instance = "wrong-ca".into();
    settings.ca_hash = format!("sha256:{}", "0".repeat(64));
    let mut wrong_ca = Agent::start(&world.path("wrong-ca")?, settings)?;

    for (agent, word) in [(&mut wrong, "token"), (&mut expired, "token"), (&mut wrong_ca, "CA")] {
        eventually("the agent to say why", Duration::from_secs(30), async || {
            let log = agent.log();
            ensure!(log.contains(word), "{log}");
            Ok(())
        })
        .await?;
        ensure!(!agent.log().contains(&reversed), "a token is in the log: {}", agent.log());
    }
    assert_eq!(world.kubectl().list("di").await?, Vec::<serde_json::Value>::new());
    ensure!(!world.controller.log().contains(secret), "a token is in the controller's log");
    Ok(())
}

#[tokio::test]
async fn an_engine_older_than_docker_20_10_is_incompatible_and_not_operated_on() -> anyhow::Result<()> {
    let world = World::new().await?;
    let socket = world.path("old.sock")?;
    let _engine = FakeEngine::start(&socket, "1.40")?;
    let settings = world.agent_settings("old", &format!("unix://{}", socket.display())).await?;
    let _agent = Agent::start(&world.path("old")?, settings)?;

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
