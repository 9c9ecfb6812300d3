//! What the host's owner lets the controller ask, whoever asks.

use clap::ValueEnum;
use gantry_api::agent_v1;
use serde::Deserialize;

/// Holds even against a compromised controller.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Policy {
    /// Read only, logs and figures among it.
    Observe,
    /// Also start, stop, restart, pause, unpause, kill, pull.
    Operate,
    /// Everything, commands in containers among it.
    #[default]
    Full,
}

impl From<Policy> for agent_v1::Policy {
    fn from(policy: Policy) -> Self {
        match policy {
            Policy::Observe => Self::Observe,
            Policy::Operate => Self::Operate,
            Policy::Full => Self::Full,
        }
    }
}
