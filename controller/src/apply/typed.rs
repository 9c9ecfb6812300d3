//! What a kind's schema says of a value's parts: what is owned whole, and what makes an item of a list the same item.

use serde_json::{Map, Value};

use super::path::PathElement;

/// The schema of one value; nothing where the schema leaves open what may be there.
#[derive(Clone, Copy, Debug)]
pub struct Type<'a>(Option<&'a Value>);

/// How a value is taken apart.
#[derive(Clone, Copy, Debug)]
pub enum Shape<'a> {
    /// Not at all: it is owned whole.
    Leaf,
    /// Field by field.
    Map,
    /// Item by item.
    Items(Items<'a>),
}

/// A list whose items have an identity.
#[derive(Clone, Copy, Debug)]
pub struct Items<'a> {
    /// Key fields of a list of type map; `None` for a set.
    keys: Option<&'a Vec<Value>>,
    /// Of each item.
    pub item: Type<'a>,
}

impl<'a> Type<'a> {
    /// From an OpenAPI schema.
    pub fn of(schema: &'a Value) -> Self {
        Self(Some(schema))
    }

    fn says(self, name: &str) -> Option<&'a Value> {
        self.0?.get(name)
    }

    /// How a value of this type is taken apart. One of another JSON type than the schema wants goes by its own.
    pub fn shape(self, value: &Value) -> Shape<'a> {
        let says = |name: &str, wanted: &str| self.says(name).is_some_and(|given| given == wanted);
        match value {
            Value::Object(_) if !says("x-kubernetes-map-type", "atomic") => Shape::Map,
            Value::Array(_) if says("x-kubernetes-list-type", "set") => {
                Shape::Items(Items { keys: None, item: self.item() })
            }
            Value::Array(_) if says("x-kubernetes-list-type", "map") => {
                match self.says("x-kubernetes-list-map-keys").and_then(Value::as_array) {
                    Some(keys) => Shape::Items(Items { keys: Some(keys), item: self.item() }),
                    None => Shape::Leaf,
                }
            }
            _ => Shape::Leaf,
        }
    }

    /// Of a list's items.
    pub fn item(self) -> Self {
        Self(self.says("items"))
    }

    /// True if the schema names this field, and does not only allow it.
    pub fn declares(self, field: &str) -> bool {
        self.says("properties").is_some_and(|properties| properties.get(field).is_some())
    }

    /// Of an object's field.
    pub fn field(self, name: &str) -> Self {
        let named = self.says("properties").and_then(|properties| properties.get(name));
        Self(named.or_else(|| self.says("additionalProperties").filter(|schema| schema.is_object())))
    }

    /// Of what is at a step.
    pub fn at(self, step: &PathElement) -> Self {
        match step {
            PathElement::Field(name) => self.field(name),
            PathElement::Key(_) | PathElement::Value(_) | PathElement::Index(_) => self.item(),
        }
    }
}

impl Items<'_> {
    /// The step to an item; `None` for one that has no identity, because it has no key field or is null.
    pub fn step(self, item: &Value) -> Option<PathElement> {
        let Some(keys) = self.keys else {
            return (!item.is_null()).then(|| PathElement::value(item));
        };
        let item = item.as_object()?;
        let key: Map<_, _> = keys
            .iter()
            .filter_map(Value::as_str)
            .filter_map(|name| {
                let value = item.get(name).or_else(|| self.item.field(name).says("default"))?;
                Some((name.to_owned(), value.clone()))
            })
            .collect();
        (!key.is_empty()).then(|| PathElement::key(&key))
    }

    /// Every item with its step; `None` if one has none.
    pub fn steps(self, list: &[Value]) -> Option<Vec<(PathElement, &Value)>> {
        list.iter().map(|item| Some((self.step(item)?, item))).collect()
    }
}
