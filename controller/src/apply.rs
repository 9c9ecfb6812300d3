//! Server-side apply: who owns which field, what an applied configuration changes, and whose fields are in its way.
//!
//! Plain functions on JSON values and a kind's schema. Knows neither HTTP nor Postgres, and checks nothing that admission checks.
//! The rules are those of Kubernetes' structured-merge-diff v4 and of the field manager in kube-apiserver 1.32.

mod conflict;
mod field_set;
mod fields_v1;
mod last_applied;
mod managers;
mod merge;
mod path;
#[cfg(test)]
mod tests;
mod typed;
mod walk;

use jiff::Timestamp;
use serde_json::{Value, json};

pub use conflict::Conflicts;
pub use managers::{LONGEST_MANAGER, Managers};
pub use path::Path;
pub use walk::BadList;

use managers::{Manager, Operation, print_time, touch};
use merge::{merge, prune};
use walk::{Scope, compare, owned};

/// Owns what an object had before anybody applied to it, where nobody was recorded.
const BEFORE_FIRST_APPLY: &str = "before-first-apply";

/// Who writes, and to what.
#[derive(Clone, Copy, Debug)]
pub struct Writer<'a> {
    /// Name of the field manager.
    pub manager: &'a str,
    /// Group and version of the kind.
    pub api_version: &'a str,
    /// OpenAPI schema of the kind.
    pub schema: &'a Value,
    /// `status`; `None` for the object itself.
    pub subresource: Option<&'a str>,
    /// True if writes of the object itself leave `status` alone.
    pub has_status: bool,
    /// Now.
    pub now: Timestamp,
}

impl Writer<'_> {
    fn scope(&self) -> Scope {
        match self.subresource {
            Some("status") => Scope::Status,
            _ if self.has_status => Scope::AllButStatus,
            _ => Scope::Whole,
        }
    }

    fn who(&self, operation: Operation, name: &str) -> Manager {
        Manager {
            operation,
            name: name.to_owned(),
            api_version: self.api_version.to_owned(),
            subresource: self.subresource.unwrap_or_default().to_owned(),
        }
    }
}

/// Why a configuration was not applied.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// It would change others' fields.
    Conflicts(Conflicts),
    /// It has a list whose items cannot be told apart.
    BadList(BadList),
}

/// An object after an apply, before defaults and checks.
#[derive(Clone, Debug, PartialEq)]
pub struct Applied {
    /// The object, without `metadata.managedFields`; null once taken out.
    pub object: Value,
    managers: Managers,
    applier: Manager,
    /// True if somebody owns other fields than before.
    moves: bool,
    now: String,
}

impl Applied {
    /// `metadata.managedFields` to store; `None` for none. `stored` is what the object has, and stays if nobody owns other fields
    /// than before and `is_same`: if the object does not differ otherwise either.
    pub fn managed_fields(mut self, stored: Option<&Value>, is_same: bool) -> Option<Value> {
        if is_same && !self.moves {
            return stored.cloned();
        }
        self.managers.stamp(&self.applier, &self.now);
        self.managers.print()
    }
}

/// Makes what the configuration says so, and takes out what the same manager said before and says no longer.
///
/// `config` has `metadata` and no `managedFields`; without `live` the object is made. Whoever's fields get other values is
/// in the way, unless `is_forced`: then these become the applier's.
pub fn apply(
    writer: &Writer<'_>,
    live: Option<&Value>,
    config: Value,
    is_forced: bool,
) -> Result<Applied, Refusal> {
    let applied = try_apply(writer, live, config.clone(), is_forced);
    let mut applied = match (applied, live) {
        (Err(Refusal::Conflicts(conflicts)), Some(live)) if writer.manager == last_applied::KUBECTL => {
            let allowed = last_applied::allowed(live, writer.schema, writer.scope());
            match conflicts.without(&allowed) {
                Some(left) => return Err(Refusal::Conflicts(left)),
                None => try_apply(writer, Some(live), config.clone(), true)?,
            }
        }
        (applied, _) => applied?,
    };
    if writer.manager == last_applied::KUBECTL {
        last_applied::keep_true(&mut applied.object, &config);
    }
    Ok(applied)
}

fn try_apply(
    writer: &Writer<'_>,
    live: Option<&Value>,
    config: Value,
    is_forced: bool,
) -> Result<Applied, Refusal> {
    let (scope, schema) = (writer.scope(), writer.schema);
    let fields = owned(&config, schema, scope).map_err(Refusal::BadList)?;
    let applier = writer.who(Operation::Apply, writer.manager);
    let now = print_time(writer.now);
    let before = live.and_then(managed_fields_of).and_then(Managers::read).unwrap_or_default();
    let mut managers = before.clone();
    managers.keep_version(writer.api_version);
    if let Some(live) = live.filter(|_| managers.is_empty()) {
        let nobody = writer.who(Operation::Update, BEFORE_FIRST_APPLY);
        managers.set(&nobody, compare(None, live, schema, scope).added);
        managers.stamp(&nobody, &now);
    }
    let last = managers.fields_of(&applier).cloned().unwrap_or_default();
    managers.set(&applier, fields);
    let object = match live {
        None => config,
        Some(live) => {
            let merged = merge(without_managed_fields(live.clone()), within(config, scope), schema);
            prune(merged, &last, &managers.all_fields(), schema, scope)
        }
    };
    let difference = compare(live, &object, schema, scope);
    let changed = difference.changed();
    if !is_forced && let Some(conflicts) = Conflicts::of(managers.in_the_way(&applier, &changed)) {
        return Err(Refusal::Conflicts(conflicts));
    }
    managers.give_way(&applier, &changed, &difference.removed);
    let moves = !managers.own_the_same(&before);
    Ok(Applied { object, managers, applier, moves, now })
}

/// `metadata.managedFields` after a write that is no apply, for the object that is stored; `None` for none.
///
/// What the write changed is its manager's alone from now on. `given` is what the client sent: it counts where it can be read, an
/// empty list or entry forgets everybody, and an object of which nobody owns anything stays so until somebody applies to it.
pub fn track(writer: &Writer<'_>, live: Option<&Value>, new: &Value, given: Option<&Value>) -> Option<Value> {
    let stored = live.and_then(managed_fields_of);
    let difference = compare(live, new, writer.schema, writer.scope());
    let manager = writer.who(Operation::Update, writer.manager);
    let now = print_time(writer.now);
    // Through a subresource nobody says who owns what.
    let given = given.filter(|given| writer.subresource.is_none() && Some(*given) != stored);
    let given = given.and_then(|given| match given {
        Value::Array(list) if list.is_empty() || *list == [json!({})] => Some(Managers::default()),
        given => Managers::read(given).filter(|managers| !managers.is_empty()),
    });
    let mut managers = match (given, stored) {
        (Some(given), Some(stored))
            if difference.is_empty()
                && Managers::read(stored).is_some_and(|stored| given.own_the_same(&stored)) =>
        {
            return Some(stored.clone());
        }
        (Some(given), _) => given,
        (None, Some(stored)) => match touch(stored, &manager, &difference, &now) {
            Some(touched) => return Some(touched),
            None => Managers::read(stored).unwrap_or_default(),
        },
        (None, None) => Managers::default(),
    };
    if managers.is_empty() && live.is_some() {
        return None;
    }
    managers.update(&manager, &difference, &now);
    managers.print()
}

fn managed_fields_of(object: &Value) -> Option<&Value> {
    object.get("metadata")?.get("managedFields")
}

fn without_managed_fields(mut object: Value) -> Value {
    if let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) {
        metadata.remove("managedFields");
    }
    object
}

/// What of a configuration counts where this part of the object is written.
fn within(mut config: Value, scope: Scope) -> Value {
    if let Some(fields) = config.as_object_mut() {
        fields.retain(|name, _| scope.has(name));
    }
    config
}
