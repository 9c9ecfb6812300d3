//! Roles, bindings and questions about access: `kubectl create rolebinding`, `kubectl auth can-i`.

use std::collections::BTreeMap;
use std::fmt;

use prost::Message;
use serde_json::{Map, Value, json};

use super::{Fields, ObjectMeta, begun, read};
use crate::apiserver::failure::Outcome;

/// Reads one of them; `None` for other kinds.
pub(super) fn decode(api_version: &str, kind: &str, raw: &[u8]) -> Outcome<Option<Map<String, Value>>> {
    const RBAC: &str = "rbac.authorization.k8s.io/v1";
    const AUTHORIZATION: &str = "authorization.k8s.io/v1";
    const AUTHENTICATION: &str = "authentication.k8s.io/v1";
    let object = match (api_version, kind) {
        (RBAC, "Role" | "ClusterRole") => read::<Role>(raw)?.json(),
        (RBAC, "RoleBinding" | "ClusterRoleBinding") => read::<RoleBinding>(raw)?.json(),
        (AUTHORIZATION, "SelfSubjectRulesReview") => {
            let Review { metadata, spec } = read::<Review<RulesSpec>>(raw)?;
            let namespace = spec.unwrap_or_default().namespace;
            begun(metadata).put("spec", json!({"namespace": namespace})).0
        }
        (AUTHORIZATION, "SelfSubjectAccessReview" | "SubjectAccessReview" | "LocalSubjectAccessReview") => {
            let Review { metadata, spec } = read::<Review<AccessSpec>>(raw)?;
            begun(metadata).put("spec", spec.unwrap_or_default().json()).0
        }
        (AUTHENTICATION, "SelfSubjectReview") => begun(read::<Review<RulesSpec>>(raw)?.metadata).0,
        (AUTHENTICATION, "TokenReview") => {
            let Review { metadata, spec } = read::<Review<TokenSpec>>(raw)?;
            let TokenSpec { token, audiences } = spec.unwrap_or_default();
            begun(metadata).put("spec", json!({"token": token, "audiences": audiences})).0
        }
        _ => return Ok(None),
    };
    Ok(Some(object))
}

/// What a `ClusterRole` has more is absent in a `Role`.
#[derive(Clone, PartialEq, Message)]
struct Role {
    #[prost(message, optional, tag = "1")]
    metadata: Option<ObjectMeta>,
    #[prost(message, repeated, tag = "2")]
    rules: Vec<PolicyRule>,
    #[prost(message, optional, tag = "3")]
    aggregation_rule: Option<AggregationRule>,
}

#[derive(Clone, PartialEq, Message)]
struct PolicyRule {
    #[prost(string, repeated, tag = "1")]
    verbs: Vec<String>,
    #[prost(string, repeated, tag = "2")]
    api_groups: Vec<String>,
    #[prost(string, repeated, tag = "3")]
    resources: Vec<String>,
    #[prost(string, repeated, tag = "4")]
    resource_names: Vec<String>,
    #[prost(string, repeated, tag = "5")]
    non_resource_urls: Vec<String>,
}

#[derive(Clone, PartialEq, Message)]
struct AggregationRule {
    #[prost(message, repeated, tag = "1")]
    cluster_role_selectors: Vec<LabelSelector>,
}

#[derive(Clone, PartialEq, Message)]
struct LabelSelector {
    #[prost(btree_map = "string, string", tag = "1")]
    match_labels: BTreeMap<String, String>,
    #[prost(message, repeated, tag = "2")]
    match_expressions: Vec<LabelSelectorRequirement>,
}

#[derive(Clone, PartialEq, Message)]
struct LabelSelectorRequirement {
    #[prost(string, tag = "1")]
    key: String,
    #[prost(string, tag = "2")]
    operator: String,
    #[prost(string, repeated, tag = "3")]
    values: Vec<String>,
}

#[derive(Clone, PartialEq, Message)]
struct RoleBinding {
    #[prost(message, optional, tag = "1")]
    metadata: Option<ObjectMeta>,
    #[prost(message, repeated, tag = "2")]
    subjects: Vec<Subject>,
    #[prost(message, optional, tag = "3")]
    role_ref: Option<RoleRef>,
}

#[derive(Clone, PartialEq, Message)]
struct Subject {
    #[prost(string, tag = "1")]
    kind: String,
    #[prost(string, tag = "2")]
    api_group: String,
    #[prost(string, tag = "3")]
    name: String,
    #[prost(string, tag = "4")]
    namespace: String,
}

#[derive(Clone, PartialEq, Message)]
struct RoleRef {
    #[prost(string, tag = "1")]
    api_group: String,
    #[prost(string, tag = "2")]
    kind: String,
    #[prost(string, tag = "3")]
    name: String,
}

/// A question without its status, which only the server writes.
#[derive(Clone, PartialEq, Message)]
struct Review<S: Message + Default + fmt::Debug> {
    #[prost(message, optional, tag = "1")]
    metadata: Option<ObjectMeta>,
    #[prost(message, optional, tag = "2")]
    spec: Option<S>,
}

#[derive(Clone, PartialEq, Message)]
struct RulesSpec {
    #[prost(string, tag = "1")]
    namespace: String,
}

#[derive(Clone, PartialEq, Message)]
#[prost(skip_debug)]
struct TokenSpec {
    #[prost(string, tag = "1")]
    token: String,
    #[prost(string, repeated, tag = "2")]
    audiences: Vec<String>,
}

impl fmt::Debug for TokenSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TokenSpec").field("audiences", &self.audiences).finish_non_exhaustive()
    }
}

/// Of whom is asked where somebody asks about others.
#[derive(Clone, PartialEq, Message)]
struct AccessSpec {
    #[prost(message, optional, tag = "1")]
    resource_attributes: Option<ResourceAttributes>,
    #[prost(message, optional, tag = "2")]
    non_resource_attributes: Option<NonResourceAttributes>,
    #[prost(string, tag = "3")]
    user: String,
    #[prost(string, repeated, tag = "4")]
    groups: Vec<String>,
    #[prost(string, tag = "6")]
    uid: String,
}

#[derive(Clone, PartialEq, Message)]
struct ResourceAttributes {
    #[prost(string, tag = "1")]
    namespace: String,
    #[prost(string, tag = "2")]
    verb: String,
    #[prost(string, tag = "3")]
    group: String,
    #[prost(string, tag = "4")]
    version: String,
    #[prost(string, tag = "5")]
    resource: String,
    #[prost(string, tag = "6")]
    subresource: String,
    #[prost(string, tag = "7")]
    name: String,
}

#[derive(Clone, PartialEq, Message)]
struct NonResourceAttributes {
    #[prost(string, tag = "1")]
    path: String,
    #[prost(string, tag = "2")]
    verb: String,
}

impl Role {
    fn json(self) -> Map<String, Value> {
        let rules = self.rules.into_iter().map(|rule| {
            let fields = Fields::default()
                .put("verbs", rule.verbs.into())
                .put("apiGroups", rule.api_groups.into())
                .put("resources", rule.resources.into())
                .put("resourceNames", rule.resource_names.into())
                .put("nonResourceURLs", rule.non_resource_urls.into());
            Value::Object(fields.0)
        });
        let aggregation = self.aggregation_rule.map(|rule| {
            let selectors = rule.cluster_role_selectors.into_iter().map(LabelSelector::json);
            json!({"clusterRoleSelectors": selectors.collect::<Vec<_>>()})
        });
        begun(self.metadata).put("rules", rules.collect()).put("aggregationRule", aggregation.into()).0
    }
}

impl LabelSelector {
    fn json(self) -> Value {
        let expressions = self.match_expressions.into_iter().map(|requirement| {
            let fields = Fields::default()
                .put("key", requirement.key.into())
                .put("operator", requirement.operator.into())
                .put("values", requirement.values.into());
            Value::Object(fields.0)
        });
        let fields = Fields::default()
            .put("matchLabels", json!(self.match_labels))
            .put("matchExpressions", expressions.collect());
        Value::Object(fields.0)
    }
}

impl RoleBinding {
    fn json(self) -> Map<String, Value> {
        let subjects = self.subjects.into_iter().map(|subject| {
            let fields = Fields::default()
                .put("kind", subject.kind.into())
                .put("apiGroup", subject.api_group.into())
                .put("name", subject.name.into())
                .put("namespace", subject.namespace.into());
            Value::Object(fields.0)
        });
        let role = self.role_ref.unwrap_or_default();
        let role = Fields::default()
            .put("apiGroup", role.api_group.into())
            .put("kind", role.kind.into())
            .put("name", role.name.into());
        begun(self.metadata).put("subjects", subjects.collect()).put("roleRef", Value::Object(role.0)).0
    }
}

impl AccessSpec {
    fn json(self) -> Value {
        let resource = self.resource_attributes.map(|asked| {
            let fields = Fields::default()
                .put("namespace", asked.namespace.into())
                .put("verb", asked.verb.into())
                .put("group", asked.group.into())
                .put("version", asked.version.into())
                .put("resource", asked.resource.into())
                .put("subresource", asked.subresource.into())
                .put("name", asked.name.into());
            Value::Object(fields.0)
        });
        let path = self.non_resource_attributes.map(|asked| {
            let fields = Fields::default().put("path", asked.path.into()).put("verb", asked.verb.into());
            Value::Object(fields.0)
        });
        let fields = Fields::default()
            .put("resourceAttributes", resource.into())
            .put("nonResourceAttributes", path.into())
            .put("user", self.user.into())
            .put("groups", self.groups.into())
            .put("uid", self.uid.into());
        Value::Object(fields.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_kubectl_create_rolebinding_sends_is_read() {
        let binding = RoleBinding {
            metadata: Some(ObjectMeta { name: "b".to_owned(), ..ObjectMeta::default() }),
            subjects: vec![Subject {
                kind: "ServiceAccount".to_owned(),
                name: "bot".to_owned(),
                namespace: "shop".to_owned(),
                ..Subject::default()
            }],
            role_ref: Some(RoleRef {
                kind: "ClusterRole".to_owned(),
                name: "r".to_owned(),
                ..RoleRef::default()
            }),
        };

        let read = decode("rbac.authorization.k8s.io/v1", "RoleBinding", &binding.encode_to_vec());

        assert_eq!(
            Value::Object(read.expect("reads").expect("it is known")),
            json!({"metadata": {"name": "b"}, "roleRef": {"kind": "ClusterRole", "name": "r"},
                "subjects": [{"kind": "ServiceAccount", "name": "bot", "namespace": "shop"}]})
        );
    }

    #[test]
    fn what_kubectl_auth_can_i_sends_is_read() {
        let asked = ResourceAttributes {
            verb: "create".to_owned(),
            resource: "operations".to_owned(),
            subresource: "kill".to_owned(),
            ..ResourceAttributes::default()
        };
        let spec = AccessSpec { resource_attributes: Some(asked), ..AccessSpec::default() };
        let review = Review { metadata: None, spec: Some(spec) };

        let read = decode("authorization.k8s.io/v1", "SelfSubjectAccessReview", &review.encode_to_vec());

        let read = read.expect("reads").expect("it is known");
        assert_eq!(
            read["spec"],
            json!({"resourceAttributes": {"verb": "create", "resource": "operations", "subresource": "kill"}})
        );
        assert_eq!(decode("v1", "Pod", b"").expect("reads"), None);
    }
}
