//! What is served: the old lists and the aggregated ones, made from the table of kinds.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use axum::response::{IntoResponse as _, Response};
use http::header::{ACCEPT, CONTENT_TYPE, ETAG, IF_NONE_MATCH, VARY};
use http::{HeaderMap, HeaderValue, StatusCode};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use super::failure::{Failure, Outcome};
use super::kinds::audit::{RECORDING, SESSIONS};
use super::kinds::{self, Kind};
use crate::live;
use crate::live::routes::LiveRoute;
use crate::pki::hex;

const VERBS: [&str; 8] = ["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"];
const STATUS_VERBS: [&str; 3] = ["get", "patch", "update"];

/// `GET /api`.
pub fn core_versions(headers: &HeaderMap) -> Outcome<Response> {
    if let Form::Aggregated(version) = negotiate(headers, true)? {
        return Ok(aggregated(version, groups().get("").into_iter(), headers));
    }
    let versions: Vec<_> = groups().get("").into_iter().flat_map(|group| &group.versions).collect();
    Ok(answer(
        &json!({
            "kind": "APIVersions",
            "versions": versions,
            "serverAddressByClientCIDRs": [],
        }),
        headers,
        "application/json",
    ))
}

/// `GET /apis`.
pub fn group_list(headers: &HeaderMap) -> Outcome<Response> {
    let named = groups().iter().filter(|(name, _)| !name.is_empty()).map(|(_, group)| group);
    if let Form::Aggregated(version) = negotiate(headers, true)? {
        return Ok(aggregated(version, named, headers));
    }
    let list: Vec<_> = named.map(Group::describe).collect();
    Ok(answer(
        &json!({"kind": "APIGroupList", "apiVersion": "v1", "groups": list}),
        headers,
        "application/json",
    ))
}

/// `GET /apis/{group}`.
pub fn group(name: &str, headers: &HeaderMap) -> Outcome<Response> {
    negotiate(headers, false)?;
    let group = groups().get(name).filter(|_| !name.is_empty()).ok_or_else(Failure::no_such_path)?;
    let mut described = group.describe();
    if let Some(fields) = described.as_object_mut() {
        fields.insert("kind".to_owned(), json!("APIGroup"));
        fields.insert("apiVersion".to_owned(), json!("v1"));
    }
    Ok(answer(&described, headers, "application/json"))
}

/// `GET /apis/{group}/{version}`, and `GET /api/v1` with an empty group.
pub fn resource_list(group: &str, version: &str, headers: &HeaderMap) -> Outcome<Response> {
    let kinds: Vec<_> =
        kinds::all().iter().filter(|kind| kind.group == group && kind.version == version).collect();
    let first = kinds.first().ok_or_else(Failure::no_such_path)?;
    negotiate(headers, false)?;
    let mut resources = Vec::new();
    for kind in &kinds {
        resources.push(json!({
            "name": kind.plural,
            "singularName": kind.singular,
            "namespaced": kind.namespaced,
            "kind": kind.kind,
            "verbs": verbs(kind),
            "shortNames": kind.short_names,
            "categories": kind.categories,
        }));
        for Subresource { name, kind: takes, verbs } in subresources(kind) {
            let mut described = json!({
                "name": format!("{}/{name}", kind.plural),
                "singularName": "",
                "namespaced": kind.namespaced,
                "kind": takes.kind,
                "verbs": verbs,
            });
            if let Some(described) = described.as_object_mut().filter(|_| takes.group != kind.group) {
                described.insert("group".to_owned(), takes.group.as_str().into());
                described.insert("version".to_owned(), takes.version.as_str().into());
            }
            resources.push(described);
        }
    }
    let list = json!({
        "kind": "APIResourceList",
        "apiVersion": "v1",
        "groupVersion": first.api_version(),
        "resources": resources,
    });
    Ok(answer(&list, headers, "application/json"))
}

fn verbs(kind: &Kind) -> &'static [&'static str] {
    match kind {
        Kind { is_question: true, .. } => &["create"],
        Kind { is_record: true, .. } if kind.plural == SESSIONS => &["get", "list"],
        Kind { is_record: true, .. } => &["list"],
        Kind { is_measured: true, .. } => &["get", "list"],
        Kind { is_live: true, .. } => &["get", "list", "watch"],
        _ => &VERBS,
    }
}

struct Subresource<'a> {
    name: &'static str,
    /// Of what is sent to it and answered.
    kind: &'a Kind,
    verbs: Vec<&'static str>,
}

fn subresources(kind: &Kind) -> Vec<Subresource<'_>> {
    let mut all = Vec::new();
    if kind.has_status {
        all.push(Subresource { name: "status", kind, verbs: STATUS_VERBS.into() });
    }
    if kind.plural == "namespaces" {
        all.push(Subresource { name: "finalize", kind, verbs: vec!["update"] });
    }
    if kind.plural == SESSIONS {
        all.push(Subresource { name: RECORDING, kind, verbs: vec!["get"] });
    }
    if kind.plural == "serviceaccounts" {
        all.push(Subresource { name: "token", kind: kinds::token_request(), verbs: vec!["create"] });
    }
    for LiveRoute { subresource: name, verb, .. } in live::routes::of(kind) {
        match all.iter_mut().find(|one| one.name == name) {
            Some(one) if one.verbs.contains(&verb) => {}
            Some(one) => one.verbs.push(verb),
            None => all.push(Subresource { name, kind, verbs: vec![verb] }),
        }
    }
    all
}

/// One API group, with its versions in order.
struct Group {
    name: String,
    versions: Vec<String>,
}

impl Group {
    fn describe(&self) -> Value {
        let version = |version: &String| json!({"groupVersion": format!("{}/{version}", self.name), "version": version});
        json!({
            "name": self.name,
            "versions": self.versions.iter().map(version).collect::<Vec<_>>(),
            "preferredVersion": self.versions.first().map(version),
        })
    }
}

fn groups() -> &'static BTreeMap<String, Group> {
    static GROUPS: LazyLock<BTreeMap<String, Group>> = LazyLock::new(|| {
        let mut groups = BTreeMap::<String, Group>::new();
        for kind in kinds::all() {
            let group = groups
                .entry(kind.group.clone())
                .or_insert_with(|| Group { name: kind.group.clone(), versions: Vec::new() });
            if !group.versions.contains(&kind.version) {
                group.versions.push(kind.version.clone());
            }
        }
        groups
    });
    &GROUPS
}

/// The forms there are of a discovery document.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Form {
    Lists,
    /// With its version.
    Aggregated(&'static str),
}

/// The first form in `Accept` that is served; 406 where none is. `aggregates` is true for `/api` and `/apis`.
fn negotiate(headers: &HeaderMap, aggregates: bool) -> Outcome<Form> {
    let mut entries = headers
        .get_all(ACCEPT)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .map(str::trim)
        .filter(|entry| !entry.is_empty())
        .peekable();
    if entries.peek().is_none() {
        return Ok(Form::Lists);
    }
    entries.find_map(|entry| form(entry, aggregates)).ok_or_else(|| Failure::not_acceptable(SERVED))
}

const SERVED: &str = "application/json, application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList";

fn form(entry: &str, aggregates: bool) -> Option<Form> {
    let mut parts = entry.split(';').map(str::trim);
    if !matches!(parts.next()?, "application/json" | "application/*" | "*/*") {
        return None;
    }
    let parameters: BTreeMap<_, _> = parts.filter_map(|part| part.split_once('=')).collect();
    if !parameters.contains_key("as") {
        return Some(Form::Lists);
    }
    let is_ours = aggregates
        && parameters.get("as") == Some(&"APIGroupDiscoveryList")
        && parameters.get("g") == Some(&"apidiscovery.k8s.io");
    match *parameters.get("v")? {
        "v2" if is_ours => Some(Form::Aggregated("v2")),
        "v2beta1" if is_ours => Some(Form::Aggregated("v2beta1")),
        _ => None,
    }
}

fn aggregated<'a>(version: &str, groups: impl Iterator<Item = &'a Group>, headers: &HeaderMap) -> Response {
    let items: Vec<_> = groups
        .map(|group| {
            let versions: Vec<_> = group
                .versions
                .iter()
                .map(|version| {
                    let kinds = kinds::all().iter();
                    let kinds = kinds.filter(|kind| kind.group == group.name && kind.version == *version);
                    json!({"version": version, "freshness": "Current",
                        "resources": kinds.map(aggregated_resource).collect::<Vec<_>>()})
                })
                .collect();
            json!({"metadata": {"name": group.name, "creationTimestamp": null}, "versions": versions})
        })
        .collect();
    let list = json!({
        "kind": "APIGroupDiscoveryList",
        "apiVersion": format!("apidiscovery.k8s.io/{version}"),
        "metadata": {},
        "items": items,
    });
    let media_type = format!("application/json;g=apidiscovery.k8s.io;v={version};as=APIGroupDiscoveryList");
    answer(&list, headers, &media_type)
}

fn aggregated_resource(kind: &Kind) -> Value {
    let of = |kind: &Kind| json!({"group": kind.group, "version": kind.version, "kind": kind.kind});
    let subresources: Vec<_> = subresources(kind)
        .into_iter()
        .map(|one| json!({"subresource": one.name, "responseKind": of(one.kind), "verbs": one.verbs}))
        .collect();
    json!({
        "resource": kind.plural,
        "responseKind": of(kind),
        "scope": if kind.namespaced { "Namespaced" } else { "Cluster" },
        "singularResource": kind.singular,
        "verbs": verbs(kind),
        "shortNames": kind.short_names,
        "categories": kind.categories,
        "subresources": subresources,
    })
}

/// A document with its ETag, or 304 if the client has it already.
pub(super) fn answer(document: &Value, headers: &HeaderMap, media_type: &str) -> Response {
    let body = document.to_string();
    let tag = format!("\"{}\"", hex(&Sha256::digest(body.as_bytes())));
    let known = headers.get(IF_NONE_MATCH).and_then(|known| known.to_str().ok());
    let mut response = if known.is_some_and(|known| known.split(',').any(|known| known.trim() == tag)) {
        StatusCode::NOT_MODIFIED.into_response()
    } else {
        let media_type = HeaderValue::from_str(media_type);
        let media_type = media_type.unwrap_or(HeaderValue::from_static("application/json"));
        ([(CONTENT_TYPE, media_type)], body).into_response()
    };
    if let Ok(tag) = HeaderValue::from_str(&tag) {
        response.headers_mut().insert(ETAG, tag);
    }
    response.headers_mut().insert(VARY, HeaderValue::from_static("Accept"));
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    fn accepting(accept: &str) -> HeaderMap {
        HeaderMap::from_iter([(ACCEPT, accept.parse().expect("a header"))])
    }

    async fn read(response: Response) -> (HeaderMap, Value) {
        let (parts, body) = response.into_parts();
        let bytes = axum::body::to_bytes(body, 1 << 20).await.expect("a body");
        (parts.headers, serde_json::from_slice(&bytes).unwrap_or_default())
    }

    #[tokio::test]
    async fn kubectl_gets_the_newest_form_it_offers() {
        let offer = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList,\
            application/json;g=apidiscovery.k8s.io;v=v2beta1;as=APIGroupDiscoveryList,application/json";
        let (headers, list) = read(group_list(&accepting(offer)).expect("served")).await;
        assert_eq!(
            headers[CONTENT_TYPE],
            "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList"
        );
        assert_eq!(list["apiVersion"], "apidiscovery.k8s.io/v2");
        let ours = list["items"]
            .as_array()
            .and_then(|all| all.iter().find(|one| one["metadata"]["name"] == "gantry.dev"));
        let resources = &ours.expect("our group")["versions"][0]["resources"];
        assert!(
            resources.as_array().is_some_and(|all| all.iter().any(|one| one["resource"] == "operations"))
        );

        let beta =
            "application/json;g=apidiscovery.k8s.io;v=v2beta1;as=APIGroupDiscoveryList,application/json";
        let (_, list) = read(core_versions(&accepting(beta)).expect("served")).await;
        assert_eq!(list["apiVersion"], "apidiscovery.k8s.io/v2beta1");
        assert_eq!(list["items"][0]["metadata"]["name"], "");
    }

    #[tokio::test]
    async fn an_old_client_gets_the_old_lists() {
        let (_, versions) = read(core_versions(&accepting("application/json")).expect("served")).await;
        assert_eq!(versions["versions"], json!(["v1"]));
        let (_, groups) = read(group_list(&HeaderMap::new()).expect("served")).await;
        assert_eq!(groups["kind"], "APIGroupList");
        let (_, list) =
            read(resource_list("gantry.dev", "v1alpha1", &HeaderMap::new()).expect("served")).await;
        let names: Vec<_> =
            list["resources"].as_array().into_iter().flatten().map(|one| one["name"].clone()).collect();
        let wanted = ["dockerinstances", "operations", "registries"];
        let wanted = wanted.iter().flat_map(|plural| [(*plural).to_owned(), format!("{plural}/status")]);
        let wanted = wanted.chain(["policies", "clusterpolicies"].map(str::to_owned));
        let mut wanted: Vec<String> = wanted.collect();
        wanted.insert(4, "operations/progress".to_owned());
        let (live, named): (Vec<_>, Vec<_>) = names.into_iter().partition(|name: &Value| {
            name.as_str()
                .is_some_and(|name| name.starts_with("dockerinstances/") && name != "dockerinstances/status")
        });
        assert_eq!(named, wanted);
        for name in ["containers", "df", "events", "logs", "exec", "docker"] {
            let name = Value::from(format!("dockerinstances/{name}"));
            assert_eq!(live.iter().filter(|known| **known == name).count(), 1, "{name}");
        }
        assert!(resource_list("gantry.dev", "v9", &HeaderMap::new()).is_err());
    }

    #[tokio::test]
    async fn what_a_client_has_is_not_sent_again() {
        let (headers, _) = read(group_list(&HeaderMap::new()).expect("served")).await;
        let again = HeaderMap::from_iter([(IF_NONE_MATCH, headers[ETAG].clone())]);

        assert_eq!(group_list(&again).expect("served").status(), StatusCode::NOT_MODIFIED);
    }
}
