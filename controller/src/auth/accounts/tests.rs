use super::*;
use crate::auth::world::World;
use crate::clock::Clock as _;

const ACCOUNTS: &str = "serviceaccounts";
const SECRETS: &str = "secrets";

#[tokio::test]
async fn a_token_ends_with_its_account_and_a_new_one_of_its_name_is_another() {
    let world = World::new().await;
    let token = world.token(&world.make(ACCOUNTS, "bot").await, None);
    assert_eq!(world.refusal(&token).await, None);

    world.delete(ACCOUNTS, "bot", None).await;
    assert_eq!(world.refusal(&token).await, Some(Refusal::AccountGone));

    let second = world.make(ACCOUNTS, "bot").await;
    assert_eq!(world.refusal(&token).await, Some(Refusal::AccountGone));
    assert_eq!(world.refusal(&world.token(&second, None)).await, None);
}

#[tokio::test]
async fn a_token_ends_with_the_secret_that_it_is_bound_to() {
    let world = World::new().await;
    let (account, secret) = (world.make(ACCOUNTS, "bot").await, world.make(SECRETS, "key").await);
    let (bound, free) = (world.token(&account, Some(&secret)), world.token(&account, None));
    assert_eq!(world.refusal(&bound).await, None);

    world.delete(SECRETS, "key", None).await;
    assert_eq!(world.refusal(&bound).await, Some(Refusal::SecretGone));
    world.make(SECRETS, "key").await;
    assert_eq!(world.refusal(&bound).await, Some(Refusal::SecretGone));
    assert_eq!(world.refusal(&free).await, None);
}

#[tokio::test]
async fn what_finalizers_hold_back_counts_for_a_minute() {
    let world = World::new().await;
    let token = world.token(&world.make(ACCOUNTS, "bot").await, None);

    world.delete(ACCOUNTS, "bot", Some(world.clock.now())).await;
    world.clock.forward(GRACE);
    assert_eq!(world.refusal(&token).await, None);
    world.clock.forward(SignedDuration::from_secs(1));
    assert_eq!(world.refusal(&token).await, Some(Refusal::AccountGone));
}

#[tokio::test(start_paused = true)]
async fn while_the_database_does_not_answer_nobody_is_taken_for_an_account() {
    let world = World::new().await;
    let token = world.token(&world.make(ACCOUNTS, "bot").await, None);

    world.database.set_away(true);

    assert_eq!(world.bearer(&token).await.map(drop), Err(Unknown::Undecided));
    assert_eq!(world.refusal("x.y.z").await, Some(Refusal::Malformed), "that needs no database");
}

#[tokio::test(start_paused = true)]
async fn a_tenure_ends_with_the_account_or_the_token() {
    let world = World::new().await;
    let account = world.make(ACCOUNTS, "bot").await;
    let (first, second) = (world.token(&account, None), world.token(&account, None));
    let (_, expires) = world.bearer(&first).await.expect("it is known");
    let (_, deleted) = world.bearer(&second).await.expect("it is known");
    assert!(tokio::time::timeout(LOOK * 10, deleted.ended()).await.is_err(), "it goes on");

    world.delete(ACCOUNTS, "bot", None).await;
    assert!(tokio::time::timeout(LOOK, deleted.ended()).await.is_ok());
    world.make(ACCOUNTS, "bot").await;
    world.clock.forward(SignedDuration::from_hours(1));
    assert!(tokio::time::timeout(LOOK, expires.ended()).await.is_ok());
}
