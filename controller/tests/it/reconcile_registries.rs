//! Registries and the credentials of pulls, through the real router, with agents in memory.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use gantry_api::agent_v1::RegistryAuth;
use serde_json::{Value, json};

use crate::reconcile_loops::{World, reason};
use crate::world::api::{NAMESPACES, OPERATIONS, SECRETS};

const REGISTRIES: &str = "/apis/gantry.dev/v1alpha1/namespaces/default/registries";
const IMAGE: &str = "registry.example/team/app:2";

fn docker_config(server: &str, password: &str) -> Value {
    let config = json!({"auths": {server: {"username": "robot", "password": password}}}).to_string();
    json!({".dockerconfigjson": STANDARD.encode(config)})
}

impl World {
    async fn make(&self, path: &str, object: Value) {
        let made = self.api.post(path, &object).await;
        assert_eq!(made.code, 201, "{made:?}");
    }

    /// As `kubectl create secret docker-registry` does it.
    async fn secret(&self, name: &str, server: &str, password: &str) {
        self.make(
            SECRETS,
            json!({
                "apiVersion": "v1", "kind": "Secret", "metadata": {"name": name},
                "type": "kubernetes.io/dockerconfigjson", "data": docker_config(server, password),
            }),
        )
        .await;
    }

    async fn rotate(&self, name: &str, password: &str) {
        let change = json!({"data": docker_config("registry.example", password)});
        assert_eq!(self.api.merge(&format!("{SECRETS}/{name}"), &change).await.code, 200);
    }

    async fn registry(&self, name: &str, server: &str, secret: &str) {
        self.make(
            REGISTRIES,
            json!({
                "apiVersion": "gantry.dev/v1alpha1", "kind": "Registry", "metadata": {"name": name},
                "spec": {"server": server, "secretRef": {"name": secret}},
            }),
        )
        .await;
    }

    async fn pull_with(&self, name: &str, image: &str, parameters: Value) {
        self.make(
            OPERATIONS,
            json!({
                "apiVersion": "gantry.dev/v1alpha1", "kind": "Operation", "metadata": {"name": name},
                "spec": {
                    "instanceRef": {"name": "nuc-03"}, "action": "Pull",
                    "target": {"kind": "Image", "name": image}, "parameters": parameters,
                },
            }),
        )
        .await;
    }

    async fn pull(&self, name: &str, image: &str) {
        self.pull_with(name, image, json!({})).await;
    }

    async fn registry_is(&self, name: &str, ready: &str) -> Value {
        self.until(&format!("{REGISTRIES}/{name}"), |found| reason(found, "Ready") == ready).await
    }

    /// What the last pull was submitted with.
    fn shown(&self) -> Option<String> {
        self.agents.shown().pop().expect("a pull").map(|RegistryAuth { password, .. }| password)
    }
}

async fn world() -> World {
    let world = World::new().await;
    world.host("nuc-03").await;
    world
}

#[tokio::test]
async fn a_pull_takes_the_credentials_of_the_registry_for_its_server() {
    let world = world().await;
    world.secret("pull", "registry.example", "right").await;
    world.secret("hub", "https://index.docker.io/v1/", "hub").await;
    world.registry("mine", "registry.example", "pull").await;
    world.registry("hub", "docker.io", "hub").await;

    for (name, image, password) in [
        ("mine", IMAGE, Some("right")),
        ("hub", "nginx:1.27", Some("hub")),
        ("other", "other.example/app:1", None),
        ("port", "registry.example:5000/app:1", None),
    ] {
        world.pull(name, image).await;
        let pulled = world.phase(name, "Succeeded").await;
        assert_eq!(world.shown().as_deref(), password, "{image}");
        assert_eq!(
            pulled["status"]["pullCredentials"]["registryRef"]["name"].as_str(),
            password.map(|_| name)
        );
    }
    let mine = world.api.get(&format!("{OPERATIONS}/mine")).await.body;
    let used = &mine["status"]["pullCredentials"];
    assert_eq!((&used["server"], &used["secretRef"]["name"]), (&json!("registry.example"), &json!("pull")));
    world.end().await;
}

#[tokio::test]
async fn an_operations_own_secret_goes_before_the_registry() {
    let world = world().await;
    world.secret("pull", "registry.example", "registry's").await;
    world.secret("own", "registry.example", "own").await;
    world.registry("mine", "registry.example", "pull").await;

    world.pull_with("own", IMAGE, json!({"pullSecretRef": {"name": "own"}})).await;

    let pulled = world.phase("own", "Succeeded").await;
    assert_eq!(world.shown().as_deref(), Some("own"));
    assert_eq!(pulled["status"]["pullCredentials"]["registryRef"], Value::Null);
    assert_eq!(pulled["status"]["pullCredentials"]["secretRef"]["name"], "own");
    world.end().await;
}

#[tokio::test]
async fn of_two_registries_for_one_server_the_oldest_is_taken() {
    let world = world().await;
    world.secret("first", "registry.example", "first").await;
    world.secret("second", "registry.example", "second").await;
    // Made within one second, so by name.
    world.registry("b-registry", "registry.example", "second").await;
    world.registry("a-registry", "Registry.Example", "first").await;

    let made =
        |object: &Value| object["metadata"]["creationTimestamp"].as_str().unwrap_or_default().to_owned();
    let a = world.api.get(&format!("{REGISTRIES}/a-registry")).await.body;
    let b = world.api.get(&format!("{REGISTRIES}/b-registry")).await.body;
    let oldest = if made(&b) < made(&a) { "second" } else { "first" };
    for name in ["one", "two"] {
        world.pull(name, IMAGE).await;
        world.phase(name, "Succeeded").await;
        assert_eq!(world.shown().as_deref(), Some(oldest));
    }
    world.end().await;
}

#[tokio::test]
async fn a_pull_whose_secret_is_missing_waits_for_it() {
    let world = world().await;
    world.registry("mine", "registry.example", "pull").await;
    world.registry_is("mine", "False SecretNotFound").await;
    world.pull("early", IMAGE).await;

    let path = format!("{OPERATIONS}/early");
    let waiting =
        world.until(&path, |found| reason(found, "Dispatched") == "False CredentialsUnavailable").await;
    assert_eq!(
        waiting["status"]["message"],
        "registry \"mine\": secret \"pull\" does not exist in this namespace"
    );
    assert!(world.agents.submitted().is_empty());
    world.secret("pull", "registry.example", "right").await;

    world.phase("early", "Succeeded").await;
    assert_eq!(world.shown().as_deref(), Some("right"));
    world.end().await;
}

#[tokio::test]
async fn a_registry_says_what_came_of_its_credentials() {
    let world = world().await;
    world.agents.want_password("right");
    world.secret("pull", "registry.example", "wrong").await;
    world.registry("mine", "registry.example", "pull").await;
    let new = world.registry_is("mine", "Unknown NotTried").await;
    assert_eq!(new["status"]["lastAuthenticatedTime"], Value::Null);

    world.pull("refused", IMAGE).await;
    let failed = world.phase("refused", "Failed").await;
    assert_eq!(failed["status"]["result"], "ImagePullUnauthorized");
    let refused = world.registry_is("mine", "False Unauthorized").await;
    assert_eq!(refused["status"]["conditions"][0]["message"], "unauthorized: authentication required");
    assert!(
        refused["status"]["lastFailureTime"].is_string()
            && refused["status"]["lastAuthenticatedTime"].is_null()
    );

    world.rotate("pull", "right").await;
    world.registry_is("mine", "Unknown NotTried").await;
    world.pull("taken", IMAGE).await;
    world.phase("taken", "Succeeded").await;
    let taken = world.registry_is("mine", "True Authenticated").await;
    assert!(
        taken["status"]["lastAuthenticatedTime"].is_string()
            && taken["status"]["lastFailureTime"].is_string()
    );

    assert_eq!(world.api.delete(&format!("{SECRETS}/pull")).await.code, 200);
    world.registry_is("mine", "False SecretNotFound").await;
    world.end().await;
}

#[tokio::test]
async fn a_pull_that_lost_its_credentials_gets_what_the_secret_holds_now() {
    let world = World::new().await;
    let uid = world.host("nuc-03").await;
    world.agents.hold();
    world.secret("pull", "registry.example", "old").await;
    world.registry("mine", "registry.example", "pull").await;
    world.pull("held", IMAGE).await;
    world.phase("held", "Running").await;
    assert_eq!(world.shown().as_deref(), Some("old"));
    world.rotate("pull", "new").await;

    world.agents.lose_credentials(uid);

    while world.shown().as_deref() != Some("new") {
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    assert_eq!(world.agents.submitted().len(), 1, "as the same attempt");
    world.end().await;
}

#[tokio::test]
async fn t10_a_secret_of_another_namespace_is_as_good_as_none() {
    let world = world().await;
    world
        .make(NAMESPACES, json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "other"}}))
        .await;
    let elsewhere = SECRETS.replace("/default/", "/other/");
    world.make(&elsewhere, json!({
        "apiVersion": "v1", "kind": "Secret", "metadata": {"name": "there"},
        "type": "kubernetes.io/dockerconfigjson", "data": docker_config("registry.example", "hunter2"),
    }))
    .await;
    let registries = REGISTRIES.replace("/default/", "/other/");
    world
        .make(
            &registries,
            json!({
                "apiVersion": "gantry.dev/v1alpha1", "kind": "Registry", "metadata": {"name": "theirs"},
                "spec": {"server": "registry.example", "secretRef": {"name": "there"}},
            }),
        )
        .await;

    let mut told = Vec::new();
    for name in ["there", "nowhere"] {
        world
            .pull_with(name, &format!("registry.example/{name}:1"), json!({"pullSecretRef": {"name": name}}))
            .await;
        let path = format!("{OPERATIONS}/{name}");
        let found =
            world.until(&path, |found| reason(found, "Dispatched") == "False CredentialsUnavailable").await;
        told.push(found["status"]["message"].as_str().unwrap_or_default().replace(name, "NAME"));
    }
    assert_eq!(told, ["secret \"NAME\" does not exist in this namespace"; 2]);

    // Nor does the Registry over there serve the pulls here.
    world.pull("plain", IMAGE).await;
    world.phase("plain", "Succeeded").await;
    assert_eq!(world.shown(), None);
    world.end().await;
}

#[tokio::test]
async fn t28_a_password_without_a_server_goes_to_no_server_of_the_pullers_choice() {
    let world = world().await;
    world.make(SECRETS, json!({
        "apiVersion": "v1", "kind": "Secret", "metadata": {"name": "database"},
        "type": "kubernetes.io/basic-auth", "stringData": {"username": "robot", "password": "hunter2"},
    }))
    .await;

    world.pull_with("steal", "evil.example/app:1", json!({"pullSecretRef": {"name": "database"}})).await;

    let path = format!("{OPERATIONS}/steal");
    world.until(&path, |found| reason(found, "Dispatched") == "False CredentialsUnavailable").await;
    assert!(world.agents.submitted().is_empty());
    world.registry("mine", "registry.example", "database").await;
    world.pull("plain", IMAGE).await;
    world.phase("plain", "Succeeded").await;
    assert_eq!(world.shown().as_deref(), Some("hunter2"));
    world.end().await;
}

#[tokio::test]
async fn t28_a_password_is_in_nothing_that_is_written_about_a_pull() {
    const PLANTED: &str = "hunter2-hunter2";
    let world = world().await;
    world.secret("pull", "registry.example", PLANTED).await;
    world.registry("mine", "registry.example", "pull").await;
    world.pull("taken", IMAGE).await;
    world.phase("taken", "Succeeded").await;
    world.registry_is("mine", "True Authenticated").await;
    world.agents.want_password("another");
    world.pull("refused", IMAGE).await;
    world.phase("refused", "Failed").await;
    world.registry_is("mine", "False Unauthorized").await;
    let broken = json!({"data": {".dockerconfigjson": STANDARD.encode(PLANTED)}});
    assert_eq!(world.api.merge(&format!("{SECRETS}/pull"), &broken).await.code, 200);
    world.registry_is("mine", "False SecretUnusable").await;
    world.pull("broken", IMAGE).await;
    let path = format!("{OPERATIONS}/broken");
    world.until(&path, |found| reason(found, "Dispatched") == "False CredentialsUnavailable").await;

    for path in [OPERATIONS, REGISTRIES, "/api/v1/namespaces/default/events"] {
        let told = world.api.get(path).await.body.to_string();
        assert!(told.contains("\"items\":[{"), "{path}");
        assert!(!told.contains("hunter2") && !told.contains(&STANDARD.encode(PLANTED)), "{path}");
    }
    world.end().await;
}

#[tokio::test]
async fn a_registry_names_a_server_and_nothing_more() {
    let world = world().await;
    let code = async |server: &str| {
        let object = json!({
            "apiVersion": "gantry.dev/v1alpha1", "kind": "Registry", "metadata": {"generateName": "r-"},
            "spec": {"server": server, "secretRef": {"name": "pull"}},
        });
        world.api.post(REGISTRIES, &object).await.code
    };
    for server in ["docker.io", "registry.example:5000", "localhost", "192.0.2.7", "[2001:db8::1]:5000"] {
        assert_eq!(code(server).await, 201, "{server}");
    }
    for server in
        ["", "https://registry.example", "registry.example/team", "a b", "host:port", "-a", "user@host"]
    {
        assert_eq!(code(server).await, 422, "{server}");
    }
    let misplaced = json!({
        "apiVersion": "gantry.dev/v1alpha1", "kind": "Operation", "metadata": {"name": "stop"},
        "spec": {"instanceRef": {"name": "nuc-03"}, "action": "Stop", "target": {"name": "web"},
            "parameters": {"pullSecretRef": {"name": "pull"}}},
    });
    assert_eq!(world.api.post(OPERATIONS, &misplaced).await.code, 422);
    world.end().await;
}
