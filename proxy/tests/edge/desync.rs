//! What real servers behind the edge take an attack for. Each attempt goes to each of them through
//! the edge; a server may see what the edge meant and nothing else, and all of them the same.
//!
//! The attempts of [`ROWS`] are octets of HTTP/1; those of `desync_h2` are frames of HTTP/2.

use std::panic::AssertUnwindSafe;

use crate::{
    bed::{Bed, CONTAINER, host},
    client::Client,
    desync_rows::{BODIES, FORMS, HEADS, HOPS, TARGETS},
    servers::{Seen, Server, all},
};

/// What must become of an attempt.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Fate {
    /// Answered with this status, and closed; nothing passes.
    Refused(u16),
    /// Answered with this status; the connection goes on. Nothing passes.
    Answered(u16),
    /// Not answered as if it were whole; nothing passes that is.
    Cut,
    /// Passes as these requests: method, target, body.
    Passes(&'static [(&'static str, &'static str, &'static str)]),
    /// As before, but a server may refuse each of them by itself.
    May(&'static [(&'static str, &'static str, &'static str)]),
}

/// One attempt: what is tried, its octets, what must become of it. `{h}` stands for the host, `{c}`
/// for a whole request that nobody may see unless the row says so.
pub(crate) type Row = (&'static str, &'static [u8], Fate);

/// The request behind an attempt. It brings a lie with it: one that passes by the edge's back keeps it.
const CANARY: &str = "GET /canary HTTP/1.1\r\nHost: {h}\r\nX-Forwarded-For: 6.6.6.6\r\n\r\n";

fn replace(octets: &[u8], what: &[u8], by: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    let mut rest = octets;
    while let Some(at) = rest.windows(what.len()).position(|window| window == what) {
        out.extend_from_slice(&rest[..at]);
        out.extend_from_slice(by);
        rest = &rest[at + what.len()..];
    }
    out.extend_from_slice(rest);
    out
}

/// The octets of a row for a host.
fn fill(octets: &[u8], name: &str) -> Vec<u8> {
    let upper = name.to_uppercase();
    let other = host(&"c".repeat(24), "http-3000");
    let octets = replace(octets, b"{c}", CANARY.as_bytes());
    let octets = replace(&octets, b"{H}", upper.as_bytes());
    let octets = replace(&octets, b"{other}", other.as_bytes());
    replace(&octets, b"{h}", name.as_bytes())
}

/// What a server may have seen by the fate of a row.
pub(crate) fn meant(fate: Fate) -> &'static [(&'static str, &'static str, &'static str)] {
    match fate {
        Fate::Passes(meant) | Fate::May(meant) => meant,
        Fate::Refused(_) | Fate::Answered(_) | Fate::Cut => &[],
    }
}

/// Makes an attempt, and looks at what the client sees of it.
fn attempt(bed: &Bed, name: &str, (what, octets, fate): Row) {
    let mut client = bed.client();
    _ = client.try_send(fill(octets, name));
    match fate {
        Fate::Refused(status) => {
            let reply = client.reply();
            assert_eq!(reply.status, status, "{what}: {}", reply.text());
            assert!(client.is_closed(), "{what}: closed after the refusal");
        }
        Fate::Answered(status) => {
            let reply = client.reply();
            assert_eq!(reply.status, status, "{what}: {}", reply.text());
            in_sync(&mut client, name, what);
        }
        Fate::Cut => {
            let answer = String::from_utf8_lossy(&client.rest()).into_owned();
            assert!(!answer.contains(" 200 "), "{what}: {answer}");
        }
        Fate::Passes(meant) => {
            for (_, target, _) in meant {
                let reply = client.reply();
                assert_eq!((reply.status, reply.text().as_str()), (200, *target), "{what}");
            }
            in_sync(&mut client, name, what);
        }
        Fate::May(meant) => {
            for _ in meant {
                client.reply();
            }
            in_sync(&mut client, name, what);
        }
    }
}

/// Both sides still agree on where a request begins, and on whose answer is whose.
fn in_sync(client: &mut Client, name: &str, what: &str) {
    let reply = client.get(name, "/after", "");
    assert_eq!((reply.status, reply.text().as_str()), (200, "/after"), "{what}");
}

/// What a server saw, without the two requests that every attempt is followed by.
pub(crate) fn judge(server: &mut Server, what: &str, fate: Fate, clean: &str) -> Vec<Seen> {
    let mut seen = server.seen_up_to(clean);
    assert_eq!(seen.pop().unwrap().target, clean);
    if matches!(fate, Fate::Passes(_) | Fate::May(_) | Fate::Answered(_)) {
        assert_eq!(seen.pop().unwrap().target, "/after", "{what} at {}", server.name);
    }
    let short: Vec<_> =
        seen.iter().map(|seen| (&*seen.method, &*seen.target, &*seen.body)).collect();
    if let Fate::May(meant) = fate {
        assert!(
            short.iter().all(|one| meant.contains(one)),
            "{what} at {}: {short:?}",
            server.name
        );
        assert!(short.len() <= meant.len(), "{what} at {}: {short:?}", server.name);
    } else {
        assert_eq!(short, meant(fate), "{what} at {}", server.name);
    }
    for seen in &seen {
        assert_eq!(seen.client, "127.0.0.1", "{what} at {}: {seen:?}", server.name);
        // Not every server shows them.
        let honest = if what == "honest trailers" { "x-sum" } else { "" };
        let trailers = seen.trailers.as_str();
        assert!(trailers.is_empty() || trailers == honest, "{what} at {}: {seen:?}", server.name);
    }
    seen
}

/// A host as any server is told, without what differs between servers.
pub(crate) fn normal(seen: &[Seen], port: u16) -> Vec<Seen> {
    let from = format!("http-{port}");
    let host = |seen: &Seen| seen.host.to_lowercase().replace(&from, "http-PORT");
    seen.iter()
        .map(|seen| Seen { host: host(seen), trailers: String::new(), ..seen.clone() })
        .collect()
}

#[test]
fn no_server_sees_a_request_that_the_edge_did_not_mean() {
    let bed = Bed::new(200);
    bed.set(CONTAINER, gantry_model::Phase::Running, 1);
    let directory = tempfile::tempdir().unwrap();
    let Some(mut servers) = all(&bed, directory.path()) else { return };
    let rows: Vec<Row> = [HEADS, BODIES, FORMS, TARGETS, HOPS].concat();
    assert!(rows.len() >= 40 && servers.len() >= 4);
    let mut wrong = Vec::new();
    for (number, row) in rows.into_iter().enumerate() {
        let tried = std::panic::catch_unwind(AssertUnwindSafe(|| {
            try_row(&bed, &mut servers, &format!("/clean-{number}"), row);
        }));
        wrong.extend(tried.err().map(|_| row.0));
    }
    assert!(wrong.is_empty(), "{wrong:?}");
}

/// Tries a row with all servers, each followed by a client that has nothing to do with it, on
/// whatever connection the edge has kept.
fn try_row(bed: &Bed, servers: &mut [Server], clean: &str, row: Row) {
    let (what, _, fate) = row;
    let mut views = Vec::new();
    for server in servers {
        let name = host(CONTAINER, &format!("http-{}", server.port));
        let made = std::panic::catch_unwind(AssertUnwindSafe(|| attempt(bed, &name, row)));
        let reply = bed.client().get(&name, clean, "");
        assert_eq!((reply.status, reply.text().as_str()), (200, clean), "after {what}");
        let seen = judge(server, what, fate, clean);
        assert!(made.is_ok(), "{what} at {}", server.name);
        views.push((server.name, normal(&seen, server.port)));
    }
    if let Fate::May(_) = fate {
        return;
    }
    for pair in views.windows(2) {
        assert_eq!(pair[0].1, pair[1].1, "{what}: {} and {} differ", pair[0].0, pair[1].0);
    }
}
