//! A model of operations and the agents' link: two controllers, a store, lossy links, two agents and a clone, their engines.
//!
//! It is small enough to be explored state by state, and its functions have the names of the code's. It knows no time but
//! what may have passed, one container a host, and three of the classes of actions. Two timing rules of the code are taken
//! for granted: a call that shows no effect for as long as the agent waits is not under way, and an agent has one
//! connection at a time. A pull that lacks the credentials it came with is to it one that nobody vouches for yet.

#![allow(clippy::indexing_slicing, reason = "places in arrays of fixed size, which the model alone makes")]
#![allow(
    clippy::trivially_copy_pass_by_ref,
    reason = "a report is read as an agent tells it, whatever its size"
)]

mod agent;
mod control;
mod engine;
mod explore;
mod happen;
mod journal;
mod link;
mod plan;
mod properties;
mod settings;
mod store;
mod words;
mod world;

pub use agent::{Agent, Answered, Live, Request, Run, Settled};
pub use control::Standing;
pub use engine::{Answer, Call, Engine, Sight, Verdict, is_already_so, weigh};
pub use explore::{Explored, explore, find};
pub use journal::{Entry, Journal, Known};
pub use plan::{Facts, Found, Step, is_late_news, plan, status_after};
pub use settings::{Left, Mistake, Settings, Wish, worlds};
pub use store::{Operation, Session, Store};
pub use words::{Action, INSTANCES, OPS, Outcome, Phase, REFERENCE, Reason, Report, Service, Stage, Token};
pub use world::{Controller, Move, Past, World};
