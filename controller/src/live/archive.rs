//! Files and folders out of a container and into one, as tar archives: by the way of the Docker endpoint, so judged, recorded and carried as
//! there, and looked at on the way, so that nothing is written outside of where it is unpacked.

mod tar;

use std::sync::Arc;

use axum::body::Body;
use axum::response::Response;
use gantry_api::engine_api::Request;
use http::Method;
use http::header::CONTENT_LENGTH;

use super::{Ask, docker_endpoint, engine};
use crate::apiserver::ApiServer;
use crate::apiserver::failure::{Failure, Outcome};
use crate::apiserver::request::Params;

pub(super) use tar::{Check, Unfit};

/// Bytes of an archive, either way, where nobody says otherwise.
pub const LIMIT: u64 = 4 << 30;
/// Of a path within a container, in bytes.
const LONGEST_PATH: usize = 4_096;
/// Of what an engine says against it.
const LONGEST_REFUSAL: usize = 4 << 10;

/// `path` is what to copy, or the folder to unpack into.
pub(super) async fn archive(server: &Arc<ApiServer>, ask: Ask, body: Body) -> Outcome<Response> {
    let params = &ask.call.params;
    let path = path(params)?;
    let limit = server.live().archive_limit();
    let (route, path, body) = match ask.parts.method {
        Method::PUT => {
            let length = ask.parts.headers.get(CONTENT_LENGTH);
            let length = length.and_then(|length| length.to_str().ok()?.parse::<u64>().ok());
            if length.is_some_and(|length| length > limit) {
                return Err(too_large(limit));
            }
            if ask.call.is_dry_run {
                return Err(Failure::bad_request(
                    "dryRun: Invalid value: an archive is unpacked or it is not",
                ));
            }
            ("ContainerCopyIn", path, body)
        }
        Method::HEAD => ("ContainerPathStat", path, Body::empty()),
        // Of the root itself Docker makes absolute names, of what is in it others.
        _ if path.bytes().all(|byte| byte == b'/') => ("ContainerCopyOut", "/.", Body::empty()),
        _ => ("ContainerCopyOut", path, Body::empty()),
    };
    let mut query = vec![("path".to_owned(), path.to_owned())];
    if ask.parts.method == Method::PUT {
        let flags = ["noOverwriteDirNonDir", "copyUIDGID"].into_iter().filter(|flag| params.is_set(flag));
        query.extend(flags.map(|flag| (flag.to_owned(), "1".to_owned())));
    }
    let request = Request::new(route, vec![ask.object.to_string()], query);
    let request = request.map_err(|refusal| Failure::bad_request(refusal.message))?;
    let response = docker_endpoint::carry_out(server, ask, request, body, Check::new(limit)).await?;
    let status = response.status();
    if status.is_client_error() || status.is_server_error() {
        let said = axum::body::to_bytes(response.into_body(), LONGEST_REFUSAL).await.unwrap_or_default();
        return Err(engine::refused(status.as_u16().into(), &said));
    }
    Ok(response)
}

/// 413 with the limit in it.
pub(super) fn too_large(limit: u64) -> Failure {
    Failure::too_large(usize::try_from(limit).unwrap_or(usize::MAX))
}

/// Docker keeps a path within the container. One that climbs is a mistake all the same, or an attempt.
fn path(params: &Params) -> Outcome<&str> {
    let path = params.get("path").unwrap_or_default();
    let is_plain = path.starts_with('/')
        && path.len() <= LONGEST_PATH
        && !path.chars().any(char::is_control)
        && path.split('/').all(|part| part != "..");
    if is_plain {
        return Ok(path);
    }
    Err(Failure::bad_request(
        "path: Invalid value: it begins with a slash, and has no `..`, no control characters and at most 4096 bytes",
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn t26_a_path_that_climbs_is_refused() {
        let read = |path: &str| {
            let target = format!("/x?path={path}").parse().expect("a target");
            let params = Params::read(&target).expect("a query");
            super::path(&params).map(str::to_owned).ok()
        };

        for good in ["/", "/etc/hosts", "/a..b/.c/", "/a/."] {
            assert_eq!(read(good).as_deref(), Some(good));
        }
        for wrong in ["", "etc", "..", "/..", "/a/../b", "/a/%2e%2e/b", "/a%00b", "/a%0ab"] {
            assert_eq!(read(wrong), None, "{wrong}");
        }
        assert_eq!(read(&"/a".repeat(2_049)), None);
    }
}
