use gantry_api::v1alpha1::{
    Action, OperationSpec, OperationStatus, RegistryReference, RegistrySpec, SecretReference, TargetReference,
};

use super::*;
use crate::reconcilers::registry::secret::Why;

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).expect("in range")
}

fn registry() -> Registry {
    let spec = RegistrySpec {
        server: "Registry.example:5000".to_owned(),
        secret_ref: SecretReference { name: "pull".to_owned() },
    };
    let mut registry = Registry::new("mine", spec);
    registry.metadata.generation = Some(1);
    registry.metadata.creation_timestamp = Some(Time(at(10)));
    registry
}

/// How a pull ended that used the Registry, with this version of its Secret.
fn pull(second: i64, version: &str, result: OperationReason) -> Operation {
    let target = TargetReference { name: "registry.example:5000/app".to_owned(), ..target() };
    let mut operation = Operation::new("pull", OperationSpec::new("nuc", Action::Pull, target));
    operation.status = Some(OperationStatus {
        phase: if result == OperationReason::Succeeded { Phase::Succeeded } else { Phase::Failed },
        result: Some(result.as_str().to_owned()),
        message: Some("unauthorized: authentication required".to_owned()),
        completion_time: Some(Time(at(second))),
        pull_credentials: Some(PullCredentials {
            server: "registry.example:5000".to_owned(),
            registry_ref: Some(RegistryReference { name: "mine".to_owned() }),
            secret_ref: SecretReference { name: "pull".to_owned() },
            secret_version: version.to_owned(),
        }),
        ..OperationStatus::default()
    });
    operation
}

fn target() -> TargetReference {
    TargetReference { kind: gantry_api::v1alpha1::TargetKind::Image, name: String::new() }
}

fn observed(secret: Result<&str, Problem>, pulls: &[Operation]) -> Observed {
    let mut results = Results::default();
    for pull in pulls {
        if let Some((registry, verdict)) = Verdict::of(pull) {
            assert_eq!(registry, "mine");
            results.take(verdict);
        }
    }
    Observed { secret: secret.map(str::to_owned), results }
}

fn shown(status: &RegistryStatus) -> String {
    let ready = find_condition(&status.conditions, "Ready").expect("always there");
    let second = |time: &Option<Time>| time.as_ref().map_or(0, |time| time.0.as_second());
    let (taken, failed) = (second(&status.last_authenticated_time), second(&status.last_failure_time));
    format!("{} {} {taken} {failed}", ready.status, ready.reason)
}

const REFUSED: OperationReason = OperationReason::ImagePullUnauthorized;
const TAKEN: OperationReason = OperationReason::Succeeded;

#[test]
fn a_registry_is_as_its_secret_and_its_newest_pull_say() {
    let unusable = || Problem::Unusable { name: "pull".to_owned(), why: Why::Type };
    for (secret, pulls, wanted) in [
        (Err(Problem::NotFound("pull".to_owned())), vec![], "False SecretNotFound 0 0"),
        (Err(unusable()), vec![pull(20, "1", TAKEN)], "False SecretUnusable 20 0"),
        (Ok("1"), vec![], "Unknown NotTried 0 0"),
        (Ok("1"), vec![pull(20, "1", TAKEN)], "True Authenticated 20 0"),
        (Ok("1"), vec![pull(20, "1", REFUSED)], "False Unauthorized 0 20"),
        (Ok("1"), vec![pull(20, "1", REFUSED), pull(30, "1", TAKEN)], "True Authenticated 30 20"),
        (Ok("1"), vec![pull(30, "1", REFUSED), pull(20, "1", TAKEN)], "False Unauthorized 20 30"),
        // The Secret was changed since.
        (Ok("2"), vec![pull(20, "1", REFUSED)], "Unknown NotTried 0 20"),
        (Ok("2"), vec![pull(20, "1", REFUSED), pull(30, "2", TAKEN)], "True Authenticated 30 20"),
        // What ended for other reasons says nothing of the credentials.
        (Ok("1"), vec![pull(20, "1", OperationReason::DockerError)], "Unknown NotTried 0 0"),
        // From before there was this Registry.
        (Ok("1"), vec![pull(5, "1", TAKEN)], "Unknown NotTried 0 0"),
    ] {
        let told = format!("{secret:?} {pulls:?}");

        let status = plan(&registry(), &observed(secret, &pulls), at(60));

        assert_eq!(shown(&status), wanted, "{told}");
        assert_eq!(status.observed_generation, Some(1));
    }
}

#[test]
fn a_pull_that_used_another_server_or_secret_says_nothing() {
    let mut other_server = registry();
    other_server.spec.server = "other.example".to_owned();
    let mut other_secret = registry();
    other_secret.spec.secret_ref.name = "other".to_owned();
    let mut own = pull(20, "1", TAKEN);
    own.status.as_mut().expect("set").pull_credentials.as_mut().expect("set").registry_ref = None;

    for (registry, pull) in
        [(other_server, pull(20, "1", TAKEN)), (other_secret, pull(20, "1", TAKEN)), (registry(), own)]
    {
        let status = plan(&registry, &observed(Ok("1"), &[pull]), at(60));
        assert_eq!(shown(&status), "Unknown NotTried 0 0");
    }
}

#[test]
fn what_is_known_outlives_the_pull_that_told_it() {
    let mut registry = registry();
    registry.status = Some(plan(&registry, &observed(Ok("1"), &[pull(20, "1", REFUSED)]), at(20)));

    let same = plan(&registry, &observed(Ok("1"), &[]), at(60));
    assert_eq!(Some(&same), registry.status.as_ref());

    let rotated = plan(&registry, &observed(Ok("2"), &[]), at(60));
    assert_eq!(shown(&rotated), "Unknown NotTried 0 20");
    registry.metadata.generation = Some(2);
    let changed = plan(&registry, &observed(Ok("1"), &[]), at(60));
    assert_eq!(shown(&changed), "Unknown NotTried 0 20");
}

#[test]
fn of_two_ends_in_one_second_that_of_the_later_pull_counts() {
    for (taken, refused, wanted) in
        [("1", "2", "False Unauthorized 20 20"), ("2", "1", "True Authenticated 20 20")]
    {
        let with_uid = |uid: &str, result| {
            let mut pull = pull(20, "1", result);
            pull.metadata.uid = Some(uid.to_owned());
            pull
        };
        let pulls = [with_uid(taken, TAKEN), with_uid(refused, REFUSED)];

        assert_eq!(shown(&plan(&registry(), &observed(Ok("1"), &pulls), at(60))), wanted);
    }
}

#[test]
fn an_older_end_that_is_heard_of_late_takes_nothing_back() {
    let mut results = Results::default();
    let verdict = |second| Verdict::of(&pull(second, "1", TAKEN)).expect("it has ended").1;

    assert!(results.take(verdict(30)));
    assert!(!results.take(verdict(30)) && !results.take(verdict(20)));
}
