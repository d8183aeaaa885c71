//! Signals that whoever started the helper ignored.
//!
//! An ignored signal stays ignored in all that is executed, and the standard library undoes that for
//! SIGPIPE only. But one that is caught is at its default again after an execution: so they are caught
//! here, without doing anything.

use std::{io, path::Path};

use rustix::process::Signal;
use tokio::signal::unix::{SignalKind, signal};

use super::files;

/// Those that the standard library undoes, and those that nobody may catch or ignores.
const LEFT_OUT: [i32; 4] =
    [Signal::PIPE.as_raw(), Signal::ILL.as_raw(), Signal::FPE.as_raw(), Signal::SEGV.as_raw()];

/// Catches them. Needs a tokio runtime.
pub(super) fn catch_ignored() -> io::Result<()> {
    // Without /proc nothing is known, and what starts the helper ignores none usually.
    let status = files::read(Path::new("/proc/self/status")).unwrap_or_default();
    for number in ignored(&status).filter(|number| !LEFT_OUT.contains(number)) {
        // The handler stays when the stream goes.
        drop(signal(SignalKind::from_raw(number))?);
    }
    Ok(())
}

fn ignored(status: &[u8]) -> impl Iterator<Item = i32> {
    let mask = status
        .split(|octet| *octet == b'\n')
        .find_map(|line| line.strip_prefix(b"SigIgn:"))
        .and_then(|digits| std::str::from_utf8(digits.trim_ascii()).ok())
        .and_then(|digits| u64::from_str_radix(digits, 16).ok())
        .unwrap_or(0);
    (1..=31).filter(move |number| mask >> (number - 1) & 1 == 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ignored_signals_are_read_from_the_mask() {
        let numbers: Vec<i32> = ignored(b"Name:\tx\nSigIgn:\t0000000000001007\n").collect();
        assert_eq!(numbers, [1, 2, 3, 13]);
    }
}
