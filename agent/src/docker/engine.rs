//! What may be asked of a Docker Engine.

use std::time::Duration;

use async_trait::async_trait;
use futures::stream::BoxStream;
use gantry_api::agent_v1::{InfoResponse, RegistryAuth, Target, TargetKind};
use tokio::io::{AsyncRead, AsyncWrite};

use super::{DockerError, ImageReference};

/// A connection to an engine.
pub trait Wire: AsyncRead + AsyncWrite + Send + Unpin + 'static {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin + 'static> Wire for T {}

/// One Docker Engine. Every call is made once, over a connection of its own, and ends within a bounded time.
#[async_trait]
pub trait Engine: Send + Sync + 'static {
    /// Version, capacity and counts, also of an engine too old for anything else.
    async fn info(&self) -> Result<InfoResponse, DockerError>;

    /// The engine's own id as it told it last; empty if it never did. Asks nothing.
    fn known_id(&self) -> String;

    /// The engine's own id; empty for an engine that has none. Asked for once, and again after the engine was away.
    async fn id(&self) -> Result<String, DockerError>;

    /// What a name, an id or a unique prefix of an id means now. A container or an image that is not there is
    /// [`DockerError::NoSuchTarget`].
    async fn resolve(&self, kind: TargetKind, reference: &str) -> Result<Target, DockerError>;

    /// Which run of the engine this is. `None` if the engine gives nothing to tell its runs apart by.
    async fn incarnation(&self) -> Result<Option<Incarnation>, DockerError>;

    /// A container by its id; `None` if there is none.
    async fn container(&self, id: &str) -> Result<Option<ContainerFacts>, DockerError>;

    /// An image by its id or reference; `None` if there is none.
    async fn image(&self, reference: &str) -> Result<Option<ImageFacts>, DockerError>;

    /// Those of these volumes that exist.
    async fn volumes(&self, names: &[String]) -> Result<Vec<String>, DockerError>;

    /// The digest a registry gives for a reference now, shown these credentials, or the host's own where there are none.
    async fn registry_digest(
        &self,
        reference: &ImageReference,
        credentials: Option<&RegistryAuth>,
    ) -> Result<String, DockerError>;

    /// Changes something. Dropping the future closes the connection, which an engine may or may not take as a wish to
    /// stop.
    async fn call(&self, call: &Call, within: Duration) -> Result<Answer, DockerError>;

    /// Pulls an image with these credentials, or the host's own where there are none. Dropping the future makes the engine stop.
    async fn pull(
        &self,
        pull: &Pull,
        credentials: Option<&RegistryAuth>,
        progress: &mut (dyn FnMut(LayerUpdate) + Send),
    ) -> Result<(), DockerError>;

    /// The newest API version it speaks, as `1.41`: as it told it last, else asked for.
    async fn api_version(&self) -> Result<String, DockerError> {
        self.info().await.map(|info| info.api_version)
    }

    /// A connection of its own, on which nothing was said yet. Not every engine of the simulation has any.
    async fn dial(&self) -> Result<Box<dyn Wire>, DockerError> {
        Err(DockerError::Lost("there is no way to it".to_owned()))
    }

    /// One item at once, then one whenever something changed, at most one a second; also when the engine goes away and when
    /// it is back, since changes may have been missed. It reconnects by itself and never ends.
    fn changes(&self) -> BoxStream<'static, ()>;
}

/// A call that changes something. Containers and images are named by id.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Call {
    /// Start a container.
    Start { id: String },
    /// Stop a container, killing it after so many seconds.
    Stop { id: String, timeout_seconds: Option<u32> },
    /// Stop and start a container.
    Restart { id: String, timeout_seconds: Option<u32> },
    /// Freeze a container.
    Pause { id: String },
    /// Thaw a container.
    Unpause { id: String },
    /// Send a signal to a container.
    Kill { id: String, signal: String },
    /// Remove a container.
    RemoveContainer { id: String, force: bool, volumes: bool },
    /// Rename a container.
    Rename { id: String, new_name: String },
    /// Remove an image; where it was called by a reference, that reference, and the image with its last one.
    RemoveImage { id: String, reference: Option<ImageReference>, force: bool },
    /// Give an image one more reference.
    Tag { id: String, reference: ImageReference },
}

impl Call {
    /// The call in the past tense.
    pub fn done(&self) -> String {
        match self {
            Self::Start { .. } => "started".to_owned(),
            Self::Stop { .. } => "stopped".to_owned(),
            Self::Restart { .. } => "restarted".to_owned(),
            Self::Pause { .. } => "paused".to_owned(),
            Self::Unpause { .. } => "unpaused".to_owned(),
            Self::Kill { signal, .. } => format!("{signal} was sent"),
            Self::RemoveContainer { .. } | Self::RemoveImage { .. } => "removed".to_owned(),
            Self::Rename { new_name, .. } => format!("renamed to {new_name}"),
            Self::Tag { reference, .. } => format!("tagged as {reference}"),
        }
    }
}

/// Docker's answer to a call that it performed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// Done.
    Done,
    /// 304: it was so already.
    NotModified,
}

/// An image to fetch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pull {
    /// What to fetch.
    pub reference: ImageReference,
    /// `linux/arm64`; the host's own if `None`.
    pub platform: Option<String>,
}

/// How far one layer of a pull is now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LayerUpdate {
    /// Short id of the layer.
    pub id: String,
    /// In Docker's words.
    pub status: String,
    /// Bytes so far; `None` where this update says nothing of bytes.
    pub bytes: Option<(u64, u64)>,
}

/// One run of a Docker Engine. Equal for two looks at the same run, never equal for two runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Incarnation(pub String);

/// A container as inspect tells it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ContainerFacts {
    /// Full id.
    pub id: String,
    /// Without the slash.
    pub name: String,
    /// The image as it was named when the container was made.
    pub image: String,
    /// `created`, `running`, `paused`, `restarting`, `removing`, `exited` or `dead`.
    pub state: String,
    /// Has a process; true also while paused, and between the runs of a restart loop.
    pub running: bool,
    /// Frozen.
    pub paused: bool,
    /// Of its first process; 0 if there is none.
    pub pid: i64,
    /// As Docker wrote it. Compared for equality, never parsed.
    pub started_at: String,
    /// As Docker wrote it.
    pub finished_at: String,
    /// How often its restart policy started it.
    pub restart_count: i64,
    /// Docker removes it when it ends.
    pub auto_remove: bool,
    /// What stop sends; empty for SIGTERM.
    pub stop_signal: String,
    /// Seconds stop waits; `None` for Docker's default.
    pub stop_timeout: Option<u32>,
    /// Volumes that nobody gave a name.
    pub anonymous_volumes: Vec<String>,
}

/// An image as inspect tells it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ImageFacts {
    /// Content id, `sha256:…`.
    pub id: String,
    /// `app:2`.
    pub references: Vec<String>,
    /// `app@sha256:…`.
    pub digests: Vec<String>,
}
