//! What the controller may ask in a session: submit, withdraw, query, forget.

use std::sync::Arc;
use std::time::Duration;

use gantry_api::agent_v1::{OperationReport, Outcome, Policy, RegistryAuth, SubmitRequest, Token};
use tokio::sync::OwnedRwLockReadGuard;
use tonic::Code;
use uuid::Uuid;

use super::action::Action;
use super::report;
use super::{Inner, Live, MOST_ENTRIES, Refusal};
use crate::journal::{Accepted, Body, Ledger, Phase, Withdrawn, fingerprint};

/// "At once or never" still takes a moment.
const AT_ONCE: Duration = Duration::from_secs(1);
/// How long Withdraw waits for a pull to stop before it answers that it runs.
const STOP_WITHIN: Duration = Duration::from_secs(5);
const LONGEST_DIGEST: usize = 128;
const LONGEST_NAME: usize = 1024;
/// Docker takes 64 KiB of headers, in which all of it stands in base64.
const LONGEST_CREDENTIAL: usize = 12 << 10;
const LONGEST_RUN_MS: u64 = 8 * 24 * 3600 * 1000;

/// What is known of an attempt that is submitted.
enum Known {
    No,
    As(Box<OperationReport>),
    Otherwise(Refusal),
}

impl Inner {
    pub(super) async fn submit(
        self: &Arc<Self>,
        mut request: SubmitRequest,
        session: u64,
    ) -> Result<OperationReport, Refusal> {
        // Before anything can keep the request.
        let credentials = take_credentials(&mut request)?;
        let uid = parse_uid(&request.uid)?;
        check_limits(&request)?;
        let action = Action::of(&request)?;
        let _authority = self.authority(request.token.take()).await?;
        if !self.may_start() {
            return Err(Refusal::new(Code::Unavailable, "the session is not ready"));
        }
        if !action.is_allowed_by(self.policy) {
            return Err(Refusal::new(
                Code::PermissionDenied,
                format!("the policy of this host ({}) does not allow it", policy_word(self.policy)),
            ));
        }
        let engine_id = self.engine.known_id();
        let start_by = request
            .start_within_ms
            .map(|within| self.clock.since_boot() + Duration::from_millis(within).max(AT_ONCE));

        let _stripe = self.stripe(uid).await;
        self.require_current(session)?;
        match self.journal.read(|ledger| known(ledger, uid, &request)) {
            Known::As(report) => {
                // The controller knows best how much time is left.
                let has_awaited = self.live.lock().get_mut(&uid).is_some_and(|live| {
                    let has_awaited = live.awaits_credentials();
                    live.give(credentials);
                    live.permit(start_by);
                    has_awaited
                });
                if has_awaited {
                    self.changed(uid);
                }
                return Ok(*report);
            }
            Known::Otherwise(refusal) => return Err(refusal),
            Known::No => {}
        }
        let is_one_too_many =
            |ledger: &Ledger| ledger.entry(&uid).is_none() && ledger.entries().len() >= MOST_ENTRIES;
        if self.journal.read(is_one_too_many) {
            return Err(Refusal::new(
                Code::ResourceExhausted,
                format!("{MOST_ENTRIES} operations wait, run or are not yet recorded: try again later"),
            ));
        }
        let mut live = Live::new(&request);
        live.give(credentials);
        live.permit(start_by);
        let at_ms = self.clock.now().as_millisecond();
        let accepted = Accepted { request: Some(request), at_ms, engine_id };
        self.journal.append(vec![Body::Accepted(accepted)]).await?;
        self.live.lock().insert(uid, live);
        let report = self.report(uid);
        self.enqueue(uid, action.exclusion());
        self.changed(uid);
        report.ok_or_else(|| Refusal::new(Code::Internal, "the journal does not show what it just took"))
    }

    pub(super) async fn withdraw(&self, token: Option<Token>, uid: &str) -> Result<OperationReport, Refusal> {
        let uid = parse_uid(uid)?;
        let _authority = self.authority(token).await?;
        {
            let _stripe = self.stripe(uid).await;
            if self.journal.read(|ledger| needs_withdrawing(ledger, &uid)) {
                let withdrawn = Withdrawn { uids: uid.as_bytes().to_vec() };
                self.journal.append(vec![Body::Withdrawn(withdrawn)]).await?;
            }
            self.wake_withdrawn(uid);
        }
        self.changed(uid);
        if self.is_stoppable(uid) {
            // A pull that does not stop in time is told as what it is: started.
            drop(tokio::time::timeout(STOP_WITHIN, self.ended(uid)).await);
        }
        self.report(uid)
            .ok_or_else(|| Refusal::new(Code::Internal, "the journal does not show what it just took"))
    }

    pub(super) fn query(&self, uids: &[String]) -> Result<Vec<OperationReport>, Refusal> {
        let uids = uids.iter().map(|uid| parse_uid(uid)).collect::<Result<Vec<_>, _>>()?;
        Ok(uids.into_iter().filter_map(|uid| self.report(uid)).collect())
    }

    pub(super) async fn forget(
        &self,
        token: Option<Token>,
        uids: &[String],
        recorded_at: u64,
    ) -> Result<(), Refusal> {
        let uids = uids.iter().map(|uid| parse_uid(uid)).collect::<Result<Vec<_>, _>>()?;
        let _authority = self.authority(token).await?;
        let _stripes = self.every_stripe().await;
        let bodies: Vec<_> =
            self.journal.read(|ledger| uids.iter().filter_map(|uid| ledger.bury(uid, recorded_at)).collect());
        if !bodies.is_empty() {
            self.journal.append(bodies).await?;
        }
        // Whoever follows from elsewhere than the one that asked drops them too.
        for uid in uids {
            self.changed(uid);
        }
        Ok(())
    }

    /// Refuses a token lower than the highest seen; makes a higher one durable before anything is done under it.
    pub(super) async fn authority(&self, token: Option<Token>) -> Result<OwnedRwLockReadGuard<()>, Refusal> {
        let token = token.ok_or_else(|| Refusal::new(Code::InvalidArgument, "the request has no token"))?;
        let order = |token: &Token| (token.incarnation, token.epoch);
        let highest = || self.journal.read(|ledger| ledger.token().as_ref().map(order));
        let low = |highest: (u64, u64)| {
            let message = format!(
                "token {}.{} is lower than {}.{}, the highest this agent has seen",
                token.incarnation, token.epoch, highest.0, highest.1
            );
            Refusal::new(Code::FailedPrecondition, message)
        };
        loop {
            let guard = self.authority.clone().read_owned().await;
            match highest() {
                Some(highest) if order(&token) < highest => return Err(low(highest)),
                Some(highest) if order(&token) == highest => return Ok(guard),
                _ => drop(guard),
            }
            let _alone = self.authority.write().await;
            if highest().is_none_or(|highest| highest < order(&token)) {
                self.journal.append(vec![Body::Token(token)]).await?;
            }
        }
    }

    pub(super) fn wake_withdrawn(&self, uid: Uuid) {
        if let Some(live) = self.live.lock().get(&uid) {
            live.withdrawn.cancel();
        }
    }

    /// True for a pull that is under way.
    fn is_stoppable(&self, uid: Uuid) -> bool {
        self.journal.read(|ledger| {
            ledger.entry(&uid).is_some_and(|entry| {
                entry.phase == Phase::Started && matches!(Action::of(&entry.request), Ok(Action::Pull(_)))
            })
        })
    }

    /// Returns once an operation no longer runs.
    async fn ended(&self, uid: Uuid) {
        let mut changes = self.changes.subscribe();
        while self.live(uid).is_some() {
            // A lagging receiver only means that there is something to look at.
            drop(changes.recv().await);
        }
    }
}

/// True unless a withdrawal of it would change nothing.
pub(super) fn needs_withdrawing(ledger: &Ledger, uid: &Uuid) -> bool {
    match (ledger.entry(uid), ledger.tombstone(uid)) {
        (Some(entry), _) => !entry.is_withdrawn,
        (None, Some(stone)) => stone.retryable,
        (None, None) => true,
    }
}

fn known(ledger: &Ledger, uid: Uuid, request: &SubmitRequest) -> Known {
    let (attempt, is_same, retryable, is_withdrawn) = match (ledger.entry(&uid), ledger.tombstone(&uid)) {
        (Some(entry), _) => (
            entry.request.attempt,
            entry.request.digest == request.digest,
            entry.result.as_ref().is_some_and(|result| result.retryable),
            entry.phase == Phase::Withdrawn,
        ),
        (None, Some(stone)) => (
            stone.attempt,
            stone.digest == fingerprint(&request.digest),
            stone.retryable,
            stone.outcome == Outcome::Withdrawn,
        ),
        (None, None) => return Known::No,
    };
    if attempt == request.attempt {
        return match report::report(ledger, uid, None) {
            Some(report) if is_same => {
                Known::As(Box::new(OperationReport { digest: request.digest.clone(), ..report }))
            }
            _ => Known::Otherwise(Refusal::new(
                Code::AlreadyExists,
                format!("attempt {attempt} of operation {uid} is known with another digest"),
            )),
        };
    }
    if is_withdrawn {
        return Known::As(Box::new(report::withdrawn(ledger, uid, request.attempt, &request.digest)));
    }
    if request.attempt > attempt && retryable {
        return Known::No;
    }
    let message = if request.attempt < attempt {
        format!("attempt {} of operation {uid} is over: attempt {attempt} is known", request.attempt)
    } else {
        format!("attempt {attempt} of operation {uid} has not ended in a way that allows another")
    };
    Known::Otherwise(Refusal::new(Code::Aborted, message))
}

/// Takes the credentials out of a request. The registry's address stays, and says that there were some.
fn take_credentials(request: &mut SubmitRequest) -> Result<Option<RegistryAuth>, Refusal> {
    let Some(given) = request.registry_auth.take() else { return Ok(None) };
    let is_too_long = |text: &String| text.len() > LONGEST_CREDENTIAL;
    let invalid = |message: &str| Err(Refusal::new(Code::InvalidArgument, message));
    if [&given.username, &given.password, &given.identity_token].into_iter().any(is_too_long)
        || given.server_address.len() > LONGEST_NAME
    {
        return invalid("the credentials are longer than any can be");
    }
    let is_pull = matches!(
        request.action.as_ref().and_then(|action| action.action.as_ref()),
        Some(gantry_api::agent_v1::action::Action::ImagePull(_))
    );
    if !is_pull {
        return invalid("credentials belong to a pull");
    }
    request.registry_auth =
        Some(RegistryAuth { server_address: given.server_address.clone(), ..RegistryAuth::default() });
    Ok(Some(given))
}

fn check_limits(request: &SubmitRequest) -> Result<(), Refusal> {
    let invalid = |message: &str| Err(Refusal::new(Code::InvalidArgument, message));
    if request.digest.is_empty() || request.digest.len() > LONGEST_DIGEST {
        return invalid("the digest is not one");
    }
    let target = request.target.as_ref();
    if target.is_some_and(|target| target.name.len() > LONGEST_NAME || target.image.len() > LONGEST_NAME)
        || request.required_state.len() > LONGEST_DIGEST
        || request.traceparent.len() > LONGEST_DIGEST
    {
        return invalid("the request holds a text that is longer than any can be");
    }
    if request.attempt == 0 {
        return invalid("attempts are counted from 1");
    }
    if request.run_within_ms > LONGEST_RUN_MS
        || request.start_within_ms.is_some_and(|ms| ms > 400 * LONGEST_RUN_MS)
    {
        return invalid("a deadline is further away than any can be");
    }
    Ok(())
}

pub(super) fn parse_uid(text: &str) -> Result<Uuid, Refusal> {
    text.parse().map_err(|_| Refusal::new(Code::InvalidArgument, format!("`{text}` is not a uid")))
}

pub(crate) fn policy_word(policy: Policy) -> &'static str {
    match policy {
        Policy::Full => "full",
        Policy::Operate => "operate",
        Policy::Observe | Policy::Unspecified => "observe",
    }
}
