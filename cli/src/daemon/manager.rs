//! What a service manager such as systemd is told, and the sockets that it gives.

use std::net::TcpListener;

use anyhow::{Context as _, ensure};
use listenfd::ListenFd;
use sd_notify::NotifyState;

use crate::config::EdgeConfig;

/// Everything runs.
pub(super) fn ready() {
    tell(&[NotifyState::Ready, NotifyState::Status("running")]);
}

/// A new process is to follow this one.
pub(super) fn reloading() {
    let mut states = vec![NotifyState::Reloading];
    match NotifyState::monotonic_usec_now() {
        Ok(now) => states.push(now),
        Err(error) => tracing::debug!(%error, "the service manager is told no time"),
    }
    tell(&states);
}

/// The new process is the main one from now on.
pub(super) fn followed(pid: u32) {
    tell(&[NotifyState::MainPid(pid), NotifyState::Ready, NotifyState::Status("running")]);
}

/// No new process came; this one goes on.
pub(super) fn not_followed(why: &str) {
    let why = why.replace('\n', " ");
    tell(&[NotifyState::Ready, NotifyState::Status(&format!("running; upgrade failed: {why}"))]);
}

/// The end has begun.
pub(super) fn stopping() {
    tell(&[NotifyState::Stopping]);
}

fn tell(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        tracing::warn!(%error, "the service manager cannot be told");
    }
}

/// The listeners that a service manager has opened for this process (`LISTEN_FDS`); each must be one that the
/// configuration wants.
pub(super) fn listeners(edge: &EdgeConfig) -> anyhow::Result<Vec<TcpListener>> {
    let mut given = ListenFd::from_env();
    let mut listeners = Vec::new();
    for at in 0..given.len() {
        let listener = given.take_tcp_listener(at).with_context(|| {
            format!("LISTEN_FDS: socket {at} does not listen for TCP; those of HTTP/3 Gantry opens itself")
        })?;
        let Some(listener) = listener else { continue };
        let address = listener.local_addr().context("LISTEN_FDS: a socket has no address")?;
        let wanted = edge.https.iter().chain(&edge.http).chain(&edge.ssh).chain([&edge.admin]);
        ensure!(
            wanted.into_iter().any(|wanted| *wanted == address),
            "LISTEN_FDS: {address} is in none of edge.https, edge.http, edge.ssh and edge.admin"
        );
        listeners.push(listener);
    }
    Ok(listeners)
}
