//! The listener, and the sessions that came through it.

use std::{
    borrow::Cow,
    fmt::Write as _,
    io,
    net::SocketAddr,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use russh::{
    MethodKind, MethodSet, Preferred, SshId, cipher, compression, kex,
    keys::{PrivateKey, ssh_key::private::Ed25519Keypair},
    mac,
    server::{Config, run_stream},
};
use rustix::{
    net::sockopt::{set_socket_keepalive, set_tcp_keepcnt, set_tcp_keepidle, set_tcp_keepintvl},
    process::{Resource, getrlimit},
};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::Semaphore,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    conn::{Admitted, Conn},
    doors::{Balancers, Doors, Refusal, Visit, Ways, Witness},
    flow::WINDOW,
    gate::{Gate, Waiting},
    links::Links,
    session::Callbacks,
    sessions::Sessions,
    stream::Cuttable,
};

/// Every refusal of a key comes so long after it was offered, whatever the reason.
const REJECTION: Duration = Duration::from_millis(10);
/// Keys that may be refused: agents offer all they have. The one more is `none`, by which clients ask which
/// methods there are.
const REFUSALS_MAX: usize = 30 + 1;
/// How often the kernel asks a silent peer's machine whether it is there, and how often in vain. A machine that
/// sleeps may come back, and a dead one holds some places and descriptors, of its own container. What was sent to it
/// and is not acknowledged, the library's questions among that, has about as long by the kernel's rules.
const PROBES: (Duration, u32) = (Duration::from_mins(1), 15);
/// How long sessions have to end when Gantry does.
const FAREWELL: Duration = Duration::from_secs(1);
/// How long to wait after a failed accept, such as for want of descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// What is allowed to whoever has not logged in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// How long a connection may take to log in.
    pub grace: Duration,
    /// Connections of one address at the same time; a network of 64 bits of IPv6 counts as one.
    pub strangers_of_one: usize,
    /// Connections of all addresses at the same time; who comes then takes the place of another one.
    pub strangers: usize,
}

impl Default for Limits {
    /// 20 seconds, 10 connections of one address, 1000 of all.
    fn default() -> Self {
        Self { grace: Duration::from_secs(20), strangers_of_one: 10, strangers: 1000 }
    }
}

/// Bounds of a connection that has logged in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// How long a client may take to answer a channel that is opened to it, before the connection inside that is meant
    /// for it is given up.
    pub answer: Duration,
    /// How long what came on a channel may take to arrive inside once the client has closed that, and a process
    /// without a terminal to end by itself.
    pub arrival: Duration,
    /// How long a listener in a container that is awake may take to begin; its connection stands still meanwhile.
    pub listen: Duration,
    /// How many channels of a connection may have ended by the server's close: of each something is kept until the
    /// connection ends, and there are no more then.
    pub closed_channels: usize,
    /// How long a client is silent before it is asked whether it is there.
    pub silence: Duration,
}

impl Default for Bounds {
    /// 30 seconds, 30 seconds, 5 seconds, 10,000 channels, a minute.
    fn default() -> Self {
        let half = Duration::from_secs(30);
        let (listen, silence) = (Duration::from_secs(5), Duration::from_mins(1));
        Self { answer: half, arrival: half, listen, closed_channels: 10_000, silence }
    }
}

/// What all connections share.
pub(crate) struct Shared {
    pub(crate) doors: Arc<dyn Doors>,
    pub(crate) ways: Arc<dyn Ways>,
    pub(crate) witness: Option<Arc<dyn Witness>>,
    pub(crate) links: Links,
    pub(crate) sessions: Sessions,
    pub(crate) metrics: Metrics,
    pub(crate) means: Means,
    pub(crate) bounds: Bounds,
    shutdown: CancellationToken,
}

impl Shared {
    /// Tells of a visit.
    pub(crate) fn tell(&self, conn: &Conn, admitted: &Admitted, visit: Visit) {
        if let Some(witness) = &self.witness {
            witness.hear(&conn.visitor(admitted), visit);
        }
    }

    /// Tells of somebody who has the right key and is not let in.
    pub(crate) fn refuse(&self, conn: &Conn, admitted: &Admitted, refusal: Refusal) {
        // However often it is tried.
        if !conn.is_first_refusal(admitted.key) {
            return;
        }
        tracing::info!(
            target: "audit",
            client = %conn.peer,
            container = %admitted.container,
            user = %admitted.shown_user().escape_debug(),
            key = %admitted.key,
            why = %refusal,
            "ssh refused"
        );
        self.tell(conn, admitted, Visit::Refused(refusal));
    }
}

/// What everything runs by.
#[derive(Debug)]
pub(crate) struct Means {
    /// Everything that runs for connections.
    pub(crate) tasks: TaskTracker,
    /// Ends all connections at once.
    pub(crate) cut: CancellationToken,
    /// Places for channels of all connections, since each takes descriptors.
    pub(crate) channels: Arc<Semaphore>,
    /// What all connections hold of what came and was not used, in octets.
    pub(crate) held: Arc<AtomicUsize>,
    /// Channels of all connections that were closed from here first, of which the library keeps something.
    pub(crate) closed_here: AtomicUsize,
}

/// For two thirds of the descriptors that this process may have: a channel keeps three, and has as many more for
/// the moment in which they are on their way inside.
fn channels_max() -> usize {
    let limit = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    usize::try_from(limit / 9).unwrap_or(usize::MAX).clamp(16, 20_000)
}

/// What is counted.
#[derive(Debug, Default)]
pub struct Metrics {
    /// Connections at this moment, those that have not logged in included.
    connections: AtomicU64,
    offers: AtomicU64,
    logins: AtomicU64,
    failures: AtomicU64,
    refused: AtomicU64,
    cut: AtomicU64,
    received: AtomicU64,
    sent: AtomicU64,
}

impl Metrics {
    pub(crate) fn offered(&self) {
        self.offers.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn moved(&self, received: u64, sent: u64) {
        self.received.fetch_add(received, Ordering::Relaxed);
        self.sent.fetch_add(sent, Ordering::Relaxed);
    }

    /// In the text format of Prometheus.
    pub fn render(&self, out: &mut String) {
        let rows = [
            ("gantry_ssh_connections", "gauge", &self.connections),
            ("gantry_ssh_offered_keys_total", "counter", &self.offers),
            ("gantry_ssh_logins_total", "counter", &self.logins),
            ("gantry_ssh_ended_without_login_total", "counter", &self.failures),
            ("gantry_ssh_refused_connections_total", "counter", &self.refused),
            ("gantry_ssh_sessions_cut_total", "counter", &self.cut),
            ("gantry_ssh_received_bytes_total", "counter", &self.received),
            ("gantry_ssh_sent_bytes_total", "counter", &self.sent),
        ];
        for (name, kind, value) in rows {
            let value = value.load(Ordering::Relaxed);
            // Writing to a string cannot fail.
            let _written = writeln!(out, "# TYPE {name} {kind}\n{name} {value}");
        }
    }
}

/// What it calls itself. The comment is for clients that ask by it in which order SFTP's SYMLINK has its
/// paths: in OpenSSH's, not in that of the draft. A name that began with it would be believed to be it.
const IDENTITY: &str = "SSH-2.0-Gantry (files as OpenSSH_9.9)";

/// The SSH front of one server.
pub struct Front {
    shared: Arc<Shared>,
    config: Arc<Config>,
    gate: Arc<Gate>,
    balancers: Option<Arc<dyn Balancers>>,
    grace: Duration,
    host_key: String,
    /// Cancelled when no more connections are taken; those that there are go on.
    closing: CancellationToken,
    /// The connections, those that have not logged in included.
    connections: TaskTracker,
}

impl Front {
    /// A front whose host key (ed25519) is made from these octets, which nobody else may know and which
    /// stay the same, since clients remember the key.
    pub fn new(
        seed: &[u8; 32],
        doors: Arc<dyn Doors>,
        ways: Arc<dyn Ways>,
        witness: Option<Arc<dyn Witness>>,
        shutdown: &CancellationToken,
    ) -> Self {
        let shared = Shared {
            doors,
            ways,
            witness,
            links: Links::default(),
            sessions: Sessions::default(),
            metrics: Metrics::default(),
            means: Means {
                tasks: TaskTracker::new(),
                cut: CancellationToken::new(),
                channels: Arc::new(Semaphore::new(channels_max())),
                held: Arc::default(),
                closed_here: AtomicUsize::new(0),
            },
            bounds: Bounds::default(),
            shutdown: shutdown.child_token(),
        };
        let key = PrivateKey::from(Ed25519Keypair::from_seed(seed));
        Self {
            host_key: key.public_key().to_openssh().unwrap_or_default(),
            shared: Arc::new(shared),
            config: Arc::new(config(key, Bounds::default().silence)),
            gate: Arc::new(Gate::new(Limits::default())),
            balancers: None,
            grace: Limits::default().grace,
            closing: CancellationToken::new(),
            connections: TaskTracker::new(),
        }
    }

    /// With other limits than the default ones.
    #[must_use]
    pub fn limited(mut self, limits: Limits) -> Self {
        self.gate = Arc::new(Gate::new(limits));
        self.grace = limits.grace;
        self
    }

    /// With other bounds than the default ones.
    #[must_use]
    pub fn bounded(mut self, bounds: Bounds) -> Self {
        // Before it runs, nobody else has them.
        if let (Some(shared), Some(config)) =
            (Arc::get_mut(&mut self.shared), Arc::get_mut(&mut self.config))
        {
            shared.bounds = bounds;
            config.keepalive_interval = Some(bounds.silence);
        }
        self
    }

    /// With balancers before it.
    #[must_use]
    pub fn behind(mut self, balancers: Arc<dyn Balancers>) -> Self {
        self.balancers = Some(balancers);
        self
    }

    pub(crate) fn shared(&self) -> &Shared {
        &self.shared
    }

    /// Its host key, as in a file `known_hosts` after the name.
    pub fn host_key(&self) -> &str {
        &self.host_key
    }

    /// Its counts.
    pub fn render_metrics(&self, out: &mut String) {
        self.shared.metrics.render(out);
        let held = self.shared.means.held.load(Ordering::Relaxed);
        // Writing to a string cannot fail.
        let _written =
            writeln!(out, "# TYPE gantry_ssh_held_bytes gauge\ngantry_ssh_held_bytes {held}");
    }

    /// Takes no more connections, because another process does; sessions go on to their end or the shutdown.
    pub fn close(&self) {
        self.closing.cancel();
        self.connections.close();
    }

    /// Waits until the last session has ended after a [`Front::close`].
    pub async fn ended(&self) {
        self.connections.wait().await;
    }

    /// Takes connections until the shutdown, and then ends all sessions; each is told.
    pub async fn run(&self, listener: TcpListener) {
        let shared = &self.shared;
        shared.means.tasks.spawn(sweep(Arc::clone(shared)));
        let accepting = self.closing.run_until_cancelled(self.accept(&listener));
        shared.shutdown.run_until_cancelled(accepting).await;
        drop(listener);
        // After a close sessions go on meanwhile.
        shared.shutdown.cancelled().await;
        shared.sessions.end_all();
        shared.means.tasks.close();
        if tokio::time::timeout(FAREWELL, shared.sessions.all_gone()).await.is_err() {
            tracing::debug!("some SSH clients have not said goodbye");
        }
        shared.means.cut.cancel();
        if tokio::time::timeout(FAREWELL, shared.means.tasks.wait()).await.is_err() {
            tracing::warn!("something of SSH does not end; it ends with the process");
        }
    }

    async fn accept(&self, listener: &TcpListener) {
        let turned_away = Arc::new(TurnedAway::default());
        while !self.shared.shutdown.is_cancelled() {
            let (stream, peer) = match listener.accept().await {
                Ok(accepted) => accepted,
                Err(error) => {
                    if !is_of_the_peer(&error) {
                        tracing::warn!(%error, "cannot take an SSH connection");
                        tokio::time::sleep(ACCEPT_PAUSE).await;
                    }
                    continue;
                }
            };
            let balancers = self.balancers.as_ref();
            let carried = balancers.filter(|all| all.has(peer.ip().to_canonical()));
            let waiting = match carried {
                // Of a balancer it is the client that counts, and who that is shows only later.
                Some(_) => Some(self.gate.enter_carried()),
                None => self.gate.enter(peer.ip(), Instant::now()),
            };
            let Some(waiting) = waiting else {
                self.shared.metrics.refused.fetch_add(1, Ordering::Relaxed);
                turned_away.note(peer, TOO_MANY);
                continue;
            };
            let (shared, config) = (Arc::clone(&self.shared), Arc::clone(&self.config));
            let (gate, carried) = (Arc::clone(&self.gate), carried.cloned());
            let turned_away = Arc::clone(&turned_away);
            let until = tokio::time::Instant::now() + self.grace;
            let stranger = Stranger { peer, local: None, waiting, until };
            let tasks = shared.means.tasks.clone();
            let counted = self.connections.track_future(async move {
                shared.metrics.connections.fetch_add(1, Ordering::Relaxed);
                let mut stream = stream;
                let stranger = match carried {
                    Some(balancers) => stranger.named(&*balancers, &mut stream, &gate).await,
                    None => Ok(stranger),
                };
                match stranger {
                    Ok(stranger) => serve(&shared, config, stream, stranger).await,
                    Err((peer, why)) => {
                        shared.metrics.refused.fetch_add(1, Ordering::Relaxed);
                        turned_away.note(peer, why);
                    }
                }
                shared.metrics.connections.fetch_sub(1, Ordering::Relaxed);
            });
            tasks.spawn(counted);
        }
    }
}

fn is_of_the_peer(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset, Interrupted};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset | Interrupted)
}

/// Ends sessions as soon as their container, its key or its rules have changed.
async fn sweep(shared: Arc<Shared>) {
    let mut changes = shared.doors.changes();
    let shutdown = shared.shutdown.clone();
    while let Some(Ok(())) = shutdown.run_until_cancelled(changes.changed()).await {
        let ended = shared.sessions.sweep();
        shared.metrics.cut.fetch_add(ended, Ordering::Relaxed);
    }
}

/// Why a connection is not taken.
const TOO_MANY: &str = "too many of its address have not logged in";
const MADE_ROOM: &str = "it made room for others that come to log in";

/// Those that were turned away before anything was said. Strangers could fill a log with them.
#[derive(Default)]
struct TurnedAway(Mutex<Untold>);

#[derive(Default)]
struct Untold {
    count: u64,
    told: Option<Instant>,
}

impl TurnedAway {
    /// Has the log tell of one each second, and of how many others there were.
    fn note(&self, peer: SocketAddr, why: &str) {
        let mut untold = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        untold.count += 1;
        if untold.told.is_none_or(|told| told.elapsed() >= Duration::from_secs(1)) {
            let connections = std::mem::take(&mut untold.count);
            tracing::info!(target: "audit", client = %peer, why, connections, "ssh refused");
            untold.told = Some(Instant::now());
        }
    }
}

/// Whoever has just come.
struct Stranger {
    peer: SocketAddr,
    /// Where the client has connected to, if that is not here.
    local: Option<SocketAddr>,
    waiting: Waiting,
    /// When it must have logged in.
    until: tokio::time::Instant,
}

impl Stranger {
    /// With the client in whose name a balancer comes; otherwise who is not taken (the balancer, while its
    /// client is not known) and why.
    async fn named(
        self,
        balancers: &dyn Balancers,
        stream: &mut TcpStream,
        gate: &Arc<Gate>,
    ) -> Result<Self, (SocketAddr, &'static str)> {
        let balancer = self.peer;
        let client = tokio::select! {
            client = tokio::time::timeout_at(self.until, balancers.client(stream)) => client,
            () = self.waiting.lost() => return Err((balancer, MADE_ROOM)),
        };
        let client =
            client.map_err(|_elapsed| (balancer, "a balancer did not say for whom it comes"))?;
        let client = client.map_err(|error| {
            tracing::debug!(%balancer, error = %gantry_model::Chain(&error), "no header");
            (balancer, "a balancer must say for whom it comes, by the PROXY protocol")
        })?;
        let peer = client.map_or(balancer, |(peer, _)| peer);
        // Its place becomes the client's.
        drop(self.waiting);
        let waiting = gate.enter(peer.ip(), Instant::now()).ok_or((peer, TOO_MANY))?;
        let local = client.map(|(_, local)| local);
        Ok(Self { peer, local, waiting, until: self.until })
    }
}

async fn serve(shared: &Arc<Shared>, config: Arc<Config>, stream: TcpStream, stranger: Stranger) {
    let Stranger { peer, local, waiting, until } = stranger;
    let Ok(here) = prepare(&stream) else { return };
    let conn = Conn::new(Arc::clone(shared), peer, local.unwrap_or(here));
    let deadline = {
        let conn = Arc::clone(&conn);
        shared.means.tasks.spawn(async move {
            tokio::select! {
                // Whoever has just logged in stays.
                biased;
                () = conn.is_in.cancelled() => {}
                () = waiting.lost() => conn.cut_for(MADE_ROOM),
                () = tokio::time::sleep_until(until) => {
                    conn.cut_for("it has not logged in in time");
                }
            }
        })
    };
    let stream = Cuttable::new(stream, &conn.cut, conn.pause.clone());
    let ended = match run_stream(config, stream, Callbacks::new(Arc::clone(&conn))).await {
        Ok(session) => session.await,
        Err(error) => Err(error),
    };
    deadline.abort();
    conn.cut.cancel();
    shared.sessions.remove(&conn);
    conn.over(ended.err().map(|error| error.to_string()).as_deref());
    let counter =
        if conn.is_in.is_cancelled() { &shared.metrics.logins } else { &shared.metrics.failures };
    counter.fetch_add(1, Ordering::Relaxed);
}

fn prepare(stream: &TcpStream) -> io::Result<SocketAddr> {
    stream.set_nodelay(true)?;
    // A machine that has gone without a word is noticed; a client that is stopped, whose machine answers for
    // it, keeps its connection.
    set_socket_keepalive(stream, true)?;
    let (interval, count) = PROBES;
    set_tcp_keepidle(stream, interval)?;
    set_tcp_keepintvl(stream, interval)?;
    set_tcp_keepcnt(stream, count)?;
    stream.local_addr()
}

fn config(key: PrivateKey, silence: Duration) -> Config {
    Config {
        server_id: SshId::Standard(Cow::Borrowed(IDENTITY)),
        methods: MethodSet::from(&[MethodKind::PublicKey][..]),
        auth_rejection_time: REJECTION,
        auth_rejection_time_initial: Some(Duration::ZERO),
        keys: vec![key],
        window_size: WINDOW,
        maximum_packet_size: 32 << 10,
        event_buffer_size: 100,
        preferred: Preferred {
            kex: Cow::Borrowed(&[
                kex::MLKEM768X25519_SHA256,
                kex::CURVE25519,
                kex::CURVE25519_PRE_RFC_8731,
                kex::EXTENSION_SUPPORT_AS_SERVER,
                kex::EXTENSION_OPENSSH_STRICT_KEX_AS_SERVER,
            ]),
            cipher: Cow::Borrowed(&[
                cipher::CHACHA20_POLY1305,
                cipher::AES_256_GCM,
                cipher::AES_128_GCM,
                cipher::AES_256_CTR,
                cipher::AES_192_CTR,
                cipher::AES_128_CTR,
            ]),
            mac: Cow::Borrowed(&[mac::HMAC_SHA512_ETM, mac::HMAC_SHA256_ETM]),
            compression: Cow::Borrowed(&[compression::NONE]),
            ..Preferred::DEFAULT
        },
        max_auth_attempts: REFUSALS_MAX,
        inactivity_timeout: None,
        // Something has to be said now and then, for what lies between, such as balancers, and for the kernel, which
        // ends what the other machine does not take. That the client itself says nothing is no reason to end it: it
        // may be stopped, or not be read from here at present.
        keepalive_interval: Some(silence),
        keepalive_max: 0,
        nodelay: true,
        ..Config::default()
    }
}
