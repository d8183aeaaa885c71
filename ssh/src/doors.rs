//! What the front asks of others: which container a key opens, and the way into it.

use std::{net::IpAddr, os::fd::OwnedFd};

use async_trait::async_trait;
use gantry_model::{ContainerId, ssh::KeyFingerprint};
use tokio::sync::watch;

/// A container as a key finds it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Door {
    /// The container.
    pub container: ContainerId,
    /// Counts its starts: sessions of an earlier one end.
    pub generation: u64,
    /// Whether it can be entered.
    pub state: DoorState,
    /// Whether connections to and from it may be forwarded.
    pub forwards: bool,
}

/// Whether a container can be entered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DoorState {
    /// It runs.
    Open,
    /// It does not run, but is woken for whoever has its key.
    Asleep,
    /// It does not run; in words, such as "is stopped".
    Shut(&'static str),
}

/// The containers by their keys.
pub trait Doors: Send + Sync + 'static {
    /// The container that this key opens now. Takes no lock for long and does no I/O.
    fn find(&self, key: &KeyFingerprint) -> Option<Door>;

    /// Whether the owner of the container that this key opens lets this address in by SSH.
    fn admits(&self, key: &KeyFingerprint, address: IpAddr) -> bool;

    /// Changes whenever an answer of the others may have.
    fn changes(&self) -> watch::Receiver<u64>;
}

/// Why there is no way into a container.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoWay {
    /// It does not run (any more).
    #[error("does not run")]
    NotRunning,
    /// It is paused.
    #[error("is paused")]
    Paused,
    /// It was started before there was SSH.
    #[error("was started before there was SSH; stop and start it once")]
    NoPlace,
    /// Something else; it is in the log.
    #[error("cannot be entered at the moment")]
    Failed,
}

/// Ways into containers.
#[async_trait]
pub trait Ways: Send + Sync + 'static {
    /// Starts the helper inside a running container and gives the connection to it.
    async fn open(&self, container: ContainerId) -> Result<OwnedFd, NoWay>;

    /// Starts a container that sleeps, and returns when it can be entered.
    async fn wake(&self, container: ContainerId) -> Result<(), NoWay>;
}
