//! An agent that is told everything by its environment, or by a file.

use std::path::Path;

use anyhow::{Context as _, ensure};
use gantry_e2e::eventually;
use gantry_e2e::fake_engine::FakeEngine;
use gantry_e2e::process::{Process, run, workspace_binary};
use gantry_e2e::world::World;
use serde_json::Value;
use std::time::Duration;
use tokio::process::Command;

/// Everything that can be set, none of it as it is by default, and what shows that it was heeded.
struct Told {
    world: World,
    values: Vec<(&'static str, String)>,
    _engine: FakeEngine,
}

async fn told() -> anyhow::Result<Told> {
    let world = World::new().await?;
    let engine = FakeEngine::start(&world.path("docker.sock"), "1.41")?;
    world.kubectl().run(["create", "namespace", "shops"]).await?;
    let settings = world.agent_settings("till-1", &engine.host()).await?;
    let values = vec![
        ("controller", settings.controller),
        ("token", world.controller.token(&["--namespace", "shops"]).await?),
        ("caHash", settings.ca_hash),
        ("instance", "till-1".to_owned()),
        ("namespace", "shops".to_owned()),
        ("dockerHost", engine.host()),
        ("policy", "observe".to_owned()),
        ("stateDir", world.path("state").display().to_string()),
        ("transport", "websocket".to_owned()),
        ("metricsListen", format!("127.0.0.1:{}", gantry_e2e::free_port()?)),
        ("logFormat", "json".to_owned()),
    ];
    Ok(Told { world, values, _engine: engine })
}

impl Told {
    fn value(&self, name: &str) -> &str {
        self.values.iter().find(|(known, _)| *known == name).map_or("", |(_, value)| value)
    }

    async fn is_heeded(&self, agent: &Process) -> anyhow::Result<()> {
        let till = eventually("the till to be Online", Duration::from_secs(60), async || {
            let kubectl = self.world.kubectl();
            let till = kubectl.run(["get", "di", "till-1", "-n", "shops", "-o", "json"]).await?;
            let till: Value = serde_json::from_str(&till)?;
            ensure!(till["status"]["health"] == "Online", "{till}\n{}", agent.log());
            Ok(till)
        })
        .await?;

        assert_eq!(till["status"]["agent"]["policy"], "observe");
        ensure!(
            Path::new(self.value("stateDir")).join("certificate.pem").is_file(),
            "its state is elsewhere"
        );
        let mut curl = Command::new("curl");
        curl.args(["-sf", &format!("http://{}/metrics", self.value("metricsListen"))]);
        ensure!(run(curl).await?.contains("gantry_agent_connected 1"), "its metrics are elsewhere");
        let log = agent.log();
        let lines = log.lines().map(serde_json::from_str).collect::<Result<Vec<Value>, _>>();
        let lines = lines.with_context(|| format!("not every line is JSON:\n{log}"))?;
        let connected = lines.iter().find(|line| line["message"] == "connected");
        ensure!(connected.is_some_and(|line| line["way"] == "Websocket"), "{log}");
        ensure!(!log.contains(self.value("token")), "the token is in the log");
        Ok(())
    }
}

#[tokio::test]
async fn an_agent_can_be_told_everything_by_its_environment() -> anyhow::Result<()> {
    let told = told().await?;
    let mut command = Command::new(workspace_binary("gantry-agent")?);
    command.env_clear();
    for (name, value) in &told.values {
        let capitals = name.chars().flat_map(|letter| {
            let is_new_word = letter.is_ascii_uppercase();
            is_new_word.then_some('_').into_iter().chain([letter.to_ascii_uppercase()])
        });
        command.env(format!("GANTRY_{}", capitals.collect::<String>()), value);
    }

    let agent = Process::spawn("gantry-agent", command, &told.world.path("agent.log"))?;

    told.is_heeded(&agent).await
}

#[tokio::test]
async fn an_agent_can_be_told_everything_by_a_file_and_a_flag_wins_over_it() -> anyhow::Result<()> {
    let told = told().await?;
    let file = told.world.path("agent.yaml");
    let lines = told.values.iter().map(|(name, value)| match *name {
        "policy" => "policy: full\n".to_owned(),
        "instance" => "instance: another\n".to_owned(),
        _ => format!("{name}: \"{value}\"\n"),
    });
    std::fs::write(&file, lines.collect::<String>())?;
    let mut command = Command::new(workspace_binary("gantry-agent")?);
    command.env_clear().env("GANTRY_INSTANCE", "till-1").arg("--config").arg(&file);
    command.args(["--policy", "observe"]);

    let agent = Process::spawn("gantry-agent", command, &told.world.path("agent.log"))?;

    told.is_heeded(&agent).await
}
