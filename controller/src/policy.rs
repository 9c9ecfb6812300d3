//! What may be asked of hosts: the rules of `Policy` and `ClusterPolicy`, over requests as they were understood.
//!
//! [`judge`] is a plain function from policies and a [`Subject`] to a [`Verdict`], and [`Policies`] is what the store has of them. Whoever lets
//! a request through to a host makes a `Subject` of what he parsed, so that no spelling is known here and not there, and asks
//! [`Policies::judge`] after the caller's rights and before anything is done. Knows neither HTTP nor agents.

mod book;
mod compiled;
mod host_paths;
mod judge;
mod subject;
#[cfg(test)]
mod tests;

pub use book::Policies;
pub use compiled::{Compiled, Fault, check};
pub use host_paths::host_path;
pub use judge::{Finding, Verdict, judge};
pub use subject::{
    Container, DeviceRequest, Image, Instance, Mount, MountType, Parameters, Subject, Target, TargetKind,
};
