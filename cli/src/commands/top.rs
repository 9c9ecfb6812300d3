//! `gantry top`: which hosts, or which containers, use most.

use std::collections::BTreeMap;

use gantry_api::v1alpha1::{Container, DockerInstance};
use serde_json::Value;

use super::fleet;
use super::stats::{self, Hosts, Seen};
use crate::args::{FleetArgs, Order, Reach, TopArgs, TopOf};
use crate::client::Controller;
use crate::output::age::size;
use crate::output::out;
use crate::output::table::table;

/// Prints them, who uses most first.
pub(crate) async fn run(reach: &Reach, options: &TopArgs) -> anyhow::Result<()> {
    let controller = Controller::reach(reach).await?;
    // What selects hosts are labels of hosts, and what selects containers are labels of containers.
    let (of_hosts, of_containers) = match options.of {
        TopOf::Instances => (options.selector.as_deref(), None),
        TopOf::Containers => (None, options.selector.clone()),
    };
    let mut hosts = machines(&controller, options, of_hosts).await?;
    let fleet = FleetArgs {
        instances: options.instances.clone(),
        selector: of_containers,
        all_namespaces: options.all_namespaces,
        ..FleetArgs::default()
    };
    let mut containers = Hosts::new();
    for item in fleet::objects(&controller, "Container", &fleet, false).await? {
        let Ok(one) = serde_json::from_value::<Container>(item) else { continue };
        let key = (one.metadata.namespace.unwrap_or_default(), one.instance);
        // A host that cannot be heard has no figures; what is known of its containers is older.
        if one.stale_since.is_none() && hosts.get(&key).is_some_and(|host| host.is_online) {
            containers.entry(key).or_default().push(one.container_name);
        }
    }
    let seen = stats::once(&controller, &containers).await?;
    out::write(&match options.of {
        TopOf::Instances => {
            for one in &seen {
                if let Some(host) = hosts.get_mut(&(one.namespace.clone(), one.instance.clone())) {
                    host.add(one);
                }
            }
            instances(options, hosts)
        }
        TopOf::Containers => rows_of(options, seen),
    })
}

/// A host, what it has, and what its containers use of it.
#[derive(Debug, Default)]
struct Machine {
    is_online: bool,
    cpus: u64,
    memory: u64,
    containers: usize,
    cpu_percent: f64,
    memory_used: u64,
}

impl Machine {
    fn add(&mut self, seen: &Seen) {
        self.containers += 1;
        self.cpu_percent += seen.sample.cpu_percent;
        self.memory_used = self.memory_used.saturating_add(seen.sample.memory_bytes);
    }
}

type Machines = BTreeMap<(String, String), Machine>;

async fn machines(
    controller: &Controller,
    options: &TopArgs,
    selector: Option<&str>,
) -> anyhow::Result<Machines> {
    let found = fleet::instances(controller, options.all_namespaces, selector).await?;
    let mut machines = Machines::new();
    for instance in found {
        let health = instance.pointer("/status/health").and_then(Value::as_str) == Some("Online");
        let Ok(instance) = serde_json::from_value::<DockerInstance>(instance) else { continue };
        let name = instance.metadata.name.unwrap_or_default();
        if !options.instances.is_empty() && !options.instances.contains(&name) {
            continue;
        }
        let engine = instance.status.unwrap_or_default().engine.unwrap_or_default();
        let machine = Machine {
            is_online: health,
            cpus: u64::from(engine.cpus),
            memory: engine.memory_bytes,
            ..Machine::default()
        };
        machines.insert((instance.metadata.namespace.unwrap_or_default(), name), machine);
    }
    Ok(machines)
}

fn instances(options: &TopArgs, hosts: Machines) -> String {
    let mut hosts: Vec<_> = hosts.into_iter().collect();
    hosts.sort_by(|(_, one), (_, other)| match options.sort_by {
        Order::Cpu => other.cpu_percent.total_cmp(&one.cpu_percent),
        Order::Memory => other.memory_used.cmp(&one.memory_used),
    });
    let rows = hosts.into_iter().map(|((namespace, name), host)| {
        let mut row = vec![name];
        if host.is_online {
            row.extend([
                host.containers.to_string(),
                format!("{:.2}", host.cpu_percent / 100.0),
                percent(host.cpu_percent / 100.0, host.cpus as f64),
                size(host.memory_used),
                percent(host.memory_used as f64, host.memory as f64),
            ]);
        } else {
            row.extend(["-"; 5].map(str::to_owned));
        }
        in_namespace(options, namespace, row)
    });
    let heading = heading(options, &["INSTANCE", "RUNNING", "CPUS", "CPU", "MEMORY", "MEMORY%"]);
    table(&heading, &rows.collect::<Vec<_>>(), options.no_headers)
}

fn rows_of(options: &TopArgs, mut seen: Vec<Seen>) -> String {
    seen.sort_by(|one, other| match options.sort_by {
        Order::Cpu => other.sample.cpu_percent.total_cmp(&one.sample.cpu_percent),
        Order::Memory => other.sample.memory_bytes.cmp(&one.sample.memory_bytes),
    });
    let rows = seen.into_iter().map(|Seen { namespace, instance, sample }| {
        let row = vec![
            instance,
            sample.name,
            format!("{:.2}", sample.cpu_percent / 100.0),
            size(sample.memory_bytes),
            percent(sample.memory_bytes as f64, sample.memory_limit_bytes as f64),
        ];
        in_namespace(options, namespace, row)
    });
    let heading = heading(options, &["INSTANCE", "NAME", "CPUS", "MEMORY", "MEMORY%"]);
    table(&heading, &rows.collect::<Vec<_>>(), options.no_headers)
}

fn heading<'a>(options: &TopArgs, columns: &[&'a str]) -> Vec<&'a str> {
    Some("NAMESPACE").filter(|_| options.all_namespaces).into_iter().chain(columns.iter().copied()).collect()
}

fn in_namespace(options: &TopArgs, namespace: String, row: Vec<String>) -> Vec<String> {
    Some(namespace).filter(|_| options.all_namespaces).into_iter().chain(row).collect()
}

/// Of a whole that is not known there is no part.
fn percent(part: f64, whole: f64) -> String {
    if whole > 0.0 { format!("{:.1}%", part / whole * 100.0) } else { "-".to_owned() }
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;
    use insta::assert_snapshot;

    use super::*;
    use crate::args::{Cli, Command};

    fn options(flags: &[&str]) -> TopArgs {
        match Cli::try_parse_from(["gantry", "top"].iter().chain(flags)).map(|cli| cli.command) {
            Ok(Command::Top(options)) => options,
            other => panic!("{other:?}"),
        }
    }

    fn host(cpu_percent: f64, memory_used: u64) -> Machine {
        Machine { is_online: true, cpus: 4, memory: 8_000_000_000, containers: 2, cpu_percent, memory_used }
    }

    #[test]
    fn who_uses_most_comes_first_and_who_is_away_has_no_figures() {
        let hosts = || {
            let name = |name: &str| ("shop".to_owned(), name.to_owned());
            Machines::from([
                (name("nuc-01"), host(20.0, 4_000_000_000)),
                (name("nuc-02"), host(150.0, 1_000_000_000)),
                (name("nuc-03"), Machine::default()),
            ])
        };

        assert_snapshot!(instances(&options(&[]), hosts()), @r"
        INSTANCE   RUNNING   CPUS   CPU     MEMORY   MEMORY%
        nuc-02     2         1.50   37.5%   1.00GB   12.5%
        nuc-01     2         0.20   5.0%    4.00GB   50.0%
        nuc-03     -         -      -       -        -
        ");
        let by_memory = instances(&options(&["-A", "--sort-by", "memory"]), hosts());
        assert!(
            by_memory.lines().nth(1).is_some_and(|line| line.starts_with("shop        nuc-01")),
            "{by_memory}"
        );
        assert_eq!(percent(1.0, 0.0), "-");
    }
}
