//! The one way to the controller: its API, through a kubeconfig.

use std::collections::HashSet;
use std::fmt::Write as _;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::Context as _;
use http::header::WARNING;
use http::{Request, Response};
use http_body_util::{BodyExt as _, Collected};
use hyper::body::Incoming;
use hyper_util::rt::TokioExecutor;
use kube::client::{Body, ConfigExt as _};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::core::Status;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde::de::DeserializeOwned;
use sha2::{Digest as _, Sha256};
use tower::util::BoxCloneSyncService;
use tower::{BoxError, ServiceBuilder, ServiceExt as _};

use crate::args::Reach;
use crate::context;
use crate::oidc;
use crate::output::failure::{Ends, Hinted, hinted};
use crate::output::plain::plain;

/// No answer within this is an error.
const PATIENCE: Duration = Duration::from_secs(30);

/// See [`Controller::raw`].
pub(crate) type Raw<B> = BoxCloneSyncService<Request<B>, Response<Incoming>, BoxError>;

/// A controller that can be asked.
#[derive(Clone)]
pub(crate) struct Controller {
    /// Where it is, without a slash at the end.
    pub(crate) url: String,
    /// Where agents reach it if nothing else is said: as above, by the name that its certificate is for.
    pub(crate) agents_url: String,
    /// `sha256:` and the hash of the certificate its agents pin; `None` where the kubeconfig names no authority.
    pub(crate) ca_hash: Option<String>,
    /// The namespace that is meant.
    pub(crate) namespace: String,
    /// Its API.
    pub(crate) client: kube::Client,
    config: kube::Config,
    warned: Arc<Mutex<HashSet<String>>>,
}

impl Controller {
    /// The one that is meant. Nothing is sent yet.
    pub(crate) async fn reach(reach: &Reach) -> anyhow::Result<Self> {
        let kubeconfig = context::kubeconfig(reach.kubeconfig.as_deref())?;
        if let Some(name) = &reach.context {
            context::check(&kubeconfig, name)?;
        }
        let mut controller = Self::with(kubeconfig, reach.context.clone()).await?;
        if let Some(namespace) = &reach.namespace {
            controller.namespace.clone_from(namespace);
        }
        Ok(controller)
    }

    /// The one of the current context. Nothing is sent yet.
    pub(crate) async fn of(kubeconfig: Kubeconfig) -> anyhow::Result<Self> {
        Self::with(kubeconfig, None).await
    }

    async fn with(kubeconfig: Kubeconfig, context: Option<String>) -> anyhow::Result<Self> {
        let options = KubeConfigOptions { context, ..KubeConfigOptions::default() };
        let mut config = kube::Config::from_custom_kubeconfig(kubeconfig, &options)
            .await
            .context("the kubeconfig cannot be used")?;
        config.connect_timeout = Some(Duration::from_secs(5));
        config.read_timeout = Some(PATIENCE);
        config.write_timeout = Some(PATIENCE);
        // What was refused for now is for the person to repeat: whether it was done already is not known here.
        config.default_retry = false;
        let url = config.cluster_url.to_string().trim_end_matches('/').to_owned();
        let agents_url = agents_url(&url, config.tls_server_name.as_deref());
        let ca_hash =
            config.root_cert.as_ref().and_then(|certificates| certificates.last()).map(|der| ca_hash(der));
        let client = client(&signed_in(&config).await?)?;
        let namespace = config.default_namespace.clone();
        Ok(Self { url, agents_url, ca_hash, namespace, client, config, warned: Arc::default() })
    }

    /// The same controller for what is open for long and says nothing for a while: watches, logs, terminals.
    pub(crate) fn patient(&self) -> anyhow::Result<Self> {
        let mut config = self.config.clone();
        config.read_timeout = None;
        config.write_timeout = None;
        Ok(Self { client: client(&config)?, config, ..self.clone() })
    }

    /// The way to it for bodies of any kind. No connection is used twice: an answer may end it.
    pub(crate) fn raw<B>(&self) -> anyhow::Result<Raw<B>>
    where
        B: hyper::body::Body + Send + Unpin + 'static,
        B::Data: Send,
        B::Error: Into<BoxError>,
    {
        let what = "the kubeconfig cannot be used";
        let connector = self.config.rustls_https_connector().context(what)?;
        let client = hyper_util::client::legacy::Client::builder(TokioExecutor::new())
            .pool_max_idle_per_host(0)
            .build::<_, B>(connector);
        let service = ServiceBuilder::new()
            .layer(self.config.base_uri_layer())
            .option_layer(self.config.auth_layer().context(what)?)
            .layer(self.config.extra_headers_layer().context(what)?)
            .map_err(BoxError::from)
            .service(client);
        Ok(BoxCloneSyncService::new(service.map_err(BoxError::from)))
    }

    /// Sends a request. What is refused, or not answered, is an error in words for a person; warnings are passed on.
    pub(crate) async fn open(&self, request: Request<Vec<u8>>, what: &str) -> anyhow::Result<Response<Body>> {
        let response = self.client.send(request.map(Body::from)).await;
        let response = response.map_err(|error| self.explain(error, what))?;
        self.pass_on(&response);
        self.check(response, what).await
    }

    /// What is refused becomes an error in words for a person.
    pub(crate) async fn check<B: hyper::body::Body>(
        &self,
        response: Response<B>,
        what: &str,
    ) -> anyhow::Result<Response<B>> {
        if response.status().is_success() {
            return Ok(response);
        }
        let code = response.status().as_u16();
        let body = response.into_body().collect().await.map(Collected::to_bytes).unwrap_or_default();
        let mut status = serde_json::from_slice::<Status>(&body).unwrap_or_default();
        if status.message.is_empty() {
            status.message = format!("the controller answers {code}");
        }
        status.code = code;
        Err(self.explain(kube::Error::Api(status.boxed()), what))
    }

    /// The whole of an answer that was opened, read as JSON.
    pub(crate) async fn body<T: DeserializeOwned>(
        &self,
        response: Response<Body>,
        what: &str,
    ) -> anyhow::Result<T> {
        let body = response.into_body().collect().await.map_err(|error| self.explain(error, what))?;
        serde_json::from_slice(&body.to_bytes()).with_context(|| format!("{what}: the answer cannot be read"))
    }

    /// As [`Controller::open`], with the whole answer, read as JSON.
    pub(crate) async fn read<T: DeserializeOwned>(
        &self,
        request: Request<Vec<u8>>,
        what: &str,
    ) -> anyhow::Result<T> {
        let response = self.open(request, what).await?;
        self.body(response, what).await
    }

    /// Shows each `Warning` once.
    fn pass_on(&self, response: &Response<Body>) {
        for warning in response.headers().get_all(WARNING) {
            let text = String::from_utf8_lossy(warning.as_bytes());
            let text = text.split_once('"').map_or(&*text, |(_, quoted)| quoted.trim_end_matches('"'));
            let text = text.replace("\\\"", "\"").replace("\\\\", "\\");
            if self.warned.lock().unwrap_or_else(PoisonError::into_inner).insert(text.clone()) {
                eprintln!("warning: {}", plain(&text));
            }
        }
    }

    /// What agents must be told to know this controller by.
    pub(crate) fn pinned(&self) -> anyhow::Result<&str> {
        self.ca_hash.as_deref().ok_or_else(|| {
            hinted(
                "the kubeconfig names no certificate authority, so there is no hash for agents to pin",
                "use the kubeconfig that the controller wrote with --kubeconfig-out",
            )
        })
    }

    /// An error of this controller's API in words for a person, with the exit code that it has.
    pub(crate) fn explain(&self, error: kube::Error, what: &str) -> anyhow::Error {
        let kube::Error::Api(status) = error else {
            return Hinted::new(
                Ends::Unreachable,
                format!("{what}: the controller at {} does not answer", self.url),
            )
            .hint("start one here with `gantry dev`, or look at its log")
            .cause(error)
            .into();
        };
        let ends = match status.code {
            401 | 403 => Ends::NotAllowed,
            404 => Ends::NotFound,
            502..=504 => Ends::Unreachable,
            _ => Ends::Failed,
        };
        let refused = Hinted::new(ends, format!("{what}: {}", plain(&status.message))).answered(status.code);
        match hint_for(&status) {
            Some(hint) => refused.hint(hint),
            None => refused,
        }
        .into()
    }

    /// True once it serves and all its parts say they are ready.
    pub(crate) async fn is_ready(&self) -> bool {
        let Ok(request) = http::Request::get("/readyz").body(Vec::new()) else { return false };
        self.client.request_text(request).await.is_ok()
    }
}

/// What to do about a refusal, where there is more to say than it says itself.
fn hint_for(status: &Status) -> Option<&'static str> {
    let mut causes = status.details.iter().flat_map(|details| &details.causes);
    match status.code {
        401 => Some(
            "use a context with valid credentials, `gantry context ls`, or sign in again, `gantry login`",
        ),
        403 => Some(
            "`gantry auth can-i --list` says what you may do; the administrator of this controller can give more",
        ),
        404 if status.message.starts_with("namespaces ") => {
            Some("is the namespace there? `gantry get namespaces`")
        }
        409 if causes.any(|cause| cause.reason == "FieldManagerConflict") => {
            Some("take these fields over with --force-conflicts, or leave them out")
        }
        _ => None,
    }
}

/// The same with a token instead of the program that would give one, if that is ourselves: nothing is started for a short command.
/// A long one has the program run, whenever the token is about to end.
async fn signed_in(config: &kube::Config) -> anyhow::Result<kube::Config> {
    let mut config = config.clone();
    if let Some(options) = config.auth_info.exec.as_ref().and_then(oidc::of_exec) {
        let (token, _) = oidc::Session::of(&options)?.token().await?;
        config.auth_info.exec = None;
        config.auth_info.token = Some(token.into());
    }
    Ok(config)
}

fn client(config: &kube::Config) -> anyhow::Result<kube::Client> {
    kube::Client::try_from(config.clone()).context("the kubeconfig cannot be used")
}

/// An agent takes a controller's name from its URL and nowhere else.
fn agents_url(url: &str, certified: Option<&str>) -> String {
    let port = url.parse::<http::Uri>().ok().and_then(|uri| uri.port_u16());
    match (certified, port) {
        (Some(name), Some(port)) => format!("https://{name}:{port}"),
        (Some(name), None) => format!("https://{name}"),
        (None, _) => url.to_owned(),
    }
}

/// `sha256:` and the hex of the hash of a certificate in DER.
pub(crate) fn ca_hash(der: &[u8]) -> String {
    format!("sha256:{}", hex(&Sha256::digest(der)))
}

/// Fit for one part of a path, or one value of a query.
pub(crate) fn encoded(text: &str) -> String {
    utf8_percent_encode(text, NON_ALPHANUMERIC).to_string()
}

/// What follows other parameters of a query: `&name=value&…`.
pub(crate) fn query<'a>(pairs: impl IntoIterator<Item = (&'a str, &'a str)>) -> String {
    pairs.into_iter().fold(String::new(), |mut text, (name, value)| {
        // Writing to a String cannot fail.
        let _ = write!(text, "&{name}={}", encoded(value));
        text
    })
}

/// Lower-case hex.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        // Writing to a String cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn agents_are_sent_to_the_name_that_the_certificate_is_for() {
        assert_eq!(agents_url("https://127.0.0.1:7443", None), "https://127.0.0.1:7443");
        assert_eq!(
            agents_url("https://127.0.0.1:7443", Some("gantry.example")),
            "https://gantry.example:7443"
        );
    }

    #[test]
    fn the_pinned_hash_is_that_of_the_der() {
        assert_eq!(
            ca_hash(b"abc"),
            "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
        );
    }
}
