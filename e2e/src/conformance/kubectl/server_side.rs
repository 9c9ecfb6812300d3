//! `apply --server-side`: who owns a field, who is refused, and how one comes to it from `apply`.

use anyhow::ensure;

use super::{Tool, config_map, instance, says};
use crate::conformance::Client;

pub(super) async fn run(client: &Client, tool: &Tool) {
    client.case("apply: create", create(tool)).await;
    client.case("apply: conflict and force", conflict(tool)).await;
    client.case("apply: migration", migration(tool)).await;
    client.case("apply: own kinds and status", own_kinds(tool)).await;
    client.case("apply: diff and dry run", dry(tool)).await;
}

async fn create(tool: &Tool) -> anyhow::Result<()> {
    let said = tool.feed(["apply", "--server-side", "-f", "-"], &config_map("owned", "v")).await?;
    says(&said, &["configmap/owned serverside-applied"])?;
    let version = tool.value("cm/owned", "{.metadata.resourceVersion}").await?;
    tool.feed(["apply", "--server-side", "-f", "-"], &config_map("owned", "v")).await?;
    ensure!(
        tool.value("cm/owned", "{.metadata.resourceVersion}").await? == version,
        "the same again is a change"
    );
    let said = tool.run(["get", "cm", "owned", "--show-managed-fields", "-o", "yaml"]).await?;
    says(&said, &["manager: kubectl", "operation: Apply", "f:k: {}"])?;
    let hidden = tool.run(["get", "cm", "owned", "-o", "yaml"]).await?;
    ensure!(!hidden.contains("managedFields"), "{hidden}");
    let less = config_map("owned", "v").replace("k: \"v\"", "other: w");
    tool.feed(["apply", "--server-side", "-f", "-"], &less).await?;
    ensure!(
        tool.value("cm/owned", "{.data}").await? == r#"{"other":"w"}"#,
        "what is no longer applied stays"
    );
    Ok(())
}

async fn conflict(tool: &Tool) -> anyhow::Result<()> {
    let apply = ["apply", "--server-side", "-f", "-"];
    tool.feed(["apply", "--server-side", "--field-manager=one", "-f", "-"], &config_map("fought-over", "1"))
        .await?;
    let said = tool.refused_feed(apply, &config_map("fought-over", "2")).await?;
    says(&said, &["Apply failed with 1 conflict: conflict with \"one\": .data.k", "--force-conflicts"])?;
    ensure!(tool.value("cm/fought-over", "{.data.k}").await? == "1");
    tool.feed(["apply", "--server-side", "--force-conflicts", "-f", "-"], &config_map("fought-over", "2"))
        .await?;
    ensure!(tool.value("cm/fought-over", "{.data.k}").await? == "2");
    // Who says the same shares the field.
    tool.feed(["apply", "--server-side", "--field-manager=one", "-f", "-"], &config_map("fought-over", "2"))
        .await?;
    let said = tool
        .run([
            "get",
            "cm",
            "fought-over",
            "--show-managed-fields",
            "-o",
            "jsonpath={.metadata.managedFields[*].manager}",
        ])
        .await?;
    says(&said, &["one", "kubectl"])
}

/// From `apply`, whose manager and annotation kubectl takes over.
async fn migration(tool: &Tool) -> anyhow::Result<()> {
    tool.since(26, "the migration")?;
    let both = config_map("moved", "v") + "  gone: v\n";
    tool.feed(["apply", "-f", "-"], &both).await?;
    tool.feed(["apply", "--server-side", "-f", "-"], &config_map("moved", "v")).await?;
    ensure!(tool.value("cm/moved", "{.data}").await? == r#"{"k":"v"}"#, "what apply owned alone stays");
    let said = tool
        .run([
            "get",
            "cm",
            "moved",
            "--show-managed-fields",
            "-o",
            "jsonpath={.metadata.managedFields[*].manager}",
        ])
        .await?;
    ensure!(!said.contains("kubectl-client-side-apply"), "the old manager still owns fields: {said}");
    tool.feed(["apply", "--server-side", "-f", "-"], &config_map("moved", "w")).await?;
    ensure!(tool.value("cm/moved", "{.data.k}").await? == "w");
    Ok(())
}

async fn own_kinds(tool: &Tool) -> anyhow::Result<()> {
    tool.feed(["apply", "--server-side", "-f", "-"], &instance("owned", "  description: d\n")).await?;
    crate::eventually("a status", std::time::Duration::from_secs(20), async || {
        ensure!(tool.value("di/owned", "{.status.health}").await? == "Unknown");
        Ok(())
    })
    .await?;
    // The status is somebody else's and stays.
    tool.feed(["apply", "--server-side", "-f", "-"], &instance("owned", "")).await?;
    let said = tool.value("di/owned", "{.spec.description}/{.status.health}").await?;
    ensure!(said == "/Unknown", "{said}");
    Ok(())
}

async fn dry(tool: &Tool) -> anyhow::Result<()> {
    tool.feed(["apply", "--server-side", "-f", "-"], &config_map("dry-owned", "1")).await?;
    tool.feed(["apply", "--server-side", "--dry-run=server", "-f", "-"], &config_map("dry-owned", "2"))
        .await?;
    let said = tool.refused_feed(["diff", "--server-side", "-f", "-"], &config_map("dry-owned", "2")).await?;
    says(&said, &["-  k: \"1\"", "+  k: \"2\""])?;
    ensure!(tool.value("cm/dry-owned", "{.data.k}").await? == "1", "a dry run changed it");
    let wrong = config_map("dry-owned", "1") + "wrong: 1\n";
    says(&tool.refused_feed(["apply", "--server-side", "-f", "-"], &wrong).await?, &["wrong"])
}
