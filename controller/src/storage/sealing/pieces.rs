//! The key of one recording, which seals its pieces: AES-256-GCM, each bound to the recording's id and its own number.

use std::collections::BTreeMap;

use aes_gcm::aead::{Aead as _, Payload};
use aes_gcm::{Aes256Gcm, KeyInit as _};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use uuid::Uuid;
use zeroize::Zeroizing;

use super::envelope::{self, Bound};
use super::{Sealer, Stored};
use crate::clock::SharedEntropy;
use crate::storage::{Key, Version};

const KEY: usize = 32;
const NONCE: usize = 12;

/// Seals and opens the pieces of one recording.
pub(in crate::storage) struct PieceKey {
    cipher: Aes256Gcm,
    entropy: SharedEntropy,
}

impl Sealer {
    /// A key for one recording, and how it is stored.
    pub(in crate::storage) fn new_piece_key(&self, key: &Key, uid: Uuid) -> (PieceKey, String) {
        let mut bytes = Zeroizing::new([0; KEY]);
        self.entropy.fill(bytes.as_mut_slice());
        let text = Zeroizing::new(STANDARD.encode(bytes.as_slice()));
        let sealed = envelope::seal(&self.ring.load(), self.entropy.as_ref(), Bound { key, uid }, &text);
        (PieceKey { cipher: Aes256Gcm::new((&*bytes).into()), entropy: self.entropy.clone() }, sealed)
    }

    /// The key that was stored as that; `None` where it cannot be opened.
    pub(in crate::storage) async fn open_piece_key(
        &self,
        key: &Key,
        uid: Uuid,
        sealed: String,
    ) -> Option<PieceKey> {
        let mut row = Stored {
            key: key.clone(),
            uid,
            version: Version(0),
            labels: BTreeMap::default(),
            text: Ok(sealed),
        };
        self.open_all(vec![&mut row]).await;
        let text = Zeroizing::new(row.text.ok()?);
        let bytes = Zeroizing::new(STANDARD.decode(&*text).ok()?);
        let cipher = Aes256Gcm::new_from_slice(&bytes).ok()?;
        Some(PieceKey { cipher, entropy: self.entropy.clone() })
    }
}

impl PieceKey {
    /// A random nonce and what AES-GCM made. A recording has far fewer pieces than the 2³² nonces of a key.
    pub(in crate::storage) fn seal(&self, id: Uuid, number: i32, piece: &[u8]) -> Vec<u8> {
        let mut nonce = [0; NONCE];
        self.entropy.fill(&mut nonce);
        let payload = Payload { msg: piece, aad: &bound(id, number) };
        let made = self.cipher.encrypt(&nonce.into(), payload);
        [nonce.as_slice(), &made.expect("a piece is shorter than the 64 GiB that GCM takes")].concat()
    }

    /// The piece; `None` where it is not what was sealed, or not where it was.
    pub(in crate::storage) fn open(&self, id: Uuid, number: i32, sealed: &[u8]) -> Option<Vec<u8>> {
        let (nonce, made) = sealed.split_first_chunk::<NONCE>()?;
        self.cipher.decrypt(nonce.into(), Payload { msg: made, aad: &bound(id, number) }).ok()
    }
}

fn bound(id: Uuid, number: i32) -> Vec<u8> {
    [b"gantry recording 1".as_slice(), id.as_bytes(), &number.to_be_bytes()].concat()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::clock::SystemEntropy;

    #[test]
    fn t31_a_piece_opens_in_its_place_and_in_no_other() {
        let key = PieceKey { cipher: Aes256Gcm::new(&[7; KEY].into()), entropy: Arc::new(SystemEntropy) };
        let (id, other) = (Uuid::from_u128(1), Uuid::from_u128(2));
        let sealed = key.seal(id, 3, b"make me a sandwich");
        let mut changed = sealed.clone();
        *changed.last_mut().expect("bytes") ^= 1;

        assert_eq!(key.open(id, 3, &sealed).expect("it opens"), b"make me a sandwich");
        assert_eq!(key.open(id, 4, &sealed), None);
        assert_eq!(key.open(other, 3, &sealed), None);
        assert_eq!(key.open(id, 3, &changed), None);
        assert_eq!(key.open(id, 3, &sealed[..5]), None);
        assert!(!sealed.windows(8).any(|window| window == b"sandwich"));
    }
}
