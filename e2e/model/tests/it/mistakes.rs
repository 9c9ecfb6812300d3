//! Planted mistakes: each is caught by the invariant that is there for it.

use gantry_model::{Action, Left, Mistake, Settings, Wish, find, worlds};

/// Generated states of a world, at most.
const MOST: usize = 6_000_000;
/// A mistake, a world in which it shows, and the property that fails there.
const CAUGHT: [(Mistake, &str, &str); 14] = [
    (Mistake::NoFsync, "retries", "I1 once"),
    (Mistake::AckBeforeJournal, "crashes", "I6 what was told is kept"),
    (Mistake::EpochIgnored, "controllers", "I10 the token never falls"),
    (Mistake::ForgetWithoutTombstone, "crashes", "I9 the journal never goes back"),
    (Mistake::ForgetWithoutTombstone, "rewind", "I11 effects are known"),
    (Mistake::EvidenceByClock, "retries", "success is true"),
    (Mistake::LocalCancel, "people", "I8 no end without the agent"),
    (Mistake::LocalCancel, "people", "I5 nothing after cancel"),
    (Mistake::RetryOnTimeout, "retries", "I1 once"),
    (Mistake::Unvouched, "people", "no start after the end"),
    (Mistake::NoQueue, "two on one target", "I4 no overlap"),
    (Mistake::TargetByName, "engine", "I12 the id that was meant"),
    (Mistake::Unfenced, "controllers", "I3 final is final"),
    (Mistake::LateReportWins, "people", "I3 final is final"),
];

#[test]
fn every_mistake_breaks_the_invariant_that_is_there_for_it() {
    let not_caught: Vec<String> = CAUGHT
        .into_iter()
        .filter_map(|(mistake, world, property)| {
            let settings =
                worlds().into_iter().find(|settings| settings.name == world).expect("there is one");
            let Some(moves) = find(&settings.with(mistake), property, MOST) else {
                return Some(format!("{mistake:?} in \"{world}\" does not break \"{property}\""));
            };
            println!("{mistake:?} breaks \"{property}\" in {} moves", moves.len());
            None
        })
        .collect();

    assert!(not_caught.is_empty(), "{}", not_caught.join("\n"));
}

/// What is not promised, so that nobody takes it for proven: both need a host that was copied or set back by its owner.
#[test]
fn a_copied_host_may_do_once_more_what_the_first_did_and_a_journal_set_back_in_silence_what_it_forgot() {
    let journals = worlds().into_iter().find(|settings| settings.name == "journals").expect("there is one");
    let copied = Settings { clones_share_the_count: true, ..journals.clone() };
    let set_back = Settings {
        rollbacks_may_be_silent: true,
        wishes: journals.wishes.iter().map(|wish| Wish { action: Action::Restart, ..*wish }).collect(),
        left: Left { rollbacks: 1, crashes: 1, ..Left::default() },
        ..journals
    };

    for settings in [copied, set_back] {
        let moves = find(&settings, "I1 once", MOST).expect("it is not promised");
        println!("{moves:?}");
    }
}
