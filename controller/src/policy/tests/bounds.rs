//! t24: what rules cost is known before they run.

use super::*;

/// As large as a subject may be.
fn largest() -> Subject {
    let text = |length: usize| "x".repeat(length);
    let path = || format!("/{}", text(1023));
    let image = || Image {
        reference: text(512),
        server: text(512),
        repository: text(512),
        tag: Some(text(512)),
        digest: Some(text(512)),
    };
    let settings = || (0..32).map(|number| (format!("{number:256}"), text(512))).collect();
    let mount = || Mount {
        kind: MountType::Bind,
        source: path(),
        target: path(),
        read_only: true,
        driver: text(128),
        propagation: text(16),
    };
    let labels = (0..128).map(|number| (format!("{number:317}"), text(63)));
    Subject {
        image: Some(image()),
        new_image: Some(image()),
        parameters: Parameters {
            force: true,
            remove_volumes: true,
            signal: Some(text(16)),
            new_name: Some(text(512)),
            platform: Some(text(512)),
        },
        user: text(512),
        groups: vec![text(256); 256],
        namespace: text(512),
        instance: Instance { name: text(512), labels: Some(labels.collect()) },
        container: Some(Container {
            privileged: true,
            user: text(512),
            network_mode: text(512),
            pid_mode: text(512),
            ipc_mode: text(512),
            uts_mode: text(512),
            userns_mode: text(512),
            cgroupns_mode: text(512),
            cgroup: text(512),
            cgroup_parent: text(512),
            networks: vec![text(256); 32],
            capabilities_add: vec![text(256); 64],
            devices: vec![path(); 64],
            device_rules: vec![text(256); 64],
            device_requests: vec![
                DeviceRequest {
                    driver: text(512),
                    ids: vec![text(256); 16],
                    count: -1,
                    capabilities: vec![text(256); 16],
                };
                16
            ],
            security_options: vec![format!("a={}", text(254)); 32],
            volumes_from: vec![text(256); 32],
            runtime: text(512),
            annotations: settings(),
            sysctls: settings(),
            group_add: vec![text(256); 32],
            links: vec![text(256); 32],
            log_driver: text(512),
            log_options: settings(),
            oom_score_adj: -1000,
        }),
        mounts: vec![mount(); 64],
        ..subject()
    }
}

/// Else a rule could name what is never there, or miss what is.
#[test]
fn every_field_of_a_request_is_known_and_no_other() {
    let value = serde_json::to_value(largest()).expect("JSON");
    assert_eq!(subject::SHAPE.check(&value), Ok(()));
    for (name, value) in value.as_object().expect("fields") {
        assert_eq!(check(&rule(&format!("has(request.{name})"))), [], "{name}");
        if !matches!(name.as_str(), "container" | "parameters" | "image" | "newImage" | "target" | "instance")
        {
            continue;
        }
        let known = subject::SHAPE.names(name);
        let fields: Vec<_> = value.as_object().expect("fields").keys().cloned().collect();
        assert_eq!(known.len(), fields.len(), "{name}: {known:?} {fields:?}");
        for field in fields {
            assert_eq!(check(&rule(&format!("has(request.{name}.{field})"))), [], "{name}.{field}");
        }
    }
    assert_eq!(subject::SHAPE.names("").len(), value.as_object().expect("fields").len());
}

#[test]
fn t24_a_request_that_is_more_than_can_be_judged_is_denied() {
    let policy = policy(&rule("true"));
    let mut subject = largest();
    assert_eq!(judge([&policy], &subject).refusal(), None);

    subject.mounts.extend(bound("/a:/b").mounts);
    insta::assert_snapshot!(judge([&policy], &subject).refusal().unwrap_or_default(), @"policy/p: request.mounts is more than can be judged");
    let long = Subject { user: "x".repeat(513), ..self::subject() };
    insta::assert_snapshot!(judge([&policy], &long).refusal().unwrap_or_default(), @"policy/p: request.user is more than can be judged");
}

#[test]
fn t24_an_expression_that_could_run_for_hours_is_refused_when_it_is_written() {
    let doubling = |levels: usize| {
        (0..levels).fold("request.user".to_owned(), |inner, _| {
            format!("[{inner}].map(x, x + x + x + x + x + x + x + x)[0]")
        })
    };
    let replacing = |times: usize| format!("'a'{} == ''", ".replace('a', 'aaaaaaaaaaaaaaaa')".repeat(times));
    let loops = |levels: usize| {
        let head =
            (0..levels).fold(String::new(), |head, level| format!("{head}request.groups.all(x{level}, "));
        format!("{head}true{}", ")".repeat(levels))
    };
    for bomb in [
        loops(3),
        loops(9),
        "request.mounts.all(m, request.mounts.all(n, request.groups.all(g, g != m.source + n.target)))".to_owned(),
        "request.groups.map(a, request.groups).all(l, l.all(g, l.exists(h, h == g)))".to_owned(),
        format!("{} == ''", doubling(7)),
        replacing(9),
        "[1, 2].all(a, [1, 2].all(b, [1, 2].all(c, [1, 2].all(d, [1, 2].all(e, true)))))".to_owned(),
        "lists.range(1000000000).size() > 0".to_owned(),
        "[1000000000].all(lists, lists.range(1000000000).size() > 0)".to_owned(),
        r"request.groups.all(g, g.matches('\\w+'))".to_owned(),
        "request.groups.join(request.groups.join(request.user)) == ''".to_owned(),
        "request.user.split('').map(a, request.user.split('')).size() == 0".to_owned(),
        "request.user.matches(request.image.tag)".to_owned(),
        "request.user.matches('(((a{60}){60}){60})')".to_owned(),
        "request.groups.all(g, g.matches('(a{20}){20}'))".to_owned(),
        format!("request.user.matches('{}')", "a".repeat(300)),
        "request.groups.map(a, request.groups + request.groups).map(b, b + b + b + b).all(c, c.all(d, d == 'x'))".to_owned(),
        "request.instance.labels.all(k, request.groups.exists(g, request.instance.labels[k] == g))".to_owned(),
        format!("{}true{}", "[".repeat(40), "]".repeat(40)),
    ] {
        let faults = check(&rule(&bomb));
        assert!(faults.iter().any(|fault| fault.field == "spec.rules[0].expression"), "{bomb}");
    }
}

#[test]
fn t24_what_people_write_is_not_refused_and_runs_over_the_largest_request() {
    let subject = largest();
    for usual in [
        "request.mounts.all(m, m.source != '/' && !m.source.startsWith('/etc/') && m.readOnly)",
        "request.mounts.all(m, ['/', '/etc', '/var/run', '/home'].all(p, m.source != p && !m.source.startsWith(p + '/')))",
        "request.groups.exists(g, g == 'ops' || g.startsWith('team-'))",
        "request.container.capabilitiesAdd.all(c, c in ['CHOWN', 'KILL']) && request.container.devices.size() == 0",
        "request.container.securityOptions.all(o, ['seccomp=', 'label='].exists(p, o.startsWith(p)))",
        "request.image.reference.matches('^registry[.]example/[a-z]+@sha256:[0-9a-f]{64}$')",
        "request.mounts.filter(m, m.type == 'bind').map(m, m.source).all(s, s.matches('^/srv/[a-z0-9-]+$'))",
        "request.instance.labels.exists(k, k == 'site') && request.groups.exists_one(g, g == 'a')",
        "request.image.server.endsWith('.example') && request.image.repository.split('/').size() == 2",
    ] {
        let spec = rule(usual);
        assert_eq!(check(&spec), [], "{usual}");
        let _ = judge([&policy(&spec)], &subject);
    }
}

#[test]
fn t24_policies_that_together_cost_too_much_are_not_all_asked_and_then_nothing_is_allowed() {
    let dear =
        "request.mounts.all(m, ['/a', '/b', '/c', '/d', '/e', '/f'].all(p, !m.source.startsWith(p + '/')))";
    let policy = policy(&rule(dear));

    assert_eq!(judge([&policy], &subject()).refusal(), None);
    let many = judge(std::iter::repeat_n(&policy, 100), &subject()).refusal().unwrap_or_default();

    assert!(many.contains("too many policies judge this together"), "{many}");
    let rules = (0..32).map(|number| json!({"name": format!("r{number}"), "expression": dear}));
    let faults = check(&json!({"rules": rules.collect::<Vec<_>>()}));
    assert_eq!(faults.iter().map(|fault| &*fault.field).collect::<Vec<_>>(), ["spec.rules"]);
}
