//! Objects as bare metadata.

use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Value, json};

/// `PartialObjectMetadata` of a parsed object.
pub(super) fn partial(object: &Value) -> Value {
    json!({
        "kind": "PartialObjectMetadata",
        "apiVersion": "meta.k8s.io/v1",
        "metadata": object.get("metadata").cloned().unwrap_or_default(),
    })
}

/// `PartialObjectMetadata` of a stored object, without building a tree of it.
pub(super) fn partial_text(json: &[u8]) -> Result<String, serde_json::Error> {
    #[derive(Deserialize)]
    struct Head<'a> {
        #[serde(borrow)]
        metadata: &'a RawValue,
    }
    let head: Head<'_> = serde_json::from_slice(json)?;
    Ok(format!(
        "{{\"kind\":\"PartialObjectMetadata\",\"apiVersion\":\"meta.k8s.io/v1\",\"metadata\":{}}}",
        head.metadata
    ))
}
