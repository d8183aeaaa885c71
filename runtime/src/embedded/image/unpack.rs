//! Unpacks a tar stream as the root file system of a user namespace.
//!
//! Every owner is shifted by the mapping. Changing an owner clears the setuid bits and drops file
//! capabilities, so modes and extended attributes are set after it. A file capability gets the
//! number of the namespace's root (revision 3 of its form): without it the kernel would grant the
//! capability to nobody but the host's root.
//!
//! The stream may come from a stranger: every path is resolved by the kernel below the target
//! (`RESOLVE_IN_ROOT`), whatever links the archive has made before.

use std::{
    collections::HashMap,
    ffi::OsStr,
    io::{self, ErrorKind, Read},
    os::fd::{AsFd, OwnedFd},
    path::{Component, Path, PathBuf},
};

use rustix::{
    fs::{
        AtFlags, CWD, FileType, Gid, Mode, OFlags, ResolveFlags, Timespec, Timestamps, Uid,
        XattrFlags, chownat, fchmod, fchown, fsetxattr, futimens, linkat, mkdirat, mknodat, openat,
        openat2, statat, symlinkat, unlinkat, utimensat,
    },
    io::Errno,
};
use sha2::{Digest as _, Sha256};
use tar::{Archive, Entry, EntryType};

use super::Mapping;

/// The most entries that an image may have.
const ENTRIES_MAX: u64 = 5_000_000;

/// The attribute that carries file capabilities, and its prefix in archives.
const CAPABILITY: &str = "security.capability";
const PAX_XATTR: &str = "SCHILY.xattr.";

/// What was unpacked.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Unpacked {
    /// Entries made.
    pub(super) entries: u64,
    /// The space that they take, in bytes, as far as one can tell without asking the disk.
    pub(super) disk_bytes: u64,
    /// SHA-256 of the stream.
    pub(super) digest: String,
}

/// Unpacks the whole stream into the existing, empty directory `root`. Blocks.
pub(super) fn unpack(stream: impl Read, root: &Path, mapping: Mapping) -> io::Result<Unpacked> {
    let mut archive = Archive::new(Hashed { inner: stream, hash: Sha256::new() });
    let mut target = Target::open(root, mapping)?;
    for entry in archive.entries()? {
        let mut entry = entry?;
        let path = entry.path()?.into_owned();
        target.place(&path, &mut entry).map_err(|error| {
            io::Error::new(error.kind(), format!("entry {}: {error}", path.display()))
        })?;
    }
    let (entries, disk_bytes) = target.finish()?;
    // Whoever writes the stream pads it, and would take a closed pipe for an error.
    let mut rest = archive.into_inner();
    io::copy(&mut rest, &mut io::sink())?;
    if entries == 0 {
        return Err(io::Error::new(ErrorKind::UnexpectedEof, "the archive is empty"));
    }
    Ok(Unpacked { entries, disk_bytes, digest: hex::encode(rest.hash.finalize()) })
}

/// Hashes what is read.
struct Hashed<R> {
    inner: R,
    hash: Sha256,
}

impl<R: Read> Read for Hashed<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        self.hash.update(buffer.get(..count).unwrap_or_default());
        Ok(count)
    }
}

/// Who owns an entry, on the host, and how it is to look.
#[derive(Clone, Copy)]
struct Attributes {
    uid: Uid,
    gid: Gid,
    mode: Mode,
    modified: Timespec,
}

/// The directory that is being filled.
struct Target {
    root: OwnedFd,
    mapping: Mapping,
    /// The parent of the entry before: archives list a directory's entries together.
    parent: Option<(PathBuf, OwnedFd)>,
    /// Times of directories, set last because filling them changes them.
    directories: HashMap<PathBuf, Timespec>,
    entries: u64,
    disk_bytes: u64,
}

impl Target {
    fn open(root: &Path, mapping: Mapping) -> io::Result<Self> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root = openat(CWD, root, flags, Mode::empty())?;
        let owner = owner(mapping, 0, 0)?;
        fchown(&root, Some(owner.0), Some(owner.1))?;
        let (parent, directories) = (None, HashMap::new());
        Ok(Self { root, mapping, parent, directories, entries: 0, disk_bytes: 0 })
    }

    fn place<R: Read>(&mut self, path: &Path, entry: &mut Entry<'_, R>) -> io::Result<()> {
        let kind = entry.header().entry_type();
        let attributes = self.attributes(entry)?;
        let Some(path) = inner_path(path)? else {
            // The root itself.
            return set(&self.root, attributes);
        };
        let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else { return Ok(()) };
        self.enter(parent)?;
        let Some((_, parent)) = &self.parent else { return Ok(()) };
        self.entries += 1;
        if self.entries > ENTRIES_MAX {
            return Err(io::Error::new(
                ErrorKind::FileTooLarge,
                "the archive has too many entries",
            ));
        }
        match kind {
            EntryType::Directory => {
                make_directory(parent, name, attributes)?;
                self.directories.insert(path.clone(), attributes.modified);
                self.disk_bytes += 4096;
            }
            EntryType::Regular | EntryType::Continuous | EntryType::GNUSparse => {
                make_way(parent, name)?;
                self.disk_bytes += make_file(parent, name, attributes, self.mapping, entry)?;
            }
            EntryType::Symlink => {
                make_way(parent, name)?;
                let to = entry.link_name()?.ok_or(ErrorKind::InvalidData)?;
                symlinkat(to.as_os_str(), parent, name)?;
                let owner = (Some(attributes.uid), Some(attributes.gid));
                chownat(parent, name, owner.0, owner.1, AtFlags::SYMLINK_NOFOLLOW)?;
                utimensat(parent, name, &times(attributes.modified), AtFlags::SYMLINK_NOFOLLOW)?;
            }
            EntryType::Link => {
                make_way(parent, name)?;
                let to = entry.link_name()?.ok_or(ErrorKind::InvalidData)?.into_owned();
                link(&self.root, &to, parent, name)?;
            }
            EntryType::Fifo => {
                make_way(parent, name)?;
                mknodat(parent, name, FileType::Fifo, attributes.mode, 0)?;
                let owner = (Some(attributes.uid), Some(attributes.gid));
                chownat(parent, name, owner.0, owner.1, AtFlags::SYMLINK_NOFOLLOW)?;
            }
            // No container may use the host's devices; the runtime gives it the standard ones.
            EntryType::Char | EntryType::Block => self.entries -= 1,
            EntryType::XGlobalHeader => self.entries -= 1,
            // The library consumes the first three itself; the rest nobody writes any more.
            EntryType::GNULongName | EntryType::GNULongLink | EntryType::XHeader => {
                return Err(unknown(kind));
            }
            _ => return Err(unknown(kind)),
        }
        Ok(())
    }

    /// Makes `path` the current parent, creating it like `mkdir -p` where the archive does not.
    fn enter(&mut self, path: &Path) -> io::Result<()> {
        if self.parent.as_ref().is_some_and(|(current, _)| current == path) {
            return Ok(());
        }
        self.parent = None;
        let found = match open_below(&self.root, path) {
            Err(Errno::NOENT) => {
                let (uid, gid) = owner(self.mapping, 0, 0)?;
                let modified = Timespec { tv_sec: 0, tv_nsec: 0 };
                let attributes = Attributes { uid, gid, mode: Mode::from(0o755), modified };
                let mut at = PathBuf::new();
                for part in path {
                    let above = open_below(&self.root, &at)?;
                    at.push(part);
                    match open_below(&self.root, &at) {
                        Err(Errno::NOENT) => make_directory(&above, part, attributes)?,
                        Err(error) => return Err(error.into()),
                        Ok(_) => {}
                    }
                }
                open_below(&self.root, path)?
            }
            found => found?,
        };
        self.parent = Some((path.to_owned(), found));
        Ok(())
    }

    fn attributes<R: Read>(&self, entry: &Entry<'_, R>) -> io::Result<Attributes> {
        let header = entry.header();
        let (uid, gid) = owner(self.mapping, header.uid()?, header.gid()?)?;
        let seconds = i64::try_from(header.mtime()?).unwrap_or(0);
        let modified = Timespec { tv_sec: seconds, tv_nsec: 0 };
        Ok(Attributes { uid, gid, mode: Mode::from(header.mode()? & 0o7777), modified })
    }

    fn finish(self) -> io::Result<(u64, u64)> {
        for (path, modified) in self.directories {
            match open_below(&self.root, &path) {
                // A later entry took its place.
                Err(Errno::NOENT | Errno::NOTDIR) => {}
                directory => futimens(reopen(&directory?)?, &times(modified))?,
            }
        }
        Ok((self.entries, self.disk_bytes))
    }
}

fn unknown(kind: EntryType) -> io::Error {
    let text = format!("an entry of kind {:?} is not known", char::from(kind.as_byte()));
    io::Error::new(ErrorKind::Unsupported, text)
}

/// The path below the root, without `.`; `None` for the root itself.
fn inner_path(path: &Path) -> io::Result<Option<PathBuf>> {
    let mut inner = PathBuf::new();
    for component in path.components() {
        match component {
            Component::Normal(part) => inner.push(part),
            Component::RootDir | Component::CurDir => {}
            Component::ParentDir | Component::Prefix(_) => {
                return Err(io::Error::new(ErrorKind::InvalidData, "the path leads upwards"));
            }
        }
    }
    Ok((!inner.as_os_str().is_empty()).then_some(inner))
}

/// The ids on the host.
fn owner(mapping: Mapping, uid: u64, gid: u64) -> io::Result<(Uid, Gid)> {
    let shift = |id: u64| match u32::try_from(id) {
        Ok(id) if mapping.base == 0 || id < mapping.size => mapping.base.checked_add(id),
        Ok(_) | Err(_) => None,
    };
    let (Some(uid), Some(gid)) = (shift(uid), shift(gid)) else {
        let text = format!("its owner {uid}:{gid} is outside of the container's ids");
        return Err(io::Error::new(ErrorKind::InvalidData, text));
    };
    Ok((Uid::from_raw(uid), Gid::from_raw(gid)))
}

/// Opens a directory below `root`, following links as inside of a container.
fn open_below(root: &OwnedFd, path: &Path) -> Result<OwnedFd, Errno> {
    let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    openat2(root, path, flags, Mode::empty(), ResolveFlags::IN_ROOT)
}

/// A handle for changing a directory that was opened as a mere place.
fn reopen(directory: &OwnedFd) -> io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    Ok(openat(directory, c".", flags, Mode::empty())?)
}

fn make_directory(parent: &OwnedFd, name: &OsStr, attributes: Attributes) -> io::Result<()> {
    match mkdirat(parent, name, Mode::from(0o700)) {
        Ok(()) => {}
        Err(Errno::EXIST) => {
            let stat = statat(parent, name, AtFlags::SYMLINK_NOFOLLOW)?;
            if FileType::from_raw_mode(stat.st_mode) != FileType::Directory {
                unlinkat(parent, name, AtFlags::empty())?;
                mkdirat(parent, name, Mode::from(0o700))?;
            }
        }
        Err(error) => return Err(error.into()),
    }
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    set(openat(parent, name, flags, Mode::empty())?, attributes)
}

/// Writes a regular file and returns the space that it takes.
fn make_file<R: Read>(
    parent: &OwnedFd,
    name: &OsStr,
    attributes: Attributes,
    mapping: Mapping,
    entry: &mut Entry<'_, R>,
) -> io::Result<u64> {
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let file = openat(parent, name, flags, Mode::from(0o600))?;
    let mut file = std::fs::File::from(file);
    let size = io::copy(entry, &mut file)?;
    set(&file, attributes)?;
    for (name, value) in xattrs(entry, mapping)? {
        fsetxattr(&file, name.as_str(), &value, XattrFlags::empty())?;
    }
    Ok(size.div_ceil(4096) * 4096)
}

/// Sets owner, then mode, then time: the first clears bits of the second.
fn set(file: impl AsFd, attributes: Attributes) -> io::Result<()> {
    fchown(&file, Some(attributes.uid), Some(attributes.gid))?;
    fchmod(&file, attributes.mode)?;
    Ok(futimens(&file, &times(attributes.modified))?)
}

/// The attributes worth keeping: capabilities and those of users. Access lists and labels hold ids
/// and names of the machine that the archive was made on.
fn xattrs<R: Read>(
    entry: &mut Entry<'_, R>,
    mapping: Mapping,
) -> io::Result<Vec<(String, Vec<u8>)>> {
    let Some(extensions) = entry.pax_extensions()? else { return Ok(Vec::new()) };
    let mut found = Vec::new();
    for extension in extensions {
        let extension = extension?;
        let Some(name) = extension.key().ok().and_then(|key| key.strip_prefix(PAX_XATTR)) else {
            continue;
        };
        let value = extension.value_bytes();
        if name == CAPABILITY {
            found.push((name.to_owned(), namespaced(value, mapping)?));
        } else if name.starts_with("user.") {
            found.push((name.to_owned(), value.to_vec()));
        }
    }
    Ok(found)
}

/// A file capability that counts in the user namespace whose root is the mapping's base.
///
/// The form (`linux/capability.h`), all little-endian: a word with the revision in its top byte and
/// the effective flag in bit 0, two pairs of words with the sets and, in revision 3, the id.
pub(crate) fn namespaced(value: &[u8], mapping: Mapping) -> io::Result<Vec<u8>> {
    let bad = || io::Error::new(ErrorKind::InvalidData, "its file capability is malformed");
    let (head, rest) = value.split_first_chunk::<4>().ok_or_else(bad)?;
    let head = u32::from_le_bytes(*head);
    let sets = match (head >> 24, rest.len()) {
        (2, 16) => rest,
        // It belonged to a namespace where the archive was made; here it belongs to ours.
        (3, 20) => rest.get(..16).ok_or_else(bad)?,
        _ => return Err(bad()),
    };
    if mapping.base == 0 {
        return Ok([&(0x0200_0000 | (head & 1)).to_le_bytes(), sets].concat());
    }
    let head = 0x0300_0000 | (head & 1);
    Ok([&head.to_le_bytes(), sets, &mapping.base.to_le_bytes()].concat())
}

/// Makes a hard link to an entry made before.
fn link(root: &OwnedFd, to: &Path, parent: &OwnedFd, name: &OsStr) -> io::Result<()> {
    let to = inner_path(to)?.ok_or(ErrorKind::InvalidData)?;
    let (Some(above), Some(old)) = (to.parent(), to.file_name()) else {
        return Err(ErrorKind::InvalidData.into());
    };
    let above = open_below(root, above)?;
    Ok(linkat(&above, old, parent, name, AtFlags::empty())?)
}

/// Removes what stands where an entry belongs; archives may list a name twice.
fn make_way(parent: &OwnedFd, name: &OsStr) -> io::Result<()> {
    match unlinkat(parent, name, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => Ok(()),
        Err(Errno::ISDIR) => Ok(unlinkat(parent, name, AtFlags::REMOVEDIR)?),
        Err(error) => Err(error.into()),
    }
}

fn times(modified: Timespec) -> Timestamps {
    Timestamps { last_access: modified, last_modification: modified }
}

#[cfg(test)]
#[path = "unpack_tests.rs"]
mod tests;
