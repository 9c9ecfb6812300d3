//! t12: each route in many spellings. Whatever is understood is understood as what an engine reads, and needs the right to that.

use proptest::prelude::*;

use super::plain;
use crate::engine_api::route::Value;
use crate::engine_api::table::ROUTES;
use crate::engine_api::{Level, Request, Right, Route, Why, parse};

/// A path of that route.
fn path(route: &Route) -> String {
    route.path.replace("{id}", "c1").replace("{name...}", "registry.example:5000/team/app:1")
}

fn encoded(text: &str, which: impl Fn(usize) -> bool) -> String {
    let letters = text.bytes().enumerate();
    letters
        .map(|(index, byte)| if which(index) { format!("%{byte:02x}") } else { char::from(byte).to_string() })
        .collect()
}

/// Other ways to write the same, or nearly the same, for somebody to read differently.
fn spellings(path: &str) -> Vec<String> {
    let first = path.split('/').nth(1).unwrap_or_default();
    let rest = path.strip_prefix('/').unwrap_or_default();
    let swapped: String = path
        .chars()
        .map(|c| if c.is_lowercase() { c.to_ascii_uppercase() } else { c.to_ascii_lowercase() })
        .collect();
    let mut all: Vec<String> =
        ["", "/v1.41", "/v1.50", "/v1.99"].map(|version| format!("{version}{path}")).into();
    all.extend(
        [
            "/v1.40",
            "/v1.24",
            "/v1.041",
            "/v1.41.0",
            "/v1.4",
            "/v1",
            "/v2.41",
            "/V1.41",
            "/v01.41",
            "/v1.+41",
            "/v1.100",
            "/1.41",
            "/v1.41/v1.41",
            "/v1.41/",
            "/v%31.41",
            "/v1.41/.",
            "/v1.41/..",
            "/v1.41/x/..",
            "/docker",
            "//",
        ]
        .map(|before| format!("{before}{path}")),
    );
    all.extend([
        encoded(path, |index| index == 1),
        encoded(path, |index| index > 0),
        encoded(path, |index| index == 0),
        path.replace('/', "%2f"),
        path.replace('/', "%2F"),
        path.replace('/', "//"),
        path.replace('/', "/./"),
        path.replace('/', "/%2e/"),
        path.replace('/', "/x/../"),
        path.replace('/', "/x/%2e%2e/"),
        path.replace('/', "/x/%252e%252e/"),
        path.replace('/', "\\"),
        path.replace('/', "/\u{200b}"),
        format!("{path}/"),
        format!("{path}."),
        format!("{path}%00"),
        format!("{path}%20"),
        format!("{path}%0d%0aX: y"),
        format!("{path};a=b"),
        format!("{path}#a"),
        format!("{path}?x=y"),
        format!("{path}?%00"),
        format!("{path}?a;b"),
        format!("/v1.41/{}", encoded(rest, |index| index < first.len())),
        format!("http://docker{path}"),
        format!("docker:80{path}"),
        format!("*{path}"),
        path.to_ascii_uppercase(),
        swapped,
        path.replace("c1", "%2e%2e%2fcreate"),
        path.replace("c1", ".."),
        path.replace("c1", ""),
        rest.to_owned(),
    ]);
    all
}

/// True if an engine that gets this does nothing but tell, of what no other right is for. Knows nothing of the table.
#[expect(clippy::match_same_arms, reason = "a line for paths of one length")]
fn only_tells(method: &str, target: &str) -> bool {
    let path = target.split('?').next().unwrap_or_default();
    let path = path.strip_prefix("/v1.").map_or(path, |rest| &rest[2..]);
    let segments: Vec<&str> = path.split('/').skip(1).collect();
    let is_plain =
        !target.contains(['%', '#', ';', '\\']) && !segments.iter().any(|s| ["", ".", ".."].contains(s));
    let tells = match method {
        "HEAD" => segments == ["_ping"],
        "POST" => matches!(segments.as_slice(), ["containers", _, "wait"]),
        "GET" => match segments.as_slice() {
            ["_ping" | "version" | "info" | "events" | "networks" | "volumes" | "plugins"] => true,
            ["system", "df"] | ["containers" | "images", "json"] | ["exec", _, "json"] => true,
            ["containers", _, "top" | "changes" | "stats" | "logs"] => true,
            ["containers", .., "json"] | ["networks" | "volumes", ..] => true,
            ["images", .., last] => ["json", "history"].contains(last),
            _ => false,
        },
        _ => false,
    };
    is_plain && tells
}

const METHODS: [&str; 8] = ["GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH", "get"];

fn may_view(request: &Request) -> bool {
    request.rights().iter().all(|right| [Right::Read, Right::Logs].contains(right))
}

#[test]
fn t12_no_spelling_lets_who_may_only_read_change_anything() {
    let (mut tried, mut understood) = (0, 0);
    let mut paths: Vec<String> = ROUTES.iter().map(path).collect();
    assert!(paths.len() >= 110, "{} routes", paths.len());
    paths.sort_unstable();
    paths.dedup();

    for path in &paths {
        let spellings = spellings(path);
        assert!(spellings.len() >= 45, "{} spellings", spellings.len());
        for spelling in &spellings {
            for method in METHODS {
                tried += 1;
                let Ok(request) = plain(method, spelling) else { continue };
                understood += 1;
                let sent = request.target(request.version);
                assert_eq!(request.route.method, method, "{spelling}");
                if may_view(&request) {
                    assert!(only_tells(method, &sent), "{method} {spelling} was taken for {sent}");
                }
                assert_eq!(plain(method, &sent).as_ref(), Ok(&request), "{spelling}");
            }
        }
    }

    assert!(understood > 200, "{understood} of {tried}");
}

#[test]
fn t13a_what_opens_a_terminal_or_takes_things_away_is_no_reading() {
    for (target, verb) in [
        ("/containers/c1/archive?path=/etc", "create"),
        ("/containers/c1/export", "create"),
        ("/images/get?names=a", "create"),
        ("/images/a/get", "create"),
        ("/images/search?term=a", "create"),
        ("/distribution/a/json", "create"),
    ] {
        assert_eq!(plain("GET", target).unwrap().route.right.verb(), verb, "{target}");
    }
    assert_eq!(plain("GET", "/containers/c1/attach/ws").unwrap_err().why, Why::NotServed);
    for route in ROUTES.iter().filter(|route| route.protocol().is_some()) {
        assert_eq!(route.right.verb(), "create", "{}", route.id);
    }
    let rights = plain("GET", "/containers/c1/top?ps_args=auxe").unwrap().rights();
    assert!(rights.contains(&Right::Environment));
}

#[test]
fn t21_what_is_not_read_needs_more_than_the_host_s_leave_to_observe() {
    for route in ROUTES.iter().filter(|route| route.not_served.is_none()) {
        assert_eq!(route.level == Level::Observe, route.right.verb() == "get", "{}", route.id);
    }
    let of = |id: &str| ROUTES.iter().find(|route| route.id == id).unwrap().level;
    assert_eq!([of("ContainerStart"), of("ImagePull"), of("ContainerKill")], [Level::Operate; 3]);
    assert_eq!(
        [of("ContainerExec"), of("ContainerCreate"), of("ContainerDelete"), of("ContainerCopyOut")],
        [Level::Full; 4]
    );
}

#[test]
fn t13b_keys_of_the_query_are_known_single_and_of_their_type() {
    for (method, target) in [
        ("POST", "/containers/c1/start?checkpoint=a"),
        ("POST", "/containers/c1/start?checkpoint-dir=/etc"),
        ("POST", "/images/create?fromSrc=http://example.com/a.tar"),
        ("POST", "/images/create?fromImage=a&fromSrc=-"),
        ("POST", "/images/create?fromImage=a&fromImage=b"),
        ("POST", "/images/create?fromImage=a&FromImage=b"),
        ("POST", "/images/create?fromImage=a&%66romImage=b"),
        ("POST", "/build?remote=http://example.com"),
        ("POST", "/build?version=3"),
        ("POST", "/build?remote=client-session&remote=http://example.com"),
        ("POST", "/build?outputs={}"),
        ("POST", "/build?outputs=[{\"Attrs\":null}]"),
        ("POST", "/build?outputs=[{\"Type\":\"image\",\"Attrs\":{\"name\":\"a\",\"push\":\"true\"}}]"),
        ("POST", "/build?outputs=[{\"Type\":\"local\",\"Attrs\":{\"dest\":\"/etc\"}}]"),
        ("POST", "/build?outputs=[{\"Type\":\"local\",\"type\":\"image\"}]"),
        ("POST", "/build?buildargs={\"a\":1}"),
        ("POST", "/build?buildargs={\"a\":\"1\",\"a\":\"2\"}"),
        ("DELETE", "/containers/c1?force=maybe"),
        ("DELETE", "/containers/c1?force=1&force=0"),
        ("POST", "/containers/c1/stop?t=1e3"),
        ("POST", "/containers/c1/stop?t=99999999999999999999"),
        ("GET", "/containers/json?filters={\"a\":[1]}"),
        ("GET", "/containers/json?filters={\"a\":{\"b\":false}}"),
        ("GET", "/containers/json?filters=[]"),
        ("GET", "/containers/json?all=1;limit=2"),
        ("GET", "/containers/json?a%ll=1"),
        ("GET", "/containers/json?all=%ff"),
        ("POST", "/containers/c1/kill?signal=HUP%00"),
    ] {
        assert_eq!(
            plain(method, target).map(|request| request.route.id).unwrap_err().why,
            Why::Query,
            "{target}"
        );
    }
    let written = |method: &str, target: &str| plain(method, target).unwrap().target(Some(41));
    assert_eq!(written("DELETE", "/containers/c1?v=True&force=no"), "/v1.41/containers/c1?force=0&v=1");
    assert_eq!(
        written("GET", "/containers/json?filters={\"label\":[\"a=b\"]}&limit="),
        "/v1.41/containers/json?filters=%7B%22label%22%3A%7B%22a%3Db%22%3Atrue%7D%7D"
    );
    assert_eq!(written("GET", "/images/get?names=a&names=b"), "/v1.41/images/get?names=a&names=b");
}

#[test]
fn t12_headers_that_say_two_things_are_refused() {
    let with = |method: &str, target: &str, headers: &[(&str, &str)]| {
        parse(method, target, headers.iter().map(|(name, value)| (*name, value.as_bytes())))
            .map(|request| request.route.id)
    };
    let start = "/containers/c1/start";
    for headers in [
        &[("content-length", "5"), ("transfer-encoding", "chunked")][..],
        &[("content-length", "5"), ("content-length", "6")],
        &[("transfer-encoding", "chunked"), ("transfer-encoding", "chunked")],
        &[("transfer-encoding", "gzip, chunked")],
        &[("transfer-encoding", "identity")],
        &[("content-type", "application/x-www-form-urlencoded")],
        &[("content-type", "multipart/form-data; boundary=a")],
        &[("content-encoding", "gzip")],
        &[("connection", "Upgrade"), ("upgrade", "tcp")],
        &[("upgrade", "h2c")],
    ] {
        assert_eq!(with("POST", start, headers).unwrap_err().why, Why::Header, "{headers:?}");
    }
    assert_eq!(with("POST", "/exec/e1/start", &[("upgrade", "h2c")]).unwrap_err().why, Why::Header);
    assert_eq!(with("POST", "/exec/e1/start", &[("upgrade", "tcp")]), Ok("ExecStart"));
    let pull = "/images/create?fromImage=a";
    assert_eq!(with("POST", pull, &[("x-registry-auth", "e30=\"")]).unwrap_err().why, Why::Header);
    assert_eq!(with("POST", start, &[("x-registry-auth", "e30=")]), Ok("ContainerStart"));
    let kept =
        parse("POST", pull, [("x-registry-auth", b"e30=".as_slice()), ("cookie", b"a")]).unwrap().headers;
    assert_eq!(kept, [("x-registry-auth", "e30=".to_owned())]);
}

#[test]
fn a_build_with_buildkit_is_a_session_of_its_client_and_no_more() {
    let method = "x-docker-expose-session-grpc-method";
    let session = |headers: &[(&str, &str)]| {
        parse("POST", "/session", headers.iter().map(|(name, value)| (*name, value.as_bytes())))
    };
    let sent = [
        ("connection", "Upgrade"),
        ("upgrade", "h2c"),
        ("x-docker-expose-session-uuid", "r5bf2xq"),
        ("x-docker-expose-session-name", "a folder \u{e9}"),
        ("x-docker-expose-session-sharedkey", "0a1b"),
        (method, "/moby.filesync.v1.FileSync/DiffCopy"),
        (method, "/moby.buildkit.secrets.v1.Secrets/GetSecret"),
    ];

    let request = session(&sent).unwrap();

    // The name tells nobody anything, and may be any text.
    let kept: Vec<&str> = request.headers.iter().map(|(name, _)| *name).collect();
    assert_eq!(kept.iter().filter(|name| **name == method).count(), 2, "{kept:?}");
    assert!(!kept.contains(&"x-docker-expose-session-name") && kept.len() == 4, "{kept:?}");
    assert_eq!(Request::of_call(request.call(Vec::new(), true)).unwrap(), request);
    assert_eq!((request.route.right, request.route.level), (Right::Build, Level::Full));
    for wrong in [("upgrade", "tcp"), (method, "a b"), ("x-docker-expose-session-uuid", "a.b")] {
        assert_eq!(session(&[wrong]).unwrap_err().why, Why::Header, "{wrong:?}");
    }
    assert_eq!(session(&[sent[2], sent[2]]).unwrap_err().why, Why::Header);
    assert_eq!(session(&[(method, "/a.B/c"); 65]).unwrap_err().why, Why::Header);
    assert_eq!(plain("POST", "/grpc").unwrap_err().why, Why::NotServed);

    let build = "/v1.41/build?buildid=b&remote=client-session&session=r5bf2xq&version=2";
    let request = plain("POST", build).unwrap();
    assert_eq!((request.target(Some(41)).as_str(), request.rights()), (build, vec![Right::Build]));
    let local = plain("POST", "/build?version=2&outputs=[{\"Type\":\"local\",\"Attrs\":{}}]").unwrap();
    assert_eq!(local.rights(), [Right::Build, Right::Export]);
    let piped = "/build?version=2&ulimits=null&outputs=[{\"Type\":\"tar\",\"Attrs\":{\"dest\":\"-\"}}]";
    assert_eq!(plain("POST", piped).unwrap().query("ulimits"), None);
    assert_eq!(plain("POST", "/build?version=2&outputs=[]").unwrap().rights(), [Right::Build]);
}

#[test]
fn names_and_ids_are_single_and_no_routes_overlap_by_name() {
    for (index, route) in ROUTES.iter().enumerate() {
        assert!(!ROUTES[..index].iter().any(|other| other.id == route.id), "{}", route.id);
        let keys: Vec<&str> = route.query.iter().map(|(key, _)| *key).collect();
        assert!(
            keys.iter().all(|key| keys.iter().filter(|other| other == &key).count() == 1),
            "{}",
            route.id
        );
        assert!(!route.query.iter().any(|(_, kind)| matches!(kind, Value::Only(""))));
    }
    assert_eq!(
        ROUTES.iter().find(|route| route.id == "ContainerCreate").unwrap().action(),
        "container_create"
    );
    assert_eq!(plain("GET", "/images/a/json/history").unwrap().params, ["a/json"]);
}

proptest! {
    #[test]
    fn whatever_is_understood_is_written_in_one_way(
        method in prop::sample::select(&METHODS[..]),
        target in "(/v1\\.4[0-9])?/(containers|images|networks|exec|volumes|build)(/[a-z0-9.%:]{0,6}){0,3}(\\?[a-zA-Z=&%0-9]{0,20})?",
    ) {
        if let Ok(request) = plain(method, &target) {
            let written = request.target(request.version);
            prop_assert_eq!(plain(method, &written), Ok(request));
        }
    }

    #[test]
    fn nothing_makes_the_parser_panic(method in ".{0,8}", target in ".{0,80}") {
        let _ = plain(&method, &target);
    }
}
