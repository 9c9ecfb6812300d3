//! Tokens of an issuer that knows nothing of us: npm's oidc-provider, and the real kubectl.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, ensure};
use gantry_e2e::eventually;
use gantry_e2e::postgres::Postgres;
use gantry_e2e::process::{Process, run, workspace_binary};
use gantry_e2e::scratch::Scratch;
use gantry_e2e::world::World;
use tokio::process::Command;

const OURS: &str = "https://gantry.example";
const INSTANCES: &str = "/apis/gantry.dev/v1alpha1/dockerinstances";
/// Unknown keys are looked for every 30 s at most; the rest is for a busy machine.
const PATIENCE: Duration = Duration::from_secs(90);

/// An issuer's place: it can be started there, ended, and started with other keys.
struct Issuer {
    programs: PathBuf,
    dir: PathBuf,
    port: u16,
    process: Option<Process>,
}

impl Issuer {
    async fn prepare(dir: &Path) -> anyhow::Result<Self> {
        std::fs::create_dir_all(dir)?;
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/oidc-provider.sh");
        let programs = run(Command::new(script)).await?.trim().into();
        let mut openssl = Command::new("openssl");
        openssl
            .current_dir(dir)
            .args("req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 1".split(' '));
        openssl.args("-subj /CN=issuer -keyout key.pem -out cert.pem".split(' '));
        openssl.args(
            "-addext subjectAltName=IP:127.0.0.1 -addext basicConstraints=critical,CA:FALSE".split(' '),
        );
        run(openssl).await?;
        Ok(Self { programs, dir: dir.to_owned(), port: gantry_e2e::free_port()?, process: None })
    }

    fn url(&self) -> String {
        format!("https://127.0.0.1:{}", self.port)
    }

    fn configuration(&self) -> anyhow::Result<String> {
        let authority = std::fs::read_to_string(self.dir.join("cert.pem"))?;
        let issuer =
            serde_json::json!({"url": self.url(), "audiences": [OURS], "certificateAuthority": authority});
        Ok(format!(
            "apiVersion: apiserver.config.k8s.io/v1\nkind: AuthenticationConfiguration\njwt:\n- issuer: {issuer}\n  \
             claimMappings:\n    username: {{claim: sub, prefix: 'ci:'}}\n    groups: {{claim: groups, prefix: 'ci:'}}\n"
        ))
    }

    /// Its keys are new ones.
    fn start(&mut self) -> anyhow::Result<()> {
        let mut command = Command::new("node");
        command.arg(self.programs.join("provider.mjs")).arg(&self.dir).arg(self.port.to_string());
        self.process = Some(Process::spawn("oidc-provider", command, &self.dir.join("log"))?);
        Ok(())
    }

    async fn kill(&mut self) -> anyhow::Result<()> {
        self.process.take().context("it is not running")?.kill().await
    }

    /// A token of that client for that audience, once the issuer answers.
    async fn token(&self, client: &str, audience: &str) -> anyhow::Result<String> {
        eventually("a token", PATIENCE, async || {
            let mut command = Command::new("node");
            command.arg(self.programs.join("token.mjs")).args([&self.url(), client, audience]);
            command.env("NODE_EXTRA_CA_CERTS", self.dir.join("cert.pem"));
            run(command).await
        })
        .await
    }

    /// How often its keys were asked for.
    fn fetches(&self) -> usize {
        self.process.as_ref().map_or(0, |process| process.log().matches("GET /jwks").count())
    }
}

/// What kubectl says when it lists with that token, which nobody allows.
async fn said(world: &World, token: &str) -> anyhow::Result<String> {
    let answer = world.kubectl().feed(["--token", token, "get", "--raw", INSTANCES], "").await?;
    answer.err().context("it was allowed")
}

async fn is_known(world: &World, token: &str) -> anyhow::Result<()> {
    let said = said(world, token).await?;
    ensure!(said.contains("Forbidden") && said.contains(r#"User "ci:robot""#), "{said}");
    Ok(())
}

async fn is_nobody(world: &World, token: &str) -> anyhow::Result<()> {
    let said = said(world, token).await?;
    ensure!(said.contains("Unauthorized"), "{said}");
    Ok(())
}

#[tokio::test]
async fn t02_a_token_of_a_real_issuer_is_the_user_that_the_configuration_says() -> anyhow::Result<()> {
    let dir = Scratch::new()?;
    let mut issuer = Issuer::prepare(&dir.path().join("issuer")).await?;
    let file = dir.path().join("authentication.yaml");
    std::fs::write(&file, issuer.configuration()?)?;
    let postgres = Postgres::start(&dir.path().join("pg")).await?;
    let flag = format!("--authentication-config={}", file.display());

    // The issuer is away when the controller starts.
    let world = World::over(dir, postgres, &[&flag]).await?;
    let ready = world.kubectl().get_raw("/readyz?verbose").await?;
    ensure!(ready.contains("[i]issuers: the keys of jwt[0] are not known"), "{ready}");
    issuer.start()?;
    let token = issuer.token("robot", OURS).await?;
    eventually("the issuer's keys", PATIENCE, async || is_known(&world, &token).await).await?;
    let ready = world.kubectl().get_raw("/readyz?verbose").await?;
    ensure!(ready.contains("[+]issuers ok"), "{ready}");

    // Nothing else comes in, and nobody asks the issuer for it.
    let fetches = issuer.fetches();
    let [head, claims, signature] = token.split('.').collect::<Vec<_>>().try_into().ok().context("no JWT")?;
    let none = "eyJhbGciOiJub25lIn0";
    for forged in [
        format!("{head}.{claims}.{}", signature.chars().rev().collect::<String>()),
        format!("{none}.{claims}."),
        issuer.token("robot", "https://elsewhere.example").await?,
    ] {
        is_nobody(&world, &forged).await?;
        is_known(&world, &token).await?;
    }
    assert_eq!(issuer.fetches(), fetches);
    let brief = issuer.token("brief", OURS).await?;
    eventually("the end of a token", PATIENCE, async || is_nobody(&world, &brief).await).await?;

    // New keys under the same name: the old ones end.
    issuer.kill().await?;
    issuer.start()?;
    let new = issuer.token("robot", OURS).await?;
    eventually("the new keys", PATIENCE, async || is_known(&world, &new).await).await?;
    is_nobody(&world, &token).await?;

    // Its groups have the rights that are given to them, and the administrators' is none of them.
    let whoami = world.kubectl().feed(["--token", &new, "auth", "whoami", "-o", "yaml"], "").await?;
    let whoami = whoami.map_err(anyhow::Error::msg)?;
    for part in ["username: ci:robot", "- ci:builders", "- ci:system:masters"] {
        ensure!(whoami.contains(part), "{whoami}");
    }
    ensure!(!whoami.contains("- system:masters"), "{whoami}");
    world
        .kubectl()
        .run(["create", "clusterrolebinding", "ci", "--clusterrole=gantry-viewer", "--group=ci:builders"])
        .await?;
    let listed = world.kubectl().feed(["--token", &new, "get", "--raw", INSTANCES], "").await?;
    ensure!(listed.as_ref().is_ok_and(|listed| listed.contains("DockerInstanceList")), "{listed:?}");
    Ok(())
}

#[tokio::test]
async fn a_controller_with_a_wrong_authentication_configuration_says_where_and_does_not_start()
-> anyhow::Result<()> {
    let dir = Scratch::new()?;
    let file = dir.path().join("authentication.yaml");
    let wrong = "apiVersion: apiserver.config.k8s.io/v1\nkind: AuthenticationConfiguration\njwt:\n- issuer: {url: 'http://a', \
                 audiences: [a]}\n  claimMappings: {username: {claim: sub}}\n";
    std::fs::write(&file, wrong)?;
    let mut command = Command::new(workspace_binary("gantry-controller")?);
    command
        .args(["--database-url", "postgres://127.0.0.1:1/none", "--listen", "127.0.0.1:0", "--data-dir"])
        .arg(dir.path());

    command.arg("--authentication-config").arg(&file);
    let started = run(command).await;

    let error = format!("{:#}", started.err().context("it has started")?);
    for fault in ["jwt[0].issuer.url must be an https URL", "jwt[0].claimMappings.username.prefix is missing"]
    {
        ensure!(error.contains(fault), "{error}");
    }
    Ok(())
}
