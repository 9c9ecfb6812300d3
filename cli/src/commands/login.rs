//! `gantry login`: a controller, how it is known, and who one is there, into the kubeconfig; nothing is written that does not work.

mod entry;
mod trust;

use std::io::Read as _;
use std::path::PathBuf;

use anyhow::Context as _;
use gantry_api::yaml;
use kube::config::Kubeconfig;
use serde_json::{Value, json};

use super::auth;
use crate::args::{AuthTokenArgs, LoginArgs, Reach};
use crate::client::Controller;
use crate::context;
use crate::oidc::{Browser, Issuer, Session, is_likely};
use crate::output::failure::{Ends, Hinted};
use crate::output::out;
use crate::output::plain::plain;
use entry::Entry;

/// Longest token that is read from standard input.
const LONGEST_TOKEN: u64 = 64 << 10;

/// Signs in, shows as whom, and makes that the current context.
pub(crate) async fn run(reach: &Reach, options: &LoginArgs) -> anyhow::Result<()> {
    let name = options.name.clone().unwrap_or_else(|| name_of(&options.url));
    let authorities = trust::authorities(options).await?;
    let file = file(reach)?;
    let before = match std::fs::read_to_string(&file) {
        Ok(text) if text.trim().is_empty() => Value::Null,
        Ok(text) => {
            yaml::read_manifest(&text).with_context(|| format!("{} is no kubeconfig", file.display()))?
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Value::Null,
        Err(error) => return Err(error).with_context(|| format!("cannot read {}", file.display())),
    };
    let user = match &options.token {
        Some(token) => json!({"token": token_of(token)?}),
        None => sign_in(options, &name).await?,
    };
    let entry = Entry {
        name: &name,
        server: &options.url,
        authorities: authorities.as_deref(),
        user,
        namespace: reach.namespace.as_deref(),
    };
    let after = entry.put_into(before)?;
    let kubeconfig: Kubeconfig = serde_json::from_value(after.clone())
        .with_context(|| format!("{} is no kubeconfig", file.display()))?;
    let controller = Controller::of(kubeconfig).await?;
    let user = auth::user(&controller).await?;
    context::replace(&file, &yaml::write(&after)?)?;
    out::write(&format!("{}: you are {}\n", plain(&name), plain(&user)))?;
    eprintln!("The context is in {}, and the current one.", file.display());
    Ok(())
}

/// The first file that is meant; `gantry dev` writes its own anew at each start, so that is none to write to.
fn file(reach: &Reach) -> anyhow::Result<PathBuf> {
    let files = context::files(reach.kubeconfig.as_deref())?;
    files.into_iter().next().context("there is no file to write it to")
}

/// The host, with the port unless that is what https has.
fn name_of(url: &str) -> String {
    let authority = url.trim_start_matches("https://").split('/').next().unwrap_or_default();
    authority.strip_suffix(":443").unwrap_or(authority).to_owned()
}

fn token_of(given: &str) -> anyhow::Result<String> {
    let mut token = given.to_owned();
    if given == "-" {
        token.clear();
        let stdin = std::io::stdin().lock();
        stdin.take(LONGEST_TOKEN).read_to_string(&mut token).context("standard input cannot be read")?;
    }
    let token = token.trim();
    if token.is_empty() || token.chars().any(|letter| letter.is_control() || letter.is_whitespace()) {
        return Err(Hinted::new(Ends::Misunderstood, "that is no token").into());
    }
    Ok(token.to_owned())
}

/// Lets the person sign in; what the kubeconfig is to have of it.
async fn sign_in(options: &LoginArgs, name: &str) -> anyhow::Result<Value> {
    let (Some(url), Some(client_id)) = (&options.issuer.issuer, &options.issuer.client_id) else {
        return Err(Hinted::new(Ends::Misunderstood, "say --issuer and --client-id, or --token").into());
    };
    let authority = &options.issuer.issuer_certificate_authority;
    let authority = authority.as_ref().map(std::fs::canonicalize).transpose();
    let authority = authority.context("the issuer's certificate authority cannot be found")?;
    let secret = options.issuer.client_secret_file.as_ref().map(std::fs::canonicalize).transpose();
    let secret = secret.context("the client's secret cannot be found")?;
    let issuer = Issuer::discover(url, client_id, secret.as_deref(), authority.as_deref()).await?;
    let tokens = if options.device {
        issuer.sign_in_elsewhere(&options.scope).await?
    } else {
        let browser = if options.no_browser || !is_likely() { Browser::Told } else { Browser::Opened };
        issuer.sign_in(&options.scope, options.callback_port, browser).await?
    };
    let session = AuthTokenArgs {
        issuer: url.clone(),
        client_id: client_id.clone(),
        client_secret_file: secret,
        session: name.to_owned(),
        issuer_certificate_authority: authority,
    };
    Session::of(&session)?.keep(&tokens)?;
    entry::exec(&session)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_context_is_called_as_its_controller() {
        assert_eq!(name_of("https://gantry.example"), "gantry.example");
        assert_eq!(name_of("https://gantry.example:443/base"), "gantry.example");
        assert_eq!(name_of("https://192.0.2.7:7443"), "192.0.2.7:7443");
    }

    #[test]
    fn a_token_has_no_space() {
        assert_eq!(token_of(" a.b.c\n").expect("a token"), "a.b.c");
        for wrong in ["", " ", "a b", "a\nb"] {
            assert!(token_of(wrong).is_err(), "{wrong:?}");
        }
    }
}
