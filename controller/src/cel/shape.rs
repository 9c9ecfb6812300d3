//! What a variable may be at most: its fields, and how long its texts and lists are.

use serde_json::Value;

/// What a number, a truth value and the frame of anything else count for.
pub(super) const NODE: u64 = 64;

/// The most that a value may be.
#[derive(Debug)]
pub(crate) enum Shape {
    /// True or false, or a number.
    Scalar,
    /// A text of at most so many bytes.
    Text(usize),
    /// So many entries at most.
    List(usize, &'static Shape),
    /// So many entries at most under names of a user's own, names and values of at most so many bytes.
    Map { entries: usize, name: usize, value: usize },
    /// These fields and no others, any of which may be absent.
    Fields(&'static [(&'static str, Shape)]),
}

impl Shape {
    /// About the bytes that the largest such value takes.
    pub(super) fn weight(&self) -> u64 {
        let times = |count: usize, each: u64| NODE.saturating_add((count as u64).saturating_mul(each));
        match self {
            Self::Scalar => NODE,
            Self::Text(longest) => NODE.saturating_add(*longest as u64),
            Self::List(most, entry) => times(*most, entry.weight()),
            Self::Map { entries, name, value } => {
                times(*entries, 2 * NODE + (*name as u64).saturating_add(*value as u64))
            }
            Self::Fields(fields) => fields.iter().fold(NODE, |all, (name, shape)| {
                all.saturating_add(NODE + name.len() as u64).saturating_add(shape.weight())
            }),
        }
    }

    /// The field of that name; the error says that there is none.
    pub(super) fn field(&self, name: &str) -> Result<&'static Shape, String> {
        let Self::Fields(fields) = self else {
            return Err(format!("takes `{name}` of what has no fields"));
        };
        let found = fields.iter().find(|(known, _)| *known == name);
        let names = || fields.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(", ");
        found
            .map(|(_, shape)| shape)
            .ok_or_else(|| format!("names the field `{name}`, which is not there: there are {}", names()))
    }

    /// Names of the fields below a field of this, or of its own for the empty name.
    #[cfg(test)]
    pub fn names(&self, field: &str) -> Vec<&'static str> {
        let of = if field.is_empty() { Some(self) } else { self.field(field).ok() };
        match of {
            Some(Self::Fields(fields)) => fields.iter().map(|(name, _)| *name).collect(),
            _ => Vec::new(),
        }
    }

    /// Whether a value is no larger than this; the error is the path of what is.
    pub fn check(&self, value: &Value) -> Result<(), String> {
        self.check_at(value, &mut Vec::new()).map_err(|path| path.join("."))
    }

    fn check_at(&self, value: &Value, path: &mut Vec<String>) -> Result<(), Vec<String>> {
        let fits = match (self, value) {
            (Self::Scalar, Value::Bool(_) | Value::Number(_)) => true,
            (Self::Text(longest), Value::String(text)) => text.len() <= *longest,
            (Self::List(most, shape), Value::Array(entries)) => {
                for (number, entry) in entries.iter().enumerate() {
                    shape.check_below(entry, number.to_string(), path)?;
                }
                entries.len() <= *most
            }
            (Self::Map { entries, name, value }, Value::Object(map)) => {
                let is_short = |(key, text): (&String, &Value)| {
                    key.len() <= *name && text.as_str().is_some_and(|text| text.len() <= *value)
                };
                map.len() <= *entries && map.iter().all(is_short)
            }
            (Self::Fields(_), Value::Object(map)) => {
                for (name, value) in map {
                    let shape = self.field(name).map_err(|_| path.clone())?;
                    shape.check_below(value, name.clone(), path)?;
                }
                true
            }
            _ => false,
        };
        if fits { Ok(()) } else { Err(path.clone()) }
    }

    fn check_below(&self, value: &Value, name: String, path: &mut Vec<String>) -> Result<(), Vec<String>> {
        path.push(name);
        self.check_at(value, path)?;
        path.pop();
        Ok(())
    }
}
