//! Whether somebody who holds some rules may give another one away.

use k8s_openapi::api::rbac::v1::PolicyRule;

use super::rules::{is_below, is_resource};

const ALL: &str = "*";

/// The parts of `given` that no rule of `held` covers: one verb on one resource, object or path each. Empty where everything is.
///
/// A part has to be covered by one rule as a whole, so that nobody puts a right together from pieces that were never meant as one.
pub fn uncovered(held: &[&PolicyRule], given: &PolicyRule) -> Vec<PolicyRule> {
    parts(given).into_iter().filter(|part| !held.iter().any(|rule| covers(rule, part))).collect()
}

/// Breaks a rule up until each part has one verb and one thing.
fn parts(rule: &PolicyRule) -> Vec<PolicyRule> {
    let mut parts = Vec::new();
    for verb in &rule.verbs {
        let verbs = vec![verb.clone()];
        for group in rule.api_groups.iter().flatten() {
            for resource in rule.resources.iter().flatten() {
                let part = PolicyRule {
                    api_groups: Some(vec![group.clone()]),
                    resources: Some(vec![resource.clone()]),
                    verbs: verbs.clone(),
                    ..PolicyRule::default()
                };
                match rule.resource_names.as_deref() {
                    None | Some([]) => parts.push(part),
                    Some(names) => {
                        parts.extend(names.iter().map(|name| PolicyRule {
                            resource_names: Some(vec![name.clone()]),
                            ..part.clone()
                        }));
                    }
                }
            }
        }
        parts.extend(rule.non_resource_urls.iter().flatten().map(|url| PolicyRule {
            non_resource_urls: Some(vec![url.clone()]),
            verbs: verbs.clone(),
            ..PolicyRule::default()
        }));
    }
    parts
}

/// True if a rule allows all that a part does, also where that says `*`.
fn covers(held: &PolicyRule, part: &PolicyRule) -> bool {
    let all = |of: &Option<Vec<String>>, is_covered: &dyn Fn(&str) -> bool| {
        of.iter().flatten().all(|wanted| is_covered(wanted))
    };
    let one_of = |known: Option<&Vec<String>>, wanted: &str| {
        known.into_iter().flatten().any(|known| known == ALL || known == wanted)
    };
    let has_verbs = part.verbs.iter().all(|verb| one_of(Some(&held.verbs), verb));
    let has_groups = all(&part.api_groups, &|group| one_of(held.api_groups.as_ref(), group));
    let has_resources = all(&part.resources, &|resource| {
        let (plural, subresource) = resource.split_once('/').unwrap_or((resource, ""));
        held.resources.iter().flatten().any(|known| is_resource(known, plural, subresource))
    });
    let has_names = match held.resource_names.as_deref() {
        None | Some([]) => true,
        Some(names) => {
            // A part without names is every object.
            part.resource_names.as_ref().is_some_and(|wanted| !wanted.is_empty())
                && all(&part.resource_names, &|name| names.iter().any(|known| known == name))
        }
    };
    let has_urls = all(&part.non_resource_urls, &|wanted| {
        held.non_resource_urls.iter().flatten().any(|known| is_below(known, wanted))
    });
    has_verbs && has_groups && has_resources && has_names && has_urls
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::rules::{Asked, What, allows, shown};
    use super::*;

    fn rule(groups: &[&str], resources: &[&str], names: &[&str], verbs: &[&str]) -> PolicyRule {
        let owned = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>();
        PolicyRule {
            api_groups: Some(owned(groups)),
            resources: Some(owned(resources)),
            resource_names: Some(owned(names)).filter(|names| !names.is_empty()),
            verbs: owned(verbs),
            non_resource_urls: None,
        }
    }

    fn missing(held: &[PolicyRule], given: &PolicyRule) -> Vec<String> {
        let held: Vec<_> = held.iter().collect();
        uncovered(&held, given).iter().map(shown).collect()
    }

    #[test]
    fn what_is_missing_is_told_part_by_part() {
        let held = [rule(&["gantry.dev"], &["operations"], &[], &["get", "list"])];

        assert_eq!(
            missing(&held, &rule(&["gantry.dev"], &["operations"], &[], &["get", "create"])),
            [r#"{APIGroups:["gantry.dev"], Resources:["operations"], Verbs:["create"]}"#]
        );
        assert!(missing(&held, &rule(&["gantry.dev"], &["operations"], &["x"], &["get"])).is_empty());
    }

    #[test]
    fn everything_is_covered_by_everything_only() {
        let all = rule(&["*"], &["*"], &[], &["*"]);
        let every_verb_there_is_today =
            rule(&["*"], &["*"], &[], &["get", "list", "watch", "create", "update", "patch", "delete"]);

        assert!(missing(std::slice::from_ref(&all), &all).is_empty());
        assert_eq!(missing(&[every_verb_there_is_today], &all).len(), 1);
    }

    #[test]
    fn some_objects_do_not_cover_all_of_them() {
        let held = [rule(&[""], &["secrets"], &["mine"], &["get"])];

        assert!(missing(&held, &rule(&[""], &["secrets"], &["mine"], &["get"])).is_empty());
        assert_eq!(missing(&held, &rule(&[""], &["secrets"], &["mine", "yours"], &["get"])).len(), 1);
        assert_eq!(missing(&held, &rule(&[""], &["secrets"], &[], &["get"])).len(), 1);
    }

    #[test]
    fn a_right_is_not_put_together_from_pieces() {
        let held = [
            rule(&["gantry.dev"], &["operations"], &[], &["get"]),
            rule(&[""], &["secrets"], &[], &["list"]),
        ];

        assert_eq!(missing(&held, &rule(&[""], &["secrets"], &[], &["get"])).len(), 1);
    }

    fn some(of: &'static [&'static str]) -> impl Strategy<Value = Vec<&'static str>> {
        prop::sample::subsequence(of, 0..=of.len())
    }

    fn any_rule() -> impl Strategy<Value = PolicyRule> {
        let groups = some(&["", "gantry.dev", "*"]);
        let resources = some(&["operations", "operations/status", "secrets", "*/status", "*"]);
        (groups, resources, some(&["a", "b"]), some(&["get", "create", "*"]))
            .prop_map(|(groups, resources, names, verbs)| rule(&groups, &resources, &names, &verbs))
    }

    proptest! {
        /// Whoever gives away what is covered gives nothing that was not held.
        #[test]
        fn nothing_covered_allows_what_is_not_held(
            held in prop::collection::vec(any_rule(), 0..4),
            given in any_rule(),
            verb in prop::sample::select(vec!["get", "create", "escalate"]),
            group in prop::sample::select(vec!["", "gantry.dev", "apps"]),
            (plural, subresource) in prop::sample::select(vec![
                ("operations", ""), ("operations", "status"), ("secrets", ""), ("nodes", "status"), ("nodes", ""),
            ]),
            name in prop::sample::select(vec!["", "a", "c"]),
        ) {
            let asked = Asked { verb, what: What::Resource { group, plural, subresource, name } };
            let references: Vec<_> = held.iter().collect();
            if uncovered(&references, &given).is_empty() && allows(&given, &asked) {
                prop_assert!(held.iter().any(|rule| allows(rule, &asked)), "{} {asked:?}", shown(&given));
            }
        }
    }
}
