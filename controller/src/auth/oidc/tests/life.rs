//! The life of an issuer's keys: fetched by a task of ours, never by a request.

use tokio_util::task::AbortOnDropHandle;

use super::idp::{Idp, Serves};
use super::*;

/// Fast enough for a test; what must not happen in it takes an hour.
const NEVER: Duration = Duration::from_hours(1);
const QUICK: Timing = Timing {
    refresh: NEVER,
    retry: Duration::from_millis(20),
    early: NEVER,
    fetch: Duration::from_secs(20),
    patience: Duration::from_secs(20),
};

/// An issuer, and the controller's part that follows it.
struct Life {
    idp: Idp,
    issuers: Issuers,
    metrics: Metrics,
    clock: Arc<Hands>,
    _keeping: AbortOnDropHandle<()>,
}

impl Life {
    async fn begins(serves: Serves, keys: &Signer, timing: Timing) -> Self {
        let idp = Idp::start(serves, keys.set()).await;
        let authority = idp.authority.clone();
        Self::follows(idp, &authority, timing)
    }

    fn follows(idp: Idp, authority: &str, timing: Timing) -> Self {
        let configuration = json!({
            "apiVersion": "apiserver.config.k8s.io/v1", "kind": "AuthenticationConfiguration",
            "jwt": [{
                "issuer": {"url": idp.url, "audiences": ["gantry"], "certificateAuthority": authority},
                "claimMappings": {"username": {"claim": "sub", "prefix": ""}},
            }],
        });
        let settings = config::parse("auth.json", &configuration.to_string(), &[]);
        let settings = settings.unwrap_or_else(|error| panic!("{error}"));
        let clock = Arc::new(Hands::at("2026-06-01T12:00:00Z"));
        let (shared, entropy): (SharedClock, SharedEntropy) = (clock.clone(), Arc::new(SystemEntropy));
        let metrics = Metrics::new().expect("registers once");
        let issuers = Issuers::new(settings, timing, &shared, &entropy, &metrics).expect("it is set up");
        let keeping = tokio::spawn(issuers.clone().keep_keys(CancellationToken::new()));
        Self { idp, issuers, metrics, clock, _keeping: AbortOnDropHandle::new(keeping) }
    }

    fn token(&self, signer: &Signer) -> String {
        let claims = json!({"iss": self.idp.url, "aud": "gantry", "sub": "ada", "exp": self.clock.now().as_second() + 600});
        signer.sign(Algorithm::ES256, &claims)
    }

    async fn refusal(&self, token: &str) -> Option<Refusal> {
        self.issuers.bearer(token).await.expect("it names the issuer").err()
    }

    fn issuer(&self) -> &Issuer {
        &self.issuers.0[0]
    }

    /// Waits for what is known of the keys.
    async fn until(&self, is: impl FnMut(&Known) -> bool) {
        let mut known = self.issuer().known.subscribe();
        let reached = tokio::time::timeout(Duration::from_secs(60), known.wait_for(is)).await;
        assert!(reached.expect("in time").is_ok());
    }

    /// As if the last fetch were long ago.
    fn may_ask_early(&self) {
        self.issuer().known.send_modify(|known| known.early_from = Instant::now());
    }

    fn fetches(&self, outcome: &str) -> u64 {
        self.metrics.issuer_fetches.with_label_values(&[self.idp.url.as_str(), outcome]).get()
    }
}

#[tokio::test]
async fn t02_no_request_asks_the_issuer() {
    let (signer, stranger) = (Signer::ec("k"), Signer::ec("another"));
    let life = Life::begins(Serves::Well, &signer, QUICK).await;
    let (good, unknown) = (life.token(&signer), life.token(&stranger));
    assert_eq!(life.refusal(&good).await, None, "the first one waits for the fetch at the start");

    for _ in 0..50 {
        assert_eq!(life.refusal(&good).await, None);
        assert_eq!(life.refusal(&unknown).await, Some(Refusal::Key));
    }

    assert_eq!(life.idp.asked(), [1, 1, 0]);
    let at = life.metrics.issuer_keys.with_label_values(&[life.idp.url.as_str()]).get();
    assert_eq!((life.fetches("ok"), at), (1, life.clock.now().as_second()));
    assert_eq!(life.issuers.trouble(), Ok(()));
}

#[tokio::test]
async fn t02_a_new_key_of_the_issuer_is_known_soon_and_one_taken_back_no_more() {
    let (old, new) = (Signer::ec("old"), Signer::ec("new"));
    let life = Life::begins(Serves::Well, &old, QUICK).await;
    assert_eq!(life.refusal(&life.token(&old)).await, None);

    life.idp.publishes(new.set());
    assert_eq!(life.refusal(&life.token(&new)).await, Some(Refusal::Key), "the last fetch was a moment ago");
    life.may_ask_early();

    assert_eq!(life.refusal(&life.token(&new)).await, None);
    assert_eq!(life.refusal(&life.token(&old)).await, Some(Refusal::Key));
    assert_eq!(life.idp.asked(), [2, 2, 0]);
}

#[tokio::test]
async fn t02_the_keys_are_fetched_anew_though_nobody_asks() {
    let (old, new) = (Signer::ec("old"), Signer::ec("new"));
    let life = Life::begins(Serves::Well, &old, Timing { refresh: Duration::from_millis(20), ..QUICK }).await;

    life.idp.publishes(new.set());
    let header = keys::header(&life.token(&new)).expect("a header");
    let token = life.token(&new);
    life.until(|known| known.keys.as_ref().is_some_and(|keys| keys.verify(&token, &header).is_ok())).await;

    assert_eq!(life.refusal(&life.token(&old)).await, Some(Refusal::Key));
}

#[tokio::test]
async fn t02_any_number_of_unknown_keys_makes_one_fetch() {
    let (signer, stranger) = (Signer::ec("k"), Signer::ec("another"));
    let life = Life::begins(Serves::Well, &signer, QUICK).await;
    assert_eq!(life.refusal(&life.token(&signer)).await, None);
    life.may_ask_early();

    let gate = life.idp.hold().await;
    let (unknown, good) = (life.token(&stranger), life.token(&signer));
    let asking = futures::future::join_all((0..50).map(|_| life.refusal(&unknown)));
    let known = async {
        // Whose key is known does not wait for the others.
        assert_eq!(life.refusal(&good).await, None);
        drop(gate);
    };
    let (refusals, ()) = tokio::join!(asking, known);

    assert_eq!(refusals, vec![Some(Refusal::Key); 50]);
    assert_eq!(life.refusal(&unknown).await, Some(Refusal::Key));
    assert_eq!(life.idp.asked(), [2, 2, 0]);
}

#[tokio::test]
async fn t02_an_issuer_that_does_not_answer_keeps_a_request_for_a_moment_only() {
    let signer = Signer::ec("k");
    let timing = Timing { patience: Duration::from_millis(20), ..QUICK };
    let life = Life::begins(Serves::Silence, &signer, timing).await;

    assert_eq!(life.refusal(&life.token(&signer)).await, Some(Refusal::NoKeys));
    assert_eq!(life.fetches("ok") + life.fetches("error"), 0, "the fetch goes on");
}

#[tokio::test]
async fn an_issuer_that_is_away_at_the_start_and_comes_later_is_known_then() {
    let signer = Signer::ec("k");
    let life = Life::begins(Serves::Nothing, &signer, QUICK).await;
    life.until(|known| known.failure.is_some()).await;
    assert_eq!(life.refusal(&life.token(&signer)).await, Some(Refusal::NoKeys));
    insta::assert_snapshot!(life.issuers.trouble().unwrap_err(), @"the keys of jwt[0] are not known, so its tokens are refused");

    life.idp.serves(Serves::Well);
    life.until(|known| known.failure.is_none()).await;

    assert_eq!(life.refusal(&life.token(&signer)).await, None);
    assert_eq!(life.issuers.trouble(), Ok(()));
}

#[tokio::test]
async fn keys_that_are_known_count_while_the_issuer_is_away() {
    let signer = Signer::ec("k");
    let life = Life::begins(Serves::Well, &signer, QUICK).await;
    assert_eq!(life.refusal(&life.token(&signer)).await, None);

    life.idp.serves(Serves::Status(500));
    life.issuer().known.send_modify(|known| known.is_wanted = true);
    life.until(|known| known.failure.is_some()).await;

    assert_eq!(life.refusal(&life.token(&signer)).await, None);
    insta::assert_snapshot!(life.issuers.trouble().unwrap_err(), @"the keys of jwt[0] cannot be fetched anew, those from before count");
}

#[tokio::test]
async fn t02_keys_come_from_the_issuers_own_document_alone() {
    let signer = Signer::ec("k");
    let fetch = Duration::from_millis(500);
    for (serves, fetch) in [
        (Serves::Redirect, QUICK.fetch),
        (Serves::Huge, QUICK.fetch),
        (Serves::Silence, fetch),
        (Serves::Status(404), QUICK.fetch),
        (Serves::Text(""), QUICK.fetch),
        (Serves::Text("<html>"), QUICK.fetch),
        (Serves::Text("{}"), QUICK.fetch),
        (Serves::With("issuer", json!("https://another.example")), QUICK.fetch),
        (Serves::With("issuer", Value::Null), QUICK.fetch),
        (Serves::With("jwks_uri", json!("http://127.0.0.1:1/keys")), QUICK.fetch),
        (Serves::With("jwks_uri", json!("file:///etc/passwd")), QUICK.fetch),
        (Serves::With("jwks_uri", json!("/keys")), QUICK.fetch),
    ] {
        let told = format!("{serves:?}");
        let life = Life::begins(serves, &signer, Timing { fetch, retry: NEVER, ..QUICK }).await;
        life.until(|known| known.failure.is_some()).await;

        assert_eq!(life.refusal(&life.token(&signer)).await, Some(Refusal::NoKeys), "{told}");
        assert_eq!((life.fetches("error"), life.fetches("ok")), (1, 0), "{told}");
        assert_eq!(life.idp.asked(), [1, 0, 0], "{told}");
    }
}

#[tokio::test]
async fn t02_a_server_whose_certificate_is_of_another_authority_is_not_the_issuer() {
    let signer = Signer::ec("k");
    let (idp, other) =
        (Idp::start(Serves::Well, signer.set()).await, Idp::start(Serves::Well, signer.set()).await);
    let authority = other.authority.clone();

    let life = Life::follows(idp, &authority, Timing { retry: NEVER, ..QUICK });
    life.until(|known| known.failure.is_some()).await;

    assert_eq!(life.refusal(&life.token(&signer)).await, Some(Refusal::NoKeys));
    assert_eq!(life.idp.asked(), [0, 0, 0]);
}

#[tokio::test]
async fn who_is_told_to_stop_asks_no_more() {
    let signer = Signer::ec("k");
    let life = Life::begins(Serves::Silence, &signer, QUICK).await;
    let stop = CancellationToken::new();
    let keeping = tokio::spawn(life.issuers.clone().keep_keys(stop.clone()));

    stop.cancel();

    assert!(tokio::time::timeout(Duration::from_secs(60), keeping).await.is_ok());
}
