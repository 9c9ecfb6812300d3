//! The one user of bollard.

use std::collections::BTreeSet;
use std::time::Duration;

use ::bollard::models::SystemInfo;
use ::bollard::query_parameters::{
    ListNetworksOptions, ListNetworksOptionsBuilder, ListVolumesOptionsBuilder,
};
use async_trait::async_trait;
use futures::StreamExt as _;
use futures::stream::BoxStream;
use gantry_api::agent_v1::{
    Container, Image, InfoResponse, Network, RegistryAuth, Target, TargetKind, Volume,
};
use gantry_api::docker_config::server_of;
use parking_lot::Mutex;
use tracing::instrument;

use super::connection::{Address, Connection, dial};
use super::engine::{Answer, Call, ContainerFacts, Engine, ImageFacts, Incarnation, LayerUpdate, Pull, Wire};
use super::host_credentials::HostCredentials;
use super::lists::{self, Listing};
use super::{DockerError, Happened, ImageReference, containers, events, images};

/// Where Docker listens unless told otherwise.
pub const DEFAULT_HOST: &str = "unix:///var/run/docker.sock";
/// The oldest API that is operated on: Docker 20.10.
const OLDEST: (u32, u32) = (1, 41);
/// What Podman calls itself among the parts of its version.
const PODMAN: &str = "Podman Engine";
const READ_WITHIN: Duration = Duration::from_secs(10);
const INFO_WITHIN: Duration = Duration::from_secs(25);
/// A list of some thousand containers.
const LIST_WITHIN: Duration = Duration::from_secs(25);
/// Who only wants to know that something changed is told once a second.
const CHANGES_PACE: Duration = Duration::from_secs(1);
const HAPPENINGS_PACE: Duration = Duration::from_millis(200);
const REGISTRY_WITHIN: Duration = Duration::from_secs(10);

/// A Docker Engine on a Unix socket or a TCP port.
pub struct BollardEngine {
    pub(super) address: Address,
    /// The API version of its last answer.
    api_version: Mutex<Option<String>>,
    identity: Mutex<Identity>,
    /// What registries are shown where the controller gives nothing.
    host_credentials: Option<HostCredentials>,
}

/// The engine's own id as it was told last.
#[derive(Default)]
struct Identity {
    /// Empty where the engine has none.
    id: String,
    /// False once the engine was away: another one may have taken its place.
    is_current: bool,
}

/// What an engine says that it is.
struct Version {
    engine: String,
    api: String,
    is_podman: bool,
}

impl BollardEngine {
    /// Does not connect yet: an engine that is away is found by the first call.
    pub fn new(host: &str) -> Result<Self, DockerError> {
        Ok(Self {
            address: Address::parse(host)?,
            api_version: Mutex::default(),
            identity: Mutex::default(),
            host_credentials: None,
        })
    }

    /// Shows registries the host's own credentials where the controller gives none.
    #[must_use]
    pub fn with_host_credentials(mut self, host: Option<HostCredentials>) -> Self {
        self.host_credentials = host;
        self
    }

    async fn credentials(
        &self,
        reference: &ImageReference,
        given: Option<&RegistryAuth>,
    ) -> Option<RegistryAuth> {
        match (given, &self.host_credentials) {
            (Some(given), _) => Some(given.clone()),
            (None, Some(host)) => host.find(&server_of(reference.repository())).await,
            (None, None) => None,
        }
    }

    /// Makes one call on a connection of its own.
    async fn once<T>(
        &self,
        within: Duration,
        call: impl AsyncFnOnce(&Connection) -> Result<T, ::bollard::errors::Error>,
    ) -> Result<T, DockerError> {
        let connection = Connection::new(&self.address)?;
        let answer = tokio::time::timeout(within, call(&connection)).await;
        if let Some(version) = connection.api_version() {
            *self.api_version.lock() = Some(version);
        }
        let answer = match answer {
            Ok(answer) => answer.map_err(|error| connection.explain(error)),
            Err(_) => Err(DockerError::Silent(within)),
        };
        if matches!(answer, Err(DockerError::Unreachable { .. } | DockerError::Lost(_))) {
            self.was_away();
        }
        answer
    }

    /// Another engine may take its place.
    pub(super) fn was_away(&self) {
        self.identity.lock().is_current = false;
    }

    /// Refuses an engine that is too old. Asks for the version only if no answer has told it yet.
    pub(super) async fn require_compatible(&self) -> Result<(), DockerError> {
        let known = self.api_version.lock().clone();
        let version = match known {
            Some(version) => version,
            None => self.version().await.map_err(|error| DockerError::NotAsked(Box::new(error)))?.api,
        };
        if is_compatible(&version) { Ok(()) } else { Err(DockerError::Incompatible(version)) }
    }

    async fn version(&self) -> Result<Version, DockerError> {
        let version = self.once(READ_WITHIN, async |one| one.docker.version().await).await?;
        let api = version.api_version.unwrap_or_default();
        *self.api_version.lock() = Some(api.clone());
        let mut components = version.components.iter().flatten();
        let is_podman = components.any(|component| component.name == PODMAN);
        Ok(Version { engine: version.version.unwrap_or_default(), api, is_podman })
    }

    async fn system_info(&self, is_podman: bool) -> Result<SystemInfo, DockerError> {
        let mut info = self.once(INFO_WITHIN, async |one| one.docker.info().await).await?;
        if is_podman {
            // A new one each time that it is asked: no engine's.
            info.id = None;
        }
        *self.identity.lock() = Identity { id: info.id.clone().unwrap_or_default(), is_current: true };
        Ok(info)
    }
}

#[async_trait]
impl Engine for BollardEngine {
    #[instrument(name = "docker.info", skip_all)]
    async fn info(&self) -> Result<InfoResponse, DockerError> {
        let version = self.version().await?;
        let info = self.system_info(version.is_podman).await?;
        Ok(InfoResponse {
            engine_id: info.id.unwrap_or_default(),
            engine_version: version.engine,
            compatible: is_compatible(&version.api),
            api_version: version.api,
            operating_system: info.operating_system.unwrap_or_default(),
            os_type: info.os_type.unwrap_or_default(),
            architecture: info.architecture.unwrap_or_default(),
            kernel_version: info.kernel_version.unwrap_or_default(),
            storage_driver: info.driver.unwrap_or_default(),
            cgroup_version: info.cgroup_version.map(|version| version.to_string()).unwrap_or_default(),
            cpus: count(info.ncpu),
            memory_bytes: info.mem_total.and_then(|bytes| u64::try_from(bytes).ok()).unwrap_or_default(),
            containers_running: count(info.containers_running),
            containers_paused: count(info.containers_paused),
            containers_stopped: count(info.containers_stopped),
            images: count(info.images),
            host_name: info.name.unwrap_or_default(),
        })
    }

    fn known_id(&self) -> String {
        self.identity.lock().id.clone()
    }

    async fn id(&self) -> Result<String, DockerError> {
        {
            let known = self.identity.lock();
            if known.is_current {
                return Ok(known.id.clone());
            }
        }
        let is_podman = self.version().await.is_ok_and(|version| version.is_podman);
        Ok(self.system_info(is_podman).await?.id.unwrap_or_default())
    }

    #[instrument(name = "docker.resolve", skip_all)]
    async fn resolve(&self, kind: TargetKind, reference: &str) -> Result<Target, DockerError> {
        match kind {
            TargetKind::Container => {
                containers::check_name(reference)?;
                let found =
                    self.once(READ_WITHIN, async |one| containers::inspect(one, reference).await).await;
                found.map_err(containers::ambiguous)?.map(|facts| containers::target(&facts)).ok_or_else(
                    || DockerError::NoSuchTarget(format!("container `{reference}` does not exist")),
                )
            }
            TargetKind::Image => {
                images::check_name(reference)?;
                let found = self.once(READ_WITHIN, async |one| images::inspect(one, reference).await).await;
                found
                    .map_err(containers::ambiguous)?
                    .map(|facts| images::target(&facts, reference))
                    .ok_or_else(|| {
                        DockerError::NoSuchTarget(format!("image `{reference}` is not on this host"))
                    })
            }
            TargetKind::Unspecified => {
                Err(DockerError::InvalidReference("neither a container nor an image was named".to_owned()))
            }
        }
    }

    /// The boot of the machine, the process that listens on the socket, and the ids of the engine's own networks: Docker
    /// makes its `bridge` anew at each start. API 1.41 tells nothing more direct. Under systemd's socket activation the
    /// listener is systemd, so there the bridge decides; with neither, runs cannot be told apart.
    #[instrument(name = "docker.incarnation", skip_all)]
    async fn incarnation(&self) -> Result<Option<Incarnation>, DockerError> {
        let filters = std::collections::HashMap::from([("driver", vec!["bridge", "null"])]);
        let options: ListNetworksOptions = ListNetworksOptionsBuilder::default().filters(&filters).build();
        let networks =
            self.once(READ_WITHIN, async |one| one.docker.list_networks(Some(options)).await).await?;
        let id = |name: &str| {
            networks
                .iter()
                .find(|network| network.name.as_deref() == Some(name))
                .and_then(|network| network.id.clone())
        };
        let bridge = id("bridge").or_else(|| id("podman"));
        let listener = match &self.address {
            Address::Unix(path) => super::connection::listener(path).await,
            Address::Tcp(_) => None,
        };
        if bridge.is_none() && listener.is_none() {
            return Ok(None);
        }
        let boot = tokio::fs::read_to_string("/proc/sys/kernel/random/boot_id").await.unwrap_or_default();
        Ok(Some(Incarnation(format!(
            "boot={} listener={} bridge={} none={}",
            boot.trim(),
            listener.unwrap_or_default(),
            bridge.unwrap_or_default(),
            id("none").unwrap_or_default(),
        ))))
    }

    #[instrument(name = "docker.inspect_container", skip_all)]
    async fn container(&self, id: &str) -> Result<Option<ContainerFacts>, DockerError> {
        containers::check_name(id)?;
        self.once(READ_WITHIN, async |one| containers::inspect(one, id).await).await
    }

    #[instrument(name = "docker.inspect_image", skip_all)]
    async fn image(&self, reference: &str) -> Result<Option<ImageFacts>, DockerError> {
        images::check_name(reference)?;
        self.once(READ_WITHIN, async |one| images::inspect(one, reference).await).await
    }

    #[instrument(name = "docker.volumes", skip_all)]
    async fn volumes(&self, names: &[String]) -> Result<Vec<String>, DockerError> {
        let filters = std::collections::HashMap::from([("name", names.to_vec())]);
        let options = ListVolumesOptionsBuilder::default().filters(&filters).build();
        let found = self.once(READ_WITHIN, async |one| one.docker.list_volumes(Some(options)).await).await?;
        let found = found.volumes.unwrap_or_default().into_iter().map(|volume| volume.name);
        // Docker's filter takes parts of names.
        Ok(found.filter(|name| names.contains(name)).collect())
    }

    #[instrument(name = "docker.registry_digest", skip_all)]
    async fn registry_digest(
        &self,
        reference: &ImageReference,
        credentials: Option<&RegistryAuth>,
    ) -> Result<String, DockerError> {
        let name = reference.to_string();
        let credentials = self.credentials(reference, credentials).await.map(images::as_docker);
        let found = self
            .once(REGISTRY_WITHIN, async |one| one.docker.inspect_registry_image(&name, credentials).await)
            .await?;
        found
            .descriptor
            .digest
            .ok_or_else(|| DockerError::Unreadable("the registry gave no digest".to_owned()))
    }

    #[instrument(name = "docker.call", skip_all)]
    async fn call(&self, call: &Call, within: Duration) -> Result<Answer, DockerError> {
        self.require_compatible().await?;
        let (done, status) = {
            let mut status = 0;
            let done = self
                .once(within, async |one| {
                    let done = match call {
                        Call::RemoveImage { .. } | Call::Tag { .. } => images::call(one, call).await,
                        _ => containers::call(one, call).await,
                    };
                    status = one.status();
                    done
                })
                .await;
            (done, status)
        };
        done.map(|()| if status == 304 { Answer::NotModified } else { Answer::Done })
    }

    #[instrument(name = "docker.pull", skip_all)]
    async fn pull(
        &self,
        pull: &Pull,
        credentials: Option<&RegistryAuth>,
        progress: &mut (dyn FnMut(LayerUpdate) + Send),
    ) -> Result<(), DockerError> {
        self.require_compatible().await?;
        let credentials = self.credentials(&pull.reference, credentials).await;
        let connection = Connection::new(&self.address)?;
        let pulled = images::pull(&connection, pull, credentials, progress).await;
        pulled.map_err(|error| connection.explain(error))
    }

    async fn api_version(&self) -> Result<String, DockerError> {
        let known = self.api_version.lock().clone();
        match known {
            Some(version) => Ok(version),
            None => self.version().await.map(|version| version.api),
        }
    }

    async fn dial(&self) -> Result<Box<dyn Wire>, DockerError> {
        dial(&self.address)
            .await
            .map_err(|cause| DockerError::Unreachable { address: self.address.to_string(), cause })
    }

    fn changes(&self) -> BoxStream<'static, ()> {
        events::happenings(self.address.clone(), CHANGES_PACE).map(drop).boxed()
    }
}

#[async_trait]
impl Listing for BollardEngine {
    #[instrument(name = "docker.list_containers", skip_all)]
    async fn containers(
        &self,
        ids: Option<&BTreeSet<String>>,
        now: i64,
    ) -> Result<Vec<Container>, DockerError> {
        self.once(LIST_WITHIN, async |one| lists::containers(one, ids, now).await).await
    }

    #[instrument(name = "docker.list_images", skip_all)]
    async fn images(&self) -> Result<Vec<Image>, DockerError> {
        self.once(LIST_WITHIN, async |one| lists::images(one).await).await
    }

    #[instrument(name = "docker.list_networks", skip_all)]
    async fn networks(&self) -> Result<Vec<Network>, DockerError> {
        self.once(LIST_WITHIN, async |one| lists::networks(one).await).await
    }

    #[instrument(name = "docker.list_volumes", skip_all)]
    async fn volumes(&self) -> Result<Vec<Volume>, DockerError> {
        self.once(LIST_WITHIN, async |one| lists::volumes(one).await).await
    }

    fn happenings(&self) -> BoxStream<'static, Happened> {
        // Not at once: before its events can be heard, a list would have to be taken anew.
        events::happenings(self.address.clone(), HAPPENINGS_PACE).skip(1).boxed()
    }
}

fn is_compatible(api_version: &str) -> bool {
    let mut numbers = api_version.split('.').map(str::parse::<u32>);
    match (numbers.next(), numbers.next()) {
        (Some(Ok(major)), Some(Ok(minor))) => (major, minor) >= OLDEST,
        _ => false,
    }
}

fn count(number: Option<i64>) -> u32 {
    number.and_then(|number| u32::try_from(number).ok()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_engine_older_than_20_10_is_not_operated_on() {
        assert!(is_compatible("1.41"));
        assert!(is_compatible("1.100"));
        assert!(is_compatible("2.0"));
        assert!(!is_compatible("1.40"));
        assert!(!is_compatible("1.5"));
        assert!(!is_compatible(""));
    }
}
