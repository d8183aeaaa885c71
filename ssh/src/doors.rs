//! What the front asks of others: which container a key opens, the way into it, and whose connection a
//! balancer carries; and whom it tells what came of that.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    os::fd::OwnedFd,
    time::Duration,
};

use async_trait::async_trait;
use gantry_model::{ContainerId, ssh::KeyFingerprint};
use tokio::{net::TcpStream, sync::watch};

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

/// Balancers, which carry connections for others.
#[async_trait]
pub trait Balancers: Send + Sync + 'static {
    /// Whether this address is one of a balancer: it must say for whom it comes, and nobody else can.
    fn has(&self, address: IpAddr) -> bool;

    /// Reads for whom a balancer comes, and not an octet more: both ends of the connection that it has taken,
    /// the client's first. Nothing if it comes for itself. Takes as long as the balancer does.
    async fn client(&self, stream: &mut TcpStream) -> io::Result<Option<(SocketAddr, SocketAddr)>>;
}

/// Somebody who has proved to have the key of a container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Visitor {
    /// The connection's number, of no other one of this process.
    pub connection: u64,
    /// The container that the key opens.
    pub container: ContainerId,
    /// The key.
    pub key: KeyFingerprint,
    /// The login name, without the part that narrows; at most so many characters as are worth telling.
    pub user: String,
    /// Where the connection comes from.
    pub peer: SocketAddr,
}

/// What came of a visit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Visit {
    /// The visitor is in.
    Begun,
    /// The visitor was not let in.
    Refused(Refusal),
    /// A visit that had begun is over.
    Ended {
        /// How long the connection lasted.
        lasted: Duration,
        /// Octets of channels from the client.
        received: u64,
        /// Octets of channels to the client.
        sent: u64,
        /// How many channels there were.
        channels: u64,
        /// Why it was ended from here, if it was.
        why: Option<&'static str>,
    },
}

/// Why somebody with the right key is not let in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The container's owner lets nobody in from there.
    #[error("its owner lets nobody in by SSH from this address")]
    Address,
    /// The container has as many connections as it may have.
    #[error("it has as many connections by SSH as it may have")]
    Connections,
}

/// Who is told of visits, and of use.
pub trait Witness: Send + Sync + 'static {
    /// Hears of a visit; must not wait for anything.
    fn hear(&self, visitor: &Visitor, visit: Visit);

    /// Hears, at most once a second for each connection and command, that somebody uses a container; must not wait
    /// for anything.
    fn active(&self, container: ContainerId);
}
