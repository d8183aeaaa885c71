//! The name that a running container sees as its own.

use std::{fs::File, io, os::fd::AsFd as _};

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
    let kind = LinkNameSpaceType::HostNameAndNISDomainName;
    move_into_link_name_space(namespace.as_fd(), Some(kind))?;
    Ok(sethostname(hostname.as_bytes())?)
}
