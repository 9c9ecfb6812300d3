//! `SessionService`: who is there, and whether work may start.

use std::sync::Arc;

use gantry_api::agent_v1::session_service_server::SessionService;
use gantry_api::agent_v1::{
    HelloRequest, HelloResponse, InstallCertificateRequest, InstallCertificateResponse, RefuseRequest,
    RefuseResponse, RenewRequest, RenewResponse, RequestCertificateRequest, RequestCertificateResponse,
    ResumeRequest, ResumeResponse,
};
use tonic::{Request, Response, Status};

use super::Session;
use crate::enrollment::certificate::CertificateError;
use crate::operations::Resumed;
use crate::session::dial::one_line;

pub(super) struct Service(pub(super) Arc<Session>);

#[tonic::async_trait]
impl SessionService for Service {
    async fn hello(&self, request: Request<HelloRequest>) -> Result<Response<HelloResponse>, Status> {
        let parts = &self.0.parts;
        let identity = parts.operations.identity();
        let credentials = parts.enrolled.credentials();
        let mut progress = self.0.progress.lock();
        progress.hello.get_or_insert_with(|| parts.clock.since_boot());
        drop(progress);
        tracing::debug!(controller.version = request.get_ref().controller_version, "greeted");
        Ok(Response::new(HelloResponse {
            instance_uid: parts.enrolled.identity().instance_uid.to_string(),
            key_fingerprint: parts.enrolled.key().fingerprint(),
            journal_id: identity.journal_id,
            journal_sequence: identity.sequence,
            boot_nonce: parts.boot_nonce.clone(),
            machine_boot: parts.clock.boot(),
            // Hello proves that the agent lives, so it waits for no engine.
            engine_id: parts.engine.known_id(),
            highest_token: identity.highest_token,
            agent_version: env!("CARGO_PKG_VERSION").to_owned(),
            policy: parts.policy.into(),
            certificate_expires_at: credentials.expires_at,
        }))
    }

    async fn resume(&self, request: Request<ResumeRequest>) -> Result<Response<ResumeResponse>, Status> {
        let parts = &self.0.parts;
        let hello = self.0.progress.lock().hello;
        let hello = hello.ok_or_else(|| Status::failed_precondition("Hello comes before Resume"))?;
        let Resumed { reports, journal_id } = parts.operations.resume(request.into_inner()).await?;
        if self.0.over.is_cancelled() {
            return Err(Status::unavailable("the session is over"));
        }
        self.0.progress.lock().resumed.get_or_insert_with(|| parts.clock.since_boot());
        parts.gate.open(hello);
        parts.metrics.connected.set(1);
        tracing::info!(operations = reports.len(), "session is ready");
        Ok(Response::new(ResumeResponse { reports, nonce: parts.gate.nonce().into(), journal_id }))
    }

    async fn renew(&self, request: Request<RenewRequest>) -> Result<Response<RenewResponse>, Status> {
        self.0.require_resumed()?;
        let gate = &self.0.parts.gate;
        // Another nonce proves nothing, and the next one will: an answer may have been lost.
        if !gate.prove(&request.get_ref().nonce) {
            tracing::warn!("the controller gave back a nonce that is not outstanding");
        }
        Ok(Response::new(RenewResponse { nonce: gate.nonce().into() }))
    }

    async fn request_certificate(
        &self,
        _request: Request<RequestCertificateRequest>,
    ) -> Result<Response<RequestCertificateResponse>, Status> {
        let request = self.0.parts.enrolled.key().request();
        let csr_pem = request.map_err(|error| Status::internal(one_line(&error)))?;
        Ok(Response::new(RequestCertificateResponse { csr_pem }))
    }

    async fn refuse(&self, request: Request<RefuseRequest>) -> Result<Response<RefuseResponse>, Status> {
        self.0.progress.lock().refusal = Some(request.into_inner());
        Ok(Response::new(RefuseResponse {}))
    }

    async fn install_certificate(
        &self,
        request: Request<InstallCertificateRequest>,
    ) -> Result<Response<InstallCertificateResponse>, Status> {
        let enrolled = self.0.parts.enrolled.clone();
        let InstallCertificateRequest { certificate_pem, ca_bundle_pem } = request.into_inner();
        let work = move || enrolled.replace(&certificate_pem, &ca_bundle_pem);
        let outcome = tokio::task::spawn_blocking(work).await;
        match outcome.map_err(|_| Status::internal("the certificate could not be written"))? {
            Ok(()) => {
                tracing::info!("certificate renewed");
                Ok(Response::new(InstallCertificateResponse {}))
            }
            Err(error @ CertificateError::State(_)) => Err(Status::unavailable(one_line(&error))),
            Err(error) => Err(Status::invalid_argument(one_line(&error))),
        }
    }
}
