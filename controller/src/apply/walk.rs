//! Walks objects: which fields one has, and what differs between two.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value};

use super::field_set::FieldSet;
use super::path::{Path, PathElement};
use super::typed::{Items, Shape, Type};

/// Fields of `metadata` that nobody owns: the path says them, or the server alone writes them.
const NOBODYS: [&str; 11] = [
    "name",
    "namespace",
    "uid",
    "resourceVersion",
    "generation",
    "creationTimestamp",
    "deletionTimestamp",
    "deletionGracePeriodSeconds",
    "selfLink",
    "clusterName",
    "managedFields",
];

/// The part of an object that a write can change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// Everything.
    Whole,
    /// Everything but `status`, which has a path of its own.
    AllButStatus,
    /// `status` alone.
    Status,
}

impl Scope {
    /// True for fields at the object's root that are of this part, and anybody's at all.
    pub fn has(self, field: &str) -> bool {
        !matches!(field, "apiVersion" | "kind")
            && match self {
                Self::Whole => true,
                Self::AllButStatus => field != "status",
                Self::Status => field == "status",
            }
    }
}

/// What differs between two states of an object.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Difference {
    /// Fields of the new state alone.
    pub added: FieldSet,
    /// Fields of the old state alone.
    pub removed: FieldSet,
    /// Fields of both with other values.
    pub modified: FieldSet,
}

impl Difference {
    /// True if nothing differs.
    pub fn is_empty(&self) -> bool {
        self.added.is_empty() && self.removed.is_empty() && self.modified.is_empty()
    }

    /// Fields that have a value they did not have.
    pub fn changed(&self) -> FieldSet {
        self.added.clone().union(&self.modified)
    }
}

/// An item of an applied list that cannot be told from the others.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BadList {
    /// One of its items has no key field, or is null.
    Unkeyed(Path),
    /// It has this item more than once.
    Duplicate(Path),
}

/// The way to where a walk stands; owned steps only where one is recorded.
#[derive(Clone, Debug)]
enum Step<'a> {
    Field(&'a str),
    Item(PathElement),
}

#[derive(Debug, Default)]
struct Way<'a>(Vec<Step<'a>>);

impl Way<'_> {
    fn steps(&self) -> impl Iterator<Item = PathElement> {
        self.0.iter().map(|step| match step {
            Step::Field(name) => PathElement::Field((*name).into()),
            Step::Item(element) => element.clone(),
        })
    }

    fn path(&self) -> Path {
        Path(self.steps().collect())
    }
}

/// What differs within the scope; everything is new where there was nothing.
pub fn compare(old: Option<&Value>, new: &Value, schema: &Value, scope: Scope) -> Difference {
    let root = Type::of(schema);
    let mut walk = Comparing::default();
    walk.fields(fields(old), fields(Some(new)), root, &|name| scope.has(name) && name != METADATA);
    if scope.has(METADATA) {
        let of = |object: Option<_>| fields(object).and_then(|object| fields(object.get(METADATA)));
        walk.way.0.push(Step::Field(METADATA));
        walk.fields(of(old), of(Some(new)), root.field(METADATA), &|name| !NOBODYS.contains(&name));
    }
    walk.found
}

const METADATA: &str = "metadata";

fn fields(value: Option<&Value>) -> Option<&Map<String, Value>> {
    value.and_then(Value::as_object)
}

/// True for a map or list without contents.
pub(super) fn is_empty(value: &Value) -> bool {
    match value {
        Value::Object(fields) => fields.is_empty(),
        Value::Array(list) => list.is_empty(),
        _ => false,
    }
}

#[derive(Debug, Default)]
struct Comparing<'a> {
    way: Way<'a>,
    found: Difference,
}

/// Which of the two states has what the other lacks.
#[derive(Clone, Copy, Debug)]
enum Side {
    Old,
    New,
}

impl<'a> Comparing<'a> {
    fn within(&mut self, step: Step<'a>, inner: impl FnOnce(&mut Self)) {
        self.way.0.push(step);
        inner(self);
        self.way.0.pop();
    }

    fn fields(
        &mut self,
        old: Option<&'a Map<String, Value>>,
        new: Option<&'a Map<String, Value>>,
        of: Type<'_>,
        is_wanted: &dyn Fn(&str) -> bool,
    ) {
        for (name, old) in old.into_iter().flatten().filter(|(name, _)| is_wanted(name)) {
            let new = new.and_then(|new| new.get(name));
            self.within(Step::Field(name), |walk| match new {
                Some(new) => walk.both(old, new, of.field(name)),
                None => walk.one(old, of.field(name), Side::Old),
            });
        }
        for (name, new) in new.into_iter().flatten().filter(|(name, _)| is_wanted(name)) {
            if old.is_none_or(|old| !old.contains_key(name)) {
                self.within(Step::Field(name), |walk| walk.one(new, of.field(name), Side::New));
            }
        }
    }

    fn both(&mut self, old: &'a Value, new: &'a Value, of: Type<'_>) {
        match (old, of.shape(old), new, of.shape(new)) {
            (Value::Object(old), Shape::Map, Value::Object(new), Shape::Map) => {
                self.fields(Some(old), Some(new), of, &|_| true);
            }
            _ if old == new => {}
            (Value::Array(old), Shape::Items(items), Value::Array(new), Shape::Items(_))
                if !(old.is_empty() && new.is_empty()) =>
            {
                match (items.steps(old), items.steps(new)) {
                    (Some(old), Some(new)) => self.items(old, new, items),
                    _ => self.modified(),
                }
            }
            _ => {
                self.below(old, of, Side::Old);
                self.below(new, of, Side::New);
                // Null instead of a map or list with contents only says that these are gone.
                let is_emptied = |one: &Value, other: &Value| {
                    one.is_null() && !matches!(of.shape(other), Shape::Leaf) && !is_empty(other)
                };
                if !is_emptied(old, new) && !is_emptied(new, old) {
                    self.modified();
                }
            }
        }
    }

    fn items(
        &mut self,
        old: Vec<(PathElement, &'a Value)>,
        new: Vec<(PathElement, &'a Value)>,
        items: Items<'_>,
    ) {
        let mut by_step = BTreeMap::<PathElement, (Vec<&Value>, Vec<&Value>)>::new();
        for (step, item) in old {
            by_step.entry(step).or_default().0.push(item);
        }
        for (step, item) in new {
            by_step.entry(step).or_default().1.push(item);
        }
        for (step, (old, new)) in by_step {
            self.within(Step::Item(step), |walk| match (old.as_slice(), new.as_slice()) {
                ([old], [new]) => walk.both(old, new, items.item),
                (old, []) => old.iter().for_each(|item| walk.one(item, items.item, Side::Old)),
                ([], new) => new.iter().for_each(|item| walk.one(item, items.item, Side::New)),
                (old, new) if old == new => {}
                _ => walk.modified(),
            });
        }
    }

    /// A value that the other state lacks, and everything in it.
    fn one(&mut self, value: &'a Value, of: Type<'_>, side: Side) {
        let steps = self.way.steps();
        match side {
            Side::Old => self.found.removed.insert(steps),
            Side::New => self.found.added.insert(steps),
        }
        self.below(value, of, side);
    }

    fn below(&mut self, value: &'a Value, of: Type<'_>, side: Side) {
        match (value, of.shape(value)) {
            (Value::Object(fields), Shape::Map) => {
                for (name, value) in fields {
                    self.within(Step::Field(name), |walk| walk.one(value, of.field(name), side));
                }
            }
            (Value::Array(list), Shape::Items(items)) => {
                for (step, item) in items.steps(list).into_iter().flatten() {
                    self.within(Step::Item(step), |walk| walk.one(item, items.item, side));
                }
            }
            _ => {}
        }
    }

    fn modified(&mut self) {
        self.found.modified.insert(self.way.steps());
    }
}

/// The fields that an applied configuration has an opinion on; fails on a list whose items cannot be told apart.
pub fn owned(config: &Value, schema: &Value, scope: Scope) -> Result<FieldSet, BadList> {
    Owning { way: Way::default(), found: FieldSet::default(), is_strict: true }.run(config, schema, scope)
}

/// The fields that a stored object has.
pub fn present(object: &Value, schema: &Value, scope: Scope) -> FieldSet {
    let walk = Owning { way: Way::default(), found: FieldSet::default(), is_strict: false };
    // Only a strict walk fails.
    walk.run(object, schema, scope).unwrap_or_default()
}

#[derive(Debug)]
struct Owning<'a> {
    way: Way<'a>,
    found: FieldSet,
    is_strict: bool,
}

impl<'a> Owning<'a> {
    fn run(mut self, object: &'a Value, schema: &Value, scope: Scope) -> Result<FieldSet, BadList> {
        let root = Type::of(schema);
        for (name, value) in fields(Some(object)).into_iter().flatten().filter(|(name, _)| scope.has(name)) {
            if name == METADATA {
                self.way.0.push(Step::Field(METADATA));
                for (name, value) in fields(Some(value)).into_iter().flatten() {
                    if !NOBODYS.contains(&name.as_str()) {
                        self.field(name, value, root.field(METADATA))?;
                    }
                }
                self.way.0.pop();
            } else {
                self.field(name, value, root)?;
            }
        }
        Ok(self.found)
    }

    fn field(&mut self, name: &'a str, value: &'a Value, of: Type<'_>) -> Result<(), BadList> {
        self.way.0.push(Step::Field(name));
        self.below(value, of.field(name))?;
        // What the schema names is there because something below it is; a key of a map is itself somebody's.
        if value.is_null() || value.as_object().is_some_and(Map::is_empty) || !of.declares(name) {
            self.found.insert(self.way.steps());
        }
        self.way.0.pop();
        Ok(())
    }

    fn below(&mut self, value: &'a Value, of: Type<'_>) -> Result<(), BadList> {
        match (value, of.shape(value)) {
            (Value::Object(fields), Shape::Map) => {
                fields.iter().try_for_each(|(name, value)| self.field(name, value, of))?;
            }
            (Value::Array(list), Shape::Items(items)) => self.items(list, items)?,
            _ => self.found.insert(self.way.steps()),
        }
        Ok(())
    }

    fn items(&mut self, list: &'a [Value], items: Items<'_>) -> Result<(), BadList> {
        let Some(steps) = items.steps(list) else {
            if self.is_strict {
                return Err(BadList::Unkeyed(self.way.path()));
            }
            self.found.insert(self.way.steps());
            return Ok(());
        };
        let mut known = BTreeSet::new();
        for (step, item) in steps {
            let is_new = known.insert(step.clone());
            self.way.0.push(Step::Item(step));
            if self.is_strict && !is_new {
                return Err(BadList::Duplicate(self.way.path()));
            }
            if !matches!(items.item.shape(item), Shape::Leaf) {
                self.below(item, items.item)?;
            }
            self.found.insert(self.way.steps());
            self.way.0.pop();
        }
        Ok(())
    }
}
