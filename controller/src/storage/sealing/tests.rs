//! What is sealed opens for the same object with the same key, and for nothing else.

use std::path::Path;

use proptest::prelude::*;
use zeroize::Zeroizing;

use super::*;
use crate::clock::{Entropy as _, SystemEntropy};
use crate::storage::types::with_version;
use crate::storage::{Resource, Version};

const PLANTED: &str = "hunter2-hunter2";

fn ring(lines: &[&str]) -> KeyRing {
    KeySource::Given(Zeroizing::new(lines.concat())).read().expect("a key ring")
}

fn new_ring() -> KeyRing {
    ring(&[&KeyRing::new_line(&SystemEntropy)])
}

fn key(resource: &str, namespace: &str, name: &str) -> Key {
    Key { resource: Resource(resource.into()), namespace: namespace.into(), name: name.into() }
}

fn sealed(ring: &KeyRing, bound: Bound<'_>, text: &str) -> String {
    envelope::seal(ring, &SystemEntropy, bound, text)
}

fn refused(given: &str) -> String {
    KeySource::Given(Zeroizing::new(given.to_owned())).read().expect_err("no key ring").to_string()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 32, ..ProptestConfig::default() })]

    #[test]
    fn what_is_sealed_opens_and_shows_nothing_of_itself(text in "\\PC{0,200}", name in "[a-z]{1,9}") {
        let (ring, key, uid) = (new_ring(), key(SECRETS, "default", &name), SystemEntropy.uuid());
        let bound = Bound { key: &key, uid };
        let text = format!("{{\"metadata\":{{}},\"data\":\"{PLANTED}{text}\"}}");

        let sealed = sealed(&ring, bound, &text);

        prop_assert!(!sealed.contains(PLANTED));
        prop_assert_eq!(envelope::open(&ring, bound, &sealed), Ok(Some(text)));
    }

    #[test]
    fn t29_a_text_opens_for_its_own_object_alone(
        one in ("[ab/.\"]{0,3}", "[ab/.\"]{0,3}", "[ab/.\"]{0,3}", 0_u128..2),
        other in ("[ab/.\"]{0,3}", "[ab/.\"]{0,3}", "[ab/.\"]{0,3}", 0_u128..2),
    ) {
        let ring = new_ring();
        let place = |(resource, namespace, name, uid): &(String, String, String, u128)| {
            (key(resource, namespace, name), Uuid::from_u128(*uid))
        };
        let ((here, here_uid), (there, there_uid)) = (place(&one), place(&other));

        let sealed = sealed(&ring, Bound { key: &here, uid: here_uid }, PLANTED);
        let opened = envelope::open(&ring, Bound { key: &there, uid: there_uid }, &sealed);

        prop_assert_eq!(opened.is_ok(), one == other);
    }
}

#[test]
fn t29_a_text_of_which_any_bit_is_changed_does_not_open() {
    let (ring, key) = (new_ring(), key(SECRETS, "default", "web"));
    let bound = Bound { key: &key, uid: Uuid::nil() };
    let sealed = sealed(&ring, bound, PLANTED).into_bytes();

    for bit in 0..sealed.len() * 8 {
        let mut changed = sealed.clone();
        changed[bit / 8] ^= 1 << (bit % 8);
        // What is no text cannot come out of Postgres.
        let Ok(text) = String::from_utf8(changed) else { continue };
        match envelope::open(&ring, bound, &text) {
            Err(_) => {}
            // What does not begin like a sealed text is taken for a plain one, and does not begin like that either.
            Ok(None) => assert_eq!(with_version(&text, Version(1)), None),
            Ok(Some(_)) => panic!("bit {bit} means nothing: {text}"),
        }
    }
}

#[test]
fn t29_another_key_opens_nothing_even_under_the_name_of_the_right_one() {
    let (ring, other, key) = (new_ring(), new_ring(), key(SECRETS, "default", "web"));
    let bound = Bound { key: &key, uid: Uuid::nil() };
    let sealed = sealed(&ring, bound, PLANTED);

    let renamed = sealed.replace(ring.sealing().as_str(), other.sealing().as_str());

    assert_eq!(envelope::open(&other, bound, &sealed), Err(OpenError::UnknownKey(ring.sealing().clone())));
    assert_eq!(envelope::open(&other, bound, &renamed), Err(OpenError::Broken));
}

#[test]
fn the_key_and_the_text_of_an_envelope_cannot_change_places_and_a_later_form_is_refused() {
    let (ring, key) = (new_ring(), key(SECRETS, "default", "web"));
    let bound = Bound { key: &key, uid: Uuid::nil() };
    let sealed = sealed(&ring, bound, PLANTED);

    let swapped =
        sealed.replace("dataKey", "x").replace("\"text\"", "\"dataKey\"").replace("\"x\"", "\"text\"");

    assert_eq!(envelope::open(&ring, bound, &swapped), Err(OpenError::Broken));
    let later = sealed.replace("\"form\":1", "\"form\":2");
    assert_eq!(envelope::open(&ring, bound, &later), Err(OpenError::UnknownForm));
}

#[test]
fn two_seals_of_one_text_have_nothing_in_common_but_the_key_s_name() {
    let (ring, key) = (new_ring(), key(SECRETS, "default", "web"));
    let bound = Bound { key: &key, uid: Uuid::nil() };

    let [one, other] = [(); 2].map(|()| sealed(&ring, bound, PLANTED));

    let parts =
        |text: &str| text.split('"').filter(|part| part.len() > 20).map(str::to_owned).collect::<Vec<_>>();
    assert_eq!(parts(&one).len(), 2);
    assert!(parts(&one).iter().all(|part| !parts(&other).contains(part)));
    // A nonce is 16 letters of base64.
    let nonces = [parts(&one), parts(&other)]
        .concat()
        .iter()
        .map(|part| part[..16].to_owned())
        .collect::<BTreeSet<_>>();
    assert_eq!(nonces.len(), 4, "each key and each text has a nonce of its own");
}

#[test]
fn the_first_key_of_a_ring_seals_and_all_open() {
    let [old, new] = [(); 2].map(|()| KeyRing::new_line(&SystemEntropy));
    let (before, after) = (ring(&[&old]), ring(&["# the new one\n", &new, "\n", &old]));
    let key = key(SECRETS, "default", "web");
    let bound = Bound { key: &key, uid: Uuid::nil() };

    assert_eq!(envelope::open(&after, bound, &sealed(&before, bound, "a")), Ok(Some("a".to_owned())));
    assert!(envelope::open(&before, bound, &sealed(&after, bound, "a")).is_err());
    let with_commas = ring(&[new.trim(), ",", old.trim()]);
    assert_eq!(with_commas.ids(), after.ids());
}

#[test]
fn a_key_needs_no_name_before_it() {
    let named = KeyRing::new_line(&SystemEntropy);
    let bare = named.split_once(':').expect("a name").1;

    assert_eq!(ring(&[bare]).ids(), ring(&[&named]).ids());
}

#[test]
fn t28_a_ring_that_cannot_be_used_says_where_and_why_and_never_the_key() {
    let line = KeyRing::new_line(&SystemEntropy);
    let text = line.trim().split_once(':').expect("a name").1;
    let short = "AAAAAAAAAAAAAAAAAAAAAA==";

    insta::assert_snapshot!(refused(""), @"the key ring GANTRY_ENCRYPTION_KEYS is empty: put back the keys that Secrets were sealed with; `openssl rand -base64 32` makes the first");
    insta::assert_snapshot!(refused("# nothing\n\nhunter2!"), @"the key ring GANTRY_ENCRYPTION_KEYS cannot be used, line 3: it is not base64; `openssl rand -base64 32` makes a key");
    insta::assert_snapshot!(refused(short), @"the key ring GANTRY_ENCRYPTION_KEYS cannot be used, line 1: it has 16 bytes and not 32; `openssl rand -base64 32` makes a key");
    assert!(refused(&format!("{}{}", *line, *line)).contains("line 2: the key `"));
    let misnamed = refused(&format!("hunter2:{text}"));
    assert!(misnamed.contains("another stands before the colon"), "{misnamed}");
    for said in [misnamed, refused(&format!("{}{}", *line, *line)), refused(&format!("{text}hunter2"))] {
        assert!(!said.contains("hunter2") && !said.contains(&text[..8]), "{said}");
    }
    let missing = KeySource::File(Path::new("/nowhere/keys").to_owned()).read().expect_err("none is there");
    insta::assert_snapshot!(missing, @"the key ring /nowhere/keys cannot be read: check the path, and that the controller may read it");
}

#[test]
fn t28_nothing_that_is_printed_shows_a_key() {
    let line = KeyRing::new_line(&SystemEntropy);
    let (name, text) = line.trim().split_once(':').expect("a name");
    let source = KeySource::Given(line.clone());

    let sealer = Sealer::open(source.clone(), Arc::new(SystemEntropy)).expect("a key ring");
    let printed = format!("{source} {source:?} {sealer:?} {:?}", sealer.ring());

    assert!(printed.contains(name));
    assert!(!printed.contains(text), "{printed}");
}

#[test]
fn other_kinds_are_stored_as_they_are() {
    let sealer = Sealer::open(KeySource::Given(KeyRing::new_line(&SystemEntropy)), Arc::new(SystemEntropy));
    let sealer = sealer.expect("a key ring");

    let seal = |resource| sealer.seal(&key(resource, "default", "web"), Uuid::nil(), PLANTED).into_owned();

    assert_eq!(seal("configmaps"), PLANTED);
    assert!(!seal(SECRETS).contains(PLANTED));
}
