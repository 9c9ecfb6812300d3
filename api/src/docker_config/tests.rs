use super::*;

fn shown(auth: &RegistryAuth) -> [&str; 4] {
    [&auth.username, &auth.password, &auth.identity_token, &auth.server_address]
}

fn login(config: &str, server: &str) -> RegistryAuth {
    DockerConfig::parse(config.as_bytes()).expect("JSON").login(server).expect("readable").expect("an entry")
}

#[test]
fn a_reference_names_its_registry_as_docker_reads_it() {
    for (reference, server) in [
        ("app", "docker.io"),
        ("app:2", "docker.io"),
        ("team/app", "docker.io"),
        ("library/app@sha256:00", "docker.io"),
        ("docker.io/library/app", "docker.io"),
        ("index.docker.io/library/app", "docker.io"),
        ("registry-1.docker.io/library/app", "docker.io"),
        ("localhost/app", "localhost"),
        ("localhost:5000/app:2", "localhost:5000"),
        ("registry.example/team/app", "registry.example"),
        ("registry.example:5000/app@sha256:00", "registry.example:5000"),
        ("Registry.Example/app", "registry.example"),
        ("HOST/app", "host"),
        ("192.0.2.7:5000/app", "192.0.2.7:5000"),
        ("[2001:DB8::1]:5000/app", "[2001:db8::1]:5000"),
        ("registry.example.evil.example/app", "registry.example.evil.example"),
    ] {
        assert_eq!(server_of(reference), server, "{reference}");
    }
}

#[test]
fn a_registry_has_one_name_whichever_way_it_is_written() {
    for server in
        ["docker.io", "https://index.docker.io/v1/", "index.docker.io", "https://registry-1.docker.io/v2/"]
    {
        assert_eq!(canonical(server), "docker.io", "{server}");
    }
    for server in
        ["registry.example:5000", "https://registry.example:5000/v2/", "http://REGISTRY.example:5000"]
    {
        assert_eq!(canonical(server), "registry.example:5000", "{server}");
    }
    assert_ne!(canonical("registry.example"), canonical("registry.example:443"));
}

#[test]
fn every_form_of_an_entry_is_read() {
    // `user:pass:word` and `user:pw`, the latter without padding.
    let config = r#"{"auths": {
        "one.example": {"username": "user", "password": "pw"},
        "https://two.example/v2/": {"auth": "dXNlcjpwYXNzOndvcmQ="},
        "three.example": {"auth": "dXNlcjpwdw", "username": "other", "password": "other"},
        "four.example": {"auth": "PHRva2VuPjo=", "identitytoken": "token"},
        "https://index.docker.io/v1/": {"username": "hub", "password": "pw", "email": "a@b.example"}
    }}"#;

    assert_eq!(shown(&login(config, "one.example")), ["user", "pw", "", "one.example"]);
    assert_eq!(shown(&login(config, "two.example")), ["user", "pass:word", "", "two.example"]);
    assert_eq!(shown(&login(config, "three.example")), ["user", "pw", "", "three.example"]);
    assert_eq!(shown(&login(config, "four.example")), ["<token>", "", "token", "four.example"]);
    assert_eq!(shown(&login(config, "docker.io")), ["hub", "pw", "", "https://index.docker.io/v1/"]);
}

#[test]
fn the_older_form_is_read_too() {
    let config = DockerConfig::parse_entries(br#"{"one.example": {"auth": "dXNlcjpwdw=="}}"#).expect("JSON");

    let auth = config.login("one.example").expect("readable").expect("an entry");

    assert_eq!(shown(&auth), ["user", "pw", "", "one.example"]);
}

#[test]
fn a_server_gets_no_others_credentials() {
    let config = r#"{"auths": {"registry.example:5000": {"username": "user", "password": "pw"}, "empty.example": {}}}"#;
    let config = DockerConfig::parse(config.as_bytes()).expect("JSON");

    for server in
        ["registry.example", "registry.example:5001", "a.registry.example:5000", "empty.example", ""]
    {
        assert!(config.login(server).expect("readable").is_none(), "{server}");
    }
}

#[test]
fn t28_what_cannot_be_read_is_not_repeated() {
    const PLANTED: &str = "hunter2";
    for config in [
        r#"{"auths": "hunter2"}"#,
        r#"{"auths": {"one.example": "hunter2"}}"#,
        r#"{"auths": {"one.example": {"password": ["hunter2"]}}}"#,
        "hunter2",
        "",
    ] {
        let Err(error) = DockerConfig::parse(config.as_bytes()) else { panic!("{config} was read") };
        assert!(!format!("{error} {error:?}").contains(PLANTED), "{error}");
    }
    // Not base64, base64 of no text, and of a text without a colon.
    for auth in ["hunter2!", "//79", "aHVudGVyMg=="] {
        let config = format!(r#"{{"auths": {{"one.example": {{"auth": "{auth}"}}}}}}"#);
        let error = DockerConfig::parse(config.as_bytes()).expect("JSON").login("one.example").unwrap_err();
        assert_eq!(error, Unreadable::Entry("one.example".to_owned()));
    }
    let auth =
        login(r#"{"auths": {"one.example": {"username": "user", "password": "hunter2"}}}"#, "one.example");
    let request = crate::agent_v1::SubmitRequest { registry_auth: Some(auth), ..Default::default() };
    assert!(!format!("{request:?} {request:#?}").contains(PLANTED));
}

#[test]
fn a_program_keeps_the_credentials_of_one_server_or_of_all() {
    let config = r#"{"credHelpers": {"https://one.example": "one", "two.example": ""}, "credsStore": "all"}"#;
    let config = DockerConfig::parse(config.as_bytes()).expect("JSON");

    assert_eq!(config.helper("one.example"), Some("one"));
    assert_eq!(config.helper("three.example"), Some("all"));
    assert_eq!(DockerConfig::default().helper("one.example"), None);
    let user =
        kept(br#"{"ServerURL": "x", "Username": "user", "Secret": "pw"}"#, "one.example").expect("JSON");
    assert_eq!(shown(&user), ["user", "pw", "", "one.example"]);
    let token = kept(br#"{"Username": "<token>", "Secret": "token"}"#, "docker.io").expect("JSON");
    assert_eq!(shown(&token), ["", "", "token", "https://index.docker.io/v1/"]);
}
