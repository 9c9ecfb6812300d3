//! A process of the simulated world: it runs, stands still, or is dead. Whatever it does to the world outside passes here, so a
//! dead one changes nothing any more, even while its last tasks are still being dropped.

use std::sync::Arc;

use tokio::sync::watch;

/// How a process is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Runs,
    Frozen,
    Dead,
}

/// The process is dead.
#[derive(Clone, Copy, Debug)]
pub struct Dead;

/// One process.
#[derive(Debug)]
pub struct Process {
    name: String,
    state: watch::Sender<State>,
}

impl Process {
    /// A process that runs.
    pub fn new(name: impl Into<String>) -> Arc<Self> {
        Arc::new(Self { name: name.into(), state: watch::Sender::new(State::Runs) })
    }

    /// For the trace.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// SIGKILL.
    pub fn kill(&self) {
        self.state.send_replace(State::Dead);
    }

    /// SIGSTOP.
    pub fn freeze(&self) {
        self.state.send_if_modified(|state| {
            let runs = *state == State::Runs;
            if runs {
                *state = State::Frozen;
            }
            runs
        });
    }

    /// SIGCONT.
    pub fn thaw(&self) {
        self.state.send_if_modified(|state| {
            let is_frozen = *state == State::Frozen;
            if is_frozen {
                *state = State::Runs;
            }
            is_frozen
        });
    }

    /// False once killed.
    pub fn is_alive(&self) -> bool {
        *self.state.borrow() != State::Dead
    }

    /// Returns when it runs, at once if it does.
    pub async fn runs(&self) -> Result<(), Dead> {
        let mut state = self.state.subscribe();
        let state = state.wait_for(|state| *state != State::Frozen).await.map(|state| *state);
        if state.is_ok_and(|state| state == State::Runs) { Ok(()) } else { Err(Dead) }
    }

    /// Returns when it is dead.
    pub async fn dies(&self) {
        // The sender is ours.
        let _ = self.state.subscribe().wait_for(|state| *state == State::Dead).await;
    }
}
