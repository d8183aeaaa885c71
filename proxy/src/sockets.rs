//! What an edge listens on: sockets of its own, or those of the process before it, which stay open from one
//! to the next, so that no client finds a port closed and none waits in a queue that nobody takes from.

use std::{
    io,
    net::{SocketAddr, TcpListener, UdpSocket},
};

use crate::{listen, quic::Seat, steer};

/// The sockets that a process listens on, to go on with them in the next.
#[derive(Debug, Default)]
pub struct Sockets {
    /// Listeners of TCP, of whatever purpose: what each is for, the next configuration says by its address.
    pub tcp: Vec<TcpListener>,
    /// The sockets of HTTP/3, one group for each address.
    pub quic: Vec<QuicSockets>,
}

/// The sockets of HTTP/3 on one address, in the order in which they were bound.
///
/// There are two banks of them, so that two processes can have connections at the same time: one receives
/// what its connections, and all that begin, are sent, the other what is left of the connections before.
#[derive(Debug)]
pub struct QuicSockets {
    /// The bank in use, 0 or 1.
    pub bank: usize,
    /// Both banks, one after the other.
    pub sockets: Vec<UdpSocket>,
}

/// Whether somebody has the UDP port of HTTP/3 on an address, which no two processes share but by [`Sockets`].
pub fn http3_port_is_taken(address: SocketAddr) -> bool {
    steer::check_free(address).is_err_and(|error| error.kind() == io::ErrorKind::AddrInUse)
}

impl Sockets {
    /// The same sockets once more.
    pub fn share(&self) -> io::Result<Self> {
        let tcp = self.tcp.iter().map(TcpListener::try_clone).collect::<io::Result<_>>()?;
        let quic = self.quic.iter().map(QuicSockets::share).collect::<io::Result<_>>()?;
        Ok(Self { tcp, quic })
    }

    /// Takes the listeners on an address out.
    pub fn take(&mut self, address: SocketAddr) -> Vec<TcpListener> {
        let here = |socket: &mut TcpListener| socket.local_addr().is_ok_and(|at| at == address);
        self.tcp.extract_if(.., here).collect()
    }

    /// Those of HTTP/3 on an address.
    fn take_quic(&mut self, address: SocketAddr) -> Option<QuicSockets> {
        let here = |group: &QuicSockets| {
            let first = group.sockets.first().and_then(|socket| socket.local_addr().ok());
            first.is_some_and(|at| at == address)
        };
        let at = self.quic.iter().position(here)?;
        Some(self.quic.swap_remove(at))
    }

    /// Listens on `address`, and deals the sockets out: each worker has at least one, and none has no worker.
    pub(crate) fn listen(
        &mut self,
        address: SocketAddr,
        workers: usize,
        kept: &mut Self,
    ) -> io::Result<Vec<(usize, TcpListener)>> {
        let mut listeners = self.take(address);
        if listeners.is_empty() {
            listeners = listen::bind(address, workers)?;
        }
        let places = 0..listeners.len().max(workers);
        let mut dealt = Vec::with_capacity(places.len());
        for place in places {
            // As many as there were workers before; several may share one.
            let Some(listener) = listeners.get(place % listeners.len()) else { continue };
            // Of a service manager they may be otherwise.
            listener.set_nonblocking(true)?;
            dealt.push((place % workers, listener.try_clone()?));
        }
        kept.tcp.append(&mut listeners);
        Ok(dealt)
    }

    /// The same for HTTP/3: the other bank of the sockets of the process before, or new ones.
    pub(crate) fn listen_quic(
        &mut self,
        address: SocketAddr,
        workers: usize,
        kept: &mut Self,
    ) -> io::Result<Vec<(usize, Seat)>> {
        let group = match self.take_quic(address) {
            Some(before) => QuicSockets { bank: 1 - before.bank.min(1), sockets: before.sockets },
            None => QuicSockets { bank: 0, sockets: steer::bind(address, workers)? },
        };
        let slots = group.sockets.len();
        let own = slots / steer::BANKS;
        let mut dealt = Vec::with_capacity(own);
        for place in 0..own {
            let slot = group.bank * own + place;
            let Some(socket) = group.sockets.get(slot) else { continue };
            let seat = Seat { socket: socket.try_clone()?, slot, slots };
            dealt.push((place % workers, seat));
        }
        kept.quic.push(group);
        Ok(dealt)
    }

    /// Has connections that begin from now on come to the banks in use.
    pub(crate) fn turn(&self) -> io::Result<()> {
        for group in &self.quic {
            if let Some(first) = group.sockets.first() {
                steer::attach(first, group.sockets.len() / steer::BANKS, group.bank)?;
            }
        }
        Ok(())
    }
}

impl QuicSockets {
    fn share(&self) -> io::Result<Self> {
        let sockets = self.sockets.iter().map(UdpSocket::try_clone).collect::<io::Result<_>>()?;
        Ok(Self { bank: self.bank, sockets })
    }
}
