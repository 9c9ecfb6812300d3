//! What an agent tells of a container or an image, as objects of the API.

use std::collections::BTreeMap;
use std::sync::Arc;

use gantry_api::agent_v1 as wire;
use gantry_api::names::{DOCKER_GROUP, VERSION};
use gantry_api::v1alpha1::{
    Container, ContainerMount, ContainerNetwork, ContainerPort, Image, Network, Volume,
};
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use serde::Serialize;
use serde_json::Value;
use sha2::{Digest as _, Sha256};
use uuid::Uuid;

use crate::apiserver::view::nodes::{self, node_name};
use crate::apiserver::view::pods::phase;
use crate::gateway::link::InstanceUid;
use crate::storage::{Key, Object, Resource, Texts, Version, with_version};

/// Sorts of things there are on a host; each is a kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Sort {
    /// Containers.
    Containers,
    /// Images.
    Images,
    /// Networks.
    Networks,
    /// Volumes.
    Volumes,
}

impl Sort {
    const ALL: [Self; 4] = [Self::Containers, Self::Images, Self::Networks, Self::Volumes];

    /// `containers`, the plural of the kind.
    pub const fn plural(self) -> &'static str {
        match self {
            Self::Containers => "containers",
            Self::Images => "images",
            Self::Networks => "networks",
            Self::Volumes => "volumes",
        }
    }

    const fn kind(self) -> &'static str {
        match self {
            Self::Containers => "Container",
            Self::Images => "Image",
            Self::Networks => "Network",
            Self::Volumes => "Volume",
        }
    }

    /// As storage would name it.
    pub fn resource(self) -> Resource {
        Resource(format!("{}.{DOCKER_GROUP}", self.plural()).into())
    }
}

/// Label of Compose.
const PROJECT: &str = "com.docker.compose.project";
/// Digits of an id in the name of what has no better one.
const SHORT: usize = 16;
/// Bytes of a name, an image or a state; Docker has none that are longer.
const LONGEST: usize = 512;
const MARK: &str = ",\"staleSince\":\"";

/// An instance, where its objects stand.
#[derive(Clone, Debug)]
pub(super) struct Place {
    pub instance: InstanceUid,
    pub namespace: Arc<str>,
    pub name: Arc<str>,
}

impl Place {
    /// What the object is called of a container of that name.
    pub fn name_of(&self, container: &str) -> String {
        format!("{}_{container}", self.name)
    }

    pub fn key(&self, sort: Sort, name: &Arc<str>) -> Key {
        Key { resource: sort.resource(), namespace: Arc::clone(&self.namespace), name: Arc::clone(name) }
    }
}

/// An object that has no version yet.
#[derive(Debug)]
pub(super) struct Made {
    pub name: Arc<str>,
    pub uid: Uuid,
    labels: Texts,
    fields: Texts,
    /// JSON that begins with `{"metadata":{`.
    text: String,
}

impl Made {
    pub fn at(self, key: Key, version: Version) -> Option<Object> {
        let json = with_version(&self.text, version)?;
        let Self { uid, labels, fields, .. } = self;
        Some(Object { key, uid, version, labels, fields, json })
    }

    /// True if this is its present state.
    pub fn is(&self, present: &Object) -> bool {
        with_version(&self.text, present.version).is_some_and(|json| json == present.json)
    }
}

/// The same id on another host is another object.
pub(super) fn uid(instance: InstanceUid, sort: Sort, id: &str) -> Uuid {
    let digest =
        Sha256::new().chain_update(instance.0).chain_update(sort.plural()).chain_update(id).finalize();
    let mut bytes = [0; 16];
    for (byte, from) in bytes.iter_mut().zip(digest) {
        *byte = from;
    }
    uuid::Builder::from_custom_bytes(bytes).into_uuid()
}

pub(super) fn container(place: &Place, told: wire::Container, stale: Option<Timestamp>) -> Made {
    let uid = uid(place.instance, Sort::Containers, &told.id);
    let own = if is_name(&told.name) { told.name.clone() } else { cut(told.id.clone()) };
    let name: Arc<str> = place.name_of(&own).into();
    let project = told.labels.get(PROJECT).cloned().unwrap_or_default();
    let object = Container {
        metadata: metadata(place, &name, uid, Timestamp::from_second(told.created_at).ok(), &told.labels),
        instance: place.name.to_string(),
        id: cut(told.id),
        container_name: cut(told.name),
        image: cut(told.image),
        image_id: cut(told.image_id),
        command: told.command,
        state: cut(told.state),
        since: Timestamp::from_second(told.since)
            .ok()
            .filter(|_| told.since > 0)
            .map(|since| since.to_string()),
        exit_code: told.exit_code,
        health: cut(told.health),
        project,
        ports: told.ports.into_iter().map(port).collect(),
        network_mode: cut(told.network_mode),
        networks: told.networks.into_iter().map(attachment).collect(),
        mounts: told.mounts.into_iter().map(mount).collect(),
        truncated: told.is_cut,
        stale_since: None,
    };
    let phase = phase(&object.state, object.exit_code.map(Into::into)).to_owned();
    let node = node_name(&place.namespace, &place.name);
    let fields = [
        ("instance", &object.instance),
        ("state", &object.state),
        ("image", &object.image),
        ("health", &object.health),
        ("project", &object.project),
        ("phase", &phase),
        ("node", &node),
    ];
    let (labels, fields) = (told.labels.iter().collect(), fields.into_iter().collect());
    Made { name, uid, labels, fields, text: text(&object, Sort::Containers, stale) }
}

/// Where the Node of an instance stands.
pub(super) fn node_key(place: &Place) -> Key {
    let name = node_name(&place.namespace, &place.name);
    Key { resource: Resource("nodes".into()), namespace: "".into(), name: name.into() }
}

/// The Node of an instance.
pub(super) fn node(place: &Place, instance: &Object) -> Made {
    let described: Value = serde_json::from_slice(&instance.json).unwrap_or_default();
    let text = nodes::node(place.instance, &place.namespace, &place.name, &described);
    let made: Value = serde_json::from_str(&text).unwrap_or_default();
    let labels = made.pointer("/metadata/labels").and_then(Value::as_object).into_iter().flatten();
    let labels = labels.filter_map(|(label, value)| Some((label, value.as_str()?))).collect();
    let is_out = made.pointer("/spec/unschedulable").is_some();
    let fields = [("spec.unschedulable", is_out.to_string())].into_iter().collect();
    Made { name: node_key(place).name, uid: place.instance.0, labels, fields, text }
}

pub(super) fn image(place: &Place, told: wire::Image, stale: Option<Timestamp>) -> Made {
    let uid = uid(place.instance, Sort::Images, &told.id);
    let name: Arc<str> = format!("{}_{}", place.name, short(&told.id)).into();
    let object = Image {
        metadata: metadata(place, &name, uid, Timestamp::from_second(told.created_at).ok(), &told.labels),
        instance: place.name.to_string(),
        id: cut(told.id),
        tags: told.tags,
        digests: told.digests,
        size_bytes: told.size_bytes,
        truncated: told.is_cut,
        stale_since: None,
    };
    let first = object.tags.first().cloned().unwrap_or_default();
    let fields = [("instance", &object.instance), ("image", &first)];
    let (labels, fields) = (told.labels.iter().collect(), fields.into_iter().collect());
    Made { name, uid, labels, fields, text: text(&object, Sort::Images, stale) }
}

pub(super) fn network(place: &Place, told: wire::Network, stale: Option<Timestamp>) -> Made {
    let uid = uid(place.instance, Sort::Networks, &told.id);
    let name: Arc<str> = format!("{}_{}", place.name, short(&told.id)).into();
    let object = Network {
        metadata: metadata(place, &name, uid, told.created_at.parse().ok(), &told.labels),
        instance: place.name.to_string(),
        id: cut(told.id),
        network_name: cut(told.name),
        driver: cut(told.driver),
        scope: cut(told.scope),
        internal: told.is_internal,
        attachable: told.is_attachable,
        enable_ipv6: told.has_ipv6,
        subnets: told.subnets,
        stale_since: None,
    };
    let fields = [("instance", &object.instance), ("driver", &object.driver)];
    let (labels, fields) = (told.labels.iter().collect(), fields.into_iter().collect());
    Made { name, uid, labels, fields, text: text(&object, Sort::Networks, stale) }
}

pub(super) fn volume(place: &Place, told: wire::Volume, stale: Option<Timestamp>) -> Made {
    let uid = uid(place.instance, Sort::Volumes, &told.name);
    let own = if is_name(&told.name) { told.name.clone() } else { uid.simple().to_string() };
    let name: Arc<str> = format!("{}_{own}", place.name).into();
    let object = Volume {
        metadata: metadata(place, &name, uid, told.created_at.parse().ok(), &told.labels),
        instance: place.name.to_string(),
        volume_name: cut(told.name),
        driver: cut(told.driver),
        mountpoint: told.mountpoint,
        scope: cut(told.scope),
        stale_since: None,
    };
    let fields = [("instance", &object.instance), ("driver", &object.driver)];
    let (labels, fields) = (told.labels.iter().collect(), fields.into_iter().collect());
    Made { name, uid, labels, fields, text: text(&object, Sort::Volumes, stale) }
}

/// The first digits of an id.
fn short(id: &str) -> String {
    let digits = id.strip_prefix("sha256:").unwrap_or(id);
    digits.chars().filter(char::is_ascii_hexdigit).take(SHORT).collect()
}

fn metadata(
    place: &Place,
    name: &str,
    uid: Uuid,
    created_at: Option<Timestamp>,
    labels: &BTreeMap<String, String>,
) -> ObjectMeta {
    ObjectMeta {
        name: Some(name.to_owned()),
        namespace: Some(place.namespace.to_string()),
        uid: Some(uid.to_string()),
        creation_timestamp: created_at.map(|time| Time(rounded(time))),
        labels: (!labels.is_empty()).then(|| labels.clone()),
        ..ObjectMeta::default()
    }
}

/// What stands after the fields of an object.
fn tail(sort: Sort) -> String {
    format!(",\"kind\":\"{}\",\"apiVersion\":\"{DOCKER_GROUP}/{VERSION}\"}}", sort.kind())
}

/// `metadata` first, as it is in the types; the mark just before the tail, so that it can be changed without reading the rest.
fn text(object: &impl Serialize, sort: Sort, stale: Option<Timestamp>) -> String {
    let text = serde_json::to_string(object).unwrap_or_default();
    let fields = text.strip_suffix('}').unwrap_or_default();
    format!("{fields}{}{}", mark(stale), tail(sort))
}

fn mark(stale: Option<Timestamp>) -> String {
    stale.map(|since| format!("{MARK}{}\"", rounded(since))).unwrap_or_default()
}

/// To the second, as all times of the API.
fn rounded(time: Timestamp) -> Timestamp {
    Timestamp::from_second(time.as_second()).unwrap_or(time)
}

/// The same object with the mark or without it; `None` of what is none of ours.
pub(super) fn marked(json: &[u8], stale: Option<Timestamp>) -> Option<Vec<u8>> {
    let text = std::str::from_utf8(json).ok()?;
    let (fields, tail) = Sort::ALL.into_iter().find_map(|sort| {
        let tail = tail(sort);
        Some((text.strip_suffix(&tail)?, tail))
    })?;
    // Quotes within a string are escaped, so this is a field, and the last.
    let fields = fields.rfind(MARK).and_then(|at| fields.get(..at)).unwrap_or(fields);
    Some(format!("{fields}{}{tail}", mark(stale)).into_bytes())
}

/// As Docker lets containers be called: nothing that could be taken for something else in a path or on a terminal.
fn is_name(name: &str) -> bool {
    let is_inner = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b'-');
    name.len() <= LONGEST
        && name.bytes().next().is_some_and(|first| first.is_ascii_alphanumeric())
        && name.bytes().all(is_inner)
}

fn cut(mut text: String) -> String {
    text.truncate(text.floor_char_boundary(LONGEST));
    text
}

fn port(told: wire::Port) -> ContainerPort {
    ContainerPort {
        ip: cut(told.ip),
        private_port: told.private,
        public_port: Some(told.public).filter(|port| *port > 0),
        protocol: cut(told.protocol),
    }
}

fn attachment(told: wire::Attachment) -> ContainerNetwork {
    ContainerNetwork {
        name: cut(told.network),
        network_id: cut(told.network_id),
        ip_address: cut(told.ip_address),
        ipv6_address: cut(told.ipv6_address),
        mac_address: cut(told.mac_address),
    }
}

fn mount(told: wire::Mount) -> ContainerMount {
    ContainerMount {
        kind: cut(told.r#type),
        name: cut(told.name),
        source: told.source,
        target: told.target,
        read_only: told.read_only,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place() -> Place {
        Place {
            instance: InstanceUid(Uuid::from_u128(1)),
            namespace: "default".into(),
            name: "nuc-01".into(),
        }
    }

    fn read(json: &[u8]) -> Value {
        serde_json::from_slice(json).expect("JSON")
    }

    #[test]
    fn the_mark_comes_and_goes_and_nothing_else_changes() {
        let labels = BTreeMap::from([("a".to_owned(), "x,\"staleSince\":\"never\"".to_owned())]);
        let told = wire::Container {
            id: "1".repeat(64),
            name: "web".to_owned(),
            labels,
            ..wire::Container::default()
        };
        let since = Timestamp::from_second(1_700_000_000).expect("a time");
        let fresh = container(&place(), told.clone(), None).text;

        let marked_json = marked(fresh.as_bytes(), Some(since)).expect("ours");
        assert_eq!(read(&marked_json)["staleSince"], "2023-11-14T22:13:20Z");
        assert_eq!(marked(&marked_json, None).expect("ours"), fresh.as_bytes());
        assert_eq!(marked_json, container(&place(), told, Some(since)).text.into_bytes());
    }

    #[test]
    fn t16_a_name_that_docker_would_not_give_is_not_taken_into_a_path() {
        for name in ["", "../x", "a/b", "-a", "a\u{1b}[31m", "a b", &"a".repeat(LONGEST + 1)] {
            let told =
                wire::Container { id: "1".repeat(64), name: name.to_owned(), ..wire::Container::default() };
            let made = container(&place(), told, None);
            assert_eq!(*made.name, format!("nuc-01_{}", "1".repeat(64)), "{name:?}");
        }
    }

    #[test]
    fn whatever_an_agent_tells_is_an_object() {
        let told = wire::Container {
            name: "\"},{".to_owned(),
            image: "x".repeat(10_000),
            created_at: i64::MAX,
            since: i64::MIN,
            labels: BTreeMap::from([("\u{0}".to_owned(), "\u{202e}\n".to_owned())]),
            ..wire::Container::default()
        };
        let object = read(container(&place(), told, None).text.as_bytes());
        assert_eq!(object["kind"], "Container");
        assert!(object["image"].as_str().is_some_and(|image| image.len() == LONGEST));

        let told =
            wire::Image { id: "sha256:../..".to_owned(), created_at: i64::MIN, ..wire::Image::default() };
        let made = image(&place(), told, None);
        assert_eq!(&*made.name, "nuc-01_");
        assert_eq!(read(made.text.as_bytes())["kind"], "Image");
    }
}
