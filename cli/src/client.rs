//! The one way to the controller: its API, through a kubeconfig.

use std::fmt::Write as _;
use std::time::Duration;

use anyhow::Context as _;
use kube::config::{KubeConfigOptions, Kubeconfig};
use sha2::{Digest as _, Sha256};

use crate::output::failure::{hinted, hinted_by};
use crate::output::plain::plain;

/// No answer within this is an error.
const PATIENCE: Duration = Duration::from_secs(30);

/// A controller that can be asked.
#[derive(Clone)]
pub(crate) struct Controller {
    /// Where it is, without a slash at the end.
    pub(crate) url: String,
    /// Where agents reach it if nothing else is said: as above, by the name that its certificate is for.
    pub(crate) agents_url: String,
    /// `sha256:` and the hash of the certificate its agents pin; `None` where the kubeconfig names no authority.
    pub(crate) ca_hash: Option<String>,
    /// Its API.
    pub(crate) client: kube::Client,
}

impl Controller {
    /// Nothing is sent yet.
    pub(crate) async fn of(kubeconfig: Kubeconfig) -> anyhow::Result<Self> {
        let mut config = kube::Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default())
            .await
            .context("the kubeconfig cannot be used")?;
        config.connect_timeout = Some(Duration::from_secs(5));
        config.read_timeout = Some(PATIENCE);
        config.write_timeout = Some(PATIENCE);
        let url = config.cluster_url.to_string().trim_end_matches('/').to_owned();
        let agents_url = agents_url(&url, config.tls_server_name.as_deref());
        let ca_hash =
            config.root_cert.as_ref().and_then(|certificates| certificates.last()).map(|der| ca_hash(der));
        let client = kube::Client::try_from(config).context("the kubeconfig cannot be used")?;
        Ok(Self { url, agents_url, ca_hash, client })
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

    /// An error of this controller's API in words for a person.
    pub(crate) fn explain(&self, error: kube::Error, what: &str) -> anyhow::Error {
        match error {
            kube::Error::Api(status) if status.code == 404 => hinted(
                format!("{what}: {}", plain(&status.message)),
                "is the namespace there? `kubectl get namespaces`",
            ),
            kube::Error::Api(status) if status.code == 401 || status.code == 403 => {
                hinted(format!("{what}: {}", plain(&status.message)), "use a kubeconfig of an administrator")
            }
            kube::Error::Api(status) => anyhow::anyhow!("{what}: {}", plain(&status.message)),
            other => hinted_by(
                other,
                format!("{what}: the controller at {} does not answer", self.url),
                "start one here with `gantry dev`, or look at its log",
            ),
        }
    }

    /// True once it serves and all its parts say they are ready.
    pub(crate) async fn is_ready(&self) -> bool {
        let Ok(request) = http::Request::get("/readyz").body(Vec::new()) else { return false };
        self.client.request_text(request).await.is_ok()
    }
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
fn ca_hash(der: &[u8]) -> String {
    format!("sha256:{}", hex(&Sha256::digest(der)))
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
