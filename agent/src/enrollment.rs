//! How a new agent gets its certificate: one call over TLS with a pinned CA. Renewal needs none: the controller asks for a
//! request and hands over the certificate in a session.

pub mod certificate;
pub mod key;
pub mod pin;
pub mod token;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use gantry_api::enrollment::{EnrollFailure, EnrollFailureReason, EnrollRequest, EnrollResponse};
use gantry_api::names::ENROLL_PATH;
use http::header::{CONTENT_TYPE, HOST, RETRY_AFTER};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::time::{sleep, timeout};
use tokio_util::task::AbortOnDropHandle;

use self::certificate::{CertificateError, Enrolled};
use self::key::{AgentKey, KeyError};
use self::pin::CaHash;
use self::token::{JoinToken, TokenFileError};
use crate::clock::SharedEntropy;
use crate::config::Config;
use crate::session::backoff::Backoff;
use crate::session::dial::{DialError, Dialer, one_line};
use crate::state_dir::StateDir;

const CALL_WITHIN: Duration = Duration::from_secs(30);
const LARGEST_ANSWER: usize = 1 << 20;
/// Somebody must change something first.
const REFUSED_WAIT: Duration = Duration::from_secs(60);

/// Why this host is not enrolled.
#[derive(Debug, thiserror::Error)]
pub enum EnrollError {
    /// There is no token.
    #[error("this host is not enrolled and no join token is given")]
    NoToken,
    /// There is nothing to know the controller by.
    #[error("this host is not enrolled and no CA hash is given")]
    NoCaHash,
    /// The token's file.
    #[error(transparent)]
    TokenFile(#[from] TokenFileError),
    /// The key.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// No connection.
    #[error("the controller at {0} cannot be reached")]
    Dial(String, #[source] DialError),
    /// Another CA than the pinned one.
    #[error("what answers at {0} does not show the CA whose hash is {1}")]
    OtherCa(String, CaHash),
    /// The controller said no.
    #[error("the controller refused to enrol this host: {0}")]
    Refused(String, EnrollFailureReason, Option<Duration>),
    /// The connection broke or the answer was none.
    #[error("the controller did not answer: {0}")]
    NoAnswer(String),
    /// The certificate is of no use.
    #[error("the controller's answer cannot be used")]
    Certificate(#[from] CertificateError),
}

impl EnrollError {
    /// What to do about it.
    pub fn hint(&self) -> &'static str {
        match self {
            Self::NoToken => "`gantry token create` prints a token for `--token-file` or GANTRY_TOKEN",
            Self::NoCaHash | Self::OtherCa(..) => {
                "`gantry agent install-command` prints the right `--ca-hash`"
            }
            Self::TokenFile(_) => {
                "`--token-file` names a file, or `-` for standard input, that holds what `gantry token create` printed"
            }
            Self::Refused(_, EnrollFailureReason::TokenRefused, _) => {
                "tokens end with their time and their uses, and belong to one namespace: make one with `gantry token create`"
            }
            Self::Refused(..) => {
                "`kubectl describe dockerinstance` shows what the controller knows of this host"
            }
            Self::Key(_) | Self::Certificate(_) => "the state directory must be writable and the agent's own",
            Self::Dial(..) | Self::NoAnswer(_) => "check `--controller` and the network between",
        }
    }

    /// This token will never do.
    pub(crate) fn is_token_refused(&self) -> bool {
        matches!(self, Self::Refused(_, EnrollFailureReason::TokenRefused, _))
    }

    /// How long to wait before the next try, at least; `None` if trying again is of no use.
    pub(crate) fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Dial(..) | Self::NoAnswer(_) => Some(Duration::ZERO),
            Self::Refused(_, reason, asked) => match reason {
                EnrollFailureReason::TokenRefused | EnrollFailureReason::Invalid => None,
                EnrollFailureReason::DuplicateAgent | EnrollFailureReason::InstanceArchived => {
                    Some(asked.unwrap_or_default().max(REFUSED_WAIT))
                }
                EnrollFailureReason::Busy | EnrollFailureReason::Unavailable => {
                    Some(asked.unwrap_or_default())
                }
            },
            _ => None,
        }
    }
}

/// What one host enrols with.
pub struct Enrollment<'a> {
    /// Names, token, pin.
    pub config: &'a Config,
    /// The way there.
    pub dialer: &'a Dialer,
    /// Where the outcome is kept.
    pub state: &'a Arc<StateDir>,
    /// This host's identity.
    pub key: &'a Arc<AgentKey>,
}

impl Enrollment<'_> {
    /// Tries until the controller has decided. Refusals that a person at the controller can lift are waited out.
    pub async fn until_decided(&self, entropy: SharedEntropy) -> Result<Enrolled, EnrollError> {
        let token = self.config.token.read().await?.ok_or(EnrollError::NoToken)?;
        let ca = self.config.ca_hash.ok_or(EnrollError::NoCaHash)?;
        let mut backoff = Backoff::new(entropy);
        loop {
            let error = match self.once(&token, ca).await {
                Ok(enrolled) => return Ok(enrolled),
                Err(error) => error,
            };
            let Some(asked) = error.retry_after() else { return Err(error) };
            let wait = backoff.wait(Some(asked));
            let retry_in_ms = u64::try_from(wait.as_millis()).unwrap_or(u64::MAX);
            tracing::warn!(error = one_line(&error), retry_in_ms, "not enrolled yet");
            sleep(wait).await;
        }
    }

    /// One call.
    pub async fn once(&self, token: &JoinToken, ca: CaHash) -> Result<Enrolled, EnrollError> {
        let controller = self.dialer.controller();
        let (connection, _) = self.dialer.enrollment(ca).await.map_err(|error| {
            if error.is_other_ca() {
                EnrollError::OtherCa(controller.to_string(), ca)
            } else {
                EnrollError::Dial(controller.to_string(), error)
            }
        })?;
        let request = EnrollRequest {
            token: token.reveal().to_owned(),
            namespace: self.config.namespace.clone(),
            instance: self.config.instance.clone(),
            csr_pem: self.key.request()?,
            agent_version: env!("CARGO_PKG_VERSION").to_owned(),
        };
        let authority = controller.authority();
        let call = call(connection, &authority, &request);
        let late = |_| EnrollError::NoAnswer(format!("it took more than {CALL_WITHIN:?}"));
        let answer = timeout(CALL_WITHIN, call).await.map_err(late)??;
        let names = (self.config.namespace.as_str(), self.config.instance.as_str());
        let enrolled = Enrolled::keep(self.state.clone(), self.key.clone(), names, &answer)?;
        tracing::info!(instance.uid = %enrolled.identity().instance_uid, "enrolled");
        Ok(enrolled)
    }
}

async fn call(
    connection: Box<dyn crate::session::dial::Connection>,
    authority: &str,
    request: &EnrollRequest,
) -> Result<EnrollResponse, EnrollError> {
    let no_answer = |error: &dyn std::error::Error| EnrollError::NoAnswer(one_line(error));
    let (mut sender, driver) =
        http1::handshake(TokioIo::new(connection)).await.map_err(|error| no_answer(&error))?;
    let _driver = AbortOnDropHandle::new(tokio::spawn(driver));
    let body = serde_json::to_vec(request).expect("strings are JSON");
    let request = http::Request::post(ENROLL_PATH)
        .header(HOST, authority)
        .header(CONTENT_TYPE, "application/json")
        .body(Full::new(Bytes::from(body)))
        .map_err(|error| no_answer(&error))?;
    let answer = sender.send_request(request).await.map_err(|error| no_answer(&error))?;
    let status = answer.status();
    let asked = answer
        .headers()
        .get(RETRY_AFTER)
        .and_then(|value| value.to_str().ok()?.parse().ok())
        .map(Duration::from_secs);
    let body = Limited::new(answer.into_body(), LARGEST_ANSWER).collect().await;
    let body = body.map_err(|error| no_answer(&*error))?.to_bytes();
    if status.is_success() {
        return serde_json::from_slice(&body).map_err(|error| no_answer(&error));
    }
    match serde_json::from_slice::<EnrollFailure>(&body) {
        Ok(failure) => Err(EnrollError::Refused(failure.message, failure.reason, asked)),
        Err(_) => Err(EnrollError::NoAnswer(format!("it said HTTP {status}"))),
    }
}
