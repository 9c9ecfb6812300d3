//! `gantry apply --prune`: away with what was applied before and is in no manifest any more.
//!
//! An object goes only if all of this is so: its kind is one of those that are pruned; it is in a namespace of the manifests, or the one
//! that is meant; it has the labels of `-l`; this manager has applied it; nobody else owns it, and it is not going already; and it is
//! not among the manifests. Nothing goes where a manifest was refused.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use gantry_api::names::GROUP;
use http::Request;
use http::header::CONTENT_TYPE;
use serde_json::{Value, json};

use crate::args::ApplyArgs;
use crate::client::{Controller, encoded};
use crate::commands::fleet;
use crate::kinds::{self, Kind};
use crate::manifests::Manifest;
use crate::output::failure::{self, Ends, Hinted};
use crate::output::out;
use crate::output::plain::plain;

/// Labels that what is applied has, and what is pruned.
pub(super) struct Prune<'a> {
    selector: &'a str,
    kinds: Vec<&'a Kind>,
}

impl<'a> Prune<'a> {
    /// Before anything is applied: `None` where nothing is to be pruned, an error where it cannot be done safely.
    pub(super) fn of(
        options: &'a ApplyArgs,
        kinds: &'a [Kind],
        manifests: &[Manifest],
    ) -> anyhow::Result<Option<Self>> {
        let Some(selector) = options.selector.as_deref().filter(|_| options.prune) else { return Ok(None) };
        let labels = labels(selector).ok_or_else(|| {
            Hinted::new(
                Ends::Misunderstood,
                "with --prune, -l takes labels as `app=shop,tier=web` and nothing else",
            )
        })?;
        for manifest in manifests {
            let own = |name: &str| {
                let all = manifest.object.pointer("/metadata/labels");
                all.and_then(|all| all.get(name)).and_then(Value::as_str)
            };
            if let Some((name, value)) = labels.iter().find(|(name, value)| own(name) != Some(**value)) {
                let what = format!("{} has no label {}={}", manifest.shown(), plain(name), plain(value));
                return Err(Hinted::new(Ends::Misunderstood, what)
                    .hint("with --prune all manifests have the labels of -l: the next time they are known by them")
                    .into());
            }
        }
        let kinds = if options.prune_allowlist.is_empty() {
            // Operations are a record of what was done, and no wish that something be there.
            let is_ours =
                |kind: &&Kind| kind.group == GROUP && kind.kind != "Operation" && can_be_pruned(kind);
            kinds.iter().filter(is_ours).collect()
        } else {
            let words = options.prune_allowlist.iter();
            words.map(|word| kinds::find(kinds, word)).collect::<Result<Vec<_>, _>>()?.concat()
        };
        Ok(Some(Self { selector, kinds }))
    }

    /// Deletes what is not among the manifests, and says so; how many could not be.
    pub(super) async fn run(
        &self,
        controller: &Controller,
        manifests: &[Manifest],
        options: &ApplyArgs,
    ) -> anyhow::Result<usize> {
        let is_dry = options.dry_run.is_some();
        let applied: HashSet<&str> = manifests.iter().map(|manifest| &*manifest.path).collect();
        let mut namespaces: BTreeSet<&str> = BTreeSet::from([&*controller.namespace]);
        namespaces.extend(
            manifests.iter().filter_map(|manifest| {
                manifest.object.pointer("/metadata/namespace").and_then(Value::as_str)
            }),
        );
        let mut failed = 0;
        for kind in &self.kinds {
            let places: BTreeSet<String> =
                namespaces.iter().map(|namespace| kind.path(Some(namespace))).collect();
            for place in places {
                let what = format!("the {} cannot be listed, so none was pruned", kind.plural);
                let query = [("labelSelector", self.selector)];
                for object in fleet::list(controller, &place, &query, &what).await? {
                    let text = |pointer: &str| object.pointer(pointer).and_then(Value::as_str);
                    let (Some(name), Some(uid)) = (text("/metadata/name"), text("/metadata/uid")) else {
                        continue;
                    };
                    let path = format!("{place}/{}", encoded(name));
                    if applied.contains(&*path) || !is_ours(&object, &options.field_manager) {
                        continue;
                    }
                    let shown = format!("{}/{}", kind.singular_name(), plain(name));
                    match delete(controller, &path, uid, &shown, is_dry).await {
                        Ok(()) => {
                            let dry = if is_dry { " (not stored)" } else { "" };
                            out::write(&format!("{shown} pruned{dry}\n"))?;
                        }
                        Err(error) => {
                            failed += 1;
                            eprint!("{}", failure::render(&error));
                        }
                    }
                }
            }
        }
        Ok(failed)
    }
}

fn can_be_pruned(kind: &Kind) -> bool {
    ["list", "delete", "patch"].iter().all(|verb| kind.verbs.iter().any(|known| known == verb))
}

/// `a=b,c==d`.
fn labels(selector: &str) -> Option<BTreeMap<&str, &str>> {
    let found = selector.split(',').map(|one| {
        let (name, value) = one.split_once('=')?;
        let value = value.strip_prefix('=').unwrap_or(value).trim();
        let name = name.trim();
        let is_plain = !name.is_empty() && !name.ends_with('!') && !value.is_empty() && !value.contains('=');
        is_plain.then_some((name, value))
    });
    found.collect()
}

/// Applied by this manager, owned by no other object, and not on its way out.
fn is_ours(object: &Value, manager: &str) -> bool {
    let list = |pointer: &str| object.pointer(pointer).and_then(Value::as_array).into_iter().flatten();
    let has_applied = list("/metadata/managedFields").any(|entry| {
        let text = |name: &str| entry.get(name).and_then(Value::as_str).unwrap_or_default();
        text("manager") == manager && text("operation") == "Apply" && text("subresource").is_empty()
    });
    has_applied
        && list("/metadata/ownerReferences").next().is_none()
        && object.pointer("/metadata/deletionTimestamp").is_none()
}

/// Exactly the object that was looked at.
async fn delete(
    controller: &Controller,
    path: &str,
    uid: &str,
    shown: &str,
    is_dry: bool,
) -> anyhow::Result<()> {
    let mut wish = json!({"apiVersion": "v1", "kind": "DeleteOptions", "preconditions": {"uid": uid}});
    if is_dry && let Some(fields) = wish.as_object_mut() {
        fields.insert("dryRun".to_owned(), json!(["All"]));
    }
    let request =
        Request::delete(path).header(CONTENT_TYPE, "application/json").body(wish.to_string().into_bytes())?;
    match controller.read::<Value>(request, shown).await {
        // Gone is what was wanted.
        Err(error) if failure::answer(&error) == Some(404) => Ok(()),
        other => other.map(drop),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_this_manager_applied_and_nobody_owns_is_pruned() {
        let entry = |manager: &str, operation: &str| json!({"manager": manager, "operation": operation});
        let object = |metadata: Value| json!({"metadata": metadata});

        assert!(is_ours(
            &object(json!({"managedFields": [entry("kubectl", "Update"), entry("gantry", "Apply")]})),
            "gantry"
        ));
        for metadata in [
            json!({}),
            json!({"managedFields": [entry("gantry", "Update")]}),
            json!({"managedFields": [entry("other", "Apply")]}),
            json!({"managedFields": [{"manager": "gantry", "operation": "Apply", "subresource": "status"}]}),
            json!({"managedFields": [entry("gantry", "Apply")], "ownerReferences": [{"uid": "u"}]}),
            json!({"managedFields": [entry("gantry", "Apply")], "deletionTimestamp": "2026-05-01T00:00:00Z"}),
        ] {
            assert!(!is_ours(&object(metadata.clone()), "gantry"), "{metadata}");
        }
    }

    #[test]
    fn what_is_pruned_is_known_by_plain_labels() {
        assert_eq!(labels("app=shop,tier==web"), Some(BTreeMap::from([("app", "shop"), ("tier", "web")])));
        for wrong in ["", "app", "!app", "app!=shop", "app in (a,b)", "app=", "=x", "a=b,"] {
            assert_eq!(labels(wrong), None, "{wrong}");
        }
    }
}
