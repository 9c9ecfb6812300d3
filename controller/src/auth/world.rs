//! ServiceAccounts and their tokens for tests: a store in memory, and a clock that is moved by hand.

use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use parking_lot::Mutex;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use super::tokens::{Bound, Reference, Refusal, TokenSettings, Tokens};
use super::{Accounts, Authenticator, Caller, Tenure, accounts::Unknown};
use crate::clock::{Clock, Entropy as _, SystemEntropy};
use crate::pki::TokenKeys;
use crate::storage::memory::MemoryBackend;
use crate::storage::{Body, Effect, Expects, FieldPaths, Key, Resource, Store, Write};
use crate::telemetry::metrics::Metrics;

pub(crate) const ADMIN_TOKEN: &str = "the admin's";

/// A clock that is moved by hand.
pub(crate) struct Hands(Mutex<Timestamp>);

impl Clock for Hands {
    fn now(&self) -> Timestamp {
        *self.0.lock()
    }
}

impl Hands {
    pub fn at(time: &str) -> Self {
        Self(Mutex::new(time.parse().expect("a time")))
    }

    pub fn forward(&self, by: SignedDuration) {
        *self.0.lock() += by;
    }
}

pub(crate) struct World {
    pub clock: Arc<Hands>,
    pub database: MemoryBackend,
    pub store: Store,
    pub keys: TokenKeys,
    pub tokens: Arc<Tokens>,
}

impl World {
    pub async fn new() -> Self {
        Self::with(TokenKeys::generate().expect("a key"), &TokenSettings::default()).await
    }

    pub async fn with(keys: TokenKeys, settings: &TokenSettings) -> Self {
        let clock = Arc::new(Hands::at("2026-06-01T12:00:00Z"));
        let database = MemoryBackend::new(clock.clone());
        let metrics = Metrics::new().expect("registers once");
        let (backend, fields) = (Arc::new(database.clone()), FieldPaths::default());
        let store = Store::start(backend, fields, clock.clone(), metrics).await.expect("starts");
        let tokens = Arc::new(Tokens::new(&keys, settings, clock.clone(), Arc::new(SystemEntropy)));
        Self { clock, database, store, keys, tokens }
    }

    pub fn accounts(&self) -> Accounts {
        Accounts::new(Arc::clone(&self.tokens), self.store.clone(), self.clock.clone())
    }

    pub fn authenticator(&self) -> Authenticator {
        let metrics = Metrics::new().expect("registers once");
        Authenticator::new(Sha256::digest(ADMIN_TOKEN).into(), self.accounts(), metrics)
    }

    /// Stores a new object of the namespace `shop`.
    pub async fn make(&self, resource: &str, name: &str) -> Reference {
        let uid = SystemEntropy.uuid();
        let object = json!({"metadata": {"name": name, "namespace": "shop", "uid": uid}});
        self.write(resource, name, Expects::Absent, put(object)).await;
        Reference { name: name.to_owned(), uid: uid.to_string() }
    }

    /// Gives a role of the cluster in all of it.
    pub async fn bind(&self, role: &str, kind: &str, name: &str) {
        let uid = SystemEntropy.uuid();
        let binding = json!({"metadata": {"name": uid, "uid": uid}, "subjects": [{"kind": kind, "name": name}],
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": role}});
        self.write_in("clusterrolebindings", &uid.to_string(), Expects::Absent, put(binding)).await;
    }

    /// Makes a role of the cluster with that one rule, and gives it to a user.
    pub async fn allow(&self, name: &str, user: &str, (group, resource, verb): (&str, &str, &str)) {
        let uid = SystemEntropy.uuid();
        let role = json!({"metadata": {"name": name, "uid": uid},
            "rules": [{"apiGroups": [group], "resources": [resource], "verbs": [verb]}]});
        self.write_in("clusterroles", name, Expects::Absent, put(role)).await;
        self.bind(name, "User", user).await;
    }

    /// Removes a role that was given so.
    pub async fn disallow(&self, name: &str) {
        let stored = self.store.cache().get(&of_cluster("clusterroles", name)).expect("it is there");
        let object: Value = serde_json::from_slice(&stored.json).expect("JSON");
        let effect = Effect::Delete(Body::new(object).expect("an object"));
        self.write_in("clusterroles", name, Expects::Version(stored.version), effect).await;
    }

    /// Lets it go, or say that it goes, since a time.
    pub async fn delete(&self, resource: &str, name: &str, held_since: Option<Timestamp>) {
        let stored = self.store.cache().get(&key(resource, name)).expect("it is there");
        let mut object: Value = serde_json::from_slice(&stored.json).expect("JSON");
        let effect = match held_since {
            None => Effect::Delete(Body::new(object).expect("an object")),
            Some(time) => {
                object["metadata"]["deletionTimestamp"] = json!(time);
                put(object)
            }
        };
        self.write(resource, name, Expects::Version(stored.version), effect).await;
    }

    async fn write(&self, resource: &str, name: &str, expects: Expects, effect: Effect) {
        self.stores(Write { key: key(resource, name), expects, effect, record: None }).await;
    }

    /// The same of what roles and bindings are kept in.
    async fn write_in(&self, plural: &str, name: &str, expects: Expects, effect: Effect) {
        self.stores(Write { key: of_cluster(plural, name), expects, effect, record: None }).await;
    }

    async fn stores(&self, write: Write) {
        self.store.write(write).await.expect("it is stored");
        self.store.caught_up().await.expect("memory has it");
    }

    /// A token of that account for an hour.
    pub fn token(&self, account: &Reference, secret: Option<&Reference>) -> String {
        let bound =
            Bound { namespace: "shop".to_owned(), serviceaccount: account.clone(), secret: secret.cloned() };
        let expires = self.tokens.expiry(SignedDuration::from_hours(1)).expect("a time");
        self.tokens.issue(bound, self.tokens.audiences(), expires).expect("it signs").token
    }

    /// Who a token is.
    pub async fn bearer(&self, token: &str) -> Result<(Caller, Tenure), Unknown> {
        self.accounts().bearer(token).await
    }

    /// Why it is nobody; `None` if it is somebody.
    pub async fn refusal(&self, token: &str) -> Option<Refusal> {
        match self.bearer(token).await {
            Ok(_) => None,
            Err(Unknown::Refused(why)) => Some(why),
            Err(Unknown::Undecided) => panic!("the database answers"),
        }
    }
}

fn put(object: Value) -> Effect {
    Effect::Put(Body::new(object).expect("an object"))
}

fn key(resource: &str, name: &str) -> Key {
    Key { resource: Resource(resource.into()), namespace: "shop".into(), name: name.into() }
}

fn of_cluster(plural: &str, name: &str) -> Key {
    let resource = Resource(format!("{plural}.rbac.authorization.k8s.io").into());
    Key { resource, namespace: "".into(), name: name.into() }
}
