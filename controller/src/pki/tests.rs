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

#[test]
fn t17a_an_agents_certificate_has_the_subject_the_server_made_whatever_it_asked_for() {
    let dir = tempfile::tempdir().expect("a directory");
    let pki = open(dir.path());
    let key = KeyPair::generate().expect("a key");
    let mut evil = CertificateParams::new(vec!["controller.example".to_owned()]).expect("names");
    evil.distinguished_name.push(DnType::CommonName, "gantry-admin");
    evil.distinguished_name.push(DnType::OrganizationName, ADMIN_GROUP);
    let csr = evil.serialize_request(&key).expect("a request").pem().expect("PEM");

    let signed =
        pki.sign_agent(&csr, "default", "nuc-01", uid(), SignedDuration::from_hours(24)).expect("signed");

    let peer = pki.peer(&[der(&signed.certificate_pem)]);
    let expected = AgentIdentity {
        namespace: "default".into(),
        name: "nuc-01".into(),
        uid: uid(),
        key_fingerprint: signed.key_fingerprint.clone(),
        expires_at: signed.expires_at.as_second(),
    };
    assert_eq!(peer, Some(Peer::Agent(expected)));
    assert!(!signed.certificate_pem.is_empty());
    assert!(signed.expires_at.duration_since(Timestamp::UNIX_EPOCH).as_hours() > 0);
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
    assert_eq!(peer, Some(Peer::User { name: "gantry-admin".into(), groups: vec![ADMIN_GROUP.into()] }));
}
