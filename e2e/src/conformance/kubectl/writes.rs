//! `create`, `patch`, `edit`, `label`, `replace`, and what becomes of wrong fields.

use std::time::Duration;

use anyhow::ensure;

use super::{Tool, config_map, instance, says};
use crate::conformance::Client;

pub(super) async fn run(client: &Client, tool: &Tool) {
    client.case("create", create(tool)).await;
    client.case("generateName", generate_name(tool)).await;
    client.case("patch: merge", merge_patch(tool)).await;
    client.case("patch: json", json_patch(tool)).await;
    client.case("patch: strategic", strategic_patch(tool)).await;
    client.case("status subresource", status(tool)).await;
    client.case("label, annotate", label(tool)).await;
    client.case("edit", edit(tool)).await;
    client.case("replace", replace(tool)).await;
    client.case("scale is refused", scale(tool)).await;
    client.case("field validation", field_validation(tool)).await;
    client.case("invalid objects", invalid(tool)).await;
    client.case("dry run", dry_run(tool)).await;
}

async fn create(tool: &Tool) -> anyhow::Result<()> {
    tool.run(["create", "configmap", "made", "--from-literal=a=1", "--from-literal=b=2"]).await?;
    ensure!(tool.value("cm/made", "{.data.b}").await? == "2");
    tool.run(["create", "secret", "generic", "made", "--from-literal=password=moon"]).await?;
    ensure!(tool.value("secret/made", "{.data.password}").await? == "bW9vbg==");
    let registry = [
        "create",
        "secret",
        "docker-registry",
        "pull",
        "--docker-username=u",
        "--docker-password=p",
        "--docker-server=r",
    ];
    tool.run(registry).await?;
    ensure!(tool.value("secret/pull", "{.type}").await? == "kubernetes.io/dockerconfigjson");
    let inner = format!("{}-inner", tool.namespace);
    tool.run(["create", "namespace", &inner]).await?;
    ensure!(tool.value(&format!("ns/{inner}"), "{.status.phase}").await? == "Active");
    tool.run(["delete", "namespace", &inner]).await?;
    says(&tool.refused(["create", "cm", "made"]).await?, &["configmaps \"made\" already exists"])?;
    let elsewhere = config_map("nowhere", "v");
    let said = tool.refused_feed(["create", "-n", "nowhere-at-all", "-f", "-"], &elsewhere).await?;
    says(&said, &["namespaces \"nowhere-at-all\" not found"])
}

async fn generate_name(tool: &Tool) -> anyhow::Result<()> {
    let manifest = "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  generateName: many-\n";
    let first = tool.feed(["create", "-f", "-", "-o", "name"], manifest).await?;
    let second = tool.feed(["create", "-f", "-", "-o", "name"], manifest).await?;
    ensure!(first != second && first.trim().len() == "configmap/many-".len() + 5, "{first} {second}");
    Ok(())
}

async fn merge_patch(tool: &Tool) -> anyhow::Result<()> {
    tool.feed(["create", "-f", "-"], &instance("merged", "  description: old\n")).await?;
    let said =
        tool.run(["patch", "di", "merged", "--type=merge", "-p", r#"{"spec":{"description":null}}"#]).await?;
    says(&said, &["dockerinstance.gantry.dev/merged patched"])?;
    ensure!(tool.value("di/merged", "{.spec.description}").await?.is_empty());
    // A status that is written meanwhile would be a change.
    tool.run(["wait", "--for=jsonpath={.status.observedGeneration}=2", "di/merged", "--timeout=60s"]).await?;
    let said =
        tool.run(["patch", "di", "merged", "--type=merge", "-p", r#"{"spec":{"displayName":"x"}}"#]).await?;
    says(&said, &["(no change)"])
}

async fn json_patch(tool: &Tool) -> anyhow::Result<()> {
    tool.feed(["create", "-f", "-"], &instance("listed", "")).await?;
    let change = r#"[{"op":"test","path":"/spec/displayName","value":"x"},{"op":"add","path":"/spec/description","value":"d"}]"#;
    tool.run(["patch", "di", "listed", "--type=json", "-p", change]).await?;
    ensure!(tool.value("di/listed", "{.spec.description}").await? == "d");
    let wrong = r#"[{"op":"test","path":"/spec/displayName","value":"y"}]"#;
    says(
        &tool.refused(["patch", "di", "listed", "--type=json", "-p", wrong]).await?,
        &["the patch cannot be applied: operation 0"],
    )
}

/// kubectl's own default, which kinds of ours refuse as custom kinds do.
async fn strategic_patch(tool: &Tool) -> anyhow::Result<()> {
    tool.run(["create", "cm", "strategic", "--from-literal=a=1"]).await?;
    tool.run(["patch", "cm", "strategic", "-p", r#"{"data":{"b":"2"}}"#]).await?;
    ensure!(tool.value("cm/strategic", "{.data.a}{.data.b}").await? == "12");
    tool.feed(["create", "-f", "-"], &instance("no-strategy", "")).await?;
    let said = tool.refused(["patch", "di", "no-strategy", "-p", "{}"]).await?;
    says(&said, &["accepted media types include: application/json-patch+json, application/merge-patch+json"])
}

async fn status(tool: &Tool) -> anyhow::Result<()> {
    tool.since(24, "--subresource")?;
    let manifest = instance("stated", "");
    tool.feed(["create", "-f", "-"], &manifest).await?;
    let said = tool.run(["get", "di", "stated", "--subresource=status", "-o", "jsonpath={.kind}"]).await?;
    ensure!(said == "DockerInstance", "{said}");
    let patch = r#"{"spec":{"displayName":"ignored"},"status":{"message":"by hand"}}"#;
    tool.run(["patch", "di", "stated", "--subresource=status", "--type=merge", "-p", patch]).await?;
    ensure!(tool.value("di/stated", "{.spec.displayName}").await? == "x");
    Ok(())
}

async fn label(tool: &Tool) -> anyhow::Result<()> {
    tool.run(["create", "cm", "tagged"]).await?;
    says(&tool.run(["label", "cm", "tagged", "a=1", "b=2"]).await?, &["configmap/tagged labeled"])?;
    says(&tool.refused(["label", "cm", "tagged", "a=2"]).await?, &["already has a value (1)"])?;
    tool.run(["label", "cm", "tagged", "a=2", "b-", "--overwrite"]).await?;
    tool.run(["annotate", "cm", "tagged", "note=by hand"]).await?;
    let said = tool.value("cm/tagged", "{.metadata.labels}{.metadata.annotations}").await?;
    ensure!(said == r#"{"a":"2"}{"note":"by hand"}"#, "{said}");
    says(&tool.refused(["label", "cm", "tagged", "c=not valid"]).await?, &["a valid label must be"])?;
    tool.feed(["create", "-f", "-"], &instance("tagged", "")).await?;
    tool.run(["label", "di", "tagged", "site=hamburg"]).await?;
    says(&tool.run(["label", "di", "tagged", "--list"]).await?, &["site=hamburg"])
}

async fn edit(tool: &Tool) -> anyhow::Result<()> {
    tool.feed(["create", "-f", "-"], &(instance("edited", "") + &config_map("edited", "old"))).await?;
    says(&tool.kubectl.edit("di", "edited", "sed -i /displayName/s/x/changed/").await?, &["edited"])?;
    ensure!(tool.value("di/edited", "{.spec.displayName}").await? == "changed");
    tool.kubectl.edit("cm", "edited", "sed -i /k:/s/old/new/").await?;
    ensure!(tool.value("cm/edited", "{.data.k}").await? == "new");
    Ok(())
}

async fn replace(tool: &Tool) -> anyhow::Result<()> {
    tool.feed(["create", "-f", "-"], &config_map("replaced", "1")).await?;
    tool.feed(["replace", "-f", "-"], &config_map("replaced", "2")).await?;
    ensure!(tool.value("cm/replaced", "{.data.k}").await? == "2");
    let uid = tool.value("cm/replaced", "{.metadata.uid}").await?;
    tool.feed(["replace", "--force", "-f", "-"], &config_map("replaced", "3")).await?;
    ensure!(tool.value("cm/replaced", "{.metadata.uid}").await? != uid, "it is the same object");
    let stale = tool.run(["get", "cm", "replaced", "-o", "yaml"]).await?;
    tool.run(["label", "cm", "replaced", "changed=since"]).await?;
    let said = tool.refused_feed(["replace", "-f", "-"], &stale.replace("k: \"3\"", "k: \"4\"")).await?;
    says(
        &said,
        &["(Conflict)", "the object has been modified; please apply your changes to the latest version"],
    )?;
    // A custom kind of Kubernetes wants the version too; kubectl fills it in.
    tool.feed(["create", "-f", "-"], &instance("replaced", "")).await?;
    crate::eventually("its reconciler to be done with it", Duration::from_secs(20), async || {
        ensure!(tool.value("di/replaced", "{.status.health}").await? == "Unknown");
        Ok(())
    })
    .await?;
    tool.feed(["replace", "-f", "-"], &instance("replaced", "  description: new\n")).await?;
    ensure!(tool.value("di/replaced", "{.spec.description}").await? == "new");
    Ok(())
}

async fn scale(tool: &Tool) -> anyhow::Result<()> {
    tool.feed(["create", "-f", "-"], &instance("scaled", "")).await?;
    let said = tool.refused(["scale", "--replicas=2", "di/scaled"]).await?;
    says(&said, &["the server could not find the requested resource"])
}

async fn field_validation(tool: &Tool) -> anyhow::Result<()> {
    tool.since(27, "validation by the server")?;
    let wrong = instance("validated", "  wrong: 1\n  displayName: again\n");
    let said = tool.refused_feed(["create", "-f", "-"], &wrong).await?;
    says(&said, &["strict decoding error: unknown field \"spec.wrong\""])?;
    let warned =
        tool.feed(["create", "--validate=warn", "-f", "-"], &instance("validated", "  wrong: 1\n")).await?;
    says(&warned, &["Warning: unknown field \"spec.wrong\"", "created"])?;
    let quiet =
        tool.feed(["create", "--validate=ignore", "-f", "-"], &instance("ignored", "  wrong: 1\n")).await?;
    ensure!(!quiet.contains("Warning") && quiet.contains("created"), "{quiet}");
    let said = tool.refused_feed(["apply", "-f", "-"], &instance("validated", "  wrong: 1\n")).await?;
    says(&said, &["unknown field \"spec.wrong\""])?;
    let said =
        tool.refused_feed(["create", "-f", "-"], &(config_map("validated", "v") + "wrong: 1\n")).await?;
    says(&said, &["unknown field \"wrong\""])
}

async fn invalid(tool: &Tool) -> anyhow::Result<()> {
    let operation = crate::manifest::operation("invalid", "none", "Explode", "web", "");
    let said = tool.refused_feed(["create", "-f", "-"], &operation).await?;
    says(
        &said,
        &[
            "The Operation \"invalid\" is invalid: spec.action: Unsupported value: \"Explode\": supported values: ",
        ],
    )?;
    let said = tool.refused_feed(["create", "-f", "-"], &config_map("No_Name", "v")).await?;
    says(
        &said,
        &[
            "The ConfigMap \"No_Name\" is invalid: metadata.name: Invalid value: \"No_Name\": a lowercase RFC 1123 subdomain",
        ],
    )?;
    let said =
        tool.refused(["patch", "op", "stop", "--type=merge", "-p", r#"{"spec":{"action":"Start"}}"#]).await?;
    says(&said, &["are immutable: create another Operation"])
}

async fn dry_run(tool: &Tool) -> anyhow::Result<()> {
    let manifest = config_map("dry", "v");
    says(
        &tool.feed(["create", "--dry-run=server", "-f", "-"], &manifest).await?,
        &["created (server dry run)"],
    )?;
    tool.feed(["create", "--dry-run=client", "-f", "-"], &manifest).await?;
    ensure!(!tool.is_there("cm/dry").await?, "a dry run created it");
    tool.feed(["create", "-f", "-"], &manifest).await?;
    tool.run(["label", "cm", "dry", "a=1", "--dry-run=server"]).await?;
    tool.run(["delete", "cm", "dry", "--dry-run=server"]).await?;
    ensure!(tool.value("cm/dry", "{.metadata.labels}").await?.is_empty(), "a dry run labelled it");
    Ok(())
}
