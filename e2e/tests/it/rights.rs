//! Who may do what: an agent's certificate is good for as long as its instance wants it, a robot does what its roles say.

use std::time::Duration;

use anyhow::ensure;
use gantry_e2e::agent::Agent;
use gantry_e2e::eventually;
use gantry_e2e::fake_engine::FakeEngine;
use gantry_e2e::kubectl::Kubectl;
use gantry_e2e::manifest::operation;
use gantry_e2e::rest::{Rest, config_map};
use gantry_e2e::world::World;
use http::Request;
use kube::client::Body;

/// A connection has to end within 5 s; the rest is for a busy machine.
const PROMISED: Duration = Duration::from_secs(10);
const INSTANCE: &str = "/apis/gantry.dev/v1alpha1/namespaces/default/dockerinstances/nuc-01";

/// A host that is Online, and a thief's copy of what its agent has.
struct Theft {
    world: World,
    agent: Agent,
    copy: Agent,
    _engine: FakeEngine,
}

async fn theft() -> anyhow::Result<Theft> {
    let world = World::new().await?;
    let engine = FakeEngine::start(&world.path("docker.sock"), "1.41")?;
    let mut settings = world.agent_settings("nuc-01", &engine.host()).await?;
    let agent = Agent::start(&world.path("agent"), settings.clone())?;
    world.becomes_healthy("nuc-01", "Online").await?;
    agent.copy_state(&world.path("thief")).await?;
    settings.token = String::new();
    let mut copy = Agent::start(&world.path("thief"), settings)?;
    // Its turn comes when the other's connection is gone.
    copy.kill().await?;
    Ok(Theft { world, agent, copy, _engine: engine })
}

impl Theft {
    /// The connection ends, and neither the agent nor who has a copy of its state gets another one.
    async fn ends(mut self, reason: &str) -> anyhow::Result<()> {
        eventually("the connection to end", PROMISED, async || {
            let open = self.world.metric("gantry_agent_sessions").await?;
            ensure!(open == 0, "{open} are open");
            Ok(())
        })
        .await?;
        let log = self.agent.log();
        ensure!(log.matches("session is ready").count() == 1, "{log}");

        self.agent.kill().await?;
        self.agent.resume()?;
        self.copy.resume()?;
        for agent in [&self.agent, &self.copy] {
            eventually("the agent to be turned away", Duration::from_secs(30), async || {
                let log = agent.log();
                ensure!(log.contains(reason), "no {reason} in:\n{log}");
                Ok(())
            })
            .await?;
        }
        ensure!(!self.copy.log().contains("session is ready"), "{}", self.copy.log());
        assert_eq!(self.agent.log().matches("session is ready").count(), 1, "{}", self.agent.log());
        assert_eq!(self.world.metric("gantry_agent_sessions").await?, 0);
        Ok(())
    }
}

#[tokio::test]
async fn t18_the_certificate_of_an_archived_instance_stops_working_and_its_connection_ends()
-> anyhow::Result<()> {
    let theft = theft().await?;

    theft.world.kubectl().merge("di", "nuc-01", r#"{"spec":{"archived":true}}"#).await?;

    theft.ends("INSTANCE_ARCHIVED").await
}

#[tokio::test]
async fn t18_the_certificate_of_a_deleted_instance_stops_working_and_its_connection_ends()
-> anyhow::Result<()> {
    let theft = theft().await?;

    theft.world.kubectl().run(["delete", "di", "nuc-01"]).await?;

    theft.ends("INSTANCE_GONE").await
}

#[tokio::test]
async fn t18_the_certificate_of_an_instance_given_to_another_key_stops_working_and_its_connection_ends()
-> anyhow::Result<()> {
    let theft = theft().await?;

    theft
        .world
        .kubectl()
        .change_status(INSTANCE, |instance| {
            instance["status"]["agent"]["keyFingerprint"] = "0".repeat(64).into();
        })
        .await?;

    theft.ends("OTHER_KEY").await
}

/// What kubectl says, or what it complains of.
async fn told<const N: usize>(kubectl: &Kubectl, args: [&str; N]) -> String {
    kubectl.run(args).await.unwrap_or_else(|error| format!("{error:#}"))
}

#[tokio::test]
async fn t08_a_robot_does_what_its_roles_say_and_nothing_else() -> anyhow::Result<()> {
    let world = World::new().await?;
    let kubectl = world.kubectl();
    kubectl.run(["create", "serviceaccount", "bot"]).await?;
    let token = kubectl.run(["create", "token", "bot"]).await?;
    let robot = kubectl.with_token(token.trim());

    let nothing = told(&robot, ["get", "di"]).await;
    ensure!(nothing.contains("\"system:serviceaccount:default:bot\" cannot list"), "{nothing}");
    let gives =
        ["create", "rolebinding", "bot", "--clusterrole=gantry-operator", "--serviceaccount=default:bot"];
    kubectl.run(gives).await?;
    let janitor = ["create", "role", "janitor", "--verb=create", "--resource=operations.gantry.dev/kill"];
    kubectl.run(janitor).await?;
    kubectl
        .run(["create", "rolebinding", "janitor", "--role=janitor", "--serviceaccount=default:bot"])
        .await?;

    robot.run(["get", "di,op,cm"]).await?;
    for action in ["Restart", "Kill"] {
        robot.apply(&operation(&action.to_lowercase(), "nuc-01", action, "web", "")).await?;
    }
    let removal = robot.apply(&operation("remove", "nuc-01", "Remove", "web", "")).await;
    let removal = format!("{:#}", removal.expect_err("an operator cannot remove"));
    ensure!(removal.contains("cannot create resource \"operations/remove\""), "{removal}");
    for args in [["get", "secrets"], ["get", "roles"], ["get", "clusterroles"], ["delete", "op/kill"]] {
        let refused = told(&robot, args).await;
        ensure!(refused.contains("forbidden"), "{args:?}: {refused}");
    }
    let elsewhere = told(&robot, ["get", "di", "--all-namespaces"]).await;
    ensure!(elsewhere.contains("at the cluster scope"), "{elsewhere}");

    let who = robot.run(["auth", "whoami"]).await?;
    ensure!(who.contains("system:serviceaccount:default:bot"), "{who}");
    let may = robot.run(["auth", "can-i", "--list"]).await?;
    ensure!(may.contains("operations.gantry.dev/restart") && !may.contains("secrets"), "{may}");
    let can = |action| ["auth", "can-i", "create", "operations", "--subresource", action];
    ensure!(told(&robot, can("restart")).await.trim() == "yes");
    ensure!(told(&robot, can("remove")).await.contains("no"));
    let as_bot = ["auth", "can-i", "get", "secrets", "--as=system:serviceaccount:default:bot"];
    ensure!(told(&kubectl, as_bot).await.contains("no"));
    let acts = told(&robot, ["get", "secrets", "--as=root", "--as-group=system:masters"]).await;
    ensure!(acts.contains("cannot impersonate"), "{acts}");
    let bindings = kubectl.run(["get", "rolebindings", "-o", "wide"]).await?;
    ensure!(bindings.contains("ClusterRole/gantry-operator"), "{bindings}");
    ensure!(
        bindings.lines().any(|line| line.starts_with("janitor") && line.trim().ends_with("bot")),
        "{bindings}"
    );
    ensure!(kubectl.run(["describe", "role", "janitor"]).await?.contains("operations.gantry.dev/kill"));
    Ok(())
}

#[tokio::test]
async fn t11_losing_the_role_ends_a_robots_watch_within_seconds() -> anyhow::Result<()> {
    let world = World::new().await?;
    let kubectl = world.kubectl();
    kubectl.run(["create", "serviceaccount", "bot"]).await?;
    let gives =
        ["create", "rolebinding", "bot", "--clusterrole=gantry-viewer", "--serviceaccount=default:bot"];
    kubectl.run(gives).await?;
    let token = kubectl.run(["create", "token", "bot"]).await?;
    let robot = kubectl.with_token(token.trim());
    let log = world.path("watch.log");
    let mut watch = robot.follow(["get", "cm", "--watch"], &log)?;
    kubectl.run(["create", "configmap", "seen"]).await?;
    eventually("the watch to go on", Duration::from_secs(10), async || {
        let seen = std::fs::read_to_string(&log)?;
        ensure!(seen.contains("seen"), "{seen}");
        Ok(())
    })
    .await?;

    kubectl.run(["delete", "rolebinding", "bot"]).await?;

    watch.ended(PROMISED).await?;
    Ok(())
}

#[tokio::test]
async fn a_role_gathers_what_is_labelled_for_it_and_loses_it_again() -> anyhow::Result<()> {
    let world = World::new().await?;
    let kubectl = world.kubectl();
    let extra = "{apiVersion: rbac.authorization.k8s.io/v1, kind: ClusterRole, metadata: {name: extra, labels: \
        {rbac.gantry.dev/aggregate-to-viewer: 'true'}}, rules: [{apiGroups: [example.com], resources: [things], verbs: [get]}]}";
    let gathered = async |is_there: bool| {
        eventually("the roles to follow", Duration::from_secs(20), async || {
            for role in ["gantry-viewer", "gantry-operator", "gantry-admin"] {
                let role = kubectl.get("clusterrole", role).await?;
                ensure!(role["rules"].to_string().contains("example.com") == is_there, "{role}");
            }
            Ok(())
        })
        .await
    };

    kubectl.apply(extra).await?;
    gathered(true).await?;
    kubectl.run(["delete", "clusterrole", "extra"]).await?;
    gathered(false).await
}

#[tokio::test]
async fn t15_pages_of_an_allowed_origin_are_let_in() -> anyhow::Result<()> {
    let world = World::with_flags(&["--allowed-origin", "https://dash.example"]).await?;
    let rest = Rest::new(&world.controller.kubeconfig()).await?;
    for (origin, code) in [("https://dash.example", 201), ("https://evil.example", 403)] {
        let request = Request::post("/api/v1/namespaces/default/configmaps").header("origin", origin);
        let request = request.header("content-type", "application/json");
        let answer =
            rest.ask(request.body(Body::from(config_map("page", "x").to_string().into_bytes()))?).await?;
        assert_eq!(answer.code, code, "{origin}: {}", answer.body);
    }
    Ok(())
}
