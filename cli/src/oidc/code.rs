//! Signing in with a browser of this machine: the authorization code flow with PKCE, which comes back to a port of ours (RFC 8252).

use std::collections::HashMap;
use std::convert::Infallible;
use std::net::Ipv4Addr;
use std::process::Stdio;
use std::time::Duration;

use anyhow::Context as _;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use http::header::{CACHE_CONTROL, CONTENT_TYPE};
use http::{HeaderValue, Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use sha2::{Digest as _, Sha256};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::{Issuer, Tokens, random_text};
use crate::client;
use crate::output::failure::{Ends, Hinted};
use crate::output::plain::plain;

/// A person has to find a password, and perhaps a telephone.
const PATIENCE: Duration = Duration::from_secs(600);
/// Connections at once.
const MOST: usize = 16;

/// How the person gets to the issuer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Browser {
    /// It is opened.
    Opened,
    /// The person opens it.
    Told,
}

impl Issuer {
    /// Waits for the person to sign in, ten minutes at most.
    pub(crate) async fn sign_in(&self, scope: &str, port: u16, browser: Browser) -> anyhow::Result<Tokens> {
        let endpoint = self.endpoints.authorization_endpoint.as_deref().ok_or_else(|| {
            Hinted::new(Ends::Failed, "the issuer has no page to sign in").hint("try --device")
        })?;
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await;
        let listener = listener.with_context(|| format!("cannot listen on 127.0.0.1:{port}"))?;
        let redirect = format!("http://127.0.0.1:{}/callback", listener.local_addr()?.port());
        let (state, nonce, verifier) = (random_text(), random_text(), random_text());
        let challenge = URL_SAFE_NO_PAD.encode(Sha256::digest(verifier.as_bytes()));
        let mut query = vec![
            ("response_type", "code"),
            ("client_id", &*self.client_id),
            ("redirect_uri", &*redirect),
            ("scope", scope),
            ("state", &*state),
            ("nonce", &*nonce),
            ("code_challenge", &*challenge),
            ("code_challenge_method", "S256"),
        ];
        // OpenID Connect gives a lasting session only to who was asked.
        let lasts = scope.split_whitespace().any(|scope| scope == "offline_access");
        query.extend(Some(("prompt", "consent")).filter(|_| lasts));
        let first = if endpoint.contains('?') { "&" } else { "?" };
        let url = format!("{endpoint}{first}{}", client::query(query).trim_start_matches('&'));
        eprintln!("Sign in here, in a browser of this machine:\n\n  {}\n", plain(&url));
        if browser == Browser::Opened {
            open(&url);
        }
        let answer = timeout(PATIENCE, hear(&listener, &state, &self.url)).await;
        let answer =
            answer.map_err(|_| Hinted::new(Ends::TimedOut, "nobody has signed in within ten minutes"))?;
        let code =
            answer.map_err(|why| Hinted::new(Ends::NotAllowed, format!("nobody was signed in: {why}")))?;
        let form = [
            ("grant_type", "authorization_code"),
            ("code", &*code),
            ("redirect_uri", &*redirect),
            ("code_verifier", &*verifier),
        ];
        let tokens = self.tokens(&form).await?.map_err(|refusal| {
            Hinted::new(Ends::NotAllowed, format!("the issuer gives no token: {}", refusal.said()))
        })?;
        self.check(&tokens, Some(&nonce))?;
        Ok(tokens)
    }
}

/// Whoever has a desktop has one of these. Where none works the person has the URL.
fn open(url: &str) {
    let program = if cfg!(target_os = "macos") { "open" } else { "xdg-open" };
    let mut command = std::process::Command::new(program);
    let _ = command.arg(url).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
}

/// True where there is likely a desktop that shows one.
pub(crate) fn is_likely() -> bool {
    cfg!(target_os = "macos")
        || ["DISPLAY", "WAYLAND_DISPLAY"]
            .iter()
            .any(|name| std::env::var_os(name).is_some_and(|it| !it.is_empty()))
}

/// Serves the way back until the code has come, or why there is none. Who does not know `state` is not heard.
async fn hear(listener: &TcpListener, state: &str, issuer: &str) -> Result<String, String> {
    let (sender, mut answers) = mpsc::channel::<Result<String, String>>(1);
    let mut connections = JoinSet::new();
    let answer = loop {
        tokio::select! {
            accepted = listener.accept(), if connections.len() < MOST => if let Ok((stream, _)) = accepted {
                connections.spawn(serve(stream, state.to_owned(), issuer.to_owned(), sender.clone()));
            },
            Some(_) = connections.join_next() => {}
            Some(answer) = answers.recv() => break answer,
        }
    };
    // The page is still to be read by the browser.
    let _ = timeout(Duration::from_secs(2), async { while connections.join_next().await.is_some() {} }).await;
    answer
}

async fn serve(
    stream: TcpStream,
    state: String,
    issuer: String,
    answers: mpsc::Sender<Result<String, String>>,
) {
    let service = service_fn(|request: Request<Incoming>| {
        let answer = read(&request, &state, &issuer);
        let answers = answers.clone();
        async move {
            let page = match &answer {
                Some(Ok(_)) => page(StatusCode::OK, "You are signed in. This page can be closed."),
                Some(Err(_)) => page(StatusCode::OK, "You are not signed in. The terminal says why."),
                None => page(StatusCode::NOT_FOUND, "There is nothing here."),
            };
            if let Some(answer) = answer {
                // The first that came counts.
                let _ = answers.try_send(answer);
            }
            Ok::<_, Infallible>(page)
        }
    });
    // A browser that leaves early has its answer or wants none.
    let _ = http1::Builder::new().keep_alive(false).serve_connection(TokioIo::new(stream), service).await;
}

/// The code, or why there is none; `None` for what has nothing to do with us.
fn read<B>(request: &Request<B>, state: &str, issuer: &str) -> Option<Result<String, String>> {
    if request.method() != http::Method::GET || request.uri().path() != "/callback" {
        return None;
    }
    let query = request.uri().query()?;
    let decoded = |text: &str| {
        let text = text.replace('+', " ");
        percent_encoding::percent_decode_str(&text).decode_utf8().ok().map(std::borrow::Cow::into_owned)
    };
    let found: HashMap<String, String> = query
        .split('&')
        .filter_map(|pair| {
            let (name, value) = pair.split_once('=')?;
            Some((decoded(name)?, decoded(value)?))
        })
        .collect();
    let text = |name: &str| found.get(name).map(String::as_str);
    if text("state") != Some(state) {
        return None;
    }
    if text("iss").is_some_and(|iss| iss != issuer) {
        return Some(Err("the answer is another issuer's".to_owned()));
    }
    if let Some(error) = text("error_description").or_else(|| text("error")) {
        return Some(Err(plain(error)));
    }
    text("code").map(|code| Ok(code.to_owned()))
}

fn page(status: StatusCode, words: &str) -> Response<Full<Bytes>> {
    let text = format!("<!doctype html><meta charset=utf-8><title>gantry</title><p>{words}\n");
    let mut response = Response::new(Full::new(text.into()));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/html; charset=utf-8"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert("content-security-policy", HeaderValue::from_static("default-src 'none'"));
    headers.insert("referrer-policy", HeaderValue::from_static("no-referrer"));
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_who_knows_the_state_is_heard() {
        let heard =
            |uri: &str| read(&Request::get(uri).body(()).expect("a request"), "s", "https://login.example");

        assert_eq!(heard("/callback?code=a%2Fb&state=s"), Some(Ok("a/b".to_owned())));
        assert_eq!(
            heard("/callback?state=s&code=c&iss=https%3A%2F%2Flogin.example"),
            Some(Ok("c".to_owned()))
        );
        assert_eq!(
            heard("/callback?state=s&error=access_denied&error_description=not+today"),
            Some(Err("not today".to_owned()))
        );
        assert!(
            heard("/callback?state=s&code=c&iss=https%3A%2F%2Fevil.example").is_some_and(|it| it.is_err())
        );
        for nobody in [
            "/callback?code=c",
            "/callback?code=c&state=t",
            "/other?code=c&state=s",
            "/callback",
            "/callback?state=s",
        ] {
            assert_eq!(heard(nobody), None, "{nobody}");
        }
    }

    #[tokio::test]
    async fn the_browser_is_told_that_it_may_be_closed() {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let url = format!("http://{}", listener.local_addr().expect("bound"));
        let heard = tokio::spawn(async move { hear(&listener, "s", "i").await });

        let web = crate::web::Web::default();
        assert!(web.get(&format!("{url}/callback?code=c&state=guessed")).await.is_err());
        let said = web.get(&format!("{url}/callback?code=c&state=s")).await.expect("a page");

        assert!(String::from_utf8_lossy(&said).contains("You are signed in"));
        assert_eq!(heard.await.expect("it ended"), Ok("c".to_owned()));
    }
}
