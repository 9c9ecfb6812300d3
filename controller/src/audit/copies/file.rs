//! Lines of JSON in a file, or on standard output.

use std::io;
use std::path::Path;
use std::sync::Arc;

use async_trait::async_trait;
use tokio::io::{AsyncWrite, AsyncWriteExt as _};

use super::{ExportError, Exporter};
use crate::audit::event::lines;
use crate::storage::audit::Record;

pub(super) struct File(Box<dyn AsyncWrite + Send + Unpin>);

impl File {
    pub(super) async fn open(path: &Path) -> io::Result<Self> {
        if path == Path::new("-") {
            return Ok(Self(Box::new(tokio::io::stdout())));
        }
        let mut options = tokio::fs::OpenOptions::new();
        Ok(Self(Box::new(options.append(true).create(true).mode(0o600).open(path).await?)))
    }
}

#[async_trait]
impl Exporter for File {
    async fn export(&mut self, events: &[Arc<Record>]) -> Result<(), ExportError> {
        let written = async {
            self.0.write_all(lines(events).as_bytes()).await?;
            self.0.flush().await
        };
        // A part may be written: again would be twice.
        written.await.map_err(|error: io::Error| ExportError { why: error.to_string(), is_passing: false })
    }
}
