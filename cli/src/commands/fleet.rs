//! What there is on the hosts of a fleet: one list of all, or each host asked where Docker's filters are meant.

use futures::{StreamExt as _, stream};
use gantry_api::names::{DOCKER_GROUP, GROUP};
use http::Request;
use serde::Deserialize;
use serde_json::Value;

use crate::args::FleetArgs;
use crate::client::{self, Controller, encoded};
use crate::kinds::Kind;
use crate::output::failure::{Ends, code, render};

/// Objects asked for at once.
const PAGE: usize = 500;
/// Hosts asked at once.
const AT_ONCE: usize = 8;

/// A page as it is answered.
#[derive(Debug, Default, Deserialize)]
struct Page {
    #[serde(default)]
    metadata: Place,
    #[serde(default)]
    items: Vec<Value>,
}

#[derive(Debug, Default, Deserialize)]
struct Place {
    #[serde(default, rename = "continue")]
    next: String,
}

/// Every object below a path, page by page.
pub(crate) async fn list(
    controller: &Controller,
    path: &str,
    query: &[(&str, &str)],
    what: &str,
) -> anyhow::Result<Vec<Value>> {
    let query = client::query(query.iter().copied());
    let (mut items, mut from) = (Vec::new(), String::new());
    loop {
        let request = Request::get(format!("{path}?limit={PAGE}{query}{from}")).body(Vec::new())?;
        let page: Page = controller.read(request, what).await?;
        let is_end = page.metadata.next.is_empty() || page.items.is_empty();
        items.extend(page.items);
        if is_end {
            return Ok(items);
        }
        from = format!("&continue={}", encoded(&page.metadata.next));
    }
}

/// The instances of the namespace, or of all.
pub(crate) async fn instances(
    controller: &Controller,
    all_namespaces: bool,
    selector: Option<&str>,
) -> anyhow::Result<Vec<Value>> {
    let namespace = Some(&*controller.namespace).filter(|_| !all_namespaces);
    let query: Vec<_> = selector.map(|selector| ("labelSelector", selector)).into_iter().collect();
    let path = Kind::ours(GROUP, "DockerInstance").path(namespace);
    list(controller, &path, &query, "the hosts cannot be listed").await
}

/// The containers, images, … that are meant, those that do not run too only if `all`.
pub(crate) async fn objects(
    controller: &Controller,
    kind: &str,
    fleet: &FleetArgs,
    all: bool,
) -> anyhow::Result<Vec<Value>> {
    let kind = Kind::ours(DOCKER_GROUP, kind);
    let items = if fleet.filters.is_empty() {
        of_all(controller, &kind, fleet).await?
    } else {
        of_each(controller, &kind, fleet, all).await?
    };
    let is_meant = |item: &Value| {
        let is_there = fleet.instances.is_empty()
            || item
                .get("instance")
                .and_then(Value::as_str)
                .is_some_and(|instance| fleet.instances.iter().any(|wanted| wanted == instance));
        is_there && (all || !fleet.filters.is_empty() || kind.kind != "Container" || runs(item))
    };
    Ok(items.into_iter().filter(is_meant).collect())
}

/// What `docker ps` shows without `-a`.
fn runs(container: &Value) -> bool {
    matches!(container.get("state").and_then(Value::as_str), Some("running" | "paused" | "restarting"))
}

async fn of_all(controller: &Controller, kind: &Kind, fleet: &FleetArgs) -> anyhow::Result<Vec<Value>> {
    let what = format!("the {} cannot be listed", kind.plural);
    let namespace = Some(&*controller.namespace).filter(|_| !fleet.all_namespaces);
    let one = match &*fleet.instances {
        [one] => Some(format!("instance={one}")),
        _ => None,
    };
    let mut query: Vec<(&str, &str)> = Vec::new();
    query.extend(fleet.selector.as_deref().map(|selector| ("labelSelector", selector)));
    query.extend(one.as_deref().map(|one| ("fieldSelector", one)));
    list(controller, &kind.path(namespace), &query, &what).await
}

/// A host that does not answer is named, and the others are shown.
async fn of_each(
    controller: &Controller,
    kind: &Kind,
    fleet: &FleetArgs,
    all: bool,
) -> anyhow::Result<Vec<Value>> {
    let mut filters = serde_json::Map::new();
    for (name, value) in &fleet.filters {
        let values = filters.entry(name.clone()).or_insert_with(|| Value::Array(Vec::new()));
        if let Some(values) = values.as_array_mut() {
            values.push(value.clone().into());
        }
    }
    let filters = Value::Object(filters).to_string();
    let all = all.to_string();
    let mut hosts: Vec<(String, String)> = Vec::new();
    for instance in instances(controller, fleet.all_namespaces, None).await? {
        let field = |name: &str| {
            instance.pointer(name).and_then(Value::as_str).map(str::to_owned).unwrap_or_default()
        };
        hosts.push((field("/metadata/namespace"), field("/metadata/name")));
    }
    hosts.retain(|(_, name)| fleet.instances.is_empty() || fleet.instances.contains(name));
    let ask = async |(namespace, name): (String, String)| {
        let path = Kind::ours(GROUP, "DockerInstance").path(Some(&namespace));
        let path = format!("{path}/{}/{}", encoded(&name), kind.plural);
        let mut query = vec![("filters", &*filters), ("all", &*all)];
        query.extend(fleet.selector.as_deref().map(|selector| ("labelSelector", selector)));
        let what = format!("the {} of `{name}` cannot be listed", kind.plural);
        list(controller, &path, &query, &what).await
    };
    let mut answers = stream::iter(hosts).map(ask).buffered(AT_ONCE);
    let mut items = Vec::new();
    while let Some(answer) = answers.next().await {
        match answer {
            Ok(some) => items.extend(some),
            Err(error) if code(&error) == Ends::Unreachable as u8 => {
                eprint!("{}", render(&error).replacen("error: ", "warning: ", 1));
            }
            Err(error) => return Err(error),
        }
    }
    Ok(items)
}
