//! A private registry: whose credentials it is shown, what it says of them, and where they are found afterwards: nowhere.

use std::path::Path;
use std::time::Duration;

use anyhow::ensure;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use gantry_e2e::agent::Agent;
use gantry_e2e::engine::Engine;
use gantry_e2e::eventually;
use gantry_e2e::manifest::image_operation;
use gantry_e2e::registry::Registry;
use gantry_e2e::world::{Host, World};
use serde_json::Value;

const USER: &str = "robot";
/// Right at first, then another one; and one that never was. In base64 they have letters that are written otherwise for URLs.
const FIRST: &str = "planted-first-?~?~?~";
const SECOND: &str = "planted-second-?~?~?~";
const WRONG: &str = "planted-wrong-?~?~?~";

/// One host and a registry that wants [`USER`] with [`FIRST`].
struct Place {
    world: World,
    registry: Registry,
    image: String,
}

impl Place {
    async fn new() -> anyhow::Result<Self> {
        let mut world = World::new().await?;
        world.controller.set_variable("RUST_LOG", "trace");
        world.controller.stop().await?;
        world.controller.resume().await?;
        let mut registry = Registry::start(&world.path("registry")).await?;
        let engine = Engine::start(&world.path("nuc-01"), Some(registry.name())).await?;
        let image = format!("{}/team/demo:1", registry.name());
        engine.publish(&image, 100_000).await?;
        registry.require(USER, FIRST).await?;
        let settings = world.agent_settings("nuc-01", &engine.host()).await?;
        let mut agent = Agent::prepare(&world.path("nuc-01-agent"), settings)?;
        agent.set_variable("RUST_LOG", Some("trace"));
        agent.set_variable("DOCKER_CONFIG", world.path("docker").to_str());
        agent.resume()?;
        world.hosts.insert("nuc-01".to_owned(), Host { agent, engine });
        world.becomes_healthy("nuc-01", "Online").await?;
        Ok(Self { world, registry, image })
    }

    /// What people do who have never heard of Gantry.
    async fn create_secret(&self, name: &str, password: &str) -> anyhow::Result<()> {
        let server = format!("--docker-server={}", self.registry.name());
        let (user, password) = (format!("--docker-username={USER}"), format!("--docker-password={password}"));
        let kubectl = self.world.kubectl();
        kubectl.run(["create", "secret", "docker-registry", name, &server, &user, &password]).await.map(drop)
    }

    async fn rotate_secret(&self, name: &str, password: &str) -> anyhow::Result<()> {
        self.world.kubectl().run(["delete", "secret", name]).await?;
        self.create_secret(name, password).await
    }

    async fn begin_pull(&self, name: &str, own: Option<&str>) -> anyhow::Result<()> {
        let own = own.map(|secret| format!("  parameters: {{pullSecretRef: {{name: {secret}}}}}"));
        let pull = image_operation(name, "nuc-01", "Pull", &self.image, &own.unwrap_or_default());
        self.world.kubectl().apply(&pull).await.map(drop)
    }

    async fn succeeds(&self, name: &str, own: Option<&str>) -> anyhow::Result<Value> {
        let engine = &self.world.host("nuc-01")?.engine;
        // Fetched anew, not found here.
        drop(engine.docker(["rmi", &self.image]).await);
        self.begin_pull(name, own).await?;
        let pulled = self.world.kubectl().reaches(name, "Succeeded").await?;
        engine.docker(["image", "inspect", &self.image]).await?;
        Ok(pulled)
    }

    async fn is_refused(&self, name: &str, own: Option<&str>) -> anyhow::Result<()> {
        self.begin_pull(name, own).await?;
        let failed = self.world.kubectl().reaches(name, "Failed").await?;
        assert_eq!(failed["status"]["result"], "ImagePullUnauthorized", "{failed:#}");
        Ok(())
    }

    async fn registry_says(&self, reason: &str) -> anyhow::Result<Value> {
        eventually(&format!("the Registry to say {reason}"), Duration::from_secs(20), async || {
            let registry = self.world.kubectl().get("registry", "private").await?;
            let said = registry["status"]["conditions"][0]["reason"].as_str().unwrap_or_default();
            ensure!(said == reason, "{registry:#}");
            Ok(registry)
        })
        .await
    }
}

fn dispatched(operation: &Value) -> &str {
    let conditions = operation["status"]["conditions"].as_array();
    let found = conditions.and_then(|all| all.iter().find(|one| one["type"] == "Dispatched"));
    found.and_then(|one| one["reason"].as_str()).unwrap_or_default()
}

#[tokio::test]
async fn t28_a_private_registry_is_shown_the_right_credentials_and_nobody_else_sees_them()
-> anyhow::Result<()> {
    let mut place = Place::new().await?;
    let kubectl = place.world.kubectl();

    // Missing: nobody has any.
    place.is_refused("nobody", None).await?;

    // Missing: the Registry's Secret is not there yet.
    kubectl
        .apply(&format!(
            "apiVersion: gantry.dev/v1alpha1\nkind: Registry\nmetadata: {{name: private}}\n\
             spec: {{server: \"{}\", secretRef: {{name: pull}}}}\n",
            place.registry.name()
        ))
        .await?;
    place.registry_says("SecretNotFound").await?;
    place.begin_pull("early", None).await?;
    eventually("the pull to say what it waits for", Duration::from_secs(20), async || {
        let early = kubectl.get("operation", "early").await?;
        ensure!(dispatched(&early) == "CredentialsUnavailable", "{early:#}");
        Ok(())
    })
    .await?;

    // Wrong, then right.
    place.create_secret("pull", WRONG).await?;
    let early = kubectl.reaches("early", "Failed").await?;
    assert_eq!(early["status"]["result"], "ImagePullUnauthorized", "{early:#}");
    let refused = place.registry_says("Unauthorized").await?;
    ensure!(refused["status"]["lastFailureTime"].is_string(), "{refused:#}");
    place.rotate_secret("pull", FIRST).await?;
    place.registry_says("NotTried").await?;
    let pulled = place.succeeds("right", None).await?;
    assert_eq!(pulled["status"]["pullCredentials"]["registryRef"]["name"], "private");
    let taken = place.registry_says("Authenticated").await?;
    ensure!(taken["status"]["lastAuthenticatedTime"].is_string(), "{taken:#}");
    let printed = kubectl.run(["get", "registries"]).await?;
    ensure!(printed.contains("True") && printed.contains(place.registry.name()), "{printed}");

    // Rotated at the registry, then here.
    place.registry.require(USER, SECOND).await?;
    place.is_refused("stale", None).await?;
    place.registry_says("Unauthorized").await?;
    place.rotate_secret("pull", SECOND).await?;
    place.succeeds("rotated", None).await?;
    place.registry_says("Authenticated").await?;

    // The Operation's own Secret goes first, for better and for worse.
    place.create_secret("own-wrong", WRONG).await?;
    place.is_refused("own-wrong", Some("own-wrong")).await?;
    place.registry_says("Authenticated").await?;
    place.create_secret("own-right", SECOND).await?;
    place.rotate_secret("pull", WRONG).await?;
    place.succeeds("own-right", Some("own-right")).await?;

    // Neither: the host's own, which count from the moment they are there.
    kubectl.run(["delete", "registry", "private"]).await?;
    place.is_refused("host-has-none", None).await?;
    let docker = place.world.path("docker");
    std::fs::create_dir_all(&docker)?;
    let auth = STANDARD.encode(format!("{USER}:{SECOND}"));
    std::fs::write(
        docker.join("config.json"),
        format!("{{\"auths\": {{\"{}\": {{\"auth\": \"{auth}\"}}}}}}", place.registry.name()),
    )?;
    let pulled = place.succeeds("host", None).await?;
    ensure!(pulled["status"]["pullCredentials"].is_null(), "{pulled:#}");

    found_nowhere(&place).await
}

/// Looks for what was planted wherever something was written, but for the host's own file.
async fn found_nowhere(place: &Place) -> anyhow::Result<()> {
    let agent = &place.world.host("nuc-01")?.agent;
    let dump = place.world.path("dump.sql");
    place.world.postgres.back_up(&dump).await?;
    let events =
        place.world.kubectl().run(["get", "events,operations,registries", "-A", "-o", "yaml"]).await?;
    let mut places = vec![
        ("the controller's log".to_owned(), place.world.controller.log().into_bytes()),
        ("the agent's log".to_owned(), agent.log().into_bytes()),
        ("the database".to_owned(), std::fs::read(&dump)?),
        ("what the API tells".to_owned(), events.into_bytes()),
    ];
    files(&agent.state_dir(), &mut places)?;
    ensure!(places.len() > 6, "the agent's state is somewhere else");
    for password in [FIRST, SECOND, WRONG] {
        let plain = password.to_owned();
        let pair = STANDARD.encode(format!("{USER}:{password}"));
        for (name, bytes) in &places {
            for form in [&plain, &pair, &STANDARD.encode(password)] {
                let is_found = bytes.windows(form.len()).any(|window| window == form.as_bytes());
                ensure!(!is_found, "{form} is in {name}");
            }
        }
    }
    let log = agent.log();
    ensure!(
        log.contains("TRACE") && log.contains("/images/create"),
        "the log tells too little to mean anything"
    );
    Ok(())
}

fn files(dir: &Path, places: &mut Vec<(String, Vec<u8>)>) -> anyhow::Result<()> {
    for entry in std::fs::read_dir(dir)? {
        let path = entry?.path();
        if path.is_dir() {
            files(&path, places)?;
        } else {
            places.push((path.display().to_string(), std::fs::read(&path)?));
        }
    }
    Ok(())
}
