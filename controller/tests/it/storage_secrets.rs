//! Secrets at rest: sealed in every table, open in memory, and sealed anew while everybody goes on.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use gantry_controller::clock::{Entropy as _, SystemEntropy};
use gantry_controller::storage::postgres::Postgres;
use gantry_controller::storage::sealing::{KeyRing, KeySource, Sealer};
use gantry_controller::storage::{
    Body, Effect, Expects, Key, Object, Resealed, Resource, Store, Version, Write,
};
use serde_json::json;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::world::storage::{Database, create, key, resource};

const PLANTED: &str = "hunter2-hunter2";
const PATIENCE: Duration = Duration::from_secs(30);

fn secret(name: &str) -> Key {
    key(&Resource("secrets".into()), name)
}

fn holding(uid: Uuid, value: &str) -> Effect {
    let annotations = json!({"kubectl.kubernetes.io/last-applied-configuration": value});
    let metadata = json!({"uid": uid, "labels": {"app": "web"}, "annotations": annotations});
    let object =
        json!({"metadata": metadata, "type": "Opaque", "data": {"password": STANDARD.encode(value)}});
    Effect::Put(Body::new(object).expect("an object"))
}

async fn make(store: &Store, name: &str, value: &str) -> Arc<Object> {
    let effect = holding(SystemEntropy.uuid(), value);
    let write = Write { key: secret(name), expects: Expects::Absent, effect, record: None };
    store.write(write).await.expect("it is new")
}

async fn change(store: &Store, object: &Object, value: &str) -> Arc<Object> {
    let effect = holding(object.uid, value);
    let write =
        Write { key: object.key.clone(), expects: Expects::Version(object.version), effect, record: None };
    store.write(write).await.expect("nobody else writes it")
}

/// Names of the Secrets that this replica lists, and of those that it cannot.
fn listed(store: &Store) -> (Vec<String>, Vec<String>) {
    let listing = store.cache().list(&Resource("secrets".into()), None);
    let names = listing.objects.iter().map(|object| object.key.name.to_string()).collect();
    (names, listing.damaged.iter().map(|key| key.name.to_string()).collect())
}

fn shows(store: &Store, name: &str, value: &str) -> bool {
    let object = store.cache().get(&secret(name));
    object.is_some_and(|object| String::from_utf8_lossy(&object.json).contains(value))
}

/// Every row of every table as text.
async fn dump(database: &Database) -> String {
    let tables = database
        .query("SELECT format('%I.%I', schemaname, tablename) FROM pg_tables WHERE schemaname NOT IN ('pg_catalog', 'information_schema')")
        .await;
    let mut dump = String::new();
    for table in tables.lines() {
        dump.push_str(&database.query(&format!("SELECT t::text FROM {table} t")).await);
    }
    dump
}

/// Stores those Secrets as a release that sealed nothing did.
async fn unseal(database: &Database, object: &Object) {
    let json: serde_json::Value = serde_json::from_slice(&object.json).expect("JSON");
    let mut metadata = json["metadata"].clone();
    metadata.as_object_mut().expect("metadata").remove("resourceVersion");
    let text = format!(r#"{{"metadata":{metadata},"data":{},"type":"Opaque"}}"#, json["data"]);
    for table in ["resources", "changes"] {
        let sql = format!("UPDATE {table} SET data = '{text}' WHERE version = {}", object.version);
        assert_eq!(database.query(&sql).await, "UPDATE 1");
    }
}

fn file(dir: &tempfile::TempDir, lines: &[&str]) -> PathBuf {
    let path = dir.path().join("keys");
    std::fs::write(&path, lines.concat()).expect("it is written");
    path
}

async fn reseal(database: &Database, keys: &KeySource, settled: Duration) -> Resealed {
    let sealer = Sealer::open(keys.clone(), Arc::new(SystemEntropy)).expect("a key ring");
    let options = database.server.url().parse().expect("a URL");
    Postgres::reseal(options, &sealer, settled).await.expect("it can be asked")
}

async fn becomes(what: &str, mut is_so: impl FnMut() -> bool) {
    let deadline = tokio::time::Instant::now() + PATIENCE;
    while !is_so() {
        assert!(tokio::time::Instant::now() < deadline, "not within {PATIENCE:?}: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

fn id(keys: &KeySource) -> String {
    keys.read().expect("a key ring").sealing().to_string()
}

#[tokio::test]
async fn t29_a_secret_is_in_no_table_and_in_the_memory_of_every_replica_and_of_the_next_start() {
    let database = Database::start().await;
    let (left, right) = (database.store().await, database.store().await);

    let object = make(&left, "web", PLANTED).await;
    make(&left, "other", "nothing").await;
    left.write(create(key(&resource(0), "seen"), SystemEntropy.uuid())).await.expect("it is new");
    right.caught_up().await.expect("it follows");
    let gone = Write {
        key: secret("other"),
        expects: Expects::Version(left.cache().version()),
        effect: Effect::Delete(Body::new(json!({"metadata": {"uid": object.uid}})).expect("an object")),
        record: None,
    };
    assert!(left.write(gone).await.is_err(), "it is another object's version");

    let dump = dump(&database).await;
    assert!(dump.contains("app") && dump.contains("default") && dump.contains("seen"), "{dump}");
    for planted in
        [PLANTED.to_owned(), STANDARD.encode(PLANTED), "last-applied".to_owned(), "Opaque".to_owned()]
    {
        assert!(!dump.contains(&planted), "{planted} is in a table");
    }
    for store in [&left, &right, &database.store().await] {
        assert!(shows(store, "web", PLANTED));
        assert_eq!(listed(store), (vec!["other".to_owned(), "web".to_owned()], Vec::new()));
    }
}

#[tokio::test]
async fn t29_texts_that_changed_places_or_were_edited_are_left_out_and_the_others_are_listed() {
    let database = Database::start().await;
    let store = database.store().await;
    for name in ["a", "b", "edited", "well"] {
        make(&store, name, PLANTED).await;
    }
    store.stop().await;

    database
        .query(
            "UPDATE resources r SET data = o.data FROM resources o
            WHERE r.resource = 'secrets' AND o.resource = 'secrets' AND (r.name, o.name) IN (('a', 'b'), ('b', 'a'))",
        )
        .await;
    database.query("UPDATE resources SET data = overlay(data placing '00' from length(data) - 20) WHERE name = 'edited'").await;

    let store = database.store().await;
    assert_eq!(listed(&store), (vec!["well".to_owned()], ["a", "b", "edited"].map(str::to_owned).to_vec()));
    let damage = store.cache().damage_of(&secret("a")).expect("it is known");
    assert_eq!(damage.why, "it was sealed for another object, or changed since, or its key was");
}

#[tokio::test]
async fn t29_a_copy_of_the_database_without_the_keys_lists_no_secret() {
    let mut database = Database::start().await;
    let store = database.store().await;
    let object = make(&store, "web", PLANTED).await;
    store.stop().await;

    let keys = std::mem::replace(&mut database.keys, KeySource::Given(KeyRing::new_line(&SystemEntropy)));
    let thief = database.store().await;

    assert_eq!(listed(&thief), (Vec::new(), vec!["web".to_owned()]));
    let damage = thief.cache().damage_of(&secret("web")).expect("it is known");
    assert!(damage.why.contains(&id(&keys)) && !damage.why.contains(PLANTED), "{}", damage.why);
    let expects = Expects::Version(object.version);
    let gone = Body::new(json!({"metadata": {"uid": object.uid}})).expect("an object");
    let delete = Write { key: secret("web"), expects, effect: Effect::Delete(gone), record: None };
    thief.write(delete).await.expect("what cannot be opened can be deleted");
    thief.caught_up().await.expect("it follows");
    assert_eq!(listed(&thief), (Vec::new(), Vec::new()));
}

#[tokio::test]
async fn t32_a_ring_that_is_put_back_while_a_controller_runs_brings_its_secrets_back() {
    let mut database = Database::start().await;
    let dir = tempfile::tempdir().expect("a directory");
    let [right, wrong] = [(); 2].map(|()| KeyRing::new_line(&SystemEntropy));
    database.keys = KeySource::File(file(&dir, &[&right]));
    let store = database.store().await;
    make(&store, "web", PLANTED).await;
    store.stop().await;

    file(&dir, &[&wrong]);
    let store = database.store().await;
    assert_eq!(listed(&store).1, ["web"]);
    file(&dir, &["not a key"]);
    make(&store, "later", PLANTED).await;
    file(&dir, &[&wrong, &right]);

    becomes("both are listed", || listed(&store) == (vec!["later".to_owned(), "web".to_owned()], Vec::new()))
        .await;
    assert!(shows(&store, "web", PLANTED) && shows(&store, "later", PLANTED));
}

#[tokio::test]
async fn a_replica_opens_what_another_sealed_with_a_key_that_it_has_not_heard_of() {
    let mut database = Database::start().await;
    let dir = tempfile::tempdir().expect("a directory");
    let [old, new] = [(); 2].map(|()| KeyRing::new_line(&SystemEntropy));
    database.keys = KeySource::File(file(&dir, &[&old]));
    let left = database.store().await;
    let mut watch =
        left.cache().watch(&Resource("secrets".into()), None, None, Version(0)).expect("from the beginning");

    file(&dir, &[&new, &old]);
    let right = database.store().await;
    make(&right, "web", PLANTED).await;
    left.caught_up().await.expect("it follows");

    assert!(shows(&left, "web", PLANTED), "{:?}", listed(&left));
    let changes = crate::world::storage::changes(&mut watch).await;
    assert_eq!(changes.len(), 1, "its watches went on");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn t29_a_rotation_beside_writers_loses_no_write_and_leaves_no_row_of_the_old_key() {
    let mut database = Database::start().await;
    let dir = tempfile::tempdir().expect("a directory");
    let [old, new] = [(); 2].map(|()| KeyRing::new_line(&SystemEntropy));
    database.keys = KeySource::File(file(&dir, &[&old]));
    let before = id(&database.keys);
    let store = database.store().await;
    let stop = CancellationToken::new();
    let writers: Vec<_> = (0..4)
        .map(|writer| {
            let (store, stop) = (store.clone(), stop.clone());
            tokio::spawn(async move {
                let name = format!("w{writer}");
                let mut object = make(&store, &name, "value-0").await;
                let mut last = 0;
                while !stop.is_cancelled() {
                    last += 1;
                    object = change(&store, &object, &format!("value-{last}.")).await;
                }
                (name, last, object.version)
            })
        })
        .collect();
    tokio::time::sleep(Duration::from_millis(300)).await;

    file(&dir, &[&new, &old]);
    let told = reseal(&database, &database.keys, Duration::from_secs(5)).await;
    stop.cancel();
    let mut last = BTreeMap::new();
    for writer in writers {
        let (name, value, version) = writer.await.expect("it ends");
        last.insert(name, (format!("value-{value}."), version));
    }

    assert!(told.objects + told.changes > 0 && told.left == 0, "{told:?}");
    assert_eq!(told.rows_by_key.into_keys().collect::<Vec<_>>(), [id(&database.keys)]);
    assert!(!dump(&database).await.contains(&before), "a row has the old key");
    file(&dir, &[&new]);
    let fresh = database.store().await;
    for (name, (value, version)) in last {
        let object = fresh.cache().get(&secret(&name)).expect("it is there");
        assert_eq!(object.version, version);
        assert!(shows(&fresh, &name, &value), "{name} lost {value}");
    }
}

#[tokio::test]
async fn rows_of_before_sealing_open_and_a_rotation_seals_them_without_a_new_version() {
    let database = Database::start().await;
    let store = database.store().await;
    let object = make(&store, "old", PLANTED).await;
    unseal(&database, &object).await;
    store.stop().await;
    assert!(dump(&database).await.contains(PLANTED));

    let store = database.store().await;
    assert!(shows(&store, "old", PLANTED));
    let told = reseal(&database, &database.keys, Duration::ZERO).await;

    assert_eq!((told.objects, told.changes, told.left), (1, 1, 0));
    assert_eq!(told.rows_by_key, BTreeMap::from([(id(&database.keys), 2)]));
    assert!(!dump(&database).await.contains(PLANTED));
    let fresh = database.store().await;
    assert!(shows(&fresh, "old", PLANTED));
    let read = fresh.cache().get(&secret("old")).expect("it is there");
    assert_eq!(read.version, object.version);
    change(&store, &read, "next").await;
    assert_eq!(reseal(&database, &database.keys, Duration::ZERO).await.objects, 0, "all are sealed");
}

#[tokio::test]
async fn a_rotation_leaves_and_names_what_it_cannot_open_and_goes_on_with_the_rest() {
    let mut database = Database::start().await;
    let store = database.store().await;
    for number in 0..20 {
        make(&store, &format!("lost{number:02}"), PLANTED).await;
    }
    let lost = id(&database.keys);
    store.stop().await;
    database.keys = KeySource::Given(KeyRing::new_line(&SystemEntropy));
    let store = database.store().await;
    let object = make(&store, "plain", PLANTED).await;
    unseal(&database, &object).await;

    let told = reseal(&database, &database.keys, Duration::ZERO).await;

    assert_eq!((told.objects, told.changes, told.left), (1, 1, 40));
    assert_eq!(told.left_first.len(), 20);
    assert!(told.left_first[0].contains("default/lost00") && told.left_first[0].contains(&lost), "{told:?}");
    assert_eq!(told.rows_by_key, BTreeMap::from([(lost, 40), (id(&database.keys), 2)]));
}

#[tokio::test]
async fn t32_a_database_that_is_put_back_works_with_the_ring_it_was_sealed_with() {
    let mut database = Database::start().await;
    let dir = tempfile::tempdir().expect("a directory");
    let [old, new] = [(); 2].map(|()| KeyRing::new_line(&SystemEntropy));
    database.keys = KeySource::File(file(&dir, &[&old]));
    let store = database.store().await;
    make(&store, "web", PLANTED).await;
    store.stop().await;
    let backup = Path::join(dir.path(), "backup.sql");
    database.server.back_up(&backup).await.expect("a backup");
    file(&dir, &[&new, &old]);
    reseal(&database, &database.keys, Duration::ZERO).await;
    file(&dir, &[&new]);

    let other = Database::start().await;
    other.server.put_back(&backup).await.expect("it is put back");
    let with = |lines: &[&str]| KeySource::File(file(&dir, lines));
    let mut other = other;
    other.keys = with(&[&new]);
    assert_eq!(listed(&other.store().await), (Vec::new(), vec!["web".to_owned()]));
    other.keys = with(&[&old]);
    assert!(shows(&other.store().await, "web", PLANTED));
}
