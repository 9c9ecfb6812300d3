//! What may be typed to change objects, and to know of them.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};
use clap_complete::ArgValueCompleter;
use jiff::SignedDuration;

use super::list::OutputArgs;
use super::login::AuthTokenArgs;
use super::values::parse_duration;
use crate::complete;

/// Which manifests are meant.
#[derive(Clone, Debug, Default, Args)]
pub(crate) struct FilesArgs {
    /// A file of YAML or JSON, a directory of such files, an https URL, or `-` for standard input; may be given several times.
    #[arg(long = "filename", short = 'f', value_name = "FILE", required = true)]
    pub(crate) files: Vec<PathBuf>,

    /// Also directories in directories.
    #[arg(long, short = 'R')]
    pub(crate) recursive: bool,
}

/// Options of `gantry apply`.
#[derive(Clone, Debug, Args)]
#[command(after_help = "Examples:
  gantry apply -f fleet/ -R
  gantry apply -f policy.yaml --dry-run
  gantry apply -f https://example.com/fleet.yaml
  some-generator | gantry apply -f -
  gantry apply -f fleet/ -R --prune -l fleet=berlin --dry-run

--prune deletes what an earlier apply with the same labels has made and is in no manifest any more: objects of Gantry's kinds but \
Operations, in the namespaces of the manifests and the one that is meant, with the labels of -l, that were applied in the name of \
--field-manager and belong to no other object. Nothing is deleted where a manifest was refused.")]
pub(crate) struct ApplyArgs {
    #[command(flatten)]
    pub(crate) files: FilesArgs,

    /// Everything but the change: what would be refused is refused.
    #[arg(long, value_name = "WHERE", num_args = 0..=1, default_missing_value = "server", value_parser = ["server"])]
    pub(crate) dry_run: Option<String>,

    /// Takes over fields that somebody else has set otherwise.
    #[arg(long)]
    pub(crate) force_conflicts: bool,

    /// In whose name fields are set.
    #[arg(long, value_name = "NAME", default_value = gantry_api::names::TOOL_MANAGER)]
    pub(crate) field_manager: String,

    /// Deletes what was applied before with the labels of -l, and is in no manifest any more.
    #[arg(long, requires = "selector")]
    pub(crate) prune: bool,

    /// Labels that all manifests have, as `fleet=berlin`, and by which what is pruned is found.
    #[arg(long, short = 'l', value_name = "LABELS", requires = "prune")]
    pub(crate) selector: Option<String>,

    /// Prunes this kind, and no other that is not named so too; may be given several times.
    #[arg(long, value_name = "KIND", requires = "prune")]
    pub(crate) prune_allowlist: Vec<String>,
}

/// Options of `gantry diff`.
#[derive(Clone, Debug, Args)]
#[command(after_help = "Examples:
  gantry diff -f fleet/ -R
  gantry diff -f https://example.com/fleet.yaml

Ends with 0 where nothing would change, with 1 where something would, and with 2 or more for an error.")]
pub(crate) struct DiffArgs {
    #[command(flatten)]
    pub(crate) files: FilesArgs,

    /// As if fields that somebody else has set otherwise were taken over.
    #[arg(long)]
    pub(crate) force_conflicts: bool,

    /// In whose name fields would be set.
    #[arg(long, value_name = "NAME", default_value = gantry_api::names::TOOL_MANAGER)]
    pub(crate) field_manager: String,
}

/// Objects that are there.
#[derive(Clone, Debug, Default, Args)]
pub(crate) struct ObjectsArgs {
    /// `KIND NAME…`, `KIND/NAME…`, or a kind with -l.
    #[arg(value_name = "WHAT", required = true, add = ArgValueCompleter::new(complete::objects))]
    pub(crate) what: Vec<String>,

    /// All of that kind with these labels.
    #[arg(long, short = 'l', value_name = "LABELS")]
    pub(crate) selector: Option<String>,
}

/// Options of `gantry delete`.
#[derive(Clone, Debug, Args)]
#[command(after_help = "Examples:
  gantry delete operation stop-web
  gantry delete policy/no-root policy/no-latest
  gantry delete -f fleet/")]
pub(crate) struct DeleteArgs {
    /// `KIND NAME…`, `KIND/NAME…`, or a kind with -l or --all.
    #[arg(
        value_name = "WHAT",
        required_unless_present = "files",
        conflicts_with = "files",
        add = ArgValueCompleter::new(complete::objects)
    )]
    pub(crate) what: Vec<String>,

    /// What a file of YAML or JSON, a directory of such files, an https URL, or `-` for standard input names.
    #[arg(long = "filename", short = 'f', value_name = "FILE")]
    pub(crate) files: Vec<PathBuf>,

    /// Also directories in directories.
    #[arg(long, short = 'R', requires = "files")]
    pub(crate) recursive: bool,

    /// All of that kind with these labels.
    #[arg(long, short = 'l', value_name = "LABELS", conflicts_with = "files")]
    pub(crate) selector: Option<String>,

    /// All of that kind in the namespace.
    #[arg(long, conflicts_with_all = ["files", "selector"])]
    pub(crate) all: bool,

    /// Ends before they are gone: an Operation, for one, stays until its agent has answered.
    #[arg(long)]
    pub(crate) no_wait: bool,

    /// What is not there is no error.
    #[arg(long)]
    pub(crate) ignore_not_found: bool,
}

/// Options of `gantry wait`.
#[derive(Clone, Debug, Args)]
#[command(after_help = "Examples:
  gantry wait operation/stop-web --for condition=Complete
  gantry wait dockerinstance nuc-03 --for jsonpath='{.status.health}'=Online --timeout 5m
  gantry wait operations -l gantry.dev/batch=abc --for delete")]
pub(crate) struct WaitForArgs {
    #[command(flatten)]
    pub(crate) objects: ObjectsArgs,

    /// `condition=NAME`, `condition=NAME=STATUS`, `jsonpath=TEMPLATE=VALUE`, `create` or `delete`.
    #[arg(long = "for", value_name = "WHAT")]
    pub(crate) until: String,

    /// How long, as `90s` or `5m`.
    #[arg(long, default_value = "30s", value_parser = parse_duration)]
    pub(crate) timeout: SignedDuration,
}

/// Options of `gantry edit`.
#[derive(Clone, Debug, Args)]
#[command(after_help = "Examples:
  gantry edit dockerinstance nuc-03
  EDITOR='code --wait' gantry edit policy/no-root

The editor is $KUBE_EDITOR, $VISUAL or $EDITOR, else vi. What the controller refuses is put back into the file, with its reason. \
What others have changed meanwhile stays, unless it is the same field: then the newest is shown once more.")]
pub(crate) struct EditArgs {
    #[command(flatten)]
    pub(crate) objects: ObjectsArgs,
}

/// Options of `gantry explain`.
#[derive(Clone, Debug, Args)]
#[command(after_help = "Examples:
  gantry explain operations
  gantry explain dockerinstance.spec.healthCheck
  gantry explain operation.status --recursive
  gantry explain events --api-version events.k8s.io/v1")]
pub(crate) struct ExplainArgs {
    /// `KIND`, or `KIND.FIELD…`.
    #[arg(value_name = "WHAT", add = ArgValueCompleter::new(complete::kinds))]
    pub(crate) what: String,

    /// Names and types of all fields, however deep.
    #[arg(long)]
    pub(crate) recursive: bool,

    /// Of this group and version, as `gantry.dev/v1alpha1`.
    #[arg(long, value_name = "VERSION")]
    pub(crate) api_version: Option<String>,
}

/// Options of `gantry describe`.
#[derive(Clone, Debug, Args)]
#[command(after_help = "Examples:
  gantry describe dockerinstance nuc-03
  gantry describe operations -l gantry.dev/batch=abc")]
pub(crate) struct DescribeArgs {
    #[command(flatten)]
    pub(crate) objects: ObjectsArgs,
}

/// Options of `gantry events`.
#[derive(Clone, Debug, Args)]
#[command(after_help = "Examples:
  gantry events --for operation/stop-web
  gantry events -A --types Warning -w")]
pub(crate) struct EventsArgs {
    /// Only of this object, as `operation/stop-web`.
    #[arg(long = "for", value_name = "KIND/NAME")]
    pub(crate) about: Option<String>,

    /// Only of these types.
    #[arg(long, value_name = "TYPE", value_parser = ["Normal", "Warning"])]
    pub(crate) types: Option<String>,

    /// Of all namespaces.
    #[arg(long, short = 'A', conflicts_with = "namespace")]
    pub(crate) all_namespaces: bool,

    /// Goes on with every change, until Ctrl-C.
    #[arg(long, short)]
    pub(crate) watch: bool,

    #[command(flatten)]
    pub(crate) output: OutputArgs,
}

#[derive(Debug, Subcommand)]
pub(crate) enum AuthCommand {
    /// May I do this? Ends with 1 where not.
    CanI(CanIArgs),
    /// Who the controller takes me for.
    #[command(after_help = "Example:
  gantry auth whoami --context elsewhere")]
    Whoami,
    /// A token of who has signed in with `gantry login`, as kubectl takes it from a plugin.
    Token(AuthTokenArgs),
}

/// Options of `gantry auth can-i`.
#[derive(Clone, Debug, Args)]
#[command(after_help = "Examples:
  gantry auth can-i --list
  gantry auth can-i create operations --subresource stop
  gantry auth can-i delete dockerinstance/nuc-03 -n shop")]
pub(crate) struct CanIArgs {
    /// As `get` or `create`.
    #[arg(required_unless_present = "list")]
    pub(crate) verb: Option<String>,

    /// `KIND` or `KIND/NAME`.
    #[arg(value_name = "WHAT", required_unless_present = "list")]
    pub(crate) what: Option<String>,

    /// The part of it that is meant, as `stop` of operations.
    #[arg(long, value_name = "NAME")]
    pub(crate) subresource: Option<String>,

    /// In all namespaces.
    #[arg(long, short = 'A', conflicts_with = "namespace")]
    pub(crate) all_namespaces: bool,

    /// Everything I may in the namespace.
    #[arg(long, conflicts_with_all = ["verb", "what"])]
    pub(crate) list: bool,
}

#[derive(Debug, Subcommand)]
pub(crate) enum ContextCommand {
    /// The contexts of the kubeconfig.
    #[command(after_help = "Example:
  gantry context ls")]
    Ls,
    /// Make another context the current one.
    #[command(after_help = "Example:
  gantry context use gantry.example")]
    Use {
        /// Its name.
        #[arg(add = ArgValueCompleter::new(complete::contexts))]
        name: String,
    },
}

/// Options of `gantry archive` and `unarchive`.
#[derive(Clone, Debug, Args)]
#[command(after_help = "Examples:
  gantry archive nuc-03 nuc-04
  gantry unarchive nuc-03")]
pub(crate) struct ArchiveArgs {
    /// The hosts.
    #[arg(value_name = "INSTANCE", required = true, add = ArgValueCompleter::new(complete::instances))]
    pub(crate) instances: Vec<String>,
}

/// Options of `gantry completion`.
#[derive(Clone, Debug, Args)]
#[command(after_help = "Examples:
  gantry completion bash > /etc/bash_completion.d/gantry
  source <(gantry completion zsh)
  gantry completion fish > ~/.config/fish/completions/gantry.fish

Names are asked of the controller that is meant. For `kubectl gantry` links called kubectl-gantry and kubectl_complete-gantry to \
this program on the PATH do the same.")]
pub(crate) struct CompletionArgs {
    /// The shell.
    pub(crate) shell: Shell,
}

/// Shells that completions can be written for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Shell {
    Bash,
    Zsh,
    Fish,
}

/// Options of `gantry man-pages`.
#[derive(Clone, Debug, Args)]
#[command(after_help = "Example:
  gantry man-pages /usr/local/share/man/man1")]
pub(crate) struct ManPagesArgs {
    /// Where they are written.
    pub(crate) dir: PathBuf,
}
