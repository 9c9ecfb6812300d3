//! Reads a request's body into a JSON value and remembers what a plain parser would drop: duplicate keys.

use std::cell::RefCell;
use std::fmt;

use serde::Deserialize;
use serde::de::{DeserializeSeed, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

use super::failure::{Failure, Outcome, shortened};
use super::protobuf;

/// Most bytes a body may have.
pub const BODY_LIMIT: usize = 3 << 20;

/// Most duplicates that are remembered; one is enough to refuse, the rest is courtesy.
const MOST_DUPLICATES: usize = 32;

const SERVED: &str = "application/json, application/yaml";

/// A body that could be read.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Decoded {
    /// The object; of a duplicate key the last value.
    pub value: Value,
    /// Paths of the duplicate keys, `spec.target.name`.
    pub duplicates: Vec<String>,
}

/// Reads one object of the given `Content-Type`; without one it is JSON.
///
/// Fails with 415 for other media types and with 400 for anything but one object: no text, nesting above 100 levels, numbers that
/// are none, trailing characters.
pub fn decode(bytes: &[u8], media_type: Option<&str>) -> Outcome<Decoded> {
    let essence = media_type
        .unwrap_or("application/json")
        .split(';')
        .next()
        .unwrap_or_default()
        .trim()
        .to_ascii_lowercase();
    let text = || {
        std::str::from_utf8(bytes)
            .map_err(|error| Failure::bad_request(format!("the body is not UTF-8: {error}")))
    };
    let decoded = match essence.as_str() {
        "" | "application/json" | "text/json" => decode_json(text()?)?,
        "application/yaml" | "application/x-yaml" | "text/yaml" => decode_yaml(text()?)?,
        protobuf::MEDIA_TYPE => match protobuf::decode(bytes)? {
            Some(value) => Decoded { value, duplicates: Vec::new() },
            None => return Err(Failure::unsupported_media_type(SERVED)),
        },
        _ => return Err(Failure::unsupported_media_type(SERVED)),
    };
    if decoded.value.is_object() {
        Ok(decoded)
    } else {
        Err(Failure::bad_request("the body is not one object"))
    }
}

/// Reads JSON of any type, a JSON patch for instance.
pub fn decode_json(text: &str) -> Outcome<Decoded> {
    serde_json::from_str(text)
        .map_err(|error| Failure::bad_request(format!("the body is not valid JSON: {error}")))
}

/// Reads YAML of any type.
pub fn decode_yaml(text: &str) -> Outcome<Decoded> {
    gantry_api::yaml::read_manifest_with_duplicates(text)
        .map_err(|error| Failure::bad_request(format!("the body is not valid YAML: {error}")))
}

impl<'de> Deserialize<'de> for Decoded {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let found = Found::default();
        let value = Seed(&found).deserialize(deserializer)?;
        Ok(Self { value, duplicates: found.duplicates.into_inner() })
    }
}

/// Where the parser stands and what it met.
#[derive(Default)]
struct Found {
    path: RefCell<String>,
    duplicates: RefCell<Vec<String>>,
}

impl Found {
    /// Runs `inner` with the path one step deeper.
    fn within<T>(&self, step: impl fmt::Display, inner: impl FnOnce() -> T) -> T {
        use fmt::Write as _;
        let before = self.path.borrow().len();
        // Writing to a String cannot fail.
        let _ = write!(self.path.borrow_mut(), "{step}");
        let value = inner();
        self.path.borrow_mut().truncate(before);
        value
    }

    fn duplicate(&self, key: &str) {
        let mut duplicates = self.duplicates.borrow_mut();
        if duplicates.len() < MOST_DUPLICATES {
            let path = format!("{}.{key}", self.path.borrow());
            duplicates.push(shortened(path.trim_start_matches('.').to_owned()));
        }
    }
}

struct Seed<'a>(&'a Found);

impl<'de> DeserializeSeed<'de> for Seed<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Seed<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E: serde::de::Error>(self, value: f64) -> Result<Value, E> {
        Number::from_f64(value).map(Value::Number).ok_or_else(|| E::custom("a number that JSON cannot say"))
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(Value::String(value.to_owned()))
    }

    fn visit_string<E>(self, value: String) -> Result<Value, E> {
        Ok(Value::String(value))
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_none<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let mut list = Vec::new();
        loop {
            let step = format_args!("[{}]", list.len()).to_string();
            match self.0.within(step, || items.next_element_seed(Seed(self.0)))? {
                Some(item) => list.push(item),
                None => return Ok(Value::Array(list)),
            }
        }
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Value, A::Error> {
        let mut map = Map::new();
        while let Some(key) = entries.next_key::<String>()? {
            if key.contains('\0') {
                return Err(A::Error::custom("a key with a NUL character"));
            }
            let value = self.0.within(format_args!(".{key}"), || entries.next_value_seed(Seed(self.0)))?;
            if map.contains_key(&key) {
                self.0.duplicate(&key);
            }
            map.insert(key, value);
        }
        Ok(Value::Object(map))
    }
}

#[cfg(test)]
pub(super) mod properties;

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_duplicate_key_is_kept_once_and_told_with_its_path() {
        let decoded = decode(br#"{"spec":{"a":1,"list":[{"b":1,"b":2}],"a":2}}"#, None).expect("reads");

        assert_eq!(decoded.value, json!({"spec": {"a": 2, "list": [{"b": 2}]}}));
        assert_eq!(decoded.duplicates, ["spec.list[0].b", "spec.a"]);
    }

    #[test]
    fn what_is_no_object_of_a_known_type_is_refused_with_its_code() {
        let deep = format!("{{\"a\":{}{}}}", "[".repeat(1_000), "]".repeat(1_000));
        let cases: [(&[u8], &str, u16); 10] = [
            (b"{\"a\": \xff}", "application/json", 400),
            (b"{\"a\": \"\xff\"}", "application/json", 400),
            (b"{nope", "application/json", 400),
            (b"{} {}", "application/json", 400),
            (b"[]", "application/json", 400),
            (b"", "application/json", 400),
            (b"{\"a\": 1e999}", "application/json", 400),
            (b"a: .inf", "application/yaml", 400),
            (deep.as_bytes(), "application/json", 400),
            (b"k8s\0", "application/vnd.kubernetes.protobuf", 415),
        ];

        for (body, media_type, code) in cases {
            let failure = decode(body, Some(media_type)).expect_err("refused");
            assert_eq!(failure.code().as_u16(), code, "{failure}");
        }
    }
}
