//! The name that a running container sees as its own.

use std::{
    fs::File,
    io,
    os::{fd::AsFd as _, unix::fs::MetadataExt as _},
};

use rustix::{
    system::sethostname,
    thread::{LinkNameSpaceType, move_into_link_name_space},
};
use tokio::sync::oneshot;

/// Sets the name in the namespace at `path`, such as `/proc/<pid>/ns/uts`.
///
/// A thread belongs to one such namespace, so this happens on a thread of its own that ends afterwards.
pub(crate) async fn set(path: String, hostname: String) -> io::Result<()> {
    let (done, result) = oneshot::channel();
    std::thread::Builder::new().name("gantry-uts".to_owned()).spawn(move || {
        // Nobody waits any more when the caller was dropped.
        if done.send(enter(&path, &hostname)).is_err() {
            tracing::debug!(path, "set a hostname that nobody waited for");
        }
    })?;
    result.await.map_err(io::Error::other)?
}

fn enter(path: &str, hostname: &str) -> io::Result<()> {
    let namespace = File::open(path)?;
    // The number of a process that has ended may be another one's by now, and the host's name nobody's
    // but the operator's.
    let own = std::fs::metadata("/proc/self/ns/uts")?;
    let found = namespace.metadata()?;
    if (found.dev(), found.ino()) == (own.dev(), own.ino()) {
        return Err(io::Error::other("the container's init has ended"));
    }
    let kind = LinkNameSpaceType::HostNameAndNISDomainName;
    move_into_link_name_space(namespace.as_fd(), Some(kind))?;
    Ok(sethostname(hostname.as_bytes())?)
}
