//! This end of a terminal: raw mode, its size, the keys that leave it, and standard input as a stream.

use std::io::{IsTerminal as _, Read as _};

use anyhow::Context as _;
use rustix::termios::{OptionalActions, Termios, tcgetattr, tcgetwinsize, tcsetattr};
use serde_json::json;
use tokio::sync::mpsc;

/// Longest piece of input: the controller takes 32 KiB, hosts 8.
pub(crate) const PIECE: usize = 8 << 10;

/// A terminal that passes on every key, until this is dropped.
pub(crate) struct Raw(Termios);

impl Raw {
    /// Switches standard input over.
    pub(crate) fn begin() -> anyhow::Result<Self> {
        let stdin = std::io::stdin();
        let before = tcgetattr(&stdin).context("standard input is no terminal")?;
        let mut raw = before.clone();
        raw.make_raw();
        tcsetattr(&stdin, OptionalActions::Now, &raw).context("the terminal cannot be switched over")?;
        Ok(Self(before))
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        // Where it is gone there is nothing to restore.
        let _ = tcsetattr(std::io::stdin(), OptionalActions::Now, &self.0);
    }
}

/// True if both ends of us are terminals.
pub(crate) fn is_one() -> bool {
    std::io::stdin().is_terminal() && std::io::stdout().is_terminal()
}

/// As the controller is told it.
pub(crate) fn size() -> Option<String> {
    let size = tcgetwinsize(std::io::stdout()).ok()?;
    Some(json!({"Width": size.ws_col, "Height": size.ws_row}).to_string())
}

/// Standard input, piece by piece, `None` at its end.
///
/// Read by a thread of its own, which nobody waits for: a read of a terminal ends with the next key.
pub(crate) fn input() -> mpsc::Receiver<Vec<u8>> {
    let (sender, receiver) = mpsc::channel(4);
    std::thread::spawn(move || {
        let mut piece = vec![0; PIECE];
        while let Ok(length @ 1..) = std::io::stdin().read(&mut piece) {
            if sender.blocking_send(piece.get(..length).unwrap_or_default().to_vec()).is_err() {
                return;
            }
        }
    });
    receiver
}

/// Keys that leave a terminal, in their order; none where there are none.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Keys(Vec<u8>);

impl Keys {
    /// Reads `ctrl-p,ctrl-q`, as Docker has it.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let key = |key: &str| {
            let (byte, is_control) = match (key.strip_prefix("ctrl-"), key.as_bytes()) {
                (Some(letter), _) => (letter.as_bytes(), true),
                (None, bytes) => (bytes, false),
            };
            match (byte, is_control) {
                (&[byte @ (b'a'..=b'z' | b'@' | b'['..=b'_')], true) => Ok(byte & 0x1f),
                (&[byte], false) => Ok(byte),
                _ => Err(format!("`{key}` is no key as `q` or `ctrl-q`")),
            }
        };
        if text.is_empty() {
            return Ok(Self(Vec::new()));
        }
        text.split(',').map(key).collect::<Result<_, _>>().map(Self)
    }
}

/// Looks for the keys in what is typed.
pub(crate) struct Leaving {
    keys: Vec<u8>,
    seen: usize,
}

impl Leaving {
    pub(crate) fn new(keys: Keys) -> Self {
        Self { keys: keys.0, seen: 0 }
    }

    /// What is to be passed on, and whether the person leaves. Keys are held back while they may be the first of them.
    pub(crate) fn hears(&mut self, typed: &[u8]) -> (Vec<u8>, bool) {
        let mut passed = Vec::with_capacity(typed.len());
        for byte in typed {
            if self.keys.get(self.seen) == Some(byte) {
                self.seen += 1;
                if self.seen == self.keys.len() {
                    return (passed, true);
                }
                continue;
            }
            passed.extend_from_slice(self.keys.get(..self.seen).unwrap_or_default());
            self.seen = usize::from(self.keys.first() == Some(byte));
            if self.seen == 0 {
                passed.push(*byte);
            }
        }
        (passed, false)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_keys_leave_and_everything_else_is_passed_on() {
        let mut leaving = Leaving::new(Keys::parse("ctrl-p,ctrl-q").expect("keys"));

        assert_eq!(leaving.hears(b"ls\n"), (b"ls\n".to_vec(), false));
        assert_eq!(leaving.hears(b"a\x10"), (b"a".to_vec(), false));
        assert_eq!(leaving.hears(b"b"), (b"\x10b".to_vec(), false));
        assert_eq!(leaving.hears(b"\x10\x10"), (b"\x10".to_vec(), false));
        assert_eq!(leaving.hears(b"\x11never"), (Vec::new(), true));
    }

    #[test]
    fn keys_are_written_as_docker_s() {
        assert_eq!(Keys::parse("ctrl-x,q"), Ok(Keys(vec![24, b'q'])));
        assert_eq!(Keys::parse("ctrl-[,ctrl-@"), Ok(Keys(vec![27, 0])));
        for wrong in ["ctrl-", "ctrl-1", "alt-x", "a,,b"] {
            assert!(Keys::parse(wrong).is_err(), "{wrong} was taken");
        }
        let mut none = Leaving::new(Keys::parse("").expect("no keys"));
        assert_eq!(none.hears(b"\x10\x11"), (b"\x10\x11".to_vec(), false));
    }
}
