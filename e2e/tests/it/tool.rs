//! What `gantry` does that a page of `docs/cli` cannot show: it watches, waits for an editor, is signalled, and completes.

use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use gantry_e2e::eventually;
use gantry_e2e::process::{Process, run, workspace_binary};
use gantry_e2e::world::World;
use nix::sys::signal::Signal;
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::Command;
use tokio::time::timeout;

const PATIENCE: Duration = Duration::from_secs(60);

/// `gantry`, or anything else, of somebody who has the administrator's kubeconfig and a home of his own.
fn person(world: &World, program: &Path) -> Command {
    let mut command = Command::new(program);
    command
        .env("KUBECONFIG", world.controller.kubeconfig())
        .env("HOME", world.path("home"))
        .kill_on_drop(true);
    for name in ["XDG_CACHE_HOME", "XDG_CONFIG_HOME", "XDG_DATA_HOME", "KUBE_EDITOR", "VISUAL"] {
        command.env_remove(name);
    }
    command
}

fn gantry(world: &World, args: &[&str]) -> anyhow::Result<Command> {
    let mut command = person(world, &workspace_binary("gantry")?);
    command.args(args);
    Ok(command)
}

async fn create(world: &World, name: &str) -> anyhow::Result<()> {
    let manifest = format!(
        "apiVersion: gantry.dev/v1alpha1\nkind: DockerInstance\nmetadata: {{name: {name}}}\nspec: {{}}\n"
    );
    world.kubectl().apply(&manifest).await.map(drop)
}

#[tokio::test]
async fn a_watch_begins_with_what_there_is_and_goes_on_with_what_changes() -> anyhow::Result<()> {
    let world = World::new().await?;
    create(&world, "nuc-01").await?;

    let mut command = gantry(
        &world,
        &["get", "dockerinstances", "-w", "-o", "custom-columns=N:.metadata.name,D:.spec.description"],
    )?;
    let mut watch = command.stdout(Stdio::piped()).spawn()?;
    let mut lines = BufReader::new(watch.stdout.take().context("piped")?).lines();
    let mut shows = async |wanted: &str| {
        while let Some(line) =
            timeout(PATIENCE, lines.next_line()).await.with_context(|| format!("no {wanted}"))??
        {
            if line.split_whitespace().collect::<Vec<_>>().join(" ") == wanted {
                return Ok(());
            }
        }
        anyhow::bail!("it ended without {wanted}")
    };
    shows("nuc-01 <none>").await?;
    create(&world, "nuc-02").await?;
    shows("nuc-02 <none>").await?;
    world.kubectl().merge("dockerinstance", "nuc-01", r#"{"spec":{"description":"bar"}}"#).await?;
    shows("nuc-01 bar").await
}

/// An editor: a script that is given the file, and notes each file it is shown.
struct Editor {
    script: PathBuf,
    dir: PathBuf,
}

impl Editor {
    fn new(world: &World, name: &str, lines: &str) -> anyhow::Result<Self> {
        let dir = world.path(name);
        std::fs::create_dir_all(&dir)?;
        let script = dir.join("editor");
        let kubectl = format!(
            "kubectl() {{ command kubectl --kubeconfig '{}' \"$@\"; }}",
            world.controller.kubeconfig().display()
        );
        let text = format!(
            "#!/bin/sh\nset -e\n{kubectl}\ncd '{}'\nn=$(($(cat n 2>/dev/null || echo 0) + 1)); echo $n > n; cp \"$1\" shown-$n\n{lines}\n",
            dir.display()
        );
        std::fs::write(&script, text)?;
        std::fs::set_permissions(&script, std::fs::Permissions::from_mode(0o755))?;
        Ok(Self { script, dir })
    }

    /// Both outputs, and whether it went well.
    async fn edits(&self, world: &World, object: &str) -> anyhow::Result<(String, bool)> {
        let mut command = gantry(world, &["edit", object])?;
        let output =
            timeout(PATIENCE, command.env("EDITOR", &self.script).stdin(Stdio::null()).output()).await??;
        let said = [output.stdout, output.stderr].concat();
        Ok((String::from_utf8_lossy(&said).into_owned(), output.status.success()))
    }

    fn shown(&self, number: u32) -> anyhow::Result<String> {
        std::fs::read_to_string(self.dir.join(format!("shown-{number}"))).context("it was not shown so often")
    }
}

#[tokio::test]
async fn what_an_editor_leaves_is_written_and_where_nothing_changed_nothing_is() -> anyhow::Result<()> {
    let world = World::new().await?;
    create(&world, "nuc-01").await?;
    let version = async || {
        let object = world.kubectl().get("dockerinstance", "nuc-01").await?;
        anyhow::Ok((object["metadata"]["resourceVersion"].clone(), object["spec"]["description"].clone()))
    };
    let before = version().await?;

    for (name, lines) in [("idle", "true"), ("comments", "echo '# mine' >> \"$1\""), ("empty", ": > \"$1\"")]
    {
        let (said, is_well) =
            Editor::new(&world, name, lines)?.edits(&world, "dockerinstance/nuc-01").await?;
        ensure!(is_well && said.contains("nothing was changed"), "{name}: {said}");
    }
    assert_eq!(version().await?.0, before.0);

    let editor = Editor::new(&world, "one", "echo '  description: by hand' >> \"$1\"")?;
    let (said, is_well) = editor.edits(&world, "dockerinstance/nuc-01").await?;
    ensure!(
        is_well && said.contains("dockerinstance.gantry.dev/nuc-01 edited"),
        "{said}\n{}",
        editor.shown(1)?
    );
    assert_eq!(version().await?.1, "by hand");
    ensure!(!editor.shown(1)?.contains("resourceVersion"), "{}", editor.shown(1)?);
    Ok(())
}

#[tokio::test]
async fn what_the_controller_refuses_comes_back_into_the_editor_with_its_reason() -> anyhow::Result<()> {
    let world = World::new().await?;
    create(&world, "nuc-01").await?;

    let lines = "case $n in 1) sed -i 's/intervalSeconds: .*/intervalSeconds: -7/' \"$1\";; \
                 2) sed -i 's/intervalSeconds: -7/intervalSeconds: {/' \"$1\";; \
                 *) sed -i 's/intervalSeconds: .*/intervalSeconds: 77/' \"$1\";; esac";
    let editor = Editor::new(&world, "wrong", lines)?;
    let (said, is_well) = editor.edits(&world, "dockerinstance/nuc-01").await?;

    ensure!(is_well, "{said}");
    let (second, third) = (editor.shown(2)?, editor.shown(3)?);
    ensure!(
        second.starts_with("# error: dockerinstance.gantry.dev/nuc-01: ")
            && second.contains("intervalSeconds: -7"),
        "{second}"
    );
    ensure!(third.starts_with("# this cannot be read: ") && third.contains("intervalSeconds: {"), "{third}");
    let object = world.kubectl().get("dockerinstance", "nuc-01").await?;
    assert_eq!(object["spec"]["healthCheck"]["intervalSeconds"], 77);

    // Who gives up keeps what was typed.
    let lines = "test $n = 1 && sed -i 's/intervalSeconds: .*/intervalSeconds: -9/' \"$1\" || true";
    let (said, is_well) = Editor::new(&world, "left", lines)?.edits(&world, "dockerinstance/nuc-01").await?;
    ensure!(!is_well && said.contains("was not changed"), "{said}");
    let kept = said.split("what was typed is in ").nth(1).with_context(|| said.clone())?.trim();
    let typed = std::fs::read_to_string(kept)?;
    std::fs::remove_file(kept)?;
    ensure!(typed.contains("intervalSeconds: -9"), "{typed}");
    Ok(())
}

#[tokio::test]
async fn what_others_change_while_an_editor_is_open_is_not_lost() -> anyhow::Result<()> {
    let world = World::new().await?;
    create(&world, "nuc-01").await?;

    // Another field: both changes are kept, and nobody is asked.
    let lines = "kubectl label dockerinstance nuc-01 site=berlin >&2; echo '  description: mine' >> \"$1\"";
    let editor = Editor::new(&world, "beside", lines)?;
    let (said, is_well) = editor.edits(&world, "dockerinstance/nuc-01").await?;
    ensure!(is_well, "{said}");
    let object = world.kubectl().get("dockerinstance", "nuc-01").await?;
    assert_eq!(
        (&object["spec"]["description"], &object["metadata"]["labels"]["site"]),
        (&"mine".into(), &"berlin".into())
    );
    ensure!(editor.shown(2).is_err());

    // The same field: the newest comes back with what was typed on top, and is written once the person says so.
    let lines = "case $n in 1) kubectl patch dockerinstance nuc-01 --type=merge -p '{\"spec\":{\"description\":\"theirs\"}}' >&2; \
                 sed -i 's/description: mine/description: mine again/' \"$1\";; *) sed -i '/^#/d' \"$1\";; esac";
    let editor = Editor::new(&world, "same", lines)?;
    let (said, is_well) = editor.edits(&world, "dockerinstance/nuc-01").await?;
    ensure!(is_well, "{said}");
    let second = editor.shown(2)?;
    ensure!(second.contains("somebody else has changed .spec.description meanwhile"), "{second}");
    let object = world.kubectl().get("dockerinstance", "nuc-01").await?;
    assert_eq!(object["spec"]["description"], "mine again");
    Ok(())
}

#[tokio::test]
async fn what_lies_at_a_url_is_applied() -> anyhow::Result<()> {
    let world = World::new().await?;
    let (dir, port) = (world.path("web"), gantry_e2e::free_port()?);
    std::fs::create_dir_all(&dir)?;
    std::fs::write(
        dir.join("hosts.yaml"),
        "apiVersion: gantry.dev/v1alpha1\nkind: DockerInstance\nmetadata: {name: nuc-01}\nspec: {}\n",
    )?;
    let mut command = Command::new("python3");
    command.args(["-m", "http.server", "--bind", "127.0.0.1", &port.to_string()]).current_dir(&dir);
    let _server = Process::spawn("web server", command, &world.path("web.log"))?;
    let apply = async |url: &str| run(gantry(&world, &["apply", "-f", url])?).await;

    let url = format!("http://127.0.0.1:{port}/hosts.yaml");
    let said = eventually("the web server", PATIENCE, async || apply(&url).await).await?;
    assert_eq!(said, "dockerinstance.gantry.dev/nuc-01 created\n");
    let error = apply(&url.replace("hosts", "nothing")).await.err().context("it was applied")?.to_string();
    ensure!(error.contains("nothing.yaml answers 404"), "{error}");
    // Whatever comes over plain http from elsewhere could be anybody's.
    let error = apply("http://192.0.2.1/hosts.yaml").await.err().context("it was applied")?.to_string();
    ensure!(error.contains("is not https"), "{error}");
    Ok(())
}

#[tokio::test]
async fn t16_whoever_is_signalled_leaves_no_socket_behind() -> anyhow::Result<()> {
    let world = World::with_hosts(["nuc-01"]).await?;
    for signal in [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP] {
        let place = world.path(signal.as_str());
        std::fs::create_dir(&place)?;
        let log = world.path("docker.log");
        let mut command = gantry(&world, &["docker", "nuc-01", "--", "events"])?;
        command.env("XDG_RUNTIME_DIR", &place).stdin(Stdio::null());
        let mut docker = Process::spawn("gantry docker", command, &log)?;
        let entries = || std::fs::read_dir(&place).map(Iterator::count);
        // docker has begun once the host has been asked; until then it may take the signal before it listens for it.
        eventually("docker", PATIENCE, async || {
            ensure!(entries()? == 1 && gantry_e2e::process::children(docker.pid())?.len() == 1);
            Ok(())
        })
        .await?;
        docker.signal(signal)?;
        docker.ended(PATIENCE).await?;
        assert_eq!(entries()?, 0, "{signal}");
    }
    Ok(())
}

/// What a shell would offer for a line, without what it would say of each.
async fn offered(world: &World, shell: &str, words: &[&str]) -> anyhow::Result<Vec<String>> {
    let programs = workspace_binary("gantry")?.parent().context("it lies in a directory")?.to_owned();
    let path = std::env::var_os("PATH").unwrap_or_default();
    let path = std::env::join_paths([programs].into_iter().chain(std::env::split_paths(&path)))?;
    let quoted = words.iter().map(|word| format!("'{word}'")).collect::<Vec<_>>().join(" ");
    let (last, at) = (words.last().copied().unwrap_or_default(), words.len() - 1);
    let (flag, script) = match shell {
        "bash" => (
            "--norc",
            format!(
                "source <(gantry completion bash); COMP_WORDS=({quoted}); COMP_CWORD={at}; COMP_TYPE=9; \
                 _clap_complete_gantry gantry '{last}' ''; printf '%s\\n' \"${{COMPREPLY[@]}}\""
            ),
        ),
        // Outside of its line editor zsh has no `_describe`; it gets the name of an array.
        "zsh" => (
            "-f",
            format!(
                "compdef() {{}}; _describe() {{ print -l -- ${{(P)3}} }}; source <(gantry completion zsh); \
                 words=({quoted}); CURRENT={}; _clap_dynamic_completer_gantry",
                words.len()
            ),
        ),
        _ => (
            "--no-config",
            format!("gantry completion fish | source; complete --do-complete '{}'", words.join(" ")),
        ),
    };
    let mut command = person(world, Path::new(shell));
    command.args([flag, "-c", &script]).env("PATH", path);
    let said = run(command).await?;
    let ends: &[char] = if shell == "bash" { &['\n'] } else { &['\t', ':'] };
    let offers = said.lines().filter_map(|line| line.split(ends).next()).filter(|offer| !offer.is_empty());
    Ok(offers.map(str::to_owned).collect())
}

#[tokio::test]
async fn bash_completes_what_there_is_now() -> anyhow::Result<()> {
    let world = World::with_hosts(["nuc-01", "nuc-02"]).await?;
    world.host("nuc-01")?.engine.runs("web").await?;
    world.host("nuc-02")?.engine.runs("web").await?;
    world.host("nuc-02")?.engine.runs("db").await?;
    eventually("the containers", PATIENCE, async || {
        let found = offered(&world, "bash", &["gantry", "stop", ""]).await?;
        ensure!(found.contains(&"db".to_owned()) && found.contains(&"nuc-01/web".to_owned()), "{found:?}");
        // Two hosts have it, so its name alone means none.
        ensure!(!found.contains(&"web".to_owned()), "{found:?}");
        Ok(())
    })
    .await?;

    let all = async |words: &[&str]| offered(&world, "bash", words).await.map(|found| found.join(" "));
    assert_eq!(all(&["gantry", "stop", "nuc-02/"]).await?, "nuc-02/db nuc-02/web");
    assert_eq!(all(&["gantry", "stop", "-i", "nuc-01", ""]).await?, "web");
    assert_eq!(all(&["gantry", "get", "dockerin"]).await?, "dockerinstances");
    assert_eq!(all(&["gantry", "get", "dockerinstance", "nuc"]).await?, "nuc-01 nuc-02");
    assert_eq!(all(&["gantry", "describe", "di/nuc-0"]).await?, "di/nuc-01 di/nuc-02");
    assert_eq!(all(&["gantry", "explain", "operations"]).await?, "operations");
    assert_eq!(all(&["gantry", "docker", "nuc-0"]).await?, "nuc-01 nuc-02");
    assert_eq!(all(&["gantry", "-n", "defau"]).await?, "default");
    assert_eq!(all(&["gantry", "--context", "gan"]).await?, "gantry");
    ensure!(all(&["gantry", "cp", "d"]).await?.contains("db:"));
    ensure!(all(&["gantry", "un"]).await?.contains("unarchive"));
    assert_eq!(all(&["gantry", "stop", "-i", "nuc-02", ""]).await?, "db web");
    ensure!(all(&["gantry", "stop", "--no"]).await?.contains("--no-wait"));
    // Where nobody answers there are no names, and nothing is said.
    let nobody = all(&["gantry", "--kubeconfig", "/nowhere", "docker", ""]).await?;
    ensure!(!nobody.contains("nuc"), "{nobody}");
    Ok(())
}

#[tokio::test]
async fn zsh_and_fish_complete_what_there_is_now() -> anyhow::Result<()> {
    let world = World::with_hosts(["nuc-01", "nuc-02"]).await?;
    world.host("nuc-02")?.engine.runs("web").await?;
    world.host("nuc-02")?.engine.runs("db").await?;

    for shell in ["zsh", "fish"] {
        eventually("the containers", PATIENCE, async || {
            let found = offered(&world, shell, &["gantry", "stop", "nuc-02/"]).await?;
            ensure!(found == ["nuc-02/db", "nuc-02/web"], "{shell}: {found:?}");
            Ok(())
        })
        .await?;
        let found = offered(&world, shell, &["gantry", "get", "dockerinstance", "nuc"]).await?;
        assert_eq!(found, ["nuc-01", "nuc-02"], "{shell}");
        let found = offered(&world, shell, &["gantry", "un"]).await?;
        assert!(
            found.contains(&"unarchive".to_owned()) && found.contains(&"unpause".to_owned()),
            "{found:?}"
        );
    }
    Ok(())
}

#[tokio::test]
async fn kubectl_finds_it_as_a_plugin_and_completes_it() -> anyhow::Result<()> {
    let world = World::new().await?;
    create(&world, "nuc-01").await?;
    let bin = world.path("bin");
    std::fs::create_dir(&bin)?;
    for name in ["kubectl-gantry", "kubectl_complete-gantry"] {
        symlink(workspace_binary("gantry")?, bin.join(name))?;
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    let path = std::env::join_paths([bin].into_iter().chain(std::env::split_paths(&path)))?;
    let kubectl = async |args: &[&str]| {
        let mut command = person(&world, Path::new("kubectl"));
        run({
            command.args(args).env("PATH", &path);
            command
        })
        .await
    };

    let listed = kubectl(&["gantry", "get", "dockerinstances", "-o", "name"]).await?;
    assert_eq!(listed, "dockerinstance.gantry.dev/nuc-01\n");
    let help = kubectl(&["gantry", "get", "--help"]).await?;
    ensure!(help.contains("Usage: kubectl gantry get "), "{help}");
    ensure!(help.contains("\n  kubectl gantry get operations -w\n"), "{help}");
    ensure!(kubectl(&["plugin", "list"]).await?.contains("kubectl-gantry"));
    assert_eq!(kubectl(&["__complete", "gantry", "get", "dockerinstance", ""]).await?, "nuc-01\n:4\n");
    Ok(())
}
