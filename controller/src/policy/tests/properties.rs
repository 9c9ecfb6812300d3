//! What holds of all policies, whatever is asked.

use gantry_api::v1alpha1::PolicyAction;
use proptest::prelude::*;

use super::*;

/// As often as the environment says, or a few times, since every expression is compiled.
fn few() -> ProptestConfig {
    let cases = std::env::var("PROPTEST_CASES").ok().and_then(|cases| cases.parse().ok()).unwrap_or(64);
    ProptestConfig { cases, ..ProptestConfig::default() }
}

fn specs() -> impl Strategy<Value = Value> {
    let expressions = prop::sample::select(vec![
        "true",
        "false",
        "request.user == 'ada'",
        "request.container.privileged",
        "request.instance.labels.site == 'hamburg'",
        "request.mounts.all(m, m.source != '/')",
        "has(request.image) && request.image.server == 'docker.io'",
        "request.nothing",
        "request.user",
        "1 / (size(request.groups) - 1) == 0",
    ]);
    let actions = prop::sample::subsequence(vec!["Create", "Pull", "Stop"], 0..=3);
    let mode = prop::sample::select(vec!["Enforce", "Warn", "Audit"]);
    (mode, actions, prop::collection::vec(expressions, 1..4)).prop_map(|(mode, actions, expressions)| {
        let rules = expressions.iter().enumerate();
        let rules: Vec<_> =
            rules.map(|(number, text)| json!({"name": format!("r{number}"), "expression": text})).collect();
        json!({"mode": mode, "match": {"actions": actions}, "rules": rules})
    })
}

fn subjects() -> impl Strategy<Value = Subject> {
    let action = prop::sample::select(vec![PolicyAction::Create, PolicyAction::Pull, PolicyAction::Stop]);
    let binds = prop::collection::vec("[a-z/.:]{0,12}", 0..3);
    (action, any::<bool>(), any::<bool>(), binds, "\\PC{0,600}").prop_map(
        |(action, is_made, is_privileged, binds, user)| {
            let container = is_made.then(|| Container { privileged: is_privileged, ..Container::default() });
            let mounts = binds.iter().flat_map(|bind| bound(bind).mounts).collect();
            Subject { action, user, container, mounts, ..subject() }
        },
    )
}

proptest! {
    #![proptest_config(few())]

    /// So nobody gets something by adding a policy, or by what a policy is called.
    #[test]
    fn policies_only_ever_take_away_and_in_any_order(specs in prop::collection::vec(specs(), 1..5), subject in subjects()) {
        let policies: Vec<Compiled> = specs.iter().map(policy).collect();

        let all = judge(&policies, &subject);
        let backwards = judge(policies.iter().rev(), &subject);
        let fewer = judge(policies.iter().skip(1), &subject);

        prop_assert_eq!(all.denied.is_empty(), backwards.denied.is_empty());
        prop_assert!(fewer.denied.len() <= all.denied.len());
        let alone = policies.iter().all(|policy| judge([policy], &subject).denied.is_empty());
        prop_assert_eq!(all.denied.is_empty(), alone);
    }

    /// The one normal form is a fixed point, and no way to write a path leaves it.
    #[test]
    fn a_path_has_one_spelling(path in "(/|\\.|\\.\\.|proc|1|root|self|cwd|task|fd|dev|etc|[a-z]{1,3}){0,12}") {
        let once = host_path(&path);
        prop_assert_eq!(host_path(&once), once.clone());
        prop_assert!(once.starts_with('/') && !once.contains("//"));
        prop_assert!(!once.split('/').any(|segment| matches!(segment, "." | "..")));
        prop_assert_eq!(host_path(&format!("/{path}/x/.././/")), once);
    }
}
