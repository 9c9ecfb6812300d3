//! What is forgotten: compaction of the log, the bounded window, and histories that end.

use std::sync::atomic::Ordering;
use std::time::Duration;

use gantry_controller::clock::{Entropy as _, SystemEntropy};
use gantry_controller::storage::{Backend as _, Retention, Store, Tail, Version};
use gantry_controller::watch_cache::{Next, WindowLimits};

use crate::world::gate::Gate;
use crate::world::storage::{Database, create, key, resource, store_over};

/// Keeps the newest hundred versions.
const RETENTION: Retention = Retention { versions: 100, age: Duration::ZERO };

async fn fill(store: &Store, from: usize, to: usize) {
    for number in from..to {
        let write = create(key(&resource(0), &format!("n{number}")), SystemEntropy.uuid());
        store.write(write).await.expect("it is new");
    }
}

#[tokio::test]
async fn compacted_changes_are_gone_for_who_asks_and_the_objects_are_not() {
    let database = Database::start().await;
    let backend = database.connect().await;
    database.partition_every(50).await;
    let store = store_over(backend.clone(), WindowLimits::default()).await;
    fill(&store, 0, 400).await;

    let floor = backend.compact(RETENTION).await.expect("nobody reads the log");

    assert!(floor >= Version(250) && floor <= Version(300), "{floor}");
    let tail = backend.changes(Version(floor.0 - 1), 1_000).await.expect("Postgres answers");
    assert!(matches!(tail, Tail::Compacted), "{tail:?}");
    let Tail::Changes { changes, .. } = backend.changes(floor, 1_000).await.expect("Postgres answers") else {
        panic!("the floor itself can be read from");
    };
    assert_eq!(changes.len(), usize::try_from(400 - floor.0).expect("a count"));
    let fresh = database.store().await;
    assert_eq!(fresh.cache().list(&resource(0), None).objects.len(), 400);
    let expired = fresh.cache().watch(&resource(0), None, None, Version(10)).err().expect("it is forgotten");
    assert_eq!((expired.asked, expired.oldest), (Version(10), Version(400)));
}

#[tokio::test]
async fn a_watcher_too_slow_for_the_window_is_ended_and_never_skips() {
    let database = Database::start().await;
    let limits = WindowLimits { changes: 100, bytes: usize::MAX };
    let store = store_over(database.connect().await, limits).await;
    let mut slow = store.cache().watch(&resource(0), None, None, Version(0)).expect("nothing is forgotten");

    fill(&store, 0, 150).await;
    store.caught_up().await.expect("Postgres answers");

    let next = slow.next().await;
    assert!(matches!(next, Next::TooSlow), "{next:?}");
    assert!(store.cache().watch(&resource(0), None, None, Version(49)).is_err());
    assert!(store.cache().watch(&resource(0), None, None, Version(50)).is_ok());
}

#[tokio::test]
async fn a_controller_cut_off_past_compaction_ends_its_watches_and_starts_anew() {
    let database = Database::start().await;
    let backend = database.connect().await;
    database.partition_every(50).await;
    let writer = store_over(backend.clone(), WindowLimits::default()).await;
    let gate = Gate::around(database.connect().await);
    let behind = store_over(gate.clone(), WindowLimits::default()).await;
    fill(&writer, 0, 10).await;
    behind.caught_up().await.expect("Postgres answers");
    let mut watching = behind.cache().watch(&resource(0), None, None, Version(10)).expect("it is there");

    gate.is_closed.store(true, Ordering::Relaxed);
    fill(&writer, 10, 400).await;
    backend.compact(RETENTION).await.expect("nobody reads the log");
    assert!(behind.caught_up().await.is_err(), "it answers as if it were up to date");
    gate.is_closed.store(false, Ordering::Relaxed);

    behind.caught_up().await.expect("it has caught up");
    let next = watching.next().await;
    assert!(matches!(next, Next::TooSlow), "{next:?}");
    assert_eq!(behind.cache().list(&resource(0), None), writer.cache().list(&resource(0), None));
}

#[tokio::test]
async fn a_log_that_is_read_with_a_gap_ends_its_watches_and_is_read_anew() {
    let database = Database::start().await;
    let gate = Gate::around(database.connect().await);
    let store = store_over(gate.clone(), WindowLimits::default()).await;
    for hidden in [1, 12, 30] {
        let newest = store.caught_up().await.expect("Postgres answers");
        let mut watching = store.cache().watch(&resource(0), None, None, newest).expect("it is there");
        gate.hidden.store(hidden, Ordering::Relaxed);

        let from = usize::try_from(newest.0).expect("a count");
        fill(&store, from, from + 10).await;
        store.caught_up().await.expect("Postgres answers");

        let next = loop {
            match watching.next().await {
                Next::Changes(changes) => {
                    assert!(
                        changes.iter().all(|change| change.object.version < Version(hidden)),
                        "it skipped"
                    );
                }
                next => break next,
            }
        };
        assert!(matches!(next, Next::TooSlow), "{next:?}");
        assert_eq!(store.cache().list(&resource(0), None).objects.len(), from + 10);
    }
}

#[tokio::test]
async fn a_rewound_database_begins_another_history_and_no_version_means_two_states() {
    let database = Database::start().await;
    let store = database.store().await;
    fill(&store, 0, 20).await;
    let mut watching = store.cache().watch(&resource(0), None, None, Version(20)).expect("it is there");

    store.caught_up().await.expect("Postgres answers");
    // What a restored backup looks like from outside.
    database
        .query("BEGIN; DELETE FROM changes WHERE version > 10; DELETE FROM resources WHERE version > 10; UPDATE counter SET version = 10; COMMIT")
        .await;

    let next = tokio::time::timeout(Duration::from_secs(20), watching.next()).await.expect("it is noticed");
    assert!(matches!(next, Next::TooSlow), "{next:?}");
    store.caught_up().await.expect("Postgres answers");
    assert_eq!(store.cache().list(&resource(0), None).objects.len(), 10);
    let made = store.write(create(key(&resource(0), "n15"), SystemEntropy.uuid())).await.expect("it is gone");
    assert!(made.version > Version(1_000_000_000), "{} was used before", made.version);
}

#[tokio::test]
async fn the_first_write_after_an_earlier_disk_came_back_already_belongs_to_another_history() {
    let mut database = Database::start().await;
    let gate = Gate::around(database.connect().await);
    let store = store_over(gate.clone(), WindowLimits::default()).await;
    fill(&store, 0, 10).await;
    database.save().await;
    fill(&store, 10, 20).await;

    // Whoever follows the log does not notice.
    gate.is_closed.store(true, Ordering::Relaxed);
    database.server.crash().await.expect("it dies");
    database.put_saved_back().await;
    database.server.resume().await.expect("it recovers");
    let made = store.write(create(key(&resource(0), "n15"), SystemEntropy.uuid())).await.expect("it is gone");

    assert!(made.version > Version(1_000_000_000), "{} was used before", made.version);
}
