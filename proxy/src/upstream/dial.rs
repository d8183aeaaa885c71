//! Dialling containers.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, SocketAddr},
};

use gantry_model::Scheme;
use ipnet::IpNet;
use rustls::pki_types::ServerName;
use socket2::{Domain, Protocol, Socket, Type};
use tokio::{
    io::AsyncWriteExt,
    net::{TcpSocket, TcpStream},
};
use tokio_rustls::TlsConnector;

use super::{Endpoint, Introduction, Offer, UpstreamIo};
use crate::{proxy_protocol, tls::Tls};

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DialError {
    /// The address is none that containers have.
    #[error("{0} is not an address of a container")]
    Forbidden(IpAddr),
    /// Nothing listens there.
    #[error("connection refused")]
    Refused,
    /// No answer in time.
    #[error("no answer in time")]
    Timeout,
    /// The network does not lead there.
    #[error("unreachable")]
    Unreachable(#[source] io::Error),
    /// What listens there does not speak TLS.
    #[error("no TLS handshake")]
    Tls(#[source] io::Error),
}

/// Which addresses may be dialled.
#[derive(Clone, Debug)]
pub(crate) struct DialRules {
    networks: Vec<IpNet>,
}

impl DialRules {
    pub(crate) fn new(networks: Vec<IpNet>) -> Self {
        Self { networks }
    }

    fn allow(&self, address: IpAddr) -> bool {
        let link_local = match address {
            IpAddr::V4(v4) => v4.is_link_local() || v4.is_broadcast(),
            IpAddr::V6(v6) => v6.is_unicast_link_local() || v6.to_ipv4_mapped().is_some(),
        };
        let loopback = |network: &IpNet| network.network().is_loopback();
        !link_local
            && !address.is_unspecified()
            && !address.is_multicast()
            && self.networks.iter().any(|network| {
                network.contains(&address) && (!address.is_loopback() || loopback(network))
            })
    }
}

/// Connects to `endpoint`, whose name for TLS is `host`. The caller bounds the time.
pub(crate) async fn dial(
    endpoint: Endpoint,
    host: Option<&str>,
    offer: Offer,
    introduction: Introduction,
    rules: &DialRules,
    tls: &Tls,
) -> Result<UpstreamIo, DialError> {
    if !rules.allow(endpoint.address) {
        return Err(DialError::Forbidden(endpoint.address));
    }
    let target = SocketAddr::new(endpoint.address, endpoint.port);
    let connected = match introduction.bind {
        None => TcpStream::connect(target).await,
        Some(source) => connect_from(source, target).await,
    };
    let mut stream = connected.map_err(|error| {
        use io::ErrorKind::{ConnectionRefused, ConnectionReset, TimedOut};
        let kind = error.kind();
        if matches!(kind, ConnectionRefused | ConnectionReset) {
            DialError::Refused
        } else if kind == TimedOut {
            DialError::Timeout
        } else {
            DialError::Unreachable(error)
        }
    })?;
    let ends = stream.peer_addr().and_then(|peer| Ok((peer, stream.local_addr()?)));
    let (peer, local) = ends.map_err(DialError::Unreachable)?;
    // One address at both ends is this machine's own: not a container, whatever the record says.
    if peer != target || local.ip() == peer.ip() {
        return Err(DialError::Forbidden(endpoint.address));
    }
    stream.set_nodelay(true).map_err(DialError::Unreachable)?;
    if let Some(ends) = introduction.header {
        let mut header = Vec::new();
        proxy_protocol::write(ends, &mut header);
        stream.write_all(&header).await.map_err(DialError::Unreachable)?;
    }
    match endpoint.scheme {
        Scheme::Http => Ok(UpstreamIo::Plain(stream)),
        Scheme::Https => {
            let name = host.and_then(|host| ServerName::try_from(host.to_owned()).ok());
            let name = name.unwrap_or_else(|| ServerName::IpAddress(endpoint.address.into()));
            let connector = TlsConnector::from(tls.client(offer, endpoint.verify));
            let stream = connector.connect(name, stream).await.map_err(DialError::Tls)?;
            Ok(UpstreamIo::Tls(Box::new(stream)))
        }
    }
}

/// A socket for connections that come from the address of somebody else.
pub(crate) fn transparent_socket() -> io::Result<Socket> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, Some(Protocol::TCP))?;
    socket.set_ip_transparent_v4(true)?;
    socket.set_nonblocking(true)?;
    Ok(socket)
}

async fn connect_from(source: Ipv4Addr, target: SocketAddr) -> io::Result<TcpStream> {
    let socket = transparent_socket()?;
    socket.bind(&SocketAddr::from((source, 0)).into())?;
    TcpSocket::from_std_stream(socket.into()).connect(target).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_addresses_of_containers_are_dialled() {
        let rules = |networks: &[&str]| {
            DialRules::new(networks.iter().map(|text| text.parse().unwrap()).collect())
        };
        let bridge = rules(&["10.88.0.0/16", "fd00::/64"]);
        for (address, allowed) in [
            ("10.88.0.7", true),
            ("fd00::7", true),
            ("10.89.0.7", false),
            ("127.0.0.1", false),
            ("169.254.169.254", false),
            ("::1", false),
            ("::ffff:10.88.0.7", false),
            ("0.0.0.0", false),
        ] {
            assert_eq!(bridge.allow(address.parse().unwrap()), allowed, "{address}");
        }
        let everything = rules(&["0.0.0.0/0", "::/0"]);
        for address in ["127.0.0.1", "169.254.169.254", "::1", "fe80::1", "224.0.0.1"] {
            assert!(!everything.allow(address.parse().unwrap()), "{address} in a wide network");
        }
        assert!(rules(&["127.77.0.0/16"]).allow("127.77.0.1".parse().unwrap()));
    }
}
