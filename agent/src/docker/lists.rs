//! What there is on an engine: its list calls, in the words of the protocol.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use ::bollard::errors::Error;
use ::bollard::models::{ContainerSummary, EndpointSettings, ImageSummary, MountPoint, PortSummary};
use ::bollard::query_parameters::{
    ListContainersOptionsBuilder, ListImagesOptions, ListNetworksOptions, ListVolumesOptions,
};
use async_trait::async_trait;
use futures::stream::BoxStream;
use gantry_api::agent_v1::{Attachment, Container, Image, Mount, Network, Port, Volume};

use super::connection::Connection;
use super::{DockerError, Happened};

/// Bytes of labels that are told of one object.
const MOST_LABELS: usize = 32 << 10;
/// Bytes of a command.
const MOST_COMMAND: usize = 4 << 10;
const MOST_PORTS: usize = 500;
const MOST_MOUNTS: usize = 200;
const MOST_NETWORKS: usize = 100;
/// Tags, and digests, of one image.
const MOST_NAMES: usize = 200;

/// Lists of one engine. Every call ends within a bounded time.
#[async_trait]
pub trait Listing: Send + Sync + 'static {
    /// All containers, or those there are of some ids. `now` is what their ages are counted from, in seconds since 1970.
    async fn containers(
        &self,
        ids: Option<&BTreeSet<String>>,
        now: i64,
    ) -> Result<Vec<Container>, DockerError>;

    /// All images but layers of others.
    async fn images(&self) -> Result<Vec<Image>, DockerError>;

    /// All networks.
    async fn networks(&self) -> Result<Vec<Network>, DockerError>;

    /// All volumes.
    async fn volumes(&self) -> Result<Vec<Volume>, DockerError>;

    /// One item once the engine's events can be heard, then one for each burst of them, some a second; also when the engine goes away and
    /// when it is back. It reconnects by itself and never ends.
    fn happenings(&self) -> BoxStream<'static, Happened>;
}

pub(super) async fn containers(
    one: &Connection,
    ids: Option<&BTreeSet<String>>,
    now: i64,
) -> Result<Vec<Container>, Error> {
    let mut options = ListContainersOptionsBuilder::default().all(true);
    if let Some(ids) = ids {
        let ids: Vec<&str> = ids.iter().map(String::as_str).collect();
        options = options.filters(&HashMap::from([("id", ids)]));
    }
    let listed = one.docker.list_containers(Some(options.build())).await?;
    Ok(listed.into_iter().map(|summary| container(summary, now)).collect())
}

pub(super) async fn images(one: &Connection) -> Result<Vec<Image>, Error> {
    let listed = one.docker.list_images(None::<ListImagesOptions>).await?;
    Ok(listed.into_iter().map(image).collect())
}

pub(super) async fn networks(one: &Connection) -> Result<Vec<Network>, Error> {
    let listed = one.docker.list_networks(None::<ListNetworksOptions>).await?;
    let network = |network: ::bollard::models::Network| {
        let configs = network.ipam.and_then(|ipam| ipam.config).unwrap_or_default();
        Network {
            id: network.id.unwrap_or_default(),
            name: network.name.unwrap_or_default(),
            driver: network.driver.unwrap_or_default(),
            scope: network.scope.unwrap_or_default(),
            is_internal: network.internal.unwrap_or_default(),
            is_attachable: network.attachable.unwrap_or_default(),
            has_ipv6: network.enable_ipv6.unwrap_or_default(),
            subnets: configs.into_iter().filter_map(|config| config.subnet).collect(),
            created_at: network.created.unwrap_or_default(),
            labels: Cut::default().labels(network.labels),
        }
    };
    Ok(listed.into_iter().map(network).collect())
}

pub(super) async fn volumes(one: &Connection) -> Result<Vec<Volume>, Error> {
    let listed = one.docker.list_volumes(None::<ListVolumesOptions>).await?;
    let volume = |volume: ::bollard::models::Volume| Volume {
        name: volume.name,
        driver: volume.driver,
        mountpoint: volume.mountpoint,
        scope: volume.scope.map(|scope| scope.to_string()).unwrap_or_default(),
        created_at: volume.created_at.unwrap_or_default(),
        labels: Cut::default().labels(Some(volume.labels)),
    };
    Ok(listed.volumes.unwrap_or_default().into_iter().map(volume).collect())
}

/// Cuts what would make one object larger than a message may be, and remembers that it did.
#[derive(Default)]
struct Cut(bool);

impl Cut {
    fn labels(&mut self, labels: Option<HashMap<String, String>>) -> BTreeMap<String, String> {
        let labels = labels.unwrap_or_default();
        let bytes: usize = labels.iter().map(|(key, value)| key.len() + value.len()).sum();
        self.0 |= bytes > MOST_LABELS;
        if bytes > MOST_LABELS { BTreeMap::new() } else { labels.into_iter().collect() }
    }

    fn list<T>(&mut self, mut items: Vec<T>, most: usize) -> Vec<T> {
        self.0 |= items.len() > most;
        items.truncate(most);
        items
    }

    fn text(&mut self, text: Option<String>, most: usize) -> String {
        let mut text = text.unwrap_or_default();
        self.0 |= text.len() > most;
        text.truncate(text.floor_char_boundary(most));
        text
    }
}

fn container(summary: ContainerSummary, now: i64) -> Container {
    let told = Told::read(summary.status.as_deref().unwrap_or_default());
    let networks = summary.network_settings.and_then(|settings| settings.networks).unwrap_or_default();
    let mut networks: Vec<Attachment> = networks.into_iter().map(attachment).collect();
    networks.sort_by(|a, b| a.network.cmp(&b.network));
    let mut ports: Vec<Port> = summary.ports.unwrap_or_default().into_iter().map(port).collect();
    ports.sort_by(|a, b| {
        (a.private, a.public, &a.protocol, &a.ip).cmp(&(b.private, b.public, &b.protocol, &b.ip))
    });
    let mut mounts: Vec<Mount> = summary.mounts.unwrap_or_default().into_iter().map(mount).collect();
    mounts.sort_by(|a, b| a.target.cmp(&b.target));
    let mut cut = Cut::default();
    Container {
        id: summary.id.unwrap_or_default(),
        name: own_name(&summary.names.unwrap_or_default()),
        image: summary.image.unwrap_or_default(),
        image_id: summary.image_id.unwrap_or_default(),
        command: cut.text(summary.command, MOST_COMMAND),
        created_at: summary.created.unwrap_or_default(),
        state: summary.state.map(|state| state.to_string()).unwrap_or_default(),
        exit_code: told.exit_code,
        health: told.health.to_owned(),
        since: told.age.map_or(0, |age| now - age),
        ports: cut.list(ports, MOST_PORTS),
        labels: cut.labels(summary.labels),
        network_mode: summary.host_config.and_then(|host| host.network_mode).unwrap_or_default(),
        networks: cut.list(networks, MOST_NETWORKS),
        mounts: cut.list(mounts, MOST_MOUNTS),
        is_cut: cut.0,
    }
}

/// Of all names the one that is no link's: `/web`, and not `/shop/db`.
fn own_name(names: &[String]) -> String {
    let own = names.iter().map(|name| name.trim_start_matches('/')).find(|name| !name.contains('/'));
    own.unwrap_or_default().to_owned()
}

fn attachment((network, settings): (String, EndpointSettings)) -> Attachment {
    Attachment {
        network,
        network_id: settings.network_id.unwrap_or_default(),
        ip_address: settings.ip_address.unwrap_or_default(),
        ipv6_address: settings.global_ipv6_address.unwrap_or_default(),
        mac_address: settings.mac_address.unwrap_or_default(),
    }
}

fn port(port: PortSummary) -> Port {
    Port {
        ip: port.ip.unwrap_or_default(),
        private: port.private_port.into(),
        public: port.public_port.map(Into::into).unwrap_or_default(),
        protocol: port.typ.map(|typ| typ.to_string()).unwrap_or_default(),
    }
}

fn mount(mount: MountPoint) -> Mount {
    Mount {
        r#type: mount.typ.unwrap_or_default(),
        name: mount.name.unwrap_or_default(),
        source: mount.source.unwrap_or_default(),
        target: mount.destination.unwrap_or_default(),
        read_only: !mount.rw.unwrap_or(true),
    }
}

fn image(summary: ImageSummary) -> Image {
    let mut cut = Cut::default();
    let real = |names: Vec<String>| -> Vec<String> {
        let mut names: Vec<_> = names.into_iter().filter(|name| !name.starts_with("<none>")).collect();
        names.sort();
        names
    };
    Image {
        id: summary.id,
        tags: cut.list(real(summary.repo_tags), MOST_NAMES),
        digests: cut.list(real(summary.repo_digests), MOST_NAMES),
        created_at: summary.created,
        size_bytes: u64::try_from(summary.size).unwrap_or_default(),
        labels: cut.labels(Some(summary.labels)),
        is_cut: cut.0,
    }
}

/// What Docker's list says in words only: `Up 5 minutes (healthy)`, `Exited (0) 3 days ago`.
#[derive(Debug, Default, PartialEq, Eq)]
struct Told {
    exit_code: Option<i32>,
    health: &'static str,
    /// Seconds in this state, about.
    age: Option<i64>,
}

impl Told {
    fn read(status: &str) -> Self {
        let health =
            [("(healthy)", "healthy"), ("(unhealthy)", "unhealthy"), ("(health: starting)", "starting")];
        let health = health.iter().find(|(text, _)| status.contains(text)).map_or("", |(_, health)| *health);
        let code = || status.split_once('(')?.1.split_once(')')?.0.parse().ok();
        let (exit_code, rest) = if let Some(rest) = status.strip_prefix("Up ") {
            (None, Some(rest))
        } else if status.starts_with("Exited (") || status.starts_with("Restarting (") {
            (code(), status.split_once(')').map(|(_, rest)| rest))
        } else {
            (None, None)
        };
        Self { exit_code, health, age: rest.and_then(|rest| age(rest.trim_start())) }
    }
}

/// Seconds of a duration as Docker words it: `Less than a second`, `About an hour`, `4 seconds ago`.
fn age(text: &str) -> Option<i64> {
    if text.starts_with("Less than a second") {
        return Some(0);
    }
    let text = text.strip_prefix("About ").unwrap_or(text);
    let mut words = text.split_ascii_whitespace();
    let number = match words.next()? {
        "a" | "an" => 1,
        number => number.parse().ok()?,
    };
    let seconds = match words.next()?.trim_end_matches('s') {
        "second" => 1,
        "minute" => 60,
        "hour" => 3_600,
        "day" => 86_400,
        "week" => 7 * 86_400,
        "month" => 30 * 86_400,
        "year" => 365 * 86_400,
        _ => return None,
    };
    i64::checked_mul(number, seconds)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_docker_says_in_words_is_read() {
        for (status, exit_code, health, age) in [
            ("Up 5 minutes", None, "", Some(300)),
            ("Up Less than a second", None, "", Some(0)),
            ("Up About a minute (healthy)", None, "healthy", Some(60)),
            ("Up About an hour (unhealthy)", None, "unhealthy", Some(3_600)),
            ("Up 4 seconds (health: starting)", None, "starting", Some(4)),
            ("Up 2 weeks (Paused)", None, "", Some(1_209_600)),
            ("Exited (137) 3 days ago", Some(137), "", Some(259_200)),
            ("Exited (0) Less than a second ago", Some(0), "", Some(0)),
            ("Restarting (1) 5 seconds ago", Some(1), "", Some(5)),
            ("Created", None, "", None),
            ("Dead", None, "", None),
            ("Removal In Progress", None, "", None),
            ("", None, "", None),
            ("Up 99999999999999999999 years", None, "", None),
            ("Up 9223372036854775807 years", None, "", None),
        ] {
            assert_eq!(Told::read(status), Told { exit_code, health, age }, "{status}");
        }
    }

    #[test]
    fn a_container_is_called_by_its_own_name_and_not_by_a_links() {
        assert_eq!(own_name(&["/shop/db".to_owned(), "/postgres".to_owned()]), "postgres");
        assert_eq!(own_name(&[]), "");
    }

    #[test]
    fn what_is_too_much_is_cut_and_said_to_be() {
        let huge = || HashMap::from([("a".to_owned(), "x".repeat(MOST_LABELS))]);
        let summary = ContainerSummary { labels: Some(huge()), ..ContainerSummary::default() };
        let cut = container(summary, 0);
        assert!(cut.is_cut && cut.labels.is_empty());

        let ports = vec![PortSummary::default(); MOST_PORTS + 1];
        let summary = ContainerSummary {
            ports: Some(ports),
            command: Some("ä".repeat(9_000)),
            ..ContainerSummary::default()
        };
        let cut = container(summary, 0);
        assert!(cut.is_cut && cut.ports.len() == MOST_PORTS && cut.command.len() == MOST_COMMAND);

        assert!(!container(ContainerSummary::default(), 0).is_cut);
    }
}
