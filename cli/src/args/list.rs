//! What may be typed to see what there is.

use clap::Args;
use clap_complete::ArgValueCompleter;

use crate::complete;
use crate::output::form::Form;

/// How objects are shown.
#[derive(Clone, Debug, Default, Args)]
pub(crate) struct OutputArgs {
    /// `wide`, `yaml`, `json`, `name`, `jsonpath=TEMPLATE` or `custom-columns=HEADING:PATH,…`; a table where absent.
    #[arg(long, short, value_name = "FORM", value_parser = Form::parse)]
    pub(crate) output: Option<Form>,

    /// Tables without their first line.
    #[arg(long)]
    pub(crate) no_headers: bool,
}

/// Which of the fleet's objects are meant.
#[derive(Clone, Debug, Default, Args)]
pub(crate) struct FleetArgs {
    /// Only of this instance; may be given several times.
    #[arg(long = "instance", short, value_name = "NAME", add = ArgValueCompleter::new(complete::instances))]
    pub(crate) instances: Vec<String>,

    /// Only with these labels, as `tier=web,!old`.
    #[arg(long, short = 'l', value_name = "LABELS")]
    pub(crate) selector: Option<String>,

    /// Only what Docker's filter lets through, as `status=exited` or `ancestor=nginx`; may be given several times. Each host is asked.
    #[arg(long = "filter", value_name = "NAME=VALUE", value_parser = parse_filter)]
    pub(crate) filters: Vec<(String, String)>,

    /// Of all namespaces.
    #[arg(long, short = 'A', conflicts_with = "namespace")]
    pub(crate) all_namespaces: bool,
}

/// Options of `gantry ls`.
#[derive(Clone, Debug, Args)]
#[command(after_help = "Examples:
  gantry ls -A
  gantry ls -l site=berlin -o wide")]
pub(crate) struct LsArgs {
    /// Only with these labels, as `site=berlin`.
    #[arg(long, short = 'l', value_name = "LABELS")]
    pub(crate) selector: Option<String>,

    /// Of all namespaces.
    #[arg(long, short = 'A', conflicts_with = "namespace")]
    pub(crate) all_namespaces: bool,

    #[command(flatten)]
    pub(crate) output: OutputArgs,
}

/// Options of `gantry ps`.
#[derive(Clone, Debug, Args)]
#[command(after_help = "Examples:
  gantry ps                                    what runs, on every host of the namespace
  gantry ps -a -i nuc-03 -i nuc-04             also what does not, on two hosts
  gantry ps -l com.docker.compose.project=web
  gantry ps -a --filter exited=137
  gantry stop $(gantry ps -q -l tier=batch)")]
pub(crate) struct PsArgs {
    /// Also those that do not run.
    #[arg(long, short)]
    pub(crate) all: bool,

    /// Nothing but INSTANCE/NAME, a line each, as other commands take it.
    #[arg(long, short, conflicts_with = "output")]
    pub(crate) quiet: bool,

    #[command(flatten)]
    pub(crate) fleet: FleetArgs,

    #[command(flatten)]
    pub(crate) output: OutputArgs,
}

/// Options of `gantry images`.
#[derive(Clone, Debug, Args)]
#[command(after_help = "Examples:
  gantry images -i nuc-03
  gantry images -A --filter dangling=true")]
pub(crate) struct ImagesArgs {
    #[command(flatten)]
    pub(crate) fleet: FleetArgs,

    #[command(flatten)]
    pub(crate) output: OutputArgs,
}

/// Options of `gantry get`.
#[derive(Clone, Debug, Args)]
#[command(after_help = "Examples:
  gantry get operations -w
  gantry get operation/stop-web -o yaml
  gantry get containers -A --field-selector state=exited,instance=nuc-03
  gantry get dockerinstances -o custom-columns=NAME:.metadata.name,ENGINE:.status.engine.version
  gantry get secrets -o jsonpath='{.items[*].metadata.name}'")]
pub(crate) struct GetArgs {
    /// `KIND`, `KIND NAME…`, `KIND/NAME…`, or several kinds with commas between; `gantry api-resources` lists them.
    #[arg(required = true, value_name = "WHAT", add = ArgValueCompleter::new(complete::objects))]
    pub(crate) what: Vec<String>,

    /// Only with these labels, as `tier=web,!old`.
    #[arg(long, short = 'l', value_name = "LABELS")]
    pub(crate) selector: Option<String>,

    /// Only with these fields, as `status.phase=Failed`.
    #[arg(long, value_name = "FIELDS")]
    pub(crate) field_selector: Option<String>,

    /// Of all namespaces.
    #[arg(long, short = 'A', conflicts_with = "namespace")]
    pub(crate) all_namespaces: bool,

    /// Goes on with every change, until Ctrl-C.
    #[arg(long, short)]
    pub(crate) watch: bool,

    /// What is not there is no error.
    #[arg(long)]
    pub(crate) ignore_not_found: bool,

    #[command(flatten)]
    pub(crate) output: OutputArgs,
}

/// Options of `gantry api-resources`.
#[derive(Clone, Debug, Args)]
#[command(after_help = "Examples:
  gantry api-resources
  gantry api-resources --api-group docker.gantry.dev")]
pub(crate) struct ApiResourcesArgs {
    /// Only of this group, as `gantry.dev`.
    #[arg(long, value_name = "GROUP")]
    pub(crate) api_group: Option<String>,

    /// The table without its first line.
    #[arg(long)]
    pub(crate) no_headers: bool,
}

fn parse_filter(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').ok_or("it must be NAME=VALUE, as `status=exited`")?;
    Ok((name.to_owned(), value.to_owned()))
}
