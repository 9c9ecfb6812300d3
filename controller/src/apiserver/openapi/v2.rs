//! OpenAPI v2 as protobuf: kubectl 1.27 reads it before `apply` and `explain`, though what it looks for is in v3. Older ones look in it
//! for kinds whose PATCH has a `dryRun`, before `diff` and `--dry-run=server`.
//!
//! The messages are gnostic's `openapi.v2`, as far as our schemas have something to put in.

use std::sync::LazyLock;

use axum::response::{IntoResponse as _, Response};
use http::HeaderMap;
use http::header::{ACCEPT, CONTENT_TYPE};
use prost::Message;
use serde_json::{Map, Value, json};

use super::DOCUMENTS;
use crate::apiserver::discovery::answer;

/// What old clients ask for.
const ASKED: &str = "application/com.github.proto-openapi.spec.v2@v1.0+protobuf";
/// The same without the `@`, which no media type may have: clients parse what they are answered.
const PROTOBUF: &str = "application/com.github.proto-openapi.spec.v2.v1.0+protobuf";

const GVK: &str = "x-kubernetes-group-version-kind";

/// Every schema that is served; of the paths their PATCH alone: everything else is read from v3.
static DOCUMENT: LazyLock<Value> = LazyLock::new(|| {
    let schemas = DOCUMENTS
        .values()
        .filter_map(|document| document.content.pointer("/components/schemas")?.as_object());
    let definitions: Map<_, _> =
        schemas.flatten().map(|(name, schema)| (name.clone(), of_v2(schema.clone()))).collect();
    json!({
        "swagger": "2.0",
        "info": {"title": "Gantry", "version": env!("CARGO_PKG_VERSION")},
        "paths": patches(),
        "definitions": definitions,
    })
});

fn patches() -> Map<String, Value> {
    let paths =
        DOCUMENTS.values().filter_map(|document| document.content.get("paths")?.as_object()).flatten();
    let patches = paths.filter_map(|(path, operations)| {
        let patch = operations.get("patch")?;
        let parameters = patch["parameters"].as_array()?.iter().map(|parameter| {
            json!({"name": parameter["name"], "in": "query", "type": parameter.pointer("/schema/type")})
        });
        let patch = json!({
            "parameters": parameters.collect::<Vec<_>>(),
            "responses": {"default": {"description": "The object, or why not."}},
            GVK: patch[GVK],
        });
        Some((path.clone(), json!({"patch": patch})))
    });
    patches.collect()
}

static ENCODED: LazyLock<Vec<u8>> = LazyLock::new(|| document(&DOCUMENT).encode_to_vec());

/// `GET /openapi/v2`.
pub fn of_all(headers: &HeaderMap) -> Response {
    let accepted = headers.get(ACCEPT).and_then(|accepted| accepted.to_str().ok()).unwrap_or_default();
    if accepted.contains(ASKED) || accepted.contains(PROTOBUF) {
        ([(CONTENT_TYPE, PROTOBUF)], ENCODED.as_slice()).into_response()
    } else {
        answer(&DOCUMENT, headers, "application/json")
    }
}

/// References lead to `definitions`; what v2 has no word for is left out.
fn of_v2(schema: Value) -> Value {
    match schema {
        Value::Object(fields) => {
            let fields = fields.into_iter().filter(|(name, value)| name != "nullable" || !value.is_boolean());
            fields.map(|(name, value)| (name, of_v2(value))).collect::<Map<_, _>>().into()
        }
        Value::Array(items) => items.into_iter().map(of_v2).collect(),
        Value::String(text) => match text.strip_prefix("#/components/schemas/") {
            Some(name) => format!("#/definitions/{name}").into(),
            None => text.into(),
        },
        other => other,
    }
}

fn document(of: &Value) -> Document {
    Document {
        swagger: text(of, "swagger"),
        info: Some(Info { title: text(&of["info"], "title"), version: text(&of["info"], "version") }),
        paths: Some(Paths { each: of["paths"].as_object().into_iter().flatten().map(path).collect() }),
        definitions: Some(named(&of["definitions"])),
    }
}

fn path((name, operations): (&String, &Value)) -> NamedPath {
    let patch = &operations["patch"];
    let parameters = patch["parameters"].as_array().into_iter().flatten().map(|parameter| Parameter {
        query: Some(Described {
            named: Some(InQuery {
                place: text(parameter, "in"),
                name: text(parameter, "name"),
                type_: text(parameter, "type"),
            }),
        }),
    });
    let operation = Operation {
        parameters: parameters.map(|one| ParametersItem { parameter: Some(one) }).collect(),
        extensions: vec![NamedAny { name: GVK.to_owned(), value: Some(Any::of(&patch[GVK])) }],
    };
    NamedPath { name: name.clone(), value: Some(PathItem { patch: Some(operation) }) }
}

fn schema(of: &Value) -> Schema {
    let list = |name: &str| of[name].as_array().map(Vec::as_slice).unwrap_or_default();
    let extensions = of.as_object().into_iter().flatten().filter(|(name, _)| name.starts_with("x-"));
    Schema {
        reference: text(of, "$ref"),
        format: text(of, "format"),
        title: text(of, "title"),
        description: text(of, "description"),
        default: of.get("default").map(Any::of),
        maximum: of["maximum"].as_f64().unwrap_or_default(),
        minimum: of["minimum"].as_f64().unwrap_or_default(),
        max_length: of["maxLength"].as_i64().unwrap_or_default(),
        min_length: of["minLength"].as_i64().unwrap_or_default(),
        pattern: text(of, "pattern"),
        required: list("required").iter().filter_map(Value::as_str).map(str::to_owned).collect(),
        values: list("enum").iter().map(Any::of).collect(),
        additional_properties: of.get("additionalProperties").map(|more| AdditionalProperties {
            schema: more.is_object().then(|| Box::new(schema(more))),
            boolean: more.as_bool(),
        }),
        types: of["type"].as_str().map(|name| Types { value: vec![name.to_owned()] }),
        items: of.get("items").map(|items| Items { schema: vec![schema(items)] }),
        properties: of.get("properties").map(named),
        extensions: extensions
            .map(|(name, value)| NamedAny { name: name.clone(), value: Some(Any::of(value)) })
            .collect(),
    }
}

fn named(of: &Value) -> Schemas {
    let schemas = of.as_object().into_iter().flatten();
    Schemas {
        each: schemas
            .map(|(name, value)| NamedSchema { name: name.clone(), value: Some(schema(value)) })
            .collect(),
    }
}

fn text(of: &Value, field: &str) -> String {
    of[field].as_str().unwrap_or_default().to_owned()
}

#[derive(Clone, PartialEq, Message)]
struct Document {
    #[prost(string, tag = "1")]
    swagger: String,
    #[prost(message, optional, tag = "2")]
    info: Option<Info>,
    #[prost(message, optional, tag = "8")]
    paths: Option<Paths>,
    #[prost(message, optional, tag = "9")]
    definitions: Option<Schemas>,
}

#[derive(Clone, PartialEq, Message)]
struct Info {
    #[prost(string, tag = "1")]
    title: String,
    #[prost(string, tag = "2")]
    version: String,
}

#[derive(Clone, PartialEq, Message)]
struct Paths {
    #[prost(message, repeated, tag = "2")]
    each: Vec<NamedPath>,
}

/// `NamedPathItem`.
#[derive(Clone, PartialEq, Message)]
struct NamedPath {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(message, optional, tag = "2")]
    value: Option<PathItem>,
}

#[derive(Clone, PartialEq, Message)]
struct PathItem {
    #[prost(message, optional, tag = "8")]
    patch: Option<Operation>,
}

#[derive(Clone, PartialEq, Message)]
struct Operation {
    #[prost(message, repeated, tag = "8")]
    parameters: Vec<ParametersItem>,
    #[prost(message, repeated, tag = "13")]
    extensions: Vec<NamedAny>,
}

/// A oneof, as the two below.
#[derive(Clone, PartialEq, Message)]
struct ParametersItem {
    #[prost(message, optional, tag = "1")]
    parameter: Option<Parameter>,
}

#[derive(Clone, PartialEq, Message)]
struct Parameter {
    #[prost(message, optional, tag = "2")]
    query: Option<Described>,
}

/// `NonBodyParameter`.
#[derive(Clone, PartialEq, Message)]
struct Described {
    #[prost(message, optional, tag = "3")]
    named: Option<InQuery>,
}

/// `QueryParameterSubSchema`.
#[derive(Clone, PartialEq, Message)]
struct InQuery {
    #[prost(string, tag = "2")]
    place: String,
    #[prost(string, tag = "4")]
    name: String,
    #[prost(string, tag = "6")]
    type_: String,
}

/// `Definitions` and `Properties`.
#[derive(Clone, PartialEq, Message)]
struct Schemas {
    #[prost(message, repeated, tag = "1")]
    each: Vec<NamedSchema>,
}

#[derive(Clone, PartialEq, Message)]
struct NamedSchema {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(message, optional, tag = "2")]
    value: Option<Schema>,
}

#[derive(Clone, PartialEq, Message)]
struct Schema {
    #[prost(string, tag = "1")]
    reference: String,
    #[prost(string, tag = "2")]
    format: String,
    #[prost(string, tag = "3")]
    title: String,
    #[prost(string, tag = "4")]
    description: String,
    #[prost(message, optional, tag = "5")]
    default: Option<Any>,
    #[prost(double, tag = "7")]
    maximum: f64,
    #[prost(double, tag = "9")]
    minimum: f64,
    #[prost(int64, tag = "11")]
    max_length: i64,
    #[prost(int64, tag = "12")]
    min_length: i64,
    #[prost(string, tag = "13")]
    pattern: String,
    #[prost(string, repeated, tag = "19")]
    required: Vec<String>,
    #[prost(message, repeated, tag = "20")]
    values: Vec<Any>,
    #[prost(message, optional, tag = "21")]
    additional_properties: Option<AdditionalProperties>,
    #[prost(message, optional, tag = "22")]
    types: Option<Types>,
    #[prost(message, optional, tag = "23")]
    items: Option<Items>,
    #[prost(message, optional, tag = "25")]
    properties: Option<Schemas>,
    #[prost(message, repeated, tag = "31")]
    extensions: Vec<NamedAny>,
}

/// `AdditionalPropertiesItem`, a oneof.
#[derive(Clone, PartialEq, Message)]
struct AdditionalProperties {
    #[prost(message, optional, boxed, tag = "1")]
    schema: Option<Box<Schema>>,
    #[prost(bool, optional, tag = "2")]
    boolean: Option<bool>,
}

/// `TypeItem`.
#[derive(Clone, PartialEq, Message)]
struct Types {
    #[prost(string, repeated, tag = "1")]
    value: Vec<String>,
}

/// `ItemsItem`.
#[derive(Clone, PartialEq, Message)]
struct Items {
    #[prost(message, repeated, tag = "1")]
    schema: Vec<Schema>,
}

#[derive(Clone, PartialEq, Message)]
struct NamedAny {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(message, optional, tag = "2")]
    value: Option<Any>,
}

/// A value written as YAML, which JSON is.
#[derive(Clone, PartialEq, Message)]
struct Any {
    #[prost(string, tag = "2")]
    yaml: String,
}

impl Any {
    fn of(value: &Value) -> Self {
        Self { yaml: value.to_string() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reference_leads_to_a_definition() {
        let text = DOCUMENT.to_string();
        assert!(!text.contains("#/components/"));
        for reference in text.split("\"#/definitions/").skip(1).filter_map(|rest| rest.split('"').next()) {
            assert!(DOCUMENT["definitions"][reference].is_object(), "{reference}");
        }
    }

    #[test]
    fn the_encoded_document_names_the_parameters_of_each_kinds_patch() {
        let decoded = Document::decode(ENCODED.as_slice()).expect("it decodes");
        let paths = decoded.paths.expect("paths").each;
        let patch = paths.iter().find(|path| path.name.ends_with("/operations/{name}"));
        let patch = patch.and_then(|path| path.value.clone()?.patch).expect("Operations are patched");

        let names = patch.parameters.into_iter().filter_map(|item| item.parameter?.query?.named);
        assert!(names.into_iter().any(|parameter| parameter.name == "dryRun" && parameter.place == "query"));
        let kind: Value = serde_json::from_str(&patch.extensions[0].value.clone().expect("a value").yaml)
            .expect("JSON is YAML");
        assert_eq!(kind, json!({"group": "gantry.dev", "version": "v1alpha1", "kind": "Operation"}));
    }

    #[test]
    fn the_encoded_document_keeps_fields_and_their_documentation() {
        let decoded = Document::decode(ENCODED.as_slice()).expect("it decodes");
        let of = |schemas: &Schemas, name: &str| {
            schemas.each.iter().find(|each| each.name == name).and_then(|each| each.value.clone())
        };
        let operation = decoded.definitions.and_then(|all| of(&all, "dev.gantry.v1alpha1.Operation"));
        let operation = operation.expect("Operation is defined");
        assert_eq!(operation.extensions[0].name, "x-kubernetes-group-version-kind");
        let spec = operation.properties.and_then(|all| of(&all, "spec")).expect("it has a spec");
        let field =
            spec.properties.and_then(|all| of(&all, "startDeadlineSeconds")).expect("it has the field");
        assert!(field.description.contains("Friday"), "{}", field.description);
    }
}
