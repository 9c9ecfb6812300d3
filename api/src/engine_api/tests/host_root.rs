//! t13: the root of the host by many names, and each of them told as what it is.

use serde_json::{Value, json};

use crate::engine_api::facts::{Facts, MountKind};
use crate::engine_api::{Json, Parsed};

fn create(host: &Value) -> Facts {
    let body = json!({"Image": "a", "HostConfig": host}).to_string();
    let Ok(Parsed::ContainerCreate(body)) = Json::ContainerCreate.read(body.as_bytes()) else {
        panic!("refused: {body}")
    };
    Facts::of_create(&body)
}

fn volume(body: &Value) -> Facts {
    let Ok(Parsed::VolumeCreate(body)) = Json::VolumeCreate.read(body.to_string().as_bytes()) else {
        panic!("refused: {body}")
    };
    Facts::of_volume(&body)
}

#[test]
fn t13_the_root_of_the_host_is_told_however_it_is_mounted() {
    let binds = [
        "/:/h",
        "//:/h",
        "/.:/h",
        "/./:/h",
        "/..:/h",
        "/../..:/h",
        "/etc/..:/h",
        "/etc/../:/h",
        "/a/b/../../:/h",
        "///.//..//:/h",
        "/:/h:ro",
        "/:/h:rw,z",
        "/:/h:rslave",
        "/proc/../:/h:ro,rprivate",
    ];
    let mounts = [
        json!({"Type": "bind", "Source": "/", "Target": "/h"}),
        json!({"Type": "bind", "Source": "/.", "Target": "/h", "ReadOnly": true}),
        json!({"Type": "bind", "Source": "//", "Target": "/h", "BindOptions": {"Propagation": "rshared"}}),
        json!({"Type": "bind", "Source": "/usr/..", "Target": "/h", "BindOptions": {"CreateMountpoint": true}}),
        // No engine takes these; where one did, it would be this.
        json!({"Type": "volume", "Source": "/", "Target": "/h"}),
        json!({"Source": "/", "Target": "/h"}),
        json!({"Type": "Bind", "Source": "/", "Target": "/h"}),
    ];
    let drivers = [
        json!({"Name": "local", "Options": {"type": "none", "o": "bind", "device": "/"}}),
        json!({"Name": "", "Options": {"type": "none", "o": "bind", "device": "/"}}),
        json!({"Options": {"type": "none", "o": "rbind", "device": "/"}}),
        json!({"Name": "local", "Options": {"o": "ro,bind", "device": "/./"}}),
        json!({"Name": "local", "Options": {"type": "", "o": "bind,ro", "device": "//"}}),
        json!({"Name": "local", "Options": {"type": "nfs", "o": "bind", "device": "/"}}),
        json!({"Name": "local", "Options": {"type": "tmpfs", "o": "rbind", "device": "/usr/.."}}),
        json!({"Name": "local", "Options": {"type": "overlay", "o": "lowerdir=/:/var", "device": "overlay"}}),
        json!({"Name": "local", "Options": {"type": "overlay", "o": "lowerdir=.:/var", "device": "overlay"}}),
        json!({"Name": "local", "Options": {"type": "proc", "device": "proc"}}),
    ];

    let mut all: Vec<Facts> = binds.iter().map(|bind| create(&json!({"Binds": [bind]}))).collect();
    all.extend(mounts.iter().map(|mount| create(&json!({"Mounts": [mount]}))));
    all.extend(drivers.iter().map(|driver| {
        let options = json!({"DriverConfig": driver});
        create(
            &json!({"Mounts": [{"Type": "volume", "Source": "v", "Target": "/h", "VolumeOptions": options}]}),
        )
    }));
    all.extend(drivers.iter().map(|driver| {
        volume(&json!({"Name": "v", "Driver": driver["Name"], "DriverOpts": driver["Options"]}))
    }));

    assert!(all.len() >= 28, "{}", all.len());
    for (index, facts) in all.iter().enumerate() {
        assert!(facts.host_paths().any(|path| path == "/"), "{index}: {facts:?}");
    }
}

#[test]
fn t13_what_is_as_good_as_root_is_told_too() {
    assert!(create(&json!({"Privileged": true})).privileged);
    for name in ["SYS_ADMIN", "sys_admin", "CAP_SYS_ADMIN", "cap_sys_admin", " Cap_Sys_Admin"] {
        assert_eq!(
            create(&json!({"CapAdd": [name]})).capabilities_add,
            ["SYS_ADMIN".to_owned()].into(),
            "{name}"
        );
    }
    assert_eq!(create(&json!({"CapAdd": "all"})).capabilities_add, ["ALL".to_owned()].into());
    assert_eq!(create(&json!({"Devices": [{"PathOnHost": "/dev/../dev//sda"}]})).devices, ["/dev/sda"]);
    let gpus =
        create(&json!({"DeviceRequests": [{"Count": -1, "Capabilities": [["gpu"], ["nvidia", "compute"]]}]}));
    assert_eq!((gpus.device_requests[0].count, gpus.device_requests[0].capabilities.len()), (-1, 3));
    let described =
        create(&json!({"DeviceRequests": [{"Driver": "cdi", "DeviceIDs": ["vendor.example/gpu=0"]}]}));
    assert_eq!(described.device_requests[0].ids, ["vendor.example/gpu=0"]);
    assert_eq!(create(&json!({"DeviceCgroupRules": ["a *:* rwm"]})).device_cgroup_rules, ["a *:* rwm"]);
    for option in ["seccomp=unconfined", "seccomp:unconfined"] {
        let expected = ["seccomp=unconfined".to_owned()].into();
        assert_eq!(create(&json!({"SecurityOpt": [option]})).security_options, expected, "{option}");
    }
    for host in
        [json!({"MaskedPaths": []}), json!({"ReadonlyPaths": []}), json!({"MaskedPaths": ["/proc/kcore"]})]
    {
        assert_eq!(create(&host).security_options, ["systempaths=unconfined".to_owned()].into());
    }
    for (field, value) in [
        ("PidMode", "host"),
        ("IpcMode", "host"),
        ("UTSMode", "host"),
        ("UsernsMode", "host"),
        ("CgroupnsMode", "host"),
    ] {
        let facts = create(&json!({field: value}));
        let modes =
            [&facts.pid_mode, &facts.ipc_mode, &facts.uts_mode, &facts.userns_mode, &facts.cgroupns_mode];
        assert_eq!(modes.iter().filter(|mode| **mode == "host").count(), 1, "{field}");
    }
    assert_eq!(create(&json!({"VolumesFrom": ["db:ro"]})).volumes_from, ["db:ro"]);
    for host in [
        json!({"Binds": ["v:/h"], "VolumeDriver": "sshfs"}),
        json!({"Binds": ["/h"], "VolumeDriver": "sshfs"}),
        json!({"Mounts": [{"Type": "volume", "Target": "/h", "VolumeOptions": {"DriverConfig": {"Name": "sshfs"}}}]}),
    ] {
        assert_eq!(create(&host).mounts[0].driver, "sshfs", "{host}");
    }
    assert_eq!(create(&json!({"NetworkMode": "container:db"})).network_mode, "container:db");
}

#[test]
fn t13_the_host_s_network_is_told_also_where_it_is_an_endpoint() {
    let body = json!({"Image": "a", "NetworkingConfig": {"EndpointsConfig": {"host": null}}}).to_string();
    let Ok(Parsed::ContainerCreate(body)) = Json::ContainerCreate.read(body.as_bytes()) else {
        panic!("refused")
    };

    assert!(Facts::of_create(&body).networks.contains("host"));
    assert!(create(&json!({"NetworkMode": "host"})).networks.contains("host"));
}

#[test]
fn what_is_no_path_of_the_host_is_not_told_as_one() {
    let facts = create(&json!({"Binds": ["v:/data", "/anonymous"], "Tmpfs": {"/t": ""}, "Mounts": [
        {"Type": "volume", "Source": "v", "Target": "/a", "VolumeOptions": {"DriverConfig":
            {"Name": "local", "Options": {"type": "nfs", "o": "addr=10.0.0.1,rw", "device": ":/export"}}}},
        {"Type": "tmpfs", "Target": "/b"}, {"Type": "image", "Source": "app:1", "Target": "/c"}]}));

    assert_eq!(facts.host_paths().count(), 0, "{facts:?}");
    assert_eq!(facts.mounts.iter().filter(|mount| mount.kind == MountKind::Volume).count(), 3);
}
