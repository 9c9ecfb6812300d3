//! Commands in containers.

use std::sync::Arc;

use axum::response::Response;
use gantry_api::agent_v1::ExecStart;
use gantry_api::v1alpha1::PolicyAction;

use super::Ask;
use super::admission::judge_visit;
use super::terminal::{self, Start};
use crate::apiserver::ApiServer;
use crate::apiserver::failure::{Failure, Outcome};

/// `command=…&stdin=true&stdout=true&stderr=true&tty=true`, as Kubernetes has it. Without a command it is a shell. Whoever wants to come
/// back when the connection breaks says `resumable=true`, and then `resume=true` alone.
pub(crate) async fn exec(server: &Arc<ApiServer>, ask: Ask) -> Outcome<Response> {
    let params = &ask.call.params;
    if params.is_set("resume") {
        judge_visit(server, &ask, PolicyAction::Exec).await?;
        return terminal::resume(server, ask).await;
    }
    let start = ExecStart {
        container: ask.object.to_string(),
        command: params.all("command").map(str::to_owned).collect(),
        tty: params.is_set("tty"),
        stdin: params.is_set("stdin"),
        stdout: params.is_set("stdout"),
        stderr: params.is_set("stderr"),
        size: None,
    };
    if !(start.stdin || start.stdout || start.stderr) {
        return Err(nothing());
    }
    judge_visit(server, &ask, PolicyAction::Exec).await?;
    terminal::open(server, ask, Start::Exec(start)).await
}

pub(super) fn nothing() -> Failure {
    Failure::bad_request("you must specify at least 1 of stdin, stdout, stderr")
}
