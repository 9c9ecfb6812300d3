//! What `gantry` is on a terminal: the terminal is `script`'s, its keys come from here.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use gantry_e2e::eventually;
use gantry_e2e::process::{run, workspace_binary};
use gantry_e2e::proxy::{Link, Proxy};
use gantry_e2e::registry::Registry;
use gantry_e2e::world::World;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use tokio::time::timeout;

const PATIENCE: Duration = Duration::from_secs(30);

/// A line of shell on a terminal of its own.
struct Terminal {
    child: Child,
    keys: ChildStdin,
    screen: ChildStdout,
    seen: String,
    /// Where the shell has noted which terminal it is on.
    name: PathBuf,
}

impl Terminal {
    fn open(world: &World, line: &str) -> anyhow::Result<Self> {
        Self::open_at(world, &world.controller.kubeconfig(), line)
    }

    fn open_at(world: &World, kubeconfig: &Path, line: &str) -> anyhow::Result<Self> {
        let name = world.path("terminal");
        // The directory of the programs comes first, so that `gantry` is the one that was built.
        let programs = workspace_binary("gantry")?.parent().context("it lies in a directory")?.to_owned();
        let path = std::env::var_os("PATH").unwrap_or_default();
        let path = std::env::join_paths([programs].into_iter().chain(std::env::split_paths(&path)))?;
        let mut command = Command::new("script");
        command
            .args(["--quiet", "--flush", "--return", "--command"])
            .arg(format!("tty > '{}'; stty rows 20 cols 70; {line}", name.display()))
            .arg("/dev/null")
            .env("PATH", path)
            .env("KUBECONFIG", kubeconfig)
            .env("TERM", "xterm")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true);
        let mut child = command.spawn().context("is `script` installed?")?;
        let keys = child.stdin.take().context("it has an input")?;
        let screen = child.stdout.take().context("it has an output")?;
        Ok(Self { child, keys, screen, seen: String::new(), name })
    }

    async fn types(&mut self, keys: &str) -> anyhow::Result<()> {
        self.keys.write_all(keys.as_bytes()).await?;
        Ok(self.keys.flush().await?)
    }

    /// Waits until that is on the screen, and forgets everything up to there.
    async fn shows(&mut self, text: &str) -> anyhow::Result<()> {
        let mut piece = [0; 4096];
        while !self.seen.contains(text) {
            let length = timeout(PATIENCE, self.screen.read(&mut piece)).await;
            let length = length.with_context(|| format!("no {text:?} in {:?}", self.seen))??;
            ensure!(length > 0, "it ended without {text:?}: {:?}", self.seen);
            self.seen.push_str(&String::from_utf8_lossy(piece.get(..length).unwrap_or_default()));
        }
        let end = self.seen.find(text).unwrap_or_default() + text.len();
        self.seen.drain(..end);
        Ok(())
    }

    async fn resize(&self, rows: u32, columns: u32) -> anyhow::Result<()> {
        let name = std::fs::read_to_string(&self.name)?;
        let mut stty = Command::new("stty");
        stty.args(["-F", name.trim(), "rows", &rows.to_string(), "cols", &columns.to_string()]);
        run(stty).await.map(drop)
    }

    /// Everything to its end, and the exit code.
    async fn ends(mut self) -> anyhow::Result<(String, Option<i32>)> {
        let mut rest = Vec::new();
        timeout(PATIENCE, self.screen.read_to_end(&mut rest)).await.context("it does not end")??;
        let status = timeout(PATIENCE, self.child.wait()).await??;
        Ok((self.seen + &String::from_utf8_lossy(&rest), status.code()))
    }
}

/// What is typed is on the screen too, so what is waited for must not stand in it.
fn until_sized(size: &str, number: u32) -> String {
    format!(
        "until test \"$(busybox stty size)\" = '{size}'; do sleep 0.1; done; echo sized-$(({number} + 0))\n"
    )
}

#[tokio::test]
async fn a_terminal_in_a_container_follows_the_window_takes_every_key_and_tells_the_exit_code()
-> anyhow::Result<()> {
    let world = World::with_hosts(["nuc-01"]).await?;
    world.host("nuc-01")?.engine.runs("web").await?;
    let line = "before=$(stty -g); gantry exec -it nuc-01/web -- sh; code=$?; \
                test \"$before\" = \"$(stty -g)\" && echo the same terminal; exit $code";
    let mut terminal = Terminal::open(&world, line)?;

    // A size takes its way; the loops end once it has arrived.
    terminal.types(&until_sized("20 70", 41)).await?;
    terminal.shows("sized-41").await?;
    terminal.resize(33, 99).await?;
    terminal.types(&until_sized("33 99", 42)).await?;
    terminal.shows("sized-42").await?;
    // Only once the command runs is the key a signal for it, and no letter for the shell.
    terminal.types("sh -c 'echo begun-$((40 + 4)); sleep 1000'\n").await?;
    terminal.shows("begun-44").await?;
    terminal.types("\u{3}").await?;
    terminal.types("echo after-$((40 + 3))\n").await?;
    terminal.shows("after-43").await?;
    terminal.types("exit 7\n").await?;

    let (seen, code) = terminal.ends().await?;
    assert_eq!(code, Some(7), "{seen}");
    assert!(seen.contains("the same terminal"), "{seen}");
    Ok(())
}

#[tokio::test]
async fn the_keys_that_leave_a_terminal_let_the_command_go_on() -> anyhow::Result<()> {
    let world = World::with_hosts(["nuc-01"]).await?;
    let engine = &world.host("nuc-01")?.engine;
    engine.docker(["run", "-dit", "--network=none", "--name", "shell", "demo:1", "sh"]).await?;
    let mut terminal = Terminal::open(&world, "gantry attach nuc-01/shell")?;

    terminal.types("echo here-$((40 + 2))\n").await?;
    terminal.shows("here-42").await?;
    terminal.types("\u{10}\u{11}").await?;

    let (seen, code) = terminal.ends().await?;
    assert_eq!(code, Some(0), "{seen}");
    assert!(seen.contains("left nuc-01/shell; it goes on"), "{seen}");
    assert_eq!(engine.state("shell").await, "running");
    Ok(())
}

#[tokio::test]
async fn a_terminal_goes_on_after_its_connection_broke() -> anyhow::Result<()> {
    let world = World::with_hosts(["nuc-01"]).await?;
    world.host("nuc-01")?.engine.runs("web").await?;
    let proxy = Proxy::start(world.controller.address()).await?;
    let kubeconfig = world.kubeconfig_through(&proxy)?;
    let mut terminal = Terminal::open_at(
        &world,
        &kubeconfig,
        "gantry exec -it nuc-01/web -- sh; code=$?; stty -a | grep -o ' icanon'; exit $code",
    )?;
    terminal.types("kept=6; echo here-$((40 + 1))\n").await?;
    terminal.shows("here-41").await?;

    for number in [7, 8] {
        // What is said while nobody is there is told to who comes back, and what they type meanwhile arrives.
        terminal.types(&format!("(sleep 0.5; echo said-$(({number} * 11))) &\n")).await?;
        terminal.types(&format!("echo asked-$(({number} + 0))\n")).await?;
        terminal.shows(&format!("asked-{number}")).await?;
        proxy.set(Link::Silent);
        proxy.reset();
        terminal.shows("the connection to nuc-01/web broke").await?;
        terminal.types(&format!("echo kept-$((kept * {number}))\n")).await?;
        tokio::time::sleep(Duration::from_secs(1)).await;
        proxy.set(Link::Up);
        terminal.shows("back at nuc-01/web").await?;
        terminal.shows(&format!("said-{}", number * 11)).await?;
        terminal.shows(&format!("kept-{}", 6 * number)).await?;
    }
    terminal.types("exit 3\n").await?;

    let (seen, code) = terminal.ends().await?;
    assert_eq!(code, Some(3), "{seen}");
    assert!(seen.contains(" icanon"), "the terminal is as it was: {seen}");
    eventually("nothing to be kept", PATIENCE, async || {
        let open = world.metric("gantry_live_streams{kind=\"terminal\"}").await?;
        ensure!(open == 0, "{open}");
        Ok(())
    })
    .await
}

#[tokio::test]
async fn a_terminal_that_the_controller_does_not_hold_any_more_is_given_up() -> anyhow::Result<()> {
    let mut world = World::with_hosts(["nuc-01"]).await?;
    world.host("nuc-01")?.engine.runs("web").await?;
    let mut terminal = Terminal::open(&world, "gantry exec -it nuc-01/web -- sh")?;
    terminal.types("echo here-$((40 + 1))\n").await?;
    terminal.shows("here-41").await?;

    world.controller.kill().await?;
    terminal.shows("the connection to nuc-01/web broke").await?;
    world.controller.resume().await?;

    let (seen, code) = terminal.ends().await?;
    assert_eq!(code, Some(3), "{seen}");
    assert!(seen.contains("the connection broke off before its end was told"), "{seen}");
    Ok(())
}

#[tokio::test]
async fn a_log_that_is_followed_goes_on_without_loss_or_repeats() -> anyhow::Result<()> {
    let mut world = World::with_hosts(["nuc-01"]).await?;
    let script = "n=0; while true; do n=$((n + 1)); echo line $n; echo error $n >&2; sleep 0.02; done";
    let engine = &world.host("nuc-01")?.engine;
    engine.docker(["run", "-d", "--network=none", "--name", "counts", "demo:1", "sh", "-c", script]).await?;
    let proxy = Proxy::start(world.controller.address()).await?;
    let mut command = Command::new(workspace_binary("gantry")?);
    command
        .args(["logs", "-f", "--tail", "10000", "nuc-01/counts"])
        .env("KUBECONFIG", world.kubeconfig_through(&proxy)?)
        .stdout(Stdio::piped())
        .kill_on_drop(true);
    let mut follows = command.spawn()?;
    let mut lines = BufReader::new(follows.stdout.take().context("it has an output")?).lines();

    let (mut out, mut errors) = (0, 0);
    for breaks in 0..4 {
        for _ in 0..200 {
            let line = timeout(PATIENCE, lines.next_line()).await.context("the log stands still")??;
            let line = line.context("the log ended")?;
            let (word, number) = line.split_once(' ').with_context(|| format!("{line:?}"))?;
            let count = if word == "line" { &mut out } else { &mut errors };
            *count += 1;
            ensure!(number.parse() == Ok(*count), "{line:?} where {count} was expected");
        }
        if breaks == 2 {
            world.controller.stop().await?;
            world.controller.resume().await?;
        } else {
            proxy.reset();
        }
    }
    Ok(())
}

#[tokio::test]
async fn a_pull_shows_its_layers_on_a_terminal_and_nothing_of_them_elsewhere() -> anyhow::Result<()> {
    let mut world = World::new().await?;
    let registry = Registry::start(&world.path("registry")).await?;
    world.enroll("nuc-01", Some(registry.name())).await?;
    world.becomes_healthy("nuc-01", "Online").await?;
    let engine = &world.host("nuc-01")?.engine;
    let (first, second) = (format!("{}/big:1", registry.name()), format!("{}/big:2", registry.name()));
    engine.publish(&first, 150_000_000).await?;
    engine.publish(&second, 1_000).await?;

    let terminal = Terminal::open(&world, &format!("gantry pull {first} -i nuc-01"))?;
    let (seen, code) = terminal.ends().await?;
    assert_eq!(code, Some(0), "{seen}");
    // The kernel's bytes a second differ, the words do not.
    assert!(seen.contains("Pull 0 of 1"), "{seen:?}");
    assert!(
        ["Download", "Extract", "Verif", "Pull complete"].iter().any(|word| seen.contains(word)),
        "{seen:?}"
    );
    assert!(seen.contains(&format!("nuc-01/{first}: pulled")), "{seen:?}");

    let plain = Terminal::open(&world, &format!("gantry pull {second} -i nuc-01 2>&1 | cat"))?;
    let (seen, _) = plain.ends().await?;
    assert_eq!(seen.trim(), format!("nuc-01/{second}: pulled {second}"));
    Ok(())
}

#[tokio::test]
async fn figures_are_painted_over_each_other_until_ctrl_c() -> anyhow::Result<()> {
    let world = World::with_hosts(["nuc-01"]).await?;
    world.host("nuc-01")?.engine.runs("web").await?;

    let mut terminal = Terminal::open(&world, "gantry stats")?;
    for _ in 0..3 {
        for part in ["\u{1b}[H", "INSTANCE", "nuc-01", "web", "\u{1b}[J"] {
            terminal.shows(part).await?;
        }
    }
    terminal.types("\u{3}").await?;

    let (seen, code) = terminal.ends().await?;
    assert_eq!(code, Some(130), "{seen:?}");
    Ok(())
}

#[tokio::test]
async fn colours_are_for_terminals_that_want_them() -> anyhow::Result<()> {
    let world = World::with_hosts(["nuc-01"]).await?;
    let engine = &world.host("nuc-01")?.engine;
    for name in ["web", "shop"] {
        engine.docker(["run", "-d", "--network=none", "--name", name, "demo:1", "echo", "hello"]).await?;
    }
    let logs = "gantry logs nuc-01/web nuc-01/shop";

    for (line, has_colours) in [
        (logs.to_owned(), true),
        (format!("NO_COLOR=1 {logs}"), false),
        (format!("NO_COLOR= {logs}"), true),
        (format!("{logs} | cat"), false),
    ] {
        let (seen, code) = Terminal::open(&world, &line)?.ends().await?;
        assert_eq!(code, Some(0), "{line}: {seen:?}");
        assert_eq!(seen.matches("hello").count(), 2, "{line}: {seen:?}");
        assert_eq!(seen.contains("\u{1b}["), has_colours, "{line}: {seen:?}");
    }
    Ok(())
}

#[tokio::test]
async fn t02_a_person_is_asked_whether_that_is_the_controller() -> anyhow::Result<()> {
    let world = World::new().await?;
    let hash = world.controller.ca_hash().await?;
    let kubeconfig = world.path("mine");
    let token = world.controller.admin_token()?;
    let line = format!("gantry login https://{} --token {token} --name here", world.controller.address());

    for (answer, code, said) in
        [("no", 4, "nothing was written"), ("", 4, "nothing was written"), ("yes", 0, "you are gantry-admin")]
    {
        let mut terminal = Terminal::open_at(&world, &kubeconfig, &line)?;
        terminal.shows(&hash).await?;
        terminal.shows("[yes/no]").await?;
        terminal.types(&format!("{answer}\n")).await?;
        let (seen, ended) = terminal.ends().await?;
        assert_eq!(ended, Some(code), "{seen:?}");
        assert!(seen.contains(said), "{seen:?}");
        assert_eq!(kubeconfig.exists(), code == 0);
    }
    Ok(())
}
