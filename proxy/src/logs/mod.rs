//! What owners can see of the requests to their containers: the service `logs-1`, and `gantry tap`.
//!
//! Each container has one ring of its newest entries in the edge's memory, shared by all workers: a
//! `request` when one begins, a `response` when it ends, an `event` when the container starts or
//! stops. `entry` is what is kept, `ring` how, `redact` what is not kept; `capture` adds fields and
//! bodies where an owner wants them. `query` reads what is asked for, `serve` answers it on the
//! container's `logs` host, `tail` follows a ring.
//!
//! A request pays for two copies of some hundred octets under a lock that nobody holds for long. All
//! rings together have a bound, beyond which those that were not used for longest are emptied. A ring
//! is only ever reached with its own container's id, and nothing of another one is in it.
//!
//! Entries are numbered. A ring begins with the microsecond in which it was made, so that numbers
//! grow beyond a restart of the edge too, and a reader that comes back with an old one is noticed.

mod capture;
mod entry;
mod page;
mod query;
mod redact;
mod ring;
mod serve;
mod tail;

use std::{
    fmt::{self, Write},
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering::Relaxed},
    },
};

use foldhash::fast::RandomState;
use gantry_model::{ContainerId, Domain, FieldError, ProjectId, RouteKey, Target};
use gantry_router::{Route, RouteTable, ServerIndex, Servers};
use http::HeaderMap;

pub use self::tail::LogTail;
use self::{
    capture::Kept,
    entry::{Head, Text},
    query::Follow,
    redact::Redaction,
    ring::{Bounds, Ring, State},
    serve::Reads,
};
pub(crate) use self::{
    capture::{Capture, Capturing},
    entry::{Asked, Ended, Event, Served, Source, TARGET_MAX},
    serve::serve,
    tail::LogBody,
};
use crate::config::Config;

/// Containers whose requests are kept at one time.
const LOGS_MAX: usize = 16_384;

/// How requests are logged for the owners of containers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogsConfig {
    /// Whether they are at all. Without, the service `logs` is not provided.
    pub enabled: bool,
    /// The entries of one container, at most.
    pub entries_per_container: usize,
    /// The octets that the entries of one container take, at most; at least a MiB.
    pub bytes_per_container: usize,
    /// The octets that all entries take, at most; at least what one container may have.
    pub bytes: usize,
    /// Streams of one container's log at one time.
    pub streams_per_container: u32,
    /// Reads of one container's log from one address within a minute.
    pub reads_per_minute: u32,
    /// The octets of each body that are kept where an owner wants to see bodies, at most: an eighth of
    /// `bytes_per_container`, half of which is for what is kept of requests.
    pub body_bytes: usize,
    /// Requests of one container whose bodies are kept while they are under way, at most: what fits into
    /// `bytes_per_container` with two bodies each.
    pub bodies_per_container: u32,
    /// Fields whose values are not shown, beside those that are known to hold credentials.
    pub redact_fields: Vec<String>,
    /// Parameters and members whose values are not shown, beside those that are known.
    pub redact_parameters: Vec<String>,
}

impl Default for LogsConfig {
    fn default() -> Self {
        Self {
            enabled: true,
            entries_per_container: 5_000,
            bytes_per_container: 4 << 20,
            bytes: 64 << 20,
            streams_per_container: 32,
            reads_per_minute: 30,
            body_bytes: 64 << 10,
            bodies_per_container: 32,
            redact_fields: Vec::new(),
            redact_parameters: Vec::new(),
        }
    }
}

impl LogsConfig {
    /// How large `body_bytes` may be: two bodies take at most half of what is kept of requests, and leave
    /// the rest to their fields.
    pub const fn body_bytes_max(&self) -> usize {
        self.bytes_per_container / 8
    }

    /// How large `bodies_per_container` may be: the bodies under way, two of each request, take no more than
    /// all entries of their container.
    pub fn bodies_max(&self) -> u64 {
        let each = self.body_bytes.saturating_mul(2).max(1);
        u64::try_from(self.bytes_per_container / each).unwrap_or(u64::MAX)
    }

    /// What is wrong with it, if something is.
    pub(crate) fn problem(&self) -> Option<&'static str> {
        [
            ("entries_per_container", self.entries_per_container >= 1),
            ("bytes_per_container", self.bytes_per_container >= 1 << 20),
            ("bytes", self.bytes >= self.bytes_per_container),
            ("streams_per_container", self.streams_per_container >= 1),
            ("body_bytes", self.body_bytes <= self.body_bytes_max()),
            ("bodies_per_container", u64::from(self.bodies_per_container) <= self.bodies_max()),
            ("reads_per_minute", (1..=60_000).contains(&self.reads_per_minute)),
        ]
        .into_iter()
        .find_map(|(name, is_enough)| (!is_enough).then_some(name))
    }
}

/// Why a log is not followed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoTail {
    /// Requests are not logged.
    #[error("requests are not logged on this server")]
    Off,
    /// As many read it as may.
    #[error("the log of this container has as many readers as it may")]
    Busy,
    /// What was asked for makes no sense.
    #[error("some parameters are not valid")]
    Invalid(Vec<FieldError>),
}

/// The logs of all containers of this edge; shared by all workers. A cheap handle.
#[derive(Clone)]
pub struct Logs(Arc<Store>);

struct Store {
    enabled: bool,
    bounds: Bounds,
    bytes_max: usize,
    streams_max: u32,
    streams_refused: AtomicU64,
    reads_per_minute: u32,
    kept: Kept,
    redaction: Arc<Redaction>,
    naming: Naming,
    logs: papaya::HashMap<ContainerId, Arc<Log>, RandomState>,
    /// The memory that all rings have taken.
    held: AtomicUsize,
    evictions: AtomicU64,
    /// What the routes were when they were last looked at.
    seen: Mutex<([u8; 16], u64)>,
    closing: AtomicBool,
}

/// How hostnames are spelt here.
#[derive(Debug)]
struct Naming {
    domain: Domain,
    servers: Servers,
    url_port: u16,
}

impl Naming {
    /// The host of a service, with the port if it is not the usual one.
    fn authority(&self, log: &Log, served: Served) -> String {
        let target = match served {
            Served::Kit(service, index) => Target::Kit { service, index, sub: None },
            Served::Port(scheme, port) => Target::Port { scheme, port },
            Served::Container => return String::new(),
        };
        let key = RouteKey::Container {
            // What has entries has had a route.
            server: self.servers.name(log.server.get().copied().unwrap_or_default()),
            project: log.project,
            container: log.container,
            target,
        };
        let host = key.to_hostname(&self.domain);
        match self.url_port {
            443 => host,
            port => format!("{host}:{port}"),
        }
    }
}

/// The log of one container.
#[derive(Debug)]
pub(crate) struct Log {
    project: ProjectId,
    container: ContainerId,
    /// Known as soon as there was a route.
    server: OnceLock<ServerIndex>,
    ring: Mutex<Ring>,
    reads: Mutex<Reads>,
    streams: AtomicU32,
    capturing: AtomicU32,
    /// The container is gone.
    over: AtomicBool,
}

impl Log {
    /// Whether it is the log of this container, which exists.
    pub(crate) fn is_of(&self, container: ContainerId) -> bool {
        self.container == container && !self.is_over()
    }

    fn is_at(&self, route: Option<&Route>) {
        if let Some(route) = route {
            self.server.get_or_init(|| route.server);
        }
    }

    fn is_over(&self) -> bool {
        self.over.load(Relaxed)
    }

    fn ring(&self) -> MutexGuard<'_, Ring> {
        // Nothing panics while it holds this.
        self.ring.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn reads(&self) -> MutexGuard<'_, Reads> {
        self.reads.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Logs {
    /// No entries yet, for an edge with this configuration.
    pub fn new(config: &Config) -> Self {
        let logs = &config.logs;
        Self(Arc::new(Store {
            enabled: logs.enabled,
            bounds: Bounds::new(logs.entries_per_container, logs.bytes_per_container),
            bytes_max: logs.bytes,
            streams_max: logs.streams_per_container,
            streams_refused: AtomicU64::new(0),
            reads_per_minute: logs.reads_per_minute,
            kept: Kept { body_max: logs.body_bytes, active_max: logs.bodies_per_container },
            redaction: Arc::new(Redaction::new(&logs.redact_fields, &logs.redact_parameters)),
            naming: Naming {
                domain: config.domain.clone(),
                servers: config.servers.clone(),
                url_port: config.url_port,
            },
            logs: papaya::HashMap::default(),
            held: AtomicUsize::new(0),
            evictions: AtomicU64::new(0),
            seen: Mutex::default(),
            closing: AtomicBool::new(false),
        }))
    }

    /// Follows the log of a container from outside of the edge, which does not look at who may: the
    /// caller has. `query` is that of a request, `last_event` its `Last-Event-ID`, `now_ms` the wall
    /// clock in milliseconds since the epoch.
    pub fn tail(
        &self,
        project: ProjectId,
        container: ContainerId,
        query: &str,
        last_event: Option<&[u8]>,
        now_ms: i64,
    ) -> Result<LogTail, NoTail> {
        let follow = Follow::parse(query, last_event).map_err(NoTail::Invalid)?;
        let log = self.of(project, container, None, now_ms).ok_or(NoTail::Off)?;
        LogTail::new(self, &log, follow).ok_or(NoTail::Busy)
    }

    /// Writes metrics in the Prometheus text format.
    pub(crate) fn write_metrics(&self, out: &mut String) {
        let Store { logs, held, evictions, streams_refused, .. } = &*self.0;
        // Writing to a string cannot fail.
        _ = write!(
            out,
            "# HELP gantry_proxy_logs_containers Containers whose requests are logged.\n\
             # TYPE gantry_proxy_logs_containers gauge\n\
             gantry_proxy_logs_containers {}\n\
             # HELP gantry_proxy_logs_bytes The memory that logged requests take.\n\
             # TYPE gantry_proxy_logs_bytes gauge\n\
             gantry_proxy_logs_bytes {}\n\
             # HELP gantry_proxy_logs_evictions_total Logs that were emptied to make room.\n\
             # TYPE gantry_proxy_logs_evictions_total counter\n\
             gantry_proxy_logs_evictions_total {}\n\
             # HELP gantry_proxy_logs_streams_refused_total Streams of logs that had too many readers.\n\
             # TYPE gantry_proxy_logs_streams_refused_total counter\n\
             gantry_proxy_logs_streams_refused_total {}\n",
            logs.len(),
            held.load(Relaxed),
            evictions.load(Relaxed),
            streams_refused.load(Relaxed),
        );
    }

    /// Whether requests are logged.
    pub(crate) fn is_enabled(&self) -> bool {
        self.0.enabled
    }

    /// The log of a container that exists; nothing if requests are not logged. `route` says what the
    /// container does, which is no event.
    pub(crate) fn of(
        &self,
        project: ProjectId,
        container: ContainerId,
        route: Option<&Route>,
        now_ms: i64,
    ) -> Option<Arc<Log>> {
        if !self.0.enabled {
            return None;
        }
        let logs = self.0.logs.pin();
        if let Some(log) = logs.get(&container) {
            log.is_at(route);
            return Some(Arc::clone(log));
        }
        if logs.len() >= LOGS_MAX {
            self.forget_unused();
        }
        let born = u64::try_from(now_ms).unwrap_or(0).saturating_mul(1000);
        let log = || {
            Arc::new(Log {
                project,
                container,
                server: OnceLock::new(),
                ring: Mutex::new(Ring::new(born, route.map(State::of), now_ms)),
                reads: Mutex::default(),
                streams: AtomicU32::new(0),
                capturing: AtomicU32::new(0),
                over: AtomicBool::new(false),
            })
        };
        let log = logs.get_or_insert_with(container, log);
        log.is_at(route);
        Some(Arc::clone(log))
    }

    /// Notes that a request has begun, or has ended. Returns the number of the entry.
    pub(crate) fn note(
        &self,
        log: &Log,
        ts_ms: i64,
        asked: &Asked<'_>,
        ended: Option<&Ended>,
    ) -> u64 {
        let (head, text) = asked.entry(ts_ms, ended);
        self.push(log, head, &text)
    }

    /// Notes that something happened to a container.
    pub(crate) fn happened(&self, log: &Log, ts_ms: i64, event: Event) {
        self.push(log, Head::event(ts_ms, event), &Text::default());
    }

    fn push(&self, log: &Log, head: Head, text: &Text<'_>) -> u64 {
        let mut ring = log.ring();
        let before = ring.held();
        ring.push(&self.0.bounds, head, text);
        let (after, seq) = (ring.held(), ring.next().saturating_sub(1));
        drop(ring);
        if before != after {
            self.charge(before, after);
        }
        seq
    }

    /// Begins to keep fields and bodies of the request whose entry has this number.
    pub(crate) fn capture(&self, log: &Arc<Log>, seq: u64, headers: &HeaderMap) -> Capturing {
        let capturing = Capturing::begin(log, &self.0.redaction, self.0.kept, headers);
        self.attach(&capturing, seq);
        capturing
    }

    /// Ties what was kept to the entry of the response.
    pub(crate) fn captured(&self, capturing: &Capturing, seq: u64) {
        self.attach(capturing, seq);
    }

    fn attach(&self, capturing: &Capturing, seq: u64) {
        let (log, capture) = (&capturing.log, &capturing.capture);
        let mut ring = log.ring();
        let before = ring.held();
        ring.attach(&self.0.bounds, seq, capture, capture.weight());
        let after = ring.held();
        drop(ring);
        self.charge(before, after);
    }

    pub(crate) fn redaction(&self) -> &Redaction {
        &self.0.redaction
    }

    /// A ring has taken memory, or has given some back.
    #[cold]
    fn charge(&self, before: usize, after: usize) {
        let more = after.wrapping_sub(before);
        // Wraps around where a ring has become smaller.
        let held = self.0.held.fetch_add(more, Relaxed).wrapping_add(more);
        if after > before && held > self.0.bytes_max {
            self.make_room();
        }
    }

    /// Empties the rings that were not used for longest, until an eighth is free.
    fn make_room(&self) {
        let enough = self.0.bytes_max / 8 * 7;
        let logs = self.0.logs.pin();
        let mut oldest: Vec<_> =
            logs.iter().map(|(_, log)| (log.ring().used_ms, Arc::clone(log))).collect();
        oldest.sort_unstable_by_key(|(used_ms, _)| *used_ms);
        for (_, log) in oldest {
            if self.0.held.load(Relaxed) <= enough {
                break;
            }
            self.empty(&log, Ring::clear);
        }
    }

    fn empty(&self, log: &Log, forget: fn(&mut Ring)) {
        let mut ring = log.ring();
        let before = ring.held();
        forget(&mut ring);
        let after = ring.held();
        drop(ring);
        if before != after {
            self.0.evictions.fetch_add(1, Relaxed);
            self.charge(before, after);
        }
    }

    /// Ends a log that nobody finds any more. Requests that are still under way may hold it: what they
    /// add would be counted, and never given back.
    fn retire(&self, log: &Log) {
        log.over.store(true, Relaxed);
        self.empty(log, Ring::close);
    }

    /// Forgets the older half of the logs that nobody holds.
    #[cold]
    fn forget_unused(&self) {
        let logs = self.0.logs.pin();
        let unused = logs.iter().filter(|(_, log)| Arc::strong_count(log) == 1);
        let mut unused: Vec<_> =
            unused.map(|(container, log)| (log.ring().used_ms, *container)).collect();
        unused.sort_unstable();
        for (_, container) in unused.iter().take(unused.len().div_ceil(2)) {
            if let Some(log) = logs.remove(container) {
                self.retire(log);
            }
        }
    }

    /// Looks at what has become of the containers that have a log. Any worker may, one of them does.
    pub(crate) fn observe(&self, table: &RouteTable, now_ms: i64) {
        // Another worker is at it.
        let Ok(mut seen) = self.0.seen.try_lock() else { return };
        let now = (table.epoch().0, table.revision().0);
        if std::mem::replace(&mut *seen, now) == now {
            return;
        }
        let logs = self.0.logs.pin();
        for (container, log) in &logs {
            if let Ok(route) = table.lookup(log.project, *container) {
                self.observe_one(log, &route, now_ms);
                continue;
            }
            if log.ring().state.is_none() {
                // Asked for before there was a route.
                continue;
            }
            logs.remove(container);
            self.retire(log);
        }
    }

    fn observe_one(&self, log: &Log, route: &Route, now_ms: i64) {
        let state = State::of(route);
        // What it was at the first look is no event.
        let Some(before) = log.ring().state.replace(state) else { return };
        if before == state {
            return;
        }
        let event = match (before, state) {
            (State::Paused, State::Running(_)) => Event::Resumed,
            (_, State::Running(_)) => Event::Started,
            (_, State::Starting) => Event::Starting,
            (_, State::Paused) => Event::Paused,
            (_, State::Stopped) => Event::Stopped,
            (_, State::Failed) => Event::Failed,
        };
        self.happened(log, now_ms, event);
    }

    /// Ends all streams: the edge stops.
    pub(crate) fn close(&self) {
        self.0.closing.store(true, Relaxed);
    }

    fn is_closing(&self) -> bool {
        self.0.closing.load(Relaxed)
    }
}

impl fmt::Debug for Logs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Logs").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bodies_fit_into_what_their_container_may_have() {
        let config = |bytes_per_container, body_bytes, bodies_per_container| LogsConfig {
            bytes_per_container,
            body_bytes,
            bodies_per_container,
            ..LogsConfig::default()
        };
        assert_eq!(LogsConfig::default().problem(), None);
        assert_eq!(config(4 << 20, 512 << 10, 4).problem(), None);
        assert_eq!(config(4 << 20, (512 << 10) + 1, 1).problem(), Some("body_bytes"));
        assert_eq!(config(4 << 20, 512 << 10, 5).problem(), Some("bodies_per_container"));
        assert_eq!(config(1 << 20, 64 << 10, 32).problem(), Some("bodies_per_container"));
    }
}
