//! Secrets at rest: kubectl shows them, the database does not, and their key is changed while both go on.

use anyhow::{Context as _, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use gantry_e2e::world::World;

const PLANTED: &str = "hunter2-hunter2";

async fn shows_it(world: &World) -> anyhow::Result<()> {
    let secret = world.kubectl().get("secret", "registry").await?;
    ensure!(secret["data"]["password"] == STANDARD.encode(PLANTED), "{secret}");
    Ok(())
}

/// The database as text, which has no Secret in it.
async fn dump(world: &World) -> anyhow::Result<String> {
    let path = world.path("dump.sql");
    world.postgres.back_up(&path).await?;
    let dump = std::fs::read_to_string(path)?;
    ensure!(dump.contains("registry"), "the Secret is not there at all");
    for planted in [PLANTED.to_owned(), STANDARD.encode(PLANTED)] {
        ensure!(!dump.contains(&planted), "{planted} is in the database");
    }
    Ok(dump)
}

#[tokio::test]
async fn t29_a_secret_is_not_in_the_database_and_its_key_is_changed_while_everything_runs()
-> anyhow::Result<()> {
    let mut world = World::new().await?;
    let literal = format!("--from-literal=password={PLANTED}");
    world.kubectl().run(["create", "secret", "generic", "registry", &literal]).await?;
    shows_it(&world).await?;
    let ring = world.controller.key_ring();
    let before = std::fs::read_to_string(&ring)?;
    let (old, _) = before.split_once(':').context("a key has a name")?;
    ensure!(dump(&world).await?.contains(old), "the row does not say which key it is sealed with");

    let said = world.controller.rotate_keys(&["--new-key"]).await?;
    ensure!(said.contains(&format!("used by no row any more: {old}")), "it says: {said}");
    let recorded = world.controller.audit(&["-A", "--action", "keys_rotate", "-o", "yaml"]).await?;
    ensure!(recorded.matches("phase: ").count() == 2 && !recorded.contains(PLANTED), "{recorded}");
    // The events name the new key alone, so the old one stands nowhere.
    ensure!(!dump(&world).await?.contains(old), "the old key is in use");
    shows_it(&world).await?;
    let after = std::fs::read_to_string(&ring)?;
    ensure!(after.ends_with(&before) && after != before, "the new key is not before the old one");

    // As it is told: the old key goes, and what is made from now on needs none of it.
    std::fs::write(&ring, after.trim_end_matches(&before))?;
    world.kubectl().run(["create", "secret", "generic", "later", &literal]).await?;
    world.controller.stop().await?;
    world.controller.resume().await?;
    shows_it(&world).await?;
    world.kubectl().get("secret", "later").await?;
    ensure!(!world.controller.log().contains(PLANTED), "it is in the log");

    // Without the ring nothing is begun anew by itself.
    world.controller.stop().await?;
    std::fs::remove_file(&ring)?;
    let refused = world.controller.refuses().await?;
    ensure!(refused.contains("there is no key ring"), "it says: {refused}");
    ensure!(!ring.exists(), "it made another one");
    Ok(())
}
