//! By what a controller is known from now on: by whom the machine trusts, or by an authority that the person vouches for.
//!
//! Nothing but a handshake goes to a controller before that is settled.

use std::io::{BufRead as _, IsTerminal as _, Write as _};
use std::net::{TcpStream, ToSocketAddrs as _};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::Context as _;
use http::{Request, Uri};
use kube::client::Body;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, ClientConnection, DigitallySignedStruct, Error, SignatureScheme};
use x509_parser::prelude::{FromDer as _, X509Certificate};

use crate::args::LoginArgs;
use crate::client::ca_hash;
use crate::output::failure::{Ends, Hinted};
use crate::output::plain::plain;
use crate::web::certificates;

const PATIENCE: Duration = Duration::from_secs(10);

/// Whom the controller must be signed by; `None` for whom this machine trusts.
pub(super) async fn authorities(options: &LoginArgs) -> anyhow::Result<Option<Vec<Vec<u8>>>> {
    if let Some(file) = &options.certificate_authority {
        let text = std::fs::read(file).with_context(|| format!("cannot read {}", file.display()))?;
        let found = certificates(&text)
            .with_context(|| format!("{} holds no certificates that can be read", file.display()))?;
        return Ok(Some(found));
    }
    let url: Uri = options.url.parse().context("the controller's URL cannot be read")?;
    // Who says which authority is meant is not content with another one.
    let refused = if options.ca_hash.is_some() { None } else { Some(answers(&url, None).await) };
    let refused = match refused {
        Some(Ok(())) => return Ok(None),
        Some(Err(error)) => Some(error),
        None => None,
    };
    let shown = {
        let url = url.clone();
        tokio::task::spawn_blocking(move || shown(&url)).await.context("it has ended early")?
    };
    let shown = shown.map_err(|error| unreachable_because(&options.url, refused.unwrap_or(error)))?;
    let authority = shown.into_iter().rev().find(|der| is_authority(der)).ok_or_else(|| {
        Hinted::new(Ends::NotAllowed, format!("{} is vouched for by nobody this machine knows", options.url))
            .hint("say whom it must be signed by, with --certificate-authority")
    })?;
    confirm(options, &ca_hash(&authority))?;
    let authorities = vec![authority];
    answers(&url, Some(&authorities)).await.map_err(|cause| {
        Hinted::new(
            Ends::NotAllowed,
            "its certificate is not of the authority that it shows, or for another name",
        )
        .cause(cause)
    })?;
    Ok(Some(authorities))
}

fn unreachable_because(url: &str, cause: anyhow::Error) -> anyhow::Error {
    Hinted::new(Ends::Unreachable, format!("the controller at {} does not answer", plain(url)))
        .cause(cause)
        .into()
}

/// Settles whether that authority is the controller's: by its hash, by the person, or by the flag that trusts whoever answers.
fn confirm(options: &LoginArgs, hash: &str) -> anyhow::Result<()> {
    let refused = |what: String| Hinted::new(Ends::NotAllowed, what);
    if let Some(wanted) = &options.ca_hash {
        let is_same = wanted.trim().eq_ignore_ascii_case(hash);
        let what = format!("the controller's authority has another fingerprint: {hash}");
        return if is_same { Ok(()) } else { Err(refused(what).into()) };
    }
    eprintln!("{} is signed by an authority that this machine does not know:\n\n  {hash}\n", options.url);
    if options.trust_on_first_use {
        eprintln!("It is trusted from now on, as --trust-on-first-use says.");
        return Ok(());
    }
    if !std::io::stdin().is_terminal() || options.token.as_deref() == Some("-") {
        return Err(refused("whether that is the controller is not known".to_owned())
            .hint("ask whoever runs it, and say --ca-hash, or --certificate-authority with its certificate")
            .into());
    }
    eprint!("Is that what whoever runs it has told you? [yes/no] ");
    // The answer can be typed without the question too.
    let _ = std::io::stderr().flush();
    let mut answer = String::new();
    std::io::stdin().lock().read_line(&mut answer).context("the answer cannot be read")?;
    if answer.trim().eq_ignore_ascii_case("yes") {
        return Ok(());
    }
    Err(refused("it is not trusted, and nothing was written".to_owned()).into())
}

/// Asks for what nobody needs a right to; whatever is answered, it comes from whom the authorities vouch for.
async fn answers(url: &Uri, authorities: Option<&[Vec<u8>]>) -> anyhow::Result<()> {
    let mut config = kube::Config::new(url.clone());
    config.root_cert = authorities.map(<[_]>::to_vec);
    config.connect_timeout = Some(PATIENCE);
    config.read_timeout = Some(PATIENCE);
    let client = kube::Client::try_from(config).context("TLS cannot be set up")?;
    client.send(Request::get("/version").body(Body::empty())?).await?;
    Ok(())
}

/// The certificates that whoever is there shows. Nothing is said to him.
fn shown(url: &Uri) -> anyhow::Result<Vec<Vec<u8>>> {
    let host = url.host().context("the URL has no host")?.trim_matches(['[', ']']);
    let port = url.port_u16().unwrap_or(443);
    let looker = Arc::new(Looker::default());
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .dangerous()
        .with_custom_certificate_verifier(Arc::clone(&looker) as Arc<dyn ServerCertVerifier>)
        .with_no_client_auth();
    let name = ServerName::try_from(host.to_owned()).context("the URL's host is no name")?;
    let mut connection = ClientConnection::new(Arc::new(config), name)?;
    let address = (host, port).to_socket_addrs()?.next().context("the host has no address")?;
    let mut stream = TcpStream::connect_timeout(&address, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    let ended = connection.complete_io(&mut stream);
    let seen = std::mem::take(&mut *looker.0.lock().unwrap_or_else(PoisonError::into_inner));
    if seen.is_empty() {
        ended.context("no certificate is shown there")?;
        anyhow::bail!("no certificate is shown there");
    }
    Ok(seen)
}

fn is_authority(der: &[u8]) -> bool {
    X509Certificate::from_der(der).is_ok_and(|(_, certificate)| certificate.is_ca())
}

/// Notes what is shown, and goes no further.
#[derive(Debug, Default)]
struct Looker(Mutex<Vec<Vec<u8>>>);

impl ServerCertVerifier for Looker {
    fn verify_server_cert(
        &self,
        own: &CertificateDer<'_>,
        others: &[CertificateDer<'_>],
        _name: &ServerName<'_>,
        _ocsp: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let all = std::iter::once(own).chain(others).map(|der| der.to_vec());
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = all.collect();
        Err(Error::General("it was only looked at".to_owned()))
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _certificate: &CertificateDer<'_>,
        _signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(Error::General("it was only looked at".to_owned()))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.verify_tls12_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        rustls::crypto::ring::default_provider().signature_verification_algorithms.supported_schemes()
    }
}
