//! The first exchange on a connection: who is there, may it, and with which token. Nothing runs on the host before.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use gantry_api::agent_v1::{HelloRequest, HelloResponse, RefusalReason, RefuseRequest, ResumeRequest, Token};
use gantry_api::v1alpha1::DockerInstance;
use kube::ResourceExt as _;
use prost::Message as _;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::connection::Connection;
use super::directory::DirectoryError;
use super::link::{DuplicateRefusal, InstanceUid, LinkError, LinkEvent, SessionFacts};
use super::peers::Probe;
use super::session::Session;
use super::standing::Standing;
use super::{Gateway, calls};
use crate::pki::AgentIdentity;
use crate::storage::replicas::Claim;

/// Why an agent is turned away, and for how long.
#[derive(Debug)]
pub(super) struct Refused {
    reason: RefusalReason,
    message: String,
    retry_after: Duration,
}

const SOON: Duration = Duration::from_secs(2);
const LATER: Duration = Duration::from_secs(60);
/// Takeovers or restores by which a store may have been rewound. An agent that claims more cannot push the counters to their end.
const MOST_REWOUND: u64 = 1_000_000;
/// Bytes of a greeting.
const LARGEST_HELLO: usize = 4 << 10;
/// Raises of the store's token in that time.
const MOST_RAISES: usize = 3;
const RAISES_REMEMBERED: Duration = Duration::from_secs(600);

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl Refused {
    fn new(reason: RefusalReason, retry_after: Duration, message: impl Into<String>) -> Self {
        Self { reason, message: message.into(), retry_after }
    }

    fn unavailable(message: impl Into<String>) -> Self {
        Self::new(RefusalReason::Unavailable, SOON, message)
    }

    /// More agents came than can be let in.
    pub(super) fn crowded(retry_after: Duration) -> Self {
        let message = "many agents come back at once: come again when it is this one's turn";
        Self::new(RefusalReason::Unavailable, retry_after, message)
    }

    /// A copy of a host must not run beside the first.
    fn lingers(left: Duration) -> Self {
        let message = "an agent with this key on another machine, or before this one was started, does not answer and may still start what it was sent: \
             wait until it cannot";
        Self::new(RefusalReason::Unavailable, left, message)
    }

    /// Tells the agent, if it still listens.
    pub(super) async fn tell(&self, connection: &Connection) {
        let request = RefuseRequest {
            reason: self.reason.into(),
            message: self.message.clone(),
            // Whole seconds, none of them too early.
            retry_after_seconds: u32::try_from(self.retry_after.as_millis().div_ceil(1_000))
                .unwrap_or(u32::MAX),
        };
        let mut sessions = calls::sessions(connection.grpc());
        if let Err(error) = calls::within(SOON, sessions.refuse(request)).await {
            tracing::debug!(%error, "the agent did not hear why it is turned away");
        }
    }
}

impl From<LinkError> for Refused {
    fn from(error: LinkError) -> Self {
        Self::unavailable(format!("the agent did not complete the handshake: {error}"))
    }
}

impl From<DirectoryError> for Refused {
    fn from(error: DirectoryError) -> Self {
        Self::unavailable(format!("the controller cannot check this agent now: {error}"))
    }
}

impl Gateway {
    /// Hello, checks, Resume. The session holds the instance from before Resume, and is open when this
    /// succeeds.
    pub(super) async fn handshake(
        &self,
        connection: &Connection,
        identity: &AgentIdentity,
        from: SocketAddr,
        closing: &CancellationToken,
    ) -> Result<Arc<Session>, Refused> {
        let timing = self.parts.timing;
        let mut sessions = calls::sessions(connection.grpc());
        let version = env!("CARGO_PKG_VERSION").to_owned();
        let hello = HelloRequest { controller_version: version };
        let hello = calls::within(timing.call, sessions.hello(calls::request(hello))).await?;
        if hello.encoded_len() > LARGEST_HELLO {
            self.misbehaves(identity.uid, "its agent greets with more than a greeting holds");
            return Err(Refused::new(RefusalReason::Unavailable, LATER, "the greeting is too long"));
        }
        if hello.instance_uid != identity.uid.to_string() {
            self.misbehaves(
                identity.uid,
                "its agent says that it speaks for another instance than its certificate names",
            );
            return Err(Refused::new(
                RefusalReason::InstanceGone,
                LATER,
                "the agent speaks for another instance than its certificate names: enrol it again",
            ));
        }
        self.may_connect(identity, from).await?;
        // Where a machine cannot tell its starts apart, each process counts as one.
        let boot =
            Some(&hello.machine_boot).filter(|boot| !boot.is_empty()).unwrap_or(&hello.boot_nonce).clone();
        let session = Arc::new(Session::new(identity.clone(), connection.grpc(), boot, closing.clone()));
        self.take_instance(&session, from).await?;
        let resumed = tokio::select! {
            biased;
            () = closing.cancelled() => Err(Refused::unavailable("the agent came back on another connection")),
            resumed = self.resume(&session, hello) => resumed,
        };
        if resumed.is_err() {
            self.give_up(&session).await;
        }
        resumed.map(|()| session)
    }

    /// Tells the agent what may start, and opens the session with its answer.
    async fn resume(&self, session: &Session, hello: HelloResponse) -> Result<(), Refused> {
        let AgentIdentity { namespace, name, uid, key_fingerprint, expires_at } = &session.identity;
        let token = self.token_for(*uid, &hello).await?;
        let operations = self.parts.directory.operations(namespace, name).await?;
        let standing = Standing::of(&operations, uid.0, &hello.journal_id, self.parts.clock.now());
        let journal_was_rolled_back = standing.is_ahead_of(hello.journal_sequence);
        if journal_was_rolled_back {
            tracing::error!(
                instance = name,
                sequence = hello.journal_sequence,
                "the agent's journal was rolled back: nothing in it is started or repeated"
            );
        }
        let Standing { known, withdrawn, permits, .. } = standing;
        let resume = ResumeRequest {
            token: Some(token),
            withdrawn_uids: withdrawn,
            permits,
            journal_was_rolled_back,
            rewinds: self.parts.authority.rewinds(),
        };
        let mut sessions = calls::sessions(session.grpc.clone());
        let resumed = calls::within(self.parts.timing.call, sessions.resume(calls::request(resume))).await?;
        let facts = SessionFacts {
            key_fingerprint: key_fingerprint.clone(),
            policy: hello.policy(),
            agent_version: hello.agent_version,
            journal_id: Some(resumed.journal_id.clone())
                .filter(|now| !now.is_empty())
                .unwrap_or(hello.journal_id),
            certificate_expires_at: *expires_at,
            token,
        };
        session.open(facts, resumed, &known);
        Ok(())
    }

    /// The instance exists, is this one, is in service and belongs to this key.
    async fn may_connect(&self, identity: &AgentIdentity, from: SocketAddr) -> Result<(), Refused> {
        let instance = self.parts.directory.instance(&identity.namespace, &identity.name).await?;
        check(instance.as_ref(), identity).inspect_err(|refused| {
            self.parts.metrics.agent_refusals.with_label_values(&[refused.label()]).inc();
            if refused.reason == RefusalReason::OtherKey {
                let refusal = DuplicateRefusal {
                    key_fingerprint: identity.key_fingerprint.clone(),
                    same_key: false,
                    address: from.ip().to_string(),
                };
                self.remember_duplicate(identity.uid, refusal);
            }
        })
    }

    /// True if the store's token may be raised again: one raise puts it above all that a rewound store forgot, so more than a few
    /// are an agent's invention, and each ends every watch.
    fn may_raise(&self) -> bool {
        let mut raises = self.raises.lock();
        raises.retain(|raised| raised.elapsed() < RAISES_REMEMBERED);
        let may = raises.len() < MOST_RAISES;
        if may {
            raises.push(Instant::now());
        }
        may
    }

    /// Makes the instance this session's, unless another connection holds it and shows life.
    async fn take_instance(&self, session: &Arc<Session>, from: SocketAddr) -> Result<(), Refused> {
        let identity = &session.identity;
        if let Some(holder) = self.holder(identity.uid) {
            if holder.is_alive(self.parts.timing.proof_of_life).await {
                return Err(self.duplicate(identity, from));
            }
            let left = holder.may_start_for(session.boot());
            if !left.is_zero() {
                return Err(Refused::lingers(left));
            }
            holder.close("its agent came back on another connection");
            self.unregister(identity.uid, &holder);
        }
        if !self.register(identity.uid, session) {
            return Err(self.duplicate(identity, from));
        }
        let claimed = self.claim_instance(session, from).await;
        if claimed.is_err() {
            self.unregister(identity.uid, session);
        }
        claimed
    }

    /// Claims the instance among all replicas. One that another replica holds is given up by it only if its agent shows no life there.
    async fn claim_instance(&self, session: &Arc<Session>, from: SocketAddr) -> Result<(), Refused> {
        let identity = &session.identity;
        let mut seen = None;
        for _ in 0..2 {
            let claim = self.parts.registry.claim(identity.uid.0, &identity.key_fingerprint, seen).await;
            match claim
                .map_err(|error| Refused::unavailable(format!("sessions cannot be claimed now: {error}")))?
            {
                Claim::Granted { epoch } => {
                    session.set_claim(epoch);
                    return Ok(());
                }
                Claim::Held { by, epoch } => match self.probe(&by, identity.uid, session.boot()).await {
                    Probe::Alive => return Err(self.duplicate(identity, from)),
                    Probe::Lingers(left) => return Err(Refused::lingers(left)),
                    Probe::Dead => seen = Some(epoch),
                    Probe::Unknown => {
                        return Err(Refused::unavailable(
                            "the replica that holds this instance does not answer now",
                        ));
                    }
                },
            }
        }
        Err(Refused::unavailable("another replica took this instance at the same time"))
    }

    fn duplicate(&self, identity: &AgentIdentity, from: SocketAddr) -> Refused {
        let refusal = DuplicateRefusal {
            key_fingerprint: identity.key_fingerprint.clone(),
            same_key: true,
            address: from.ip().to_string(),
        };
        self.remember_duplicate(identity.uid, refusal);
        Refused::new(
            RefusalReason::DuplicateAgent,
            LATER,
            format!(
                "DuplicateAgent: another agent with this key is connected as `{}` and keeps the instance; \
                 if this host is a clone, remove its state directory and enrol it under its own name",
                identity.name
            ),
        )
    }

    /// This replica's token, above everything the agent has seen.
    async fn token_for(&self, instance: InstanceUid, hello: &HelloResponse) -> Result<Token, Refused> {
        let Some(token) = self.parts.authority.token() else {
            return Err(Refused::unavailable("no controller leads at this moment"));
        };
        let seen = hello.highest_token.unwrap_or_default();
        if (seen.incarnation, seen.epoch) <= (token.incarnation, token.epoch) {
            return Ok(token);
        }
        tracing::error!(
            seen.incarnation,
            seen.epoch,
            token.incarnation,
            token.epoch,
            "StoreRewound: an agent has seen a newer controller than the database remembers"
        );
        if seen.incarnation.saturating_sub(token.incarnation) > MOST_REWOUND
            || seen.epoch.saturating_sub(token.epoch) > MOST_REWOUND
        {
            self.misbehaves(
                instance,
                "its agent claims to have seen a controller that this store can never have had",
            );
            return Err(Refused::new(
                RefusalReason::Unavailable,
                LATER,
                "the agent claims to have seen a controller that this store can never have had: enrol it again",
            ));
        }
        if !self.may_raise() {
            return Err(Refused::unavailable("the database was brought forward several times already: wait"));
        }
        self.parts.metrics.store_rewound.inc();
        self.announce(LinkEvent::StoreRewound(instance));
        let raised = self.parts.authority.raise_above(seen).await;
        raised
            .ok_or_else(|| Refused::unavailable("the database was rewound and cannot be brought forward yet"))
    }
}

impl Refused {
    fn label(&self) -> &'static str {
        match self.reason {
            RefusalReason::DuplicateAgent => "duplicate",
            RefusalReason::InstanceArchived => "archived",
            RefusalReason::InstanceGone => "gone",
            RefusalReason::OtherKey => "other_key",
            RefusalReason::Unavailable | RefusalReason::Unspecified => "unavailable",
        }
    }
}

fn check(instance: Option<&DockerInstance>, identity: &AgentIdentity) -> Result<(), Refused> {
    let Some(instance) = instance.filter(|instance| {
        instance.uid().as_deref() == Some(&identity.uid.to_string())
            && instance.metadata.deletion_timestamp.is_none()
    }) else {
        return Err(Refused::new(
            RefusalReason::InstanceGone,
            LATER,
            format!(
                "instance `{}` was deleted: give the agent a new token, with which it enrols by itself",
                identity.name
            ),
        ));
    };
    if instance.spec.archived {
        return Err(Refused::new(
            RefusalReason::InstanceArchived,
            LATER,
            format!(
                "instance `{}` is archived: set spec.archived to false to let its agent in",
                identity.name
            ),
        ));
    }
    let bound = instance.status.as_ref().and_then(|status| status.agent.as_ref());
    if bound.is_none_or(|agent| agent.key_fingerprint != identity.key_fingerprint) {
        return Err(Refused::new(
            RefusalReason::OtherKey,
            LATER,
            format!(
                "instance `{}` belongs to another agent's key: delete it to give it to this one",
                identity.name
            ),
        ));
    }
    Ok(())
}
