//! Tokens of ServiceAccounts: made, verified, and the documents by which others verify them.
//!
//! A token is a JWT with the claims of Kubernetes', signed with ES256 and nothing else. Nothing here looks into the store: whether what
//! a token is bound to still exists is for [`accounts`](super::accounts).

use std::collections::HashMap;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jiff::{SignedDuration, Timestamp};
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::clock::{SharedClock, SharedEntropy};
use crate::pki::{PublicKey, TokenKeys};

/// Where verifiers find the keys, below the issuer.
pub const KEYS_PATH: &str = "/openid/v1/jwks";
/// Where verifiers find that, below the issuer.
pub const CONFIGURATION_PATH: &str = "/.well-known/openid-configuration";

/// Longer texts are none of ours, whoever signed them.
pub(super) const LONGEST: usize = 16 << 10;
/// A new token is valid from before now: another replica, whose clock lags, may be asked with it at once.
const CLOCK_SKEW: SignedDuration = SignedDuration::from_secs(60);

/// Who issues tokens where nobody says otherwise.
pub const DEFAULT_ISSUER: &str = "https://gantry.internal";

/// Who issues tokens, and for whom.
#[derive(Clone, Debug)]
pub struct TokenSettings {
    /// The first is the issuer of new tokens; those of all are accepted.
    pub issuers: Vec<String>,
    /// The audiences that the API is; where empty, the issuers.
    pub audiences: Vec<String>,
}

impl Default for TokenSettings {
    fn default() -> Self {
        Self { issuers: vec![DEFAULT_ISSUER.to_owned()], audiences: Vec::new() }
    }
}

/// Issues and verifies.
pub struct Tokens {
    header: Header,
    private: EncodingKey,
    public: HashMap<String, DecodingKey>,
    validation: Validation,
    issuer: String,
    issuers: Vec<String>,
    audiences: Vec<String>,
    configuration: Value,
    keys: Value,
    clock: SharedClock,
    entropy: SharedEntropy,
}

/// What a token says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claims {
    /// Who issued it.
    pub iss: String,
    /// `system:serviceaccount:` with namespace and name.
    pub sub: String,
    /// For whom.
    pub aud: Vec<String>,
    /// The first second at which it is no longer valid.
    pub exp: i64,
    /// When it was issued.
    pub iat: i64,
    /// The first second at which it is valid.
    pub nbf: i64,
    /// Its own id.
    pub jti: String,
    /// What it stands and falls with.
    #[serde(rename = "kubernetes.io")]
    pub bound: Bound,
}

/// What a token stands and falls with. One that is bound to more than we know is none of ours.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Bound {
    /// Of everything below.
    pub namespace: String,
    /// Whose it is.
    pub serviceaccount: Reference,
    /// A Secret with which it ends.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret: Option<Reference>,
}

/// One object, and no later one of its name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reference {
    /// Name.
    pub name: String,
    /// Identity.
    pub uid: String,
}

/// A new token. Printing it does not show it.
pub struct Issued {
    /// For whoever asked, and for no log.
    pub token: String,
    /// When it ends.
    pub expires: Timestamp,
}

impl std::fmt::Debug for Issued {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Issued").field("expires", &self.expires).finish_non_exhaustive()
    }
}

/// Why a text is no token of ours; repeats nothing of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// No JWT, or one with other claims.
    #[error("it is no token of a ServiceAccount")]
    Malformed,
    /// Signed otherwise than with ES256, or asking for what we do not know.
    #[error("its header is none of ours")]
    Header,
    /// Signed with a key that is unknown or that it does not name.
    #[error("its key is not known")]
    Key,
    /// Changed, or signed by somebody else.
    #[error("its signature is wrong")]
    Signature,
    /// Issued by somebody else.
    #[error("its issuer is not accepted")]
    Issuer,
    /// For somebody else.
    #[error("this API is not among its audiences")]
    Audience,
    /// Over.
    #[error("it has expired")]
    Expired,
    /// To come.
    #[error("it is not valid yet")]
    NotYet,
    /// The account is gone, or another one of its name.
    #[error("its ServiceAccount is gone")]
    AccountGone,
    /// The Secret is gone, or another one of its name.
    #[error("the Secret that it is bound to is gone")]
    SecretGone,
}

impl Tokens {
    /// Issues with the first of the keys; verifies by all.
    pub fn new(
        keys: &TokenKeys,
        settings: &TokenSettings,
        clock: SharedClock,
        entropy: SharedEntropy,
    ) -> Self {
        let mut header = Header::new(Algorithm::ES256);
        header.kid = keys.public().first().map(|key| key.id.clone());
        let issuers = settings.issuers.clone();
        let issuer = issuers.first().cloned().unwrap_or_default();
        let audiences =
            if settings.audiences.is_empty() { issuers.clone() } else { settings.audiences.clone() };
        let documents = keys.public().iter().map(document).collect::<Vec<_>>();
        Self {
            header,
            private: EncodingKey::from_ec_der(keys.private()),
            public: keys.public().iter().map(|key| (key.id.clone(), verifier(key))).collect(),
            validation: signature_alone(Algorithm::ES256),
            configuration: json!({
                "issuer": issuer,
                "jwks_uri": format!("{}{KEYS_PATH}", issuer.trim_end_matches('/')),
                "response_types_supported": ["id_token"],
                "subject_types_supported": ["public"],
                "id_token_signing_alg_values_supported": ["ES256"],
            }),
            keys: json!({"keys": documents}),
            issuer,
            issuers,
            audiences,
            clock,
            entropy,
        }
    }

    /// The audiences that the API is.
    pub fn audiences(&self) -> &[String] {
        &self.audiences
    }

    /// The document at [`CONFIGURATION_PATH`].
    pub fn configuration(&self) -> &Value {
        &self.configuration
    }

    /// The document at [`KEYS_PATH`].
    pub fn keys(&self) -> &Value {
        &self.keys
    }

    /// When a token of this lifetime that is issued now ends; `None` beyond all calendars.
    pub fn expiry(&self, lifetime: SignedDuration) -> Option<Timestamp> {
        let now = Timestamp::from_second(self.clock.now().as_second()).ok()?;
        now.checked_add(lifetime).ok()
    }

    /// A token for these audiences until then; `None` where the key cannot sign.
    pub fn issue(&self, bound: Bound, audiences: &[String], expires: Timestamp) -> Option<Issued> {
        let now = self.clock.now().as_second();
        let claims = Claims {
            iss: self.issuer.clone(),
            sub: bound.user(),
            aud: audiences.to_vec(),
            exp: expires.as_second(),
            iat: now,
            nbf: now - CLOCK_SKEW.as_secs(),
            jti: self.entropy.uuid().to_string(),
            bound,
        };
        let token = jsonwebtoken::encode(&self.header, &claims, &self.private).ok()?;
        Some(Issued { token, expires })
    }

    /// What a token says, if it is ours, for us, and valid now. Whether what it is bound to exists is another question.
    pub fn verify(&self, token: &str) -> Result<Claims, Refusal> {
        self.verify_for(token, &self.audiences)
    }

    /// As [`Tokens::verify`], if it is for one of these.
    pub fn verify_for(&self, token: &str, audiences: &[String]) -> Result<Claims, Refusal> {
        if token.len() > LONGEST {
            return Err(Refusal::Malformed);
        }
        let header = jsonwebtoken::decode_header(token).map_err(|_| Refusal::Malformed)?;
        if header.alg != Algorithm::ES256 || header.crit.is_some() {
            return Err(Refusal::Header);
        }
        let key = header.kid.and_then(|id| self.public.get(&id)).ok_or(Refusal::Key)?;
        let claims = jsonwebtoken::decode::<Claims>(token, key, &self.validation)
            .map_err(|error| match error.kind() {
                jsonwebtoken::errors::ErrorKind::InvalidSignature => Refusal::Signature,
                _ => Refusal::Malformed,
            })?
            .claims;
        self.check(&claims, audiences)?;
        Ok(claims)
    }

    fn check(&self, claims: &Claims, audiences: &[String]) -> Result<(), Refusal> {
        let now = self.clock.now();
        if !self.issuers.contains(&claims.iss) {
            Err(Refusal::Issuer)
        } else if !claims.aud.iter().any(|audience| audiences.contains(audience)) {
            Err(Refusal::Audience)
        } else if claims.is_over(now) {
            Err(Refusal::Expired)
        } else if now.as_second() < claims.nbf {
            Err(Refusal::NotYet)
        } else if claims.sub != claims.bound.user() {
            Err(Refusal::Malformed)
        } else {
            Ok(())
        }
    }
}

impl Claims {
    /// True from the second on in which it ends.
    pub fn is_over(&self, now: Timestamp) -> bool {
        now.as_second() >= self.exp
    }
}

impl Bound {
    /// The user that its bearer is.
    pub fn user(&self) -> String {
        format!("system:serviceaccount:{}:{}", self.namespace, self.serviceaccount.name)
    }
}

/// Times, issuer and audiences are ours to check: by our own clock, and not where the library would pass over what is missing.
pub(super) fn signature_alone(algorithm: Algorithm) -> Validation {
    let mut validation = Validation::new(algorithm);
    validation.required_spec_claims.clear();
    validation.validate_exp = false;
    validation.validate_nbf = false;
    validation.validate_aud = false;
    validation
}

fn verifier(key: &PublicKey) -> DecodingKey {
    let point = [&[4], key.x.as_slice(), key.y.as_slice()].concat();
    DecodingKey::from_ec_der(&point)
}

/// A key as JWK.
fn document(key: &PublicKey) -> Value {
    json!({
        "use": "sig",
        "kty": "EC",
        "kid": key.id,
        "crv": "P-256",
        "alg": "ES256",
        "x": URL_SAFE_NO_PAD.encode(key.x),
        "y": URL_SAFE_NO_PAD.encode(key.y),
    })
}

#[cfg(test)]
pub(super) mod tests;
