//! Streams of HTTP/2 whose other side takes nothing, or says that it was all when it was not: clients
//! and containers in frames written by hand.

use std::{
    net::{SocketAddr, TcpListener},
    time::{Duration, Instant},
};

use gantry_model::Phase;

use crate::{
    bed::{Bed, CONTAINER, Setup, host},
    client::Client,
    http2::{
        ACK, DATA, END_HEADERS, END_STREAM, HEADERS, PING, RST_STREAM, SETTINGS, WINDOW_CLOSED,
        WINDOW_UPDATE, answer, connect, connect_with, field, frame, get, literal, next,
    },
    origin::{Origin, reply, send},
    python,
};

/// Another container, which must not notice.
const NEIGHBOUR: &str = "dddddddddddddddddddddddd";

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
fn a_client_that_reads_nothing_is_counted_once() {
    let bed = impatient(188);
    let origin = bed.running_with(|_, stream| pour(stream));
    let name = host(CONTAINER, "http-3000");
    // Windows as wide as they may be: it is the socket that is full.
    let mut client = connect_with(&bed, &name, &[0, 4, 0x7f, 0xff, 0xff, 0xff]);
    client.send(room(0, 0x7fff_0000));
    client.send(frame(HEADERS, END_STREAM | END_HEADERS, 1, &get(&name)));
    origin.wait_closed(1);
    bed.wait_metric("gantry_proxy_connections_open", 0.0);
    bed.wait_metric("gantry_proxy_cut_total{limit=\"send_pause\"}", 1.0);
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
    let head = post(name, &[("content-type", "application/grpc")]);
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

/// Sends what was asked for without end.
fn pour(stream: &mut std::net::TcpStream) {
    send(stream, "HTTP/1.1 200 OK\r\nContent-Length: 1000000000\r\n\r\n");
    let piece = vec![b'x'; 1 << 16];
    while std::io::Write::write_all(stream, &piece).is_ok() {}
}

/// A window update of so many octets.
fn room(stream: u32, octets: u32) -> Vec<u8> {
    frame(WINDOW_UPDATE, 0, stream, &octets.to_be_bytes())
}

/// A bed whose clients have to take what they are sent.
fn strict(number: u8) -> Bed {
    let mut setup = Setup::default();
    setup.limits.send_idle = Duration::from_millis(300);
    setup.limits.send_rate_min = 100_000_000;
    Bed::with(number, setup)
}

/// Counts clients that took too little on average.
const CUT_BY_RATE: &str = "gantry_proxy_cut_total{limit=\"send_rate\"}";

#[test]
fn a_stream_whose_client_takes_its_answer_in_drips_is_reset_and_no_other() {
    let bed = strict(91);
    let (tell, told) = std::sync::mpsc::channel::<()>();
    let told = std::sync::Mutex::new(told);
    let origin = bed.running_with(move |seen, stream| {
        if seen.values("host")[0].contains(NEIGHBOUR) {
            told.lock().unwrap().recv().unwrap();
            return reply(stream, "", "hello");
        }
        pour(stream);
    });
    bed.set(NEIGHBOUR, Phase::Running, 1);
    let (name, other) = (host(CONTAINER, "http-3000"), host(NEIGHBOUR, "http-3000"));
    let mut client = connect_with(&bed, &name, WINDOW_CLOSED);
    client.send(frame(HEADERS, END_STREAM | END_HEADERS, 1, &get(&name)));
    client.send(frame(HEADERS, END_STREAM | END_HEADERS, 3, &get(&other)));
    while next(&mut client).kind != HEADERS {}
    let end = Instant::now() + Duration::from_secs(10);
    // Never still for as long as a client may be.
    loop {
        assert!(Instant::now() < end, "dripped for 10 s");
        client.send(room(1, 1));
        let frame = next(&mut client);
        assert!(frame.stream <= 1, "the other stream waits for its container");
        if frame.kind == RST_STREAM {
            break;
        }
        std::thread::park_timeout(Duration::from_millis(5));
    }
    origin.wait_closed(1);
    bed.wait_metric(CUT_BY_RATE, 1.0);
    tell.send(()).unwrap();
    client.send(room(3, 5));
    assert_eq!(answer(&mut client, 3).unwrap().1, b"hello");
}

#[test]
fn a_stream_of_http3_whose_client_takes_its_answer_in_drips_is_reset_and_no_other() {
    let bed = strict(92);
    let origin = bed.running_with(move |seen, stream| {
        if seen.line().contains("/small") { reply(stream, "", "hello") } else { pour(stream) }
    });
    let name = host(CONTAINER, "http-3000");
    let Some(client) = python::ask(&bed, "http3_client.py", &name, &["drips"]) else { return };
    origin.wait_closed(1);
    bed.wait_metric(CUT_BY_RATE, 1.0);
    client.ends();
}

/// A container that takes nothing of what it is sent, and another, which does.
fn stuck_and_not(bed: &Bed) -> (TcpListener, Origin) {
    let listener = container(bed);
    let address = bed.container_address(3);
    bed.set_at(NEIGHBOUR, Phase::Running, 1, address, 0);
    let neighbour = Origin::start(SocketAddr::new(address, 3000), |seen, stream| {
        reply(stream, "", &seen.body.len().to_string());
    });
    (listener, neighbour)
}

/// The window of a connection that has sent no body, or for whose there was no room.
const LEAST: usize = 65_535;
/// What each body that is under way may be ahead, which is a stream's window.
const EACH: usize = 256 << 10;
/// What all bodies of a connection may be ahead without being charged.
const FREE: usize = 16 << 10;

/// The window of a client's connection after one more request with these fields and a body of so many
/// octets, on this stream.
fn window_with(
    client: &mut Client,
    head: &[u8],
    stream: u32,
    body: usize,
    window: &mut usize,
) -> usize {
    client.send(frame(HEADERS, END_HEADERS, stream, head));
    client.send(frame(DATA, END_STREAM, stream, &vec![b'x'; body]));
    *window -= body;
    let (mut answered, mut asked) = (false, false);
    loop {
        if answered && !std::mem::replace(&mut asked, true) {
            // What was to be said before has been said when this is answered.
            client.send(frame(PING, 0, 0, &[0; 8]));
        }
        let frame = next(client);
        match frame.kind {
            WINDOW_UPDATE if frame.stream == 0 => {
                *window += u32::from_be_bytes(frame.payload.try_into().unwrap()) as usize;
            }
            HEADERS => answered |= frame.stream == stream,
            PING => return *window,
            _ => {}
        }
    }
}

/// The head of a request with a body, and with these fields.
fn post(name: &str, fields: &[(&str, &str)]) -> Vec<u8> {
    let mut head = get(name);
    // POST.
    head[0] = 0x83;
    for (name, value) in fields {
        head.extend(field(name, value));
    }
    head
}

/// The same for a body of unknown length, of one octet.
fn window(client: &mut Client, name: &str, stream: u32, window: &mut usize) -> usize {
    window_with(client, &post(name, &[]), stream, 1, window)
}

/// Whether a window is as wide as is said; what was sent may not have been made good for yet.
fn near(octets: usize, want: usize) -> bool {
    (want - 200..=want).contains(&octets)
}

/// A bed whose worker has room for so many octets.
fn with_room(number: u8, octets: usize) -> Bed {
    let mut setup = Setup::default();
    setup.limits.uploads_ahead_max = u64::try_from(octets).unwrap();
    Bed::with(number, setup)
}

#[test]
fn nothing_is_sent_ahead_that_the_worker_has_no_room_for() {
    let room = EACH - FREE;
    let bed = with_room(187, room);
    let _origin = bed.running();
    let name = host(CONTAINER, "http-3000");
    let [mut one, mut two] = [(); 2].map(|()| connect(&bed, &name));
    let [mut of_one, mut of_two] = [65_535; 2];
    assert!(near(window(&mut one, &name, 1, &mut of_one), LEAST + room), "{of_one}");
    assert!(near(window(&mut one, &name, 3, &mut of_one), LEAST + room), "one at a time: {of_one}");
    let refused = "gantry_proxy_refused_total{limit=\"worker_uploads_ahead\"}";
    bed.wait_metric(refused, 0.0);
    assert!(near(window(&mut two, &name, 1, &mut of_two), LEAST), "{of_two}");
    bed.wait_metric(refused, 1.0);
    drop(one);
    bed.wait_metric("gantry_proxy_connections_open", 1.0);
    assert!(near(window(&mut two, &name, 3, &mut of_two), LEAST + room), "given back: {of_two}");
}

#[test]
fn small_forms_take_no_room_from_uploads() {
    let bed = with_room(252, EACH - FREE);
    let _origin = bed.running();
    let name = host(CONTAINER, "http-3000");
    let form = post(&name, &[("content-length", "20")]);
    let mut forms = [(); 3].map(|()| (connect(&bed, &name), LEAST));
    for (client, window) in &mut forms {
        assert!(near(window_with(client, &form, 1, 20, window), LEAST), "{window}");
    }
    let (client, of_one) = &mut forms[0];
    assert!(near(window(client, &name, 3, of_one), LEAST + EACH - FREE), "{of_one}");
}

#[test]
fn a_body_that_was_read_needs_no_room_although_its_answer_goes_on() {
    let bed = with_room(253, 10 * EACH);
    let _origin = bed.running_with(|_, stream| pour(stream));
    let name = host(CONTAINER, "http-3000");
    let (mut client, mut of_all) = (connect_with(&bed, &name, WINDOW_CLOSED), LEAST);
    let known = post(&name, &[("content-length", "2")]);
    for (stream, head, body) in
        [(1, &*post(&name, &[]), 1), (3, &known, 2), (5, &post(&name, &[]), 1)]
    {
        let octets = window_with(&mut client, head, stream, body, &mut of_all);
        assert!(near(octets, LEAST + EACH - FREE), "{stream}: {octets}");
    }
}

/// The octets of the neighbour's request.
const UPLOAD: usize = 100_000;

#[test]
fn uploads_that_a_container_does_not_take_keep_nobody_else_from_theirs() {
    let bed = Bed::new(93);
    let (listener, _neighbour) = stuck_and_not(&bed);
    let (name, other) = (host(CONTAINER, "http-3000"), host(NEIGHBOUR, "http-3000"));
    let mut client = connect(&bed, &name);
    let call = post(&name, &[("content-type", "application/grpc")]);
    // The windows of each stream, and what is left of that of the connection, which becomes wider with
    // each body.
    let (mut of_stream, mut of_all) = (0, LEAST);
    let mut upload = |client: &mut Client, stream: u32, head: &[u8], count: usize| {
        client.send(frame(HEADERS, END_HEADERS, stream, head));
        while of_stream == 0 || of_all < EACH {
            let seen = next(client);
            let number = |octets: &[u8]| u32::from_be_bytes(octets.try_into().unwrap()) as usize;
            match seen.kind {
                SETTINGS if seen.flags & ACK == 0 => {
                    let window = seen.payload.chunks(6).find(|setting| setting[..2] == [0, 4]);
                    of_stream = window.map_or(of_stream, |setting| number(&setting[2..]));
                    // Only then are its streams as wide.
                    client.send(frame(SETTINGS, ACK, 0, &[]));
                }
                WINDOW_UPDATE if seen.stream == 0 => of_all += number(&seen.payload),
                _ => {}
            }
        }
        let count = count.min(of_stream);
        of_all -= count;
        for piece in vec![0; count].chunks(16_384) {
            client.send(frame(DATA, 0, stream, piece));
        }
    };
    upload(&mut client, 1, &call, usize::MAX);
    let mut edge = accept(&listener, WINDOW_CLOSED);
    while next(&mut edge).kind != HEADERS {}
    for stream in (3..80).step_by(2) {
        upload(&mut client, stream, &call, usize::MAX);
    }
    upload(&mut client, 81, &post(&other, &[]), UPLOAD);
    client.send(frame(DATA, END_STREAM, 81, &[]));
    assert_eq!(answer(&mut client, 81).unwrap().1, UPLOAD.to_string().into_bytes());
}

#[test]
fn uploads_over_http3_that_a_container_does_not_take_keep_nobody_else_from_theirs() {
    let bed = Bed::new(94);
    let (listener, _neighbour) = stuck_and_not(&bed);
    let (name, other) = (host(CONTAINER, "http-3000"), host(NEIGHBOUR, "http-3000"));
    let arguments = ["stuck-uploads", &other, &UPLOAD.to_string()];
    let Some(client) = python::ask(&bed, "http3_client.py", &name, &arguments) else { return };
    let _edge = accept(&listener, WINDOW_CLOSED);
    client.ends();
}

#[test]
fn a_reader_of_a_log_that_was_late_once_reads_on() {
    let mut setup = Setup::default();
    setup.limits.stream_idle = Duration::from_secs(2);
    let bed = Bed::with(97, setup);
    let _origin = bed.running();
    let name = host(CONTAINER, "logs-1");
    let mut client = connect_with(&bed, &name, WINDOW_CLOSED);
    let path = [vec![0x82, 0x87, 0x04], literal("/_logs/stream"), vec![0x01], literal(&name)];
    client.send(frame(HEADERS, END_STREAM | END_HEADERS, 1, &path.concat()));
    while next(&mut client).kind != HEADERS {}
    client.send(room(0, 1 << 20));
    client.send(room(1, 1 << 20));
    while next(&mut client).kind != DATA {}
    let (begin, mut asks, mut seen) = (Instant::now(), bed.client(), 0);
    while begin.elapsed() < Duration::from_secs(5) {
        let path = format!("/now-{seen}-");
        asks.get(&host(CONTAINER, "http-3000"), &path, "");
        let mut told = String::new();
        while !told.contains(&path) {
            let frame = next(&mut client);
            assert_eq!((frame.kind, frame.flags & END_STREAM), (DATA, 0), "after {seen} entries");
            told.push_str(&String::from_utf8(frame.payload).unwrap());
        }
        seen += 1;
    }
}
