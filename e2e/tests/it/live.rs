//! What is seen of real containers: logs, commands, first processes, figures.

use std::time::Duration;

use anyhow::{Context as _, ensure};
use futures::{SinkExt as _, StreamExt as _};
use gantry_e2e::client;
use gantry_e2e::engine::Engine;
use gantry_e2e::eventually;
use gantry_e2e::rest::{INSTANCES, Rest};
use gantry_e2e::world::World;
use http::Request;
use http_body_util::BodyExt as _;
use kube::client::Body;
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio::time::timeout;

const PATIENCE: Duration = Duration::from_secs(30);
const V5: &str = "v5.channel.k8s.io";

fn path(what: &str) -> String {
    format!("{INSTANCES}/nuc-01/{what}")
}

/// One host, and the programs that the tests need as its images.
async fn host() -> anyhow::Result<(World, Rest)> {
    let world = World::with_hosts(["nuc-01"]).await?;
    let rest = Rest::new(&world.controller.kubeconfig()).await?;
    Ok((world, rest))
}

async fn text(rest: &Rest, what: &str) -> anyhow::Result<String> {
    let answer = timeout(PATIENCE, rest.get(&path(what))).await??;
    ensure!(answer.code == 200, "{} {}", answer.code, answer.body);
    Ok(match answer.body {
        Value::String(text) => text,
        // A log that looks like JSON.
        other => other.to_string(),
    })
}

/// What is followed, as it comes.
async fn follow(rest: &Rest, what: &str) -> anyhow::Result<mpsc::Receiver<Vec<u8>>> {
    let request = Request::get(path(what)).body(Body::from(Vec::new()))?;
    let mut body = rest.client().send(request).await?.into_body();
    let (sender, receiver) = mpsc::channel(16);
    tokio::spawn(async move {
        while let Some(Ok(frame)) = body.frame().await {
            if let Ok(data) = frame.into_data()
                && sender.send(data.to_vec()).await.is_err()
            {
                return;
            }
        }
    });
    Ok(receiver)
}

async fn until(from: &mut mpsc::Receiver<Vec<u8>>, end: &str) -> anyhow::Result<String> {
    let mut seen = String::new();
    while !seen.ends_with(end) {
        let more = timeout(PATIENCE, from.recv()).await.with_context(|| seen.clone())?;
        seen.push_str(&String::from_utf8_lossy(&more.with_context(|| seen.clone())?));
    }
    Ok(seen)
}

/// A WebSocket, message by message.
struct Terminal {
    says: mpsc::Sender<Vec<u8>>,
    hears: mpsc::Receiver<Vec<u8>>,
}

impl Terminal {
    async fn open(rest: &Rest, what: &str) -> anyhow::Result<Self> {
        let request = Request::get(path(what)).header("sec-websocket-protocol", V5).body(Vec::new())?;
        let mut socket = rest.client().connect(request).await?.into_stream();
        let (says, mut said) = mpsc::channel::<Vec<u8>>(16);
        let (heard, hears) = mpsc::channel(16);
        tokio::spawn(async move {
            loop {
                tokio::select! {
                    message = said.recv() => match message {
                        Some(message) => drop(socket.send(message.into()).await),
                        None => return,
                    },
                    message = socket.next() => match message {
                        Some(Ok(message)) if message.is_binary() => {
                            if heard.send(message.into_data().to_vec()).await.is_err() {
                                return;
                            }
                        }
                        Some(Ok(_)) => {}
                        Some(Err(_)) | None => return,
                    },
                }
            }
        });
        Ok(Self { says, hears })
    }

    async fn say(&self, channel: u8, data: &[u8]) -> anyhow::Result<()> {
        Ok(self.says.send([&[channel], data].concat()).await?)
    }

    /// Output and errors until they contain that.
    async fn until(&mut self, end: &str) -> anyhow::Result<String> {
        let mut seen = String::new();
        while !seen.contains(end) {
            let message = timeout(PATIENCE, self.hears.recv()).await.with_context(|| seen.clone())?;
            let message = message.with_context(|| seen.clone())?;
            ensure!(message[0] != 3, "{seen}: {}", String::from_utf8_lossy(&message));
            seen.push_str(&String::from_utf8_lossy(&message[1..]));
        }
        Ok(seen)
    }

    /// Output and errors until the end, and the status.
    async fn rest(&mut self) -> anyhow::Result<(Vec<u8>, Value)> {
        let (mut out, mut status) = (Vec::new(), Value::Null);
        while let Some(message) = timeout(PATIENCE, self.hears.recv()).await? {
            match message[0] {
                3 => status = serde_json::from_slice(&message[1..])?,
                _ => out.extend_from_slice(&message[1..]),
            }
        }
        Ok((out, status))
    }
}

async fn run(engine: &Engine, name: &str, flags: &str, script: &str) -> anyhow::Result<()> {
    let command = format!("docker run -d --network=none --name {name} {flags} demo:1 sh -c \"$0\"");
    let mut run = tokio::process::Command::new("sh");
    let output = run.env("DOCKER_HOST", engine.host()).args(["-c", &command, script]).output().await?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}

#[tokio::test]
async fn logs_of_real_containers_are_whole_and_go_on_over_a_restart() -> anyhow::Result<()> {
    let (world, rest) = host().await?;
    let engine = &world.host("nuc-01")?.engine;
    let long =
        "busybox head -c 1000000 /dev/zero | busybox tr '\\0' x; echo; echo err >&2; busybox printf 'no end'";
    run(engine, "plain", "", long).await?;
    run(engine, "tty", "-t", long).await?;
    run(engine, "mute", "--log-driver none", "sleep 1000").await?;
    run(engine, "restarts", "", "trap 'exit 0' TERM; echo run; while true; do sleep 0.1; done").await?;
    let line = "x".repeat(1_000_000);
    let terminal = format!("{line}\r\nerr\r\nno end");
    // Docker reads output and errors of a container without a terminal from two pipes, and keeps no order between them.
    let expected = [
        ("tty", "", terminal),
        ("plain", "&stderr=0", format!("{line}\nno end")),
        ("plain", "&stdout=0", "err\n".to_owned()),
    ];
    for (name, query, expected) in expected {
        eventually("the log", PATIENCE, async || {
            let seen = text(&rest, &format!("containers/{name}/logs?tail=10000{query}")).await?;
            ensure!(seen.len() == expected.len(), "{name} {}", seen.len());
            ensure!(seen == expected, "{name}");
            Ok(())
        })
        .await?;
    }
    let both = text(&rest, "containers/plain/logs?tail=10000").await?;
    assert_eq!(both.len(), line.len() + "\nno enderr\n".len());

    let id = engine.docker(["inspect", "--format", "{{.Id}}", "plain"]).await?;
    let errors = text(&rest, &format!("containers/{}/logs?stdout=0", &id[..12])).await?;
    assert_eq!(errors, "err\n");
    let mute = rest.get(&path("containers/mute/logs")).await?;
    assert_eq!(
        (mute.code, mute.body["message"].as_str().unwrap_or_default().contains("`none`")),
        (409, true),
        "{:?}",
        mute.body
    );
    assert_eq!(rest.get(&path("containers/nothing/logs")).await?.code, 404);

    let mut followed = follow(&rest, "containers/restarts/logs?follow=true").await?;
    assert_eq!(until(&mut followed, "run\n").await?, "run\n");
    engine.docker(["restart", "restarts"]).await?;
    assert_eq!(until(&mut followed, "run\n").await?, "run\n");
    engine.docker(["stop", "restarts"]).await?;
    assert_eq!(timeout(PATIENCE, followed.recv()).await?, None);
    Ok(())
}

#[tokio::test]
async fn a_log_is_told_in_events_to_go_on_from_and_binary_ones_byte_by_byte() -> anyhow::Result<()> {
    let (world, rest) = host().await?;
    let engine = &world.host("nuc-01")?.engine;
    run(engine, "counts", "", "for n in 1 2 3 4 5; do echo $n; done").await?;
    // The usual driver keeps text alone.
    run(engine, "binary", "--log-driver local", "busybox printf '\\001\\377\\376\\000end'").await?;

    let too_many = rest.get(&path("containers/counts/logs?tail=10001")).await?;
    ensure!(
        too_many.code == 400 && too_many.body.to_string().contains("follow the log"),
        "{:?}",
        too_many.body
    );
    let events = async |last: &str| -> anyhow::Result<Vec<(String, String)>> {
        let request = Request::get(path("containers/counts/logs")).header("accept", "text/event-stream");
        let request = request.header("last-event-id", last).body(Body::from(Vec::new()))?;
        let Value::String(text) = rest.ask(request).await?.body else { anyhow::bail!("no text") };
        let of = |event: &str, field: &str| {
            event.lines().find_map(|line| line.strip_prefix(field)).unwrap_or_default().to_owned()
        };
        Ok(text.split("\n\n").map(|event| (of(event, "id: "), of(event, "data: "))).collect())
    };
    let seen = async |last: &str, expected: &[&str]| -> anyhow::Result<Vec<(String, String)>> {
        let mut lines = events(last).await?;
        // Signs that the stream is open have no id, nor has its end.
        lines.retain(|(id, _)| !id.is_empty());
        ensure!(lines.len() == expected.len(), "{lines:?}");
        for ((_, data), line) in lines.iter().zip(expected) {
            ensure!(data.contains(&format!("{{\"log\":\"{line}\\n\"")), "{data}");
        }
        Ok(lines)
    };
    let lines =
        eventually("five lines", PATIENCE, async || seen("", &["1", "2", "3", "4", "5"]).await).await?;
    seen(&lines[2].0, &["4", "5"]).await?;
    seen(&lines[4].0, &[]).await?;

    eventually("all bytes", PATIENCE, async || {
        let mut log = follow(&rest, "containers/binary/logs").await?;
        let mut seen = Vec::new();
        while let Some(more) = timeout(PATIENCE, log.recv()).await? {
            seen.extend(more);
        }
        ensure!(seen == b"\x01\xff\xfe\0end", "{seen:?}");
        Ok(())
    })
    .await
}

#[tokio::test]
async fn t25_logs_that_nobody_reads_keep_nobody_from_the_host() -> anyhow::Result<()> {
    let (world, rest) = host().await?;
    let engine = &world.host("nuc-01")?.engine;
    run(
        engine,
        "yes",
        "--log-opt max-size=50m",
        "busybox yes xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx",
    )
    .await?;
    let api = client::Api::of(&world.controller).await?;
    let mut unread = Vec::new();
    for _ in 0..6 {
        let mut connection = api.connect(Some(16 << 10)).await?;
        let (status, _) =
            connection.ask("GET", &path("containers/yes/logs?follow=true&tail=10000"), &Value::Null).await?;
        assert_eq!(status, 200);
        unread.push(connection);
    }

    // Long enough for every window to be full, and for the link's own proofs of life.
    for _ in 0..10 {
        tokio::time::sleep(Duration::from_secs(2)).await;
        let info = timeout(PATIENCE, rest.get(&path("info"))).await??;
        ensure!(info.code == 200, "{} {}", info.code, info.body);
    }
    assert_eq!(world.metric("gantry_live_streams{kind=\"logs\"}").await?, 6);
    let instance = world.kubectl().get("dockerinstance", "nuc-01").await?;
    assert_eq!(instance["status"]["health"], "Online");
    // Who reads again is told on.
    for _ in 0..200 {
        unread[0].chunk().await?.context("the log goes on")?;
    }
    drop(unread);
    eventually("nobody to look any more", PATIENCE, async || {
        let open = world.metric("gantry_live_streams{kind=\"logs\"}").await?;
        ensure!(open == 0, "{open}");
        Ok(())
    })
    .await
}

#[tokio::test]
async fn commands_run_in_real_containers_with_input_terminal_and_exit_code() -> anyhow::Result<()> {
    let (world, rest) = host().await?;
    let engine = &world.host("nuc-01")?.engine;
    engine.runs("web").await?;
    let id = engine.docker(["inspect", "--format", "{{.Id}}", "web"]).await?;

    let (_, status) =
        Terminal::open(&rest, "containers/web/exec?command=sh&command=-c&command=exit%207&stdout=1")
            .await?
            .rest()
            .await?;
    assert_eq!(status["details"]["causes"], json!([{"reason": "ExitCode", "message": "7"}]));
    let (out, status) =
        Terminal::open(&rest, "containers/web/exec?command=nope&stdout=1&stderr=1").await?.rest().await?;
    assert_eq!(status["reason"], "NonZeroExitCode", "{status} {}", String::from_utf8_lossy(&out));

    // A megabyte through it, and its end.
    let what = format!("containers/{}/exec?command=cat&stdin=1&stdout=1", &id[..12]);
    let mut cat = Terminal::open(&rest, &what).await?;
    let piece: Vec<u8> = (0..32u32 << 10).map(|n| u8::try_from(n % 251).unwrap_or_default()).collect();
    let says = cat.says.clone();
    let typed = piece.clone();
    let typing = tokio::spawn(async move {
        for _ in 0..32 {
            says.send([&[0][..], &typed].concat()).await.ok();
        }
        says.send(vec![255, 0]).await.ok();
    });
    let (out, status) = cat.rest().await?;
    typing.await?;
    assert_eq!((out.len(), &status["status"]), (1 << 20, &json!("Success")));
    assert_eq!(out, piece.repeat(32));

    // A terminal with a size, in a shell that was looked for.
    let mut shell = Terminal::open(&rest, "containers/web/exec?stdin=1&stdout=1&tty=1").await?;
    shell.say(4, br#"{"Width":132,"Height":50}"#).await?;
    let mut seen = String::new();
    while !seen.contains("50 132") {
        shell.say(0, b"busybox stty size; echo do''ne\n").await?;
        seen = shell.until("done\r\n").await?;
    }
    // Said by what runs in the foreground, which is what Ctrl-C is for; a shell that is about to start it would wait for it all the same.
    shell.say(0, b"echo $0 in $$; sh -c \"echo ru''ns; exec busybox sleep 1000\"\n").await?;
    let seen = shell.until("runs\r\n").await?;
    assert!(seen.contains("/bin/sh in"), "{seen}");
    shell.say(0, b"\x03").await?;
    shell.say(0, b"exit 3\n").await?;
    let (_, status) = shell.rest().await?;
    assert_eq!(status["details"]["causes"][0]["message"], "3", "{status}");

    let bash = "printf '#!/bin/sh\\necho i am bash\\n' > /bin/bash; busybox chmod +x /bin/bash";
    engine.docker(["exec", "web", "sh", "-c", bash]).await?;
    let (out, status) = Terminal::open(&rest, "containers/web/exec?stdout=1").await?.rest().await?;
    assert_eq!((out, &status["status"]), (b"i am bash\n".to_vec(), &json!("Success")));
    engine.docker(["exec", "web", "busybox", "rm", "/bin/bash", "/bin/sh"]).await?;
    let (_, status) = Terminal::open(&rest, "containers/web/exec?stdout=1").await?.rest().await?;
    let words = "container `web` has no shell: name a command that it has, as `exec web -- PROGRAM`";
    assert_eq!((&status["code"], &status["message"]), (&json!(409), &json!(words)));

    engine.docker(["pause", "web"]).await?;
    let (_, status) =
        Terminal::open(&rest, "containers/web/exec?command=true&stdout=1").await?.rest().await?;
    assert_eq!(status["code"], 409, "{status}");
    engine.docker(["unpause", "web"]).await?;
    engine.docker(["stop", "web"]).await?;
    let (_, status) =
        Terminal::open(&rest, "containers/web/exec?command=true&stdout=1").await?.rest().await?;
    assert_eq!(status["message"], "container `web` does not run");
    Ok(())
}

#[tokio::test]
async fn many_terminals_are_open_in_one_container_at_once() -> anyhow::Result<()> {
    let (world, rest) = host().await?;
    world.host("nuc-01")?.engine.runs("web").await?;
    let mut terminals = Vec::new();
    for _ in 0..40 {
        terminals.push(Terminal::open(&rest, "containers/web/exec?command=cat&stdin=1&stdout=1").await?);
    }

    for (number, terminal) in terminals.iter().enumerate() {
        terminal.say(0, format!("to {number}\n").as_bytes()).await?;
    }

    for (number, mut terminal) in terminals.into_iter().enumerate() {
        assert_eq!(terminal.until("\n").await?, format!("to {number}\n"));
        terminal.say(255, &[0]).await?;
        assert_eq!(terminal.rest().await?.1["status"], "Success");
    }
    Ok(())
}

#[tokio::test]
async fn real_containers_are_attached_to_and_have_figures() -> anyhow::Result<()> {
    let (world, rest) = host().await?;
    let engine = &world.host("nuc-01")?.engine;
    run(engine, "asks", "-i", "read answer; echo got $answer; read more; exit 5").await?;
    run(engine, "deaf", "", "sleep 1000").await?;
    run(engine, "busy", "", "while true; do :; done").await?;

    let mut one = Terminal::open(&rest, "containers/asks/attach?stdin=1&stdout=1&stderr=1").await?;
    let mut other = Terminal::open(&rest, "containers/asks/attach?stdout=1").await?;
    eventually("both to be attached", PATIENCE, async || {
        let open = world.metric("gantry_live_streams{kind=\"terminal\"}").await?;
        ensure!(open == 2, "{open}");
        Ok(())
    })
    .await?;
    tokio::time::sleep(Duration::from_millis(500)).await;
    one.say(0, b"42\n").await?;
    one.until("got 42\n").await?;
    other.until("got 42\n").await?;
    one.say(0, b"\n").await?;
    let (_, status) = one.rest().await?;
    assert_eq!(status["details"]["causes"][0]["message"], "5", "{status}");
    let (_, status) = Terminal::open(&rest, "containers/deaf/attach?stdin=1&stdout=1").await?.rest().await?;
    assert_eq!(status["code"], 409, "{status}");

    let figures = rest.get(&path("stats?container=busy&container=deaf")).await?;
    assert_eq!(figures.code, 200, "{:?}", figures.body);
    let of = |name: &str| {
        let all = figures.body["items"].as_array().cloned().unwrap_or_default();
        all.into_iter().find(|sample| sample["name"] == name).unwrap_or_default()
    };
    let (busy, deaf) = (of("busy"), of("deaf"));
    let number = |sample: &Value, name: &str| sample[name].as_f64().unwrap_or_default();
    ensure!(number(&busy, "cpuPercent") > number(&deaf, "cpuPercent"), "{busy} {deaf}");
    ensure!(number(&busy, "cpuPercent") > 1.0 && number(&busy, "cpuTotalNano") > 0.0, "{busy}");
    ensure!(number(&busy, "memoryBytes") > 0.0 && number(&busy, "pids") >= 1.0, "{busy}");
    // Sixty-four megabytes of files that the kernel keeps for as long as it likes are nobody's memory.
    run(engine, "writes", "", "busybox dd if=/dev/zero of=/big bs=1M count=64; sleep 1000").await?;
    eventually("a cache of what was written", PATIENCE, async || {
        let engine_s = rest.get(&path("docker/v1.41/containers/writes/stats?stream=false")).await?;
        let usage = engine_s.body["memory_stats"]["usage"].as_u64().unwrap_or_default();
        ensure!(usage > 60 << 20, "the engine says {usage}");
        let figures = rest.get(&path("containers/writes/stats")).await?.body;
        ensure!(number(&figures, "memoryBytes") < f64::from(40 << 20), "{figures}");
        Ok(())
    })
    .await?;
    let mut followed =
        follow(&rest, "stats?container=busy&container=deaf&container=writes&stream=true").await?;
    let mut told = String::new();
    while !["busy", "deaf", "writes"]
        .iter()
        .all(|name| told.matches(&format!("\"name\":\"{name}\"")).count() > 1)
    {
        told.push_str(&until(&mut followed, "}\n").await?);
    }
    let mut followed = follow(&rest, "containers/busy/stats?stream=true").await?;
    for _ in 0..3 {
        until(&mut followed, "}\n").await?;
    }
    Ok(())
}

#[tokio::test]
async fn a_real_engine_tells_of_each_thing_and_of_what_happens() -> anyhow::Result<()> {
    let (world, rest) = host().await?;
    let engine = &world.host("nuc-01")?.engine;
    run(engine, "web", "-e PASSWORD=planted -v data:/data", "sleep 1000").await?;
    let id = engine.docker(["inspect", "--format", "{{.Id}}", "web"]).await?;
    let told = async |what: &str| -> anyhow::Result<Value> {
        let answer = timeout(PATIENCE, rest.get(&path(what))).await??;
        ensure!(answer.code == 200, "{what}: {} {}", answer.code, answer.body);
        Ok(answer.body)
    };

    for name in ["web", &id, &id[..6]] {
        let container = told(&format!("containers/{name}")).await?;
        ensure!(container["Id"] == id && container["Config"]["Env"][0] == "PASSWORD=planted", "{container}");
    }
    let image = told("images/demo:1").await?;
    ensure!(image["RepoTags"][0] == "demo:1" && image["History"][0]["Created"].is_number(), "{image}");
    assert_eq!(told("networks/none").await?["Driver"], "null");
    assert_eq!(told("volumes/data").await?["Driver"], "local");
    assert!(told("containers/web/top").await?["Processes"][0].to_string().contains("sleep 1000"));
    assert!(told("df").await?["Volumes"][0]["UsageData"]["Size"].is_number());
    assert_eq!(rest.get(&path("containers/nothing")).await?.code, 404);
    assert_eq!(rest.get(&path("images/nothing:1")).await?.code, 404);

    let filters = "filters=%7B%22event%22%3A%5B%22rename%22%5D%7D";
    let mut events = follow(&rest, &format!("events?{filters}")).await?;
    eventually("somebody to listen", PATIENCE, async || {
        let open = world.metric("gantry_live_streams{kind=\"events\"}").await?;
        ensure!(open == 1, "{open}");
        Ok(())
    })
    .await?;
    engine.docker(["rename", "web", "shop"]).await?;
    let event: Value = serde_json::from_str(&until(&mut events, "\n").await?)?;
    assert_eq!((&event["Action"], &event["Actor"]["Attributes"]["name"]), (&json!("rename"), &json!("shop")));
    let past = text(&rest, &format!("events?since=1h&until=0s&{filters}")).await?;
    ensure!(past.contains("rename"), "{past}");

    world.kubectl().run(["create", "serviceaccount", "vera"]).await?;
    let role = "--clusterrole=gantry-viewer";
    world.kubectl().run(["create", "rolebinding", "vera", role, "--serviceaccount=default:vera"]).await?;
    let token = world.kubectl().run(["create", "token", "vera"]).await?;
    let seen = world.kubectl().with_token(token.trim()).get_raw(&path("containers/shop")).await?;
    ensure!(seen.contains("PASSWORD=(hidden)") && !seen.contains("planted"), "{seen}");
    Ok(())
}
