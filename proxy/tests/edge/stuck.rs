//! Streams of HTTP/2 whose other side takes nothing, or says that it was all when it was not: clients
//! and containers in frames written by hand.

use std::{
    net::{SocketAddr, TcpListener},
    time::Duration,
};

use gantry_model::Phase;

use crate::{
    bed::{Bed, CONTAINER, Setup, host},
    client::Client,
    http2::{
        ACK, DATA, END_HEADERS, END_STREAM, HEADERS, RST_STREAM, SETTINGS, WINDOW_CLOSED,
        WINDOW_UPDATE, answer, connect, connect_with, field, frame, get, next,
    },
    origin::{reply, send},
};

/// A status of 200, in one octet.
const OK: &[u8] = &[0x88];
const NO_ERROR: [u8; 4] = 0_u32.to_be_bytes();
const CANCEL: [u8; 4] = 8_u32.to_be_bytes();

fn impatient(number: u8) -> Bed {
    let mut setup = Setup::default();
    setup.limits.send_idle = Duration::from_millis(300);
    Bed::with(number, setup)
}

#[test]
fn a_client_that_does_not_take_the_smallest_answer_is_given_up() {
    let bed = impatient(213);
    let _origin = bed.running_with(|_, stream| reply(stream, "", "x"));
    let (known, unknown) = (host(CONTAINER, "http-3000"), host(&"b".repeat(24), "http-3000"));
    // Whoever answers: a container, the edge, the API.
    for name in [&*known, &*unknown, "api.gantry.localhost"] {
        let mut client = connect_with(&bed, name, WINDOW_CLOSED);
        client.send(frame(HEADERS, END_STREAM | END_HEADERS, 1, &get(name)));
        assert!(answer(&mut client, 1).is_none(), "{name}: the stream is reset");
    }
}

#[test]
fn a_client_that_takes_one_octet_and_no_more_is_given_up() {
    let bed = impatient(214);
    let origin = bed.running_with(|_, stream| {
        send(stream, "HTTP/1.1 200 OK\r\nContent-Length: 1000000000\r\n\r\n");
        let piece = vec![b'x'; 1 << 16];
        while std::io::Write::write_all(stream, &piece).is_ok() {}
    });
    let name = host(CONTAINER, "http-3000");
    let mut client = connect_with(&bed, &name, WINDOW_CLOSED);
    client.send(frame(HEADERS, END_STREAM | END_HEADERS, 1, &get(&name)));
    while next(&mut client).kind != HEADERS {}
    client.send(frame(WINDOW_UPDATE, 0, 1, &1_u32.to_be_bytes()));
    assert!(answer(&mut client, 1).is_none(), "the stream is reset");
    origin.wait_closed(1);
}

#[test]
fn a_client_that_takes_the_first_octet_of_a_small_answer_is_given_up() {
    let bed = impatient(219);
    let _origin = bed.running_with(|_, stream| reply(stream, "", "xyz"));
    let name = host(CONTAINER, "http-3000");
    let mut client = connect_with(&bed, &name, WINDOW_CLOSED);
    client.send(frame(HEADERS, END_STREAM | END_HEADERS, 1, &get(&name)));
    while next(&mut client).kind != HEADERS {}
    client.send(frame(WINDOW_UPDATE, 0, 1, &1_u32.to_be_bytes()));
    assert!(answer(&mut client, 1).is_none(), "the stream is reset");
}

/// A container of HTTP/2, which the test speaks for.
fn container(bed: &Bed) -> TcpListener {
    bed.set(CONTAINER, Phase::Running, 1);
    TcpListener::bind(SocketAddr::new(bed.container_address(2), 3000)).unwrap()
}

/// The edge's connection to it, whose preface and settings are answered.
fn accept(listener: &TcpListener, settings: &[u8]) -> Client {
    let (stream, _) = listener.accept().unwrap();
    let mut edge = Client::of(stream);
    assert_eq!(edge.exactly(24), b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");
    edge.send(frame(SETTINGS, 0, 0, settings));
    edge.send(frame(SETTINGS, ACK, 0, &[]));
    edge
}

/// A client's call, whose body follows.
fn call(bed: &Bed, name: &str) -> Client {
    let mut client = connect(bed, name);
    let mut head = get(name);
    // POST.
    head[0] = 0x83;
    head.extend(field("content-type", "application/grpc"));
    client.send(frame(HEADERS, END_HEADERS, 1, &head));
    client
}

/// What the container hears of the first call: the error of its reset.
fn reset(edge: &mut Client) -> Vec<u8> {
    loop {
        let frame = next(edge);
        if (frame.kind, frame.stream) == (RST_STREAM, 1) {
            return frame.payload;
        }
    }
}

#[test]
fn a_call_that_is_given_up_ends_at_a_container_that_takes_nothing() {
    let bed = Bed::new(215);
    let (listener, name) = (container(&bed), host(CONTAINER, "http-3000"));
    let mut client = call(&bed, &name);
    let mut edge = accept(&listener, WINDOW_CLOSED);
    while next(&mut edge).kind != HEADERS {}
    client.send(frame(DATA, 0, 1, &[0; 16_000]));
    edge.send(frame(HEADERS, END_HEADERS, 1, OK));
    while next(&mut client).kind != HEADERS {}
    client.send(frame(RST_STREAM, 0, 1, &CANCEL));
    assert_eq!(reset(&mut edge), CANCEL);
}

#[test]
fn a_container_that_never_takes_a_body_is_given_up_although_it_has_answered() {
    let bed = impatient(216);
    let (listener, name) = (container(&bed), host(CONTAINER, "http-3000"));
    let mut client = call(&bed, &name);
    let mut edge = accept(&listener, WINDOW_CLOSED);
    while next(&mut edge).kind != HEADERS {}
    client.send(frame(DATA, 0, 1, &[0; 16_000]));
    edge.send(frame(HEADERS, END_HEADERS | END_STREAM, 1, OK));
    assert!(answer(&mut client, 1).is_some());
    assert_eq!(reset(&mut edge), CANCEL);
}

#[test]
fn an_answer_that_is_broken_off_without_an_error_is_not_taken_for_whole() {
    let bed = Bed::new(217);
    let (listener, name) = (container(&bed), host(CONTAINER, "http-3000"));
    let whole = [OK.to_vec(), field("content-length", "3")].concat();
    for (head, is_whole) in [(OK.to_vec(), false), (whole, true)] {
        let mut client = call(&bed, &name);
        client.send(frame(DATA, END_STREAM, 1, b""));
        let mut edge = accept(&listener, &[]);
        while next(&mut edge).kind != HEADERS {}
        edge.send(frame(HEADERS, END_HEADERS, 1, &head));
        edge.send(frame(DATA, 0, 1, b"abc"));
        edge.send(frame(RST_STREAM, 0, 1, &NO_ERROR));
        let answer = answer(&mut client, 1);
        assert_eq!(answer.map(|(_, data)| data), is_whole.then(|| b"abc".to_vec()));
        // The next one needs a connection of its own.
        drop(edge);
    }
}
