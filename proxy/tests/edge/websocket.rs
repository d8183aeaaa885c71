//! `WebSocket`s over HTTP/2, with a client and a server that others wrote.

use std::net::SocketAddr;

use gantry_model::Phase;

use crate::{
    bed::{Bed, CONTAINER, host},
    origin::send,
    python::{self, Program},
};

fn echo(bed: &Bed) -> Option<Program> {
    bed.set(CONTAINER, Phase::Running, 1);
    python::serve("websocket_origin.py", SocketAddr::new(bed.container_address(2), 3000))
}

#[test]
fn websockets_share_a_connection_of_http2() {
    let bed = Bed::new(130);
    let Some(_origin) = echo(&bed) else { return };
    let name = host(CONTAINER, "http-3000");
    python::ask(&bed, "websocket_h2.py", &name, &["echo"]).unwrap().ends();
    bed.wait_metric("gantry_proxy_tunnels_open", 0.0);
    let lines = bed.finish();
    let sockets: Vec<_> = lines.iter().filter(|line| line["method"] == "CONNECT").collect();
    assert_eq!(sockets.len(), 2, "{lines:?}");
    for line in sockets {
        assert_eq!((&line["status"], &line["protocol"]), (&200.into(), &"http2".into()));
        assert!(line["received"].as_u64() > Some(10) && line["sent"].as_u64() > Some(10), "{line}");
    }
}

#[test]
fn a_refused_websocket_opens_no_tunnel() {
    let bed = Bed::new(131);
    let Some(_origin) = echo(&bed) else { return };
    let name = host(CONTAINER, "http-3000");
    python::ask(&bed, "websocket_h2.py", &name, &["refused"]).unwrap().ends();
}

#[test]
fn stopping_a_container_ends_its_websockets_over_http2() {
    let bed = Bed::new(132);
    let Some(_origin) = echo(&bed) else { return };
    let name = host(CONTAINER, "http-3000");
    let mut client = python::ask(&bed, "websocket_h2.py", &name, &["until-cut"]).unwrap();
    client.says("open");
    bed.wait_metric("gantry_proxy_tunnels_open", 1.0);
    bed.set(CONTAINER, Phase::Stopping, 1);
    client.ends();
    bed.wait_metric("gantry_proxy_tunnels_open", 0.0);
}

#[test]
fn a_container_that_has_not_read_the_key_gets_no_tunnel() {
    let bed = Bed::new(133);
    let _origin = bed.running_with(|seen, stream| {
        assert_eq!(seen.values("sec-websocket-version"), ["13"]);
        assert_eq!(seen.values("sec-websocket-key")[0].len(), 24);
        send(
            stream,
            "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n",
        );
    });
    let name = host(CONTAINER, "http-3000");
    let Some(client) = python::ask(&bed, "websocket_h2.py", &name, &["unproven"]) else { return };
    client.ends();
}
