//! Commands in containers and their first processes, over a WebSocket, as kubectl and browsers open it.

use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use futures::{SinkExt as _, StreamExt as _};
use gantry_controller::auth::Caller;
use gantry_controller::gateway::link::LinkError;
use http::HeaderValue;
use k8s_openapi::api::core::v1::Pod;
use kube::api::{AttachParams, TerminalSize};
use kube::client::ClientBuilder;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use tokio_tungstenite::tungstenite::{Error, Message};
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async};
use tower::util::MapRequestLayer;

use crate::world::api::Api;
use crate::world::containers::{Host, INSTANCES, Port};
use crate::world::people::{RBAC, started};

const PATIENCE: Duration = Duration::from_secs(20);
pub const V5: &str = "v5.channel.k8s.io";

pub type Socket = WebSocketStream<MaybeTlsStream<TcpStream>>;

async fn host() -> Host {
    Host::of(Api::new().await).await
}

/// Opens a WebSocket; the status of the answer where it is none.
pub async fn open(port: &Port, what: &str, headers: &[(&'static str, &str)]) -> Result<Socket, u16> {
    open_at(port, &format!("{INSTANCES}/nuc-01/containers/web/{what}"), headers).await
}

/// The same at any path.
pub async fn open_at(port: &Port, path: &str, headers: &[(&'static str, &str)]) -> Result<Socket, u16> {
    let mut request = format!("ws://{}{path}", port.address).into_client_request().unwrap();
    for (name, value) in headers {
        request.headers_mut().insert(*name, HeaderValue::from_str(value).unwrap());
    }
    match connect_async(request).await {
        Ok((socket, _)) => Ok(socket),
        Err(Error::Http(response)) => Err(response.status().as_u16()),
        Err(error) => panic!("{error}"),
    }
}

pub async fn opened(port: &Port, what: &str, protocol: &str) -> Socket {
    open(port, what, &[("sec-websocket-protocol", protocol)]).await.expect("it opens")
}

pub async fn next(socket: &mut Socket) -> Option<Message> {
    loop {
        match tokio::time::timeout(PATIENCE, socket.next()).await.expect("something in time") {
            Some(Ok(Message::Ping(_) | Message::Pong(_))) => {}
            Some(Ok(message)) => return Some(message),
            Some(Err(_)) | None => return None,
        }
    }
}

/// What comes until the end on each channel: 1, 2, and the status on 3.
pub async fn rest(socket: &mut Socket) -> (Vec<u8>, Vec<u8>, Value) {
    let (mut out, mut errors, mut status) = (Vec::new(), Vec::new(), Value::Null);
    loop {
        match next(socket).await {
            Some(Message::Binary(message)) => match message[0] {
                1 => out.extend_from_slice(&message[1..]),
                2 => errors.extend_from_slice(&message[1..]),
                3 => status = serde_json::from_slice(&message[1..]).unwrap(),
                other => panic!("channel {other}"),
            },
            Some(Message::Close(_)) => {}
            Some(other) => panic!("{other:?}"),
            None => return (out, errors, status),
        }
    }
}

pub async fn says(socket: &mut Socket, channel: u8, data: &[u8]) {
    let message = [&[channel][..], data].concat();
    socket.send(Message::Binary(message.into())).await.unwrap();
}

/// What is recorded of that action, without times.
pub(crate) async fn recorded(host: &Host, action: &str, count: usize) -> Vec<Value> {
    let path = format!("/apis/audit.gantry.dev/v1alpha1/auditevents?fieldSelector=action={action}");
    loop {
        let answer = host.api.get(&path).await;
        let events = answer.body["items"].as_array().unwrap().clone();
        if events.len() >= count {
            return events.into_iter().rev().collect();
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test]
async fn an_exec_over_version_5_has_input_output_resize_half_close_and_exit_code() {
    let host = host().await;
    let port = host.serves(Caller::system("test")).await;
    let query = "exec?command=cat&command=-u&stdin=true&stdout=true&stderr=true&tty=false";
    let mut socket = opened(&port, query, "v4.channel.k8s.io, v5.channel.k8s.io").await;
    // That it has begun.
    assert_eq!(next(&mut socket).await, Some(Message::Binary(Bytes::from_static(b"\x01"))));

    says(&mut socket, 4, br#"{"Width":132,"Height":50}"#).await;
    says(&mut socket, 0, b"hello ").await;
    says(&mut socket, 0, &vec![b'x'; 32 << 10]).await;
    says(&mut socket, 255, &[0]).await;

    let (out, errors, status) = rest(&mut socket).await;
    assert_eq!(out.len(), 6 + (32 << 10));
    assert!(out.starts_with(b"hello x"));
    assert_eq!(errors, b"132x50\n");
    assert_eq!(status, json!({"metadata": {}, "status": "Success"}));
    host.is_left_alone().await;
    let events = recorded(&host, "container_exec", 2).await;
    let [open, close] = events.as_slice() else { panic!("{events:?}") };
    assert_eq!(open["parameters"], json!({"phase": "open", "container": "web", "command": ["cat", "-u"]}));
    assert_eq!(
        close["parameters"],
        json!({"phase": "close", "container": "web", "command": ["cat", "-u"], "containerID": "id-web", "containerName": "web",
            "bytesIn": out.len(), "bytesOut": out.len() + errors.len(), "exitCode": 0})
    );
    assert_eq!(
        (&close["outcome"], &close["reason"], &close["verb"]),
        (&json!("success"), &json!("Complete"), &json!("create"))
    );
    assert!(!close.to_string().contains("hello"), "what is typed is not recorded");
}

#[tokio::test]
async fn an_exit_code_other_than_0_is_a_status_that_says_so() {
    let host = host().await;
    let port = host.serves(Caller::system("test")).await;
    for protocol in ["v4.channel.k8s.io", V5] {
        let mut socket = opened(&port, "exec?command=exit&command=7&stdout=true", protocol).await;

        let status = rest(&mut socket).await.2;

        assert_eq!(status["reason"], "NonZeroExitCode");
        assert_eq!(status["details"]["causes"], json!([{"reason": "ExitCode", "message": "7"}]));
    }
}

#[tokio::test]
async fn version_4_closes_no_input() {
    let host = host().await;
    let port = host.serves(Caller::system("test")).await;
    let mut socket = opened(&port, "attach?stdin=true&stdout=true", "v4.channel.k8s.io").await;
    next(&mut socket).await;

    says(&mut socket, 255, &[0]).await;
    says(&mut socket, 0, b"still there").await;

    assert_eq!(next(&mut socket).await, Some(Message::Binary(Bytes::from_static(b"\x01still there"))));
    drop(socket);
    host.is_left_alone().await;
    let close = &recorded(&host, "container_attach", 2).await[1];
    assert_eq!((&close["reason"], &close["parameters"]["bytesIn"]), (&json!("ClientLeft"), &json!(11)));
}

#[tokio::test]
async fn what_the_agent_refuses_and_that_nothing_was_said_is_told_as_a_status() {
    let host = host().await;
    let port = host.serves(Caller::system("test")).await;

    let idle = rest(&mut opened(&port, "exec?command=rest&stdout=1", V5).await).await.2;
    let message = "container `web` has no shell".to_owned();
    *host.looks().refusal.lock() =
        Some(LinkError::Refused { code: tonic::Code::FailedPrecondition, message });
    let refused = rest(&mut opened(&port, "exec?stdout=1", V5).await).await.2;

    assert_eq!((&idle["status"], &idle["reason"]), (&json!("Failure"), &json!("Timeout")));
    assert!(idle["message"].as_str().unwrap().contains("thirty minutes"), "{idle}");
    assert_eq!(
        (&refused["message"], &refused["code"]),
        (&json!("container `web` has no shell"), &json!(409))
    );
    let events = recorded(&host, "container_exec", 4).await;
    assert_eq!(
        events.iter().map(|event| event["reason"].as_str().unwrap_or("-")).collect::<Vec<_>>(),
        ["-", "Idle", "-", "AgentFailed"]
    );
}

#[tokio::test]
async fn what_is_no_websocket_is_told_what_to_do() {
    let host = host().await;
    let path = format!("{INSTANCES}/nuc-01/containers/web/exec?command=ls&stdout=true");

    let get = host.api.get(&path).await.message();
    let spdy = host.api.post(&path, &json!({})).await.message();

    insta::assert_snapshot!(get, @"400 this needs a WebSocket that speaks v5.channel.k8s.io or v4.channel.k8s.io: use kubectl 1.31 or newer, or 1.29 and 1.30 with KUBECTL_REMOTE_COMMAND_WEBSOCKETS=true");
    assert_eq!(spdy, get);
    let none = host.api.get(&format!("{INSTANCES}/nuc-01/containers/web/exec?command=ls")).await.message();
    assert_eq!(none, "400 you must specify at least 1 of stdin, stdout, stderr");
    let tried = host.api.get(&format!("{path}&dryRun=All")).await;
    assert_eq!(tried.code, 400);
    let port = host.serves(Caller::system("test")).await;
    assert_eq!(open(&port, "exec?command=ls&stdout=1", &[]).await.err(), Some(400));
    let other = [("sec-websocket-protocol", "chat")];
    assert_eq!(open(&port, "exec?command=ls&stdout=1", &other).await.err(), Some(400));
    assert_eq!(host.looks().sent.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn t15_a_page_of_another_origin_opens_no_terminal() {
    let host = host().await;
    let port = host.serves(Caller::system("test")).await;
    let own = format!("http://{}", port.address);
    for (origin, expected) in [
        ("https://evil.example", Some(403)),
        ("null", Some(403)),
        ("http://127.0.0.1", Some(403)),
        (own.as_str(), None),
    ] {
        for what in ["exec?command=cat&stdin=1&stdout=1", "attach?stdin=1&stdout=1"] {
            let opened = open(&port, what, &[("sec-websocket-protocol", V5), ("origin", origin)]).await;
            assert_eq!(opened.err(), expected, "{origin}");
        }
    }
}

#[tokio::test]
async fn t13a_get_list_and_watch_on_everything_open_no_terminal() {
    let host = Host::of(started().await).await;
    let rules = json!([{"apiGroups": ["*"], "resources": ["*"], "verbs": ["get", "list", "watch"]}]);
    host.api.make_role("reader", rules).await;
    host.api.bind("reader", "rita").await;
    host.api.bind("gantry-operator", "otto").await;
    for name in ["rita", "otto"] {
        let port = host.serves(Caller::authenticated(name, [])).await;
        for what in ["exec?command=cat&stdin=1&stdout=1", "attach?stdin=1&stdout=1"] {
            let opened = open(&port, what, &[("sec-websocket-protocol", V5)]).await;
            assert_eq!(opened.err(), Some(403), "{name} {what}");
        }
    }
    assert_eq!(host.looks().sent.load(Ordering::SeqCst), 0);
    let denied = &recorded(&host, "container_exec", 2).await[0];
    assert_eq!((&denied["outcome"], &denied["user"]), (&json!("denied"), &json!("rita")));
    assert_eq!(denied["parameters"], json!({"container": "web"}));
}

/// t13, t14: whoever asks, and by whatever the container is called.
#[tokio::test]
async fn t14_a_container_that_a_policy_closes_is_entered_by_no_name_of_it() {
    let host = Host::of(started().await).await;
    let policy = json!({"metadata": {"name": "only-web"}, "spec": {"match": {"actions": ["Exec", "Attach"]},
        "rules": [{"name": "r", "expression": "request.target.name in ['web']"}]}});
    let policies = "/apis/gantry.dev/v1alpha1/namespaces/default/policies";
    assert_eq!(host.api.post(policies, &policy).await.code, 201);
    let root = host.api.person("root", &["system:masters"]);
    let at = |called: &str, what: &str| {
        format!("{INSTANCES}/nuc-01/containers/{called}/{what}?command=ls&stdout=1")
    };

    for called in ["db", "id-db", "id-d", "WEB", "web-1", "id-web", "%2Fweb"] {
        for what in ["exec", "attach"] {
            let refused = root.get(&at(called, what)).await;
            assert_eq!(refused.code, 403, "{called} {refused:?}");
            assert!(refused.message().contains("policy/only-web"), "{refused:?}");
        }
    }
    // It is let through, to where a WebSocket is missing.
    assert_eq!(
        (root.get(&at("web", "exec")).await.code, root.get(&at("web", "attach")).await.code),
        (400, 400)
    );
    assert_eq!(host.looks().sent.load(Ordering::SeqCst), 0);
    let denied = &recorded(&host, "container_exec", 7).await[0];
    assert_eq!(denied["outcome"], "denied");
    assert_eq!(denied["parameters"]["policies"][0]["policy"], "policy/only-web");
}

#[tokio::test]
async fn t11_a_terminal_closes_soon_after_the_right_to_it_is_lost() {
    let host = Host::of(started().await).await;
    host.api.bind("gantry-admin", "ada").await;
    let port = host.serves(Caller::authenticated("ada", [])).await;
    let mut socket = opened(&port, "exec?command=cat&stdin=1&stdout=1", V5).await;
    next(&mut socket).await;

    let removed = host.api.delete(&format!("{RBAC}/namespaces/default/rolebindings/gantry-admin-ada")).await;
    assert_eq!(removed.code, 200);

    let status = rest(&mut socket).await.2;
    assert_eq!(status["reason"], "Forbidden");
    host.is_left_alone().await;
    assert_eq!(recorded(&host, "container_exec", 2).await[1]["outcome"], "denied");
}

#[tokio::test]
async fn t25_of_what_a_client_does_not_read_little_is_held() {
    let host = host().await;
    let port = host.serves(Caller::system("test")).await;
    let socket = opened(&port, "exec?command=yes&stdout=1", V5).await;

    // Until neither the client's machine nor ours takes any more.
    let mut before = u64::MAX;
    let sent = loop {
        tokio::time::sleep(Duration::from_millis(300)).await;
        let now = host.looks().sent.load(Ordering::SeqCst);
        if now == before {
            break now;
        }
        before = now;
    };
    // Sixteen of 64 KiB, beside what sockets hold.
    assert!((16..400).contains(&sent), "{sent}");

    drop(socket);
    host.is_left_alone().await;
}

#[tokio::test]
async fn t25_a_process_that_does_not_read_keeps_its_client_waiting() {
    let host = host().await;
    let port = host.serves(Caller::system("test")).await;
    let mut socket = opened(&port, "exec?command=deaf&stdin=1&stdout=1", V5).await;
    next(&mut socket).await;

    let mut refused = 0;
    while refused < 3 {
        let message = Message::Binary(Bytes::from(vec![0; 32 << 10]));
        let sent = tokio::time::timeout(Duration::from_millis(200), socket.send(message)).await;
        refused += u32::from(sent.is_err());
    }

    // Pieces of 8 KiB.
    assert_eq!(host.looks().sent.load(Ordering::SeqCst), 32);
    drop(socket);
    host.api.stopping.cancel();
    host.is_left_alone().await;
}

#[tokio::test]
async fn t25_a_message_that_is_too_long_closes_the_terminal() {
    let host = host().await;
    let port = host.serves(Caller::system("test")).await;
    let mut socket = opened(&port, "exec?command=cat&stdin=1&stdout=1", V5).await;
    next(&mut socket).await;

    says(&mut socket, 0, &vec![b'x'; 33 << 10]).await;

    rest(&mut socket).await;
    host.is_left_alone().await;
    assert_eq!(recorded(&host, "container_exec", 2).await[1]["reason"], "Misspoken");
}

async fn ten_seconds() {
    tokio::time::pause();
    tokio::time::advance(Duration::from_secs(10)).await;
    tokio::time::resume();
    // Whoever was woken does what there is to do.
    tokio::time::sleep(Duration::from_millis(30)).await;
}

#[tokio::test]
async fn t25_a_client_is_asked_whether_it_is_there_and_let_go_of_if_it_does_not_say() {
    let host = host().await;
    let port = host.serves(Caller::system("test")).await;
    let mut socket = opened(&port, "exec?command=cat&stdin=1&stdout=1", V5).await;
    next(&mut socket).await;

    for _ in 0..5 {
        ten_seconds().await;
        while !matches!(socket.next().await, Some(Ok(Message::Ping(_)))) {}
        // The answer goes out with that.
        socket.flush().await.unwrap();
    }
    says(&mut socket, 0, b"here").await;
    assert_eq!(next(&mut socket).await, Some(Message::Binary(Bytes::from_static(b"\x01here"))));

    // What is not read is not answered.
    for _ in 0..5 {
        ten_seconds().await;
    }
    host.is_left_alone().await;
    assert_eq!(recorded(&host, "container_exec", 2).await[1]["reason"], "ClientLeft");
}

/// kube-rs knows execs of Pods alone; what it asks for is led to our paths.
pub(crate) fn pods(port: &Port) -> kube::Api<Pod> {
    let config = kube::Config::new(format!("http://{}", port.address).parse().unwrap());
    let lead = MapRequestLayer::new(|mut request: http::Request<kube::client::Body>| {
        let uri = request.uri().to_string();
        let uri = uri
            .replace("/api/v1/namespaces/default/pods/web/", &format!("{INSTANCES}/nuc-01/containers/web/"));
        *request.uri_mut() = uri.replace("/log?", "/logs?").parse().unwrap();
        request
    });
    let client = ClientBuilder::try_from(config).unwrap().with_layer(&lead).build();
    kube::Api::default_namespaced(client)
}

#[tokio::test]
async fn kube_rs_runs_commands_attaches_and_reads_logs() {
    let host = host().await;
    host.looks().writes(1, "one\n");
    let port = host.serves(Caller::system("test")).await;
    let pods = pods(&port);

    let params = AttachParams::default().stdin(true).stdout(true).stderr(true);
    let mut process = pods.exec("web", ["cat"], &params).await.unwrap();
    let (mut stdin, mut stdout) = (process.stdin().unwrap(), process.stdout().unwrap());
    let status = process.take_status().unwrap();
    stdin.write_all(b"from kube-rs").await.unwrap();
    let mut seen = vec![0; 12];
    tokio::time::timeout(PATIENCE, stdout.read_exact(&mut seen)).await.unwrap().unwrap();
    assert_eq!(seen, b"from kube-rs");
    stdin.shutdown().await.unwrap();
    drop(stdin);
    let status = tokio::time::timeout(PATIENCE, status).await.unwrap().unwrap();
    assert_eq!(status.status.as_deref(), Some("Success"));

    let mut failed = pods.exec("web", ["exit", "3"], &AttachParams::default().stderr(false)).await.unwrap();
    let status = tokio::time::timeout(PATIENCE, failed.take_status().unwrap()).await.unwrap().unwrap();
    assert_eq!(status.reason.as_deref(), Some("NonZeroExitCode"));

    let mut attached = pods.attach("web", &AttachParams::interactive_tty()).await.unwrap();
    let mut sizes = attached.terminal_size().unwrap();
    sizes.send(TerminalSize { width: 80, height: 24 }).await.unwrap();
    attached.stdin().unwrap().write_all(b"q").await.unwrap();
    let mut seen = [0];
    attached.stdout().unwrap().read_exact(&mut seen).await.unwrap();
    assert_eq!(&seen, b"q");

    assert_eq!(pods.logs("web", &kube::api::LogParams::default()).await.unwrap(), "one\n");
}
