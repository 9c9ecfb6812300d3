//! Where a field stands in an object, in steps, and how a conflict names it.

use std::fmt;

use serde_json::{Map, Value};

/// One step into a value. Ordered as Kubernetes orders the steps at one place.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum PathElement {
    /// A field of an object.
    Field(Box<str>),
    /// An item of a list of type map: its key fields as JSON, sorted by name.
    Key(Box<str>),
    /// An item of a list of type set: itself as JSON.
    Value(Box<str>),
    /// An item by its place.
    Index(i64),
}

/// Steps from the object's root.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Path(pub Vec<PathElement>);

impl PathElement {
    /// The item that has these key fields.
    pub fn key(fields: &Map<String, Value>) -> Self {
        let mut sorted: Vec<_> = fields.iter().collect();
        sorted.sort_by_key(|(name, _)| *name);
        let fields: Vec<_> = sorted
            .into_iter()
            .map(|(name, value)| format!("{}:{}", Value::from(name.as_str()), canonical(value)))
            .collect();
        Self::Key(format!("{{{}}}", fields.join(",")).into())
    }

    /// The item of a set.
    pub fn value(value: &Value) -> Self {
        Self::Value(canonical(value).into())
    }

    /// As in FieldsV1; `None` for what is none of its forms.
    pub fn read(text: &str) -> Option<Self> {
        let (form, rest) = text.split_once(':')?;
        Some(match form {
            "f" => Self::Field(rest.into()),
            "k" => Self::key(&serde_json::from_str(rest).ok()?),
            "v" => Self::value(&serde_json::from_str(rest).ok()?),
            "i" => Self::Index(rest.parse().ok()?),
            _ => return None,
        })
    }

    /// As in FieldsV1.
    pub fn print(&self) -> String {
        match self {
            Self::Field(name) => format!("f:{name}"),
            Self::Key(fields) => format!("k:{fields}"),
            Self::Value(value) => format!("v:{value}"),
            Self::Index(place) => format!("i:{place}"),
        }
    }
}

/// JSON in which equal numbers look the same.
fn canonical(value: &Value) -> String {
    const EXACT: f64 = 9_007_199_254_740_992.0;
    match value.as_f64().filter(|number| {
        value.as_i64().is_none() && value.as_u64().is_none() && number.fract() == 0.0 && number.abs() <= EXACT
    }) {
        Some(whole) => (whole as i64).to_string(),
        None => value.to_string(),
    }
}

impl fmt::Display for PathElement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Field(name) => write!(f, ".{name}"),
            Self::Key(fields) => {
                let fields: Map<String, Value> = serde_json::from_str(fields).unwrap_or_default();
                let fields: Vec<_> = fields.iter().map(|(name, value)| format!("{name}={value}")).collect();
                write!(f, "[{}]", fields.join(","))
            }
            Self::Value(value) => write!(f, "[={value}]"),
            Self::Index(place) => write!(f, "[{place}]"),
        }
    }
}

impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|step| step.fmt(f))
    }
}
