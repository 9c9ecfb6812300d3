//! The key ring: a key a line, the first seals and all open. A key's id is made from the key, so one id never stands for two.

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::str::FromStr;

use aes_gcm::{Aes256Gcm, KeyInit as _};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use sha2::{Digest as _, Sha256};
use zeroize::Zeroizing;

use crate::clock::Entropy;
use crate::pki::hex;

/// Bytes of a key.
const KEY: usize = 32;
/// Bytes of its hash that name it.
const ID: usize = 4;
/// The variable that [`KeySource::Given`] comes from.
const VARIABLE: &str = "GANTRY_ENCRYPTION_KEYS";

/// Names a key and tells nothing of it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KeyId(String);

impl KeyId {
    fn of(key: &[u8]) -> Self {
        let hash = Sha256::new().chain_update("gantry key ring").chain_update(key).finalize();
        Self(hex(hash.get(..ID).unwrap_or_default()))
    }

    pub(super) fn parse(text: &str) -> Option<Self> {
        let is_id =
            text.len() == 2 * ID && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
        is_id.then(|| Self(text.to_owned()))
    }

    /// As it stands in the ring and in rows.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Keys that open, of which the first seals. Never empty.
pub struct KeyRing {
    first: RingKey,
    others: Vec<RingKey>,
}

/// One of them.
pub(super) struct RingKey {
    pub(super) id: KeyId,
    /// Boxed, so that what it is made of is in one place, which is wiped in the end.
    pub(super) cipher: Box<Aes256Gcm>,
}

impl fmt::Debug for KeyRing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.ids().iter().map(|id| id.as_str())).finish()
    }
}

impl KeyRing {
    /// A new random key as a line of a ring.
    pub fn new_line(entropy: &dyn Entropy) -> Zeroizing<String> {
        let mut key = Zeroizing::new([0; KEY]);
        entropy.fill(key.as_mut_slice());
        let text = Zeroizing::new(STANDARD.encode(key.as_slice()));
        Zeroizing::new(format!("{}:{}\n", KeyId::of(key.as_slice()), *text))
    }

    /// Reads a ring from what was in `place`.
    fn parse(text: &str, place: &KeySource) -> Result<Self, KeyRingError> {
        let mut keys: Vec<RingKey> = Vec::new();
        for (number, line) in text.split(['\n', ',']).enumerate() {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let refused =
                |why: String| KeyRingError::NotAKey { place: place.to_string(), line: number + 1, why };
            let key = RingKey::parse(line).map_err(refused)?;
            if keys.iter().any(|other| other.id == key.id) {
                return Err(refused(format!("the key `{}` stands there a second time", key.id)));
            }
            keys.push(key);
        }
        let mut keys = keys.into_iter();
        let Some(first) = keys.next() else { return Err(KeyRingError::Empty(place.to_string())) };
        Ok(Self { first, others: keys.collect() })
    }

    pub(super) fn first(&self) -> &RingKey {
        &self.first
    }

    pub(super) fn find(&self, id: &KeyId) -> Option<&RingKey> {
        std::iter::once(&self.first).chain(&self.others).find(|key| key.id == *id)
    }

    pub(super) fn holds(&self, id: &KeyId) -> bool {
        self.find(id).is_some()
    }

    /// Names of its keys; the first one's seals.
    pub fn ids(&self) -> Vec<&KeyId> {
        std::iter::once(&self.first).chain(&self.others).map(|key| &key.id).collect()
    }

    /// The name of the key that seals.
    pub fn sealing(&self) -> &KeyId {
        &self.first.id
    }
}

impl RingKey {
    fn parse(line: &str) -> Result<Self, String> {
        let (name, text) =
            line.split_once(':').map_or((None, line), |(name, text)| (Some(name.trim()), text.trim()));
        let key = Zeroizing::new(STANDARD.decode(text).map_err(|_| "it is not base64".to_owned())?);
        let cipher = Aes256Gcm::new_from_slice(&key)
            .map_err(|_| format!("it has {} bytes and not {KEY}", key.len()))?;
        let id = KeyId::of(&key);
        // What is before the colon may be half a key that was pasted wrongly, so it is not shown.
        if name.is_some_and(|name| name != id.as_str()) {
            return Err(format!("its name is `{id}`, and another stands before the colon"));
        }
        Ok(Self { id, cipher: Box::new(cipher) })
    }
}

/// Where a key ring comes from.
#[derive(Clone)]
pub enum KeySource {
    /// A file, which is read again while the controller runs.
    File(PathBuf),
    /// The keys themselves, from the environment.
    Given(Zeroizing<String>),
}

impl KeySource {
    /// The ring as it is there now.
    pub fn read(&self) -> Result<KeyRing, KeyRingError> {
        match self {
            Self::Given(text) => KeyRing::parse(text, self),
            Self::File(path) => match std::fs::read_to_string(path).map(Zeroizing::new) {
                Ok(text) => KeyRing::parse(&text, self),
                Err(cause) => Err(KeyRingError::Unreadable { path: path.clone(), cause }),
            },
        }
    }
}

impl fmt::Display for KeySource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => path.display().fmt(f),
            Self::Given(_) => f.write_str(VARIABLE),
        }
    }
}

impl fmt::Debug for KeySource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "KeySource({self})")
    }
}

impl FromStr for KeySource {
    type Err = std::convert::Infallible;

    /// Takes the keys themselves. What is wrong with them is said when they are read, since the parser of flags would print them.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Ok(Self::Given(Zeroizing::new(text.to_owned())))
    }
}

/// Why there is no key ring. Never shows a key.
#[derive(Debug, thiserror::Error)]
pub enum KeyRingError {
    /// The file cannot be read.
    #[error("the key ring {} cannot be read: check the path, and that the controller may read it", path.display())]
    Unreadable {
        /// Which.
        path: PathBuf,
        /// What the system said.
        #[source]
        cause: io::Error,
    },
    /// A line is not a key.
    #[error("the key ring {place} cannot be used, line {line}: {why}; `openssl rand -base64 32` makes a key")]
    NotAKey {
        /// The file or variable.
        place: String,
        /// Which line, from 1.
        line: usize,
        /// What is wrong with it.
        why: String,
    },
    /// No key at all.
    #[error(
        "the key ring {0} is empty: put back the keys that Secrets were sealed with; `openssl rand -base64 32` makes the first"
    )]
    Empty(String),
}

impl KeyRingError {
    /// This error and what caused it, as one line.
    pub(super) fn chain(&self) -> String {
        match self {
            Self::Unreadable { cause, .. } => format!("{self}: {cause}"),
            Self::NotAKey { .. } | Self::Empty(_) => self.to_string(),
        }
    }
}
