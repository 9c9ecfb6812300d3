//! What expressions give, and which are refused.

use serde_json::json;

use super::*;

fn scope() -> Scope {
    Scope::new(
        "claims",
        &json!({
        "sub": "ada", "exp": 1_000, "iat": 400, "roles": ["dev", "ops"], "a.b": "dotted", "empty": [],
        "nested": {"team": "red"}, "verified": true, "mixed": ["a", 1]}),
    )
}

fn compiled(text: &str) -> Expression {
    Expression::compile(text, "claims").unwrap_or_else(|error| panic!("{text} {error}"))
}

#[test]
fn what_an_expression_gives_is_taken_by_its_type() {
    let text = |text: &str| compiled(text).text(&scope());
    assert_eq!(text("'x:' + claims.sub").as_deref(), Some("x:ada"));
    assert_eq!(text("claims['a.b']").as_deref(), Some("dotted"));
    assert_eq!(text("claims.nested.team.upperAscii()").as_deref(), Some("RED"));
    assert_eq!(text("claims.?absent.orValue('none')").as_deref(), Some("none"));
    assert_eq!(text("claims.?nested.?team.orValue('none')").as_deref(), Some("red"));
    assert_eq!(text("claims.?nested.?absent.orValue('none')").as_deref(), Some("none"));
    assert_eq!(text("claims.?absent.?team.orValue('none')").as_deref(), Some("none"));
    assert_eq!(text("claims.exp"), None);
    assert_eq!(text("claims.absent"), None);

    let texts = |text: &str| compiled(text).texts(&scope());
    assert_eq!(texts("claims.roles.map(role, 'x:' + role)"), Some(vec!["x:dev".into(), "x:ops".into()]));
    assert_eq!(texts("claims.sub"), Some(vec!["ada".into()]));
    for none in ["claims.empty", "''", "null", "['']", "claims.roles.filter(role, role == 'x')"] {
        assert_eq!(texts(none), Some(Vec::new()), "{none}");
    }
    for wrong in ["claims.mixed", "claims.exp", "claims.absent", "claims.nested"] {
        assert_eq!(texts(wrong), None, "{wrong}");
    }
}

#[test]
fn only_what_is_true_holds() {
    for holds in [
        "claims.exp - claims.iat <= 600",
        "claims.verified",
        "has(claims.sub) && !has(claims.absent)",
        "claims.roles.exists(role, role == 'ops') && claims.roles.all(role, role.size() == 3)",
        "sets.contains(claims.roles, ['ops'])",
        "claims.sub.matches('^a[a-z]+$') && claims.sub in ['ada']",
    ] {
        assert!(compiled(holds).holds(&scope()), "{holds}");
    }
    for no in ["false", "claims.sub", "claims.absent", "claims.sub > 3", "1"] {
        assert!(!compiled(no).holds(&scope()), "{no}");
    }
}

#[test]
fn what_cannot_work_is_told_before_a_token_comes() {
    let why = |text: &str| Expression::compile(text, "claims").err().unwrap_or_default();
    insta::assert_snapshot!(why("user.username"), @"names `user`, which is not there: it sees `claims` alone");
    insta::assert_snapshot!(why("claims.roles.map(role, rule)"), @"names `rule`, which is not there: it sees `claims` alone");
    insta::assert_snapshot!(why("claims.sub.startWith('a')"), @"calls `startWith`, which is no function here");
    insta::assert_snapshot!(why("isMember(claims)"), @"calls `isMember`, which is no function here");
    assert!(why("claims.").starts_with("is no CEL expression: "));
    assert!(why("").starts_with("is missing"));
    assert!(why(&"1+".repeat(5_000)).starts_with("is longer than"));
    for tower in ["(", "[", "{1:", "!(", "claims[", "size("] {
        assert!(why(&tower.repeat(500)).starts_with("is n"), "{tower}");
    }
    // Whatever is said of these, they do not end the process.
    for tower in ["1+", "!", "-", "claims.a.", "true?1:", "a&&", "a.b(1)."] {
        for times in [20, 31, 64, LONGEST / tower.len() - 1] {
            let text = format!("{}1", tower.repeat(times));
            let _ = Expression::compile(&text, "claims").map(|expression| expression.holds(&scope()));
        }
    }
    assert!(why(&format!("{}1", "1+".repeat(40))).contains("levels deep"));
}

#[test]
fn the_claims_that_it_names_are_known_however_they_are_written() {
    for text in
        ["claims.email", "claims['email']", "claims.?email.orValue('')", "claims[?'email'].orValue('')"]
    {
        assert!(compiled(text).names("email"), "{text}");
    }
    assert!(!compiled("claims.nested.email").names("email"));
}
