//! An archive of a container onto this machine. Whoever wrote it is a stranger: nothing leads out of the directory, through no
//! link of his or of ours, and nothing is made but files, directories and links.

use std::fs::{File, OpenOptions, Permissions};
use std::io::{Error, Read, Result};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Component, Path, PathBuf};
use std::time::{Duration, SystemTime};

use tar::{Archive, Entry, EntryType};

use super::Copied;
use super::place::Goal;

/// Unpacks what is one file or directory in the archive under the name that is wanted here. `is_root` says that it has no name.
pub(super) fn unpack(archive: impl Read, into: &Goal, is_root: bool) -> Result<Copied> {
    let mut archive = Archive::new(archive);
    let mut copied = Copied::default();
    // A directory may be writable for nobody; it becomes so once everything is in it.
    let mut modes: Vec<(PathBuf, u32)> = Vec::new();
    for entry in archive.entries()? {
        let mut entry = entry?;
        let path = entry.path()?.into_owned();
        let Some(rest) = inside(&path, is_root)? else { continue };
        let to = inner(into, &rest);
        match entry.header().entry_type() {
            EntryType::Directory => {
                if to.as_os_str().is_empty() {
                    continue;
                }
                directory(&into.dir, &to)?;
                modes.push((into.dir.join(&to), entry.header().mode()? & 0o777));
            }
            EntryType::Regular | EntryType::Continuous | EntryType::GNUSparse => {
                let place = place(&into.dir, &to)?;
                copied.bytes += file(&mut entry, &place)?;
                copied.files += 1;
            }
            EntryType::Symlink => {
                let target = entry.link_name()?.ok_or_else(|| wrong(&path, "a link leads nowhere"))?;
                let place = place(&into.dir, &to)?;
                std::os::unix::fs::symlink(target, &place)?;
                copied.files += 1;
            }
            EntryType::Link => {
                let target =
                    entry.link_name()?.ok_or_else(|| wrong(&path, "a link leads nowhere"))?.into_owned();
                let target =
                    inside(&target, is_root)?.ok_or_else(|| wrong(&path, "a link leads to nothing"))?;
                let target = inner(into, &target);
                walk(&into.dir, &target)?;
                let place = place(&into.dir, &to)?;
                std::fs::hard_link(into.dir.join(&target), &place)?;
                copied.files += 1;
            }
            EntryType::XGlobalHeader | EntryType::XHeader => {}
            _ => eprintln!(
                "warning: {} is no file, directory or link, and is left out",
                crate::output::plain::plain(&path.to_string_lossy())
            ),
        }
    }
    for (dir, mode) in modes.into_iter().rev() {
        std::fs::set_permissions(dir, Permissions::from_mode(mode))?;
    }
    Ok(copied)
}

fn wrong(path: &Path, why: &str) -> Error {
    Error::other(format!("{}: {why}", crate::output::plain::plain(&path.to_string_lossy())))
}

/// What comes after the name of the whole; `None` for what says nothing.
fn inside(path: &Path, is_root: bool) -> Result<Option<PathBuf>> {
    let mut names = Vec::new();
    for component in path.components() {
        match component {
            Component::Normal(name) => names.push(name),
            Component::CurDir | Component::RootDir => {}
            Component::ParentDir | Component::Prefix(_) => {
                return Err(wrong(path, "it leads out of the archive"));
            }
        }
    }
    if is_root {
        return Ok(Some(names.into_iter().collect()));
    }
    let mut names = names.into_iter();
    Ok(names.next().map(|_| names.collect()))
}

fn inner(into: &Goal, rest: &Path) -> PathBuf {
    let name = Path::new(&into.name);
    if rest.as_os_str().is_empty() { name.to_owned() } else { name.join(rest) }
}

/// An error if a part of the way is a link, or no directory.
fn walk(root: &Path, to: &Path) -> Result<()> {
    let mut at = root.to_owned();
    let parts: Vec<_> = to.components().collect();
    for part in parts.iter().take(parts.len().saturating_sub(1)) {
        at.push(part);
        if !std::fs::symlink_metadata(&at)?.is_dir() {
            return Err(wrong(to, "it leads through a link"));
        }
    }
    Ok(())
}

/// Makes a directory, unless it is there.
fn directory(root: &Path, to: &Path) -> Result<()> {
    walk(root, to)?;
    let place = root.join(to);
    match std::fs::symlink_metadata(&place) {
        Ok(found) if found.is_dir() => std::fs::set_permissions(&place, Permissions::from_mode(0o700)),
        Ok(_) => Err(wrong(to, "there is something else of that name")),
        Err(_) => {
            std::fs::create_dir(&place)?;
            std::fs::set_permissions(&place, Permissions::from_mode(0o700))
        }
    }
}

/// A place for something that is no directory, where nothing is left of what was there.
fn place(root: &Path, to: &Path) -> Result<PathBuf> {
    if to.as_os_str().is_empty() {
        return Err(Error::other("the archive holds no directory, so it has no contents"));
    }
    walk(root, to)?;
    let place = root.join(to);
    match std::fs::symlink_metadata(&place) {
        Ok(found) if found.is_dir() => Err(wrong(to, "there is a directory of that name")),
        Ok(_) => std::fs::remove_file(&place).map(|()| place),
        Err(_) => Ok(place),
    }
}

fn file(entry: &mut Entry<'_, impl Read>, place: &Path) -> Result<u64> {
    let mode = entry.header().mode()? & 0o777;
    let modified = entry.header().mtime().ok();
    let mut file: File = OpenOptions::new().write(true).create_new(true).mode(0o600).open(place)?;
    let bytes = std::io::copy(entry, &mut file)?;
    file.set_permissions(Permissions::from_mode(mode))?;
    if let Some(at) = modified.and_then(|at| SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(at))) {
        file.set_modified(at)?;
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use tar::{Builder, Header};

    use super::*;

    /// An archive of files, and of links where the content is `-> TARGET` or `=> TARGET`. Names may be what no packer writes.
    fn archive(entries: &[(&str, &str)]) -> Vec<u8> {
        let mut builder = Builder::new(Vec::new());
        for (name, content) in entries {
            let mut header = Header::new_gnu();
            header.set_mode(0o4755);
            header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
            let (kind, content) = match content.split_at_checked(3) {
                Some(("-> ", to)) => (EntryType::Symlink, to),
                Some(("=> ", to)) => (EntryType::Link, to),
                _ if name.ends_with('/') => (EntryType::Directory, ""),
                _ => (EntryType::Regular, *content),
            };
            header.set_entry_type(kind);
            let is_link = matches!(kind, EntryType::Symlink | EntryType::Link);
            if is_link {
                header.set_link_name_literal(content).expect("short");
            }
            let data = if is_link { &[][..] } else { content.as_bytes() };
            header.set_size(data.len() as u64);
            header.set_cksum();
            builder.append(&header, data).expect("appended");
        }
        builder.into_inner().expect("an archive")
    }

    fn unpacked(dir: &Path, name: &str, entries: &[(&str, &str)]) -> Result<Copied> {
        unpack(&*archive(entries), &Goal { dir: dir.to_owned(), name: name.into() }, false)
    }

    #[test]
    fn what_comes_out_has_the_name_that_is_wanted_here() {
        let dir = tempfile::tempdir().expect("a directory");
        let entries = [
            ("site/", ""),
            ("site/a", "one"),
            ("site/deep/", ""),
            ("site/deep/b", "two"),
            ("site/l", "-> a"),
            ("site/h", "=> site/a"),
        ];

        let copied = unpacked(dir.path(), "new", &entries).expect("unpacked");

        assert_eq!(copied, Copied { files: 4, bytes: 6 });
        let read = |name: &str| std::fs::read_to_string(dir.path().join(name)).expect(name);
        assert_eq!(
            (&*read("new/a"), &*read("new/deep/b"), &*read("new/l"), &*read("new/h")),
            ("one", "two", "one", "one")
        );
        let mode = std::fs::metadata(dir.path().join("new/a")).expect("there").permissions().mode();
        assert_eq!(mode & 0o7777, 0o755);
        unpacked(dir.path(), "", &[("site/", ""), ("site/top", "three")]).expect("unpacked");
        assert_eq!(read("top"), "three");
        unpacked(dir.path(), "", &[("site/", ""), ("site/top", "four")]).expect("again");
        assert_eq!(read("top"), "four");
    }

    #[test]
    fn t16_nothing_of_a_strangers_archive_leads_out_of_its_place() {
        let dir = tempfile::tempdir().expect("a directory");
        let outside = dir.path().join("outside");
        let inside = dir.path().join("inside");
        std::fs::create_dir(&inside).expect("made");
        std::fs::create_dir(&outside).expect("made");
        std::fs::write(outside.join("file"), "ours").expect("written");
        let link = format!("-> {}", outside.display());
        let to_file = format!("-> {}/file", outside.display());
        let hard = format!("=> {}/file", outside.display());

        for entries in [
            vec![("a/", ""), ("a/../../outside/file", "theirs")],
            vec![("a/", ""), ("a/l", &*link), ("a/l/file", "theirs")],
            vec![("a/", ""), ("a/l", &*link), ("a/l/", "")],
            vec![("a/", ""), ("a/h", &*hard)],
            vec![("a/", ""), ("a/l", &*link), ("a/h", "=> a/l/file")],
        ] {
            assert!(unpacked(&inside, "it", &entries).is_err(), "{entries:?}");
            std::fs::remove_dir_all(inside.join("it")).expect("removed");
        }
        // A link that was there is replaced, not followed.
        unpacked(&inside, "it", &[("a", &*to_file)]).expect("a link");
        unpacked(&inside, "it", &[("a", "theirs")]).expect("a file");
        assert_eq!(std::fs::read_to_string(outside.join("file")).expect("read"), "ours");
        assert_eq!(std::fs::read_to_string(inside.join("it")).expect("read"), "theirs");
    }
}
