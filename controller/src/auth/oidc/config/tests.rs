use super::*;

const GOOD: &str = r#"
apiVersion: apiserver.config.k8s.io/v1
kind: AuthenticationConfiguration
jwt:
- issuer:
    url: https://login.example
    audiences: [gantry]
  claimMappings:
    username: {claim: sub, prefix: "oidc:"}
"#;

const OWN: &str = "https://gantry.internal";

fn parsed(text: &str) -> Result<Vec<Settings>, String> {
    parse("auth.yaml", text, &[OWN.to_owned()]).map_err(|error| error.to_string())
}

/// What is said of the good one with one line of it changed.
fn with(line: &str, other: &str) -> String {
    assert!(GOOD.contains(line), "{line}");
    parsed(&GOOD.replace(line, other)).err().unwrap_or_else(|| "it is taken".to_owned())
}

/// What is said of the good one with further fields of its issuer entry.
fn and(more: &str) -> String {
    parsed(&format!("{GOOD}{more}")).err().unwrap_or_else(|| "it is taken".to_owned())
}

#[test]
fn a_configuration_of_kubernetes_is_taken_in_all_its_versions_and_in_json() {
    let settings = parsed(GOOD).unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(settings.len(), 1);
    assert_eq!(settings[0].place, "jwt[0]");
    assert_eq!(settings[0].discovery, "https://login.example/.well-known/openid-configuration");

    for version in ["v1beta1", "v1alpha1"] {
        assert_eq!(with("k8s.io/v1", &format!("k8s.io/{version}")), "it is taken");
    }
    let value: serde_json::Value = gantry_api::yaml::read_manifest(GOOD).expect("YAML");
    assert!(parsed(&value.to_string()).is_ok());
    let below = GOOD.replace("login.example", "login.example/realms/a/");
    let below = parsed(&below).unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(below[0].discovery, "https://login.example/realms/a/.well-known/openid-configuration");
    assert_eq!(below[0].url, "https://login.example/realms/a/");
}

#[test]
fn everything_that_it_can_say_is_understood() {
    let all = r#"
apiVersion: apiserver.config.k8s.io/v1
kind: AuthenticationConfiguration
jwt:
- issuer:
    url: https://login.example
    discoveryURL: https://inside.example/login/.well-known/openid-configuration
    audiences: [gantry, other]
    audienceMatchPolicy: MatchAny
  claimValidationRules:
  - {claim: hd, requiredValue: example.com}
  - {expression: 'claims.exp - claims.iat <= 86400', message: at most a day}
  claimMappings:
    username: {expression: '"oidc:" + claims.email + (claims.email_verified ? "" : "?")'}
    groups: {expression: 'claims.roles.split(",")'}
    uid: {claim: sub}
    extra: [{key: example.com/tenant, valueExpression: claims.tenant}]
  userValidationRules:
  - {expression: '!user.username.startsWith("oidc:root")', message: root does not come in here}
"#;

    let settings = parsed(all).unwrap_or_else(|error| panic!("{error}"));

    let mapping = &settings[0].mapping;
    assert_eq!((mapping.claim_rules.len(), mapping.user_rules.len(), mapping.extra.len()), (2, 1, 1));
    assert!(mapping.groups.is_some() && mapping.uid.is_some());
    assert_eq!(settings[0].discovery.host(), Some("inside.example"));
}

#[test]
fn the_example_of_the_documentation_is_taken() {
    let text = include_str!("../../../../../docs/authentication.md");
    let examples: Vec<&str> =
        text.split("```yaml\n").skip(1).filter_map(|rest| rest.split("```").next()).collect();
    assert_eq!(examples.len(), 1);

    let settings = parsed(examples[0]).unwrap_or_else(|error| panic!("{error}"));

    assert_eq!(settings.len(), 2);
}

#[test]
fn what_is_no_configuration_is_told_with_the_field() {
    insta::assert_snapshot!(with("apiserver.config.k8s.io/v1", "v1"), @"auth.yaml cannot be used: apiVersion is `v1`: write `apiserver.config.k8s.io/v1`");
    insta::assert_snapshot!(with("AuthenticationConfiguration", "Pod"), @"auth.yaml cannot be used: kind is `Pod`: write `AuthenticationConfiguration`");
    insta::assert_snapshot!(with("    audiences", "    audience"), @"auth.yaml is no AuthenticationConfiguration: jwt[0].issuer.audience: unknown field `audience`, expected one of `url`, `discoveryURL`, `certificateAuthority`, `audiences`, `audienceMatchPolicy`");
    insta::assert_snapshot!(with("{claim: sub, ", "{claim: [sub], "), @"auth.yaml is no AuthenticationConfiguration: jwt[0].claimMappings.username.claim: invalid type: sequence, expected a string");
    insta::assert_snapshot!(with("jwt:", "anonymous: {enabled: true}\njwt:"), @"auth.yaml is no AuthenticationConfiguration: anonymous: unknown field `anonymous`, expected one of `apiVersion`, `kind`, `jwt`");
    insta::assert_snapshot!(parsed("jwt: [").err().unwrap_or_default(), @"auth.yaml is no AuthenticationConfiguration: error: line 1 column 6: unclosed bracket '['");
    insta::assert_snapshot!(with("{claim: sub, prefix: \"oidc:\"}", "7"), @"auth.yaml is no AuthenticationConfiguration: jwt[0].claimMappings.username: invalid type: integer `7`, expected an object");
    insta::assert_snapshot!(parsed("[]").err().unwrap_or_default(), @"auth.yaml is no AuthenticationConfiguration: invalid length 0, expected an object");
    insta::assert_snapshot!(
        parsed("apiVersion: apiserver.config.k8s.io/v1\nkind: AuthenticationConfiguration\n").err().unwrap_or_default(),
        @"auth.yaml cannot be used: jwt must name 1 to 64 issuers"
    );
}

#[test]
fn what_an_issuer_must_be_is_told_with_the_field() {
    insta::assert_snapshot!(with("https://login.example", "http://login.example"), @"auth.yaml cannot be used: jwt[0].issuer.url must be an https URL without user, query and fragment, as `https://login.example`");
    for wrong in [
        "https://u@login.example",
        "https://login.example?a=b",
        "https://login.example#a",
        "https://",
        "login",
    ] {
        assert!(
            with("https://login.example", &format!("'{wrong}'")).contains("jwt[0].issuer.url must be"),
            "{wrong}"
        );
    }
    insta::assert_snapshot!(with("https://login.example", OWN), @"auth.yaml cannot be used: jwt[0].issuer.url is the issuer of our own ServiceAccounts' tokens, which need no entry: remove it");
    insta::assert_snapshot!(with("[gantry]", "[]"), @"auth.yaml cannot be used: jwt[0].issuer.audiences is missing: name the clients whose tokens are meant for this API");
    insta::assert_snapshot!(with("[gantry]", "[a, '', a]\n    audienceMatchPolicy: MatchAny"), @"auth.yaml cannot be used: jwt[0].issuer.audiences[1] is empty: name a client, or remove it; jwt[0].issuer.audiences[2] stands there before: remove it");
    insta::assert_snapshot!(with("[gantry]", "[a, b]"), @"auth.yaml cannot be used: jwt[0].issuer.audienceMatchPolicy must be `MatchAny`");
    insta::assert_snapshot!(with("[gantry]", "[a]\n    audienceMatchPolicy: All"), @"auth.yaml cannot be used: jwt[0].issuer.audienceMatchPolicy must be `MatchAny`");
    insta::assert_snapshot!(with("[gantry]", "[a]\n    discoveryURL: https://login.example/"), @"auth.yaml cannot be used: jwt[0].issuer.discoveryURL is the issuer itself: name the whole URL of the document, or leave it out");
    insta::assert_snapshot!(with("[gantry]", "[a]\n    discoveryURL: http://inside.example/x"), @"auth.yaml cannot be used: jwt[0].issuer.discoveryURL must be an https URL without user, query and fragment, as `https://login.example`");
    insta::assert_snapshot!(with("[gantry]", "[a]\n    certificateAuthority: /etc/ca.pem"), @"auth.yaml cannot be used: jwt[0].issuer.certificateAuthority holds no certificates as PEM: write the CA's certificate itself, not the name of a file");
    let entry = GOOD.split("jwt:").nth(1).expect("it has one");
    insta::assert_snapshot!(and(entry), @"auth.yaml cannot be used: jwt[1].issuer.url stands there before: write one entry for each issuer");
    let many: String = (0..65).map(|number| entry.replace("login", &format!("login-{number}"))).collect();
    let many = GOOD.split("jwt:").next().expect("a head").to_owned() + "jwt:" + &many;
    insta::assert_snapshot!(parsed(&many).err().unwrap_or_default(), @"auth.yaml cannot be used: jwt must name 1 to 64 issuers");
}

#[test]
fn what_a_mapping_must_be_is_told_with_the_field() {
    let username = "{claim: sub, prefix: \"oidc:\"}";
    insta::assert_snapshot!(with(username, "{claim: sub}"), @r#"auth.yaml cannot be used: jwt[0].claimMappings.username.prefix is missing: give one, as `oidc:`, or "" for none"#);
    insta::assert_snapshot!(with(username, "{}"), @"auth.yaml cannot be used: jwt[0].claimMappings.username is missing: set `claim` with `prefix`, or `expression`");
    insta::assert_snapshot!(with(username, "{prefix: a}"), @"auth.yaml cannot be used: jwt[0].claimMappings.username.prefix belongs to `claim`: set `claim`");
    insta::assert_snapshot!(with(username, "{claim: sub, prefix: a, expression: claims.sub}"), @"auth.yaml cannot be used: jwt[0].claimMappings.username has both `claim` and `expression`: keep one");
    insta::assert_snapshot!(with(username, "{expression: claims.sub, prefix: a}"), @"auth.yaml cannot be used: jwt[0].claimMappings.username.prefix belongs to `claim`: say it in the expression");
    insta::assert_snapshot!(with(username, "{claim: sub, prefix: 'system:'}"), @"auth.yaml cannot be used: jwt[0].claimMappings.username.prefix begins with `system:`, which no issuer can give: choose another");
    insta::assert_snapshot!(with(username, "{expression: claim.sub}"), @"auth.yaml cannot be used: jwt[0].claimMappings.username.expression names `claim`, which is not there: it sees `claims` alone");
    insta::assert_snapshot!(with(username, "{expression: claims.email}"), @"auth.yaml cannot be used: jwt[0].claimMappings.username.expression takes `claims.email`: ask for `claims.email_verified` too, there or in a claimValidationRule");
    assert_eq!(with(username, "{claim: sub, prefix: ''}"), "it is taken");
    assert_eq!(
        with(username, "{expression: 'claims.?email_verified.orValue(true) ? claims.email : claims.sub'}"),
        "it is taken"
    );
    insta::assert_snapshot!(and("    groups: {claim: groups}\n"), @r#"auth.yaml cannot be used: jwt[0].claimMappings.groups.prefix is missing: give one, as `oidc:`, or "" for none"#);
    insta::assert_snapshot!(and("    uid: {claim: sub, expression: claims.sub}\n"), @"auth.yaml cannot be used: jwt[0].claimMappings.uid has both `claim` and `expression`: keep one");
    insta::assert_snapshot!(
        and("    extra: [{key: Team, valueExpression: ''}, {key: a.k8s.io/x, valueExpression: claims.a}, {key: a.b/x, valueExpression: claims.a}, {key: a.b/x, valueExpression: user.a}]\n"),
        @"auth.yaml cannot be used: jwt[0].claimMappings.extra[0].key must be a domain and a path in lower case, as `example.com/team`; jwt[0].claimMappings.extra[0].valueExpression is missing: write a CEL expression; jwt[0].claimMappings.extra[1].key is of a domain that is Kubernetes' own: choose one of yours; jwt[0].claimMappings.extra[3].key stands there before: remove it; jwt[0].claimMappings.extra[3].valueExpression names `user`, which is not there: it sees `claims` alone"
    );
}

#[test]
fn what_a_rule_must_be_is_told_with_the_field() {
    insta::assert_snapshot!(
        and("  claimValidationRules: [{}, {claim: a, expression: 'true'}, {claim: a, message: m}, {expression: 'true', requiredValue: v}, {claim: a}]\n"),
        @"auth.yaml cannot be used: jwt[0].claimValidationRules[0] asks for nothing: set `claim` or `expression`; jwt[0].claimValidationRules[1] has both `claim` and `expression`: keep one; jwt[0].claimValidationRules[2].message belongs to `expression`: remove it; jwt[0].claimValidationRules[3].requiredValue belongs to `claim`: say it in the expression; jwt[0].claimValidationRules[4] stands there before: remove it"
    );
    insta::assert_snapshot!(
        and("  userValidationRules: [{}, {expression: claims.sub}, {expression: 'true'}, {expression: 'true'}]\n"),
        @"auth.yaml cannot be used: jwt[0].userValidationRules[0].expression is missing: say what must be so; jwt[0].userValidationRules[1].expression names `claims`, which is not there: it sees `user` alone; jwt[0].userValidationRules[3] stands there before: remove it"
    );
}

#[test]
fn a_file_that_is_not_there_or_endless_is_told_by_its_name() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("auth.yaml");
    let why = || super::read(&path, &[]).err().map(|error| error.to_string()).unwrap_or_default();

    assert_eq!(why(), format!("cannot read {}", path.display()));
    std::fs::write(&path, "#".repeat(2 << 20)).expect("written");
    assert!(why().ends_with("is longer than 1 MiB: it is no authentication configuration"));
    std::fs::write(&path, GOOD).expect("written");
    assert_eq!(why(), "");
}
