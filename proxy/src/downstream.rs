//! One client connection, as its requests see it.

use std::{
    cell::{Cell, OnceCell, RefCell},
    fmt,
    net::SocketAddr,
    rc::Rc,
    time::Duration,
};

use gantry_model::ContainerId;
use http::HeaderValue;

use crate::{
    flood::Flood,
    framing::Refusal,
    limits::{Guest, InFlight, Share, Tenant},
    pool::PoolKey,
    tunnel::UpstreamEnd,
    upstream::Channel,
    watch::{NEVER, Origin, Tick, Wait},
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
    own: RefCell<Vec<(PoolKey, Channel)>>,
    /// The container whose answer is being sent.
    sending: Cell<Option<Origin>>,
    /// What its source may ask for, if requests are counted.
    share: Option<Rc<Share>>,
    /// The container of the last request.
    tenant: RefCell<Option<Rc<Tenant>>>,
    started: Cell<u64>,
    finished: Cell<u64>,
    gate: OnceCell<GateView>,
    refusal: Cell<Option<(u64, Refusal)>>,
    flood: Cell<Option<Flood>>,
    tunnelled: Cell<bool>,
    tunnel: RefCell<Option<UpstreamEnd>>,
    /// The last authority that the certificate was found to cover.
    covered: RefCell<Option<HeaderValue>>,
    /// Whether that authority has not been told of HTTP/3 yet.
    untold: Cell<bool>,
    /// `Forwarded` for the last authority.
    forwarded: RefCell<Option<(HeaderValue, HeaderValue)>>,
}

/// What the gate of an HTTP/1 connection and its requests tell one another. hyper does not look at
/// the stream again when an answer is done, so that the last request has to say it.
#[derive(Debug)]
struct GateView {
    wait: Rc<Wait>,
    idle: Duration,
    /// Heads that the gate has passed.
    passed: Cell<u64>,
    /// Whether it holds octets back until the present request is answered.
    holds: Cell<bool>,
    /// When the last request was answered.
    quiet_since: Cell<Tick>,
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
            share: guest.share.clone(),
            tenant: RefCell::new(None),
            started: Cell::new(0),
            finished: Cell::new(0),
            gate: OnceCell::new(),
            refusal: Cell::new(None),
            flood: Cell::new(None),
            tunnelled: Cell::new(false),
            tunnel: RefCell::new(None),
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

    /// Takes a connection that was made for this client.
    pub(crate) fn take_own(&self, key: &PoolKey) -> Option<Channel> {
        let mut own = self.own.borrow_mut();
        let at = own.iter().rposition(|(of, _)| of == key)?;
        Some(own.swap_remove(at).1)
    }

    /// Keeps a connection that was made for this client, for as long as the client stays.
    pub(crate) fn keep_own(&self, key: PoolKey, channel: Channel) {
        let mut own = self.own.borrow_mut();
        if own.len() == OWN_MAX {
            drop(own.remove(0));
        }
        own.push((key, channel));
    }

    /// From now on it is an answer of this container that is sent.
    pub(crate) fn sends(&self, origin: Origin) {
        self.sending.set(Some(origin));
    }

    /// The container whose answer is being sent.
    pub(crate) fn sending(&self) -> Option<Origin> {
        self.sending.get()
    }

    /// `https` or `http`, as the client speaks.
    pub(crate) fn scheme(&self) -> &'static str {
        if self.secure { "https" } else { "http" }
    }

    /// A request begins. Returns the refusal that it stands for, if it is not the client's own.
    pub(crate) fn start(&self) -> Option<Refusal> {
        let ordinal = self.started.get() + 1;
        self.started.set(ordinal);
        self.sending.set(None);
        let (refused, refusal) = self.refusal.get()?;
        (refused == ordinal).then_some(refusal)
    }

    /// A request was answered to the last octet, or given up.
    pub(crate) fn finish(&self) {
        self.finished.set(self.finished.get() + 1);
        let Some(gate) = self.gate.get().filter(|_| self.is_quiet()) else { return };
        let watch = gate.wait.watch();
        gate.quiet_since.set(watch.now());
        gate.wait.at_the_latest(watch.after(gate.idle));
        if gate.holds.get() {
            gate.wait.wake();
        }
    }

    /// The connection has a gate, which waits by `wait`. A connection without a request is closed
    /// after `idle`.
    pub(crate) fn has_gate(&self, wait: Rc<Wait>, idle: Duration) {
        let (passed, holds, quiet_since) = (Cell::new(0), Cell::new(false), Cell::new(0));
        // A connection has one gate, so that the cell is empty.
        drop(self.gate.set(GateView { wait, idle, passed, holds, quiet_since }));
    }

    /// The gate has passed a head; returns how many it has passed by now.
    pub(crate) fn passed_head(&self) -> u64 {
        self.gate.get().map_or(0, |gate| {
            gate.passed.set(gate.passed.get() + 1);
            gate.passed.get()
        })
    }

    /// How many heads the gate has passed.
    pub(crate) fn passed(&self) -> u64 {
        self.gate.get().map_or(0, |gate| gate.passed.get())
    }

    /// The gate holds octets back until the present request is answered, or does so no more.
    pub(crate) fn holds(&self, holds: bool) {
        if let Some(gate) = self.gate.get() {
            gate.holds.set(holds);
        }
    }

    /// Whether all passed requests have been answered.
    pub(crate) fn is_quiet(&self) -> bool {
        self.finished.get() == self.passed()
    }

    /// When a connection that has been quiet since its last request is closed.
    pub(crate) fn idle_deadline(&self) -> Tick {
        self.gate.get().map_or(NEVER, |gate| {
            let watch = gate.wait.watch();
            let ahead = watch.after(gate.idle) - watch.now();
            gate.quiet_since.get().saturating_add(ahead)
        })
    }

    /// How many requests are under way.
    pub(crate) fn active(&self) -> u64 {
        self.started.get() - self.finished.get()
    }

    /// How many requests there were.
    pub(crate) fn started(&self) -> u64 {
        self.started.get()
    }

    /// Notes that the request with this number was refused before it was parsed.
    pub(crate) fn refuse(&self, ordinal: u64, refusal: Refusal) {
        self.refusal.set(Some((ordinal, refusal)));
    }

    /// The client floods; the connection ends.
    pub(crate) fn floods(&self, flood: Flood) {
        self.flood.set(Some(flood));
    }

    /// What the client flooded with.
    pub(crate) fn flood(&self) -> Option<Flood> {
        self.flood.get()
    }

    /// Leaves the upstream's end of a tunnel for the connection's task, which takes it when the
    /// answer is written.
    pub(crate) fn open_tunnel(&self, upstream: UpstreamEnd) {
        self.tunnelled.set(true);
        *self.tunnel.borrow_mut() = Some(upstream);
    }

    /// Whether the connection has left HTTP.
    pub(crate) fn is_tunnelled(&self) -> bool {
        self.tunnelled.get()
    }

    /// Takes the upstream's end of the tunnel.
    pub(crate) fn take_tunnel(&self) -> Option<UpstreamEnd> {
        self.tunnel.borrow_mut().take()
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
            *self.covered.borrow_mut() = Some(authority.clone());
            self.untold.set(self.protocol != Protocol::Http3);
        }
        covered
    }

    /// Whether the authority of the last request has yet to be told of HTTP/3; says so once.
    pub(crate) fn is_untold(&self) -> bool {
        self.untold.get() && self.untold.replace(false)
    }

    /// `Forwarded` (RFC 7239) for requests to `authority`.
    pub(crate) fn forwarded(&self, authority: &HeaderValue) -> Option<HeaderValue> {
        if let Some((of, value)) = &*self.forwarded.borrow()
            && of == authority
        {
            return Some(value.clone());
        }
        let ip = self.peer.ip().to_canonical();
        let node = if ip.is_ipv6() { format!("\"[{ip}]\"") } else { ip.to_string() };
        let host = authority.to_str().ok()?;
        let text = format!("for={node};host=\"{host}\";proto={}", self.scheme());
        let value = HeaderValue::try_from(text).ok()?;
        *self.forwarded.borrow_mut() = Some((authority.clone(), value.clone()));
        Some(value)
    }
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
