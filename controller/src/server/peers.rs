//! Connections between replicas: taken in on the one port, and dialed.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use gantry_api::read_ahead::ReadAhead;
use rustls::ClientConfig;
use rustls_pki_types::ServerName;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use crate::gateway::door::AgentIo;
use crate::gateway::peers::PeerDialer;
use crate::pki::{Pki, PkiError, REPLICA_NAME};
use crate::storage::replicas::Replica;

const CONNECT_WITHIN: Duration = Duration::from_secs(5);

/// Dials replicas where the registry says that they are.
pub struct TlsPeers(Arc<ClientConfig>);

impl TlsPeers {
    /// Proves itself by that directory's certificates.
    pub fn new(pki: &Pki) -> Result<Self, PkiError> {
        Ok(Self(pki.replica_client()?))
    }
}

#[async_trait]
impl PeerDialer for TlsPeers {
    async fn dial(&self, replica: &Replica) -> io::Result<AgentIo> {
        let dialed = async {
            let stream = TcpStream::connect(&replica.address).await?;
            stream.set_nodelay(true)?;
            let name = ServerName::try_from(REPLICA_NAME).map_err(io::Error::other)?;
            TlsConnector::from(Arc::clone(&self.0)).connect(name, ReadAhead::new(stream)).await
        };
        let stream = timeout(CONNECT_WITHIN, dialed).await??;
        Ok(Box::new(stream))
    }
}
