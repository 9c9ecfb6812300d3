//! One agent's open session: proofs of life, reports, wakes, and a new certificate in time.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use gantry_api::agent_v1::{
    HelloRequest, InstallCertificateRequest, RenewRequest, RequestCertificateRequest, ResumeResponse,
    WatchChangesRequest, WatchRequest,
};
use parking_lot::Mutex;
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::connection::{Connection, Grpc};
use super::link::{LinkError, LinkEvent, SessionFacts};
use super::reports::Reports;
use super::{Gateway, calls};
use crate::pki::AgentIdentity;

/// How often the certificate's age is looked at, at least.
const CERTIFICATE_CHECK: Duration = Duration::from_secs(3_600);

/// One agent's session.
pub(super) struct Session {
    pub(super) identity: AgentIdentity,
    pub(super) grpc: Grpc,
    facts: Mutex<SessionFacts>,
    reports: Mutex<Reports>,
    nonce: Mutex<Bytes>,
    closing: CancellationToken,
    why_closed: Mutex<Option<String>>,
}

/// Why a session ended.
#[derive(Debug)]
pub(super) enum Ended {
    /// The connection did.
    Connection,
    /// The agent did not answer, or not as it must.
    Agent(LinkError),
    /// We closed it.
    Closed(String),
}

impl Ended {
    pub(super) fn label(&self) -> &'static str {
        match self {
            Self::Connection => "connection",
            Self::Agent(_) => "agent",
            Self::Closed(_) => "closed",
        }
    }
}

impl fmt::Display for Ended {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Connection => f.write_str("its connection ended"),
            Self::Agent(error) => error.fmt(f),
            Self::Closed(why) => f.write_str(why),
        }
    }
}

impl Session {
    /// A session that Resume has just answered.
    pub(super) fn new(
        identity: AgentIdentity,
        facts: SessionFacts,
        grpc: Grpc,
        closing: CancellationToken,
        resumed: ResumeResponse,
    ) -> Self {
        let mut reports = Reports::default();
        for report in resumed.reports {
            reports.take(report);
        }
        Self {
            identity,
            grpc,
            facts: Mutex::new(facts),
            reports: Mutex::new(reports),
            nonce: Mutex::new(resumed.nonce),
            closing,
            why_closed: Mutex::default(),
        }
    }

    pub(super) fn facts(&self) -> SessionFacts {
        self.facts.lock().clone()
    }

    pub(super) fn reports(&self) -> parking_lot::MutexGuard<'_, Reports> {
        self.reports.lock()
    }

    /// Ends it, whoever holds it.
    pub(super) fn close(&self, why: &str) {
        self.why_closed.lock().get_or_insert_with(|| why.to_owned());
        self.closing.cancel();
    }

    /// True if the agent answers within that time.
    pub(super) async fn is_alive(&self, patience: Duration) -> bool {
        let hello = HelloRequest { controller_version: env!("CARGO_PKG_VERSION").to_owned() };
        calls::within(patience, calls::sessions(self.grpc.clone()).hello(hello)).await.is_ok()
    }

    /// Serves the session until it ends.
    pub(super) async fn run(self: &Arc<Self>, gateway: &Gateway, connection: &Connection) -> Ended {
        tokio::select! {
            biased;
            () = self.closing.cancelled() => {
                Ended::Closed(self.why_closed.lock().clone().unwrap_or_else(|| "the controller stops".to_owned()))
            }
            () = connection.ended() => Ended::Connection,
            error = self.prove_life(gateway.parts.timing.renew, gateway.parts.timing.call) => Ended::Agent(error),
            error = self.follow_operations(gateway) => Ended::Agent(error),
            error = self.follow_host(gateway) => Ended::Agent(error),
            () = self.renew_certificate(gateway) => Ended::Connection,
        }
    }

    /// A round trip every few seconds, so that the agent knows that it may start things.
    async fn prove_life(&self, every: Duration, patience: Duration) -> LinkError {
        let mut timer = tokio::time::interval(every);
        timer.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut sessions = calls::sessions(self.grpc.clone());
        loop {
            timer.tick().await;
            let nonce = self.nonce.lock().clone();
            match calls::within(patience, sessions.renew(RenewRequest { nonce })).await {
                Ok(renewed) => *self.nonce.lock() = renewed.nonce,
                Err(error) => return error,
            }
        }
    }

    async fn follow_operations(&self, gateway: &Gateway) -> LinkError {
        let mut operations = calls::operations(self.grpc.clone());
        let mut stream = match operations.watch(WatchRequest {}).await {
            Ok(response) => response.into_inner(),
            Err(status) => return status.into(),
        };
        loop {
            match stream.message().await {
                Ok(Some(message)) => {
                    let news = message.report.and_then(|report| self.reports.lock().take(report));
                    if let Some(operation) = news {
                        gateway.announce(LinkEvent::Reported(self.identity.uid, operation));
                    }
                }
                Ok(None) => return LinkError::Silent("it stopped reporting".to_owned()),
                Err(status) => return status.into(),
            }
        }
    }

    async fn follow_host(&self, gateway: &Gateway) -> LinkError {
        let mut docker = calls::docker(self.grpc.clone());
        let mut stream = match docker.watch_changes(WatchChangesRequest {}).await {
            Ok(response) => response.into_inner(),
            Err(status) => return status.into(),
        };
        loop {
            match stream.message().await {
                Ok(Some(_)) => gateway.announce(LinkEvent::HostChanged(self.identity.uid)),
                Ok(None) => return LinkError::Silent("it stopped telling of changes".to_owned()),
                Err(status) => return status.into(),
            }
        }
    }

    /// Never ends; a renewal that fails is tried again at the next look.
    async fn renew_certificate(&self, gateway: &Gateway) {
        let lifetime = gateway.parts.timing.certificate;
        let mut timer = tokio::time::interval(CERTIFICATE_CHECK.min(lifetime.unsigned_abs().div_f64(12.0)));
        loop {
            timer.tick().await;
            let left = self.facts.lock().certificate_expires_at - gateway.parts.clock.now().as_second();
            if left > lifetime.as_secs() / 3 {
                continue;
            }
            match self.exchange_certificate(gateway).await {
                Ok(()) => tracing::info!(instance = self.identity.name, "agent's certificate renewed"),
                Err(error) => {
                    tracing::warn!(instance = self.identity.name, %error, "agent's certificate is not renewed");
                }
            }
        }
    }

    async fn exchange_certificate(&self, gateway: &Gateway) -> Result<(), LinkError> {
        let patience = gateway.parts.timing.call;
        let refused = |message: String| LinkError::Refused { code: tonic::Code::InvalidArgument, message };
        let mut sessions = calls::sessions(self.grpc.clone());
        let request =
            calls::within(patience, sessions.request_certificate(RequestCertificateRequest {})).await?;
        let AgentIdentity { namespace, name, uid, key_fingerprint } = &self.identity;
        let signed = gateway
            .parts
            .pki
            .sign_agent(&request.csr_pem, namespace, name, *uid, gateway.parts.timing.certificate)
            .map_err(|error| refused(error.to_string()))?;
        if signed.key_fingerprint != *key_fingerprint {
            return Err(refused("it asks for a certificate for another key".to_owned()));
        }
        let install = InstallCertificateRequest {
            certificate_pem: signed.certificate_pem,
            ca_bundle_pem: gateway.parts.pki.ca_bundle(),
        };
        calls::within(patience, sessions.install_certificate(install)).await?;
        self.facts.lock().certificate_expires_at = signed.expires_at.as_second();
        Ok(())
    }
}

/// The uids as the protocol writes them.
pub(super) fn as_text(uids: &[Uuid]) -> Vec<String> {
    uids.iter().map(Uuid::to_string).collect()
}
