//! Changing a part of an object.

use axum::response::Response;
use http::StatusCode;
use serde_json::Value;

use super::write::{ATTEMPTS, Ownership, current, is_stale, parse, place, replace, text_of};
use crate::apiserver::ApiServer;
use crate::apiserver::failure::{Cause, CauseReason, Failure, Outcome};
use crate::apiserver::patch::Patch;
use crate::apiserver::request::Call;

/// Makes the patch's changes in the newest state; again on a newer one after a conflict, unless the patch names a version.
pub(crate) async fn patch(server: &ApiServer, call: &Call, body: &[u8]) -> Outcome<Response> {
    if call.is_apply() {
        return super::apply::apply(server, call, body).await;
    }
    let patch = Patch::read(call.kind, call.content_type.as_deref(), body)?;
    let key = call.target()?;
    for attempt in 1..=ATTEMPTS {
        let object = current(server, &key, attempt > 1).await?;
        let old = parse(call, &object)?;
        let is_last = attempt == ATTEMPTS;
        let outcome = async {
            let mut new = patch.apply(&old).map_err(|failure| failure.about(&key.resource, &key.name))?;
            // An object without it would be taken for one that says nothing, and lose labels and finalizers.
            if !new.get("metadata").is_some_and(Value::is_object) {
                let message = "Required value: a patch cannot take it away".to_owned();
                let cause = Cause { field: "metadata".to_owned(), reason: CauseReason::Required, message };
                return Err(Failure::invalid(&call.kind.group, &call.kind.kind, &key.name, vec![cause]));
            }
            place(call, &mut new)?;
            if text_of(&new, "resourceVersion")?.is_some_and(|version| version != object.version.to_string())
            {
                return Err(Failure::conflict(&key.resource, &key.name));
            }
            replace(server, call, &object, &old, new, &patch.duplicates, Ownership::Tracked).await
        }
        .await;
        match outcome {
            // What failed on an old state may hold on the newest.
            Err(failure) if failure.is_conflict() && !patch.names_version() && !is_last => {}
            Err(_) if attempt == 1 && is_stale(server, &object).await? => {}
            outcome => return outcome?.answer(server, call, StatusCode::OK),
        }
    }
    Err(Failure::conflict(&key.resource, &key.name))
}
