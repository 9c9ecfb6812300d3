//! `gantry exec` and `attach`: a process of a container, over the WebSocket that Kubernetes has for it.

use std::io::{ErrorKind, IsTerminal as _};
use std::process::ExitCode;

use anyhow::Context as _;
use futures::stream::SplitSink;
use futures::{Sink, SinkExt as _, StreamExt as _};
use gantry_api::names::GROUP;
use http::Request;
use kube::core::Status;
use serde_json::Value;
use tokio::signal::unix::{SignalKind, signal};

use super::targets::{self, Target};
use crate::args::{AttachArgs, ExecArgs, Reach};
use crate::client::{self, Controller, encoded};
use crate::kinds::Kind;
use crate::output::failure::{Ends, Hinted};
use crate::output::plain::plain;
use crate::terminal::{self, Keys, Leaving, Raw};

const STDIN: u8 = 0;
const STDOUT: u8 = 1;
const STDERR: u8 = 2;
const STATUS: u8 = 3;
const RESIZE: u8 = 4;
const CLOSE: u8 = 255;

/// Runs a command in a container and ends with its exit code.
pub(crate) async fn exec(reach: &Reach, options: &ExecArgs) -> anyhow::Result<ExitCode> {
    if options.tty && !std::io::stdin().is_terminal() {
        return Err(Hinted::new(Ends::Misunderstood, "-t was said, and standard input is no terminal")
            .hint("leave -t out")
            .into());
    }
    let controller = Controller::reach(reach).await?;
    let target = targets::one(&controller, options.instance.as_deref(), &options.container).await?;
    let set = |is_set: bool| if is_set { "true" } else { "false" };
    let mut query: Vec<(&str, &str)> = options.command.iter().map(|word| ("command", &**word)).collect();
    query.extend([
        ("stdin", set(options.interactive)),
        ("stdout", "true"),
        ("stderr", "true"),
        ("tty", set(options.tty)),
    ]);
    let path =
        format!("{}/exec?{}", path(&controller, &target), client::query(query).trim_start_matches('&'));
    let session = Session {
        shown: target.shown(),
        has_input: options.interactive,
        is_terminal: options.tty,
        keys: if options.tty { options.keys.detach_keys.clone() } else { Keys::default() },
    };
    session.run(&controller, &path).await
}

/// Joins a container's first process; ends with its exit code where that is told.
pub(crate) async fn attach(reach: &Reach, options: &AttachArgs) -> anyhow::Result<ExitCode> {
    let controller = Controller::reach(reach).await?;
    let target = targets::one(&controller, options.instance.as_deref(), &options.container).await?;
    // Whether it has a terminal only its host knows.
    let found = super::inspect::container(&controller, &target).await?;
    let is_set = |field: &str| found.pointer(field).and_then(Value::as_bool).unwrap_or_default();
    let has_input = is_set("/Config/OpenStdin") && !options.no_stdin;
    let is_terminal = is_set("/Config/Tty") && terminal::is_one();
    let stdin = if has_input { "true" } else { "false" };
    let path = format!("{}/attach?stdin={stdin}&stdout=true&stderr=true", path(&controller, &target));
    let session = Session {
        shown: target.shown(),
        has_input,
        is_terminal,
        keys: if is_terminal { options.keys.detach_keys.clone() } else { Keys::default() },
    };
    session.run(&controller, &path).await
}

/// The path of a container.
pub(crate) fn path(controller: &Controller, target: &Target) -> String {
    let instances = Kind::ours(GROUP, "DockerInstance").path(Some(&controller.namespace));
    format!("{instances}/{}/containers/{}", encoded(&target.instance), encoded(&target.name))
}

/// One process, once it is known how to speak to it.
struct Session {
    shown: String,
    has_input: bool,
    is_terminal: bool,
    keys: Keys,
}

impl Session {
    async fn run(&self, controller: &Controller, path: &str) -> anyhow::Result<ExitCode> {
        let request = Request::get(path).body(Vec::new())?;
        let opened = controller.patient()?.client.connect(request).await;
        let opened = opened.map_err(|error| controller.explain(error, &self.shown))?;
        let has_ends = opened.supports_stream_close();
        let (mut says, mut hears) = opened.into_stream().split();
        let raw = if self.is_terminal { Some(Raw::begin()?) } else { None };
        let mut input = if self.has_input { Some(terminal::input()) } else { None };
        let mut leaving = Leaving::new(self.keys.clone());
        let mut resized = signal(SignalKind::window_change()).context("cannot listen for signals")?;
        if self.is_terminal {
            resize(&mut says).await;
        }
        loop {
            tokio::select! {
                message = hears.next() => match message {
                    Some(Ok(message)) if message.is_binary() => {
                        if let Some(code) = self.hears(&message.into_data(), raw.is_some())? {
                            return Ok(code);
                        }
                    }
                    Some(Ok(message)) if message.is_close() => return Err(self.broken()),
                    Some(Ok(_)) => {}
                    Some(Err(_)) | None => return Err(self.broken()),
                },
                typed = async { match &mut input { Some(input) => input.recv().await, None => std::future::pending().await } } => {
                    let Some(typed) = typed else {
                        input = None;
                        if has_ends {
                            send(&mut says, &[CLOSE, STDIN]).await;
                        }
                        continue;
                    };
                    let (passed, leaves) = leaving.hears(&typed);
                    if !passed.is_empty() {
                        send(&mut says, &[&[STDIN], &*passed].concat()).await;
                    }
                    if leaves {
                        // Back to the person's own terminal before anything is said on it.
                        drop(raw);
                        let _ = says.close().await;
                        eprintln!("\nleft {}; it goes on", self.shown);
                        return Ok(ExitCode::SUCCESS);
                    }
                }
                _ = resized.recv(), if self.is_terminal => resize(&mut says).await,
            }
        }
    }

    /// Writes what the process says; its exit code once it has ended.
    fn hears(&self, message: &[u8], is_raw: bool) -> anyhow::Result<Option<ExitCode>> {
        let Some((channel, data)) = message.split_first() else { return Ok(None) };
        match *channel {
            STDOUT => pass(&mut std::io::stdout().lock(), data)?,
            STDERR => pass(&mut std::io::stderr().lock(), data)?,
            STATUS => {
                let status: Status = serde_json::from_slice(data).context("the end cannot be read")?;
                return self.ended(&status, is_raw).map(Some);
            }
            _ => {}
        }
        Ok(None)
    }

    fn ended(&self, status: &Status, is_raw: bool) -> anyhow::Result<ExitCode> {
        if status.is_success() {
            return Ok(ExitCode::SUCCESS);
        }
        let mut causes = status.details.iter().flat_map(|details| &details.causes);
        if let Some(code) = causes.find(|cause| cause.reason == "ExitCode")
            && let Ok(code) = code.message.parse::<i32>()
        {
            return Ok(ExitCode::from(u8::try_from(code).unwrap_or(u8::MAX)));
        }
        let ends = match status.code {
            401 | 403 => Ends::NotAllowed,
            404 => Ends::NotFound,
            502..=504 => Ends::Unreachable,
            _ => Ends::Failed,
        };
        let line = if is_raw { "\r\n" } else { "" };
        eprint!("{line}");
        Err(Hinted::new(ends, format!("{}: {}", self.shown, plain(&status.message))).into())
    }

    fn broken(&self) -> anyhow::Error {
        Hinted::new(
            Ends::Unreachable,
            format!("{}: the connection broke off before its end was told", self.shown),
        )
        .hint("whether the command goes on is not known: `gantry docker INSTANCE -- top CONTAINER`")
        .into()
    }
}

/// Whoever stops reading has what they want.
fn pass(to: &mut impl std::io::Write, data: &[u8]) -> anyhow::Result<()> {
    match to.write_all(data).and_then(|()| to.flush()) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => Err(error.into()),
        _ => Ok(()),
    }
}

/// What cannot be sent any more is told by the other direction.
async fn send<S, M>(says: &mut SplitSink<S, M>, message: &[u8])
where
    S: Sink<M>,
    M: From<Vec<u8>>,
{
    let _ = says.send(M::from(message.to_vec())).await;
}

async fn resize<S, M>(says: &mut SplitSink<S, M>)
where
    S: Sink<M>,
    M: From<Vec<u8>>,
{
    if let Some(size) = terminal::size() {
        send(says, &[&[RESIZE], size.as_bytes()].concat()).await;
    }
}
