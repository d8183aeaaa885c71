//! `WebSocket`s over HTTP/2, with a client and a server that others wrote.

use std::net::SocketAddr;

use aws_lc_rs::digest::{SHA1_FOR_LEGACY_USE_ONLY, digest};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use bytes::Bytes;
use gantry_model::Phase;
use http::{HeaderMap, Response, StatusCode};
use http_body_util::Full;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream};

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

const API: &str = "api.gantry.localhost";

#[test]
fn the_api_leaves_http_like_a_container() {
    let bed = Bed::new(134);
    let Some(client) = python::ask(&bed, "websocket_api.py", API, &[]) else { return };
    client.ends();
    python::ask(&bed, "websocket_h2.py", API, &["api"]).unwrap().ends();
    bed.wait_metric("gantry_proxy_tunnels_open", 0.0);
    let lines = bed.finish();
    let left: Vec<_> = lines.iter().filter(|line| line["path"] == "/live").collect();
    let statuses: Vec<_> = left.iter().map(|line| line["status"].as_u64()).collect();
    assert_eq!(statuses, [Some(101), Some(200), Some(200)], "{lines:?}");
    for line in left {
        assert!(line["received"].as_u64() > Some(10) && line["sent"].as_u64() > Some(10), "{line}");
    }
}

/// Leaves HTTP for the API: says `hello` and the text of one short frame, then closes.
#[expect(clippy::disallowed_methods, reason = "it ends with its tunnel")]
pub(crate) fn leave(headers: &HeaderMap, mut end: DuplexStream) -> Response<Full<Bytes>> {
    assert_eq!(headers["upgrade"], "websocket");
    assert_eq!(headers["connection"], "upgrade");
    let guid: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";
    let key = [headers["sec-websocket-key"].as_bytes(), guid].concat();
    let proof = digest(&SHA1_FOR_LEGACY_USE_ONLY, &key);
    tokio::spawn(async move {
        end.write_all(b"\x81\x05hello").await.unwrap();
        let mut head = [0; 6];
        end.read_exact(&mut head).await.unwrap();
        let mut text = vec![0; usize::from(head[1] & 0x7f)];
        end.read_exact(&mut text).await.unwrap();
        for (at, octet) in text.iter_mut().enumerate() {
            *octet ^= head[2 + at % 4];
        }
        end.write_all(&[&[0x81, head[1] & 0x7f], &text[..]].concat()).await.unwrap();
        end.write_all(b"\x88\x02\x03\xe8").await.unwrap();
    });
    let mut response = Response::new(Full::default());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let headers = response.headers_mut();
    headers.insert("connection", "Upgrade".parse().unwrap());
    headers.insert("upgrade", "websocket".parse().unwrap());
    headers.insert("sec-websocket-accept", STANDARD.encode(proof).parse().unwrap());
    response
}
