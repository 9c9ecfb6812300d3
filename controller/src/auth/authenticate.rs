//! From what a connection and a request show to a [`Caller`].

use gantry_api::names::ADMIN_GROUP;
use http::{HeaderMap, header};
use sha2::{Digest as _, Sha256};

use super::Caller;
use crate::pki::Peer;

/// Decides who a request is from.
#[derive(Clone)]
pub struct Authenticator {
    admin_token_hash: [u8; 32],
}

/// What somebody showed to say who they are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Credentials {
    /// Nothing.
    None,
    /// Something that proves it.
    Proven(Caller),
    /// Something that does not.
    Refused,
}

impl Authenticator {
    /// Knows the built-in admin by the hash of its bearer token.
    pub fn new(admin_token_hash: [u8; 32]) -> Self {
        Self { admin_token_hash }
    }

    /// A bearer token counts before the connection's certificate: who sends one means to use it.
    ///
    /// A certificate of an agent is no user.
    pub fn authenticate(&self, peer: Option<&Peer>, headers: &HeaderMap) -> Credentials {
        if let Some(value) = headers.get(header::AUTHORIZATION) {
            let token = value.to_str().ok().and_then(|value| value.split_once(' '));
            return match token {
                Some((scheme, token))
                    if scheme.eq_ignore_ascii_case("bearer") && self.is_admin_token(token.trim()) =>
                {
                    Credentials::Proven(Caller::authenticated("gantry-admin", [ADMIN_GROUP]))
                }
                _ => Credentials::Refused,
            };
        }
        match peer {
            Some(Peer::User { name, groups }) => {
                Credentials::Proven(Caller::authenticated(name, groups.iter().map(String::as_str)))
            }
            Some(Peer::Agent(_)) => Credentials::Refused,
            None => Credentials::None,
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
    use super::*;
    use crate::gateway::link::InstanceUid;
    use crate::pki::AgentIdentity;

    fn authenticator() -> Authenticator {
        Authenticator::new(Sha256::digest(b"secret").into())
    }

    fn bearer(token: &str) -> HeaderMap {
        let value = format!("Bearer {token}").parse().expect("a header");
        HeaderMap::from_iter([(header::AUTHORIZATION, value)])
    }

    #[test]
    fn the_admins_token_is_the_admin_and_any_other_nobody() {
        let Credentials::Proven(admin) = authenticator().authenticate(None, &bearer("secret")) else {
            panic!("the token is right");
        };

        assert!(admin.is_admin());
        assert_eq!(authenticator().authenticate(None, &bearer("secre")), Credentials::Refused);
        assert_eq!(authenticator().authenticate(None, &HeaderMap::new()), Credentials::None);
    }

    #[test]
    fn a_wrong_token_is_not_mended_by_a_good_certificate() {
        let peer = Peer::User { name: "ada".into(), groups: vec![ADMIN_GROUP.into()] };

        assert_eq!(authenticator().authenticate(Some(&peer), &bearer("wrong")), Credentials::Refused);
        assert!(matches!(
            authenticator().authenticate(Some(&peer), &HeaderMap::new()),
            Credentials::Proven(_)
        ));
    }

    #[test]
    fn t03_an_agents_certificate_is_no_user() {
        let peer = Peer::Agent(AgentIdentity {
            namespace: "default".into(),
            name: "nuc-01".into(),
            uid: InstanceUid(uuid::Uuid::nil()),
            key_fingerprint: String::new(),
            expires_at: 0,
        });

        assert_eq!(authenticator().authenticate(Some(&peer), &HeaderMap::new()), Credentials::Refused);
    }
}
