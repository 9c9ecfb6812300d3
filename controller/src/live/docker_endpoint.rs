//! The Docker Engine API of a host: `…/dockerinstances/NAME/docker/…`, so that `docker -H` is a client.
//!
//! A request is parsed before anybody is asked for a right ([`understand`]), since what it needs is told by its route. Then it is judged
//! ([`admission`]), recorded ([`record`]) and carried ([`carry`]): a task of its own passes bytes on both ways and sees to it that the end
//! is recorded, whoever leaves first. Nothing of what the client sent is passed on as it was.

mod admission;
mod answer;
mod carry;
mod ends;
mod execs;
mod raw;
mod record;
mod resize;

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body as Sent;
use axum::response::Response;
use futures::future::Either;
use gantry_api::engine_api::facts::Facts;
use gantry_api::engine_api::{self, Answer, Body, MOST_JSON, Parsed, Refusal, Request, Right, Why};
use http::header::{CONNECTION, CONTENT_LENGTH, UPGRADE};
use http::request::Parts;
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use hyper::upgrade::OnUpgrade;
use tokio::sync::oneshot;

use crate::apiserver::ApiServer;
use crate::apiserver::authorize::Standing;
use crate::apiserver::failure::{Failure, Outcome};
use crate::apiserver::kinds::Kind;
use crate::audit::Ticket;
use crate::auth::Caller;
use crate::storage::Key;

use super::Ask;
use super::archive::Check;
use super::recording::{self, Extent};
pub(super) use answer::hide_values;
use carry::{Carrier, Upstream};
pub(super) use execs::Execs;
use execs::Made;
use record::Visit;
use resize::Resize;

/// What rights call reading through the endpoint, and its path below an instance.
pub(crate) const SUBRESOURCE: &str = "docker";
/// How long a body of JSON may take to come.
const BODY_PATIENCE: Duration = Duration::from_secs(30);
/// Parts of the path before what the Engine API knows: `/apis/GROUP/VERSION/namespaces/NS/dockerinstances/NAME/docker/`.
const PARTS_BEFORE: usize = 9;

/// A request as the grammar has it; an extension of the request.
#[derive(Clone)]
struct Understood(Result<Arc<Request>, Refusal>);

/// Parses a request and says what it needs. One that is not understood needs no more than reading, and is refused after that.
pub(crate) fn understand(parts: &mut Parts) -> Right {
    let headers = parts.headers.iter().map(|(name, value)| (name.as_str(), value.as_bytes()));
    let understood = engine_api::parse(parts.method.as_str(), &target(&parts.uri), headers);
    let right = understood.as_ref().map_or(Right::Read, |request| request.route.right);
    parts.extensions.insert(Understood(understood.map(Arc::new)));
    right
}

/// Tells the record of a request what is asked for, before anybody decides whether it may be.
pub(crate) fn tell(parts: &Parts, ticket: &Ticket) {
    match parts.extensions.get::<Understood>() {
        Some(Understood(Ok(request))) => {
            ticket.asks_engine(request.route.action(), record::parameters(request, None));
        }
        Some(Understood(Err(refusal))) => {
            let why = [("notUnderstood".to_owned(), refusal.why.as_str().into())];
            ticket.asks_engine("docker_request".to_owned(), why.into());
        }
        None => {}
    }
}

/// Path and query below the endpoint, as they came.
fn target(uri: &http::Uri) -> String {
    let below = uri.path().splitn(PARTS_BEFORE + 1, '/').nth(PARTS_BEFORE).unwrap_or_default();
    match uri.query() {
        Some(query) => format!("/{below}?{query}"),
        None => format!("/{below}"),
    }
}

/// Answers as an engine does, refusals too.
pub(crate) async fn serve(
    server: &Arc<ApiServer>,
    kind: &'static Kind,
    key: Key,
    parts: Parts,
    body: Sent,
) -> Response {
    ask(server, kind, key, parts, body).await.unwrap_or_else(answer::of_failure)
}

async fn ask(
    server: &Arc<ApiServer>,
    kind: &'static Kind,
    key: Key,
    mut parts: Parts,
    body: Sent,
) -> Outcome<Response> {
    let unseen = || Failure::internal("a request was not looked at");
    let Understood(understood) = parts.extensions.remove().ok_or_else(unseen)?;
    let request = understood.map_err(|refusal| refused(server, &refusal))?;
    perform(server, kind, key, request, parts, (body, None)).await
}

/// A request of ours about an instance, judged, recorded and carried as a client's own, and the archive in it looked at as it passes. What
/// the engine refuses is told as it tells it.
pub(super) async fn carry_out(
    server: &Arc<ApiServer>,
    ask: Ask,
    request: Request,
    body: Sent,
    check: Check,
) -> Outcome<Response> {
    let key = ask.call.target()?;
    perform(server, ask.call.kind, key, Arc::new(request), ask.parts, (body, Some(check))).await
}

/// Whoever asks has the first of the rights that the request needs.
async fn perform(
    server: &Arc<ApiServer>,
    kind: &'static Kind,
    key: Key,
    request: Arc<Request>,
    mut parts: Parts,
    (body, check): (Sent, Option<Check>),
) -> Outcome<Response> {
    let unseen = || Failure::internal("a request was not looked at");
    let ticket = parts.extensions.get::<Arc<Ticket>>().cloned().ok_or_else(unseen)?;
    let mut standing = parts.extensions.get::<Standing>().cloned().ok_or_else(unseen)?;
    let caller = parts.extensions.get::<Caller>().cloned().ok_or_else(Failure::unauthorized)?;

    for right in request.rights().into_iter().skip(1) {
        standing.require(&caller, right, &key)?;
    }
    let sees_environment = sees_environment(server, &caller, &key);
    let namespace = Arc::clone(&key.namespace);
    let instance = super::find(server, kind, key).await?;
    let link = Arc::clone(server.live().link()?);
    if link.session(instance.uid).is_none() {
        return Err(instance.away());
    }
    let upgrade = upgrade(&request, &mut parts);
    let (parsed, archive) = match request.route.body {
        Body::Tar => (None, Some(body)),
        Body::Json(_) | Body::None => (read(server, &request, &parts, body).await?, None),
    };
    let facts = Facts::of(&request, parsed.as_ref());
    let made = Made::of(&request, parsed.as_ref());
    let execs = server.live().execs();
    let starts =
        (request.route.id == "ExecStart").then(|| execs.find(instance.uid, request.object())).flatten();
    let falls_idle = can_be_typed_to(&request, parsed.as_ref(), starts.as_ref());
    let mut parameters = record::parameters(&request, facts.as_ref());
    record::tell_command(&mut parameters, made.as_ref().or(starts.as_ref()));
    ticket.asks_engine(request.route.action(), parameters);
    let (who, place) = ((&caller, &*ticket), (&*namespace, &instance));
    admission::judge(server, who, place, &request, facts.as_ref()).await?;

    let extent = if request.route.shows_terminal() {
        recording::extent(server, &namespace).await?
    } else {
        Extent::None
    };
    let visit = Visit::open(server, &instance, &request, ticket, extent).await?;
    visit.sized(parsed.as_ref()).await;
    let json = parsed.map(|parsed| parsed.write()).unwrap_or_default();
    let call = request.call(json, upgrade.is_some());
    let share = match request.route.answer {
        Answer::Short => None,
        Answer::Stream | Answer::Upgrade(_) => Some(server.limits().of_watch()?),
    };
    let (head, answered) = oneshot::channel();
    let is_look = request.route.is_read() && request.route.answer == Answer::Short;
    let upstream = match (archive, upgrade) {
        (Some(archive), _) => Upstream::Archive(archive),
        (None, Some(upgrade)) => Upstream::Terminal(upgrade),
        (None, None) => Upstream::Nothing,
    };
    let carrier = Carrier {
        resize: Resize::of(server, instance.uid, &request),
        link,
        instance,
        request,
        standing,
        stopping: server.stopping().clone(),
        sees_environment,
        falls_idle,
        visit,
        check,
        made: made.map(|made| (made, Arc::clone(execs))),
        _share: share,
    };
    let carried = Box::pin(carrier.run(call, upstream, head));
    let answered = pin!(async {
        answered.await.unwrap_or_else(|_| Err(Failure::internal("the engine's answer was lost")))
    });
    if is_look {
        // It has no record, so that it may end with its client, and takes no way through another thread.
        return match futures::future::select(answered, carried).await {
            Either::Left((answer, carried)) => {
                server.live().tasks().spawn(carried);
                answer
            }
            Either::Right(((), answered)) => answered.await,
        };
    }
    // Not this request's own task: when the client leaves, that is dropped, and the end would not be recorded.
    server.live().tasks().spawn(carried);
    answered.await
}

/// True of what somebody sits at, or should: a process that their client can type to. What is only read is quiet for as long as it likes.
fn can_be_typed_to(request: &Request, parsed: Option<&Parsed>, starts: Option<&Made>) -> bool {
    match (request.route.id, parsed) {
        ("ContainerAttach", _) => request.query("stdin").is_some_and(is_true),
        // Made through another replica, it is known by its terminal alone.
        ("ExecStart", Some(Parsed::ExecStart(start))) => {
            starts.map_or(start.tty.unwrap_or_default(), |made| made.has_input)
        }
        _ => false,
    }
}

/// As an engine reads it.
fn is_true(value: &str) -> bool {
    !matches!(value.trim().to_ascii_lowercase().as_str(), "" | "0" | "no" | "false" | "none")
}

/// True if values of environments are shown to the caller.
pub(crate) fn sees_environment(server: &ApiServer, caller: &Caller, instance: &Key) -> bool {
    server.has_on_instance(caller, Right::Environment, instance)
}

fn refused(server: &ApiServer, refusal: &Refusal) -> Failure {
    server.metrics().docker_refusals.with_label_values(&[refusal.why.as_str()]).inc();
    if refusal.why == Why::Size {
        return Failure::too_large(MOST_JSON);
    }
    Failure::forbidden(refusal.message.clone())
}

/// The connection itself, where the client wants it and the route gives it.
fn upgrade(request: &Request, parts: &mut Parts) -> Option<OnUpgrade> {
    let connection = parts.headers.get_all(CONNECTION).into_iter().filter_map(|value| value.to_str().ok());
    let wants =
        connection.flat_map(|value| value.split(',')).any(|word| word.trim().eq_ignore_ascii_case("upgrade"));
    let is_wanted = wants && parts.headers.contains_key(UPGRADE) && request.route.protocol().is_some();
    is_wanted.then(|| parts.extensions.remove()).flatten()
}

/// What docker-py sends where it has nothing to say.
const NOTHING: &[u8] = b"{}";

/// Reads a body that is understood before anything is asked of the engine; one where there should be none is refused.
async fn read(server: &ApiServer, request: &Request, parts: &Parts, body: Sent) -> Outcome<Option<Parsed>> {
    let most = match request.route.body {
        Body::Json(_) => MOST_JSON,
        Body::None => NOTHING.len(),
        Body::Tar => 0,
    };
    let length =
        parts.headers.get(CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse::<u64>().ok());
    let too_long = || {
        let why = if most <= NOTHING.len() { Why::Body } else { Why::Size };
        refused(server, &Refusal::new(why, "there is no body to this request"))
    };
    if length.is_some_and(|length| length > most as u64) {
        return Err(too_long());
    }
    let _share = if most <= NOTHING.len() { None } else { Some(server.limits().of_write(length).await?) };
    let whole = tokio::time::timeout(BODY_PATIENCE, Limited::new(body, most).collect()).await;
    let whole = match whole.map_err(|_| Failure::timeout("the body did not come in time"))? {
        Ok(whole) => whole.to_bytes(),
        Err(error) if error.is::<LengthLimitError>() => return Err(too_long()),
        Err(_) => return Err(Failure::bad_request("the body ended early")),
    };
    match request.route.body {
        Body::Json(kind) => kind.read(&whole).map(Some).map_err(|refusal| refused(server, &refusal)),
        Body::None if !whole.is_empty() && *whole != *NOTHING => Err(too_long()),
        Body::None | Body::Tar => Ok(None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_below_the_endpoint_is_told_as_it_came() {
        let below = |path: &str| {
            let base = "/apis/gantry.dev/v1alpha1/namespaces/n/dockerinstances/nuc%2F01/docker/";
            target(&format!("{base}{path}").parse().expect("a target"))
        };

        assert_eq!(below("v1.41/info"), "/v1.41/info");
        assert_eq!(below("/info"), "//info");
        assert_eq!(below("%2e%2e/info?a=b&c"), "/%2e%2e/info?a=b&c");
        assert_eq!(below(""), "/");
    }
}
