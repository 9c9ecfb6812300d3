//! Label and field selectors in the grammar of Kubernetes.

use std::borrow::Cow;
use std::collections::BTreeSet;

use super::failure::{Failure, Outcome};
use crate::storage::{Mark, Object, Texts};

/// Which objects of a collection are meant.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Selector {
    labels: Vec<Requirement>,
    fields: Vec<FieldTerm>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Requirement {
    key: String,
    test: Test,
    /// One of them, of what has one of the wanted values.
    marks: Vec<Mark>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Test {
    Exists,
    Missing,
    In(BTreeSet<String>),
    NotIn(BTreeSet<String>),
    Above(i64),
    Below(i64),
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct FieldTerm {
    field: String,
    value: String,
    is_equal: bool,
    /// Of what has that field.
    mark: Option<Mark>,
}

impl Selector {
    /// Reads both selectors; `stored` knows what storage calls the kind's selectable fields beside name and namespace.
    pub fn parse(labels: &str, fields: &str, stored: impl Fn(&str) -> Option<Cow<'_, str>>) -> Outcome<Self> {
        Ok(Self { labels: Parser::new(labels).requirements()?, fields: parse_fields(fields, stored)? })
    }

    /// True where everything matches.
    pub fn is_everything(&self) -> bool {
        self.labels.is_empty() && self.fields.is_empty()
    }

    /// The one name that can match, if the selector says so.
    pub fn exact_name(&self) -> Option<&str> {
        self.exact("metadata.name")
    }

    fn exact(&self, field: &str) -> Option<&str> {
        self.fields.iter().find(|term| term.is_equal && term.field == field).map(|term| term.value.as_str())
    }

    /// Field and value of each term; 400 if there are others than of equality, for what is not in memory.
    pub fn equalities(&self) -> Outcome<Vec<(&str, &str)>> {
        if !self.labels.is_empty() || self.fields.iter().any(|term| !term.is_equal) {
            return Err(Failure::bad_request("only field selectors with = or == are supported here"));
        }
        Ok(self.fields.iter().map(|term| (term.field.as_str(), term.value.as_str())).collect())
    }

    /// True if the object is meant.
    pub fn matches(&self, object: &Object) -> bool {
        self.labels.iter().all(|requirement| requirement.holds(&object.labels))
            && self.fields.iter().all(|term| term.holds(object))
    }
}

impl Requirement {
    fn new(key: String, test: Test) -> Self {
        let marks = match &test {
            Test::In(values) => values.iter().map(|value| Mark::of(&key, value)).collect(),
            _ => Vec::new(),
        };
        Self { key, test, marks }
    }

    fn holds(&self, labels: &Texts) -> bool {
        if !self.marks.is_empty() && !self.marks.iter().any(|mark| labels.may_have(*mark)) {
            return false;
        }
        let value = labels.get(&self.key);
        match &self.test {
            Test::Exists => value.is_some(),
            Test::Missing => value.is_none(),
            Test::In(values) => value.is_some_and(|value| values.contains(value)),
            Test::NotIn(values) => value.is_none_or(|value| !values.contains(value)),
            Test::Above(bound) => {
                value.and_then(|value| value.parse().ok()).is_some_and(|value: i64| value > *bound)
            }
            Test::Below(bound) => {
                value.and_then(|value| value.parse().ok()).is_some_and(|value: i64| value < *bound)
            }
        }
    }
}

impl FieldTerm {
    fn holds(&self, object: &Object) -> bool {
        if self.mark.is_some_and(|mark| !object.fields.may_have(mark)) {
            return false;
        }
        let value = match self.field.as_str() {
            "metadata.name" => &*object.key.name,
            "metadata.namespace" => &*object.key.namespace,
            field => object.fields.get(field).unwrap_or_default(),
        };
        (value == self.value) == self.is_equal
    }
}

fn parse_fields(text: &str, stored: impl Fn(&str) -> Option<Cow<'_, str>>) -> Outcome<Vec<FieldTerm>> {
    let mut terms = Vec::new();
    for term in split_unescaped(text) {
        if term.is_empty() {
            continue;
        }
        let (field, value, is_equal) = split_term(&term).ok_or_else(|| {
            Failure::bad_request(format!("invalid selector: '{text}'; can't understand '{term}'"))
        })?;
        let is_everybodys = matches!(field, "metadata.name" | "metadata.namespace");
        let field = if is_everybodys { Some(Cow::Borrowed(field)) } else { stored(field) }
            .ok_or_else(|| Failure::bad_request(format!("field label not supported: {field}")))?
            .into_owned();
        let value = unescape(value).ok_or_else(|| {
            Failure::bad_request(format!("invalid field selector: invalid escape in '{term}'"))
        })?;
        // A field that is missing is as one that is empty.
        let is_marked = is_equal && !is_everybodys && !value.is_empty();
        let mark = is_marked.then(|| Mark::of(&field, &value));
        terms.push(FieldTerm { field, value, is_equal, mark });
    }
    Ok(terms)
}

/// Splits at commas that no backslash precedes.
fn split_unescaped(text: &str) -> Vec<String> {
    let mut terms = vec![String::new()];
    let mut is_escaped = false;
    for character in text.chars() {
        if character == ',' && !is_escaped {
            terms.push(String::new());
            continue;
        }
        is_escaped = character == '\\' && !is_escaped;
        if let Some(last) = terms.last_mut() {
            last.push(character);
        }
    }
    terms
}

fn split_term(term: &str) -> Option<(&str, &str, bool)> {
    let at = term.find(['=', '!'])?;
    let (field, rest) = term.split_at(at);
    if let Some(value) = rest.strip_prefix("!=") {
        return Some((field, value, false));
    }
    let value = rest.strip_prefix("==").or_else(|| rest.strip_prefix('='))?;
    Some((field, value, true))
}

fn unescape(text: &str) -> Option<String> {
    let mut plain = String::with_capacity(text.len());
    let mut characters = text.chars();
    while let Some(character) = characters.next() {
        match character {
            '\\' => plain.push(characters.next().filter(|next| matches!(next, '\\' | ',' | '='))?),
            '=' => return None,
            other => plain.push(other),
        }
    }
    Some(plain)
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Token {
    Word(String),
    Comma,
    Open,
    Close,
    Not,
    Equals,
    NotEquals,
    Greater,
    Less,
}

struct Parser {
    text: String,
    tokens: std::iter::Peekable<std::vec::IntoIter<Token>>,
}

impl Parser {
    fn new(text: &str) -> Self {
        let mut tokens = Vec::new();
        let mut characters = text.chars().peekable();
        while let Some(character) = characters.next() {
            let token = match character {
                character if character.is_ascii_whitespace() => continue,
                ',' => Token::Comma,
                '(' => Token::Open,
                ')' => Token::Close,
                '>' => Token::Greater,
                '<' => Token::Less,
                '!' if characters.next_if_eq(&'=').is_some() => Token::NotEquals,
                '!' => Token::Not,
                '=' => {
                    characters.next_if_eq(&'=');
                    Token::Equals
                }
                first => {
                    let mut word = String::from(first);
                    while let Some(next) = characters.next_if(|next| {
                        !next.is_ascii_whitespace()
                            && !matches!(next, ',' | '(' | ')' | '!' | '=' | '>' | '<')
                    }) {
                        word.push(next);
                    }
                    Token::Word(word)
                }
            };
            tokens.push(token);
        }
        Self { text: text.to_owned(), tokens: tokens.into_iter().peekable() }
    }

    fn requirements(mut self) -> Outcome<Vec<Requirement>> {
        let mut requirements = Vec::new();
        if self.tokens.peek().is_none() {
            return Ok(requirements);
        }
        loop {
            requirements.push(self.requirement()?);
            match self.tokens.next() {
                None => return Ok(requirements),
                Some(Token::Comma) => {}
                Some(_) => return Err(self.refuse("expected ',' between requirements")),
            }
        }
    }

    fn requirement(&mut self) -> Outcome<Requirement> {
        let is_negated = self.tokens.next_if_eq(&Token::Not).is_some();
        let Some(Token::Word(key)) = self.tokens.next() else {
            return Err(self.refuse("expected a label key"));
        };
        if !is_label_key(&key) {
            return Err(self.refuse(&format!("'{key}' is not a label key")));
        }
        if is_negated {
            return Ok(Requirement::new(key, Test::Missing));
        }
        let test = match self.tokens.peek() {
            None | Some(Token::Comma) => Test::Exists,
            Some(Token::Equals) => Test::In(self.value()?),
            Some(Token::NotEquals) => Test::NotIn(self.value()?),
            Some(Token::Word(word)) if word == "in" => Test::In(self.values()?),
            Some(Token::Word(word)) if word == "notin" => Test::NotIn(self.values()?),
            Some(Token::Greater) => Test::Above(self.bound()?),
            Some(Token::Less) => Test::Below(self.bound()?),
            Some(_) => return Err(self.refuse("expected '=', '==', '!=', 'in', 'notin', '>' or '<'")),
        };
        Ok(Requirement::new(key, test))
    }

    fn value(&mut self) -> Outcome<BTreeSet<String>> {
        self.tokens.next();
        let value = match self.tokens.next_if(|token| matches!(token, Token::Word(_))) {
            Some(Token::Word(value)) => value,
            _ => String::new(),
        };
        Ok(BTreeSet::from([self.checked(value)?]))
    }

    fn bound(&mut self) -> Outcome<i64> {
        self.tokens.next();
        let bound = match self.tokens.next() {
            Some(Token::Word(word)) => word.parse().ok(),
            _ => None,
        };
        bound.ok_or_else(|| self.refuse("expected a whole number after '>' or '<'"))
    }

    fn values(&mut self) -> Outcome<BTreeSet<String>> {
        self.tokens.next();
        if self.tokens.next() != Some(Token::Open) {
            return Err(self.refuse("expected '('"));
        }
        let mut values = BTreeSet::new();
        loop {
            let value = match self.tokens.next_if(|token| matches!(token, Token::Word(_))) {
                Some(Token::Word(value)) => value,
                _ => String::new(),
            };
            values.insert(self.checked(value)?);
            match self.tokens.next() {
                Some(Token::Comma) => {}
                Some(Token::Close) => return Ok(values),
                _ => return Err(self.refuse("expected ',' or ')'")),
            }
        }
    }

    fn checked(&self, value: String) -> Outcome<String> {
        let is_valid = value.len() <= 63 && (value.is_empty() || is_qualified(&value));
        if is_valid { Ok(value) } else { Err(self.refuse(&format!("'{value}' is not a label value"))) }
    }

    fn refuse(&self, why: &str) -> Failure {
        Failure::bad_request(format!("unable to parse requirement: {why} in '{}'", self.text))
    }
}

fn is_label_key(key: &str) -> bool {
    let (prefix, name) = key.rsplit_once('/').map_or((None, key), |(prefix, name)| (Some(prefix), name));
    let is_prefix = |prefix: &str| {
        (1..=253).contains(&prefix.len())
            && prefix.split('.').all(|part| {
                is_qualified(part)
                    && part
                        .bytes()
                        .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-')
            })
    };
    name.len() <= 63 && is_qualified(name) && prefix.is_none_or(is_prefix)
}

/// Letters and digits, with `-_.` between them.
fn is_qualified(text: &str) -> bool {
    let bytes = text.as_bytes();
    let is_edge = |byte: Option<&u8>| byte.is_some_and(u8::is_ascii_alphanumeric);
    is_edge(bytes.first())
        && is_edge(bytes.last())
        && bytes.iter().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.'))
}

#[cfg(test)]
mod properties;

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use uuid::Uuid;

    use super::*;
    use crate::storage::{Key, Resource, Version};

    fn object() -> Object {
        let map = |pairs: &[(&str, &str)]| pairs.iter().copied().collect();
        Object {
            key: Key { resource: Resource("x".into()), namespace: "n".into(), name: "web".into() },
            uid: Uuid::nil(),
            version: Version(1),
            labels: map(&[("app", "web"), ("gantry.dev/tier", "front"), ("empty", ""), ("number", "5")]),
            fields: map(&[("status.phase", "Running")]),
            json: Bytes::new(),
        }
    }

    fn parse(labels: &str, fields: &str) -> Outcome<Selector> {
        Selector::parse(labels, fields, |field| (field == "status.phase").then_some(Cow::Borrowed(field)))
    }

    #[test]
    fn label_selectors_say_what_kubernetes_says() {
        let cases = [
            ("", true),
            ("app", true),
            ("!app", false),
            ("!gone", true),
            ("app=web", true),
            ("app==web,gantry.dev/tier=front", true),
            ("app = web , gantry.dev/tier != front", false),
            ("app!=api", true),
            ("gone!=api", true),
            ("app in (web, api)", true),
            ("app notin (web,api)", false),
            ("gone notin (web)", true),
            ("gone in (web)", false),
            ("empty=", true),
            ("empty in (,a)", true),
            ("in in (in)", false),
            ("number>4", true),
            ("number > 5", false),
            ("number<6,number>-1", true),
            ("app>1", false),
            ("gone<1", false),
        ];

        for (text, is_match) in cases {
            assert_eq!(parse(text, "").expect(text).matches(&object()), is_match, "{text}");
        }
    }

    #[test]
    fn field_selectors_say_what_kubernetes_says() {
        let cases = [
            ("metadata.name=web", true),
            ("metadata.name!=web", false),
            ("metadata.namespace==n,status.phase=Running", true),
            ("status.phase!=Running", false),
            (r"metadata.name=a\,b", false),
        ];

        for (text, is_match) in cases {
            assert_eq!(parse("", text).expect(text).matches(&object()), is_match, "{text}");
        }
        let unknown = parse("", "spec.nothing=1").expect_err("no such field");
        assert_eq!(unknown.to_string(), "field label not supported: spec.nothing");
    }

    #[test]
    fn what_is_no_selector_is_refused() {
        for text in [
            "=a", "a b", "a in b", "a in (b", "a>b", "a>", "a<1.5", "a,,b", "a,", "!", "a=b c", "-a", "a=%",
            "x/y/z=1", "()",
        ] {
            assert_eq!(parse(text, "").expect_err(text).code().as_u16(), 400, "{text}");
        }
        for text in ["metadata.name", "status.phase=a=b", r"metadata.name=\x"] {
            assert_eq!(parse("", text).expect_err(text).code().as_u16(), 400, "{text}");
        }
    }
}
