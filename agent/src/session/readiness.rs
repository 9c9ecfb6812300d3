//! Whether work may start: only within 20 s of boot time after something the controller has proven to have read.
//!
//! A process that was frozen, and a machine that slept, find their buffers full of what was asked long ago. So each proof
//! counts from when the agent *issued* what the controller gave back, not from when it came.

use std::collections::VecDeque;
use std::time::Duration;

use async_trait::async_trait;
use parking_lot::Mutex;
use tokio::sync::watch;

use crate::clock::{SharedClock, SharedEntropy};
use crate::operations::Readiness;

/// How long one proof lasts.
pub const LASTS: Duration = gantry_api::names::PROOF_LASTS;
/// Nonces that may be given back; more are not waited for.
const OUTSTANDING: usize = 8;
const NONCE_LENGTH: usize = 16;

/// The one readiness of this process. Sessions open and close it.
pub struct Gate {
    clock: SharedClock,
    entropy: SharedEntropy,
    state: Mutex<State>,
    proofs: watch::Sender<u64>,
}

#[derive(Default)]
struct State {
    is_open: bool,
    /// When the newest thing that was given back was issued.
    proven: Option<Duration>,
    issued: VecDeque<(Vec<u8>, Duration)>,
}

impl Gate {
    /// Closed until a session opens it.
    pub fn new(clock: SharedClock, entropy: SharedEntropy) -> Self {
        Self { clock, entropy, state: Mutex::default(), proofs: watch::Sender::new(0) }
    }

    /// Resume has answered in a session whose Hello was answered at `hello`, in time since boot; that Resume came proves
    /// that Hello's answer was read.
    pub fn open(&self, hello: Duration) {
        *self.state.lock() = State { is_open: true, proven: Some(hello), issued: VecDeque::new() };
        self.proofs.send_modify(|count| *count += 1);
    }

    /// The session is over: nothing starts until another opens.
    pub fn close(&self) {
        *self.state.lock() = State::default();
    }

    /// Something new for the controller to give back.
    pub fn nonce(&self) -> Vec<u8> {
        let mut nonce = vec![0; NONCE_LENGTH];
        self.entropy.fill(&mut nonce);
        let mut state = self.state.lock();
        if state.issued.len() == OUTSTANDING {
            state.issued.pop_front();
        }
        state.issued.push_back((nonce.clone(), self.clock.since_boot()));
        nonce
    }

    /// Takes a nonce that came back. One that was not issued in this session, or was given back before, proves nothing.
    pub fn prove(&self, nonce: &[u8]) -> bool {
        let mut state = self.state.lock();
        if !state.is_open {
            return false;
        }
        let Some(at) = state.issued.iter().position(|(issued, _)| issued == nonce) else {
            return false;
        };
        // The older ones would prove less.
        let issued_at = state.issued.drain(..=at).next_back().map(|(_, issued_at)| issued_at);
        state.proven = state.proven.max(issued_at);
        drop(state);
        self.proofs.send_modify(|count| *count += 1);
        true
    }
}

#[async_trait]
impl Readiness for Gate {
    fn is_ready(&self) -> bool {
        let state = self.state.lock();
        let now = self.clock.since_boot();
        state.is_open && state.proven.is_some_and(|proven| now.saturating_sub(proven) < LASTS)
    }

    async fn ready(&self) {
        let mut proofs = self.proofs.subscribe();
        while !self.is_ready() {
            // The sender is ours and lives as long as we do.
            let _ = proofs.changed().await;
        }
    }
}
