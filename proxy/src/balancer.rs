//! Connections that a listed balancer carries for somebody else.
//!
//! A listed balancer must say who the client is, in a header of the PROXY protocol before TLS; from
//! then on the client is the one that was named, for limits, fields and access lines alike. Headers of
//! anybody else are not looked at.

use std::{io, net::SocketAddr, rc::Rc};

use tokio::{io::AsyncReadExt, net::TcpStream, time::timeout};

use crate::{
    limits::{Guest, Refused},
    proxy_protocol::{Ends, HEADER_MAX, Malformed, parse},
    worker::Worker,
};

/// Why a balancer's connection is not served.
#[derive(Debug, thiserror::Error)]
pub enum NoHeader {
    /// Something else comes first, or what cannot be read.
    #[error("it does not begin with a header of the PROXY protocol")]
    Malformed(#[from] Malformed),
    /// The connection broke.
    #[error("it broke before its header was complete")]
    Broken(#[from] io::Error),
}

/// Lets the client in whose connection `balancer` carries. Nothing if it says nothing in time, or
/// something else, or if its client may not have another connection.
pub(crate) async fn welcome(
    worker: &Rc<Worker>,
    stream: &mut TcpStream,
    balancer: SocketAddr,
) -> Option<Guest> {
    // Without the time that a head may take, an idle balancer would hold its place for ever.
    let ends = match timeout(worker.limits().head_timeout, carried_for(stream)).await {
        Ok(Ok(ends)) => ends,
        Ok(Err(error)) => {
            tracing::debug!(%balancer, error = %gantry_model::Chain(&error), "refused a balancer");
            worker.metrics().refused(Refused::ProxyProtocol);
            return None;
        }
        Err(_) => {
            tracing::debug!(%balancer, "a balancer did not say who its client is");
            worker.metrics().refused(Refused::ProxyProtocol);
            return None;
        }
    };
    let client = ends.map_or(balancer, |ends| ends.source);
    let local = ends.map(|ends| ends.destination).or_else(|| stream.local_addr().ok());
    match worker.quota().admit(client) {
        Ok(guest) => Some(guest.at(local)),
        Err(refused) => {
            worker.metrics().refused(refused);
            None
        }
    }
}

/// Reads the header of a balancer's connection, and not an octet more: what follows belongs to its client.
/// Nothing if the connection is the balancer's own. It takes as long as the balancer does.
pub async fn carried_for(stream: &mut TcpStream) -> Result<Option<Ends>, NoHeader> {
    let mut buffer = vec![0; HEADER_MAX];
    let mut have = 0;
    loop {
        let room = buffer.get_mut(have..).filter(|room| !room.is_empty());
        let seen = stream.peek(room.ok_or(Malformed::TooLong)?).await?;
        if seen == 0 {
            return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
        }
        let header = parse(buffer.get(..have + seen).unwrap_or_default())?;
        // What is no whole header belongs to it altogether.
        let end = header.map_or(have + seen, |header| header.len);
        stream.read_exact(buffer.get_mut(have..end).unwrap_or_default()).await?;
        have = end;
        if let Some(header) = header {
            return Ok(header.ends);
        }
    }
}
