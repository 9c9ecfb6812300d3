//! The docker CLI through the endpoint, beside the same against the engine's own socket.

use std::time::Duration;

use anyhow::ensure;
use gantry_e2e::docker::{Docker, Said};
use gantry_e2e::eventually;
use gantry_e2e::world::World;

/// One after the other, each beginning where the last one ended.
const EVERYDAY: &[&str] = &[
    "docker version --format '{{.Server.Version}} {{.Server.APIVersion}}'",
    "docker info --format '{{.ServerVersion}} {{.Driver}} {{.OSType}}'",
    r#"docker run -d --network=none -e SECRET=x --name web demo:1 sh -c 'trap "exit 0" TERM; echo hello; sleep 0.2; echo oops >&2; while true; do sleep 0.1; done' | wc -c"#,
    "docker run -d --network=none --name web demo:1 true",
    "docker ps --format '{{.Names}} {{.Image}} {{.State}}'",
    "docker ps -a --filter label=none=such --format '{{.Names}}'",
    "sleep 1; docker logs web",
    "docker logs --tail 1 web 2>&1 | head -c 3",
    "docker logs nothing",
    "docker exec web echo hi",
    "docker exec web sh -c 'echo out; echo err >&2; exit 7'",
    "docker exec -t web echo terminal",
    "docker exec -e A=b -w /bin web sh -c 'echo $A; pwd'",
    "docker exec web nothing-like-it",
    "printf input | docker exec -i web cat",
    "head -c 3000000 /dev/zero | docker exec -i web cat | wc -c",
    "printf input | docker run -i --rm --network=none demo:1 cat",
    "docker run --rm --network=none demo:1 sh -c 'echo out; echo err >&2; exit 3'",
    "docker run -t --rm --network=none demo:1 echo terminal",
    "docker inspect --format '{{.State.Status}} {{.Config.Image}} {{json .Config.Env}} {{.HostConfig.NetworkMode}}' web",
    "docker inspect nothing",
    "docker inspect --format '{{.Os}} {{.RootFS.Type}}' demo:1",
    "docker top web -o comm | sort -u | head -2",
    "docker stats --no-stream --format '{{.Name}}' web",
    "docker rename web shop && docker ps --format '{{.Names}}'",
    "docker update --restart=no shop",
    "docker pause shop && docker ps --format '{{.State}}' && docker unpause shop",
    "docker restart -t 1 shop",
    "docker stop -t 5 shop && docker wait shop && docker start shop",
    "docker kill -s TERM shop && docker wait shop && docker start shop",
    "docker kill -s NOTHING shop",
    "echo content > in.txt && docker cp in.txt shop:/in.txt && docker exec shop cat /in.txt && docker cp shop:/in.txt out.txt && cmp in.txt out.txt",
    "docker cp shop:/nothing .",
    "docker diff shop | grep in.txt",
    "docker commit -m note -c 'ENV A=b' shop snap:1 | wc -c && docker inspect --format '{{json .Config.Env}}' snap:1",
    "docker tag snap:1 snap:2 && docker images --format '{{.Repository}}:{{.Tag}}' | sort",
    "docker history --format '{{.Comment}}' snap:1 | head -1",
    "docker save -o saved.tar snap:1 snap:2 && docker rmi snap:1 snap:2 | sort | head -2 && docker load -q -i saved.tar && docker rmi -f snap:1 snap:2 | wc -l",
    "docker export shop | tar t | grep -c in.txt",
    "tar c in.txt | docker import -m note - made:1 | wc -c && docker run --rm --network=none made:1 none",
    "mkdir -p context && head -c 2000000 /dev/urandom > context/blob && printf 'FROM demo:1\\nARG A\\nCOPY blob /blob\\nRUN echo built-$A > /made\\n' > context/Dockerfile && docker build -q --network=none --build-arg A=b -t built:1 context | wc -c && docker run --rm --network=none built:1 cat /made",
    "docker build -q context/nothing",
    "docker volume create --label a=b data && docker volume ls --format '{{.Name}} {{.Labels}}' && docker run --rm --network=none -v data:/d demo:1 sh -c 'echo kept > /d/f; cat /d/f'",
    "docker volume inspect --format '{{.Driver}} {{.Labels}}' data && docker volume rm data && docker volume inspect data",
    "docker network ls --format '{{.Name}}' | sort",
    "docker network inspect --format '{{.Driver}}' none",
    "docker create --name made --network=none demo:1 echo created | wc -c && docker start -a made && docker rm made",
    "docker system df --format '{{.Type}}'",
    "docker events --since 1h --until 0s --filter container=shop --filter event=rename --format '{{.Action}} {{.Actor.Attributes.name}}' | tail -1",
    "docker rm shop",
    "docker rm -f shop && docker ps -aq",
    "docker rmi built:1 made:1 >/dev/null && docker container prune -f && docker image prune -f >/dev/null && docker volume prune -f",
    "docker plugin ls --format '{{.Name}}'",
    "docker rmi nothing:1",
    "docker network create -d null made",
    "docker network create made && docker network rm made",
];

/// What differs from one run to the next and means nothing.
fn plain(said: Said) -> Said {
    let words = |text: String| -> String {
        let is_id = |word: &str| word.len() >= 12 && word.bytes().all(|byte| byte.is_ascii_hexdigit());
        let mut all = String::new();
        for piece in text.split_inclusive(|letter: char| !letter.is_ascii_alphanumeric()) {
            let word = piece.trim_end_matches(|letter: char| !letter.is_ascii_alphanumeric());
            if is_id(word) { all.push_str(&piece.replace(word, "ID")) } else { all.push_str(piece) }
        }
        all
    };
    Said { code: said.code, stdout: words(said.stdout), stderr: words(said.stderr) }
}

#[tokio::test]
async fn everyday_commands_say_through_the_endpoint_what_they_say_at_the_socket() -> anyhow::Result<()> {
    let world = World::with_hosts(["nuc-01"]).await?;
    let socket = Docker::at(&world.host("nuc-01")?.engine.host(), &world.path("socket"))?;
    let endpoint = Docker::through(&world.controller, "nuc-01", &world.path("endpoint"))?;

    let mut differences = Vec::new();
    let mut direct = Vec::new();
    for line in EVERYDAY {
        direct.push(plain(socket.says(line).await?));
    }
    for (line, direct) in EVERYDAY.iter().zip(&direct) {
        let through = plain(endpoint.says(line).await?);
        if through != *direct {
            differences.push(format!("{line}\nat the socket: {direct:?}\nthrough:       {through:?}"));
        }
    }

    ensure!(EVERYDAY.len() >= 50);
    // A script that fails everywhere compares nothing.
    let fails = direct.iter().filter(|said| said.code != Some(0)).count();
    ensure!(fails <= 14, "{fails} fail at the socket: {direct:#?}");
    ensure!(differences.is_empty(), "{}", differences.join("\n\n"));
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
