//! What may be typed after `gantry audit`.

use clap::{Args, ValueEnum};
use clap_complete::ArgValueCompleter;

use super::values::{parse_limit, parse_moment};
use crate::complete;

/// Options of `gantry audit`.
#[derive(Clone, Debug, Args)]
#[command(after_help = "Examples:
  gantry audit -A --user ada --outcome denied -o wide")]
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
    #[arg(long)]
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
