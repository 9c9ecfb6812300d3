//! The credentials that a Secret holds for a registry, in every form that Kubernetes knows.

use gantry_api::agent_v1::RegistryAuth;
use gantry_api::docker_config::{DockerConfig, Unreadable, address};
use k8s_openapi::api::core::v1::Secret;

const DOCKER_CONFIG_JSON: &str = "kubernetes.io/dockerconfigjson";
const DOCKER_CFG: &str = "kubernetes.io/dockercfg";
const BASIC_AUTH: &str = "kubernetes.io/basic-auth";

/// What says which server a Secret's credentials are for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::reconcilers) enum Binding {
    /// A Registry, whoever wrote it.
    Registry,
    /// The Secret itself. Whoever may pull chooses the server, and must not be able to have any password of the namespace sent there.
    Secret,
}

/// Why a Secret gives no credentials. Says nothing of what is in it.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(in crate::reconcilers) enum Problem {
    #[error("secret \"{0}\" does not exist in this namespace")]
    NotFound(String),
    #[error("secret \"{name}\" cannot be used: {why}")]
    Unusable { name: String, why: Why },
}

/// What is wrong with a Secret.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(in crate::reconcilers) enum Why {
    #[error("it must be of type {DOCKER_CONFIG_JSON}, {DOCKER_CFG} or {BASIC_AUTH}")]
    Type,
    #[error(
        "one of type {BASIC_AUTH} does not say which server it is for, so it can be used through a Registry only"
    )]
    NoServer,
    #[error("it has no `{0}`")]
    Missing(&'static str),
    #[error("its `{0}` is not UTF-8")]
    NotText(&'static str),
    #[error("`{0}`: {1}")]
    Unreadable(&'static str, Unreadable),
    #[error("it has no credentials for {0}")]
    OtherServer(String),
}

/// What a Secret holds for a server, by the server's canonical name.
pub(in crate::reconcilers) fn login(
    name: &str,
    secret: Option<&Secret>,
    server: &str,
    binding: Binding,
) -> Result<RegistryAuth, Problem> {
    let secret = secret.ok_or_else(|| Problem::NotFound(name.to_owned()))?;
    read(secret, server, binding).map_err(|why| Problem::Unusable { name: name.to_owned(), why })
}

fn read(secret: &Secret, server: &str, binding: Binding) -> Result<RegistryAuth, Why> {
    let field = |key: &'static str| {
        let data = secret.data.as_ref().and_then(|data| data.get(key));
        data.map(|data| data.0.as_slice()).filter(|data| !data.is_empty()).ok_or(Why::Missing(key))
    };
    let text = |key| String::from_utf8(field(key)?.to_vec()).map_err(|_| Why::NotText(key));
    let (key, parse): (_, fn(&[u8]) -> _) = match (secret.type_.as_deref(), binding) {
        (Some(DOCKER_CONFIG_JSON), _) => (".dockerconfigjson", DockerConfig::parse),
        (Some(DOCKER_CFG), _) => (".dockercfg", DockerConfig::parse_entries),
        (Some(BASIC_AUTH), Binding::Secret) => return Err(Why::NoServer),
        (Some(BASIC_AUTH), Binding::Registry) => {
            return Ok(RegistryAuth {
                username: text("username")?,
                password: text("password")?,
                identity_token: String::new(),
                server_address: address(server).to_owned(),
            });
        }
        _ => return Err(Why::Type),
    };
    let unreadable = |error| Why::Unreadable(key, error);
    let found = parse(field(key)?).and_then(|config| config.login(server)).map_err(unreadable)?;
    found.ok_or_else(|| Why::OtherServer(server.to_owned()))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use k8s_openapi::ByteString;

    use super::*;

    const PLANTED: &str = "hunter2";

    fn secret(type_: &str, data: &[(&str, &str)]) -> Secret {
        let data = data.iter().map(|(key, value)| ((*key).to_owned(), ByteString((*value).into())));
        Secret {
            type_: Some(type_.to_owned()),
            data: Some(data.collect::<BTreeMap<_, _>>()),
            ..Secret::default()
        }
    }

    fn ask(secret: &Secret, binding: Binding) -> Result<[String; 3], String> {
        login("pull", Some(secret), "registry.example", binding)
            .map(|auth| [auth.username, auth.password, auth.server_address])
            .map_err(|problem| {
                assert!(!format!("{problem:?}").contains(PLANTED), "{problem:?}");
                problem.to_string()
            })
    }

    #[test]
    fn every_form_gives_its_credentials() {
        let entry = format!(r#"{{"registry.example": {{"username": "robot", "password": "{PLANTED}"}}}}"#);
        let config = format!(r#"{{"auths": {entry}}}"#);
        let wanted = Ok(["robot", PLANTED, "registry.example"].map(str::to_owned));

        for secret in [
            secret(DOCKER_CONFIG_JSON, &[(".dockerconfigjson", config.as_str())]),
            secret(DOCKER_CFG, &[(".dockercfg", entry.as_str())]),
        ] {
            assert_eq!(ask(&secret, Binding::Registry), wanted);
            assert_eq!(ask(&secret, Binding::Secret), wanted);
        }
        let plain = secret(BASIC_AUTH, &[("username", "robot"), ("password", PLANTED)]);
        assert_eq!(ask(&plain, Binding::Registry), wanted);
    }

    #[test]
    fn a_password_that_names_no_server_is_not_sent_to_one_that_the_puller_chose() {
        let plain = secret(BASIC_AUTH, &[("username", "robot"), ("password", PLANTED)]);

        insta::assert_snapshot!(ask(&plain, Binding::Secret).unwrap_err(), @r#"secret "pull" cannot be used: one of type kubernetes.io/basic-auth does not say which server it is for, so it can be used through a Registry only"#);
    }

    #[test]
    fn a_secret_that_cannot_be_used_is_told_without_what_is_in_it() {
        let config = |text: &str| {
            ask(&secret(DOCKER_CONFIG_JSON, &[(".dockerconfigjson", text)]), Binding::Registry).unwrap_err()
        };
        let other =
            format!(r#"{{"auths": {{"other.example": {{"username": "robot", "password": "{PLANTED}"}}}}}}"#);

        insta::assert_snapshot!(config(&other), @r#"secret "pull" cannot be used: it has no credentials for registry.example"#);
        insta::assert_snapshot!(config(PLANTED), @r#"secret "pull" cannot be used: `.dockerconfigjson`: it is not JSON as Docker writes it"#);
        insta::assert_snapshot!(config(r#"{"auths": {"registry.example": {"auth": "hunter2!"}}}"#), @r#"secret "pull" cannot be used: `.dockerconfigjson`: its entry for registry.example cannot be read"#);
        insta::assert_snapshot!(config(""), @r#"secret "pull" cannot be used: it has no `.dockerconfigjson`"#);
        let opaque = secret("Opaque", &[("password", PLANTED)]);
        insta::assert_snapshot!(ask(&opaque, Binding::Registry).unwrap_err(), @r#"secret "pull" cannot be used: it must be of type kubernetes.io/dockerconfigjson, kubernetes.io/dockercfg or kubernetes.io/basic-auth"#);
        let half = secret(BASIC_AUTH, &[("password", PLANTED)]);
        insta::assert_snapshot!(ask(&half, Binding::Registry).unwrap_err(), @r#"secret "pull" cannot be used: it has no `username`"#);
        let absent = login("pull", None, "registry.example", Binding::Registry).unwrap_err();
        insta::assert_snapshot!(absent, @r#"secret "pull" does not exist in this namespace"#);
    }
}
