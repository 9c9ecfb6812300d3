//! What holds of every body: it is one object, the same in JSON and in YAML, or the client's fault, at no great cost.

use proptest::prelude::*;
use serde_json::json;

use super::super::weight::{extent, size};
use super::*;

const JSON: &str = "application/json";
const YAML: &str = "application/yaml";

fn leaf() -> impl Strategy<Value = Value> {
    let word = prop_oneof![
        "[a-z0-9_.:#&*!|>'\"%@`?{}\\[\\],~=<+ \t\n\\\\é-]{0,6}",
        prop::sample::select(
            [
                "yes",
                "No",
                "null",
                "~",
                "0777",
                "0x1F",
                "1e3",
                "1_000",
                ".inf",
                "-",
                "---",
                "...",
                "2026-01-01",
                "<<",
                "=",
                "\u{85}",
                "\u{2028}",
                "\u{feff}",
                "\0",
                "\u{7f}",
                "\r\n"
            ]
            .as_slice()
        )
        .prop_map(str::to_owned),
        ".{0,4}",
    ];
    prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        any::<f64>()
            .prop_filter("JSON says it", |number| number.is_finite())
            .prop_map(|number| json!(number)),
        word.prop_map(Value::from),
    ]
}

fn object() -> impl Strategy<Value = Value> {
    let tree = leaf().prop_recursive(4, 24, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::vec((leaf_name(), inner), 0..4)
                .prop_map(|fields| Value::Object(fields.into_iter().collect())),
        ]
    });
    prop::collection::vec((leaf_name(), tree), 0..4)
        .prop_map(|fields| Value::Object(fields.into_iter().collect()))
}

fn leaf_name() -> impl Strategy<Value = String> {
    prop_oneof!["[a-c]{0,2}", "[a-z0-9_.:#&*!|>'\"%@?{}\\[\\],~=< -]{0,4}"]
}

fn is_refused(outcome: Outcome<Decoded>) -> bool {
    outcome.is_err_and(|failure| failure.code().as_u16() == 400)
}

proptest! {
    #[test]
    fn json_reads_as_it_was_written(object in object()) {
        let decoded = decode(object.to_string().as_bytes(), Some(JSON)).expect("an object");

        prop_assert_eq!(decoded, Decoded { value: object, duplicates: Vec::new() });
    }

    #[test]
    fn yaml_that_we_write_reads_as_it_was_written(object in object()) {
        let text = gantry_api::yaml::write(&object).expect("writes");
        let decoded = decode(text.as_bytes(), Some(YAML)).map_err(|error| TestCaseError::fail(format!("{text}\n{error}")))?;

        prop_assert_eq!(decoded.value, object, "{}", text);
    }

    #[test]
    fn a_duplicate_is_told_in_either_form_and_its_last_value_kept(
        name in "[a-c]{1,2}", first in 0..9_i64, last in 0..9_i64, depth in 0..20_usize,
    ) {
        let inner = format!("{{\"{name}\": {first}, \"z\": 0, \"{name}\": {last}}}");
        let text = format!("{}{inner}{}", "{\"a\": ".repeat(depth), "}".repeat(depth));
        let path = format!("{}{name}", "a.".repeat(depth));

        for media_type in [JSON, YAML] {
            let decoded = decode(text.as_bytes(), Some(media_type)).expect("an object");
            prop_assert_eq!(&decoded.duplicates, std::slice::from_ref(&path), "{}", media_type);
            let at = "/a".repeat(depth) + "/" + &name;
            prop_assert_eq!(decoded.value.pointer(&at), Some(&json!(last)));
        }
    }

    #[test]
    fn any_bytes_are_an_object_or_the_clients_fault(
        body in prop_oneof![
            prop::collection::vec(any::<u8>(), 0..60),
            "(---|\\.\\.\\.|%YAML 1.2|a: |b: |- |&x |\\*x|<<: |\\{|\\}|\\[|\\]|\"|'|\n|  |\t|: |, |\\? |!!(int|str|binary|map|set|float|null) |!a |[0-9.e_]{1,30}|\\||>|#|\\\\|é){0,30}"
                .prop_map(String::into_bytes),
        ],
        media_type in prop_oneof![Just(JSON), Just(YAML)],
    ) {
        match decode(&body, Some(media_type)) {
            Ok(decoded) => {
                prop_assert!(decoded.value.is_object());
                prop_assert!(extent(&decoded.value).levels <= 130);
                let again = decode(decoded.value.to_string().as_bytes(), None).expect("an object");
                prop_assert_eq!(again.value, decoded.value);
            }
            failed => prop_assert!(is_refused(failed.clone()), "{:?}", failed),
        }
    }
}

/// Reads with the room that frames without optimisation take.
fn deeply(text: String, media_type: &'static str) -> Outcome<Decoded> {
    let read = move || decode(text.as_bytes(), Some(media_type));
    std::thread::Builder::new().stack_size(16 << 20).spawn(read).expect("starts").join().expect("reads")
}

/// As often as the environment says, or a few times where each costs much.
pub(in crate::apiserver) fn few(cases: u32) -> ProptestConfig {
    let cases = std::env::var("PROPTEST_CASES").ok().and_then(|cases| cases.parse().ok()).unwrap_or(cases);
    ProptestConfig { cases, max_shrink_iters: 200, ..ProptestConfig::default() }
}

proptest! {
    #![proptest_config(few(4))]

    #[test]
    fn t23_aliases_of_aliases_do_not_make_a_body_grow_without_bound(
        levels in 1..9_usize, width in 1..12_usize, is_map in any::<bool>(),
    ) {
        let item = |level: usize, at: usize| {
            let before = if level == 0 { "x".to_owned() } else { format!("*a{}", level - 1) };
            if is_map { format!("k{at}: {before}") } else { before }
        };
        let (open, close) = if is_map { ('{', '}') } else { ('[', ']') };
        let line = |level: usize| {
            let items: Vec<_> = (0..width).map(|at| item(level, at)).collect();
            format!("v{level}: &a{level} {open}{}{close}\n", items.join(", "))
        };
        let text: String = (0..levels).map(line).collect();

        match decode(text.as_bytes(), Some(YAML)) {
            Ok(decoded) => prop_assert!(size(&decoded.value) <= 4 * BODY_LIMIT, "{} bytes", size(&decoded.value)),
            failed => prop_assert!(is_refused(failed.clone()), "{:?}", failed),
        }
    }

    #[test]
    fn towers_of_any_height_are_an_object_or_refused(
        levels in 0..2_000_usize, brick in prop_oneof![Just("["), Just("{\"a\":"), Just("- "), Just("? "), Just("!a "), Just("{a: "), Just("&a [")],
        media_type in prop_oneof![Just(JSON), Just(YAML)],
    ) {
        let close = match brick.trim_end().chars().find(|character| "[{".contains(*character)) {
            Some('[') => "]",
            Some(_) => "}",
            None => "",
        };
        let text = format!("{{\"a\": {}1{}}}", brick.repeat(levels), close.repeat(levels));
        let block = format!("a:\n {}1{}", brick.repeat(levels), close.repeat(levels));

        for text in [text, block] {
            match deeply(text, media_type) {
                Ok(decoded) => prop_assert!(extent(&decoded.value).levels <= 130),
                failed => prop_assert!(is_refused(failed.clone()), "{:?}", failed),
            }
        }
    }
}
