//! Consistent reads: many callers, one question to the database, asked after the last of them came.

use std::sync::Arc;

use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use super::{Backend, StorageError, Version};

/// Somebody who wants to know the newest version.
pub(super) type Waiter = oneshot::Sender<Result<Version, StorageError>>;

/// Waiters that share one question.
const SHARED_BY: usize = 1_024;

/// Answers waiters until told to stop.
pub(super) async fn answer(
    backend: Arc<dyn Backend>,
    mut waiters: mpsc::Receiver<Waiter>,
    stop: CancellationToken,
) {
    let mut waiting = Vec::new();
    loop {
        let came = tokio::select! {
            came = waiters.recv_many(&mut waiting, SHARED_BY) => came,
            () = stop.cancelled() => 0,
        };
        if came == 0 {
            return;
        }
        let newest = tokio::select! {
            newest = backend.newest() => newest.map(|position| position.version),
            () = stop.cancelled() => Err(StorageError::Stopped),
        };
        for waiter in waiting.drain(..) {
            // A caller that has gone away needs no answer.
            let _ = waiter.send(newest.clone());
        }
    }
}
