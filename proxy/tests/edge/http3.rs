//! HTTP/3, with clients that others wrote.

use std::{
    net::{TcpStream, UdpSocket},
    time::Duration,
};

use gantry_model::Phase;

use crate::{
    bed::{Bed, CONTAINER, Setup, host},
    origin::{Origin, Seen, reply, send},
    python::{self, Program},
};

/// Starts the client of HTTP/3.
fn ask(bed: &Bed, mode: &str) -> Option<Program> {
    python::ask(bed, "http3_client.py", &host(CONTAINER, "http-3000"), &[mode])
}

/// A container that tells what it was asked, or returns the body.
fn telling(seen: &Seen, stream: &mut TcpStream) {
    if seen.line().starts_with("HEAD ") {
        send(stream, "HTTP/1.1 200 OK\r\n\r\n");
    } else if seen.body.is_empty() {
        let fields: Vec<_> = seen.head.lines().skip(1).map(str::to_owned).collect();
        let told = serde_json::json!({ "line": seen.line(), "fields": fields });
        reply(stream, "content-type: application/json", &told.to_string());
    } else {
        let length = seen.body.len();
        send(stream, format!("HTTP/1.1 200 OK\r\ncontent-length: {length}\r\n\r\n"));
        send(stream, &seen.body);
    }
}

#[test]
fn requests_over_http3_are_served_like_others() {
    let bed = Bed::new(240);
    let _origin = bed.running_with(telling);
    let Some(client) = ask(&bed, "requests") else { return };
    client.ends();
    assert!((bed.metric("gantry_proxy_http3_sockets") - 1.0).abs() < f64::EPSILON);
    let lines = bed.finish();
    let line = lines.iter().find(|line| line["path"] == "/one").unwrap();
    assert_eq!((&line["protocol"], &line["status"]), (&"http3".into(), &200.into()));
    let large = lines.iter().find(|line| line["path"] == "/large").unwrap();
    assert_eq!((&large["received"], &large["sent"]), (&2_048_000.into(), &2_048_000.into()));
}

#[test]
fn requests_over_http3_are_judged_like_others() {
    let bed = Bed::new(241);
    let origin = bed.running();
    let Some(client) = ask(&bed, "judged") else { return };
    client.ends();
    let whole = origin.seen().iter().filter(|seen| seen.line().contains("/ ")).count();
    assert_eq!(whole, 1, "{:?}", origin.seen());
}

#[test]
fn trailers_pass_over_http3() {
    let bed = Bed::new(242);
    let origin = bed.running_with(|_, stream| {
        send(
            stream,
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-Sum\r\n\r\n\
             3\r\nabc\r\n0\r\nX-Sum: 7\r\n\r\n",
        );
    });
    let Some(client) = ask(&bed, "trailers") else { return };
    client.ends();
    assert_eq!(String::from_utf8(origin.last().body).unwrap().to_lowercase(), "abcx-sum: 7");
}

#[test]
fn stopping_a_container_resets_its_streams_of_http3() {
    let bed = Bed::new(243);
    let origin = bed.running_with(|_, stream| {
        send(stream, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n");
    });
    let Some(mut client) = ask(&bed, "events") else { return };
    client.says("open");
    bed.set(CONTAINER, Phase::Stopping, 1);
    client.ends();
    origin.wait_closed(1);
}

#[test]
fn a_request_that_its_client_gives_up_ends_at_the_container() {
    let bed = Bed::new(244);
    let origin = bed.running_with(|_, _| {});
    let Some(mut client) = ask(&bed, "gives-up") else { return };
    client.says("asked");
    origin.wait_seen(1);
    client.go_on();
    client.says("left");
    origin.wait_closed(1);
    client.go_on();
    client.ends();
}

#[test]
fn an_answer_that_its_client_gives_up_ends_at_the_container() {
    let bed = Bed::new(95);
    let origin = bed.running_with(|_, stream| {
        send(stream, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n");
    });
    let Some(mut client) = ask(&bed, "stops") else { return };
    client.says("left");
    origin.wait_closed(1);
    client.go_on();
    client.ends();
}

#[test]
fn an_answer_that_breaks_off_is_reset_at_once() {
    let bed = Bed::new(98);
    let _origin = bed.running_with(|_, stream| {
        send(stream, "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 100\r\n\r\nx");
        stream.shutdown(std::net::Shutdown::Both).unwrap();
    });
    let Some(client) = ask(&bed, "events") else { return };
    client.ends();
}

#[test]
fn requests_over_http3_that_are_given_up_without_end_cost_the_connection() {
    let mut setup = Setup::default();
    setup.limits.resets_max = 20;
    let bed = Bed::with(96, setup);
    let _origin = bed.running_with(|_, _| {});
    let floods = "gantry_proxy_floods_total{kind=\"reset\"}";
    for (count, how) in (1_u8..).zip(["stopped", "reset", "both"]) {
        let arguments = ["resets", how];
        let name = host(CONTAINER, "http-3000");
        let Some(client) = python::ask(&bed, "http3_client.py", &name, &arguments) else { return };
        client.ends();
        bed.wait_metric(floods, count.into());
    }
}

#[test]
fn answers_over_http3_share_a_slow_line() {
    let bed = Bed::new(137);
    let _origin = bed.running_with(|_, stream| {
        send(stream, "HTTP/1.1 200 OK\r\nContent-Length: 1000000000\r\n\r\n");
        let piece = vec![b'x'; 1 << 16];
        while std::io::Write::write_all(stream, &piece).is_ok() {}
    });
    let Some(client) = ask(&bed, "shared") else { return };
    client.ends();
}

#[test]
fn uploads_over_http3_have_room_until_they_were_read_and_forms_need_none() {
    let bed = Bed::new(254);
    let _origin = bed.running_with(|_, stream| {
        send(stream, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n");
    });
    let Some(client) = ask(&bed, "windows") else { return };
    client.ends();
}

#[test]
fn a_drain_lets_requests_over_http3_end() {
    let mut bed = Bed::new(245);
    let (sender, answer) = std::sync::mpsc::channel::<()>();
    let answer = std::sync::Mutex::new(answer);
    let origin = bed.running_with(move |seen, stream| {
        if seen.line().contains("/slow") {
            answer.lock().unwrap().recv().unwrap();
        }
        reply(stream, "", "at last");
    });
    let Some(mut client) = ask(&bed, "drained") else { return };
    client.says("open");
    origin.wait_seen(2);
    let edge = bed.edge.take().unwrap();
    let runtime = bed.runtime.take().unwrap();
    let drain = runtime.spawn(edge.drain(Duration::from_secs(20)));
    sender.send(()).unwrap();
    client.ends();
    runtime.block_on(drain).unwrap();
}

#[test]
fn a_client_whose_address_changes_keeps_its_connection() {
    let bed = Bed::with(246, Setup { workers: 4, ..Setup::default() });
    let origin = bed.running();
    let clients: Vec<_> = (0..4).map_while(|_| ask(&bed, "moves")).collect();
    let count = clients.len();
    for client in clients {
        client.ends();
    }
    assert_eq!(origin.seen().len(), 8 * count);
    let accepted = bed.metric("gantry_proxy_connections_accepted_total");
    // The scrape itself goes elsewhere.
    assert!((accepted - f64::from(u32::try_from(count).unwrap())).abs() < f64::EPSILON);
}

#[test]
fn frames_without_end_are_not_collected() {
    let bed = Bed::new(247);
    let _origin = bed.running();
    let Some(client) = ask(&bed, "floods") else { return };
    client.ends();
}

#[test]
fn tunnels_over_http3_are_not_offered_and_not_opened() {
    let bed = Bed::new(9);
    let origin = bed.running();
    let Some(client) = ask(&bed, "tunnels") else { return };
    client.ends();
    assert_eq!(origin.seen().len(), 2);
}

#[test]
fn https_clients_are_told_of_http3_once_for_each_host() {
    let bed = Bed::new(248);
    let _origin: Origin = bed.running();
    let name = host(CONTAINER, "http-3000");
    let mut client = bed.tls_client(&name);
    let answer = client.get(&name, "/", "");
    assert_eq!(answer.value("alt-svc"), Some("h3=\":8443\"; ma=86400"));
    assert_eq!(client.get(&name, "/", "").value("alt-svc"), None);
    let other = host(&"c".repeat(24), "http-3000");
    assert!(client.get(&other, "/", "").value("alt-svc").is_some());
    assert!(bed.client().get(&name, "/", "").value("alt-svc").is_none(), "not without TLS");
}

#[test]
fn http3_is_not_offered_when_its_port_is_taken() {
    let taken = UdpSocket::bind("127.77.249.1:0").unwrap();
    let https_port = taken.local_addr().unwrap().port();
    let bed = Bed::with(249, Setup { https_port, ..Setup::default() });
    let _origin = bed.running();
    assert_eq!(bed.https(), taken.local_addr().unwrap(), "the port of TCP was free");
    is_without_http3(&bed);
}

#[test]
fn http3_is_not_offered_when_it_is_switched_off() {
    let bed = Bed::with(8, Setup { http3: false, ..Setup::default() });
    let _origin = bed.running();
    is_without_http3(&bed);
    UdpSocket::bind(bed.https()).expect("nobody has the UDP port");
}

/// The edge serves, and nobody is told of HTTP/3.
fn is_without_http3(bed: &Bed) {
    let name = host(CONTAINER, "http-3000");
    let answer = bed.tls_client(&name).get(&name, "/", "");
    assert_eq!((answer.status, answer.value("alt-svc")), (200, None));
    assert!(bed.metric("gantry_proxy_http3_sockets").abs() < f64::EPSILON);
}
