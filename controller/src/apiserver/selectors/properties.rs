//! What holds of every selector: it means what a plain reading of the grammar means, and no text makes it panic.

use std::collections::BTreeMap;

use bytes::Bytes;
use proptest::prelude::*;
use uuid::Uuid;

use super::*;
use crate::storage::{Key, Resource, Version};

const KEYS: [&str; 4] = ["a", "b.c_d", "x.y/a", "in"];
const VALUES: [&str; 8] = ["", "1", "a", "in", "A-b", "6", "7", "10"];
/// What numbers are compared with.
const BOUND: i64 = 7;

/// One requirement as a person thinks of it.
#[derive(Clone, Debug)]
struct Wish {
    key: &'static str,
    verb: &'static str,
    values: Vec<&'static str>,
}

impl Wish {
    fn holds(&self, labels: &BTreeMap<String, String>) -> bool {
        let value = labels.get(self.key).map(String::as_str);
        let is_among = value.is_some_and(|value| self.values.contains(&value));
        match self.verb {
            "" => value.is_some(),
            "!" => value.is_none(),
            "=" | "==" | "in" => is_among,
            ">" => value.and_then(|value| value.parse().ok()).is_some_and(|value: i64| value > BOUND),
            "<" => value.and_then(|value| value.parse().ok()).is_some_and(|value: i64| value < BOUND),
            _ => !is_among,
        }
    }

    /// In the grammar, with `blank` wherever one may stand.
    fn print(&self, blank: &str) -> String {
        let Self { key, verb, values } = self;
        match *verb {
            "" => format!("{blank}{key}{blank}"),
            "!" => format!("{blank}!{blank}{key}{blank}"),
            "in" | "notin" => {
                let values = values.join(&format!("{blank},{blank}"));
                format!("{blank}{key} {verb}{blank}({blank}{values}{blank}){blank}")
            }
            _ => format!("{blank}{key}{blank}{verb}{blank}{}{blank}", values.concat()),
        }
    }
}

fn wish() -> impl Strategy<Value = Wish> {
    let key = prop::sample::select(KEYS.as_slice());
    let verb = prop::sample::select(["", "!", "=", "==", "!=", "in", "notin", ">", "<"].as_slice());
    let values = prop::collection::vec(prop::sample::select(VALUES.as_slice()), 1..4);
    (key, verb, values).prop_map(|(key, verb, mut values)| {
        if !matches!(verb, "in" | "notin") {
            values.truncate(1);
        }
        if matches!(verb, ">" | "<") {
            values = vec!["7"];
        }
        Wish { key, verb, values }
    })
}

fn labels() -> impl Strategy<Value = BTreeMap<String, String>> {
    let key = prop::sample::select(KEYS.as_slice()).prop_map(str::to_owned);
    let value = prop::sample::select(VALUES.as_slice()).prop_map(str::to_owned);
    prop::collection::btree_map(key, value, 0..4)
}

fn object(labels: BTreeMap<String, String>, name: &str, phase: &str) -> Object {
    Object {
        key: Key { resource: Resource("x".into()), namespace: "n".into(), name: name.into() },
        uid: Uuid::nil(),
        version: Version(1),
        labels: labels.into_iter().collect(),
        fields: [("status.phase", phase)].into_iter().collect(),
        json: Bytes::new(),
    }
}

fn parse(labels: &str, fields: &str) -> Outcome<Selector> {
    Selector::parse(labels, fields, |field| (field == "status.phase").then_some(Cow::Borrowed(field)))
}

/// Every requirement in the one form that says most.
fn printed(selector: &Selector) -> String {
    let set = |values: &BTreeSet<String>| values.iter().map(String::as_str).collect::<Vec<_>>().join(",");
    let one = |Requirement { key, test, .. }: &Requirement| match test {
        Test::Exists => key.clone(),
        Test::Missing => format!("!{key}"),
        Test::In(values) => format!("{key} in ({})", set(values)),
        Test::NotIn(values) => format!("{key} notin ({})", set(values)),
        Test::Above(bound) => format!("{key}>{bound}"),
        Test::Below(bound) => format!("{key}<{bound}"),
    };
    selector.labels.iter().map(one).collect::<Vec<_>>().join(",")
}

fn escaped(value: &str) -> String {
    value.replace('\\', r"\\").replace(',', r"\,").replace('=', r"\=")
}

proptest! {
    #[test]
    fn a_label_selector_means_what_its_requirements_mean(
        wishes in prop::collection::vec(wish(), 0..4), labels in labels(), blank in "[ \t]{0,2}",
    ) {
        let text = wishes.iter().map(|wish| wish.print(&blank)).collect::<Vec<_>>().join(",");
        let selector = parse(&text, "").map_err(|error| TestCaseError::fail(format!("{text:?}: {error}")))?;

        let is_wanted = wishes.iter().all(|wish| wish.holds(&labels));
        prop_assert_eq!(selector.matches(&object(labels, "a", "")), is_wanted, "{:?}", text);
        prop_assert_eq!(parse(&printed(&selector), "").ok(), Some(selector));
    }

    #[test]
    fn a_field_selector_means_what_its_terms_mean(
        terms in prop::collection::vec((any::<bool>(), "(=|==|!=)", "[ab,=\\\\!é]{0,2}"), 0..4),
        name in "[ab,=\\\\!é]{0,2}", phase in "[ab,=\\\\!é]{0,2}",
    ) {
        let field = |is_name: bool| if is_name { "metadata.name" } else { "status.phase" };
        let text = terms.iter().map(|(is_name, verb, value)| format!("{}{verb}{}", field(*is_name), escaped(value)));
        let text = text.collect::<Vec<_>>().join(",");
        let selector = parse("", &text).map_err(|error| TestCaseError::fail(format!("{text:?}: {error}")))?;

        let is_wanted = terms.iter().all(|(is_name, verb, value)| {
            (value == if *is_name { &name } else { &phase }) == (verb != "!=")
        });
        prop_assert_eq!(selector.matches(&object(BTreeMap::new(), &name, &phase)), is_wanted, "{:?}", text);
        let named = terms.iter().find(|(is_name, verb, _)| *is_name && verb != "!=");
        prop_assert_eq!(selector.exact_name(), named.map(|(.., value)| value.as_str()));
    }

    #[test]
    fn a_text_is_a_selector_or_the_clients_fault(
        labels in prop_oneof!["(a|b/c|in|notin|!|=|==|!=|,|\\(|\\)|>|<| |\t|é|\\\\|-){0,12}", ".{0,40}"],
        fields in prop_oneof!["(metadata.name|status.phase|!|=|==|,|\\\\|a){0,8}", ".{0,40}"],
    ) {
        for outcome in [parse(&labels, ""), parse("", &fields)] {
            match outcome {
                Ok(selector) => {
                    let again = parse(&printed(&selector), "").map_err(|error| TestCaseError::fail(error.to_string()))?;
                    prop_assert_eq!(again.labels, selector.labels);
                }
                Err(failure) => prop_assert_eq!(failure.code().as_u16(), 400, "{}", failure),
            }
        }
    }
}
