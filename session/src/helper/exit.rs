//! Signals by their names, and how processes end.

use std::{os::unix::process::ExitStatusExt as _, process::ExitStatus};

use gantry_session::protocol::Exit;
use rustix::process::Signal;

/// Those of RFC 4254 §6.10, and others by the names that Linux has for them.
const SIGNALS: [(&str, Signal); 26] = [
    ("ABRT", Signal::ABORT),
    ("ALRM", Signal::ALARM),
    ("FPE", Signal::FPE),
    ("HUP", Signal::HUP),
    ("ILL", Signal::ILL),
    ("INT", Signal::INT),
    ("KILL", Signal::KILL),
    ("PIPE", Signal::PIPE),
    ("QUIT", Signal::QUIT),
    ("SEGV", Signal::SEGV),
    ("TERM", Signal::TERM),
    ("USR1", Signal::USR1),
    ("USR2", Signal::USR2),
    ("CONT", Signal::CONT),
    ("STOP", Signal::STOP),
    ("WINCH", Signal::WINCH),
    ("BUS", Signal::BUS),
    ("CHLD", Signal::CHILD),
    ("IO", Signal::IO),
    ("PROF", Signal::PROF),
    ("SYS", Signal::SYS),
    ("TRAP", Signal::TRAP),
    ("TSTP", Signal::TSTP),
    ("VTALRM", Signal::VTALARM),
    ("XCPU", Signal::XCPU),
    ("XFSZ", Signal::XFSZ),
];

/// The signal of this name.
pub(super) fn signal(name: &str) -> Option<Signal> {
    SIGNALS.iter().find(|(known, _)| *known == name).map(|(_, signal)| *signal)
}

/// How a process ended, in the words of the protocol.
pub(super) fn exit(status: ExitStatus) -> Exit {
    let Some(raw) = status.signal() else {
        // A process that ended by itself has a code, of eight bits.
        return Exit::Status(status.code().and_then(|code| u8::try_from(code).ok()).unwrap_or(255));
    };
    let named = SIGNALS.iter().find(|(_, signal)| signal.as_raw() == raw);
    let name = named.map_or_else(|| raw.to_string(), |(name, _)| (*name).to_owned());
    Exit::Signal(name, status.core_dumped())
}
