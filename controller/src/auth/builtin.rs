//! The roles and bindings that are there from the start, as Kubernetes has some. Whoever changes them keeps his additions; what is
//! taken out of them comes back with the next start, unless the annotation `rbac.authorization.kubernetes.io/autoupdate` is "false".

use std::collections::BTreeMap;

use gantry_api::engine_api::Right;
use gantry_api::names::{ADMIN_GROUP, AUDIT_GROUP, DOCKER_GROUP, GROUP};
use gantry_api::v1alpha1::Action;
use k8s_openapi::api::rbac::v1::{
    AggregationRule, ClusterRole, ClusterRoleBinding, PolicyRule, RoleRef, Subject,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use kube::api::ObjectMeta;

use super::rbac::{everything, gathered};
use crate::apiserver::kinds::RBAC;

/// Says that a role or binding is one of these.
const BOOTSTRAPPING: (&str, &str) = ("kubernetes.io/bootstrapping", "rbac-defaults");
/// Anything but "true" here leaves the object as it is.
pub const AUTOUPDATE: &str = "rbac.authorization.kubernetes.io/autoupdate";
/// The role of those who may do everything.
pub const CLUSTER_ADMIN: &str = "cluster-admin";

const CORE: &str = "";
const READ: &[&str] = &["get", "list", "watch"];
const WRITE: &[&str] = &["create", "update", "patch", "delete", "deletecollection"];

/// Every role, those that gather others' rules filled.
pub fn roles() -> Vec<ClusterRole> {
    let mut roles = vec![
        role(CLUSTER_ADMIN, everything().into()),
        role(
            "system:basic-user",
            vec![
                rule(
                    "authorization.k8s.io",
                    &["selfsubjectaccessreviews", "selfsubjectrulesreviews"],
                    &["create"],
                ),
                rule("authentication.k8s.io", &["selfsubjectreviews"], &["create"]),
            ],
        ),
        role(
            "system:discovery",
            vec![paths(&[
                "/api",
                "/api/*",
                "/apis",
                "/apis/*",
                "/openapi",
                "/openapi/*",
                "/version",
                "/version/",
                "/livez",
                "/readyz",
                "/healthz",
            ])],
        ),
        role(
            "system:monitoring",
            vec![paths(&[
                "/metrics",
                "/livez",
                "/livez/*",
                "/readyz",
                "/readyz/*",
                "/healthz",
                "/healthz/*",
            ])],
        ),
        role(
            "system:auth-delegator",
            vec![
                rule("authentication.k8s.io", &["tokenreviews"], &["create"]),
                rule("authorization.k8s.io", &["subjectaccessreviews"], &["create"]),
            ],
        ),
        gathers("gantry-viewer", "viewer", Some("operator")),
        gathers("gantry-operator", "operator", Some("admin")),
        gathers("gantry-admin", "admin", None),
        part("system:gantry:aggregate-to-viewer", "viewer", viewer()),
        part("system:gantry:aggregate-to-operator", "operator", operator()),
        part("system:gantry:aggregate-to-admin", "admin", admin()),
        role("gantry-agent", agent()),
        role(
            "gantry-auditor",
            vec![
                rule(AUDIT_GROUP, &["auditevents", "terminalsessions"], &["get", "list"]),
                rule(AUDIT_GROUP, &["terminalsessions/recording"], &["get"]),
            ],
        ),
    ];
    // A role of roles is full once those it gathers are.
    for _ in 0..3 {
        let all = roles.clone();
        for role in roles.iter_mut().filter(|role| role.aggregation_rule.is_some()) {
            role.rules = Some(gathered(role, &all));
        }
    }
    roles
}

/// Every binding.
pub fn bindings() -> Vec<ClusterRoleBinding> {
    let everybody = "system:authenticated";
    vec![
        binding(CLUSTER_ADMIN, ADMIN_GROUP),
        binding("system:basic-user", everybody),
        binding("system:discovery", everybody),
        binding("system:monitoring", "system:monitoring"),
    ]
}

/// All there is in a namespace but Secrets, roles and bindings.
fn viewer() -> Vec<PolicyRule> {
    let mut rules = vec![
        rule(
            GROUP,
            &[
                "dockerinstances",
                "dockerinstances/status",
                "operations",
                "operations/status",
                "registries",
                "registries/status",
                "policies",
                "clusterpolicies",
            ],
            READ,
        ),
        rule(DOCKER_GROUP, &["containers", "images", "networks", "volumes"], READ),
        rule(
            GROUP,
            &[
                "dockerinstances/info",
                "dockerinstances/containers",
                "dockerinstances/images",
                "dockerinstances/networks",
                "dockerinstances/volumes",
                "dockerinstances/logs",
                "dockerinstances/stats",
                "dockerinstances/df",
                "dockerinstances/events",
                "dockerinstances/top",
                "operations/progress",
            ],
            &["get"],
        ),
        rule(CORE, &["configmaps", "events", "namespaces", "nodes", "pods", "serviceaccounts"], READ),
        rule(CORE, &["pods/log"], &["get"]),
        rule("metrics.k8s.io", &["nodes", "pods"], &["get", "list"]),
        rule("events.k8s.io", &["events"], READ),
        rule("coordination.k8s.io", &["leases"], READ),
    ];
    rules.extend(through_docker(&[Right::Read]));
    rules
}

/// Rights on a host by way of Docker's own API.
fn through_docker(rights: &[Right]) -> impl Iterator<Item = PolicyRule> {
    rights
        .iter()
        .map(|right| rule(GROUP, &[&format!("dockerinstances/{}", right.subresource())], &[right.verb()]))
}

/// What keeps things running, and takes nothing away.
fn operator() -> Vec<PolicyRule> {
    let actions =
        [Action::Start, Action::Stop, Action::Restart, Action::Pause, Action::Unpause, Action::Pull];
    let actions = actions.map(|action| format!("operations/{}", action.subresource()));
    let actions: Vec<&str> = actions.iter().map(String::as_str).collect();
    let mut rules = vec![
        // An update can cancel and abandon.
        rule(GROUP, &["operations"], &["create", "update", "patch"]),
        rule(GROUP, &actions, &["create"]),
    ];
    rules.extend(through_docker(&[
        Right::Start,
        Right::Stop,
        Right::Restart,
        Right::Pause,
        Right::Unpause,
        Right::Pull,
    ]));
    rules
}

/// The whole namespace, its Secrets and who may do what in it.
fn admin() -> Vec<PolicyRule> {
    let actions = Action::ALL.map(|action| format!("operations/{}", action.subresource()));
    let actions: Vec<&str> = actions.iter().map(String::as_str).collect();
    let mut rules = vec![
        rule(GROUP, &["dockerinstances", "operations", "registries", "policies"], WRITE),
        rule(GROUP, &actions, &["create"]),
        rule(
            GROUP,
            &["dockerinstances/exec", "dockerinstances/attach", "dockerinstances/portforward"],
            &["create"],
        ),
        rule(CORE, &["pods/exec", "pods/attach", "pods/portforward"], &["create"]),
        rule(CORE, &["configmaps", "secrets", "serviceaccounts"], &[READ, WRITE].concat()),
        rule(CORE, &["serviceaccounts/token"], &["create"]),
        rule(CORE, &["events"], WRITE),
        rule("events.k8s.io", &["events"], WRITE),
        rule("coordination.k8s.io", &["leases"], WRITE),
        rule(RBAC, &["roles", "rolebindings"], &[READ, WRITE].concat()),
        rule("authorization.k8s.io", &["localsubjectaccessreviews"], &["create"]),
    ];
    rules.extend(through_docker(&Right::ALL));
    rules
}

/// What is beside an agent on its host may see whether that is known and well. An agent itself is no user: what it registers and reports
/// the gateway writes, which is one of our own parts. So nobody has this role until somebody gives it.
fn agent() -> Vec<PolicyRule> {
    vec![rule(GROUP, &["dockerinstances"], READ)]
}

fn rule(group: &str, resources: &[&str], verbs: &[&str]) -> PolicyRule {
    PolicyRule {
        api_groups: Some(owned(&[group])),
        resources: Some(owned(resources)),
        verbs: owned(verbs),
        ..PolicyRule::default()
    }
}

fn paths(urls: &[&str]) -> PolicyRule {
    PolicyRule { non_resource_urls: Some(owned(urls)), verbs: owned(&["get"]), ..PolicyRule::default() }
}

fn owned(texts: &[&str]) -> Vec<String> {
    texts.iter().map(|text| (*text).to_owned()).collect()
}

fn metadata(name: &str) -> ObjectMeta {
    let (label, value) = BOOTSTRAPPING;
    ObjectMeta {
        name: Some(name.to_owned()),
        labels: Some(BTreeMap::from([(label.to_owned(), value.to_owned())])),
        annotations: Some(BTreeMap::from([(AUTOUPDATE.to_owned(), "true".to_owned())])),
        ..ObjectMeta::default()
    }
}

fn role(name: &str, rules: Vec<PolicyRule>) -> ClusterRole {
    ClusterRole { metadata: metadata(name), rules: Some(rules), ..ClusterRole::default() }
}

/// The label by which roles are gathered for `gantry-viewer`, `gantry-operator` or `gantry-admin`.
fn label_of(who: &str) -> BTreeMap<String, String> {
    BTreeMap::from([(format!("rbac.gantry.dev/aggregate-to-{who}"), "true".to_owned())])
}

fn part(name: &str, of: &str, rules: Vec<PolicyRule>) -> ClusterRole {
    let mut role = role(name, rules);
    role.metadata.labels.get_or_insert_default().extend(label_of(of));
    role
}

/// A role of all that carries a label, which is itself a part of the next.
fn gathers(name: &str, who: &str, next: Option<&str>) -> ClusterRole {
    let selector = LabelSelector { match_labels: Some(label_of(who)), ..LabelSelector::default() };
    let rule = AggregationRule { cluster_role_selectors: Some(vec![selector]) };
    let mut role = role(name, Vec::new());
    role.metadata.labels.get_or_insert_default().extend(next.map(label_of).unwrap_or_default());
    ClusterRole { aggregation_rule: Some(rule), ..role }
}

fn binding(role: &str, group: &str) -> ClusterRoleBinding {
    ClusterRoleBinding {
        metadata: metadata(role),
        role_ref: RoleRef {
            api_group: RBAC.to_owned(),
            kind: "ClusterRole".to_owned(),
            name: role.to_owned(),
        },
        subjects: Some(vec![Subject {
            api_group: Some(RBAC.to_owned()),
            kind: "Group".to_owned(),
            name: group.to_owned(),
            namespace: None,
        }]),
    }
}
