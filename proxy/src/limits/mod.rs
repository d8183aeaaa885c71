//! What one client, one container and one worker may use at the same time, and how often.
//!
//! Three things are counted: what a *source* has (an IPv4 address, or an IPv6 /64), what a
//! *container* has, and what a worker has in all. Sources and containers are counted over all
//! workers ([`Counts`]), but a request does not pay for that: each worker takes a small supply from
//! the common count and serves requests from its supply, so that the common count is asked once for
//! many requests. Nothing is ever given out twice, so that the limits are exact; what lies
//! unused in the supplies of other workers is at most a quarter of a limit.
//!
//! What a limit refuses is counted by the limit ([`Refused`]), and so is what it ends that was under way
//! ([`CutBy`]); never by who it was.

mod bucket;
mod sources;
mod tenants;

use std::{
    cell::{Cell, RefCell},
    collections::HashMap,
    net::{IpAddr, SocketAddr},
    rc::Rc,
    sync::Arc,
};

use gantry_model::ContainerId;

pub(crate) use self::{
    sources::{Handshake, Share, source},
    tenants::{InFlight, Tenant},
};
use self::{
    sources::{Place, Sources},
    tenants::Tenants,
};
use crate::config::Limits;

/// Which limit something was refused by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Refused {
    /// A connection: the worker has as many as it may.
    WorkerConnections,
    /// A connection: its source has as many as it may.
    AddressConnections,
    /// A TLS handshake: the worker has as many under way as it may.
    WorkerHandshakes,
    /// A TLS handshake: its source has as many under way as it may.
    AddressHandshakes,
    /// A TLS handshake: its source makes too many in a short time.
    AddressHandshakeRate,
    /// A request: its source makes too many in a short time.
    AddressRequestRate,
    /// A request: its container has as many under way as it may.
    ContainerRequests,
    /// A request: the worker has as many under way as it may.
    WorkerRequests,
    /// A connection: a listed balancer did not say in time and in form whose it is.
    ProxyProtocol,
    /// A request: its source has given too many wrong passwords for the container.
    PasswordFailures,
    /// A request: as many passwords and signatures are being checked as may be.
    CredentialChecks,
    /// A read of a container's log: its source reads too often.
    LogReads,
    /// The bodies of a request, which its container's owner wants to see: as many are being kept as may be.
    LogBodies,
    /// A request: its body is too large.
    BodyBytes,
    /// A request: its head is too large, or has too many fields.
    HeadSize,
    /// Room to send a body ahead of what its container takes: the worker's is used up.
    WorkerUploadsAhead,
}

impl Refused {
    pub(crate) const ALL: [Self; 16] = [
        Self::WorkerConnections,
        Self::AddressConnections,
        Self::WorkerHandshakes,
        Self::AddressHandshakes,
        Self::AddressHandshakeRate,
        Self::AddressRequestRate,
        Self::ContainerRequests,
        Self::WorkerRequests,
        Self::ProxyProtocol,
        Self::PasswordFailures,
        Self::CredentialChecks,
        Self::LogReads,
        Self::LogBodies,
        Self::BodyBytes,
        Self::HeadSize,
        Self::WorkerUploadsAhead,
    ];

    /// Its place in [`Refused::ALL`].
    pub(crate) const fn index(self) -> usize {
        self as usize
    }

    /// Its name in metrics.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::WorkerConnections => "worker_connections",
            Self::AddressConnections => "address_connections",
            Self::WorkerHandshakes => "worker_handshakes",
            Self::AddressHandshakes => "address_handshakes",
            Self::AddressHandshakeRate => "address_handshake_rate",
            Self::AddressRequestRate => "address_request_rate",
            Self::ContainerRequests => "container_requests",
            Self::WorkerRequests => "worker_requests",
            Self::ProxyProtocol => "proxy_protocol",
            Self::PasswordFailures => "password_failures",
            Self::CredentialChecks => "credential_checks",
            Self::LogReads => "log_reads",
            Self::LogBodies => "log_bodies",
            Self::BodyBytes => "body_bytes",
            Self::HeadSize => "head_size",
            Self::WorkerUploadsAhead => "worker_uploads_ahead",
        }
    }
}

/// Which limit something that was under way was ended by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum CutBy {
    /// A TLS handshake was not complete in time.
    HandshakeTimeout,
    /// A request head was not complete in time.
    HeadTimeout,
    /// A request body paused for too long.
    BodyPause,
    /// A request body was too slow on average.
    BodyRate,
    /// A client took nothing of an answer for too long.
    SendPause,
    /// A client took an answer too slowly on average.
    SendRate,
    /// An HTTP/3 connection brought too many requests that were none.
    BrokenRequests,
}

impl CutBy {
    pub(crate) const ALL: [Self; 7] = [
        Self::HandshakeTimeout,
        Self::HeadTimeout,
        Self::BodyPause,
        Self::BodyRate,
        Self::SendPause,
        Self::SendRate,
        Self::BrokenRequests,
    ];

    /// Its place in [`CutBy::ALL`].
    pub(crate) const fn index(self) -> usize {
        self as usize
    }

    /// Its name in metrics.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::HandshakeTimeout => "handshake_timeout",
            Self::HeadTimeout => "head_timeout",
            Self::BodyPause => "body_pause",
            Self::BodyRate => "body_rate",
            Self::SendPause => "send_pause",
            Self::SendRate => "send_rate",
            Self::BrokenRequests => "broken_requests",
        }
    }
}

/// What all workers count together.
#[derive(Debug)]
pub(crate) struct Counts {
    sources: Sources,
    tenants: Tenants,
}

impl Counts {
    pub(crate) fn new(limits: &Limits, workers: usize) -> Self {
        Self { sources: Sources::new(limits, workers), tenants: Tenants::new(workers) }
    }
}

/// A client that was let in; counted until it is dropped.
#[derive(Debug)]
pub(crate) struct Guest {
    /// The client.
    pub(crate) peer: SocketAddr,
    /// Where it connected to, if that is known.
    pub(crate) local: Option<SocketAddr>,
    /// What it may ask for, if requests are counted.
    pub(crate) share: Option<Rc<Share>>,
    place: Place,
}

impl Guest {
    /// The client has connected to `local`.
    pub(crate) fn at(self, local: Option<SocketAddr>) -> Self {
        Self { local, ..self }
    }
}

/// What one worker counts and has in supply.
#[derive(Debug)]
pub(crate) struct Quota {
    counts: Arc<Counts>,
    connections_max: usize,
    handshakes_max: usize,
    requests_max: usize,
    connections: Rc<Cell<usize>>,
    handshakes: Rc<Cell<usize>>,
    requests: Rc<Cell<usize>>,
    shares: RefCell<HashMap<IpAddr, Rc<Share>, foldhash::fast::RandomState>>,
    tenants: RefCell<HashMap<ContainerId, Rc<Tenant>, foldhash::fast::RandomState>>,
}

/// One more of something that a worker counts, until it is dropped.
#[derive(Debug)]
pub(crate) struct Counted(Rc<Cell<usize>>);

impl Counted {
    fn one_of(count: &Rc<Cell<usize>>, max: usize) -> Option<Self> {
        if count.get() >= max {
            return None;
        }
        count.set(count.get() + 1);
        Some(Self(Rc::clone(count)))
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.set(self.0.get().saturating_sub(1));
    }
}

impl Quota {
    pub(crate) fn new(counts: Arc<Counts>, limits: &Limits) -> Self {
        Self {
            counts,
            connections_max: limits.connections_max,
            handshakes_max: limits.handshakes_max,
            requests_max: limits.requests_active_max,
            connections: Rc::default(),
            handshakes: Rc::default(),
            requests: Rc::default(),
            shares: RefCell::default(),
            tenants: RefCell::default(),
        }
    }

    /// One more connection of this worker, whoever made it.
    pub(crate) fn connection(&self) -> Result<Counted, Refused> {
        Counted::one_of(&self.connections, self.connections_max).ok_or(Refused::WorkerConnections)
    }

    /// Lets a client in: one more connection of its source.
    pub(crate) fn admit(&self, peer: SocketAddr) -> Result<Guest, Refused> {
        let source = source(peer.ip());
        let place = Place::take(&self.counts, source).ok_or(Refused::AddressConnections)?;
        let share = self.counts.sources.counts_requests().then(|| {
            let mut shares = self.shares.borrow_mut();
            let share = shares.entry(source);
            Rc::clone(share.or_insert_with(|| Rc::new(Share::new(&self.counts, source))))
        });
        Ok(Guest { peer, local: None, share, place })
    }

    /// One more TLS handshake of a client.
    pub(crate) fn handshake(&self, guest: &Guest) -> Result<(Counted, Handshake), Refused> {
        let counted = Counted::one_of(&self.handshakes, self.handshakes_max)
            .ok_or(Refused::WorkerHandshakes)?;
        Ok((counted, guest.place.handshake()?))
    }

    /// One more request of this worker.
    pub(crate) fn request(&self) -> Result<Counted, Refused> {
        Counted::one_of(&self.requests, self.requests_max).ok_or(Refused::WorkerRequests)
    }

    /// What is counted of a container.
    pub(crate) fn tenant(&self, container: ContainerId) -> Rc<Tenant> {
        let mut tenants = self.tenants.borrow_mut();
        let tenant = tenants.entry(container);
        Rc::clone(tenant.or_insert_with(|| Rc::new(self.counts.tenants.tenant(container))))
    }

    /// TLS handshakes under way.
    pub(crate) fn handshakes(&self) -> usize {
        self.handshakes.get()
    }

    /// Requests under way.
    pub(crate) fn requests(&self) -> usize {
        self.requests.get()
    }

    /// Gives back what nobody here uses any more. Called about once a second.
    pub(crate) fn sweep(&self) {
        self.shares.borrow_mut().retain(|_, share| Rc::strong_count(share) > 1);
        let mut tenants = self.tenants.borrow_mut();
        let before = tenants.len();
        tenants.retain(|_, tenant| Rc::strong_count(tenant) > 1);
        if tenants.len() < before {
            self.counts.tenants.sweep();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_stand_in_their_order() {
        for (at, refused) in Refused::ALL.into_iter().enumerate() {
            assert_eq!(refused.index(), at, "{refused:?}");
        }
        for (at, cut) in CutBy::ALL.into_iter().enumerate() {
            assert_eq!(cut.index(), at, "{cut:?}");
        }
    }

    #[test]
    fn a_worker_counts_what_it_has() {
        let limits = Limits { connections_max: 2, ..Limits::default() };
        let quota = Quota::new(Arc::new(Counts::new(&limits, 1)), &limits);
        let both = [quota.connection().unwrap(), quota.connection().unwrap()];
        assert_eq!(quota.connection().unwrap_err(), Refused::WorkerConnections);
        drop(both);
        assert!(quota.connection().is_ok());
    }
}
