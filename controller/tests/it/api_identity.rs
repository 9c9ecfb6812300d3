//! Who somebody is, acts as and may ask about: impersonation and the reviews.

use http::Method;
use serde_json::{Value, json};

use crate::world::api::{Answer, CONFIG_MAPS};
use crate::world::people::{AUTHORIZATION, Person, RBAC, binding, started};

const ACCOUNTS: &str = "/api/v1/namespaces/default/serviceaccounts";

#[tokio::test]
async fn t04_acting_as_somebody_else_needs_the_right_to_be_all_of_that() {
    let api = started().await;
    api.make_role(
        "acts",
        json!([
        {"apiGroups": [""], "resources": ["users"], "resourceNames": ["bob"], "verbs": ["impersonate"]},
        {"apiGroups": [""], "resources": ["groups"], "resourceNames": ["ops"], "verbs": ["impersonate"]},
        {"apiGroups": ["authentication.k8s.io"], "resources": ["userextras/why"], "verbs": ["impersonate"]}]),
    )
    .await;
    let acts = binding("acts", "ClusterRole", "acts", "ada");
    assert_eq!(api.post(&format!("{RBAC}/clusterrolebindings"), &acts).await.code, 201);
    api.bind("gantry-viewer", "bob").await;
    let (ada, eve) = (api.person("ada", &[]), api.person("eve", &[]));
    let get = async |person: &Person<'_>, headers: &[(&str, &str)]| {
        person.send(Method::GET, CONFIG_MAPS, headers, String::new()).await
    };
    let bob = ("impersonate-user", "bob");

    assert_eq!(get(&ada, &[]).await.code, 403);
    assert_eq!(get(&ada, &[bob]).await.code, 200);
    assert_eq!(
        get(&ada, &[bob, ("impersonate-group", "ops"), ("impersonate-extra-why", "x")]).await.code,
        200
    );
    let refused = [
        get(&eve, &[bob]).await,
        get(&ada, &[("impersonate-user", "carol")]).await,
        get(&ada, &[bob, ("impersonate-group", "system:masters")]).await,
        get(&ada, &[bob, ("impersonate-uid", "7")]).await,
        get(&ada, &[bob, ("impersonate-extra-what", "x")]).await,
        get(&ada, &[("impersonate-user", "system:serviceaccount:default:bot")]).await,
    ];
    let said: Vec<_> = refused.iter().map(Answer::message).collect();
    insta::assert_snapshot!(said.join("\n"), @r#"
    403 users "bob" is forbidden: User "eve" cannot impersonate resource "users" in API group "" at the cluster scope
    403 users "carol" is forbidden: User "ada" cannot impersonate resource "users" in API group "" at the cluster scope
    403 groups "system:masters" is forbidden: User "ada" cannot impersonate resource "groups" in API group "" at the cluster scope
    403 uids.authentication.k8s.io "7" is forbidden: User "ada" cannot impersonate resource "uids" in API group "authentication.k8s.io" at the cluster scope
    403 userextras.authentication.k8s.io "x" is forbidden: User "ada" cannot impersonate resource "userextras/what" in API group "authentication.k8s.io" at the cluster scope
    403 serviceaccounts "bot" is forbidden: User "ada" cannot impersonate resource "serviceaccounts" in API group "" in the namespace "default"
    "#);
    assert_eq!(get(&ada, &[("impersonate-group", "ops")]).await.code, 400);

    let who = ada
        .send(
            Method::POST,
            "/apis/authentication.k8s.io/v1/selfsubjectreviews",
            &[
                bob,
                ("impersonate-group", "ops"),
                ("impersonate-extra-why", "x"),
                ("content-type", "application/json"),
            ],
            "{}".to_owned(),
        )
        .await;
    insta::assert_snapshot!(who.body["status"], @r#"{"userInfo":{"extra":{"why":["x"]},"groups":["ops","system:authenticated"],"username":"bob"}}"#);
    // Schemathesis: a time is a text, never null.
    assert_eq!(who.body["metadata"], json!({}));
}

#[tokio::test]
async fn reviews_say_what_the_authoriser_would() {
    let api = started().await;
    api.bind("gantry-viewer", "ada").await;
    let ada = api.person("ada", &["ops"]);
    let review = async |person: &Person<'_>, path: &str, spec: Value| {
        let answer = person.post(&format!("{AUTHORIZATION}/{path}"), &json!({"spec": spec})).await;
        if answer.code == 201 { answer.body["status"].to_string() } else { answer.message() }
    };
    let admin = api.person("root", &["system:masters"]);
    let secrets = json!({"verb": "get", "resource": "secrets", "namespace": "default", "name": "x"});
    let maps = json!({"verb": "list", "resource": "configmaps", "namespace": "default"});
    let metrics = json!({"verb": "get", "path": "/metrics"});

    let said = [
        review(&ada, "selfsubjectaccessreviews", json!({"resourceAttributes": maps})).await,
        review(&ada, "selfsubjectaccessreviews", json!({"resourceAttributes": secrets})).await,
        review(
            &ada,
            "selfsubjectaccessreviews",
            json!({"nonResourceAttributes": {"verb": "get", "path": "/apis"}}),
        )
        .await,
        review(&ada, "selfsubjectaccessreviews", json!({})).await,
        review(&ada, "subjectaccessreviews", json!({"user": "ada", "resourceAttributes": maps})).await,
        review(&admin, "subjectaccessreviews", json!({"user": "ada", "resourceAttributes": maps})).await,
        review(&admin, "subjectaccessreviews", json!({"user": "eve", "resourceAttributes": maps})).await,
        review(
            &admin,
            "subjectaccessreviews",
            json!({"user": "x", "groups": ["system:monitoring"], "nonResourceAttributes": metrics}),
        )
        .await,
        review(&admin, "subjectaccessreviews", json!({"resourceAttributes": maps})).await,
        review(
            &admin,
            "namespaces/default/localsubjectaccessreviews",
            json!({"user": "ada", "resourceAttributes": maps}),
        )
        .await,
        review(
            &admin,
            "namespaces/other/localsubjectaccessreviews",
            json!({"user": "ada", "resourceAttributes": maps}),
        )
        .await,
        review(
            &admin,
            "namespaces/other/localsubjectaccessreviews",
            json!({"user": "ada", "nonResourceAttributes": metrics}),
        )
        .await,
        review(&admin, "selfsubjectrulesreviews", json!({})).await,
    ];

    insta::assert_snapshot!(said.join("\n"), @r#"
    {"allowed":true,"reason":"RBAC: allowed by RoleBinding \"gantry-viewer-ada/default\" of ClusterRole \"gantry-viewer\""}
    {"allowed":false}
    {"allowed":true,"reason":"RBAC: allowed by ClusterRoleBinding \"system:discovery\" of ClusterRole \"system:discovery\""}
    422 SelfSubjectAccessReview.authorization.k8s.io "" is invalid: spec.resourceAttributes: Invalid value: exactly one of nonResourceAttributes or resourceAttributes must be specified
    403 subjectaccessreviews.authorization.k8s.io is forbidden: User "ada" cannot create resource "subjectaccessreviews" in API group "authorization.k8s.io" at the cluster scope
    {"allowed":true,"reason":"RBAC: allowed by RoleBinding \"gantry-viewer-ada/default\" of ClusterRole \"gantry-viewer\""}
    {"allowed":false}
    {"allowed":true,"reason":"RBAC: allowed by ClusterRoleBinding \"system:monitoring\" of ClusterRole \"system:monitoring\""}
    422 SubjectAccessReview.authorization.k8s.io "" is invalid: spec.user: Invalid value: at least one of user or group must be specified
    {"allowed":true,"reason":"RBAC: allowed by RoleBinding \"gantry-viewer-ada/default\" of ClusterRole \"gantry-viewer\""}
    422 LocalSubjectAccessReview.authorization.k8s.io "" is invalid: spec.resourceAttributes.namespace: Invalid value: must match metadata.namespace
    422 LocalSubjectAccessReview.authorization.k8s.io "" is invalid: spec.nonResourceAttributes: Invalid value: disallowed on this kind of request
    400 spec.namespace: Required value: no namespace on request
    "#);
    let rules = review(&ada, "selfsubjectrulesreviews", json!({"namespace": "default"})).await;
    let rules: Value = serde_json::from_str(&rules).expect("JSON");
    insta::assert_snapshot!(serde_json::to_string_pretty(&rules["resourceRules"]).expect("JSON"), @r#"
    [
      {
        "apiGroups": [
          "gantry.dev"
        ],
        "resources": [
          "dockerinstances",
          "dockerinstances/status",
          "operations",
          "operations/status",
          "registries",
          "registries/status",
          "policies",
          "clusterpolicies"
        ],
        "verbs": [
          "get",
          "list",
          "watch"
        ]
      },
      {
        "apiGroups": [
          "docker.gantry.dev"
        ],
        "resources": [
          "containers",
          "images",
          "networks",
          "volumes"
        ],
        "verbs": [
          "get",
          "list",
          "watch"
        ]
      },
      {
        "apiGroups": [
          "gantry.dev"
        ],
        "resources": [
          "dockerinstances/info",
          "dockerinstances/containers",
          "dockerinstances/images",
          "dockerinstances/networks",
          "dockerinstances/volumes",
          "dockerinstances/logs",
          "dockerinstances/stats",
          "dockerinstances/df",
          "dockerinstances/events",
          "dockerinstances/top",
          "operations/progress"
        ],
        "verbs": [
          "get"
        ]
      },
      {
        "apiGroups": [
          ""
        ],
        "resources": [
          "configmaps",
          "events",
          "namespaces",
          "nodes",
          "pods",
          "serviceaccounts"
        ],
        "verbs": [
          "get",
          "list",
          "watch"
        ]
      },
      {
        "apiGroups": [
          ""
        ],
        "resources": [
          "pods/log"
        ],
        "verbs": [
          "get"
        ]
      },
      {
        "apiGroups": [
          "metrics.k8s.io"
        ],
        "resources": [
          "nodes",
          "pods"
        ],
        "verbs": [
          "get",
          "list"
        ]
      },
      {
        "apiGroups": [
          "events.k8s.io"
        ],
        "resources": [
          "events"
        ],
        "verbs": [
          "get",
          "list",
          "watch"
        ]
      },
      {
        "apiGroups": [
          "coordination.k8s.io"
        ],
        "resources": [
          "leases"
        ],
        "verbs": [
          "get",
          "list",
          "watch"
        ]
      },
      {
        "apiGroups": [
          "gantry.dev"
        ],
        "resources": [
          "dockerinstances/docker"
        ],
        "verbs": [
          "get"
        ]
      },
      {
        "apiGroups": [
          "authorization.k8s.io"
        ],
        "resources": [
          "selfsubjectaccessreviews",
          "selfsubjectrulesreviews"
        ],
        "verbs": [
          "create"
        ]
      },
      {
        "apiGroups": [
          "authentication.k8s.io"
        ],
        "resources": [
          "selfsubjectreviews"
        ],
        "verbs": [
          "create"
        ]
      }
    ]
    "#);
}

#[tokio::test]
async fn a_review_says_whose_token_it_is_and_for_whom() {
    let api = started().await;
    api.post(ACCOUNTS, &json!({"metadata": {"name": "bot"}})).await;
    let issue = async |audiences: Value| {
        let asked = json!({"spec": {"audiences": audiences}});
        let answer = api.post(&format!("{ACCOUNTS}/bot/token"), &asked).await;
        answer.body["status"]["token"].as_str().expect("a token").to_owned()
    };
    let (ours, vaults) = (issue(json!([])).await, issue(json!(["vault", "other"])).await);
    let review = async |token: &str, audiences: Value| {
        let asked = json!({"spec": {"token": token, "audiences": audiences}});
        let answer = api.post("/apis/authentication.k8s.io/v1/tokenreviews", &asked).await;
        assert!(token.is_empty() || !answer.body.to_string().contains(token), "it is given back");
        let status = &answer.body["status"];
        if answer.code == 201 {
            format!("{} {} {}", status["user"]["username"], status["audiences"], status["error"])
        } else {
            answer.message()
        }
    };

    let said = [
        review(&ours, json!([])).await,
        review(&ours, json!(["vault"])).await,
        review(&vaults, json!([])).await,
        review(&vaults, json!(["x", "vault"])).await,
        review("xyzzy", json!([])).await,
        review("", json!([])).await,
    ];
    api.delete(&format!("{ACCOUNTS}/bot")).await;
    let gone = review(&vaults, json!(["vault"])).await;

    insta::assert_snapshot!(said.join("\n"), @r#"
    "system:serviceaccount:default:bot" ["https://gantry.internal"] null
    null null "the token is none that is accepted for these audiences"
    null null "the token is none that is accepted for these audiences"
    "system:serviceaccount:default:bot" ["vault"] null
    null null "the token is none that is accepted for these audiences"
    422 TokenReview.authentication.k8s.io "" is invalid: spec.token: Invalid value: a token is required
    "#);
    insta::assert_snapshot!(gone, @r#"null null "the token is none that is accepted for these audiences""#);
}
