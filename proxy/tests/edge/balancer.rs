//! Balancers before the edge: by hand, with curl, and with HAProxy.

use std::{
    fmt::Write, fs, net::SocketAddr, path::Path, process::Command, sync::Arc, time::Duration,
};

use gantry_model::{Generation, Phase, edge::EdgeSettings};
use gantry_store::{EdgeRecord, RouteRecord};

use crate::{
    bed::{Bed, CONTAINER, PROJECT, Setup, host},
    client::Client,
    servers::{PROGRAMS, Program, are_installed},
};

const CURL: &str = "/usr/bin/curl";
const HAPROXY: &str = "/usr/sbin/haproxy";
const NGINX: &str = "/usr/sbin/nginx";

/// The address from which the tests' own connections come.
const SELF: &str = "127.0.0.1/32";

fn bed(number: u8, listed: &str) -> Bed {
    bed_with(number, listed, |_| {})
}

fn bed_with(number: u8, listed: &str, change: impl FnOnce(&mut Setup)) -> Bed {
    let mut setup =
        Setup { proxy_protocol_from: vec![listed.parse().unwrap()], ..Setup::default() };
    change(&mut setup);
    Bed::with(number, setup)
}

fn refused(limit: &str) -> String {
    format!("gantry_proxy_refused_total{{limit=\"{limit}\"}}")
}

fn v2(command: u8, kind: u8, rest: &[u8]) -> Vec<u8> {
    let length = u16::try_from(rest.len()).unwrap().to_be_bytes();
    [b"\r\n\r\n\0\r\nQUIT\n".as_slice(), &[command, kind], &length, rest].concat()
}

#[test]
fn a_listed_balancer_names_the_client() {
    let bed = bed(171, SELF);
    let origin = bed.running();
    let name = host(CONTAINER, "http-3000");
    let mut six = [0; 36];
    (six[0], six[1], six[15]) = (0x20, 0x01, 7);
    for (header, want) in [
        (b"PROXY TCP4 192.0.2.7 198.51.100.2 57344 443\r\n".to_vec(), "192.0.2.7"),
        (b"PROXY TCP6 2001:db8::7 2001:db8::1 57344 443\r\n".to_vec(), "2001:db8::7"),
        (b"PROXY UNKNOWN\r\n".to_vec(), "127.0.0.1"),
        (v2(0x21, 0x11, &[192, 0, 2, 8, 198, 51, 100, 2, 1, 2, 1, 187]), "192.0.2.8"),
        (v2(0x21, 0x21, &six), "2001::7"),
        (v2(0x20, 0x00, &[]), "127.0.0.1"),
    ] {
        let mut client = bed.client();
        client.send(&header);
        assert_eq!(client.get(&name, "/", "X-Forwarded-For: 10.9.9.9\r\n").status, 200);
        assert_eq!(origin.last().values("x-forwarded-for"), [want]);
        assert_eq!(origin.last().values("x-real-ip"), [want]);
        let mut redirect = Client::connect(bed.http());
        redirect.send(&header);
        assert_eq!(redirect.get(&name, "/", "").status, 308);
    }
    // Octet by octet, with the request behind it in one piece.
    let mut client = bed.client();
    let (last, first) = (b"\n", b"PROXY TCP4 192.0.2.9 198.51.100.2 57344 443\r");
    for octet in first {
        client.send([*octet]);
    }
    client.send([last, format!("GET / HTTP/1.1\r\nHost: {name}\r\n\r\n").as_bytes()].concat());
    assert_eq!(client.reply().status, 200);
    assert_eq!(origin.last().values("x-forwarded-for"), ["192.0.2.9"]);
    let told = {
        let mut client = bed.client();
        client.send("PROXY TCP4 192.0.2.10 198.51.100.2 1 2\r\n");
        client.get("api.gantry.localhost", "/", "").text()
    };
    assert!(told.contains("\"client\":\"192.0.2.10\""), "{told}");
    let lines = bed.finish();
    assert!(lines.iter().any(|line| line["client"] == "2001:db8::7"), "{lines:?}");
}

#[test]
fn a_listed_balancer_must_name_the_client() {
    let bed = bed_with(172, SELF, |setup| {
        setup.limits.head_timeout = Duration::from_millis(300);
    });
    let origin = bed.running();
    let wrong: [&[u8]; 6] = [
        b"GET / HTTP/1.1\r\n\r\n",
        &[22, 3, 1, 0, 5, 1, 0, 0, 1, 0],
        b"PROXY TCP4 192.0.2.7 198.51.100.2 57344\r\n",
        b"PROXY TCP4 192.0.2.7",
        b"",
        b"\r\n\r\n\0\r\nQUIT\n\x21\x11\xff\xff",
    ];
    for octets in wrong {
        for address in [bed.https(), bed.http(), bed.plain()] {
            let mut client = Client::connect(address);
            _ = client.try_send(octets);
            assert!(client.is_closed(), "{octets:?}");
        }
    }
    bed.wait_metric(&refused("proxy_protocol"), 18.0);
    bed.wait_metric("gantry_proxy_connections_open", 0.0);
    assert_eq!(origin.connections(), 0);
    // A header is no second chance.
    let mut client = bed.client();
    client.send("PROXY UNKNOWN\r\nPROXY UNKNOWN\r\n");
    assert_eq!(client.reply().status, 400);
}

#[test]
fn others_cannot_name_anybody() {
    let bed = bed(173, "192.0.2.0/24");
    let origin = bed.running();
    let name = host(CONTAINER, "http-3000");
    for octets in [b"PROXY TCP4 192.0.2.7 198.51.100.2 1 2\r\n".to_vec(), v2(0x20, 0, &[])] {
        let mut client = bed.client();
        client.send(&octets);
        assert_eq!(client.reply().status, 400);
        let mut client = Client::connect(bed.https());
        client.send(&octets);
        drop(client.rest());
    }
    bed.wait_metric("gantry_proxy_tls_failures_total", 2.0);
    assert_eq!(bed.client().get(&name, "/", "").status, 200);
    assert_eq!(origin.last().values("x-forwarded-for"), ["127.0.0.1"]);
}

#[test]
fn limits_count_the_clients_and_not_their_balancer() {
    let bed = bed_with(174, SELF, |setup| setup.limits.connections_per_address_max = 1);
    let _origin = bed.running();
    let name = host(CONTAINER, "http-3000");
    let connect = |last: u8| {
        let mut client = bed.client();
        client.send(format!("PROXY TCP4 192.0.2.{last} 198.51.100.2 1 2\r\n"));
        client
    };
    let mut clients: Vec<_> = (1..5).map(connect).collect();
    for client in &mut clients {
        assert_eq!(client.get(&name, "/", "").status, 200);
    }
    assert!(connect(3).is_closed());
    bed.wait_metric(&refused("address_connections"), 1.0);
}

#[test]
fn curl_names_itself() {
    let bed = bed(175, SELF);
    let origin = bed.running();
    let name = host(CONTAINER, "http-3000");
    let address = bed.https();
    if !are_installed(&[Path::new(CURL)]) {
        return;
    }
    let output = Command::new(CURL)
        .args(["--silent", "--show-error", "--max-time", "20", "--haproxy-protocol", "--cacert"])
        .arg(&bed.ca_path)
        .args(["--connect-to", &format!("::{address}")])
        .arg(format!("https://{name}:{}/", address.port()))
        .output()
        .unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stdout), "hello\n", "{output:?}");
    assert_eq!(origin.last().values("x-forwarded-for"), ["127.0.0.1"]);
}

#[test]
fn haproxy_names_its_clients_in_both_versions() {
    let bed = bed(176, "127.77.176.4/32");
    let origin = bed.running();
    let name = host(CONTAINER, "http-3000");
    let front = |port| SocketAddr::new(bed.container_address(3), port);
    let ways = [
        (9001, bed.https(), "send-proxy"),
        (9002, bed.https(), "send-proxy-v2"),
        (9003, bed.https(), "send-proxy-v2 proxy-v2-options crc32c,ssl,unique-id"),
        (9004, bed.http(), "send-proxy-v2"),
        (9005, bed.https(), ""),
    ];
    let mut text = "defaults\n mode tcp\n timeout connect 5s\n timeout client 20s\n \
                    timeout server 20s\n"
        .to_owned();
    for (port, edge, option) in ways {
        write!(
            text,
            "listen l{port}\n bind {}\n unique-id-format %ci\n source 127.77.176.4\n \
             server edge {edge} {option}\n",
            front(port)
        )
        .unwrap();
    }
    let file = tempfile::NamedTempFile::new().unwrap();
    fs::write(file.path(), text).unwrap();
    if !are_installed(&[Path::new(HAPROXY)]) {
        return;
    }
    let mut command = Command::new(HAPROXY);
    let _haproxy = Program::start(command.arg("-db").arg("-f").arg(file.path()), front(9005));
    let curl = |port: u16, scheme: &str| {
        let output = Command::new(CURL)
            .args(["--silent", "--max-time", "20", "--interface", "127.77.176.9", "--cacert"])
            .arg(&bed.ca_path)
            .args(["--connect-to", &format!("::{}", front(port)), "--write-out", " %{http_code}"])
            .arg(format!("{scheme}://{name}:{port}/"))
            .output()
            .unwrap();
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    for port in [9001, 9002, 9003] {
        assert_eq!(curl(port, "https"), "hello\n 200", "{port}");
        assert_eq!(origin.last().values("x-forwarded-for"), ["127.77.176.9"]);
    }
    assert!(curl(9004, "http").ends_with(" 308"));
    assert_eq!(curl(9005, "https"), " 000", "a listed balancer must say who is there");
    assert!(bed.metric(&refused("proxy_protocol")) >= 1.0);
}

/// The container of the test, whose port 3000 wants to hear who the client is.
fn told(bed: &Bed) {
    let settings = EdgeSettings { proxy_protocol_ports: vec![3000], ..EdgeSettings::default() };
    let edge = EdgeRecord {
        project: None,
        container: None,
        hooks: Vec::new(),
        settings,
        aliases: Vec::new(),
    };
    bed.set_record(RouteRecord {
        container: CONTAINER.parse().unwrap(),
        project: PROJECT.parse().unwrap(),
        server: crate::bed::SERVER,
        hoody_kit: true,
        ssh_key: None,
        ssh_forwarding: true,
        phase: Phase::Running,
        address: Some(bed.container_address(2)),
        generation: Generation(1),
        started_at_ms: Some(0),
        why_failed: false,
        edge: Some(Arc::new(edge)),
    });
}

#[test]
fn nginx_is_told_who_the_client_is_where_it_asks_for_it() {
    let bed = bed(177, SELF);
    if !are_installed(&[Path::new(NGINX)]) {
        return;
    }
    told(&bed);
    let directory = tempfile::tempdir().unwrap();
    let address = SocketAddr::new(bed.container_address(2), 3000);
    let text = fs::read_to_string(Path::new(PROGRAMS).join("nginx_told.conf")).unwrap();
    let text = text
        .replace("ADDRESS", &bed.container_address(2).to_string())
        .replace("DIRECTORY", directory.path().to_str().unwrap());
    let file = directory.path().join("nginx.conf");
    fs::write(&file, text).unwrap();
    let mut command = Command::new(NGINX);
    let _nginx =
        Program::start(command.arg("-p").arg(directory.path()).arg("-c").arg(&file), address);
    let name = host(CONTAINER, "http-3000");
    let connect = |header: &str| {
        let mut client = bed.client();
        client.send(header);
        client
    };
    let mut one = connect("PROXY TCP4 192.0.2.1 198.51.100.2 57344 443\r\n");
    let mut two = connect("PROXY TCP6 2001:db8::7 2001:db8::1 57345 443\r\n");
    let mut connections = Vec::new();
    for _ in 0..3 {
        for (client, want) in [
            (&mut one, "192.0.2.1:57344 to 198.51.100.2:443"),
            (&mut two, "2001:db8::7:57345 to 2001:db8::1:443"),
        ] {
            let text = client.get(&name, "/", "").text();
            let (who, connection) = text.trim().rsplit_once(' ').unwrap();
            assert_eq!(who, want);
            connections.push(connection.to_owned());
        }
    }
    connections.sort();
    connections.dedup();
    assert_eq!(connections.len(), 2, "one connection for each client: {connections:?}");
    let upgrade = "Connection: upgrade\r\nUpgrade: websocket\r\n";
    assert!(one.get(&name, "/", upgrade).text().starts_with("192.0.2.1:57344 "));
    // A port that did not ask is told nothing; nginx would take a header for a bad request.
    let other = SocketAddr::new(bed.container_address(2), 3001);
    assert!(std::net::TcpStream::connect(other).is_ok());
    assert_eq!(one.get(&host(CONTAINER, "http-3001"), "/", "").text(), "plain\n");
}
