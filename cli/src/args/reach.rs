//! Which controller is meant, and in which namespace: the same for every command.

use std::path::PathBuf;

use clap::Args;
use clap_complete::ArgValueCompleter;

use crate::complete;

/// Options that every command takes, before or after its name.
#[derive(Clone, Debug, Default, Args)]
#[command(next_help_heading = "Controller")]
pub(crate) struct Reach {
    /// How to reach the controller; `$KUBECONFIG` where absent, else that of `gantry login` and `gantry dev`.
    #[arg(long, value_name = "FILE", global = true)]
    pub(crate) kubeconfig: Option<PathBuf>,

    /// Another context of the kubeconfig than its current one.
    #[arg(long, value_name = "NAME", global = true, add = ArgValueCompleter::new(complete::contexts))]
    pub(crate) context: Option<String>,

    /// The namespace that is meant; that of the context where absent, else `default`.
    #[arg(long, short, global = true, add = ArgValueCompleter::new(complete::namespaces))]
    pub(crate) namespace: Option<String>,
}
