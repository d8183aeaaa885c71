//! Requests that two readers could read differently. Each is sent alone on a connection, with a
//! second request behind it; what counts is what reached the container.

use crate::bed::{Bed, CONTAINER, host};

/// What must become of an attempt.
#[derive(Clone, Copy, Debug)]
enum Fate {
    /// Refused with 400, closed, nothing passed.
    Refused,
    /// Passed as one request with this body, and the one behind it as another.
    Passed(&'static str),
}

/// Attempts by the length of a body.
fn by_length(name: &str, smuggled: &str) -> Vec<(String, Fate)> {
    use Fate::{Passed, Refused};
    let head = |fields: &str| format!("POST /first HTTP/1.1\r\nHost: {name}\r\n{fields}\r\n\r\n");
    let chunked = |body: &str| format!("{}{body}", head("Transfer-Encoding: chunked"));
    vec![
        // The honest ones, so that the table proves something.
        (format!("{}abc", head("Content-Length: 3")), Passed("abc")),
        (chunked("3\r\nabc\r\n0\r\n\r\n"), Passed("abc")),
        (chunked("3;ext=1\r\nabc\r\n0\r\n\r\n"), Passed("abc")),
        (head("Content-Length: 0"), Passed("")),
        // Two lengths.
        (format!("{}{smuggled}", head("Content-Length: 3\r\nTransfer-Encoding: chunked")), Refused),
        (format!("{}0\r\n\r\n", head("Transfer-Encoding: chunked\r\nContent-Length: 3")), Refused),
        (format!("{}abc", head("Content-Length: 3\r\nContent-Length: 4")), Refused),
        (format!("{}abc", head("Content-Length: 3\r\nContent-Length: 3")), Refused),
        (format!("{}abc", head("Content-Length: 3, 3")), Refused),
        // Lengths that are no numbers.
        (format!("{}abc", head("Content-Length: +3")), Refused),
        (format!("{}abc", head("Content-Length: -3")), Refused),
        (format!("{}abc", head("Content-Length: 0x3")), Refused),
        (format!("{}abc", head("Content-Length: 3 4")), Refused),
        (format!("{}abc", head("Content-Length: 18446744073709551619")), Refused),
        (format!("{}abc", head("Content-Length:")), Refused),
        // Codings.
        (format!("{}0\r\n\r\n", head("Transfer-Encoding: identity, chunked")), Refused),
        (format!("{}0\r\n\r\n", head("Transfer-Encoding: chunked, identity")), Refused),
        (
            format!("{}0\r\n\r\n", head("Transfer-Encoding: chunked\r\nTransfer-Encoding: x")),
            Refused,
        ),
        (format!("{}0\r\n\r\n", head("Transfer-Encoding: xchunked")), Refused),
        (format!("{}0\r\n\r\n", head("Transfer-Encoding: \"chunked\"")), Refused),
        (format!("{}0\r\n\r\n", head("Transfer-Encoding:\u{b}chunked")), Refused),
        (format!("{}0\r\n\r\n", head("Transfer-Encoding : chunked")), Refused),
        (format!("{}0\r\n\r\n", head("X: y\r\n Transfer-Encoding: chunked")), Refused),
        (format!("{}0\r\n\r\n", head("Transfer-Encoding:\r\n chunked")), Refused),
        (
            format!(
                "POST / HTTP/1.0\r\nHost: {name}\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"
            ),
            Refused,
        ),
    ]
}

/// Attempts by the form of a head.
fn by_form(name: &str) -> Vec<(String, Fate)> {
    use Fate::Refused;
    let head = |fields: &str| format!("POST /first HTTP/1.1\r\nHost: {name}\r\n{fields}\r\n\r\n");
    vec![
        // Line ends.
        (format!("POST / HTTP/1.1\nHost: {name}\nContent-Length: 3\n\nabc"), Refused),
        (format!("POST / HTTP/1.1\r\nHost: {name}\r\nContent-Length: 3\n\r\nabc"), Refused),
        (format!("POST / HTTP/1.1\r\nHost: {name}\r\nX: a\rContent-Length: 3\r\n\r\nabc"), Refused),
        (format!("POST / HTTP/1.1\r\nHost: {name}\r\nX: a\0b\r\n\r\n"), Refused),
        // Request lines.
        (format!("GET  / HTTP/1.1\r\nHost: {name}\r\n\r\n"), Refused),
        (format!("GET /a b HTTP/1.1\r\nHost: {name}\r\n\r\n"), Refused),
        (format!("GET /\tHTTP/1.1\r\nHost: {name}\r\n\r\n"), Refused),
        (format!("GET / HTTP/1.2\r\nHost: {name}\r\n\r\n"), Refused),
        (format!("GET / HTTP/2.0\r\nHost: {name}\r\n\r\n"), Refused),
        (format!("GE\u{7f}T / HTTP/1.1\r\nHost: {name}\r\n\r\n"), Refused),
        ("GET /\r\n\r\n".to_owned(), Refused),
        // What `Connection` may not take away.
        (head("Connection: host\r\nContent-Length: 0"), Refused),
        (format!("{}abc", head("Connection: content-length\r\nContent-Length: 3")), Refused),
    ]
}

#[test]
fn no_request_means_two_things() {
    use Fate::{Passed, Refused};
    let bed = Bed::new(20);
    let origin = bed.running();
    let name = host(CONTAINER, "http-3000");
    let smuggled = format!("GET /smuggled HTTP/1.1\r\nHost: {name}\r\n\r\n");
    let attempts = [by_length(&name, &smuggled), by_form(&name)].concat();
    assert!(attempts.len() >= 25);
    for (attempt, fate) in attempts {
        let before = origin.seen().len();
        let mut client = bed.client();
        client.send(&attempt);
        client.try_send(&smuggled);
        let reply = client.reply();
        let seen = origin.seen().split_off(before);
        match fate {
            Passed(body) => {
                assert_eq!(reply.status, 200, "{attempt:?}");
                assert_eq!(client.reply().status, 200, "the one behind it: {attempt:?}");
                let seen = origin.seen().split_off(before);
                assert_eq!(seen.len(), 2, "{attempt:?}");
                assert_eq!(seen[0].line(), "POST /first HTTP/1.1", "{attempt:?}");
                assert_eq!(seen[0].body, body.as_bytes(), "{attempt:?}");
                assert_eq!(seen[1].line(), "GET /smuggled HTTP/1.1", "{attempt:?}");
            }
            Refused => {
                assert_eq!(reply.status, 400, "{attempt:?}");
                assert!(client.is_closed(), "closed after {attempt:?}");
                assert!(seen.is_empty(), "{attempt:?} let pass {seen:?}");
                assert_eq!(origin.seen().len(), before, "nothing came later: {attempt:?}");
            }
        }
    }
}

#[test]
fn a_body_that_breaks_its_framing_ends_the_request_and_the_connection() {
    let bed = Bed::new(21);
    let origin = bed.running();
    let name = host(CONTAINER, "http-3000");
    let smuggled = format!("GET /smuggled HTTP/1.1\r\nHost: {name}\r\n\r\n");
    for body in [
        "3\nabc\r\n0\r\n\r\n",
        "3 \r\nabc\r\n0\r\n\r\n",
        "3;a\nb\r\nabc\r\n0\r\n\r\n",
        "0x3\r\nabc\r\n0\r\n\r\n",
        "-3\r\nabc\r\n0\r\n\r\n",
        "3\r\nabcd\r\n0\r\n\r\n",
        "3\r\nabc\n0\r\n\r\n",
        "10000000000000003\r\nabc\r\n0\r\n\r\n",
        "0\r\nx: y\n\r\n",
        "0\r\n\n",
        "\r\n0\r\n\r\n",
    ] {
        let mut client = bed.client();
        client.send(format!(
            "POST /first HTTP/1.1\r\nHost: {name}\r\nTransfer-Encoding: chunked\r\n\r\n{body}"
        ));
        client.try_send(&smuggled);
        let answer = String::from_utf8(client.rest()).unwrap();
        assert!(!answer.contains("200 OK"), "{body:?} was answered: {answer}");
    }
    // A request that was cut off never counts as one, and nothing behind it was read as one.
    assert!(origin.seen().is_empty(), "{:?}", origin.seen());
}

#[test]
fn pipelined_requests_are_answered_in_order() {
    let bed = Bed::new(22);
    let origin = bed.running_with(|seen, stream| {
        let path = seen.line().split(' ').nth(1).unwrap().to_owned();
        crate::origin::reply(stream, "", &path);
    });
    let name = host(CONTAINER, "http-3000");
    let mut client = bed.client();
    let request = |path: &str, body: &str| {
        let length = body.len();
        format!("POST {path} HTTP/1.1\r\nHost: {name}\r\nContent-Length: {length}\r\n\r\n{body}")
    };
    let all = [request("/1", "one"), request("/2", ""), request("/3", "three")].concat();
    client.send(all);
    let replies: Vec<String> = (0..3).map(|_| client.reply().text()).collect();
    assert_eq!(replies, ["/1", "/2", "/3"]);
    let bodies: Vec<Vec<u8>> = origin.seen().into_iter().map(|seen| seen.body).collect();
    assert_eq!(bodies, [&b"one"[..], b"", b"three"]);
}

#[test]
fn a_refused_head_behind_a_good_request_is_refused_in_its_turn() {
    let bed = Bed::new(23);
    let _origin = bed.running();
    let name = host(CONTAINER, "http-3000");
    let mut client = bed.client();
    client.send(format!(
        "GET /good HTTP/1.1\r\nHost: {name}\r\n\r\nGET /bad HTTP/1.1\nHost: {name}\r\n\r\n"
    ));
    assert_eq!(client.reply().status, 200);
    assert_eq!(client.reply().status, 400);
    assert!(client.is_closed());
}
