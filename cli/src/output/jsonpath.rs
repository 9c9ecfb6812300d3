//! Kubernetes' JSONPath: `{.items[*].metadata.name}{"\n"}`, `{range .items[*]}…{end}`, `{.a[?(@.type=="Ready")].status}`.

use std::fmt::Write as _;

use serde_json::Value;

/// A text with paths in braces.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Template(Vec<Piece>);

#[derive(Clone, Debug, PartialEq)]
enum Piece {
    Text(String),
    Path(Path),
    Range(Path, Vec<Piece>),
}

/// A path without braces, as `.metadata.name`.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Path(Vec<Step>);

#[derive(Clone, Debug, PartialEq)]
enum Step {
    Key(String),
    Each,
    /// Everything of that name, however deep.
    Below(String),
    /// From, to, both counted from the end where negative.
    Slice(i64, Option<i64>),
    Index(i64),
    /// What is compared, how, and with what; with nothing: is it there.
    Where(Path, Option<(Compare, Value)>),
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Compare {
    Equal,
    NotEqual,
    Less,
    LessOrEqual,
    More,
    MoreOrEqual,
}

impl Template {
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        // As kubectl has it, `.metadata.name` is a template too.
        let text = if text.contains('{') { text.to_owned() } else { format!("{{{text}}}") };
        let mut rest = &*text;
        let pieces = pieces(&mut rest, false)?;
        Ok(Self(pieces))
    }

    /// The text for a value. What is not there is left out.
    pub(crate) fn render(&self, value: &Value) -> String {
        let mut text = String::new();
        render(&self.0, value, value, &mut text);
        text
    }
}

fn render(pieces: &[Piece], value: &Value, root: &Value, text: &mut String) {
    for piece in pieces {
        match piece {
            Piece::Text(piece) => text.push_str(piece),
            Piece::Path(path) => {
                let found: Vec<_> = path.find(value, root).into_iter().map(shown).collect();
                text.push_str(&found.join(" "));
            }
            Piece::Range(path, inner) => {
                for item in path.find(value, root) {
                    render(inner, item, root, text);
                }
            }
        }
    }
}

/// As it stands in a line: texts as they are, everything else as JSON.
pub(crate) fn shown(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

/// Pieces up to `{end}`, or to the end of the text.
fn pieces(rest: &mut &str, is_range: bool) -> Result<Vec<Piece>, String> {
    let mut found = Vec::new();
    loop {
        let Some((text, after)) = rest.split_once('{') else {
            if is_range {
                return Err("a {range} has no {end}".to_owned());
            }
            if !rest.is_empty() {
                found.push(Piece::Text((*rest).to_owned()));
            }
            return Ok(found);
        };
        if !text.is_empty() {
            found.push(Piece::Text(text.to_owned()));
        }
        let close = closing(after).ok_or("a { has no }")?;
        let (inner, after) = after.split_at(close);
        *rest = after.strip_prefix('}').unwrap_or(after);
        let inner = inner.trim();
        if inner == "end" {
            return if is_range { Ok(found) } else { Err("an {end} has no {range}".to_owned()) };
        }
        if let Some(path) = inner.strip_prefix("range ") {
            found.push(Piece::Range(Path::parse(path.trim())?, pieces(rest, true)?));
        } else if let Some(text) = quoted(inner) {
            found.push(Piece::Text(text));
        } else {
            found.push(Piece::Path(Path::parse(inner)?));
        }
    }
}

/// Where the brace ends, quotes minded.
fn closing(text: &str) -> Option<usize> {
    let mut quote = None;
    let mut is_escaped = false;
    for (at, letter) in text.char_indices() {
        match (quote, letter) {
            _ if is_escaped => is_escaped = false,
            (Some(_), '\\') => is_escaped = true,
            (Some(open), _) if open == letter => quote = None,
            (None, '"' | '\'') => quote = Some(letter),
            (None, '}') => return Some(at),
            _ => {}
        }
    }
    None
}

/// A text in quotes, its escapes undone.
fn quoted(text: &str) -> Option<String> {
    let open = text.chars().next().filter(|open| matches!(open, '"' | '\''))?;
    let inner = text.strip_prefix(open)?.strip_suffix(open)?;
    let mut letters = inner.chars();
    let mut read = String::new();
    while let Some(letter) = letters.next() {
        match letter {
            '\\' => match letters.next()? {
                'n' => read.push('\n'),
                't' => read.push('\t'),
                'r' => read.push('\r'),
                other => read.push(other),
            },
            letter => read.push(letter),
        }
    }
    Some(read)
}

impl Path {
    /// Reads a path; `$` and `@` at its beginning mean the value itself.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let mut rest = text.trim_start_matches(['$', '@']);
        let mut steps = Vec::new();
        while !rest.is_empty() {
            if let Some(after) = rest.strip_prefix("..") {
                let (name, after) = name(after);
                steps.push(Step::Below(name));
                rest = after;
            } else if let Some(after) = rest.strip_prefix('.') {
                let (name, after) = name(after);
                match &*name {
                    "" if after.is_empty() || after.starts_with('[') => {}
                    "" => return Err(format!("`{text}` is no path")),
                    "*" => steps.push(Step::Each),
                    _ => steps.push(Step::Key(name)),
                }
                rest = after;
            } else if let Some(after) = rest.strip_prefix('[') {
                let close = bracket(after).ok_or_else(|| format!("`{text}`: a [ has no ]"))?;
                let (inner, after) = after.split_at(close);
                steps.push(subscript(inner.trim())?);
                rest = after.strip_prefix(']').unwrap_or(after);
            } else if steps.is_empty() {
                let (name, after) = name(rest);
                if name.is_empty() {
                    return Err(format!("`{text}` is no path"));
                }
                steps.push(Step::Key(name));
                rest = after;
            } else {
                return Err(format!("`{text}` is no path"));
            }
        }
        Ok(Self(steps))
    }

    /// Everything it leads to.
    pub(crate) fn find<'a>(&self, value: &'a Value, root: &'a Value) -> Vec<&'a Value> {
        let mut found = vec![value];
        for step in &self.0 {
            found = found.into_iter().flat_map(|value| step.take(value, root)).collect();
        }
        found
    }
}

/// A name up to the next dot or bracket; `\.` is a dot of the name.
fn name(text: &str) -> (String, &str) {
    let mut name = String::new();
    let mut letters = text.char_indices();
    while let Some((at, letter)) = letters.next() {
        match letter {
            '.' | '[' => return (name, text.get(at..).unwrap_or_default()),
            '\\' => name.extend(letters.next().map(|(_, letter)| letter)),
            letter => name.push(letter),
        }
    }
    (name, "")
}

/// Where the bracket ends, brackets inside and quotes minded.
fn bracket(text: &str) -> Option<usize> {
    let (mut depth, mut quote) = (0, None);
    for (at, letter) in text.char_indices() {
        match (quote, letter) {
            (Some(open), _) if open == letter => quote = None,
            (None, '"' | '\'') => quote = Some(letter),
            (None, '[') => depth += 1,
            (None, ']') if depth == 0 => return Some(at),
            (None, ']') => depth -= 1,
            _ => {}
        }
    }
    None
}

fn subscript(inner: &str) -> Result<Step, String> {
    let wrong = || format!("`[{inner}]` is not understood");
    if inner == "*" {
        return Ok(Step::Each);
    }
    if let Some(name) = quoted(inner) {
        return Ok(Step::Key(name));
    }
    if let Some(filter) = inner.strip_prefix("?(").and_then(|filter| filter.strip_suffix(')')) {
        for (sign, compare) in [
            ("==", Compare::Equal),
            ("!=", Compare::NotEqual),
            ("<=", Compare::LessOrEqual),
            (">=", Compare::MoreOrEqual),
            ("<", Compare::Less),
            (">", Compare::More),
        ] {
            if let Some((path, value)) = filter.split_once(sign) {
                let value = value.trim();
                let value = match quoted(value) {
                    Some(text) => Value::String(text),
                    None => serde_json::from_str(value).map_err(|_| wrong())?,
                };
                return Ok(Step::Where(Path::parse(path.trim())?, Some((compare, value))));
            }
        }
        return Ok(Step::Where(Path::parse(filter.trim())?, None));
    }
    let number = |text: &str| text.trim().parse::<i64>().map_err(|_| wrong());
    match inner.split_once(':') {
        Some((from, to)) => {
            let from = if from.trim().is_empty() { 0 } else { number(from)? };
            let to = if to.trim().is_empty() { None } else { Some(number(to)?) };
            Ok(Step::Slice(from, to))
        }
        None => Ok(Step::Index(number(inner)?)),
    }
}

impl Step {
    fn take<'a>(&self, value: &'a Value, root: &'a Value) -> Vec<&'a Value> {
        match self {
            Self::Key(name) => value.get(name).into_iter().collect(),
            Self::Each => children(value),
            Self::Below(name) => {
                let mut found: Vec<_> = value.get(name).into_iter().collect();
                found.extend(children(value).into_iter().flat_map(|child| self.take(child, root)));
                found
            }
            Self::Index(index) => slice(value, *index, index.checked_add(1).filter(|end| *end != 0)),
            Self::Slice(from, to) => slice(value, *from, *to),
            Self::Where(path, compared) => {
                let holds = |item: &&Value| match compared {
                    None => !path.find(item, root).is_empty(),
                    Some((compare, wanted)) => {
                        path.find(item, root).into_iter().any(|found| compare.holds(found, wanted))
                    }
                };
                children(value).into_iter().filter(holds).collect()
            }
        }
    }
}

fn children(value: &Value) -> Vec<&Value> {
    match value {
        Value::Array(items) => items.iter().collect(),
        Value::Object(fields) => fields.values().collect(),
        _ => Vec::new(),
    }
}

fn slice(value: &Value, from: i64, to: Option<i64>) -> Vec<&Value> {
    let Value::Array(items) = value else { return Vec::new() };
    let length = i64::try_from(items.len()).unwrap_or(i64::MAX);
    let place = |at: i64| if at < 0 { length + at } else { at };
    let (from, to) = (place(from), to.map_or(length, place));
    let numbered = items.iter().zip(0_i64..);
    numbered.filter(|(_, at)| (from..to).contains(at)).map(|(item, _)| item).collect()
}

impl Compare {
    fn holds(self, found: &Value, wanted: &Value) -> bool {
        let order = match (found, wanted) {
            (Value::Number(found), Value::Number(wanted)) => {
                found.as_f64().and_then(|found| found.partial_cmp(&wanted.as_f64()?))
            }
            (Value::String(found), Value::String(wanted)) => Some(found.cmp(wanted)),
            _ => None,
        };
        match self {
            Self::Equal => found == wanted || order.is_some_and(std::cmp::Ordering::is_eq),
            Self::NotEqual => found != wanted,
            Self::Less => order.is_some_and(std::cmp::Ordering::is_lt),
            Self::LessOrEqual => order.is_some_and(std::cmp::Ordering::is_le),
            Self::More => order.is_some_and(std::cmp::Ordering::is_gt),
            Self::MoreOrEqual => order.is_some_and(std::cmp::Ordering::is_ge),
        }
    }
}

/// Columns as `NAME:.metadata.name,PHASE:.status.phase`.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Columns(Vec<(String, Path)>);

impl Columns {
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let mut columns = Vec::new();
        for column in text.split(',') {
            let (heading, path) = column
                .split_once(':')
                .ok_or_else(|| format!("`{column}` is no column as `NAME:.metadata.name`"))?;
            let path = path.trim_start_matches('{').trim_end_matches('}');
            columns.push((heading.to_owned(), Path::parse(path)?));
        }
        Ok(Self(columns))
    }

    pub(crate) fn heading(&self) -> Vec<&str> {
        self.0.iter().map(|(heading, _)| &**heading).collect()
    }

    /// The cells of an object; what is not there is empty.
    pub(crate) fn row(&self, object: &Value) -> Vec<String> {
        self.0
            .iter()
            .map(|(_, path)| {
                path.find(object, object).into_iter().map(shown).fold(String::new(), |mut cell, value| {
                    // Writing to a String cannot fail.
                    let _ = write!(cell, "{}{value}", if cell.is_empty() { "" } else { "," });
                    cell
                })
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn render(template: &str) -> String {
        let list = json!({"kind": "List", "items": [
            {"metadata": {"name": "a", "labels": {"gantry.dev/x": "1"}}, "n": 1, "conditions": [{"type": "Ready", "status": "True"}]},
            {"metadata": {"name": "b"}, "n": 2, "conditions": [{"type": "Ready", "status": "False"}]},
            {"metadata": {"name": "c"}, "n": 3},
        ]});
        Template::parse(template).expect(template).render(&list)
    }

    #[test]
    fn paths_lead_where_kubectl_s_do() {
        for (template, expected) in [
            ("{.kind}", "List"),
            (".kind", "List"),
            ("{$.kind}", "List"),
            ("{.items[*].metadata.name}", "a b c"),
            ("{.items[0].metadata.name} and {.items[-1].metadata.name}", "a and c"),
            ("{.items[1:].n}", "2 3"),
            ("{.items[:-1].n}", "1 2"),
            ("{..name}", "a b c"),
            ("{.items[0].metadata.labels.gantry\\.dev/x}", "1"),
            ("{.items[0].metadata.labels['gantry.dev/x']}", "1"),
            ("{.items[?(@.n>1)].metadata.name}", "b c"),
            ("{.items[?(@.metadata.name==\"b\")].conditions[?(@.type==\"Ready\")].status}", "False"),
            ("{.items[?(@.conditions)].metadata.name}", "a b"),
            ("{range .items[*]}{.metadata.name}={.n}{\"\\n\"}{end}", "a=1\nb=2\nc=3\n"),
            ("{range .items[:1]}{range .conditions[*]}{.type}{end}{'}'}{end}", "Ready}"),
            ("{.nothing.here}", ""),
            ("{.items[0].metadata.labels}", "{\"gantry.dev/x\":\"1\"}"),
        ] {
            assert_eq!(render(template), expected, "{template}");
        }
    }

    #[test]
    fn what_is_no_template_is_an_error() {
        for wrong in ["{", "{range .items[*]}", "{end}", "{.a[}", "{.a[b]}", "{.a[?(@.b==x)]}", "{.a b[0]c}"]
        {
            assert!(Template::parse(wrong).is_err(), "{wrong} was taken");
        }
        assert!(Columns::parse("NAME").is_err());
    }
}
