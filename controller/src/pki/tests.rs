use std::os::unix::fs::PermissionsExt as _;
use std::sync::Arc;

use rcgen::{CertificateParams, KeyPair};

use super::*;
use crate::clock::{SystemClock, SystemEntropy};

fn open(dir: &Path) -> Pki {
    Pki::open(
        dir,
        &["localhost".to_owned(), "127.0.0.1".to_owned()],
        None,
        Arc::new(SystemClock),
        Arc::new(SystemEntropy),
    )
    .expect("a new directory opens")
}

fn uid() -> InstanceUid {
    InstanceUid(uuid::Uuid::from_u128(7))
}

fn der(pem: &str) -> CertificateDer<'static> {
    CertificateDer::from_pem_slice(pem.as_bytes()).expect("PEM")
}

#[test]
fn a_second_start_keeps_its_authorities_and_its_token() {
    let dir = tempfile::tempdir().expect("a directory");

    let (first, second) = (open(dir.path()), open(dir.path()));

    assert_eq!(first.ca_hash(), second.ca_hash());
    assert_eq!(first.admin_token_hash(), second.admin_token_hash());
}

#[test]
fn nobody_else_can_read_a_key() {
    use std::os::unix::fs::MetadataExt as _;
    let dir = tempfile::tempdir().expect("a directory");
    open(dir.path());

    let files = std::fs::read_dir(dir.path().join("pki")).expect("made").flatten();
    for file in files.map(|entry| entry.path()).chain([dir.path().join("admin-token")]) {
        let mode = std::fs::metadata(&file).expect("there").mode() & 0o777;
        assert_eq!(mode, 0o600, "{}", file.display());
    }
}

/// A clock that is set by hand.
struct Hand(parking_lot::Mutex<Timestamp>);

impl Hand {
    fn at(time: Timestamp) -> Arc<Self> {
        Arc::new(Self(parking_lot::Mutex::new(time)))
    }
}

impl crate::clock::Clock for Hand {
    fn now(&self) -> Timestamp {
        *self.0.lock()
    }
}

fn now() -> Timestamp {
    crate::clock::Clock::now(&SystemClock)
}

fn signed(pki: &Pki, csr: &str, lifetime: SignedDuration) -> Result<SignedAgent, PkiError> {
    pki.sign_agent(csr, "default", "nuc-01", uid(), lifetime)
}

#[test]
fn t17a_an_agents_certificate_is_what_the_server_makes_it_whatever_it_asked_for() {
    let dir = tempfile::tempdir().expect("a directory");
    let pki = open(dir.path());
    let key = KeyPair::generate().expect("a key");
    let mut evil =
        CertificateParams::new(vec!["controller.example".to_owned(), "127.0.0.1".to_owned()]).expect("names");
    evil.subject_alt_names
        .push(SanType::URI(format!("gantry://instance/{}", uuid::Uuid::nil()).try_into().expect("a URI")));
    evil.distinguished_name.push(DnType::CommonName, "gantry:agent:default:nuc-02");
    evil.distinguished_name.push(DnType::OrganizationName, ADMIN_GROUP);
    evil.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    evil.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    evil.extended_key_usages =
        vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::CodeSigning];
    let csr = evil.serialize_request(&key).expect("a request").pem().expect("PEM");

    let signed = signed(&pki, &csr, SignedDuration::from_hours(24)).expect("signed");

    let certificate = der(&signed.certificate_pem);
    let (_, parsed) = x509_parser::parse_x509_certificate(&certificate).expect("a certificate");
    assert_eq!(parsed.subject().to_string(), "CN=gantry:agent:default:nuc-01, O=gantry:agents");
    assert!(!parsed.is_ca());
    let names = parsed.subject_alternative_name().expect("one").expect("one").value.general_names.clone();
    let uri = format!("gantry://instance/{}", uid());
    assert_eq!(names, vec![x509_parser::extensions::GeneralName::URI(&uri)]);
    let usage = parsed.key_usage().expect("one").expect("one").value.flags;
    assert_eq!(usage, 1, "more than digitalSignature");
    let purposes = parsed.extended_key_usage().expect("one").expect("one").value;
    assert!(purposes.client_auth && !purposes.server_auth && !purposes.code_signing && !purposes.any);
    let expected = AgentIdentity {
        namespace: "default".into(),
        name: "nuc-01".into(),
        uid: uid(),
        key_fingerprint: hex(&Sha256::digest(key.subject_public_key_info())),
        expires_at: signed.expires_at.as_second(),
    };
    assert_eq!(pki.peer(std::slice::from_ref(&certificate)), Some(Peer::Agent(expected.clone())));
    assert_eq!(signed.key_fingerprint, expected.key_fingerprint);
}

#[test]
fn t17a_no_agents_certificate_is_valid_for_more_than_thirty_days() {
    let dir = tempfile::tempdir().expect("a directory");
    let pki = open(dir.path());
    let csr = CertificateParams::default()
        .serialize_request(&KeyPair::generate().expect("a key"))
        .expect("a request")
        .pem()
        .expect("PEM");

    for (asked, wanted) in [(24 * 365, 30 * 24 * 60 * 60), (30 * 24, 30 * 24 * 60 * 60), (1, 70 * 60)] {
        let signed = signed(&pki, &csr, SignedDuration::from_hours(asked)).expect("signed");

        let certificate = der(&signed.certificate_pem);
        let (_, parsed) = x509_parser::parse_x509_certificate(&certificate).expect("a certificate");
        let validity = parsed.validity();
        assert_eq!(validity.not_after.timestamp() - validity.not_before.timestamp(), wanted, "{asked} h");
        assert_eq!(validity.not_after.timestamp(), signed.expires_at.as_second());
    }
}

#[test]
fn t17a_a_weak_key_and_a_request_that_its_key_did_not_sign_are_refused() {
    let dir = tempfile::tempdir().expect("a directory");
    let pki = open(dir.path());
    let day = SignedDuration::from_hours(24);
    // Made by openssl: our own library makes no weak keys.
    let (weak, odd) = (include_str!("requests/rsa-1024.pem"), include_str!("requests/p224.pem"));
    let strong = include_str!("requests/rsa-2048.pem");
    let mut forged = rustls_pki_types::CertificateSigningRequestDer::from_pem_slice(strong.as_bytes())
        .expect("PEM")
        .to_vec();
    if let Some(last) = forged.last_mut() {
        *last ^= 1;
    }
    let forged = format!(
        "-----BEGIN CERTIFICATE REQUEST-----\n{}\n-----END CERTIFICATE REQUEST-----\n",
        STANDARD.encode(forged)
    );

    assert!(signed(&pki, strong, day).is_ok());
    for (what, csr) in [("RSA 1024", weak), ("P-224", odd), ("forged", &forged), ("nothing", "")] {
        assert!(signed(&pki, csr, day).is_err(), "{what} was signed");
        assert!(pki.check_request(csr).is_err(), "{what} was taken");
    }
}

#[test]
fn t03_a_certificate_of_another_authority_is_nobody() {
    let (dir, other) = (tempfile::tempdir().expect("a directory"), tempfile::tempdir().expect("a directory"));
    let (pki, foreign) = (open(dir.path()), open(other.path()));
    let key = KeyPair::generate().expect("a key");
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, "gantry-admin");
    let self_signed = params.self_signed(&key).expect("signed");

    assert_eq!(pki.peer(&[self_signed.der().clone()]), None);
    assert_eq!(pki.peer(&[]), None);
    assert_ne!(pki.ca_hash(), foreign.ca_hash());
}

#[test]
fn the_admins_kubeconfig_is_read_by_kube() {
    let dir = tempfile::tempdir().expect("a directory");
    let pki = open(dir.path());

    let text = pki.admin_kubeconfig("https://127.0.0.1:7443").expect("made");

    let config = kube::config::Kubeconfig::from_yaml(&text).expect("a kubeconfig");
    assert_eq!(config.current_context.as_deref(), Some("gantry"));
    let user = config.auth_infos.first().and_then(|user| user.auth_info.as_ref()).expect("a user");
    let certificate = STANDARD.decode(user.client_certificate_data.as_ref().expect("data")).expect("base64");
    let peer = pki.peer(&[der(&String::from_utf8(certificate).expect("PEM"))]);
    let Some(Peer::User { name, groups, expires_at }) = peer else { panic!("{peer:?}") };
    assert_eq!((name.as_str(), groups), ("gantry-admin", vec![ADMIN_GROUP.to_owned()]));
    assert!(expires_at > now().as_second(), "{expires_at}");
}

#[test]
fn a_server_certificate_is_renewed_in_time_for_the_same_names_and_by_the_same_authority() {
    let dir = tempfile::tempdir().expect("a directory");
    let clock = Hand::at(now());
    let names = ["localhost".to_owned(), "192.0.2.7".to_owned()];
    let pki = Pki::open(dir.path(), &names, None, clock.clone(), Arc::new(SystemEntropy)).expect("opens");
    let (first, pin) = (pki.shown.leaf().expect("a leaf"), pki.ca_hash());
    let later = |days: i64| *clock.0.lock() = now() + SignedDuration::from_hours(24 * days);

    later(240);
    assert!(!pki.renew_server_certificate().expect("fine"));
    later(250);
    assert!(pki.renew_server_certificate().expect("fine"));
    assert!(!pki.renew_server_certificate().expect("fine"), "the new one is due already");

    let second = pki.shown.leaf().expect("a leaf");
    assert_ne!(first, second);
    assert_eq!(pin, pki.ca_hash());
    for name in names {
        assert!(given::is_for(&second, &name), "{name}");
    }
    // A clock that was far ahead when the certificate was made.
    later(-1);
    assert!(pki.renew_server_certificate().expect("fine"));
}

#[tokio::test]
async fn the_next_connection_sees_a_renewed_server_certificate() {
    let dir = tempfile::tempdir().expect("a directory");
    let clock = Hand::at(now() - SignedDuration::from_hours(24 * 300));
    let names = ["localhost".to_owned()];
    let pki = Pki::open(dir.path(), &names, None, clock.clone(), Arc::new(SystemEntropy)).expect("opens");
    let acceptor = tokio_rustls::TlsAcceptor::from(pki.tls(&["http/1.1"]).expect("TLS"));
    let mut roots = rustls::RootCertStore::empty();
    roots.add(der(&pki.ca_bundle())).expect("a root");
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_root_certificates(roots)
        .with_no_client_auth();
    let connector = tokio_rustls::TlsConnector::from(Arc::new(config));
    let seen = async || {
        let (ours, theirs) = tokio::io::duplex(1 << 16);
        let name = rustls_pki_types::ServerName::try_from("localhost").expect("a name");
        let (client, server) = tokio::join!(connector.connect(name, ours), acceptor.accept(theirs));
        server.expect("a handshake");
        let client = client.expect("a handshake");
        client
            .get_ref()
            .1
            .peer_certificates()
            .and_then(|chain| chain.first().cloned())
            .expect("a certificate")
    };

    let first = seen().await;
    *clock.0.lock() = now();
    assert!(pki.renew_server_certificate().expect("fine"));
    let second = seen().await;

    assert_ne!(first, second);
    assert_eq!(Some(second), pki.shown.leaf());
}

/// Somebody's own authority, as far as a test needs one.
struct Foreign {
    certificate: rcgen::Certificate,
    issuer: Issuer<'static, KeyPair>,
}

impl Foreign {
    fn ca(by: Option<&Foreign>) -> Self {
        let key = KeyPair::generate().expect("a key");
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, if by.is_some() { "inner" } else { "outer" });
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let certificate = match by {
            Some(by) => params.signed_by(&key, &by.issuer),
            None => params.self_signed(&key),
        };
        Self { certificate: certificate.expect("signed"), issuer: Issuer::new(params, key) }
    }

    /// PEM of a certificate and of its key.
    fn leaf(&self, name: &str, years: i32) -> (String, String) {
        let key = KeyPair::generate().expect("a key");
        let mut params = CertificateParams::new(vec![name.to_owned()]).expect("a name");
        params.not_before = rcgen::date_time_ymd(2020, 1, 1);
        params.not_after = rcgen::date_time_ymd(2020 + years, 1, 1);
        (params.signed_by(&key, &self.issuer).expect("signed").pem(), key.serialize_pem())
    }

    fn pem(&self) -> String {
        self.certificate.pem()
    }
}

fn open_given(dir: &Path, chain: &str, key: &str) -> Result<Pki, PkiError> {
    let given = GivenCertificate { certificate: dir.join("tls.crt"), key: dir.join("tls.key") };
    std::fs::write(&given.certificate, chain).expect("written");
    std::fs::write(&given.key, key).expect("written");
    Pki::open(dir, &[], Some(&given), Arc::new(SystemClock), Arc::new(SystemEntropy))
}

#[test]
fn a_given_certificate_is_taken_if_its_last_one_is_a_ca_that_verifies_the_first() {
    let dir = tempfile::tempdir().expect("a directory");
    let outer = Foreign::ca(None);
    let inner = Foreign::ca(Some(&outer));
    let (leaf, key) = inner.leaf("gantry.example", 100);
    let (direct, direct_key) = outer.leaf("*.gantry.example", 100);

    for (chain, key, last) in [
        (format!("{leaf}{}{}", inner.pem(), outer.pem()), &key, &outer),
        (format!("{leaf}{}", inner.pem()), &key, &inner),
        (format!("{direct}{}", outer.pem()), &direct_key, &outer),
    ] {
        let pki = open_given(dir.path(), &chain, key).expect("taken");
        assert_eq!(pki.ca_hash(), format!("sha256:{}", hex(&Sha256::digest(last.certificate.der()))));
    }
}

#[test]
fn a_given_certificate_that_agents_could_not_pin_is_refused_at_the_start() {
    let dir = tempfile::tempdir().expect("a directory");
    let (ours, other) = (Foreign::ca(None), Foreign::ca(None));
    let (leaf, key) = ours.leaf("gantry.example", 100);
    let (ended, ended_key) = ours.leaf("gantry.example", 1);
    let own_key = KeyPair::generate().expect("a key");
    let own = CertificateParams::new(vec!["gantry.example".to_owned()]).expect("a name");
    let self_signed = own.self_signed(&own_key).expect("signed").pem();

    for (what, chain, key, why) in [
        ("self-signed", self_signed, &own_key.serialize_pem(), "one certificate"),
        ("no CA", leaf.clone(), &key, "one certificate"),
        ("last is no CA", format!("{leaf}{}{leaf}", ours.pem()), &key, "not that of a CA"),
        ("other CA", format!("{leaf}{}", other.pem()), &key, "cannot be verified"),
        ("ended", format!("{ended}{}", ours.pem()), &ended_key, "cannot be verified"),
    ] {
        let error = open_given(dir.path(), &chain, key).err().map(|error| error.to_string());
        assert!(error.as_ref().is_some_and(|error| error.contains(why)), "{what}: {error:?}");
        assert!(error.is_some_and(|error| error.contains("--tls-cert")), "{what}");
    }
}

#[test]
fn the_kubeconfig_says_which_name_a_given_certificate_is_for() {
    let (dir, own) = (tempfile::tempdir().expect("a directory"), tempfile::tempdir().expect("a directory"));
    let ca = Foreign::ca(None);
    let (leaf, key) = ca.leaf("gantry.example", 100);
    let given = open_given(dir.path(), &format!("{leaf}{}", ca.pem()), &key).expect("taken");

    let name = |pki: &Pki, server: &str| {
        let text = pki.admin_kubeconfig(server).expect("made");
        let config = kube::config::Kubeconfig::from_yaml(&text).expect("a kubeconfig");
        config
            .clusters
            .first()
            .and_then(|cluster| cluster.cluster.clone())
            .expect("a cluster")
            .tls_server_name
    };

    assert_eq!(name(&given, "https://127.0.0.1:7443").as_deref(), Some("gantry.example"));
    assert_eq!(name(&given, "https://gantry.example:7443"), None);
    assert_eq!(name(&open(own.path()), "https://127.0.0.1:7443"), None);
}

#[test]
fn two_first_starts_at_once_have_one_key_ring_that_nobody_else_can_read() {
    let dir = tempfile::tempdir().expect("a directory");
    let ring = |text: &str| {
        // The other start comes between the look and the making.
        own_key_ring(dir.path(), || {
            own_key_ring(dir.path(), || Zeroizing::new("first".to_owned())).expect("made");
            Zeroizing::new(text.to_owned())
        })
        .expect("found")
    };

    for text in ["second", "third"] {
        assert_eq!(std::fs::read_to_string(ring(text)).expect("it is there"), "first");
    }
    let path = key_ring_path(dir.path());
    replace_key_ring(&path, "later").expect("replaced");

    assert_eq!(std::fs::read_to_string(ring("fourth")).expect("it is there"), "later");
    assert_eq!(std::fs::metadata(path).expect("it is there").permissions().mode() & 0o777, 0o600);
    assert_eq!(
        std::fs::read_dir(dir.path().join("pki")).expect("it is there").count(),
        1,
        "nothing is left over"
    );
}
