//! Where a controller is.

use std::fmt;
use std::str::FromStr;

use rustls_pki_types::ServerName;

const HTTPS: u16 = 443;

/// `https://HOST[:PORT]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ControllerUrl {
    host: String,
    port: u16,
    name: ServerName<'static>,
}

/// Why that is no controller's URL.
#[derive(Debug, thiserror::Error)]
pub enum InvalidUrl {
    /// Not a URL at all.
    #[error("it is not a URL")]
    NotAUrl,
    /// Only TLS is spoken.
    #[error("it does not begin with https://")]
    NotHttps,
    /// The host cannot be on a certificate.
    #[error("its host is neither a DNS name nor an address")]
    Host,
    /// More than host and port.
    #[error("it has a path or a user")]
    MoreThanHost,
}

impl ControllerUrl {
    /// Host name or address, an IPv6 one without brackets.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// TCP port.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// What its certificate must be for.
    pub fn server_name(&self) -> ServerName<'static> {
        self.name.clone()
    }

    /// As it stands in a `Host` header.
    pub fn authority(&self) -> String {
        if self.host.contains(':') {
            format!("[{}]:{}", self.host, self.port)
        } else {
            format!("{}:{}", self.host, self.port)
        }
    }
}

impl FromStr for ControllerUrl {
    type Err = InvalidUrl;

    fn from_str(text: &str) -> Result<Self, InvalidUrl> {
        let uri: http::Uri = text.parse().map_err(|_| InvalidUrl::NotAUrl)?;
        if uri.scheme_str() != Some("https") {
            return Err(InvalidUrl::NotHttps);
        }
        let authority = uri.authority().ok_or(InvalidUrl::NotAUrl)?;
        if authority.as_str().contains('@') || !matches!(uri.path(), "" | "/") || uri.query().is_some() {
            return Err(InvalidUrl::MoreThanHost);
        }
        let host = authority.host().trim_start_matches('[').trim_end_matches(']').to_owned();
        let name = ServerName::try_from(host.clone()).map_err(|_| InvalidUrl::Host)?;
        Ok(Self { host, port: authority.port_u16().unwrap_or(HTTPS), name })
    }
}

impl fmt::Display for ControllerUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "https://{}", self.authority())
    }
}
