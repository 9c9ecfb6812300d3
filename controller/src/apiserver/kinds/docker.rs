//! The kinds of what is on the hosts: read, and nothing else.

use gantry_api::names::{DOCKER_GROUP, VERSION};
use gantry_api::v1alpha1::{Container, Image, Network, Volume};

use super::{Column, Kind, Shows, column, named, wide};

pub(super) fn kinds() -> [Kind; 4] {
    let every = |column: Column| Column { shows: Shows::All, ..column };
    let stale = || wide("Stale Since", "date", ".staleSince", "How long its host cannot be heard.");
    let containers = vec![
        column("Instance", "string", ".instance", "The Docker host."),
        column("Image", "string", ".image", "As it was asked for."),
        column("State", "string", ".state", "As Docker names it."),
        column("Health", "string", ".health", "Of its health check."),
        column("Since", "date", ".since", "About how long it is in this state."),
        column("Age", "date", ".metadata.creationTimestamp", "Time since creation."),
        every(wide("Ports", "string", ".ports[*].publicPort", "Published on the host.")),
        wide("Project", "string", ".project", "The Compose project it belongs to."),
        wide("Exit Code", "integer", ".exitCode", "Of its last run."),
        stale(),
        wide("Id", "string", ".id", "Docker's own."),
    ];
    let images = vec![
        column("Instance", "string", ".instance", "The Docker host."),
        every(column("Tags", "string", ".tags[*]", "Its references.")),
        column("Size", "integer", ".sizeBytes", "Bytes on the host."),
        column("Age", "date", ".metadata.creationTimestamp", "Time since it was built."),
        stale(),
        wide("Id", "string", ".id", "Docker's own."),
    ];
    let networks = vec![
        column("Instance", "string", ".instance", "The Docker host."),
        column("Network", "string", ".networkName", "Its name on the host."),
        column("Driver", "string", ".driver", "As bridge or overlay."),
        column("Scope", "string", ".scope", "local, global or swarm."),
        column("Age", "date", ".metadata.creationTimestamp", "Time since creation."),
        every(wide("Subnets", "string", ".subnets[*]", "Its addresses.")),
        stale(),
        wide("Id", "string", ".id", "Docker's own."),
    ];
    let volumes = vec![
        column("Instance", "string", ".instance", "The Docker host."),
        column("Driver", "string", ".driver", "As local."),
        column("Scope", "string", ".scope", "local or global."),
        column("Age", "date", ".metadata.creationTimestamp", "Time since creation."),
        wide("Mountpoint", "string", ".mountpoint", "On the host."),
        stale(),
    ];
    let live = |kind: Kind, short: &[&str]| Kind {
        version: VERSION.to_owned(),
        short_names: short.iter().map(|name| (*name).to_owned()).collect(),
        allows_unconditional_update: false,
        is_live: true,
        ..kind
    };
    let of_containers = ["instance", "state", "image", "health", "project"];
    [
        live(
            named::<Container>(DOCKER_GROUP, "Container", "containers", &[], containers, &of_containers),
            &["ctr"],
        ),
        live(named::<Image>(DOCKER_GROUP, "Image", "images", &[], images, &["instance", "image"]), &["img"]),
        live(
            named::<Network>(DOCKER_GROUP, "Network", "networks", &[], networks, &["instance", "driver"]),
            &[],
        ),
        live(named::<Volume>(DOCKER_GROUP, "Volume", "volumes", &[], volumes, &["instance", "driver"]), &[]),
    ]
}
