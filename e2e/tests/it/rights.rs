//! An agent's certificate, stolen or not, is good for as long as its instance wants it.

use std::time::Duration;

use anyhow::ensure;
use gantry_e2e::agent::Agent;
use gantry_e2e::eventually;
use gantry_e2e::fake_engine::FakeEngine;
use gantry_e2e::world::World;

/// A connection has to end within 5 s; the rest is for a busy machine.
const PROMISED: Duration = Duration::from_secs(10);
const INSTANCE: &str = "/apis/gantry.dev/v1alpha1/namespaces/default/dockerinstances/nuc-01";

/// A host that is Online, and a thief's copy of what its agent has.
struct Theft {
    world: World,
    agent: Agent,
    copy: Agent,
    _engine: FakeEngine,
}

async fn theft() -> anyhow::Result<Theft> {
    let world = World::new().await?;
    let engine = FakeEngine::start(&world.path("docker.sock"), "1.41")?;
    let mut settings = world.agent_settings("nuc-01", &engine.host()).await?;
    let agent = Agent::start(&world.path("agent"), settings.clone())?;
    world.becomes_healthy("nuc-01", "Online").await?;
    agent.copy_state(&world.path("thief")).await?;
    settings.token = String::new();
    let mut copy = Agent::start(&world.path("thief"), settings)?;
    // Its turn comes when the other's connection is gone.
    copy.kill().await?;
    Ok(Theft { world, agent, copy, _engine: engine })
}

impl Theft {
    /// The connection ends, and neither the agent nor who has a copy of its state gets another one.
    async fn ends(mut self, reason: &str) -> anyhow::Result<()> {
        eventually("the connection to end", PROMISED, async || {
            let open = self.world.metric("gantry_agent_sessions").await?;
            ensure!(open == 0, "{open} are open");
            Ok(())
        })
        .await?;
        let log = self.agent.log();
        ensure!(log.matches("session is ready").count() == 1, "{log}");

        self.agent.kill().await?;
        self.agent.resume()?;
        self.copy.resume()?;
        for agent in [&self.agent, &self.copy] {
            eventually("the agent to be turned away", Duration::from_secs(30), async || {
                let log = agent.log();
                ensure!(log.contains(reason), "no {reason} in:\n{log}");
                Ok(())
            })
            .await?;
        }
        ensure!(!self.copy.log().contains("session is ready"), "{}", self.copy.log());
        assert_eq!(self.agent.log().matches("session is ready").count(), 1, "{}", self.agent.log());
        assert_eq!(self.world.metric("gantry_agent_sessions").await?, 0);
        Ok(())
    }
}

#[tokio::test]
async fn t18_the_certificate_of_an_archived_instance_stops_working_and_its_connection_ends()
-> anyhow::Result<()> {
    let theft = theft().await?;

    theft.world.kubectl().merge("di", "nuc-01", r#"{"spec":{"archived":true}}"#).await?;

    theft.ends("INSTANCE_ARCHIVED").await
}

#[tokio::test]
async fn t18_the_certificate_of_a_deleted_instance_stops_working_and_its_connection_ends()
-> anyhow::Result<()> {
    let theft = theft().await?;

    theft.world.kubectl().run(["delete", "di", "nuc-01"]).await?;

    theft.ends("INSTANCE_GONE").await
}

#[tokio::test]
async fn t18_the_certificate_of_an_instance_given_to_another_key_stops_working_and_its_connection_ends()
-> anyhow::Result<()> {
    let theft = theft().await?;

    theft
        .world
        .kubectl()
        .change_status(INSTANCE, |instance| {
            instance["status"]["agent"]["keyFingerprint"] = "0".repeat(64).into();
        })
        .await?;

    theft.ends("OTHER_KEY").await
}
