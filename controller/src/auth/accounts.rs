//! Whether what a token is bound to still exists: its ServiceAccount, and its Secret where it names one.
//!
//! Asked for every request, of memory that has caught up with the database: who deletes an account is told so once it is gone, and from
//! then on no replica takes its tokens.

use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use serde::Deserialize;

use super::tokens::{Bound, Claims, Reference, Refusal, Tokens};
use super::{Caller, Rights};
use crate::clock::SharedClock;
use crate::storage::{Key, Object, Resource, Store};

/// Longest a request waits for the database to say that memory is current.
const PATIENCE: Duration = Duration::from_secs(2);
/// As in Kubernetes: while finalizers hold it, what is being deleted counts for this long.
const GRACE: SignedDuration = SignedDuration::from_secs(60);
/// Between two looks at what an open stream stands on.
const LOOK: Duration = Duration::from_secs(2);

/// Knows the bearers of tokens. Cheap to clone.
#[derive(Clone)]
pub struct Accounts {
    tokens: Arc<Tokens>,
    store: Store,
    clock: SharedClock,
}

/// Why a bearer is not known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unknown {
    /// The token is none, or no longer one.
    Refused(Refusal),
    /// The database does not answer.
    Undecided,
}

impl Accounts {
    /// Of the store's ServiceAccounts and Secrets.
    pub fn new(tokens: Arc<Tokens>, store: Store, clock: SharedClock) -> Self {
        Self { tokens, store, clock }
    }

    /// The ServiceAccount whose token this is, as of now, and the right by which it is.
    ///
    /// Only what is signed with a key of ours makes the database work.
    pub(super) async fn bearer(&self, token: &str) -> Result<(Caller, Tenure), Unknown> {
        let claims = self.known(self.tokens.verify(token)).await?;
        let caller = Caller::service_account(&claims);
        let right = Right::Account { accounts: self.clone(), claims: Arc::new(claims) };
        Ok((caller, Tenure(right)))
    }

    /// Who the token is for these audiences, and for which of them.
    pub(super) async fn review(
        &self,
        token: &str,
        audiences: &[String],
    ) -> Result<(Caller, Vec<String>), Unknown> {
        let claims = self.known(self.tokens.verify_for(token, audiences)).await?;
        let caller = Caller::service_account(&claims);
        Ok((caller, claims.aud.into_iter().filter(|audience| audiences.contains(audience)).collect()))
    }

    async fn known(&self, verified: Result<Claims, Refusal>) -> Result<Claims, Unknown> {
        let claims = verified.map_err(Unknown::Refused)?;
        match tokio::time::timeout(PATIENCE, self.store.caught_up()).await {
            Ok(Ok(_)) => {}
            Ok(Err(_)) | Err(_) => return Err(Unknown::Undecided),
        }
        self.stands(&claims).map_err(Unknown::Refused)?;
        Ok(claims)
    }

    pub(super) fn tokens(&self) -> &Arc<Tokens> {
        &self.tokens
    }

    pub(super) fn clock(&self) -> &SharedClock {
        &self.clock
    }

    pub(super) fn store(&self) -> &Store {
        &self.store
    }

    /// By what is in memory.
    fn stands(&self, claims: &Claims) -> Result<(), Refusal> {
        let now = self.clock.now();
        let Bound { namespace, serviceaccount, secret } = &claims.bound;
        if claims.is_over(now) {
            return Err(Refusal::Expired);
        }
        if !self.exists("serviceaccounts", namespace, serviceaccount, now) {
            return Err(Refusal::AccountGone);
        }
        match secret {
            Some(secret) if !self.exists("secrets", namespace, secret, now) => Err(Refusal::SecretGone),
            _ => Ok(()),
        }
    }

    fn exists(&self, resource: &str, namespace: &str, reference: &Reference, now: Timestamp) -> bool {
        let key = Key {
            resource: Resource(resource.into()),
            namespace: namespace.into(),
            name: reference.name.as_str().into(),
        };
        let object = self.store.cache().get(&key);
        object.is_some_and(|object| {
            reference.uid.parse() == Ok(object.uid)
                && deleted(&object).is_none_or(|since| now.duration_since(since) <= GRACE)
        })
    }
}

/// Since when it is being deleted.
fn deleted(object: &Object) -> Option<Timestamp> {
    #[derive(Deserialize)]
    struct Head {
        metadata: Metadata,
    }
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Metadata {
        deletion_timestamp: Option<Timestamp>,
    }
    serde_json::from_slice::<Head>(&object.json).ok()?.metadata.deletion_timestamp
}

/// For how long a bearer is who it is: what outlasts a request holds on to it.
#[derive(Clone)]
pub struct Tenure(Right);

/// By what.
#[derive(Clone)]
enum Right {
    /// While the token and what it is bound to last.
    Account { accounts: Accounts, claims: Arc<Claims> },
    /// Up to that second.
    Until { ends: i64, clock: SharedClock },
    /// While there is no administrator but who starts it all.
    FirstAdmin(Rights),
}

impl Tenure {
    /// One that ends in that second and with nothing else.
    pub(super) fn until(ends: i64, clock: SharedClock) -> Self {
        Self(Right::Until { ends, clock })
    }

    /// That of the first administrator's token.
    pub(super) fn first_admin(rights: Rights) -> Self {
        Self(Right::FirstAdmin(rights))
    }

    /// Returns soon after the token or the certificate has ended, or the account or the Secret is gone.
    pub async fn ended(&self) {
        while self.lasts() {
            tokio::time::sleep(LOOK).await;
        }
    }

    /// True if it has not ended yet.
    pub(super) fn lasts(&self) -> bool {
        match &self.0 {
            Right::Account { accounts, claims } => accounts.stands(claims).is_ok(),
            Right::Until { ends, clock } => clock.now().as_second() < *ends,
            Right::FirstAdmin(rights) => !rights.has_admin(),
        }
    }
}

#[cfg(test)]
mod tests;
