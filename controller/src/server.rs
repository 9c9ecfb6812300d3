//! The one port: TCP, TLS, limits, and who goes where by application protocol.
//!
//! | protocol | goes to |
//! | --- | --- |
//! | `h2`, `http/1.1` | the API, with a [`Caller`](crate::auth::Caller) if the request proves one |
//! | `gantry-agent/1` | the gateway, if the certificate is an agent's |
//! | `gantry-peer/1` | the gateway, if the certificate is a replica's |
//! | `gantry-enroll/1` | one HTTP/1.1 route, `POST /enroll` |
//!
//! `GET /agent/connect` turns an API connection into a pipe for another TLS connection that may speak only the last two, so that
//! an agent proves itself end to end whatever proxy ends the outer one.

mod api;
mod enroll;
mod lent;
mod peers;
mod tunnel;

pub use peers::TlsPeers;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use gantry_api::names::{ALPN_AGENT, ALPN_ENROLL, ALPN_PEER};
use gantry_api::read_ahead::ReadAhead;
use nix::sys::socket::{setsockopt, sockopt};
use rustls::ServerConfig;
use rustls::server::Acceptor;
use socket2::{SockRef, TcpKeepalive};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_rustls::LazyConfigAcceptor;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{debug, info, warn};

use crate::auth::Authenticator;
use crate::gateway::door::AgentDoor;
use crate::pki::{Peer, Pki, PkiError};

const HANDSHAKE_PATIENCE: Duration = Duration::from_secs(10);
/// After this much silence while data waits to be acknowledged, the kernel gives an agent's connection up.
const AGENT_USER_TIMEOUT: Duration = Duration::from_secs(20);
/// Open connections; the next one waits in the listen queue.
const MOST_CONNECTIONS: usize = 20_000;
/// How long a new connection may be silent before its first message.
const HELLO_PATIENCE: Duration = Duration::from_secs(3);
/// Handshakes under way: they cost the most, and strangers can ask for them. One that says nothing takes no place.
const MOST_HANDSHAKES: usize = 256;
/// Of them, those that say they are of agents: a fleet that comes back at once leaves the others to people.
const MOST_AGENT_HANDSHAKES: usize = 128;
/// How long an agent's handshake waits for its turn. Then the connection is closed, which costs nothing, and the agent tries again.
const AGENT_TURN_PATIENCE: Duration = Duration::from_secs(5);
/// After this much silence the kernel asks whether the other end still lives, and again, until it has not answered three times.
const KEEPALIVE: Duration = Duration::from_secs(60);
/// How long requests may take to end once the server is told to.
const DRAIN_PATIENCE: Duration = Duration::from_secs(10);

/// A bound port, not yet serving.
pub struct Server {
    listener: TcpListener,
    shared: Arc<Shared>,
}

struct Shared {
    pki: Arc<Pki>,
    authenticator: Authenticator,
    tls: Arc<ServerConfig>,
    tunnel_tls: Arc<ServerConfig>,
    replica_tls: Arc<ServerConfig>,
    door: Arc<dyn AgentDoor>,
    handshakes: Semaphore,
    agent_handshakes: Semaphore,
    tasks: TaskTracker,
    stop: CancellationToken,
}

/// Whom a new connection is from and what it wants to speak.
struct Greeted<S> {
    /// Boxed, as futures keep a place for each step that it passes through.
    stream: Box<tokio_rustls::server::TlsStream<S>>,
    peer: Option<Peer>,
    protocol: Vec<u8>,
}

impl Server {
    /// Takes the port.
    pub async fn bind(
        address: SocketAddr,
        pki: Arc<Pki>,
        authenticator: Authenticator,
        door: Arc<dyn AgentDoor>,
    ) -> Result<Self, ServerError> {
        let listener =
            TcpListener::bind(address).await.map_err(|cause| ServerError::Bind { address, cause })?;
        Self::on(listener, pki, authenticator, door)
    }

    /// Uses a port that is listened on already.
    pub fn on(
        listener: TcpListener,
        pki: Arc<Pki>,
        authenticator: Authenticator,
        door: Arc<dyn AgentDoor>,
    ) -> Result<Self, ServerError> {
        let tls = pki.tls(Pki::PUBLIC_PROTOCOLS)?;
        let tunnel_tls = pki.tls(Pki::TUNNEL_PROTOCOLS)?;
        let replica_tls = pki.replica_server()?;
        let shared = Shared {
            authenticator,
            pki,
            tls,
            tunnel_tls,
            replica_tls,
            door,
            handshakes: Semaphore::new(MOST_HANDSHAKES),
            agent_handshakes: Semaphore::new(MOST_AGENT_HANDSHAKES),
            tasks: TaskTracker::new(),
            stop: CancellationToken::new(),
        };
        Ok(Self { listener, shared: Arc::new(shared) })
    }

    /// Where it listens.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Serves until told to stop; then takes no more connections, lets requests end, and closes what is left after 10 s.
    pub async fn run(self, router: Router, stop: CancellationToken) {
        let Self { listener, shared } = self;
        let router = api::router(router, &shared);
        let connections = Arc::new(Semaphore::new(MOST_CONNECTIONS));
        loop {
            let accepted = tokio::select! {
                () = stop.cancelled() => break,
                accepted = accept(&listener, &connections) => accepted,
            };
            match accepted {
                Ok((stream, from, permit)) => {
                    let (shared, router) = (Arc::clone(&shared), router.clone());
                    let tasks = shared.tasks.clone();
                    tasks.spawn(async move {
                        shared.serve(stream, from, router).await;
                        drop(permit);
                    });
                }
                Err(error) => {
                    // Out of file descriptors, mostly: accepting at once again would spin.
                    warn!(%error, "cannot accept a connection");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            }
        }
        drop(listener);
        shared.stop.cancel();
        shared.tasks.close();
        if tokio::time::timeout(DRAIN_PATIENCE, shared.tasks.wait()).await.is_err() {
            info!(connections = shared.tasks.len(), "closing connections that did not end");
        }
    }
}

async fn accept(
    listener: &TcpListener,
    connections: &Arc<Semaphore>,
) -> io::Result<(TcpStream, SocketAddr, OwnedSemaphorePermit)> {
    let permit = Arc::clone(connections).acquire_owned().await.map_err(io::Error::other)?;
    let (stream, from) = listener.accept().await?;
    stream.set_nodelay(true)?;
    let keepalive = TcpKeepalive::new().with_time(KEEPALIVE).with_interval(KEEPALIVE / 6).with_retries(3);
    SockRef::from(&stream).set_tcp_keepalive(&keepalive)?;
    Ok((stream, from, permit))
}

impl Shared {
    async fn serve(self: Arc<Self>, stream: TcpStream, from: SocketAddr, router: Router) {
        // What is over when a session begins, or belongs to another protocol, would be kept as long as the session if it were not boxed.
        let Some(greeted) = Box::pin(self.greet(&self.tls, ReadAhead::new(stream))).await else { return };
        if greeted.protocol == ALPN_PEER.as_bytes() {
            tokio::select! {
                () = self.stop.cancelled() => {}
                () = self.door.peer(greeted.stream) => {}
            }
            return;
        }
        if is_agents(&greeted.protocol) {
            let (tcp, _) = greeted.stream.get_ref();
            let patience = u32::try_from(AGENT_USER_TIMEOUT.as_millis()).unwrap_or(u32::MAX);
            if let Err(error) = setsockopt(tcp.get_ref(), sockopt::TcpUserTimeout, &patience) {
                debug!(%error, "this system has no TCP_USER_TIMEOUT; pings find dead agents all the same");
            }
            self.serve_agent(greeted, from).await;
        } else {
            Box::pin(api::serve(&self, greeted, from, router)).await;
        }
    }

    /// TLS, within time and number.
    async fn greet<S>(&self, tls: &Arc<ServerConfig>, stream: S) -> Option<Greeted<S>>
    where
        S: AsyncRead + AsyncWrite + Send + Unpin,
    {
        // A replica comes directly: nothing but agents comes through the tunnel.
        let is_public = Arc::ptr_eq(tls, &self.tls);
        let handshake = async {
            let hello = LazyConfigAcceptor::new(Acceptor::default(), stream);
            let hello = tokio::time::timeout(HELLO_PATIENCE, hello).await.map_err(io::Error::from)??;
            let (is_replica, is_agent) = {
                let protocols: Vec<&[u8]> = hello.client_hello().alpn().into_iter().flatten().collect();
                (is_public && protocols.contains(&ALPN_PEER.as_bytes()), protocols.into_iter().any(is_agents))
            };
            let _agents_turn = if is_agent {
                let turn = tokio::time::timeout(AGENT_TURN_PATIENCE, self.agent_handshakes.acquire());
                Some(turn.await?.map_err(io::Error::other)?)
            } else {
                None
            };
            let _turn = self.handshakes.acquire().await.map_err(io::Error::other)?;
            let tls = if is_replica { &self.replica_tls } else { tls };
            tokio::time::timeout(HANDSHAKE_PATIENCE, hello.into_stream(Arc::clone(tls))).await?
        };
        let stream = tokio::select! {
            () = self.stop.cancelled() => return None,
            done = handshake => done.inspect_err(|error| debug!(%error, "TLS handshake failed")).ok()?,
        };
        let (_, session) = stream.get_ref();
        let peer = session.peer_certificates().and_then(|certificates| self.pki.peer(certificates));
        let protocol = session.alpn_protocol().unwrap_or_default().to_vec();
        Some(Greeted { stream: Box::new(stream), peer, protocol })
    }

    /// One of the two protocols of agents.
    async fn serve_agent<S>(&self, greeted: Greeted<S>, from: SocketAddr)
    where
        S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let Greeted { stream, peer, protocol } = greeted;
        if protocol == ALPN_ENROLL.as_bytes() {
            return enroll::serve(&self.door, stream, from, &self.stop).await;
        }
        let Some(Peer::Agent(identity)) = peer else {
            info!(%from, "refused: only an agent's certificate opens an agent's session");
            return;
        };
        tokio::select! {
            () = self.stop.cancelled() => {}
            () = self.door.session(stream, identity, from) => {}
        }
    }
}

fn is_agents(protocol: &[u8]) -> bool {
    [ALPN_AGENT, ALPN_ENROLL].iter().any(|known| known.as_bytes() == protocol)
}

/// Why the port cannot be served.
#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    /// The address is taken or not ours.
    #[error("cannot listen on {address}")]
    Bind {
        /// Which.
        address: SocketAddr,
        /// What the system said.
        #[source]
        cause: io::Error,
    },
    /// The certificates cannot be used.
    #[error("TLS cannot be set up")]
    Tls(#[from] PkiError),
}

#[cfg(test)]
mod tests;
