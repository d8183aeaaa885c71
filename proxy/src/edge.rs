//! The edge as a whole: it starts, it tells where it listens, it drains.

use std::{
    io,
    net::{SocketAddr, TcpListener},
    rc::Rc,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering::Relaxed},
        mpsc::SyncSender,
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use tokio::{
    runtime::LocalOptions,
    time::{MissedTickBehavior, timeout},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    access_log::{self, LineBuffer},
    admin,
    config::{Config, Rate, UpstreamSource},
    deps::Deps,
    guard, http3,
    limits::Counts,
    listen::{self, Purpose},
    metrics::Metrics,
    quic,
    sockets::Sockets,
    tls::Tls,
    upstream::transparent_socket,
    watch::TICK,
    worker::{Given, Worker},
};

/// Why the edge does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// An address cannot be listened on.
    #[error("cannot listen on {address}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// A listener that only this machine may reach has an address that others reach, too.
    #[error("{0} is not a loopback address")]
    NotLoopback(SocketAddr),
    /// A limit is such that nothing could be served.
    #[error("the limit {0} is too small")]
    Limit(&'static str),
    /// Connections cannot be made from the addresses of clients.
    #[error("cannot connect to containers from the addresses of clients: CAP_NET_ADMIN is needed")]
    Transparent(#[source] io::Error),
    /// TLS cannot be set up.
    #[error("cannot set up TLS")]
    Tls(#[source] rustls::Error),
    /// The access log cannot be opened.
    #[error("cannot open the access log")]
    AccessLog(#[source] io::Error),
    /// A thread or its runtime cannot be made.
    #[error("cannot start a worker")]
    Worker(#[source] io::Error),
    /// The system gives no random numbers.
    #[error("the system gives no random numbers")]
    Random(#[source] getrandom::Error),
}

/// Where the edge listens; ports that were left to the system are filled in.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Addresses {
    /// HTTPS.
    pub https: Vec<SocketAddr>,
    /// Redirects.
    pub http: Vec<SocketAddr>,
    /// Requests without TLS.
    pub plain: Vec<SocketAddr>,
    /// Metrics and health.
    pub admin: Vec<SocketAddr>,
}

/// The running edge. Dropping it ends it at once; [`Edge::drain`] ends it in order.
#[derive(Debug)]
pub struct Edge {
    addresses: Addresses,
    stop: Arc<Stop>,
    workers: Vec<JoinHandle<()>>,
    admin: Option<admin::Admin>,
    access_log: Option<JoinHandle<()>>,
    /// What it listens on, for the next process.
    sockets: Sockets,
}

/// When to begin, and when to stop.
#[derive(Debug, Default)]
struct Stop {
    /// Cancelled when connections are accepted.
    begin: CancellationToken,
    token: CancellationToken,
    /// The earliest counts.
    deadline: Mutex<Option<Instant>>,
    /// Whether connections that wait for a request are left their time: another process goes on.
    lingers: AtomicBool,
    /// What serves HTTP/3, and what ends it.
    http3: TaskTracker,
    http3_cut: CancellationToken,
}

impl Stop {
    fn deadline(&self) -> Option<Instant> {
        *self.deadline.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn stop(&self, within: Duration) {
        let end = Instant::now() + within;
        let mut deadline = self.deadline.lock().unwrap_or_else(PoisonError::into_inner);
        *deadline = Some(deadline.map_or(end, |deadline| deadline.min(end)));
        drop(deadline);
        self.http3.close();
        self.token.cancel();
    }
}

/// Hurries an edge that drains.
#[derive(Clone, Debug)]
pub struct Stopper(Arc<Stop>);

impl Stopper {
    /// Whatever was said before: everything ends within this time, and connections without a request at once.
    pub fn stop(&self, within: Duration) {
        self.0.lingers.store(false, Relaxed);
        self.0.stop(within);
    }

    /// Waits until no client is served over HTTP/3 any more, and after this time ends those that still are:
    /// their sockets are needed.
    pub async fn end_http3(&self, within: Duration) {
        if timeout(within, self.0.http3.wait()).await.is_err() {
            self.0.http3_cut.cancel();
            self.0.http3.wait().await;
        }
    }
}

impl Edge {
    /// Binds all addresses and starts the workers. When it returns, connections are accepted.
    pub fn start(config: Config, deps: Deps) -> Result<Self, StartError> {
        let edge = Self::prepare(config, deps, Sockets::default())?;
        edge.begin()?;
        Ok(edge)
    }

    /// The same with the sockets of the process before where there are some on the wanted addresses, and up to
    /// the moment before the first connection: [`Edge::begin`] has them accepted.
    pub fn prepare(config: Config, deps: Deps, mut inherited: Sockets) -> Result<Self, StartError> {
        check(&config)?;
        let workers = config.workers.max(1);
        let mut addresses = Addresses::default();
        let mut kept = Sockets::default();
        let mut sockets: Vec<OfWorker> = Vec::new();
        sockets.resize_with(workers, OfWorker::default);
        for (purpose, wanted, bound) in [
            (Purpose::Https, &config.listen_https, &mut addresses.https),
            (Purpose::Redirect, &config.listen_http, &mut addresses.http),
            (Purpose::Plain, &config.listen_plain, &mut addresses.plain),
        ] {
            for &address in wanted {
                let failed = |source| StartError::Listen { address, source };
                let listeners = inherited.listen(address, workers, &mut kept).map_err(failed)?;
                if let Some((_, first)) = listeners.first() {
                    bound.push(first.local_addr().map_err(failed)?);
                }
                for (worker, socket) in listeners {
                    if let Some(of_worker) = sockets.get_mut(worker) {
                        of_worker.tcp.push((socket, purpose));
                    }
                }
            }
        }
        if config.http3 {
            for address in &addresses.https {
                bind_quic(*address, &mut inherited, &mut kept, &mut sockets);
            }
        }
        let mut of_admin = (Vec::new(), Vec::new());
        for &address in &config.listen_admin {
            let failed = |source| StartError::Listen { address, source };
            for (_, socket) in inherited.listen(address, 1, &mut kept).map_err(failed)? {
                of_admin.1.push(socket.local_addr().map_err(failed)?);
                of_admin.0.push(socket);
            }
        }
        let tickets = deps.tickets.clone().map(|tickets| tickets as _);
        let tls =
            Tls::new(&(Arc::clone(&deps.certificates) as _), tickets).map_err(StartError::Tls)?;
        let log = access_log::start(&config.access_log).map_err(StartError::AccessLog)?;
        let (lines, access_log) = log.unzip();
        let metrics: Vec<_> = sockets.iter().map(|_| Arc::<Metrics>::default()).collect();
        let stop = Arc::<Stop>::default();
        let draining = stop.token.clone();
        let admin = admin::start(of_admin, &deps, metrics.clone(), draining)?;
        addresses.admin = admin.addresses().to_vec();

        let (workers_running, admin) = (Vec::new(), Some(admin));
        let mut edge =
            Self { addresses, stop, workers: workers_running, admin, access_log, sockets: kept };
        let guard =
            guard::Shared::new(&deps.session_key, &config.limits).map_err(StartError::Random)?;
        let common = Common {
            guard: Arc::new(guard),
            counts: Arc::new(Counts::new(&config.limits, workers)),
            config: Arc::new(config),
            deps,
            tls,
            lines,
            stop: Arc::clone(&edge.stop),
        };
        for (number, (sockets, metrics)) in sockets.into_iter().zip(metrics).enumerate() {
            edge.workers.push(start_worker(number, common.clone(), sockets, metrics)?);
        }
        Ok(edge)
    }

    /// Accepts connections from now on. Of those of HTTP/3 the ones that another process has stay with it.
    pub fn begin(&self) -> Result<(), StartError> {
        self.sockets.turn().map_err(StartError::Worker)?;
        self.stop.begin.cancel();
        Ok(())
    }

    /// What it listens on, for the process that is to follow.
    pub fn sockets(&self) -> io::Result<Sockets> {
        self.sockets.share()
    }

    /// What hurries it while it drains.
    pub fn stopper(&self) -> Stopper {
        Stopper(Arc::clone(&self.stop))
    }

    /// Leaves what comes to another process that has the sockets, too, as [`Edge::drain`], but what waits for a
    /// request may wait on: its next one is answered, and then the connection ends.
    pub async fn hand_over(mut self, deadline: Duration) {
        self.stop.lingers.store(true, Relaxed);
        // The other's metrics count from now on.
        drop(self.admin.take());
        self.drain(deadline).await;
    }

    /// Where the edge listens.
    pub const fn addresses(&self) -> &Addresses {
        &self.addresses
    }

    /// Stops accepting, lets what runs come to its end (HTTP/1 connections close after their
    /// request, clients of HTTP/2 and 3 are told to go) and ends what is left after `deadline`. Must not be
    /// called on a runtime that cannot run blocking tasks.
    pub async fn drain(mut self, deadline: Duration) {
        self.stop.stop(deadline);
        self.sockets = Sockets::default();
        let workers = std::mem::take(&mut self.workers);
        let access_log = self.access_log.take();
        let ended = tokio::task::spawn_blocking(move || {
            let panicked = workers.into_iter().map(JoinHandle::join).filter(Result::is_err).count();
            if panicked > 0 {
                tracing::error!(panicked, "workers had ended by a panic");
            }
            // All workers have dropped their ends of its queue, so that it ends, too.
            access_log.map(JoinHandle::join)
        });
        if ended.await.is_err() {
            tracing::error!("cannot wait for the workers");
        }
        drop(self.admin.take());
    }
}

impl Drop for Edge {
    fn drop(&mut self) {
        // Workers that wait for their beginning end, too.
        self.stop.stop(Duration::ZERO);
        self.stop.begin.cancel();
    }
}

fn check(config: &Config) -> Result<(), StartError> {
    let private = config.listen_plain.iter().chain(&config.listen_admin);
    if let Some(address) = private.into_iter().find(|address| !address.ip().is_loopback()) {
        return Err(StartError::NotLoopback(*address));
    }
    if let Some(name) = config.logs.problem() {
        return Err(StartError::Limit(name));
    }
    if config.upstream_source == UpstreamSource::Client {
        drop(transparent_socket().map_err(StartError::Transparent)?);
    }
    let limits = &config.limits;
    for (name, is_enough) in [
        ("head_bytes_max", limits.head_bytes_max >= 1024),
        ("fields_max", limits.fields_max >= 8),
        ("connections_max", limits.connections_max >= 1),
        ("connections_per_address_max", limits.connections_per_address_max >= 1),
        ("handshakes_max", limits.handshakes_max >= 1),
        ("handshakes_per_address_max", limits.handshakes_per_address_max >= 1),
        ("handshake_rate", limits.handshake_rate.is_none_or(Rate::is_some)),
        ("request_rate", limits.request_rate.is_none_or(Rate::is_some)),
        ("requests_active_max", limits.requests_active_max >= 1),
        ("requests_per_container_max", limits.requests_per_container_max >= 1),
        ("requests_max", limits.requests_max >= 1),
        ("streams_max", (1..=1_000).contains(&limits.streams_max)),
        ("frames_max", limits.frames_max >= 16),
        ("resets_max", limits.resets_max >= 1),
        ("password_failures_max", limits.password_failures_max >= 1),
        ("credential_checks_max", (1..=256).contains(&limits.credential_checks_max)),
    ] {
        if !is_enough {
            return Err(StartError::Limit(name));
        }
    }
    Ok(())
}

/// What all workers are given.
#[derive(Clone)]
struct Common {
    config: Arc<Config>,
    deps: Deps,
    tls: Tls,
    lines: Option<SyncSender<Vec<u8>>>,
    counts: Arc<Counts>,
    guard: Arc<guard::Shared>,
    stop: Arc<Stop>,
}

/// What one worker listens on.
#[derive(Debug, Default)]
struct OfWorker {
    tcp: Vec<(TcpListener, Purpose)>,
    quic: Vec<quic::Seat>,
}

/// Gives the workers sockets for HTTP/3 on `address`. Every client can do without, so that the edge
/// serves without, too, when the port is taken.
fn bind_quic(
    address: SocketAddr,
    inherited: &mut Sockets,
    kept: &mut Sockets,
    workers: &mut [OfWorker],
) {
    match inherited.listen_quic(address, workers.len(), kept) {
        Ok(seats) => {
            for (worker, seat) in seats {
                if let Some(worker) = workers.get_mut(worker) {
                    worker.quic.push(seat);
                }
            }
        }
        Err(error) => tracing::error!(%address, %error, "HTTP/3 is not served: no UDP port"),
    }
}

fn start_worker(
    number: usize,
    common: Common,
    sockets: OfWorker,
    metrics: Arc<Metrics>,
) -> Result<JoinHandle<()>, StartError> {
    let mut seed = [0; 8];
    getrandom::fill(&mut seed).map_err(StartError::Random)?;
    let seed = u64::from_ne_bytes(seed);
    let thread = std::thread::Builder::new().name(format!("gantry-edge-{number}"));
    let run = move || {
        let mut builder = tokio::runtime::Builder::new_current_thread();
        match builder.enable_all().build_local(LocalOptions::default()) {
            Ok(runtime) => runtime.block_on(run_worker(common, sockets, metrics, seed)),
            Err(error) => tracing::error!(%error, "a worker has no runtime"),
        }
    };
    thread.spawn(run).map_err(StartError::Worker)
}

/// Serves until the stop, then until all connections have ended or the deadline has come.
async fn run_worker(common: Common, sockets: OfWorker, metrics: Arc<Metrics>, seed: u64) {
    let Common { config, deps, tls, lines, counts, guard, stop } = common;
    let lines = LineBuffer::new(lines);
    let worker =
        Rc::new(Worker::new(Given { config, deps, tls, lines, metrics, counts, guard, seed }));
    stop.begin.cancelled().await;
    for seat in sockets.quic {
        let (until, cut) = (stop.token.clone(), stop.http3_cut.clone());
        let accept = http3::accept(Rc::clone(&worker), seat, until, cut);
        // The trackers wait for it.
        drop(worker.tasks().spawn_local(stop.http3.track_future(accept)));
    }
    for (socket, purpose) in sockets.tcp {
        let accept = listen::accept(Rc::clone(&worker), socket, purpose, stop.token.clone());
        // The tracker waits for it.
        drop(worker.tasks().spawn_local(accept));
    }
    let mut ticks = tokio::time::interval(TICK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = ticks.tick() => worker.tick(),
            () = stop.token.cancelled(), if !worker.is_draining() => {
                worker.drain(stop.lingers.load(Relaxed));
            }
            () = worker.tasks().wait(), if worker.is_draining() => break,
        }
        if !worker.is_draining() {
            continue;
        }
        if worker.lingers() && !stop.lingers.load(Relaxed) {
            worker.drain(false);
        }
        if stop.deadline().is_none_or(|deadline| deadline <= Instant::now()) {
            break;
        }
    }
    worker.flush_lines();
}

#[cfg(test)]
mod tests {
    use gantry_router::Servers;

    use super::*;
    use crate::{
        config::{AccessLog, Limits},
        logs::LogsConfig,
    };

    #[test]
    fn limits_that_let_nothing_pass_are_named() {
        let config = |change: fn(&mut Limits)| {
            let mut limits = Limits::default();
            change(&mut limits);
            Config {
                listen_https: Vec::new(),
                http3: false,
                listen_http: Vec::new(),
                listen_plain: Vec::new(),
                listen_admin: Vec::new(),
                workers: 1,
                domain: "gantry.localhost".parse().unwrap(),
                servers: Servers::default(),
                url_port: 443,
                proxy_protocol_from: Vec::new(),
                upstream_source: UpstreamSource::Edge,
                container_networks: Vec::new(),
                limits,
                access_log: AccessLog::Off,
                logs: LogsConfig::default(),
            }
        };
        assert!(check(&config(|_| {})).is_ok());
        for (name, change) in [
            ("connections_max", (|limits| limits.connections_max = 0) as fn(&mut Limits)),
            ("requests_per_container_max", |limits| limits.requests_per_container_max = 0),
            ("request_rate", |limits| {
                limits.request_rate = Some(Rate { per_second: 10, burst: 0 });
            }),
        ] {
            let error = check(&config(change)).unwrap_err();
            assert!(matches!(error, StartError::Limit(limit) if limit == name), "{error}");
        }
    }
}
