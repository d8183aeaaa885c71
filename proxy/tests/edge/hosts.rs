//! Which host a request is for, and what does not exist.

use gantry_model::{Generation, Phase};
use gantry_store::RouteRecord;

use crate::bed::{Bed, CONTAINER, PROJECT, host};

#[test]
fn a_request_must_name_one_host_and_name_it_right() {
    let bed = Bed::new(10);
    let origin = bed.running();
    let good = host(CONTAINER, "http-3000");
    for (request, status, code) in [
        (format!("GET / HTTP/1.1\r\nHost: {good}\r\n\r\n"), 200, None),
        (format!("GET / HTTP/1.1\r\nHost: {}\r\n\r\n", good.to_uppercase()), 200, None),
        (format!("GET / HTTP/1.1\r\nHost: {good}.\r\n\r\n"), 200, None),
        (format!("GET / HTTP/1.1\r\nHost: {good}:8443\r\n\r\n"), 200, None),
        (format!("GET http://{good}/ HTTP/1.1\r\nHost: {good}\r\n\r\n"), 200, None),
        (format!("GET / HTTP/1.0\r\nHost: {good}\r\n\r\n"), 200, None),
        ("GET / HTTP/1.1\r\n\r\n".to_owned(), 400, Some("HOST_MISSING")),
        ("GET / HTTP/1.0\r\n\r\n".to_owned(), 400, Some("HOST_MISSING")),
        (format!("GET http://{good}/ HTTP/1.1\r\n\r\n"), 400, Some("HOST_MISSING")),
        ("GET / HTTP/1.1\r\nHost:\r\n\r\n".to_owned(), 400, Some("HOST_INVALID")),
        (
            format!("GET / HTTP/1.1\r\nHost: {good}\r\nHost: {good}\r\n\r\n"),
            400,
            Some("HOST_INVALID"),
        ),
        (
            format!("GET http://other.example/ HTTP/1.1\r\nHost: {good}\r\n\r\n"),
            400,
            Some("HOST_INVALID"),
        ),
        (
            format!("GET http://{good}/ HTTP/1.1\r\nHost: other.example\r\n\r\n"),
            400,
            Some("HOST_INVALID"),
        ),
        (format!("GET / HTTP/1.1\r\nHost: u:p@{good}\r\n\r\n"), 400, Some("HOST_INVALID")),
        (format!("GET / HTTP/1.1\r\nHost: {good}:\r\n\r\n"), 400, Some("HOST_INVALID")),
        (format!("GET / HTTP/1.1\r\nHost: {good}:0\r\n\r\n"), 400, Some("HOST_INVALID")),
        (format!("GET / HTTP/1.1\r\nHost: {good}:70000\r\n\r\n"), 400, Some("HOST_INVALID")),
        (format!("GET / HTTP/1.1\r\nHost: {good}:8443x\r\n\r\n"), 400, Some("HOST_INVALID")),
        (format!("GET / HTTP/1.1\r\nHost: {good}/x\r\n\r\n"), 400, Some("HOST_INVALID")),
        (format!("GET / HTTP/1.1\r\nHost: {good}, {good}\r\n\r\n"), 400, Some("HOST_INVALID")),
        ("GET / HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n".to_owned(), 400, Some("HOST_INVALID")),
        ("GET / HTTP/1.1\r\nHost: [::1]:80\r\n\r\n".to_owned(), 400, Some("HOST_INVALID")),
        (
            format!("CONNECT {good}:443 HTTP/1.1\r\nHost: {good}:443\r\n\r\n"),
            501,
            Some("METHOD_NOT_SUPPORTED"),
        ),
    ] {
        let mut client = bed.client();
        client.send(&request);
        let reply = client.reply();
        assert_eq!((reply.status, reply.code()), (status, code), "{request:?}");
    }
    assert_eq!(origin.seen().len(), 6, "only the good ones passed");
}

#[test]
fn whatever_does_not_exist_is_the_same_404() {
    let bed = Bed::new(11);
    let _origin = bed.running();
    let (hidden, deleted) = ("c".repeat(24), "d".repeat(24));
    let record = |container: &str, hoody_kit, phase| RouteRecord {
        container: container.parse().unwrap(),
        project: PROJECT.parse().unwrap(),
        server: crate::bed::SERVER,
        hoody_kit,
        ssh_key: None,
        ssh_forwarding: true,
        phase,
        address: Some(bed.container_address(2)),
        generation: Generation(1),
        started_at_ms: None,
        why_failed: false,
        edge: None,
    };
    bed.set_record(record(&hidden, false, Phase::Running));
    bed.set_record(record(&deleted, true, Phase::Deleting));
    let other_project = format!("{}-{CONTAINER}-http-3000", "e".repeat(24));
    let zone = "local.containers.gantry.localhost";
    let mut bodies = Vec::new();
    for name in [
        host(&"f".repeat(24), "http-3000"),
        host(&hidden, "http-3000"),
        host(&deleted, "http-3000"),
        format!("{other_project}.{zone}"),
        host(CONTAINER, "http-3000").replace(".local.", ".other."),
        // A server of this process, but not the container's.
        host(CONTAINER, "http-3000").replace(".local.", ".second."),
        host(CONTAINER, "http-03000"),
        host(CONTAINER, "http-70000"),
        host(CONTAINER, "nonsense-1"),
        format!("extra.{}", host(CONTAINER, "http-3000")),
        format!("my-alias.{zone}"),
        "www.example.com".to_owned(),
        "gantry.localhost".to_owned(),
        "containers.gantry.localhost".to_owned(),
    ] {
        let mut client = bed.client();
        let reply = client.get(&name, "/path?query", "Accept: text/html\r\n");
        assert_eq!((reply.status, reply.code()), (404, Some("NOT_FOUND")), "{name}");
        let id = reply.value("x-request-id").unwrap().to_owned();
        let text = reply.text();
        assert!(!text.contains(&name) && !text.contains("path"), "nothing is reflected");
        bodies.push(text.replace(&id, "ID"));
    }
    assert!(bodies.windows(2).all(|two| two[0] == two[1]), "all answers are the same");
}

#[test]
fn a_connection_serves_only_what_its_certificate_covers() {
    let bed = Bed::new(12);
    let _origin = bed.running();
    let good = host(CONTAINER, "http-3000");
    let sibling = host(CONTAINER, "http-3001");
    let mut client = bed.tls_client(&good);
    assert_eq!(client.get(&good, "/", "").status, 200);
    // Another name of the same certificate: browsers coalesce, and each request is judged alone.
    assert_eq!(client.get(&sibling, "/", "").code(), Some("PORT_CLOSED"));
    let reply = client.get("api.gantry.localhost", "/", "");
    assert_eq!((reply.status, reply.code()), (421, Some("MISDIRECTED")));
    let reply = client.get("www.example.com", "/", "");
    assert_eq!((reply.status, reply.code()), (421, Some("MISDIRECTED")));
    assert_eq!(client.get(&good, "/", "").status, 200, "the connection goes on");
    let mut client = bed.tls_client("api.gantry.localhost");
    assert_eq!(client.get(&good, "/", "").status, 421);
}

#[test]
fn the_plain_port_redirects_and_does_nothing_else() {
    let bed = Bed::new(13);
    let origin = bed.running();
    let good = host(CONTAINER, "http-3000");
    for (name, target, want) in [
        (good.clone(), "/a/b?c=d", Some(format!("https://{good}:8443/a/b?c=d"))),
        (format!("{good}:8080"), "/", Some(format!("https://{good}:8443/"))),
        (good.to_uppercase(), "/", Some(format!("https://{good}:8443/"))),
        (
            "api.gantry.localhost".to_owned(),
            "/x",
            Some("https://api.gantry.localhost:8443/x".to_owned()),
        ),
        ("www.example.com".to_owned(), "/", None),
        ("gantry.localhost.evil.example".to_owned(), "/", None),
    ] {
        let mut client = crate::client::Client::connect(bed.http());
        client.send(format!("POST {target} HTTP/1.1\r\nHost: {name}\r\nContent-Length: 0\r\n\r\n"));
        let reply = client.reply();
        assert_eq!(reply.value("location"), want.as_deref(), "{name}");
        assert_eq!(reply.status, if want.is_some() { 308 } else { 404 }, "{name}");
    }
    let mut client = crate::client::Client::connect(bed.http());
    client.send("GET / HTTP/1.1\r\n\r\n");
    assert_eq!(client.reply().status, 400);
    assert!(origin.seen().is_empty());
}
