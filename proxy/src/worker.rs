//! What one worker thread has for itself: clock, connections, numbers, lines. Nothing here is shared
//! with another thread but the handles that it was given.

use std::{
    cell::{Cell, RefCell, RefMut},
    fmt,
    net::{IpAddr, Ipv4Addr},
    rc::Rc,
    sync::Arc,
    time::{Duration, Instant},
};

use gantry_model::ContainerId;
use gantry_router::{Route, RouteState, RouteTable};
use http::HeaderValue;
use tokio_util::task::TaskTracker;

use crate::{
    access_log::LineBuffer,
    ahead::Budget,
    config::{Config, Limits, UpstreamSource},
    date,
    deps::{Deps, RequestId},
    framing::FieldAt,
    guard::{self, Guard, Pass},
    limits::{Counted, Counts, Quota, Refused},
    metrics::Metrics,
    pool::Pool,
    stalled::Stream,
    start::Starts,
    tls::Tls,
    traffic::{Traffic, Traffics},
    upstream::DialRules,
    wake::Wakes,
    watch::{NEVER, Origin, TICK, Tick, Wait, Watch},
};

/// The octets that one read of a tunnel takes.
const SCRATCH: usize = 32 * 1024;

/// Ticks between two looks through the pool.
const SWEEP: Tick = 10;

/// A state of the routes, by its epoch and revision.
pub(crate) type Seen = ([u8; 16], u64);

/// One worker.
pub(crate) struct Worker {
    config: Arc<Config>,
    limits: Rc<Limits>,
    deps: Deps,
    tls: Tls,
    dial_rules: DialRules,
    watch: Rc<Watch>,
    pool: RefCell<Pool>,
    starts: Starts,
    wakes: Wakes,
    traffics: Traffics,
    guard: Guard,
    /// The stream whose task runs at this moment.
    stream: RefCell<Option<Rc<Stream>>>,
    lines: LineBuffer,
    metrics: Arc<Metrics>,
    tasks: TaskTracker,
    draining: Cell<bool>,
    /// Whether connections that wait for a request may wait on while draining.
    lingers: Cell<bool>,
    random: Cell<u64>,
    begun: Instant,
    /// The wall clock at the last tick.
    clock: Cell<(i64, Instant)>,
    /// The last second that was written out.
    second: Cell<(i64, [u8; 20])>,
    /// What the routes were when the streams were last compared with them.
    routes_seen: Cell<Seen>,
    /// The last second that was written out as the date of an answer.
    date: Cell<(i64, [u8; 29])>,
    scratch: RefCell<Vec<u8>>,
    fields: RefCell<Vec<FieldAt>>,
    quota: Quota,
    ahead: Budget,
    /// What tells clients of HTTP/3, and whether it is served at the moment.
    alt_svc: Option<HeaderValue>,
    http3: Cell<bool>,
}

/// What a worker is made of.
pub(crate) struct Given {
    pub(crate) config: Arc<Config>,
    pub(crate) deps: Deps,
    pub(crate) tls: Tls,
    pub(crate) lines: LineBuffer,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) counts: Arc<Counts>,
    pub(crate) guard: Arc<guard::Shared>,
    /// Where its random numbers begin.
    pub(crate) seed: u64,
}

/// A client connection, counted until it is dropped.
#[derive(Debug)]
pub(crate) struct OpenConnection {
    metrics: Arc<Metrics>,
    _counted: Counted,
}

impl Drop for OpenConnection {
    fn drop(&mut self) {
        self.metrics.connections_open.sub(1);
    }
}

impl Worker {
    pub(crate) fn new(given: Given) -> Self {
        let Given { config, deps, tls, lines, metrics, counts, guard, seed } = given;
        let limits = config.limits;
        let now = Instant::now();
        let clock = ((deps.now_ms)(), now);
        let alt_svc = format!("h3=\":{}\"; ma=86400", config.url_port);
        let alt_svc = HeaderValue::try_from(alt_svc).ok();
        Self {
            dial_rules: DialRules::new(config.container_networks.clone()),
            pool: RefCell::new(Pool::new(
                limits.pool_per_port_max,
                limits.pool_max,
                limits.pool_idle,
            )),
            limits: Rc::new(limits),
            config,
            deps,
            tls,
            watch: Rc::default(),
            starts: Starts::default(),
            wakes: Wakes::default(),
            traffics: Traffics::default(),
            guard: Guard::new(guard),
            stream: RefCell::default(),
            lines,
            ahead: Budget::new(&limits, Arc::clone(&metrics)),
            metrics,
            tasks: TaskTracker::new(),
            draining: Cell::new(false),
            lingers: Cell::new(false),
            random: Cell::new(seed),
            begun: now,
            clock: Cell::new(clock),
            second: Cell::new((i64::MIN, [0; 20])),
            routes_seen: Cell::new(([0; 16], 0)),
            date: Cell::new((i64::MIN, [b' '; 29])),
            scratch: RefCell::new(vec![0; SCRATCH]),
            fields: RefCell::default(),
            quota: Quota::new(counts, &limits),
            alt_svc,
            http3: Cell::new(false),
        }
    }

    pub(crate) fn config(&self) -> &Config {
        &self.config
    }

    pub(crate) fn limits(&self) -> &Rc<Limits> {
        &self.limits
    }

    pub(crate) fn deps(&self) -> &Deps {
        &self.deps
    }

    pub(crate) fn tls(&self) -> &Tls {
        &self.tls
    }

    pub(crate) fn dial_rules(&self) -> &DialRules {
        &self.dial_rules
    }

    pub(crate) fn watch(&self) -> &Rc<Watch> {
        &self.watch
    }

    /// The idle connections. Not to be held across anything that waits.
    pub(crate) fn pool(&self) -> RefMut<'_, Pool> {
        self.pool.borrow_mut()
    }

    pub(crate) fn wakes(&self) -> &Wakes {
        &self.wakes
    }

    /// The traffic of a container that may be put to sleep.
    pub(crate) fn traffic_of(&self, container: ContainerId) -> Rc<Traffic> {
        self.traffics.of(container, &self.deps.activity, self.deps.now_ms)
    }

    pub(crate) fn starts(&self) -> &Starts {
        &self.starts
    }

    pub(crate) fn guard(&self) -> &Guard {
        &self.guard
    }

    pub(crate) fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    /// Whether requests to containers are logged for their owners.
    pub(crate) fn logs_requests(&self) -> bool {
        self.deps.logs.is_enabled()
    }

    /// The address that a connection for `client` to a container at `container` comes from, if it is
    /// to be the client's own.
    pub(crate) fn source_for(&self, client: IpAddr, container: IpAddr) -> Option<Ipv4Addr> {
        if self.config.upstream_source == UpstreamSource::Edge {
            return None;
        }
        let (IpAddr::V4(client), IpAddr::V4(_)) = (client.to_canonical(), container) else {
            return None;
        };
        // Containers answer one another past us; the other addresses nobody may come from.
        let unfit = client.is_loopback()
            || client.is_unspecified()
            || client.is_multicast()
            || client.is_broadcast()
            || client.is_link_local();
        let address = IpAddr::V4(client);
        let inside = self.config.container_networks.iter().any(|net| net.contains(&address));
        (!unfit && !inside).then_some(client)
    }

    /// What this worker counts of its clients and containers.
    pub(crate) fn quota(&self) -> &Quota {
        &self.quota
    }

    /// What clients may send ahead of their containers.
    pub(crate) fn ahead(&self) -> &Budget {
        &self.ahead
    }

    /// Counts one more client connection.
    pub(crate) fn open_connection(&self) -> Result<OpenConnection, Refused> {
        let counted = self.quota.connection()?;
        self.metrics.connections_open.add(1);
        Ok(OpenConnection { metrics: Arc::clone(&self.metrics), _counted: counted })
    }

    /// All tasks of this worker; a drain waits for them.
    pub(crate) fn tasks(&self) -> &TaskTracker {
        &self.tasks
    }

    /// A buffer for whoever reads now. Not to be held across anything that waits.
    pub(crate) fn scratch(&self) -> RefMut<'_, Vec<u8>> {
        self.scratch.borrow_mut()
    }

    /// Where the fields of the head stand that is read now. Not to be held across anything that waits.
    pub(crate) fn fields(&self) -> RefMut<'_, Vec<FieldAt>> {
        self.fields.borrow_mut()
    }

    /// The stream whose task runs at this moment, if it is one of HTTP/2 or 3.
    pub(crate) fn stream(&self) -> Option<Rc<Stream>> {
        self.stream.borrow().clone()
    }

    /// The task of `stream` runs from now on; returns whose task ran until now.
    pub(crate) fn enter_stream(&self, stream: Option<Rc<Stream>>) -> Option<Rc<Stream>> {
        self.stream.replace(stream)
    }

    /// HTTP/3 is served from now on, or not any more.
    pub(crate) fn offer_http3(&self, serves: bool) {
        self.http3.set(serves);
        self.metrics.http3_sockets.set(u64::from(serves));
    }

    /// `Alt-Svc`, while HTTP/3 is served.
    pub(crate) fn alt_svc(&self) -> Option<&HeaderValue> {
        self.alt_svc.as_ref().filter(|_| self.http3.get())
    }

    /// Whether connections shall end as soon as their requests have.
    pub(crate) fn is_draining(&self) -> bool {
        self.draining.get()
    }

    /// Whether connections that wait for a request shall end, too.
    pub(crate) fn ends_idle(&self) -> bool {
        self.is_draining() && !self.lingers()
    }

    /// Whether a drain leaves those their time.
    pub(crate) fn lingers(&self) -> bool {
        self.lingers.get()
    }

    /// Asks all connections to end. With `lingers`, those of HTTP/1 are answered a request first if they
    /// have one before they are idle for too long: a client that sends it at this moment must not find its
    /// connection closed.
    pub(crate) fn drain(&self, lingers: bool) {
        self.draining.set(true);
        self.lingers.set(lingers);
        self.tasks.close();
        self.deps.logs.close();
        self.pool().clear();
        self.watch.wake_all();
    }

    /// Adds an access line.
    pub(crate) fn log(&self, write: impl FnOnce(&mut Vec<u8>)) {
        self.metrics.log_lines_dropped.add(self.lines.add(write));
    }

    /// Everything that is done ten times a second.
    pub(crate) fn tick(&self) {
        self.clock.set(((self.deps.now_ms)(), Instant::now()));
        let ticks = self.begun.elapsed().as_millis() / TICK.as_millis();
        let now = Tick::try_from(ticks).unwrap_or(Tick::MAX);
        self.watch.tick(now);
        let table = self.deps.routes.current();
        let seen = (table.epoch().0, table.revision().0);
        let changed = self.routes_seen.replace(seen) != seen;
        if changed {
            // Before the cut, so that who follows a log hears the end of it.
            self.deps.logs.observe(&table, self.now_ms());
        }
        drop(table);
        if changed {
            self.watch.cut(|origin, pass| self.is_over(origin, pass));
        }
        self.watch.expire(|origin, pass| {
            (!self.is_over(origin, Some(pass))).then(|| self.rests_until(pass))
        });
        if changed || now.is_multiple_of(SWEEP) {
            self.pool().sweep(now, |origin| self.is_gone(origin));
            self.traffics.sweep(self.now_ms());
            self.quota.sweep();
        }
        let gauge = |count| u64::try_from(count).unwrap_or(u64::MAX);
        self.metrics.pool_idle.set(gauge(self.pool().len()));
        self.metrics.requests_active.set(gauge(self.quota.requests()));
        self.metrics.handshakes_active.set(gauge(self.quota.handshakes()));
        self.flush_lines();
    }

    /// Hands the access lines to their writer.
    pub(crate) fn flush_lines(&self) {
        self.metrics.log_lines_dropped.add(self.lines.flush());
    }

    /// What `wait` waits for is let in by `pass`, and ends with it.
    pub(crate) fn rests(&self, wait: &Wait, pass: Rc<Pass>) {
        let until = self.rests_until(&pass);
        wait.holds(pass, until);
    }

    /// When a pass is to be looked at again because of time alone.
    fn rests_until(&self, pass: &Pass) -> Tick {
        let Some(until_ms) = pass.until_ms() else { return NEVER };
        let left_ms = u64::try_from(until_ms.saturating_sub(self.now_ms())).unwrap_or(0);
        self.watch.after(Duration::from_millis(left_ms))
    }

    /// Whether this start of the container is over. A paused container keeps its streams.
    pub(crate) fn is_gone(&self, origin: &Origin) -> bool {
        present(&self.deps.routes.current(), origin).is_none()
    }

    /// Whether a request to this start of the container must end: the start is over, or its gate
    /// would not let the request in any more. Whoever came while there was no policy has proved
    /// nothing, and goes when there is one.
    pub(crate) fn is_over(&self, origin: &Origin, pass: Option<&Pass>) -> bool {
        let table = self.deps.routes.current();
        let Some(route) = present(&table, origin) else { return true };
        if !route.gated {
            return false;
        }
        let gate = table.gate(origin.container);
        match pass {
            Some(pass) => !pass.holds(gate, self.now_ms()),
            None => gate.is_some_and(|gate| gate.policy.is_some()),
        }
    }

    /// What the routes were when the streams were last compared with them: while that stays the same,
    /// whoever begins to wait is compared with every change since.
    pub(crate) fn routes_seen(&self) -> Seen {
        self.routes_seen.get()
    }

    /// The wall clock, in milliseconds since the epoch: what it said at the last tick and what has
    /// passed since, both rounded down, so that it may be one millisecond behind.
    pub(crate) fn now_ms(&self) -> i64 {
        let (at_tick, tick) = self.clock.get();
        at_tick.saturating_add(i64::try_from(tick.elapsed().as_millis()).unwrap_or(0))
    }

    /// The wall clock at a moment of this worker's, in milliseconds since the epoch.
    pub(crate) fn at_ms(&self, moment: Instant) -> i64 {
        let (at_tick, tick) = self.clock.get();
        let since = moment.saturating_duration_since(tick).as_millis();
        at_tick.saturating_add(i64::try_from(since).unwrap_or(0))
    }

    /// Writes the present time, such as `2026-11-26T07:30:00.125Z`.
    pub(crate) fn write_time(&self, out: &mut Vec<u8>) {
        let now = self.now_ms();
        let (second, ms) = (now.div_euclid(1000), now.rem_euclid(1000));
        let (known, mut text) = self.second.get();
        if known != second {
            text = date::iso(second);
            self.second.set((second, text));
        }
        let digit = |number: i64| b'0' + u8::try_from(number % 10).unwrap_or(0);
        out.extend_from_slice(&text);
        out.extend_from_slice(&[digit(ms / 100), digit(ms / 10), digit(ms), b'Z']);
    }

    /// The present date as answers have it; exact to a tick.
    pub(crate) fn http_date(&self) -> [u8; 29] {
        let second = self.clock.get().0.div_euclid(1000);
        let (known, mut text) = self.date.get();
        if known != second {
            text = date::imf(second);
            self.date.set((second, text));
        }
        text
    }

    /// A new request id.
    pub(crate) fn next_id(&self) -> RequestId {
        let mut id = [0; 16];
        let (high, low) = id.split_at_mut(8);
        high.copy_from_slice(&self.next_random().to_be_bytes());
        low.copy_from_slice(&self.next_random().to_be_bytes());
        RequestId(id)
    }

    /// The id of a span.
    pub(crate) fn next_span(&self) -> [u8; 8] {
        // A span id of zeros is invalid.
        self.next_random().max(1).to_be_bytes()
    }

    /// Numbers without pattern that nobody may rely on to be secret (`SplitMix64`).
    fn next_random(&self) -> u64 {
        let state = self.random.get().wrapping_add(0x9e37_79b9_7f4a_7c15);
        self.random.set(state);
        let mixed = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }
}

impl fmt::Debug for Worker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Worker").finish_non_exhaustive()
    }
}

/// The route of this start of a container, while it lasts.
fn present(table: &RouteTable, origin: &Origin) -> Option<Route> {
    let route = table.lookup(origin.project, origin.container).ok()?;
    if origin.is_always() {
        return Some(route);
    }
    let lasts = match route.state {
        RouteState::Running { .. } | RouteState::Paused => true,
        RouteState::Starting | RouteState::Stopped | RouteState::Failed => false,
    };
    (lasts && route.generation == origin.generation).then_some(route)
}
