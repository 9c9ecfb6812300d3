//! From a key to its echo.

use std::time::Duration;

use anyhow::{Context as _, ensure};
use futures::{SinkExt as _, StreamExt as _};
use gantry_e2e::rest::{INSTANCES, Rest};
use gantry_e2e::world::World;
use hdrhistogram::Histogram;
use http::Request;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::time::{Instant, sleep};

use super::ways::Way;
use crate::figures::{new_histogram, tell};

const KEYS: usize = 500;
const BETWEEN_KEYS: Duration = Duration::from_millis(10);

/// On the socket, through the endpoint, and over a WebSocket, key by key in turns.
pub(super) async fn echoes(world: &World, socket: &Way, endpoint: &Way) -> anyhow::Result<()> {
    let mut direct = socket.exec(&["cat"], true).await?;
    let mut through = endpoint.exec(&["cat"], true).await?;
    let rest = Rest::new(&world.controller.kubeconfig()).await?;
    let path = format!("{INSTANCES}/nuc-01/containers/web/exec?command=cat&stdin=true&stdout=true&tty=true");
    let request = Request::get(path).header("sec-websocket-protocol", "v5.channel.k8s.io").body(Vec::new())?;
    let mut web = rest.client().connect(request).await?.into_stream();
    let mut times: [Histogram<u64>; 2] = [new_histogram()?, new_histogram()?];
    let mut over_web = new_histogram()?;
    // It says that it has begun.
    web.next().await.context("the terminal ended")??;
    sleep(Duration::from_millis(500)).await;
    for _ in 0..KEYS {
        for (io, times) in [&mut direct, &mut through].into_iter().zip(&mut times) {
            sleep(BETWEEN_KEYS).await;
            let begin = Instant::now();
            io.write_all(b"x").await?;
            io.flush().await?;
            let mut echo = [0; 64];
            let read = io.read(&mut echo).await?;
            ensure!(
                echo.get(..read).is_some_and(|echo| echo.contains(&b'x')),
                "no echo: {:?}",
                echo.get(..read)
            );
            times.record(u64::try_from(begin.elapsed().as_micros())?)?;
        }
        sleep(BETWEEN_KEYS).await;
        let begin = Instant::now();
        web.send(vec![0, b'x'].into()).await?;
        loop {
            let message = web.next().await.context("the terminal ended")??.into_data();
            if message.first() == Some(&1) && message.contains(&b'x') {
                break;
            }
        }
        over_web.record(u64::try_from(begin.elapsed().as_micros())?)?;
    }
    for (what, times) in
        ["at the socket", "through the Docker endpoint", "over a WebSocket"].iter().zip(&times)
    {
        tell(&format!("echo of a key {what}"), "", times);
    }
    Ok(())
}
