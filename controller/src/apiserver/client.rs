//! The API for our own parts: a `kube::Client` whose transport is the router itself.

use axum::Router;
use axum::body::Body;
use http::Request;
use tower::ServiceExt as _;

use crate::auth::Caller;

/// Marks a request that never left the process. Only [`client`] can set it.
#[derive(Clone, Copy, Debug)]
pub(super) struct InProcess;

/// A client that acts as [`Caller::system`] of this part, through the same checks as everybody.
pub fn client(router: &Router, part: &str) -> kube::Client {
    let caller = Caller::system(part);
    let service = router.clone().map_request(move |request: Request<kube::client::Body>| {
        let mut request = request.map(Body::new);
        request.extensions_mut().insert(caller.clone());
        request.extensions_mut().insert(InProcess);
        request
    });
    kube::Client::new(service, "default")
}
