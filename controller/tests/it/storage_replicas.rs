//! The registry of replicas and sessions on a real Postgres.

use std::sync::Arc;

use gantry_controller::storage::replicas::{Claim, Registry as _, Replica, Replicas};
use uuid::Uuid;

use crate::world::storage::Database;

fn replica(number: u128) -> Replica {
    Replica { id: Uuid::from_u128(number), address: format!("replica-{number}:7443") }
}

async fn enter(database: &Database, number: u128) -> Arc<Replicas> {
    let options = database.server.url().parse().expect("a URL");
    Replicas::enter(&options, replica(number)).await.expect("it enters")
}

#[tokio::test]
async fn an_agent_is_held_by_one_replica_until_that_one_lets_go_or_is_gone() {
    let database = Database::start().await;
    database.connect().await;
    let (left, right) = (enter(&database, 1).await, enter(&database, 2).await);
    let instance = Uuid::from_u128(7);
    assert_eq!(left.others().await.expect("it answers"), [replica(2)]);

    assert_eq!(left.claim(instance, "k", None).await.expect("it answers"), Claim::Granted { epoch: 1 });
    let held = Claim::Held { by: replica(1), epoch: 1 };
    assert_eq!(right.claim(instance, "k", None).await.expect("it answers"), held);
    let again = left.claim(instance, "k", None).await.expect("it answers");
    assert_eq!(again, Claim::Granted { epoch: 2 }, "its own it may claim anew");
    assert!(matches!(right.claim(instance, "k", Some(1)).await, Ok(Claim::Held { .. })), "that is over");

    let taken = right.claim(instance, "k", Some(2)).await.expect("it answers");
    assert_eq!(taken, Claim::Granted { epoch: 3 }, "it was found to show no life");
    left.release(instance, 2).await.expect("it answers");
    assert!(
        matches!(left.claim(instance, "k", None).await, Ok(Claim::Held { .. })),
        "a late release is nothing"
    );
    right.release(instance, 3).await.expect("it answers");
    assert_eq!(left.claim(instance, "k", None).await.expect("it answers"), Claim::Granted { epoch: 1 });

    left.leave().await;
    assert_eq!(right.others().await.expect("it answers"), []);
    assert_eq!(right.claim(instance, "k", None).await.expect("it answers"), Claim::Granted { epoch: 2 });

    database.query("UPDATE replicas SET expires_at = clock_timestamp() - interval '1 second'").await;
    let late = enter(&database, 3).await;
    let taken = late.claim(instance, "k", None).await.expect("it answers");
    assert_eq!(taken, Claim::Granted { epoch: 3 }, "it has not said for too long that it serves");
}
