//! Every world of the model, explored as far as a run of the tests can afford.

use gantry_model::{Explored, Reason, explore, worlds};

/// Generated states of a world, at most.
const MOST: usize = 2_000_000;
/// Different states of all worlds together, at least.
const LEAST: usize = 1_000_000;

#[test]
fn every_invariant_holds_in_every_world_and_every_end_is_reached() {
    let explored: Vec<Explored> = worlds().iter().map(|settings| explore(settings, MOST)).collect();
    for world in &explored {
        println!("{world}");
    }

    let wrong: Vec<String> = explored
        .iter()
        .filter(|world| !world.failures.is_empty() || !world.missing.is_empty())
        .map(ToString::to_string)
        .collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    let states: usize = explored.iter().map(|world| world.states).sum();
    assert!(states >= LEAST, "only {states} states");
}

#[test]
fn every_reason_an_operation_can_end_with_is_one_that_some_world_must_reach() {
    let reached: Vec<Reason> = worlds().into_iter().flat_map(|settings| settings.reaches).collect();

    let missing: Vec<Reason> = Reason::ALL.into_iter().filter(|reason| !reached.contains(reason)).collect();
    assert_eq!(missing, []);
}
