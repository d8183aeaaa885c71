//! Clients of HTTP/2 that make the edge work for nothing: each connection ends or is bounded, memory
//! stays, and meanwhile others are served.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use crate::{
    bed::{Bed, CONTAINER, Setup, host},
    client::Client,
    http2::{
        ACK, CONTINUATION, DATA, END_HEADERS, END_STREAM, HEADERS, PING, RST_STREAM, SETTINGS,
        WINDOW_CLOSED, WINDOW_UPDATE, connect, connect_with, field, frame, get, goaway,
    },
    origin::send,
};

const PRIORITY: u8 = 2;
const PADDED: u8 = 8;
const HAS_PRIORITY: u8 = 0x20;

/// Another container, whose client must not notice.
const NEIGHBOUR: &str = "dddddddddddddddddddddddd";

/// Makes the `n`th piece of a flood towards a host.
type Piece = fn(&str, u32) -> Vec<u8>;

/// What is flooded with, and as which kind it is counted, if it is.
type Row = (&'static str, Piece, Option<&'static str>);

fn post(name: &str) -> Vec<u8> {
    let mut block = get(name);
    block[0] = 0x83;
    block
}

/// A stream of its own for each piece.
fn stream(n: u32) -> u32 {
    1 + 2 * n
}

/// The head of a request whose body is to come.
fn open(name: &str, stream: u32) -> Vec<u8> {
    frame(HEADERS, END_HEADERS, stream, &post(name))
}

/// A whole request.
fn whole(name: &str, stream: u32) -> Vec<u8> {
    frame(HEADERS, END_STREAM | END_HEADERS, stream, &get(name))
}

/// One request at the beginning, and then `piece` without end.
fn after_one(name: &str, n: u32, piece: Vec<u8>) -> Vec<u8> {
    if n == 0 { [open(name, 1), piece].concat() } else { piece }
}

const ROWS: &[Row] = &[
    (
        "Rapid Reset",
        |name, n| [whole(name, stream(n)), frame(RST_STREAM, 0, stream(n), &[0, 0, 0, 8])].concat(),
        Some("library"),
    ),
    // MadeYouReset: the edge is made to reset.
    (
        "a window that overflows",
        |name, n| {
            let update = frame(WINDOW_UPDATE, 0, stream(n), &[0x7f, 0xff, 0xff, 0xff]);
            [whole(name, stream(n)), update].concat()
        },
        Some("library"),
    ),
    (
        "a window update of nothing",
        |name, n| [whole(name, stream(n)), frame(WINDOW_UPDATE, 0, stream(n), &[0; 4])].concat(),
        None,
    ),
    (
        "data on a stream that is half closed",
        |name, n| [whole(name, stream(n)), frame(DATA, END_STREAM, stream(n), b"x")].concat(),
        None,
    ),
    (
        "a head on a stream that is half closed",
        |name, n| [whole(name, stream(n)), whole(name, stream(n))].concat(),
        None,
    ),
    (
        "a stream that depends on itself",
        |name, n| {
            let block = [&stream(n).to_be_bytes()[..], &[16], &get(name)].concat();
            frame(HEADERS, END_STREAM | END_HEADERS | HAS_PRIORITY, stream(n), &block)
        },
        None,
    ),
    (
        "a priority on itself",
        |name, n| {
            let priority = [&stream(n).to_be_bytes()[..], &[16]].concat();
            [whole(name, stream(n)), frame(PRIORITY, 0, stream(n), &priority)].concat()
        },
        None,
    ),
    (
        "a body shorter than its length",
        |name, n| {
            let block = [post(name), field("content-length", "5")].concat();
            let head = frame(HEADERS, END_HEADERS, stream(n), &block);
            [head, frame(DATA, END_STREAM, stream(n), b"x")].concat()
        },
        Some("library"),
    ),
    (
        "heads that are malformed",
        |name, n| {
            let block = [get(name), field("connection", "x")].concat();
            frame(HEADERS, END_STREAM | END_HEADERS, stream(n), &block)
        },
        Some("library"),
    ),
    // Heads without end.
    (
        "CONTINUATION",
        |name, n| match n {
            0 => frame(HEADERS, END_STREAM, 1, &get(name)),
            _ => frame(CONTINUATION, 0, 1, &field("x", "y").repeat(10)),
        },
        Some("library"),
    ),
    (
        "empty CONTINUATION",
        |name, n| match n {
            0 => frame(HEADERS, END_STREAM, 1, &get(name)),
            _ => frame(CONTINUATION, 0, 1, &[]),
        },
        Some("library"),
    ),
    // What must be answered or applied.
    ("SETTINGS", |_, _| frame(SETTINGS, 0, 0, &[0, 4, 0, 1, 0, 0]), Some("settings")),
    ("empty SETTINGS", |_, _| frame(SETTINGS, 0, 0, &[]), Some("settings")),
    ("SETTINGS acknowledged", |_, _| frame(SETTINGS, ACK, 0, &[]), None),
    ("PING", |_, _| frame(PING, 0, 0, &[7; 8]), Some("ping")),
    ("PING answered", |_, _| frame(PING, ACK, 0, &[7; 8]), Some("ping")),
    // What is ignored.
    ("PRIORITY", |_, n| frame(PRIORITY, 0, stream(n), &[0, 0, 0, 0, 16]), Some("priority")),
    ("an unknown type", |_, _| frame(0xbe, 0, 0, b"what"), Some("unknown")),
    ("empty DATA", |name, n| after_one(name, n, frame(DATA, 0, 1, &[])), Some("library")),
    (
        "DATA that is padding",
        |name, n| after_one(name, n, frame(DATA, PADDED, 1, &[1, 0])),
        Some("library"),
    ),
    (
        "window updates of one octet",
        |name, n| after_one(name, n, frame(WINDOW_UPDATE, 0, 1, &[0, 0, 0, 1])),
        Some("window_update"),
    ),
];

/// Asks for the neighbour until it is dropped; panics if it is not served.
struct Neighbour {
    stop: Arc<AtomicBool>,
    asks: Option<std::thread::JoinHandle<u32>>,
}

impl Neighbour {
    fn of(bed: &Bed) -> Self {
        let stop = Arc::<AtomicBool>::default();
        let mut client = bed.tls_client(&host(NEIGHBOUR, "http-3000"));
        let until = Arc::clone(&stop);
        let asks = std::thread::spawn(move || {
            let mut served = 0;
            while !until.load(Ordering::SeqCst) || served == 0 {
                assert_eq!(client.get(&host(NEIGHBOUR, "http-3000"), "/", "").status, 200);
                served += 1;
            }
            served
        });
        Self { stop, asks: Some(asks) }
    }

    fn was_served(mut self) {
        self.stop.store(true, Ordering::SeqCst);
        assert!(self.asks.take().unwrap().join().unwrap() > 0);
    }
}

/// Octets of memory that this process holds: the edge, its client and its container.
fn memory() -> usize {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
    statm.split(' ').nth(1).unwrap().parse::<usize>().unwrap() * 4096
}

/// What all floods together may cost, with what the client itself holds.
const MEMORY_MAX: usize = 96 << 20;

/// A bed with a container and its neighbour.
fn bed(number: u8, setup: Setup) -> (Bed, crate::origin::Origin) {
    let bed = Bed::with(number, setup);
    let origin = bed.running();
    bed.set(NEIGHBOUR, gantry_model::Phase::Running, 1);
    (bed, origin)
}

#[test]
fn a_client_that_floods_loses_its_connection_and_nobody_else_anything() {
    let (bed, _origin) = bed(205, Setup::default());
    let neighbour = Neighbour::of(&bed);
    let before = memory();
    let mut wrong = Vec::new();
    for row in ROWS {
        let tried = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| flood(&bed, *row)));
        wrong.extend(tried.err().map(|_| row.0));
    }
    assert!(wrong.is_empty(), "{wrong:?}");
    neighbour.was_served();
    let grown = memory().saturating_sub(before);
    assert!(grown < MEMORY_MAX, "{} MiB", grown >> 20);
}

/// Floods a connection until it ends.
fn flood(bed: &Bed, (what, piece, kind): Row) {
    let name = host(CONTAINER, "http-3000");
    let metric = kind.map(|kind| format!("gantry_proxy_floods_total{{kind=\"{kind}\"}}"));
    let count = metric.as_ref().map(|metric| bed.metric(metric));
    let mut client = connect(bed, &name);
    let mut n = 0;
    // A hundred pieces at once; ten thousand are a flood by any measure.
    while n < 10_000 {
        let pieces: Vec<u8> = (n..n + 100).flat_map(|n| piece(&name, n)).collect();
        if !client.try_send(pieces) {
            break;
        }
        n += 100;
    }
    let error = goaway(&mut client);
    assert!(!matches!(error, Some(0)), "{what}: the connection ends, and not in peace");
    if let (Some(metric), Some(count)) = (metric, count) {
        bed.wait_metric(&metric, count + 1.0);
    }
}

#[test]
fn resets_of_requests_that_were_taken_up_are_counted_too() {
    let mut setup = Setup::default();
    setup.limits.resets_max = 20;
    let (bed, origin) = bed(206, setup);
    let name = host(CONTAINER, "http-3000");
    let mut client = connect(&bed, &name);
    for n in 0..21 {
        client.send(whole(&name, stream(n)));
        origin.wait_seen(usize::try_from(n).unwrap() + 1);
        if !client.try_send(frame(RST_STREAM, 0, stream(n), &[0, 0, 0, 8])) {
            break;
        }
    }
    assert_eq!(goaway(&mut client), None, "closed at once");
    bed.wait_metric("gantry_proxy_floods_total{kind=\"reset\"}", 1.0);
}

#[test]
fn heads_that_grow_when_they_are_read_are_bounded() {
    let (bed, origin) = bed(207, Setup::default());
    let name = host(CONTAINER, "http-3000");
    let neighbour = Neighbour::of(&bed);
    let before = memory();
    // A field of 4 KB goes into the table once, and is then named by one octet each: 64 MB in all.
    let large = [&[0x40, 1, b'x', 0x7f, 0x81, 0x1e][..], &[b'y'; 4000]].concat();
    let bomb = [get(&name), large, vec![0xbe; 16_000]].concat();
    let pieces: Vec<&[u8]> = bomb.chunks(16_000).collect();
    let mut octets = frame(HEADERS, END_STREAM, 1, pieces[0]);
    octets.extend(frame(CONTINUATION, END_HEADERS, 1, pieces[1]));
    // Fields without a name or a value, each of which costs the reader 32 octets and more.
    let empty =
        frame(HEADERS, END_STREAM | END_HEADERS, 1, &[get(&name), [0, 0, 0].repeat(5000)].concat());
    let list = frame(
        HEADERS,
        END_STREAM | END_HEADERS,
        1,
        &[get(&name), field("x", "").repeat(3000)].concat(),
    );
    for bomb in [octets, empty, list] {
        for _ in 0..20 {
            let mut client = connect(&bed, &name);
            _ = client.try_send(&bomb);
            // Whatever the answer is, the next request does not wait for it.
            _ = client.try_send(frame(RST_STREAM, 0, 1, &[0, 0, 0, 8]));
        }
    }
    neighbour.was_served();
    assert!(origin.seen().iter().all(|seen| seen.head.len() < 70_000));
    assert!(origin.seen().iter().all(|seen| !seen.head.contains("x: yyyy")), "the bomb passed");
    let grown = memory().saturating_sub(before);
    assert!(grown < MEMORY_MAX, "{} MiB", grown >> 20);
}

#[test]
fn the_last_stream_of_a_connection_is_the_last() {
    let (bed, _origin) = bed(208, Setup::default());
    let name = host(CONTAINER, "http-3000");
    let mut client = connect(&bed, &name);
    client.send(whole(&name, 0x7fff_ffff));
    _ = client.try_send(whole(&name, 1));
    assert_eq!(goaway(&mut client), Some(1), "a protocol error");
    // Numbers that the edge itself would use.
    let mut client = connect(&bed, &name);
    _ = client.try_send(whole(&name, 2));
    assert_eq!(goaway(&mut client), Some(1), "a protocol error");
}

/// A container whose answers are as large as the client wants.
fn endless(bed: &Bed) -> crate::origin::Origin {
    bed.running_with(|seen, stream| {
        if seen.values("host")[0].contains(NEIGHBOUR) {
            return crate::origin::reply(stream, "", "hello");
        }
        send(stream, "HTTP/1.1 200 OK\r\nContent-Length: 104857600\r\n\r\n");
        for _ in 0..6400 {
            send(stream, [0; 16 * 1024]);
        }
    })
}

/// Asks for a large answer on many streams; then takes nothing (`settings` say how).
fn asks_and_takes_nothing(bed: &Bed, settings: &[u8], after: &[u8]) -> Client {
    let name = host(CONTAINER, "http-3000");
    let mut client = connect_with(bed, &name, settings);
    let requests: Vec<u8> = (0..40).flat_map(|n| whole(&name, stream(n))).collect();
    client.send(requests);
    client.send(after);
    client
}

#[test]
fn answers_that_nobody_takes_are_not_kept_in_memory() {
    let mut setup = Setup::default();
    setup.limits.send_idle = Duration::from_secs(2);
    let bed = Bed::with(209, setup);
    let origin = endless(&bed);
    bed.set(NEIGHBOUR, gantry_model::Phase::Running, 1);
    let neighbour = Neighbour::of(&bed);
    let before = memory();
    // The windows of all streams stay closed; or open by one octet; or wide open, and the socket full.
    let wide = [0, 4, 0x7f, 0xff, 0xff, 0xff];
    let wide_connection = frame(WINDOW_UPDATE, 0, 0, &[0x7f, 0, 0, 0]);
    let mut clients = [
        asks_and_takes_nothing(&bed, WINDOW_CLOSED, &[]),
        asks_and_takes_nothing(&bed, &[0, 4, 0, 0, 0, 1], &[]),
        asks_and_takes_nothing(&bed, &wide, &wide_connection),
    ];
    // All of their streams end, and with them what they held.
    origin.wait_closed(120);
    let grown = memory().saturating_sub(before);
    assert!(grown < MEMORY_MAX, "{} MiB", grown >> 20);
    neighbour.was_served();
    for client in &mut clients {
        _ = client.try_send(frame(PING, 0, 0, &[0; 8]));
    }
}
