//! What another replica tells of its agents.

use std::sync::Arc;
use std::time::Duration;

use gantry_api::agent_v1::OperationReport;
use gantry_api::peer_v1::follow_response::News;
use gantry_api::peer_v1::{DisconnectRequest, FollowRequest, Session as Told};
use parking_lot::Mutex;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::{ORDERS, Peer, client};
use crate::gateway::contact::Remote;
use crate::gateway::link::{DuplicateRefusal, InstanceUid, LinkError, LinkEvent, SessionFacts};
use crate::gateway::{Gateway, calls, connection};
use crate::storage::replicas::Replica;

const FIRST_PAUSE: Duration = Duration::from_millis(200);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);
const DIAL_WITHIN: Duration = Duration::from_secs(5);
const ORDER_WITHIN: Duration = Duration::from_secs(5);

/// Takes back everything a replica told, when it is followed no longer.
struct Following<'a> {
    gateway: &'a Gateway,
    replica: Uuid,
}

impl Drop for Following<'_> {
    fn drop(&mut self) {
        self.gateway.peers.lock().remove(&self.replica);
        let lost: Vec<InstanceUid> = {
            let mut remotes = self.gateway.remotes.lock();
            let lost =
                remotes.iter().filter(|(_, remote)| remote.replica == self.replica).map(|(uid, _)| *uid);
            let lost: Vec<_> = lost.collect();
            remotes.retain(|_, remote| remote.replica != self.replica);
            lost
        };
        for instance in lost {
            self.gateway.left(instance);
        }
    }
}

impl Gateway {
    /// Follows one replica, again and again; ends when it is dropped.
    pub(super) async fn follow(self: Arc<Self>, replica: Replica) {
        let mut pause = FIRST_PAUSE;
        loop {
            let begun = Instant::now();
            if let Err(error) = self.follow_once(&replica).await {
                tracing::debug!(replica = %replica.id, address = replica.address, %error, "a replica is not followed");
            }
            if begun.elapsed() > LONGEST_PAUSE {
                pause = FIRST_PAUSE;
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    async fn follow_once(&self, replica: &Replica) -> Result<(), LinkError> {
        let dialed = tokio::time::timeout(DIAL_WITHIN, self.parts.dialer.dial(replica)).await;
        let io = dialed.map_err(|_| LinkError::Away)??;
        let connection = connection::open(io, self.parts.timing.ping, &CancellationToken::new())
            .await
            .map_err(|error| LinkError::Silent(error.to_string()))?;
        let mut stream = client(connection.grpc())
            .follow(FollowRequest { replica: replica.id.to_string() })
            .await?
            .into_inner();
        let (orders, mut ordered) = mpsc::channel::<DisconnectRequest>(ORDERS);
        let peer = Arc::new(Peer { connection, orders });
        let _following = Following { gateway: self, replica: replica.id };
        self.peers.lock().insert(replica.id, Arc::clone(&peer));
        tracing::info!(replica = %replica.id, address = replica.address, "following another replica");
        loop {
            tokio::select! {
                news = stream.message() => match news? {
                    Some(response) => {
                        let instance = response.instance_uid.parse().ok().map(InstanceUid);
                        if let (Some(instance), Some(news)) = (instance, response.news) {
                            self.take_news(replica.id, &peer, instance, news);
                        }
                    }
                    None => return Ok(()),
                },
                Some(order) = ordered.recv() => {
                    let call = async { client(peer.connection.grpc()).disconnect(order).await };
                    calls::within(ORDER_WITHIN, call).await?;
                }
            }
        }
    }

    fn take_news(&self, replica: Uuid, peer: &Peer, instance: InstanceUid, news: News) {
        let tell = |event| {
            self.events.send(event).ok();
        };
        match news {
            News::CaughtUp(_) => {}
            News::Opened(told) => {
                let grpc = peer.connection.grpc().through(instance);
                let remote = Remote { replica, facts: facts(told), grpc, reports: Mutex::default() };
                self.remotes.lock().insert(instance, Arc::new(remote));
                tell(LinkEvent::Connected(instance));
            }
            News::Ended(_) => {
                let was_there = {
                    let mut remotes = self.remotes.lock();
                    let is_there = remotes.get(&instance).is_some_and(|remote| remote.replica == replica);
                    if is_there {
                        remotes.remove(&instance);
                    }
                    is_there
                };
                if was_there {
                    self.left(instance);
                }
            }
            News::Reported(report) => {
                let remote = self.remotes.lock().get(&instance).filter(|it| it.replica == replica).cloned();
                let news = remote.and_then(|remote| remote.reports.lock().take(report));
                if let Some(operation) = news {
                    tell(LinkEvent::Reported(instance, operation));
                }
            }
            News::Forgotten(forgotten) => {
                let uids: Vec<Uuid> = forgotten.uids.iter().filter_map(|uid| uid.parse().ok()).collect();
                if let Some(remote) = self.remotes.lock().get(&instance) {
                    remote.reports.lock().forget(&uids);
                }
            }
            News::HostChanged(_) => tell(LinkEvent::HostChanged(instance)),
            News::DuplicateRefused(duplicate) => {
                let refusal = DuplicateRefusal {
                    key_fingerprint: duplicate.key_fingerprint,
                    same_key: duplicate.same_key,
                    address: duplicate.address,
                };
                self.remember(instance, |past| past.duplicate = Some((refusal.clone(), Instant::now())));
                tell(LinkEvent::DuplicateRefused(instance, refusal));
            }
            News::Orphaned(report) => {
                tell(LinkEvent::Orphaned(instance, Box::<OperationReport>::new(report)));
            }
            News::Misbehaved(what) => tell(LinkEvent::Misbehaved(instance, what)),
            News::StoreRewound(_) => tell(LinkEvent::StoreRewound(instance)),
        }
    }

    /// An agent that another replica held is not known to be anywhere.
    fn left(&self, instance: InstanceUid) {
        self.remember(instance, |past| past.ended_at = Some(Instant::now()));
        self.events.send(LinkEvent::Disconnected(instance)).ok();
    }
}

fn facts(told: Told) -> SessionFacts {
    SessionFacts {
        policy: told.policy(),
        key_fingerprint: told.key_fingerprint,
        agent_version: told.agent_version,
        journal_id: told.journal_id,
        certificate_expires_at: told.certificate_expires_at,
        token: told.token.unwrap_or_default(),
    }
}
