//! Descriptors that tokio waits for.

use std::{io, os::fd::OwnedFd};

use tokio::io::{Interest, unix::AsyncFd};

/// Lets tokio wait for a descriptor. Only within tokio.
#[expect(
    deprecated,
    reason = "the replacement is unsafe, for types whose descriptor may change; this one's cannot"
)]
pub(crate) fn register(fd: OwnedFd, interest: Interest) -> io::Result<AsyncFd<OwnedFd>> {
    AsyncFd::with_interest(fd, interest)
}
