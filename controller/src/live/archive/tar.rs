//! Looks at a tar archive as it passes: that nothing in it leads out of the folder that it is unpacked into.
//!
//! The last byte of an entry's header goes on only once that has been judged, so whoever unpacks never has the whole of a bad one. Kept are
//! one header, one extension of it and the names of links. What two readers could understand differently is refused, since one of them
//! would not be this one: compressed archives, sparse files, extensions that come twice.

use std::collections::BTreeSet;

/// Of a header, and what everything is a multiple of.
const BLOCK: usize = 512;
/// Longest extension of a header, in bytes.
const LONGEST_EXTENSION: u64 = 1 << 20;
/// Bytes of the names of links.
const MOST_LINKS: usize = 4 << 20;
/// Bytes of a name that are told.
const MOST_TOLD: usize = 200;
/// How gzip, bzip2, xz and zstd begin; a header can be made that does too.
const COMPRESSED: [&[u8]; 4] = [b"\x1f\x8b", b"BZh", b"\xfd7zXZ", b"\x28\xb5\x2f\xfd"];
/// How zstd begins behind a first byte of any value.
const SKIPPED_BY_ZSTD: &[u8] = b"\x2a\x4d\x18";

/// Why an archive is not passed on any further.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(in crate::live) enum Unfit {
    /// There is more of it.
    #[error("the archive has more than {0} bytes")]
    TooLarge(u64),
    /// Something in it.
    #[error("{0}")]
    Entry(String),
}

/// How far an archive was looked at.
#[derive(Clone, Debug)]
pub(in crate::live) struct Check {
    limit: u64,
    passed: u64,
    state: State,
    /// Of a header or an extension, what has come of it.
    held: Vec<u8>,
    /// What extensions say of the entry that comes next.
    next: Next,
    /// Links so far, as paths in small letters: some file systems do not tell letters apart.
    links: BTreeSet<Vec<u8>>,
    link_bytes: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    First,
    Header,
    /// A block of zeros has come; two are the end.
    Ending,
    Extension {
        kind: u8,
        size: u64,
        left: u64,
    },
    Content {
        left: u64,
    },
    Over,
}

#[derive(Clone, Debug, Default)]
struct Next {
    names: Vec<Vec<u8>>,
    targets: Vec<Vec<u8>>,
    size: Option<u64>,
    seen: Vec<u8>,
}

impl Check {
    /// Of an archive that may be so long.
    pub fn new(limit: u64) -> Self {
        Self {
            limit,
            passed: 0,
            state: State::First,
            held: Vec::new(),
            next: Next::default(),
            links: BTreeSet::new(),
            link_bytes: 0,
        }
    }

    /// Looks at what comes next, before it is passed on.
    pub fn pass(&mut self, mut bytes: &[u8]) -> Result<(), Unfit> {
        self.passed = self.passed.saturating_add(bytes.len() as u64);
        if self.passed > self.limit {
            return Err(Unfit::TooLarge(self.limit));
        }
        while !bytes.is_empty() {
            match &mut self.state {
                State::Over => return Ok(()),
                State::Content { left } => {
                    let taken = usize::try_from(*left).unwrap_or(usize::MAX).min(bytes.len());
                    *left -= taken as u64;
                    if *left == 0 {
                        self.state = State::Header;
                    }
                    bytes = bytes.get(taken..).unwrap_or_default();
                }
                State::Extension { kind, size, left } => {
                    let taken = usize::try_from(*left).unwrap_or(usize::MAX).min(bytes.len());
                    *left -= taken as u64;
                    let (kind, size, is_whole) = (*kind, *size, *left == 0);
                    let (now, rest) = bytes.split_at(taken);
                    self.held.extend_from_slice(now);
                    bytes = rest;
                    if is_whole {
                        let mut held = std::mem::take(&mut self.held);
                        held.truncate(usize::try_from(size).unwrap_or_default());
                        self.state = State::Header;
                        self.extension(kind, &held)?;
                    }
                }
                State::First | State::Header | State::Ending => {
                    let (now, rest) = bytes.split_at(bytes.len().min(BLOCK - self.held.len()));
                    self.held.extend_from_slice(now);
                    bytes = rest;
                    // Packed, all of it may be shorter than a header.
                    if self.state == State::First && is_compressed(&self.held) {
                        return Err(unfit("this is no plain tar archive: it must not be compressed"));
                    }
                    if self.held.len() == BLOCK {
                        let held = std::mem::take(&mut self.held);
                        self.header(&held)?;
                    }
                }
            }
        }
        Ok(())
    }

    fn header(&mut self, block: &[u8]) -> Result<(), Unfit> {
        if block.iter().all(|byte| *byte == 0) {
            self.state = if self.state == State::Ending { State::Over } else { State::Ending };
            return Ok(());
        }
        if self.state == State::Ending || !has_checksum(block) {
            return Err(unfit("this is no plain tar archive, or it is damaged"));
        }
        let kind = field(block, 156, 1).first().copied().unwrap_or_default();
        let size =
            number(field(block, 124, 12)).ok_or_else(|| unfit("an entry of the archive has no size"))?;
        if matches!(kind, b'x' | b'g' | b'L' | b'K') {
            let is_second = self.next.seen.contains(&kind) || (kind == b'g' && !self.next.seen.is_empty());
            if is_second || size > LONGEST_EXTENSION {
                return Err(unfit("an extension in the archive comes twice or is too long"));
            }
            self.next.seen.push(kind);
            if size == 0 {
                self.state = State::Header;
                return self.extension(kind, &[]);
            }
            self.state = State::Extension { kind, size, left: padded(size) };
            return Ok(());
        }
        let next = std::mem::take(&mut self.next);
        let mut names = next.names;
        names.push(text(field(block, 0, 100)).to_vec());
        let prefix = text(field(block, 345, 155));
        if field(block, 257, 6) == b"ustar\0" && !prefix.is_empty() {
            names.push([prefix, b"/", text(field(block, 0, 100))].concat());
        }
        let mut targets = next.targets;
        targets.push(text(field(block, 157, 100)).to_vec());
        let size = next.size.unwrap_or(size);
        self.entry(kind, size, &names, &targets)?;
        self.state = if size == 0 { State::Header } else { State::Content { left: padded(size) } };
        Ok(())
    }

    /// Whichever of its names a reader takes.
    fn entry(&mut self, kind: u8, size: u64, names: &[Vec<u8>], targets: &[Vec<u8>]) -> Result<(), Unfit> {
        let name = names.first().map_or(&b""[..], Vec::as_slice);
        let is_bare = matches!(kind, b'1' | b'2' | b'5' | b'6')
            || (kind == 0 && names.iter().any(|name| name.ends_with(b"/")));
        match kind {
            0 | b'0' | b'1' | b'2' | b'5' | b'6' | b'7' => {}
            b'3' | b'4' => {
                return Err(unfit(format!("the archive has a device, {}: that is not copied", told(name))));
            }
            _ => return Err(unfit(format!("the archive has {} of a kind that is not copied", told(name)))),
        }
        if is_bare && size > 0 {
            return Err(unfit(format!("the archive has content for {}, which can have none", told(name))));
        }
        for name in names {
            let path = path(name)?;
            // Some unpack a file into what a link of its name leads to; a link only replaces it.
            self.meets_no_link(name, &path, if kind == b'2' { path.len() } else { path.len() + 1 })?;
            let is_link = match kind {
                b'2' => true,
                b'1' => self.has_linked_target(targets)?,
                _ => false,
            };
            if is_link && !path.is_empty() {
                let path = path.join(&b'/');
                self.link_bytes += path.len();
                if self.link_bytes > MOST_LINKS {
                    return Err(unfit("the archive has more links than can be looked at"));
                }
                self.links.insert(path);
            }
        }
        Ok(())
    }

    /// A second name of a file that is in the archive, or of one of its links.
    fn has_linked_target(&self, targets: &[Vec<u8>]) -> Result<bool, Unfit> {
        let mut is_link = false;
        for target in targets {
            let path = path(target)?;
            self.meets_no_link(target, &path, path.len())?;
            is_link |= self.links.contains(&path.join(&b'/'));
        }
        Ok(is_link)
    }

    /// None of the first parts of a path, fewer than so many, is a link.
    fn meets_no_link(&self, name: &[u8], path: &[Vec<u8>], fewer_than: usize) -> Result<(), Unfit> {
        let is_link =
            |parts: usize| path.get(..parts).is_some_and(|above| self.links.contains(&above.join(&b'/')));
        if !self.links.is_empty() && (1..fewer_than).any(is_link) {
            return Err(unfit(format!(
                "the archive has {}, which leads through a link of its own",
                told(name)
            )));
        }
        Ok(())
    }

    /// What stands before an entry and is about it.
    fn extension(&mut self, kind: u8, held: &[u8]) -> Result<(), Unfit> {
        let unreadable = || unfit("an extension in the archive cannot be read");
        match kind {
            b'L' => self.next.names.push(text(held).to_vec()),
            b'K' => self.next.targets.push(text(held).to_vec()),
            _ => {
                let mut rest = held;
                while !rest.is_empty() {
                    let (key, value, after) = record(rest).ok_or_else(unreadable)?;
                    rest = after;
                    let is_about_one = matches!(key, b"path" | b"linkpath" | b"size");
                    if begins_with(key, b"GNU.sparse.") || (kind == b'g' && is_about_one) {
                        return Err(unfit(
                            "the archive has sparse files, or names for all files at once, which are not copied",
                        ));
                    }
                    match key {
                        b"path" => self.next.names.push(value.to_vec()),
                        b"linkpath" => self.next.targets.push(value.to_vec()),
                        b"size" => {
                            let size = std::str::from_utf8(value).ok().and_then(|size| size.parse().ok());
                            self.next.size = Some(size.ok_or_else(unreadable)?);
                        }
                        _ => {}
                    }
                }
            }
        }
        // What it says is of all that follows, and of no one entry.
        if kind == b'g' {
            self.next.seen.clear();
        }
        Ok(())
    }
}

/// The parts of a path in small letters; refused where it is absolute or climbs.
fn path(name: &[u8]) -> Result<Vec<Vec<u8>>, Unfit> {
    let climbs = name.split(|byte| matches!(byte, b'/' | b'\\')).any(|part| part == b"..");
    if climbs || name.first() == Some(&b'/') || name.contains(&0) {
        return Err(unfit(format!("the archive has {}, which leads out of it", told(name))));
    }
    let parts = name.split(|byte| *byte == b'/').filter(|part| !part.is_empty() && *part != b".");
    Ok(parts.map(<[u8]>::to_ascii_lowercase).collect())
}

/// One of `LENGTH KEY=VALUE\n`, and what comes after it.
fn record(bytes: &[u8]) -> Option<(&[u8], &[u8], &[u8])> {
    let space = bytes.iter().position(|byte| *byte == b' ')?;
    let length: usize = std::str::from_utf8(bytes.get(..space)?).ok()?.parse().ok()?;
    let (record, rest) = bytes.split_at_checked(length)?;
    let pair = record.get(space + 1..)?.strip_suffix(b"\n")?;
    let equals = pair.iter().position(|byte| *byte == b'=')?;
    Some((pair.get(..equals)?, pair.get(equals + 1..)?, rest))
}

/// In octal, or from a first byte of 0x80 on in binary.
fn number(field: &[u8]) -> Option<u64> {
    if let Some((0x80, binary)) = field.split_first() {
        let (high, low) = binary.split_at_checked(binary.len().checked_sub(8)?)?;
        let low = u64::from_be_bytes(low.try_into().ok()?);
        return (high.iter().all(|byte| *byte == 0) && low <= u64::MAX >> 1).then_some(low);
    }
    let digits = std::str::from_utf8(field).ok()?.trim_matches([' ', '\0']);
    if digits.is_empty() {
        Some(0)
    } else {
        u64::from_str_radix(digits, 8).ok().filter(|_| !digits.starts_with('+'))
    }
}

/// Of all bytes, with spaces where it stands itself.
fn has_checksum(block: &[u8]) -> bool {
    let bytes =
        || block.iter().enumerate().map(|(at, byte)| if (148..156).contains(&at) { b' ' } else { *byte });
    let unsigned: i64 = bytes().map(i64::from).sum();
    // Some old programs took bytes for numbers that may be negative.
    let signed: i64 = bytes().map(|byte| i64::from(byte.cast_signed())).sum();
    let told = number(field(block, 148, 8)).and_then(|sum| i64::try_from(sum).ok());
    told.is_some_and(|told| told == unsigned || told == signed)
}

fn field(block: &[u8], at: usize, long: usize) -> &[u8] {
    block.get(at..at + long).unwrap_or_default()
}

/// Up to the first zero.
fn text(field: &[u8]) -> &[u8] {
    field.split(|byte| *byte == 0).next().unwrap_or_default()
}

fn padded(size: u64) -> u64 {
    size.checked_next_multiple_of(BLOCK as u64).unwrap_or(u64::MAX)
}

/// As far as so much of its beginning tells.
fn is_compressed(beginning: &[u8]) -> bool {
    COMPRESSED.iter().any(|magic| begins_with(beginning, magic)) || field(beginning, 1, 3) == SKIPPED_BY_ZSTD
}

fn begins_with(bytes: &[u8], magic: &[u8]) -> bool {
    bytes.strip_prefix(magic).is_some()
}

fn told(name: &[u8]) -> String {
    let name = String::from_utf8_lossy(name.get(..MOST_TOLD).unwrap_or(name)).into_owned();
    format!("{name:?}")
}

fn unfit(why: impl Into<String>) -> Unfit {
    Unfit::Entry(why.into())
}

#[cfg(test)]
mod tests;
