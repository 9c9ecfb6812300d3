//! Calls and bytes through the Docker endpoint, beside the same at the engine's own socket and through a proxy that only adds TLS.

use std::process::Stdio;

use anyhow::{Context as _, ensure};
use bytes::Bytes;
use gantry_e2e::world::World;
use hdrhistogram::Histogram;
use http::Method;
use http_body_util::BodyExt as _;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::process::Command;
use tokio::time::Instant;

use super::ways::{Way, drain, pieces, whole};
use crate::figures::{new_histogram, tell};

const CALLS: usize = 500;
const ROUNDS: usize = 5;
/// Bytes of each transfer.
const SIZE: usize = 100_000_000;

/// `GET /containers/json`, in turns, each way on a connection that is kept.
pub(super) async fn calls(ways: &[Way]) -> anyhow::Result<()> {
    let mut senders = Vec::new();
    for way in ways {
        senders.push((way, way.connect().await?, new_histogram()?));
    }
    for _ in 0..CALLS {
        for (way, sender, times) in &mut senders {
            let times: &mut Histogram<u64> = times;
            let request = way.request(Method::GET, "/v1.41/containers/json").body(whole(""))?;
            let begin = Instant::now();
            sender.ready().await?;
            let response = sender.send_request(request).await?;
            ensure!(response.status().is_success(), "{}: {}", way.name, response.status());
            response.into_body().collect().await?;
            times.record(u64::try_from(begin.elapsed().as_micros())?)?;
        }
    }
    for (way, _, times) in &senders {
        tell(&format!("GET /containers/json, {}", way.name), "", times);
    }
    Ok(())
}

/// What moves bytes.
#[derive(Clone, Copy, Debug)]
enum Transfer {
    CopyOut,
    CopyIn,
    Load,
    Save,
    ExecOut,
    ExecIn,
}

impl Transfer {
    const ALL: [(Self, &'static str); 6] = [
        (Self::CopyOut, "docker cp from a container"),
        (Self::CopyIn, "docker cp into a container"),
        (Self::Load, "docker load"),
        (Self::Save, "docker save"),
        (Self::ExecOut, "docker exec, output"),
        (Self::ExecIn, "docker exec, input"),
    ];

    async fn run(self, way: &Way, archive: &Bytes, image: &Bytes) -> anyhow::Result<()> {
        let moved = match self {
            Self::CopyOut => {
                let path = "/v1.41/containers/web/archive?path=/blob";
                drain(way.call(Method::GET, path, whole("")).await?).await?
            }
            Self::CopyIn => {
                let path = "/v1.41/containers/web/archive?path=/tmp";
                drain(way.call(Method::PUT, path, pieces(archive)).await?).await?;
                SIZE
            }
            Self::Load => {
                drain(way.call(Method::POST, "/v1.41/images/load?quiet=1", pieces(image)).await?).await?;
                SIZE
            }
            Self::Save => drain(way.call(Method::GET, "/v1.41/images/big:1/get", whole("")).await?).await?,
            Self::ExecOut => {
                let mut io = way.exec(&["cat", "/blob"], false).await?;
                let (mut buffer, mut bytes) = (vec![0; 64 << 10], 0);
                loop {
                    match io.read(&mut buffer).await? {
                        0 => break bytes,
                        read => bytes += read,
                    }
                }
            }
            Self::ExecIn => {
                let io = way.exec(&["sh", "-c", "cat > /dev/null; echo done"], false).await?;
                let (mut read, mut write) = tokio::io::split(io);
                let blob = archive.clone();
                let writing = async move {
                    for piece in blob.chunks(64 << 10) {
                        write.write_all(piece).await?;
                    }
                    write.shutdown().await
                };
                let mut said = Vec::new();
                let (written, answered) = tokio::join!(writing, read.read_to_end(&mut said));
                written?;
                answered?;
                ensure!(memchr::memmem::find(&said, b"done").is_some(), "its input had no end");
                SIZE
            }
        };
        ensure!(moved >= SIZE, "{self:?}: {moved} bytes");
        Ok(())
    }
}

/// Each transfer each way, in turns.
pub(super) async fn transfers(world: &World, ways: &[Way]) -> anyhow::Result<()> {
    let engine = &world.host("nuc-01")?.engine;
    let dir = world.path("blobs");
    std::fs::create_dir_all(&dir)?;
    let script = format!(
        "head -c {SIZE} /dev/urandom > blob && tar c blob > blob.tar && docker import blob.tar big:1 \
        && docker cp blob web:/blob && docker save -o big.tar big:1"
    );
    let mut command = Command::new("sh");
    command.env("DOCKER_HOST", engine.host()).current_dir(&dir).args(["-ec", &script]).stdout(Stdio::null());
    ensure!(command.status().await.context("no sh")?.success(), "the blobs could not be made");
    let (archive, image) =
        (Bytes::from(std::fs::read(dir.join("blob.tar"))?), Bytes::from(std::fs::read(dir.join("big.tar"))?));
    for (transfer, what) in Transfer::ALL {
        let mut rates: Vec<Vec<f64>> = vec![Vec::new(); ways.len()];
        for _ in 0..ROUNDS {
            for (way, rates) in ways.iter().zip(&mut rates) {
                if matches!(transfer, Transfer::Load) {
                    engine.docker(["rmi", "-f", "big:1"]).await?;
                }
                let begin = Instant::now();
                transfer.run(way, &archive, &image).await.with_context(|| format!("{what}, {}", way.name))?;
                rates.push(SIZE as f64 / 1e6 / begin.elapsed().as_secs_f64());
            }
        }
        let names: Vec<&str> = ways.iter().map(|way| way.name).collect();
        super::tell_ratio(&format!("{what}, MB/s"), &mut rates, &names);
    }
    Ok(())
}
