//! What the docker CLI 28.2 sends for some 80 commands with every flag they have, recorded by a fake engine.

use std::collections::BTreeMap;

use serde::Deserialize;

use crate::engine_api::facts::{Facts, MountKind};
use crate::engine_api::{Body, Parsed, Request, parse};

#[derive(Deserialize)]
struct Recorded {
    method: String,
    target: String,
    headers: BTreeMap<String, String>,
    body: String,
}

fn recorded() -> Vec<(Recorded, Request)> {
    let lines = include_str!("docker-cli-28.jsonl").lines();
    let all = lines.map(|line| serde_json::from_str::<Recorded>(line).unwrap());
    all.map(|one| {
        let headers = one.headers.iter().map(|(name, value)| (name.as_str(), value.as_bytes()));
        let request = parse(&one.method, &one.target, headers);
        let request = request.unwrap_or_else(|refusal| panic!("{} {}: {refusal}", one.method, one.target));
        (one, request)
    })
    .collect()
}

fn body(one: &Recorded, request: &Request) -> Option<Parsed> {
    let Body::Json(json) = request.route.body else {
        assert!(one.body.is_empty(), "{}", one.target);
        return None;
    };
    Some(json.read(one.body.as_bytes()).unwrap_or_else(|refusal| panic!("{}: {refusal}", one.target)))
}

#[test]
fn everything_the_docker_cli_sends_is_understood() {
    let all = recorded();

    assert!(all.len() > 80, "{}", all.len());
    let mut routes: Vec<&str> = all.iter().map(|(_, request)| request.route.id).collect();
    routes.sort_unstable();
    routes.dedup();
    assert!(routes.len() > 50, "{routes:?}");
    for (one, request) in &all {
        body(one, request);
    }
}

#[test]
fn what_is_written_anew_is_understood_as_the_same() {
    for (one, request) in recorded() {
        let target = request.target(request.version);
        let headers = request.headers.iter().map(|(name, value)| (*name, value.as_bytes()));
        assert_eq!(parse(request.route.method, &target, headers).unwrap(), request, "{target}");
        let again = Request::of_call(request.call(Vec::new(), false));
        assert_eq!(again.unwrap(), request, "{target}");
        if let (Body::Json(json), Some(parsed)) = (request.route.body, body(&one, &request)) {
            assert!(json.read(&parsed.write()).unwrap() == parsed, "{target}");
        }
    }
}

#[test]
fn credentials_are_passed_on_where_they_belong_and_shown_nowhere() {
    let all = recorded();
    let with = |name: &str| {
        let sent =
            all.iter().filter(|(_, request)| request.headers.iter().any(|(header, _)| *header == name));
        let mut ids: Vec<&str> = sent.map(|(_, request)| request.route.id).collect();
        ids.dedup();
        ids
    };

    assert_eq!(with("x-registry-auth"), ["ImagePull", "ImagePush", "ImageSearch"]);
    for (one, request) in &all {
        let shown = format!("{request:?} {:?}", body(one, request));
        for secret in
            request.headers.iter().map(|(_, value)| value).chain(request.query.iter().map(|(_, value)| value))
        {
            assert!(secret.len() < 5 || !shown.contains(secret.as_str()), "{shown}");
        }
    }
}

#[test]
fn a_container_with_every_flag_tells_everything_it_has_of_its_host() {
    let all = recorded();
    let (one, request) = all.iter().find(|(one, _)| one.target.contains("name=n&")).unwrap();

    let facts = Facts::of(request, body(one, request).as_ref()).unwrap();

    insta::assert_debug_snapshot!(facts);
    assert!(facts.mounts.iter().any(|mount| mount.kind == MountKind::Bind));
}
