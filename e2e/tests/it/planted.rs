//! What is secret is nowhere but where it belongs, whatever is done and however much is logged.

use std::time::Duration;

use anyhow::{Context as _, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE};
use gantry_e2e::agent::Agent;
use gantry_e2e::collector::Collector;
use gantry_e2e::docker::Docker;
use gantry_e2e::engine::Engine;
use gantry_e2e::eventually;
use gantry_e2e::manifest::{image_operation, operation};
use gantry_e2e::places::Places;
use gantry_e2e::process::run;
use gantry_e2e::scratch::Scratch;
use gantry_e2e::world::{Host, World};
use tokio::process::Command;

/// No secrets: what must be found in the same places, or nothing is proven.
const HOST: &str = "nuc-marker-5c1d";
const PUBLIC: &str = "marker-of-a-config-map-5c1d";

/// Each with its place; all with letters that URLs and two kinds of base64 write otherwise.
const DATA: &str = "planted-data-?~?~7f3k";
const STRING_DATA: &str = "planted-string-data-?~?~7f3k";
const CHANGED: &str = "planted-changed-?~?~7f3k";
const SERVER_SIDE: &str = "planted-server-side-?~?~7f3k";
const PASSWORD: &str = "planted-password-?~?~7f3k";
const BEARER: &str = "planted-bearer-~~7f3k-not-a-token-of-anybody";
const BEARER_JWT: &str = "eyJhbGciOiJFUzI1NiJ9.cGxhbnRlZC1qd3QtN2Yzaw.planted-signature-7f3k";
const BASIC: &str = "planted-basic-?~?~7f3k";
const QUERY: &str = "planted-query-~~7f3k";
const NOT_BASE64: &str = "planted-not-base64-?~?~7f3k";
const UNKNOWN_FIELD: &str = "planted-unknown-field-?~?~7f3k";
const BROKEN: &str = "planted-broken-?~?~7f3k";
const WRONG_KIND: &str = "planted-wrong-kind-?~?~7f3k";
const PATCHED: &str = "planted-patched-?~?~7f3k";
/// What flows through terminals, logs and archives, and what containers are given.
const TYPED: &str = "planted-typed-7f3k";
const ATTACHED: &str = "planted-attached-7f3k";
const LOGGED: &str = "planted-logged-7f3k";
const COPIED: &str = "planted-copied-7f3k";
const ENVIRONMENT: &str = "planted-environment-7f3k";
const OF_A_COMMAND: &str = "planted-environment-of-a-command-7f3k";
const NOT_MADE: &str = "planted-environment-of-no-container-7f3k";
const BUILT: &str = "planted-argument-of-a-build-7f3k";
const LOGIN: &str = "planted-login-7f3k";
const REGISTRY_AUTH: &str = "planted-registry-auth-7f3k";

/// A control plane that tells as much as it can, with one host.
struct Place {
    world: World,
    collector: Collector,
    agent_metrics: String,
    join_token: String,
    // Goes last: the controller writes to it.
    copy: Scratch,
}

impl Place {
    async fn new() -> anyhow::Result<Self> {
        let collector = Collector::start().await?;
        let (endpoint, copy) = (collector.endpoint(), Scratch::new()?);
        let log = copy.path().join("audit.log");
        let log = log.to_str().context("a path of letters")?;
        let flags = ["--otlp-endpoint", &endpoint, "--audit-otlp", "--audit-log", log, "--kubernetes-view"];
        let mut world = World::with_flags(&flags).await?;
        world.controller.set_variable("RUST_LOG", "trace");
        world.controller.stop().await?;
        world.controller.resume().await?;
        let engine = Engine::start(&world.path("engine"), None).await?;
        let agent_metrics = format!("127.0.0.1:{}", gantry_e2e::free_port()?);
        let mut settings = world.agent_settings(HOST, &engine.host()).await?;
        let more = ["--metrics-listen", &agent_metrics, "--otlp-endpoint", &endpoint];
        settings.extra.extend(more.map(str::to_owned));
        let join_token = settings.token.clone();
        let mut agent = Agent::prepare(&world.path("agent"), settings)?;
        agent.set_variable("RUST_LOG", Some("trace"));
        agent.resume()?;
        world.hosts.insert(HOST.to_owned(), Host { agent, engine });
        world.becomes_healthy(HOST, "Online").await?;
        world.host(HOST)?.engine.runs("web").await?;
        Ok(Self { world, collector, agent_metrics, join_token, copy })
    }

    /// Asks with curl, which sends whatever it is told to; what it is answered.
    async fn ask(&self, path: &str, token: &str, more: &[&str]) -> anyhow::Result<String> {
        let mut curl = Command::new("curl");
        curl.args(["-sk", "-w", "%{http_code}", "-H", &format!("Authorization: {token}")]).args(more);
        curl.arg(format!("https://{}{path}", self.world.controller.address()));
        run(curl).await
    }

    async fn is_refused(&self, path: &str, token: &str, more: &[&str]) -> anyhow::Result<()> {
        let answer = self.ask(path, token, more).await?;
        ensure!(answer.contains("\"Failure\""), "it is taken: {answer}");
        Ok(())
    }

    /// What people do with Secrets.
    async fn keep_secrets(&self) -> anyhow::Result<()> {
        let kubectl = self.world.kubectl();
        let secret = |name: &str, value: &str| {
            format!(
                "apiVersion: v1\nkind: Secret\nmetadata: {{name: {name}}}\nstringData: {{password: \"{value}\"}}\n"
            )
        };
        let literal = format!("--from-literal=password={DATA}");
        kubectl.run(["create", "secret", "generic", "made", &literal]).await?;
        kubectl.apply(&secret("applied", STRING_DATA)).await?;
        let applied = kubectl.get("secret", "applied").await?;
        ensure!(applied.to_string().contains("last-applied"), "kubectl keeps no copy of it: {applied}");
        kubectl.apply(&secret("applied", CHANGED)).await?;
        let server_side = ["apply", "--server-side", "-f", "-"];
        ensure!(kubectl.feed(server_side, &secret("applied-there", SERVER_SIDE)).await?.is_ok());
        let patch = format!("{{\"stringData\": {{\"password\": \"{PATCHED}\"}}}}");
        kubectl.merge("secret", "made", &patch).await?;
        kubectl.run(["delete", "secret", "made"]).await?;
        kubectl.run(["create", "configmap", "public", &format!("--from-literal=text={PUBLIC}")]).await?;
        Ok(())
    }

    /// What people do with hosts; the pull is shown a password and fails.
    async fn operate(&self) -> anyhow::Result<()> {
        let kubectl = self.world.kubectl();
        kubectl.apply(&operation("stop", HOST, "Stop", "web", "")).await?;
        kubectl.wait("operation/stop", "condition=Complete").await?;
        let password = format!("--docker-password={PASSWORD}");
        let server = "--docker-server=127.0.0.1:1";
        kubectl
            .run([
                "create",
                "secret",
                "docker-registry",
                "pull",
                server,
                "--docker-username=robot",
                &password,
            ])
            .await?;
        kubectl
            .apply(
                "apiVersion: gantry.dev/v1alpha1\nkind: Registry\nmetadata: {name: private}\n\
                 spec: {server: \"127.0.0.1:1\", secretRef: {name: pull}}\n",
            )
            .await?;
        kubectl.apply(&image_operation("pull", HOST, "Pull", "127.0.0.1:1/team/demo:1", "")).await?;
        kubectl.reaches("pull", "Failed").await?;
        Ok(())
    }

    /// What people do inside of containers, over the API and over docker's own; each line says what it was told.
    async fn look_into_containers(&self) -> anyhow::Result<()> {
        let docker = Docker::through(&self.world.controller, HOST, &self.world.path("docker"))?;
        for (line, told) in [
            (
                format!(
                    "docker run -d --network=none --name shop -e PASSWORD={ENVIRONMENT} demo:1 sh -c 'sleep 10000' | wc -l"
                ),
                "1\n",
            ),
            (format!("printf {TYPED} | docker exec -i -e A={OF_A_COMMAND} shop cat"), TYPED),
            (format!("printf {ATTACHED} | docker run -i --rm --network=none demo:1 cat"), ATTACHED),
            (
                format!(
                    "echo {LOGGED} | docker exec -i shop sh -c 'cat > /proc/1/fd/1'; sleep 1; docker logs shop"
                ),
                LOGGED,
            ),
            (
                format!("printf {COPIED} > in && docker cp in shop:/in && docker cp shop:/in out && cat out"),
                COPIED,
            ),
            (
                "docker inspect --format '{{json .Config.Env}}' shop | grep -o planted-.*7f3k".to_owned(),
                ENVIRONMENT,
            ),
            (
                format!(
                    "mkdir made; printf 'FROM demo:1\\nARG A\\nRUN echo $A >/made\\n' > made/Dockerfile; \
                     docker build -q --network=none --build-arg A={BUILT} -t made:1 made | wc -l; docker run --rm --network=none made:1 cat /made"
                ),
                &format!("1\n{BUILT}\n"),
            ),
            (
                format!("docker login -u ada -p {LOGIN} 127.0.0.1:1 >/dev/null 2>&1 || printf refused"),
                "refused",
            ),
        ] {
            let said = docker.says(&line).await?;
            ensure!(said.stdout.trim_end() == told.trim_end(), "{line}: {said:?}");
        }
        let kubectl = self.world.kubectl();
        let pod = format!("{HOST}_shop");
        eventually("the container to be a Pod", Duration::from_secs(30), async || {
            kubectl.run(["get", "pod", &pod]).await
        })
        .await?;
        ensure!(kubectl.run(["logs", &pod]).await?.trim_end() == LOGGED);
        let typed = kubectl.feed(["exec", "-i", &pod, "--", "cat"], TYPED).await?;
        ensure!(typed.as_deref() == Ok(TYPED), "{typed:?}");
        Ok(())
    }

    /// What the Docker endpoint refuses, and what the engine does.
    async fn err_at_the_engine(&self, admin: &str) -> anyhow::Result<()> {
        let docker = format!("/apis/gantry.dev/v1alpha1/namespaces/default/dockerinstances/{HOST}/docker");
        for body in [
            format!("{{\"Image\":\"demo:1\",\"Env\":[\"A={NOT_MADE}\"],\"Unheard\":1}}"),
            format!("{{\"Image\":\"nothing:1\",\"Env\":[\"A={NOT_MADE}\"],\"Labels\":{{}}}}"),
            format!("{{\"Image\":\"demo:1\",\"Env\":[\"A={NOT_MADE}"),
        ] {
            let json = ["-H", "Content-Type: application/json", "--data-binary", &body];
            let answer = self.ask(&format!("{docker}/containers/create"), admin, &json).await?;
            ensure!(answer.ends_with("403") || answer.ends_with("404"), "it is taken: {answer}");
        }
        let credentials = format!("{{\"username\":\"ada\",\"password\":\"{REGISTRY_AUTH}\"}}");
        let header = format!("X-Registry-Auth: {}", URL_SAFE.encode(credentials));
        let pull = format!("{docker}/images/create?fromImage=127.0.0.1:1/team/demo&tag=1");
        let answer = self.ask(&pull, admin, &["-X", "POST", "-H", &header]).await?;
        ensure!(answer.contains("127.0.0.1:1"), "the engine did not try: {answer}");
        Ok(())
    }

    /// What is refused, with something secret in it.
    async fn err(&self, admin: &str) -> anyhow::Result<()> {
        const SECRETS: &str = "/api/v1/namespaces/default/secrets";
        let secret = |field: &str, value: &str| {
            format!(
                "{{\"apiVersion\":\"v1\",\"kind\":\"Secret\",\"metadata\":{{\"name\":\"r\"}},\"{field}\":{{\"x\":\"{value}\"}}}}"
            )
        };
        let json = ["-H", "Content-Type: application/json", "--data-binary"];
        let with = |body: &str| [json[0], json[1], json[2], body].map(str::to_owned);
        for (path, body) in [
            (SECRETS.to_owned(), secret("data", NOT_BASE64)),
            (format!("{SECRETS}?fieldValidation=Strict"), secret("unheardOf", UNKNOWN_FIELD)),
            (SECRETS.to_owned(), secret("stringData", BROKEN).trim_end_matches('}').to_owned()),
            ("/api/v1/namespaces/default/configmaps".to_owned(), secret("stringData", WRONG_KIND)),
        ] {
            let flags = with(&body);
            self.is_refused(&path, admin, &flags.each_ref().map(String::as_str)).await?;
        }
        let basic = format!("Basic {}", STANDARD.encode(format!("ada:{BASIC}")));
        for token in [&format!("Bearer {BEARER}"), &format!("Bearer {BEARER_JWT}"), &basic] {
            self.is_refused(SECRETS, token, &[]).await?;
        }
        self.ask(&format!("{SECRETS}?token={QUERY}&access_token={QUERY}"), admin, &[]).await?;
        self.is_refused(&format!("{SECRETS}/nobody?password={QUERY}"), admin, &[]).await?;
        self.is_refused(&format!("{SECRETS}?labelSelector={QUERY}=,&limit={QUERY}"), admin, &[]).await
    }

    /// Everything that was written anywhere, but for the files that are there to hold a secret.
    async fn everything(&self) -> anyhow::Result<Places> {
        let (world, kubectl) = (&self.world, self.world.kubectl());
        let dump = world.path("dump.sql");
        world.postgres.back_up(&dump).await?;
        let mut curl = Command::new("curl");
        curl.args(["-sf", &format!("http://{}/metrics", self.agent_metrics)]);
        let told =
            "events,operations,registries,dockerinstances,configmaps,serviceaccounts,containers,images,pods";
        let mut places = Places::default();
        places.add("the database", std::fs::read(&dump)?);
        places.add("the controller's log", world.controller.log());
        places.add("the agent's log", world.host(HOST)?.agent.log());
        places.add("the spans", self.collector.spans());
        places.add("the audit events at the collector", self.collector.logs());
        places.add("the audit log's file", std::fs::read(self.copy.path().join("audit.log"))?);
        places.add(
            "the audit events",
            world.controller.audit(&["-A", "-o", "json", "--limit", "10000"]).await?,
        );
        places.add("the metrics", kubectl.get_raw("/metrics").await?);
        places.add("the agent's metrics", run(curl).await?);
        places.add("what the API tells", kubectl.run(["get", told, "-A", "-o", "yaml"]).await?);
        Ok(places)
    }
}

#[tokio::test]
async fn t28_planted_secrets_are_nowhere() -> anyhow::Result<()> {
    let place = Place::new().await?;
    let kubectl = place.world.kubectl();
    let admin = place.world.controller.admin_token()?;
    kubectl.run(["create", "serviceaccount", "robot"]).await?;
    let robot = kubectl.run(["create", "token", "robot"]).await?.trim().to_owned();
    let unused = place.world.controller.token(&[]).await?;

    place.keep_secrets().await?;
    place.operate().await?;
    place.look_into_containers().await?;
    place.err(&format!("Bearer {admin}")).await?;
    place.err_at_the_engine(&format!("Bearer {admin}")).await?;
    let seen = place.ask("/api/v1/namespaces", &format!("Bearer {admin}"), &[]).await?;
    ensure!(seen.ends_with("200"), "the admin's token is not one: {seen}");
    place.is_refused("/api/v1/secrets", &format!("Bearer {robot}"), &[]).await?;

    // What is no secret is found everywhere, so what is would be too.
    let markers = [
        (HOST, "the database"),
        (PUBLIC, "the database"),
        ("applied-there", "the database"),
        (HOST, "the controller's log"),
        (HOST, "the agent's log"),
        (HOST, "the spans"),
        (HOST, "the audit events at the collector"),
        ("applied-there", "the audit events at the collector"),
        (HOST, "the audit log's file"),
        ("applied-there", "the audit log's file"),
        (HOST, "the audit events"),
        (HOST, "the metrics"),
        ("shop", "the audit log's file"),
        (HOST, "what the API tells"),
        ("shop", "what the API tells"),
        (PUBLIC, "what the API tells"),
        ("gantry_agent_connected", "the agent's metrics"),
    ];
    let places = eventually("everything to be told", Duration::from_secs(60), async || {
        let places = place.everything().await?;
        for (marker, name) in markers {
            ensure!(places.with(marker).contains(&name), "{marker} is not in {name}");
        }
        Ok(places)
    })
    .await?;
    let logs = [place.world.controller.log(), place.world.host(HOST)?.agent.log()];
    ensure!(logs.iter().all(|log| log.contains("TRACE")), "the logs tell too little to mean anything");

    for (what, secret) in [
        ("data of a Secret", DATA),
        ("stringData of a Secret that was applied", STRING_DATA),
        ("what it was changed to", CHANGED),
        ("what was applied there", SERVER_SIDE),
        ("what was patched", PATCHED),
        ("a registry's password", PASSWORD),
        ("a bearer token of nobody", BEARER),
        ("a signed token of nobody", BEARER_JWT),
        ("what looks like its signature", "planted-signature-7f3k"),
        ("a password for HTTP", BASIC),
        ("a query", QUERY),
        ("a body that is no base64", NOT_BASE64),
        ("a body with an unknown field", UNKNOWN_FIELD),
        ("a body that breaks off", BROKEN),
        ("a body for another kind", WRONG_KIND),
        ("what is typed into a command", TYPED),
        ("what is typed into a container", ATTACHED),
        ("what a container writes", LOGGED),
        ("a file that is copied", COPIED),
        ("the environment of a container", ENVIRONMENT),
        ("the environment of a command", OF_A_COMMAND),
        ("the environment of a container that is not made", NOT_MADE),
        ("an argument of a build", BUILT),
        ("a password for the engine to try", LOGIN),
        ("a password for the engine to pull with", REGISTRY_AUTH),
        ("the admin's token", &admin),
        ("a token of a ServiceAccount", &robot),
        ("its signature", robot.rsplit('.').next().context("a token has a signature")?),
        ("the join token that was used", secret_of(&place.join_token)?),
        ("the join token that was not", secret_of(&unused)?),
    ] {
        places.lack(what, secret)?;
    }
    let ring = std::fs::read_to_string(place.world.controller.key_ring())?;
    for key in ring.lines().filter_map(|line| line.rsplit(':').next()) {
        places.lack("a key of the ring", key.trim_end_matches('='))?;
    }
    Ok(())
}

/// The part that is not its name.
fn secret_of(token: &str) -> anyhow::Result<&str> {
    token.split_once('.').map(|(_, secret)| secret).context("a join token has two parts")
}
