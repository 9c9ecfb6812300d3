//! What may be typed after `gantry sessions`.

use clap::{Args, Subcommand};
use clap_complete::ArgValueCompleter;

use super::list::OutputArgs;
use crate::complete;

/// What is done with recorded terminals.
#[derive(Clone, Debug, Subcommand)]
pub(crate) enum SessionsCommand {
    /// Terminals that were recorded, the newest first.
    Ls(SessionsArgs),
    /// What was shown in one, as it was shown.
    Play(PlayArgs),
    /// A recording as an asciicast, for `asciinema play` and other programs.
    Export(ExportArgs),
}

/// Options of `gantry sessions ls`.
#[derive(Clone, Debug, Args)]
#[command(after_help = "Example:
  gantry sessions ls -A --user ada")]
pub(crate) struct SessionsArgs {
    /// Of all namespaces.
    #[arg(long, short = 'A', conflicts_with = "namespace")]
    pub(crate) all_namespaces: bool,

    /// Only of this user.
    #[arg(long)]
    pub(crate) user: Option<String>,

    /// Only on this DockerInstance.
    #[arg(long, short, add = ArgValueCompleter::new(complete::instances))]
    pub(crate) instance: Option<String>,

    #[command(flatten)]
    pub(crate) output: OutputArgs,
}

/// Options of `gantry sessions play`.
#[derive(Clone, Debug, Args)]
#[command(after_help = "Examples:
  gantry sessions play 46e610df-5143-433d-91dc-2f6be9e170e5
  gantry sessions play --speed 4 --idle-limit 1 46e610df-5143-433d-91dc-2f6be9e170e5")]
pub(crate) struct PlayArgs {
    /// Its id.
    #[arg(value_name = "SESSION")]
    pub(crate) session: String,

    /// So many times as fast.
    #[arg(long, default_value_t = 1.0, value_parser = parse_speed)]
    pub(crate) speed: f64,

    /// Where nothing was shown for longer, so many seconds.
    #[arg(long, value_name = "SECONDS", default_value_t = 2.0, value_parser = parse_seconds)]
    pub(crate) idle_limit: f64,
}

/// Options of `gantry sessions export`.
#[derive(Clone, Debug, Args)]
#[command(after_help = "Example:
  gantry sessions export 46e610df-5143-433d-91dc-2f6be9e170e5 > web.cast")]
pub(crate) struct ExportArgs {
    /// Its id.
    #[arg(value_name = "SESSION")]
    pub(crate) session: String,
}

fn parse_speed(text: &str) -> Result<f64, String> {
    let speed = text.parse::<f64>().ok().filter(|speed| (0.01..=1_000.0).contains(speed));
    speed.ok_or_else(|| "it must be a number from 0.01 to 1000, as `2` or `0.5`".to_owned())
}

fn parse_seconds(text: &str) -> Result<f64, String> {
    let seconds = text.parse::<f64>().ok().filter(|seconds| (0.0..=86_400.0).contains(seconds));
    seconds.ok_or_else(|| "it must be a number of seconds, a day at most, as `0.5`".to_owned())
}
