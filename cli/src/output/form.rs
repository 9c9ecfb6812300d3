//! The forms of `-o`: how objects are shown that are no rows of a table.

use std::io::IsTerminal as _;

use gantry_api::yaml;
use serde_json::{Value, json};

use super::jsonpath::{Columns, Template};
use super::plain::plain;
use super::table::table;
use crate::kinds::Kind;

/// What `-o` says.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Form {
    Wide,
    Yaml,
    Json,
    Name,
    JsonPath(Template),
    Columns(Columns),
}

impl Form {
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        match text.split_once('=') {
            None if text == "wide" => Ok(Self::Wide),
            None if text == "yaml" => Ok(Self::Yaml),
            None if text == "json" => Ok(Self::Json),
            None if text == "name" => Ok(Self::Name),
            Some(("jsonpath", template)) => Template::parse(template).map(Self::JsonPath),
            Some(("custom-columns", columns)) => Columns::parse(columns).map(Self::Columns),
            _ => Err("it must be wide, yaml, json, name, jsonpath=TEMPLATE or custom-columns=HEADING:PATH,…"
                .to_owned()),
        }
    }
}

/// Objects with their kinds.
pub(crate) type Objects<'a> = Vec<(&'a Kind, Value)>;

/// The text of objects in that form, as one list unless `is_one`.
pub(crate) fn objects(
    form: &Form,
    objects: Objects<'_>,
    is_one: bool,
    no_headers: bool,
) -> anyhow::Result<String> {
    if *form == Form::Name {
        let line = |(kind, object): &(&Kind, Value)| format!("{}/{}\n", kind.singular_name(), name(object));
        return Ok(objects.iter().map(line).collect());
    }
    let mut objects: Vec<Value> = objects.into_iter().map(|(kind, object)| typed(kind, object)).collect();
    if let Form::Columns(columns) = form {
        let rows: Vec<_> = objects.iter().map(|object| columns.row(object)).collect();
        return Ok(table(&columns.heading(), &rows, no_headers));
    }
    let shown = match objects.pop() {
        Some(object) if is_one && objects.is_empty() => object,
        last => {
            objects.extend(last);
            json!({"apiVersion": "v1", "kind": "List", "metadata": {}, "items": objects})
        }
    };
    Ok(match form {
        Form::Json => json_text(&shown)?,
        Form::JsonPath(template) => obeyed(template.render(&shown)),
        _ => obeyed(yaml::write(&shown)?),
    })
}

/// The name of an object, fit for a terminal.
pub(crate) fn name(object: &Value) -> String {
    plain(object.pointer("/metadata/name").and_then(Value::as_str).unwrap_or_default())
}

/// Items of a list do not say what they are.
fn typed(kind: &Kind, mut object: Value) -> Value {
    if let Some(fields) = object.as_object_mut() {
        fields.entry("apiVersion").or_insert_with(|| kind.api_version().into());
        fields.entry("kind").or_insert_with(|| kind.kind.clone().into());
    }
    object
}

/// JSON in which everything that a terminal would obey is escaped, which changes nothing of its meaning.
pub(crate) fn json_text(value: &Value) -> anyhow::Result<String> {
    let text = serde_json::to_string_pretty(value)?;
    Ok(lines(&text))
}

/// What a terminal would obey is shown there; a program gets what is so.
pub(crate) fn obeyed(text: String) -> String {
    if std::io::stdout().is_terminal() { lines(&text) } else { text }
}

fn lines(text: &str) -> String {
    let ends = text.ends_with('\n');
    let mut shown = text.lines().map(plain).collect::<Vec<_>>().join("\n");
    if ends || shown.ends_with('}') {
        shown.push('\n');
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(form: &str, number: usize, is_one: bool) -> String {
        let kind = Kind::ours("gantry.dev", "Operation");
        let object = |n: usize| (&kind, json!({"metadata": {"name": format!("op-{n}\u{1b}")}, "n": n}));
        objects(&Form::parse(form).expect(form), (0..number).map(object).collect(), is_one, false)
            .expect(form)
    }

    #[test]
    fn one_object_is_itself_and_several_are_a_list() {
        let one: Value = serde_json::from_str(&shown("json", 1, true)).expect("JSON");
        assert_eq!((&one["kind"], &one["apiVersion"]), (&json!("Operation"), &json!("gantry.dev/v1alpha1")));
        for (number, is_one) in [(0, false), (1, false), (2, true)] {
            let list: Value = yaml::read_manifest(&shown("yaml", number, is_one)).expect("YAML");
            assert_eq!(list["kind"], "List");
            assert_eq!(list["items"].as_array().map(Vec::len), Some(number));
        }
        assert_eq!(shown("custom-columns=N:.n,NAME:.metadata.name", 1, true), "N   NAME\n0   op-0\\u001b\n");
        assert_eq!(shown("jsonpath={.items[*].n}", 2, false), "0 1");
    }

    #[test]
    fn t16_names_and_json_are_escaped_everywhere() {
        assert_eq!(shown("name", 1, true), "operation.gantry.dev/op-0\\u001b\n");
        assert!(shown("json", 2, false).contains("op-1\\u001b"));
    }
}
