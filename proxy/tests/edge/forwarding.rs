//! What passes to a container and back, and by which connection.

use std::{
    io::{ErrorKind, Read},
    net::{SocketAddr, TcpStream},
    sync::Arc,
    time::Duration,
};

use gantry_model::Phase;

use crate::{
    bed::{Bed, CONTAINER, host},
    origin::{Origin, reply, send},
};

/// What a client says that a container shall not hear.
const FORGED: [&str; 20] = [
    "X-Forwarded-For: 1.2.3.4",
    "X-Forwarded-Host: evil.example",
    "X-Forwarded-Proto: gopher",
    "X-Forwarded-Port: 1",
    "X_Forwarded_For: 1.2.3.4",
    "X.Forwarded.For: 1.2.3.4",
    "X-Forwarded: for=1.2.3.4",
    "Forwarded: for=1.2.3.4",
    "X-Real-IP: 1.2.3.4",
    "X_Real_IP: 1.2.3.4",
    "X-Request-Id: chosen",
    "X-Gantry-User: root",
    "Connection: keep-alive, X-Private",
    "X-Private: secret",
    "Keep-Alive: timeout=1000",
    "Proxy-Connection: keep-alive",
    "Proxy-Authorization: Basic eDp5",
    "TE: gzip",
    "Upgrade: h2c",
    "traceparent: nonsense",
];

/// What passes.
const KEPT: [&str; 5] = [
    "Authorization: Bearer token",
    "Cookie: a=1; b=2",
    "X-Custom: kept",
    "Accept-Encoding: gzip",
    "Via: 1.1 other",
];

#[test]
fn a_container_hears_about_the_client_only_what_the_edge_says() {
    let bed = Bed::new(30);
    let origin = bed.running();
    let name = host(CONTAINER, "http-3000");
    let mut client = bed.client();
    let fields = [&FORGED[..], &KEPT[..]].concat().join("\r\n") + "\r\n";
    let answer = client.get(&format!("{name}:8443"), "/a%20b/../c?d=%2f&e", &fields);
    assert_eq!(answer.status, 200);
    let seen = origin.last();
    assert_eq!(seen.line(), "GET /a%20b/../c?d=%2f&e HTTP/1.1", "the target passes as it is");
    assert_eq!(seen.values("host"), [format!("{name}:8443")], "as the client typed it");
    assert_eq!(seen.values("x-forwarded-for"), ["127.0.0.1"]);
    assert_eq!(seen.values("x-real-ip"), ["127.0.0.1"]);
    assert_eq!(seen.values("x-forwarded-host"), [format!("{name}:8443")]);
    assert_eq!(seen.values("x-forwarded-proto"), ["http"]);
    assert_eq!(
        seen.values("forwarded"),
        [format!("for=127.0.0.1;host=\"{name}:8443\";proto=http")]
    );
    let id = answer.value("x-request-id").unwrap();
    assert_eq!(seen.values("x-request-id"), [id]);
    let trace = seen.values("traceparent")[0];
    assert_eq!(trace.split('-').nth(1), Some(id), "the trace is the request's");
    for field in KEPT {
        let (field, value) = field.split_once(": ").unwrap();
        assert_eq!(seen.values(field), [value], "{field}");
    }
    let lower = seen.head.to_lowercase();
    for gone in [
        "1.2.3.4",
        "evil",
        "gopher",
        "x-forwarded-port",
        "x_",
        "x.f",
        "chosen",
        "root",
        "secret",
        "keep-alive",
        "proxy-",
        "gzip\r\nte",
        "h2c",
        "nonsense",
    ] {
        assert!(!lower.contains(gone), "{gone} passed:\n{}", seen.head);
    }
    let trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    client.get(&name, "/", &format!("traceparent: {trace}\r\ntracestate: a=b\r\n"));
    assert_eq!(origin.last().values("traceparent"), [trace], "a trace goes on");
    assert_eq!(origin.last().values("tracestate"), ["a=b"]);
}

#[test]
fn a_client_hears_from_a_container_what_belongs_to_the_answer() {
    let bed = Bed::new(31);
    let _origin = bed.running_with(|_, stream| {
        send(
            stream,
            "HTTP/1.1 201 Created\r\nContent-Length: 2\r\nConnection: keep-alive, X-Private\r\n\
             X-Private: secret\r\nKeep-Alive: timeout=5\r\nProxy-Connection: x\r\n\
             Upgrade: h2c\r\nX-Request-Id: theirs\r\nX-Gantry-Error: FORGED\r\n\
             Set-Cookie: own=1; Path=/\r\n\
             Set-Cookie: wide=1; Domain=containers.gantry.localhost\r\n\
             Server: theirs\r\nETag: \"x\"\r\n\r\nok",
        );
    });
    let answer = bed.client().get(&host(CONTAINER, "http-3000"), "/", "");
    assert_eq!((answer.status, answer.text().as_str()), (201, "ok"));
    let head = answer.head.to_lowercase();
    for gone in ["secret", "keep-alive", "proxy-", "h2c", "theirs\r\nx", "forged", "wide="] {
        assert!(!head.contains(gone), "{gone} passed:\n{head}");
    }
    for kept in ["set-cookie: own=1; path=/", "server: theirs", "etag: \"x\"", "x-request-id: "] {
        assert!(head.contains(kept), "{kept} is lost:\n{head}");
    }
}

#[test]
fn connections_to_a_container_are_used_again() {
    let bed = Bed::new(32);
    let origin = bed.running();
    let name = host(CONTAINER, "http-3000");
    let mut client = bed.client();
    for _ in 0..5 {
        assert_eq!(client.get(&name, "/", "").status, 200);
    }
    assert_eq!(bed.client().get(&name, "/", "").status, 200, "another client shares it");
    assert_eq!(origin.connections(), 1);
    // An answer without a body is a use, too.
    client.send(format!("HEAD / HTTP/1.1\r\nHost: {name}\r\n\r\n"));
    assert!(client.head().contains("content-length: 6"));
    assert_eq!(client.get(&name, "/", "").status, 200);
    assert_eq!(origin.connections(), 1);
    assert!((bed.metric("gantry_proxy_upstream_connects_total") - 1.0).abs() < f64::EPSILON);
}

#[test]
fn a_connection_does_not_outlive_the_start_it_belongs_to() {
    let bed = Bed::new(33);
    let origin = bed.running();
    let name = host(CONTAINER, "http-3000");
    let mut client = bed.client();
    assert_eq!(client.get(&name, "/", "").status, 200);
    // Started anew, at the same address.
    bed.set(CONTAINER, Phase::Running, 2);
    assert_eq!(client.get(&name, "/", "").status, 200);
    assert_eq!(origin.connections(), 2, "the old connection was not used");
    origin.wait_closed(1);
    // Its address now belongs to another tenant's container.
    let other = "c".repeat(24);
    bed.remove(CONTAINER);
    bed.set(&other, Phase::Running, 2);
    assert_eq!(client.get(&name, "/", "").status, 404);
    assert_eq!(client.get(&host(&other, "http-3000"), "/", "").status, 200);
    assert_eq!(origin.connections(), 3);
}

#[test]
fn a_kept_connection_that_the_container_closed_costs_nobody_a_request() {
    let bed = Bed::new(34);
    // Says nothing of it, and closes after each answer.
    let origin = bed.running_with(|_, stream| {
        reply(stream, "", "once");
        stream.shutdown(std::net::Shutdown::Both).unwrap();
    });
    let name = host(CONTAINER, "http-3000");
    let mut client = bed.client();
    for round in 0..20 {
        let answer = client.get(&name, "/", "");
        assert_eq!((answer.status, answer.text().as_str()), (200, "once"), "round {round}");
    }
    assert!(origin.connections() >= 20);
}

#[test]
fn a_request_that_may_have_been_done_is_not_sent_twice() {
    let bed = Bed::new(35);
    // The second request of a connection is taken, and not answered.
    let origin = bed.running_with(|seen, stream| {
        if seen.line().contains("/break") {
            stream.shutdown(std::net::Shutdown::Both).unwrap();
        } else {
            reply(stream, "", "ok");
        }
    });
    let name = host(CONTAINER, "http-3000");
    let mut client = bed.client();
    assert_eq!(client.get(&name, "/", "").status, 200);
    client.send(format!("POST /break HTTP/1.1\r\nHost: {name}\r\nContent-Length: 2\r\n\r\nhi"));
    assert_eq!(client.reply().code(), Some("UPSTREAM_BROKEN"));
    let breaks = |origin: &Origin| {
        origin.seen().iter().filter(|seen| seen.line().contains("/break")).count()
    };
    assert_eq!(breaks(&origin), 1, "a POST is sent once");
    let mut client = bed.client();
    assert_eq!(client.get(&name, "/", "").status, 200);
    assert_eq!(client.get(&name, "/break", "").code(), Some("UPSTREAM_BROKEN"));
    assert_eq!(breaks(&origin), 3, "a GET is sent once more, on a new connection");
}

#[test]
fn an_answer_that_nobody_asked_for_reaches_nobody() {
    let bed = Bed::new(159);
    let origin = bed.running_with(|seen, stream| {
        let asked = seen.line().split(' ').nth(1).unwrap();
        let answer =
            |text: &str| format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{text}", text.len());
        // The answer and what shall pass for that to somebody else's request, at once.
        send(stream, answer(asked) + &answer("forged"));
    });
    let name = host(CONTAINER, "http-3000");
    let (mut one, mut other) = (bed.client(), bed.client());
    for round in 0..5 {
        for (client, path) in [(&mut one, format!("/one{round}")), (&mut other, "/".to_owned())] {
            assert_eq!(client.get(&name, &path, "").text(), path);
        }
    }
    assert_eq!(origin.connections(), 10, "a connection that said too much is not used again");
}

#[test]
fn a_container_that_answers_before_it_has_read_the_request_is_heard() {
    let bed = Bed::new(36);
    let address = SocketAddr::new(bed.container_address(2), 3000);
    bed.set(CONTAINER, Phase::Running, 1);
    let listener = std::net::TcpListener::bind(address).unwrap();
    std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut first = [0; 64];
        Read::read(&mut stream, &mut first).unwrap();
        send(&mut stream, "HTTP/1.1 413 Payload Too Large\r\nContent-Length: 3\r\n\r\nbig");
        // Open until the edge closes it.
        let mut rest = Vec::new();
        drop(Read::read_to_end(&mut stream, &mut rest));
    });
    let name = host(CONTAINER, "http-3000");
    let mut client = bed.client();
    client.send(format!("POST / HTTP/1.1\r\nHost: {name}\r\nContent-Length: 1000000\r\n\r\nstart"));
    let answer = client.reply();
    assert_eq!((answer.status, answer.text().as_str()), (413, "big"));
}

#[test]
fn a_broken_answer_breaks_off_visibly() {
    let bed = Bed::new(37);
    let _origin = bed.running_with(|seen, stream| {
        send(
            stream,
            match seen.line().split(' ').nth(1).unwrap() {
                "/short" => "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc",
                "/chunks" => "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n",
                "/nonsense" => "what?\r\n\r\n",
                "/both" => {
                    "HTTP/1.1 200 OK\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n\
                     3\r\nabc\r\n0\r\n\r\n"
                }
                "/switch" => "HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\n",
                other => panic!("{other}"),
            },
        );
        stream.shutdown(std::net::Shutdown::Both).unwrap();
    });
    let name = host(CONTAINER, "http-3000");
    let ask = |path: &str| {
        let mut client = bed.client();
        client.send(format!("GET {path} HTTP/1.1\r\nHost: {name}\r\n\r\n"));
        String::from_utf8(client.rest()).unwrap()
    };
    let short = ask("/short");
    assert!(short.contains("content-length: 10") && short.ends_with("abc"), "{short}");
    let chunks = ask("/chunks");
    assert!(chunks.contains("abc") && !chunks.ends_with("0\r\n\r\n"), "{chunks}");
    for path in ["/nonsense", "/switch"] {
        let mut client = bed.client();
        assert_eq!(client.get(&name, path, "").code(), Some("UPSTREAM_BROKEN"), "{path}");
    }
    let mut client = bed.client();
    let both = client.get(&name, "/both", "");
    assert_eq!(both.text().trim_end(), "abc", "one framing, and the body is right: {both:?}");
}

/// A client of HTTP/1.0 knows the end of such a body by the end of the connection alone, so that the
/// connection must not end in order.
#[test]
fn a_cut_answer_without_framing_resets_the_connection() {
    let bed = Bed::new(211);
    let _origin = bed.running_with(|seen, stream| {
        let end = if seen.line().contains("/whole") { "0\r\n\r\n" } else { "" };
        let chunk = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n";
        send(stream, format!("{chunk}{end}"));
        stream.shutdown(std::net::Shutdown::Both).unwrap();
    });
    let name = host(CONTAINER, "http-3000");
    for (path, want) in [("/whole", Ok(())), ("/cut", Err(ErrorKind::ConnectionReset))] {
        let mut stream = TcpStream::connect(bed.plain()).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
        send(&mut stream, format!("GET {path} HTTP/1.0\r\nHost: {name}\r\n\r\n"));
        let mut answer = String::new();
        let read = stream.read_to_string(&mut answer).map(drop).map_err(|error| error.kind());
        assert_eq!(read, want, "{path}: {answer}");
        assert!(answer.ends_with("\r\n\r\nabc"), "{path}: {answer}");
    }
}

#[test]
fn a_port_that_speaks_tls_is_reached_whatever_its_certificate() {
    let bed = Bed::new(38);
    bed.set(CONTAINER, Phase::Running, 1);
    let certified =
        rcgen::generate_simple_self_signed(vec!["whatever.example".to_owned()]).unwrap();
    let key = rustls::pki_types::PrivateKeyDer::Pkcs8(certified.signing_key.serialize_der().into());
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certified.cert.der().clone()], key)
        .unwrap();
    let config = Arc::new(config);
    let address = SocketAddr::new(bed.container_address(2), 3443);
    let listener = std::net::TcpListener::bind(address).unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let connection = rustls::ServerConnection::new(Arc::clone(&config)).unwrap();
            let mut stream = rustls::StreamOwned::new(connection, stream.unwrap());
            let mut request = [0; 4096];
            while let Ok(1..) = Read::read(&mut stream, &mut request) {
                let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nsecret";
                std::io::Write::write_all(&mut stream, answer).unwrap();
            }
        }
    });
    let mut client = bed.client();
    for _ in 0..2 {
        let answer = client.get(&host(CONTAINER, "https-3443"), "/", "");
        assert_eq!((answer.status, answer.text().as_str()), (200, "secret"));
    }
    let plain = SocketAddr::new(bed.container_address(2), 3000);
    let plain = std::net::TcpListener::bind(plain).unwrap();
    std::thread::spawn(move || {
        for stream in plain.incoming() {
            send(&mut stream.unwrap(), "HTTP/1.1 400 Bad Request\r\n\r\n");
        }
    });
    let answer = client.get(&host(CONTAINER, "https-3000"), "/", "");
    assert_eq!((answer.status, answer.code()), (502, Some("UPSTREAM_UNREACHABLE")));
}

#[test]
fn nothing_but_containers_is_dialled() {
    let bed = Bed::new(39);
    let _elsewhere = Origin::simple("127.0.0.1:0".parse().unwrap());
    let name = host(CONTAINER, "http-3000");
    for (generation, address) in
        ["127.0.0.1", "169.254.169.254", "0.0.0.0", "::1", "10.0.0.1"].iter().enumerate()
    {
        let generation = u64::try_from(generation).unwrap() + 1;
        bed.set_at(CONTAINER, Phase::Running, generation, address.parse().unwrap(), 0);
        let answer = bed.client().get(&name, "/", "");
        assert_eq!(answer.code(), Some("UPSTREAM_UNREACHABLE"), "{address}");
    }
}
