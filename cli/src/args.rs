//! What may be typed: one file for each subject, the options that every command takes in `reach`.

mod act;
mod audit;
mod dev;
mod list;
mod live;
mod login;
mod objects;
mod reach;
mod sessions;
mod values;

use std::ffi::OsStr;

use clap::{CommandFactory as _, FromArgMatches as _, Parser, Subcommand};

pub(crate) use act::{
    HostArgs, KillArgs, PlainArgs, PullArgs, RemoveArgs, RemoveImageArgs, StopArgs, TargetArgs, WaitArgs,
};
pub(crate) use audit::{AuditArgs, AuditCommand, Format, VerifyArgs};
pub(crate) use dev::{DevArgs, InstallArgs, TokenArgs};
pub(crate) use list::{ApiResourcesArgs, FleetArgs, GetArgs, ImagesArgs, LsArgs, PsArgs};
pub(crate) use live::{
    AttachArgs, CpArgs, DockerArgs, DockerContextArgs, ExecArgs, InspectArgs, LogsArgs, Order, StatsArgs,
    TopArgs, TopOf,
};
pub(crate) use login::{AuthTokenArgs, LoginArgs};
pub(crate) use objects::{
    ApplyArgs, ArchiveArgs, AuthCommand, CanIArgs, CompletionArgs, ContextCommand, DeleteArgs, DescribeArgs,
    DiffArgs, EditArgs, EventsArgs, ExplainArgs, FilesArgs, ManPagesArgs, Shell, WaitForArgs,
};
pub(crate) use reach::Reach;
pub(crate) use sessions::{ExportArgs, PlayArgs, SessionsArgs, SessionsCommand};

/// What is printed below the help of `gantry` itself.
const AFTER_HELP: &str = "\
Examples:
  gantry dev                                 a control plane and this host, in one terminal
  gantry ls                                  the hosts, and how they are
  gantry ps -l com.docker.compose.project=web
  gantry get operations -w

Exit codes: 0 done, 1 refused or failed, 2 not understood, 3 the controller or the host cannot be reached, 4 not allowed, \
5 not found, 6 not so in time; of what runs elsewhere, its own.

NO_COLOR: where it is set nothing is coloured.";

/// Docker hosts and their containers, of a whole fleet.
///
/// Speaks to a Gantry controller, which kubectl can do too: everything here is an object of its API.
#[derive(Debug, Parser)]
#[command(name = "gantry", version, after_help = AFTER_HELP)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) reach: Reach,

    #[command(subcommand)]
    pub(crate) command: Command,
}

/// As what kubectl finds this program for `kubectl gantry`.
const PLUGIN: &str = "kubectl-gantry";

/// All that may be typed.
pub(crate) fn command() -> clap::Command {
    Cli::command()
}

/// What was typed. Help, and what makes no sense, ends the process.
pub(crate) fn parse(program: &OsStr) -> Cli {
    let command = if program == PLUGIN { as_plugin(command()) } else { command() };
    Cli::from_arg_matches(&command.get_matches()).unwrap_or_else(|error| error.exit())
}

/// The same for those who type `kubectl gantry`: in usage and in examples.
fn as_plugin(command: clap::Command) -> clap::Command {
    fn examples(command: clap::Command) -> clap::Command {
        let text = command.get_after_help().map(|text| {
            let text = text.to_string().replace("gantry ", "kubectl gantry ");
            text.replace("kubectl kubectl ", "kubectl ")
        });
        let command = match text {
            Some(text) => command.after_help(text),
            None => command,
        };
        command.mut_subcommands(examples)
    }
    examples(command).bin_name("kubectl gantry")
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run a controller, its database and an agent for this host, until Ctrl-C.
    Dev(DevArgs),
    /// Hosts: how they are, their versions, and how many containers they have.
    Ls(LsArgs),
    /// Containers of all hosts.
    Ps(PsArgs),
    /// Images of all hosts.
    Images(ImagesArgs),
    /// Start containers.
    Start(PlainArgs),
    /// Stop containers.
    Stop(StopArgs),
    /// Stop and start containers.
    Restart(StopArgs),
    /// Freeze the processes of containers.
    Pause(PlainArgs),
    /// Thaw them.
    Unpause(PlainArgs),
    /// Send a signal to containers.
    Kill(KillArgs),
    /// Remove containers.
    Rm(RemoveArgs),
    /// Fetch images on hosts.
    Pull(PullArgs),
    /// Remove images from hosts.
    Rmi(RemoveImageArgs),
    /// What containers write.
    Logs(LogsArgs),
    /// Run a command in a container.
    Exec(ExecArgs),
    /// Join a container's first process.
    Attach(AttachArgs),
    /// What containers use.
    Stats(StatsArgs),
    /// Which hosts, or which containers, use most.
    Top(TopArgs),
    /// Copy files into containers and out of them.
    Cp(CpArgs),
    /// Everything a host knows of containers.
    Inspect(InspectArgs),
    /// The real docker, against a host.
    Docker(DockerArgs),
    /// A context of docker for a host, until Ctrl-C.
    DockerContext(DockerContextArgs),
    /// Objects of the API, as kubectl shows them.
    Get(GetArgs),
    /// One object for reading, and what was said of it.
    Describe(DescribeArgs),
    /// The fields of a kind, and what they are for.
    Explain(ExplainArgs),
    /// What was said of objects in the last hour.
    Events(EventsArgs),
    /// Change an object in your editor.
    Edit(EditArgs),
    /// Make objects as manifests say they are to be.
    Apply(ApplyArgs),
    /// What applying manifests would change.
    Diff(DiffArgs),
    /// Delete objects.
    Delete(DeleteArgs),
    /// Wait until something is so.
    Wait(WaitForArgs),
    /// The kinds of objects there are.
    ApiResources(ApiResourcesArgs),
    /// Sign in to a controller.
    Login(LoginArgs),
    /// What may I do, and who am I.
    #[command(subcommand)]
    Auth(AuthCommand),
    /// The contexts of the kubeconfig.
    #[command(subcommand)]
    Context(ContextCommand),
    /// Take hosts out of service.
    Archive(ArchiveArgs),
    /// Put hosts back into service.
    Unarchive(ArchiveArgs),
    /// A script for a shell that completes what is typed.
    Completion(CompletionArgs),
    /// Write the manual, a page a command.
    #[command(hide = true)]
    ManPages(ManPagesArgs),
    /// Join tokens: what a new agent enrols with.
    #[command(subcommand)]
    Token(TokenCommand),
    /// Agents on other hosts.
    #[command(subcommand)]
    Agent(AgentCommand),
    /// Who did what, where from, and what came of it: the audit log.
    #[command(subcommand)]
    Audit(AuditCommand),
    /// Terminals that were recorded.
    #[command(subcommand)]
    Sessions(SessionsCommand),
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

#[cfg(test)]
mod tests {
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
        assert_snapshot!("help_ps", help(&["ps"]));
        assert_snapshot!("help_stop", help(&["stop"]));
        assert_snapshot!("help_pull", help(&["pull"]));
        assert_snapshot!("help_logs", help(&["logs"]));
        assert_snapshot!("help_exec", help(&["exec"]));
        assert_snapshot!("help_apply", help(&["apply"]));
        assert_snapshot!("help_wait", help(&["wait"]));
        assert_snapshot!("help_get", help(&["get"]));
        assert_snapshot!("help_audit_ls", help(&["audit", "ls"]));
        assert_snapshot!("help_login", help(&["login"]));
        assert_snapshot!("help_cp", help(&["cp"]));
        assert_snapshot!("help_top", help(&["top"]));
        assert_snapshot!("help_edit", help(&["edit"]));
        assert_snapshot!("help_explain", help(&["explain"]));
        assert_snapshot!("help_sessions_play", help(&["sessions", "play"]));
        assert_snapshot!("help_agent_install_command", help(&["agent", "install-command"]));
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
            assert!(
                Cli::try_parse_from(["gantry", "audit", "ls"].iter().chain(&wrong)).is_err(),
                "{wrong:?}"
            );
        }
    }

    /// Every command that does something itself, with what is typed for it.
    fn commands() -> Vec<(String, clap::Command)> {
        let mut open = vec![("gantry".to_owned(), command())];
        let mut found = Vec::new();
        while let Some((path, command)) = open.pop() {
            let inner: Vec<_> = command.get_subcommands().cloned().collect();
            if inner.is_empty() {
                found.push((path, command));
            } else {
                open.extend(inner.into_iter().map(|inner| (format!("{path} {}", inner.get_name()), inner)));
            }
        }
        found
    }

    #[test]
    fn every_command_shows_an_example() {
        for (path, command) in commands() {
            let text = command.get_after_help().map(ToString::to_string).unwrap_or_default();
            assert!(text.starts_with("Example") && text.contains(&path), "{path}: {text:?}");
        }
    }

    #[test]
    fn every_example_is_understood() {
        let mut number = 0;
        for (path, command) in commands() {
            let text = command.get_after_help().map(ToString::to_string).unwrap_or_default();
            for line in text.lines().filter_map(|line| line.strip_prefix("  gantry ")) {
                // What a shell makes of a line, and what stands beside it.
                let line = line.split("   ").next().unwrap_or_default();
                if line.contains(['|', '$', '>', '\'', '…', '{']) {
                    continue;
                }
                number += 1;
                let words = std::iter::once("gantry").chain(line.split_whitespace());
                let read = Cli::try_parse_from(words);
                assert!(
                    read.is_ok(),
                    "{path}: {line}: {}",
                    read.err().map(|error| error.to_string()).unwrap_or_default()
                );
            }
        }
        assert!(number > 80, "only {number}");
    }

    #[test]
    fn kubectl_s_plugin_is_typed_as_kubectl_has_it() {
        let mut plugin = as_plugin(command());
        plugin.build();
        let help = plugin.find_subcommand_mut("stop").expect("it is there").render_long_help().to_string();

        assert!(help.contains("Usage: kubectl gantry stop "), "{help}");
        assert!(help.contains("\n  kubectl gantry stop web\n"), "{help}");
        assert!(!help.contains("kubectl kubectl"), "{help}");
    }

    #[test]
    fn what_may_be_typed_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn where_is_said_before_or_after_the_command() {
        for line in [["-n", "shop", "ps"], ["ps", "-n", "shop"]] {
            let cli = Cli::try_parse_from(["gantry"].iter().chain(&line)).expect("it is understood");
            assert_eq!(cli.reach.namespace.as_deref(), Some("shop"), "{line:?}");
        }
        assert!(Cli::try_parse_from(["gantry", "ps", "-n", "shop", "-A"]).is_err());
    }

    #[test]
    fn a_token_for_nobody_is_refused() {
        assert!(Cli::try_parse_from(["gantry", "token", "create", "--uses", "0"]).is_err());
        assert!(Cli::try_parse_from(["gantry", "token", "create", "--uses", "3", "--ttl", "1h"]).is_ok());
    }
}
