//! What is kept between commands of who has signed in: a file that nobody else can read, renewed where its token is about to end.

use std::fs::{DirBuilder, File, OpenOptions};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::PathBuf;

use anyhow::Context as _;
use clap::Parser as _;
use jiff::{SignedDuration, Timestamp};
use kube::config::ExecConfig;
use nix::fcntl::{Flock, FlockArg};
use sha2::{Digest as _, Sha256};

use super::{Issuer, Tokens, expiry};
use crate::args::{AuthCommand, AuthTokenArgs, Cli, Command};
use crate::client::hex;
use crate::clock;
use crate::context;
use crate::output::failure::{Ends, Hinted};
use crate::output::plain::plain;

/// A token that ends sooner is renewed: the command it is for takes a while.
const MARGIN: SignedDuration = SignedDuration::from_secs(30);

/// Somebody who has signed in.
pub(crate) struct Session<'a> {
    options: &'a AuthTokenArgs,
    dir: PathBuf,
    /// Without its ending.
    name: String,
}

impl<'a> Session<'a> {
    /// The one that is meant. Whether there is one is not known yet.
    pub(crate) fn of(options: &'a AuthTokenArgs) -> anyhow::Result<Self> {
        Ok(Self::in_dir(options, context::cache_dir()?.join("sessions")))
    }

    fn in_dir(options: &'a AuthTokenArgs, dir: PathBuf) -> Self {
        let mut hash = Sha256::new();
        for part in [&options.issuer, &options.client_id, &options.session] {
            hash.update(part.as_bytes());
            hash.update([0]);
        }
        let name = hex(&hash.finalize());
        Self { options, dir, name }
    }

    /// Keeps what was given.
    pub(crate) fn keep(&self, tokens: &Tokens) -> anyhow::Result<()> {
        self.make_dir()?;
        let file = self.file();
        context::replace(&file, &serde_json::to_string(tokens)?)
    }

    /// A token that is good for a while yet, and when it ends.
    pub(crate) async fn token(&self) -> anyhow::Result<(String, Timestamp)> {
        if let Some(good) = self.read().and_then(|tokens| good(&tokens)) {
            return Ok(good);
        }
        // Issuers take a refresh token once: of two commands only one may show it.
        self.make_dir()?;
        let _lock = self.lock()?;
        let Some(tokens) = self.read() else {
            return Err(self.ended("nobody has signed in here"));
        };
        if let Some(good) = good(&tokens) {
            return Ok(good);
        }
        let Some(refresh_token) = &tokens.refresh_token else {
            return Err(self.ended("the token has ended, and the issuer gave none to renew it with"));
        };
        let AuthTokenArgs { issuer, client_id, client_secret_file, issuer_certificate_authority, .. } =
            self.options;
        let (secret, authority) = (client_secret_file.as_deref(), issuer_certificate_authority.as_deref());
        let issuer = Issuer::discover(issuer, client_id, secret, authority).await?;
        let form = [("grant_type", "refresh_token"), ("refresh_token", refresh_token)];
        match issuer.tokens(&form).await? {
            Ok(mut newer) => {
                let ends = issuer.check(&newer, None)?;
                newer.refresh_token = newer.refresh_token.or(tokens.refresh_token);
                self.keep(&newer)?;
                Ok((newer.id_token, ends))
            }
            Err(refusal) => {
                let what = format!("the session has ended: {}", refusal.said());
                Err(self.ended(&what))
            }
        }
    }

    fn ended(&self, what: &str) -> anyhow::Error {
        let AuthTokenArgs { issuer, client_id, client_secret_file, session, .. } = self.options;
        let what = format!("{}: {what}", plain(session));
        let secret = client_secret_file.as_ref();
        let again = format!(
            "sign in again: `gantry login URL --name {} --issuer {} --client-id {}{}`",
            plain(session),
            plain(issuer),
            plain(client_id),
            secret.map(|file| format!(" --client-secret-file {}", file.display())).unwrap_or_default()
        );
        Hinted::new(Ends::NotAllowed, what).hint(again).into()
    }

    fn file(&self) -> PathBuf {
        self.dir.join(format!("{}.json", self.name))
    }

    fn make_dir(&self) -> anyhow::Result<()> {
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&self.dir)
            .with_context(|| format!("cannot make the directory {}", self.dir.display()))
    }

    /// What cannot be read is as good as nothing.
    fn read(&self) -> Option<Tokens> {
        serde_json::from_slice(&std::fs::read(self.file()).ok()?).ok()
    }

    fn lock(&self) -> anyhow::Result<Flock<File>> {
        let path = self.dir.join(format!("{}.lock", self.name));
        let cannot = || format!("cannot use {}", path.display());
        let mut options = OpenOptions::new();
        let file = options.create(true).truncate(false).write(true).mode(0o600).open(&path);
        let locked = Flock::lock(file.with_context(cannot)?, FlockArg::LockExclusive);
        locked.map_err(|(_, errno)| errno).with_context(cannot)
    }
}

fn good(tokens: &Tokens) -> Option<(String, Timestamp)> {
    let ends = expiry(&tokens.id_token)?;
    (ends.duration_since(clock::now()) > MARGIN).then(|| (tokens.id_token.clone(), ends))
}

/// What a kubeconfig would have us run, if that is ourselves: then nothing needs to be run.
pub(crate) fn of_exec(exec: &ExecConfig) -> Option<AuthTokenArgs> {
    let us = std::env::current_exe().ok()?;
    let arguments = exec.args.clone().unwrap_or_default();
    if std::path::Path::new(exec.command.as_ref()?) != us
        || exec.env.as_ref().is_some_and(|env| !env.is_empty())
    {
        return None;
    }
    match Cli::try_parse_from(std::iter::once("gantry".to_owned()).chain(arguments)).ok()?.command {
        Command::Auth(AuthCommand::Token(options)) => Some(options),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use base64::Engine as _;
    use base64::engine::general_purpose::URL_SAFE_NO_PAD;
    use serde_json::json;

    use super::*;

    fn options(session: &str) -> AuthTokenArgs {
        AuthTokenArgs {
            issuer: "https://login.example".to_owned(),
            client_id: "gantry".to_owned(),
            client_secret_file: None,
            session: session.to_owned(),
            issuer_certificate_authority: None,
        }
    }

    fn tokens(seconds: i64) -> Tokens {
        let ends = clock::now().as_second() + seconds;
        let payload = URL_SAFE_NO_PAD.encode(json!({"exp": ends}).to_string());
        Tokens { id_token: format!("e30.{payload}.s"), refresh_token: None }
    }

    #[tokio::test]
    async fn a_good_token_is_given_from_the_file_which_nobody_else_can_read() {
        let dir = tempfile::tempdir().expect("a directory");
        let place = dir.path().join("sessions");
        let (ada, bob) = (options("ada"), options("bob"));
        let session = Session::in_dir(&ada, place.clone());
        let kept = tokens(600);

        session.keep(&kept).expect("kept");

        assert_eq!(session.token().await.expect("a token").0, kept.id_token);
        let mode =
            |path: &std::path::Path| std::fs::metadata(path).expect("there").permissions().mode() & 0o777;
        assert_eq!((mode(&place), mode(&session.file())), (0o700, 0o600));
        assert!(Session::in_dir(&bob, place).token().await.is_err());
    }

    #[tokio::test]
    async fn a_token_about_to_end_that_cannot_be_renewed_says_how_to_sign_in() {
        let dir = tempfile::tempdir().expect("a directory");
        let ada = options("ada");
        let session = Session::in_dir(&ada, dir.path().to_owned());
        session.keep(&tokens(10)).expect("kept");

        let error = session.token().await.expect_err("it is about to end");

        let text = crate::output::failure::render(&error);
        assert!(text.contains("hint: sign in again: `gantry login URL --name ada"), "{text}");
        assert_eq!(crate::output::failure::code(&error), Ends::NotAllowed as u8);
    }
}
