//! Copies of events: how they are carried, and to whom. What is sent under TLS is in `tests/tls.rs`.

mod tls;

use std::collections::VecDeque;
use std::io::ErrorKind;
use std::net::{Ipv4Addr, SocketAddr};

use axum::Router;
use axum::extract::State;
use http::{HeaderMap, StatusCode};
use parking_lot::Mutex;
use tokio::net::TcpListener;
use tokio_util::task::AbortOnDropHandle;
use uuid::Uuid;

use super::*;
use crate::clock::SystemEntropy;
use crate::outbound::AuthoritiesError;

fn record(name: &str) -> Arc<Record> {
    let text = |text: &str| text.to_owned();
    Arc::new(Record {
        id: Uuid::nil(),
        user: text("ada"),
        action: text("secret_get"),
        resource: text("secrets"),
        namespace: text("shop"),
        name: text(name),
        instance: String::new(),
        outcome: text("denied"),
        content: text(
            r#"{"requestTime":"2026-11-28T02:00:00Z","traceId":"4bf92f3577b34da6a3ce929d0e0e4736","code":403}"#,
        ),
    })
}

/// What becomes of the next batch; all after the last are taken.
#[derive(Clone, Copy)]
enum Fate {
    Later,
    Never,
    Hangs,
}

/// A place whose answers are given, and the names of what it was handed.
#[derive(Clone, Default)]
struct Place(Arc<Mutex<Told>>);

#[derive(Default)]
struct Told {
    fates: VecDeque<Fate>,
    seen: Vec<String>,
}

impl Place {
    fn with<const N: usize>(fates: [Fate; N]) -> Self {
        Self(Arc::new(Mutex::new(Told { fates: fates.into(), seen: Vec::new() })))
    }

    fn seen(&self) -> Vec<String> {
        self.0.lock().seen.clone()
    }
}

#[async_trait]
impl Exporter for Place {
    async fn export(&mut self, events: &[Arc<Record>]) -> Result<(), ExportError> {
        let fate = {
            let mut told = self.0.lock();
            told.seen.extend(events.iter().map(|event| event.name.clone()));
            told.fates.pop_front()
        };
        match fate {
            None => Ok(()),
            Some(Fate::Hangs) => std::future::pending().await,
            Some(fate) => Err(ExportError { why: "no".to_owned(), is_passing: matches!(fate, Fate::Later) }),
        }
    }
}

/// An outlet to it, under way.
struct Running {
    outlet: Outlet,
    metrics: Metrics,
    stop: CancellationToken,
    carrier: tokio::task::JoinHandle<()>,
}

impl Running {
    fn to(exporter: impl Exporter + 'static) -> Self {
        let (outlet, carrier) = Outlet::to("webhook", Box::new(exporter));
        let (metrics, stop) = (Metrics::new().expect("metrics"), CancellationToken::new());
        let carrier = tokio::spawn(carrier.run(metrics.clone(), Arc::new(SystemEntropy), stop.clone()));
        Self { outlet, metrics, stop, carrier }
    }

    fn lost(&self) -> u64 {
        self.metrics.audit_dropped.with_label_values(&["webhook"]).get()
    }

    async fn ends(self) -> u64 {
        self.stop.cancel();
        let lost = self.metrics.audit_dropped.with_label_values(&["webhook"]);
        self.carrier.await.expect("it ends");
        lost.get()
    }
}

/// Long enough for any number of attempts, in time that is only told.
async fn later() {
    tokio::time::sleep(Duration::from_secs(3_600)).await;
}

#[tokio::test(start_paused = true)]
async fn what_is_not_taken_now_is_handed_on_again_before_anything_else() {
    let place = Place::with([Fate::Later, Fate::Later]);
    let running = Running::to(place.clone());

    assert!(running.outlet.take(&record("first")));
    tokio::task::yield_now().await;
    assert!(running.outlet.take(&record("second")));
    later().await;

    assert_eq!(place.seen(), ["first", "first", "first", "second"]);
    assert_eq!(running.ends().await, 0);
}

#[tokio::test(start_paused = true)]
async fn what_is_never_taken_is_counted_and_holds_up_nothing() {
    let place = Place::with([Fate::Never]);
    let running = Running::to(place.clone());

    assert!(running.outlet.take(&record("first")));
    tokio::task::yield_now().await;
    assert!(running.outlet.take(&record("second")));
    later().await;

    assert_eq!(place.seen(), ["first", "second"]);
    assert_eq!(running.lost(), 1);
}

#[tokio::test(start_paused = true)]
async fn an_outlet_that_hangs_fills_up_and_nobody_waits_and_at_the_end_all_of_it_is_counted() {
    let running = Running::to(Place::with([Fate::Hangs]));

    assert!(running.outlet.take(&record("first")));
    tokio::task::yield_now().await;
    let taken = (0..QUEUE + 100).filter(|_| running.outlet.take(&record("more"))).count();

    assert_eq!(taken, QUEUE);
    assert_eq!(running.ends().await, 1 + QUEUE as u64);
}

#[tokio::test(start_paused = true)]
async fn at_the_end_what_waits_is_tried_once_more() {
    let place = Place::with([Fate::Later]);
    let running = Running::to(place.clone());

    assert!(running.outlet.take(&record("first")));
    tokio::task::yield_now().await;

    assert_eq!(running.ends().await, 0);
    assert_eq!(place.seen(), ["first", "first"]);
}

#[tokio::test]
async fn what_came_before_the_end_is_in_the_file() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("audit.log");
    let running = Running::to(file::File::open(&path).await.expect("it opens"));
    let outlet = running.outlet.clone();

    assert!(outlet.take(&record("a")) && outlet.take(&record("b")));
    running.ends().await;

    let text = std::fs::read_to_string(&path).expect("it is there");
    let names: Vec<_> = text.lines().map(name_in).collect();
    assert_eq!(names, ["a", "b"]);
    assert!(!outlet.take(&record("late")));
}

fn name_in(line: &str) -> String {
    let event: serde_json::Value = serde_json::from_str(line).expect("a line of JSON");
    event["name"].as_str().expect("a name").to_owned()
}

/// Posts that a receiver got: the token, and the names of the events.
#[derive(Clone, Default)]
struct Posts(Arc<Mutex<Vec<Post>>>);

type Post = (String, Vec<String>);

/// Refuses the first post.
async fn receive(State(posts): State<Posts>, headers: HeaderMap, body: String) -> StatusCode {
    let token = headers["authorization"].to_str().expect("text").to_owned();
    let mut posts = posts.0.lock();
    posts.push((token, body.lines().map(name_in).collect()));
    if posts.len() == 1 { StatusCode::SERVICE_UNAVAILABLE } else { StatusCode::NO_CONTENT }
}

async fn receiver(posts: &Posts) -> (SocketAddr, AbortOnDropHandle<()>) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a port");
    let address = listener.local_addr().expect("an address");
    let router = Router::new().route("/events", axum::routing::post(receive)).with_state(posts.clone());
    let server = tokio::spawn(async move { drop(axum::serve(listener, router).await) });
    (address, AbortOnDropHandle::new(server))
}

#[tokio::test]
async fn a_webhook_gets_lines_with_the_token_that_its_file_has_now() {
    let (posts, dir) = (Posts::default(), tempfile::tempdir().expect("a directory"));
    let (address, _server) = receiver(&posts).await;
    let token = dir.path().join("token");
    std::fs::write(&token, "first\n").expect("written");
    let url = format!("http://{address}/events").parse().expect("a URL");
    let mut webhook = Webhook::new(&url, None, Some(&token)).expect("a webhook");

    let refused = webhook.export(&[record("a"), record("b")]).await.expect_err("503");
    std::fs::write(&token, "second\n").expect("written");
    webhook.export(&[record("a"), record("b")]).await.expect("204");

    assert!(refused.is_passing && refused.why.contains("503"), "{refused}");
    let names = vec!["a".to_owned(), "b".to_owned()];
    assert_eq!(
        *posts.0.lock(),
        [("Bearer first".to_owned(), names.clone()), ("Bearer second".to_owned(), names)]
    );
}

#[tokio::test]
async fn a_webhook_that_is_not_there_is_tried_again_and_one_that_does_not_like_the_events_is_not() {
    let gone = {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a port");
        listener.local_addr().expect("an address")
    };
    let url = format!("http://{gone}/").parse().expect("a URL");
    let mut webhook = Webhook::new(&url, None, None).expect("a webhook");
    assert!(webhook.export(&[record("a")]).await.is_err_and(|error| error.is_passing));

    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a port");
    let url = format!("http://{}/", listener.local_addr().expect("an address")).parse().expect("a URL");
    let router = Router::new().fallback(|| async { StatusCode::BAD_REQUEST });
    let _server =
        AbortOnDropHandle::new(tokio::spawn(async move { drop(axum::serve(listener, router).await) }));
    let mut webhook = Webhook::new(&url, None, None).expect("a webhook");
    assert!(webhook.export(&[record("a")]).await.is_err_and(|error| !error.is_passing));
}

#[test]
fn events_leave_this_machine_under_tls_alone_and_a_url_holds_no_secret() {
    for url in [
        "https://audit.example/events",
        "http://127.0.0.1:8080/x",
        "http://[::1]:8080",
        "http://localhost:80",
    ] {
        assert!(url.parse::<WebhookUrl>().is_ok(), "{url}");
    }
    for url in [
        "http://audit.example",
        "http://10.0.0.1",
        "http://localhost.example",
        "http://127.0.0.1.example",
        "https://",
        "ftp://127.0.0.1",
        "https://ada:secret@audit.example",
        "https://audit.example/?token=secret",
        "https://audit.example/#x",
        "/events",
        "",
    ] {
        assert!(url.parse::<WebhookUrl>().is_err(), "{url}");
    }
}

#[test]
fn a_token_or_a_ca_that_cannot_be_used_is_named_at_the_start() {
    let dir = tempfile::tempdir().expect("a directory");
    let url: WebhookUrl = "https://audit.example".parse().expect("a URL");
    let file = dir.path().join("file");
    let refused = |ca: bool| {
        let (ca, token) = if ca { (Some(file.as_path()), None) } else { (None, Some(file.as_path())) };
        Webhook::new(&url, ca, token).err().expect("it is refused")
    };

    let is_missing = |cause: &std::io::Error| cause.kind() == ErrorKind::NotFound;
    assert!(
        matches!(refused(true), WebhookError::Authorities(AuthoritiesError::Read(_, cause)) if is_missing(&cause))
    );
    assert!(matches!(refused(false), WebhookError::Read(_, cause) if is_missing(&cause)));
    std::fs::write(&file, "two words").expect("written");
    assert!(matches!(refused(true), WebhookError::Authorities(AuthoritiesError::None(_))));
    let why = refused(false).to_string();
    assert!(why.contains("bearer token") && !why.contains("two words"), "{why}");
}
