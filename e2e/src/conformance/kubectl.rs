//! kubectl, command by command, in every version that is found.

mod applies;
mod deletes;
mod discovers;
mod reads;
mod server_side;
mod writes;

use std::path::PathBuf;

use anyhow::{Context as _, bail, ensure};
use serde_json::Value;

use super::{Client, NotRun};
use crate::kubectl::Kubectl;

/// Minor versions that are looked for.
const MINORS: std::ops::RangeInclusive<u32> = 20..=40;

/// The kubectl of one version with a namespace of its own.
#[derive(Clone, Debug)]
struct Tool {
    kubectl: Kubectl,
    minor: u32,
    namespace: String,
    /// For manifests and what follows in the background.
    dir: PathBuf,
}

/// Every kubectl of this machine, each in one version: what is on the PATH, and those named after their version.
pub async fn found(kubectl: &Kubectl) -> anyhow::Result<Vec<(u32, Kubectl)>> {
    let named = MINORS.filter_map(|minor| Some((minor, kubectl.version(&format!("1.{minor}"))?)));
    let mut all: Vec<_> = named.collect();
    let version = kubectl.own_version().await?;
    let minor = version.split('.').nth(1).and_then(|minor| minor.parse().ok());
    let minor = minor.with_context(|| format!("{version} is no version"))?;
    if all.iter().all(|(known, _)| *known != minor) {
        all.push((minor, kubectl.clone()));
    }
    all.sort_by_key(|(minor, _)| *minor);
    Ok(all)
}

/// Goes through all cases with one of them.
pub async fn run(kubectl: &Kubectl, minor: u32, dir: PathBuf) -> anyhow::Result<Client> {
    let namespace = format!("kubectl-{minor}");
    kubectl.run(["create", "namespace", &namespace]).await?;
    std::fs::create_dir_all(&dir)?;
    let tool = Tool { kubectl: kubectl.in_namespace(&namespace), minor, namespace, dir };
    let client = Client::new(format!("kubectl 1.{minor}"));
    discovers::run(&client, &tool).await;
    reads::run(&client, &tool).await;
    writes::run(&client, &tool).await;
    applies::run(&client, &tool).await;
    server_side::run(&client, &tool).await;
    deletes::run(&client, &tool).await;
    Ok(client)
}

impl Tool {
    async fn run<const N: usize>(&self, args: [&str; N]) -> anyhow::Result<String> {
        self.kubectl
            .run(args)
            .await
            .map_err(|error| anyhow::anyhow!("kubectl {}: {}", args.join(" "), complaint(&error)))
    }

    /// What it says when it is refused.
    async fn refused<const N: usize>(&self, args: [&str; N]) -> anyhow::Result<String> {
        match self.kubectl.run(args).await {
            Ok(said) => bail!("kubectl {} is not refused: {said}", args.join(" ")),
            Err(error) => Ok(complaint(&error)),
        }
    }

    /// With something on its standard input; both of its outputs.
    async fn feed<const N: usize>(&self, args: [&str; N], input: &str) -> anyhow::Result<String> {
        match self.kubectl.feed(args, input).await? {
            Ok(said) => Ok(said),
            Err(said) => bail!("kubectl {}: {said}", args.join(" ")),
        }
    }

    /// As [`Tool::feed`], where it is refused.
    async fn refused_feed<const N: usize>(&self, args: [&str; N], input: &str) -> anyhow::Result<String> {
        match self.kubectl.feed(args, input).await? {
            Ok(said) => bail!("kubectl {} is not refused: {said}", args.join(" ")),
            Err(said) => Ok(said),
        }
    }

    /// A value of an object, as JSONPath; empty where there is none.
    async fn value(&self, object: &str, path: &str) -> anyhow::Result<String> {
        self.run(["get", object, "-o", &format!("jsonpath={path}")]).await
    }

    async fn json<const N: usize>(&self, args: [&str; N]) -> anyhow::Result<Value> {
        Ok(serde_json::from_str(&self.run(args).await?)?)
    }

    async fn is_there(&self, object: &str) -> anyhow::Result<bool> {
        Ok(!self.run(["get", object, "--ignore-not-found", "-o", "name"]).await?.trim().is_empty())
    }

    /// Ends a case that needs a newer one.
    fn since(&self, minor: u32, what: &str) -> anyhow::Result<()> {
        if self.minor >= minor {
            return Ok(());
        }
        Err(NotRun(format!("{what} came with kubectl 1.{minor}")).into())
    }
}

/// What kubectl itself says; the first line names paths that differ from version to version.
fn complaint(error: &anyhow::Error) -> String {
    let whole = format!("{error:#}");
    whole.split_once('\n').map_or(whole.as_str(), |(_, said)| said).trim().to_owned()
}

/// Fails unless all these words are said.
fn says(said: &str, words: &[&str]) -> anyhow::Result<()> {
    for word in words {
        ensure!(said.contains(word), "it does not say {word:?}: {said}");
    }
    Ok(())
}

fn config_map(name: &str, value: &str) -> String {
    format!("---\napiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: {name}\ndata:\n  k: \"{value}\"\n")
}

fn instance(name: &str, more: &str) -> String {
    format!(
        "---\napiVersion: gantry.dev/v1alpha1\nkind: DockerInstance\nmetadata:\n  name: {name}\nspec:\n  displayName: x\n{more}"
    )
}
