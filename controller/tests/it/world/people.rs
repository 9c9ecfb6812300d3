//! People who call the API, each with the rights that roles and bindings give them.

use axum::body::Body;
use gantry_controller::apiserver;
use gantry_controller::auth::Caller;
use gantry_controller::bootstrap::bootstrap;
use http::{Method, Request};
use http_body_util::BodyExt as _;
use serde_json::{Value, json};

use super::api::{Answer, Api, NAMESPACES};

pub const RBAC: &str = "/apis/rbac.authorization.k8s.io/v1";
pub const AUTHORIZATION: &str = "/apis/authorization.k8s.io/v1";

/// With what is there from the start, and a second namespace.
pub async fn started() -> Api {
    let api = Api::new().await;
    bootstrap(&apiserver::client(&api.router, "startup")).await.expect("it starts");
    assert_eq!(api.post(NAMESPACES, &json!({"metadata": {"name": "other"}})).await.code, 201);
    api
}

/// Somebody who calls.
pub struct Person<'a> {
    api: &'a Api,
    caller: Caller,
}

impl Api {
    pub fn person<'a>(&'a self, name: &str, groups: &[&str]) -> Person<'a> {
        Person { api: self, caller: Caller::authenticated(name, groups.iter().copied()) }
    }

    /// Gives a role of the cluster in the namespace `default`.
    pub async fn bind(&self, role: &str, user: &str) {
        let binding = binding(&format!("{role}-{user}"), "ClusterRole", role, user);
        let made = self.post(&format!("{RBAC}/namespaces/default/rolebindings"), &binding).await;
        assert_eq!(made.code, 201, "{made:?}");
    }

    /// Makes a role of the cluster.
    pub async fn make_role(&self, name: &str, rules: Value) {
        let role = json!({"metadata": {"name": name}, "rules": rules});
        let made = self.post(&format!("{RBAC}/clusterroles"), &role).await;
        assert_eq!(made.code, 201, "{made:?}");
    }
}

/// A binding of a role to a user, of the cluster or of a namespace by where it is posted.
pub fn binding(name: &str, kind: &str, role: &str, user: &str) -> Value {
    json!({"metadata": {"name": name},
        "roleRef": {"kind": kind, "name": role},
        "subjects": [{"kind": "User", "name": user}]})
}

impl Person<'_> {
    pub async fn send(&self, method: Method, path: &str, headers: &[(&str, &str)], body: String) -> Answer {
        let mut request = Request::builder().method(method).uri(path).extension(self.caller.clone());
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let response = self.api.send(request.body(Body::from(body)).expect("a request")).await;
        let (code, headers) = (response.status().as_u16(), response.headers().clone());
        let bytes = response.into_body().collect().await.expect("a body").to_bytes();
        let body = serde_json::from_slice(&bytes).unwrap_or_default();
        Answer { code, headers, body }
    }

    /// An answer as it begins.
    pub async fn open(&self, mut request: Request<Body>) -> http::Response<Body> {
        request.extensions_mut().insert(self.caller.clone());
        self.api.send(request).await
    }

    pub async fn get(&self, path: &str) -> Answer {
        self.send(Method::GET, path, &[], String::new()).await
    }

    pub async fn post(&self, path: &str, body: &Value) -> Answer {
        self.send(Method::POST, path, &[("content-type", "application/json")], body.to_string()).await
    }

    pub async fn merge(&self, path: &str, body: &Value) -> Answer {
        let headers = [("content-type", "application/merge-patch+json")];
        self.send(Method::PATCH, path, &headers, body.to_string()).await
    }

    pub async fn apply(&self, path: &str, body: &Value) -> Answer {
        let headers = [("content-type", "application/apply-patch+yaml")];
        self.send(Method::PATCH, &format!("{path}?fieldManager=m&force=1"), &headers, body.to_string()).await
    }

    /// Asks the API whether it may.
    pub async fn can(&self, verb: &str, group: &str, resource: &str, namespace: &str) -> bool {
        let (resource, subresource) = resource.split_once('/').unwrap_or((resource, ""));
        let asked = json!({"spec": {"resourceAttributes": {
            "verb": verb, "group": group, "resource": resource, "subresource": subresource, "namespace": namespace}}});
        let answer = self.post(&format!("{AUTHORIZATION}/selfsubjectaccessreviews"), &asked).await;
        assert_eq!(answer.code, 201, "{answer:?}");
        answer.body["status"]["allowed"] == true
    }
}
