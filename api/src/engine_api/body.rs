//! Bodies of JSON: read strictly into our own types, and written anew from them.
//!
//! Go's decoder takes keys in any case, the last of two, and ignores what it does not know or what comes after. Here each of these is
//! refused, so what is judged is what an engine reads.

mod container;
mod other;

use std::collections::BTreeMap;

use serde::de::{DeserializeOwned, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;

use super::MOST_JSON;
use super::refusal::{Refusal, Why};

pub use container::{
    ContainerCreate, ContainerUpdate, Device, DeviceRequest, DriverConfig, EndpointSettings, HostConfig,
    Mount, NetworkingConfig, Ulimit, VolumeOptions,
};
pub use other::{
    Auth, CommitConfig, ExecCreate, ExecStart, NetworkConnect, NetworkCreate, NetworkDisconnect, VolumeCreate,
};

/// Declares an object of the Engine API: each key once, null is absence, other keys are refused. No Debug: environments and labels
/// may hold secrets.
macro_rules! object {
    ($(#[$doc:meta])* $name:ident { $($key:literal $field:ident: $kind:ty,)* }) => {
        $(#[$doc])*
        #[derive(Clone, Default, PartialEq, serde::Serialize, serde::Deserialize)]
        #[serde(deny_unknown_fields)]
        pub struct $name {
            $(
                #[doc = concat!("`", $key, "`.")]
                #[serde(rename = $key, default, skip_serializing_if = "Option::is_none")]
                pub $field: Option<$kind>,
            )*
        }
    };
}
pub(super) use object;

/// Texts by text, as labels are.
pub type Map<T> = BTreeMap<String, T>;

/// One word or several: Go takes both for commands and capabilities.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Words {
    /// `"sh"`.
    One(String),
    /// `["sh", "-c"]`.
    Many(Vec<String>),
}

impl Words {
    /// As a list.
    pub fn list(&self) -> &[String] {
        match self {
            Self::One(word) => std::slice::from_ref(word),
            Self::Many(words) => words,
        }
    }
}

/// Texts, as Go writes a set: `{"80/tcp":{}}`.
pub type Set = Map<Option<Empty>>;

/// What stands beside each member of a [`Set`].
#[derive(Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Empty {}

/// A key that clients send with null and that may hold nothing else.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
pub enum Nothing {}

/// The types of bodies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Json {
    /// A password for a registry.
    Auth,
    /// A new container.
    ContainerCreate,
    /// Other limits.
    ContainerUpdate,
    /// What an image is made with; may be left out.
    CommitConfig,
    /// A command in a container.
    ExecCreate,
    /// How it is started.
    ExecStart,
    /// A new network.
    NetworkCreate,
    /// A container into a network.
    NetworkConnect,
    /// A container out of a network.
    NetworkDisconnect,
    /// A new volume.
    VolumeCreate,
}

/// A body that was understood.
#[derive(Clone, PartialEq)]
pub enum Parsed {
    /// See [`Json::Auth`].
    Auth(Auth),
    /// See [`Json::ContainerCreate`].
    ContainerCreate(Box<ContainerCreate>),
    /// See [`Json::ContainerUpdate`].
    ContainerUpdate(Box<ContainerUpdate>),
    /// See [`Json::CommitConfig`]; `None` where nothing was sent.
    CommitConfig(Option<Box<CommitConfig>>),
    /// See [`Json::ExecCreate`].
    ExecCreate(ExecCreate),
    /// See [`Json::ExecStart`].
    ExecStart(ExecStart),
    /// See [`Json::NetworkCreate`].
    NetworkCreate(Box<NetworkCreate>),
    /// See [`Json::NetworkConnect`].
    NetworkConnect(Box<NetworkConnect>),
    /// See [`Json::NetworkDisconnect`].
    NetworkDisconnect(NetworkDisconnect),
    /// See [`Json::VolumeCreate`].
    VolumeCreate(VolumeCreate),
}

impl std::fmt::Debug for Parsed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Parsed").finish_non_exhaustive()
    }
}

impl Json {
    /// Understands a body.
    pub fn read(self, bytes: &[u8]) -> Result<Parsed, Refusal> {
        if bytes.len() > MOST_JSON {
            return Err(Refusal::new(Why::Size, format!("a body of JSON has at most {MOST_JSON} bytes")));
        }
        let is_nothing = matches!(bytes.trim_ascii(), b"" | b"null");
        Ok(match self {
            Self::CommitConfig if is_nothing => Parsed::CommitConfig(None),
            Self::Auth => Parsed::Auth(typed(bytes)?),
            Self::ContainerCreate => Parsed::ContainerCreate(typed(bytes)?),
            Self::ContainerUpdate => Parsed::ContainerUpdate(typed(bytes)?),
            Self::CommitConfig => Parsed::CommitConfig(Some(typed(bytes)?)),
            // docker-py repeats here what the path names, which alone counts.
            Self::ExecCreate => Parsed::ExecCreate(ExecCreate { container: None, ..typed(bytes)? }),
            Self::ExecStart => Parsed::ExecStart(typed(bytes)?),
            Self::NetworkCreate => Parsed::NetworkCreate(typed(bytes)?),
            Self::NetworkConnect => Parsed::NetworkConnect(typed(bytes)?),
            Self::NetworkDisconnect => Parsed::NetworkDisconnect(typed(bytes)?),
            Self::VolumeCreate => Parsed::VolumeCreate(typed(bytes)?),
        })
    }
}

impl Parsed {
    /// The body for an engine; empty where nothing is sent.
    pub fn write(&self) -> Vec<u8> {
        let written = match self {
            Self::Auth(body) => serde_json::to_vec(body),
            Self::ContainerCreate(body) => serde_json::to_vec(body),
            Self::ContainerUpdate(body) => serde_json::to_vec(body),
            Self::CommitConfig(None) => Ok(Vec::new()),
            Self::CommitConfig(Some(body)) => serde_json::to_vec(body),
            Self::ExecCreate(body) => serde_json::to_vec(body),
            Self::ExecStart(body) => serde_json::to_vec(body),
            Self::NetworkCreate(body) => serde_json::to_vec(body),
            Self::NetworkConnect(body) => serde_json::to_vec(body),
            Self::NetworkDisconnect(body) => serde_json::to_vec(body),
            Self::VolumeCreate(body) => serde_json::to_vec(body),
        };
        written.expect("texts, numbers and maps of texts can be written")
    }
}

/// A JSON text as one value: no key twice in an object, nothing after it.
pub(super) fn strict(bytes: &[u8]) -> Result<Value, serde_json::Error> {
    serde_json::from_slice::<Strict>(bytes).map(|Strict(value)| value)
}

/// A text read into a type that says all of it: written anew, it is the same but for nulls.
fn typed<T: DeserializeOwned + Serialize>(bytes: &[u8]) -> Result<T, Refusal> {
    let mut value = strict(bytes).map_err(|error| unreadable(&error))?;
    let typed = T::deserialize(&value).map_err(|error| unreadable(&error))?;
    let mut again = serde_json::to_value(&typed).map_err(|error| unreadable(&error))?;
    without_nulls(&mut value);
    without_nulls(&mut again);
    // A list in the place of an object, for one: serde would take it.
    if value != again {
        return Err(Refusal::body("the body has another shape than the Docker Engine API gives it"));
    }
    Ok(typed)
}

/// What is wrong, without what was sent: serde repeats values, keys alone tell enough.
fn unreadable(error: &serde_json::Error) -> Refusal {
    let text = error.to_string();
    let unknown = text.strip_prefix("unknown field `").and_then(|rest| rest.split('`').next());
    let twice = text.strip_prefix("key `").and_then(|rest| rest.split('`').next());
    let short = |key: &str| key.chars().filter(|letter| !letter.is_control()).take(64).collect::<String>();
    Refusal::body(match (unknown, twice) {
        (Some(key), _) => format!("the body's field `{}` is not known here", short(key)),
        (_, Some(key)) => format!("the body's field `{}` comes twice", short(key)),
        _ if error.is_data() => {
            "a field of the body has another type than the Docker Engine API gives it".to_owned()
        }
        _ => "the body is no JSON document, or more than one".to_owned(),
    })
}

pub(super) fn without_nulls(value: &mut Value) {
    match value {
        Value::Object(members) => {
            members.retain(|_, value| !value.is_null());
            members.values_mut().for_each(without_nulls);
        }
        Value::Array(items) => items.iter_mut().for_each(without_nulls),
        _ => {}
    }
}

/// Limits as the builder's query has them, written anew.
pub(super) fn ulimits(value: &Value) -> Option<String> {
    let limits = Vec::<Ulimit>::deserialize(value).ok()?;
    let again = serde_json::to_value(&limits).ok()?;
    (again == *value).then(|| again.to_string())
}

struct Strict(Value);

impl<'de> Deserialize<'de> for Strict {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(StrictVisitor).map(Self)
    }
}

struct StrictVisitor;

impl<'de> Visitor<'de> for StrictVisitor {
    type Value = Value;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("JSON")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let mut list = Vec::new();
        while let Some(Strict(item)) = items.next_element()? {
            list.push(item);
        }
        Ok(list.into())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Value, A::Error> {
        let mut object = serde_json::Map::new();
        while let Some(key) = members.next_key::<String>()? {
            let Strict(value) = members.next_value()?;
            if object.contains_key(&key) {
                return Err(serde::de::Error::custom(format_args!("key `{key}` comes twice")));
            }
            object.insert(key, value);
        }
        Ok(object.into())
    }
}
