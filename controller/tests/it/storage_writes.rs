//! Conditions of writes, and what becomes of writes when Postgres dies under them.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures::future::join_all;
use gantry_controller::clock::{Entropy as _, SystemEntropy};
use gantry_controller::storage::{Effect, Expects, Key, Store, Version, Write, WriteError};

use crate::world::storage::{Database, body, changes, create, delete, key, lost, resource, update};

#[tokio::test]
async fn a_write_happens_only_to_the_object_and_the_version_it_names() {
    let database = Database::start().await;
    let store = database.store().await;
    let web = key(&resource(0), "web");
    let first = store.write(create(web.clone(), SystemEntropy.uuid())).await.expect("it is new");

    let again = store.write(create(web.clone(), SystemEntropy.uuid())).await.expect_err("the name is taken");
    assert!(matches!(again, WriteError::AlreadyExists(_)), "{again}");
    let second = store.write(update(&first, 1)).await.expect("nobody else wrote");
    let stale = store.write(update(&first, 2)).await.expect_err("it has changed");
    assert!(matches!(stale, WriteError::Conflict(_)), "{stale}");
    let stale = store.write(delete(&first)).await.expect_err("it has changed");
    assert!(matches!(stale, WriteError::Conflict(_)), "{stale}");
    let mut other = update(&second, 3);
    other.effect = Effect::Put(body(SystemEntropy.uuid(), 3));
    let stranger = store.write(other).await.expect_err("it is another object's version");
    assert!(matches!(stranger, WriteError::Conflict(_)), "{stranger}");

    let gone = store.write(delete(&second)).await.expect("nobody else wrote");
    assert!(gone.version > second.version);
    let late = store.write(update(&second, 4)).await.expect_err("it is gone");
    assert!(matches!(late, WriteError::Conflict(_)), "{late}");
    let back = store.write(create(web, SystemEntropy.uuid())).await.expect("the name is free again");
    assert!(back.version > gone.version);
}

#[tokio::test]
async fn nothing_enters_a_namespace_that_another_replica_has_changed_or_ended() {
    let database = Database::start().await;
    let (left, right) = (database.store().await, database.store().await);
    let place = Key::namespace("default");
    let first = left.write(create(place.clone(), SystemEntropy.uuid())).await.expect("it is new");
    let enter = |name: &str, version| Write {
        expects: Expects::AbsentIn(version),
        ..create(key(&resource(0), name), SystemEntropy.uuid())
    };
    right.write(enter("web", first.version)).await.expect("the namespace is as it was");

    let second = left.write(update(&first, 1)).await.expect("nobody else wrote");
    let behind = right.write(enter("late", first.version)).await.expect_err("the namespace has changed");
    assert!(matches!(behind, WriteError::NotPlaced(_)), "{behind}");
    let taken = right.write(enter("web", second.version)).await.expect_err("the name is taken");
    assert!(matches!(taken, WriteError::NotPlaced(_)), "{taken}");

    left.write(delete(&second)).await.expect("nobody else wrote");
    let late = right.write(enter("later", second.version)).await.expect_err("the namespace is gone");
    assert!(matches!(late, WriteError::NotPlaced(_)), "{late}");
}

#[tokio::test]
async fn of_many_writers_of_one_version_exactly_one_wins() {
    let database = Database::start().await;
    let (left, right) = (database.store().await, database.store().await);
    let mut object =
        left.write(create(key(&resource(0), "web"), SystemEntropy.uuid())).await.expect("it is new");

    for _ in 0..20 {
        let races = (0..32).map(|number| {
            let store = if number % 2 == 0 { &left } else { &right };
            store.write(update(&object, number))
        });
        let (won, others): (Vec<_>, Vec<_>) = join_all(races).await.into_iter().partition(Result::is_ok);
        assert_eq!(won.len(), 1);
        assert!(others.iter().all(|other| other.as_ref().is_err_and(lost)));
        object = won.into_iter().flatten().next().expect("one won");
    }
}

#[tokio::test]
async fn a_write_that_postgres_refuses_for_its_contents_does_not_fail_its_neighbours() {
    let database = Database::start().await;
    let store = database.store().await;

    // NUL cannot be stored as text.
    let bad = create(key(&resource(0), "nul\0"), SystemEntropy.uuid());
    let good = (0..10).map(|number| create(key(&resource(0), &format!("n{number}")), SystemEntropy.uuid()));
    let (bad, good) = tokio::join!(store.write(bad), join_all(good.map(|write| store.write(write))));

    assert!(matches!(bad, Err(WriteError::Unavailable(_))), "{bad:?}");
    assert!(good.iter().all(Result::is_ok), "{good:?}");
}

/// Names of objects by what their writer was told.
#[derive(Default)]
struct Told {
    stored: BTreeSet<String>,
    refused: BTreeSet<String>,
    unknown: BTreeSet<String>,
}

async fn create_until(store: Store, writer: usize, stop: Arc<AtomicBool>) -> Told {
    let mut told = Told::default();
    for number in 0.. {
        if stop.load(Ordering::Relaxed) {
            break;
        }
        let name = format!("w{writer}-{number}");
        match store.write(create(key(&resource(0), &name), SystemEntropy.uuid())).await {
            Ok(_) => told.stored.insert(name),
            Err(WriteError::Unavailable(_)) => {
                tokio::time::sleep(Duration::from_millis(50)).await;
                told.refused.insert(name)
            }
            Err(WriteError::FateUnknown) => told.unknown.insert(name),
            Err(other) => panic!("{name}: {other}"),
        };
    }
    told
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn f10_a_crash_of_postgres_loses_and_doubles_nothing_and_watches_go_on() {
    let mut database = Database::start().await;
    let store = database.store().await;
    let mut watch = store.cache().watch(&resource(0), None, None, Version(0)).expect("nothing is forgotten");
    let stop = Arc::new(AtomicBool::new(false));
    let writers: Vec<_> =
        (0..16).map(|writer| tokio::spawn(create_until(store.clone(), writer, Arc::clone(&stop)))).collect();

    for _ in 0..5 {
        tokio::time::sleep(Duration::from_millis(300)).await;
        database.server.crash().await.expect("it dies");
        database.server.resume().await.expect("it recovers");
    }
    tokio::time::sleep(Duration::from_millis(500)).await;
    stop.store(true, Ordering::Relaxed);
    let mut told = Told::default();
    for writer in writers {
        let of_one = writer.await.expect("it ends");
        told.stored.extend(of_one.stored);
        told.refused.extend(of_one.refused);
        told.unknown.extend(of_one.unknown);
    }
    let last =
        store.write(create(key(&resource(0), "last"), SystemEntropy.uuid())).await.expect("it works again");

    let mut seen = Vec::new();
    while seen.last() != Some(&last.version) {
        let changes = changes(&mut watch).await;
        seen.extend(changes.iter().map(|change| change.object.version));
    }
    assert!(seen.is_sorted_by(|one, next| one < next), "each change once, in order");
    let names = database.query("SELECT name FROM resources WHERE name <> 'last'").await;
    let names: BTreeSet<String> = names.lines().map(str::to_owned).collect();
    assert_eq!(seen.len(), names.len() + 1);
    assert!(told.stored.is_subset(&names), "acknowledged and lost: {:?}", told.stored.difference(&names));
    assert!(told.refused.is_disjoint(&names), "refused and stored: {:?}", told.refused.intersection(&names));
    assert!(names.iter().all(|name| told.stored.contains(name) || told.unknown.contains(name)));
    assert!(told.stored.len() > 100, "only {} writes", told.stored.len());
}

#[tokio::test]
async fn a_read_only_database_takes_no_writes_and_is_noticed() {
    let database = Database::start().await;
    let store = database.store().await;
    store.write(create(key(&resource(0), "before"), SystemEntropy.uuid())).await.expect("it is new");

    database.query("ALTER SYSTEM SET default_transaction_read_only = on").await;
    database.query("SELECT pg_reload_conf()").await;
    let refused = loop {
        tokio::time::sleep(Duration::from_millis(20)).await;
        let name = SystemEntropy.uuid().to_string();
        if let Err(error) = store.write(create(key(&resource(0), &name), SystemEntropy.uuid())).await {
            break error;
        }
    };
    assert!(matches!(refused, WriteError::Unavailable(_)), "{refused}");

    database.query("ALTER SYSTEM RESET default_transaction_read_only").await;
    database.query("SELECT pg_reload_conf()").await;
    let deadline = tokio::time::Instant::now() + Duration::from_secs(30);
    while let Err(error) = store.write(create(key(&resource(0), "after"), SystemEntropy.uuid())).await {
        assert!(tokio::time::Instant::now() < deadline, "it takes no writes again: {error}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}
