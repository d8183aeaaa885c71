//! What one client, one container and one worker may use.

use std::{io::Read, sync::mpsc, time::Duration};

use gantry_proxy::{Limits, Rate};

use crate::{
    bed::{Bed, CONTAINER, Setup, host},
    client::{Client, Reply},
    http2::{self, END_HEADERS, END_STREAM, HEADERS},
    origin::{Origin, reply, send},
    python,
};

fn bed(number: u8, change: impl FnOnce(&mut Limits)) -> Bed {
    let mut setup = Setup { workers: 2, ..Setup::default() };
    change(&mut setup.limits);
    Bed::with(number, setup)
}

fn refused(limit: &str) -> String {
    format!("gantry_proxy_refused_total{{limit=\"{limit}\"}}")
}

/// A program that answers when it is told to; telling once is enough for one request.
fn held(bed: &Bed) -> (Origin, mpsc::Sender<()>) {
    let (tell, told) = mpsc::channel();
    let told = std::sync::Mutex::new(told);
    let origin = bed.running_with(move |seen, stream| {
        if !seen.values("x-held").is_empty() {
            told.lock().unwrap().recv_timeout(Duration::from_secs(20)).unwrap();
        }
        reply(stream, "", "done");
    });
    (origin, tell)
}

fn ask(name: &str, path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: {name}\r\nX-Held: 1\r\n\r\n")
}

#[test]
fn one_address_makes_so_many_requests_in_a_while() {
    let rate = Rate { per_second: 1, burst: 40 };
    let bed = bed(160, |limits| limits.request_rate = Some(rate));
    let _origin = bed.running();
    let name = host(CONTAINER, "http-3000");
    let mut replies: Vec<Reply> = Vec::new();
    for round in 0..60 {
        // New connections, so that they go to different workers.
        if round % 3 == 0 {
            replies.push(bed.client().get(&name, "/", ""));
        } else {
            replies.push(bed.tls_client(&name).get(&name, "/", "Accept: application/json\r\n"));
        }
    }
    let served = replies.iter().filter(|reply| reply.status == 200).count();
    // What is earned meanwhile comes on top.
    assert!((40..50).contains(&served), "{served} of 60");
    let late = replies.iter().rfind(|reply| reply.status != 200).unwrap();
    assert_eq!((late.status, late.code()), (429, Some("TOO_MANY_REQUESTS")));
    assert_eq!(late.value("retry-after"), Some("1"));
    assert!(bed.metric(&refused("address_request_rate")) >= 10.0);
    let mut client = bed.client();
    let page = loop {
        let page = client.get("www.example.com", "/", "Sec-Fetch-Mode: navigate\r\n");
        if page.status == 429 {
            break page.text();
        }
        assert_eq!(page.status, 404, "on the same connection, before its host is looked at");
    };
    assert!(page.contains("<h1>Too many requests</h1>"), "{page}");
    let mut redirect = Client::connect(bed.http());
    assert!(
        (0..5).any(|_| redirect.get(&name, "/", "").status == 429),
        "redirects are requests, too"
    );
}

#[test]
fn a_page_of_a_hundred_things_does_not_suffer() {
    let rate = Rate { per_second: 50, burst: 2000 };
    let bed = bed(161, |limits| limits.request_rate = Some(rate));
    let _origin = bed.running();
    let name = host(CONTAINER, "http-3000");
    for _ in 0..5 {
        let mut clients: Vec<_> = (0..6).map(|_| bed.tls_client(&name)).collect();
        for at in 0..102 {
            assert_eq!(clients[at % 6].get(&name, "/", "").status, 200);
        }
    }
}

#[test]
fn one_container_has_so_many_requests_under_way() {
    let bed = bed(162, |limits| limits.requests_per_container_max = 3);
    let (origin, tell) = held(&bed);
    let name = host(CONTAINER, "http-3000");
    let mut clients: Vec<_> = (0..3).map(|_| bed.client()).collect();
    for client in &mut clients {
        client.send(ask(&name, "/held"));
    }
    origin.wait_seen(3);
    let busy = bed.tls_client(&name).get(&name, "/", "Accept: application/json\r\n");
    assert_eq!((busy.status, busy.code()), (503, Some("CONTAINER_BUSY")));
    assert_eq!(busy.value("retry-after"), Some("1"));
    bed.wait_metric(&refused("container_requests"), 1.0);
    bed.wait_metric("gantry_proxy_requests_active", 3.0);
    let other = "cccccccccccccccccccccccc";
    bed.set(other, gantry_model::Phase::Running, 1);
    let reply = bed.client().get(&host(other, "http-3000"), "/", "");
    assert_eq!(reply.status, 200, "other containers do not notice");
    (0..3).for_each(|_| tell.send(()).unwrap());
    for client in &mut clients {
        assert_eq!(client.reply().status, 200);
    }
    assert_eq!(clients[0].get(&name, "/", "").status, 200, "what ended makes room");
    bed.wait_metric("gantry_proxy_requests_active", 0.0);
}

#[test]
fn a_tunnel_and_a_body_that_is_not_read_count_until_they_end() {
    let bed = bed(163, |limits| limits.requests_per_container_max = 2);
    let _origin = bed.running_with(|seen, stream| {
        if seen.line().contains("/tunnel") {
            send(stream, "HTTP/1.1 101 Go\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n");
            drop(stream.read(&mut [0; 16]));
        } else if seen.line().contains("/stream") {
            send(stream, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n");
            drop(stream.read(&mut [0; 16]));
        } else {
            reply(stream, "", "done");
        }
    });
    let name = host(CONTAINER, "http-3000");
    let mut tunnel = bed.client();
    let upgrade = "Connection: upgrade\r\nUpgrade: websocket\r\n";
    tunnel.send(format!("GET /tunnel HTTP/1.1\r\nHost: {name}\r\n{upgrade}\r\n"));
    assert!(tunnel.head().starts_with("HTTP/1.1 101"));
    let mut stream = bed.client();
    stream.send(ask(&name, "/stream"));
    assert!(stream.head().starts_with("HTTP/1.1 200"));
    let (mut client, mut kept) = (bed.client(), Vec::new());
    assert_eq!(client.get(&name, "/", "").code(), Some("CONTAINER_BUSY"));
    for open in [tunnel, stream] {
        // The gauge follows at the next tick: only from 2 on does a 1 tell that there is room.
        bed.wait_metric("gantry_proxy_requests_active", 2.0);
        drop(open);
        bed.wait_metric("gantry_proxy_requests_active", 1.0);
        assert_eq!(client.get(&name, "/", "").status, 200);
        let mut again = bed.client();
        again.send(ask(&name, "/stream"));
        assert!(again.head().starts_with("HTTP/1.1 200"));
        kept.push(again);
    }
}

#[test]
fn the_streams_of_one_connection_are_counted_one_by_one() {
    let bed = bed(164, |limits| limits.requests_per_container_max = 2);
    let (origin, tell) = held(&bed);
    let name = host(CONTAINER, "http-3000");
    let mut client = http2::connect(&bed, &name);
    let fields = [http2::get(&name), http2::field("x-held", "1")].concat();
    for stream in [1, 3, 5] {
        client.send(http2::frame(HEADERS, END_STREAM | END_HEADERS, stream, &fields));
        origin.wait_seen(if stream == 1 { 1 } else { 2 });
    }
    let (_, body) = http2::answer(&mut client, 5).unwrap();
    assert!(String::from_utf8_lossy(&body).starts_with("the container has as many requests"));
    // The gauge is set from time to time: what it says next is from afterwards.
    bed.wait_metric("gantry_proxy_requests_active", 2.0);
    (0..2).for_each(|_| tell.send(()).unwrap());
    bed.wait_metric("gantry_proxy_requests_active", 0.0);
    client.send(http2::frame(HEADERS, END_STREAM | END_HEADERS, 7, &http2::get(&name)));
    let (head, _) = http2::answer(&mut client, 7).unwrap();
    assert_eq!(head[0], 0x88, "the connection goes on");
}

#[test]
fn one_worker_has_so_many_requests_under_way() {
    let mut setup = Setup::default();
    setup.limits.requests_active_max = 1;
    let bed = Bed::with(165, setup);
    let (origin, tell) = held(&bed);
    let name = host(CONTAINER, "http-3000");
    let mut first = bed.client();
    first.send(ask(&name, "/held"));
    origin.wait_seen(1);
    let busy = bed.client().get(&name, "/", "");
    assert_eq!((busy.status, busy.code()), (503, Some("EDGE_BUSY")));
    assert_eq!(busy.value("retry-after"), Some("1"));
    bed.wait_metric(&refused("worker_requests"), 1.0);
    tell.send(()).unwrap();
    assert_eq!(first.reply().status, 200);
    assert_eq!(first.get(&name, "/", "").status, 200);
}

#[test]
fn one_address_has_so_many_handshakes_under_way() {
    let bed = bed(166, |limits| limits.handshakes_per_address_max = 2);
    let _origin = bed.running();
    let name = host(CONTAINER, "http-3000");
    let mut half: Vec<_> = (0..2).map(|_| Client::connect(bed.https())).collect();
    for client in &mut half {
        client.send([22, 3, 1]);
    }
    bed.wait_metric("gantry_proxy_tls_handshakes_active", 2.0);
    assert!(Client::connect(bed.https()).is_closed());
    bed.wait_metric(&refused("address_handshakes"), 1.0);
    drop(half);
    bed.wait_metric("gantry_proxy_tls_handshakes_active", 0.0);
    assert_eq!(bed.tls_client(&name).get(&name, "/", "").status, 200);
}

#[test]
fn one_worker_has_so_many_handshakes_under_way() {
    let mut setup = Setup::default();
    setup.limits.handshakes_max = 1;
    let bed = Bed::with(167, setup);
    let mut half = Client::connect(bed.https());
    half.send([22, 3, 1]);
    bed.wait_metric("gantry_proxy_tls_handshakes_active", 1.0);
    assert!(Client::connect(bed.https()).is_closed());
    bed.wait_metric(&refused("worker_handshakes"), 1.0);
}

#[test]
fn one_address_makes_so_many_handshakes_in_a_while() {
    let rate = Rate { per_second: 1, burst: 5 };
    let bed = bed(168, |limits| limits.handshake_rate = Some(rate));
    let _origin = bed.running();
    let name = host(CONTAINER, "http-3000");
    for _ in 0..5 {
        assert_eq!(bed.tls_client(&name).get(&name, "/", "").status, 200);
    }
    let closed = (0..3).filter(|_| {
        let mut client = Client::connect(bed.https());
        // No handshake, which who is admitted hears at once.
        client.send("GET / HTTP/1.1\r\n\r\n");
        client.is_closed()
    });
    assert!(closed.count() > 0);
    assert!(bed.metric(&refused("address_handshake_rate")) >= 1.0);
    assert_eq!(bed.client().get(&name, "/", "").status, 200, "other requests are no handshakes");
}

#[test]
fn one_worker_has_so_many_connections() {
    let mut setup = Setup::default();
    setup.limits.connections_max = 2;
    let bed = Bed::with(169, setup);
    let _origin = bed.running();
    let name = host(CONTAINER, "http-3000");
    let mut clients = [bed.client(), bed.client()];
    for client in &mut clients {
        assert_eq!(client.get(&name, "/", "").status, 200);
    }
    assert!(bed.client().is_closed());
    bed.wait_metric(&refused("worker_connections"), 1.0);
}

/// An edge that lets bodies of 1000 octets pass, and a container that says how long each was.
fn small_bodies(number: u8) -> (Bed, Origin) {
    let mut setup = Setup::default();
    setup.limits.body_bytes_max = Some(1000);
    let bed = Bed::with(number, setup);
    let origin = bed.running_with(|seen, stream| reply(stream, "", &seen.body.len().to_string()));
    (bed, origin)
}

#[test]
fn a_body_may_be_as_large_as_the_limit_and_no_larger() {
    let (bed, origin) = small_bodies(58);
    let name = host(CONTAINER, "http-3000");
    let post = |framing: &str| {
        format!("POST / HTTP/1.1\r\nHost: {name}\r\nAccept: application/json\r\n{framing}\r\n\r\n")
    };
    let mut client = bed.client();
    client.send(post("Content-Length: 1000") + &"x".repeat(1000));
    assert_eq!(client.reply().text(), "1000");
    client.send(
        post("Transfer-Encoding: chunked") + &format!("3e8\r\n{}\r\n0\r\n\r\n", "x".repeat(1000)),
    );
    assert_eq!(client.reply().text(), "1000");
    // Before a single octet of it came.
    client.send(post("Content-Length: 1001"));
    let answer = client.reply();
    assert_eq!((answer.status, answer.code()), (413, Some("BODY_TOO_LARGE")));
    assert!(answer.text().contains("\"statusCode\":413"), "{answer:?}");
    assert!(client.is_closed());
    // Of a length that nobody knows, while it comes; and the client still gets its answer.
    let mut client = bed.client();
    client.send(post("Transfer-Encoding: chunked") + "3e8\r\n" + &"x".repeat(1000) + "\r\n");
    client.send("100000\r\n".to_owned() + &"x".repeat(300_000));
    let answer = client.reply();
    assert_eq!((answer.status, answer.code()), (413, Some("BODY_TOO_LARGE")));
    assert!(client.is_closed());
    assert_eq!(origin.seen().len(), 2, "no part of a body passes for a whole one");
    bed.wait_metric("gantry_proxy_errors_total{code=\"BODY_TOO_LARGE\"}", 2.0);
    bed.wait_metric(&refused("body_bytes"), 2.0);
}

#[test]
fn a_stream_with_too_large_a_body_ends_alone() {
    let (bed, origin) = small_bodies(59);
    let name = host(CONTAINER, "http-3000");
    let mut client = http2::connect(&bed, &name);
    let mut post = http2::get(&name);
    post[0] = 0x83;
    for (stream, size, want) in [(1, 1000, "1000"), (3, 1001, "is larger than"), (5, 10, "10")] {
        client.send(http2::frame(HEADERS, END_HEADERS, stream, &post));
        client.send(http2::frame(http2::DATA, END_STREAM, stream, &vec![b'x'; size]));
        let (_, told) = http2::answer(&mut client, stream).unwrap();
        let told = String::from_utf8(told).unwrap();
        assert!(told.contains(want), "{size}: {told}");
    }
    assert_eq!(origin.seen().len(), 2);
    let Some(client) = python::ask(&bed, "http3_client.py", &name, &["too-large"]) else { return };
    client.ends();
    assert_eq!(origin.seen().len(), 3);
}
