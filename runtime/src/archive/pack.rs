//! Makes entries of a tree on disk.

use std::{
    ffi::CStr,
    fs, io,
    os::{fd::OwnedFd, unix::fs::DirBuilderExt as _},
    path::{Path, PathBuf},
};

use rustix::{
    fs::{FileType, Mode, OFlags, SeekFrom, Stat},
    io::Errno,
};

use super::{
    ACCESS, CAPABILITY, DEFAULT, DEPTH_MAX, Head, Kind, RANGES_MAX, Writer, XATTRS_BYTES_MAX,
    invalid, is_kept,
};
use crate::{
    embedded::image::Mapping,
    tree::{Level, at, climb, descend, identity, open_dir, plain},
};

/// What runtimes mount in a container: of these directories, nothing but themselves is its own.
pub(crate) const MOUNTED: &[&str] = &["proc", "sys", "dev", "run", "ramdisk", "hoody/shares"];

/// The kernel's bound for the names of a file's extended attributes together, and for one value.
const XATTR_BYTES_MAX: usize = 64 << 10;

/// How much is read of a file at once, in bytes.
const PIECE_BYTES: usize = 256 << 10;

/// What is packed.
#[derive(Debug)]
pub(crate) struct Tree<'a> {
    /// Its root.
    pub(crate) root: OwnedFd,
    /// How its owners are kept on disk.
    pub(crate) mapping: Mapping,
    /// Directories whose entries are left out.
    pub(crate) without: &'a [&'a str],
    /// Which files have several names.
    pub(crate) notes: &'a Notes,
}

/// A directory to note in which files have several names: a container can have more of them than we have
/// memory. Nobody else's, and removed when it is dropped.
#[derive(Debug)]
pub(crate) struct Notes(PathBuf);

impl Notes {
    /// Makes one that there is not yet in a directory, which is made, too.
    pub(crate) fn begin(within: &Path) -> io::Result<Self> {
        let mut builder = fs::DirBuilder::new();
        builder.mode(0o700).recursive(true).create(within)?;
        builder.recursive(false);
        for number in 0_u64.. {
            let dir = within.join(format!("{number:x}"));
            match builder.create(&dir) {
                // Others make notes there, too.
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                made => return made.map(|()| Self(dir)),
            }
        }
        Err(io::ErrorKind::AlreadyExists.into())
    }
}

impl Drop for Notes {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.0) {
            tracing::warn!(path = %self.0.display(), %error, "notes for an archive stay");
        }
    }
}

/// What is known of a directory under way: what it is, and how long its path is.
type About = (Stat, usize);

/// Packs a tree that nobody changes meanwhile. Blocks.
pub(crate) fn pack<W: io::Write>(tree: Tree<'_>, writer: &mut Writer<W>) -> io::Result<()> {
    let Tree { root, mapping, without, notes } = tree;
    let mut packer =
        Packer { mapping, notes, names: vec![0; XATTR_BYTES_MAX], value: vec![0; XATTR_BYTES_MAX] };
    let stat = rustix::fs::fstat(&root)?;
    writer.add(&packer.head(&root, c".", &stat, &[], Kind::Directory)?, io::empty())?;
    let (mut dir, mut path) = (root, Vec::new());
    let mut levels = vec![Level::<About>::new((stat, 0))];
    while let Some(level) = levels.last_mut() {
        let Some(name) = level.names.next(&dir)? else {
            levels.pop();
            if let Some(above) = levels.last() {
                dir = climb(&dir, identity(&above.about.0))?;
            }
            continue;
        };
        path.truncate(level.about.1);
        if !path.is_empty() {
            path.push(b'/');
        }
        path.extend_from_slice(name.to_bytes());
        let stat = rustix::fs::statat(&dir, &name, rustix::fs::AtFlags::SYMLINK_NOFOLLOW)?;
        if !FileType::from_raw_mode(stat.st_mode).is_dir() {
            packer.entry(&dir, &name, &stat, &path, writer)?;
            continue;
        }
        writer.add(&packer.head(&dir, &name, &stat, &path, Kind::Directory)?, io::empty())?;
        if !without.iter().any(|without| without.as_bytes() == path) {
            if levels.len() == DEPTH_MAX {
                return Err(invalid(format!("directories lie more than {DEPTH_MAX} deep")));
            }
            dir = open_dir(&dir, &name)?;
            let stat = rustix::fs::fstat(&dir)?;
            descend(&mut levels, (stat, path.len()));
        }
    }
    Ok(())
}

struct Packer<'a> {
    mapping: Mapping,
    notes: &'a Notes,
    names: Vec<u8>,
    value: Vec<u8>,
}

impl Packer<'_> {
    /// Packs what is no directory.
    fn entry<W: io::Write>(
        &mut self,
        dir: &OwnedFd,
        name: &CStr,
        stat: &Stat,
        path: &[u8],
        writer: &mut Writer<W>,
    ) -> io::Result<()> {
        let file_type = FileType::from_raw_mode(stat.st_mode);
        let kind = match file_type {
            FileType::RegularFile => None,
            FileType::Symlink => {
                let target = rustix::fs::readlinkat(dir, name, Vec::new())?;
                Some(Kind::Symlink(target.into_bytes()))
            }
            FileType::Fifo => Some(Kind::Fifo),
            // They mean nothing elsewhere.
            FileType::Socket | FileType::CharacterDevice | FileType::BlockDevice => return Ok(()),
            FileType::Directory | FileType::Unknown => {
                return Err(io::Error::other("a file of unknown kind cannot be packed"));
            }
        };
        if stat.st_nlink > 1
            && let Some(first) = self.first(stat, path)?
        {
            return writer.add(&self.head(dir, name, stat, path, Kind::Link(first))?, io::empty());
        }
        if let Some(kind) = kind {
            return writer.add(&self.head(dir, name, stat, path, kind)?, io::empty());
        }
        let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOATIME | OFlags::CLOEXEC;
        let file = rustix::fs::openat(dir, name, flags | OFlags::RDONLY, Mode::empty())?;
        let size = u64::try_from(stat.st_size).map_err(io::Error::other)?;
        let ranges = ranges(&file, size)?;
        let data = Data { file, ranges: ranges.clone().into_iter(), range: (0, 0) };
        let head = self.head(dir, name, stat, path, Kind::File { size, ranges })?;
        writer.add(&head, io::BufReader::with_capacity(PIECE_BYTES, data))
    }

    /// The path by which a file was packed already; notes this one otherwise.
    fn first(&self, stat: &Stat, path: &[u8]) -> io::Result<Option<Vec<u8>>> {
        let note = self.notes.0.join(format!("{:x}-{:x}", stat.st_dev, stat.st_ino));
        match fs::read(&note) {
            Ok(first) => Ok(Some(first)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                fs::write(note, path).map(|()| None)
            }
            Err(error) => Err(error),
        }
    }

    fn head(
        &mut self,
        dir: &OwnedFd,
        name: &CStr,
        stat: &Stat,
        path: &[u8],
        kind: Kind,
    ) -> io::Result<Head> {
        // What a further name says is what the first one said.
        let xattrs = if matches!(kind, Kind::Link(_)) {
            Vec::new()
        } else {
            self.xattrs(&at(dir, plain(name)))?
        };
        let nanoseconds = u32::try_from(stat.st_mtime_nsec).map_err(io::Error::other)?;
        Ok(Head {
            path: path.to_vec(),
            kind,
            mode: stat.st_mode & 0o7777,
            uid: self.inner(stat.st_uid, path)?,
            gid: self.inner(stat.st_gid, path)?,
            modified: (stat.st_mtime, nanoseconds),
            xattrs,
        })
    }

    /// The id in the container.
    fn inner(&self, id: u32, path: &[u8]) -> io::Result<u32> {
        if self.mapping.base == 0 {
            return Ok(id);
        }
        let inner = id.checked_sub(self.mapping.base).filter(|id| *id < self.mapping.size);
        inner.ok_or_else(|| {
            let path = String::from_utf8_lossy(path);
            invalid(format!("{path} belongs to {id}, who is not the container's"))
        })
    }

    fn xattrs(&mut self, path: &Path) -> io::Result<Vec<(Vec<u8>, Vec<u8>)>> {
        let length = match rustix::fs::llistxattr(path, &mut *self.names) {
            // The file system has none.
            Err(Errno::OPNOTSUPP) => 0,
            length => length?,
        };
        let (mut found, mut left) = (Vec::new(), XATTRS_BYTES_MAX);
        let names = self.names.get(..length).unwrap_or_default();
        for name in names.split(|octet| *octet == 0).filter(|name| is_kept(name)) {
            let length = rustix::fs::lgetxattr(path, name, &mut *self.value)?;
            let value = self.value.get(..length).unwrap_or_default();
            let value = match name {
                name if name == CAPABILITY => without_root(value),
                name if name == ACCESS || name == DEFAULT => {
                    mapped(value, |id| id.checked_sub(self.mapping.base))?
                }
                _ => value.to_vec(),
            };
            let takes = name.len() + value.len();
            left = left.checked_sub(takes).ok_or_else(|| {
                invalid("the extended attributes of a file are too long for an archive")
            })?;
            found.push((name.to_vec(), value));
        }
        Ok(found)
    }
}

/// A file's capabilities in the form that names no user namespace (revision 2). Revision 3 ends with the
/// namespace's root.
fn without_root(value: &[u8]) -> Vec<u8> {
    match value.split_first_chunk::<4>() {
        Some((magic, sets)) if u32::from_le_bytes(*magic) >> 24 == 3 => {
            let magic = (u32::from_le_bytes(*magic) & 0x00ff_ffff) | 0x0200_0000;
            let sets = sets.get(..16).unwrap_or(sets);
            [&magic.to_le_bytes(), sets].concat()
        }
        Some(_) | None => value.to_vec(),
    }
}

/// An access list (`linux/posix_acl_xattr.h`) with other numbers: a word with the version, then for each
/// entry its kind, its permissions and, for named users and groups, the number. All little-endian.
pub(super) fn mapped(value: &[u8], map: impl Fn(u32) -> Option<u32>) -> io::Result<Vec<u8>> {
    const NAMED: [u16; 2] = [0x02, 0x08];
    let bad =
        || invalid("an access list is malformed, or about somebody who is not the container's");
    let (version, entries) = value.split_first_chunk::<4>().ok_or_else(bad)?;
    let (entries, rest) = entries.as_chunks::<8>();
    if u32::from_le_bytes(*version) != 2 || !rest.is_empty() {
        return Err(bad());
    }
    let mut list = version.to_vec();
    for [kind_low, kind_high, low, high, id @ ..] in entries {
        let (kind, id) = (u16::from_le_bytes([*kind_low, *kind_high]), u32::from_le_bytes(*id));
        let id = if NAMED.contains(&kind) { map(id).ok_or_else(bad)? } else { id };
        list.extend_from_slice(&[*kind_low, *kind_high, *low, *high]);
        list.extend_from_slice(&id.to_le_bytes());
    }
    Ok(list)
}

/// Where a file has data.
fn ranges(file: &OwnedFd, size: u64) -> io::Result<Vec<(u64, u64)>> {
    let (mut ranges, mut at) = (Vec::new(), 0);
    while at < size {
        let (begin, end) = match rustix::fs::seek(file, SeekFrom::Data(at)) {
            Ok(begin) => (begin, rustix::fs::seek(file, SeekFrom::Hole(begin))?.min(size)),
            // Nothing but a hole is left.
            Err(Errno::NXIO) => break,
            // It knows of no holes.
            Err(Errno::INVAL) => (at, size),
            Err(error) => return Err(error.into()),
        };
        if ranges.len() + 1 == RANGES_MAX {
            ranges.push((begin, size - begin));
            break;
        }
        if end > begin {
            ranges.push((begin, end - begin));
        }
        at = end.max(at.saturating_add(1));
    }
    Ok(ranges)
}

/// The octets of a file in these ranges.
struct Data {
    file: OwnedFd,
    ranges: std::vec::IntoIter<(u64, u64)>,
    /// The present one: where it goes on, and what is left of it.
    range: (u64, u64),
}

impl io::Read for Data {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.range.1 == 0 {
            let Some(next) = self.ranges.next() else { return Ok(0) };
            self.range = next;
        }
        let (at, left) = self.range;
        let room = usize::try_from(left).unwrap_or(usize::MAX).min(buffer.len());
        let room = buffer.get_mut(..room).unwrap_or_default();
        let count = rustix::io::retry_on_intr(|| rustix::io::pread(&self.file, &mut *room, at))?;
        self.range = (at + count as u64, left - count as u64);
        Ok(count)
    }
}
