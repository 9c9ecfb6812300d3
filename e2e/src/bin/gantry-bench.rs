//! `make bench`: how fast the whole HTTPS API is on this machine, beside raw Postgres in the same run.
//!
//! One Postgres with fsync on, one controller, all clients in this process. Prints a Markdown table.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context as _, ensure};
use bytes::Bytes;
use clap::Parser;
use futures::future::try_join_all;
use gantry_e2e::agent::{Agent, AgentSettings};
use gantry_e2e::controller::Controller;
use gantry_e2e::fake_engine::FakeEngine;
use gantry_e2e::postgres::Postgres;
use hdrhistogram::Histogram;
use http::{Method, Request, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::client::conn::http1::SendRequest;
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use sqlx::Executor as _;
use tokio::net::TcpStream;
use tokio::time::Instant;

/// Measures the control plane.
#[derive(Debug, Parser)]
struct Args {
    /// Clients at the same time.
    #[arg(long, default_value_t = 64)]
    clients: usize,
    /// Seconds per figure.
    #[arg(long, default_value_t = 8)]
    seconds: u64,
    /// Objects in the list.
    #[arg(long, default_value_t = 10_000)]
    list: usize,
    /// Seconds that an agent is idle before its memory is looked at.
    #[arg(long, default_value_t = 60)]
    idle_seconds: u64,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    let dir = tempfile::Builder::new().prefix("gantry-bench-").tempdir()?;
    std::fs::set_permissions(dir.path(), std::os::unix::fs::PermissionsExt::from_mode(0o711))?;
    let postgres = Postgres::start(&dir.path().join("pg")).await?;
    let controller = Controller::start(&dir.path().join("controller"), &postgres.url(), &[]).await?;
    let bench = Bench {
        target: Target::of(&controller).await?,
        clients: args.clients,
        time: Duration::from_secs(args.seconds),
    };

    println!("| what | rate or time | p50 | p99 |\n| --- | --- | --- | --- |");
    bench.raw_postgres(&postgres).await?;
    bench.creates("create ConfigMap, 2 KB", &configmap, "/api/v1/namespaces/default/configmaps").await?;
    bench.creates("create Operation, reconciler following", &operation, OPERATIONS).await?;
    bench.status_patches().await?;
    bench.gets().await?;
    bench.list(args.list).await?;
    bench.watch(1).await?;
    bench.watch(100).await?;
    idle_agent(&controller, dir.path(), Duration::from_secs(args.idle_seconds)).await
}

/// What an agent holds that is connected and has had nothing to do for that long.
///
/// Its engine is a stand-in that answers at once: the agent's memory is measured, and a dockerd needs root.
async fn idle_agent(controller: &Controller, dir: &Path, idle: Duration) -> anyhow::Result<()> {
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
    let rollup = std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup"))?;
    let megabytes = |field: &str| -> anyhow::Result<f64> {
        let line = rollup.lines().find_map(|line| line.strip_prefix(field));
        let kibibytes =
            line.and_then(|line| line.split_whitespace().next()).with_context(|| field.to_owned())?;
        Ok(kibibytes.parse::<f64>()? * 1_024.0 / 1e6)
    };
    println!(
        "| agent, connected and idle for {} s | {:.1} MB resident, {:.1} MB of it anonymous | | |",
        idle.as_secs(),
        megabytes("Rss:")?,
        megabytes("Anonymous:")?
    );
    Ok(())
}

const OPERATIONS: &str = "/apis/gantry.dev/v1alpha1/namespaces/default/operations";
const INSTANCES: &str = "/apis/gantry.dev/v1alpha1/namespaces/default/dockerinstances";

struct Bench {
    target: Target,
    clients: usize,
    time: Duration,
}

/// Where and how to call.
#[derive(Clone)]
struct Target {
    address: std::net::SocketAddr,
    token: Arc<str>,
    tls: tokio_rustls::TlsConnector,
}

/// One connection.
struct Client {
    sender: SendRequest<Full<Bytes>>,
    token: Arc<str>,
}

impl Target {
    async fn of(controller: &Controller) -> anyhow::Result<Self> {
        let (address, token) = (controller.address(), controller.admin_token()?.into());
        Ok(Self { address, token, tls: controller.tls().await? })
    }

    async fn connect(&self) -> anyhow::Result<Client> {
        let stream = TcpStream::connect(self.address).await?;
        stream.set_nodelay(true)?;
        let stream = self.tls.connect("localhost".try_into()?, stream).await?;
        let (sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
        tokio::spawn(connection);
        Ok(Client { sender, token: Arc::clone(&self.token) })
    }
}

impl Client {
    async fn send(
        &mut self,
        method: Method,
        path: &str,
        media: &str,
        body: Bytes,
    ) -> anyhow::Result<http::Response<Incoming>> {
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header("host", "localhost")
            .header("authorization", format!("Bearer {}", self.token))
            .header("content-type", media)
            .body(Full::new(body))?;
        self.sender.ready().await?;
        Ok(self.sender.send_request(request).await?)
    }

    async fn call(
        &mut self,
        method: Method,
        path: &str,
        media: &str,
        body: Bytes,
    ) -> anyhow::Result<(StatusCode, Bytes)> {
        let response = self.send(method, path, media, body).await?;
        let status = response.status();
        Ok((status, response.into_body().collect().await?.to_bytes()))
    }
}

fn configmap(name: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, "labels": {"app": "bench"}},
        "data": {"payload": "x".repeat(1_800)}})
}

fn operation(name: &str) -> Value {
    json!({"apiVersion": "gantry.dev/v1alpha1", "kind": "Operation", "metadata": {"name": name, "labels": {"app": "bench"}},
        "spec": {"instanceRef": {"name": "nowhere"}, "action": "Stop", "target": {"name": "web"}, "startDeadlineSeconds": 86400}})
}

fn instance(name: &str) -> Value {
    json!({"apiVersion": "gantry.dev/v1alpha1", "kind": "DockerInstance", "metadata": {"name": name},
        "spec": {"archived": true, "description": "x".repeat(1_500)}})
}

impl Bench {
    async fn raw_postgres(&self, postgres: &Postgres) -> anyhow::Result<()> {
        let pool = sqlx::postgres::PgPoolOptions::new()
            .max_connections(self.clients as u32)
            .connect(&postgres.url())
            .await?;
        pool.execute("create table bench (id bigserial primary key, name text unique, data text)").await?;
        let row = configmap("raw").to_string();
        let end = Instant::now() + self.time;
        let counter = AtomicU64::new(0);
        let workers = (0..self.clients).map(|_| async {
            let mut times = new_histogram()?;
            while Instant::now() < end {
                let number = counter.fetch_add(1, Ordering::Relaxed);
                let begin = Instant::now();
                sqlx::query("insert into bench (name, data) values ($1, $2)")
                    .bind(format!("row-{number}"))
                    .bind(&row)
                    .execute(&pool)
                    .await?;
                times.record(begin.elapsed().as_micros() as u64)?;
            }
            anyhow::Ok(times)
        });
        report(
            "raw Postgres: insert of the same row, a transaction each",
            &merge(try_join_all(workers).await?)?,
            self.time,
        );
        pool.close().await;
        Ok(())
    }

    async fn creates(
        &self,
        what: &str,
        object: &(dyn Fn(&str) -> Value + Sync),
        path: &str,
    ) -> anyhow::Result<()> {
        let counter = AtomicU64::new(0);
        self.rate(what, async |client: &mut Client, _| {
            let name = format!("bench-{}", counter.fetch_add(1, Ordering::Relaxed));
            let body = Bytes::from(object(&name).to_string());
            expect(client.call(Method::POST, path, "application/json", body).await?, StatusCode::CREATED)
        })
        .await
    }

    async fn status_patches(&self) -> anyhow::Result<()> {
        let mut client = self.target.connect().await?;
        for number in 0..self.clients {
            let body = Bytes::from(instance(&format!("bench-{number}")).to_string());
            expect(
                client.call(Method::POST, INSTANCES, "application/json", body).await?,
                StatusCode::CREATED,
            )?;
        }
        let counter = AtomicU64::new(0);
        self.rate("status merge patch of a DockerInstance, 2 KB", async |client: &mut Client, number| {
            let path = format!("{INSTANCES}/bench-{number}/status");
            let images = counter.fetch_add(1, Ordering::Relaxed);
            let body = Bytes::from(json!({"status": {"images": images}}).to_string());
            expect(
                client.call(Method::PATCH, &path, "application/merge-patch+json", body).await?,
                StatusCode::OK,
            )
        })
        .await
    }

    async fn gets(&self) -> anyhow::Result<()> {
        self.rate("get, 2 KB, newest", async |client: &mut Client, number| {
            let path = format!("{INSTANCES}/bench-{number}");
            expect(client.call(Method::GET, &path, "application/json", Bytes::new()).await?, StatusCode::OK)
        })
        .await?;
        self.rate("get, 2 KB, resourceVersion=0", async |client: &mut Client, number| {
            let path = format!("{INSTANCES}/bench-{number}?resourceVersion=0");
            expect(client.call(Method::GET, &path, "application/json", Bytes::new()).await?, StatusCode::OK)
        })
        .await
    }

    /// Runs `call` from every client until the time is over and prints rate and latencies.
    async fn rate<F>(&self, what: &str, call: F) -> anyhow::Result<()>
    where
        F: AsyncFn(&mut Client, usize) -> anyhow::Result<()>,
    {
        let mut clients = try_join_all((0..self.clients).map(|_| self.target.connect())).await?;
        let end = Instant::now() + self.time;
        let workers = clients.iter_mut().enumerate().map(|(number, client)| {
            let call = &call;
            async move {
                let mut times = new_histogram()?;
                while Instant::now() < end {
                    let begin = Instant::now();
                    call(client, number).await?;
                    times.record(begin.elapsed().as_micros() as u64)?;
                }
                anyhow::Ok(times)
            }
        });
        report(what, &merge(try_join_all(workers).await?)?, self.time);
        Ok(())
    }

    async fn list(&self, count: usize) -> anyhow::Result<()> {
        let mut client = self.target.connect().await?;
        let body = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "list"}}).to_string();
        expect(
            client.call(Method::POST, "/api/v1/namespaces", "application/json", body.into()).await?,
            StatusCode::CREATED,
        )?;
        let path = "/api/v1/namespaces/list/configmaps";
        let next = AtomicU64::new(0);
        let mut clients = try_join_all((0..self.clients).map(|_| self.target.connect())).await?;
        try_join_all(clients.iter_mut().map(|client| async {
            loop {
                let number = next.fetch_add(1, Ordering::Relaxed);
                if number >= count as u64 {
                    return anyhow::Ok(());
                }
                let body = Bytes::from(configmap(&format!("item-{number}")).to_string());
                expect(
                    client.call(Method::POST, path, "application/json", body).await?,
                    StatusCode::CREATED,
                )?;
            }
        }))
        .await?;
        for (what, query, accept_table) in
            [("full", "", false), ("pages of 500", "?limit=500", false), ("Table", "", true)]
        {
            let mut times = new_histogram()?;
            for _ in 0..10 {
                let begin = Instant::now();
                let mut url = format!("{path}{query}");
                loop {
                    let page = self.page(&mut client, &url, accept_table).await?;
                    match page {
                        Some(token) => url = format!("{path}?limit=500&continue={token}"),
                        None => break,
                    }
                }
                times.record(begin.elapsed().as_micros() as u64)?;
            }
            println!(
                "| list of {count} × 2 KB, {what} | {} | {} | {} |",
                ms(times.value_at_quantile(0.5)),
                ms(times.value_at_quantile(0.5)),
                ms(times.value_at_quantile(0.99))
            );
        }
        Ok(())
    }

    /// Reads one page; the token of the next one, if there is one.
    async fn page(&self, client: &mut Client, url: &str, table: bool) -> anyhow::Result<Option<String>> {
        let accept = if table { "application/json;as=Table;v=v1;g=meta.k8s.io" } else { "application/json" };
        let request = Request::get(url)
            .header("host", "localhost")
            .header("authorization", format!("Bearer {}", client.token))
            .header("accept", accept)
            .body(Full::new(Bytes::new()))?;
        client.sender.ready().await?;
        let response = client.sender.send_request(request).await?;
        ensure!(response.status() == StatusCode::OK, "list: {}", response.status());
        let body = response.into_body().collect().await?.to_bytes();
        if !url.contains("limit") {
            return Ok(None);
        }
        let list: Value = serde_json::from_slice(&body)?;
        Ok(list
            .pointer("/metadata/continue")
            .and_then(Value::as_str)
            .filter(|token| !token.is_empty())
            .map(str::to_owned))
    }

    /// Time from sending a write to its event at every watcher, at 1,000 writes/s.
    async fn watch(&self, watchers: usize) -> anyhow::Result<()> {
        const WRITES: u64 = 1_000;
        let namespace = format!("watch-{watchers}");
        let mut writer = self.target.connect().await?;
        let body =
            json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}}).to_string();
        expect(
            writer.call(Method::POST, "/api/v1/namespaces", "application/json", body.into()).await?,
            StatusCode::CREATED,
        )?;
        let path = format!("/api/v1/namespaces/{namespace}/configmaps");
        let start = Instant::now();
        let total = WRITES * self.time.as_secs();
        let readers: Vec<_> = try_join_all((0..watchers).map(|_| async {
            let mut client = self.target.connect().await?;
            let url = format!("{path}?watch=1&resourceVersion=0");
            let response = client.send(Method::GET, &url, "application/json", Bytes::new()).await?;
            ensure!(response.status() == StatusCode::OK, "watch: {}", response.status());
            anyhow::Ok(tokio::spawn(read_watch(client, response.into_body(), start, total)))
        }))
        .await?;
        let mut clients = try_join_all((0..16).map(|_| self.target.connect())).await?;
        let next = AtomicU64::new(0);
        try_join_all(clients.iter_mut().map(|client| async {
            loop {
                let number = next.fetch_add(1, Ordering::Relaxed);
                if number >= total {
                    return anyhow::Ok(());
                }
                tokio::time::sleep_until(start + Duration::from_micros(number * 1_000_000 / WRITES)).await;
                let mut object = configmap(&format!("w-{number}"));
                let sent = start.elapsed().as_micros().to_string();
                if let Some(data) = object.pointer_mut("/metadata/labels") {
                    *data = json!({"sent": sent});
                }
                let body = Bytes::from(object.to_string());
                expect(
                    client.call(Method::POST, &path, "application/json", body).await?,
                    StatusCode::CREATED,
                )?;
            }
        }))
        .await?;
        let took = start.elapsed();
        let mut all = Vec::new();
        for reader in readers {
            all.push(
                tokio::time::timeout(Duration::from_secs(30), reader)
                    .await
                    .context("a watcher got not every event")???,
            );
        }
        let times = merge(all)?;
        ensure!(
            times.len() == total * watchers as u64,
            "{} events instead of {}",
            times.len(),
            total * watchers as u64
        );
        println!(
            "| watch delivery, {watchers} watchers, {:.0} writes/s | {:.0} events/s | {} | {} |",
            total as f64 / took.as_secs_f64(),
            times.len() as f64 / took.as_secs_f64(),
            ms(times.value_at_quantile(0.5)),
            ms(times.value_at_quantile(0.99))
        );
        Ok(())
    }
}

/// Reads `total` events and notes how long each took from its sending.
async fn read_watch(
    client: Client,
    mut body: Incoming,
    start: Instant,
    total: u64,
) -> anyhow::Result<Histogram<u64>> {
    let mut times = new_histogram()?;
    let mut pending = Vec::new();
    let marker = b"\"sent\":\"";
    while times.len() < total {
        let frame = body.frame().await.context("the watch ended early")??;
        let Some(data) = frame.data_ref() else { continue };
        pending.extend_from_slice(data);
        let now = start.elapsed().as_micros() as u64;
        while let Some(end) = pending.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = pending.drain(..=end).collect();
            let sent = line.windows(marker.len()).position(|window| window == marker).and_then(|at| {
                let digits = line.get(at + marker.len()..)?;
                let end = digits.iter().position(|byte| *byte == b'"')?;
                std::str::from_utf8(digits.get(..end)?).ok()?.parse::<u64>().ok()
            });
            if let Some(sent) = sent {
                times.record(now.saturating_sub(sent))?;
            }
        }
    }
    drop(client);
    Ok(times)
}

fn expect((status, body): (StatusCode, Bytes), wanted: StatusCode) -> anyhow::Result<()> {
    ensure!(status == wanted, "{status}: {}", String::from_utf8_lossy(&body));
    Ok(())
}

fn new_histogram() -> anyhow::Result<Histogram<u64>> {
    Ok(Histogram::new_with_bounds(1, 600_000_000, 3)?)
}

fn merge(parts: Vec<Histogram<u64>>) -> anyhow::Result<Histogram<u64>> {
    let mut all = new_histogram()?;
    for part in parts {
        all.add(part)?;
    }
    Ok(all)
}

fn report(what: &str, times: &Histogram<u64>, time: Duration) {
    println!(
        "| {what} | {:.0}/s | {} | {} |",
        times.len() as f64 / time.as_secs_f64(),
        ms(times.value_at_quantile(0.5)),
        ms(times.value_at_quantile(0.99))
    );
}

fn ms(micros: u64) -> String {
    format!("{:.1} ms", micros as f64 / 1_000.0)
}
