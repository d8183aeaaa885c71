//! HTTP/1 as clients speak it: what they send ahead, hold back, end early or take slowly.

use std::{
    io::{Read, Write},
    net::{Shutdown, TcpStream},
    sync::{Mutex, mpsc},
    time::Duration,
};

use socket2::SockRef;

use crate::{
    bed::{Bed, CONTAINER, Setup, host},
    client::Client,
    foreign::curl,
    origin::{reply, send},
};

const WAIT: Duration = Duration::from_secs(10);

#[test]
fn a_client_that_has_ended_its_side_gets_its_whole_answer() {
    let bed = Bed::new(14);
    let (go, wait) = mpsc::channel::<()>();
    let wait = Mutex::new(wait);
    let _origin = bed.running_with(move |seen, stream| {
        let told = || wait.lock().unwrap().recv_timeout(WAIT).unwrap();
        match seen.line().split(' ').nth(1).unwrap() {
            "/large" => reply(stream, "", &"x".repeat(3_000_000)),
            "/late" => {
                told();
                reply(stream, "", "late");
            }
            "/pauses" => {
                send(stream, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\none\r\n");
                told();
                send(stream, "a\r\n0123456789\r\n0\r\n\r\n");
            }
            _ => reply(stream, "", &String::from_utf8_lossy(&seen.body)),
        }
    });
    let name = host(CONTAINER, "http-3000");
    let get = |path: &str| format!("GET {path} HTTP/1.1\r\nHost: {name}\r\n\r\n");
    let post = format!("POST /post HTTP/1.1\r\nHost: {name}\r\nContent-Length: 4\r\n\r\nbody");
    let ask = |over_tls: bool, octets: &str| {
        let mut client = if over_tls { bed.tls_client(&name) } else { bed.client() };
        client.send_last(octets);
        client
    };
    let whole = |mut client: Client| String::from_utf8(client.rest()).unwrap();
    for over_tls in [false, true] {
        let large = whole(ask(over_tls, &get("/large")));
        assert!(large.split_once("\r\n\r\n").unwrap().1 == "x".repeat(3_000_000));
        // Several requests at once, the last one with a body.
        let all = whole(ask(over_tls, &[get("/a"), get("/b"), post.clone()].concat()));
        assert_eq!(all.matches("HTTP/1.1 200 OK").count(), 3, "{all}");
        assert!(all.ends_with("body"), "{all}");
    }
    // While it waits, it is sent something that proves it is there, and that it skips.
    let (mut late, mut pauses) = (ask(true, &get("/late")), ask(false, &get("/pauses")));
    assert_eq!(late.head(), "HTTP/1.1 100 Continue\r\n\r\n");
    pauses.head();
    assert_eq!(pauses.exactly(9), b"3\r\none\r\n0");
    (0..2).for_each(|_| go.send(()).unwrap());
    assert!(whole(late).ends_with("\r\n\r\nlate"));
    assert_eq!(whole(pauses), "a\r\n0123456789\r\n0\r\n\r\n");
    // Half a request is none, and half a body is not a body.
    assert_eq!(whole(ask(false, "GET / HTTP/1.1\r\n")), "");
    let half = format!("POST / HTTP/1.1\r\nHost: {name}\r\nContent-Length: 10\r\n\r\nabc");
    assert!(whole(ask(false, &half)).starts_with("HTTP/1.1 408 "));
}

#[test]
fn a_client_that_breaks_off_takes_its_request_with_it() {
    let bed = Bed::new(15);
    let origin = bed.running_with(|_, stream| {
        // Answers never; the edge closes.
        drop(stream.read(&mut [0; 16]));
    });
    let name = host(CONTAINER, "http-3000");
    let mut stream = TcpStream::connect(bed.plain()).unwrap();
    write!(stream, "GET / HTTP/1.1\r\nHost: {name}\r\n\r\n").unwrap();
    origin.wait_seen(1);
    SockRef::from(&stream).set_linger(Some(Duration::ZERO)).unwrap();
    drop(stream);
    origin.wait_closed(1);
    let lines = bed.finish();
    assert_eq!(lines[0]["status"], 499, "{lines:?}");
}

#[test]
fn requests_that_are_sent_ahead_are_answered_in_order() {
    let bed = Bed::new(16);
    let origin = bed.running_with(|seen, stream| {
        let path = seen.line().split(' ').nth(1).unwrap();
        reply(stream, "", &format!("{path}:{}", seen.body.len()));
    });
    let name = host(CONTAINER, "http-3000");
    let request = |number: usize| {
        let body = if number % 3 == 2 { String::new() } else { "x".repeat(number * 37 % 500) };
        let length = body.len();
        let head = |method: &str, fields: &str| {
            format!("{method} /{number} HTTP/1.1\r\nHost: {name}\r\n{fields}\r\n")
        };
        let text = match number % 3 {
            0 => head("POST", &format!("Content-Length: {length}\r\n")) + &body,
            1 => {
                let body = format!("{length:x}\r\n{body}\r\n0\r\n\r\n");
                head("POST", "Transfer-Encoding: chunked\r\n") + &body
            }
            _ => head("GET", ""),
        };
        (text, format!("/{number}:{length}"))
    };
    let (all, want): (Vec<_>, Vec<_>) = (0..200).map(request).unzip();
    let all = all.concat();
    // An empty body in chunks has no chunk of data.
    let all = all.replace("\r\n0\r\n\r\n0\r\n\r\n", "\r\n0\r\n\r\n");
    for step in [all.len(), 1000, 7] {
        let mut client = bed.client();
        for piece in all.as_bytes().chunks(step) {
            client.send(piece);
        }
        for want in &want {
            assert_eq!(client.reply().text(), *want, "in pieces of {step}");
        }
    }
    assert_eq!(origin.seen().len(), 3 * want.len());
}

#[test]
fn clients_of_http_1_0_are_served_as_they_know_it() {
    let bed = Bed::new(17);
    let _origin = bed.running_with(|seen, stream| {
        if seen.line().contains("/chunks") {
            send(
                stream,
                "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
            );
        } else if seen.line().contains("/breaks") {
            send(stream, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n");
            stream.shutdown(Shutdown::Both).unwrap();
        } else {
            reply(stream, "", "whole");
        }
    });
    let name = host(CONTAINER, "http-3000");
    let get =
        |path: &str, fields: &str| format!("GET {path} HTTP/1.0\r\nHost: {name}\r\n{fields}\r\n");
    let mut client = bed.client();
    for _ in 0..2 {
        client.send(get("/", "Connection: keep-alive\r\n"));
        let reply = client.reply();
        assert!(reply.head.starts_with("HTTP/1.0 200 OK\r\n"), "{}", reply.head);
        assert_eq!((reply.value("connection"), reply.text()), (Some("keep-alive"), "whole".into()));
    }
    client.send(get("/", ""));
    assert_eq!((client.reply().text().as_str(), client.is_closed()), ("whole", true));
    // Without chunks only the end of the connection ends such a body.
    let mut client = bed.client();
    client.send(get("/chunks", "Connection: keep-alive\r\n"));
    let reply = client.reply();
    assert_eq!((reply.value("transfer-encoding"), reply.text()), (None, "abc".to_owned()));
    // One that broke off must not look whole.
    let mut stream = TcpStream::connect(bed.plain()).unwrap();
    stream.write_all(get("/breaks", "").as_bytes()).unwrap();
    let end = stream.read_to_end(&mut Vec::new());
    assert!(end.is_err(), "a reset: {end:?}");
}

#[test]
fn a_body_that_is_held_back_is_asked_for_by_whoever_wants_it() {
    let bed = Bed::new(18);
    let _origin = bed.running_with(|seen, stream| reply(stream, "", &seen.body.len().to_string()));
    let name = host(CONTAINER, "http-3000");
    let head = |host: &str, version: &str, framing: &str| {
        format!(
            "POST / HTTP/{version}\r\nHost: {host}\r\nExpect: 100-continue\r\n{framing}\r\n\r\n"
        )
    };
    let length = "Content-Length: 3";
    for host in [&name, "api.gantry.localhost"] {
        let mut client = bed.client();
        client.send(head(host, "1.1", length));
        assert_eq!(client.head(), "HTTP/1.1 100 Continue\r\n\r\n", "{host}");
        client.send("abc");
        assert_eq!(client.reply().status, 200);
        // It is asked for in vain when it is there already.
        client.send(head(host, "1.1", length) + "abc");
        assert_eq!(client.reply().status, 200);
        client.send(head(host, "1.1", "Transfer-Encoding: chunked"));
        assert_eq!(client.head(), "HTTP/1.1 100 Continue\r\n\r\n", "{host}");
        client.send("3\r\nabc\r\n0\r\n\r\n");
        assert_eq!(client.reply().status, 200);
    }
    // Nobody wants it: what comes next might be the body or not, so that the connection ends.
    let mut client = bed.client();
    client.send(head("www.example.com", "1.1", length));
    let refused = client.reply();
    assert_eq!((refused.status, refused.value("connection")), (404, Some("close")));
    assert!(client.is_closed());
    // A client of HTTP/1.0 does not know the question.
    let mut client = bed.client();
    client.send(head(&name, "1.0", length) + "abc");
    assert!(client.head().starts_with("HTTP/1.0 200 "));
}

#[test]
fn an_upload_comes_whole_to_whoever_reads_it() {
    let bed = Bed::with(19, Setup::default());
    let _origin = bed.running_with(|seen, stream| reply(stream, "", &seen.body.len().to_string()));
    let body = "0123456789".repeat(100_000);
    let chunk =
        |data: &[u8]| format!("{:X};a=b\r\n{}\r\n", data.len(), std::str::from_utf8(data).unwrap());
    let chunks = body.as_bytes().chunks(77_777).map(chunk).collect::<Vec<_>>().concat();
    let name = host(CONTAINER, "http-3000");
    // The container counts the trailer that follows the chunks, too. The API runs in other threads.
    for (host, want, in_chunks) in [
        (name.as_str(), "1000000", "1000008"),
        ("api.gantry.localhost", body.as_str(), body.as_str()),
    ] {
        let mut client = bed.client();
        for _ in 0..2 {
            client.send(format!(
                "POST / HTTP/1.1\r\nHost: {host}\r\nContent-Length: {}\r\n\r\n{body}",
                body.len()
            ));
            assert!(client.reply().text().contains(want), "{host}, by length");
            client.send(format!(
                "POST / HTTP/1.1\r\nHost: {host}\r\nTransfer-Encoding: chunked\r\n\r\n\
                 {chunks}0\r\nx-sum: 7\r\n\r\n"
            ));
            assert!(client.reply().text().contains(in_chunks), "{host}, in chunks");
        }
    }
}

#[test]
fn what_is_no_request_gets_the_edges_own_answer() {
    let bed = Bed::new(24);
    let origin = bed.running();
    let name = host(CONTAINER, "http-3000");
    for head in [
        format!("GET / HTTP/1.1\r\nHost: {name}\r\nA(: b\r\n\r\n"),
        format!("GET / HTTP/1.1\r\nHost: {name}\r\nA: \u{1}\r\n\r\n"),
        format!("G@T / HTTP/1.1\r\nHost: {name}\r\n\r\n"),
        format!("GET /\u{7f} HTTP/1.1\r\nHost: {name}\r\n\r\n"),
        format!("GET http:/// HTTP/1.1\r\nHost: {name}\r\n\r\n"),
    ] {
        let mut client = bed.client();
        client.send(&head);
        let reply = client.reply();
        assert_eq!((reply.status, reply.code()), (400, Some("BAD_REQUEST")), "{head:?}");
        assert_eq!(reply.value("connection"), Some("close"));
        assert!(reply.value("x-request-id").is_some() && reply.value("date").is_some());
        assert!(client.is_closed());
    }
    assert!(origin.seen().is_empty());
    bed.wait_metric("gantry_proxy_errors_total{code=\"BAD_REQUEST\"}", 5.0);
}

#[test]
fn curl_sends_a_body_that_is_asked_for_and_no_other() {
    let bed = Bed::new(25);
    let _origin = bed.running_with(|seen, stream| reply(stream, "", &seen.body.len().to_string()));
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), "x".repeat(2_000_000)).unwrap();
    let data = format!("@{}", file.path().display());
    let there = host(CONTAINER, "http-3000");
    let nowhere = host(&"c".repeat(24), "http-3000");
    for (version, name, want) in [
        ("--http1.1", &there, "2000000 200 2000000"),
        ("--http1.1", &nowhere, " 404 0"),
        // Of an answer that ends the stream before the body did, curl 7.88 makes an error.
        ("--http2", &there, "2000000 200 2000000"),
    ] {
        let output = curl(
            &bed,
            name,
            &[
                version,
                "--header",
                "Expect: 100-continue",
                "--expect100-timeout",
                "20",
                "--data-binary",
                &data,
                "--write-out",
                " %{http_code} %{size_upload}",
            ],
        );
        let Some(output) = output else { return };
        let text = String::from_utf8_lossy(&output.stdout);
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(text.ends_with(want), "{version} {text} {error}");
    }
}
