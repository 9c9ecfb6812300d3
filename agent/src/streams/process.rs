//! The conversation with a process: its standard streams and its terminal, until it exits, is let go of, or nobody says anything.
//!
//! Each side says what it has taken, so that neither holds more than a few messages for one that does not read.

use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures::StreamExt as _;
use futures::stream::BoxStream;
use gantry_api::agent_v1::process_input::Input;
use gantry_api::agent_v1::process_output::Output;
use gantry_api::agent_v1::{EndReason, OutputStream, ProcessEnd, ProcessInput, ProcessOutput, TerminalSize};
use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, watch};
use tokio::time::{Instant, sleep, sleep_until};
use tokio_util::task::AbortOnDropHandle;
use tonic::Status;

use super::frames::Frames;
use super::{Answer, broken};
use crate::docker::DockerError;
use crate::docker::streams::{Io, ProcessId, ProcessState, Streams};

/// Messages with output that may be sent beyond those that were taken.
const OUTPUT_AHEAD: usize = 16;
/// The same of input.
const INPUT_AHEAD: usize = 32;
/// Longest message.
const MESSAGE: usize = 64 << 10;
/// Waits for Docker to know that a process, whose output has ended, has exited.
const EXIT_MS: [u64; 6] = [0, 10, 40, 150, 600, 1_200];

/// A process that is connected.
pub(super) struct Process {
    pub(super) engine: Arc<dyn Streams>,
    pub(super) id: ProcessId,
    pub(super) io: Box<dyn Io>,
    pub(super) tty: bool,
    /// Whether input is passed on; it is taken anyhow.
    pub(super) has_stdin: bool,
    pub(super) size: Option<TerminalSize>,
    pub(super) idle: Duration,
    pub(super) permit: OwnedSemaphorePermit,
}

/// What a caller says once a process has begun.
pub(super) type Inputs = BoxStream<'static, Result<ProcessInput, Status>>;

impl Process {
    /// What comes of it. Dropping that ends the conversation.
    pub(super) fn converse(self, inputs: Inputs) -> Answer<ProcessOutput> {
        // Whatever may be on its way at once has room, so that nothing but the count of what was taken holds anybody up.
        let (sender, receiver) = mpsc::channel(OUTPUT_AHEAD + INPUT_AHEAD + 1);
        let task = AbortOnDropHandle::new(tokio::spawn(self.run(inputs, sender)));
        futures::stream::unfold((receiver, task), async |(mut receiver, task)| {
            let output = receiver.recv().await?;
            Some((output, (receiver, task)))
        })
        .boxed()
    }

    async fn run(self, inputs: Inputs, sender: mpsc::Sender<Result<ProcessOutput, Status>>) {
        let Self { engine, id, io, tty, has_stdin, size, idle, permit: _permit } = self;
        let (reading, writing) = tokio::io::split(io);
        let talk = Talk { sender, room: Semaphore::new(OUTPUT_AHEAD), last: Mutex::new(Instant::now()) };
        let (stdin, typed) = mpsc::channel(INPUT_AHEAD);
        let (resize, sizes) = watch::channel(size);
        let outcome = tokio::select! {
            read = talk.read(reading, tty) => match read {
                Ok(()) => exit(&*engine, &id).await,
                Err(status) => Err(status),
            },
            status = talk.listen(inputs, stdin, resize) => Err(status),
            () = talk.write(writing, typed, has_stdin) => Ok(ended(EndReason::Detached, None)),
            () = fit(&*engine, &id, sizes) => Ok(ended(EndReason::Detached, None)),
            () = talk.falls_idle(idle) => Ok(ended(EndReason::Idle, None)),
        };
        let last = outcome.map(|end| ProcessOutput { output: Some(Output::End(end)) });
        talk.sender.send(last).await.ok();
    }
}

fn ended(reason: EndReason, exit_code: Option<i32>) -> ProcessEnd {
    ProcessEnd { reason: reason.into(), exit_code }
}

/// How a process ended whose output has.
async fn exit(engine: &dyn Streams, id: &ProcessId) -> Result<ProcessEnd, Status> {
    for wait in EXIT_MS {
        sleep(Duration::from_millis(wait)).await;
        match engine.process(id).await {
            Ok(ProcessState::Running) => {}
            Ok(ProcessState::Exited(code)) => return Ok(ended(EndReason::Exited, code)),
            // A container that is removed as it exits.
            Err(DockerError::NoSuchTarget(_) | DockerError::Refused { status: 404, .. }) => {
                return Ok(ended(EndReason::Exited, None));
            }
            Err(error) => return Err(broken(error)),
        }
    }
    Ok(ended(EndReason::Detached, None))
}

/// Keeps the terminal as large as it was last said to be. Never returns.
async fn fit(engine: &dyn Streams, id: &ProcessId, mut sizes: watch::Receiver<Option<TerminalSize>>) {
    sizes.mark_changed();
    while sizes.changed().await.is_ok() {
        let size = *sizes.borrow_and_update();
        let fits = |side: u32| u16::try_from(side).ok().filter(|side| *side > 0);
        let Some((width, height)) = size.and_then(|size| fits(size.width).zip(fits(size.height))) else {
            continue;
        };
        if let Err(error) = engine.resize(id, width, height).await {
            tracing::debug!(%error, "a terminal keeps its size");
        }
    }
    std::future::pending::<()>().await;
}

struct Talk {
    sender: mpsc::Sender<Result<ProcessOutput, Status>>,
    /// For output that nobody has taken yet.
    room: Semaphore,
    /// When something went either way.
    last: Mutex<Instant>,
}

impl Talk {
    fn is_active(&self) {
        *self.last.lock() = Instant::now();
    }

    async fn falls_idle(&self, idle: Duration) {
        loop {
            let until = *self.last.lock() + idle;
            if Instant::now() >= until {
                return;
            }
            sleep_until(until).await;
        }
    }

    async fn say(&self, output: Output) {
        self.sender.send(Ok(ProcessOutput { output: Some(output) })).await.ok();
    }

    /// One message with output, once there is room for it.
    async fn tell(&self, stream: OutputStream, data: Bytes) {
        if let Ok(permit) = self.room.acquire().await {
            permit.forget();
        }
        self.is_active();
        self.say(if stream == OutputStream::Stderr { Output::Stderr(data) } else { Output::Stdout(data) })
            .await;
    }

    /// Passes output on until it ends.
    async fn read(&self, mut from: impl AsyncRead + Unpin, tty: bool) -> Result<(), Status> {
        let mut frames = Frames::default();
        let mut buffer = BytesMut::new();
        loop {
            buffer.reserve(MESSAGE);
            match (&mut from).take(MESSAGE as u64).read_buf(&mut buffer).await {
                Ok(0) => return Ok(()),
                Ok(_) => {}
                // The daemon may close without a farewell what it has no more to say on; whether the process has exited is asked next.
                Err(error) => {
                    tracing::debug!(%error, "a process' streams broke");
                    return Ok(());
                }
            }
            let mut bytes = buffer.split().freeze();
            if tty {
                self.tell(OutputStream::Stdout, bytes).await;
                continue;
            }
            let garbled = |error| Status::unknown(format!("{error}"));
            while let Some(piece) = frames.next(&mut bytes).map_err(garbled)? {
                self.tell(piece.stream, piece.data).await;
            }
        }
    }

    /// Takes what the caller says. Returns only if it says what it must not, or is gone.
    async fn listen(
        &self,
        mut inputs: Inputs,
        stdin: mpsc::Sender<Bytes>,
        resize: watch::Sender<Option<TerminalSize>>,
    ) -> Status {
        let mut stdin = Some(stdin);
        while let Some(input) = inputs.next().await {
            let input = match input {
                Ok(input) => input,
                Err(status) => return status,
            };
            match input.input {
                Some(Input::Stdin(data)) if data.len() > MESSAGE => {
                    return Status::invalid_argument(format!("more than {MESSAGE} bytes of input at once"));
                }
                Some(Input::Stdin(data)) => {
                    self.is_active();
                    // After its end nothing can be meant by it.
                    if let Some(Err(_)) = stdin.as_ref().map(|stdin| stdin.try_send(data)) {
                        return Status::invalid_argument("more input than was asked for");
                    }
                }
                Some(Input::StdinEnd(_)) => stdin = None,
                Some(Input::Resize(size)) => {
                    resize.send_replace(Some(size));
                }
                Some(Input::Taken(messages)) => {
                    let missing = OUTPUT_AHEAD.saturating_sub(self.room.available_permits());
                    self.room.add_permits(missing.min(messages as usize));
                }
                None => {}
            }
        }
        drop(stdin);
        std::future::pending().await
    }

    /// Passes input on, and its end. Never returns.
    async fn write(
        &self,
        mut to: impl AsyncWrite + Unpin,
        mut typed: mpsc::Receiver<Bytes>,
        is_wanted: bool,
    ) {
        let mut is_open = is_wanted;
        while let Some(data) = typed.recv().await {
            if is_open {
                let written = async {
                    to.write_all(&data).await?;
                    to.flush().await
                };
                // A process that reads no more may still have something to say.
                is_open = written.await.is_ok();
            }
            self.say(Output::Taken(1)).await;
        }
        if is_wanted {
            to.shutdown().await.ok();
        }
        std::future::pending::<()>().await;
    }
}
