use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use gantry_controller::auth::Caller;
use gantry_controller::auth::tokens::{CONFIGURATION_PATH, KEYS_PATH};
use http::{Method, Request};
use serde_json::{Value, json};
use tower::ServiceExt as _;

use crate::world::api::{Answer, Api, SECRETS, Standing, authenticator};

const ACCOUNTS: &str = "/api/v1/namespaces/default/serviceaccounts";
const TOKEN: &str = "/api/v1/namespaces/default/serviceaccounts/bot/token";

fn account(name: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": name}})
}

async fn with_account() -> Api {
    let api = Api::new().await;
    let made = api.post(ACCOUNTS, &account("bot")).await;
    assert_eq!(made.code, 201, "{made:?}");
    api
}

async fn ask(api: &Api, spec: Value) -> Answer {
    api.post(TOKEN, &json!({"spec": spec})).await
}

fn claims(answer: &Answer) -> Value {
    let token = answer.body["status"]["token"].as_str().expect("a token");
    let part = token.split('.').nth(1).expect("three parts");
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(part).expect("base64")).expect("JSON")
}

#[tokio::test]
async fn a_token_is_answered_with_the_spec_as_it_was_understood() {
    let api = with_account().await;
    let uid = api.get(&format!("{ACCOUNTS}/bot")).await.body["metadata"]["uid"].clone();

    // As kubectl sends it.
    let sent = json!({
        "apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "metadata": {"creationTimestamp": null},
        "spec": {"audiences": null, "expirationSeconds": null, "boundObjectRef": null},
        "status": {"token": "", "expirationTimestamp": null},
    });
    let mut answer = api.post(TOKEN, &sent).await;

    assert_eq!(answer.code, 201, "{answer:?}");
    assert_eq!(answer.headers["cache-control"], "no-cache, private");
    let token = answer.body["status"]["token"].take();
    insta::assert_json_snapshot!(answer.body, @r#"
    {
      "apiVersion": "authentication.k8s.io/v1",
      "kind": "TokenRequest",
      "metadata": {
        "creationTimestamp": "2026-06-01T12:00:00Z",
        "name": "bot",
        "namespace": "default"
      },
      "spec": {
        "audiences": [
          "https://gantry.internal"
        ],
        "expirationSeconds": 3600
      },
      "status": {
        "expirationTimestamp": "2026-06-01T13:00:00Z",
        "token": null
      }
    }
    "#);
    let claims = api.tokens.verify(token.as_str().expect("a token")).expect("it is ours");
    assert_eq!(claims.sub, "system:serviceaccount:default:bot");
    assert_eq!(claims.bound.serviceaccount.uid, uid.as_str().expect("a uid"));
    assert_eq!(claims.exp - claims.iat, 3_600);
}

#[tokio::test]
async fn a_token_is_for_whom_and_for_how_long_its_spec_says() {
    let api = with_account().await;

    let answer = ask(&api, json!({"audiences": ["vault", "bank"], "expirationSeconds": 1_u64 << 32})).await;

    assert_eq!(answer.code, 201, "{answer:?}");
    let claims = claims(&answer);
    assert_eq!(claims["aud"], json!(["vault", "bank"]));
    assert_eq!(claims["exp"].as_i64().zip(claims["iat"].as_i64()).map(|(exp, iat)| exp - iat), Some(1 << 32));
    assert_eq!(answer.body["spec"]["expirationSeconds"], 1_u64 << 32);
    assert!(ask(&api, json!({"expirationSeconds": 600})).await.code == 201);
}

#[tokio::test]
async fn a_token_may_be_bound_to_a_secret() {
    let api = with_account().await;
    let secret = json!({"metadata": {"name": "key"}});
    let uid = api.post(SECRETS, &secret).await.body["metadata"]["uid"].clone();
    let bind = async |reference: Value| ask(&api, json!({"boundObjectRef": reference})).await;

    for reference in [
        json!({"kind": "Secret", "apiVersion": "v1", "name": "key"}),
        json!({"kind": "Secret", "name": "key", "uid": uid}),
    ] {
        let bound = claims(&bind(reference.clone()).await)["kubernetes.io"]["secret"].clone();
        assert_eq!(bound, json!({"name": "key", "uid": uid}), "{reference}");
    }

    let said = [
        bind(json!({"kind": "Secret", "apiVersion": "v1", "name": "none"})).await.message(),
        bind(json!({"kind": "Secret", "apiVersion": "v1", "name": "key", "uid": "x"})).await.message(),
        bind(json!({"kind": "Secret", "apiVersion": "v1"})).await.message(),
        bind(json!({"kind": "Secret", "apiVersion": "apps/v1", "name": "key"})).await.message(),
        bind(json!({"kind": "Pod", "apiVersion": "v1", "name": "key"})).await.message(),
        bind(json!({})).await.message(),
    ];
    insta::assert_snapshot!(said.join("\n"), @r#"
    404 secrets "none" not found
    409 Operation cannot be fulfilled on Secret "key": the UID in the bound object reference (x) does not match the UID in record. The object might have been deleted and then recreated
    422 TokenRequest.authentication.k8s.io "" is invalid: spec.boundObjectRef.name: Required value
    422 TokenRequest.authentication.k8s.io "" is invalid: spec.boundObjectRef.apiVersion: Unsupported value: "apps/v1": supported values: "v1"
    422 TokenRequest.authentication.k8s.io "" is invalid: spec.boundObjectRef.kind: Unsupported value: "Pod": supported values: "Secret"
    422 TokenRequest.authentication.k8s.io "" is invalid: spec.boundObjectRef.kind: Unsupported value: "": supported values: "Secret"
    "#);
}

#[tokio::test]
async fn a_request_that_cannot_be_fulfilled_is_told_why() {
    let api = with_account().await;
    let path = "/api/v1/namespaces/default/serviceaccounts/none/token";

    let said = [
        ask(&api, json!({"expirationSeconds": 599})).await.message(),
        ask(&api, json!({"expirationSeconds": (1_u64 << 32) + 1})).await.message(),
        ask(&api, json!({"expirationSeconds": "soon"})).await.message(),
        ask(&api, json!({"audiences": "vault"})).await.message(),
        ask(&api, json!("x")).await.message(),
        api.post(path, &json!({})).await.message(),
        api.post(TOKEN, &json!({"metadata": {"name": "other"}})).await.message(),
        api.post(TOKEN, &json!({"metadata": {"namespace": "other"}})).await.message(),
        api.post(TOKEN, &json!({"kind": "Secret"})).await.message(),
        api.post(&format!("{TOKEN}?fieldValidation=Strict"), &json!({"spec": {"foo": 1}})).await.message(),
        api.get(TOKEN).await.message(),
        api.delete(TOKEN).await.message(),
        api.post(&TOKEN.replace("serviceaccounts", "secrets"), &json!({})).await.message(),
    ];

    insta::assert_snapshot!(said.join("\n"), @r#"
    422 TokenRequest.authentication.k8s.io "" is invalid: spec.expirationSeconds: Invalid value: 599: may not specify a duration less than 10 minutes
    422 TokenRequest.authentication.k8s.io "" is invalid: spec.expirationSeconds: Invalid value: 4294967297: may not specify a duration larger than 2^32 seconds
    422 TokenRequest.authentication.k8s.io "" is invalid: spec.expirationSeconds: Invalid value: "soon": must be of type "integer"
    422 TokenRequest.authentication.k8s.io "" is invalid: spec.audiences: Invalid value: "vault": must be of type "array"
    422 TokenRequest.authentication.k8s.io "" is invalid: spec: Invalid value: "x": must be of type "object"
    404 serviceaccounts "none" not found
    422 TokenRequest.authentication.k8s.io "bot" is invalid: metadata.name: Invalid value: "other": must match the service account name if specified
    422 TokenRequest.authentication.k8s.io "bot" is invalid: metadata.namespace: Invalid value: "other": must match the service account namespace if specified
    400 the kind in the body is "Secret", but this path serves "TokenRequest"
    400 strict decoding error: unknown field "spec.foo"
    405 the server does not allow this method on the requested resource
    405 the server does not allow this method on the requested resource
    404 the server could not find the requested resource
    "#);
}

#[tokio::test]
async fn a_dry_run_answers_no_token() {
    let api = with_account().await;

    let answer = api.post(&format!("{TOKEN}?dryRun=All"), &json!({})).await;

    assert_eq!(answer.code, 201);
    assert_eq!(answer.body["status"], json!({"token": "", "expirationTimestamp": "2026-06-01T13:00:00Z"}));
    assert_eq!(
        api.post(&format!("{TOKEN}?dryRun=All"), &json!({"spec": {"expirationSeconds": 1}})).await.code,
        422
    );
}

#[tokio::test]
async fn an_account_is_a_kind_as_every_other() {
    let api = with_account().await;
    let path = format!("{ACCOUNTS}/bot");
    let strategic = async |patch: Value| {
        let headers = [("content-type", "application/strategic-merge-patch+json")];
        let answer = api.call(Method::PATCH, &path, &headers, patch.to_string()).await;
        json!([answer.code, answer.body["secrets"], answer.body["imagePullSecrets"]])
    };

    let first = json!({"secrets": [{"name": "a"}], "imagePullSecrets": [{"name": "x"}]});
    strategic(first).await;
    let second = json!({"secrets": [{"name": "b"}], "imagePullSecrets": [{"name": "y"}]});
    assert_eq!(strategic(second).await, json!([200, [{"name": "a"}, {"name": "b"}], [{"name": "y"}]]));
    let third = json!({"secrets": [{"name": "a", "$patch": "delete"}]});
    assert_eq!(strategic(third).await, json!([200, [{"name": "b"}], [{"name": "y"}]]));

    let table = [("accept", "application/json;as=Table;v=v1;g=meta.k8s.io")];
    let rows = api.call(Method::GET, ACCOUNTS, &table, "").await.body;
    let columns: Vec<_> = rows["columnDefinitions"].as_array().expect("columns").iter().collect();
    assert_eq!(columns.iter().map(|one| &one["name"]).collect::<Vec<_>>(), ["Name", "Secrets", "Age"]);
    assert_eq!(rows["rows"][0]["cells"], json!(["bot", 1, "0s"]));
    assert_eq!(api.delete(&path).await.code, 200);
    assert_eq!(api.get(&path).await.code, 404);
}

#[tokio::test]
async fn appliers_share_the_secrets_of_an_account_by_name() {
    let api = Api::new().await;
    let apply = async |manager: &str, secret: &str| {
        let path = format!("{ACCOUNTS}/bot?fieldManager={manager}");
        let mut config = account("bot");
        config["secrets"] = json!([{"name": secret}]);
        let headers = [("content-type", "application/apply-patch+yaml")];
        api.call(Method::PATCH, &path, &headers, config.to_string()).await
    };

    assert_eq!(apply("one", "a").await.code, 201);
    let both = apply("two", "b").await;

    assert_eq!((both.code, &both.body["secrets"]), (200, &json!([{"name": "a"}, {"name": "b"}])), "{both:?}");
    let gone = apply("one", "c").await;
    assert_eq!(gone.body["secrets"], json!([{"name": "b"}, {"name": "c"}]), "{gone:?}");
}

#[tokio::test]
async fn discovery_and_openapi_say_how_to_get_a_token() {
    let api = Api::new().await;
    let list = api.get("/api/v1").await.body;
    let named = |name: &str| {
        let all = list["resources"].as_array().into_iter().flatten();
        all.into_iter().find(|one| one["name"] == name).expect("it is there").clone()
    };

    assert_eq!(named("serviceaccounts")["shortNames"], json!(["sa"]));
    insta::assert_json_snapshot!(named("serviceaccounts/token"), @r#"
    {
      "group": "authentication.k8s.io",
      "kind": "TokenRequest",
      "name": "serviceaccounts/token",
      "namespaced": true,
      "singularName": "",
      "verbs": [
        "create"
      ],
      "version": "v1"
    }
    "#);
    let aggregated = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList";
    let core = api.call(Method::GET, "/api", &[("accept", aggregated)], "").await.body;
    let resources = core["items"][0]["versions"][0]["resources"].as_array().expect("resources").iter();
    let resource = resources.into_iter().find(|one| one["resource"] == "serviceaccounts");
    let kind = json!({"group": "authentication.k8s.io", "version": "v1", "kind": "TokenRequest"});
    assert_eq!(
        resource.expect("it is there")["subresources"],
        json!([{"subresource": "token", "responseKind": kind, "verbs": ["create"]}])
    );

    let document = api.get("/openapi/v3/api/v1").await.body;
    let post = &document["paths"]["/api/v1/namespaces/{namespace}/serviceaccounts/{name}/token"]["post"];
    assert_eq!(post["x-kubernetes-group-version-kind"], kind);
    let schemas = &document["components"]["schemas"];
    let name = "io.k8s.api.authentication.v1.TokenRequest";
    assert!(schemas[name]["properties"]["spec"]["properties"]["audiences"].is_object());
    assert_eq!(
        schemas["io.k8s.api.core.v1.ServiceAccount"]["properties"]["secrets"]["x-kubernetes-list-map-keys"],
        json!(["name"])
    );
    assert!(api.get("/openapi/v2").await.body["definitions"][name].is_object());
}

#[tokio::test]
async fn verifiers_find_the_keys_without_a_credential() {
    let api = Api::new().await;
    let read = async |path: &str| {
        let request = Request::builder().uri(path).body(axum::body::Body::empty()).expect("a request");
        let response = api.router.clone().oneshot(request).await.expect("infallible");
        assert_eq!(response.status(), 200, "{path}");
        assert_eq!(response.headers()["cache-control"], "public, max-age=3600");
        let kind = response.headers()["content-type"].to_str().expect("text").to_owned();
        let bytes = axum::body::to_bytes(response.into_body(), 1 << 16).await.expect("a body");
        (kind, serde_json::from_slice::<Value>(&bytes).expect("JSON"))
    };

    let (kind, configuration) = read(CONFIGURATION_PATH).await;
    assert_eq!(kind, "application/json");
    insta::assert_json_snapshot!(configuration, @r#"
    {
      "id_token_signing_alg_values_supported": [
        "ES256"
      ],
      "issuer": "https://gantry.internal",
      "jwks_uri": "https://gantry.internal/openid/v1/jwks",
      "response_types_supported": [
        "id_token"
      ],
      "subject_types_supported": [
        "public"
      ]
    }
    "#);
    let (kind, mut keys) = read(KEYS_PATH).await;
    assert_eq!(kind, "application/jwk-set+json");
    for field in ["kid", "x", "y"] {
        assert_eq!(keys["keys"][0][field].take().as_str().map(str::len), Some(43), "{field}");
    }
    insta::assert_json_snapshot!(keys, @r#"
    {
      "keys": [
        {
          "alg": "ES256",
          "crv": "P-256",
          "kid": null,
          "kty": "EC",
          "use": "sig",
          "x": null,
          "y": null
        }
      ]
    }
    "#);
}

const HERE: std::net::IpAddr = std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);

/// Sends a request as the server does that found this token on it.
async fn with_token(api: &Api, token: &str, path: &str) -> (u16, String) {
    let authenticator = authenticator(&api.tokens, &api.store, Arc::new(Standing));
    let request = Request::builder().uri(path).header("authorization", format!("Bearer {token}"));
    let mut request = request.body(axum::body::Body::empty()).expect("a request");
    authenticator.identify(None, HERE, &mut request).await;
    let response = api.router.clone().oneshot(request).await.expect("infallible");
    let code = response.status().as_u16();
    let bytes = axum::body::to_bytes(response.into_body(), 1 << 16).await.expect("a body");
    let status: Value = serde_json::from_slice(&bytes).unwrap_or_default();
    (code, status["message"].as_str().unwrap_or_default().to_owned())
}

async fn token(api: &Api) -> String {
    let answer = ask(api, json!({})).await;
    answer.body["status"]["token"].as_str().expect("a token").to_owned()
}

#[tokio::test]
async fn an_account_may_nothing_and_is_told_who_it_is() {
    let api = with_account().await;
    let token = token(&api).await;

    let (code, said) = with_token(&api, &token, SECRETS).await;
    assert_eq!(code, 403);
    insta::assert_snapshot!(said, @r#"secrets is forbidden: User "system:serviceaccount:default:bot" cannot list resource "secrets" in API group "" in the namespace "default""#);
    for path in [TOKEN, ACCOUNTS, "/metrics", "/apis", "/api/v1/namespaces"] {
        assert_eq!(with_token(&api, &token, path).await.0, 403, "{path}");
    }
    assert_eq!(with_token(&api, &token, "/version").await.0, 200);
    assert_eq!(with_token(&api, &token[..token.len() - 9], SECRETS).await.0, 401);
}

#[tokio::test]
async fn a_token_of_an_account_that_another_replica_deleted_is_refused_on_the_next_request() {
    let api = with_account().await;
    let (token, other) = (token(&api).await, api.replica().await);
    assert_eq!(with_token(&api, &token, SECRETS).await.0, 403);

    assert_eq!(other.delete(&format!("{ACCOUNTS}/bot")).await.code, 200);

    assert_eq!(with_token(&api, &token, SECRETS).await.0, 401);
    other.post(ACCOUNTS, &account("bot")).await;
    assert_eq!(with_token(&api, &token, SECRETS).await.0, 401);
}

#[tokio::test]
async fn while_the_database_is_away_an_account_is_told_to_try_again() {
    let api = with_account().await;
    let token = token(&api).await;

    api.database.set_away(true);

    let (code, said) = with_token(&api, &token, SECRETS).await;
    assert_eq!(code, 503);
    insta::assert_snapshot!(said, @"the database does not answer, so whether the ServiceAccount of this token still exists is unknown; try again");
    assert_eq!(with_token(&api, &token, "/livez").await.0, 200);
    assert_eq!(with_token(&api, "x.y.z", SECRETS).await.0, 401);
}

/// t11: were an account allowed to watch.
#[tokio::test]
async fn t11_an_open_watch_ends_with_the_account_that_opened_it() {
    let api = with_account().await;
    let authenticator = authenticator(&api.tokens, &api.store, Arc::new(Standing));
    let header = format!("Bearer {}", token(&api).await);
    let request = Request::builder().uri(format!("{SECRETS}?watch=1")).header("authorization", header);
    let mut request = request.body(axum::body::Body::empty()).expect("a request");
    authenticator.identify(None, HERE, &mut request).await;
    request.extensions_mut().insert(Caller::system("test"));
    let response = api.router.clone().oneshot(request).await.expect("infallible");
    assert_eq!(response.status(), 200);

    api.delete(&format!("{ACCOUNTS}/bot")).await;

    let rest = axum::body::to_bytes(response.into_body(), 1 << 16);
    let rest = tokio::time::timeout(Duration::from_secs(60), rest).await.expect("it ends");
    let last: serde_json::Value = serde_json::from_slice(&rest.expect("in order")).expect("one event");
    assert_eq!(last["type"], "ERROR");
    assert!(last["object"]["message"].as_str().expect("words").contains("whose it was is gone"), "{last}");
}
