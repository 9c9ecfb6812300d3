//! The ways to the controller, also where only HTTP/1.1 passes.

use std::path::Path;
use std::time::Duration;

use anyhow::ensure;
use gantry_e2e::engine::Engine;
use gantry_e2e::eventually;
use gantry_e2e::manifest::operation;
use gantry_e2e::process::{Process, run};
use gantry_e2e::proxy::Proxy;
use gantry_e2e::world::World;
use tokio::process::Command;

/// Which ways the sessions of that host's agent came about, as its log tells.
fn ways(world: &World) -> anyhow::Result<Vec<String>> {
    let log = world.host("nuc-01")?.agent.log();
    let ways = log.lines().filter_map(|line| line.split_once(" way=")).map(|(_, way)| way.to_owned());
    Ok(ways.collect())
}

/// A host whose agent was told to reach the controller at that address, by that transport if any.
async fn enrol(world: &mut World, address: &str, transport: Option<&str>) -> anyhow::Result<()> {
    let engine = Engine::start(&world.path("nuc-01"), None).await?;
    let mut settings = world.agent_settings("nuc-01", &engine.host()).await?;
    settings.controller = format!("https://{address}");
    settings.extra.extend(transport.map(|transport| format!("--transport={transport}")));
    world.start_agent("nuc-01", engine, settings)
}

async fn works(world: &World) -> anyhow::Result<()> {
    world.becomes_healthy("nuc-01", "Online").await?;
    world.host("nuc-01")?.engine.runs("web").await?;
    world.kubectl().apply(&operation("stop", "nuc-01", "Stop", "web", "")).await?;
    world.kubectl().wait("operation/stop", "condition=Complete").await?;
    assert_eq!(world.host("nuc-01")?.engine.state("web").await, "exited");
    Ok(())
}

#[tokio::test]
async fn an_agent_behind_an_http_1_1_proxy_chooses_the_websocket_by_itself() -> anyhow::Result<()> {
    let mut world = World::new().await?;
    let (address, _nginx) = nginx(&world.path("nginx"), world.controller.address()).await?;

    enrol(&mut world, &address, None).await?;

    works(&world).await?;
    assert_eq!(ways(&world)?, ["Websocket"]);
    Ok(())
}

#[tokio::test]
async fn an_agent_told_to_connect_directly_does_so_through_what_passes_tcp_and_not_as_a_websocket()
-> anyhow::Result<()> {
    let mut world = World::new().await?;
    let (http_only, _nginx) = nginx(&world.path("nginx"), world.controller.address()).await?;
    enrol(&mut world, &http_only, Some("direct")).await?;
    eventually("it to say why it is not in", Duration::from_secs(30), async || {
        let log = world.host("nuc-01")?.agent.log();
        ensure!(log.contains("no TLS connection to") || log.contains("does not speak"), "{log}");
        ensure!(!log.contains("through a WebSocket"), "{log}");
        Ok(())
    })
    .await?;

    let proxy = Proxy::start(world.controller.address()).await?;
    let host = world.host_mut("nuc-01")?;
    host.agent.kill().await?;
    host.agent.settings_mut().controller = format!("https://{}", proxy.address());
    host.agent.resume()?;

    works(&world).await?;
    assert_eq!(ways(&world)?, ["Direct"]);
    Ok(())
}

#[tokio::test]
async fn an_agent_told_to_use_a_websocket_does_so_where_the_direct_way_is_open_too() -> anyhow::Result<()> {
    let mut world = World::new().await?;
    let address = world.controller.address().to_string();

    enrol(&mut world, &address, Some("websocket")).await?;

    works(&world).await?;
    assert_eq!(ways(&world)?, ["Websocket"]);
    Ok(())
}

/// An nginx that ends TLS with a certificate of its own and speaks HTTP/1.1 only.
async fn nginx(dir: &Path, upstream: std::net::SocketAddr) -> anyhow::Result<(String, Process)> {
    std::fs::create_dir_all(dir)?;
    let mut openssl = Command::new("openssl");
    openssl.current_dir(dir).args([
        "req",
        "-x509",
        "-newkey",
        "rsa:2048",
        "-nodes",
        "-keyout",
        "key.pem",
        "-out",
        "cert.pem",
        "-days",
        "1",
        "-subj",
        "/CN=proxy",
    ]);
    run(openssl).await?;
    let address = format!("127.0.0.1:{}", gantry_e2e::free_port()?);
    let here = dir.display();
    std::fs::write(
        dir.join("nginx.conf"),
        format!(
            "daemon off; user root; pid {here}/pid; error_log {here}/error.log; events {{}}\n\
             http {{ access_log off; client_body_temp_path {here}/b; proxy_temp_path {here}/p; fastcgi_temp_path {here}/f;\n\
             uwsgi_temp_path {here}/u; scgi_temp_path {here}/s;\n\
             server {{ listen {address} ssl; ssl_certificate {here}/cert.pem; ssl_certificate_key {here}/key.pem;\n\
             location / {{ proxy_pass https://{upstream}; proxy_ssl_verify off; proxy_http_version 1.1;\n\
             proxy_set_header Upgrade $http_upgrade; proxy_set_header Connection \"upgrade\"; proxy_read_timeout 60s; }} }} }}\n"
        ),
    )?;
    let mut command = Command::new("nginx");
    command.arg("-c").arg(dir.join("nginx.conf"));
    let process = Process::spawn("nginx", command, &dir.join("nginx.log"))?;
    eventually("nginx", Duration::from_secs(10), async || {
        let mut curl = Command::new("curl");
        curl.args(["-sk", &format!("https://{address}/livez")]);
        let said = run(curl).await?;
        ensure!(said.contains("ok"), "{said}");
        Ok(())
    })
    .await?;
    Ok((address, process))
}
