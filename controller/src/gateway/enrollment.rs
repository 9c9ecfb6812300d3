//! From a join token to a certificate.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::net::SocketAddr;

use gantry_api::enrollment::{EnrollFailure, EnrollFailureReason, EnrollRequest, EnrollResponse};
use gantry_api::v1alpha1::DockerInstance;
use jiff::Timestamp;
use kube::ResourceExt as _;
use sha2::{Digest as _, Sha256};
use tokio::sync::MutexGuard;

use super::Gateway;
use super::directory::{DirectoryError, StoredToken};
use super::link::{DuplicateRefusal, InstanceUid};
use crate::audit::{Enrollment, Outcome};
use crate::pki::{AgentRequest, PkiError, hex};

/// Longest name of a namespace, and of an instance.
const LONGEST_LABEL: usize = 63;
const LONGEST_NAME: usize = 253;
/// How often a write that met another one is tried again.
const TRIES: usize = 5;

/// Enrolments under way of names that fall together wait for each other.
const LANES: usize = 64;

/// One at a time for a name. For an instance's, so that who comes second sees whom it belongs to before a use is counted; for a
/// token's, so that a fleet that comes with one token does not refuse one another.
#[derive(Debug)]
pub(super) struct Lanes([tokio::sync::Mutex<()>; LANES]);

impl Lanes {
    pub(super) fn new() -> Self {
        Self(std::array::from_fn(|_| tokio::sync::Mutex::default()))
    }

    async fn enter(&self, namespace: &str, name: &str) -> Option<MutexGuard<'_, ()>> {
        let mut hasher = DefaultHasher::new();
        (namespace, name).hash(&mut hasher);
        let lane = usize::try_from(hasher.finish() % LANES as u64).unwrap_or_default();
        Some(self.0.get(lane)?.lock().await)
    }
}

/// An instance was not taken after the token's use was counted.
enum Untaken {
    /// It is certain that nothing came of it.
    Surely(EnrollFailure),
    /// The API did not say.
    Perhaps(EnrollFailure),
}

impl From<EnrollFailure> for Untaken {
    fn from(why: EnrollFailure) -> Self {
        Self::Surely(why)
    }
}

impl From<DirectoryError> for Untaken {
    fn from(error: DirectoryError) -> Self {
        match error {
            DirectoryError::Unavailable(_) => Self::Perhaps(error.into()),
            DirectoryError::Conflict | DirectoryError::Invalid(_) => Self::Surely(error.into()),
        }
    }
}

/// What is known of the token somebody shows.
enum Shown {
    /// It can be used.
    Valid(StoredToken),
    /// There is none of that id: used up, or never made.
    Gone,
    /// It cannot be used.
    Wrong,
}

impl Gateway {
    /// Checks names, signing request, token and whose the instance is, counts the token's use, then registers the instance and binds
    /// it to the key. Who is refused uses nothing up and leaves nothing behind.
    ///
    /// A key that asks again with the token it enrolled with gets its certificate again and uses nothing up.
    pub(super) async fn decide(
        &self,
        request: EnrollRequest,
        from: SocketAddr,
    ) -> Result<EnrollResponse, EnrollFailure> {
        let decided = if self.sources.admit(from.ip()) {
            let decided = self.try_enroll(&request, from).await;
            self.recorded(&request, from, decided).await
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

    /// What was decided, once it is recorded: no certificate is handed out without. Who is only told to come again is not recorded.
    async fn recorded(
        &self,
        request: &EnrollRequest,
        from: SocketAddr,
        decided: Result<EnrollResponse, EnrollFailure>,
    ) -> Result<EnrollResponse, EnrollFailure> {
        let outcome = match decided.as_ref().map_err(|refused| refused.reason) {
            Ok(_) => Outcome::Success,
            Err(EnrollFailureReason::Busy | EnrollFailureReason::Unavailable) => return decided,
            Err(EnrollFailureReason::Invalid) => Outcome::Failure,
            Err(_) => Outcome::Denied,
        };
        let refused = decided.as_ref().err();
        let reason = refused.map(|refused| format!("{:?}", refused.reason)).unwrap_or_default();
        let enrollment = Enrollment {
            id: self.parts.entropy.uuid(),
            at: self.parts.clock.now(),
            source: from.ip(),
            namespace: &request.namespace,
            name: &request.instance,
            token_id: token_id(request),
            outcome,
            reason: &reason,
            message: refused.map(|refused| refused.message.as_str()).unwrap_or_default(),
        };
        let is_stored = self.parts.audit.settle(enrollment.record(), true).await;
        if decided.is_ok() && !is_stored {
            let why = "the audit log cannot be written now, so no certificate is given: try again";
            return Err(failure(EnrollFailureReason::Unavailable, why));
        }
        decided
    }

    async fn try_enroll(
        &self,
        request: &EnrollRequest,
        from: SocketAddr,
    ) -> Result<EnrollResponse, EnrollFailure> {
        check_names(request)?;
        let agent =
            self.parts.pki.check_request(&request.csr_pem).map_err(|error| refused_request(&error))?;
        let _lane = self.lanes.enter(&request.namespace, &request.instance).await;
        let shown = self.shown_token(request).await?;
        let instance = self.parts.directory.instance(&request.namespace, &request.instance).await?;
        if let Some(instance) = &instance
            && !matches!(shown, Shown::Wrong)
            && self.was_answered(instance, token_id(request), &agent)
        {
            self.check_owner(instance, &agent, from)?;
            return self.answer(request, agent, uid_of(instance)?);
        }
        let Shown::Valid(_) = shown else { return Err(refused()) };
        if let Some(instance) = &instance {
            self.check_owner(instance, &agent, from)?;
        }
        let token = self.spend(request).await?;
        match self.take(request, instance, &agent, &token, from).await {
            Ok(uid) => self.answer(request, agent, uid),
            Err(Untaken::Surely(why)) => {
                self.give_back(request, &token).await;
                Err(why)
            }
            // Given back, a use that did bind an instance could bind a second one.
            Err(Untaken::Perhaps(why)) => Err(why),
        }
    }

    fn answer(
        &self,
        request: &EnrollRequest,
        agent: AgentRequest,
        uid: InstanceUid,
    ) -> Result<EnrollResponse, EnrollFailure> {
        let (namespace, instance) = (&request.namespace, &request.instance);
        let lifetime = self.parts.timing.certificate;
        let signed = self.parts.pki.sign_request(agent, namespace, instance, uid, lifetime);
        Ok(EnrollResponse {
            certificate_pem: signed.map_err(|error| refused_request(&error))?.certificate_pem,
            ca_bundle_pem: self.parts.pki.ca_bundle(),
            instance_uid: uid.to_string(),
        })
    }

    /// This very key was given this instance for this token, whose time is not over: the answer may have been lost.
    fn was_answered(&self, instance: &DockerInstance, token_id: &str, agent: &AgentRequest) -> bool {
        let bound = instance.status.as_ref().and_then(|status| status.agent.as_ref());
        bound.is_some_and(|bound| {
            bound.key_fingerprint == agent.key_fingerprint()
                && !token_id.is_empty()
                && bound.join_token.as_deref() == Some(token_id)
                && bound
                    .join_token_expiration_time
                    .as_ref()
                    .is_some_and(|expires| self.parts.clock.now() < expires.0)
        })
    }

    async fn shown_token(&self, request: &EnrollRequest) -> Result<Shown, EnrollFailure> {
        let id = token_id(request);
        if id.is_empty() {
            return Ok(Shown::Wrong);
        }
        let Some(stored) = self.parts.directory.token(&request.namespace, id).await? else {
            return Ok(Shown::Gone);
        };
        let (_, secret) = request.token.split_once('.').unwrap_or_default();
        let hash = hex(&Sha256::digest(secret.as_bytes()));
        let is_valid = is_valid(&stored, &hash, self.parts.clock.now());
        Ok(if is_valid { Shown::Valid(stored) } else { Shown::Wrong })
    }

    async fn instance_for(&self, request: &EnrollRequest) -> Result<DockerInstance, Untaken> {
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
        agent: &AgentRequest,
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
        let Some(owner) = owner(instance).filter(|owner| *owner != agent.key_fingerprint()) else {
            return Ok(());
        };
        tracing::warn!(%from, instance = name, owner, "DuplicateAgent: a second key asks for an instance");
        self.remember_duplicate(
            uid_of(instance)?,
            DuplicateRefusal {
                key_fingerprint: agent.key_fingerprint().to_owned(),
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

    /// Counts one use and says of which state of the token; two agents racing for the last one cannot both have it.
    async fn spend(&self, request: &EnrollRequest) -> Result<StoredToken, EnrollFailure> {
        let _turn = self.token_lanes.enter(&request.namespace, token_id(request)).await;
        for _ in 0..TRIES {
            let Shown::Valid(token) = self.shown_token(request).await? else { return Err(refused()) };
            match self.parts.directory.use_token(&request.namespace, &token).await {
                // Through another replica.
                Err(DirectoryError::Conflict | DirectoryError::Invalid(_)) => {}
                used => return Ok(used.map(|()| token)?),
            }
        }
        Err(failure(EnrollFailureReason::Busy, "many agents use this token at once: try again"))
    }

    /// Nobody else may be told of a failure here: the use is lost then, which harms nobody but the token's owner.
    async fn give_back(&self, request: &EnrollRequest, token: &StoredToken) {
        for _ in 0..TRIES {
            match self.parts.directory.return_use(&request.namespace, token).await {
                Err(DirectoryError::Conflict) => {}
                Err(error) => {
                    return tracing::warn!(%error, "a use of a join token that came to nothing is lost");
                }
                Ok(()) => return,
            }
        }
    }

    /// Binds the instance to the key, and registers it first where there is none.
    async fn take(
        &self,
        request: &EnrollRequest,
        found: Option<DockerInstance>,
        agent: &AgentRequest,
        token: &StoredToken,
        from: SocketAddr,
    ) -> Result<InstanceUid, Untaken> {
        let mut instance = match found {
            Some(instance) => instance,
            None => self.instance_for(request).await?,
        };
        let uid = uid_of(&instance)?;
        for _ in 0..TRIES {
            self.check_owner(&instance, agent, from)?;
            match self.parts.directory.bind(&instance, agent.key_fingerprint(), token).await {
                Err(DirectoryError::Conflict) => {}
                bound => return Ok(bound.map(|()| uid)?),
            }
            instance = match self.parts.directory.instance(&request.namespace, &request.instance).await? {
                Some(again) if uid_of(&again)? == uid => again,
                _ => {
                    let why = "the instance was deleted meanwhile: try again";
                    return Err(failure(EnrollFailureReason::Unavailable, why).into());
                }
            };
        }
        Err(DirectoryError::Conflict.into())
    }
}

/// Both go into paths and a certificate's subject: what the API would not take as a name gets no further.
fn check_names(request: &EnrollRequest) -> Result<(), EnrollFailure> {
    let is_inner = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    let is_label = |text: &str| {
        !text.is_empty() && text.bytes().all(is_inner) && !text.starts_with('-') && !text.ends_with('-')
    };
    let EnrollRequest { namespace, instance, .. } = request;
    let wrong = if namespace.len() > LONGEST_LABEL || !is_label(namespace) {
        ("a namespace", namespace, "lower-case letters, digits and `-`")
    } else if instance.len() > LONGEST_NAME || !instance.split('.').all(is_label) {
        ("an instance", instance, "lower-case letters, digits, `-` and `.`")
    } else {
        return Ok(());
    };
    let (what, name, characters) = wrong;
    let start: String = name.chars().take(LONGEST_LABEL).collect();
    let message = format!(
        "{start:?} cannot be the name of {what}: use {characters}, beginning and ending with a letter or digit"
    );
    Err(failure(EnrollFailureReason::Invalid, &message))
}

/// The public part of the token; empty if it is none.
fn token_id(request: &EnrollRequest) -> &str {
    let (id, _) = request.token.split_once('.').unwrap_or_default();
    if id.len() <= 32 && id.bytes().all(|byte| byte.is_ascii_alphanumeric()) { id } else { "" }
}

fn uid_of(instance: &DockerInstance) -> Result<InstanceUid, EnrollFailure> {
    let uid = instance.uid().and_then(|uid| uid.parse().ok()).map(InstanceUid);
    uid.ok_or_else(|| failure(EnrollFailureReason::Unavailable, "the instance has no uid"))
}

fn refused_request(error: &PkiError) -> EnrollFailure {
    failure(EnrollFailureReason::Invalid, &format!("the signing request is refused: {error}"))
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
