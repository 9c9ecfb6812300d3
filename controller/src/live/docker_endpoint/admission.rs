//! Where policies of the namespace judge what a request would start on a host.

use gantry_api::engine_api::Request;
use gantry_api::engine_api::facts::Facts;

use crate::apiserver::failure::Outcome;
use crate::auth::Caller;
use crate::live::Instance;

/// Judges a request that is allowed by rights, before anything of it has reached the host.
///
/// `facts` are there for whatever starts something new: containers, updates, commands, volumes, builds. There is no kind of policy yet, so
/// every request passes; what is refused later is refused here, with 403 and the policy's name.
#[expect(clippy::unnecessary_wraps, reason = "policies will refuse")]
pub(super) fn judge(
    _caller: &Caller,
    _instance: &Instance,
    _request: &Request,
    _facts: Option<&Facts>,
) -> Outcome<()> {
    Ok(())
}
