//! Questions about who somebody is and what he may do: answered, and kept nowhere.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::response::Response;
use http::StatusCode;
use k8s_openapi::api::authentication::v1::{TokenReviewSpec, TokenReviewStatus, UserInfo};
use k8s_openapi::api::authorization::v1::{
    NonResourceAttributes, NonResourceRule, ResourceAttributes, ResourceRule, SelfSubjectAccessReviewSpec,
    SelfSubjectRulesReviewSpec, SubjectAccessReviewSpec, SubjectAccessReviewStatus, SubjectRulesReviewStatus,
};
use k8s_openapi::api::rbac::v1::PolicyRule;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::write::{metadata, place, validation};
use crate::apiserver::admission::{self, Admitted};
use crate::apiserver::authorize::UNDECIDED;
use crate::apiserver::decode::decode;
use crate::apiserver::failure::{Cause, CauseReason, Failure, Outcome};
use crate::apiserver::request::Call;
use crate::apiserver::{ApiServer, answer};
use crate::auth::rbac::{Asked, What, everything};
use crate::auth::{Caller, Reviewed};

/// Answers what was posted, with a status.
pub(crate) async fn review(server: &ApiServer, call: &Call, body: &[u8]) -> Outcome<Response> {
    let decoded = decode(body, call.content_type.as_deref())?;
    let mut object = decoded.value;
    place(call, &mut object)?;
    if let Some(fields) = object.as_object_mut() {
        fields.remove("status");
    }
    let Admitted { mut object, warnings } =
        admission::admit_posted(call.kind, object, validation(call), &decoded.duplicates)?;
    // Clients expect `metadata`, though it says nothing.
    metadata(&mut object)?;
    let status = match call.kind.kind.as_str() {
        "SelfSubjectReview" => written(&BTreeMap::from([("userInfo", user_info(&call.caller))])),
        "SelfSubjectAccessReview" => {
            let spec: SelfSubjectAccessReviewSpec = spec(&object)?;
            let asked = Wish::read(call, spec.resource_attributes, spec.non_resource_attributes)?;
            written(&decide(server, &call.caller, &asked))
        }
        "SubjectAccessReview" | "LocalSubjectAccessReview" => {
            let spec: SubjectAccessReviewSpec = spec(&object)?;
            let caller = subject(call, &spec)?;
            let asked = Wish::read(call, spec.resource_attributes, spec.non_resource_attributes)?;
            server.rights.catch_up().await;
            written(&decide(server, &caller, &asked))
        }
        "SelfSubjectRulesReview" => {
            let spec: SelfSubjectRulesReviewSpec = spec(&object)?;
            written(&rules(server, &call.caller, spec.namespace.as_deref().unwrap_or_default())?)
        }
        "TokenReview" => {
            let status = written(&identity(server, call, spec(&object)?).await?);
            // It has been shown; nobody needs it back.
            if let Some(spec) = object.get_mut("spec").and_then(Value::as_object_mut) {
                spec.remove("token");
            }
            status
        }
        other => Err(Failure::internal(format!("{other} is posted and has no answer"))),
    }?;
    if let Some(fields) = object.as_object_mut() {
        fields.insert("status".to_owned(), status);
    }
    let json = serde_json::to_vec(&object).map_err(answer::broken)?;
    Ok(answer::warn(answer::object(call, server.clock.now(), StatusCode::CREATED, json.into())?, &warnings))
}

fn spec<T: DeserializeOwned>(object: &Value) -> Outcome<T> {
    let spec = object.get("spec").cloned().unwrap_or_default();
    serde_json::from_value(spec).map_err(Failure::internal)
}

fn written(status: &impl Serialize) -> Outcome<Value> {
    serde_json::to_value(status).map_err(answer::broken)
}

fn user_info(caller: &Caller) -> UserInfo {
    UserInfo {
        username: Some(caller.user.to_string()),
        uid: caller.uid.as_deref().map(str::to_owned),
        groups: Some(caller.groups.iter().map(ToString::to_string).collect()),
        extra: Some((*caller.extra).clone()).filter(|extra| !extra.is_empty()),
    }
}

/// Who a token is.
async fn identity(server: &ApiServer, call: &Call, spec: TokenReviewSpec) -> Outcome<TokenReviewStatus> {
    let (token, audiences) = (spec.token.unwrap_or_default(), spec.audiences.unwrap_or_default());
    if token.is_empty() {
        return Err(invalid(call, "spec.token", "a token is required"));
    }
    let reviewed = server.authenticator.review(&token, &audiences).await;
    let reviewed = reviewed.map_err(|_| Failure::unavailable(UNDECIDED))?;
    Ok(match reviewed {
        Some(Reviewed { caller, audiences }) => TokenReviewStatus {
            authenticated: Some(true),
            user: Some(user_info(&caller)),
            audiences: Some(audiences),
            error: None,
        },
        None => TokenReviewStatus {
            error: Some("the token is none that is accepted for these audiences".to_owned()),
            ..TokenReviewStatus::default()
        },
    })
}

/// Of whom it is asked.
fn subject(call: &Call, spec: &SubjectAccessReviewSpec) -> Outcome<Caller> {
    let (user, groups) =
        (spec.user.as_deref().unwrap_or_default(), spec.groups.as_deref().unwrap_or_default());
    if user.is_empty() && groups.is_empty() {
        return Err(invalid(call, "spec.user", "at least one of user or group must be specified"));
    }
    Ok(Caller {
        user: user.into(),
        groups: groups.iter().map(|group| Arc::from(group.as_str())).collect(),
        ..Caller::default()
    })
}

/// What is asked about.
enum Wish {
    Resource(Box<ResourceAttributes>),
    Path(NonResourceAttributes),
}

impl Wish {
    fn read(
        call: &Call,
        resource: Option<ResourceAttributes>,
        path: Option<NonResourceAttributes>,
    ) -> Outcome<Self> {
        const BOTH: &str = "exactly one of nonResourceAttributes or resourceAttributes must be specified";
        match (resource, path) {
            (Some(mut resource), None) => {
                if let Some(own) = call.namespace.as_deref()
                    && *resource.namespace.get_or_insert_with(|| own.to_owned()) != own
                {
                    let why = "must match metadata.namespace";
                    return Err(invalid(call, "spec.resourceAttributes.namespace", why));
                }
                Ok(Self::Resource(Box::new(resource)))
            }
            (None, Some(_)) if call.kind.namespaced => {
                let why = "disallowed on this kind of request";
                Err(invalid(call, "spec.nonResourceAttributes", why))
            }
            (None, Some(path)) => Ok(Self::Path(path)),
            (Some(_), Some(_)) => Err(invalid(call, "spec.nonResourceAttributes", BOTH)),
            (None, None) => Err(invalid(call, "spec.resourceAttributes", BOTH)),
        }
    }
}

fn decide(server: &ApiServer, caller: &Caller, wish: &Wish) -> SubjectAccessReviewStatus {
    let text = |text: &'_ Option<String>| text.clone().unwrap_or_default();
    let grounds = match wish {
        Wish::Resource(asked) => {
            let (group, plural, subresource) =
                (text(&asked.group), text(&asked.resource), text(&asked.subresource));
            let (name, verb) = (text(&asked.name), text(&asked.verb));
            let what =
                What::Resource { group: &group, plural: &plural, subresource: &subresource, name: &name };
            server.rights.grounds(caller, &text(&asked.namespace), &Asked { verb: &verb, what })
        }
        Wish::Path(asked) => {
            let (path, verb) = (text(&asked.path), text(&asked.verb));
            server.rights.grounds(caller, "", &Asked { verb: &verb, what: What::Path(&path) })
        }
    };
    SubjectAccessReviewStatus {
        allowed: grounds.is_some(),
        reason: grounds.map(std::borrow::Cow::into_owned),
        ..SubjectAccessReviewStatus::default()
    }
}

/// Every rule that the caller has there.
fn rules(server: &ApiServer, caller: &Caller, namespace: &str) -> Outcome<SubjectRulesReviewStatus> {
    if namespace.is_empty() {
        return Err(Failure::bad_request("spec.namespace: Required value: no namespace on request"));
    }
    let policy = server.rights.policy();
    let mut rules: Vec<PolicyRule> = Vec::new();
    let held = policy.rules(&caller.user, &caller.groups, namespace).map(|bound| bound.rule.clone());
    let of_admins = caller.is_admin().then(everything).into_iter().flatten();
    for rule in of_admins.chain(held) {
        if !rules.contains(&rule) {
            rules.push(rule);
        }
    }
    let is_path = |rule: &PolicyRule| rule.non_resource_urls.as_ref().is_some_and(|urls| !urls.is_empty());
    let (paths, resources): (Vec<_>, Vec<_>) = rules.into_iter().partition(is_path);
    Ok(SubjectRulesReviewStatus {
        resource_rules: resources
            .into_iter()
            .map(|rule| ResourceRule {
                api_groups: rule.api_groups,
                resource_names: rule.resource_names,
                resources: rule.resources,
                verbs: rule.verbs,
            })
            .collect(),
        non_resource_rules: paths
            .into_iter()
            .map(|rule| NonResourceRule { non_resource_urls: rule.non_resource_urls, verbs: rule.verbs })
            .collect(),
        ..SubjectRulesReviewStatus::default()
    })
}

fn invalid(call: &Call, field: &str, why: &str) -> Failure {
    let message = format!("Invalid value: {why}");
    let cause = Cause { field: field.to_owned(), reason: CauseReason::Invalid, message };
    Failure::invalid(&call.kind.group, &call.kind.kind, "", vec![cause])
}
