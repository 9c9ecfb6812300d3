//! Keeps the one connection to the controller: dial, serve, dial again. There are never two at once.

pub mod backoff;
pub mod dial;
mod outer;
pub mod readiness;
mod serve;
mod services;
pub mod websocket;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use gantry_api::agent_v1::RefusalReason;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

pub use services::Parts;

use self::backoff::Backoff;
use self::dial::{Connection, DialError, Dialer, one_line};
use self::services::Session;
use crate::clock::SharedEntropy;
use crate::enrollment::certificate::Enrolled;

/// A session that was in use for so long was a good one.
const GOOD: Duration = Duration::from_secs(10);
/// How long a new connection may stay without a word. The other end may be gone where TCP cannot tell, as behind a proxy, and HTTP/2
/// pings nobody before it has been greeted. The controller lets agents wait for fifty seconds.
const GREETED_WITHIN: Duration = Duration::from_secs(90);

/// Why there is no session any more.
struct Ended {
    /// It was in use for a while.
    was_good: bool,
    /// What the controller asked us to wait.
    asked: Option<Duration>,
    /// The controller said that this agent's instance was deleted.
    is_gone: bool,
}

/// Who makes the connections that sessions run on: [`Dialer`], but in the simulation.
#[async_trait]
pub trait Dial: Send + Sync + 'static {
    /// A connection with the controller at its other end, to which this agent has proven who it is.
    async fn connect(&self, enrolled: &Enrolled) -> Result<Box<dyn Connection>, DialError>;
}

#[async_trait]
impl Dial for Dialer {
    async fn connect(&self, enrolled: &Enrolled) -> Result<Box<dyn Connection>, DialError> {
        match self.session(&enrolled.credentials(), enrolled.key()).await {
            Ok((connection, way)) => {
                tracing::info!(controller = %self.controller(), ?way, "connected");
                Ok(connection)
            }
            Err(error) => {
                tracing::warn!(controller = %self.controller(), error = one_line(&error), "cannot connect");
                Err(error)
            }
        }
    }
}

/// The agent's end of the link.
pub struct Link {
    dialer: Arc<dyn Dial>,
    parts: Parts,
    entropy: SharedEntropy,
}

impl Link {
    /// Does not connect yet.
    pub fn new(dialer: Arc<dyn Dial>, parts: Parts, entropy: SharedEntropy) -> Self {
        Self { dialer, parts, entropy }
    }

    /// The same link for another identity.
    #[must_use]
    pub fn with_identity(&self, enrolled: Arc<Enrolled>) -> Self {
        let parts = Parts { enrolled, ..self.parts.clone() };
        Self { dialer: self.dialer.clone(), parts, entropy: self.entropy.clone() }
    }

    /// Keeps a session until `stop`. Nothing of it is left when this returns.
    pub async fn run(&self, stop: &CancellationToken) {
        let mut backoff = Backoff::new(self.entropy.clone());
        while let Some(asked) = self.run_until_gone(stop).await {
            if stop.run_until_cancelled(sleep(backoff.wait(asked))).await.is_none() {
                return;
            }
        }
    }

    /// As [`Link::run`], but ends also when the controller says that this agent's instance was deleted, and then says how long it
    /// asked to wait.
    pub async fn run_until_gone(&self, stop: &CancellationToken) -> Option<Option<Duration>> {
        let mut backoff = Backoff::new(self.entropy.clone());
        while let Some(ended) = stop.run_until_cancelled(self.dial()).await {
            let ended = match ended {
                Ok(connection) => self.serve(connection, stop).await,
                Err(ended) => ended,
            };
            if stop.is_cancelled() {
                return None;
            }
            if ended.is_gone {
                return Some(ended.asked);
            }
            if ended.was_good {
                backoff.reset();
            }
            let wait = backoff.wait(ended.asked);
            tracing::info!(
                retry_in_ms = u64::try_from(wait.as_millis()).unwrap_or(u64::MAX),
                "not connected"
            );
            stop.run_until_cancelled(sleep(wait)).await?;
            self.parts.metrics.reconnects.inc();
        }
        None
    }

    async fn dial(&self) -> Result<Box<dyn Connection>, Ended> {
        self.dialer.connect(&self.parts.enrolled).await.map_err(|_| {
            self.mention_expiry();
            Ended { was_good: false, asked: None, is_gone: false }
        })
    }

    async fn serve(&self, connection: Box<dyn Connection>, stop: &CancellationToken) -> Ended {
        let over = stop.child_token();
        let session = Session::new(self.parts.clone(), over.clone());
        let calls = services::router(session.clone()).await;
        let until = stop.child_token();
        let mut served = std::pin::pin!(serve::serve(connection, calls, &until));
        let outcome = tokio::select! {
            outcome = served.as_mut() => outcome,
            () = stays_unheard(&session) => {
                tracing::warn!("the controller has said nothing");
                until.cancel();
                served.await
            }
        };
        over.cancel();
        self.parts.gate.close();
        self.parts.metrics.connected.set(0);
        let lived = session.lived();
        match (session.refusal(), outcome) {
            (Some(refusal), _) => {
                let reason = refusal.reason().as_str_name();
                tracing::warn!(reason, message = refusal.message, "the controller turned this agent away");
                if refusal.reason() == RefusalReason::Unspecified {
                    tracing::debug!("the controller gave a reason this agent does not know");
                }
                let asked = Duration::from_secs(refusal.retry_after_seconds.into());
                let is_gone = refusal.reason() == RefusalReason::InstanceGone;
                return Ended { was_good: false, asked: Some(asked), is_gone };
            }
            (None, Ok(())) => tracing::info!("the controller closed the connection"),
            (None, Err(error)) => tracing::warn!(error = one_line(&error), "the connection ended"),
        }
        if lived.is_none() {
            self.mention_expiry();
        }
        Ended { was_good: lived.is_some_and(|lived| lived >= GOOD), asked: None, is_gone: false }
    }

    /// A certificate that ran out is a likely reason, if our clock is right.
    fn mention_expiry(&self) {
        if self.parts.enrolled.credentials().expires_at < self.parts.clock.now().as_second() {
            tracing::error!(
                "this agent's certificate has expired: give it a new join token (`gantry token create`) and start it again"
            );
        }
    }
}

/// Returns when the controller should have been heard and was not.
async fn stays_unheard(session: &Session) {
    sleep(GREETED_WITHIN).await;
    if session.was_heard() {
        std::future::pending::<()>().await;
    }
}
