//! One call, carried from its client to its agent and back, until one of the two ends it, or the right to it does.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use axum::body::Body;
use axum::response::Response;
use bytes::{Bytes, BytesMut};
use futures::stream::BoxStream;
use futures::{Stream, StreamExt as _};
use gantry_api::agent_v1::EngineCall;
use gantry_api::engine_api::{Answer, Request};
use hyper::upgrade::OnUpgrade;
use tokio::sync::{mpsc, oneshot};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;

use super::ends::End;
use super::execs::{Execs, MOST_ANSWER, Made};
use super::record::{Counts, Visit};
use super::resize::Resize;
use super::{answer, raw};
use crate::apiserver::authorize::Standing;
use crate::apiserver::failure::{Failure, Outcome};
use crate::apiserver::limits::Share;
use crate::gateway::link::{AgentLink, Exchange, LinkError, Piece};
use crate::live::Instance;
use crate::live::archive::Check;

/// Pieces that wait for the slower end.
const WAITING: usize = 8;
/// No more bytes are put together for one piece; of the last that came there may be some more.
const TOGETHER: usize = 64 << 10;
/// How long an engine may take to answer what only reads.
const READ_PATIENCE: Duration = Duration::from_secs(30);
/// An answer that is soon over goes to its client in one piece up to so many bytes, so that it is one packet and not three.
const ONE_PIECE: usize = 64 << 10;
/// How long a client may leave what it asked for unread.
pub(super) const UNREAD_PATIENCE: Duration = Duration::from_secs(300);
/// How long a client is told that its answer breaks off.
pub(super) const FAREWELL: Duration = Duration::from_secs(1);

/// What the client sends after its request.
pub(super) enum Upstream {
    /// Nothing.
    Nothing,
    /// An archive.
    Archive(Body),
    /// What is typed, once the engine agrees.
    Terminal(OnUpgrade),
}

/// The way of an archive: an end where it broke off, or was broken off.
type Upload = Pin<Box<dyn Future<Output = Result<(), End>> + Send>>;

/// All that one call needs.
pub(super) struct Carrier {
    pub link: Arc<dyn AgentLink>,
    pub instance: Instance,
    pub request: Arc<Request>,
    pub standing: Standing,
    pub stopping: CancellationToken,
    pub sees_environment: bool,
    /// Ends where nothing goes either way for long.
    pub falls_idle: bool,
    pub visit: Visit,
    /// Looks at the archive that is copied.
    pub check: Option<Check>,
    /// What is to be remembered by the id that the engine gives it.
    pub made: Option<(Made, Arc<Execs>)>,
    /// What is to be recorded once the engine has done it.
    pub resize: Option<Resize>,
    pub _share: Option<Share>,
}

impl Carrier {
    /// Carries the call to its end and records that. `head` is told how it is answered.
    pub async fn run(
        self,
        call: EngineCall,
        upstream: Upstream,
        mut head: oneshot::Sender<Outcome<Response>>,
    ) {
        let (sent, receiver) = mpsc::channel(WAITING);
        let counts = Arc::clone(&self.visit.counts);
        let (mut typing, mut upload): (Option<(OnUpgrade, mpsc::Sender<Piece>)>, Option<Upload>) =
            match upstream {
                Upstream::Nothing => {
                    // The agent is told at once that nothing follows.
                    drop(sent);
                    (None, None)
                }
                Upstream::Archive(body) => {
                    (None, Some(Box::pin(upload(body, sent, counts, self.check.clone()))))
                }
                Upstream::Terminal(upgrade) => (Some((upgrade, sent)), None),
            };
        let begun = self.begin(call, receiver, &mut upload, &mut head).await;
        let (code, end) = match begun {
            Ok(exchange) => {
                let code = u16::try_from(exchange.answer.status).unwrap_or_default();
                if let Some(resize) = self.resize.as_ref().filter(|_| (200..300).contains(&code)) {
                    resize.record().await;
                }
                let end = if code == 101 {
                    self.converse(exchange, typing.take(), head).await
                } else {
                    drop(typing);
                    self.tell(exchange, upload, head).await
                };
                (code, end)
            }
            Err(end) => {
                let failure = end.failure(|error| self.instance.failed(error));
                let code = failure.code().as_u16();
                head.send(Err(failure)).ok();
                (code, end)
            }
        };
        self.visit.close(code, &end).await;
    }

    /// Asks the agent, and passes an archive on meanwhile.
    async fn begin(
        &self,
        call: EngineCall,
        receiver: mpsc::Receiver<Piece>,
        upload: &mut Option<Upload>,
        head: &mut oneshot::Sender<Outcome<Response>>,
    ) -> Result<Exchange, End> {
        let mut asking = self.link.exchange(self.instance.uid, call, receiver);
        let is_short = self.request.route.is_read() && self.request.route.answer == Answer::Short;
        let too_long = async {
            if is_short {
                tokio::time::sleep(READ_PATIENCE).await;
            } else {
                std::future::pending::<()>().await;
            }
        };
        let over = self.over();
        tokio::pin!(too_long, over);
        loop {
            tokio::select! {
                answered = &mut asking => return answered.map_err(End::Agent),
                uploaded = uploaded(upload) => uploaded?,
                end = &mut over => return Err(end),
                () = head.closed() => return Err(End::ClientLeft),
                () = &mut too_long => return Err(End::Silent),
            }
        }
    }

    /// Whatever ends a call from outside.
    async fn over(&self) -> End {
        tokio::select! {
            lost = self.standing.ended() => End::RightLost(lost),
            () = self.stopping.cancelled() => End::Stopping,
            () = self.visit.is_unrecorded() => End::Unrecorded,
        }
    }

    /// Passes the answer's bytes on, and the rest of an archive.
    async fn tell(
        &self,
        exchange: Exchange,
        mut upload: Option<Upload>,
        mut head: oneshot::Sender<Outcome<Response>>,
    ) -> End {
        let Exchange { answer, mut bytes } = exchange;
        if !self.sees_environment && answer.status == 200 && answer::has_values(&self.request) {
            bytes = match hide(&self.request, bytes).await {
                Ok(bytes) => bytes,
                Err(end) => {
                    head.send(Err(Failure::unavailable("the engine's answer cannot be read"))).ok();
                    return end;
                }
            };
        }
        if let Some((made, execs)) = self.made.as_ref().filter(|_| answer.status == 201) {
            let answered = match whole(bytes, MOST_ANSWER).await {
                Ok(answered) => answered,
                Err(end) => {
                    head.send(Err(Failure::unavailable("the engine's answer cannot be read"))).ok();
                    return end;
                }
            };
            execs.made(self.instance.uid, &answered, made.clone());
            bytes = futures::stream::iter([Ok(Bytes::from(answered))]).boxed();
        }
        let (sender, receiver) = mpsc::channel(WAITING);
        let (mut body, mut is_whole) = (Body::from_stream(ReceiverStream::new(receiver)), false);
        // Clients know by its length that a refusal is none of the things they wait for.
        let is_brief = self.request.route.answer == Answer::Short || (400..600).contains(&answer.status);
        if is_brief && upload.is_none() {
            let gathered = tokio::select! {
                gathered = gather(&mut bytes) => gathered,
                end = self.over() => Err(end),
                () = head.closed() => Err(End::ClientLeft),
            };
            match gathered {
                Ok((whole, true)) => {
                    self.visit.shown(&whole).await;
                    (body, is_whole, bytes) = (Body::from(whole), true, futures::stream::empty().boxed());
                }
                Ok((part, false)) => bytes = futures::stream::iter([Ok(part)]).chain(bytes).boxed(),
                Err(end) => {
                    head.send(Err(end.failure(|error| self.instance.failed(error)))).ok();
                    return end;
                }
            }
        }
        let response = answer::of_engine(&self.request, &answer, body);
        let has_body =
            response.as_ref().is_ok_and(|response| !http_body::Body::is_end_stream(response.body()));
        if head.send(response).is_err() {
            return End::ClientLeft;
        }
        if is_whole || !has_body {
            return End::Complete;
        }
        let end = {
            let is_archive = answer.status == 200 && self.request.route.id == "ContainerCopyOut";
            let check = self.check.clone().filter(|_| is_archive);
            let down = down(bytes, &sender, &self.visit, check);
            let over = self.over();
            tokio::pin!(down, over);
            loop {
                tokio::select! {
                    end = &mut down => break end,
                    uploaded = uploaded(&mut upload) => {
                        if let Err(end) = uploaded {
                            break end;
                        }
                    }
                    end = &mut over => break end,
                    () = sender.closed() => break End::ClientLeft,
                }
            }
        };
        if !matches!(end, End::Complete) {
            // Whoever takes a part for the whole would be deceived.
            sender.send_timeout(Err(io::Error::other(end.reason())), FAREWELL).await.ok();
        }
        end
    }

    /// Raw bytes both ways.
    async fn converse(
        &self,
        exchange: Exchange,
        typing: Option<(OnUpgrade, mpsc::Sender<Piece>)>,
        head: oneshot::Sender<Outcome<Response>>,
    ) -> End {
        let Some((upgrade, sent)) = typing else {
            head.send(Err(Failure::unavailable("the engine changed the protocol unasked"))).ok();
            return End::Agent(LinkError::Silent("it changed the protocol unasked".to_owned()));
        };
        let response = answer::of_engine(&self.request, &exchange.answer, Body::empty());
        if head.send(response).is_err() {
            return End::ClientLeft;
        }
        raw::converse(upgrade, exchange.bytes, sent, &self.visit, self.falls_idle, self.over()).await
    }
}

/// The end of an upload that is under way; never comes where there is none.
async fn uploaded(upload: &mut Option<Upload>) -> Result<(), End> {
    match upload {
        Some(uploading) => {
            let done = uploading.await;
            *upload = None;
            done
        }
        None => std::future::pending().await,
    }
}

/// Passes a body on, to its end or to where the engine wants no more.
async fn upload(
    body: Body,
    sent: mpsc::Sender<Piece>,
    counts: Arc<Counts>,
    mut check: Option<Check>,
) -> Result<(), End> {
    let looked_at = body.into_data_stream().map(move |bytes| {
        let bytes = bytes.map_err(|_| End::ClientLeft)?;
        if let Some(check) = &mut check {
            check.pass(&bytes).map_err(End::Unfit)?;
        }
        counts.sent.fetch_add(bytes.len() as u64, Ordering::Relaxed);
        Ok(bytes)
    });
    pass_on(looked_at, &sent).await
}

/// Passes on what a client sends, to its end or to where the engine wants no more. What comes while the agent is slower goes together: a TLS
/// record is small for a message of its own.
pub(super) async fn pass_on(
    sending: impl Stream<Item = Result<Bytes, End>>,
    sent: &mpsc::Sender<Piece>,
) -> Result<(), End> {
    let mut sending = std::pin::pin!(sending);
    let (mut gathered, mut is_over) = (BytesMut::new(), false);
    while !is_over || !gathered.is_empty() {
        tokio::select! {
            biased;
            bytes = sending.next(), if !is_over && gathered.len() < TOGETHER => match bytes {
                Some(bytes) => gathered.extend_from_slice(&bytes?),
                None => is_over = true,
            },
            room = sent.reserve(), if !gathered.is_empty() => match room {
                Ok(room) => room.send(Piece::Bytes(gathered.split().freeze())),
                Err(_) => return Ok(()),
            },
        }
    }
    sent.send(Piece::End).await.ok();
    Ok(())
}

/// Passes an answer on.
async fn down(
    mut bytes: BoxStream<'static, Result<Bytes, LinkError>>,
    sender: &mpsc::Sender<io::Result<Bytes>>,
    visit: &Visit,
    mut check: Option<Check>,
) -> End {
    while let Some(bytes) = bytes.next().await {
        let bytes = match bytes {
            Ok(bytes) => bytes,
            Err(error) => return End::Agent(error),
        };
        if let Some(Err(unfit)) = check.as_mut().map(|check| check.pass(&bytes)) {
            return End::Unfit(unfit);
        }
        visit.shown(&bytes).await;
        match sender.send_timeout(Ok(bytes), UNREAD_PATIENCE).await {
            Ok(()) => {}
            Err(mpsc::error::SendTimeoutError::Timeout(_)) => return End::Unread,
            Err(mpsc::error::SendTimeoutError::Closed(_)) => return End::ClientLeft,
        }
    }
    End::Complete
}

/// An answer up to [`ONE_PIECE`], and whether that is all of it.
async fn gather(bytes: &mut BoxStream<'static, Result<Bytes, LinkError>>) -> Result<(Bytes, bool), End> {
    let mut whole = BytesMut::new();
    while whole.len() < ONE_PIECE {
        let Some(piece) = bytes.next().await else { return Ok((whole.freeze(), true)) };
        whole.extend_from_slice(&piece.map_err(End::Agent)?);
    }
    Ok((whole.freeze(), false))
}

/// All of an answer that is read before it is passed on.
async fn whole(mut bytes: BoxStream<'static, Result<Bytes, LinkError>>, most: usize) -> Result<Vec<u8>, End> {
    let mut whole = Vec::new();
    while let Some(bytes) = bytes.next().await {
        whole.extend_from_slice(&bytes.map_err(End::Agent)?);
        if whole.len() > most {
            return Err(End::Agent(LinkError::Silent("its answer is too long".to_owned())));
        }
    }
    Ok(whole)
}

/// The whole of a description, without the values in it that are hidden.
async fn hide(
    request: &Request,
    bytes: BoxStream<'static, Result<Bytes, LinkError>>,
) -> Result<BoxStream<'static, Result<Bytes, LinkError>>, End> {
    let whole = whole(bytes, answer::MOST_DESCRIPTION).await?;
    let told = answer::without_values(request, &whole);
    let told = told.ok_or_else(|| End::Agent(LinkError::Silent("its answer is no JSON".to_owned())))?;
    Ok(futures::stream::iter([Ok(Bytes::from(told))]).boxed())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_is_there_already_goes_together_up_to_a_bound() {
        let (sent, mut received) = mpsc::channel(WAITING);
        let pieces = [30 << 10, 30 << 10, 30 << 10, 1].map(|length| Ok(Bytes::from(vec![0; length])));

        let end = pass_on(futures::stream::iter(pieces), &sent).await;

        assert!(end.is_ok());
        let mut lengths = Vec::new();
        while let Ok(Piece::Bytes(bytes)) = received.try_recv() {
            lengths.push(bytes.len());
        }
        assert_eq!(lengths, [90 << 10, 1]);
    }
}
