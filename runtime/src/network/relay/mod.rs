//! What carries the connections of containers to the proxies of their owners.
//!
//! The packet filter turns every TCP connection that such a container begins, and every question for a
//! name, to one port of the host's own address in the container network, where this listens. Whose a
//! connection is, its source address says, which no other container can have; where it was to go, the
//! kernel remembers. It goes through the proxy or not at all: what cannot be carried is reset.

mod addresses;
mod copy;
mod dial;
mod names;

use std::{
    collections::HashMap,
    io,
    net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV4},
    os::fd::OwnedFd,
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError},
    time::{Duration, Instant},
};

use socket2::SockRef;
use tokio::{
    net::{TcpListener, TcpStream, UdpSocket},
    sync::{Notify, Semaphore},
};
use tokio_util::{
    sync::{CancellationToken, DropGuard},
    task::TaskTracker,
};

use self::{addresses::Addresses, dial::Dialler};
use super::NetworkConfig;
use crate::{BoxError, Proxy};

/// Connections and questions of one container at the same time, and of all.
const OF_ONE_MAX: usize = 256;
const OF_ALL_MAX: usize = 8192;
/// What a question for a name may take, in octets.
const QUESTION_MAX: usize = 4096;
const NAMES: u16 = 53;
/// How long after a handover connections wait for this process to learn whose proxy is whose.
const LEARN_TIMEOUT: Duration = Duration::from_secs(10);
/// How long another process may keep the port that this one takes over.
const BIND_TIMEOUT: Duration = Duration::from_secs(2);

/// The relay of one container network.
#[derive(Debug)]
pub(super) struct Relay {
    shared: Arc<Shared>,
    _until: DropGuard,
}

#[derive(Debug)]
struct Shared {
    place: SocketAddrV4,
    addresses: Addresses,
    dialler: Dialler,
    clients: Mutex<HashMap<Ipv4Addr, Arc<Client>>>,
    /// Told of each new client while there may be connections that wait for theirs.
    learnt: Notify,
    /// Until when who is not known is waited for: the process before knew everybody.
    learns_until: OnceLock<Instant>,
    /// What it listens on, for the next process.
    sockets: OnceLock<Sockets>,
    /// Cancelled when the next process listens instead.
    retired: CancellationToken,
    places: Arc<Semaphore>,
    shutdown: CancellationToken,
    tasks: TaskTracker,
}

/// What a relay listens on.
#[derive(Debug)]
pub(crate) struct Sockets {
    /// For connections.
    pub(crate) tcp: OwnedFd,
    /// For questions for names.
    pub(crate) udp: OwnedFd,
}

impl Sockets {
    /// The same sockets once more.
    pub(crate) fn share(&self) -> io::Result<Self> {
        Ok(Self { tcp: self.tcp.try_clone()?, udp: self.udp.try_clone()? })
    }
}

/// A container with a proxy.
#[derive(Debug)]
struct Client {
    proxy: Proxy,
    places: Arc<Semaphore>,
    /// Cancelled when it has this proxy no more.
    ended: CancellationToken,
    /// Why its proxy could not be used the last time.
    fault: Mutex<Option<String>>,
}

impl Relay {
    /// One that does not listen yet.
    pub(super) fn new(config: &NetworkConfig, gateway: Ipv4Addr, tasks: &TaskTracker) -> Self {
        let shutdown = CancellationToken::new();
        let addresses = Addresses::new(config);
        let shared = Shared {
            place: SocketAddrV4::new(gateway, config.relay_port),
            dialler: Dialler::new(addresses.clone(), &config.proxy_roots),
            addresses,
            clients: Mutex::default(),
            learnt: Notify::new(),
            learns_until: OnceLock::new(),
            sockets: OnceLock::new(),
            retired: shutdown.child_token(),
            places: Arc::new(Semaphore::new(OF_ALL_MAX)),
            shutdown: shutdown.clone(),
            tasks: tasks.clone(),
        };
        Self { shared: Arc::new(shared), _until: shutdown.drop_guard() }
    }

    /// Where it listens.
    pub(super) fn place(&self) -> SocketAddrV4 {
        self.shared.place
    }

    /// Goes on with what another process listens on, which knows whose proxy is whose: connections wait until
    /// this one knows, too.
    pub(super) fn succeed(&self, sockets: Sockets) -> Result<(), BoxError> {
        _ = self.shared.learns_until.set(Instant::now() + LEARN_TIMEOUT);
        Ok(self.serve(sockets)?)
    }

    /// What it listens on, if it does.
    pub(super) fn sockets(&self) -> io::Result<Option<Sockets>> {
        self.shared.sockets.get().map(Sockets::share).transpose()
    }

    /// Takes nothing more, because another process does; what is carried is carried on.
    pub(super) fn retire(&self) {
        self.shared.retired.cancel();
    }

    fn serve(&self, sockets: Sockets) -> io::Result<()> {
        let Sockets { tcp, udp } = sockets.share()?;
        let listener = TcpListener::from_std(std::net::TcpListener::from(tcp))?;
        let socket = UdpSocket::from_std(std::net::UdpSocket::from(udp))?;
        // It listens once.
        drop(self.shared.sockets.set(sockets));
        let shared = Arc::clone(&self.shared);
        self.shared.tasks.spawn(async move { shared.accept(listener).await });
        let shared = Arc::clone(&self.shared);
        self.shared.tasks.spawn(async move { shared.hear(socket).await });
        Ok(())
    }

    /// Begins to listen. Until then containers with a proxy reach nobody.
    pub(super) async fn listen(&self) -> Result<(), BoxError> {
        let bind = async {
            let mut tick = tokio::time::interval(Duration::from_millis(50));
            loop {
                tick.tick().await;
                match self.bind().await {
                    Err(error) if error.kind() == io::ErrorKind::AddrInUse => {}
                    other => return other,
                }
            }
        };
        let bound = tokio::time::timeout(BIND_TIMEOUT, bind).await;
        let (listener, socket) = bound
            .map_err(|_elapsed| format!("{} is taken by another program", self.shared.place))??;
        let (tcp, udp) = (listener.into_std()?.into(), socket.into_std()?.into());
        Ok(self.serve(Sockets { tcp, udp })?)
    }

    async fn bind(&self) -> io::Result<(TcpListener, UdpSocket)> {
        let place = self.shared.place;
        Ok((TcpListener::bind(place).await?, UdpSocket::bind(place).await?))
    }

    /// Carries what comes from this address through a proxy, or nothing any more. What went through
    /// another one ends.
    pub(super) fn set(&self, address: Ipv4Addr, proxy: Option<&Proxy>) {
        let client = proxy.map(|proxy| {
            Arc::new(Client {
                proxy: proxy.clone(),
                places: Arc::new(Semaphore::new(OF_ONE_MAX)),
                ended: self.shared.shutdown.child_token(),
                fault: Mutex::default(),
            })
        });
        let mut clients = self.shared.clients();
        let before = match client {
            Some(client) => clients.insert(address, client),
            None => clients.remove(&address),
        };
        drop(clients);
        self.shared.learnt.notify_waiters();
        if let Some(before) = before {
            before.ended.cancel();
        }
    }

    /// Why the proxy of this address could not be used the last time.
    pub(super) fn fault(&self, address: Ipv4Addr) -> Option<String> {
        self.shared.client(address.into())?.fault().clone()
    }
}

impl Shared {
    fn clients(&self) -> MutexGuard<'_, HashMap<Ipv4Addr, Arc<Client>>> {
        self.clients.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn client(&self, peer: IpAddr) -> Option<Arc<Client>> {
        match peer {
            IpAddr::V4(address) => self.clients().get(&address).cloned(),
            IpAddr::V6(_) => None,
        }
    }

    async fn accept(self: Arc<Self>, listener: TcpListener) {
        loop {
            tokio::select! {
                biased;
                () = self.retired.cancelled() => return,
                accepted = listener.accept() => match accepted {
                    Ok((stream, peer)) if self.is_learning() && self.client(peer.ip()).is_none() => {
                        let shared = Arc::clone(&self);
                        self.tasks.spawn(async move {
                            shared.learn(peer.ip()).await;
                            shared.begin(stream, peer.ip());
                        });
                    }
                    Ok((stream, peer)) => self.begin(stream, peer.ip()),
                    Err(error) => self.rest(&error).await,
                },
            }
        }
    }

    fn is_learning(&self) -> bool {
        self.learns_until.get().is_some_and(|until| Instant::now() < *until)
    }

    /// Waits until it is known whose proxy a container's connections go through, or it is too late for that.
    async fn learn(&self, peer: IpAddr) {
        let Some(until) = self.learns_until.get() else { return };
        let known = async {
            loop {
                let learnt = self.learnt.notified();
                tokio::pin!(learnt);
                learnt.as_mut().enable();
                if self.client(peer).is_some() {
                    return;
                }
                learnt.await;
            }
        };
        tokio::select! {
            () = self.shutdown.cancelled() => {}
            // Who is still not known is treated as nobody by whoever looks next.
            _ = tokio::time::timeout_at((*until).into(), known) => {}
        }
    }

    /// Too many open files, above all: others need a moment to close some.
    async fn rest(&self, error: &io::Error) {
        tracing::warn!(%error, "the relay to proxies cannot take a connection");
        tokio::select! {
            () = self.shutdown.cancelled() => {}
            () = tokio::time::sleep(Duration::from_millis(100)) => {}
        }
    }

    /// Carries a connection of a container, or resets it.
    fn begin(self: &Arc<Self>, mut stream: TcpStream, peer: IpAddr) {
        let aim = SockRef::from(&stream).original_dst_v4().ok().and_then(|it| it.as_socket_ipv4());
        let (Some(client), Some(aim)) = (self.client(peer), aim) else { return reset(&stream) };
        let places = (Arc::clone(&client.places), Arc::clone(&self.places));
        let held = (places.0.try_acquire_owned(), places.1.try_acquire_owned());
        let (Ok(own), Ok(of_all)) = held else {
            tracing::debug!(%peer, "a container has too many connections through its proxy");
            return reset(&stream);
        };
        let shared = Arc::clone(self);
        self.tasks.spawn(async move {
            let _held = (own, of_all);
            tokio::select! {
                biased;
                () = client.ended.cancelled() => reset(&stream),
                () = shared.carry(&client, &mut stream, aim) => {}
            }
        });
    }

    async fn carry(&self, client: &Client, stream: &mut TcpStream, aim: SocketAddrV4) {
        let aim = match client.proxy.dns_servers.first() {
            Some(server) if aim.port() == NAMES => SocketAddr::new(*server, NAMES),
            Some(_) | None => aim.into(),
        };
        if !self.addresses.may_be_aim(aim.ip()) {
            tracing::debug!(%aim, "a container may not reach this through its proxy");
            return reset(stream);
        }
        let carried = match self.dialler.dial(client, aim).await {
            Ok(upstream) => copy::both_ways(stream, upstream).await,
            Err(error) => {
                tracing::debug!(%aim, error, "a proxy does not carry a connection");
                return reset(stream);
            }
        };
        if let Err(error) = carried {
            tracing::trace!(%aim, %error, "a connection through a proxy was cut off");
            reset(stream);
        }
    }

    /// Answers questions for names.
    async fn hear(self: Arc<Self>, socket: UdpSocket) {
        let socket = Arc::new(socket);
        let mut question = vec![0; QUESTION_MAX];
        loop {
            let (len, peer) = tokio::select! {
                biased;
                () = self.retired.cancelled() => return,
                received = socket.recv_from(&mut question) => match received {
                    Ok(received) => received,
                    // Of an answer that nobody waits for any more.
                    Err(error) => {
                        tracing::trace!(%error, "a question for a name");
                        continue;
                    }
                },
            };
            let Some(client) = self.client(peer.ip()) else { continue };
            let places = (Arc::clone(&client.places), Arc::clone(&self.places));
            let held = (places.0.try_acquire_owned(), places.1.try_acquire_owned());
            let (Ok(own), Ok(of_all)) = held else { continue };
            let question = question.get(..len).unwrap_or_default().to_vec();
            let (shared, socket) = (Arc::clone(&self), Arc::clone(&socket));
            self.tasks.spawn(async move {
                let _held = (own, of_all);
                let answered = async {
                    let answer = names::ask(&shared, &client, &question).await?;
                    socket.send_to(&names::fit(&question, answer), peer).await?;
                    Ok::<_, BoxError>(())
                };
                tokio::select! {
                    biased;
                    () = client.ended.cancelled() => {}
                    answered = answered => if let Err(error) = answered {
                        tracing::debug!(%peer, error, "a question for a name has no answer");
                    },
                }
            });
        }
    }
}

impl Client {
    fn fault(&self) -> MutexGuard<'_, Option<String>> {
        self.fault.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Has the other side see that this was no orderly end.
fn reset(stream: &TcpStream) {
    if let Err(error) = SockRef::from(stream).set_linger(Some(Duration::ZERO)) {
        tracing::trace!(%error, "a connection ends without a reset");
    }
}
