//! The cases of the usual conformance suite for `WebSocket` servers (framing, pings, reserved bits,
//! opcodes, fragments, UTF-8, closing, sizes, compression), in octets of our own. Each is tried directly on
//! two echo servers that others wrote, and through the edge, over HTTP/1.1 and over HTTP/2: what comes back
//! must be the same to the octet. With `GANTRY_WEBSOCKET_CASES=all` sizes and numbers of messages are those
//! of the suite, which takes minutes.

use std::{
    fs::File,
    io::{BufRead, BufReader, BufWriter, Read, Write},
    net::SocketAddr,
};

use flate2::{Compress, Compression, FlushCompress};
use gantry_model::Phase;

use crate::{
    bed::{Bed, CONTAINER, host},
    client::Client,
    python,
};

/// What a client does.
#[derive(Clone, Debug)]
enum Step {
    Send(Vec<u8>),
    /// Waits for so many frames.
    Await(usize),
    /// Offers an extension in its handshake.
    Offer(&'static str),
}
use Step::{Await, Offer, Send};

/// The name of a case and its steps. A case that ends with a wait is then closed by the client.
type Case = (String, Vec<Step>);

const TEXT: u8 = 1;
const BINARY: u8 = 2;
const CLOSE: u8 = 8;
const PING: u8 = 9;
const PONG: u8 = 10;
const FIN: u8 = 0x80;
const MASK: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];

/// A frame of a client; `first` is its first octet.
fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut octets = vec![first];
    match payload.len() {
        length @ ..=125 => octets.push(0x80 | u8::try_from(length).unwrap()),
        length @ ..=0xffff => {
            octets.push(0xfe);
            octets.extend(u16::try_from(length).unwrap().to_be_bytes());
        }
        length => {
            octets.push(0xff);
            octets.extend(u64::try_from(length).unwrap().to_be_bytes());
        }
    }
    octets.extend(MASK);
    // By words: octet by octet would take seconds for the largest.
    let word = u64::from_ne_bytes([MASK, MASK].concat().try_into().unwrap());
    let (words, rest) = payload.as_chunks::<8>();
    for part in words {
        octets.extend_from_slice(&(u64::from_ne_bytes(*part) ^ word).to_ne_bytes());
    }
    octets.extend(rest.iter().zip(MASK.iter().cycle()).map(|(octet, mask)| octet ^ mask));
    octets
}

fn whole(opcode: u8, payload: &[u8]) -> Vec<u8> {
    frame(FIN | opcode, payload)
}

/// A message in pieces of `size`.
fn pieces(opcode: u8, payload: &[u8], size: usize) -> Vec<Vec<u8>> {
    let count = payload.chunks(size).count();
    let piece = |(number, piece): (usize, &[u8])| {
        let opcode = if number == 0 { opcode } else { 0 };
        frame(if number + 1 == count { FIN | opcode } else { opcode }, piece)
    };
    payload.chunks(size).enumerate().map(piece).collect()
}

/// One message that is returned.
fn echo(name: String, octets: Vec<u8>) -> Case {
    (name, vec![Send(octets), Await(1)])
}

/// Frames upon which the server ends, sent at once: octets that it does not read would have its end lost.
fn sends(name: &str, frames: &[Vec<u8>]) -> Case {
    (name.to_owned(), vec![Send(frames.concat())])
}

/// 1: framing, by length and by how the network cuts; 9: large messages, fragments of all sizes.
fn sizes() -> Vec<Case> {
    let mut cases = Vec::new();
    for opcode in [TEXT, BINARY] {
        for length in [0, 1, 125, 126, 127, 128, 65_535, 65_536, 1 << 20, 4 << 20] {
            let octets = whole(opcode, &vec![b'*'; length]);
            cases.push(echo(format!("1 opcode {opcode} of {length}"), octets));
        }
        for cut in [1, 997] {
            let octets = whole(opcode, &vec![b'*'; 65_536]);
            let octets = if cut == 1 { whole(opcode, &[b'*'; 300]) } else { octets };
            let mut steps: Vec<_> = octets.chunks(cut).map(|part| Send(part.to_vec())).collect();
            steps.push(Await(1));
            cases.push((format!("1 opcode {opcode} cut by {cut}"), steps));
        }
        for size in [64, 256, 4096, 65_536] {
            let octets = pieces(opcode, &vec![b'*'; 256 * 1024], size).concat();
            cases.push(echo(format!("9 opcode {opcode} in pieces of {size}"), octets));
        }
        let again = vec![whole(opcode, b"again and again"); 200];
        cases.push((format!("9 opcode {opcode} many times"), one_by_one(again)));
    }
    cases
}

/// Messages, each of which is sent when the last one has come back.
fn one_by_one(messages: Vec<Vec<u8>>) -> Vec<Step> {
    let steps = messages.into_iter().zip(1..);
    steps.flat_map(|(message, count)| [Send(message), Await(count)]).collect()
}

/// Whether everything is tried.
fn is_full() -> bool {
    std::env::var_os("GANTRY_WEBSOCKET_CASES").is_some_and(|cases| cases == "all")
}

/// 9: the largest messages, whole, in pieces and as the network cuts them; many round trips.
fn limits() -> Vec<Case> {
    const MIB: usize = 1 << 20;
    let mut cases = Vec::new();
    for opcode in [TEXT, BINARY] {
        let all: &[usize] = &[65_536, 262_144, MIB, 4 * MIB, 8 * MIB, 16 * MIB];
        let few: &[usize] = if opcode == TEXT { &[8 * MIB] } else { &[16 * MIB] };
        for &length in if is_full() { all } else { few } {
            let octets = whole(opcode, &vec![b'*'; length]);
            cases.push(echo(format!("9 opcode {opcode} of {length}"), octets));
        }
        let all: &[usize] = &[64, 256, 1024, 4096, 16_384, 65_536, 262_144, MIB, 4 * MIB];
        let few: &[usize] = if opcode == TEXT { &[16_384] } else { &[262_144] };
        for &size in if is_full() { all } else { few } {
            let octets = pieces(opcode, &vec![b'*'; 4 * MIB], size).concat();
            cases.push(echo(format!("9 opcode {opcode}, 4 MiB in pieces of {size}"), octets));
        }
        let all: &[usize] = &[64, 128, 256, 512, 1024, 2048];
        for &cut in if is_full() { all } else { &all[5..] } {
            let octets = whole(opcode, &vec![b'*'; MIB]);
            let mut steps: Vec<_> = octets.chunks(cut).map(|part| Send(part.to_vec())).collect();
            steps.push(Await(1));
            cases.push((format!("9 opcode {opcode}, 1 MiB cut by {cut}"), steps));
        }
        for length in [0, 16, 64, 256, 1024, 4096] {
            let count = if is_full() { 1000 } else { 10 };
            let messages = vec![whole(opcode, &vec![b'*'; length]); count];
            cases.push((format!("9 opcode {opcode}, many of {length}"), one_by_one(messages)));
        }
    }
    cases
}

/// What is compressed: of a kind, and of this size.
fn sample(kind: usize, size: usize) -> Vec<u8> {
    const KINDS: [&str; 4] = [
        r#"{"id": 17, "name": "one of many", "tags": ["a", "b"], "sum": 3.5, "ok": true}, "#,
        "Habe nun, ach! Philosophie, Juristerei und Medizin, und leider auch Theologie studiert; ",
        "<li class=\"row\"><a href=\"/items/17\">An item</a><span>3.50</span></li>\n",
        "again and again ",
    ];
    // Noise, as an image has it.
    let mut state = 0x9e37_79b9_u32;
    let noise = || {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        state.to_be_bytes()[0]
    };
    match KINDS.get(kind) {
        Some(text) => text.bytes().cycle().take(size).collect(),
        None => std::iter::repeat_with(noise).take(size).collect(),
    }
}

/// Compresses messages one after the other, as RFC 7692 has it (7.2.1).
fn deflate(message: &[u8], count: usize) -> Vec<Vec<u8>> {
    let mut compress = Compress::new(Compression::fast(), false);
    let one = || {
        let mut octets = Vec::with_capacity(message.len() + 1024);
        compress.compress_vec(message, &mut octets, FlushCompress::Sync).unwrap();
        assert_eq!(octets.split_off(octets.len() - 4), [0, 0, 0xff, 0xff]);
        octets
    };
    std::iter::repeat_with(one).take(count).collect()
}

/// 12: compression of data of several kinds; 13: with all that a client may ask for.
fn compressed() -> Vec<Case> {
    const COMPRESSED: u8 = 0x40;
    let mut cases = Vec::new();
    let plain = "permessage-deflate";
    let families: [(&str, usize, &'static str); 12] = [
        ("12.1", 0, plain),
        ("12.2", 4, plain),
        ("12.3", 1, plain),
        ("12.4", 2, plain),
        ("12.5", 3, plain),
        ("13.1", 0, plain),
        ("13.2", 0, "permessage-deflate; server_no_context_takeover"),
        ("13.3", 0, "permessage-deflate; server_max_window_bits=9"),
        ("13.4", 0, "permessage-deflate; server_max_window_bits=15"),
        ("13.5", 0, "permessage-deflate; server_no_context_takeover; server_max_window_bits=9"),
        ("13.6", 0, "permessage-deflate; server_no_context_takeover; server_max_window_bits=15"),
        (
            "13.7",
            0,
            "permessage-deflate; server_no_context_takeover; server_max_window_bits=9, \
             permessage-deflate; server_no_context_takeover, permessage-deflate",
        ),
    ];
    let count = if is_full() { 1000 } else { 2 };
    for (family, kind, offer) in families {
        let opcode = if kind == 4 { BINARY } else { TEXT };
        let mut case = |name: String, frames: Vec<Vec<u8>>| {
            let steps = [vec![Offer(offer)], one_by_one(frames)].concat();
            cases.push((format!("{family} {name}"), steps));
        };
        for size in [16, 64, 256, 1024, 4096, 8192, 16_384, 32_768, 65_536, 131_072] {
            let messages = deflate(&sample(kind, size), count);
            let frames = messages.iter().map(|message| whole(COMPRESSED | opcode, message));
            case(format!("of {size}"), frames.collect());
        }
        let messages = deflate(&sample(kind, 131_072), count);
        // Of noise, which nothing makes smaller, the smallest pieces would be tens of thousands.
        let least = if opcode == BINARY && !is_full() { 1024 } else { 16 };
        let all = [16, 64, 256, 1024, 4096, 8192, 16_384, 32_768];
        for size in all.into_iter().filter(|size| *size >= least) {
            let cut = |message: &Vec<u8>| pieces(COMPRESSED | opcode, message, size).concat();
            case(format!("in pieces of {size}"), messages.iter().map(cut).collect());
        }
    }
    cases
}

/// 2: pings and pongs; 3: reserved bits; 4: reserved opcodes; 5: fragments.
fn control() -> Vec<Case> {
    let hello = || whole(TEXT, b"hello");
    let mut cases = vec![
        echo("2 an empty ping".to_owned(), whole(PING, b"")),
        echo("2 a ping".to_owned(), whole(PING, b"payload")),
        echo("2 a binary ping".to_owned(), whole(PING, &[0, 0xff, 0xfe, 0xfd])),
        echo("2 the longest ping".to_owned(), whole(PING, &[0xfe; 125])),
        sends("2 a ping that is too long", &[whole(PING, &[0xfe; 126])]),
        (
            "2 a pong nobody asked for".to_owned(),
            vec![Send(whole(PONG, b"x")), Send(hello()), Await(1)],
        ),
        sends("2 a ping in pieces", &[frame(PING, b"x")]),
        ("2 ten pings".to_owned(), vec![Send(whole(PING, b"p").repeat(10)), Await(10)]),
        sends("5 a continuation of nothing", &[frame(FIN, b"x")]),
        sends("5 an open continuation of nothing", &[frame(0, b"x")]),
        sends("5 a message within a message", &[frame(TEXT, b"x"), hello()]),
        (
            "5 a ping within a message".to_owned(),
            vec![
                Send(frame(TEXT, b"x")),
                Send(whole(PING, b"p")),
                Await(1),
                Send(frame(FIN, b"y")),
                Await(2),
            ],
        ),
        (
            "5 pings between many pieces".to_owned(),
            vec![
                Send(frame(TEXT, b"a")),
                Send(whole(PING, b"1")),
                Await(1),
                Send(frame(0, b"b")),
                Send(whole(PING, b"2")),
                Await(2),
                Send(frame(FIN, b"c")),
                Await(3),
            ],
        ),
        echo(
            "5 empty pieces".to_owned(),
            [frame(TEXT, b""), frame(0, b""), frame(FIN, b"")].concat(),
        ),
        sends("5 a continuation after the end", &[[hello(), frame(FIN, b"x")].concat()]),
    ];
    for bits in 1..8_u8 {
        for opcode in [TEXT, BINARY, PING, CLOSE] {
            let name = format!("3 bits {bits} of opcode {opcode}");
            cases.push((name, vec![Send(frame(FIN | bits << 4 | opcode, b""))]));
        }
    }
    for opcode in [3, 4, 5, 6, 7, 11, 12, 13, 14, 15] {
        for payload in [&b""[..], b"x"] {
            let name = format!("4 opcode {opcode} of {}", payload.len());
            cases.push((name, vec![Send(hello()), Await(1), Send(whole(opcode, payload))]));
        }
    }
    // A client must mask.
    cases.push(sends("5.1 a frame without a mask", &[vec![FIN | TEXT, 1, b'x']]));
    cases
}

/// 6: text that is UTF-8 and text that is not, whole and octet by octet; 7: closing.
fn texts_and_ends() -> Vec<Case> {
    let mut cases = Vec::new();
    let valid: [&[u8]; 8] = [
        b"hello",
        "κόσμε".as_bytes(),
        "\u{0}\u{7f}\u{80}\u{7ff}\u{800}".as_bytes(),
        "\u{d7ff}\u{e000}\u{fffd}".as_bytes(),
        "\u{10000}\u{10ffff}".as_bytes(),
        "\u{ffff}\u{fffe}".as_bytes(),
        "Hello-µ@ßöäüàá-UTF-8!!".as_bytes(),
        "\u{feff}".as_bytes(),
    ];
    let invalid: [&[u8]; 20] = [
        b"\x80",
        b"\xbf",
        b"\xc0",
        b"\xc1\x80",
        b"\xc3",
        b"\xce\xba\xe1\xbd",
        b"\xc0\xaf",
        b"\xe0\x80\xaf",
        b"\xf0\x80\x80\xaf",
        b"\xe0\x9f\xbf",
        b"\xed\xa0\x80",
        b"\xed\xbf\xbf",
        b"\xed\xa0\x80\xed\xb0\x80",
        b"\xf4\x90\x80\x80",
        b"\xf5\x80\x80\x80",
        b"\xf8\x88\x80\x80\x80",
        b"\xfc\x84\x80\x80\x80\x80",
        b"\xfe",
        b"\xff",
        b"ok\xce\xba\xff",
    ];
    for text in valid {
        let name = String::from_utf8_lossy(text).into_owned();
        cases.push(echo(format!("6 {name:?}"), whole(TEXT, text)));
        cases.push(echo(format!("6 {name:?} by octets"), pieces(TEXT, text, 1).concat()));
    }
    for text in invalid {
        cases.push(sends(&format!("6 not {text:?}"), &[whole(TEXT, text)]));
        cases.push(sends(&format!("6 not {text:?} by octets"), &[pieces(TEXT, text, 1).concat()]));
    }
    let close =
        |code: u16, reason: &[u8]| whole(CLOSE, &[&code.to_be_bytes()[..], reason].concat());
    for code in [1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 3000, 3999, 4000, 4999] {
        cases.push(sends(&format!("7 code {code}"), &[close(code, b"because")]));
    }
    for code in [0, 999, 1004, 1005, 1006, 1016, 1100, 2000, 2999, 5000, 65_535] {
        cases.push(sends(&format!("7 code {code}, which is none"), &[close(code, b"")]));
    }
    cases.extend([
        sends("7 an end without a code", &[whole(CLOSE, b"")]),
        sends("7 an end with half a code", &[whole(CLOSE, b"\x03")]),
        sends("7 the longest reason", &[close(1000, &[b'*'; 123])]),
        sends("7 a reason that is too long", &[close(1000, &[b'*'; 124])]),
        sends("7 a reason that is no text", &[close(1000, b"\xce\xba\xff")]),
        sends("7 an end within a message", &[frame(TEXT, b"x"), close(1000, b"")]),
        sends("7 a message behind the end", &[[close(1000, b""), whole(TEXT, b"late")].concat()]),
        sends("7 a ping behind the end", &[[close(1000, b""), whole(PING, b"late")].concat()]),
    ]);
    cases
}

/// Takes part of a frame that a server sent; nothing when the connection has ended.
fn next(client: &mut Client, all: &mut Vec<u8>) -> Option<()> {
    let head = client.exactly_or_end(2)?;
    all.extend(&head);
    let extra = match head[1] {
        126 => 2,
        127 => 8,
        _ => 0,
    };
    let long = client.exactly_or_end(extra)?;
    all.extend(&long);
    let length = match extra {
        0 => u64::from(head[1]),
        _ => long.iter().fold(0, |length, octet| length << 8 | u64::from(*octet)),
    };
    all.extend(client.exactly_or_end(usize::try_from(length).unwrap())?);
    Some(())
}

/// Everything that a server sends in a case, after its handshake.
fn outcome(mut client: Client, name: &str, steps: &[Step]) -> Vec<u8> {
    let offer = match steps.first() {
        Some(Offer(offer)) => format!("Sec-WebSocket-Extensions: {offer}\r\n"),
        _ => String::new(),
    };
    client.send(format!(
        "GET / HTTP/1.1\r\nHost: {name}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n{offer}\r\n"
    ));
    let head = client.head().to_lowercase();
    assert!(head.starts_with("http/1.1 101 "), "{head}");
    assert!(head.contains("sec-websocket-accept: s3pplmbitxaq9kygzzhzrbk+xoo="), "{head}");
    let agreed = head.lines().find_map(|line| line.strip_prefix("sec-websocket-extensions: "));
    assert_eq!(agreed.is_some(), !offer.is_empty(), "{head}");
    let (mut all, mut frames) = (agreed.unwrap_or_default().as_bytes().to_vec(), 0);
    for step in steps {
        match step {
            Offer(_) => {}
            // The server may have ended already.
            Send(octets) => _ = client.try_send(octets),
            Await(count) => {
                while frames < *count && next(&mut client, &mut all).is_some() {
                    frames += 1;
                }
            }
        }
    }
    if let Some(Await(_)) = steps.last() {
        client.send(whole(CLOSE, &1000_u16.to_be_bytes()));
    }
    while next(&mut client, &mut all).is_some() {}
    all
}

/// What a server sends in each case over a stream of HTTP/2: one connection for all of them.
fn over_http2(bed: &Bed, name: &str, cases: &[Case]) -> Vec<Vec<u8>> {
    let directory = tempfile::tempdir().unwrap();
    let (asked, told) = (directory.path().join("asked"), directory.path().join("told"));
    let mut file = BufWriter::new(File::create(&asked).unwrap());
    for (_, steps) in cases {
        for step in steps {
            match step {
                Send(octets) => {
                    writeln!(file, "send {}", octets.len()).unwrap();
                    file.write_all(octets).unwrap();
                }
                Await(count) => writeln!(file, "await {count}").unwrap(),
                Offer(offer) => write!(file, "offer {}\n{offer}", offer.len()).unwrap(),
            }
        }
        writeln!(file, "end").unwrap();
    }
    file.into_inner().unwrap();
    let files = [asked.to_str().unwrap(), told.to_str().unwrap()];
    let client = python::ask(bed, "websocket_h2.py", name, &[&["cases"], &files[..]].concat());
    client.unwrap().ends();
    let mut told = BufReader::new(File::open(&told).unwrap());
    let mut next = || {
        let mut length = String::new();
        told.read_line(&mut length).unwrap();
        let mut octets = vec![0; length.trim_end().parse().unwrap()];
        told.read_exact(&mut octets).unwrap();
        octets
    };
    cases.iter().map(|_| next()).collect()
}

/// Tries all cases, perhaps without the largest, with the server at the bed's container.
fn try_all(bed: &Bed, address: SocketAddr, largest: bool) {
    let name = host(CONTAINER, "http-3000");
    let largest = if largest || is_full() { limits() } else { Vec::new() };
    let cases = [sizes(), largest, control(), texts_and_ends(), compressed()].concat();
    assert!(cases.len() > 390, "{}", cases.len());
    let over_http2 = over_http2(bed, &name, &cases);
    let mut wrong = Vec::new();
    for ((case, steps), over_http2) in cases.iter().zip(over_http2) {
        let direct = outcome(Client::connect(address), &name, steps);
        let through = outcome(bed.client(), &name, steps);
        assert!(!direct.is_empty(), "{case}: the server says how it ends");
        if direct != through || direct != over_http2 {
            wrong.push((case, direct.len(), through.len(), over_http2.len()));
        }
    }
    assert!(wrong.is_empty(), "{wrong:?}");
}

#[test]
fn a_websocket_behind_the_edge_is_the_one_that_it_is_without() {
    let bed = Bed::new(78);
    bed.set(CONTAINER, Phase::Running, 1);
    let address = SocketAddr::new(bed.container_address(2), 3000);
    let Some(_origin) = python::serve("websocket_origin.py", address) else { return };
    try_all(&bed, address, true);
}

#[test]
fn a_websocket_of_another_server_is_the_one_that_it_is_without_the_edge() {
    let bed = Bed::new(99);
    bed.set(CONTAINER, Phase::Running, 1);
    let address = SocketAddr::new(bed.container_address(2), 3000);
    let Some(_origin) = python::serve_node("websocket_origin.js", address) else { return };
    try_all(&bed, address, false);
}
