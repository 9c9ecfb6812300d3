//! Asks the engine, when its turn comes.

use std::time::Duration;

use gantry_api::agent_v1::InfoResponse;
use gantry_api::v1alpha1::{DockerInstance, Health};
use tokio::time::Instant;

use super::Context;
use super::plan::{GRACE, MOST_EXCUSED, Plan};
use crate::gateway::link::{InstanceUid, LinkError};

/// What came of it.
#[derive(Clone, Debug)]
pub(super) enum Outcome {
    /// Nothing was asked.
    NotAsked,
    /// The engine's facts.
    Well(Box<InfoResponse>),
    /// The agent is here, its engine did not answer.
    EngineSilent(String),
    /// The agent is here and did not answer in time.
    AgentSilent(String),
    /// The agent answered with an error of its own.
    Refused(String),
    /// The session ended meanwhile: not a failed check, its grace begins.
    Away,
    /// The agent is here and did not answer in time, while agents had to wait for us: no failed check either, it is repeated.
    Late,
}

pub(super) async fn act(
    instance: &DockerInstance,
    uid: InstanceUid,
    plan: &Plan,
    context: &Context,
) -> Outcome {
    match plan {
        Plan::Archive => {
            context.memory.lock().remove(&uid);
            Outcome::NotAsked
        }
        Plan::Check => check(instance, uid, context).await,
        Plan::Later(_) | Plan::Away | Plan::Never | Plan::AwaitReconnect => Outcome::NotAsked,
    }
}

async fn check(instance: &DockerInstance, uid: InstanceUid, context: &Context) -> Outcome {
    let Ok(_turn) = context.checks.acquire().await else {
        return Outcome::NotAsked;
    };
    {
        // Whatever changes from here on is not in the answer for sure.
        let mut memory = context.memory.lock();
        let memory = memory.entry(uid).or_default();
        memory.is_new_session = false;
        memory.has_changed = false;
    }
    let timeout = Duration::from_secs(instance.spec.health_check.timeout_seconds.into());
    let begun = Instant::now();
    let answer = tokio::time::timeout(timeout, context.link.info(uid, timeout)).await;
    context.metrics.health_check_duration.observe(begun.elapsed().as_secs_f64());
    let silent = || format!("no answer within {} s", timeout.as_secs());
    let outcome = match answer {
        Ok(Ok(info)) => Outcome::Well(Box::new(info)),
        Ok(Err(LinkError::Away)) => Outcome::Away,
        Ok(Err(LinkError::Refused {
            code: tonic::Code::Unavailable | tonic::Code::DeadlineExceeded,
            message,
        })) => Outcome::EngineSilent(message),
        Ok(Err(LinkError::Refused { message, .. })) => Outcome::Refused(message),
        Ok(Err(LinkError::Silent(_))) | Err(_) if context.link.session(uid).is_none() => Outcome::Away,
        Ok(Err(LinkError::Silent(_))) | Err(_) if is_excused(instance, uid, context) => Outcome::Late,
        Ok(Err(LinkError::Silent(why))) => Outcome::AgentSilent(why),
        Err(_) => Outcome::AgentSilent(silent()),
    };
    {
        let mut memory = context.memory.lock();
        let memory = memory.entry(uid).or_default();
        if matches!(outcome, Outcome::Late) {
            memory.checked = None;
        } else {
            memory.checked = Some(Instant::now());
            memory.late_since = None;
        }
        if matches!(outcome, Outcome::Well(_)) {
            memory.seen = Some(context.clock.now());
        }
    }
    outcome
}

/// True if what was late may have been us: agents have to wait for us, and this one was not late before for long.
fn is_excused(instance: &DockerInstance, uid: InstanceUid, context: &Context) -> bool {
    let was_well = instance.status.as_ref().is_some_and(|status| status.health == Health::Online);
    if !was_well || context.link.crowded_ago().is_none_or(|ago| ago >= GRACE) {
        return false;
    }
    let mut memory = context.memory.lock();
    let late_since = memory.entry(uid).or_default().late_since.get_or_insert_with(Instant::now);
    late_since.elapsed() < MOST_EXCUSED
}
