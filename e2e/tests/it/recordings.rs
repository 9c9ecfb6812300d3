//! Terminals of real containers that are recorded, by kubectl and by docker.

use std::fmt::Write as _;
use std::time::Duration;

use anyhow::ensure;
use gantry_e2e::docker::Docker;
use gantry_e2e::eventually;
use gantry_e2e::world::World;
use serde_json::Value;
use sha2::{Digest as _, Sha256};

const SESSIONS: &str = "/apis/audit.gantry.dev/v1alpha1/namespaces/default/terminalsessions";

/// The complete sessions, the oldest first, once there are that many.
async fn complete(world: &World, count: usize) -> anyhow::Result<Vec<Value>> {
    eventually("the recordings to be complete", Duration::from_secs(30), async || {
        let list: Value = serde_json::from_str(&world.kubectl().get_raw(SESSIONS).await?)?;
        let mut sessions = list["items"].as_array().cloned().unwrap_or_default();
        sessions.retain(|session| session["phase"] == "Complete");
        ensure!(sessions.len() == count, "{list}");
        sessions.reverse();
        Ok(sessions)
    })
    .await
}

#[tokio::test]
async fn t31_what_kubectl_and_docker_show_is_recorded_sealed_and_played() -> anyhow::Result<()> {
    let mut world = World::with_flags(&["--kubernetes-view"]).await?;
    world.enroll("nuc-01", None).await?;
    world.becomes_healthy("nuc-01", "Online").await?;
    let kubectl = world.kubectl();
    world.host("nuc-01")?.engine.runs("web").await?;
    kubectl.run(["label", "namespace", "default", "gantry.dev/record-terminals=all"]).await?;
    let docker = Docker::through(&world.controller, "nuc-01", &world.path("docker"))?;

    eventually("the container to be a Pod", Duration::from_secs(20), async || {
        let pods = kubectl.run(["get", "pods", "--no-headers"]).await?;
        ensure!(pods.contains("nuc-01_web"), "{pods}");
        Ok(())
    })
    .await?;
    let by_kubectl = kubectl
        .feed(["exec", "-i", "nuc-01_web", "--", "sh", "-c", "echo planted-shown; cat"], "planted-typed\n")
        .await?;
    let by_kubectl = by_kubectl.map_err(anyhow::Error::msg)?;
    let by_docker = docker.says("docker exec -t web sh -c 'echo planted-terminal'").await?;
    let piped = docker.says("printf planted-piped | docker exec -i web cat").await?;
    let copied = docker.says("docker cp web:/bin/busybox . && docker exec -d web true").await?;

    ensure!(by_kubectl.contains("planted-shown") && by_kubectl.contains("planted-typed"), "{by_kubectl}");
    ensure!(by_docker.stdout.contains("planted-terminal") && piped.stdout == "planted-piped", "{piped:?}");
    ensure!(copied.code == Some(0), "{copied:?}");
    let sessions = complete(&world, 4).await?;
    let mut shown = Vec::new();
    for session in &sessions {
        let name = session["metadata"]["name"].as_str().unwrap_or_default();
        let cast = kubectl.get_raw(&format!("{SESSIONS}/{name}/recording")).await?;
        let digest = Sha256::digest(cast.as_bytes()).iter().fold(String::new(), |mut hex, byte| {
            write!(hex, "{byte:02x}").expect("a String takes all");
            hex
        });
        ensure!(session["sha256"] == digest.as_str(), "{session} {digest}");
        let lines: Vec<Value> = cast.lines().map(serde_json::from_str).collect::<Result<_, _>>()?;
        ensure!(lines[0]["version"] == 2, "{cast}");
        let of = |what: &str| -> String {
            lines.iter().filter(|line| line[1] == what).filter_map(|line| line[2].as_str()).collect()
        };
        shown.push((session["container"].clone(), of("o"), of("i")));
    }
    let said: Vec<_> = shown.iter().map(|(_, output, input)| (output.as_str(), input.as_str())).collect();
    assert_eq!(
        said,
        [
            ("planted-shown\nplanted-typed\n", "planted-typed\n"),
            ("planted-terminal\r\n", ""),
            ("planted-piped", "planted-piped"),
            ("", ""),
        ]
    );
    ensure!(shown.iter().all(|(container, ..)| container == "web"), "{shown:?}");
    let columns = kubectl.run(["get", "sessions"]).await?;
    ensure!(columns.contains("nuc-01") && columns.contains("sh, -c, echo planted-terminal"), "{columns}");
    let log = kubectl.get_raw("/apis/audit.gantry.dev/v1alpha1/auditevents").await?;
    for session in &sessions {
        ensure!(log.contains(session["sha256"].as_str().unwrap_or("?")), "the audit log lacks {session}");
    }
    Ok(())
}
