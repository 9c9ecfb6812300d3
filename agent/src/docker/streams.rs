//! What of a Docker Engine runs on as long as somebody looks: logs, processes in containers, figures.

use std::net::IpAddr;

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::BoxStream;
use tokio::io::{AsyncRead, AsyncWrite};

use super::DockerError;

/// Both directions of a process' standard streams.
pub trait Io: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Io for T {}

/// A body as it comes. Nothing is read from the engine that was not asked for; dropping it closes the connection. It may be asked after its end.
pub type Pieces = BoxStream<'static, Result<Bytes, DockerError>>;

/// The streams of one Docker Engine, each over a connection of its own. An engine that has none refuses them all.
#[async_trait]
pub trait Streams: Send + Sync + 'static {
    /// The container that a name, an id or a unique prefix of an id means now; otherwise [`DockerError::NoSuchTarget`].
    async fn find(&self, reference: &str) -> Result<StreamFacts, DockerError> {
        Err(none(reference))
    }

    /// A container's log: every record begins with its time and a space, in frames unless the container has a terminal.
    async fn logs(&self, id: &str, query: &LogQuery) -> Result<Pieces, DockerError> {
        let _ = query;
        Err(none(id))
    }

    /// True if the container has such a file, or a link of that name.
    async fn has_file(&self, id: &str, path: &str) -> Result<bool, DockerError> {
        let _ = path;
        Err(none(id))
    }

    /// Starts a command in a container. What comes from it is in frames unless it has a terminal.
    async fn exec(&self, id: &str, exec: &ExecCall) -> Result<(ProcessId, Box<dyn Io>), DockerError> {
        let _ = exec;
        Err(none(id))
    }

    /// Connects to the first process of a container.
    async fn attach(&self, id: &str, wanted: Wanted) -> Result<Box<dyn Io>, DockerError> {
        let _ = wanted;
        Err(none(id))
    }

    /// Makes a process' terminal that wide and high, in characters.
    async fn resize(&self, process: &ProcessId, width: u16, height: u16) -> Result<(), DockerError> {
        let _ = (width, height);
        Err(none(process.as_str()))
    }

    /// How it stands with a process.
    async fn process(&self, process: &ProcessId) -> Result<ProcessState, DockerError> {
        Err(none(process.as_str()))
    }

    /// Figures as Docker tells them, JSON a line: about one a second, or one line with `once`.
    async fn stats(&self, id: &str, once: bool) -> Result<Pieces, DockerError> {
        let _ = once;
        Err(none(id))
    }
}

fn none(of: &str) -> DockerError {
    DockerError::Refused { status: 501, message: format!("this engine has no streams of `{of}`") }
}

/// What of a container must be known to stream from it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StreamFacts {
    /// Full id.
    pub id: String,
    /// Without the slash.
    pub name: String,
    /// It has a terminal.
    pub tty: bool,
    /// It keeps its standard input open.
    pub has_stdin: bool,
    /// It has a process; true also while paused, and between the runs of a restart loop.
    pub running: bool,
    /// Between two runs of a restart loop.
    pub restarting: bool,
    /// Changes with each run. Compared for equality, never parsed.
    pub started_at: String,
    /// Of the run that ended last.
    pub exit_code: i32,
    /// Where its log goes.
    pub log_driver: String,
    /// How its ports are reached.
    pub network: Network,
}

/// How a container's ports are reached from its host.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Network {
    /// Not at all.
    #[default]
    None,
    /// At its own address.
    Address(IpAddr),
    /// They are the host's.
    Host,
    /// As those of the container of that id.
    Of(String),
}

/// What of a log is wanted. Times are nanoseconds since 1970.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LogQuery {
    /// Records of the history; all if `None`.
    pub tail: Option<u32>,
    /// Nothing from before.
    pub since: Option<i64>,
    /// Nothing from later.
    pub until: Option<i64>,
    /// Goes on until the container stops.
    pub follow: bool,
    /// Standard output.
    pub stdout: bool,
    /// Standard error.
    pub stderr: bool,
}

/// Which standard streams are connected.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Wanted {
    /// Input.
    pub stdin: bool,
    /// Output.
    pub stdout: bool,
    /// Errors.
    pub stderr: bool,
}

/// A command to run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ExecCall {
    /// Program and arguments.
    pub command: Vec<String>,
    /// With a terminal.
    pub tty: bool,
    /// What is connected.
    pub wanted: Wanted,
}

/// A process in a container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ProcessId {
    /// By the id Docker gave to the exec.
    Exec(String),
    /// The first process of that container, of the run that began then.
    Container {
        /// Full id.
        id: String,
        /// Of the run.
        started_at: String,
    },
    /// A connection into the container of that id, which has no process of its own.
    Connection(String),
}

impl ProcessId {
    fn as_str(&self) -> &str {
        match self {
            Self::Exec(id) | Self::Container { id, .. } | Self::Connection(id) => id,
        }
    }
}

/// How it stands with a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProcessState {
    /// It runs.
    Running,
    /// It has exited, with this code where that is known.
    Exited(Option<i32>),
}
