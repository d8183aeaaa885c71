//! Commands on a pseudo-terminal.
//!
//! The container has its own terminal, made inside by the OCI runtime, which stays and relays
//! between that and one of ours: so the command's terminal is of the container's own kind, and its
//! exit status reaches us. When the relay dies, the inner terminal hangs up and the session with it.

use std::{
    io,
    os::fd::{AsFd as _, OwnedFd},
    pin::Pin,
    process::Stdio,
    sync::Arc,
    task::{Context, Poll, ready},
};

use rustix::{
    io::Errno,
    process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal},
    pty::{OpenptFlags, grantpt, ioctl_tiocgptpeer, openpt, unlockpt},
    termios::{OptionalActions, Winsize, tcgetattr, tcsetattr, tcsetwinsize},
};
use tokio::{
    io::{AsyncRead, AsyncWrite, Interest, ReadBuf, unix::AsyncFd},
    sync::oneshot,
};
use tokio_util::{
    sync::{CancellationToken, DropGuard},
    task::TaskTracker,
};

use super::{
    exec::{BEGIN_TIMEOUT, Call, LOOK, Leash},
    readiness::register,
    runc::timed_out,
};
use crate::{Attached, Error, ExitStatus, PtyControl, PtySize, Result};

const WHAT: &str = "opening a terminal";

/// Runs the command and gives its terminal.
pub(super) async fn attach(mut call: Call, size: PtySize, tasks: &TaskTracker) -> Result<Attached> {
    let failed = |error: io::Error| Error::failed(WHAT, error);
    let (master, slave) = open_pair(size).map_err(failed)?;
    let stream = || slave.try_clone().map(Stdio::from).map_err(failed);
    call.command().stdin(stream()?).stdout(stream()?).stderr(stream()?);
    let mut leash = call.spawn(tasks)?;
    // No copy of it may stay with us: the end of reading is when nobody else has one.
    drop(slave);
    let relay = leash.child().and_then(|child| child.id());
    let relay = relay.and_then(|pid| i32::try_from(pid).ok()).and_then(Pid::from_raw);
    let relay = relay.ok_or_else(|| Error::failed(WHAT, "the relay has gone"))?;
    let relay = pidfd_open(relay, PidfdFlags::empty()).map_err(|error| failed(error.into()))?;
    tokio::time::timeout(BEGIN_TIMEOUT, begin(&mut leash))
        .await
        .map_err(|_elapsed| timed_out(WHAT, BEGIN_TIMEOUT))??;
    let hang_up = CancellationToken::new();
    let (ended, exit) = oneshot::channel();
    tasks.spawn(see_out(leash, hang_up.clone(), ended));
    let master =
        Arc::new(register(master, Interest::READABLE | Interest::WRITABLE).map_err(failed)?);
    let control = Control { master: Arc::clone(&master), relay, _hang_up: hang_up.drop_guard() };
    Ok(Attached::new(Io(master), control, exit))
}

/// Returns once the command runs; a command that cannot run is an error here and not later.
async fn begin(leash: &mut Leash) -> Result<()> {
    let mut look = tokio::time::interval(LOOK);
    loop {
        if leash.has_begun() {
            return Ok(());
        }
        tokio::select! {
            status = leash.wait() => return status.map(drop),
            _ = look.tick() => {}
        }
    }
}

/// Waits for the end of the command, or for nobody being interested.
async fn see_out(mut leash: Leash, hang_up: CancellationToken, ended: oneshot::Sender<ExitStatus>) {
    tokio::select! {
        status = leash.wait() => match status {
            Ok(status) => {
                if ended.send(status).is_err() {
                    tracing::trace!("nobody waited for the end of a terminal");
                }
            }
            Err(error) => tracing::warn!(%error, "lost sight of a command on a terminal"),
        },
        () = hang_up.cancelled() => {}
    }
}

/// A terminal of the host in raw mode: what is done to characters is done by the inner one.
fn open_pair(size: PtySize) -> io::Result<(OwnedFd, OwnedFd)> {
    let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
    let master = openpt(flags)?;
    grantpt(&master)?;
    unlockpt(&master)?;
    let slave = ioctl_tiocgptpeer(&master, flags)?;
    let mut termios = tcgetattr(&slave)?;
    termios.make_raw();
    tcsetattr(&slave, OptionalActions::Now, &termios)?;
    tcsetwinsize(&master, winsize(size))?;
    rustix::io::ioctl_fionbio(&master, true)?;
    Ok((master, slave))
}

fn winsize(size: PtySize) -> Winsize {
    Winsize { ws_row: size.rows, ws_col: size.columns, ws_xpixel: 0, ws_ypixel: 0 }
}

/// Our end of the outer terminal.
struct Io(Arc<AsyncFd<OwnedFd>>);

impl AsyncRead for Io {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        loop {
            let mut ready = ready!(self.0.poll_read_ready(cx))?;
            let read = ready.try_io(|fd| {
                Ok(rustix::io::read(fd.get_ref().as_fd(), buf.initialize_unfilled())?)
            });
            match read {
                Ok(Ok(read)) => {
                    buf.advance(read);
                    return Poll::Ready(Ok(()));
                }
                // Nobody has the other end open any more.
                Ok(Err(error)) if error.raw_os_error() == Some(Errno::IO.raw_os_error()) => {
                    return Poll::Ready(Ok(()));
                }
                Ok(Err(error)) => return Poll::Ready(Err(error)),
                Err(_would_block) => {}
            }
        }
    }
}

impl AsyncWrite for Io {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        loop {
            let mut ready = ready!(self.0.poll_write_ready(cx))?;
            let written = ready.try_io(|fd| Ok(rustix::io::write(fd.get_ref().as_fd(), bytes)?));
            match written {
                Ok(result) => return Poll::Ready(result),
                Err(_would_block) => {}
            }
        }
    }

    fn poll_flush(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    /// A terminal has no half that could be closed alone.
    fn poll_shutdown(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

/// Resizes, and hangs up when it is dropped.
struct Control {
    master: Arc<AsyncFd<OwnedFd>>,
    relay: OwnedFd,
    _hang_up: DropGuard,
}

impl PtyControl for Control {
    fn resize(&self, size: PtySize) -> io::Result<()> {
        tcsetwinsize(self.master.get_ref(), winsize(size))?;
        // It is not the relay's controlling terminal, so the kernel does not tell it.
        match pidfd_send_signal(&self.relay, Signal::WINCH) {
            Ok(()) | Err(Errno::SRCH) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }
}
