//! The keys that tokens of ServiceAccounts are signed with and verified by: ECDSA P-256, as PEM.
//!
//! Replicas have the same ones: the first start makes one in the `pki` directory that they share. To change the key, sign with the new
//! one and keep the old one among those that verify, until the last of its tokens has ended.

use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use rcgen::{KeyPair, PKCS_ECDSA_P256_SHA256, PublicKeyData, SubjectPublicKeyInfo};
use rustls_pki_types::pem::{PemObject as _, SectionKind};
use sha2::{Digest as _, Sha256};

use super::{PkiError, files};

/// Below the data directory.
const OWN_KEY: &str = "service-account.key";
/// What a point that is not compressed begins with.
const UNCOMPRESSED: u8 = 4;
const COORDINATE: usize = 32;

const MAKE_ONE: &str = "make one with `openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256`";
const CONVERT: &str = "is in the form of SEC 1: convert it with `openssl pkcs8 -topk8 -nocrypt`";

/// The key that signs, and all that verify.
pub struct TokenKeys {
    private: Vec<u8>,
    /// Its public half first.
    public: Vec<PublicKey>,
}

/// One key that verifies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PublicKey {
    /// What tokens name it by: its SHA-256, as Kubernetes names keys.
    pub id: String,
    /// Both halves of the point.
    pub x: [u8; COORDINATE],
    /// The other one.
    pub y: [u8; COORDINATE],
}

impl std::fmt::Debug for TokenKeys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TokenKeys").field("public", &self.public).finish_non_exhaustive()
    }
}

impl TokenKeys {
    /// Signs with the key in `signing`; without one, with that of the data directory, which is made where there is none. Every key in
    /// the other files verifies too, be it public or private.
    pub fn open(data_dir: &Path, signing: Option<&Path>, others: &[PathBuf]) -> Result<Self, PkiError> {
        let (path, pem) = if let Some(path) = signing {
            (path.to_owned(), given(path)?)
        } else {
            let path = files::shared_dir(data_dir)?.join(OWN_KEY);
            let pem = files::read_or_make(&path, || Ok(KeyPair::generate()?.serialize_pem()))?;
            (path, pem)
        };
        let mut keys = Self::of(&private(&path, &pem)?).ok_or_else(|| unusable(&path, MAKE_ONE))?;
        for path in others {
            for key in all(path, &given(path)?)? {
                if !keys.public.contains(&key) {
                    keys.public.push(key);
                }
            }
        }
        Ok(keys)
    }

    /// A new one that is kept nowhere.
    pub fn generate() -> Result<Self, PkiError> {
        Self::of(&KeyPair::generate()?).ok_or(PkiError::Unreadable)
    }

    /// Verifies by these keys too.
    #[must_use]
    pub fn and(mut self, others: &Self) -> Self {
        self.public.extend(others.public.iter().cloned());
        self
    }

    fn of(key: &KeyPair) -> Option<Self> {
        Some(Self { public: vec![PublicKey::of(key)?], private: key.serialize_der() })
    }

    /// What signs, PKCS #8.
    pub(crate) fn private(&self) -> &[u8] {
        &self.private
    }

    /// What verifies; the first one's private half signs.
    pub fn public(&self) -> &[PublicKey] {
        &self.public
    }
}

impl PublicKey {
    /// `None` for a key of another kind than ours.
    fn of(key: &impl PublicKeyData) -> Option<Self> {
        let (kind, point) = key.der_bytes().split_first()?;
        let (x, y) = point.split_at_checked(COORDINATE)?;
        if key.algorithm() != &PKCS_ECDSA_P256_SHA256 || *kind != UNCOMPRESSED {
            return None;
        }
        let id = URL_SAFE_NO_PAD.encode(Sha256::digest(key.subject_public_key_info()));
        Some(Self { id, x: x.try_into().ok()?, y: y.try_into().ok()? })
    }
}

fn given(path: &Path) -> Result<String, PkiError> {
    std::fs::read_to_string(path).map_err(|error| {
        unusable(
            path,
            &format!("cannot be read ({error}): check the path, and that the controller may read it"),
        )
    })
}

/// The one private key of a file.
fn private(path: &Path, pem: &str) -> Result<KeyPair, PkiError> {
    for (kind, der) in sections(path, pem)? {
        match kind {
            SectionKind::PrivateKey => return pair(path, &der),
            SectionKind::EcPrivateKey => return Err(unusable(path, CONVERT)),
            SectionKind::RsaPrivateKey => return Err(other_kind(path)),
            _ => {}
        }
    }
    Err(unusable(path, &format!("holds no private key: {MAKE_ONE}")))
}

/// Every key of a file.
fn all(path: &Path, pem: &str) -> Result<Vec<PublicKey>, PkiError> {
    let mut keys = Vec::new();
    for (kind, der) in sections(path, pem)? {
        let key = match kind {
            SectionKind::PublicKey => {
                let key = SubjectPublicKeyInfo::from_der(&der).ok();
                PublicKey::of(&key.ok_or_else(|| other_kind(path))?)
            }
            SectionKind::PrivateKey => PublicKey::of(&pair(path, &der)?),
            SectionKind::EcPrivateKey => return Err(unusable(path, CONVERT)),
            SectionKind::RsaPrivateKey => None,
            _ => continue,
        };
        keys.push(key.ok_or_else(|| other_kind(path))?);
    }
    if keys.is_empty() {
        return Err(unusable(path, "holds no key: give a public key or a private one as PEM"));
    }
    Ok(keys)
}

fn sections(path: &Path, pem: &str) -> Result<Vec<(SectionKind, Vec<u8>)>, PkiError> {
    <(SectionKind, Vec<u8>)>::pem_slice_iter(pem.as_bytes())
        .collect::<Result<_, _>>()
        .map_err(|_| unusable(path, &format!("is not PEM: {MAKE_ONE}")))
}

fn pair(path: &Path, der: &[u8]) -> Result<KeyPair, PkiError> {
    let key = KeyPair::try_from(der).map_err(|_| other_kind(path))?;
    if key.algorithm() == &PKCS_ECDSA_P256_SHA256 { Ok(key) } else { Err(other_kind(path)) }
}

fn other_kind(path: &Path) -> PkiError {
    unusable(path, &format!("holds a key that is none of ECDSA P-256: {MAKE_ONE}"))
}

fn unusable(path: &Path, why: &str) -> PkiError {
    PkiError::NotTokenKey { path: path.to_owned(), why: why.to_owned() }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    /// A directory, and a file in it.
    fn file(text: &str) -> (tempfile::TempDir, PathBuf) {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("key.pem");
        std::fs::write(&path, text).expect("it is written");
        (dir, path)
    }

    fn refused(text: &str) -> String {
        let (dir, path) = file(text);
        let signs = TokenKeys::open(dir.path(), Some(&path), &[]).expect_err("it cannot sign").to_string();
        let verifies = TokenKeys::open(dir.path(), None, &[path]).expect_err("it cannot verify").to_string();
        [signs, verifies].join("\n").replace(&*dir.path().to_string_lossy(), "DIR")
    }

    #[test]
    fn replicas_find_the_key_that_the_first_start_made_for_its_owner_alone() {
        let dir = tempfile::tempdir().expect("a directory");

        let first = TokenKeys::open(dir.path(), None, &[]).expect("made");
        let second = TokenKeys::open(dir.path(), None, &[]).expect("found");

        assert_eq!((first.public(), first.private()), (second.public(), second.private()));
        let file = std::fs::metadata(dir.path().join("pki/service-account.key")).expect("it is there");
        assert_eq!(file.permissions().mode() & 0o777, 0o600);
        assert!(!format!("{first:?}").contains("private"));
    }

    #[test]
    fn other_files_may_hold_several_keys_public_or_private() {
        let (old, older) = (KeyPair::generate().expect("a key"), KeyPair::generate().expect("a key"));
        let (dir, path) = file(&format!("{}\n{}", old.public_key_pem(), older.serialize_pem()));

        let keys = TokenKeys::open(dir.path(), None, &[path.clone(), path]).expect("they open");

        let wanted = [&old, &older].map(|key| PublicKey::of(key).expect("one of ours"));
        assert_eq!(keys.public().get(1..), Some(wanted.as_slice()));
    }

    #[test]
    fn a_file_that_cannot_be_used_is_named_with_what_to_do() {
        let p384 = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P384_SHA384).expect("a key");
        let sec1 = "-----BEGIN EC PRIVATE KEY-----\nAAAA\n-----END EC PRIVATE KEY-----\n";

        insta::assert_snapshot!(refused(&p384.serialize_pem()), @r"
        DIR/key.pem cannot be used for tokens of ServiceAccounts: it holds a key that is none of ECDSA P-256: make one with `openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256`
        DIR/key.pem cannot be used for tokens of ServiceAccounts: it holds a key that is none of ECDSA P-256: make one with `openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256`
        ");
        insta::assert_snapshot!(refused(sec1), @r"
        DIR/key.pem cannot be used for tokens of ServiceAccounts: it is in the form of SEC 1: convert it with `openssl pkcs8 -topk8 -nocrypt`
        DIR/key.pem cannot be used for tokens of ServiceAccounts: it is in the form of SEC 1: convert it with `openssl pkcs8 -topk8 -nocrypt`
        ");
        insta::assert_snapshot!(refused("hello"), @r"
        DIR/key.pem cannot be used for tokens of ServiceAccounts: it holds no private key: make one with `openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256`
        DIR/key.pem cannot be used for tokens of ServiceAccounts: it holds no key: give a public key or a private one as PEM
        ");
        let missing = TokenKeys::open(Path::new("/"), Some(Path::new("/nowhere/key")), &[]);
        insta::assert_snapshot!(missing.expect_err("refused"), @"/nowhere/key cannot be used for tokens of ServiceAccounts: it cannot be read (No such file or directory (os error 2)): check the path, and that the controller may read it");
    }
}
