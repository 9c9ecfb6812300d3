//! Signing in on another machine: the device flow (RFC 8628).

use std::time::Duration;

use anyhow::Context as _;
use serde::Deserialize;
use tokio::time::{Instant, sleep};

use super::{Issuer, Refusal, Tokens};
use crate::output::failure::{Ends, Hinted};
use crate::output::plain::plain;

/// What the person is to type, and where.
#[derive(Debug, Deserialize)]
struct Begun {
    device_code: String,
    user_code: String,
    verification_uri: String,
    #[serde(default)]
    verification_uri_complete: Option<String>,
    expires_in: u64,
    /// Seconds between two questions.
    #[serde(default = "five")]
    interval: u64,
}

const fn five() -> u64 {
    5
}

impl Issuer {
    /// Waits for the person to sign in, for as long as the issuer does.
    pub(crate) async fn sign_in_elsewhere(&self, scope: &str) -> anyhow::Result<Tokens> {
        let endpoint = self.endpoints.device_authorization_endpoint.as_deref().ok_or_else(|| {
            Hinted::new(Ends::Failed, "the issuer has no device flow").hint("leave --device out")
        })?;
        let (status, said) = self.post(endpoint, &[("scope", scope)]).await?;
        if !status.is_success() {
            let refusal: Refusal = serde_json::from_slice(&said).unwrap_or_default();
            let what = format!("the issuer begins no device flow: {}", refusal.said());
            return Err(Hinted::new(Ends::NotAllowed, what).into());
        }
        let begun: Begun = serde_json::from_slice(&said).context("the issuer's answer cannot be read")?;
        let place = begun.verification_uri_complete.as_deref().unwrap_or(&begun.verification_uri);
        eprintln!("Sign in here, on any machine:\n\n  {}\n", plain(place));
        eprintln!("The code is {}.", plain(&begun.user_code));
        let ends = Instant::now() + Duration::from_secs(begun.expires_in.min(3_600));
        let mut interval = Duration::from_secs(begun.interval.clamp(1, 60));
        loop {
            sleep(interval).await;
            let form = [
                ("grant_type", "urn:ietf:params:oauth:grant-type:device_code"),
                ("device_code", &*begun.device_code),
            ];
            let refusal = match self.tokens(&form).await? {
                Ok(tokens) => {
                    self.check(&tokens, None)?;
                    return Ok(tokens);
                }
                Err(refusal) => refusal,
            };
            match &*refusal.error {
                "authorization_pending" => {}
                "slow_down" => interval += Duration::from_secs(5),
                "expired_token" => return Err(too_late()),
                _ => {
                    let what = format!("nobody was signed in: {}", refusal.said());
                    return Err(Hinted::new(Ends::NotAllowed, what).into());
                }
            }
            if Instant::now() >= ends {
                return Err(too_late());
            }
        }
    }
}

fn too_late() -> anyhow::Error {
    Hinted::new(Ends::TimedOut, "nobody has signed in while the code was good").into()
}
