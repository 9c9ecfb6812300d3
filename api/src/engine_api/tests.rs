mod bodies;
mod host_root;
mod recorded;
mod spellings;

use super::{Refusal, Request, parse};

/// A request as a client sends it, without headers that matter.
fn plain(method: &str, target: &str) -> Result<Request, Refusal> {
    parse(method, target, [("host", b"docker".as_slice())])
}
