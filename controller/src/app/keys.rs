//! The key ring that Secrets are sealed with: where it is, and `gantry-controller keys`.

use std::fs::File;
use std::path::Path;
use std::sync::Arc;

use anyhow::Context as _;
use sqlx::postgres::PgConnectOptions;
use zeroize::Zeroizing;

use super::NO_DATABASE;
use crate::audit::Outcome;
use crate::clock::{Entropy, SharedEntropy, SystemEntropy};
use crate::config::{Config, KeyRingArgs, RotateArgs};
use crate::pki;
use crate::storage::postgres::Postgres;
use crate::storage::sealing::{KeyRing, KeySource, Sealer};
use crate::storage::{Resealed, SETTLED};

const NO_RING: &str = "cannot seal Secrets";

/// The ring to serve with; that of the data directory is made at the first start.
///
/// It is not made for a database that has sealed Secrets already: a lost ring would be noticed only after others were sealed with a new one.
pub(super) async fn open(
    config: &Config,
    options: &PgConnectOptions,
    entropy: &SharedEntropy,
) -> anyhow::Result<Arc<Sealer>> {
    let path = pki::key_ring_path(&config.data_dir);
    let given = given(&config.key_ring);
    if given.is_none() && !path.exists() {
        let in_use = Postgres::sealed_with(options.clone()).await.context(NO_DATABASE)?;
        make(&config.data_dir, in_use.as_deref(), entropy.as_ref())?;
    }
    Sealer::open(given.unwrap_or(KeySource::File(path)), Arc::clone(entropy)).context(NO_RING)
}

fn make(data_dir: &Path, in_use: Option<&str>, entropy: &dyn Entropy) -> anyhow::Result<()> {
    if let Some(id) = in_use {
        let path = pki::key_ring_path(data_dir);
        anyhow::bail!(
            "the database holds Secrets that are sealed with the key `{id}`, and there is no key ring {path}: put it back, or copy it \
             from another replica; if it is lost and so are they, begin a new one with `openssl rand -base64 32 > {path}`",
            path = path.display()
        );
    }
    pki::own_key_ring(data_dir, || KeyRing::new_line(entropy)).context(NO_RING)?;
    Ok(())
}

fn given(args: &KeyRingArgs) -> Option<KeySource> {
    let file = || args.encryption_keys_file.clone().map(KeySource::File);
    args.encryption_keys.clone().or_else(file)
}

/// Seals everything with the ring's first key, and says what became of it.
pub(super) async fn rotate(args: &RotateArgs) -> anyhow::Result<()> {
    let options =
        args.database_url.reveal().parse::<PgConnectOptions>().context("the database URL cannot be read")?;
    let source = given(&args.key_ring).unwrap_or_else(|| KeySource::File(pki::key_ring_path(&args.data_dir)));
    let entropy: SharedEntropy = Arc::new(SystemEntropy);
    if args.new_key {
        put_in_front(&source, entropy.as_ref())?;
    }
    let sealer = Sealer::open(source.clone(), entropy).context(NO_RING)?;
    let command = super::command("keys_rotate", "gantry-controller keys rotate");
    let key = sealer.ring().sealing().to_string();
    let begun = [("phase", "begun".into()), ("key", key.as_str().into()), ("newKey", args.new_key.into())];
    let begun = command.record(Outcome::Success, begun);
    Postgres::record_alone(options.clone(), &begun)
        .await
        .context("nothing was sealed anew, since it cannot be recorded in the audit log")?;
    println!(
        "the key `{}` seals; Secrets of another are looked for until none has come for {SETTLED:?}",
        sealer.ring().sealing()
    );
    let told = Postgres::reseal(options.clone(), &sealer, SETTLED).await.context(NO_DATABASE)?;
    let outcome = if told.left == 0 { Outcome::Success } else { Outcome::Failure };
    let ended = [
        ("phase", "ended".into()),
        ("key", key.into()),
        ("sealed", (told.objects + told.changes + told.recordings).into()),
        ("left", told.left.into()),
    ];
    let recorded = Postgres::record_alone(options, &command.record(outcome, ended)).await;
    println!("{}", report(&told, &sealer.ring(), &source));
    recorded.context("the end of this is missing in the audit log")?;
    anyhow::ensure!(
        told.left == 0,
        "{} rows cannot be opened and are as they were: put their keys back into {source} and run this again, or delete those objects",
        told.left
    );
    Ok(())
}

/// A new key before the others of a file.
fn put_in_front(source: &KeySource, entropy: &dyn Entropy) -> anyhow::Result<()> {
    let KeySource::File(path) = source else {
        anyhow::bail!(
            "--new-key writes to a file, and the keys are in {source}: put the new one there by hand, last at first"
        );
    };
    // A link is followed, not replaced.
    let path = path.canonicalize().with_context(|| format!("there is no key ring {}", path.display()))?;
    let _lock = lock(path.parent().unwrap_or(Path::new("/")))?;
    // A ring with a mistake in it is refused before anything is written.
    KeySource::File(path.clone()).read()?;
    let old = Zeroizing::new(std::fs::read_to_string(&path)?);
    let new = Zeroizing::new(format!("{}{}", *KeyRing::new_line(entropy), *old));
    Ok(pki::replace_key_ring(&path, &new)?)
}

/// Two at once would each leave out the other's key, with which a controller may have sealed by then.
fn lock(dir: &Path) -> anyhow::Result<File> {
    let lock = File::open(dir)?;
    lock.try_lock().map_err(|_| {
        anyhow::anyhow!("the key ring in {} is being changed by somebody else now", dir.display())
    })?;
    Ok(lock)
}

fn report(told: &Resealed, ring: &KeyRing, source: &KeySource) -> String {
    let mut lines = vec![format!(
        "sealed anew: {} Secrets, {} entries of the change log, {} recordings",
        told.objects, told.changes, told.recordings
    )];
    lines.extend(told.left_first.iter().map(|why| format!("cannot be opened: {why}")));
    let is_unused = |id: &&str| *id != ring.sealing().as_str() && !told.rows_by_key.contains_key(*id);
    let unused: Vec<&str> = ring.ids().iter().map(|id| id.as_str()).filter(is_unused).collect();
    if !unused.is_empty() {
        let unused = unused.join(", ");
        lines.push(format!(
            "used by no row any more: {unused}; take them out of {source}, and keep them with the backups from before"
        ));
    }
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ring(path: &Path) -> KeyRing {
        KeySource::File(path.to_owned()).read().expect("a key ring")
    }

    #[test]
    fn a_new_key_comes_before_the_others_and_what_a_link_leads_to_is_written() {
        let dir = tempfile::tempdir().expect("a directory");
        let (path, link) = (dir.path().join("keys"), dir.path().join("link"));
        std::fs::write(&path, format!("# ours\n{}", *KeyRing::new_line(&SystemEntropy))).expect("written");
        std::os::unix::fs::symlink(&path, &link).expect("linked");
        let before = ring(&path);

        put_in_front(&KeySource::File(link.clone()), &SystemEntropy).expect("it is put there");

        let after = ring(&path);
        assert_eq!(after.ids().get(1..), Some(before.ids().as_slice()));
        assert!(std::fs::read_to_string(&path).expect("text").contains("# ours"));
        assert!(link.is_symlink());
    }

    #[test]
    fn a_new_key_is_put_neither_into_a_ring_with_a_mistake_nor_beside_another_one_nor_into_a_variable() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("keys");
        let put = || {
            put_in_front(&KeySource::File(path.clone()), &SystemEntropy).map_err(|error| format!("{error:#}"))
        };

        assert!(put().is_err_and(|why| why.contains("there is no key ring")));
        std::fs::write(&path, "nonsense!\n").expect("written");
        assert!(put().is_err_and(|why| why.contains("line 1")));
        assert_eq!(std::fs::read_to_string(&path).expect("text"), "nonsense!\n");
        let line = KeyRing::new_line(&SystemEntropy);
        std::fs::write(&path, &*line).expect("written");
        let other = lock(dir.path()).expect("nobody else");
        assert!(put().is_err_and(|why| why.contains("by somebody else")));
        drop(other);
        assert!(put().is_ok());
        assert!(put_in_front(&KeySource::Given(line), &SystemEntropy).is_err());
    }

    #[test]
    fn t32_no_ring_is_made_where_one_is_missing() {
        let dir = tempfile::tempdir().expect("a directory");

        let refused =
            make(dir.path(), Some("1a2b3c4d"), &SystemEntropy).expect_err("one is missing").to_string();
        assert!(refused.contains("1a2b3c4d") && refused.contains("pki/encryption-keys"), "{refused}");
        assert!(!pki::key_ring_path(dir.path()).exists());

        make(dir.path(), None, &SystemEntropy).expect("it is the first start");
        ring(&pki::key_ring_path(dir.path()));
    }

    #[test]
    fn t32_a_report_says_which_keys_may_go_and_where_they_are_needed_still() {
        let lines = [(); 3].map(|()| KeyRing::new_line(&SystemEntropy));
        let all = lines.iter().map(|line| line.as_str()).collect::<String>();
        let source = KeySource::Given(Zeroizing::new(all));
        let ring = source.read().expect("a key ring");
        let [new, old, lost] = ring.ids()[..] else { panic!("three keys") };
        let rows_by_key = [(new.to_string(), 3), (lost.to_string(), 1)].into();
        let left_first = vec!["secrets \"default/a\" at version 7: it is broken".to_owned()];
        let told = Resealed { objects: 1, changes: 2, recordings: 3, rows_by_key, left: 1, left_first };

        let said = report(&told, &ring, &source).replace(old.as_str(), "OLD");

        insta::assert_snapshot!(said, @r#"
        sealed anew: 1 Secrets, 2 entries of the change log, 3 recordings
        cannot be opened: secrets "default/a" at version 7: it is broken
        used by no row any more: OLD; take them out of GANTRY_ENCRYPTION_KEYS, and keep them with the backups from before
        "#);
    }
}
