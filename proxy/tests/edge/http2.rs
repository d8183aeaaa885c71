//! HTTP/2, in frames written by hand.

use std::time::Duration;

use gantry_model::Phase;

use crate::{
    bed::{Bed, CONTAINER, Setup, host},
    client::Client,
    origin::send,
};

pub(crate) const DATA: u8 = 0;
pub(crate) const HEADERS: u8 = 1;
pub(crate) const RST_STREAM: u8 = 3;
pub(crate) const SETTINGS: u8 = 4;
pub(crate) const PING: u8 = 6;
pub(crate) const GOAWAY: u8 = 7;
pub(crate) const WINDOW_UPDATE: u8 = 8;
pub(crate) const CONTINUATION: u8 = 9;
pub(crate) const END_STREAM: u8 = 1;
pub(crate) const ACK: u8 = 1;
pub(crate) const END_HEADERS: u8 = 4;

pub(crate) struct Frame {
    pub(crate) kind: u8,
    pub(crate) flags: u8,
    pub(crate) stream: u32,
    pub(crate) payload: Vec<u8>,
}

pub(crate) fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

pub(crate) fn literal(text: &str) -> Vec<u8> {
    assert!(text.len() < 127);
    [&[u8::try_from(text.len()).unwrap()], text.as_bytes()].concat()
}

/// A field that no table knows.
pub(crate) fn field(name: &str, value: &str) -> Vec<u8> {
    [vec![0], literal(name), literal(value)].concat()
}

/// `:method`, by its name in the static table.
fn literal_method(method: &str) -> Vec<u8> {
    [vec![0x02], literal(method)].concat()
}

/// `GET / https` of an authority.
pub(crate) fn get(authority: &str) -> Vec<u8> {
    [vec![0x82, 0x84, 0x87, 0x01], literal(authority)].concat()
}

pub(crate) fn connect(bed: &Bed, name: &str) -> Client {
    connect_with(bed, name, &[])
}

pub(crate) fn connect_with(bed: &Bed, name: &str, settings: &[u8]) -> Client {
    let mut client = Client::connect_tls(bed.https(), name, &bed.ca_path, b"h2");
    client.send("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");
    client.send(frame(SETTINGS, 0, 0, settings));
    client
}

/// The setting that closes the window of every stream before it begins.
pub(crate) const WINDOW_CLOSED: &[u8] = &[0, 4, 0, 0, 0, 0];

pub(crate) fn next(client: &mut Client) -> Frame {
    let head = client.exactly(9);
    let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
    let stream = u32::from_be_bytes([head[5], head[6], head[7], head[8]]);
    let payload = client.exactly(usize::try_from(length).unwrap());
    Frame { kind: head[3], flags: head[4], stream, payload }
}

/// Reads on to the end of a stream; returns its data, or nothing if it was reset.
pub(crate) fn answer(client: &mut Client, stream: u32) -> Option<(Vec<u8>, Vec<u8>)> {
    let (mut head, mut data) = (Vec::new(), Vec::new());
    loop {
        let frame = next(client);
        if frame.stream != stream {
            assert!(frame.kind != GOAWAY, "{:?}", frame.payload);
            continue;
        }
        match frame.kind {
            HEADERS => head.extend(frame.payload),
            DATA => data.extend(frame.payload),
            RST_STREAM => return None,
            _ => {}
        }
        if frame.flags & END_STREAM != 0 && matches!(frame.kind, HEADERS | DATA) {
            return Some((head, data));
        }
    }
}

/// A stream that goes on; its head and first data are read.
pub(crate) fn endless(bed: &Bed, name: &str) -> Client {
    let mut client = connect(bed, name);
    client.send(frame(HEADERS, END_STREAM | END_HEADERS, 1, &get(name)));
    while next(&mut client).kind != DATA {}
    client
}

/// Whether the first stream ends by a reset.
pub(crate) fn is_reset(client: &mut Client) -> bool {
    answer(client, 1).is_none()
}

/// Reads on to the end of the connection; returns the error of its GOAWAY, if it says one.
pub(crate) fn goaway(client: &mut Client) -> Option<u32> {
    let rest = client.rest();
    let mut at = 0;
    let mut error = None;
    while let Some(head) = rest.get(at..at + 9) {
        let length = usize::try_from(u32::from_be_bytes([0, head[0], head[1], head[2]])).unwrap();
        if head[3] == GOAWAY {
            let payload = &rest[at + 9..at + 9 + length];
            error = Some(u32::from_be_bytes(payload[4..8].try_into().unwrap()));
        }
        at += 9 + length;
    }
    error
}

#[test]
fn requests_of_a_connection_are_judged_one_by_one() {
    let bed = Bed::new(110);
    let origin = bed.running();
    let name = host(CONTAINER, "http-3000");
    let mut client = connect(&bed, &name);
    client.send(frame(HEADERS, END_STREAM | END_HEADERS, 1, &get(&name)));
    let (head, data) = answer(&mut client, 1).unwrap();
    assert_eq!((head[0], data.as_slice()), (0x88, &b"hello\n"[..]), "status 200 is one octet");
    assert_eq!(origin.last().values("host"), [&name], "the authority becomes the field");
    assert_eq!(origin.last().line(), "GET / HTTP/1.1");
    assert_eq!(origin.last().values("x-forwarded-proto"), ["https"]);
    for (stream, block, want) in [
        (3, get("api.gantry.localhost"), "made for another host"),
        (5, [get(&name), field("host", "other.example")].concat(), "names its host twice"),
        (7, get(&format!("u@{name}")), "names its host twice"),
        (9, get(&host(&"c".repeat(24), "http-3000")), "there is nothing at this address"),
        (11, vec![0x82, 0x84, 0x87], "names no host"),
    ] {
        client.send(frame(HEADERS, END_STREAM | END_HEADERS, stream, &block));
        let text = answer(&mut client, stream).map(|(_, data)| String::from_utf8(data).unwrap());
        let text = text.unwrap_or_else(|| "names".to_owned() + " its host twice or names no host");
        assert!(text.contains(want), "{want}: {text}");
    }
    assert_eq!(origin.seen().len(), 1);
}

#[test]
fn an_answer_to_head_ends_with_its_head() {
    let bed = Bed::new(170);
    let _origin = bed.running();
    let name = host(CONTAINER, "http-3000");
    let mut client = connect(&bed, &name);
    for (stream, authority) in [(1, name), (3, host(&"c".repeat(24), "http-3000"))] {
        let head = [literal_method("HEAD"), vec![0x84, 0x87, 0x01], literal(&authority)].concat();
        client.send(frame(HEADERS, END_STREAM | END_HEADERS, stream, &head));
        let answer = loop {
            let frame = next(&mut client);
            if frame.stream == stream {
                break frame;
            }
        };
        assert_eq!((answer.kind, answer.flags & END_STREAM), (HEADERS, END_STREAM), "{stream}");
    }
}

#[test]
fn pieces_of_a_cookie_arrive_as_one() {
    let bed = Bed::new(111);
    let origin = bed.running();
    let name = host(CONTAINER, "http-3000");
    let mut client = connect(&bed, &name);
    let block = [get(&name), field("cookie", "a=1"), field("cookie", "b=2")].concat();
    client.send(frame(HEADERS, END_STREAM | END_HEADERS, 1, &block));
    answer(&mut client, 1).unwrap();
    assert_eq!(origin.last().values("cookie"), ["a=1; b=2"]);
}

#[test]
fn a_body_passes_and_one_that_pauses_is_given_up() {
    let mut setup = Setup::default();
    setup.limits.body_idle = Duration::from_millis(300);
    let bed = Bed::with(112, setup);
    let origin = bed.running();
    let name = host(CONTAINER, "http-3000");
    let mut post = get(&name);
    post[0] = 0x83;
    let mut client = connect(&bed, &name);
    client.send(frame(HEADERS, END_HEADERS, 1, &post));
    client.send(frame(DATA, 0, 1, b"abc"));
    client.send(frame(DATA, END_STREAM, 1, b"def"));
    answer(&mut client, 1).unwrap();
    assert_eq!(origin.last().body, b"abcdef");
    client.send(frame(HEADERS, END_HEADERS, 3, &post));
    client.send(frame(DATA, 0, 3, b"abc"));
    let (_, data) = answer(&mut client, 3).unwrap();
    assert!(String::from_utf8(data).unwrap().contains("did not arrive in time"));
    assert_eq!(origin.seen().len(), 1);
}

/// A container that begins an answer and does not end it.
fn begin(stream: &mut std::net::TcpStream) {
    send(stream, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n");
}

#[test]
fn a_closed_window_does_not_keep_a_stopped_container() {
    let bed = Bed::new(125);
    let origin = bed.running_with(|_, stream| begin(stream));
    let name = host(CONTAINER, "http-3000");
    let mut client = connect_with(&bed, &name, WINDOW_CLOSED);
    client.send(frame(HEADERS, END_STREAM | END_HEADERS, 1, &get(&name)));
    while next(&mut client).stream != 1 {}
    bed.set(CONTAINER, Phase::Stopping, 1);
    assert!(answer(&mut client, 1).is_none(), "the stream is reset");
    origin.wait_closed(1);
}

#[test]
fn a_client_that_takes_nothing_is_given_up() {
    let mut setup = Setup::default();
    setup.limits.send_idle = Duration::from_millis(300);
    let bed = Bed::with(126, setup);
    let origin = bed.running_with(|_, stream| begin(stream));
    let name = host(CONTAINER, "http-3000");
    let mut client = connect_with(&bed, &name, WINDOW_CLOSED);
    client.send(frame(HEADERS, END_STREAM | END_HEADERS, 1, &get(&name)));
    assert!(answer(&mut client, 1).is_none(), "the stream is reset");
    origin.wait_closed(1);
}

#[test]
fn floods_end_the_connection() {
    let bed = Bed::new(113);
    let _origin = bed.running();
    let name = host(CONTAINER, "http-3000");
    let reset = |stream: u32| {
        let headers = frame(HEADERS, END_STREAM | END_HEADERS, stream, &get(&name));
        [headers, frame(RST_STREAM, 0, stream, &8_u32.to_be_bytes())].concat()
    };
    // Rapid Reset.
    let mut client = connect(&bed, &name);
    let flood: Vec<u8> = (0..5000).flat_map(|n| reset(1 + 2 * n)).collect();
    _ = client.try_send(flood);
    assert!(matches!(goaway(&mut client), None | Some(1..)), "the connection ends");
    // A head without end.
    let mut client = connect(&bed, &name);
    client.send(frame(HEADERS, END_STREAM, 1, &get(&name)));
    let piece = frame(CONTINUATION, 0, 1, &field("x", &"y".repeat(100)).repeat(100));
    let taken = (0..2000).take_while(|_| client.try_send(&piece)).count();
    assert!(taken < 2000, "20 MB of head were taken");
    // The edge lives.
    let mut client = connect(&bed, &name);
    client.send(frame(HEADERS, END_STREAM | END_HEADERS, 1, &get(&name)));
    answer(&mut client, 1).unwrap();
}

#[test]
fn a_head_of_too_many_fields_is_refused() {
    let bed = Bed::new(114);
    let origin = bed.running();
    let name = host(CONTAINER, "http-3000");
    let mut client = connect(&bed, &name);
    let block = [get(&name), field("x", "y").repeat(101)].concat();
    client.send(frame(HEADERS, END_STREAM | END_HEADERS, 1, &block));
    let (_, data) = answer(&mut client, 1).unwrap();
    assert!(String::from_utf8(data).unwrap().contains("too many or too long fields"));
    assert!(origin.seen().is_empty());
}

#[test]
fn pings_do_not_keep_an_idle_connection() {
    let mut setup = Setup::default();
    setup.limits.idle = Duration::from_millis(300);
    setup.limits.head_timeout = Duration::from_millis(500);
    let bed = Bed::with(115, setup);
    let _origin = bed.running();
    let name = host(CONTAINER, "http-3000");
    let mut client = connect(&bed, &name);
    client.send(frame(HEADERS, END_STREAM | END_HEADERS, 1, &get(&name)));
    answer(&mut client, 1).unwrap();
    let mut pings = 0;
    while client.try_send(frame(PING, 0, 0, &[0; 8])) {
        pings += 1;
        assert!(pings < 500, "10 s of pings");
        std::thread::park_timeout(Duration::from_millis(20));
    }
    // One that says nothing at all ends, too.
    let mut silent = connect(&bed, &name);
    goaway(&mut silent);
    bed.wait_metric("gantry_proxy_connections_open", 0.0);
}

#[test]
fn a_drain_tells_clients_to_go() {
    let mut bed = Bed::new(116);
    let _origin = bed.running();
    let name = host(CONTAINER, "http-3000");
    let mut client = connect(&bed, &name);
    client.send(frame(HEADERS, END_STREAM | END_HEADERS, 1, &get(&name)));
    answer(&mut client, 1).unwrap();
    let edge = bed.edge.take().unwrap();
    let runtime = bed.runtime.take().unwrap();
    let drain = runtime.spawn(edge.drain(Duration::from_secs(10)));
    loop {
        let frame = next(&mut client);
        if frame.kind == GOAWAY {
            break;
        }
        if frame.kind == PING && frame.flags & ACK == 0 {
            client.send(self::frame(PING, ACK, 0, &frame.payload));
        }
    }
    // A graceful GOAWAY is followed by a ping, whose answer lets the connection end.
    loop {
        let head = client.exactly(9);
        let length = usize::from(head[2]);
        let payload = client.exactly(length);
        if head[3] == PING && head[4] & ACK == 0 {
            client.send(frame(PING, ACK, 0, &payload));
            break;
        }
    }
    assert_eq!(goaway(&mut client), Some(0));
    runtime.block_on(drain).unwrap();
}
