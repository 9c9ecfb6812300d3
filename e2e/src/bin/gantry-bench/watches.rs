//! From the moment a write is sent to the moment a watcher has its event.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context as _, ensure};
use bytes::Bytes;
use futures::future::try_join_all;
use hdrhistogram::Histogram;
use http::{Method, StatusCode};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use serde_json::json;
use tokio::time::Instant;

use crate::Bench;
use crate::client::{Client, JSON};
use crate::figures::{merge, new_histogram, tell};
use crate::objects::{config_map, namespace};

/// What stands before the moment of sending in an object.
const MARKER: &[u8] = b"\"sent\":\"";
/// Connections that write.
const WRITERS: usize = 16;

impl Bench {
    /// That many watchers of a namespace into which that many objects a second are written.
    pub(crate) async fn watch(&self, watchers: usize, writes: u64) -> anyhow::Result<()> {
        let mut writer = self.target.connect().await?;
        let path = namespace(&mut writer, &format!("watch-{watchers}")).await?;
        let begin = Instant::now();
        let total = writes * self.time.as_secs();
        let mut readers = Vec::with_capacity(watchers);
        for _ in 0..watchers {
            let mut client = self.target.connect().await?;
            let url = format!("{path}?watch=1&resourceVersion=0");
            let response = client.send(Method::GET, &url, JSON, Bytes::new()).await?;
            ensure!(response.status() == StatusCode::OK, "watch: {}", response.status());
            readers.push(tokio::spawn(read(client, response.into_body(), begin, total)));
        }
        let start = Instant::now();
        let mut clients = self.target.connect_many(WRITERS).await?;
        let next = AtomicU64::new(0);
        try_join_all(clients.iter_mut().map(|client| async {
            loop {
                let number = next.fetch_add(1, Ordering::Relaxed);
                if number >= total {
                    return anyhow::Ok(());
                }
                tokio::time::sleep_until(start + Duration::from_micros(number * 1_000_000 / writes)).await;
                let mut object = config_map(&format!("w-{number}"));
                if let Some(labels) = object.pointer_mut("/metadata/labels") {
                    *labels = json!({"sent": begin.elapsed().as_micros().to_string()});
                }
                client.post(&path, &object).await?;
            }
        }))
        .await?;
        let took = start.elapsed().as_secs_f64();
        let mut all = Vec::new();
        for reader in readers {
            let times = tokio::time::timeout(Duration::from_secs(60), reader).await;
            all.push(times.context("a watcher got not every event")???);
        }
        let times = merge(all)?;
        let expected = total * watchers as u64;
        ensure!(times.len() == expected, "{} events instead of {expected}", times.len());
        let (written, told) = (total as f64 / took, times.len() as f64 / took);
        let what = format!("watch delivery, {watchers} watchers, {written:.0} writes/s");
        tell(&what, &format!("{told:.0} events/s"), &times);
        Ok(())
    }
}

/// Reads `total` events and notes how long each took from its sending.
///
/// Only the marker is looked for, since the readers share the cores with the server.
async fn read(
    client: Client,
    mut body: Incoming,
    begin: Instant,
    total: u64,
) -> anyhow::Result<Histogram<u64>> {
    let mut times = new_histogram()?;
    let finder = memchr::memmem::Finder::new(MARKER);
    let mut rest: Vec<u8> = Vec::new();
    while times.len() < total {
        let frame = body.frame().await.context("the watch ended early")??;
        let Some(data) = frame.data_ref() else { continue };
        let now = begin.elapsed().as_micros() as u64;
        rest.extend_from_slice(data);
        let mut done = 0;
        while let Some(at) = rest.get(done..).and_then(|rest| finder.find(rest)) {
            let digits = done + at + MARKER.len();
            let Some(text) = rest.get(digits..) else { break };
            let Some(end) = text.iter().position(|byte| *byte == b'"') else { break };
            let sent: u64 = std::str::from_utf8(text.get(..end).unwrap_or_default())?.parse()?;
            times.record(now.saturating_sub(sent).max(1))?;
            done = digits + end;
        }
        // A marker may be cut in two.
        let kept = rest.len().saturating_sub(64).max(done);
        rest.drain(..kept);
    }
    drop(client);
    Ok(times)
}
