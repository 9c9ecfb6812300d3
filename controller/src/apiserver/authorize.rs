//! Who may do what. One function, asked for every request before anything else.

use std::borrow::Cow;
use std::collections::HashMap;
use std::io;
use std::sync::LazyLock;
use std::time::Duration;

use axum::extract::rejection::RawPathParamsRejection;
use axum::extract::{FromRequestParts as _, MatchedPath, RawPathParams};
use futures::{Stream, StreamExt as _};
use gantry_api::engine_api::Right;
use gantry_api::names::GROUP;
use http::request::Parts;
use http::{Method, Uri};

use super::ApiServer;
use super::failure::{Failure, Outcome};
use super::kinds::Kind;
use super::request::Params;
use super::router::routes;
use super::selectors::Selector;
use crate::auth::rbac::{Asked, What};
use crate::auth::tokens::{CONFIGURATION_PATH, KEYS_PATH};
use crate::auth::{Caller, Rights, Tenure, Undecided};
use crate::live::docker_endpoint;
use crate::storage::Key;

/// What anybody may read, exactly these paths.
pub const PUBLIC: [&str; 6] = ["/livez", "/readyz", "/healthz", "/version", CONFIGURATION_PATH, KEYS_PATH];

/// What is said where a token may be good and cannot be judged.
pub(super) const UNDECIDED: &str = "the database does not answer, so whether the ServiceAccount of this token still exists is unknown; try again";

/// Between two looks at whether who has a stream open still may.
const LOOK: Duration = Duration::from_secs(2);

/// Lets the request pass: 401 without a caller except for [`PUBLIC`], 403 for callers without the right, 503 where nobody can say
/// who calls.
///
/// A path that cannot be read is nobody's right. What was acknowledged before the request counts.
pub(super) async fn authorize(
    rights: &Rights,
    caller: Option<&Caller>,
    undecided: Option<&Undecided>,
    asked: &Outcome<Attributes>,
) -> Outcome<()> {
    match (caller, asked) {
        (_, Ok(asked)) if asked.is_public() => Ok(()),
        (None, _) if undecided.is_some() => Err(Failure::unavailable(UNDECIDED)),
        (None, _) => Err(Failure::unauthorized()),
        (Some(_), Err(failure)) => Err(failure.clone()),
        (Some(caller), Ok(asked)) => {
            if !caller.is_admin() {
                rights.catch_up().await;
            }
            require(rights, caller, asked)
        }
    }
}

/// 403 unless something in memory allows it.
pub(super) fn require(rights: &Rights, caller: &Caller, asked: &Attributes) -> Outcome<()> {
    match rights.grounds(caller, &asked.namespace, &asked.asked()) {
        Some(_) => Ok(()),
        None => Err(asked.refuse(caller)),
    }
}

impl ApiServer {
    /// True if the caller has a right on an instance by which he is told more. What a request cannot do without is asked of its [`Standing`].
    pub(crate) fn has_on_instance(&self, caller: &Caller, right: Right, instance: &Key) -> bool {
        require(&self.rights, caller, &Attributes::on_instance(right, instance)).is_ok()
    }
}

/// By what somebody has a stream open: every right that was asked for it.
#[derive(Clone)]
pub(crate) struct Standing {
    rights: Rights,
    /// What has to be allowed to whom: the request itself, to have made it as somebody else, and what more it turned out to need.
    needs: Vec<(Caller, Attributes)>,
    tenure: Option<Tenure>,
}

impl Standing {
    pub(super) fn new(rights: Rights, needs: Vec<(Caller, Attributes)>, tenure: Option<Tenure>) -> Self {
        Self { rights, needs, tenure }
    }

    /// 403 unless the caller has that right on an instance too. What is opened stands on it from then on.
    pub fn require(&mut self, caller: &Caller, right: Right, instance: &Key) -> Outcome<()> {
        let asked = Attributes::on_instance(right, instance);
        require(&self.rights, caller, &asked)?;
        self.needs.push((caller.clone(), asked));
        Ok(())
    }

    /// Returns soon after any of the rights is lost, or whoever has them is no longer known, and says which.
    pub async fn ended(&self) -> Failure {
        let tenure = async {
            match &self.tenure {
                Some(tenure) => tenure.ended().await,
                None => std::future::pending().await,
            }
        };
        let rights = async {
            loop {
                if let Some(lost) = self.lost() {
                    return lost;
                }
                tokio::time::sleep(LOOK).await;
            }
        };
        tokio::select! {
            () = tenure => Failure::forbidden("the token that this was opened with has ended, or whose it was is gone"),
            lost = rights => Failure::forbidden(format!("the right to this has ended: {lost}")),
        }
    }

    /// The same stream, which breaks off where this ends first.
    pub fn guards<T>(
        self,
        stream: impl Stream<Item = io::Result<T>> + Send + 'static,
    ) -> impl Stream<Item = io::Result<T>> + Send + 'static {
        let ended = Box::pin(async move { self.ended().await });
        futures::stream::unfold(Some((Box::pin(stream), ended)), async |state| {
            let (mut stream, mut ended) = state?;
            tokio::select! {
                biased;
                lost = &mut ended => Some((Err(io::Error::other(lost)), None)),
                next = stream.next() => Some((next?, Some((stream, ended)))),
            }
        })
    }

    fn lost(&self) -> Option<Failure> {
        self.needs.iter().find_map(|(caller, asked)| require(&self.rights, caller, asked).err())
    }
}

/// What a request asks for, as the router understood it: decoded, and empty where no route of a resource matches.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Attributes {
    pub verb: &'static str,
    pub group: &'static str,
    /// Empty for paths that are no resource.
    pub plural: &'static str,
    pub subresource: Cow<'static, str>,
    pub namespace: String,
    /// Also of a collection of which one name is asked for.
    pub name: String,
    /// Of an instance, where the path names one. Rights are those on the instance; the record of who has none says what it was about.
    pub container: String,
    pub path: String,
}

/// A kind, the subresource of it, and the verb where the method does not tell it.
type Target = (&'static Kind, &'static str, Option<&'static str>);

/// What each route of a resource leads to, by method.
static TARGETS: LazyLock<HashMap<String, Vec<(Method, Target)>>> = LazyLock::new(|| {
    let mut targets = HashMap::<String, Vec<(Method, Target)>>::new();
    for route in routes() {
        let target = (route.kind, route.subresource.unwrap_or_default(), route.right);
        targets.entry(route.path).or_default().push((route.method, target));
    }
    targets
});

/// With a method that the path does not have, what its first one leads to: nothing is done, and it needs a right all the same.
fn target(path: &MatchedPath, method: &Method) -> Option<&'static Target> {
    let targets = TARGETS.get(path.as_str())?;
    let of_method = targets.iter().find(|(known, _)| known == method).or(targets.first());
    of_method.map(|(_, target)| target)
}

impl Attributes {
    /// Of a request behind the router; 400 where a decoded parameter of the path is not UTF-8.
    pub async fn of(parts: &mut Parts) -> Outcome<Self> {
        let params = match RawPathParams::from_request_parts(parts, &()).await {
            Ok(params) => Some(params),
            Err(RawPathParamsRejection::MissingPathParams(_)) => None,
            Err(_) => return Err(Failure::bad_request("the path is not UTF-8 once decoded")),
        };
        let param = |wanted: &str| {
            let mut found = params.iter().flatten().filter(|(name, _)| *name == wanted);
            found.next().map(|(_, value)| value.to_owned()).unwrap_or_default()
        };
        let route = parts.extensions.get::<MatchedPath>().map(MatchedPath::as_str).unwrap_or_default();
        let container = if route.contains("/containers/{object}") { param("object") } else { String::new() };
        let matched = parts.extensions.get::<MatchedPath>().and_then(|path| target(path, &parts.method));
        let path = parts.uri.path().to_owned();
        let Some((kind, subresource, right)) = matched else {
            return Ok(Self { verb: verb(&parts.method, &parts.uri, false, false), path, ..Self::default() });
        };
        let name = param("name");
        let (subresource, right) = match *subresource {
            docker_endpoint::SUBRESOURCE => {
                let right = docker_endpoint::understand(parts);
                (right.subresource(), Some(right.verb()))
            }
            subresource => (subresource, *right),
        };
        let verb = right.unwrap_or_else(|| verb(&parts.method, &parts.uri, !name.is_empty(), true));
        let name = match verb {
            "list" | "watch" | "deletecollection" => selected_name(&parts.uri),
            _ => name,
        };
        Ok(Self {
            verb,
            group: &kind.group,
            plural: &kind.plural,
            subresource: Cow::Borrowed(subresource),
            // A Namespace is in itself, so that a right in a namespace can be one to it.
            namespace: if kind.kind == "Namespace" { name.clone() } else { param("namespace") },
            name,
            container,
            path,
        })
    }

    /// The same of an object, to be asked for beside what the request is.
    pub fn of_object(verb: &'static str, kind: &'static Kind, namespace: &str, name: &str) -> Self {
        Self {
            verb,
            group: &kind.group,
            plural: &kind.plural,
            namespace: namespace.to_owned(),
            name: name.to_owned(),
            ..Self::default()
        }
    }

    /// Of a subresource of an instance, to be asked for beside what the request is.
    fn on_instance(right: Right, instance: &Key) -> Self {
        Self {
            verb: right.verb(),
            group: GROUP,
            plural: "dockerinstances",
            subresource: Cow::Borrowed(right.subresource()),
            namespace: instance.namespace.to_string(),
            name: instance.name.to_string(),
            ..Self::default()
        }
    }

    /// As roles are asked.
    pub fn asked(&self) -> Asked<'_> {
        let what = if self.plural.is_empty() {
            What::Path(&self.path)
        } else {
            let Self { group, plural, subresource, name, .. } = self;
            What::Resource { group, plural, subresource, name }
        };
        Asked { verb: self.verb, what }
    }

    fn is_public(&self) -> bool {
        self.verb == "get" && PUBLIC.contains(&self.path.as_str())
    }

    /// `operations/status`.
    pub fn resource(&self) -> String {
        let separator = if self.subresource.is_empty() { "" } else { "/" };
        format!("{}{separator}{}", self.plural, self.subresource)
    }

    fn refuse(&self, caller: &Caller) -> Failure {
        let Self { verb, group, plural, namespace, name, path, .. } = self;
        let (user, resource) = (&caller.user, self.resource());
        if plural.is_empty() {
            return Failure::forbidden(format!("forbidden: User \"{user}\" cannot {verb} path \"{path}\""));
        }
        let whole = if group.is_empty() { (*plural).to_owned() } else { format!("{plural}.{group}") };
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

/// The one name that a field selector leaves; empty where there may be more.
fn selected_name(uri: &Uri) -> String {
    let params = Params::read(uri).unwrap_or_default();
    let fields = params.get("fieldSelector").unwrap_or_default();
    let selector = Selector::parse("", fields, |field| Some(Cow::Borrowed(field))).unwrap_or_default();
    selector.exact_name().unwrap_or_default().to_owned()
}

fn verb(method: &Method, uri: &Uri, has_name: bool, is_resource: bool) -> &'static str {
    let is_watch = || Params::read(uri).is_ok_and(|params| params.is_set("watch"));
    match *method {
        Method::GET | Method::HEAD if !is_resource => "get",
        Method::GET | Method::HEAD if has_name => "get",
        Method::GET | Method::HEAD if is_watch() => "watch",
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
    use std::fmt::Write as _;

    use tokio::time::timeout;

    use super::*;
    use crate::auth::world::World;
    use crate::storage::Resource;

    /// What was asked for a person's request, for somebody to have made it as that person, and what more it turned out to need.
    #[tokio::test(start_paused = true)]
    async fn t11_what_is_open_ends_within_five_seconds_of_the_loss_of_any_right_that_was_asked_for_it() {
        let mut told = String::new();
        for lost in ["acts", "opens", "sees"] {
            let world = World::new().await;
            world.allow("acts", "boss", ("", "users", "impersonate")).await;
            world.allow("opens", "ada", (GROUP, "dockerinstances/exec", "create")).await;
            world.allow("sees", "ada", (GROUP, "dockerinstances/environment", "get")).await;
            let instance = Key {
                resource: Resource("dockerinstances.gantry.dev".into()),
                namespace: "shop".into(),
                name: "nuc-01".into(),
            };
            let (boss, ada) = (Caller::authenticated("boss", []), Caller::authenticated("ada", []));
            let acts = Attributes {
                verb: "impersonate",
                plural: "users",
                name: "ada".to_owned(),
                ..Attributes::default()
            };
            let needs = vec![(boss, acts), (ada.clone(), Attributes::on_instance(Right::Exec, &instance))];
            let mut standing = Standing::new(Rights::new(world.store.clone()), needs, None);
            standing.require(&ada, Right::Environment, &instance).expect("she may");
            assert!(
                standing.require(&ada, Right::Create, &instance).is_err(),
                "what is refused is not asked again"
            );
            let open = tokio::spawn(async move { standing.ended().await });
            tokio::time::sleep(Duration::from_secs(60)).await;
            assert!(!open.is_finished(), "it goes on");

            world.disallow(lost).await;

            let end = timeout(Duration::from_secs(5), open).await.expect("it ends").expect("no panic");
            writeln!(told, "{lost}: {end}").expect("a String takes all");
        }

        insta::assert_snapshot!(told, @r#"
        acts: the right to this has ended: users "ada" is forbidden: User "boss" cannot impersonate resource "users" in API group "" at the cluster scope
        opens: the right to this has ended: dockerinstances.gantry.dev "nuc-01" is forbidden: User "ada" cannot create resource "dockerinstances/exec" in API group "gantry.dev" in the namespace "shop"
        sees: the right to this has ended: dockerinstances.gantry.dev "nuc-01" is forbidden: User "ada" cannot get resource "dockerinstances/environment" in API group "gantry.dev" in the namespace "shop"
        "#);
    }
}
