//! The real agent and the model's beside each other: the same events happen to both, and both must say the same.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use gantry_agent::clock::{Clock, SystemEntropy};
use gantry_agent::docker::{Answer as RealAnswer, DockerError};
use gantry_agent::journal::{Journal, MemoryDisk};
use gantry_agent::operations::{Operations, Pace, Parts, Readiness, Refusal};
use gantry_api::agent_v1::action::Action as Kind;
use gantry_api::agent_v1::{
    self as wire, ContainerKill, ContainerRestart, ContainerStop, ImagePull, OperationReport, Permit, Policy,
    ResumeRequest, SubmitRequest, Target, TargetKind,
};
use gantry_model::{
    Action, Agent, Answer, Answered, Call, Engine, Mistake, OPS, Outcome, Report, Request, Run, Settled,
    Stage, Token,
};
use jiff::Timestamp;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::engine::{PULL, REFERENCE, TestEngine, full_id};
use crate::translated::{outcome, state, uid};

/// Long enough for the agent to do all it can do without news.
const QUIET: Duration = Duration::from_secs(120);
const A_WEEK_MS: u64 = 7 * 24 * 3600 * 1000;
const START_WITHIN: Duration = Duration::from_secs(4_000);

/// Something that happens to an agent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Event {
    /// An attempt is submitted.
    Submit { op: usize, attempt: u8, target: u8, token: Token },
    /// It shall not start.
    Withdraw { op: usize, token: Token },
    /// Its end is recorded.
    Forget { op: usize, token: Token },
    /// A session begins.
    Resume { withdrawn: [bool; OPS], permits: [bool; OPS], was_rolled_back: bool, token: Token },
    /// The session ends.
    Lapse,
    /// The process dies and is started again. What Docker was asked may be done by then.
    Crash { is_performed: bool, allows: bool },
    /// Docker does what it was asked, and says so.
    Answer(usize),
    /// Docker refuses.
    Refuse(usize),
    /// Docker answers 5xx; it may have done it.
    Fail { op: usize, is_performed: bool },
    /// Its answer is lost.
    Lose { op: usize, is_performed: bool },
    /// dockerd is killed and comes back.
    RestartEngine,
    /// Docker is installed anew.
    Reinstall,
    /// Somebody else stops, starts, replaces or removes the container.
    Outsider(u8),
    /// The time to start is over, of all of them.
    DeadlinePasses,
}

struct Session(watch::Sender<bool>);

#[async_trait]
impl Readiness for Session {
    fn is_ready(&self) -> bool {
        *self.0.borrow()
    }

    async fn ready(&self) {
        drop(self.0.subscribe().wait_for(|is_ready| *is_ready).await);
    }
}

struct TestClock(Instant);

impl Clock for TestClock {
    fn now(&self) -> Timestamp {
        Timestamp::from_second(1_700_000_000).expect("in range")
    }

    fn since_boot(&self) -> Duration {
        Duration::from_secs(1000) + self.0.elapsed()
    }

    fn boot(&self) -> String {
        "boot".to_owned()
    }
}

/// Both agents, and what they act on.
pub(crate) struct Pair {
    actions: [Action; OPS],
    disk: MemoryDisk,
    docker: TestEngine,
    session: Arc<Session>,
    clock: Arc<TestClock>,
    real: Operations,
    journals: Vec<String>,
    agent: Agent,
    engine: Engine,
    asked: usize,
    new_journals: u8,
    /// Where operations have been.
    seen: BTreeSet<(Stage, Outcome)>,
}

impl Pair {
    /// Both are just installed.
    pub(crate) async fn new(actions: [Action; OPS]) -> Self {
        let (disk, docker) = (MemoryDisk::default(), TestEngine::default());
        let session = Arc::new(Session(watch::Sender::new(false)));
        let clock = Arc::new(TestClock(Instant::now()));
        let engine = Engine::new(1);
        docker.shows(engine.web);
        let real = start(&disk, &docker, &session, &clock, true).await;
        let journals = vec![real.identity().journal_id];
        let agent = Agent::new(1);
        Self {
            actions,
            disk,
            docker,
            session,
            clock,
            real,
            journals,
            agent,
            engine,
            asked: 0,
            new_journals: 0,
            seen: BTreeSet::new(),
        }
    }

    /// It happens to both, and both come to rest.
    pub(crate) async fn happens(&mut self, event: Event) {
        match event {
            Event::Submit { op, attempt, target, token } => self.submit(op, attempt, target, token).await,
            Event::Withdraw { op, token } => {
                let real = self.real.withdraw(Some(wire_token(token)), &uid(op).to_string()).await;
                let model = self.agent.withdraw(op, token, Mistake::None);
                assert_eq!(real.is_ok(), model.is_some(), "{real:?}");
            }
            Event::Forget { op, token } => {
                let real = self.real.forget(Some(wire_token(token)), vec![uid(op).to_string()], 0).await;
                assert_eq!(real.is_ok(), self.agent.forget(op, token, Mistake::None), "{real:?}");
            }
            Event::Resume { withdrawn, permits, was_rolled_back, token } => {
                self.resume(withdrawn, permits, was_rolled_back, token).await;
            }
            Event::Lapse => {
                self.session.0.send_replace(false);
                self.agent.ready = false;
            }
            Event::Crash { is_performed, allows } => self.crash(is_performed, allows).await,
            Event::Answer(op) => self.answer(op, true, None),
            Event::Refuse(op) => self.answer(op, false, Some(Answer::Refused)),
            Event::Fail { op, is_performed } => self.answer(op, is_performed, Some(Answer::Failed)),
            Event::Lose { op, is_performed } => self.lose(op, is_performed),
            Event::RestartEngine => self.lose_all(Engine::restart),
            Event::Reinstall => self.lose_all(Engine::reinstall),
            Event::Outsider(what) => self.outsider(what),
            Event::DeadlinePasses => self.deadline_passes().await,
        }
        self.docker.shows(self.engine.web);
        self.rests().await;
    }

    fn is_pull(&self, op: usize) -> bool {
        self.actions[op] == Action::Pull
    }

    /// What its calls are known by.
    fn target(&self, op: usize) -> String {
        if self.is_pull(op) { PULL.to_owned() } else { full_id(self.agent.journal.entries[op].target) }
    }

    async fn submit(&mut self, op: usize, attempt: u8, target: u8, token: Token) {
        // A pull waits for no container's turn.
        let target = if self.is_pull(op) { gantry_model::REFERENCE } else { target };
        let request = self.request(op, attempt, target, token);
        let real = self.real.submit(request).await;
        let request = Request { attempt, target, is_late: false };
        let model = self.agent.submit(op, request, token, self.engine.web.engine, Mistake::None);
        match (&real, model) {
            (Ok(real), Answered::As(model)) => self.same(op, real, &model),
            (Err(refusal), model) => assert_eq!(refused(refusal), model, "{refusal:?}"),
            (Ok(_), _) => panic!("{real:?} and {model:?}"),
        }
    }

    fn request(&self, op: usize, attempt: u8, target: u8, token: Token) -> SubmitRequest {
        let kind = match self.actions[op] {
            Action::Stop => Kind::ContainerStop(ContainerStop::default()),
            Action::Restart => Kind::ContainerRestart(ContainerRestart::default()),
            Action::Kill => Kind::ContainerKill(ContainerKill { signal: "KILL".to_owned() }),
            Action::Hangup => Kind::ContainerKill(ContainerKill { signal: "HUP".to_owned() }),
            Action::Pull => Kind::ImagePull(ImagePull::default()),
        };
        let target_wanted = if self.is_pull(op) {
            Target { kind: TargetKind::Image.into(), name: REFERENCE.to_owned(), ..Target::default() }
        } else {
            let (id, name) = (full_id(target), "web".to_owned());
            Target { kind: TargetKind::Container.into(), id, name, ..Target::default() }
        };
        SubmitRequest {
            token: Some(wire_token(token)),
            uid: uid(op).to_string(),
            attempt: u32::from(attempt),
            digest: format!("digest-{target}"),
            action: Some(wire::Action { action: Some(kind) }),
            target: Some(target_wanted),
            start_within_ms: Some(self.start_within_ms()),
            run_within_ms: A_WEEK_MS,
            ..SubmitRequest::default()
        }
    }

    async fn resume(
        &mut self,
        withdrawn: [bool; OPS],
        permits: [bool; OPS],
        was_rolled_back: bool,
        token: Token,
    ) {
        let named = |ops: [bool; OPS]| (0..OPS).filter(move |op| ops[*op]).map(|op| uid(op).to_string());
        let within = self.start_within_ms();
        let real = self.real.resume(ResumeRequest {
            token: Some(wire_token(token)),
            withdrawn_uids: named(withdrawn).collect(),
            permits: named(permits).map(|uid| Permit { uid, start_within_ms: Some(within) }).collect(),
            journal_was_rolled_back: was_rolled_back,
            rewinds: Vec::new(),
        });
        let real = real.await;
        let new_journal = was_rolled_back.then_some(self.new_journals + 3);
        let model =
            self.agent.resume(token, withdrawn, permits, [within == 0; OPS], new_journal, Mistake::None);
        assert_eq!(real.is_ok(), model, "{real:?}");
        if model {
            self.new_journals += u8::from(was_rolled_back);
            if was_rolled_back {
                self.lose_calls();
            }
            self.session.0.send_replace(true);
        }
    }

    fn start_within_ms(&self) -> u64 {
        START_WITHIN.saturating_sub(self.clock.0.elapsed()).as_millis() as u64
    }

    async fn deadline_passes(&mut self) {
        tokio::time::sleep(START_WITHIN.saturating_sub(self.clock.0.elapsed())).await;
        for live in self.agent.live.iter_mut().filter(|live| live.permitted) {
            live.expired = true;
        }
    }

    /// Whatever was asked for operations that the journal has given up is not waited for any more.
    fn lose_calls(&mut self) {
        for call in &mut self.engine.calls {
            *call = Call::None;
        }
    }

    async fn crash(&mut self, is_performed: bool, allows: bool) {
        self.real.cut().await;
        self.disk.crash(|_| 0);
        self.session.0.send_replace(false);
        for op in 0..OPS {
            if is_performed {
                self.perform(op);
            }
        }
        self.lose_calls();
        self.docker.shows(self.engine.web);
        self.agent.crash();
        self.agent.allows = allows;
        self.agent.start();
        self.real = start(&self.disk, &self.docker, &self.session, &self.clock, allows).await;
    }

    fn perform(&mut self, op: usize) -> Option<Answer> {
        let Call::Flying(id) = self.engine.calls[op] else { return None };
        let (answer, _) = self.engine.perform(self.actions[op], id);
        Some(answer)
    }

    fn answer(&mut self, op: usize, is_performed: bool, instead: Option<Answer>) {
        if self.agent.live[op].run != Run::Asked {
            return;
        }
        let performed = if is_performed { self.perform(op) } else { None };
        let Some(answer) = instead.or(performed) else { return };
        self.docker.shows(self.engine.web);
        self.docker.answer(&self.target(op), told(self.actions[op], answer));
        self.engine.calls[op] = Call::Answered(answer);
        self.agent.answered(op, self.actions[op], &mut self.engine, Mistake::None);
    }

    fn lose(&mut self, op: usize, is_performed: bool) {
        if self.agent.live[op].run != Run::Asked {
            return;
        }
        if is_performed {
            self.perform(op);
        }
        self.docker.shows(self.engine.web);
        self.engine.calls[op] = Call::None;
        self.docker.answer(&self.target(op), Err(DockerError::Lost("the connection broke".to_owned())));
        self.agent.lose_answer(op, Mistake::None);
    }

    fn lose_all(&mut self, happens: fn(&mut Engine)) {
        happens(&mut self.engine);
        for op in 0..OPS {
            self.lose(op, false);
        }
    }

    fn outsider(&mut self, what: u8) {
        let web = &mut self.engine.web;
        match what {
            0 if web.id != 0 => web.running = false,
            1 if web.id != 0 && !web.running => (web.running, web.started_at) = (true, web.started_at + 1),
            2 if web.id != 0 => {
                (web.id, web.running, web.started_at) = (web.id + 1, true, web.started_at + 1);
            }
            3 => (web.id, web.running) = (0, false),
            _ => {}
        }
    }

    /// Both do what they can, and then say the same.
    async fn rests(&mut self) {
        tokio::time::sleep(QUIET).await;
        while (0..OPS).any(|op| self.goes_on(op)) {}
        for op in 0..OPS {
            let known = self.real.query(&[uid(op).to_string()]).expect("it is a uid");
            let model = self.agent.journal.report(op);
            self.seen.insert((model.stage, model.outcome));
            match known.first() {
                Some(real) => self.same(op, real, &model),
                None => assert!(model.is_none(), "the real agent does not know {model:?}"),
            }
            let is_asked = (0..OPS).any(|other| {
                let is_flying = matches!(self.engine.calls[other], Call::Flying(_));
                is_flying && self.target(other) == self.target(op)
            });
            assert_eq!(self.docker.is_asked(&self.target(op)), is_asked, "Docker is to answer {op}");
        }
        assert_eq!(self.docker.asked(), self.asked, "calls to Docker");
        let identity = self.real.identity();
        let token = identity.highest_token.unwrap_or_default();
        let model = &self.agent.journal;
        assert_eq!(
            (token.incarnation, token.epoch),
            (model.token.incarnation.into(), model.token.epoch.into())
        );
        assert_eq!(identity.sequence, u64::from(model.sequence), "records");
        if self.journals.last() != Some(&identity.journal_id) {
            self.journals.push(identity.journal_id);
        }
        assert_eq!(self.journals.len(), usize::from(self.new_journals) + 1, "journals");
    }

    /// One step of the model's agent, if there is one that needs no news.
    fn goes_on(&mut self, op: usize) -> bool {
        let (agent, action) = (&mut self.agent, self.actions[op]);
        let is_stopped_pull = action == Action::Pull && agent.journal.entries[op].is_withdrawn;
        match agent.live[op].run {
            Run::Waiting if agent.may_begin(op, Mistake::None) => {
                agent.begin(op, action, &self.engine, Mistake::None);
                true
            }
            Run::Begun => {
                agent.ask(op, &mut self.engine, Mistake::None);
                self.asked += usize::from(matches!(self.engine.calls[op], Call::Flying(_)));
                true
            }
            Run::Asked if !is_stopped_pull => false,
            Run::Asked | Run::Lost | Run::Failed | Run::Refused => {
                let settled = agent.settle(op, action, &mut self.engine, false, Mistake::None);
                self.asked += usize::from(settled == Settled::Again);
                settled != Settled::Wait
            }
            Run::Waiting if agent.live[op].expired && agent.is_its_turn(op, Mistake::None) => {
                agent.expire(op, Mistake::None);
                true
            }
            Run::Idle | Run::Waiting => false,
        }
    }

    fn same(&self, op: usize, real: &OperationReport, model: &Report) {
        // Which of two targets is done with first is nobody's promise.
        let is_in_order = self.target(0) == self.target(1);
        let sequence = if is_in_order { real.journal_sequence } else { model.sequence.into() };
        let told = (real.attempt, real.state(), real.outcome(), real.retryable, sequence);
        let expected = (
            u32::from(model.attempt),
            state(model.stage),
            outcome(model.outcome),
            model.retryable,
            u64::from(model.sequence),
        );
        assert_eq!(told, expected, "operation {op}, {:?}: {real:?}", self.actions[op]);
    }

    /// Ends the real agent; where operations have been.
    pub(crate) async fn ends(self) -> BTreeSet<(Stage, Outcome)> {
        self.real.cut().await;
        self.seen
    }
}

async fn start(
    disk: &MemoryDisk,
    docker: &TestEngine,
    session: &Arc<Session>,
    clock: &Arc<TestClock>,
    allows: bool,
) -> Operations {
    let journal = Journal::open(Arc::new(disk.clone()), &(Arc::new(SystemEntropy) as _)).await;
    Operations::start(Parts {
        engine: Arc::new(docker.clone()),
        journal: journal.expect("memory can be read"),
        clock: clock.clone(),
        readiness: session.clone(),
        policy: if allows { Policy::Full } else { Policy::Observe },
        pace: Pace::default(),
    })
}

fn wire_token(token: Token) -> wire::Token {
    wire::Token { incarnation: token.incarnation.into(), epoch: token.epoch.into() }
}

fn refused(refusal: &Refusal) -> Answered {
    match refusal.code {
        tonic::Code::AlreadyExists => Answered::Conflict,
        tonic::Code::PermissionDenied => Answered::Denied,
        tonic::Code::FailedPrecondition | tonic::Code::Unavailable | tonic::Code::Aborted => {
            Answered::Refused
        }
        _ => panic!("the model does not know {refusal:?}"),
    }
}

fn told(action: Action, answer: Answer) -> Result<RealAnswer, DockerError> {
    let refused = |status, message: &str| Err(DockerError::Refused { status, message: message.to_owned() });
    match answer {
        Answer::Done => Ok(RealAnswer::Done),
        Answer::NotModified => Ok(RealAnswer::NotModified),
        Answer::NoSuchContainer => refused(404, "No such container"),
        Answer::Refused if action == Action::Pull => Err(DockerError::PullFailed("unauthorized".to_owned())),
        Answer::Refused => refused(409, "it cannot be done now"),
        Answer::Failed => refused(500, "it went wrong"),
    }
}
