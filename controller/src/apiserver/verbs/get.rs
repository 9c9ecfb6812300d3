//! Reading one object.

use std::sync::Arc;

use axum::response::Response;
use http::StatusCode;

use crate::apiserver::failure::{Failure, Outcome};
use crate::apiserver::request::{Call, Freshness};
use crate::apiserver::{ApiServer, answer};
use crate::storage::{Key, Object};

/// Answers the newest state, from memory.
pub(crate) async fn get(server: &ApiServer, call: &Call) -> Outcome<Response> {
    let key = call.target()?;
    let freshness = call.params.freshness()?;
    server.reach(freshness).await?;
    let object = find(server, &key)?;
    if let Freshness::Exact(version) = freshness
        && object.version > version
    {
        return Err(Failure::expired(
            format!("the state at version {version} is not kept for single objects"),
            None,
        ));
    }
    answer::object(call, server.clock.now(), StatusCode::OK, object.json.clone())
}

/// The object as the cache has it.
pub(super) fn find(server: &ApiServer, key: &Key) -> Outcome<Arc<Object>> {
    server.store.cache().get(key).ok_or_else(|| Failure::not_found(&key.resource, &key.name))
}
