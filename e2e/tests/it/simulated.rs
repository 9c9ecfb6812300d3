//! Hosts that do not exist, to a controller that does.

use std::time::Duration;

use anyhow::ensure;
use gantry_e2e::eventually;
use gantry_e2e::manifest::operation;
use gantry_e2e::simulator::{Settings, Simulator, State};
use gantry_e2e::world::World;

#[tokio::test]
async fn simulated_hosts_tell_what_they_have_and_what_changes_and_do_as_they_are_told() -> anyhow::Result<()>
{
    let world = World::new().await?;
    let settings = Settings::of(&world.controller, 3, 4, world.path("agents")).await?;
    let simulator = Simulator::start(&settings).await?;
    let state = async |name: &str| -> anyhow::Result<String> {
        let found = world.kubectl().get("container", name).await?;
        Ok(found["state"].as_str().unwrap_or_default().to_owned())
    };
    let is = async |name: &str, wanted: &str| {
        eventually(&format!("{name} to be {wanted}"), Duration::from_secs(20), async || {
            let now = state(name).await?;
            ensure!(now == wanted, "it is {now}");
            Ok(())
        })
        .await
    };
    eventually("all containers of all hosts", Duration::from_secs(30), async || {
        let found = world.kubectl().list("containers").await?.len();
        ensure!(found == 12 && simulator.connected() == 3, "{found}");
        Ok(())
    })
    .await?;

    let host = &simulator.hosts()[1];
    let (before, name) = (host.state(0), format!("sim-1_{}", host.name(0)));
    let after = host.toggle(0);
    ensure!(before != after, "nothing changed");
    is(&name, after.map_or("gone", State::name)).await?;

    if after == Some(State::Exited) {
        host.toggle(0);
    }
    is(&name, "running").await?;
    world.kubectl().apply(&operation("stop", "sim-1", "Stop", &host.name(0), "")).await?;
    world.kubectl().wait("operation/stop", "condition=Complete").await?;
    is(&name, "exited").await
}
