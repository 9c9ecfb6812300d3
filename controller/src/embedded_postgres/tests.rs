use std::os::unix::fs::MetadataExt as _;

use super::*;

/// Postgres as another user can walk to it.
fn dir() -> TempDir {
    let dir = tempfile::tempdir().expect("a directory");
    std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o711)).expect("set");
    dir
}

async fn start(dir: &Path) -> Result<Option<EmbeddedPostgres>, EmbeddedPostgresError> {
    EmbeddedPostgres::start(dir, &CancellationToken::new()).await
}

async fn answers(postgres: &EmbeddedPostgres) -> bool {
    postgres.options().connect().await.is_ok()
}

#[tokio::test]
async fn a_second_start_on_a_directory_is_refused_and_the_first_database_lives() {
    let dir = dir();
    let path = dir.path().join("pg");
    let first = start(&path).await.expect("starts").expect("not stopped");

    let second = start(&path).await.expect_err("it is in use");

    assert!(matches!(second, EmbeddedPostgresError::InUse { .. }), "{second}");
    assert!(answers(&first).await);
    first.stop().await;
    let again = start(&path).await.expect("starts").expect("not stopped");
    assert!(answers(&again).await);
    again.stop().await;
}

#[tokio::test]
async fn a_database_whose_making_was_cut_off_is_made_anew() {
    let dir = dir();
    let path = dir.path().join("pg");
    let stop = CancellationToken::new();
    let watched = path.clone();
    let cut = async {
        // Far enough for PG_VERSION to be there, which was taken for a complete database once.
        let is_begun = || {
            std::fs::read_dir(&watched)
                .is_ok_and(|entries| entries.flatten().any(|entry| entry.path().join("PG_VERSION").exists()))
        };
        while !is_begun() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        stop.cancel();
    };
    let (cut_off, ()) = tokio::join!(EmbeddedPostgres::start(&path, &stop), cut);
    assert!(cut_off.expect("no error").is_none());
    assert!(!path.join("data").exists());
    // What a kill leaves behind.
    std::fs::create_dir_all(path.join("data.new-killed/base")).expect("made");

    let postgres = start(&path).await.expect("starts").expect("not stopped");

    assert!(answers(&postgres).await);
    postgres.stop().await;
    assert!(!path.join("data.new-killed").exists());
}

#[tokio::test]
async fn a_server_that_a_killed_controller_left_is_ended_and_its_data_kept() {
    let dir = dir();
    let path = dir.path().join("pg");
    let mut first = start(&path).await.expect("starts").expect("not stopped");
    let pid = first.child.id().expect("it runs");
    // As a killed controller: its lock is gone and its server runs on.
    let lost = Claim::take(&dir.path().join("other"), account()).expect("free");
    drop(std::mem::replace(&mut first.claim, lost));

    let (second, ended) = tokio::join!(start(&path), first.child.wait());

    let second = second.expect("starts").expect("not stopped");
    assert_ne!(second.child.id(), Some(pid));
    assert!(answers(&second).await);
    assert!(ended.expect("waited for").success());
    second.stop().await;
}

#[test]
fn a_short_socket_directory_is_new_and_ours_alone() {
    let long = PathBuf::from(format!("/{}", "x".repeat(120)));
    let account = account();

    let first = short_socket_dir(&long, account).expect("made").expect("needed");
    let second = short_socket_dir(&long, account).expect("made").expect("needed");

    assert_ne!(first.path(), second.path());
    let metadata = std::fs::symlink_metadata(first.path()).expect("there");
    assert!(metadata.is_dir());
    assert_eq!(metadata.mode() & 0o777, 0o700);
    assert_eq!(metadata.uid(), account.map_or_else(|| geteuid().as_raw(), |account| account.uid));
    assert!(first.path().as_os_str().len() <= LONGEST_SOCKET_DIR);
    assert!(short_socket_dir(Path::new("/var/lib/pg"), account).expect("fine").is_none());
}
