//! Another program in front of us on the terminal: docker, or an editor.

use std::io::IsTerminal as _;
use std::os::unix::process::ExitStatusExt as _;
use std::process::{ExitCode, ExitStatus};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::process::{Child, Command};
use tokio::signal::unix::{SignalKind, signal};

/// Runs it to its end. Signals are its to follow, so that we end after it, and have cleaned up.
pub(crate) async fn run(mut command: Command) -> std::io::Result<ExitStatus> {
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut hang_up = signal(SignalKind::hangup())?;
    let mut child = command.spawn()?;
    // A terminal interrupts everybody in front of it, so there it has heard already.
    let has_heard = std::io::stdin().is_terminal();
    loop {
        tokio::select! {
            ended = child.wait() => return ended,
            _ = interrupt.recv() => if !has_heard { pass_on(&child, Signal::SIGINT) },
            _ = terminate.recv() => pass_on(&child, Signal::SIGTERM),
            _ = hang_up.recv() => pass_on(&child, Signal::SIGHUP),
        }
    }
}

fn pass_on(child: &Child, signal: Signal) {
    if let Some(id) = child.id().and_then(|id| i32::try_from(id).ok()) {
        // One that has ended meanwhile is waited for already.
        let _ = kill(Pid::from_raw(id), signal);
    }
}

/// Its exit code; a signal is told as shells do.
pub(crate) fn code(ended: ExitStatus) -> ExitCode {
    let code = ended.code().or_else(|| ended.signal().map(|signal| 128 + signal)).unwrap_or(1);
    ExitCode::from(u8::try_from(code).unwrap_or(u8::MAX))
}
