//! `gantry archive` and `unarchive`: a host out of service, and back.

use gantry_api::names::{GROUP, TOOL_MANAGER};
use http::Request;
use http::header::CONTENT_TYPE;
use serde_json::{Value, json};

use crate::args::{ArchiveArgs, Reach};
use crate::client::{Controller, encoded};
use crate::kinds::Kind;
use crate::output::out;
use crate::output::plain::plain;

/// Says of each host that it is, or is no more, in service.
pub(crate) async fn run(reach: &Reach, options: &ArchiveArgs, archived: bool) -> anyhow::Result<()> {
    let controller = Controller::reach(reach).await?;
    let path = Kind::ours(GROUP, "DockerInstance").path(Some(&controller.namespace));
    for instance in &options.instances {
        let request = Request::patch(format!("{path}/{}?fieldManager={TOOL_MANAGER}", encoded(instance)))
            .header(CONTENT_TYPE, "application/merge-patch+json")
            .body(json!({"spec": {"archived": archived}}).to_string().into_bytes())?;
        controller.read::<Value>(request, &plain(instance)).await?;
        let now = if archived { "archived" } else { "in service" };
        out::write(&format!("{}: {now}\n", plain(instance)))?;
    }
    Ok(())
}
