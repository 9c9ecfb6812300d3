//! `get` in all its forms, `describe`, `events` and `wait`.

use std::time::Duration;

use anyhow::ensure;

use super::{Tool, config_map, instance, says};
use crate::conformance::Client;

pub(super) async fn run(client: &Client, tool: &Tool) {
    if let Err(error) = prepare(tool).await {
        client.case("prepare", async { Err(error) }).await;
        return;
    }
    client.case("get: table", table(tool)).await;
    client.case("get -o json, yaml, name", whole(tool)).await;
    client.case("get -o jsonpath, custom-columns", picked(tool)).await;
    client.case("get --sort-by", sorted(tool)).await;
    client.case("get -A", everywhere(tool)).await;
    client.case("paging", pages(tool)).await;
    client.case("selectors", selectors(tool)).await;
    client.case("field selectors", field_selectors(tool)).await;
    client.case("watch", watch(tool)).await;
    client.case("describe", describe(tool)).await;
    client.case("events", events(tool)).await;
    client.case("wait", wait(tool)).await;
    client.case("wait --for=create", wait_for_creation(tool)).await;
}

/// Two instances that nobody serves, an Operation on one that is not there, and some ConfigMaps.
async fn prepare(tool: &Tool) -> anyhow::Result<()> {
    let operation = crate::manifest::operation("stop", "none", "Stop", "web", "");
    let mut all = instance("b", "") + &instance("a", "") + &operation;
    for number in 0..5 {
        all += &config_map(&format!("c{number}"), &format!("v{number}"));
    }
    tool.feed(["create", "-f", "-"], &all).await?;
    tool.run(["label", "cm", "c0", "c1", "c2", "read=yes"]).await?;
    tool.run(["label", "cm", "c0", "team=red"]).await?;
    tool.run(["label", "cm", "c1", "team=blue"]).await?;
    crate::eventually("the Operation to end", Duration::from_secs(20), async || {
        let phase = tool.value("op/stop", "{.status.phase}").await?;
        ensure!(phase == "Failed", "it is {phase}");
        Ok(())
    })
    .await
}

async fn table(tool: &Tool) -> anyhow::Result<()> {
    let said = tool.run(["get", "op"]).await?;
    says(&said, &["NAME", "INSTANCE", "ACTION", "PHASE", "AGE", "stop", "none", "Stop", "Failed"])?;
    ensure!(!said.contains("TARGET ID"), "{said}");
    says(&tool.run(["get", "op", "-o", "wide"]).await?, &["TARGET ID"])?;
    says(&tool.run(["get", "gantry"]).await?, &["dockerinstance.gantry.dev/a", "operation.gantry.dev/stop"])?;
    says(&tool.run(["get", "cm/c0", "di/a", "--show-labels"]).await?, &["read=yes,team=red", "<none>"])?;
    says(&tool.run(["get", "cm", "-L", "team", "--no-headers"]).await?, &["red", "blue"])?;
    says(
        &tool.refused(["get", "cm", "none"]).await?,
        &["Error from server (NotFound): configmaps \"none\" not found"],
    )
}

async fn whole(tool: &Tool) -> anyhow::Result<()> {
    let one = tool.json(["get", "cm", "c0", "-o", "json"]).await?;
    ensure!(one["kind"] == "ConfigMap" && one["apiVersion"] == "v1" && one["data"]["k"] == "v0", "{one}");
    let list = tool.json(["get", "di", "-o", "json"]).await?;
    ensure!(list["items"].as_array().is_some_and(|items| items.len() == 2), "{list}");
    let yaml = tool.run(["get", "di", "a", "-o", "yaml"]).await?;
    says(&yaml, &["kind: DockerInstance", "apiVersion: gantry.dev/v1alpha1", "displayName: x"])?;
    let names = tool.run(["get", "di", "-o", "name"]).await?;
    ensure!(names == "dockerinstance.gantry.dev/a\ndockerinstance.gantry.dev/b\n", "{names}");
    Ok(())
}

async fn picked(tool: &Tool) -> anyhow::Result<()> {
    let path = "jsonpath={range .items[*]}{.metadata.name}={.data.k} {end}";
    let said = tool.run(["get", "cm", "-l", "read", "-o", path]).await?;
    ensure!(said == "c0=v0 c1=v1 c2=v2 ", "{said}");
    let columns = "custom-columns=WHO:.metadata.name,WHAT:.data.k";
    let said = tool.run(["get", "cm", "c1", "-o", columns]).await?;
    ensure!(said.split_whitespace().eq(["WHO", "WHAT", "c1", "v1"]), "{said}");
    let said = tool.run(["get", "cm", "c1", "-o", "go-template={{.data.k}}"]).await?;
    ensure!(said == "v1", "{said}");
    Ok(())
}

async fn sorted(tool: &Tool) -> anyhow::Result<()> {
    let said = tool.run(["get", "cm", "-l", "read", "--sort-by=.data.k", "-o", "name"]).await?;
    ensure!(said.split_whitespace().eq(["configmap/c0", "configmap/c1", "configmap/c2"]), "{said}");
    says(&tool.run(["get", "di", "--sort-by=.metadata.creationTimestamp"]).await?, &["NAME"])
}

async fn everywhere(tool: &Tool) -> anyhow::Result<()> {
    let said = tool.run(["get", "cm", "-A"]).await?;
    says(&said, &["NAMESPACE", &tool.namespace, "c4"])
}

async fn pages(tool: &Tool) -> anyhow::Result<()> {
    let said = tool.run(["get", "cm", "--chunk-size=2", "-o", "name"]).await?;
    ensure!((0..5).all(|number| said.contains(&format!("configmap/c{number}"))), "{said}");
    let whole = tool.run(["get", "cm", "--chunk-size=0", "-o", "name"]).await?;
    ensure!(said == whole, "{said} is not {whole}");
    // Each page is a table, and the columns fit all of them.
    let table = tool.run(["get", "cm", "--chunk-size=2"]).await?;
    ensure!(table.matches("NAME").count() == 1 && table.contains("c4"), "{table}");
    Ok(())
}

async fn selectors(tool: &Tool) -> anyhow::Result<()> {
    for (selector, wanted) in [
        ("team=red", "c0"),
        ("team==blue", "c1"),
        ("read,team!=red", "c1 c2"),
        ("team in (red, blue)", "c0 c1"),
        ("read,team notin (red)", "c1 c2"),
        ("read,!team", "c2"),
        ("team", "c0 c1"),
    ] {
        let said =
            tool.run(["get", "cm", "-l", selector, "-o", "jsonpath={.items[*].metadata.name}"]).await?;
        ensure!(said == wanted, "{selector} gives {said}, not {wanted}");
    }
    Ok(())
}

async fn field_selectors(tool: &Tool) -> anyhow::Result<()> {
    for (kind, selector, wanted) in [
        ("cm", "metadata.name=c3", "c3"),
        ("op", "status.phase=Failed", "stop"),
        ("op", "status.phase!=Failed", ""),
        ("op", "spec.instanceRef.name=none,spec.action==Stop", "stop"),
        ("di", "status.health=Unknown", "a b"),
    ] {
        let said = tool
            .run(["get", kind, "--field-selector", selector, "-o", "jsonpath={.items[*].metadata.name}"])
            .await?;
        ensure!(said == wanted, "{selector} gives {said}, not {wanted}");
    }
    says(
        &tool.refused(["get", "cm", "--field-selector", "data.k=v"]).await?,
        &["field label not supported: data.k"],
    )
}

async fn watch(tool: &Tool) -> anyhow::Result<()> {
    let log = tool.dir.join("watch.log");
    let watching = tool.kubectl.follow(
        ["get", "cm", "--field-selector=metadata.name=watched", "-w", "--output-watch-events"],
        &log,
    )?;
    let all_log = tool.dir.join("watch-all.log");
    let watching_all =
        tool.kubectl.follow(["get", "cm", "-w", "--output-watch-events", "-l", "watched"], &all_log)?;
    // Both list first; what is there before that is no event.
    tokio::time::sleep(Duration::from_millis(1_500)).await;
    tool.run(["create", "cm", "watched", "--from-literal=k=1"]).await?;
    tool.run(["label", "cm", "watched", "watched=yes"]).await?;
    tool.run(["delete", "cm", "watched"]).await?;
    crate::eventually("the watch to tell it", Duration::from_secs(10), async || {
        let said = std::fs::read_to_string(&log)?;
        let events: Vec<_> = said.lines().filter_map(|line| line.split_whitespace().next()).collect();
        ensure!(events == ["EVENT", "ADDED", "MODIFIED", "DELETED"], "{said}");
        let said = std::fs::read_to_string(&all_log)?;
        let events: Vec<_> = said.lines().filter_map(|line| line.split_whitespace().next()).collect();
        ensure!(events == ["EVENT", "ADDED", "DELETED"], "{said}");
        Ok(())
    })
    .await?;
    drop((watching, watching_all));
    Ok(())
}

async fn describe(tool: &Tool) -> anyhow::Result<()> {
    let said = tool.run(["describe", "op", "stop"]).await?;
    says(&said, &["Kind:         Operation", "InstanceNotFound", "Events:"])?;
    ensure!(!said.contains("Events:  <none>"), "it shows no history: {said}");
    says(&tool.run(["describe", "cm", "c0"]).await?, &["Data", "v0"])?;
    says(&tool.run(["describe", "ns", &tool.namespace]).await?, &["Status:       Active"])?;
    says(&tool.run(["describe", "di"]).await?, &["Name:         a", "Name:         b"])
}

async fn events(tool: &Tool) -> anyhow::Result<()> {
    says(&tool.run(["get", "events"]).await?, &["LAST SEEN", "Failed", "Operation/stop"])?;
    says(
        &tool.run(["get", "events", "--field-selector", "involvedObject.name=stop,type=Warning"]).await?,
        &["Operation/stop"],
    )?;
    tool.since(26, "events --for")?;
    let said = tool.run(["events", "--for", "operation/stop", "--types=Warning"]).await?;
    says(&said, &["Operation/stop"])?;
    let none = tool.run(["events", "--for", "di/a", "--types=Warning"]).await?;
    ensure!(!none.contains("stop"), "{none}");
    Ok(())
}

async fn wait(tool: &Tool) -> anyhow::Result<()> {
    tool.run(["wait", "--for=condition=Failed", "op/stop", "--timeout=20s"]).await?;
    tool.run(["wait", "--for=condition=Ready=False", "di/a", "di/b", "--timeout=20s"]).await?;
    says(
        &tool.refused(["wait", "--for=condition=Ready", "di/a", "--timeout=1s"]).await?,
        &["timed out waiting"],
    )?;
    tool.run(["create", "cm", "short-lived"]).await?;
    let log = tool.dir.join("wait.log");
    let mut waiting =
        tool.kubectl.follow(["wait", "--for=delete", "cm/short-lived", "--timeout=30s"], &log)?;
    tokio::time::sleep(Duration::from_millis(1_000)).await;
    tool.run(["delete", "cm", "short-lived", "--wait=false"]).await?;
    ensure!(waiting.ended(Duration::from_secs(20)).await?.success(), "{}", std::fs::read_to_string(&log)?);
    tool.since(23, "wait --for=jsonpath")?;
    tool.run(["wait", "--for=jsonpath={.status.phase}=Failed", "op/stop", "--timeout=20s"]).await.map(drop)
}

async fn wait_for_creation(tool: &Tool) -> anyhow::Result<()> {
    tool.since(31, "it")?;
    let log = tool.dir.join("wait-for-creation.log");
    let mut waiting = tool.kubectl.follow(["wait", "--for=create", "cm/late", "--timeout=30s"], &log)?;
    tokio::time::sleep(Duration::from_millis(500)).await;
    tool.run(["create", "cm", "late"]).await?;
    ensure!(waiting.ended(Duration::from_secs(20)).await?.success(), "{}", std::fs::read_to_string(&log)?);
    Ok(())
}
