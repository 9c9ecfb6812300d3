//! `gantry stats`: what containers use, once or as it changes.

mod samples;
mod screen;

use std::collections::BTreeMap;
use std::io::IsTerminal as _;
use std::time::Duration;

use gantry_api::v1alpha1::Container;
use tokio::time::Instant;

use super::fleet;
use super::targets;
use crate::args::{FleetArgs, Reach, StatsArgs, TargetArgs};
use crate::client::Controller;
use crate::output::age::size;
use crate::output::out;
use crate::output::table::{Layout, table};
pub(super) use samples::{Hosts, Seen, once};

const HEADING: [&str; 10] =
    ["INSTANCE", "NAME", "CPU", "MEMORY", "LIMIT", "RECEIVED", "SENT", "READ", "WRITTEN", "PIDS"];
/// How often it is looked which containers there are, where they are not named.
const LOOK_AGAIN: Duration = Duration::from_secs(10);
/// How often a terminal is painted anew.
const PAINT: Duration = Duration::from_secs(1);

/// Prints a table once, or what changes until Ctrl-C.
pub(crate) async fn run(reach: &Reach, options: &StatsArgs) -> anyhow::Result<()> {
    let controller = Controller::reach(reach).await?;
    let mut hosts = meant(&controller, options).await?;
    if options.no_stream {
        let rows: Vec<_> = once(&controller, &hosts).await?.into_iter().map(row).collect();
        return out::write(&table(&HEADING, &rows, false));
    }
    let mut shown = Shown::new(&hosts);
    loop {
        let is_over = tokio::select! {
            ended = samples::stream(&controller, &hosts, |seen| shown.hears(seen)) => {
                ended?;
                true
            }
            newer = others(&controller, options, &hosts) => {
                hosts = newer?;
                false
            }
        };
        if is_over {
            if !options.targets.is_empty() {
                return Ok(());
            }
            hosts = others(&controller, options, &hosts).await?;
        }
        shown.only(&hosts);
    }
}

/// Resolves once other containers are meant than those, since they come and go.
async fn others(controller: &Controller, options: &StatsArgs, hosts: &Hosts) -> anyhow::Result<Hosts> {
    loop {
        tokio::time::sleep(LOOK_AGAIN).await;
        let newer =
            if options.targets.is_empty() { meant(controller, options).await? } else { hosts.clone() };
        if newer != *hosts {
            return Ok(newer);
        }
    }
}

async fn meant(controller: &Controller, options: &StatsArgs) -> anyhow::Result<Hosts> {
    let mut hosts = Hosts::new();
    let mut add = |instance: String, name: String| {
        hosts.entry((controller.namespace.clone(), instance)).or_default().push(name);
    };
    if options.targets.is_empty() {
        let fleet = FleetArgs {
            instances: options.instances.clone(),
            selector: options.selector.clone(),
            ..FleetArgs::default()
        };
        let found = fleet::objects(controller, "Container", &fleet, false).await?;
        let found = found.into_iter().filter_map(|item| serde_json::from_value::<Container>(item).ok());
        found.for_each(|one| add(one.instance, one.container_name));
    } else {
        let meant = TargetArgs {
            targets: options.targets.clone(),
            instances: options.instances.clone(),
            ..TargetArgs::default()
        };
        let targets = targets::containers(controller, &meant).await?;
        for one in targets {
            add(one.instance, one.name);
        }
    }
    Ok(hosts)
}

/// A screen that is painted anew, or lines beneath each other.
enum Shown {
    Screen { newest: BTreeMap<(String, String), Vec<String>>, painted: Option<Instant> },
    Lines { layout: Layout, has_heading: bool },
}

impl Shown {
    fn new(hosts: &Hosts) -> Self {
        if std::io::stdout().is_terminal() {
            return Self::Screen { newest: BTreeMap::new(), painted: None };
        }
        let names = hosts.iter().flat_map(|((_, host), names)| names.iter().map(move |name| (host, name)));
        let widest = |host: &str, name: &str| {
            let figures = ["100.00%", "999MB", "99.9GB", "9.99MB", "9.99MB", "9.99MB", "9.99MB", "9999"];
            [host, name].into_iter().chain(figures).map(str::to_owned).collect::<Vec<_>>()
        };
        let rows: Vec<_> = names.map(|(host, name)| widest(host, name)).collect();
        Self::Lines { layout: Layout::of(&HEADING, &rows), has_heading: false }
    }

    fn hears(&mut self, seen: Seen) -> anyhow::Result<()> {
        match self {
            Self::Screen { newest, painted } => {
                let row = row(seen);
                let key = (row.first().cloned().unwrap_or_default(), row.get(1).cloned().unwrap_or_default());
                newest.insert(key, row);
                if painted.is_some_and(|painted| painted.elapsed() < PAINT) {
                    return Ok(());
                }
                *painted = Some(Instant::now());
                let rows: Vec<_> = newest.values().cloned().collect();
                out::write(&screen::painted(&table(&HEADING, &rows, false), screen::height()))
            }
            Self::Lines { layout, has_heading } => {
                let heading = HEADING.map(str::to_owned);
                let heading = if *has_heading { String::new() } else { layout.line(&heading) };
                *has_heading = true;
                out::write(&(heading + &layout.line(&row(seen))))
            }
        }
    }

    /// What is not meant any more is not shown any more.
    fn only(&mut self, hosts: &Hosts) {
        if let Self::Screen { newest, .. } = self {
            newest.retain(|(host, name), _| {
                hosts.iter().any(|((_, known), names)| known == host && names.contains(name))
            });
        }
    }
}

fn row(Seen { instance, sample, .. }: Seen) -> Vec<String> {
    vec![
        instance,
        sample.name,
        format!("{:.2}%", sample.cpu_percent),
        size(sample.memory_bytes),
        size(sample.memory_limit_bytes),
        size(sample.network_received_bytes),
        size(sample.network_sent_bytes),
        size(sample.block_read_bytes),
        size(sample.block_written_bytes),
        sample.pids.to_string(),
    ]
}
