//! One agent's session: proofs of life, reports, wakes, and a new certificate in time.

use std::collections::HashSet;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use gantry_api::agent_v1::{
    HelloRequest, InstallCertificateRequest, OperationReport, OperationState, RenewRequest,
    RequestCertificateRequest, ResumeResponse, WatchChangesRequest, WatchRequest,
};
use gantry_api::names::PROOF_LASTS;
use parking_lot::Mutex;
use tokio::time::{Instant, MissedTickBehavior};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::connection::{Connection, Grpc};
use super::link::{AgentLink as _, LinkError, LinkEvent, SessionFacts};
use super::reports::Reports;
use super::{Gateway, calls};
use crate::pki::AgentIdentity;

/// How often the certificate's age is looked at, at least.
const CERTIFICATE_CHECK: Duration = Duration::from_secs(3_600);
/// For calls that only read or that the agent answers from its journal.
pub(super) const SHORT: Duration = Duration::from_secs(10);
/// Changes of a host are told at most this often.
const CHANGES_PAUSE: Duration = Duration::from_millis(100);
/// So many reports are taken, then the pause must have passed since the last so many.
const REPORTS_AT_ONCE: u64 = 200;
const REPORTS_PAUSE: Duration = Duration::from_millis(50);
/// Results without a resource that are told of in one session.
const MOST_ORPHANS_TOLD: usize = 100;
/// How often operations that nobody knows any more are looked at, until they are over.
const ORPHANS_CHECK: Duration = Duration::from_secs(5);

/// One agent's session. It holds its instance from before Resume, so that no second agent is resumed beside it.
pub(super) struct Session {
    pub(super) identity: AgentIdentity,
    pub(super) grpc: Grpc,
    /// Absent until Resume has answered.
    facts: Mutex<Option<SessionFacts>>,
    reports: Mutex<Reports>,
    /// In the agent's journal, but no resource any more.
    orphans: Mutex<HashSet<Uuid>>,
    nonce: Mutex<Nonce>,
    /// Which start of which machine it runs in.
    boot: String,
    /// The agent may start things until [`PROOF_LASTS`] after this, at the latest.
    proven: Mutex<Instant>,
    /// This replica's claim to it, once it is granted.
    claim: Mutex<Option<i64>>,
    closing: CancellationToken,
    why_closed: Mutex<Option<String>>,
}

/// Something of the agent's to be given back.
struct Nonce {
    bytes: Bytes,
    came: Instant,
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
    /// A session that is not open yet, of an agent that has answered Hello.
    pub(super) fn new(identity: AgentIdentity, grpc: Grpc, boot: String, closing: CancellationToken) -> Self {
        let now = Instant::now();
        Self {
            identity,
            grpc,
            facts: Mutex::default(),
            reports: Mutex::default(),
            orphans: Mutex::default(),
            nonce: Mutex::new(Nonce { bytes: Bytes::new(), came: now }),
            boot,
            proven: Mutex::new(now),
            claim: Mutex::default(),
            closing,
            why_closed: Mutex::default(),
        }
    }

    /// Opens it with what Resume has answered. Operations that are not `known` have lost their resource.
    pub(super) fn open(&self, facts: SessionFacts, resumed: ResumeResponse, known: &HashSet<Uuid>) {
        let uids = resumed.reports.iter().filter_map(|report| report.uid.parse().ok());
        *self.orphans.lock() = uids.filter(|uid| !known.contains(uid)).collect();
        for report in resumed.reports {
            self.reports.lock().take(report);
        }
        *self.nonce.lock() = Nonce { bytes: resumed.nonce, came: Instant::now() };
        *self.facts.lock() = Some(facts);
    }

    /// Which start of which machine it runs in.
    pub(super) fn boot(&self) -> &str {
        &self.boot
    }

    pub(super) fn set_claim(&self, epoch: i64) {
        *self.claim.lock() = Some(epoch);
    }

    /// The claim, to be given back; once.
    pub(super) fn take_claim(&self) -> Option<i64> {
        self.claim.lock().take()
    }

    /// What is known of it; `None` until it is open.
    pub(super) fn facts(&self) -> Option<SessionFacts> {
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

    /// Nobody takes it for open any more.
    pub(super) fn shut(&self) {
        *self.facts.lock() = None;
    }

    /// Returns when the agent can start nothing of this session any more, or has come back.
    pub(super) async fn lingers(&self) {
        let over = *self.proven.lock() + PROOF_LASTS;
        tokio::select! {
            () = tokio::time::sleep_until(over) => {}
            () = self.closing.cancelled() => {}
        }
    }

    /// How long this agent may still start what it was sent although it does not answer; no time if `boot` is the same machine, on which
    /// one that comes anew has left this session or was started again.
    pub(super) fn may_start_for(&self, boot: &str) -> Duration {
        if self.boot == boot {
            return Duration::ZERO;
        }
        (*self.proven.lock() + PROOF_LASTS).saturating_duration_since(Instant::now())
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
            () = self.renew_certificate(gateway) => Ended::Closed("its certificate has ended".to_owned()),
            () = self.bury_orphans(gateway) => Ended::Connection,
        }
    }

    /// Tells of results that have no resource any more, again and again until whoever leads has let the agent forget them. What never
    /// ran is forgotten without a word. Never ends.
    async fn bury_orphans(self: &Arc<Self>, gateway: &Gateway) {
        loop {
            let over: Vec<OperationReport> = {
                let (mut orphans, reports) = (self.orphans.lock(), self.reports());
                orphans.retain(|uid| reports.get(*uid).is_some());
                orphans.iter().filter_map(|uid| reports.get(*uid)).filter(is_over).collect()
            };
            let (results, others): (Vec<_>, Vec<_>) = over.into_iter().partition(has_result);
            for report in results.into_iter().take(MOST_ORPHANS_TOLD) {
                gateway.announce(LinkEvent::Orphaned(self.identity.uid, Box::new(report)));
            }
            let uids: Vec<Uuid> = others.iter().filter_map(|report| report.uid.parse().ok()).collect();
            let token = gateway.parts.authority.token();
            if let (false, Some(token)) = (uids.is_empty(), token)
                && let Err(error) = Box::pin(gateway.forget(self.identity.uid, token, &uids, 0)).await
            {
                tracing::debug!(%error, "the agent does not forget what nobody knows");
            }
            if self.orphans.lock().is_empty() {
                return std::future::pending().await;
            }
            tokio::time::sleep(ORPHANS_CHECK).await;
        }
    }

    /// A round trip every few seconds, so that the agent knows that it may start things.
    async fn prove_life(&self, every: Duration, patience: Duration) -> LinkError {
        let mut timer = tokio::time::interval(every);
        timer.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut sessions = calls::sessions(self.grpc.clone());
        loop {
            timer.tick().await;
            let nonce = {
                let nonce = self.nonce.lock();
                // Whatever becomes of the call, it may arrive.
                *self.proven.lock() = nonce.came;
                nonce.bytes.clone()
            };
            // Boxed here and below: a call is much larger than what is waited for meanwhile.
            match Box::pin(calls::within(patience, sessions.renew(RenewRequest { nonce }))).await {
                Ok(renewed) => *self.nonce.lock() = Nonce { bytes: renewed.nonce, came: Instant::now() },
                Err(error) => return error,
            }
        }
    }

    async fn follow_operations(&self, gateway: &Gateway) -> LinkError {
        let mut operations = calls::operations(self.grpc.clone());
        let mut stream = match Box::pin(operations.watch(WatchRequest {})).await {
            Ok(response) => response.into_inner(),
            Err(status) => return status.into(),
        };
        let mut pace = tokio::time::interval(REPORTS_PAUSE);
        pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
        for number in 1_u64.. {
            if number.is_multiple_of(REPORTS_AT_ONCE) {
                pace.tick().await;
            }
            match stream.message().await {
                Ok(Some(message)) => {
                    let Some(report) = message.report else { continue };
                    if let (true, Ok(operation)) = (report.forgotten, report.uid.parse()) {
                        self.reports.lock().forget(&[operation]);
                        gateway.announce(LinkEvent::Forgotten(self.identity.uid, vec![operation]));
                    } else if let Some(operation) = self.reports.lock().take(report) {
                        gateway.announce(LinkEvent::Reported(self.identity.uid, operation));
                    }
                }
                Ok(None) => return LinkError::Silent("it stopped reporting".to_owned()),
                Err(status) => return status.into(),
            }
        }
        LinkError::Silent("it reported more often than can be counted".to_owned())
    }

    async fn follow_host(&self, gateway: &Gateway) -> LinkError {
        let mut docker = calls::docker(self.grpc.clone());
        let mut stream = match Box::pin(docker.watch_changes(WatchChangesRequest {})).await {
            Ok(response) => response.into_inner(),
            Err(status) => return status.into(),
        };
        loop {
            match stream.message().await {
                Ok(Some(_)) => {
                    gateway.announce(LinkEvent::HostChanged(self.identity.uid));
                    // What comes meanwhile waits at the agent, which tells of it once.
                    tokio::time::sleep(CHANGES_PAUSE).await;
                }
                Ok(None) => return LinkError::Silent("it stopped telling of changes".to_owned()),
                Err(status) => return status.into(),
            }
        }
    }

    /// A renewal that fails is tried again at the next look. Ends when the certificate does.
    async fn renew_certificate(&self, gateway: &Gateway) {
        let lifetime = gateway.parts.timing.certificate;
        let mut timer = tokio::time::interval(CERTIFICATE_CHECK.min(lifetime.unsigned_abs().div_f64(12.0)));
        loop {
            timer.tick().await;
            let ends = self.facts().map_or(i64::MAX, |facts| facts.certificate_expires_at);
            let left = ends - gateway.parts.clock.now().as_second();
            if left > lifetime.as_secs() / 3 {
                continue;
            }
            if left <= 0 {
                return;
            }
            // Boxed, as it is needed once in weeks.
            match Box::pin(self.exchange_certificate(gateway)).await {
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
        let AgentIdentity { namespace, name, uid, key_fingerprint, .. } = &self.identity;
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
        if let Some(facts) = self.facts.lock().as_mut() {
            facts.certificate_expires_at = signed.expires_at.as_second();
        }
        Ok(())
    }
}

fn is_over(report: &OperationReport) -> bool {
    matches!(report.state(), OperationState::Finished | OperationState::Withdrawn | OperationState::Tombstone)
}

/// True of a result, also if the agent has kept no more of it than that.
fn has_result(report: &OperationReport) -> bool {
    matches!(report.state(), OperationState::Finished | OperationState::Tombstone)
}

/// The uids as the protocol writes them.
pub(super) fn as_text(uids: &[Uuid]) -> Vec<String> {
    uids.iter().map(Uuid::to_string).collect()
}
