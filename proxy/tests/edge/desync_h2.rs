//! Attempts in frames of HTTP/2, which the edge writes as HTTP/1.1: what a field of one may hold, the
//! framing of the other must not hear of.

use crate::{
    bed::{Bed, CONTAINER, host},
    client::Client,
    desync::{Fate, judge, normal},
    http2::{
        DATA, END_HEADERS, END_STREAM, GOAWAY, HEADERS, RST_STREAM, connect, field, frame, get,
    },
    servers::{Server, all},
};

type Fields = &'static [(&'static str, &'static str)];

/// What is tried, the fields, the body, the trailers, what must become of it. [`Fate::Cut`] stands for
/// everything that is not served: a reset, the end of the connection, an answer other than 200.
type Row = (&'static str, Fields, &'static str, Fields, Fate);

/// The four that every request has.
macro_rules! with {
    ($($field:expr),*) => {
        &[(":method", "POST"), (":scheme", "https"), (":authority", "{h}"), (":path", "/p"), $($field),*]
    };
}

/// The four, one of them as given.
macro_rules! pseudo {
    ($method:literal, $scheme:literal, $authority:literal, $path:literal) => {
        &[(":method", $method), (":scheme", $scheme), (":authority", $authority), (":path", $path)]
    };
}

const ABC: Fate = Fate::Passes(&[("POST", "/p", "abc")]);
const NO: Fate = Fate::Cut;

/// Lengths, codings, fields between two hops.
const FRAMING: &[Row] = &[
    ("an honest request", with!(), "abc", &[], ABC),
    ("an honest length", with!(("content-length", "3")), "abc", &[], ABC),
    ("honest trailers", with!(), "abc", &[("x-sum", "1")], Fate::Passes(&[("POST", "/p", "abc")])),
    ("a length too great", with!(("content-length", "10")), "abc", &[], NO),
    ("a length too small", with!(("content-length", "1")), "abc", &[], NO),
    ("a length and no body", with!(("content-length", "3")), "", &[], NO),
    ("a list of lengths", with!(("content-length", "3, 3")), "abc", &[], NO),
    ("two equal lengths", with!(("content-length", "3"), ("content-length", "3")), "abc", &[], NO),
    ("two lengths", with!(("content-length", "3"), ("content-length", "0")), "abc", &[], NO),
    ("a length with a plus", with!(("content-length", "+3")), "abc", &[], NO),
    ("a length in hexadecimal", with!(("content-length", "0x3")), "abc", &[], NO),
    ("a length behind a line end", with!(("content-length", "3\r\nx: y")), "abc", &[], NO),
    (
        "H2.TE",
        with!(("transfer-encoding", "chunked")),
        "0\r\n\r\nGET /canary HTTP/1.1\r\n\r\n",
        &[],
        NO,
    ),
    ("H2.TE identity", with!(("transfer-encoding", "identity")), "abc", &[], NO),
    ("TE with an underscore", with!(("transfer_encoding", "chunked")), "abc", &[], ABC),
    ("a length with an underscore", with!(("content_length", "40")), "abc", &[], ABC),
    ("connection", with!(("connection", "content-length")), "abc", &[], NO),
    ("keep-alive", with!(("keep-alive", "timeout=5")), "abc", &[], NO),
    ("proxy-connection", with!(("proxy-connection", "keep-alive")), "abc", &[], NO),
    ("upgrade", with!(("upgrade", "websocket")), "abc", &[], NO),
    ("te of chunked", with!(("te", "chunked")), "abc", &[], NO),
    ("te of trailers", with!(("te", "trailers")), "abc", &[], ABC),
    ("trailers with a length", with!(), "abc", &[("content-length", "60")], ABC),
    (
        "trailers with a host",
        with!(),
        "abc",
        &[("host", "evil"), ("x-forwarded-for", "6.6.6.6")],
        ABC,
    ),
    ("trailers with a coding", with!(), "abc", &[("transfer-encoding", "chunked")], NO),
    ("trailers with a path", with!(), "abc", &[(":path", "/canary")], ABC),
    ("trailers with a line end", with!(), "abc", &[("x", "a\r\n\r\nGET /canary HTTP/1.1")], NO),
    (
        "a GET with a body",
        pseudo!("GET", "https", "{h}", "/p"),
        "GET /canary HTTP/1.1\r\n\r\n",
        &[],
        Fate::Passes(&[("GET", "/p", "GET /canary HTTP/1.1\r\n\r\n")]),
    ),
];

/// Names and values.
const FIELDS: &[Row] = &[
    ("a line end in a value", with!(("x", "a\r\nx-forwarded-for: 6.6.6.6")), "abc", &[], NO),
    ("a request in a value", with!(("x", "a\r\n\r\nGET /canary HTTP/1.1")), "abc", &[], NO),
    ("LF in a value", with!(("x", "a\nb: c")), "abc", &[], NO),
    ("CR in a value", with!(("x", "a\rb: c")), "abc", &[], NO),
    ("NUL in a value", with!(("x", "a\0b")), "abc", &[], NO),
    ("a line end in a name", with!(("x\r\ny", "z")), "abc", &[], NO),
    ("a field in a name", with!(("x: y\r\ntransfer-encoding", "chunked")), "abc", &[], NO),
    ("a colon in a name", with!(("x:y", "z")), "abc", &[], NO),
    ("a blank in a name", with!(("transfer-encoding ", "chunked")), "abc", &[], NO),
    ("a capital in a name", with!(("Transfer-Encoding", "chunked")), "abc", &[], NO),
    ("NUL in a name", with!(("x\0", "z")), "abc", &[], NO),
    ("an empty name", with!(("", "z")), "abc", &[], NO),
    (
        "forged addresses",
        with!(("x-forwarded-for", "6.6.6.6"), ("x_forwarded_for", "6.6.6.6")),
        "abc",
        &[],
        ABC,
    ),
    ("an unknown pseudo field", with!((":x", "z")), "abc", &[], NO),
    ("a status", with!((":status", "200")), "abc", &[], NO),
    ("a pseudo field behind another", with!(("x", "z"), (":path", "/canary")), "abc", &[], NO),
    ("two paths", with!((":path", "/canary")), "abc", &[], NO),
    ("two methods", with!((":method", "GET")), "abc", &[], NO),
    ("two authorities", with!((":authority", "{h}")), "abc", &[], NO),
    ("two schemes", with!((":scheme", "https")), "abc", &[], NO),
    ("a host that differs", with!(("host", "evil.example")), "abc", &[], NO),
    ("two hosts", with!(("host", "{h}"), ("host", "{h}")), "abc", &[], NO),
    ("a host that agrees", with!(("host", "{h}")), "abc", &[], ABC),
    ("an expectation", with!(("expect", "100-continue")), "abc", &[], ABC),
];

/// What stands in the first line of a request of HTTP/1.1.
const LINE: &[Row] = &[
    (
        "a request in a path",
        pseudo!("GET", "https", "{h}", "/p HTTP/1.1\r\nHost: x\r\n\r\nGET /canary"),
        "",
        &[],
        NO,
    ),
    ("a line end in a path", pseudo!("GET", "https", "{h}", "/p\r\nx: y"), "", &[], NO),
    ("a version in a path", pseudo!("GET", "https", "{h}", "/p HTTP/1.0"), "", &[], NO),
    ("a tab in a path", pseudo!("GET", "https", "{h}", "/p\ta"), "", &[], NO),
    ("NUL in a path", pseudo!("GET", "https", "{h}", "/p\0"), "", &[], NO),
    (
        "a fragment in a path",
        pseudo!("GET", "https", "{h}", "/p#f"),
        "",
        &[],
        Fate::Passes(&[("GET", "/p", "")]),
    ),
    ("an empty path", pseudo!("GET", "https", "{h}", ""), "", &[], NO),
    ("a path without a slash", pseudo!("GET", "https", "{h}", "p"), "", &[], NO),
    ("a path that is *", pseudo!("GET", "https", "{h}", "*"), "", &[], NO),
    ("a path that is @", pseudo!("GET", "https", "{h}", "@evil/p"), "", &[], NO),
    ("an absolute path", pseudo!("GET", "https", "{h}", "https://evil/p"), "", &[], NO),
    (
        "a path of two slashes",
        pseudo!("GET", "https", "{h}", "//evil/p"),
        "",
        &[],
        Fate::Passes(&[("GET", "//evil/p", "")]),
    ),
    (
        "a request in a method",
        pseudo!("GET /canary HTTP/1.1\r\n\r\nGET", "https", "{h}", "/p"),
        "",
        &[],
        NO,
    ),
    ("a blank in a method", pseudo!("GET /canary", "https", "{h}", "/p"), "", &[], NO),
    ("an empty method", pseudo!("", "https", "{h}", "/p"), "", &[], NO),
    ("a CONNECT with a path", pseudo!("CONNECT", "https", "{h}", "/p"), "", &[], NO),
    ("an authority with a user", pseudo!("GET", "https", "evil@{h}", "/p"), "", &[], NO),
    ("an authority with a path", pseudo!("GET", "https", "{h}/canary", "/p"), "", &[], NO),
    ("an authority with a query", pseudo!("GET", "https", "{h}?x", "/p"), "", &[], NO),
    ("an authority with a fragment", pseudo!("GET", "https", "{h}#x", "/p"), "", &[], NO),
    ("an authority with a backslash", pseudo!("GET", "https", "{h}\\x", "/p"), "", &[], NO),
    ("an authority with a line end", pseudo!("GET", "https", "{h}\r\nx: y", "/p"), "", &[], NO),
    ("an authority with a blank", pseudo!("GET", "https", "{h} x", "/p"), "", &[], NO),
    ("an authority with two ports", pseudo!("GET", "https", "{h}:443:443", "/p"), "", &[], NO),
    ("an authority with an empty port", pseudo!("GET", "https", "{h}:", "/p"), "", &[], NO),
    ("an authority with an encoded dot", pseudo!("GET", "https", "{h}%2eevil", "/p"), "", &[], NO),
    ("an empty authority", pseudo!("GET", "https", "", "/p"), "", &[], NO),
    ("an authority of another container", pseudo!("GET", "https", "{other}", "/p"), "", &[], NO),
    (
        "an authority with a port",
        pseudo!("GET", "https", "{h}:443", "/p"),
        "",
        &[],
        Fate::Passes(&[("GET", "/p", "")]),
    ),
    ("another scheme", pseudo!("GET", "ftp", "{h}", "/p"), "", &[], NO),
    ("a scheme with a host", pseudo!("GET", "https://evil/?", "{h}", "/p"), "", &[], NO),
    ("a scheme with a line end", pseudo!("GET", "https\r\nx: y", "{h}", "/p"), "", &[], NO),
    ("an empty scheme", pseudo!("GET", "", "{h}", "/p"), "", &[], NO),
    ("no path", &[(":method", "GET"), (":scheme", "https"), (":authority", "{h}")], "", &[], NO),
    ("no scheme", &[(":method", "GET"), (":authority", "{h}"), (":path", "/p")], "", &[], NO),
    ("no method", &[(":scheme", "https"), (":authority", "{h}"), (":path", "/p")], "", &[], NO),
    ("no host at all", &[(":method", "GET"), (":scheme", "https"), (":path", "/p")], "", &[], NO),
    (
        "a tunnel to a port",
        &[(":method", "CONNECT"), (":authority", "{h}:3000")],
        "GET /canary HTTP/1.1\r\n\r\n",
        &[],
        NO,
    ),
];

/// Reads on to the end of a stream; returns its head and data, or nothing if it was reset or the
/// connection ended.
fn answer(client: &mut Client, stream: u32) -> Option<(Vec<u8>, Vec<u8>)> {
    let (mut head, mut data) = (Vec::new(), Vec::new());
    loop {
        let start = client.exactly_or_end(9)?;
        let length = u32::from_be_bytes([0, start[0], start[1], start[2]]);
        let payload = client.exactly_or_end(usize::try_from(length).unwrap())?;
        let (kind, flags) = (start[3], start[4]);
        if kind == GOAWAY {
            return None;
        }
        if u32::from_be_bytes([start[5], start[6], start[7], start[8]]) != stream {
            continue;
        }
        match kind {
            // Interim answers have heads, too.
            HEADERS if data.is_empty() => head = payload,
            HEADERS => head.extend(payload),
            DATA => data.extend(payload),
            RST_STREAM => return None,
            _ => {}
        }
        if flags & END_STREAM != 0 && matches!(kind, HEADERS | DATA) {
            return Some((head, data));
        }
    }
}

/// The frames of a row.
fn frames(name: &str, (_, fields, body, trailers, _): Row) -> Vec<u8> {
    let other = host(&"c".repeat(24), "http-3000");
    let block = |fields: Fields| -> Vec<u8> {
        let fill = |text: &str| text.replace("{h}", name).replace("{other}", &other);
        fields.iter().flat_map(|(field_name, value)| field(field_name, &fill(value))).collect()
    };
    let last = |is_last: bool| if is_last { END_STREAM } else { 0 };
    let bare = body.is_empty() && trailers.is_empty();
    let mut octets = frame(HEADERS, END_HEADERS | last(bare), 1, &block(fields));
    if !body.is_empty() {
        octets.extend(frame(DATA, last(trailers.is_empty()), 1, body.as_bytes()));
    }
    if !trailers.is_empty() {
        octets.extend(frame(HEADERS, END_HEADERS | END_STREAM, 1, &block(trailers)));
    }
    octets
}

/// The indexed field `:status: 200`.
const OK: u8 = 0x88;

fn attempt(bed: &Bed, name: &str, row: Row) {
    let (what, fate) = (row.0, row.4);
    let mut client = connect(bed, name);
    _ = client.try_send(frames(name, row));
    let answered = answer(&mut client, 1);
    match fate {
        Fate::Passes(meant) => {
            let (head, data) = answered.expect(what);
            let text = String::from_utf8_lossy(&data).into_owned();
            assert_eq!((head[0], text.as_str()), (OK, meant[0].1), "{what}");
            // The path is the first field of the third octet in the static table.
            let mut block = get(name);
            block.splice(1..2, field(":path", "/after"));
            client.send(frame(HEADERS, END_STREAM | END_HEADERS, 3, &block));
            assert_eq!(answer(&mut client, 3).expect(what).1, b"/after", "{what}");
        }
        Fate::Cut | Fate::Refused(_) | Fate::Answered(_) | Fate::May(_) => {
            assert!(
                answered.as_ref().is_none_or(|(head, _)| head[0] != OK),
                "{what}: {answered:?}"
            );
        }
    }
}

#[test]
fn no_server_sees_what_only_frames_can_hold() {
    let bed = Bed::new(201);
    bed.set(CONTAINER, gantry_model::Phase::Running, 1);
    let directory = tempfile::tempdir().unwrap();
    let Some(mut servers) = all(&bed, directory.path()) else { return };
    let mut wrong = Vec::new();
    for (number, row) in [FRAMING, FIELDS, LINE].concat().into_iter().enumerate() {
        let tried = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            try_row(&bed, &mut servers, &format!("/clean-{number}"), row);
        }));
        wrong.extend(tried.err().map(|_| row.0));
    }
    assert!(wrong.is_empty(), "{wrong:?}");
}

fn try_row(bed: &Bed, servers: &mut [Server], clean: &str, row: Row) {
    let (what, fate) = (row.0, row.4);
    let mut views = Vec::new();
    for server in servers {
        let name = host(CONTAINER, &format!("http-{}", server.port));
        let made =
            std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| attempt(bed, &name, row)));
        let reply = bed.client().get(&name, clean, "");
        assert_eq!((reply.status, reply.text().as_str()), (200, clean), "after {what}");
        let seen = judge(server, what, fate, clean);
        assert!(made.is_ok(), "{what} at {}", server.name);
        views.push((server.name, normal(&seen, server.port)));
    }
    for pair in views.windows(2) {
        assert_eq!(pair[0].1, pair[1].1, "{what}: {} and {} differ", pair[0].0, pair[1].0);
    }
}
