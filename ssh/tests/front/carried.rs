//! Connections that a balancer carries: here one that says in a line of its own for whom it comes.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    process::Stdio,
    sync::Arc,
    time::Duration,
};

use async_trait::async_trait;
use gantry_ssh::{Balancers, Limits};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _, copy_bidirectional},
    net::{TcpListener, TcpSocket, TcpStream},
    process::Command,
};

use crate::bed::{Bed, Here, PATIENCE, output, text};

/// From where the balancer comes.
const BALANCER: &str = "127.0.0.9";

struct Lines;

#[async_trait]
impl Balancers for Lines {
    fn has(&self, address: IpAddr) -> bool {
        address.to_string() == BALANCER
    }

    async fn client(&self, stream: &mut TcpStream) -> io::Result<Option<(SocketAddr, SocketAddr)>> {
        let mut line = String::new();
        while !line.ends_with('\n') {
            line.push(stream.read_u8().await?.into());
        }
        if line == "itself\n" {
            return Ok(None);
        }
        let mut words = line.split_whitespace().map(str::parse);
        match (words.next(), words.next()) {
            (Some(Ok(client)), Some(Ok(local))) => Ok(Some((client, local))),
            _ => Err(io::Error::other("no such line")),
        }
    }
}

async fn bed(limits: Limits) -> Bed {
    Bed::changed(Arc::new(Here), |front| front.limited(limits).behind(Arc::new(Lines))).await
}

/// A connection of the balancer's.
async fn connect(bed: &Bed) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind(SocketAddr::new(BALANCER.parse().unwrap(), 0)).unwrap();
    socket.connect(bed.address).await.unwrap()
}

/// A balancer that says this line first; its port.
async fn balancer(bed: &Bed, line: &'static str) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let front = bed.address;
    tokio::spawn(async move {
        while let Ok((mut client, _)) = listener.accept().await {
            let socket = TcpSocket::new_v4().unwrap();
            socket.bind(SocketAddr::new(BALANCER.parse().unwrap(), 0)).unwrap();
            let mut carried = socket.connect(front).await.unwrap();
            carried.write_all(line.as_bytes()).await.unwrap();
            // Either may end first.
            tokio::spawn(async move { drop(copy_bidirectional(&mut client, &mut carried).await) });
        }
    });
    port
}

/// OpenSSH's client through a balancer at this port.
fn through(bed: &Bed, port: u16, command: &str) -> Command {
    let mut ssh = Command::new("ssh");
    ssh.args(["-F", "none", "-o", "BatchMode=yes", "-o", "IdentitiesOnly=yes"])
        .arg("-o")
        .arg(format!("UserKnownHostsFile={}", bed.path("known_hosts").display()))
        .arg("-o")
        .arg(format!("HostKeyAlias=[127.0.0.1]:{}", bed.address.port()))
        .arg("-i")
        .arg(bed.path("id"))
        .args(["-p", &port.to_string(), "root@127.0.0.1", command])
        .stdin(Stdio::null())
        .kill_on_drop(true);
    ssh
}

/// A connection that is to end has ended by then: sooner than the front's own grace is over, where none was set.
const ENDS: Duration = Duration::from_secs(10);

/// What comes until the end; nothing if it does not end.
async fn rest(stream: &mut TcpStream) -> Option<Vec<u8>> {
    let mut came = Vec::new();
    let read = tokio::time::timeout(ENDS, stream.read_to_end(&mut came)).await;
    read.ok().map(|read| {
        // A reset is an end as well.
        read.unwrap_or_default();
        came
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_is_that_of_the_client_whom_the_balancer_names() {
    let bed = bed(Limits::default()).await;
    let ssh = |port: u16| through(&bed, port, "echo $SSH_CONNECTION");
    let named = balancer(&bed, "192.0.2.7:4711 198.51.100.1:22\n").await;
    assert_eq!(text(ssh(named)).await, "192.0.2.7 4711 198.51.100.1 22\n");
    let six = balancer(&bed, "[2001:db8::7]:4711 [2001:db8::1]:22\n").await;
    assert_eq!(text(ssh(six)).await, "2001:db8::7 4711 2001:db8::1 22\n");
    let itself = balancer(&bed, "itself\n").await;
    assert!(text(ssh(itself)).await.starts_with("127.0.0.9 "));
    for other in ["nobody at all\n", ""] {
        let ended = output(ssh(balancer(&bed, other).await)).await;
        assert_eq!(ended.status.code(), Some(255), "{other:?}");
    }
    // Who is no balancer names nobody.
    let mut stream = TcpStream::connect(bed.address).await.unwrap();
    stream.write_all(b"192.0.2.7:4711 198.51.100.1:22\n").await.unwrap();
    let mut banner = [0; 4];
    tokio::time::timeout(PATIENCE, stream.read_exact(&mut banner)).await.unwrap().unwrap();
    assert_eq!(&banner, b"SSH-");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_balancer_that_is_silent_is_a_stranger_like_any_other() {
    // Long enough for a client that logs in on a busy machine.
    let grace = Duration::from_secs(5);
    let bed = bed(Limits { grace, strangers: 3, ..Limits::default() }).await;
    let mut silent = connect(&bed).await;
    let mut slow = connect(&bed).await;
    slow.write_all(b"192.0.2.7:4711 198.51").await.unwrap();
    // It has said for whom it comes, and that one says nothing: the time is counted from the beginning.
    let mut named = connect(&bed).await;
    named.write_all(b"192.0.2.8:1 198.51.100.1:22\n").await.unwrap();
    for stream in [&mut silent, &mut slow] {
        assert_eq!(rest(stream).await.expect("it ends in time"), b"");
    }
    assert!(rest(&mut named).await.expect("it ends in time").starts_with(b"SSH-2.0-"));
    // All of them have left their places.
    let port = balancer(&bed, "192.0.2.7:4711 198.51.100.1:22\n").await;
    assert_eq!(text(through(&bed, port, "echo in")).await, "in\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn strangers_count_by_the_address_that_is_named() {
    let bed = bed(Limits { strangers_of_one: 1, ..Limits::default() }).await;
    let mut inside = Vec::new();
    for last in 1..5 {
        let mut stream = connect(&bed).await;
        let line = format!("192.0.2.{last}:1 198.51.100.1:22\n");
        stream.write_all(line.as_bytes()).await.unwrap();
        let mut banner = [0; 4];
        tokio::time::timeout(PATIENCE, stream.read_exact(&mut banner)).await.unwrap().unwrap();
        inside.push(stream);
    }
    let mut another = connect(&bed).await;
    another.write_all(b"192.0.2.3:9 198.51.100.1:22\n").await.unwrap();
    assert_eq!(rest(&mut another).await.expect("it is turned away"), b"");
}
