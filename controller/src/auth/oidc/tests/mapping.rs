//! Claims become a caller, or nobody.

use super::*;

/// An issuer with these mappings and rules instead of the usual ones.
fn desk(mappings: &str) -> (Desk, Signer) {
    let signer = Signer::ec("k");
    let head = CONFIGURATION.split("  claimMappings").next().expect("a head");
    (Desk::of(&format!("{head}{mappings}"), &signer.set()), signer)
}

async fn caller(mappings: &str, more: &Value) -> Result<Caller, Refusal> {
    let (desk, signer) = desk(mappings);
    let mut claims = desk.claims("sub", json!("ada"));
    let fields = claims.as_object_mut().expect("an object");
    fields.extend(more.as_object().expect("an object").clone());
    desk.caller(&signer.sign(Algorithm::ES256, &claims)).await
}

#[tokio::test]
async fn expressions_give_all_that_a_caller_is() {
    let mappings = r#"
  claimMappings:
    username: {expression: '"oidc:" + claims.sub.upperAscii()'}
    groups: {expression: 'claims.roles.map(role, "role:" + role)'}
    uid: {claim: oid}
    extra:
    - {key: example.com/tenant, valueExpression: claims.tenant}
    - {key: example.com/nothing, valueExpression: 'claims.?absent.orValue("")'}
"#;
    let known = caller(mappings, &json!({"roles": ["a", "b"], "oid": "u-1", "tenant": ["t"]})).await;

    let known = known.unwrap_or_else(|why| panic!("{why}"));
    assert_eq!((&*known.user, known.uid.as_deref()), ("oidc:ADA", Some("u-1")));
    let groups: Vec<&str> = known.groups.iter().map(|group| &**group).collect();
    assert_eq!(groups, ["role:a", "role:b", "system:authenticated"]);
    assert_eq!(*known.extra, [("example.com/tenant".to_owned(), vec!["t".to_owned()])].into());

    for (lacks, why) in [("roles", "groups"), ("oid", "uid"), ("tenant", "extra")] {
        let mut claims = json!({"roles": ["a", "b"], "oid": "u-1", "tenant": ["t"]});
        claims.as_object_mut().expect("an object").remove(lacks);
        assert_eq!(caller(mappings, &claims).await.err(), Some(Refusal::Claim(why)));
    }
}

#[tokio::test]
async fn t02_no_issuer_makes_an_admin_or_one_of_our_own_parts() {
    let bare = "  claimMappings: {username: {claim: sub, prefix: ''}, groups: {claim: groups, prefix: ''}}";
    let spelled =
        "  claimMappings: {username: {claim: sub, prefix: 'sys'}, groups: {expression: 'claims.groups'}}";
    let fixed =
        "  claimMappings: {username: {claim: sub, prefix: ''}, groups: {expression: '[\"system:masters\"]'}}";
    let prefixed =
        "  claimMappings: {username: {claim: sub, prefix: 'o:'}, groups: {claim: groups, prefix: 'o:'}}";
    let masters = json!({"groups": ["dev", "system:masters"]});

    for mappings in [bare, spelled, fixed] {
        assert_eq!(caller(mappings, &masters).await, Err(Refusal::Reserved), "{mappings}");
    }
    for user in ["system:gantry:operation-reconciler", "system:serviceaccount:shop:bot"] {
        assert_eq!(caller(bare, &json!({"sub": user})).await, Err(Refusal::Reserved));
    }
    assert_eq!(caller(spelled, &json!({"sub": "tem:masters"})).await, Err(Refusal::Reserved));

    let known = caller(prefixed, &masters).await.unwrap_or_else(|why| panic!("{why}"));
    assert!(!known.is_admin());
    assert!(known.groups.iter().any(|group| &**group == "o:system:masters"));
    assert!(caller(bare, &json!({"groups": ["dev"]})).await.is_ok());
}

#[tokio::test]
async fn t02_an_address_is_a_user_name_only_once_it_was_verified() {
    let by_claim = "  claimMappings: {username: {claim: email, prefix: ''}}";
    let by_expression = "  claimMappings: {username: {expression: 'claims.?email_verified.orValue(true) ? claims.email : \"\"'}}";
    let with = |verified: Value| json!({"email": "ada@example.com", "email_verified": verified});

    let known = caller(by_claim, &with(json!(true))).await.unwrap_or_else(|why| panic!("{why}"));
    assert_eq!(&*known.user, "ada@example.com");
    for not in [json!(false), json!("true"), Value::Null] {
        assert_eq!(caller(by_claim, &with(not)).await, Err(Refusal::EmailNotVerified));
    }
    assert_eq!(caller(by_claim, &json!({"email": "ada@example.com"})).await, Err(Refusal::EmailNotVerified));

    assert!(caller(by_expression, &json!({"email": "ada@example.com"})).await.is_ok());
    assert_eq!(caller(by_expression, &with(json!(false))).await, Err(Refusal::Claim("username")));
}

#[tokio::test]
async fn t02_who_breaks_a_rule_is_nobody() {
    let rules = r#"
  claimValidationRules:
  - {claim: hd, requiredValue: example.com}
  - {expression: 'claims.exp - claims.iat <= 600', message: ten minutes at most}
  claimMappings:
    username: {claim: sub, prefix: ""}
    groups: {claim: groups, prefix: ""}
  userValidationRules:
  - {expression: 'user.username != "root" && !("banned" in user.groups)', message: not these}
"#;
    let refused = |place: &str, message: &str| {
        Err(Refusal::Rule { place: format!("jwt[0].{place}"), message: message.to_owned() })
    };
    let good = json!({"hd": "example.com"});
    assert!(caller(rules, &good).await.is_ok());

    let claim = refused("claimValidationRules[0]", "");
    for other in [json!({}), json!({"hd": "example.org"}), json!({"hd": ["example.com"]})] {
        assert_eq!(caller(rules, &other).await, claim);
    }
    let lasting = refused("claimValidationRules[1]", "ten minutes at most");
    assert_eq!(caller(rules, &json!({"hd": "example.com", "iat": 0})).await, lasting);
    assert_eq!(
        caller(rules, &json!({"hd": "example.com", "iat": null})).await,
        lasting,
        "an error lets nobody in"
    );
    let user = refused("userValidationRules[0]", "not these");
    assert_eq!(caller(rules, &json!({"hd": "example.com", "sub": "root"})).await, user);
    assert_eq!(caller(rules, &json!({"hd": "example.com", "groups": ["banned"]})).await, user);
}
