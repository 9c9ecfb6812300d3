//! Following a collection: every change after a version, once and in order.

use axum::response::Response;

use crate::apiserver::ApiServer;
use crate::apiserver::authorize::Standing;
use crate::apiserver::failure::{Failure, Outcome};
use crate::apiserver::limits::Share;
use crate::apiserver::request::{Call, Freshness, parse_version};
use crate::apiserver::watch::{self, Begin, Watch};
use crate::storage::Version;

/// Streams changes until the client leaves, `timeoutSeconds` pass, the server stops, or the client is too slow.
///
/// A version that is compacted away is answered 200 with one ERROR event, so that clients list again. `share` is what a client's watch
/// holds while it is open; none of our own parts'. It ends when its client has lost the right to it.
pub(crate) async fn watch(
    server: &ApiServer,
    call: &Call,
    share: Option<Share>,
    standing: Standing,
) -> Outcome<Response> {
    let selector = call.selector()?;
    let begin = begin(server, call).await?;
    let _opening = match (&share, begin) {
        (Some(_), Begin::State { .. }) => Some(server.limits.of_list().await?),
        _ => None,
    };
    let name = selector.exact_name().map(str::to_owned);
    let lifetime = call.params.number("timeoutSeconds")?;
    match Watch::open(server, call, selector, name.as_deref(), begin, lifetime) {
        Ok(watch) => Ok(watch.answer(call, share, standing)),
        Err(expired) => Ok(watch::refused(call, &expired)),
    }
}

async fn begin(server: &ApiServer, call: &Call) -> Outcome<Begin> {
    let version = call.params.get("resourceVersion").map(parse_version).transpose()?;
    let asks_for_state =
        call.params.get("sendInitialEvents").map(|_| call.params.is_set("sendInitialEvents"));
    let matching = call.params.get("resourceVersionMatch");
    match (asks_for_state, matching) {
        (None, Some(_)) => {
            return Err(Failure::forbidden_option(
                "resourceVersionMatch",
                "resourceVersionMatch is forbidden for watch unless sendInitialEvents is provided",
            ));
        }
        (Some(_), Some("NotOlderThan")) | (None, None) => {}
        (Some(_), _) => {
            return Err(Failure::forbidden_option(
                "resourceVersionMatch",
                "sendInitialEvents requires setting resourceVersionMatch to NotOlderThan",
            ));
        }
    }
    match (version, asks_for_state) {
        (None, Some(false)) => {
            server.reach(call.kind, Freshness::Newest).await?;
            Ok(Begin::After(server.cache(call.kind).version()))
        }
        (Some(Version(0)), Some(false)) => Ok(Begin::After(server.cache(call.kind).version())),
        (None, is_list) => {
            server.reach(call.kind, Freshness::Newest).await?;
            Ok(Begin::State { marks_end: is_list == Some(true) })
        }
        (Some(Version(0)), is_list) => Ok(Begin::State { marks_end: is_list == Some(true) }),
        (Some(version), Some(true)) => {
            server.reach(call.kind, Freshness::NotOlderThan(version)).await?;
            Ok(Begin::State { marks_end: true })
        }
        (Some(version), _) => {
            server.reach(call.kind, Freshness::NotOlderThan(version)).await?;
            Ok(Begin::After(version))
        }
    }
}
