//! How the engine fails, told apart by what may have happened meanwhile.

use std::time::Duration;

use crate::operations::Refusal;

/// A call to the engine that did not end well.
#[derive(Debug, thiserror::Error)]
pub enum DockerError {
    /// The request never left: nothing can have happened.
    #[error("the Docker daemon cannot be reached at {address}")]
    Unreachable {
        /// Socket or address.
        address: String,
        /// Why.
        #[source]
        cause: std::io::Error,
    },
    /// The request left and the connection broke before an answer.
    #[error("the connection to the Docker daemon broke before it answered: {0}")]
    Lost(String),
    /// The request left and no answer came in time.
    #[error("the Docker daemon did not answer within {0:?}")]
    Silent(Duration),
    /// Docker answered with an error.
    #[error("{message}")]
    Refused {
        /// HTTP status, 400 and up.
        status: u16,
        /// Docker's own words.
        message: String,
    },
    /// Docker ended a pull with an error, after it had begun to answer.
    #[error("{0}")]
    PullFailed(String),
    /// Docker's answer was not what its API says.
    #[error("the Docker daemon's answer cannot be read: {0}")]
    Unreadable(String),
    /// The engine's API is older than 1.41. Nothing was asked of it.
    #[error("the Docker daemon speaks API {0}, at least 1.41 is needed: upgrade to Docker 20.10 or newer")]
    Incompatible(String),
    /// What has to be known before an engine is asked for anything could not be learned.
    #[error("the Docker daemon was not asked, since its version is not known: {0}")]
    NotAsked(#[source] Box<DockerError>),
    /// What was named is not there.
    #[error("{0}")]
    NoSuchTarget(String),
    /// A name that Docker could not have, or a prefix of several ids.
    #[error("{0}")]
    InvalidReference(String),
}

impl DockerError {
    /// True if Docker cannot have been asked, so that nothing can have happened.
    pub fn is_before_send(&self) -> bool {
        matches!(
            self,
            Self::Unreachable { .. } | Self::Incompatible(_) | Self::NotAsked(_) | Self::InvalidReference(_)
        )
    }

    /// HTTP status of Docker's answer; 0 if there was none.
    pub fn status(&self) -> u32 {
        match self {
            Self::Refused { status, .. } => u32::from(*status),
            _ => 0,
        }
    }
}

impl From<DockerError> for Refusal {
    fn from(error: DockerError) -> Self {
        let code = match &error {
            // A deadline is the caller's own word for an agent that does not answer.
            DockerError::Unreachable { .. }
            | DockerError::Lost(_)
            | DockerError::Silent(_)
            | DockerError::NotAsked(_) => tonic::Code::Unavailable,
            DockerError::Refused { .. } | DockerError::PullFailed(_) | DockerError::Unreadable(_) => {
                tonic::Code::Unknown
            }
            DockerError::Incompatible(_) => tonic::Code::FailedPrecondition,
            DockerError::NoSuchTarget(_) => tonic::Code::NotFound,
            DockerError::InvalidReference(_) => tonic::Code::InvalidArgument,
        };
        let message = match &error {
            DockerError::Unreachable { cause, .. } => format!("{error}: {cause}"),
            _ => error.to_string(),
        };
        Self { code, message }
    }
}
