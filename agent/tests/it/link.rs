use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use gantry_agent::clock::{SystemClock, SystemEntropy};
use gantry_agent::docker::bollard::BollardEngine;
use gantry_agent::enrollment::Enrollment;
use gantry_agent::enrollment::key::AgentKey;
use gantry_agent::inventory::Inventory;
use gantry_agent::journal::{Journal, MemoryDisk};
use gantry_agent::operations::{self, Operations, Pace, Readiness as _};
use gantry_agent::session::dial::Dialer;
use gantry_agent::session::readiness::Gate;
use gantry_agent::session::{Link, Parts};
use gantry_agent::state_dir::StateDir;
use gantry_agent::streams::{self, Streaming};
use gantry_agent::telemetry::metrics::Metrics;
use gantry_api::agent_v1::docker_service_client::DockerServiceClient;
use gantry_api::agent_v1::operation_service_client::OperationServiceClient;
use gantry_api::agent_v1::stream_service_client::StreamServiceClient;
use gantry_api::agent_v1::{
    ExecInput, ForgetRequest, HelloRequest, InfoRequest, InstallCertificateRequest, LogsRequest, Policy,
    QueryRequest, RefusalReason, RefuseRequest, RenewRequest, RequestCertificateRequest, ResumeRequest,
    WithdrawRequest,
};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tonic::{Code, Request};

use crate::controller::{Caller, Controller, UID};
use crate::daemon::Daemon;
use crate::enroll::config;
use crate::live_daemon::LiveDaemon;
use crate::world::{TOKEN, entropy};

const OTHER_UID: &str = "0d1c2a38-2f0e-4a3f-9d58-0c7f5e1b2a44";

/// An enrolled agent that keeps its link.
struct Agent {
    gate: Arc<Gate>,
    stop: CancellationToken,
    task: JoinHandle<()>,
    _state: tempfile::TempDir,
}

impl Agent {
    async fn enrolled_at(controller: &Controller, more: &[&str]) -> Self {
        Self::beside("unix:///nowhere/docker.sock", controller, more).await
    }

    async fn beside(docker_host: &str, controller: &Controller, more: &[&str]) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let config = config(controller, directory.path(), more);
        let state = Arc::new(StateDir::open(&config.state_dir).unwrap());
        let key = Arc::new(AgentKey::open(&state).unwrap());
        let direct = Dialer::new(config.controller.clone(), gantry_agent::config::Transport::Direct).unwrap();
        let enrollment = Enrollment { config: &config, dialer: &direct, state: &state, key: &key };
        let serve = async { controller.enroll(controller.accept().await.unwrap()).await };
        let (enrolled, ()) = tokio::join!(enrollment.until_decided(entropy()), serve);

        let clock = Arc::new(SystemClock);
        let gate = Arc::new(Gate::new(clock.clone(), entropy()));
        let engine = Arc::new(BollardEngine::new(docker_host).unwrap());
        let journal = Journal::open(Arc::new(MemoryDisk::default()), &entropy()).await.unwrap();
        let operations = Operations::start(operations::Parts {
            engine: engine.clone(),
            journal,
            clock: clock.clone(),
            readiness: gate.clone(),
            policy: Policy::Operate,
            pace: Pace::default(),
        });
        let parts = Parts {
            streams: Streaming::new(
                engine.clone(),
                clock.clone(),
                Policy::Operate,
                streams::Limits::default(),
            ),
            engine,
            inventory: Inventory::unknown(),
            operations,
            enrolled: Arc::new(enrolled.unwrap()),
            gate: gate.clone(),
            policy: Policy::Operate,
            boot_nonce: "boot".to_owned(),
            clock,
            metrics: Metrics::new().unwrap(),
        };
        let dialer = Arc::new(Dialer::new(config.controller.clone(), config.transport).unwrap());
        let link = Link::new(dialer, parts, Arc::new(SystemEntropy));
        let stop = CancellationToken::new();
        let until = stop.clone();
        let task = tokio::spawn(async move { link.run(&until).await });
        Self { gate, stop, task, _state: directory }
    }
}

async fn resumed(caller: &Caller) -> bytes::Bytes {
    caller.session().hello(HelloRequest::default()).await.unwrap();
    let request = ResumeRequest { token: Some(TOKEN), ..ResumeRequest::default() };
    caller.session().resume(request).await.unwrap().into_inner().nonce
}

#[tokio::test]
async fn a_session_goes_from_hello_through_resume_to_renew_and_nothing_is_taken_before() {
    let controller = Controller::start().await;
    let agent = Agent::enrolled_at(&controller, &[]).await;
    let caller = Caller::over(controller.accept().await.unwrap()).await;
    let withdraw = WithdrawRequest { token: Some(TOKEN), uid: UID.to_owned() };

    let early = caller.session().resume(ResumeRequest::default()).await.unwrap_err();
    assert_eq!(early.code(), Code::FailedPrecondition);
    let early = OperationServiceClient::new(caller.clone()).withdraw(withdraw).await.unwrap_err();
    assert_eq!(early.code(), Code::Unavailable);
    assert!(!agent.gate.is_ready());

    let hello = caller.session().hello(HelloRequest::default()).await.unwrap().into_inner();
    assert_eq!(hello.instance_uid, UID);
    assert_eq!(hello.policy(), Policy::Operate);
    assert_eq!(hello.engine_id, "");
    let nonce = resumed(&caller).await;
    assert!(agent.gate.is_ready());
    let next = caller.session().renew(RenewRequest { nonce: nonce.clone() }).await.unwrap().into_inner();
    assert_ne!(next.nonce, nonce);
    let info = DockerServiceClient::new(caller.clone()).info(InfoRequest {}).await.unwrap_err();
    assert_eq!(info.code(), Code::Unavailable);

    agent.stop.cancel();
    agent.task.await.unwrap();
    assert!(!agent.gate.is_ready());
}

#[tokio::test]
async fn a_controller_that_is_not_heard_is_dialled_again() {
    let controller = Controller::start().await;
    let _agent = Agent::enrolled_at(&controller, &[]).await;
    let silent = controller.accept().await.unwrap();

    // A minute passes, again if the agent had not begun to wait.
    let again = loop {
        tokio::time::pause();
        tokio::time::advance(Duration::from_secs(61)).await;
        tokio::time::resume();
        if let Ok(again) = tokio::time::timeout(Duration::from_secs(3), controller.accept()).await {
            break again.unwrap();
        }
    };

    let caller = Caller::over(again).await;
    resumed(&caller).await;
    drop(silent);
}

#[tokio::test]
async fn a_hanging_engine_holds_up_no_hello_and_is_told_from_a_silent_agent() {
    let daemon = Daemon::with_container("running");
    let controller = Controller::start().await;
    let _agent = Agent::beside(&daemon.host(), &controller, &[]).await;
    let caller = Caller::over(controller.accept().await.unwrap()).await;
    resumed(&caller).await;
    let info = async |milliseconds| {
        let mut request = Request::new(InfoRequest {});
        request.set_timeout(Duration::from_millis(milliseconds));
        DockerServiceClient::new(caller.clone()).info(request).await
    };
    info(10_000).await.unwrap();

    daemon.state.lock().info_hangs = true;

    let error = info(2_000).await.unwrap_err();
    assert_eq!(error.code(), Code::Unavailable);
    assert_eq!(error.message(), "the Docker daemon did not answer within 1.8s");
    let mut session = caller.session();
    let hello = session.hello(HelloRequest::default());
    let hello = tokio::time::timeout(Duration::from_secs(2), hello).await.unwrap().unwrap();
    assert_eq!(hello.into_inner().engine_id, "ENGINE", "the last one known");
}

#[tokio::test]
async fn a_query_and_a_forget_name_a_thousand_at_most() {
    let controller = Controller::start().await;
    let _agent = Agent::enrolled_at(&controller, &[]).await;
    let caller = Caller::over(controller.accept().await.unwrap()).await;
    let mut operations = OperationServiceClient::new(caller.clone());
    let query = |number| QueryRequest { uids: vec![UID.to_owned(); number] };
    assert_eq!(operations.query(query(1)).await.unwrap_err().code(), Code::Unavailable, "Resume comes first");
    resumed(&caller).await;

    assert_eq!(operations.query(query(1_000)).await.unwrap().into_inner().reports, []);
    assert_eq!(operations.query(query(1_001)).await.unwrap_err().code(), Code::InvalidArgument);
    let forget = ForgetRequest { uids: vec![UID.to_owned(); 1_001], token: Some(TOKEN), recorded_at: 7 };
    assert_eq!(operations.forget(forget).await.unwrap_err().code(), Code::InvalidArgument);
    let no_token = ForgetRequest { uids: vec![UID.to_owned()], token: None, recorded_at: 7 };
    assert_eq!(operations.forget(no_token).await.unwrap_err().code(), Code::InvalidArgument);
}

#[tokio::test]
async fn readiness_ends_with_the_connection_and_the_agent_comes_back() {
    let controller = Controller::start().await;
    let agent = Agent::enrolled_at(&controller, &[]).await;
    let caller = Caller::over(controller.accept().await.unwrap()).await;
    resumed(&caller).await;

    drop(caller);

    let again = tokio::time::timeout(Duration::from_secs(10), controller.accept()).await;
    assert!(!agent.gate.is_ready());
    resumed(&Caller::over(again.unwrap().unwrap()).await).await;
    assert!(agent.gate.is_ready());
}

#[tokio::test]
async fn a_certificate_for_this_key_and_instance_is_installed_and_no_other() {
    let controller = Controller::start().await;
    let _agent = Agent::enrolled_at(&controller, &[]).await;
    let caller = Caller::over(controller.accept().await.unwrap()).await;
    let csr = caller.session().request_certificate(RequestCertificateRequest {}).await.unwrap();
    let csr = csr.into_inner().csr_pem;
    let install = |uid: &str| InstallCertificateRequest {
        certificate_pem: controller.certificate(&csr, uid),
        ca_bundle_pem: controller.ca_pem(),
    };

    let other = install("00000000-0000-4000-8000-000000000000");
    let refused = caller.session().install_certificate(other).await.unwrap_err();
    assert_eq!(refused.code(), Code::InvalidArgument);
    caller.session().install_certificate(install(UID)).await.unwrap();
}

#[tokio::test]
async fn a_session_runs_through_a_websocket_where_only_that_passes() {
    let controller = Controller::start().await;
    let agent = Agent::enrolled_at(&controller, &["--transport", "websocket"]).await;

    let stream = Box::pin(controller.accept_websocket()).await;
    let caller = Box::pin(Caller::over(stream)).await;
    resumed(&caller).await;

    assert!(agent.gate.is_ready());
}

#[tokio::test]
async fn an_agent_that_is_turned_away_waits_as_long_as_it_was_told() {
    let controller = Controller::start().await;
    let _agent = Agent::enrolled_at(&controller, &[]).await;
    let caller = Caller::over(controller.accept().await.unwrap()).await;

    let refusal = RefuseRequest { retry_after_seconds: 3, ..RefuseRequest::default() };
    caller.session().refuse(refusal).await.unwrap();
    drop(caller);

    let early = tokio::time::timeout(Duration::from_millis(2_900), controller.accept()).await;
    assert!(early.is_err(), "it did not wait");
    tokio::time::timeout(Duration::from_secs(5), controller.accept()).await.unwrap().unwrap();
}

#[tokio::test]
async fn an_agent_whose_instance_was_deleted_enrols_anew_with_the_token_it_was_given() {
    let controller = Controller::start().await;
    let directory = tempfile::tempdir().unwrap();
    let config = config(&controller, directory.path(), &["--docker-host", "unix:///nowhere/docker.sock"]);
    let (stop, state) = (CancellationToken::new(), config.state_dir.clone());
    let agent = tokio::spawn(gantry_agent::app::run(config, stop.clone()));
    controller.enroll(controller.accept().await.unwrap()).await;
    let caller = Caller::over(controller.accept().await.unwrap()).await;
    let first = std::fs::read_to_string(state.join("identity")).unwrap();
    let key = std::fs::read_to_string(state.join("key.pem")).unwrap();

    *controller.uid.lock() = OTHER_UID.to_owned();
    let gone = RefuseRequest {
        reason: RefusalReason::InstanceGone.into(),
        message: "it was deleted".to_owned(),
        retry_after_seconds: 60,
    };
    caller.session().refuse(gone).await.unwrap();
    drop(caller);
    let within = Duration::from_secs(10);
    let stream = tokio::time::timeout(within, controller.accept()).await.expect("it comes back").unwrap();
    controller.enroll(stream).await;
    let caller = Caller::over(controller.accept().await.unwrap()).await;

    let hello = caller.session().hello(HelloRequest::default()).await.unwrap().into_inner();
    assert_eq!(hello.instance_uid, OTHER_UID);
    assert!(first.contains(UID));
    assert!(std::fs::read_to_string(state.join("identity")).unwrap().contains(OTHER_UID));
    assert_eq!(std::fs::read_to_string(state.join("key.pem")).unwrap(), key);
    stop.cancel();
    agent.await.unwrap().unwrap();
}

#[tokio::test]
async fn a_stream_begins_once_the_session_was_resumed_and_ends_with_it() {
    let daemon = LiveDaemon::start();
    daemon.writes(1, 1, "one\n");
    let controller = Controller::start().await;
    let agent = Agent::beside(&daemon.host(), &controller, &[]).await;
    let caller = Caller::over(controller.accept().await.unwrap()).await;
    let mut streams = StreamServiceClient::new(caller.clone());
    let request = LogsRequest {
        container: "web".to_owned(),
        tail: Some(10),
        follow: true,
        stdout: true,
        stderr: true,
        ..LogsRequest::default()
    };

    let early = streams.logs(request.clone()).await.unwrap_err();
    assert_eq!(early.code(), Code::Unavailable);
    resumed(&caller).await;
    let mut log = streams.logs(request).await.unwrap().into_inner();
    let mut entries = 0;
    while entries == 0 {
        entries = log.message().await.unwrap().unwrap().entries.len();
    }
    let exec = ExecInput { input: None };
    let refused = streams.exec(futures::stream::iter([exec])).await.unwrap_err();
    assert_eq!(refused.code(), Code::PermissionDenied);

    agent.stop.cancel();
    agent.task.await.unwrap();
    while let Ok(Some(_)) = log.message().await {}
    while daemon.open.load(Ordering::SeqCst) > 0 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
