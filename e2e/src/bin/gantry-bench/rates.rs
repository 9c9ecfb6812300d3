//! How many requests a second, and how long each takes while all clients ask as fast as they are answered.

use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use futures::future::try_join_all;
use gantry_e2e::postgres::Postgres;
use http::Method;
use serde_json::{Value, json};
use sqlx::Executor as _;
use tokio::time::Instant;

use crate::Bench;
use crate::client::{Client, JSON};
use crate::figures::{merge, new_histogram, tell_rate};
use crate::objects::{CONFIG_MAPS, INSTANCES, OPERATIONS, config_map, instance, operation, version};

impl Bench {
    /// The yardstick: the same row, one insert a transaction, as many connections as clients.
    pub(crate) async fn raw_postgres(&self, postgres: &Postgres) -> anyhow::Result<()> {
        let pool = sqlx::postgres::PgPoolOptions::new()
            .max_connections(self.clients as u32)
            .connect(&postgres.url())
            .await?;
        pool.execute("create table bench (id bigserial primary key, name text unique, data text)").await?;
        let row = config_map("raw").to_string();
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
        let times = merge(try_join_all(workers).await?)?;
        tell_rate("raw Postgres: insert of the same row, a transaction each", &times, self.time);
        pool.close().await;
        Ok(())
    }

    /// Every verb on objects of 2 KB.
    pub(crate) async fn rates(&self) -> anyhow::Result<()> {
        let next = AtomicU64::new(0);
        let number = || next.fetch_add(1, Ordering::Relaxed);
        self.rate("create ConfigMap", async |client, _| {
            client.post(CONFIG_MAPS, &config_map(&format!("bench-{}", number()))).await.map(drop)
        })
        .await?;
        self.rate("create Operation, reconciler following", async |client, _| {
            client.post(OPERATIONS, &operation(&format!("bench-{}", number()))).await.map(drop)
        })
        .await?;

        let mut client = self.target.connect().await?;
        for number in 0..self.clients {
            client.post(INSTANCES, &instance(&format!("bench-{number}"))).await?;
            client.post(CONFIG_MAPS, &config_map(&format!("own-{number}"))).await?;
        }
        self.rate("update ConfigMap, each its own, get and put", async |client, own| {
            let path = format!("{CONFIG_MAPS}/own-{own}");
            let mut object = config_map(&format!("own-{own}"));
            set(&mut object, "/metadata/resourceVersion", version(&client.get(&path).await?)?);
            set(&mut object, "/metadata/labels/app", number().to_string());
            client.call(Method::PUT, &path, JSON, Bytes::from(object.to_string())).await.map(drop)
        })
        .await?;
        let patch = async |client: &mut Client, path: String, media: &str, body: Value| {
            client.call(Method::PATCH, &path, media, Bytes::from(body.to_string())).await.map(drop)
        };
        self.rate("merge patch of a ConfigMap", async |client, own| {
            let body = json!({"metadata": {"labels": {"app": number().to_string()}}});
            patch(client, format!("{CONFIG_MAPS}/own-{own}"), "application/merge-patch+json", body).await
        })
        .await?;
        self.rate("JSON patch of a ConfigMap", async |client, own| {
            let body =
                json!([{"op": "replace", "path": "/metadata/labels/app", "value": number().to_string()}]);
            patch(client, format!("{CONFIG_MAPS}/own-{own}"), "application/json-patch+json", body).await
        })
        .await?;
        self.rate("server-side apply of a ConfigMap", async |client, own| {
            let mut object = config_map(&format!("applied-{own}"));
            set(&mut object, "/metadata/labels/app", number().to_string());
            let path = format!("{CONFIG_MAPS}/applied-{own}?fieldManager=bench");
            patch(client, path, "application/apply-patch+yaml", object).await
        })
        .await?;
        self.rate("status merge patch of a DockerInstance", async |client, own| {
            let body = json!({"status": {"images": number()}});
            patch(client, format!("{INSTANCES}/bench-{own}/status"), "application/merge-patch+json", body)
                .await
        })
        .await?;

        self.rate("get, newest", async |client, own| {
            client.get(&format!("{INSTANCES}/bench-{own}")).await.map(drop)
        })
        .await?;
        self.rate("get, resourceVersion=0", async |client, own| {
            client.get(&format!("{INSTANCES}/bench-{own}?resourceVersion=0")).await.map(drop)
        })
        .await?;
        self.rate("4 gets to 1 status patch", async |client, own| {
            let number = number();
            let path = format!("{INSTANCES}/bench-{own}");
            if number % 5 > 0 {
                return client.get(&path).await.map(drop);
            }
            let body = json!({"status": {"images": number}});
            patch(client, format!("{path}/status"), "application/merge-patch+json", body).await
        })
        .await
    }

    /// Runs `call` from every client until the time is over and tells rate and latencies.
    async fn rate<F>(&self, what: &str, call: F) -> anyhow::Result<()>
    where
        F: AsyncFn(&mut Client, usize) -> anyhow::Result<()>,
    {
        let mut clients = self.target.connect_many(self.clients).await?;
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
        tell_rate(what, &merge(try_join_all(workers).await?)?, self.time);
        Ok(())
    }
}

/// Sets a field of `metadata`.
fn set(object: &mut Value, path: &str, value: String) {
    let (parent, field) = path.rsplit_once('/').unwrap_or_default();
    if let Some(Value::Object(parent)) = object.pointer_mut(parent) {
        parent.insert(field.to_owned(), value.into());
    }
}
