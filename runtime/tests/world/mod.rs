//! The world outside of the host.

use std::{
    io::{Read as _, Write as _},
    net::{TcpListener, UdpSocket},
    os::fd::AsFd as _,
    sync::{Arc, Mutex},
};

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use tokio::{process::Command, sync::oneshot};

/// What its server of names says of every name.
pub(crate) const NAMED: [u8; 4] = [192, 0, 2, 77];

/// A network namespace that plays the world outside: one link to the host, a server on port 9000, and
/// one of names.
pub(crate) struct World {
    /// Its name.
    pub(crate) name: String,
    /// The host's address to it.
    pub(crate) host: String,
    /// Its own.
    pub(crate) own: String,
    asked: Arc<Mutex<Vec<(&'static str, String)>>>,
}

impl World {
    pub(crate) async fn new() -> Self {
        let pid = std::process::id();
        let (high, low) = (pid >> 6 & 255, (pid & 63) * 4);
        let name = format!("gantrytest{pid}");
        let (host, own) =
            (format!("198.18.{high}.{}", low + 1), format!("198.18.{high}.{}", low + 2));
        let link = format!("gw{pid}");
        for line in [
            format!("netns add {name}"),
            format!("link add {link} type veth peer name eth0 netns {name}"),
            format!("addr add {host}/30 dev {link}"),
            format!("link set {link} up"),
            format!("-n {name} addr add {own}/30 dev eth0"),
            format!("-n {name} link set eth0 up"),
            format!("-n {name} link set lo up"),
            format!("-n {name} route add default via {host}"),
        ] {
            let status = Command::new("ip").args(line.split(' ')).status().await.unwrap();
            assert!(status.success(), "ip {line}");
        }
        let world = Self { name, host, own, asked: Arc::default() };
        let tcp = |port| move |own: &str| TcpListener::bind((own, port)).unwrap();
        world
            .serve(tcp(9000), |listener| {
                let (mut stream, peer) = listener.accept().unwrap();
                // Who has left already hears nothing.
                stream.write_all(format!("seen from {}\n", peer.ip()).as_bytes()).unwrap_or(());
            })
            .await;
        let asked = Arc::clone(&world.asked);
        world
            .serve(
                |own| UdpSocket::bind((own, 53)).unwrap(),
                move |socket| {
                    let mut query = [0; 512];
                    let (len, peer) = socket.recv_from(&mut query).unwrap();
                    asked.lock().unwrap().push(("udp", text(&query[..len])));
                    socket.send_to(&answer(&query[..len]), peer).unwrap();
                },
            )
            .await;
        let asked = Arc::clone(&world.asked);
        world
            .serve(tcp(53), move |listener| {
                let (mut stream, _) = listener.accept().unwrap();
                let (mut len, mut query) = ([0; 2], Vec::new());
                stream.read_exact(&mut len).unwrap();
                query.resize(u16::from_be_bytes(len).into(), 0);
                stream.read_exact(&mut query).unwrap();
                asked.lock().unwrap().push(("tcp", text(&query)));
                let answer = answer(&query);
                let len = u16::try_from(answer.len()).unwrap().to_be_bytes();
                stream.write_all(&[&len[..], &answer].concat()).unwrap();
            })
            .await;
        world
    }

    /// Serves on a thread of its own, because it stays in that namespace. It ends with the test's process.
    async fn serve<T>(
        &self,
        open: impl FnOnce(&str) -> T + Send + 'static,
        mut once: impl FnMut(&T) + Send + 'static,
    ) {
        let (namespace, own) = (format!("/run/netns/{}", self.name), self.own.clone());
        let (ready, listening) = oneshot::channel();
        std::thread::spawn(move || -> ! {
            let namespace = std::fs::File::open(namespace).unwrap();
            let kind = Some(LinkNameSpaceType::Network);
            move_into_link_name_space(namespace.as_fd(), kind).unwrap();
            let socket = open(&own);
            ready.send(()).unwrap();
            loop {
                once(&socket);
            }
        });
        listening.await.unwrap();
    }

    /// Forgets what was asked for.
    pub(crate) fn forget(&self) {
        self.asked.lock().unwrap().clear();
    }

    /// The names that were asked for, and over what.
    pub(crate) fn asked(&self) -> Vec<(&'static str, String)> {
        self.asked.lock().unwrap().clone()
    }
}

/// The question as letters.
fn text(query: &[u8]) -> String {
    let is_of_name = |octet: &u8| octet.is_ascii_alphanumeric() || *octet == b'-';
    query.iter().skip(12).copied().filter(is_of_name).map(char::from).collect()
}

/// An answer to a question for an IPv4 address; of others there are none.
fn answer(query: &[u8]) -> Vec<u8> {
    let name = query[12..].iter().position(|octet| *octet == 0).unwrap();
    let question = &query[12..12 + name + 5];
    let is_v4 = question[name + 1..name + 3] == [0, 1];
    let head = [query[0], query[1], 0x81, 0x80, 0, 1, 0, u8::from(is_v4), 0, 0, 0, 0];
    let record = [0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4];
    let record = if is_v4 { [&record[..], &NAMED].concat() } else { Vec::new() };
    [&head[..], question, &record].concat()
}

impl Drop for World {
    fn drop(&mut self) {
        let deleted = std::process::Command::new("ip").args(["netns", "del", &self.name]).status();
        assert!(deleted.is_ok_and(|status| status.success()) || std::thread::panicking());
    }
}
