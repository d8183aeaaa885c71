//! Listeners, and the connections that come to them.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    os::fd::OwnedFd,
    rc::Rc,
    sync::Arc,
    time::Duration,
};

use futures_util::future::join_all;
use gantry_session::protocol::{FromHelper, Id, Reason, Target};
use rustix::{
    io::Errno,
    net::{
        AddressFamily, SocketFlags, SocketType, accept_with, bind, getpeername, getsockname,
        listen, socket_with,
        sockopt::{set_ipv6_v6only, set_socket_reuseaddr, set_tcp_nodelay},
    },
};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore, oneshot},
    time::{sleep, timeout},
};

use super::{
    account::Account,
    connect,
    errand::{self, BACKLOG, Errand, Guard, Opened},
    files,
    relay::{self, Stream, Ways},
    say,
    serve::{Kind, Refusal, Shared},
};

/// The most connections of one listener that nobody has taken yet; more wait in the kernel.
const UNTAKEN_MAX: usize = 16;

/// How long a connection waits to be taken.
const UNTAKEN: Duration = Duration::from_secs(30);

/// How often a port that is free in both families is looked for.
const PORTS_TRIED: usize = 16;

/// How long nothing is accepted after a shortage.
const SHORTAGE: Duration = Duration::from_millis(200);

/// A connection that has come.
#[derive(Debug)]
pub(super) struct Arrival {
    listener: Id,
    connection: OwnedFd,
    peer: Option<(String, u16)>,
    /// Its place among those that nobody has taken.
    place: OwnedSemaphorePermit,
}

/// Listens until the edge ends it.
pub(super) async fn run(
    shared: &Rc<Shared>,
    id: Id,
    at: Target,
    user: String,
) -> Result<(), Refusal> {
    let Some(ended) = shared.becomes(id, Kind::Other) else { return Ok(()) };
    let _one_of_few = shared.listener()?;
    let opened = async {
        match at {
            Target::Tcp(host, port) => {
                let (sockets, port) = tcp(&host, port, &user).await?;
                Ok((streams(sockets)?, port, None))
            }
            Target::Unix(path) => {
                let errand = Errand { user, what: errand::What::Listen(path) };
                let Opened { socket, guard } = errand.run(shared).await?;
                Ok((streams(vec![socket])?, 0, Some(guard)))
            }
        }
    };
    let (sockets, port, guard) = tokio::select! {
        opened = opened => opened?,
        () = ended.notified() => return Ok(()),
    };
    shared.tell(&FromHelper::Listening { id, port }).await;
    tokio::select! {
        () = ended.notified() => {}
        () = accept_all(shared, id, &sockets) => {}
    }
    drop(sockets);
    if let Some(guard) = guard {
        guard.removed().await;
    }
    shared.tell(&FromHelper::Closed { id }).await;
    Ok(())
}

fn streams(sockets: Vec<OwnedFd>) -> Result<Vec<Stream>, Refusal> {
    let stream = |socket| relay::stream(socket).map_err(|error| Refusal::io("a listener", &error));
    sockets.into_iter().map(stream).collect()
}

/// The socket of a session's agent, and its path.
pub(super) async fn agent(shared: &Shared, user: String) -> Result<(Stream, Guard), Refusal> {
    let errand = Errand { user, what: errand::What::Agent };
    let Opened { socket, guard } = errand.run(shared).await?;
    let stream = relay::stream(socket).map_err(|error| Refusal::io("the agent", &error))?;
    Ok((stream, guard))
}

/// Accepts what comes, for ever.
pub(super) async fn accept_all(shared: &Rc<Shared>, listener: Id, sockets: &[Stream]) {
    let places = Arc::new(Semaphore::new(UNTAKEN_MAX));
    join_all(sockets.iter().map(|socket| accept_one(shared, listener, socket, &places))).await;
}

async fn accept_one(shared: &Rc<Shared>, listener: Id, socket: &Stream, places: &Arc<Semaphore>) {
    // Nobody closes it.
    while let Ok(place) = Arc::clone(places).acquire_owned().await {
        let connection = loop {
            let Ok(mut ready) = socket.readable().await else { return };
            match accept_with(socket.get_ref(), SocketFlags::CLOEXEC | SocketFlags::NONBLOCK) {
                Ok(connection) => break connection,
                Err(Errno::AGAIN) => ready.clear_ready(),
                // It has gone again.
                Err(Errno::INTR | Errno::CONNABORTED) => {}
                Err(error) => {
                    say(&format!("gantry-session: accepting a connection: {error}"));
                    sleep(SHORTAGE).await;
                }
            }
        };
        let peer = getpeername(&connection)
            .ok()
            .flatten()
            .and_then(|peer| SocketAddr::try_from(peer).ok());
        let peer = peer.map(|peer| (peer.ip().to_canonical().to_string(), peer.port()));
        if peer.is_some() {
            set_tcp_nodelay(&connection, true).unwrap_or_default();
        }
        shared.arrived(Arrival { listener, connection, peer, place }).await;
    }
}

/// Offers a connection to the edge; once taken, carries octets until both sides have ended.
pub(super) async fn offer(shared: &Rc<Shared>, id: Id, arrival: Arrival) -> Result<(), Refusal> {
    let Arrival { listener, connection, peer, place } = arrival;
    let (take, taken) = oneshot::channel();
    let Some(ended) = shared.becomes(id, Kind::Offered(take)) else { return Ok(()) };
    shared.tell(&FromHelper::Accepted { id, listener, peer }).await;
    let fds = tokio::select! {
        taken = timeout(UNTAKEN, taken) => taken,
        () = ended.notified() => return Ok(()),
    };
    drop(place);
    // Nobody has taken it in time.
    let Ok(Ok(fds)) = fds else { return Ok(()) };
    // Without its pipes, it is given up.
    let Some(ways) = Ways::new(fds) else { return Ok(()) };
    let both = ways.and_then(|ways| Ok((ways, relay::stream(connection)?)));
    let (ways, connection) = match both {
        Ok(both) => both,
        Err(error) => {
            say(&format!("gantry-session: an accepted connection: {error}"));
            return Ok(());
        }
    };
    relay::both(connection, ways, shared.scratch(), ended.notified()).await;
    Ok(())
}

/// Listens on all addresses that are meant, at one port.
async fn tcp(host: &str, port: u16, user: &str) -> Result<(Vec<OwnedFd>, u16), Refusal> {
    allowed(port, user)?;
    let addresses = match host {
        "" | "*" => vec![Ipv4Addr::UNSPECIFIED.into(), Ipv6Addr::UNSPECIFIED.into()],
        "localhost" => vec![Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()],
        _ => connect::addresses(host).await?,
    };
    let mut tries = if port == 0 { PORTS_TRIED } else { 1 };
    loop {
        tries -= 1;
        match at_once(&addresses, port) {
            Err(error) if tries > 0 && error.kind() == io::ErrorKind::AddrInUse => {}
            done => {
                return done.map_err(|error| Refusal::io(&format!("{host}:{port}"), &error));
            }
        }
    }
}

/// Low ports are root's.
fn allowed(port: u16, user: &str) -> Result<(), Refusal> {
    let start = files::read("/proc/sys/net/ipv4/ip_unprivileged_port_start".as_ref())
        .ok()
        .and_then(|text| String::from_utf8(text).ok()?.trim().parse().ok())
        .unwrap_or(1024);
    if port == 0 || port >= start || Account::look_up("/".as_ref(), user).uid == 0 {
        return Ok(());
    }
    let message = format!("port {port}: only root may listen below {start}");
    Err(Refusal { reason: Reason::Prohibited, message })
}

/// As with sshd, an address that the container has not is left out as long as there is another one; but a
/// port that was chosen has to be free on all.
fn at_once(addresses: &[IpAddr], port: u16) -> io::Result<(Vec<OwnedFd>, u16)> {
    let (mut sockets, mut bound, mut failure) = (Vec::new(), port, None);
    for address in addresses {
        match listener(SocketAddr::new(*address, bound)) {
            Ok((socket, at)) => {
                bound = at;
                sockets.push(socket);
            }
            Err(error) if port == 0 && error.kind() == io::ErrorKind::AddrInUse => {
                return Err(error);
            }
            Err(error) => failure = failure.or(Some(error)),
        }
    }
    match failure {
        Some(error) if sockets.is_empty() => Err(error),
        _ => Ok((sockets, bound)),
    }
}

fn listener(address: SocketAddr) -> io::Result<(OwnedFd, u16)> {
    let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let socket = socket_with(family, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
    set_socket_reuseaddr(&socket, true)?;
    if address.is_ipv6() {
        set_ipv6_v6only(&socket, true)?;
    }
    bind(&socket, &address)?;
    listen(&socket, BACKLOG)?;
    let bound = SocketAddr::try_from(getsockname(&socket)?)?;
    Ok((socket, bound.port()))
}
