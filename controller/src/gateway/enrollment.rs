//! From a join token to a certificate.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use gantry_api::enrollment::{EnrollFailure, EnrollFailureReason, EnrollRequest, EnrollResponse};
use gantry_api::v1alpha1::DockerInstance;
use jiff::Timestamp;
use kube::ResourceExt as _;
use parking_lot::Mutex;
use sha2::{Digest as _, Sha256};
use tokio::time::Instant;

use super::Gateway;
use super::directory::{DirectoryError, StoredToken};
use super::link::{DuplicateRefusal, InstanceUid};
use crate::pki::{SignedAgent, hex};

/// Enrolments one address may try in a row, and how fast it may go on.
const BURST: u32 = 60;
const REFILL: Duration = Duration::from_secs(1);
/// Addresses that are remembered.
const MOST_SOURCES: usize = 10_000;
/// How often a write that met another one is tried again.
const TRIES: usize = 5;

/// How often each address has tried, so that tokens cannot be guessed fast.
#[derive(Debug)]
pub(super) struct Sources(Mutex<HashMap<IpAddr, Bucket>>);

#[derive(Clone, Copy, Debug)]
struct Bucket {
    left: u32,
    refilled_at: Instant,
}

impl Sources {
    pub(super) fn new() -> Self {
        Self(Mutex::default())
    }

    /// Counts one try; false if there were too many.
    fn admit(&self, address: IpAddr) -> bool {
        let now = Instant::now();
        let mut sources = self.0.lock();
        if sources.len() >= MOST_SOURCES && !sources.contains_key(&address) {
            sources.retain(|_, bucket| now.duration_since(bucket.refilled_at) < REFILL * BURST);
            if sources.len() >= MOST_SOURCES {
                return false;
            }
        }
        let bucket = sources.entry(address).or_insert(Bucket { left: BURST, refilled_at: now });
        let earned = now.duration_since(bucket.refilled_at).as_secs() / REFILL.as_secs();
        if earned > 0 {
            bucket.left = BURST.min(bucket.left.saturating_add(u32::try_from(earned).unwrap_or(BURST)));
            bucket.refilled_at = now;
        }
        let is_admitted = bucket.left > 0;
        bucket.left = bucket.left.saturating_sub(1);
        is_admitted
    }
}

impl Gateway {
    /// Checks the token and whose the instance is, counts the token's use, then binds the instance to the key. Who is refused
    /// uses nothing up, except who loses a race for the instance: bound first, one use could bind many instances.
    pub(super) async fn decide(
        &self,
        request: EnrollRequest,
        from: SocketAddr,
    ) -> Result<EnrollResponse, EnrollFailure> {
        let decided = if self.sources.admit(from.ip()) {
            self.try_enroll(&request, from).await
        } else {
            Err(failure(EnrollFailureReason::Busy, "too many enrolments from this address: wait a minute"))
        };
        match &decided {
            Ok(_) => {
                tracing::info!(%from, namespace = request.namespace, instance = request.instance, "agent enrolled");
            }
            Err(refused) => {
                self.parts.metrics.agent_refusals.with_label_values(&[label(refused.reason)]).inc();
                tracing::info!(%from, reason = ?refused.reason, "enrolment refused");
            }
        }
        decided
    }

    async fn try_enroll(
        &self,
        request: &EnrollRequest,
        from: SocketAddr,
    ) -> Result<EnrollResponse, EnrollFailure> {
        let token = self.check_token(request).await?;
        let instance = self.instance_for(request).await?;
        let uid = instance.uid().and_then(|uid| uid.parse().ok()).map(InstanceUid);
        let uid = uid.ok_or_else(|| failure(EnrollFailureReason::Unavailable, "the instance has no uid"))?;
        let signed = self
            .parts
            .pki
            .sign_agent(
                &request.csr_pem,
                &request.namespace,
                &request.instance,
                uid,
                self.parts.timing.certificate,
            )
            .map_err(|error| {
                failure(EnrollFailureReason::Invalid, &format!("the signing request is refused: {error}"))
            })?;
        self.check_owner(&instance, uid, &signed, from)?;
        self.spend(request, token).await?;
        self.bind(request, instance, uid, &signed, from).await?;
        Ok(EnrollResponse {
            certificate_pem: signed.certificate_pem,
            ca_bundle_pem: self.parts.pki.ca_bundle(),
            instance_uid: uid.to_string(),
        })
    }

    /// Every way a token can be wrong has the same answer.
    async fn check_token(&self, request: &EnrollRequest) -> Result<StoredToken, EnrollFailure> {
        let (id, secret) = request.token.split_once('.').unwrap_or_default();
        let is_plausible =
            !id.is_empty() && id.len() <= 32 && id.bytes().all(|byte| byte.is_ascii_alphanumeric());
        let stored =
            if is_plausible { self.parts.directory.token(&request.namespace, id).await? } else { None };
        let hash = hex(&Sha256::digest(secret.as_bytes()));
        stored.filter(|stored| is_valid(stored, &hash, self.parts.clock.now())).ok_or_else(refused)
    }

    async fn instance_for(&self, request: &EnrollRequest) -> Result<DockerInstance, EnrollFailure> {
        for _ in 0..TRIES {
            if let Some(instance) =
                self.parts.directory.instance(&request.namespace, &request.instance).await?
            {
                return Ok(instance);
            }
            match self.parts.directory.register(&request.namespace, &request.instance).await {
                Err(DirectoryError::Conflict) => {}
                registered => return Ok(registered?),
            }
        }
        Err(DirectoryError::Conflict.into())
    }

    /// The instance is in service and has no other key.
    fn check_owner(
        &self,
        instance: &DockerInstance,
        uid: InstanceUid,
        signed: &SignedAgent,
        from: SocketAddr,
    ) -> Result<(), EnrollFailure> {
        let name = instance.name_any();
        if instance.metadata.deletion_timestamp.is_some() {
            return Err(failure(
                EnrollFailureReason::Unavailable,
                &format!("instance `{name}` is being deleted: try again"),
            ));
        }
        if instance.spec.archived {
            let message = format!("instance `{name}` is archived: set spec.archived to false first");
            return Err(failure(EnrollFailureReason::InstanceArchived, &message));
        }
        let Some(owner) = owner(instance).filter(|owner| **owner != signed.key_fingerprint) else {
            return Ok(());
        };
        tracing::warn!(%from, instance = name, owner, "DuplicateAgent: a second key asks for an instance");
        self.remember_duplicate(
            uid,
            DuplicateRefusal {
                key_fingerprint: signed.key_fingerprint.clone(),
                same_key: false,
                address: from.ip().to_string(),
            },
        );
        Err(failure(
            EnrollFailureReason::DuplicateAgent,
            &format!(
                "DuplicateAgent: instance `{name}` belongs to another agent's key, which keeps it: enrol this host under \
                 another name with --instance, or delete the instance first if that host is gone for good"
            ),
        ))
    }

    /// Counts one use; two agents racing for the last one cannot both have it.
    async fn spend(&self, request: &EnrollRequest, mut token: StoredToken) -> Result<(), EnrollFailure> {
        for _ in 0..TRIES {
            match self.parts.directory.use_token(&request.namespace, &token).await {
                Err(DirectoryError::Conflict | DirectoryError::Invalid(_)) => {
                    token = self.check_token(request).await?;
                }
                used => return Ok(used?),
            }
        }
        Err(failure(EnrollFailureReason::Busy, "many agents use this token at once: try again"))
    }

    async fn bind(
        &self,
        request: &EnrollRequest,
        mut instance: DockerInstance,
        uid: InstanceUid,
        signed: &SignedAgent,
        from: SocketAddr,
    ) -> Result<(), EnrollFailure> {
        for _ in 0..TRIES {
            if owner(&instance) == Some(&signed.key_fingerprint) {
                return Ok(());
            }
            self.check_owner(&instance, uid, signed, from)?;
            match self.parts.directory.bind(&instance, &signed.key_fingerprint).await {
                Err(DirectoryError::Conflict) => {}
                bound => return Ok(bound?),
            }
            instance = match self.parts.directory.instance(&request.namespace, &request.instance).await? {
                Some(again) if again.uid().as_deref() == Some(&uid.to_string()) => again,
                _ => {
                    return Err(failure(
                        EnrollFailureReason::Unavailable,
                        "the instance was deleted meanwhile: try again",
                    ));
                }
            };
        }
        Err(DirectoryError::Conflict.into())
    }
}

fn owner(instance: &DockerInstance) -> Option<&String> {
    let agent = instance.status.as_ref()?.agent.as_ref()?;
    (!agent.key_fingerprint.is_empty()).then_some(&agent.key_fingerprint)
}

fn is_valid(stored: &StoredToken, hash: &str, now: Timestamp) -> bool {
    // Hashes are compared whole, so that the time taken tells nothing.
    let is_equal = stored.hash.len() == hash.len()
        && stored.hash.bytes().zip(hash.bytes()).fold(0, |differs, (left, right)| differs | (left ^ right))
            == 0;
    is_equal && stored.uses > 0 && stored.expires.parse::<Timestamp>().is_ok_and(|expires| now < expires)
}

fn refused() -> EnrollFailure {
    failure(
        EnrollFailureReason::TokenRefused,
        "the join token is unknown, expired, used up or of another namespace: make a new one with `gantry token create`",
    )
}

fn failure(reason: EnrollFailureReason, message: &str) -> EnrollFailure {
    EnrollFailure { reason, message: message.to_owned() }
}

fn label(reason: EnrollFailureReason) -> &'static str {
    match reason {
        EnrollFailureReason::TokenRefused => "token",
        EnrollFailureReason::DuplicateAgent => "duplicate",
        EnrollFailureReason::InstanceArchived => "archived",
        EnrollFailureReason::Invalid => "invalid",
        EnrollFailureReason::Busy => "busy",
        EnrollFailureReason::Unavailable => "unavailable",
    }
}

impl From<DirectoryError> for EnrollFailure {
    fn from(error: DirectoryError) -> Self {
        let reason = match error {
            DirectoryError::Invalid(_) => EnrollFailureReason::Invalid,
            DirectoryError::Conflict | DirectoryError::Unavailable(_) => EnrollFailureReason::Unavailable,
        };
        failure(reason, &error.to_string())
    }
}
