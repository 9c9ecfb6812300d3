//! The table of routes, and the layers around all of them.

use std::any::Any;
use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::{RawPathParams, Request, State};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodFilter, MethodRouter, on};
use bytes::Bytes;
use http::header::{CACHE_CONTROL, CONTENT_LENGTH, CONTENT_TYPE, SEC_WEBSOCKET_KEY};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use http_body::Body as _;
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use tower::ServiceExt as _;
use tower_http::catch_panic::CatchPanicLayer;
use tower_http::compression::CompressionLayer;
use tower_http::compression::predicate::Predicate;
use tracing::Instrument as _;

use super::authorize::{Attributes, Standing, authorize};
use super::client::InProcess;
use super::decode::BODY_LIMIT;
use super::failure::{Failure, Outcome};
use super::impersonate::{Impersonated, impersonate};
use super::kinds::audit::{RECORDING, SESSIONS};
use super::kinds::{self, Kind};
use super::limits::LIGHT;
use super::request::{Call, Params};
use super::{ApiServer, answer, audited, discovery, health, openapi, origin, verbs, websocket};
use crate::audit::Ticket;
use crate::auth::tokens::{CONFIGURATION_PATH, KEYS_PATH};
use crate::auth::{Caller, Tenure, Undecided};
use crate::live;
use crate::live::routes::{Does, LiveRoute};
use crate::storage::Key;
use crate::telemetry::traces;

/// What a request for a resource does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verb {
    /// Read one object.
    Get,
    /// Read or watch a collection.
    List,
    /// Store a new object.
    Create,
    /// Replace an object.
    Update,
    /// Change a part of an object.
    Patch,
    /// Remove an object.
    Delete,
    /// Remove a collection.
    DeleteCollection,
    /// Ask an instance's agent.
    Live(Does),
}

/// One route of a resource.
#[derive(Clone, Debug)]
pub struct Route {
    /// Of the request.
    pub method: Method,
    /// As axum reads it, `{namespace}` and `{name}` are filled in.
    pub path: String,
    /// What it does.
    pub verb: Verb,
    /// `status`, `finalize`, `token`, or what an agent is asked for.
    pub subresource: Option<&'static str>,
    /// The verb that rights need, where the method does not tell it.
    pub right: Option<&'static str>,
    /// To what.
    pub kind: &'static Kind,
}

/// Routes that are no resource, all read-only.
pub const OTHER_ROUTES: [&str; 18] = [
    "/api",
    "/api/{version}",
    "/apis",
    "/apis/{group}",
    "/apis/{group}/{version}",
    "/openapi/v2",
    "/openapi/v3",
    "/openapi/v3/{*path}",
    "/livez",
    "/livez/{check}",
    "/readyz",
    "/readyz/{check}",
    "/healthz",
    "/healthz/{check}",
    "/version",
    "/metrics",
    CONFIGURATION_PATH,
    KEYS_PATH,
];

/// Every route of every served kind.
pub fn routes() -> Vec<Route> {
    kinds::all().iter().flat_map(routes_of).collect()
}

fn routes_of(kind: &'static Kind) -> Vec<Route> {
    let root = if kind.group.is_empty() {
        format!("/api/{}", kind.version)
    } else {
        format!("/apis/{}/{}", kind.group, kind.version)
    };
    let everywhere = format!("{root}/{}", kind.plural);
    let collection = if kind.namespaced {
        format!("{root}/namespaces/{{namespace}}/{}", kind.plural)
    } else {
        everywhere.clone()
    };
    let object = format!("{collection}/{{name}}");
    let mut routes = Vec::new();
    let mut add = |method: Method, path: &str, verb, subresource| {
        routes.push(Route { method, path: path.to_owned(), verb, subresource, right: None, kind });
    };
    if kind.is_question {
        add(Method::POST, &collection, Verb::Create, None);
        return routes;
    }
    if kind.namespaced {
        add(Method::GET, &everywhere, Verb::List, None);
    }
    add(Method::GET, &collection, Verb::List, None);
    if kind.is_record {
        if kind.plural == SESSIONS {
            add(Method::GET, &object, Verb::Get, None);
            add(Method::GET, &format!("{object}/{RECORDING}"), Verb::Get, Some(RECORDING));
        }
        return routes;
    }
    add(Method::GET, &object, Verb::Get, None);
    if kind.is_measured {
        return routes;
    }
    if kind.is_live {
        routes.extend(live::routes::of(kind).into_iter().map(|look| of_agent(&object, kind, look)));
        return routes;
    }
    add(Method::POST, &collection, Verb::Create, None);
    add(Method::DELETE, &collection, Verb::DeleteCollection, None);
    add(Method::PUT, &object, Verb::Update, None);
    add(Method::PATCH, &object, Verb::Patch, None);
    add(Method::DELETE, &object, Verb::Delete, None);
    if kind.has_status {
        let status = format!("{object}/status");
        add(Method::GET, &status, Verb::Get, Some("status"));
        add(Method::PUT, &status, Verb::Update, Some("status"));
        add(Method::PATCH, &status, Verb::Patch, Some("status"));
    }
    if kind.plural == "namespaces" {
        add(Method::PUT, &format!("{object}/finalize"), Verb::Update, Some("finalize"));
    }
    if kind.plural == "serviceaccounts" {
        add(Method::POST, &format!("{object}/token"), Verb::Create, Some("token"));
    }
    routes.extend(live::routes::of(kind).into_iter().map(|route| of_agent(&object, kind, route)));
    routes
}

/// What an agent answers, below the object at that path.
fn of_agent(object: &str, kind: &'static Kind, route: LiveRoute) -> Route {
    Route {
        method: route.method,
        path: format!("{object}/{}", route.path),
        verb: Verb::Live(route.does),
        subresource: Some(route.subresource),
        right: Some(route.verb),
        kind,
    }
}

/// The whole API. Expects a [`Caller`] in the request's extensions.
pub fn router(server: &Arc<ApiServer>) -> Router {
    let mut router = Router::new();
    for route in routes() {
        let path = route.path.clone();
        router = router.route(&path, resource(server, route));
    }
    for path in OTHER_ROUTES {
        router = router.route(path, other(server));
    }
    let router = router
        .method_not_allowed_fallback(async || Failure::method_not_allowed())
        .fallback(async || Failure::no_such_path())
        .layer(CatchPanicLayer::custom(panicked))
        .layer(from_fn_with_state(server.clone(), require_right))
        .layer(CompressionLayer::new().gzip(true).compress_when(Large))
        .layer(from_fn_with_state(server.clone(), observe));
    Router::new().fallback_service(router.map_request(without_slash))
}

/// `/apis/` is `/apis`, and so on below, and `/version/`, which Python's client asks for, `/version`; other paths are what they are.
fn without_slash(mut request: Request) -> Request {
    let path = request.uri().path();
    let trimmed = path.trim_end_matches('/');
    if trimmed.len() == path.len() || !(trimmed.starts_with("/api") || trimmed == "/version") {
        return request;
    }
    let wanted = match request.uri().query() {
        Some(query) => format!("{trimmed}?{query}").parse(),
        None => trimmed.parse(),
    };
    if let Ok(wanted) = wanted {
        let mut parts = request.uri().clone().into_parts();
        parts.path_and_query = Some(wanted);
        if let Ok(uri) = http::Uri::from_parts(parts) {
            *request.uri_mut() = uri;
        }
    }
    request
}

fn resource(server: &Arc<ApiServer>, route: Route) -> MethodRouter {
    let (server, filter) = (server.clone(), MethodFilter::try_from(route.method.clone()));
    let route = Arc::new(route);
    let handler = move |params: RawPathParams, request: Request| {
        let (server, route) = (server.clone(), route.clone());
        async move { serve(&server, &route, &params, request).await.unwrap_or_else(IntoResponse::into_response) }
    };
    on(filter.expect("the table has standard methods only"), handler)
}

async fn serve(
    server: &Arc<ApiServer>,
    route: &Route,
    path: &RawPathParams,
    request: Request,
) -> Outcome<Response> {
    let param =
        |wanted: &str| path.iter().find(|(name, _)| *name == wanted).map(|(_, value)| Arc::from(value));
    let (mut parts, body) = request.into_parts();
    if route.verb == Verb::Live(Does::Docker) {
        let (namespace, name) = (param("namespace").unwrap_or_default(), param("name").unwrap_or_default());
        let key = Key { resource: route.kind.resource(), namespace, name };
        return Ok(live::docker_endpoint::serve(server, route.kind, key, parts, body).await);
    }
    let call = Call::new(route.kind, route.subresource, param("namespace"), param("name"), &parts)?;
    if let Verb::Live(does) = route.verb {
        let socket = if does == Does::Logs { websocket::wanted(&mut parts).await? } else { None };
        let answer = live::serve(server, does, param("object"), call, parts, body).await?;
        return Ok(websocket::answer(socket, answer, websocket::Form::Bytes, server.live().tasks()));
    }
    if route.verb == Verb::List && call.params.is_set("watch") {
        if route.kind.is_record || route.kind.is_measured {
            return Err(Failure::method_not_allowed());
        }
        let share = match parts.extensions.get::<InProcess>() {
            Some(InProcess) => None,
            None => Some(server.limits.of_watch()?),
        };
        let socket = websocket::wanted(&mut parts).await?;
        let answer = verbs::watch(server, &call, share, standing(&parts)?).await?;
        return Ok(websocket::answer(socket, answer, websocket::Form::Lines, server.live().tasks()));
    }
    match route.verb {
        Verb::Create => call.params.check_write_options("CreateOptions")?,
        Verb::Update => call.params.check_write_options("UpdateOptions")?,
        Verb::Patch => call.check_patch_options()?,
        Verb::Delete | Verb::DeleteCollection => call.params.check_dry_run("DeleteOptions")?,
        Verb::Get | Verb::List | Verb::Live(_) => {}
    }
    let timeout = call.params.timeout()?;
    let work = async {
        match route.verb {
            Verb::Get | Verb::List => {
                let _share = match parts.extensions.get::<InProcess>() {
                    Some(InProcess) => None,
                    // Hosts take their time, and others' lists do not wait for them.
                    None if route.kind.is_measured => Some(server.limits.of_watch()?),
                    None if route.kind.is_record => Some(server.limits.of_audit_page().await?),
                    None if route.verb == Verb::Get => Some(server.limits.of_get().await?),
                    None => Some(server.limits.of_list().await?),
                };
                match route.verb {
                    _ if route.kind.is_measured => live::usage(server, &call).await,
                    Verb::Get if route.subresource == Some(RECORDING) => {
                        verbs::play(server, &call, standing(&parts)?).await
                    }
                    Verb::Get if route.kind.is_record => verbs::session(server, &call).await,
                    Verb::Get => verbs::get(server, &call).await,
                    _ if route.kind.plural == SESSIONS => verbs::sessions(server, &call).await,
                    _ if route.kind.is_record => verbs::audit_events(server, &call).await,
                    _ => verbs::list(server, &call).await,
                }
            }
            verb => write(server, verb, call, &parts, body).await,
        }
    };
    tokio::time::timeout(timeout, work).await.unwrap_or_else(|_| {
        Err(Failure::timeout(format!(
            "the request did not complete within {timeout:?}; a write may still happen"
        )))
    })
}

/// What a stream stands on that answers the request.
fn standing(parts: &http::request::Parts) -> Outcome<Standing> {
    let standing = parts.extensions.get::<Standing>().cloned();
    standing.ok_or_else(|| Failure::internal("a stream was not looked at"))
}

/// Reads the body within its share and does the work, beside the runtime's threads if there is much of it.
async fn write(
    server: &Arc<ApiServer>,
    verb: Verb,
    call: Call,
    parts: &http::request::Parts,
    body: Body,
) -> Outcome<Response> {
    let share = match parts.extensions.get::<InProcess>() {
        Some(InProcess) => None,
        None => Some(server.limits.of_write(announced(parts).or(body.size_hint().exact())).await?),
    };
    let body = read(parts, body).await?;
    let stored = call.target().ok().and_then(|key| server.store.cache().get(&key));
    if body.len() + stored.map_or(0, |object| object.json.len()) <= LIGHT {
        return change(server, verb, &call, &body).await;
    }
    let own = server.clone();
    let work = async move {
        let _share = share;
        change(&own, verb, &call, &body).await
    };
    server.limits.heavily(work).await
}

async fn change(server: &ApiServer, verb: Verb, call: &Call, body: &[u8]) -> Outcome<Response> {
    match verb {
        Verb::Create if call.subresource == Some("token") => verbs::token(server, call, body).await,
        Verb::Create if call.kind.is_question => verbs::review(server, call, body).await,
        Verb::Create => verbs::create(server, call, body).await,
        Verb::Update => verbs::update(server, call, body).await,
        Verb::Patch => verbs::patch(server, call, body).await,
        Verb::Delete => verbs::delete(server, call, body).await,
        Verb::DeleteCollection => verbs::delete_collection(server, call, body).await,
        Verb::Get | Verb::List | Verb::Live(_) => Err(Failure::method_not_allowed()),
    }
}

fn announced(parts: &http::request::Parts) -> Option<u64> {
    parts.headers.get(CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

async fn read(parts: &http::request::Parts, body: Body) -> Outcome<Bytes> {
    if announced(parts).is_some_and(|length| length > BODY_LIMIT as u64) {
        return Err(Failure::too_large(BODY_LIMIT));
    }
    match Limited::new(body, BODY_LIMIT).collect().await {
        Ok(collected) => Ok(collected.to_bytes()),
        Err(error) if error.is::<LengthLimitError>() => Err(Failure::too_large(BODY_LIMIT)),
        Err(_) => Err(Failure::bad_request("the body ended early")),
    }
}

fn other(server: &Arc<ApiServer>) -> MethodRouter {
    let server = server.clone();
    let handler = move |path: RawPathParams, uri: http::Uri, headers: HeaderMap| {
        let server = server.clone();
        async move {
            answer_other(&server, &path, &uri, &headers).await.unwrap_or_else(IntoResponse::into_response)
        }
    };
    on(MethodFilter::GET, handler)
}

async fn answer_other(
    server: &ApiServer,
    path: &RawPathParams,
    uri: &http::Uri,
    headers: &HeaderMap,
) -> Outcome<Response> {
    let params = Params::read(uri)?;
    let given: Vec<&str> = path.iter().map(|(_, value)| value).collect();
    let only = given.first().copied();
    match uri.path().split('/').nth(1).unwrap_or_default() {
        "api" => match given.as_slice() {
            [version, ..] => discovery::resource_list("", version, headers),
            [] => discovery::core_versions(headers),
        },
        "apis" => match given.as_slice() {
            [group, version, ..] => discovery::resource_list(group, version, headers),
            [group] => discovery::group(group, headers),
            [] => discovery::group_list(headers),
        },
        "openapi" => match only {
            Some(path) => openapi::of_path(path, params.get("hash"), headers),
            None if uri.path() == "/openapi/v2" => Ok(openapi::of_all(headers)),
            None => Ok(openapi::index(headers)),
        },
        "version" => answer::json(StatusCode::OK, &health::version()),
        ".well-known" => Ok(openid(server.tokens.configuration(), "application/json")),
        "openid" => Ok(openid(server.tokens.keys(), "application/jwk-set+json")),
        "metrics" => {
            let text = server.metrics.render().map_err(Failure::internal)?;
            let media_type = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
            Ok(([(CONTENT_TYPE, media_type)], text).into_response())
        }
        // A process that answers is alive; restarting it would not bring a database back.
        "livez" if matches!(only, None | Some("ping")) => Ok(health::alive(&params)),
        "livez" => Err(Failure::no_such_path()),
        endpoint => {
            let checks = server.checks.run(only).await.ok_or_else(Failure::no_such_path)?;
            Ok(health::render(endpoint, &checks, &params))
        }
    }
}

/// A document for those who verify tokens of ServiceAccounts.
fn openid(document: &serde_json::Value, media_type: &'static str) -> Response {
    let headers = [
        (CONTENT_TYPE, HeaderValue::from_static(media_type)),
        (CACHE_CONTROL, HeaderValue::from_static("public, max-age=3600")),
    ];
    (headers, document.to_string()).into_response()
}

/// Who really asks, whether he may, and for how long what outlasts the request may go on.
async fn require_right(State(server): State<Arc<ApiServer>>, mut request: Request, next: Next) -> Response {
    match pass(&server, &mut request).await {
        Ok(()) => next.run(request).await,
        Err(failure) => failure.into_response(),
    }
}

async fn pass(server: &ApiServer, request: &mut Request) -> Outcome<()> {
    // What only reads, a page of another origin cannot see the answer of, unless that is a WebSocket.
    if !request.method().is_safe() || request.headers().contains_key(SEC_WEBSOCKET_KEY) {
        origin::check(request.headers(), request.uri(), &server.origins)?;
    }
    let asked = request.extensions_mut().remove::<Outcome<Attributes>>();
    let asked = asked.unwrap_or_else(|| Err(Failure::internal("a request was not looked at")));
    let mut needs = Vec::new();
    if let Some(caller) = request.extensions().get::<Caller>().cloned()
        && let Some(acted) = impersonate(&server.rights, &caller, request.headers()).await?
    {
        let Impersonated { caller: acted, needs: of_caller } = acted;
        tracing::Span::current().record("user.as", &*acted.user);
        if let Some(ticket) = request.extensions().get::<Arc<Ticket>>() {
            ticket.is_of(&acted);
        }
        needs.extend(of_caller.into_iter().map(|need| (caller.clone(), need)));
        request.extensions_mut().insert(acted);
    }
    let extensions = request.extensions();
    let caller = extensions.get::<Caller>().cloned();
    authorize(&server.rights, caller.as_ref(), extensions.get::<Undecided>(), &asked).await?;
    needs.extend(caller.zip(asked.ok()));
    let tenure = extensions.get::<Tenure>().cloned();
    request.extensions_mut().insert(Standing::new(server.rights.clone(), needs, tenure));
    Ok(())
}

fn panicked(panic: Box<dyn Any + Send + 'static>) -> Response {
    let said = panic
        .downcast_ref::<String>()
        .map(String::as_str)
        .or_else(|| panic.downcast_ref::<&str>().copied())
        .unwrap_or("no message");
    tracing::error!(panic = said, "a request made the server panic");
    Failure::internal("this request met a bug; the log has it under its Audit-Id").into_response()
}

/// Compresses long answers of known length, never watches.
#[derive(Clone, Copy, Debug)]
struct Large;

impl Predicate for Large {
    fn should_compress<B: http_body::Body>(&self, response: &http::Response<B>) -> bool {
        response.body().size_hint().exact().is_some_and(|size| size > 128 << 10)
    }
}

/// Names each request, times it, makes its span, and sees to its record.
async fn observe(State(server): State<Arc<ApiServer>>, request: Request, next: Next) -> Response {
    static AUDIT_ID: HeaderName = HeaderName::from_static("audit-id");
    let id = server.entropy.uuid();
    let (mut parts, body) = request.into_parts();
    let asked = Attributes::of(&mut parts).await;
    let attributes = asked.clone().unwrap_or_default();
    parts.extensions.insert(asked);
    let ticket = Arc::new(audited::ticket(&server, id, &attributes, &parts));
    live::docker_endpoint::tell(&parts, &ticket);
    parts.extensions.insert(Arc::clone(&ticket));
    let request = Request::from_parts(parts, body);
    let user = request.extensions().get::<Caller>().map(|caller| caller.user.clone());
    let span = tracing::info_span!(
        "api.request",
        audit.id = %id,
        user = user.as_deref(),
        user.as = tracing::field::Empty,
        verb = attributes.verb,
        object.resource = %attributes.resource(),
        object.namespace = %attributes.namespace,
        object.name = %attributes.name,
        code = tracing::field::Empty,
    );
    if user.is_some()
        && let Some(parent) = request.headers().get("traceparent").and_then(|parent| parent.to_str().ok())
    {
        traces::continue_from(&span, parent);
    }
    let started = tokio::time::Instant::now();
    let answered = async {
        let response = next.run(request).await;
        audited::settle(&server, &ticket, response).await
    };
    let mut response = answered.instrument(span.clone()).await;
    span.record("code", response.status().as_u16());
    if attributes.verb != "watch" {
        server
            .metrics
            .request_duration
            .with_label_values(&[attributes.verb, attributes.plural, response.status().as_str()])
            .observe(started.elapsed().as_secs_f64());
    }
    let headers = response.headers_mut();
    if let Ok(id) = HeaderValue::from_str(&id.to_string()) {
        headers.insert(AUDIT_ID.clone(), id);
    }
    headers.entry(CACHE_CONTROL).or_insert(HeaderValue::from_static("no-cache, private"));
    response
}
