//! From a line's writing to a client's reading, and how many bytes of a log come in a second.

use std::time::Duration;

use anyhow::{Context as _, ensure};
use gantry_e2e::rest::INSTANCES;
use gantry_e2e::world::World;
use hdrhistogram::Histogram;
use http::Method;
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use tokio::io::AsyncWriteExt as _;
use tokio::process::Command;
use tokio::time::{Instant, sleep};

use super::ways::{Way, drain, whole};
use crate::figures::{new_histogram, tell};

const LINES: usize = 300;
const BETWEEN_LINES: Duration = Duration::from_millis(20);
/// Lines that are read at once, and their length.
const HISTORY: usize = 10_000;
const LONG: usize = 8_000;
/// Lines that are written as fast as Docker takes them.
const FOLLOWED: usize = 300_000;
const ROUNDS: usize = 5;

/// Both clients follow one container, which says at once what it is told through the engine's own socket.
pub(super) async fn lines(world: &World, socket: &Way, api: &Way) -> anyhow::Result<()> {
    let engine = &world.host("nuc-01")?.engine;
    engine.docker(["run", "-di", "--network=none", "--name", "says", "demo:1", "cat"]).await?;
    let request = socket.request(Method::POST, "/v1.41/containers/says/attach?stream=1&stdin=1");
    let request = request.header("connection", "Upgrade").header("upgrade", "tcp").body(whole(""))?;
    let response = socket.connect().await?.send_request(request).await?;
    let mut typing = hyper_util::rt::TokioIo::new(hyper::upgrade::on(response).await?);
    let path = "/v1.41/containers/says/logs?follow=1&stdout=1&tail=0";
    let mut direct = Lines::of(socket.call(Method::GET, path, whole("")).await?.into_body());
    let path = format!("{INSTANCES}/nuc-01/containers/says/logs?follow=true&tailLines=0");
    let mut through = Lines::of(api.call(Method::GET, &path, whole("")).await?.into_body());
    let (mut at_socket, mut through_all): (Histogram<u64>, Histogram<u64>) =
        (new_histogram()?, new_histogram()?);
    sleep(Duration::from_secs(1)).await;
    for number in 0..LINES {
        sleep(BETWEEN_LINES).await;
        let line = format!("line-{number}-end\n");
        let begin = Instant::now();
        typing.write_all(line.as_bytes()).await?;
        typing.flush().await?;
        let (direct, through) = tokio::try_join!(direct.until(&line, begin), through.until(&line, begin))?;
        at_socket.record(direct)?;
        through_all.record(through)?;
    }
    tell("log line until a client has it, at the socket", "", &at_socket);
    tell("log line until a client has it, through the controller", "", &through_all);
    Ok(())
}

struct Lines {
    body: Incoming,
    seen: Vec<u8>,
}

impl Lines {
    fn of(body: Incoming) -> Self {
        Self { body, seen: Vec::new() }
    }

    /// Microseconds from `begin` until that line is there.
    async fn until(&mut self, line: &str, begin: Instant) -> anyhow::Result<u64> {
        while memchr::memmem::find(&self.seen, line.as_bytes()).is_none() {
            let frame = self.body.frame().await.context("the log ended")??;
            self.seen.extend_from_slice(frame.data_ref().map_or(&[], |data| data));
        }
        self.seen.clear();
        Ok(u64::try_from(begin.elapsed().as_micros())?)
    }
}

/// A log that is there, and one that is being written.
pub(super) async fn throughput(world: &World, socket: &Way, api: &Way) -> anyhow::Result<()> {
    let engine = &world.host("nuc-01")?.engine;
    let script = format!(
        "busybox yes $(busybox head -c {LONG} /dev/zero | busybox tr '\\0' x) | busybox head -n {HISTORY}"
    );
    engine.runs_script("wrote", &script).await?;
    engine.docker(["wait", "wrote"]).await?;
    let (direct, through) = (
        "/v1.41/containers/wrote/logs?stdout=1&tail=10000".to_owned(),
        format!("{INSTANCES}/nuc-01/containers/wrote/logs?tailLines={HISTORY}"),
    );
    let mut rates: [Vec<f64>; 2] = Default::default();
    for _ in 0..ROUNDS {
        for ((way, path), rates) in [(socket, &direct), (api, &through)].into_iter().zip(&mut rates) {
            let begin = Instant::now();
            let bytes = drain(way.call(Method::GET, path, whole("")).await?).await?;
            ensure!(bytes >= HISTORY * LONG, "{bytes} bytes of the log came");
            rates.push((HISTORY * LONG) as f64 / 1e6 / begin.elapsed().as_secs_f64());
        }
    }
    super::tell_ratio("history of a log, lines of 8 KB", &mut rates, &["socket", "API"]);

    let mut rates: [Vec<f64>; 2] = Default::default();
    let script = format!(
        "read go; busybox yes 'a line as long as many are, with a time and a level and some words' | busybox head -n {FOLLOWED}"
    );
    for round in 0..ROUNDS {
        for (number, way) in [socket, api].into_iter().enumerate() {
            let name = format!("writes-{round}-{number}");
            engine
                .docker(["create", "-i", "--network=none", "--name", &name, "demo:1", "sh", "-c", &script])
                .await?;
            let mut docker = Command::new("docker");
            docker.env("DOCKER_HOST", engine.host()).args(["start", "-ai", &name]);
            docker.stdin(std::process::Stdio::piped()).stdout(std::process::Stdio::null());
            let mut started = docker.spawn()?;
            sleep(Duration::from_secs(2)).await;
            let path = if number == 0 {
                format!("/v1.41/containers/{name}/logs?follow=1&stdout=1&tail=0")
            } else {
                format!("{INSTANCES}/nuc-01/containers/{name}/logs?follow=true&tailLines=0")
            };
            let mut lines = Lines::of(way.call(Method::GET, &path, whole("")).await?.into_body());
            sleep(Duration::from_millis(500)).await;
            let begin = Instant::now();
            let mut typing = started.stdin.take().context("no input")?;
            typing.write_all(b"go\n").await?;
            let mut left = FOLLOWED;
            while left > 0 {
                let frame = lines.body.frame().await.context("the log ended early")??;
                left = left.saturating_sub(
                    frame.data_ref().map_or(0, |data| memchr::memchr_iter(b'\n', data).count()),
                );
            }
            if let Some(rates) = rates.get_mut(number) {
                rates.push(FOLLOWED as f64 / 1e3 / begin.elapsed().as_secs_f64());
            }
            drop(typing);
            started.wait().await?;
            engine.docker(["rm", "-f", &name]).await?;
        }
    }
    super::tell_ratio("log that is followed, thousand lines a second", &mut rates, &["socket", "API"]);
    Ok(())
}
