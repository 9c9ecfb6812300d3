//! What the server hands to the gateway: connections of agents, and requests to become one.

use std::net::SocketAddr;

use async_trait::async_trait;
use gantry_api::enrollment::{EnrollFailure, EnrollRequest, EnrollResponse};
use tokio::io::{AsyncRead, AsyncWrite};

use crate::pki::AgentIdentity;

/// A connection whose TLS has proven the agent at its other end.
pub type AgentIo = Box<dyn AgentStream>;

/// Any stream of bytes.
pub trait AgentStream: AsyncRead + AsyncWrite + Send + Unpin + 'static {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin + 'static> AgentStream for T {}

/// Where agents come in.
#[async_trait]
pub trait AgentDoor: Send + Sync + 'static {
    /// Serves one agent until its connection ends, for whatever reason.
    async fn session(&self, io: AgentIo, identity: AgentIdentity, from: SocketAddr);

    /// Serves another replica until its connection ends.
    async fn peer(&self, io: AgentIo);

    /// Decides on one enrolment.
    async fn enroll(&self, request: EnrollRequest, from: SocketAddr)
    -> Result<EnrollResponse, EnrollFailure>;
}
