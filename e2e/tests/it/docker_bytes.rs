//! t12 through the whole chain, down to the bytes on the engine's socket.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use gantry_e2e::agent::Agent;
use gantry_e2e::controller::Controller;
use gantry_e2e::fake_engine::FakeEngine;
use gantry_e2e::world::World;
use parking_lot::Mutex;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, copy};
use tokio::net::{TcpStream, UnixListener, UnixStream};

const DOCKER: &str = "/apis/gantry.dev/v1alpha1/namespaces/default/dockerinstances/nuc-01/docker";

/// Writes down every byte that goes to an engine.
fn record(socket: &Path, engine: &Path) -> anyhow::Result<Arc<Mutex<Vec<u8>>>> {
    let listener = UnixListener::bind(socket)?;
    let heard: Arc<Mutex<Vec<u8>>> = Arc::default();
    let (all, engine) = (heard.clone(), engine.to_owned());
    tokio::spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            let (all, engine) = (all.clone(), engine.clone());
            tokio::spawn(async move {
                let Ok(upstream) = UnixStream::connect(engine).await else { return };
                let (mut from_client, mut to_client) = client.into_split();
                let (mut from_engine, mut to_engine) = upstream.into_split();
                let back = tokio::spawn(async move { copy(&mut from_engine, &mut to_client).await });
                let mut buffer = vec![0; 1 << 16];
                while let Ok(count @ 1..) = from_client.read(&mut buffer).await {
                    all.lock().extend_from_slice(&buffer[..count]);
                    if to_engine.write_all(&buffer[..count]).await.is_err() {
                        break;
                    }
                }
                drop(to_engine);
                back.await.ok();
            });
        }
    });
    Ok(heard)
}

/// Bytes to the controller as they are, and what it answers within a second of silence.
async fn raw(controller: &Controller, bytes: &[u8]) -> anyhow::Result<String> {
    let stream = TcpStream::connect(controller.address()).await?;
    let name = ServerName::try_from("127.0.0.1")?.to_owned();
    let mut stream = controller.tls().await?.connect(name, stream).await?;
    stream.write_all(bytes).await?;
    let mut answer = Vec::new();
    let mut buffer = vec![0; 1 << 16];
    while let Ok(Ok(count @ 1..)) =
        tokio::time::timeout(Duration::from_secs(1), stream.read(&mut buffer)).await
    {
        answer.extend_from_slice(&buffer[..count]);
    }
    Ok(String::from_utf8_lossy(&answer).into_owned())
}

#[tokio::test]
async fn t12_no_bytes_of_a_viewer_become_another_request_at_the_engine() -> anyhow::Result<()> {
    let world = World::new().await?;
    let _engine = FakeEngine::start(&world.path("real.sock"), "1.41")?;
    let heard = record(&world.path("docker.sock"), &world.path("real.sock"))?;
    let host = format!("unix://{}", world.path("docker.sock").display());
    let settings = world.agent_settings("nuc-01", &host).await?;
    let _agent = Agent::start(&world.path("agent"), settings)?;
    world.becomes_healthy("nuc-01", "Online").await?;
    let kubectl = world.kubectl();
    kubectl.run(["create", "serviceaccount", "vera", "-n", "default"]).await?;
    let viewer = "--serviceaccount=default:vera";
    kubectl
        .run(["create", "rolebinding", "vera", "-n", "default", "--clusterrole=gantry-viewer", viewer])
        .await?;
    let token = kubectl.run(["create", "token", "vera", "-n", "default"]).await?;
    let auth = format!("Host: gantry\r\nAuthorization: Bearer {}\r\n", token.trim());

    // First that the way is open at all, so that silence means something.
    let marker = format!(
        "GET {DOCKER}/v1.41/containers/json?filters=%7B%22label%22%3A%5B%22marker%22%5D%7D HTTP/1.1\r\n{auth}\r\n"
    );
    let answer = raw(&world.controller, marker.as_bytes()).await?;
    ensure!(answer.starts_with("HTTP/1.1 200 ") && answer.contains("api-version: 1.41"), "{answer}");
    ensure!(String::from_utf8_lossy(&heard.lock()).contains("marker"), "the engine heard nothing");

    let evil = "POST /v1.41/containers/evil/start HTTP/1.1\r\nHost: docker\r\n\r\n";
    let list = format!("{DOCKER}/v1.41/containers/json");
    let start = format!("{DOCKER}/v1.41/containers/evil/start");
    let chunk = format!("{:x}\r\n{evil}\r\n0\r\n\r\n", evil.len());
    let mut tried = 0;
    for request in [
        // A body on what has none, and what comes after it.
        format!("GET {list} HTTP/1.1\r\n{auth}Content-Length: {}\r\n\r\n{evil}", evil.len()),
        format!("GET {list} HTTP/1.1\r\n{auth}Content-Length: 0\r\n\r\n{evil}"),
        format!("GET {list} HTTP/1.1\r\n{auth}Transfer-Encoding: chunked\r\n\r\n{chunk}"),
        format!(
            "GET {list} HTTP/1.1\r\n{auth}Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n{chunk}"
        ),
        format!(
            "GET {list} HTTP/1.1\r\n{auth}Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n{chunk}"
        ),
        format!("GET {list} HTTP/1.1\r\n{auth}Content-Length: 3\r\nContent-Length: 5\r\n\r\nevil!"),
        format!("GET {list} HTTP/1.1\r\n{auth}Transfer-Encoding: xchunked\r\n\r\n{chunk}"),
        // Upgrades where there are none, and what comes after them.
        format!("GET {list} HTTP/1.1\r\n{auth}Connection: Upgrade\r\nUpgrade: tcp\r\n\r\n{evil}"),
        format!(
            "GET {list} HTTP/1.1\r\n{auth}Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n\r\n{evil}"
        ),
        format!(
            "POST {DOCKER}/v1.41/containers/evil/attach?stream=1&stdin=1 HTTP/1.1\r\n{auth}Connection: Upgrade\r\nUpgrade: tcp\r\n\r\n{evil}"
        ),
        format!(
            "GET {DOCKER}/v1.41/containers/evil/attach/ws HTTP/1.1\r\n{auth}Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n{evil}"
        ),
        // Headers in two lines, and lines that end in one letter.
        format!("GET {list} HTTP/1.1\r\n{auth}X-A: b\r\n evil: c\r\n\r\n"),
        format!("GET {list} HTTP/1.1\r\n{auth}X-A: b\n\r\n{evil}"),
        format!("GET {list} HTTP/1.1\r\n{auth}Content-Length : 5\r\n\r\nevil!"),
        // Other forms of a target.
        format!("POST http://docker{start} HTTP/1.1\r\n{auth}\r\n"),
        format!("POST //docker{start} HTTP/1.1\r\n{auth}\r\n"),
        format!("CONNECT docker:80 HTTP/1.1\r\n{auth}\r\n{evil}"),
        format!("GET {list}#/../evil HTTP/1.1\r\n{auth}\r\n"),
        format!("GET {list}?a=%0d%0a%0d%0aPOST%20/evil HTTP/1.1\r\n{auth}\r\n"),
        format!("GET {DOCKER}/v1.41/containers/evil%0d%0aX:y/json HTTP/1.1\r\n{auth}\r\n"),
        format!("GET {DOCKER}/v1.41/containers/..%2fevil/json HTTP/1.1\r\n{auth}\r\n"),
        format!("GET {DOCKER}/../../../evil HTTP/1.1\r\n{auth}\r\n"),
        // The plain thing, which the right is missing for, and as other methods.
        format!("POST {start} HTTP/1.1\r\n{auth}\r\n"),
        format!("POST {start} HTTP/1.0\r\n{auth}\r\n"),
        format!("GET {start} HTTP/1.1\r\n{auth}X-HTTP-Method-Override: POST\r\n\r\n"),
        format!("OPTIONS {start} HTTP/1.1\r\n{auth}\r\n"),
        format!("HEAD {start} HTTP/1.1\r\n{auth}\r\n"),
        format!("TRACE {start} HTTP/1.1\r\n{auth}\r\n"),
        format!(
            "POST {DOCKER}/v1.24/containers/evil/start HTTP/1.1\r\n{auth}Content-Type: application/json\r\nContent-Length: 2\r\n\r\n{{}}"
        ),
    ] {
        let answer = raw(&world.controller, request.as_bytes()).await.with_context(|| request.clone())?;
        tried += 1;
        let heard = String::from_utf8_lossy(&heard.lock()).into_owned();
        ensure!(
            !heard.contains("evil") && !heard.contains("POST"),
            "{request}\n{answer}\nreached the engine:\n{heard}"
        );
    }

    ensure!(tried >= 29);
    // Each request that was understood came on a connection of its own, in one spelling.
    let heard = String::from_utf8_lossy(&heard.lock()).into_owned();
    ensure!(!heard.to_ascii_lowercase().contains("upgrade: tcp"), "{heard}");
    Ok(())
}
