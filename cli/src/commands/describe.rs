//! `gantry describe`: an object for reading, and what was said of it.

use std::fmt::Write as _;

use http::Request;
use serde_json::Value;

use super::objects;
use super::{fleet, get};
use crate::args::{DescribeArgs, Reach};
use crate::client::Controller;
use crate::clock;
use crate::kinds;
use crate::output::age::age;
use crate::output::out;
use crate::output::plain::plain;
use crate::output::table::table;

/// What nobody reads.
const LEFT_OUT: [&str; 4] = ["managedFields", "resourceVersion", "generation", "uid"];

/// Prints each, with its events.
pub(crate) async fn run(reach: &Reach, options: &DescribeArgs) -> anyhow::Result<()> {
    let controller = Controller::reach(reach).await?;
    let kinds = kinds::known(&controller, |kinds| kinds::meant(kinds, &options.objects.what).is_ok()).await?;
    let meant = kinds::meant(&kinds, &options.objects.what)?;
    let all = options.objects.selector.is_none();
    let mut gap = "";
    for named in objects::find(&controller, &meant, options.objects.selector.as_deref(), all).await? {
        let request = Request::get(&named.path).body(Vec::new())?;
        let object: Value = controller.read(request, &get::said(&named.kind, &named.name)).await?;
        let mut text = described(&object);
        text.push_str(&events(&controller, &object).await?);
        out::write(&format!("{gap}{text}"))?;
        gap = "\n\n";
    }
    Ok(())
}

/// Every field that says something, a line each.
fn described(object: &Value) -> String {
    let mut text = String::new();
    let metadata = object.get("metadata").and_then(Value::as_object);
    let (names, others): (Vec<_>, Vec<_>) =
        metadata.into_iter().flatten().partition(|(name, _)| *name == "name");
    for (name, value) in names.into_iter().chain(others).filter(|(name, _)| !LEFT_OUT.contains(&&***name)) {
        line(name, value, 0, &mut text);
    }
    for (name, value) in object.as_object().into_iter().flatten() {
        if !matches!(&**name, "metadata" | "apiVersion" | "kind") {
            line(name, value, 0, &mut text);
        }
    }
    text
}

fn lines(value: &Value, depth: usize, text: &mut String) {
    match value {
        Value::Object(fields) => {
            let fields = fields.iter().filter(|(name, _)| !LEFT_OUT.contains(&&***name));
            fields.for_each(|(name, value)| line(name, value, depth, text));
        }
        Value::Array(items) => {
            for item in items {
                let mut inner = String::new();
                lines(item, depth + 1, &mut inner);
                // The first line of an item says that it is one.
                let at = depth * 2;
                let shown = inner.get(at + 2..).unwrap_or_default();
                // Writing to a String cannot fail.
                let _ = write!(text, "{:at$}- {shown}", "");
            }
        }
        other => {
            let _ = writeln!(text, "{:width$}{}", "", scalar(other), width = depth * 2);
        }
    }
}

fn line(name: &str, value: &Value, depth: usize, text: &mut String) {
    let (name, at) = (plain(name), depth * 2);
    // Writing to a String cannot fail.
    match value {
        Value::Object(fields) if fields.is_empty() => {}
        Value::Array(items) if items.is_empty() => {}
        Value::Object(_) | Value::Array(_) => {
            let _ = writeln!(text, "{:at$}{name}:", "");
            lines(value, depth + 1, text);
        }
        other => {
            let _ = writeln!(text, "{:at$}{:<20} {}", "", format!("{name}:"), scalar(other));
        }
    }
}

fn scalar(value: &Value) -> String {
    match value {
        Value::String(text) => plain(text),
        other => other.to_string(),
    }
}

/// What was said of it in the last hour; what has no namespace has its events in `default`.
async fn events(controller: &Controller, object: &Value) -> anyhow::Result<String> {
    let text = |pointer: &str| object.pointer(pointer).and_then(Value::as_str);
    let Some(uid) = text("/metadata/uid") else { return Ok(String::new()) };
    let path = format!("/api/v1/namespaces/{}/events", text("/metadata/namespace").unwrap_or("default"));
    let selector = format!("involvedObject.uid={uid}");
    let found =
        fleet::list(controller, &path, &[("fieldSelector", &selector)], "its events cannot be listed")
            .await?;
    if found.is_empty() {
        return Ok("events:              none\n".to_owned());
    }
    let now = clock::now();
    let mut found: Vec<_> = found
        .iter()
        .map(|event| {
            let text = |field: &str| event.get(field).and_then(Value::as_str).unwrap_or_default().to_owned();
            let last = [text("lastTimestamp"), text("eventTime")].into_iter().find(|time| !time.is_empty());
            (last.unwrap_or_default(), text("type"), text("reason"), text("message"))
        })
        .collect();
    found.sort();
    let rows: Vec<_> = found
        .into_iter()
        .map(|(last, kind, reason, message)| vec![age(last.parse().ok(), now), kind, reason, message])
        .collect();
    Ok(format!("events:\n{}", table(&["  LAST SEEN", "TYPE", "REASON", "MESSAGE"], &indented(rows), false)))
}

fn indented(mut rows: Vec<Vec<String>>) -> Vec<Vec<String>> {
    for first in rows.iter_mut().filter_map(|row| row.first_mut()) {
        first.insert_str(0, "  ");
    }
    rows
}

#[cfg(test)]
mod tests {
    use insta::assert_snapshot;
    use serde_json::json;

    use super::*;

    #[test]
    fn t16_an_object_reads_from_top_to_bottom() {
        let object = json!({
            "apiVersion": "gantry.dev/v1alpha1", "kind": "Operation",
            "metadata": {"name": "stop-web\u{1b}", "uid": "u", "labels": {"tier": "front"}, "finalizers": []},
            "spec": {"action": "Stop", "target": {"name": "web"}},
            "status": {"conditions": [{"type": "Accepted", "status": "True"}, {"type": "Complete", "status": "False"}], "attempts": 1},
        });

        assert_snapshot!(described(&object), @r"
        name:                stop-web\u001b
        labels:
          tier:                front
        spec:
          action:              Stop
          target:
            name:                web
        status:
          attempts:            1
          conditions:
            - status:              True
              type:                Accepted
            - status:              False
              type:                Complete
        ");
    }
}
