//! Messages under way: in any order, lost or delivered twice. Each belongs to one connection and dies with it.

use crate::words::{OPS, Report, Token};

/// One message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[allow(missing_docs, reason = "the fields have the names of the protocol")]
pub enum Message {
    /// To the agent.
    Resume {
        connection: u8,
        token: Token,
        withdrawn: [bool; OPS],
        permits: [bool; OPS],
        late: [bool; OPS],
        was_rolled_back: bool,
    },
    /// To the agent.
    Submit { connection: u8, op: u8, attempt: u8, target: u8, token: Token },
    /// To the agent.
    Withdraw { connection: u8, op: u8, token: Token },
    /// To the agent: never start what your policy has just refused.
    WithdrawDenied { connection: u8, op: u8, token: Token, attempt: u8, target: u8 },
    /// To the agent.
    Forget { connection: u8, op: u8, token: Token },
    /// To the gateway: an answer, or a change that is watched.
    Report { connection: u8, op: u8, report: Report },
    /// To the controller that asked: forgotten.
    Forgotten { connection: u8, op: u8 },
    /// To the controller that asked: `ALREADY_EXISTS`.
    Conflict { connection: u8, op: u8, attempt: u8, target: u8 },
    /// To the controller that asked: `PERMISSION_DENIED`, and whether it is sure never to start.
    Denied { connection: u8, op: u8, token: Token, attempt: u8, target: u8, is_withdrawn: bool },
}

impl Message {
    /// The connection it travels on.
    pub fn connection(&self) -> u8 {
        match *self {
            Self::Resume { connection, .. }
            | Self::Submit { connection, .. }
            | Self::Withdraw { connection, .. }
            | Self::Forget { connection, .. }
            | Self::Report { connection, .. }
            | Self::Forgotten { connection, .. }
            | Self::Conflict { connection, .. }
            | Self::WithdrawDenied { connection, .. }
            | Self::Denied { connection, .. } => connection,
        }
    }

    fn connection_mut(&mut self) -> &mut u8 {
        match self {
            Self::Resume { connection, .. }
            | Self::Submit { connection, .. }
            | Self::Withdraw { connection, .. }
            | Self::Forget { connection, .. }
            | Self::Report { connection, .. }
            | Self::Forgotten { connection, .. }
            | Self::Conflict { connection, .. }
            | Self::WithdrawDenied { connection, .. }
            | Self::Denied { connection, .. } => connection,
        }
    }
}

/// Messages under way, sorted, so that equal worlds are equal.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Links(Vec<Message>);

impl Links {
    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = &Message> {
        self.0.iter()
    }

    /// Sends one; beyond `most` it is lost. False if that changes nothing.
    pub fn send(&mut self, message: Message, most: usize) -> bool {
        let Err(place) = self.0.binary_search(&message) else { return false };
        let fits = self.0.len() < most;
        if fits {
            self.0.insert(place, message);
        }
        fits
    }

    /// Takes one off the link.
    pub fn remove(&mut self, place: usize) -> Message {
        self.0.remove(place)
    }

    /// The one there.
    pub fn get(&self, place: usize) -> Message {
        self.0[place]
    }

    /// Gives connections other numbers, in the same order; what belongs to number 0 is dropped.
    pub fn renumber(&mut self, number: impl Fn(u8) -> u8) {
        self.0.retain_mut(|message| {
            let connection = message.connection_mut();
            *connection = number(*connection);
            *connection != 0
        });
        self.0.sort_unstable();
    }
}
