//! What may be typed to have something done on hosts.

use clap::Args;
use clap_complete::ArgValueCompleter;

use crate::complete;

/// Which containers are meant.
#[derive(Clone, Debug, Default, Args)]
pub(crate) struct TargetArgs {
    /// Containers: NAME or INSTANCE/NAME, or the beginning of an id.
    #[arg(
        value_name = "CONTAINER",
        required_unless_present = "selectors",
        add = ArgValueCompleter::new(complete::containers)
    )]
    pub(crate) targets: Vec<String>,

    /// On this instance; may be given several times. Without it a name must be on one host only.
    #[arg(long = "instance", short, value_name = "NAME", add = ArgValueCompleter::new(complete::instances))]
    pub(crate) instances: Vec<String>,

    /// All containers with these labels too, as `tier=batch`; may be given several times.
    #[arg(long = "selector", short = 'l', value_name = "LABELS")]
    pub(crate) selectors: Vec<String>,
}

/// What is done once it was asked for.
#[derive(Clone, Copy, Debug, Default, Args)]
pub(crate) struct WaitArgs {
    /// Ends as soon as the controller has recorded the wish; prints the Operations.
    #[arg(long)]
    pub(crate) no_wait: bool,
}

/// Options of `gantry start`, `pause` and `unpause`.
#[derive(Clone, Debug, Args)]
#[command(after_help = "Examples:
  gantry start nuc-01/web
  gantry pause -l tier=batch -l tier=report
  gantry unpause nuc-01/web nuc-02/db --no-wait")]
pub(crate) struct PlainArgs {
    #[command(flatten)]
    pub(crate) targets: TargetArgs,

    #[command(flatten)]
    pub(crate) wait: WaitArgs,
}

/// Options of `gantry stop` and `gantry restart`.
#[derive(Clone, Debug, Args)]
#[command(after_help = "Examples:
  gantry stop web
  gantry restart -t 5 nuc-01/web nuc-02/db -l tier=batch
  gantry stop --no-wait $(gantry ps -q -l tier=batch)")]
pub(crate) struct StopArgs {
    #[command(flatten)]
    pub(crate) targets: TargetArgs,

    /// Seconds until Docker kills it; the container's own setting where absent.
    #[arg(long, short, value_name = "SECONDS", value_parser = clap::value_parser!(u32).range(..=86_400))]
    pub(crate) time: Option<u32>,

    #[command(flatten)]
    pub(crate) wait: WaitArgs,
}

/// Options of `gantry kill`.
#[derive(Clone, Debug, Args)]
#[command(after_help = "Examples:
  gantry kill nuc-01/web
  gantry kill --signal HUP -l tier=front")]
pub(crate) struct KillArgs {
    #[command(flatten)]
    pub(crate) targets: TargetArgs,

    /// As `HUP`, `SIGHUP` or `1`; SIGKILL where absent.
    #[arg(long, short)]
    pub(crate) signal: Option<String>,

    #[command(flatten)]
    pub(crate) wait: WaitArgs,
}

/// Options of `gantry rm`.
#[derive(Clone, Debug, Args)]
#[command(after_help = "Examples:
  gantry rm nuc-01/job
  gantry rm -f -v -l com.docker.compose.project=trial")]
pub(crate) struct RemoveArgs {
    #[command(flatten)]
    pub(crate) targets: TargetArgs,

    /// Also running ones.
    #[arg(long, short)]
    pub(crate) force: bool,

    /// Their anonymous volumes too.
    #[arg(long, short)]
    pub(crate) volumes: bool,

    #[command(flatten)]
    pub(crate) wait: WaitArgs,
}

/// On which hosts something is done with images.
#[derive(Clone, Debug, Default, Args)]
#[group(required = true, multiple = false)]
pub(crate) struct HostArgs {
    /// On this instance; may be given several times.
    #[arg(long = "instance", short, value_name = "NAME", add = ArgValueCompleter::new(complete::instances))]
    pub(crate) instances: Vec<String>,

    /// On all instances with these labels, as `site=berlin`.
    #[arg(long, short = 'l', value_name = "LABELS")]
    pub(crate) selector: Option<String>,

    /// On all instances of the namespace.
    #[arg(long)]
    pub(crate) all_hosts: bool,
}

/// Options of `gantry pull`.
#[derive(Clone, Debug, Args)]
#[command(after_help = "Examples:
  gantry pull nginx:1.27 -i nuc-03
  gantry pull registry.example/app:2 redis:7 --all-hosts")]
pub(crate) struct PullArgs {
    /// References, as `nginx:1.27`.
    #[arg(value_name = "IMAGE", required = true)]
    pub(crate) images: Vec<String>,

    #[command(flatten)]
    pub(crate) hosts: HostArgs,

    /// As `linux/arm64`; the host's own where absent.
    #[arg(long)]
    pub(crate) platform: Option<String>,

    #[command(flatten)]
    pub(crate) wait: WaitArgs,
}

/// Options of `gantry rmi`.
#[derive(Clone, Debug, Args)]
#[command(after_help = "Examples:
  gantry rmi demo:1 -i nuc-03
  gantry rmi registry.example/app:1 registry.example/app:2 -l site=berlin")]
pub(crate) struct RemoveImageArgs {
    /// References or ids.
    #[arg(value_name = "IMAGE", required = true, add = ArgValueCompleter::new(complete::images))]
    pub(crate) images: Vec<String>,

    #[command(flatten)]
    pub(crate) hosts: HostArgs,

    /// Also images of stopped containers.
    #[arg(long, short)]
    pub(crate) force: bool,

    #[command(flatten)]
    pub(crate) wait: WaitArgs,
}
