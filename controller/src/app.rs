//! The wiring diagram as code: what is built, what runs, and what stops in which order.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use async_trait::async_trait;
use gantry_api::agent_v1::{Rewind, Token};
use jiff::tz::TimeZone;
use sqlx::postgres::PgConnectOptions;
use tokio::net::TcpSocket;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::apiserver::{self, ApiServer, Check, ReadyChecks, kinds};
use crate::audit::{self, Carrier, Outlet, Schedule, Webhook};
use crate::auth::oidc::Issuers;
use crate::auth::tokens::{TokenSettings, Tokens};
use crate::auth::{Accounts, Authenticator};
use crate::bootstrap::bootstrap;
use crate::clock::{Clock as _, Entropy as _, SharedClock, SharedEntropy, SystemClock, SystemEntropy};
use crate::config::{AuditCommand, Command, Config, DatabaseUrl, KeysCommand};
use crate::embedded_postgres::EmbeddedPostgres;
use crate::gateway::directory::ApiDirectory;
use crate::gateway::{Authority, Gateway, Timing};
use crate::live::inventory::following::Follow;
use crate::pki::{GivenCertificate, Pki, TokenKeys};
use crate::reconcilers;
use crate::server::{Server, TlsPeers};
use crate::storage::audit::{Head, Verified, Verifier};
use crate::storage::lease::Leadership;
use crate::storage::postgres::Postgres;
use crate::storage::replicas::{Replica, Replicas};
use crate::storage::{Position, Retention, StorageError, Store};
use crate::telemetry::metrics::Metrics;

mod keys;

const NO_DATABASE: &str = "cannot use the database";
/// Name of the lease that the reconciling replica holds.
const LEADER_LEASE: &str = "controller";
/// Connections that wait to be accepted.
const LISTEN_QUEUE: u32 = 1_024;
/// Addresses of this machine on its certificate.
const MOST_ADDRESSES: usize = 100;
/// Pause before a database that did not answer at the start is tried again.
const DATABASE_RETRY: Duration = Duration::from_secs(1);
/// What a watch cache may lag behind without being told of.
const SLOW_CACHE: Duration = Duration::from_secs(1);
/// How long a new token may take after the store was found rewound.
const RAISE_PATIENCE: Duration = Duration::from_secs(10);

/// Does what the command line says: serves until told to stop, or until the embedded database ends.
pub async fn run(config: Config, stop: CancellationToken) -> anyhow::Result<()> {
    match &config.command {
        None => serve_everything(config, stop).await,
        Some(Command::Restore { database_url }) => restore(database_url).await,
        Some(Command::Keys(KeysCommand::Rotate(args))) => keys::rotate(args).await,
        Some(Command::Audit { command: AuditCommand::Verify { database_url, known_head } }) => {
            verify_audit(database_url, known_head.as_ref()).await
        }
    }
}

/// Begins a new history in a database that was set back.
async fn restore(database_url: &DatabaseUrl) -> anyhow::Result<()> {
    let options =
        database_url.reveal().parse::<PgConnectOptions>().context("the database URL cannot be read")?;
    let command = command("store_restore", "gantry-controller restore");
    let record = |begun: Position| {
        let history = ("history", begun.identity.incarnation.into());
        command.record(audit::Outcome::Success, [history, ("version", begun.version.0.into())])
    };
    let begun = Postgres::begin_history(options, record).await.context(NO_DATABASE)?;
    println!(
        "history {} begins after version {}: controllers may be started, agents reconcile with them by themselves",
        begun.identity.incarnation, begun.version
    );
    Ok(())
}

/// What is recorded of what is done with this program at the database itself.
fn command(action: &'static str, line: &'static str) -> audit::Command {
    let user = nix::unistd::User::from_uid(nix::unistd::getuid()).ok().flatten();
    audit::Command {
        id: SystemEntropy.uuid(),
        at: SystemClock.now(),
        action,
        line,
        system_user: user.map_or_else(|| nix::unistd::getuid().to_string(), |user| user.name),
        host: host_name().unwrap_or_default(),
    }
}

/// Looks for a flaw in the audit log.
async fn verify_audit(database_url: &DatabaseUrl, known: Option<&Head>) -> anyhow::Result<()> {
    let options =
        database_url.reveal().parse::<PgConnectOptions>().context("the database URL cannot be read")?;
    let mut verifier = Verifier::connect(options).await.context("cannot use the database")?;
    let Verified { events, first, head } = verifier.verify(known).await.context("the audit log is broken")?;
    println!("{events} events from number {first} on are as they were recorded; the chain ends at {head}");
    Ok(())
}

async fn serve_everything(config: Config, stop: CancellationToken) -> anyhow::Result<()> {
    kinds::serve_kubernetes_view(config.kubernetes_view);
    let port = bind(config.listen).with_context(|| format!("cannot listen on {}", config.listen))?;
    let mut embedded = match &config.embedded_postgres {
        Some(dir) => match EmbeddedPostgres::start(dir, &stop).await? {
            Some(postgres) => Some(postgres),
            None => return Ok(()),
        },
        None => None,
    };
    let options = match (&embedded, &config.database_url) {
        (Some(postgres), _) => postgres.options(),
        (None, Some(url)) => {
            url.reveal().parse::<PgConnectOptions>().context("the database URL cannot be read")?
        }
        (None, None) => anyhow::bail!("no database: give --database-url or --embedded-postgres"),
    };
    let served = tokio::select! {
        served = serve(&config, port, options, &stop) => served,
        ended = ended(embedded.as_mut()) => Err(ended),
    };
    if let Some(postgres) = embedded {
        postgres.stop().await;
    }
    served
}

async fn ended(embedded: Option<&mut EmbeddedPostgres>) -> anyhow::Error {
    match embedded {
        None => std::future::pending().await,
        Some(postgres) => match postgres.ended().await {
            Ok(status) => anyhow::anyhow!("the embedded Postgres ended by itself: {status}"),
            Err(error) => anyhow::Error::from(error).context("the embedded Postgres is lost"),
        },
    }
}

/// Takes the port before anything else is touched. Nobody can connect until it is listened on, when everything is ready.
fn bind(address: SocketAddr) -> std::io::Result<TcpSocket> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    Ok(socket)
}

async fn serve(
    config: &Config,
    port: TcpSocket,
    options: PgConnectOptions,
    stop: &CancellationToken,
) -> anyhow::Result<()> {
    let clock: SharedClock = Arc::new(SystemClock);
    let entropy: SharedEntropy = Arc::new(SystemEntropy);
    let metrics = Metrics::new()?;
    let issuers = open_issuers(config, &clock, &entropy, &metrics)?;

    let store = tokio::select! {
        opened = open_store(config, &options, &clock, &entropy, &metrics) => opened?,
        () = stop.cancelled() => return Ok(()),
    };
    let leadership = Arc::new(Leadership::start(&options, LEADER_LEASE, entropy.as_ref()));

    let watches = CancellationToken::new();
    let checks = ReadyChecks::default()
        .with("database", database_check(&store))
        .with("shutdown", shutdown_check(stop))
        .with_note("watch-cache", watch_cache_check(&store))
        .with_note("leadership", leadership_check(leadership.token()))
        .with_note("issuers", issuers_check(&issuers));
    let tokens = Arc::new(open_tokens(config, &clock, &entropy)?);
    let pki = Arc::new(open_pki(config, &clock, &entropy)?);
    let accounts = Accounts::new(tokens, store.clone(), clock.clone());
    let authenticator =
        Authenticator::new(*pki.admin_token_hash(), accounts, metrics.clone()).with_issuers(issuers.clone());
    let api = ApiServer::new(
        store.clone(),
        clock.clone(),
        entropy.clone(),
        metrics.clone(),
        checks,
        watches.clone(),
        authenticator.clone(),
    );
    let (outlets, carriers) = open_copies(config).await?;
    let api = api.with_audit(audit::Settings { trusted_proxies: config.trusted_proxies.clone(), outlets });
    let api = api.with_recording(config.record_terminals).with_archives_up_to(config.archive_limit);
    let api = api.with_origins(&config.allowed_origins);
    let router = apiserver::router(&api);
    bootstrap(&apiserver::client(&router, "startup")).await?;

    let me = Replica { id: entropy.uuid(), address: advertised(config, port.local_addr()?) };
    let replicas = Replicas::enter(&options, me).await.context("cannot enter the list of replicas")?;
    let gateway = Gateway::new(crate::gateway::Parts {
        directory: Arc::new(ApiDirectory::new(apiserver::client(&router, "gateway"))),
        authority: Arc::new(Leader { leadership: Arc::clone(&leadership), newest: leadership.newest() }),
        pki: Arc::clone(&pki),
        clock: clock.clone(),
        entropy: entropy.clone(),
        audit: api.audit().clone(),
        metrics: metrics.clone(),
        timing: Timing { certificate: config.agent_certificate_lifetime, ..Timing::default() },
        registry: replicas.clone(),
        dialer: Arc::new(TlsPeers::new(&pki)?),
    });
    api.live().connect(gateway.clone());
    let listener =
        port.listen(LISTEN_QUEUE).with_context(|| format!("cannot listen on {}", config.listen))?;
    let server = Server::on(listener, Arc::clone(&pki), authenticator, gateway.clone())?;
    let address = server.local_addr()?;
    if let Some(path) = &config.kubeconfig_out {
        pki.write_admin_kubeconfig(path, &format!("https://{}", reachable(address)))?;
    }
    let (forgetting, noting) = (clock.clone(), clock.clone());
    let (logging, logs) = (CancellationToken::new(), TaskTracker::new());
    for carrier in carriers {
        logs.spawn(carrier.run(metrics.clone(), entropy.clone(), logging.clone()));
    }
    let parts = reconcilers::Parts {
        client: apiserver::client(&router, "reconcilers"),
        link: gateway.clone(),
        leadership: leadership.token(),
        clock,
        entropy,
        metrics,
        config: reconcilers::Config { health_check_concurrency: config.health_check_concurrency.into() },
    };

    let (reconciling, serving) = (CancellationToken::new(), CancellationToken::new());
    let (reconcilers, servers) = (TaskTracker::new(), TaskTracker::new());
    reconcilers.spawn(reconcilers::run(parts, reconciling.clone()));
    servers.spawn(server.run(router, serving.clone()));
    servers.spawn(gateway.clone().follow_peers(serving.clone()));
    servers.spawn(
        Follow {
            inventories: api.live().inventories().clone(),
            store: store.clone(),
            link: gateway.clone(),
            clock: noting,
        }
        .run(serving.clone()),
    );
    servers.spawn(issuers.keep_keys(serving.clone()));
    let schedule =
        Schedule { keep: config.audit_retention, at: config.audit_trim_at, zone: TimeZone::system() };
    servers.spawn(audit::trim_daily(store.clone(), forgetting, schedule, serving.clone()));
    let (keeper, until) = (pki, serving.clone());
    servers.spawn(async move { keeper.keep_server_certificate(&until).await });
    tracing::info!(%address, version = env!("CARGO_PKG_VERSION"), "ready");

    stop.cancelled().await;
    reconciling.cancel();
    reconcilers.close();
    reconcilers.wait().await;
    watches.cancel();
    serving.cancel();
    servers.close();
    servers.wait().await;
    api.live().ended().await;
    replicas.leave().await;
    if let Some(leadership) = Arc::into_inner(leadership) {
        leadership.stop().await;
    }
    store.stop().await;
    logging.cancel();
    logs.close();
    logs.wait().await;
    Ok(())
}

/// Where audit events go besides the store, and who carries them there.
async fn open_copies(config: &Config) -> anyhow::Result<(Vec<Outlet>, Vec<Carrier>)> {
    let mut copies = Vec::new();
    if let Some(path) = &config.audit_log {
        let opened = Outlet::file(path).await;
        copies.push(opened.with_context(|| format!("cannot write to {}", path.display()))?);
    }
    if let Some(url) = &config.audit_webhook {
        let (ca, token) = (&config.audit_webhook_ca_file, &config.audit_webhook_token_file);
        let webhook = Webhook::new(url, ca.as_deref(), token.as_deref());
        copies.push(Outlet::webhook(webhook.context("audit events cannot be posted")?));
    }
    if let Some(endpoint) = config.otlp_endpoint.as_deref().filter(|_| config.audit_otlp) {
        let otlp = Outlet::otlp(endpoint, config.otlp_ca_file.as_deref());
        copies.push(otlp.context("audit events cannot be sent to the OTLP endpoint")?);
    }
    Ok(copies.into_iter().unzip())
}

/// Waits for a database that does not answer yet; ends on what waiting cannot mend, as a wrong password.
async fn open_store(
    config: &Config,
    options: &PgConnectOptions,
    clock: &SharedClock,
    entropy: &SharedEntropy,
    metrics: &Metrics,
) -> anyhow::Result<Store> {
    let open = async || {
        let sealer = keys::open(config, options, entropy).await?;
        let retention = Retention::default();
        let postgres = Postgres::connect(options.clone(), retention, entropy.as_ref(), sealer).await;
        let postgres = postgres.context(NO_DATABASE)?;
        let started = Store::start(postgres, kinds::field_paths(), clock.clone(), metrics.clone()).await;
        started.context(NO_DATABASE)
    };
    let is_passing = |error: &anyhow::Error| error.downcast_ref().is_some_and(StorageError::is_passing);
    loop {
        match open().await {
            Err(error) if is_passing(&error) => {
                tracing::warn!(error = format!("{error:#}"), "waiting for the database");
                tokio::time::sleep(DATABASE_RETRY).await;
            }
            opened => return opened,
        }
    }
}

fn database_check(store: &Store) -> Check {
    let store = store.clone();
    Arc::new(move || {
        let store = store.clone();
        Box::pin(async move { store.caught_up().await.map(drop).map_err(|error| error.to_string()) })
    })
}

/// From the first moment of the shutdown on no more requests should come here.
fn shutdown_check(stop: &CancellationToken) -> Check {
    let stop = stop.clone();
    Arc::new(move || {
        let is_stopping = stop.is_cancelled();
        Box::pin(async move { if is_stopping { Err("the server is stopping".to_owned()) } else { Ok(()) } })
    })
}

/// A cache that is far behind makes consistent reads slow, not wrong.
fn watch_cache_check(store: &Store) -> Check {
    let store = store.clone();
    Arc::new(move || {
        let store = store.clone();
        Box::pin(async move {
            let (seen, started) = (store.cache().version(), tokio::time::Instant::now());
            let newest = store.caught_up().await.map_err(|error| error.to_string())?;
            let waited = started.elapsed();
            if waited <= SLOW_CACHE {
                return Ok(());
            }
            Err(format!("took {waited:?} from version {seen} to {newest}"))
        })
    })
}

/// A replica that does not lead serves all the same.
fn leadership_check(token: watch::Receiver<Option<Token>>) -> Check {
    Arc::new(move || {
        let leads = token.borrow().is_some();
        Box::pin(async move {
            if leads { Ok(()) } else { Err("this replica does not reconcile: another one leads".to_owned()) }
        })
    })
}

/// Without an issuer's keys its tokens are refused, and everything else goes on.
fn issuers_check(issuers: &Issuers) -> Check {
    let issuers = issuers.clone();
    Arc::new(move || {
        let trouble = issuers.trouble();
        Box::pin(async move { trouble })
    })
}

fn open_pki(config: &Config, clock: &SharedClock, entropy: &SharedEntropy) -> anyhow::Result<Pki> {
    let given = match (&config.tls_cert, &config.tls_key) {
        (Some(certificate), Some(key)) => {
            Some(GivenCertificate { certificate: certificate.clone(), key: key.clone() })
        }
        _ => None,
    };
    let names = server_names(config);
    Pki::open(&config.data_dir, &names, given.as_ref(), clock.clone(), entropy.clone())
        .context("cannot set up certificates")
}

fn open_tokens(config: &Config, clock: &SharedClock, entropy: &SharedEntropy) -> anyhow::Result<Tokens> {
    let signing = config.service_account_signing_key_file.as_deref();
    let keys = TokenKeys::open(&config.data_dir, signing, &config.service_account_key_files)
        .context("cannot set up the tokens of ServiceAccounts")?;
    let settings = TokenSettings {
        issuers: config.service_account_issuers.clone(),
        audiences: config.api_audiences.clone(),
    };
    Ok(Tokens::new(&keys, &settings, clock.clone(), entropy.clone()))
}

fn open_issuers(
    config: &Config,
    clock: &SharedClock,
    entropy: &SharedEntropy,
    metrics: &Metrics,
) -> anyhow::Result<Issuers> {
    let Some(path) = &config.authentication_config else { return Ok(Issuers::default()) };
    let own = &config.service_account_issuers;
    Issuers::open(path, own, clock, entropy, metrics).context("cannot set up authentication")
}

/// Whatever clients may know this machine by.
fn server_names(config: &Config) -> Vec<String> {
    let mut names: Vec<_> = ["localhost", "127.0.0.1", "::1"].map(str::to_owned).into();
    names.extend(host_name());
    if config.listen.ip().is_unspecified() {
        names.extend(interface_addresses(config.listen.ip()).iter().map(IpAddr::to_string));
    } else {
        names.push(config.listen.ip().to_string());
    }
    names.extend(config.tls_sans.iter().cloned());
    names.sort();
    names.dedup();
    names
}

/// The addresses that listening on this unspecified one makes reachable, less those that mean nothing beyond their link.
fn interface_addresses(listen: IpAddr) -> Vec<IpAddr> {
    let Ok(interfaces) = nix::ifaddrs::getifaddrs() else { return Vec::new() };
    interfaces
        .filter_map(|interface| {
            let address = interface.address?;
            let v4 = address.as_sockaddr_in().map(|address| IpAddr::V4(address.ip()));
            v4.or_else(|| Some(IpAddr::V6(address.as_sockaddr_in6()?.ip())))
        })
        .filter(|address| match address {
            IpAddr::V4(address) => !address.is_loopback() && !address.is_link_local(),
            IpAddr::V6(address) => {
                listen.is_ipv6() && !address.is_loopback() && !address.is_unicast_link_local()
            }
        })
        .take(MOST_ADDRESSES)
        .collect()
}

/// Where other replicas reach this one.
fn advertised(config: &Config, bound: SocketAddr) -> String {
    match (&config.advertise, host_name()) {
        (Some(address), _) => address.clone(),
        (None, Some(name)) if bound.ip().is_unspecified() => format!("{name}:{}", bound.port()),
        _ => reachable(bound).to_string(),
    }
}

fn host_name() -> Option<String> {
    nix::unistd::gethostname().ok()?.into_string().ok()
}

/// Where a client on this machine reaches an address that may stand for all.
fn reachable(address: SocketAddr) -> SocketAddr {
    let ip = match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, address.port())
}

/// The gateway's view of who leads.
struct Leader {
    leadership: Arc<Leadership>,
    newest: watch::Receiver<Option<Token>>,
}

#[async_trait]
impl Authority for Leader {
    fn token(&self) -> Option<Token> {
        *self.newest.borrow()
    }

    fn rewinds(&self) -> Vec<Rewind> {
        self.leadership.rewinds()
    }

    async fn raise_above(&self, seen: Token) -> Option<Token> {
        if let Err(error) = self.leadership.raise_above(seen).await {
            tracing::error!(%error, "the database cannot be brought above what an agent has seen");
            return None;
        }
        let is_above = |token: &Option<Token>| {
            token.is_some_and(|token| (token.incarnation, token.epoch) > (seen.incarnation, seen.epoch))
        };
        let mut token = self.newest.clone();
        let raised = tokio::time::timeout(RAISE_PATIENCE, token.wait_for(is_above)).await;
        raised.ok()?.ok().and_then(|token| *token)
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;

    fn names(listen: &str) -> Vec<String> {
        let arguments = ["x", "--embedded-postgres", "/x", "--tls-san", "gantry.example", "--listen", listen];
        server_names(&Config::try_parse_from(arguments).expect("valid"))
    }

    #[test]
    fn who_listens_everywhere_is_known_by_every_address_of_the_machine() {
        // Connecting a UDP socket sends nothing; it tells which address others would see.
        let socket = std::net::UdpSocket::bind("0.0.0.0:0").expect("a port");
        let seen = socket.connect("192.0.2.1:9").and_then(|()| socket.local_addr());
        let everywhere = names("0.0.0.0:7443");

        for name in ["localhost", "127.0.0.1", "gantry.example"] {
            assert!(everywhere.iter().any(|known| known == name), "{everywhere:?}");
        }
        // A machine without a network has no such address.
        if let Ok(seen) = seen {
            assert!(everywhere.contains(&seen.ip().to_string()), "{seen} is not among {everywhere:?}");
        }
        assert!(names("192.0.2.7:7443").contains(&"192.0.2.7".to_owned()));
        assert!(!everywhere.iter().any(|name| name.starts_with("fe80:") || name == "0.0.0.0"));
    }

    #[tokio::test]
    async fn a_server_that_was_told_to_stop_is_not_ready() {
        let stop = CancellationToken::new();
        let check = shutdown_check(&stop);

        assert!(check().await.is_ok());
        stop.cancel();
        assert!(check().await.is_err());
    }

    #[tokio::test]
    async fn a_replica_says_whether_it_leads() {
        let (sender, token) = watch::channel(None);
        let check = leadership_check(token);

        assert!(check().await.is_err());
        sender.send_replace(Some(Token::default()));
        assert!(check().await.is_ok());
    }
}
