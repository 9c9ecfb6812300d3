//! Files of this machine into an archive. They are root's in the container, as with `docker cp`.

use std::ffi::OsStr;
use std::fs::{File, Metadata};
use std::io::{Error, Read as _, Result, Write as _};
use std::path::{Path, PathBuf};

use tar::{Builder, EntryType, Header, HeaderMode};

use super::Copied;
use super::pipe::Writer;
use super::place::Source;

/// Writes the source as `name`, or its contents alone where that is empty.
pub(super) fn pack(source: &Source, name: &OsStr, writer: Writer) -> Result<Copied> {
    let mut builder = Builder::new(writer);
    let mut copied = Copied::default();
    let packed = add(&mut builder, &source.path, Path::new(name), &mut copied);
    match packed.and_then(|()| builder.finish()).and_then(|()| builder.get_mut().flush()) {
        Ok(()) => Ok(copied),
        Err(error) => {
            builder.get_ref().fail(&error);
            Err(error)
        }
    }
}

fn add(builder: &mut Builder<Writer>, path: &Path, name: &Path, copied: &mut Copied) -> Result<()> {
    // Directories are entered before what lies beside them is read, so as many are open as lie in each other.
    let mut open: Vec<(PathBuf, PathBuf)> = vec![(path.to_owned(), name.to_owned())];
    while let Some((path, name)) = open.pop() {
        let what = |error: Error| Error::new(error.kind(), format!("{}: {error}", path.display()));
        let found = std::fs::symlink_metadata(&path).map_err(what)?;
        let kind = found.file_type();
        if kind.is_dir() {
            if !name.as_os_str().is_empty() {
                builder.append_data(&mut header(&found, EntryType::Directory, 0), &name, std::io::empty())?;
            }
            let entries =
                std::fs::read_dir(&path).map_err(what)?.collect::<Result<Vec<_>>>().map_err(what)?;
            let mut entries: Vec<_> = entries.into_iter().map(|entry| entry.file_name()).collect();
            entries.sort_unstable_by(|one, other| other.cmp(one));
            open.extend(entries.into_iter().map(|entry| (path.join(&entry), name.join(&entry))));
        } else if kind.is_symlink() {
            let to = std::fs::read_link(&path).map_err(what)?;
            builder.append_link(&mut header(&found, EntryType::Symlink, 0), &name, to)?;
            copied.files += 1;
        } else if kind.is_file() {
            let file = File::open(&path).map_err(what)?;
            let size = file.metadata().map_err(what)?.len();
            // What grows meanwhile is cut, what shrinks is an error: the header has said how long it is.
            let mut content = file.take(size);
            builder
                .append_data(&mut header(&found, EntryType::Regular, size), &name, &mut content)
                .map_err(what)?;
            if content.limit() > 0 {
                return Err(what(Error::other("it became shorter while it was read")));
            }
            copied.files += 1;
            copied.bytes += size;
        } else {
            eprintln!("warning: {} is no file, directory or link, and is left out", path.display());
        }
    }
    Ok(())
}

fn header(found: &Metadata, kind: EntryType, size: u64) -> Header {
    let mut header = Header::new_gnu();
    header.set_metadata_in_mode(found, HeaderMode::Complete);
    header.set_entry_type(kind);
    header.set_size(size);
    header.set_uid(0);
    header.set_gid(0);
    header
}
