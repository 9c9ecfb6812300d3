//! The one task that writes: it syncs once for everybody who waits.

use std::io;
use std::sync::Arc;

use parking_lot::RwLock;
use prost::Message as _;
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use super::ledger::Ledger;
use super::record::{Body, Record};
use super::replay::{NAME, OpenFile};
use super::storage::FileSystem;
use super::{JournalError, What, Write, frame};
use crate::failpoint::reached;

const BATCH: usize = 256;
const SMALLEST_TO_COMPACT: u64 = 256 << 10;
const CHUNK: usize = 64 << 10;

type Done = oneshot::Sender<Result<(), JournalError>>;

pub(super) struct Writer {
    files: Arc<dyn FileSystem>,
    ledger: Arc<RwLock<Ledger>>,
    /// `None` while what lies on disk cannot be continued: the next append begins with a new file.
    file: Option<OpenFile>,
    compact_at: u64,
}

impl Writer {
    pub(super) fn new(
        files: Arc<dyn FileSystem>,
        ledger: Arc<RwLock<Ledger>>,
        file: Option<OpenFile>,
    ) -> Self {
        let compact_at = threshold(file.as_ref());
        Self { files, ledger, file, compact_at }
    }

    pub(super) async fn run(mut self, mut writes: mpsc::Receiver<Write>, stop: CancellationToken) {
        let mut batch = Vec::new();
        loop {
            let count = tokio::select! {
                biased;
                () = stop.cancelled() => return,
                count = writes.recv_many(&mut batch, BATCH) => count,
            };
            if count == 0 {
                return;
            }
            let (mut bodies, mut waiting) = (Vec::new(), Vec::new());
            for write in batch.drain(..) {
                match write.what {
                    What::Append(more) => {
                        bodies.extend(more);
                        waiting.push(write.done);
                    }
                    What::BeginAnew(id) => {
                        self.commit_for(&mut bodies, &mut waiting).await;
                        let result = self.begin_anew(id).await;
                        answer([write.done], &told(result));
                    }
                }
            }
            self.commit_for(&mut bodies, &mut waiting).await;
        }
    }

    async fn commit_for(&mut self, bodies: &mut Vec<Body>, waiting: &mut Vec<Done>) {
        if !waiting.is_empty() {
            let result = self.commit(std::mem::take(bodies)).await;
            answer(waiting.drain(..), &told(result));
        }
    }

    async fn begin_anew(&mut self, id: String) -> io::Result<()> {
        let ledger = self.ledger.read().clone().salvage(id);
        self.replace(&ledger).await?;
        *self.ledger.write() = ledger;
        Ok(())
    }

    /// Makes records durable and only then part of the ledger.
    async fn commit(&mut self, bodies: Vec<Body>) -> io::Result<()> {
        if self.file.is_none() {
            self.rewrite().await?;
        } else if self.file.as_ref().is_some_and(|open| open.length > self.compact_at) {
            self.compact().await?;
        }
        let open = self.file.as_mut().ok_or(io::ErrorKind::NotConnected)?;

        let next = self.ledger.read().sequence() + 1;
        let records: Vec<_> =
            (next..).zip(bodies).map(|(sequence, body)| Record { sequence, body: Some(body) }).collect();
        let mut bytes = Vec::new();
        for (place, record) in (open.frames..).zip(&records) {
            frame::write(&mut bytes, place, open.frames, &record.encode_to_vec());
        }
        let kind = records.first().and_then(|record| record.body.as_ref()).map_or("nothing", Body::kind);
        reached(kind, "before-append").await;
        let written = match open.file.append(&bytes).await {
            Ok(()) => {
                reached(kind, "appended").await;
                open.file.sync().await
            }
            Err(error) => Err(error),
        };
        if let Err(error) = written {
            // A page whose sync failed counts as clean afterwards, so what lies there is never built upon.
            if error.kind() != io::ErrorKind::StorageFull || open.file.truncate(open.length).await.is_err() {
                self.file = None;
            }
            return Err(error);
        }
        reached(kind, "synced").await;
        open.length += bytes.len() as u64;
        open.frames += records.len() as u64;

        let mut ledger = self.ledger.write();
        for record in records {
            ledger.apply(record);
        }
        Ok(())
    }

    async fn rewrite(&mut self) -> io::Result<()> {
        let ledger = self.ledger.read().clone();
        self.replace(&ledger).await
    }

    async fn replace(&mut self, ledger: &Ledger) -> io::Result<()> {
        self.file = None;
        self.file = Some(rewrite(self.files.as_ref(), ledger).await?);
        self.compact_at = threshold(self.file.as_ref());
        Ok(())
    }

    /// Like `rewrite`, but an attempt that fails before the new file has its name leaves the old one in use.
    async fn compact(&mut self) -> io::Result<()> {
        let ledger = self.ledger.read().clone();
        match prepare(self.files.as_ref(), &ledger).await {
            Ok(fresh) => {
                self.file = None;
                reached("compaction", "prepared").await;
                self.file = Some(install(self.files.as_ref(), fresh).await?);
                reached("compaction", "installed").await;
            }
            Err(error) => tracing::warn!(%error, "journal cannot be compacted and grows on"),
        }
        self.compact_at = threshold(self.file.as_ref());
        Ok(())
    }
}

fn told(result: io::Result<()>) -> Result<(), JournalError> {
    result.map_err(|error| {
        tracing::warn!(%error, "journal cannot be written");
        JournalError::Unwritable(Arc::new(error))
    })
}

fn answer(waiting: impl IntoIterator<Item = Done>, result: &Result<(), JournalError>) {
    for done in waiting {
        // A caller that went away has no use for the answer; the record stands.
        drop(done.send(result.clone()));
    }
}

fn threshold(file: Option<&OpenFile>) -> u64 {
    file.map_or(0, |open| open.length * 2).max(SMALLEST_TO_COMPACT)
}

/// Writes the whole ledger to a new file and gives it the journal's name.
pub(super) async fn rewrite(files: &dyn FileSystem, ledger: &Ledger) -> io::Result<OpenFile> {
    let fresh = prepare(files, ledger).await?;
    install(files, fresh).await
}

fn fresh_name() -> String {
    format!("{NAME}.new")
}

async fn prepare(files: &dyn FileSystem, ledger: &Ledger) -> io::Result<OpenFile> {
    let mut file = files.create(&fresh_name()).await?;
    let frames = ledger.snapshot(0).count() as u64;
    let mut buffer = Vec::new();
    let mut length = 0;
    for (place, record) in (0..).zip(ledger.snapshot(frames)) {
        frame::write(&mut buffer, place, 0, &record.encode_to_vec());
        if buffer.len() > CHUNK {
            file.append(&buffer).await?;
            length += buffer.len() as u64;
            buffer.clear();
        }
    }
    file.append(&buffer).await?;
    length += buffer.len() as u64;
    file.sync().await?;
    Ok(OpenFile { file, length, frames })
}

async fn install(files: &dyn FileSystem, fresh: OpenFile) -> io::Result<OpenFile> {
    files.rename(&fresh_name(), NAME).await?;
    files.sync_directory().await?;
    Ok(fresh)
}
