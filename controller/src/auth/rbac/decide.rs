//! Roles and bindings as one thing that can be asked.

use std::collections::HashMap;

use k8s_openapi::api::rbac::v1::{
    ClusterRole, ClusterRoleBinding, PolicyRule, Role, RoleBinding, RoleRef, Subject,
};

use super::rules::{Asked, allows};

/// Every role and binding at one moment, arranged by who is bound: a question costs what the asking person's bindings cost, however
/// many there are of others.
#[derive(Debug, Default)]
pub struct Policy {
    roles: HashMap<RoleKey, Vec<PolicyRule>>,
    bound: HashMap<Who, Vec<Grant>>,
}

/// A role; without a namespace, one of the cluster.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct RoleKey {
    namespace: Option<String>,
    name: String,
}

/// Whom a binding is about.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Who {
    User(String),
    Group(String),
}

/// What one binding gives to one subject.
#[derive(Clone, Debug)]
struct Grant {
    binding: String,
    /// Where it counts; everywhere without one.
    namespace: Option<String>,
    role: RoleKey,
}

/// A rule that somebody has, and by which binding.
#[derive(Clone, Copy, Debug)]
pub struct Bound<'a> {
    /// What it allows.
    pub rule: &'a PolicyRule,
    /// The name of the binding that gives it.
    pub binding: &'a str,
    /// That binding's namespace; none for one of the cluster.
    pub namespace: Option<&'a str>,
    /// The name of the role.
    pub role: &'a str,
    /// True where that is one of the cluster.
    pub is_cluster_role: bool,
}

impl Policy {
    /// Of all there are. A binding whose role is missing gives nothing until there is one.
    pub fn new(
        roles: impl IntoIterator<Item = Role>,
        cluster_roles: impl IntoIterator<Item = ClusterRole>,
        bindings: impl IntoIterator<Item = RoleBinding>,
        cluster_bindings: impl IntoIterator<Item = ClusterRoleBinding>,
    ) -> Self {
        let mut policy = Self::default();
        for role in roles {
            let key =
                RoleKey { namespace: role.metadata.namespace, name: role.metadata.name.unwrap_or_default() };
            policy.roles.insert(key, role.rules.unwrap_or_default());
        }
        for role in cluster_roles {
            let key = RoleKey { namespace: None, name: role.metadata.name.unwrap_or_default() };
            policy.roles.insert(key, role.rules.unwrap_or_default());
        }
        for binding in bindings {
            let namespace = binding.metadata.namespace.unwrap_or_default();
            let name = binding.metadata.name.unwrap_or_default();
            policy.bind(Some(namespace), name, binding.role_ref, binding.subjects.unwrap_or_default());
        }
        for binding in cluster_bindings {
            let name = binding.metadata.name.unwrap_or_default();
            policy.bind(None, name, binding.role_ref, binding.subjects.unwrap_or_default());
        }
        policy
    }

    fn bind(&mut self, namespace: Option<String>, binding: String, role: RoleRef, subjects: Vec<Subject>) {
        let role_namespace = match role.kind.as_str() {
            "ClusterRole" => None,
            // A role of a namespace cannot be given in all of them.
            "Role" if namespace.is_some() => namespace.clone(),
            _ => return,
        };
        let role = RoleKey { namespace: role_namespace, name: role.name };
        for subject in subjects {
            let Some(who) = Who::of(subject, namespace.as_deref()) else { continue };
            let grant = Grant { binding: binding.clone(), namespace: namespace.clone(), role: role.clone() };
            self.bound.entry(who).or_default().push(grant);
        }
    }

    /// The first rule that allows it in that namespace; an empty namespace is the cluster, where only bindings of the cluster count.
    pub fn allowing<'a>(
        &'a self,
        user: &str,
        groups: &[impl AsRef<str>],
        namespace: &str,
        asked: &Asked<'_>,
    ) -> Option<Bound<'a>> {
        self.rules(user, groups, namespace).find(|bound| allows(bound.rule, asked))
    }

    /// The rules of a role, `None` where it does not exist; without a namespace it is one of the cluster.
    pub fn role(&self, namespace: Option<&str>, name: &str) -> Option<&[PolicyRule]> {
        let key = RoleKey { namespace: namespace.map(str::to_owned), name: name.to_owned() };
        self.roles.get(&key).map(Vec::as_slice)
    }

    /// True if a role of the cluster is given in all of it to anybody but that group.
    pub fn is_given_beyond(&self, role: &str, group: &str) -> bool {
        let others = self.bound.iter().filter(|(who, _)| !matches!(who, Who::Group(name) if name == group));
        others.flat_map(|(_, grants)| grants).any(|grant| {
            grant.namespace.is_none() && grant.role.namespace.is_none() && grant.role.name == role
        })
    }

    /// Every rule that somebody has in that namespace.
    pub fn rules<'a>(
        &'a self,
        user: &str,
        groups: &[impl AsRef<str>],
        namespace: &str,
    ) -> impl Iterator<Item = Bound<'a>> {
        let subjects = std::iter::once(Who::User(user.to_owned()))
            .chain(groups.iter().map(|group| Who::Group(group.as_ref().to_owned())));
        let here = move |grant: &&Grant| match grant.namespace.as_deref() {
            None => true,
            Some(bound) => !namespace.is_empty() && bound == namespace,
        };
        // Collected, so that what is given back borrows from the policy alone.
        let grants: Vec<&Grant> =
            subjects.filter_map(|who| self.bound.get(&who)).flatten().filter(here).collect();
        grants.into_iter().flat_map(|grant| {
            let rules = self.roles.get(&grant.role).into_iter().flatten();
            rules.map(|rule| Bound {
                rule,
                binding: &grant.binding,
                namespace: grant.namespace.as_deref(),
                role: &grant.role.name,
                is_cluster_role: grant.role.namespace.is_none(),
            })
        })
    }
}

impl Who {
    fn of(subject: Subject, namespace: Option<&str>) -> Option<Self> {
        match subject.kind.as_str() {
            "User" => Some(Self::User(subject.name)),
            "Group" => Some(Self::Group(subject.name)),
            "ServiceAccount" => {
                let own = subject.namespace.filter(|namespace| !namespace.is_empty());
                let namespace = own.or_else(|| namespace.map(str::to_owned))?;
                Some(Self::User(format!("system:serviceaccount:{namespace}:{}", subject.name)))
            }
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use kube::core::ObjectMeta;

    use super::super::rules::What;
    use super::*;

    const NOBODY: [&str; 0] = [];

    fn metadata(namespace: Option<&str>, name: &str) -> ObjectMeta {
        ObjectMeta {
            namespace: namespace.map(str::to_owned),
            name: Some(name.to_owned()),
            ..ObjectMeta::default()
        }
    }

    fn reads(resource: &str) -> Vec<PolicyRule> {
        vec![PolicyRule {
            api_groups: Some(vec![String::new()]),
            resources: Some(vec![resource.to_owned()]),
            verbs: vec!["get".to_owned()],
            ..PolicyRule::default()
        }]
    }

    fn to(kind: &str, name: &str) -> RoleRef {
        RoleRef {
            api_group: "rbac.authorization.k8s.io".to_owned(),
            kind: kind.to_owned(),
            name: name.to_owned(),
        }
    }

    fn subject(kind: &str, namespace: Option<&str>, name: &str) -> Subject {
        Subject {
            api_group: None,
            kind: kind.to_owned(),
            name: name.to_owned(),
            namespace: namespace.map(str::to_owned),
        }
    }

    fn may(policy: &Policy, user: &str, groups: &[&str], namespace: &str, plural: &str) -> bool {
        let what = What::Resource { group: "", plural, subresource: "", name: "x" };
        policy.allowing(user, groups, namespace, &Asked { verb: "get", what }).is_some()
    }

    fn binding(namespace: &str, name: &str, role: RoleRef, subjects: Vec<Subject>) -> RoleBinding {
        RoleBinding { metadata: metadata(Some(namespace), name), role_ref: role, subjects: Some(subjects) }
    }

    #[test]
    fn a_binding_counts_in_its_namespace_and_one_of_the_cluster_everywhere() {
        let policy = Policy::new(
            [],
            [ClusterRole {
                metadata: metadata(None, "reader"),
                rules: Some(reads("configmaps")),
                ..ClusterRole::default()
            }],
            [binding("blue", "b", to("ClusterRole", "reader"), vec![subject("User", None, "ada")])],
            [ClusterRoleBinding {
                metadata: metadata(None, "c"),
                role_ref: to("ClusterRole", "reader"),
                subjects: Some(vec![subject("Group", None, "ops")]),
            }],
        );

        assert!(may(&policy, "ada", &NOBODY, "blue", "configmaps"));
        assert!(!may(&policy, "ada", &NOBODY, "red", "configmaps"));
        assert!(!may(&policy, "ada", &NOBODY, "", "configmaps"));
        assert!(!may(&policy, "ada", &NOBODY, "blue", "secrets"));
        assert!(may(&policy, "eve", &["ops"], "red", "configmaps"));
        assert!(may(&policy, "eve", &["ops"], "", "configmaps"));
        // A user who is called as a group is not its member.
        assert!(!may(&policy, "ops", &NOBODY, "red", "configmaps"));
        assert!(!may(&policy, "eve", &["ada"], "blue", "configmaps"));
    }

    #[test]
    fn a_role_stays_in_its_namespace() {
        let role = Role { metadata: metadata(Some("blue"), "reader"), rules: Some(reads("secrets")) };
        let ada = || vec![subject("User", None, "ada")];
        let policy = Policy::new(
            [role],
            [],
            [
                binding("blue", "b", to("Role", "reader"), ada()),
                binding("red", "b", to("Role", "reader"), ada()),
            ],
            [ClusterRoleBinding {
                metadata: metadata(None, "c"),
                role_ref: to("Role", "reader"),
                subjects: Some(ada()),
            }],
        );

        assert!(may(&policy, "ada", &NOBODY, "blue", "secrets"));
        assert!(!may(&policy, "ada", &NOBODY, "red", "secrets"));
        assert!(!may(&policy, "ada", &NOBODY, "", "secrets"));
    }

    #[test]
    fn an_account_is_of_its_own_namespace_and_else_of_the_bindings() {
        let accounts = vec![
            subject("ServiceAccount", Some("red"), "robot"),
            subject("ServiceAccount", None, "helper"),
            subject("Robot", None, "ada"),
        ];
        let policy = Policy::new(
            [Role { metadata: metadata(Some("blue"), "reader"), rules: Some(reads("secrets")) }],
            [],
            [binding("blue", "b", to("Role", "reader"), accounts)],
            [],
        );

        assert!(may(&policy, "system:serviceaccount:red:robot", &NOBODY, "blue", "secrets"));
        assert!(!may(&policy, "system:serviceaccount:blue:robot", &NOBODY, "blue", "secrets"));
        assert!(may(&policy, "system:serviceaccount:blue:helper", &NOBODY, "blue", "secrets"));
        assert!(!may(&policy, "robot", &NOBODY, "blue", "secrets"));
        assert!(!may(&policy, "ada", &NOBODY, "blue", "secrets"));
    }

    #[test]
    fn a_decision_names_what_allowed_it() {
        let policy = Policy::new(
            [Role { metadata: metadata(Some("blue"), "reader"), rules: Some(reads("secrets")) }],
            [],
            [binding("blue", "b", to("Role", "reader"), vec![subject("User", None, "ada")])],
            [],
        );
        let what = What::Resource { group: "", plural: "secrets", subresource: "", name: "x" };

        let bound = policy.allowing("ada", &NOBODY, "blue", &Asked { verb: "get", what });

        let bound = bound.expect("it is allowed");
        assert_eq!((bound.binding, bound.namespace, bound.role), ("b", Some("blue"), "reader"));
    }
}
