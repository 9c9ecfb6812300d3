//! Parse, run, say why not.

use std::process::ExitCode;

use clap::Parser as _;
use gantry_agent::app::{self, AppError};
use gantry_agent::config::{ConfigError, Flags};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> anyhow::Result<ExitCode> {
    // Small heaps on huge pages make an idle agent hold half as much again. Not being able to say so costs memory only.
    #[cfg(target_os = "linux")]
    let _ = nix::sys::prctl::set_thp_disable(true);
    let flags = Flags::parse();
    // Two threads are enough beside one engine, and every thread costs memory.
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .max_blocking_threads(8)
        .enable_all()
        .build()?;
    let outcome = runtime.block_on(async {
        let config = flags.resolve()?;
        let stop = CancellationToken::new();
        let (mut terminate, mut interrupt) =
            (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
        // A task like all others: between this thread and those of the runtime every call would go to and fro.
        let mut running = AbortOnDropHandle::new(tokio::spawn(app::run(config, stop.clone())));
        tokio::select! {
            outcome = &mut running => return Ok::<_, anyhow::Error>(outcome??),
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        stop.cancel();
        Ok(running.await??)
    });
    let Err(error) = outcome else { return Ok(ExitCode::SUCCESS) };
    eprintln!("error: {error:#}");
    let hint = error.downcast_ref::<AppError>().and_then(AppError::hint);
    let hint = hint.or_else(|| error.downcast_ref::<ConfigError>().map(ConfigError::hint));
    if let Some(hint) = hint {
        eprintln!("hint: {hint}");
    }
    Ok(ExitCode::from(2))
}
