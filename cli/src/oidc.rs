//! Signing in with an OpenID Connect issuer, and tokens from then on.
//!
//! The token that a controller is shown is the ID token: it is for our client, which is the audience that the controller knows. It
//! comes straight from the issuer over TLS, and the controller verifies its signature; here only what the flow needs is looked at.

mod code;
mod device;
mod session;

use std::path::Path;

use anyhow::Context as _;
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use bytes::Bytes;
use http::{HeaderValue, StatusCode};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::client::encoded;
use crate::clock;
use crate::output::failure::{Ends, Hinted};
use crate::output::plain::plain;
use crate::web::Web;
pub(crate) use code::{Browser, is_likely};
pub(crate) use session::{Session, of_exec};

/// An issuer, and as what we are known to it.
pub(crate) struct Issuer {
    url: String,
    client_id: String,
    /// `Authorization` of a client that has a secret.
    authorization: Option<HeaderValue>,
    web: Web,
    endpoints: Endpoints,
}

/// What its discovery document says.
#[derive(Debug, Deserialize)]
struct Endpoints {
    issuer: String,
    token_endpoint: String,
    #[serde(default)]
    authorization_endpoint: Option<String>,
    #[serde(default)]
    device_authorization_endpoint: Option<String>,
}

/// What an issuer gives.
#[derive(Clone, Deserialize, Serialize)]
pub(crate) struct Tokens {
    pub(crate) id_token: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    refresh_token: Option<String>,
}

impl std::fmt::Debug for Tokens {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Tokens(…)")
    }
}

/// Why an issuer gives none.
#[derive(Debug, Default, Deserialize)]
struct Refusal {
    #[serde(default)]
    error: String,
    #[serde(default)]
    error_description: String,
}

impl Refusal {
    /// In its own words.
    fn said(&self) -> String {
        match (&*self.error, &*self.error_description) {
            ("", "") => "it does not say why".to_owned(),
            (error, "") => plain(error),
            (_, description) => plain(description),
        }
    }
}

impl Issuer {
    /// Asks it where its endpoints are.
    pub(crate) async fn discover(
        url: &str,
        client_id: &str,
        secret_file: Option<&Path>,
        authority: Option<&Path>,
    ) -> anyhow::Result<Self> {
        let authorization = secret_file.map(|file| basic(client_id, file)).transpose()?;
        let web = authority.map_or_else(|| Ok(Web::default()), Web::trusting)?;
        let document = format!("{}/.well-known/openid-configuration", url.trim_end_matches('/'));
        let said = web.get(&document).await.context("the issuer cannot be asked")?;
        let endpoints: Endpoints = serde_json::from_slice(&said)
            .with_context(|| format!("{} is no OpenID Connect issuer", plain(url)))?;
        if endpoints.issuer != url {
            let what =
                format!("the issuer calls itself {}, and not {}", plain(&endpoints.issuer), plain(url));
            return Err(Hinted::new(Ends::Misunderstood, what).hint("give it letter by letter").into());
        }
        Ok(Self { url: url.to_owned(), client_id: client_id.to_owned(), authorization, web, endpoints })
    }

    /// Posts a form as the client that we are.
    async fn post(&self, endpoint: &str, form: &[(&str, &str)]) -> anyhow::Result<(StatusCode, Bytes)> {
        let us = Some(("client_id", &*self.client_id)).filter(|_| self.authorization.is_none());
        let form: Vec<_> = form.iter().copied().chain(us).collect();
        self.web.post(endpoint, &form, self.authorization.clone()).await
    }

    /// Asks for tokens; the inner error is the issuer's own.
    async fn tokens(&self, form: &[(&str, &str)]) -> anyhow::Result<Result<Tokens, Refusal>> {
        let (status, said) = self.post(&self.endpoints.token_endpoint, form).await?;
        if status == StatusCode::OK {
            let tokens: Tokens = serde_json::from_slice(&said)
                .map_err(|_| Hinted::new(Ends::Failed, "the issuer gives no ID token"))?;
            return Ok(Ok(tokens));
        }
        Ok(Err(serde_json::from_slice(&said).unwrap_or_default()))
    }

    /// True for tokens of this issuer, for us, of this very flow, that have not ended. Says when they end.
    fn check(&self, tokens: &Tokens, nonce: Option<&str>) -> anyhow::Result<Timestamp> {
        let claims = claims(&tokens.id_token).context("the issuer's ID token cannot be read")?;
        let text = |name: &str| claims.get(name).and_then(Value::as_str);
        let is_for_us = match claims.get("aud") {
            Some(Value::Array(all)) => all.iter().any(|one| *one == *self.client_id),
            Some(one) => *one == *self.client_id,
            None => false,
        };
        let wrong = |why: &str| Hinted::new(Ends::NotAllowed, format!("the issuer's ID token {why}"));
        if text("iss") != Some(&self.url) {
            return Err(wrong("is another issuer's").into());
        }
        if !is_for_us {
            return Err(wrong("is for another client").into());
        }
        if nonce.is_some() && text("nonce") != nonce {
            return Err(wrong("is not of this sign-in").into());
        }
        let ends = expiry(&tokens.id_token).ok_or_else(|| wrong("has no end"))?;
        if ends <= clock::now() {
            return Err(wrong("has ended already").hint("is the clock of this machine right?").into());
        }
        Ok(ends)
    }
}

/// A client with the secret in a file, as RFC 6749 has it in section 2.3.1: both encoded for a form first.
fn basic(client_id: &str, secret_file: &Path) -> anyhow::Result<HeaderValue> {
    let shown = secret_file.display();
    let secret = std::fs::read_to_string(secret_file).with_context(|| format!("cannot read {shown}"))?;
    let pair = format!("{}:{}", encoded(client_id), encoded(secret.trim()));
    let mut value = HeaderValue::from_str(&format!("Basic {}", STANDARD.encode(pair)))?;
    value.set_sensitive(true);
    Ok(value)
}

/// What a token says; nobody has verified it.
fn claims(token: &str) -> Option<Value> {
    let payload = token.split('.').nth(1)?;
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(payload.trim_end_matches('=')).ok()?).ok()
}

/// When a token ends.
pub(crate) fn expiry(token: &str) -> Option<Timestamp> {
    let claims = claims(token)?;
    let ends = claims.get("exp")?;
    let ends = ends.as_i64().or_else(|| ends.as_f64().map(|ends| ends as i64))?;
    Timestamp::from_second(ends).ok()
}

/// Letters that stand in a URL as they are.
fn random_text() -> String {
    URL_SAFE_NO_PAD.encode(clock::random::<32>())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn token(claims: &Value) -> Tokens {
        let payload = URL_SAFE_NO_PAD.encode(claims.to_string());
        Tokens { id_token: format!("e30.{payload}.sig"), refresh_token: Some("secret".to_owned()) }
    }

    fn issuer() -> Issuer {
        Issuer {
            url: "https://login.example".to_owned(),
            client_id: "gantry".to_owned(),
            authorization: None,
            web: Web::default(),
            endpoints: Endpoints {
                issuer: String::new(),
                token_endpoint: String::new(),
                authorization_endpoint: None,
                device_authorization_endpoint: None,
            },
        }
    }

    #[test]
    fn a_token_of_another_issuer_client_flow_or_time_is_refused() {
        let later = clock::now().as_second() + 600;
        let good = json!({"iss": "https://login.example", "aud": "gantry", "exp": later, "nonce": "n"});
        let check =
            |claims: &Value, nonce| issuer().check(&token(claims), nonce).map(Timestamp::as_second).ok();
        assert_eq!(check(&good, Some("n")), Some(later));
        assert_eq!(check(&good, None), Some(later));

        let with = |name: &str, value: Value| {
            let mut claims = good.clone();
            claims[name] = value;
            claims
        };
        assert_eq!(check(&with("aud", json!(["other", "gantry"])), Some("n")), Some(later));
        for claims in [
            with("iss", json!("https://login.example/")),
            with("aud", json!("other")),
            with("aud", json!(["other"])),
            with("exp", json!(1)),
            with("exp", Value::Null),
            with("nonce", json!("other")),
            json!({}),
        ] {
            assert_eq!(check(&claims, Some("n")), None, "{claims}");
        }
    }

    #[test]
    fn a_client_with_a_secret_says_both_encoded() {
        let dir = tempfile::tempdir().expect("a directory");
        let file = dir.path().join("secret");
        std::fs::write(&file, "s:e cret\n").expect("written");

        let value = basic("gantry", &file).expect("a header");

        assert_eq!(value.to_str().ok(), Some("Basic Z2FudHJ5OnMlM0FlJTIwY3JldA=="));
        assert_eq!(format!("{value:?}"), "Sensitive");
        assert!(basic("gantry", &dir.path().join("nothing")).is_err());
    }

    #[test]
    fn tokens_are_in_no_debug_output() {
        assert_eq!(format!("{:?}", token(&json!({}))), "Tokens(…)");
    }
}
