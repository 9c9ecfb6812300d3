//! Who calls. The server's TLS layer and bearer tokens make a [`Caller`]; everything behind only sees that.

mod accounts;
mod authenticate;
pub mod builtin;
pub mod oidc;
pub mod rbac;
mod rights;
pub mod tokens;
#[cfg(test)]
pub(crate) mod world;

use std::collections::BTreeMap;
use std::sync::Arc;

pub use accounts::{Accounts, Tenure};
pub use authenticate::{Authenticator, Reviewed, Undecided};
pub use rights::Rights;
use tokens::Claims;

/// Who sent a request, put into its extensions by authentication.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Caller {
    /// User name, as `kubectl auth whoami` shows it.
    pub user: Arc<str>,
    /// Groups, `system:authenticated` among them.
    pub groups: Arc<[Arc<str>]>,
    /// Identity for ever, of who has one.
    pub uid: Option<Arc<str>>,
    /// What else is known, as Kubernetes names it.
    pub extra: Arc<BTreeMap<String, Vec<String>>>,
    /// Who really calls, where somebody acts as another.
    pub impersonator: Option<Arc<Caller>>,
}

const AUTHENTICATED: &str = "system:authenticated";
const ACCOUNTS: &str = "system:serviceaccounts";
const CREDENTIAL_ID: &str = "authentication.kubernetes.io/credential-id";

impl Caller {
    /// A user whose identity was proven.
    pub fn authenticated<'a>(user: &str, groups: impl IntoIterator<Item = &'a str>) -> Self {
        let groups = groups.into_iter().chain([AUTHENTICATED]).map(Arc::from).collect();
        Self { user: user.into(), groups, ..Self::default() }
    }

    /// The ServiceAccount of a verified token.
    fn service_account(claims: &Claims) -> Self {
        let of_namespace = format!("{ACCOUNTS}:{}", claims.bound.namespace);
        let extra = BTreeMap::from([(CREDENTIAL_ID.to_owned(), vec![format!("JTI={}", claims.jti)])]);
        Self {
            uid: Some(claims.bound.serviceaccount.uid.as_str().into()),
            extra: Arc::new(extra),
            ..Self::authenticated(&claims.sub, [ACCOUNTS, &of_namespace])
        }
    }

    /// One of our own parts, as `system:gantry:operation-reconciler`, with every right.
    pub fn system(part: &str) -> Self {
        Self::authenticated(&format!("system:gantry:{part}"), [gantry_api::names::ADMIN_GROUP])
    }

    /// True for members of the one built-in cluster-admin group.
    pub fn is_admin(&self) -> bool {
        self.groups.iter().any(|group| &**group == gantry_api::names::ADMIN_GROUP)
    }
}
