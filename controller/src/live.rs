//! What only a host knows, asked of its agent when somebody looks. Nothing of it is stored.
//!
//! The subresources of an instance that are answered by its agent: the router has decided who asks and that he may. What they are is
//! in [`routes`], one handler a file.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use axum::body::Body;
use axum::response::Response;
use bytes::Bytes;
use http::request::Parts;
use serde_json::Value;
use tokio_util::task::TaskTracker;

use crate::apiserver::ApiServer;
use crate::apiserver::authorize::Standing;
use crate::apiserver::failure::{Failure, Outcome};
use crate::apiserver::kinds::{self, Kind};
use crate::apiserver::request::{Call, Freshness};
use crate::clock::Entropy;
use crate::gateway::link::{AgentLink, InstanceUid, LinkError};
use crate::storage::{Key, Resource};

mod admission;
pub mod archive;
mod attach;
mod channels;
pub(crate) mod docker_endpoint;
mod engine;
mod events;
mod exec;
mod filters;
mod forward;
mod info;
mod inspect;
pub mod inventory;
mod lists;
mod logs;
mod progress;
pub mod recording;
pub mod routes;
mod stats;
mod terminal;
mod usage;
mod visit;

use docker_endpoint::Execs;
use inventory::following::INSTANCES;
use inventory::{Inventories, Sort};
use recording::Extent;
use recording::windows::Windows;
use routes::Does;
use terminal::Returns;
pub(crate) use usage::usage;
use visit::Rooms;

/// The way to the agents, known once there is a gateway, what they told, and who looks into containers now.
#[derive(Clone)]
pub struct Live {
    link: Arc<OnceLock<Arc<dyn AgentLink>>>,
    inventories: Inventories,
    rooms: Arc<Rooms>,
    returns: Arc<Returns>,
    /// Of terminals, in every namespace.
    least_recorded: Extent,
    archive_limit: u64,
    execs: Arc<Execs>,
    windows: Arc<Windows>,
    /// Calls of the Docker endpoint, which outlast their requests by the record of their end, and terminals.
    tasks: TaskTracker,
}

/// How long a stopping server waits for calls of the Docker endpoint, which it has told to end.
const ENDED_WITHIN: Duration = Duration::from_secs(5);

impl Live {
    /// Knows of no host yet.
    pub fn new(entropy: &dyn Entropy) -> Self {
        Self {
            link: Arc::default(),
            inventories: Inventories::new(entropy),
            rooms: Arc::default(),
            returns: Arc::new(Returns::new(entropy)),
            least_recorded: Extent::None,
            archive_limit: archive::LIMIT,
            execs: Arc::default(),
            windows: Arc::default(),
            tasks: TaskTracker::new(),
        }
    }

    /// The same with terminals recorded at least so in every namespace, whatever that says.
    #[must_use]
    pub fn recording(self, least_recorded: Extent) -> Self {
        Self { least_recorded, ..self }
    }

    /// The same with archives of at most so many bytes.
    #[must_use]
    pub fn limiting_archives(self, archive_limit: u64) -> Self {
        Self { archive_limit, ..self }
    }

    fn archive_limit(&self) -> u64 {
        self.archive_limit
    }

    fn least_recorded(&self) -> Extent {
        self.least_recorded
    }

    /// From now on agents can be asked; once.
    pub fn connect(&self, link: Arc<dyn AgentLink>) {
        self.link.set(link).ok();
    }

    /// What there is on every host.
    pub fn inventories(&self) -> &Inventories {
        &self.inventories
    }

    /// Waits a little for what is open to end, once its server stops, and for the records of it.
    pub async fn ended(&self) {
        self.tasks.close();
        if tokio::time::timeout(ENDED_WITHIN, self.tasks.wait()).await.is_err() {
            tracing::warn!(
                calls = self.tasks.len(),
                "calls of the Docker endpoint, or terminals, did not end in time"
            );
        }
    }

    /// What outlasts the request that it answers.
    pub(crate) fn tasks(&self) -> &TaskTracker {
        &self.tasks
    }

    fn execs(&self) -> &Arc<Execs> {
        &self.execs
    }

    fn windows(&self) -> &Arc<Windows> {
        &self.windows
    }

    fn returns(&self) -> &Arc<Returns> {
        &self.returns
    }

    fn rooms(&self) -> &Rooms {
        &self.rooms
    }

    fn link(&self) -> Outcome<&Arc<dyn AgentLink>> {
        self.link.get().ok_or_else(|| Failure::unavailable("this replica takes no agents yet; try again"))
    }
}

/// One request to the agent of an instance.
pub(crate) struct Ask {
    /// The instance it is about.
    pub instance: Instance,
    /// What the path names below the instance, as a container; empty where it names nothing.
    pub object: Arc<str>,
    /// What people and policies call that: as the path does, and a Pod by the name of its container.
    pub called: Arc<str>,
    /// Query, format, caller and ticket.
    pub call: Call,
    /// For as long as this holds a stream may go on. Whatever more right is needed is asked of it.
    pub standing: Standing,
    /// Method and headers.
    pub parts: Parts,
}

/// A DockerInstance as memory has it.
pub(crate) struct Instance {
    pub name: Arc<str>,
    pub uid: InstanceUid,
    /// All that is stored of it, which is read where somebody has to be told more.
    stored: Bytes,
}

impl Instance {
    /// That its agent cannot be asked now.
    pub fn away(&self) -> Failure {
        let stored: Value = serde_json::from_slice(&self.stored).unwrap_or_default();
        let seen = match stored.pointer("/status/lastConnectedTime").and_then(Value::as_str) {
            Some(time) => format!("it was last seen at {time}"),
            None => "it was never seen".to_owned(),
        };
        Failure::unavailable(format!(
            "the agent of dockerinstance \"{}\" is not connected, {seen}; start it on its host, or try again later",
            self.name
        ))
    }

    /// That nothing is known of its host, which is not the same as that there is nothing.
    fn untold(&self, live: &Live) -> Failure {
        if live.link().is_ok_and(|link| link.session(self.uid).is_some()) {
            Failure::unavailable(format!(
                "what there is on dockerinstance \"{}\" is not known yet: its engine does not answer, or its agent has just come, or is too \
                 old to tell; see its conditions, or try again",
                self.name
            ))
        } else {
            self.away()
        }
    }

    /// Why its agent did not answer, in words for who asked.
    pub fn failed(&self, error: LinkError) -> Failure {
        use tonic::Code;
        match error {
            LinkError::Away => self.away(),
            LinkError::Silent(why) => Failure::timeout(format!(
                "the agent of dockerinstance \"{}\" did not answer: {why}",
                self.name
            )),
            LinkError::Refused { code: Code::NotFound, message } => Failure::not_found_on_host(message),
            LinkError::Refused { code: Code::InvalidArgument | Code::OutOfRange, message } => {
                Failure::bad_request(message)
            }
            LinkError::Refused { code: Code::PermissionDenied, message } => Failure::forbidden(message),
            LinkError::Refused { code: Code::FailedPrecondition | Code::AlreadyExists, message } => {
                Failure::refused_by_host(message)
            }
            LinkError::Refused { code: Code::Unimplemented, .. } => Failure::refused_by_host(format!(
                "the agent of dockerinstance \"{}\" is too old for this: update it",
                self.name
            )),
            LinkError::Refused { message, .. } => Failure::unavailable(message),
        }
    }
}

/// Finds the instance and asks.
pub(crate) async fn serve(
    server: &Arc<ApiServer>,
    does: Does,
    object: Option<Arc<str>>,
    call: Call,
    parts: Parts,
    body: Body,
) -> Outcome<Response> {
    let standing = parts.extensions.get::<Standing>().cloned();
    let standing = standing.ok_or_else(|| Failure::internal("a stream was not looked at"))?;
    if does == Does::Progress {
        return progress::progress(server, call, &parts, standing).await;
    }
    let (instance, object, called) = match object {
        None if call.kind.is_live => find_container(server, &call).await?,
        object => {
            let object = object.unwrap_or_default();
            (find(server, call.kind, call.target()?).await?, Arc::clone(&object), object)
        }
    };
    call.ticket.is_about(&instance.name);
    let ask = Ask { instance, object, called, call, standing, parts };
    match does {
        Does::Docker | Does::Progress => Err(Failure::internal("this answers for itself")),
        Does::Info => info::info(server, &ask).await,
        Does::Containers => lists::list(server, &ask, Sort::Containers).await,
        Does::Images => lists::list(server, &ask, Sort::Images).await,
        Does::Networks => lists::list(server, &ask, Sort::Networks).await,
        Does::Volumes => lists::list(server, &ask, Sort::Volumes).await,
        Does::Logs => logs::logs(server, ask).await,
        Does::Exec => exec::exec(server, ask).await,
        Does::Attach => attach::attach(server, ask).await,
        Does::Archive => archive::archive(server, ask, body).await,
        Does::Forward => forward::forward(server, ask).await,
        Does::Stats => stats::stats(server, ask).await,
        Does::Inspect(sort) => inspect::one(server, &ask, sort).await,
        Does::Top => inspect::top(server, ask).await,
        Does::DiskUsage => inspect::disk_usage(server, &ask).await,
        Does::Events => events::events(server, ask).await,
    }
}

/// The host, the id and the name of a container that is asked for as a Pod. It is asked of the agent whatever is known of it, so one that has
/// just gone is told of by its host.
async fn find_container(server: &ApiServer, call: &Call) -> Outcome<(Instance, Arc<str>, Arc<str>)> {
    let key = call.target()?;
    let object = server.live().inventories().cache().get(&key);
    let object = object.ok_or_else(|| Failure::not_found(&call.kind.resource(), &key.name))?;
    let container: Value = serde_json::from_slice(&object.json).unwrap_or_default();
    let text = |field: &str| container.get(field).and_then(Value::as_str).unwrap_or_default();
    let instance =
        Key { resource: Resource(INSTANCES.into()), namespace: key.namespace, name: text("instance").into() };
    let kind = kinds::instances().ok_or_else(|| Failure::internal("a kind is not served"))?;
    Ok((find(server, kind, instance).await?, text("id").into(), text("containerName").into()))
}

/// The instance that the path names. One that memory does not have yet is waited for.
async fn find(server: &ApiServer, kind: &'static Kind, key: Key) -> Outcome<Instance> {
    let cache = server.store().cache();
    if cache.get(&key).is_none() {
        server.reach(kind, Freshness::Newest).await?;
    }
    let object = cache.get(&key).ok_or_else(|| Failure::not_found(&key.resource, &key.name))?;
    Ok(Instance { name: key.name, uid: InstanceUid(object.uid), stored: object.json.clone() })
}
