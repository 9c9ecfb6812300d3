//! Requests of Docker's own clients that the controller passes on. What comes is a call of the grammar, never HTTP: the request for the
//! engine is written here, after the host owner's policy has been asked.
//!
//! No bytes are kept: they flow as fast as the slower end takes them, and dropping the answer closes the connection.

mod wire;

use std::io;

use bytes::Bytes;
use futures::stream::BoxStream;
use gantry_api::agent_v1::{EngineAnswer, EngineCall, EnginePair, Policy};
use gantry_api::engine_api::{Body, Level, OLDEST, Request, Route};
use http::{HeaderMap, HeaderName, StatusCode};
use tonic::{Code, Status};

use crate::docker::{DockerError, Engine};
use crate::operations::Refusal;

pub use wire::Kept;

/// Headers of an engine's answer that clients look at.
const TOLD: [&str; 9] = [
    "api-version",
    "builder-version",
    "content-type",
    "docker-experimental",
    "ostype",
    "server",
    "swarm",
    "x-docker-container-path-stat",
    "upgrade",
];

/// What the engine said, and then says.
pub struct Said {
    /// Status and headers.
    pub answer: EngineAnswer,
    /// What follows, to its end; an error where the connection broke.
    pub bytes: BoxStream<'static, Result<Bytes, Status>>,
}

/// Asks the engine, on a connection that was `kept` where that does no harm. `sent` are the bytes after the call, of an archive or of a
/// terminal; an error means that they are not all.
pub async fn exchange(
    engine: &dyn Engine,
    kept: &Kept,
    policy: Policy,
    call: EngineCall,
    sent: BoxStream<'static, io::Result<Bytes>>,
) -> Result<Said, Status> {
    let (json, wants_upgrade) = (call.json.clone(), call.upgrade);
    let request = Request::of_call(call).map_err(|refusal| Status::invalid_argument(refusal.message))?;
    require(policy, request.route)?;
    let body = match request.route.body {
        Body::None | Body::Tar => None,
        Body::Json(kind) => {
            let parsed = kind.read(&json).map_err(|refusal| Status::invalid_argument(refusal.message))?;
            Some(Bytes::from(parsed.write())).filter(|body| !body.is_empty())
        }
    };
    let version = spoken(engine, &request).await.map_err(Refusal::from)?;
    let upgrade = wants_upgrade && request.route.protocol().is_some();
    let sending = match (request.route.body, body) {
        (Body::Tar, _) => wire::Sending::Archive(sent),
        (_, Some(body)) => wire::Sending::Json { body, typed: upgrade.then_some(sent) },
        (_, None) => wire::Sending::Nothing { typed: upgrade.then_some(sent) },
    };
    let said = wire::send(engine, kept, &request, version, sending).await?;
    if said.status.is_redirection() && said.status != StatusCode::NOT_MODIFIED {
        return Err(Status::unknown("the engine answered with a redirect, which is never followed"));
    }
    let headers = told(&said.headers);
    Ok(Said { answer: EngineAnswer { status: said.status.as_u16().into(), headers }, bytes: said.bytes })
}

/// The host's owner has the last word, whatever the controller thinks.
fn require(policy: Policy, route: &Route) -> Result<(), Status> {
    let allowed = match policy {
        Policy::Unspecified => None,
        Policy::Observe => Some(Level::Observe),
        Policy::Operate => Some(Level::Operate),
        Policy::Full => Some(Level::Full),
    };
    if allowed.is_some_and(|allowed| route.level <= allowed) {
        return Ok(());
    }
    let word = policy.as_str_name().trim_start_matches("POLICY_").to_ascii_lowercase();
    Err(Status::new(
        Code::PermissionDenied,
        format!(
            "this host's agent was started with `--policy {word}`, which does not allow {}",
            route.action()
        ),
    ))
}

/// The version to speak: what the client asked for, or the engine's newest where that is older. Never one before 1.41.
async fn spoken(engine: &dyn Engine, request: &Request) -> Result<u16, DockerError> {
    let newest = engine.api_version().await?;
    let minor = newest.strip_prefix("1.").and_then(|minor| minor.parse::<u16>().ok());
    let minor = minor.filter(|minor| *minor >= OLDEST).ok_or(DockerError::Incompatible(newest))?;
    Ok(request.version.map_or(minor, |wanted| wanted.min(minor)))
}

fn told(headers: &HeaderMap) -> Vec<EnginePair> {
    let known = TOLD.iter().filter_map(|name| {
        let value = headers.get(HeaderName::from_static(name))?.to_str().ok()?;
        Some(EnginePair { name: (*name).to_owned(), value: value.to_owned() })
    });
    known.collect()
}
