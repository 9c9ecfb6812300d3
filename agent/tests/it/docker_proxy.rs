//! Calls of the Docker endpoint, and the bytes that an engine gets of them.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt as _;
use futures::stream::BoxStream;
use gantry_agent::docker::bollard::BollardEngine;
use gantry_agent::docker_proxy::{Kept, Said, exchange};
use gantry_api::agent_v1::{EngineCall, EnginePair, Policy};
use parking_lot::Mutex;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Status};

/// An engine that writes down every byte and answers each request but the one for its version with the same.
struct Engine {
    client: BollardEngine,
    kept: Kept,
    /// Of each connection.
    heard: Arc<Mutex<Vec<Vec<u8>>>>,
    /// Connections that have ended.
    ended: mpsc::UnboundedReceiver<()>,
    _directory: tempfile::TempDir,
}

impl Engine {
    fn start(api: &'static str, answer: &'static str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("docker.sock");
        let listener = UnixListener::bind(&path).unwrap();
        let heard: Arc<Mutex<Vec<Vec<u8>>>> = Arc::default();
        let (tell, ended) = mpsc::unbounded_channel();
        let all = heard.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (all, tell) = (all.clone(), tell.clone());
                tokio::spawn(async move {
                    let index = {
                        let mut all = all.lock();
                        all.push(Vec::new());
                        all.len() - 1
                    };
                    serve(stream, api, answer, |bytes| all.lock()[index].extend_from_slice(bytes)).await.ok();
                    tell.send(()).ok();
                });
            }
        });
        let engine = BollardEngine::new(&format!("unix://{}", path.display())).unwrap();
        Self { client: engine, kept: Kept::default(), heard, ended, _directory: directory }
    }

    async fn asked(&self, policy: Policy, call: EngineCall) -> Result<Said, Status> {
        self.sent(policy, call, futures::stream::empty().boxed()).await
    }

    async fn sent(
        &self,
        policy: Policy,
        call: EngineCall,
        sent: BoxStream<'static, io::Result<Bytes>>,
    ) -> Result<Said, Status> {
        exchange(&self.client, &self.kept, policy, call, sent).await
    }

    /// What it heard, but for questions for its version.
    fn heard(&self) -> Vec<String> {
        let all = self.heard.lock();
        let texts = all.iter().map(|bytes| String::from_utf8_lossy(bytes).into_owned());
        texts.filter(|text| !text.starts_with("GET /version ")).collect()
    }
}

async fn serve(
    mut stream: UnixStream,
    api: &str,
    answer: &str,
    mut hear: impl FnMut(&[u8]),
) -> io::Result<()> {
    let mut buffer = vec![0; 1 << 16];
    let count = stream.read(&mut buffer).await?;
    hear(&buffer[..count]);
    if buffer.starts_with(b"GET /version ") {
        let body = format!(r#"{{"ApiVersion":"{api}","Version":"1"}}"#);
        let head = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nApi-Version";
        let text = format!("{head}: {api}\r\nContent-Length: {}\r\n\r\n{body}", body.len());
        return stream.write_all(text.as_bytes()).await;
    }
    stream.write_all(answer.as_bytes()).await?;
    loop {
        let count = stream.read(&mut buffer).await?;
        if count == 0 {
            break;
        }
        hear(&buffer[..count]);
        if answer.contains(" 101 ") {
            stream.write_all(&buffer[..count]).await?;
        } else if answer == FORGETFUL {
            break;
        } else if buffer[..count].starts_with(b"GET ") {
            stream.write_all(answer.as_bytes()).await?;
        }
    }
    // As a command does that says goodbye once its input has ended.
    if answer.contains(" 101 ") {
        stream.write_all(b"bye").await?;
    }
    Ok(())
}

const OK: &str = "HTTP/1.1 200 OK\r\nApi-Version: 1.41\r\nContent-Type: application/json\r\nSet-Cookie: a\r\nContent-Length: 2\r\n\r\n[]";

/// Of an engine that closes a connection when it is asked for the second time.
const FORGETFUL: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}";

fn call(route: &str) -> EngineCall {
    EngineCall { route: route.to_owned(), ..EngineCall::default() }
}

fn pair(name: &str, value: &str) -> EnginePair {
    EnginePair { name: name.to_owned(), value: value.to_owned() }
}

async fn rest(said: Said) -> Vec<u8> {
    said.bytes.map(|bytes| bytes.unwrap().to_vec()).concat().await
}

#[tokio::test]
async fn a_call_is_written_anew_and_the_answer_is_told_as_it_comes() {
    let engine = Engine::start("1.41", OK);
    let mut list = call("ContainerList");
    list.version = 50;
    list.query = vec![pair("filters", r#"{"label":["a=b"]}"#), pair("all", "true")];

    let said = engine.asked(Policy::Observe, list).await.unwrap();

    assert_eq!(said.answer.status, 200);
    let names: Vec<&str> = said.answer.headers.iter().map(|pair| pair.name.as_str()).collect();
    assert_eq!(names, ["api-version", "content-type"]);
    assert_eq!(rest(said).await, b"[]");
    let heard = engine.heard().remove(0).replace(env!("CARGO_PKG_VERSION"), "VERSION");
    insta::assert_snapshot!(heard.replace('\r', ""), @r"
    GET /v1.41/containers/json?all=1&filters=%7B%22label%22%3A%7B%22a%3Db%22%3Atrue%7D%7D HTTP/1.1
    host: docker
    user-agent: gantry-agent/VERSION
    ");
}

#[tokio::test]
async fn a_body_is_read_by_its_type_here_too() {
    let engine = Engine::start("1.45", OK);
    let mut create = call("ContainerCreate");
    create.json = br#"{"Image":"a","HostConfig":{"privileged":true}}"#.as_slice().into();

    let refused = engine.asked(Policy::Full, create.clone()).await.err().unwrap();
    assert_eq!(refused.code(), Code::InvalidArgument);
    assert!(engine.heard().is_empty());
    create.json = br#" {"Image" : "a" , "Env":null} "#.as_slice().into();
    engine.asked(Policy::Full, create).await.unwrap();

    let heard = engine.heard().remove(0);
    assert!(heard.starts_with("POST /v1.45/containers/create HTTP/1.1\r\n"), "{heard}");
    assert!(heard.ends_with("content-length: 13\r\n\r\n{\"Image\":\"a\"}"), "{heard}");
}

/// The words of a compromised controller: every call there is, and some that are none.
#[tokio::test]
async fn t21_what_the_host_s_owner_does_not_allow_never_reaches_the_engine() {
    let engine = Engine::start("1.41", OK);
    let container = |route: &str| EngineCall { params: vec!["c1".to_owned()], ..call(route) };
    for (policy, call) in [
        (Policy::Observe, container("ContainerStart")),
        (Policy::Observe, container("ContainerKill")),
        (Policy::Observe, call("ImagePull")),
        (Policy::Observe, container("ContainerAttach")),
        (Policy::Observe, container("ContainerCopyOut")),
        (Policy::Operate, container("ContainerExec")),
        (Policy::Operate, container("ContainerDelete")),
        (Policy::Operate, call("ContainerPrune")),
        (Policy::Operate, call("ImageBuild")),
        (Policy::Operate, call("Session")),
        (Policy::Unspecified, call("ContainerList")),
    ] {
        let route = call.route.clone();
        let refused = engine.asked(policy, call).await.err().unwrap();
        assert_eq!(refused.code(), Code::PermissionDenied, "{route}");
    }
    for call in [
        call("PluginPull"),
        call("SwarmInit"),
        call("Grpc"),
        call(""),
        EngineCall { params: vec!["../../swarm/init".to_owned()], ..call("ContainerStart") },
        EngineCall { params: vec!["c1/x".to_owned()], ..call("ContainerStart") },
        EngineCall { params: vec![], ..call("ContainerStart") },
        EngineCall { query: vec![pair("checkpoint", "a")], ..container("ContainerStart") },
        EngineCall { query: vec![pair("all", "1\r\nX: y")], ..call("ContainerList") },
        EngineCall { headers: vec![pair("x-evil", "1")], ..call("ContainerList") },
        EngineCall { headers: vec![pair("x-registry-auth", "a\r\nb: c")], ..call("ImagePull") },
        EngineCall { version: 24, ..container("ContainerStart") },
    ] {
        let route = call.route.clone();
        let refused = engine.asked(Policy::Full, call).await.err().unwrap();
        assert_eq!(refused.code(), Code::InvalidArgument, "{route}");
    }
    assert!(engine.heard().is_empty(), "{:?}", engine.heard());
}

#[tokio::test]
async fn the_version_is_the_older_of_the_client_s_and_the_engine_s_and_never_before_1_41() {
    let engine = Engine::start("1.45", OK);
    for (wanted, spoken) in [(0, "/v1.45/"), (41, "/v1.41/"), (99, "/v1.45/")] {
        engine.asked(Policy::Full, EngineCall { version: wanted, ..call("ContainerList") }).await.unwrap();
        let heard = engine.heard().pop().unwrap();
        assert!(heard.starts_with(&format!("GET {spoken}containers/json ")), "{heard}");
    }
    engine.asked(Policy::Full, EngineCall { version: 43, ..call("SystemPing") }).await.unwrap();
    assert!(engine.heard().pop().unwrap().starts_with("GET /_ping HTTP/1.1"));

    let old = Engine::start("1.40", OK);
    let refused = old.asked(Policy::Full, call("ContainerList")).await.err().unwrap();
    assert_eq!(refused.code(), Code::FailedPrecondition);
    assert!(old.heard().is_empty());
}

#[tokio::test]
async fn a_redirect_is_not_followed() {
    let moved = "HTTP/1.1 301 Moved Permanently\r\nLocation: /v1.41/swarm/init\r\nContent-Length: 0\r\n\r\n";
    let engine = Engine::start("1.41", moved);

    let refused = engine.asked(Policy::Full, call("ContainerList")).await.err().unwrap();

    assert_eq!(refused.code(), Code::Unknown);
    assert_eq!(engine.heard().len(), 1);
}

fn typed(receiver: mpsc::Receiver<io::Result<Bytes>>) -> BoxStream<'static, io::Result<Bytes>> {
    ReceiverStream::new(receiver).boxed()
}

const UPGRADED: &str = "HTTP/1.1 101 UPGRADED\r\nContent-Type: application/vnd.docker.raw-stream\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n";

fn start() -> EngineCall {
    EngineCall {
        params: vec!["e1".to_owned()],
        json: br#"{"Tty":true}"#.as_slice().into(),
        upgrade: true,
        ..call("ExecStart")
    }
}

#[tokio::test]
async fn bytes_flow_both_ways_after_an_upgrade_and_each_way_ends_by_itself() {
    let engine = Engine::start("1.41", UPGRADED);
    let (keys, receiver) = mpsc::channel(8);
    let mut said = engine.sent(Policy::Full, start(), typed(receiver)).await.unwrap();
    assert_eq!(said.answer.status, 101);

    keys.send(Ok("GET /v1.41/swarm HTTP/1.1\r\n\r\n".into())).await.unwrap();
    let echoed = said.bytes.next().await.unwrap().unwrap();
    assert_eq!(echoed, "GET /v1.41/swarm HTTP/1.1\r\n\r\n");
    drop(keys);

    assert_eq!(rest(said).await, b"bye");
    assert_eq!(engine.heard().len(), 1, "one request on one connection, whatever is typed");
}

#[tokio::test]
async fn a_session_is_asked_for_as_what_it_is_with_everything_that_may_be_asked_in_it() {
    let engine = Engine::start(
        "1.41",
        "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n",
    );
    let (_frames, receiver) = mpsc::channel(8);
    let method = "x-docker-expose-session-grpc-method";
    let mut session = EngineCall { upgrade: true, ..call("Session") };
    session.headers = vec![
        pair("x-docker-expose-session-uuid", "r5bf2xq"),
        pair(method, "/moby.filesync.v1.FileSync/DiffCopy"),
        pair(method, "/moby.filesync.v1.Auth/Credentials"),
    ];

    let said = engine.sent(Policy::Full, session, typed(receiver)).await.unwrap();

    assert_eq!(said.answer.status, 101);
    let heard = engine.heard().remove(0).replace(env!("CARGO_PKG_VERSION"), "VERSION");
    insta::assert_snapshot!(heard.replace('\r', ""), @r"
    POST /v1.41/session HTTP/1.1
    host: docker
    user-agent: gantry-agent/VERSION
    x-docker-expose-session-uuid: r5bf2xq
    x-docker-expose-session-grpc-method: /moby.filesync.v1.FileSync/DiffCopy
    x-docker-expose-session-grpc-method: /moby.filesync.v1.Auth/Credentials
    connection: Upgrade
    upgrade: h2c
    ");
}

#[tokio::test]
async fn an_upgrade_that_nobody_asked_for_is_refused() {
    let engine = Engine::start("1.41", UPGRADED);

    for call in [
        call("ContainerList"),
        EngineCall { upgrade: true, ..call("ContainerList") },
        EngineCall { upgrade: false, ..start() },
    ] {
        let refused = engine.asked(Policy::Full, call).await.err().unwrap();
        assert_eq!(refused.code(), Code::Unknown);
    }
    assert!(
        engine.heard().iter().filter(|text| text.starts_with("GET")).all(|text| !text.contains("upgrade"))
    );
}

#[tokio::test]
async fn an_archive_that_breaks_off_is_not_taken_for_a_whole_one() {
    let mut engine = Engine::start("1.41", "");
    let (parts, receiver) = mpsc::channel(8);
    let heard = engine.heard.clone();
    let is_heard =
        move |what: &str| heard.lock().iter().any(|bytes| String::from_utf8_lossy(bytes).contains(what));
    let breaking = async {
        parts.send(Ok("first".into())).await.unwrap();
        while !is_heard("first") {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        parts.send(Err(io::Error::other("gone"))).await.unwrap();
    };

    let asking = engine.sent(Policy::Full, call("ImageLoad"), typed(receiver));
    let (broken, ()) = tokio::join!(asking, breaking);

    assert_eq!(broken.err().unwrap().code(), Code::Unknown);
    for _ in 0..2 {
        engine.ended.recv().await;
    }
    let heard = engine.heard().remove(0);
    assert!(heard.contains("5\r\nfirst\r\n") && !heard.contains("\r\n0\r\n"), "{heard}");
}

#[tokio::test]
async fn questions_share_a_connection_and_what_changes_something_has_its_own() {
    let engine = Engine::start("1.41", OK);
    for _ in 0..3 {
        let said = engine.asked(Policy::Full, call("ContainerList")).await.unwrap();
        assert_eq!(rest(said).await, b"[]");
    }
    let stop = EngineCall { params: vec!["c1".to_owned()], ..call("ContainerStop") };
    rest(engine.asked(Policy::Full, stop).await.unwrap()).await;

    let heard = engine.heard();
    let starts: Vec<usize> = heard.iter().map(|heard| heard.matches("HTTP/1.1").count()).collect();
    assert_eq!(starts, [3, 1]);
    assert!(heard[1].starts_with("POST"), "{heard:?}");
}

#[tokio::test]
async fn an_answer_that_is_not_read_to_its_end_is_not_taken_for_the_next_one() {
    let engine = Engine::start("1.41", OK);
    drop(engine.asked(Policy::Full, call("ContainerList")).await.unwrap());

    let said = engine.asked(Policy::Full, call("ContainerList")).await.unwrap();

    assert_eq!(rest(said).await, b"[]");
    assert_eq!(engine.heard().len(), 2);
}

#[tokio::test]
async fn a_question_on_a_connection_that_closes_is_asked_on_another() {
    let engine = Engine::start("1.41", FORGETFUL);
    for _ in 0..3 {
        let said = engine.asked(Policy::Full, call("ContainerList")).await.unwrap();
        assert_eq!(rest(said).await, b"{}");
    }

    let heard = engine.heard();
    let starts: Vec<usize> = heard.iter().map(|heard| heard.matches("HTTP/1.1").count()).collect();
    assert_eq!(starts, [2, 2, 1]);
}

#[tokio::test]
async fn dropping_the_answer_closes_the_connection() {
    let endless = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n";
    let mut engine = Engine::start("1.41", endless);
    let mut said = engine.asked(Policy::Full, call("SystemEvents")).await.unwrap();
    // The question for the version.
    engine.ended.recv().await;
    assert_eq!(said.bytes.next().await.unwrap().unwrap(), "a");

    drop(said);

    tokio::time::timeout(Duration::from_secs(20), engine.ended.recv()).await.expect("it is closed");
}
