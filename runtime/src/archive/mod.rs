//! A whole root file system as a stream, which any runtime can make a container of.
//!
//! The form is that of pax (POSIX.1-2001), as `tar` reads it: names are relative (`./etc/passwd`), a
//! directory comes before what is in it, the first entry is the root. Owners are numbers in the
//! container; a file capability names no user namespace; access lists are attributes in the form of the
//! kernel, with the container's numbers; files with holes are kept as `GNU.sparse` 1.0. Devices and
//! sockets are not in it, nor what a runtime mounts.
//!
//! Who reads one trusts nothing in it: [`Reader`] bounds what it holds in memory, [`unpack()`] follows
//! no link, and what does not end with the mark of an end is not whole.

mod pack;
mod read;
mod stream;
#[cfg(test)]
mod tests;
mod unpack;
mod write;

use std::{
    fmt, io,
    pin::Pin,
    task::{Context, Poll},
};

use tokio::io::{AsyncRead, ReadBuf};

pub(crate) use pack::{MOUNTED, Notes, Tree, pack};
pub(crate) use read::{Reader, forgetful};
pub(crate) use stream::{Blocking, pipe};
pub(crate) use unpack::unpack;
pub(crate) use write::Writer;

/// The attribute that carries file capabilities.
const CAPABILITY: &[u8] = b"security.capability";

/// Those that carry access lists.
const ACCESS: &[u8] = b"system.posix_acl_access";
const DEFAULT: &[u8] = b"system.posix_acl_default";

/// What the keys of attributes begin with.
const XATTR: &[u8] = b"SCHILY.xattr.";

/// What the attributes of one file may take together, in bytes.
const XATTRS_BYTES_MAX: usize = 1 << 20;

/// What is said of one entry beside its contents may take so much, in bytes.
const PAX_BYTES_MAX: u64 = 4 << 20;

/// The most names that a path may have: what leads back up is remembered for each.
const DEPTH_MAX: usize = 1 << 16;

/// How many pieces with holes between a file is kept as; the last one has all that is left.
const RANGES_MAX: usize = 1 << 12;

/// A root file system under way, as a tar stream (pax): owners are the container's numbers, names are
/// relative (`./etc/passwd`). It has no devices, no sockets, and nothing of what runtimes mount.
///
/// Reading it ends with an error if it is not whole, and who makes a container of it looks for the mark
/// at its end besides, so that none is made of a part. Dropping it ends whatever makes it.
pub struct Archive(Pin<Box<dyn AsyncRead + Send>>);

impl Archive {
    /// Takes a stream for one, as from another server. A failure on the way must come as an error of
    /// reading.
    pub fn new(stream: impl AsyncRead + Send + 'static) -> Self {
        Self(Box::pin(stream))
    }
}

impl AsyncRead for Archive {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.0.as_mut().poll_read(cx, buf)
    }
}

impl fmt::Debug for Archive {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Archive").finish_non_exhaustive()
    }
}

/// What is said of one entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Head {
    /// Where it is, below the root: names with `/` between; empty for the root itself.
    pub(crate) path: Vec<u8>,
    /// What it is.
    pub(crate) kind: Kind,
    /// Permissions, with the bits for set-user-id and the like.
    pub(crate) mode: u32,
    /// Its owner, in the container's numbers.
    pub(crate) uid: u32,
    /// Its group.
    pub(crate) gid: u32,
    /// When it was last written: seconds, and nanoseconds in the second.
    pub(crate) modified: (i64, u32),
    /// Its extended attributes.
    pub(crate) xattrs: Vec<(Vec<u8>, Vec<u8>)>,
}

/// What an entry is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A directory.
    Directory,
    /// A regular file, which is so long and has data in these ranges (begin, length); zeros elsewhere.
    File {
        /// Its length.
        size: u64,
        /// Where it has data, in order.
        ranges: Vec<(u64, u64)>,
    },
    /// A symbolic link to this.
    Symlink(Vec<u8>),
    /// Another name of the file at this path, which came before.
    Link(Vec<u8>),
    /// A named pipe.
    Fifo,
}

impl Head {
    /// A plain entry of the container's root.
    pub(crate) fn new(path: impl Into<Vec<u8>>, kind: Kind, mode: u32) -> Self {
        let (path, xattrs) = (path.into(), Vec::new());
        Self { path, kind, mode, uid: 0, gid: 0, modified: (0, 0), xattrs }
    }
}

impl Kind {
    /// A file without holes.
    pub(crate) fn file(size: u64) -> Self {
        let ranges = if size == 0 { Vec::new() } else { vec![(0, size)] };
        Self::File { size, ranges }
    }
}

/// Whether an attribute belongs into an archive: others are about the machine that it was made on.
fn is_kept(name: &[u8]) -> bool {
    name.starts_with(b"user.") || [CAPABILITY, ACCESS, DEFAULT].contains(&name)
}

pub(crate) fn invalid(text: impl Into<String>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, text.into())
}
