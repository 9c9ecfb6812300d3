//! What storage takes and gives.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use uuid::Uuid;

use super::audit::Record;
use super::{FieldPaths, StorageError, Texts};

/// Counts commits; the `resourceVersion` of the API. Opaque to clients, ordered to us.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Version(pub i64);

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// `operations.gantry.dev`; for core kinds the plural alone, `namespaces`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Resource(pub Arc<str>);

impl fmt::Display for Resource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Where an object stands. Sorted as lists are: resource, namespace, name.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Key {
    /// What kind of object.
    pub resource: Resource,
    /// Empty for objects of the cluster.
    pub namespace: Arc<str>,
    /// Unique among the living.
    pub name: Arc<str>,
}

impl Key {
    /// Where the Namespace of that name stands.
    pub fn namespace(name: &str) -> Self {
        Self { resource: Resource("namespaces".into()), namespace: "".into(), name: name.into() }
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.namespace.is_empty() {
            write!(f, "{} \"{}\"", self.resource, self.name)
        } else {
            write!(f, "{} \"{}/{}\"", self.resource, self.namespace, self.name)
        }
    }
}

/// The stored state of an object at one version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Object {
    /// Where it stands.
    pub key: Key,
    /// Its identity for ever.
    pub uid: Uuid,
    /// The commit that made this state.
    pub version: Version,
    /// `metadata.labels`, for selectors.
    pub labels: Texts,
    /// Values of the resource's selectable fields, for field selectors; the path as in the selector, `status.phase`.
    pub fields: Texts,
    /// The object as JSON, `metadata.resourceVersion` included: what a client is sent.
    pub json: Bytes,
}

/// What a writer hands over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Body {
    /// Identity of the object.
    pub uid: Uuid,
    /// `metadata.labels`.
    pub labels: BTreeMap<String, String>,
    /// JSON that begins with `{"metadata":{` and has no `resourceVersion`, so that the version can be put in without parsing.
    /// Made by [`Body::new`] only.
    pub(super) text: String,
}

impl Body {
    /// Prepares an object for storing: takes out `metadata.resourceVersion` and puts `metadata` first.
    ///
    /// `None` if the value has no `metadata` object or no valid `metadata.uid`.
    pub fn new(mut object: serde_json::Value) -> Option<Self> {
        let root = object.as_object_mut()?;
        let mut metadata = root.remove("metadata")?;
        let fields = metadata.as_object_mut()?;
        fields.remove("resourceVersion");
        let uid = fields.get("uid")?.as_str()?.parse().ok()?;
        let labels = fields.get("labels").map(texts).unwrap_or_default();
        let rest = object.to_string();
        let text = match rest.strip_prefix('{') {
            Some("}") | None => format!("{{\"metadata\":{metadata}}}"),
            Some(rest) => format!("{{\"metadata\":{metadata},{rest}"),
        };
        Some(Self { uid, labels, text })
    }
}

/// The members of an object that are texts, and nothing of what is none.
pub(super) fn texts(object: &serde_json::Value) -> BTreeMap<String, String> {
    let members = object.as_object().into_iter().flatten();
    members.filter_map(|(key, value)| Some((key.clone(), value.as_str()?.to_owned()))).collect()
}

/// Puts the version into a text that [`Body::new`] made.
pub(crate) fn with_version(text: &str, version: Version) -> Option<Bytes> {
    let rest = text.strip_prefix("{\"metadata\":{")?;
    Some(Bytes::from(format!("{{\"metadata\":{{\"resourceVersion\":\"{version}\",{rest}")))
}

/// A stored text with another version; all of them begin with it.
pub(crate) fn at_version(json: &[u8], version: Version) -> Option<Vec<u8>> {
    const HEAD: &[u8] = b"{\"metadata\":{\"resourceVersion\":\"";
    let rest = json.strip_prefix(HEAD)?;
    let end = rest.iter().position(|byte| *byte == b'"')?;
    Some([HEAD, version.to_string().as_bytes(), rest.get(end..)?].concat())
}

/// The object that a stored row stands for.
pub(super) fn object(
    key: Key,
    uid: Uuid,
    version: Version,
    labels: &BTreeMap<String, String>,
    text: &str,
    fields: &FieldPaths,
) -> Result<Object, StorageError> {
    let Some(json) = with_version(text, version) else { return Err(StorageError::Damaged(key)) };
    let fields = fields.extract(&key.resource, text);
    Ok(Object { key, uid, version, labels: labels.iter().collect(), fields, json })
}

/// A stored row that cannot be read, and what is known of it all the same.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Damaged {
    /// Where it stands.
    pub key: Key,
    /// Its identity.
    pub uid: Uuid,
    /// The commit that made this state.
    pub version: Version,
    /// What is wrong with it.
    pub why: String,
}

/// What must be so for a write to happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expects {
    /// Nothing of that key lives.
    Absent,
    /// Nothing of that key lives, and its Namespace is at exactly this version.
    AbsentIn(Version),
    /// The object is at exactly this version.
    Version(Version),
}

/// One write of one object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Write {
    /// Which object.
    pub key: Key,
    /// On what condition.
    pub expects: Expects,
    /// What becomes of it.
    pub effect: Effect,
    /// The event that is recorded in the same transaction, if the write happens.
    pub record: Option<Box<Record>>,
}

/// What becomes of an object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Its new state.
    Put(Body),
    /// It goes; this is the last state, which watchers are sent with the deletion's version.
    Delete(Body),
}

/// Why a write did not happen.
#[derive(Debug, Clone, thiserror::Error)]
pub enum WriteError {
    /// Something of that key lives already.
    #[error("{0} already exists")]
    AlreadyExists(Key),
    /// Something of that key lives already, or its Namespace is at another version, or gone.
    #[error("{0} exists already or its namespace has changed")]
    NotPlaced(Key),
    /// The object is at another version, or gone.
    #[error("{0} has changed since it was read")]
    Conflict(Key),
    /// Postgres cannot take writes now; nothing was stored.
    #[error("the database does not take writes now: {0}")]
    Unavailable(Arc<str>),
    /// Postgres went away in the middle of the commit and did not come back in time: read again to see.
    #[error("the database went away while it stored this, which may have happened or not")]
    FateUnknown,
}

impl WriteError {
    pub(super) fn stopping() -> Self {
        Self::Unavailable("the store is stopping".into())
    }
}

/// Kinds of change in the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChangeKind {
    /// The object is new.
    Added,
    /// It has a new state.
    Modified,
    /// It is gone; the change carries its last state.
    Deleted,
}

/// One entry of the log.
#[derive(Clone, Debug)]
pub struct Change {
    /// What happened.
    pub kind: ChangeKind,
    /// The state after it; for a deletion the last state at the deletion's version.
    pub object: Arc<Object>,
    /// The state before it, where the cache still had it; lets a selector see an object leave.
    pub before: Option<Arc<Object>>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    #[test]
    fn a_stored_text_reads_back_with_its_version_and_nothing_else_changed() {
        let object = json!({"apiVersion": "v1", "kind": "X", "data": {"metadata": "{\"metadata\":{"},
            "metadata": {"name": "a", "uid": "7c1c9a3e-0b6e-4b2e-9d55-0a4d3b1f2c11", "resourceVersion": "1", "labels": {"a": "b"}}});

        let body = Body::new(object.clone()).expect("has metadata");
        let read: Value = serde_json::from_slice(&with_version(&body.text, Version(7)).expect("made by new"))
            .expect("JSON");

        assert_eq!(read["metadata"]["resourceVersion"], "7");
        assert_eq!(read["data"], object["data"]);
        assert_eq!(body.labels["a"], "b");
    }
}
