//! From what a connection and a request show to a [`Caller`].

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use gantry_api::names::ADMIN_GROUP;
use http::{HeaderMap, header};
use sha2::{Digest as _, Sha256};

use super::accounts::Unknown;
use super::oidc::Issuers;
use super::tokens::Tokens;
use super::{Accounts, Caller, Rights, Tenure};
use crate::pki::Peer;
use crate::sources::Sources;
use crate::telemetry::metrics::Metrics;

/// How long a source that has shown too many wrong tokens waits for the answer to the next.
const SLOW: Duration = Duration::from_secs(1);

/// Decides who a request is from.
#[derive(Clone)]
pub struct Authenticator {
    admin_token_hash: [u8; 32],
    accounts: Accounts,
    issuers: Issuers,
    rights: Rights,
    metrics: Metrics,
    guesses: Arc<Sources>,
}

/// Who a token is, and for whom it is good.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reviewed {
    /// Its bearer.
    pub caller: Caller,
    /// Those of the asked audiences that it is for.
    pub audiences: Vec<String>,
}

/// Marks a request whose credentials may be good and cannot be judged now.
#[derive(Clone, Copy, Debug)]
pub struct Undecided;

/// What somebody showed to say who they are.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Credentials {
    /// Nothing.
    None,
    /// Something that proves it.
    Proven(Caller),
    /// Something that does not.
    Refused,
    /// Something that cannot be judged while the database does not answer.
    Undecided,
}

impl Authenticator {
    /// Knows the built-in admin by the hash of its bearer token, and ServiceAccounts by theirs.
    pub fn new(admin_token_hash: [u8; 32], accounts: Accounts, metrics: Metrics) -> Self {
        let rights = Rights::new(accounts.store().clone());
        let (issuers, guesses) = (Issuers::default(), Arc::new(Sources::new()));
        Self { admin_token_hash, accounts, issuers, rights, metrics, guesses }
    }

    /// Knows what these issue, too.
    #[must_use]
    pub fn with_issuers(self, issuers: Issuers) -> Self {
        Self { issuers, ..self }
    }

    /// What the tokens of ServiceAccounts are made and verified by.
    pub fn tokens(&self) -> &Arc<Tokens> {
        self.accounts.tokens()
    }

    /// What roles and bindings allow.
    pub fn rights(&self) -> &Rights {
        &self.rights
    }

    /// Who a token is for one of these audiences, those of the API where there are none; `None` if that is nobody.
    pub async fn review(&self, token: &str, audiences: &[String]) -> Result<Option<Reviewed>, Undecided> {
        let own = self.tokens().audiences();
        let asked = if audiences.is_empty() { own } else { audiences };
        match self.accounts.review(token, asked).await {
            Ok((caller, audiences)) => return Ok(Some(Reviewed { caller, audiences })),
            Err(Unknown::Undecided) => return Err(Undecided),
            Err(Unknown::Refused(_)) => {}
        }
        // Whoever else comes in is somebody to the API alone.
        let audiences: Vec<String> =
            asked.iter().filter(|audience| own.contains(audience)).cloned().collect();
        match self.bearer(token).await.0 {
            Credentials::Proven(caller) if !audiences.is_empty() => Ok(Some(Reviewed { caller, audiences })),
            Credentials::Undecided => Err(Undecided),
            _ => Ok(None),
        }
    }

    /// Writes into the request who it is from, as far as that is proven.
    ///
    /// Whoever shows many wrong credentials waits for each answer. Right ones never wait: others may have the same address.
    pub async fn identify<B>(&self, peer: Option<&Peer>, from: IpAddr, request: &mut http::Request<B>) {
        let (credentials, tenure) = self.authenticate(peer, request.headers()).await;
        match credentials {
            Credentials::Proven(caller) => {
                request.extensions_mut().insert(caller);
            }
            Credentials::Undecided => {
                request.extensions_mut().insert(Undecided);
            }
            Credentials::Refused => {
                let is_slowed = !self.guesses.admit(from);
                let label = if is_slowed { "slowed" } else { "answered" };
                self.metrics.credentials_refused.with_label_values(&[label]).inc();
                if is_slowed {
                    tokio::time::sleep(SLOW).await;
                }
            }
            Credentials::None => {}
        }
        if let Some(tenure) = tenure {
            request.extensions_mut().insert(tenure);
        }
    }

    /// A bearer token counts before the connection's certificate: who sends one means to use it.
    ///
    /// A certificate of an agent is no user.
    async fn authenticate(&self, peer: Option<&Peer>, headers: &HeaderMap) -> (Credentials, Option<Tenure>) {
        if let Some(value) = headers.get(header::AUTHORIZATION) {
            let token = value.to_str().ok().and_then(|value| value.split_once(' '));
            return match token {
                Some((scheme, token)) if scheme.eq_ignore_ascii_case("bearer") => {
                    self.bearer(token.trim()).await
                }
                _ => (Credentials::Refused, None),
            };
        }
        match peer {
            Some(Peer::User { name, groups, expires_at }) => {
                // TLS looked at it when the connection was opened, which may be long ago.
                let tenure = Tenure::until(*expires_at, self.accounts.clock().clone());
                if !tenure.lasts() {
                    return (Credentials::Refused, None);
                }
                let caller = Caller::authenticated(name, groups.iter().map(String::as_str));
                (Credentials::Proven(caller), Some(tenure))
            }
            Some(Peer::Agent(_)) => (Credentials::Refused, None),
            None => (Credentials::None, None),
        }
    }

    /// The admin's, by its hash, until there is an administrator of another kind; what names a configured issuer, by that one alone; anything else as of a ServiceAccount.
    async fn bearer(&self, token: &str) -> (Credentials, Option<Tenure>) {
        if self.is_admin_token(token) {
            if self.rights.has_admin() {
                tracing::info!("the token of the first administrator is refused: there is an administrator");
                return (Credentials::Refused, None);
            }
            let admin = Caller::authenticated("gantry-admin", [ADMIN_GROUP]);
            return (Credentials::Proven(admin), Some(Tenure::first_admin(self.rights.clone())));
        }
        if let Some(known) = self.issuers.bearer(token).await {
            return match known {
                Ok((caller, tenure)) => (Credentials::Proven(caller), Some(tenure)),
                Err(why) => {
                    tracing::debug!(%why, "a bearer token of an issuer is refused");
                    (Credentials::Refused, None)
                }
            };
        }
        match self.accounts.bearer(token).await {
            Ok((caller, tenure)) => (Credentials::Proven(caller), Some(tenure)),
            Err(Unknown::Undecided) => (Credentials::Undecided, None),
            Err(Unknown::Refused(why)) => {
                tracing::debug!(%why, "a bearer token is refused");
                (Credentials::Refused, None)
            }
        }
    }

    /// Compares hashes, every byte of them, so that the time taken tells nothing of the token.
    fn is_admin_token(&self, token: &str) -> bool {
        let hash = Sha256::digest(token.as_bytes());
        hash.iter().zip(&self.admin_token_hash).fold(0, |differs, (left, right)| differs | (left ^ right))
            == 0
    }
}

#[cfg(test)]
mod tests {
    use jiff::SignedDuration;
    use tokio::time::timeout;

    use super::*;
    use crate::auth::world::{ADMIN_TOKEN, World};
    use crate::clock::Clock as _;
    use crate::gateway::link::InstanceUid;
    use crate::pki::AgentIdentity;

    async fn shown(world: &World, peer: Option<&Peer>, token: Option<&str>) -> Credentials {
        let value = token.map(|token| format!("Bearer {token}").parse().expect("a header"));
        let headers = HeaderMap::from_iter(value.map(|value| (header::AUTHORIZATION, value)));
        world.authenticator().authenticate(peer, &headers).await.0
    }

    /// Somebody whose certificate lasts that much longer.
    fn user(world: &World, longer: SignedDuration) -> Peer {
        let expires_at = (world.clock.now() + longer).as_second();
        Peer::User { name: "ada".into(), groups: vec![ADMIN_GROUP.into()], expires_at }
    }

    #[tokio::test(start_paused = true)]
    async fn t11_what_a_certificate_or_the_first_administrators_token_has_opened_ends_with_it() {
        let world = World::new().await;
        let soon = Duration::from_secs(5);
        let peer = user(&world, SignedDuration::from_hours(1));
        let authenticator = world.authenticator();
        let (_, by_certificate) = authenticator.authenticate(Some(&peer), &HeaderMap::new()).await;
        let (_, by_token) = authenticator.bearer(ADMIN_TOKEN).await;
        let (by_certificate, by_token) = (by_certificate.expect("it ends"), by_token.expect("it ends"));
        assert!(timeout(soon, by_certificate.ended()).await.is_err(), "it goes on");
        assert!(timeout(soon, by_token.ended()).await.is_err(), "it goes on");

        world.clock.forward(SignedDuration::from_hours(1));
        world.bind("cluster-admin", "User", "ada").await;

        assert!(timeout(soon, by_certificate.ended()).await.is_ok());
        assert!(timeout(soon, by_token.ended()).await.is_ok());
        // On a connection that is older than that, too.
        assert_eq!(shown(&world, Some(&peer), None).await, Credentials::Refused);
    }

    #[tokio::test]
    async fn the_admins_token_is_the_admin_and_any_other_nobody() {
        let world = World::new().await;
        let Credentials::Proven(admin) = shown(&world, None, Some(ADMIN_TOKEN)).await else {
            panic!("the token is right");
        };

        assert!(admin.is_admin());
        assert_eq!(shown(&world, None, Some("secre")).await, Credentials::Refused);
        assert_eq!(shown(&world, None, None).await, Credentials::None);
    }

    #[tokio::test(start_paused = true)]
    async fn t05_who_shows_many_wrong_tokens_waits_for_each_answer_and_who_shows_a_right_one_never() {
        let world = World::new().await;
        let authenticator = world.authenticator();
        let from = IpAddr::from([192, 0, 2, 7]);
        let takes = async |token: &str| {
            let request = http::Request::builder().header(header::AUTHORIZATION, format!("Bearer {token}"));
            let begun = tokio::time::Instant::now();
            let mut request = request.body(()).expect("a request");
            authenticator.identify(None, from, &mut request).await;
            begun.elapsed()
        };

        assert_eq!(takes("guess").await, Duration::ZERO);
        for _ in 0..100 {
            takes("guess").await;
        }

        // One more try is earned while one waits.
        assert!(takes("guess").await + takes("guess").await >= SLOW);
        assert_eq!(takes(ADMIN_TOKEN).await, Duration::ZERO);
        let counted = authenticator.metrics.credentials_refused.with_label_values(&["slowed"]).get();
        assert!(counted >= 20, "{counted}");
    }

    #[tokio::test]
    async fn t06_the_first_administrators_token_ends_once_there_is_an_administrator() {
        let world = World::new().await;
        let works = async || matches!(shown(&world, None, Some(ADMIN_TOKEN)).await, Credentials::Proven(_));

        world.bind("cluster-admin", "Group", ADMIN_GROUP).await;
        world.bind("gantry-viewer", "User", "ada").await;
        assert!(works().await);
        world.bind("cluster-admin", "User", "ada").await;

        assert_eq!(shown(&world, None, Some(ADMIN_TOKEN)).await, Credentials::Refused);
    }

    #[tokio::test]
    async fn a_wrong_token_is_not_mended_by_a_good_certificate() {
        let world = World::new().await;
        let peer = user(&world, SignedDuration::from_hours(1));

        assert_eq!(shown(&world, Some(&peer), Some("wrong")).await, Credentials::Refused);
        assert!(matches!(shown(&world, Some(&peer), None).await, Credentials::Proven(_)));
    }

    #[tokio::test]
    async fn t03_an_agents_certificate_is_no_user() {
        let peer = Peer::Agent(AgentIdentity {
            namespace: "default".into(),
            name: "nuc-01".into(),
            uid: InstanceUid(uuid::Uuid::nil()),
            key_fingerprint: String::new(),
            expires_at: 0,
        });

        assert_eq!(shown(&World::new().await, Some(&peer), None).await, Credentials::Refused);
    }
}
