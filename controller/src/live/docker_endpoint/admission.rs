//! Where policies judge what a request would do on a host, as they judge Operations.

use gantry_api::engine_api::facts::Facts;
use gantry_api::engine_api::{Request, Right};
use gantry_api::v1alpha1::PolicyAction;
use serde_json::Value;

use super::execs::Made;
use crate::apiserver::ApiServer;
use crate::apiserver::failure::{Failure, Outcome};
use crate::audit::Ticket;
use crate::auth::Caller;
use crate::live::engine::{PATIENCE, Question, told};
use crate::live::{Instance, admission};
use crate::policy::{Container, Image, Mount, Parameters, Subject, Target, TargetKind};

/// The route that starts a command which was made before.
const STARTS: &str = "ExecStart";

/// Judges a request that is allowed by rights, before anything of it has reached the host; 403 names the policy.
///
/// `facts` are there for whatever starts something new: containers, updates, commands, volumes, builds.
pub(super) async fn judge(
    server: &ApiServer,
    (caller, ticket): (&Caller, &Ticket),
    (namespace, instance): (&str, &Instance),
    request: &Request,
    facts: Option<&Facts>,
) -> Outcome<()> {
    let Some((action, kind)) = judged(request) else { return Ok(()) };
    // A command is started by its id alone, by whom ever, and perhaps long after it was made.
    let made = if request.route.id == STARTS {
        match made(server, namespace, instance, request.object()).await? {
            Some(made) => Some(made),
            None => return Ok(()),
        }
    } else {
        None
    };
    let of_command = made.as_ref().map(Made::facts);
    let name = made.as_ref().map_or(request.object(), |made| &made.container).to_owned();
    let facts = facts.or(of_command.as_ref());
    let (what, who, place) = (request.route.action(), (caller, ticket), (namespace, &*instance.name));
    for image in new_images(request) {
        let target = Target { kind, name: name.clone() };
        admission::judge(server, who, place, (&what, action, target), |base| {
            filled(base, request, facts, image)
        })
        .await?;
    }
    Ok(())
}

/// The references that an image gets, each of which is judged; one `None` where it gets none.
fn new_images(request: &Request) -> Vec<Option<String>> {
    let query = |key: &str| request.query(key).filter(|value| !value.is_empty());
    if let Some(repository) = query("repo") {
        return vec![Some(named(repository, query("tag")))];
    }
    let is_tag = |pair: &&(&str, String)| pair.0 == "t" && request.route.id == "ImageBuild";
    let tags: Vec<_> = request.query.iter().filter(is_tag).map(|(_, tag)| Some(tag.clone())).collect();
    if tags.is_empty() { vec![None] } else { tags }
}

/// What a command is and where it runs, of the engine where nothing here knows; `None` where nobody judges it.
async fn made(
    server: &ApiServer,
    namespace: &str,
    instance: &Instance,
    command: &str,
) -> Outcome<Option<Made>> {
    if let Some(made) = server.live().execs().find(instance.uid, command) {
        return Ok(Some(made));
    }
    server.policies().catch_up().await;
    if server.policies().are_none(namespace) {
        return Ok(None);
    }
    let command = told(server, instance, Question::of("ExecInspect", command), PATIENCE).await?;
    let text = |path: &str| command.pointer(path).and_then(Value::as_str).unwrap_or_default().to_owned();
    let container = text("/ContainerID");
    if container.is_empty() {
        return Err(Failure::unavailable("the engine does not say where this command runs"));
    }
    let described = told(server, instance, Question::of("ContainerInspect", &container), PATIENCE).await?;
    let name = described.get("Name").and_then(Value::as_str).unwrap_or_default().trim_start_matches('/');
    let container = if name.is_empty() { container.clone() } else { name.to_owned() };
    let privileged = command.pointer("/ProcessConfig/privileged").and_then(Value::as_bool) == Some(true);
    let has_input = command.get("OpenStdin").and_then(Value::as_bool) == Some(true);
    let user = text("/ProcessConfig/user");
    Ok(Some(Made { container, command: Vec::new(), user, privileged, has_input }))
}

/// As policies call it; `None` of what only reads, and of what goes on with something that was judged, or changes nothing: windows, the end
/// of a build, a password that a registry is asked about.
fn judged(request: &Request) -> Option<(PolicyAction, TargetKind)> {
    let kind = match request.route.path.split('/').nth(1).unwrap_or_default() {
        "images" | "build" | "commit" => TargetKind::Image,
        "networks" => TargetKind::Network,
        "volumes" => TargetKind::Volume,
        _ => TargetKind::Container,
    };
    let action = match (request.route.right, request.route.id) {
        (Right::Exec, "ContainerExec" | STARTS) => PolicyAction::Exec,
        (Right::Attach, "ContainerAttach") => PolicyAction::Attach,
        (Right::Create | Right::Volumes, _) | (Right::Networks, "NetworkCreate") => PolicyAction::Create,
        (Right::Update | Right::Networks, _) => PolicyAction::Update,
        (Right::Start, _) => PolicyAction::Start,
        (Right::Stop, _) => PolicyAction::Stop,
        (Right::Restart, _) => PolicyAction::Restart,
        (Right::Pause, _) => PolicyAction::Pause,
        (Right::Unpause, _) => PolicyAction::Unpause,
        (Right::Kill, _) => PolicyAction::Kill,
        (Right::Remove, _) => PolicyAction::Remove,
        (Right::Rename, _) => PolicyAction::Rename,
        (Right::Pull, "ImagePull") => PolicyAction::Pull,
        (Right::Push, _) => PolicyAction::Push,
        (Right::Build, "ImageBuild") | (Right::Load | Right::Commit, _) => PolicyAction::Build,
        (Right::Tag, _) => PolicyAction::Tag,
        (Right::CopyIn, _) => PolicyAction::CopyIn,
        (
            Right::Read
            | Right::Environment
            | Right::Logs
            | Right::Attach
            | Right::Exec
            | Right::CopyOut
            | Right::Export
            | Right::Pull
            | Right::Build
            | Right::Login,
            _,
        ) => return None,
    };
    Some((action, kind))
}

fn filled(base: Subject, request: &Request, facts: Option<&Facts>, made: Option<String>) -> Subject {
    let query = |key: &str| request.query(key).filter(|value| !value.is_empty());
    let is_set = |key: &str| query(key) == Some("1");
    let image = match request.route.id {
        "ImagePull" => query("fromImage").map(|from| named(from, query("tag"))),
        "ImagePush" => Some(named(request.object(), query("tag"))),
        "ImageTag" | "ImageDelete" => Some(request.object().to_owned()),
        _ => facts.map(|facts| facts.image.clone()).filter(|image| !image.is_empty()),
    };
    let parameters = Parameters {
        force: is_set("force"),
        remove_volumes: is_set("v"),
        signal: query("signal").map(str::to_owned),
        new_name: query("name").filter(|_| base.action == PolicyAction::Rename).map(str::to_owned),
        platform: query("platform").map(str::to_owned),
    };
    Subject {
        image: image.as_deref().map(Image::parse),
        new_image: made.as_deref().map(Image::parse),
        parameters,
        container: facts.filter(|_| base.target.kind != TargetKind::Volume).map(Container::from),
        mounts: facts.into_iter().flat_map(|facts| &facts.mounts).map(Mount::from).collect(),
        ..base
    }
}

/// The reference that an engine makes of both: a tag given beside replaces the one within, a digest within stays.
fn named(name: &str, tag: Option<&str>) -> String {
    let Some(tag) = tag else { return name.to_owned() };
    let (untagged, is_pinned) = match name.split_once('@') {
        Some((name, _)) => (name, true),
        None => (name, false),
    };
    let untagged = match untagged.rsplit_once(':') {
        Some((repository, last)) if !last.contains('/') => repository,
        _ => untagged,
    };
    if tag.contains(':') {
        format!("{untagged}@{tag}")
    } else if is_pinned {
        name.to_owned()
    } else {
        format!("{untagged}:{tag}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_image_is_judged_as_the_engine_would_read_its_two_halves() {
        for (name, tag, expected) in [
            ("nginx", None, "nginx"),
            ("nginx", Some("1.27"), "nginx:1.27"),
            ("nginx:1.25", Some("1.27"), "nginx:1.27"),
            ("registry.example:5000/app", Some("2"), "registry.example:5000/app:2"),
            ("nginx:1.25", Some("sha256:00"), "nginx@sha256:00"),
            ("nginx@sha256:00", Some("1.27"), "nginx@sha256:00"),
            ("nginx:1@sha256:00", Some("sha256:11"), "nginx@sha256:11"),
        ] {
            assert_eq!(named(name, tag), expected);
        }
    }

    #[test]
    fn every_name_that_a_build_gives_is_judged() {
        let made =
            |target: &str| new_images(&gantry_api::engine_api::parse("POST", target, []).expect("known"));
        let some = |name: &str| Some(name.to_owned());

        assert_eq!(made("/build?t=a:1&version=2&t=evil.example/b"), [some("a:1"), some("evil.example/b")]);
        assert_eq!(made("/build?q=1"), [None]);
        assert_eq!(made("/commit?container=c1&repo=a&tag=2"), [some("a:2")]);
        // Seconds to wait.
        assert_eq!(made("/containers/c1/stop?t=5"), [None]);
    }

    #[test]
    fn whatever_changes_something_is_judged_but_what_goes_on_with_what_was() {
        let parse =
            |method: &str, target: &str| gantry_api::engine_api::parse(method, target, []).expect("known");
        for (method, target, expected) in [
            ("GET", "/containers/json", None),
            ("POST", "/containers/create?name=a", Some((PolicyAction::Create, TargetKind::Container))),
            ("POST", "/containers/a/exec", Some((PolicyAction::Exec, TargetKind::Container))),
            ("POST", "/exec/a/start", Some((PolicyAction::Exec, TargetKind::Container))),
            ("POST", "/exec/a/resize?h=1&w=1", None),
            ("PUT", "/containers/a/archive?path=/", Some((PolicyAction::CopyIn, TargetKind::Container))),
            ("GET", "/containers/a/archive?path=/", None),
            ("POST", "/images/create?fromImage=nginx&tag=1", Some((PolicyAction::Pull, TargetKind::Image))),
            ("GET", "/images/search?term=nginx", None),
            ("POST", "/volumes/create", Some((PolicyAction::Create, TargetKind::Volume))),
            ("POST", "/networks/a/connect", Some((PolicyAction::Update, TargetKind::Network))),
            ("POST", "/images/prune", Some((PolicyAction::Remove, TargetKind::Image))),
            ("DELETE", "/containers/a?force=1", Some((PolicyAction::Remove, TargetKind::Container))),
        ] {
            assert_eq!(judged(&parse(method, target)), expected, "{method} {target}");
        }
    }
}
