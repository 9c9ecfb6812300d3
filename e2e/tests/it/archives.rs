//! Files and folders out of real containers and into them.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use gantry_e2e::rest::{INSTANCES, Rest};
use gantry_e2e::world::World;
use http::{HeaderMap, Method, Request};
use http_body_util::BodyExt as _;
use kube::client::Body;
use nix::unistd::Pid;
use tokio::time::timeout;

const PATIENCE: Duration = Duration::from_secs(120);
/// By how many KiB a process may have grown that passed a hundred megabytes on.
const MOST_GROWTH: u64 = 64 << 10;

async fn host() -> anyhow::Result<(World, Rest)> {
    let world = World::with_hosts(["nuc-01"]).await?;
    world.host("nuc-01")?.engine.runs("web").await?;
    let rest = Rest::new(&world.controller.kubeconfig()).await?;
    Ok((world, rest))
}

struct Copied {
    code: u16,
    headers: HeaderMap,
    body: Vec<u8>,
}

impl Copied {
    fn words(&self) -> String {
        let status: serde_json::Value = serde_json::from_slice(&self.body).unwrap_or_default();
        format!("{} {}", self.code, status["message"].as_str().unwrap_or_default())
    }
}

async fn send(
    rest: &Rest,
    method: Method,
    container: &str,
    path: &str,
    body: Vec<u8>,
) -> anyhow::Result<Copied> {
    let uri = format!("{INSTANCES}/nuc-01/containers/{container}/archive?path={path}");
    let request = Request::builder().method(method).uri(uri).header("content-type", "application/x-tar");
    let request = request.body(Body::from(body))?;
    let sent = async {
        let (parts, body) = rest.client().send(request).await?.into_parts();
        let body = body.collect().await.context("the answer broke off")?.to_bytes().to_vec();
        Ok(Copied { code: parts.status.as_u16(), headers: parts.headers, body })
    };
    timeout(PATIENCE, sent).await?
}

async fn put(rest: &Rest, container: &str, path: &str, archive: Vec<u8>) -> anyhow::Result<Copied> {
    send(rest, Method::PUT, container, path, archive).await
}

async fn get(rest: &Rest, container: &str, path: &str) -> anyhow::Result<Copied> {
    send(rest, Method::GET, container, path, Vec::new()).await
}

/// Runs a line of shell there, and gives what it says.
fn shell(dir: &Path, line: &str) -> anyhow::Result<Vec<u8>> {
    let output = Command::new("sh").current_dir(dir).args(["-c", line]).output()?;
    ensure!(output.status.success(), "{line}: {}", String::from_utf8_lossy(&output.stderr));
    Ok(output.stdout)
}

fn made(world: &World, name: &str) -> anyhow::Result<PathBuf> {
    let dir = world.path(name);
    std::fs::create_dir_all(&dir)?;
    Ok(dir)
}

#[tokio::test]
async fn folders_and_files_come_back_from_a_container_as_they_went_in() -> anyhow::Result<()> {
    let (world, rest) = host().await?;
    let (from, to) = (made(&world, "from")?, made(&world, "to")?);
    let long = "long".repeat(40);
    shell(
        &from,
        &format!(
            "mkdir -p site/deep/{long} && echo page > site/index.html && head -c 3000000 /dev/urandom > site/deep/blob && \
         echo far > site/deep/{long}/{long} && ln site/index.html site/second && ln -s ../../etc site/deep/link && \
         touch 'site/with space' && chmod 750 site/index.html"
        ),
    )?;

    let archive = shell(&from, "tar c site")?;
    let copied = put(&rest, "web", "/", archive).await?;
    ensure!(copied.code == 200, "{}", copied.words());
    let engine = &world.host("nuc-01")?.engine;
    assert_eq!(engine.docker(["exec", "web", "cat", "/site/index.html"]).await?, "page");

    let back = get(&rest, "web", "/site").await?;
    assert_eq!(back.headers["content-type"], "application/x-tar");
    std::fs::write(to.join("back.tar"), &back.body)?;
    shell(&to, "tar xf back.tar && test -x site/index.html && test -L site/deep/link")?;
    shell(&from, &format!("diff -r --no-dereference site {}/site", to.display()))?;
    // What is in a folder alone, and one file.
    std::fs::write(to.join("inner.tar"), get(&rest, "web", "/site/deep/.").await?.body)?;
    shell(&to, "mkdir inner && tar xf inner.tar -C inner && cmp inner/blob site/deep/blob")?;
    std::fs::write(to.join("one.tar"), get(&rest, "web", "/site/index.html").await?.body)?;
    assert_eq!(shell(&to, "tar tf one.tar")?, b"index.html\n");
    // Of the whole container no name begins with a slash.
    std::fs::write(to.join("all.tar"), get(&rest, "web", "/").await?.body)?;
    let names = String::from_utf8(shell(&to, "tar tPf all.tar")?)?;
    ensure!(names.contains("bin/busybox") && !names.lines().any(|name| name.starts_with('/')), "{names}");
    let stat = send(&rest, Method::HEAD, "web", "/site", Vec::new()).await?;
    ensure!(
        stat.code == 200 && stat.headers.contains_key("x-docker-container-path-stat"),
        "{:?}",
        stat.headers
    );
    Ok(())
}

/// The most memory that a process had so far, in KiB.
fn most_memory(pid: Pid) -> anyhow::Result<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).context("no VmHWM")?;
    Ok(line.trim().trim_end_matches(" kB").parse()?)
}

#[tokio::test]
async fn a_hundred_megabytes_pass_both_ways_and_nobody_holds_them() -> anyhow::Result<()> {
    let (mut world, rest) = host().await?;
    let dir = made(&world, "big")?;
    let archive = shell(&dir, "head -c 100000000 /dev/urandom > blob && tar c blob")?;
    let pids = [world.controller.process()?.pid(), world.host_mut("nuc-01")?.agent.process()?.pid()];
    // Both have done it once, with little.
    put(&rest, "web", "/", shell(&dir, "echo small > small && tar c small")?).await?;
    let before = pids.map(most_memory);

    let copied = put(&rest, "web", "/", archive).await?;
    ensure!(copied.code == 200, "{}", copied.words());
    let back = get(&rest, "web", "/blob").await?;
    std::fs::write(dir.join("back.tar"), back.body)?;
    shell(&dir, "tar xf back.tar -O | cmp - blob")?;

    for (pid, before) in pids.into_iter().zip(before) {
        let grown = most_memory(pid)?.saturating_sub(before?);
        ensure!(grown < MOST_GROWTH, "{pid} has grown by {grown} KiB");
    }
    Ok(())
}

#[tokio::test]
async fn what_cannot_be_copied_is_told_by_its_name_and_nothing_is_written() -> anyhow::Result<()> {
    let (mut world, rest) = host().await?;
    let engine = &world.host("nuc-01")?.engine;
    engine
        .docker(["run", "-d", "--network=none", "--read-only", "--name", "fixed", "demo:1", "sleep", "1000"])
        .await?;
    let dir = made(&world, "some")?;
    let archive = shell(&dir, "echo some > some && tar c some")?;

    for (container, path, code, words) in [
        ("web", "/none", "404 ", "/none"),
        // An older engine takes these for its own mistakes.
        ("web", "/bin/busybox", "", "not a directory"),
        ("fixed", "/bin", "", "read-only"),
        ("nobody", "/", "404 ", "nobody"),
    ] {
        let said = put(&rest, container, path, archive.clone()).await?.words();
        ensure!(said.starts_with(code) && said.contains(words), "{container} {path}: {said}");
    }
    for (container, path) in [("web", "/none"), ("nobody", "/")] {
        let said = get(&rest, container, path).await?.words();
        ensure!(said.starts_with("404 ") && (said.contains(path) || said.contains(container)), "get: {said}");
    }
    let climbing =
        put(&rest, "web", "/bin", shell(&dir, "tar cP --transform 's,^,../../,' some")?).await?.words();
    ensure!(climbing == r#"400 the archive has "../../some", which leads out of it"#, "climbing: {climbing}");
    let packed = put(&rest, "web", "/bin", shell(&dir, "tar cz some")?).await?.words();
    ensure!(packed.starts_with("400 this is no plain tar archive"), "packed: {packed}");
    let engine = &world.host("nuc-01")?.engine;
    ensure!(engine.docker(["exec", "web", "cat", "/some"]).await.is_err(), "it has climbed");

    world.host_mut("nuc-01")?.agent.stop().await?;
    let away = get(&rest, "web", "/bin").await?.words();
    ensure!(away.starts_with("503 the agent of dockerinstance \"nuc-01\" is not connected"), "away: {away}");
    Ok(())
}
