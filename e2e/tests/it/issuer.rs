//! Tokens of an issuer that knows nothing of us: npm's oidc-provider, and the real kubectl.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use gantry_e2e::eventually;
use gantry_e2e::postgres::Postgres;
use gantry_e2e::process::{Process, run, workspace_binary};
use gantry_e2e::scratch::Scratch;
use gantry_e2e::world::World;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::process::Command;
use tokio::time::timeout;

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
        let issuer = serde_json::json!({"url": self.url(), "audiences": [OURS, "gantry", "desk"], "audienceMatchPolicy": "MatchAny", "certificateAuthority": authority});
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

    /// What a person of that name gets to, who signs in at that page.
    async fn person(&self, page: &str, name: &str) -> anyhow::Result<String> {
        let mut command = Command::new("node");
        command.arg(self.programs.join("person.mjs")).args([page, name]);
        command.env("NODE_EXTRA_CA_CERTS", self.dir.join("cert.pem"));
        run(command).await
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

/// `gantry`, of somebody who has nothing yet.
fn gantry(world: &World, args: &[&str]) -> anyhow::Result<Command> {
    let mut command = Command::new(workspace_binary("gantry")?);
    command.args(args).env("HOME", world.path("home")).kill_on_drop(true);
    for name in
        ["KUBECONFIG", "XDG_CACHE_HOME", "XDG_CONFIG_HOME", "XDG_DATA_HOME", "DISPLAY", "WAYLAND_DISPLAY"]
    {
        command.env_remove(name);
    }
    Ok(command)
}

/// Signs in as a person of that name; what `gantry login` prints of it.
async fn login(world: &World, issuer: &Issuer, name: &str, client: &[&str]) -> anyhow::Result<String> {
    let authority = issuer.dir.join("cert.pem").display().to_string();
    let (controller, url) = (format!("https://{}", world.controller.address()), issuer.url());
    let args = ["login", &*controller, "--issuer", &*url, "--name", name, "--client-id"];
    let mut command = gantry(world, &[&args, client].concat())?;
    command.args([
        "--issuer-certificate-authority",
        &authority,
        "--ca-hash",
        &world.controller.ca_hash().await?,
    ]);
    let mut login = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
    let mut lines = BufReader::new(login.stderr.take().context("piped")?).lines();
    let page = loop {
        let line = timeout(PATIENCE, lines.next_line()).await?.context("what it says")?;
        let line = line.context("it ended before it said where to sign in")?;
        if line.trim().starts_with("https://") {
            break line.trim().to_owned();
        }
    };
    issuer.person(&page, name).await?;
    let mut said = String::new();
    timeout(PATIENCE, login.stdout.take().context("piped")?.read_to_string(&mut said)).await??;
    let mut rest = String::new();
    while let Some(line) = lines.next_line().await? {
        rest = rest + &line + "\n";
    }
    ensure!(login.wait().await?.success(), "{said}{rest}");
    Ok(said)
}

#[tokio::test]
async fn t02_people_sign_in_with_their_issuer_and_stay_signed_in_for_kubectl_too() -> anyhow::Result<()> {
    let dir = Scratch::new()?;
    let mut issuer = Issuer::prepare(&dir.path().join("issuer")).await?;
    let file = dir.path().join("authentication.yaml");
    std::fs::write(&file, issuer.configuration()?)?;
    issuer.start()?;
    issuer.token("robot", OURS).await?;
    let postgres = Postgres::start(&dir.path().join("pg")).await?;
    let world = World::over(dir, postgres, &[&format!("--authentication-config={}", file.display())]).await?;
    let ready = async || {
        let ready = world.kubectl().get_raw("/readyz?verbose").await?;
        ensure!(ready.contains("[+]issuers ok"), "{ready}");
        Ok(())
    };
    eventually("the issuer's keys", PATIENCE, ready).await?;
    world
        .kubectl()
        .run(["create", "clusterrolebinding", "ada", "--clusterrole=gantry-viewer", "--user=ci:ada"])
        .await?;

    // With a browser of this machine, and with one elsewhere.
    assert_eq!(login(&world, &issuer, "ada", &["gantry"]).await?, "ada: you are ci:ada\n");
    assert_eq!(login(&world, &issuer, "bob", &["gantry", "--device"]).await?, "bob: you are ci:bob\n");
    let contexts = run(gantry(&world, &["context", "ls"])?).await?;
    ensure!(contexts.lines().any(|line| line.starts_with("*         bob ")), "{contexts}");
    // As a client that has a secret, which is in no file of ours.
    let secret = world.path("secret").display().to_string();
    std::fs::write(&secret, "s:e cret\n")?;
    let desk = ["desk", "--client-secret-file", &secret];
    assert_eq!(login(&world, &issuer, "cleo", &desk).await?, "cleo: you are ci:cleo\n");
    assert_eq!(
        login(&world, &issuer, "dan", &[&desk[..], &["--device"]].concat()).await?,
        "dan: you are ci:dan\n"
    );
    let kubeconfig = std::fs::read_to_string(world.path("home/.config/gantry/kubeconfig"))?;
    ensure!(kubeconfig.contains(&secret) && !kubeconfig.contains("e cret"), "{kubeconfig}");

    // Tokens are for less than the margin, so each command renews them, which the issuer allows once for each.
    for name in ["ada", "ada", "cleo", "cleo"] {
        let who = run(gantry(&world, &["--context", name, "auth", "whoami"])?).await?;
        ensure!(who.contains(&format!("ci:{name}")), "{who}");
    }
    let commands = (0..4).map(|_| async { run(gantry(&world, &["--context", "ada", "get", "di"])?).await });
    for ended in futures::future::join_all(commands).await {
        ended?;
    }
    let mut kubectl = Command::new("kubectl");
    kubectl.env("HOME", world.path("home")).env("KUBECONFIG", world.path("home/.config/gantry/kubeconfig"));
    kubectl.args(["--context", "ada", "auth", "whoami"]);
    let who = run(kubectl).await?;
    ensure!(who.contains("ci:ada"), "{who}");
    let denied = run(gantry(&world, &["--context", "bob", "get", "di"])?).await;
    ensure!(denied.is_err_and(|error| error.to_string().contains(r#"User "ci:bob" cannot list"#)));

    // What is kept nobody else can read, and an issuer that starts anew knows no session of before.
    let sessions = world.path("home/.cache/gantry/sessions");
    for entry in std::fs::read_dir(&sessions)? {
        let mode = std::os::unix::fs::PermissionsExt::mode(&entry?.metadata()?.permissions());
        assert_eq!(mode & 0o777, 0o600);
    }
    issuer.kill().await?;
    issuer.start()?;
    issuer.token("robot", OURS).await?;
    let ended = run(gantry(&world, &["--context", "ada", "get", "di"])?).await;
    let error = ended.err().context("it went on")?.to_string();
    ensure!(
        error.contains("ada: the session has ended") && error.contains("hint: sign in again: `gantry login"),
        "{error}"
    );
    Ok(())
}

#[tokio::test]
async fn t02_a_controller_that_nobody_vouches_for_is_not_spoken_to() -> anyhow::Result<()> {
    let world = World::new().await?;
    let (url, token) = (format!("https://{}", world.controller.address()), world.controller.admin_token()?);
    let login = async |more: &[&str], token: &str| {
        let mut command =
            gantry(&world, &[&["login", &*url, "--name", "here", "--token", "-"], more].concat())?;
        let mut login =
            command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
        let mut stdin = login.stdin.take().context("piped")?;
        // One that has refused already reads nothing.
        let _ = stdin.write_all(token.as_bytes()).await;
        drop(stdin);
        let output = timeout(PATIENCE, login.wait_with_output()).await??;
        let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
        anyhow::Ok((said, output.status.code()))
    };
    let written = || world.path("home/.config/gantry/kubeconfig").exists();
    let hash = world.controller.ca_hash().await?;

    let (said, code) = login(&[], &token).await?;
    ensure!(code == Some(4) && said.contains(&hash) && said.contains("hint: ask whoever runs it"), "{said}");
    let (said, code) = login(&["--ca-hash", &hash.replace(['0', '1'], "2")], &token).await?;
    ensure!(code == Some(4) && said.contains("another fingerprint"), "{said}");
    let (said, code) = login(&["--ca-hash", &hash], "nonsense").await?;
    ensure!(code == Some(4) && said.contains("Unauthorized"), "{said}");
    ensure!(!written(), "something was written");

    for flags in [&["--ca-hash", &*hash][..], &["--trust-on-first-use"]] {
        let (said, code) = login(flags, &token).await?;
        ensure!(code == Some(0) && said.contains("here: you are gantry-admin"), "{said}");
        ensure!(run(gantry(&world, &["auth", "whoami"])?).await?.contains("gantry-admin"));
    }
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
