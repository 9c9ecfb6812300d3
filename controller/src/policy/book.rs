//! The policies of the store, as they are in memory: each is compiled once for each of its versions, by the first request that it may be for.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, LazyLock, OnceLock};
use std::time::Duration;

use gantry_api::v1alpha1::PolicyAction;
use parking_lot::Mutex;
use serde_json::Value;

use super::compiled::Compiled;
use super::judge::{Verdict, judge};
use super::subject::{Instance, Parameters, Subject, Target};
use crate::auth::Caller;
use crate::storage::{Key, Object, Resource, Store, Version};
use crate::watch_cache::Revision;

/// Longest a request waits for the database to say that memory has the newest policies.
const PATIENCE: Duration = Duration::from_secs(2);

/// Policies of one namespace, or of the cluster, that are asked. With more nothing is allowed there.
const MOST_IN_PLACE: usize = 100;

/// Those of the cluster and those of namespaces.
static RESOURCES: LazyLock<[Resource; 2]> = LazyLock::new(|| {
    ["clusterpolicies", "policies"].map(|plural| Resource(format!("{plural}.gantry.dev").into()))
});

/// The stored policies. Cheap to clone.
#[derive(Clone)]
pub struct Policies {
    store: Store,
    known: Arc<Mutex<Known>>,
}

#[derive(Default)]
struct Known {
    /// Of what this was made; `None` at first.
    revision: Option<Revision>,
    held: HashMap<Key, (Version, Arc<Held>)>,
    /// In the order in which they judge: of the cluster under the empty name, and of each namespace.
    places: BTreeMap<Arc<str>, Arc<[Arc<Held>]>>,
}

/// A stored policy.
struct Held {
    /// Where nobody knows what it allows, why.
    object: Result<Arc<Object>, &'static str>,
    name: String,
    compiled: OnceLock<Compiled>,
}

impl Held {
    fn new(key: &Key, object: Result<Arc<Object>, &'static str>) -> Arc<Self> {
        let kind = if key.namespace.is_empty() { "clusterpolicy" } else { "policy" };
        Arc::new(Self { object, name: format!("{kind}/{}", key.name), compiled: OnceLock::new() })
    }

    fn compiled(&self) -> &Compiled {
        self.compiled.get_or_init(|| {
            let name = self.name.clone();
            let object = match &self.object {
                Ok(object) => {
                    serde_json::from_slice::<Value>(&object.json).map_err(|error| error.to_string())
                }
                Err(why) => Err((*why).to_owned()),
            };
            match object {
                Ok(object) => Compiled::new(name, object.get("spec").unwrap_or(&Value::Null)),
                Err(why) => Compiled::broken(name, why),
            }
        })
    }
}

impl Policies {
    /// Of the policies in the store.
    pub fn new(store: Store) -> Self {
        Self { store, known: Arc::default() }
    }

    /// Waits until memory has every policy that was acknowledged before, so that a policy counts from the next request on. Whoever's rights
    /// were looked up has waited already.
    pub async fn catch_up(&self) {
        let _ = tokio::time::timeout(PATIENCE, self.store.caught_up()).await;
    }

    /// True if there is none for this namespace, whatever is asked.
    pub fn are_none(&self, namespace: &str) -> bool {
        self.of(namespace).iter().all(|policies| policies.is_empty())
    }

    /// A request of this caller to an instance, of which the rest is to be filled in.
    pub fn subject(
        &self,
        caller: &Caller,
        namespace: &str,
        instance: &str,
        action: PolicyAction,
        target: Target,
    ) -> Subject {
        let labels = |plural: &str, namespace: &str, name: &str| {
            let (resource, namespace, name) = (Resource(plural.into()), namespace.into(), name.into());
            let object = self.store.cache().get(&Key { resource, namespace, name });
            object.map(|object| {
                object.labels.iter().map(|(key, value)| (key.to_owned(), value.to_owned())).collect()
            })
        };
        Subject {
            action,
            target,
            image: None,
            new_image: None,
            parameters: Parameters::default(),
            user: caller.user.to_string(),
            groups: caller.groups.iter().map(ToString::to_string).collect(),
            namespace: namespace.to_owned(),
            instance: Instance {
                name: instance.to_owned(),
                labels: labels("dockerinstances.gantry.dev", namespace, instance),
            },
            container: None,
            mounts: Vec::new(),
            namespace_labels: labels("namespaces", "", namespace).unwrap_or_default(),
        }
    }

    /// What every policy that is for this request says of it.
    pub fn judge(&self, subject: &Subject) -> Verdict {
        let [cluster, namespace] = self.of(&subject.namespace);
        judge(cluster.iter().chain(namespace.iter()).map(|held| held.compiled()), subject)
    }

    /// Those of the cluster, and those of a namespace.
    fn of(&self, namespace: &str) -> [Arc<[Arc<Held>]>; 2] {
        let revision = self.store.cache().revision(&*RESOURCES);
        let mut known = self.known.lock();
        if known.revision != Some(revision) {
            known.read(&self.store, revision);
        }
        ["", namespace].map(|place| known.places.get(place).cloned().unwrap_or_default())
    }
}

impl Known {
    fn read(&mut self, store: &Store, revision: Revision) {
        let mut before = std::mem::take(&mut self.held);
        let mut places: BTreeMap<Arc<str>, Vec<Arc<Held>>> = BTreeMap::new();
        for resource in &*RESOURCES {
            let listing = store.cache().list(resource, None);
            for object in listing.objects {
                let (key, version) = (object.key.clone(), object.version);
                let held = match before.remove(&key) {
                    Some((of, held)) if of == version => held,
                    _ => Held::new(&key, Ok(object)),
                };
                places.entry(key.namespace.clone()).or_default().push(Arc::clone(&held));
                self.held.insert(key, (version, held));
            }
            for key in listing.damaged {
                let held = Held::new(&key, Err("the database has it in a form that cannot be read"));
                places.entry(key.namespace.clone()).or_default().push(held);
            }
        }
        for policies in places.values_mut().filter(|policies| policies.len() > MOST_IN_PLACE) {
            policies.truncate(MOST_IN_PLACE);
            let why = "there are more than 100 policies here, and no more are asked";
            if let Some(last) = policies.last_mut() {
                let name = last.name.clone();
                *last = Arc::new(Held { object: Err(why), name, compiled: OnceLock::new() });
            }
        }
        self.places = places.into_iter().map(|(place, policies)| (place, policies.into())).collect();
        self.revision = Some(revision);
    }
}
