//! `gantry exec` and `attach`: a process of a container, over the WebSocket that Kubernetes has for it, and over another where that breaks.

use std::io::{ErrorKind, IsTerminal as _};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context as _;
use futures::stream::SplitSink;
use futures::{Sink, SinkExt as _, StreamExt as _};
use gantry_api::names::GROUP;
use http::Request;
use kube::client::Connection;
use kube::core::Status;
use serde_json::Value;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, sleep_until, timeout, timeout_at};

use super::targets::{self, Target};
use crate::args::{AttachArgs, ExecArgs, Reach};
use crate::client::{self, Controller, encoded};
use crate::kinds::Kind;
use crate::output::failure::{Ends, Hinted};
use crate::output::plain::plain;
use crate::terminal::{self, Keys, Leaving, Raw};

mod track;

use track::{Gap, Track};

const STDIN: u8 = 0;
const STDOUT: u8 = 1;
const STDERR: u8 = 2;
const STATUS: u8 = 3;
const RESIZE: u8 = 4;
/// What it takes to come back.
const SESSION: u8 = 5;
const CLOSE: u8 = 255;

/// How long a controller holds a session without us.
const AWAY: Duration = Duration::from_secs(60);
/// For one attempt to come back, and before the next.
const ATTEMPT: Duration = Duration::from_secs(5);
const PAUSE: Duration = Duration::from_secs(1);
/// Attempts that reach a controller which does not hold the session: another of its replicas, or itself before it was restarted.
const MOST_REFUSALS: u32 = 10;
/// A controller that says so long nothing, not even whether we are there, is not.
const SILENCE: Duration = Duration::from_secs(35);
/// For the last words.
const FAREWELL: Duration = Duration::from_secs(1);
const CTRL_C: u8 = 3;

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
        // Whatever is piped through it is too much to remember what of it has arrived.
        ("resumable", set(options.tty)),
    ]);
    let place = format!("{}/exec", path(&controller, &target));
    let path = format!("{place}?{}", client::query(query).trim_start_matches('&'));
    let session = Session {
        shown: target.shown(),
        back: options.tty.then(|| format!("{place}?resume=true")),
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
    let place = format!("{}/attach", path(&controller, &target));
    let path = format!("{place}?stdin={stdin}&stdout=true&stderr=true&resumable=true");
    let session = Session {
        shown: target.shown(),
        back: Some(format!("{place}?resume=true")),
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
    /// Where a connection that breaks is come back to.
    back: Option<String>,
    has_input: bool,
    is_terminal: bool,
    keys: Keys,
}

/// This end of it, which outlives its connections.
struct Here {
    raw: Option<Raw>,
    input: Option<mpsc::Receiver<Vec<u8>>>,
    /// The input has ended.
    is_done: bool,
    leaving: Leaving,
    resized: Signal,
    track: Track,
}

/// How a connection ended.
enum Parted {
    Exited(ExitCode),
    /// The person has left.
    Left,
    /// It broke.
    Dropped,
    /// That controller does not hold the session, or does not say; another replica may.
    Elsewhere,
}

impl Here {
    /// A line for the person, on whose terminal the process may be in the middle of one.
    fn tells(&self, line: &str) {
        if self.raw.is_some() {
            eprint!("\r\n{line}\r\n");
        } else {
            eprintln!("{line}");
        }
    }
}

impl Session {
    async fn run(&self, controller: &Controller, path: &str) -> anyhow::Result<ExitCode> {
        let request = Request::get(path).body(Vec::new())?;
        let opened = controller.patient()?.client.connect(request).await;
        let mut connection = opened.map_err(|error| controller.explain(error, &self.shown))?;
        let mut here = Here {
            raw: if self.is_terminal { Some(Raw::begin()?) } else { None },
            input: if self.has_input { Some(terminal::input()) } else { None },
            is_done: false,
            leaving: Leaving::new(self.keys.clone()),
            resized: signal(SignalKind::window_change()).context("cannot listen for signals")?,
            track: Track::default(),
        };
        let (mut until, mut refusals) = (None, 0);
        loop {
            let is_back = until.is_some();
            let parted = self.talk(connection, &mut here, is_back).await?;
            let given_until = match parted {
                Parted::Exited(code) => return Ok(code),
                Parted::Left => {
                    // Back to the person's own terminal before anything is said on it.
                    here.raw = None;
                    eprintln!("\nleft {}; it goes on", self.shown);
                    return Ok(ExitCode::SUCCESS);
                }
                Parted::Elsewhere if refusals < MOST_REFUSALS => {
                    refusals += 1;
                    sleep(PAUSE).await;
                    *until.get_or_insert_with(|| Instant::now() + AWAY)
                }
                Parted::Elsewhere => return Err(self.broken()),
                Parted::Dropped if !here.track.can_return() => return Err(self.broken()),
                Parted::Dropped => {
                    here.tells(&format!(
                        "the connection to {} broke; trying for a minute to come back, Ctrl-C gives up",
                        self.shown
                    ));
                    refusals = 0;
                    Instant::now() + AWAY
                }
            };
            until = Some(given_until);
            let Some(back) = self.back.as_deref() else { return Err(self.broken()) };
            connection = self.comes_back(controller, back, &mut here, given_until).await?;
        }
    }

    /// Connects again, as often as it takes.
    async fn comes_back(
        &self,
        controller: &Controller,
        back: &str,
        here: &mut Here,
        until: Instant,
    ) -> anyhow::Result<Connection> {
        let attempts = async {
            loop {
                // With connections of its own: the others may lie in the same grave.
                let request = Request::get(back).body(Vec::new())?;
                let client = controller.patient()?.client;
                match timeout(ATTEMPT, client.connect(request)).await {
                    Ok(Ok(connection)) => return Ok(connection),
                    Ok(Err(error @ kube::Error::Api(_))) if !is_passing(&error) => {
                        return Err(controller.explain(error, &self.shown));
                    }
                    Ok(Err(_)) | Err(_) => sleep(PAUSE).await,
                }
            }
        };
        tokio::pin!(attempts);
        loop {
            tokio::select! {
                connected = &mut attempts => return connected,
                () = sleep_until(until) => return Err(self.broken()),
                typed = typed(&mut here.input) => match typed {
                    // There is nobody to pass it on to.
                    Some(typed) if typed.contains(&CTRL_C) => return Err(self.broken()),
                    Some(typed) => {
                        let (passed, leaves) = here.leaving.hears(&typed);
                        if leaves {
                            return Err(self.broken());
                        }
                        // What it is told of as sent and did not arrive is sent again.
                        here.track.types(&passed);
                    }
                    None => (here.input, here.is_done) = (None, true),
                },
            }
        }
    }

    async fn talk(&self, connection: Connection, here: &mut Here, is_back: bool) -> anyhow::Result<Parted> {
        let has_ends = connection.supports_stream_close();
        let (mut says, mut hears) = connection.into_stream().split();
        let mut is_known = !is_back;
        let mut heard = Instant::now();
        if is_back {
            send(&mut says, &[&[SESSION], here.track.wanted().as_bytes()].concat()).await;
        } else if self.is_terminal {
            resize(&mut says).await;
        }
        loop {
            tokio::select! {
                message = timeout_at(heard + SILENCE, hears.next()) => {
                    heard = Instant::now();
                    let message = match message {
                        Ok(Some(Ok(message))) if message.is_close() => return Err(self.broken()),
                        Ok(Some(Ok(message))) if message.is_binary() => message.into_data(),
                        // The controller asks every ten seconds whether we are there.
                        Ok(Some(Ok(_))) => continue,
                        Err(_) if !here.track.can_return() => continue,
                        Ok(Some(Err(_)) | None) | Err(_) if is_known => return Ok(Parted::Dropped),
                        Ok(Some(Err(_)) | None) | Err(_) => return Ok(Parted::Elsewhere),
                    };
                    let Some((channel, data)) = message.split_first() else { continue };
                    match *channel {
                        SESSION => {
                            let gap = here.track.is_told(data)?;
                            if !is_back {
                                continue;
                            }
                            is_known = true;
                            self.goes_on(&mut says, here, gap, has_ends).await?;
                        }
                        STATUS => {
                            let status: Status = serde_json::from_slice(data).context("the end cannot be read")?;
                            if !is_known && status.code == 503 {
                                return Ok(Parted::Elsewhere);
                            }
                            // So that nobody keeps it for us.
                            if here.track.can_return() {
                                let farewell = async {
                                    let _ = says.close().await;
                                    while let Some(Ok(_)) = hears.next().await {}
                                };
                                let _ = timeout(FAREWELL, farewell).await;
                            }
                            return self.ended(&status, here.raw.is_some()).map(Parted::Exited);
                        }
                        _ => {
                            shows(*channel, data)?;
                            here.track.shows(data.len());
                        }
                    }
                }
                typed = typed(&mut here.input), if is_known => {
                    let Some(typed) = typed else {
                        (here.input, here.is_done) = (None, true);
                        if has_ends {
                            send(&mut says, &[CLOSE, STDIN]).await;
                        }
                        continue;
                    };
                    let (passed, leaves) = here.leaving.hears(&typed);
                    if !passed.is_empty() {
                        here.track.types(&passed);
                        send(&mut says, &[&[STDIN], &*passed].concat()).await;
                    }
                    if leaves {
                        let _ = timeout(FAREWELL, says.close()).await;
                        return Ok(Parted::Left);
                    }
                }
                _ = here.resized.recv(), if self.is_terminal => resize(&mut says).await,
            }
        }
    }

    /// Makes up for what was missed, once a session is come back to.
    async fn goes_on<S, M>(
        &self,
        says: &mut SplitSink<S, M>,
        here: &Here,
        gap: Gap,
        has_ends: bool,
    ) -> anyhow::Result<()>
    where
        S: Sink<M>,
        M: From<Vec<u8>>,
    {
        let Gap { lost, untyped } = gap;
        let Some(untyped) = untyped.filter(|_| lost == 0 || self.is_terminal) else {
            // What is piped somewhere must not have a hole.
            let what = format!("{}: it came back, but what was on its way is lost", self.shown);
            return Err(Hinted::new(Ends::Failed, what).into());
        };
        here.tells(&match lost {
            0 => format!("back at {}", self.shown),
            lost => format!("back at {}; {lost} bytes that it showed meanwhile are lost", self.shown),
        });
        for piece in untyped.chunks(terminal::PIECE) {
            send(says, &[&[STDIN], piece].concat()).await;
        }
        if here.is_done && has_ends {
            send(says, &[CLOSE, STDIN]).await;
        }
        if self.is_terminal {
            resize(says).await;
        }
        Ok(())
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

/// The next keys; never where there is no input, or no more.
async fn typed(input: &mut Option<mpsc::Receiver<Vec<u8>>>) -> Option<Vec<u8>> {
    match input {
        Some(input) => input.recv().await,
        None => std::future::pending().await,
    }
}

/// True of a refusal that another attempt may not meet.
fn is_passing(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if matches!(status.code, 429 | 502..=504))
}

/// Writes what the process says.
fn shows(channel: u8, data: &[u8]) -> anyhow::Result<()> {
    match channel {
        STDOUT => pass(&mut std::io::stdout().lock(), data),
        STDERR => pass(&mut std::io::stderr().lock(), data),
        _ => Ok(()),
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
