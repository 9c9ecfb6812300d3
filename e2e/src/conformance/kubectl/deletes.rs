//! `delete`, who holds an object, and what becomes of those who belong to it.

use std::time::Duration;

use anyhow::ensure;
use serde_json::json;

use super::{Tool, config_map, says};
use crate::conformance::Client;

pub(super) async fn run(client: &Client, tool: &Tool) {
    client.case("delete", delete(tool)).await;
    client.case("finalizers", finalizers(tool)).await;
    client.case("delete: background", background(tool)).await;
    client.case("delete: foreground", foreground(tool)).await;
    client.case("delete: orphan", orphan(tool)).await;
    client.case("delete: collection", collection(tool)).await;
    client.case("namespaces", namespace(tool)).await;
}

async fn delete(tool: &Tool) -> anyhow::Result<()> {
    tool.run(["create", "cm", "gone"]).await?;
    says(&tool.run(["delete", "cm", "gone"]).await?, &["configmap \"gone\" deleted"])?;
    says(&tool.refused(["delete", "cm", "gone"]).await?, &["(NotFound)"])?;
    tool.run(["delete", "cm", "gone", "--ignore-not-found"]).await?;
    tool.feed(["create", "-f", "-"], &(config_map("gone", "v") + &config_map("gone-too", "v"))).await?;
    tool.feed(["delete", "-f", "-"], &(config_map("gone", "v") + &config_map("gone-too", "v"))).await?;
    tool.run(["create", "cm", "now"]).await?;
    tool.run(["delete", "cm", "now", "--now"]).await?;
    tool.run(["create", "cm", "forced"]).await?;
    tool.run(["delete", "cm", "forced", "--force", "--grace-period=0"]).await.map(drop)
}

async fn finalizers(tool: &Tool) -> anyhow::Result<()> {
    let held = config_map("held", "v").replace("metadata:\n", "metadata:\n  finalizers: [gantry.dev/hold]\n");
    tool.feed(["create", "-f", "-"], &held).await?;
    tool.run(["delete", "cm", "held", "--wait=false"]).await?;
    ensure!(!tool.value("cm/held", "{.metadata.deletionTimestamp}").await?.is_empty(), "it is not dying");
    let more = r#"{"metadata":{"finalizers":["gantry.dev/hold","gantry.dev/more"]}}"#;
    says(
        &tool.refused(["patch", "cm", "held", "--type=merge", "-p", more]).await?,
        &["no new finalizers can be added"],
    )?;
    let log = tool.dir.join("delete.log");
    let mut waiting = tool.kubectl.follow(["delete", "cm", "held"], &log)?;
    tokio::time::sleep(Duration::from_millis(700)).await;
    tool.run(["patch", "cm", "held", "--type=merge", "-p", r#"{"metadata":{"finalizers":null}}"#]).await?;
    ensure!(waiting.ended(Duration::from_secs(20)).await?.success(), "{}", std::fs::read_to_string(&log)?);
    ensure!(!tool.is_there("cm/held").await?);
    Ok(())
}

/// An object and one that belongs to it.
async fn family(tool: &Tool, name: &str) -> anyhow::Result<String> {
    tool.run(["create", "cm", name]).await?;
    let uid = tool.value(&format!("cm/{name}"), "{.metadata.uid}").await?;
    let owner = json!({"apiVersion": "v1", "kind": "ConfigMap", "name": name, "uid": uid, "blockOwnerDeletion": true});
    let child = format!("{name}-child");
    let object = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": child, "ownerReferences": [owner]}});
    tool.feed(["create", "-f", "-"], &object.to_string()).await?;
    Ok(format!("cm/{child}"))
}

async fn goes(tool: &Tool, object: &str) -> anyhow::Result<()> {
    crate::eventually(object, Duration::from_secs(20), async || {
        ensure!(!tool.is_there(object).await?, "it is there");
        Ok(())
    })
    .await
}

async fn background(tool: &Tool) -> anyhow::Result<()> {
    let child = family(tool, "back").await?;
    tool.run(["delete", "cm", "back"]).await?;
    goes(tool, &child).await
}

async fn foreground(tool: &Tool) -> anyhow::Result<()> {
    let child = family(tool, "fore").await?;
    tool.run(["delete", "cm", "fore", "--cascade=foreground"]).await?;
    ensure!(!tool.is_there(&child).await?, "the owner went first");
    Ok(())
}

async fn orphan(tool: &Tool) -> anyhow::Result<()> {
    let child = family(tool, "lone").await?;
    tool.run(["delete", "cm", "lone", "--cascade=orphan"]).await?;
    crate::eventually("the child to forget its owner", Duration::from_secs(20), async || {
        let owners = tool.value(&child, "{.metadata.ownerReferences}").await?;
        ensure!(owners.is_empty(), "it has {owners}");
        Ok(())
    })
    .await
}

/// kubectl deletes them one by one; `delete --raw` takes the collection.
async fn collection(tool: &Tool) -> anyhow::Result<()> {
    let labelled =
        |name: &str| config_map(name, "v").replace("metadata:\n", "metadata:\n  labels: {many: \"yes\"}\n");
    tool.feed(["create", "-f", "-"], &(labelled("m1") + &labelled("m2") + &config_map("m3", "v"))).await?;
    tool.run(["delete", "cm", "-l", "many=yes"]).await?;
    ensure!(!tool.is_there("cm/m1").await? && tool.is_there("cm/m3").await?);
    tool.feed(["create", "-f", "-"], &(labelled("m1") + &labelled("m2"))).await?;
    let path = format!("/api/v1/namespaces/{}/configmaps?labelSelector=many", tool.namespace);
    tool.run(["delete", "--raw", &path]).await?;
    ensure!(!tool.is_there("cm/m2").await? && tool.is_there("cm/m3").await?);
    Ok(())
}

async fn namespace(tool: &Tool) -> anyhow::Result<()> {
    let name = format!("{}-filled", tool.namespace);
    tool.run(["create", "ns", &name]).await?;
    let held = config_map("held", "v").replace("metadata:\n", "metadata:\n  finalizers: [gantry.dev/hold]\n");
    tool.feed(["create", "-n", &name, "-f", "-"], &(held + &config_map("inside", "v"))).await?;
    tool.run(["delete", "ns", &name, "--wait=false"]).await?;
    let object = format!("ns/{name}");
    ensure!(tool.value(&object, "{.status.phase}").await? == "Terminating");
    says(&tool.refused(["create", "cm", "late", "-n", &name]).await?, &["because it is being terminated"])?;
    crate::eventually("what nobody holds to go", Duration::from_secs(20), async || {
        let left = tool.run(["get", "cm", "-n", &name, "-o", "name"]).await?;
        ensure!(left == "configmap/held\n", "left is {left}");
        Ok(())
    })
    .await?;
    tool.run([
        "patch",
        "cm",
        "held",
        "-n",
        &name,
        "--type=merge",
        "-p",
        r#"{"metadata":{"finalizers":null}}"#,
    ])
    .await?;
    goes(tool, &object).await
}
