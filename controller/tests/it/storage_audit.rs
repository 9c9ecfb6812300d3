//! The audit log on a real Postgres: one transaction with the change, one chain, and what is found of who tampers with it.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures::future::join_all;
use gantry_controller::audit::{Command, Outcome};
use gantry_controller::clock::{Entropy as _, SystemEntropy};
use gantry_controller::storage::audit::{Question, RETENTION, Record, Recorded, Verifier};
use gantry_controller::storage::postgres::Postgres;
use gantry_controller::storage::{Store, Write, WriteError};
use serde_json::json;
use uuid::Uuid;

use crate::world::storage::{Database, create, key, resource, update};

fn record(name: &str) -> Record {
    Record {
        id: SystemEntropy.uuid(),
        user: "ada".to_owned(),
        action: "container_stop".to_owned(),
        resource: "operations".to_owned(),
        namespace: "default".to_owned(),
        name: name.to_owned(),
        instance: "nuc-01".to_owned(),
        outcome: "success".to_owned(),
        content: r#"{"verb":"create"}"#.to_owned(),
    }
}

/// A new object, and the event of it.
fn recorded(name: &str) -> Write {
    Write { record: Some(Box::new(record(name))), ..create(key(&resource(0), name), SystemEntropy.uuid()) }
}

/// Records an event without a change and waits for it.
async fn tell(store: &Store, record: Record) {
    let stored = store.record(record).await.expect("there is room");
    stored.await.expect("somebody answers").expect("it is stored");
}

async fn all(store: &Store) -> Vec<Recorded> {
    store.recorded(&Question { limit: 100_000, ..Question::default() }).await.expect("it answers")
}

impl Database {
    /// The flaw in the chain, or how many events have none.
    async fn verify(&self) -> String {
        let mut verifier =
            Verifier::connect(self.server.url().parse().expect("a URL")).await.expect("it connects");
        match verifier.verify(None).await {
            Ok(verified) => format!("{} from {}", verified.events, verified.first),
            Err(broken) => broken.to_string(),
        }
    }

    /// Lets a test set the database's clock, for connections made from now on.
    async fn takes_its_time_from_the_test(&self) {
        self.query(
            "CREATE SCHEMA fake; CREATE TABLE fake.shift (by interval NOT NULL); INSERT INTO fake.shift VALUES ('0');
            CREATE FUNCTION fake.clock_timestamp() RETURNS timestamptz LANGUAGE sql VOLATILE
                AS 'SELECT pg_catalog.clock_timestamp() + by FROM fake.shift';
            ALTER DATABASE postgres SET search_path = fake, pg_catalog, public",
        )
        .await;
    }

    async fn shift(&self, by: &str) {
        self.query(&format!("UPDATE fake.shift SET by = '{by}'")).await;
    }
}

#[tokio::test]
async fn t30_a_change_whose_record_cannot_be_written_does_not_happen_and_its_neighbours_do() {
    let database = Database::start().await;
    let store = database.store().await;
    store.write(recorded("before")).await.expect("it is new");
    database.query("ALTER TABLE audit_events ADD CONSTRAINT broken CHECK (name <> 'bad') NOT VALID").await;

    let good = (0..10).map(|number| store.write(recorded(&format!("n{number}"))));
    let (bad, good) = tokio::join!(store.write(recorded("bad")), join_all(good));

    assert!(matches!(bad, Err(WriteError::Unavailable(_))), "{bad:?}");
    assert!(good.iter().all(Result::is_ok), "{good:?}");
    assert_eq!(database.query("SELECT count(*) FROM resources WHERE name = 'bad'").await, "0");
    assert_eq!(database.query("SELECT count(*) FROM changes WHERE name = 'bad'").await, "0");
    assert_eq!(database.verify().await, "11 from 1");
}

#[tokio::test]
async fn a_write_that_is_refused_leaves_no_record_and_one_that_is_sent_twice_leaves_one() {
    let database = Database::start().await;
    let store = database.store().await;
    let first = store.write(recorded("web")).await.expect("it is new");
    let again = store.write(recorded("web")).await.expect_err("the name is taken");
    assert!(matches!(again, WriteError::AlreadyExists(_)), "{again}");
    let change = Write { record: Some(Box::new(record("changed"))), ..update(&first, 1) };
    store.write(change).await.expect("nobody else wrote");
    let stale = Write { record: Some(Box::new(record("stale"))), ..update(&first, 2) };
    store.write(stale).await.expect_err("it has changed");

    let (writer, uid) = (Uuid::from_u128(1), Uuid::from_u128(2));
    let send = format!(
        "SELECT write_batch('{writer}', 1, ARRAY['A','A'], ARRAY['x','x'], ARRAY['',''], ARRAY['one','two'], ARRAY['{uid}','{uid}']::uuid[],
            ARRAY[0,0], ARRAY['{{}}','{{}}'], ARRAY['{{}}','{{}}'], ARRAY[2], ARRAY['{uid}']::uuid[], ARRAY['ada'], ARRAY['a'], ARRAY['r'],
            ARRAY['n'], ARRAY['two'], ARRAY['i'], ARRAY['success'], ARRAY['{{}}'], ARRAY['\\x{}'::bytea])",
        "00".repeat(32)
    );
    let answers = [database.query(&send).await, database.query(&send).await];

    assert_eq!(answers[0], answers[1]);
    let mut names: Vec<String> = all(&store).await.into_iter().map(|event| event.record.name).collect();
    names.reverse();
    assert_eq!(names, ["web", "changed", "two"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn t30_a_crash_leaves_a_change_and_its_record_or_neither() {
    let mut database = Database::start().await;
    let store = database.store().await;
    let stop = Arc::new(AtomicBool::new(false));
    let writers: Vec<_> = (0..8)
        .map(|writer| {
            let (store, stop) = (store.clone(), Arc::clone(&stop));
            tokio::spawn(async move {
                let mut stored = BTreeSet::new();
                for number in 0.. {
                    if stop.load(Ordering::Relaxed) {
                        break;
                    }
                    let name = format!("w{writer}-{number}");
                    if store.write(recorded(&name)).await.is_ok() {
                        stored.insert(name);
                    } else {
                        tokio::time::sleep(Duration::from_millis(50)).await;
                    }
                }
                stored
            })
        })
        .collect();

    for _ in 0..3 {
        tokio::time::sleep(Duration::from_millis(300)).await;
        database.server.crash().await.expect("it dies");
        database.server.resume().await.expect("it recovers");
    }
    tokio::time::sleep(Duration::from_millis(300)).await;
    stop.store(true, Ordering::Relaxed);
    let mut told = BTreeSet::new();
    for writer in writers {
        told.extend(writer.await.expect("it ends"));
    }

    let names = async |table: &str| -> BTreeSet<String> {
        let names = database.query(&format!("SELECT name FROM {table} ORDER BY name")).await;
        names.lines().map(str::to_owned).collect()
    };
    let (objects, events) = (names("resources").await, names("audit_events").await);
    assert_eq!(objects, events);
    assert!(told.is_subset(&events) && told.len() > 20, "{} of {}", told.len(), events.len());
    assert_eq!(database.verify().await, format!("{} from 1", events.len()));
    assert_eq!(database.query("SELECT count(*) FROM audit_events").await, events.len().to_string());
}

#[tokio::test]
async fn two_replicas_keep_one_chain_without_a_gap() {
    let database = Database::start().await;
    let (left, right) = (database.store().await, database.store().await);

    let work = (0..200).map(|number| {
        let (store, name) = (if number % 2 == 0 { &left } else { &right }, format!("n{number}"));
        async move {
            if number % 3 == 0 {
                tell(store, record(&name)).await;
            } else {
                store.write(recorded(&name)).await.expect("it is new");
            }
        }
    });
    join_all(work).await;

    assert_eq!(database.verify().await, "200 from 1");
    let mut numbers: Vec<i64> = all(&left).await.iter().map(|event| event.number).collect();
    numbers.reverse();
    assert_eq!(numbers, (1..=200).collect::<Vec<_>>());
}

#[tokio::test]
async fn t30_an_event_that_is_changed_removed_moved_or_made_up_is_found_and_named() {
    let database = Database::start().await;
    let store = database.store().await;
    for number in 1..=6 {
        tell(&store, record(&format!("n{number}"))).await;
    }
    // Several in one batch: 7 to 14.
    join_all((7..=14).map(|number| tell(&store, record(&format!("n{number}"))))).await;
    database
        .query("CREATE TABLE kept_events AS TABLE audit_events; CREATE TABLE kept_batches AS TABLE audit_batches; CREATE TABLE kept_chain AS TABLE audit_chain")
        .await;
    assert_eq!(database.verify().await, "14 from 1");

    let mut found = String::new();
    for tampering in [
        "UPDATE audit_events SET user_name = 'eve' WHERE number = 3",
        "UPDATE audit_events SET content = '{}' WHERE number = 12",
        "UPDATE audit_events SET recorded_at = recorded_at + interval '1 microsecond' WHERE number = 5",
        "DELETE FROM audit_events WHERE number = 4",
        "DELETE FROM audit_events WHERE number = 14",
        "UPDATE audit_events e SET id = o.id, name = o.name FROM kept_events o WHERE e.number IN (2, 3) AND o.number = 5 - e.number",
        "INSERT INTO audit_events SELECT recorded_at, 15, id, 'eve', action, resource, namespace, name, instance, outcome, content FROM kept_events WHERE number = 2",
        "INSERT INTO audit_events SELECT recorded_at + interval '1 second', 9, id, 'eve', action, resource, namespace, name, instance, outcome, content FROM kept_events WHERE number = 9",
        "DELETE FROM audit_events WHERE number = 2; DELETE FROM audit_batches WHERE number = 2",
        "UPDATE audit_events SET content = '{}' WHERE number = 1; UPDATE audit_batches SET digests = sha256('x') WHERE number = 1",
        "DELETE FROM audit_events WHERE number > 5; DELETE FROM audit_batches WHERE number > 5",
        "DELETE FROM audit_events WHERE number = 1; DELETE FROM audit_batches WHERE number = 1",
    ] {
        database.query(tampering).await;
        found.push_str(&database.verify().await);
        found.push('\n');
        database
            .query("TRUNCATE audit_events, audit_batches, audit_chain; INSERT INTO audit_events TABLE kept_events; INSERT INTO audit_batches TABLE kept_batches; INSERT INTO audit_chain TABLE kept_chain")
            .await;
    }

    assert_eq!(database.verify().await, "14 from 1");
    insta::assert_snapshot!(found, @"
    event 3 in batch 3 is not what was recorded there: it was changed, or put in the place of another
    event 12 in batch 7 is not what was recorded there: it was changed, or put in the place of another
    event 5 in batch 5 is not what was recorded there: it was changed, or put in the place of another
    event 4 in batch 4 is missing
    event 14 in batch 7 is missing
    event 2 in batch 2 is not what was recorded there: it was changed, or put in the place of another
    event 15 was not recorded by a controller: the chain does not have it
    event 9 was not recorded by a controller: the chain does not have it
    batch 3, which begins with event 3, does not follow from what was before it: it, or a batch before it, was changed, moved or removed
    batch 1, which begins with event 1, does not follow from what was before it: it, or a batch before it, was changed, moved or removed
    the chain ends with batch 5, and should end with batch 7: what was recorded last is missing
    batch 2, which begins with event 2, does not follow from what was before it: it, or a batch before it, was changed, moved or removed
    ");
}

#[tokio::test]
async fn t30_a_chain_that_was_written_anew_does_not_lead_through_the_head_that_was_noted() {
    let database = Database::start().await;
    let store = database.store().await;
    let options = || database.server.url().parse().expect("a URL");
    let mut verifier = Verifier::connect(options()).await.expect("it connects");
    tell(&store, record("one")).await;
    let noted = verifier.verify(None).await.expect("it is whole").head;
    tell(&store, record("two")).await;
    assert!(verifier.verify(Some(&noted)).await.is_ok());
    assert_eq!(noted.to_string().parse(), Ok(noted.clone()));

    // Who may write to the database can make another chain.
    database
        .query("TRUNCATE audit_events, audit_batches, audit_chain; INSERT INTO audit_chain DEFAULT VALUES")
        .await;
    tell(&store, record("one")).await;

    assert_eq!(database.verify().await, "1 from 1");
    let broken = verifier.verify(Some(&noted)).await.expect_err("it is another chain");
    assert!(broken.to_string().contains("batch 1 has another head"), "{broken}");
}

#[tokio::test]
async fn days_older_than_what_is_kept_are_dropped_whole_and_the_rest_is_still_a_chain() {
    let database = Database::start().await;
    drop(database.connect().await);
    database.takes_its_time_from_the_test().await;
    let store = database.store().await;
    for (days, name) in [(95, "a"), (95, "b"), (92, "c"), (90, "d"), (1, "e"), (0, "f")] {
        database.shift(&format!("-{days} days")).await;
        store.write(recorded(name)).await.expect("it is new");
    }
    let days = async || {
        database.query("SELECT count(*) FROM pg_inherits WHERE inhparent = 'audit_events'::regclass").await
    };
    let before: usize = days().await.parse().expect("a number");
    let noted = database.query("SELECT encode(head, 'hex') FROM audit_batches WHERE number = 3").await;

    let dropped = store.trim_records(RETENTION).await.expect("nobody holds it");

    assert_eq!(dropped, 4, "of 95 and 92 days ago, and those opened a day ahead");
    assert_eq!(days().await.parse::<usize>().expect("a number"), before - 4);
    assert_eq!(database.verify().await, "3 from 4");
    let kept: Vec<String> = all(&store).await.into_iter().map(|event| event.record.name).collect();
    assert_eq!(kept, ["f", "e", "d"]);
    assert_eq!(database.query("SELECT encode(floor_head, 'hex') FROM audit_chain").await, noted);
    assert_eq!(store.trim_records(RETENTION).await.expect("nobody holds it"), 0, "once is enough");
    store.write(recorded("g")).await.expect("it is new");
    assert_eq!(database.verify().await, "4 from 4");
}

#[tokio::test]
async fn f16_a_clock_that_is_set_back_leaves_the_order_as_it_was() {
    let database = Database::start().await;
    drop(database.connect().await);
    database.takes_its_time_from_the_test().await;
    let store = database.store().await;

    for (shift, name) in [("0", "a"), ("2 days", "b"), ("-10 minutes", "c"), ("0", "d")] {
        database.shift(shift).await;
        tell(&store, record(name)).await;
    }

    let names: Vec<String> = all(&store).await.into_iter().map(|event| event.record.name).collect();
    assert_eq!(names, ["d", "c", "b", "a"]);
    assert_eq!(database.verify().await, "4 from 1");
}

/// How a question asks for a value of an event, and where the event has it.
type Field = (fn(&mut Question, Option<String>), fn(&Record) -> &String);

#[tokio::test]
async fn a_page_has_the_newest_events_that_are_asked_for_and_the_next_goes_on_after_it() {
    let database = Database::start().await;
    let store = database.store().await;
    for number in 0..60 {
        let choose = |values: [&str; 3], every: usize| values[number / every % 3].to_owned();
        let told = Record {
            user: choose(["ada", "bob", ""], 1),
            action: choose(["container_stop", "image_pull", "secret_get"], 2),
            resource: choose(["operations", "secrets", ""], 3),
            namespace: choose(["default", "shop", ""], 4),
            instance: choose(["nuc-01", "nuc-02", ""], 5),
            outcome: choose(["success", "failure", "denied"], 6),
            ..record(&format!("n{}", number % 7))
        };
        tell(&store, told).await;
    }
    let everything = all(&store).await;
    assert_eq!(everything.len(), 60);
    let middle = everything[30].at;

    let fields: [Field; 7] = [
        (|question, value| question.user = value, |record| &record.user),
        (|question, value| question.action = value, |record| &record.action),
        (|question, value| question.resource = value, |record| &record.resource),
        (|question, value| question.namespace = value, |record| &record.namespace),
        (|question, value| question.name = value, |record| &record.name),
        (|question, value| question.instance = value, |record| &record.instance),
        (|question, value| question.outcome = value, |record| &record.outcome),
    ];
    for (ask, of) in fields {
        let values: BTreeSet<&String> = everything.iter().map(|event| of(&event.record)).collect();
        for value in values {
            let mut question = Question { limit: 4, since: Some(middle), ..Question::default() };
            ask(&mut question, Some(value.clone()));
            let mut found = Vec::new();
            loop {
                let page = store.recorded(&question).await.expect("it answers");
                let Some(last) = page.last() else { break };
                question.after = Some((last.at, last.number));
                found.extend(page);
            }
            let expected: Vec<_> = everything
                .iter()
                .filter(|event| of(&event.record) == value && event.at >= middle)
                .cloned()
                .collect();
            assert_eq!(found, expected, "{question:?}");
        }
    }
    let until = Question { until: Some(middle), limit: 100, ..Question::default() };
    assert_eq!(store.recorded(&until).await.expect("it answers"), everything[31..]);
}

#[tokio::test]
async fn t30_a_new_history_and_its_record_are_one_and_there_is_neither_without_the_other() {
    let database = Database::start().await;
    let store = database.store().await;
    let begin = async |name: &'static str| {
        let options = database.server.url().parse().expect("a URL");
        Postgres::begin_history(options, |begun| Record { content: format!("{begun:?}"), ..record(name) })
            .await
    };
    let history = async || {
        let said = database.query("SELECT incarnation FROM counter").await;
        said.trim().parse::<i64>().expect("a number")
    };
    let before = history().await;

    let begun = begin("restored").await.expect("it is recorded");
    let last = all(&store).await.remove(0).record;
    assert_eq!((last.name.as_str(), last.content), ("restored", format!("{begun:?}")));
    assert_eq!(history().await, before + 1);

    database.query("ALTER TABLE audit_events ADD CONSTRAINT broken CHECK (name <> 'bad') NOT VALID").await;
    begin("bad").await.expect_err("it cannot be recorded");
    assert_eq!(history().await, before + 1);
    assert_eq!(database.verify().await, "1 from 1");
}

#[tokio::test]
async fn what_a_command_did_is_part_of_the_chain() {
    let database = Database::start().await;
    let store = database.store().await;
    let command = Command {
        id: SystemEntropy.uuid(),
        at: "2026-11-28T02:00:00Z".parse().expect("a time"),
        action: "keys_rotate",
        line: "gantry-controller keys rotate",
        system_user: "ada\u{1b}".to_owned(),
        host: "nuc-00".to_owned(),
    };

    let options = database.server.url().parse().expect("a URL");
    let told = command.record(Outcome::Failure, [("left", 1.into())]);
    Postgres::record_alone(options, &told).await.expect("it is recorded");

    let shown = all(&store).await.remove(0).shown();
    insta::assert_json_snapshot!(
        json!([shown["user"], shown["action"], shown["path"], shown["outcome"], shown["parameters"]]),
        @r#"
    [
      "system:gantry:command",
      "keys_rotate",
      "gantry-controller keys rotate",
      "failure",
      {
        "host": "nuc-00",
        "left": 1,
        "systemUser": "ada�"
      }
    ]
    "#
    );
    assert_eq!(database.verify().await, "1 from 1");
}
