//! The first exchange on a connection: who is there, may it, and with which token. Nothing runs on the host before.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use gantry_api::agent_v1::{HelloRequest, HelloResponse, RefusalReason, RefuseRequest, ResumeRequest, Token};
use gantry_api::v1alpha1::DockerInstance;
use kube::ResourceExt as _;
use tokio_util::sync::CancellationToken;

use super::connection::Connection;
use super::directory::DirectoryError;
use super::link::{DuplicateRefusal, LinkError, SessionFacts};
use super::session::Session;
use super::{Gateway, calls};
use crate::pki::AgentIdentity;

/// Why an agent is turned away, and for how long.
#[derive(Debug)]
pub(super) struct Refused {
    reason: RefusalReason,
    message: String,
    retry_after: Duration,
}

const SOON: Duration = Duration::from_secs(2);
const LATER: Duration = Duration::from_secs(60);

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

    /// Tells the agent, if it still listens.
    pub(super) async fn tell(&self, connection: &Connection) {
        let request = RefuseRequest {
            reason: self.reason.into(),
            message: self.message.clone(),
            retry_after_seconds: u32::try_from(self.retry_after.as_secs()).unwrap_or(u32::MAX),
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
    /// Hello, checks, Resume. The session is registered when this succeeds.
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
        if hello.instance_uid != identity.uid.to_string() {
            return Err(Refused::new(
                RefusalReason::InstanceGone,
                LATER,
                "the agent speaks for another instance than its certificate names: enrol it again",
            ));
        }
        self.may_connect(identity).await?;
        self.holder_is_gone(identity, from).await?;
        let token = self.token_for(&hello).await?;
        let withdrawn_uids = self.parts.directory.withdrawn(&identity.namespace, &identity.name).await?;
        let resume = ResumeRequest { token: Some(token), withdrawn_uids };
        let resumed = calls::within(timing.call, sessions.resume(calls::request(resume))).await?;
        let facts = SessionFacts {
            key_fingerprint: identity.key_fingerprint.clone(),
            policy: hello.policy(),
            agent_version: hello.agent_version,
            journal_id: hello.journal_id,
            certificate_expires_at: hello.certificate_expires_at,
            token,
        };
        let session =
            Arc::new(Session::new(identity.clone(), facts, connection.grpc(), closing.clone(), resumed));
        if self.register(identity.uid, &session) { Ok(session) } else { Err(self.duplicate(identity, from)) }
    }

    /// The instance exists, is this one, is in service and belongs to this key.
    async fn may_connect(&self, identity: &AgentIdentity) -> Result<(), Refused> {
        let instance = self.parts.directory.instance(&identity.namespace, &identity.name).await?;
        check(instance.as_ref(), identity).inspect_err(|refused| {
            self.parts.metrics.agent_refusals.with_label_values(&[refused.label()]).inc();
        })
    }

    /// No other connection holds the instance, or the one that did shows no life.
    async fn holder_is_gone(&self, identity: &AgentIdentity, from: SocketAddr) -> Result<(), Refused> {
        let Some(holder) = self.held(identity.uid) else { return Ok(()) };
        if holder.is_alive(self.parts.timing.proof_of_life).await {
            return Err(self.duplicate(identity, from));
        }
        holder.close("its agent came back on another connection");
        self.unregister(identity.uid, &holder);
        Ok(())
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
    async fn token_for(&self, hello: &HelloResponse) -> Result<Token, Refused> {
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
                "instance `{}` was deleted: remove the agent's state directory and enrol it with a new token",
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
