//! The program that runs inside containers for sessions, the same way for every runtime with real ones.
//!
//! Each container sees one directory of the host, read-only, at [`INSIDE`]: in `/dev`, which is memory in
//! every container, so that no image has anything there and no snapshot a trace of it. In it is the program,
//! a link to the one file of all containers, which belongs to the host's root and so to nobody inside; the
//! file's name says what is in it, so that the next version comes in beside one that still runs.
//!
//! A session begins with a socket in that directory which none but the container's root user can open. The
//! runtime starts the program, which connects, and the socket is gone again.

use std::{
    fs::{self, DirBuilder, OpenOptions, Permissions},
    io::{self, Write as _},
    os::{
        fd::{AsRawFd as _, OwnedFd},
        unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _},
    },
    path::{Path, PathBuf},
    time::Duration,
};

use gantry_model::ContainerId;
use rustix::{
    event::{PollFd, PollFlags, Timespec},
    fs::{AtFlags, Gid, Mode, OFlags, Uid},
    net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType},
};
use sha2::{Digest as _, Sha256};
use tokio::io::{Interest, unix::AsyncFd};

use crate::{
    Error, Result,
    embedded::{guest::Owner, readiness::register},
    shares::{Runner, inside::Process},
};

/// Where a container sees the directory.
pub(crate) const INSIDE: &str = "/dev/.gantry";

/// What is being done, for errors.
pub(crate) const WHAT: &str = "opening a session";

/// How long it may take from the call to the connection.
const TIMEOUT: Duration = Duration::from_secs(10);

/// The program, as `build.rs` made it.
const PROGRAM: &[u8] = include_bytes!(env!("GANTRY_SESSION"));

/// How many may wait for being let in; one does.
const BACKLOG: i32 = 4;

/// How many others may come to a door before it is closed.
const STRANGERS_MAX: usize = 8;

/// The program on this host.
#[derive(Clone, Debug)]
pub(crate) struct Program {
    dir: PathBuf,
    name: String,
}

/// A socket in a container's directory, which goes when this is dropped.
#[derive(Debug)]
pub(crate) struct Door {
    runner: Runner,
    /// Who the container's root user is on the host.
    root: Owner,
    name: Name,
    /// Present until this is dropped.
    listener: Option<AsyncFd<OwnedFd>>,
}

impl Drop for Door {
    fn drop(&mut self) {
        if let Some(listener) = self.listener.take() {
            close_elsewhere(listener);
        }
    }
}

/// Closes what a container could have sent descriptors to, on a thread that ends with it: those go with it,
/// and to close what a stranger has made can take as long as that one wants.
fn close_elsewhere(it: impl Send + 'static) {
    let thread = std::thread::Builder::new().name("gantry-close".to_owned());
    if let Err(error) = thread.spawn(move || drop(it)) {
        tracing::warn!(%error, "no thread to close a socket");
    }
}

/// Holds on to the process that has connected, of which a number alone may be another one's by now. Nothing
/// with a kernel before 6.5, which has no such handle: there the number must do.
fn peer_handle(socket: &OwnedFd) -> io::Result<Option<OwnedFd>> {
    match nix::sys::socket::getsockopt(socket, nix::sys::socket::sockopt::PeerPidfd) {
        Ok(handle) => Ok(Some(handle)),
        Err(nix::errno::Errno::ENOPROTOOPT) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Whether a process has not ended.
fn lives(handle: &OwnedFd) -> io::Result<bool> {
    let mut fds = [PollFd::new(handle, PollFlags::IN)];
    Ok(rustix::event::poll(&mut fds, Some(&Timespec::default()))? == 0)
}

/// The name of a socket, which is removed when this is dropped.
#[derive(Debug)]
struct Name {
    path: PathBuf,
    id: ContainerId,
}

impl Program {
    /// Writes the program to a directory of its own below `dir`, unless it is there; others in it go.
    pub(crate) fn install(dir: &Path) -> io::Result<Self> {
        let dir = dir.join("inside");
        make_dir(&dir, 0o755)?;
        let digest = hex::encode(Sha256::digest(PROGRAM));
        let name = format!("gantry-session-{}", digest.get(..16).unwrap_or(&digest));
        let program = Self { dir, name };
        let is_whole = fs::read(program.path()).is_ok_and(|there| there == PROGRAM);
        if !is_whole {
            write(&program.path())?;
        }
        remove_all_but(&program.dir, &program.name)?;
        Ok(program)
    }

    /// Takes back what `install` made.
    pub(crate) fn uninstall(&self) -> io::Result<()> {
        fs::remove_dir_all(&self.dir)
    }

    /// Makes a container's directory, with nothing but the program in it. No session of it is being opened.
    pub(crate) fn furnish(&self, place: &Path) -> io::Result<()> {
        make_dir(place, 0o755)?;
        remove_all_but(place, &self.name)?;
        self.add(place)
    }

    /// Adds the program to a container's directory. What else is there stays: another process may still begin
    /// sessions by it.
    pub(crate) fn add(&self, place: &Path) -> io::Result<()> {
        make_dir(place, 0o755)?;
        let to = place.join(&self.name);
        match fs::hard_link(self.path(), &to) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
            Err(error) => {
                // Another file system, or one that has no more links for it.
                tracing::debug!(%error, "the program for sessions is copied");
                write(&to)
            }
            Ok(()) => Ok(()),
        }
    }

    /// What to run inside so that it comes to a door.
    pub(crate) fn command(&self, door: &Door) -> Vec<String> {
        let inside = |name: &str| format!("{INSIDE}/{name}");
        vec![inside(&self.name), "serve".to_owned(), inside(door.name())]
    }

    fn path(&self) -> PathBuf {
        self.dir.join(&self.name)
    }
}

impl Door {
    /// Makes a socket in a container's directory; `token` was not used before. Only within tokio.
    pub(crate) fn open(runner: Runner, root: Owner, place: &Path, token: u64) -> io::Result<Self> {
        let name = format!("{token:x}");
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let dir = rustix::fs::open(place, flags, Mode::empty())?;
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let socket =
            rustix::net::socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)?;
        // By the descriptor, because the path itself may be too long for a socket.
        let short = format!("/proc/self/fd/{}/{name}", dir.as_raw_fd());
        rustix::net::bind(&socket, &SocketAddrUnix::new(short)?)?;
        let made = Name { path: place.join(&name), id: runner.id };
        let (user, group) = (Uid::from_raw(root.user), Gid::from_raw(root.group));
        rustix::fs::chmodat(&dir, &name, Mode::from(0o600), AtFlags::empty())?;
        rustix::fs::chownat(&dir, &name, Some(user), Some(group), AtFlags::SYMLINK_NOFOLLOW)?;
        // Nobody could connect before.
        rustix::net::listen(&socket, BACKLOG)?;
        // Not before: one that neither listens nor is connected looks to epoll as if it had hung up, and
        // would be taken for ready ever after.
        let listener = register(socket, Interest::READABLE)?;
        Ok(Self { runner, root, name: made, listener: Some(listener) })
    }

    /// Waits for the program, and returns its connection. Whoever else comes is sent away. Cancel-safe.
    pub(crate) async fn let_in(&self) -> io::Result<OwnedFd> {
        let listener = self.listener.as_ref().ok_or(io::ErrorKind::NotConnected)?;
        for _ in 0..STRANGERS_MAX {
            let accept =
                |listener: &OwnedFd| Ok(rustix::net::accept_with(listener, SocketFlags::CLOEXEC)?);
            let socket = listener.async_io(Interest::READABLE, accept).await?;
            match self.check(&socket) {
                Ok(()) => return Ok(socket),
                Err(error) => {
                    tracing::warn!(container = %self.runner.id, %error, "somebody else came to a session's door");
                    close_elsewhere(socket);
                }
            }
        }
        Err(io::Error::other("too many others came to its door"))
    }

    /// Whether a connection is one of the container's root user.
    fn check(&self, socket: &OwnedFd) -> io::Result<()> {
        let peer = rustix::net::sockopt::socket_peercred(socket)?;
        if peer.uid.as_raw() != self.root.user {
            return Err(io::Error::other("it is not the root user"));
        }
        let Runner { id, pid: init } = self.runner;
        // The names of control groups below its own are a container's choice, its pid namespace is not.
        let pid = u32::try_from(peer.pid.as_raw_pid()).map_err(io::Error::other)?;
        let handle = peer_handle(socket)?;
        let (peer, init) = (Process::open(pid, id)?, Process::open(init, id)?);
        // The number was its own when it was opened, and no later one's, if it lives even now.
        if let Some(handle) = handle
            && !lives(&handle)?
        {
            return Err(io::Error::other("it has ended"));
        }
        if peer.link("ns/pid")? == init.link("ns/pid")? {
            Ok(())
        } else {
            Err(io::Error::other("it is not in the container's pid namespace"))
        }
    }

    fn name(&self) -> &str {
        self.name.path.file_name().and_then(|name| name.to_str()).unwrap_or_default()
    }
}

impl Drop for Name {
    fn drop(&mut self) {
        match fs::remove_file(&self.path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                tracing::warn!(container = %self.id, %error, "the socket of a session stays");
            }
            Ok(()) | Err(_) => {}
        }
    }
}

/// Lets the program in, which was started; `ended` tells of its end, which is an error.
pub(crate) async fn meet(door: &Door, ended: impl Future<Output = Error>) -> Result<OwnedFd> {
    tokio::select! {
        biased;
        socket = door.let_in() => socket.map_err(|error| Error::failed(WHAT, error)),
        error = ended => Err(error),
    }
}

/// Why a session could not begin, from why its program could not be started. That is there in whatever
/// container was started with it and has left it alone.
pub(crate) fn not_begun(error: Error, id: ContainerId) -> Error {
    if matches!(error, Error::Command { .. }) { Error::NoPlace { id } } else { error }
}

/// Gives all that a session needs its bound.
pub(crate) async fn in_time<T>(opening: impl Future<Output = Result<T>>) -> Result<T> {
    let after_ms = u64::try_from(TIMEOUT.as_millis()).unwrap_or(u64::MAX);
    let late = |_elapsed| Error::Timeout { what: WHAT, after_ms };
    tokio::time::timeout(TIMEOUT, opening).await.map_err(late)?
}

/// Writes the program to a path, where it appears whole.
fn write(path: &Path) -> io::Result<()> {
    let fresh = path.with_extension("new");
    let mut file =
        OpenOptions::new().create(true).truncate(true).write(true).mode(0o600).open(&fresh)?;
    file.write_all(PROGRAM)?;
    // Whatever this process's mask says.
    file.set_permissions(Permissions::from_mode(0o555))?;
    drop(file);
    fs::rename(&fresh, path)
}

fn make_dir(path: &Path, mode: u32) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(mode).create(path)?;
    fs::set_permissions(path, Permissions::from_mode(mode))
}

fn remove_all_but(dir: &Path, name: &str) -> io::Result<()> {
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        if entry.file_name() != name {
            fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_door_waits_without_being_asked_and_lets_nobody_in_from_elsewhere() {
        let dir = tempfile::tempdir().unwrap();
        let own = rustix::process::getuid().as_raw();
        let root = Owner { user: own, group: rustix::process::getgid().as_raw() };
        let runner = Runner { id: ContainerId::from_bytes([1; 12]), pid: std::process::id() };
        let door = Door::open(runner, root, dir.path(), 7).unwrap();
        let path = dir.path().join(door.name());
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        // This would never return if it kept the thread to itself.
        let patience = Duration::from_millis(20);
        assert!(tokio::time::timeout(patience, door.let_in()).await.is_err());
        // The right user, but of no container.
        let kind = (AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC);
        let socket = rustix::net::socket_with(kind.0, kind.1, kind.2, None).unwrap();
        rustix::net::connect(&socket, &SocketAddrUnix::new(&path).unwrap()).unwrap();
        assert!(tokio::time::timeout(patience, door.let_in()).await.is_err());
        assert_eq!(rustix::io::read(&socket, &mut [0; 8]), Ok(0), "it was sent away");
        drop(door);
        assert!(!path.exists());
    }

    #[test]
    fn a_peer_is_known_by_more_than_its_number() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("door");
        let kind = (AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC);
        let listener = rustix::net::socket_with(kind.0, kind.1, kind.2, None).unwrap();
        rustix::net::bind(&listener, &SocketAddrUnix::new(&path).unwrap()).unwrap();
        rustix::net::listen(&listener, BACKLOG).unwrap();
        let connect = "import socket, sys; s = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET); \
                       s.connect(sys.argv[1]); sys.stdin.read()";
        let mut peer = std::process::Command::new("python3")
            .args(["-c", connect])
            .arg(&path)
            .stdin(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        let socket = rustix::net::accept_with(&listener, SocketFlags::CLOEXEC).unwrap();
        let handle = peer_handle(&socket).unwrap().expect("a kernel of 6.5 or later");
        assert!(lives(&handle).unwrap());
        // It ends, and its number stays taken until somebody asks for its status.
        drop(peer.stdin.take());
        let mut fds = [PollFd::new(&handle, PollFlags::IN)];
        rustix::event::poll(&mut fds, None).unwrap();
        assert!(fs::exists(format!("/proc/{}", peer.id())).unwrap());
        assert!(!lives(&handle).unwrap());
        assert!(peer.wait().unwrap().success());
        assert!(!lives(&handle).unwrap());
    }

    #[test]
    fn the_program_is_one_static_file_that_is_replaced_when_it_is_another() {
        let dir = tempfile::tempdir().unwrap();
        let program = Program::install(dir.path()).unwrap();
        let mode = fs::metadata(program.path()).unwrap().permissions().mode();
        assert_eq!(mode & 0o7777, 0o555);
        // Neither a loader nor a library is named in it.
        let needs = |what: &[u8]| PROGRAM.windows(what.len()).any(|window| window == what);
        assert!(needs(b"\x7fELF") && !needs(b"/ld-linux") && !needs(b"/ld-musl"));

        fs::write(program.dir.join("gantry-session-0123456789abcdef"), "older").unwrap();
        fs::remove_file(program.path()).unwrap();
        fs::write(program.path(), "cut off").unwrap();
        let place = dir.path().join("place");
        make_dir(&place, 0o755).unwrap();
        fs::write(place.join("left"), "").unwrap();
        let program = Program::install(dir.path()).unwrap();
        program.furnish(&place).unwrap();
        program.furnish(&place).unwrap();
        for dir in [&program.dir, &place] {
            let names: Vec<_> =
                fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name()).collect();
            assert_eq!(names, [program.name.as_str()]);
        }
        assert!(fs::read(place.join(&program.name)).unwrap() == PROGRAM);
        program.uninstall().unwrap();
        assert!(!program.dir.exists());
    }
}
