//! Roles made of other roles.

use std::collections::BTreeMap;

use k8s_openapi::api::rbac::v1::{ClusterRole, PolicyRule};
use kube::core::{Selector, SelectorExt as _};

/// What a role of the cluster gathers: the rules of all other roles that one of its selectors means, each once, in the order of
/// their names. Nothing of a role that gathers none.
pub fn gathered(role: &ClusterRole, all: &[ClusterRole]) -> Vec<PolicyRule> {
    let selectors =
        role.aggregation_rule.iter().flat_map(|rule| rule.cluster_role_selectors.iter().flatten());
    // One that cannot be read means nothing.
    let selectors: Vec<Selector> =
        selectors.filter_map(|selector| selector.clone().try_into().ok()).collect();
    let nothing = BTreeMap::new();
    let is_meant = |other: &&ClusterRole| {
        let labels = other.metadata.labels.as_ref().unwrap_or(&nothing);
        other.metadata.name != role.metadata.name && selectors.iter().any(|selector| selector.matches(labels))
    };
    let mut meant: Vec<&ClusterRole> = all.iter().filter(is_meant).collect();
    meant.sort_by_key(|other| other.metadata.name.as_deref());
    let mut rules = Vec::new();
    for rule in meant.into_iter().flat_map(|other| other.rules.iter().flatten()) {
        if !rules.contains(rule) {
            rules.push(rule.clone());
        }
    }
    rules
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::rbac::v1::AggregationRule;
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, LabelSelectorRequirement};
    use kube::api::ObjectMeta;

    use super::*;

    fn role(name: &str, labels: &[(&str, &str)], verb: &str) -> ClusterRole {
        let labels = labels.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
        ClusterRole {
            metadata: ObjectMeta {
                name: Some(name.to_owned()),
                labels: Some(labels.collect()),
                ..ObjectMeta::default()
            },
            rules: Some(vec![PolicyRule { verbs: vec![verb.to_owned()], ..PolicyRule::default() }]),
            ..ClusterRole::default()
        }
    }

    fn gatherer(selectors: Vec<LabelSelector>) -> ClusterRole {
        let rule = AggregationRule { cluster_role_selectors: Some(selectors) };
        ClusterRole { aggregation_rule: Some(rule), ..role("all", &[("to", "view")], "own") }
    }

    fn verbs(role: &ClusterRole, all: &[ClusterRole]) -> Vec<String> {
        gathered(role, all).into_iter().flat_map(|rule| rule.verbs).collect()
    }

    #[test]
    fn a_role_gathers_what_its_selectors_mean_each_rule_once_and_never_its_own() {
        let to_view = LabelSelector {
            match_labels: Some(BTreeMap::from([("to".to_owned(), "view".to_owned())])),
            ..LabelSelector::default()
        };
        let has_extra = LabelSelector {
            match_expressions: Some(vec![LabelSelectorRequirement {
                key: "extra".to_owned(),
                operator: "Exists".to_owned(),
                values: None,
            }]),
            ..LabelSelector::default()
        };
        let gatherer = gatherer(vec![to_view, has_extra]);
        let all = [
            gatherer.clone(),
            role("c", &[("to", "view"), ("extra", "")], "list"),
            role("b", &[("to", "view")], "get"),
            role("a", &[("extra", "x")], "list"),
            role("d", &[("to", "edit")], "delete"),
        ];

        assert_eq!(verbs(&gatherer, &all), ["list", "get"]);
        assert!(verbs(&all[1], &all).is_empty());
    }

    #[test]
    fn a_selector_that_cannot_be_read_means_nothing() {
        let requirement =
            LabelSelectorRequirement { key: "to".to_owned(), operator: "Resembles".to_owned(), values: None };
        let unreadable =
            LabelSelector { match_expressions: Some(vec![requirement]), ..LabelSelector::default() };
        let gatherer = gatherer(vec![unreadable]);

        assert!(verbs(&gatherer, &[role("a", &[("to", "view")], "get")]).is_empty());
    }
}
