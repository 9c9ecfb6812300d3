//! Join tokens: what lets a new agent in, once.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use serde::Deserialize;

const ID_LENGTH: usize = 10;
const SECRET_LENGTH: usize = 32;

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
    /// The token; `None` if there is none.
    pub fn read(&self) -> Result<Option<JoinToken>, TokenFileError> {
        match self {
            Self::None => Ok(None),
            Self::Given(token) => Ok(Some(token.clone())),
            Self::File(path) => {
                let text = std::fs::read_to_string(path)
                    .map_err(|cause| TokenFileError::Unreadable(path.clone(), cause))?;
                let token = text.parse().map_err(|cause| TokenFileError::Malformed(path.clone(), cause))?;
                Ok(Some(token))
            }
        }
    }
}
