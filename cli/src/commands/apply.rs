//! `gantry apply` and `diff`: manifests as the controller's server-side apply takes them.

mod prune;

use std::process::ExitCode;

use gantry_api::yaml;
use http::header::CONTENT_TYPE;
use http::{Request, StatusCode};
use serde_json::{Value, json};
use similar::TextDiff;

use crate::args::{ApplyArgs, DiffArgs, Reach};
use crate::client::{self, Controller};
use crate::manifests::{self, Manifest};
use crate::output::failure::{Ends, code, render};
use crate::output::form::obeyed;
use crate::output::out;
use prune::Prune;

/// How a manifest is put before the controller.
struct Way<'a> {
    is_dry: bool,
    force: bool,
    manager: &'a str,
}

/// Applies every manifest; one that is refused does not keep the others from being applied.
pub(crate) async fn apply(reach: &Reach, options: &ApplyArgs) -> anyhow::Result<ExitCode> {
    let controller = Controller::reach(reach).await?;
    let (manifests, kinds) = manifests::read(&controller, &options.files).await?;
    let prune = Prune::of(options, &kinds, &manifests)?;
    let way = Way {
        is_dry: options.dry_run.is_some(),
        force: options.force_conflicts,
        manager: &options.field_manager,
    };
    let only_one = manifests.len() == 1 && prune.is_none();
    let mut failed = 0;
    for manifest in &manifests {
        match put(&controller, manifest, &way).await {
            Ok((status, _)) => {
                let done = if status == StatusCode::CREATED { "created" } else { "applied" };
                let dry = if way.is_dry { " (not stored)" } else { "" };
                out::write(&format!("{} {done}{dry}\n", manifest.shown()))?;
            }
            Err(error) if only_one => return Err(error),
            Err(error) => {
                failed += 1;
                eprint!("{}", render(&error));
            }
        }
    }
    match prune {
        Some(_) if failed > 0 => eprintln!("nothing was pruned, since not everything could be applied"),
        Some(prune) => failed += prune.run(&controller, &manifests, options).await?,
        None => {}
    }
    Ok(if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

async fn put(
    controller: &Controller,
    manifest: &Manifest,
    way: &Way<'_>,
) -> anyhow::Result<(StatusCode, Value)> {
    let mut query = vec![("fieldManager", way.manager), ("fieldValidation", "Strict")];
    query.extend(Some(("force", "true")).filter(|_| way.force));
    query.extend(Some(("dryRun", "All")).filter(|_| way.is_dry));
    let path = format!("{}?{}", manifest.path, client::query(query).trim_start_matches('&'));
    let request = Request::patch(path)
        .header(CONTENT_TYPE, "application/apply-patch+yaml")
        .body(serde_json::to_vec(&manifest.object)?)?;
    let response = controller.open(request, &manifest.shown()).await?;
    let status = response.status();
    Ok((status, controller.body(response, &manifest.shown()).await?))
}

/// Shows what applying would change.
pub(crate) async fn diff(reach: &Reach, options: &DiffArgs) -> anyhow::Result<ExitCode> {
    match differences(reach, options).await {
        Ok(text) if text.is_empty() => Ok(ExitCode::SUCCESS),
        Ok(text) => {
            out::write(&obeyed(text))?;
            Ok(ExitCode::from(1))
        }
        // One would be taken for a difference.
        Err(error) if code(&error) == Ends::Failed as u8 => {
            eprint!("{}", render(&error));
            Ok(ExitCode::from(Ends::Misunderstood as u8))
        }
        Err(error) => Err(error),
    }
}

async fn differences(reach: &Reach, options: &DiffArgs) -> anyhow::Result<String> {
    let controller = Controller::reach(reach).await?;
    let way = Way { is_dry: true, force: options.force_conflicts, manager: &options.field_manager };
    let mut text = String::new();
    for manifest in manifests::read(&controller, &options.files).await?.0 {
        let request = Request::get(&manifest.path).body(Vec::new())?;
        let before = match controller.read::<Value>(request, &manifest.shown()).await {
            Ok(object) => Some(object),
            Err(error) if code(&error) == Ends::NotFound as u8 => None,
            Err(error) => return Err(error),
        };
        let (_, after) = put(&controller, &manifest, &way).await?;
        text.push_str(&difference(&manifest.shown(), before, after)?);
    }
    Ok(text)
}

/// In the form of `diff -u`; empty where nothing differs.
fn difference(shown: &str, before: Option<Value>, after: Value) -> anyhow::Result<String> {
    let (mut before, mut after) = (before.map(manifests::settable), manifests::settable(after));
    if after.get("kind") == Some(&json!("Secret")) {
        hide(before.as_mut(), &mut after);
    }
    let before = before.map(|object| yaml::write(&object)).transpose()?.unwrap_or_default();
    let after = yaml::write(&after)?;
    if before == after {
        return Ok(String::new());
    }
    let from = if before.is_empty() { "nothing".to_owned() } else { format!("{shown} as it is") };
    let differences = TextDiff::from_lines(&before, &after);
    Ok(differences.unified_diff().header(&from, &format!("{shown} as it would be")).to_string())
}

/// Of Secrets only which values differ is told.
fn hide(mut before: Option<&mut Value>, after: &mut Value) {
    for field in ["data", "stringData"] {
        let old = before.as_deref().and_then(|object| object.get(field)).cloned().unwrap_or_default();
        if let Some(values) = after.get_mut(field).and_then(Value::as_object_mut) {
            for (name, value) in values {
                let is_same = old.get(name) == Some(value);
                *value = if is_same { "***" } else { "*** (new)" }.into();
            }
        }
        let values = before.as_deref_mut().and_then(|object| object.get_mut(field));
        for (_, value) in values.and_then(Value::as_object_mut).into_iter().flatten() {
            *value = "***".into();
        }
    }
}

#[cfg(test)]
mod tests {
    use insta::assert_snapshot;

    use super::*;

    #[test]
    fn a_difference_is_shown_without_what_every_write_changes() {
        let object = |version: &str, archived: bool| json!({"kind": "DockerInstance", "metadata": {"name": "a", "resourceVersion": version}, "spec": {"archived": archived, "paused": false}, "status": {"health": version}});

        assert_eq!(difference("x", Some(object("1", true)), object("2", true)).expect("YAML"), "");
        assert_snapshot!(difference("di/a", Some(object("1", false)), object("2", true)).expect("YAML"), @r"
        --- di/a as it is
        +++ di/a as it would be
        @@ -2,5 +2,5 @@
         metadata:
           name: a
         spec:
        -  archived: false
        +  archived: true
           paused: false
        ");
        assert!(difference("di/a", None, object("2", true)).expect("YAML").starts_with("--- nothing\n"));
    }

    #[test]
    fn t28_values_of_secrets_are_not_shown() {
        let secret =
            |password: &str| json!({"kind": "Secret", "data": {"password": password, "user": "YWRh"}});

        let text = difference("secret/a", Some(secret("c2VjcmV0")), secret("bmV3")).expect("YAML");
        assert!(text.contains("*** (new)"), "{text}");
        for value in ["c2VjcmV0", "bmV3", "YWRh"] {
            assert!(!text.contains(value), "{text}");
        }
    }
}
