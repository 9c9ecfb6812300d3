//! Discovery, lists and plain watches.

use anyhow::{Context as _, ensure};
use futures::{StreamExt as _, TryStreamExt as _};
use k8s_openapi::api::core::v1::ConfigMap;
use kube::ResourceExt as _;
use kube::api::{
    Api, DeleteParams, DynamicObject, ListParams, PartialObjectMeta, PostParams, VersionMatch, WatchEvent,
    WatchParams,
};
use kube::core::GroupVersionKind;
use kube::discovery::{Discovery, verbs};

use super::{Tool, refused};
use crate::conformance::Client;

pub(super) async fn run(client: &Client, tool: &Tool) {
    client.case("version", version(tool)).await;
    client.case("discovery", discovery(tool, false)).await;
    client.case("discovery: aggregated", discovery(tool, true)).await;
    client.case("dynamic client", dynamic(tool)).await;
    client.case("paging", paging(tool)).await;
    client.case("selectors", selectors(tool)).await;
    client.case("field selectors", field_selectors(tool)).await;
    client.case("resourceVersionMatch", version_match(tool)).await;
    client.case("get: partial metadata", metadata(tool)).await;
    client.case("watch", watch(tool)).await;
    client.case("watch: bookmarks", bookmarks(tool)).await;
}

async fn version(tool: &Tool) -> anyhow::Result<()> {
    let version = tool.client.apiserver_version().await?;
    ensure!(version.major == "1" && version.git_version.contains("+gantry"), "{version:?}");
    Ok(())
}

async fn discovery(tool: &Tool, is_aggregated: bool) -> anyhow::Result<()> {
    let discovery = Discovery::new(tool.client.clone());
    let found = if is_aggregated { discovery.run_aggregated().await? } else { discovery.run().await? };
    for (group, version, kind, scope) in [
        ("", "v1", "Namespace", kube::discovery::Scope::Cluster),
        ("", "v1", "ConfigMap", kube::discovery::Scope::Namespaced),
        ("coordination.k8s.io", "v1", "Lease", kube::discovery::Scope::Namespaced),
        ("gantry.dev", "v1alpha1", "Operation", kube::discovery::Scope::Namespaced),
    ] {
        let (resource, can) = found
            .resolve_gvk(&GroupVersionKind::gvk(group, version, kind))
            .with_context(|| format!("no {kind}"))?;
        ensure!(can.scope == scope && can.supports_operation(verbs::WATCH), "{resource:?} {can:?}");
    }
    Ok(())
}

async fn dynamic(tool: &Tool) -> anyhow::Result<()> {
    let kind = GroupVersionKind::gvk("gantry.dev", "v1alpha1", "DockerInstance");
    let (resource, _) = kube::discovery::pinned_kind(&tool.client, &kind).await?;
    let api: Api<DynamicObject> = Api::namespaced_with(tool.client.clone(), &tool.namespace, &resource);
    let object =
        DynamicObject::new("dynamic", &resource).data(serde_json::json!({"spec": {"displayName": "x"}}));
    let made = api.create(&PostParams::default(), &object).await?;
    ensure!(made.data["spec"]["displayName"] == "x", "{made:?}");
    api.delete("dynamic", &DeleteParams::default()).await?;
    Ok(())
}

async fn paging(tool: &Tool) -> anyhow::Result<()> {
    for number in 0..5 {
        tool.make(&format!("page-{number}"), "page").await?;
    }
    let (mut params, mut seen, mut pages) =
        (ListParams::default().labels("case=page").limit(2), Vec::new(), 0);
    loop {
        let page = tool.maps.list(&params).await?;
        pages += 1;
        seen.extend(page.iter().map(kube::ResourceExt::name_any));
        match page.metadata.continue_.filter(|token| !token.is_empty()) {
            Some(token) => params = params.continue_token(&token),
            None => break,
        }
    }
    ensure!(
        pages == 3 && seen == ["page-0", "page-1", "page-2", "page-3", "page-4"],
        "{seen:?} on {pages} pages"
    );
    Ok(())
}

async fn selectors(tool: &Tool) -> anyhow::Result<()> {
    for (name, team) in [("s-red", "red"), ("s-blue", "blue")] {
        tool.make(name, team).await?;
    }
    for (selector, wanted) in
        [("case in (red,blue)", 2), ("case=red", 1), ("case in (red,blue),case notin (red)", 1)]
    {
        let found = tool.maps.list(&ListParams::default().labels(selector)).await?;
        ensure!(found.items.len() == wanted, "{selector} lists {}", found.items.len());
    }
    Ok(())
}

async fn field_selectors(tool: &Tool) -> anyhow::Result<()> {
    tool.make("by-field", "field").await?;
    let found = tool.maps.list(&ListParams::default().fields("metadata.name=by-field")).await?;
    ensure!(found.items.len() == 1, "{found:?}");
    let status = refused(400, tool.maps.list(&ListParams::default().fields("data.k=v")).await)?;
    ensure!(status.message.ends_with("field label not supported: data.k"), "{}", status.message);
    Ok(())
}

async fn version_match(tool: &Tool) -> anyhow::Result<()> {
    let version = tool.make("exact-a", "exact").await?.resource_version().context("no version")?;
    let second = tool.make("exact-b", "exact").await?.resource_version().context("no version")?;
    let list = async |version: &str, how| {
        tool.maps.list(&ListParams::default().labels("case=exact").at(version).matching(how)).await
    };
    let exact = list(&version, VersionMatch::Exact).await?;
    let newer = list(&second, VersionMatch::NotOlderThan).await?;
    ensure!((exact.items.len(), newer.items.len()) == (1, 2), "{exact:?} {newer:?}");
    Ok(())
}

async fn metadata(tool: &Tool) -> anyhow::Result<()> {
    tool.make("bare", "bare").await?;
    let one = tool.maps.get_metadata("bare").await?;
    ensure!(one.types.as_ref().is_some_and(|types| types.kind == "PartialObjectMetadata"), "{one:?}");
    let list = tool.maps.list_metadata(&ListParams::default().labels("case=bare")).await?;
    ensure!(list.items.len() == 1, "{list:?}");
    let api: Api<PartialObjectMeta<ConfigMap>> = Api::namespaced(tool.client.clone(), &tool.namespace);
    ensure!(api.get("bare").await?.name_any() == "bare");
    Ok(())
}

async fn watch(tool: &Tool) -> anyhow::Result<()> {
    let version = tool.make("w", "watched").await?.resource_version().context("no version")?;
    tool.maps.delete("w", &DeleteParams::default()).await?;
    tool.make("w2", "watched").await?;
    let params = WatchParams::default().labels("case=watched").timeout(1);
    let events: Vec<_> = tool.maps.watch(&params, &version).await?.try_collect().await?;
    let seen: Vec<_> = events
        .iter()
        .filter_map(|event| match event {
            WatchEvent::Added(map) => Some(format!("added {}", map.name_any())),
            WatchEvent::Deleted(map) => Some(format!("deleted {}", map.name_any())),
            WatchEvent::Bookmark(_) => None,
            other => Some(format!("{other:?}")),
        })
        .collect();
    ensure!(seen == ["deleted w", "added w2"], "{seen:?}");
    Ok(())
}

async fn bookmarks(tool: &Tool) -> anyhow::Result<()> {
    let params = WatchParams::default().labels("case=nobody").timeout(1);
    let mut events = Box::pin(tool.maps.watch(&params, "0").await?);
    let first = events.next().await.context("it ends without one")??;
    ensure!(
        matches!(&first, WatchEvent::Bookmark(mark) if !mark.metadata.resource_version.is_empty()),
        "{first:?}"
    );
    Ok(())
}
