//! Why a call is over.

use crate::apiserver::failure::Failure;
use crate::audit::Outcome;
use crate::gateway::link::LinkError;
use crate::live::archive::{self, Unfit};
use crate::live::recording;

/// How it came that nothing more flows.
#[derive(Clone, Debug)]
pub(super) enum End {
    /// The engine has said all.
    Complete,
    /// The client is gone, or its body broke off.
    ClientLeft,
    /// The client does not read.
    Unread,
    /// Whoever asked may not any more, and what was lost.
    RightLost(Failure),
    /// The server stops.
    Stopping,
    /// The engine did not answer in time.
    Silent,
    /// Nothing went either way for too long.
    Idle,
    /// It is recorded, and that cannot be any more.
    Unrecorded,
    /// What is copied is no archive that may be unpacked.
    Unfit(Unfit),
    /// The agent or the engine broke off, or refused.
    Agent(LinkError),
}

impl End {
    /// One word for the record; empty for a good end.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Complete => "",
            Self::ClientLeft => "ClientLeft",
            Self::Unread => "Unread",
            Self::RightLost(_) => "RightLost",
            Self::Stopping => "Stopping",
            Self::Silent => "Timeout",
            Self::Idle => "Idle",
            Self::Unrecorded => "Unrecorded",
            Self::Unfit(_) => "Unfit",
            Self::Agent(_) => "AgentFailed",
        }
    }

    /// For the record of a call with this status. That a client or its right is gone is no failure of what was done.
    pub fn outcome(&self, code: u16) -> Outcome {
        let has_failed =
            matches!(self, Self::Unread | Self::Silent | Self::Unrecorded | Self::Unfit(_) | Self::Agent(_));
        if has_failed && code < 400 { Outcome::Failure } else { Outcome::of(code) }
    }

    /// For a client that has heard nothing yet.
    pub fn failure(&self, of_agent: impl FnOnce(LinkError) -> Failure) -> Failure {
        match self {
            Self::Complete | Self::ClientLeft | Self::Unread => {
                Failure::bad_request("the request ended before it was answered")
            }
            Self::RightLost(lost) => lost.clone(),
            Self::Stopping => Failure::unavailable("this server is stopping: try again"),
            Self::Silent | Self::Idle => Failure::timeout("the engine did not answer in time"),
            Self::Unrecorded => recording::unrecorded(),
            Self::Unfit(Unfit::TooLarge(limit)) => archive::too_large(*limit),
            Self::Unfit(Unfit::Entry(why)) => Failure::bad_request(why.clone()),
            Self::Agent(error) => of_agent(error.clone()),
        }
    }
}
