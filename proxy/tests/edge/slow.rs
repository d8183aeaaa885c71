//! Clients that are slow on purpose, wherever a client can be slow. Limits are made small; nothing
//! sleeps longer than a drip.

use std::time::{Duration, Instant};

use crate::{
    bed::{Bed, CONTAINER, Setup, host},
    client::Client,
    http2::{DATA, END_HEADERS, END_STREAM, HEADERS, connect, frame, get, goaway},
    origin::{reply, send},
};

const SHORT: Duration = Duration::from_millis(300);

/// Sends pieces, slowly, until the other side has had enough.
fn drip(client: &mut Client, mut piece: impl FnMut() -> Vec<u8>) {
    let end = Instant::now() + Duration::from_secs(10);
    while client.try_send(piece()) {
        assert!(Instant::now() < end, "dripped for 10 s");
        std::thread::park_timeout(Duration::from_millis(20));
    }
}

fn cut(limit: &str) -> String {
    format!("gantry_proxy_cut_total{{limit=\"{limit}\"}}")
}

fn bed(number: u8, change: impl FnOnce(&mut gantry_proxy::Limits)) -> Bed {
    let mut setup = Setup::default();
    change(&mut setup.limits);
    Bed::with(number, setup)
}

#[test]
fn a_handshake_that_drips_is_cut_off() {
    let bed = bed(211, |limits| limits.tls_timeout = SHORT);
    let mut client = Client::connect(bed.https());
    // The head of a ClientHello that promises 512 octets.
    client.send([22, 3, 1, 2, 0, 1, 0, 1, 252, 3, 3]);
    drip(&mut client, || vec![0]);
    bed.wait_metric("gantry_proxy_tls_failures_total", 1.0);
    bed.wait_metric(&cut("handshake_timeout"), 1.0);
    bed.wait_metric("gantry_proxy_connections_open", 0.0);
}

#[test]
fn a_head_on_the_redirecting_port_has_its_deadline_too() {
    let bed = bed(212, |limits| limits.head_timeout = SHORT);
    let mut client = Client::connect(bed.http());
    client.send("GET / HTTP/1.1\r\n");
    assert_eq!(client.reply().status, 408);
    assert!(client.is_closed());
}

#[test]
fn a_head_in_frames_that_does_not_end_is_cut_off() {
    let bed = bed(213, |limits| (limits.head_timeout, limits.idle) = (SHORT, SHORT));
    let origin = bed.running();
    let name = host(CONTAINER, "http-3000");
    // A head without its end, a frame without its end, and not even a preface.
    for octets in [
        frame(HEADERS, END_STREAM, 1, &get(&name)),
        frame(HEADERS, END_STREAM | END_HEADERS, 1, &get(&name))[..20].to_vec(),
    ] {
        let mut client = connect(&bed, &name);
        client.send(octets);
        goaway(&mut client);
    }
    let mut client = Client::connect_tls(bed.https(), &name, &bed.ca_path, b"h2");
    client.send("PRI * HTTP/2.0\r\n");
    goaway(&mut client);
    bed.wait_metric("gantry_proxy_connections_open", 0.0);
    assert!(origin.seen().is_empty());
}

#[test]
fn a_body_in_frames_that_drips_is_given_up() {
    let bed = bed(214, |limits| (limits.body_idle, limits.body_rate_min) = (SHORT, 1000));
    let origin = bed.running();
    let name = host(CONTAINER, "http-3000");
    let mut client = connect(&bed, &name);
    let mut post = get(&name);
    post[0] = 0x83;
    client.send(frame(HEADERS, END_HEADERS, 1, &post));
    let code = "gantry_proxy_errors_total{code=\"BODY_TIMEOUT\"}";
    let end = Instant::now() + Duration::from_secs(10);
    while bed.metric(code) < 1.0 && client.try_send(frame(DATA, 0, 1, b"x")) {
        assert!(Instant::now() < end, "dripped for 10 s");
    }
    bed.wait_metric(code, 1.0);
    bed.wait_metric(&cut("body_rate"), 1.0);
    assert!(origin.seen().is_empty(), "half a request is none");
}

#[test]
fn chunks_and_trailers_that_drip_are_given_up() {
    let bed = bed(215, |limits| (limits.body_idle, limits.body_rate_min) = (SHORT, 1000));
    let origin = bed.running();
    let name = host(CONTAINER, "http-3000");
    for (begin, piece) in [("", "1\r\nx\r\n"), ("0\r\nX: ", "y"), ("1;", "y")] {
        let mut client = bed.client();
        let fields = "Transfer-Encoding: chunked\r\nTrailer: x";
        client.send(format!("POST / HTTP/1.1\r\nHost: {name}\r\n{fields}\r\n\r\n{begin}"));
        drip(&mut client, || piece.as_bytes().to_vec());
    }
    assert!(origin.seen().is_empty(), "half a request is none");
    bed.wait_metric("gantry_proxy_connections_open", 0.0);
}

#[test]
fn a_client_over_tls_that_takes_nothing_is_given_up() {
    let bed = bed(216, |limits| limits.send_idle = SHORT);
    let origin = bed.running_with(|_, stream| {
        send(stream, "HTTP/1.1 200 OK\r\nContent-Length: 104857600\r\n\r\n");
        for _ in 0..6400 {
            send(stream, [0; 16 * 1024]);
        }
    });
    let name = host(CONTAINER, "http-3000");
    let mut client = bed.tls_client(&name);
    client.send(format!("GET / HTTP/1.1\r\nHost: {name}\r\n\r\n"));
    client.head();
    origin.wait_closed(1);
    bed.wait_metric("gantry_proxy_connections_open", 0.0);
}

#[test]
fn a_client_that_takes_an_answer_in_drips_is_given_up() {
    // Long enough that there is room in the socket again before it is over.
    let pause = Duration::from_secs(1);
    let bed = bed(218, |limits| (limits.send_idle, limits.send_rate_min) = (pause, 100_000_000));
    let _origin = bed.running_with(|_, stream| {
        send(stream, "HTTP/1.1 200 OK\r\nContent-Length: 104857600\r\n\r\n");
        for _ in 0..6400 {
            send(stream, [0; 16 * 1024]);
        }
    });
    let name = host(CONTAINER, "http-3000");
    for is_secure in [false, true] {
        let mut client = if is_secure { bed.tls_client(&name) } else { bed.client() };
        client.send(format!("GET / HTTP/1.1\r\nHost: {name}\r\n\r\n"));
        client.head();
        let open = "gantry_proxy_connections_open";
        bed.wait_metric(open, 1.0);
        let end = Instant::now() + Duration::from_secs(10);
        // Never still for as long as a client may be.
        while bed.metric(open) > 0.0 {
            client.exactly(128 * 1024);
            assert!(Instant::now() < end, "dripped for 10 s");
            std::thread::park_timeout(Duration::from_millis(20));
        }
    }
    bed.wait_metric(&cut("send_rate"), 2.0);
}

#[test]
fn a_client_that_asks_without_end_and_takes_nothing_is_given_up() {
    let bed = bed(217, |limits| limits.send_idle = SHORT);
    let _origin = bed.running_with(|_, stream| reply(stream, "", &"x".repeat(256 * 1024)));
    let name = host(CONTAINER, "http-3000");
    let mut client = bed.client();
    // What is asked for is answered in order, and nothing is read ahead of a full socket.
    _ = client.try_send(format!("GET / HTTP/1.1\r\nHost: {name}\r\n\r\n").repeat(1000));
    bed.wait_metric("gantry_proxy_connections_open", 0.0);
}
