use std::fmt::Write as _;

use super::*;

/// A header of the ustar format.
fn header(kind: u8, name: &str, target: &str, size: usize) -> Vec<u8> {
    let mut block = vec![0; BLOCK];
    block[..name.len()].copy_from_slice(name.as_bytes());
    block[124..136].copy_from_slice(format!("{size:011o}\0").as_bytes());
    block[156] = kind;
    block[157..157 + target.len()].copy_from_slice(target.as_bytes());
    block[257..263].copy_from_slice(b"ustar\0");
    sealed(block)
}

fn sealed(mut block: Vec<u8>) -> Vec<u8> {
    block[148..156].fill(b' ');
    let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
    block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    block
}

fn entry(kind: u8, name: &str, content: &[u8]) -> Vec<u8> {
    let mut bytes = header(kind, name, "", content.len());
    bytes.extend_from_slice(content);
    bytes.resize(bytes.len().next_multiple_of(BLOCK), 0);
    bytes
}

fn file(name: &str) -> Vec<u8> {
    entry(b'0', name, b"some content")
}

fn link(kind: u8, name: &str, target: &str) -> Vec<u8> {
    header(kind, name, target, 0)
}

fn pax(kind: u8, pairs: &[(&str, &str)]) -> Vec<u8> {
    let mut records = String::new();
    for (key, value) in pairs {
        let rest = key.len() + value.len() + 3;
        let long =
            (1..5).map(|digits| rest + digits).find(|long| long.to_string().len() + rest == *long).unwrap();
        writeln!(records, "{long} {key}={value}").unwrap();
    }
    entry(kind, "PaxHeaders/x", records.as_bytes())
}

/// What is said of an archive of these, however it is cut.
fn said(parts: &[Vec<u8>]) -> Result<(), String> {
    let mut archive = parts.concat();
    archive.extend_from_slice(&[0; 2 * BLOCK]);
    let said = |step: usize| {
        let mut check = Check::new(u64::MAX);
        archive.chunks(step).try_for_each(|piece| check.pass(piece)).map_err(|unfit| unfit.to_string())
    };
    let whole = said(archive.len());
    for step in [1, 511, 512, 513] {
        assert_eq!(said(step), whole, "in pieces of {step}");
    }
    whole
}

#[test]
fn what_tar_and_docker_make_is_passed_on() {
    let long = "deep/".repeat(60);
    let mut binary = header(b'0', "big", "", 0);
    binary[124..136].copy_from_slice(&[0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 3]);
    let binary = [sealed(binary), vec![b'x'; BLOCK]].concat();
    let passed = [
        vec![],
        vec![entry(b'5', "./", b""), file("./a..b/.c"), entry(b'5', "dir/", b""), file("dir/f")],
        vec![link(b'2', "dir/link", "../../etc/passwd"), link(b'1', "dir/second", "dir/f"), file("dir/f")],
        vec![link(b'2', "a", "x"), link(b'1', "b", "a"), link(b'2', "a", "y"), file("ab")],
        vec![
            entry(b'6', "pipe", b""),
            entry(0, "old/", b""),
            entry(0, "old/f", b"1"),
            entry(b'7', "g", b"1"),
        ],
        vec![entry(b'L', "././@LongLink", format!("{long}f\0").as_bytes()), file("cut")],
        vec![
            pax(b'g', &[("comment", "of all")]),
            pax(b'x', &[("path", "\u{fc}ber"), ("mtime", "1.5")]),
            file("ber"),
        ],
        vec![pax(b'x', &[("size", "12")]), file("sized"), pax(b'x', &[("path", "again")]), file("b")],
        vec![binary, file("after")],
    ];

    for parts in passed {
        assert_eq!(said(&parts), Ok(()), "{}", String::from_utf8_lossy(&parts.concat()));
    }
}

#[test]
fn t26_nothing_that_leads_out_of_an_archive_is_passed_on() {
    let mut prefixed = header(b'0', "passwd", "", 0);
    prefixed[345..354].copy_from_slice(b"../../etc");
    let refused = [
        vec![file("../x")],
        vec![file("/etc/passwd")],
        vec![file("a/../../x")],
        vec![file("a/..")],
        vec![file("..\\x")],
        vec![file("good"), file("good/../../x")],
        vec![sealed(prefixed)],
        vec![entry(b'L', "x", b"../x\0"), file("good")],
        vec![pax(b'x', &[("path", "/etc/passwd")]), file("good")],
        vec![pax(b'x', &[("path", "good")]), file("../bad")],
        vec![link(b'1', "x", "/etc/passwd")],
        vec![link(b'1', "x", "../../etc/passwd")],
        vec![pax(b'x', &[("linkpath", "../x")]), link(b'1', "x", "good")],
        vec![entry(b'K', "x", b"../x\0"), link(b'1', "x", "good")],
        vec![link(b'2', "x", "/etc"), file("x/passwd")],
        vec![link(b'2', "x", "/etc"), file("X/passwd")],
        vec![link(b'2', "./a//x", "/etc"), entry(b'5', "a/x/y/", b"")],
        vec![link(b'2', "x", "/etc/passwd"), file("x")],
        vec![link(b'2', "x", "/etc"), link(b'1', "y", "x"), file("y/passwd")],
        vec![link(b'2', "x", "/etc"), link(b'1', "y", "x/passwd")],
        vec![link(b'2', "x", "/etc"), link(b'2', "x/y", "z")],
        vec![entry(b'3', "null", b"")],
        vec![entry(b'4', "sda", b"")],
    ];

    for parts in refused {
        assert!(said(&parts).is_err(), "{}", String::from_utf8_lossy(&parts.concat()));
    }
    assert_eq!(
        said(&[file("../x\u{1b}[2J")]),
        Err(r#"the archive has "../x\u{1b}[2J", which leads out of it"#.to_owned())
    );
}

#[test]
fn t26_what_another_reader_could_understand_differently_is_refused() {
    let mut damaged = file("a");
    damaged[0] = b'b';
    let begins = |magic: &[u8]| {
        let mut block = header(b'0', "", "", 0);
        block[..magic.len()].copy_from_slice(magic);
        sealed(block)
    };
    let refused = [
        vec![damaged],
        vec![begins(b"\x1f\x8b\x08")],
        vec![begins(b"BZh91AY&SY")],
        vec![begins(b"\xfd7zXZ")],
        vec![begins(b"\x28\xb5\x2f\xfd")],
        vec![begins(b"P\x2a\x4d\x18")],
        vec![vec![0; BLOCK], file("a")],
        vec![entry(b'S', "sparse", b"")],
        vec![pax(b'x', &[("GNU.sparse.name", "../x")]), file("a")],
        vec![pax(b'g', &[("path", "../x")]), file("a")],
        vec![pax(b'x', &[("path", "a")]), pax(b'x', &[("size", "0")]), file("a")],
        vec![pax(b'x', &[("path", "a")]), pax(b'g', &[]), file("a")],
        vec![pax(b'x', &[("size", "-1")]), file("a")],
        vec![entry(b'x', "x", b"99 path=a\n"), file("a")],
        vec![entry(b'5', "dir", b"content")],
        vec![entry(b'1', "link", b"content")],
        vec![entry(0, "dir/", b"content")],
    ];

    for parts in refused {
        assert!(said(&parts).is_err(), "{}", String::from_utf8_lossy(&parts.concat()));
    }
}

#[test]
fn an_archive_is_passed_on_up_to_its_limit_and_what_is_held_of_it_is_bounded() {
    let mut check = Check::new(BLOCK as u64);
    assert_eq!(check.pass(&header(b'0', "a", "", 1 << 20)), Ok(()));
    assert_eq!(check.pass(&[0]), Err(Unfit::TooLarge(512)));

    let mut many = Check::new(u64::MAX);
    let links = (0..).map(|number| many.pass(&link(b'2', &format!("{number:090}"), "x")));
    assert!(links.take(100_000).any(|passed| passed.is_err()));
    assert!(said(&[header(b'L', "x", "", 2 << 20)]).is_err());
}

#[test]
fn t26_a_packed_archive_that_is_shorter_than_a_header_is_refused_at_its_first_bytes() {
    for packed in
        [&b"\x1f\x8b\x08\0"[..], b"BZh91", b"\xfd7zXZ\0", b"\x28\xb5\x2f\xfd\x04", b"\x50\x2a\x4d\x18"]
    {
        for size in 1..=packed.len() {
            let mut check = Check::new(1 << 20);
            let passed = packed.chunks(size).try_for_each(|piece| check.pass(piece));
            assert!(passed.is_err(), "{packed:?} in pieces of {size}");
        }
    }
}
