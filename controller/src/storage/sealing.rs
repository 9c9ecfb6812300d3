//! Secrets are sealed on their way to Postgres and opened on their way back: the whole text, so annotations too. Keys, uid, version and
//! labels stay readable. Memory holds the plain text.
//!
//! Nothing here knows SQL. What a text is sealed with and bound to is in `envelope`, where keys come from in `ring`.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tracing::{info, warn};
use uuid::Uuid;

use super::recordings::RECORDINGS;
use super::{Key, Stored};
use crate::clock::SharedEntropy;

mod envelope;
mod pieces;
mod ring;
#[cfg(test)]
mod tests;

pub(super) use envelope::KEY_ID_PATTERN;
pub(super) use pieces::PieceKey;
pub use ring::{KeyId, KeyRing, KeyRingError, KeySource};

use envelope::{Bound, OpenError};

/// The one kind whose text is sealed. Keys of recordings are too.
pub(super) const SECRETS: &str = "secrets";
/// How often a running controller reads its key ring again.
pub(super) const REREAD: Duration = Duration::from_secs(2);
/// How long a file may take to answer.
const FILE_PATIENCE: Duration = Duration::from_secs(1);
/// A look at the file that found no missing key is not repeated sooner, whatever rows come.
const VAIN_LOOK: Duration = Duration::from_secs(1);
/// Missing keys that are remembered.
const MOST_MISSING: usize = 64;

/// Seals and opens with a key ring that may change while it is used. Shared by all that read and write one database.
pub struct Sealer {
    ring: ArcSwap<KeyRing>,
    source: KeySource,
    entropy: SharedEntropy,
    /// Keys that rows asked for in vain since the last snapshot.
    missing: Mutex<BTreeSet<KeyId>>,
    /// A look at the file that has not come back, so that a disk that hangs holds one thread and no more.
    reading: tokio::sync::Mutex<Option<JoinHandle<Result<KeyRing, KeyRingError>>>>,
    /// True from when the ring could not be read again, until it can.
    is_failing: AtomicBool,
    /// When the ring was last read in vain for a missing key. Locked while it is read, so that readers share a look.
    looked: tokio::sync::Mutex<Option<Instant>>,
}

impl std::fmt::Debug for Sealer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Sealer").field("ring", &*self.ring.load()).finish_non_exhaustive()
    }
}

impl Sealer {
    /// Reads the key ring.
    pub fn open(source: KeySource, entropy: SharedEntropy) -> Result<Arc<Self>, KeyRingError> {
        let ring = ArcSwap::from_pointee(source.read()?);
        Ok(Arc::new(Self {
            ring,
            source,
            entropy,
            missing: Mutex::default(),
            reading: tokio::sync::Mutex::default(),
            is_failing: AtomicBool::new(false),
            looked: tokio::sync::Mutex::default(),
        }))
    }

    /// The keys as they are now.
    pub fn ring(&self) -> Arc<KeyRing> {
        self.ring.load_full()
    }

    /// What is stored in place of an object's text: itself, unless it is a Secret.
    pub(super) fn seal<'a>(&self, key: &Key, uid: Uuid, text: &'a str) -> Cow<'a, str> {
        if matches!(&*key.resource.0, SECRETS | RECORDINGS) {
            envelope::seal(&self.ring.load(), self.entropy.as_ref(), Bound { key, uid }, text).into()
        } else {
            text.into()
        }
    }

    /// Opens those that are sealed; the text of one that cannot be opened becomes the reason. A key that is not known is looked for in the
    /// file once.
    pub(super) async fn open_all(&self, rows: Vec<&mut Stored>) {
        let unknown = open_known(&self.ring.load(), rows);
        if unknown.is_empty() {
            return;
        }
        self.look_for_keys(&unknown).await;
        for (row, id) in open_known(&self.ring.load(), unknown.into_iter().map(|(row, _)| row).collect()) {
            row.text = Err(OpenError::UnknownKey(id.clone()).to_string());
            let mut missing = self.missing.lock();
            if missing.len() < MOST_MISSING && missing.insert(id.clone()) {
                warn!(key = %id, ring = %self.source, "stored Secrets are sealed with a key that is not in the key ring: put it back");
            }
        }
    }

    async fn look_for_keys(&self, unknown: &[(&mut Stored, KeyId)]) {
        let mut looked = self.looked.lock().await;
        if looked.is_some_and(|at| at.elapsed() < VAIN_LOOK) {
            return;
        }
        self.reread().await;
        let ring = self.ring.load();
        *looked = unknown.iter().any(|(_, id)| !ring.holds(id)).then(Instant::now);
    }

    /// Reads the file again. One that cannot be used changes nothing, so that a slip while editing it costs no running controller its keys.
    async fn reread(&self) {
        let KeySource::File(_) = &self.source else { return };
        let mut reading = self.reading.lock().await;
        let source = self.source.clone();
        let look = reading.get_or_insert_with(|| tokio::task::spawn_blocking(move || source.read()));
        let read = tokio::time::timeout(FILE_PATIENCE, look).await;
        if read.is_ok() {
            *reading = None;
        }
        let why = match read {
            Ok(Ok(Ok(ring))) => {
                self.is_failing.store(false, Ordering::Relaxed);
                if ring.ids() != self.ring.load().ids() {
                    info!(?ring, "the key ring has changed; its first key seals from now on");
                    self.ring.store(Arc::new(ring));
                }
                return;
            }
            Ok(Ok(Err(error))) => error.chain(),
            Ok(Err(_)) | Err(_) => format!("the key ring {} does not answer", self.source),
        };
        if !self.is_failing.swap(true, Ordering::Relaxed) {
            warn!(error = why, "the key ring cannot be read again; the keys of before are used");
        }
    }

    /// True if a key has come that a row lacked when it was read, so that everything should be read anew.
    pub(super) fn has_found_keys(&self) -> bool {
        let missing = self.missing.lock();
        !missing.is_empty() && missing.iter().any(|id| self.ring.load().holds(id))
    }

    /// Forgets which keys were missing, for who is about to open everything anew.
    pub(super) fn begin_anew(&self) {
        self.missing.lock().clear();
    }
}

/// Follows the file until dropped.
pub(super) async fn follow(sealer: Arc<Sealer>) {
    loop {
        tokio::time::sleep(REREAD).await;
        sealer.reread().await;
    }
}

/// Opens what the ring has a key for; gives back the others with the key they want.
fn open_known<'a>(ring: &KeyRing, rows: Vec<&'a mut Stored>) -> Vec<(&'a mut Stored, KeyId)> {
    let mut unknown = Vec::new();
    for row in rows {
        let Ok(text) = &row.text else { continue };
        match envelope::open(ring, Bound { key: &row.key, uid: row.uid }, text) {
            Ok(None) => {}
            Ok(Some(plain)) => row.text = Ok(plain),
            Err(OpenError::UnknownKey(id)) => unknown.push((row, id)),
            Err(error) => row.text = Err(error.to_string()),
        }
    }
    unknown
}
