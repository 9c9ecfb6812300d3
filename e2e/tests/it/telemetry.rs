//! What the processes tell of themselves.

use std::time::Duration;

use anyhow::ensure;
use gantry_e2e::collector::Collector;
use gantry_e2e::engine::Engine;
use gantry_e2e::eventually;
use gantry_e2e::manifest::operation;
use gantry_e2e::process::run;
use gantry_e2e::world::World;
use tokio::process::Command;

/// A world whose one host's agent got further flags.
async fn with_host(mut world: World, flags: &[&str]) -> anyhow::Result<World> {
    let engine = Engine::start(&world.path("nuc-01"), None).await?;
    let mut settings = world.agent_settings("nuc-01", &engine.host()).await?;
    settings.extra.extend(flags.iter().map(|flag| (*flag).to_owned()));
    world.start_agent("nuc-01", engine, settings)?;
    world.becomes_healthy("nuc-01", "Online").await?;
    world.host("nuc-01")?.engine.runs("web").await?;
    Ok(world)
}

#[tokio::test]
async fn the_fixed_metrics_are_there_and_count_what_happened() -> anyhow::Result<()> {
    let listen = format!("127.0.0.1:{}", gantry_e2e::free_port()?);
    let world = with_host(World::new().await?, &["--metrics-listen", &listen]).await?;
    world.kubectl().apply(&operation("stop", "nuc-01", "Stop", "web", "")).await?;
    world.kubectl().wait("operation/stop", "condition=Complete").await?;
    world.kubectl().apply(&operation("gone", "nuc-01", "Stop", "nobody", "")).await?;
    world.kubectl().wait("operation/gone", "condition=Failed").await?;

    let said = world.kubectl().get_raw("/metrics").await?;
    for line in [
        r#"docker_operations_total{action="Stop",status="Succeeded"} 1"#,
        r#"docker_operations_total{action="Stop",status="Failed"} 1"#,
        r#"docker_operations_duration_seconds_count{action="Stop"} 2"#,
        "docker_grpc_connections_total 1",
        r#"docker_instance_health_status{instance="nuc-01",namespace="default",status="Online"} 1"#,
        r#"docker_instance_health_status{instance="nuc-01",namespace="default",status="Offline"} 0"#,
    ] {
        ensure!(said.lines().any(|found| found == line), "no line `{line}` in:\n{said}");
    }
    for name in [
        "docker_health_check_duration_seconds_count",
        "gantry_build_info",
        "gantry_request_duration_seconds_count",
        "gantry_watchers",
        "gantry_watch_cache_lag_seconds_count",
        "gantry_group_commit_size_count",
        "gantry_reconcile_duration_seconds_count",
        "gantry_reconcile_queue_depth",
        "gantry_reconcile_retries_total",
    ] {
        ensure!(said.lines().any(|found| found.starts_with(name)), "no {name} in:\n{said}");
    }

    let mut curl = Command::new("curl");
    curl.args(["-sf", &format!("http://{listen}/metrics")]);
    let said = run(curl).await?;
    for name in ["gantry_agent_connected 1", "gantry_agent_reconnects_total", "gantry_build_info"] {
        ensure!(said.lines().any(|found| found.starts_with(name)), "no {name} in:\n{said}");
    }
    Ok(())
}

#[tokio::test]
async fn one_trace_goes_from_the_reconcile_through_the_agent_to_the_call_of_docker() -> anyhow::Result<()> {
    let collector = Collector::start().await?;
    let endpoint = collector.endpoint();
    let flags = ["--otlp-endpoint", endpoint.as_str()];
    let world = with_host(World::with_flags(&flags).await?, &flags).await?;

    world.kubectl().apply(&operation("stop", "nuc-01", "Stop", "web", "")).await?;
    world.kubectl().wait("operation/stop", "condition=Complete").await?;

    eventually("the trace", Duration::from_secs(30), async || {
        let paths = collector.paths_to("docker.call");
        let wanted = ["docker.call", "operation.run", "reconcile.operation"];
        ensure!(paths.iter().any(|path| path.iter().eq(&wanted)), "there are {paths:?}");
        Ok(())
    })
    .await
}

#[tokio::test]
async fn a_clients_trace_goes_on_in_the_api() -> anyhow::Result<()> {
    let collector = Collector::start().await?;
    let world = World::with_flags(&["--otlp-endpoint", collector.endpoint().as_str()]).await?;
    let trace = "4bf92f3577b34da6a3ce929d0e0e4736";

    let mut curl = Command::new("curl");
    curl.args(["-skf", "-H", &format!("Authorization: Bearer {}", world.controller.admin_token()?)]);
    curl.args(["-H", &format!("traceparent: 00-{trace}-00f067aa0ba902b7-01")]);
    curl.arg(format!("https://{}/api/v1/namespaces", world.controller.address()));
    run(curl).await?;

    eventually("the span", Duration::from_secs(30), async || {
        ensure!(collector.has_in_trace("api.request", trace), "it is not there");
        Ok(())
    })
    .await
}
