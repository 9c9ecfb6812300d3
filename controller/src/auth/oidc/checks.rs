//! What a configuration must say, after Kubernetes' rules and a few of ours. All faults are told at once.

use std::collections::BTreeSet;

use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;

use super::claims::{Condition, EMAIL, EMAIL_VERIFIED, Mapping, RESERVED, Rule, Source};
use super::config::{ClaimRule, Extra, File, Issuer, Jwt, Mappings, Prefixed, Settings, UserRule};
use crate::auth::tokens::CONFIGURATION_PATH;
use crate::cel::Expression;

const GROUP: &str = "apiserver.config.k8s.io";
const VERSIONS: [&str; 3] = ["v1", "v1beta1", "v1alpha1"];
const KIND: &str = "AuthenticationConfiguration";
const MATCH_ANY: &str = "MatchAny";
/// As in Kubernetes.
const MOST_ISSUERS: usize = 64;

/// Compiles the file, or says each thing that is wrong with it.
pub(super) fn check(file: File, own: &[String]) -> Result<Vec<Settings>, Vec<String>> {
    let mut faults = Faults(Vec::new());
    let version = file.api_version.split_once('/');
    if !version.is_some_and(|(group, version)| group == GROUP && VERSIONS.contains(&version)) {
        faults.add("apiVersion", format!("is `{}`: write `{GROUP}/v1`", file.api_version));
    }
    if file.kind != KIND {
        faults.add("kind", format!("is `{}`: write `{KIND}`", file.kind));
    }
    if file.jwt.is_empty() || file.jwt.len() > MOST_ISSUERS {
        faults.add("jwt", format!("must name 1 to {MOST_ISSUERS} issuers"));
    }
    let (mut urls, mut discoveries) = (BTreeSet::new(), BTreeSet::new());
    let mut issuers = Vec::new();
    for (number, jwt) in file.jwt.into_iter().enumerate() {
        let place = format!("jwt[{number}]");
        if own.contains(&jwt.issuer.url) {
            let why = "is the issuer of our own ServiceAccounts' tokens, which need no entry: remove it";
            faults.add(&format!("{place}.issuer.url"), why);
        }
        if !urls.insert(jwt.issuer.url.clone()) {
            faults
                .add(&format!("{place}.issuer.url"), "stands there before: write one entry for each issuer");
        }
        let discovery = &jwt.issuer.discovery_url;
        if !discovery.is_empty() && !discoveries.insert(discovery.clone()) {
            let why = "stands there before: issuers have documents of their own";
            faults.add(&format!("{place}.issuer.discoveryURL"), why);
        }
        issuers.extend(faults.jwt(place, jwt));
    }
    if faults.0.is_empty() { Ok(issuers) } else { Err(faults.0) }
}

/// True for `https://host/path` with nothing else: no user, query or fragment.
pub(crate) fn is_https(url: &str) -> bool {
    let is_url = url.parse::<http::Uri>().is_ok_and(|uri| {
        uri.scheme_str() == Some("https") && uri.host().is_some_and(|host| !host.is_empty())
    });
    is_url && !url.contains(['?', '#', '@'])
}

/// What was found so far. Each check adds to it and goes on with what can be used.
struct Faults(Vec<String>);

impl Faults {
    fn add(&mut self, field: &str, fault: impl AsRef<str>) {
        self.0.push(format!("{field} {}", fault.as_ref()));
    }

    fn jwt(&mut self, place: String, jwt: Jwt) -> Option<Settings> {
        let authorities = self.issuer(&format!("{place}.issuer"), &jwt.issuer);
        let rules = format!("{place}.claimValidationRules");
        let claim_rules = self.claim_rules(&rules, jwt.claim_validation_rules);
        let mapping = self.mapping(&format!("{place}.claimMappings"), jwt.claim_mappings, claim_rules);
        let user_rules = self.user_rules(&format!("{place}.userValidationRules"), jwt.user_validation_rules);
        let Issuer { url, discovery_url, audiences, .. } = jwt.issuer;
        let discovery = if discovery_url.is_empty() {
            format!("{}{CONFIGURATION_PATH}", url.trim_end_matches('/'))
        } else {
            discovery_url
        };
        let (mapping, discovery) = (mapping?, discovery.parse().ok()?);
        let mapping = Mapping { user_rules, ..mapping };
        Some(Settings { place, url, discovery, authorities, audiences, mapping })
    }

    fn issuer(&mut self, place: &str, issuer: &Issuer) -> Option<Vec<CertificateDer<'static>>> {
        const URL: &str = "must be an https URL without user, query and fragment, as `https://login.example`";
        if !is_https(&issuer.url) {
            self.add(&format!("{place}.url"), URL);
        }
        let discovery = &issuer.discovery_url;
        if !discovery.is_empty() {
            let place = format!("{place}.discoveryURL");
            if !is_https(discovery) {
                self.add(&place, URL);
            }
            if discovery.trim_end_matches('/') == issuer.url.trim_end_matches('/') {
                self.add(&place, "is the issuer itself: name the whole URL of the document, or leave it out");
            }
        }
        let audiences = format!("{place}.audiences");
        if issuer.audiences.is_empty() {
            self.add(&audiences, "is missing: name the clients whose tokens are meant for this API");
        }
        let mut seen = BTreeSet::new();
        for (number, audience) in issuer.audiences.iter().enumerate() {
            let place = format!("{audiences}[{number}]");
            if audience.is_empty() {
                self.add(&place, "is empty: name a client, or remove it");
            } else if !seen.insert(audience) {
                self.add(&place, "stands there before: remove it");
            }
        }
        let policy = issuer.audience_match_policy.as_str();
        let is_several = issuer.audiences.len() > 1;
        if policy != MATCH_ANY && (is_several || !policy.is_empty()) {
            self.add(&format!("{place}.audienceMatchPolicy"), "must be `MatchAny`");
        }
        if issuer.certificate_authority.is_empty() {
            return None;
        }
        let certificates = CertificateDer::pem_slice_iter(issuer.certificate_authority.as_bytes());
        let certificates = certificates.collect::<Result<Vec<_>, _>>().unwrap_or_default();
        let mut roots = rustls::RootCertStore::empty();
        let are_usable = certificates.iter().all(|certificate| roots.add(certificate.clone()).is_ok());
        if certificates.is_empty() || !are_usable {
            let why =
                "holds no certificates as PEM: write the CA's certificate itself, not the name of a file";
            self.add(&format!("{place}.certificateAuthority"), why);
        }
        Some(certificates)
    }

    fn claim_rules(&mut self, place: &str, rules: Vec<ClaimRule>) -> Vec<Rule> {
        let mut seen = BTreeSet::new();
        let mut compiled = Vec::new();
        for (number, rule) in rules.into_iter().enumerate() {
            let place = format!("{place}[{number}]");
            let key = (rule.claim.clone(), rule.expression.clone());
            let condition = match (rule.claim.is_empty(), rule.expression.is_empty()) {
                (true, true) => {
                    self.add(&place, "asks for nothing: set `claim` or `expression`");
                    continue;
                }
                (false, false) => {
                    self.add(&place, "has both `claim` and `expression`: keep one");
                    continue;
                }
                (true, false) => {
                    if !rule.required_value.is_empty() {
                        self.add(
                            &format!("{place}.requiredValue"),
                            "belongs to `claim`: say it in the expression",
                        );
                    }
                    let expression =
                        self.expression(&format!("{place}.expression"), &rule.expression, "claims");
                    expression.map(Condition::Expression)
                }
                (false, true) => {
                    if !rule.message.is_empty() {
                        self.add(&format!("{place}.message"), "belongs to `expression`: remove it");
                    }
                    Some(Condition::Required { claim: rule.claim, value: rule.required_value })
                }
            };
            if !seen.insert(key) {
                self.add(&place, "stands there before: remove it");
            }
            compiled.extend(condition.map(|condition| Rule { place, condition, message: rule.message }));
        }
        compiled
    }

    fn user_rules(&mut self, place: &str, rules: Vec<UserRule>) -> Vec<Rule> {
        let mut seen = BTreeSet::new();
        let mut compiled = Vec::new();
        for (number, rule) in rules.into_iter().enumerate() {
            let place = format!("{place}[{number}]");
            if rule.expression.is_empty() {
                self.add(&format!("{place}.expression"), "is missing: say what must be so");
                continue;
            }
            if !seen.insert(rule.expression.clone()) {
                self.add(&place, "stands there before: remove it");
            }
            let expression = self.expression(&format!("{place}.expression"), &rule.expression, "user");
            compiled.extend(expression.map(|expression| Rule {
                place,
                condition: Condition::Expression(expression),
                message: rule.message,
            }));
        }
        compiled
    }

    fn mapping(&mut self, place: &str, mappings: Mappings, claim_rules: Vec<Rule>) -> Option<Mapping> {
        let username_place = format!("{place}.username");
        let username = self.source(&username_place, mappings.username);
        if username.is_none() && !self.0.iter().any(|fault| fault.starts_with(&username_place)) {
            self.add(&username_place, "is missing: set `claim` with `prefix`, or `expression`");
        }
        let groups = self.source(&format!("{place}.groups"), mappings.groups);
        // Nothing stands before a uid, which is no name.
        let uid = Prefixed {
            prefix: (!mappings.uid.claim.is_empty()).then(String::new),
            claim: mappings.uid.claim,
            expression: mappings.uid.expression,
        };
        let uid = self.source(&format!("{place}.uid"), uid);
        let extra = self.extra(&format!("{place}.extra"), mappings.extra);
        let names_verified = |expression: &Expression| expression.names(EMAIL_VERIFIED);
        if let Some(Source::Expression(expression)) = &username
            && expression.names(EMAIL)
            && !names_verified(expression)
            && !extra.iter().any(|(_, expression)| names_verified(expression))
            && !claim_rules.iter().any(|rule| rule.expression().is_some_and(names_verified))
        {
            let why = "takes `claims.email`: ask for `claims.email_verified` too, there or in a claimValidationRule";
            self.add(&format!("{username_place}.expression"), why);
        }
        Some(Mapping { claim_rules, username: username?, groups, uid, extra, user_rules: Vec::new() })
    }

    /// A claim with its prefix, or an expression; `None` for neither, and where something is wrong.
    fn source(&mut self, place: &str, source: Prefixed) -> Option<Source> {
        let Prefixed { claim, prefix, expression } = source;
        if !claim.is_empty() && !expression.is_empty() {
            self.add(place, "has both `claim` and `expression`: keep one");
            return None;
        }
        if claim.is_empty() && prefix.is_some() {
            let next = if expression.is_empty() { "set `claim`" } else { "say it in the expression" };
            self.add(&format!("{place}.prefix"), format!("belongs to `claim`: {next}"));
            return None;
        }
        if !expression.is_empty() {
            let expression = self.expression(&format!("{place}.expression"), &expression, "claims");
            return expression.map(Source::Expression);
        }
        if claim.is_empty() {
            return None;
        }
        let place = format!("{place}.prefix");
        match prefix {
            None => self.add(&place, "is missing: give one, as `oidc:`, or \"\" for none"),
            Some(prefix) if prefix.starts_with(RESERVED) => {
                self.add(
                    &place,
                    format!("begins with `{RESERVED}`, which no issuer can give: choose another"),
                );
            }
            Some(prefix) => return Some(Source::Claim { claim, prefix }),
        }
        None
    }

    fn extra(&mut self, place: &str, entries: Vec<Extra>) -> Vec<(String, Expression)> {
        let mut seen = BTreeSet::new();
        let mut compiled = Vec::new();
        for (number, Extra { key, value_expression }) in entries.into_iter().enumerate() {
            let place = format!("{place}[{number}]");
            let key_place = format!("{place}.key");
            if !is_extra_key(&key) {
                self.add(&key_place, "must be a domain and a path in lower case, as `example.com/team`");
            } else if is_kubernetes(&key) {
                self.add(&key_place, "is of a domain that is Kubernetes' own: choose one of yours");
            }
            if !seen.insert(key.clone()) {
                self.add(&key_place, "stands there before: remove it");
            }
            let expression =
                self.expression(&format!("{place}.valueExpression"), &value_expression, "claims");
            compiled.extend(expression.map(|expression| (key, expression)));
        }
        compiled
    }

    fn expression(&mut self, place: &str, text: &str, variable: &str) -> Option<Expression> {
        match Expression::compile(text, variable) {
            Ok(expression) => Some(expression),
            Err(why) => {
                self.add(place, why);
                None
            }
        }
    }
}

impl Rule {
    fn expression(&self) -> Option<&Expression> {
        match &self.condition {
            Condition::Expression(expression) => Some(expression),
            Condition::Required { .. } => None,
        }
    }
}

/// A domain, a slash and a path.
fn is_extra_key(key: &str) -> bool {
    let is_label = |label: &str| {
        let is_inner = |byte: &u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
        let bytes = label.as_bytes();
        bytes.first().is_some_and(is_inner)
            && bytes.last().is_some_and(is_inner)
            && bytes.iter().all(|byte| is_inner(byte) || *byte == b'-')
    };
    let is_path = |path: &str| {
        !path.is_empty()
            && path.bytes().all(|byte| {
                byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"/-._~!$&'()*+,;=:".contains(&byte)
            })
    };
    key.split_once('/').is_some_and(|(domain, path)| domain.split('.').all(is_label) && is_path(path))
}

fn is_kubernetes(key: &str) -> bool {
    let domain = key.split('/').next().unwrap_or_default();
    ["k8s.io", "kubernetes.io"]
        .iter()
        .any(|theirs| domain.strip_suffix(theirs).is_some_and(|rest| rest.is_empty() || rest.ends_with('.')))
}
