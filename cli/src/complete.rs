//! Completion of what is typed, with names that the controller has now.
//!
//! The shell runs this program for it; what cannot be found out within two seconds is not completed, and nothing is said of it.

use std::ffi::{OsStr, OsString};
use std::path::Path;
use std::sync::OnceLock;
use std::time::Duration;

use clap::{ArgMatches, FromArgMatches as _};
use clap_complete::CompleteEnv;
use clap_complete::engine::{CompletionCandidate, complete};
use gantry_api::v1alpha1::{Container, Image};
use serde_json::Value;

use crate::args::{self, FleetArgs, Reach};
use crate::client::Controller;
use crate::commands::fleet;
use crate::context;
use crate::kinds::{self, Kind};

/// What asks for a completion, in the scripts that `gantry completion` prints.
pub(crate) const VARIABLE: &str = "_GANTRY_COMPLETE";
/// kubectl runs a program of this name to complete `kubectl gantry …`.
const FOR_KUBECTL: &str = "kubectl_complete-gantry";
/// A person waits.
const PATIENCE: Duration = Duration::from_secs(2);
/// More than anybody looks through.
const MOST: usize = 500;

/// What was typed before the word that is completed, beginning with the program; and that word.
static TYPED: OnceLock<(Vec<OsString>, OsString)> = OnceLock::new();

/// Answers a shell, or kubectl. False where nobody asks for a completion.
pub(crate) fn answered(program: &OsStr) -> bool {
    let is_for_kubectl = program == FOR_KUBECTL;
    if !is_for_kubectl && std::env::var_os(VARIABLE).is_none() {
        return false;
    }
    // Set once, before anything of TLS; where that fails nothing is completed.
    let _ = rustls::crypto::ring::default_provider().install_default();
    if is_for_kubectl {
        return for_kubectl();
    }
    let words: Vec<_> = std::env::args_os().skip_while(|word| word != "--").skip(1).collect();
    let at = std::env::var("_CLAP_COMPLETE_INDEX").ok().and_then(|at| at.parse().ok());
    note(&words, at.unwrap_or_else(|| words.len().saturating_sub(1)));
    let asked = CompleteEnv::with_factory(command).var(VARIABLE);
    asked.try_complete(std::env::args_os(), std::env::current_dir().ok().as_deref()).unwrap_or(true)
}

fn note(words: &[OsString], at: usize) {
    // Set once, by the one completion of this process.
    let _ =
        TYPED.set((words.get(..at).unwrap_or(words).to_vec(), words.get(at).cloned().unwrap_or_default()));
}

/// All that may be typed; flags only once a dash was typed, or where there is nothing else.
fn command() -> clap::Command {
    fn without_flags(command: clap::Command) -> clap::Command {
        let hidden = |arg: clap::Arg| if arg.is_positional() { arg } else { arg.hide(true) };
        command.disable_help_flag(true).mut_args(hidden).mut_subcommands(without_flags)
    }
    match TYPED.get() {
        Some((_, word)) if word.is_empty() => without_flags(args::command()),
        _ => args::command(),
    }
}

/// As kubectl reads it of its own commands: a line each, a tab before what it is, and at the end that these are no files.
fn for_kubectl() -> bool {
    let words: Vec<_> =
        std::iter::once(OsString::from("gantry")).chain(std::env::args_os().skip(1)).collect();
    let at = words.len().saturating_sub(1);
    note(&words, at);
    let mut command = command();
    let found = complete(&mut command, words, at, std::env::current_dir().ok().as_deref());
    for one in found.unwrap_or_default() {
        let help = one.get_help().map(|help| format!("\t{help}")).unwrap_or_default();
        println!("{}{}", one.get_value().display(), help.lines().next().unwrap_or_default());
    }
    println!(":4");
    true
}

/// Which controller is meant so far, and the words of the command that are not options.
struct Typed {
    reach: Reach,
    matches: ArgMatches,
}

impl Typed {
    fn read() -> Option<Self> {
        let words = TYPED.get()?.0.clone();
        let matches = args::command().ignore_errors(true).try_get_matches_from(words).ok()?;
        let mut inner = &matches;
        while let Some((_, next)) = inner.subcommand() {
            inner = next;
        }
        let inner = inner.clone();
        Some(Self { reach: Reach::from_arg_matches(&inner).unwrap_or_default(), matches: inner })
    }

    fn all(&self, id: &str) -> Vec<String> {
        let found = self.matches.try_get_many::<String>(id).ok().flatten();
        found.into_iter().flatten().cloned().collect()
    }
}

/// Asks the controller, for as long as a person waits.
fn ask<F>(found: impl FnOnce(Controller, Typed) -> F) -> Vec<String>
where
    F: Future<Output = anyhow::Result<Vec<String>>>,
{
    let asked = || {
        let typed = Typed::read()?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().ok()?;
        let answer = async {
            let controller = Controller::reach(&typed.reach).await?;
            found(controller, typed).await
        };
        runtime.block_on(async { tokio::time::timeout(PATIENCE, answer).await }).ok()?.ok()
    };
    asked().unwrap_or_default()
}

fn beginning_with(current: &OsStr, all: impl IntoIterator<Item = String>) -> Vec<CompletionCandidate> {
    let current = current.to_string_lossy();
    let is_plain = |name: &String| name.starts_with(&*current) && !name.chars().any(char::is_control);
    all.into_iter().filter(is_plain).take(MOST).map(CompletionCandidate::new).collect()
}

/// Names of contexts of the kubeconfig.
pub(crate) fn contexts(current: &OsStr) -> Vec<CompletionCandidate> {
    let reach = Typed::read().map(|typed| typed.reach).unwrap_or_default();
    let found = context::kubeconfig(reach.kubeconfig.as_deref());
    let names = found.map(|found| found.contexts.into_iter().map(|one| one.name).collect::<Vec<_>>());
    beginning_with(current, names.unwrap_or_default())
}

/// Names of namespaces.
pub(crate) fn namespaces(current: &OsStr) -> Vec<CompletionCandidate> {
    let kind = Kind { version: "v1".to_owned(), is_namespaced: false, ..Kind::ours("", "Namespace") };
    let found = ask(async |controller, _| names_of(&controller, &kind).await);
    beginning_with(current, found)
}

/// Names of hosts.
pub(crate) fn instances(current: &OsStr) -> Vec<CompletionCandidate> {
    let kind = Kind::ours(gantry_api::names::GROUP, "DockerInstance");
    let found = ask(async |controller, _| names_of(&controller, &kind).await);
    beginning_with(current, found)
}

/// Containers: by name where that is enough, and by host and name.
pub(crate) fn containers(current: &OsStr) -> Vec<CompletionCandidate> {
    let found = ask(async |controller, typed| {
        let instances: Vec<_> = [typed.all("instances"), typed.all("instance")].concat();
        let fleet = FleetArgs { instances, ..FleetArgs::default() };
        let found = fleet::objects(&controller, "Container", &fleet, true).await?;
        let found: Vec<Container> =
            found.into_iter().filter_map(|item| serde_json::from_value(item).ok()).collect();
        Ok(called(&found, !fleet.instances.is_empty()))
    });
    beginning_with(current, found)
}

fn called(containers: &[Container], host_is_said: bool) -> Vec<String> {
    let mut names: Vec<_> = containers.iter().map(|one| one.container_name.clone()).collect();
    names.sort_unstable();
    let mut all: Vec<String> = if host_is_said {
        names.dedup();
        return names;
    } else {
        let is_alone = |name: &&String| names.iter().filter(|other| other == name).count() == 1;
        names.iter().filter(is_alone).cloned().collect()
    };
    all.extend(containers.iter().map(|one| format!("{}/{}", one.instance, one.container_name)));
    all
}

/// Tags of images that some host has.
pub(crate) fn images(current: &OsStr) -> Vec<CompletionCandidate> {
    let found = ask(async |controller, typed| {
        let fleet = FleetArgs { instances: typed.all("instances"), ..FleetArgs::default() };
        let found = fleet::objects(&controller, "Image", &fleet, true).await?;
        let found = found.into_iter().filter_map(|item| serde_json::from_value::<Image>(item).ok());
        let mut tags: Vec<_> = found.flat_map(|image| image.tags).collect();
        tags.sort_unstable();
        tags.dedup();
        Ok(tags)
    });
    beginning_with(current, found)
}

/// A path here, or a container, behind which a path of it is typed.
pub(crate) fn ends(current: &OsStr) -> Vec<CompletionCandidate> {
    let text = current.to_string_lossy();
    if text.starts_with(['.', '/', '-']) || text.contains(':') {
        return Vec::new();
    }
    let found = containers(current);
    found.into_iter().map(|one| CompletionCandidate::new(format!("{}:", one.get_value().display()))).collect()
}

/// A kind, `KIND/NAME`, or names behind a kind.
pub(crate) fn objects(current: &OsStr) -> Vec<CompletionCandidate> {
    let text = current.to_string_lossy().into_owned();
    let found = ask(async |controller, typed| {
        let before = typed.all("what");
        let kinds = kinds::known(&controller, |kinds| !kinds.is_empty()).await?;
        if let Some((word, _)) = text.split_once('/') {
            let kind = kinds::find(&kinds, word)?.into_iter().next().cloned().unwrap_or_default();
            let names = names_of(&controller, &kind).await?;
            return Ok(names.into_iter().map(|name| format!("{word}/{name}")).collect());
        }
        match before.first().filter(|word| !word.contains('/')) {
            Some(word) => {
                let kind = kinds::find(&kinds, word)?.into_iter().next().cloned().unwrap_or_default();
                let names = names_of(&controller, &kind).await?;
                Ok(names.into_iter().filter(|name| !before.contains(name)).collect())
            }
            None => Ok(words_of(&kinds)),
        }
    });
    beginning_with(current, found)
}

/// A kind.
pub(crate) fn kinds(current: &OsStr) -> Vec<CompletionCandidate> {
    let found =
        ask(async |controller, _| Ok(words_of(&kinds::known(&controller, |kinds| !kinds.is_empty()).await?)));
    beginning_with(current, found)
}

/// The plural; with its group where another kind has the same.
fn words_of(kinds: &[Kind]) -> Vec<String> {
    let can_be_listed = kinds.iter().filter(|kind| kind.verbs.iter().any(|verb| verb == "list"));
    let mut words: Vec<String> = Vec::new();
    for kind in can_be_listed {
        let is_taken = words.contains(&kind.plural);
        words.push(if is_taken { format!("{}.{}", kind.plural, kind.group) } else { kind.plural.clone() });
    }
    words
}

async fn names_of(controller: &Controller, kind: &Kind) -> anyhow::Result<Vec<String>> {
    let path = kind.path(Some(&controller.namespace));
    let items = fleet::list(controller, &path, &[], "they cannot be listed").await?;
    let name = |item: &Value| item.pointer("/metadata/name").and_then(Value::as_str).map(str::to_owned);
    Ok(items.iter().filter_map(name).collect())
}

/// The last part of what this process was started as.
pub(crate) fn program() -> OsString {
    let started = std::env::args_os().next().unwrap_or_default();
    Path::new(&started).file_name().unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_container_is_called_by_its_name_where_that_is_enough() {
        let container = |instance: &str, name: &str| Container {
            instance: instance.to_owned(),
            container_name: name.to_owned(),
            ..Container::default()
        };
        let found = [container("nuc-01", "web"), container("nuc-01", "db"), container("nuc-02", "web")];

        assert_eq!(called(&found, false), ["db", "nuc-01/web", "nuc-01/db", "nuc-02/web"]);
        assert_eq!(called(&found, true), ["db", "web"]);
    }

    #[test]
    fn t16_a_name_that_a_terminal_would_obey_is_not_offered() {
        let names = ["web".to_owned(), "we\u{1b}[2J".to_owned(), "db".to_owned()];

        let offered = beginning_with(OsStr::new("w"), names);

        assert_eq!(offered.iter().map(CompletionCandidate::get_value).collect::<Vec<_>>(), ["web"]);
    }

    #[test]
    fn kinds_of_the_same_name_are_told_apart() {
        let kind = |group: &str| Kind { verbs: vec!["list".to_owned()], ..Kind::ours(group, "Event") };

        assert_eq!(
            words_of(&[kind(""), kind("events.k8s.io"), Kind::ours("", "Review")]),
            ["events", "events.events.k8s.io"]
        );
    }
}
