//! The docker CLI through the endpoint, beside the same against the engine's own socket.

use std::time::Duration;

use anyhow::ensure;
use gantry_e2e::docker::{Beside, Docker};
use gantry_e2e::eventually;
use gantry_e2e::registry::Registry;
use gantry_e2e::world::World;

#[tokio::test]
async fn everyday_commands_say_through_the_endpoint_what_they_say_at_the_socket() -> anyhow::Result<()> {
    let world = World::with_hosts(["nuc-01"]).await?;
    let mut registry = Registry::start(&world.path("registry")).await?;
    registry.require("robot", "right").await?;
    let socket = Docker::at(&world.host("nuc-01")?.engine.host(), &world.path("socket"))?;
    let endpoint = Docker::through(&world.controller, "nuc-01", &world.path("endpoint"))?;
    let with_registry = |docker: Docker| docker.with("REGISTRY", registry.name());

    let commands = include_str!("../../docker-clients/commands.txt");
    let beside = Beside::run(commands, &with_registry(socket), &with_registry(endpoint)).await?;

    ensure!(beside.lines >= 75, "{} lines", beside.lines);
    // A third of them are mistakes that people make.
    let mistakes = beside.lines * 2 / 5;
    beside.is_same(mistakes)
}

/// Where an engine would do something that no rule sees, docker is told so; where an answer can only be that there is nothing, too.
#[tokio::test]
async fn what_is_not_served_is_refused_in_words_a_person_can_act_on() -> anyhow::Result<()> {
    let world = World::with_hosts(["nuc-01"]).await?;
    let docker = Docker::through(&world.controller, "nuc-01", &world.path("endpoint"))?;

    for (line, words) in [
        ("docker swarm init", "Swarm is not supported here"),
        ("docker swarm join --token a 127.0.0.1:1", "Swarm is not supported here"),
        ("docker swarm leave", "Swarm is not supported here"),
        ("docker node ls", "Swarm is not supported here"),
        ("docker service ls", "Swarm is not supported here"),
        ("docker service create demo:1", "Swarm is not supported here"),
        ("docker secret ls", "Swarm is not supported here"),
        ("docker config ls", "Swarm is not supported here"),
        ("docker stack ls", "Swarm is not supported here"),
        ("docker plugin install --grant-all-permissions nothing", "plugins are not supported here"),
        ("docker plugin inspect nothing", "plugins are not supported here"),
        ("docker plugin disable nothing", "plugins are not supported here"),
        ("docker import http://127.0.0.1:1/a.tar", "query `fromSrc`: this value is not served"),
        ("docker run --checkpoint a demo:1; docker start --checkpoint a web", "checkpoint"),
    ] {
        let said = docker.says(line).await?;
        ensure!(said.code != Some(0) && said.stderr.contains(words), "{line}: {said:?}");
    }
    Ok(())
}

#[tokio::test]
async fn t08_a_viewer_reads_through_docker_and_changes_nothing() -> anyhow::Result<()> {
    let world = World::with_hosts(["nuc-01"]).await?;
    let (kubectl, engine) = (world.kubectl(), &world.host("nuc-01")?.engine);
    engine.runs("web").await?;
    kubectl.run(["create", "serviceaccount", "vera", "-n", "default"]).await?;
    let viewer = "--serviceaccount=default:vera";
    kubectl
        .run(["create", "rolebinding", "vera", "-n", "default", "--clusterrole=gantry-viewer", viewer])
        .await?;
    let token = kubectl.run(["create", "token", "vera", "-n", "default"]).await?;
    let vera = Docker::with_token(&world.controller, "nuc-01", &world.path("vera"), token.trim())?;

    assert_eq!(vera.says("docker ps --format '{{.Names}}'").await?.stdout, "web\n");
    assert_eq!(vera.says("docker logs web").await?.code, Some(0));
    for line in [
        "docker exec web true",
        "docker attach web",
        "docker run --rm demo:1 true",
        "docker run --privileged -v /:/host demo:1 true",
        "docker stop web",
        "docker kill web",
        "docker rm -f web",
        "docker rename web shop",
        "docker cp web:/bin/busybox .",
        "docker export web -o exported.tar",
        "docker save demo:1 -o saved.tar",
        "docker commit web snap:1",
        "docker tag demo:1 demo:2",
        "docker rmi -f demo:1",
        "docker pull demo:9",
        "docker volume create data",
        "docker network create made",
        "docker container prune -f",
        "docker update --restart=always web",
        "mkdir -p empty && docker build empty -f - <<EOF\nFROM demo:1\nEOF",
    ] {
        let said = vera.says(line).await?;
        ensure!(
            said.code != Some(0) && (said.stderr.contains("forbidden") || said.stderr.contains("403")),
            "{line}: {said:?}"
        );
    }
    assert_eq!(engine.state("web").await, "running");
    for event in ["exec_create", "attach", "kill", "create", "rename", "destroy", "update", "export"] {
        let happened = engine.events(event).await?;
        assert!(
            !happened.iter().any(|name| name != "web") && (event == "create" || happened.is_empty()),
            "{event}"
        );
    }
    Ok(())
}

/// Archives are unpacked by the engine, inside of the container, and by docker, which is told what it asked for; never by us.
#[tokio::test]
async fn t26_an_archive_reaches_nothing_outside_of_its_container() -> anyhow::Result<()> {
    let world = World::with_hosts(["nuc-01"]).await?;
    world.host("nuc-01")?.engine.runs("web").await?;
    let docker = Docker::through(&world.controller, "nuc-01", &world.path("docker"))?;
    let (outside, hidden) = (world.path("outside"), world.path("hidden"));
    std::fs::create_dir_all(&outside)?;
    std::fs::write(&hidden, "of the host")?;
    let (to, from) = (outside.display(), hidden.display());
    let up = "../".repeat(20);

    for line in [
        format!(
            "echo x > f; tar -P -cf up.tar --transform 's,^f$,{up}{to}/up,' f; docker cp - web:/ < up.tar"
        ),
        format!(
            "tar -P -cf absolute.tar --transform 's,^f$,{to}/absolute,' f; docker cp - web:/tmp < absolute.tar"
        ),
        format!(
            "mkdir l; ln -s {to} l/link; tar -cf link.tar -C l link; rm l/link; mkdir l/link; echo x > l/link/linked"
        ),
        "tar -rf link.tar -C l link/linked; docker cp - web:/ < link.tar".to_owned(),
        format!("docker exec web ln -s {to} /way; docker cp f web:/way/way"),
        format!("docker exec web ln -s {up}{from} /back; docker cp -L web:/back out"),
    ] {
        // Whether it is refused or done inside is the engine's to say.
        docker.says(&line).await?;
    }

    let written: Vec<_> = std::fs::read_dir(&outside)?.collect();
    ensure!(written.is_empty(), "{written:?}");
    let read = docker.says("cat out").await?;
    ensure!(!read.stdout.contains("of the host"), "{read:?}");
    // The archives themselves arrive.
    let control = docker.says("docker cp f web:/f && docker exec web cat /f").await?;
    ensure!(control.stdout.trim() == "x", "{control:?}");
    Ok(())
}

/// What is open ends when the right goes, and the log of records knows how much flowed.
#[tokio::test]
async fn t11_a_terminal_of_docker_ends_when_the_right_to_it_is_lost() -> anyhow::Result<()> {
    let world = World::with_hosts(["nuc-01"]).await?;
    let (kubectl, engine) = (world.kubectl(), &world.host("nuc-01")?.engine);
    engine.runs("web").await?;
    kubectl.run(["create", "serviceaccount", "ada", "-n", "default"]).await?;
    kubectl
        .run([
            "create",
            "rolebinding",
            "ada",
            "-n",
            "default",
            "--clusterrole=gantry-admin",
            "--serviceaccount=default:ada",
        ])
        .await?;
    let token = kubectl.run(["create", "token", "ada", "-n", "default"]).await?;
    let ada = Docker::with_token(&world.controller, "nuc-01", &world.path("ada"), token.trim())?;

    let terminal = ada.says("mkfifo keys; exec 3<>keys; docker exec -i web sh -c 'echo begun; cat' <keys");
    let losing = async {
        eventually("the command to run", Duration::from_secs(20), async || {
            let log = kubectl.get_raw("/apis/audit.gantry.dev/v1alpha1/auditevents").await?;
            ensure!(log.contains("exec_start"), "it does not");
            Ok(())
        })
        .await?;
        tokio::time::sleep(Duration::from_secs(1)).await;
        kubectl.run(["delete", "rolebinding", "ada", "-n", "default"]).await
    };
    let (terminal, lost) = tokio::join!(tokio::time::timeout(Duration::from_secs(40), terminal), losing);

    lost?;
    let said = terminal??;
    assert_eq!(said.stdout, "begun\n");
    eventually("the record of its end", Duration::from_secs(10), async || {
        let log = kubectl.get_raw("/apis/audit.gantry.dev/v1alpha1/auditevents").await?;
        ensure!(log.contains("RightLost"), "{log}");
        Ok(())
    })
    .await
}
