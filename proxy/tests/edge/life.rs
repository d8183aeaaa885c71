//! The edge's own life: metrics, health, access lines, drain.

use std::{io::Read, time::Duration};

use gantry_model::Phase;

use crate::{
    bed::{Bed, CONTAINER, Setup, host},
    client::Client,
    origin::send,
};

#[test]
fn health_and_metrics_are_told_to_this_machine() {
    let bed = Bed::new(100);
    let _origin = bed.running();
    let name = host(CONTAINER, "http-3000");
    assert_eq!(bed.client().get(&name, "/", "").status, 200);
    assert_eq!(bed.client().get("www.example.com", "/", "").status, 404);
    let ask = |path: &str| Client::connect(bed.admin()).get("localhost", path, "");
    assert_eq!(ask("/livez").status, 200);
    let ready = ask("/readyz");
    assert_eq!((ready.status, ready.text().contains("gauge: ready")), (200, true));
    *bed.gauge.0.lock().unwrap() = Err("the store is away".to_owned());
    let ready = ask("/readyz");
    assert_eq!((ready.status, ready.text().contains("gauge: the store is away")), (503, true));
    assert_eq!(ask("/livez").status, 200, "alive all the same");
    assert_eq!(ask("/other").status, 404);
    bed.wait_metric("gantry_proxy_requests_total{protocol=\"http1\",class=\"2xx\"}", 1.0);
    bed.wait_metric("gantry_proxy_errors_total{code=\"NOT_FOUND\"}", 1.0);
    bed.wait_metric("gantry_routes", 1.0);
    let text = ask("/metrics").text();
    assert!(text.contains("other_metric 1"), "other crates' metrics stand there, too");
    assert!(!text.contains(CONTAINER), "no container is named");
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        let (name, value) = line.rsplit_once(' ').unwrap();
        assert!(value.parse::<f64>().is_ok() && !name.is_empty(), "{line}");
    }
}

#[test]
fn every_request_leaves_one_line_without_its_secrets() {
    let bed = Bed::new(101);
    let _origin = bed.running();
    let name = host(CONTAINER, "http-3000");
    let mut client = bed.client();
    client.send(format!(
        "POST /a\"b?token=secret HTTP/1.1\r\nHost: {name}\r\nAuthorization: Bearer secret\r\n\
         Cookie: secret\r\nContent-Length: 3\r\n\r\nabc"
    ));
    let reply = client.reply();
    assert_eq!(reply.status, 200);
    let id = reply.value("x-request-id").unwrap().to_owned();
    client.get("www.example.com", "/", "");
    client.send("BAD\r\n\r\n");
    assert_eq!(client.reply().status, 400);
    let lines = bed.finish();
    assert_eq!(lines.len(), 3, "{lines:?}");
    let line = &lines[0];
    assert_eq!(line["id"], id);
    assert_eq!(line["client"], "127.0.0.1");
    assert_eq!(line["method"], "POST");
    assert_eq!(line["host"], name);
    assert_eq!(line["path"], "/a\"b");
    assert_eq!(line["protocol"], "http1");
    assert_eq!(line["route"], "port");
    assert_eq!(line["status"], 200);
    assert_eq!((&line["received"], &line["sent"]), (&3.into(), &6.into()));
    assert!(line["time"].as_str().unwrap().ends_with('Z') && line["durationUs"].is_u64());
    assert!(!serde_json::to_string(&lines).unwrap().contains("secret"));
    assert_eq!((&lines[1]["status"], &lines[1]["error"]), (&404.into(), &"NOT_FOUND".into()));
    assert_eq!((&lines[2]["status"], &lines[2]["error"]), (&400.into(), &"BAD_REQUEST".into()));
}

#[test]
fn a_drain_finishes_what_runs_and_takes_nothing_new() {
    let mut bed = Bed::new(102);
    let (go, wait) = std::sync::mpsc::channel::<()>();
    let wait = std::sync::Mutex::new(wait);
    let origin = bed.running_with(move |seen, stream| {
        if seen.line().contains("/slow") {
            wait.lock().unwrap().recv_timeout(Duration::from_secs(10)).unwrap();
        }
        crate::origin::reply(stream, "", "whole");
    });
    let name = host(CONTAINER, "http-3000");
    let mut idle = bed.client();
    assert_eq!(idle.get(&name, "/", "").status, 200);
    let mut busy = bed.client();
    busy.send(format!("GET /slow HTTP/1.1\r\nHost: {name}\r\n\r\n"));
    origin.wait_seen(2);
    let address = bed.plain();
    let edge = bed.edge.take().unwrap();
    let runtime = bed.runtime.take().unwrap();
    let drain = runtime.spawn(edge.drain(Duration::from_secs(10)));
    assert!(idle.is_closed(), "an idle connection ends at once");
    let end = std::time::Instant::now() + Duration::from_secs(5);
    while std::net::TcpStream::connect(address).is_ok() {
        assert!(std::time::Instant::now() < end, "new connections are taken");
    }
    assert!(!drain.is_finished(), "a request is still under way");
    go.send(()).unwrap();
    let reply = busy.reply();
    assert_eq!((reply.status, reply.text().as_str()), (200, "whole"));
    assert_eq!(reply.value("connection"), Some("close"));
    assert!(busy.is_closed());
    runtime.block_on(drain).unwrap();
}

#[test]
fn a_drain_ends_at_its_deadline() {
    let mut bed = Bed::new(103);
    let _origin = bed.running_with(|_, stream| {
        send(stream, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n");
        // Silent until the edge ends it.
        drop(stream.read(&mut [0; 16]));
    });
    let mut client = bed.client();
    client.send(format!("GET / HTTP/1.1\r\nHost: {}\r\n\r\n", host(CONTAINER, "http-3000")));
    client.head();
    assert_eq!(client.chunk().unwrap(), b"x");
    let edge = bed.edge.take().unwrap();
    let runtime = bed.runtime.take().unwrap();
    runtime.block_on(edge.drain(Duration::from_millis(300)));
    assert!(client.is_closed());
}

#[test]
fn a_connection_has_so_many_requests() {
    let mut setup = Setup::default();
    setup.limits.requests_max = 2;
    let bed = Bed::with(106, setup);
    let _origin = bed.running();
    let name = host(CONTAINER, "http-3000");
    let mut client = bed.client();
    assert_eq!(client.get(&name, "/", "").value("connection"), None);
    assert_eq!(client.get(&name, "/", "").status, 200);
    assert!(client.is_closed());
}

#[test]
fn many_clients_at_once_are_all_served() {
    let bed = Bed::with(107, Setup { workers: 2, ..Setup::default() });
    let _origin = bed.running_with(|seen, stream| {
        let path = seen.line().split(' ').nth(1).unwrap();
        let body = format!("{path} {}", String::from_utf8_lossy(&seen.body));
        if path.ends_with('0') {
            let (first, second) = body.split_at(3);
            send(stream, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n");
            for part in [first, second] {
                send(stream, format!("{:x}\r\n{part}\r\n", part.len()));
            }
            send(stream, "0\r\n\r\n");
        } else {
            crate::origin::reply(stream, "", &body);
        }
    });
    let name = host(CONTAINER, "http-3000");
    let ask = |mut client: Client, number: usize| {
        for round in 0..100 {
            let path = format!("/{number}/{round}");
            let body = "x".repeat(round * number * 7);
            let length = body.len();
            client.send(format!(
                "POST {path} HTTP/1.1\r\nHost: {name}\r\nContent-Length: {length}\r\n\r\n{body}"
            ));
            let reply = client.reply();
            assert_eq!(reply.status, 200, "{path}");
            assert!(reply.text() == format!("{path} {body}"), "{path}");
        }
    };
    std::thread::scope(|scope| {
        for number in 0..24 {
            let client = if number % 2 == 0 { bed.client() } else { bed.tls_client(&name) };
            let ask = &ask;
            scope.spawn(move || ask(client, number));
        }
    });
    bed.wait_metric("gantry_proxy_requests_total{protocol=\"http1\",class=\"2xx\"}", 2400.0);
}

#[test]
fn several_workers_share_the_addresses() {
    let bed = Bed::with(104, Setup { workers: 3, ..Setup::default() });
    let _origin = bed.running();
    let name = host(CONTAINER, "http-3000");
    for _ in 0..30 {
        assert_eq!(bed.client().get(&name, "/", "").status, 200);
        assert_eq!(bed.tls_client(&name).get(&name, "/", "").status, 200);
    }
    bed.wait_metric("gantry_proxy_requests_total{protocol=\"http1\",class=\"2xx\"}", 60.0);
}

#[test]
fn a_client_that_leaves_takes_its_request_with_it() {
    let bed = Bed::new(105);
    let origin = bed.running_with(|_, stream| {
        // Answers never; the edge closes.
        drop(stream.read(&mut [0; 16]));
    });
    bed.set(CONTAINER, Phase::Running, 1);
    let mut client = bed.client();
    client.send(format!("GET / HTTP/1.1\r\nHost: {}\r\n\r\n", host(CONTAINER, "http-3000")));
    origin.wait_seen(1);
    drop(client);
    origin.wait_closed(1);
    let lines = bed.finish();
    assert_eq!(lines[0]["status"], 499, "{lines:?}");
}

#[test]
fn an_edge_that_drains_is_not_ready() {
    let mut bed = Bed::new(108);
    let (tell, told) = std::sync::mpsc::channel::<()>();
    let told = std::sync::Mutex::new(told);
    let origin = bed.running_with(move |_, stream| {
        told.lock().unwrap().recv_timeout(Duration::from_secs(20)).unwrap();
        crate::origin::reply(stream, "", "late");
    });
    let admin = bed.admin();
    let ask = |path: &str| Client::connect(admin).get("localhost", path, "");
    assert_eq!(ask("/readyz").status, 200);
    let mut client = bed.client();
    client.send(format!("GET / HTTP/1.1\r\nHost: {}\r\n\r\n", host(CONTAINER, "http-3000")));
    origin.wait_seen(1);
    let (edge, runtime) = (bed.edge.take().unwrap(), bed.runtime.take().unwrap());
    std::thread::scope(|scope| {
        let drain = scope.spawn(|| runtime.block_on(edge.drain(Duration::from_secs(20))));
        let end = std::time::Instant::now() + Duration::from_secs(10);
        let ready = loop {
            let ready = ask("/readyz");
            if ready.status != 200 {
                break ready;
            }
            assert!(std::time::Instant::now() < end, "it drains, and says so");
        };
        assert_eq!((ready.status, ready.text().contains("edge: draining")), (503, true));
        assert_eq!(ask("/livez").status, 200, "alive all the same");
        tell.send(()).unwrap();
        assert_eq!(client.reply().text(), "late", "what runs comes to its end");
        drain.join().unwrap();
    });
    runtime.shutdown_background();
}
