//! What may be typed after `gantry audit`.

use clap::{Args, Subcommand, ValueEnum};
use clap_complete::ArgValueCompleter;

use super::values::{parse_limit, parse_moment};
use crate::complete;

/// What is done with the audit log.
#[derive(Clone, Debug, Subcommand)]
pub(crate) enum AuditCommand {
    /// What was recorded, the newest first.
    Ls(AuditArgs),
    /// Is every event what was recorded? Asks the database itself: a controller could say anything.
    Verify(VerifyArgs),
}

/// Options of `gantry audit verify`.
#[derive(Clone, Debug, Args)]
#[command(after_help = "Examples:
  GANTRY_DATABASE_URL=postgres://… gantry audit verify
  gantry audit verify --known-head 4711:1f3a…

Goes through the whole chain of events with `gantry-controller audit verify`, also while controllers run, and ends with 1 at the \
first that was changed, removed, moved or added. Prints where the chain ends: write it down elsewhere, and give it next time.")]
pub(crate) struct VerifyArgs {
    /// The Postgres of the controller. Better in the environment: others can read the arguments of a process.
    #[arg(long, env = "GANTRY_DATABASE_URL", hide_env_values = true, value_name = "URL")]
    pub(crate) database_url: String,

    /// What an earlier run printed: fails unless the chain still leads through it.
    #[arg(long, value_name = "BATCH:HASH")]
    pub(crate) known_head: Option<String>,
}

/// Options of `gantry audit ls`.
#[derive(Clone, Debug, Args)]
#[command(after_help = "Examples:
  gantry audit ls --instance nuc-03 --since 2d
  gantry audit ls -A --user ada --outcome denied -o wide
  gantry audit ls -A --action container_exec --since 2026-06-01T00:00:00Z --until 2026-07-01T00:00:00Z -o json")]
pub(crate) struct AuditArgs {
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
    #[arg(long = "resource", alias = "resource-type", value_name = "RESOURCE")]
    pub(crate) resource_type: Option<String>,

    /// Only what was done to objects of this name.
    #[arg(long)]
    pub(crate) name: Option<String>,

    /// Only what is about this DockerInstance.
    #[arg(long, add = ArgValueCompleter::new(complete::instances))]
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
