//! Files.

use std::{io, process::ExitCode};

pub(super) fn serve() -> io::Result<ExitCode> {
    Err(io::ErrorKind::Unsupported.into())
}
