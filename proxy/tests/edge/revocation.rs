//! What runs when a gate changes: whoever would not be let in any more is cut off.

use std::{io::Read, time::Duration};

use gantry_model::Phase;
use serde_json::{Value, json};

use crate::{
    bed::{Bed, CONTAINER, host},
    client::Client,
    http2,
    origin::{Origin, send},
};

/// The octets of a large answer.
const LARGE: usize = 32 << 20;

/// A program whose answers never end: an echo after an upgrade, otherwise one event and silence. What
/// is large ends when it was taken.
fn endless(bed: &Bed) -> Origin {
    bed.running_with(|seen, stream| {
        if seen.line().contains("/large") {
            send(stream, format!("HTTP/1.1 200 OK\r\nContent-Length: {LARGE}\r\n\r\n"));
            send(stream, vec![0; LARGE]);
            return;
        }
        if seen.values("upgrade").is_empty() {
            send(stream, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n");
            drop(stream.read(&mut [0; 16]));
            return;
        }
        send(
            stream,
            "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n",
        );
        let mut buffer = [0; 64];
        while let Ok(count @ 1..) = stream.read(&mut buffer) {
            send(stream, &buffer[..count]);
        }
    })
}

/// An answer that goes on.
fn events(bed: &Bed, fields: &str) -> Client {
    let mut client = bed.client();
    client.send(format!(
        "GET /events HTTP/1.1\r\nHost: {}\r\n{fields}\r\n",
        host(CONTAINER, "http-3000")
    ));
    assert!(client.head().starts_with("HTTP/1.1 200"));
    assert_eq!(client.chunk().unwrap(), b"x");
    client
}

/// A tunnel.
fn tunnel(bed: &Bed, fields: &str) -> Client {
    let mut client = bed.client();
    let name = host(CONTAINER, "http-3000");
    client.send(format!(
        "GET /ws HTTP/1.1\r\nHost: {name}\r\nConnection: upgrade\r\nUpgrade: websocket\r\n{fields}\r\n"
    ));
    assert!(client.head().starts_with("HTTP/1.1 101"));
    echoes(&mut client);
    client
}

fn echoes(client: &mut Client) {
    client.send("hello");
    assert_eq!(client.exactly(5), b"hello");
}

fn tokens(values: &[&str]) -> Value {
    let groups: Vec<Value> = values
        .iter()
        .map(|value| json!({"type": "token", "header": "X-Key", "value": value}))
        .collect();
    json!({"groups": {"g": groups}, "permissions": {"g": {"http": 3000}}, "default": "deny"})
}

#[test]
fn an_open_container_that_gets_a_gate_cuts_what_runs() {
    let bed = Bed::new(190);
    let _origin = endless(&bed);
    let mut stream = http2::endless(&bed, &host(CONTAINER, "http-3000"));
    let (mut events, mut tunnel) = (events(&bed, ""), tunnel(&bed, ""));
    bed.gate(CONTAINER, &tokens(&["a"]));
    assert!(events.is_closed());
    assert!(tunnel.is_closed());
    assert!(http2::is_reset(&mut stream));
}

#[test]
fn a_credential_that_is_taken_away_cuts_those_who_came_by_it_and_no_others() {
    let bed = Bed::new(191);
    let _origin = endless(&bed);
    bed.gate(CONTAINER, &tokens(&["a", "b"]));
    let a = "X-Key: a\r\n";
    let (mut events_a, mut tunnel_a) = (events(&bed, a), tunnel(&bed, a));
    let mut tunnel_b = tunnel(&bed, "X-Key: b\r\n");
    bed.gate(CONTAINER, &tokens(&["b", "c"]));
    assert!(events_a.is_closed());
    assert!(tunnel_a.is_closed());
    // The other one had the same look of the worker.
    echoes(&mut tunnel_b);
    // What is closed for all is closed for all.
    let mut closed = tokens(&["b"]);
    closed["enable_proxy"] = false.into();
    bed.gate(CONTAINER, &closed);
    assert!(tunnel_b.is_closed());
}

#[test]
fn a_client_that_takes_its_answer_slowly_is_judged_like_any_other() {
    let bed = Bed::new(194);
    let _origin = endless(&bed);
    bed.gate(CONTAINER, &tokens(&["a", "b", "c"]));
    let slow = || {
        let mut client = bed.client();
        let name = host(CONTAINER, "http-3000");
        client.send(format!("GET /large HTTP/1.1\r\nHost: {name}\r\nX-Key: a\r\n\r\n"));
        assert!(client.head().starts_with("HTTP/1.1 200"));
        client
    };
    let (mut first, mut other) = (slow(), tunnel(&bed, "X-Key: b\r\n"));
    bed.gate(CONTAINER, &tokens(&["a", "c"]));
    assert!(other.is_closed(), "everybody was judged again");
    assert_eq!(first.exactly(LARGE).len(), LARGE);
    let (_second, mut other) = (slow(), tunnel(&bed, "X-Key: c\r\n"));
    bed.gate(CONTAINER, &tokens(&["d"]));
    assert!(other.is_closed());
    drop(first);
    bed.wait_metric("gantry_proxy_connections_open", 0.0);
}

#[test]
fn a_gate_that_is_taken_away_cuts_nobody() {
    let bed = Bed::new(192);
    let _origin = endless(&bed);
    let other = "cccccccccccccccccccccccc";
    bed.set(other, Phase::Running, 1);
    bed.gate(CONTAINER, &tokens(&["a"]));
    let mut kept = tunnel(&bed, "X-Key: a\r\n");
    let mut witness = bed.client();
    let name = host(other, "http-3000");
    witness.send(format!(
        "GET /ws HTTP/1.1\r\nHost: {name}\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n"
    ));
    assert!(witness.head().starts_with("HTTP/1.1 101"));
    bed.ungate(CONTAINER);
    bed.gate(other, &tokens(&["a"]));
    // Cut by the same look.
    assert!(witness.is_closed());
    echoes(&mut kept);
}

#[test]
fn a_request_that_waits_for_its_answer_is_refused_when_it_is_cut() {
    let bed = Bed::new(193);
    let origin = bed.running_with(|_, stream| drop(stream.read(&mut [0; 16])));
    bed.gate(CONTAINER, &tokens(&["a"]));
    let mut client = bed.client();
    let name = host(CONTAINER, "http-3000");
    client.send(format!("GET /large HTTP/1.1\r\nHost: {name}\r\nX-Key: a\r\n\r\n"));
    origin.wait_seen(1);
    bed.gate(CONTAINER, &tokens(&["b"]));
    let reply = client.reply();
    assert_eq!((reply.status, reply.code()), (403, Some("ACCESS_DENIED")));
}

/// A token that counts for so long.
fn signed(for_ms: u32) -> String {
    // Clocks of others may be a minute off.
    let exp = (time::OffsetDateTime::now_utc() - time::Duration::minutes(1)
        + Duration::from_millis(for_ms.into()))
    .unix_timestamp_nanos();
    let exp = f64::from(u32::try_from(exp / 1_000_000_000).unwrap())
        + f64::from(u32::try_from(exp % 1_000_000_000).unwrap()) / 1e9;
    let key = jsonwebtoken::EncodingKey::from_secret(SECRET.as_bytes());
    jsonwebtoken::encode(&jsonwebtoken::Header::default(), &json!({"exp": exp}), &key).unwrap()
}

const SECRET: &str = "a secret of some length for tests";

#[test]
fn what_streams_ends_with_the_signed_token_that_let_it_in() {
    let bed = Bed::new(57);
    let _origin = endless(&bed);
    let jwt = json!({
        "type": "jwt", "secret": SECRET, "algorithm": "HS256", "sources": ["header:X-Token"],
    });
    let groups = json!({
        "signed": jwt,
        "keys": {"type": "token", "header": "X-Key", "value": "a"},
    });
    let cells = json!({"signed": {"http": 3000}, "keys": {"http": 3000}});
    bed.gate(CONTAINER, &json!({"groups": groups, "permissions": cells, "default": "deny"}));
    let short = format!("X-Token: {}\r\n", signed(1500));
    let (mut events_short, mut tunnel_short) = (events(&bed, &short), tunnel(&bed, &short));
    let mut tunnel_long = tunnel(&bed, &format!("X-Token: {}\r\n", signed(600_000)));
    let mut tunnel_both = tunnel(&bed, &format!("{short}X-Key: a\r\n"));
    echoes(&mut tunnel_short);
    assert!(events_short.is_closed());
    assert!(tunnel_short.is_closed());
    let mut late = bed.client();
    assert_eq!(late.get(&host(CONTAINER, "http-3000"), "/", &short).status, 403);
    echoes(&mut tunnel_long);
    echoes(&mut tunnel_both);
}
