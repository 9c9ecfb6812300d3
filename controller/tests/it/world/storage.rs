//! A store on a real Postgres, and objects to put into it.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use gantry_controller::clock::{SystemClock, SystemEntropy};
use gantry_controller::storage::postgres::Postgres;
use gantry_controller::storage::sealing::{KeyRing, KeySource, Sealer};
use gantry_controller::storage::{
    Backend, Body, Change, ChangeKind, Effect, Expects, FieldPaths, Key, Object, Resource, Retention, Store,
    Version, Write, WriteError,
};
use gantry_controller::telemetry::metrics::Metrics;
use gantry_controller::watch_cache::{Next, Subscription, WindowLimits};
use gantry_e2e::postgres::Postgres as Server;
use serde_json::json;
use uuid::Uuid;

/// A Postgres of this test's own.
pub struct Database {
    pub server: Server,
    dir: tempfile::TempDir,
    /// What replicas have of keys.
    pub keys: KeySource,
}

impl Database {
    pub async fn start() -> Self {
        let dir = tempfile::Builder::new().prefix("gantry-storage-").tempdir().expect("a directory");
        // Postgres runs as another user and must be able to walk to its data.
        std::fs::set_permissions(dir.path(), std::os::unix::fs::PermissionsExt::from_mode(0o711))
            .expect("ours");
        let server = Server::start(&Path::join(dir.path(), "pg")).await.expect("a Postgres");
        let keys = KeySource::Given(KeyRing::new_line(&SystemEntropy));
        Self { server, dir, keys }
    }

    pub async fn connect(&self) -> Arc<Postgres> {
        let sealer = Sealer::open(self.keys.clone(), Arc::new(SystemEntropy)).expect("a key ring");
        let (options, retention) = (self.server.url().parse().expect("a URL"), Retention::default());
        Postgres::connect(options, retention, &SystemEntropy, sealer).await.expect("it connects")
    }

    /// Makes the log's partitions that small, before anything is in it.
    pub async fn partition_every(&self, width: usize) {
        self.query(&format!(
            "DROP TABLE changes_0, changes_50000;
            DELETE FROM change_log_partitions;
            UPDATE change_log SET width = {width}, log_end = 0;
            SELECT extend_change_log(0, 0)"
        ))
        .await;
    }

    /// A replica.
    pub async fn store(&self) -> Store {
        store_over(self.connect().await, WindowLimits::default()).await
    }

    /// Crashes the server, keeps a copy of what is on its disk, and starts it again.
    pub async fn save(&mut self) {
        self.server.crash().await.expect("it dies");
        self.on_disk("rm -rf saved && cp -a data saved").await;
        self.server.resume().await.expect("it recovers");
    }

    /// Puts the copy in the place of what is on the disk of a crashed server: it will not know that there ever was more.
    pub async fn put_saved_back(&self) {
        self.on_disk("rm -rf data && cp -a saved data").await;
    }

    async fn on_disk(&self, script: &str) {
        let mut shell = tokio::process::Command::new("sh");
        shell.args(["-c", script]).current_dir(self.dir.path().join("pg"));
        assert!(shell.status().await.expect("there is a shell").success(), "{script}");
    }

    pub async fn query(&self, sql: &str) -> String {
        self.server.query(sql).await.expect("a valid query").trim().to_owned()
    }
}

pub async fn store_over(backend: Arc<dyn Backend>, limits: WindowLimits) -> Store {
    let metrics = Metrics::new().expect("metrics");
    let store =
        Store::start_with(backend, FieldPaths::default(), Arc::new(SystemClock), metrics, limits).await;
    store.expect("it starts")
}

pub fn resource(number: usize) -> Resource {
    Resource(format!("kind{number}s.example.com").into())
}

pub fn key(resource: &Resource, name: &str) -> Key {
    Key { resource: resource.clone(), namespace: "default".into(), name: name.into() }
}

pub fn body(uid: Uuid, value: u64) -> Body {
    Body::new(json!({"metadata": {"uid": uid, "labels": {"value": value.to_string()}}, "value": value}))
        .expect("an object")
}

pub fn create(key: Key, uid: Uuid) -> Write {
    Write { key, expects: Expects::Absent, effect: Effect::Put(body(uid, 0)), record: None }
}

pub fn update(object: &Object, value: u64) -> Write {
    let effect = Effect::Put(body(object.uid, value));
    Write { key: object.key.clone(), expects: Expects::Version(object.version), effect, record: None }
}

pub fn delete(object: &Object) -> Write {
    let effect = Effect::Delete(body(object.uid, 0));
    Write { key: object.key.clone(), expects: Expects::Version(object.version), effect, record: None }
}

/// What happened, as far as a watcher and a writer can agree on it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Seen {
    pub version: Version,
    pub key: Key,
    pub kind: String,
    pub state: Vec<u8>,
}

impl Seen {
    pub fn new(kind: ChangeKind, object: &Object) -> Self {
        Self {
            version: object.version,
            key: object.key.clone(),
            kind: format!("{kind:?}"),
            state: object.json.to_vec(),
        }
    }
}

impl From<&Change> for Seen {
    fn from(change: &Change) -> Self {
        Self::new(change.kind, &change.object)
    }
}

/// The next changes; panics where a watch must go on and does not.
pub async fn changes(watch: &mut Subscription) -> Vec<Change> {
    loop {
        match tokio::time::timeout(Duration::from_secs(60), watch.next()).await.expect("something happens") {
            Next::Changes(changes) => return changes,
            Next::Progress(_) => {}
            ended => panic!("the watch ended: {ended:?}"),
        }
    }
}

/// True for a write that lost a race and stored nothing.
pub fn lost(error: &WriteError) -> bool {
    matches!(error, WriteError::AlreadyExists(_) | WriteError::Conflict(_))
}
