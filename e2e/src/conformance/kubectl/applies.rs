//! `apply` as the client works it out, with pruning and ApplySets, and `diff`.

use anyhow::ensure;

use super::{Tool, config_map, instance, says};
use crate::conformance::Client;

pub(super) async fn run(client: &Client, tool: &Tool) {
    client.case("apply: client side", apply(tool)).await;
    client.case("apply: prune", prune(tool)).await;
    client.case("apply: ApplySet", apply_set(tool)).await;
    client.case("diff", diff(tool)).await;
}

async fn apply(tool: &Tool) -> anyhow::Result<()> {
    let old = instance("worn", "  description: old\n") + &config_map("worn", "old");
    says(
        &tool.feed(["apply", "-f", "-"], &old).await?,
        &["instance.gantry.dev/worn created", "configmap/worn created"],
    )?;
    says(
        &tool.feed(["apply", "-f", "-"], &old).await?,
        &["instance.gantry.dev/worn unchanged", "configmap/worn unchanged"],
    )?;
    tool.run(["label", "di", "worn", "somebody=else"]).await?;
    let new = instance("worn", "  paused: true\n") + &config_map("worn", "new");
    says(
        &tool.feed(["apply", "-f", "-"], &new).await?,
        &["instance.gantry.dev/worn configured", "configmap/worn configured"],
    )?;
    let said =
        tool.value("di/worn", "{.spec.paused}/{.spec.description}/{.metadata.labels.somebody}").await?;
    ensure!(said == "true//else", "what is left out stays, or what others wrote goes: {said}");
    ensure!(tool.value("cm/worn", "{.data.k}").await? == "new");
    let last = tool.run(["apply", "view-last-applied", "cm/worn"]).await?;
    says(&last, &["k: new"])
}

async fn prune(tool: &Tool) -> anyhow::Result<()> {
    let labelled =
        |name: &str| config_map(name, "v").replace("metadata:\n", "metadata:\n  labels: {pruned: \"yes\"}\n");
    let allow = "--prune-allowlist=core/v1/ConfigMap";
    tool.since(26, "--prune-allowlist")?;
    tool.feed(["apply", "-f", "-"], &(labelled("kept") + &labelled("left-out"))).await?;
    let said =
        tool.feed(["apply", "--prune", "-l", "pruned=yes", allow, "-f", "-"], &labelled("kept")).await?;
    says(&said, &["configmap/left-out pruned"])?;
    ensure!(tool.is_there("cm/kept").await? && !tool.is_there("cm/left-out").await?);
    Ok(())
}

async fn apply_set(tool: &Tool) -> anyhow::Result<()> {
    tool.since(27, "ApplySets")?;
    // kubectl has it behind a variable of its environment.
    let kubectl = tool.kubectl.with_variable("KUBECTL_APPLYSET", "true");
    let run = async |manifest: &str| -> anyhow::Result<String> {
        let args = ["apply", "--prune", "--applyset=configmaps/applyset", "-f", "-"];
        kubectl.feed(args, manifest).await?.map_err(anyhow::Error::msg)
    };
    let first = config_map("in-set", "v") + &instance("in-set", "");
    says(&run(&first).await?, &["configmap/in-set created", "in-set created"])?;
    let said = run(&config_map("in-set", "v")).await?;
    says(&said, &["in-set pruned"])?;
    ensure!(tool.is_there("cm/in-set").await? && !tool.is_there("di/in-set").await?);
    Ok(())
}

async fn diff(tool: &Tool) -> anyhow::Result<()> {
    let old = instance("compared", "  description: old\n");
    tool.feed(["apply", "-f", "-"], &old).await?;
    ensure!(tool.feed(["diff", "-f", "-"], &old).await?.is_empty(), "there is a difference to itself");
    let said = tool.refused_feed(["diff", "-f", "-"], &old.replace("old", "new")).await?;
    says(&said, &["-  description: old", "+  description: new"])?;
    let said = tool.refused_feed(["diff", "-f", "-"], &config_map("not-there", "v")).await?;
    says(&said, &["+  k: v", "+  uid: "])?;
    ensure!(tool.value("di/compared", "{.spec.description}").await? == "old", "a diff changed it");
    Ok(())
}
