//! Sockets of the file system, opened with the rights of a user and nothing more.
//!
//! Whose a connection is, its other side asks the kernel; and paths may lead anywhere. So a process of its
//! own becomes the user, opens the socket and hands it back. One that listens stays until it is not wanted
//! any more, or the helper has gone, and removes what it has made; again as the user.

use std::{
    ffi::{OsStr, OsString},
    io::{self, IoSlice, stdin},
    mem::MaybeUninit,
    os::{
        fd::{AsFd as _, OwnedFd},
        unix::ffi::{OsStrExt as _, OsStringExt as _},
    },
    path::{Path, PathBuf},
    process::{ExitCode, Stdio},
    time::Duration,
};

use gantry_session::{
    protocol::Reason,
    wire::{Wire, WireError},
};
use rustix::{
    fs::{Mode, lstat},
    io::Errno,
    net::{
        AddressFamily, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketAddrUnix,
        SocketFlags, SocketType, bind, connect, listen, sendmsg, socket_with, socketpair,
    },
    process::{getppid, umask},
};
use serde::{Deserialize, Serialize};
use tokio::process::{Child, Command};

use super::{
    account::Account,
    launch::become_user,
    plain, say,
    serve::{Refusal, Shared},
};

/// How long it may take, in all.
const PATIENCE: Duration = Duration::from_secs(30);

/// How many wait to be accepted.
pub(super) const BACKLOG: i32 = 128;

/// What is to be opened, as whom.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Errand {
    pub(super) user: String,
    pub(super) what: What,
}

#[derive(Debug, Serialize, Deserialize)]
pub(super) enum What {
    /// A connection to a path.
    Connect(Vec<u8>),
    /// A socket that listens at a path where nothing is yet.
    Listen(Vec<u8>),
    /// One for the client's agent, in a directory of its own.
    Agent,
}

/// The path, or what went wrong: the number of the error, where there is one, and in words.
type Outcome = Result<Vec<u8>, (Option<i32>, String)>;

/// What has come back.
#[derive(Debug)]
pub(super) struct Opened {
    pub(super) socket: OwnedFd,
    pub(super) guard: Guard,
}

/// A socket that listens is removed from the file system when this is dropped.
#[derive(Debug)]
pub(super) struct Guard {
    pub(super) path: Vec<u8>,
    wire: Wire,
    process: Child,
}

impl Guard {
    /// Ends it, and waits until the socket has been removed.
    pub(super) async fn removed(mut self) {
        drop(self.wire);
        match tokio::time::timeout(PATIENCE, self.process.wait()).await {
            Ok(Ok(status)) if status.success() => {}
            Ok(Ok(status)) => say(&format!("gantry-session: removing a socket: {status}")),
            Ok(Err(error)) => say(&format!("gantry-session: removing a socket: {error}")),
            Err(_elapsed) => say("gantry-session: removing a socket takes too long"),
        }
    }
}

impl Errand {
    /// Has it done by a process.
    pub(super) async fn run(&self, shared: &Shared) -> Result<Opened, Refusal> {
        let failed = |error: io::Error| Refusal::io("a process", &error);
        let (mine, its) = pair().map_err(failed)?;
        let errand =
            postcard::to_stdvec(self).map_err(|error| Refusal::failed(error.to_string()))?;
        let mut command = Command::new(shared.program());
        command.arg0("gantry-session").arg("errand").arg(hex::encode(errand)).env_clear();
        // Not ended when it is dropped: it has to remove its socket.
        command.stdin(Stdio::from(its)).stdout(Stdio::null()).kill_on_drop(false);
        let process = command.spawn().map_err(failed)?;
        // The process has the other end alone now.
        drop(command);
        let wire = Wire::new(mine).map_err(failed)?;
        let answer = tokio::time::timeout(PATIENCE, wire.receive::<Outcome>()).await;
        let (outcome, fds) = match answer {
            Ok(Ok(answer)) => answer,
            Ok(Err(WireError::Closed)) => {
                return Err(Refusal::failed("its process has ended".to_owned()));
            }
            Ok(Err(error)) => return Err(Refusal::failed(error.to_string())),
            Err(_elapsed) => return Err(Refusal::failed("it takes too long".to_owned())),
        };
        let path = outcome.map_err(|(number, message)| {
            let errno = number.map(Errno::from_raw_os_error);
            Refusal { reason: errno.map_or(Reason::Failed, Refusal::reason), message }
        })?;
        let [socket] = <[OwnedFd; 1]>::try_from(fds).map_err(|_fds| Refusal::descriptors())?;
        Ok(Opened { socket, guard: Guard { path, wire, process } })
    }
}

fn pair() -> io::Result<(OwnedFd, OwnedFd)> {
    Ok(socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?)
}

/// The process of an errand: answers on its standard input.
pub(super) fn main(arguments: &[OsString]) -> io::Result<ExitCode> {
    let malformed = || io::Error::new(io::ErrorKind::InvalidInput, "`errand` is for `serve` alone");
    let errand = arguments.first().map(|argument| argument.as_bytes()).unwrap_or_default();
    let octets = hex::decode(errand).map_err(|_error| malformed())?;
    let errand: Errand = postcard::from_bytes(&octets).map_err(|_error| malformed())?;
    let done = become_user(&Account::look_up(Path::new("/"), &errand.user))
        .and_then(|()| Made::by(&errand.what));
    match done {
        Ok(made) => {
            let path = made.path.as_os_str().as_bytes().to_vec();
            answer(&Ok(path), Some(&made.socket))?;
            drop(made.socket);
            if made.is_ours.is_some() {
                wait();
                remove(&made.path, made.is_ours)?;
            }
            drop(made.directory);
        }
        Err(error) => answer(&Err((error.raw_os_error(), plain(&error))), None)?,
    }
    Ok(ExitCode::SUCCESS)
}

fn answer(outcome: &Outcome, socket: Option<&OwnedFd>) -> io::Result<()> {
    let octets = postcard::to_stdvec(outcome).map_err(io::Error::other)?;
    let fds: Vec<_> = socket.iter().map(|socket| socket.as_fd()).collect();
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut along = SendAncillaryBuffer::new(&mut space);
    if !fds.is_empty() && !along.push(SendAncillaryMessage::ScmRights(&fds)) {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    sendmsg(stdin(), &[IoSlice::new(&octets)], &mut along, SendFlags::NOSIGNAL)?;
    Ok(())
}

/// Until the helper's end of the socket is closed; nothing is ever sent on it.
fn wait() {
    while rustix::io::read(stdin(), &mut [0; 1]) == Err(Errno::INTR) {}
}

struct Made {
    socket: OwnedFd,
    path: PathBuf,
    /// Device and number of the socket in the file system, if it was made here.
    is_ours: Option<(u64, u64)>,
    /// Removed with it.
    directory: Option<tempfile::TempDir>,
}

impl Made {
    fn by(what: &What) -> io::Result<Self> {
        match what {
            What::Connect(path) => {
                let (socket, path) = (unix_socket()?, PathBuf::from(OsStr::from_bytes(path)));
                connect(&socket, &SocketAddrUnix::new(&path)?)?;
                Ok(Self { socket, path, is_ours: None, directory: None })
            }
            What::Listen(path) => {
                Self::listen(PathBuf::from(OsString::from_vec(path.clone())), None)
            }
            What::Agent => {
                // As sshd names them.
                let mut directory = tempfile::Builder::new();
                directory.prefix("ssh-").rand_bytes(10);
                umask(Mode::from_raw_mode(0o077));
                let directory = directory.tempdir_in("/tmp")?;
                let parent = getppid().map_or(0, |pid| pid.as_raw_nonzero().get());
                Self::listen(directory.path().join(format!("agent.{parent}")), Some(directory))
            }
        }
    }

    fn listen(path: PathBuf, directory: Option<tempfile::TempDir>) -> io::Result<Self> {
        let socket = unix_socket()?;
        umask(Mode::from_raw_mode(0o177));
        bind(&socket, &SocketAddrUnix::new(&path)?)?;
        listen(&socket, BACKLOG)?;
        let stat = lstat(&path)?;
        Ok(Self { socket, path, is_ours: Some((stat.st_dev, stat.st_ino)), directory })
    }
}

/// Removes a socket, if it is still the one that was made.
fn remove(path: &Path, is_ours: Option<(u64, u64)>) -> io::Result<()> {
    match lstat(path) {
        Ok(stat) if Some((stat.st_dev, stat.st_ino)) == is_ours => std::fs::remove_file(path),
        // Somebody has removed or replaced it.
        Ok(_) | Err(Errno::NOENT) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

fn unix_socket() -> io::Result<OwnedFd> {
    Ok(socket_with(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)?)
}
