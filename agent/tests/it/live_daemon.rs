//! A Docker daemon with one container that has a log, runs commands and can be attached to, on a Unix socket.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures::future::BoxFuture;
use gantry_agent::docker::streams::Io;
use http::{Method, Request, Response};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::net::UnixListener;
use tokio::task::JoinSet;

pub(crate) const WEB: &str = "abcdef1111111111111111111111111111111111111111111111111111111111";
const LOOK: Duration = Duration::from_millis(2);

/// What a process does with its streams, and its exit code.
pub(crate) type Program = Arc<dyn Fn(Box<dyn Io>) -> BoxFuture<'static, i32> + Send + Sync>;

pub(crate) struct Record {
    pub(crate) stream: u8,
    /// Nanoseconds since 1970.
    pub(crate) nano: i64,
    pub(crate) text: Vec<u8>,
}

#[derive(Default)]
pub(crate) struct Container {
    pub(crate) tty: bool,
    pub(crate) has_stdin: bool,
    pub(crate) running: bool,
    pub(crate) restarting: bool,
    pub(crate) run: u64,
    pub(crate) exit_code: i32,
    pub(crate) log_driver: String,
    pub(crate) network_mode: String,
    pub(crate) log: Vec<Record>,
    pub(crate) files: Vec<&'static str>,
    /// By the first word of the command; `attach` is the first process.
    pub(crate) programs: BTreeMap<&'static str, Program>,
    pub(crate) is_removed: bool,
    /// Lines of figures.
    pub(crate) figures: Vec<Value>,
    /// What was asked for, in order: paths with queries, without looks at the container.
    pub(crate) asked: Vec<String>,
    /// Of each exec that was made.
    pub(crate) execs: Vec<Value>,
    exits: BTreeMap<String, i32>,
}

pub(crate) struct LiveDaemon {
    pub(crate) web: Arc<Mutex<Container>>,
    /// Bytes of a log without end that were handed out.
    pub(crate) handed_out: Arc<AtomicU64>,
    /// Requests that are being answered.
    pub(crate) open: Arc<AtomicU64>,
    path: PathBuf,
    _directory: tempfile::TempDir,
    _serving: JoinSet<()>,
}

impl LiveDaemon {
    /// With a container `web` that runs.
    pub(crate) fn start() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("d.sock");
        let web = Container {
            running: true,
            has_stdin: true,
            run: 1,
            log_driver: "json-file".to_owned(),
            files: vec!["/bin/sh"],
            ..Container::default()
        };
        let web = Arc::new(Mutex::new(web));
        let (handed_out, open) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
        let listener = UnixListener::bind(&path).unwrap();
        let mut serving = JoinSet::new();
        let shared = (web.clone(), handed_out.clone(), open.clone());
        serving.spawn(async move {
            let mut connections = JoinSet::new();
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let (web, handed_out, open) = shared.clone();
                connections.spawn(async move {
                    open.fetch_add(1, Ordering::SeqCst);
                    let service = service_fn(|request| serve(web.clone(), handed_out.clone(), request));
                    let connection = hyper::server::conn::http1::Builder::new()
                        .serve_connection(TokioIo::new(stream), service)
                        .with_upgrades();
                    drop(connection.await);
                    open.fetch_sub(1, Ordering::SeqCst);
                });
            }
        });
        Self { web, handed_out, open, path, _directory: directory, _serving: serving }
    }

    pub(crate) fn host(&self) -> String {
        format!("unix://{}", self.path.display())
    }

    pub(crate) fn change(&self, change: impl FnOnce(&mut Container)) {
        change(&mut self.web.lock());
    }

    pub(crate) fn writes(&self, stream: u8, nano: i64, text: impl AsRef<[u8]>) {
        self.web.lock().log.push(Record { stream, nano, text: text.as_ref().to_vec() });
    }

    pub(crate) fn stops(&self, exit_code: i32) {
        self.change(|web| (web.running, web.exit_code) = (false, exit_code));
    }

    pub(crate) fn starts(&self) {
        self.change(|web| (web.running, web.run) = (true, web.run + 1));
    }

    /// What happens where a command begins with that word.
    pub(crate) fn has_program<F>(
        &self,
        name: &'static str,
        program: impl Fn(Box<dyn Io>) -> F + Send + Sync + 'static,
    ) where
        F: Future<Output = i32> + Send + 'static,
    {
        let program: Program = Arc::new(move |io| Box::pin(program(io)));
        self.change(|web| drop(web.programs.insert(name, program)));
    }

    pub(crate) fn asked(&self) -> Vec<String> {
        self.web.lock().asked.clone()
    }
}

pub(crate) fn frame(stream: u8, data: &[u8]) -> Vec<u8> {
    let length = u32::try_from(data.len()).unwrap().to_be_bytes();
    [&[stream, 0, 0, 0][..], &length, data].concat()
}

type Body = UnsyncBoxBody<Bytes, std::io::Error>;

fn full(status: u16, body: impl Into<Bytes>) -> Response<Body> {
    let body = Full::new(body.into()).map_err(|never| match never {}).boxed_unsync();
    Response::builder().status(status).header("Api-Version", "1.41").body(body).unwrap()
}

fn refuse(status: u16, message: &str) -> Response<Body> {
    full(status, json!({ "message": message }).to_string())
}

async fn serve(
    web: Arc<Mutex<Container>>,
    handed_out: Arc<AtomicU64>,
    request: Request<Incoming>,
) -> Result<Response<Body>, std::io::Error> {
    let path = request.uri().path().to_owned();
    let parts: Vec<String> = path.trim_start_matches('/').split('/').map(ToOwned::to_owned).collect();
    let parts: Vec<&str> = parts.iter().map(String::as_str).collect();
    let query: BTreeMap<String, String> = request
        .uri()
        .query()
        .unwrap_or_default()
        .split('&')
        .filter_map(|pair| pair.split_once('='))
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .collect();
    if !path.ends_with("/json") && path != "/version" {
        let mut web = web.lock();
        web.asked.push(format!("{} {}", request.method(), request.uri()));
        if web.is_removed && parts[0] == "containers" {
            return Ok(refuse(404, "No such container"));
        }
    }
    Ok(match (request.method(), parts.as_slice()) {
        (&Method::GET, ["version"]) => full(200, r#"{"Version":"20.10.24","ApiVersion":"1.41"}"#),
        (&Method::GET, ["containers", name, "json"]) => {
            let web = web.lock();
            if web.is_removed || !(*name == "web" || WEB.starts_with(name)) {
                return Ok(refuse(404, &format!("No such container: {name}")));
            }
            full(
                200,
                json!({
                    "Id": WEB, "Name": "/web", "Config": {"Tty": web.tty, "OpenStdin": web.has_stdin},
                    "State": {"Running": web.running, "Restarting": web.restarting, "StartedAt": format!("run-{}", web.run),
                        "ExitCode": web.exit_code},
                    "HostConfig": {"LogConfig": {"Type": web.log_driver}, "NetworkMode": web.network_mode},
                })
                .to_string(),
            )
        }
        (&Method::GET, ["containers", WEB, "logs"]) => logs(&web, &handed_out, &query),
        (&Method::HEAD, ["containers", WEB, "archive"]) => {
            let has = web.lock().files.contains(&query["path"].as_str());
            full(if has { 200 } else { 404 }, "")
        }
        (&Method::GET, ["containers", WEB, "stats"]) => {
            let lines = web.lock().figures.clone();
            let text: Vec<_> = lines.iter().map(|line| line.to_string() + "\n").collect();
            full(200, text.concat())
        }
        (&Method::POST, ["containers", WEB, "exec"]) => {
            let body = request.into_body().collect().await.unwrap().to_bytes();
            let mut web = web.lock();
            web.execs.push(serde_json::from_slice(&body).unwrap());
            full(201, json!({"Id": format!("e{}", web.execs.len())}).to_string())
        }
        (&Method::POST, ["exec", id, "start"]) => {
            let (id, number) = ((*id).to_owned(), id[1..].parse::<usize>().unwrap());
            let program = {
                let web = web.lock();
                let word = web.execs[number - 1]["Cmd"][0].as_str().unwrap().to_owned();
                web.programs.get(word.as_str()).cloned()
            };
            let Some(program) = program else { return Ok(refuse(400, "no such program")) };
            upgrade(request, async move |io| {
                let code = program(io).await;
                web.lock().exits.insert(id, code);
            })
        }
        (&Method::GET, ["exec", id, "json"]) => {
            let code = web.lock().exits.get(*id).copied();
            full(200, json!({"Running": code.is_none(), "ExitCode": code}).to_string())
        }
        (&Method::POST, ["containers", WEB, "attach"]) => {
            let Some(program) = web.lock().programs.get("attach").cloned() else {
                return Ok(refuse(500, "nothing to attach to"));
            };
            upgrade(request, async move |io| {
                let code = program(io).await;
                if code >= 0 {
                    let mut web = web.lock();
                    (web.running, web.exit_code) = (false, code);
                }
            })
        }
        (&Method::POST, [.., "resize"]) => full(200, ""),
        _ => refuse(404, "page not found"),
    })
}

fn upgrade<F>(
    request: Request<Incoming>,
    then: impl FnOnce(Box<dyn Io>) -> F + Send + 'static,
) -> Response<Body>
where
    F: Future<Output = ()> + Send + 'static,
{
    tokio::spawn(async move {
        if let Ok(io) = hyper::upgrade::on(request).await {
            then(Box::new(TokioIo::new(io))).await;
        }
    });
    let mut response = full(101, "");
    response.headers_mut().insert("Connection", "Upgrade".parse().unwrap());
    response.headers_mut().insert("Upgrade", "tcp".parse().unwrap());
    response
}

fn logs(
    web: &Arc<Mutex<Container>>,
    handed_out: &Arc<AtomicU64>,
    query: &BTreeMap<String, String>,
) -> Response<Body> {
    let (run, follows, endless) = {
        let state = web.lock();
        if state.log_driver == "none" {
            return refuse(501, "configured logging driver does not support reading");
        }
        (state.run, state.running && query["follow"] == "1", state.log_driver == "endless")
    };
    if endless {
        let handed_out = handed_out.clone();
        let line = [format!("{} ", stamp(1)).as_bytes(), &[b'x'; 8 << 10], b"\n"].concat();
        let data = Bytes::from(frame(1, &line));
        let body = futures::stream::repeat_with(move || {
            handed_out.fetch_add(data.len() as u64, Ordering::SeqCst);
            Ok(Frame::data(data.clone()))
        });
        return Response::builder().body(StreamBody::new(body).boxed_unsync()).unwrap();
    }
    let since = query.get("since").map_or(i64::MIN, |text| {
        let (seconds, nano) = text.split_once('.').unwrap();
        seconds.parse::<i64>().unwrap() * 1_000_000_000 + nano.parse::<i64>().unwrap()
    });
    let length = web.lock().log.len();
    let begin = match query["tail"].as_str() {
        "all" => 0,
        number => length.saturating_sub(number.parse().unwrap()),
    };
    let web = web.clone();
    let body = futures::stream::unfold((web, begin), move |(web, at)| async move {
        loop {
            {
                let state = web.lock();
                if let Some(record) = state.log.get(at) {
                    let text = [format!("{} ", stamp(record.nano)).as_bytes(), &record.text].concat();
                    let text = if state.tty { text } else { frame(record.stream, &text) };
                    let text = if record.nano < since { Vec::new() } else { text };
                    drop(state);
                    return Some((Ok(Frame::data(Bytes::from(text))), (web, at + 1)));
                }
                if !follows || !state.running || state.run != run {
                    return None;
                }
            }
            tokio::time::sleep(LOOK).await;
        }
    });
    Response::builder().body(StreamBody::new(body).boxed_unsync()).unwrap()
}

pub(crate) fn stamp(nano: i64) -> String {
    let time = jiff::Timestamp::from_nanosecond(nano.into()).unwrap();
    format!("{time:.9}")
}
