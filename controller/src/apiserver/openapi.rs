//! OpenAPI: v2 for old clients; of v3 an index of the groups and versions, and a document for each. `kubectl explain` and
//! `apply` read them.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use axum::response::Response;
use gantry_api::schemas::{Served, document};
use http::header::CACHE_CONTROL;
use http::{HeaderMap, HeaderValue};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use super::discovery::answer;
use super::failure::{Failure, Outcome};
use super::kinds::{self, Kind};
use crate::pki::hex;

mod v2;

pub use v2::of_all;

/// A document and the hash its address carries.
struct Document {
    content: Value,
    hash: String,
}

/// Documents by `api/v1` or `apis/gantry.dev/v1alpha1`.
static DOCUMENTS: LazyLock<BTreeMap<String, Document>> = LazyLock::new(|| {
    let mut kinds_by_path = BTreeMap::<String, Vec<Served>>::new();
    for kind in kinds::all() {
        kinds_by_path.entry(path(kind)).or_default().push(served(kind));
    }
    kinds_by_path
        .into_iter()
        .map(|(path, kinds)| {
            let content = document("Gantry", env!("CARGO_PKG_VERSION"), &kinds);
            let hash = hex(&Sha256::digest(content.to_string().as_bytes()));
            (path, Document { content, hash })
        })
        .collect()
});

fn path(kind: &Kind) -> String {
    if kind.group.is_empty() {
        format!("api/{}", kind.version)
    } else {
        format!("apis/{}/{}", kind.group, kind.version)
    }
}

fn served(kind: &Kind) -> Served {
    let takes_token = kind.plural == "serviceaccounts";
    let token = takes_token.then(|| ("token".to_owned(), served(kinds::token_request())));
    Served {
        group: kind.group.clone(),
        version: kind.version.clone(),
        kind: kind.kind.clone(),
        plural: kind.plural.clone(),
        namespaced: kind.namespaced,
        has_status: kind.has_status,
        is_question: kind.is_question,
        is_record: kind.is_record,
        is_live: kind.is_live || kind.is_measured,
        posted: token.into_iter().collect(),
        schema: kind.schema.document().clone(),
    }
}

/// `GET /openapi/v3`.
pub fn index(headers: &HeaderMap) -> Response {
    let paths: BTreeMap<_, _> = DOCUMENTS
        .iter()
        .map(|(path, document)| {
            (path, json!({"serverRelativeURL": format!("/openapi/v3/{path}?hash={}", document.hash)}))
        })
        .collect();
    answer(&json!({"paths": paths}), headers, "application/json")
}

/// `GET /openapi/v3/{path}`; with the right `hash` it may be kept for ever.
pub fn of_path(path: &str, hash: Option<&str>, headers: &HeaderMap) -> Outcome<Response> {
    let document = DOCUMENTS.get(path).ok_or_else(Failure::no_such_path)?;
    let mut response = answer(&document.content, headers, "application/json");
    if hash == Some(document.hash.as_str()) {
        let forever = HeaderValue::from_static("public, immutable, max-age=31536000");
        response.headers_mut().insert(CACHE_CONTROL, forever);
    }
    Ok(response)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_is_described_under_its_group_and_version() {
        assert!(of_path("apis/gantry.dev/v1alpha1", None, &HeaderMap::new()).is_ok());
        assert!(of_path("api/v1", None, &HeaderMap::new()).is_ok());
        assert!(of_path("apis/nobody/v1", None, &HeaderMap::new()).is_err());
        let core = &DOCUMENTS["api/v1"].content["components"]["schemas"]["io.k8s.api.core.v1.ConfigMap"];
        assert_eq!(core["x-kubernetes-group-version-kind"][0]["kind"], "ConfigMap");
        assert!(core["properties"]["metadata"]["properties"]["name"]["description"].is_string());
    }
}
