//! One client connection, as its requests see it.

use std::{
    cell::{Cell, RefCell},
    fmt,
    net::SocketAddr,
    rc::Rc,
    sync::Arc,
    time::Duration,
};

use gantry_model::ContainerId;
use http::HeaderValue;

use crate::{
    flood::Flood,
    guard::Pass,
    limits::{Guest, InFlight, Share, Tenant},
    logs::Log,
    pool::PoolKey,
    upstream::Channel,
    watch::{Origin, Tick},
};

/// Connections to containers that are kept for one client, at most.
const OWN_MAX: usize = 8;

/// How a client speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Protocol {
    Http1,
    Http2,
    Http3,
}

/// The facts of one client connection, and what its requests leave there for one another. Nothing
/// here authorises: requests of several hosts share a connection.
pub(crate) struct Downstream {
    pub(crate) peer: SocketAddr,
    pub(crate) protocol: Protocol,
    pub(crate) secure: bool,
    /// The name in the `ClientHello`, if there was one.
    pub(crate) sni: Option<Box<str>>,
    /// The client's address as `X-Forwarded-For` has it.
    pub(crate) address: HeaderValue,
    /// Where the client connected to, if that is known.
    pub(crate) local: Option<SocketAddr>,
    /// Connections to containers that were made for this client alone.
    own: RefCell<Vec<(PoolKey, Box<Channel>)>>,
    /// The container whose answer is being sent.
    sending: Cell<Option<Origin>>,
    /// By what its request was let in, if its container has a gate.
    sending_by: RefCell<Option<Rc<Pass>>>,
    /// What its source may ask for, if requests are counted.
    share: Option<Rc<Share>>,
    /// The container of the last request.
    tenant: RefCell<Option<Rc<Tenant>>>,
    /// The log of that container, if requests are logged.
    log: RefCell<Option<Arc<Log>>>,
    started: Cell<u64>,
    finished: Cell<u64>,
    flood: Cell<Option<Flood>>,
    /// When an answer was given up last.
    given_up: Cell<Option<Tick>>,
    /// The last authority that the certificate was found to cover.
    covered: RefCell<Option<HeaderValue>>,
    /// Whether that authority has not been told of HTTP/3 yet.
    untold: Cell<bool>,
    /// `Forwarded` for the last authority.
    forwarded: RefCell<Option<(HeaderValue, String)>>,
}

impl Downstream {
    pub(crate) fn new(
        guest: &Guest,
        protocol: Protocol,
        secure: bool,
        sni: Option<Box<str>>,
    ) -> Self {
        let peer = guest.peer;
        let address = peer.ip().to_canonical().to_string();
        Self {
            peer,
            protocol,
            secure,
            sni,
            address: HeaderValue::try_from(address)
                .unwrap_or_else(|_| HeaderValue::from_static("unknown")),
            local: guest.local,
            own: RefCell::default(),
            sending: Cell::new(None),
            sending_by: RefCell::new(None),
            share: guest.share.clone(),
            tenant: RefCell::new(None),
            log: RefCell::new(None),
            started: Cell::new(0),
            finished: Cell::new(0),
            flood: Cell::new(None),
            given_up: Cell::new(None),
            covered: RefCell::new(None),
            untold: Cell::new(false),
            forwarded: RefCell::new(None),
        }
    }

    /// One more request of this client. If it comes too early: how long to wait.
    pub(crate) fn take_share(&self) -> Result<(), Duration> {
        self.share.as_ref().map_or(Ok(()), |share| share.take())
    }

    /// One more request to `container`, unless `max` are under way; `find` is asked once per change.
    pub(crate) fn enter(
        &self,
        container: ContainerId,
        max: u32,
        find: impl FnOnce() -> Rc<Tenant>,
    ) -> Option<InFlight> {
        let mut tenant = self.tenant.borrow_mut();
        match &*tenant {
            Some(tenant) if tenant.container() == container => tenant.enter(max),
            Some(_) | None => tenant.insert(find()).enter(max),
        }
    }

    /// The log of `container`; `find` is asked once per change.
    pub(crate) fn log(
        &self,
        container: ContainerId,
        find: impl FnOnce() -> Option<Arc<Log>>,
    ) -> Option<Arc<Log>> {
        let mut log = self.log.borrow_mut();
        if !log.as_ref().is_some_and(|log| log.is_of(container)) {
            *log = find();
        }
        log.clone()
    }

    /// Takes a connection that was made for this client.
    pub(crate) fn take_own(&self, key: &PoolKey) -> Option<Box<Channel>> {
        let mut own = self.own.borrow_mut();
        let at = own.iter().rposition(|(of, _)| of == key)?;
        Some(own.swap_remove(at).1)
    }

    /// Keeps a connection that was made for this client, for as long as the client stays.
    pub(crate) fn keep_own(&self, key: PoolKey, channel: Box<Channel>) {
        let mut own = self.own.borrow_mut();
        if own.len() == OWN_MAX {
            drop(own.remove(0));
        }
        own.push((key, channel));
    }

    /// From now on it is an answer of this container that is sent.
    pub(crate) fn sends(&self, origin: Origin, pass: Option<&Rc<Pass>>) {
        self.sending.set(Some(origin));
        if pass.is_some() {
            *self.sending_by.borrow_mut() = pass.cloned();
        }
    }

    /// The container whose answer is being sent, and by what its request was let in.
    pub(crate) fn sending(&self) -> Option<(Origin, Option<Rc<Pass>>)> {
        Some((self.sending.get()?, self.sending_by.borrow().clone()))
    }

    /// `https` or `http`, as the client speaks.
    pub(crate) fn scheme(&self) -> &'static str {
        if self.secure { "https" } else { "http" }
    }

    /// A request begins.
    pub(crate) fn start(&self) {
        self.started.set(self.started.get() + 1);
        self.sending.set(None);
        *self.sending_by.borrow_mut() = None;
    }

    /// A request was answered to the last octet, or given up.
    pub(crate) fn finish(&self) {
        self.finished.set(self.finished.get() + 1);
    }

    /// How many requests are under way.
    pub(crate) fn active(&self) -> u64 {
        self.started.get() - self.finished.get()
    }

    /// How many requests there were.
    pub(crate) fn started(&self) -> u64 {
        self.started.get()
    }

    /// The client floods; the connection ends.
    pub(crate) fn floods(&self, flood: Flood) {
        self.flood.set(Some(flood));
    }

    /// What the client flooded with.
    pub(crate) fn flood(&self) -> Option<Flood> {
        self.flood.get()
    }

    /// An answer is given up, because the client does not take it.
    pub(crate) fn gives_up(&self, now: Tick) {
        self.given_up.set(Some(now));
    }

    /// When an answer was given up last.
    pub(crate) fn given_up(&self) -> Option<Tick> {
        self.given_up.get()
    }

    /// Whether the certificate covers `authority`; `ask` is asked once per change.
    pub(crate) fn is_covered(
        &self,
        authority: &HeaderValue,
        ask: impl FnOnce(Option<&str>) -> bool,
    ) -> bool {
        if self.covered.borrow().as_ref() == Some(authority) {
            return true;
        }
        let covered = ask(self.sni.as_deref());
        if covered {
            *self.covered.borrow_mut() = alone(authority);
            self.untold.set(self.protocol != Protocol::Http3);
        }
        covered
    }

    /// Whether the authority of the last request has yet to be told of HTTP/3; says so once.
    pub(crate) fn is_untold(&self) -> bool {
        self.untold.get() && self.untold.replace(false)
    }

    /// Gives `out` the value of `Forwarded` (RFC 7239) for requests to `authority`.
    pub(crate) fn forwarded(&self, authority: &HeaderValue, out: impl FnOnce(&[u8])) {
        let mut forwarded = self.forwarded.borrow_mut();
        if let Some((of, value)) = &*forwarded
            && of == authority
        {
            return out(value.as_bytes());
        }
        let ip = self.peer.ip().to_canonical();
        let node = if ip.is_ipv6() { format!("\"[{ip}]\"") } else { ip.to_string() };
        let Ok(host) = authority.to_str() else { return };
        let value = format!("for={node};host=\"{host}\";proto={}", self.scheme());
        out(value.as_bytes());
        *forwarded = alone(authority).map(|authority| (authority, value));
    }
}

/// The same value in memory of its own. One of a request shares that of the whole head, which it would
/// keep for as long as the client stays.
fn alone(value: &HeaderValue) -> Option<HeaderValue> {
    HeaderValue::from_bytes(value.as_bytes()).ok()
}

impl fmt::Debug for Downstream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Downstream")
            .field("peer", &self.peer)
            .field("protocol", &self.protocol)
            .field("secure", &self.secure)
            .finish_non_exhaustive()
    }
}
