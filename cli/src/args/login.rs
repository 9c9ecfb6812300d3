//! What may be typed to sign in.

use std::path::PathBuf;

use clap::Args;

use super::values::parse_controller;

/// Options of `gantry login`.
#[derive(Clone, Debug, Args)]
#[command(after_help = "Examples:
  gantry login https://gantry.example:7443 --issuer https://login.example/realms/main --client-id gantry
  gantry login https://gantry.example:7443 --issuer https://login.example --client-id gantry --device
  pass gantry | gantry login https://gantry.example:7443 --token - --certificate-authority ca.pem

Ask whoever runs the controller for the issuer and the client: they are what its --authentication-config has as `issuer.url` and one \
of `issuer.audiences`. The client is a public one that may use http://127.0.0.1/callback on any port, or the device flow.

A controller that nobody vouches for whom this machine trusts is shown by the fingerprint of its authority, and you are asked. It is \
the hash that `gantry agent install-command` prints as --ca-hash.")]
pub(crate) struct LoginArgs {
    /// Where the controller is, as `https://gantry.example:7443`.
    #[arg(value_parser = parse_controller)]
    pub(crate) url: String,

    #[command(flatten)]
    pub(crate) issuer: LoginIssuerArgs,

    /// Signs in with a code that is typed on another machine, and not with a browser of this one.
    #[arg(long, requires = "issuer")]
    pub(crate) device: bool,

    /// Prints where to sign in, and opens no browser.
    #[arg(long, conflicts_with = "device")]
    pub(crate) no_browser: bool,

    /// What the issuer is asked for.
    #[arg(long, value_name = "SCOPES", default_value = "openid profile email offline_access")]
    pub(crate) scope: String,

    /// Port of this machine that the browser comes back to, for issuers that know only one; a free one where absent.
    #[arg(long, value_name = "PORT", default_value_t = 0)]
    pub(crate) callback_port: u16,

    /// A token that was got elsewhere, or `-` to read it from standard input, where nobody sees it among the arguments.
    #[arg(long, value_name = "TOKEN", conflicts_with_all = ["issuer", "device"], required_unless_present = "issuer")]
    pub(crate) token: Option<String>,

    /// Whom the controller must be signed by, in PEM.
    #[arg(long, value_name = "FILE")]
    pub(crate) certificate_authority: Option<PathBuf>,

    /// The fingerprint of the controller's authority, as `sha256:…`: then nobody is asked.
    #[arg(long, value_name = "HASH", conflicts_with = "certificate_authority")]
    pub(crate) ca_hash: Option<String>,

    /// Trusts whoever answers now, without asking, and nobody else from then on.
    #[arg(long, conflicts_with_all = ["certificate_authority", "ca_hash"])]
    pub(crate) trust_on_first_use: bool,

    /// Name of the context; the controller's name where absent.
    #[arg(long, value_name = "NAME")]
    pub(crate) name: Option<String>,
}

/// Who signs people in.
#[derive(Clone, Debug, Args)]
pub(crate) struct LoginIssuerArgs {
    /// The OpenID Connect issuer that people sign in with.
    #[arg(long, value_name = "URL", requires = "client_id")]
    pub(crate) issuer: Option<String>,

    /// As what this program is known to it.
    #[arg(long, value_name = "ID", requires = "issuer")]
    pub(crate) client_id: Option<String>,

    /// Where the client's secret is, for issuers that give one to programs too. It is read whenever a token is asked for.
    #[arg(long, value_name = "FILE", requires = "issuer")]
    pub(crate) client_secret_file: Option<PathBuf>,

    /// Whom the issuer must be signed by, in PEM; whom this machine trusts where absent.
    #[arg(long, value_name = "FILE", requires = "issuer")]
    pub(crate) issuer_certificate_authority: Option<PathBuf>,
}

/// Options of `gantry auth token`.
#[derive(Clone, Debug, Args)]
#[command(after_help = "Example:
  gantry auth token --issuer https://login.example --client-id gantry --session gantry.example

`gantry login` writes this into the kubeconfig, where kubectl runs it too.")]
pub(crate) struct AuthTokenArgs {
    /// The issuer that was signed in with.
    #[arg(long, value_name = "URL")]
    pub(crate) issuer: String,

    /// As what this program is known to it.
    #[arg(long, value_name = "ID")]
    pub(crate) client_id: String,

    /// Where the client's secret is, for issuers that give one to programs too.
    #[arg(long, value_name = "FILE")]
    pub(crate) client_secret_file: Option<PathBuf>,

    /// Which of several people one is; the context that `gantry login` has written.
    #[arg(long, value_name = "NAME")]
    pub(crate) session: String,

    /// Whom the issuer must be signed by, in PEM; whom this machine trusts where absent.
    #[arg(long, value_name = "FILE")]
    pub(crate) issuer_certificate_authority: Option<PathBuf>,
}
