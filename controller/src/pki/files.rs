//! Keys and certificates as files that nobody else may read.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _, fchown};
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

use super::GivenCertificate;

/// Why there is no certificate.
#[derive(Debug, thiserror::Error)]
pub enum PkiError {
    /// A file cannot be read or written.
    #[error("cannot use {path}")]
    File {
        /// Which.
        path: PathBuf,
        /// What the system said.
        #[source]
        cause: io::Error,
    },
    /// A file holds no usable PEM.
    #[error("{0} holds no PEM certificate or key that can be used")]
    NotPem(PathBuf),
    /// A certificate cannot be made.
    #[error("a certificate cannot be made")]
    Make(#[from] rcgen::Error),
    /// A certificate cannot be read back.
    #[error("a certificate cannot be read")]
    Unreadable,
    /// The key of a request is too weak or of an unknown kind.
    #[error("the key must be ECDSA P-256, P-384, Ed25519 or RSA of at least 2048 bits")]
    WeakKey,
    /// Agents cannot know the controller by a given certificate.
    #[error(
        "agents could not know this controller by {path}: {why}; the file must hold the server's certificate first and that of \
         its CA last, or leave --tls-cert out and add the controller's names with --tls-san"
    )]
    NotPinnable {
        /// The chain's file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// A key can neither sign nor verify tokens.
    #[error("{path} cannot be used for tokens of ServiceAccounts: it {why}")]
    NotTokenKey {
        /// The key's file.
        path: PathBuf,
        /// What is wrong with it, and what to do.
        why: String,
    },
    /// TLS does not take what it was given.
    #[error("the certificate and its key cannot be used for TLS")]
    Tls(#[from] rustls::Error),
    /// Clients' certificates cannot be checked.
    #[error("clients' certificates cannot be checked: {0}")]
    Verifier(String),
    /// A lifetime is out of range.
    #[error("a time is out of range")]
    Time(#[from] jiff::Error),
    /// The kubeconfig cannot be written as YAML.
    #[error("the kubeconfig cannot be written: {0}")]
    Kubeconfig(String),
}

fn failed(path: &Path) -> impl FnOnce(io::Error) -> PkiError {
    let path = path.to_owned();
    move |cause| PkiError::File { path, cause }
}

/// Makes the directory with 0700 if it is not there.
fn private_dir(dir: &Path) -> Result<(), PkiError> {
    DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(failed(dir))
}

/// What replicas share below the data directory; made with it, if it is not there.
pub(super) fn shared_dir(data_dir: &Path) -> Result<PathBuf, PkiError> {
    let shared = data_dir.join("pki");
    private_dir(data_dir)?;
    private_dir(&shared)?;
    Ok(shared)
}

/// The file's text; if there is none, what `make` yields, written with 0600 first. Of two who make it at once, both have the first
/// one's.
pub(super) fn read_or_make(
    path: &Path,
    make: impl FnOnce() -> Result<String, PkiError>,
) -> Result<String, PkiError> {
    match std::fs::read_to_string(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let text = make()?;
            if make_private(path, text.as_bytes())? {
                return Ok(text);
            }
            std::fs::read_to_string(path).map_err(failed(path))
        }
        read => read.map_err(failed(path)),
    }
}

/// Makes a file with 0600, whole or not at all; false if there is one.
pub(super) fn make_private(path: &Path, bytes: &[u8]) -> Result<bool, PkiError> {
    let make = || {
        let parent = parent(path);
        let mut fresh = tempfile::NamedTempFile::new_in(parent)?;
        fresh.write_all(bytes)?;
        fresh.as_file().sync_all()?;
        match fresh.persist_noclobber(path) {
            Err(error) if error.error.kind() == io::ErrorKind::AlreadyExists => return Ok(false),
            made => made?,
        };
        File::open(parent)?.sync_all()?;
        Ok(true)
    };
    make().map_err(failed(path))
}

fn parent(path: &Path) -> &Path {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// Writes a file with 0600 so that readers see the old or the new text, also after a crash. Who owned it owns it.
pub(super) fn write_private(path: &Path, bytes: &[u8]) -> Result<(), PkiError> {
    let parent = parent(path);
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let fresh = parent.join(format!(".{name}.new"));
    let write = || {
        match std::fs::remove_file(&fresh) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&fresh)?;
        if let Ok(old) = std::fs::metadata(path)
            && old.uid() != file.metadata()?.uid()
        {
            fchown(&file, Some(old.uid()), Some(old.gid()))?;
        }
        file.write_all(bytes)?;
        file.sync_all()?;
        std::fs::rename(&fresh, path)?;
        File::open(parent)?.sync_all()
    };
    write().map_err(failed(path))
}

/// The chain and key somebody brought along.
pub(super) fn given(
    given: &GivenCertificate,
) -> Result<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>), PkiError> {
    let read = |path: &Path| std::fs::read(path).map_err(failed(path));
    let chain: Vec<_> = CertificateDer::pem_slice_iter(&read(&given.certificate)?)
        .collect::<Result<_, _>>()
        .map_err(|_| PkiError::NotPem(given.certificate.clone()))?;
    if chain.is_empty() {
        return Err(PkiError::NotPem(given.certificate.clone()));
    }
    let key =
        PrivateKeyDer::from_pem_slice(&read(&given.key)?).map_err(|_| PkiError::NotPem(given.key.clone()))?;
    Ok((chain, key))
}

/// A certificate as PEM.
pub(super) fn pem(certificate: &CertificateDer<'_>) -> String {
    let text = STANDARD.encode(certificate);
    let mut pem = "-----BEGIN CERTIFICATE-----\n".to_owned();
    let mut rest = text.as_str();
    while !rest.is_empty() {
        let (line, more) = rest.split_at_checked(64).unwrap_or((rest, ""));
        pem.push_str(line);
        pem.push('\n');
        rest = more;
    }
    pem + "-----END CERTIFICATE-----\n"
}
