//! Flags, environment and file, validated once. A flag wins over the environment, that over the file.

mod address;

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Parser, ValueEnum};
use serde::Deserialize;

pub use address::{ControllerUrl, InvalidUrl};

use crate::docker::bollard::DEFAULT_HOST;
use crate::enrollment::pin::CaHash;
use crate::enrollment::token::{GivenToken, TokenSource};
use crate::policy::Policy;

const DEFAULT_STATE_DIR: &str = "/var/lib/gantry-agent";
const DEFAULT_NAMESPACE: &str = "default";

/// Sits beside one Docker Engine: reports it to a Gantry controller and runs operations on it.
#[derive(Clone, Debug, Default, Parser)]
#[command(name = "gantry-agent", version)]
pub struct Flags {
    /// Read what is not given by flag or environment from this YAML file.
    #[arg(long, env = "GANTRY_CONFIG", value_name = "FILE")]
    pub config: Option<PathBuf>,

    #[command(flatten)]
    settings: Settings,
}

/// Everything that can be set, wherever it is set.
#[derive(Clone, Debug, Default, clap::Args, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Settings {
    /// Where the controller is.
    #[arg(long, env = "GANTRY_CONTROLLER", value_name = "URL")]
    controller: Option<String>,

    /// Join token for the first start, and for a new one after the instance was deleted; better by environment or file, since
    /// arguments can be read by everybody.
    #[arg(long, env = "GANTRY_TOKEN", hide_env_values = true)]
    token: Option<GivenToken>,

    /// File that holds the join token; `-` is standard input. It is read when it is needed.
    #[arg(long, env = "GANTRY_TOKEN_FILE", value_name = "FILE")]
    token_file: Option<PathBuf>,

    /// Fingerprint of the controller's CA, needed for the first start: sha256:…
    #[arg(long, env = "GANTRY_CA_HASH", value_name = "HASH")]
    ca_hash: Option<String>,

    /// Name of this host's DockerInstance [default: the host's name]
    #[arg(long, env = "GANTRY_INSTANCE", value_name = "NAME")]
    instance: Option<String>,

    /// Namespace of this host's DockerInstance [default: default]
    #[arg(long, env = "GANTRY_NAMESPACE")]
    namespace: Option<String>,

    /// Where the Docker Engine listens [default: unix:///var/run/docker.sock]
    #[arg(long, env = "GANTRY_DOCKER_HOST", value_name = "URL")]
    docker_host: Option<String>,

    /// Show registries what this host's own `config.json` of Docker holds for them, where the controller gives no credentials
    /// [default: true]
    #[arg(long, env = "GANTRY_HOST_REGISTRY_CREDENTIALS", value_name = "BOOL")]
    host_registry_credentials: Option<bool>,

    /// What the controller may ask of this host [default: full]
    #[arg(long, env = "GANTRY_POLICY", value_enum)]
    policy: Option<Policy>,

    /// Where key, certificate and journal are kept [default: /var/lib/gantry-agent]
    #[arg(long, env = "GANTRY_STATE_DIR", value_name = "DIR")]
    state_dir: Option<PathBuf>,

    /// How to reach the controller; `auto` is directly, else through a WebSocket [default: auto]
    #[arg(long, env = "GANTRY_TRANSPORT", value_enum)]
    transport: Option<Transport>,

    /// Serve /metrics, /livez and /readyz here. Off where absent.
    #[arg(long, env = "GANTRY_METRICS_LISTEN", value_name = "ADDRESS")]
    metrics_listen: Option<SocketAddr>,

    /// How log lines look; `auto` is text on a terminal, else JSON [default: auto]
    #[arg(long, env = "GANTRY_LOG_FORMAT", value_enum)]
    log_format: Option<LogFormat>,

    /// Send traces to this OTLP gRPC endpoint, `https://host:4317`, or `http://…` for one that is reached safely otherwise. Off where absent.
    #[arg(long, env = "GANTRY_OTLP_ENDPOINT", value_name = "URL")]
    otlp_endpoint: Option<String>,

    /// Trust the certificates in this file (PEM) there, instead of those that this machine trusts.
    #[arg(long, env = "GANTRY_OTLP_CA_FILE", value_name = "FILE")]
    otlp_ca_file: Option<PathBuf>,
}

/// What the agent runs with.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where the controller is.
    pub controller: ControllerUrl,
    /// What lets a new agent in.
    pub token: TokenSource,
    /// What a new agent knows its controller by.
    pub ca_hash: Option<CaHash>,
    /// Name of this host's DockerInstance.
    pub instance: String,
    /// The name was given, not taken from the host.
    pub is_instance_given: bool,
    /// Namespace of this host's DockerInstance.
    pub namespace: String,
    /// Where the Docker Engine listens.
    pub docker_host: String,
    /// Registries are shown the host's own credentials where the controller gives none.
    pub host_registry_credentials: bool,
    /// What the controller may ask.
    pub policy: Policy,
    /// Where key, certificate and journal are kept.
    pub state_dir: PathBuf,
    /// How to reach the controller.
    pub transport: Transport,
    /// Where metrics are served.
    pub metrics_listen: Option<SocketAddr>,
    /// How log lines look.
    pub log_format: LogFormat,
    /// Where traces go.
    pub otlp_endpoint: Option<String>,
    /// Whose certificates are trusted there.
    pub otlp_ca_file: Option<PathBuf>,
}

/// How to reach the controller.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Transport {
    /// Directly; where that fails, through a WebSocket.
    #[default]
    Auto,
    /// TLS on the controller's port.
    Direct,
    /// Through a WebSocket, for proxies that pass only HTTP.
    Websocket,
}

/// How log lines look.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// Text on a terminal, else JSON.
    #[default]
    Auto,
    /// For people.
    Text,
    /// For programs.
    Json,
}

/// What is wrong with the configuration.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("configuration file {0} cannot be read")]
    Unreadable(PathBuf, #[source] std::io::Error),
    /// The file's content is wrong.
    #[error("configuration file {0} is wrong")]
    Malformed(PathBuf, #[source] gantry_api::yaml::YamlError),
    /// No controller.
    #[error("no controller is given")]
    NoController,
    /// Not a controller's URL.
    #[error("`{0}` cannot be the URL of a controller")]
    Controller(String, #[source] InvalidUrl),
    /// A hash of another form.
    #[error("`{0}` is not the hash of a CA")]
    CaHash(String),
    /// Something that is no token. It may be most of one, so it is not repeated.
    #[error("what is given as join token is not one")]
    Token,
    /// Two tokens.
    #[error("both a token and a token file are given")]
    TwoTokens,
    /// Not a name.
    #[error("`{name}` cannot be the name of {what}")]
    Name {
        /// What it was to name.
        what: &'static str,
        /// As it was given.
        name: String,
    },
}

impl ConfigError {
    /// What to do about it.
    pub fn hint(&self) -> &'static str {
        match self {
            Self::Unreadable(..) => "`--config` names a YAML file that this user can read",
            Self::Malformed(..) => "its keys are the flags' names as in `stateDir: /var/lib/gantry-agent`",
            Self::NoController => "say `--controller https://HOST:7443`, or set GANTRY_CONTROLLER",
            Self::Controller(..) => "a controller's URL looks like https://gantry.example:7443",
            Self::CaHash(_) => {
                "it is `sha256:` and 64 hexadecimal digits; `gantry agent install-command` prints it"
            }
            Self::Token => "`gantry token create` prints one: 10 characters, a dot, 32 characters",
            Self::TwoTokens => "give one of `--token` and `--token-file`",
            Self::Name { .. } => {
                "use lower-case letters, digits, `-` and `.`, beginning and ending with a letter or digit"
            }
        }
    }
}

impl Flags {
    /// Reads the file, if one is named, and checks everything that can be checked without acting.
    pub fn resolve(self) -> Result<Config, ConfigError> {
        let file = match &self.config {
            Some(path) => read(path)?,
            None => Settings::default(),
        };
        self.settings.over(file).validate()
    }
}

fn read(path: &PathBuf) -> Result<Settings, ConfigError> {
    let text = std::fs::read_to_string(path).map_err(|cause| ConfigError::Unreadable(path.clone(), cause))?;
    let settings: Option<Settings> =
        gantry_api::yaml::read_config(&text).map_err(|cause| ConfigError::Malformed(path.clone(), cause))?;
    Ok(settings.unwrap_or_default())
}

impl Settings {
    fn over(self, below: Self) -> Self {
        Self {
            controller: self.controller.or(below.controller),
            token: self.token.or(below.token),
            token_file: self.token_file.or(below.token_file),
            ca_hash: self.ca_hash.or(below.ca_hash),
            instance: self.instance.or(below.instance),
            namespace: self.namespace.or(below.namespace),
            docker_host: self.docker_host.or(below.docker_host),
            host_registry_credentials: self.host_registry_credentials.or(below.host_registry_credentials),
            policy: self.policy.or(below.policy),
            state_dir: self.state_dir.or(below.state_dir),
            transport: self.transport.or(below.transport),
            metrics_listen: self.metrics_listen.or(below.metrics_listen),
            log_format: self.log_format.or(below.log_format),
            otlp_endpoint: self.otlp_endpoint.or(below.otlp_endpoint),
            otlp_ca_file: self.otlp_ca_file.or(below.otlp_ca_file),
        }
    }

    fn validate(self) -> Result<Config, ConfigError> {
        let controller = self.controller.ok_or(ConfigError::NoController)?;
        let controller = controller.parse().map_err(|cause| ConfigError::Controller(controller, cause))?;
        let token = match (self.token, self.token_file) {
            (Some(_), Some(_)) => return Err(ConfigError::TwoTokens),
            (Some(token), None) => TokenSource::Given(token.check().map_err(|_| ConfigError::Token)?),
            (None, Some(path)) => TokenSource::of_file(path),
            (None, None) => TokenSource::None,
        };
        let ca_hash =
            self.ca_hash.map(|text| text.parse().map_err(|_| ConfigError::CaHash(text))).transpose()?;
        let is_instance_given = self.instance.is_some();
        let instance = self.instance.unwrap_or_else(host_name);
        require_name("an instance", &instance, 253, ".-")?;
        let namespace = self.namespace.unwrap_or_else(|| DEFAULT_NAMESPACE.to_owned());
        require_name("a namespace", &namespace, 63, "-")?;
        Ok(Config {
            controller,
            token,
            ca_hash,
            instance,
            is_instance_given,
            namespace,
            docker_host: self.docker_host.unwrap_or_else(|| DEFAULT_HOST.to_owned()),
            host_registry_credentials: self.host_registry_credentials.unwrap_or(true),
            policy: self.policy.unwrap_or_default(),
            state_dir: self.state_dir.unwrap_or_else(|| PathBuf::from(DEFAULT_STATE_DIR)),
            transport: self.transport.unwrap_or_default(),
            metrics_listen: self.metrics_listen,
            log_format: self.log_format.unwrap_or_default(),
            otlp_endpoint: self.otlp_endpoint,
            otlp_ca_file: self.otlp_ca_file,
        })
    }
}

/// The host's name, made fit for an object's. Empty, and so refused, if nothing is left of it.
fn host_name() -> String {
    let host = nix::unistd::gethostname().unwrap_or_default();
    let name: String = host
        .to_string_lossy()
        .to_lowercase()
        .chars()
        .map(|character| if character.is_ascii_alphanumeric() || character == '.' { character } else { '-' })
        .collect();
    name.trim_matches(['-', '.']).to_owned()
}

fn require_name(what: &'static str, name: &str, longest: usize, marks: &str) -> Result<(), ConfigError> {
    let is_plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let bytes = name.as_bytes();
    let is_good = bytes.len() <= longest
        && bytes.iter().all(|byte| is_plain(*byte) || marks.as_bytes().contains(byte))
        && bytes.first().copied().is_some_and(is_plain)
        && bytes.last().copied().is_some_and(is_plain);
    if is_good { Ok(()) } else { Err(ConfigError::Name { what, name: name.to_owned() }) }
}
