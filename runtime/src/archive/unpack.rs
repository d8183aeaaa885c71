//! Makes a tree on disk of entries.
//!
//! The archive may come from a stranger who runs the container that it becomes. So every step goes from
//! one open directory to the next by a single name, which is no link; nothing is made that is a device;
//! and of attributes only those are set that a container could set itself.

use std::{
    ffi::OsStr,
    io::{self, ErrorKind, Read, Seek as _, SeekFrom},
    os::{
        fd::{AsFd, OwnedFd},
        unix::ffi::OsStrExt as _,
    },
    path::Path,
};

use rustix::{
    fs::{
        AtFlags, CWD, FileType, Gid, Mode, OFlags, Timespec, Timestamps, Uid, XattrFlags, chownat,
        fchmod, fchown, fstat, futimens, linkat, mkdirat, mknodat, openat, symlinkat, utimensat,
    },
    io::Errno,
};

use super::{
    ACCESS, CAPABILITY, DEFAULT, DEPTH_MAX, Head, Kind, Reader, forgetful, invalid, pack::mapped,
};
use crate::{
    embedded::image::{Mapping, namespaced},
    tree::at,
};

/// How much is written to a file at once, in bytes.
const PIECE_BYTES: usize = 256 << 10;

/// Unpacks an archive as the directory `root`, which must not exist, and writes it to the disk. The
/// machine that it becomes does not know which one it was. Leaves what it has made when it fails. Blocks.
pub(crate) fn unpack<R: Read>(
    reader: &mut Reader<R>,
    root: &Path,
    mapping: Mapping,
) -> io::Result<()> {
    mkdirat(CWD, root, Mode::RWXU)?;
    let root = open(CWD, root.as_os_str())?;
    let Some(first) = reader.next()? else { return Err(invalid("the archive is empty")) };
    if !first.path.is_empty() || first.kind != Kind::Directory {
        return Err(invalid("the archive does not begin with its root"));
    }
    let mut target =
        Target { dir: open(&root, OsStr::new("."))?, root, levels: Vec::new(), mapping };
    let root_times = target.describe_root(&first)?;
    while let Some(mut head) = reader.next()? {
        forgetful(&mut head);
        target.place(&head, reader).map_err(|error| {
            let path = String::from_utf8_lossy(&head.path);
            io::Error::new(error.kind(), format!("entry {}: {error}", path.escape_debug()))
        })?;
    }
    target.climb_to(0)?;
    futimens(&target.root, &root_times)?;
    Ok(rustix::fs::syncfs(&target.root)?)
}

/// A directory that was entered.
struct Level {
    name: Vec<u8>,
    /// Its times, which filling it changes.
    times: Timestamps,
}

struct Target {
    root: OwnedFd,
    /// The directory that the last entry was placed in.
    dir: OwnedFd,
    /// What leads to it from the root.
    levels: Vec<Level>,
    mapping: Mapping,
}

impl Target {
    fn describe_root(&self, head: &Head) -> io::Result<Timestamps> {
        self.describe(&self.root, head)?;
        Ok(times(head))
    }

    fn place<R: Read>(&mut self, head: &Head, data: &mut Reader<R>) -> io::Result<()> {
        let names: Vec<&[u8]> = head.path.split(|octet| *octet == b'/').collect();
        if head.path.is_empty() {
            return Err(invalid("there are two roots"));
        }
        if names.len() > DEPTH_MAX {
            return Err(invalid("it is too deep"));
        }
        let Some((name, above)) = names.split_last() else { return Ok(()) };
        self.enter(above)?;
        let name = OsStr::from_bytes(name);
        let inherits = self.hands_down()?;
        match &head.kind {
            Kind::Directory => {
                mkdirat(&self.dir, name, Mode::RWXU)?;
                let directory = open(&self.dir, name)?;
                if inherits {
                    forget_access(&directory)?;
                }
                self.describe(&directory, head)?;
                futimens(&directory, &times(head))?;
            }
            Kind::File { size, ranges } => {
                let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW;
                let file = openat(&self.dir, name, flags | OFlags::CLOEXEC, Mode::RUSR)?;
                let mut file = std::fs::File::from(file);
                fill(&mut file, *size, ranges, data)?;
                if inherits {
                    forget_access(&file)?;
                }
                self.describe(&file, head)?;
                futimens(&file, &times(head))?;
            }
            Kind::Symlink(target) => {
                symlinkat(target.as_slice(), &self.dir, name)?;
                self.own(name, head)?;
                utimensat(&self.dir, name, &times(head), AtFlags::SYMLINK_NOFOLLOW)?;
            }
            Kind::Link(target) => self.link(target, name)?,
            Kind::Fifo => {
                mknodat(&self.dir, name, FileType::Fifo, Mode::empty(), 0)?;
                self.own(name, head)?;
                // It was made just now, and nobody else makes anything here.
                let mode = Mode::from_raw_mode(head.mode);
                rustix::fs::chmodat(&self.dir, name, mode, AtFlags::empty())?;
                let path = at(&self.dir, name);
                for (name, value) in &head.xattrs {
                    let value = self.attribute(name, value)?;
                    rustix::fs::lsetxattr(&path, name.as_slice(), &value, XattrFlags::empty())?;
                }
                utimensat(&self.dir, name, &times(head), AtFlags::SYMLINK_NOFOLLOW)?;
            }
        }
        Ok(())
    }

    /// Goes to a directory.
    fn enter(&mut self, names: &[&[u8]]) -> io::Result<()> {
        let both = self.levels.iter().zip(names);
        let common = both.take_while(|(level, name)| level.name == **name).count();
        self.climb_to(common)?;
        for name in names.get(common..).unwrap_or_default() {
            let next = open(&self.dir, OsStr::from_bytes(name)).map_err(|error| {
                io::Error::new(error.kind(), format!("its directory is none: {error}"))
            })?;
            let stat = fstat(&next)?;
            let time = |tv_sec, nanoseconds: u64| {
                let tv_nsec = i64::try_from(nanoseconds).map_err(io::Error::other)?;
                Ok::<_, io::Error>(Timespec { tv_sec, tv_nsec })
            };
            let times = Timestamps {
                last_access: time(stat.st_atime, stat.st_atime_nsec)?,
                last_modification: time(stat.st_mtime, stat.st_mtime_nsec)?,
            };
            self.levels.push(Level { name: name.to_vec(), times });
            self.dir = next;
        }
        Ok(())
    }

    /// Goes up until so many names lead to the directory. What is left gets its times back.
    fn climb_to(&mut self, depth: usize) -> io::Result<()> {
        while self.levels.len() > depth {
            let Some(level) = self.levels.pop() else { break };
            futimens(&self.dir, &level.times)?;
            self.dir = open(&self.dir, OsStr::new(".."))?;
        }
        Ok(())
    }

    /// Makes another name for a file that was placed before.
    fn link(&self, target: &[u8], name: &OsStr) -> io::Result<()> {
        let names: Vec<&[u8]> = target.split(|octet| *octet == b'/').collect();
        let Some((old, above)) = names.split_last() else {
            return Err(invalid("it leads nowhere"));
        };
        let mut dir = open(&self.root, OsStr::new("."))?;
        for step in above {
            dir = open(&dir, OsStr::from_bytes(step))?;
        }
        Ok(linkat(&dir, OsStr::from_bytes(old), &self.dir, name, AtFlags::empty())?)
    }

    /// Whether what is made in the directory gets an access list from it.
    fn hands_down(&self) -> io::Result<bool> {
        match rustix::fs::fgetxattr(&self.dir, DEFAULT, &mut [0_u8; 0]) {
            Ok(_) => Ok(true),
            Err(Errno::NODATA | Errno::OPNOTSUPP) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    /// Sets everything but times and contents. A change of owner takes privileges away, so that comes
    /// first; then what may be a list of more owners.
    fn describe(&self, file: impl AsFd, head: &Head) -> io::Result<()> {
        let (user, group) = self.owner(head)?;
        fchown(&file, Some(user), Some(group))?;
        fchmod(&file, Mode::from_raw_mode(head.mode))?;
        for (name, value) in &head.xattrs {
            let value = self.attribute(name, value)?;
            rustix::fs::fsetxattr(&file, name.as_slice(), &value, XattrFlags::empty())?;
        }
        Ok(())
    }

    /// An attribute's value as it is on the host.
    fn attribute(&self, name: &[u8], value: &[u8]) -> io::Result<Vec<u8>> {
        match name {
            CAPABILITY => namespaced(value, self.mapping),
            ACCESS | DEFAULT => mapped(value, |id| self.outer(id)),
            _ => Ok(value.to_vec()),
        }
    }

    fn own(&self, name: &OsStr, head: &Head) -> io::Result<()> {
        let (user, group) = self.owner(head)?;
        Ok(chownat(&self.dir, name, Some(user), Some(group), AtFlags::SYMLINK_NOFOLLOW)?)
    }

    /// The ids on the host.
    fn owner(&self, head: &Head) -> io::Result<(Uid, Gid)> {
        let (Some(user), Some(group)) = (self.outer(head.uid), self.outer(head.gid)) else {
            let text =
                format!("its owner {}:{} is outside of the container's ids", head.uid, head.gid);
            return Err(io::Error::new(ErrorKind::InvalidData, text));
        };
        Ok((Uid::from_raw(user), Gid::from_raw(group)))
    }

    fn outer(&self, id: u32) -> Option<u32> {
        let Mapping { base, size } = self.mapping;
        if base == 0 || id < size { base.checked_add(id) } else { None }
    }
}

/// Writes the contents of a file, and leaves its holes.
fn fill<R: Read>(
    file: &mut std::fs::File,
    size: u64,
    ranges: &[(u64, u64)],
    data: &mut Reader<R>,
) -> io::Result<()> {
    let mut piece = vec![0; PIECE_BYTES.min(usize::try_from(size).unwrap_or(PIECE_BYTES))];
    for (begin, length) in ranges {
        file.seek(SeekFrom::Start(*begin))?;
        let mut left = *length;
        while left > 0 {
            let most = usize::try_from(left).unwrap_or(PIECE_BYTES).min(piece.len());
            let room = piece.get_mut(..most).unwrap_or_default();
            let count = data.read(room)?;
            if count == 0 {
                return Err(ErrorKind::UnexpectedEof.into());
            }
            io::Write::write_all(file, room.get(..count).unwrap_or_default())?;
            left -= count as u64;
        }
    }
    file.set_len(size)
}

/// Takes away what a file got from the directory that it was made in.
fn forget_access(file: impl AsFd) -> io::Result<()> {
    for name in [ACCESS, DEFAULT] {
        match rustix::fs::fremovexattr(&file, name) {
            Ok(()) | Err(Errno::NODATA | Errno::OPNOTSUPP) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

fn open(dir: impl AsFd, name: &OsStr) -> io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    Ok(openat(dir, name, flags, Mode::empty())?)
}

fn times(head: &Head) -> Timestamps {
    let (tv_sec, nanoseconds) = head.modified;
    let time = Timespec { tv_sec, tv_nsec: nanoseconds.into() };
    Timestamps { last_access: time, last_modification: time }
}
