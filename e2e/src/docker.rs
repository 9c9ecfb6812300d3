//! The real docker CLI, against an engine's socket or through the controller's Docker endpoint.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::Context as _;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use tokio::process::Command;

use crate::controller::Controller;

/// Longest any command of a test takes that does not say otherwise.
const PATIENCE: Duration = Duration::from_secs(120);

/// docker with its surroundings.
#[derive(Clone, Debug)]
pub struct Docker {
    environment: Vec<(String, String)>,
    dir: PathBuf,
}

/// What a command came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Said {
    /// Its exit code.
    pub code: Option<i32>,
    /// What it wrote.
    pub stdout: String,
    /// What it complained of.
    pub stderr: String,
}

impl Docker {
    /// Against a socket, as `unix://…`, with a directory of its own.
    pub fn at(host: &str, dir: &Path) -> anyhow::Result<Self> {
        std::fs::create_dir_all(dir)?;
        let environment = [("DOCKER_HOST", host), ("DOCKER_BUILDKIT", "0"), ("LC_ALL", "C")];
        let environment =
            environment.map(|(name, value)| (name.to_owned(), value.to_owned())).into_iter().collect();
        let docker = Self { environment, dir: dir.to_owned() };
        Ok(docker.with("DOCKER_CONFIG", &dir.join("config").display().to_string()))
    }

    /// Through the endpoint of that instance, with the admin's client certificate.
    pub fn through(controller: &Controller, instance: &str, dir: &Path) -> anyhow::Result<Self> {
        let docker = Self::at(&endpoint(controller, instance), dir)?;
        let kubeconfig = std::fs::read_to_string(controller.kubeconfig())?;
        let kubeconfig: Value = gantry_api::yaml::read_config(&kubeconfig)?;
        for (field, name) in [
            ("/clusters/0/cluster/certificate-authority-data", "ca.pem"),
            ("/users/0/user/client-certificate-data", "cert.pem"),
            ("/users/0/user/client-key-data", "key.pem"),
        ] {
            let value = kubeconfig.pointer(field).and_then(Value::as_str);
            let value = value.with_context(|| format!("the kubeconfig has no {field}"))?;
            std::fs::write(dir.join(name), STANDARD.decode(value)?)?;
        }
        Ok(docker.with("DOCKER_TLS_VERIFY", "1").with("DOCKER_CERT_PATH", &dir.display().to_string()))
    }

    /// Through the endpoint, as whoever that bearer token is.
    pub fn with_token(
        controller: &Controller,
        instance: &str,
        dir: &Path,
        token: &str,
    ) -> anyhow::Result<Self> {
        let docker = Self::through(controller, instance, dir)?;
        std::fs::remove_file(dir.join("cert.pem"))?;
        std::fs::remove_file(dir.join("key.pem"))?;
        std::fs::create_dir_all(dir.join("config"))?;
        let config = json!({"HttpHeaders": {"Authorization": format!("Bearer {token}")}});
        std::fs::write(dir.join("config/config.json"), config.to_string())?;
        Ok(docker)
    }

    /// The same with that variable in its surroundings.
    #[must_use]
    pub fn with(mut self, name: &str, value: &str) -> Self {
        self.environment.push((name.to_owned(), value.to_owned()));
        self
    }

    /// A line of shell in its directory, in which `docker` is this one.
    pub async fn says(&self, line: &str) -> anyhow::Result<Said> {
        self.says_within(line, PATIENCE).await
    }

    /// As [`Docker::says`], for what takes longer than a moment.
    pub async fn says_within(&self, line: &str, patience: Duration) -> anyhow::Result<Said> {
        let mut command = Command::new("sh");
        command.args(["-c", line]).current_dir(&self.dir).stdin(Stdio::null()).kill_on_drop(true);
        for name in ["DOCKER_HOST", "DOCKER_TLS_VERIFY", "DOCKER_CERT_PATH", "DOCKER_CONTEXT"] {
            command.env_remove(name);
        }
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        let output = tokio::time::timeout(patience, command.output())
            .await
            .with_context(|| format!("`{line}` did not end"))??;
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        Ok(Said { code: output.status.code(), stdout: text(&output.stdout), stderr: text(&output.stderr) })
    }
}

/// The same lines at an engine's socket and through the endpoint.
#[derive(Debug)]
pub struct Beside {
    /// How many there were.
    pub lines: usize,
    /// Those that failed at the socket, and what they said there.
    failed: Vec<String>,
    differences: Vec<String>,
}

impl Beside {
    /// Runs each line of a script by itself, first all of them at the socket: each begins where the last one ended. Lines with a `#` are for
    /// the reader.
    pub async fn run(script: &str, socket: &Docker, endpoint: &Docker) -> anyhow::Result<Self> {
        let lines: Vec<&str> =
            script.lines().filter(|line| !line.is_empty() && !line.starts_with('#')).collect();
        let mut direct = Vec::new();
        for line in &lines {
            direct.push(socket.says(line).await?.plain());
        }
        let mut differences = Vec::new();
        for (line, direct) in lines.iter().zip(&direct) {
            let through = endpoint.says(line).await?.plain();
            if through != *direct {
                differences.push(format!("{line}\nat the socket: {direct:?}\nthrough:       {through:?}"));
            }
        }
        let all = lines.iter().zip(&direct).filter(|(_, said)| said.code != Some(0));
        let failed = all.map(|(line, said)| format!("{line}\nfails at the socket: {said:?}")).collect();
        Ok(Self { lines: lines.len(), failed, differences })
    }

    /// One line that says many things, compared thing by thing; its lines are those of what is said.
    pub async fn of_script(
        line: &str,
        socket: &Docker,
        endpoint: &Docker,
        patience: Duration,
    ) -> anyhow::Result<Self> {
        let direct = socket.says_within(line, patience).await?.plain();
        let through = endpoint.says_within(line, patience).await?.plain();
        let said = |said: &Said| -> Vec<String> {
            let told = said.stdout.lines().chain(said.stderr.lines()).map(str::to_owned);
            told.chain([format!("exit code {:?}", said.code)]).collect()
        };
        let (one, other) = (said(&direct), said(&through));
        let lines = one.len().max(other.len());
        let of = |all: &[String], number: usize| all.get(number).cloned().unwrap_or_default();
        let differences = (0..lines).filter(|number| one.get(*number) != other.get(*number)).map(|number| {
            format!("at the socket: {}\nthrough:       {}", of(&one, number), of(&other, number))
        });
        let differences = differences.collect();
        let failed = (direct.code != Some(0)).then(|| format!("fails at the socket: {direct:?}"));
        Ok(Self { lines, failed: failed.into_iter().collect(), differences })
    }

    /// An error that names every line with another outcome, and where more than so many fail at the socket, those: what fails everywhere
    /// compares nothing.
    pub fn is_same(self, most_failed: usize) -> anyhow::Result<()> {
        let mut wrong = self.differences;
        if self.failed.len() > most_failed {
            wrong.extend(self.failed);
        }
        anyhow::ensure!(wrong.is_empty(), "{}", wrong.join("\n\n"));
        Ok(())
    }
}

impl Said {
    /// Without ids, which differ from one run to the next and mean nothing.
    #[must_use]
    pub fn plain(self) -> Self {
        let is_id = |word: &str| word.len() >= 12 && word.bytes().all(|byte| byte.is_ascii_hexdigit());
        let words = |text: String| -> String {
            let mut all = String::new();
            for piece in text.split_inclusive(|letter: char| !letter.is_ascii_alphanumeric()) {
                let word = piece.trim_end_matches(|letter: char| !letter.is_ascii_alphanumeric());
                if is_id(word) { all.push_str(&piece.replace(word, "ID")) } else { all.push_str(piece) }
            }
            all
        };
        Self { code: self.code, stdout: words(self.stdout), stderr: words(self.stderr) }
    }
}

/// What `DOCKER_HOST` is for an instance.
pub fn endpoint(controller: &Controller, instance: &str) -> String {
    let path = format!("/apis/gantry.dev/v1alpha1/namespaces/default/dockerinstances/{instance}/docker");
    format!("tcp://{}{path}", controller.address())
}
