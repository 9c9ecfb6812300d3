//! Role-based access control, with the semantics of `rbac.authorization.k8s.io/v1`.
//!
//! Pure: roles and bindings in, decisions out. Knows neither the store that roles are kept in nor HTTP.

mod aggregate;
mod cover;
mod decide;
mod rules;

pub use aggregate::gathered;
pub use cover::uncovered;
pub use decide::{Bound, Policy};
pub use rules::{Asked, What, allows, everything, shown};
