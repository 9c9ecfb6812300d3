//! One log of several programs: every line says whose it is.

use std::io::{IsTerminal as _, Write as _};

use tokio::io::{AsyncBufReadExt as _, AsyncRead, AsyncReadExt as _, BufReader};

/// Longer lines are broken, so that a child cannot fill our memory.
const LONGEST_LINE: u64 = 64 * 1024;

/// Whose line it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Source {
    Dev,
    Controller,
    Agent,
}

impl Source {
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Dev => "dev",
            Self::Controller => "controller",
            Self::Agent => "agent",
        }
    }

    const fn color(self) -> &'static str {
        match self {
            Self::Dev => "\x1b[1m",
            Self::Controller => "\x1b[36m",
            Self::Agent => "\x1b[35m",
        }
    }
}

/// Writes to standard error; coloured only on a terminal that does not say otherwise.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Log {
    is_colored: bool,
}

impl Log {
    pub(crate) fn new() -> Self {
        let is_unwanted = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        Self { is_colored: !is_unwanted && std::io::stderr().is_terminal() }
    }

    /// Writes one line.
    pub(crate) fn line(self, source: Source, text: &str) {
        self.write(source, text.as_bytes());
    }

    fn write(self, source: Source, text: &[u8]) {
        let line = self.format(source, text);
        // Where nobody reads the log any more there is nobody to tell.
        let _ = std::io::stderr().lock().write_all(&line);
    }

    fn format(self, source: Source, text: &[u8]) -> Vec<u8> {
        let text = text.strip_suffix(b"\n").unwrap_or(text);
        let text = text.strip_suffix(b"\r").unwrap_or(text);
        let prefix = if self.is_colored {
            format!("{}{:<10} |\x1b[0m ", source.color(), source.name())
        } else {
            format!("{:<10} | ", source.name())
        };
        [prefix.as_bytes(), text, b"\n"].concat()
    }

    /// Copies what a child writes, line by line, until it closes its end.
    pub(crate) async fn copy(self, source: Source, from: impl AsyncRead + Unpin) {
        let mut from = BufReader::new(from);
        let mut line = Vec::new();
        loop {
            line.clear();
            match (&mut from).take(LONGEST_LINE).read_until(b'\n', &mut line).await {
                Ok(0) => return,
                Ok(_) => self.write(source, &line),
                Err(error) => {
                    return self
                        .line(Source::Dev, &format!("cannot read the {}'s log: {error}", source.name()));
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_line_says_whose_it_is() {
        let plain = Log { is_colored: false };
        let colored = Log { is_colored: true };

        assert_eq!(plain.format(Source::Agent, b"enrolled\n"), b"agent      | enrolled\n");
        assert_eq!(colored.format(Source::Controller, b"up"), b"\x1b[36mcontroller |\x1b[0m up\n");
    }
}
