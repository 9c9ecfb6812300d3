//! Terminals that are recorded: what was shown, and where that is wanted what was typed, sealed in the database.
//!
//! Whether one is recorded is decided when it is opened, by a label of its namespace and by how the controller was started, and not again:
//! what is recorded then stays so until it ends. Everything passes the recorder before a client sees it, and where it cannot be stored the
//! terminal ends.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::time::Duration;

use bytes::Bytes;
use clap::ValueEnum;
use flate2::Compression;
use flate2::write::{ZlibDecoder, ZlibEncoder};
use futures::StreamExt as _;
use gantry_api::names::RECORD_TERMINALS_LABEL;
use gantry_api::v1alpha1::{AuditEvent, TerminalSession};
use jiff::{SignedDuration, Timestamp};
use serde_json::Value;
use sha2::{Digest as _, Sha256};
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, MissedTickBehavior, interval, timeout};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::apiserver::ApiServer;
use crate::apiserver::failure::{Failure, Outcome};
use crate::pki::hex;
use crate::storage::audit::Record;
use crate::storage::recordings::{Opening, PATIENCE, Pieces, Tape};
use crate::storage::{Key, StorageError};

mod cast;
pub(crate) mod frames;
pub(crate) mod windows;

use cast::Cast;

/// Frames that wait to be written before whoever shows and types has to.
const FRAMES: usize = 32;
/// Of a recording in clear. A terminal that shows more ends, since nobody may do unseen what comes after a flood.
const MOST: u64 = 256 << 20;
/// What is gathered before it is stored, and for how long.
const PIECE: usize = 64 << 10;
const GATHERED_WITHIN: Duration = Duration::from_secs(1);
/// How often a recording of which nothing comes says that it goes on.
const HEARTBEAT: Duration = Duration::from_secs(20);
/// Without a word for so long a recording counts as broken off.
const LOST_AFTER: SignedDuration = SignedDuration::from_secs(60);
/// Why a recording ended that nobody ended.
pub(crate) const INTERRUPTED: &str = "Interrupted";
/// Before what could not be stored is tried again.
const RETRY: Duration = Duration::from_millis(500);
/// For the last piece.
const FINISHED_WITHIN: Duration = Duration::from_secs(15);

/// How much of a terminal is recorded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub enum Extent {
    /// Nothing.
    #[default]
    None,
    /// What is shown.
    Output,
    /// What is typed too, passwords among it.
    All,
}

impl Extent {
    /// As a namespace says it.
    fn of_label(value: Option<&str>) -> Self {
        match value {
            None => Self::None,
            Some("output") => Self::Output,
            // No other value is let in; one that is there nevertheless must not keep anybody from being recorded.
            Some(_) => Self::All,
        }
    }

    /// True if that is what the label may say.
    pub(crate) fn is_label(value: &str) -> bool {
        matches!(value, "output" | "all")
    }
}

/// True of a recording that nobody keeps any more, though it did not end.
pub(crate) fn is_lost(heard_at: Timestamp, now: Timestamp) -> bool {
    now.duration_since(heard_at) > LOST_AFTER
}

/// What is to be recorded in that namespace now; 503 where the newest state is unknown.
pub(crate) async fn extent(server: &ApiServer, namespace: &str) -> Outcome<Extent> {
    server.caught_up().await?;
    let namespace = server.store().cache().get(&Key::namespace(namespace));
    let label = namespace.as_ref().and_then(|namespace| namespace.labels.get(RECORD_TERMINALS_LABEL));
    Ok(Extent::of_label(label).max(server.live().least_recorded()))
}

/// What is known of a terminal from the record of its beginning.
fn told(record: &Record, extent: Extent) -> String {
    let event: AuditEvent = serde_json::from_str(&record.content).unwrap_or_default();
    let text = |value: Option<&Value>| value.and_then(Value::as_str).unwrap_or_default().to_owned();
    let parameter = |name: &str| event.parameters.get(name);
    let container = match parameter("container") {
        Some(name) => text(Some(name)),
        None => text(parameter("target").and_then(|target| target.get("name"))),
    };
    let command = parameter("command").and_then(Value::as_array).into_iter().flatten();
    let session = TerminalSession {
        action: record.action.clone(),
        container,
        command: command.map(|word| text(Some(word))).collect(),
        input: extent == Extent::All,
        audit_id: record.id.to_string(),
        groups: event.groups,
        impersonator: event.impersonator,
        source_ip: event.source_ip,
        user_agent: event.user_agent,
        ..TerminalSession::default()
    };
    serde_json::to_string(&session).unwrap_or_default()
}

enum Frame {
    Shown(Duration, Bytes),
    Typed(Duration, Bytes),
    Sized(Duration, u32, u32),
    End(&'static str),
}

/// Takes the sizes of a window from elsewhere, for as long as its recording lasts.
#[derive(Debug)]
pub(crate) struct Sizes {
    frames: mpsc::WeakSender<Frame>,
    begun: Instant,
}

impl Sizes {
    /// The window's size.
    pub async fn take(&self, columns: u32, rows: u32) {
        if let Some(frames) = self.frames.upgrade() {
            // A recording that cannot be written ends by itself.
            frames.send(Frame::Sized(self.begun.elapsed(), columns, rows)).await.ok();
        }
    }
}

/// What became of a recording.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Recorded {
    /// SHA-256 of it in clear.
    pub digest: [u8; 32],
    /// How long it is.
    pub bytes: u64,
}

/// Takes what is shown and typed in one terminal.
pub(crate) struct Recorder {
    frames: mpsc::Sender<Frame>,
    begun: Instant,
    takes_input: bool,
    broken: CancellationToken,
    recorded: oneshot::Receiver<Recorded>,
}

impl Recorder {
    /// Begins a recording; 503 where that cannot be stored. `record` is that of the beginning, and is told to nobody who may not read the
    /// recording.
    pub async fn open(server: &ApiServer, id: Uuid, record: &Record, extent: Extent) -> Outcome<Self> {
        let opening = Opening {
            id,
            namespace: record.namespace.clone(),
            instance: record.instance.clone(),
            user: record.user.clone(),
            content: told(record, extent),
        };
        let tape = server.store().tapes().open(&opening).await.map_err(|error| {
            tracing::warn!(error = %error.chain(), "a terminal cannot be recorded");
            Failure::unavailable(
                "terminals of this namespace are recorded, and the recording cannot be written now; try again",
            )
        })?;
        let (frames, queued) = mpsc::channel(FRAMES);
        let (tell, recorded) = oneshot::channel();
        let broken = CancellationToken::new();
        let title = format!("{} in {}/{}", record.action, record.namespace, record.instance);
        let writer = Writer {
            tape,
            cast: Cast::new(server.now(), &title),
            digest: Sha256::new(),
            bytes: 0,
            stored: Instant::now(),
        };
        let ends = broken.clone();
        server.live().tasks().spawn(async move {
            match writer.run(queued).await {
                Ok(recorded) => drop(tell.send(recorded)),
                Err(why) => {
                    tracing::warn!(recording = %id, why, "a recorded terminal ends");
                    ends.cancel();
                }
            }
        });
        let takes_input = extent == Extent::All;
        Ok(Self { frames, begun: Instant::now(), takes_input, broken, recorded })
    }

    async fn take(&self, frame: Frame) {
        // Who cannot write it says so by `broken`, and nothing more is shown.
        if self.frames.send(frame).await.is_err() {
            self.broken.cancelled().await;
        }
    }

    /// Output, before anybody sees it.
    pub async fn shown(&self, data: &Bytes) {
        self.take(Frame::Shown(self.begun.elapsed(), data.clone())).await;
    }

    /// Input, before it is passed on.
    pub async fn typed(&self, data: &Bytes) {
        if self.takes_input {
            self.take(Frame::Typed(self.begun.elapsed(), data.clone())).await;
        }
    }

    /// The client's window.
    pub async fn sized(&self, columns: u32, rows: u32) {
        self.take(Frame::Sized(self.begun.elapsed(), columns, rows)).await;
    }

    /// Where others can tell the window's size.
    pub fn sizes(&self) -> Sizes {
        Sizes { frames: self.frames.downgrade(), begun: self.begun }
    }

    /// Once nothing more can be recorded, so that nothing more may flow.
    pub async fn broken(&self) {
        self.broken.cancelled().await;
    }

    /// Stores the rest; what it is, where that could be.
    pub async fn finish(self, reason: &'static str) -> Option<Recorded> {
        let finished = async {
            self.frames.send(Frame::End(reason)).await.ok()?;
            self.recorded.await.ok()
        };
        timeout(FINISHED_WITHIN, finished).await.ok().flatten()
    }
}

/// What the record of the end says of a recording: its digest lies in the chain of the audit log then, so that one that is changed is
/// found.
pub(crate) fn tell(parameters: &mut BTreeMap<String, Value>, recorded: Option<Recorded>) {
    let Some(Recorded { digest, bytes }) = recorded else { return };
    parameters.insert("recordingSHA256".to_owned(), hex(&digest).into());
    parameters.insert("recordingBytes".to_owned(), bytes.into());
}

/// Once a recorder cannot record any more; never where there is none.
pub(crate) async fn broken(recorder: Option<&Recorder>) {
    match recorder {
        Some(recorder) => recorder.broken().await,
        None => std::future::pending().await,
    }
}

/// That a terminal ends because of that.
pub(crate) fn unrecorded() -> Failure {
    Failure::unavailable(
        "this terminal is recorded, and its recording cannot be written any more, or is full, so it ends: open another",
    )
}

struct Writer {
    tape: Box<dyn Tape>,
    cast: Cast,
    digest: Sha256,
    bytes: u64,
    /// When something was stored last.
    stored: Instant,
}

impl Writer {
    async fn run(mut self, mut frames: mpsc::Receiver<Frame>) -> Result<Recorded, &'static str> {
        let mut due = interval(GATHERED_WITHIN);
        due.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let reason = loop {
            let is_due = tokio::select! {
                frame = frames.recv() => match frame {
                    Some(Frame::Shown(at, data)) => { self.cast.shown(at, &data); false }
                    Some(Frame::Typed(at, data)) => { self.cast.typed(at, &data); false }
                    Some(Frame::Sized(at, columns, rows)) => { self.cast.sized(at, columns, rows); false }
                    Some(Frame::End(reason)) => break reason,
                    None => break INTERRUPTED,
                },
                _ = due.tick() => true,
            };
            if self.cast.len() >= PIECE || (is_due && self.cast.len() > 0) {
                self.store().await?;
            } else if is_due && self.stored.elapsed() >= HEARTBEAT {
                self.put(&[]).await?;
            }
            if self.bytes > MOST {
                self.close("Full").await?;
                return Err("its recording is full");
            }
        };
        self.cast.end();
        if self.cast.len() > 0 {
            self.store().await?;
        }
        self.close(reason).await
    }

    async fn store(&mut self) -> Result<(), &'static str> {
        let piece = self.cast.take();
        self.digest.update(&piece);
        self.bytes += piece.len() as u64;
        let packed = pack(&piece).map_err(|_| "it cannot be packed")?;
        self.put(&packed).await
    }

    /// Tries for a while: a database may be away for as long as it takes to have another lead.
    async fn put(&mut self, packed: &[u8]) -> Result<(), &'static str> {
        let until = Instant::now() + PATIENCE;
        loop {
            match self.tape.append(packed).await {
                Ok(()) => {
                    self.stored = Instant::now();
                    return Ok(());
                }
                Err(StorageError::Rewound) => return Err("its recording is gone from the database"),
                Err(_) if Instant::now() < until => tokio::time::sleep(RETRY).await,
                Err(_) => return Err("the database does not answer"),
            }
        }
    }

    async fn close(&mut self, reason: &str) -> Result<Recorded, &'static str> {
        let digest: [u8; 32] = self.digest.clone().finalize().into();
        self.tape.close(reason, digest).await.map_err(|_| "its end cannot be stored")?;
        Ok(Recorded { digest, bytes: self.bytes })
    }
}

fn pack(piece: &[u8]) -> std::io::Result<Vec<u8>> {
    let mut encoder = ZlibEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(piece)?;
    encoder.finish()
}

fn unpack(packed: &[u8]) -> std::io::Result<Vec<u8>> {
    let mut decoder = ZlibDecoder::new(Vec::new());
    decoder.write_all(packed)?;
    decoder.finish()
}

/// A recording as asciicast v2, piece by piece.
pub(crate) fn played(pieces: Pieces) -> impl futures::Stream<Item = std::io::Result<Vec<u8>>> {
    pieces.map(|piece| match piece {
        Ok(packed) => unpack(&packed),
        Err(error) => Err(std::io::Error::other(error.chain())),
    })
}
