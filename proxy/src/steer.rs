//! The UDP sockets of HTTP/3: one per worker, and every packet to the worker that has its connection.
//!
//! The kernel deals datagrams out by addresses, but a QUIC connection outlives its client's address.
//! Connection ids survive; the edge chooses those that clients address it by so that their first octet
//! names the socket, and a filter of the kernel's (classic BPF) reads it. A client's first packets
//! carry an id of the client's own, which is never as short as ours, and names some worker, always the same:
//! that one takes the connection.
//!
//! There are two banks of sockets from the beginning. A process that follows another one takes the bank
//! that was not in use and then changes the filter in one step: what begins comes to it, and what has an id
//! of ours still comes to whoever made it. The group of sockets itself never changes, nor does their order.

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

/// Banks of sockets.
pub(crate) const BANKS: usize = 2;
/// Sockets that one octet can name.
const SLOTS_MAX: usize = 256;
/// Workers that can have sockets.
const WORKERS_MAX: usize = SLOTS_MAX / BANKS;
/// The octets of a connection id; fewer than the 8 that clients' first ones have at least (RFC 9000, 7.2).
const ID: usize = 7;
/// What the kernel may hold for a socket in each direction.
const BUFFER: usize = 4 * 1024 * 1024;

/// Whether the port is nobody's. A group with the sockets of another process in it would send them a part of
/// what is ours.
pub(crate) fn check_free(address: SocketAddr) -> io::Result<()> {
    let probe = Socket::new(Domain::for_address(address), Type::DGRAM, Some(Protocol::UDP))?;
    if address.is_ipv6() {
        probe.set_only_v6(true)?;
    }
    // Without `SO_REUSEPORT` it shares with nobody.
    probe.bind(&address.into())
}

/// Binds the sockets of both banks on `address`, in each one per worker (of the first [`WORKERS_MAX`]).
pub(crate) fn bind(address: SocketAddr, workers: usize) -> io::Result<Vec<UdpSocket>> {
    check_free(address)?;
    let workers = workers.min(WORKERS_MAX);
    let mut sockets = Vec::with_capacity(workers);
    for _ in 0..workers * BANKS {
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
    if let Some(first) = sockets.first() {
        attach(first, workers, 0)?;
    }
    Ok(sockets)
}

/// Has the kernel choose the socket by the first octet of a packet's connection id: among all of the group if
/// it is one of ours, otherwise in `bank`, each bank having so many sockets.
pub(crate) fn attach(socket: &UdpSocket, each: usize, bank: usize) -> io::Result<()> {
    const LOAD_OCTET: u32 = libc::BPF_LD | libc::BPF_B | libc::BPF_ABS;
    let step = |code: u32, jt, jf, k| libc::sock_filter {
        code: u16::try_from(code).unwrap_or_default(),
        jt,
        jf,
        k,
    };
    let number = |count: usize| u32::try_from(count).map_err(io::Error::other);
    let (modulo, is) = (libc::BPF_ALU | libc::BPF_MOD, libc::BPF_JMP | libc::BPF_JEQ);
    let mut program = [
        step(LOAD_OCTET, 0, 0, 0),
        // A long header has version and length before its id (RFC 9000, 17.2), a short one has not.
        step(libc::BPF_JMP | libc::BPF_JSET | libc::BPF_K, 0, 6, 0x80),
        step(LOAD_OCTET, 0, 0, 5),
        step(is | libc::BPF_K, 6, 0, number(ID)?),
        // The client's own.
        step(LOAD_OCTET, 0, 0, 6),
        step(modulo | libc::BPF_K, 0, 0, number(each)?),
        step(libc::BPF_ALU | libc::BPF_ADD | libc::BPF_K, 0, 0, number(each * bank)?),
        step(libc::BPF_RET | libc::BPF_A, 0, 0, 0),
        // Ours, behind a short header and behind a long one.
        step(LOAD_OCTET, 0, 0, 1),
        step(libc::BPF_JMP | libc::BPF_JA, 0, 0, 1),
        step(LOAD_OCTET, 0, 0, 6),
        step(modulo | libc::BPF_K, 0, 0, number(each * BANKS)?),
        step(libc::BPF_RET | libc::BPF_A, 0, 0, 0),
    ];
    let len = u16::try_from(program.len()).map_err(io::Error::other)?;
    let program = libc::sock_fprog { len, filter: program.as_mut_ptr() };
    Ok(setsockopt(socket, AttachReusePortCbpf, &program)?)
}

/// Makes the connection ids of one socket. All but the socket is a keyed hash of a counter, so that
/// nobody can tell which ids are of one connection.
pub(crate) struct Ids {
    slot: usize,
    slots: usize,
    key: RandomState,
    made: u64,
}

impl Ids {
    /// For the socket `slot` of so many in the group.
    pub(crate) fn new(slot: usize, slots: usize) -> Self {
        Self { slot, slots: slots.clamp(1, SLOTS_MAX), key: RandomState::new(), made: 0 }
    }
}

impl ConnectionIdGenerator for Ids {
    fn generate_cid(&mut self) -> ConnectionId {
        self.made += 1;
        let hash = self.key.hash_one(self.made).to_be_bytes();
        let mut id = [0; ID];
        id.iter_mut().zip(hash).for_each(|(octet, random)| *octet = random);
        if let Some(first) = id.first_mut() {
            // As random as it can be among those that name the socket.
            let turns = (SLOTS_MAX - 1 - self.slot) / self.slots + 1;
            let named = self.slot + self.slots * (usize::from(*first) % turns);
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
    fn an_id_names_its_socket_and_nothing_else() {
        for slots in [2, 4, 6, 32, 256] {
            for slot in [0, slots / 2, slots - 1] {
                let mut ids = Ids::new(slot, slots);
                let made: Vec<_> = (0..200).map(|_| ids.generate_cid()).collect();
                assert!(made.iter().all(|id| usize::from(id[0]) % slots == slot));
                assert!(made.iter().all(|id| id.len() == ids.cid_len()));
                assert_eq!(made.iter().collect::<HashSet<_>>().len(), 200);
            }
        }
    }

    #[test]
    fn a_port_is_not_shared_with_another_process() {
        let any = SocketAddr::from(([127, 77, 249, 2], 0));
        let port = UdpSocket::bind(any).unwrap().local_addr().unwrap();
        let sockets = bind(port, 1).unwrap();
        let refused = bind(port, 1).unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::AddrInUse);
        drop(sockets);
        assert_eq!(bind(port, 1).unwrap().len(), BANKS);
    }

    #[test]
    fn a_packet_reaches_the_socket_that_its_id_names() {
        const WORKERS: usize = 3;
        let any = SocketAddr::from(([127, 77, 249, 1], 0));
        let port = UdpSocket::bind(any).unwrap().local_addr().unwrap();
        let sockets = bind(port, WORKERS).unwrap();
        for socket in &sockets {
            socket.set_nonblocking(false).unwrap();
            socket.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        }
        for round in 0..120_u8 {
            let bank = usize::from(round / 60);
            attach(&sockets[0], WORKERS, bank).unwrap();
            // Each from an address of its own, with all forms of header.
            let client = UdpSocket::bind("127.0.0.1:0").unwrap();
            let (packet, slot) = match round % 3 {
                0 => ([0x40, round, 9, 9, 9, 9, 200, round], usize::from(round) % 6),
                1 => ([0xc0, 0, 0, 0, 1, 7, round, round], usize::from(round) % 6),
                _ => ([0xc0, 0, 0, 0, 1, 8, round, round], bank * 3 + usize::from(round) % 3),
            };
            client.send_to(&packet, port).unwrap();
            let mut got = [0; 16];
            let count = sockets[slot].recv(&mut got).unwrap();
            assert_eq!(got[..count], packet, "round {round}");
        }
    }
}
