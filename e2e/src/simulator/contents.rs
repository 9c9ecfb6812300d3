//! What there is on a simulated host: for the same seed, host and number it is always the same.

use std::collections::{BTreeMap, BTreeSet};

use gantry_api::agent_v1::{Attachment, Container, Image, Network, Port, Volume};
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};

/// Services of a Compose project, and their images.
const SERVICES: [(&str, &str); 8] = [
    ("web", "nginx:1.27"),
    ("api", "registry.example/shop/api:4.2"),
    ("db", "postgres:16"),
    ("cache", "redis:7"),
    ("worker", "registry.example/shop/worker:4.2"),
    ("queue", "rabbitmq:3.13"),
    ("search", "opensearch:2.15"),
    ("metrics", "prom/node-exporter:v1.8"),
];
/// Projects that all hosts' containers are of.
const PROJECTS: usize = 500;
/// Of so many containers one does not run at first.
const RUNNING_OF: usize = 8;
/// When everything was made, in seconds since 1970, and over how many seconds.
const MADE: i64 = 1_760_000_000;
const MADE_OVER: u64 = 5_000_000;

/// What a container does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// It has a process.
    Running,
    /// It had one.
    Exited,
    /// Its process is frozen.
    Paused,
}

impl State {
    /// As Docker names it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Exited => "exited",
            Self::Paused => "paused",
        }
    }
}

/// One host's things.
#[derive(Clone, Copy, Debug)]
pub(super) struct Contents {
    pub seed: u64,
    pub host: usize,
    pub containers: usize,
}

impl Contents {
    /// Chance that is the same for the same thing.
    fn chance(self, sort: u64, number: usize) -> StdRng {
        let thing = (self.host as u64) << 32 | (number as u64) << 3 | sort;
        StdRng::seed_from_u64(self.seed.rotate_left(17) ^ thing.wrapping_mul(0x9e37_79b9_7f4a_7c15))
    }

    pub fn id(self, number: usize) -> String {
        digits(&mut self.chance(0, number))
    }

    /// Which one has that id, or an id that begins so, or that name.
    pub fn find(self, reference: &str) -> Option<usize> {
        (0..self.containers)
            .find(|number| self.id(*number).starts_with(reference) || self.name(*number) == reference)
    }

    fn project(self, number: usize) -> String {
        let project = self.chance(1, number / SERVICES.len()).random_range(0..PROJECTS);
        format!("shop-{project:03}")
    }

    pub fn name(self, number: usize) -> String {
        format!("{}-{}-{}", self.project(number), service(number).0, number + 1)
    }

    /// At first.
    pub fn state(self, number: usize) -> State {
        let is_running = self.chance(2, number).random_range(0..RUNNING_OF) > 0;
        if is_running { State::Running } else { State::Exited }
    }

    pub fn created_at(self, number: usize) -> i64 {
        MADE + i64::try_from(self.chance(3, number).random_range(0..MADE_OVER)).unwrap_or_default()
    }

    pub fn container(self, number: usize, state: State, since: i64) -> Container {
        let (service, image) = service(number);
        let project = self.project(number);
        let network = format!("{project}_default");
        let label = |name: &str, value: String| (format!("com.docker.compose.{name}"), value);
        let mut labels = BTreeMap::from([
            label("project", project.clone()),
            label("service", service.to_owned()),
            label("container-number", "1".to_owned()),
            label("oneoff", "False".to_owned()),
            label("version", "2.29.1".to_owned()),
            label("config-hash", digits(&mut self.chance(4, number))),
            label("project.working_dir", format!("/srv/{project}")),
            label("project.config_files", format!("/srv/{project}/compose.yaml")),
        ]);
        let tier = if service == "web" { "front" } else { "back" };
        labels.insert("tier".to_owned(), tier.to_owned());
        let is_running = state == State::Running;
        let host_number = u32::try_from(number).unwrap_or_default();
        Container {
            id: self.id(number),
            name: self.name(number),
            image: image.to_owned(),
            image_id: image_id(image),
            command: format!("/usr/local/bin/docker-entrypoint.sh {service}"),
            created_at: self.created_at(number),
            state: state.name().to_owned(),
            exit_code: (state == State::Exited).then_some(0),
            health: if is_running && service == "db" { "healthy" } else { "" }.to_owned(),
            since,
            ports: if is_running { ports(host_number) } else { Vec::new() },
            labels,
            network_mode: network.clone(),
            networks: vec![Attachment {
                network_id: digits(&mut self.chance(5, number / SERVICES.len())),
                network,
                ip_address: if is_running {
                    format!("172.18.0.{}", host_number % 250 + 2)
                } else {
                    String::new()
                },
                ..Attachment::default()
            }],
            ..Container::default()
        }
    }

    /// As many as its containers are of.
    pub fn images(self) -> Vec<Image> {
        let used = SERVICES.iter().take(self.containers);
        used.map(|(_, image)| Image {
            id: image_id(image),
            tags: vec![(*image).to_owned()],
            created_at: MADE,
            size_bytes: 187_000_000,
            ..Image::default()
        })
        .collect()
    }

    /// Docker's own, and one for each project.
    pub fn networks(self) -> Vec<Network> {
        let project = |group: usize| Network {
            id: digits(&mut self.chance(5, group)),
            name: format!("{}_default", self.project(group * SERVICES.len())),
            driver: "bridge".to_owned(),
            scope: "local".to_owned(),
            ..Network::default()
        };
        let bridge = Network {
            id: digits(&mut self.chance(6, 0)),
            name: "bridge".to_owned(),
            driver: "bridge".to_owned(),
            scope: "local".to_owned(),
            ..Network::default()
        };
        std::iter::once(bridge).chain((0..self.containers.div_ceil(SERVICES.len())).map(project)).collect()
    }

    /// One for each database.
    pub fn volumes(self) -> Vec<Volume> {
        let databases = (0..self.containers).filter(|number| service(*number).0 == "db");
        let names: BTreeSet<String> =
            databases.map(|number| format!("{}_db", self.project(number))).collect();
        let volume = |name: String| Volume {
            mountpoint: format!("/var/lib/docker/volumes/{name}/_data"),
            driver: "local".to_owned(),
            scope: "local".to_owned(),
            name,
            ..Volume::default()
        };
        names.into_iter().map(volume).collect()
    }
}

fn service(number: usize) -> (&'static str, &'static str) {
    SERVICES.get(number % SERVICES.len()).copied().unwrap_or_default()
}

fn ports(number: u32) -> Vec<Port> {
    vec![Port {
        ip: "0.0.0.0".to_owned(),
        private: 8_080,
        public: 20_000 + number % 40_000,
        protocol: "tcp".to_owned(),
    }]
}

fn image_id(image: &str) -> String {
    let number = SERVICES.iter().position(|(_, known)| *known == image).unwrap_or_default();
    format!("sha256:{}", digits(&mut StdRng::seed_from_u64(number as u64)))
}

/// 64 hexadecimal digits.
fn digits(chance: &mut StdRng) -> String {
    format!("{:032x}{:032x}", chance.random::<u128>(), chance.random::<u128>())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn contents(seed: u64, host: usize) -> Contents {
        Contents { seed, host, containers: 20 }
    }

    fn all(of: Contents) -> Vec<Container> {
        (0..of.containers).map(|number| of.container(number, of.state(number), 0)).collect()
    }

    #[test]
    fn the_same_seed_makes_the_same_host_and_another_seed_or_host_another() {
        assert_eq!(all(contents(1, 7)), all(contents(1, 7)));
        assert_ne!(all(contents(1, 7)), all(contents(2, 7)));
        assert_ne!(all(contents(1, 7)), all(contents(1, 8)));
    }

    #[test]
    fn ids_and_names_of_a_host_differ_and_lead_to_their_containers() {
        let host = contents(1, 7);
        let found = all(host);
        let names: BTreeSet<_> = found.iter().map(|one| &one.name).collect();
        let ids: BTreeSet<_> = found.iter().map(|one| &one.id).collect();
        assert_eq!((names.len(), ids.len()), (20, 20));
        for (number, one) in found.iter().enumerate() {
            assert_eq!(host.find(&one.name), Some(number));
            assert_eq!(host.find(&one.id), Some(number));
        }
        assert_eq!(host.find("nothing"), None);
    }

    #[test]
    fn what_containers_need_is_on_their_host_too() {
        let host = contents(1, 7);
        let images: BTreeSet<String> = host.images().into_iter().map(|image| image.id).collect();
        let networks: BTreeSet<String> = host.networks().into_iter().map(|network| network.id).collect();
        for one in all(host) {
            assert!(images.contains(&one.image_id), "{}", one.image);
            assert!(one.networks.iter().all(|network| networks.contains(&network.network_id)), "{one:?}");
        }
        assert!(!host.volumes().is_empty());
    }
}
