//! Lists of many objects, by one client.

use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use futures::future::try_join_all;
use http::Method;
use serde_json::Value;
use tokio::time::Instant;

use crate::Bench;
use crate::client::{Client, JSON, TABLE};
use crate::figures::{new_histogram, quantile, tell};
use crate::objects::{config_map, namespace};

const ROUNDS: usize = 10;
const PAGE: usize = 500;

impl Bench {
    pub(crate) async fn lists(&self) -> anyhow::Result<()> {
        let mut client = self.target.connect().await?;
        for count in [1_000, 10_000] {
            let path = namespace(&mut client, &format!("list-{count}")).await?;
            self.fill(&path, count).await?;
            for (what, is_paged, media) in [
                ("full", false, JSON.to_owned()),
                ("pages of 500", true, JSON.to_owned()),
                ("Table", false, TABLE.to_owned()),
            ] {
                let mut times = new_histogram()?;
                for _ in 0..ROUNDS {
                    let begin = Instant::now();
                    read(&mut client, &path, is_paged, &media).await?;
                    times.record(begin.elapsed().as_micros() as u64)?;
                }
                tell(&format!("list of {count}, {what}"), &quantile(&times, 0.5), &times);
            }
        }
        Ok(())
    }

    /// Makes that many ConfigMaps.
    pub(crate) async fn fill(&self, path: &str, count: u64) -> anyhow::Result<()> {
        let next = AtomicU64::new(0);
        let mut clients = self.target.connect_many(self.clients).await?;
        try_join_all(clients.iter_mut().map(|client| async {
            loop {
                let number = next.fetch_add(1, Ordering::Relaxed);
                if number >= count {
                    return anyhow::Ok(());
                }
                client.post(path, &config_map(&format!("item-{number}"))).await?;
            }
        }))
        .await?;
        Ok(())
    }
}

async fn read(client: &mut Client, path: &str, is_paged: bool, media: &str) -> anyhow::Result<()> {
    if !is_paged {
        return client.call(Method::GET, path, media, Bytes::new()).await.map(drop);
    }
    let mut url = format!("{path}?limit={PAGE}");
    loop {
        let page: Value = serde_json::from_slice(&client.get(&url).await?)?;
        match page.pointer("/metadata/continue").and_then(Value::as_str).filter(|token| !token.is_empty()) {
            Some(token) => url = format!("{path}?limit={PAGE}&continue={token}"),
            None => return Ok(()),
        }
    }
}
