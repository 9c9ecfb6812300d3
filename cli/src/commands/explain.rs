//! `gantry explain`: the fields of a kind, as the controller's own OpenAPI document has them.

use std::fmt::Write as _;

use http::Request;
use serde_json::Value;

use crate::args::{ExplainArgs, Reach};
use crate::client::Controller;
use crate::kinds::{self, Kind};
use crate::output::failure::{Ends, Hinted};
use crate::output::out;
use crate::output::plain::plain;

/// Columns of a line.
const WIDTH: usize = 96;
/// Fields in fields that are followed, of which some kinds have no end.
const DEEPEST: usize = 24;

/// Prints what a kind, or a field of it, is for.
pub(crate) async fn run(reach: &Reach, options: &ExplainArgs) -> anyhow::Result<()> {
    let controller = Controller::reach(reach).await?;
    let mut words = options.what.split('.').filter(|word| !word.is_empty());
    let word = words.next().unwrap_or_default();
    let is_meant =
        |kind: &Kind| options.api_version.as_ref().is_none_or(|version| kind.api_version() == *version);
    let is_enough =
        |kinds: &[Kind]| kinds::find(kinds, word).is_ok_and(|found| found.into_iter().any(is_meant));
    let kinds = kinds::known(&controller, is_enough).await?;
    let known: Vec<Kind> = kinds.into_iter().filter(is_meant).collect();
    let kind = kinds::find(&known, word)?.into_iter().next();
    let kind = kind.ok_or_else(|| Hinted::new(Ends::Misunderstood, "say a kind"))?;
    let document = document(&controller, kind).await?;
    let fields: Vec<&str> = words.collect();
    let found = Found::of(&document, kind, &fields)?;
    out::write(&if options.recursive { found.tree() } else { found.page() })
}

async fn document(controller: &Controller, kind: &Kind) -> anyhow::Result<Value> {
    let what = format!("what is known of {} cannot be read", kind.plural);
    let index: Value = controller.read(Request::get("/openapi/v3").body(Vec::new())?, &what).await?;
    let root = if kind.group.is_empty() { "api" } else { "apis" };
    let url = index.get("paths").and_then(|paths| paths.get(format!("{root}/{}", kind.api_version())));
    let url = url.and_then(|entry| entry.get("serverRelativeURL")).and_then(Value::as_str);
    let url = url.filter(|url| url.starts_with('/')).ok_or_else(|| {
        Hinted::new(Ends::NotFound, format!("the controller has no description of {}", kind.api_version()))
    })?;
    controller.read(Request::get(url).body(Vec::new())?, &what).await
}

/// A field, or a kind itself.
struct Found<'a> {
    document: &'a Value,
    kind: &'a Kind,
    /// Empty for the kind itself.
    name: &'a str,
    is_required: bool,
    schema: &'a Value,
}

impl<'a> Found<'a> {
    fn of(document: &'a Value, kind: &'a Kind, fields: &[&'a str]) -> anyhow::Result<Self> {
        let schemas = document.pointer("/components/schemas").and_then(Value::as_object);
        let mut all = schemas.into_iter().flatten().map(|(_, schema)| schema);
        let schema = all.find(|schema| is_of(schema, kind)).ok_or_else(|| {
            Hinted::new(Ends::NotFound, format!("the controller does not describe {}", kind.plural))
        })?;
        let mut found = Self { document, kind, name: "", is_required: false, schema };
        for name in fields {
            let parent = holder(document, found.schema);
            let field = parent.get("properties").and_then(|fields| fields.get(*name));
            let Some(schema) = field else {
                let known: Vec<_> = properties(parent).map(|(name, _)| plain(name)).collect();
                let error = Hinted::new(Ends::NotFound, format!("there is no field `{}` there", plain(name)));
                return Err(match &*known {
                    [] => error.hint("what it is in has no fields that are described"),
                    known => error.hint(format!("these there are: {}", known.join(", "))),
                }
                .into());
            };
            found = Self { name, is_required: is_required(parent, name), schema, ..found };
        }
        Ok(found)
    }

    fn page(&self) -> String {
        let mut text = self.heading();
        let words = description(self.document, self.schema);
        let words = if words.is_empty() { "Nothing is said of it." } else { words };
        let _ = write!(text, "DESCRIPTION:\n{}", wrapped(words, 2));
        if let Some(values) = values(self.document, self.schema) {
            let _ = write!(text, "VALUES:\n{}", wrapped(&values, 2));
        }
        let holder = holder(self.document, self.schema);
        let mut fields = properties(holder).peekable();
        if fields.peek().is_some() {
            text.push_str("\nFIELDS:\n");
        }
        for (name, schema) in fields {
            let _ = writeln!(text, "  {}", field_line(self.document, holder, name, schema));
            let words = description(self.document, schema);
            if !words.is_empty() {
                text.push_str(&wrapped(words, 4));
            }
            text.push('\n');
        }
        text.truncate(text.trim_end().len());
        text.push('\n');
        text
    }

    /// Names and types alone, however deep.
    fn tree(&self) -> String {
        let mut text = self.heading();
        text.push_str("FIELDS:\n");
        branch(self.document, self.schema, 1, &mut text);
        text
    }

    // Writing to a String cannot fail.
    fn heading(&self) -> String {
        let mut text = format!("KIND:     {}\nVERSION:  {}\n", self.kind.kind, self.kind.api_version());
        if !self.name.is_empty() {
            let required = if self.is_required { " -required-" } else { "" };
            let kind = type_of(self.document, self.schema);
            let _ = writeln!(text, "FIELD:    {} <{kind}>{required}", plain(self.name));
        }
        text.push('\n');
        text
    }
}

fn branch(document: &Value, schema: &Value, depth: usize, text: &mut String) {
    let holder = holder(document, schema);
    for (name, schema) in properties(holder) {
        let at = depth * 2;
        let _ = writeln!(text, "{:at$}{}", "", field_line(document, holder, name, schema));
        if depth < DEEPEST {
            branch(document, schema, depth + 1, text);
        }
    }
}

fn is_of(schema: &Value, kind: &Kind) -> bool {
    let known = schema.get("x-kubernetes-group-version-kind").and_then(Value::as_array);
    known.into_iter().flatten().any(|known| {
        let text = |name: &str| known.get(name).and_then(Value::as_str).unwrap_or_default();
        text("group") == kind.group && text("version") == kind.version && text("kind") == kind.kind
    })
}

/// Follows references, of which one may lead to the next.
fn resolved<'a>(document: &'a Value, schema: &'a Value) -> &'a Value {
    let mut found = schema;
    for _ in 0..DEEPEST {
        let inner = found.get("allOf").and_then(Value::as_array).and_then(|all| all.first());
        let reference = found.get("$ref").or_else(|| inner.and_then(|inner| inner.get("$ref")));
        let next = reference.and_then(Value::as_str).and_then(|to| document.pointer(to.strip_prefix('#')?));
        match next.or(inner) {
            Some(next) => found = next,
            None => break,
        }
    }
    found
}

/// The schema that has the fields: of a list that of its items, of a map that of its values.
fn holder<'a>(document: &'a Value, schema: &'a Value) -> &'a Value {
    let mut found = resolved(document, schema);
    for _ in 0..DEEPEST {
        let inner =
            found.get("items").or_else(|| found.get("additionalProperties").filter(|it| it.is_object()));
        match inner {
            Some(inner) if found.get("properties").is_none() => found = resolved(document, inner),
            _ => break,
        }
    }
    found
}

fn properties(schema: &Value) -> impl Iterator<Item = (&String, &Value)> {
    schema.get("properties").and_then(Value::as_object).into_iter().flatten()
}

fn is_required(parent: &Value, name: &str) -> bool {
    let required = parent.get("required").and_then(Value::as_array).into_iter().flatten();
    required.into_iter().any(|required| required == name)
}

fn field_line(document: &Value, parent: &Value, name: &str, schema: &Value) -> String {
    let required = if is_required(parent, name) { " -required-" } else { "" };
    format!("{} <{}>{required}", plain(name), type_of(document, schema))
}

fn type_of(document: &Value, schema: &Value) -> String {
    let found = resolved(document, schema);
    if found.get("x-kubernetes-int-or-string") == Some(&Value::Bool(true)) {
        return "IntOrString".to_owned();
    }
    match found.get("type").and_then(Value::as_str) {
        Some("array") => {
            format!("[]{}", found.get("items").map_or("any".to_owned(), |items| type_of(document, items)))
        }
        Some("object") | None if found.get("properties").is_none() => {
            match found.get("additionalProperties").filter(|values| values.is_object()) {
                Some(values) => format!("map[string]{}", type_of(document, values)),
                None if found.get("type").is_none() => "any".to_owned(),
                None => "Object".to_owned(),
            }
        }
        Some("object") | None => "Object".to_owned(),
        Some(other) => plain(other),
    }
}

/// What is said where the field is used counts more than what is said of its type.
fn description<'a>(document: &'a Value, schema: &'a Value) -> &'a str {
    let said = |schema: &'a Value| schema.get("description").and_then(Value::as_str);
    said(schema).or_else(|| said(resolved(document, schema))).unwrap_or_default()
}

fn values(document: &Value, schema: &Value) -> Option<String> {
    let values = resolved(document, schema).get("enum")?.as_array()?;
    let shown = values.iter().filter(|value| !value.is_null()).map(crate::output::jsonpath::shown);
    Some(shown.collect::<Vec<_>>().join(", ")).filter(|values| !values.is_empty())
}

/// Paragraphs in lines of that width, moved to the right.
fn wrapped(words: &str, at: usize) -> String {
    let mut text = String::new();
    for paragraph in words.split("\n\n").filter(|paragraph| !paragraph.trim().is_empty()) {
        if !text.is_empty() {
            text.push('\n');
        }
        let mut line = String::new();
        for word in paragraph.split_whitespace().map(plain) {
            if !line.is_empty() && at + line.chars().count() + 1 + word.chars().count() > WIDTH {
                let _ = writeln!(text, "{:at$}{line}", "");
                line.clear();
            }
            if !line.is_empty() {
                line.push(' ');
            }
            line.push_str(&word);
        }
        let _ = writeln!(text, "{:at$}{line}", "");
    }
    text
}

#[cfg(test)]
mod tests {
    use insta::assert_snapshot;
    use serde_json::json;

    use super::*;

    fn document() -> Value {
        json!({"components": {"schemas": {
            "dev.gantry.v1alpha1.Operation": {
                "x-kubernetes-group-version-kind": [{"group": "gantry.dev", "version": "v1alpha1", "kind": "Operation"}],
                "description": "One action.\n\nIt happens\nat most once.",
                "required": ["spec"],
                "properties": {
                    "metadata": {"allOf": [{"$ref": "#/components/schemas/Meta"}], "description": "Standard."},
                    "spec": {"type": "object", "required": ["action"], "properties": {
                        "action": {"type": "string", "enum": ["Start", "Stop"], "description": "What\u{1b}[2J is done."},
                        "layers": {"type": "array", "items": {"type": "object", "properties": {"id": {"type": "string"}}}},
                        "port": {"x-kubernetes-int-or-string": true},
                    }},
                },
            },
            "Meta": {"type": "object", "properties": {
                "labels": {"type": "object", "additionalProperties": {"type": "string"}},
                "again": {"$ref": "#/components/schemas/Meta"},
            }},
        }}})
    }

    fn explained(fields: &[&str]) -> Result<String, String> {
        let document = document();
        let kind = Kind::ours("gantry.dev", "Operation");
        Found::of(&document, &kind, fields).map(|found| found.page()).map_err(|error| error.to_string())
    }

    #[test]
    fn a_kind_is_its_description_and_its_fields() {
        assert_snapshot!(explained(&[]).expect("it is there"), @r"
        KIND:     Operation
        VERSION:  gantry.dev/v1alpha1

        DESCRIPTION:
          One action.

          It happens at most once.

        FIELDS:
          metadata <Object>
            Standard.

          spec <Object> -required-
        ");
    }

    #[test]
    fn a_field_is_found_through_references_lists_and_maps() {
        assert_snapshot!(explained(&["spec", "action"]).expect("it is there"), @r"
        KIND:     Operation
        VERSION:  gantry.dev/v1alpha1
        FIELD:    action <string> -required-

        DESCRIPTION:
          What\u001b[2J is done.
        VALUES:
          Start, Stop
        ");
        let line = |fields: &[&str]| {
            let page = explained(fields)?;
            Ok::<_, String>(
                page.lines().find(|line| line.starts_with("FIELD:")).unwrap_or_default().to_owned(),
            )
        };
        assert_eq!(line(&["metadata", "labels"]).as_deref(), Ok("FIELD:    labels <map[string]string>"));
        assert_eq!(line(&["spec", "layers"]).as_deref(), Ok("FIELD:    layers <[]Object>"));
        assert_eq!(line(&["spec", "layers", "id"]).as_deref(), Ok("FIELD:    id <string>"));
        assert_eq!(line(&["spec", "port"]).as_deref(), Ok("FIELD:    port <IntOrString>"));
        assert_eq!(line(&["spec", "port", "x"]), Err("there is no field `x` there".to_owned()));
    }

    #[test]
    fn a_tree_of_fields_that_has_no_end_is_cut() {
        let document = document();
        let kind = Kind::ours("gantry.dev", "Operation");
        let tree = Found::of(&document, &kind, &[]).expect("it is there").tree();

        assert!(tree.contains("    action <string> -required-\n"), "{tree}");
        assert!(tree.matches("again <Object>").count() < 2 * DEEPEST, "{tree}");
    }
}
