//! Small files of the container, which may be anything.

use std::{
    fs::File,
    io::{self, Read as _},
    path::Path,
};

use rustix::fs::{Mode, OFlags};

/// The most that is read of a file, in octets.
const FILE_LEN_MAX: u64 = 4 * 1024 * 1024;

/// Reads a regular file; neither a pipe nor a device makes it wait. Too long a file is an error.
pub(super) fn read(path: &Path) -> io::Result<Vec<u8>> {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
    let file = File::from(rustix::fs::open(path, flags, Mode::empty())?);
    if !file.metadata()?.is_file() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "it is no regular file"));
    }
    let mut octets = Vec::new();
    file.take(FILE_LEN_MAX + 1).read_to_end(&mut octets)?;
    if octets.len() as u64 > FILE_LEN_MAX {
        return Err(io::ErrorKind::FileTooLarge.into());
    }
    Ok(octets)
}
