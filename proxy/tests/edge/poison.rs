//! Answers of a container that two readers could read differently. A client may get a broken answer
//! for a broken one; the next client gets its own.

use std::{io::Write as _, net::TcpStream, time::Duration};

use crate::{
    bed::{Bed, CONTAINER, Setup, host},
    origin::{Seen, reply, send},
};

/// What becomes of a bad answer.
#[derive(Clone, Copy, Debug)]
enum Fate {
    /// The client gets 502 in its place.
    Refused,
    /// The client gets this body, framed by the edge.
    Passes(&'static str),
    /// The client sees that the answer is not whole.
    Broken,
}

/// The answer that nobody may get.
const POISON: &str = "HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\npoison";

/// What a container answers, `{p}` for the poison, and what becomes of it.
const ROWS: &[(&str, &str, Fate)] = &[
    ("an honest answer", "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc", Fate::Passes("abc")),
    (
        "octets behind the body",
        "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc{p}",
        Fate::Passes("abc"),
    ),
    (
        "octets behind chunks",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n{p}",
        Fate::Passes("abc"),
    ),
    ("octets behind a 204", "HTTP/1.1 204 No Content\r\n\r\n{p}", Fate::Passes("")),
    (
        "octets behind a 304",
        "HTTP/1.1 304 Not Modified\r\nContent-Length: 10\r\n\r\n{p}",
        Fate::Passes(""),
    ),
    (
        "a length and a coding",
        "HTTP/1.1 200 OK\r\nContent-Length: 60\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n{p}",
        Fate::Passes("abc"),
    ),
    (
        "a coding and a short length",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Length: 1\r\n\r\n3\r\nabc\r\n0\r\n\r\n{p}",
        Fate::Passes("abc"),
    ),
    (
        "two lengths",
        "HTTP/1.1 200 OK\r\nContent-Length: 3\r\nContent-Length: 30\r\n\r\nabc{p}",
        Fate::Refused,
    ),
    ("a list of lengths", "HTTP/1.1 200 OK\r\nContent-Length: 3, 30\r\n\r\nabc{p}", Fate::Refused),
    ("a length with a plus", "HTTP/1.1 200 OK\r\nContent-Length: +3\r\n\r\nabc{p}", Fate::Refused),
    ("a length that is none", "HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\nabc{p}", Fate::Refused),
    (
        "a 101 that nobody asked for",
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\n{p}",
        Fate::Refused,
    ),
    (
        "a bad chunk size",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\nzz\r\n{p}",
        Fate::Broken,
    ),
    (
        "a chunk size past 64 bits",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n10000000000000001\r\n{p}",
        Fate::Broken,
    ),
    (
        "a chunk that is too long",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabcXX\r\n{p}",
        Fate::Broken,
    ),
    ("no version", "200 OK\r\nContent-Length: 3\r\n\r\nabc{p}", Fate::Refused),
    (
        "a status of four digits",
        "HTTP/1.1 2000 OK\r\nContent-Length: 3\r\n\r\nabc{p}",
        Fate::Refused,
    ),
    ("HTTP/2.0", "HTTP/2.0 200 OK\r\nContent-Length: 3\r\n\r\nabc{p}", Fate::Refused),
    (
        "NUL in a value",
        "HTTP/1.1 200 OK\r\nX: a\0b\r\nContent-Length: 3\r\n\r\nabc{p}",
        Fate::Refused,
    ),
    (
        "a blank before a colon",
        "HTTP/1.1 200 OK\r\nContent-Length : 3\r\n\r\nabc{p}",
        Fate::Refused,
    ),
    (
        "a field without a colon",
        "HTTP/1.1 200 OK\r\nnonsense\r\nContent-Length: 3\r\n\r\nabc{p}",
        Fate::Refused,
    ),
];

/// The container of these tests: it answers `/bad-N` with row N, octet for octet, and everything else
/// with its target.
fn answer(seen: &Seen, stream: &mut TcpStream) {
    let target = seen.line().split(' ').nth(1).unwrap();
    match target.strip_prefix("/bad-").map(|number| ROWS[number.parse::<usize>().unwrap()].1) {
        Some(octets) => send(stream, octets.replace("{p}", POISON)),
        None => reply(stream, "", target),
    }
}

#[test]
fn a_bad_answer_harms_only_whom_it_is_for() {
    let bed = Bed::new(202);
    let _origin = bed.running_with(answer);
    let name = host(CONTAINER, "http-3000");
    let mut wrong = Vec::new();
    for (number, (what, _, fate)) in ROWS.iter().enumerate() {
        let tried = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            ask(&bed, &name, number, *fate);
        }));
        wrong.extend(tried.err().map(|_| *what));
        // Others get what is theirs, on whatever connection is kept.
        for clean in 0..2 {
            let target = format!("/clean-{number}-{clean}");
            let reply = bed.client().get(&name, &target, "");
            assert_eq!((reply.status, reply.text()), (200, target), "after {what}");
        }
    }
    assert!(wrong.is_empty(), "{wrong:?}");
}

/// Asks for a bad answer.
fn ask(bed: &Bed, name: &str, number: usize, fate: Fate) {
    let mut client = bed.client();
    client.send(format!("GET /bad-{number} HTTP/1.1\r\nHost: {name}\r\nConnection: close\r\n\r\n"));
    match fate {
        Fate::Passes(body) => {
            let reply = client.reply();
            assert_eq!(reply.text(), body);
            assert!(reply.status < 400);
            let framings = ["content-length", "transfer-encoding"];
            let count = framings.iter().filter(|field| reply.value(field).is_some()).count();
            assert!(count <= 1, "{}", reply.head);
            assert!(client.is_closed(), "nothing behind the answer");
        }
        Fate::Refused => {
            let reply = client.reply();
            assert_eq!((reply.status, reply.code()), (502, Some("UPSTREAM_BROKEN")));
            assert!(client.is_closed(), "nothing behind the answer");
        }
        Fate::Broken => {
            let text = String::from_utf8_lossy(&client.rest()).into_owned();
            assert!(!text.ends_with("0\r\n\r\n"), "{text}");
            assert!(!text.contains("poison"), "{text}");
        }
    }
}

#[test]
fn octets_that_come_late_are_no_answer_to_the_next_request() {
    let bed = Bed::new(203);
    let (tell, told) = std::sync::mpsc::channel::<()>();
    let (sent, wait) = std::sync::mpsc::channel::<()>();
    let told = std::sync::Mutex::new(told);
    let origin = bed.running_with(move |seen, stream| {
        answer(seen, stream);
        if seen.line().starts_with("GET /late ") {
            // The connection is back in the pool when the poison comes.
            told.lock().unwrap().recv().unwrap();
            send(stream, POISON);
            sent.send(()).unwrap();
        }
    });
    let name = host(CONTAINER, "http-3000");
    assert_eq!(bed.client().get(&name, "/late", "").text(), "/late");
    bed.wait_metric("gantry_proxy_upstream_idle", 1.0);
    tell.send(()).unwrap();
    // What loopback has taken is there.
    wait.recv().unwrap();
    for number in 0..20 {
        let target = format!("/clean-{number}");
        assert_eq!(bed.client().get(&name, &target, "").text(), target);
    }
    assert!(origin.connections() <= 2);
}

#[test]
fn a_head_without_end_is_given_up() {
    let mut setup = Setup::default();
    setup.limits.upstream_head_timeout = Duration::from_secs(10);
    let bed = Bed::with(204, setup);
    let origin = bed.running_with(|seen, stream| {
        let target = seen.line().split(' ').nth(1).unwrap().to_owned();
        let bomb = match target.as_str() {
            "/fields" => "x: y\r\n".repeat(100_000),
            "/value" => format!("x: {}", "y".repeat(4 << 20)),
            "/reason" => "z".repeat(4 << 20),
            _ => return reply(stream, "", &target),
        };
        send(stream, "HTTP/1.1 200 ");
        send(stream, if target == "/reason" { "" } else { "OK\r\n" });
        // The edge may have closed before the end.
        drop(stream.write_all(bomb.as_bytes()));
        drop(stream.shutdown(std::net::Shutdown::Both));
    });
    let name = host(CONTAINER, "http-3000");
    for bomb in ["/fields", "/value", "/reason"] {
        let reply = bed.client().get(&name, bomb, "");
        assert_eq!((reply.status, reply.code()), (502, Some("UPSTREAM_BROKEN")), "{bomb}");
        assert_eq!(bed.client().get(&name, "/clean", "").text(), "/clean", "after {bomb}");
    }
    drop(origin);
}
