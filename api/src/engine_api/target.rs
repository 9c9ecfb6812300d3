//! Paths and queries: read in one way or not at all, and written in one way.

use serde_json::{Map, Value as Json};

use super::refusal::{Refusal, Why};
use super::route::{Route, Value};
use super::table::ROUTES;
use super::{OLDEST, Request, body};

/// Longest value of a query, in bytes.
const LONGEST_VALUE: usize = 64 << 10;
/// Longest name of anything, in bytes.
const LONGEST_NAME: usize = 512;
/// Most times one key may come.
const MOST_REPEATS: usize = 128;

/// Reads method, path and query.
pub(super) fn read(method: &str, target: &str) -> Result<Request, Refusal> {
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let segments = segments(path)?;
    let (version, segments) = version(&segments)?;
    let pairs = pairs(query)?;
    let mut is_path_known = false;
    let mut refused: Option<(usize, Refusal)> = None;
    for route in ROUTES {
        let Some(params) = matched(route.path, segments) else { continue };
        is_path_known = true;
        if route.method != method {
            continue;
        }
        if let Some(why) = route.not_served {
            return Err(Refusal::new(Why::NotServed, why));
        }
        let checked = check_params(route, &params).and_then(|()| check_query(route, pairs.clone()));
        match checked {
            Ok(query) => return Ok(Request { route, version, params, query, headers: Vec::new() }),
            Err(refusal) => {
                // Of two routes with one path, what is wrong with the one that was meant.
                let known =
                    pairs.iter().filter(|(key, _)| route.query.iter().any(|(name, _)| name == key)).count();
                if refused.as_ref().is_none_or(|(most, _)| known > *most) {
                    refused = Some((known, refusal));
                }
            }
        }
    }
    Err(match refused {
        Some((_, refusal)) => refusal,
        None if is_path_known => {
            Refusal::new(Why::Method, "the Docker Engine API has no such method for this path")
        }
        None => Refusal::new(Why::Route, "the Docker Engine API has no such path, or it is not served here"),
    })
}

/// The segments of a path, with nothing in them that two readers could understand differently.
fn segments(path: &str) -> Result<Vec<String>, Refusal> {
    let rest = path.strip_prefix('/').ok_or_else(Refusal::path)?;
    let plain = rest.split('/').map(|segment| {
        // Of all escapes only those of clients in use, and only of what is no structure.
        let segment = segment.replace("%3A", ":").replace("%3a", ":").replace("%40", "@");
        let is_plain =
            !segment.is_empty() && segment != "." && segment != ".." && segment.bytes().all(is_plain);
        is_plain.then_some(segment).ok_or_else(Refusal::path)
    });
    plain.collect()
}

fn is_plain(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"._-:@".contains(&byte)
}

/// Takes `v1.41` off the front.
fn version(segments: &[String]) -> Result<(Option<u16>, &[String]), Refusal> {
    let Some((first, rest)) = segments.split_first() else { return Err(Refusal::path()) };
    let is_version = first
        .strip_prefix(['v', 'V'])
        .is_some_and(|rest| rest.starts_with(|letter: char| letter.is_ascii_digit() || letter == '.'));
    if !is_version {
        return Ok((None, segments));
    }
    let minor = first.strip_prefix("v1.").filter(|minor| minor.len() == 2);
    let minor = minor.filter(|minor| minor.bytes().all(|digit| digit.is_ascii_digit()));
    let minor = minor.and_then(|minor| minor.parse().ok()).filter(|minor| *minor >= OLDEST);
    Ok((Some(minor.ok_or_else(Refusal::version)?), rest))
}

/// What stands for each `{…}` of a template, if the path fits it.
fn matched(template: &str, segments: &[String]) -> Option<Vec<String>> {
    let parts: Vec<&str> = template.strip_prefix('/')?.split('/').collect();
    let mut params = Vec::new();
    let Some(many) = parts.iter().position(|part| *part == "{name...}") else {
        if parts.len() != segments.len() {
            return None;
        }
        for (part, segment) in parts.iter().zip(segments) {
            match *part {
                "{id}" => params.push(segment.clone()),
                literal if literal == segment => {}
                _ => return None,
            }
        }
        return Some(params);
    };
    let after = parts.len() - many - 1;
    let last = segments.len().checked_sub(after).filter(|last| *last > many)?;
    let (before, rest) = segments.split_at_checked(many)?;
    let (name, after) = rest.split_at_checked(last - many)?;
    let is_same = |parts: &[&str], segments: &[String]| parts.iter().zip(segments).all(|(a, b)| a == b);
    let fits = is_same(parts.get(..many)?, before) && is_same(parts.get(many + 1..)?, after);
    fits.then(|| vec![name.join("/")])
}

/// Refuses names that are none.
pub(super) fn check_params(route: &Route, params: &[String]) -> Result<(), Refusal> {
    let kinds: Vec<bool> = route
        .path
        .split('/')
        .filter(|part| part.starts_with('{'))
        .map(|part| part.ends_with("...}"))
        .collect();
    if kinds.len() != params.len() {
        return Err(Refusal::path());
    }
    for (is_reference, param) in kinds.into_iter().zip(params) {
        let is_name = if is_reference { is_reference_of(param) } else { is_name(param) };
        if !is_name {
            return Err(Refusal::new(Why::Path, "the path names something by what can be no name"));
        }
    }
    Ok(())
}

/// Of a container, network, volume or exec: a name or an id.
fn is_name(text: &str) -> bool {
    text.len() <= LONGEST_NAME
        && text.starts_with(|first: char| first.is_ascii_alphanumeric())
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte))
}

/// Of an image: `registry.example:5000/app:1`, `app@sha256:…`, an id.
fn is_reference_of(text: &str) -> bool {
    text.len() <= LONGEST_NAME
        && text.starts_with(|first: char| first.is_ascii_alphanumeric())
        && text
            .split('/')
            .all(|part| !part.is_empty() && part != "." && part != ".." && part.bytes().all(is_plain))
}

/// Keys and values, decoded.
fn pairs(query: &str) -> Result<Vec<(String, String)>, Refusal> {
    let unreadable = || Refusal::new(Why::Query, "the query cannot be read");
    let mut pairs = Vec::new();
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        let (key, value) = (decode(key), decode(value));
        pairs.push((key.ok_or_else(unreadable)?, value.ok_or_else(unreadable)?));
    }
    Ok(pairs)
}

/// A part of a query. A semicolon once parted keys, so it must be escaped.
fn decode(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'+' => b' ',
            b';' => return None,
            b'%' => {
                let digit = |byte: Option<u8>| char::from(byte?).to_digit(16);
                u8::try_from(digit(rest.next())? * 16 + digit(rest.next())?).ok()?
            }
            other => other,
        });
    }
    String::from_utf8(bytes).ok()
}

/// Refuses keys that the route does not know or that come twice, and gives each value the one way it is written in.
pub(super) fn check_query(
    route: &Route,
    pairs: Vec<(String, String)>,
) -> Result<Vec<(&'static str, String)>, Refusal> {
    let mut query: Vec<(&'static str, String)> = Vec::new();
    for (key, value) in pairs {
        let Some((known, kind)) = route.query.iter().find(|(known, _)| *known == key) else {
            return Err(Refusal::query(&key, "this key is not known here"));
        };
        let repeats = query.iter().filter(|(given, _)| given == known).count();
        let may_repeat = matches!(kind, Value::Texts | Value::Proses | Value::Platforms);
        if repeats > 0 && (!may_repeat || repeats >= MOST_REPEATS) {
            return Err(Refusal::query(known, "this key comes more than once"));
        }
        if value.len() > LONGEST_VALUE {
            return Err(Refusal::query(known, "its value is too long"));
        }
        let value = canonical(*kind, &value).map_err(|what| Refusal::query(known, what))?;
        if let Some(value) = value {
            query.push((*known, value));
        }
    }
    // Whatever chooses between two routes of one path must be there.
    for (key, kind) in route.query {
        if matches!((*key, kind), ("fromSrc", Value::Only(_))) && !query.iter().any(|(given, _)| given == key)
        {
            return Err(Refusal::query(key, "it is missing"));
        }
    }
    query.sort_by_key(|(key, _)| *key);
    Ok(query)
}

/// The one way that value is written; `None` where it says nothing.
fn canonical(kind: Value, text: &str) -> Result<Option<String>, &'static str> {
    let is_prose = matches!(kind, Value::Prose | Value::Proses);
    let is_breaking = |letter: char| letter.is_control() && !(is_prose && "\n\t\r".contains(letter));
    if text.contains(is_breaking) {
        return Err("it has control characters");
    }
    // What Docker takes for absent. A text may be empty: a tag of nothing pulls all.
    if text.is_empty() && !matches!(kind, Value::Only(_)) {
        return Ok(None);
    }
    let value = match kind {
        Value::Flag => match text.to_ascii_lowercase().as_str() {
            "1" | "true" | "yes" => "1".to_owned(),
            "0" | "false" | "no" | "none" => "0".to_owned(),
            _ => return Err("it is neither true nor false"),
        },
        Value::Int => {
            let digits = text.strip_prefix('-').unwrap_or(text);
            if digits.len() > 18 || !digits.bytes().all(|digit| digit.is_ascii_digit()) {
                return Err("it is no whole number");
            }
            text.parse::<i64>().map_err(|_| "it is no whole number")?.to_string()
        }
        Value::Text | Value::Texts | Value::Prose | Value::Proses => text.to_owned(),
        Value::Only(only) if only == text => text.to_owned(),
        Value::OneOf(known) if known.contains(&text) => text.to_owned(),
        Value::Only(_) | Value::OneOf(_) => return Err("this value is not served"),
        Value::Platform | Value::Platforms if !text.starts_with('{') => {
            let is_platform = |byte: u8| byte.is_ascii_alphanumeric() || b"/._-()+ ".contains(&byte);
            if !text.bytes().all(is_platform) {
                return Err("it is no platform");
            }
            text.to_owned()
        }
        Value::Platform | Value::Platforms => platform(&json(text)?)?.to_string(),
        Value::Filters => filters(&json(text)?)?.to_string(),
        Value::JsonTexts => {
            let value = json(text)?;
            if value.is_null() {
                return Ok(None);
            }
            let is_texts = value.as_array().is_some_and(|texts| texts.iter().all(Json::is_string));
            if !is_texts {
                return Err("it is no list of texts");
            }
            value.to_string()
        }
        Value::JsonMap => {
            let value = json(text)?;
            if value.is_null() {
                return Ok(None);
            }
            let is_text = |value: &Json| value.is_string() || value.is_null();
            if !value.as_object().is_some_and(|map| map.values().all(is_text)) {
                return Err("it is no map of texts");
            }
            value.to_string()
        }
        Value::JsonOutputs => {
            let value = json(text)?;
            if outputs(&value)? == 0 {
                return Ok(None);
            }
            value.to_string()
        }
        Value::JsonUlimits => {
            let value = json(text)?;
            if value.is_null() {
                return Ok(None);
            }
            body::ulimits(&value).ok_or("it is no list of limits")?
        }
    };
    Ok(Some(value))
}

fn json(text: &str) -> Result<Json, &'static str> {
    body::strict(text.as_bytes()).map_err(|_| "it is no JSON, or a key comes twice in it")
}

/// As newer clients write it: `{"label":{"a=b":true}}`.
fn filters(value: &Json) -> Result<Json, &'static str> {
    const NONE: &str = "these are no filters";
    let mut all = Map::new();
    for (name, values) in value.as_object().ok_or(NONE)? {
        let values: Vec<String> = match values {
            Json::Array(list) => {
                let texts = list.iter().map(|value| value.as_str().map(str::to_owned));
                texts.collect::<Option<_>>().ok_or(NONE)?
            }
            Json::Object(map) if map.values().all(|is_set| is_set == true) => map.keys().cloned().collect(),
            _ => return Err(NONE),
        };
        let values: Map<String, Json> = values.into_iter().map(|value| (value, true.into())).collect();
        all.insert(name.clone(), values.into());
    }
    Ok(all.into())
}

/// How many outputs: a tree of files or an archive of it, sent to the client, which alone knows where it puts that. Others have names,
/// which policies judge where they stand in `t`.
fn outputs(value: &Json) -> Result<usize, &'static str> {
    const NONE: &str = "of outputs, `local` and `tar` are served";
    let is_known = |output: &Json| {
        let mut members = output.as_object().into_iter().flatten();
        let is_typed =
            output.get("Type").and_then(Json::as_str).is_some_and(|kind| ["local", "tar"].contains(&kind));
        is_typed
            && members.all(|(name, value)| match name.as_str() {
                "Type" => true,
                // Where it goes is the client's affair, but for its standard output docker says so.
                "Attrs" => {
                    let mut settings = value.as_object().into_iter().flatten();
                    let is_plain = |(name, value): (&String, &Json)| name == "dest" && value == "-";
                    (value.is_null() || value.is_object()) && settings.all(is_plain)
                }
                _ => false,
            })
    };
    let all = value.as_array().filter(|all| all.iter().all(is_known)).ok_or(NONE)?;
    Ok(all.len())
}

fn platform(value: &Json) -> Result<Json, &'static str> {
    const NAMES: [&str; 5] = ["architecture", "os", "os.version", "os.features", "variant"];
    let members = value.as_object().ok_or("it is no platform")?;
    let is_known = members.iter().all(|(name, value)| {
        let is_list = value.as_array().is_some_and(|list| list.iter().all(Json::is_string));
        NAMES.contains(&name.as_str()) && if name == "os.features" { is_list } else { value.is_string() }
    });
    if is_known { Ok(value.clone()) } else { Err("it is no platform") }
}

/// The path and query as an engine is sent them.
pub(super) fn write(request: &Request, version: Option<u16>) -> String {
    let mut target = match version {
        Some(minor) => format!("/v1.{minor}"),
        None => String::new(),
    };
    let mut params = request.params.iter();
    for part in request.route.path.split('/').skip(1) {
        target.push('/');
        if part.starts_with('{') {
            // Checked: nothing in it needs an escape.
            target.push_str(params.next().map_or("", String::as_str));
        } else {
            target.push_str(part);
        }
    }
    for (index, (key, value)) in request.query.iter().enumerate() {
        target.push(if index == 0 { '?' } else { '&' });
        target.push_str(key);
        target.push('=');
        escape(value, &mut target);
    }
    target
}

fn escape(value: &str, into: &mut String) {
    const DIGITS: &[u8; 16] = b"0123456789ABCDEF";
    for byte in value.bytes() {
        if byte.is_ascii_alphanumeric() || b"._-~".contains(&byte) {
            into.push(char::from(byte));
        } else {
            into.push('%');
            for half in [byte >> 4, byte & 15] {
                into.push(DIGITS.get(usize::from(half)).copied().map_or('0', char::from));
            }
        }
    }
}
