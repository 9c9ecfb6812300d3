//! `gantry images`: images of all hosts.

use anyhow::Context as _;
use gantry_api::names::DOCKER_GROUP;
use gantry_api::v1alpha1::Image;

use super::fleet;
use crate::args::{ImagesArgs, Reach};
use crate::client::Controller;
use crate::clock;
use crate::kinds::Kind;
use crate::output::age::{age, size};
use crate::output::form::{self, Form};
use crate::output::out;
use crate::output::table::table;

/// Prints the images that are meant, a line for each of their names.
pub(crate) async fn run(reach: &Reach, options: &ImagesArgs) -> anyhow::Result<()> {
    let controller = Controller::reach(reach).await?;
    let found = fleet::objects(&controller, "Image", &options.fleet, true).await?;
    if let Some(form) = options.output.output.as_ref().filter(|form| **form != Form::Wide) {
        let kind = Kind::ours(DOCKER_GROUP, "Image");
        let found = found.into_iter().map(|object| (&kind, object)).collect();
        return out::write(&form::objects(form, found, false, options.output.no_headers)?);
    }
    let is_wide = options.output.output.is_some();
    let now = clock::now();
    let mut heading = vec!["INSTANCE", "IMAGE", "ID", "SIZE", "BUILT"];
    if options.fleet.all_namespaces {
        heading.insert(0, "NAMESPACE");
    }
    if is_wide {
        heading.push("DIGESTS");
    }
    let mut rows = Vec::new();
    for image in found {
        let image: Image =
            serde_json::from_value(image).context("the controller answers something else than an image")?;
        let id: String = image.id.trim_start_matches("sha256:").chars().take(12).collect();
        let built = age(image.metadata.creation_timestamp.map(|time| time.0), now);
        let names = if image.tags.is_empty() { vec![String::new()] } else { image.tags };
        for name in names {
            let mut row =
                vec![image.instance.clone(), name, id.clone(), size(image.size_bytes), built.clone()];
            if options.fleet.all_namespaces {
                row.insert(0, image.metadata.namespace.clone().unwrap_or_default());
            }
            if is_wide {
                row.push(image.digests.join(", "));
            }
            rows.push(row);
        }
    }
    out::write(&table(&heading, &rows, options.output.no_headers))
}
