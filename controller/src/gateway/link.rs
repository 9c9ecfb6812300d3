//! What the rest of the controller may ask of agents. The gateway implements it; tests and the simulation fake it.

use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::BoxStream;
use gantry_api::agent_v1::{
    EngineAnswer, EngineCall, FollowInventoryRequest, InfoResponse, InventoryUpdate, OperationReport, Policy,
    RefreshInventoryResponse, SubmitRequest, Target, TargetKind, Token,
};
use tokio::sync::{broadcast, mpsc};
use uuid::Uuid;

use super::streams::AgentStreams;

/// Identity of a DockerInstance.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct InstanceUid(pub Uuid);

impl std::fmt::Display for InstanceUid {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

/// What is known of an open session. A session is listed once Resume has answered, never before.
#[derive(Clone, Debug, PartialEq)]
pub struct SessionFacts {
    /// SHA-256 of the agent's key.
    pub key_fingerprint: String,
    /// The agent's version.
    pub agent_version: String,
    /// What the host's owner allows.
    pub policy: Policy,
    /// Identity of its journal.
    pub journal_id: String,
    /// When its certificate ends, seconds since 1970.
    pub certificate_expires_at: i64,
    /// The token this session was resumed with.
    pub token: Token,
}

/// Why an agent did not do as asked.
#[derive(Clone, Debug, thiserror::Error)]
pub enum LinkError {
    /// It has no session.
    #[error("the agent is not connected")]
    Away,
    /// The connection ended or the deadline passed before it answered; what was asked may have happened.
    #[error("the agent did not answer: {0}")]
    Silent(String),
    /// It answered with a refusal.
    #[error("{message}")]
    Refused {
        /// gRPC code, as the protocol's comments define it per method.
        code: tonic::Code,
        /// The agent's words.
        message: String,
    },
}

/// What an agent tells of its host, in order.
pub type InventoryUpdates = BoxStream<'static, Result<InventoryUpdate, LinkError>>;

/// Something reconcilers should look at again. A wake, never the only carrier of a fact.
#[derive(Clone, Debug, PartialEq)]
pub enum LinkEvent {
    /// A session became ready.
    Connected(InstanceUid),
    /// A session ended.
    Disconnected(InstanceUid),
    /// Something changed on the host.
    HostChanged(InstanceUid),
    /// An agent reported on an Operation.
    Reported(InstanceUid, Uuid),
    /// A second agent was turned away.
    DuplicateRefused(InstanceUid, DuplicateRefusal),
    /// An agent holds the result of an Operation that does not exist any more; told again until the agent was let forget it.
    Orphaned(InstanceUid, Box<OperationReport>),
    /// An agent did what none of ours does; the words say what.
    Misbehaved(InstanceUid, String),
    /// An agent has forgotten these Operations.
    Forgotten(InstanceUid, Vec<Uuid>),
    /// An agent has seen a newer controller than the store remembers: the store was rewound.
    StoreRewound(InstanceUid),
}

/// A second agent that was turned away.
#[derive(Clone, Debug, PartialEq)]
pub struct DuplicateRefusal {
    /// Its key; equal to the holder's for a cloned state directory.
    pub key_fingerprint: String,
    /// True if its key is the holder's.
    pub same_key: bool,
    /// Where it called from.
    pub address: String,
}

/// A piece of what follows a call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Piece {
    /// Some of it.
    Bytes(Bytes),
    /// That was all. Without it what came is taken for a part.
    End,
}

/// What an engine said to one call, and then says.
pub struct Exchange {
    /// Status and headers.
    pub answer: EngineAnswer,
    /// What follows, to its end. Dropping it ends the call.
    pub bytes: BoxStream<'static, Result<Bytes, LinkError>>,
}

/// Calls to agents. Every method but [`AgentLink::exchange`] and the streams is bounded in time; none retries.
#[async_trait]
pub trait AgentLink: AgentStreams {
    /// The open session of an instance; `None` while its agent is away.
    fn session(&self, instance: InstanceUid) -> Option<SessionFacts>;

    /// How long ago the last session of this instance ended; `None` if it is open or was never open in this process.
    fn away_for(&self, instance: InstanceUid) -> Option<Duration>;

    /// How long ago an agent last had to wait for this replica, because many came at once or for anything else of ours.
    fn crowded_ago(&self) -> Option<Duration>;

    /// The last refusal of a second agent within the past two minutes.
    fn duplicate(&self, instance: InstanceUid) -> Option<DuplicateRefusal>;

    /// Asks the engine for its facts.
    async fn info(&self, instance: InstanceUid, timeout: Duration) -> Result<InfoResponse, LinkError>;

    /// What a name means on that host now.
    async fn resolve(
        &self,
        instance: InstanceUid,
        kind: TargetKind,
        reference: &str,
    ) -> Result<Target, LinkError>;

    /// One call of the Docker endpoint, which lasts as long as its engine and its client want.
    ///
    /// `sent` is what follows the call. Its sender must not outlive the exchange: a call whose requests have no end is not over.
    async fn exchange(
        &self,
        _instance: InstanceUid,
        _call: EngineCall,
        _sent: mpsc::Receiver<Piece>,
    ) -> Result<Exchange, LinkError> {
        Err(LinkError::Away)
    }

    /// Hands an operation over. The dispatch must have been committed before.
    async fn submit(
        &self,
        instance: InstanceUid,
        request: SubmitRequest,
    ) -> Result<OperationReport, LinkError>;

    /// Ends an operation that has not started.
    async fn withdraw(
        &self,
        instance: InstanceUid,
        token: Token,
        operation: Uuid,
    ) -> Result<OperationReport, LinkError>;

    /// What the agent knows of an operation, also one it has forgotten but for how it ended; `None` if it never heard of it.
    async fn query(
        &self,
        instance: InstanceUid,
        operation: Uuid,
    ) -> Result<Option<OperationReport>, LinkError>;

    /// Lets the agent drop results that are committed. `recorded_at` is a version of the store that holds them; 0 if their resources
    /// do not exist, so that nobody is ever told of them again.
    async fn forget(
        &self,
        instance: InstanceUid,
        token: Token,
        operations: &[Uuid],
        recorded_at: u64,
    ) -> Result<(), LinkError>;

    /// What there is on the host, from where the caller is: the whole first unless the agent is there too, then every change. Ends with
    /// an error when the session does.
    async fn follow_inventory(
        &self,
        instance: InstanceUid,
        from: FollowInventoryRequest,
    ) -> Result<InventoryUpdates, LinkError>;

    /// Has the host list everything anew; where its inventory is then.
    async fn refresh_inventory(
        &self,
        instance: InstanceUid,
        timeout: Duration,
    ) -> Result<RefreshInventoryResponse, LinkError>;

    /// The newest report on an operation in the present session; `None` when its agent is away or never heard of it.
    fn report(&self, instance: InstanceUid, operation: Uuid) -> Option<OperationReport>;

    /// How many operations its agent has not been let forget: those that wait or run there, and results not yet recorded.
    fn unsettled(&self, instance: InstanceUid) -> usize;

    /// Closes the session of an instance that lost its right to connect.
    fn disconnect(&self, instance: InstanceUid, why: &str);

    /// Wakes. A receiver that lags has lost wakes and should look at everything again.
    fn events(&self) -> broadcast::Receiver<LinkEvent>;
}
