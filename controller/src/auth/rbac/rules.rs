//! What one rule allows.

use std::fmt::Write as _;

use k8s_openapi::api::rbac::v1::PolicyRule;

const ALL: &str = "*";

/// What somebody wants to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Asked<'a> {
    /// `get`, `list`, `create`, …
    pub verb: &'a str,
    /// To what.
    pub what: What<'a>,
}

/// What is reached for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum What<'a> {
    /// An object, a collection or a subresource.
    Resource {
        /// Empty for core kinds.
        group: &'a str,
        /// `operations`.
        plural: &'a str,
        /// `status`; empty for the object itself.
        subresource: &'a str,
        /// Empty for a collection, and where the name is not known yet.
        name: &'a str,
    },
    /// A path that is no resource, `/metrics`.
    Path(&'a str),
}

/// True if the rule allows it, wherever the rule applies.
pub fn allows(rule: &PolicyRule, asked: &Asked<'_>) -> bool {
    if !has(Some(&rule.verbs), asked.verb) {
        return false;
    }
    match asked.what {
        What::Path(path) => rule.non_resource_urls.iter().flatten().any(|url| is_below(url, path)),
        What::Resource { group, plural, subresource, name } => {
            has(rule.api_groups.as_ref(), group)
                && rule.resources.iter().flatten().any(|resource| is_resource(resource, plural, subresource))
                && names(rule, name)
        }
    }
}

/// Rules that name objects are met by these names only: never by a collection, nor by an object that has no name yet.
fn names(rule: &PolicyRule, name: &str) -> bool {
    match rule.resource_names.as_deref() {
        None | Some([]) => true,
        Some(names) => names.iter().any(|known| known == name),
    }
}

fn has(known: Option<&Vec<String>>, wanted: &str) -> bool {
    known.into_iter().flatten().any(|known| known == ALL || known == wanted)
}

/// `operations`, `operations/status`, `*/status` or `*`, which takes subresources in.
pub(super) fn is_resource(rule: &str, plural: &str, subresource: &str) -> bool {
    if rule == ALL {
        return true;
    }
    match rule.split_once('/') {
        None => subresource.is_empty() && rule == plural,
        Some((known, below)) => {
            !subresource.is_empty() && below == subresource && (known == ALL || known == plural)
        }
    }
}

/// Every right there is.
pub fn everything() -> [PolicyRule; 2] {
    let all = || Some(vec![ALL.to_owned()]);
    let rule = PolicyRule { verbs: vec![ALL.to_owned()], ..PolicyRule::default() };
    [
        PolicyRule { api_groups: all(), resources: all(), ..rule.clone() },
        PolicyRule { non_resource_urls: all(), ..rule },
    ]
}

/// A path itself, or all that begin with what stands before a `*` at the end.
pub(super) fn is_below(url: &str, path: &str) -> bool {
    url == path || url.strip_suffix('*').is_some_and(|begin| path.starts_with(begin))
}

/// A rule as messages show it: `{APIGroups:["gantry.dev"], Resources:["operations"], Verbs:["get"]}`.
pub fn shown(rule: &PolicyRule) -> String {
    let mut text = String::from("{");
    let fields = [
        ("APIGroups", rule.api_groups.as_deref()),
        ("Resources", rule.resources.as_deref()),
        ("ResourceNames", rule.resource_names.as_deref()),
        ("NonResourceURLs", rule.non_resource_urls.as_deref()),
        ("Verbs", Some(rule.verbs.as_slice())),
    ];
    for (name, values) in fields {
        let Some(values) = values.filter(|values| !values.is_empty()) else { continue };
        let separator = if text.len() > 1 { ", " } else { "" };
        // Writing to a String cannot fail.
        let _ = write!(text, "{separator}{name}:{values:?}");
    }
    text + "}"
}

#[cfg(test)]
mod tests {
    use super::*;

    fn owned(texts: &[&str]) -> Vec<String> {
        texts.iter().map(|text| (*text).to_owned()).collect()
    }

    fn rule(groups: &[&str], resources: &[&str], names: &[&str], verbs: &[&str]) -> PolicyRule {
        PolicyRule {
            api_groups: Some(owned(groups)),
            resources: Some(owned(resources)),
            resource_names: Some(owned(names)),
            verbs: owned(verbs),
            non_resource_urls: None,
        }
    }

    fn asked<'a>(verb: &'a str, resource: &'a str, name: &'a str) -> Asked<'a> {
        let (plural, subresource) = resource.split_once('/').unwrap_or((resource, ""));
        Asked { verb, what: What::Resource { group: "gantry.dev", plural, subresource, name } }
    }

    #[test]
    fn a_resource_is_not_its_subresources_and_a_star_is_everything() {
        let ours = |resource| rule(&["gantry.dev"], &[resource], &[], &["get"]);

        assert!(allows(&ours("operations"), &asked("get", "operations", "x")));
        assert!(!allows(&ours("operations"), &asked("get", "operations/status", "x")));
        assert!(allows(&ours("operations/status"), &asked("get", "operations/status", "x")));
        assert!(!allows(&ours("operations/status"), &asked("get", "operations", "x")));
        assert!(allows(&ours("*/status"), &asked("get", "dockerinstances/status", "x")));
        assert!(!allows(&ours("*/status"), &asked("get", "dockerinstances", "x")));
        assert!(allows(&ours("*"), &asked("get", "dockerinstances/status", "x")));
    }

    #[test]
    fn verb_and_group_have_to_fit_too() {
        let read = rule(&["gantry.dev"], &["operations"], &[], &["get", "list"]);

        assert!(!allows(&read, &asked("delete", "operations", "x")));
        assert!(!allows(&rule(&[""], &["operations"], &[], &["*"]), &asked("get", "operations", "x")));
        assert!(allows(&rule(&["*"], &["*"], &[], &["*"]), &asked("delete", "operations", "x")));
        assert!(!allows(&PolicyRule { api_groups: None, ..read }, &asked("get", "operations", "x")));
    }

    #[test]
    fn names_never_reach_a_collection_or_what_has_no_name() {
        let named = rule(&["gantry.dev"], &["operations"], &["a", "b"], &["*"]);

        assert!(allows(&named, &asked("get", "operations", "b")));
        assert!(!allows(&named, &asked("get", "operations", "c")));
        assert!(!allows(&named, &asked("create", "operations", "")));
        assert!(!allows(&named, &asked("deletecollection", "operations", "")));
    }

    #[test]
    fn paths_are_taken_by_their_beginning_and_never_as_resources() {
        let rule = |url: &str| PolicyRule {
            non_resource_urls: Some(owned(&[url])),
            verbs: owned(&["get"]),
            ..PolicyRule::default()
        };
        let path = |path| Asked { verb: "get", what: What::Path(path) };

        assert!(allows(&rule("/metrics"), &path("/metrics")));
        assert!(!allows(&rule("/metrics"), &path("/metrics/x")));
        assert!(allows(&rule("/livez/*"), &path("/livez/ping")));
        assert!(!allows(&rule("/livez/*"), &path("/livez")));
        assert!(allows(&rule("*"), &path("/anything")));
        assert!(!allows(&rule("*"), &asked("get", "operations", "x")));
    }

    #[test]
    fn a_rule_shows_what_it_has() {
        assert_eq!(
            shown(&rule(&[""], &["secrets"], &[], &["get", "list"])),
            r#"{APIGroups:[""], Resources:["secrets"], Verbs:["get", "list"]}"#
        );
    }
}
