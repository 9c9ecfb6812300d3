//! An agent that answers the handshake and then only lives; what it is asked is kept, what it says is the test's.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use futures::StreamExt as _;
use futures::stream::BoxStream;
use gantry_api::agent_v1::session_service_server::{SessionService, SessionServiceServer};
use gantry_api::agent_v1::{self as agent, RefusalReason};
use gantry_controller::gateway::Gateway;
use gantry_controller::gateway::door::AgentDoor;
use gantry_controller::gateway::link::InstanceUid;
use gantry_controller::pki::AgentIdentity;
use parking_lot::Mutex;
use tokio::sync::broadcast;
use tokio::task::JoinHandle;
use tokio_stream::wrappers::BroadcastStream;
use tonic::{Request, Response, Status};

/// An agent that answers the handshake and then only lives.
pub struct FakeAgent {
    pub uid: InstanceUid,
    /// Calls come in and are never answered.
    pub is_silent: AtomicBool,
    pub resumed: Mutex<Option<agent::ResumeRequest>>,
    pub refused: Mutex<Option<agent::RefuseRequest>>,
    /// Resume is taken and not answered.
    pub resumes_slowly: AtomicBool,
    pub journal_sequence: u64,
    /// Which start of which machine it is on.
    pub machine_boot: &'static str,
    /// What is in its journal.
    pub reports: Vec<agent::OperationReport>,
    pub forgotten: Mutex<Vec<String>>,
    /// What it says instead of the truth.
    pub claims: Option<agent::HelloResponse>,
    /// What it reports.
    pub says: broadcast::Sender<agent::OperationReport>,
    /// Its streams that somebody holds.
    pub open: Arc<AtomicUsize>,
}

impl FakeAgent {
    pub fn of(identity: &AgentIdentity) -> Self {
        Self {
            uid: identity.uid,
            is_silent: AtomicBool::new(false),
            resumed: Mutex::default(),
            refused: Mutex::default(),
            resumes_slowly: AtomicBool::new(false),
            journal_sequence: 7,
            machine_boot: "",
            reports: Vec::new(),
            forgotten: Mutex::default(),
            claims: None,
            says: broadcast::channel(16).0,
            open: Arc::default(),
        }
    }

    async fn answer<T>(&self, answer: T) -> Result<Response<T>, Status> {
        if self.is_silent.load(Ordering::Relaxed) {
            std::future::pending::<()>().await;
        }
        Ok(Response::new(answer))
    }

    /// Connects it to a gateway; the task ends with its session.
    pub fn connect(self: &Arc<Self>, gateway: &Arc<Gateway>, identity: &AgentIdentity) -> JoinHandle<()> {
        let (ours, theirs) = tokio::io::duplex(1 << 16);
        let server = tonic::transport::Server::builder()
            .add_service(SessionServiceServer::from_arc(self.clone()))
            .add_service(agent::operation_service_server::OperationServiceServer::from_arc(self.clone()))
            .add_service(agent::docker_service_server::DockerServiceServer::from_arc(self.clone()))
            .add_service(agent::stream_service_server::StreamServiceServer::from_arc(self.clone()));
        let io = tokio_stream::once(Ok::<_, std::io::Error>(theirs));
        tokio::spawn(async move { server.serve_with_incoming(io).await });
        let (gateway, identity) = (gateway.clone(), identity.clone());
        tokio::spawn(async move {
            let from = "192.0.2.7:1234".parse().expect("an address");
            AgentDoor::session(gateway.as_ref(), Box::new(ours), identity, from).await;
        })
    }

    pub fn refusal(&self) -> Option<RefusalReason> {
        self.refused.lock().as_ref().map(agent::RefuseRequest::reason)
    }
}

#[tonic::async_trait]
impl SessionService for FakeAgent {
    async fn hello(&self, _: Request<agent::HelloRequest>) -> Result<Response<agent::HelloResponse>, Status> {
        let hello = agent::HelloResponse {
            instance_uid: self.uid.to_string(),
            journal_id: "journal-1".to_owned(),
            journal_sequence: self.journal_sequence,
            machine_boot: self.machine_boot.to_owned(),
            certificate_expires_at: i64::MAX,
            policy: agent::Policy::Full.into(),
            ..agent::HelloResponse::default()
        };
        self.answer(self.claims.clone().unwrap_or(hello)).await
    }

    async fn resume(
        &self,
        request: Request<agent::ResumeRequest>,
    ) -> Result<Response<agent::ResumeResponse>, Status> {
        *self.resumed.lock() = Some(request.into_inner());
        if self.resumes_slowly.load(Ordering::Relaxed) {
            std::future::pending::<()>().await;
        }
        let reports = self.reports.clone();
        self.answer(agent::ResumeResponse { reports, ..agent::ResumeResponse::default() }).await
    }

    async fn renew(&self, _: Request<agent::RenewRequest>) -> Result<Response<agent::RenewResponse>, Status> {
        self.answer(agent::RenewResponse::default()).await
    }

    async fn request_certificate(
        &self,
        _: Request<agent::RequestCertificateRequest>,
    ) -> Result<Response<agent::RequestCertificateResponse>, Status> {
        Err(Status::unavailable("not asked for here"))
    }

    async fn refuse(
        &self,
        request: Request<agent::RefuseRequest>,
    ) -> Result<Response<agent::RefuseResponse>, Status> {
        *self.refused.lock() = Some(request.into_inner());
        self.answer(agent::RefuseResponse {}).await
    }

    async fn install_certificate(
        &self,
        _: Request<agent::InstallCertificateRequest>,
    ) -> Result<Response<agent::InstallCertificateResponse>, Status> {
        Err(Status::unavailable("not asked for here"))
    }
}

type Nothing<T> = futures::stream::Pending<Result<T, Status>>;

#[tonic::async_trait]
impl agent::operation_service_server::OperationService for FakeAgent {
    type WatchStream = BoxStream<'static, Result<agent::WatchResponse, Status>>;

    async fn submit(
        &self,
        _: Request<agent::SubmitRequest>,
    ) -> Result<Response<agent::SubmitResponse>, Status> {
        Err(Status::unavailable("not asked for here"))
    }

    async fn withdraw(
        &self,
        request: Request<agent::WithdrawRequest>,
    ) -> Result<Response<agent::WithdrawResponse>, Status> {
        let report = agent::OperationReport {
            uid: request.into_inner().uid,
            state: agent::OperationState::Withdrawn.into(),
            ..agent::OperationReport::default()
        };
        self.answer(agent::WithdrawResponse { report: Some(report) }).await
    }

    async fn watch(&self, _: Request<agent::WatchRequest>) -> Result<Response<Self::WatchStream>, Status> {
        let said = BroadcastStream::new(self.says.subscribe());
        let said = said.map(|report| Ok(agent::WatchResponse { report: report.ok() }));
        Ok(Response::new(said.boxed()))
    }

    async fn query(&self, _: Request<agent::QueryRequest>) -> Result<Response<agent::QueryResponse>, Status> {
        Err(Status::unavailable("not asked for here"))
    }

    async fn forget(
        &self,
        request: Request<agent::ForgetRequest>,
    ) -> Result<Response<agent::ForgetResponse>, Status> {
        for uid in request.into_inner().uids {
            self.forgotten.lock().push(uid.clone());
            let stone = agent::OperationReport { uid, forgotten: true, ..agent::OperationReport::default() };
            // Nobody may be watching.
            let _ = self.says.send(stone);
        }
        self.answer(agent::ForgetResponse {}).await
    }
}

#[tonic::async_trait]
impl agent::docker_service_server::DockerService for FakeAgent {
    type WatchChangesStream = Nothing<agent::WatchChangesResponse>;

    async fn info(&self, _: Request<agent::InfoRequest>) -> Result<Response<agent::InfoResponse>, Status> {
        let engine_version = "20.10.24".to_owned();
        self.answer(agent::InfoResponse { engine_version, ..agent::InfoResponse::default() }).await
    }

    async fn resolve(
        &self,
        _: Request<agent::ResolveRequest>,
    ) -> Result<Response<agent::ResolveResponse>, Status> {
        Err(Status::unavailable("not asked for here"))
    }

    async fn watch_changes(
        &self,
        _: Request<agent::WatchChangesRequest>,
    ) -> Result<Response<Self::WatchChangesStream>, Status> {
        Ok(Response::new(futures::stream::pending()))
    }
}

/// Counted as long as it is held.
struct Open(Arc<AtomicUsize>);

impl Drop for Open {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

impl FakeAgent {
    fn opened(&self) -> Open {
        self.open.fetch_add(1, Ordering::SeqCst);
        Open(self.open.clone())
    }
}

#[tonic::async_trait]
impl agent::stream_service_server::StreamService for FakeAgent {
    type LogsStream = BoxStream<'static, Result<agent::LogsChunk, Status>>;
    type ExecStream = BoxStream<'static, Result<agent::ExecOutput, Status>>;
    type AttachStream = Nothing<agent::AttachOutput>;
    type ForwardStream = Nothing<agent::ForwardOutput>;
    type StatsStream = Nothing<agent::StatsSample>;

    /// Begins, and says nothing more; of `endless` there is no end.
    async fn logs(&self, request: Request<agent::LogsRequest>) -> Result<Response<Self::LogsStream>, Status> {
        let container = request.into_inner().container;
        let more = if container == "endless" {
            let data = bytes::Bytes::from(vec![b'x'; 32 << 10]);
            let entry = agent::LogEntry { data, ..agent::LogEntry::default() };
            let chunk = agent::LogsChunk { begin: None, entries: vec![entry; 2] };
            futures::stream::repeat_with(move || Ok(chunk.clone())).boxed()
        } else {
            futures::stream::pending().boxed()
        };
        let begin =
            agent::LogsBegin { container_id: format!("id-{container}"), ..agent::LogsBegin::default() };
        let open = self.opened();
        let first = Ok(agent::LogsChunk { begin: Some(begin), entries: Vec::new() });
        let stream = futures::stream::once(async { first }).chain(more);
        let stream = stream.map(move |chunk| {
            let _held = &open;
            chunk
        });
        Ok(Response::new(stream.boxed()))
    }

    /// Says back what is typed.
    async fn exec(
        &self,
        request: Request<tonic::Streaming<agent::ExecInput>>,
    ) -> Result<Response<Self::ExecStream>, Status> {
        use agent::{exec_input, exec_output, process_input, process_output};
        let open = self.opened();
        let outputs = request.into_inner().map(move |input| {
            let _held = &open;
            let output = match input?.input {
                Some(exec_input::Input::Start(start)) => exec_output::Output::Begin(agent::ProcessBegin {
                    container_id: format!("id-{}", start.container),
                    command: start.command,
                    ..agent::ProcessBegin::default()
                }),
                Some(exec_input::Input::Process(agent::ProcessInput {
                    input: Some(process_input::Input::Stdin(data)),
                })) => exec_output::Output::Process(agent::ProcessOutput {
                    output: Some(process_output::Output::Stdout(data)),
                }),
                other => return Err(Status::invalid_argument(format!("{other:?}"))),
            };
            Ok(agent::ExecOutput { output: Some(output) })
        });
        Ok(Response::new(outputs.boxed()))
    }

    async fn attach(
        &self,
        _: Request<tonic::Streaming<agent::AttachInput>>,
    ) -> Result<Response<Self::AttachStream>, Status> {
        Err(Status::unavailable("not asked for here"))
    }

    async fn forward(
        &self,
        _: Request<tonic::Streaming<agent::ForwardInput>>,
    ) -> Result<Response<Self::ForwardStream>, Status> {
        Err(Status::unavailable("not asked for here"))
    }

    async fn stats(&self, _: Request<agent::StatsRequest>) -> Result<Response<Self::StatsStream>, Status> {
        Err(Status::permission_denied("this host shows no figures"))
    }
}
