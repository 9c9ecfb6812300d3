//! Makes what is to be there from the start: the namespace `default`, and the built-in roles and bindings.

use std::fmt::Debug;

use anyhow::Context as _;
use k8s_openapi::api::core::v1::Namespace;
use k8s_openapi::api::rbac::v1::{ClusterRole, ClusterRoleBinding};
use kube::api::{ObjectMeta, PostParams};
use kube::{Api, Resource, ResourceExt as _};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::auth::builtin::{AUTOUPDATE, bindings, roles};
use crate::auth::rbac::uncovered;

/// How often an object is read again that somebody else changes meanwhile, as another replica that starts.
const ATTEMPTS: usize = 10;

/// Safe to run on all replicas at once, and at every start: what people have added stays.
pub async fn bootstrap(client: &kube::Client) -> anyhow::Result<()> {
    let metadata = ObjectMeta { name: Some("default".to_owned()), ..ObjectMeta::default() };
    let default = Namespace { metadata, ..Namespace::default() };
    ensure(&Api::all(client.clone()), default, |_, _| false).await?;
    for role in roles() {
        ensure(&Api::all(client.clone()), role, complete_role).await?;
    }
    for binding in bindings() {
        ensure(&Api::all(client.clone()), binding, complete_binding).await?;
    }
    Ok(())
}

/// Makes the object, or has `complete` add to the present one what it lacks, which says whether it lacked anything.
async fn ensure<K>(api: &Api<K>, wanted: K, complete: fn(&mut K, &K) -> bool) -> anyhow::Result<()>
where
    K: Resource + Clone + Debug + Serialize + DeserializeOwned,
{
    let name = wanted.name_any();
    let make = async || {
        for _ in 0..ATTEMPTS {
            let done = match api.get_opt(&name).await? {
                None => api.create(&PostParams::default(), &wanted).await,
                Some(present) if !is_kept(&present) => return Ok(()),
                Some(mut present) => {
                    if !complete(&mut present, &wanted) {
                        return Ok(());
                    }
                    api.replace(&name, &PostParams::default(), &present).await
                }
            };
            match done {
                Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) => {}
                done => return done.map(drop),
            }
        }
        Ok(())
    };
    let made: Result<(), kube::Error> = make().await;
    made.with_context(|| format!("cannot make `{name}`, which is to be there from the start"))
}

/// False where somebody has said that it is to stay as it is.
fn is_kept<K: Resource>(object: &K) -> bool {
    object.meta().annotations.as_ref().and_then(|all| all.get(AUTOUPDATE)).is_none_or(|value| value == "true")
}

fn complete_role(present: &mut ClusterRole, wanted: &ClusterRole) -> bool {
    // The rules of a role that gathers others' are not written down here.
    if present.aggregation_rule.is_some() {
        return false;
    }
    let rules = present.rules.get_or_insert_default();
    let held: Vec<_> = rules.iter().collect();
    let missing: Vec<_> = wanted.rules.iter().flatten().flat_map(|rule| uncovered(&held, rule)).collect();
    let is_incomplete = !missing.is_empty();
    rules.extend(missing);
    is_incomplete
}

fn complete_binding(present: &mut ClusterRoleBinding, wanted: &ClusterRoleBinding) -> bool {
    let subjects = present.subjects.get_or_insert_default();
    let missing: Vec<_> =
        wanted.subjects.iter().flatten().filter(|subject| !subjects.contains(subject)).cloned().collect();
    let is_incomplete = !missing.is_empty();
    subjects.extend(missing);
    is_incomplete
}
