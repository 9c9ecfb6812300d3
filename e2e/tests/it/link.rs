//! The way to the controller where only HTTP/1.1 passes.

use std::path::Path;
use std::time::Duration;

use anyhow::ensure;
use gantry_e2e::engine::Engine;
use gantry_e2e::eventually;
use gantry_e2e::manifest::operation;
use gantry_e2e::process::{Process, run};
use gantry_e2e::world::World;
use tokio::process::Command;

#[tokio::test]
async fn an_agent_behind_an_http_1_1_proxy_enrols_and_works_through_the_websocket() -> anyhow::Result<()> {
    let mut world = World::new().await?;
    let (address, _nginx) = nginx(&world.path("nginx")?, world.controller.address()).await?;
    let engine = Engine::start(&world.path("nuc-01")?, None).await?;
    let mut settings = world.agent_settings("nuc-01", &engine.host()).await?;
    settings.controller = format!("https://{address}");
    world.start_agent("nuc-01", engine, settings)?;

    world.becomes_healthy("nuc-01", "Online").await?;

    world.host("nuc-01")?.engine.runs("web").await?;
    world.kubectl().apply(&operation("stop", "nuc-01", "Stop", "web", "")).await?;
    world.kubectl().wait("operation/stop", "condition=Complete").await?;
    assert_eq!(world.host("nuc-01")?.engine.state("web").await, "exited");
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
    let process = Process::spawn("nginx", command, &dir.join("log"))?;
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
