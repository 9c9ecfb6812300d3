//! The election of a leader on a real Postgres whose clock cannot be trusted.

use std::time::Duration;

use gantry_api::agent_v1::Rewind;
use gantry_controller::clock::SystemEntropy;
use gantry_controller::storage::lease::Leadership;

use crate::world::storage::Database;

/// Longer than any term lasts without renewal.
const A_WHILE: Duration = Duration::from_secs(60);

fn stand(database: &Database, name: &'static str) -> Leadership {
    let options = database.server.url().parse().expect("a URL");
    Leadership::start(&options, name, &SystemEntropy)
}

async fn epoch_of(leadership: &Leadership) -> u64 {
    let mut token = leadership.token();
    let token = tokio::time::timeout(A_WHILE, token.wait_for(Option::is_some)).await;
    token.expect("it leads in time").expect("it stands for election").as_ref().expect("it leads").epoch
}

async fn is_held(database: &Database, name: &str, until: &str) {
    let sql =
        format!("INSERT INTO leases VALUES ('{name}', gen_random_uuid(), 7, clock_timestamp() + '{until}')");
    database.query(&sql).await;
}

#[tokio::test]
async fn a_lease_that_was_given_back_is_taken_at_once_and_one_left_behind_after_it_was_watched() {
    let database = Database::start().await;
    database.connect().await;

    let first = stand(&database, "given back");
    assert_eq!(epoch_of(&first).await, 1);
    first.stop().await;
    let second = stand(&database, "given back");
    assert_eq!(epoch_of(&second).await, 2);

    // The clock was set back since its holder died, and ahead.
    is_held(&database, "ends tomorrow", "1 day").await;
    is_held(&database, "ended yesterday", "-1 day").await;
    let (tomorrow, yesterday) = (stand(&database, "ends tomorrow"), stand(&database, "ended yesterday"));
    assert_eq!((epoch_of(&tomorrow).await, epoch_of(&yesterday).await), (8, 8));
    for leadership in [second, tomorrow, yesterday] {
        leadership.stop().await;
    }
}

#[tokio::test]
async fn a_clock_that_jumps_ends_no_term() {
    let database = Database::start().await;
    database.connect().await;
    let holder = stand(&database, "l");
    assert_eq!(epoch_of(&holder).await, 1);
    let candidate = stand(&database, "l");

    // What a jump ahead does to every lease, as soon as it is renewed: it has always run out already.
    for _ in 0..100 {
        database
            .query(
                "UPDATE leases SET expires_at = expires_at - interval '10 minutes' WHERE expires_at > now()",
            )
            .await;
        tokio::time::sleep(Duration::from_millis(100)).await;
    }

    assert_eq!(candidate.token().borrow().as_ref(), None, "its holder lives");
    assert_eq!(holder.token().borrow().as_ref().map(|token| token.epoch), Some(1), "and its term goes on");
    holder.stop().await;
    assert_eq!(epoch_of(&candidate).await, 2);
    candidate.stop().await;
}

#[tokio::test]
async fn what_a_rewind_has_lost_is_known_with_the_token_that_follows_it() {
    let database = Database::start().await;
    database.connect().await;
    database.query("UPDATE counter SET version = 700").await;
    let leadership = stand(&database, "l");
    epoch_of(&leadership).await;
    assert_eq!(leadership.rewinds(), []);

    database.query("SELECT begin_incarnation(5, 900)").await;
    let (mut newest, is_next) = (leadership.newest(), |token: &Option<_>| token.is_some_and(is_of_five));
    tokio::time::timeout(A_WHILE, newest.wait_for(is_next)).await.expect("in time").expect("it stands");

    assert_eq!(leadership.rewinds(), [Rewind { incarnation: 5, kept: 700 }], "900 was seen, and is no more");
    database.query("SELECT begin_incarnation(n, 0) FROM generate_series(6, 200) n").await;
    assert_eq!(
        database.query("SELECT min(incarnation) || ' ' || count(*) FROM incarnations").await,
        "101 100"
    );
    leadership.stop().await;
}

fn is_of_five(token: gantry_api::agent_v1::Token) -> bool {
    token.incarnation == 5
}
