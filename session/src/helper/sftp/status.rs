//! Errors of the system in the words of the protocol.

use std::{ffi::OsStr, io, os::unix::ffi::OsStrExt as _, path::PathBuf};

use russh_sftp::{
    protocol::{Status, StatusCode},
    server::StatusReply,
};
use rustix::io::Errno;

use crate::helper::plain;

/// A request that failed.
#[derive(Debug)]
pub(super) struct Failure(StatusReply);

impl Failure {
    pub(super) fn with(code: StatusCode) -> Self {
        Self(code.into())
    }

    pub(super) fn words(code: StatusCode, words: &str) -> Self {
        Self(code.with_message(words))
    }

    /// A request that is not what its kind has.
    pub(super) fn malformed() -> Self {
        Self::with(StatusCode::BadMessage)
    }
}

impl From<Failure> for StatusReply {
    fn from(failure: Failure) -> Self {
        failure.0
    }
}

/// As OpenSSH does it; the words of what has no code of its own are the system's.
impl From<Errno> for Failure {
    fn from(error: Errno) -> Self {
        match error {
            Errno::NOENT | Errno::NOTDIR | Errno::BADF | Errno::LOOP => {
                Self::with(StatusCode::NoSuchFile)
            }
            Errno::PERM | Errno::ACCESS | Errno::FAULT => Self::with(StatusCode::PermissionDenied),
            Errno::NAMETOOLONG | Errno::INVAL => Self::with(StatusCode::BadMessage),
            Errno::NOSYS => Self::with(StatusCode::OpUnsupported),
            _ => Self(StatusCode::Failure.with_message(plain(&io::Error::from(error)))),
        }
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        match Errno::from_io_error(&error) {
            Some(errno) => errno.into(),
            None => Self(StatusCode::Failure.with_message(error.to_string())),
        }
    }
}

/// The answer to what has been done.
pub(super) fn done(id: u32) -> Status {
    Status {
        id,
        status_code: StatusCode::Ok,
        error_message: "Success".to_owned(),
        language_tag: String::new(),
    }
}

/// A path that a client names.
pub(super) fn path(name: &str) -> Result<PathBuf, Failure> {
    checked(name.as_bytes())
}

/// The same, as octets.
pub(super) fn checked(name: &[u8]) -> Result<PathBuf, Failure> {
    // The library puts this for what it cannot read.
    if std::str::from_utf8(name).map_or(true, |name| name.contains(char::REPLACEMENT_CHARACTER)) {
        return Err(Failure::words(StatusCode::Failure, "Names that are not UTF-8 are not served"));
    }
    if name.contains(&0) {
        return Err(Failure::malformed());
    }
    Ok(PathBuf::from(OsStr::from_bytes(name)))
}
