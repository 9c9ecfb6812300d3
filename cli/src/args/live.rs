//! What may be typed to look into containers.

use clap::{Args, ValueEnum, ValueHint};
use clap_complete::ArgValueCompleter;

use super::act::TargetArgs;
use super::values::{parse_moment, parse_tail};
use crate::complete;

/// Options of `gantry logs`.
#[derive(Clone, Debug, Args)]
#[command(after_help = "Examples:
  gantry logs web --tail 20
  gantry logs -f nuc-01/web nuc-02/web
  gantry logs -f -l com.docker.compose.project=shop --since 10m")]
pub(crate) struct LogsArgs {
    #[command(flatten)]
    pub(crate) targets: TargetArgs,

    /// Goes on with what is written, also over restarts, until the container has stopped.
    #[arg(long, short)]
    pub(crate) follow: bool,

    /// Lines of history, 10000 at most; 100 where absent, with --since as many as there are.
    #[arg(long, value_name = "LINES", value_parser = parse_tail)]
    pub(crate) tail: Option<u32>,

    /// From when: a time as `2026-06-01T12:00:00Z`, or how long ago, as `10m` or `2d`.
    #[arg(long, value_name = "TIME", value_parser = parse_moment)]
    pub(crate) since: Option<String>,

    /// Until when, as above.
    #[arg(long, value_name = "TIME", value_parser = parse_moment)]
    pub(crate) until: Option<String>,

    /// Each line with its time in front.
    #[arg(long, short)]
    pub(crate) timestamps: bool,

    /// Lines as they are, also of several containers.
    #[arg(long)]
    pub(crate) no_prefix: bool,
}

/// Options of `gantry exec`.
#[derive(Clone, Debug, Args)]
#[command(after_help = "Examples:
  gantry exec -it web                 a shell, whichever there is
  gantry exec nuc-01/web -- cat /etc/hosts
  tar c site | gantry exec -i web -- tar x -C /srv

The exit code is the command's. With a terminal Ctrl-P Ctrl-Q leaves it and lets the command go on.")]
pub(crate) struct ExecArgs {
    /// Passes standard input on.
    #[arg(long, short)]
    pub(crate) interactive: bool,

    /// With a terminal.
    #[arg(long, short)]
    pub(crate) tty: bool,

    #[command(flatten)]
    pub(crate) keys: KeysArgs,

    /// The instance, where it is not said with the container.
    #[arg(long, value_name = "NAME", add = ArgValueCompleter::new(complete::instances))]
    pub(crate) instance: Option<String>,

    /// NAME or INSTANCE/NAME, or the beginning of an id.
    #[arg(add = ArgValueCompleter::new(complete::containers))]
    pub(crate) container: String,

    /// The command; bash or else sh where absent.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    pub(crate) command: Vec<String>,
}

/// Options of `gantry attach`.
#[derive(Clone, Debug, Args)]
#[command(after_help = "Examples:
  gantry attach nuc-01/shell
  gantry attach --no-stdin --detach-keys ctrl-x,q nuc-01/shell

Ctrl-P Ctrl-Q leaves a container that has a terminal; it goes on.")]
pub(crate) struct AttachArgs {
    /// Does not pass standard input on.
    #[arg(long)]
    pub(crate) no_stdin: bool,

    #[command(flatten)]
    pub(crate) keys: KeysArgs,

    /// The instance, where it is not said with the container.
    #[arg(long, value_name = "NAME", add = ArgValueCompleter::new(complete::instances))]
    pub(crate) instance: Option<String>,

    /// NAME or INSTANCE/NAME, or the beginning of an id.
    #[arg(add = ArgValueCompleter::new(complete::containers))]
    pub(crate) container: String,
}

/// How a terminal is left.
#[derive(Clone, Debug, Args)]
pub(crate) struct KeysArgs {
    /// Keys that leave, with commas between, as `ctrl-x,q`; an empty text for none.
    #[arg(long, value_name = "KEYS", default_value = "ctrl-p,ctrl-q", value_parser = crate::terminal::Keys::parse)]
    pub(crate) detach_keys: crate::terminal::Keys,
}

/// Options of `gantry stats`.
#[derive(Clone, Debug, Args)]
#[command(after_help = "Examples:
  gantry stats                                all that run, on every host of the namespace
  gantry stats -l tier=front
  gantry stats --no-stream nuc-01/web

On a terminal the table is painted anew every second; elsewhere each sample is a line.")]
pub(crate) struct StatsArgs {
    /// Containers: NAME or INSTANCE/NAME; all that run where there is none.
    #[arg(
        value_name = "CONTAINER",
        conflicts_with = "selector",
        add = ArgValueCompleter::new(complete::containers)
    )]
    pub(crate) targets: Vec<String>,

    /// On this instance; may be given several times.
    #[arg(long = "instance", short, value_name = "NAME", add = ArgValueCompleter::new(complete::instances))]
    pub(crate) instances: Vec<String>,

    /// All running containers with these labels.
    #[arg(long, short = 'l', value_name = "LABELS")]
    pub(crate) selector: Option<String>,

    /// Once, and not until Ctrl-C.
    #[arg(long)]
    pub(crate) no_stream: bool,
}

/// Options of `gantry top`.
#[derive(Clone, Debug, Args)]
#[command(after_help = "Examples:
  gantry top                                  hosts, by what their containers use
  gantry top -l site=berlin --sort-by memory
  gantry top containers -l tier=front

CPUS are how many are busy, CPU and MEMORY% how much that is of what the host has, and of a container of what it may have.")]
pub(crate) struct TopArgs {
    /// Hosts, or containers.
    #[arg(value_enum, default_value_t = TopOf::Instances)]
    pub(crate) of: TopOf,

    /// On this instance; may be given several times.
    #[arg(long = "instance", short, value_name = "NAME", add = ArgValueCompleter::new(complete::instances))]
    pub(crate) instances: Vec<String>,

    /// Only with these labels: of hosts where hosts are shown, else of containers.
    #[arg(long, short = 'l', value_name = "LABELS")]
    pub(crate) selector: Option<String>,

    /// Of all namespaces.
    #[arg(long, short = 'A', conflicts_with = "namespace")]
    pub(crate) all_namespaces: bool,

    /// Who uses most of this comes first.
    #[arg(long, value_enum, default_value_t = Order::Cpu)]
    pub(crate) sort_by: Order,

    /// The table without its first line.
    #[arg(long)]
    pub(crate) no_headers: bool,
}

/// What `gantry top` shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum TopOf {
    /// Hosts, with what their running containers use together.
    #[value(alias = "instance", alias = "di", alias = "nodes")]
    Instances,
    /// Containers that run.
    #[value(alias = "container", alias = "ctr", alias = "pods")]
    Containers,
}

/// What is sorted by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Order {
    Cpu,
    Memory,
}

/// Options of `gantry cp`.
#[derive(Clone, Debug, Args)]
#[command(after_help = "Examples:
  gantry cp nuc-01/web:/etc/nginx/nginx.conf .
  gantry cp site/. web:/srv                   what is in site, and not site itself
  gantry cp -i nuc-01 web:/var/log - | tar t

Where things come to be follows docker cp: into a directory that is there, else under that name. What is copied in is root's, what \
is copied out is yours. Only where nothing else is of that name is a directory made; files are replaced.")]
pub(crate) struct CpArgs {
    /// `CONTAINER:PATH`, `INSTANCE/CONTAINER:PATH`, a path here, or `-` for an archive on standard input.
    #[arg(value_name = "FROM", value_hint = ValueHint::AnyPath, add = ArgValueCompleter::new(complete::ends))]
    pub(crate) from: String,

    /// The same, with `-` for an archive on standard output.
    #[arg(value_name = "TO", value_hint = ValueHint::AnyPath, add = ArgValueCompleter::new(complete::ends))]
    pub(crate) to: String,

    /// What a link at FROM leads to, and not the link.
    #[arg(long, short = 'L')]
    pub(crate) follow_link: bool,

    /// The instance, where it is not said with the container.
    #[arg(long, short, value_name = "NAME", add = ArgValueCompleter::new(complete::instances))]
    pub(crate) instance: Option<String>,
}

/// Options of `gantry inspect`.
#[derive(Clone, Debug, Args)]
#[command(after_help = "Examples:
  gantry inspect nuc-01/web
  gantry inspect -l tier=front | jq '.[].State.Status'")]
pub(crate) struct InspectArgs {
    #[command(flatten)]
    pub(crate) targets: TargetArgs,
}

/// Options of `gantry docker`.
#[derive(Clone, Debug, Args)]
#[command(after_help = "Examples:
  gantry docker nuc-03 -- run --rm alpine date
  gantry docker nuc-03 -- build -t app .
  gantry docker nuc-03 -- cp web:/etc/hosts .

The exit code is docker's. The rules of docs/docker-endpoint.md hold: rights, policies, and the audit log.")]
pub(crate) struct DockerArgs {
    /// The host.
    #[arg(add = ArgValueCompleter::new(complete::instances))]
    pub(crate) instance: String,

    /// What docker is given.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, required = true)]
    pub(crate) arguments: Vec<String>,
}

/// Options of `gantry docker-context`.
#[derive(Clone, Debug, Args)]
#[command(after_help = "Examples:
  gantry docker-context nuc-03               in another terminal: docker --context nuc-03 ps
  gantry docker-context nuc-03 --name bar")]
pub(crate) struct DockerContextArgs {
    /// The host.
    #[arg(add = ArgValueCompleter::new(complete::instances))]
    pub(crate) instance: String,

    /// Name of the context; the instance's where absent.
    #[arg(long, value_name = "NAME")]
    pub(crate) name: Option<String>,
}
