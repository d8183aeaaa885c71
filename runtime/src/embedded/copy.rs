//! An exact copy of a tree that a container made.
//!
//! Owners, modes, times, extended attributes (among them those by which an overlay marks what hides
//! the image), devices, links and holes are as in the original; data is shared where the file system
//! can. What the tree holds was not ours to choose: no link in it is followed, no path in it is
//! spelled out, and neither its depth nor the number of its links costs file descriptors or stack.

use std::{
    ffi::CStr,
    fs, io,
    os::fd::OwnedFd,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use rustix::{
    fs::{
        AtFlags, CWD, FileType, Gid, Mode, OFlags, SeekFrom, Stat, Timespec, Timestamps, Uid,
        XattrFlags,
    },
    io::Errno,
};

use crate::tree::{Level, at, climb, descend, identity, open_dir, plain};

/// The kernel's bound for the names of a file's extended attributes together, and for one value.
const XATTR_BYTES_MAX: usize = 64 << 10;

/// How many files are written to the disk one by one. From some number on it is quicker to write out
/// the whole file system, with what others have left to be written on it.
const SYNCS_MAX: u32 = 256;

/// How much is copied with one call.
const CHUNK: u64 = 64 << 20;

/// Tells a copy under way that nobody waits for it any more.
#[derive(Clone, Debug, Default)]
pub(crate) struct GiveUp(Arc<AtomicBool>);

impl GiveUp {
    /// From now on.
    pub(crate) fn now(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    /// Whether it was told.
    pub(crate) fn is_told(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    fn check(&self) -> io::Result<()> {
        if self.is_told() {
            return Err(io::Error::new(io::ErrorKind::Interrupted, "the copy was given up"));
        }
        Ok(())
    }
}

/// Copies the directory `from` to `to`, which must not exist, while nobody changes either. Beside
/// `to` there is a directory with the ending `links` meanwhile. Blocks; everything has been written to
/// the disk when it returns. Ends soon with [`io::ErrorKind::Interrupted`] when it is given up, and leaves
/// what it has done so far.
pub(super) fn copy_tree(from: &Path, to: &Path, give_up: &GiveUp) -> io::Result<()> {
    copy_dir(open_dir(CWD, from)?, to, give_up)
}

/// The same for a directory that is open.
pub(super) fn copy_dir(from: OwnedFd, to: &Path, give_up: &GiveUp) -> io::Result<()> {
    let links = to.with_extension("links");
    match fs::remove_dir_all(&links) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        Ok(()) | Err(_) => {}
    }
    rustix::fs::mkdirat(CWD, &links, Mode::RWXU)?;
    rustix::fs::mkdirat(CWD, to, Mode::RWXU)?;
    let mut copier = Copier {
        give_up: give_up.clone(),
        links: open_dir(CWD, &links)?,
        reflinks: true,
        syncs: 0,
        names: vec![0; XATTR_BYTES_MAX],
        value: vec![0; XATTR_BYTES_MAX],
    };
    let to = open_dir(CWD, to)?;
    let disk = to.try_clone()?;
    copier.tree(from, to)?;
    // Flat, and of files only.
    fs::remove_dir_all(&links)?;
    if copier.syncs > SYNCS_MAX {
        rustix::fs::syncfs(disk)?;
    }
    Ok(())
}

struct Copier {
    give_up: GiveUp,
    /// Holds the copy of each file that has several names, under its number.
    links: OwnedFd,
    /// Whether the file system may be able to share data between files.
    reflinks: bool,
    /// How many files should have been written to the disk so far.
    syncs: u32,
    names: Vec<u8>,
    value: Vec<u8>,
}

/// What is known of a directory under way.
struct Both {
    /// The original.
    stat: Stat,
    /// Which directory the copy is.
    copy: (u64, u64),
}

impl Both {
    fn of(from: &OwnedFd, to: &OwnedFd) -> io::Result<Self> {
        let copy = identity(&rustix::fs::fstat(to)?);
        Ok(Self { stat: rustix::fs::fstat(from)?, copy })
    }
}

impl Copier {
    fn tree(&mut self, mut from: OwnedFd, mut to: OwnedFd) -> io::Result<()> {
        let mut levels = vec![Level::new(Both::of(&from, &to)?)];
        while let Some(level) = levels.last_mut() {
            self.give_up.check()?;
            if let Some(name) = level.names.next(&from)? {
                let stat = rustix::fs::statat(&from, &name, AtFlags::SYMLINK_NOFOLLOW)?;
                if FileType::from_raw_mode(stat.st_mode).is_dir() {
                    rustix::fs::mkdirat(&to, &name, Mode::RWXU)?;
                    from = open_dir(&from, &name)?;
                    to = open_dir(&to, &name)?;
                    descend(&mut levels, Both::of(&from, &to)?);
                } else {
                    self.entry(&from, &to, &name, &stat)?;
                }
                continue;
            }
            // Its entries are all there, so its times stay from now on.
            self.describe(&from, &to, c".", &level.about.stat)?;
            self.sync(&to)?;
            levels.pop();
            if let Some(above) = levels.last() {
                from = climb(&from, identity(&above.about.stat))?;
                to = climb(&to, above.about.copy)?;
            }
        }
        Ok(())
    }

    /// Copies what is no directory.
    fn entry(&mut self, from: &OwnedFd, to: &OwnedFd, name: &CStr, stat: &Stat) -> io::Result<()> {
        let number = format!("{:x}-{:x}", stat.st_dev, stat.st_ino);
        let several = stat.st_nlink > 1;
        if several {
            match rustix::fs::linkat(&self.links, &number, to, name, AtFlags::empty()) {
                Err(Errno::NOENT) => {}
                done => return Ok(done?),
            }
        }
        let mut file = None;
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::RegularFile => file = Some(self.file(from, to, name, stat)?),
            FileType::Symlink => {
                let target = rustix::fs::readlinkat(from, name, Vec::new())?;
                rustix::fs::symlinkat(&target, to, name)?;
            }
            kind @ (FileType::Fifo
            | FileType::Socket
            | FileType::CharacterDevice
            | FileType::BlockDevice) => {
                rustix::fs::mknodat(to, name, kind, Mode::RUSR, stat.st_rdev)?;
            }
            FileType::Directory | FileType::Unknown => {
                return Err(io::Error::other("a file of unknown kind cannot be copied"));
            }
        }
        self.describe(from, to, name, stat)?;
        if let Some(file) = file {
            self.sync(&file)?;
        }
        if several {
            rustix::fs::linkat(to, name, &self.links, &number, AtFlags::empty())?;
        }
        Ok(())
    }

    fn sync(&mut self, file: &OwnedFd) -> io::Result<()> {
        self.syncs = self.syncs.saturating_add(1);
        if self.syncs > SYNCS_MAX {
            return Ok(());
        }
        Ok(rustix::fs::fsync(file)?)
    }

    /// Copies the contents of a file.
    fn file(
        &mut self,
        from: &OwnedFd,
        to: &OwnedFd,
        name: &CStr,
        stat: &Stat,
    ) -> io::Result<OwnedFd> {
        let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let from = rustix::fs::openat(
            from,
            name,
            flags | OFlags::RDONLY | OFlags::NOATIME,
            Mode::empty(),
        )?;
        let create = flags | OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL;
        let to = rustix::fs::openat(to, name, create, Mode::RUSR | Mode::WUSR)?;
        let size = u64::try_from(stat.st_size).map_err(io::Error::other)?;
        if size == 0 {
            return Ok(to);
        }
        if self.reflinks {
            match rustix::fs::ioctl_ficlone(&to, &from) {
                Ok(()) => return Ok(to),
                // Of this file only, as far as can be known.
                Err(Errno::INVAL) => {}
                Err(Errno::OPNOTSUPP | Errno::NOTTY | Errno::XDEV | Errno::NOSYS) => {
                    self.reflinks = false;
                }
                Err(error) => return Err(error.into()),
            }
        }
        rustix::fs::ftruncate(&to, size)?;
        let mut at = 0;
        while at < size {
            let (begin, end) = match rustix::fs::seek(&from, SeekFrom::Data(at)) {
                Ok(begin) => (begin, rustix::fs::seek(&from, SeekFrom::Hole(begin))?.min(size)),
                // Nothing but a hole is left.
                Err(Errno::NXIO) => break,
                // It knows of no holes.
                Err(Errno::INVAL) => (at, size),
                Err(error) => return Err(error.into()),
            };
            self.range(&from, &to, begin, end)?;
            at = end.max(at.saturating_add(1));
        }
        Ok(to)
    }

    /// Copies the octets from `at` to `end`.
    fn range(&mut self, from: &OwnedFd, to: &OwnedFd, mut at: u64, end: u64) -> io::Result<()> {
        while at < end {
            self.give_up.check()?;
            let (mut read, mut written) = (at, at);
            let most = usize::try_from((end - at).min(CHUNK)).map_err(io::Error::other)?;
            let copied =
                rustix::fs::copy_file_range(from, Some(&mut read), to, Some(&mut written), most);
            let copied = match copied {
                Ok(copied) => copied,
                Err(Errno::INTR) => continue,
                Err(Errno::INVAL | Errno::XDEV | Errno::NOSYS | Errno::OPNOTSUPP) => {
                    self.piece(from, to, at, most)?
                }
                Err(error) => return Err(error.into()),
            };
            if copied == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            at += copied as u64;
        }
        Ok(())
    }

    /// Copies some octets from `at` on by reading and writing them.
    fn piece(&mut self, from: &OwnedFd, to: &OwnedFd, at: u64, most: usize) -> io::Result<usize> {
        let room = most.min(self.value.len());
        let Some(room) = self.value.get_mut(..room) else { return Ok(0) };
        let read = rustix::io::retry_on_intr(|| rustix::io::pread(from, &mut *room, at))?;
        let bytes = room.get(..read).unwrap_or_default();
        rustix::io::retry_on_intr(|| rustix::io::pwrite(to, bytes, at)).map_err(Into::into)
    }

    /// Gives a copy everything but its contents. A change of owner takes privileges away, so that
    /// comes first; then what may be a list of more owners; times last.
    fn describe(
        &mut self,
        from: &OwnedFd,
        to: &OwnedFd,
        name: &CStr,
        stat: &Stat,
    ) -> io::Result<()> {
        let nofollow = AtFlags::SYMLINK_NOFOLLOW;
        let (user, group) = (Uid::from_raw(stat.st_uid), Gid::from_raw(stat.st_gid));
        rustix::fs::chownat(to, name, Some(user), Some(group), nofollow)?;
        if !FileType::from_raw_mode(stat.st_mode).is_symlink() {
            // Follows links, but in the copy nobody else has made any.
            rustix::fs::chmodat(to, name, Mode::from_raw_mode(stat.st_mode), AtFlags::empty())?;
        }
        self.attributes(&at(from, plain(name)), &at(to, plain(name)))?;
        let times = Timestamps {
            last_access: timespec(stat.st_atime, stat.st_atime_nsec)?,
            last_modification: timespec(stat.st_mtime, stat.st_mtime_nsec)?,
        };
        rustix::fs::utimensat(to, name, &times, nofollow)?;
        Ok(())
    }

    fn attributes(&mut self, from: &Path, to: &Path) -> io::Result<()> {
        let length = match rustix::fs::llistxattr(from, &mut *self.names) {
            // The file system has none.
            Err(Errno::OPNOTSUPP) => 0,
            length => length?,
        };
        let names = self.names.get(..length).unwrap_or_default();
        for name in names.split(|octet| *octet == 0).filter(|name| !name.is_empty()) {
            let length = rustix::fs::lgetxattr(from, name, &mut *self.value)?;
            let value = self.value.get(..length).unwrap_or_default();
            rustix::fs::lsetxattr(to, name, value, XattrFlags::empty())?;
        }
        Ok(())
    }
}

fn timespec<S, N>(seconds: S, nanoseconds: N) -> io::Result<Timespec>
where
    i64: TryFrom<S, Error: Into<crate::BoxError>> + TryFrom<N, Error: Into<crate::BoxError>>,
{
    let seconds = i64::try_from(seconds).map_err(io::Error::other)?;
    let nanoseconds = i64::try_from(nanoseconds).map_err(io::Error::other)?;
    Ok(Timespec { tv_sec: seconds, tv_nsec: nanoseconds })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};

    use super::*;

    /// Everything that can be told of one entry.
    fn told(dir: &Path, name: &str) -> String {
        let path = dir.join(name);
        let stat = rustix::fs::statat(CWD, &path, AtFlags::SYMLINK_NOFOLLOW).unwrap();
        let mut names = vec![0; 4096];
        let length = rustix::fs::llistxattr(&path, &mut *names).unwrap();
        let mut attributes: Vec<_> = names[..length]
            .split(|octet| *octet == 0)
            .filter(|name| !name.is_empty())
            .map(|name| {
                let mut value = vec![0; 4096];
                let length = rustix::fs::lgetxattr(&path, name, &mut *value).unwrap();
                (String::from_utf8_lossy(name).into_owned(), value[..length].to_vec())
            })
            .collect();
        attributes.sort();
        format!(
            "{name} {:o} {}:{} {} links {} device {} time {}.{} {attributes:?} {:?} {:?}",
            stat.st_mode,
            stat.st_uid,
            stat.st_gid,
            if FileType::from_raw_mode(stat.st_mode).is_dir() { 0 } else { stat.st_size },
            stat.st_nlink,
            stat.st_rdev,
            stat.st_mtime,
            stat.st_mtime_nsec,
            fs::read_link(&path).ok(),
            path.symlink_metadata().unwrap().is_file().then(|| fs::read(&path).unwrap()),
        )
    }

    /// Not in memory: the marks of an overlay and holes are wanted.
    fn place() -> tempfile::TempDir {
        tempfile::tempdir_in("/var/tmp").unwrap()
    }

    #[test]
    fn a_copy_is_exact() {
        if !rustix::process::geteuid().is_root() {
            return;
        }
        let dir = place();
        let from = dir.path().join("from");
        fs::create_dir_all(from.join("hidden/below")).unwrap();
        fs::write(from.join("file"), "content").unwrap();
        fs::set_permissions(from.join("file"), fs::Permissions::from_mode(0o6751)).unwrap();
        std::os::unix::fs::chown(from.join("file"), Some(1_000_033), Some(1_000_044)).unwrap();
        fs::set_permissions(from.join("file"), fs::Permissions::from_mode(0o6751)).unwrap();
        fs::hard_link(from.join("file"), from.join("hidden/below/same")).unwrap();
        symlink("/etc/shadow", from.join("link")).unwrap();
        symlink("/etc", from.join("hidden/etc")).unwrap();
        std::os::unix::fs::lchown(from.join("link"), Some(1_000_001), Some(7)).unwrap();
        let node = |name: &str, kind, device| {
            rustix::fs::mknodat(CWD, from.join(name), kind, Mode::RUSR, device).unwrap();
        };
        node("whiteout", FileType::CharacterDevice, 0);
        node("device", FileType::BlockDevice, rustix::fs::makedev(7, 300));
        node("pipe", FileType::Fifo, 0);
        node("socket", FileType::Socket, 0);
        let set = |path: &str, name: &str, value: &[u8]| {
            rustix::fs::lsetxattr(from.join(path), name, value, XattrFlags::empty()).unwrap();
        };
        set("hidden", "trusted.overlay.opaque", b"y");
        set("link", "trusted.overlay.origin", b"\0\xfb");
        set("file", "user.note", b"");
        // Version 2, effective, `cap_net_bind_service`.
        set("file", "security.capability", b"\x01\0\0\x02\0\x04\0\0\0\0\0\0\0\0\0\0\0\0\0\0");
        let sparse = fs::File::create(from.join("sparse")).unwrap();
        sparse.set_len(64 << 20).unwrap();
        std::os::unix::fs::FileExt::write_all_at(&sparse, b"middle", 32 << 20).unwrap();

        let to = dir.path().join("to");
        copy_tree(&from, &to, &GiveUp::default()).unwrap();
        for name in [
            ".",
            "file",
            "hidden",
            "hidden/below",
            "hidden/below/same",
            "hidden/etc",
            "link",
            "whiteout",
            "device",
            "pipe",
            "socket",
        ] {
            assert_eq!(told(&from, name), told(&to, name));
        }
        let inode = |name: &str| to.join(name).metadata().unwrap().ino();
        assert_eq!(inode("file"), inode("hidden/below/same"), "one file with two names");
        let copy = to.join("sparse").metadata().unwrap();
        assert!(copy.len() == 64 << 20 && copy.blocks() * 512 < 1 << 20, "holes stay holes");
        assert_eq!(fs::read(to.join("sparse")).unwrap(), fs::read(from.join("sparse")).unwrap());
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 2, "nothing else is left");
    }

    /// A container may make a directory of millions; its names are not all held in memory.
    #[test]
    fn a_large_directory_is_read_in_parts_and_copied_as_a_whole() {
        let dir = place();
        let from = dir.path().join("from");
        fs::create_dir(&from).unwrap();
        for at in 0..3_000 {
            match at % 1_000 {
                7 => {
                    fs::create_dir(from.join(format!("entry-{at}"))).unwrap();
                    fs::write(from.join(format!("entry-{at}/below")), "below").unwrap();
                }
                _ => symlink("nowhere", from.join(format!("entry-{at}"))).unwrap(),
            }
        }
        let open = open_dir(CWD, &from).unwrap();
        let mut names = crate::tree::Names::new();
        names.next(&open).unwrap().unwrap();
        assert!((1..1_000).contains(&names.held()), "{} at once", names.held());
        let to = dir.path().join("to");
        copy_tree(&from, &to, &GiveUp::default()).unwrap();
        assert_eq!(fs::read_dir(&to).unwrap().count(), 3_000);
        for at in [7, 1_007, 2_007] {
            assert_eq!(fs::read(to.join(format!("entry-{at}/below"))).unwrap(), b"below");
        }
    }

    #[test]
    fn a_copy_that_is_given_up_ends_before_its_next_file() {
        let dir = place();
        let from = dir.path().join("from");
        fs::create_dir(&from).unwrap();
        fs::write(from.join("file"), "content").unwrap();
        let give_up = GiveUp::default();
        give_up.now();
        let to = dir.path().join("to");
        let error = copy_tree(&from, &to, &give_up).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::Interrupted);
        assert_eq!(fs::read_dir(&to).unwrap().count(), 0);
    }

    #[test]
    fn a_tree_of_any_depth_is_copied() {
        let dir = place();
        let from = dir.path().join("from");
        fs::create_dir(&from).unwrap();
        let mut below = open_dir(CWD, &from).unwrap();
        for _ in 0..1_500 {
            rustix::fs::mkdirat(&below, "d", Mode::RWXU).unwrap();
            below = open_dir(&below, "d").unwrap();
        }
        let flags = OFlags::WRONLY | OFlags::CREATE;
        rustix::fs::openat(&below, "end", flags, Mode::RUSR).unwrap();
        let to = dir.path().join("to");
        copy_tree(&from, &to, &GiveUp::default()).unwrap();
        let mut copy = open_dir(CWD, &to).unwrap();
        for _ in 0..1_500 {
            copy = open_dir(&copy, "d").unwrap();
        }
        rustix::fs::statat(&copy, "end", AtFlags::empty()).unwrap();
        // What cannot be named by a path is not removed by one.
        for tree in [&from, &to] {
            let status = std::process::Command::new("rm").arg("-rf").arg(tree).status().unwrap();
            assert!(status.success());
        }
    }
}
