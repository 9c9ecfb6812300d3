//! Recordings on a real Postgres: sealed, in order, and gone with their time.

use std::sync::Arc;
use std::time::Duration;

use futures::TryStreamExt as _;
use gantry_controller::clock::{Entropy as _, SystemEntropy};
use gantry_controller::storage::postgres::Postgres;
use gantry_controller::storage::recordings::{Opening, Tapes, Wanted};
use gantry_controller::storage::sealing::{KeyRing, KeySource, Sealer};
use gantry_controller::storage::{Backend as _, StorageError};
use uuid::Uuid;
use zeroize::Zeroizing;

use crate::world::storage::Database;

const PLANTED: &[u8] = b"hunter2-hunter2";

fn opening(user: &str) -> Opening {
    Opening {
        id: SystemEntropy.uuid(),
        namespace: "default".to_owned(),
        instance: "nuc-01".to_owned(),
        user: user.to_owned(),
        content: "{}".to_owned(),
    }
}

async fn played(tapes: &dyn Tapes, of: &Opening) -> Result<Vec<Vec<u8>>, StorageError> {
    tapes.play(of).await?.try_collect().await
}

async fn listed(tapes: &dyn Tapes, wanted: Wanted) -> Vec<Uuid> {
    let found = tapes.list(&Wanted { limit: 10, ..wanted }).await.expect("it answers");
    found.into_iter().map(|recording| recording.opening.id).collect()
}

#[tokio::test]
async fn t31_a_recording_lies_sealed_and_is_read_with_the_key_ring_as_it_was_written() {
    let database = Database::start().await;
    let postgres = database.connect().await;
    let opening = opening("ada");
    let mut tape = postgres.tapes().open(&opening).await.expect("it opens");
    tape.append(PLANTED).await.expect("it is stored");
    tape.append(b"").await.expect("it is heard of");
    tape.append(b"second").await.expect("it is stored");
    tape.close("Complete", [7; 32]).await.expect("it ends");

    let hex = database.query("SELECT encode('hunter2-hunter2', 'hex')").await;
    let rows = database.query("SELECT encode(sealed, 'hex') FROM recording_pieces").await;
    let key = database.query("SELECT key FROM recordings").await;

    assert!(rows.len() > hex.len() && !rows.contains(&hex), "{rows}");
    assert!(key.starts_with(r#"{"sealed":"#), "{key}");
    assert_eq!(played(postgres.tapes(), &opening).await.expect("it opens"), [PLANTED, b"second"]);
    let found = postgres.tapes().list(&Wanted { limit: 1, ..Wanted::default() }).await.expect("it answers");
    assert_eq!((found[0].bytes, found[0].reason.as_str()), (21, "Complete"));
    assert_eq!(found[0].digest.as_deref(), Some([7; 32].as_slice()));
    let late = tape.append(b"after the end").await.expect_err("it has ended");
    assert!(matches!(late, StorageError::Rewound), "{late}");
}

#[tokio::test]
async fn t31_pieces_that_are_swapped_changed_or_missing_are_noticed() {
    let database = Database::start().await;
    let postgres = database.connect().await;
    let opening = opening("ada");
    let mut tape = postgres.tapes().open(&opening).await.expect("it opens");
    for piece in [b"one".as_slice(), b"two", b"three"] {
        tape.append(piece).await.expect("it is stored");
    }
    let tampered = async |sql: &str, back: &str| {
        database.query(sql).await;
        let read = played(postgres.tapes(), &opening).await;
        database.query(back).await;
        matches!(read, Err(StorageError::Damaged(_)))
    };

    let swap = "UPDATE recording_pieces SET number = 9 WHERE number = 0; UPDATE recording_pieces SET number = 0 WHERE number = 1;
        UPDATE recording_pieces SET number = 1 WHERE number = 9";
    assert!(tampered(swap, swap).await);
    let flip = "UPDATE recording_pieces SET sealed = set_byte(sealed, 20, get_byte(sealed, 20) # 1) WHERE number = 1";
    assert!(tampered(flip, flip).await);
    let hide = "UPDATE recording_pieces SET number = 9 WHERE number = 1";
    assert!(tampered(hide, "UPDATE recording_pieces SET number = 1 WHERE number = 9").await);
    assert_eq!(played(postgres.tapes(), &opening).await.expect("it is as it was").len(), 3);
}

#[tokio::test]
async fn t32_keys_of_recordings_are_sealed_anew_with_those_of_secrets() {
    let database = Database::start().await;
    let postgres = database.connect().await;
    let opening = opening("ada");
    let mut tape = postgres.tapes().open(&opening).await.expect("it opens");
    tape.append(PLANTED).await.expect("it is stored");
    let old = database.keys.read().expect("a key ring");
    let line = KeyRing::new_line(&SystemEntropy);
    let KeySource::Given(before) = &database.keys else { panic!("keys of a test") };
    let keys = KeySource::Given(Zeroizing::new(format!("{}{}", *line, **before)));

    let sealer = Sealer::open(keys.clone(), Arc::new(SystemEntropy)).expect("a key ring");
    let options = || database.server.url().parse().expect("a URL");
    let told = Postgres::reseal(options(), &sealer, Duration::ZERO).await.expect("it can be asked");

    assert_eq!((told.recordings, told.left), (1, 0), "{told:?}");
    assert!(!told.rows_by_key.contains_key(old.sealing().as_str()), "{told:?}");
    let sealed = database.query("SELECT key FROM recordings").await;
    assert!(sealed.contains(sealer.ring().sealing().as_str()), "{sealed}");
    // Its terminal goes on, and whoever has the new key reads all of it.
    tape.append(b"after").await.expect("it is stored");
    let after = Postgres::connect(
        options(),
        gantry_controller::storage::Retention::default(),
        &SystemEntropy,
        sealer,
    );
    let after = after.await.expect("it connects");
    assert_eq!(played(after.tapes(), &opening).await.expect("it opens"), [PLANTED, b"after"]);
}

#[tokio::test]
async fn recordings_are_listed_by_page_and_forgotten_when_nothing_was_heard_of_them_for_long() {
    let database = Database::start().await;
    let postgres = database.connect().await;
    let tapes = postgres.tapes();
    let [first, second, third] = ["ada", "bob", "ada"].map(opening);
    for opening in [&first, &second, &third] {
        tapes.open(opening).await.expect("it opens").append(b"x").await.expect("it is stored");
    }

    assert_eq!(listed(tapes, Wanted::default()).await, [third.id, second.id, first.id]);
    assert_eq!(
        listed(tapes, Wanted { user: Some("ada".into()), ..Wanted::default() }).await,
        [third.id, first.id]
    );
    assert!(listed(tapes, Wanted { namespace: Some("other".into()), ..Wanted::default() }).await.is_empty());
    let newest = tapes.list(&Wanted { limit: 1, ..Wanted::default() }).await.expect("it answers");
    let after = Some((newest[0].started_at, newest[0].opening.id));
    assert_eq!(listed(tapes, Wanted { after, ..Wanted::default() }).await, [second.id, first.id]);

    database
        .query(&format!(
            "UPDATE recordings SET heard_at = heard_at - interval '91 days' WHERE id = '{}'",
            second.id
        ))
        .await;
    assert_eq!(tapes.trim(Duration::from_secs(90 * 86_400)).await.expect("it answers"), 1);
    assert_eq!(listed(tapes, Wanted::default()).await, [third.id, first.id]);
    assert_eq!(database.query("SELECT count(*) FROM recording_pieces").await.trim(), "2");
}
