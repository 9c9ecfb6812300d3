//! Somebody who looks into a container: counted, bounded in number, recorded when they come and when they go.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use gantry_api::agent_v1::{OutputStream, TerminalSize};
use parking_lot::Mutex;
use prometheus::IntGauge;
use serde_json::{Value, json};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::task::TaskTracker;
use uuid::Uuid;

use super::Ask;
use super::recording::{self, Extent, Recorder};
use crate::apiserver::ApiServer;
use crate::apiserver::failure::{Failure, Outcome};
use crate::audit::{self, Sink, Ticket};
use crate::storage::audit::Record;

/// Logs that are open at once, on this replica. Half a megabyte each where its client does not read.
const MOST_LOGS: usize = 2_000;
/// Terminals at once; a megabyte each where its client does not read, and one or two more where it may come back.
const MOST_TERMINALS: usize = 1_000;
/// Clients that connect to ports, at once; half a megabyte each for every connection that is not read.
const MOST_FORWARDS: usize = 500;
/// Figures at once.
const MOST_FIGURES: usize = 1_000;
/// Arguments of a command that are told.
const MOST_TOLD: usize = 64;

/// What is opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Logs,
    Terminal,
    Forward,
    Figures,
}

/// How many there may be.
#[derive(Debug)]
pub(super) struct Rooms {
    logs: Arc<Semaphore>,
    terminals: Arc<Semaphore>,
    forwards: Arc<Semaphore>,
    figures: Arc<Semaphore>,
}

impl Default for Rooms {
    fn default() -> Self {
        Self {
            logs: Arc::new(Semaphore::new(MOST_LOGS)),
            terminals: Arc::new(Semaphore::new(MOST_TERMINALS)),
            forwards: Arc::new(Semaphore::new(MOST_FORWARDS)),
            figures: Arc::new(Semaphore::new(MOST_FIGURES)),
        }
    }
}

/// Why a visit ended, in one word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ended {
    /// What was looked at has ended.
    Complete,
    /// Nothing was said for too long.
    Idle,
    /// The client left.
    ClientLeft,
    /// The client did not read.
    Unread,
    /// The client said what it must not.
    Misspoken,
    /// Whoever looks may no longer.
    RightLost,
    /// The agent could not, or is gone.
    AgentFailed,
    /// This server stops.
    Stopping,
    /// It is recorded, and that cannot be any more.
    Unrecorded,
}

impl Ended {
    fn outcome(self) -> audit::Outcome {
        match self {
            Self::Complete | Self::Idle | Self::ClientLeft | Self::Stopping => audit::Outcome::Success,
            Self::Unread | Self::Misspoken | Self::AgentFailed | Self::Unrecorded => audit::Outcome::Failure,
            Self::RightLost => audit::Outcome::Denied,
        }
    }

    fn as_str(self) -> &'static str {
        match self {
            Self::Complete => "Complete",
            Self::Idle => "Idle",
            Self::ClientLeft => "ClientLeft",
            Self::Unread => "Unread",
            Self::Misspoken => "Misspoken",
            Self::RightLost => "RightLost",
            Self::AgentFailed => "AgentFailed",
            Self::Stopping => "Stopping",
            Self::Unrecorded => "Unrecorded",
        }
    }
}

/// The one place that every byte passes on its way to a process and back.
#[derive(Debug, Default)]
pub(crate) struct Passage {
    typed: AtomicU64,
    shown: AtomicU64,
}

impl Passage {
    /// Input for a process.
    pub fn typed(&self, data: &[u8]) {
        self.typed.fetch_add(data.len() as u64, Ordering::Relaxed);
    }

    /// Output of a process, or of a log.
    pub fn shown(&self, _stream: OutputStream, data: &[u8]) {
        self.shown.fetch_add(data.len() as u64, Ordering::Relaxed);
    }
}

/// One visit. Its end is recorded when it is dropped, however that comes about.
pub(crate) struct Visit {
    /// As the audit log has it; nil of what that does not have.
    id: Uuid,
    pub passage: Passage,
    known: Mutex<Known>,
    record: Option<Account>,
    recorder: Option<Recorder>,
    gauge: IntGauge,
    _room: OwnedSemaphorePermit,
}

struct Known {
    parameters: BTreeMap<String, Value>,
    ended: Ended,
}

struct Account {
    ticket: Arc<Ticket>,
    sink: Sink,
    tasks: TaskTracker,
}

impl Visit {
    /// Lets somebody in: 429 where too many are, 503 where it cannot be recorded. Figures are not recorded.
    pub async fn open(server: &ApiServer, ask: &Ask, kind: Kind, command: &[String]) -> Outcome<Self> {
        let rooms = server.live().rooms();
        let (room, label) = match kind {
            Kind::Logs => (&rooms.logs, "logs"),
            Kind::Terminal => (&rooms.terminals, "terminal"),
            Kind::Forward => (&rooms.forwards, "forward"),
            Kind::Figures => (&rooms.figures, "stats"),
        };
        let room = Arc::clone(room).try_acquire_owned().map_err(|_| Failure::too_many_requests())?;
        let mut parameters = BTreeMap::from([("container".to_owned(), told(&ask.called))]);
        if !command.is_empty() {
            let words: Vec<Value> = command.iter().take(MOST_TOLD).map(|word| told(word)).collect();
            parameters.insert("command".to_owned(), words.into());
        }
        let record = (kind != Kind::Figures).then(|| Account {
            ticket: Arc::clone(&ask.call.ticket),
            sink: server.audit().clone(),
            tasks: server.live().tasks().clone(),
        });
        let extent = match kind {
            Kind::Terminal => recording::extent(server, &ask.call.key("").namespace).await?,
            Kind::Logs | Kind::Forward | Kind::Figures => Extent::None,
        };
        let (mut recorder, mut visit) = (None, Uuid::nil());
        if let Some(Account { ticket, sink, .. }) = &record {
            let id = server.entropy().uuid();
            if extent > Extent::None {
                parameters.insert("recording".to_owned(), id.to_string().into());
            }
            let opened = ticket.of_engine(at(&parameters, "open"), None, audit::Outcome::Success, "");
            visit = opened.id;
            if extent > Extent::None {
                recorder = Some(Recorder::open(server, id, &opened, extent).await?);
            }
            if !sink.settle(opened, true).await {
                return Err(Failure::unavailable(
                    "the audit log cannot be written now, so nobody looks into containers; try again",
                ));
            }
            ticket.is_stored();
        }
        let gauge = server.metrics().live_streams.with_label_values(&[label]);
        gauge.inc();
        let known = Mutex::new(Known { parameters, ended: Ended::ClientLeft });
        Ok(Self { id: visit, passage: Passage::default(), known, record, recorder, gauge, _room: room })
    }

    /// What the audit log calls it.
    pub fn id(&self) -> Uuid {
        self.id
    }

    /// Output, before its client sees it.
    pub async fn shown(&self, stream: OutputStream, data: &Bytes) {
        self.passage.shown(stream, data);
        if let Some(recorder) = &self.recorder {
            recorder.shown(data).await;
        }
    }

    /// Input, before it is passed on.
    pub async fn typed(&self, data: &Bytes) {
        self.passage.typed(data);
        if let Some(recorder) = &self.recorder {
            recorder.typed(data).await;
        }
    }

    /// The client's window.
    pub async fn sized(&self, size: TerminalSize) {
        if let Some(recorder) = &self.recorder {
            recorder.sized(size.width, size.height).await;
        }
    }

    /// Once nothing more can be recorded of what is; never where nothing is.
    pub async fn is_unrecorded(&self) {
        recording::broken(self.recorder.as_ref()).await;
    }

    /// Which container it turned out to be, and what runs there.
    pub fn is_in(&self, id: &str, name: &str, command: &[String]) {
        let parameters = &mut self.known.lock().parameters;
        parameters.insert("containerID".to_owned(), told(id));
        parameters.insert("containerName".to_owned(), told(name));
        if !command.is_empty() {
            let words: Vec<Value> = command.iter().take(MOST_TOLD).map(|word| told(word)).collect();
            parameters.insert("command".to_owned(), words.into());
        }
    }

    /// A port that is connected to.
    pub fn reaches(&self, port: u16) {
        let parameters = &mut self.known.lock().parameters;
        let ports = parameters.entry("ports".to_owned()).or_insert_with(|| json!([]));
        if let Some(ports) = ports.as_array_mut().filter(|ports| ports.len() < MOST_TOLD)
            && !ports.contains(&port.into())
        {
            ports.push(port.into());
        }
    }

    /// How it ends; without that the client has left.
    pub fn ends(&self, ended: Ended, exit_code: Option<i32>) {
        let mut known = self.known.lock();
        known.ended = ended;
        if let Some(code) = exit_code {
            known.parameters.insert("exitCode".to_owned(), code.into());
        }
    }
}

impl Drop for Visit {
    fn drop(&mut self) {
        self.gauge.dec();
        let Some(Account { ticket, sink, tasks }) = self.record.take() else { return };
        let recorder = self.recorder.take();
        let known = self.known.get_mut();
        let mut parameters = at(&known.parameters, "close");
        let count = |bytes: &AtomicU64| json!(bytes.load(Ordering::Relaxed));
        parameters.insert("bytesIn".to_owned(), count(&self.passage.typed));
        parameters.insert("bytesOut".to_owned(), count(&self.passage.shown));
        let ended = known.ended;
        tasks.spawn(async move {
            if let Some(recorder) = recorder {
                recording::tell(&mut parameters, recorder.finish(ended.as_str()).await);
            }
            let closed = ticket.of_engine(parameters, None, ended.outcome(), ended.as_str());
            sink.settle(closed, true).await
        });
    }
}

fn at(parameters: &BTreeMap<String, Value>, phase: &str) -> BTreeMap<String, Value> {
    let mut parameters = parameters.clone();
    parameters.insert("phase".to_owned(), phase.into());
    parameters
}

fn told(text: &str) -> Value {
    Record::column(text).into()
}
