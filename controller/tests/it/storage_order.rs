//! Many writers, many watchers, a real Postgres: everybody sees every change once, in the order of its commit.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use gantry_controller::clock::{Entropy as _, SystemEntropy};
use gantry_controller::storage::{ChangeKind, Effect, Expects, Key, Resource, Store, Version, Write};
use gantry_controller::watch_cache::Subscription;
use tokio::task::JoinSet;

use crate::world::storage::{Database, Seen, changes, create, delete, key, lost, resource, update};

const KINDS: usize = 3;
const WRITERS: usize = 64;
const WRITES: usize = 40;
/// Fewer names than writers, so that they meet.
const NAMES: u64 = 30;

/// One writer: creates, updates and deletes at random, and remembers what it was told is stored.
async fn write_at_random(store: Store, resource: Resource) -> Vec<Seen> {
    let mut stored = Vec::new();
    while stored.len() < WRITES {
        let key = key(&resource, &format!("n{}", SystemEntropy.below(NAMES)));
        let write = match store.cache().get(&key) {
            None => create(key, SystemEntropy.uuid()),
            Some(object) if SystemEntropy.below(4) == 0 => delete(&object),
            Some(object) => update(&object, SystemEntropy.below(1_000)),
        };
        let kind = kind_of(&write);
        match store.write(write).await {
            Ok(object) => stored.push(Seen::new(kind, &object)),
            Err(error) => assert!(lost(&error), "{error}"),
        }
    }
    stored
}

fn kind_of(write: &Write) -> ChangeKind {
    match (&write.effect, write.expects) {
        (Effect::Delete(_), _) => ChangeKind::Deleted,
        (Effect::Put(_), Expects::Absent | Expects::AbsentIn(_)) => ChangeKind::Added,
        (Effect::Put(_), Expects::Version(_)) => ChangeKind::Modified,
    }
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Manner {
    Prompt,
    Slow,
    Reconnecting,
}

/// One watcher: everything it was told of a resource until nothing more is coming.
async fn watch_to_the_end(
    store: Store,
    resource: Resource,
    manner: Manner,
    end: Arc<tokio::sync::OnceCell<Version>>,
) -> Vec<Seen> {
    let from = |version| -> Subscription {
        store.cache().watch(&resource, None, None, version).expect("the window reaches back")
    };
    let mut seen: Vec<Seen> = Vec::new();
    let mut watch = from(Version(0));
    loop {
        tokio::select! {
            changes = changes(&mut watch) => seen.extend(changes.iter().map(Seen::from)),
            () = tokio::time::sleep(Duration::from_millis(200)) => {}
        }
        if end.get().is_some_and(|end| watch.progress() >= *end) {
            return seen;
        }
        match manner {
            Manner::Slow => tokio::time::sleep(Duration::from_millis(100)).await,
            Manner::Reconnecting if SystemEntropy.below(3) == 0 => {
                watch = from(seen.last().map_or(Version(0), |last| last.version));
            }
            Manner::Prompt | Manner::Reconnecting => {}
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_watcher_sees_every_change_once_in_order_and_ends_with_the_list() {
    let database = Database::start().await;
    let store = database.store().await;
    let end = Arc::new(tokio::sync::OnceCell::new());
    let mut watchers = JoinSet::new();
    for number in 0..8 {
        let manner = match number {
            0 => Manner::Slow,
            1 => Manner::Reconnecting,
            _ => Manner::Prompt,
        };
        let resource = resource(number % KINDS);
        let watching = watch_to_the_end(store.clone(), resource.clone(), manner, Arc::clone(&end));
        watchers.spawn(async move { (resource, manner, watching.await) });
    }

    let writers =
        (0..WRITERS).map(|number| tokio::spawn(write_at_random(store.clone(), resource(number % KINDS))));
    let mut stored: Vec<Seen> =
        join_all(writers).await.into_iter().flat_map(|writer| writer.expect("it ends")).collect();
    stored.sort();
    let newest = store.caught_up().await.expect("Postgres answers");
    end.set(newest).expect("it is set once");

    while let Some(watcher) = watchers.join_next().await {
        let (resource, manner, seen) = watcher.expect("it ends");
        let of_resource: Vec<_> =
            stored.iter().filter(|stored| stored.key.resource == resource).cloned().collect();
        assert_eq!(seen, of_resource, "{manner:?} on {resource}");
        let list = store.cache().list(&resource, None).objects;
        let list: BTreeMap<Key, Vec<u8>> =
            list.iter().map(|object| (object.key.clone(), object.json.to_vec())).collect();
        assert_eq!(replay(&seen), list, "{manner:?} on {resource}");
    }
    let versions: Vec<_> = stored.iter().map(|stored| stored.version.0).collect();
    assert_eq!(versions, (1..=newest.0).collect::<Vec<_>>(), "the versions have gaps");
    let raw = database.query("SELECT count(*), count(DISTINCT version) FROM changes").await;
    assert_eq!(raw, format!("{0}|{0}", stored.len()));
    store.stop().await;
}

/// The state that changes lead to.
fn replay(seen: &[Seen]) -> BTreeMap<Key, Vec<u8>> {
    let mut state = BTreeMap::new();
    for change in seen {
        if change.kind == "Deleted" {
            state.remove(&change.key);
        } else {
            state.insert(change.key.clone(), change.state.clone());
        }
    }
    state
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_controllers_on_one_database_see_each_others_writes_in_the_same_order() {
    let database = Database::start().await;
    // Both bring the schema up at once.
    let (left, right) = tokio::join!(database.store(), database.store());
    let end = Arc::new(tokio::sync::OnceCell::new());
    let watchers = [&left, &right].map(|store| {
        tokio::spawn(watch_to_the_end(store.clone(), resource(0), Manner::Prompt, Arc::clone(&end)))
    });

    let writers = (0..16).map(|number| {
        let store = if number % 2 == 0 { &left } else { &right };
        tokio::spawn(write_at_random(store.clone(), resource(0)))
    });
    let mut stored: Vec<Seen> =
        join_all(writers).await.into_iter().flat_map(|writer| writer.expect("it ends")).collect();
    stored.sort();
    let newest = left.caught_up().await.expect("Postgres answers");
    end.set(newest).expect("it is set once");

    for watcher in watchers {
        assert_eq!(watcher.await.expect("it ends"), stored);
    }
    right.caught_up().await.expect("Postgres answers");
    assert_eq!(left.cache().list(&resource(0), None), right.cache().list(&resource(0), None));
}

#[tokio::test]
async fn what_one_controller_was_told_is_stored_the_other_reads_at_once() {
    let database = Database::start().await;
    let (left, right) = (database.store().await, database.store().await);

    for number in 0..50 {
        let made = left.write(create(key(&resource(0), &format!("n{number}")), SystemEntropy.uuid())).await;
        let made = made.expect("it is new");
        right.caught_up().await.expect("Postgres answers");
        assert_eq!(right.cache().get(&made.key), Some(made));
    }
}
