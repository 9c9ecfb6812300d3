//! Flags and environment, validated once.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};
use jiff::civil::Time;
use jiff::{SignedDuration, Span, SpanRelativeTo};

use crate::apiserver::origin::Origin;
use crate::audit::{Network, WebhookUrl};
use crate::auth::oidc::is_https;
use crate::auth::tokens::DEFAULT_ISSUER;
use crate::live::recording::Extent;
use crate::pki::LONGEST_AGENT_LIFETIME;
use crate::storage::audit::Head;
use crate::storage::sealing::KeySource;

/// The data directory where none is given.
const DATA_DIR: &str = "/var/lib/gantry-controller";

/// The control plane of Gantry: API, store, reconcilers and the agents' gateway in one process.
#[derive(Clone, Debug, Parser)]
#[command(
    name = "gantry-controller",
    version,
    args_conflicts_with_subcommands = true,
    subcommand_negates_reqs = true
)]
pub struct Config {
    /// Something else than serving.
    #[command(subcommand)]
    pub command: Option<Command>,

    /// Address of the one port for the API and for agents.
    #[arg(long, env = "GANTRY_LISTEN", default_value = "0.0.0.0:7443")]
    pub listen: SocketAddr,

    /// Where other replicas on the same database reach this one, `host:port`; the listen address where absent, or this machine's name
    /// where that stands for all. Replicas share the files in `pki` below the data directory.
    #[arg(long, env = "GANTRY_ADVERTISE", value_name = "HOST:PORT")]
    pub advertise: Option<String>,

    /// Where certificates, keys and the admin token are kept.
    #[arg(long, env = "GANTRY_DATA_DIR", default_value = DATA_DIR)]
    pub data_dir: PathBuf,

    /// What Secrets are sealed with.
    #[command(flatten)]
    pub key_ring: KeyRingArgs,

    /// The Postgres to store everything in.
    #[arg(
        long,
        env = "GANTRY_DATABASE_URL",
        hide_env_values = true,
        conflicts_with = "embedded_postgres",
        required_unless_present = "embedded_postgres"
    )]
    pub database_url: Option<DatabaseUrl>,

    /// Run a Postgres of our own in this directory, from the installed binaries.
    #[arg(long, env = "GANTRY_EMBEDDED_POSTGRES", value_name = "DIR")]
    pub embedded_postgres: Option<PathBuf>,

    /// Write a kubeconfig with an admin client certificate here.
    #[arg(long, env = "GANTRY_KUBECONFIG_OUT", value_name = "FILE")]
    pub kubeconfig_out: Option<PathBuf>,

    /// Serve containers as the Pods of `v1` too, for kubectl logs and tools that know Pods.
    #[arg(long, env = "GANTRY_KUBERNETES_VIEW")]
    pub kubernetes_view: bool,

    /// More names and addresses clients reach this controller by; may be given several times.
    #[arg(long = "tls-san", env = "GANTRY_TLS_SAN", value_delimiter = ',', value_name = "NAME")]
    pub tls_sans: Vec<String>,

    /// Serve this certificate chain (PEM) instead of a self-made one: the server's certificate first, that of its CA last. Agents
    /// pin the last one: with another CA they must be enrolled again.
    #[arg(long, env = "GANTRY_TLS_CERT", requires = "tls_key", value_name = "FILE")]
    pub tls_cert: Option<PathBuf>,

    /// The key of `--tls-cert` (PEM).
    #[arg(long, env = "GANTRY_TLS_KEY", requires = "tls_cert", value_name = "FILE")]
    pub tls_key: Option<PathBuf>,

    /// Who says that it issues the tokens of ServiceAccounts, an https URL; the same on all replicas. Whoever verifies tokens without
    /// asking this API finds its keys below that URL. Given several times, the first issues and all are accepted, so that the issuer can
    /// be changed.
    #[arg(long = "service-account-issuer", env = "GANTRY_SERVICE_ACCOUNT_ISSUER", value_delimiter = ',', value_name = "URL",
        default_value = DEFAULT_ISSUER, value_parser = parse_issuer)]
    pub service_account_issuers: Vec<String>,

    /// Sign tokens of ServiceAccounts with this private key (PEM, PKCS #8, ECDSA P-256) instead of `pki/service-account.key` below the
    /// data directory, which is made at the first start; the same on all replicas.
    #[arg(long, env = "GANTRY_SERVICE_ACCOUNT_SIGNING_KEY_FILE", value_name = "FILE")]
    pub service_account_signing_key_file: Option<PathBuf>,

    /// Accept tokens that were signed with the keys in this file too (PEM, public or private), as with the one before; may be given
    /// several times.
    #[arg(
        long = "service-account-key-file",
        env = "GANTRY_SERVICE_ACCOUNT_KEY_FILE",
        value_delimiter = ',',
        value_name = "FILE"
    )]
    pub service_account_key_files: Vec<PathBuf>,

    /// Audiences that this API is: tokens for one of them are accepted, and those are issued for all that name none. The issuers where
    /// absent; may be given several times.
    #[arg(long, env = "GANTRY_API_AUDIENCES", value_delimiter = ',', value_name = "AUDIENCE")]
    pub api_audiences: Vec<String>,

    /// Accept tokens of the OpenID Connect issuers that this file names: YAML or JSON, an `AuthenticationConfiguration` as Kubernetes has
    /// it. Read once at the start; the same on all replicas.
    #[arg(long, env = "GANTRY_AUTHENTICATION_CONFIG", value_name = "FILE")]
    pub authentication_config: Option<PathBuf>,

    /// Health checks at the same time.
    #[arg(long, env = "GANTRY_HEALTH_CHECK_CONCURRENCY", default_value_t = 10,
        value_parser = clap::value_parser!(u16).range(1..=1000))]
    pub health_check_concurrency: u16,

    /// How long an agent's certificate is valid, as `90m` or `720h`, which is the longest; it is renewed when a third is left. An
    /// agent that is away for longer needs a new token.
    #[arg(long, env = "GANTRY_AGENT_CERTIFICATE_LIFETIME", value_name = "DURATION", default_value = "720h",
        value_parser = parse_lifetime)]
    pub agent_certificate_lifetime: SignedDuration,

    /// Keep the audit log for this long, as `90d` or `36h`, by whole days.
    #[arg(long, env = "GANTRY_AUDIT_RETENTION", value_name = "DURATION", default_value = "90d", value_parser = parse_retention)]
    pub audit_retention: Duration,

    /// Drop days of the audit log that are older than that at this time of the day, in the time zone of the system.
    #[arg(long, env = "GANTRY_AUDIT_TRIM_AT", value_name = "TIME", default_value = "02:00", value_parser = parse_time_of_day)]
    pub audit_trim_at: Time,

    /// Write each audit event as a line of JSON to this file as well, or to standard output for `-`.
    #[arg(long, env = "GANTRY_AUDIT_LOG", value_name = "FILE")]
    pub audit_log: Option<PathBuf>,

    /// Post audit events as lines of JSON to this URL as well; https, or http on this machine alone.
    #[arg(long, env = "GANTRY_AUDIT_WEBHOOK", value_name = "URL")]
    pub audit_webhook: Option<WebhookUrl>,

    /// Trust the certificates in this file (PEM) there, instead of those that this machine trusts.
    #[arg(long, env = "GANTRY_AUDIT_WEBHOOK_CA_FILE", value_name = "FILE", requires = "audit_webhook")]
    pub audit_webhook_ca_file: Option<PathBuf>,

    /// Show the bearer token in this file there. It is read anew for each post.
    #[arg(long, env = "GANTRY_AUDIT_WEBHOOK_TOKEN_FILE", value_name = "FILE", requires = "audit_webhook")]
    pub audit_webhook_token_file: Option<PathBuf>,

    /// Send audit events as log records to `--otlp-endpoint` as well.
    #[arg(long, env = "GANTRY_AUDIT_OTLP", requires = "otlp_endpoint")]
    pub audit_otlp: bool,

    /// Record terminals, of exec and attach, in every namespace: what is shown, or what is typed too. A namespace can want more, by its
    /// label `gantry.dev/record-terminals`.
    #[arg(long, env = "GANTRY_RECORD_TERMINALS", value_enum, default_value_t = Extent::None)]
    pub record_terminals: Extent,

    /// Longest archive that is copied out of a container or into one by the API, in bytes, or as `512Mi`, `4Gi`. Docker's own clients copy
    /// through the Docker endpoint without a limit.
    #[arg(long, env = "GANTRY_ARCHIVE_LIMIT", value_name = "BYTES", default_value = "4Gi", value_parser = parse_bytes)]
    pub archive_limit: u64,

    /// Believe what proxies of this network, as `10.0.0.0/8`, say in `X-Forwarded-For` of whom they speak for; may be given several times.
    #[arg(
        long = "trusted-proxy",
        env = "GANTRY_TRUSTED_PROXY",
        value_delimiter = ',',
        value_name = "NETWORK"
    )]
    pub trusted_proxies: Vec<Network>,

    /// Let pages of this origin, as `https://dash.example`, change things and open WebSockets by their people's rights; may be given several times.
    /// A browser says which origin a page is of. Without it only this server's own pages may.
    #[arg(
        long = "allowed-origin",
        env = "GANTRY_ALLOWED_ORIGIN",
        value_delimiter = ',',
        value_name = "ORIGIN"
    )]
    pub allowed_origins: Vec<Origin>,

    /// Send traces to this OTLP gRPC endpoint, `https://host:4317`, or `http://…` for one that is reached safely otherwise. Off where absent.
    #[arg(long, env = "GANTRY_OTLP_ENDPOINT", value_name = "URL")]
    pub otlp_endpoint: Option<String>,

    /// Trust the certificates in this file (PEM) there, instead of those that this machine trusts.
    #[arg(long, env = "GANTRY_OTLP_CA_FILE", value_name = "FILE", requires = "otlp_endpoint")]
    pub otlp_ca_file: Option<PathBuf>,

    /// How log lines look; `auto` is text on a terminal, else JSON.
    #[arg(long, env = "GANTRY_LOG_FORMAT", value_enum, default_value_t = LogFormat::Auto)]
    pub log_format: LogFormat,
}

/// What the binary does besides serving.
#[derive(Clone, Debug, Subcommand)]
pub enum Command {
    /// Say that the database was set back to an earlier state, as by restoring a backup. Run it after the restore, before any
    /// controller is started: no version is then used twice, and agents know that a new history has begun. What hosts did since the
    /// backup is not done again.
    ///
    /// A backup that is restored into another cluster, and a failover, are noticed without it.
    Restore {
        /// The Postgres that was restored.
        #[arg(long, env = "GANTRY_DATABASE_URL", hide_env_values = true)]
        database_url: DatabaseUrl,
    },
    /// The keys that Secrets are sealed with in the database.
    #[command(subcommand)]
    Keys(KeysCommand),
    /// Look at the audit log in the database itself.
    Audit {
        /// What to do.
        #[command(subcommand)]
        command: AuditCommand,
    },
}

/// What can be done with the key ring.
#[derive(Clone, Debug, Subcommand)]
pub enum KeysCommand {
    /// Seal every Secret anew that the first key of the ring does not seal, while controllers serve, and say which keys are used no more.
    ///
    /// Safe to repeat. Running controllers read the ring's file every two seconds.
    Rotate(RotateArgs),
}

/// How Secrets are sealed anew.
#[derive(Clone, Debug, Args)]
pub struct RotateArgs {
    /// The Postgres that controllers store everything in.
    #[arg(long, env = "GANTRY_DATABASE_URL", hide_env_values = true)]
    pub database_url: DatabaseUrl,

    /// The controller's data directory, whose key ring is used where no other is given.
    #[arg(long, env = "GANTRY_DATA_DIR", default_value = DATA_DIR)]
    pub data_dir: PathBuf,

    /// What Secrets are sealed with.
    #[command(flatten)]
    pub key_ring: KeyRingArgs,

    /// Put a new key in front of the ring's file first. Only where all replicas read this one file: where each has a copy, put the
    /// key into all copies, last, and in front when all have it.
    #[arg(long)]
    pub new_key: bool,
}

/// What Secrets are sealed with; the same on all replicas.
#[derive(Clone, Debug, Default, Args)]
pub struct KeyRingArgs {
    /// Seal Secrets with the keys in this file instead of `pki/encryption-keys` below the data directory, which is made at the first
    /// start. A line holds a key, 32 bytes in base64; the first one seals and all open.
    #[arg(long, env = "GANTRY_ENCRYPTION_KEYS_FILE", value_name = "FILE")]
    pub encryption_keys_file: Option<PathBuf>,

    /// The keys themselves, as lines or with commas between them. Meant for the environment: others can read the flags of a process.
    #[arg(
        long,
        env = "GANTRY_ENCRYPTION_KEYS",
        hide = true,
        hide_env_values = true,
        conflicts_with = "encryption_keys_file"
    )]
    pub encryption_keys: Option<KeySource>,
}

/// What can be done with the audit log.
#[derive(Clone, Debug, Subcommand)]
pub enum AuditCommand {
    /// Go through the whole chain of events, and fail at the first that was changed, removed, moved or added. Reads only, also while
    /// controllers run. Prints where the chain ends: write it down elsewhere, and give it next time.
    Verify {
        /// The Postgres to look at.
        #[arg(long, env = "GANTRY_DATABASE_URL", hide_env_values = true)]
        database_url: DatabaseUrl,
        /// What an earlier run printed, `BATCH:HASH`: fail unless the chain still leads through it.
        #[arg(long, value_name = "BATCH:HASH")]
        known_head: Option<Head>,
    },
}

fn parse_retention(text: &str) -> Result<Duration, String> {
    let span: Span = text.parse().map_err(|_| format!("`{text}` is not a duration as `90d` or `36h`"))?;
    let kept = span.to_duration(SpanRelativeTo::days_are_24_hours()).ok();
    let kept =
        kept.filter(|kept| *kept >= SignedDuration::from_hours(24)).and_then(|kept| kept.try_into().ok());
    kept.ok_or_else(|| "it must be a day at least".to_owned())
}

fn parse_time_of_day(text: &str) -> Result<Time, String> {
    text.parse().map_err(|_| format!("`{text}` is not a time of the day as `02:00`"))
}

fn parse_bytes(text: &str) -> Result<u64, String> {
    let units = [("Ki", 10), ("Mi", 20), ("Gi", 30), ("Ti", 40), ("", 0)];
    let read = units.into_iter().find_map(|(unit, bits)| {
        let number: u64 = text.strip_suffix(unit)?.parse().ok()?;
        number.checked_mul(1 << bits)
    });
    read.filter(|bytes| *bytes > 0).ok_or_else(|| format!("`{text}` is not a size as `512Mi` or `4Gi`"))
}

fn parse_lifetime(text: &str) -> Result<SignedDuration, String> {
    let lifetime: SignedDuration =
        text.parse().map_err(|_| format!("`{text}` is not a duration as `90m` or `720h`"))?;
    if lifetime < SignedDuration::from_secs(30) || lifetime > LONGEST_AGENT_LIFETIME {
        return Err("it must be between 30 seconds and 720 hours".to_owned());
    }
    Ok(lifetime)
}

/// An issuer is compared as text, and read as the beginning of a URL.
fn parse_issuer(text: &str) -> Result<String, String> {
    if is_https(text) {
        Ok(text.to_owned())
    } else {
        Err("it must be a URL as `https://gantry.example`, without a query or a fragment".to_owned())
    }
}

/// How log lines look.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// Text on a terminal, else JSON.
    Auto,
    /// For people.
    Text,
    /// For programs.
    Json,
}

/// A database URL; printing it never shows the password.
#[derive(Clone, PartialEq, Eq)]
pub struct DatabaseUrl(String);

impl DatabaseUrl {
    /// The URL with its password, for the driver alone.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl std::fmt::Debug for DatabaseUrl {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("DatabaseUrl(…)")
    }
}

impl std::str::FromStr for DatabaseUrl {
    type Err = &'static str;

    fn from_str(url: &str) -> Result<Self, Self::Err> {
        if url.starts_with("postgres://") || url.starts_with("postgresql://") {
            Ok(Self(url.to_owned()))
        } else {
            Err("a database URL begins with postgres://")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_database_is_required_and_only_one() {
        assert!(Config::try_parse_from(["x"]).is_err());
        assert!(
            Config::try_parse_from(["x", "--database-url", "postgres://a", "--embedded-postgres", "/x"])
                .is_err()
        );
        assert!(Config::try_parse_from(["x", "--database-url", "mysql://a"]).is_err());
        assert!(Config::try_parse_from(["x", "--embedded-postgres", "/x"]).is_ok());
    }

    #[test]
    fn a_lifetime_has_a_unit_and_bounds() {
        assert_eq!(parse_lifetime("90m"), Ok(SignedDuration::from_mins(90)));
        assert_eq!(parse_lifetime("720h"), Ok(SignedDuration::from_hours(720)));
        for wrong in ["5", "1s", "-1h", "721h", "720h1s", "soon"] {
            assert!(parse_lifetime(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_size_is_in_bytes_or_has_a_unit() {
        let config = Config::try_parse_from(["x", "--embedded-postgres", "/x"]).expect("valid");
        assert_eq!(config.archive_limit, crate::live::archive::LIMIT);
        assert_eq!((parse_bytes("512"), parse_bytes("3Mi")), (Ok(512), Ok(3 << 20)));
        for wrong in ["", "0", "-1", "4G", "Gi", "1.5Gi", "99999999999Ti"] {
            assert!(parse_bytes(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn the_audit_log_is_kept_for_90_days_and_trimmed_at_two_unless_somebody_says_otherwise() {
        let config = Config::try_parse_from(["x", "--embedded-postgres", "/x"]).expect("valid");
        assert_eq!(config.audit_retention, crate::storage::audit::RETENTION);
        assert_eq!(config.audit_trim_at, Time::constant(2, 0, 0, 0));
        assert_eq!(parse_retention("36h"), Ok(Duration::from_secs(36 * 3_600)));
        for wrong in ["23h", "-2d", "90", "soon", "1month"] {
            assert!(parse_retention(wrong).is_err(), "{wrong}");
        }
        assert!(parse_time_of_day("25:00").is_err() && parse_time_of_day("23:59").is_ok());
    }

    #[test]
    fn an_issuer_is_an_https_url_and_the_first_one_issues() {
        for wrong in ["gantry", "http://gantry.example", "https://", "https://a?b", "https://a#b", ""] {
            assert!(parse_issuer(wrong).is_err(), "{wrong}");
        }
        let given = |issuers: &[&str]| {
            let arguments = ["x", "--embedded-postgres", "/x"].iter().chain(issuers);
            Config::try_parse_from(arguments).expect("valid").service_account_issuers
        };
        assert_eq!(given(&[]), ["https://gantry.internal"]);
        let two = ["--service-account-issuer", "https://b/x", "--service-account-issuer", "https://a"];
        assert_eq!(given(&two), ["https://b/x", "https://a"]);
    }

    #[test]
    fn t28_keys_given_on_the_command_line_are_printed_neither_by_debug_nor_by_a_refusal() {
        let given = |more: &[&str]| {
            let key = ["--encryption-keys", "hunter2"];
            Config::try_parse_from(["x", "--embedded-postgres", "/x"].iter().chain(&key).chain(more))
        };

        assert!(!format!("{:?}", given(&[]).expect("valid")).contains("hunter2"));
        let refused = given(&["--encryption-keys-file", "/keys"]).expect_err("there are two rings");
        assert!(!refused.to_string().contains("hunter2"), "{refused}");
    }

    #[test]
    fn the_password_of_the_database_is_not_printed() {
        let config =
            Config::try_parse_from(["x", "--database-url", "postgres://u:hunter2@h/d"]).expect("valid");

        assert!(!format!("{config:?}").contains("hunter2"));
    }
}
