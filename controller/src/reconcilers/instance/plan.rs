//! Whether an instance is to be checked now, from facts alone.

use std::time::Duration;

use gantry_api::v1alpha1::{DockerInstance, Health};

use super::observe::Observed;

/// How long an agent may be away before its instance is Offline, so that a controller's restart is not an outage.
pub(super) const GRACE: Duration = Duration::from_secs(30);
/// For how long an agent's absence is not held against it while agents have to wait for us. Strangers cannot make them wait, a
/// thousand hosts of one owner can.
pub(super) const MOST_EXCUSED: Duration = Duration::from_secs(300);
/// Changes on a host are read at most once in this time.
const CHANGES_PACE: Duration = Duration::from_secs(2);

/// What to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Plan {
    /// Out of service: close its session.
    Archive,
    /// Ask the engine for its facts.
    Check,
    /// Nothing before then.
    Later(Duration),
    /// The agent has been away too long.
    Away,
    /// No agent was ever here.
    Never,
    /// What is known is from before the store was set back, and the agent has not been here since.
    AwaitReconnect,
}

pub(super) fn plan(instance: &DockerInstance, observed: &Observed) -> Plan {
    if instance.spec.archived {
        return Plan::Archive;
    }
    let status = instance.status.clone().unwrap_or_default();
    if observed.session.is_none() {
        if status.last_health_check_time.is_none() {
            return Plan::Never;
        }
        let met_in = status.agent.as_ref().and_then(|agent| agent.store_incarnation);
        if met_in.is_some_and(|met_in| observed.incarnation.is_some_and(|now| met_in < now)) {
            return Plan::AwaitReconnect;
        }
        return match GRACE.checked_sub(absence(observed)) {
            Some(left)
                if !left.is_zero() && matches!(status.health, Health::Online | Health::Incompatible) =>
            {
                Plan::Later(left)
            }
            _ => Plan::Away,
        };
    }
    let interval = Duration::from_secs(instance.spec.health_check.interval_seconds.into());
    let Some(ago) = observed.checked_ago.filter(|_| !observed.is_new_session) else {
        return Plan::Check;
    };
    if status.health == Health::Archived {
        return Plan::Check;
    }
    let pace = if observed.has_changed { CHANGES_PACE.min(interval) } else { interval };
    match pace.checked_sub(ago) {
        Some(left) if !left.is_zero() => Plan::Later(left),
        _ => Plan::Check,
    }
}

/// How long the agent could have been here and was not: it counts from when agents last had to wait for us.
fn absence(observed: &Observed) -> Duration {
    let Observed { away_for, crowded_ago, .. } = observed;
    match crowded_ago {
        Some(crowded_ago) if *away_for < MOST_EXCUSED => (*away_for).min(*crowded_ago),
        _ => *away_for,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gateway::link::SessionFacts;
    use gantry_api::agent_v1::{Policy, Token};
    use gantry_api::v1alpha1::{DockerInstanceSpec, DockerInstanceStatus};
    use jiff::Timestamp;
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

    fn secs(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn instance(health: Health) -> DockerInstance {
        let mut instance = DockerInstance::new("nuc-03", DockerInstanceSpec::default());
        instance.status = Some(DockerInstanceStatus {
            health,
            last_health_check_time: (health != Health::Unknown).then_some(Time(Timestamp::UNIX_EPOCH)),
            ..DockerInstanceStatus::default()
        });
        instance
    }

    fn here() -> Observed {
        Observed {
            session: Some(SessionFacts {
                key_fingerprint: "k".to_owned(),
                agent_version: "1".to_owned(),
                policy: Policy::Full,
                journal_id: "j".to_owned(),
                certificate_expires_at: 0,
                token: Token::default(),
            }),
            ..Observed::default()
        }
    }

    #[test]
    fn an_instance_whose_agent_just_connected_is_checked_at_once() {
        let observed = Observed { is_new_session: true, checked_ago: Some(secs(1)), ..here() };

        assert_eq!(plan(&instance(Health::Offline), &observed), Plan::Check);
    }

    #[test]
    fn a_checked_instance_is_left_alone_until_its_interval_is_over() {
        let at = |seconds| Observed { checked_ago: Some(secs(seconds)), ..here() };

        assert_eq!(plan(&instance(Health::Online), &at(20)), Plan::Later(secs(40)));
        assert_eq!(plan(&instance(Health::Online), &at(60)), Plan::Check);
    }

    #[test]
    fn a_change_on_the_host_is_read_soon_but_not_twice_within_two_seconds() {
        let at = |seconds| Observed { checked_ago: Some(secs(seconds)), has_changed: true, ..here() };

        assert_eq!(plan(&instance(Health::Online), &at(1)), Plan::Later(secs(1)));
        assert_eq!(plan(&instance(Health::Online), &at(3)), Plan::Check);
    }

    #[test]
    fn an_agent_that_is_away_less_than_thirty_seconds_is_not_offline() {
        let away = |seconds| Observed { away_for: secs(seconds), ..Observed::default() };

        assert_eq!(plan(&instance(Health::Online), &away(29)), Plan::Later(secs(1)));
        assert_eq!(plan(&instance(Health::Online), &away(30)), Plan::Away);
        assert_eq!(plan(&instance(Health::Offline), &away(1)), Plan::Away);
    }

    #[test]
    fn time_in_which_agents_had_to_wait_for_the_controller_is_no_absence_but_for_five_minutes_at_most() {
        let away = |seconds, crowded_ago| Observed {
            away_for: secs(seconds),
            crowded_ago: Some(secs(crowded_ago)),
            ..Observed::default()
        };

        assert_eq!(plan(&instance(Health::Online), &away(100, 10)), Plan::Later(secs(20)));
        assert_eq!(plan(&instance(Health::Online), &away(100, 30)), Plan::Away);
        assert_eq!(plan(&instance(Health::Online), &away(20, 200)), Plan::Later(secs(10)));
        assert_eq!(plan(&instance(Health::Online), &away(300, 0)), Plan::Away);
    }

    #[test]
    fn an_instance_no_agent_ever_came_for_stays_unknown() {
        let observed = Observed { away_for: secs(1000), ..Observed::default() };

        assert_eq!(plan(&instance(Health::Unknown), &observed), Plan::Never);
    }

    #[test]
    fn after_the_store_was_set_back_an_instance_is_not_taken_for_online_or_offline_before_its_agent_is_back()
    {
        let mut known = instance(Health::Online);
        let status = known.status.get_or_insert_default();
        status.agent.get_or_insert_default().store_incarnation = Some(1);
        let away = |incarnation| Observed {
            away_for: secs(1),
            incarnation: Some(incarnation),
            ..Observed::default()
        };

        assert_eq!(plan(&known, &away(2)), Plan::AwaitReconnect);
        assert_eq!(plan(&known, &away(1)), Plan::Later(secs(29)));
        assert_eq!(plan(&known, &Observed { is_new_session: true, ..here() }), Plan::Check);
    }

    #[test]
    fn an_archived_instance_is_closed_whoever_is_connected() {
        let mut archived = instance(Health::Online);
        archived.spec.archived = true;

        assert_eq!(plan(&archived, &here()), Plan::Archive);
    }
}
