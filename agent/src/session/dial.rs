//! The way to the controller: TCP, TLS on it, or TLS in a WebSocket in TLS.
//!
//! Whichever way, the TLS connection that carries anything of ours is made with the controller itself, whose certificate is
//! checked, and says by ALPN what it is for.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use gantry_api::names::{AGENT_TUNNEL_PATH, ALPN_AGENT, ALPN_ENROLL};
use gantry_api::read_ahead::ReadAhead;
use parking_lot::Mutex;
use rustls::client::Resumption;
use rustls::crypto::CryptoProvider;
use rustls::{CertificateError, ClientConfig};
use socket2::{SockRef, TcpKeepalive};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_tungstenite::tungstenite;

use super::outer::AnyCertificate;
use super::websocket;
use crate::config::{ControllerUrl, Transport};
use crate::enrollment::certificate::Credentials;
use crate::enrollment::key::AgentKey;
use crate::enrollment::pin::{CaHash, OtherCa, PinnedCa};

const CONNECT_WITHIN: Duration = Duration::from_secs(5);
const HANDSHAKE_WITHIN: Duration = Duration::from_secs(10);
/// Sent and not acknowledged for so long: the peer is gone. The controller asks something every five seconds, so this is noticed
/// within 20 s also where only what we send is lost.
const UNACKNOWLEDGED: Duration = Duration::from_secs(14);
const PROBE: Duration = Duration::from_secs(10);

/// A connection to the controller.
pub trait Connection: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Connection for T {}

/// How a connection came about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// TLS on the controller's port.
    Direct,
    /// Through a WebSocket.
    Websocket,
}

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub enum DialError {
    /// The name means nothing.
    #[error("`{0}` cannot be found")]
    Resolve(String, #[source] io::Error),
    /// Nobody listens, or nothing passes.
    #[error("{0} cannot be reached")]
    Connect(String, #[source] io::Error),
    /// Something listens and TLS with it failed.
    #[error("no TLS connection to {0}")]
    Handshake(String, #[source] io::Error),
    /// Something listens and speaks TLS, but has no WebSocket for us.
    #[error("no WebSocket through {0}")]
    WebSocket(String, #[source] Box<tungstenite::Error>),
    /// TLS works and what is there is no controller.
    #[error("{0} does not speak {1}")]
    OtherProtocol(String, &'static str),
    /// Neither way.
    #[error("directly: {}; through a WebSocket: {}", one_line(.direct), one_line(.websocket))]
    Neither {
        /// Why not directly.
        direct: Box<DialError>,
        /// Why not through a WebSocket.
        websocket: Box<DialError>,
    },
    /// TLS itself cannot be set up.
    #[error("TLS cannot be set up")]
    Tls(#[source] rustls::Error),
}

impl DialError {
    /// The controller was found, by every way there is, to have another CA than the pinned one.
    pub fn is_other_ca(&self) -> bool {
        match self {
            Self::Neither { direct, websocket } => direct.is_other_ca() && websocket.is_other_ca(),
            Self::Handshake(_, error) => is_other_ca(error),
            _ => false,
        }
    }

    /// The other way may fare better.
    fn is_after_connect(&self) -> bool {
        matches!(self, Self::Handshake(..) | Self::WebSocket(..) | Self::OtherProtocol(..))
    }
}

/// The error with its causes.
pub(crate) fn one_line(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let next = error.to_string();
        if !text.ends_with(&next) {
            text.push_str(": ");
            text.push_str(&next);
        }
        cause = error.source();
    }
    text
}

fn is_other_ca(error: &io::Error) -> bool {
    let tls = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
    match tls {
        Some(rustls::Error::InvalidCertificate(CertificateError::Other(other))) => other.0.is::<OtherCa>(),
        _ => false,
    }
}

/// Makes connections to one controller.
pub struct Dialer {
    controller: ControllerUrl,
    transport: Transport,
    provider: Arc<CryptoProvider>,
    outer: Arc<ClientConfig>,
    /// The way that worked last.
    way: Mutex<Way>,
}

impl Dialer {
    /// Does not connect yet.
    pub fn new(controller: ControllerUrl, transport: Transport) -> Result<Self, DialError> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut outer = ClientConfig::builder_with_provider(provider.clone())
            .with_safe_default_protocol_versions()
            .map_err(DialError::Tls)?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(AnyCertificate::new(provider.clone())))
            .with_no_client_auth();
        outer.alpn_protocols = vec![b"http/1.1".to_vec()];
        outer.resumption = Resumption::disabled();
        Ok(Self { controller, transport, provider, outer: Arc::new(outer), way: Mutex::new(Way::Direct) })
    }

    /// Where the controller is.
    pub fn controller(&self) -> &ControllerUrl {
        &self.controller
    }

    /// For the one call before there is a certificate. The controller is known by the hash of its CA.
    pub async fn enrollment(&self, ca: CaHash) -> Result<(Box<dyn Connection>, Way), DialError> {
        let verifier = Arc::new(PinnedCa::new(ca, self.provider.clone()));
        let mut config = ClientConfig::builder_with_provider(self.provider.clone())
            .with_protocol_versions(&[&rustls::version::TLS13])
            .map_err(DialError::Tls)?
            .dangerous()
            .with_custom_certificate_verifier(verifier)
            .with_no_client_auth();
        config.resumption = Resumption::disabled();
        Box::pin(self.dial(config, ALPN_ENROLL)).await
    }

    /// For a session. Both ends show certificates.
    pub async fn session(
        &self,
        credentials: &Credentials,
        key: &AgentKey,
    ) -> Result<(Box<dyn Connection>, Way), DialError> {
        let mut config = ClientConfig::builder_with_provider(self.provider.clone())
            .with_protocol_versions(&[&rustls::version::TLS13])
            .map_err(DialError::Tls)?
            .with_root_certificates(credentials.roots.clone())
            .with_client_auth_cert(credentials.chain.clone(), key.private())
            .map_err(DialError::Tls)?;
        config.resumption = Resumption::disabled();
        Box::pin(self.dial(config, ALPN_AGENT)).await
    }

    async fn dial(
        &self,
        mut config: ClientConfig,
        alpn: &'static str,
    ) -> Result<(Box<dyn Connection>, Way), DialError> {
        config.alpn_protocols = vec![alpn.as_bytes().to_vec()];
        let tls = TlsConnector::from(Arc::new(config));
        let (first, second) = match (self.transport, *self.way.lock()) {
            (Transport::Direct, _) => (Way::Direct, None),
            (Transport::Websocket, _) => (Way::Websocket, None),
            (Transport::Auto, Way::Direct) => (Way::Direct, Some(Way::Websocket)),
            (Transport::Auto, Way::Websocket) => (Way::Websocket, Some(Way::Direct)),
        };
        let failure = match self.by(first, &tls, alpn).await {
            Ok(connection) => return Ok((connection, first)),
            Err(failure) => failure,
        };
        let Some(second) = second.filter(|_| failure.is_after_connect()) else {
            return Err(failure);
        };
        match self.by(second, &tls, alpn).await {
            Ok(connection) => {
                *self.way.lock() = second;
                Ok((connection, second))
            }
            Err(other) => {
                let (direct, websocket) =
                    if first == Way::Direct { (failure, other) } else { (other, failure) };
                Err(DialError::Neither { direct: Box::new(direct), websocket: Box::new(websocket) })
            }
        }
    }

    async fn by(
        &self,
        way: Way,
        tls: &TlsConnector,
        alpn: &'static str,
    ) -> Result<Box<dyn Connection>, DialError> {
        let tcp = ReadAhead::new(self.connect().await?);
        let failed = |cause| DialError::Handshake(self.controller.authority(), cause);
        let late = |_| failed(io::Error::new(io::ErrorKind::TimedOut, "it took too long"));
        match way {
            Way::Direct => timeout(HANDSHAKE_WITHIN, self.secure(tcp, tls, alpn)).await.map_err(late)?,
            Way::Websocket => {
                let through = async {
                    let outer = TlsConnector::from(self.outer.clone());
                    let outer = outer.connect(self.controller.server_name(), tcp).await.map_err(failed)?;
                    let authority = self.controller.authority();
                    let frames = websocket::upgrade(outer, &authority, AGENT_TUNNEL_PATH)
                        .await
                        .map_err(|cause| DialError::WebSocket(authority, cause))?;
                    self.secure(frames, tls, alpn).await
                };
                timeout(2 * HANDSHAKE_WITHIN, through).await.map_err(late)?
            }
        }
    }

    async fn secure<S: Connection + 'static>(
        &self,
        stream: S,
        tls: &TlsConnector,
        alpn: &'static str,
    ) -> Result<Box<dyn Connection>, DialError> {
        let stream = tls
            .connect(self.controller.server_name(), stream)
            .await
            .map_err(|cause| DialError::Handshake(self.controller.authority(), cause))?;
        if stream.get_ref().1.alpn_protocol() != Some(alpn.as_bytes()) {
            return Err(DialError::OtherProtocol(self.controller.authority(), alpn));
        }
        Ok(Box::new(stream))
    }

    /// To the first address that answers.
    async fn connect(&self) -> Result<TcpStream, DialError> {
        let host = self.controller.host();
        let unknown = |cause| DialError::Resolve(host.to_owned(), cause);
        let lookup = tokio::net::lookup_host((host, self.controller.port()));
        let late = io::Error::new(io::ErrorKind::TimedOut, "the name service did not answer");
        let addresses = match timeout(CONNECT_WITHIN, lookup).await {
            Ok(addresses) => addresses.map_err(unknown)?,
            Err(_) => return Err(unknown(late)),
        };
        let mut failure = unknown(io::Error::new(io::ErrorKind::NotFound, "the name has no address"));
        for address in addresses {
            match connect_to(address).await {
                Ok(stream) => return Ok(stream),
                Err(cause) => failure = DialError::Connect(address.to_string(), cause),
            }
        }
        Err(failure)
    }
}

async fn connect_to(address: SocketAddr) -> io::Result<TcpStream> {
    let late = |_| io::Error::new(io::ErrorKind::TimedOut, "it did not answer");
    let stream = timeout(CONNECT_WITHIN, TcpStream::connect(address)).await.map_err(late)??;
    stream.set_nodelay(true)?;
    let socket = SockRef::from(&stream);
    socket.set_tcp_keepalive(&TcpKeepalive::new().with_time(PROBE).with_interval(PROBE).with_retries(1))?;
    socket.set_tcp_user_timeout(Some(UNACKNOWLEDGED))?;
    Ok(stream)
}
