use proptest::prelude::*;

use super::*;

const FIRST: &str = "2026-05-01T10:00:00.000000001Z ";
const SECOND: &str = "2026-05-01T10:00:01.500000000Z ";
const FIRST_NANO: i64 = 1_777_629_600_000_000_001;

fn frame(kind: u8, data: &[u8]) -> Vec<u8> {
    let length = u32::try_from(data.len()).unwrap().to_be_bytes();
    [&[kind, 0, 0, 0][..], &length, data].concat()
}

fn read(tty: bool, bytes: &[u8], every: usize) -> Vec<LogEntry> {
    let mut reader = LogReader::new(tty);
    let mut entries = Vec::new();
    for chunk in bytes.chunks(every) {
        reader.read(Bytes::copy_from_slice(chunk), &mut entries).unwrap();
    }
    reader.end(&mut entries);
    entries
}

/// Stream, time and text of each line.
fn lines(entries: &[LogEntry]) -> Vec<(i32, i64, Vec<u8>)> {
    let mut lines: Vec<(i32, i64, Vec<u8>)> = Vec::new();
    for entry in entries {
        let open = lines.iter_mut().rev().find(|line| line.0 == entry.stream);
        match open {
            Some(line) if !entry.begins_line => line.2.extend_from_slice(&entry.data),
            _ => lines.push((entry.stream, entry.unix_nano, entry.data.to_vec())),
        }
    }
    lines
}

proptest! {
    #[test]
    fn a_terminals_lines_are_the_same_wherever_they_are_cut(every in 1usize..40_000, long in 0usize..60_000) {
        let text = vec![b'x'; long];
        let mut log = Vec::new();
        // As Docker cuts it, a time before each part.
        for part in text.chunks(RECORD) {
            log.extend_from_slice(FIRST.as_bytes());
            log.extend_from_slice(part);
        }
        if long.is_multiple_of(RECORD) {
            log.extend_from_slice(FIRST.as_bytes());
        }
        log.extend_from_slice(b"\n");
        log.extend_from_slice(SECOND.as_bytes());
        log.extend_from_slice(b"and no newline");

        let told = lines(&read(true, &log, every));

        prop_assert_eq!(told.len(), 2);
        prop_assert_eq!(told[0].1, FIRST_NANO);
        prop_assert_eq!(told[0].2.len(), long + 1);
        prop_assert_eq!(&told[0].2[..long], &text[..]);
        prop_assert_eq!(&told[1].2[..], b"and no newline");
    }

    #[test]
    fn frames_lines_are_the_same_wherever_they_are_cut(every in 1usize..200) {
        let mut log = frame(1, format!("{FIRST}out \u{0}\u{7f} 1\n").as_bytes());
        log.extend(frame(2, format!("{FIRST}error, ").as_bytes()));
        log.extend(frame(1, format!("{SECOND}out 2\n").as_bytes()));
        log.extend(frame(2, &[FIRST.as_bytes(), b"its \xff rest\n"].concat()));
        log.extend(frame(1, FIRST.as_bytes()));

        let told = lines(&read(false, &log, every));

        let (out, errors) = (OutputStream::Stdout as i32, OutputStream::Stderr as i32);
        prop_assert_eq!(told, vec![
            (out, FIRST_NANO, "out \u{0}\u{7f} 1\n".as_bytes().to_vec()),
            (errors, FIRST_NANO, b"error, its \xff rest\n".to_vec()),
            (out, FIRST_NANO + 1_499_999_999, b"out 2\n".to_vec()),
        ]);
    }
}

#[test]
fn what_has_no_time_is_told_as_it_is() {
    let log = [frame(2, b"Error grabbing logs: it broke\n"), frame(1, b"x")].concat();

    let told = lines(&read(false, &log, 7));

    let expected = [
        (OutputStream::Stderr as i32, 0, b"Error grabbing logs: it broke\n".to_vec()),
        (OutputStream::Stdout as i32, 0, b"x".to_vec()),
    ];
    assert_eq!(told, expected);
    assert_eq!(lines(&read(true, b"no time here\nnor here", 3))[1].2, b"nor here");
}

#[test]
fn a_time_that_a_program_wrote_behind_a_full_record_is_text_unless_it_is_all_of_it() {
    let half = FIRST.split_at(12).0;
    let log = [FIRST.as_bytes(), &vec![b'x'; RECORD], half.as_bytes(), b"!\n"].concat();

    let told = lines(&read(true, &log, 1_000));

    assert_eq!(told.len(), 1);
    assert!(told[0].2.ends_with(format!("x{half}!\n").as_bytes()));
}
