//! One client connection from its first octet to its last.

use std::rc::Rc;

use gantry_certs::ACME_TLS_ALPN;
use tokio::{net::TcpStream, time::timeout};
use tokio_rustls::server::TlsStream;

use crate::{
    downstream::{Downstream, Protocol},
    http1::{self, ClientIo, Socket},
    http2,
    limits::{CutBy, Guest},
    listen::Purpose,
    worker::Worker,
};

/// Serves one connection.
pub(crate) async fn serve(worker: Rc<Worker>, stream: TcpStream, guest: Guest, purpose: Purpose) {
    if stream.set_nodelay(true).is_err() {
        return;
    }
    let socket = Socket::new(stream);
    // Each stage is boxed: what one needs alone, a connection shall not hold in the others.
    match purpose {
        Purpose::Https => {
            let Some(stream) = Box::pin(handshake(&worker, socket, &guest)).await else { return };
            let session = stream.get_ref().1;
            let sni = session.server_name().map(Box::from);
            let protocol = match session.alpn_protocol() {
                Some(b"h2") => Protocol::Http2,
                // A CA has seen what it wanted to see.
                Some(ACME_TLS_ALPN) => return,
                Some(_) | None => Protocol::Http1,
            };
            let downstream = Rc::new(Downstream::new(&guest, protocol, true, sni));
            match protocol {
                Protocol::Http1 => {
                    let io = ClientIo::Tls(stream);
                    Box::pin(http1::serve(&worker, io, &downstream, purpose)).await;
                }
                Protocol::Http2 | Protocol::Http3 => {
                    http2::serve(&worker, stream, &downstream).await;
                }
            }
        }
        Purpose::Redirect | Purpose::Plain => {
            let downstream = Rc::new(Downstream::new(&guest, Protocol::Http1, false, None));
            let io = ClientIo::Plain(socket);
            Box::pin(http1::serve(&worker, io, &downstream, purpose)).await;
        }
    }
}

async fn handshake(
    worker: &Rc<Worker>,
    socket: Socket,
    guest: &Guest,
) -> Option<Box<TlsStream<Socket>>> {
    let _counted = match worker.quota().handshake(guest) {
        Ok(counted) => counted,
        Err(refused) => {
            worker.metrics().refused(refused);
            return None;
        }
    };
    let handshake = worker.tls().acceptor.accept(socket);
    match timeout(worker.limits().tls_timeout, handshake).await {
        Ok(Ok(stream)) => {
            worker.metrics().tls_handshakes.add(1);
            return Some(Box::new(stream));
        }
        Ok(Err(_)) => {}
        Err(_) => worker.metrics().cut(CutBy::HandshakeTimeout),
    }
    worker.metrics().tls_failures.add(1);
    None
}
