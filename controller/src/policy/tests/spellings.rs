//! t13: what a container gets of its host is known however it is written. Bodies are read by what reads them at the Docker endpoint.

use gantry_api::v1alpha1::PolicyAction;

use super::examples::example;
use super::*;

/// A request to make a volume with these options.
fn volume(body: &Value) -> Subject {
    let Ok(Parsed::VolumeCreate(body)) = Json::VolumeCreate.read(body.to_string().as_bytes()) else {
        panic!("refused: {body}")
    };
    let target = Target { kind: TargetKind::Volume, name: String::new() };
    Subject {
        action: PolicyAction::Create,
        target,
        image: None,
        container: None,
        ..of(&Facts::of_volume(&body))
    }
}

/// The same options for a volume that is made, and for one that is made together with its container.
fn both(options: &Value) -> [Subject; 2] {
    let config = json!({"DriverConfig": {"Options": options}});
    let mount = json!({"Type": "volume", "Source": "v", "Target": "/host", "VolumeOptions": config});
    [volume(&json!({"Name": "v", "DriverOpts": options})), made(&json!({"Mounts": [mount]}))]
}

fn refusal(policy: &Compiled, subject: &Subject) -> String {
    judge([policy], subject).refusal().unwrap_or_default()
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
        concat!("/proc/1/root", "/:/host"),
        concat!("/proc/1/root", "/.:/host"),
        concat!("/proc/1/root", "/proc/1/root:/host"),
        concat!("//proc//1//root", "//:/host"),
        "/proc/self/root:/host",
        "/proc/thread-self/root:/host",
        "/proc/1/cwd:/host",
        "/proc/1/task/1/root:/host",
        "/proc/self/fd/7:/host",
        "/proc/../proc/1/./root:/host",
        "/dev/fd/7:/host",
    ];
    let volumes = [
        json!({"type": "none", "o": "bind", "device": "/"}),
        json!({"o": "rbind", "device": "//"}),
        json!({"o": "ro,bind", "device": "/etc/.."}),
        json!({"type": "tmpfs", "o": "bind", "device": "/"}),
        json!({"type": "none", "o": "bind", "device": "."}),
        json!({"TYPE": "none", "O": "BIND", "Device": "/proc/1/root"}),
        json!({"device": "/", "Device": "/srv", "o": "bind"}),
        json!({"type": "overlay", "device": "overlay", "o": "lowerdir=/tmp/a:/"}),
        json!({"type": "overlay", "device": "overlay", "o": "lowerdir=/a,upperdir=/,workdir=/b"}),
        // Where the engine stands, and what only the kernel reads as a slash.
        json!({"type": "overlay", "device": "overlay", "o": "lowerdir=.:/tmp/a"}),
        json!({"type": "overlay", "device": "overlay", "o": "lowerdir=etc/..:/tmp/a"}),
        json!({"type": "overlay", "device": "overlay", "o": "lowerdir+=/,lowerdir+=/tmp/a"}),
        json!({"type": "overlay", "device": "overlay", "o": r"lowerdir=\/:/tmp/a"}),
        // Where the kernel shows itself, by whatever name.
        json!({"type": "proc", "device": "none"}),
        json!({"type": "sysfs", "device": "data"}),
        json!({"type": "devtmpfs", "device": "/srv/data"}),
        json!({"type": "cgroup", "device": "cgroup", "o": "memory"}),
        json!({"type": "unheard-of", "device": "/srv/data"}),
    ];
    let subjects = binds.iter().map(|bind| bound(bind)).chain(volumes.iter().flat_map(both));
    let mount = json!({"Type": "bind", "Source": "/tmp/..", "Target": "/host", "ReadOnly": true});
    let subjects: Vec<_> = subjects.chain([made(&json!({"Mounts": [mount]}))]).collect();
    assert!(subjects.len() >= 28);
    for subject in subjects {
        let why = refusal(&policy, &subject);
        assert!(why.contains("the root of the host cannot be mounted"), "{:?}: {why}", subject.mounts);
    }
}

#[test]
fn t13_what_is_as_good_as_the_root_of_the_host_is_not_mounted() {
    let policy = example("no-host-root.yaml");
    let binds = [
        "/var/run//docker.sock:/s",
        "/run/docker.sock:/s:ro",
        "/var/run:/s",
        "/run/containerd/containerd.sock:/s",
        "/run/systemd/private:/s",
        "/var:/v",
        "/var/lib:/v:ro",
        "/var/lib/docker/volumes:/v",
        "/dev:/d",
        "/dev/sda1:/d:ro",
        "/etc:/e",
        "/etc/cron.d:/e:rw,z",
        concat!("/root", "/.ssh:/r"),
        "/usr/bin:/b",
        "/proc/sys/kernel:/p",
        "/sys/kernel:/p",
        "/var/spool/cron:/c",
        concat!("/proc/1/root", "/etc:/e"),
    ];
    let volumes = [
        json!({"type": "ext4", "device": "/dev/sda1"}),
        json!({"type": "xfs", "device": "dev/sda1"}),
        json!({"type": "btrfs", "device": "/srv/image", "o": "device=/dev/sdb"}),
        json!({"type": "none", "o": "bind", "device": "/etc/cron.d"}),
        json!({"type": "overlay", "device": "overlay", "o": "lowerdir=/srv,upperdir=/etc,workdir=/srv/w"}),
    ];
    let drivers = [
        made(&json!({"Binds": ["v:/v"], "VolumeDriver": "local-persist"})),
        made(
            &json!({"Mounts": [{"Type": "volume", "Target": "/v", "VolumeOptions": {"DriverConfig": {"Name": "sshfs"}}}]}),
        ),
        volume(&json!({"Name": "v", "Driver": "local-persist", "DriverOpts": {"mountpoint": "/"}})),
        made(&json!({"VolumesFrom": ["other"]})),
    ];
    for subject in binds.iter().map(|bind| bound(bind)).chain(volumes.iter().flat_map(both)).chain(drivers) {
        assert_ne!(refusal(&policy, &subject), "", "{subject:?}");
    }
    let anonymous = json!({"Image": "a", "Volumes": {"/data": {}}, "HostConfig": {"VolumeDriver": "sshfs"}});
    let Ok(Parsed::ContainerCreate(body)) = Json::ContainerCreate.read(anonymous.to_string().as_bytes())
    else {
        panic!("refused")
    };
    assert_ne!(refusal(&policy, &of(&Facts::of_create(&body))), "", "its volumes have no name and a driver");
}

#[test]
fn what_is_not_the_root_of_the_host_is_left_alone() {
    let policy = example("no-host-root.yaml");
    let allowed = [
        bound("/srv/data:/data"),
        bound("/rootfs:/data"),
        bound("/device:/data"),
        bound("/proc:/host/proc:ro"),
        bound("/etc/localtime:/etc/localtime:ro"),
        bound("/home/ada/project:/src"),
        bound("data:/data"),
        bound("/data"),
        made(&json!({"Tmpfs": {"/tmp": ""}, "VolumeDriver": "local"})),
    ];
    let volumes = [
        json!({}),
        json!({"size": "1g"}),
        json!({"type": "nfs", "o": "addr=10.0.0.1", "device": ":/"}),
        json!({"type": "tmpfs", "device": "tmpfs", "o": "size=1m"}),
        json!({"type": "none", "o": "bind", "device": "/srv/data"}),
        json!({"type": "overlay", "device": "overlay", "o": "lowerdir=/srv/a:/srv/b,upperdir=/srv/c,workdir=/srv/d"}),
    ];
    for subject in allowed.into_iter().chain(volumes.iter().flat_map(both)) {
        assert_eq!(refusal(&policy, &subject), "", "{:?}", subject.mounts);
    }
    assert_eq!(host_path("srv/./data/"), "/srv/data");
}

/// Privileges, capabilities, namespaces, devices, profiles and runtimes, each in the spellings that engines take.
#[test]
fn t13_more_than_a_container_usually_has_is_known_in_every_spelling() {
    let policy = example("no-privileged.yaml");
    for usual in [
        json!({}),
        json!({"NetworkMode": "default", "RestartPolicy": {"Name": "always"}, "Memory": 1 << 20}),
        json!({"NetworkMode": "shop", "IpcMode": "private", "CgroupnsMode": "private", "UsernsMode": ""}),
        json!({"CapAdd": ["chown", "CAP_CHOWN", "cap_net_bind_service"], "CapDrop": ["ALL"]}),
        json!({"SecurityOpt": ["no-new-privileges:true", "no-new-privileges", "seccomp=builtin"]}),
        json!({"Runtime": "runc", "LogConfig": {"Type": "json-file"}, "GroupAdd": ["audio"]}),
    ] {
        assert_eq!(refusal(&policy, &made(&usual)), "", "{usual}");
    }
    let mut hosts = vec![
        json!({"Privileged": true}),
        json!({"NetworkMode": "host"}),
        json!({"NetworkMode": "container:proxy"}),
        json!({"PidMode": "host"}),
        json!({"PidMode": "container:proxy"}),
        json!({"IpcMode": "host"}),
        json!({"IpcMode": "container:proxy"}),
        json!({"UTSMode": "host"}),
        json!({"UsernsMode": "host"}),
        json!({"CgroupnsMode": "host"}),
        json!({"Cgroup": "container:proxy"}),
        json!({"Devices": [{"PathOnHost": "/dev/../dev/sda"}]}),
        json!({"DeviceCgroupRules": ["b 8:* rwm"]}),
        json!({"DeviceRequests": [{"Driver": "nvidia", "Count": -1}]}),
        json!({"DeviceRequests": [{"Count": 1, "Capabilities": [["gpu"]]}]}),
        json!({"DeviceRequests": [{"Driver": "cdi", "DeviceIDs": ["vendor.example/disk=all"]}]}),
        json!({"MaskedPaths": []}),
        json!({"ReadonlyPaths": []}),
        json!({"Runtime": "kata"}),
        json!({"Annotations": {"org.systemd.property.DeviceAllow": "[('/dev/sda', 'rwm')]"}}),
    ];
    for capability in ["ALL", "all", "CAP_ALL", "sys_admin", "CAP_SYS_ADMIN", " SYS_ADMIN"] {
        hosts.push(json!({"CapAdd": [capability]}));
        hosts.push(json!({"CapAdd": capability}));
    }
    for option in [
        "seccomp=unconfined",
        "seccomp:unconfined",
        "SECCOMP = unconfined",
        "apparmor:unconfined",
        "label=disable",
        "label:type:spc_t",
        "systempaths=unconfined",
        "writable-cgroups=true",
        "seccomp={\"defaultAction\": \"SCMP_ACT_ALLOW\"}",
    ] {
        hosts.push(json!({"SecurityOpt": [option]}));
    }
    for host in hosts {
        assert_ne!(refusal(&policy, &made(&host)), "", "{host}");
    }
}

/// What is no way to the root of a host, and still something that a rule may want to know of.
#[test]
fn t13_rules_see_what_else_a_container_has_of_its_host() {
    let host = json!({"CgroupParent": "/other", "Sysctls": {"net.ipv4.ip_forward": "1"}, "GroupAdd": ["0"], "Links": ["db:db"],
        "LogConfig": {"Type": "syslog", "Config": {"syslog-address": "unixgram:///run/log"}}, "OomScoreAdj": -1000,
        "Binds": ["/srv:/a:rshared"], "Mounts": [{"Type": "bind", "Source": "/srv", "Target": "/b", "BindOptions": {"Propagation": "rslave"}}],
        "DeviceRequests": [{"Driver": "cdi", "DeviceIDs": ["vendor.example/gpu=0"]}], "VolumeDriver": "sshfs"});
    let subject = made(&host);
    for holds in [
        "request.container.cgroupParent == '/other' && request.container.sysctls['net.ipv4.ip_forward'] == '1'",
        "'0' in request.container.groupAdd && request.container.links == ['db:db']",
        "request.container.logDriver == 'syslog' && request.container.oomScoreAdj == -1000",
        "request.container.logOptions['syslog-address'].startsWith('unixgram:')",
        "request.mounts.map(m, m.propagation) == ['rshared', 'rslave']",
        "request.container.deviceRequests.all(r, r.driver == 'cdi' && r.ids == ['vendor.example/gpu=0'])",
        "size(request.container.annotations) == 0 && size(request.container.networks) == 0",
    ] {
        assert_eq!(denied(&rule(holds), &subject), "", "{holds}");
    }
}
