//! Tokens and what they say. The life of the keys is in [`life`], with an issuer over TLS.

mod idp;
mod life;
mod mapping;

use jiff::SignedDuration;
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use serde_json::json;

use self::idp::Signer;
use super::*;
use crate::auth::world::{ADMIN_TOKEN, Hands, World};
use crate::clock::{Clock as _, SystemEntropy};

const ISSUER: &str = "https://login.example";

/// One issuer whose keys are known and are fetched no more.
pub(super) struct Desk {
    pub clock: Arc<Hands>,
    pub issuers: Issuers,
}

impl Desk {
    pub fn with(keys: &Value) -> Self {
        Self::of(CONFIGURATION, keys)
    }

    pub fn of(configuration: &str, keys: &Value) -> Self {
        let settings =
            config::parse("auth.yaml", configuration, &[]).unwrap_or_else(|error| panic!("{error}"));
        let clock = Arc::new(Hands::at("2026-06-01T12:00:00Z"));
        let (shared, entropy): (SharedClock, SharedEntropy) = (clock.clone(), Arc::new(SystemEntropy));
        let metrics = Metrics::new().expect("registers once");
        let issuers = Issuers::new(settings, TIMING, &shared, &entropy, &metrics).expect("it is set up");
        let keys = KeySet::read(keys.to_string().as_bytes()).expect("keys");
        issuers.0[0].known.send_modify(|known| {
            known.keys = Some(Arc::new(keys));
            known.is_wanted = false;
            known.early_from = Instant::now() + Duration::from_hours(1);
        });
        Self { clock, issuers }
    }

    pub fn now(&self) -> i64 {
        self.clock.now().as_second()
    }

    /// What a good token says, with one claim changed; null takes it out.
    pub fn claims(&self, claim: &str, value: Value) -> Value {
        let now = self.now();
        let mut claims = json!({"iss": ISSUER, "aud": ["gantry", "other"], "sub": "ada", "exp": now + 600, "iat": now,
            "groups": ["dev"]});
        let fields = claims.as_object_mut().expect("an object");
        fields.insert(claim.to_owned(), value);
        fields.retain(|_, value| !value.is_null());
        claims
    }

    pub async fn caller(&self, token: &str) -> Result<Caller, Refusal> {
        self.issuers.bearer(token).await.expect("it names the issuer").map(|(caller, _)| caller)
    }

    pub async fn refusal(&self, token: &str) -> Option<Refusal> {
        self.caller(token).await.err()
    }
}

pub(super) const CONFIGURATION: &str = r#"
apiVersion: apiserver.config.k8s.io/v1
kind: AuthenticationConfiguration
jwt:
- issuer:
    url: https://login.example
    audiences: [gantry, gantry-too]
    audienceMatchPolicy: MatchAny
  claimMappings:
    username: {claim: sub, prefix: "oidc:"}
    groups: {claim: groups, prefix: "oidc:"}
"#;

#[tokio::test]
async fn a_token_is_the_user_of_its_claims_by_every_algorithm_that_is_accepted() {
    let signers = Signer::of_all_kinds();
    let keys: Vec<Value> = signers.iter().map(|(signer, _)| signer.jwk()).collect();
    let desk = Desk::with(&json!({"keys": keys}));

    for (signer, algorithms) in &signers {
        for algorithm in *algorithms {
            let token = signer.sign(*algorithm, &desk.claims("jti", json!("t-1")));
            let caller = desk.caller(&token).await.unwrap_or_else(|why| panic!("{algorithm:?}: {why}"));

            assert_eq!(&*caller.user, "oidc:ada");
            let groups: Vec<&str> = caller.groups.iter().map(|group| &**group).collect();
            assert_eq!(groups, ["oidc:dev", "system:authenticated"]);
            assert_eq!(caller.extra.get(crate::auth::CREDENTIAL_ID), Some(&vec!["JTI=t-1".to_owned()]));
        }
    }
}

#[tokio::test]
async fn t02_a_token_that_is_not_for_us_or_not_for_now_is_nobody() {
    let signer = Signer::ec("k");
    let desk = Desk::with(&signer.set());
    let now = desk.now();

    for (claim, value, why) in [
        ("aud", json!("gantry"), None),
        ("aud", json!("gantry-too"), None),
        ("aud", json!("vault"), Some(Refusal::Audience)),
        ("aud", json!(["vault", "Gantry", "gantry "]), Some(Refusal::Audience)),
        ("aud", json!([]), Some(Refusal::Audience)),
        ("aud", json!({"gantry": true}), Some(Refusal::Audience)),
        ("aud", Value::Null, Some(Refusal::Audience)),
        ("exp", json!(now + 1), None),
        ("exp", json!(now), Some(Refusal::Expired)),
        ("exp", json!(now as f64 + 0.5), Some(Refusal::Expired)),
        ("exp", json!(now as f64 + 1.5), None),
        ("exp", json!(0), Some(Refusal::Expired)),
        ("exp", Value::Null, Some(Refusal::Malformed)),
        ("exp", json!("never"), Some(Refusal::Malformed)),
        ("exp", json!(1e300), Some(Refusal::Malformed)),
        ("nbf", json!(now + 300), None),
        ("nbf", json!(now + 301), Some(Refusal::NotYet)),
        ("nbf", json!(i64::MAX), Some(Refusal::NotYet)),
        ("nbf", json!("now"), Some(Refusal::Malformed)),
        ("sub", Value::Null, Some(Refusal::Claim("username"))),
        ("sub", json!(""), Some(Refusal::Claim("username"))),
        ("sub", json!(7), Some(Refusal::Claim("username"))),
        ("groups", Value::Null, None),
        ("groups", json!("dev"), None),
        ("groups", json!([1]), Some(Refusal::Claim("groups"))),
        ("groups", json!({"dev": true}), Some(Refusal::Claim("groups"))),
    ] {
        let told = format!("{claim}: {value}");
        let token = signer.sign(Algorithm::ES256, &desk.claims(claim, value));
        assert_eq!(desk.refusal(&token).await, why, "{told}");
    }
}

#[tokio::test]
async fn t02_a_token_of_another_issuer_is_none_of_these() {
    let signer = Signer::ec("k");
    let desk = Desk::with(&signer.set());

    for issuer in [
        json!("https://login.example/"),
        json!("https://LOGIN.example"),
        json!("x"),
        json!([ISSUER]),
        Value::Null,
    ] {
        let token = signer.sign(Algorithm::ES256, &desk.claims("iss", issuer.clone()));
        assert!(desk.issuers.bearer(&token).await.is_none(), "{issuer}");
    }
    for text in ["", "x", "x.y.z", "..", "a.e30.b"] {
        assert!(desk.issuers.bearer(text).await.is_none(), "{text}");
    }
}

#[tokio::test]
async fn t02_a_token_with_another_signature_or_algorithm_is_nobody() {
    let (rsa, ec, stranger) = (Signer::rsa("rsa"), Signer::ec("ec"), Signer::ec("ec"));
    let desk = Desk::with(&json!({"keys": [rsa.jwk(), ec.jwk()]}));
    let claims = desk.claims("sub", json!("ada"));
    let good = ec.sign(Algorithm::ES256, &claims);
    let [head, body, signature] = good.split('.').collect::<Vec<_>>().try_into().expect("three parts");
    let encoded = |value: Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let none = |name: &str| format!("{}.{body}", encoded(json!({"alg": name, "kid": "ec"})));
    let root = encoded(desk.claims("sub", json!("root")));
    let header =
        |algorithm, id: Option<&str>| Header { kid: id.map(str::to_owned), ..Header::new(algorithm) };
    let with_header = |header: &Header| jsonwebtoken::encode(header, &claims, &ec.key).expect("it signs");

    let mut cases = vec![
        (format!("{}.", none("none")), Refusal::Malformed),
        (format!("{}.", none("None")), Refusal::Malformed),
        (format!("{}.{signature}", none("none")), Refusal::Malformed),
        (format!("{head}.{body}."), Refusal::Signature),
        (format!("{head}.{root}.{signature}"), Refusal::Signature),
        (stranger.sign(Algorithm::ES256, &claims), Refusal::Signature),
        (with_header(&header(Algorithm::ES256, Some("another"))), Refusal::Key),
        (with_header(&header(Algorithm::ES256, Some("rsa"))), Refusal::Key),
        (rsa.sign_as("ec", Algorithm::RS256, &claims), Refusal::Key),
        (
            with_header(&Header {
                crit: Some(vec!["exp".to_owned()]),
                ..header(Algorithm::ES256, Some("ec"))
            }),
            Refusal::Header,
        ),
        (stranger.sign_with_own_key_in_the_header(&claims), Refusal::Signature),
        (format!("{head}.{body}.{signature}.{signature}"), Refusal::Malformed),
    ];
    // What is public, as the secret of another algorithm.
    let jwk = rsa.jwk();
    let modulus = jwk["n"].as_str().expect("a text");
    for secret in [rsa.public_pem().as_bytes(), jwk.to_string().as_bytes(), modulus.as_bytes()] {
        for algorithm in [Algorithm::HS256, Algorithm::HS384, Algorithm::HS512] {
            let header = header(algorithm, Some("rsa"));
            let token =
                jsonwebtoken::encode(&header, &claims, &EncodingKey::from_secret(secret)).expect("it signs");
            cases.push((token, Refusal::Header));
        }
    }
    for (token, why) in cases {
        let refusal = match desk.issuers.bearer(&token).await {
            Some(known) => known.err(),
            None => Some(Refusal::Malformed),
        };
        assert_eq!(refusal, Some(why), "{token}");
    }
    assert_eq!(desk.refusal(&good).await, None);
    let long = ec.sign(Algorithm::ES256, &desk.claims("more", json!("x".repeat(LONGEST))));
    assert!(desk.issuers.bearer(&long).await.is_none());
}

#[tokio::test]
async fn t02_a_key_verifies_only_what_it_is_for() {
    let (rsa, ec) = (Signer::rsa("rsa"), Signer::ec("ec"));
    let outcome = async |signer: &Signer, algorithm: Algorithm, field: &str, value: Value| {
        let mut jwk = signer.jwk();
        jwk[field] = value;
        let desk = Desk::with(&json!({"keys": [jwk, Signer::ec("spare").jwk()]}));
        desk.refusal(&signer.sign(algorithm, &desk.claims("sub", json!("ada")))).await
    };

    for (algorithm, field, value, why) in [
        (Algorithm::RS256, "alg", json!("RS256"), None),
        (Algorithm::PS256, "alg", json!("RS256"), Some(Refusal::Key)),
        (Algorithm::RS256, "alg", json!("RS512"), Some(Refusal::Key)),
        (Algorithm::RS256, "alg", json!("RSA-OAEP"), Some(Refusal::Key)),
        (Algorithm::RS256, "alg", json!("HS256"), Some(Refusal::Key)),
        (Algorithm::RS256, "use", json!("sig"), None),
        (Algorithm::RS256, "use", json!("enc"), Some(Refusal::Key)),
        (Algorithm::RS256, "key_ops", json!(["verify"]), None),
        (Algorithm::RS256, "key_ops", json!(["encrypt"]), Some(Refusal::Key)),
        (Algorithm::RS256, "n", json!(URL_SAFE_NO_PAD.encode([255; 64])), Some(Refusal::Key)),
        (Algorithm::RS256, "n", json!(URL_SAFE_NO_PAD.encode([255; 1024])), Some(Refusal::Key)),
        (Algorithm::RS256, "kty", json!("oct"), Some(Refusal::Key)),
    ] {
        let told = format!("{algorithm:?} {field}: {value}");
        assert_eq!(outcome(&rsa, algorithm, field, value).await, why, "{told}");
    }
    assert_eq!(outcome(&ec, Algorithm::ES256, "crv", json!("P-384")).await, Some(Refusal::Key));
    assert_eq!(outcome(&ec, Algorithm::ES256, "crv", json!("P-521")).await, Some(Refusal::Key));
    // One that is too short would be read beyond its end.
    let ed = Signer::ed("ed");
    assert_eq!(outcome(&ed, Algorithm::EdDSA, "x", json!("AAAA")).await, Some(Refusal::Key));
    assert_eq!(outcome(&ed, Algorithm::EdDSA, "use", json!("sig")).await, None);
}

#[tokio::test]
async fn a_token_that_names_no_key_means_the_only_one_that_fits() {
    let (rsa, ec, other) = (Signer::rsa("rsa"), Signer::ec("ec"), Signer::ec("other"));
    let one = Desk::with(&json!({"keys": [rsa.jwk(), ec.jwk()]}));
    let two = Desk::with(&json!({"keys": [other.jwk(), ec.jwk()]}));
    let claims = one.claims("sub", json!("ada"));
    let token = jsonwebtoken::encode(&Header::new(Algorithm::ES256), &claims, &ec.key).expect("it signs");

    assert_eq!(one.refusal(&token).await, None);
    assert_eq!(two.refusal(&token).await, Some(Refusal::Key));
}

#[test]
fn what_is_no_set_of_keys_is_none() {
    let read = |value: Value| KeySet::read(value.to_string().as_bytes()).err();
    let good = Signer::ec("k").jwk();

    assert_eq!(
        read(json!({"keys": [{"kty": "future"}, 7, {"kty": "oct", "k": "AAAA"}, good.clone()]})),
        None
    );
    assert_eq!(read(json!({"keys": [{"kty": "oct", "k": "AAAA", "kid": "k"}]})), Some(keys::Unusable::None));
    assert_eq!(read(json!({"keys": []})), Some(keys::Unusable::None));
    assert_eq!(read(json!({"keys": vec![good; 101]})), Some(keys::Unusable::TooMany));
    assert_eq!(read(json!([])), Some(keys::Unusable::Malformed));
}

#[tokio::test]
async fn who_holds_another_credential_is_known_by_it_as_before() {
    let (world, signer) = (World::new().await, Signer::ec("k"));
    let desk = Desk::with(&signer.set());
    let authenticator = world.authenticator().with_issuers(desk.issuers.clone());
    let user = async |token: &str| {
        let mut request = http::Request::builder()
            .header("authorization", format!("Bearer {token}"))
            .body(())
            .expect("one");
        authenticator.identify(None, std::net::Ipv4Addr::LOCALHOST.into(), &mut request).await;
        request.extensions().get::<Caller>().map(|caller| caller.user.to_string())
    };
    let account = world.token(&world.make("serviceaccounts", "bot").await, None);
    let of_issuer = signer.sign(Algorithm::ES256, &desk.claims("sub", json!("ada")));
    let for_another = signer.sign(Algorithm::ES256, &desk.claims("aud", json!("vault")));
    let as_ours = signer.sign(Algorithm::ES256, &desk.claims("iss", json!("https://gantry.internal")));

    assert_eq!(user(&of_issuer).await.as_deref(), Some("oidc:ada"));
    assert_eq!(user(&account).await.as_deref(), Some("system:serviceaccount:shop:bot"));
    assert_eq!(user(ADMIN_TOKEN).await.as_deref(), Some("gantry-admin"));
    for nobody in [for_another.as_str(), as_ours.as_str(), "x.y.z", ""] {
        assert_eq!(user(nobody).await, None, "{nobody}");
    }
}

#[tokio::test(start_paused = true)]
async fn t11_what_an_issuers_user_has_opened_ends_with_the_token() {
    let signer = Signer::ec("k");
    let desk = Desk::with(&signer.set());
    let token = signer.sign(Algorithm::ES256, &desk.claims("sub", json!("ada")));
    let (_, tenure) = desk.issuers.bearer(&token).await.expect("named").expect("it is known");
    let soon = Duration::from_secs(5);
    assert!(tokio::time::timeout(soon, tenure.ended()).await.is_err(), "it goes on");

    desk.clock.forward(SignedDuration::from_secs(600));

    assert!(tokio::time::timeout(soon, tenure.ended()).await.is_ok());
}
