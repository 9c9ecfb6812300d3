//! Who may do what. One function, asked for every request before anything else.

use http::{Method, Uri};

use super::failure::{Failure, Outcome};
use super::request::Params;
use crate::auth::Caller;

/// What anybody may read, exactly these paths.
pub const PUBLIC: [&str; 4] = ["/livez", "/readyz", "/healthz", "/version"];

/// Lets the request pass: 401 without a caller except for [`PUBLIC`], 403 for callers without the right.
///
/// Members of the one admin group may do everything, everybody else nothing.
pub fn authorize(caller: Option<&Caller>, method: &Method, uri: &Uri) -> Outcome<()> {
    let is_public = matches!(*method, Method::GET | Method::HEAD) && PUBLIC.contains(&uri.path());
    match caller {
        _ if is_public => Ok(()),
        None => Err(Failure::unauthorized()),
        Some(caller) if caller.is_admin() => Ok(()),
        Some(caller) => Err(Attributes::of(method, uri).refuse(caller)),
    }
}

/// What a request asks for, from its line alone: known also where no route matches.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Attributes {
    pub verb: &'static str,
    pub group: String,
    /// Empty for paths that are no resource.
    pub resource: String,
    pub namespace: String,
    pub name: String,
    path: String,
}

impl Attributes {
    pub fn of(method: &Method, uri: &Uri) -> Self {
        let path = uri.path();
        let segments: Vec<&str> = path.split('/').filter(|segment| !segment.is_empty()).collect();
        let (group, rest) = match segments.as_slice() {
            ["api", _, rest @ ..] => ("", rest),
            ["apis", group, _, rest @ ..] => (*group, rest),
            _ => ("", [].as_slice()),
        };
        let (namespace, resource, name, subresource) = match rest {
            ["namespaces", name, subresource @ ("status" | "finalize")] => {
                (*name, "namespaces", *name, *subresource)
            }
            ["namespaces", namespace, resource, rest @ ..] => (
                *namespace,
                *resource,
                rest.first().copied().unwrap_or_default(),
                rest.get(1).copied().unwrap_or_default(),
            ),
            ["namespaces", name] => (*name, "namespaces", *name, ""),
            [resource, rest @ ..] => (
                "",
                *resource,
                rest.first().copied().unwrap_or_default(),
                rest.get(1).copied().unwrap_or_default(),
            ),
            [] => ("", "", "", ""),
        };
        Self {
            verb: verb(method, uri, !name.is_empty(), !resource.is_empty()),
            group: group.to_owned(),
            resource: if subresource.is_empty() {
                resource.to_owned()
            } else {
                format!("{resource}/{subresource}")
            },
            namespace: namespace.to_owned(),
            name: name.to_owned(),
            path: path.to_owned(),
        }
    }

    fn refuse(&self, caller: &Caller) -> Failure {
        let Self { verb, group, resource, namespace, name, path } = self;
        let user = &caller.user;
        if resource.is_empty() {
            return Failure::forbidden(format!("forbidden: User \"{user}\" cannot {verb} path \"{path}\""));
        }
        let plural = resource.split('/').next().unwrap_or_default();
        let whole = if group.is_empty() { plural.to_owned() } else { format!("{plural}.{group}") };
        let what = if name.is_empty() { whole } else { format!("{whole} \"{name}\"") };
        let scope = if namespace.is_empty() {
            "at the cluster scope".to_owned()
        } else {
            format!("in the namespace \"{namespace}\"")
        };
        Failure::forbidden(format!(
            "{what} is forbidden: User \"{user}\" cannot {verb} resource \"{resource}\" in API group \"{group}\" {scope}"
        ))
    }
}

fn verb(method: &Method, uri: &Uri, has_name: bool, is_resource: bool) -> &'static str {
    let is_watch = || Params::read(uri).is_ok_and(|params| params.is_set("watch"));
    match *method {
        Method::GET | Method::HEAD if !is_resource => "get",
        Method::GET | Method::HEAD if is_watch() => "watch",
        Method::GET | Method::HEAD if has_name => "get",
        Method::GET | Method::HEAD => "list",
        Method::POST => "create",
        Method::PUT => "update",
        Method::PATCH => "patch",
        Method::DELETE if has_name => "delete",
        Method::DELETE => "deletecollection",
        _ => "other",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(method: &Method, path: &str) -> String {
        let caller = Caller { user: "eve".into(), groups: ["system:authenticated".into()].into() };
        authorize(Some(&caller), method, &path.parse().expect("a URI")).expect_err("no right").to_string()
    }

    #[test]
    fn a_caller_without_the_right_reads_what_was_missing() {
        let said = [
            refusal(&Method::DELETE, "/apis/gantry.dev/v1alpha1/namespaces/n/operations/x"),
            refusal(&Method::GET, "/apis/gantry.dev/v1alpha1/operations?watch=1"),
            refusal(&Method::PATCH, "/apis/gantry.dev/v1alpha1/namespaces/n/operations/x/status"),
            refusal(&Method::GET, "/api/v1/namespaces/n"),
            refusal(&Method::GET, "/metrics"),
        ];

        insta::assert_snapshot!(said.join("\n"), @r#"
        operations.gantry.dev "x" is forbidden: User "eve" cannot delete resource "operations" in API group "gantry.dev" in the namespace "n"
        operations.gantry.dev is forbidden: User "eve" cannot watch resource "operations" in API group "gantry.dev" at the cluster scope
        operations.gantry.dev "x" is forbidden: User "eve" cannot patch resource "operations/status" in API group "gantry.dev" in the namespace "n"
        namespaces "n" is forbidden: User "eve" cannot get resource "namespaces" in API group "" in the namespace "n"
        forbidden: User "eve" cannot get path "/metrics"
        "#);
    }

    #[test]
    fn only_reading_health_and_version_needs_no_caller() {
        for path in PUBLIC {
            let uri = path.parse().expect("a URI");
            assert!(authorize(None, &Method::GET, &uri).is_ok(), "{path}");
            assert!(authorize(None, &Method::POST, &uri).is_err(), "{path}");
        }
        for path in
            ["/", "/metrics", "/readyz/database", "/livez/", "/version/x", "/apis", "//livez", "/LIVEZ"]
        {
            assert!(authorize(None, &Method::GET, &path.parse().expect("a URI")).is_err(), "{path}");
        }
    }
}
