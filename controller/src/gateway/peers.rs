//! Agents that other replicas hold: who they are and what they said is followed, calls to them are passed on.
//!
//! Every replica follows every other, so that whichever leads knows all agents at once, and any may be asked about any of them.

mod follow;
mod serve;

use std::collections::HashMap;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use gantry_api::peer_v1::peer_service_client::PeerServiceClient;
use gantry_api::peer_v1::{DisconnectRequest, ProbeRequest, ProbeResponse};
use tokio::sync::mpsc;
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;
use uuid::Uuid;

use super::connection::{self, Connection, Grpc, MOST_MESSAGE};
use super::door::AgentIo;
use super::link::{InstanceUid, LinkError};
use super::{Gateway, calls};
use crate::storage::replicas::Replica;

/// How often replicas that came or went are looked for.
const LOOK_EVERY: Duration = Duration::from_secs(2);
/// Sessions another replica may be asked to close at the same time.
const ORDERS: usize = 256;
/// Replicas that are remembered as replaced. Whoever is forgotten is asked for once more.
const MOST_REPLACED: usize = 64;

/// Opens connections to other replicas.
#[async_trait]
pub trait PeerDialer: Send + Sync + 'static {
    /// A connection on which that replica has proven itself, and this one to it.
    async fn dial(&self, replica: &Replica) -> io::Result<AgentIo>;
}

/// The dialer of a controller that is alone.
pub struct Nobody;

#[async_trait]
impl PeerDialer for Nobody {
    async fn dial(&self, _: &Replica) -> io::Result<AgentIo> {
        Err(io::ErrorKind::NotFound.into())
    }
}

/// An open connection to another replica.
pub(super) struct Peer {
    connection: Connection,
    orders: mpsc::Sender<DisconnectRequest>,
}

/// Whether an agent answers on another replica.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Probe {
    Alive,
    /// It does not, or nobody or another replica is where that one was.
    Dead,
    /// It does not, and for so long it may still start what it was sent.
    Lingers(Duration),
    /// That replica is there and did not say.
    Unknown,
}

fn client(grpc: Grpc) -> PeerServiceClient<Grpc> {
    PeerServiceClient::new(grpc).max_decoding_message_size(MOST_MESSAGE)
}

impl Gateway {
    /// Follows every other replica until `stop`.
    pub async fn follow_peers(self: Arc<Self>, stop: CancellationToken) {
        let mut following: HashMap<Uuid, AbortOnDropHandle<()>> = HashMap::new();
        let mut timer = tokio::time::interval(LOOK_EVERY);
        timer.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                _ = timer.tick() => {}
            }
            // While the database does not say who serves, those that did are followed on.
            let Ok(others) = self.parts.registry.others().await else { continue };
            following.retain(|id, _| others.iter().any(|other| other.id == *id));
            for replica in others {
                following.entry(replica.id).or_insert_with(|| {
                    AbortOnDropHandle::new(tokio::spawn(Arc::clone(&self).follow(replica)))
                });
            }
        }
    }

    /// Asks another replica whether its agent still answers.
    pub(super) async fn probe(&self, holder: &Replica, instance: InstanceUid, boot: &str) -> Probe {
        // That replica waits for its agent first.
        let patience = self.parts.timing.proof_of_life + self.parts.timing.proof_of_life / 2;
        if self.replaced.lock().contains(&holder.id) {
            return Probe::Dead;
        }
        let known = self.peers.lock().get(&holder.id).cloned();
        let request = ProbeRequest {
            instance_uid: instance.to_string(),
            replica: holder.id.to_string(),
            boot: boot.to_owned(),
        };
        if let Some(peer) = known {
            let call = async { client(peer.connection.grpc()).probe(request.clone()).await };
            if let Some(told) = self.told(holder.id, calls::within(patience, call).await) {
                return told;
            }
        }
        let dialed = tokio::time::timeout(patience, self.parts.dialer.dial(holder)).await;
        let io = match dialed {
            Ok(Ok(io)) => io,
            Ok(Err(error)) if error.kind() == io::ErrorKind::ConnectionRefused => return Probe::Dead,
            Ok(Err(_)) | Err(_) => return Probe::Unknown,
        };
        let Ok(opened) = connection::open(io, self.parts.timing.ping, &CancellationToken::new()).await else {
            return Probe::Unknown;
        };
        let call = async { client(opened.grpc()).probe(request).await };
        self.told(holder.id, calls::within(patience, call).await).unwrap_or(Probe::Unknown)
    }

    /// What an answer says; `None` if it says nothing.
    fn told(&self, replica: Uuid, answer: Result<ProbeResponse, LinkError>) -> Option<Probe> {
        match answer {
            Ok(answer) if answer.is_alive => Some(Probe::Alive),
            Ok(answer) if answer.may_start_for_ms > 0 => {
                Some(Probe::Lingers(Duration::from_millis(answer.may_start_for_ms.into())))
            }
            Ok(_) => Some(Probe::Dead),
            Err(LinkError::Refused { code: tonic::Code::NotFound, .. }) => {
                let mut replaced = self.replaced.lock();
                if replaced.len() >= MOST_REPLACED {
                    replaced.clear();
                }
                replaced.insert(replica);
                Some(Probe::Dead)
            }
            Err(_) => None,
        }
    }

    /// Hands the order on; a replica that is not reached now has its own reconciler's word for it.
    pub(super) fn ask_to_disconnect(&self, replica: Uuid, instance: InstanceUid, why: &str) {
        let order = DisconnectRequest {
            instance_uid: instance.to_string(),
            why: why.to_owned(),
            replica: replica.to_string(),
        };
        let peer = self.peers.lock().get(&replica).cloned();
        if peer.is_none_or(|peer| peer.orders.try_send(order).is_err()) {
            tracing::debug!(%instance, "a replica was not asked to close a session; it is asked again");
        }
    }
}

impl From<io::Error> for LinkError {
    fn from(error: io::Error) -> Self {
        Self::Silent(error.to_string())
    }
}
