//! First processes of containers.

use std::sync::Arc;

use axum::response::Response;
use gantry_api::agent_v1::AttachStart;
use gantry_api::v1alpha1::PolicyAction;

use super::Ask;
use super::admission::judge_visit;
use super::exec::nothing;
use super::terminal::{self, Start};
use crate::apiserver::ApiServer;
use crate::apiserver::failure::Outcome;

/// `stdin=true&stdout=true&stderr=true`, as Kubernetes has it. Whether there is a terminal is the container's. `resumable` and `resume` as of
/// exec.
pub(crate) async fn attach(server: &Arc<ApiServer>, ask: Ask) -> Outcome<Response> {
    let params = &ask.call.params;
    if params.is_set("resume") {
        judge_visit(server, &ask, PolicyAction::Attach).await?;
        return terminal::resume(server, ask).await;
    }
    let start = AttachStart {
        container: ask.object.to_string(),
        stdin: params.is_set("stdin"),
        stdout: params.is_set("stdout"),
        stderr: params.is_set("stderr"),
        size: None,
    };
    if !(start.stdin || start.stdout || start.stderr) {
        return Err(nothing());
    }
    judge_visit(server, &ask, PolicyAction::Attach).await?;
    terminal::open(server, ask, Start::Attach(start)).await
}
