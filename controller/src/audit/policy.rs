//! Which requests are recorded, what they are called, and what is told of a body: only what is named here.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};

use gantry_api::names::GROUP;
use serde_json::{Map, Value, json};

use super::event::Asked;
use crate::storage::audit::Record;

/// Names of fields that are told of one object.
const MOST_FIELDS: usize = 64;
/// Subjects that are told of one binding.
const MOST_SUBJECTS: usize = 32;
/// Set by the server, or told elsewhere.
const NOT_TOLD: [&str; 9] = [
    "apiVersion",
    "kind",
    "metadata.creationTimestamp",
    "metadata.generation",
    "metadata.managedFields",
    "metadata.name",
    "metadata.namespace",
    "metadata.resourceVersion",
    "metadata.uid",
];
/// Parameters of an Operation, none of which is ever secret.
const PARAMETERS: [&str; 8] = [
    "timeoutSeconds",
    "signal",
    "force",
    "removeVolumes",
    "newName",
    "platform",
    "reference",
    // A name.
    "pullSecretRef",
];

/// How a request ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It was done.
    Success,
    /// It was not, or is not known to be.
    Failure,
    /// Whoever asked may not.
    Denied,
}

impl Outcome {
    /// Of an answer with this HTTP status.
    pub fn of(code: u16) -> Self {
        match code {
            401 | 403 => Self::Denied,
            400.. => Self::Failure,
            _ => Self::Success,
        }
    }

    /// The word as it is recorded.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Success => "success",
            Self::Failure => "failure",
            Self::Denied => "denied",
        }
    }
}

/// True if a request is recorded: whatever is denied, and what changes something or tries to. What our own parts ask for is not.
pub(super) fn is_recorded(asked: &Asked, outcome: Outcome) -> bool {
    let is_change = matches!(asked.verb, "create" | "update" | "patch" | "delete" | "deletecollection");
    !asked.is_ours
        && (outcome == Outcome::Denied || (is_change && !asked.plural.is_empty() && !asked.is_question))
}

/// What was asked for, as `container_restart`, `secret_create`, `instance_update`. `is_new` if an object was made, also by applying it.
pub(super) fn action(asked: &Asked, subject: &Subject, is_new: bool) -> String {
    // Of what is asked of an engine the route is the action.
    if let ("dockerinstances", Some(action)) = (asked.plural, &subject.action) {
        return action.clone();
    }
    if let Some(what) = looked_into(asked) {
        return format!("container_{what}");
    }
    let noun = match asked.plural {
        "" => "path",
        "dockerinstances" => "instance",
        "registries" => "registry",
        "policies" => "policy",
        "clusterpolicies" => "clusterpolicy",
        plural => plural.strip_suffix('s').unwrap_or(plural),
    };
    match asked.verb {
        "create" if asked.subresource == "token" => format!("{noun}_token"),
        "get" if asked.subresource == "recording" => "recording_read".to_owned(),
        // Of an Operation's life, its making and its end are the action; a change of it is one of the Operation.
        _ if is_new || asked.verb == "create" || asked.is_ours => {
            subject.action.clone().unwrap_or_else(|| format!("{noun}_create"))
        }
        "patch" => format!("{noun}_update"),
        "deletecollection" => format!("{noun}_delete"),
        verb => format!("{noun}_{verb}"),
    }
}

/// What of a container is opened, also where that is called a Pod.
fn looked_into(asked: &Asked) -> Option<&'static str> {
    match (asked.plural, asked.subresource.as_str()) {
        ("dockerinstances" | "pods", "exec") => Some("exec"),
        ("dockerinstances" | "pods", "attach") => Some("attach"),
        ("dockerinstances" | "pods", "portforward") => Some("portforward"),
        ("dockerinstances", "logs") | ("pods", "log") => Some("logs"),
        ("dockerinstances", "archive") if asked.verb == "update" => Some("copy_in"),
        ("dockerinstances", "archive") => Some("copy_out"),
        _ => None,
    }
}

/// What is told of an object that is written.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Subject {
    /// Of an Operation.
    pub action: Option<String>,
    pub name: String,
    pub instance: String,
    pub parameters: BTreeMap<String, Value>,
}

impl Subject {
    /// Of an admitted object, so that what is looked at has the types of its kind.
    pub fn of(group: &str, plural: &str, old: Option<&Value>, new: &Value) -> Self {
        let text = |path: &str| new.pointer(path).and_then(Value::as_str).unwrap_or_default();
        let mut subject = Self { name: text("/metadata/name").to_owned(), ..Self::default() };
        let fields = changed(old, new);
        if !fields.is_empty() {
            subject.parameters.insert("fields".to_owned(), json!(fields));
        }
        match (group, plural) {
            (GROUP, "operations") => {
                let (kind, action) = (text("/spec/target/kind"), text("/spec/action"));
                subject.action = Some(action_of(kind, action)).filter(|_| !action.is_empty());
                text("/spec/instanceRef/name").clone_into(&mut subject.instance);
                let target = json!({"kind": kind, "name": text("/spec/target/name")});
                subject.parameters.insert("target".to_owned(), target);
                let given = new.pointer("/spec/parameters").and_then(Value::as_object).into_iter().flatten();
                for (name, value) in given.filter(|(name, _)| PARAMETERS.contains(&name.as_str())) {
                    subject.parameters.insert(name.clone(), value.clone());
                }
            }
            (_, "rolebindings" | "clusterrolebindings") => {
                let role = json!({"kind": text("/roleRef/kind"), "name": text("/roleRef/name")});
                subject.parameters.insert("role".to_owned(), role);
                let subjects = new.get("subjects").and_then(Value::as_array).into_iter().flatten();
                let subjects: Vec<Value> = subjects
                    .take(MOST_SUBJECTS)
                    .map(|subject| only(subject, &["kind", "namespace", "name"]))
                    .collect();
                subject.parameters.insert("subjects".to_owned(), subjects.into());
            }
            _ => {}
        }
        subject
    }
}

/// `container_restart`, `image_pull`.
fn action_of(kind: &str, action: &str) -> String {
    let kind = if kind.is_empty() { "Container" } else { kind };
    let action = if action == "Remove" { "Delete" } else { action };
    format!("{kind}_{action}").to_ascii_lowercase()
}

fn only(object: &Value, names: &[&str]) -> Value {
    let kept = names.iter().filter_map(|name| {
        let text = object.get(name)?.as_str()?;
        Some(((*name).to_owned(), Record::column(text).into()))
    });
    kept.collect::<Map<_, _>>().into()
}

/// Names of what differs: of what is below `metadata`, `spec` and `status` one level more. Deeper names may be a user's own.
fn changed(old: Option<&Value>, new: &Value) -> BTreeSet<String> {
    let (old, new) = (names(old), names(Some(new)));
    let differs = |name: &&Cow<'_, str>| old.get(*name) != new.get(*name) && !NOT_TOLD.contains(&&***name);
    let all: BTreeSet<&Cow<'_, str>> = old.keys().chain(new.keys()).collect();
    all.into_iter().filter(differs).take(MOST_FIELDS).map(|name| name.clone().into_owned()).collect()
}

fn names(object: Option<&Value>) -> BTreeMap<Cow<'_, str>, &Value> {
    let mut names = BTreeMap::new();
    for (name, value) in object.and_then(Value::as_object).into_iter().flatten() {
        match (name.as_str(), value) {
            ("metadata" | "spec" | "status", Value::Object(fields)) => {
                names.extend(
                    fields.iter().map(|(field, value)| (Cow::Owned(format!("{name}.{field}")), value)),
                );
            }
            _ => {
                names.insert(Cow::Borrowed(name.as_str()), value);
            }
        }
    }
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(verb: &'static str, plural: &'static str) -> Asked {
        Asked { verb, plural, group: if plural == "operations" { GROUP } else { "" }, ..Asked::default() }
    }

    #[test]
    fn what_changes_something_and_what_is_denied_is_recorded() {
        for (asked, outcome, expected) in [
            (asked("create", "secrets"), Outcome::Success, true),
            (asked("deletecollection", "secrets"), Outcome::Failure, true),
            (asked("get", "secrets"), Outcome::Success, false),
            (asked("watch", "secrets"), Outcome::Failure, false),
            (asked("get", "secrets"), Outcome::Denied, true),
            (asked("get", ""), Outcome::Denied, true),
            (asked("create", ""), Outcome::Failure, false),
            (Asked { is_question: true, ..asked("create", "selfsubjectreviews") }, Outcome::Success, false),
            (Asked { is_question: true, ..asked("create", "selfsubjectreviews") }, Outcome::Denied, true),
            (Asked { is_ours: true, ..asked("create", "secrets") }, Outcome::Success, false),
        ] {
            assert_eq!(is_recorded(&asked, outcome), expected, "{asked:?} {outcome:?}");
        }
    }

    #[test]
    fn actions_are_called_by_what_is_done_to_what() {
        let restart = json!({"spec": {"action": "Restart", "target": {"kind": "Container", "name": "web"}}});
        let remove = json!({"spec": {"action": "Remove", "target": {"kind": "Image", "name": "web:1"}}});
        let named = |verb, plural, new: &Value, is_new| {
            let asked = asked(verb, plural);
            action(&asked, &Subject::of(asked.group, plural, None, new), is_new)
        };

        assert_eq!(named("create", "operations", &restart, true), "container_restart");
        assert_eq!(named("patch", "operations", &remove, true), "image_delete");
        assert_eq!(named("patch", "operations", &restart, false), "operation_update");
        assert_eq!(named("delete", "operations", &restart, false), "operation_delete");
        assert_eq!(named("update", "dockerinstances", &json!({}), false), "instance_update");
        assert_eq!(named("create", "registries", &json!({}), true), "registry_create");
        assert_eq!(named("patch", "secrets", &json!({}), true), "secret_create");
        assert_eq!(named("deletecollection", "secrets", &json!({}), false), "secret_delete");
        assert_eq!(named("watch", "secrets", &json!({}), false), "secret_watch");
        assert_eq!(named("get", "", &json!({}), false), "path_get");
    }

    #[test]
    fn t28_of_what_is_written_names_are_told_and_no_values() {
        let old = json!({"metadata": {"name": "db", "labels": {"a": "planted"}}, "data": {"planted": "planted"}, "type": "Opaque"});
        let new = json!({"metadata": {"name": "db", "resourceVersion": "7", "annotations": {"planted": "planted"}},
            "data": {"planted": "hunter2"}, "stringData": {"planted": "planted"}, "type": "Opaque"});

        let subject = Subject::of("", "secrets", Some(&old), &new);

        let fields = ["data", "metadata.annotations", "metadata.labels", "stringData"];
        assert_eq!(subject.parameters, BTreeMap::from([("fields".to_owned(), json!(fields))]));
    }

    #[test]
    fn t28_of_an_operation_only_known_parameters_are_told() {
        let new = json!({"metadata": {"name": "kill"}, "spec": {"action": "Kill", "instanceRef": {"name": "nuc-01"},
            "target": {"kind": "Container", "name": "web"}, "parameters": {"signal": "HUP", "pullSecret": "planted"}}});

        let subject = Subject::of(GROUP, "operations", None, &new);

        assert_eq!(subject.instance, "nuc-01");
        assert_eq!(subject.parameters["signal"], "HUP");
        assert!(!format!("{subject:?}").contains("planted"));
    }
}
