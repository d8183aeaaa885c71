//! The terminal that a session is shown at.

use std::io;

use rustix::{
    process::{Signal, getpid, kill_process},
    stdio::{stdin, stdout},
    termios::{OptionalActions, Termios, isatty, tcgetattr, tcgetwinsize, tcsetattr},
};
use tokio::signal::unix::{SignalKind, signal};

/// A terminal that passes on what is typed as it is. It becomes what it was when this is dropped.
pub(super) struct Raw {
    before: Termios,
}

impl Raw {
    /// Takes the terminal of standard input, if it is one.
    pub(super) fn enter() -> io::Result<Option<Self>> {
        if !isatty(stdin()) {
            return Ok(None);
        }
        let raw = Self { before: tcgetattr(stdin())? };
        raw.resume()?;
        Ok(Some(raw))
    }

    fn resume(&self) -> io::Result<()> {
        let mut modes = self.before.clone();
        modes.make_raw();
        Ok(tcsetattr(stdin(), OptionalActions::Drain, &modes)?)
    }

    fn restore(&self) {
        // A terminal that has gone has nothing to be restored.
        tcsetattr(stdin(), OptionalActions::Now, &self.before).unwrap_or_default();
    }

    /// Stops this process as Ctrl-Z does elsewhere, with the terminal as it was meanwhile.
    fn pause(&self) -> io::Result<()> {
        self.restore();
        kill_process(getpid(), Signal::STOP)?;
        self.resume()
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        self.restore();
    }
}

/// Whether standard input is a terminal.
pub(super) fn is_typed() -> bool {
    isatty(stdin())
}

/// The size of the terminal that is written to, or typed on, in columns and rows.
pub(super) fn size() -> Option<(u16, u16)> {
    let size = tcgetwinsize(stdout()).or_else(|_| tcgetwinsize(stdin())).ok()?;
    (size.ws_col > 0 && size.ws_row > 0).then_some((size.ws_col, size.ws_row))
}

/// Waits until a signal ends this process; gives its number. Whatever stops it for a while is done meanwhile,
/// if the terminal is to be restored for it.
pub(super) async fn ended(raw: Option<&Raw>) -> io::Result<i32> {
    use SignalKind as Kind;
    let mut interrupt = signal(Kind::interrupt())?;
    let mut quit = signal(Kind::quit())?;
    let mut terminate = signal(Kind::terminate())?;
    let mut hangup = signal(Kind::hangup())?;
    let Some(raw) = raw else {
        return Ok(tokio::select! {
            _ = interrupt.recv() => Kind::interrupt(),
            _ = quit.recv() => Kind::quit(),
            _ = terminate.recv() => Kind::terminate(),
            _ = hangup.recv() => Kind::hangup(),
        }
        .as_raw_value());
    };
    let mut stop = signal(Kind::from_raw(Signal::TSTP.as_raw()))?;
    loop {
        let kind = tokio::select! {
            _ = interrupt.recv() => Kind::interrupt(),
            _ = quit.recv() => Kind::quit(),
            _ = terminate.recv() => Kind::terminate(),
            _ = hangup.recv() => Kind::hangup(),
            _ = stop.recv() => {
                raw.pause()?;
                continue;
            }
        };
        return Ok(kind.as_raw_value());
    }
}
