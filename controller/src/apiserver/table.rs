//! Objects as rows, as `kubectl get` prints them.

use jiff::Timestamp;
use serde_json::{Map, Value, json};

use super::kinds::{Column, Kind, Shows};
use super::partial::partial;
use super::request::Include;

/// Makes rows of one kind.
#[derive(Debug)]
pub(super) struct Rows {
    columns: Vec<(&'static Column, Template)>,
    kind: &'static Kind,
    names_first: bool,
    include: Include,
    now: Timestamp,
}

impl Rows {
    pub fn new(kind: &'static Kind, include: Include, now: Timestamp) -> Self {
        let columns =
            kind.columns.iter().map(|column| (column, Template::parse(&column.json_path))).collect();
        let names_first = kind.columns.iter().all(|column| column.name != "Name");
        Self { columns, kind, names_first, include, now }
    }

    /// The header, `Name` first unless the kind says where.
    pub fn definitions(&self) -> Value {
        let name = json!({
            "name": "Name", "type": "string", "format": "name", "priority": 0,
            "description": "Unique among the objects of this kind in its namespace.",
        });
        let others = self.columns.iter().map(|(column, _)| {
            json!({
                "name": column.name,
                // A date is sent as its age, which is text.
                "type": if column.type_ == "date" { "string" } else { &*column.type_ },
                "format": column.format,
                "description": column.description,
                "priority": column.priority,
            })
        });
        Some(name).filter(|_| self.names_first).into_iter().chain(others).collect()
    }

    /// One object, as it is kept, as a row.
    pub fn row(&self, object: &Value) -> Value {
        let mut made = None;
        let make = self.kind.view.filter(|view| view.make.is_some());
        if let Some(view) = make {
            view.show(&self.kind.api_version(), made.insert(object.clone()));
        }
        let object = made.as_ref().unwrap_or(object);
        let name = self.names_first.then(|| object.pointer("/metadata/name").cloned().unwrap_or_default());
        let cells: Value = name
            .into_iter()
            .chain(self.columns.iter().map(|(column, template)| self.cell(column, template, object)))
            .collect();
        let mut row = Map::new();
        row.insert("cells".to_owned(), cells);
        match self.include {
            Include::Nothing => {}
            Include::Metadata => {
                row.insert("object".to_owned(), partial(object));
            }
            Include::Object => {
                let mut object = object.clone();
                if let Some(view) = self.kind.view.filter(|_| make.is_none()) {
                    view.show(&self.kind.api_version(), &mut object);
                }
                row.insert("object".to_owned(), object);
            }
        }
        Value::Object(row)
    }

    fn cell(&self, column: &Column, template: &Template, object: &Value) -> Value {
        if column.shows == Shows::All {
            return template.all(object).into();
        }
        let Some(value) = template.find(object) else {
            // A count of nothing is a number; elsewhere nothing is blank.
            return if column.shows == Shows::Count { 0.into() } else { Value::Null };
        };
        match (&*column.type_, &value) {
            (_, Value::Array(list)) if column.shows == Shows::Ready => {
                let ready = list.iter().filter(|one| one.get("ready") == Some(&Value::Bool(true))).count();
                format!("{ready}/{}", list.len()).into()
            }
            (_, Value::String(status)) if column.shows == Shows::Condition => match status.as_str() {
                "True" => "Ready".into(),
                "False" => "NotReady".into(),
                _ => "Unknown".into(),
            },
            (_, Value::Array(list)) if column.shows == Shows::Count => list.len().into(),
            (_, Value::Object(map)) if column.shows == Shows::Count => map.len().into(),
            ("date", Value::String(text)) => {
                text.parse().map_or_else(|_| "<invalid>".to_owned(), |then| age(then, self.now)).into()
            }
            ("integer" | "number", Value::Number(_))
            | ("boolean", Value::Bool(_))
            | (_, Value::String(_)) => value,
            (_, Value::Null) => Value::Null,
            (_, other) => other.to_string().into(),
        }
    }
}

/// A whole `Table`.
pub(super) fn table(metadata: &Value, definitions: Option<Value>, rows: Vec<Value>) -> Value {
    json!({
        "kind": "Table",
        "apiVersion": "meta.k8s.io/v1",
        "metadata": metadata,
        "columnDefinitions": definitions.unwrap_or(Value::Null),
        "rows": rows,
    })
}

/// The time since `then` in the words of kubectl: at most two units, the coarser the longer ago.
pub(super) fn age(then: Timestamp, now: Timestamp) -> String {
    let seconds = now.as_second() - then.as_second();
    let (minutes, hours, days) = (seconds / 60, seconds / 3_600, seconds / 86_400);
    let pair = |large: i64, unit: char, small: i64, part: char| {
        if small == 0 { format!("{large}{unit}") } else { format!("{large}{unit}{small}{part}") }
    };
    match seconds {
        ..-1 => "<invalid>".to_owned(),
        -1..=0 => "0s".to_owned(),
        1..120 => format!("{seconds}s"),
        120..600 => pair(minutes, 'm', seconds % 60, 's'),
        600..10_800 => format!("{minutes}m"),
        10_800..28_800 => pair(hours, 'h', minutes % 60, 'm'),
        28_800..172_800 => format!("{hours}h"),
        172_800..691_200 => pair(days, 'd', hours % 24, 'h'),
        691_200..63_072_000 => format!("{days}d"),
        63_072_000..252_288_000 => pair(days / 365, 'y', days % 365, 'd'),
        _ => format!("{}y", days / 365),
    }
}

/// A printer column's path, or several in braces with text between: `{.kind}/{.name}`.
#[derive(Debug)]
struct Template(Vec<Piece>);

#[derive(Debug)]
enum Piece {
    Text(String),
    /// The first that is found.
    Path(Vec<Vec<Step>>),
}

#[derive(Debug, PartialEq, Eq)]
enum Step {
    Key(String),
    Index(usize),
    Each,
    Where { key: String, value: String },
}

impl Template {
    fn parse(text: &str) -> Self {
        if !text.contains('{') {
            return Self(vec![Piece::Path(text.split("||").map(steps).collect())]);
        }
        let mut pieces = Vec::new();
        for part in text.split_inclusive('}') {
            let (before, path) = part.split_once('{').unwrap_or((part, ""));
            if !before.is_empty() {
                pieces.push(Piece::Text(before.to_owned()));
            }
            if let Some(path) = path.strip_suffix('}') {
                pieces.push(Piece::Path(vec![steps(path)]));
            }
        }
        Self(pieces)
    }

    /// Every text and number that the paths lead to.
    fn all(&self, object: &Value) -> String {
        let paths = self.0.iter().filter_map(|piece| match piece {
            Piece::Path(paths) => paths.first(),
            Piece::Text(_) => None,
        });
        let texts = paths.flat_map(|steps| walk_all(object, steps)).filter_map(|value| match value {
            Value::String(text) => Some(text.clone()),
            Value::Number(number) => Some(number.to_string()),
            _ => None,
        });
        texts.collect::<Vec<_>>().join(", ")
    }

    fn find(&self, object: &Value) -> Option<Value> {
        let first = |paths: &[Vec<Step>]| paths.iter().find_map(|steps| walk(object, steps));
        if let [Piece::Path(paths)] = self.0.as_slice() {
            return first(paths).cloned();
        }
        let text = self.0.iter().map(|piece| match piece {
            Piece::Text(text) => text.clone(),
            Piece::Path(paths) => match first(paths) {
                Some(Value::String(text)) => text.clone(),
                Some(Value::Null) | None => String::new(),
                Some(other) => other.to_string(),
            },
        });
        Some(Value::String(text.collect()))
    }
}

/// Reads `.a.b[0].c`, `.a[*].b`, `.a[?(@.type=="Ready")].b` and `.a.b\.c`.
fn steps(path: &str) -> Vec<Step> {
    let mut steps = Vec::new();
    let mut rest = path.trim();
    while !rest.is_empty() {
        if let Some(tail) = rest.strip_prefix('[') {
            let (inside, tail) = tail.split_once(']').unwrap_or((tail, ""));
            steps.push(bracket(inside));
            rest = tail;
        } else {
            rest = rest.strip_prefix('.').unwrap_or(rest);
            let mut key = String::new();
            let mut end = rest.len();
            let mut is_escaped = false;
            for (at, character) in rest.char_indices() {
                match character {
                    '\\' if !is_escaped => is_escaped = true,
                    '.' | '[' if !is_escaped => {
                        end = at;
                        break;
                    }
                    other => {
                        is_escaped = false;
                        key.push(other);
                    }
                }
            }
            if key == "*" {
                steps.push(Step::Each);
            } else if !key.is_empty() {
                steps.push(Step::Key(key));
            } else if end == 0 {
                break;
            }
            rest = rest.get(end..).unwrap_or_default();
        }
    }
    steps
}

fn bracket(inside: &str) -> Step {
    let quotes: &[char] = &['"', '\''];
    if inside == "*" {
        Step::Each
    } else if let Ok(index) = inside.parse() {
        Step::Index(index)
    } else if let Some((key, value)) = inside
        .strip_prefix("?(@.")
        .and_then(|test| test.strip_suffix(')'))
        .and_then(|test| test.split_once("=="))
    {
        Step::Where { key: key.trim().to_owned(), value: value.trim().trim_matches(quotes).to_owned() }
    } else {
        Step::Key(inside.trim_matches(quotes).to_owned())
    }
}

fn walk<'a>(value: &'a Value, steps: &[Step]) -> Option<&'a Value> {
    let Some((step, rest)) = steps.split_first() else { return Some(value) };
    below(value, step).find_map(|value| walk(value, rest))
}

fn walk_all<'a>(value: &'a Value, steps: &[Step]) -> Vec<&'a Value> {
    let Some((step, rest)) = steps.split_first() else { return vec![value] };
    below(value, step).flat_map(|value| walk_all(value, rest)).collect()
}

/// What one step leads to.
fn below<'a>(value: &'a Value, step: &Step) -> Box<dyn Iterator<Item = &'a Value> + 'a> {
    let items = value.as_array().map(Vec::as_slice).unwrap_or_default().iter();
    match step {
        Step::Key(key) => Box::new(value.get(key).into_iter()),
        Step::Index(index) => Box::new(value.get(index).into_iter()),
        Step::Each => Box::new(items),
        Step::Where { key, value: wanted } => {
            let (key, wanted) = (key.clone(), wanted.clone());
            Box::new(items.filter(move |item| item.get(&key).is_some_and(|found| *found == wanted)))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ages_read_as_kubectl_writes_them() {
        let now: Timestamp = "2026-06-01T00:00:00Z".parse().expect("a time");
        let cases = [
            (0, "0s"),
            (119, "119s"),
            (120, "2m"),
            (125, "2m5s"),
            (600, "10m"),
            (3_600 * 3, "3h"),
            (3_600 * 3 + 60, "3h1m"),
            (3_600 * 47, "47h"),
            (86_400 * 2 + 3_600, "2d1h"),
            (86_400 * 8, "8d"),
            (86_400 * 729, "729d"),
            (86_400 * 731, "2y1d"),
            (86_400 * 365 * 9, "9y"),
            (-5, "<invalid>"),
        ];

        for (seconds, words) in cases {
            let then = now - jiff::SignedDuration::from_secs(seconds);
            assert_eq!(age(then, now), words, "{seconds} s");
        }
    }

    #[test]
    fn paths_of_printer_columns_find_their_values() {
        let object = json!({"spec": {"list": [{"name": "a"}, {"name": "b"}], "a.b": 7},
            "status": {"conditions": [{"type": "Ready", "status": "True"}]}});
        let cases = [
            (".spec.list[1].name", json!("b")),
            (".spec.list[*].name", json!("a")),
            (".status.conditions[?(@.type==\"Ready\")].status", json!("True")),
            (".spec.a\\.b", json!(7)),
            ("{.spec.list[0].name}/{.spec.list[1].name}", json!("a/b")),
            (".spec.none||.spec.list[9].name||.spec.list[1].name", json!("b")),
        ];

        for (path, value) in cases {
            assert_eq!(Template::parse(path).find(&object), Some(value), "{path}");
        }
        for path in [".spec.nothing", ".spec.list[9]", ".", "", "[", ".spec[", ".spec..x", "{.spec.none"] {
            let _ = Template::parse(path).find(&object);
        }
    }
}
