//! What may be typed after `gantry dev`, `gantry token` and `gantry agent`.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::Args;
use jiff::SignedDuration;

use super::values::{parse_controller, parse_ttl};

/// Options of `gantry dev`.
#[derive(Clone, Debug, Args)]
#[command(after_help = "Examples:
  gantry dev
  gantry dev --listen 0.0.0.0:7443           also for agents on other hosts")]
pub(crate) struct DevArgs {
    /// Where everything is kept; `$XDG_DATA_HOME/gantry` or `~/.local/share/gantry` where absent.
    #[arg(long, value_name = "DIR")]
    pub(crate) data_dir: Option<PathBuf>,

    /// Use this Postgres instead of one of our own in the data directory.
    #[arg(long, env = "GANTRY_DATABASE_URL", hide_env_values = true, value_name = "URL")]
    pub(crate) database_url: Option<String>,

    /// The Docker Engine of this host, `unix:///var/run/docker.sock` where absent.
    #[arg(long, env = "DOCKER_HOST", hide_env_values = true, value_name = "URL")]
    pub(crate) docker_host: Option<String>,

    /// Address of the API.
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:7443")]
    pub(crate) listen: SocketAddr,

    /// One more name or address that other hosts reach the API by; may be given several times. The addresses of this machine are
    /// known where it listens on all of them.
    #[arg(long = "tls-san", value_name = "NAME")]
    pub(crate) tls_sans: Vec<String>,

    /// Address of the agent's metrics.
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:7444")]
    pub(crate) agent_metrics_listen: SocketAddr,

    /// Name of this host's DockerInstance; the host name where absent.
    #[arg(long, value_name = "NAME")]
    pub(crate) instance: Option<String>,
}

/// Options of `gantry token create`.
#[derive(Clone, Debug, Args)]
#[command(after_help = "Example:
  gantry token create -n shop --uses 20 --ttl 2h")]
pub(crate) struct TokenArgs {
    /// How long it can be used, as `90s`, `1h` or `2d`; 30 days at most.
    #[arg(long, default_value = "1h", value_parser = parse_ttl)]
    pub(crate) ttl: SignedDuration,

    /// How many agents may enrol with it.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub(crate) uses: u32,
}

/// Options of `gantry agent install-command`.
#[derive(Clone, Debug, Args)]
#[command(after_help = "Example:
  gantry agent install-command --instance nuc-03 --controller https://gantry.example:7443")]
pub(crate) struct InstallArgs {
    /// Name of its DockerInstance; the host's own name where absent.
    #[arg(long, value_name = "NAME")]
    pub(crate) instance: Option<String>,

    /// How long the command can be used, as `90s`, `1h` or `2d`; 30 days at most.
    #[arg(long, default_value = "1h", value_parser = parse_ttl)]
    pub(crate) ttl: SignedDuration,

    /// Where the host reaches the controller; the address in the kubeconfig where absent.
    #[arg(long, value_name = "URL", value_parser = parse_controller)]
    pub(crate) controller: Option<String>,
}
