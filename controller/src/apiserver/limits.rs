//! How much is taken on at once, by class of request. Who comes above it waits a moment in turn, and is told to come again before
//! anything breaks.
//!
//! Each class has shares of its own, so that a storm of lists leaves single objects, writes and watches as they are. Requests of our
//! own parts take no share: a reconciler must get through whatever clients do. Agents come to their own door: see `gateway`.

use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tracing::Instrument as _;

use super::decode::BODY_LIMIT;
use super::failure::{Failure, Outcome};

/// Bytes above which the work of one request is done beside the runtime's own threads.
pub(super) const LIGHT: usize = 256 << 10;

/// Bodies that are read or worked on at the same time, in bytes.
const MOST_BODIES: usize = 64 << 20;
/// What even an empty body is charged, so that their number is bounded too.
const LEAST_SHARE: usize = 16 << 10;
/// Single objects read at the same time.
const MOST_GETS: usize = 512;
/// Lists prepared at the same time, and first states of watches. What they send after that is made as it is read.
const MOST_LISTS: usize = 64;
/// Pages of the audit log read at the same time: each has a connection to the database meanwhile, of which there are few.
const MOST_AUDIT_PAGES: usize = 2;
/// Watches open at the same time; some 30 KB of memory each.
const MOST_WATCHES: usize = 20_000;
/// How long a request waits for its share.
const PATIENCE: Duration = Duration::from_secs(1);

/// Shares of the server. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Limits {
    bodies: Arc<Semaphore>,
    gets: Arc<Semaphore>,
    lists: Arc<Semaphore>,
    audit_pages: Arc<Semaphore>,
    watches: Arc<Semaphore>,
    heavy: Arc<Semaphore>,
}

/// Given back when dropped.
#[derive(Debug)]
pub(crate) struct Share {
    _permit: OwnedSemaphorePermit,
}

impl Limits {
    pub fn new() -> Self {
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        Self {
            bodies: Arc::new(Semaphore::new(MOST_BODIES / LEAST_SHARE)),
            gets: Arc::new(Semaphore::new(MOST_GETS)),
            lists: Arc::new(Semaphore::new(MOST_LISTS)),
            audit_pages: Arc::new(Semaphore::new(MOST_AUDIT_PAGES)),
            watches: Arc::new(Semaphore::new(MOST_WATCHES)),
            heavy: Arc::new(Semaphore::new(cores)),
        }
    }

    /// For a request with a body of this length, the longest where it is not said; 429 after a second.
    pub async fn of_write(&self, length: Option<u64>) -> Outcome<Share> {
        let length = length.and_then(|length| usize::try_from(length).ok()).unwrap_or(BODY_LIMIT);
        let parts = length.min(BODY_LIMIT).div_ceil(LEAST_SHARE).max(1);
        take(&self.bodies, u32::try_from(parts).unwrap_or(1)).await
    }

    /// For reading one object; 429 after a second.
    pub async fn of_get(&self) -> Outcome<Share> {
        take(&self.gets, 1).await
    }

    /// For preparing a list; 429 after a second.
    pub async fn of_list(&self) -> Outcome<Share> {
        take(&self.lists, 1).await
    }

    /// For a page of the audit log; 429 after a second.
    pub async fn of_audit_page(&self) -> Outcome<Share> {
        take(&self.audit_pages, 1).await
    }

    /// For a watch, as long as it is open; 429 at once, since watches last.
    pub fn of_watch(&self) -> Outcome<Share> {
        let permit = self.watches.clone().try_acquire_owned();
        permit.map(|permit| Share { _permit: permit }).map_err(|_| Failure::too_many_requests())
    }

    /// Does the work on a thread of its own, as many at once as there are cores, so that probes and small requests are served
    /// meanwhile. Goes on to its end when the caller gives up.
    pub async fn heavily<T: Send + 'static>(
        &self,
        work: impl Future<Output = Outcome<T>> + Send + 'static,
    ) -> Outcome<T> {
        let turn = self.heavy.clone().acquire_owned().await.map_err(Failure::internal)?;
        let (runtime, work) = (Handle::current(), work.in_current_span());
        let done = tokio::task::spawn_blocking(move || {
            let _turn = turn;
            runtime.block_on(work)
        });
        match done.await {
            Ok(outcome) => outcome,
            Err(error) => match error.try_into_panic() {
                Ok(panic) => std::panic::resume_unwind(panic),
                Err(_) => Err(Failure::unavailable("the server is stopping")),
            },
        }
    }
}

async fn take(semaphore: &Arc<Semaphore>, parts: u32) -> Outcome<Share> {
    match tokio::time::timeout(PATIENCE, semaphore.clone().acquire_many_owned(parts)).await {
        Ok(Ok(permit)) => Ok(Share { _permit: permit }),
        Ok(Err(_)) | Err(_) => Err(Failure::too_many_requests()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_watch_holds_its_share_while_it_is_open_and_no_other_class_s() {
        let limits = Limits::new();
        let mut open: Vec<_> = (0..MOST_WATCHES).map(|_| limits.of_watch().expect("there is room")).collect();

        assert_eq!(limits.of_watch().expect_err("all are taken").code().as_u16(), 429);
        assert!(limits.of_list().await.is_ok() && limits.of_get().await.is_ok());
        open.pop();
        assert!(limits.of_watch().is_ok());
    }
}
