//! The engine's event stream, reduced to "something changed".

use std::time::Duration;

use ::bollard::query_parameters::EventsOptionsBuilder;
use futures::stream::BoxStream;
use futures::{Stream, StreamExt as _};
use tokio::time::{Instant, sleep, sleep_until};

use super::connection::{Address, Connection};

const AT_MOST_EVERY: Duration = Duration::from_secs(1);
const ANSWER_WITHIN: Duration = Duration::from_secs(10);
/// How often an engine that says nothing is asked whether it lives.
const PING_EVERY: Duration = Duration::from_secs(10);
const PING_WITHIN: Duration = Duration::from_secs(5);
const LOOK_EVERY: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

struct Watcher {
    address: Address,
    stream: Option<(Connection, BoxStream<'static, ()>)>,
    next: Instant,
    pause: Duration,
}

/// One item at once, one for each burst of events, one when the stream ended and one once it could be opened anew.
pub(super) fn changes(address: Address) -> BoxStream<'static, ()> {
    let watcher = Watcher { address, stream: None, next: Instant::now(), pause: AT_MOST_EVERY };
    let later = futures::stream::unfold(watcher, |mut watcher| async move {
        watcher.changed().await;
        Some(((), watcher))
    });
    futures::stream::once(async {}).chain(later).boxed()
}

impl Watcher {
    /// Returns once something may have changed, and not sooner than a second after it last did.
    async fn changed(&mut self) {
        loop {
            let Some((connection, events)) = &mut self.stream else {
                sleep_until(self.next).await;
                self.open();
                if self.answers().await {
                    self.pause = AT_MOST_EVERY;
                    self.next = Instant::now() + AT_MOST_EVERY;
                    return;
                }
                self.stream = None;
                self.next = Instant::now() + self.pause;
                self.pause = (self.pause * 2).min(LONGEST_PAUSE);
                continue;
            };
            let has_ended = tokio::select! {
                event = events.next() => event.is_none(),
                () = silence(&self.address) => true,
            };
            if has_ended {
                tracing::debug!(status = connection.status(), "the engine's event stream ended, or it hangs");
                self.stream = None;
                sleep_until(self.next).await;
                self.next = Instant::now() + AT_MOST_EVERY;
                return;
            }
            // What else comes within the second is the same news.
            let rest = async {
                while events.next().await.is_some() {}
                std::future::pending::<()>().await;
            };
            drop(tokio::time::timeout_at(self.next, rest).await);
            self.next = Instant::now() + AT_MOST_EVERY;
            return;
        }
    }

    /// True once the engine has answered the request for its events.
    async fn answers(&mut self) -> bool {
        let Some((connection, events)) = &mut self.stream else { return false };
        let deadline = Instant::now() + ANSWER_WITHIN;
        while Instant::now() < deadline {
            match tokio::time::timeout(LOOK_EVERY, events.next()).await {
                Ok(Some(())) => return true,
                Ok(None) => return false,
                Err(_) if connection.status() == 200 => return true,
                Err(_) => {}
            }
        }
        false
    }

    /// Events of things people look at: not of exec and health checks, which are constant noise.
    fn open(&mut self) {
        let filters = std::collections::HashMap::from([
            ("type", vec!["container", "image"]),
            (
                "event",
                vec![
                    "create", "start", "die", "destroy", "pause", "unpause", "rename", "update", "restart",
                    "oom", "pull", "tag", "untag", "delete", "import", "load",
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
    options: ::bollard::query_parameters::EventsOptions,
) -> impl Stream<Item = ()> + Send + use<> {
    connection.docker.events(Some(options)).take_while(|event| std::future::ready(event.is_ok())).map(drop)
}
