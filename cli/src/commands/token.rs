//! Join tokens: `ID.SECRET` for the person, a hash in a Secret for the controller.

use std::collections::BTreeMap;

use gantry_api::names::{JOIN_TOKEN_ID_LABEL, JOIN_TOKEN_SECRET_TYPE, TOOL_MANAGER};
use jiff::{SignedDuration, Timestamp, Unit};
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use kube::api::{Api, ObjectMeta, PostParams};
use sha2::{Digest as _, Sha256};

use crate::args::{Reach, TokenArgs};
use crate::client::{Controller, hex};
use crate::clock;

/// Base32 of RFC 4648 in lower case: 5 bits a character, none that is mistaken for another case.
const ALPHABET: [char; 32] = [
    'a', 'b', 'c', 'd', 'e', 'f', 'g', 'h', 'i', 'j', 'k', 'l', 'm', 'n', 'o', 'p', 'q', 'r', 's', 't', 'u',
    'v', 'w', 'x', 'y', 'z', '2', '3', '4', '5', '6', '7',
];
const ID_LENGTH: usize = 10;
const SECRET_LENGTH: usize = 32;

/// A token that a Secret stands for.
pub(crate) struct Token {
    /// What an agent shows: the id, a dot, the secret.
    pub(crate) text: String,
    /// When it ends.
    pub(crate) expires: Timestamp,
}

/// Prints the token alone on standard output, so that a script can take it.
pub(crate) async fn run(reach: &Reach, options: &TokenArgs) -> anyhow::Result<()> {
    let controller = Controller::reach(reach).await?;
    let token = create(&controller, &controller.namespace, options.ttl, options.uses).await?;
    eprintln!(
        "Namespace {}, {} until {}. It is shown only now.",
        controller.namespace,
        if options.uses == 1 { "one agent".to_owned() } else { format!("{} agents", options.uses) },
        token.expires
    );
    println!("{}", token.text);
    Ok(())
}

/// Makes a token and stores its hash. Each call makes another one.
pub(crate) async fn create(
    controller: &Controller,
    namespace: &str,
    ttl: SignedDuration,
    uses: u32,
) -> anyhow::Result<Token> {
    let (id, secret) = (characters::<ID_LENGTH>(), characters::<SECRET_LENGTH>());
    let expires = clock::now().checked_add(ttl)?.round(Unit::Second)?;
    let api: Api<Secret> = Api::namespaced(controller.client.clone(), namespace);
    let params = PostParams { field_manager: Some(TOOL_MANAGER.to_owned()), ..PostParams::default() };
    api.create(&params, &record(namespace, &id, &secret, expires, uses)).await.map_err(|error| {
        controller.explain(error, &format!("no token was made in namespace `{namespace}`"))
    })?;
    Ok(Token { text: format!("{id}.{secret}"), expires })
}

/// What is stored: nothing an agent could enrol with.
fn record(namespace: &str, id: &str, secret: &str, expires: Timestamp, uses: u32) -> Secret {
    let entry = |name: &str, value: String| (name.to_owned(), ByteString(value.into_bytes()));
    Secret {
        metadata: ObjectMeta {
            name: Some(format!("join-token-{id}")),
            namespace: Some(namespace.to_owned()),
            labels: Some(BTreeMap::from([(JOIN_TOKEN_ID_LABEL.to_owned(), id.to_owned())])),
            ..ObjectMeta::default()
        },
        type_: Some(JOIN_TOKEN_SECRET_TYPE.to_owned()),
        data: Some(BTreeMap::from([
            entry("token-hash", hex(&Sha256::digest(secret.as_bytes()))),
            entry("expires", expires.to_string()),
            entry("uses", uses.to_string()),
        ])),
        ..Secret::default()
    }
}

fn characters<const N: usize>() -> String {
    spell(clock::random::<N>())
}

/// 256 is a multiple of 32, so every character is equally likely.
fn spell<const N: usize>(random: [u8; N]) -> String {
    random.iter().filter_map(|byte| ALPHABET.get(usize::from(byte % 32))).collect()
}

#[cfg(test)]
mod tests {
    use insta::assert_yaml_snapshot;

    use super::*;

    #[test]
    fn a_token_is_ten_characters_a_dot_and_thirty_two() {
        let (id, secret) = (characters::<ID_LENGTH>(), characters::<SECRET_LENGTH>());

        assert_eq!((id.len(), secret.len()), (10, 32));
        assert!(id.chars().chain(secret.chars()).all(|character| ALPHABET.contains(&character)));
        assert_ne!(secret, characters::<SECRET_LENGTH>());
        assert_eq!(spell([0, 25, 26, 31, 32, 255]), "az27a7");
    }

    #[test]
    fn the_stored_record_holds_the_hash_and_not_the_secret() {
        let expires = "2026-01-02T03:04:05Z".parse().expect("a time");

        let record = record("shops", "aaaaaaaaaa", "abc", expires, 3);

        assert_yaml_snapshot!(readable(&record), @r#"
        expires: "2026-01-02T03:04:05Z"
        token-hash: ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad
        uses: "3"
        "#);
        assert_eq!(record.metadata.name.as_deref(), Some("join-token-aaaaaaaaaa"));
        assert_eq!(record.type_.as_deref(), Some("gantry.dev/join-token"));
        assert_eq!(record.metadata.labels.expect("labels")["gantry.dev/join-token-id"], "aaaaaaaaaa");
    }

    fn readable(record: &Secret) -> BTreeMap<String, String> {
        let data = record.data.clone().expect("data");
        data.into_iter().map(|(name, value)| (name, String::from_utf8(value.0).expect("text"))).collect()
    }
}
