//! What runs on as long as somebody looks: logs, processes in containers, connections into them, figures.
//!
//! Each is bounded, pulled by whoever reads it, and gone when that one is. Nothing here is remembered.

mod attach;
mod exec;
mod forward;
mod frames;
mod logs;
mod process;
mod shell;
mod stats;
mod times;

use std::sync::Arc;
use std::time::Duration;

use futures::stream::BoxStream;
use gantry_api::TERMINAL_IDLE;
use gantry_api::agent_v1::Policy;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tonic::{Code, Status};

use crate::clock::SharedClock;
use crate::docker::DockerError;
use crate::docker::streams::{StreamFacts, Streams};
use crate::operations::Refusal;

/// What a stream says, until it ends or fails.
pub type Answer<T> = BoxStream<'static, Result<T, Status>>;

/// How many and how long. `Limits::default()` outside tests.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Logs at once.
    pub logs: usize,
    /// Processes that somebody is connected to, at once.
    pub processes: usize,
    /// Connections into containers, at once.
    pub connections: usize,
    /// Containers whose figures are told, at once.
    pub figures: usize,
    /// For which nothing goes either way until a process is let go of.
    pub idle: Duration,
    /// For which a container that has stopped may be started again, and its log goes on.
    pub restart: Duration,
    /// Between two looks at a container that may be started again.
    pub look: Duration,
    /// For a caller to say what it wants.
    pub start: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            logs: 128,
            processes: 128,
            connections: 256,
            figures: 512,
            idle: TERMINAL_IDLE,
            restart: Duration::from_secs(3),
            look: Duration::from_millis(200),
            start: Duration::from_secs(10),
        }
    }
}

/// Opens streams. Cheap to clone.
#[derive(Clone)]
pub struct Streaming {
    engine: Arc<dyn Streams>,
    clock: SharedClock,
    policy: Policy,
    limits: Limits,
    logs: Arc<Semaphore>,
    processes: Arc<Semaphore>,
    connections: Arc<Semaphore>,
    figures: Arc<Semaphore>,
}

impl Streaming {
    /// From that engine, as far as the host's owner allows.
    pub fn new(engine: Arc<dyn Streams>, clock: SharedClock, policy: Policy, limits: Limits) -> Self {
        Self {
            engine,
            clock,
            policy,
            limits,
            logs: Arc::new(Semaphore::new(limits.logs)),
            processes: Arc::new(Semaphore::new(limits.processes)),
            connections: Arc::new(Semaphore::new(limits.connections)),
            figures: Arc::new(Semaphore::new(limits.figures)),
        }
    }

    /// Whoever is in a container can do there whatever its processes can, removing things among it.
    fn require_full(&self, what: &str) -> Result<(), Refusal> {
        if self.policy == Policy::Full {
            return Ok(());
        }
        let policy = crate::operations::policy_word(self.policy);
        let message = format!("this host does not allow {what}: its agent runs with `--policy {policy}`");
        Err(Refusal::new(Code::PermissionDenied, message))
    }
}

/// Room for one more, as long as that is held.
fn room(of: &Arc<Semaphore>, many: u32, what: &str) -> Result<OwnedSemaphorePermit, Refusal> {
    let room = Arc::clone(of).try_acquire_many_owned(many);
    room.map_err(|_| {
        Refusal::new(
            Code::ResourceExhausted,
            format!("too many {what} are open on this host: try again later"),
        )
    })
}

fn invalid(message: impl Into<String>) -> Refusal {
    Refusal::new(Code::InvalidArgument, message)
}

fn unfit(message: impl Into<String>) -> Refusal {
    Refusal::new(Code::FailedPrecondition, message)
}

/// As [`Refusal`] has it, but for what Docker says of a container that is not fit for it.
fn refused(error: DockerError) -> Refusal {
    match error {
        DockerError::Refused { status: 404, message } => Refusal::new(Code::NotFound, message),
        DockerError::Refused { status: 409, message } => unfit(message),
        other => other.into(),
    }
}

/// The same of an error that comes once the stream has begun.
fn broken(error: DockerError) -> Status {
    Status::from(refused(error))
}

fn require_running(facts: &StreamFacts) -> Result<(), Refusal> {
    if facts.running { Ok(()) } else { Err(unfit(format!("container `{}` does not run", facts.name))) }
}
