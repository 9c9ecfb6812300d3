//! Answers in the form of an engine's own.

use axum::body::Body;
use axum::response::{IntoResponse as _, Response};
use gantry_api::agent_v1::EngineAnswer;
use gantry_api::engine_api::Request;
use http::header::{CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, UPGRADE};
use http::{HeaderName, HeaderValue, StatusCode};
use serde_json::{Value, json};

use crate::apiserver::failure::{Failure, Outcome};

/// Longest description of a container or an image that values are taken out of, in bytes.
pub(super) const MOST_DESCRIPTION: usize = 16 << 20;
/// What stands in the place of a value.
const HIDDEN: &str = "(hidden)";
/// Headers that clients look at; an agent's other headers are dropped.
const TOLD: [&str; 8] = [
    "api-version",
    "builder-version",
    "content-type",
    "docker-experimental",
    "ostype",
    "server",
    "swarm",
    "x-docker-container-path-stat",
];

/// A refusal as Docker's clients read it: `{"message": …}`.
pub(super) fn of_failure(failure: Failure) -> Response {
    let body = json!({"message": failure.to_string()}).to_string();
    let mut response = failure.into_response();
    *response.body_mut() = Body::from(body);
    response.headers_mut().remove(CONTENT_LENGTH);
    response
}

/// Status and headers of an answer, with that body.
pub(super) fn of_engine(request: &Request, answer: &EngineAnswer, body: Body) -> Outcome<Response> {
    let status = u16::try_from(answer.status).ok().and_then(|status| StatusCode::from_u16(status).ok());
    let status = status.ok_or_else(|| Failure::unavailable("the engine's answer has no status"))?;
    let is_upgrade = status == StatusCode::SWITCHING_PROTOCOLS;
    let is_empty = is_upgrade
        || request.route.method == "HEAD"
        || status == StatusCode::NO_CONTENT
        || status == StatusCode::NOT_MODIFIED;
    let mut response = Response::new(if is_empty { Body::empty() } else { body });
    *response.status_mut() = status;
    let headers = response.headers_mut();
    for pair in &answer.headers {
        let known = TOLD.iter().find(|known| **known == pair.name);
        if let (Some(known), Ok(value)) = (known, HeaderValue::from_str(&pair.value)) {
            headers.insert(HeaderName::from_static(known), value);
        }
    }
    // BuildKit would want a session, which is not served: clients shall build in the classic way.
    if let Some(builder) = headers.get_mut("builder-version") {
        *builder = HeaderValue::from_static("1");
    }
    if is_upgrade {
        headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
        headers.insert(UPGRADE, HeaderValue::from_static("tcp"));
    } else if !is_empty {
        headers.entry(CONTENT_TYPE).or_insert(HeaderValue::from_static("application/json"));
    }
    Ok(response)
}

/// True if an answer has values of an environment in it.
pub(super) fn has_environment(request: &Request) -> bool {
    ["ContainerInspect", "ImageInspect"].contains(&request.route.id)
}

/// The same without the values of an environment; `None` if it cannot be read.
pub(super) fn without_environment(description: &[u8]) -> Option<Vec<u8>> {
    let mut description: Value = serde_json::from_slice(description).ok()?;
    for part in ["/Config/Env", "/ContainerConfig/Env"] {
        let Some(Value::Array(all)) = description.pointer_mut(part) else { continue };
        for one in all {
            let name = one.as_str().and_then(|one| one.split('=').next()).unwrap_or_default();
            *one = format!("{name}={HIDDEN}").into();
        }
    }
    serde_json::to_vec(&description).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn t28_of_an_environment_names_are_told_and_no_values() {
        let description = json!({"Id": "c1", "Config": {"Env": ["A=planted=b", "B", 7], "Image": "a"},
            "ContainerConfig": {"Env": ["C=planted"]}});

        let told = without_environment(description.to_string().as_bytes()).expect("JSON");

        let expected = json!({"Id": "c1", "Config": {"Env": ["A=(hidden)", "B=(hidden)", "=(hidden)"], "Image": "a"},
            "ContainerConfig": {"Env": ["C=(hidden)"]}});
        assert_eq!(serde_json::from_slice::<Value>(&told).expect("JSON"), expected);
        assert_eq!(without_environment(b"<html>"), None);
    }
}
