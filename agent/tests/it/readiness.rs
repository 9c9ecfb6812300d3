use std::sync::Arc;
use std::time::Duration;

use gantry_agent::clock::{Clock, SystemClock, SystemEntropy};
use gantry_agent::operations::Readiness as _;
use gantry_agent::session::readiness::Gate;
use parking_lot::Mutex;

/// Time since boot that the test moves.
#[derive(Default)]
struct Boot(Mutex<Duration>);

impl Boot {
    fn pass(&self, seconds: u64) {
        *self.0.lock() += Duration::from_secs(seconds);
    }
}

impl Clock for Boot {
    fn now(&self) -> jiff::Timestamp {
        SystemClock.now()
    }

    fn since_boot(&self) -> Duration {
        *self.0.lock()
    }

    fn boot(&self) -> String {
        String::new()
    }
}

fn gate() -> (Arc<Boot>, Gate) {
    let boot = Arc::new(Boot::default());
    (boot.clone(), Gate::new(boot, Arc::new(SystemEntropy)))
}

#[test]
fn nothing_starts_before_resume_nor_after_the_session() {
    let (boot, gate) = gate();
    assert!(!gate.is_ready());

    gate.open(boot.since_boot());
    assert!(gate.is_ready());

    gate.close();
    assert!(!gate.is_ready());
}

#[test]
fn twenty_seconds_without_a_round_trip_end_readiness_and_a_round_trip_brings_it_back() {
    let (boot, gate) = gate();
    gate.open(boot.since_boot());
    let nonce = gate.nonce();
    boot.pass(19);
    assert!(gate.is_ready());
    boot.pass(1);
    assert!(!gate.is_ready());

    let fresh = gate.nonce();
    assert!(gate.prove(&nonce));
    assert!(!gate.is_ready(), "an old nonce proves an old round trip");
    assert!(gate.prove(&fresh));
    assert!(gate.is_ready());
}

#[test]
fn a_process_that_was_frozen_is_not_ready_by_what_lay_in_its_buffers() {
    let (boot, gate) = gate();
    let hello = boot.since_boot();
    boot.pass(900);

    gate.open(hello);

    assert!(!gate.is_ready());
}

#[test]
fn a_nonce_proves_once_and_only_in_its_own_session() {
    let (boot, gate) = gate();
    gate.open(boot.since_boot());
    let nonce = gate.nonce();
    assert!(gate.prove(&nonce));
    assert!(!gate.prove(&nonce));
    let other = gate.nonce();

    gate.close();
    gate.open(boot.since_boot());

    assert!(!gate.prove(&other));
    assert!(!gate.prove(b"made up"));
}
