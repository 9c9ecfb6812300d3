//! The kinds as documents: CRD manifests, JSON Schemas for editors, OpenAPI. `schemas/` at the top of the repository is made
//! from here, and so is what the API server says of itself.

mod editor;
mod openapi;

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::CustomResourceExt;
use schemars::JsonSchema;
use schemars::generate::SchemaSettings;
use serde_json::{Value, json};

pub use editor::json_schema;
pub use openapi::{Served, document};

use crate::v1alpha1::{ClusterPolicy, DockerInstance, Operation, Policy, Registry};

/// Every kind of ours, as a CRD.
pub fn custom_resource_definitions() -> Vec<CustomResourceDefinition> {
    vec![DockerInstance::crd(), Operation::crd(), Registry::crd(), Policy::crd(), ClusterPolicy::crd()]
}

/// The OpenAPI v3 schema of a CRD's first version, with `apiVersion`, `kind` and `metadata`, of which a CRD says nothing.
pub fn structural(definition: &CustomResourceDefinition) -> Option<Value> {
    let version = definition.spec.versions.first()?;
    let mut schema = serde_json::to_value(version.schema.as_ref()?.open_api_v3_schema.as_ref()?).ok()?;
    let properties = schema.get_mut("properties")?.as_object_mut()?;
    let text = |description: &str| json!({"type": "string", "description": description});
    properties.insert("apiVersion".to_owned(), text("Group and version of this kind."));
    properties.insert("kind".to_owned(), text("Name of this kind."));
    properties.insert("metadata".to_owned(), schema_of::<ObjectMeta>());
    add_list_types(&mut schema);
    Some(schema)
}

/// The OpenAPI v3 schema of a kind of Kubernetes, with what its own documents say of lists and the Rust types do not.
pub fn core<T: JsonSchema>() -> Value {
    let mut schema = schema_of::<T>();
    add_list_types(&mut schema);
    schema
}

/// Says which lists have items of their own identity and which objects are one value, for the kinds that are served here.
fn add_list_types(schema: &mut Value) {
    let by = |key: &str| json!({"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": [key]});
    let atomic = json!({"x-kubernetes-map-type": "atomic"});
    for (path, said) in [
        ("/properties/metadata/properties/finalizers", json!({"x-kubernetes-list-type": "set"})),
        ("/properties/metadata/properties/managedFields", json!({"x-kubernetes-list-type": "atomic"})),
        ("/properties/metadata/properties/ownerReferences", by("uid")),
        ("/properties/metadata/properties/ownerReferences/items", atomic.clone()),
        // Of a Namespace; those of our own kinds say it themselves.
        ("/properties/status/properties/conditions", by("type")),
        // Of a ServiceAccount.
        ("/properties/secrets", by("name")),
        ("/properties/secrets/items", atomic.clone()),
        ("/properties/imagePullSecrets", json!({"x-kubernetes-list-type": "atomic"})),
        // Of an Event.
        ("/properties/involvedObject", atomic.clone()),
        ("/properties/related", atomic),
    ] {
        if let (Some(Value::Object(fields)), Value::Object(said)) = (schema.pointer_mut(path), said) {
            fields.extend(said);
        }
    }
}

/// The OpenAPI v3 schema of a Rust type, everything inline, as structural schemas are.
pub fn schema_of<T: JsonSchema>() -> Value {
    let settings = SchemaSettings::openapi3().with(|settings| {
        settings.inline_subschemas = true;
        settings.meta_schema = None;
    });
    let mut schema = settings.into_generator().into_root_schema_for::<T>().to_value();
    if let Some(root) = schema.as_object_mut() {
        root.remove("title");
    }
    schema
}

/// Our kinds as the OpenAPI document wants them.
pub fn served() -> Vec<Served> {
    custom_resource_definitions()
        .iter()
        .filter_map(|definition| {
            let version = definition.spec.versions.first()?;
            Some(Served {
                group: definition.spec.group.clone(),
                version: version.name.clone(),
                kind: definition.spec.names.kind.clone(),
                plural: definition.spec.names.plural.clone(),
                namespaced: definition.spec.scope == "Namespaced",
                posted: Vec::new(),
                has_status: version.subresources.as_ref().is_some_and(|all| all.status.is_some()),
                is_question: false,
                is_record: false,
                is_live: false,
                schema: structural(definition)?,
            })
        })
        .collect()
}
