//! `gantry get`: objects of the API, in the tables that the controller makes, or in another form.

use anyhow::Context as _;
use futures::TryStreamExt as _;
use http::Request;
use http::header::ACCEPT;
use http_body_util::BodyExt as _;
use serde::Deserialize;
use serde_json::Value;
use tokio::io::AsyncBufReadExt as _;
use tokio_util::io::StreamReader;

use super::fleet;
use crate::args::{GetArgs, Reach};
use crate::client::{self, Controller, encoded};
use crate::kinds::{self, Kind, Meant};
use crate::output::failure::{Ends, Hinted, code, render};
use crate::output::form::{self, Form};
use crate::output::out;
use crate::output::plain::plain;
use crate::output::table::{Layout, table};

const TABLE: &str = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json";
const PLAIN: &str = "application/json";

/// Rows as the controller makes them.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Table {
    #[serde(default)]
    metadata: Metadata,
    /// Absent in all events of a watch but the first.
    #[serde(default)]
    column_definitions: Option<Vec<Column>>,
    #[serde(default)]
    rows: Vec<Row>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Metadata {
    #[serde(default)]
    resource_version: String,
    #[serde(default, rename = "continue")]
    next: String,
}

#[derive(Clone, Debug, Deserialize)]
struct Column {
    name: String,
    #[serde(default)]
    priority: i32,
}

#[derive(Debug, Deserialize)]
struct Row {
    cells: Vec<Value>,
    #[serde(default)]
    object: Value,
}

#[derive(Debug, Deserialize)]
struct Event {
    #[serde(rename = "type")]
    what: String,
    object: Value,
}

/// Prints what is meant, and goes on with what changes if that is wanted.
pub(crate) async fn run(reach: &Reach, options: &GetArgs) -> anyhow::Result<()> {
    let controller = Controller::reach(reach).await?;
    let kinds = kinds::known(&controller, |kinds| kinds::meant(kinds, &options.what).is_ok()).await?;
    let meant = kinds::meant(&kinds, &options.what)?;
    if options.watch {
        return watch(&controller, options, &meant).await;
    }
    match options.output.output.as_ref().filter(|form| **form != Form::Wide) {
        Some(form) => print_objects(&controller, options, &meant, form).await,
        None => print_tables(&controller, options, &meant).await,
    }
}

/// Where the objects of a kind are, and the query that says which.
fn place(controller: &Controller, options: &GetArgs, kind: &Kind) -> (String, Vec<(&'static str, String)>) {
    let namespace = Some(&*controller.namespace).filter(|_| !options.all_namespaces);
    let mut query = Vec::new();
    query.extend(options.selector.clone().map(|selector| ("labelSelector", selector)));
    query.extend(options.field_selector.clone().map(|selector| ("fieldSelector", selector)));
    (kind.path(namespace), query)
}

async fn print_objects(
    controller: &Controller,
    options: &GetArgs,
    meant: &[Meant<'_>],
    form: &Form,
) -> anyhow::Result<()> {
    let mut found = Vec::new();
    let is_one = matches!(meant, [Meant { names, .. }] if names.len() == 1);
    let mut missing = None;
    for Meant { kind, names } in meant {
        let (path, query) = place(controller, options, kind);
        let what = format!("the {} cannot be read", kind.plural);
        if names.is_empty() {
            let query: Vec<_> = query.iter().map(|(name, value)| (*name, &**value)).collect();
            let items = fleet::list(controller, &path, &query, &what).await?;
            found.extend(items.into_iter().map(|item| (*kind, item)));
        }
        for name in names {
            let request = Request::get(format!("{path}/{}", encoded(name))).body(Vec::new())?;
            match controller.read(request, &said(kind, name)).await {
                Ok(object) => found.push((*kind, object)),
                Err(error) => absent(options, error, &mut missing)?,
            }
        }
    }
    if !(found.is_empty() && is_one) {
        out::write(&form::objects(form, found, is_one, options.output.no_headers)?)?;
    }
    missing.map_or(Ok(()), Err)
}

/// How an error about one object begins.
pub(crate) fn said(kind: &Kind, name: &str) -> String {
    format!("{}/{}", kind.singular_name(), plain(name))
}

/// An object that is not there does not keep the others from being shown.
fn absent(
    options: &GetArgs,
    error: anyhow::Error,
    missing: &mut Option<anyhow::Error>,
) -> anyhow::Result<()> {
    if code(&error) != Ends::NotFound as u8 {
        return Err(error);
    }
    if !options.ignore_not_found
        && let Some(before) = missing.replace(error)
    {
        eprint!("{}", render(&before));
    }
    Ok(())
}

async fn print_tables(controller: &Controller, options: &GetArgs, meant: &[Meant<'_>]) -> anyhow::Result<()> {
    let (mut missing, mut printed) = (None, false);
    for Meant { kind, names } in meant {
        let (path, query) = place(controller, options, kind);
        let mut found = Table::default();
        if names.is_empty() {
            found = rows_of(controller, &path, &query, kind).await?;
        }
        for name in names {
            let request =
                Request::get(format!("{path}/{}", encoded(name))).header(ACCEPT, TABLE).body(Vec::new())?;
            match controller.read::<Table>(request, &said(kind, name)).await {
                Ok(one) => {
                    found.column_definitions = one.column_definitions.or(found.column_definitions);
                    found.rows.extend(one.rows);
                }
                Err(error) => absent(options, error, &mut missing)?,
            }
        }
        if found.rows.is_empty() {
            continue;
        }
        let columns = found.column_definitions.unwrap_or_default();
        let shape = Shape { options, kind, columns, with_kind: meant.len() > 1 };
        let rows: Vec<_> = found.rows.into_iter().map(|row| shape.cells(row)).collect();
        let gap = if printed { "\n" } else { "" };
        printed = true;
        let heading = shape.heading();
        let heading: Vec<_> = heading.iter().map(String::as_str).collect();
        out::write(&format!("{gap}{}", table(&heading, &rows, options.output.no_headers)))?;
    }
    match missing {
        Some(error) => return Err(error),
        None if printed || options.ignore_not_found => {}
        None if options.all_namespaces => eprintln!("There are none."),
        None => eprintln!("There are none in namespace `{}`.", plain(&controller.namespace)),
    }
    Ok(())
}

/// Every page of a list.
async fn rows_of(
    controller: &Controller,
    path: &str,
    query: &[(&str, String)],
    kind: &Kind,
) -> anyhow::Result<Table> {
    let query = client::query(query.iter().map(|(name, value)| (*name, &**value)));
    let what = format!("the {} cannot be listed", kind.plural);
    let (mut all, mut from) = (Table::default(), String::new());
    loop {
        let request =
            Request::get(format!("{path}?limit=500{query}{from}")).header(ACCEPT, TABLE).body(Vec::new())?;
        let page: Table = controller.read(request, &what).await?;
        all.column_definitions = all.column_definitions.or(page.column_definitions);
        all.metadata.resource_version = page.metadata.resource_version;
        all.rows.extend(page.rows);
        if page.metadata.next.is_empty() {
            return Ok(all);
        }
        from = format!("&continue={}", encoded(&page.metadata.next));
    }
}

/// Which of the controller's columns are shown, and what beside them.
struct Shape<'a> {
    options: &'a GetArgs,
    kind: &'a Kind,
    columns: Vec<Column>,
    with_kind: bool,
}

impl Shape<'_> {
    fn has_namespaces(&self) -> bool {
        self.options.all_namespaces && self.kind.is_namespaced
    }

    fn is_shown(&self, column: &Column) -> bool {
        column.priority == 0 || self.options.output.output.is_some()
    }

    fn heading(&self) -> Vec<String> {
        let namespace = Some("NAMESPACE".to_owned()).filter(|_| self.has_namespaces());
        let columns = self.columns.iter().filter(|column| self.is_shown(column));
        namespace.into_iter().chain(columns.map(|column| column.name.to_uppercase())).collect()
    }

    fn cells(&self, row: Row) -> Vec<String> {
        let namespace = row.object.pointer("/metadata/namespace").and_then(Value::as_str).unwrap_or_default();
        let namespace = Some(namespace.to_owned()).filter(|_| self.has_namespaces());
        let cells = row.cells.into_iter().zip(&self.columns).filter(|(_, column)| self.is_shown(column));
        let cells = cells.enumerate().map(|(number, (cell, _))| match cell {
            Value::Null => String::new(),
            Value::String(text) if number == 0 && self.with_kind => {
                format!("{}/{text}", self.kind.singular_name())
            }
            Value::String(text) => text,
            other => other.to_string(),
        });
        namespace.into_iter().chain(cells).collect()
    }
}

/// Shows what there is, then every change, until Ctrl-C. Where the controller has forgotten the place it begins anew.
async fn watch(controller: &Controller, options: &GetArgs, meant: &[Meant<'_>]) -> anyhow::Result<()> {
    let [Meant { kind, names }] = meant else {
        return Err(Hinted::new(Ends::Misunderstood, "only one kind can be watched at a time").into());
    };
    let (path, mut query) = place(controller, options, kind);
    if let [name] = &**names {
        let only = format!("metadata.name={name}");
        match query.iter_mut().find(|(name, _)| *name == "fieldSelector") {
            Some((_, selector)) => *selector = format!("{selector},{only}"),
            None => query.push(("fieldSelector", only)),
        }
    } else if !names.is_empty() {
        return Err(Hinted::new(Ends::Misunderstood, "watch one object, or all: not several by name").into());
    }
    let controller = controller.patient()?;
    let form = options.output.output.as_ref().filter(|form| **form != Form::Wide);
    loop {
        let found = rows_of(&controller, &path, &query, kind).await?;
        let version = found.metadata.resource_version.clone();
        let columns = found.column_definitions.unwrap_or_default();
        let shape = Shape { options, kind, columns, with_kind: false };
        let heading = shape.heading();
        let names: Vec<_> = heading.iter().map(String::as_str).collect();
        let layout = match form {
            None => {
                let rows: Vec<_> = found.rows.into_iter().map(|row| shape.cells(row)).collect();
                out::write(&table(&names, &rows, options.output.no_headers))?;
                Layout::of(&names, &rows)
            }
            Some(form) => {
                let query: Vec<_> = query.iter().map(|(name, value)| (*name, &**value)).collect();
                for item in fleet::list(&controller, &path, &query, "the watch cannot begin").await? {
                    out::write(&form::objects(form, vec![(*kind, item)], true, true)?)?;
                }
                Layout::of(&[], &[])
            }
        };
        let show = |object: Value| match form {
            None => {
                let table: Table = serde_json::from_value(object).context("a row cannot be read")?;
                table.rows.into_iter().try_for_each(|row| out::write(&layout.line(&shape.cells(row))))
            }
            Some(form) => out::write(&form::objects(form, vec![(*kind, object)], true, true)?),
        };
        follow(&controller, &path, &query, version, if form.is_some() { PLAIN } else { TABLE }, show).await?;
    }
}

/// Shows every event from a version on; ends where the controller does not know the place any more.
async fn follow(
    controller: &Controller,
    path: &str,
    query: &[(&str, String)],
    mut version: String,
    accept: &str,
    mut show: impl FnMut(Value) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let query = client::query(query.iter().map(|(name, value)| (*name, &**value)));
    loop {
        let uri = format!("{path}?watch=1&allowWatchBookmarks=true&resourceVersion={version}{query}");
        let request = Request::get(uri).header(ACCEPT, accept).body(Vec::new())?;
        let body = controller.open(request, "the watch cannot begin").await?.into_body();
        let body = body.into_data_stream().map_err(std::io::Error::other);
        let mut lines = StreamReader::new(body).lines();
        // A connection that breaks is made anew, from where it was.
        while let Ok(Some(line)) = lines.next_line().await {
            let event: Event = serde_json::from_str(&line).context("an event of the watch cannot be read")?;
            if event.what == "ERROR" {
                return Ok(());
            }
            let rows = event.object.pointer("/rows/0/object/metadata/resourceVersion");
            let own =
                event.object.pointer("/metadata/resourceVersion").filter(|own| own.as_str() != Some(""));
            if let Some(newer) = own.or(rows).and_then(Value::as_str) {
                newer.clone_into(&mut version);
            }
            if event.what != "BOOKMARK" {
                show(event.object)?;
            }
        }
    }
}
