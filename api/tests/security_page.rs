//! `docs/security.md` names tests, and these are there.

use std::collections::BTreeSet;
use std::path::Path;

/// Names of tests that begin with a threat's number, in all files below.
fn tests(dir: &Path, found: &mut BTreeSet<String>) {
    for entry in std::fs::read_dir(dir).expect("a directory") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            tests(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text = std::fs::read_to_string(&path).expect("text");
            let names = text.split("fn ").skip(1).filter_map(|rest| rest.split('(').next());
            found.extend(names.filter(|name| is_numbered(name)).map(str::to_owned));
        }
    }
}

/// `t13_…`, `t13a_…`.
fn is_numbered(name: &str) -> bool {
    let Some((number, _)) = name.split_once('_') else { return false };
    let digits = number.strip_prefix('t').map(|rest| rest.trim_end_matches(char::is_alphabetic));
    digits.is_some_and(|digits| digits.len() == 2 && digits.bytes().all(|byte| byte.is_ascii_digit()))
}

#[test]
fn the_page_on_security_has_every_attack_and_names_tests_that_there_are() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let page = std::fs::read_to_string(root.join("docs/security.md")).expect("the page");
    let mut found = BTreeSet::new();
    for folder in ["agent", "api", "cli", "controller", "e2e"] {
        tests(&root.join(folder), &mut found);
    }

    let numbers: Vec<u32> =
        page.lines().filter_map(|line| line.strip_prefix("| ")?.split(' ').next()?.parse().ok()).collect();
    let named: Vec<&str> = page.split('`').skip(1).step_by(2).filter(|word| is_numbered(word)).collect();
    let missing: Vec<_> = named.iter().filter(|name| !found.contains(**name)).collect();

    assert_eq!(numbers, (1..=35).collect::<Vec<_>>());
    assert!(named.len() > 60, "{}", named.len());
    assert!(missing.is_empty(), "{missing:?}");
}
