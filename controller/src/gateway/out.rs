//! The gateway as the rest of the controller sees it.

use std::time::Duration;

use async_trait::async_trait;
use futures::StreamExt as _;
use gantry_api::agent_v1::exchange_request::Part as Sent;
use gantry_api::agent_v1::exchange_response::Part as Told;
use gantry_api::agent_v1::{
    EndOfData, EngineCall, ExchangeRequest, FollowInventoryRequest, InfoRequest, InfoResponse,
    OperationReport, QueryRequest, RefreshInventoryRequest, RefreshInventoryResponse, ResolveRequest,
    SubmitRequest, Target, TargetKind, Token, WithdrawRequest,
};
use tokio::sync::{broadcast, mpsc};
use tokio_stream::wrappers::ReceiverStream;
use tonic::Code;
use uuid::Uuid;

use super::contact::Contact;
use super::link::{
    AgentLink, DuplicateRefusal, Exchange, InstanceUid, InventoryUpdates, LinkError, LinkEvent, Piece,
    SessionFacts,
};
use super::session::{SHORT, as_text};
use super::{DUPLICATE_MEMORY, Gateway, calls};

#[async_trait]
impl AgentLink for Gateway {
    fn session(&self, instance: InstanceUid) -> Option<SessionFacts> {
        self.contact(instance)?.facts()
    }

    fn away_for(&self, instance: InstanceUid) -> Option<Duration> {
        if self.contact(instance).is_some() {
            return None;
        }
        self.past.lock().get(&instance)?.ended_at.map(|ended| ended.elapsed())
    }

    fn crowded_ago(&self) -> Option<Duration> {
        self.turns.crowded_at().map(|at| at.elapsed())
    }

    fn duplicate(&self, instance: InstanceUid) -> Option<DuplicateRefusal> {
        let past = self.past.lock();
        let (refusal, at) = past.get(&instance)?.duplicate.as_ref()?;
        (at.elapsed() < DUPLICATE_MEMORY).then(|| refusal.clone())
    }

    async fn info(&self, instance: InstanceUid, timeout: Duration) -> Result<InfoResponse, LinkError> {
        let agent = self.contact(instance).ok_or(LinkError::Away)?;
        let mut request = calls::request(InfoRequest {});
        request.set_timeout(timeout);
        calls::within(timeout, calls::docker(agent.grpc()).info(request)).await
    }

    async fn resolve(
        &self,
        instance: InstanceUid,
        kind: TargetKind,
        reference: &str,
    ) -> Result<Target, LinkError> {
        let agent = self.contact(instance).ok_or(LinkError::Away)?;
        let request = ResolveRequest { kind: kind.into(), reference: reference.to_owned() };
        let call = async { calls::docker(agent.grpc()).resolve(calls::request(request)).await };
        calls::within(SHORT, call).await?.target.ok_or_else(|| incomplete("target"))
    }

    async fn exchange(
        &self,
        instance: InstanceUid,
        call: EngineCall,
        sent: mpsc::Receiver<Piece>,
    ) -> Result<Exchange, LinkError> {
        let agent = self.contact(instance).ok_or(LinkError::Away)?;
        let first = ExchangeRequest { part: Some(Sent::Call(call)) };
        let rest = ReceiverStream::new(sent).map(|piece| ExchangeRequest {
            part: Some(match piece {
                Piece::Bytes(bytes) => Sent::Data(bytes),
                Piece::End => Sent::End(EndOfData {}),
            }),
        });
        let requests = futures::stream::iter([first]).chain(rest);
        let called = calls::engine(agent.grpc()).exchange(calls::request(requests)).await;
        let mut told = called.map_err(LinkError::from)?.into_inner();
        let Some(Told::Answer(answer)) = told.message().await?.and_then(|first| first.part) else {
            return Err(incomplete("answer"));
        };
        let bytes = told.map(|told| match told?.part {
            Some(Told::Data(bytes)) => Ok(bytes),
            _ => Err(incomplete("bytes")),
        });
        Ok(Exchange { answer, bytes: bytes.boxed() })
    }

    async fn submit(
        &self,
        instance: InstanceUid,
        request: SubmitRequest,
    ) -> Result<OperationReport, LinkError> {
        let agent = self.contact(instance).ok_or(LinkError::Away)?;
        let call = async { calls::operations(agent.grpc()).submit(calls::request(request)).await };
        let answer = calls::within(SHORT, call).await?;
        taken(&agent, answer.report)
    }

    async fn withdraw(
        &self,
        instance: InstanceUid,
        token: Token,
        operation: Uuid,
    ) -> Result<OperationReport, LinkError> {
        let agent = self.contact(instance).ok_or(LinkError::Away)?;
        let request = WithdrawRequest { token: Some(token), uid: operation.to_string() };
        let call = async { calls::operations(agent.grpc()).withdraw(calls::request(request)).await };
        let answer = calls::within(SHORT, call).await?;
        taken(&agent, answer.report)
    }

    async fn query(
        &self,
        instance: InstanceUid,
        operation: Uuid,
    ) -> Result<Option<OperationReport>, LinkError> {
        let agent = self.contact(instance).ok_or(LinkError::Away)?;
        let request = QueryRequest { uids: as_text(&[operation]) };
        let call = async { calls::operations(agent.grpc()).query(calls::request(request)).await };
        Ok(calls::within(SHORT, call).await?.reports.pop())
    }

    async fn forget(
        &self,
        instance: InstanceUid,
        token: Token,
        operations: &[Uuid],
        recorded_at: u64,
    ) -> Result<(), LinkError> {
        let agent = self.contact(instance).ok_or(LinkError::Away)?;
        agent.forget(token, operations, recorded_at).await?;
        if matches!(agent, Contact::Here(_)) {
            self.announce(LinkEvent::Forgotten(instance, operations.to_vec()));
        }
        Ok(())
    }

    async fn follow_inventory(
        &self,
        instance: InstanceUid,
        from: FollowInventoryRequest,
    ) -> Result<InventoryUpdates, LinkError> {
        let agent = self.contact(instance).ok_or(LinkError::Away)?;
        let call = async { calls::inventories(agent.grpc()).follow(calls::request(from)).await };
        let updates = calls::within(SHORT, call).await?;
        Ok(updates.map(|update| update.map_err(LinkError::from)).boxed())
    }

    async fn refresh_inventory(
        &self,
        instance: InstanceUid,
        timeout: Duration,
    ) -> Result<RefreshInventoryResponse, LinkError> {
        let agent = self.contact(instance).ok_or(LinkError::Away)?;
        let mut request = calls::request(RefreshInventoryRequest {});
        request.set_timeout(timeout);
        calls::within(timeout, calls::inventories(agent.grpc()).refresh(request)).await
    }

    fn unsettled(&self, instance: InstanceUid) -> usize {
        self.contact(instance).map_or(0, |agent| agent.reports().unsettled())
    }

    fn report(&self, instance: InstanceUid, operation: Uuid) -> Option<OperationReport> {
        self.contact(instance)?.reports().get(operation)
    }

    fn disconnect(&self, instance: InstanceUid, why: &str) {
        match self.contact(instance) {
            Some(Contact::Here(session)) => session.close(why),
            Some(Contact::There(remote)) => self.ask_to_disconnect(remote.replica, instance, why),
            None => {}
        }
    }

    fn events(&self) -> broadcast::Receiver<LinkEvent> {
        self.events.subscribe()
    }
}

/// Keeps what the agent said for whoever asks next.
fn taken(agent: &Contact, report: Option<OperationReport>) -> Result<OperationReport, LinkError> {
    let report = report.ok_or_else(|| incomplete("report"))?;
    agent.reports().take(report.clone());
    Ok(report)
}

fn incomplete(what: &str) -> LinkError {
    LinkError::Refused { code: Code::Internal, message: format!("the agent's answer has no {what}") }
}
