//! What Go's decoder would take and ours refuses.

use proptest::prelude::*;
use serde_json::{Value, json};

use crate::engine_api::{Json, MOST_JSON, Why};

fn refused(json: Json, body: &str) -> String {
    let refusal = json.read(body.as_bytes()).expect_err(body);
    assert_eq!(refusal.why, Why::Body, "{body}");
    refusal.message
}

/// t13, t13b: each of these gives a container more than its text shows at first sight, at one engine or another.
#[test]
fn t13_a_body_that_could_be_read_in_two_ways_is_refused() {
    for body in [
        r#"{"hostconfig":{"Privileged":true}}"#,
        r#"{"HostConfig":{"PRIVILEGED":true}}"#,
        r#"{"HostConfig":{"privileged":true}}"#,
        "{\"HostConfig\":{\"Bindſ\":[\"/:/h\"]}}",
        "{\"HostConfig\":{\"Mountſ\":[]}}",
        r#"{"HostConfig":{"Bind\u017f":["/:/h"]}}"#,
        r#"{"HostConfig":{},"HostConfig":{"Privileged":true}}"#,
        r#"{"HostConfig":{"Privileged":false,"Privileged":true}}"#,
        r#"{"HostConfig":{"Privileged":false,"\u0050rivileged":true}}"#,
        r#"{"HostConfig":{"Sysctls":{"a":"1","a":"2"}}}"#,
        r#"{"Privileged":true}"#,
        r#"{"Binds":["/:/h"]}"#,
        r#"{"PidMode":"host"}"#,
        r#"{"Memory":1}"#,
        r#"{"Image":"a"} {"HostConfig":{"Privileged":true}}"#,
        r#"{"Image":"a"}]"#,
        r#"[{"Image":"a"}]"#,
        r#"{"HostConfig":[["/:/h"]]}"#,
        r#"{"HostConfig":{"LogConfig":["a",{}]}}"#,
        r#"{"HostConfig":{"Privileged":"true"}}"#,
        r#"{"HostConfig":{"Privileged":1}}"#,
        r#"{"HostConfig":{"Binds":"/:/h"}}"#,
        r#"{"HostConfig":{"Binds":[null]}}"#,
        r#"{"HostConfig":{"Memory":"1"}}"#,
        r#"{"HostConfig":{"Memory":1.5}}"#,
        r#"{"HostConfig":{"Memory":99999999999999999999}}"#,
        r#"{"HostConfig":{"LxcConf":[]}}"#,
        r#"{"HostConfig":{"Mounts":[{"Type":"bind","Source":"/","ClusterOptions":{}}]}}"#,
        r#"{"Runtime":"runc"}"#,
        r#"{"ExposedPorts":{"80/tcp":{"a":1}}}"#,
        r#"{"ExposedPorts":["80/tcp"]}"#,
        "\u{feff}{}",
        "{\"Image\":\"\\ud800\"}",
        "{'Image':'a'}",
        r#"{"Image":"a",}"#,
        "// a\n{}",
        "",
        "null",
        "true",
    ] {
        refused(Json::ContainerCreate, body);
    }
    refused(Json::ExecStart, r#"{"Detach":true,"Privileged":true}"#);
    refused(Json::ExecCreate, r#"{"Cmd":["sh"],"privileged":true}"#);
    refused(Json::ContainerUpdate, r#"{"Privileged":true}"#);
    refused(Json::ContainerUpdate, r#"{"Binds":["/:/h"]}"#);
    refused(Json::VolumeCreate, r#"{"DriverOpts":{},"driveropts":{"o":"bind"}}"#);
    refused(Json::VolumeCreate, r#"{"ClusterVolumeSpec":{"Group":"a"}}"#);
    refused(Json::CommitConfig, r#"{"Config":{}}"#);
}

#[test]
fn a_refusal_names_the_field_and_no_value() {
    let said = [
        refused(Json::ContainerCreate, r#"{"HostConfig":{"Privilege":"planted"}}"#),
        refused(Json::ContainerCreate, r#"{"Image":"planted","Image":"planted"}"#),
        refused(Json::ContainerCreate, r#"{"Env":"planted"}"#),
        refused(Json::ContainerCreate, r#"{"Env":["planted"#),
    ];

    insta::assert_snapshot!(said.join("\n"), @r"
    the body's field `Privilege` is not known here
    the body's field `Image` comes twice
    a field of the body has another type than the Docker Engine API gives it
    the body is no JSON document, or more than one
    ");
}

#[test]
fn null_is_absence_and_one_word_is_a_list_of_one() {
    let read = |body: &str| Json::ContainerCreate.read(body.as_bytes()).unwrap().write();

    assert_eq!(read(r#"{"Image":"a","Env":null,"HostConfig":null,"Runtime":null}"#), br#"{"Image":"a"}"#);
    assert_eq!(read(r#"{"Cmd":"ls"}"#), br#"{"Cmd":"ls"}"#);
    assert_eq!(read(r#" {"ExposedPorts":{"80/tcp":{}}} "#), br#"{"ExposedPorts":{"80/tcp":{}}}"#);
    assert_eq!(Json::CommitConfig.read(b"").unwrap().write(), b"");
    assert_eq!(Json::CommitConfig.read(b"null").unwrap().write(), b"");
}

#[test]
fn t12_a_body_above_its_limit_and_one_that_is_deep_are_refused() {
    let long = format!(r#"{{"Image":"{}"}}"#, "a".repeat(MOST_JSON));
    assert_eq!(Json::ContainerCreate.read(long.as_bytes()).unwrap_err().why, Why::Size);

    let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
    refused(Json::ContainerCreate, &deep);
    let invalid = [br#"{"Image":""#.as_slice(), &[0xff], br#""}"#].concat();
    assert_eq!(Json::ContainerCreate.read(&invalid).unwrap_err().why, Why::Body);
}

fn arbitrary_json() -> impl Strategy<Value = Value> {
    const KEYS: [&str; 12] = [
        "HostConfig",
        "hostconfig",
        "Binds",
        "Mounts",
        "Privileged",
        "Image",
        "Cmd",
        "Type",
        "Source",
        "Labels",
        "Env",
        "CapAdd",
    ];
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        "[/a-z:.]{0,8}".prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 40, 5, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::btree_map(prop::sample::select(&KEYS[..]).prop_map(str::to_owned), inner, 0..5)
                .prop_map(|map| json!(map)),
        ]
    })
}

proptest! {
    #[test]
    fn what_is_understood_is_written_as_it_was_but_for_nulls(body in arbitrary_json()) {
        let text = body.to_string();
        for kind in [Json::ContainerCreate, Json::ExecCreate, Json::VolumeCreate] {
            let Ok(parsed) = kind.read(text.as_bytes()) else { continue };
            let written: Value = serde_json::from_slice(&parsed.write()).unwrap();
            let mut expected = body.clone();
            super::super::body::without_nulls(&mut expected);
            prop_assert_eq!(written, expected);
        }
    }

    #[test]
    fn no_bytes_make_the_decoder_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = Json::ContainerCreate.read(&bytes);
    }
}

#[test]
fn t14_a_command_runs_in_the_container_of_the_path_whatever_its_body_names() {
    let parsed = Json::ExecCreate.read(br#"{"Container":"other","Cmd":["sh"]}"#).unwrap();

    assert_eq!(parsed.write(), br#"{"Cmd":["sh"]}"#);
}

#[test]
fn networks_that_docker_py_names_with_null_are_not_passed_on_and_nothing_else_is_beside_endpoints() {
    let read = |networks: &str| {
        Json::ContainerCreate.read(format!(r#"{{"Image":"a","NetworkingConfig":{networks}}}"#).as_bytes())
    };

    let sent = read(r#"{"private":null,"EndpointsConfig":{"private":null}}"#).unwrap().write();
    assert_eq!(sent, br#"{"Image":"a","NetworkingConfig":{"EndpointsConfig":{"private":null}}}"#);
    for refused in [
        r#"{"private":{}}"#,
        r#"{"endpointsconfig":{"host":null}}"#,
        r#"{"EndpointsConfig":{},"EndpointsConfig":{}}"#,
    ] {
        assert!(read(refused).is_err(), "{refused}");
    }
}
