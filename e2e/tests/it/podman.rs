//! Podman's socket in Docker's place.

use std::time::Duration;

use gantry_e2e::agent::Agent;
use gantry_e2e::eventually;
use gantry_e2e::manifest::operation;
use gantry_e2e::process::{Process, run};
use gantry_e2e::world::World;
use tokio::process::Command;

#[tokio::test]
async fn a_host_with_podman_is_online_and_its_containers_are_operated_on() -> anyhow::Result<()> {
    let world = World::new().await?;
    let dir = world.path("podman");
    std::fs::create_dir_all(&dir)?;
    // Its own default is above what a sandbox may allow.
    std::fs::write(
        dir.join("containers.conf"),
        "[containers]\ndefault_ulimits = [\"nofile=1024:1024\", \"nproc=1024:1024\"]\n",
    )?;
    let podman = |args: &[&str]| {
        let mut command = Command::new("podman");
        command.env("CONTAINERS_CONF", dir.join("containers.conf"));
        command.arg("--root").arg(dir.join("root")).arg("--runroot").arg(dir.join("run"));
        command
            .args([
                "--runtime=runc",
                "--storage-driver=vfs",
                "--cgroup-manager=cgroupfs",
                "--events-backend=file",
            ])
            .arg("--tmpdir")
            .arg(dir.join("tmp"));
        command.args(args);
        command
    };
    let socket = format!("unix://{}", dir.join("podman.sock").display());
    let service = podman(&["system", "service", "--time=0", &socket]);
    let _service = Process::spawn("podman", service, &dir.join("podman.log"))?;
    let root = dir.join("image");
    std::fs::create_dir_all(root.join("bin"))?;
    std::fs::copy("/bin/busybox", root.join("bin/busybox"))?;
    let mut tar = Command::new("tar");
    tar.arg("-C").arg(&root).arg("-cf").arg(dir.join("image.tar")).arg(".");
    run(tar).await?;
    run(podman(&["import", &dir.join("image.tar").display().to_string(), "demo:1"])).await?;
    let sleep = ["/bin/busybox", "sleep", "1000"];
    run(podman(
        &[&["run", "-d", "--network=none", "--name", "web", "localhost/demo:1"][..], &sleep].concat(),
    ))
    .await?;

    let settings = world.agent_settings("nuc-01", &socket).await?;
    let _agent = Agent::start(&world.path("agent"), settings)?;

    world.becomes_healthy("nuc-01", "Online").await?;
    let state = async || {
        run(podman(&["inspect", "--format", "{{.State.Status}}", "web"]))
            .await
            .map(|said| said.trim().to_owned())
    };
    for (action, wanted) in [("Restart", "running"), ("Stop", "exited"), ("Start", "running")] {
        let name = action.to_lowercase();
        let more = if action == "Start" { "" } else { "  parameters: {timeoutSeconds: 1}" };
        world.kubectl().apply(&operation(&name, "nuc-01", action, "web", more)).await?;
        world.kubectl().wait(&format!("operation/{name}"), "condition=Complete").await?;
        assert_eq!(state().await?, wanted, "after {action}");
    }
    world
        .kubectl()
        .apply(&operation("remove", "nuc-01", "Remove", "web", "  parameters: {force: true}"))
        .await?;
    world.kubectl().wait("operation/remove", "condition=Complete").await?;
    eventually("the container to go", Duration::from_secs(10), async || {
        anyhow::ensure!(state().await.is_err(), "it is still there");
        Ok(())
    })
    .await
}
