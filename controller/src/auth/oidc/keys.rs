//! The keys of one issuer, and what a token says that one of them has signed.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::jwk::{
    AlgorithmParameters, EllipticCurve, Jwk, KeyAlgorithm, KeyOperations, PublicKeyUse, RSAKeyParameters,
};
use jsonwebtoken::{Algorithm, AlgorithmFamily, DecodingKey, Header};
use serde::Deserialize;
use serde_json::Value;

use super::Refusal;
use super::claims::Claims;
use crate::auth::tokens::{LONGEST, signature_alone};

/// More keys than any issuer needs.
const MOST_KEYS: usize = 100;
/// Bits of an RSA modulus: shorter ones can be broken, and longer ones make verifying dear.
const MODULUS_BITS: std::ops::RangeInclusive<usize> = 2_048..=4_096;

const ED25519_POINT: usize = 32;

const RSA: [Algorithm; 6] = [
    Algorithm::RS256,
    Algorithm::RS384,
    Algorithm::RS512,
    Algorithm::PS256,
    Algorithm::PS384,
    Algorithm::PS512,
];

/// All keys of an issuer that can verify something.
pub(super) struct KeySet(Vec<Key>);

struct Key {
    id: Option<String>,
    /// By its type and curve, and by what it says that it is for.
    algorithms: Vec<Algorithm>,
    verifier: DecodingKey,
}

/// Why a document holds no keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Unusable {
    #[error("it is no set of keys")]
    Malformed,
    #[error("it has more than {MOST_KEYS} keys")]
    TooMany,
    #[error("none of its keys verifies signatures by an algorithm that is accepted")]
    None,
}

impl KeySet {
    /// Reads a JWK set. Keys that are of no use to us do not spoil the others.
    pub fn read(json: &[u8]) -> Result<Self, Unusable> {
        #[derive(Deserialize)]
        struct Set {
            keys: Vec<Value>,
        }
        let Set { keys } = serde_json::from_slice(json).map_err(|_| Unusable::Malformed)?;
        if keys.len() > MOST_KEYS {
            return Err(Unusable::TooMany);
        }
        let keys: Vec<Key> = keys.into_iter().filter_map(Key::read).collect();
        if keys.is_empty() { Err(Unusable::None) } else { Ok(Self(keys)) }
    }

    /// What a token says, if a key of these has signed it.
    pub fn verify(&self, token: &str, header: &Header) -> Result<Claims, Refusal> {
        let key = self.find(header).ok_or(Refusal::Key)?;
        let verified = jsonwebtoken::decode::<Claims>(token, &key.verifier, &signature_alone(header.alg));
        verified.map(|verified| verified.claims).map_err(|error| match error.kind() {
            jsonwebtoken::errors::ErrorKind::InvalidSignature => Refusal::Signature,
            _ => Refusal::Malformed,
        })
    }

    /// The key that the token names. One that names none means the only one that fits.
    fn find(&self, header: &Header) -> Option<&Key> {
        let mut fitting = self.0.iter().filter(|key| key.algorithms.contains(&header.alg));
        match &header.kid {
            Some(id) => fitting.find(|key| key.id.as_ref() == Some(id)),
            None => fitting.next().filter(|_| fitting.next().is_none()),
        }
    }
}

impl Key {
    fn read(jwk: Value) -> Option<Self> {
        let jwk: Jwk = serde_json::from_value(jwk).ok()?;
        let algorithms = algorithms(&jwk);
        if algorithms.is_empty() {
            return None;
        }
        Some(Self { verifier: DecodingKey::from_jwk(&jwk).ok()?, id: jwk.common.key_id, algorithms })
    }
}

/// What a key may verify by: never by a shared secret.
fn algorithms(jwk: &Jwk) -> Vec<Algorithm> {
    let common = &jwk.common;
    let is_to_verify = common.public_key_use.as_ref().is_none_or(|is| *is == PublicKeyUse::Signature)
        && common.key_operations.as_ref().is_none_or(|are| are.contains(&KeyOperations::Verify));
    if !is_to_verify {
        return Vec::new();
    }
    let mut algorithms = match &jwk.algorithm {
        AlgorithmParameters::RSA(key) if has_fit_modulus(key) => RSA.to_vec(),
        AlgorithmParameters::EllipticCurve(key) => match key.curve {
            EllipticCurve::P256 => vec![Algorithm::ES256],
            EllipticCurve::P384 => vec![Algorithm::ES384],
            _ => Vec::new(),
        },
        // The library takes its length for granted.
        AlgorithmParameters::OctetKeyPair(key)
            if key.curve == EllipticCurve::Ed25519
                && URL_SAFE_NO_PAD.decode(&key.x).is_ok_and(|point| point.len() == ED25519_POINT) =>
        {
            vec![Algorithm::EdDSA]
        }
        _ => Vec::new(),
    };
    if let Some(only) = common.key_algorithm {
        algorithms.retain(|algorithm| KeyAlgorithm::from(*algorithm) == only);
    }
    algorithms
}

fn has_fit_modulus(key: &RSAKeyParameters) -> bool {
    URL_SAFE_NO_PAD.decode(&key.n).is_ok_and(|modulus| {
        let mut bytes = modulus.iter().skip_while(|byte| **byte == 0);
        let first = bytes.next().map_or(0, |first| 8 - first.leading_zeros() as usize);
        MODULUS_BITS.contains(&(first + 8 * bytes.count()))
    })
}

/// The header of a token that any key could have signed.
pub(super) fn header(token: &str) -> Result<Header, Refusal> {
    if token.len() > LONGEST {
        return Err(Refusal::Malformed);
    }
    // An algorithm that is unknown, as `none`, is an error already.
    let header = jsonwebtoken::decode_header(token).map_err(|_| Refusal::Malformed)?;
    if header.alg.family() == AlgorithmFamily::Hmac || header.crit.is_some() {
        return Err(Refusal::Header);
    }
    Ok(header)
}
