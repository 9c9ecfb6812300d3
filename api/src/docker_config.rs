//! What registries are called, and credentials as Docker's `config.json` holds them. Secrets hold the same text.
//!
//! Nothing here says what it read: an error names a server at most.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::alphabet::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use serde::Deserialize;

use crate::agent_v1::RegistryAuth;

/// Docker Hub, as references of images name it.
pub const DOCKER_HUB: &str = "docker.io";
/// Docker Hub, as Docker keeps its credentials.
const DOCKER_HUB_ADDRESS: &str = "https://index.docker.io/v1/";
/// What stands for the user's name where the secret is a token.
const TOKEN_USER: &str = "<token>";

/// The registry that a reference of an image names: `registry.example:5000/app:2` is at `registry.example:5000`, `app` at
/// `docker.io`.
pub fn server_of(reference: &str) -> String {
    match reference.split_once('/') {
        Some((first, _))
            if first.contains(['.', ':'])
                || first == "localhost"
                || first.contains(|letter: char| letter.is_ascii_uppercase()) =>
        {
            canonical(first)
        }
        _ => DOCKER_HUB.to_owned(),
    }
}

/// A registry's one name, whichever way it is written: without scheme and path, in lower case, Docker Hub as `docker.io`.
pub fn canonical(server: &str) -> String {
    let server = server.trim();
    let rest = server.split_once("://").map_or(server, |(_, rest)| rest);
    let host = rest.split('/').next().unwrap_or_default().to_ascii_lowercase();
    match host.as_str() {
        "index.docker.io" | "registry-1.docker.io" => DOCKER_HUB.to_owned(),
        _ => host,
    }
}

/// A registry as the Docker Engine and the programs that keep credentials are told of it.
pub fn address(server: &str) -> &str {
    if server == DOCKER_HUB { DOCKER_HUB_ADDRESS } else { server }
}

/// Why there are no credentials although there should be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unreadable {
    /// Not what Docker writes.
    #[error("it is not JSON as Docker writes it")]
    NotJson,
    /// An entry without what belongs in it.
    #[error("its entry for {0} cannot be read")]
    Entry(String),
}

/// What Docker's `config.json` says of credentials.
#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DockerConfig {
    auths: Option<BTreeMap<String, Entry>>,
    cred_helpers: Option<BTreeMap<String, String>>,
    creds_store: Option<String>,
}

#[derive(Default, Deserialize)]
struct Entry {
    username: Option<String>,
    password: Option<String>,
    auth: Option<String>,
    identitytoken: Option<String>,
}

impl DockerConfig {
    /// Reads `config.json`, or a Secret of type `kubernetes.io/dockerconfigjson`.
    pub fn parse(text: &[u8]) -> Result<Self, Unreadable> {
        serde_json::from_slice(text).map_err(|_| Unreadable::NotJson)
    }

    /// Reads the older form, in which the entries stand alone.
    pub fn parse_entries(text: &[u8]) -> Result<Self, Unreadable> {
        let auths = serde_json::from_slice(text).map_err(|_| Unreadable::NotJson)?;
        Ok(Self { auths: Some(auths), ..Self::default() })
    }

    /// The credentials that are written here for a server, by its [`canonical`] name.
    pub fn login(&self, server: &str) -> Result<Option<RegistryAuth>, Unreadable> {
        let Some(entry) = find(self.auths.as_ref(), server) else { return Ok(None) };
        let text = |text: &Option<String>| text.clone().unwrap_or_default();
        let (mut username, mut password) = (text(&entry.username), text(&entry.password));
        if let Some(auth) = entry.auth.as_ref().filter(|auth| !auth.is_empty()) {
            (username, password) = decode(auth).ok_or_else(|| Unreadable::Entry(server.to_owned()))?;
        }
        let identity_token = text(&entry.identitytoken);
        if identity_token.is_empty() && password.is_empty() {
            return Ok(None);
        }
        Ok(Some(RegistryAuth {
            username,
            password,
            identity_token,
            server_address: address(server).to_owned(),
        }))
    }

    /// The program that keeps the credentials for a server, by the end of its name.
    pub fn helper(&self, server: &str) -> Option<&str> {
        let of_server = find(self.cred_helpers.as_ref(), server);
        of_server.or(self.creds_store.as_ref()).map(String::as_str).filter(|name| !name.is_empty())
    }
}

/// What a program that keeps credentials has answered.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Kept {
    username: String,
    secret: String,
}

/// Reads the answer of a program that keeps credentials.
pub fn kept(answer: &[u8], server: &str) -> Result<RegistryAuth, Unreadable> {
    let Kept { username, secret } = serde_json::from_slice(answer).map_err(|_| Unreadable::NotJson)?;
    let server_address = address(server).to_owned();
    Ok(if username == TOKEN_USER {
        RegistryAuth { identity_token: secret, server_address, ..RegistryAuth::default() }
    } else {
        RegistryAuth { username, password: secret, server_address, ..RegistryAuth::default() }
    })
}

/// The entry under a server's own name, else the first under another way to write it.
fn find<'a, T>(entries: Option<&'a BTreeMap<String, T>>, server: &str) -> Option<&'a T> {
    let entries = entries?;
    let otherwise = || entries.iter().find(|(key, _)| canonical(key) == server).map(|(_, entry)| entry);
    entries.get(server).or_else(otherwise)
}

/// `user:password` in base64, with padding or without.
fn decode(auth: &str) -> Option<(String, String)> {
    let config = GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent);
    let bytes = GeneralPurpose::new(&STANDARD, config).decode(auth.trim()).ok()?;
    let text = String::from_utf8(bytes).ok()?;
    let (user, password) = text.split_once(':')?;
    Some((user.to_owned(), password.trim_matches('\0').to_owned()))
}

#[cfg(test)]
mod tests;
