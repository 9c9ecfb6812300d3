//! Questions of ours to an engine, in the grammar of its own API and by the way of the Docker endpoint.

use std::time::Duration;

use futures::StreamExt as _;
use gantry_api::engine_api::Request;
use serde_json::Value;
use tokio::sync::mpsc;
use tokio::time::timeout;

use super::{Ask, Instance, docker_endpoint};
use crate::apiserver::ApiServer;
use crate::apiserver::failure::{Failure, Outcome};
use crate::gateway::link::Exchange;

/// How long an engine may take to answer.
pub(super) const PATIENCE: Duration = Duration::from_secs(30);
/// Longest answer, in bytes.
const LONGEST: usize = 16 << 20;
/// Of an error no more is told.
const LONGEST_ERROR: usize = 4 << 10;

/// What is asked: a route of the grammar that only reads, what stands in its path, and its query.
pub(super) struct Question<'a> {
    pub route: &'static str,
    pub object: Option<&'a str>,
    pub query: Vec<(String, String)>,
}

impl<'a> Question<'a> {
    pub fn of(route: &'static str, object: &'a str) -> Self {
        let object = Some(object).filter(|object| !object.is_empty());
        Self { route, object, query: Vec::new() }
    }

    /// With the key, where it has a value.
    pub fn with(mut self, key: &str, value: Option<String>) -> Self {
        self.query.extend(value.map(|value| (key.to_owned(), value)));
        self
    }
}

/// The whole answer, without values of an environment for who may not see them.
pub(super) async fn json(
    server: &ApiServer,
    ask: &Ask,
    question: Question<'_>,
    patience: Duration,
) -> Outcome<Value> {
    let route = question.route;
    let mut value = tokio::select! {
        told = told(server, &ask.instance, question, patience) => told?,
        lost = ask.standing.ended() => return Err(lost),
    };
    if !docker_endpoint::sees_environment(server, &ask.call.caller, &ask.call.target()?) {
        docker_endpoint::hide_values(route, &mut value);
    }
    Ok(value)
}

/// The whole answer as the engine gave it.
pub(super) async fn told(
    server: &ApiServer,
    instance: &Instance,
    question: Question<'_>,
    patience: Duration,
) -> Outcome<Value> {
    let answered = timeout(patience, async { whole(open(server, instance, question).await?, LONGEST).await });
    let silent = || Failure::timeout(format!("the engine of \"{}\" did not answer in time", instance.name));
    let whole = answered.await.map_err(|_| silent())??;
    serde_json::from_slice(&whole).map_err(|_| Failure::unavailable("the engine's answer is no JSON"))
}

/// The answer as it begins, if it is one: what an engine refuses is a failure in its own words.
pub(super) async fn open(
    server: &ApiServer,
    instance: &Instance,
    question: Question<'_>,
) -> Outcome<Exchange> {
    let params = question.object.map(str::to_owned).into_iter().collect();
    let request = Request::new(question.route, params, question.query);
    let request = request.map_err(|refusal| Failure::bad_request(refusal.message))?;
    let link = server.live().link()?;
    if link.session(instance.uid).is_none() {
        return Err(instance.away());
    }
    // Nothing is sent after the call.
    let (_, nothing) = mpsc::channel(1);
    let exchange = link.exchange(instance.uid, request.call(Vec::new(), false), nothing).await;
    let exchange = exchange.map_err(|error| instance.failed(error))?;
    match exchange.answer.status {
        200 => Ok(exchange),
        status => Err(refused(status, &whole(exchange, LONGEST_ERROR).await.unwrap_or_default())),
    }
}

/// What an engine refused with that status, in its own words.
pub(super) fn refused(status: u32, said: &[u8]) -> Failure {
    let said: Value = serde_json::from_slice(said).unwrap_or_default();
    let words = said.get("message").and_then(Value::as_str).unwrap_or("it does not say why").trim();
    match status {
        400 => Failure::bad_request(words),
        403 => Failure::forbidden(words),
        404 => Failure::not_found_on_host(words),
        409 => Failure::refused_by_host(words),
        _ => Failure::unavailable(format!("the engine answered {status}: {words}")),
    }
}

async fn whole(exchange: Exchange, longest: usize) -> Outcome<Vec<u8>> {
    let (mut bytes, mut whole) = (exchange.bytes, Vec::new());
    while let Some(piece) = bytes.next().await {
        let piece = piece.map_err(|_| Failure::unavailable("the engine's answer broke off; try again"))?;
        whole.extend_from_slice(&piece);
        if whole.len() > longest {
            return Err(Failure::unavailable(format!("the engine's answer is longer than {longest} bytes")));
        }
    }
    Ok(whole)
}
