//! All that an engine tells of one thing, in its own words; processes of a container, and what takes up the disk.

use std::time::Duration;

use axum::response::Response;
use gantry_api::engine_api::Right;
use http::StatusCode;
use serde_json::Value;

use super::Ask;
use super::engine::{PATIENCE, Question, json};
use super::inventory::Sort;
use crate::apiserver::failure::Outcome;
use crate::apiserver::{ApiServer, answer};

/// An engine walks through every layer and every volume.
const COUNTED_WITHIN: Duration = Duration::from_secs(120);

/// By name, id or the beginning of an id that no other has. An image has its `History` too.
pub(super) async fn one(server: &ApiServer, ask: &Ask, sort: Sort) -> Outcome<Response> {
    let about = |route| Question::of(route, &ask.object);
    let told = match sort {
        Sort::Containers => json(server, ask, about("ContainerInspect"), PATIENCE).await?,
        Sort::Networks => json(server, ask, about("NetworkInspect"), PATIENCE).await?,
        Sort::Volumes => json(server, ask, about("VolumeInspect"), PATIENCE).await?,
        Sort::Images => {
            let mut told = json(server, ask, about("ImageInspect"), PATIENCE).await?;
            // By its id, since its name may be another's by now.
            let id = told.get("Id").and_then(Value::as_str).unwrap_or(&ask.object).to_owned();
            let history = json(server, ask, Question::of("ImageHistory", &id), PATIENCE).await?;
            if let Some(told) = told.as_object_mut() {
                told.insert("History".to_owned(), history);
            }
            told
        }
    };
    answer::json(StatusCode::OK, &told)
}

/// `psArgs` are the arguments of the host's `ps`. They can show environments, so they need that right.
pub(super) async fn top(server: &ApiServer, mut ask: Ask) -> Outcome<Response> {
    let arguments = ask.call.params.get("psArgs").map(str::to_owned);
    if arguments.is_some() {
        let instance = ask.call.target()?;
        ask.standing.require(&ask.call.caller, Right::Environment, &instance)?;
    }
    let question = Question::of("ContainerTop", &ask.object).with("ps_args", arguments);
    answer::json(StatusCode::OK, &json(server, &ask, question, PATIENCE).await?)
}

/// Counted when somebody asks, and never else.
pub(super) async fn disk_usage(server: &ApiServer, ask: &Ask) -> Outcome<Response> {
    let told = json(server, ask, Question::of("SystemDiskUsage", ""), COUNTED_WITHIN).await?;
    answer::json(StatusCode::OK, &told)
}
