//! Putting a whole object in the place of another.

use axum::response::Response;
use http::StatusCode;

use super::write::{ATTEMPTS, Ownership, current, parse, place, replace, text_of};
use crate::apiserver::ApiServer;
use crate::apiserver::decode::decode;
use crate::apiserver::failure::{Cause, CauseReason, Failure, Outcome};
use crate::apiserver::request::{Call, parse_version};

/// Stores the body if the object is still at the body's `resourceVersion`.
pub(crate) async fn update(server: &ApiServer, call: &Call, body: &[u8]) -> Outcome<Response> {
    let decoded = decode(body, call.content_type.as_deref())?;
    let mut new = decoded.value;
    place(call, &mut new)?;
    let key = call.target()?;
    // Version 0 is none in Kubernetes: no object ever has it.
    let expected =
        text_of(&new, "resourceVersion")?.map(parse_version).transpose()?.filter(|version| version.0 > 0);
    if expected.is_none() && !call.kind.allows_unconditional_update {
        current(server, &key, false).await?;
        let cause = Cause {
            field: "metadata.resourceVersion".to_owned(),
            reason: CauseReason::Invalid,
            message: "Invalid value: 0: must be specified for an update".to_owned(),
        };
        return Err(Failure::invalid(&call.kind.group, &call.kind.kind, &key.name, vec![cause]));
    }
    for attempt in 1..=ATTEMPTS {
        let object = current(server, &key, attempt > 1).await?;
        if let Some(expected) = expected
            && expected != object.version
        {
            // The cache may be behind the client.
            if expected > object.version && attempt == 1 {
                continue;
            }
            return Err(Failure::conflict(&key.resource, &key.name));
        }
        let old = parse(call, &object)?;
        match replace(server, call, &object, &old, new.clone(), &decoded.duplicates, Ownership::Tracked).await
        {
            Err(failure) if failure.is_conflict() && expected.is_none() && attempt < ATTEMPTS => {}
            outcome => return outcome?.answer(server, call, StatusCode::OK),
        }
    }
    Err(Failure::conflict(&key.resource, &key.name))
}
