//! Terminals that Docker's own clients open: raw bytes on a connection that is turned over.

use std::time::Duration;

use gantry_controller::auth::Caller;
use http::Method;
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::live_terminals::recorded;
use crate::world::api::Api;
use crate::world::containers::{Host, INSTANCES, Port};

const WORDS: &str = "gantry: nothing was typed or shown for thirty minutes, so the connection was closed";
const PATIENCE: Duration = Duration::from_secs(20);
const PROMPT: &str = "/ # ";

/// A connection that was turned over.
async fn raw(port: &Port, path: &str, body: &str) -> TcpStream {
    let mut connection = TcpStream::connect(port.address).await.unwrap();
    let request = format!(
        "POST {INSTANCES}/nuc-01/docker/v1.41/{path} HTTP/1.1\r\nhost: test\r\nconnection: Upgrade\r\nupgrade: tcp\r\n\
         content-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    );
    connection.write_all(request.as_bytes()).await.unwrap();
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(connection.read_u8().await.unwrap());
    }
    assert!(head.starts_with(b"HTTP/1.1 101 "), "{}", String::from_utf8_lossy(&head));
    connection
}

async fn shows(connection: &mut TcpStream, expected: &[u8]) {
    let mut seen = vec![0; expected.len()];
    tokio::time::timeout(PATIENCE, connection.read_exact(&mut seen)).await.unwrap().unwrap();
    assert_eq!(seen, expected);
}

async fn rest(connection: &mut TcpStream) -> Vec<u8> {
    let mut rest = Vec::new();
    tokio::time::timeout(PATIENCE, connection.read_to_end(&mut rest)).await.unwrap().unwrap();
    rest
}

async fn minutes(minutes: u64) {
    tokio::time::pause();
    tokio::time::advance(Duration::from_secs(60 * minutes)).await;
    tokio::time::resume();
    // Whoever was woken does what there is to do.
    tokio::time::sleep(Duration::from_millis(50)).await;
}

fn frame(stream: u8, text: &str) -> Vec<u8> {
    [&[stream, 0, 0, 0], u32::try_from(text.len()).unwrap().to_be_bytes().as_slice(), text.as_bytes()]
        .concat()
}

#[tokio::test]
async fn a_terminal_at_which_nobody_is_closes_after_half_an_hour_and_says_why() {
    let host = Host::of(Api::new().await).await;
    let port = host.serves(Caller::system("test")).await;
    host.agents.engines.answer("ExecStart", 200, PROMPT);
    let mut terminal = raw(&port, "exec/e1/start", r#"{"Tty":true}"#).await;
    shows(&mut terminal, PROMPT.as_bytes()).await;

    for _ in 0..2 {
        minutes(20).await;
        terminal.write_all(b"\r").await.unwrap();
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    minutes(31).await;

    assert_eq!(rest(&mut terminal).await, format!("\r\n{WORDS}\r\n").into_bytes());
    let close = &recorded(&host, "exec_start", 2).await[1];
    assert_eq!((&close["reason"], &close["outcome"]), (&json!("Idle"), &json!("success")));
    assert_eq!(close["parameters"]["bytesSent"], 2);
}

#[tokio::test]
async fn where_errors_are_told_apart_it_is_said_among_them() {
    let host = Host::of(Api::new().await).await;
    let port = host.serves(Caller::system("test")).await;
    let make = format!("{INSTANCES}/nuc-01/docker/v1.41/containers/web/exec");
    let made = json!({"Cmd": ["cat"], "AttachStdin": true, "AttachStdout": true});
    assert_eq!(host.api.post(&make, &made).await.code, 201);
    let frame_said = String::from_utf8(frame(1, "out")).unwrap();
    for (route, path) in [
        ("ExecStart", "exec/e1/start"),
        ("ContainerAttach", "containers/web/attach?stream=1&stdin=1&stdout=1"),
    ] {
        host.agents.engines.answer(route, 200, &frame_said);
        let body = if route == "ExecStart" { "{}" } else { "" };
        let mut process = raw(&port, path, body).await;
        shows(&mut process, frame_said.as_bytes()).await;

        minutes(31).await;

        assert_eq!(rest(&mut process).await, frame(2, &format!("\r\n{WORDS}\r\n")), "{route}");
    }
}

#[tokio::test]
async fn what_is_only_read_is_quiet_for_as_long_as_it_likes() {
    let host = Host::of(Api::new().await).await;
    let port = host.serves(Caller::system("test")).await;
    let make = format!("{INSTANCES}/nuc-01/docker/v1.41/containers/web/exec");
    let made = json!({"Cmd": ["backup"], "AttachStdout": true});
    assert_eq!(
        host.api
            .call(Method::POST, &make, &[("content-type", "application/json")], made.to_string())
            .await
            .code,
        201
    );
    let attach = "containers/web/attach?stream=1&stdin=0&stdout=1";
    for (route, path, body) in [("ExecStart", "exec/e1/start", "{}"), ("ContainerAttach", attach, "")] {
        host.agents.engines.answer(route, 200, PROMPT);
        let mut process = raw(&port, path, body).await;
        shows(&mut process, PROMPT.as_bytes()).await;

        minutes(31).await;

        let ended = tokio::time::timeout(Duration::from_millis(200), process.read_u8()).await;
        assert!(ended.is_err(), "{route}: {ended:?}");
    }
}
