//! Standard output.

use std::io::{ErrorKind, Write as _};

/// Writes all of it.
pub(crate) fn write(text: &str) -> anyhow::Result<()> {
    bytes(text.as_bytes())
}

/// Writes all of it as it is.
pub(crate) fn bytes(data: &[u8]) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    match out.write_all(data).and_then(|()| out.flush()) {
        // Whoever stops reading, as `head` does, has what they want: what follows a log for ever would not notice.
        Err(error) if error.kind() == ErrorKind::BrokenPipe => std::process::exit(0),
        written => written.map_err(Into::into),
    }
}
