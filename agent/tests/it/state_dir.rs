use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};

use gantry_agent::enrollment::key::AgentKey;
use gantry_agent::state_dir::{StateDir, StateError};

#[test]
fn nobody_else_can_read_the_state() {
    let root = tempfile::tempdir().unwrap();
    let path = root.path().join("state");
    fs::create_dir(&path).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();

    let state = StateDir::open(&path).unwrap();
    let key = AgentKey::open(&state).unwrap();

    assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o700);
    assert_eq!(fs::metadata(path.join("key.pem")).unwrap().mode() & 0o777, 0o600);
    assert_eq!(AgentKey::open(&state).unwrap().fingerprint(), key.fingerprint());
}

#[test]
fn a_second_agent_on_the_same_state_is_refused() {
    let root = tempfile::tempdir().unwrap();
    let first = StateDir::open(root.path()).unwrap();

    assert!(matches!(StateDir::open(root.path()), Err(StateError::InUse(_))));

    drop(first);
    StateDir::open(root.path()).unwrap();
}

#[test]
fn t22_no_symbolic_link_in_the_state_is_followed() {
    let root = tempfile::tempdir().unwrap();
    let (path, elsewhere) = (root.path().join("state"), root.path().join("elsewhere"));
    fs::create_dir(&elsewhere).unwrap();
    symlink(&elsewhere, &path).unwrap();
    assert!(matches!(StateDir::open(&path), Err(StateError::SymbolicLink(_))));
    fs::remove_file(&path).unwrap();
    fs::create_dir_all(path.join("journal")).unwrap();
    symlink(&elsewhere, path.join("journal/segment")).unwrap();
    assert!(matches!(StateDir::open(&path), Err(StateError::SymbolicLink(_))));
    fs::remove_file(path.join("journal/segment")).unwrap();

    let state = StateDir::open(&path).unwrap();
    symlink(elsewhere.join("target"), path.join("ca.pem")).unwrap();

    assert!(matches!(state.write("ca.pem", "x"), Err(StateError::SymbolicLink(_))));
    assert!(matches!(state.read("ca.pem"), Err(StateError::SymbolicLink(_))));
    assert!(!elsewhere.join("target").exists());
}
