//! Reading one object.

use std::sync::Arc;

use axum::response::Response;
use http::StatusCode;

use crate::apiserver::failure::{Failure, Outcome};
use crate::apiserver::request::{Call, Freshness};
use crate::apiserver::{ApiServer, answer};
use crate::storage::{Key, Object};
use crate::watch_cache::WatchCache;

/// Answers the newest state, from memory; without a database what is there, and how old it may be.
pub(crate) async fn get(server: &ApiServer, call: &Call) -> Outcome<Response> {
    let key = call.target()?;
    let freshness = call.params.freshness()?;
    let age = server.reach_or_age(call, freshness).await?;
    let object = found(server.cache(call.kind), &key)?;
    if let Freshness::Exact(version) = freshness
        && object.version > version
    {
        return Err(Failure::expired(
            format!("the state at version {version} is not kept for single objects"),
            None,
        ));
    }
    let answer = answer::object(call, server.clock.now(), StatusCode::OK, object.json.clone())?;
    Ok(answer::aged(answer, age))
}

/// The object as the cache has it.
pub(super) fn find(server: &ApiServer, key: &Key) -> Outcome<Arc<Object>> {
    found(server.store.cache(), key)
}

fn found(cache: &WatchCache, key: &Key) -> Outcome<Arc<Object>> {
    cache.get(key).ok_or_else(|| match cache.damage_of(key) {
        Some(damaged) => Failure::damaged(&damaged),
        None => Failure::not_found(&key.resource, &key.name),
    })
}
