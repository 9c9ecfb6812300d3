//! `gantry start`, `stop`, `rm`, `pull`, …: a wish becomes one Operation a target, which are followed to their ends.

mod follow;
mod layers;
mod progress;

use std::collections::BTreeMap;
use std::process::ExitCode;

use futures::{StreamExt as _, stream};
use gantry_api::names::TOOL_MANAGER;
use gantry_api::v1alpha1::{
    Action, Operation, OperationSpec, Parameters, Precondition, TargetKind, TargetReference,
};
use kube::api::{Api, PostParams};

use super::targets::{self, Target};
use crate::args::{
    HostArgs, KillArgs, PlainArgs, PullArgs, Reach, RemoveArgs, RemoveImageArgs, StopArgs, TargetArgs,
    WaitArgs,
};
use crate::client::Controller;
use crate::clock;
use crate::output::failure::render;
use crate::output::out;
use follow::Followed;

/// Label of the Operations that one command made together.
pub(crate) const BATCH_LABEL: &str = "gantry.dev/batch";
/// Operations created at once.
const AT_ONCE: usize = 16;

/// Start, pause or thaw.
pub(crate) async fn plain(reach: &Reach, action: Action, options: &PlainArgs) -> anyhow::Result<ExitCode> {
    on_containers(reach, action, &options.targets, Parameters::default(), options.wait).await
}

/// Stop or restart.
pub(crate) async fn stop(reach: &Reach, action: Action, options: &StopArgs) -> anyhow::Result<ExitCode> {
    let parameters = Parameters { timeout_seconds: options.time, ..Parameters::default() };
    on_containers(reach, action, &options.targets, parameters, options.wait).await
}

/// Send a signal.
pub(crate) async fn kill(reach: &Reach, options: &KillArgs) -> anyhow::Result<ExitCode> {
    let signal = options.signal.as_ref().map(|signal| signal.to_uppercase());
    let parameters = Parameters { signal, ..Parameters::default() };
    on_containers(reach, Action::Kill, &options.targets, parameters, options.wait).await
}

/// Remove containers.
pub(crate) async fn remove(reach: &Reach, options: &RemoveArgs) -> anyhow::Result<ExitCode> {
    let parameters = Parameters {
        force: Some(true).filter(|_| options.force),
        remove_volumes: Some(true).filter(|_| options.volumes),
        ..Parameters::default()
    };
    on_containers(reach, Action::Remove, &options.targets, parameters, options.wait).await
}

/// Fetch images.
pub(crate) async fn pull(reach: &Reach, options: &PullArgs) -> anyhow::Result<ExitCode> {
    let parameters = Parameters { platform: options.platform.clone(), ..Parameters::default() };
    on_images(reach, Action::Pull, &options.images, &options.hosts, parameters, options.wait).await
}

/// Remove images.
pub(crate) async fn remove_images(reach: &Reach, options: &RemoveImageArgs) -> anyhow::Result<ExitCode> {
    let parameters = Parameters { force: Some(true).filter(|_| options.force), ..Parameters::default() };
    on_images(reach, Action::Remove, &options.images, &options.hosts, parameters, options.wait).await
}

async fn on_containers(
    reach: &Reach,
    action: Action,
    meant: &TargetArgs,
    parameters: Parameters,
    wait: WaitArgs,
) -> anyhow::Result<ExitCode> {
    let controller = Controller::reach(reach).await?;
    let targets = targets::containers(&controller, meant).await?;
    run(&controller, action, TargetKind::Container, targets, parameters, wait).await
}

async fn on_images(
    reach: &Reach,
    action: Action,
    images: &[String],
    hosts: &HostArgs,
    parameters: Parameters,
    wait: WaitArgs,
) -> anyhow::Result<ExitCode> {
    let controller = Controller::reach(reach).await?;
    let hosts = targets::hosts(&controller, hosts).await?;
    let on = |host: &String| images.iter().map(|image| Target::named(host, image)).collect::<Vec<_>>();
    let targets = hosts.iter().flat_map(on).collect();
    run(&controller, action, TargetKind::Image, targets, parameters, wait).await
}

/// Records every wish, and follows what was recorded.
async fn run(
    controller: &Controller,
    action: Action,
    kind: TargetKind,
    targets: Vec<Target>,
    parameters: Parameters,
    wait: WaitArgs,
) -> anyhow::Result<ExitCode> {
    let batch = characters(clock::random::<10>());
    let api: Api<Operation> = Api::namespaced(controller.client.clone(), &controller.namespace);
    let params = PostParams { field_manager: Some(TOOL_MANAGER.to_owned()), ..PostParams::default() };
    let parameters = Some(parameters).filter(|parameters| *parameters != Parameters::default());
    let create = |target: Target| {
        let (api, params) = (&api, &params);
        let operation = operation(action, kind, &target, parameters.clone(), &batch, clock::random::<5>());
        async move {
            let created = api.create(params, &operation).await;
            let name = operation.metadata.name.unwrap_or_default();
            (target.shown(), name, created.map_err(|error| controller.explain(error, &target.shown())))
        }
    };
    let only_one = targets.len() == 1;
    let (mut followed, mut refused) = (Vec::new(), 0);
    let mut answers = stream::iter(targets).map(create).buffered(AT_ONCE);
    while let Some((shown, name, answer)) = answers.next().await {
        match answer {
            Ok(_) if wait.no_wait => out::write(&format!("operation.gantry.dev/{name} created\n"))?,
            Ok(_) => followed.push(Followed { name, shown }),
            Err(error) if only_one => return Err(error),
            Err(error) => {
                eprint!("{}", render(&error));
                refused += 1;
            }
        }
    }
    if wait.no_wait {
        return Ok(if refused == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE });
    }
    follow::to_the_end(controller, action, &batch, followed, refused).await
}

fn operation(
    action: Action,
    kind: TargetKind,
    target: &Target,
    parameters: Option<Parameters>,
    batch: &str,
    random: [u8; 5],
) -> Operation {
    let reference = TargetReference { kind, name: target.name.clone() };
    let mut spec = OperationSpec::new(&target.instance, action, reference);
    spec.parameters = parameters;
    spec.precondition = target.id.clone().map(|id| Precondition { id: Some(id), ..Precondition::default() });
    let name = format!("{}-{}-{}", action.subresource(), label(&target.name), characters(random));
    let mut operation = Operation::new(&name, spec);
    operation.metadata.labels = Some(BTreeMap::from([(BATCH_LABEL.to_owned(), batch.to_owned())]));
    operation
}

/// What can stand in an object's name of what Docker calls something.
fn label(name: &str) -> String {
    let name = name.rsplit('/').next().unwrap_or_default().split('@').next().unwrap_or_default();
    let plain: String = name
        .chars()
        .map(|letter| if letter.is_ascii_alphanumeric() { letter.to_ascii_lowercase() } else { '-' })
        .take(40)
        .collect();
    let plain = plain.trim_matches('-');
    if plain.is_empty() { "it".to_owned() } else { plain.to_owned() }
}

/// Letters and digits that are not mistaken for each other; 256 is a multiple of 32, so each is equally likely.
fn characters<const N: usize>(random: [u8; N]) -> String {
    let letters: Vec<char> = "abcdefghijkmnpqrstuvwxyz23456789".chars().collect();
    random.iter().filter_map(|byte| letters.get(usize::from(*byte) % 32)).collect()
}

#[cfg(test)]
mod tests {
    use insta::assert_yaml_snapshot;

    use super::*;

    #[test]
    fn a_wish_names_its_target_and_what_that_is_now() {
        let target = Target { id: Some("0123".to_owned()), ..Target::named("nuc-01", "Web_1") };
        let parameters = Parameters { timeout_seconds: Some(5), ..Parameters::default() };
        let made = operation(
            Action::Stop,
            TargetKind::Container,
            &target,
            Some(parameters),
            "batch",
            [0, 31, 1, 2, 3],
        );

        let value = serde_json::to_value(&made).expect("JSON");
        assert_yaml_snapshot!([&value["metadata"], &value["spec"]["target"], &value["spec"]["precondition"], &value["spec"]["parameters"]], @r#"
        - labels:
            gantry.dev/batch: batch
          name: stop-web-1-a9bcd
        - kind: Container
          name: Web_1
        - id: "0123"
        - timeoutSeconds: 5
        "#);
    }

    #[test]
    fn what_docker_calls_a_thing_becomes_part_of_a_name() {
        assert_eq!(label("registry.example:5000/team/App:2.1@sha256:00"), "app-2-1");
        assert_eq!(label("__"), "it");
        assert!(label(&"x-".repeat(100)).len() <= 40);
        assert_eq!(characters([0, 31, 32, 255]), "a9a9");
    }
}
