//! The layer that sees to the record of each request: what is known of it when it comes, and what is missing when it is answered.

use std::net::SocketAddr;

use axum::extract::ConnectInfo;
use axum::response::{IntoResponse as _, Response};
use http::header::USER_AGENT;
use http::request::Parts;
use http::{HeaderMap, HeaderName};
use uuid::Uuid;

use super::ApiServer;
use super::authorize::Attributes;
use super::client::InProcess;
use super::failure::{Failure, Told};
use super::kinds;
use super::request::Params;
use crate::audit::{Answered, Asked, Ticket, client_address};
use crate::auth::Caller;

const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");

/// For a request that has just come.
pub(super) fn ticket(server: &ApiServer, id: Uuid, attributes: &Attributes, parts: &Parts) -> Ticket {
    let Attributes { verb, group, plural, subresource, namespace, name, container, path } = attributes;
    let text = |name: HeaderName| {
        let value =
            parts.headers.get(name).map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned());
        value.unwrap_or_default()
    };
    let asked = Asked {
        verb,
        group,
        plural,
        subresource: subresource.to_string(),
        namespace: namespace.clone(),
        name: name.clone(),
        path: if path.is_empty() { parts.uri.path().to_owned() } else { path.clone() },
        source: source(server, parts),
        user_agent: text(USER_AGENT),
        traceparent: text(HeaderName::from_static("traceparent")),
        is_ours: parts.extensions.get::<InProcess>().is_some(),
        is_question: kinds::all()
            .iter()
            .any(|kind| kind.is_question && kind.plural == *plural && kind.group == *group),
        is_dry_run: Params::read(&parts.uri).is_ok_and(|params| params.is_dry_run()),
    };
    let ticket = Ticket::new(id, server.clock.now(), asked, parts.extensions.get::<Caller>().cloned());
    if !container.is_empty() {
        ticket.is_in(container);
    }
    ticket
}

fn source(server: &ApiServer, parts: &Parts) -> Option<std::net::IpAddr> {
    let ConnectInfo(peer) = parts.extensions.get::<ConnectInfo<SocketAddr>>()?;
    let forwarded = |headers: &HeaderMap| -> Vec<String> {
        let values = headers.get_all(FORWARDED_FOR).iter();
        values.map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned()).collect()
    };
    let trusted = server.audit.trusted_proxies();
    let forwarded = if trusted.is_empty() { Vec::new() } else { forwarded(&parts.headers) };
    Some(client_address(peer.ip(), forwarded.iter().map(String::as_str), trusted))
}

/// Records the answer where no change has done so. A credential is not handed out without its record.
pub(super) async fn settle(server: &ApiServer, ticket: &Ticket, response: Response) -> Response {
    let code = response.status().as_u16();
    let told = response.extensions().get::<Told>().cloned().unwrap_or_default();
    let stranger = ticket.source().filter(|_| code == 401);
    let Some(unrecorded) = stranger.map_or(Some(0), |source| server.audit.admit_stranger(source)) else {
        return response;
    };
    let answered = Answered { code, reason: &told.reason, message: &told.message, unrecorded };
    let Some(record) = ticket.of_answer(&answered) else { return response };
    let is_stored = server.audit.settle(record, Ticket::must_wait(code)).await;
    if !is_stored && ticket.gives_credential(code) {
        return Failure::unavailable(
            "the audit log cannot be written now, so no credential is given; try again",
        )
        .into_response();
    }
    response
}
