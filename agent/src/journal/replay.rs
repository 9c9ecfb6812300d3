//! Opening: what the file says, and what to do about its end.

use std::io;
use std::sync::Arc;

use prost::Message as _;

use super::frame::{self, Frame};
use super::ledger::Ledger;
use super::record::{Body, Record};
use super::storage::{FileSystem, JournalFile};
use super::{JournalError, writer};
use crate::clock::SharedEntropy;

pub(super) const NAME: &str = "operations.journal";

/// A file that is ready for appending.
pub(super) struct OpenFile {
    pub(super) file: Box<dyn JournalFile>,
    pub(super) length: u64,
    pub(super) frames: u64,
}

/// The ledger, and the file if it can be written now; the writer makes one anew as soon as it can otherwise.
pub(super) async fn open(
    files: &dyn FileSystem,
    entropy: &SharedEntropy,
) -> Result<(Ledger, Option<OpenFile>), JournalError> {
    let new_id = || entropy.uuid().to_string();
    let Some(bytes) = files.read(NAME).await.map_err(unusable)? else {
        let ledger = Ledger::new(new_id());
        let file = writer::rewrite(files, &ledger).await.ok();
        return Ok((ledger, file));
    };
    let scan = frame::scan(&bytes);
    match read(&scan.good) {
        Some((ledger, durable)) if !scan.is_damaged && durable <= scan.good.len() as u64 => {
            let (length, frames) = (scan.length as u64, scan.good.len() as u64);
            let file = continue_at(files, length).await;
            if let Err(error) = &file {
                tracing::warn!(%error, "journal can be read but not written");
            }
            Ok((ledger, file.ok().map(|file| OpenFile { file, length, frames })))
        }
        _ => {
            let known = salvage(&scan);
            let aside = format!("{NAME}.damaged-{}", new_id());
            tracing::error!(file = aside, "journal is damaged: it is set aside and a new one takes over");
            files.rename(NAME, &aside).await.map_err(unusable)?;
            files.sync_directory().await.map_err(unusable)?;
            let ledger = known.salvage(new_id());
            let file = writer::rewrite(files, &ledger).await.map_err(unusable)?;
            Ok((ledger, Some(file)))
        }
    }
}

/// What was read may lie in the page cache alone: a process that died between writing and syncing left it there.
async fn continue_at(files: &dyn FileSystem, length: u64) -> io::Result<Box<dyn JournalFile>> {
    let mut file = files.open(NAME, length).await?;
    file.sync().await?;
    files.sync_directory().await?;
    Ok(file)
}

/// The ledger and how many frames were durable from the first; `None` if a record cannot be understood.
fn read(frames: &[Frame<'_>]) -> Option<(Ledger, u64)> {
    let mut ledger = Ledger::default();
    let mut durable = None;
    for frame in frames {
        let record = Record::decode(frame.payload).ok()?;
        if let Some(Body::Identity(identity)) = &record.body {
            durable = Some(identity.frames);
        }
        durable?;
        ledger.apply(record);
    }
    Some((ledger, durable?))
}

/// Everything whole, in the order it lies there.
fn salvage(scan: &frame::Scan<'_>) -> Ledger {
    let mut ledger = Ledger::default();
    let whole = scan.good.iter().chain(&scan.beyond);
    whole.filter_map(|frame| Record::decode(frame.payload).ok()).for_each(|record| ledger.apply(record));
    ledger
}

fn unusable(error: io::Error) -> JournalError {
    JournalError::Unusable(Arc::new(error))
}
