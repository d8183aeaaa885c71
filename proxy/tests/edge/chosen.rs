//! Limits that an operator has chosen take effect, and what they refuse or end is counted.

use std::{net::SocketAddr, sync::mpsc, time::Duration};

use base64::{Engine, engine::general_purpose::STANDARD};
use gantry_model::Phase;
use gantry_proxy::{Limits, LogsConfig};
use serde_json::{Value, json};

use crate::{
    bed::{Bed, CONTAINER, Setup, host},
    client::Reply,
    origin::{Origin, reply},
    python,
    wait::wait_for,
};

fn bed(number: u8, change: impl FnOnce(&mut Limits)) -> Bed {
    let mut setup = Setup::default();
    change(&mut setup.limits);
    Bed::with(number, setup)
}

fn refused(limit: &str) -> String {
    format!("gantry_proxy_refused_total{{limit=\"{limit}\"}}")
}

fn cut(limit: &str) -> String {
    format!("gantry_proxy_cut_total{{limit=\"{limit}\"}}")
}

#[test]
fn connections_to_containers_are_kept_as_far_as_an_operator_wants() {
    for (per_port, in_all, reused) in [(64, 4096, 4.0), (0, 4096, 0.0), (64, 0, 0.0), (64, 1, 2.0)]
    {
        let bed = bed(134, |limits| {
            (limits.pool_per_port_max, limits.pool_max) = (per_port, in_all);
        });
        let _origin = bed.running();
        let _other = Origin::simple(SocketAddr::new(bed.container_address(2), 3001));
        for port in ["http-3000", "http-3001"] {
            for _ in 0..3 {
                assert_eq!(bed.client().get(&host(CONTAINER, port), "/", "").status, 200);
            }
        }
        bed.wait_metric("gantry_proxy_upstream_reuses_total", reused);
    }
}

/// A document that lets in who knows the password `right`.
fn by_password() -> Value {
    json!({
        "groups": {"g": {"type": "password", "username": "ann", "password": "right"}},
        "permissions": {"g": {"http": 3000}},
        "default": "deny",
    })
}

fn basic(password: &str) -> String {
    format!("Authorization: Basic {}\r\n", STANDARD.encode(format!("ann:{password}")))
}

#[test]
fn an_address_may_be_wrong_as_often_as_an_operator_wants() {
    let bed = bed(135, |limits| limits.password_failures_max = 2);
    let _origin = bed.running();
    bed.gate(CONTAINER, &by_password());
    let guess =
        |password: &str| bed.client().get(&host(CONTAINER, "http-3000"), "/", &basic(password));
    assert_eq!([guess("1").status, guess("2").status], [401, 401]);
    bed.wait_metric(&refused("password_failures"), 0.0);
    let third = guess("3");
    assert_eq!((third.status, third.code()), (429, Some("TOO_MANY_ATTEMPTS")));
    bed.wait_metric(&refused("password_failures"), 1.0);
}

#[test]
fn as_many_passwords_are_checked_at_once_as_an_operator_wants() {
    let bed = bed(136, |limits| limits.credential_checks_max = 1);
    let origin = bed.running();
    bed.gate(CONTAINER, &by_password());
    // All threads that could check are busy until they are told.
    let (told, tell): (Vec<_>, Vec<_>) = (0..crate::bed::BLOCKING_THREADS)
        .map(|_| {
            let (tell, told) = mpsc::channel::<()>();
            // It ends with the test.
            let wait = move || _ = told.recv();
            (bed.runtime.as_ref().unwrap().spawn_blocking(wait), tell)
        })
        .unzip();
    let name = host(CONTAINER, "http-3000");
    let mut clients = [bed.client(), bed.client()];
    for client in &mut clients {
        client.send(format!("GET / HTTP/1.1\r\nHost: {name}\r\n{}\r\n", basic("right")));
    }
    bed.wait_metric(&refused("credential_checks"), 1.0);
    drop(tell);
    let mut statuses = clients.map(|mut client| client.reply().status);
    statuses.sort_unstable();
    assert_eq!(statuses, [200, 503]);
    assert_eq!(origin.seen().len(), 1);
    drop(told);
}

fn logs(number: u8, logs: LogsConfig) -> Bed {
    Bed::with(number, Setup { logs, ..Setup::default() })
}

fn read(bed: &Bed, path: &str) -> Reply {
    bed.client().get(&host(CONTAINER, "logs-1"), path, "")
}

#[test]
fn a_log_is_read_as_often_as_an_operator_wants() {
    let bed = logs(137, LogsConfig { reads_per_minute: 3, ..LogsConfig::default() });
    bed.set(CONTAINER, Phase::Running, 1);
    assert!((0..3).all(|_| read(&bed, "/_logs").status == 200));
    let fourth = read(&bed, "/_logs");
    assert_eq!((fourth.status, fourth.value("retry-after")), (429, Some("20")));
    bed.wait_metric(&refused("log_reads"), 1.0);
}

#[test]
fn bodies_are_kept_as_far_as_an_operator_wants() {
    for (bodies_per_container, shown, not_kept) in
        [(32, json!("abcde"), 0.0), (0, Value::Null, 1.0)]
    {
        let config = LogsConfig { body_bytes: 5, bodies_per_container, ..LogsConfig::default() };
        let bed = logs(138, config);
        let _origin = bed.running_with(|_, stream| {
            reply(stream, "Content-Type: text/plain", "abcdefgh");
        });
        bed.change(CONTAINER, |edge| edge.settings.log_bodies = true);
        let document = json!({
            "groups": {"g": {"type": "ip", "range": "127.0.0.0/8"}},
            "permissions": {"g": {"http": true, "logs": true}}
        });
        bed.gate(CONTAINER, &document);
        assert_eq!(bed.client().get(&host(CONTAINER, "http-3000"), "/", "").status, 200);
        let entry = wait_for("the answer is in the log", Duration::from_secs(10), || {
            let entries = read(&bed, "/_logs?kind=response&includeResponseBody=true");
            let entries: Value = serde_json::from_slice(&entries.body).unwrap();
            let entry = &entries["entries"][0];
            entry.is_object().then(|| entry.clone())
        });
        let entry = entry.unwrap();
        assert_eq!((&entry["responseBody"], &entry["bodyTruncated"]), (&shown, &json!(true)));
        bed.wait_metric(&refused("log_bodies"), not_kept);
    }
}

#[test]
fn a_connection_brings_as_many_broken_requests_as_an_operator_wants() {
    let bed = bed(139, |limits| limits.broken_max = 3);
    let _origin = bed.running();
    let name = host(CONTAINER, "http-3000");
    let Some(client) = python::ask(&bed, "http3_client.py", &name, &["broken", "4"]) else {
        return;
    };
    client.ends();
    bed.wait_metric(&cut("broken_requests"), 1.0);
}

#[test]
fn clients_of_http3_prove_their_address_as_soon_as_an_operator_wants() {
    for (unproven_max, want) in [(64, "at once"), (0, "proved")] {
        let bed = bed(148, |limits| limits.unproven_max = unproven_max);
        let _origin = bed.running();
        let name = host(CONTAINER, "http-3000");
        let Some(mut client) = python::ask(&bed, "http3_client.py", &name, &["proves"]) else {
            return;
        };
        client.says(want);
        client.ends();
    }
}
