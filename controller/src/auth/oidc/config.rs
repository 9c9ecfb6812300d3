//! The file that names issuers: Kubernetes' `AuthenticationConfiguration`, as far as it is about JWTs.

use std::path::Path;

use rustls_pki_types::CertificateDer;
use serde::Deserialize;
use serde_json::Value;

use super::checks;
use super::claims::Mapping;
use crate::outbound::TrustError;

/// Longest file.
const LONGEST: u64 = 1 << 20;

/// One issuer, checked and compiled.
pub(super) struct Settings {
    /// Where it stands in the file, `jwt[0]`.
    pub place: String,
    /// What tokens name it by.
    pub url: String,
    /// Where its discovery document is.
    pub discovery: http::Uri,
    /// Whom its server must be signed by; whom the machine trusts where absent.
    pub authorities: Option<Vec<CertificateDer<'static>>>,
    /// A token must be for one of them.
    pub audiences: Vec<String>,
    pub mapping: Mapping,
}

/// Why a configuration is refused; says where, and what to do.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file is not there, or not for us.
    #[error("cannot read {path}")]
    Read {
        /// What was to be read.
        path: String,
        /// Why it was not.
        #[source]
        cause: std::io::Error,
    },
    /// More than any configuration needs.
    #[error("{0} is longer than 1 MiB: it is no authentication configuration")]
    TooLong(String),
    /// No YAML, or not of this kind.
    #[error("{path} is no AuthenticationConfiguration: {cause}")]
    Form {
        /// What was read.
        path: String,
        /// What is wrong, and where.
        cause: String,
    },
    /// It says what cannot be.
    #[error("{path} cannot be used: {}", faults.join("; "))]
    Faults {
        /// What was read.
        path: String,
        /// Each with its field.
        faults: Vec<String>,
    },
    /// Without a CA of its own an issuer is known by those that the machine trusts.
    #[error(
        "the certificates that this machine trusts cannot be used: install `ca-certificates`, or set `issuer.certificateAuthority`"
    )]
    Roots(#[source] std::io::Error),
    /// TLS cannot be set up.
    #[error("TLS cannot be set up")]
    Tls(#[source] rustls::Error),
}

impl From<TrustError> for ConfigError {
    fn from(error: TrustError) -> Self {
        match error {
            TrustError::Roots(cause) => Self::Roots(cause),
            TrustError::Tls(cause) => Self::Tls(cause),
        }
    }
}

/// Reads and checks the file. `own` are our own issuers, which it cannot name.
pub(super) fn read(path: &Path, own: &[String]) -> Result<Vec<Settings>, ConfigError> {
    let name = path.display().to_string();
    let read = |path: &Path| {
        if std::fs::metadata(path)?.len() > LONGEST {
            return Ok(None);
        }
        std::fs::read_to_string(path).map(Some)
    };
    match read(path) {
        Ok(Some(text)) => parse(&name, &text, own),
        Ok(None) => Err(ConfigError::TooLong(name)),
        Err(cause) => Err(ConfigError::Read { path: name, cause }),
    }
}

/// As [`read`], of what was read.
pub(super) fn parse(path: &str, text: &str, own: &[String]) -> Result<Vec<Settings>, ConfigError> {
    let form = |cause: String| ConfigError::Form { path: path.to_owned(), cause };
    let value: Value = gantry_api::yaml::read_manifest(text).map_err(|error| form(error.to_string()))?;
    let file: File = serde_path_to_error::deserialize(value).map_err(|error| {
        let place = error.path().to_string();
        if place == "." {
            form(error.inner().to_string())
        } else {
            form(format!("{place}: {}", error.inner()))
        }
    })?;
    checks::check(file, own).map_err(|faults| ConfigError::Faults { path: path.to_owned(), faults })
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, expecting = "an object")]
pub(super) struct File {
    pub api_version: String,
    pub kind: String,
    #[serde(default)]
    pub jwt: Vec<Jwt>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, expecting = "an object")]
pub(super) struct Jwt {
    pub issuer: Issuer,
    #[serde(default)]
    pub claim_validation_rules: Vec<ClaimRule>,
    pub claim_mappings: Mappings,
    #[serde(default)]
    pub user_validation_rules: Vec<UserRule>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, expecting = "an object")]
pub(super) struct Issuer {
    pub url: String,
    #[serde(default, rename = "discoveryURL")]
    pub discovery_url: String,
    #[serde(default)]
    pub certificate_authority: String,
    #[serde(default)]
    pub audiences: Vec<String>,
    #[serde(default)]
    pub audience_match_policy: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, expecting = "an object")]
pub(super) struct ClaimRule {
    #[serde(default)]
    pub claim: String,
    #[serde(default)]
    pub required_value: String,
    #[serde(default)]
    pub expression: String,
    #[serde(default)]
    pub message: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, expecting = "an object")]
pub(super) struct Mappings {
    pub username: Prefixed,
    #[serde(default)]
    pub groups: Prefixed,
    #[serde(default)]
    pub uid: Unprefixed,
    #[serde(default)]
    pub extra: Vec<Extra>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, expecting = "an object")]
pub(super) struct Prefixed {
    #[serde(default)]
    pub claim: String,
    pub prefix: Option<String>,
    #[serde(default)]
    pub expression: String,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, expecting = "an object")]
pub(super) struct Unprefixed {
    #[serde(default)]
    pub claim: String,
    #[serde(default)]
    pub expression: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, expecting = "an object")]
pub(super) struct Extra {
    pub key: String,
    pub value_expression: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, expecting = "an object")]
pub(super) struct UserRule {
    #[serde(default)]
    pub expression: String,
    #[serde(default)]
    pub message: String,
}

#[cfg(test)]
mod tests;
