//! Walking a tree that a container made: no link in it is followed, no path in it is spelled out, and
//! neither its depth nor the number of its names costs file descriptors, stack or memory.

use std::{
    ffi::{CStr, CString, OsStr},
    io,
    mem::MaybeUninit,
    os::{
        fd::{AsFd, AsRawFd as _, OwnedFd},
        unix::ffi::OsStrExt as _,
    },
    path::PathBuf,
};

use rustix::fs::{Mode, OFlags, RawDir, SeekFrom, Stat};

/// How much is read of a directory at once, in octets.
const NAMES_BYTES: usize = 8 << 10;

/// What is left of a directory's names.
#[derive(Debug)]
pub(crate) struct Names {
    /// What is left of what was read of it.
    read: Vec<CString>,
    /// Where the rest of it begins, if there may be more.
    rest: Option<u64>,
}

impl Names {
    /// All of a directory's.
    pub(crate) fn new() -> Self {
        Self { read: Vec::new(), rest: Some(0) }
    }

    /// The next name in the directory, which is always the same one.
    pub(crate) fn next(&mut self, dir: &OwnedFd) -> io::Result<Option<CString>> {
        while self.read.is_empty()
            && let Some(rest) = self.rest.take()
        {
            rustix::fs::seek(dir, SeekFrom::Start(rest))?;
            let mut room = [MaybeUninit::uninit(); NAMES_BYTES];
            let mut part = RawDir::new(dir, &mut room);
            while let Some(entry) = part.next() {
                let entry = entry?;
                self.rest = Some(entry.next_entry_cookie());
                if !matches!(entry.file_name().to_bytes(), b"." | b"..") {
                    self.read.push(entry.file_name().to_owned());
                }
                if part.is_buffer_empty() {
                    break;
                }
            }
        }
        Ok(self.read.pop())
    }

    /// How many of them are held.
    #[cfg(test)]
    pub(crate) fn held(&self) -> usize {
        self.read.len()
    }
}

/// Opens a directory, and no link to one.
pub(crate) fn open_dir<D: AsFd, P: rustix::path::Arg>(dir: D, name: P) -> io::Result<OwnedFd> {
    let flags =
        OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::NOATIME | OFlags::CLOEXEC;
    Ok(rustix::fs::openat(dir, name, flags, Mode::empty())?)
}

/// The directory above, which must be this one.
pub(crate) fn climb(dir: &OwnedFd, want: (u64, u64)) -> io::Result<OwnedFd> {
    let above = open_dir(dir.as_fd(), c"..")?;
    if identity(&rustix::fs::fstat(&above)?) == want {
        Ok(above)
    } else {
        Err(io::Error::other("a directory was moved while it was read"))
    }
}

/// Which file it is.
pub(crate) fn identity(stat: &Stat) -> (u64, u64) {
    (stat.st_dev, stat.st_ino)
}

/// A path for calls that take nothing else. Only the name itself could be a link, and those calls do
/// not follow it.
pub(crate) fn at(dir: &OwnedFd, name: &OsStr) -> PathBuf {
    let mut path = PathBuf::from(format!("/proc/self/fd/{}", dir.as_raw_fd()));
    path.push(name);
    path
}

/// The same name in another type.
pub(crate) fn plain(name: &CStr) -> &OsStr {
    OsStr::from_bytes(name.to_bytes())
}
