//! t13: what a container gets of its host is known however it is written.

use std::collections::BTreeMap;

use gantry_api::v1alpha1::PolicyAction;

use super::examples::example;
use super::*;

fn volume(driver: &str, options: &[(&str, &str)]) -> Vec<Mount> {
    let options: BTreeMap<_, _> =
        options.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    Mount::volume("data", "/host", false, driver, &options)
}

#[test]
fn t13_the_root_of_the_host_is_known_in_every_spelling() {
    let policy = example("no-host-root.yaml");
    let binds = [
        "/:/host",
        "/:/host:ro",
        "/:/host:ro,rslave",
        "//:/host",
        "///:/host",
        "/.:/host",
        "/./:/host",
        "/..:/host",
        "/../..:/host",
        "/./../.:/host",
        "/etc/..:/host",
        "/etc/../:/host",
        "/etc/./../:/host",
        "//etc//..//:/host",
        "/a/b/../..:/host",
        "/a/b/c/../../../..:/host",
        "/proc/1/root:/host",
        "/proc/self/root:/host",
        "/proc/thread-self/root:/host",
        "/proc/1/cwd:/host",
        "/proc/1/task/1/root:/host",
        "/proc/self/fd/7:/host",
        "/proc/../proc/1/./root:/host",
        "/dev/fd/7:/host",
    ];
    let init = "/proc/1/root";
    let through_init = ["/", "/.", init].map(|rest| format!("{init}{rest}:/host"));
    let doubled = format!("{}//:/host", init.replace('/', "//"));
    let volumes = [
        volume("local", &[("type", "none"), ("o", "bind"), ("device", "/")]),
        volume("", &[("type", "none"), ("o", "bind"), ("device", "/")]),
        volume("local", &[("o", "rbind"), ("device", "//")]),
        volume("local", &[("o", "ro,bind"), ("device", "/etc/..")]),
        volume("local", &[("type", "tmpfs"), ("o", "bind"), ("device", "/")]),
        volume("local", &[("TYPE", "none"), ("O", "BIND"), ("Device", "/proc/1/root")]),
        volume("local", &[("type", "overlay"), ("device", "overlay"), ("o", "lowerdir=/tmp/a:/")]),
        volume(
            "local",
            &[("type", "overlay"), ("device", "overlay"), ("o", "lowerdir=/a,upperdir=/,workdir=/b")],
        ),
    ];
    let binds = binds.into_iter().chain(through_init.iter().map(String::as_str)).chain([&*doubled]);
    let mounts = binds.map(|bind| vec![Mount::parse(bind)]);
    let mounts = mounts.chain(volumes).chain([vec![Mount::bind("/tmp/..", "/host", true)]]);
    let (source, target) = ("/etc/..".to_owned(), "/host".to_owned());
    let raw = Mount { kind: MountType::Bind, source, target, read_only: false };
    let mounts: Vec<_> = mounts.chain([vec![raw]]).collect();
    assert!(mounts.len() >= 28);
    for mounts in mounts {
        let told = format!("{mounts:?}");
        let verdict = judge([&policy], &Subject { mounts, ..subject() });
        let refusal = verdict.refusal().unwrap_or_default();
        assert!(refusal.contains("the root of the host cannot be mounted"), "{told}: {refusal}");
    }
}

#[test]
fn t13_a_volume_is_made_with_the_same_rules() {
    let policy = example("no-host-root.yaml");
    let with = |mounts| Subject {
        action: PolicyAction::Create,
        target: Target { kind: TargetKind::Volume, name: "data".to_owned() },
        image: None,
        container: None,
        mounts,
        ..subject()
    };

    let bound = judge([&policy], &with(volume("local", &[("o", "bind"), ("device", "/")])));
    let plain = judge([&policy], &with(volume("local", &[])));

    assert!(bound.refusal().is_some());
    assert_eq!(plain.refusal(), None);
}

#[test]
fn what_is_not_the_root_of_the_host_is_left_alone() {
    let policy = example("no-host-root.yaml");
    let allowed = [
        vec![Mount::parse("/srv/data:/data")],
        vec![Mount::parse("/rootfs:/data")],
        vec![Mount::parse("/proc:/host/proc:ro")],
        vec![Mount::parse("data:/data")],
        vec![Mount::parse("/data")],
        volume("local", &[("type", "nfs"), ("o", "addr=10.0.0.1"), ("device", ":/")]),
        volume("local", &[("type", "tmpfs"), ("device", "tmpfs"), ("o", "size=1m")]),
        volume("local", &[]),
    ];
    for mounts in allowed {
        let told = format!("{mounts:?}");
        assert_eq!(judge([&policy], &Subject { mounts, ..subject() }).refusal(), None, "{told}");
    }
    let socket =
        judge([&policy], &Subject { mounts: vec![Mount::parse("/var/run//docker.sock:/s")], ..subject() });
    assert!(socket.refusal().is_some_and(|why| why.contains("socket")));
    assert_eq!(host_path("srv/./data/"), "/srv/data");
}

/// Privileges, capabilities, namespaces, devices and profiles, each in the spellings that engines take.
#[test]
fn t13_more_than_a_container_usually_has_is_known_in_every_spelling() {
    let policy = example("no-privileged.yaml");
    let text = |text: &str| text.to_owned();
    let usual = Container { network_mode: text("bridge"), ..Container::default() };
    let with = |container: Container| {
        judge([&policy], &Subject { container: Some(container), ..subject() }).refusal()
    };
    assert_eq!(with(usual.clone()), None);
    for capability in ["chown", "CAP_CHOWN", "cap_net_bind_service"] {
        assert_eq!(with(Container { capabilities_add: vec![text(capability)], ..usual.clone() }), None);
    }
    for options in ["no-new-privileges:true", "no-new-privileges", "seccomp=builtin"] {
        assert_eq!(with(Container { security_options: vec![text(options)], ..usual.clone() }), None);
    }

    let mut refused = vec![Container { privileged: true, ..usual.clone() }];
    for capability in ["ALL", "all", "CAP_ALL", "sys_admin", "CAP_SYS_ADMIN", " SYS_ADMIN"] {
        refused.push(Container { capabilities_add: vec![text(capability)], ..usual.clone() });
    }
    for option in [
        "seccomp=unconfined",
        "seccomp:unconfined",
        "SECCOMP = unconfined",
        "apparmor:unconfined",
        "label=disable",
        "systempaths=unconfined",
        "seccomp={\"defaultAction\": \"SCMP_ACT_ALLOW\"}",
    ] {
        refused.push(Container { security_options: vec![text(option)], ..usual.clone() });
    }
    let host = || text("host");
    refused.extend([
        Container { network_mode: host(), ..usual.clone() },
        Container { pid_mode: host(), ..usual.clone() },
        Container { ipc_mode: host(), ..usual.clone() },
        Container { uts_mode: host(), ..usual.clone() },
        Container { userns_mode: host(), ..usual.clone() },
        Container { cgroupns_mode: host(), ..usual.clone() },
        Container { devices: vec![text("/dev/../dev/sda")], ..usual.clone() },
        Container { device_rules: vec![text("b 8:* rwm")], ..usual.clone() },
    ]);
    for container in refused {
        let told = format!("{container:?}");
        assert!(with(container).is_some(), "{told}");
    }
}
