//! Tokens of OpenID Connect issuers: who may issue them, by which keys they are verified, and whom they stand for.
//!
//! A request is judged by what is in memory. The keys are fetched by a task of ours, at the start, every few minutes, and once earlier
//! where a token names a key that is not known; no request asks an issuer. See docs/authentication.md.

mod checks;
mod claims;
mod config;
mod fetch;
mod keys;
#[cfg(test)]
mod tests;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Deserialize;
use serde_json::Value;
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

pub(crate) use self::checks::is_https;
use self::claims::Claims;
pub use self::config::ConfigError;
use self::config::Settings;
use self::fetch::{FetchError, Fetcher};
use self::keys::KeySet;
use super::tokens::LONGEST;
use super::{Caller, Tenure};
use crate::clock::{SharedClock, SharedEntropy};
use crate::telemetry::metrics::Metrics;

/// An issuer's clock may be this far ahead when it says from when on a token is valid, as in Kubernetes. None for when it ends.
const NOT_BEFORE_LEEWAY: i64 = 300;

/// How often issuers are asked, and how long for.
#[derive(Clone, Copy, Debug)]
struct Timing {
    /// Between two fetches, more or less a tenth.
    refresh: Duration,
    /// The same after one that failed.
    retry: Duration,
    /// After a fetch that was made early for an unknown key, and between two of them.
    early: Duration,
    /// Both documents together.
    fetch: Duration,
    /// Longest that a request waits for an early fetch that somebody makes.
    patience: Duration,
}

const TIMING: Timing = Timing {
    refresh: Duration::from_secs(600),
    retry: Duration::from_secs(10),
    early: Duration::from_secs(30),
    fetch: Duration::from_secs(10),
    patience: Duration::from_secs(2),
};

/// Why a token of a configured issuer is nobody's; repeats nothing of it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Refusal {
    #[error("it is no token")]
    Malformed,
    #[error("its header asks for what is not accepted")]
    Header,
    #[error("the keys of its issuer are not known yet")]
    NoKeys,
    #[error("its key is not known, or not for its algorithm")]
    Key,
    #[error("its signature is wrong")]
    Signature,
    #[error("its issuer is another one")]
    Issuer,
    #[error("this API is not among its audiences")]
    Audience,
    #[error("it has expired")]
    Expired,
    #[error("it is not valid yet")]
    NotYet,
    #[error("its claims give no {0}")]
    Claim(&'static str),
    #[error("its `email` is its user name, and `email_verified` is not true")]
    EmailNotVerified,
    #[error("its user or a group of it begins with `system:`, which no issuer can give")]
    Reserved,
    #[error("{place} does not hold: {message}")]
    Rule { place: String, message: String },
}

/// Every issuer of the configuration. Cheap to clone; none by default.
#[derive(Clone, Default)]
pub struct Issuers(Arc<[Issuer]>);

struct Issuer {
    settings: Settings,
    fetcher: Fetcher,
    timing: Timing,
    known: watch::Sender<Known>,
    clock: SharedClock,
    entropy: SharedEntropy,
    metrics: Metrics,
}

/// What is known of an issuer's keys.
#[derive(Clone)]
struct Known {
    keys: Option<Arc<KeySet>>,
    /// Why the last fetch failed, if it did.
    failure: Option<String>,
    /// True from when a fetch is wanted until it has ended.
    is_wanted: bool,
    /// From then on it may be wanted early.
    early_from: Instant,
}

impl Issuers {
    /// The issuers that the file names, which none of `own` may be. Their keys are not known before [`Issuers::keep_keys`] runs.
    pub fn open(
        path: &Path,
        own: &[String],
        clock: &SharedClock,
        entropy: &SharedEntropy,
        metrics: &Metrics,
    ) -> Result<Self, ConfigError> {
        Self::new(config::read(path, own)?, TIMING, clock, entropy, metrics)
    }

    fn new(
        settings: Vec<Settings>,
        timing: Timing,
        clock: &SharedClock,
        entropy: &SharedEntropy,
        metrics: &Metrics,
    ) -> Result<Self, ConfigError> {
        let issuer = |settings: Settings| {
            let fetcher = Fetcher::new(settings.authorities.as_deref())?;
            // Told from the start, so that an alert sees an issuer that never answered.
            metrics.issuer_keys.with_label_values(&[settings.url.as_str()]).set(0);
            let (clock, entropy, metrics) = (clock.clone(), entropy.clone(), metrics.clone());
            let known = watch::Sender::new(Known {
                keys: None,
                failure: None,
                is_wanted: true,
                early_from: Instant::now(),
            });
            Ok(Issuer { settings, fetcher, timing, known, clock, entropy, metrics })
        };
        settings.into_iter().map(issuer).collect::<Result<_, _>>().map(Self)
    }

    /// Keeps the keys of all issuers until told to stop.
    pub async fn keep_keys(self, stop: CancellationToken) {
        let kept = futures::future::join_all(self.0.iter().map(Issuer::keep_keys));
        stop.run_until_cancelled(kept).await;
    }

    /// Says which issuers cannot be relied on, in words fit for everybody.
    pub fn trouble(&self) -> Result<(), String> {
        let troubles: Vec<String> = self.0.iter().filter_map(Issuer::trouble).collect();
        if troubles.is_empty() { Ok(()) } else { Err(troubles.join("; ")) }
    }

    /// Who the token is by the issuer that it names; `None` if that is none of these.
    pub(super) async fn bearer(&self, token: &str) -> Option<Result<(Caller, Tenure), Refusal>> {
        if self.0.is_empty() {
            return None;
        }
        let named = unverified_issuer(token)?;
        let issuer = self.0.iter().find(|issuer| issuer.settings.url == named)?;
        Some(issuer.bearer(token).await)
    }
}

impl Issuer {
    /// Who the token is, and until when.
    async fn bearer(&self, token: &str) -> Result<(Caller, Tenure), Refusal> {
        let claims = self.verify(token).await?;
        let ends = self.check(&claims)?;
        let caller = self.settings.mapping.caller(&claims)?;
        Ok((caller, Tenure::until(ends, self.clock.clone())))
    }

    async fn verify(&self, token: &str) -> Result<Claims, Refusal> {
        let header = keys::header(token)?;
        let verify = || {
            let keys = self.known.borrow().keys.clone();
            keys.ok_or(Refusal::NoKeys)?.verify(token, &header)
        };
        match verify() {
            Err(Refusal::NoKeys | Refusal::Key) if self.wants_keys() => {
                let mut known = self.known.subscribe();
                let fetched = known.wait_for(|known| !known.is_wanted);
                // Whether they came or not, what is known now decides.
                let _ = tokio::time::timeout(self.timing.patience, fetched).await;
                verify()
            }
            verified => verified,
        }
    }

    /// True if a fetch is under way or has been asked for now; one alone, and no earlier than it may be.
    fn wants_keys(&self) -> bool {
        self.known.send_if_modified(|known| {
            let is_asked = !known.is_wanted && Instant::now() >= known.early_from;
            known.is_wanted |= is_asked;
            is_asked
        });
        self.known.borrow().is_wanted
    }

    /// What holds for tokens of every issuer; when it ends.
    fn check(&self, claims: &Claims) -> Result<i64, Refusal> {
        let now = self.clock.now().as_second();
        if claims.get("iss").and_then(Value::as_str) != Some(&self.settings.url) {
            return Err(Refusal::Issuer);
        }
        let is_ours = |audience: &Value| {
            audience
                .as_str()
                .is_some_and(|audience| self.settings.audiences.iter().any(|ours| ours == audience))
        };
        let is_for_us = match claims.get("aud") {
            Some(Value::Array(audiences)) => audiences.iter().any(is_ours),
            Some(audience) => is_ours(audience),
            None => false,
        };
        if !is_for_us {
            return Err(Refusal::Audience);
        }
        let ends = claims.get("exp").and_then(seconds).ok_or(Refusal::Malformed)?;
        if now >= ends {
            return Err(Refusal::Expired);
        }
        match claims.get("nbf").map(seconds) {
            Some(None) => Err(Refusal::Malformed),
            Some(Some(begins)) if now.saturating_add(NOT_BEFORE_LEEWAY) < begins => Err(Refusal::NotYet),
            _ => Ok(ends),
        }
    }

    async fn keep_keys(&self) {
        loop {
            let fetch = self.fetcher.keys(&self.settings.url, &self.settings.discovery);
            let fetched = match tokio::time::timeout(self.timing.fetch, fetch).await {
                Ok(fetched) => fetched,
                Err(_) => Err(FetchError::Slow(self.timing.fetch)),
            };
            let pause = self.record(fetched);
            let mut known = self.known.subscribe();
            tokio::select! {
                () = tokio::time::sleep(pause) => {
                    self.known.send_modify(|known| known.is_wanted = true);
                }
                _ = known.wait_for(|known| known.is_wanted) => {}
            }
        }
    }

    /// Keeps new keys, or those from before; returns how long they are left as they are.
    fn record(&self, fetched: Result<KeySet, FetchError>) -> Duration {
        let (place, issuer) = (self.settings.place.as_str(), self.settings.url.as_str());
        let failed_before = self.known.borrow().failure.clone();
        let failure = fetched.as_ref().err().map(FetchError::chain);
        let is_failing = failure.is_some();
        let outcome = if is_failing { "error" } else { "ok" };
        self.metrics.issuer_fetches.with_label_values(&[issuer, outcome]).inc();
        match (&failed_before, &failure) {
            // Said once, and again if the cause is another one.
            (before, Some(error)) if before.as_ref() != Some(error) => {
                tracing::warn!(place, issuer, error, "the keys of an issuer cannot be fetched");
            }
            (Some(_), None) => tracing::info!(place, issuer, "the keys of an issuer can be fetched again"),
            _ => {}
        }
        if !is_failing {
            self.metrics.issuer_keys.with_label_values(&[issuer]).set(self.clock.now().as_second());
        }
        self.known.send_modify(|known| {
            known.failure = failure;
            known.is_wanted = false;
            known.early_from = Instant::now() + self.timing.early;
            if let Ok(keys) = fetched {
                known.keys = Some(Arc::new(keys));
            }
        });
        let pause = if is_failing { self.timing.retry } else { self.timing.refresh };
        let jitter = self.entropy.below(u64::try_from(pause.as_millis() / 5).unwrap_or(u64::MAX));
        pause * 9 / 10 + Duration::from_millis(jitter)
    }

    fn trouble(&self) -> Option<String> {
        let known = self.known.borrow();
        let place = &self.settings.place;
        match (&known.keys, known.failure.is_some()) {
            (None, _) => Some(format!("the keys of {place} are not known, so its tokens are refused")),
            (Some(_), true) => {
                Some(format!("the keys of {place} cannot be fetched anew, those from before count"))
            }
            (Some(_), false) => None,
        }
    }
}

/// Whose token it says it is, read without proof: who believes it verifies the token by the keys of that issuer.
fn unverified_issuer(token: &str) -> Option<String> {
    #[derive(Deserialize)]
    struct Named {
        iss: String,
    }
    if token.len() > LONGEST {
        return None;
    }
    let claims = URL_SAFE_NO_PAD.decode(token.split('.').nth(1)?).ok()?;
    serde_json::from_slice(&claims).ok().map(|Named { iss }| iss)
}

/// A NumericDate, which may have a fraction.
fn seconds(value: &Value) -> Option<i64> {
    let fraction =
        || value.as_f64().filter(|seconds| seconds.abs() < 1e15).map(|seconds| seconds.floor() as i64);
    value.as_i64().or_else(fraction)
}
