//! Commands in containers, and their first processes: what goes in and out, and how it ends.

use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt as _;
use gantry_agent::docker::streams::Io;
use gantry_agent::operations::Refusal;
use gantry_agent::streams::{Answer, Limits};
use gantry_api::agent_v1::process_input::Input;
use gantry_api::agent_v1::process_output::Output;
use gantry_api::agent_v1::{
    AttachInput, AttachOutput, AttachStart, EndReason, ExecInput, ExecOutput, ExecStart, Policy,
    ProcessBegin, ProcessEnd, ProcessInput, StdinEnd, TerminalSize, attach_input, attach_output, exec_input,
    exec_output,
};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Status};

use crate::live_daemon::{LiveDaemon, WEB, frame};
use crate::logs::{PATIENCE, limits, streaming};

type Outputs = Answer<Output>;

/// A process that somebody is connected to.
struct Terminal {
    begin: ProcessBegin,
    inputs: mpsc::Sender<Result<ExecInput, Status>>,
    outputs: Outputs,
}

fn start(command: &[&str], tty: bool) -> ExecStart {
    ExecStart {
        container: "web".to_owned(),
        command: command.iter().map(ToString::to_string).collect(),
        tty,
        stdin: true,
        stdout: true,
        stderr: true,
        size: None,
    }
}

impl Terminal {
    async fn exec(daemon: &LiveDaemon, start: ExecStart) -> Result<Self, Refusal> {
        Self::exec_with(daemon, start, Policy::Full, limits()).await
    }

    async fn exec_with(
        daemon: &LiveDaemon,
        start: ExecStart,
        policy: Policy,
        limits: Limits,
    ) -> Result<Self, Refusal> {
        let (inputs, receiver) = mpsc::channel(1_000);
        inputs.send(Ok(ExecInput { input: Some(exec_input::Input::Start(start)) })).await.unwrap();
        let streaming = streaming(daemon, policy, limits);
        let mut answer = streaming.exec(ReceiverStream::new(receiver).boxed()).await?;
        let Some(Ok(ExecOutput { output: Some(exec_output::Output::Begin(begin)) })) = answer.next().await
        else {
            panic!("an exec begins with its beginning");
        };
        let outputs = answer.map(|output| match output?.output {
            Some(exec_output::Output::Process(output)) => Ok(output.output.unwrap()),
            other => panic!("{other:?}"),
        });
        Ok(Self { begin, inputs, outputs: outputs.boxed() })
    }

    async fn say(&self, input: Input) {
        let input = exec_input::Input::Process(ProcessInput { input: Some(input) });
        // What has ended does not listen.
        self.inputs.send(Ok(ExecInput { input: Some(input) })).await.ok();
    }

    async fn types(&self, text: &'static str) {
        self.say(Input::Stdin(Bytes::from_static(text.as_bytes()))).await;
    }

    async fn next(&mut self) -> Output {
        tokio::time::timeout(PATIENCE, self.outputs.next()).await.unwrap().unwrap().unwrap()
    }

    /// What is written until the end, output and errors, taking all of it.
    async fn rest(&mut self) -> (Vec<u8>, Vec<u8>, ProcessEnd) {
        let (mut out, mut errors) = (Vec::new(), Vec::new());
        loop {
            match self.next().await {
                Output::Stdout(data) => out.extend_from_slice(&data),
                Output::Stderr(data) => errors.extend_from_slice(&data),
                Output::Taken(_) => continue,
                Output::End(end) => return (out, errors, end),
            }
            self.say(Input::Taken(1)).await;
        }
    }
}

fn end(reason: EndReason, exit_code: Option<i32>) -> ProcessEnd {
    ProcessEnd { reason: reason.into(), exit_code }
}

/// Repeats its input, and once that has ended says so on its error output.
async fn cat(mut io: Box<dyn Io>) -> i32 {
    let mut buffer = vec![0; 4_096];
    loop {
        match io.read(&mut buffer).await {
            Ok(0) | Err(_) => break,
            Ok(length) => io.write_all(&frame(1, &buffer[..length])).await.unwrap(),
        }
    }
    io.write_all(&frame(2, b"end of input")).await.unwrap();
    io.shutdown().await.unwrap();
    7
}

/// Writes without end, and counts nothing.
async fn yes(mut io: Box<dyn Io>) -> i32 {
    while io.write_all(&frame(1, &vec![b'y'; 32 << 10])).await.is_ok() {}
    0
}

/// Reads and writes nothing.
async fn sleep(_io: Box<dyn Io>) -> i32 {
    std::future::pending().await
}

#[tokio::test]
async fn an_execs_input_comes_back_its_end_is_seen_and_its_exit_code_told() {
    let daemon = LiveDaemon::start();
    daemon.has_program("cat", cat);
    let mut terminal = Terminal::exec(&daemon, start(&["cat", "-u"], false)).await.unwrap();
    assert_eq!(
        terminal.begin,
        ProcessBegin {
            container_id: WEB.to_owned(),
            container_name: "web".to_owned(),
            command: vec!["cat".to_owned(), "-u".to_owned()],
            tty: false,
        }
    );

    terminal.types("hello ").await;
    terminal.types("there").await;
    terminal.say(Input::StdinEnd(StdinEnd {})).await;

    let (out, errors, how) = terminal.rest().await;
    assert_eq!((out.as_slice(), errors.as_slice()), (b"hello there".as_slice(), b"end of input".as_slice()));
    assert_eq!(how, end(EndReason::Exited, Some(7)));
    let exec = daemon.web.lock().execs[0].clone();
    assert_eq!(exec["Cmd"], serde_json::json!(["cat", "-u"]));
    assert_eq!(exec.get("Privileged"), None);
}

#[tokio::test]
async fn a_terminal_has_one_output_and_the_size_it_was_last_given() {
    let daemon = LiveDaemon::start();
    daemon.has_program("top", async |mut io: Box<dyn Io>| {
        io.write_all(b"\x1b[2Jraw\r\n").await.unwrap();
        let mut key = [0];
        io.read_exact(&mut key).await.unwrap();
        0
    });
    let size = |width, height| TerminalSize { width, height };
    let request = ExecStart { size: Some(size(80, 24)), ..start(&["top"], true) };
    let mut terminal = Terminal::exec(&daemon, request).await.unwrap();

    assert_eq!(terminal.next().await, Output::Stdout(Bytes::from_static(b"\x1b[2Jraw\r\n")));
    terminal.say(Input::Resize(size(0, 10))).await;
    terminal.say(Input::Resize(size(132, 50))).await;
    while !daemon.asked().iter().any(|asked| asked == "POST /exec/e1/resize?h=50&w=132") {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    terminal.types("q").await;

    assert_eq!(terminal.rest().await.2, end(EndReason::Exited, Some(0)));
    let resizes: Vec<_> = daemon.asked().into_iter().filter(|asked| asked.contains("resize")).collect();
    assert_eq!(resizes, ["POST /exec/e1/resize?h=24&w=80", "POST /exec/e1/resize?h=50&w=132"]);
}

#[tokio::test]
async fn without_a_command_a_shell_is_looked_for_and_nothing_is_run_to_find_it() {
    let daemon = LiveDaemon::start();
    daemon.has_program("/bin/sh", cat);
    daemon.has_program("/usr/bin/bash", cat);

    let terminal = Terminal::exec(&daemon, start(&[], true)).await.unwrap();
    assert_eq!(terminal.begin.command, ["/bin/sh"]);
    daemon.change(|web| web.files.push("/usr/bin/bash"));
    let terminal = Terminal::exec(&daemon, start(&[], true)).await.unwrap();
    assert_eq!(terminal.begin.command, ["/usr/bin/bash"]);
    daemon.change(|web| web.files.clear());
    let refusal = Terminal::exec(&daemon, start(&[], true)).await.err().unwrap();

    assert_eq!(refusal.code, Code::FailedPrecondition);
    assert!(refusal.message.starts_with("container `web` has no shell"), "{refusal}");
    assert_eq!(daemon.web.lock().execs.len(), 2);
}

#[tokio::test]
async fn what_a_container_is_not_fit_for_is_refused_with_the_reason() {
    let daemon = LiveDaemon::start();
    daemon.has_program("cat", cat);
    let long = "x".repeat(70_000);
    let wrong = [
        (ExecStart { container: "other".to_owned(), ..start(&["cat"], false) }, Code::NotFound),
        (ExecStart { container: "a/b".to_owned(), ..start(&["cat"], false) }, Code::InvalidArgument),
        (start(&[&long], false), Code::InvalidArgument),
        (start(&[""], false), Code::InvalidArgument),
        (
            ExecStart { stdin: false, stdout: false, stderr: false, ..start(&["cat"], false) },
            Code::InvalidArgument,
        ),
    ];
    for (request, code) in wrong {
        assert_eq!(Terminal::exec(&daemon, request).await.err().unwrap().code, code);
    }

    daemon.stops(0);
    let refusal = Terminal::exec(&daemon, start(&["cat"], false)).await.err().unwrap();

    assert_eq!(
        (refusal.code, refusal.message.as_str()),
        (Code::FailedPrecondition, "container `web` does not run")
    );
    assert!(daemon.web.lock().execs.is_empty());
}

#[tokio::test]
async fn t21_a_host_that_is_to_be_observed_or_operated_lets_nobody_into_its_containers() {
    let daemon = LiveDaemon::start();
    daemon.has_program("cat", cat);
    for policy in [Policy::Observe, Policy::Operate, Policy::Unspecified] {
        let refusal =
            Terminal::exec_with(&daemon, start(&["cat"], false), policy, limits()).await.err().unwrap();
        assert_eq!(refusal.code, Code::PermissionDenied);
        let inputs = futures::stream::pending().boxed();
        let refusal = streaming(&daemon, policy, limits()).attach(inputs).await.err().unwrap();
        assert_eq!(refusal.code, Code::PermissionDenied);
    }
    assert!(daemon.asked().is_empty());
}

#[tokio::test]
async fn a_process_that_says_and_hears_nothing_is_let_go_of_and_the_reason_told() {
    let daemon = LiveDaemon::start();
    daemon.has_program("sleep", sleep);
    let limits = Limits { idle: Duration::from_millis(80), ..limits() };
    let mut terminal =
        Terminal::exec_with(&daemon, start(&["sleep"], true), Policy::Full, limits).await.unwrap();

    assert_eq!(terminal.rest().await.2, end(EndReason::Idle, None));
}

#[tokio::test]
async fn t25_of_output_that_nobody_takes_sixteen_messages_come_and_no_more() {
    let daemon = LiveDaemon::start();
    daemon.has_program("yes", yes);
    let limits = Limits { idle: Duration::from_millis(300), ..limits() };
    let mut terminal =
        Terminal::exec_with(&daemon, start(&["yes"], false), Policy::Full, limits).await.unwrap();
    // Saying twice as much as was sent gains nothing.
    terminal.say(Input::Taken(u32::MAX)).await;

    let mut messages = 0;
    let how = loop {
        match terminal.next().await {
            Output::Stdout(_) => messages += 1,
            Output::End(how) => break how,
            other => panic!("{other:?}"),
        }
    };

    assert!((16..=32).contains(&messages), "{messages}");
    assert_eq!(how.reason(), EndReason::Idle);
}

#[tokio::test]
async fn t25_more_input_than_is_taken_ends_the_conversation() {
    let daemon = LiveDaemon::start();
    daemon.has_program("sleep", sleep);
    let mut terminal = Terminal::exec(&daemon, start(&["sleep"], false)).await.unwrap();
    for _ in 0..200 {
        terminal.say(Input::Stdin(Bytes::from(vec![0; 64 << 10]))).await;
    }

    let refused = loop {
        match tokio::time::timeout(PATIENCE, terminal.outputs.next()).await.unwrap().unwrap() {
            Ok(Output::Taken(_)) => {}
            Ok(other) => panic!("{other:?}"),
            Err(status) => break status,
        }
    };
    assert_eq!(refused.code(), Code::InvalidArgument);
}

#[tokio::test]
async fn who_leaves_closes_the_input_of_what_they_ran() {
    let daemon = LiveDaemon::start();
    let (saw_end, seen) = mpsc::channel(1);
    daemon.has_program("cat", move |io| {
        let saw_end = saw_end.clone();
        async move {
            let (mut read, _write) = tokio::io::split(io);
            drop(read.read_to_end(&mut Vec::new()).await);
            saw_end.send(()).await.unwrap();
            0
        }
    });
    let terminal = Terminal::exec(&daemon, start(&["cat"], false)).await.unwrap();

    drop(terminal);

    let mut seen = seen;
    tokio::time::timeout(PATIENCE, seen.recv()).await.unwrap().unwrap();
}

async fn attach(daemon: &LiveDaemon, start: AttachStart) -> Result<Answer<AttachOutput>, Refusal> {
    let (inputs, receiver) = mpsc::channel(10);
    inputs.send(Ok(AttachInput { input: Some(attach_input::Input::Start(start)) })).await.unwrap();
    let input = attach_input::Input::Process(ProcessInput { input: Some(Input::StdinEnd(StdinEnd {})) });
    inputs.send(Ok(AttachInput { input: Some(input) })).await.unwrap();
    streaming(daemon, Policy::Full, limits()).attach(ReceiverStream::new(receiver).boxed()).await
}

fn attached() -> AttachStart {
    AttachStart { container: "web".to_owned(), stdin: true, stdout: true, stderr: true, size: None }
}

#[tokio::test]
async fn an_attached_process_is_told_of_until_it_exits_or_is_detached_from() {
    for (code, how) in [(3, end(EndReason::Exited, Some(3))), (-1, end(EndReason::Detached, None))] {
        let daemon = LiveDaemon::start();
        daemon.has_program("attach", move |mut io: Box<dyn Io>| async move {
            io.write_all(&frame(2, b"up\n")).await.unwrap();
            drop(io.read_to_end(&mut Vec::new()).await);
            code
        });

        let answer = attach(&daemon, attached()).await.unwrap();

        let outputs: Vec<_> = answer.map(|output| output.unwrap().output.unwrap()).collect().await;
        let [attach_output::Output::Begin(begin), rest @ ..] = outputs.as_slice() else {
            panic!("{outputs:?}")
        };
        assert_eq!((begin.container_id.as_str(), begin.tty), (WEB, false));
        let rest: Vec<_> = rest
            .iter()
            .map(|output| match output {
                attach_output::Output::Process(output) => output.output.clone().unwrap(),
                attach_output::Output::Begin(_) => panic!("it begins twice"),
            })
            .collect();
        assert_eq!(rest, [Output::Stderr(Bytes::from_static(b"up\n")), Output::End(how)]);
    }
}

#[tokio::test]
async fn who_wants_to_type_is_not_attached_to_a_container_that_does_not_listen() {
    let daemon = LiveDaemon::start();
    daemon.change(|web| web.has_stdin = false);

    let refusal = attach(&daemon, attached()).await.err().unwrap();

    assert_eq!(refusal.code, Code::FailedPrecondition);
    assert!(daemon.asked().is_empty());
}
