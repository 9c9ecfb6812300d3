//! Acting as somebody else, as `kubectl --as` does: each header needs its own right.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;

use http::{HeaderMap, HeaderName};
use percent_encoding::percent_decode_str;

use super::authorize::{Attributes, require};
use super::failure::{Failure, Outcome};
use crate::auth::{Caller, Rights};

const USER: HeaderName = HeaderName::from_static("impersonate-user");
const GROUP: HeaderName = HeaderName::from_static("impersonate-group");
const UID: HeaderName = HeaderName::from_static("impersonate-uid");
const EXTRA: &str = "impersonate-extra-";
const IDENTITY: &str = "authentication.k8s.io";
const ACCOUNT: &str = "system:serviceaccount:";

/// Whom a caller acts as, and what that needed of the caller.
pub(super) struct Impersonated {
    pub caller: Caller,
    pub needs: Vec<Attributes>,
}

/// Reads the headers: `None` where there are none, 400 where they name no user, 403 where a right is missing.
pub(super) async fn impersonate(
    rights: &Rights,
    caller: &Caller,
    headers: &HeaderMap,
) -> Outcome<Option<Impersonated>> {
    let Some(wanted) = Wanted::read(headers)? else { return Ok(None) };
    let needs = wanted.needs();
    if !caller.is_admin() {
        rights.catch_up().await;
    }
    for need in &needs {
        require(rights, caller, need)?;
    }
    Ok(Some(Impersonated { caller: wanted.caller(caller), needs }))
}

/// What the headers say.
struct Wanted {
    user: String,
    groups: Vec<String>,
    uid: Option<String>,
    extra: BTreeMap<String, Vec<String>>,
}

impl Wanted {
    fn read(headers: &HeaderMap) -> Outcome<Option<Self>> {
        let texts = |name: &HeaderName| -> Outcome<Vec<String>> {
            headers.get_all(name).iter().map(|value| text(name, value)).collect()
        };
        let mut extra = BTreeMap::<String, Vec<String>>::new();
        for (name, value) in headers {
            let Some(key) = name.as_str().strip_prefix(EXTRA) else { continue };
            let key = percent_decode_str(key).decode_utf8();
            let key = key.map_err(|_| refuse(name.as_str(), "its name is not UTF-8 once decoded"))?;
            extra.entry(key.to_lowercase()).or_default().push(text(name, value)?);
        }
        let (users, groups, uids) = (texts(&USER)?, texts(&GROUP)?, texts(&UID)?);
        let user = match users.as_slice() {
            [] if groups.is_empty() && uids.is_empty() && extra.is_empty() => return Ok(None),
            [] => return Err(refuse(USER.as_str(), "it is missing, and others of its kind are given")),
            [one] if !one.is_empty() => one.clone(),
            [_] => return Err(refuse(USER.as_str(), "it is empty")),
            _ => return Err(refuse(USER.as_str(), "it is given twice")),
        };
        let uid = match uids.as_slice() {
            [] => None,
            [one] => Some(one.clone()),
            _ => return Err(refuse(UID.as_str(), "it is given twice")),
        };
        Ok(Some(Self { user, groups, uid, extra }))
    }

    /// The rights to be all of this.
    fn needs(&self) -> Vec<Attributes> {
        let to_be = |group, plural, name: &str| Attributes {
            verb: "impersonate",
            group,
            plural,
            name: name.to_owned(),
            ..Attributes::default()
        };
        let user = match self.account() {
            None => to_be("", "users", &self.user),
            Some((namespace, name)) => {
                Attributes { namespace: namespace.to_owned(), ..to_be("", "serviceaccounts", name) }
            }
        };
        let groups = self.groups.iter().map(|group| to_be("", "groups", group));
        let uid = self.uid.iter().map(|uid| to_be(IDENTITY, "uids", uid));
        let extra = self.extra.iter().flat_map(|(key, values)| {
            values.iter().map(move |value| Attributes {
                subresource: Cow::Owned(key.clone()),
                ..to_be(IDENTITY, "userextras", value)
            })
        });
        std::iter::once(user).chain(groups).chain(uid).chain(extra).collect()
    }

    /// Namespace and name, if the user is a ServiceAccount.
    fn account(&self) -> Option<(&str, &str)> {
        self.user.strip_prefix(ACCOUNT)?.split_once(':')
    }

    fn caller(self, impersonator: &Caller) -> Caller {
        let of_account = match self.account() {
            Some((namespace, _)) if self.groups.is_empty() => {
                vec!["system:serviceaccounts".to_owned(), format!("system:serviceaccounts:{namespace}")]
            }
            _ => Vec::new(),
        };
        let groups = self.groups.iter().chain(&of_account).map(String::as_str);
        Caller {
            uid: self.uid.as_deref().map(Arc::from),
            extra: Arc::new(self.extra),
            impersonator: Some(Arc::new(impersonator.clone())),
            ..Caller::authenticated(&self.user, groups)
        }
    }
}

fn text(name: &HeaderName, value: &http::HeaderValue) -> Outcome<String> {
    value.to_str().map(str::to_owned).map_err(|_| refuse(name.as_str(), "it is not plain text"))
}

fn refuse(header: &str, why: &str) -> Failure {
    Failure::bad_request(format!("the header {header} cannot be used: {why}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(headers: &[(&str, &str)]) -> Outcome<Option<Wanted>> {
        let headers = headers.iter().map(|(name, value)| {
            (name.parse::<HeaderName>().expect("a name"), value.parse().expect("a value"))
        });
        Wanted::read(&headers.collect())
    }

    fn needs(headers: &[(&str, &str)]) -> String {
        let wanted = read(headers).expect("readable").expect("somebody");
        let needs = wanted.needs();
        let told = needs.iter().map(|need| {
            let Attributes { group, namespace, name, .. } = need;
            format!("{}.{group} {namespace}/{name}", need.resource())
        });
        told.collect::<Vec<_>>().join("\n")
    }

    #[test]
    fn t04_every_header_needs_its_own_right() {
        insta::assert_snapshot!(needs(&[
            ("impersonate-user", "ada"),
            ("impersonate-group", "system:masters"),
            ("impersonate-group", "ops"),
            ("impersonate-uid", "7"),
            ("impersonate-extra-Reason%2Fwhy", "test"),
        ]), @r"
        users. /ada
        groups. /system:masters
        groups. /ops
        uids.authentication.k8s.io /7
        userextras/reason/why.authentication.k8s.io /test
        ");
        insta::assert_snapshot!(needs(&[("impersonate-user", "system:serviceaccount:shop:bot")]), @"serviceaccounts. shop/bot");
    }

    #[test]
    fn who_is_acted_as_is_what_the_headers_say_and_nothing_of_who_acts() {
        let admin = Caller::system("x");
        let wanted = read(&[("impersonate-user", "system:serviceaccount:shop:bot")]).expect("readable");

        let caller = wanted.expect("somebody").caller(&admin);

        assert!(!caller.is_admin());
        assert_eq!(&*caller.user, "system:serviceaccount:shop:bot");
        let groups: Vec<_> = caller.groups.iter().map(|group| &**group).collect();
        assert_eq!(groups, ["system:serviceaccounts", "system:serviceaccounts:shop", "system:authenticated"]);
        assert_eq!(caller.impersonator.as_deref(), Some(&admin));
    }

    #[test]
    fn headers_that_name_no_one_user_are_refused() {
        for headers in [
            &[("impersonate-group", "ops")][..],
            &[("impersonate-uid", "7")],
            &[("impersonate-extra-a", "b")],
            &[("impersonate-user", "")],
            &[("impersonate-user", "a"), ("impersonate-user", "b")],
            &[("impersonate-user", "a"), ("impersonate-uid", "b"), ("impersonate-uid", "c")],
            &[("impersonate-user", "a"), ("impersonate-extra-%ff", "b")],
        ] {
            assert!(read(headers).is_err(), "{headers:?}");
        }
        assert!(read(&[("user-agent", "x")]).expect("readable").is_none());
    }
}
