//! Sockets and accept loops. Every worker has its own socket on each address, and the kernel deals
//! the connections out (`SO_REUSEPORT`), so that no connection crosses threads.

use std::{
    io,
    net::{SocketAddr, TcpListener},
    rc::Rc,
    time::Duration,
};

use socket2::{Domain, Protocol, Socket, Type};
use tokio::{net::TcpStream, time::sleep};
use tokio_util::sync::CancellationToken;

use crate::{balancer, connection, worker::Worker};

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

/// Accepts until `stop`.
pub(crate) async fn accept(
    worker: Rc<Worker>,
    listener: TcpListener,
    purpose: Purpose,
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
            Ok((stream, peer)) => admit(&worker, stream, peer, purpose),
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

fn admit(worker: &Rc<Worker>, stream: TcpStream, peer: SocketAddr, purpose: Purpose) {
    let open = match worker.open_connection() {
        Ok(open) => open,
        Err(refused) => return worker.metrics().refused(refused),
    };
    let carried = worker.config().proxy_protocol_from.iter().any(|net| net.contains(&peer.ip()));
    // Of a balancer it is the client that counts, and who that is shows only later.
    let guest = match (!carried).then(|| worker.quota().admit(peer)).transpose() {
        Ok(guest) => guest,
        Err(refused) => return worker.metrics().refused(refused),
    };
    worker.metrics().connections_accepted.add(1);
    let worker = Rc::clone(worker);
    let tasks = worker.tasks().clone();
    // The tracker waits for it.
    drop(tasks.spawn_local(async move {
        let mut stream = stream;
        let guest = match guest {
            Some(guest) => Some(guest.at(stream.local_addr().ok())),
            None => balancer::welcome(&worker, &mut stream, peer).await,
        };
        if let Some(guest) = guest {
            connection::serve(worker, stream, guest, purpose).await;
        }
        drop(open);
    }));
}
