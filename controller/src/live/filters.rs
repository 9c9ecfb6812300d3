//! Docker's filters: `{"name":["nginx"],"status":["running"],"label":["a=b"]}`.

use std::collections::BTreeMap;

use regex::{Regex, RegexBuilder};
use serde_json::Value;

use super::inventory::Sort;
use crate::apiserver::failure::{Failure, Outcome};

/// Bytes of a compiled pattern, and values of all filters together.
const MOST_PATTERN: usize = 64 << 10;
const MOST_VALUES: usize = 100;

/// What must be so of an object: one value of each filter, and every label.
#[derive(Debug, Default)]
pub(super) struct Filters(Vec<(Test, Vec<Wanted>)>);

/// What is compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Test {
    Id,
    Name,
    Status,
    Health,
    Exited,
    Ancestor,
    Label,
    Network,
    Volume,
    Publish,
    Expose,
    Reference,
    Dangling,
    Driver,
    Scope,
}

#[derive(Debug)]
enum Wanted {
    Text(String),
    Pattern(Regex),
}

impl Filters {
    /// Reads both of Docker's forms, lists and maps to true; 400 for what is none, or no filter of this sort.
    pub fn read(text: Option<&str>, sort: Sort) -> Outcome<Self> {
        let Some(text) = text else { return Ok(Self::default()) };
        let given: BTreeMap<String, Value> = serde_json::from_str(text).map_err(|error| {
            Failure::bad_request(format!("filters: not as {{\"status\":[\"running\"]}}: {error}"))
        })?;
        let mut filters = Vec::new();
        let mut number = 0;
        for (name, values) in given {
            let test = Test::of(&name, sort).ok_or_else(|| {
                Failure::bad_request(format!("filters: \"{name}\" is no filter of {}", sort.plural()))
            })?;
            let values = texts(&values).ok_or_else(|| {
                Failure::bad_request(format!("filters: the values of \"{name}\" must be a list of texts"))
            })?;
            number += values.len();
            if number > MOST_VALUES {
                return Err(Failure::bad_request(format!("filters: more than {MOST_VALUES} values")));
            }
            let wanted: Outcome<Vec<Wanted>> =
                values.into_iter().map(|value| Wanted::read(test, value)).collect();
            filters.push((test, wanted?));
        }
        Ok(Self(filters))
    }

    /// True if they say which states are meant, so that containers that do not run are too.
    pub fn name_states(&self) -> bool {
        self.0.iter().any(|(test, _)| matches!(test, Test::Status | Test::Exited))
    }

    /// True if the object is meant.
    pub fn hold(&self, object: &Value) -> bool {
        self.0.iter().all(|(test, wanted)| match test {
            Test::Label => wanted.iter().all(|wanted| test.holds(object, wanted)),
            _ => wanted.is_empty() || wanted.iter().any(|wanted| test.holds(object, wanted)),
        })
    }
}

impl Wanted {
    fn read(test: Test, text: String) -> Outcome<Self> {
        if test != Test::Name {
            return Ok(Self::Text(text));
        }
        let pattern = RegexBuilder::new(&text).size_limit(MOST_PATTERN).dfa_size_limit(MOST_PATTERN).build();
        pattern.map(Self::Pattern).map_err(|_| {
            Failure::bad_request(format!("filters: {text:?} is not a pattern for a name, or too large a one"))
        })
    }

    fn is(&self, value: &str) -> bool {
        match self {
            Self::Text(text) => text == value,
            Self::Pattern(pattern) => pattern.is_match(value),
        }
    }

    fn text(&self) -> &str {
        match self {
            Self::Text(text) => text,
            Self::Pattern(pattern) => pattern.as_str(),
        }
    }
}

impl Test {
    fn of(name: &str, sort: Sort) -> Option<Self> {
        let test = match name {
            "id" => Self::Id,
            "name" => Self::Name,
            "label" => Self::Label,
            "status" => Self::Status,
            "health" => Self::Health,
            "exited" => Self::Exited,
            "ancestor" => Self::Ancestor,
            "network" => Self::Network,
            "volume" => Self::Volume,
            "publish" => Self::Publish,
            "expose" => Self::Expose,
            "reference" => Self::Reference,
            "dangling" => Self::Dangling,
            "driver" => Self::Driver,
            "scope" => Self::Scope,
            _ => return None,
        };
        let is_known = match sort {
            Sort::Containers => {
                !matches!(test, Self::Reference | Self::Dangling | Self::Driver | Self::Scope)
            }
            Sort::Images => matches!(test, Self::Id | Self::Label | Self::Reference | Self::Dangling),
            Sort::Networks => {
                matches!(test, Self::Id | Self::Name | Self::Label | Self::Driver | Self::Scope)
            }
            Sort::Volumes => matches!(test, Self::Name | Self::Label | Self::Driver | Self::Scope),
        };
        is_known.then_some(test)
    }

    fn holds(self, object: &Value, wanted: &Wanted) -> bool {
        let text = |field: &str| object.get(field).and_then(Value::as_str).unwrap_or_default();
        let items = |field: &str| object.get(field).and_then(Value::as_array).into_iter().flatten();
        let any = |list: &str, fields: &[&str]| {
            items(list).any(|item| {
                fields.iter().any(|field| item.get(*field).and_then(Value::as_str) == Some(wanted.text()))
            })
        };
        match self {
            Self::Id => text("id")
                .trim_start_matches("sha256:")
                .starts_with(wanted.text().trim_start_matches("sha256:")),
            // Docker's own names begin with a slash, and patterns may.
            Self::Name => ["containerName", "networkName", "volumeName"].iter().any(|field| {
                object.get(*field).and_then(Value::as_str).is_some_and(|name| {
                    wanted.is(name) || (*field == "containerName" && wanted.is(&format!("/{name}")))
                })
            }),
            Self::Status => wanted.is(text("state")),
            Self::Health => wanted.is(if text("health").is_empty() { "none" } else { text("health") }),
            Self::Exited => {
                text("state") == "exited"
                    && object.get("exitCode").and_then(Value::as_i64).map(|code| code.to_string()).as_deref()
                        == Some(wanted.text())
            }
            Self::Ancestor => is_image(text("image"), text("imageID"), wanted.text()),
            Self::Label => {
                let (key, value) = match wanted.text().split_once('=') {
                    Some((key, value)) => (key, Some(value)),
                    None => (wanted.text(), None),
                };
                let labels = object.pointer("/metadata/labels").and_then(Value::as_object);
                let found = labels.and_then(|labels| labels.get(key)).and_then(Value::as_str);
                found.is_some_and(|found| value.is_none_or(|value| value == found))
            }
            Self::Network => any("networks", &["name", "networkID"]),
            Self::Volume => any("mounts", &["name", "target"]),
            Self::Publish | Self::Expose => items("ports").any(|port| {
                let field = if self == Self::Publish { "publicPort" } else { "privatePort" };
                let number = port.get(field).and_then(Value::as_u64).unwrap_or_default();
                let protocol = port.get("protocol").and_then(Value::as_str).unwrap_or_default();
                let (wanted, over) = wanted.text().split_once('/').unwrap_or((wanted.text(), "tcp"));
                number > 0 && over == protocol && is_in(number, wanted)
            }),
            Self::Reference => items("tags").chain(items("digests")).filter_map(Value::as_str).any(|name| {
                name == wanted.text()
                    || name.rsplit_once([':', '@']).is_some_and(|(repository, _)| repository == wanted.text())
            }),
            Self::Dangling => {
                (items("tags").next().is_none()).to_string() == wanted.text() || {
                    matches!((wanted.text(), items("tags").next().is_none()), ("1", true) | ("0", false))
                }
            }
            Self::Driver => wanted.is(text("driver")),
            Self::Scope => wanted.is(text("scope")),
        }
    }
}

/// The image by its reference, with or without a tag, or by the beginning of its id.
fn is_image(image: &str, id: &str, wanted: &str) -> bool {
    let untagged = |image: &str| match image.rsplit_once(':') {
        Some((repository, tag)) if !tag.contains('/') => repository.to_owned(),
        _ => image.to_owned(),
    };
    let digits = |id: &str| id.trim_start_matches("sha256:").to_owned();
    image == wanted
        || untagged(image) == wanted
        || format!("{image}:latest") == wanted
        || (wanted.len() >= 12 && digits(id).starts_with(&digits(wanted)))
}

/// `80` or `8000-8080`.
fn is_in(number: u64, wanted: &str) -> bool {
    let (first, last) = wanted.split_once('-').unwrap_or((wanted, wanted));
    match (first.parse::<u64>(), last.parse::<u64>()) {
        (Ok(first), Ok(last)) => (first..=last).contains(&number),
        _ => false,
    }
}

/// `["a"]`, or `{"a": true}` as older clients write it.
fn texts(values: &Value) -> Option<Vec<String>> {
    match values {
        Value::Array(values) => values.iter().map(|value| value.as_str().map(str::to_owned)).collect(),
        Value::Object(values) => Some(
            values
                .iter()
                .filter(|(_, value)| **value == Value::Bool(true))
                .map(|(key, _)| key.clone())
                .collect(),
        ),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn web() -> Value {
        json!({"containerName": "shop-web-1", "id": "abc123", "state": "exited", "exitCode": 137, "image": "nginx:1.27",
            "imageID": "sha256:00112233445566", "metadata": {"labels": {"com.docker.compose.project": "shop", "tier": ""}},
            "ports": [{"privatePort": 80, "publicPort": 8080, "protocol": "tcp"}], "networks": [{"name": "shop_default"}],
            "mounts": [{"type": "volume", "name": "data", "target": "/data"}]})
    }

    fn holds(filters: &Value) -> bool {
        Filters::read(Some(&filters.to_string()), Sort::Containers).expect("filters").hold(&web())
    }

    #[test]
    fn docker_s_filters_mean_what_they_mean_to_docker() {
        for (filters, is_meant) in [
            (json!({}), true),
            (json!({"name": ["web"]}), true),
            (json!({"name": ["^/shop-web"]}), true),
            (json!({"name": ["^web"]}), false),
            (json!({"name": ["db", "web"]}), true),
            (json!({"status": ["running", "exited"]}), true),
            (json!({"status": ["running"]}), false),
            (json!({"status": {"exited": true}}), true),
            (json!({"exited": ["137"]}), true),
            (json!({"exited": ["0"]}), false),
            (json!({"health": ["none"]}), true),
            (json!({"label": ["tier", "com.docker.compose.project=shop"]}), true),
            (json!({"label": ["tier", "com.docker.compose.project=other"]}), false),
            (json!({"label": ["tier="]}), true),
            (json!({"id": ["abc"]}), true),
            (json!({"id": ["bc"]}), false),
            (json!({"ancestor": ["nginx"]}), true),
            (json!({"ancestor": ["nginx:1.27"]}), true),
            (json!({"ancestor": ["nginx:1"]}), false),
            (json!({"ancestor": ["001122334455"]}), true),
            (json!({"network": ["shop_default"]}), true),
            (json!({"volume": ["/data"]}), true),
            (json!({"publish": ["8080"]}), true),
            (json!({"publish": ["8000-8090/tcp"]}), true),
            (json!({"publish": ["80"]}), false),
            (json!({"expose": ["80"]}), true),
            (json!({"name": ["web"], "status": ["running"]}), false),
        ] {
            assert_eq!(holds(&filters), is_meant, "{filters}");
        }
    }

    #[test]
    fn t24_what_is_no_filter_or_too_large_a_one_is_refused() {
        let many: Vec<String> = (0..=MOST_VALUES).map(|number| number.to_string()).collect();
        for filters in [
            "[]".to_owned(),
            "{".to_owned(),
            json!({"nonsense": ["a"]}).to_string(),
            json!({"reference": ["a"]}).to_string(),
            json!({"name": "web"}).to_string(),
            json!({"name": [1]}).to_string(),
            json!({"name": ["("]}).to_string(),
            json!({"name": ["((((a{100}){100}){100}){100})"]}).to_string(),
            json!({"label": many}).to_string(),
        ] {
            assert!(Filters::read(Some(&filters), Sort::Containers).is_err(), "{filters}");
        }
    }

    #[test]
    fn images_are_found_by_what_they_are_called() {
        let image = json!({"tags": ["registry.example:5000/app:2"], "digests": []});
        let holds = |filters: Value| {
            Filters::read(Some(&filters.to_string()), Sort::Images).expect("filters").hold(&image)
        };
        assert!(holds(json!({"reference": ["registry.example:5000/app"]})));
        assert!(holds(json!({"reference": ["registry.example:5000/app:2"]})));
        assert!(!holds(json!({"reference": ["app"]})));
        assert!(holds(json!({"dangling": ["false"]})) && holds(json!({"dangling": ["0"]})));
        assert!(!holds(json!({"dangling": ["true"]})));
    }
}
