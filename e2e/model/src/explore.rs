//! Runs the checker on one world and says what came of it.

use std::collections::BTreeSet;
use std::fmt;
use std::time::Duration;

use stateright::{Checker, Expectation, HasDiscoveries, Model};

use crate::settings::Settings;
use crate::world::Move;

/// What an exploration found.
#[derive(Clone, Debug)]
pub struct Explored {
    /// The world's name.
    pub name: &'static str,
    /// Different states.
    pub states: usize,
    /// How long it took.
    pub took: Duration,
    /// Every state was seen.
    pub is_complete: bool,
    /// Properties that fail, each with what leads there.
    pub failures: Vec<(&'static str, Vec<Move>)>,
    /// What should be possible and was not seen.
    pub missing: Vec<&'static str>,
}

/// Explores breadth first, up to about so many generated states.
pub fn explore(settings: &Settings, most: usize) -> Explored {
    #[expect(
        clippy::disallowed_methods,
        reason = "how long an exploration took is for people, and changes nothing in it"
    )]
    let started = std::time::Instant::now();
    let threads = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let builder = settings.clone().checker().threads(threads).finish_when(HasDiscoveries::AnyFailures);
    let checker = builder.target_state_count(most).spawn_bfs().join();
    let discoveries = checker.discoveries();
    let (mut failures, mut missing) = (Vec::new(), Vec::new());
    for property in settings.properties() {
        match (property.expectation, discoveries.get(property.name)) {
            (Expectation::Always | Expectation::Eventually, Some(path)) => {
                failures.push((property.name, path.clone().into_actions()));
            }
            (Expectation::Sometimes, None) => missing.push(property.name),
            _ => {}
        }
    }
    Explored {
        name: settings.name,
        states: checker.unique_state_count(),
        took: started.elapsed(),
        is_complete: checker.state_count() < most,
        failures,
        missing,
    }
}

/// Looks for the shortest way to break one property; `None` if that does not come up in so many generated states.
pub fn find(settings: &Settings, property: &'static str, most: usize) -> Option<Vec<Move>> {
    let wanted = HasDiscoveries::AnyOf(BTreeSet::from([property]));
    let builder = settings.clone().checker().finish_when(wanted).target_state_count(most);
    let checker = builder.spawn_bfs().join();
    checker.discovery(property).map(stateright::Path::into_actions)
}

impl fmt::Display for Explored {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let how = if self.is_complete { "all" } else { "the first" };
        let took = self.took.as_secs_f32();
        write!(f, "{:<18} {how} {} states in {took:.1} s", self.name, self.states)?;
        for (name, moves) in &self.failures {
            write!(f, "\n  FAILS {name}:")?;
            for what in moves {
                write!(f, "\n    {what:?}")?;
            }
        }
        if !self.missing.is_empty() {
            write!(f, "\n  never reached: {}", self.missing.join(", "))?;
        }
        Ok(())
    }
}
