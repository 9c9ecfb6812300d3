//! A process of a container at one end, a WebSocket at the other, or where its client wants that one WebSocket after the other.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::FromRequestParts as _;
use axum::extract::ws::WebSocketUpgrade;
use axum::response::Response;
use bytes::Bytes;
use gantry_api::agent_v1::{AttachStart, ExecStart, ProcessBegin, ProcessInput, ProcessOutput};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use super::channels;
use super::visit::{Ended, Kind, Visit};
use super::{Ask, Instance, recording};
use crate::apiserver::ApiServer;
use crate::apiserver::authorize::Standing;
use crate::apiserver::failure::{Failure, Outcome};
use crate::gateway::link::{AgentLink, LinkError};
use crate::gateway::streams::FromAgent;

mod client;
mod resume;
mod returns;
mod shelf;
mod talk;

use client::Client;
pub(super) use resume::resume;
pub(super) use returns::Returns;
use returns::{Place, Whose};
use talk::{INPUT_AHEAD, OUTPUT_AHEAD, Parted, Talk};

/// How long a terminal whose connection broke waits for its client.
const AWAY: Duration = Duration::from_secs(60);

/// What a terminal is opened on.
pub(super) enum Start {
    Exec(ExecStart),
    Attach(AttachStart),
}

/// Takes the connection over, once everything is known that can be without the host.
///
/// What the agent says to it is told on the error channel: a browser sees nothing of an answer that is no WebSocket, and kubectl takes it for
/// a server that has none.
pub(super) async fn open(server: &Arc<ApiServer>, mut ask: Ask, start: Start) -> Outcome<Response> {
    if ask.call.params.has("dryRun") {
        return Err(Failure::bad_request("dryRun: this cannot be tried without being done"));
    }
    let link = Arc::clone(server.live().link()?);
    if link.session(ask.instance.uid).is_none() {
        return Err(ask.instance.away());
    }
    let (upgrade, is_v5) = upgrade(&mut ask).await?;
    let command = match &start {
        Start::Exec(start) => start.command.as_slice(),
        Start::Attach(_) => &[],
    };
    let visit = Visit::open(server, &ask, Kind::Terminal, command).await?;
    let place = ask.call.params.is_set("resumable").then(|| {
        let entropy = server.entropy();
        server.live().returns().open(&**entropy, Whose::of(&ask), visit.id())
    });
    let terminal = Terminal {
        link,
        instance: ask.instance,
        start,
        visit,
        standing: ask.standing,
        stopping: server.stopping().clone(),
    };
    let tasks = server.live().tasks().clone();
    Ok(upgrade.on_upgrade(async move |socket| {
        tasks.track_future(terminal.run(Client::new(socket, is_v5), place)).await;
    }))
}

/// The connection, to be taken over, and whether the fifth version is spoken on it.
async fn upgrade(ask: &mut Ask) -> Outcome<(WebSocketUpgrade, bool)> {
    let upgrade = WebSocketUpgrade::from_request_parts(&mut ask.parts, &()).await;
    let upgrade = upgrade.map_err(|_| no_websocket())?.protocols(channels::PROTOCOLS);
    let spoken = upgrade.selected_protocol().and_then(|protocol| protocol.to_str().ok()).map(str::to_owned);
    let spoken = spoken.ok_or_else(no_websocket)?;
    let upgrade = upgrade.max_message_size(channels::LARGEST).max_frame_size(channels::LARGEST);
    Ok((upgrade, spoken == "v5.channel.k8s.io"))
}

fn no_websocket() -> Failure {
    Failure::bad_request(
        "this needs a WebSocket that speaks v5.channel.k8s.io or v4.channel.k8s.io: use kubectl 1.31 or newer, or 1.29 and 1.30 with \
         KUBECTL_REMOTE_COMMAND_WEBSOCKETS=true",
    )
}

/// A client that has come back.
struct Back {
    client: Client,
    /// Bytes of output that it has; everything is wanted where it does not say.
    seen: Option<u64>,
    /// By what it may be here now.
    standing: Standing,
}

struct Terminal {
    link: Arc<dyn AgentLink>,
    instance: Instance,
    start: Start,
    visit: Visit,
    standing: Standing,
    stopping: CancellationToken,
}

/// How a conversation ended, and the last word on it.
#[derive(Clone, Debug)]
struct End {
    ended: Ended,
    exit_code: Option<i32>,
    status: Bytes,
}

impl End {
    fn failed(ended: Ended, failure: &Failure) -> Self {
        Self { ended, exit_code: None, status: channels::failed(failure) }
    }

    /// Nobody is there to be told.
    fn untold(ended: Ended) -> Self {
        Self { ended, exit_code: None, status: Bytes::new() }
    }
}

impl Terminal {
    async fn run(mut self, client: Client, place: Option<(Place, String)>) {
        let mut client = Some(client);
        let end = self.talk(&mut client, place).await;
        self.visit.ends(end.ended, end.exit_code);
        if let Some(client) = client {
            client.farewell(&end).await;
        }
    }

    /// Until one of all those who can end it does. Whatever is open to the agent is closed with it. A client that is left was not told.
    async fn talk(&mut self, client: &mut Option<Client>, place: Option<(Place, String)>) -> End {
        let (inputs, receiver) = mpsc::channel(INPUT_AHEAD + OUTPUT_AHEAD);
        let begun = tokio::select! {
            begun = self.begin(receiver) => begun,
            end = over(&self.standing, &self.visit, &self.stopping) => return end,
        };
        let (begin, outputs) = match begun {
            Ok(begun) => begun,
            Err(error) => return End::failed(Ended::AgentFailed, &self.instance.failed(error)),
        };
        self.visit.is_in(&begin.container_id, &begin.container_name, &begin.command);
        let Self { instance, visit, standing, stopping, .. } = self;
        let talk = Talk::new(instance, visit, inputs, place.is_some());
        // Kubernetes says so that it has begun.
        let mut greeting = vec![channels::message(channels::STDOUT, &[])];
        let mut place = place.map(|(place, token)| {
            greeting.insert(0, channels::session(Some(&token), 0, 0));
            place
        });
        let flow = talk.flow(outputs);
        tokio::pin!(flow);
        loop {
            let back = if let Some(here) = client {
                let parted = tokio::select! {
                    never = &mut flow => match never {},
                    parted = talk.serve(here, std::mem::take(&mut greeting)) => parted,
                    back = comes(&mut place) => Parted::For(back),
                    end = over(standing, visit, stopping) => return end,
                };
                match parted {
                    Parted::End(end) => return end,
                    // Whoever did not hear it may come and ask again.
                    Parted::Over(end) => {
                        let has_heard = match client.take() {
                            Some(client) => client.farewell(&end).await,
                            None => true,
                        };
                        if has_heard || place.is_none() {
                            return end;
                        }
                        None
                    }
                    Parted::Dropped => {
                        *client = None;
                        None
                    }
                    Parted::For(back) => Some(back),
                }
            } else {
                None
            };
            let back = if let Some(back) = back {
                back
            } else {
                let is_left = place.as_ref().and_then(Place::is_left);
                let Some(_left) = is_left else {
                    return talk.shelf.ended().unwrap_or_else(|| End::untold(Ended::ClientLeft));
                };
                talk.shelf.is_left();
                tokio::select! {
                    never = &mut flow => match never {},
                    back = comes(&mut place) => back,
                    end = over(standing, visit, stopping) => return end,
                    () = sleep_until(Instant::now() + AWAY) => {
                        return talk.shelf.ended().unwrap_or_else(|| End::untold(Ended::ClientLeft));
                    }
                }
            };
            if let Some(old) = client.replace(back.client) {
                old.gives_way().await;
            }
            *standing = back.standing;
            let Some(from) = talk.shelf.goes_back(back.seen) else {
                let failure = Failure::bad_request("output: so much was not said yet");
                return End::failed(Ended::Misspoken, &failure);
            };
            greeting = vec![channels::session(None, talk.typed(), from)];
        }
    }

    async fn begin(
        &self,
        inputs: mpsc::Receiver<ProcessInput>,
    ) -> Result<(ProcessBegin, FromAgent<ProcessOutput>), LinkError> {
        match &self.start {
            Start::Exec(start) => self.link.exec(self.instance.uid, start.clone(), inputs).await,
            Start::Attach(start) => self.link.attach(self.instance.uid, start.clone(), inputs).await,
        }
    }
}

/// Whoever comes back to a place; nobody where there is none.
async fn comes(place: &mut Option<Place>) -> Back {
    match place {
        Some(place) => place.comes().await,
        None => std::future::pending().await,
    }
}

/// Whatever ends a terminal from outside.
async fn over(standing: &Standing, visit: &Visit, stopping: &CancellationToken) -> End {
    tokio::select! {
        lost = standing.ended() => End::failed(Ended::RightLost, &lost),
        () = visit.is_unrecorded() => End::failed(Ended::Unrecorded, &recording::unrecorded()),
        () = stopping.cancelled() => {
            End::failed(Ended::Stopping, &Failure::unavailable("this server is stopping: open it again"))
        }
    }
}
