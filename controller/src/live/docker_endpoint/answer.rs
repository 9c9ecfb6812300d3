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
    // BuildKit's own API is not served, by which newer clients would build: they shall build in the classic way unless told otherwise.
    if let Some(builder) = headers.get_mut("builder-version") {
        *builder = HeaderValue::from_static("1");
    }
    if is_upgrade {
        headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
        headers.insert(UPGRADE, HeaderValue::from_static(request.route.protocol().unwrap_or("tcp")));
    } else if !is_empty {
        headers.entry(CONTENT_TYPE).or_insert(HeaderValue::from_static("application/json"));
    }
    Ok(response)
}

/// True if an answer has values in it that not everybody may see who may read it.
pub(super) fn has_values(request: &Request) -> bool {
    HIDDEN_IN.iter().any(|(route, _)| *route == request.route.id)
}

/// The same without these values; `None` if it cannot be read.
pub(super) fn without_values(request: &Request, description: &[u8]) -> Option<Vec<u8>> {
    let mut description: Value = serde_json::from_slice(description).ok()?;
    hide_values(request.route.id, &mut description);
    serde_json::to_vec(&description).ok()
}

/// Takes the values of environments, and of options that volumes were made with, out of what an engine tells by that route.
pub(in crate::live) fn hide_values(route: &str, description: &mut Value) {
    let hide = HIDDEN_IN.iter().find(|(known, _)| *known == route);
    if let Some((_, hide)) = hide {
        hide(description);
    }
}

type Hide = fn(&mut Value);

const HIDDEN_IN: [(&str, Hide); 6] = [
    ("ContainerInspect", environment),
    ("ImageInspect", environment),
    ("ImageHistory", history),
    ("VolumeInspect", options),
    ("VolumeList", options),
    ("SystemDiskUsage", options),
];

fn environment(description: &mut Value) {
    for part in ["/Config/Env", "/ContainerConfig/Env"] {
        let Some(Value::Array(all)) = description.pointer_mut(part) else { continue };
        for one in all {
            let name = one.as_str().and_then(|one| one.split('=').next()).unwrap_or_default();
            *one = format!("{name}={HIDDEN}").into();
        }
    }
}

/// Of the steps an image was built in, those that set an environment, and the build arguments of the others.
fn history(steps: &mut Value) {
    for step in steps.as_array_mut().into_iter().flatten() {
        let Some(Value::String(made_by)) = step.get_mut("CreatedBy") else { continue };
        let words = made_by.trim_start_matches("/bin/sh -c #(nop)").trim_start();
        if words.starts_with("ENV ") {
            *made_by = format!("ENV {HIDDEN}");
        } else if let Some(at) = words.strip_prefix("RUN ").unwrap_or(words).strip_prefix('|') {
            let command = at.find("/bin/sh").and_then(|start| at.get(start..)).unwrap_or_default();
            *made_by = format!("|{HIDDEN} {command}");
        }
    }
}

/// Passwords of network shares stand in them.
fn options(volumes: &mut Value) {
    match volumes {
        Value::Object(members) => {
            for (name, value) in members {
                match value {
                    Value::Object(options) if name == "Options" => {
                        options.values_mut().for_each(|value| *value = HIDDEN.into());
                    }
                    value => options(value),
                }
            }
        }
        Value::Array(all) => all.iter_mut().for_each(options),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn t28_of_an_environment_names_are_told_and_no_values() {
        let description = json!({"Id": "c1", "Config": {"Env": ["A=planted=b", "B", 7], "Image": "a"},
            "ContainerConfig": {"Env": ["C=planted"]}});

        let inspect = parse("/containers/c1/json");
        let told = without_values(&inspect, description.to_string().as_bytes()).expect("JSON");

        let expected = json!({"Id": "c1", "Config": {"Env": ["A=(hidden)", "B=(hidden)", "=(hidden)"], "Image": "a"},
            "ContainerConfig": {"Env": ["C=(hidden)"]}});
        assert_eq!(serde_json::from_slice::<Value>(&told).expect("JSON"), expected);
        assert_eq!(without_values(&inspect, b"<html>"), None);
        assert!(has_values(&inspect) && !has_values(&parse("/containers/json")));
    }

    fn parse(target: &str) -> Request {
        gantry_api::engine_api::parse("GET", target, []).expect("known")
    }

    #[test]
    fn t28_what_an_image_was_built_with_and_what_a_volume_was_made_with_is_not_told() {
        let mut history = json!([
            {"CreatedBy": "/bin/sh -c #(nop)  ENV PASSWORD=planted"}, {"CreatedBy": "ENV PASSWORD=planted"},
            {"CreatedBy": "|1 PASSWORD=planted /bin/sh -c make"}, {"CreatedBy": "RUN |1 PASSWORD=planted /bin/sh -c make # buildkit"},
            {"CreatedBy": "RUN /bin/sh -c make # buildkit"}]);
        let mut usage =
            json!({"Volumes": [{"Name": "a", "Options": {"o": "password=planted"}}, {"Options": null}]});

        hide_values("ImageHistory", &mut history);
        hide_values("SystemDiskUsage", &mut usage);

        assert_eq!(
            usage,
            json!({"Volumes": [{"Name": "a", "Options": {"o": "(hidden)"}}, {"Options": null}]})
        );
        let told = [
            "ENV (hidden)",
            "ENV (hidden)",
            "|(hidden) /bin/sh -c make",
            "|(hidden) /bin/sh -c make # buildkit",
            "RUN /bin/sh -c make # buildkit",
        ];
        assert_eq!(history, told.map(|made_by| json!({"CreatedBy": made_by})).into_iter().collect::<Value>());
    }
}
