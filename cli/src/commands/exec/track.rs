//! How far a terminal has come, and so what it takes to go on in another connection.

use std::collections::VecDeque;

use anyhow::Context as _;
use serde::Deserialize;
use serde_json::json;

/// Bytes of input that are remembered, in case they did not arrive: far more than anybody types in the time.
const REMEMBERED: usize = 64 << 10;

/// What the controller tells of a session.
#[derive(Deserialize)]
struct Session {
    token: Option<String>,
    /// Bytes of input that have arrived.
    input: u64,
    /// Where the output that follows begins.
    output: u64,
}

/// What is missing once a terminal goes on.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Gap {
    /// Bytes of output that are gone.
    pub(super) lost: u64,
    /// Input that did not arrive; `None` where it is not all remembered.
    pub(super) untyped: Option<Vec<u8>>,
}

#[derive(Default)]
pub(super) struct Track {
    token: Option<String>,
    shown: u64,
    typed: u64,
    last: VecDeque<u8>,
}

impl Track {
    /// True if there is something to come back to.
    pub(super) const fn can_return(&self) -> bool {
        self.token.is_some()
    }

    /// So many bytes were shown.
    pub(super) const fn shows(&mut self, bytes: usize) {
        self.shown += bytes as u64;
    }

    /// That was sent.
    pub(super) fn types(&mut self, data: &[u8]) {
        self.typed += data.len() as u64;
        if self.token.is_some() {
            self.last.extend(data);
            let excess = self.last.len().saturating_sub(REMEMBERED);
            self.last.drain(..excess);
        }
    }

    /// What is said by who comes back.
    pub(super) fn wanted(&self) -> String {
        json!({"token": self.token, "output": self.shown}).to_string()
    }

    /// Hears of the session: where it begins, and each time it goes on.
    pub(super) fn is_told(&mut self, said: &[u8]) -> anyhow::Result<Gap> {
        let session: Session = serde_json::from_slice(said).context("the session cannot be read")?;
        if session.token.is_some() {
            self.token = session.token;
        }
        let lost = session.output.saturating_sub(self.shown);
        self.shown = session.output;
        let missing = usize::try_from(self.typed.saturating_sub(session.input)).unwrap_or(usize::MAX);
        let known = self.last.len().checked_sub(missing);
        Ok(Gap { lost, untyped: known.map(|known| self.last.range(known..).copied().collect()) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_did_not_arrive_is_typed_again_and_what_is_lost_is_known() {
        let mut track = Track::default();
        assert!(!track.can_return());
        let begins = track.is_told(br#"{"token":"t","input":0,"output":0}"#).expect("a session");
        assert_eq!(begins, Gap { lost: 0, untyped: Some(Vec::new()) });
        assert!(track.can_return());
        track.types(b"ls -l\n");
        track.shows(10);
        assert_eq!(track.wanted(), r#"{"output":10,"token":"t"}"#);

        let back = track.is_told(br#"{"input":3,"output":10}"#).expect("a session");
        assert_eq!(back, Gap { lost: 0, untyped: Some(b"-l\n".to_vec()) });
        let later = track.is_told(br#"{"input":6,"output":25}"#).expect("a session");
        assert_eq!(later, Gap { lost: 15, untyped: Some(Vec::new()) });
        assert_eq!(track.wanted(), r#"{"output":25,"token":"t"}"#);
    }

    #[test]
    fn more_input_than_is_remembered_is_not_passed_off_as_all_of_it() {
        let mut track = Track::default();
        track.is_told(br#"{"token":"t","input":0,"output":0}"#).expect("a session");
        track.types(&vec![b'x'; REMEMBERED]);
        track.types(b"y");

        assert_eq!(track.is_told(br#"{"input":0,"output":0}"#).expect("a session").untyped, None);
        let rest = track.is_told(br#"{"input":65536,"output":0}"#).expect("a session").untyped;
        assert_eq!(rest, Some(b"y".to_vec()));
        assert!(track.is_told(b"{}").is_err());
    }
}
