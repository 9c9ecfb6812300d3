//! `gantry ps`: containers of all hosts.

use anyhow::Context as _;
use gantry_api::names::DOCKER_GROUP;
use gantry_api::v1alpha1::{Container, ContainerPort};
use jiff::Timestamp;
use serde_json::Value;

use super::fleet;
use crate::args::{PsArgs, Reach};
use crate::client::Controller;
use crate::clock;
use crate::kinds::Kind;
use crate::output::age::age;
use crate::output::form::{self, Form};
use crate::output::out;
use crate::output::plain::plain;
use crate::output::table::table;

/// Prints the containers that are meant.
pub(crate) async fn run(reach: &Reach, options: &PsArgs) -> anyhow::Result<()> {
    let controller = Controller::reach(reach).await?;
    let found = fleet::objects(&controller, "Container", &options.fleet, options.all).await?;
    if let Some(form) = options.output.output.as_ref().filter(|form| **form != Form::Wide) {
        let kind = Kind::ours(DOCKER_GROUP, "Container");
        let found = found.into_iter().map(|object| (&kind, object)).collect();
        return out::write(&form::objects(form, found, false, options.output.no_headers)?);
    }
    out::write(&rows(options, found, clock::now())?)
}

fn rows(options: &PsArgs, found: Vec<Value>, now: Timestamp) -> anyhow::Result<String> {
    let mut containers = Vec::new();
    for container in found {
        let container: Container = serde_json::from_value(container)
            .context("the controller answers something else than a container")?;
        containers.push(container);
    }
    if options.quiet {
        let line = |container: &Container| {
            format!("{}/{}\n", plain(&container.instance), plain(&container.container_name))
        };
        return Ok(containers.iter().map(line).collect());
    }
    let is_wide = options.output.output.is_some();
    let mut heading = vec!["INSTANCE", "NAME", "IMAGE", "STATUS", "PORTS"];
    if options.fleet.all_namespaces {
        heading.insert(0, "NAMESPACE");
    }
    if is_wide {
        heading.extend(["CREATED", "PROJECT", "ID", "COMMAND"]);
    }
    let rows: Vec<_> = containers
        .into_iter()
        .map(|container| {
            let status = status(&container, now);
            let created = age(container.metadata.creation_timestamp.map(|time| time.0), now);
            let mut row = vec![
                container.instance,
                container.container_name,
                container.image,
                status,
                ports(&container.ports),
            ];
            if options.fleet.all_namespaces {
                row.insert(0, container.metadata.namespace.unwrap_or_default());
            }
            if is_wide {
                let id = container.id.chars().take(12).collect();
                row.extend([created, container.project, id, container.command]);
            }
            row
        })
        .collect();
    Ok(table(&heading, &rows, options.output.no_headers))
}

/// In the words of `docker ps`; of a host that cannot be heard with how long ago that was so.
fn status(container: &Container, now: Timestamp) -> String {
    let time = |text: &Option<String>| age(text.as_deref().and_then(|text| text.parse().ok()), now);
    let since = time(&container.since);
    let code = container.exit_code.unwrap_or_default();
    let mut status = match &*container.state {
        "running" => format!("Up {since}"),
        "paused" => format!("Up {since} (paused)"),
        "exited" => format!("Exited ({code}) {since} ago"),
        "restarting" => format!("Restarting ({code}) {since} ago"),
        "created" => "Created".to_owned(),
        other => other.to_owned(),
    };
    if !container.health.is_empty() && container.state == "running" {
        status = format!("{status} ({})", container.health);
    }
    if container.stale_since.is_some() {
        status = format!("{status}, unheard for {}", time(&container.stale_since));
    }
    status
}

/// `0.0.0.0:80->8080/tcp`, as Docker writes it; the same over IPv6 once.
fn ports(ports: &[ContainerPort]) -> String {
    let mut shown: Vec<String> = Vec::new();
    for port in ports {
        let inner = format!("{}/{}", port.private_port, port.protocol);
        let text = match port.public_port {
            Some(public) if matches!(&*port.ip, "" | "0.0.0.0" | "::") => format!("{public}->{inner}"),
            Some(public) => format!("{}:{public}->{inner}", port.ip),
            None => inner,
        };
        if !shown.contains(&text) {
            shown.push(text);
        }
    }
    if shown.is_empty() { "-".to_owned() } else { shown.join(", ") }
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;
    use insta::assert_snapshot;
    use serde_json::json;

    use super::*;
    use crate::args::{Cli, Command};

    fn shown(flags: &[&str]) -> String {
        let options = match Cli::try_parse_from(["gantry", "ps"].iter().chain(flags)).map(|cli| cli.command) {
            Ok(Command::Ps(options)) => options,
            other => panic!("{other:?}"),
        };
        let container = |name: &str, fields: Value| {
            let mut container = json!({
                "metadata": {"name": format!("nuc-01_{name}"), "namespace": "shop", "creationTimestamp": "2026-05-01T09:00:00Z"},
                "instance": "nuc-01", "containerName": name, "image": "web:7", "state": "running",
                "since": "2026-05-01T10:00:00Z", "id": "0123456789abcdef", "command": "sh",
            });
            for (field, value) in fields.as_object().into_iter().flatten() {
                container[field] = value.clone();
            }
            container
        };
        let port = |ip: &str, public: Option<u32>| json!({"ip": ip, "privatePort": 80, "publicPort": public, "protocol": "tcp"});
        let found = vec![
            container(
                "web",
                json!({"health": "healthy", "ports": [port("0.0.0.0", Some(8080)), port("::", Some(8080)), port("127.0.0.1", Some(81)), port("", None)]}),
            ),
            container("job\u{1b}[2J", json!({"state": "exited", "exitCode": 137})),
            container("cold", json!({"state": "paused", "staleSince": "2026-05-01T10:02:00Z"})),
        ];
        rows(&options, found, "2026-05-01T10:05:00Z".parse().expect("a time")).expect("rows")
    }

    #[test]
    fn t16_containers_read_as_docker_s_and_no_name_breaks_out() {
        assert_snapshot!(shown(&[]), @r"
        INSTANCE   NAME           IMAGE   STATUS                           PORTS
        nuc-01     web            web:7   Up 5m (healthy)                  8080->80/tcp, 127.0.0.1:81->80/tcp, 80/tcp
        nuc-01     job\u001b[2J   web:7   Exited (137) 5m ago              -
        nuc-01     cold           web:7   Up 5m (paused), unheard for 3m   -
        ");
        assert_snapshot!(shown(&["-q"]), @r"
        nuc-01/web
        nuc-01/job\u001b[2J
        nuc-01/cold
        ");
        let wide = shown(&["-A", "-o", "wide", "--no-headers"]);
        let last: Vec<_> = wide.lines().last().expect("a line").split_whitespace().collect();
        let expected = "shop nuc-01 cold web:7 Up 5m (paused), unheard for 3m - 65m <none> 0123456789ab sh";
        assert_eq!(last.join(" "), expected);
    }
}
