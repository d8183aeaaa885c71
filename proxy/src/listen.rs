//! Sockets and accept loops. Every worker has its own socket on each address, and the kernel deals
//! the connections out (`SO_REUSEPORT`), so that no connection crosses threads.

use std::{
    collections::HashMap,
    io,
    net::{IpAddr, SocketAddr, TcpListener},
    rc::Rc,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use socket2::{Domain, Protocol, Socket, Type};
use tokio::{net::TcpStream, time::sleep};
use tokio_util::sync::CancellationToken;

use crate::{connection, worker::Worker};

/// Connections that the kernel may hold until they are accepted.
const BACKLOG: i32 = 4096;

/// What a listener is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// Requests over TLS.
    Https,
    /// Redirects to HTTPS.
    Redirect,
    /// Requests without TLS.
    Plain,
}

/// Makes one socket per worker on `address`; port 0 is decided by the first.
pub(crate) fn bind(address: SocketAddr, workers: usize) -> io::Result<Vec<TcpListener>> {
    let mut address = address;
    let mut listeners = Vec::with_capacity(workers);
    for _ in 0..workers {
        let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
        socket.set_reuse_address(true)?;
        socket.set_reuse_port(true)?;
        if address.is_ipv6() {
            socket.set_only_v6(true)?;
        }
        socket.set_nonblocking(true)?;
        socket.bind(&address.into())?;
        socket.listen(BACKLOG)?;
        let listener = TcpListener::from(socket);
        address = listener.local_addr()?;
        listeners.push(listener);
    }
    Ok(listeners)
}

/// How many connections each source has, in all workers.
#[derive(Debug)]
pub(crate) struct Sources {
    counts: Mutex<HashMap<IpAddr, usize>>,
    max: usize,
}

/// One connection's place among those of its source, given back when dropped.
#[derive(Debug)]
struct Place {
    sources: Arc<Sources>,
    source: IpAddr,
}

impl Sources {
    pub(crate) fn new(max: usize) -> Self {
        Self { counts: Mutex::default(), max }
    }

    fn admit(self: &Arc<Self>, peer: IpAddr) -> Option<Place> {
        let source = source(peer);
        let mut counts = self.counts();
        let count = counts.entry(source).or_default();
        if *count >= self.max {
            return None;
        }
        *count += 1;
        drop(counts);
        Some(Place { sources: Arc::clone(self), source })
    }

    fn counts(&self) -> MutexGuard<'_, HashMap<IpAddr, usize>> {
        // Each change is one statement, so that the counts are right whoever panicked.
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut counts = self.sources.counts();
        if let Some(count) = counts.get_mut(&self.source) {
            *count = count.saturating_sub(1);
            if *count == 0 {
                counts.remove(&self.source);
            }
        }
    }
}

/// What counts as one source: an IPv4 address, or the /64 that an IPv6 customer has at the least.
fn source(peer: IpAddr) -> IpAddr {
    match peer.to_canonical() {
        v4 @ IpAddr::V4(_) => v4,
        IpAddr::V6(v6) => {
            let mut segments = v6.segments();
            segments[4..].fill(0);
            IpAddr::V6(segments.into())
        }
    }
}

/// Accepts until `stop`.
pub(crate) async fn accept(
    worker: Rc<Worker>,
    listener: TcpListener,
    purpose: Purpose,
    sources: Arc<Sources>,
    stop: CancellationToken,
) {
    let listener = match tokio::net::TcpListener::from_std(listener) {
        Ok(listener) => listener,
        Err(error) => {
            tracing::error!(%error, "a listener cannot be used");
            return;
        }
    };
    loop {
        let accepted = tokio::select! {
            biased;
            () = stop.cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, peer)) => admit(&worker, stream, peer, purpose, &sources),
            Err(error) if is_of_the_peer(&error) => worker.metrics().accept_errors.add(1),
            Err(error) => {
                // Descriptors or memory are short; to try again at once would only burn time.
                worker.metrics().accept_errors.add(1);
                tracing::warn!(%error, "cannot accept");
                sleep(Duration::from_millis(50)).await;
            }
        }
    }
}

fn is_of_the_peer(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionRefused
            | io::ErrorKind::Interrupted
    )
}

fn admit(
    worker: &Rc<Worker>,
    stream: TcpStream,
    peer: SocketAddr,
    purpose: Purpose,
    sources: &Arc<Sources>,
) {
    let metrics = worker.metrics();
    let place = match sources.admit(peer.ip()) {
        Some(place) if worker.connections() < worker.limits().connections_max => place,
        Some(_) | None => {
            metrics.connections_refused.add(1);
            return;
        }
    };
    metrics.connections_accepted.add(1);
    let open = worker.open_connection();
    let worker = Rc::clone(worker);
    let tasks = worker.tasks().clone();
    // The tracker waits for it.
    drop(tasks.spawn_local(async move {
        connection::serve(worker, stream, peer, purpose).await;
        drop((place, open));
    }));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_source_has_a_share_of_connections() {
        let sources = Arc::new(Sources::new(2));
        let one = "192.0.2.1".parse().unwrap();
        let places = [sources.admit(one).unwrap(), sources.admit(one).unwrap()];
        assert!(sources.admit(one).is_none());
        assert!(sources.admit("::ffff:192.0.2.1".parse().unwrap()).is_none(), "the same address");
        assert!(sources.admit("192.0.2.2".parse().unwrap()).is_some());
        drop(places);
        assert!(sources.admit(one).is_some());
        let near = ["2001:db8::1", "2001:db8::2:0:0:1"].map(|text| source(text.parse().unwrap()));
        assert_eq!(near[0], near[1], "one /64 is one source");
    }
}
