//! What this host itself has for a registry: in Docker's `config.json`, or kept by a program that it names.
//!
//! Read anew for each pull, so that what `docker login` changed counts at once. What cannot be read is told in the log, never
//! with a word of what was read, and the pull goes on as anybody's.

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use gantry_api::agent_v1::RegistryAuth;
use gantry_api::docker_config::{DockerConfig, Unreadable, address, kept};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::process::Command;

const LARGEST_FILE: u64 = 1 << 20;
const LARGEST_ANSWER: u64 = 64 << 10;
const LONGEST_NAME: usize = 64;
const ANSWER_WITHIN: Duration = Duration::from_secs(10);
/// What these programs say, with a failure, where they keep nothing for a server.
const NOTHING_KEPT: &str = "credentials not found";

/// Where this host keeps its credentials.
#[derive(Clone, Debug)]
pub struct HostCredentials {
    file: PathBuf,
    /// Where the programs are; as for this process if `None`.
    path: Option<OsString>,
}

/// Why this host's credentials are not used.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error("it cannot be read")]
    File(#[source] std::io::Error),
    #[error("it is larger than 1 MiB")]
    TooLarge,
    #[error(transparent)]
    Unreadable(#[from] Unreadable),
    #[error("it names a program whose name is not made of a-z, 0-9 and `-`")]
    Name,
    #[error("docker-credential-{0} cannot be run")]
    Run(String, #[source] std::io::Error),
    #[error("docker-credential-{0} did not answer within 10 s")]
    Silent(String),
    #[error("docker-credential-{0} answered with more than 64 KiB")]
    TooMuch(String),
    #[error("docker-credential-{0} failed")]
    Failed(String),
    #[error("the answer of docker-credential-{0} cannot be read")]
    Answer(String, #[source] Unreadable),
}

impl HostCredentials {
    /// Those in this file.
    pub fn new(file: PathBuf) -> Self {
        Self { file, path: None }
    }

    /// Those of the user this process runs as: in `$DOCKER_CONFIG`, else in `.docker` of the home directory. `None` where there is
    /// neither.
    pub fn of_this_user() -> Option<Self> {
        let set = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
        // A service manager does not always set HOME.
        let home =
            || set("HOME").or_else(|| Some(nix::unistd::User::from_uid(nix::unistd::geteuid()).ok()??.dir));
        let folder = set("DOCKER_CONFIG").or_else(|| Some(home()?.join(".docker")))?;
        Some(Self::new(folder.join("config.json")))
    }

    /// Looks for the programs here instead of where this process does.
    #[must_use]
    pub fn with_path(mut self, path: impl Into<OsString>) -> Self {
        self.path = Some(path.into());
        self
    }

    /// What there is for a registry, by its canonical name.
    pub async fn find(&self, server: &str) -> Option<RegistryAuth> {
        match self.try_find(server).await {
            Ok(found) => found,
            Err(failure) => {
                let chain = std::error::Error::source(&failure).map(|cause| format!(": {cause}"));
                tracing::warn!(
                    file = %self.file.display(), server,
                    error = format!("{failure}{}", chain.unwrap_or_default()),
                    "the host's own credentials for this registry are not used"
                );
                None
            }
        }
    }

    async fn try_find(&self, server: &str) -> Result<Option<RegistryAuth>, Failure> {
        let Some(text) = self.read().await? else { return Ok(None) };
        let config = DockerConfig::parse(&text)?;
        match config.helper(server) {
            Some(name) => self.ask(name, server).await,
            None => Ok(config.login(server)?),
        }
    }

    async fn read(&self) -> Result<Option<Vec<u8>>, Failure> {
        let file = match tokio::fs::File::open(&self.file).await {
            Ok(file) => file,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(Failure::File(error)),
        };
        let mut text = Vec::new();
        file.take(LARGEST_FILE + 1).read_to_end(&mut text).await.map_err(Failure::File)?;
        if text.len() as u64 > LARGEST_FILE { Err(Failure::TooLarge) } else { Ok(Some(text)) }
    }

    /// Asks the program that keeps them. It is run as it is, without a shell, and told the server on its standard input.
    async fn ask(&self, name: &str, server: &str) -> Result<Option<RegistryAuth>, Failure> {
        let is_plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
        if name.len() > LONGEST_NAME || !name.bytes().all(is_plain) {
            return Err(Failure::Name);
        }
        let answered = tokio::time::timeout(ANSWER_WITHIN, self.run(name, server)).await;
        let (answer, has_failed) = answered.map_err(|_| Failure::Silent(name.to_owned()))??;
        if answer.len() as u64 > LARGEST_ANSWER {
            return Err(Failure::TooMuch(name.to_owned()));
        }
        if !has_failed {
            return kept(&answer, server).map(Some).map_err(|error| Failure::Answer(name.to_owned(), error));
        }
        if String::from_utf8_lossy(&answer).starts_with(NOTHING_KEPT) {
            return Ok(None);
        }
        Err(Failure::Failed(name.to_owned()))
    }

    /// What it said, a little more than is allowed at most, and whether it failed. Ends it when dropped.
    async fn run(&self, name: &str, server: &str) -> Result<(Vec<u8>, bool), Failure> {
        let failed = |error| Failure::Run(name.to_owned(), error);
        let mut command = Command::new(format!("docker-credential-{name}"));
        command
            .arg("get")
            // The join token is nobody else's.
            .env_remove("GANTRY_TOKEN")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .kill_on_drop(true);
        if let Some(path) = &self.path {
            command.env("PATH", path);
        }
        let mut child = command.spawn().map_err(failed)?;
        if let Some(mut input) = child.stdin.take() {
            // One that does not want to know the server has its reasons.
            drop(input.write_all(address(server).as_bytes()).await);
        }
        let mut answer = Vec::new();
        if let Some(output) = child.stdout.take() {
            output.take(LARGEST_ANSWER + 1).read_to_end(&mut answer).await.map_err(failed)?;
        }
        if answer.len() as u64 > LARGEST_ANSWER {
            return Ok((answer, true));
        }
        let status = child.wait().await.map_err(failed)?;
        Ok((answer, !status.success()))
    }
}
