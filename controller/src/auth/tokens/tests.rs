use jsonwebtoken::{Algorithm, EncodingKey, Header};

use super::*;
use crate::auth::world::World;

/// A token of the world's own key, but for what is changed in its header and claims.
struct Forge<'a>(&'a World, Value);

impl<'a> Forge<'a> {
    async fn of(world: &'a World) -> Self {
        let account = world.make("serviceaccounts", "bot").await;
        Self(world, claims(&world.token(&account, None)))
    }

    /// With one claim set; null takes it out.
    fn token(&self, claim: &str, value: Value) -> String {
        let mut claims = self.1.clone();
        let claims = claims.as_object_mut().expect("an object");
        claims.insert(claim.to_owned(), value);
        claims.retain(|_, value| !value.is_null());
        Self::signed(&self.header(), claims, &EncodingKey::from_ec_der(self.0.keys.private()))
    }

    fn signed(header: &Header, claims: &impl Serialize, key: &EncodingKey) -> String {
        jsonwebtoken::encode(header, claims, key).expect("it signs")
    }

    fn header(&self) -> Header {
        let kid = self.0.keys.public().first().map(|key| key.id.clone());
        Header { kid, ..Header::new(Algorithm::ES256) }
    }
}

fn part(token: &str, number: usize) -> Value {
    let part = token.split('.').nth(number).expect("it has three");
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(part).expect("base64")).expect("JSON")
}

fn claims(token: &str) -> Value {
    part(token, 1)
}

#[tokio::test]
async fn a_token_says_what_those_of_kubernetes_say() {
    let world = World::new().await;
    let account = world.make("serviceaccounts", "bot").await;
    let secret = world.make("secrets", "key").await;

    let token = world.token(&account, Some(&secret));

    let header = part(&token, 0);
    assert_eq!((&header["alg"], &header["kid"]), (&json!("ES256"), &world.tokens.keys()["keys"][0]["kid"]));
    let mut said = claims(&token);
    assert_eq!(said["jti"].as_str().expect("a text").len(), 36);
    said["jti"] = json!("");
    assert_eq!(
        said,
        json!({
            "iss": "https://gantry.internal", "aud": ["https://gantry.internal"], "jti": "",
            "sub": "system:serviceaccount:shop:bot",
            "iat": 1_780_315_200, "nbf": 1_780_315_140, "exp": 1_780_318_800,
            "kubernetes.io": {
                "namespace": "shop",
                "serviceaccount": {"name": "bot", "uid": account.uid},
                "secret": {"name": "key", "uid": secret.uid},
            },
        })
    );
}

#[tokio::test]
async fn its_bearer_is_the_account_with_its_groups() {
    let world = World::new().await;
    let account = world.make("serviceaccounts", "bot").await;
    let token = world.token(&account, None);

    let (caller, _) = world.bearer(&token).await.expect("it is known");

    assert_eq!(&*caller.user, "system:serviceaccount:shop:bot");
    let groups: Vec<&str> = caller.groups.iter().map(|group| &**group).collect();
    assert_eq!(groups, ["system:serviceaccounts", "system:serviceaccounts:shop", "system:authenticated"]);
    assert_eq!(caller.uid.as_deref(), Some(account.uid.as_str()));
    let id = format!("JTI={}", claims(&token)["jti"].as_str().expect("an id"));
    assert_eq!(caller.extra.get("authentication.kubernetes.io/credential-id"), Some(&vec![id]));
    assert!(!caller.is_admin());
}

#[tokio::test]
async fn t02_a_token_that_is_not_ours_or_not_for_us_is_nobody() {
    let world = World::new().await;
    let forge = Forge::of(&world).await;
    let (now, hour) = (forge.1["iat"].as_i64().expect("a number"), 3_600);
    assert_eq!(world.refusal(&forge.token("iat", json!(now))).await, None, "the forge works");

    let mut bound_to_a_pod = forge.1["kubernetes.io"].clone();
    bound_to_a_pod["pod"] = json!({"name": "p", "uid": "u"});
    for (claim, value, why) in [
        ("iss", json!("https://elsewhere.example"), Refusal::Issuer),
        ("iss", json!("https://gantry.internal/"), Refusal::Issuer),
        ("iss", Value::Null, Refusal::Malformed),
        ("aud", json!(["vault"]), Refusal::Audience),
        ("aud", json!([]), Refusal::Audience),
        ("aud", Value::Null, Refusal::Malformed),
        ("exp", json!(now), Refusal::Expired),
        ("exp", Value::Null, Refusal::Malformed),
        ("exp", json!("never"), Refusal::Malformed),
        ("nbf", json!(now + 1), Refusal::NotYet),
        ("nbf", Value::Null, Refusal::Malformed),
        ("sub", json!("system:serviceaccount:shop:root"), Refusal::Malformed),
        ("sub", json!("gantry-admin"), Refusal::Malformed),
        ("kubernetes.io", Value::Null, Refusal::Malformed),
        ("kubernetes.io", bound_to_a_pod, Refusal::Malformed),
    ] {
        let told = format!("{claim}: {value}");
        assert_eq!(world.refusal(&forge.token(claim, value)).await, Some(why), "{told}");
    }
    assert_eq!(world.refusal(&forge.token("exp", json!(now + hour))).await, None);
}

#[tokio::test]
async fn t02_a_token_with_another_signature_is_nobody() {
    let world = World::new().await;
    let forge = Forge::of(&world).await;
    let stranger = EncodingKey::from_ec_der(TokenKeys::generate().expect("a key").private());
    let own = EncodingKey::from_ec_der(world.keys.private());
    let good = forge.token("iss", json!("https://gantry.internal"));
    let encoded = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let [head, body, signature] = good.split('.').collect::<Vec<_>>().try_into().expect("three parts");

    let with_key_id = |id: Option<&str>| Header { kid: id.map(str::to_owned), ..forge.header() };
    let critical = Header { crit: Some(vec!["exp".to_owned()]), ..forge.header() };
    let mut root = forge.1.clone();
    root["kubernetes.io"]["serviceaccount"]["name"] = json!("root");
    let none = encoded(&json!({"alg": "none", "kid": forge.header().kid}));
    let point = &world.keys.public()[0];
    let raw = [&[4], point.x.as_slice(), point.y.as_slice()].concat();
    let confused =
        [raw.as_slice(), world.tokens.keys()["keys"][0]["x"].as_str().unwrap_or_default().as_bytes()].map(
            |public| {
                let header = Header { alg: Algorithm::HS256, ..forge.header() };
                (Forge::signed(&header, &forge.1, &EncodingKey::from_secret(public)), Refusal::Header)
            },
        );

    let cases = [
        (format!("{none}.{body}."), Refusal::Malformed),
        (format!("{none}.{body}.{signature}"), Refusal::Malformed),
        (format!("{head}.{body}."), Refusal::Signature),
        (format!("{head}.{}.{signature}", encoded(&root)), Refusal::Signature),
        (Forge::signed(&forge.header(), &forge.1, &stranger), Refusal::Signature),
        (Forge::signed(&with_key_id(Some("another")), &forge.1, &own), Refusal::Key),
        (Forge::signed(&with_key_id(None), &forge.1, &own), Refusal::Key),
        (Forge::signed(&critical, &forge.1, &own), Refusal::Header),
        (format!("{good}.{signature}"), Refusal::Malformed),
        (format!("{head}.{body}"), Refusal::Malformed),
        ("x".repeat(LONGEST + 1), Refusal::Malformed),
        (String::new(), Refusal::Malformed),
    ];
    for (token, why) in cases.into_iter().chain(confused) {
        assert_eq!(world.refusal(&token).await, Some(why), "{token}");
    }
    assert_eq!(world.refusal(&good).await, None);
}

#[tokio::test]
async fn a_token_ends_in_the_second_that_it_says() {
    let world = World::new().await;
    let token = world.token(&world.make("serviceaccounts", "bot").await, None);

    world.clock.forward(SignedDuration::from_secs(3_599));
    assert_eq!(world.refusal(&token).await, None);
    world.clock.forward(SignedDuration::from_secs(1));
    assert_eq!(world.refusal(&token).await, Some(Refusal::Expired));
}

#[tokio::test]
async fn another_replica_whose_clock_lags_takes_a_new_token() {
    let world = World::new().await;
    let token = world.token(&world.make("serviceaccounts", "bot").await, None);

    world.clock.forward(SignedDuration::from_secs(-60));
    assert_eq!(world.refusal(&token).await, None);
    world.clock.forward(SignedDuration::from_secs(-1));
    assert_eq!(world.refusal(&token).await, Some(Refusal::NotYet));
}

#[tokio::test]
async fn tokens_of_a_key_that_was_replaced_count_while_it_is_named() {
    let old = World::new().await;
    let account = old.make("serviceaccounts", "bot").await;
    let token = old.token(&account, None);
    let verify = async |keys: TokenKeys| {
        let new = World::with(keys, &TokenSettings::default()).await;
        new.tokens.verify(&token).map(|claims| claims.sub)
    };

    let kept = TokenKeys::generate().expect("a key").and(&old.keys);
    assert_eq!(kept.public().len(), 2);
    assert_eq!(verify(kept).await.as_deref(), Ok("system:serviceaccount:shop:bot"));
    assert_eq!(verify(TokenKeys::generate().expect("a key")).await, Err(Refusal::Key));
}

#[tokio::test]
async fn an_issuer_that_was_replaced_counts_while_it_is_named() {
    let old = World::new().await;
    let token = old.token(&old.make("serviceaccounts", "bot").await, None);
    let settings = |more: &[&str]| {
        let issuers = ["https://gantry.example/x/"].iter().chain(more);
        TokenSettings { issuers: issuers.map(|one| (*one).to_owned()).collect(), audiences: Vec::new() }
    };
    let keys = || TokenKeys::generate().expect("a key").and(&old.keys);

    let both = World::with(keys(), &settings(&[DEFAULT_ISSUER])).await.tokens;
    let new_alone = World::with(keys(), &settings(&[])).await.tokens;

    assert!(both.verify(&token).is_ok());
    assert_eq!(new_alone.verify(&token), Err(Refusal::Issuer));
    assert_eq!(both.configuration()["issuer"], "https://gantry.example/x/");
    assert_eq!(both.configuration()["jwks_uri"], "https://gantry.example/x/openid/v1/jwks");
}

#[tokio::test]
async fn who_reads_the_published_keys_can_verify_a_token() {
    let world = World::new().await;
    let token = world.token(&world.make("serviceaccounts", "bot").await, None);

    let keys: jsonwebtoken::jwk::JwkSet = serde_json::from_value(world.tokens.keys().clone()).expect("a set");

    let id = part(&token, 0)["kid"].as_str().expect("a text").to_owned();
    let key = DecodingKey::from_jwk(keys.find(&id).expect("it is there")).expect("a key");
    let mut validation = Validation::new(Algorithm::ES256);
    validation.set_audience(&[DEFAULT_ISSUER]);
    validation.validate_exp = false;
    assert!(jsonwebtoken::decode::<Value>(&token, &key, &validation).is_ok());
}
