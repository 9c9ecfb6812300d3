//! Says in a Namespace's status what it waits for, in the words that Kubernetes uses.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Namespace, NamespaceCondition};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::Client;
use kube::api::{Api, Patch, PatchParams};
use serde_json::json;

use super::graph::{Record, Remains};
use super::{KINDS, Kind};
use crate::reconcilers::conditions::shorten;

const LONGEST: usize = 1024;

/// Type, status, reason and message of a condition.
type Wanted = (&'static str, bool, &'static str, String);

/// Writes the conditions if they say something new.
pub(super) async fn report(
    client: &Client,
    now: Timestamp,
    namespace: &Record,
    remains: &Remains,
) -> Result<(), kube::Error> {
    let namespaces: Api<Namespace> = Api::all(client.clone());
    let Some(found) = namespaces.get_opt(&namespace.name).await? else { return Ok(()) };
    let before = found.status.and_then(|status| status.conditions).unwrap_or_default();
    let after = conditions(&before, remains, now);
    if after == before {
        return Ok(());
    }
    let patch = json!({
        "metadata": {"uid": namespace.uid, "resourceVersion": found.metadata.resource_version},
        "status": {"conditions": after},
    });
    namespaces.patch_status(&namespace.name, &PatchParams::default(), &Patch::Merge(patch)).await.map(|_| ())
}

/// The conditions with ours in them; a transition time moves only with the status.
fn conditions(before: &[NamespaceCondition], remains: &Remains, now: Timestamp) -> Vec<NamespaceCondition> {
    let mut after = before.to_vec();
    for (type_, is_true, reason, message) in wanted(remains) {
        let status = if is_true { "True" } else { "False" };
        let at = after.iter().position(|condition| condition.type_ == type_);
        let present = at.map(|at| after.remove(at));
        let since =
            present.filter(|present| present.status == status).and_then(|one| one.last_transition_time);
        let condition = NamespaceCondition {
            type_: type_.to_owned(),
            status: status.to_owned(),
            reason: Some(reason.to_owned()),
            message: Some(message),
            last_transition_time: since.or(Some(Time(now))),
        };
        after.insert(at.unwrap_or(after.len()), condition);
    }
    after
}

fn wanted(remains: &Remains) -> [Wanted; 5] {
    let told =
        |of: &'static str, counts: Vec<String>| shorten(&format!("{of}: {}", counts.join(", ")), LONGEST);
    let objects = remains.objects.iter().filter_map(|(kind, count)| {
        let Kind { group, plural, .. } = KINDS.get(*kind)?;
        Some(format!("{plural}.{group} has {count} resource instances"))
    });
    let finalizers = remains.finalizers.iter();
    let finalizers = finalizers.map(|(name, count)| format!("{name} in {count} resource instances"));
    [
        (
            "NamespaceDeletionDiscoveryFailure",
            false,
            "ResourcesDiscovered",
            "All resources successfully discovered".to_owned(),
        ),
        (
            "NamespaceDeletionGroupVersionParsingFailure",
            false,
            "ParsedGroupVersions",
            "All legacy kube types successfully parsed".to_owned(),
        ),
        (
            "NamespaceDeletionContentFailure",
            false,
            "ContentDeleted",
            "All content successfully deleted, may be waiting on finalization".to_owned(),
        ),
        (
            "NamespaceContentRemaining",
            true,
            "SomeResourcesRemain",
            told("Some resources are remaining", objects.collect()),
        ),
        (
            "NamespaceFinalizersRemaining",
            true,
            "SomeFinalizersRemain",
            told("Some content in the namespace has finalizers remaining", finalizers.collect()),
        ),
    ]
}
