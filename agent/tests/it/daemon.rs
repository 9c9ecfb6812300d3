//! A Docker daemon that counts what it does, keeps no promise it was not told to keep, and listens on a Unix socket.

use std::collections::{BTreeMap, VecDeque};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use bytes::Bytes;
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full, StreamBody, combinators::BoxBody};
use hyper::body::{Frame, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::net::UnixListener;
use tokio::task::JoinSet;

/// What goes wrong with one call that changes something.
#[derive(Clone, Debug)]
pub(crate) enum Fault {
    /// Nothing is done and the connection is closed.
    Cut,
    /// It is done and the connection is closed.
    LoseAnswer,
    /// The connection is closed, and so long afterwards it is done: Docker goes on after its client has left.
    CutThenDo(Duration),
    /// Nothing is done and there is never an answer.
    Hang,
    /// It is done and there is never an answer.
    HangAfter,
    /// Nothing is done, and this is the answer.
    Refuse(u16, &'static str),
    /// It is done, and this is the answer.
    RefuseAfter(u16, &'static str),
}

#[derive(Clone, Debug, Default)]
pub(crate) struct Container {
    pub(crate) name: String,
    pub(crate) state: String,
    pub(crate) pid: i64,
    pub(crate) started: u64,
    pub(crate) finished: u64,
    pub(crate) auto_remove: bool,
    /// Ends as soon as it was started.
    pub(crate) one_shot: bool,
    /// Goes on after any signal but KILL.
    pub(crate) is_deaf: bool,
}

#[derive(Default)]
pub(crate) struct State {
    pub(crate) containers: BTreeMap<String, Container>,
    /// Reference to id.
    pub(crate) images: BTreeMap<String, String>,
    /// Reference to what the registry has.
    pub(crate) registry: BTreeMap<String, String>,
    /// Digests the registry still has though no reference means them.
    pub(crate) has: Vec<String>,
    /// `start:c1`, in order.
    pub(crate) effects: Vec<String>,
    /// `POST /containers/…/start`, in order, without reads.
    pub(crate) calls: Vec<String>,
    /// What each request about a registry carried in X-Registry-Auth, in order; without fields that are not given.
    pub(crate) shown: Vec<Option<Value>>,
    pub(crate) faults: VecDeque<Fault>,
    pub(crate) api_version: String,
    pub(crate) bridge: String,
    pub(crate) engine_id: String,
    /// `GET /info` and `GET /version` are never answered.
    pub(crate) info_hangs: bool,
    /// `GET /version` is answered with 500.
    pub(crate) version_fails: bool,
    /// Every look at an image is answered with 500.
    pub(crate) images_fail: bool,
    /// Lines a pull says before it is done; it waits for `release` before the last.
    pub(crate) pull_lines: Vec<String>,
    pub(crate) pull_is_held: bool,
    pub(crate) connections: u64,
    pub(crate) changes_in_one_connection: u64,
    tick: u64,
}

pub(crate) struct Daemon {
    pub(crate) state: Arc<Mutex<State>>,
    path: PathBuf,
    _directory: tempfile::TempDir,
    serving: Option<JoinSet<()>>,
}

pub(crate) const C1: &str = "1111111111111111111111111111111111111111111111111111111111111111";
pub(crate) const IMAGE: &str = "sha256:2222222222222222222222222222222222222222222222222222222222222222";
pub(crate) const DIGEST: &str = "sha256:3333333333333333333333333333333333333333333333333333333333333333";

type Body = BoxBody<Bytes, std::io::Error>;

impl Daemon {
    /// One container `web` (id `C1`) in this state, and an image `app:1`.
    pub(crate) fn with_container(state: &str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let running = matches!(state, "running" | "paused");
        let container = Container {
            name: "web".to_owned(),
            state: state.to_owned(),
            pid: if running { 100 } else { 0 },
            started: u64::from(state != "created"),
            ..Container::default()
        };
        let inner = State {
            containers: BTreeMap::from([(C1.to_owned(), container)]),
            images: BTreeMap::from([("app:1".to_owned(), IMAGE.to_owned())]),
            registry: BTreeMap::from([("app:2".to_owned(), DIGEST.to_owned())]),
            api_version: "1.41".to_owned(),
            bridge: "run-1".to_owned(),
            engine_id: "ENGINE".to_owned(),
            tick: 10,
            ..State::default()
        };
        let mut daemon = Self {
            state: Arc::new(Mutex::new(inner)),
            path: directory.path().join("d.sock"),
            _directory: directory,
            serving: None,
        };
        daemon.start();
        daemon
    }

    pub(crate) fn host(&self) -> String {
        format!("unix://{}", self.path.display())
    }

    pub(crate) fn start(&mut self) {
        drop(std::fs::remove_file(&self.path));
        let listener = UnixListener::bind(&self.path).unwrap();
        let state = self.state.clone();
        let mut serving = JoinSet::new();
        serving.spawn(async move {
            let mut connections = JoinSet::new();
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let state = state.clone();
                state.lock().connections += 1;
                let changes = Arc::new(Mutex::new(0));
                let service = service_fn(move |request: Request<Incoming>| {
                    serve(state.clone(), changes.clone(), request)
                });
                connections.spawn(async move {
                    // A fault ends the connection with an error; that is its purpose.
                    drop(
                        hyper::server::conn::http1::Builder::new()
                            .serve_connection(TokioIo::new(stream), service)
                            .await,
                    );
                });
            }
        });
        self.serving = Some(serving);
    }

    /// Ends the daemon and everything it was doing.
    pub(crate) async fn stop(&mut self) {
        if let Some(mut serving) = self.serving.take() {
            serving.shutdown().await;
        }
        drop(std::fs::remove_file(&self.path));
    }

    pub(crate) fn next_call(&self, fault: Fault) {
        self.state.lock().faults.push_back(fault);
    }

    pub(crate) fn change(&self, change: impl FnOnce(&mut Container)) {
        change(self.state.lock().containers.get_mut(C1).unwrap());
    }

    pub(crate) fn effects(&self) -> Vec<String> {
        self.state.lock().effects.clone()
    }

    pub(crate) fn calls(&self) -> Vec<String> {
        self.state.lock().calls.clone()
    }
}

fn answer(state: &State, status: u16, body: impl Into<Bytes>) -> Response<Body> {
    Response::builder()
        .status(status)
        .header("Api-Version", &state.api_version)
        .header("Content-Type", "application/json")
        .body(Full::new(body.into()).map_err(|never| match never {}).boxed())
        .unwrap()
}

fn message(state: &State, status: u16, message: &str) -> Response<Body> {
    answer(state, status, json!({ "message": message }).to_string())
}

async fn serve(
    shared: Arc<Mutex<State>>,
    changes: Arc<Mutex<u64>>,
    request: Request<Incoming>,
) -> Result<Response<Body>, std::io::Error> {
    let path = request.uri().path().to_owned();
    let query: BTreeMap<String, String> = request
        .uri()
        .query()
        .unwrap_or_default()
        .split('&')
        .filter_map(|pair| pair.split_once('='))
        .map(|(key, value)| (key.to_owned(), value.replace("%2F", "/").replace("%3A", ":")))
        .collect();
    if path == "/images/create" || path.starts_with("/distribution/") {
        shared.lock().shown.push(shown(&request));
    }
    if request.method() == Method::GET {
        if path == "/events" {
            let version = shared.lock().api_version.clone();
            let body = StreamBody::new(futures::stream::pending::<Result<Frame<Bytes>, std::io::Error>>());
            return Ok(Response::builder()
                .header("Api-Version", version)
                .body(BodyExt::boxed(body))
                .unwrap());
        }
        if matches!(path.as_str(), "/info" | "/version") && shared.lock().info_hangs {
            return std::future::pending().await;
        }
        let state = shared.lock();
        let fails = (path == "/version" && state.version_fails)
            || (path.starts_with("/images/") && state.images_fail);
        return Ok(if fails { message(&state, 500, "not now") } else { read(&state, &path) });
    }
    let fault = {
        let mut state = shared.lock();
        let mut here = changes.lock();
        *here += 1;
        state.changes_in_one_connection = state.changes_in_one_connection.max(*here);
        state.calls.push(format!("{} {path}", request.method()));
        state.faults.pop_front()
    };
    let act = |shared: &Mutex<State>| change(&mut shared.lock(), request.method(), &path, &query);
    match fault {
        Some(Fault::Cut) => Err(std::io::ErrorKind::ConnectionReset.into()),
        Some(Fault::Hang) => std::future::pending().await,
        Some(Fault::Refuse(status, text)) => Ok(message(&shared.lock(), status, text)),
        Some(Fault::CutThenDo(later)) => {
            let (method, shared) = (request.method().clone(), shared.clone());
            tokio::spawn(async move {
                tokio::time::sleep(later).await;
                change(&mut shared.lock(), &method, &path, &query);
            });
            Err(std::io::ErrorKind::ConnectionReset.into())
        }
        Some(Fault::LoseAnswer) => {
            act(&shared);
            Err(std::io::ErrorKind::ConnectionReset.into())
        }
        Some(Fault::HangAfter) => {
            act(&shared);
            std::future::pending().await
        }
        Some(Fault::RefuseAfter(status, text)) => {
            act(&shared);
            Ok(message(&shared.lock(), status, text))
        }
        None if path == "/images/create" => Ok(pull(shared, &query)),
        None => {
            let (status, text) = act(&shared);
            let state = shared.lock();
            Ok(match status {
                200 if path.starts_with("/images/") => answer(&state, 200, "[]"),
                200..=399 => answer(&state, status, ""),
                _ => message(&state, status, &text),
            })
        }
    }
}

/// As Docker reads it: base64 for URLs, of JSON.
fn shown(request: &Request<Incoming>) -> Option<Value> {
    let header = request.headers().get("x-registry-auth")?;
    let bytes = base64::engine::general_purpose::URL_SAFE.decode(header).expect("base64 for URLs");
    let mut shown: Value = serde_json::from_slice(&bytes).expect("JSON");
    shown.as_object_mut().expect("an object").retain(|_, value| !value.is_null());
    Some(shown)
}

/// Says its lines, waits while it is held, and only then has the image.
fn pull(shared: Arc<Mutex<State>>, query: &BTreeMap<String, String>) -> Response<Body> {
    let version = shared.lock().api_version.clone();
    let lines = shared.lock().pull_lines.clone();
    let query = query.clone();
    let said =
        futures::stream::iter(lines.into_iter().map(|line| Ok(Frame::data(Bytes::from(line + "\r\n")))));
    let done = futures::stream::once(async move {
        while shared.lock().pull_is_held {
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
        let (status, text) = change(&mut shared.lock(), &Method::POST, "/images/create", &query);
        let line = if status == 200 {
            json!({ "status": "Status: Downloaded newer image" })
        } else {
            json!({ "error": text, "errorDetail": { "message": text } })
        };
        Ok(Frame::data(Bytes::from(line.to_string() + "\r\n")))
    });
    let body = StreamBody::new(futures::StreamExt::chain(said, done));
    Response::builder().header("Api-Version", version).body(BodyExt::boxed(body)).unwrap()
}

fn read(state: &State, path: &str) -> Response<Body> {
    let parts: Vec<_> = path.trim_start_matches('/').split('/').collect();
    let found = match parts.as_slice() {
        ["version"] => Some(json!({ "Version": "20.10.24", "ApiVersion": state.api_version })),
        ["info"] => Some(json!({
            "ID": state.engine_id, "Containers": 1, "ContainersRunning": 1, "Images": 1, "Driver": "vfs", "NCPU": 2,
            "MemTotal": 1_073_741_824, "Name": "host", "OSType": "linux", "CgroupVersion": "2",
        })),
        ["networks"] => Some(json!([
            { "Name": "bridge", "Id": state.bridge, "Driver": "bridge" },
            { "Name": "none", "Id": "none-1", "Driver": "null" },
        ])),
        ["containers", name, "json"] => {
            let prefixed: Vec<_> = state.containers.keys().filter(|id| id.starts_with(name)).collect();
            if prefixed.len() > 1 {
                return message(state, 404, &format!("multiple IDs found with provided prefix: {name}"));
            }
            state
                .containers
                .iter()
                .find(|(id, container)| id.starts_with(name) || container.name == *name)
                .map(|(id, container)| show(id, container))
        }
        ["distribution", rest @ .., "json"] => state
            .registry
            .get(&rest.join("/"))
            .map(|digest| json!({ "Descriptor": { "digest": digest }, "Platforms": [] })),
        ["images", rest @ .., "json"] => {
            let name = rest.join("/");
            let id = state.images.get(&name).or_else(|| state.images.values().find(|id| **id == name));
            id.map(|id| {
                let references: Vec<_> = state
                    .images
                    .iter()
                    .filter(|(name, other)| *other == id && !name.contains('@'))
                    .map(|(name, _)| name)
                    .collect();
                let digests = if id == DIGEST { vec![format!("app@{DIGEST}")] } else { Vec::new() };
                json!({ "Id": id, "RepoTags": references, "RepoDigests": digests })
            })
        }
        _ => None,
    };
    match found {
        Some(value) => answer(state, 200, value.to_string()),
        None => message(state, 404, &format!("No such thing: {path}")),
    }
}

fn show(id: &str, container: &Container) -> Value {
    let running = matches!(container.state.as_str(), "running" | "paused");
    json!({
        "Id": id,
        "Name": format!("/{}", container.name),
        "RestartCount": 0,
        "State": {
            "Status": container.state, "Running": running, "Paused": container.state == "paused",
            "Restarting": false, "Dead": false, "Pid": container.pid,
            "StartedAt": format!("start-{}", container.started), "FinishedAt": format!("finish-{}", container.finished),
        },
        "Config": { "Image": "app:1" },
        "HostConfig": { "AutoRemove": container.auto_remove },
    })
}

/// Does it and counts it; the status and words are what Docker would say.
fn change(state: &mut State, method: &Method, path: &str, query: &BTreeMap<String, String>) -> (u16, String) {
    state.tick += 1;
    let tick = state.tick;
    let parts: Vec<_> = path.trim_start_matches('/').split('/').collect();
    let ok = |status: u16| (status, String::new());
    let effect = |state: &mut State, what: &str| state.effects.push(what.to_owned());
    if path == "/images/create" {
        let (repository, version) = (&query["fromImage"], &query["tag"]);
        if version.starts_with("sha256:") {
            if !state.has.contains(version) && !state.registry.values().any(|known| known == version) {
                return (404, format!("manifest for {repository}@{version} not found: manifest unknown"));
            }
            state.images.insert(format!("{repository}@{version}"), version.clone());
            effect(state, "pull");
            return ok(200);
        }
        let name = format!("{repository}:{version}");
        let Some(id) = state.registry.get(&name).cloned() else {
            return (404, format!("manifest for {name} not found: manifest unknown"));
        };
        state.images.insert(name, id);
        effect(state, "pull");
        return ok(200);
    }
    if let ["images", rest @ ..] = parts.as_slice() {
        return match (method, rest) {
            (&Method::POST, [id, "tag"]) => {
                state.images.insert(format!("{}:{}", query["repo"], query["tag"]), (*id).to_owned());
                effect(state, "tag");
                ok(201)
            }
            (&Method::DELETE, name) => {
                let name = name.join("/");
                let before = state.images.len();
                state.images.retain(|known, id| *known != name && *id != name);
                if state.images.len() == before {
                    return (404, "No such image".to_owned());
                }
                effect(state, "remove-image");
                ok(200)
            }
            _ => (404, "No such image".to_owned()),
        };
    }
    let ["containers", id, rest @ ..] = parts.as_slice() else { return (404, "page not found".to_owned()) };
    let Some(container) = state.containers.get_mut(*id) else {
        return (404, format!("No such container: {id}"));
    };
    let is_running = matches!(container.state.as_str(), "running" | "paused");
    let begin = |container: &mut Container| {
        container.started = tick;
        container.pid = i64::try_from(tick).unwrap() + 100;
        container.state = "running".to_owned();
    };
    let end = |container: &mut Container| {
        container.finished = tick;
        container.pid = 0;
        container.state = "exited".to_owned();
    };
    match (method, rest) {
        (&Method::POST, ["start"]) if is_running => ok(304),
        (&Method::POST, ["start"]) => {
            begin(container);
            if container.one_shot {
                end(container);
            }
            effect(state, "start");
            ok(204)
        }
        (&Method::POST, ["stop"]) if !is_running => ok(304),
        (&Method::POST, ["stop"]) => {
            end(container);
            if container.auto_remove {
                state.containers.remove(*id);
            }
            effect(state, "stop");
            ok(204)
        }
        (&Method::POST, ["restart"]) => {
            end(container);
            begin(container);
            effect(state, "restart");
            ok(204)
        }
        (&Method::POST, ["pause"]) if container.state == "running" => {
            container.state = "paused".to_owned();
            effect(state, "pause");
            ok(204)
        }
        (&Method::POST, ["unpause"]) if container.state == "paused" => {
            container.state = "running".to_owned();
            effect(state, "unpause");
            ok(204)
        }
        (&Method::POST, ["kill"]) if is_running => {
            let signal = &query["signal"];
            if signal == "SIGKILL" || (signal == "SIGTERM" && !container.is_deaf) {
                end(container);
            }
            effect(state, &format!("kill {signal}"));
            ok(204)
        }
        (&Method::POST, ["rename"]) => {
            container.name.clone_from(&query["name"]);
            effect(state, "rename");
            ok(204)
        }
        (&Method::DELETE, []) if is_running && query.get("force").is_none_or(|force| force != "true") => (
            409,
            "You cannot remove a running container. Stop the container before attempting removal".to_owned(),
        ),
        (&Method::DELETE, []) => {
            state.containers.remove(*id);
            effect(state, "remove");
            ok(204)
        }
        _ => (409, format!("Container {id} is {}", container.state)),
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        drop(std::fs::remove_file(&self.path));
    }
}

// `StatusCode` keeps the numbers above honest.
const _: () = assert!(StatusCode::NOT_MODIFIED.as_u16() == 304);
