//! What may be typed.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};
use jiff::{SignedDuration, Timestamp};

/// Run Gantry on this machine, enrol Docker hosts, and see who did what.
///
/// Everything else is done with kubectl: `kubectl get gantry`.
#[derive(Debug, Parser)]
#[command(name = "gantry", version)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run a controller, its database and an agent for this host, until Ctrl-C.
    Dev(DevArgs),
    /// Join tokens: what a new agent enrols with.
    #[command(subcommand)]
    Token(TokenCommand),
    /// Agents on other hosts.
    #[command(subcommand)]
    Agent(AgentCommand),
    /// Who did what, where from, and what came of it: the audit log, the newest first.
    Audit(AuditArgs),
}

#[derive(Debug, Subcommand)]
pub(crate) enum TokenCommand {
    /// Make a join token and print it; only its hash is stored.
    Create(TokenArgs),
}

#[derive(Debug, Subcommand)]
pub(crate) enum AgentCommand {
    /// Make a join token and print what to paste on a host.
    InstallCommand(InstallArgs),
}

/// Options of `gantry dev`.
#[derive(Clone, Debug, Args)]
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
pub(crate) struct TokenArgs {
    /// How to reach the controller; `$KUBECONFIG` where absent, else that of `gantry dev`.
    #[arg(long, value_name = "FILE")]
    pub(crate) kubeconfig: Option<PathBuf>,

    /// Namespace the agents will belong to.
    #[arg(long, short, default_value = "default")]
    pub(crate) namespace: String,

    /// How long it can be used, as `90s`, `1h` or `2d`; 30 days at most.
    #[arg(long, default_value = "1h", value_parser = parse_ttl)]
    pub(crate) ttl: SignedDuration,

    /// How many agents may enrol with it.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub(crate) uses: u32,
}

/// Options of `gantry agent install-command`.
#[derive(Clone, Debug, Args)]
pub(crate) struct InstallArgs {
    /// How to reach the controller; `$KUBECONFIG` where absent, else that of `gantry dev`.
    #[arg(long, value_name = "FILE")]
    pub(crate) kubeconfig: Option<PathBuf>,

    /// Namespace the agent will belong to.
    #[arg(long, short, default_value = "default")]
    pub(crate) namespace: String,

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

/// Options of `gantry audit`.
#[derive(Clone, Debug, Args)]
pub(crate) struct AuditArgs {
    /// How to reach the controller; `$KUBECONFIG` where absent, else that of `gantry dev`.
    #[arg(long, value_name = "FILE")]
    pub(crate) kubeconfig: Option<PathBuf>,

    /// Events of this namespace; that of the kubeconfig where absent, else `default`.
    #[arg(long, short)]
    pub(crate) namespace: Option<String>,

    /// Events of all namespaces, and those of none, as of a ClusterRole or a path.
    #[arg(long, short = 'A', conflicts_with = "namespace")]
    pub(crate) all_namespaces: bool,

    /// Only what this user did, or somebody as this user.
    #[arg(long)]
    pub(crate) user: Option<String>,

    /// Only this, as `container_stop` or `secret_get`.
    #[arg(long)]
    pub(crate) action: Option<String>,

    /// Only what was done to objects of this kind, as `operations`.
    #[arg(long)]
    pub(crate) resource_type: Option<String>,

    /// Only what was done to objects of this name.
    #[arg(long)]
    pub(crate) name: Option<String>,

    /// Only what is about this DockerInstance.
    #[arg(long)]
    pub(crate) instance: Option<String>,

    /// Only what ended so.
    #[arg(long, value_parser = ["success", "failure", "denied"])]
    pub(crate) outcome: Option<String>,

    /// Only what was recorded from then on: a time as `2026-06-01T12:00:00Z`, or how long ago, as `36h` or `2d`.
    #[arg(long, value_name = "TIME", value_parser = parse_moment)]
    pub(crate) since: Option<String>,

    /// Only what was recorded before then, as above.
    #[arg(long, value_name = "TIME", value_parser = parse_moment)]
    pub(crate) until: Option<String>,

    /// At most so many.
    #[arg(long, default_value = "500", value_parser = parse_limit)]
    pub(crate) limit: usize,

    /// How they are shown. JSON and YAML are one list, as kubectl's.
    #[arg(long, short, value_enum, default_value_t = Format::Table)]
    pub(crate) output: Format,
}

/// How a list is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// A line for each.
    Table,
    /// A line for each, with more columns.
    Wide,
    /// One document of JSON.
    Json,
    /// One document of YAML.
    Yaml,
}

/// Times and durations are the controller's to read, but it knows no days.
fn parse_moment(text: &str) -> Result<String, String> {
    if let Some(days) = text.strip_suffix('d').and_then(|days| days.parse::<u32>().ok()) {
        return Ok(format!("{}h", u64::from(days) * 24));
    }
    if text.parse::<Timestamp>().is_ok() || text.parse::<SignedDuration>().is_ok() {
        return Ok(text.to_owned());
    }
    Err("it must be a time as `2026-06-01T12:00:00Z`, or how long ago, as `36h` or `2d`".to_owned())
}

/// All of them are held in memory until they are shown.
fn parse_limit(text: &str) -> Result<usize, String> {
    let limit = text.parse().ok().filter(|limit| (1..=100_000).contains(limit));
    limit.ok_or_else(|| "it must be between 1 and 100000".to_owned())
}

fn parse_ttl(text: &str) -> Result<SignedDuration, String> {
    let days = text.strip_suffix('d').and_then(|days| days.trim().parse::<i64>().ok());
    let ttl = match days {
        Some(days) => SignedDuration::from_hours(days.clamp(-1_000, 1_000) * 24),
        None => text.parse().map_err(|_| format!("`{text}` is not a duration as `90s`, `1h` or `2d`"))?,
    };
    if ttl < SignedDuration::from_secs(1) || ttl > SignedDuration::from_hours(30 * 24) {
        return Err("it must be between one second and 30 days".to_owned());
    }
    Ok(ttl)
}

fn parse_controller(text: &str) -> Result<String, String> {
    let is_plain = text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._~:/[]%".contains(&byte));
    if text.starts_with("https://") && text.len() > "https://".len() && is_plain {
        Ok(text.trim_end_matches('/').to_owned())
    } else {
        Err("a controller's URL begins with https:// and has no query".to_owned())
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;
    use insta::assert_snapshot;

    use super::*;

    fn help(path: &[&str]) -> String {
        let mut command = Cli::command().term_width(100);
        command.build();
        let mut found = &mut command;
        for name in path {
            found = found.find_subcommand_mut(name).expect("a command of that name");
        }
        found.render_long_help().to_string()
    }

    #[test]
    fn every_flag_is_explained() {
        assert_snapshot!("help", help(&[]));
        assert_snapshot!("help_dev", help(&["dev"]));
        assert_snapshot!("help_token_create", help(&["token", "create"]));
        assert_snapshot!("help_audit", help(&["audit"]));
        assert_snapshot!("help_agent_install_command", help(&["agent", "install-command"]));
    }

    #[test]
    fn a_life_time_has_a_unit_and_an_end() {
        assert_eq!(parse_ttl("90m"), Ok(SignedDuration::from_mins(90)));
        assert_eq!(parse_ttl("2d"), Ok(SignedDuration::from_hours(48)));
        for wrong in ["", "90", "0s", "-1h", "31d", "99999999999d", "soon"] {
            assert!(parse_ttl(wrong).is_err(), "{wrong} was taken");
        }
    }

    #[test]
    fn a_controller_that_could_break_out_of_the_printed_command_is_refused() {
        assert_eq!(
            parse_controller("https://gantry.example:7443/").as_deref(),
            Ok("https://gantry.example:7443")
        );
        for wrong in
            ["http://gantry.example", "https://", "https://a b", "https://a;reboot", "https://a\"$(x)"]
        {
            assert!(parse_controller(wrong).is_err(), "{wrong} was taken");
        }
    }

    #[test]
    fn what_no_controller_can_answer_is_refused_here() {
        for wrong in [
            ["--since", "yesterday"],
            ["--until", "-"],
            ["--limit", "0"],
            ["--limit", "100001"],
            ["--outcome", "maybe"],
            ["-An", "shop"],
        ] {
            assert!(Cli::try_parse_from(["gantry", "audit"].iter().chain(&wrong)).is_err(), "{wrong:?}");
        }
        assert_eq!(parse_moment("2d").as_deref(), Ok("48h"));
        assert_eq!(parse_moment("90m").as_deref(), Ok("90m"));
        assert_eq!(parse_moment("2026-06-01T12:00:00+02:00").as_deref(), Ok("2026-06-01T12:00:00+02:00"));
    }

    #[test]
    fn a_token_for_nobody_is_refused() {
        assert!(Cli::try_parse_from(["gantry", "token", "create", "--uses", "0"]).is_err());
        assert!(Cli::try_parse_from(["gantry", "token", "create", "--uses", "3", "--ttl", "1h"]).is_ok());
    }
}
