//! The real kubectl, in the versions that are installed.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use serde_json::Value;
use tokio::io::AsyncWriteExt as _;
use tokio::process::Command;

use crate::process::{Process, run};

const PATIENCE: Duration = Duration::from_secs(60);

/// kubectl with a kubeconfig.
#[derive(Clone, Debug)]
pub struct Kubectl {
    program: PathBuf,
    kubeconfig: PathBuf,
    namespace: Option<String>,
    token: Option<String>,
    variables: Vec<(String, String)>,
}

impl Kubectl {
    /// The one on the PATH.
    pub fn new(kubeconfig: &Path) -> Self {
        Self {
            program: PathBuf::from("kubectl"),
            kubeconfig: kubeconfig.to_owned(),
            namespace: None,
            token: None,
            variables: Vec::new(),
        }
    }

    /// Another version, as `1.27`: `kubectl.1.27` in `$KUBECTL_VERSIONS`, on the PATH, or beside what its `kubectl` is a link to.
    pub fn version(&self, version: &str) -> Option<Self> {
        let name = format!("kubectl.{version}");
        let path = std::env::var_os("PATH")?;
        let on_path: Vec<PathBuf> = std::env::split_paths(&path).collect();
        let behind_links = on_path
            .iter()
            .filter_map(|dir| dir.join("kubectl").canonicalize().ok()?.parent().map(Path::to_owned));
        std::env::var_os("KUBECTL_VERSIONS")
            .map(PathBuf::from)
            .into_iter()
            .chain(on_path.iter().cloned())
            .chain(behind_links)
            .map(|dir| dir.join(&name))
            .find(|path| path.is_file())
            .map(|program| Self { program, ..self.clone() })
    }

    /// As this one, in that namespace where a command names none.
    #[must_use]
    pub fn in_namespace(&self, namespace: &str) -> Self {
        Self { namespace: Some(namespace.to_owned()), ..self.clone() }
    }

    /// As this one, as whoever that bearer token is.
    #[must_use]
    pub fn with_token(&self, token: &str) -> Self {
        Self { token: Some(token.to_owned()), ..self.clone() }
    }

    /// As this one, with a variable of its environment.
    #[must_use]
    pub fn with_variable(&self, name: &str, value: &str) -> Self {
        let mut changed = self.clone();
        changed.variables.push((name.to_owned(), value.to_owned()));
        changed
    }

    /// What it says its version is, as `v1.33.1`.
    pub async fn own_version(&self) -> anyhow::Result<String> {
        let said: Value = serde_json::from_str(&self.run(["version", "--client", "-o", "json"]).await?)?;
        let version = said.pointer("/clientVersion/gitVersion").and_then(Value::as_str);
        version.map(str::to_owned).context("kubectl names no version of its own")
    }

    /// Runs it and gives its standard output.
    pub async fn run<const N: usize>(&self, args: [&str; N]) -> anyhow::Result<String> {
        let mut command = self.command();
        command.args(args);
        run(command).await
    }

    /// Starts it and lets it run; what it says goes to that file.
    pub fn follow<const N: usize>(&self, args: [&str; N], log: &Path) -> anyhow::Result<Process> {
        let mut command = self.command();
        command.args(args);
        Process::spawn("kubectl", command, log)
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

    /// `wait --for=CONDITION`.
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

    /// Waits for an Operation's phase; `wait --for=jsonpath` came with kubectl 1.23.
    pub async fn reaches(&self, operation: &str, phase: &str) -> anyhow::Result<Value> {
        crate::eventually(&format!("{operation} to be {phase}"), PATIENCE, async || {
            let object = self.get("operation", operation).await?;
            let is = object.pointer("/status/phase").and_then(Value::as_str).unwrap_or("absent");
            ensure!(is == phase, "it is {is}: {:#}", object.pointer("/status").unwrap_or_default());
            Ok(object)
        })
        .await
    }

    /// Replaces an object's status with what `change` makes of it; `patch --subresource` came with kubectl 1.24.
    pub async fn change_status(&self, path: &str, change: impl FnOnce(&mut Value)) -> anyhow::Result<()> {
        let mut object: Value = serde_json::from_str(&self.get_raw(path).await?)?;
        change(&mut object);
        let status = format!("{path}/status");
        match self.feed(["replace", "--raw", &status, "-f", "-"], &object.to_string()).await? {
            Ok(_) => Ok(()),
            Err(said) => bail!("kubectl replace --raw {status}: {said}"),
        }
    }

    /// Merges into an object.
    pub async fn merge(&self, kind: &str, name: &str, patch: &str) -> anyhow::Result<String> {
        self.run(["patch", kind, name, "--type=merge", "-p", patch]).await
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
        command.envs(self.variables.iter().map(|(name, value)| (name, value)));
        // The discovery cache of another test's server on the same port would mislead.
        let cache = self.kubeconfig.with_file_name("kube-cache");
        command.arg("--cache-dir").arg(cache);
        command.args(self.namespace.iter().flat_map(|namespace| ["--namespace", namespace]));
        command.args(self.token.iter().flat_map(|token| ["--token", token]));
        command
    }
}
