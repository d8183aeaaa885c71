//! The UDP sockets of HTTP/3: one per worker, and every packet to the worker that has its connection.
//!
//! The kernel deals datagrams out by addresses, but a QUIC connection outlives its client's address.
//! Connection ids survive; the edge chooses those that clients address it by so that their first octet
//! names the worker, and a filter of the kernel's (classic BPF) reads it. A client's first packets
//! carry an id of the client's own, which names some worker, always the same: that one takes the
//! connection.

use std::{
    hash::{BuildHasher, RandomState},
    io,
    net::{SocketAddr, UdpSocket},
    time::Duration,
};

use nix::{
    libc,
    sys::socket::{setsockopt, sockopt::AttachReusePortCbpf},
};
use quinn::{ConnectionId, ConnectionIdGenerator};
use socket2::{Domain, Protocol, Socket, Type};

/// Workers that one octet can name.
pub(crate) const WORKERS_MAX: usize = 256;
/// The octets of a connection id.
const ID: usize = 8;
/// What the kernel may hold for a socket in each direction.
const BUFFER: usize = 4 * 1024 * 1024;

/// Binds one socket per worker (of the first [`WORKERS_MAX`]) on `address`.
pub(crate) fn bind(address: SocketAddr, workers: usize) -> io::Result<Vec<UdpSocket>> {
    let workers = workers.min(WORKERS_MAX);
    let mut sockets = Vec::with_capacity(workers);
    for _ in 0..workers {
        let socket = Socket::new(Domain::for_address(address), Type::DGRAM, Some(Protocol::UDP))?;
        socket.set_reuse_port(true)?;
        if address.is_ipv6() {
            socket.set_only_v6(true)?;
        }
        socket.set_nonblocking(true)?;
        // The kernel grants what it may; less is no error.
        socket.set_recv_buffer_size(BUFFER)?;
        socket.set_send_buffer_size(BUFFER)?;
        socket.bind(&address.into())?;
        sockets.push(UdpSocket::from(socket));
    }
    if let Some(first) = sockets.first().filter(|_| workers > 1) {
        attach(first, workers)?;
    }
    Ok(sockets)
}

/// Has the kernel choose the socket by the first octet of a packet's connection id.
fn attach(socket: &UdpSocket, workers: usize) -> io::Result<()> {
    const LOAD_OCTET: u32 = libc::BPF_LD | libc::BPF_B | libc::BPF_ABS;
    let step = |code: u32, jt, jf, k| libc::sock_filter {
        code: u16::try_from(code).unwrap_or_default(),
        jt,
        jf,
        k,
    };
    let workers = u32::try_from(workers).map_err(io::Error::other)?;
    let mut program = [
        step(LOAD_OCTET, 0, 0, 0),
        // A long header has version and length before its id (RFC 9000, 17.2), a short one has not.
        step(libc::BPF_JMP | libc::BPF_JSET | libc::BPF_K, 0, 2, 0x80),
        step(LOAD_OCTET, 0, 0, 6),
        step(libc::BPF_JMP | libc::BPF_JA, 0, 0, 1),
        step(LOAD_OCTET, 0, 0, 1),
        step(libc::BPF_ALU | libc::BPF_MOD | libc::BPF_K, 0, 0, workers),
        step(libc::BPF_RET | libc::BPF_A, 0, 0, 0),
    ];
    let len = u16::try_from(program.len()).map_err(io::Error::other)?;
    let program = libc::sock_fprog { len, filter: program.as_mut_ptr() };
    Ok(setsockopt(socket, AttachReusePortCbpf, &program)?)
}

/// Makes the connection ids of one worker. All but the worker is a keyed hash of a counter, so that
/// nobody can tell which ids are of one connection.
pub(crate) struct Ids {
    worker: usize,
    workers: usize,
    key: RandomState,
    made: u64,
}

impl Ids {
    pub(crate) fn new(worker: usize, workers: usize) -> Self {
        Self { worker, workers: workers.clamp(1, WORKERS_MAX), key: RandomState::new(), made: 0 }
    }
}

impl ConnectionIdGenerator for Ids {
    fn generate_cid(&mut self) -> ConnectionId {
        self.made += 1;
        let mut id = self.key.hash_one(self.made).to_be_bytes();
        if let Some(first) = id.first_mut() {
            // As random as it can be among those that name the worker.
            let turns = (WORKERS_MAX - 1 - self.worker) / self.workers + 1;
            let named = self.worker + self.workers * (usize::from(*first) % turns);
            *first = u8::try_from(named).unwrap_or_default();
        }
        ConnectionId::new(&id)
    }

    fn cid_len(&self) -> usize {
        ID
    }

    fn cid_lifetime(&self) -> Option<Duration> {
        None
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn an_id_names_its_worker_and_nothing_else() {
        for workers in [1, 2, 3, 16, 255, 256] {
            for worker in [0, workers / 2, workers - 1] {
                let mut ids = Ids::new(worker, workers);
                let made: Vec<_> = (0..200).map(|_| ids.generate_cid()).collect();
                assert!(made.iter().all(|id| usize::from(id[0]) % workers == worker));
                assert!(made.iter().all(|id| id.len() == ids.cid_len()));
                assert_eq!(made.iter().collect::<HashSet<_>>().len(), 200);
            }
        }
    }

    #[test]
    fn a_packet_reaches_the_worker_that_its_id_names() {
        const WORKERS: usize = 3;
        let any = SocketAddr::from(([127, 77, 249, 1], 0));
        let port = UdpSocket::bind(any).unwrap().local_addr().unwrap();
        let sockets = bind(port, WORKERS).unwrap();
        for socket in &sockets {
            socket.set_nonblocking(false).unwrap();
            socket.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        }
        for round in 0..60_u8 {
            // Each from an address of its own, with both forms of header.
            let client = UdpSocket::bind("127.0.0.1:0").unwrap();
            let packet = match round % 2 {
                0 => [0x40, round, 9, 9, 9, 9, 200, round],
                _ => [0xc0, 0, 0, 0, 1, 8, round, round],
            };
            client.send_to(&packet, port).unwrap();
            let mut got = [0; 16];
            let count = sockets[usize::from(round) % WORKERS].recv(&mut got).unwrap();
            assert_eq!(got[..count], packet);
        }
    }
}
