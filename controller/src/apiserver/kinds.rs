//! The table of served kinds: their names, verbs, printer columns and selectable fields.

use std::borrow::Cow;
use std::sync::LazyLock;

use gantry_api::v1alpha1::{ClusterPolicy, DockerInstance, Operation, Policy, Registry};
use k8s_openapi::api::authentication::v1::TokenRequest;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{ConfigMap, Event, Namespace, Secret, ServiceAccount};
use k8s_openapi::api::events::v1::Event as NewEvent;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::CustomResourceExt;
use schemars::JsonSchema;
use serde::de::DeserializeOwned;
use serde_json::Value;

mod access;
pub(super) mod audit;
mod docker;
mod kubernetes;

pub use access::RBAC;
pub use kubernetes::serve_kubernetes_view;

use super::schema::Schema;
use super::view::{EVENTS, View};
use crate::storage::{FieldPaths, Resource};

/// One kind, as discovery and the verbs need it.
#[derive(Clone, Debug)]
pub struct Kind {
    /// Empty for core kinds.
    pub group: String,
    /// `v1alpha1`.
    pub version: String,
    /// `Operation`.
    pub kind: String,
    /// `operations`, the path segment.
    pub plural: String,
    /// `operation`.
    pub singular: String,
    /// `op`.
    pub short_names: Vec<String>,
    /// `gantry`.
    pub categories: Vec<String>,
    /// False for objects of the cluster.
    pub namespaced: bool,
    /// True where `/status` is served and writes of the object leave `status` alone.
    pub has_status: bool,
    /// True where a PUT without `resourceVersion` is taken.
    pub allows_unconditional_update: bool,
    /// Printer columns after the name.
    pub columns: Vec<Column>,
    /// Selectable fields beside name and namespace, `status.phase`.
    pub fields: Vec<String>,
    /// What an object of this kind may look like.
    pub schema: Schema,
    /// Reads an object as typed clients do; fails with the path of the field and what is wrong with it.
    pub reads: fn(&Value) -> Result<(), (String, String)>,
    /// Where its objects are kept in the form of another kind, whose columns it has too.
    pub view: Option<&'static View>,
    /// What is posted is answered at once, and kept nowhere.
    pub is_question: bool,
    /// Nobody writes it: there is a list of it and hardly anything else, and the store does not have it.
    pub is_record: bool,
    /// Nobody writes it: agents tell of it, and it is in memory only.
    pub is_live: bool,
    /// Nobody writes it: agents are asked when somebody looks, and it is kept nowhere.
    pub is_measured: bool,
}

/// One printer column.
#[derive(Clone, Debug)]
pub struct Column {
    /// Header.
    pub name: String,
    /// `string`, `integer`, `number`, `boolean` or `date`; a date is shown as its age.
    pub type_: String,
    /// As in OpenAPI; empty mostly.
    pub format: String,
    /// What it shows.
    pub description: String,
    /// Above 0: only with `-o wide`.
    pub priority: i32,
    /// JSONPath of the value, several with `||` between of which the first found counts, or a text with several in braces.
    pub json_path: String,
    /// What of that is in the cell.
    pub shows: Shows,
}

/// What a cell shows of what its column's path leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shows {
    /// The value, the first of several.
    First,
    /// All values, with commas between.
    All,
    /// How many entries the value has.
    Count,
    /// Of how many entries how many are `ready`: `1/1`.
    Ready,
    /// What the status of a Node's condition says: `Ready`, `NotReady`, `Unknown`.
    Condition,
}

impl Kind {
    /// As storage and messages name it: `operations.gantry.dev`, `secrets`.
    pub fn resource(&self) -> Resource {
        Resource(if let Some(view) = self.view {
            view.resource.into()
        } else if self.group.is_empty() {
            self.plural.as_str().into()
        } else {
            format!("{}.{}", self.plural, self.group).into()
        })
    }

    /// A stored text in this kind's form.
    pub(super) fn shown<'a>(&self, json: &'a [u8]) -> Result<Cow<'a, [u8]>, serde_json::Error> {
        match self.view {
            None => Ok(Cow::Borrowed(json)),
            Some(view) => view.shown(&self.api_version(), json).map(Cow::Owned),
        }
    }

    /// `gantry.dev/v1alpha1`, `v1`.
    pub fn api_version(&self) -> String {
        if self.group.is_empty() { self.version.clone() } else { format!("{}/{}", self.group, self.version) }
    }

    /// What storage calls a field that selectors may name.
    pub(super) fn field<'a>(&self, field: &'a str) -> Option<Cow<'a, str>> {
        let is_known = self.fields.iter().any(|known| known == field);
        is_known.then(|| self.view.map_or(Cow::Borrowed(field), |view| view.kept_field(field)))
    }
}

/// Every served kind.
pub fn all() -> &'static [Kind] {
    static KINDS: LazyLock<Vec<Kind>> = LazyLock::new(|| {
        let mut kinds = core();
        kinds.extend(access::kinds());
        kinds.extend(custom::<DockerInstance>());
        kinds.extend(custom::<Operation>());
        kinds.extend(custom::<Registry>());
        kinds.extend(custom::<Policy>());
        kinds.extend(custom::<ClusterPolicy>());
        kinds.extend(audit::kinds());
        kinds.extend(docker::kinds());
        kinds.extend(kubernetes::kinds());
        kinds
    });
    &KINDS
}

/// Docker hosts.
pub(crate) fn instances() -> Option<&'static Kind> {
    all().iter().find(|kind| kind.plural == "dockerinstances")
}

/// The kind of that plural among those that agents tell of.
pub(crate) fn live(plural: &str) -> Option<&'static Kind> {
    all().iter().find(|kind| kind.is_live && kind.plural == plural)
}

/// What is posted to `serviceaccounts/{name}/token`; stored nowhere, and no route of its own.
pub(super) fn token_request() -> &'static Kind {
    static KIND: LazyLock<Kind> = LazyLock::new(|| {
        named::<TokenRequest>("authentication.k8s.io", "TokenRequest", "tokenrequests", &[], Vec::new(), &[])
    });
    &KIND
}

/// Those whose objects the store has in their own form.
pub fn stored() -> impl Iterator<Item = &'static Kind> {
    all()
        .iter()
        .filter(|kind| kind.view.is_none() && !kind.is_question && !kind.is_record)
        .filter(|kind| !kind.is_live && !kind.is_measured)
}

/// Selectable fields of every kind, for the store.
pub fn field_paths() -> FieldPaths {
    stored().fold(FieldPaths::default(), |paths, kind| {
        paths.with(kind.resource(), kind.fields.iter().map(String::as_str))
    })
}

fn custom<T: CustomResourceExt + DeserializeOwned>() -> Option<Kind> {
    let definition: &CustomResourceDefinition = &T::crd();
    let names = &definition.spec.names;
    let version = definition.spec.versions.first()?;
    let columns = version.additional_printer_columns.iter().flatten().map(|column| Column {
        name: column.name.clone(),
        type_: column.type_.clone(),
        format: column.format.clone().unwrap_or_default(),
        description: column.description.clone().unwrap_or_default(),
        priority: column.priority.unwrap_or_default(),
        json_path: column.json_path.clone(),
        shows: if column.json_path.contains("[*]") { Shows::All } else { Shows::First },
    });
    let fields = version.selectable_fields.iter().flatten();
    Some(Kind {
        group: definition.spec.group.clone(),
        version: version.name.clone(),
        kind: names.kind.clone(),
        plural: names.plural.clone(),
        singular: names.singular.clone().unwrap_or_else(|| names.kind.to_lowercase()),
        short_names: names.short_names.clone().unwrap_or_default(),
        categories: names.categories.clone().unwrap_or_default(),
        namespaced: definition.spec.scope == "Namespaced",
        has_status: version.subresources.as_ref().is_some_and(|subresources| subresources.status.is_some()),
        allows_unconditional_update: false,
        columns: columns.collect(),
        fields: fields.map(|field| field.json_path.trim_start_matches('.').to_owned()).collect(),
        schema: Schema::of(gantry_api::schemas::structural(definition)?),
        reads: read_as::<T>,
        view: None,
        is_question: false,
        is_record: false,
        is_live: false,
        is_measured: false,
    })
}

fn read_as<T: DeserializeOwned>(object: &Value) -> Result<(), (String, String)> {
    if T::deserialize(object).is_ok() {
        return Ok(());
    }
    // Keeping the path costs several times the reading, so it is asked for only once something is wrong.
    match serde_path_to_error::deserialize::<_, T>(object) {
        Ok(_) => Ok(()),
        Err(error) => Err((error.path().to_string(), error.into_inner().to_string())),
    }
}

fn core() -> Vec<Kind> {
    let age = || column("Age", "date", ".metadata.creationTimestamp", "Time since creation.");
    let counted = |name: &str, path: &str| Column {
        shows: Shows::Count,
        ..column(name, "integer", path, "Number of entries.")
    };
    vec![
        Kind {
            namespaced: false,
            has_status: true,
            ..named::<Namespace>(
                "",
                "Namespace",
                "namespaces",
                &["ns"],
                vec![column("Status", "string", ".status.phase", "Active or Terminating."), age()],
                &["status.phase"],
            )
        },
        named::<Secret>(
            "",
            "Secret",
            "secrets",
            &[],
            vec![column("Type", "string", ".type", "What it is for."), counted("Data", ".data"), age()],
            &["type"],
        ),
        named::<ConfigMap>(
            "",
            "ConfigMap",
            "configmaps",
            &["cm"],
            vec![counted("Data", ".data"), age()],
            &[],
        ),
        named::<ServiceAccount>(
            "",
            "ServiceAccount",
            "serviceaccounts",
            &["sa"],
            vec![counted("Secrets", ".secrets"), age()],
            &[],
        ),
        named::<Event>(
            "",
            "Event",
            "events",
            &["ev"],
            event_columns(),
            &[
                "involvedObject.kind",
                "involvedObject.namespace",
                "involvedObject.name",
                "involvedObject.uid",
                "involvedObject.apiVersion",
                "involvedObject.resourceVersion",
                "involvedObject.fieldPath",
                "reason",
                "reportingComponent",
                "source",
                "type",
            ],
        ),
        Kind {
            view: Some(&EVENTS),
            ..named::<NewEvent>(
                "events.k8s.io",
                "Event",
                "events",
                &["ev"],
                event_columns(),
                &[
                    "regarding.kind",
                    "regarding.namespace",
                    "regarding.name",
                    "regarding.uid",
                    "regarding.apiVersion",
                    "regarding.resourceVersion",
                    "regarding.fieldPath",
                    "reason",
                    "reportingController",
                    "type",
                ],
            )
        },
        Kind {
            allows_unconditional_update: false,
            schema: Schema::of(lease_schema()),
            ..named::<Lease>(
                "coordination.k8s.io",
                "Lease",
                "leases",
                &[],
                vec![column("Holder", "string", ".spec.holderIdentity", "Who holds it."), age()],
                &[],
            )
        },
    ]
}

/// As both forms of Events print.
fn event_columns() -> Vec<Column> {
    vec![
        column(
            "Last Seen",
            "date",
            ".series.lastObservedTime||.lastTimestamp||.eventTime||.firstTimestamp",
            "Time since it was last seen.",
        ),
        column("Type", "string", ".type", "Normal or Warning."),
        column("Reason", "string", ".reason", "Machine-readable."),
        column("Object", "string", "{.involvedObject.kind}/{.involvedObject.name}", "What it is about."),
        wide("Subobject", "string", ".involvedObject.fieldPath", "The part of it."),
        wide("Source", "string", ".source.component||.reportingComponent", "Who says it."),
        column("Message", "string", ".message", "A sentence."),
        wide("First Seen", "date", ".firstTimestamp||.eventTime", "Time since it was first seen."),
        wide("Count", "integer", ".series.count||.count", "How often it was seen."),
        Column { format: "name".to_owned(), ..wide("Name", "string", ".metadata.name", "Of the Event.") },
    ]
}

/// With the limits that Kubernetes checks and its OpenAPI does not say.
fn lease_schema() -> Value {
    let mut schema = gantry_api::schemas::core::<Lease>();
    for (field, least) in [("leaseDurationSeconds", 1), ("leaseTransitions", 0)] {
        if let Some(Value::Object(field)) =
            schema.pointer_mut(&format!("/properties/spec/properties/{field}"))
        {
            field.insert("minimum".to_owned(), least.into());
        }
    }
    schema
}

fn named<T: JsonSchema + DeserializeOwned>(
    group: &str,
    kind: &str,
    plural: &str,
    short: &[&str],
    columns: Vec<Column>,
    fields: &[&str],
) -> Kind {
    let owned = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect();
    Kind {
        group: group.to_owned(),
        version: "v1".to_owned(),
        kind: kind.to_owned(),
        plural: plural.to_owned(),
        singular: kind.to_lowercase(),
        short_names: owned(short),
        categories: Vec::new(),
        namespaced: true,
        has_status: false,
        allows_unconditional_update: true,
        columns,
        fields: owned(fields),
        schema: Schema::of_core::<T>(),
        reads: read_as::<T>,
        view: None,
        is_question: false,
        is_record: false,
        is_live: false,
        is_measured: false,
    }
}

/// A column of `-o wide`.
fn wide(name: &str, type_: &str, path: &str, description: &str) -> Column {
    Column { priority: 1, ..column(name, type_, path, description) }
}

fn column(name: &str, type_: &str, path: &str, description: &str) -> Column {
    Column {
        name: name.to_owned(),
        type_: type_.to_owned(),
        format: String::new(),
        description: description.to_owned(),
        priority: 0,
        json_path: path.to_owned(),
        shows: Shows::First,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_of_ours_is_served() {
        for definition in gantry_api::schemas::custom_resource_definitions() {
            assert!(all().iter().any(|kind| kind.kind == definition.spec.names.kind));
        }
    }
}
