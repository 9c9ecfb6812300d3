//! What a seed draws before anything runs: hosts, wishes and faults, each with its time, so that any of them can be left out.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use gantry_api::v1alpha1::{Action, Parameters, TargetKind};

use super::chance::Chance;
use super::engine::{Habits, Weather};
use super::link::{End, Way};

/// Everything that is to happen.
#[derive(Clone, Debug)]
pub struct Scenario {
    /// How many hosts.
    pub hosts: usize,
    /// How many controllers.
    pub replicas: usize,
    /// Containers of each host, and whether each runs at first.
    pub containers: Vec<(String, Habits, bool)>,
    /// What users wish.
    pub wishes: Vec<Wish>,
    /// What goes wrong.
    pub faults: Vec<PlannedFault>,
    /// When the last fault is over.
    pub lasts: Duration,
}

/// One Operation and what its owner does with it.
#[derive(Clone, Debug)]
pub struct Wish {
    /// Its name is made of this.
    pub number: usize,
    /// When it is created.
    pub at: Duration,
    /// Where.
    pub host: usize,
    /// What.
    pub action: Action,
    /// On what kind of object.
    pub kind: TargetKind,
    /// On which.
    pub target: String,
    /// How.
    pub parameters: Option<Parameters>,
    /// `spec.startDeadlineSeconds`.
    pub start_within: u32,
    /// `spec.activeDeadlineSeconds`.
    pub run_within: u32,
    /// `spec.ttlSecondsAfterFinished`.
    pub kept_for: u32,
    /// When it is cancelled, after its creation.
    pub cancelled: Option<Duration>,
    /// When it is deleted.
    pub deleted: Option<Duration>,
    /// When it is abandoned.
    pub abandoned: Option<Duration>,
}

impl Wish {
    /// `o-07`.
    pub fn name(&self) -> String {
        format!("o-{:02}", self.number)
    }
}

/// One fault.
#[derive(Clone, Debug)]
pub struct PlannedFault {
    /// For leaving it out.
    pub number: usize,
    /// When.
    pub at: Duration,
    /// What.
    pub fault: Fault,
}

/// What goes wrong, and for how long.
#[derive(Clone, Debug)]
#[allow(missing_docs, reason = "the fields say it")]
pub enum Fault {
    /// The agent's process dies; its disk keeps so much in a hundred of what was not synced.
    AgentDies { host: usize, down: Duration, kept: u64 },
    /// The agent is stopped as by its service manager.
    AgentStops { host: usize, down: Duration },
    /// The agent stands still.
    AgentFreezes { host: usize, lasts: Duration },
    /// The agent dies, and its disk is what it was.
    JournalRolledBack { host: usize, back: Duration, down: Duration },
    /// A copy of the agent runs beside another engine.
    AgentCloned { host: usize, lasts: Duration },
    /// The machine's time of day jumps by so many seconds.
    ClockJumps { host: usize, seconds: i64 },
    /// The disk takes nothing.
    DiskFull { host: usize, lasts: Duration },
    /// A controller dies.
    ControllerDies { replica: usize, down: Duration },
    /// A controller stands still.
    ControllerFreezes { replica: usize, lasts: Duration },
    /// The lease goes to whoever asks first; who had it believes for a while that it still has.
    LeaderMoves { clings: Duration },
    /// The database does not answer.
    DatabaseAway { lasts: Duration },
    /// The database fails over to what it was; replicas notice.
    DatabaseFailsOver { back: Duration, lasts: Duration },
    /// Everything is stopped and a backup restored; nobody remembers.
    DatabaseRestored { back: Duration, lasts: Duration },
    /// The agent's connection ends.
    LinkCut { host: usize, end: End },
    /// The agent's connection holds back what is sent.
    LinkHeld { host: usize, way: Way, lasts: Duration },
    /// Nothing passes between that host and the controllers.
    Partition { host: usize, lasts: Duration },
    /// The controllers' connections to each other end.
    PeersCut { end: End },
    /// The controllers' connections to each other hold back what is sent, and no new ones come about.
    PeersApart { way: Way, lasts: Duration },
    /// dockerd is killed and comes back.
    EngineDies { host: usize, down: Duration },
    /// dockerd stands still.
    EngineFreezes { host: usize, lasts: Duration },
    /// dockerd treats what it is asked in that way.
    EngineWeather { host: usize, weather: Weather, lasts: Duration },
    /// Somebody on the host does something to a container.
    Outsider { host: usize, name: String },
    /// The instance is archived, and brought back.
    InstanceArchived { host: usize, lasts: Duration },
    /// The instance is paused, and goes on.
    InstancePaused { host: usize, lasts: Duration },
}

/// Kinds of faults that a world has or has not.
const KINDS: u64 = 24;

impl Scenario {
    /// Draws one.
    pub fn of(seed: u64) -> Self {
        let chance = Chance::of(seed, "scenario");
        let hosts = 1 + chance.below(2) as usize;
        let replicas = 1 + chance.below(3) as usize;
        let lasts = chance.seconds(15, 90);
        let containers =
            (0..2 + chance.below(4)).map(|number| container(&chance, number)).collect::<Vec<_>>();
        let wishes = 10 + chance.below(31) as usize;
        let mut scenario =
            Self { hosts, replicas, containers, wishes: Vec::new(), faults: Vec::new(), lasts };
        let bursts: Vec<Duration> = (0..3).map(|_| chance.between(Duration::ZERO, lasts)).collect();
        scenario.wishes = (0..wishes).map(|number| scenario.wish(&chance, number, &bursts)).collect();
        // Few kinds at a time meet in ways that all kinds at once do not.
        let kinds: Vec<u64> = (0..KINDS).filter(|_| chance.percent(25)).collect();
        let faults = if kinds.is_empty() { 0 } else { 2 + chance.below(14) };
        for number in 0..faults as usize {
            let at = match chance.pick(&bursts) {
                Some(burst) if chance.percent(60) => *burst + chance.millis(0, 4_000),
                _ => chance.between(Duration::ZERO, lasts),
            };
            let Some(kind) = chance.pick(&kinds).copied() else { continue };
            let fault = scenario.fault(&chance, kind);
            scenario.faults.push(PlannedFault { number, at, fault });
        }
        scenario.faults.sort_by_key(|fault| fault.at);
        scenario
    }

    fn wish(&self, chance: &Chance, number: usize, bursts: &[Duration]) -> Wish {
        let action = *chance.pick(&Action::ALL).unwrap_or(&Action::Stop);
        let is_image =
            matches!(action, Action::Pull | Action::Tag) || (action == Action::Remove && chance.percent(30));
        let container = chance.pick(&self.containers).map(|(name, ..)| name.clone()).unwrap_or_default();
        let image = (*chance.pick(&["app:1", "app:2", "tool:1", "missing:1"]).unwrap_or(&"app:1")).to_owned();
        let parameters = match action {
            Action::Stop | Action::Restart => {
                Some(Parameters { timeout_seconds: Some(chance.below(4) as u32), ..Parameters::default() })
            }
            Action::Kill => {
                let signal = *chance.pick(&["SIGHUP", "SIGKILL", "SIGTERM"]).unwrap_or(&"SIGHUP");
                Some(Parameters { signal: Some(signal.to_owned()), ..Parameters::default() })
            }
            Action::Remove => Some(Parameters { force: Some(chance.percent(70)), ..Parameters::default() }),
            Action::Rename => {
                Some(Parameters { new_name: Some(format!("named-{number}")), ..Parameters::default() })
            }
            Action::Tag => {
                Some(Parameters { reference: Some(format!("tagged:{number}")), ..Parameters::default() })
            }
            _ => None,
        };
        let rarely = |often: u64, most: u64| {
            chance.percent(often).then(|| chance.between(Duration::ZERO, Duration::from_secs(most)))
        };
        let at = match chance.pick(bursts) {
            Some(burst) if chance.percent(60) => *burst + chance.millis(0, 3_000),
            _ => chance.between(Duration::ZERO, self.lasts),
        };
        Wish {
            number,
            at,
            host: chance.below(self.hosts as u64) as usize,
            action,
            kind: if is_image { TargetKind::Image } else { TargetKind::Container },
            target: if is_image { image } else { container },
            parameters,
            start_within: 5 + chance.below(116) as u32,
            run_within: 10 + chance.below(51) as u32,
            kept_for: if chance.percent(15) { chance.below(60) as u32 } else { 100_000 },
            cancelled: rarely(15, 20),
            deleted: rarely(10, 30),
            abandoned: rarely(5, 60),
        }
    }

    fn fault(&self, chance: &Chance, kind: u64) -> Fault {
        let host = chance.below(self.hosts as u64) as usize;
        let replica = chance.below(self.replicas as u64) as usize;
        let lasts = chance
            .between(Duration::from_millis(50), Duration::from_secs(if chance.percent(50) { 5 } else { 60 }));
        let back = chance.seconds(1, 40);
        let way = *chance.pick(&[Way::ToController, Way::ToAgent, Way::Both]).unwrap_or(&Way::Both);
        match kind {
            0 => Fault::AgentDies { host, down: lasts, kept: chance.below(101) },
            1 => Fault::AgentStops { host, down: lasts },
            2 => Fault::AgentFreezes { host, lasts },
            3 => Fault::JournalRolledBack { host, back, down: lasts },
            4 => Fault::AgentCloned { host, lasts },
            5 => Fault::ClockJumps { host, seconds: chance.below(1_200).cast_signed() - 600 },
            6 => Fault::DiskFull { host, lasts },
            7 => Fault::ControllerDies { replica, down: lasts },
            8 => Fault::ControllerFreezes { replica, lasts },
            9 | 10 => Fault::LeaderMoves { clings: lasts / 2 },
            11 => Fault::DatabaseAway { lasts },
            12 => Fault::DatabaseFailsOver { back, lasts },
            13 => Fault::DatabaseRestored { back, lasts },
            14 => Fault::LinkCut {
                host,
                end: *chance.pick(&[End::Agent, End::Controller, End::Both]).unwrap_or(&End::Both),
            },
            15 => Fault::LinkHeld { host, way, lasts },
            16 => Fault::Partition { host, lasts },
            17 => Fault::EngineDies { host, down: lasts.min(Duration::from_secs(30)) },
            18 => Fault::EngineFreezes { host, lasts },
            19 => {
                let weather = *chance
                    .pick(&[Weather::Slow, Weather::Lossy, Weather::Failing])
                    .unwrap_or(&Weather::Lossy);
                Fault::EngineWeather { host, weather, lasts: lasts * 2 }
            }
            20 => Fault::Outsider {
                host,
                name: chance.pick(&self.containers).map(|(name, ..)| name.clone()).unwrap_or_default(),
            },
            21 => Fault::PeersCut {
                end: *chance.pick(&[End::Agent, End::Controller, End::Both]).unwrap_or(&End::Both),
            },
            22 => Fault::PeersApart { way, lasts },
            _ if chance.percent(50) => Fault::InstanceArchived { host, lasts },
            _ => Fault::InstancePaused { host, lasts },
        }
    }
}

fn container(chance: &Arc<Chance>, number: u64) -> (String, Habits, bool) {
    let habits = Habits {
        runs_for: chance.percent(20).then(|| chance.millis(10, 20_000)),
        ignores_term: chance.percent(30),
        auto_remove: chance.percent(10),
    };
    (format!("c-{number}"), habits, chance.percent(60))
}

impl Fault {
    /// Its kind, for leaving out.
    pub fn kind(&self) -> String {
        let text = format!("{self:?}");
        text.split(' ').next().unwrap_or_default().to_owned()
    }
}

impl fmt::Display for Wish {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} at {:.3}s: {} {} on host {}, to start within {} s and to run within {} s",
            self.name(),
            self.at.as_secs_f64(),
            self.action.as_str(),
            self.target,
            self.host,
            self.start_within,
            self.run_within,
        )?;
        for (what, when) in
            [("cancelled", self.cancelled), ("deleted", self.deleted), ("abandoned", self.abandoned)]
        {
            if let Some(when) = when {
                write!(f, ", {what} after {:.3}s", when.as_secs_f64())?;
            }
        }
        Ok(())
    }
}

impl fmt::Display for PlannedFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "fault {} at {:.3}s: {:?}", self.number, self.at.as_secs_f64(), self.fault)
    }
}
