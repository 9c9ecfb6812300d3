//! Every kind of patch, and server-side apply.

use anyhow::ensure;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::ResourceExt as _;
use kube::api::{Patch, PatchParams};
use serde_json::{Value, from_value, json};

use super::{Tool, refused};
use crate::conformance::Client;

pub(super) async fn run(client: &Client, tool: &Tool) {
    client.case("patch: merge", merge(tool)).await;
    client.case("patch: json", json_patch(tool)).await;
    client.case("patch: strategic", strategic(tool)).await;
    client.case("field validation", validation(tool)).await;
    client.case("apply: create", apply(tool)).await;
    client.case("apply: conflict and force", conflict(tool)).await;
    client.case("apply: own kinds and status", own_kinds(tool)).await;
    client.case("apply: diff and dry run", dry(tool)).await;
}

async fn merge(tool: &Tool) -> anyhow::Result<()> {
    tool.make_instance("merged", json!({"displayName": "old", "description": "kept"})).await?;
    let patch = Patch::Merge(json!({"spec": {"displayName": "new"}}));
    let patched = tool.instances.patch("merged", &PatchParams::default(), &patch).await?;
    ensure!(
        patched.spec.display_name.as_deref() == Some("new")
            && patched.spec.description.as_deref() == Some("kept"),
        "{patched:?}"
    );
    let partial = tool
        .instances
        .patch_metadata(
            "merged",
            &PatchParams::default(),
            &Patch::Merge(json!({"metadata": {"labels": {"a": "b"}}})),
        )
        .await?;
    ensure!(partial.labels().contains_key("a"), "{partial:?}");
    Ok(())
}

async fn json_patch(tool: &Tool) -> anyhow::Result<()> {
    tool.make("listed", "patched").await?;
    let send = async |patch: Value| -> anyhow::Result<_> {
        let patch = Patch::Json::<()>(from_value(patch)?);
        Ok(tool.maps.patch("listed", &PatchParams::default(), &patch).await)
    };
    let patched = send(json!([{"op": "test", "path": "/data/k", "value": "v"}, {"op": "replace", "path": "/data/k", "value": "w"}])).await??;
    ensure!(data(&patched) == json!({"k": "w"}));
    refused(422, send(json!([{"op": "test", "path": "/data/k", "value": "v"}])).await?).map(drop)
}

async fn strategic(tool: &Tool) -> anyhow::Result<()> {
    tool.make("strategic", "patched").await?;
    let patch =
        Patch::Strategic(json!({"metadata": {"finalizers": ["gantry.dev/a"]}, "data": {"more": "w"}}));
    let patched = tool.maps.patch("strategic", &PatchParams::default(), &patch).await?;
    ensure!(patched.finalizers() == ["gantry.dev/a"] && patched.data.is_some_and(|data| data.len() == 2));
    let patch =
        Patch::Strategic(json!({"metadata": {"$deleteFromPrimitiveList/finalizers": ["gantry.dev/a"]}}));
    ensure!(tool.maps.patch("strategic", &PatchParams::default(), &patch).await?.finalizers().is_empty());
    tool.make_instance("no-strategy", json!({})).await?;
    let patch = Patch::Strategic(json!({}));
    refused(415, tool.instances.patch("no-strategy", &PatchParams::default(), &patch).await).map(drop)
}

async fn validation(tool: &Tool) -> anyhow::Result<()> {
    tool.make_instance("validated", json!({})).await?;
    let patch = Patch::Merge(json!({"spec": {"wrong": 1}}));
    let strict = PatchParams::default().validation_strict();
    let status = refused(400, tool.instances.patch("validated", &strict, &patch).await)?;
    ensure!(
        status.message.contains("strict decoding error: unknown field \"spec.wrong\""),
        "{}",
        status.message
    );
    tool.instances.patch("validated", &PatchParams::default().validation_warn(), &patch).await?;
    tool.instances.patch("validated", &PatchParams::default().validation_ignore(), &patch).await?;
    Ok(())
}

fn wish(name: &str, data: Value) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": data})
}

fn data(map: &ConfigMap) -> Value {
    json!(map.data)
}

async fn apply(tool: &Tool) -> anyhow::Result<()> {
    let params = PatchParams::apply("kube-rs");
    let made = tool.maps.patch("applied", &params, &Patch::Apply(wish("applied", json!({"k": "v"})))).await?;
    let managers: Vec<_> = made
        .managed_fields()
        .iter()
        .map(|entry| (entry.manager.as_deref(), entry.operation.as_deref()))
        .collect();
    ensure!(managers == [(Some("kube-rs"), Some("Apply"))], "{managers:?}");
    let again =
        tool.maps.patch("applied", &params, &Patch::Apply(wish("applied", json!({"k": "v"})))).await?;
    ensure!(again.resource_version() == made.resource_version(), "the same again is a change");
    let less =
        tool.maps.patch("applied", &params, &Patch::Apply(wish("applied", json!({"other": "w"})))).await?;
    ensure!(data(&less) == json!({"other": "w"}), "{less:?}");
    Ok(())
}

async fn conflict(tool: &Tool) -> anyhow::Result<()> {
    let patch = |value: &str| Patch::Apply(wish("fought-over", json!({"k": value})));
    tool.maps.patch("fought-over", &PatchParams::apply("one"), &patch("1")).await?;
    let status = refused(409, tool.maps.patch("fought-over", &PatchParams::apply("two"), &patch("2")).await)?;
    let causes = status.details.map(|details| details.causes).unwrap_or_default();
    ensure!(
        causes.iter().any(|cause| cause.reason == "FieldManagerConflict" && cause.field == ".data.k"),
        "{causes:?}"
    );
    let forced = tool.maps.patch("fought-over", &PatchParams::apply("two").force(), &patch("2")).await?;
    ensure!(data(&forced) == json!({"k": "2"}), "{forced:?}");
    Ok(())
}

async fn own_kinds(tool: &Tool) -> anyhow::Result<()> {
    let wish = json!({"apiVersion": "gantry.dev/v1alpha1", "kind": "DockerInstance", "metadata": {"name": "applied"},
        "spec": {"displayName": "x"}});
    let made = tool.instances.patch("applied", &PatchParams::apply("kube-rs"), &Patch::Apply(wish)).await?;
    ensure!(made.spec.display_name.as_deref() == Some("x"), "{made:?}");
    let status = json!({"apiVersion": "gantry.dev/v1alpha1", "kind": "DockerInstance", "metadata": {"name": "applied"},
        "status": {"agentVersion": "9"}});
    let stated = tool
        .instances
        .patch_status("applied", &PatchParams::apply("reporter").force(), &Patch::Apply(status))
        .await?;
    let is_reporters = |entry: &&k8s_openapi::apimachinery::pkg::apis::meta::v1::ManagedFieldsEntry| {
        entry.manager.as_deref() == Some("reporter") && entry.subresource.as_deref() == Some("status")
    };
    ensure!(
        stated.managed_fields().iter().any(|entry| is_reporters(&entry)),
        "{:?}",
        stated.managed_fields()
    );
    Ok(())
}

async fn dry(tool: &Tool) -> anyhow::Result<()> {
    let params = PatchParams::apply("kube-rs").dry_run();
    tool.maps.patch("dry-applied", &params, &Patch::Apply(wish("dry-applied", json!({"k": "v"})))).await?;
    ensure!(tool.maps.get_opt("dry-applied").await?.is_none(), "a dry run created it");
    Ok(())
}
