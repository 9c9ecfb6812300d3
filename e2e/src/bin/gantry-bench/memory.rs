//! What processes hold in memory.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use gantry_e2e::agent::{Agent, AgentSettings};
use gantry_e2e::controller::Controller;
use gantry_e2e::fake_engine::FakeEngine;

use crate::Bench;
use crate::objects::{config_map, namespace};

/// Objects by which the controller's memory is measured.
const OBJECTS: u64 = 50_000;

impl Bench {
    /// What the controller holds for each object, right after its start, when it has read them all.
    pub(crate) async fn memory_of_objects(&self, controller: &mut Controller) -> anyhow::Result<()> {
        controller.stop().await?;
        controller.resume().await?;
        let before = megabytes(controller.process()?.pid(), "Rss:")?;
        let path = namespace(&mut self.target.connect().await?, "memory").await?;
        self.fill(&path, OBJECTS).await?;
        controller.stop().await?;
        controller.resume().await?;
        let after = megabytes(controller.process()?.pid(), "Rss:")?;
        let each = (after - before) * 1e6 / OBJECTS as f64;
        println!(
            "| controller, each of {OBJECTS} objects of {} bytes | {each:.0} bytes ({before:.0} MB before, {after:.0} MB after) | | |",
            config_map("item-10000").to_string().len(),
        );
        Ok(())
    }
}

/// What an agent holds that is connected and has had nothing to do for that long.
///
/// Its engine is a stand-in that answers at once: the agent's memory is measured, and a dockerd needs root.
pub(crate) async fn idle_agent(controller: &Controller, dir: &Path, idle: Duration) -> anyhow::Result<()> {
    let engine = FakeEngine::start(&dir.join("docker.sock"), "1.41")?;
    let settings = AgentSettings {
        controller: format!("https://{}", controller.address()),
        token: controller.token(&[]).await?,
        ca_hash: controller.ca_hash().await?,
        instance: "idle".to_owned(),
        docker_host: engine.host(),
        extra: Vec::new(),
    };
    let mut agent = Agent::start(&dir.join("agent"), settings)?;
    gantry_e2e::eventually("the agent to be Online", Duration::from_secs(60), async || {
        let instance = controller.kubectl().get("dockerinstance", "idle").await?;
        ensure!(instance.pointer("/status/health").is_some_and(|health| health == "Online"), "{instance}");
        Ok(())
    })
    .await?;
    tokio::time::sleep(idle).await;
    let pid = agent.process()?.pid();
    println!(
        "| agent, connected and idle for {} s | {:.1} MB resident, {:.1} MB of it anonymous | | |",
        idle.as_secs(),
        megabytes(pid, "Rss:")?,
        megabytes(pid, "Anonymous:")?
    );
    Ok(())
}

pub(crate) fn megabytes(pid: impl std::fmt::Display, field: &str) -> anyhow::Result<f64> {
    let rollup = std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup"))?;
    let line = rollup.lines().find_map(|line| line.strip_prefix(field));
    let kibibytes = line.and_then(|line| line.split_whitespace().next()).with_context(|| field.to_owned())?;
    Ok(kibibytes.parse::<f64>()? * 1_024.0 / 1e6)
}
