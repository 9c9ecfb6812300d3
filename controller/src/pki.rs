//! The controller's certificates, kept in one directory with 0600.
//!
//! Four authorities, so that no certificate can pass for another kind: `server` signs what the controller shows (agents and
//! kubeconfigs pin it), `users` signs people, `agents` signs agents, `replicas` replicas of
//! the controller. A peer is told apart by who issued its certificate.

mod files;
mod given;
mod identity;
mod replicas;
mod shown;
mod token_keys;

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use gantry_api::names::{ADMIN_GROUP, AGENT_COMMON_NAME_PREFIX, AGENT_ORGANIZATION, ALPN_AGENT, ALPN_ENROLL};
use jiff::{SignedDuration, Timestamp};
use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, DistinguishedName, DnType,
    ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose, PublicKeyData as _, SanType,
    SerialNumber,
};
use rustls::server::WebPkiClientVerifier;
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use sha2::{Digest as _, Sha256};
use tokio_util::sync::CancellationToken;
use zeroize::Zeroizing;

use self::shown::Shown;
use crate::clock::{SharedClock, SharedEntropy};
use crate::gateway::link::InstanceUid;

pub use files::PkiError;
pub use given::GivenCertificate;
pub use identity::{AgentIdentity, Peer};
pub(crate) use replicas::REPLICA_NAME;
pub use token_keys::{PublicKey, TokenKeys};

/// The key ring that Secrets are sealed with, among what replicas share.
const KEY_RING: &str = "encryption-keys";

const AUTHORITY_YEARS: i64 = 10;
const YEAR: SignedDuration = SignedDuration::from_hours(24 * 365);
/// A fresh certificate is valid from before now, for hosts whose clock lags.
const CLOCK_SKEW: SignedDuration = SignedDuration::from_mins(10);
/// From the first to the last moment an agent's certificate is valid.
pub const LONGEST_AGENT_LIFETIME: SignedDuration = SignedDuration::from_hours(30 * 24);
/// Between two looks at the server's certificate.
const LOOK: Duration = Duration::from_secs(60 * 60);
/// A given certificate that ends sooner is warned about.
const WARN_BEFORE: SignedDuration = SignedDuration::from_hours(14 * 24);

/// Every key and certificate of the controller.
pub struct Pki {
    users: Authority,
    agents: Authority,
    replicas: Authority,
    shown: Arc<Shown>,
    /// What clients know the controller by: the last certificate of the chain they are shown.
    root: CertificateDer<'static>,
    /// Who signs the server's certificate, and for which names; `None` if it was given.
    server: Option<(Authority, Vec<String>)>,
    admin_token_hash: [u8; 32],
    clock: SharedClock,
    entropy: SharedEntropy,
}

/// Where the key ring is that belongs to a data directory.
pub fn key_ring_path(data_dir: &Path) -> PathBuf {
    data_dir.join("pki").join(KEY_RING)
}

/// That key ring; made of what `make` yields, with 0600, if there is none.
pub fn own_key_ring(data_dir: &Path, make: impl FnOnce() -> Zeroizing<String>) -> Result<PathBuf, PkiError> {
    let path = files::shared_dir(data_dir)?.join(KEY_RING);
    if !path.exists() {
        files::make_private(&path, make().as_bytes())?;
    }
    Ok(path)
}

/// Puts another text in the place of a key ring's: readers see the old or the new one, also after a crash.
pub fn replace_key_ring(path: &Path, text: &str) -> Result<(), PkiError> {
    files::write_private(path, text.as_bytes())
}

/// One certificate authority.
struct Authority {
    der: CertificateDer<'static>,
    issuer: Issuer<'static, KeyPair>,
}

impl Pki {
    /// Reads the directory, and makes what it lacks. The server's certificate is made anew at every start, for the names
    /// given now; authorities are kept. A given certificate that agents could not pin is refused.
    pub fn open(
        dir: &Path,
        names: &[String],
        given: Option<&GivenCertificate>,
        clock: SharedClock,
        entropy: SharedEntropy,
    ) -> Result<Self, PkiError> {
        let authorities = files::shared_dir(dir)?;
        let make = Maker { clock: &clock, entropy: &entropy };
        let server = make.authority(&authorities, "server", "Gantry server CA")?;
        let users = make.authority(&authorities, "users", "Gantry user CA")?;
        let agents = make.authority(&authorities, "agents", "Gantry agent CA")?;
        let replicas = make.authority(&authorities, "replicas", "Gantry replica CA")?;
        let ((chain, key), server) = match given {
            Some(given) => (given::read(given, clock.now())?, None),
            None => (make.server_certificate(&server, names)?, Some((server, names.to_vec()))),
        };
        let root = chain.last().cloned().ok_or(PkiError::Unreadable)?;
        let shown = Arc::new(Shown::new(chain, key)?);
        let token = files::read_or_make(&dir.join("admin-token"), || Ok(make.secret()))?;
        let admin_token_hash = Sha256::digest(token.trim().as_bytes()).into();
        Ok(Self { users, agents, replicas, shown, root, server, admin_token_hash, clock, entropy })
    }

    /// What agents pin: `sha256:` and the hex digest of the last certificate of the chain that clients are shown.
    pub fn ca_hash(&self) -> String {
        format!("sha256:{}", hex(&Sha256::digest(&self.root)))
    }

    /// That certificate, which agents and kubeconfigs trust the controller by, PEM.
    pub fn ca_bundle(&self) -> String {
        files::pem(&self.root)
    }

    /// Shows a new certificate for the same names and of the same authority if a third of the present one's time is left; says
    /// whether it did. New connections get it at once. One that was given is not replaced.
    pub fn renew_server_certificate(&self) -> Result<bool, PkiError> {
        let now = self.clock.now();
        let Some((authority, names)) = &self.server else {
            if let Some(left) = self.shown.left(now).filter(|left| *left < WARN_BEFORE) {
                tracing::warn!(
                    hours = left.as_hours(),
                    "the certificate of --tls-cert ends soon: replace it and start the controller again"
                );
            }
            return Ok(false);
        };
        if !self.shown.is_due(now) {
            return Ok(false);
        }
        let (chain, key) = self.maker().server_certificate(authority, names)?;
        self.shown.replace(chain, key)?;
        Ok(true)
    }

    /// Keeps the server's certificate from ending, until `stop`.
    pub async fn keep_server_certificate(&self, stop: &CancellationToken) {
        while stop.run_until_cancelled(tokio::time::sleep(LOOK)).await.is_some() {
            match self.renew_server_certificate() {
                Ok(true) => tracing::info!("the server's certificate is renewed"),
                Ok(false) => {}
                Err(error) => tracing::error!(%error, "the server's certificate is not renewed"),
            }
        }
    }

    /// SHA-256 of the built-in admin's bearer token.
    pub fn admin_token_hash(&self) -> &[u8; 32] {
        &self.admin_token_hash
    }

    /// TLS for the one port: users' and agents' certificates are checked, none is allowed.
    pub fn tls(&self, protocols: &[&str]) -> Result<Arc<rustls::ServerConfig>, PkiError> {
        let mut roots = rustls::RootCertStore::empty();
        roots.add(self.users.der.clone())?;
        roots.add(self.agents.der.clone())?;
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider))
            .allow_unauthenticated()
            .build()
            .map_err(|error| PkiError::Verifier(error.to_string()))?;
        let mut config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_client_cert_verifier(verifier)
            .with_cert_resolver(Arc::clone(&self.shown) as Arc<dyn rustls::server::ResolvesServerCert>);
        config.alpn_protocols = protocols.iter().map(|protocol| protocol.as_bytes().to_vec()).collect();
        Ok(Arc::new(config))
    }

    /// The protocols of the public port.
    pub const PUBLIC_PROTOCOLS: &'static [&'static str] = &[ALPN_AGENT, ALPN_ENROLL, "h2", "http/1.1"];
    /// The protocols inside the WebSocket tunnel.
    pub const TUNNEL_PROTOCOLS: &'static [&'static str] = &[ALPN_AGENT, ALPN_ENROLL];

    /// Who the peer is by its verified certificates; `None` if it showed none or one that says nothing.
    pub fn peer(&self, certificates: &[CertificateDer<'_>]) -> Option<Peer> {
        identity::peer(certificates.first()?, &self.users.der, &self.agents.der)
    }

    /// Whose key a request is for. One that is not signed by its key, or whose key is weak, is refused.
    pub fn check_request(&self, csr_pem: &str) -> Result<AgentRequest, PkiError> {
        let request = CertificateSigningRequestParams::from_pem(csr_pem)?;
        identity::check_key(&request.public_key)?;
        let key_fingerprint = hex(&Sha256::digest(request.public_key.subject_public_key_info()));
        Ok(AgentRequest { public_key: request.public_key, key_fingerprint })
    }

    /// Makes an agent's certificate for the key of a request; nothing else of the request is used.
    pub fn sign_agent(
        &self,
        csr_pem: &str,
        namespace: &str,
        name: &str,
        uid: InstanceUid,
        lifetime: SignedDuration,
    ) -> Result<SignedAgent, PkiError> {
        self.sign_request(self.check_request(csr_pem)?, namespace, name, uid, lifetime)
    }

    /// As [`Pki::sign_agent`]. It is valid for 30 days at most, the time before now among them.
    pub fn sign_request(
        &self,
        request: AgentRequest,
        namespace: &str,
        name: &str,
        uid: InstanceUid,
        lifetime: SignedDuration,
    ) -> Result<SignedAgent, PkiError> {
        let now = self.clock.now();
        let lifetime = lifetime.min(LONGEST_AGENT_LIFETIME - CLOCK_SKEW);
        let mut subject = DistinguishedName::new();
        subject.push(DnType::CommonName, format!("{AGENT_COMMON_NAME_PREFIX}{namespace}:{name}"));
        subject.push(DnType::OrganizationName, AGENT_ORGANIZATION);
        let mut params = self.maker().params(subject, now, lifetime)?;
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        params.subject_alt_names = vec![SanType::URI(format!("gantry://instance/{uid}").try_into()?)];
        let AgentRequest { public_key, key_fingerprint } = request;
        let signed = CertificateSigningRequestParams { params, public_key }.signed_by(&self.agents.issuer)?;
        let expires_at = now.checked_add(lifetime)?;
        Ok(SignedAgent { certificate_pem: signed.pem(), key_fingerprint, expires_at })
    }

    /// A kubeconfig with a new admin certificate, valid for a year.
    pub fn admin_kubeconfig(&self, server: &str) -> Result<String, PkiError> {
        let mut subject = DistinguishedName::new();
        subject.push(DnType::CommonName, "gantry-admin");
        subject.push(DnType::OrganizationName, ADMIN_GROUP);
        let mut params = self.maker().params(subject, self.clock.now(), YEAR)?;
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        let key = KeyPair::generate()?;
        let certificate = params.signed_by(&key, &self.users.issuer)?;
        let mut cluster = serde_json::json!({
            "server": server,
            "certificate-authority-data": STANDARD.encode(self.ca_bundle()),
        });
        if let (Some(name), Some(cluster)) = (self.other_name(server), cluster.as_object_mut()) {
            cluster.insert("tls-server-name".to_owned(), name.into());
        }
        let config = serde_json::json!({
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "gantry",
            "clusters": [{"name": "gantry", "cluster": cluster}],
            "users": [{"name": "gantry-admin", "user": {
                "client-certificate-data": STANDARD.encode(certificate.pem()),
                "client-key-data": STANDARD.encode(key.serialize_pem()),
            }}],
            "contexts": [{"name": "gantry", "context": {
                "cluster": "gantry", "user": "gantry-admin", "namespace": "default",
            }}],
        });
        gantry_api::yaml::write(&config).map_err(|error| PkiError::Kubeconfig(error.to_string()))
    }

    /// Writes [`Pki::admin_kubeconfig`] to a file with 0600.
    pub fn write_admin_kubeconfig(&self, path: &Path, server: &str) -> Result<(), PkiError> {
        files::write_private(path, self.admin_kubeconfig(server)?.as_bytes())
    }

    /// A name that the certificate is for, where it is not for the host of that URL.
    fn other_name(&self, server: &str) -> Option<String> {
        let uri: http::Uri = server.parse().ok()?;
        let host = uri.host()?.trim_start_matches('[').trim_end_matches(']');
        let leaf = self.shown.leaf()?;
        if given::is_for(&leaf, host) { None } else { given::server_name(&leaf) }
    }

    fn maker(&self) -> Maker<'_> {
        Maker { clock: &self.clock, entropy: &self.entropy }
    }
}

/// A checked request of an agent.
#[derive(Debug)]
pub struct AgentRequest {
    public_key: rcgen::PublicKey,
    key_fingerprint: String,
}

impl AgentRequest {
    /// SHA-256 of the public key, hex.
    pub fn key_fingerprint(&self) -> &str {
        &self.key_fingerprint
    }
}

/// An agent's new certificate.
#[derive(Clone, Debug)]
pub struct SignedAgent {
    /// PEM.
    pub certificate_pem: String,
    /// SHA-256 of the public key, hex.
    pub key_fingerprint: String,
    /// When it ends.
    pub expires_at: Timestamp,
}

/// What making a certificate needs.
struct Maker<'a> {
    clock: &'a SharedClock,
    entropy: &'a SharedEntropy,
}

impl Maker<'_> {
    fn params(
        &self,
        subject: DistinguishedName,
        now: Timestamp,
        lifetime: SignedDuration,
    ) -> Result<CertificateParams, PkiError> {
        let mut params = CertificateParams::default();
        params.distinguished_name = subject;
        params.not_before = offset(now.checked_sub(CLOCK_SKEW)?);
        params.not_after = offset(now.checked_add(lifetime)?);
        params.serial_number = Some(SerialNumber::from_slice(self.entropy.uuid().as_bytes()));
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        Ok(params)
    }

    fn authority(&self, dir: &Path, name: &str, common_name: &str) -> Result<Authority, PkiError> {
        let key_pem = files::read_or_make(&dir.join(format!("{name}-ca.key")), || {
            Ok(KeyPair::generate()?.serialize_pem())
        })?;
        let pem = files::read_or_make(&dir.join(format!("{name}-ca.crt")), || {
            let mut subject = DistinguishedName::new();
            subject.push(DnType::CommonName, common_name);
            let mut params =
                self.params(subject, self.clock.now(), YEAR * i32::try_from(AUTHORITY_YEARS).unwrap_or(1))?;
            params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
            params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
            Ok(params.self_signed(&KeyPair::from_pem(&key_pem)?)?.pem())
        })?;
        let der = CertificateDer::from_pem_slice(pem.as_bytes()).map_err(|_| PkiError::Unreadable)?;
        let issuer = Issuer::from_ca_cert_der(&der, KeyPair::from_pem(&key_pem)?)?;
        Ok(Authority { der, issuer })
    }

    fn server_certificate(
        &self,
        authority: &Authority,
        names: &[String],
    ) -> Result<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>), PkiError> {
        let mut subject = DistinguishedName::new();
        subject.push(DnType::CommonName, "gantry-controller");
        let mut params = self.params(subject, self.clock.now(), YEAR)?;
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        params.subject_alt_names = names
            .iter()
            .map(|name| match name.parse::<IpAddr>() {
                Ok(address) => Ok(SanType::IpAddress(address)),
                Err(_) => Ok(SanType::DnsName(name.as_str().try_into()?)),
            })
            .collect::<Result<_, PkiError>>()?;
        let key = KeyPair::generate()?;
        let leaf = params.signed_by(&key, &authority.issuer)?;
        let key = PrivateKeyDer::try_from(key.serialize_der()).map_err(|_| PkiError::Unreadable)?;
        Ok((vec![leaf.der().clone(), authority.der.clone()], key))
    }

    fn secret(&self) -> String {
        let mut bytes = [0; 32];
        self.entropy.fill(&mut bytes);
        hex(&bytes)
    }
}

fn offset(time: Timestamp) -> time::OffsetDateTime {
    time::OffsetDateTime::from_unix_timestamp(time.as_second()).unwrap_or(time::OffsetDateTime::UNIX_EPOCH)
}

/// Lower-case hex.
pub(crate) fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
mod tests;
