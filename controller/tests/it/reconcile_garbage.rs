//! Garbage collection over the real router: dependents of owners that are gone, and Namespaces that go.

use gantry_api::agent_v1::Token;
use gantry_controller::apiserver::kinds::{Kind, stored};
use serde_json::{Value, json};

use crate::reconcile_loops::{INSTANCES, World};
use crate::world::api::{NAMESPACES, SECRETS};

#[tokio::test]
async fn what_an_owner_leaves_behind_is_collected_and_a_deleted_namespace_is_emptied() {
    let world = World::new().await;
    let uid = world.declare("nuc-03").await;
    let owner = json!({"apiVersion": "gantry.dev/v1alpha1", "kind": "DockerInstance", "name": "nuc-03", "uid": uid.to_string()});
    let secret = |name: &str| json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name, "ownerReferences": [owner]}});
    assert_eq!(world.api.post(SECRETS, &secret("owned")).await.code, 201);
    let free = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "free"}});
    assert_eq!(world.api.post(SECRETS, &free).await.code, 201);

    world.api.delete(&format!("{INSTANCES}/nuc-03")).await;
    world.gone(&format!("{SECRETS}/owned")).await;
    assert_eq!(world.api.get(&format!("{SECRETS}/free")).await.code, 200);

    let place = format!("{NAMESPACES}/team");
    world.api.post(NAMESPACES, &json!({"metadata": {"name": "team"}})).await;
    world.api.post("/api/v1/namespaces/team/secrets", &free).await;
    world.api.delete(&place).await;
    world.gone(&place).await;
    world.end().await;
}

/// An object of that kind, as little as it can be.
fn least(kind: &Kind) -> Value {
    let role = json!({"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "any"});
    let mut object = match kind.plural.as_str() {
        "configmaps" | "leases" | "secrets" | "serviceaccounts" => json!({}),
        "dockerinstances" => json!({"spec": {}}),
        "events" => json!({"involvedObject": {"namespace": "team"}, "reason": "Test"}),
        "operations" => {
            json!({"spec": {"instanceRef": {"name": "x"}, "action": "Stop", "target": {"name": "web"}}})
        }
        "policies" => json!({"spec": {"rules": [{"name": "r", "expression": "true"}]}}),
        "registries" => json!({"spec": {"server": "registry.example", "secretRef": {"name": "x"}}}),
        "rolebindings" => json!({"roleRef": role, "subjects": []}),
        "roles" => json!({"rules": []}),
        other => panic!("{other} is a kind that goes with its namespace: say here how one is made"),
    };
    object["apiVersion"] = kind.api_version().into();
    object["kind"] = kind.kind.clone().into();
    object["metadata"] = json!({"name": "x", "namespace": "team"});
    object
}

/// A Role that outlived its namespace would give its rights in the next one of that name.
#[tokio::test]
async fn with_a_namespace_goes_every_object_of_every_kind_that_is_in_one() {
    let world = World::new().await;
    let place = format!("{NAMESPACES}/team");
    world.api.post(NAMESPACES, &json!({"metadata": {"name": "team"}})).await;
    let mut paths = Vec::new();
    for kind in stored().filter(|kind| kind.namespaced) {
        let root = if kind.group.is_empty() { "/api" } else { "/apis" };
        let path = format!("{root}/{}/namespaces/team/{}", kind.api_version(), kind.plural);
        let made = world.api.post(&path, &least(kind)).await;
        assert_eq!(made.code, 201, "{path} {made:?}");
        paths.push(path);
    }
    assert!(paths.len() >= 11, "{paths:?}");

    world.api.delete(&place).await;
    world.gone(&place).await;

    for path in paths {
        let left = world.api.get(&path).await;
        assert_eq!((left.code, left.body["items"].as_array().map(Vec::len)), (200, Some(0)), "{path}");
    }
    world.end().await;
}

#[tokio::test]
async fn a_role_goes_with_its_owner_too() {
    let world = World::new().await;
    let maps = "/api/v1/namespaces/default/configmaps";
    let roles = "/apis/rbac.authorization.k8s.io/v1/namespaces/default/roles";
    let made = world.api.post(maps, &json!({"metadata": {"name": "owner"}})).await.body;
    let role = json!({"metadata": {"name": "owned", "ownerReferences": [owner(&made)]}, "rules": []});
    assert_eq!(world.api.post(roles, &role).await.code, 201);

    world.api.delete(&format!("{maps}/owner")).await;

    world.gone(&format!("{roles}/owned")).await;
    world.end().await;
}

/// A Secret of that name whose owners are these objects.
fn owned(name: &str, owners: &[Value]) -> Value {
    json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name, "ownerReferences": owners}})
}

/// A reference to a made object.
fn owner(made: &Value) -> Value {
    let metadata = &made["metadata"];
    json!({
        "apiVersion": made["apiVersion"], "kind": made["kind"], "name": metadata["name"], "uid": metadata["uid"],
        "blockOwnerDeletion": true,
    })
}

#[tokio::test]
async fn owners_that_vanished_before_anybody_looked_leave_nothing_behind() {
    let world = World::new().await;
    world.leadership.send_replace(None);
    let maps = "/api/v1/namespaces/default/configmaps";
    let gone = world.api.post(maps, &json!({"metadata": {"name": "owner"}})).await.body;
    let place = world.api.post(NAMESPACES, &json!({"metadata": {"name": "place"}})).await.body;
    let mut never = owner(&gone);
    never["uid"] = json!("01a222cf-5f17-7000-ade4-9b7710bb89bc");
    for (name, owners) in [
        ("gone", vec![owner(&gone)]),
        ("never", vec![never]),
        ("kept", vec![owner(&place)]),
        ("both", vec![owner(&gone), owner(&place)]),
    ] {
        assert_eq!(world.api.post(SECRETS, &owned(name, &owners)).await.code, 201);
    }
    assert_eq!(world.api.delete(&format!("{maps}/owner")).await.code, 200);

    world.leadership.send_replace(Some(Token { incarnation: 1, epoch: 2 }));

    world.gone(&format!("{SECRETS}/gone")).await;
    world.gone(&format!("{SECRETS}/never")).await;
    let both = world
        .until(&format!("{SECRETS}/both"), |both| {
            both["metadata"]["ownerReferences"].as_array().is_some_and(|owners| owners.len() == 1)
        })
        .await;
    assert_eq!(both["metadata"]["ownerReferences"][0]["kind"], "Namespace");
    assert_eq!(world.api.get(&format!("{SECRETS}/kept")).await.code, 200);
    world.api.delete(&format!("{NAMESPACES}/place")).await;
    world.gone(&format!("{SECRETS}/kept")).await;
    world.end().await;
}

#[tokio::test]
async fn an_owner_that_goes_in_the_foreground_waits_for_who_blocks_it_and_for_nobody_that_another_owner_holds()
 {
    let world = World::new().await;
    let maps = "/api/v1/namespaces/default/configmaps";
    let first = world.api.post(maps, &json!({"metadata": {"name": "first"}})).await.body;
    let second = world.api.post(maps, &json!({"metadata": {"name": "second"}})).await.body;
    let mut held = owned("held", &[owner(&first)]);
    held["metadata"]["finalizers"] = json!(["example.com/hold"]);
    world.api.post(SECRETS, &held).await;
    world.api.post(SECRETS, &owned("shared", &[owner(&first), owner(&second)])).await;

    world.api.delete(&format!("{maps}/first?propagationPolicy=Foreground")).await;

    world.until(&format!("{SECRETS}/held"), |held| !held["metadata"]["deletionTimestamp"].is_null()).await;
    world
        .until(&format!("{SECRETS}/shared"), |shared| {
            shared["metadata"]["ownerReferences"].as_array().is_some_and(|owners| owners.len() == 1)
        })
        .await;
    assert_eq!(world.api.get(&format!("{maps}/first")).await.code, 200);
    world.api.merge(&format!("{SECRETS}/held"), &json!({"metadata": {"finalizers": null}})).await;
    world.gone(&format!("{maps}/first")).await;

    world.api.delete(&format!("{maps}/second?propagationPolicy=Orphan")).await;
    world.gone(&format!("{maps}/second")).await;
    let left = world.api.get(&format!("{SECRETS}/shared")).await;
    assert_eq!((left.code, &left.body["metadata"]["ownerReferences"]), (200, &Value::Null));
    world.end().await;
}

#[tokio::test]
async fn t10_an_owner_in_another_namespace_is_none_and_an_event_says_so() {
    let world = World::new().await;
    world.api.post(NAMESPACES, &json!({"metadata": {"name": "other"}})).await;
    let elsewhere =
        world.api.post("/api/v1/namespaces/other/configmaps", &json!({"metadata": {"name": "owner"}})).await;
    let mut place = json!({"metadata": {"name": "place"}});
    place["metadata"]["ownerReferences"] = json!([owner(&elsewhere.body)]);
    assert_eq!(world.api.post(NAMESPACES, &place).await.code, 201);

    world.api.post(SECRETS, &owned("stray", &[owner(&elsewhere.body)])).await;

    world.gone(&format!("{SECRETS}/stray")).await;
    let events = "/api/v1/namespaces/default/events?fieldSelector=involvedObject.name%3Dstray";
    let found =
        world.until(events, |list| list["items"].as_array().is_some_and(|items| !items.is_empty())).await;
    assert_eq!(found["items"][0]["reason"], "OwnerRefInvalidNamespace");
    assert_eq!(world.api.get(&format!("{NAMESPACES}/place")).await.body["status"]["phase"], "Active");
    world.end().await;
}

#[tokio::test]
async fn a_namespace_that_waits_says_what_for() {
    let world = World::new().await;
    let place = format!("{NAMESPACES}/team");
    world.api.post(NAMESPACES, &json!({"metadata": {"name": "team"}})).await;
    let secrets = "/api/v1/namespaces/team/secrets";
    let held = json!({"metadata": {"name": "held", "finalizers": ["example.com/hold"]}});
    assert_eq!(world.api.post(secrets, &held).await.code, 201);

    assert_eq!(world.api.delete(&place).await.body["status"]["phase"], "Terminating");

    let condition = |place: &Value, kind: &str| {
        let list = place["status"]["conditions"].as_array().into_iter().flatten();
        list.clone().find(|condition| condition["type"] == kind).cloned().unwrap_or_default()
    };
    let found = world
        .until(&place, |place| condition(place, "NamespaceFinalizersRemaining")["status"] == "True")
        .await;
    assert_eq!(
        condition(&found, "NamespaceContentRemaining")["message"],
        "Some resources are remaining: secrets. has 1 resource instances"
    );
    assert_eq!(
        condition(&found, "NamespaceFinalizersRemaining")["message"],
        "Some content in the namespace has finalizers remaining: example.com/hold in 1 resource instances"
    );
    assert_eq!(condition(&found, "NamespaceDeletionContentFailure")["status"], "False");
    let refused = world.api.post(secrets, &json!({"metadata": {"name": "late"}})).await;
    assert_eq!(
        (refused.code, &refused.body["details"]["causes"][0]["reason"]),
        (403, &json!("NamespaceTerminating"))
    );
    world.api.merge(&format!("{secrets}/held"), &json!({"metadata": {"finalizers": null}})).await;
    world.gone(&place).await;
    world.end().await;
}
