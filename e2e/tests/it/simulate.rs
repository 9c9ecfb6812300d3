//! Seeds of the simulation, as many as a minute takes. `make simulate SEEDS=…` runs others; one that failed is kept here.

use std::process::Command;

#[test]
fn no_seed_breaks_a_promise() {
    let program = env!("CARGO_BIN_EXE_gantry-simulate");
    let output = Command::new(program).args(["--seeds", "0..40"]).output().expect("it runs");
    let told = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{told}");
    println!("{told}");
}
