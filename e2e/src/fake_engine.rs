//! A small engine on a unix socket that answers in an API version of the test's choice, remembers what it was asked and what it
//! did, and fails as it is told to.

use std::collections::{BTreeMap, VecDeque};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt as _;
use http::{Method, Request, Response, StatusCode};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::net::UnixListener;
use tokio::sync::{broadcast, watch};
use tokio::task::JoinSet;
use tokio_stream::wrappers::BroadcastStream;
use tokio_stream::wrappers::errors::BroadcastStreamRecvError;

type Body = UnsyncBoxBody<Bytes, std::io::Error>;

/// Events that a slow reader may be behind before it loses some, as with Docker.
const EVENTS_BUFFERED: usize = 1_024;

/// What goes wrong with one call that changes something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// It is not done and never answered.
    Hang,
    /// It is done and never answered.
    HangAfter,
    /// It is not done, and this is the answer.
    Fail(u16),
    /// It is done, and this is the answer.
    FailAfter(u16),
    /// It is not done, and the connection ends.
    Cut,
    /// It is done, and the connection ends.
    CutAfter,
    /// It is done and answered, after that time.
    Slow(Duration),
}

/// A running fake; it ends when dropped.
#[derive(Debug)]
pub struct FakeEngine {
    socket: PathBuf,
    state: Arc<Mutex<State>>,
    hangs: Arc<watch::Sender<bool>>,
    _tasks: JoinSet<()>,
}

#[derive(Debug)]
struct State {
    api_version: &'static str,
    requests: Vec<String>,
    /// By id.
    containers: BTreeMap<String, Container>,
    effects: Vec<String>,
    faults: VecDeque<Fault>,
    drops_events: bool,
    dropped_events: u64,
    events: broadcast::Sender<Value>,
    tick: u64,
    waiting: usize,
    most_waiting: usize,
}

#[derive(Clone, Debug)]
struct Container {
    name: String,
    state: &'static str,
    started: u64,
    finished: u64,
}

impl Container {
    fn is_running(&self) -> bool {
        matches!(self.state, "running" | "paused")
    }
}

impl FakeEngine {
    /// Starts one on that socket which says it speaks up to `api_version`. It has no containers.
    pub fn start(socket: &Path, api_version: &'static str) -> anyhow::Result<Self> {
        let listener = UnixListener::bind(socket)?;
        let state = Arc::new(Mutex::new(State {
            api_version,
            requests: Vec::new(),
            containers: BTreeMap::new(),
            effects: Vec::new(),
            faults: VecDeque::new(),
            drops_events: false,
            dropped_events: 0,
            events: broadcast::channel(EVENTS_BUFFERED).0,
            tick: 0,
            waiting: 0,
            most_waiting: 0,
        }));
        let hangs = Arc::new(watch::Sender::new(false));
        let (shared, hanging) = (Arc::clone(&state), Arc::clone(&hangs));
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                let (shared, hanging) = (Arc::clone(&shared), Arc::clone(&hanging));
                connections.spawn(async move {
                    let service =
                        service_fn(move |request| serve(Arc::clone(&shared), hanging.subscribe(), request));
                    hyper::server::conn::http1::Builder::new()
                        .serve_connection(TokioIo::new(stream), service)
                        .await
                        .ok();
                });
            }
        });
        Ok(Self { socket: socket.to_owned(), state, hangs, _tasks: tasks })
    }

    /// What `--docker-host` takes.
    pub fn host(&self) -> String {
        format!("unix://{}", self.socket.display())
    }

    /// Every request so far, as `GET /info`, without the API version.
    pub fn requests(&self) -> Vec<String> {
        self.state.lock().requests.clone()
    }

    /// The most requests about containers that have waited for an answer at the same time while it hung. Health checks are
    /// not, nor is the inventory's list, of which there is one at a time.
    pub fn most_waiting(&self) -> usize {
        self.state.lock().most_waiting
    }

    /// Somebody else starts a container.
    pub fn runs(&self, name: &str) {
        let mut state = self.state.lock();
        state.tick += 1;
        let (id, started) = (format!("{:064x}", state.tick), state.tick);
        let container = Container { name: name.to_owned(), state: "running", started, finished: 0 };
        state.tell("start", &id, name);
        state.containers.insert(id, container);
    }

    /// Somebody else removes a container.
    pub fn removes(&self, name: &str) {
        let mut state = self.state.lock();
        let found = state.find(name).map(|(id, _)| id.clone());
        if let Some(id) = found {
            state.containers.remove(&id);
            state.tell("destroy", &id, name);
        }
    }

    /// Events that a reader was too slow for.
    pub fn dropped_events(&self) -> u64 {
        self.state.lock().dropped_events
    }

    /// What was done, in order, as `stop web`.
    pub fn effects(&self) -> Vec<String> {
        self.state.lock().effects.clone()
    }

    /// What goes wrong with the next call that changes something and has no fault yet.
    pub fn fault(&self, fault: Fault) {
        self.state.lock().faults.push_back(fault);
    }

    /// Whether it answers nothing at all, as one that is stopped; what came meanwhile is answered when it no longer hangs.
    pub fn hang(&self, hangs: bool) {
        self.hangs.send_replace(hangs);
    }

    /// Whether it keeps what happens to itself.
    pub fn drop_events(&self, drops: bool) {
        self.state.lock().drops_events = drops;
    }
}

/// The path without the API version that may be before it.
fn plain(path: &str) -> &str {
    let after = path.strip_prefix("/v1.").and_then(|rest| rest.find('/').and_then(|at| rest.get(at..)));
    after.unwrap_or(path)
}

async fn serve(
    shared: Arc<Mutex<State>>,
    mut hangs: watch::Receiver<bool>,
    request: Request<Incoming>,
) -> Result<Response<Body>, std::io::Error> {
    let path = plain(request.uri().path()).to_owned();
    shared.lock().requests.push(format!("{} {path}", request.method()));
    let is_hung = *hangs.borrow();
    if is_hung {
        let is_about_one = path.starts_with("/containers/") && path != "/containers/json";
        let _waiting = is_about_one.then(|| Waiting::begin(&shared));
        // The sender lives as long as the engine.
        hangs.wait_for(|hangs| !hangs).await.ok();
    }
    if request.method() == Method::GET {
        return Ok(if path == "/events" { events(&shared) } else { look(&shared.lock(), &path) });
    }
    let query = request.uri().query().unwrap_or_default().to_owned();
    let act = || {
        let mut state = shared.lock();
        let (status, body) = state.change(request.method(), &path, &query);
        state.answer(status, &body)
    };
    let fails = |status: u16| {
        let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        shared.lock().answer(status, &json!({"message": "it was told to fail"}))
    };
    let cut = || Err(std::io::ErrorKind::ConnectionReset.into());
    let fault = shared.lock().faults.pop_front();
    match fault {
        None => Ok(act()),
        Some(Fault::Hang) => std::future::pending().await,
        Some(Fault::HangAfter) => {
            act();
            std::future::pending().await
        }
        Some(Fault::Fail(status)) => Ok(fails(status)),
        Some(Fault::FailAfter(status)) => {
            act();
            Ok(fails(status))
        }
        Some(Fault::Cut) => cut(),
        Some(Fault::CutAfter) => {
            act();
            cut()
        }
        Some(Fault::Slow(time)) => {
            tokio::time::sleep(time).await;
            Ok(act())
        }
    }
}

/// A request that waits, until it is answered or given up.
struct Waiting<'a>(&'a Mutex<State>);

impl<'a> Waiting<'a> {
    fn begin(shared: &'a Mutex<State>) -> Self {
        let mut state = shared.lock();
        state.waiting += 1;
        state.most_waiting = state.most_waiting.max(state.waiting);
        Self(shared)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.lock().waiting -= 1;
    }
}

fn events(shared: &Arc<Mutex<State>>) -> Response<Body> {
    let state = shared.lock();
    let counted = Arc::clone(shared);
    let lines = BroadcastStream::new(state.events.subscribe()).filter_map(move |event| {
        let line = event.map(|event| Ok(Frame::data(Bytes::from(event.to_string() + "\n"))));
        // What was lost is lost without a word.
        let line =
            line.map_err(|BroadcastStreamRecvError::Lagged(lost)| counted.lock().dropped_events += lost);
        std::future::ready(line.ok())
    });
    state.response(StatusCode::OK, StreamBody::new(lines).boxed_unsync())
}

fn look(state: &State, path: &str) -> Response<Body> {
    let parts: Vec<_> = path.trim_start_matches('/').split('/').collect();
    let is = |wanted: &'static str| state.containers.values().filter(|one| one.state == wanted).count();
    let found = match parts.as_slice() {
        ["_ping"] => json!("OK"),
        ["version"] => {
            json!({"Version": "19.03.15", "ApiVersion": state.api_version, "MinAPIVersion": "1.12", "Os": "linux",
            "Arch": "amd64", "KernelVersion": "4.19", "GitCommit": "", "GoVersion": ""})
        }
        ["info"] => {
            json!({"ID": "OLD:ENGINE", "Name": "old", "Containers": state.containers.len(),
            "ContainersRunning": is("running"), "ContainersPaused": is("paused"), "ContainersStopped": is("exited"),
            "Images": 0, "Driver": "overlay2", "OperatingSystem": "Old Linux", "OSType": "linux",
            "Architecture": "x86_64", "KernelVersion": "4.19", "NCPU": 1, "MemTotal": 1_073_741_824_u64,
            "ServerVersion": "19.03.15", "CgroupVersion": "1"})
        }
        // By its id one tells one run of an engine from another.
        ["networks"] => json!([{"Name": "bridge", "Id": "run-1", "Driver": "bridge"}]),
        ["containers", "json"] => list(state),
        ["images", "json"] => json!([]),
        ["volumes"] => json!({"Volumes": []}),
        ["containers", name, "json"] => match state.find(name) {
            Some((id, container)) => inspect(id, container),
            None => return state.not_found(path),
        },
        _ => return state.not_found(path),
    };
    state.answer(StatusCode::OK, &found)
}

/// All of them, whatever filter came.
fn list(state: &State) -> Value {
    let listed = state.containers.iter().map(|(id, container)| {
        json!({"Id": id, "Names": [format!("/{}", container.name)], "Image": "app:1", "State": container.state})
    });
    listed.collect()
}

fn inspect(id: &str, container: &Container) -> Value {
    let pid = if container.is_running() { container.started + 100 } else { 0 };
    json!({
        "Id": id, "Name": format!("/{}", container.name), "RestartCount": 0,
        "State": {
            "Status": container.state, "Running": container.is_running(), "Paused": container.state == "paused",
            "Restarting": false, "Dead": false, "Pid": pid,
            "StartedAt": format!("start-{}", container.started),
            "FinishedAt": format!("finish-{}", container.finished),
        },
        "Config": {"Image": "app:1"},
        "HostConfig": {"AutoRemove": false},
    })
}

impl State {
    fn find(&self, name: &str) -> Option<(&String, &Container)> {
        self.containers.iter().find(|(id, container)| *id == name || container.name == name)
    }

    /// Does it and counts it; the answer is what Docker would say.
    fn change(&mut self, method: &Method, path: &str, query: &str) -> (StatusCode, Value) {
        self.tick += 1;
        let tick = self.tick;
        let parts: Vec<_> = path.trim_start_matches('/').split('/').collect();
        let found = match parts.as_slice() {
            ["containers", name, ..] => {
                self.find(name).map(|(id, container)| (id.clone(), container.clone()))
            }
            _ => None,
        };
        let Some((id, mut container)) = found else {
            return (StatusCode::NOT_FOUND, json!({"message": "No such container"}));
        };
        let action = match (method, parts.get(2).copied()) {
            (&Method::DELETE, None) => "destroy",
            (_, Some(action)) => action,
            _ => "",
        };
        match (action, container.state) {
            ("start", "running" | "paused") | ("stop", "created" | "exited") => {
                return (StatusCode::NOT_MODIFIED, Value::Null);
            }
            ("start" | "restart", _) => (container.state, container.started) = ("running", tick),
            ("stop", _) => (container.state, container.finished) = ("exited", tick),
            ("kill", "running" | "paused") if query.contains("KILL") || query.contains("TERM") => {
                (container.state, container.finished) = ("exited", tick);
            }
            ("pause", "running") => container.state = "paused",
            ("unpause", "paused") => container.state = "running",
            ("rename", _) => {
                let mut pairs = query.split('&').filter_map(|pair| pair.split_once('='));
                let name = pairs.find_map(|(key, value)| (key == "name").then_some(value));
                name.unwrap_or_default().clone_into(&mut container.name);
            }
            // A signal that the process does not mind.
            ("kill", "running" | "paused") | ("destroy", "created" | "exited") => {}
            (_, state) => {
                return (StatusCode::CONFLICT, json!({"message": format!("the container is {state}")}));
            }
        }
        self.effects.push(format!("{action} {}", container.name));
        self.tell(action, &id, &container.name);
        if action == "destroy" {
            self.containers.remove(&id);
        } else {
            self.containers.insert(id, container);
        }
        (StatusCode::NO_CONTENT, Value::Null)
    }

    fn tell(&self, action: &str, id: &str, name: &str) {
        let event = json!({"Type": "container", "Action": action, "time": self.tick,
            "Actor": {"ID": id, "Attributes": {"name": name}}});
        if !self.drops_events {
            // Nobody may be listening.
            self.events.send(event).ok();
        }
    }

    fn not_found(&self, path: &str) -> Response<Body> {
        self.answer(StatusCode::NOT_FOUND, &json!({"message": format!("not here: {path}")}))
    }

    fn answer(&self, status: StatusCode, body: &Value) -> Response<Body> {
        let text = if body.is_null() { String::new() } else { body.to_string() };
        let body = Full::new(Bytes::from(text)).map_err(|never| match never {});
        self.response(status, body.boxed_unsync())
    }

    fn response(&self, status: StatusCode, body: Body) -> Response<Body> {
        let mut response = Response::new(body);
        *response.status_mut() = status;
        let headers = response.headers_mut();
        headers.insert(http::header::CONTENT_TYPE, http::HeaderValue::from_static("application/json"));
        if let Ok(value) = http::HeaderValue::from_str(self.api_version) {
            headers.insert("api-version", value);
        }
        response
    }
}
