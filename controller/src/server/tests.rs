use std::net::Ipv4Addr;

use async_trait::async_trait;
use axum::Extension;
use axum::routing::get;
use base64::Engine as _;
use gantry_api::enrollment::{EnrollFailure, EnrollRequest, EnrollResponse};
use rcgen::{CertificateParams, KeyPair};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::sync::mpsc;
use tokio_rustls::TlsConnector;

use super::*;
use crate::auth::Caller;
use crate::clock::{SystemClock, SystemEntropy};
use crate::gateway::door::AgentIo;
use crate::gateway::link::InstanceUid;
use crate::pki::AgentIdentity;

struct Door(mpsc::Sender<AgentIdentity>);

#[async_trait]
impl AgentDoor for Door {
    async fn session(&self, _io: AgentIo, identity: AgentIdentity, _from: SocketAddr) {
        self.0.send(identity).await.expect("the test listens");
    }

    async fn peer(&self, _io: AgentIo) {}

    async fn enroll(
        &self,
        request: EnrollRequest,
        _from: SocketAddr,
    ) -> Result<EnrollResponse, EnrollFailure> {
        Ok(EnrollResponse {
            certificate_pem: request.instance,
            ca_bundle_pem: String::new(),
            instance_uid: String::new(),
        })
    }
}

/// A served port, and the keys to it.
struct World {
    address: SocketAddr,
    pki: Arc<Pki>,
    agents: mpsc::Receiver<AgentIdentity>,
    stop: CancellationToken,
    served: tokio::task::JoinHandle<()>,
    dir: tempfile::TempDir,
    accounts: crate::auth::world::World,
}

async fn world() -> World {
    let dir = tempfile::tempdir().expect("a directory");
    let names = ["localhost".to_owned()];
    let pki =
        Pki::open(dir.path(), &names, None, Arc::new(SystemClock), Arc::new(SystemEntropy)).expect("opens");
    let pki = Arc::new(pki);
    let (sender, agents) = mpsc::channel(1);
    let accounts = crate::auth::world::World::new().await;
    let server = Server::bind(
        (Ipv4Addr::LOCALHOST, 0).into(),
        Arc::clone(&pki),
        Authenticator::new(
            *pki.admin_token_hash(),
            accounts.accounts(),
            crate::telemetry::metrics::Metrics::new().expect("registers once"),
        ),
        Arc::new(Door(sender)),
    )
    .await
    .expect("a free port");
    let address = server.local_addr().expect("bound");
    let whoami = get(async |caller: Option<Extension<Caller>>| {
        caller.map_or("nobody".to_owned(), |Extension(caller)| caller.user.to_string())
    });
    let stop = CancellationToken::new();
    let served = tokio::spawn(server.run(Router::new().route("/whoami", whoami), stop.clone()));
    World { address, pki, agents, stop, served, dir, accounts }
}

struct LongAgo;

impl crate::clock::Clock for LongAgo {
    fn now(&self) -> jiff::Timestamp {
        SystemClock.now() - jiff::SignedDuration::from_hours(400 * 24)
    }
}

type Identity = (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>);

impl World {
    fn agent(&self) -> Identity {
        Self::agent_of(&self.pki)
    }

    fn agent_of(pki: &Pki) -> Identity {
        let key = KeyPair::generate().expect("a key");
        let csr =
            CertificateParams::default().serialize_request(&key).expect("a request").pem().expect("PEM");
        let signed = pki
            .sign_agent(
                &csr,
                "default",
                "nuc-01",
                InstanceUid(uuid::Uuid::nil()),
                jiff::SignedDuration::from_hours(24),
            )
            .expect("signed");
        let certificate = CertificateDer::from_pem_slice(signed.certificate_pem.as_bytes()).expect("PEM");
        (vec![certificate], PrivateKeyDer::try_from(key.serialize_der()).expect("a key"))
    }

    /// The same authorities, so long ago that what they signed has ended.
    fn long_ago(&self) -> Pki {
        let names = ["localhost".to_owned()];
        Pki::open(self.dir.path(), &names, None, Arc::new(LongAgo), Arc::new(SystemEntropy)).expect("opens")
    }

    fn user(pki: &Pki) -> Identity {
        let config = pki.admin_kubeconfig("https://localhost").expect("made");
        let config: Option<serde_json::Value> = gantry_api::yaml::read_config(&config).expect("YAML");
        let config = config.expect("a kubeconfig");
        let pem = |field: &str| {
            let value = config["users"][0]["user"][field].as_str().expect("a field");
            base64::engine::general_purpose::STANDARD.decode(value.trim()).expect("base64")
        };
        let certificate = CertificateDer::from_pem_slice(&pem("client-certificate-data"));
        let key = PrivateKeyDer::from_pem_slice(&pem("client-key-data"));
        (vec![certificate.expect("a certificate")], key.expect("a key"))
    }

    async fn connect(
        &self,
        protocol: &str,
        identity: Option<Identity>,
    ) -> io::Result<tokio_rustls::client::TlsStream<TcpStream>> {
        let mut roots = rustls::RootCertStore::empty();
        let bundle = CertificateDer::from_pem_slice(self.pki.ca_bundle().as_bytes()).expect("PEM");
        roots.add(bundle).expect("a root");
        let builder =
            rustls::ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
                .with_safe_default_protocol_versions()
                .expect("versions")
                .with_root_certificates(roots);
        let mut config = match identity {
            Some((chain, key)) => builder.with_client_auth_cert(chain, key).expect("a pair"),
            None => builder.with_no_client_auth(),
        };
        config.alpn_protocols = vec![protocol.as_bytes().to_vec()];
        let name = ServerName::try_from("localhost").expect("a name");
        TlsConnector::from(Arc::new(config)).connect(name, TcpStream::connect(self.address).await?).await
    }

    async fn ask(&self, protocol: &str, identity: Option<Identity>, request: &str) -> io::Result<String> {
        let mut stream = self.connect(protocol, identity).await?;
        stream.write_all(request.as_bytes()).await?;
        let mut answer = Vec::new();
        match stream.read_to_end(&mut answer).await {
            Err(error) if error.kind() != io::ErrorKind::UnexpectedEof => return Err(error),
            _ => {}
        }
        Ok(String::from_utf8_lossy(&answer).into_owned())
    }
}

const WHOAMI: &str = "GET /whoami HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";

#[tokio::test]
async fn a_stranger_is_nobody_and_an_agent_is_no_user() {
    let world = world().await;

    assert!(world.ask("http/1.1", None, WHOAMI).await.expect("an answer").ends_with("nobody"));
    assert!(world.ask("http/1.1", Some(world.agent()), WHOAMI).await.expect("an answer").ends_with("nobody"));
}

#[tokio::test]
async fn an_agents_certificate_opens_a_session_and_nothing_else_does() {
    let mut world = world().await;

    let _open = world.connect(ALPN_AGENT, Some(world.agent())).await.expect("a handshake");
    assert_eq!(world.agents.recv().await.expect("a session").name, "nuc-01");

    let answer = world.ask(ALPN_AGENT, None, "x").await;
    assert!(answer.is_err() || answer.is_ok_and(|text| text.is_empty()));
    assert!(world.agents.try_recv().is_err());
}

#[tokio::test]
async fn t03_a_certificate_of_another_authority_is_refused() {
    let (world, other) = (world().await, world().await);

    let answer = world.ask("http/1.1", Some(other.agent()), WHOAMI).await;

    assert!(answer.is_err(), "{answer:?}");
}

#[tokio::test]
async fn t03_certificates_that_have_ended_are_refused() {
    let world = world().await;
    let long_ago = world.long_ago();

    for ended in [World::user(&long_ago), World::agent_of(&long_ago)] {
        let answer = world.ask("http/1.1", Some(ended), WHOAMI).await;
        assert!(answer.is_err(), "{answer:?}");
    }
    let answer = world.ask(ALPN_AGENT, Some(World::agent_of(&long_ago)), "x").await;
    assert!(answer.is_err(), "{answer:?}");

    // The same, made now, is let in.
    let answer = world.ask("http/1.1", Some(World::user(&world.pki)), WHOAMI).await.expect("an answer");
    assert!(answer.ends_with("gantry-admin"), "{answer}");
}

#[tokio::test]
async fn t03_a_users_certificate_opens_no_agents_session_and_an_agents_is_no_user() {
    let mut world = world().await;

    let answer = world.ask(ALPN_AGENT, Some(World::user(&world.pki)), "x").await;
    assert!(answer.is_err() || answer.is_ok_and(|text| text.is_empty()));
    let answer = world.ask("http/1.1", Some(world.agent()), WHOAMI).await.expect("an answer");
    assert!(answer.ends_with("nobody"), "{answer}");
    assert!(world.agents.try_recv().is_err(), "a session was opened");

    let _open = world.connect(ALPN_AGENT, Some(world.agent())).await.expect("a handshake");
    assert_eq!(world.agents.recv().await.expect("a session").name, "nuc-01");
}

#[tokio::test]
async fn t03_a_user_of_another_authority_is_refused() {
    let (world, other) = (world().await, world().await);

    for protocol in ["http/1.1", ALPN_AGENT] {
        for foreign in [World::user(&other.pki), other.agent()] {
            let answer = world.ask(protocol, Some(foreign), WHOAMI).await;
            assert!(answer.is_err(), "{protocol}: {answer:?}");
        }
    }
}

#[tokio::test]
async fn enrolment_is_one_route_of_its_own_protocol() {
    let world = world().await;
    let body = r#"{"token":"a.b","namespace":"default","instance":"nuc-01","csrPem":"","agentVersion":"1"}"#;
    let request = format!(
        "POST /enroll HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );

    let answer = world.ask(ALPN_ENROLL, None, &request).await.expect("an answer");
    assert!(answer.starts_with("HTTP/1.1 200") && answer.contains("nuc-01"), "{answer}");

    let wrong = world.ask(ALPN_ENROLL, None, WHOAMI).await.expect("an answer");
    assert!(wrong.starts_with("HTTP/1.1 404"), "{wrong}");
    let elsewhere = world.ask("http/1.1", None, &request).await.expect("an answer");
    assert!(elsewhere.starts_with("HTTP/1.1 404"), "{elsewhere}");
}

#[tokio::test]
async fn a_token_of_a_service_account_is_its_user_and_a_changed_one_nobody() {
    let world = world().await;
    let account = world.accounts.make("serviceaccounts", "bot").await;
    let token = world.accounts.token(&account, None);
    let ask = async |token: &str| {
        let request = format!(
            "GET /whoami HTTP/1.1\r\nHost: x\r\nConnection: close\r\nAuthorization: Bearer {token}\r\n\r\n"
        );
        world.ask("http/1.1", None, &request).await.expect("an answer")
    };

    let (good, changed) = (ask(&token).await, ask(&format!("{token}A")).await);

    assert!(good.ends_with("system:serviceaccount:shop:bot"), "{good}");
    assert!(changed.ends_with("nobody"), "{changed}");
}

#[tokio::test]
async fn who_is_refused_before_his_body_has_come_is_answered_and_may_ask_again() {
    let world = world().await;
    let mut client = world.connect("http/1.1", None).await.expect("a handshake");

    let head = b"POST /whoami HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2\r\n\r\n";
    client.write_all(head).await.expect("the head is taken");
    // Time for a server that does not wait for the body to close the connection.
    tokio::time::sleep(Duration::from_millis(100)).await;
    client.write_all(format!("{{}}{WHOAMI}").as_bytes()).await.expect("the connection is open");
    let mut answers = String::new();
    client.read_to_string(&mut answers).await.expect("two answers and the end");

    assert!(answers.starts_with("HTTP/1.1 405 ") && answers.ends_with("nobody"), "{answers}");
}

#[tokio::test]
async fn t25_connections_that_say_nothing_keep_nobody_out() {
    let world = world().await;
    let mut silent = Vec::new();
    for number in 0..2 * super::MOST_HANDSHAKES {
        let mut stream = TcpStream::connect(world.address).await.expect("taken");
        if number % 2 == 1 {
            // The beginning of a greeting.
            stream.write_all(&[0x16, 3, 1]).await.expect("written");
        }
        silent.push(stream);
    }

    assert!(world.ask("http/1.1", None, WHOAMI).await.expect("an answer").ends_with("nobody"));
}

#[tokio::test]
async fn a_stopped_server_ends() {
    let world = world().await;
    let mut idle = world.connect("http/1.1", None).await.expect("a handshake");

    world.stop.cancel();

    tokio::time::timeout(Duration::from_secs(5), world.served).await.expect("in time").expect("no panic");
    let mut rest = Vec::new();
    let _ = idle.read_to_end(&mut rest).await;
    assert!(rest.is_empty());
}
