//! `gantry inspect`: everything that a host knows of a container.

use gantry_api::names::GROUP;
use http::Request;
use serde_json::Value;

use super::targets::{self, Target};
use crate::args::{InspectArgs, Reach};
use crate::client::{Controller, encoded};
use crate::kinds::Kind;
use crate::output::form::json_text;
use crate::output::out;

/// Prints a list of what Docker says, as `docker inspect` does.
pub(crate) async fn run(reach: &Reach, options: &InspectArgs) -> anyhow::Result<()> {
    let controller = Controller::reach(reach).await?;
    let mut found = Vec::new();
    for target in targets::containers(&controller, &options.targets).await? {
        found.push(container(&controller, &target).await?);
    }
    out::write(&json_text(&Value::Array(found))?)
}

/// One container in Docker's own words.
pub(crate) async fn container(controller: &Controller, target: &Target) -> anyhow::Result<Value> {
    let path = format!("{}/containers/{}/json", docker(controller, &target.instance), encoded(&target.name));
    controller.read(Request::get(path).body(Vec::new())?, &target.shown()).await
}

/// Where the Docker Engine API of a host is.
pub(crate) fn docker(controller: &Controller, instance: &str) -> String {
    let instances = Kind::ours(GROUP, "DockerInstance").path(Some(&controller.namespace));
    format!("{instances}/{}/docker", encoded(instance))
}
