//! The real kubectl, in the versions that are installed.

use std::path::{Path, PathBuf};
use std::process::Stdio;

use anyhow::{Context as _, bail};
use serde_json::Value;
use tokio::io::AsyncWriteExt as _;
use tokio::process::Command;

use crate::process::run;

/// kubectl with a kubeconfig.
#[derive(Clone, Debug)]
pub struct Kubectl {
    program: PathBuf,
    kubeconfig: PathBuf,
}

impl Kubectl {
    /// The one on the PATH.
    pub fn new(kubeconfig: &Path) -> Self {
        Self { program: PathBuf::from("kubectl"), kubeconfig: kubeconfig.to_owned() }
    }

    /// Another version, as `1.27`, where one is installed beside the first as `kubectl.1.27`, or in `$KUBECTL_VERSIONS`.
    pub fn version(&self, version: &str) -> Option<Self> {
        let name = format!("kubectl.{version}");
        let path = std::env::var_os("PATH")?;
        let beside = std::env::split_paths(&path)
            .map(|dir| dir.join("kubectl"))
            .find_map(|path| path.canonicalize().ok())
            .and_then(|path| path.parent().map(Path::to_owned));
        std::env::var_os("KUBECTL_VERSIONS")
            .map(PathBuf::from)
            .into_iter()
            .chain(beside)
            .map(|dir| dir.join(&name))
            .find(|path| path.is_file())
            .map(|program| Self { program, kubeconfig: self.kubeconfig.clone() })
    }

    /// Runs it and gives its standard output.
    pub async fn run<const N: usize>(&self, args: [&str; N]) -> anyhow::Result<String> {
        let mut command = self.command();
        command.args(args);
        run(command).await
    }

    /// Runs it with something on its standard input; gives both outputs together, also when it fails.
    pub async fn feed<const N: usize>(
        &self,
        args: [&str; N],
        input: &str,
    ) -> anyhow::Result<Result<String, String>> {
        let mut child = self
            .command()
            .args(args)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()?;
        let mut stdin = child.stdin.take().context("it has no standard input")?;
        let input = input.to_owned();
        let feeding = tokio::spawn(async move { stdin.write_all(input.as_bytes()).await });
        let output = child.wait_with_output().await?;
        feeding.await?.ok();
        let text =
            String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
        Ok(if output.status.success() { Ok(text) } else { Err(text) })
    }

    /// `apply -f -`.
    pub async fn apply(&self, manifest: &str) -> anyhow::Result<String> {
        match self.feed(["apply", "-f", "-"], manifest).await? {
            Ok(said) => Ok(said),
            Err(said) => bail!("kubectl apply: {said}"),
        }
    }

    /// `get KIND NAME -o json`.
    pub async fn get(&self, kind: &str, name: &str) -> anyhow::Result<Value> {
        Ok(serde_json::from_str(&self.run(["get", kind, name, "-o", "json"]).await?)?)
    }

    /// `get KIND -o json`, the items.
    pub async fn list(&self, kind: &str) -> anyhow::Result<Vec<Value>> {
        let list: Value = serde_json::from_str(&self.run(["get", kind, "-o", "json"]).await?)?;
        Ok(list.get("items").and_then(Value::as_array).cloned().unwrap_or_default())
    }

    /// `get --raw PATH`.
    pub async fn get_raw(&self, path: &str) -> anyhow::Result<String> {
        self.run(["get", "--raw", path]).await
    }

    /// `wait --for=condition=CONDITION`.
    pub async fn wait(&self, object: &str, condition: &str) -> anyhow::Result<String> {
        let said = self.run(["wait", &format!("--for={condition}"), object, "--timeout=60s"]).await;
        match said {
            Ok(said) => Ok(said),
            Err(error) => {
                let seen = self.run(["get", object, "-o", "yaml"]).await.unwrap_or_default();
                Err(error.context(format!("waiting for {condition} of {object}:\n{seen}")))
            }
        }
    }

    /// `edit`, with that program for an editor.
    pub async fn edit(&self, kind: &str, name: &str, editor: &str) -> anyhow::Result<String> {
        let mut command = self.command();
        command.env("KUBE_EDITOR", editor).args(["edit", kind, name]);
        run(command).await
    }

    fn command(&self) -> Command {
        let mut command = Command::new(&self.program);
        command.env("KUBECONFIG", &self.kubeconfig);
        // The discovery cache of another test's server on the same port would mislead.
        let cache = self.kubeconfig.with_file_name("kube-cache");
        command.arg("--cache-dir").arg(cache);
        command
    }
}
