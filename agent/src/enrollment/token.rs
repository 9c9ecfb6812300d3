//! Join tokens: what lets a new agent in, once.

use std::fmt;
use std::io::{self, BufRead as _, IsTerminal as _, Read as _};
use std::path::PathBuf;
use std::str::FromStr;

use serde::Deserialize;
use tokio::sync::{OnceCell, oneshot};

const ID_LENGTH: usize = 10;
const SECRET_LENGTH: usize = 32;
/// More of standard input is not looked at.
const LONGEST_LINE: u64 = 1_024;
/// The token from standard input, which can be read only once.
static FROM_STANDARD_INPUT: OnceCell<JoinToken> = OnceCell::const_new();

/// `ID.SECRET`. Printing it never shows the secret.
#[derive(Clone, PartialEq, Eq)]
pub struct JoinToken(String);

/// Not a token. What was given is not repeated: it may be most of one.
#[derive(Debug, thiserror::Error)]
#[error("a join token looks like 10 characters, a dot and 32 characters; `gantry token create` prints one")]
pub struct InvalidToken;

impl JoinToken {
    /// The whole token, for the controller alone.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl FromStr for JoinToken {
    type Err = InvalidToken;

    fn from_str(text: &str) -> Result<Self, InvalidToken> {
        let is_part = |part: &str, length| {
            part.len() == length
                && part.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit())
        };
        let (id, secret) = text.trim().split_once('.').ok_or(InvalidToken)?;
        if is_part(id, ID_LENGTH) && is_part(secret, SECRET_LENGTH) {
            Ok(Self(format!("{id}.{secret}")))
        } else {
            Err(InvalidToken)
        }
    }
}

/// What was given as a token, not yet looked at: a parser that refuses it would print it.
#[derive(Clone, Deserialize)]
#[serde(transparent)]
pub struct GivenToken(String);

impl GivenToken {
    /// The token, if it is one.
    pub fn check(&self) -> Result<JoinToken, InvalidToken> {
        self.0.parse()
    }
}

impl From<String> for GivenToken {
    fn from(text: String) -> Self {
        Self(text)
    }
}

impl fmt::Debug for GivenToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("GivenToken(…)")
    }
}

impl fmt::Debug for JoinToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JoinToken(…)")
    }
}

/// Where the token comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TokenSource {
    /// There is none: this agent must be enrolled already.
    None,
    /// Flag, environment or configuration file.
    Given(JoinToken),
    /// A file, read when it is needed, so that it may be gone afterwards.
    File(PathBuf),
    /// The first line of standard input, read when it is needed and kept.
    StandardInput,
}

/// The token's file is of no use.
#[derive(Debug, thiserror::Error)]
pub enum TokenFileError {
    /// It cannot be read.
    #[error("token file {0} cannot be read")]
    Unreadable(PathBuf, #[source] std::io::Error),
    /// It holds something else.
    #[error("token file {0} holds no join token")]
    Malformed(PathBuf, #[source] InvalidToken),
}

impl TokenSource {
    /// That file; `-` is standard input.
    pub fn of_file(path: PathBuf) -> Self {
        if path.as_os_str() == "-" { Self::StandardInput } else { Self::File(path) }
    }

    /// The token; `None` if there is none.
    pub async fn read(&self) -> Result<Option<JoinToken>, TokenFileError> {
        match self {
            Self::None => Ok(None),
            Self::Given(token) => Ok(Some(token.clone())),
            Self::File(path) => {
                let text = std::fs::read_to_string(path)
                    .map_err(|cause| TokenFileError::Unreadable(path.clone(), cause))?;
                let token = text.parse().map_err(|cause| TokenFileError::Malformed(path.clone(), cause))?;
                Ok(Some(token))
            }
            Self::StandardInput => {
                let token = FROM_STANDARD_INPUT.get_or_try_init(read_standard_input).await?;
                Ok(Some(token.clone()))
            }
        }
    }
}

async fn read_standard_input() -> Result<JoinToken, TokenFileError> {
    let name = || PathBuf::from("-");
    if io::stdin().is_terminal() {
        eprint!("Join token: ");
    }
    let (sender, receiver) = oneshot::channel();
    // Not one of the runtime's threads: a read of a terminal cannot be ended, and the runtime would wait for it to stop.
    std::thread::spawn(move || {
        let mut line = String::new();
        let read = io::stdin().lock().take(LONGEST_LINE).read_line(&mut line);
        // Nobody waits for it when the agent was stopped meanwhile.
        let _ = sender.send(read.map(|_| line));
    });
    let read = receiver.await.unwrap_or_else(|_| Err(io::ErrorKind::UnexpectedEof.into()));
    let line = read.map_err(|cause| TokenFileError::Unreadable(name(), cause))?;
    line.parse().map_err(|cause| TokenFileError::Malformed(name(), cause))
}
