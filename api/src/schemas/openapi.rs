//! The OpenAPI v3 document of one group and version, as kubectl reads it: `explain` looks into the schemas, `apply` into the
//! parameters of PATCH.

use serde_json::{Map, Value, json};

/// One served kind.
#[derive(Clone, Debug)]
pub struct Served {
    /// Empty for core kinds.
    pub group: String,
    /// `v1alpha1`.
    pub version: String,
    /// `Operation`.
    pub kind: String,
    /// `operations`.
    pub plural: String,
    /// False for objects of the cluster.
    pub namespaced: bool,
    /// True if `/status` is served.
    pub has_status: bool,
    /// What is posted is answered, and that is all there is to it.
    pub is_question: bool,
    /// Kept by the controller alone: there is a list of it and nothing else.
    pub is_record: bool,
    /// Told by agents: it is read, and nothing else.
    pub is_live: bool,
    /// Subresources that are only posted to, each with the kind of what is posted and answered.
    pub posted: Vec<(String, Served)>,
    /// OpenAPI v3 schema of one object.
    pub schema: Value,
}

/// The document of kinds that share group and version.
pub fn document(title: &str, version: &str, kinds: &[Served]) -> Value {
    let mut paths = Map::new();
    let mut schemas = Map::new();
    for kind in kinds {
        add_schemas(kind, &mut schemas);
        add_paths(kind, &mut paths);
    }
    schemas.insert(
        "io.k8s.apimachinery.pkg.apis.meta.v1.Status".to_owned(),
        json!({
            "type": "object",
            "description": "How a request ended that has no object to answer with.",
            "properties": {
                "apiVersion": {"type": "string"}, "kind": {"type": "string"}, "status": {"type": "string"},
                "message": {"type": "string"}, "reason": {"type": "string"}, "code": {"type": "integer"},
                "details": {"type": "object"}, "metadata": {"type": "object"},
            },
            "x-kubernetes-group-version-kind": [{"group": "", "kind": "Status", "version": "v1"}],
        }),
    );
    schemas.insert(
        "io.k8s.apimachinery.pkg.apis.meta.v1.DeleteOptions".to_owned(),
        json!({
            "type": "object",
            "description": "How a deletion is meant; each option may stand in the query instead.",
            "properties": {
                "apiVersion": {"type": "string"}, "kind": {"type": "string"},
                "dryRun": {"type": "array", "items": {"type": "string"}},
                "gracePeriodSeconds": {"type": "integer", "format": "int64"},
                "orphanDependents": {"type": "boolean"}, "propagationPolicy": {"type": "string"},
                "preconditions": {"type": "object", "properties": {
                    "uid": {"type": "string"}, "resourceVersion": {"type": "string"}}},
            },
            "x-kubernetes-group-version-kind": [{"group": "", "kind": "DeleteOptions", "version": "v1"}],
        }),
    );
    json!({
        "openapi": "3.0.0",
        "info": {"title": title, "version": version},
        "paths": paths,
        "components": {"schemas": schemas},
    })
}

fn gvk(kind: &Served, name: &str) -> Value {
    json!({"group": kind.group, "version": kind.version, "kind": name})
}

/// `dev.gantry.v1alpha1.Operation`; core kinds as Kubernetes names them.
fn schema_name(kind: &Served, name: &str) -> String {
    let group = match kind.group.as_str() {
        "" => "io.k8s.api.core".to_owned(),
        group if group.ends_with(".k8s.io") => {
            format!("io.k8s.api.{}", group.split('.').next().unwrap_or_default())
        }
        group => group.rsplit('.').collect::<Vec<_>>().join("."),
    };
    format!("{group}.{}.{name}", kind.version)
}

fn reference(kind: &Served, name: &str) -> Value {
    json!({"$ref": format!("#/components/schemas/{}", schema_name(kind, name))})
}

fn add_schema(kind: &Served, schemas: &mut Map<String, Value>) {
    let mut schema = kind.schema.clone();
    if let Some(root) = schema.as_object_mut() {
        root.insert("x-kubernetes-group-version-kind".to_owned(), json!([gvk(kind, &kind.kind)]));
    }
    schemas.insert(schema_name(kind, &kind.kind), schema);
}

fn add_schemas(kind: &Served, schemas: &mut Map<String, Value>) {
    add_schema(kind, schemas);
    for (_, posted) in &kind.posted {
        add_schema(posted, schemas);
    }
    if kind.is_question {
        return;
    }
    let list = format!("{}List", kind.kind);
    let described = json!({
        "type": "object",
        "description": format!("A list of {}.", kind.kind),
        "required": ["items"],
        "properties": {
            "apiVersion": {"type": "string", "description": "Group and version of this kind."},
            "kind": {"type": "string", "description": "Name of this kind."},
            "metadata": {"type": "object", "description": "Version of the list, and how to go on reading it.", "properties": {
                "resourceVersion": {"type": "string", "description": "Version of the list."},
                "continue": {"type": "string", "description": "Where the next page begins."},
                "remainingItemCount": {"type": "integer", "format": "int64", "description": "Objects after this page."},
            }},
            "items": {"type": "array", "description": "The objects.", "items": reference(kind, &kind.kind)},
        },
        "x-kubernetes-group-version-kind": [gvk(kind, &list)],
    });
    schemas.insert(schema_name(kind, &list), described);
}

fn add_paths(kind: &Served, paths: &mut Map<String, Value>) {
    let root = if kind.group.is_empty() {
        format!("/api/{}", kind.version)
    } else {
        format!("/apis/{}/{}", kind.group, kind.version)
    };
    let everywhere = format!("{root}/{}", kind.plural);
    if kind.is_question {
        add_question(kind, &root, paths);
        return;
    }
    let list = format!("{}List", kind.kind);
    let parameters = if kind.is_record { RECORD_PARAMETERS } else { LIST_PARAMETERS };
    let mut read_list = operation(kind, "list", &list, parameters, None);
    let collection = if kind.namespaced {
        paths.insert(everywhere, json!({"get": read_list}));
        format!("{root}/namespaces/{{namespace}}/{}", kind.plural)
    } else {
        everywhere
    };
    rename(&mut read_list, "Namespaced");
    if kind.is_record {
        let in_path =
            |name: &str| json!({"name": name, "in": "path", "required": true, "schema": {"type": "string"}});
        if kind.plural == "terminalsessions" {
            let get = operation(kind, "get", &kind.kind, &[], None);
            paths.insert(
                format!("{collection}/{{name}}"),
                json!({"get": get, "parameters": [in_path("namespace"), in_path("name")]}),
            );
        }
        paths.insert(collection, json!({"get": read_list, "parameters": [in_path("namespace")]}));
        return;
    }
    let in_path = |names: &[&str]| -> Value {
        let names = names.iter().filter(|name| kind.namespaced || **name != "namespace");
        names
            .map(|name| json!({"name": name, "in": "path", "required": true, "schema": {"type": "string"}}))
            .collect()
    };
    if kind.is_live {
        let get = operation(kind, "get", &kind.kind, &[], None);
        paths.insert(
            format!("{collection}/{{name}}"),
            json!({"get": get, "parameters": in_path(&["namespace", "name"])}),
        );
        paths.insert(collection, json!({"get": read_list, "parameters": in_path(&["namespace"])}));
        return;
    }
    let mut of_collection = json!({
        "get": read_list,
        "post": operation(kind, "post", &kind.kind, WRITE_PARAMETERS, Some(JSON)),
        "delete": operation(kind, "deletecollection", &list, LIST_PARAMETERS, None),
    });
    // Kubernetes' clients know the list types of its own kinds alone.
    let patches = if kind.group == crate::names::GROUP { PATCHES } else { PATCHES_OF_KUBERNETES };
    let mut of_object = json!({
        "get": operation(kind, "get", &kind.kind, &[], None),
        "put": operation(kind, "put", &kind.kind, WRITE_PARAMETERS, Some(JSON)),
        "patch": operation(kind, "patch", &kind.kind, PATCH_PARAMETERS, Some(patches)),
        "delete": operation(kind, "delete", &kind.kind, &["dryRun", "propagationPolicy", "gracePeriodSeconds"], None),
    });
    put(&mut of_collection, "parameters", in_path(&["namespace"]));
    put(&mut of_object, "parameters", in_path(&["namespace", "name"]));
    paths.insert(format!("{collection}/{{name}}"), of_object);
    if kind.has_status {
        let mut of_status = json!({
            "get": operation(kind, "get", &kind.kind, &[], None),
            "put": operation(kind, "put", &kind.kind, WRITE_PARAMETERS, Some(JSON)),
            "patch": operation(kind, "patch", &kind.kind, PATCH_PARAMETERS, Some(patches)),
        });
        for method in ["get", "put", "patch"] {
            if let Some(operation) = of_status.get_mut(method) {
                rename(operation, "Status");
            }
        }
        put(&mut of_status, "parameters", in_path(&["namespace", "name"]));
        paths.insert(format!("{collection}/{{name}}/status"), of_status);
    }
    for (name, posted) in &kind.posted {
        let mut of_posted =
            json!({"post": operation(posted, "post", &posted.kind, WRITE_PARAMETERS, Some(JSON))});
        put(&mut of_posted, "parameters", in_path(&["namespace", "name"]));
        paths.insert(format!("{collection}/{{name}}/{name}"), of_posted);
    }
    paths.insert(collection, of_collection);
}

fn add_question(kind: &Served, root: &str, paths: &mut Map<String, Value>) {
    let mut asked = json!({"post": operation(kind, "post", &kind.kind, WRITE_PARAMETERS, Some(JSON))});
    let path = if kind.namespaced {
        let namespace =
            json!({"name": "namespace", "in": "path", "required": true, "schema": {"type": "string"}});
        put(&mut asked, "parameters", json!([namespace]));
        format!("{root}/namespaces/{{namespace}}/{}", kind.plural)
    } else {
        format!("{root}/{}", kind.plural)
    };
    paths.insert(path, asked);
}

const JSON: &[&str] = &["application/json", "application/yaml"];
const PATCHES: &[&str] =
    &["application/json-patch+json", "application/merge-patch+json", "application/apply-patch+yaml"];
const PATCHES_OF_KUBERNETES: &[&str] = &[
    "application/json-patch+json",
    "application/merge-patch+json",
    "application/apply-patch+yaml",
    "application/strategic-merge-patch+json",
];
const LIST_PARAMETERS: &[&str] = &[
    "labelSelector",
    "fieldSelector",
    "limit",
    "continue",
    "resourceVersion",
    "resourceVersionMatch",
    "timeoutSeconds",
    "watch",
    "allowWatchBookmarks",
    "sendInitialEvents",
];
const RECORD_PARAMETERS: &[&str] = &["fieldSelector", "limit", "continue", "since", "until"];
const WRITE_PARAMETERS: &[&str] = &["dryRun", "fieldManager", "fieldValidation"];
const PATCH_PARAMETERS: &[&str] = &["dryRun", "fieldManager", "fieldValidation", "force"];

fn operation(
    kind: &Served,
    action: &str,
    answers: &str,
    parameters: &[&str],
    body: Option<&[&str]>,
) -> Value {
    let content = |media: &[&str], schema: Value| -> Value {
        media
            .iter()
            .map(|media| ((*media).to_owned(), json!({"schema": schema})))
            .collect::<Map<_, _>>()
            .into()
    };
    let of_meta = |name: &str| json!({"$ref": format!("#/components/schemas/io.k8s.apimachinery.pkg.apis.meta.v1.{name}")});
    let answer = |description: &str, schema: Value| json!({"description": description, "content": content(&["application/json"], schema)});
    let object = reference(kind, answers);
    let mut responses = json!({"default": answer("Refused", of_meta("Status"))});
    match action {
        "post" => put(&mut responses, "201", answer("Created", object)),
        // One that has finalizers is still there.
        "delete" => put(&mut responses, "200", answer("OK", json!({"anyOf": [object, of_meta("Status")]}))),
        _ => put(&mut responses, "200", answer("OK", object)),
    }
    // Applying makes what is not there.
    if action == "patch" {
        put(&mut responses, "201", answer("Created", reference(kind, answers)));
    }
    let mut operation = json!({
        "operationId": format!("{action}{}{}", kind.version, kind.kind),
        "parameters": parameters.iter().map(|name| parameter(name)).collect::<Vec<_>>(),
        "responses": responses,
        "x-kubernetes-action": action,
        "x-kubernetes-group-version-kind": gvk(kind, &kind.kind),
    });
    if let Some(media) = body {
        let schema = if action == "patch" { json!({}) } else { reference(kind, &kind.kind) };
        put(&mut operation, "requestBody", json!({"required": true, "content": content(media, schema)}));
    }
    if action.starts_with("delete") {
        put(&mut operation, "requestBody", json!({"content": content(JSON, of_meta("DeleteOptions"))}));
    }
    operation
}

fn parameter(name: &str) -> Value {
    let kind = match name {
        "limit" | "timeoutSeconds" | "gracePeriodSeconds" => "integer",
        "watch" | "allowWatchBookmarks" | "sendInitialEvents" | "force" => "boolean",
        _ => "string",
    };
    json!({"name": name, "in": "query", "schema": {"type": kind, "uniqueItems": true}})
}

/// Makes an operation's id another one than that of the same action elsewhere.
fn rename(operation: &mut Value, suffix: &str) {
    if let Some(id) = operation.get("operationId").and_then(Value::as_str) {
        let id = format!("{id}{suffix}");
        put(operation, "operationId", Value::String(id));
    }
}

fn put(object: &mut Value, name: &str, value: Value) {
    if let Some(object) = object.as_object_mut() {
        object.insert(name.to_owned(), value);
    }
}
