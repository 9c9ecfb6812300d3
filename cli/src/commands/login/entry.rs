//! What of a kubeconfig is a controller, and whoever one is there.

use anyhow::Context as _;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value, json};

use crate::args::AuthTokenArgs;
use crate::output::failure::{Ends, Hinted};

/// A cluster, a user and a context, all of one name.
pub(super) struct Entry<'a> {
    pub(super) name: &'a str,
    pub(super) server: &'a str,
    /// In DER; whom the machine trusts where absent.
    pub(super) authorities: Option<&'a [Vec<u8>]>,
    pub(super) user: Value,
    pub(super) namespace: Option<&'a str>,
}

impl Entry<'_> {
    /// Puts it in the place of what has that name, and makes it the current context. Everything else stays.
    pub(super) fn put_into(&self, kubeconfig: Value) -> anyhow::Result<Value> {
        let Value::Object(mut fields) = (if kubeconfig.is_null() { json!({}) } else { kubeconfig }) else {
            return Err(Hinted::new(Ends::Misunderstood, "the kubeconfig is no object").into());
        };
        let mut cluster = json!({"server": self.server});
        if let (Some(authorities), Some(cluster)) = (self.authorities, cluster.as_object_mut()) {
            cluster.insert("certificate-authority-data".to_owned(), STANDARD.encode(pem(authorities)).into());
        }
        let mut context = json!({"cluster": self.name, "user": self.name});
        if let (Some(namespace), Some(context)) = (self.namespace, context.as_object_mut()) {
            context.insert("namespace".to_owned(), namespace.into());
        }
        fields.insert("apiVersion".to_owned(), "v1".into());
        fields.insert("kind".to_owned(), "Config".into());
        self.put(&mut fields, "clusters", "cluster", cluster)?;
        self.put(&mut fields, "users", "user", self.user.clone())?;
        self.put(&mut fields, "contexts", "context", context)?;
        fields.insert("current-context".to_owned(), self.name.into());
        Ok(fields.into())
    }

    fn put(
        &self,
        fields: &mut Map<String, Value>,
        list: &str,
        field: &str,
        value: Value,
    ) -> anyhow::Result<()> {
        let all = fields.entry(list).or_insert(Value::Null);
        if all.is_null() {
            *all = json!([]);
        }
        let all = all.as_array_mut().with_context(|| format!("the kubeconfig's {list} are no list"))?;
        let new = json!({"name": self.name, field: value});
        match all.iter_mut().find(|one| one.get("name").and_then(Value::as_str) == Some(self.name)) {
            Some(old) => *old = new,
            None => all.push(new),
        }
        Ok(())
    }
}

fn pem(authorities: &[Vec<u8>]) -> String {
    let one = |der: &Vec<u8>| {
        let text = STANDARD.encode(der);
        let lines: Vec<_> = text.as_bytes().chunks(64).map(String::from_utf8_lossy).collect();
        format!("-----BEGIN CERTIFICATE-----\n{}\n-----END CERTIFICATE-----\n", lines.join("\n"))
    };
    authorities.iter().map(one).collect()
}

/// A user whose token this very program gives, to kubectl too.
pub(super) fn exec(session: &AuthTokenArgs) -> anyhow::Result<Value> {
    let us = std::env::current_exe().context("where this program is cannot be found out")?;
    let mut arguments = vec![
        "auth".to_owned(),
        "token".to_owned(),
        format!("--issuer={}", session.issuer),
        format!("--client-id={}", session.client_id),
        format!("--session={}", session.session),
    ];
    if let Some(secret) = &session.client_secret_file {
        arguments.push(format!("--client-secret-file={}", secret.display()));
    }
    if let Some(authority) = &session.issuer_certificate_authority {
        arguments.push(format!("--issuer-certificate-authority={}", authority.display()));
    }
    Ok(json!({"exec": {
        "apiVersion": "client.authentication.k8s.io/v1",
        "command": us.display().to_string(),
        "args": arguments,
        "interactiveMode": "Never",
        "provideClusterInfo": false,
        "installHint": "gantry is needed to sign in, where it was when `gantry login` ran",
    }}))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_has_another_name_stays_and_what_has_the_same_is_replaced() {
        let entry = |server| Entry {
            name: "gantry.example",
            server,
            authorities: None,
            user: json!({"token": "t"}),
            namespace: Some("shop"),
        };
        let before = json!({
            "kind": "Config", "current-context": "other", "preferences": {"colors": true},
            "clusters": [{"name": "other", "cluster": {"server": "https://other"}}], "users": null,
        });

        let once = entry("https://one").put_into(before).expect("put");
        let twice = entry("https://two").put_into(once).expect("put");

        assert_eq!(twice["clusters"][0], json!({"name": "other", "cluster": {"server": "https://other"}}));
        assert_eq!(
            twice["clusters"][1],
            json!({"name": "gantry.example", "cluster": {"server": "https://two"}})
        );
        assert_eq!(twice["clusters"].as_array().map(Vec::len), Some(2));
        assert_eq!(twice["current-context"], "gantry.example");
        assert_eq!(twice["contexts"][0]["context"]["namespace"], "shop");
        assert_eq!(twice["preferences"], json!({"colors": true}));
        assert!(entry("https://one").put_into(json!([])).is_err());
    }

    #[test]
    fn an_authority_is_written_as_it_is_read() {
        let authorities = vec![vec![7; 100], vec![8; 3]];

        assert_eq!(crate::web::certificates(pem(&authorities).as_bytes()), Some(authorities));
    }
}
