//! Kinds of access control: roles, who has them, and questions about both.

use k8s_openapi::api::authentication::v1::{SelfSubjectReview, TokenReview};
use k8s_openapi::api::authorization::v1::{
    LocalSubjectAccessReview, SelfSubjectAccessReview, SelfSubjectRulesReview, SubjectAccessReview,
};
use k8s_openapi::api::rbac::v1::{ClusterRole, ClusterRoleBinding, Role, RoleBinding};
use schemars::JsonSchema;
use serde::de::DeserializeOwned;

use super::{Column, Kind, Shows, column, named, wide};

/// Group of roles and bindings.
pub const RBAC: &str = "rbac.authorization.k8s.io";
const AUTHENTICATION: &str = "authentication.k8s.io";
const AUTHORIZATION: &str = "authorization.k8s.io";

pub(super) fn kinds() -> Vec<Kind> {
    let cluster = |kind| Kind { namespaced: false, ..kind };
    vec![
        named::<Role>(RBAC, "Role", "roles", &[], of_role(), &[]),
        cluster(named::<ClusterRole>(RBAC, "ClusterRole", "clusterroles", &[], of_role(), &[])),
        named::<RoleBinding>(RBAC, "RoleBinding", "rolebindings", &[], of_binding(), &[]),
        cluster(named::<ClusterRoleBinding>(
            RBAC,
            "ClusterRoleBinding",
            "clusterrolebindings",
            &[],
            of_binding(),
            &[],
        )),
        cluster(question::<SelfSubjectReview>(AUTHENTICATION, "SelfSubjectReview")),
        cluster(question::<TokenReview>(AUTHENTICATION, "TokenReview")),
        cluster(question::<SelfSubjectAccessReview>(AUTHORIZATION, "SelfSubjectAccessReview")),
        cluster(question::<SubjectAccessReview>(AUTHORIZATION, "SubjectAccessReview")),
        question::<LocalSubjectAccessReview>(AUTHORIZATION, "LocalSubjectAccessReview"),
        cluster(question::<SelfSubjectRulesReview>(AUTHORIZATION, "SelfSubjectRulesReview")),
    ]
}

fn question<T: JsonSchema + DeserializeOwned>(group: &str, kind: &str) -> Kind {
    let plural = format!("{}s", kind.to_lowercase());
    Kind { is_question: true, ..named::<T>(group, kind, &plural, &[], Vec::new(), &[]) }
}

fn of_role() -> Vec<Column> {
    vec![column("Created At", "string", ".metadata.creationTimestamp", "Time of its creation.")]
}

fn of_binding() -> Vec<Column> {
    let all = |name: &str, kind: &str, description: &str| Column {
        shows: Shows::All,
        ..wide(name, "string", &format!(".subjects[?(@.kind==\"{kind}\")].name"), description)
    };
    vec![
        column("Role", "string", "{.roleRef.kind}/{.roleRef.name}", "What it gives."),
        column("Age", "date", ".metadata.creationTimestamp", "Time since creation."),
        all("Users", "User", "Users who have it."),
        all("Groups", "Group", "Groups whose members have it."),
        all("ServiceAccounts", "ServiceAccount", "ServiceAccounts that have it, without their namespaces."),
    ]
}
