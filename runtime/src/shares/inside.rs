//! Looking into the mount namespaces of containers, and unmounting there.
//!
//! Everything goes by descriptors of one process in `/proc`, so that a number that is used again never
//! means another process, and every path is looked up below the container's root by the kernel. What
//! has to happen in another namespace happens on a thread of its own that ends afterwards, and is not
//! waited for without a bound.

use std::{
    collections::BTreeMap,
    ffi::CString,
    fs::File,
    io::{self, Read as _},
    os::fd::{AsFd as _, OwnedFd},
    path::Path,
    sync::mpsc,
    time::Duration,
};

use gantry_model::ContainerId;
use rustix::{
    fs::{AtFlags, Mode, OFlags, ResolveFlags, StatxFlags},
    io::Errno,
    mount::{MountFlags, OpenTreeFlags, UnmountFlags, mount_remount, open_tree, unmount},
    thread::{LinkNameSpaceType, UnshareFlags, move_into_link_name_space},
};

use super::mounts::{Mount, parse};
use crate::ShareFault;

/// How long a container may keep a thread of ours.
const TIMEOUT: Duration = Duration::from_secs(10);

/// How many mounts may lie over one that is to go.
const COVERS_MAX: usize = 16;

/// How often a container is looked through for one mount.
const ROUNDS_MAX: usize = 8;

/// A process of a container.
#[derive(Debug)]
pub(crate) struct Process(OwnedFd);

/// A directory inside a container, held open.
#[derive(Debug)]
pub(super) struct Found {
    directory: OwnedFd,
    namespace: OwnedFd,
    identity: (u64, u64),
}

impl Process {
    /// The process of this number, if it is in this container.
    pub(crate) fn open(pid: u32, id: ContainerId) -> io::Result<Self> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let process = Self(rustix::fs::open(format!("/proc/{pid}"), flags, Mode::empty())?);
        if process.is_in(id)? { Ok(process) } else { Err(io::ErrorKind::NotFound.into()) }
    }

    /// The control groups of the host are out of a container's reach; they have its id in their names.
    fn is_in(&self, id: ContainerId) -> io::Result<bool> {
        let groups = self.read("cgroup")?;
        Ok(String::from_utf8_lossy(&groups).contains(&id.to_string()))
    }

    /// What a file of it in `/proc` says.
    pub(crate) fn read(&self, name: &str) -> io::Result<Vec<u8>> {
        let flags = OFlags::RDONLY | OFlags::CLOEXEC;
        let mut octets = Vec::new();
        File::from(rustix::fs::openat(&self.0, name, flags, Mode::empty())?)
            .read_to_end(&mut octets)?;
        Ok(octets)
    }

    /// The root of what it sees.
    pub(crate) fn root(&self) -> io::Result<OwnedFd> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        Ok(rustix::fs::openat(&self.0, "root", flags, Mode::empty())?)
    }

    /// Where a link of it in `/proc` leads, in the kernel's words.
    pub(crate) fn link(&self, name: &str) -> io::Result<CString> {
        Ok(rustix::fs::readlinkat(&self.0, name, Vec::new())?)
    }

    fn namespace(&self) -> io::Result<OwnedFd> {
        let flags = OFlags::RDONLY | OFlags::CLOEXEC;
        Ok(rustix::fs::openat(&self.0, "ns/mnt", flags, Mode::empty())?)
    }

    /// The mounts that it sees.
    pub(super) fn mounts(&self) -> io::Result<Vec<Mount>> {
        Ok(parse(&self.read("mountinfo")?))
    }

    /// A directory of the file system that its root is in.
    pub(super) fn directory(&self, path: &str) -> Result<Found, ShareFault> {
        let ended = |error: io::Error| {
            tracing::debug!(%error, "the source of a share has ended");
            ShareFault::SourceNotRunning
        };
        let (root, namespace) = (self.root().map_err(ended)?, self.namespace().map_err(ended)?);
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS | ResolveFlags::NO_XDEV;
        let directory = rustix::fs::openat2(&root, path, flags, Mode::empty(), resolve);
        let directory = directory.map_err(|errno| match errno {
            Errno::XDEV => ShareFault::OtherFileSystem,
            _ => ShareFault::NoDirectory,
        })?;
        let stat = rustix::fs::fstat(&directory).map_err(|_errno| ShareFault::NoDirectory)?;
        Ok(Found { directory, namespace, identity: (stat.st_dev, stat.st_ino) })
    }
}

impl Found {
    /// What tells the directory from every other.
    pub(super) fn identity(&self) -> (u64, u64) {
        self.identity
    }

    /// A mount of the directory that is nowhere yet; what is mounted below it is not in it.
    pub(super) fn tree(&self) -> io::Result<OwnedFd> {
        let (directory, namespace) = (self.directory.try_clone()?, self.namespace.try_clone()?);
        enter(namespace, move || {
            let flags = OpenTreeFlags::OPEN_TREE_CLONE
                | OpenTreeFlags::OPEN_TREE_CLOEXEC
                | OpenTreeFlags::AT_EMPTY_PATH;
            Ok(open_tree(&directory, "", flags)?)
        })
    }
}

/// Unmounts these, and parts of them, wherever a container has them.
pub(super) fn detach(id: ContainerId, mounts: &[&Mount]) -> io::Result<()> {
    let parts: Vec<Part> = mounts.iter().map(|mount| Part::of(mount)).collect();
    for process in namespaces(id)? {
        let shows = |process: &Process| -> io::Result<bool> {
            Ok(process.mounts()?.iter().any(|mount| parts.iter().any(|part| part.has(mount))))
        };
        match shows(&process) {
            Ok(false) => continue,
            // It has ended, and nothing is left of what it saw alone.
            Err(error) if is_gone(&error) => continue,
            Ok(true) => {}
            Err(error) => return Err(error),
        }
        let (namespace, parts) = (process.namespace()?, parts.clone());
        match enter(namespace, move || detach_here(&process, &parts)) {
            Err(error) if is_gone(&error) => {}
            other => other?,
        }
    }
    Ok(())
}

fn is_gone(error: &io::Error) -> bool {
    let errno = Errno::from_io_error(error);
    error.kind() == io::ErrorKind::NotFound || errno == Some(Errno::SRCH)
}

/// Some directory of a file system and all below it.
#[derive(Clone, Debug)]
struct Part {
    device: String,
    root: std::path::PathBuf,
}

impl Part {
    fn of(mount: &Mount) -> Self {
        Self { device: mount.device.clone(), root: mount.root.clone() }
    }

    fn has(&self, mount: &Mount) -> bool {
        mount.device == self.device && mount.root.starts_with(&self.root)
    }
}

/// One process for each mount namespace that a container's processes are in.
fn namespaces(id: ContainerId) -> io::Result<Vec<Process>> {
    let own = std::fs::read_link("/proc/self/ns/mnt")?;
    let mut found = BTreeMap::new();
    for entry in std::fs::read_dir("/proc")? {
        let name = entry?.file_name();
        let Some(pid) = name.to_str().and_then(|name| name.parse().ok()) else { continue };
        // Those that end meanwhile need nothing.
        let Ok(process) = Process::open(pid, id) else { continue };
        let Ok(link) = process.link("ns/mnt") else { continue };
        if link.as_bytes() != own.as_os_str().as_encoded_bytes() {
            found.entry(link).or_insert(process);
        }
    }
    Ok(found.into_values().collect())
}

/// Unmounts the parts where this thread is.
fn detach_here(process: &Process, parts: &[Part]) -> io::Result<()> {
    let root = process.root()?;
    for _ in 0..ROUNDS_MAX {
        let mounts = process.mounts()?;
        let Some(mount) = mounts.iter().find(|mount| parts.iter().any(|part| part.has(mount)))
        else {
            return Ok(());
        };
        detach_one(&root, outermost(mount, &mounts))?;
    }
    Err(io::Error::other("the container mounts it again and again"))
}

/// A mount, or the outermost one around it that only a process of the container answers for, which would
/// let us wait.
fn outermost<'m>(mount: &'m Mount, all: &'m [Mount]) -> &'m Mount {
    let mut chosen = mount;
    let mut at = mount;
    for _ in 0..all.len() {
        let Some(parent) = all.iter().find(|other| other.id == at.parent && other.id != at.id)
        else {
            break;
        };
        at = parent;
        if at.kind.starts_with("fuse") {
            chosen = at;
        }
    }
    chosen
}

/// Unmounts one mount, with what lies over it.
fn detach_one(root: &OwnedFd, mount: &Mount) -> io::Result<()> {
    let (Some(dir), Some(name)) = (mount.point.parent(), mount.point.file_name()) else {
        return Err(io::Error::other("the container has made it its root"));
    };
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS | ResolveFlags::NO_SYMLINKS;
    let dir = rustix::fs::openat2(root, dir, flags, Mode::empty(), resolve)?;
    rustix::process::fchdir(&dir)?;
    for _ in 0..COVERS_MAX {
        let stat = rustix::fs::statx(&dir, name, AtFlags::SYMLINK_NOFOLLOW, StatxFlags::MNT_ID)?;
        let is_it = stat.stx_mnt_id == mount.id;
        if is_it {
            close(Path::new(name));
        }
        match unmount(name, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW) {
            // What we knew is not there any more.
            Err(Errno::INVAL | Errno::NOENT) => return Ok(()),
            other => other?,
        }
        if is_it {
            return Ok(());
        }
    }
    Err(io::Error::other("too much is mounted over it"))
}

/// Takes the right to write from who still has a directory of it open.
fn close(name: &Path) {
    let flags = MountFlags::BIND
        | MountFlags::RDONLY
        | MountFlags::NOSUID
        | MountFlags::NODEV
        | MountFlags::NOEXEC;
    if let Err(error) = mount_remount(name, flags, "") {
        // A file that is open for writing; what is open stays open.
        tracing::debug!(%error, "a share that goes is still written");
    }
}

/// Does something in another mount namespace.
fn enter<T: Send + 'static>(
    namespace: OwnedFd,
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    let (done, result) = mpsc::sync_channel(1);
    std::thread::Builder::new().name("gantry-shares".to_owned()).spawn(move || {
        let outcome = step_into(&namespace).and_then(|()| work());
        if done.send(outcome).is_err() {
            tracing::warn!("a container's file system has answered, too late");
        }
    })?;
    result.recv_timeout(TIMEOUT).map_err(|error| io::Error::new(io::ErrorKind::TimedOut, error))?
}

#[expect(deprecated, reason = "of its flags, only that of open files can break what is safe")]
fn step_into(namespace: &OwnedFd) -> io::Result<()> {
    let own = rustix::fs::stat("/proc/thread-self/ns/mnt")?;
    let other = rustix::fs::fstat(namespace)?;
    if (own.st_dev, own.st_ino) == (other.st_dev, other.st_ino) {
        return Err(io::Error::other("it is the host's own namespace"));
    }
    // A root and a working directory of this thread's own, which the namespace asks for.
    rustix::thread::unshare(UnshareFlags::FS)?;
    Ok(move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Mount))?)
}
