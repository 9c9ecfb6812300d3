//! `OperationService`, in sessions that were resumed.

use std::sync::Arc;

use futures::StreamExt as _;
use futures::stream::BoxStream;
use gantry_api::agent_v1::operation_service_server::OperationService;
use gantry_api::agent_v1::{
    ForgetRequest, ForgetResponse, OperationState, QueryRequest, QueryResponse, SubmitRequest,
    SubmitResponse, WatchRequest, WatchResponse, WithdrawRequest, WithdrawResponse,
};
use tonic::{Request, Response, Status};

use super::Session;
use crate::failpoint::reached;

/// Operations that are named at once.
const MOST_NAMED: usize = 1_000;

pub(super) struct Service(pub(super) Arc<Session>);

#[tonic::async_trait]
impl OperationService for Service {
    async fn submit(&self, request: Request<SubmitRequest>) -> Result<Response<SubmitResponse>, Status> {
        self.0.require_resumed()?;
        let report = self.0.parts.operations.submit(request.into_inner()).await?;
        Ok(Response::new(SubmitResponse { report: Some(report) }))
    }

    async fn withdraw(
        &self,
        request: Request<WithdrawRequest>,
    ) -> Result<Response<WithdrawResponse>, Status> {
        self.0.require_resumed()?;
        let WithdrawRequest { token, uid } = request.into_inner();
        let report = self.0.parts.operations.withdraw(token, &uid).await?;
        Ok(Response::new(WithdrawResponse { report: Some(report) }))
    }

    type WatchStream = BoxStream<'static, Result<WatchResponse, Status>>;

    async fn watch(&self, _request: Request<WatchRequest>) -> Result<Response<Self::WatchStream>, Status> {
        self.0.require_resumed()?;
        let reports = self.0.parts.operations.watch().then(|report| async move {
            if report.state() == OperationState::Finished {
                reached("report", "before").await;
            }
            report
        });
        let responses = reports.map(|report| Ok(WatchResponse { report: Some(report) }));
        Ok(Response::new(responses.take_until(self.0.over.clone().cancelled_owned()).boxed()))
    }

    async fn query(&self, request: Request<QueryRequest>) -> Result<Response<QueryResponse>, Status> {
        self.0.require_resumed()?;
        let uids = request.into_inner().uids;
        check_number(&uids)?;
        let reports = self.0.parts.operations.query(&uids)?;
        Ok(Response::new(QueryResponse { reports }))
    }

    async fn forget(&self, request: Request<ForgetRequest>) -> Result<Response<ForgetResponse>, Status> {
        self.0.require_resumed()?;
        let ForgetRequest { uids, token, recorded_at } = request.into_inner();
        check_number(&uids)?;
        self.0.parts.operations.forget(token, uids, recorded_at).await?;
        Ok(Response::new(ForgetResponse {}))
    }
}

fn check_number(uids: &[String]) -> Result<(), Status> {
    if uids.len() > MOST_NAMED {
        return Err(Status::invalid_argument(format!("more than {MOST_NAMED} operations at once")));
    }
    Ok(())
}
