//! From the verified claims of a token to a [`Caller`].

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::{Map, Value, json};

use super::Refusal;
use crate::auth::{CREDENTIAL_ID, Caller};
use crate::cel::{Expression, Scope};

/// What a token says.
pub(super) type Claims = Map<String, Value>;

/// The claim that is a user name only if another one says that it was verified.
pub(super) const EMAIL: &str = "email";
/// That other one.
pub(super) const EMAIL_VERIFIED: &str = "email_verified";
/// Names that begin so are ours and Kubernetes': no issuer can give them.
pub(super) const RESERVED: &str = "system:";

/// Where a property of the caller comes from.
pub(super) enum Source {
    /// A claim, with this before its value.
    Claim { claim: String, prefix: String },
    /// An expression over `claims`.
    Expression(Expression),
}

/// What must be so; the message is for the log.
pub(super) struct Rule {
    /// Where it stands in the configuration.
    pub place: String,
    pub condition: Condition,
    pub message: String,
}

/// What a rule asks.
pub(super) enum Condition {
    /// A claim is this text.
    Required { claim: String, value: String },
    /// An expression is true.
    Expression(Expression),
}

/// How an issuer's claims become a caller.
pub(super) struct Mapping {
    pub claim_rules: Vec<Rule>,
    pub username: Source,
    pub groups: Option<Source>,
    pub uid: Option<Source>,
    pub extra: Vec<(String, Expression)>,
    pub user_rules: Vec<Rule>,
}

impl Mapping {
    /// Who a token is, by its claims alone.
    pub fn caller(&self, claims: &Claims) -> Result<Caller, Refusal> {
        let scope = Scope::new("claims", &Value::Object(claims.clone()));
        self.claim_rules.iter().try_for_each(|rule| rule.check(claims, &scope))?;
        let username = self.username.username(claims, &scope)?;
        let groups = match &self.groups {
            Some(source) => source.texts(claims, &scope).ok_or(Refusal::Claim("groups"))?,
            None => Vec::new(),
        };
        let uid = match &self.uid {
            Some(source) => Some(source.text(claims, &scope).ok_or(Refusal::Claim("uid"))?),
            None => None,
        };
        let extra = self.extra(claims, &scope)?;
        if username.starts_with(RESERVED) || groups.iter().any(|group| group.starts_with(RESERVED)) {
            return Err(Refusal::Reserved);
        }
        let user = json!({"username": username, "groups": groups, "uid": uid.as_deref().unwrap_or_default(), "extra": extra});
        let scope = Scope::new("user", &user);
        self.user_rules.iter().try_for_each(|rule| rule.check(claims, &scope))?;
        Ok(Caller {
            uid: uid.map(Arc::from),
            extra: Arc::new(extra),
            ..Caller::authenticated(&username, groups.iter().map(String::as_str))
        })
    }

    fn extra(&self, claims: &Claims, scope: &Scope) -> Result<BTreeMap<String, Vec<String>>, Refusal> {
        let mut extra = BTreeMap::new();
        if let Some(id) = claims.get("jti").and_then(Value::as_str).filter(|id| !id.is_empty()) {
            extra.insert(CREDENTIAL_ID.to_owned(), vec![format!("JTI={id}")]);
        }
        for (key, expression) in &self.extra {
            let values = expression.texts(scope).ok_or(Refusal::Claim("extra"))?;
            if !values.is_empty() {
                extra.insert(key.clone(), values);
            }
        }
        Ok(extra)
    }
}

impl Source {
    /// A user has a name, and an address counts as one once it was verified.
    fn username(&self, claims: &Claims, scope: &Scope) -> Result<String, Refusal> {
        if let Self::Claim { claim, .. } = self
            && claim == EMAIL
            && claims.get(EMAIL_VERIFIED) != Some(&Value::Bool(true))
        {
            return Err(Refusal::EmailNotVerified);
        }
        self.text(claims, scope).ok_or(Refusal::Claim("username"))
    }

    /// A text that is not empty, before the prefix.
    fn text(&self, claims: &Claims, scope: &Scope) -> Option<String> {
        let (prefix, text) = match self {
            Self::Claim { claim, prefix } => (prefix.as_str(), claims.get(claim)?.as_str()?.to_owned()),
            Self::Expression(expression) => ("", expression.text(scope)?),
        };
        (!text.is_empty()).then(|| format!("{prefix}{text}"))
    }

    /// Texts; a claim that is not there is none.
    fn texts(&self, claims: &Claims, scope: &Scope) -> Option<Vec<String>> {
        let (claim, prefix) = match self {
            Self::Claim { claim, prefix } => (claim, prefix),
            Self::Expression(expression) => return expression.texts(scope),
        };
        match claims.get(claim) {
            None | Some(Value::Null) => Some(Vec::new()),
            Some(Value::String(text)) => Some(vec![format!("{prefix}{text}")]),
            Some(Value::Array(entries)) => {
                entries.iter().map(|entry| Some(format!("{prefix}{}", entry.as_str()?))).collect()
            }
            Some(_) => None,
        }
    }
}

impl Rule {
    fn check(&self, claims: &Claims, scope: &Scope) -> Result<(), Refusal> {
        let holds = match &self.condition {
            Condition::Required { claim, value } => claims.get(claim).and_then(Value::as_str) == Some(value),
            Condition::Expression(expression) => expression.holds(scope),
        };
        if holds {
            return Ok(());
        }
        Err(Refusal::Rule { place: self.place.clone(), message: self.message.clone() })
    }
}
