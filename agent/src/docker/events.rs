//! The engine's event stream, reduced to what has to be looked at again.

use std::collections::{BTreeSet, HashMap};
use std::time::Duration;

use ::bollard::models::{EventMessage, EventMessageTypeEnum};
use ::bollard::query_parameters::{EventsOptions, EventsOptionsBuilder};
use futures::stream::BoxStream;
use futures::{Stream, StreamExt as _};
use tokio::time::{Instant, sleep, sleep_until};

use super::connection::{Address, Connection};

const ANSWER_WITHIN: Duration = Duration::from_secs(10);
/// How often an engine that says nothing is asked whether it lives.
const PING_EVERY: Duration = Duration::from_secs(10);
const PING_WITHIN: Duration = Duration::from_secs(5);
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// Between two tries to open the stream.
const SHORTEST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);
/// Containers of one burst that are told by name; with more, everything is to be looked at.
const MOST_NAMED: usize = 100;

/// What may have changed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Happened {
    /// Events may have been missed.
    pub everything: bool,
    /// Ids of containers.
    pub containers: BTreeSet<String>,
    /// Some image.
    pub images: bool,
    /// Some network.
    pub networks: bool,
    /// Some volume.
    pub volumes: bool,
}

impl Happened {
    /// Events may have been missed.
    pub fn everything() -> Self {
        Self { everything: true, ..Self::default() }
    }

    fn add(&mut self, event: EventMessage) {
        let actor = event.actor.unwrap_or_default();
        match event.typ {
            Some(EventMessageTypeEnum::CONTAINER) => self.containers.extend(actor.id),
            Some(EventMessageTypeEnum::IMAGE) => self.images = true,
            Some(EventMessageTypeEnum::NETWORK) => {
                self.networks = true;
                // That was connected or disconnected.
                self.containers.extend(actor.attributes.unwrap_or_default().remove("container"));
            }
            Some(EventMessageTypeEnum::VOLUME) => self.volumes = true,
            _ => {}
        }
        self.everything |= self.containers.len() > MOST_NAMED;
    }
}

struct Watcher {
    address: Address,
    /// Least time between two bursts.
    pace: Duration,
    stream: Option<(Connection, BoxStream<'static, EventMessage>)>,
    next: Instant,
    pause: Duration,
}

/// One item at once, one for each burst of events, one when the stream ended and one once it could be opened anew.
pub(super) fn happenings(address: Address, pace: Duration) -> BoxStream<'static, Happened> {
    let watcher = Watcher { address, pace, stream: None, next: Instant::now(), pause: SHORTEST_PAUSE };
    let later = futures::stream::unfold(watcher, |mut watcher| async move {
        let happened = watcher.happened().await;
        Some((happened, watcher))
    });
    futures::stream::once(async { Happened::everything() }).chain(later).boxed()
}

impl Watcher {
    /// Returns once something may have changed, and not sooner than the pace allows.
    async fn happened(&mut self) -> Happened {
        loop {
            let Some((connection, events)) = &mut self.stream else {
                sleep_until(self.next).await;
                self.open();
                if self.answers().await {
                    self.pause = SHORTEST_PAUSE;
                    self.next = Instant::now() + self.pace;
                    return Happened::everything();
                }
                self.stream = None;
                self.next = Instant::now() + self.pause;
                self.pause = (self.pause * 2).min(LONGEST_PAUSE);
                continue;
            };
            let first = tokio::select! {
                event = events.next() => event,
                () = silence(&self.address) => None,
            };
            let Some(first) = first else {
                tracing::debug!(status = connection.status(), "the engine's event stream ended, or it hangs");
                self.stream = None;
                sleep_until(self.next).await;
                self.next = Instant::now() + SHORTEST_PAUSE;
                return Happened::everything();
            };
            let mut happened = Happened::default();
            happened.add(first);
            // What else comes within the pace is of the same burst.
            let rest = async {
                while let Some(event) = events.next().await {
                    happened.add(event);
                }
                std::future::pending::<()>().await;
            };
            drop(tokio::time::timeout_at(self.next, rest).await);
            self.next = Instant::now() + self.pace;
            return happened;
        }
    }

    /// True once the engine has answered the request for its events.
    async fn answers(&mut self) -> bool {
        let Some((connection, events)) = &mut self.stream else { return false };
        let deadline = Instant::now() + ANSWER_WITHIN;
        while Instant::now() < deadline {
            match tokio::time::timeout(LOOK_EVERY, events.next()).await {
                Ok(Some(_)) => return true,
                Ok(None) => return false,
                Err(_) if connection.status() == 200 => return true,
                Err(_) => {}
            }
        }
        false
    }

    /// Events of what lists show: not of exec, nor of the runs of health checks, which are constant noise.
    fn open(&mut self) {
        let filters = HashMap::from([
            ("type", vec!["container", "image", "network", "volume"]),
            (
                "event",
                vec![
                    "create",
                    "start",
                    "die",
                    "destroy",
                    "pause",
                    "unpause",
                    "rename",
                    "update",
                    "restart",
                    "oom",
                    "pull",
                    "tag",
                    "untag",
                    "delete",
                    "import",
                    "load",
                    "health_status",
                    "connect",
                    "disconnect",
                    "remove",
                    "prune",
                ],
            ),
        ]);
        let Ok(connection) = Connection::new(&self.address) else { return };
        let options = EventsOptionsBuilder::default().filters(&filters).build();
        let events: BoxStream<'static, _> = stream(&connection, options).fuse().boxed();
        self.stream = Some((connection, events));
    }
}

/// Returns once the engine does not answer: one that hangs keeps its event stream open and says nothing there.
async fn silence(address: &Address) {
    loop {
        sleep(PING_EVERY).await;
        let Ok(connection) = Connection::new(address) else { continue };
        if !matches!(tokio::time::timeout(PING_WITHIN, connection.docker.ping()).await, Ok(Ok(_))) {
            return;
        }
    }
}

fn stream(
    connection: &Connection,
    options: EventsOptions,
) -> impl Stream<Item = EventMessage> + Send + use<> {
    connection.docker.events(Some(options)).scan((), |(), event| std::future::ready(event.ok()))
}
