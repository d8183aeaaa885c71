//! Bodies that pass while they come, and connections that leave HTTP.

use std::{
    io::{Read, Write},
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    sync::mpsc,
    time::Duration,
};

use gantry_model::Phase;

use crate::{
    bed::{Bed, CONTAINER, Setup, host},
    origin::send,
};

const WAIT: Duration = Duration::from_secs(10);

/// A container's program that the test itself speaks for, one connection at a time.
fn by_hand(bed: &Bed) -> mpsc::Receiver<TcpStream> {
    bed.set(CONTAINER, Phase::Running, 1);
    let listener = TcpListener::bind(SocketAddr::new(bed.container_address(2), 3000)).unwrap();
    let (sender, streams) = mpsc::channel();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let stream = stream.unwrap();
            stream.set_read_timeout(Some(WAIT)).unwrap();
            if sender.send(stream).is_err() {
                return;
            }
        }
    });
    streams
}

/// Reads until `end` has come.
fn read_until(stream: &mut TcpStream, end: &str) -> String {
    let mut text = Vec::new();
    let mut octet = [0; 1];
    while !text.ends_with(end.as_bytes()) {
        stream.read_exact(&mut octet).unwrap();
        text.extend_from_slice(&octet);
    }
    String::from_utf8(text).unwrap()
}

#[test]
fn an_event_reaches_the_client_when_it_happens() {
    let bed = Bed::new(40);
    let streams = by_hand(&bed);
    let name = host(CONTAINER, "http-3000");
    let mut client = bed.client();
    client
        .send(format!("GET /events HTTP/1.1\r\nHost: {name}\r\nAccept: text/event-stream\r\n\r\n"));
    let mut container = streams.recv_timeout(WAIT).unwrap();
    read_until(&mut container, "\r\n\r\n");
    send(
        &mut container,
        "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n",
    );
    assert!(client.head().contains("text/event-stream"), "the head alone passes at once");
    for number in 0..3 {
        let event = format!("data: {number}\n\n");
        send(&mut container, format!("{:x}\r\n{event}\r\n", event.len()));
        // The container sends nothing more until the client has this.
        assert_eq!(client.chunk().unwrap(), event.as_bytes());
    }
    drop(container);
    assert!(client.is_closed());
}

#[test]
fn octets_of_a_known_length_are_not_held_back_either() {
    let bed = Bed::new(41);
    let streams = by_hand(&bed);
    let name = host(CONTAINER, "http-3000");
    let mut client = bed.client();
    client.send(format!("GET / HTTP/1.1\r\nHost: {name}\r\n\r\n"));
    let mut container = streams.recv_timeout(WAIT).unwrap();
    read_until(&mut container, "\r\n\r\n");
    send(&mut container, "HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nabc");
    client.head();
    assert_eq!(client.exactly(3), b"abc");
    send(&mut container, "def");
    assert_eq!(client.exactly(3), b"def");
}

#[test]
fn an_upload_reaches_the_container_when_it_comes() {
    let bed = Bed::new(42);
    let streams = by_hand(&bed);
    let name = host(CONTAINER, "http-3000");
    let mut client = bed.client();
    client.send(format!(
        "POST / HTTP/1.1\r\nHost: {name}\r\nTransfer-Encoding: chunked\r\nTrailer: X-Sum\r\n\r\n\
         3\r\nabc\r\n"
    ));
    let mut container = streams.recv_timeout(WAIT).unwrap();
    let head = read_until(&mut container, "\r\n\r\n").to_lowercase();
    assert!(
        head.contains("transfer-encoding: chunked") && head.contains("trailer: x-sum"),
        "{head}"
    );
    assert_eq!(read_until(&mut container, "abc\r\n"), "3\r\nabc\r\n");
    client.send("4\r\ndefg\r\n");
    assert_eq!(read_until(&mut container, "defg\r\n"), "4\r\ndefg\r\n");
    client.send("0\r\nX-Sum: 7\r\n\r\n");
    assert_eq!(read_until(&mut container, "\r\n\r\n").to_lowercase(), "0\r\nx-sum: 7\r\n\r\n");
    send(&mut container, "HTTP/1.1 204 No Content\r\n\r\n");
    assert_eq!(client.reply().status, 204);
}

#[test]
fn trailers_of_an_answer_reach_clients_that_take_them() {
    let bed = Bed::new(43);
    let origin = bed.running_with(|_, stream| {
        send(
            stream,
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-Sum\r\n\r\n\
             3\r\nabc\r\n0\r\nX-Sum: 7\r\n\r\n",
        );
    });
    let name = host(CONTAINER, "http-3000");
    let mut client = bed.client();
    let answer = client.get(&name, "/", "TE: trailers\r\n");
    assert_eq!(answer.text().to_lowercase(), "abcx-sum: 7\n");
    assert_eq!(origin.last().values("te"), ["trailers"]);
    let answer = client.get(&name, "/", "");
    assert_eq!(answer.text(), "abc", "others get the body alone");
    assert_eq!(origin.connections(), 1);
}

#[test]
fn the_body_is_asked_for_when_a_container_is_there_to_take_it() {
    let bed = Bed::new(44);
    let streams = by_hand(&bed);
    let name = host(CONTAINER, "http-3000");
    let post = |name: &str| {
        format!(
            "POST / HTTP/1.1\r\nHost: {name}\r\nContent-Length: 3\r\nExpect: 100-continue\r\n\r\n"
        )
    };
    let mut client = bed.client();
    client.send(post(&host(&"c".repeat(24), "http-3000")));
    assert_eq!(client.reply().status, 404, "nothing there: not asked for");
    let mut client = bed.client();
    client.send(post(&name));
    let mut container = streams.recv_timeout(WAIT).unwrap();
    let head = read_until(&mut container, "\r\n\r\n");
    assert!(head.contains("expect: 100-continue\r\n"), "{head}");
    send(&mut container, "HTTP/1.1 100 Continue\r\n\r\n");
    assert_eq!(client.head(), "HTTP/1.1 100 Continue\r\n\r\n");
    client.send("abc");
    read_until(&mut container, "abc");
    send(&mut container, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
    assert_eq!(client.reply().status, 200);
    let mut client = bed.client();
    let answer = client.get(&name, "/", "Expect: something-else\r\n");
    assert_eq!((answer.status, answer.code()), (417, Some("EXPECTATION_FAILED")));
}

const WEBSOCKET: &str = "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
                         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";

#[test]
fn a_websocket_passes_both_ways_until_one_side_ends() {
    let bed = Bed::new(45);
    let streams = by_hand(&bed);
    let name = host(CONTAINER, "http-3000");
    let mut client = bed.tls_client(&name);
    client.send(format!("GET /socket HTTP/1.1\r\nHost: {name}\r\n{WEBSOCKET}\r\n"));
    let mut container = streams.recv_timeout(WAIT).unwrap();
    let head = read_until(&mut container, "\r\n\r\n").to_lowercase();
    for want in ["connection: upgrade\r\n", "upgrade: websocket\r\n", "sec-websocket-key: dghl"] {
        assert!(head.contains(want), "{want} in {head}");
    }
    send(
        &mut container,
        "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\nfirst",
    );
    let head = client.head();
    assert!(head.starts_with("HTTP/1.1 101"), "{head}");
    assert!(head.contains("sec-websocket-accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo="), "{head}");
    assert_eq!(client.exactly(5), b"first", "octets right behind the 101 are not lost");
    let large = vec![7; 300_000];
    let sent = large.clone();
    let reader = std::thread::spawn(move || {
        let mut read = vec![0; 300_000];
        container.read_exact(&mut read).unwrap();
        container.write_all(b"done").unwrap();
        (container, read)
    });
    client.send(sent);
    let (container, read) = reader.join().unwrap();
    assert!(read == large);
    assert_eq!(client.exactly(4), b"done");
    assert!((bed.metric("gantry_proxy_tunnels_open") - 1.0).abs() < f64::EPSILON);
    drop(container);
    assert!(client.is_closed());
    drop(client);
    bed.wait_metric("gantry_proxy_tunnels_open", 0.0);
    let lines = bed.finish();
    let line = lines.iter().find(|line| line["status"] == 101).unwrap();
    assert_eq!((&line["received"], &line["sent"]), (&300_000.into(), &9.into()), "{line}");
}

#[test]
fn a_side_of_a_tunnel_that_has_said_all_still_hears_the_other() {
    let bed = Bed::new(179);
    let streams = by_hand(&bed);
    let name = host(CONTAINER, "http-3000");
    for client_first in [true, false] {
        let mut client = bed.tls_client(&name);
        client.send(format!("GET /socket HTTP/1.1\r\nHost: {name}\r\n{WEBSOCKET}\r\n"));
        let mut container = streams.recv_timeout(WAIT).unwrap();
        read_until(&mut container, "\r\n\r\n");
        send(
            &mut container,
            "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
        );
        assert!(client.head().starts_with("HTTP/1.1 101"));
        let mut read = Vec::new();
        if client_first {
            client.send_last("all of mine");
            container.read_to_end(&mut read).unwrap();
            assert_eq!(read, b"all of mine");
            send(&mut container, "an answer");
            assert_eq!(client.exactly(9), b"an answer");
            drop(container);
            assert!(client.is_closed());
        } else {
            send(&mut container, "all of mine");
            container.shutdown(Shutdown::Write).unwrap();
            assert_eq!(client.exactly(11), b"all of mine");
            client.send_last("an answer");
            container.read_to_end(&mut read).unwrap();
            assert_eq!(read, b"an answer");
        }
    }
}

#[test]
fn nothing_behind_an_upgrade_passes_before_the_101() {
    let bed = Bed::new(46);
    let streams = by_hand(&bed);
    let name = host(CONTAINER, "http-3000");
    let smuggled = format!("GET /smuggled HTTP/1.1\r\nHost: {name}\r\n\r\n");
    let mut client = bed.client();
    client.send(format!("GET /socket HTTP/1.1\r\nHost: {name}\r\n{WEBSOCKET}\r\n{smuggled}"));
    let mut container = streams.recv_timeout(WAIT).unwrap();
    let head = read_until(&mut container, "\r\n\r\n");
    assert!(head.starts_with("GET /socket"));
    container.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
    let early = container.read(&mut [0; 64]);
    assert!(early.is_err(), "nothing came: {early:?}");
    container.set_read_timeout(Some(WAIT)).unwrap();
    // Refused: what stands behind is the client's next request, by a request of its own.
    send(&mut container, "HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\n\r\nno");
    let answer = client.reply();
    assert_eq!((answer.status, answer.text().as_str()), (403, "no"));
    let head = read_until(&mut container, "\r\n\r\n");
    assert!(head.starts_with("GET /smuggled"), "{head}");
    assert!(head.contains("x-forwarded-for: 127.0.0.1"), "judged as any other");
    send(&mut container, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
    assert_eq!(client.reply().status, 200);
    // Granted: what stood behind is the tunnel's.
    let mut client = bed.client();
    client.send(format!("GET /socket HTTP/1.1\r\nHost: {name}\r\n{WEBSOCKET}\r\nearly"));
    let mut container = streams.recv_timeout(WAIT).unwrap();
    read_until(&mut container, "\r\n\r\n");
    send(
        &mut container,
        "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
    );
    assert!(client.head().contains("101"));
    assert_eq!(read_until(&mut container, "early"), "early");
}

#[test]
fn a_container_cannot_switch_to_what_was_not_asked_for() {
    let bed = Bed::new(47);
    let _origin = bed.running_with(|_, stream| {
        send(
            stream,
            "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: other\r\n\r\n",
        );
    });
    let answer = bed.client().get(&host(CONTAINER, "http-3000"), "/", WEBSOCKET);
    assert_eq!((answer.status, answer.code()), (502, Some("UPSTREAM_BROKEN")));
}

#[test]
fn stopping_a_container_cuts_its_streams() {
    let bed = Bed::new(48);
    let streams = by_hand(&bed);
    let name = host(CONTAINER, "http-3000");
    let mut socket = bed.client();
    socket.send(format!("GET /socket HTTP/1.1\r\nHost: {name}\r\n{WEBSOCKET}\r\n"));
    let mut one = streams.recv_timeout(WAIT).unwrap();
    read_until(&mut one, "\r\n\r\n");
    send(
        &mut one,
        "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
    );
    socket.head();
    let mut events = bed.client();
    events.send(format!("GET /events HTTP/1.1\r\nHost: {name}\r\n\r\n"));
    let mut two = streams.recv_timeout(WAIT).unwrap();
    read_until(&mut two, "\r\n\r\n");
    send(&mut two, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n");
    events.head();
    assert_eq!(events.chunk().unwrap(), b"x");
    let mut waiting = bed.client();
    waiting.send(format!("GET /slow HTTP/1.1\r\nHost: {name}\r\n\r\n"));
    let mut three = streams.recv_timeout(WAIT).unwrap();
    read_until(&mut three, "\r\n\r\n");

    // A paused container keeps them, a stopped one does not.
    bed.set(CONTAINER, Phase::Paused, 1);
    send(&mut one, "still");
    assert_eq!(socket.exactly(5), b"still");
    bed.set(CONTAINER, Phase::Stopping, 1);
    assert!(socket.is_closed());
    assert!(events.is_closed());
    assert_eq!(waiting.reply().code(), Some("CONTAINER_STOPPED"));
    for stream in [&mut one, &mut two, &mut three] {
        assert_eq!(
            stream.read(&mut [0; 16]).unwrap_or(0),
            0,
            "the container's side is closed, too"
        );
    }
}

#[test]
fn silent_streams_end() {
    let mut setup = Setup::default();
    setup.limits.stream_idle = Duration::from_millis(300);
    let bed = Bed::with(49, setup);
    let streams = by_hand(&bed);
    let name = host(CONTAINER, "http-3000");
    let mut client = bed.client();
    client.send(format!("GET /socket HTTP/1.1\r\nHost: {name}\r\n{WEBSOCKET}\r\n"));
    let mut container = streams.recv_timeout(WAIT).unwrap();
    read_until(&mut container, "\r\n\r\n");
    send(
        &mut container,
        "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
    );
    client.head();
    assert!(client.is_closed());
    let mut client = bed.client();
    client.send(format!("GET / HTTP/1.1\r\nHost: {name}\r\n\r\n"));
    let mut container = streams.recv_timeout(WAIT).unwrap();
    read_until(&mut container, "\r\n\r\n");
    send(&mut container, "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nab");
    client.head();
    assert_eq!(client.rest(), b"ab");
}

#[test]
fn an_answer_that_nobody_takes_stops_the_container_and_not_the_edge() {
    let bed = Bed::new(50);
    let streams = by_hand(&bed);
    let name = host(CONTAINER, "http-3000");
    let mut client = bed.client();
    client.send(format!("GET / HTTP/1.1\r\nHost: {name}\r\n\r\n"));
    let mut container = streams.recv_timeout(WAIT).unwrap();
    read_until(&mut container, "\r\n\r\n");
    send(&mut container, "HTTP/1.1 200 OK\r\n\r\n");
    client.head();
    // The client reads nothing: sooner or later the container cannot write either.
    container.set_write_timeout(Some(Duration::from_millis(500))).unwrap();
    let block = vec![0; 1 << 20];
    let stuck = (0..64).any(|_| container.write_all(&block).is_err());
    assert!(stuck, "64 MiB were taken for a client that reads nothing");
    drop(client);
    let mut container_gone = [0; 1];
    assert_eq!(container.read(&mut container_gone).unwrap_or(0), 0, "and the client's end ends it");
}
