//! The policies of `examples/policies`, on what hosts are asked for.

use std::path::Path;

use gantry_api::v1alpha1::PolicyAction;

use super::*;

pub(super) fn example(name: &str) -> Compiled {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/policies").join(name);
    let text = std::fs::read_to_string(path).expect("an example");
    let manifest: Value = gantry_api::yaml::read_manifest(&text).expect("YAML");
    assert_eq!(check(&manifest["spec"]), []);
    Compiled::new(format!("policy/{}", manifest["metadata"]["name"]), &manifest["spec"])
}

fn of_image(action: PolicyAction, reference: &str) -> Subject {
    Subject { action, image: Some(Image::parse(reference)), ..subject() }
}

#[test]
fn only_our_registries_are_allowed_however_they_are_written() {
    let policy = example("only-registries.yaml");
    let is_refused =
        |action, reference: &str| judge([&policy], &of_image(action, reference)).refusal().is_some();
    let id = "a".repeat(64);
    for action in [PolicyAction::Pull, PolicyAction::Create, PolicyAction::Push] {
        for ours in ["registry.example/app", "REGISTRY.example/app:1", "mirror.example:5000/a/b"] {
            assert!(!is_refused(action, ours), "{ours}");
        }
        for other in [
            "nginx",
            "docker.io/nginx",
            "registry.example",
            "registry.example.evil/app",
            "registry.example:5000/app",
            "mirror.example/app",
            "evil/registry.example/app",
            &id,
        ] {
            assert!(is_refused(action, other), "{other}");
        }
    }
    assert!(!is_refused(PolicyAction::Remove, "nginx"));
}

#[test]
fn only_digests_are_allowed_in_production() {
    let policy = example("only-digests.yaml");
    let by_digest = format!("registry.example/app@sha256:{}", "0".repeat(64));
    let refusal = |subject: &Subject| judge([&policy], subject).refusal();

    assert_eq!(refusal(&of_image(PolicyAction::Pull, &by_digest)), None);
    for tagged in ["registry.example/app", "registry.example/app:1", "sha256/app:2"] {
        let why = refusal(&of_image(PolicyAction::Create, tagged)).unwrap_or_default();
        assert!(why.contains("by its digest"), "{tagged}: {why}");
    }
    let elsewhere = Subject { namespace_labels: BTreeMap::new(), ..of_image(PolicyAction::Pull, "a:1") };
    assert_eq!(refusal(&elsewhere), None);
}
