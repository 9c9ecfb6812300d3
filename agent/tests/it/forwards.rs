//! Connections into containers.

use bytes::Bytes;
use futures::StreamExt as _;
use gantry_agent::operations::Refusal;
use gantry_agent::streams::Answer;
use gantry_api::agent_v1::process_input::Input;
use gantry_api::agent_v1::process_output::Output;
use gantry_api::agent_v1::{
    ForwardInput, ForwardOutput, ForwardStart, Policy, ProcessInput, StdinEnd, forward_input, forward_output,
};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Status};

use crate::live_daemon::{LiveDaemon, WEB};
use crate::logs::{PATIENCE, limits, streaming};

type Says = mpsc::Sender<Result<ForwardInput, Status>>;

async fn open(
    daemon: &LiveDaemon,
    port: u32,
    policy: Policy,
) -> Result<(Says, Answer<ForwardOutput>), Refusal> {
    let (says, said) = mpsc::channel(100);
    let start = ForwardStart { container: "web".to_owned(), port };
    says.send(Ok(ForwardInput { input: Some(forward_input::Input::Start(start)) })).await.unwrap();
    let answer = streaming(daemon, policy, limits()).forward(ReceiverStream::new(said).boxed()).await?;
    Ok((says, answer))
}

async fn say(says: &Says, input: Input) {
    let process = ProcessInput { input: Some(input) };
    says.send(Ok(ForwardInput { input: Some(forward_input::Input::Process(process)) })).await.unwrap();
}

async fn next(answer: &mut Answer<ForwardOutput>) -> forward_output::Output {
    tokio::time::timeout(PATIENCE, answer.next()).await.unwrap().unwrap().unwrap().output.unwrap()
}

#[tokio::test]
async fn what_is_said_reaches_the_port_and_its_answer_comes_back_after_the_end_of_what_was_said() {
    let daemon = LiveDaemon::start();
    daemon.change(|web| web.network_mode = "host".to_owned());
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let served = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut heard = Vec::new();
        stream.read_to_end(&mut heard).await.unwrap();
        stream.write_all(&[b"heard ", &heard[..]].concat()).await.unwrap();
    });

    let (says, mut answer) = open(&daemon, port.into(), Policy::Full).await.unwrap();
    let forward_output::Output::Begin(begin) = next(&mut answer).await else { panic!("it begins") };
    assert_eq!((&*begin.container_id, &*begin.container_name), (WEB, "web"));
    say(&says, Input::Stdin(Bytes::from_static(b"hello"))).await;
    say(&says, Input::StdinEnd(StdinEnd {})).await;
    let mut heard = Vec::new();
    loop {
        match next(&mut answer).await {
            forward_output::Output::Process(output) => match output.output.unwrap() {
                Output::Stdout(data) => heard.extend_from_slice(&data),
                Output::Taken(_) => {}
                Output::End(_) => break,
                Output::Stderr(data) => panic!("{data:?}"),
            },
            forward_output::Output::Begin(begin) => panic!("{begin:?}"),
        }
    }

    assert_eq!(heard, b"heard hello");
    served.await.unwrap();
}

#[tokio::test]
async fn nobody_is_connected_to_what_cannot_be_or_may_not() {
    let daemon = LiveDaemon::start();
    let unused = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().port();
    let mut said = Vec::new();
    for (mode, port, policy, running) in [
        ("none", 80, Policy::Full, true),
        ("host", unused.into(), Policy::Full, true),
        ("host", 0, Policy::Full, true),
        ("host", 65_536, Policy::Full, true),
        ("host", unused.into(), Policy::Operate, true),
        ("host", unused.into(), Policy::Full, false),
    ] {
        daemon.change(|web| {
            web.network_mode = mode.to_owned();
            web.running = running;
        });
        let refusal = Status::from(open(&daemon, port, policy).await.map(drop).expect_err("it is refused"));
        said.push((refusal.code(), refusal.message().replace(&format!("port {unused}"), "port N")));
    }

    let told: Vec<String> = said.iter().map(|(code, words)| format!("{code:?}: {words}")).collect();
    assert_eq!(
        told,
        [
            "FailedPrecondition: container `web` has no address in a network that its host reaches",
            "FailedPrecondition: port N of container `web` cannot be reached at 127.0.0.1: Connection refused (os error 111)",
            "InvalidArgument: a port is 1 to 65535",
            "InvalidArgument: a port is 1 to 65535",
            "PermissionDenied: this host does not allow connections into its containers: its agent runs with `--policy operate`",
            "FailedPrecondition: container `web` does not run",
        ]
    );
    assert_eq!(said.len(), 6);
    assert_eq!(said[0].0, Code::FailedPrecondition);
}
