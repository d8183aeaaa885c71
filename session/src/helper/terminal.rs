//! Terminals of the container: a pair of the one that its own `/dev/ptmx` gives.

use std::{io, os::fd::OwnedFd};

use gantry_session::protocol::{Size, Terminal};
use rustix::{
    fd::AsFd,
    pty::{OpenptFlags, grantpt, ioctl_tiocgptpeer, openpt, ptsname, unlockpt},
    termios::{OptionalActions, Winsize, tcgetattr, tcsetattr, tcsetwinsize},
};

use super::modes;

/// A new terminal.
#[derive(Debug)]
pub(super) struct Pair {
    /// What the helper reads and writes; when it is closed, the session is hung up. Does not block.
    pub(super) master: OwnedFd,
    /// What the process gets.
    pub(super) slave: OwnedFd,
    /// Its path.
    pub(super) name: String,
}

impl Pair {
    /// Opens one, of this size and with these modes.
    pub(super) fn open(terminal: &Terminal) -> io::Result<Self> {
        let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
        let master = openpt(flags)?;
        grantpt(&master)?;
        unlockpt(&master)?;
        let slave = ioctl_tiocgptpeer(&master, flags)?;
        let name = ptsname(&master, Vec::new())?.to_string_lossy().into_owned();
        let mut termios = tcgetattr(&slave)?;
        for (opcode, value) in &terminal.modes {
            modes::apply(&mut termios, *opcode, *value);
        }
        tcsetattr(&slave, OptionalActions::Now, &termios)?;
        resize(&master, terminal.size)?;
        rustix::io::ioctl_fionbio(&master, true)?;
        Ok(Self { master, slave, name })
    }
}

/// Gives a terminal another size; its foreground hears of it if it is another one.
pub(super) fn resize(master: impl AsFd, size: Size) -> io::Result<()> {
    let size = Winsize {
        ws_row: size.rows,
        ws_col: size.columns,
        ws_xpixel: size.width,
        ws_ypixel: size.height,
    };
    tcsetwinsize(master, size)?;
    Ok(())
}
