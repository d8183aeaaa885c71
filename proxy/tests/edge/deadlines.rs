//! Clients and containers that take their time. Limits are made small; nothing sleeps.

use std::{net::SocketAddr, time::Duration};

use gantry_model::Phase;

use crate::{
    bed::{Bed, CONTAINER, Setup, host},
    client::Client,
    origin::Origin,
};

const SHORT: Duration = Duration::from_millis(300);

#[test]
fn a_head_that_drips_is_cut_off_by_a_total_deadline() {
    let mut setup = Setup::default();
    setup.limits.head_timeout = SHORT;
    let bed = Bed::with(80, setup);
    let origin = bed.running();
    let name = host(CONTAINER, "http-3000");
    // Octet by octet, each in time, the whole not.
    let mut client = bed.client();
    for octet in format!("GET / HTTP/1.1\r\nHost: {name}\r\nX: ").bytes().cycle() {
        if !client.try_send([octet]) {
            break;
        }
        std::thread::park_timeout(Duration::from_millis(20));
    }
    let answer = String::from_utf8(client.rest()).unwrap();
    assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 408"), "{answer}");
    // Once, and then silence.
    let mut client = bed.client();
    client.send("GET / HTTP/1.1\r\n");
    let reply = client.reply();
    assert_eq!((reply.status, reply.code()), (408, Some("HEAD_TIMEOUT")));
    assert!(client.is_closed());
    // Nothing at all, which is no head.
    assert!(bed.client().is_closed());
    // A later head on a kept connection.
    let mut client = bed.client();
    assert_eq!(client.get(&name, "/", "").status, 200);
    client.send("GET / HTTP/1.1\r\n");
    assert_eq!(client.reply().status, 408);
    assert_eq!(origin.seen().len(), 1);
    bed.wait_metric("gantry_proxy_cut_total{limit=\"head_timeout\"}", 3.0);
}

#[test]
fn a_handshake_that_does_not_come_is_cut_off() {
    let mut setup = Setup::default();
    setup.limits.tls_timeout = SHORT;
    let bed = Bed::with(81, setup);
    let mut client = Client::connect(bed.https());
    client.send([22, 3, 1]);
    assert!(client.is_closed());
    bed.wait_metric("gantry_proxy_tls_failures_total", 1.0);
    bed.wait_metric("gantry_proxy_cut_total{limit=\"handshake_timeout\"}", 1.0);
}

#[test]
fn an_idle_connection_is_closed() {
    let mut setup = Setup::default();
    setup.limits.idle = SHORT;
    let bed = Bed::with(82, setup);
    let _origin = bed.running();
    let name = host(CONTAINER, "http-3000");
    let mut client = bed.client();
    assert_eq!(client.get(&name, "/", "").status, 200);
    assert!(client.is_closed());
    let mut client = bed.tls_client(&name);
    assert_eq!(client.get(&name, "/", "").status, 200);
    assert!(client.is_closed());
    bed.wait_metric("gantry_proxy_connections_open", 0.0);
}

#[test]
fn a_body_that_pauses_is_given_up() {
    let mut setup = Setup::default();
    setup.limits.body_idle = SHORT;
    let bed = Bed::with(83, setup);
    let origin = bed.running();
    let name = host(CONTAINER, "http-3000");
    let mut client = bed.client();
    client.send(format!("POST / HTTP/1.1\r\nHost: {name}\r\nContent-Length: 10\r\n\r\nabc"));
    let reply = client.reply();
    assert_eq!((reply.status, reply.code()), (408, Some("BODY_TIMEOUT")));
    assert!(client.is_closed());
    assert!(origin.seen().is_empty(), "half a request is none");
    let mut client = bed.client();
    client.send("POST / HTTP/1.1\r\nHost: api.gantry.localhost\r\nContent-Length: 10\r\n\r\nabc");
    let told = client.reply().text();
    assert!(told.contains("error: "), "the API hears of it: {told}");
    bed.wait_metric("gantry_proxy_cut_total{limit=\"body_pause\"}", 2.0);
}

#[test]
fn a_body_that_drips_is_given_up() {
    let mut setup = Setup::default();
    setup.limits.body_idle = Duration::from_millis(500);
    setup.limits.body_rate_min = 1000;
    let bed = Bed::with(84, setup);
    let origin = bed.running();
    let name = host(CONTAINER, "http-3000");
    let mut client = bed.client();
    client.send(format!("POST / HTTP/1.1\r\nHost: {name}\r\nContent-Length: 100000\r\n\r\n"));
    let mut dripped = 0;
    while client.try_send("x") {
        dripped += 1;
        assert!(dripped < 500, "50 octets a second for 10 s");
        std::thread::park_timeout(Duration::from_millis(20));
    }
    assert!(origin.seen().is_empty());
    bed.wait_metric("gantry_proxy_cut_total{limit=\"body_rate\"}", 1.0);
}

#[test]
fn a_container_that_does_not_answer_is_given_up() {
    let mut setup = Setup::default();
    setup.limits.upstream_head_timeout = SHORT;
    let bed = Bed::with(85, setup);
    let origin = bed.running_with(|_, _| {});
    let name = host(CONTAINER, "http-3000");
    let mut client = bed.client();
    let reply = client.get(&name, "/", "");
    assert_eq!((reply.status, reply.code()), (504, Some("UPSTREAM_TIMEOUT")));
    origin.wait_closed(1);
    assert_eq!(origin.seen().len(), 1, "a late container is not asked twice");
}

#[test]
fn a_container_that_cannot_be_reached_is_given_up() {
    let mut setup = Setup::default();
    setup.limits.connect_timeout = SHORT;
    let bed = Bed::with(86, setup);
    bed.set(CONTAINER, Phase::Running, 1);
    // A full backlog that is never emptied takes no more connections.
    let address = SocketAddr::new(bed.container_address(2), 3000);
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    socket.bind(&address.into()).unwrap();
    socket.listen(0).unwrap();
    let mut fillers = Vec::new();
    while let Ok(filler) =
        std::net::TcpStream::connect_timeout(&address, Duration::from_millis(200))
    {
        fillers.push(filler);
        assert!(fillers.len() < 100, "the backlog has an end");
    }
    let reply = bed.client().get(&host(CONTAINER, "http-3000"), "/", "");
    assert_eq!((reply.status, reply.code()), (504, Some("UPSTREAM_TIMEOUT")));
}

#[test]
fn a_client_that_takes_nothing_is_given_up() {
    let mut setup = Setup::default();
    setup.limits.send_idle = SHORT;
    let bed = Bed::with(87, setup);
    let origin = bed.running_with(|_, stream| {
        crate::origin::send(stream, "HTTP/1.1 200 OK\r\nContent-Length: 100000000\r\n\r\n");
        let block = vec![0; 1 << 20];
        for _ in 0..96 {
            crate::origin::send(stream, &block);
        }
    });
    let mut client = bed.client();
    client.send(format!("GET / HTTP/1.1\r\nHost: {}\r\n\r\n", host(CONTAINER, "http-3000")));
    client.head();
    origin.wait_closed(1);
    bed.wait_metric("gantry_proxy_connections_open", 0.0);
    bed.wait_metric("gantry_proxy_cut_total{limit=\"send_pause\"}", 1.0);
}

#[test]
fn heads_have_a_size() {
    let bed = Bed::new(88);
    let _origin = bed.running();
    let name = host(CONTAINER, "http-3000");
    let with = |fields: &str| {
        let mut client = bed.client();
        let head = format!("GET / HTTP/1.1\r\nHost: {name}\r\n{fields}\r\n");
        _ = client.try_send(head);
        let reply = client.reply();
        (reply.status, reply.code().map(str::to_owned))
    };
    let too_large = (431, Some("HEAD_TOO_LARGE".to_owned()));
    let field = |octets: usize| format!("X-Large: {}\r\n", "x".repeat(octets));
    assert_eq!(with(&field(60_000)), (200, None));
    assert_eq!(with(&field(66_000)), too_large);
    assert_eq!(with(&field(300_000)), too_large);
    assert_eq!(with(&"X-Many: x\r\n".repeat(99)), (200, None), "100 with the host");
    assert_eq!(with(&"X-Many: x\r\n".repeat(100)), too_large);
    let mut client = bed.client();
    let path = "x".repeat(66_000);
    _ = client.try_send(format!("GET /{path} HTTP/1.1\r\nHost: {name}\r\n\r\n"));
    assert_eq!(client.reply().status, 431);
    bed.wait_metric("gantry_proxy_refused_total{limit=\"head_size\"}", 4.0);
}

#[test]
fn one_source_has_so_many_connections() {
    let mut setup = Setup::default();
    setup.limits.connections_per_address_max = 3;
    let bed = Bed::with(89, setup);
    let _origin = bed.running();
    let name = host(CONTAINER, "http-3000");
    let mut clients: Vec<Client> = (0..3).map(|_| bed.client()).collect();
    for client in &mut clients {
        assert_eq!(client.get(&name, "/", "").status, 200);
    }
    assert!(bed.client().is_closed(), "the fourth is closed at once");
    drop(clients.pop());
    bed.wait_metric("gantry_proxy_connections_open", 2.0);
    assert_eq!(bed.client().get(&name, "/", "").status, 200);
    bed.wait_metric("gantry_proxy_refused_total{limit=\"address_connections\"}", 1.0);
}

#[test]
fn idle_connections_to_a_container_are_closed() {
    let mut setup = Setup::default();
    setup.limits.pool_idle = SHORT;
    let bed = Bed::with(90, setup);
    let origin: Origin = bed.running();
    assert_eq!(bed.client().get(&host(CONTAINER, "http-3000"), "/", "").status, 200);
    origin.wait_closed(1);
    bed.wait_metric("gantry_proxy_upstream_idle", 0.0);
}

#[test]
fn a_client_that_takes_nothing_is_cut_when_its_container_stops() {
    for over_tls in [false, true] {
        // A client may take its time; what ends here ends because the container does.
        let bed = Bed::new(if over_tls { 92 } else { 91 });
        let origin = bed.running_with(|_, stream| {
            crate::origin::send(stream, "HTTP/1.1 200 OK\r\nContent-Length: 100000000\r\n\r\n");
            let block = vec![0; 1 << 20];
            for _ in 0..96 {
                crate::origin::send(stream, &block);
            }
        });
        let name = host(CONTAINER, "http-3000");
        let mut client = if over_tls { bed.tls_client(&name) } else { bed.client() };
        client.send(format!("GET / HTTP/1.1\r\nHost: {name}\r\n\r\n"));
        client.head();
        // Another one that also took nothing, and whose container goes on.
        let other = "cccccccccccccccccccccccc";
        bed.set(other, Phase::Running, 1);
        let mut stays = bed.client();
        stays.send(format!("GET / HTTP/1.1\r\nHost: {}\r\n\r\n", host(other, "http-3000")));
        stays.head();
        origin.wait_seen(2);
        bed.set(CONTAINER, Phase::Stopped, 1);
        let stopped = std::time::Instant::now();
        origin.wait_closed(1);
        bed.wait_metric("gantry_proxy_connections_open", 1.0);
        assert!(stopped.elapsed() < Duration::from_secs(5), "not by a deadline");
        assert!(client.rest().len() < 100_000_000);
        assert_eq!(stays.exactly(20_000_000).len(), 20_000_000, "others do not notice");
    }
}
