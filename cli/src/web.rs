//! Other servers than the controller: where manifests lie, and who signs people in.

use std::path::Path;
use std::time::Duration;

use anyhow::Context as _;
use bytes::Bytes;
use http::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, LOCATION};
use http::{HeaderValue, Request, Response, StatusCode, Uri};
use http_body_util::{BodyExt as _, Limited};
use kube::client::Body;

use crate::client;
use crate::output::failure::{Ends, Hinted};
use crate::output::plain::plain;

/// No answer within this is an error.
const PATIENCE: Duration = Duration::from_secs(30);
/// Much more than a manifest or a token needs.
const LARGEST: usize = 16 << 20;
const MOST_REDIRECTS: usize = 5;

/// Whom a server must be signed by.
#[derive(Clone, Debug, Default)]
pub(crate) struct Web {
    /// In DER; whom this machine trusts where absent.
    authorities: Option<Vec<Vec<u8>>>,
}

impl Web {
    /// Servers signed by one of those in a file of PEM, and by nobody else.
    pub(crate) fn trusting(file: &Path) -> anyhow::Result<Self> {
        let text = std::fs::read(file).with_context(|| format!("cannot read {}", file.display()))?;
        let authorities = certificates(&text)
            .with_context(|| format!("{} holds no certificates that can be read", file.display()))?;
        Ok(Self { authorities: Some(authorities) })
    }

    /// What is at a URL. Redirects are followed, and never to where others can read along.
    pub(crate) async fn get(&self, url: &str) -> anyhow::Result<Bytes> {
        let mut at = parse(url)?;
        for _ in 0..MOST_REDIRECTS {
            let request = Request::get(path(&at)).header(ACCEPT, "*/*").body(Vec::new())?;
            let response = self.send(&at, request).await?;
            let status = response.status();
            if status.is_redirection() {
                at = next(&at, response.headers().get(LOCATION))?;
                continue;
            }
            let body = whole(response).await.with_context(|| format!("{url} cannot be read to its end"))?;
            if !status.is_success() {
                let ends = if status == StatusCode::NOT_FOUND { Ends::NotFound } else { Ends::Failed };
                return Err(Hinted::new(ends, format!("{} answers {status}", plain(url))).into());
            }
            return Ok(body);
        }
        Err(Hinted::new(Ends::Failed, format!("{} leads round and round", plain(url))).into())
    }

    /// Posts a form, as somebody where there is an `Authorization`; whatever is answered, with its status.
    pub(crate) async fn post(
        &self,
        url: &str,
        form: &[(&str, &str)],
        authorization: Option<HeaderValue>,
    ) -> anyhow::Result<(StatusCode, Bytes)> {
        let at = parse(url)?;
        let body = client::query(form.iter().copied()).trim_start_matches('&').to_owned();
        let mut request = Request::post(path(&at))
            .header(CONTENT_TYPE, "application/x-www-form-urlencoded")
            .header(ACCEPT, "application/json")
            .body(body.into_bytes())?;
        request.headers_mut().extend(authorization.map(|value| (AUTHORIZATION, value)));
        let response = self.send(&at, request).await?;
        let status = response.status();
        let body = whole(response).await.with_context(|| format!("{url} cannot be read to its end"))?;
        Ok((status, body))
    }

    async fn send(&self, at: &Uri, request: Request<Vec<u8>>) -> anyhow::Result<Response<Body>> {
        let root = format!(
            "{}://{}/",
            at.scheme_str().unwrap_or("https"),
            at.authority().map_or("", |authority| authority.as_str())
        );
        let mut config = kube::Config::new(root.parse()?);
        config.root_cert.clone_from(&self.authorities);
        config.connect_timeout = Some(Duration::from_secs(10));
        config.read_timeout = Some(PATIENCE);
        config.write_timeout = Some(PATIENCE);
        let client = kube::Client::try_from(config).context("TLS cannot be set up")?;
        client.send(request.map(Body::from)).await.map_err(|cause| {
            Hinted::new(Ends::Unreachable, format!("{root} does not answer")).cause(cause).into()
        })
    }
}

/// The certificates of a text of PEM, in DER; `None` where there is none, or one cannot be read.
pub(crate) fn certificates(pem: &[u8]) -> Option<Vec<Vec<u8>>> {
    let found = x509_parser::pem::Pem::iter_from_buffer(pem)
        .map(|pem| pem.ok().filter(|pem| pem.label == "CERTIFICATE").map(|pem| pem.contents))
        .collect::<Option<Vec<_>>>()?;
    Some(found).filter(|found| !found.is_empty())
}

/// Only where nobody between can read or change it: https, or this machine itself.
fn parse(url: &str) -> anyhow::Result<Uri> {
    let at: Option<Uri> = url.parse().ok().filter(|at: &Uri| at.host().is_some());
    let at = at.ok_or_else(|| Hinted::new(Ends::Misunderstood, format!("`{}` is no URL", plain(url))))?;
    let is_here = matches!(at.host(), Some("127.0.0.1" | "[::1]" | "localhost"));
    match at.scheme_str() {
        Some("https") => Ok(at),
        Some("http") if is_here => Ok(at),
        _ => Err(Hinted::new(Ends::Misunderstood, format!("{} is not https", plain(url)))
            .hint("what comes over plain http could be anybody's; download it and look at it first")
            .into()),
    }
}

fn path(at: &Uri) -> String {
    at.path_and_query().map_or_else(|| "/".to_owned(), ToString::to_string)
}

fn next(from: &Uri, location: Option<&http::HeaderValue>) -> anyhow::Result<Uri> {
    let location = location.and_then(|location| location.to_str().ok()).unwrap_or_default();
    let root = format!(
        "{}://{}",
        from.scheme_str().unwrap_or("https"),
        from.authority().map_or("", |authority| authority.as_str())
    );
    let next =
        parse(&if location.starts_with('/') { format!("{root}{location}") } else { location.to_owned() })?;
    if from.scheme_str() == Some("https") && next.scheme_str() != Some("https") {
        return Err(Hinted::new(Ends::Failed, format!("{root} leads away from https")).into());
    }
    Ok(next)
}

async fn whole(response: Response<Body>) -> anyhow::Result<Bytes> {
    let body = Limited::new(response.into_body(), LARGEST).collect().await;
    Ok(body.map_err(anyhow::Error::from_boxed)?.to_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_between_can_read_along() {
        for good in
            ["https://example.com/a.yaml", "http://127.0.0.1:8000/a", "http://localhost/", "http://[::1]:1/"]
        {
            assert!(parse(good).is_ok(), "{good}");
        }
        for bad in
            ["http://example.com/a", "ftp://example.com", "/a", "https://", "http://127.0.0.1.example.com/"]
        {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_redirect_stays_on_https() {
        let to = |from: &'static str, location: &'static str| {
            let location = http::HeaderValue::from_static(location);
            next(&Uri::from_static(from), Some(&location)).map(|uri| uri.to_string()).ok()
        };

        assert_eq!(to("https://a/b", "/c?d").as_deref(), Some("https://a/c?d"));
        assert_eq!(to("https://a/b", "https://e/f").as_deref(), Some("https://e/f"));
        assert_eq!(to("https://a/b", "http://127.0.0.1/"), None);
        assert_eq!(to("https://a/b", "relative"), None);
    }
}
