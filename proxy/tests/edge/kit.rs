//! Kit services and the API.

use std::{net::SocketAddr, time::Duration};

use gantry_model::{Phase, Service};
use gantry_proxy::{KitPort, StartFailed};

use crate::{
    bed::{Bed, CONTAINER, FILES_PORT, OWN_PORT, Setup, host, kit, now_ms},
    origin::Origin,
};

#[test]
fn the_first_request_starts_the_service_and_waits_for_it() {
    let bed = Bed::new(70);
    bed.set(CONTAINER, Phase::Running, 1);
    let name = host(CONTAINER, "files-1");
    // A page asks for many things at once.
    let mut clients: Vec<_> = (0..8).map(|_| bed.client()).collect();
    for client in &mut clients {
        client.send(format!("GET / HTTP/1.1\r\nHost: {name}\r\n\r\n"));
    }
    for client in &mut clients {
        assert_eq!(client.reply().status, 200);
    }
    let started = bed.starter.started.lock().unwrap().clone();
    assert_eq!(started, [(CONTAINER.parse().unwrap(), Service::Files, 1)], "started once");
    assert_eq!(clients[0].get(&host(CONTAINER, "files"), "/", "").status, 200, "1 is the default");
    assert_eq!(bed.starter.started.lock().unwrap().len(), 1, "and not again");
}

#[test]
fn a_service_that_listens_already_is_not_started() {
    let bed = Bed::new(71);
    bed.set(CONTAINER, Phase::Running, 1);
    let _running = Origin::simple(SocketAddr::new(bed.container_address(2), FILES_PORT));
    assert_eq!(bed.client().get(&host(CONTAINER, "files-1"), "/", "").status, 200);
    assert!(bed.starter.started.lock().unwrap().is_empty());
}

#[test]
fn a_service_that_does_not_start_is_said_to() {
    let setup = Setup {
        program: Box::new(|_| Err(StartFailed("secret detail".to_owned()))),
        ..Setup::default()
    };
    let bed = Bed::with(72, setup);
    bed.set(CONTAINER, Phase::Running, 1);
    let reply = bed.client().get(&host(CONTAINER, "files-1"), "/", "Accept: application/json\r\n");
    assert_eq!((reply.status, reply.code()), (502, Some("SERVICE_NOT_STARTED")));
    assert!(!reply.text().contains("secret"), "{}", reply.text());
    assert_eq!(bed.client().get(&host(CONTAINER, "files-1"), "/", "").status, 502);
    assert_eq!(bed.starter.started.lock().unwrap().len(), 2, "each request may try");
}

#[test]
fn a_service_that_is_started_but_never_listens_is_given_up() {
    let mut setup = Setup {
        // Somewhere else than where it should.
        program: Box::new(|address| Ok(Origin::simple(SocketAddr::new(address.ip(), 0)))),
        ..Setup::default()
    };
    setup.limits.service_start_timeout = Duration::from_millis(400);
    let bed = Bed::with(73, setup);
    bed.set(CONTAINER, Phase::Running, 1);
    let reply = bed.client().get(&host(CONTAINER, "files-1"), "/", "");
    assert_eq!((reply.status, reply.code()), (502, Some("SERVICE_NOT_STARTED")));
    assert_eq!(reply.value("retry-after"), Some("1"));
}

#[test]
fn a_program_of_the_containers_own_takes_the_place_of_a_service_that_the_kit_lacks() {
    let bed = Bed::new(79);
    bed.set_at(CONTAINER, Phase::Running, 1, bed.container_address(2), now_ms());
    let name = host(CONTAINER, "code-2");
    let page = bed.client().get(&name, "/", "Accept: text/html\r\n");
    assert_eq!((page.status, page.code()), (501, Some("SERVICE_NOT_PROVIDED")));
    let port = OWN_PORT + Service::Code as u16;
    assert!(page.text().contains(&format!("0.0.0.0:{port}")), "{}", page.text());
    // One that was started a moment ago may have a program that is about to listen.
    assert!(page.text().contains("http-equiv=refresh"), "{}", page.text());
    assert_eq!(page.value("retry-after"), Some("1"));
    bed.set(CONTAINER, Phase::Running, 2);
    let reply = bed.client().get(&name, "/", "Accept: application/json\r\n");
    assert_eq!((reply.status, reply.code()), (501, Some("SERVICE_NOT_PROVIDED")));
    assert_eq!(reply.value("retry-after"), None);
    let shake = "Connection: upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
                 Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n";
    assert_eq!(bed.client().get(&name, "/ws", shake).status, 501);
    assert!(bed.starter.started.lock().unwrap().is_empty(), "there is nothing to start");
    let program = own(&bed, port);
    assert_eq!(bed.client().get(&name, "/x", "").status, 200);
    assert_eq!(program.last().line(), "GET /x?id=2 HTTP/1.1");
    for (phase, code) in
        [(Phase::Stopped, "CONTAINER_STOPPED"), (Phase::Paused, "CONTAINER_PAUSED")]
    {
        bed.set(CONTAINER, phase, 2);
        let reply = bed.client().get(&name, "/", "");
        assert_eq!((reply.status, reply.code()), (503, Some(code)));
    }
}

#[test]
fn the_api_is_asked_in_process_and_told_who_asks() {
    let bed = Bed::new(74);
    let realm = "9".repeat(24);
    for (name, want) in [
        ("api.gantry.localhost".to_owned(), serde_json::Value::Null),
        (format!("{realm}.api.gantry.localhost"), realm.into()),
        ("any-word.api.gantry.localhost".to_owned(), serde_json::Value::Null),
    ] {
        let mut client = bed.tls_client(&name);
        client.send(format!(
            "POST /a/b?c=d HTTP/1.1\r\nHost: {name}:8443\r\nAuthorization: Bearer t\r\n\
             X-Forwarded-For: 1.2.3.4\r\nX-Request-Id: chosen\r\nTransfer-Encoding: chunked\r\n\r\n\
             3\r\nabc\r\n0\r\n\r\n"
        ));
        let reply = client.reply();
        assert_eq!(reply.status, 200);
        let told: serde_json::Value = serde_json::from_str(&reply.text()).unwrap();
        assert_eq!(told["method"], "POST");
        assert_eq!(told["path"], "/a/b");
        assert_eq!(told["body"], "abc");
        assert_eq!(told["client"], "127.0.0.1");
        assert_eq!(told["realm"], want, "{name}");
        assert_eq!(told["id"], reply.value("x-request-id").unwrap());
        assert_eq!(told["forwarded"], false);
        assert_eq!(told["authorization"], "Bearer t");
        let reply = client.get(&name, "/next", "");
        assert_eq!(reply.status, 200, "the connection goes on");
    }
}

#[test]
fn a_panic_of_the_api_costs_one_request() {
    let bed = Bed::new(75);
    let mut client = bed.client();
    let reply = client.get("api.gantry.localhost", "/panic", "");
    assert_eq!((reply.status, reply.code()), (503, Some("API_UNAVAILABLE")));
    assert_eq!(client.get("api.gantry.localhost", "/", "").status, 200);
}

/// A program of the container's own.
fn own(bed: &Bed, port: u16) -> Origin {
    Origin::simple(SocketAddr::new(bed.container_address(2), port))
}

#[test]
fn a_service_is_told_which_instance_its_hostname_named() {
    let bed = Bed::new(150);
    bed.set(CONTAINER, Phase::Running, 1);
    let terminal = Origin::simple(SocketAddr::new(bed.container_address(2), FILES_PORT + 1));
    let files = Origin::simple(SocketAddr::new(bed.container_address(2), FILES_PORT));
    let port = Origin::simple(SocketAddr::new(bed.container_address(2), 3000));
    let http = own(&bed, 80);
    let of = |service: Service| own(&bed, OWN_PORT + service as u16);
    let (display, code) = (of(Service::Display), of(Service::Code));
    let (notifications, sqlite) = (of(Service::Notifications), of(Service::Sqlite));
    let mut client = bed.client();
    for (service, path, origin, want) in [
        ("terminal-2", "/ws?terminal_id=9&x=1", &terminal, "/ws?x=1&display=2&terminal_id=2"),
        ("files-1", "/?terminal_id=9", &files, "/?terminal_id=9"),
        // Exec has the port of the first instance here, too.
        ("exec-1", "/hello?execId=7&id=1", &files, "/hello?execId=7&id=1"),
        ("http-3000", "/?terminal_id=9&id=1", &port, "/?terminal_id=9&id=1"),
        ("http", "/?terminal_id=9", &http, "/?terminal_id=9"),
        // What the Kit does not bring may be a program of the container's own.
        ("display-7", "/view?display=8&x=1", &display, "/view?x=1&display=7"),
        ("code-3", "/?folder=/srv&id=4", &code, "/?folder=/srv&id=3"),
        ("code-3", "/", &code, "/?folder=/root&id=3"),
        ("code-3", "/static/x.js", &code, "/static/x.js?id=3"),
        ("n-7", "/api?display=8", &notifications, "/api?display=7"),
        ("sqlite-1", "/?display=8&id=2", &sqlite, "/?display=8&id=2"),
    ] {
        assert_eq!(client.get(&host(CONTAINER, service), path, "").status, 200);
        let seen = origin.seen();
        let line = seen.last().unwrap().line();
        assert_eq!(line, format!("GET {want} HTTP/1.1"), "{service}");
    }
    let star = format!("OPTIONS * HTTP/1.1\r\nHost: {}\r\n\r\n", host(CONTAINER, "terminal-2"));
    client.send(star);
    assert_eq!(client.reply().status, 200);
    assert_eq!(terminal.seen().last().unwrap().line(), "OPTIONS * HTTP/1.1");
}

/// A Kit of the operator's own, whose terminals share a port.
fn operators(service: Service) -> KitPort {
    KitPort { provided: false, per_index: false, ..kit(service) }
}

#[test]
fn a_desktop_is_asked_of_a_terminal_that_may_have_one_and_never_of_ours() {
    let bed = Bed::with(250, Setup { kit: operators, ..Setup::default() });
    bed.set(CONTAINER, Phase::Running, 1);
    let terminal = own(&bed, FILES_PORT - 1);
    let mut client = bed.client();
    for (service, path, want) in [
        (
            "desktop-3",
            "/a?desktop_env=mate&desktop=no&redirect=https://evil.example&terminal_id=9&display=8&x=1",
            "/a?desktop_env=mate&desktop=true&redirect=display&terminal_id=1603&display=1603",
        ),
        (
            "desktop-63935",
            "/?desktop_env=sh",
            "/?desktop=true&redirect=display&terminal_id=65535&display=65535",
        ),
    ] {
        assert_eq!(client.get(&host(CONTAINER, service), path, "").status, 200);
        let seen = terminal.seen();
        let line = seen.last().unwrap().line();
        assert_eq!(line, format!("GET {want} HTTP/1.1"), "{service}");
    }
    // The Kit's own would start a shell, which is not what who may have a desktop may have.
    let bed = Bed::new(251);
    bed.set(CONTAINER, Phase::Running, 1);
    let shell = own(&bed, FILES_PORT);
    let reply = bed.client().get(&host(CONTAINER, "desktop-3"), "/", "");
    assert_eq!((reply.status, reply.code()), (501, Some("SERVICE_NOT_PROVIDED")));
    assert!(shell.seen().is_empty(), "nobody is asked");
}
