//! Handshakes octet by octet: what strangers may say, in which order and how much of it.

use std::{
    net::SocketAddr,
    sync::atomic::{AtomicUsize, Ordering},
    time::{Duration, Instant},
};

use gantry_ssh::Limits;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpSocket, TcpStream},
};

use crate::{
    bed::{Bed, PATIENCE, text},
    hangs::resident,
    hardening::{connect, greeting, metric},
};

const DISCONNECT: u8 = 1;
const IGNORE: u8 = 2;
const UNIMPLEMENTED: u8 = 3;
const DEBUG: u8 = 4;
const KEXINIT: u8 = 20;
const NEWKEYS: u8 = 21;
const ECDH_INIT: u8 = 30;
const ECDH_REPLY: u8 = 31;

/// What a client offers.
#[derive(Clone, Copy)]
struct Offer<'a> {
    kex: &'a str,
    key: &'a str,
    cipher: &'a str,
    mac: &'a str,
    compression: &'a str,
}

const LENIENT: Offer<'_> = Offer {
    kex: "curve25519-sha256",
    key: "ssh-ed25519",
    cipher: "aes256-ctr",
    mac: "hmac-sha2-256-etm@openssh.com",
    compression: "none",
};
/// As every client that has heard of Terrapin.
const STRICT: Offer<'_> =
    Offer { kex: "curve25519-sha256,kex-strict-c-v00@openssh.com", ..LENIENT };

fn string(octets: &[u8]) -> Vec<u8> {
    [&u32::try_from(octets.len()).unwrap().to_be_bytes()[..], octets].concat()
}

/// A packet that is not encrypted.
fn packet(payload: &[u8]) -> Vec<u8> {
    let padding = 4 + (8 - (1 + 4 + payload.len() + 4) % 8) % 8;
    let rest = [&[u8::try_from(padding).unwrap()][..], payload, &vec![0; padding]].concat();
    string(&rest)
}

impl Offer<'_> {
    fn packet(self) -> Vec<u8> {
        let Offer { kex, key, cipher, mac, compression } = self;
        let mut payload = [&[KEXINIT][..], &[5; 16]].concat();
        let lists = [kex, key, cipher, cipher, mac, mac, compression, compression, "", ""];
        for list in lists {
            payload.extend(string(list.as_bytes()));
        }
        payload.extend([0; 5]);
        packet(&payload)
    }
}

/// A message of the key exchange with the base point as public key.
fn ecdh() -> Vec<u8> {
    let mut point = [0; 32];
    point[0] = 9;
    packet(&[&[ECDH_INIT][..], &string(&point)].concat())
}

/// Sends packets after the greeting; the kinds of the messages that come back before the end, or
/// before this one.
async fn hears(bed: &Bed, packets: &[Vec<u8>], until: Option<u8>) -> Vec<u8> {
    let mut stream = connect(bed).await;
    let first = greeting(&mut stream).await;
    assert_eq!(first[1], KEXINIT);
    // It may be gone before all was said.
    stream.write_all(&packets.concat()).await.unwrap_or_default();
    let mut heard = Vec::new();
    let listening = async {
        while let Ok(len) = stream.read_u32().await {
            let mut packet = vec![0; len as usize];
            if stream.read_exact(&mut packet).await.is_err() {
                break;
            }
            heard.push(packet[1]);
            if until == Some(packet[1]) {
                break;
            }
        }
    };
    tokio::time::timeout(PATIENCE, listening).await.expect("an answer or an end");
    heard
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_comes_between_the_messages_of_a_strict_handshake() {
    let bed = Bed::new().await;
    let ignored = packet(&[&[IGNORE][..], &string(b"x")].concat());
    let debug = packet(&[&[DEBUG, 0][..], &string(b"x"), &string(b"")].concat());
    let unimplemented = packet(&[UNIMPLEMENTED, 0, 0, 0, 0]);
    // Without strictness such messages are nothing; with it, the handshake itself is.
    for packets in [
        vec![STRICT.packet(), ecdh()],
        vec![LENIENT.packet(), ignored.clone(), debug.clone(), ecdh()],
        vec![ignored.clone(), LENIENT.packet(), ecdh()],
    ] {
        let heard = hears(&bed, &packets, Some(ECDH_REPLY)).await;
        assert_eq!(heard, [ECDH_REPLY]);
    }
    for (what, packets) in [
        ("after", vec![STRICT.packet(), ignored.clone(), ecdh()]),
        ("before", vec![ignored.clone(), STRICT.packet(), ecdh()]),
        ("debug", vec![STRICT.packet(), debug, ecdh()]),
        ("unimplemented", vec![STRICT.packet(), unimplemented, ecdh()]),
        ("twice", vec![STRICT.packet(), STRICT.packet(), ecdh()]),
        ("keys too early", vec![STRICT.packet(), packet(&[NEWKEYS])]),
    ] {
        let heard = hears(&bed, &packets, None).await;
        assert!(heard.iter().all(|kind| *kind == DISCONNECT), "{what}: {heard:?}");
    }
    // The answer is there already; the connection ends all the same.
    let heard = hears(&bed, &[STRICT.packet(), ecdh(), ignored], None).await;
    assert!(!heard.contains(&IGNORE) && heard.starts_with(&[ECDH_REPLY]), "{heard:?}");
    assert_eq!(text(bed.run("echo ok")).await, "ok\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_offered_is_not_agreed_upon() {
    let bed = Bed::new().await;
    for (what, offer) in [
        ("compression", Offer { compression: "zlib,zlib@openssh.com", ..LENIENT }),
        ("finite fields", Offer { kex: "diffie-hellman-group14-sha256", ..LENIENT }),
        ("no encryption", Offer { cipher: "none", ..LENIENT }),
        ("blocks in chains", Offer { cipher: "aes256-cbc", ..LENIENT }),
        ("no authentication", Offer { mac: "none", ..LENIENT }),
        ("a mac of the plain text", Offer { mac: "hmac-sha2-256", ..LENIENT }),
        ("keys of RSA", Offer { key: "ssh-rsa,rsa-sha2-512", ..LENIENT }),
    ] {
        let heard = hears(&bed, &[offer.packet(), ecdh()], None).await;
        assert!(heard.iter().all(|kind| *kind == DISCONNECT), "{what}: {heard:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn packets_have_a_greatest_length() {
    let bed = Bed::new().await;
    let ignored = |len: usize| packet(&[&[IGNORE][..], &string(&vec![0; len])].concat());
    let heard =
        hears(&bed, &[ignored(200 << 10), LENIENT.packet(), ecdh()], Some(ECDH_REPLY)).await;
    assert_eq!(heard, [ECDH_REPLY]);
    // Nothing more than the length is waited for.
    for len in [260 << 10, 16 << 20, u32::MAX] {
        let heard = hears(&bed, &[len.to_be_bytes().to_vec(), vec![4; 64]], None).await;
        assert!(heard.iter().all(|kind| *kind == DISCONNECT), "{len}: {heard:?}");
    }
    let heard = hears(&bed, &[ignored(260 << 10), LENIENT.packet(), ecdh()], None).await;
    assert!(heard.iter().all(|kind| *kind == DISCONNECT), "{heard:?}");
}

/// A connection from one of the many addresses of loopback.
async fn from(source: u32, to: SocketAddr) -> std::io::Result<TcpStream> {
    let socket = TcpSocket::new_v4()?;
    let [_, a, b, c] = source.to_be_bytes();
    socket.bind(SocketAddr::from(([127, a + 1, b, c + 1], 0)))?;
    socket.connect(to).await
}

/// How many panics there were in this process since.
pub(crate) fn count_panics() -> &'static AtomicUsize {
    static PANICS: AtomicUsize = AtomicUsize::new(0);
    PANICS.store(0, Ordering::Relaxed);
    let before = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        PANICS.fetch_add(1, Ordering::Relaxed);
        before(info);
    }));
    &PANICS
}

/// A generator of numbers that are the same each time (xorshift64*).
pub(crate) struct Dice(pub(crate) u64);

impl Dice {
    pub(crate) fn roll(&mut self, sides: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        usize::try_from(self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33).unwrap() % sides
    }

    /// Changes some octets, leaves some out, and puts some in.
    pub(crate) fn spoil(&mut self, octets: &mut Vec<u8>) {
        for _ in 0..=self.roll(4) {
            let at = self.roll(octets.len().max(1));
            match self.roll(5) {
                0 => octets.truncate(at),
                1 => octets.insert(at.min(octets.len()), u8::try_from(self.roll(256)).unwrap()),
                2 if at < octets.len() => drop(octets.remove(at)),
                3 if at + 4 <= octets.len() => {
                    let wrong = [0, 1, 0x7fff_ffff, u32::MAX, 35_000][self.roll(5)];
                    octets[at..at + 4].copy_from_slice(&wrong.to_be_bytes());
                }
                _ => {
                    if let Some(octet) = octets.get_mut(at) {
                        *octet ^= 1 << self.roll(8);
                    }
                }
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn spoilt_handshakes_end_their_connections_alone() {
    let bed = Bed::new().await;
    let panics = count_panics();
    let mut dice = Dice(7);
    let begins = [&b"SSH-2.0-OpenSSH_9.2\r\n"[..], b"SSH-2.0-x\n"];
    for round in 0..600_u32 {
        let ignored = packet(&[&[IGNORE][..], &string(b"more")].concat());
        let mut octets = match round % 3 {
            0 => [begins[0], &STRICT.packet(), &ecdh(), &packet(&[NEWKEYS]), &[0; 64]].concat(),
            1 => [begins[1], &LENIENT.packet(), &ignored, &ecdh()].concat(),
            _ => [begins[0], &LENIENT.packet(), &ecdh(), &LENIENT.packet()].concat(),
        };
        dice.spoil(&mut octets);
        let mut stream = from(round % 50, bed.address).await.unwrap();
        let talk = async {
            stream.write_all(&octets).await.unwrap_or_default();
            stream.shutdown().await.unwrap_or_default();
            // An end, or a reset.
            stream.read_to_end(&mut Vec::new()).await.unwrap_or_default();
        };
        let ended = tokio::time::timeout(Duration::from_secs(5), talk).await;
        assert!(ended.is_ok(), "{round} goes on: {octets:?}");
    }
    assert_eq!(panics.load(Ordering::Relaxed), 0);
    assert_eq!(text(bed.run("echo ok")).await, "ok\n");
}

/// Opens connections from many addresses until it is dropped, and keeps those that are kept there.
async fn flood(to: SocketAddr, opened: &AtomicUsize) {
    let mut kept = std::collections::VecDeque::new();
    for n in 0_u32.. {
        // Ten of each address, before the next ones.
        let Ok(mut stream) = from(n / 10 % 300, to).await else {
            tokio::time::sleep(Duration::from_millis(1)).await;
            continue;
        };
        let says: &[u8] = match n % 3 {
            0 => b"",
            1 => b"SSH-2.0-ha",
            // The library makes room for the whole packet at once.
            _ => b"SSH-2.0-half\r\n\0\x04\0\0\x04\x14\0\0\0\0\0\0\0\0\0\0",
        };
        stream.write_all(says).await.unwrap_or_default();
        opened.fetch_add(1, Ordering::Relaxed);
        kept.push_back(stream);
        if kept.len() > 3000 {
            kept.pop_front();
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn strangers_of_many_addresses_keep_nobody_out_and_take_little_memory() {
    let limit = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit }).unwrap();
    let bed = Bed::new().await;
    // What it takes without them.
    assert_eq!(text(bed.run("echo ok")).await, "ok\n");
    let before = resident();
    let opened: &'static AtomicUsize = Box::leak(Box::default());
    let flooding = tokio::spawn(flood(bed.address, opened));
    let filled = async {
        while opened.load(Ordering::Relaxed) < 2 * Limits::default().strangers {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(PATIENCE, filled).await.expect("they come");
    let began = Instant::now();
    for _ in 0..3 {
        assert_eq!(text(bed.run("echo ok")).await, "ok\n");
    }
    assert!(began.elapsed() < Limits::default().grace, "only when the flood's time was up");
    assert!(!flooding.is_finished());
    let connections = usize::try_from(metric(&bed, "gantry_ssh_connections")).unwrap();
    assert!(connections > 900, "{connections}: that was no flood");
    // Those that make room have gone, or go.
    assert!(connections < Limits::default().strangers + 100, "{connections}");
    let grown = resident().saturating_sub(before);
    assert!(grown < 160 << 20, "{grown}");
    flooding.abort();
}
