//! The form of a sealed text: a random data key for each, which seals that one text and is itself sealed with a key of the ring.
//!
//! Both are AES-256-GCM and bound to the object's resource, namespace, name and uid. The version is given by the statement that stores
//! it, so it is not bound: an older sealed text of the same object opens.

use aes_gcm::aead::{Aead as _, Payload};
use aes_gcm::{Aes256Gcm, KeyInit as _};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};
use uuid::Uuid;
use zeroize::Zeroizing;

use super::{KeyId, KeyRing};
use crate::clock::Entropy;
use crate::storage::Key;

/// What no text of [`crate::storage::Body`] begins with.
const PREFIX: &str = r#"{"sealed":"#;
/// Finds the key's id in a sealed text, and nothing in another; for Postgres, which is to read no more than the beginning.
pub(in crate::storage) const KEY_ID_PATTERN: &str = r#"^\{"sealed":\{"key":"([0-9a-f]*)""#;
/// Names this form; a later one has another number.
const FORM: u32 = 1;
const KEY: usize = 32;
const NONCE: usize = 12;

/// What a sealed text belongs to.
#[derive(Clone, Copy)]
pub(super) struct Bound<'a> {
    pub(super) key: &'a Key,
    pub(super) uid: Uuid,
}

/// Why a sealed text stays closed. Says nothing of what is in it.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum OpenError {
    #[error("it is sealed with the key `{0}`, which is not in the key ring")]
    UnknownKey(KeyId),
    #[error("it is sealed in a form that this version does not know")]
    UnknownForm,
    #[error("it was sealed for another object, or changed since, or its key was")]
    Broken,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Envelope<'a> {
    #[serde(borrow)]
    sealed: Sealed<'a>,
}

/// Each of the last two is a nonce and what AES-GCM made, in base64.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Sealed<'a> {
    // The first, where `KEY_ID_PATTERN` looks for it.
    key: &'a str,
    form: u32,
    data_key: std::borrow::Cow<'a, str>,
    text: std::borrow::Cow<'a, str>,
}

/// Seals a text with the ring's first key.
pub(super) fn seal(ring: &KeyRing, entropy: &dyn Entropy, bound: Bound<'_>, text: &str) -> String {
    let first = ring.first();
    let mut data_key = Zeroizing::new([0; KEY]);
    entropy.fill(data_key.as_mut_slice());
    let cipher = Aes256Gcm::new((&*data_key).into());
    let sealed = Sealed {
        key: first.id.as_str(),
        form: FORM,
        data_key: encrypt(&first.cipher, entropy, &bound.data("key", &first.id), data_key.as_slice()).into(),
        text: encrypt(&cipher, entropy, &bound.data("text", &first.id), text.as_bytes()).into(),
    };
    serde_json::to_string(&Envelope { sealed }).expect("texts and a number are JSON")
}

/// The text that was sealed; `None` if this one is not.
pub(super) fn open(ring: &KeyRing, bound: Bound<'_>, text: &str) -> Result<Option<String>, OpenError> {
    if !text.starts_with(PREFIX) {
        return Ok(None);
    }
    let Envelope { sealed } = serde_json::from_str(text).map_err(|_| OpenError::UnknownForm)?;
    let id = KeyId::parse(sealed.key).ok_or(OpenError::UnknownForm)?;
    if sealed.form != FORM {
        return Err(OpenError::UnknownForm);
    }
    let Some(key) = ring.find(&id) else { return Err(OpenError::UnknownKey(id)) };
    let data_key = decrypt(&key.cipher, &bound.data("key", &id), &sealed.data_key)?;
    let cipher = Aes256Gcm::new_from_slice(&data_key).map_err(|_| OpenError::Broken)?;
    let mut plain = decrypt(&cipher, &bound.data("text", &id), &sealed.text)?;
    String::from_utf8(std::mem::take(&mut *plain)).map(Some).map_err(|_| OpenError::Broken)
}

impl Bound<'_> {
    /// The associated data: an array, so that no two objects share theirs. The role keeps a sealed key from passing for a sealed text.
    fn data(self, role: &str, id: &KeyId) -> Vec<u8> {
        let Key { resource, namespace, name } = self.key;
        serde_json::json!([FORM, role, id.as_str(), &*resource.0, &**namespace, &**name, self.uid])
            .to_string()
            .into_bytes()
    }
}

/// Nonces are random. A data key sees one of them; a key of the ring sees one for each write of a Secret, and 2³² of those are what GCM
/// allows with random nonces: more than a year of a hundred writes a second, and then `keys rotate` is due.
fn encrypt(cipher: &Aes256Gcm, entropy: &dyn Entropy, bound: &[u8], plain: &[u8]) -> String {
    let mut nonce = [0; NONCE];
    entropy.fill(&mut nonce);
    let payload = Payload { msg: plain, aad: bound };
    let made =
        cipher.encrypt(&nonce.into(), payload).expect("a text is shorter than the 64 GiB that GCM takes");
    STANDARD.encode([nonce.as_slice(), &made].concat())
}

fn decrypt(cipher: &Aes256Gcm, bound: &[u8], sealed: &str) -> Result<Zeroizing<Vec<u8>>, OpenError> {
    let bytes = STANDARD.decode(sealed).map_err(|_| OpenError::Broken)?;
    let (nonce, made) = bytes.split_first_chunk::<NONCE>().ok_or(OpenError::Broken)?;
    let payload = Payload { msg: made, aad: bound };
    cipher.decrypt(nonce.into(), payload).map(Zeroizing::new).map_err(|_| OpenError::Broken)
}
