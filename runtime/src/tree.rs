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

/// Of how many directories, each in the one before it, names are held at once.
const NAMES_LEVELS: usize = 16;

/// A directory that a walk is in.
#[derive(Debug)]
pub(crate) struct Level<T> {
    /// What is left of it.
    pub(crate) names: Names,
    /// What the walk needs to know when it comes back.
    pub(crate) about: T,
}

impl<T> Level<T> {
    /// One that nothing was read of.
    pub(crate) fn new(about: T) -> Self {
        Self { names: Names::new(), about }
    }
}

/// Goes one directory down. Those that are far up by now hold no names any more: else a deep tree of large
/// directories would fill the memory. What is left of them is read again.
pub(crate) fn descend<T>(levels: &mut Vec<Level<T>>, about: T) {
    levels.push(Level::new(about));
    if let Some(far) = levels.iter_mut().nth_back(NAMES_LEVELS) {
        far.names.forget();
    }
}

/// What is left of a directory's names.
#[derive(Debug)]
pub(crate) struct Names {
    /// What is left of what was read of it, the next one last, each with where what is after it begins.
    read: Vec<(CString, u64)>,
    /// Where the rest of it begins, if there may be more.
    rest: Option<u64>,
    /// Where what is after the last name that was given begins.
    after: u64,
}

impl Names {
    /// All of a directory's.
    pub(crate) fn new() -> Self {
        Self { read: Vec::new(), rest: Some(0), after: 0 }
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
                let after = entry.next_entry_cookie();
                self.rest = Some(after);
                if !matches!(entry.file_name().to_bytes(), b"." | b"..") {
                    self.read.push((entry.file_name().to_owned(), after));
                }
                if part.is_buffer_empty() {
                    break;
                }
            }
            self.read.reverse();
        }
        let Some((name, after)) = self.read.pop() else { return Ok(None) };
        self.after = after;
        Ok(Some(name))
    }

    /// Holds no names any more: those that are left are read again.
    fn forget(&mut self) {
        if !self.read.is_empty() {
            self.read = Vec::new();
            self.rest = Some(self.after);
        }
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

#[cfg(test)]
mod tests {
    use std::{collections::BTreeSet, fs};

    use super::*;

    const DEPTH: usize = 4 * NAMES_LEVELS;
    const WIDTH: usize = 300;

    #[test]
    fn what_a_walk_holds_does_not_grow_with_its_depth_and_it_sees_each_name_once() {
        let dir = tempfile::tempdir_in("/var/tmp").unwrap();
        let mut path = dir.path().to_owned();
        for depth in 0..DEPTH {
            // First, for where names come in the order in which they were made; and each another one, for
            // where it goes by them: about half of what is read comes after it.
            let deep = format!("deep-{depth}");
            fs::create_dir(path.join(&deep)).unwrap();
            for at in 0..WIDTH {
                std::os::unix::fs::symlink("nowhere", path.join(format!("name-{at}"))).unwrap();
            }
            path.push(deep);
        }
        let mut below = open_dir(rustix::fs::CWD, dir.path()).unwrap();
        let mut levels = vec![Level::new(BTreeSet::new())];
        let (mut most, mut left) = (0, 0);
        while let Some(level) = levels.last_mut() {
            if let Some(name) = level.names.next(&below).unwrap() {
                assert!(level.about.insert(name.clone()), "{name:?} comes twice");
                if name.to_bytes().starts_with(b"deep") {
                    below = open_dir(&below, &name).unwrap();
                    descend(&mut levels, BTreeSet::new());
                }
            } else {
                let level = levels.pop().unwrap();
                let all = if levels.len() == DEPTH { 0 } else { WIDTH + 1 };
                assert_eq!(level.about.len(), all, "in directory {}", levels.len());
                below = open_dir(&below, c"..").unwrap();
                left += 1;
            }
            most = most.max(levels.iter().map(|level| level.names.held()).sum());
        }
        assert_eq!(left, DEPTH + 1);
        // A name and what tells its length and kind take 32 octets of what is read at once.
        assert!(most <= (NAMES_LEVELS + 1) * NAMES_BYTES / 32, "{most} names at once");
    }
}
