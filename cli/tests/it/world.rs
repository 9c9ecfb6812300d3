//! A directory with the real `gantry`, stand-ins for the other two programs, and an API that answers just enough.

use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::process::{Child, Command};
use tokio::task::JoinSet;

/// Longer than anything here takes, even on a busy machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// Both stand-ins note their starts, arguments, tokens and ends here.
const STAND_IN: &str = r#"#!/bin/sh
# A program that runs until it is asked to stop.
here=$(dirname "$0")
me=$(basename "$0")
echo $$ > "$here/$me.pid"
echo "$me start token=${GANTRY_TOKEN:-none} $*" >> "$here/notes"
out=
while [ $# -gt 0 ]; do
  if [ "$1" = --kubeconfig-out ]; then out=$2; fi
  shift
done
if [ -n "$out" ]; then cp "$here/kubeconfig" "$out"; fi
trap 'echo "$me stop" >> "$here/notes"; exit 0' TERM
echo "$me speaks"
while true; do sleep 0.05; done
"#;

pub(crate) struct World {
    pub(crate) dir: TempDir,
    created: Arc<Mutex<Vec<String>>>,
    /// Uid of the only DockerInstance; there is none where it is empty.
    pub(crate) instance: Arc<Mutex<String>>,
    _api: JoinSet<()>,
}

impl World {
    pub(crate) async fn new() -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        // As root, Postgres' account must be able to walk to its directory, else it gets one elsewhere.
        std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o711)).expect("set");
        std::fs::copy(env!("CARGO_BIN_EXE_gantry"), dir.path().join("gantry")).expect("copied");
        for name in ["gantry-controller", "gantry-agent"] {
            let path = dir.path().join(name);
            std::fs::write(&path, STAND_IN).expect("written");
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).expect("set");
        }
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("bound");
        std::fs::write(dir.path().join("kubeconfig"), kubeconfig(address, dir.path())).expect("written");
        let (created, instance) = (Arc::default(), Arc::default());
        let mut api = JoinSet::new();
        api.spawn(serve(listener, Arc::clone(&created), Arc::clone(&instance)));
        Self { dir, created, instance, _api: api }
    }

    pub(crate) fn gantry(&self, args: &[&str]) -> Command {
        let mut command = Command::new(self.dir.path().join("gantry"));
        command
            .args(args)
            .env_clear()
            .env("PATH", std::env::var_os("PATH").expect("a PATH"))
            .env("HOME", self.dir.path())
            .kill_on_drop(true);
        command
    }

    /// `gantry dev` on free ports, once it says that it is ready.
    pub(crate) async fn dev(&self) -> Dev {
        let data = self.data().display().to_string();
        let args = ["dev", "--data-dir", &data, "--listen", "127.0.0.1:0"];
        let mut child = self
            .gantry(&args)
            .args(["--agent-metrics-listen", "127.0.0.1:0", "--instance", "here"])
            .stdout(Stdio::piped())
            .stderr(std::fs::File::create(self.dir.path().join("log")).expect("made"))
            .spawn()
            .expect("started");
        let mut lines = BufReader::new(child.stdout.take().expect("piped")).lines();
        let mut said = Vec::new();
        while said.len() < 3 {
            let line = tokio::time::timeout(PATIENCE, lines.next_line()).await.expect("in time");
            said.push(line.expect("readable").expect("three lines before the end"));
        }
        Dev { child, said }
    }

    pub(crate) fn data(&self) -> PathBuf {
        self.dir.path().join("data")
    }

    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(self.dir.path().join("log")).unwrap_or_default()
    }

    /// What the stand-ins did, in order.
    pub(crate) fn notes(&self) -> Vec<String> {
        let text = std::fs::read_to_string(self.dir.path().join("notes")).unwrap_or_default();
        text.lines().map(str::to_owned).collect()
    }

    pub(crate) fn pid(&self, name: &str) -> Pid {
        let text = std::fs::read_to_string(self.dir.path().join(format!("{name}.pid"))).expect("started");
        Pid::from_raw(text.trim().parse().expect("a pid"))
    }

    /// Bodies of the objects that were created.
    pub(crate) fn created(&self) -> Vec<String> {
        self.created.lock().expect("unpoisoned").clone()
    }
}

pub(crate) struct Dev {
    child: Child,
    pub(crate) said: Vec<String>,
}

impl Dev {
    pub(crate) fn signal(&self, signal: Signal) {
        let pid = self.child.id().and_then(|id| i32::try_from(id).ok()).expect("it runs");
        kill(Pid::from_raw(pid), signal).expect("signalled");
    }

    pub(crate) async fn ended(&mut self) -> ExitStatus {
        tokio::time::timeout(PATIENCE, self.child.wait()).await.expect("in time").expect("waited for")
    }
}

/// Waits until it is so.
pub(crate) async fn eventually(what: &str, mut is_so: impl FnMut() -> bool) {
    let wait = async {
        while !is_so() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(PATIENCE, wait).await.expect(what);
}

fn kubeconfig(address: SocketAddr, dir: &Path) -> String {
    let certificate = rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("made");
    let ca = dir.join("ca.pem");
    std::fs::write(&ca, certificate.cert.pem()).expect("written");
    format!(
        "apiVersion: v1
kind: Config
current-context: here
clusters: [{{name: here, cluster: {{server: 'http://{address}', certificate-authority: '{}'}}}}]
users: [{{name: here, user: {{}}}}]
contexts: [{{name: here, context: {{cluster: here, user: here}}}}]
",
        ca.display()
    )
}

async fn serve(listener: TcpListener, created: Arc<Mutex<Vec<String>>>, instance: Arc<Mutex<String>>) {
    let mut connections = JoinSet::new();
    while let Ok((stream, _)) = listener.accept().await {
        connections.spawn(answer(stream, Arc::clone(&created), Arc::clone(&instance)));
    }
}

/// `/readyz` is well, there is one instance or none, a namespace called `gone` is not there, everything else is created as it was sent.
async fn answer(stream: TcpStream, created: Arc<Mutex<Vec<String>>>, instance: Arc<Mutex<String>>) {
    let mut stream = BufReader::new(stream);
    loop {
        let (mut head, mut length) = (String::new(), 0);
        loop {
            let mut line = String::new();
            if stream.read_line(&mut line).await.unwrap_or(0) == 0 {
                return;
            }
            if let Some(value) = line.to_lowercase().strip_prefix("content-length:") {
                length = value.trim().parse().expect("a length");
            }
            if line == "\r\n" {
                break;
            }
            head.push_str(&line);
        }
        let mut body = vec![0; length];
        stream.read_exact(&mut body).await.expect("a body");
        let body = String::from_utf8(body).expect("text");
        let (status, reply) = if head.starts_with("GET /readyz") {
            ("200 OK", "ok".to_owned())
        } else if head.contains("/dockerinstances/") {
            let uid = instance.lock().expect("unpoisoned").clone();
            if uid.is_empty() {
                let reply = r#"{"kind":"Status","apiVersion":"v1","metadata":{},"status":"Failure","message":"not found","reason":"NotFound","code":404}"#;
                ("404 Not Found", reply.to_owned())
            } else {
                let reply = format!(
                    r#"{{"apiVersion":"gantry.dev/v1alpha1","kind":"DockerInstance","metadata":{{"name":"here","uid":"{uid}"}},"spec":{{}}}}"#
                );
                ("200 OK", reply)
            }
        } else if head.contains("/namespaces/gone/") {
            let reply = r#"{"kind":"Status","apiVersion":"v1","metadata":{},"status":"Failure","message":"namespaces \"gone\" not found","reason":"NotFound","code":404}"#;
            ("404 Not Found", reply.to_owned())
        } else {
            created.lock().expect("unpoisoned").push(body.clone());
            ("201 Created", body)
        };
        let reply = format!(
            "HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{reply}",
            reply.len()
        );
        if stream.get_mut().write_all(reply.as_bytes()).await.is_err() {
            return;
        }
    }
}
