//! `gantry-controller`: parse, start telemetry, run.

use std::process::ExitCode;

use clap::Parser as _;
use gantry_controller::config::Config;
use gantry_controller::{app, telemetry};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[tokio::main]
async fn main() -> ExitCode {
    let config = Config::parse();
    match Box::pin(run(config)).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn run(config: Config) -> anyhow::Result<()> {
    // Before anything may use TLS: a second provider slipping in would panic at run time.
    rustls::crypto::ring::default_provider()
        .install_default()
        .map_err(|_| anyhow::anyhow!("another TLS provider is installed already"))?;
    let traces = telemetry::traces::install(
        config.log_format,
        config.otlp_endpoint.as_deref(),
        config.otlp_ca_file.as_deref(),
    )?;
    let stop = CancellationToken::new();
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut asked_to_stop = async || {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    };
    let asked_twice = async {
        asked_to_stop().await;
        tracing::info!("stopping; once more to stop at once");
        stop.cancel();
        asked_to_stop().await;
    };
    let ended = tokio::select! {
        ended = app::run(config, stop.clone()) => ended,
        () = asked_twice => Err(anyhow::anyhow!("told twice to stop, so what was under way is cut off")),
    };
    traces.flush().await;
    ended
}
