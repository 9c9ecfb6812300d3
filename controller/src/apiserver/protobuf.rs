//! Reads the protobuf that kubectl's typed clients send for kinds of Kubernetes (`kubectl create configmap` since 1.32).
//!
//! Answers are JSON always, which those clients accept beside it. Kinds of ours have no protobuf.

mod access;

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use prost::Message;
use serde_json::{Map, Value, json};

use super::failure::{Failure, Outcome};

/// Media type of the envelope.
pub(super) const MEDIA_TYPE: &str = "application/vnd.kubernetes.protobuf";
/// What every body of that type begins with.
const MAGIC: &[u8] = b"k8s\0";

/// Reads one object; `None` for kinds without protobuf here.
pub(super) fn decode(bytes: &[u8]) -> Outcome<Option<Value>> {
    let Some(envelope) = bytes.strip_prefix(MAGIC) else {
        return Err(Failure::bad_request(
            "the body is not Kubernetes' protobuf: it does not begin with k8s\\0",
        ));
    };
    let unknown: Unknown = read(envelope)?;
    let types = unknown.type_meta.unwrap_or_default();
    let mut object = match (types.api_version.as_str(), types.kind.as_str()) {
        ("v1", "ConfigMap") => read::<ConfigMap>(&unknown.raw)?.json(),
        ("v1", "Secret") => read::<Secret>(&unknown.raw)?.json(),
        ("v1", "Namespace") => read::<Namespace>(&unknown.raw)?.json(),
        ("v1", "ServiceAccount") => read::<ServiceAccount>(&unknown.raw)?.json(),
        ("authentication.k8s.io/v1", "TokenRequest") => read::<TokenRequest>(&unknown.raw)?.json(),
        (_, "DeleteOptions") => read::<DeleteOptions>(&unknown.raw)?.json(),
        (api_version, kind) => match access::decode(api_version, kind, &unknown.raw)? {
            Some(object) => object,
            None => return Ok(None),
        },
    };
    object.insert("apiVersion".to_owned(), types.api_version.into());
    object.insert("kind".to_owned(), types.kind.into());
    Ok(Some(Value::Object(object)))
}

fn read<M: Message + Default>(bytes: &[u8]) -> Outcome<M> {
    M::decode(bytes).map_err(|error| Failure::bad_request(format!("the body is not valid protobuf: {error}")))
}

/// `runtime.Unknown` of apimachinery.
#[derive(Clone, PartialEq, Message)]
struct Unknown {
    #[prost(message, optional, tag = "1")]
    type_meta: Option<TypeMeta>,
    #[prost(bytes = "vec", tag = "2")]
    raw: Vec<u8>,
}

#[derive(Clone, PartialEq, Message)]
struct TypeMeta {
    #[prost(string, tag = "1")]
    api_version: String,
    #[prost(string, tag = "2")]
    kind: String,
}

#[derive(Clone, PartialEq, Message)]
struct ObjectMeta {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(string, tag = "2")]
    generate_name: String,
    #[prost(string, tag = "3")]
    namespace: String,
    #[prost(string, tag = "5")]
    uid: String,
    #[prost(string, tag = "6")]
    resource_version: String,
    #[prost(message, optional, tag = "8")]
    creation_timestamp: Option<Time>,
    #[prost(btree_map = "string, string", tag = "11")]
    labels: BTreeMap<String, String>,
    #[prost(btree_map = "string, string", tag = "12")]
    annotations: BTreeMap<String, String>,
    #[prost(message, repeated, tag = "13")]
    owner_references: Vec<OwnerReference>,
    #[prost(string, repeated, tag = "14")]
    finalizers: Vec<String>,
}

#[derive(Clone, PartialEq, Message)]
struct Time {
    #[prost(int64, tag = "1")]
    seconds: i64,
}

#[derive(Clone, PartialEq, Message)]
struct OwnerReference {
    #[prost(string, tag = "1")]
    kind: String,
    #[prost(string, tag = "3")]
    name: String,
    #[prost(string, tag = "4")]
    uid: String,
    #[prost(string, tag = "5")]
    api_version: String,
    #[prost(bool, optional, tag = "6")]
    controller: Option<bool>,
    #[prost(bool, optional, tag = "7")]
    block_owner_deletion: Option<bool>,
}

#[derive(Clone, PartialEq, Message)]
struct ConfigMap {
    #[prost(message, optional, tag = "1")]
    metadata: Option<ObjectMeta>,
    #[prost(btree_map = "string, string", tag = "2")]
    data: BTreeMap<String, String>,
    #[prost(btree_map = "string, bytes", tag = "3")]
    binary_data: BTreeMap<String, Vec<u8>>,
    #[prost(bool, optional, tag = "4")]
    immutable: Option<bool>,
}

#[derive(Clone, PartialEq, Message)]
struct Secret {
    #[prost(message, optional, tag = "1")]
    metadata: Option<ObjectMeta>,
    #[prost(btree_map = "string, bytes", tag = "2")]
    data: BTreeMap<String, Vec<u8>>,
    #[prost(string, tag = "3")]
    type_: String,
    #[prost(btree_map = "string, string", tag = "4")]
    string_data: BTreeMap<String, String>,
    #[prost(bool, optional, tag = "5")]
    immutable: Option<bool>,
}

#[derive(Clone, PartialEq, Message)]
struct Namespace {
    #[prost(message, optional, tag = "1")]
    metadata: Option<ObjectMeta>,
}

#[derive(Clone, PartialEq, Message)]
struct ServiceAccount {
    #[prost(message, optional, tag = "1")]
    metadata: Option<ObjectMeta>,
    #[prost(message, repeated, tag = "2")]
    secrets: Vec<ObjectReference>,
    /// `LocalObjectReference`, which has a name alone.
    #[prost(message, repeated, tag = "3")]
    image_pull_secrets: Vec<Named>,
    #[prost(bool, optional, tag = "4")]
    automount_service_account_token: Option<bool>,
}

#[derive(Clone, PartialEq, Message)]
struct ObjectReference {
    #[prost(string, tag = "1")]
    kind: String,
    #[prost(string, tag = "2")]
    namespace: String,
    #[prost(string, tag = "3")]
    name: String,
    #[prost(string, tag = "4")]
    uid: String,
    #[prost(string, tag = "5")]
    api_version: String,
    #[prost(string, tag = "6")]
    resource_version: String,
    #[prost(string, tag = "7")]
    field_path: String,
}

#[derive(Clone, PartialEq, Message)]
struct Named {
    #[prost(string, tag = "1")]
    name: String,
}

/// Without its status, which only the server writes.
#[derive(Clone, PartialEq, Message)]
struct TokenRequest {
    #[prost(message, optional, tag = "1")]
    metadata: Option<ObjectMeta>,
    #[prost(message, optional, tag = "2")]
    spec: Option<TokenRequestSpec>,
}

#[derive(Clone, PartialEq, Message)]
struct TokenRequestSpec {
    #[prost(string, repeated, tag = "1")]
    audiences: Vec<String>,
    #[prost(message, optional, tag = "3")]
    bound_object_ref: Option<BoundObjectReference>,
    #[prost(int64, optional, tag = "4")]
    expiration_seconds: Option<i64>,
}

#[derive(Clone, PartialEq, Message)]
struct BoundObjectReference {
    #[prost(string, tag = "1")]
    kind: String,
    #[prost(string, tag = "2")]
    api_version: String,
    #[prost(string, tag = "3")]
    name: String,
    #[prost(string, tag = "4")]
    uid: String,
}

#[derive(Clone, PartialEq, Message)]
struct DeleteOptions {
    #[prost(message, optional, tag = "2")]
    preconditions: Option<Preconditions>,
    #[prost(string, optional, tag = "4")]
    propagation_policy: Option<String>,
    #[prost(string, repeated, tag = "5")]
    dry_run: Vec<String>,
}

#[derive(Clone, PartialEq, Message)]
struct Preconditions {
    #[prost(string, optional, tag = "1")]
    uid: Option<String>,
    #[prost(string, optional, tag = "2")]
    resource_version: Option<String>,
}

/// An object under construction; what is empty stays out, as in Kubernetes' JSON.
#[derive(Default)]
struct Fields(Map<String, Value>);

impl Fields {
    fn put(mut self, name: &str, value: Value) -> Self {
        let is_empty = match &value {
            Value::Null => true,
            Value::String(text) => text.is_empty(),
            Value::Array(list) => list.is_empty(),
            Value::Object(map) => map.is_empty(),
            _ => false,
        };
        if !is_empty {
            self.0.insert(name.to_owned(), value);
        }
        self
    }
}

impl ObjectMeta {
    fn json(self) -> Value {
        let created = self.creation_timestamp.and_then(|time| Timestamp::from_second(time.seconds).ok());
        let fields = Fields::default()
            .put("name", self.name.into())
            .put("generateName", self.generate_name.into())
            .put("namespace", self.namespace.into())
            .put("uid", self.uid.into())
            .put("resourceVersion", self.resource_version.into())
            .put("creationTimestamp", created.map(|time| time.to_string()).into())
            .put("labels", json!(self.labels))
            .put("annotations", json!(self.annotations))
            .put("ownerReferences", self.owner_references.into_iter().map(OwnerReference::json).collect())
            .put("finalizers", self.finalizers.into());
        Value::Object(fields.0)
    }
}

impl OwnerReference {
    fn json(self) -> Value {
        let fields = Fields::default()
            .put("kind", self.kind.into())
            .put("name", self.name.into())
            .put("uid", self.uid.into())
            .put("apiVersion", self.api_version.into())
            .put("controller", self.controller.into())
            .put("blockOwnerDeletion", self.block_owner_deletion.into());
        Value::Object(fields.0)
    }
}

fn begun(metadata: Option<ObjectMeta>) -> Fields {
    let mut fields = Fields::default();
    fields.0.insert("metadata".to_owned(), metadata.unwrap_or_default().json());
    fields
}

fn encoded(data: BTreeMap<String, Vec<u8>>) -> Value {
    data.into_iter()
        .map(|(key, value)| (key, Value::from(STANDARD.encode(value))))
        .collect::<Map<_, _>>()
        .into()
}

impl ConfigMap {
    fn json(self) -> Map<String, Value> {
        begun(self.metadata)
            .put("data", json!(self.data))
            .put("binaryData", encoded(self.binary_data))
            .put("immutable", self.immutable.into())
            .0
    }
}

impl Secret {
    fn json(self) -> Map<String, Value> {
        begun(self.metadata)
            .put("data", encoded(self.data))
            .put("type", self.type_.into())
            .put("stringData", json!(self.string_data))
            .put("immutable", self.immutable.into())
            .0
    }
}

impl Namespace {
    fn json(self) -> Map<String, Value> {
        begun(self.metadata).0
    }
}

impl ServiceAccount {
    fn json(self) -> Map<String, Value> {
        let secrets = self.secrets.into_iter().map(|secret| {
            let fields = Fields::default()
                .put("kind", secret.kind.into())
                .put("namespace", secret.namespace.into())
                .put("name", secret.name.into())
                .put("uid", secret.uid.into())
                .put("apiVersion", secret.api_version.into())
                .put("resourceVersion", secret.resource_version.into())
                .put("fieldPath", secret.field_path.into());
            Value::Object(fields.0)
        });
        let pulls = self.image_pull_secrets.into_iter();
        let pulls = pulls.map(|secret| Value::Object(Fields::default().put("name", secret.name.into()).0));
        begun(self.metadata)
            .put("secrets", secrets.collect())
            .put("imagePullSecrets", pulls.collect())
            .put("automountServiceAccountToken", self.automount_service_account_token.into())
            .0
    }
}

impl TokenRequest {
    fn json(self) -> Map<String, Value> {
        let spec = self.spec.unwrap_or_default();
        let bound = spec.bound_object_ref.map(|bound| {
            let fields = Fields::default()
                .put("kind", bound.kind.into())
                .put("apiVersion", bound.api_version.into())
                .put("name", bound.name.into())
                .put("uid", bound.uid.into());
            Value::Object(fields.0)
        });
        let spec = Fields::default()
            .put("audiences", spec.audiences.into())
            .put("boundObjectRef", bound.into())
            .put("expirationSeconds", spec.expiration_seconds.into());
        begun(self.metadata).put("spec", Value::Object(spec.0)).0
    }
}

impl DeleteOptions {
    fn json(self) -> Map<String, Value> {
        let preconditions = self.preconditions.map(|given| {
            let fields = Fields::default()
                .put("uid", given.uid.into())
                .put("resourceVersion", given.resource_version.into());
            Value::Object(fields.0)
        });
        Fields::default()
            .put("preconditions", preconditions.into())
            .put("propagationPolicy", self.propagation_policy.into())
            .put("dryRun", self.dry_run.into())
            .0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_kubectl_create_secret_sends_is_read() {
        let secret = Secret {
            metadata: Some(ObjectMeta { name: "s".to_owned(), ..ObjectMeta::default() }),
            data: BTreeMap::from([("a".to_owned(), b"b".to_vec())]),
            type_: "Opaque".to_owned(),
            ..Secret::default()
        };
        let type_meta = Some(TypeMeta { api_version: "v1".to_owned(), kind: "Secret".to_owned() });
        let unknown = Unknown { type_meta, raw: secret.encode_to_vec() };
        let bytes = [MAGIC, &unknown.encode_to_vec()].concat();

        assert_eq!(
            decode(&bytes).expect("reads"),
            Some(json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s"}, "type": "Opaque",
                "data": {"a": "Yg=="}}))
        );
    }

    #[test]
    fn what_kubectl_create_token_sends_is_read() {
        let reference = BoundObjectReference {
            kind: "Secret".to_owned(),
            name: "key".to_owned(),
            ..BoundObjectReference::default()
        };
        let spec = TokenRequestSpec {
            audiences: vec!["vault".to_owned()],
            bound_object_ref: Some(reference),
            expiration_seconds: Some(600),
        };
        let request = TokenRequest { metadata: None, spec: Some(spec) };
        let type_meta = Some(TypeMeta {
            api_version: "authentication.k8s.io/v1".to_owned(),
            kind: "TokenRequest".to_owned(),
        });
        let unknown = Unknown { type_meta, raw: request.encode_to_vec() };
        let bytes = [MAGIC, &unknown.encode_to_vec()].concat();

        let read = decode(&bytes).expect("reads").expect("it is known");
        assert_eq!(
            read["spec"],
            json!({"audiences": ["vault"], "expirationSeconds": 600, "boundObjectRef": {"kind": "Secret", "name": "key"}})
        );
    }

    #[test]
    fn broken_and_foreign_protobuf_is_refused() {
        assert_eq!(decode(b"{}").expect_err("no magic").code().as_u16(), 400);
        assert_eq!(decode(b"k8s\0\xff\xff\xff\xff").expect_err("no message").code().as_u16(), 400);
        assert_eq!(decode(b"k8s\0").expect("an empty envelope"), None);
    }
}
