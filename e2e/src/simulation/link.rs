//! The network between agents and controllers, and between controllers: streams in memory that a fault can delay, hold back, and cut at one end or both.

use std::sync::{Arc, Weak};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream, ReadHalf, WriteHalf, duplex, split};
use tokio::sync::watch;

use super::chance::Chance;
use super::process::Process;

/// Bytes a direction holds.
const BUFFER: usize = 64 << 10;

/// What passes on a line.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Passage {
    holds_to_controller: bool,
    holds_to_agent: bool,
    agent_is_cut: bool,
    controller_is_cut: bool,
}

/// Which way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// From the agent to the controller.
    ToController,
    /// From the controller to the agent.
    ToAgent,
    /// Both.
    Both,
}

/// Which end of a line hears that it was cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// The agent alone.
    Agent,
    /// The controller alone.
    Controller,
    /// Both.
    Both,
}

/// One connection.
#[derive(Debug)]
pub struct Line {
    passage: watch::Sender<Passage>,
    agent: Arc<Process>,
    controller: Arc<Process>,
    host: Option<usize>,
}

impl Line {
    /// The host whose agent dialled; `None` if another controller did.
    pub fn host(&self) -> Option<usize> {
        self.host
    }

    /// Ends it.
    pub fn cut(&self, end: End) {
        self.passage.send_modify(|passage| {
            passage.agent_is_cut |= end != End::Controller;
            passage.controller_is_cut |= end != End::Agent;
        });
    }

    /// Holds back what is sent, or lets it pass again.
    pub fn hold(&self, way: Way, holds: bool) {
        self.passage.send_modify(|passage| {
            if way != Way::ToAgent {
                passage.holds_to_controller = holds;
            }
            if way != Way::ToController {
                passage.holds_to_agent = holds;
            }
        });
    }

    async fn until(&self, is_so: impl Fn(&Passage) -> bool) {
        // The sender is ours.
        let _ = self.passage.subscribe().wait_for(|passage| is_so(passage)).await;
    }
}

/// Every line there is.
#[derive(Debug)]
pub struct Network {
    chance: Arc<Chance>,
    lines: Mutex<Vec<Weak<Line>>>,
}

impl Network {
    /// Without lines.
    pub fn new(seed: u64) -> Arc<Self> {
        Arc::new(Self { chance: Chance::of(seed, "network"), lines: Mutex::default() })
    }

    /// The lines that were not cut at both ends.
    pub fn lines(&self) -> Vec<Arc<Line>> {
        let mut lines = self.lines.lock();
        lines.retain(|line| line.strong_count() > 0);
        lines.iter().filter_map(Weak::upgrade).collect()
    }

    /// A new line; the end of whoever dials, as an agent does, and the controller's.
    pub fn connect(
        &self,
        host: Option<usize>,
        agent: Arc<Process>,
        controller: Arc<Process>,
    ) -> (DuplexStream, DuplexStream, Arc<Line>) {
        let (agents, at_agent) = duplex(BUFFER);
        let (controllers, at_controller) = duplex(BUFFER);
        let line = Arc::new(Line { passage: watch::Sender::default(), agent, controller, host });
        self.lines.lock().push(Arc::downgrade(&line));
        let slowest = Duration::from_millis(if self.chance.percent(10) { 600 } else { 10 });
        tokio::spawn(carry(line.clone(), at_agent, at_controller, self.chance.clone(), slowest));
        (agents, controllers, line)
    }
}

/// Carries bytes until both ends are cut or closed.
async fn carry(
    line: Arc<Line>,
    agent: DuplexStream,
    controller: DuplexStream,
    chance: Arc<Chance>,
    slowest: Duration,
) {
    let (from_agent, to_agent) = split(agent);
    let (from_controller, to_controller) = split(controller);
    let up = pump(&line, Way::ToController, from_agent, to_controller, &chance, slowest);
    let down = pump(&line, Way::ToAgent, from_controller, to_agent, &chance, slowest);
    tokio::join!(up, down);
}

/// Carries one way. What it holds of an end is dropped, and so closed, when that end is cut or its process dies.
async fn pump(
    line: &Line,
    way: Way,
    mut from: ReadHalf<DuplexStream>,
    mut to: WriteHalf<DuplexStream>,
    chance: &Chance,
    slowest: Duration,
) {
    let is_up = way == Way::ToController;
    let is_source_cut =
        move |passage: &Passage| if is_up { passage.agent_is_cut } else { passage.controller_is_cut };
    let is_sink_cut =
        move |passage: &Passage| if is_up { passage.controller_is_cut } else { passage.agent_is_cut };
    let holds =
        move |passage: &Passage| if is_up { passage.holds_to_controller } else { passage.holds_to_agent };
    let (source, sink) =
        if is_up { (&line.agent, &line.controller) } else { (&line.controller, &line.agent) };
    let carried = async {
        let mut buffer = vec![0; 16 << 10];
        loop {
            let count = from.read(&mut buffer).await.unwrap_or(0);
            let Some(bytes) = buffer.get(..count).filter(|bytes| !bytes.is_empty()) else { return };
            tokio::time::sleep(chance.between(Duration::ZERO, slowest)).await;
            if source.runs().await.is_err() {
                return;
            }
            line.until(|passage| !holds(passage)).await;
            if sink.runs().await.is_err() || to.write_all(bytes).await.is_err() {
                return;
            }
        }
    };
    let source_ends = async {
        tokio::select! {
            biased;
            () = line.until(is_source_cut) => {}
            () = source.dies() => {}
            () = carried => {}
        }
    };
    tokio::select! {
        biased;
        () = line.until(is_sink_cut) => {
            drop(to);
            // The other end hears nothing of it until it is cut too.
            line.until(is_source_cut).await;
            drop(from);
            return;
        }
        () = sink.dies() => return,
        () = source_ends => {}
    }
    drop(from);
    // A closed source closes the sink, unless the line is held or only its other end was cut.
    let is_half_cut = {
        let passage = *line.passage.borrow();
        is_source_cut(&passage) && !is_sink_cut(&passage)
    };
    if is_half_cut {
        line.until(is_sink_cut).await;
    } else {
        let hears = async {
            line.until(|passage| !holds(passage)).await;
            if sink.runs().await.is_ok() {
                to.shutdown().await.ok();
            }
        };
        tokio::select! {
            () = hears => {}
            () = line.until(is_sink_cut) => {}
        }
    }
}
