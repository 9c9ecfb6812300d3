//! Creating, replacing and deleting.

use std::time::Duration;

use anyhow::{Context as _, ensure};
use k8s_openapi::api::core::v1::{Namespace, Secret};
use kube::ResourceExt as _;
use kube::api::{Api, DeleteParams, ListParams, ObjectMeta, PostParams, Preconditions, Resource as _};
use serde_json::json;

use super::{Tool, config_map, refused};
use crate::conformance::Client;

pub(super) async fn run(client: &Client, tool: &Tool) {
    client.case("create and get", create(tool)).await;
    client.case("generateName", generate_name(tool)).await;
    client.case("replace and conflict", replace(tool)).await;
    client.case("secrets", secrets(tool)).await;
    client.case("status subresource", status(tool)).await;
    client.case("dry run", dry_run(tool)).await;
    client.case("delete: background", delete(tool, "back", DeleteParams::background())).await;
    client.case("delete: foreground", delete(tool, "fore", DeleteParams::foreground())).await;
    client.case("delete: orphan", orphan(tool)).await;
    client.case("delete: preconditions", preconditions(tool)).await;
    client.case("delete: collection", collection(tool)).await;
    client.case("namespaces", namespaces(tool)).await;
}

async fn create(tool: &Tool) -> anyhow::Result<()> {
    let made = tool.make("made", "made").await?;
    ensure!(made.uid().is_some() && made.creation_timestamp().is_some(), "{made:?}");
    ensure!(tool.maps.get("made").await? == made, "it is not read back");
    let status = refused(409, tool.maps.create(&PostParams::default(), &config_map("made", "made")?).await)?;
    ensure!(status.reason == "AlreadyExists", "{status:?}");
    ensure!(tool.maps.get_opt("none").await?.is_none());
    Ok(())
}

async fn generate_name(tool: &Tool) -> anyhow::Result<()> {
    let mut map = config_map("", "made")?;
    map.metadata = ObjectMeta { generate_name: Some("some-".to_owned()), ..ObjectMeta::default() };
    let made = tool.maps.create(&PostParams::default(), &map).await?;
    ensure!(made.name_any().len() == "some-".len() + 5, "{made:?}");
    Ok(())
}

async fn replace(tool: &Tool) -> anyhow::Result<()> {
    let old = tool.make("replaced", "made").await?;
    let mut new = old.clone();
    new.data.get_or_insert_default().insert("more".to_owned(), "w".to_owned());
    tool.maps.replace("replaced", &PostParams::default(), &new).await?;
    let status = refused(409, tool.maps.replace("replaced", &PostParams::default(), &new).await)?;
    ensure!(status.reason == "Conflict", "{status:?}");
    let mut entry = tool.maps.entry("replaced").await?.or_insert(|| old);
    entry.get_mut().labels_mut().insert("by".to_owned(), "entry".to_owned());
    entry.commit(&PostParams::default()).await?;
    ensure!(tool.maps.get("replaced").await?.labels().contains_key("by"));
    Ok(())
}

async fn secrets(tool: &Tool) -> anyhow::Result<()> {
    let api: Api<Secret> = Api::namespaced(tool.client.clone(), &tool.namespace);
    let secret: Secret =
        serde_json::from_value(json!({"metadata": {"name": "s"}, "stringData": {"password": "moon"}}))?;
    let made = api.create(&PostParams::default(), &secret).await?;
    let data = made.data.unwrap_or_default();
    ensure!(data.get("password").is_some_and(|text| text.0 == b"moon") && made.string_data.is_none());
    Ok(())
}

async fn status(tool: &Tool) -> anyhow::Result<()> {
    tool.make_instance("stated", json!({"displayName": "x"})).await?;
    let mut object = tool.instances.get_status("stated").await?;
    object.spec.display_name = Some("ignored".to_owned());
    let version = object.resource_version();
    let replaced = tool.instances.replace_status("stated", &PostParams::default(), &object).await;
    // Its own reconciler may have been first.
    let replaced = match replaced {
        Err(kube::Error::Api(status)) if status.is_conflict() => return Ok(()),
        outcome => outcome?,
    };
    ensure!(replaced.spec.display_name.as_deref() == Some("x"), "{replaced:?}");
    ensure!(replaced.meta().generation == Some(1) && version.is_some(), "{replaced:?}");
    Ok(())
}

async fn dry_run(tool: &Tool) -> anyhow::Result<()> {
    let params = PostParams { dry_run: true, ..PostParams::default() };
    tool.maps.create(&params, &config_map("dry", "made")?).await?;
    ensure!(tool.maps.get_opt("dry").await?.is_none(), "a dry run created it");
    Ok(())
}

/// An owner and one that belongs to it.
async fn family(tool: &Tool, name: &str) -> anyhow::Result<String> {
    let owner = tool.make(name, "family").await?;
    let child = format!("{name}-child");
    let mut object = config_map(&child, "family")?;
    let mut reference = owner.owner_ref(&()).context("no reference")?;
    reference.block_owner_deletion = Some(true);
    object.owner_references_mut().push(reference);
    tool.maps.create(&PostParams::default(), &object).await?;
    Ok(child)
}

async fn goes(tool: &Tool, name: &str) -> anyhow::Result<()> {
    crate::eventually(name, Duration::from_secs(20), async || {
        ensure!(tool.maps.get_opt(name).await?.is_none(), "it is there");
        Ok(())
    })
    .await
}

async fn delete(tool: &Tool, name: &str, params: DeleteParams) -> anyhow::Result<()> {
    let child = family(tool, name).await?;
    tool.maps.delete(name, &params).await?;
    goes(tool, &child).await?;
    goes(tool, name).await
}

async fn orphan(tool: &Tool) -> anyhow::Result<()> {
    let child = family(tool, "lone").await?;
    tool.maps.delete("lone", &DeleteParams::orphan()).await?;
    goes(tool, "lone").await?;
    ensure!(tool.maps.get(&child).await?.owner_references().is_empty());
    Ok(())
}

async fn preconditions(tool: &Tool) -> anyhow::Result<()> {
    tool.make("guarded", "made").await?;
    let uid = Some("00000000-0000-0000-0000-000000000000".to_owned());
    let params = DeleteParams::default().preconditions(Preconditions { uid, resource_version: None });
    refused(409, tool.maps.delete("guarded", &params).await).map(drop)
}

async fn collection(tool: &Tool) -> anyhow::Result<()> {
    tool.make("m-1", "many").await?;
    tool.make("m-2", "many").await?;
    let chosen = ListParams::default().labels("case=many");
    tool.maps.delete_collection(&DeleteParams::default(), &chosen).await?;
    ensure!(tool.maps.list(&chosen).await?.items.is_empty());
    Ok(())
}

async fn namespaces(tool: &Tool) -> anyhow::Result<()> {
    let api: Api<Namespace> = Api::all(tool.client.clone());
    let name = format!("{}-inner", tool.namespace);
    let namespace = Namespace {
        metadata: ObjectMeta { name: Some(name.clone()), ..ObjectMeta::default() },
        ..Namespace::default()
    };
    api.create(&PostParams::default(), &namespace).await?;
    api.delete(&name, &DeleteParams::default())
        .await?
        .left()
        .context("a Status, not the object that is going")?;
    crate::eventually("the namespace to go", Duration::from_secs(20), async || {
        ensure!(api.get_opt(&name).await?.is_none(), "it is there");
        Ok(())
    })
    .await
}
