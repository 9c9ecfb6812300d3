//! A copy of every event as a line of JSON, in a file or on standard output. The store is what counts: a copy is written after it, and
//! left out where nobody takes it.

use std::io;
use std::path::Path;

use tokio::io::{AsyncWrite, AsyncWriteExt as _};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

/// Lines that may wait to be written.
const QUEUE: usize = 4_096;

/// Takes lines. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Log(mpsc::Sender<String>);

/// Writes them.
pub struct LogWriter {
    lines: mpsc::Receiver<String>,
    file: Box<dyn AsyncWrite + Send + Unpin>,
}

impl Log {
    /// Appends to a file, or writes to standard output for `-`.
    pub async fn open(path: &Path) -> io::Result<(Self, LogWriter)> {
        let file: Box<dyn AsyncWrite + Send + Unpin> = if path == Path::new("-") {
            Box::new(tokio::io::stdout())
        } else {
            let mut options = tokio::fs::OpenOptions::new();
            Box::new(options.append(true).create(true).mode(0o600).open(path).await?)
        };
        let (sender, lines) = mpsc::channel(QUEUE);
        Ok((Self(sender), LogWriter { lines, file }))
    }

    /// False if there is no room for the line.
    pub(super) fn write(&self, line: String) -> bool {
        self.0.try_send(line).is_ok()
    }
}

impl LogWriter {
    /// Writes until told to stop, then what had come before.
    pub async fn run(mut self, stop: CancellationToken) {
        let mut batch = Vec::new();
        loop {
            let came = tokio::select! {
                biased;
                came = self.lines.recv_many(&mut batch, 256) => came,
                () = stop.cancelled(), if !self.lines.is_closed() => {
                    self.lines.close();
                    continue;
                }
            };
            if came == 0 {
                return;
            }
            let mut text = batch.join("\n");
            text.push('\n');
            batch.clear();
            let written = async {
                self.file.write_all(text.as_bytes()).await?;
                self.file.flush().await
            };
            if let Err(error) = written.await {
                tracing::warn!(%error, lines = came, "the audit log beside the store cannot be written");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_came_before_the_end_is_in_the_file() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("audit.log");
        let (log, writer) = Log::open(&path).await.expect("it opens");
        let stop = CancellationToken::new();

        assert!(log.write("{\"a\":1}".to_owned()) && log.write("{\"b\":2}".to_owned()));
        stop.cancel();
        writer.run(stop).await;

        assert_eq!(std::fs::read_to_string(&path).expect("it is there"), "{\"a\":1}\n{\"b\":2}\n");
        assert!(!log.write("late".to_owned()));
    }
}
