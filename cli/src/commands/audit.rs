//! `gantry audit`: who did what, as the API tells it to anybody who may list audit events; and whether that is what was recorded.

use std::process::ExitCode;

use anyhow::Context as _;
use gantry_api::names::{AUDIT_GROUP, VERSION};
use gantry_api::v1alpha1::AuditEvent;
use gantry_api::yaml;
use http::Request;
use jiff::Unit;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::process::Command;

use super::dev;
use crate::args::{AuditArgs, Format, Reach, VerifyArgs};
use crate::client::{Controller, encoded};
use crate::output::failure::{Ends, Hinted};
use crate::output::out;
use crate::output::plain::{plain, plain_value};
use crate::output::table::table;

/// The most the controller gives at once.
const PAGE: usize = 1_000;

/// Prints the newest events that are meant, and says where there are more.
pub(crate) async fn list(reach: &Reach, options: &AuditArgs) -> anyhow::Result<()> {
    let controller = Controller::reach(reach).await?;
    let path = path(options, &controller.namespace);
    let ask = async |limit: usize, from: Option<String>| ask(&controller, &path, limit, from).await;
    let (events, is_more) = collect(options.limit, ask).await?;
    out::write(&render(options, events)?)?;
    if is_more {
        eprintln!("There are more: say --limit, or --until the time of the last one.");
    }
    Ok(())
}

/// Has the chain gone through by the program that can read the database, and ends as that does.
pub(crate) async fn verify(options: &VerifyArgs) -> anyhow::Result<ExitCode> {
    let controller = dev::find("gantry-controller")?;
    let mut command = Command::new(&controller);
    // By environment: arguments can be read by every user of the machine.
    command.args(["audit", "verify"]).env("GANTRY_DATABASE_URL", &options.database_url);
    if let Some(head) = &options.known_head {
        command.arg("--known-head").arg(head);
    }
    let ended = command.status().await.with_context(|| format!("cannot run {}", controller.display()))?;
    Ok(if ended.success() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// A page as it is answered.
#[derive(Debug, Default, Deserialize)]
struct Page {
    #[serde(default)]
    metadata: Place,
    items: Vec<Value>,
}

#[derive(Debug, Default, Deserialize)]
struct Place {
    #[serde(default, rename = "continue")]
    next: String,
}

/// What is asked for, of whichever page.
fn path(options: &AuditArgs, namespace: &str) -> String {
    let place =
        if options.all_namespaces { String::new() } else { format!("namespaces/{}/", encoded(namespace)) };
    let fields = [
        ("user", &options.user),
        ("action", &options.action),
        ("resourceType", &options.resource_type),
        ("name", &options.name),
        ("instance", &options.instance),
        ("outcome", &options.outcome),
    ];
    let fields = fields.into_iter().filter_map(|(name, value)| {
        let value = value.as_deref()?.replace('\\', "\\\\").replace(',', "\\,").replace('=', "\\=");
        Some(format!("{name}={value}"))
    });
    let selector = Some(fields.collect::<Vec<_>>().join(",")).filter(|selector| !selector.is_empty());
    let query =
        [("fieldSelector", selector), ("since", options.since.clone()), ("until", options.until.clone())];
    let query = query.into_iter().filter_map(|(name, value)| Some(format!("&{name}={}", encoded(&value?))));
    format!(
        "/apis/{AUDIT_GROUP}/{VERSION}/{place}auditevents?{}",
        query.collect::<String>().trim_start_matches('&')
    )
}

async fn ask(
    controller: &Controller,
    path: &str,
    limit: usize,
    from: Option<String>,
) -> anyhow::Result<Page> {
    let from = from.map(|from| format!("&continue={}", encoded(&from))).unwrap_or_default();
    let request = Request::get(format!("{path}&limit={limit}{from}")).body(Vec::new())?;
    controller.client.request(request).await.map_err(|error| match error {
        kube::Error::Api(status) if status.code == 403 => Hinted::new(Ends::NotAllowed, plain(&status.message))
            .hint("the ClusterRole `gantry-auditor` allows it, bound in a namespace for that one, and for all with -A")
            .into(),
        error => controller.explain(error, "the audit log cannot be read"),
    })
}

/// Pages until there are as many as wanted, or no more; also whether there are more.
async fn collect(
    wanted: usize,
    mut ask: impl AsyncFnMut(usize, Option<String>) -> anyhow::Result<Page>,
) -> anyhow::Result<(Vec<Value>, bool)> {
    let (mut events, mut from) = (Vec::new(), None);
    loop {
        let page = ask((wanted - events.len()).min(PAGE), from.take()).await?;
        let is_end = page.metadata.next.is_empty() || page.items.is_empty();
        events.extend(page.items);
        if is_end || events.len() >= wanted {
            events.truncate(wanted);
            return Ok((events, !is_end));
        }
        from = Some(page.metadata.next);
    }
}

fn render(options: &AuditArgs, events: Vec<Value>) -> anyhow::Result<String> {
    if matches!(options.output, Format::Table | Format::Wide) {
        return rows(options, events);
    }
    let list = json!({
        "apiVersion": format!("{AUDIT_GROUP}/{VERSION}"),
        "kind": "AuditEventList",
        "metadata": {},
        "items": events,
    });
    if options.output == Format::Yaml {
        return Ok(yaml::write(&plain_value(list))?);
    }
    // The controls below a space are escaped already, and all others stand in texts alone.
    let text = serde_json::to_string_pretty(&list)?;
    let lines: Vec<String> = text.split('\n').map(plain).collect();
    Ok(lines.join("\n") + "\n")
}

fn rows(options: &AuditArgs, events: Vec<Value>) -> anyhow::Result<String> {
    let is_wide = options.output == Format::Wide;
    let mut heading = vec!["TIME", "USER", "ACTION", "OBJECT", "INSTANCE", "OUTCOME"];
    if options.all_namespaces {
        heading.insert(0, "NAMESPACE");
    }
    if is_wide {
        heading.extend(["VERB", "RESOURCE", "AS", "SOURCE", "CODE", "REASON"]);
    }
    let mut rows = Vec::new();
    for event in events {
        let event: AuditEvent =
            serde_json::from_value(event).context("the controller answers something else than an event")?;
        let time = event.metadata.creation_timestamp;
        let time = time.and_then(|time| time.0.round(Unit::Second).ok()).map(|time| time.to_string());
        let object = if event.name.is_empty() { event.path } else { event.name };
        let mut row =
            vec![time.unwrap_or_default(), event.user, event.action, object, event.instance, event.outcome];
        if options.all_namespaces {
            row.insert(0, event.metadata.namespace.unwrap_or_default());
        }
        if is_wide {
            let real = event.impersonator.map(|real| real.user).unwrap_or_default();
            let code = event.code.map(|code| code.to_string()).unwrap_or_default();
            row.extend([event.verb, event.resource_type, real, event.source_ip, code, event.reason]);
        }
        rows.push(row);
    }
    if rows.is_empty() {
        return Ok("No events are meant by that.\n".to_owned());
    }
    Ok(table(&heading, &rows, false))
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;
    use insta::assert_snapshot;

    use super::*;
    use crate::args::{AuditCommand, Cli, Command};

    fn options(flags: &[&str]) -> AuditArgs {
        let line = ["gantry", "audit", "ls"].iter().chain(flags);
        match Cli::try_parse_from(line).map(|cli| cli.command) {
            Ok(Command::Audit(AuditCommand::Ls(options))) => options,
            other => panic!("{other:?}"),
        }
    }

    fn event(number: usize) -> Value {
        json!({
            "kind": "AuditEvent", "apiVersion": "audit.gantry.dev/v1alpha1",
            "metadata": {"name": number.to_string(), "namespace": "shop", "creationTimestamp": "2026-11-28T02:00:00Z"},
            "user": "ada", "action": "container_stop", "name": "web\u{1b}[2J\u{9b}1m", "instance": "nuc-01",
            "outcome": "success", "verb": "create", "resourceType": "operations", "sourceIP": "192.0.2.7", "code": 201,
        })
    }

    #[test]
    fn flags_become_a_place_a_selector_and_times() {
        let path = |flags: &[&str]| {
            let path = path(&options(flags), "shop");
            let path = percent_encoding::percent_decode_str(&path).decode_utf8_lossy().into_owned();
            path.trim_start_matches("/apis/audit.gantry.dev/v1alpha1/").to_owned()
        };

        assert_eq!(path(&[]), "namespaces/shop/auditevents?");
        assert_eq!(
            path(&[
                "-A",
                "--user",
                "a,b=c",
                "--action",
                "secret_get",
                "--outcome",
                "denied",
                "--since",
                "2d"
            ]),
            "auditevents?fieldSelector=user=a\\,b\\=c,action=secret_get,outcome=denied&since=48h"
        );
        assert_eq!(
            path(&[
                "-A",
                "--resource",
                "secrets",
                "--name",
                "x",
                "--instance",
                "i",
                "--until",
                "2026-11-28T02:00:00Z"
            ]),
            "auditevents?fieldSelector=resourceType=secrets,name=x,instance=i&until=2026-11-28T02:00:00Z"
        );
        assert!(!super::path(&options(&[]), "a/../b?x").contains("a/.."));
    }

    #[tokio::test]
    async fn pages_are_read_until_there_are_enough_or_no_more() {
        let of = async |wanted: usize, there: usize| {
            let mut asked = Vec::new();
            let ask = async |limit: usize, from: Option<String>| {
                let begin: usize = from.map_or(0, |from| from.parse().expect("what was given"));
                asked.push((begin, limit));
                let end = (begin + limit).min(there);
                let next = if end < there { end.to_string() } else { String::new() };
                Ok(Page { metadata: Place { next }, items: (begin..end).map(event).collect() })
            };
            let (events, is_more) = collect(wanted, ask).await.expect("events");
            (events.len(), is_more, asked)
        };

        assert_eq!(of(500, 3).await, (3, false, vec![(0, 500)]));
        assert_eq!(of(500, 500).await, (500, false, vec![(0, 500)]));
        assert_eq!(of(2_500, 9_000).await, (2_500, true, vec![(0, 1_000), (1_000, 1_000), (2_000, 500)]));
        assert_eq!(of(2_500, 1_200).await, (1_200, false, vec![(0, 1_000), (1_000, 1_500 - 500)]));
    }

    #[tokio::test]
    async fn a_server_that_always_promises_more_is_not_asked_for_ever() {
        let ask = async |_: usize, _: Option<String>| {
            Ok(Page { metadata: Place { next: "again".to_owned() }, items: Vec::new() })
        };

        assert_eq!(collect(500, ask).await.expect("an end"), (Vec::new(), false));
    }

    #[test]
    fn t16_in_no_form_does_a_terminal_obey_what_is_shown() {
        let shown = |flags: &[&str]| render(&options(flags), vec![event(7)]).expect("it is shown");
        for form in ["table", "wide", "json", "yaml"] {
            let text = shown(&["-A", "-o", form]);
            assert!(text.chars().all(|c| c == '\n' || !c.is_control()), "{form}: {text:?}");
        }

        assert_snapshot!(shown(&["-A", "-o", "wide"]), @r"
        NAMESPACE   TIME                   USER   ACTION           OBJECT                 INSTANCE   OUTCOME   VERB     RESOURCE     AS       SOURCE      CODE   REASON
        shop        2026-11-28T02:00:00Z   ada    container_stop   web\u001b[2J\u009b1m   nuc-01     success   create   operations   <none>   192.0.2.7   201    <none>
        ");
        let read: Value = serde_json::from_str(&shown(&["-o", "json"])).expect("JSON");
        assert_eq!((&read["kind"], &read["items"]), (&json!("AuditEventList"), &json!([event(7)])));
        let read: Value = yaml::read_manifest(&shown(&["-o", "yaml"])).expect("YAML");
        assert_eq!(read["items"][0]["name"], "web\\u001b[2J\\u009b1m");
    }
}
