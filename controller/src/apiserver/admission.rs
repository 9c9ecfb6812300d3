//! What becomes of an object between a request and the store: unknown fields, defaults, server-set fields, every check.
//!
//! Plain functions from the object, the one before it and the request's wishes to the object to store.

mod access;
mod core_kinds;
mod metadata;
mod policies;
#[cfg(test)]
mod tests;

use serde_json::{Map, Value, json};

use super::failure::{Cause, CauseReason, Failure, Outcome};
use super::kinds::Kind;
use super::weight::{MOST_LEVELS, too_deep};

/// What to do about fields the kind does not know, and about fields given twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FieldValidation {
    /// Leave them out and say so.
    Warn,
    /// Refuse the object.
    Strict,
    /// Leave them out.
    Ignore,
}

/// An object as it may be stored.
#[derive(Debug)]
pub struct Admitted {
    /// The object.
    pub object: Value,
    /// For `Warning` headers.
    pub warnings: Vec<String>,
}

/// A wish to store a new object.
#[derive(Debug)]
pub struct Create<'a> {
    /// What kind of object.
    pub kind: &'static Kind,
    /// What to do about unknown fields.
    pub validation: FieldValidation,
    /// Paths of fields given twice.
    pub duplicates: &'a [String],
}

/// A wish to change one.
#[derive(Debug)]
pub struct Update<'a> {
    /// What kind of object.
    pub kind: &'static Kind,
    /// Its present state.
    pub old: &'a Value,
    /// `status`, or `None` for the object itself.
    pub subresource: Option<&'static str>,
    /// What to do about unknown fields.
    pub validation: FieldValidation,
    /// Paths of fields given twice.
    pub duplicates: &'a [String],
}

/// Fields of `metadata` that only the server writes, once.
const SERVER_SET: [&str; 5] =
    ["uid", "creationTimestamp", "generation", "deletionTimestamp", "deletionGracePeriodSeconds"];

/// Checks and completes a new object, which has no `managedFields` then. The name is final: `generateName` was worked out
/// before.
pub fn admit_create(create: &Create<'_>, object: Value) -> Outcome<Admitted> {
    let kind = create.kind;
    let (mut object, warnings) = understand(kind, object, create.validation, create.duplicates)?;
    let fields = fields(&mut object)?;
    if kind.has_status {
        fields.remove("status");
    }
    let metadata = metadata_of(fields)?;
    metadata.insert("generation".to_owned(), json!(1));
    complete(kind, &mut object, None)?;
    check(kind, &object, None)?;
    Ok(Admitted { object, warnings })
}

/// Checks and completes a changed object, which has no `managedFields` then. A write of the object leaves its status alone, a
/// write of its status everything else.
pub fn admit_update(update: &Update<'_>, object: Value) -> Outcome<Admitted> {
    let (kind, old) = (update.kind, update.old);
    let (mut object, warnings) = understand(kind, object, update.validation, update.duplicates)?;
    let fields_of_new = fields(&mut object)?;
    if update.subresource == Some("status") {
        let status = fields_of_new.remove("status");
        object = old.clone();
        let fields_of_old = fields(&mut object)?;
        put(fields_of_old, "status", status.as_ref());
        metadata_of(fields_of_old)?.remove("managedFields");
    } else if kind.has_status {
        put(fields_of_new, "status", old.get("status"));
    }
    let fields = fields(&mut object)?;
    keep_server_set(kind, metadata_of(fields)?, old)?;
    complete(kind, &mut object, Some(update))?;
    if !is_same_wish(&object, old) {
        let generation = old.pointer("/metadata/generation").and_then(Value::as_i64).unwrap_or_default() + 1;
        metadata_of(self::fields(&mut object)?)?.insert("generation".to_owned(), json!(generation));
    }
    check(kind, &object, Some(old))?;
    Ok(Admitted { object, warnings })
}

/// Checks an object that is answered and not stored. The kind's schema and types alone have a say.
pub fn admit_posted(
    kind: &'static Kind,
    object: Value,
    validation: FieldValidation,
    duplicates: &[String],
) -> Outcome<Admitted> {
    let (mut object, warnings) = understand(kind, object, validation, duplicates)?;
    kind.schema.default(&mut object);
    let checks: [&dyn Fn() -> Vec<Cause>; 3] =
        [&|| depth(&object), &|| kind.schema.check(&object, None), &|| readable(kind, &object)];
    first_of(&checks, kind, &object)?;
    Ok(Admitted { object, warnings })
}

/// Kind and version are those of the path, and what the schema does not know is out.
fn understand(
    kind: &Kind,
    mut object: Value,
    validation: FieldValidation,
    duplicates: &[String],
) -> Outcome<(Value, Vec<String>)> {
    let fields = fields(&mut object)?;
    for (name, wanted) in [("apiVersion", kind.api_version()), ("kind", kind.kind.clone())] {
        match fields.get(name) {
            None => {
                fields.insert(name.to_owned(), Value::String(wanted));
            }
            Some(given) if *given == wanted => {}
            Some(given) => {
                return Err(Failure::bad_request(format!(
                    "the {name} in the body is {given}, but this path serves \"{wanted}\""
                )));
            }
        }
    }
    if !fields.contains_key("metadata") {
        fields.insert("metadata".to_owned(), json!({}));
    }
    // Who owns what is worked out from the object that is admitted.
    metadata_of(fields)?.remove("managedFields");
    let found = prune(kind, &mut object, validation, duplicates)?;
    Ok((object, found))
}

/// Reads a configuration to apply: what the schema does not know is out, and of a Secret all contents are in `data`.
pub fn admit_config(
    kind: &Kind,
    mut config: Value,
    validation: FieldValidation,
    duplicates: &[String],
) -> Outcome<Admitted> {
    let warnings = prune(kind, &mut config, validation, duplicates)?;
    core_kinds::encode(kind, fields(&mut config)?);
    Ok(Admitted { object: config, warnings })
}

/// Takes unknown fields out; what there is to warn of.
fn prune(
    kind: &Kind,
    object: &mut Value,
    validation: FieldValidation,
    duplicates: &[String],
) -> Outcome<Vec<String>> {
    let unknown = kind.schema.prune(object);
    let found: Vec<_> = (unknown.iter().map(|path| format!("unknown field \"{path}\"")))
        .chain(duplicates.iter().map(|path| format!("duplicate field \"{path}\"")))
        .collect();
    match validation {
        FieldValidation::Strict if !found.is_empty() => {
            Err(Failure::bad_request(format!("strict decoding error: {}", found.join(", "))))
        }
        FieldValidation::Ignore => Ok(Vec::new()),
        FieldValidation::Warn | FieldValidation::Strict => Ok(found),
    }
}

/// Defaults, and one way to say nothing: neither null nor an empty map or list of metadata.
fn complete(kind: &Kind, object: &mut Value, update: Option<&Update<'_>>) -> Outcome<()> {
    kind.schema.default(object);
    let metadata = metadata_of(fields(object)?)?;
    for name in ["labels", "annotations", "finalizers", "ownerReferences"] {
        let is_empty = match metadata.get(name) {
            Some(Value::Object(map)) => map.is_empty(),
            Some(Value::Array(list)) => list.is_empty(),
            _ => false,
        };
        if is_empty {
            metadata.remove(name);
        }
    }
    access::complete(kind, fields(object)?);
    core_kinds::complete(kind, fields(object)?, update);
    Ok(())
}

/// What only the server writes stays as it is; a uid that is given must be the object's.
fn keep_server_set(kind: &Kind, metadata: &mut Map<String, Value>, old: &Value) -> Outcome<()> {
    let old = old.get("metadata");
    let uid = old.and_then(|metadata| metadata.get("uid"));
    if let Some(given) = metadata.get("uid")
        && Some(given) != uid
        && given.as_str().is_some_and(|given| !given.is_empty())
    {
        let name = metadata.get("name").and_then(Value::as_str).unwrap_or_default();
        let is = uid.and_then(Value::as_str).unwrap_or_default();
        let given = given.as_str().unwrap_or_default();
        let why = format!("Precondition failed: UID in precondition: {given}, UID in object meta: {is}");
        return Err(Failure::conflict_because(&kind.resource(), name, &why));
    }
    for name in SERVER_SET {
        put(metadata, name, old.and_then(|metadata| metadata.get(name)));
    }
    Ok(())
}

/// True if nothing but metadata and status differs.
fn is_same_wish(new: &Value, old: &Value) -> bool {
    fn wish(object: &Value) -> impl Iterator<Item = (&String, &Value)> {
        let fields = object.as_object().into_iter().flatten();
        fields.filter(|(name, _)| !matches!(name.as_str(), "metadata" | "status"))
    }
    wish(new).eq(wish(old))
}

/// Every check, the cheap ones first, until one finds something.
fn check(kind: &Kind, object: &Value, old: Option<&Value>) -> Outcome<()> {
    let checks: [&dyn Fn() -> Vec<Cause>; 7] = [
        &|| depth(object),
        &|| metadata::check(kind, object, old),
        &|| core_kinds::hushed(kind, kind.schema.check(object, old)),
        &|| core_kinds::check(kind, object, old),
        &|| access::check(kind, object, old),
        &|| readable(kind, object),
        &|| policies::check(kind, object, old),
    ];
    first_of(&checks, kind, object)
}

fn first_of(checks: &[&dyn Fn() -> Vec<Cause>], kind: &Kind, object: &Value) -> Outcome<()> {
    let Some(causes) = checks.iter().map(|check| check()).find(|causes| !causes.is_empty()) else {
        return Ok(());
    };
    let name = object.pointer("/metadata/name").and_then(Value::as_str).unwrap_or_default();
    Err(Failure::invalid(&kind.group, &kind.kind, name, causes))
}

fn depth(object: &Value) -> Vec<Cause> {
    let message = format!("Invalid value: nests deeper than {MOST_LEVELS} levels");
    too_deep(object).map(|path| cause(&path, CauseReason::Invalid, &message)).into_iter().collect()
}

/// An object that our own clients could not read would stop every list and watch of its kind.
fn readable(kind: &Kind, object: &Value) -> Vec<Cause> {
    let Err((path, why)) = (kind.reads)(object) else { return Vec::new() };
    core_kinds::hushed(kind, vec![cause(&path, CauseReason::Invalid, &format!("Invalid value: {why}"))])
}

fn cause(field: &str, reason: CauseReason, message: &str) -> Cause {
    Cause { field: field.to_owned(), reason, message: message.to_owned() }
}

fn put(fields: &mut Map<String, Value>, name: &str, value: Option<&Value>) {
    match value {
        Some(value) => {
            fields.insert(name.to_owned(), value.clone());
        }
        None => {
            fields.remove(name);
        }
    }
}

fn fields(object: &mut Value) -> Outcome<&mut Map<String, Value>> {
    object.as_object_mut().ok_or_else(|| Failure::bad_request("the body is not one object"))
}

fn metadata_of(fields: &mut Map<String, Value>) -> Outcome<&mut Map<String, Value>> {
    fields
        .get_mut("metadata")
        .and_then(Value::as_object_mut)
        .ok_or_else(|| Failure::bad_request("metadata is not an object"))
}
